//! The configuration of a container: `LXCPATH/NAME/config`, lines of `key = value`.
//!
//! A change replaces the lines of one key where they stand; all others, comments included, stay as
//! they are. The new file is whole on the disk before it takes the place of the old one.
//!
//! Source of the syntax: lxc.container.conf(5); quotes around a whole value are not part of it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::name;

/// Largest configuration that is read.
const FILE_LEN_MAX_BYTES: u64 = 1 << 20;
/// Beside the configuration, until it takes its place.
const NEW_FILE: &str = "config.op-dbus-new";

/// How a container was made, as lxc-create notes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) template: String,
    pub(super) arguments: Vec<String>,
}

/// Reads a configuration.
pub(super) fn read(path: &Path) -> Result<String> {
    let failed = |error: &io::Error| Error::of_system(&path.display().to_string(), error);
    let unsupported = |problem: &str| {
        Error::new(ErrorKind::Unsupported, format!("{}: {problem}", path.display()))
    };
    // What is no file, or lies elsewhere, could not be replaced.
    if !fs::symlink_metadata(path).map_err(|error| failed(&error))?.is_file() {
        return Err(unsupported("it is no file of its own"));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| failed(&error))?;
    file.take(FILE_LEN_MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|error| failed(&error))?;
    if bytes.len() as u64 > FILE_LEN_MAX_BYTES {
        return Err(unsupported("it is larger than 1 MiB"));
    }
    String::from_utf8(bytes).map_err(|_| unsupported("it is not UTF-8"))
}

/// Gives a configuration these lines of a key.
pub(super) fn change(path: &Path, key: &str, wanted: &[String]) -> Result<()> {
    let text = changed(&read(path)?, key, wanted);
    replace(path, text.as_bytes()).map_err(|error| {
        let doing = format!("{}: it could not be replaced", path.display());
        Error::of_system(&doing, &error)
    })
}

/// Puts a new file with the owner and the rights of the old one in its place.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or_else(|| Path::new("/"));
    let new = directory.join(NEW_FILE);
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => (),
    }
    let written = (|| {
        let old = fs::symlink_metadata(path)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(bytes)?;
        let mine = file.metadata()?;
        if (mine.uid(), mine.gid()) != (old.uid(), old.gid()) {
            std::os::unix::fs::fchown(&file, Some(old.uid()), Some(old.gid()))?;
        }
        file.set_permissions(fs::Permissions::from_mode(old.permissions().mode() & 0o7777))?;
        file.sync_all()?;
        fs::rename(&new, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&new);
        return written;
    }
    File::open(directory)?.sync_all()
}

/// The values of a key, line by line, as they are written.
pub(super) fn values<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    let value = |line| assignment(line).filter(|(found, _)| *found == key).map(|(_, value)| value);
    text.lines().filter_map(value).collect()
}

/// Whether lines mean what is wanted.
pub(super) fn is_same(actual: &[&str], wanted: &[String]) -> bool {
    actual.len() == wanted.len()
        && actual.iter().zip(wanted).all(|(actual, wanted)| meant(actual) == meant(wanted))
}

/// The text with other lines of a key.
fn changed(text: &str, key: &str, wanted: &[String]) -> String {
    let mut wanted = wanted.iter();
    let mut new = String::with_capacity(text.len() + 64);
    // Where further lines belong: behind the last one of the key.
    let mut end = None;
    for line in text.split_inclusive('\n') {
        let Some((_, value)) = assignment(line).filter(|(found, _)| *found == key) else {
            new.push_str(line);
            continue;
        };
        match wanted.next() {
            None => continue,
            Some(wanted) if meant(wanted) == meant(value) => new.push_str(line),
            Some(wanted) => new.push_str(&format!("{key} = {wanted}\n")),
        }
        end = Some(new.len());
    }
    let further: String = wanted.map(|wanted| format!("{key} = {wanted}\n")).collect();
    if further.is_empty() {
        return new;
    }
    let mut at = end.unwrap_or(new.len());
    if at > 0 && !new[..at].ends_with('\n') {
        new.insert(at, '\n');
        at += 1;
    }
    new.insert_str(at, &further);
    new
}

/// The key and the value of a line that has them.
fn assignment(line: &str) -> Option<(&str, &str)> {
    let line = line.trim();
    if line.starts_with('#') {
        return None;
    }
    let (key, value) = line.split_once('=')?;
    Some((key.trim_end(), value.trim_start()))
}

/// A value without quotes around it.
fn meant(value: &str) -> &str {
    let quoted = |quote| value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    quoted('"').or_else(|| quoted('\'')).unwrap_or(value)
}

