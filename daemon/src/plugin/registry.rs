//! All plugins of a directory: those that are right, and why the others are not.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use op_dbus_engine::ErrorKind;

use super::load::{LoadedPlugin, PLUGIN_FILE, check};
use crate::error::BusError;

/// More in one directory is a mistake.
const PLUGINS_COUNT_MAX: usize = 1000;

/// A plugin by its name, or a file that is none.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Where it was found.
    pub path: PathBuf,
    /// The plugin, or what is wrong with it, in a line.
    pub loaded: Result<Arc<LoadedPlugin>, String>,
}

/// Plugins by name; those that have none because they could not be read by that of their file.
#[derive(Clone, Debug, Default)]
pub struct Plugins(pub BTreeMap<String, Entry>);

impl Plugins {
    /// Loads everything in a directory. One that is not there has no plugins.
    #[must_use]
    pub fn load(directory: &Path) -> Self {
        let mut found = BTreeMap::new();
        let mut seen = Vec::new();
        for path in candidates(directory) {
            // The same plugin may be a directory, and a link into it beside that.
            let real = path.canonicalize().unwrap_or_else(|_| path.clone());
            if seen.contains(&real) {
                continue;
            }
            seen.push(real);
            add(&mut found, path);
        }
        Self(found)
    }

    /// A plugin that is right.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none of this name, [`ErrorKind::Invalid`] with what is wrong
    /// with it.
    pub fn loaded(&self, name: &str) -> Result<&Arc<LoadedPlugin>, BusError> {
        let entry = self.0.get(name).ok_or_else(|| {
            let problem = format!("there is no plugin {name}");
            BusError::new(ErrorKind::NotFound, problem, "install it, and see op-dbus plugin list")
        })?;
        entry.loaded.as_ref().map_err(|problem| {
            let problem = format!("the plugin {name} could not be loaded: {problem}");
            BusError::new(ErrorKind::Invalid, problem, "correct it, and reload")
        })
    }
}

fn add(found: &mut BTreeMap<String, Entry>, path: PathBuf) {
    let loaded = check(&path);
    let name = match &loaded {
        Ok(loaded) => loaded.plugin.name.to_string(),
        Err(_) => name_of_file(&path),
    };
    let loaded = loaded.map(Arc::new).map_err(|error| error.chain());
    match found.get(&name) {
        None => drop(found.insert(name, Entry { path, loaded })),
        Some(other) => {
            let problem = format!("the name {name} is that of {}, too", other.path.display());
            tracing::warn!(plugin = %path.display(), problem);
            let name = format!("{name} ({})", path.display());
            found.insert(name, Entry { path, loaded: Err(problem) });
        }
    }
}

/// Directories with a `plugin.toml`, and files that end in `.toml`, in the order of their names.
fn candidates(directory: &Path) -> Vec<PathBuf> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            tracing::error!(%error, directory = %directory.display(), "plugins cannot be read");
            return Vec::new();
        }
    };
    let candidate = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.ok()?.path();
        if path.is_dir() {
            let file = path.join(PLUGIN_FILE);
            return file.exists().then_some(file);
        }
        (path.extension()? == "toml").then_some(path)
    };
    let mut candidates: Vec<PathBuf> = entries.filter_map(candidate).collect();
    candidates.sort();
    if candidates.len() > PLUGINS_COUNT_MAX {
        tracing::error!(
            count = candidates.len(),
            "of so many plugins only {PLUGINS_COUNT_MAX} count"
        );
        candidates.truncate(PLUGINS_COUNT_MAX);
    }
    candidates
}

/// What a plugin is called that does not say it: its file's name, or its directory's.
fn name_of_file(path: &Path) -> String {
    let is_in_directory = path.file_name().is_some_and(|name| name == PLUGIN_FILE);
    let named =
        if is_in_directory { path.parent().and_then(Path::file_name) } else { path.file_stem() };
    named.unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
