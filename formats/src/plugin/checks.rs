//! What the values of `plugin.toml` may be. Each check returns the value, or what is wrong with it.

use super::VERSION_LEN_MAX_BYTES;

/// Longest name of a user or a group, as useradd(8) has it.
const ACCOUNT_LEN_MAX_BYTES: usize = 32;
/// Longest name of a file.
const FILE_NAME_LEN_MAX_BYTES: usize = 255;

/// Source: include/uapi/linux/capability.h, Linux 6.12.
const KERNEL_CAPABILITIES: [&str; 41] = [
    "CAP_AUDIT_CONTROL",
    "CAP_AUDIT_READ",
    "CAP_AUDIT_WRITE",
    "CAP_BLOCK_SUSPEND",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_KILL",
    "CAP_LEASE",
    "CAP_LINUX_IMMUTABLE",
    "CAP_MAC_ADMIN",
    "CAP_MAC_OVERRIDE",
    "CAP_MKNOD",
    "CAP_NET_ADMIN",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_RAW",
    "CAP_PERFMON",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYSLOG",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_CHROOT",
    "CAP_SYS_MODULE",
    "CAP_SYS_NICE",
    "CAP_SYS_PACCT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_WAKE_ALARM",
];

pub(super) fn version(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    if text.len() > VERSION_LEN_MAX_BYTES {
        return Err(format!("it has {} bytes, the limit is {VERSION_LEN_MAX_BYTES}", text.len()));
    }
    let allowed = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '+' | '-' | '_');
    match text.chars().find(|character| !allowed(character)) {
        Some(found) => Err(format!("it has the character {found:?}")),
        None => Ok(text.to_owned()),
    }
}

/// A path that stays inside the package.
pub(super) fn path_inside(text: &str) -> Result<String, String> {
    if text.starts_with('/') {
        return Err("it must be a path inside the package, not an absolute one".to_owned());
    }
    check_components(text)?;
    Ok(text.to_owned())
}

/// An absolute path that has one spelling.
pub(super) fn absolute_path(text: &str) -> Result<String, String> {
    let Some(components) = text.strip_prefix('/') else {
        return Err("it must be an absolute path".to_owned());
    };
    if !components.is_empty() {
        check_components(components)?;
    }
    Ok(text.to_owned())
}

fn check_components(path: &str) -> Result<(), String> {
    path.split('/').try_for_each(|component| match component {
        "" if path.is_empty() => Err("it is empty".to_owned()),
        "" => Err("a component of it is empty".to_owned()),
        "." | ".." => Err(format!("a component of it is {component}")),
        _ => check_file_name(component),
    })
}

/// A program to be found on the `PATH`.
pub(super) fn program(text: &str) -> Result<String, String> {
    match text {
        "" => Err("it is empty".to_owned()),
        "." | ".." => Err("it is no name of a program".to_owned()),
        _ if text.contains('/') => Err("it must be a name without /".to_owned()),
        _ => check_file_name(text).map(|()| text.to_owned()),
    }
}

fn check_file_name(name: &str) -> Result<(), String> {
    if name.len() > FILE_NAME_LEN_MAX_BYTES {
        return Err(format!("{} bytes, the limit is {FILE_NAME_LEN_MAX_BYTES}", name.len()));
    }
    match name.chars().find(|character| character.is_control()) {
        Some(found) => Err(format!("it has the character {found:?}")),
        None => Ok(()),
    }
}

/// A user or a group.
pub(super) fn account(text: &str) -> Result<String, String> {
    let mut characters = text.chars();
    let is_start = |c: char| c.is_ascii_lowercase() || c == '_';
    let allowed = |c: char| is_start(c) || c.is_ascii_digit() || c == '-';
    match characters.next() {
        None => Err("it is empty".to_owned()),
        Some(first) if !is_start(first) => {
            Err(format!("it begins with {first:?}, not with a letter from a to z or _"))
        }
        Some(_) if text.len() > ACCOUNT_LEN_MAX_BYTES => {
            Err(format!("it has {} bytes, the limit is {ACCOUNT_LEN_MAX_BYTES}", text.len()))
        }
        Some(_) => match characters.find(|&character| !allowed(character)) {
            Some(found) => Err(format!("it has the character {found:?}")),
            None => Ok(text.to_owned()),
        },
    }
}

pub(super) fn kernel_capability(text: &str) -> Result<String, String> {
    if KERNEL_CAPABILITIES.contains(&text) {
        return Ok(text.to_owned());
    }
    Err(match crate::spelling::nearest(text, &KERNEL_CAPABILITIES) {
        Some(meant) => format!("no capability of the kernel: did you mean {meant:?}?"),
        None => "no capability of the kernel: those are named like CAP_NET_ADMIN".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    type Check = fn(&str) -> Result<String, String>;

    #[test]
    fn values_are_taken_or_refused() {
        let long = "a".repeat(300);
        let cases: [(Check, &[&str], &[&str]); 6] = [
            (version, &["1", "1.2.0+git_3-x"], &["", "1 2", "1/2", &long]),
            (path_inside, &["plugin", "bin/x"], &["", "/x", "../x", "a/./b", "a//b", "a/", "a\0"]),
            (absolute_path, &["/", "/var/lib"], &["", "x", "/a/", "/a/../b", "//", "/.", "/a\n"]),
            (program, &["lxc-ls", "[", "..."], &["", ".", "..", "bin/x", "a\0", &long]),
            (
                account,
                &["root", "_a-1", &long[..32]],
                &["", "1a", "Root", "a.b", "-a", &long[..33]],
            ),
            (kernel_capability, &["CAP_SYS_ADMIN", "CAP_BPF"], &["", "SYS_ADMIN", "cap_bpf"]),
        ];
        for (check, good, bad) in cases {
            for text in good {
                assert_eq!(check(text).as_deref(), Ok(*text));
            }
            for text in bad {
                assert!(check(text).is_err(), "{text:?}");
            }
        }
        let problem = kernel_capability("CAP_SYS_ADMN").unwrap_err();
        assert!(problem.ends_with("did you mean \"CAP_SYS_ADMIN\"?"), "{problem}");
        assert!(KERNEL_CAPABILITIES.is_sorted());
    }
}
