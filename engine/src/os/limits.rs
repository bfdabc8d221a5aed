//! What the system lets this process use.

use std::fs;
use std::path::{Path, PathBuf};

/// Memory of the machine, as the kernel counts it; `None` where /proc does not say.
pub(crate) fn memory_total_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    parse_memory_total(&text)
}

/// The smallest memory limit of the control groups that this process is in; `None` without one.
///
/// Reads both hierarchies: `memory.max` and `memory.high` of the unified one, and
/// `memory.limit_in_bytes` of the older one. Limits of parents count too.
pub(crate) fn memory_limit_bytes() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    limit_below(Path::new("/sys/fs/cgroup"), &groups)
}

fn parse_memory_total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The limit by the lines of `/proc/self/cgroup`, under the directory where hierarchies are.
fn limit_below(mounted: &Path, groups: &str) -> Option<u64> {
    let limits = groups.lines().flat_map(|line| {
        // hierarchy:controllers:path; the unified hierarchy has no controllers here.
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next().unwrap_or(""), fields.next().unwrap_or(""));
        let (roots, files): (&[&str], &[&str]) = if controllers.is_empty() {
            (&["", "unified"], &["memory.max", "memory.high"])
        } else if controllers.split(',').any(|controller| controller == "memory") {
            (&["memory"], &["memory.limit_in_bytes"])
        } else {
            (&[], &[])
        };
        roots
            .iter()
            .filter_map(|root| limit_of(&mounted.join(root), path, files))
            .collect::<Vec<_>>()
    });
    limits.min()
}

/// The smallest limit from the group at `path` up to the root of its hierarchy.
///
/// In a container the path can be one that only the host has; then the root, which is the
/// container's own group, is all there is.
fn limit_of(root: &Path, path: &str, files: &[&str]) -> Option<u64> {
    let group: PathBuf = root.join(path.trim_start_matches('/'));
    let levels = group.ancestors().take_while(|level| level.starts_with(root));
    levels
        .flat_map(|level| files.iter().map(move |file| level.join(file)))
        .filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok())
        // The older hierarchy says "no limit" as the largest multiple of a page.
        .filter(|limit| *limit < 1 << 62)
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn total_memory_is_in_kibibytes() {
        assert_eq!(parse_memory_total("MemTotal:       2 kB\nMemFree: 1 kB\n"), Some(2048));
        assert_eq!(parse_memory_total("MemFree: 1 kB\n"), None);
        assert!(memory_total_bytes().is_some_and(|total| total > 1 << 20));
    }

    #[test]
    fn the_smallest_limit_on_the_way_up_counts() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let groups = "4:memory:/a/b\n1:cpu:/\n0::/s/u\n";
        assert_eq!(limit_below(root, groups), None);
        write("memory/a/b/memory.limit_in_bytes", "9223372036854771712\n");
        write("s/u/memory.max", "max\n");
        assert_eq!(limit_below(root, groups), None);
        write("memory/a/memory.limit_in_bytes", "4000\n");
        assert_eq!(limit_below(root, groups), Some(4000));
        write("s/memory.high", "3000\n");
        assert_eq!(limit_below(root, groups), Some(3000));
        // A container's view: the path is the host's, the root is its own.
        write("memory/memory.limit_in_bytes", "2000\n");
        assert_eq!(limit_below(root, "4:memory:/host/only\n"), Some(2000));
    }
}
