//! `op-dbus benchmark --search [N]`: whether the graph of a collection finds as much as is asked for,
//! and how fast; of vectors that are made for it, or of a collection of the store.
//!
//! Of a collection the questions are some of its own vectors, and each is left out of its answer.

use std::io::{self, Write};
use std::num::NonZero;
use std::time::{Duration, Instant};

use op_dbus_benches::hit::{percentile, process_cpu};
use op_dbus_benches::search::of_microseconds;
use op_dbus_engine::{Answer, ErrorKind, Query, Record, Store, StoreConfig};

use super::results::{CollectionRow, SearchSizes, Searches};
use super::{Work, made};
use crate::config::Config;
use crate::error::Result;
use crate::interrupt;
use crate::output::grouped;

/// Questions unless the user says otherwise.
const QUESTIONS_COUNT: u32 = 1000;
/// Questions that are answered at a time before Ctrl-C is heard: exactly, which takes a while, and by
/// a graph.
const EXACT_COUNT: usize = 16;
const GRAPH_COUNT: usize = 1000;
/// How often all questions are asked of a graph, which soon answers: others take turns on a machine,
/// for longer than that.
const PASSES_COUNT: usize = 7;
/// Asked for unless the user says otherwise.
pub(super) const RECALLS: [f64; 3] = [0.9, 0.95, 0.99];
/// Of vectors that are made, so that a line comes of it.
pub(super) const RECALLS_OF_MADE: [f64; 5] = [0.8, 0.9, 0.95, 0.99, 0.999];
/// Asked for by several numbers of threads.
const RECALL_OF_THREADS: f64 = 0.95;

/// A vector, and the record that it is of, if it is of one.
pub(super) struct Question {
    pub(super) key: Option<Vec<u8>>,
    pub(super) vector: Vec<f32>,
}

/// What is asked, and of whom.
struct Asking<'a> {
    store: &'a Store,
    name: &'a str,
    questions: &'a [Question],
    k: usize,
}

/// Answers to all questions, and the time of the processor and of the clock.
type Answers = (Vec<Answer>, Duration, Duration);

/// Measures a collection of the store; none if the user ended it.
pub(super) fn measure(
    work: &Work,
    config: &Config,
    name: &str,
    sizes: &SearchSizes,
) -> Result<Option<Searches>> {
    let store = config.open()?;
    let count = sizes.count.unwrap_or(QUESTIONS_COUNT);
    let questions = questions(&store, name, count as usize)?;
    if questions.is_empty() {
        let problem = format!("the collection {name} has no vectors to ask for");
        return Err(op_dbus_engine::Error::new(ErrorKind::NotFound, problem)
            .with_remedy("put some into it, or name another")
            .into());
    }
    let asking = Asking { store: &store, name, questions: &questions, k: sizes.k };
    let measured = asking.measure(work, sizes, Some(name.to_owned()))?;
    store.close();
    Ok(measured)
}

/// Measures vectors that are made for it; none if the user ended it.
pub(super) fn measure_made(
    work: &Work,
    config: &Config,
    sizes: &SearchSizes,
) -> Result<Option<Searches>> {
    let directory = work.directory("search")?;
    let path = directory.path().join("store");
    let store = Store::open(StoreConfig::new(path).with_numa(config.numa().clone()).cold())?;
    let vectors_count = sizes.count.unwrap_or(made::VECTORS_COUNT);
    if !made::fill(work, &store, vectors_count)? {
        return Ok(None);
    }
    let questions = made::questions(QUESTIONS_COUNT);
    let asking =
        Asking { store: &store, name: made::COLLECTION, questions: &questions, k: sizes.k };
    let measured = asking.measure(work, sizes, None)?;
    store.close();
    Ok(measured)
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
            found.push(Question { key: Some(key.clone()), vector: vector.to_vec() });
        }
    }
    Ok(found)
}

