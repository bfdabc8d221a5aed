//! The ONNX Runtime library of this process: where it is found and how it is opened.
//!
//! The library is no build dependency: it is looked for when the first session is
//! loaded. A path that the caller or the environment names is the only one tried,
//! since another library in its place would be a silent surprise; without one our own
//! directories come first, then what the system's loader finds.
//!
//! Invariants: a process has one library and one environment, which live until it
//! ends (the runtime allows no second, and tearing it down at exit races with its
//! own threads). Nothing here panics over a missing, foreign or old library: it is
//! probed before the binding crate, which would, sees it. A failure is not
//! remembered, so a library installed later is found.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ort::environment::Environment;
use ort::logging::LogLevel;

use crate::error::{Error, ErrorKind, Result};
use crate::os::environment::set_early;

const LIBRARY_NAME: &str = "libonnxruntime.so";
/// What the system's loader is asked for: the name that packages install for
/// programs, then the one for development.
const LOADER_NAMES: [&str; 2] = ["libonnxruntime.so.1", LIBRARY_NAME];
const PATH_VARIABLE: &str = "ORT_DYLIB_PATH";
const NO_TELEMETRY_VARIABLE: &str = "ORT_DISABLE_TELEMETRY";

/// The opened library.
#[derive(Debug)]
pub(super) struct Runtime {
    pub(super) environment: Environment,
    pub(super) library: Library,
}

/// A library that has been probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Library {
    /// Its path, or the bare name under which the system's loader knows it.
    pub(super) path: PathBuf,
    /// The N of its version 1.N.
    pub(super) minor_version: u32,
}

/// Forbids ONNX Runtime to tell others of its use.
///
/// Since version 1.29 its official builds send Microsoft who they are while the environment is made,
/// before it can be told not to, and keep a number of this machine in `~/.cache/Microsoft`. Only a
/// variable forbids both, and only before a process has a second thread may a variable be set: a
/// program calls this first. Returns whether the variable is set now.
pub fn forbid_telemetry() -> bool {
    set_early(NO_TELEMETRY_VARIABLE, "1")
}

/// Returns the process's runtime, opening it if need be.
///
/// # Errors
/// [`ErrorKind::Unavailable`] if there is no library or only an older one, or if
/// something else in the process has made an environment; [`ErrorKind::Invalid`] if
/// `explicit` is not the library that is open.
pub(super) fn open(explicit: Option<&Path>) -> Result<&'static Runtime> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    /// Held while opening. The library stays loaded even where its environment fails.
    static LIBRARY: Mutex<Option<Library>> = Mutex::new(None);

    let mut loaded = LIBRARY.lock().unwrap_or_else(PoisonError::into_inner);
    let library = match loaded.as_ref() {
        Some(library) => {
            require_same(library, explicit)?;
            library.clone()
        }
        None => Places::of_process(explicit)?.find(probe)?,
    };
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let builder = ort::init_from(&library.path).map_err(|source| {
        unavailable(format!("cannot load the ONNX Runtime library {}", library.path.display()))
            .with_source(source)
    })?;
    *loaded = Some(library.clone());
    let environment = builder
        .with_name("op-dbus")
        .with_telemetry(false)
        .with_logger(Arc::new(log))
        .build()
        .map_err(|source| {
            Error::new(ErrorKind::Unavailable, "cannot create the ONNX Runtime environment")
                .with_remedy("let nothing else in this process create one")
                .with_source(source)
        })?;
    // With a logger of ours the runtime would format every verbose message first.
    environment.set_log_level(LogLevel::Warning);
    Ok(RUNTIME.get_or_init(|| Runtime { environment, library }))
}

fn require_same(library: &Library, explicit: Option<&Path>) -> Result<()> {
    let Some(wanted) = explicit else { return Ok(()) };
    let same = wanted == library.path
        || matches!((wanted.canonicalize(), library.path.canonicalize()), (Ok(a), Ok(b)) if a == b);
    if same {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Invalid,
        format!(
            "cannot use the ONNX Runtime library {}: this process has already opened {}",
            wanted.display(),
            library.path.display()
        ),
    )
    .with_remedy("name the same library everywhere in a process"))
}

/// Where a library may be, first place first.
struct Places {
    explicit: Option<PathBuf>,
    variable: Option<PathBuf>,
    directories: Vec<PathBuf>,
}