/// What the first comments tell of how the container was made.
pub(super) fn origin(text: &str) -> Option<Origin> {
    let comment = |start: &str| text.lines().find_map(|line| line.strip_prefix(start));
    let path = comment("# Template used to create this container: ")?;
    let file = Path::new(path.trim()).file_name()?.to_str()?;
    let template = file.strip_prefix("lxc-").filter(|template| name::is_name(template))?.to_owned();
    let arguments = comment("# Parameters passed to the template:").unwrap_or_default();
    let arguments = arguments.split_whitespace().map(str::to_owned).collect();
    Some(Origin { template, arguments })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# Template used to create this container: /usr/share/lxc/templates/lxc-busybox\n\
        # Parameters passed to the template: --a b\n\
        \n\
        lxc.net.0.type = veth\n\
        #lxc.net.0.type = none\n\
        lxc.uts.name = \"web\"\n\
        \tlxc.mount.entry=a  b\n\
        lxc.cap.drop =\n\
        lxc.mount.entry = c\n\
        lxc.last = x = y";

    fn set(key: &str, wanted: &[&str]) -> String {
        changed(TEXT, key, &wanted.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn values_are_found_line_by_line() {
        let cases: [(&str, &[&str]); 6] = [
            ("lxc.net.0.type", &["veth"]),
            ("lxc.uts.name", &["\"web\""]),
            ("lxc.mount.entry", &["a  b", "c"]),
            ("lxc.cap.drop", &[""]),
            ("lxc.last", &["x = y"]),
            ("lxc.net", &[]),
        ];
        for (key, expected) in cases {
            assert_eq!(values(TEXT, key), expected, "{key}");
            let wanted: Vec<String> = expected.iter().map(|text| (*text).to_owned()).collect();
            assert!(is_same(expected, &wanted));
            assert_eq!(changed(TEXT, key, &wanted), TEXT, "{key}");
        }
        assert!(is_same(&["\"web\""], &["web".to_owned()]));
        assert!(!is_same(&["web"], &[]));
    }

    #[test]
    fn only_lines_of_the_key_change() {
        let cases: [(&str, &[&str], &str, &str); 6] = [
            (
                "lxc.net.0.type",
                &["empty"],
                "\nlxc.net.0.type = veth\n",
                "\nlxc.net.0.type = empty\n",
            ),
            ("lxc.mount.entry", &["z"], "\tlxc.mount.entry=a  b\n", "lxc.mount.entry = z\n"),
            ("lxc.uts.name", &["web", "x"], "\"web\"\n", "\"web\"\nlxc.uts.name = x\n"),
            ("lxc.cap.drop", &[], "lxc.cap.drop =\n", ""),
            ("lxc.last", &["q"], "lxc.last = x = y", "lxc.last = q\n"),
            ("lxc.new", &["1", "2"], "x = y", "x = y\nlxc.new = 1\nlxc.new = 2\n"),
        ];
        for (key, wanted, from, to) in cases {
            let mut expected = TEXT.replacen(from, to, 1);
            if key == "lxc.mount.entry" {
                expected = expected.replacen("lxc.mount.entry = c\n", "", 1);
            }
            assert_eq!(set(key, wanted), expected, "{key}");
            let kept: Vec<String> = wanted.iter().map(|text| (*text).to_owned()).collect();
            assert!(is_same(&values(&expected, key), &kept));
        }
        assert_eq!(changed("", "lxc.a", &["b".to_owned()]), "lxc.a = b\n");
    }

    #[test]
    fn the_origin_is_told_if_it_can_be_declared() {
        let expected = Origin {
            template: "busybox".to_owned(),
            arguments: vec!["--a".to_owned(), "b".to_owned()],
        };
        assert_eq!(origin(TEXT), Some(expected));
        assert_eq!(origin("# Template used to create this container: /opt/mine.sh\n"), None);
        assert_eq!(origin("lxc.a = b\n"), None);
    }

    #[test]
    fn a_file_is_replaced_with_its_rights_and_nothing_else_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config");
        fs::write(&path, TEXT).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        // Left behind by one that was interrupted.
        fs::write(directory.path().join(NEW_FILE), "half").unwrap();
        change(&path, "lxc.cap.drop", &["sys_time".to_owned()]).unwrap();
        assert_eq!(values(&read(&path).unwrap(), "lxc.cap.drop"), ["sys_time"]);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(change(&link, "lxc.a", &[]).unwrap_err().kind, ErrorKind::Unsupported);
        let absent = directory.path().join("absent");
        assert_eq!(read(&absent).unwrap_err().kind, ErrorKind::NotFound);
    }
}
