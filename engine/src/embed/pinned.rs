//! Models that are installed: copied whole, and pinned by the hashes of their files.
//!
//! `SHA256SUMS` beside the files is what `sha256sum` writes, so that anybody can check it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{Embedder, EmbedderConfig};
use crate::error::{Error, ErrorKind, Result};
use crate::os::file::{create_synced, sync_directory};

const SUMS_FILE: &str = "SHA256SUMS";
/// Text encoders have some hundred megabytes; what is ten times that is something else.
const MODEL_LEN_BYTES_MAX: u64 = 8 << 30;
const SUMS_LEN_BYTES_MAX: u64 = 1 << 20;

/// A file of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModelFile {
    /// Its path within the model's directory.
    pub path: PathBuf,
    /// Its length.
    pub len_bytes: u64,
    /// SHA-256 of what is in it, in hexadecimal digits.
    pub sha256: String,
    /// Whether it is what it was when the model was installed; `None` if nobody said what that is.
    pub is_as_pinned: Option<bool>,
}

impl Embedder {
    /// Reads the model's files, and compares them with what `SHA256SUMS` in its directory says.
    ///
    /// Cost: every file is read.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if a file is missing; [`ErrorKind::Corrupt`] if `SHA256SUMS` is none;
    /// [`ErrorKind::Io`] if the disk refuses.
    pub fn files(&self) -> Result<Vec<ModelFile>> {
        let directory = &self.model.directory;
        let sums = read_sums(&directory.join(SUMS_FILE))?;
        let mut files = Vec::new();
        for path in self.model.all_files() {
            let (len_bytes, sha256) = hash(&directory.join(&path), &mut io::sink())?;
            let is_as_pinned = sums.as_ref().map(|sums| sums.get(&path) == Some(&sha256));
            files.push(ModelFile { path, len_bytes, sha256, is_as_pinned });
        }
        Ok(files)
    }

    /// Copies the model into a directory that does not exist, and pins its files; `sums` says what
    /// they must be, if anybody knows. The copy has its name only when it is whole and has embedded a
    /// text.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if the directory exists, or the model is too large;
    /// [`ErrorKind::Corrupt`] if a file is not as `sums` says; those of [`Embedder::embed`] and of a
    /// failed write.
    pub fn install(&self, target: &Path, sums: Option<&Path>) -> Result<()> {
        let expected = match sums {
            Some(path) => Some(read_sums(path)?.ok_or_else(|| {
                Error::new(ErrorKind::NotFound, format!("there is no file {}", path.display()))
            })?),
            None => None,
        };
        publish(target, |unfinished| {
            let mut sums = Sums::default();
            self.copy_files(&self.model.all_files(), unfinished, expected.as_ref(), &mut sums)?;
            sums.write(unfinished)?;
            self.open_beside(unfinished)?.dimensions()?;
            Ok(())
        })
    }

    /// Opens the model in another directory as this one is opened.
    pub(super) fn open_beside(&self, directory: &Path) -> Result<Self> {
        let config = EmbedderConfig { model_dir: directory.to_owned(), ..self.config.clone() };
        Self::open(&config, None)
    }

    /// Copies files of the model, all of which must be as expected, if anything is.
    pub(super) fn copy_files(
        &self,
        paths: &[PathBuf],
        target: &Path,
        expected: Option<&BTreeMap<PathBuf, String>>,
        sums: &mut Sums,
    ) -> Result<()> {
        let mut left_bytes = MODEL_LEN_BYTES_MAX;
        for path in paths {
            let (from, to) = (self.model.directory.join(path), target.join(path));
            let len =
                fs::metadata(&from).map_err(|error| Error::io("examine", &from, error))?.len();
            left_bytes = left_bytes.checked_sub(len).ok_or_else(|| too_large(&from))?;
            let parent = to.parent().unwrap_or(target);
            fs::create_dir_all(parent).map_err(|error| Error::io("create", parent, error))?;
            let mut copy =
                File::create_new(&to).map_err(|error| Error::io("create", &to, error))?;
            let (_, sha256) = hash(&from, &mut copy)?;
            copy.sync_all().map_err(|error| Error::io("sync", &to, error))?;
            if let Some(expected) = expected
                && expected.get(path) != Some(&sha256)
            {
                return Err(unexpected(&from, &sha256, expected.get(path)));
            }
            sums.add(path, &sha256);
        }
        Ok(())
    }
}

