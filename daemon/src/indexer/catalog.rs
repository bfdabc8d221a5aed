//! Interfaces that files describe: those that services install for everybody to read, and those of
//! plugins. Services say little of themselves on the bus; what stands in their files is added to it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use op_dbus_formats::introspection::{
    self, Argument, DOCUMENT_LEN_MAX_BYTES, Interface, Method, Node, Property, Signal,
};

use crate::descriptions::Descriptions;
use crate::plugin::Plugins;
use crate::plugin::create::is_standard;

/// More in one directory is a mistake.
const FILES_COUNT_MAX: usize = 5_000;
/// Of all directories.
const FILES_BYTES_MAX: usize = 64 << 20;

/// An interface that a file describes.
#[derive(Clone, Debug)]
pub(super) struct Described {
    pub(super) interface: Interface,
    /// Of a plugin's, or as the file says.
    pub(super) service: Option<String>,
    pub(super) path: Option<String>,
}

/// All that files say.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    pub(super) interfaces: BTreeMap<String, Described>,
    pub(super) descriptions: Descriptions,
}

impl Catalog {
    /// Reads directories, those that are not there too, and adds what plugins say. Of an interface
    /// that is described twice the first counts.
    pub(super) fn read(directories: &[PathBuf], plugins: &Plugins) -> Self {
        let mut catalog =
            Self { interfaces: BTreeMap::new(), descriptions: Descriptions::shipped() };
        let mut bytes_left = FILES_BYTES_MAX;
        for path in directories.iter().flat_map(|directory| files(directory)) {
            match read(&path, &mut bytes_left) {
                Ok(Some(node)) => catalog.add(node, None, None),
                Ok(None) => {
                    tracing::warn!(
                        "over {FILES_BYTES_MAX} bytes of interfaces: the rest is not read"
                    );
                    break;
                }
                Err(problem) => tracing::warn!(path = %path.display(), problem, "left out"),
            }
        }
        let loaded = plugins.0.values().filter_map(|entry| entry.loaded.as_ref().ok());
        for service in loaded.filter_map(|plugin| plugin.service.as_ref()) {
            let about = &service.mapping.service;
            catalog.descriptions.add(service.mapping.clone());
            let node = Node { name: about.path.clone(), ..service.introspection.clone() };
            catalog.add(node, Some(&about.name), None);
        }
        catalog
    }

    /// The parser bounds the depth of nodes, and with it that of this recursion.
    fn add(&mut self, node: Node, service: Option<&str>, path: Option<&str>) {
        let own = node.name.as_deref().filter(|name| name.starts_with('/'));
        let path = path.or(own);
        for interface in node.interfaces {
            // A plugin has what every object has, and says nothing about it.
            if service.is_some() && is_standard(&interface.name) {
                continue;
            }
            let (service, path) = (service.map(str::to_owned), path.map(str::to_owned));
            match self.interfaces.entry(interface.name.clone()) {
                Entry::Vacant(entry) => {
                    entry.insert(Described { interface, service, path });
                }
                // What a file says nothing about.
                Entry::Occupied(mut entry)
                    if entry.get().service.is_none() && service.is_some() =>
                {
                    let known = entry.get_mut();
                    known.service = service;
                    known.path = path.or(known.path.take());
                }
                Entry::Occupied(_) => {}
            }
        }
        for inner in node.nodes {
            self.add(inner, service, path);
        }
    }
}

/// The XML files of a directory, in the order of their names.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            tracing::warn!(%error, directory = %directory.display(), "interfaces are not read");
            return Vec::new();
        }
    };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    // What is no file might never end.
    let is_wanted =
        |path: &PathBuf| path.extension().is_some_and(|end| end == "xml") && path.is_file();
    let mut files: Vec<PathBuf> = paths.filter(is_wanted).take(FILES_COUNT_MAX).collect();
    files.sort();
    files
}

