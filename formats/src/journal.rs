//! An entry of the journal: who did what, chained to the entry before it.
//!
//! | offset | size | field | |
//! |---|---|---|---|
//! | 0 | 1 | marker | `J` |
//! | 1 | 1 | version | 1 |
//! | 2 | 1 | kind | 1 intent, 2 outcome, 3 denial, 4 event |
//! | 3 | 1 | has_actor | 0 or 1 |
//! | 4 | 4 | uid | of the actor; 0 without one |
//! | 8 | 8 | number | from 1, without gaps |
//! | 16 | 8 | written_at_unix_ms | milliseconds since 1970-01-01 UTC |
//! | 24 | 8 | sequence | of the last change of the store then |
//! | 32 | 8 | intent | an outcome's: the number of the intent that it ends; 0 of others |
//! | 40 | 2 | sender_len | |
//! | 42 | 2 | executable_len | |
//! | 44 | 2 | action_len | 1 at least |
//! | 46 | 2 | reserved | 0 |
//! | 48 | 32 | previous | hash of the entry before; zeros before the first |
//! | 80 | 32 | hash | BLAKE3 of the magic `opdbJRNL`, all before this, and all after |
//! | 112 | | sender, executable, action, details | UTF-8; the details, to the end, are JSON |
//!
//! The hash covers the hash before it, so nobody changes, adds or removes an entry in the middle
//! without changing every later hash. Whoever has noted the last hash elsewhere notices that.

use std::mem::{offset_of, size_of};

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::FormatError;
use crate::header::{Magic, check_limit, check_value_start, too_short};

/// Magic of the format, with which every hash begins.
pub const MAGIC: Magic = Magic(*b"opdbJRNL");
const MARKER: u8 = b'J';
const VERSION: u8 = 1;

/// Length of the header, whose last 32 bytes are the hash.
pub const HEADER_LEN_BYTES: usize = size_of::<RawEntry>();

/// Longest bus name, path of a program, and action.
pub const NAME_LEN_MAX_BYTES: usize = 4096;

/// Longest details.
pub const DETAILS_LEN_MAX_BYTES: usize = 1 << 20;

/// The hash of an entry.
pub type JournalHash = [u8; 32];

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawEntry {
    marker: u8,
    version: u8,
    kind: u8,
    has_actor: u8,
    uid: U32,
    number: U64,
    written_at_unix_ms: U64,
    sequence: U64,
    intent: U64,
    sender_len: U16,
    executable_len: U16,
    action_len: U16,
    reserved: U16,
    previous: JournalHash,
    hash: JournalHash,
}

const _: () = {
    assert!(size_of::<RawEntry>() == 112);
    assert!(offset_of!(RawEntry, uid) == 4);
    assert!(offset_of!(RawEntry, number) == 8);
    assert!(offset_of!(RawEntry, sender_len) == 40);
    assert!(offset_of!(RawEntry, reserved) == 46);
    assert!(offset_of!(RawEntry, previous) == 48);
    assert!(offset_of!(RawEntry, hash) == 80);
    assert!(NAME_LEN_MAX_BYTES <= u16::MAX as usize);
};

/// What an entry tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum JournalKind {
    /// Something was allowed and is about to be done.
    Intent = 1,
    /// How it ended.
    Outcome = 2,
    /// Something was asked for and is not done.
    Denial = 3,
    /// Something happened that nobody asked for.
    Event = 4,
}

impl JournalKind {
    /// Its name, which does not change.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Intent => "intent",
            Self::Outcome => "outcome",
            Self::Denial => "denial",
            Self::Event => "event",
        }
    }
}

impl TryFrom<u8> for JournalKind {
    type Error = FormatError;

    fn try_from(found: u8) -> Result<Self, FormatError> {
        match found {
            1 => Ok(Self::Intent),
            2 => Ok(Self::Outcome),
            3 => Ok(Self::Denial),
            4 => Ok(Self::Event),
            found => Err(FormatError::UnknownTag { what: "kind of journal entry", found }),
        }
    }
}

/// Who asked for it, as the kernel and the bus say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Actor<'a> {
    /// The user.
    pub uid: u32,
    /// The unique name of the connection; empty where there is no bus.
    pub sender: &'a str,
    /// The path of the program; empty if it is not known.
    pub executable: &'a str,
}

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalEntry<'a> {
    /// Its number: those of one journal are from 1, without gaps.
    pub number: u64,
    /// When it was written, by the clock of that moment.
    pub written_at_unix_ms: u64,
    /// The last change of the store at that time.
    pub sequence: u64,
    /// What it tells.
    pub kind: JournalKind,
    /// Of an outcome: the intent that it ends.
    pub intent: Option<u64>,
    /// Who asked; `None` for what the store's keeper does by itself.
    pub actor: Option<Actor<'a>>,
    /// What, in a line: `call org.freedesktop.hostname1.SetHostname`.
    pub action: &'a str,
    /// All else: a JSON object.
    pub details: &'a str,
    /// The hash of the entry before it; zeros for the first.
    pub previous: JournalHash,
}

