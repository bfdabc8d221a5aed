//! The parts of a scrub that read values: each against its checksum, and against the others.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use op_dbus_formats::collection::CollectionId;
use op_dbus_formats::embedding::{EmbeddingKey, EncodedEmbedding};
use op_dbus_formats::record::{self as format, EmbeddingSource};

use super::{Fault, RECOMPUTED, RESTORE, Scrub, WRITE_AGAIN};
use crate::db::state::{LoggedChanges, Pair, sequence_of};
use crate::error::{Error, Result};
use crate::store::collection::Collection;

/// Read in one step: long enough to be fast, short enough to be broken off.
const STEP_BYTES: u64 = 1 << 20;
/// The smallest key after another is the other and this.
const NEXT: u8 = 0;

type Collections = BTreeMap<CollectionId, Arc<Collection>>;

/// What a step has read: values up to and with `last`.
#[derive(Default)]
struct Step {
    bytes: u64,
    last: Vec<u8>,
    end: Option<End>,
}

/// Why a step ended before it was full.
enum End {
    Nothing,
    Unreadable(Error),
}

impl Step {
    fn goes_on(&self) -> bool {
        self.end.is_none() && self.bytes < STEP_BYTES
    }

    /// Takes in what a walk answered: bytes read, or why there are none.
    fn take(&mut self, answer: Result<Option<usize>>) {
        match answer {
            Ok(Some(bytes)) => self.bytes += bytes as u64,
            Ok(None) => self.end = Some(End::Nothing),
            Err(error) => self.end = Some(End::Unreadable(error)),
        }
    }
}

