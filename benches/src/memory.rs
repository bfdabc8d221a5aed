//! The physical limit: the same vectors in one array, copied from where they lie.

use std::io;

use zerocopy::IntoBytes;

use crate::engine::{Reader, vectors};
use crate::traffic::DIMENSIONS;

/// Vectors one behind the other.
pub(crate) struct Array(Vec<f32>);

impl Array {
    pub(crate) fn fill(keys_count: u32) -> Self {
        Self(vectors(0, keys_count))
    }
}

impl Reader for Array {
    #[inline]
    fn get<T>(&self, index: u32, read: impl FnOnce(&[u8]) -> T) -> io::Result<T> {
        Ok(read(self.0[index as usize * DIMENSIONS..][..DIMENSIONS].as_bytes()))
    }
}