/// Makes a directory that has its name only once `fill` has filled it; what was begun is removed.
pub(super) fn publish<T>(target: &Path, fill: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    if target.exists() {
        let context = format!("{} is there already", target.display());
        return Err(Error::new(ErrorKind::Invalid, context)
            .with_remedy("remove it, or give the model another name"));
    }
    let parent = target.parent().unwrap_or(Path::new("."));
    let mut unfinished = target.as_os_str().to_owned();
    unfinished.push(".unfinished");
    let unfinished = PathBuf::from(unfinished);
    let removed = || match fs::remove_dir_all(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("remove", &unfinished, error))
        }
        _ => Ok(()),
    };
    // What an earlier one left that was broken off.
    removed()?;
    fs::create_dir_all(&unfinished).map_err(|error| Error::io("create", &unfinished, error))?;
    let filled = fill(&unfinished).and_then(|filled| {
        sync_directory(&unfinished)?;
        fs::rename(&unfinished, target).map_err(|error| Error::io("rename", &unfinished, error))?;
        sync_directory(parent)?;
        Ok(filled)
    });
    if filled.is_err() {
        removed()?;
    }
    filled
}

/// The hashes of files that were written.
#[derive(Default)]
pub(super) struct Sums(String);

impl Sums {
    fn add(&mut self, path: &Path, sha256: &str) {
        self.0 += &format!("{sha256}  {}\n", path.display());
    }

    /// Adds a file that has these bytes.
    pub(super) fn add_bytes(&mut self, path: &Path, bytes: &[u8]) {
        self.add(path, &digits(Sha256::digest(bytes)));
    }

    /// Pins the files that are in this directory.
    pub(super) fn write(&self, directory: &Path) -> Result<()> {
        create_synced(&directory.join(SUMS_FILE), self.0.as_bytes())
    }
}

/// Reads a file of sums; none if there is no such file.
fn read_sums(path: &Path) -> Result<Option<BTreeMap<PathBuf, String>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("open", path, error)),
    };
    let mut text = String::new();
    file.take(SUMS_LEN_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(|error| Error::io("read", path, error))?;
    let sums: Option<BTreeMap<PathBuf, String>> =
        text.lines().filter(|line| !line.trim().is_empty()).map(parse_sum).collect();
    match sums {
        Some(sums) => Ok(Some(sums)),
        None => Err(Error::new(
            ErrorKind::Corrupt,
            format!("{} is not what sha256sum writes", path.display()),
        )
        .with_remedy("write it again: sha256sum model.onnx tokenizer.json > SHA256SUMS")),
    }
}

/// A file and its hash, of a line such as `542510a9…  model.onnx`.
fn parse_sum(line: &str) -> Option<(PathBuf, String)> {
    let (sha256, path) = line.split_once(' ')?;
    // An asterisk says that it was read as bytes, as all are.
    let path = path.strip_prefix([' ', '*'])?;
    let is_hash = sha256.len() == 64 && sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
    let path = Path::new(path.strip_prefix("./").unwrap_or(path));
    let is_inside = path.components().all(|part| matches!(part, Component::Normal(_)));
    (is_hash && is_inside).then(|| (path.to_owned(), sha256.to_ascii_lowercase()))
}

/// Reads a file once: its length and SHA-256, and a copy of it.
fn hash(path: &Path, copy: &mut dyn Write) -> Result<(u64, String)> {
    let mut file = File::open(path).map_err(|error| Error::io("open", path, error))?;
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    let mut len_bytes = 0;
    loop {
        let len = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Error::io("read", path, error)),
        };
        hasher.update(&buffer[..len]);
        copy.write_all(&buffer[..len]).map_err(|error| Error::io("copy", path, error))?;
        len_bytes += len as u64;
    }
    Ok((len_bytes, digits(hasher.finalize())))
}

fn digits(hash: impl AsRef<[u8]>) -> String {
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn too_large(path: &Path) -> Error {
    let context = format!("with {} the model has more than 8 GiB", path.display());
    Error::new(ErrorKind::Invalid, context).with_remedy("use a smaller model")
}

fn unexpected(path: &Path, sha256: &str, expected: Option<&String>) -> Error {
    let context = match expected {
        Some(expected) => format!("{} has the hash {sha256}, not {expected}", path.display()),
        None => format!("no hash is given for {}", path.display()),
    };
    Error::new(ErrorKind::Corrupt, context)
        .with_remedy("fetch the file again, or give the hashes of this very model")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_read_as_sha256sum_writes_them() {
        let hash = "0F".repeat(32);
        let known = |path: &str| Some((PathBuf::from(path), "0f".repeat(32)));
        assert_eq!(parse_sum(&format!("{hash}  model.onnx")), known("model.onnx"));
        assert_eq!(parse_sum(&format!("{hash} *./a/b c")), known("a/b c"));
        for line in ["", "0f  model.onnx", &hash, &format!("{hash}  ../x"), &format!("{hash}  /x")]
        {
            assert_eq!(parse_sum(line), None, "{line:?}");
        }
    }

    #[test]
    fn a_file_has_the_hash_that_others_find() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "abc").unwrap();
        let mut copy = Vec::new();
        let (len, sha256) = hash(file.path(), &mut copy).unwrap();
        assert_eq!((len, &copy[..]), (3, &b"abc"[..]));
        // The example of FIPS 180-4.
        assert_eq!(sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
