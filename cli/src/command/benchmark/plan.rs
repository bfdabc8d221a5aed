//! What will be measured, of which size, and what cannot be: known before anything is.

use op_dbus_engine::{Embedder, EmbedderConfig, Error as EngineError, Provider};

use super::compare::Baseline;
use super::results::{
    EmbeddingSizes, HitSizes, Measured, NotMeasured, NumaSizes, SearchSizes, Sizes,
};
use super::{Work, collection, embeddings, hits, made, not_measured, numa, search};
use crate::args::Benchmark;
use crate::config::Config;
use crate::error::{Error, Result};

/// Sizes of `--all`, with which it takes one to three minutes on two CPUs.
const ALL_LOOKUPS_COUNT: usize = 100_000;
const ALL_TEXTS_COUNT: u32 = 100;
const ALL_NUMA_LOOKUPS_COUNT: usize = 1_000_000;
const KEYS_COUNT: u32 = 100_000;

/// A model that can be run, and what it was opened with.
struct Model {
    embedder: Embedder,
    config: EmbedderConfig,
}

/// What will be measured.
pub(super) struct Plan {
    pub(super) sizes: Sizes,
    models: Vec<Model>,
    missing: Vec<NotMeasured>,
}

impl Plan {
    /// Of what was asked for.
    pub(super) fn make(
        config: &Config,
        arguments: &Benchmark,
        baseline: Option<&Baseline>,
    ) -> Result<Self> {
        let all = |size| arguments.all.then_some(size);
        let lookups = arguments.cache_hit.or(all(ALL_LOOKUPS_COUNT));
        let reads = arguments.numa_local.or(all(ALL_NUMA_LOOKUPS_COUNT));
        let mut plan = Self {
            sizes: Sizes {
                cache_hit: lookups.map(|lookups| hit_sizes(arguments, lookups)),
                embeddings: None,
                numa_local: reads.map(|lookups| NumaSizes { lookups }),
                search: search_sizes(arguments)?,
            },
            models: Vec::new(),
            missing: Vec::new(),
        };
        if let Some(texts) = arguments.embeddings.or(arguments.all.then_some(ALL_TEXTS_COUNT)) {
            plan.open_models(config, arguments, texts as usize, baseline)?;
        }
        Ok(plan)
    }

    /// Opens the model, and with --all the same on cards.
    fn open_models(
        &mut self,
        config: &Config,
        arguments: &Benchmark,
        texts: usize,
        baseline: Option<&Baseline>,
    ) -> Result<()> {
        // Who names a model or a card wants that one, and who compares wants all.
        let is_needed = !arguments.all
            || config.is_model_chosen()
            || baseline.is_some_and(Baseline::has_embeddings);
        let model = match open(config.embedder()) {
            Ok(model) => model,
            Err(error) if is_needed => return Err(error.into()),
            Err(error) => {
                self.missing.push(not_measured("embedding texts", &error));
                return Ok(());
            }
        };
        let provider = model.embedder.running_provider().unwrap_or_default();
        let all_threads = || std::thread::available_parallelism().map_or(1, usize::from);
        self.sizes.embeddings = Some(EmbeddingSizes {
            texts,
            model: model.embedder.name().to_owned(),
            provider: provider.name().to_owned(),
            threads: model.config.threads_count.map_or_else(all_threads, usize::from),
        });
        self.models.push(model);
        if !arguments.all {
            return Ok(());
        }
        for (other, guide) in [(Provider::Cuda, "2 ms"), (Provider::TensorRt, "1 ms")] {
            if other == provider {
                continue;
            }
            match open(&EmbedderConfig { provider: other, ..config.embedder().clone() }) {
                Ok(model) => self.models.push(model),
                Err(error) => {
                    let what = format!("embedding texts on {other}, in the guide {guide}");
                    self.missing.push(not_measured(&what, &error));
                }
            }
        }
        Ok(())
    }