impl<'a> JournalEntry<'a> {
    /// Returns the bytes of the entry and its hash.
    ///
    /// # Errors
    /// Says which part is too long, empty where it must not be, or not JSON.
    pub fn encode(&self) -> Result<(Vec<u8>, JournalHash), FormatError> {
        self.check()?;
        let Actor { uid, sender, executable } = self.actor.unwrap_or(NOBODY);
        let len = |text: &str| U16::new(text.len() as u16);
        let mut raw = RawEntry {
            marker: MARKER,
            version: VERSION,
            kind: self.kind as u8,
            has_actor: self.actor.is_some().into(),
            uid: uid.into(),
            number: self.number.into(),
            written_at_unix_ms: self.written_at_unix_ms.into(),
            sequence: self.sequence.into(),
            intent: self.intent.unwrap_or(0).into(),
            sender_len: len(sender),
            executable_len: len(executable),
            action_len: len(self.action),
            reserved: 0.into(),
            previous: self.previous,
            hash: [0; 32],
        };
        let texts = [sender, executable, self.action, self.details].concat();
        raw.hash = raw.hash_with(texts.as_bytes());
        Ok(([raw.as_bytes(), texts.as_bytes()].concat(), raw.hash))
    }

    /// Decodes an entry, and returns its hash with it.
    ///
    /// # Errors
    /// Says what is wrong with the bytes.
    pub fn decode(bytes: &'a [u8]) -> Result<(Self, JournalHash), FormatError> {
        let (raw, texts) =
            RawEntry::ref_from_prefix(bytes).map_err(|_| too_short(HEADER_LEN_BYTES, bytes))?;
        check_value_start("marker of a journal entry", (MARKER, raw.marker), raw.version, VERSION)?;
        let found = raw.hash_with(texts);
        if found != raw.hash {
            return Err(FormatError::Checksum {
                expected: beginning(&raw.hash),
                found: beginning(&found),
            });
        }
        if raw.reserved.get() != 0 {
            let offset = offset_of!(RawEntry, reserved) as u64;
            return Err(FormatError::NonZeroReserved { offset });
        }
        let (sender, rest) = text("sender", texts, raw.sender_len.into())?;
        let (executable, rest) = text("executable", rest, raw.executable_len.into())?;
        let (action, rest) = text("action", rest, raw.action_len.into())?;
        let (details, _) = text("details", rest, rest.len())?;
        let actor = Actor { uid: raw.uid.get(), sender, executable };
        let entry = Self {
            number: raw.number.get(),
            written_at_unix_ms: raw.written_at_unix_ms.get(),
            sequence: raw.sequence.get(),
            kind: raw.kind.try_into()?,
            intent: Some(raw.intent.get()).filter(|intent| *intent > 0),
            actor: match raw.has_actor {
                0 if actor == NOBODY => None,
                1 => Some(actor),
                found => return Err(FormatError::UnknownTag { what: "kind of actor", found }),
            },
            action,
            details,
            previous: raw.previous,
        };
        entry.check()?;
        Ok((entry, raw.hash))
    }

    fn check(&self) -> Result<(), FormatError> {
        let Actor { sender, executable, .. } = self.actor.unwrap_or(NOBODY);
        check_limit("length of the sender in bytes", sender.len(), NAME_LEN_MAX_BYTES)?;
        check_limit("length of the executable in bytes", executable.len(), NAME_LEN_MAX_BYTES)?;
        check_limit("length of the action in bytes", self.action.len(), NAME_LEN_MAX_BYTES)?;
        check_limit("length of the details in bytes", self.details.len(), DETAILS_LEN_MAX_BYTES)?;
        if self.action.is_empty() {
            return Err(FormatError::Empty { what: "action" });
        }
        if self.number == 0 {
            return Err(FormatError::Empty { what: "number of the entry" });
        }
        if self.intent == Some(0) || self.intent.is_some() != (self.kind == JournalKind::Outcome) {
            let [expected, found] = [self.number.saturating_sub(1), self.intent.unwrap_or(0)];
            return Err(FormatError::Mismatch { what: "intent", expected, found });
        }
        check_details(self.details)
    }
}