impl Places {
    fn of_process(explicit: Option<&Path>) -> Result<Self> {
        // The binding crate would take a relative path to start at the executable.
        let absolute = |path: &Path| {
            std::path::absolute(path).map_err(|source| Error::io("resolve", path, source))
        };
        let variable = std::env::var_os(PATH_VARIABLE).filter(|value| !value.is_empty());
        let variable = match variable.map(PathBuf::from) {
            Some(path) if !is_bare_name(&path) => Some(absolute(&path)?),
            other => other,
        };
        let data_home = std::env::var_os("XDG_DATA_HOME")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
            .or_else(|| std::env::home_dir().map(|home| home.join(".local/share")));
        let own = data_home.map(|path| path.join("op-dbus/lib"));
        let installed = ["/usr/lib/op-dbus", "/usr/local/lib/op-dbus"].map(PathBuf::from);
        let mut directories: Vec<PathBuf> = own.into_iter().chain(installed).collect();
        // Where no package is installed below /usr, each has a prefix of its own.
        let executable = std::env::current_exe().ok();
        let beside = executable.and_then(|path| Some(path.parent()?.parent()?.join("lib/op-dbus")));
        directories.extend(beside.filter(|path| !directories.contains(path)));
        Ok(Self { explicit: explicit.map(absolute).transpose()?, variable, directories })
    }

    /// Returns the first library that `probe` accepts.
    fn find(&self, probe: impl Fn(&Path) -> Probe) -> Result<Library> {
        let mut tried = Vec::new();
        let mut attempt = |path: &Path, name: &str| match probe(path) {
            Probe::Version(minor_version) if minor_version >= ort::MINOR_VERSION => {
                Some(Library { path: path.to_owned(), minor_version })
            }
            Probe::Version(minor) => {
                tried.push(format!("{name} (its version 1.{minor} is too old)"));
                None
            }
            Probe::Unusable(why) => {
                tried.push(format!("{name} ({why})"));
                None
            }
        };
        if let Some(path) = &self.explicit {
            let found = attempt(path, &path.display().to_string());
            return found.ok_or_else(|| not_found(&tried));
        }
        if let Some(path) = &self.variable {
            let found = attempt(path, &format!("{PATH_VARIABLE}={}", path.display()));
            return found.ok_or_else(|| not_found(&tried));
        }
        for directory in &self.directories {
            let candidates = libraries_in(directory);
            for path in &candidates {
                if let Some(library) = attempt(path, &path.display().to_string()) {
                    return Ok(library);
                }
            }
        }
        for name in LOADER_NAMES {
            let shown = format!("{name} on the system's library path");
            if let Some(library) = attempt(Path::new(name), &shown) {
                return Ok(library);
            }
        }
        let empty = self.directories.iter().filter(|directory| libraries_in(directory).is_empty());
        let empty = empty.map(|directory| format!("{} (none there)", directory.display()));
        Err(not_found(&empty.chain(tried).collect::<Vec<_>>()))
    }
}

/// Returns the libraries in `directory`, newest first.
fn libraries_in(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .filter_map(|entry| Some((version_in(entry.file_name().to_str()?)?, entry.path())))
        .collect();
    found.sort_unstable_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, path)| path).collect()
}

/// Returns the version in a library's file name: `[1, 32, 0]` of `libonnxruntime.so.1.32.0`.
fn version_in(file_name: &str) -> Option<Vec<u32>> {
    let suffix = file_name.strip_prefix(LIBRARY_NAME)?;
    match suffix.strip_prefix('.') {
        None => suffix.is_empty().then(Vec::new),
        Some(version) => version.split('.').map(|number| number.parse().ok()).collect(),
    }
}

/// What a file turned out to be.
enum Probe {
    /// ONNX Runtime 1.N.
    Version(u32),
    /// Something else, and why.
    Unusable(String),
}

fn probe(path: &Path) -> Probe {
    if !is_bare_name(path) && !path.is_file() {
        return Probe::Unusable("no such file".to_owned());
    }
    if let Some(minor_version) = ort::util::probe(path) {
        return Probe::Version(minor_version);
    }
    // The probe does not say why it failed; the loader does.
    Probe::Unusable(match ort::util::preload_dylib(path) {
        Err(error) if is_bare_name(path) => {
            tracing::debug!(%error, name = %path.display(), "no library by this name");
            "not found".to_owned()
        }
        Err(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            format!("it cannot be loaded: {}", cause.unwrap_or_else(|| error.to_string()))
        }
        Ok(()) => "it is no ONNX Runtime 1.x".to_owned(),
    })
}

/// Says whether the system's loader would search for `path` rather than open it.
fn is_bare_name(path: &Path) -> bool {
    !path.as_os_str().as_encoded_bytes().contains(&b'/')
}

fn not_found(tried: &[String]) -> Error {
    unavailable(format!(
        "no ONNX Runtime library of version 1.{} or newer; looked at {}",
        ort::MINOR_VERSION,
        tried.join(", ")
    ))
}

