//! The graph index: it compares a query with few vectors, by following links.
//!
//! A vertex has its vector as bytes, and with the profile `speed`, of each of its neighbours the signs
//! of how it differs, which say of 32 neighbours at once about how far they are from a query. Without
//! these, neighbours are judged by the signs of their own vectors, and those that may be near by half
//! of their bytes. A search expands the vertices that look nearest, and compares those that come out
//! by their bytes; the best of them are compared in full precision, with vectors that lie elsewhere.
//!
//! | file | job |
//! |---|---|
//! | `space` | all metrics as one |
//! | `rotation`, `quantize` | vectors to bytes and signs |
//! | `rows`, `view`, `storage` | vertices in memory or in the map of a file |
//! | `query`, `pool`, `batch`, `hub`, `traverse` | going from vertex to vertex |
//! | `scan` | comparing all, and proving which are nearest |
//! | `search`, `filter`, `full` | what is asked, and how it is answered |
//! | `select`, `build`, `update` | which vertices become neighbours, at first and later |
//! | `links` | writing them, so that some lead to every vertex |
//! | `twins` | equal vectors, one of which is a vertex |
//! | `calibrate` | which effort finds how much |
//!
//! Invariants: a graph and its answers depend on the vectors, their order, the options and the
//! query, and on the processor's instructions, which round in their own ways; not on threads. Links
//! lead to rows that there are, and never to vacant ones.
//!
//! Deliberately lacking: keys, full vectors, files (see `segment::graph_file`).
//!
//! Source: Gou et al., "SymphonyQG", SIGMOD 2025, whose vertices hold full vectors.

mod batch;
mod build;
mod calibrate;
mod copies;
mod filter;
mod full;
mod hub;
mod links;
mod pool;
mod quantize;
mod query;
mod rotation;
mod rows;
mod scan;
mod search;
mod select;
mod sequence;
mod space;
mod storage;
#[cfg(test)]
mod tests;
mod traverse;
mod twins;
mod update;
mod view;

use std::num::NonZero;
use std::ops::Range;
use std::sync::Arc;

use op_dbus_formats::collection::Metric;
use op_dbus_formats::embedding::check_finite;
pub use op_dbus_formats::graph_file::Profile;
use op_dbus_formats::graph_file::{Calibration, VERTICES_MAX};

pub(crate) use build::{Linking, Plan as GraphPlan};
pub(crate) use calibrate::Measured;
pub use filter::{GraphFilter, VertexSet};
pub use full::{DenseVectors, FullVectors};
use hub::Hub;
use rotation::Rotation;
use rows::{Rows, Shape};
pub use search::{GraphSearch, Neighbour, SearchCounts, SearchOptions, SearchPlan};
use space::Space;
use storage::MappedRows;
pub(crate) use twins::Twin;
use twins::Twins;

use crate::arena::Placement;
use crate::error::{Error, ErrorKind, Result};
use crate::pages::CheckedMap;

/// Neighbours of a vertex at most: one block of signs.
const DEGREE: usize = 32;
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
    /// Vertices there were when the hub was chosen.
    hub_of_count: usize,
    /// Vectors that can be found.
    live_count: usize,
    /// Vertices that are linked, removed ones among them.
    linked_count: usize,
    /// Vertices that lead on and cannot be found.
    removed: VertexSet,
    /// Rows to be used again.
    vacant: Vec<u32>,
    /// Vectors that no link leads to, as they have no direction.
    apart: Vec<u32>,
    twins: Twins,
    /// Links that lead to each vertex; known while rows are in memory.
    in_links_counts: Vec<u32>,
    calibration: Calibration,
    /// Vertices there were when it was measured.
    calibrated_of_count: usize,
}

/// What a file of a graph holds beside its rows.
pub(crate) struct GraphParts {
    pub(crate) dimensions: usize,
    pub(crate) options: GraphOptions,
    pub(crate) center: Vec<f32>,
    pub(crate) unit: f32,
    pub(crate) norm_max: f32,
    pub(crate) degree: usize,
    pub(crate) rows_count: usize,
    pub(crate) live_count: usize,
    pub(crate) hub: Vec<u8>,
    pub(crate) hub_rows_count: usize,
    pub(crate) hub_of_count: usize,
    pub(crate) apart: Vec<u32>,
    pub(crate) removed: Vec<u32>,
    pub(crate) twins: Vec<Twin>,
    pub(crate) calibration: Calibration,
    pub(crate) calibrated_of_count: usize,
}