fn check_details(details: &str) -> Result<(), FormatError> {
    let invalid = |offset| FormatError::InvalidJson { what: "details", offset };
    if !details.starts_with('{') {
        return Err(invalid(0));
    }
    serde_json::from_str::<serde::de::IgnoredAny>(details)
        .map(|_| ())
        // Of a place in a line, the column is the byte; details have no lines.
        .map_err(|error| invalid(error.column().saturating_sub(1) as u64))
}

const NOBODY: Actor<'static> = Actor { uid: 0, sender: "", executable: "" };

/// Cuts a text off the front.
fn text<'a>(
    what: &'static str,
    bytes: &'a [u8],
    len: usize,
) -> Result<(&'a str, &'a [u8]), FormatError> {
    let (text, rest) = bytes.split_at_checked(len).ok_or_else(|| too_short(len, bytes))?;
    let text = std::str::from_utf8(text)
        .map_err(|error| FormatError::InvalidUtf8 { what, offset: error.valid_up_to() as u64 })?;
    Ok((text, rest))
}

/// The part of a hash that is shown where one is wrong.
fn beginning(hash: &JournalHash) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *hash;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

impl RawEntry {
    fn hash_with(&self, texts: &[u8]) -> JournalHash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&MAGIC.0);
        hasher.update(&self.as_bytes()[..offset_of!(Self, hash)]);
        hasher.update(texts);
        hasher.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> JournalEntry<'static> {
        JournalEntry {
            number: 7,
            written_at_unix_ms: 1_700_000_000_000,
            sequence: 99,
            kind: JournalKind::Outcome,
            intent: Some(6),
            actor: Some(Actor { uid: 1000, sender: ":1.5", executable: "/usr/bin/op-dbus" }),
            action: "call org.example.Lamp.Switch",
            details: r#"{"on":true}"#,
            previous: [3; 32],
        }
    }

    #[test]
    fn an_entry_comes_back_with_its_hash() {
        let (bytes, hash) = entry().encode().unwrap();
        assert_eq!(JournalEntry::decode(&bytes).unwrap(), (entry(), hash));
        let nobody = JournalEntry {
            kind: JournalKind::Event,
            intent: None,
            actor: None,
            details: "{}",
            ..entry()
        };
        let (bytes, hash) = nobody.encode().unwrap();
        assert_eq!(JournalEntry::decode(&bytes).unwrap(), (nobody, hash));
    }

    #[test]
    fn what_an_entry_cannot_hold_is_refused() {
        let refused = |change: fn(&mut JournalEntry<'static>)| {
            let mut entry = entry();
            change(&mut entry);
            entry.encode().unwrap_err()
        };
        assert_eq!(refused(|e| e.action = ""), FormatError::Empty { what: "action" });
        assert_eq!(refused(|e| e.number = 0), FormatError::Empty { what: "number of the entry" });
        let mismatch = |found| FormatError::Mismatch { what: "intent", expected: 6, found };
        assert_eq!(refused(|e| e.intent = None), mismatch(0));
        assert_eq!(refused(|e| e.kind = JournalKind::Denial), mismatch(6));
        let invalid = |offset| FormatError::InvalidJson { what: "details", offset };
        assert_eq!(refused(|e| e.details = "[]"), invalid(0));
        assert_eq!(refused(|e| e.details = r#"{"a":}"#), invalid(5));
    }

    #[test]
    fn a_wrong_field_is_named_even_when_the_hash_is_right() {
        let altered = |change: fn(&mut RawEntry)| {
            let (bytes, _) = entry().encode().unwrap();
            let (head, texts) = bytes.split_at(HEADER_LEN_BYTES);
            let mut raw = RawEntry::read_from_bytes(head).unwrap();
            change(&mut raw);
            raw.hash = raw.hash_with(texts);
            JournalEntry::decode(&[raw.as_bytes(), texts].concat()).map(|_| ()).unwrap_err()
        };
        let unknown = |what, found| FormatError::UnknownTag { what, found };
        assert_eq!(altered(|raw| raw.kind = 9), unknown("kind of journal entry", 9));
        assert_eq!(altered(|raw| raw.has_actor = 0), unknown("kind of actor", 0));
        assert_eq!(altered(|raw| raw.has_actor = 2), unknown("kind of actor", 2));
        assert_eq!(
            altered(|raw| raw.reserved = 1.into()),
            FormatError::NonZeroReserved { offset: 46 }
        );
        assert!(matches!(altered(|raw| raw.action_len = 999.into()), FormatError::TooShort { .. }));
    }
}