fn unavailable(context: String) -> Error {
    Error::new(ErrorKind::Unavailable, context).with_remedy(format!(
        "run `make setup`, or set {PATH_VARIABLE} to the path of {LIBRARY_NAME}"
    ))
}

/// Passes the runtime's messages on, instead of letting it write to standard error.
fn log(level: LogLevel, category: &str, _id: &str, location: &str, message: &str) {
    match level {
        LogLevel::Verbose => tracing::trace!(category, location, "{message}"),
        LogLevel::Info => tracing::debug!(category, location, "{message}"),
        // About how it places operators; nothing that a user could mend.
        LogLevel::Warning => tracing::info!(category, location, "{message}"),
        LogLevel::Error | LogLevel::Fatal => tracing::error!(category, location, "{message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(directories: Vec<PathBuf>) -> Places {
        Places { explicit: None, variable: None, directories }
    }

    /// Takes the version from the file's name and knows nothing of the loader's.
    fn probe_by_name(path: &Path) -> Probe {
        let version = path.file_name().and_then(|name| version_in(name.to_str()?));
        match version.as_deref() {
            Some([1, minor, ..]) => Probe::Version(*minor),
            _ => Probe::Unusable("not found".to_owned()),
        }
    }

    #[test]
    fn the_newest_library_of_the_first_directory_wins() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for name in ["libonnxruntime.so.1.9.0", "libonnxruntime.so.1.30.1", "libonnxruntime.so"] {
            std::fs::write(first.path().join(name), "").unwrap();
        }
        std::fs::write(first.path().join("libonnxruntime.so.1.99.0.bak"), "").unwrap();
        std::fs::write(second.path().join("libonnxruntime.so.1.40.0"), "").unwrap();
        let places = places(vec![first.path().to_owned(), second.path().to_owned()]);
        let library = places.find(probe_by_name).unwrap();
        assert_eq!(library.path, first.path().join("libonnxruntime.so.1.30.1"));
        assert_eq!(library.minor_version, 30);
    }

    #[test]
    fn an_old_library_is_passed_over_for_a_later_directory() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(first.path().join("libonnxruntime.so.1.9.0"), "").unwrap();
        std::fs::write(second.path().join("libonnxruntime.so.1.24.4"), "").unwrap();
        let places = places(vec![first.path().to_owned(), second.path().to_owned()]);
        assert_eq!(places.find(probe_by_name).unwrap().minor_version, 24);
    }

    #[test]
    fn a_named_library_is_the_only_one_tried() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("libonnxruntime.so.1.32.0"), "").unwrap();
        let named = Places {
            explicit: Some("/nowhere/libonnxruntime.so".into()),
            ..places(vec![directory.path().to_owned()])
        };
        let by_variable = Places {
            variable: Some("/nowhere/libonnxruntime.so".into()),
            ..places(vec![directory.path().to_owned()])
        };
        for places in [named, by_variable] {
            let error = places.find(probe).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable);
            assert!(error.to_string().contains("/nowhere/libonnxruntime.so (no such file)"));
            assert!(!error.to_string().contains(&directory.path().display().to_string()));
        }
    }

    #[test]
    fn the_error_lists_every_place_and_the_remedy() {
        let (empty, old) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(old.path().join("libonnxruntime.so.1.9.0"), "").unwrap();
        let error = places(vec![empty.path().to_owned(), old.path().to_owned()])
            .find(probe_by_name)
            .unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&format!("{} (none there)", empty.path().display())), "{text}");
        assert!(text.contains("libonnxruntime.so.1.9.0 (its version 1.9 is too old)"), "{text}");
        for name in LOADER_NAMES {
            assert!(text.contains(&format!("{name} on the system's library path")), "{text}");
        }
        assert!(error.remedy().unwrap().contains("make setup"));
    }

    #[test]
    fn a_file_that_is_no_library_is_named_with_the_loaders_reason() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "not a library").unwrap();
        let Probe::Unusable(why) = probe(file.path()) else { panic!("it was accepted") };
        // The loader's own words name the file.
        assert!(why.contains("cannot be loaded"), "{why}");
        assert!(why.contains(file.path().to_str().unwrap()), "{why}");
    }

    #[test]
    fn another_library_than_the_open_one_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let real = directory.path().join("libonnxruntime.so.1.32.0");
        let link = directory.path().join("libonnxruntime.so");
        std::fs::write(&real, "").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let library = Library { path: real, minor_version: 32 };
        assert!(require_same(&library, None).is_ok());
        assert!(require_same(&library, Some(&link)).is_ok());
        let error = require_same(&library, Some(Path::new("/other.so"))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("/other.so"));
    }
}
