//! Collections by name, in a family of their own.

use op_dbus_formats::collection::{CollectionId, CollectionName, CollectionSpec};

use super::super::{Sync, Walk};
use super::{COLLECTIONS, HISTORY, META, RecordKey, StateDatabase};
use crate::error::Result;

const FIRST_FREE_ID_KEY: &[u8] = b"first-free-id";

impl StateDatabase {
    /// Writes a collection durably.
    ///
    /// It has no sequence, so nothing would say that the end of a damaged log had held one: in a
    /// table it is not at the end of a log.
    pub(crate) fn put_collection(&self, name: &CollectionName, spec: &[u8]) -> Result<()> {
        self.db.write(Sync::Yes, || {
            let mut batch = self.db.batch();
            batch.put(COLLECTIONS, name.as_str().as_bytes(), spec);
            Ok(batch)
        })?;
        self.db.flush(&[COLLECTIONS])
    }

    /// Removes a collection without records durably, with what is kept of those that it had. Its id
    /// never comes back: the log of changes, files and snapshots know it by that.
    pub(crate) fn drop_collection(&self, name: &CollectionName, id: CollectionId) -> Result<()> {
        let first_free = self.first_free_id()?.max(id.0 + 1);
        let of = |id: u32| RecordKey::prefix(CollectionId(id), b"");
        self.db.write(Sync::Yes, || {
            let mut batch = self.db.batch();
            batch.remove(COLLECTIONS, name.as_str().as_bytes());
            batch.remove_range(HISTORY, &of(id.0), &of(id.0 + 1));
            batch.put(META, FIRST_FREE_ID_KEY, &first_free.to_be_bytes());
            Ok(batch)
        })?;
        self.db.flush(&[COLLECTIONS])
    }

    /// The least id that no collection has had that was dropped.
    pub(crate) fn first_free_id(&self) -> Result<u32> {
        match self.db.get(META, FIRST_FREE_ID_KEY)? {
            None => Ok(1),
            Some(bytes) => {
                let bytes = bytes.as_ref().try_into();
                Ok(u32::from_be_bytes(bytes.map_err(|_| self.corrupt("the first free id"))?))
            }
        }
    }

    pub(crate) fn collections(&self) -> Result<Vec<(CollectionName, CollectionSpec)>> {
        let mut iterator = self.db.iterate(COLLECTIONS, b"");
        let mut collections = Vec::new();
        while let Some(entry) = iterator.next_with(|name, spec| self.collection(name, spec))? {
            collections.push(entry?);
        }
        Ok(collections)
    }

    /// Decodes an entry of the family of collections.
    pub(crate) fn collection(
        &self,
        name: &[u8],
        spec: &[u8],
    ) -> Result<(CollectionName, CollectionSpec)> {
        let name = std::str::from_utf8(name)
            .ok()
            .and_then(|name| name.parse::<CollectionName>().ok())
            .ok_or_else(|| self.corrupt("the name of a collection"))?;
        let spec = CollectionSpec::decode(spec)
            .map_err(|error| self.corrupt(&format!("collection {name}")).with_source(error))?;
        Ok((name, spec))
    }

    /// Walks all names and encodings of collections.
    pub(crate) fn collection_entries(&self) -> Walk<'_> {
        self.db.iterate(COLLECTIONS, b"")
    }
}
