//! A plugin from its files: each parsed strictly, and all of them about the same thing.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use op_dbus_engine::{Error, ErrorKind};
use op_dbus_formats::TextError;
use op_dbus_formats::introspection::{self, Interface, Method, Node, Property};
use op_dbus_formats::plugin::{self, Plugin, PluginSource};
use op_dbus_formats::semantic_mapping::{self, SemanticMapping, is_qualified};

type Result<T, E = Error> = std::result::Result<T, E>;

/// The file that makes a directory a plugin.
pub(crate) const PLUGIN_FILE: &str = "plugin.toml";
/// What the service of an auto-generated plugin said of itself.
pub(crate) const INTROSPECTION_FILE: &str = "introspection.xml";
/// What its members mean.
pub(crate) const MAPPING_FILE: &str = "semantic-mapping.toml";

/// No file of a plugin is longer; the parsers have limits of their own.
const FILE_LEN_MAX_BYTES: u64 = 8 << 20;
/// Whoever may write a plugin decides what is run and called.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// A plugin that is right, as far as its files say.
#[derive(Clone, Debug)]
pub struct LoadedPlugin {
    /// What `plugin.toml` says.
    pub plugin: Plugin,
    /// Where its other files are; none if it is a file alone.
    pub directory: Option<PathBuf>,
    /// Of an auto-generated one: what its service is.
    pub service: Option<MappedService>,
}

impl LoadedPlugin {
    /// The object of its service: as the mapping says, else `plugin.toml`.
    #[must_use]
    pub fn service_path(&self) -> &str {
        let mapped = self.service.as_ref().and_then(|known| known.mapping.service.path.as_deref());
        mapped.or(self.plugin.dbus_path()).unwrap_or("/")
    }
}

/// A D-Bus service that is called through a plugin.
#[derive(Clone, Debug)]
pub struct MappedService {
    /// The interfaces that its object has.
    pub introspection: Node,
    /// What their members mean.
    pub mapping: SemanticMapping,
}

impl MappedService {
    /// Finds a method by `Member` or `interface.Member`; among several of the same name that of the
    /// mapping's interface.
    pub(crate) fn method(&self, name: &str) -> Option<(&Interface, &Method)> {
        let (interface, member) = match name.rsplit_once('.') {
            Some((interface, member)) => (Some(interface), member),
            None => (self.mapping.service.interface.as_deref(), name),
        };
        let methods =
            self.introspection.interfaces.iter().flat_map(|interface| {
                interface.methods.iter().map(move |method| (interface, method))
            });
        let mut named = methods.filter(|(_, method)| method.name == member);
        match interface {
            Some(wanted) => named.find(|(interface, _)| interface.name == wanted),
            None => {
                let first = named.next()?;
                // Of two with the same name nobody knows which is meant.
                named.next().is_none().then_some(first)
            }
        }
    }

    /// The interface and the property that a name of the mapping means, plain or qualified; the plain
    /// one in the mapping's interface, if that is said.
    pub(crate) fn property(&self, name: &str) -> Option<(&Interface, &Property)> {
        let wanted = self.mapping.service.interface.as_deref();
        let is_meant = |(interface, property): &(&Interface, &Property)| {
            is_qualified(name, &interface.name, &property.name)
                || (name == property.name && wanted.is_none_or(|wanted| wanted == interface.name))
        };
        self.properties().find(is_meant)
    }

    fn has_property(&self, name: &str) -> bool {
        let named = |(interface, property): (&Interface, &Property)| {
            name == property.name || is_qualified(name, &interface.name, &property.name)
        };
        self.properties().any(named)
    }

    /// Whether a name may be that of one property of some interface, or another of a shorter one:
    /// properties may have points in their names.
    fn is_ambiguous(&self, name: &str) -> bool {
        let qualified = self
            .properties()
            .filter(|(interface, property)| is_qualified(name, &interface.name, &property.name));
        let qualified_count = qualified.count();
        let is_plain = self.properties().any(|(_, property)| property.name == name);
        qualified_count + usize::from(is_plain) > 1
    }

    fn properties(&self) -> impl Iterator<Item = (&Interface, &Property)> {
        self.introspection.interfaces.iter().flat_map(|interface| {
            interface.properties.iter().map(move |property| (interface, property))
        })
    }
}