impl GraphParts {
    /// All vertices that lists name.
    fn ids(&self) -> impl Iterator<Item = u32> {
        let twins = self.twins.iter().flat_map(|twin| [twin.vertex, twin.id]);
        self.apart.iter().chain(&self.removed).copied().chain(twins)
    }
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
        let mut index = Self::unlinked(vectors, dimensions, options)?;
        let mut linking = Linking::of(&index);
        loop {
            progress(linking.linked_count())?;
            if !linking.step(&mut index, threads)? {
                progress(index.len())?;
                return Ok(index);
            }
        }
    }

    /// As [`GraphIndex::build`], with vectors that are all yet to be linked.
    pub(crate) fn unlinked(
        vectors: &[f32],
        dimensions: NonZero<usize>,
        options: GraphOptions,
    ) -> Result<Self> {
        check_vectors(vectors, dimensions.get())?;
        let count = vectors.len() / dimensions;
        let space = Space::of(vectors, dimensions.get(), options.metric);
        let has_signs = options.profile == Profile::Speed;
        let shape = Shape::new(space.inner_dimensions(), DEGREE, has_signs);
        let rotation = Rotation::new(shape.padded, options.seed);
        let rows = Rows::new(shape, count, &Arc::default())?;
        let hub = Hub::of(&rows, &[], &[])?;
        let mut index = Self::of(options, space, rotation, (rows, hub));
        index.live_count = count;
        index.in_links_counts = vec![0; count];
        let ids: Vec<u32> = (0..count as u32).collect();
        index.set_vertices(&ids, vectors);
        Ok(index)
    }

    fn of(
        options: GraphOptions,
        space: Space,
        rotation: Rotation,
        (rows, hub): (Rows, Hub),
    ) -> Self {
        Self {
            options,
            space,
            rotation,
            rows,
            hub,
            hub_of_count: 0,
            live_count: 0,
            linked_count: 0,
            removed: VertexSet::new(),
            vacant: Vec::new(),
            apart: Vec::new(),
            twins: Twins::default(),
            in_links_counts: Vec::new(),
            calibration: Calibration::default(),
            calibrated_of_count: 0,
        }
    }

    /// Number of vectors that can be found.
    #[must_use]
    pub fn len(&self) -> usize {
        self.live_count
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.live_count == 0
    }

    /// One more than the greatest number that a vector has or had.
    #[must_use]
    pub fn rows_count(&self) -> usize {
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
        let counts_bytes = self.in_links_counts.len() * size_of::<u32>();
        self.rows.memory_bytes() + self.hub.memory_bytes() + counts_bytes
    }

    /// Moves it to where hot memory lies, unless it is in a file: then it goes there when it is copied.
    pub(crate) fn place_on(&mut self, placement: &Arc<Placement>) {
        self.rows.place(placement);
        self.hub.place(placement);
    }

    /// Where hot memory lies.
    pub(crate) fn placement(&self) -> &Placement {
        self.rows.placement()
    }

    /// Where its memory lies; nowhere as long as it is in a file.
    pub(crate) fn addresses(&self) -> Vec<Range<usize>> {
        self.rows.addresses()
    }

    /// About how many bytes its file has.
    pub(crate) fn file_bytes(&self) -> usize {
        self.row_bytes().len() + self.hub.as_bytes().len()
    }

    /// Whether something is wrong with the file that it is in.
    pub(crate) fn is_damaged(&self) -> bool {
        self.rows.is_damaged()
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
            rows_count: self.rows.len(),
            live_count: self.live_count,
            hub: self.hub.as_bytes().to_vec(),
            hub_rows_count: self.hub.len(),
            hub_of_count: self.hub_of_count,
            apart: self.apart.clone(),
            removed: self.removed(),
            twins: self.twins.iter().collect(),
            calibration: self.calibration,
            calibrated_of_count: self.calibrated_of_count,
        }
    }

    /// All rows, one behind the other.
    pub(crate) fn row_bytes(&self) -> &[u8] {
        self.rows.as_bytes()
    }

    /// Puts a graph together again whose rows lie at this place in a file. They stay there until
    /// they are changed.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if what is looked at does not belong to such a graph.
    pub(crate) fn from_file(
        parts: GraphParts,
        map: Arc<CheckedMap>,
        rows_start: usize,
    ) -> Result<Self> {
        if parts.ids().any(|id| id as usize >= parts.rows_count) {
            return Err(Error::new(ErrorKind::Corrupt, "a list of vertices leads to none"));
        }
        let GraphParts { dimensions, options, center, unit, norm_max, .. } = parts;
        let space = Space { metric: options.metric, dimensions, center, unit, norm_max };
        let has_signs = options.profile == Profile::Speed;
        let shape = Shape::new(space.inner_dimensions(), parts.degree, has_signs);
        let rows_end = rows_start + parts.rows_count * shape.stride_bytes();
        let mapped = Arc::new(MappedRows::new(map, rows_start..rows_end, shape.stride_bytes()));
        let rows = Rows::mapped(shape, parts.rows_count, mapped, &Arc::default());
        let rotation = Rotation::new(shape.padded, options.seed);
        let hub = Hub::from_bytes(&parts.hub, rows.view())?;
        let mut index = Self::of(options, space, rotation, (rows, hub));
        index.live_count = parts.live_count;
        index.hub_of_count = parts.hub_of_count;
        index.linked_count = parts.rows_count;
        index.apart = parts.apart;
        index.removed = parts.removed.into_iter().collect();
        index.twins = parts.twins.into_iter().collect();
        index.calibration = parts.calibration;
        index.calibrated_of_count = parts.calibrated_of_count;
        Ok(index)
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
