//! What the process takes, as the kernel tells it; by the names that all clients of Prometheus use.

use procfs::process::{LimitValue, Process};

/// Figures of the process; none of those that the kernel does not tell.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ProcessFigures {
    pub(super) cpu_seconds: Option<f64>,
    pub(super) resident_bytes: Option<u64>,
    pub(super) virtual_bytes: Option<u64>,
    pub(super) threads: Option<i64>,
    pub(super) open_files: Option<u64>,
    pub(super) open_files_max: Option<u64>,
    pub(super) started_unix_seconds: Option<f64>,
}

impl ProcessFigures {
    pub(super) fn measure() -> Self {
        let Ok(process) = Process::myself() else { return Self::default() };
        let mut figures = Self {
            open_files: process.fd_count().ok().map(|count| count as u64),
            open_files_max: process.limits().ok().and_then(|limits| {
                match limits.max_open_files.soft_limit {
                    LimitValue::Value(count) => Some(count),
                    LimitValue::Unlimited => None,
                }
            }),
            ..Self::default()
        };
        let Ok(stat) = process.stat() else { return figures };
        let ticks_per_second = procfs::ticks_per_second() as f64;
        figures.cpu_seconds = Some((stat.utime + stat.stime) as f64 / ticks_per_second);
        figures.resident_bytes = Some(stat.rss * procfs::page_size());
        figures.virtual_bytes = Some(stat.vsize);
        figures.threads = Some(stat.num_threads);
        figures.started_unix_seconds = procfs::boot_time_secs()
            .ok()
            .map(|booted| booted as f64 + stat.starttime as f64 / ticks_per_second);
        figures
    }
}