/// Loads the plugin whose `plugin.toml` is here, whatever that file is called.
///
/// # Errors
/// [`ErrorKind::Invalid`] with file, line and column if a file is wrong, or says something else than
/// another; [`ErrorKind::Denied`] if others than root and this user may write it.
pub fn check(path: &Path) -> Result<LoadedPlugin> {
    let path = path.canonicalize().map_err(|error| Error::io("find", path, error))?;
    let path = if path.is_dir() { path.join(PLUGIN_FILE) } else { path };
    let plugin = parsed(&path, plugin::parse)?;
    let directory = directory_of(&path, &plugin);
    let service = match &plugin.source {
        PluginSource::HandWritten { .. } => None,
        PluginSource::AutoGenerated { .. } => {
            let Some(directory) = &directory else {
                return Err(invalid(&path, "has no introspection.xml and semantic-mapping.toml"));
            };
            Some(mapped(directory, &plugin)?)
        }
    };
    Ok(LoadedPlugin { plugin, directory, service })
}

/// The directory that the plugin's file is in, or that is beside it with its name.
fn directory_of(path: &Path, plugin: &Plugin) -> Option<PathBuf> {
    let parent = path.parent()?;
    if path.file_name().is_some_and(|name| name == PLUGIN_FILE) {
        return Some(parent.to_owned());
    }
    let beside = parent.join(plugin.name.as_str());
    beside.is_dir().then_some(beside)
}

fn mapped(directory: &Path, plugin: &Plugin) -> Result<MappedService> {
    let introspection = parsed(&directory.join(INTROSPECTION_FILE), introspection::parse)?;
    let path = directory.join(MAPPING_FILE);
    let mapping = parsed(&path, semantic_mapping::parse)?;
    let wanted = plugin.dbus_service().unwrap_or_default();
    if mapping.service.name != wanted {
        let named = &mapping.service.name;
        return Err(invalid(&path, &format!("is about {named}, and {PLUGIN_FILE} about {wanted}")));
    }
    let service = MappedService { introspection, mapping };
    match contradiction(&service) {
        Some(problem) => Err(invalid(&path, &problem)),
        None => Ok(service),
    }
}

/// What a mapping says of members that there are not.
fn contradiction(service: &MappedService) -> Option<String> {
    let mapping = &service.mapping;
    for (name, mapped) in &mapping.methods {
        let Some((_, method)) = service.method(name) else {
            return Some(format!("maps the method {name}, which {INTROSPECTION_FILE} has not"));
        };
        let given = method.inputs().count();
        if let Some(args) = &mapped.args
            && args.len() != given
        {
            return Some(format!("gives {name} {} arguments; it has {given}", args.len()));
        }
    }
    let missing = mapping.properties.keys().find(|name| !service.has_property(name));
    if let Some(name) = missing {
        return Some(format!("maps the property {name}, which {INTROSPECTION_FILE} has not"));
    }
    let read = mapping.state.values().map(|state| &state.property);
    if let Some(name) =
        mapping.properties.keys().chain(read).find(|name| service.is_ambiguous(name))
    {
        return Some(format!("has the name {name}, which is that of two properties"));
    }
    mapping.state.iter().find_map(|(key, state)| {
        if !service.has_property(&state.property) {
            return Some(format!(
                "reads {key} from the property {}, which is not there",
                state.property
            ));
        }
        let setter = state.setter.as_ref()?;
        match service.method(&setter.method) {
            Some((_, method)) if method.inputs().count() == setter.args.len() => None,
            Some(_) => Some(format!("sets {key} by {}, which has other arguments", setter.method)),
            None => Some(format!("sets {key} by the method {}, which is not there", setter.method)),
        }
    })
}

fn parsed<T>(path: &Path, parse: fn(&[u8]) -> Result<T, TextError>) -> Result<T> {
    let bytes = read(path)?;
    parse(&bytes).map_err(|error| {
        let problem = format!("{}: {error}", path.display());
        Error::new(ErrorKind::Invalid, problem).with_remedy("correct the file")
    })
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let file = File::open(path).map_err(|error| Error::io("open", path, error))?;
    let metadata = file.metadata().map_err(|error| Error::io("read", path, error))?;
    let own = rustix::process::geteuid().as_raw();
    let is_strange = metadata.uid() != 0 && metadata.uid() != own;
    if is_strange || metadata.mode() & WRITABLE_BY_OTHERS != 0 {
        let problem = format!("{} can be changed by others than root", path.display());
        let remedy = format!("chown root {0} && chmod go-w {0}", path.display());
        return Err(Error::new(ErrorKind::Denied, problem).with_remedy(remedy));
    }
    let mut bytes = Vec::new();
    file.take(FILE_LEN_MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Error::io("read", path, error))?;
    if bytes.len() as u64 > FILE_LEN_MAX_BYTES {
        return Err(invalid(path, &format!("is longer than {FILE_LEN_MAX_BYTES} bytes")));
    }
    Ok(bytes)
}

fn invalid(path: &Path, problem: &str) -> Error {
    Error::new(ErrorKind::Invalid, format!("{} {problem}", path.display()))
        .with_remedy("correct the plugin")
}
