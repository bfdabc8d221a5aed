//! The graph index: it compares a query with few vectors, by following links.
//!
//! A vertex has its vector as bytes, and of each of its neighbours the signs of how it differs,
//! which say of 32 neighbours at once about how far they are from a query. A search expands the
//! vertices that look nearest, and compares those that come out by their bytes; the best of them
//! are compared in full precision, with vectors that lie elsewhere.
//!
//! | file | job |
//! |---|---|
//! | `space` | all metrics as one |
//! | `rotation`, `quantize` | vectors to bytes and signs |
//! | `rows` | vertices in memory |
//! | `query`, `pool`, `hub`, `search` | a search |
//! | `select`, `build` | which vertices become neighbours |
//!
//! Invariants: a graph and its answers depend on the vectors, their order, the options and the
//! query, and on the processor's instructions, which round in their own ways; not on threads. Links
//! lead to vertices that there are.
//!
//! Deliberately lacking: keys, full vectors, files (see `segment::graph_file`).
//!
//! Source: Gou et al., "SymphonyQG", SIGMOD 2025, whose vertices hold full vectors.

mod build;
mod hub;
mod pool;
mod quantize;
mod query;
mod rotation;
mod rows;
mod search;
mod select;
mod sequence;
mod space;
#[cfg(test)]
mod tests;

use std::num::NonZero;

use op_dbus_formats::collection::Metric;
use op_dbus_formats::embedding::check_finite;
pub use op_dbus_formats::graph_file::Profile;
use op_dbus_formats::graph_file::VERTICES_MAX;

use hub::Hub;
use rotation::Rotation;
use rows::{Rows, Shape};
pub use search::{GraphSearch, Neighbour, SearchCounts};
use space::Space;

use crate::error::{Error, ErrorKind, Result};

/// Neighbours of a vertex at most: one block of signs.
const DEGREE: usize = 32;
/// Vertices that searches may begin at: as many as fit the processor's cache beside the rest.
const HUB_COUNT: usize = 1024;
/// One vertex in so many is in the hub of a small graph.
const HUB_PARTS: usize = 16;

/// How a graph is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GraphOptions {
    /// What near means.
    pub metric: Metric,
    /// What vertices know.
    pub profile: Profile,
    /// Equal seeds make equal graphs of equal vectors, on processors of equal instructions.
    pub seed: u64,
}

/// Nearest neighbours among vectors, which lie elsewhere.
pub struct GraphIndex {
    options: GraphOptions,
    space: Space,
    rotation: Rotation,
    rows: Rows,
    hub: Hub,
}

/// What a file of a graph holds beside its rows.
pub(crate) struct GraphParts {
    pub(crate) dimensions: usize,
    pub(crate) options: GraphOptions,
    pub(crate) center: Vec<f32>,
    pub(crate) unit: f32,
    pub(crate) norm_max: f32,
    pub(crate) degree: usize,
    pub(crate) vertices_count: usize,
}

impl GraphIndex {
    /// Makes the graph of vectors, which lie one behind the other and are finite.
    ///
    /// Vertices have the numbers of their vectors. `progress` hears how many vectors are in, and
    /// may end it with an error.
    ///
    /// Shapes: `vectors` is `[count, dimensions]`, with at least one vector.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if the length is not a multiple, there is none, or a number is not
    /// finite; [`ErrorKind::Full`] if memory is short or there are more than 2³¹; what `progress`
    /// returns.
    pub fn build(
        vectors: &[f32],
        dimensions: NonZero<usize>,
        options: GraphOptions,
        threads: NonZero<usize>,
        progress: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Self> {
        check_vectors(vectors, dimensions.get())?;
        let space = Space::of(vectors, dimensions.get(), options.metric);
        let has_signs = options.profile == Profile::Speed;
        let shape = Shape::new(space.inner_dimensions(), DEGREE, has_signs);
        let rotation = Rotation::new(shape.padded, options.seed);
        let rows = Rows::new(shape, vectors.len() / dimensions)?;
        let hub = Hub::of(&rows, &[])?;
        let mut index = Self { options, space, rotation, rows, hub };
        index.insert_all(vectors, threads, progress)?;
        Ok(index)
    }

    /// Number of vectors.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "there is no empty one")]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Elements of every vector.
    #[must_use]
    pub fn dimensions(&self) -> usize {
        self.space.dimensions
    }

    /// How it was made.
    #[must_use]
    pub fn options(&self) -> GraphOptions {
        self.options
    }

    /// Bytes of memory it holds, without the full vectors.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.rows.memory_bytes() + self.hub.memory_bytes()
    }

    /// Says what a file of it holds beside its rows.
    pub(crate) fn parts(&self) -> GraphParts {
        GraphParts {
            dimensions: self.space.dimensions,
            options: self.options,
            center: self.space.center.clone(),
            unit: self.space.unit,
            norm_max: self.space.norm_max,
            degree: self.rows.shape().degree,
            vertices_count: self.rows.len(),
        }
    }

    /// The vertices that searches begin at.
    pub(crate) fn hub_ids(&self) -> &[u32] {
        self.hub.ids()
    }

    /// All rows, one behind the other.
    pub(crate) fn row_bytes(&self) -> &[u8] {
        self.rows.as_bytes()
    }

    /// Puts a graph together again; `fill` writes the rows.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if rows or hub do not belong to such a graph; what `fill` returns.
    pub(crate) fn from_parts(
        parts: GraphParts,
        hub_ids: &[u32],
        fill: impl FnOnce(&mut [u8]) -> Result<()>,
    ) -> Result<Self> {
        let GraphParts { dimensions, options, center, unit, norm_max, .. } = parts;
        let space = Space { metric: options.metric, dimensions, center, unit, norm_max };
        let has_signs = options.profile == Profile::Speed;
        let shape = Shape::new(space.inner_dimensions(), parts.degree, has_signs);
        let mut rows = Rows::new(shape, parts.vertices_count)?;
        fill(rows.as_bytes_mut())?;
        rows.check()?;
        if hub_ids.iter().any(|id| *id as usize >= rows.len()) {
            return Err(Error::new(ErrorKind::Corrupt, "the hub leads to no vertex"));
        }
        let rotation = Rotation::new(shape.padded, options.seed);
        let hub = Hub::of(&rows, hub_ids)?;
        Ok(Self { options, space, rotation, rows, hub })
    }
}

impl std::fmt::Debug for GraphIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GraphIndex")
            .field("options", &self.options)
            .field("dimensions", &self.dimensions())
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

fn check_vectors(vectors: &[f32], dimensions: usize) -> Result<()> {
    let count = vectors.len() / dimensions;
    if count == 0 || !vectors.len().is_multiple_of(dimensions) {
        let context = format!("{} numbers are no vectors of {dimensions}", vectors.len());
        return Err(Error::new(ErrorKind::Invalid, context));
    }
    if count > VERTICES_MAX as usize {
        let context = format!("{count} vectors; a graph holds at most {VERTICES_MAX}");
        return Err(Error::new(ErrorKind::Full, context));
    }
    for (row, vector) in vectors.chunks_exact(dimensions).enumerate() {
        check_finite(vector).map_err(|error| {
            Error::new(ErrorKind::Invalid, format!("vector {row} is none")).with_source(error)
        })?;
    }
    Ok(())
}
