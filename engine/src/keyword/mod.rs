//! Records found by the words of their keys and texts, by BM25.
//!
//! An index lies in memory: whoever asks first has it made of the records, in about a third of a second
//! for 60,000 short ones (`benches/keyword.rs`), which is what it takes to read their vectors, too. So
//! there is no file that could be old, damaged or somebody else's, and nothing is written by a question.
//!
//! Tantivy makes the segments, reads them, merges them and weighs words. It has its index not changed by
//! its own writer, which keeps threads and counts what was removed until it is merged away: an index that
//! saw changes would give other scores than one that was made anew, and a service other answers than a
//! command. Here each change adds a part with the records that changed, whose earlier states no longer
//! count anywhere; of parts of like size one is made, so that there are few. What is counted is what
//! counts, over all collections that are searched.
//!
//! Texts of users are words, and never go through a parser of queries.

mod part;
mod words;

use std::collections::{BTreeSet, BinaryHeap};

use tantivy::query::Bm25Weight;
use tantivy::{DocId, TantivyError};

use crate::error::{Error, ErrorKind, Result};
use part::{Occurrence, Part, PartWriter};
pub(crate) use words::words;

/// A part this much smaller than the one before stays by itself.
const MERGED_RATIO: usize = 2;
/// Words of a query that count; a model reads no more of a text either.
const QUERY_WORDS_MAX: usize = 128;

/// The words of the records of a collection.
#[derive(Default)]
pub(crate) struct KeywordIndex {
    /// The largest first.
    parts: Vec<Part>,
}

/// Records that come into an index together.
pub(crate) struct Documents(PartWriter);

impl Documents {
    pub(crate) fn new() -> Result<Self> {
        PartWriter::new().map(Self).map_err(failed)
    }

    /// Adds a record; each key once.
    pub(crate) fn add(&mut self, key: &[u8], text: Option<&str>) -> Result<()> {
        self.0.add(key, text.unwrap_or_default()).map_err(failed)
    }
}

impl KeywordIndex {
    /// Takes records in, and forgets what others of the keys that changed were before.
    ///
    /// After an error the index is of no use.
    pub(crate) fn change(&mut self, changed: &BTreeSet<Vec<u8>>, new: Documents) -> Result<()> {
        for part in &mut self.parts {
            changed.iter().for_each(|key| part.forget(key));
        }
        self.parts.extend(new.0.finish().map_err(failed)?);
        self.settle().map_err(failed)
    }

    /// Merges parts of like size, and those of which less than half counts still.
    fn settle(&mut self) -> Result<(), TantivyError> {
        self.parts.retain(|part| part.counting_count() > 0);
        let sizes = |pair: &[Part]| (pair[0].counting_count(), pair[1].counting_count());
        let are_alike = |pair: &[Part]| sizes(pair).1 * MERGED_RATIO >= sizes(pair).0;
        while let Some(at) = self.parts.windows(2).rposition(are_alike) {
            self.parts[at] = Part::merged(&[&self.parts[at], &self.parts[at + 1]])?;
            self.parts.remove(at + 1);
        }
        for part in &mut self.parts {
            if part.counting_count() * 2 < part.documents_count() {
                *part = Part::merged(&[part])?;
            }
        }
        Ok(())
    }

    /// Records in it.
    pub(crate) fn len(&self) -> usize {
        self.parts.iter().map(Part::counting_count).sum()
    }

    /// Bytes of memory that it takes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.parts.iter().map(Part::memory_bytes).sum()
    }
}

/// A record that has words of a query.
#[derive(PartialEq)]
pub(crate) struct Match<'a> {
    /// By BM25; greater is better.
    pub(crate) score: f32,
    /// Which of the indexes it is in.
    pub(crate) index: usize,
    pub(crate) key: &'a [u8],
}

impl Eq for Match<'_> {}

/// Greater is better; equal scores by index and key, so that an answer can be repeated.
impl Ord for Match<'_> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.score.total_cmp(&other.score))
            .then_with(|| other.index.cmp(&self.index))
            .then_with(|| other.key.cmp(self.key))
    }
}