    /// Measures it; none if the user ended it.
    pub(super) fn measure(
        &self,
        work: &Work,
        config: &Config,
        arguments: &Benchmark,
    ) -> Result<Option<Measured>> {
        let mut measured = Measured::default();
        let texts_count = self.sizes.embeddings.as_ref().map_or(0, |sizes| sizes.texts);
        for Model { embedder, config } in &self.models {
            match embeddings::measure(work, embedder, config, texts_count)? {
                Some(part) => measured.embeddings.push(part),
                None => return Ok(None),
            }
        }
        if let Some(sizes) = &self.sizes.cache_hit {
            let Some(rows) = hits::measure(work, sizes)? else { return Ok(None) };
            measured.cache_hit = rows;
        }
        if let Some(sizes) = &self.sizes.search {
            let search = &arguments.search;
            if search.base.is_some() {
                measured.search_file = search::measure(work, search)?;
            } else {
                measured.search = match &search.collection {
                    Some(name) => collection::measure(work, config, name, sizes)?,
                    None => collection::measure_made(work, config, sizes)?,
                };
            }
            if measured.search.is_none() && measured.search_file.is_none() {
                return Ok(None);
            }
        }
        if let Some(sizes) = &self.sizes.numa_local {
            measured.numa_local = numa::measure(work, sizes)?;
            if measured.numa_local.is_none() {
                return Ok(None);
            }
        }
        Ok(Some(measured))
    }

    /// What was not, and why.
    pub(super) fn not_measured(&self, measured: &Measured) -> Vec<NotMeasured> {
        let nodes = measured.numa_local.as_ref().and_then(numa::not_measured);
        self.missing.iter().cloned().chain(nodes).collect()
    }
}

fn open(config: &EmbedderConfig) -> op_dbus_engine::Result<Model, EngineError> {
    let embedder = Embedder::open(config, None)?;
    embedder.load()?;
    Ok(Model { embedder, config: config.clone() })
}

fn hit_sizes(arguments: &Benchmark, lookups: usize) -> HitSizes {
    let or = |given: &[u32], otherwise: u32| match given {
        [] => vec![otherwise],
        given => given.to_vec(),
    };
    let threads = match (&arguments.threads_at_once[..], arguments.all) {
        ([], true) => thread_counts(),
        ([], false) => vec![1],
        (given, _) => given.to_vec(),
    };
    HitSizes { lookups, keys: or(&arguments.keys, KEYS_COUNT), threads }
}

/// One, two, four and so on, and as many as there are CPUs.
fn thread_counts() -> Vec<usize> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let powers = std::iter::successors(Some(1), |count| Some(count * 2));
    powers.take_while(|count| *count < cpus).chain([cpus]).collect()
}

fn search_sizes(arguments: &Benchmark) -> Result<Option<SearchSizes>> {
    let search = &arguments.search;
    let count = match search.search {
        None if !arguments.all => return Ok(None),
        given => given.flatten(),
    };
    let of = match (&search.base, &search.collection) {
        (Some(path), _) => path.display().to_string(),
        (None, Some(name)) => format!("collection {name}"),
        (None, None) => "made".to_owned(),
    };
    if let (Some(_), Some(count)) = (&search.base, count) {
        return Err(usage(
            &format!(
                "--search {count} says how many vectors there should be, and --base gives them"
            ),
            "leave the number out, and give --queries",
        ));
    }
    let is_asked = search.k.is_some() || !search.recalls.is_empty();
    if search.base.is_some() && search.queries.is_none() && is_asked {
        let problem =
            "-k and --recalls are about searches, and --base without --queries makes none";
        return Err(usage(problem, "say by --queries what to search for"));
    }
    let is_made = search.base.is_none() && search.collection.is_none();
    let asked = match (&search.recalls[..], &search.base) {
        ([], Some(_)) => search.efforts.iter().map(|effort| *effort as f64).collect(),
        ([], None) if is_made => collection::RECALLS_OF_MADE.to_vec(),
        ([], None) => collection::RECALLS.to_vec(),
        (given, _) => given.to_vec(),
    };
    let threads = match search.threads {
        None if is_made => thread_counts(),
        given => vec![given.map_or(1, usize::from)],
    };
    let count = if is_made { count.or(Some(made::VECTORS_COUNT)) } else { count };
    Ok(Some(SearchSizes { of, count, k: search.neighbours_count(), asked, threads }))
}

fn usage(problem: &str, remedy: &str) -> Error {
    Error::Usage { problem: problem.to_owned(), remedy: Some(remedy.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_powers_of_two_and_all() {
        let counts = thread_counts();
        assert_eq!(counts[0], 1);
        assert!(counts.is_sorted_by(|a, b| a < b), "{counts:?}");
    }
}
