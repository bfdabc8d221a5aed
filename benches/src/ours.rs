//! Our own engine: all vectors hot, read by key from a collection.

use std::io;
use std::path::Path;

use op_dbus_engine::{Record, Result, Store, StoreConfig, Vectors};

use crate::hit::Step;
use crate::traffic::{DIMENSIONS, VALUE_BYTES, fill_vector, key};

const COLLECTION: &str = "hits";
const BATCH_COUNT: u32 = 1000;
/// Room so that nothing is demoted: slots and table, watermark, RocksDB's share.
const CAPACITY_PER_VALUE: u64 = 2;
const CAPACITY_LEAST_BYTES: u64 = 1 << 30;

/// Makes a store whose vectors are all hot.
pub(crate) fn fill(directory: &Path, keys_count: u32, step: Step<'_>) -> io::Result<Store> {
    let capacity_bytes =
        u64::from(keys_count) * VALUE_BYTES as u64 * CAPACITY_PER_VALUE + CAPACITY_LEAST_BYTES;
    let config = StoreConfig::new(directory).with_capacity_bytes(capacity_bytes);
    let store = Store::open(config).map_err(io::Error::other)?;
    let mut vector = vec![0.0; DIMENSIONS];
    for first in (0..keys_count).step_by(BATCH_COUNT as usize) {
        let batch: Vec<Record> = (first..keys_count.min(first + BATCH_COUNT))
            .map(|index| {
                fill_vector(index, &mut vector);
                Record::new(key(index)).with_vector(vector.clone())
            })
            .collect();
        store.put_batch(COLLECTION, &batch).map_err(io::Error::other)?;
        step(&format!("filling a store: {first} of {keys_count} vectors"))?;
    }
    Ok(store)
}

/// The way to the vectors of a filled store.
pub(crate) fn vectors(store: &Store) -> Result<Vectors<'_>> {
    store.vectors(COLLECTION)
}