impl PartialOrd for Match<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// The records that have any word of a query, of all indexes together: the best is the greatest.
///
/// Cost: about a microsecond for a hundred occurrences of the words.
pub(crate) fn matches<'a>(
    indexes: &[&'a KeywordIndex],
    query: &str,
) -> Result<BinaryHeap<Match<'a>>> {
    let parts = indexes.iter().enumerate();
    let parts: Vec<(usize, &Part)> =
        parts.flat_map(|(at, index)| index.parts.iter().map(move |part| (at, part))).collect();
    let documents_count: usize = parts.iter().map(|(_, part)| part.counting_count()).sum();
    let words_count: u64 = parts.iter().map(|(_, part)| part.words_count()).sum();
    let length_mean = words_count as f32 / documents_count as f32;
    let mut scores: Vec<Vec<f32>> =
        parts.iter().map(|(_, part)| vec![0.0; part.documents_count()]).collect();
    let mut known = BTreeSet::new();
    for word in words(query) {
        if known.len() == QUERY_WORDS_MAX || !known.insert(word.clone()) {
            continue;
        }
        let found: Vec<Vec<Occurrence>> = parts
            .iter()
            .map(|(_, part)| part.occurrences(&word))
            .collect::<std::io::Result<_>>()
            .map_err(|error| failed(error.into()))?;
        let with_word: usize = found.iter().map(Vec::len).sum();
        let weight = Bm25Weight::for_one_term_without_explain(
            with_word as u64,
            documents_count as u64,
            length_mean,
        );
        for (scores, found) in scores.iter_mut().zip(found) {
            for Occurrence { document, frequency, length_id } in found {
                scores[document as usize] += weight.score(length_id, frequency);
            }
        }
    }
    let matches = parts.iter().zip(scores).flat_map(|((index, part), scores)| {
        let found = scores.into_iter().enumerate().filter(|(_, score)| *score > 0.0);
        found.map(move |(document, score)| Match {
            score,
            index: *index,
            key: part.key(document as DocId),
        })
    });
    Ok(matches.collect())
}

