//! `op-dbus doctor`: what is well and what is not, and what to do about it.

mod machine;

use op_dbus_engine::{
    Compressor, Error as EngineError, ErrorKind, LayoutReport, PartKind, PartReport, StorePart,
    examine_layout, migrate_layout, numa_nodes, request_compression,
};
use serde::Serialize;
use serde_json::json;

use crate::args::Doctor;
use crate::config::Config;
use crate::error::Result;
use crate::exit::Exit;
use crate::output::{Output, bytes, columns, wrapped};

/// Columns of the state.
const INDENT: usize = 9;

/// How well something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    Warning,
    Problem,
}

/// One line of the answer.
#[derive(Debug, Serialize)]
struct Check {
    /// What was looked at.
    name: &'static str,
    state: State,
    found: String,
    /// The command that changes it, or what else does.
    remedy: Option<String>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, state: State::Ok, found: found.into(), remedy: None }
    }

    fn warning(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        let (found, remedy) = (found.into(), Some(remedy.into()));
        Self { name, state: State::Warning, found, remedy }
    }

    fn problem(name: &'static str, error: &EngineError) -> Self {
        let (found, remedy) = (error.to_string(), error.remedy().map(str::to_owned));
        Self { name, state: State::Problem, found, remedy }
    }
}

pub(super) fn run(config: &Config, output: &Output, arguments: &Doctor) -> Result<Exit> {
    let fixed = if arguments.fix { fix(config)? } else { Vec::new() };
    let mut checks = match examine_layout(config.store()) {
        Ok(report) => layout_checks(config, &report, arguments.compression_level),
        Err(error) => vec![Check::problem("store", &error)],
    };
    checks.extend(numa_checks(config));
    checks.extend(machine::checks(config));
    let is_well = checks.iter().all(|check| check.state != State::Problem);
    output.answer(&json!({ "checks": checks, "fixed": fixed }), |out| {
        fixed.iter().try_for_each(|fixed| writeln!(out, "{:7}  {fixed}", "fixed"))?;
        for Check { name, state, found, remedy } in &checks {
            let state = match state {
                State::Ok => "ok",
                State::Warning => "warning",
                State::Problem => "PROBLEM",
            };
            let text = wrapped(&format!("{name}: {found}"), columns(), INDENT);
            writeln!(out, "{state:7}  {text}")?;
            // A command is one line, so that it can be taken over.
            if let Some(remedy) = remedy {
                writeln!(out, "{:INDENT$}→ {remedy}", "")?;
            }
        }
        Ok(())
    })?;
    Ok(if is_well { Exit::Success } else { Exit::Failed(ErrorKind::Unavailable) })
}

/// Changes what can be changed here, and says what that was. Whatever is well stays untouched.
fn fix(config: &Config) -> Result<Vec<String>> {
    let report = examine_layout(config.store())?;
    let mut fixed = Vec::new();
    if report.file_system != "btrfs" {
        return Ok(fixed);
    }
    if !plain(config, &report).is_empty() {
        for (directory, kind) in migrate_layout(config.store(), config.subvolumes())? {
            if kind == PartKind::Migrated {
                fixed.push(format!("{} is a subvolume now", directory.display()));
            }
        }
    }
    for part in request_compression(config.store()) {
        fixed.push(format!("what is new in {} is compressed as it should be", part.name()));
    }
    Ok(fixed)
}

/// The directories that are to be subvolumes, and are none.
fn plain(config: &Config, report: &LayoutReport) -> Vec<&'static str> {
    let wanted = config.subvolumes();
    let is_plain = |part: &&PartReport| !part.is_subvolume && wanted.contains(&part.part);
    report.parts.iter().filter(is_plain).map(|part| part.part.name()).collect()
}

fn layout_checks(config: &Config, report: &LayoutReport, level: u32) -> Vec<Check> {
    let mut checks = vec![Check::ok("store", report.base.display().to_string()), room(report)];
    if report.file_system != "btrfs" {
        checks.push(Check::warning(
            "file system",
            format!(
                "{}: snapshots copy what is new instead of nothing, what is stored has no checksums of \
                 the file system's, and nothing is sent to other machines",
                report.file_system
            ),
            "put the store on BTRFS: op-dbus snapshot create, then restore --to a directory there",
        ));
        return checks;
    }
    checks.push(Check::ok("file system", "btrfs"));
    checks.push(subvolumes(config, report));
    checks.push(deletion(report));
    checks.push(checksums(report));
    checks.push(level_of_mount(report, level));
    checks.extend(report.parts.iter().map(|part| compression(report, part)));
    checks
}

fn room(report: &LayoutReport) -> Check {
    const PERCENT_MIN: u64 = 10;
    let (free, total) = (report.available_bytes, report.total_bytes);
    let found = format!("{} of {} are free", bytes(free), bytes(total));
    match free.saturating_mul(100) / total.max(1) {
        percent if percent >= PERCENT_MIN => Check::ok("room", found),
        _ => Check::warning(
            "room",
            found,
            "delete snapshots (op-dbus snapshot list shows what each has alone), or enlarge it",
        ),
    }
}

