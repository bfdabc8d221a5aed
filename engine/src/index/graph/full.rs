//! Full vectors, wherever they are, and comparing them.

use op_dbus_formats::collection::Metric;

use super::space::{Space, norm};
use crate::distance::kernels;
use crate::error::{Error, ErrorKind, Result};
use crate::os::cpu::{CACHE_LINE_BYTES, prefetch};

/// Where the full vectors of a graph are.
pub trait FullVectors {
    /// Reads the vectors with these numbers, and hands each on with its place among them, in any
    /// order. One that is gone is left out.
    ///
    /// # Errors
    /// What keeps it from reading.
    fn read(&self, ids: &[u32], take: &mut dyn FnMut(usize, &[f32])) -> Result<()>;
}

/// Vectors of one length in memory, one behind the other.
#[derive(Clone, Copy, Debug)]
pub struct DenseVectors<'a> {
    numbers: &'a [f32],
    dimensions: usize,
}

impl<'a> DenseVectors<'a> {
    /// Shape: `[count, dimensions]`.
    #[must_use]
    pub fn new(numbers: &'a [f32], dimensions: usize) -> Self {
        Self { numbers, dimensions }
    }

    fn get(&self, id: u32) -> Option<&'a [f32]> {
        self.numbers.get(id as usize * self.dimensions..)?.get(..self.dimensions)
    }
}

impl FullVectors for DenseVectors<'_> {
    fn read(&self, ids: &[u32], take: &mut dyn FnMut(usize, &[f32])) -> Result<()> {
        const LINE_FLOATS: usize = CACHE_LINE_BYTES / size_of::<f32>();
        for id in ids {
            let Some(vector) = self.get(*id) else {
                let count = self.numbers.len() / self.dimensions.max(1);
                let context = format!("vector {id} of a graph is not among these {count}");
                return Err(Error::new(ErrorKind::Invalid, context)
                    .with_remedy("search with the vectors that the graph was made of"));
            };
            vector.chunks(LINE_FLOATS).for_each(|line| prefetch(line.as_ptr().cast()));
        }
        for (place, vector) in ids.iter().filter_map(|id| self.get(*id)).enumerate() {
            take(place, vector);
        }
        Ok(())
    }
}

impl Space {
    /// What an answer is ordered by, from full vectors.
    pub(super) fn nearness(&self, query: &[f32], query_norm: f64, vector: &[f32]) -> f32 {
        let kernels = kernels();
        let nearness = match self.metric {
            Metric::Dot => (kernels.dot)(query, vector),
            Metric::Euclidean => -(kernels.squared_euclidean)(query, vector),
            Metric::Cosine => {
                let norms = query_norm * norm(vector);
                let dot = f64::from((kernels.dot)(query, vector));
                if norms > 0.0 { ((dot / norms) as f32).clamp(-1.0, 1.0) } else { 0.0 }
            }
        };
        // Never the negative zero, which would order before its equal.
        nearness + 0.0
    }
}
