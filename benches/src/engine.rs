//! What the engines have in common: vectors are put by key in batches, and read by key.

use std::fs;
use std::io;
use std::path::Path;

use op_dbus_engine::Record;
use zerocopy::IntoBytes;

use crate::hit::Step;
use crate::traffic::{DIMENSIONS, VALUE_BYTES, fill_vector, key};

/// Vectors of one batch, which is durable as a whole.
pub(crate) const BATCH_COUNT: u32 = 1000;

/// Room so that nothing leaves memory: what engines add to values, and what they put aside.
const ROOM_PER_VALUE: u64 = 2;
const ROOM_LEAST_BYTES: u64 = 1 << 30;
/// What our own engine gives blocks of RocksDB at most, whatever its capacity.
const BLOCK_CACHE_BYTES: u64 = 32 << 20;

/// The memory that an engine may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// So many values fit, whatever the engine adds to them.
    ForAll(u32),
    /// What was not used lately is read from files.
    Little,
}

impl Room {
    /// What an engine gets that has only one cache.
    pub(crate) fn cache_bytes(self) -> u64 {
        match self {
            Self::ForAll(keys_count) => {
                u64::from(keys_count) * VALUE_BYTES as u64 * ROOM_PER_VALUE + ROOM_LEAST_BYTES
            }
            Self::Little => BLOCK_CACHE_BYTES,
        }
    }
}

/// A vector as its reader has it.
pub(crate) type Copied = [f32; DIMENSIONS];

/// Reads values; one for all threads, and each read by itself, as separate requests are.
pub(crate) trait Reader: Sync {
    /// Hands the bytes of a value to `read`, from where the engine has them.
    fn get<T>(&self, index: u32, read: impl FnOnce(&[u8]) -> T) -> io::Result<T>;

    /// Copies a value, in the best way that the engine has.
    #[inline]
    fn copy(&self, index: u32, out: &mut Copied) -> io::Result<()> {
        self.get(index, |bytes| match <&[u8; VALUE_BYTES]>::try_from(bytes) {
            Ok(bytes) => {
                out.as_mut_bytes().copy_from_slice(bytes);
                Ok(())
            }
            Err(_) => Err(damaged(index)),
        })?
    }
}

/// An engine that keeps values in files.
pub(crate) trait Engine: Sized {
    /// What it is called in tables.
    const NAME: &'static str;

    type Reader<'a>: Reader
    where
        Self: 'a;

    /// Opens what is in `directory`, which exists, or makes it.
    fn open(directory: &Path, room: Room) -> io::Result<Self>;

    /// Writes the values of a batch, and returns when they are durable.
    fn put_batch(&self, batch: &Batch) -> io::Result<()>;

    fn reader(&self) -> io::Result<Self::Reader<'_>>;

    /// Ends as the engine wants to be ended. One that is only dropped loses no values either.
    #[cfg_attr(not(feature = "rivals"), expect(dead_code, reason = "for opening again"))]
    fn close(self) {}
}

/// Opens an engine in a directory of its own below `directory`, or makes it there.
pub(crate) fn open<E: Engine>(directory: &Path, room: Room) -> io::Result<E> {
    let directory = directory.join(E::NAME);
    fs::create_dir_all(&directory)?;
    E::open(&directory, room)
}

/// Puts the values of all keys.
pub(crate) fn fill<E: Engine>(engine: &E, keys_count: u32, step: Step<'_>) -> io::Result<()> {
    for first in (0..keys_count).step_by(BATCH_COUNT as usize) {
        let count = BATCH_COUNT.min(keys_count - first);
        engine.put_batch(&Batch::new(first, count))?;
        step(&format!("filling {}: {first} of {keys_count} vectors", E::NAME))?;
    }
    Ok(())
}

/// The vectors of `count` keys from `first` on. Shape: `[count, DIMENSIONS]`.
pub(crate) fn vectors(first: u32, count: u32) -> Vec<f32> {
    let mut vectors = vec![0.0; count as usize * DIMENSIONS];
    for (index, vector) in (first..).zip(vectors.chunks_exact_mut(DIMENSIONS)) {
        fill_vector(index, vector);
    }
    vectors
}

/// Vectors to put, as engines take them.
pub(crate) struct Batch {
    /// The keys are those from this on.
    #[cfg_attr(not(feature = "lmdb"), expect(dead_code, reason = "for rivals"))]
    pub(crate) first: u32,
    /// Shape: `[count, DIMENSIONS]`.
    #[cfg_attr(not(feature = "lmdb"), expect(dead_code, reason = "for rivals"))]
    pub(crate) vectors: Vec<f32>,
    /// The same as our own engine takes it.
    pub(crate) records: Vec<Record>,
}

impl Batch {
    /// Makes the vectors of `count` keys from `first` on.
    pub(crate) fn new(first: u32, count: u32) -> Self {
        let vectors = vectors(first, count);
        let records = (first..)
            .zip(vectors.chunks_exact(DIMENSIONS))
            .map(|(index, vector)| Record::new(key(index)).with_vector(vector.to_vec()))
            .collect();
        Self { first, vectors, records }
    }
}

/// Reads all values and compares every byte.
pub(crate) fn verify(reader: &impl Reader, keys_count: u32) -> io::Result<()> {
    let mut found = [0.0; DIMENSIONS];
    for index in 0..keys_count {
        reader.copy(index, &mut found)?;
        check(index, &found)?;
    }
    Ok(())
}

/// Refuses another value than the one that was put.
pub(crate) fn check(index: u32, found: &Copied) -> io::Result<()> {
    let mut expected = [0.0; DIMENSIONS];
    fill_vector(index, &mut expected);
    if expected.as_bytes() == found.as_bytes() { Ok(()) } else { Err(damaged(index)) }
}

/// For an engine that answers with nothing.
pub(crate) fn lost(engine: &str, index: u32) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{engine} has lost key {index}"))
}

fn damaged(index: u32) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("key {index} has another value than it was given"),
    )
}
