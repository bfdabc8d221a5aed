//! What the journal says, as clients give and get it.

use op_dbus_formats::journal::{JournalEntry, JournalHash, JournalKind};
use serde::Serialize;
use serde_json::value::RawValue;

/// Who asked for something, as the kernel and the bus say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct JournalActor {
    /// The user.
    pub uid: u32,
    /// The unique name of the connection; empty where there is no bus.
    pub sender: String,
    /// The path of the program; empty if it is not known.
    pub executable: String,
}

/// What is to be written into the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalNote {
    /// What it tells.
    pub kind: JournalKind,
    /// Of an outcome: the number of the intent that it ends.
    pub intent: Option<u64>,
    /// Who asked; `None` for what nobody asked for.
    pub actor: Option<JournalActor>,
    /// What, in a line: `call org.freedesktop.hostname1.SetHostname`.
    pub action: String,
    /// All else: a JSON object. Secrets do not belong here.
    pub details: String,
}

/// An entry of the journal, as it was read.
#[derive(Clone, Debug, Serialize)]
pub struct JournalRecord {
    /// Its number: from 1, without gaps.
    pub number: u64,
    /// When it was written, in milliseconds since 1970-01-01 UTC, by the clock of that moment.
    pub written_at_unix_ms: u64,
    /// The last change of the store at that time.
    pub sequence: u64,
    /// `intent`, `outcome`, `denial` or `event`.
    pub kind: &'static str,
    /// Of an outcome: the number of the intent that it ends.
    pub intent: Option<u64>,
    /// Who asked.
    pub actor: Option<JournalActor>,
    /// What, in a line.
    pub action: String,
    /// All else.
    pub details: Box<RawValue>,
    /// Its hash, in hexadecimal: of it, and of all before it.
    pub hash: String,
}

/// The end of a journal that was found whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct JournalHead {
    /// Entries in it.
    pub entries: u64,
    /// The hash of the last, in hexadecimal; empty without any.
    pub hash: String,
}

impl JournalRecord {
    /// `None` if the details are no JSON, which no entry that was decoded has.
    pub(crate) fn of(entry: JournalEntry<'_>, hash: &JournalHash) -> Option<Self> {
        let actor = entry.actor.map(|actor| JournalActor {
            uid: actor.uid,
            sender: actor.sender.to_owned(),
            executable: actor.executable.to_owned(),
        });
        Some(Self {
            number: entry.number,
            written_at_unix_ms: entry.written_at_unix_ms,
            sequence: entry.sequence,
            kind: entry.kind.name(),
            intent: entry.intent,
            actor,
            action: entry.action.to_owned(),
            details: RawValue::from_string(entry.details.to_owned()).ok()?,
            hash: hexadecimal(hash),
        })
    }
}

/// A hash as people read it.
pub(crate) fn hexadecimal(hash: &JournalHash) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}
