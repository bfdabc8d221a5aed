//! What can be computed again: embeddings of texts, and what was learned about models.
//!
//! | family | key | value |
//! |---|---|---|
//! | `embeddings` | embedding key (u128 big-endian) | encoded embedding |
//! | `order` | see [`order`] | nothing |
//! | `meta` | name | JSON: counters, known models |
//!
//! Writes are not synced: a power cut may lose the newest, a killed process loses none. A
//! database that cannot be read is set aside and replaced, because nothing in it is the only copy.

mod order;

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use op_dbus_formats::embedding::EmbeddingKey;
use rocksdb::DBCompressionType::{Lz4, None as Uncompressed};

use super::{Creation, Database, DatabaseMemory, Family, Pinned, Sync, Walk};
use crate::error::{Error, ErrorKind, Result};
use crate::os::clock::unix_ms;
use crate::os::file::{create_synced, sync_directory};

pub(crate) use order::Entry;
use order::Order;

const META: Family = Family { name: "meta", compression: Lz4 };
const EMBEDDINGS: Family = Family { name: "embeddings", compression: Uncompressed };
const ORDER: Family = Family { name: "order", compression: Lz4 };
const DEFAULT: Family = Family { name: "default", compression: Lz4 };
const FAMILIES: [Family; 4] = [DEFAULT, META, EMBEDDINGS, ORDER];

/// The database in `@cache`.
pub(crate) struct CacheDatabase {
    db: Database,
    order: Order,
}

impl CacheDatabase {
    /// Opens the database, making it if it is missing and replacing it if it is damaged.
    pub(crate) fn open(path: &Path, memory: DatabaseMemory) -> Result<Self> {
        replace_condemned(path)?;
        let open = || -> Result<Self> {
            let db = Database::open(path, &FAMILIES, Creation::Create, memory)?;
            let order = Order::open(&db, unix_ms())?;
            Ok(Self { db, order })
        };
        match open() {
            // What a full disk, a missing right or another process refuses is not damage.
            Err(error)
                if !matches!(
                    error.kind(),
                    ErrorKind::Full | ErrorKind::Denied | ErrorKind::Busy
                ) =>
            {
                let aside = set_aside(path)?;
                tracing::warn!(
                    %error,
                    set_aside = %aside.display(),
                    "the embedding cache is damaged; starting an empty one"
                );
                open()
            }
            opened => opened,
        }
    }

    /// Opens a copy that nobody writes to; one that cannot be read is an empty one in memory.
    pub(crate) fn open_to_read(path: &Path, memory: DatabaseMemory) -> Result<Self> {
        let db = Database::open_to_read(path, &FAMILIES, memory).or_else(|error| {
            tracing::warn!(%error, "this embedding cache cannot be read");
            Database::in_memory(&FAMILIES, memory)
        })?;
        Ok(Self { order: Order::open(&db, unix_ms())?, db })
    }

