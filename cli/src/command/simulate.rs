//! `op-dbus cache simulate`: what caches of several sizes and policies make of a trace.

use std::io::Write;

use op_dbus_engine::{PolicyKind, SimulationReport, simulate};
use serde::Serialize;

use super::trace::note_unfinished;
use crate::args::{CacheSimulate, Capacity};
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::input::{self, Requests};
use crate::output::{Output, bytes, grouped, one_line};

const COLUMNS: usize = 80;
/// Capacities that are always shown, in hundredths of the keys of the trace.
const PERCENTS: [u32; 5] = [1, 5, 10, 25, 50];

#[derive(Serialize)]
struct Answer {
    trace: String,
    requests: usize,
    keys: u32,
    simulations: Vec<Simulated>,
}

/// One capacity with one policy.
#[derive(Serialize)]
struct Simulated {
    /// The capacity as it is called in the table.
    capacity: String,
    capacity_entries: u32,
    policy: String,
    #[serde(flatten)]
    report: SimulationReport,
}

/// A capacity by its name, in entries.
struct Size {
    name: String,
    entries: u32,
}

pub(super) fn run(output: &Output, arguments: &CacheSimulate) -> Result<Exit> {
    let requests = input::trace(&arguments.trace)?;
    let keys = keys_count(&requests.keys);
    let mut sizes: Vec<Size> = PERCENTS.iter().map(|percent| share(keys, *percent)).collect();
    if let Some(capacity) = arguments.capacity {
        sizes.push(given(capacity, &requests)?);
    }
    let policies = match arguments.policy {
        Some(policy) => vec![policy],
        None => PolicyKind::ALL.to_vec(),
    };
    let answer = Answer {
        trace: arguments.trace.display().to_string(),
        requests: requests.keys.len(),
        keys,
        simulations: simulate_all(&requests.keys, keys, &sizes, &policies),
    };
    output.answer(&answer, |out| render(out, &answer, &sizes, &policies))?;
    note_unfinished(output, requests.unfinished_bytes);
    Ok(Exit::Success)
}

fn keys_count(requests: &[u64]) -> u32 {
    let mut keys = requests.to_vec();
    keys.sort_unstable();
    keys.dedup();
    u32::try_from(keys.len()).unwrap_or(u32::MAX)
}

fn share(keys: u32, percent: u32) -> Size {
    let entries = (u64::from(keys) * u64::from(percent) / 100) as u32;
    Size { name: format!("{percent} %"), entries }
}

fn given(capacity: Capacity, requests: &Requests) -> Result<Size> {
    let size = match capacity {
        Capacity::Entries(entries) => Size { name: "given".to_owned(), entries },
        Capacity::Bytes(size) => {
            let entries = match requests.vector_bytes_mean {
                Some(mean) => (size as f64 / mean) as u32,
                None if requests.keys.is_empty() => 0,
                None => {
                    return Err(Error::Usage {
                        problem: "keys of a text file have no size".to_owned(),
                        remedy: Some("give --capacity in entries".to_owned()),
                    });
                }
            };
            Size { name: bytes(size), entries }
        }
    };
    Ok(size)
}

/// Simulates every size with every policy, the policies at the same time.
fn simulate_all(
    requests: &[u64],
    keys: u32,
    sizes: &[Size],
    policies: &[PolicyKind],
) -> Vec<Simulated> {
    // A cache that holds twice all keys never demotes any: a larger one would only take memory.
    let entries_max = keys.saturating_mul(2);
    let of_policy = |policy: PolicyKind| -> Vec<Simulated> {
        let simulated = |size: &Size| {
            let entries = size.entries.min(entries_max);
            let report = simulate(requests.iter().copied(), entries, policy);
            let (capacity, policy) = (size.name.clone(), policy.to_string());
            Simulated { capacity, capacity_entries: size.entries, policy, report }
        };
        sizes.iter().map(simulated).collect()
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            policies.iter().map(|policy| scope.spawn(|| of_policy(*policy))).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Vec<Simulated>>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().flat_map(join).collect()
    })
}

fn render(
    out: &mut dyn Write,
    answer: &Answer,
    sizes: &[Size],
    policies: &[PolicyKind],
) -> std::io::Result<()> {
    const LABEL: &str = "trace     ";
    writeln!(out, "{LABEL}{}", one_line(&answer.trace, COLUMNS - LABEL.len()))?;
    writeln!(out, "requests  {}", grouped(answer.requests as u64))?;
    writeln!(out, "keys      {}", grouped(answer.keys.into()))?;
    write!(out, "\n{:>12}  {:>13}", "capacity", "entries")?;
    for policy in policies {
        write!(out, "  {policy:>8}")?;
    }
    writeln!(out)?;
    for (row, size) in sizes.iter().enumerate() {
        write!(out, "{:>12}  {:>13}", size.name, grouped(size.entries.into()))?;
        // The simulations of a policy stand together, one for each size.
        for simulated in answer.simulations.iter().skip(row).step_by(sizes.len()) {
            let ratio = simulated.report.hit_ratio;
            let ratio = ratio.map_or_else(|| "–".to_owned(), |r| format!("{:.1} %", r * 100.0));
            write!(out, "  {ratio:>8}")?;
        }
        writeln!(out)?;
    }
    Ok(())
}