fn failed(error: TantivyError) -> Error {
    Error::new(ErrorKind::Io, "the words of records cannot be indexed")
        .with_remedy("search without --keyword")
        .with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Words as they are written, and what they count as.
    const VOCABULARY: [(&str, &[&str]); 8] = [
        ("PowerOff", &["poweroff", "power", "off"]),
        ("login1", &["login1", "login"]),
        ("GetDNS", &["getdns", "get", "dns"]),
        ("power", &["power"]),
        ("off", &["off"]),
        ("the", &["the"]),
        ("THE", &["the"]),
        ("network", &["network"]),
    ];

    struct Dice(u64);

    impl Dice {
        fn below(&mut self, end: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (self.0 >> 33) as usize % end
        }

        /// What is written, by numbers of the vocabulary.
        fn text(&mut self) -> Vec<usize> {
            // Lengths of up to 40 words are kept exactly.
            let count = self.below(13);
            // Some are frequent.
            (0..count)
                .map(|_| self.below(VOCABULARY.len()).min(self.below(VOCABULARY.len())))
                .collect()
        }
    }

    type Model = BTreeMap<Vec<u8>, Vec<usize>>;

    fn written(text: &[usize]) -> String {
        text.iter().map(|word| VOCABULARY[*word].0).collect::<Vec<_>>().join("-")
    }

    /// The words of a record, whose key is two.
    fn counted(key: &[u8], text: &[usize]) -> Vec<String> {
        let key = String::from_utf8(key.to_vec()).unwrap();
        let words = text.iter().flat_map(|word| VOCABULARY[*word].1).map(|word| (*word).to_owned());
        [key, "k".to_owned()].into_iter().chain(words).collect()
    }

    /// BM25 as tantivy has it, over all records.
    fn expected(model: &Model, query: &[&str]) -> BTreeMap<Vec<u8>, f32> {
        let records: BTreeMap<_, _> =
            model.iter().map(|(key, text)| (key, counted(key, text))).collect();
        let count = records.len() as f32;
        let mean = records.values().map(Vec::len).sum::<usize>() as f32 / count;
        let mut scores = BTreeMap::new();
        for word in query {
            let frequency =
                |words: &[String]| words.iter().filter(|own| own == word).count() as f32;
            let with_word = records.values().filter(|words| frequency(words) > 0.0).count() as f32;
            let weight = (1.0 + (count - with_word + 0.5) / (with_word + 0.5)).ln() * 2.2;
            for (key, words) in &records {
                let (frequency, length) = (frequency(words), words.len() as f32);
                let norm = 1.2 * (0.25 + 0.75 * length / mean);
                if frequency > 0.0 {
                    *scores.entry((*key).clone()).or_insert(0.0) +=
                        weight * frequency / (frequency + norm);
                }
            }
        }
        scores
    }

    fn found(indexes: &[&KeywordIndex], query: &str) -> Vec<(Vec<u8>, f32)> {
        let mut matches = matches(indexes, query).unwrap();
        std::iter::from_fn(|| matches.pop())
            .map(|found| (found.key.to_vec(), found.score))
            .collect()
    }

    fn index_of(model: &Model) -> KeywordIndex {
        let mut index = KeywordIndex::default();
        let mut documents = Documents::new().unwrap();
        for (key, text) in model {
            documents.add(key, Some(&written(text))).unwrap();
        }
        index.change(&BTreeSet::new(), documents).unwrap();
        index
    }

    /// Changes some records: what is new, what is different, and what goes.
    fn change(dice: &mut Dice, model: &mut Model, index: &mut KeywordIndex) {
        let mut changed = BTreeSet::new();
        let mut documents = Documents::new().unwrap();
        for _ in 0..=dice.below(20) {
            let key = format!("k{}", dice.below(200)).into_bytes();
            if !changed.insert(key.clone()) {
                continue;
            }
            if dice.below(3) == 0 {
                model.remove(&key);
                continue;
            }
            let text = dice.text();
            documents.add(&key, Some(&written(&text))).unwrap();
            model.insert(key, text);
        }
        index.change(&changed, documents).unwrap();
    }

    #[test]
    fn scores_are_those_of_bm25_whatever_was_changed() {
        const QUERIES: [(&str, &[&str]); 4] = [
            ("the power", &["the", "power"]),
            ("Power_off, poweroff!", &["power", "off", "poweroff"]),
            ("login1 dns k7 off", &["login1", "login", "dns", "k7", "k", "off"]),
            ("nowhere (network AND network)", &["nowhere", "network", "and"]),
        ];
        let (mut dice, mut model, mut index) = (Dice(7), Model::new(), KeywordIndex::default());
        for round in 0..150 {
            change(&mut dice, &mut model, &mut index);
            assert_eq!(index.len(), model.len());
            let anew = index_of(&model);
            for (query, words) in QUERIES {
                let found = found(&[&index], query);
                let order =
                    |pair: &[(Vec<u8>, f32)]| (pair[1].1, &pair[0].0) <= (pair[0].1, &pair[1].0);
                assert!(found.windows(2).all(order), "{round} {query}");
                let expected = expected(&model, words);
                assert_eq!(found.len(), expected.len(), "{round} {query}");
                for (key, score) in &found {
                    assert!((score - expected[key]).abs() < 1e-4, "{round} {query} {key:?}");
                }
                // To the last bit, so that a service answers as a command does.
                assert_eq!(found, self::found(&[&anew], query), "{round} {query}");
            }
        }
        assert!(index.parts.len() < 12, "{} parts", index.parts.len());
    }

    #[test]
    fn several_indexes_count_as_one() {
        let mut dice = Dice(9);
        let mut texts = |prefix: &str| -> Model {
            (0..50).map(|number| (format!("{prefix}{number}").into_bytes(), dice.text())).collect()
        };
        let (one, other) = (texts("a"), texts("b"));
        let both: Model = one.clone().into_iter().chain(other.clone()).collect();
        let (one, other, both) = (index_of(&one), index_of(&other), index_of(&both));
        let sorted = |mut found: Vec<(Vec<u8>, f32)>| {
            found.sort_by(|a, b| a.0.cmp(&b.0));
            found
        };
        for query in ["power off", "the network", "a7 login"] {
            assert_eq!(sorted(found(&[&one, &other], query)), sorted(found(&[&both], query)));
        }
        assert_eq!(found(&[&KeywordIndex::default()], "power"), []);
        assert_eq!(found(&[], "power"), []);
        assert_eq!(found(&[&both], "?!"), []);
    }
}
