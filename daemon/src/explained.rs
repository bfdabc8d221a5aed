//! How a search was done, as JSON: over the bus, and for programs that read the command line's answers.

use std::time::Duration;

use op_dbus_engine::{CollectionExplain, Explain, FilterExplain, FilterPlan, KeywordExplain, Plan};
use serde::{Deserialize, Serialize};

/// How a search was done and what it cost; times in microseconds.
#[derive(Debug, Serialize, Deserialize)]
pub struct Explained {
    embedding_hit: Option<bool>,
    embed_us: u64,
    load_us: u64,
    search_us: u64,
    fetch_us: u64,
    collections: Vec<ExplainedCollection>,
    /// Only where words were looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    keyword: Option<ExplainedKeyword>,
}

/// How words were looked for.
#[derive(Debug, Serialize, Deserialize)]
struct ExplainedKeyword {
    matched: u64,
    by_meaning: u64,
    by_words: u64,
    by_both: u64,
    load_us: u64,
    search_us: u64,
}

impl From<KeywordExplain> for ExplainedKeyword {
    fn from(done: KeywordExplain) -> Self {
        let KeywordExplain { matched, by_meaning, by_words, by_both, load, search } = done;
        let [load_us, search_us] = [load, search].map(|time| time.as_micros() as u64);
        Self { matched, by_meaning, by_words, by_both, load_us, search_us }
    }
}

impl From<ExplainedKeyword> for KeywordExplain {
    fn from(done: ExplainedKeyword) -> Self {
        let ExplainedKeyword { matched, by_meaning, by_words, by_both, load_us, search_us } = done;
        let [load, search] = [load_us, search_us].map(Duration::from_micros);
        Self { matched, by_meaning, by_words, by_both, load, search }
    }
}

/// How one collection was searched.
#[derive(Debug, Serialize, Deserialize)]
struct ExplainedCollection {
    name: String,
    plan: String,
    expanded: u64,
    compared: u64,
    full_hot: u64,
    full_cold: u64,
    /// Only where there is a filter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    filter: Option<ExplainedFilter>,
}

/// How a filter was asked about the records of one collection.
#[derive(Debug, Serialize, Deserialize)]
struct ExplainedFilter {
    plan: String,
    tested: u64,
    passed: u64,
}

impl From<FilterExplain> for ExplainedFilter {
    fn from(FilterExplain { plan, tested, passed }: FilterExplain) -> Self {
        Self { plan: plan.name().to_owned(), tested, passed }
    }
}

impl From<ExplainedFilter> for FilterExplain {
    fn from(ExplainedFilter { plan, tested, passed }: ExplainedFilter) -> Self {
        let known = FilterPlan::ALL.into_iter().find(|known| known.name() == plan);
        Self { plan: known.unwrap_or(FilterPlan::Met), tested, passed }
    }
}

impl From<&Explain> for Explained {
    fn from(explain: &Explain) -> Self {
        let us = |time: Duration| time.as_micros() as u64;
        let collection = |done: &CollectionExplain| ExplainedCollection {
            name: done.name.clone(),
            plan: done.plan.name().to_owned(),
            expanded: done.expanded,
            compared: done.compared,
            full_hot: done.full_hot,
            full_cold: done.full_cold,
            filter: done.filter.map(ExplainedFilter::from),
        };
        Self {
            embedding_hit: explain.embedding_hit,
            embed_us: us(explain.embed),
            load_us: us(explain.load),
            search_us: us(explain.search),
            fetch_us: us(explain.fetch),
            collections: explain.collections.iter().map(collection).collect(),
            keyword: explain.keyword.map(ExplainedKeyword::from),
        }
    }
}

impl From<Explained> for Explain {
    fn from(explained: Explained) -> Self {
        let collection = |done: ExplainedCollection| CollectionExplain {
            // A later service may have more of them.
            plan: Plan::ALL
                .into_iter()
                .find(|plan| plan.name() == done.plan)
                .unwrap_or(Plan::Exact),
            name: done.name,
            expanded: done.expanded,
            compared: done.compared,
            full_hot: done.full_hot,
            full_cold: done.full_cold,
            filter: done.filter.map(FilterExplain::from),
        };
        Self {
            collections: explained.collections.into_iter().map(collection).collect(),
            embedding_hit: explained.embedding_hit,
            embed: Duration::from_micros(explained.embed_us),
            load: Duration::from_micros(explained.load_us),
            search: Duration::from_micros(explained.search_us),
            fetch: Duration::from_micros(explained.fetch_us),
            keyword: explained.keyword.map(KeywordExplain::from),
        }
    }
}