fn subvolumes(config: &Config, report: &LayoutReport) -> Check {
    let plain = plain(config, report);
    match plain.is_empty() {
        true => Check::ok("subvolumes", "each directory that is to be one is one"),
        false => Check::warning(
            "subvolumes",
            format!("{} are plain directories, which snapshots have to copy", plain.join(", ")),
            format!("op-dbus layout migrate --store {}", report.base.display()),
        ),
    }
}

fn deletion(report: &LayoutReport) -> Check {
    match report.deletes_subvolumes {
        true => Check::ok("deleting snapshots", "by the file system"),
        false => Check::warning(
            "deleting snapshots",
            "each file is removed, because this user may not delete subvolumes",
            format!("mount -o remount,user_subvol_rm_allowed {}", report.mount_point.display()),
        ),
    }
}

fn checksums(report: &LayoutReport) -> Check {
    let without: Vec<&str> = report
        .parts
        .iter()
        .filter(|part| !part.has_checksums)
        .map(|part| part.part.name())
        .collect();
    match without.is_empty() {
        true => Check::ok("checksums", "of everything"),
        false => Check::warning(
            "checksums",
            format!("none of {}: nodatacow, nodatasum or chattr +C", without.join(", ")),
            "take these options off the mount, and chattr -C off the directories; files that are there \
             stay without until they are written again",
        ),
    }
}

fn level_of_mount(report: &LayoutReport, level: u32) -> Check {
    const NAME: &str = "compression of the mount";
    /// What the property of a directory comes to, whatever it says.
    const PROPERTY_LEVEL: u32 = 3;
    let mount = report.mount_point.display();
    match &report.mount_compression {
        None if report.parts.iter().all(|part| !part.has_checksums) => {
            Check::ok(NAME, "none, and none is possible without copying on write")
        }
        None if level == PROPERTY_LEVEL => {
            Check::ok(NAME, "none; @cache and @timing ask for zstd themselves, at level 3")
        }
        None => Check::warning(
            NAME,
            format!("none; @cache and @timing have level 3, where zstd:{level} is wanted"),
            format!("mount -o remount,compress=zstd:{level} {mount}"),
        ),
        Some(found) if found.is_forced => Check::warning(
            NAME,
            format!(
                "compress-force={}, also of vectors, which hardly become smaller",
                found.algorithm
            ),
            format!("mount -o remount,compress=zstd:{level} {mount}"),
        ),
        Some(found) if found.zstd_level() == Some(level) => {
            Check::ok(NAME, found.algorithm.clone())
        }
        Some(found) => Check::warning(
            NAME,
            format!("{}, where zstd:{level} is wanted", found.algorithm),
            format!("mount -o remount,compress=zstd:{level} {mount}"),
        ),
    }
}

fn compression(report: &LayoutReport, part: &PartReport) -> Check {
    let name = match part.part {
        StorePart::Vectors => "compression of @vectors",
        StorePart::Timing => "compression of @timing",
        StorePart::Cache => "compression of @cache",
        StorePart::State => "compression of @state",
    };
    let who = match part.compressor {
        Compressor::Nobody => "by nobody",
        Compressor::Database => "by RocksDB",
        Compressor::FileSystem => "by BTRFS",
        Compressor::Both => "by RocksDB, then BTRFS",
    };
    let (all, compressed) = (bytes(part.bytes), bytes(part.compressed_bytes));
    let found = match part.compressed_bytes {
        0 => format!("{who}; {all} lie as they are"),
        _ => format!("{who}; {compressed} of {all} are compressed on the disk"),
    };
    match part.part {
        StorePart::Vectors if part.property.as_deref() != Some("none") => Check::warning(
            name,
            format!("{found}; what is mapped is read here and there, and should lie as it is"),
            format!("btrfs property set {}/@vectors compression none", report.base.display()),
        ),
        _ => Check::ok(name, found),
    }
}

fn numa_checks(config: &Config) -> Vec<Check> {
    const NAME: &str = "NUMA";
    let nodes = match numa_nodes() {
        Ok(nodes) => nodes,
        Err(error) => return vec![Check::problem(NAME, &error)],
    };
    let mut checks = vec![match nodes.len() {
        0 | 1 => Check::ok(NAME, "one node, so nothing is farther than anything else"),
        count => Check::ok(NAME, format!("{count} nodes, policy {}", config.numa().policy)),
    }];
    match config.numa().refusal() {
        Ok(None) => {}
        Ok(Some(refused)) => checks.push(Check::warning(
            "NUMA calls",
            format!("{refused}; the kernel decides where memory lies"),
            "in a container, allow mbind, set_mempolicy, get_mempolicy and move_pages (SYS_NICE)",
        )),
        Err(error) => checks.push(Check::problem("NUMA policy", &error)),
    }
    checks
}
