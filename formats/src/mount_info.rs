//! The kernel's list of mounts, as `/proc/self/mountinfo` has it.
//!
//! Source: proc_pid_mountinfo(5).

/// A mounted file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where it is mounted.
    pub mount_point: Vec<u8>,
    /// Its type, such as `btrfs`.
    pub file_system: String,
    /// Options of the mount and of the file system, as they were last given; those of the mount first.
    pub options: Vec<String>,
}

impl Mount {
    /// Reads a line; `None` if it is none of such a list.
    #[must_use]
    pub fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ');
        let mount_point = unescape(fields.nth(4)?);
        let own = text(fields.next()?);
        // Any number of optional fields, and the end of them.
        fields.find(|field| *field == b"-")?;
        let file_system = text(fields.next()?);
        let of_file_system = text(fields.nth(1)?);
        if fields.next().is_some() || !mount_point.starts_with(b"/") {
            return None;
        }
        let options = own.split(',').chain(of_file_system.split(','));
        let options = options.filter(|option| !option.is_empty()).map(str::to_owned).collect();
        Some(Self { mount_point, file_system, options })
    }

    /// The mount that a path is in, which is absolute and has no links: of the list the last whose mount
    /// point is above it and not above another such.
    #[must_use]
    pub fn of_path(list: &[u8], path: &[u8]) -> Option<Self> {
        let is_above = |mount: &Self| {
            let rest = path.strip_prefix(&mount.mount_point[..]);
            rest.is_some_and(|rest| rest.is_empty() || rest[0] == b'/' || mount.mount_point == b"/")
        };
        let mounts = list.split(|byte| *byte == b'\n').filter_map(Self::parse).filter(is_above);
        mounts.max_by_key(|mount| mount.mount_point.len())
    }

    /// What an option is set to, an empty text if it is only there; `None` without it.
    #[must_use]
    pub fn option(&self, name: &str) -> Option<&str> {
        let value = |option: &'_ String| {
            let rest = option.strip_prefix(name)?;
            if rest.is_empty() {
                Some(option.len())
            } else {
                rest.starts_with('=').then_some(name.len() + 1)
            }
        };
        self.options.iter().rev().find_map(|option| Some(&option[value(option)?..]))
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&unescape(bytes)).into_owned()
}

/// Spaces, tabs, line feeds and backslashes stand there as three octal digits.
fn unescape(bytes: &[u8]) -> Vec<u8> {
    let (mut plain, mut rest) = (Vec::with_capacity(bytes.len()), bytes);
    while let [first, after @ ..] = rest {
        let escaped = match after {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] if *first == b'\\' => {
                Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
            }
            _ => None,
        };
        plain.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &after[3..] } else { after };
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &[u8] = b"\
21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw,errors=remount-ro
36 21 0:30 / /var/lib/op-dbus rw,noatime master:1 shared:7 - btrfs /dev/vdb rw,compress=zstd:3,space_cache=v2
37 21 0:31 / /var/lib/op-dbus-2 rw - btrfs /dev/vdc rw,compress-force=zstd:15,nodatasum
38 21 0:32 / /mnt/a\\040b\\134c rw - tmpfs tmpfs rw
39 21 0:33 / /mnt/a\\040b\\134c ro - xfs /dev/vdd rw
not a mount
";

    #[test]
    fn the_mount_of_a_path_is_the_nearest_and_the_last() {
        let of = |path: &[u8]| Mount::of_path(LIST, path).unwrap();
        assert_eq!(of(b"/var/lib/op-dbus/@state").option("compress"), Some("zstd:3"));
        assert_eq!(of(b"/var/lib/op-dbus-2").option("compress-force"), Some("zstd:15"));
        assert_eq!(of(b"/var/lib/op-dbus-2").option("compress"), None);
        assert_eq!(of(b"/var/lib/op-dbus-2").option("nodatasum"), Some(""));
        assert_eq!(of(b"/var/lib/op-dbus-20").file_system, "ext4");
        assert_eq!(of(b"/mnt/a b\\c/d").file_system, "xfs");
        assert_eq!(of(b"/").mount_point, b"/");
        assert_eq!(Mount::of_path(b"", b"/"), None);
    }

    #[test]
    fn what_is_no_mount_is_passed_over() {
        for line in
            ["", "36 21 0:30 / /mnt rw", "1 2 3 4 /mnt rw - ext4 dev", "1 2 3 4 mnt rw - a b c"]
        {
            assert_eq!(Mount::parse(line.as_bytes()), None, "{line}");
        }
    }
}