impl Scrub<'_> {
    pub(super) fn collections(&mut self) -> Result<ControlFlow<()>> {
        let state = &self.store.state;
        let mut ids = BTreeSet::new();
        let mut step = Step::default();
        let mut entries = state.collection_entries();
        while step.end.is_none() {
            let mut fault = None;
            step.take(entries.next_with(|name, spec| {
                let wrong = match state.collection(name, spec) {
                    Err(error) => Some(error.chain()),
                    Ok((_, spec)) if !ids.insert(spec.id) => {
                        Some("two collections have the same identity".to_owned())
                    }
                    Ok(_) => None,
                };
                fault = wrong.map(|what| (what, String::from_utf8_lossy(name).into_owned()));
                name.len() + spec.len()
            }));
            if let Some((what, name)) = fault {
                let fault = self.state_fault(what, RESTORE);
                self.fault(Fault { collection: Some(name), ..fault });
            }
        }
        if let Some(End::Unreadable(error)) = step.end {
            let fault = self.state_fault(error.chain(), RESTORE);
            self.fault(fault);
        }
        Ok(self.read(step.bytes))
    }

    /// Records, and the vectors that were given with them. The cursor is a full key.
    pub(super) fn records(&mut self) -> Result<ControlFlow<()>> {
        loop {
            let mut step = Step::default();
            let collections = self.collections_by_id();
            let mut pairs = self.store.state.pairs_from(&self.progress.cursor);
            while step.goes_on() {
                let mut faults = Vec::new();
                let mut last = std::mem::take(&mut step.last);
                let (mut records, mut embeddings) = (0, 0);
                step.take(pairs.next_with(|full_key, pair| {
                    full_key.clone_into(&mut last);
                    faults = self.pair_faults(full_key, pair, &collections);
                    let record = pair.and_then(|pair| pair.record);
                    let vector = pair.and_then(|pair| pair.vector);
                    records += u64::from(record.is_some());
                    embeddings += u64::from(vector.is_some());
                    full_key.len() + record.map_or(0, <[u8]>::len) + vector.map_or(0, <[u8]>::len)
                }));
                step.last = last;
                self.progress.report.records += records;
                self.progress.report.embeddings += embeddings;
                faults.into_iter().for_each(|fault| self.fault(fault));
            }
            drop(pairs);
            let unreadable = self.state_fault(String::new(), RESTORE);
            if let Some(flow) = self.finish_step(step, &["records", "vectors"], unreadable) {
                return Ok(flow);
            }
        }
    }

    fn collections_by_id(&self) -> Collections {
        let collections = self.store.all_collections();
        collections.into_iter().map(|collection| (collection.spec.id, collection)).collect()
    }

    /// What is wrong with what lies under one key.
    fn pair_faults(
        &self,
        full_key: &[u8],
        pair: Option<Pair<'_>>,
        collections: &Collections,
    ) -> Vec<Fault> {
        let found = pair.map(|pair| (pair, collections.get(&pair.collection)));
        let Some((pair, Some(collection))) = found else {
            // A collection made since the step began is no fault: its records are newer, too.
            let is_new =
                pair.is_some_and(|pair| self.collections_by_id().contains_key(&pair.collection));
            let what = "a record of a collection that does not exist".to_owned();
            let fault = Fault { key: Some(full_key.to_vec()), ..self.state_fault(what, RESTORE) };
            return if is_new { Vec::new() } else { vec![fault] };
        };
        let mut faults = Vec::new();
        let mut fault = |what: String| {
            faults.push(Fault {
                collection: Some(collection.name.to_string()),
                key: Some(pair.key.to_vec()),
                ..self.state_fault(what, WRITE_AGAIN)
            });
        };
        let is_given = match pair.record.map(format::Record::decode) {
            None => None,
            Some(Ok(record)) => Some(record.embedding == EmbeddingSource::Given),
            Some(Err(error)) => {
                fault(format!("the record is damaged: {error}"));
                None
            }
        };
        match (is_given, pair.vector) {
            (Some(true), None) => {
                fault("the vector that was given with the record is missing".into())
            }
            (Some(false), Some(_)) => fault("a vector that its record does not have".into()),
            (None, Some(_)) if pair.record.is_none() => fault("a vector without its record".into()),
            _ => {}
        }
        let dimensions = collection.spec.dimensions as usize;
        match pair.vector.map(|vector| EncodedEmbedding::parse(vector)?.to_vec()) {
            Some(Err(error)) => fault(format!("the vector is damaged: {error}")),
            Some(Ok(vector)) if vector.len() != dimensions => fault(format!(
                "the vector has {} elements; its collection has {dimensions} dimensions",
                vector.len()
            )),
            _ => {}
        }
        faults
    }

    /// The change log, whose sequences have no gap. The cursor is the key of the next change.
    pub(super) fn changes(&mut self) -> Result<ControlFlow<()>> {
        loop {
            let mut step = Step::default();
            // After a damaged block nobody knows which change comes next.
            let mut expected = match &self.progress.cursor[..] {
                // Those before the oldest were trimmed.
                [] => self.store.state.last_trimmed().ok().map(|trimmed| trimmed + 1),
                cursor => next_sequence(cursor),
            };
            let mut changes = self.store.state.changes_from(&self.progress.cursor);
            while step.goes_on() {
                let mut wrong = None;
                let mut last = std::mem::take(&mut step.last);
                let mut changes_count = 0;
                step.take(changes.next_with(|key, value| {
                    key.clone_into(&mut last);
                    match LoggedChanges::decode(key, value) {
                        Ok(changes) => {
                            changes_count += changes.len() as u64;
                            wrong = self.missing_changes(expected, changes.first_sequence());
                        }
                        // As many are missing as lie under this key, which nobody knows.
                        Err(what) => wrong = Some(what),
                    }
                    expected = sequence_of(key).and_then(|found| found.checked_add(1));
                    key.len() + value.len()
                }));
                step.last = last;
                self.progress.report.changes += changes_count;
                if let Some(what) = wrong {
                    let fault = self.state_fault(what, RESTORE);
                    self.fault(fault);
                }
            }
            drop(changes);
            let is_end = matches!(step.end, Some(End::Nothing));
            if is_end && let Err(error) = self.store.state.last_sequence() {
                let fault = self.state_fault(error.chain(), RESTORE);
                self.fault(fault);
            }
            let unreadable = self.state_fault(String::new(), RESTORE);
            if let Some(flow) = self.finish_step(step, &["changes"], unreadable) {
                return Ok(flow);
            }
        }
    }

    /// Says which changes are missing before one that was found.
    fn missing_changes(&self, expected: Option<u64>, found: u64) -> Option<String> {
        let expected = expected.filter(|expected| *expected != found)?;
        let last_missing = found.saturating_sub(1);
        // Since the scrub was there, the log may have been trimmed beyond it.
        let is_trimmed =
            || self.store.state.last_trimmed().is_ok_and(|trimmed| trimmed >= last_missing);
        if expected < found && is_trimmed() {
            return None;
        }
        Some(format!("the changes {expected} to {last_missing} are missing"))
    }

    /// Embeddings of texts; a damaged one is removed. The cursor is a key.
    pub(super) fn cached_embeddings(&mut self) -> Result<ControlFlow<()>> {
        let store = self.store;
        let cache = store.cache.database();
        loop {
            let mut step = Step::default();
            let mut damaged: Vec<(Vec<u8>, String)> = Vec::new();
            let mut embeddings = cache.embeddings_from(&self.progress.cursor);
            while step.goes_on() {
                let mut last = std::mem::take(&mut step.last);
                let mut embeddings_count = 0;
                step.take(embeddings.next_with(|key, embedding| {
                    embeddings_count += 1;
                    key.clone_into(&mut last);
                    if let Err(what) = check_embedding(key, embedding) {
                        damaged.push((key.to_vec(), what));
                    }
                    key.len() + embedding.len()
                }));
                step.last = last;
                self.progress.report.embeddings += embeddings_count;
            }
            drop(embeddings);
            let keys: Vec<Vec<u8>> = damaged.iter().map(|(key, _)| key.clone()).collect();
            let removed = if keys.is_empty() { Ok(()) } else { cache.remove_embeddings(&keys) };
            for (_, what) in damaged {
                let fault = self.cache_fault(what, removed.is_ok());
                self.fault(fault);
            }
            let unreadable = self.cache_fault(String::new(), false);
            if let Some(flow) = self.finish_step(step, &["embeddings"], unreadable) {
                return Ok(flow);
            }
        }
    }

    /// Moves on after a step; answers with how the part ends, if it does.
    ///
    /// Where a block cannot be read, whose damage has been told, it goes on behind that block.
    /// Where it is not known how far the damage goes, `unreadable` is told and the part ends.
    fn finish_step(
        &mut self,
        step: Step,
        families: &[&str],
        unreadable: Fault,
    ) -> Option<ControlFlow<()>> {
        let Step { bytes, mut last, end } = step;
        let mut is_last = matches!(end, Some(End::Nothing));
        if last.is_empty() {
            last.clone_from(&self.progress.cursor);
        } else {
            last.push(NEXT);
        }
        if let Some(End::Unreadable(error)) = end {
            match self.end_of_damage(families, &last) {
                Some(until) => last = [&until[..], &[NEXT]].concat(),
                None => {
                    self.fault(Fault { what: error.chain(), ..unreadable });
                    is_last = true;
                }
            }
        }
        self.advance(last);
        let flow = self.read(bytes);
        (is_last || flow.is_break()).then_some(flow)
    }

    /// The last key of the damaged block that comes next.
    fn end_of_damage(&self, families: &[&str], from: &[u8]) -> Option<Vec<u8>> {
        let known = self.progress.unreadable.iter();
        let next = known
            .filter(|range| families.contains(&&range.family[..]) && &range.until[..] >= from)
            .min_by(|a, b| a.until.cmp(&b.until))?;
        Some(next.until.clone())
    }

    pub(super) fn state_fault(&self, what: String, remedy: &str) -> Fault {
        Fault {
            what,
            path: self.shown(self.store.state.path()),
            offset: None,
            collection: None,
            key: None,
            repaired: false,
            remedy: remedy.to_owned(),
        }
    }

    fn cache_fault(&self, what: String, repaired: bool) -> Fault {
        let remedy =
            if repaired { RECOMPUTED } else { "remove @cache, which comes back by itself" };
        let path = self.shown(self.store.cache.database().path());
        Fault { path, repaired, ..self.state_fault(what, remedy) }
    }

    /// A key of the authority as a person reads it.
    pub(super) fn shown_key(&self, family: &str, key: &[u8]) -> String {
        let text = |bytes: &[u8]| format!("\"{}\"", String::from_utf8_lossy(bytes).escape_debug());
        match family {
            _ if key.is_empty() => "the beginning".to_owned(),
            "changes" => {
                sequence_of(key).map_or_else(|| text(key), |sequence| sequence.to_string())
            }
            "records" | "vectors" => {
                let Some((id, key)) = key.split_first_chunk() else { return text(key) };
                let id = CollectionId(u32::from_be_bytes(*id));
                match self.collections_by_id().get(&id) {
                    Some(collection) => format!("{} of collection {}", text(key), collection.name),
                    None => text(key),
                }
            }
            _ => text(key),
        }
    }
}

/// The sequence after the one whose key a cursor was made from.
fn next_sequence(cursor: &[u8]) -> Option<u64> {
    sequence_of(cursor.strip_suffix(&[NEXT])?)?.checked_add(1)
}

fn check_embedding(key: &[u8], embedding: &[u8]) -> std::result::Result<(), String> {
    let key: [u8; 16] = key.try_into().map_err(|_| "an embedding without a key".to_owned())?;
    let checked = EncodedEmbedding::parse(embedding).and_then(|embedding| embedding.to_vec());
    let named = EmbeddingKey(u128::from_be_bytes(key));
    checked.map(drop).map_err(|error| format!("the embedding {named} is damaged: {error}"))
}