/// Reads a file; nothing if there was too much before.
fn read(path: &Path, bytes_left: &mut usize) -> Result<Option<Node>, String> {
    let mut xml = Vec::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    // A byte more than the parser takes, so that the parser refuses what is too long.
    let mut file = file.take(DOCUMENT_LEN_MAX_BYTES as u64 + 1);
    file.read_to_end(&mut xml).map_err(|error| error.to_string())?;
    let Some(left) = bytes_left.checked_sub(xml.len()) else { return Ok(None) };
    *bytes_left = left;
    introspection::parse(&xml).map(Some).map_err(|error| error.to_string())
}

/// Adds to what a service says of itself what its file says about the same.
pub(super) fn documented(mut live: Interface, described: &Interface) -> Interface {
    fill(&mut live.documentation, &described.documentation);
    for Method { name, documentation, arguments, .. } in &mut live.methods {
        if let Some(known) = described.methods.iter().find(|known| known.name == *name) {
            fill(documentation, &known.documentation);
            name_arguments(arguments, &known.arguments);
        }
    }
    for Signal { name, documentation, arguments, .. } in &mut live.signals {
        if let Some(known) = described.signals.iter().find(|known| known.name == *name) {
            fill(documentation, &known.documentation);
            name_arguments(arguments, &known.arguments);
        }
    }
    for Property { name, documentation, .. } in &mut live.properties {
        if let Some(known) = described.properties.iter().find(|known| known.name == *name) {
            fill(documentation, &known.documentation);
        }
    }
    live
}

fn fill(documentation: &mut Option<String>, known: &Option<String>) {
    if documentation.is_none() {
        documentation.clone_from(known);
    }
}

/// Only where they are the same arguments still.
fn name_arguments(arguments: &mut [Argument], known: &[Argument]) {
    let kind = |argument: &Argument| (argument.direction, argument.type_signature.clone());
    if !arguments.iter().map(kind).eq(known.iter().map(kind)) {
        return;
    }
    for (argument, known) in arguments.iter_mut().zip(known) {
        if argument.name.is_none() {
            argument.name.clone_from(&known.name);
        }
        fill(&mut argument.documentation, &known.documentation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "<node name='/lamp'><interface name='x.Lamp'>
        <!-- Switches it. --><method name='Switch'><arg name='on' type='b' direction='in'/></method>
        <!-- Its level. --><property name='Level' type='u' access='read'/>
        <!-- It changed. --><signal name='Changed'/></interface>
        <node name='a'><interface name='x.Inner'/></node></node>";

    #[test]
    fn files_are_read_and_what_is_wrong_is_left_out() {
        let directory = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        write("a.xml", FILE);
        write("b.xml", "<node><interface name='x.Lamp'/></node>");
        write("c.xml", "<node>");
        write("d.txt", "<node><interface name='x.Text'/></node>");
        std::fs::create_dir(directory.path().join("e.xml")).unwrap();
        let directories = [directory.path().join("none"), directory.path().to_owned()];
        let catalog = Catalog::read(&directories, &Plugins::default());
        assert_eq!(catalog.interfaces.keys().collect::<Vec<_>>(), ["x.Inner", "x.Lamp"]);
        let lamp = &catalog.interfaces["x.Lamp"];
        assert_eq!((lamp.interface.methods.len(), lamp.service.as_ref()), (1, None));
    }

    #[test]
    fn what_a_file_says_is_added_to_what_the_service_says() {
        let interface =
            |xml: &str| introspection::parse(xml.as_bytes()).unwrap().interfaces.remove(0);
        let live = interface(
            "<node><interface name='x.Lamp'>
             <method name='Switch'><arg type='b' direction='in'/></method><method name='New'/>
             <!-- Its own words. --><property name='Level' type='u' access='read'/>
             <signal name='Changed'><arg type='s'/></signal></interface></node>",
        );
        let lamp = documented(live, &interface(FILE));
        let [switch, new] = &lamp.methods[..] else { panic!("{lamp:?}") };
        assert_eq!(switch.documentation.as_deref(), Some("Switches it."));
        assert_eq!(switch.arguments[0].name.as_deref(), Some("on"));
        assert_eq!(new.documentation, None);
        assert_eq!(lamp.properties[0].documentation.as_deref(), Some("Its own words."));
        assert_eq!(lamp.signals[0].documentation.as_deref(), Some("It changed."));
        assert_eq!(lamp.signals[0].arguments[0].name, None);
    }
}
