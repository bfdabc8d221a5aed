//! Vectors that are equal by their bytes: one of them is a vertex, and has the others beside it. Were
//! all of them vertices, each would be linked with the others alone, and nothing else would lead
//! there.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use super::filter::VertexSet;

/// Which vectors are beside which vertices.
#[derive(Default)]
pub(super) struct Twins {
    of: BTreeMap<u32, Vec<u32>>,
    /// Vertices with twins.
    vertices: VertexSet,
    /// The vertex of each twin, and its place among the twins of that.
    places: HashMap<u32, (u32, usize)>,
}

/// A vector, and the vertex that it is beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Twin {
    pub(crate) vertex: u32,
    pub(crate) id: u32,
}

impl Twins {
    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The twins of a vertex.
    #[inline]
    pub(super) fn of(&self, vertex: u32) -> &[u32] {
        let twins = if self.vertices.contains(vertex) { self.of.get(&vertex) } else { None };
        twins.map_or(&[], Vec::as_slice)
    }

    /// Vertices with twins, those with most first.
    pub(super) fn vertices(&self) -> Vec<u32> {
        let mut by_count: Vec<_> =
            self.of.iter().map(|(vertex, twins)| (Reverse(twins.len()), *vertex)).collect();
        by_count.sort_unstable();
        by_count.into_iter().map(|(_, vertex)| vertex).collect()
    }

    pub(super) fn add(&mut self, twin: Twin) {
        let twins = self.of.entry(twin.vertex).or_default();
        self.places.insert(twin.id, (twin.vertex, twins.len()));
        twins.push(twin.id);
        self.vertices.insert(twin.vertex);
    }

    /// Forgets one, if it is a twin; returns the vertex that it was beside.
    pub(super) fn remove(&mut self, id: u32) -> Option<u32> {
        let (vertex, place) = self.places.remove(&id)?;
        let twins = self.of.get_mut(&vertex)?;
        twins.swap_remove(place);
        if let Some(moved) = twins.get(place) {
            self.places.insert(*moved, (vertex, place));
        }
        if twins.is_empty() {
            self.of.remove(&vertex);
            self.vertices.remove(vertex);
        }
        Some(vertex)
    }

    /// All of them, by vertex.
    pub(super) fn iter(&self) -> impl Iterator<Item = Twin> {
        let of_vertex = |(vertex, twins): (&u32, _)| (*vertex, twins);
        let all = self.of.iter().map(of_vertex);
        all.flat_map(|(vertex, twins): (u32, &Vec<u32>)| {
            twins.iter().map(move |id| Twin { vertex, id: *id })
        })
    }
}

impl FromIterator<Twin> for Twins {
    fn from_iter<I: IntoIterator<Item = Twin>>(twins: I) -> Self {
        let mut all = Self::default();
        twins.into_iter().for_each(|twin| all.add(twin));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twins_come_and_go() {
        let given = [(3, 9), (3, 4), (1, 70), (3, 5)].map(|(vertex, id)| Twin { vertex, id });
        let mut twins: Twins = given.into_iter().collect();
        assert_eq!((twins.of(3), twins.of(1)), (&[9, 4, 5][..], &[70][..]));
        assert!(twins.of(9).is_empty() && twins.of(u32::MAX).is_empty());
        let all: Vec<Twin> = twins.iter().collect();
        assert_eq!(all, [given[2], given[0], given[1], given[3]]);
        assert_eq!(twins.vertices(), [3, 1]);
        let removed = [70, 9, 9, 3].map(|id| twins.remove(id));
        assert_eq!(removed, [Some(1), Some(3), None, None]);
        assert_eq!((twins.of(1).len(), twins.of(3)), (0, &[5, 4][..]));
        twins.add(given[0]);
        assert_eq!([5, 4, 9].map(|id| twins.remove(id)), [Some(3); 3]);
        assert!(twins.is_empty() && twins.of(3).is_empty() && twins.iter().next().is_none());
    }
}
