//! What clients ask and what they are told. Execution is the store's.

use std::time::Duration;

use op_dbus_formats::filter::{Filter, Subject};
use op_dbus_formats::record::Payload;

use crate::error::{Error, ErrorKind, Result};
use crate::record::Record;

/// The most hits one query may ask for.
pub const LIMIT_MAX: usize = 10_000;

/// A search for the records nearest to a text or a vector.
///
/// ```
/// use op_dbus_engine::Query;
/// let query = Query::text("restart the network").collection("dbus").limit(3);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    pub(crate) target: Target,
    pub(crate) collections: Vec<String>,
    pub(crate) excluded: Vec<String>,
    pub(crate) limit: usize,
    pub(crate) min_score: Option<f32>,
    pub(crate) exact: bool,
    pub(crate) recall: f64,
    pub(crate) filter: Option<Filter>,
    pub(crate) keyword: bool,
    pub(crate) standing: Option<Standing>,
}

/// Which records stand for others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    prefix: &'static [u8],
    target: fn(&Payload<'_>) -> Option<Vec<u8>>,
}

impl Standing {
    /// Whether the record of this key may stand for another.
    pub(crate) fn may_be_of(&self, key: &[u8]) -> bool {
        key.starts_with(self.prefix)
    }

    /// The key of the record that one with this payload stands for.
    pub(crate) fn target(&self, payload: &Payload<'_>) -> Option<Vec<u8>> {
        (self.target)(payload)
    }
}

impl PartialEq for Standing {
    fn eq(&self, other: &Self) -> bool {
        self.prefix == other.prefix && std::ptr::fn_addr_eq(self.target, other.target)
    }
}

/// What a query is near to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Target {
    Text(String),
    Vector(Vec<f32>),
    /// What a record has, which is not found itself.
    Record {
        collection: String,
        key: Vec<u8>,
    },
}

impl Query {
    const LIMIT_DEFAULT: usize = 10;
    const RECALL_DEFAULT: f64 = 0.99;

