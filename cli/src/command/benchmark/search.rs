//! `op-dbus benchmark --search --base FILE`: a graph of the vectors of a file, and what it answers.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use op_dbus_benches::search::{self, Matrix, Questions, SearchBenchmark};
use op_dbus_engine::{ErrorKind, GraphOptions};
use op_dbus_formats::embedding::check_finite;
use op_dbus_formats::exchange::npy;

use super::Work;
use super::results::FileSearches;
use crate::args::{Search, Truth};
use crate::error::{Error, Result};
use crate::input::read_npy;
use crate::interrupt;
use crate::output::grouped;

/// The graph in the directory that the user names.
const GRAPH_FILE: &str = "vectors.graph";
/// Equal vectors have equal graphs.
const SEED: u64 = 0;

/// Measures; none if the user ended it.
pub(super) fn measure(work: &Work, arguments: &Search) -> Result<Option<FileSearches>> {
    let (Some(base_path), Some(directory)) = (&arguments.base, &arguments.index) else {
        unreachable!("clap asks for both")
    };
    let base = read_npy(base_path)?;
    let queries = arguments.queries.as_deref().map(read_npy).transpose()?;
    let truth = match &queries {
        Some(queries) => read_truth(arguments, &base, queries)?,
        None => None,
    };
    fs::create_dir_all(directory).map_err(|error| Error::io("make", directory, error))?;
    let graph_path = directory.join(GRAPH_FILE);
    if !graph_path.exists() {
        check_numbers(base_path, &base)?;
    }
    let Some(benchmark) = prepare(work, arguments, &base, &graph_path)? else { return Ok(None) };
    let mut measured = FileSearches {
        base: base_path.display().to_string(),
        k: arguments.neighbours_count(),
        index: benchmark.index_row().clone(),
        rows: Vec::new(),
    };
    let Some(queries) = &queries else { return Ok(Some(measured)) };
    let questions = Questions {
        queries,
        truth: truth.as_deref(),
        limit: arguments.neighbours_count(),
        passes_count: arguments.passes.get(),
        threads: arguments.threads_count(),
    };
    let efforts = match arguments.recalls.is_empty() {
        true => arguments.efforts.clone(),
        false => {
            let effort = |recall: &f64| benchmark.effort_for(*recall, arguments.neighbours_count());
            arguments.recalls.iter().map(effort).collect()
        }
    };
    for (index, &effort) in efforts.iter().enumerate() {
        if interrupt::is_requested() {
            return Ok(None);
        }
        work.say(&format!("searches: effort {effort}"));
        let (row, ids) = benchmark.measure(&questions, effort)?;
        measured.rows.push(row);
        if let Some(path) = &arguments.ids
            && index + 1 == efforts.len()
        {
            let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
            fs::write(path, bytes).map_err(|error| Error::io("write", path, error))?;
        }
    }
    Ok(Some(measured))
}

/// What is mapped was not looked at yet.
fn check_numbers(path: &Path, base: &Matrix) -> Result<()> {
    for (row, vector) in base.rows().enumerate() {
        check_finite(vector).map_err(|error| Error::input(path, &format!("row {row}: {error}")))?;
    }
    Ok(())
}

/// `None` if the user has ended it.
fn prepare<'a>(
    work: &Work,
    arguments: &Search,
    base: &'a Matrix,
    path: &Path,
) -> Result<Option<SearchBenchmark<'a>>> {
    let all_count = base.len();
    let mut tell = |count: usize| {
        work.step(&format!("searches: linking vectors, {count} of {all_count}")).map_err(|error| {
            op_dbus_engine::Error::new(ErrorKind::Busy, "ended by a signal").with_source(error)
        })
    };
    let options = GraphOptions { metric: arguments.metric, profile: arguments.profile, seed: SEED };
    match SearchBenchmark::prepare(base, path, options, arguments.threads_count(), &mut tell) {
        Ok(benchmark) => Ok(Some(benchmark)),
        Err(_) if interrupt::is_requested() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn read_truth(arguments: &Search, base: &Matrix, queries: &Matrix) -> Result<Option<Vec<i32>>> {
    let path = match &arguments.truth {
        None => return Ok(None),
        Some(Truth::Exact) => {
            return Ok(Some(search::truth(
                base,
                queries,
                arguments.metric,
                arguments.neighbours_count(),
            )));
        }
        Some(Truth::File(path)) => path,
    };
    let bytes = fs::read(path).map_err(|error| Error::io("read", path, error))?;
    if path.extension().is_some_and(|extension| extension == "npy") {
        return truth_of_npy(path, &bytes, (queries.len(), arguments.neighbours_count())).map(Some);
    }
    let (numbers, rest) = bytes.as_chunks();
    let expected = queries.len() * arguments.neighbours_count();
    if numbers.len() != expected || !rest.is_empty() {
        let problem = format!(
            "{} bytes are not {} numbers of 4 bytes for each of {} queries",
            bytes.len(),
            arguments.neighbours_count(),
            queries.len()
        );
        return Err(Error::input(path, &problem));
    }
    Ok(Some(numbers.iter().map(|bytes| i32::from_le_bytes(*bytes)).collect()))
}

/// Rows may be longer than what is asked for: the nearest come first.
fn truth_of_npy(path: &Path, bytes: &[u8], (queries_count, k): (usize, usize)) -> Result<Vec<i32>> {
    let (columns, numbers) =
        npy::decode_whole_numbers(bytes).map_err(|error| Error::input(path, &error))?;
    if columns < k || numbers.len() != queries_count * columns {
        let rows_count = numbers.len() / columns.max(1);
        let problem = format!(
            "{rows_count} rows of {columns} numbers are not {k} for each of {queries_count} queries"
        );
        return Err(Error::input(path, &problem));
    }
    let nearest = numbers.chunks(columns).flat_map(|row| &row[..k]);
    Ok(nearest.map(|id| i32::try_from(*id).unwrap_or(-1)).collect())
}

pub(super) fn render(out: &mut dyn Write, part: &FileSearches) -> io::Result<()> {
    let row = &part.index;
    write!(out, "{} vectors", grouped(row.vectors as u64))?;
    if let Some(build_cpu_s) = row.build_cpu_s {
        write!(out, " linked in {build_cpu_s:.1} s of processor time")?;
    }
    writeln!(
        out,
        "; for each {:.0} bytes of memory and {:.0} of disk; read in {:.0} ms",
        row.bytes_per_vector_memory, row.bytes_per_vector_disk, row.open_ms
    )?;
    if part.rows.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "{:>7} {:>7} {:>11} {:>11} {:>8} {:>8} {:>8} {:>8}",
        "effort", "recall", "queries/CPU", "queries/s", "p50 µs", "p99 µs", "expanded", "compared"
    )?;
    for row in &part.rows {
        let recall = row.recall.map_or_else(|| "–".to_owned(), |recall| format!("{recall:.4}"));
        writeln!(
            out,
            "{:>7} {recall:>7} {:>11} {:>11} {:>8.1} {:>8.1} {:>8.1} {:>8.1}",
            row.effort,
            grouped(row.qps_cpu as u64),
            grouped(row.qps_wall as u64),
            row.p50_us,
            row.p99_us,
            row.expanded,
            row.compared
        )?;
    }
    Ok(())
}
