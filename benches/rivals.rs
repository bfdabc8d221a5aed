//! All engines side by side, in one table or as JSON.
//!
//! `cargo bench --profile release -p op-dbus-benches --features rivals --bench rivals -- --help`

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Parser;
use op_dbus_benches::{DurableRow, HitBenchmark, HitRow, RivalBenchmark, RivalReport};

/// Measures engines side by side: hits, synced batches, cold reads, opening, room on the disk.
#[derive(Parser)]
struct Arguments {
    /// Values of 1,536 bytes in each engine; several numbers are measured one after the other
    #[arg(long, value_delimiter = ',', default_value = "100000", value_parser = at_least_one::<u32>)]
    keys: Vec<u32>,
    /// Lookups of each thread in a round
    #[arg(long, default_value = "200000", value_parser = at_least_one::<usize>)]
    lookups: usize,
    /// Threads that look up at the same time
    #[arg(long, value_delimiter = ',', default_value = "1,2", value_parser = at_least_one::<usize>)]
    threads: Vec<usize>,
    /// Values that are put together, and synced
    #[arg(long, default_value = "1000", value_parser = at_least_one::<u32>)]
    batch: u32,
    /// Where files are made, and removed afterwards [default: the system's temporary directory]
    #[arg(long)]
    directory: Option<PathBuf>,
    /// Print JSON, one line for each number of keys
    #[arg(long)]
    json: bool,
    /// What `cargo bench` passes to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> io::Result<()> {
    let arguments = Arguments::parse();
    let base = arguments.directory.clone().unwrap_or_else(std::env::temp_dir);
    for &keys_count in &arguments.keys {
        let directory = tempfile::Builder::new().prefix("op-dbus-rivals-").tempdir_in(&base)?;
        let hits = HitBenchmark {
            keys_count,
            lookups_count: arguments.lookups,
            threads_counts: arguments.threads.clone(),
        };
        let benchmark = RivalBenchmark { hits, batch_count: arguments.batch };
        let report = benchmark.run(directory.path(), &mut |doing| {
            eprintln!("{doing}");
            Ok(())
        })?;
        let mut out = io::stdout().lock();
        if arguments.json {
            serde_json::to_writer(&mut out, &report)?;
            writeln!(out)?;
        } else {
            let batch_count = arguments.batch;
            writeln!(
                out,
                "{keys_count} values of 1,536 bytes; medians\nhits: Zipf 0.99, ns (p50, p99, CPU), \
                 by threads; put: synced batches of {batch_count}"
            )?;
            render(&mut out, &arguments.threads, &report)?;
        }
    }
    Ok(())
}

fn render(out: &mut dyn Write, threads_counts: &[usize], report: &RivalReport) -> io::Result<()> {
    write!(out, "{:18}", "engine")?;
    for threads in threads_counts {
        write!(out, " {:>6}", format!("p50/{threads}"))?;
        write!(out, " {:>7} {:>6}", format!("p99/{threads}"), format!("CPU/{threads}"))?;
    }
    writeln!(
        out,
        " {:>8} {:>8} {:>7} {:>8} {:>8} {:>8} {:>9}",
        "put µs", "put CPU", "MB/s", "cold p50", "cold p99", "open ms", "disk B"
    )?;
    let mut names: Vec<&str> = Vec::new();
    let hits = report.hits.iter().map(|row| row.engine.as_str());
    for name in hits.chain(report.durable.iter().map(|row| row.engine)) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    for name in names {
        write!(out, "{name:18}")?;
        let mut hits = report.hits.iter().filter(|row| row.engine == name).peekable();
        if hits.peek().is_none() {
            write!(out, "{:width$}", "", width = HIT_WIDTH * threads_counts.len())?;
        }
        hits.try_for_each(|row| hit(out, row))?;
        let durable = report.durable.iter().find(|row| row.engine == name);
        durable.map_or(Ok(()), |row| files(out, row))?;
        writeln!(out)?;
    }
    Ok(())
}

/// Of what [`hit`] writes.
const HIT_WIDTH: usize = 22;

fn hit(out: &mut dyn Write, row: &HitRow) -> io::Result<()> {
    write!(out, " {:>6.0} {:>7.0} {:>6.0}", row.p50_ns, row.p99_ns, row.cpu_ns)
}

fn files(out: &mut dyn Write, row: &DurableRow) -> io::Result<()> {
    write!(out, " {:>8.2} {:>8.2} {:>7.1}", row.put_us, row.put_cpu_us, row.put_mb_per_second)?;
    write!(out, " {:>8.0} {:>8.0} {:>8.1}", row.cold_p50_ns, row.cold_p99_ns, row.open_ms)?;
    write!(out, " {:>9.0}", row.disk_bytes_per_value)
}

fn at_least_one<T: TryFrom<u32>>(text: &str) -> Result<T, String> {
    text.parse::<u32>()
        .ok()
        .filter(|number| *number > 0)
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| "a whole number from 1 on is expected".to_owned())
}
