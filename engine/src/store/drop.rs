//! Dropping a collection: its records, which the log of changes tells one by one, and then itself.

use std::sync::PoisonError;

use super::Store;
use super::collection::Collection;
use crate::db::state::{Action, Mutation, RecordKey};
use crate::error::Result;

/// Records removed by one commit, during which other writers wait.
const BATCH_COUNT: usize = 1024;

/// Hears how many records are removed, and may end it.
pub type DropProgress<'a> = dyn FnMut(u64) -> Result<()> + 'a;

impl Store {
    /// Removes a collection with all its records and their history; says how many there were.
    ///
    /// The log of changes tells each removal, to those who read it before the collection is gone.
    ///
    /// What `progress` ends has removed a part of the records; who asks again goes on from there.
    /// Cost: that of removing every record.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) if there is no such collection; what
    /// `progress` returns; those of a failed write.
    pub fn drop_collection(&self, name: &str, progress: &mut DropProgress<'_>) -> Result<u64> {
        self.require_writable()?;
        let collection = self.collection(name)?;
        let mut removed_count = 0;
        self.remove_all(&collection, &mut removed_count, progress)?;
        // Nobody writes vectors from here on, and nobody did who found it as it was.
        let mut is_current = collection.is_current.write().unwrap_or_else(PoisonError::into_inner);
        self.remove_all(&collection, &mut removed_count, progress)?;
        self.remove_graph(&collection)?;
        let mut collections = self.collections.write().unwrap_or_else(PoisonError::into_inner);
        let id = collection.spec.id;
        self.commits.write_besides(|| self.state.drop_collection(&collection.name, id))?;
        collections.remove(name);
        *is_current = false;
        drop(collections);
        self.trim_changes();
        Ok(removed_count)
    }

    fn remove_all(
        &self,
        collection: &Collection,
        removed_count: &mut u64,
        progress: &mut DropProgress<'_>,
    ) -> Result<()> {
        loop {
            progress(*removed_count)?;
            let keys = self.state.first_keys(collection.spec.id, BATCH_COUNT)?;
            if keys.is_empty() {
                return Ok(());
            }
            *removed_count += keys.len() as u64;
            self.admit_removal()?;
            // Without versions: its history goes, too.
            let removal =
                |record: RecordKey| Mutation { record, action: Action::Remove, versions_kept: 0 };
            self.commit(keys.into_iter().map(removal).collect())?;
        }
    }
}
