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
    /// The vertex of each twin.
    vertex_of: HashMap<u32, u32>,
}

/// A vector, and the vertex that it is beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Twin {
    pub(crate) vertex: u32,
    pub(crate) id: u32,
}

impl Twins {
    pub(super) fn is_empty(&self) -> bool {
        self.vertex_of.is_empty()
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
        self.of.entry(twin.vertex).or_default().push(twin.id);
        self.vertices.insert(twin.vertex);
        self.vertex_of.insert(twin.id, twin.vertex);
    }

    /// Forgets one, if it is a twin.
    pub(super) fn remove(&mut self, id: u32) {
        let Some(vertex) = self.vertex_of.remove(&id) else { return };
        let twins = self.of.entry(vertex).or_default();
        twins.retain(|twin| *twin != id);
        if twins.is_empty() {
            self.of.remove(&vertex);
            self.vertices.remove(vertex);
        }
    }

    /// Forgets all of a vertex.
    pub(super) fn take(&mut self, vertex: u32) -> Vec<u32> {
        let twins = self.of.remove(&vertex).unwrap_or_default();
        self.vertices.remove(vertex);
        twins.iter().for_each(|twin| _ = self.vertex_of.remove(twin));
        twins
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
        for id in [70, 4, 4, 3] {
            twins.remove(id);
        }
        assert_eq!((twins.of(1).len(), twins.of(3)), (0, &[9, 5][..]));
        assert_eq!((twins.take(3), twins.take(3)), (vec![9, 5], vec![]));
        assert!(twins.is_empty() && twins.of(3).is_empty() && twins.iter().next().is_none());
        twins.remove(9);
    }
}
