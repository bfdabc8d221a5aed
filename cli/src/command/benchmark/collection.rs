//! `op-dbus benchmark --search N --collection NAME`: whether the graph of a collection finds as much as
//! is asked for, and how fast.
//!
//! The questions are some of its own vectors, and each is left out of its answer.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use op_dbus_benches::hit::{percentile, process_cpu};
use op_dbus_engine::{Answer, ErrorKind, Query, Record, Store};
use serde::Serialize;

use crate::args::Search;
use crate::config::Config;
use crate::error::Result;
use crate::exit::Exit;
use crate::interrupt;
use crate::output::{Output, grouped};

/// Questions unless the user says otherwise.
const QUESTIONS_COUNT: u32 = 1000;
/// Questions that are answered exactly, which takes a while, before Ctrl-C is heard.
const EXACT_COUNT: usize = 16;
/// Asked for unless the user says otherwise.
const RECALLS: [f64; 3] = [0.9, 0.95, 0.99];

/// What answers to all questions were, and what they cost.
#[derive(Serialize)]
struct Row {
    collection: String,
    plan: &'static str,
    asked_recall: f64,
    recall: f64,
    qps_cpu: f64,
    qps_wall: f64,
    p50_us: f64,
    p99_us: f64,
    expanded: f64,
    full_hot: f64,
    full_cold: f64,
}

/// A vector, and the record that it is of.
struct Question {
    key: Vec<u8>,
    vector: Vec<f32>,
}

pub(super) fn run(
    config: &Config,
    output: &Output,
    arguments: &Search,
    name: &str,
) -> Result<Exit> {
    let store = config.open()?;
    let count = arguments.search.flatten().unwrap_or(QUESTIONS_COUNT);
    let questions = questions(&store, name, count as usize)?;
    if questions.is_empty() {
        let problem = format!("the collection {name} has no vectors to ask for");
        return Err(op_dbus_engine::Error::new(ErrorKind::NotFound, problem)
            .with_remedy("put some into it, or name another")
            .into());
    }
    let mut truth = Vec::new();
    for part in questions.chunks(EXACT_COUNT) {
        if interrupt::is_requested() {
            return Ok(Exit::Interrupted);
        }
        truth.extend(ask(&store, part, arguments, |query| query.exact().collection(name))?);
    }
    if !output.is_json() {
        output.text(render_head)?;
    }
    let recalls = match arguments.recalls.is_empty() {
        true => &RECALLS[..],
        false => &arguments.recalls,
    };
    for &recall in recalls {
        if interrupt::is_requested() {
            return Ok(Exit::Interrupted);
        }
        let (cpu, wall) = (process_cpu(), Instant::now());
        let answers =
            ask(&store, &questions, arguments, |query| query.recall(recall).collection(name))?;
        let took = (process_cpu() - cpu, wall.elapsed());
        let row = row(name, recall, &questions, (&answers, &truth), took);
        output.answer(&row, |out| render_row(out, &row))?;
    }
    store.close();
    Ok(Exit::Success)
}

/// Some vectors of a collection, evenly from all of it.
fn questions(store: &Store, name: &str, count: usize) -> Result<Vec<Question>> {
    let (mut keys, mut step) = (Vec::new(), 1);
    for (index, record) in store.scan(name, b"")?.enumerate() {
        let Record { key, .. } = record?;
        if index % step == 0 {
            keys.push(key);
        }
        // Half as many, and then half as often.
        if keys.len() == 2 * count {
            let mut index = 0;
            keys.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            step *= 2;
        }
    }
    let vectors = store.vectors(name)?;
    let (count, mut found) = (count.min(keys.len()), Vec::new());
    for index in 0..count {
        let key = &keys[index * keys.len() / count];
        if let Some(vector) = vectors.get(key)? {
            found.push(Question { key: key.clone(), vector: vector.to_vec() });
        }
    }
    Ok(found)
}

fn ask(
    store: &Store,
    questions: &[Question],
    arguments: &Search,
    how: impl Fn(Query) -> Query,
) -> Result<Vec<Answer>> {
    // One more, as each finds itself.
    let query =
        |question: &Question| how(Query::vector(question.vector.clone()).limit(arguments.k + 1));
    let queries: Vec<Query> = questions.iter().map(query).collect();
    Ok(store.search_all(&queries, arguments.threads_count())?)
}

fn row(
    name: &str,
    asked_recall: f64,
    questions: &[Question],
    (answers, truth): (&[Answer], &[Answer]),
    (cpu, wall): (Duration, Duration),
) -> Row {
    let (mut hits_count, mut all_count) = (0_u32, 0_u32);
    for ((question, answer), truth) in questions.iter().zip(answers).zip(truth) {
        let expected = truth.hits.iter().map(|hit| &hit.key).filter(|key| **key != question.key);
        for key in expected {
            all_count += 1;
            hits_count += u32::from(answer.hits.iter().any(|hit| hit.key == *key));
        }
    }
    let time_us = |answer: &Answer| {
        let explain = &answer.explain;
        (explain.load + explain.search + explain.fetch).as_secs_f64() * 1e6
    };
    let mut times_us: Vec<f64> = answers.iter().map(time_us).collect();
    let explains = || answers.iter().filter_map(|answer| answer.explain.collections.first());
    let count = answers.len() as f64;
    let mean = |sum: u64| sum as f64 / count;
    Row {
        collection: name.to_owned(),
        plan: explains().next().map_or("none", |explain| explain.plan.name()),
        asked_recall,
        recall: f64::from(hits_count) / f64::from(all_count.max(1)),
        qps_cpu: count / cpu.as_secs_f64(),
        qps_wall: count / wall.as_secs_f64(),
        p50_us: percentile(&mut times_us, 50),
        p99_us: percentile(&mut times_us, 99),
        expanded: mean(explains().map(|explain| explain.expanded).sum()),
        full_hot: mean(explains().map(|explain| explain.full_hot).sum()),
        full_cold: mean(explains().map(|explain| explain.full_cold).sum()),
    }
}

fn render_head(out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "{:<6} {:>6} {:>7} {:>11} {:>10} {:>8} {:>8} {:>8} {:>6}",
        "plan",
        "asked",
        "recall",
        "queries/CPU",
        "queries/s",
        "p50 µs",
        "p99 µs",
        "expanded",
        "cold"
    )
}

fn render_row(out: &mut dyn Write, row: &Row) -> io::Result<()> {
    writeln!(
        out,
        "{:<6} {:>6} {:>7.4} {:>11} {:>10} {:>8.1} {:>8.1} {:>8.1} {:>6.1}",
        row.plan,
        row.asked_recall,
        row.recall,
        grouped(row.qps_cpu as u64),
        grouped(row.qps_wall as u64),
        row.p50_us,
        row.p99_us,
        row.expanded,
        row.full_cold
    )
}
