//! `org.opdbus.Journal1`: who did what.

use std::sync::Arc;

use op_dbus_engine::JournalRecord;
use serde_json::json;
use zbus::message::Header;
use zbus::{Connection, interface};

use super::Door;
use crate::error::Result;
use crate::gate::blocking;

/// The collection whose readers may read the journal.
const COLLECTION: &str = "journal";
/// The most entries of one answer.
const ENTRIES_COUNT_MAX: u32 = 1000;

/// The interface.
pub(crate) struct Journal(pub(crate) Door);

#[interface(
    name = "org.opdbus.Journal1",
    proxy(default_service = "org.opdbus", default_path = "/org/opdbus", visibility = "pub")
)]
impl Journal {
    /// Reads entries from a number on, 1000 at most: each a JSON object.
    #[zbus(out_args("entries"))]
    async fn read(
        &self,
        from: u64,
        count: u32,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<String>> {
        let reader = self.0.admit(header, connection).await?;
        reader.require(COLLECTION)?;
        let store = Arc::clone(&self.0.service.store);
        let count = count.min(ENTRIES_COUNT_MAX) as usize;
        let entries = blocking(move || {
            let mut entries: Vec<JournalRecord> = Vec::new();
            if count > 0 {
                store.journal(from, |entry| {
                    entries.push(entry);
                    entries.len() < count
                })?;
            }
            Ok(entries)
        });
        Ok(entries.await?.iter().map(|entry| json!(entry).to_string()).collect())
    }

    /// Reads the whole journal and compares each entry with its hash and the one before; returns how
    /// many there are, and the hash of the last.
    #[zbus(out_args("entries", "hash"))]
    async fn verify(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(u64, String)> {
        let reader = self.0.admit(header, connection).await?;
        reader.require(COLLECTION)?;
        let store = Arc::clone(&self.0.service.store);
        let head = blocking(move || store.verify_journal()).await?;
        Ok((head.entries, head.hash))
    }

    /// How many entries there are.
    #[zbus(property(emits_changed_signal = "false"))]
    async fn length(
        &self,
        #[zbus(header)] header: Option<Header<'_>>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<u64> {
        self.0.admit_to_property(header, connection).await?;
        Ok(self.0.service.store.journal_len())
    }
}