    /// Looks up embeddings by keys, which must ascend.
    ///
    /// One that cannot be read does not keep the others from being read.
    pub(crate) fn embeddings(
        &self,
        keys: &[EmbeddingKey],
    ) -> impl Iterator<Item = Result<Option<Pinned<'_>>>> {
        let keys: Vec<[u8; 16]> = keys.iter().map(|key| key.0.to_be_bytes()).collect();
        self.db.get_ascending(EMBEDDINGS, &keys).collect::<Vec<_>>().into_iter()
    }

    /// Writes embeddings; those in `known` replace others and keep their places in the order.
    pub(crate) fn put_embeddings(
        &self,
        embeddings: impl IntoIterator<Item = (EmbeddingKey, Vec<u8>)>,
        known: &HashSet<EmbeddingKey>,
    ) -> Result<()> {
        let embeddings: Vec<(EmbeddingKey, Vec<u8>)> = embeddings.into_iter().collect();
        let (mut appender, now) = (self.order.append(), unix_ms());
        self.db.write(Sync::No, || {
            let mut batch = self.db.batch();
            appender.begin();
            for (key, embedding) in &embeddings {
                batch.put(EMBEDDINGS, &key.0.to_be_bytes(), embedding);
                if !known.contains(key) {
                    appender.enter(&mut batch, *key, embedding.len(), now);
                }
            }
            Ok(batch)
        })?;
        appender.commit();
        Ok(())
    }

    /// Bytes of all embeddings.
    pub(crate) fn embeddings_bytes(&self) -> u64 {
        self.order.bytes()
    }

    /// Removes some embeddings, from the oldest on, as long as `may_go` says so of one and of the
    /// bytes that there are with it. None is returned when there is no more to remove.
    pub(crate) fn remove_oldest(&self, may_go: impl Fn(&Entry, u64) -> bool) -> Result<Vec<Entry>> {
        self.order.remove_oldest(&self.db, may_go)
    }

    /// Gives the room of removed embeddings back to the file system.
    pub(crate) fn reclaim(&self) -> Result<()> {
        self.db.reclaim(EMBEDDINGS)?;
        self.db.reclaim(ORDER)
    }

    /// Hands every encoded embedding to `read`.
    pub(crate) fn for_each_embedding(&self, mut read: impl FnMut(&[u8])) -> Result<()> {
        let mut iterator = self.db.iterate(EMBEDDINGS, b"");
        while iterator.next_with(|_, embedding| read(embedding))?.is_some() {}
        Ok(())
    }

    /// Walks the encoded embeddings from a key on.
    pub(crate) fn embeddings_from(&self, key: &[u8]) -> Walk<'_> {
        self.db.iterate_from(EMBEDDINGS, key)
    }

    /// Removes embeddings by their keys as they are stored.
    pub(crate) fn remove_embeddings(&self, keys: &[Vec<u8>]) -> Result<()> {
        self.db.write(Sync::No, || {
            let mut batch = self.db.batch();
            keys.iter().for_each(|key| batch.remove(EMBEDDINGS, key));
            Ok(batch)
        })
    }

    /// Has the database replaced by an empty one when it is opened next.
    ///
    /// A damaged table cannot be mended in place: RocksDB stops at it when it merges tables, and
    /// takes no more writes.
    pub(crate) fn condemn(&self) -> Result<()> {
        let mark = condemned(self.path());
        match create_synced(&mark, b"") {
            Err(error) if !mark.exists() => Err(error),
            _ => sync_directory(mark.parent().unwrap_or(Path::new("."))),
        }
    }

    /// Whether the database at `path` is replaced when it is opened next.
    pub(crate) fn is_condemned(path: &Path) -> bool {
        condemned(path).exists()
    }

    pub(crate) fn database(&self) -> &Database {
        &self.db
    }

    /// Removes all embeddings.
    pub(crate) fn clear_embeddings(&self) -> Result<()> {
        const KEYS_END: [u8; 17] = [u8::MAX; 17];
        let mut appender = self.order.append();
        self.db.write(Sync::No, || {
            let mut batch = self.db.batch();
            batch.remove_range(EMBEDDINGS, &[], &KEYS_END);
            appender.begin();
            appender.clear(&mut batch);
            Ok(batch)
        })?;
        appender.commit();
        self.reclaim()
    }

    pub(crate) fn meta(&self, name: &str) -> Result<Option<Pinned<'_>>> {
        self.db.get(META, name.as_bytes())
    }

    pub(crate) fn put_meta(&self, name: &str, value: &[u8]) -> Result<()> {
        self.db.write(Sync::No, || {
            let mut batch = self.db.batch();
            batch.put(META, name.as_bytes(), value);
            Ok(batch)
        })
    }

    pub(crate) fn path(&self) -> &Path {
        self.db.path()
    }

    /// As [`Database::write_out`].
    pub(crate) fn write_out(&self) {
        self.db.write_out(&FAMILIES);
    }

    pub(crate) fn memory_bytes(&self) -> u64 {
        self.db.memory_bytes(&FAMILIES)
    }
}

/// Sets a database aside that was found damaged; the mark goes last, so that a crash repeats it.
fn replace_condemned(path: &Path) -> Result<()> {
    let mark = condemned(path);
    if !mark.exists() {
        return Ok(());
    }
    if path.exists() {
        let aside = set_aside(path)?;
        tracing::warn!(
            set_aside = %aside.display(),
            "the embedding cache was found damaged; starting an empty one"
        );
    }
    fs::remove_file(&mark).map_err(|error| Error::io("remove", &mark, error))
}

/// The file beside a database that says that it is damaged.
fn condemned(path: &Path) -> PathBuf {
    path.with_extension("condemned")
}

/// Renames a damaged database, in place of an earlier damaged one.
fn set_aside(path: &Path) -> Result<PathBuf> {
    let aside = path.with_extension("damaged");
    match fs::remove_dir_all(&aside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::io("remove", &aside, error));
        }
        _ => {}
    }
    fs::rename(path, &aside).map_err(|error| Error::io("rename", path, error))?;
    Ok(aside)
}
