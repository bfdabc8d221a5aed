//! The physical limit: the same vectors in one array, copied from where they lie.

use crate::traffic::{DIMENSIONS, fill_vector};

/// Vectors one behind the other.
pub(crate) struct Array(Vec<f32>);

impl Array {
    pub(crate) fn fill(keys_count: u32) -> Self {
        let mut array = vec![0.0; keys_count as usize * DIMENSIONS];
        for (index, vector) in array.chunks_exact_mut(DIMENSIONS).enumerate() {
            fill_vector(index as u32, vector);
        }
        Self(array)
    }

    #[inline]
    pub(crate) fn get(&self, index: u32) -> &[f32] {
        &self.0[index as usize * DIMENSIONS..][..DIMENSIONS]
    }
}
