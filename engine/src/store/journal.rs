//! The journal: written with a sync, read in order, verified against its own chain.

use op_dbus_formats::journal::{Actor, JournalEntry, JournalHash};

use super::{Store, lock};
use crate::error::{Error, ErrorKind, Result};
use crate::journal::{JournalHead, JournalNote, JournalRecord, hexadecimal};
use crate::os::clock::unix_ms;

/// Where the next entry is chained to.
#[derive(Default)]
pub(super) struct JournalEnd {
    number: u64,
    hash: JournalHash,
}

impl JournalEnd {
    pub(super) fn new(head: Option<(u64, JournalHash)>) -> Self {
        let (number, hash) = head.unwrap_or_default();
        Self { number, hash }
    }
}

impl Store {
    /// Appends to the journal, durably, and returns the number of the last entry.
    ///
    /// Cost: one sync for all of them.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if a note is too long, or its details are no JSON object;
    /// [`ErrorKind::Full`] if the disk is, and [`ErrorKind::Poisoned`] after a failed write: what is
    /// not journaled must not be done.
    pub fn append_journal(&self, notes: &[JournalNote]) -> Result<u64> {
        self.require_writable()?;
        self.admit_put(notes.iter().map(|note| note.details.len() as u64 + 512).sum())?;
        let mut end = lock(&self.journal_end);
        let (mut number, mut hash) = (end.number, end.hash);
        let mut entries = Vec::with_capacity(notes.len());
        for note in notes {
            number += 1;
            let (bytes, own) = self.encode_note(note, number, hash)?;
            hash = own;
            entries.push((number, bytes));
        }
        self.commits.write_besides(|| self.state.put_journal(&entries))?;
        *end = JournalEnd { number, hash };
        Ok(number)
    }

    fn encode_note(
        &self,
        note: &JournalNote,
        number: u64,
        previous: JournalHash,
    ) -> Result<(Vec<u8>, JournalHash)> {
        let actor = note.actor.as_ref();
        let entry = JournalEntry {
            number,
            written_at_unix_ms: unix_ms(),
            sequence: self.commits.last_sequence(),
            kind: note.kind,
            intent: note.intent,
            actor: actor.map(|actor| Actor {
                uid: actor.uid,
                sender: &actor.sender,
                executable: &actor.executable,
            }),
            action: &note.action,
            details: &note.details,
            previous,
        };
        entry.encode().map_err(|error| {
            Error::new(ErrorKind::Invalid, "the journal cannot hold this note").with_source(error)
        })
    }

    /// Hands the entries of the journal to `take`, from a number on, until that answers `false`.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] at the first entry that is damaged, missing, or not chained to the
    /// one before it.
    pub fn journal(&self, from: u64, mut take: impl FnMut(JournalRecord) -> bool) -> Result<()> {
        self.state
            .read_journal(from, |entry, hash| JournalRecord::of(entry, &hash).is_none_or(&mut take))
    }

    /// The number of the last entry of the journal; 0 without any.
    #[must_use]
    pub fn journal_len(&self) -> u64 {
        lock(&self.journal_end).number
    }

    /// Reads the whole journal, and compares every entry with its hash and with the one before.
    ///
    /// The end that it returns is worth noting elsewhere: entries that were taken off the end, or a
    /// journal that was written anew, show nowhere else.
    ///
    /// # Errors
    /// As [`Store::journal`].
    pub fn verify_journal(&self) -> Result<JournalHead> {
        let mut head = JournalHead { entries: 0, hash: String::new() };
        let known = self.journal_len();
        let mut last = None;
        self.state.read_journal(1, |entry, hash| {
            head.entries = entry.number;
            last = Some(hash);
            true
        })?;
        if head.entries < known {
            let problem = format!("the journal ends at entry {}, before {known}", head.entries);
            return Err(Error::new(ErrorKind::Corrupt, problem)
                .with_remedy("compare it with a snapshot of the store"));
        }
        head.hash = last.as_ref().map(hexadecimal).unwrap_or_default();
        Ok(head)
    }
}