    /// Searches by meaning: the text is embedded by the store's model.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self::new(Target::Text(text.into()))
    }

    /// Searches by a vector of the collections' own embedding space.
    ///
    /// Shape: `[dimensions]` of the collections searched.
    #[must_use]
    pub fn vector(vector: impl Into<Vec<f32>>) -> Self {
        Self::new(Target::Vector(vector.into()))
    }

    /// Searches for what is near to a record; the record itself is not found.
    #[must_use]
    pub fn like(collection: impl Into<String>, key: impl Into<Vec<u8>>) -> Self {
        Self::new(Target::Record { collection: collection.into(), key: key.into() })
    }

    fn new(target: Target) -> Self {
        Self {
            target,
            collections: Vec::new(),
            excluded: Vec::new(),
            limit: Self::LIMIT_DEFAULT,
            min_score: None,
            exact: false,
            recall: Self::RECALL_DEFAULT,
            filter: None,
            keyword: false,
            standing: None,
        }
    }

    /// Adds a collection to search; without any, all that the target fits are searched.
    #[must_use]
    pub fn collection(mut self, name: impl Into<String>) -> Self {
        self.collections.push(name.into());
        self
    }

    /// Leaves a collection out where none is named to be searched.
    #[must_use]
    pub fn except(mut self, name: impl Into<String>) -> Self {
        self.excluded.push(name.into());
        self
    }

    /// Sets how many hits come back at most; 10 unless told.
    #[must_use]
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// Leaves out hits that score less.
    #[must_use]
    pub fn min_score(mut self, score: f32) -> Self {
        self.min_score = Some(score);
        self
    }

    /// Finds exactly the nearest, which takes longer in collections that have a graph.
    #[must_use]
    pub fn exact(mut self) -> Self {
        self.exact = true;
        self
    }

    /// Sets which part of the nearest is to be found in collections that have a graph, as far as
    /// their calibration tells; 0.99 unless told.
    #[must_use]
    pub fn recall(mut self, recall: f64) -> Self {
        self.recall = recall;
        self
    }

    /// Finds only records of which a filter is true; as many as asked for, if there are so many.
    ///
    /// ```
    /// use op_dbus_engine::{Filter, Query};
    /// let filter: Filter = r#"kind = "method" and live"#.parse()?;
    /// let query = Query::text("restart the network").filter(filter);
    /// # Ok::<(), op_dbus_formats::TextError>(())
    /// ```
    ///
    /// Cost: records are read to be tested, those that the search comes by, or all of the collection
    /// where few pass.
    #[must_use]
    pub fn filter(mut self, filter: Filter) -> Self {
        self.filter = Some(filter);
        self
    }

    /// Finds records by the words of their keys and texts, too, and orders all by both: by how near they
    /// are in meaning, and by BM25.
    ///
    /// That finds names: `PowerOff`, `power off` and `poweroff` are the same. The score of a hit then
    /// tells of its two ranks, 1 if it is first by both, and not of its nearness (see [`Hit::score`]).
    ///
    /// Cost: the first such query reads the keys and texts of the collections, in about a third of a
    /// second for 60,000 short ones; later ones what was changed since.
    #[cfg(feature = "keyword")]
    #[must_use]
    pub fn keyword(mut self) -> Self {
        self.keyword = true;
        self
    }

    /// Says that records whose keys begin with `prefix` stand for others of their collection: for
    /// that of the key that `target` finds in their payload, if it finds one. A filter is then asked
    /// about that one; what is not there passes no filter. Hits are those that stand for it.
    #[must_use]
    pub fn standing(
        mut self,
        prefix: &'static [u8],
        target: fn(&Payload<'_>) -> Option<Vec<u8>>,
    ) -> Self {
        self.standing = Some(Standing { prefix, target });
        self
    }

    /// The record that is searched near to, by collection and key.
    #[must_use]
    pub fn origin(&self) -> Option<(&str, &[u8])> {
        match &self.target {
            Target::Record { collection, key } => Some((collection, key)),
            Target::Text(_) | Target::Vector(_) => None,
        }
    }

    /// Whether a text has to be embedded for it.
    #[must_use]
    pub fn needs_model(&self) -> bool {
        matches!(self.target, Target::Text(_))
    }

    /// The same about nothing: without its text or vector.
    pub(crate) fn without_target(&self) -> Self {
        let Self { target: _, collections, excluded, filter, .. } = self;
        Self {
            target: Target::Vector(Vec::new()),
            collections: collections.clone(),
            excluded: excluded.clone(),
            filter: filter.clone(),
            ..*self
        }
    }

    /// Whether the filter, if there is one, is true of a record itself.
    #[must_use]
    pub fn lets_pass(&self, collection: &str, record: &Record) -> bool {
        let Record { key, payload, .. } = record;
        let text = record.text.as_deref();
        let subject = Subject { collection, key, text, payload };
        self.filter.as_ref().is_none_or(|filter| filter.matches(&subject))
    }

    /// How many hits come back at most.
    #[must_use]
    pub fn hits_max(&self) -> usize {
        self.limit
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let invalid = |text: String| {
            Err(Error::new(ErrorKind::Invalid, text).with_remedy("correct the query"))
        };
        if !(1..=LIMIT_MAX).contains(&self.limit) {
            return invalid(format!("the limit {} is not between 1 and {LIMIT_MAX}", self.limit));
        }
        if self.min_score.is_some_and(|score| !score.is_finite()) {
            return invalid("the least score is not a finite number".to_owned());
        }
        if !(self.recall > 0.0 && self.recall <= 1.0) {
            return invalid(format!("the recall {} is not above 0 and at most 1", self.recall));
        }
        if self.keyword && !self.needs_model() {
            return invalid(
                "only a text has words to look for, and neither a vector nor a record".into(),
            );
        }
        if self.keyword && self.min_score.is_some() {
            return invalid(
                "a least score is one of nearness; with words, hits have ranks".to_owned(),
            );
        }
        match &self.target {
            Target::Text(text) if text.trim().is_empty() => {
                invalid("the query text is empty".to_owned())
            }
            Target::Vector(vector) => match vector.iter().position(|x| !x.is_finite()) {
                Some(index) => invalid(format!("the query vector's element {index} is not finite")),
                None => Ok(()),
            },
            Target::Text(_) | Target::Record { .. } => Ok(()),
        }
    }
}