impl Asking<'_> {
    fn measure(
        &self,
        work: &Work,
        sizes: &SearchSizes,
        collection: Option<String>,
    ) -> Result<Option<Searches>> {
        let count = self.questions.len();
        work.say(&format!("searches: {count} questions, all vectors compared"));
        let threads = sizes.threads.first().copied().unwrap_or(1);
        let Some(exact) = self.ask(EXACT_COUNT, threads, Query::exact)? else { return Ok(None) };
        let exact = [exact];
        let truth = &exact[0].0;
        let mut rows = Vec::new();
        let curve = sizes.asked.iter().map(|recall| (*recall, threads));
        let scaling = sizes.threads.iter().skip(1).map(|threads| (RECALL_OF_THREADS, *threads));
        for (recall, threads) in curve.chain(scaling) {
            work.say(&format!("searches: recall {recall}, {threads} threads"));
            let mut passes = Vec::new();
            for _ in 0..PASSES_COUNT {
                match self.ask(GRAPH_COUNT, threads, |query| query.recall(recall))? {
                    Some(answers) => passes.push(answers),
                    None => return Ok(None),
                }
            }
            rows.push(self.row((recall, threads), &passes, truth));
        }
        let collections = self.store.stats()?.collections;
        let found = collections.iter().find(|collection| collection.name == self.name);
        Ok(Some(Searches {
            collection,
            vectors: found.map_or(0, |collection| collection.records),
            dimensions: found.map_or(0, |collection| collection.dimensions as usize),
            questions: count,
            k: self.k,
            exact: self.row((1.0, threads), &exact, truth),
            rows,
        }))
    }

    /// Asks all questions, `part_count` at a time; none if the user ended it.
    fn ask(
        &self,
        part_count: usize,
        threads: usize,
        how: impl Fn(Query) -> Query,
    ) -> Result<Option<Answers>> {
        let query = |question: &Question| {
            // One more, as those of the collection find themselves.
            let limit = self.k + usize::from(question.key.is_some());
            how(Query::vector(question.vector.clone()).limit(limit)).collection(self.name)
        };
        let queries: Vec<Query> = self.questions.iter().map(query).collect();
        let threads = NonZero::new(threads).unwrap_or(NonZero::<usize>::MIN);
        let mut answers = Vec::new();
        let (cpu, wall) = (process_cpu(), Instant::now());
        for part in queries.chunks(part_count) {
            if interrupt::is_requested() {
                return Ok(None);
            }
            answers.extend(self.store.search_all(part, threads)?);
        }
        Ok(Some((answers, process_cpu() - cpu, wall.elapsed())))
    }

    /// The passes give the same answers, and rates of which the median counts.
    fn row(
        &self,
        (asked_recall, threads): (f64, usize),
        passes: &[Answers],
        truth: &[Answer],
    ) -> CollectionRow {
        let answers = &passes[0].0;
        let (mut hits_count, mut all_count) = (0_u32, 0_u32);
        for ((question, answer), truth) in self.questions.iter().zip(answers).zip(truth) {
            let own = question.key.as_ref();
            let expected = truth.hits.iter().map(|hit| &hit.key).filter(|key| Some(*key) != own);
            for key in expected {
                all_count += 1;
                hits_count += u32::from(answer.hits.iter().any(|hit| hit.key == *key));
            }
        }
        let time_us = |answer: &Answer| {
            let explain = &answer.explain;
            (explain.load + explain.search + explain.fetch).as_secs_f64() * 1e6
        };
        let all_answers = passes.iter().flat_map(|(answers, ..)| answers);
        let mut times_us: Vec<f64> = all_answers.map(time_us).collect();
        let count = answers.len() as f64;
        let median_rate = |of: fn(&Answers) -> Duration| {
            let rate = |pass: &Answers| count / of(pass).as_secs_f64();
            percentile(&mut passes.iter().map(rate).collect::<Vec<_>>(), 50)
        };
        let explains = || answers.iter().filter_map(|answer| answer.explain.collections.first());
        let mean = |sum: u64| sum as f64 / count;
        CollectionRow {
            plan: explains().next().map_or("none", |explain| explain.plan.name()).to_owned(),
            threads,
            asked_recall,
            recall: f64::from(hits_count) / f64::from(all_count.max(1)),
            qps_cpu: median_rate(|(_, cpu, _)| *cpu),
            qps_wall: median_rate(|(.., wall)| *wall),
            p50_us: percentile(&mut times_us, 50),
            p99_us: percentile(&mut times_us, 99),
            expanded: mean(explains().map(|explain| explain.expanded).sum()),
            full_hot: mean(explains().map(|explain| explain.full_hot).sum()),
            full_cold: mean(explains().map(|explain| explain.full_cold).sum()),
            quantiles: of_microseconds(&times_us),
        }
    }
}

pub(super) fn render(out: &mut dyn Write, part: &Searches) -> io::Result<()> {
    let of = part.collection.as_deref().unwrap_or("vectors that were made");
    writeln!(
        out,
        "The nearest {} of {} vectors of {} dimensions: {of}, {} questions",
        part.k,
        grouped(part.vectors),
        part.dimensions,
        grouped(part.questions as u64)
    )?;
    writeln!(
        out,
        "{:<6} {:>7} {:>6} {:>7} {:>11} {:>10} {:>8} {:>8} {:>8}",
        "plan",
        "threads",
        "asked",
        "recall",
        "queries/CPU",
        "queries/s",
        "p50 µs",
        "p99 µs",
        "cold"
    )?;
    for row in part.rows.iter().chain([&part.exact]) {
        writeln!(
            out,
            "{:<6} {:>7} {:>6} {:>7.4} {:>11} {:>10} {:>8.1} {:>8.1} {:>8.1}",
            row.plan,
            row.threads,
            row.asked_recall,
            row.recall,
            grouped(row.qps_cpu as u64),
            grouped(row.qps_wall as u64),
            row.p50_us,
            row.p99_us,
            row.full_cold
        )?;
    }
    Ok(())
}