/// What a search found, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The nearest records, best first.
    pub hits: Vec<Hit>,
    /// How they were found.
    pub explain: Explain,
}

/// One record that a search found.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    /// The collection it lies in.
    pub collection: String,
    /// Its key.
    pub key: Vec<u8>,
    /// How near it is; greater is nearer. See [`Metric`](crate::Metric) for the unit.
    ///
    /// If words were looked for, too: 30.5 / (60 + its rank by meaning) + 30.5 / (60 + its rank by
    /// words), where ranks are counted from 1 and one that it has not got adds nothing. 1 is first by
    /// both, 0.5 first by one.
    pub score: f32,
    /// Its text, if it has one.
    pub text: Option<String>,
    /// Its payload.
    pub payload: Payload<'static>,
}

/// How a search was done and what it cost.
#[derive(Clone, Debug, PartialEq)]
pub struct Explain {
    /// What was done in each collection.
    pub collections: Vec<CollectionExplain>,
    /// Whether the query text's embedding came from the cache; `None` for a vector or a record.
    pub embedding_hit: Option<bool>,
    /// Time to get the query's embedding.
    pub embed: Duration,
    /// Time to bring the collections' vectors into memory, if they were not.
    pub load: Duration,
    /// Time to find the nearest.
    pub search: Duration,
    /// Time to read the records found.
    pub fetch: Duration,
    /// What was done to find words, if they were looked for.
    pub keyword: Option<KeywordExplain>,
}

/// How words were looked for, and what came of it. Records that stand for others count as those.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeywordExplain {
    /// Records that have any word of the query, before expiry and filters.
    pub matched: u64,
    /// Records that were ranked by meaning.
    pub by_meaning: u64,
    /// Records that were ranked by words.
    pub by_words: u64,
    /// Those that were ranked by both.
    pub by_both: u64,
    /// Time to bring what is known of words up to date.
    pub load: Duration,
    /// Time to find the words and to join the ranks.
    pub search: Duration,
}

/// How one collection was searched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectionExplain {
    /// Its name.
    pub name: String,
    /// Which way was chosen.
    pub plan: Plan,
    /// Vertices of the graph whose neighbours were looked at.
    pub expanded: u64,
    /// Vectors compared by their bytes.
    pub compared: u64,
    /// Vectors compared in full that were hot.
    pub full_hot: u64,
    /// Vectors compared in full that had to be read.
    pub full_cold: u64,
    /// How the filter was asked, if there is one.
    pub filter: Option<FilterExplain>,
}

/// How a filter was asked about the records of one collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilterExplain {
    /// Which way was chosen.
    pub plan: FilterPlan,
    /// Records that were tested.
    pub tested: u64,
    /// Those of them that passed.
    pub passed: u64,
}

/// A way to find out which records pass a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterPlan {
    /// Each was read and tested when the search came by it.
    Met,
    /// All of the collection were read and tested, in their order.
    All,
    /// None was read: all had been for a query before, and none has changed since.
    Known,
}

impl FilterPlan {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Met, Self::All, Self::Known];

    /// Its name, which does not change.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::All => "all",
            Self::Known => "known",
        }
    }
}

/// A way to find the nearest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// All vectors are in memory and were compared in full.
    Exact,
    /// All vectors that may be found were compared by their bytes, and in full those for which that
    /// does not prove that they are too far.
    Scan,
    /// From vertex to vertex of the graph.
    Graph,
}

impl Plan {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Exact, Self::Scan, Self::Graph];

    /// Its name, which does not change.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Scan => "scan",
            Self::Graph => "graph",
        }
    }
}
