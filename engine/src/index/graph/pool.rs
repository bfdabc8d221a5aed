//! The candidates of one search, nearest first, and the vertices it has seen.

/// A number of a vertex has no more than 31 bits, so that one is left to mark it.
const EXPANDED: u64 = 1 << 31;

/// The nearest candidates so far, at most a fixed number of them.
///
/// A candidate is one number, by which they are in order: the bits of its distance, which order like
/// the distance as it is not negative, and then the vertex and whether it was expanded.
#[derive(Default)]
pub(super) struct Pool {
    entries: Vec<u64>,
    limit: usize,
    /// All before were expanded.
    cursor: usize,
}

impl Pool {
    pub(super) fn reset(&mut self, limit: usize) {
        self.entries.clear();
        self.entries.reserve(limit);
        (self.limit, self.cursor) = (limit, 0);
    }

    /// What is as far or farther does not get in.
    #[inline]
    pub(super) fn bound(&self) -> f32 {
        match self.entries.last() {
            Some(last) if self.entries.len() == self.limit => distance_of(*last),
            _ => f32::INFINITY,
        }
    }

    /// Takes a candidate that is not in it; returns one that had no room any more, if it was not
    /// expanded.
    #[inline]
    pub(super) fn insert(&mut self, distance: f32, id: u32) -> Option<u32> {
        let entry = u64::from(distance.max(0.0).to_bits()) << 32 | u64::from(id);
        let place = self.entries.partition_point(|other| *other < entry);
        let mut last = None;
        if self.entries.len() == self.limit {
            if place == self.limit {
                return Some(id);
            }
            last = self.entries.pop();
        }
        self.entries.insert(place, entry);
        self.cursor = self.cursor.min(place);
        last.filter(|last| last & EXPANDED == 0).map(id_of)
    }

    /// Takes the nearest candidate to expand, of the first `width`.
    #[inline]
    pub(super) fn expand_next(&mut self, width: usize) -> Option<u32> {
        let place = self.next_place(width)?;
        let entry = self.entries[place];
        self.entries[place] |= EXPANDED;
        self.cursor = place + 1;
        Some(id_of(entry))
    }

    #[inline]
    fn next_place(&self, width: usize) -> Option<usize> {
        let end = width.min(self.entries.len());
        let unexpanded = |place: &usize| self.entries[*place] & EXPANDED == 0;
        (self.cursor..end).find(unexpanded)
    }

    /// Those that were not expanded, nearest first.
    pub(super) fn unexpanded(&self) -> impl Iterator<Item = u32> {
        self.entries.iter().filter(|entry| **entry & EXPANDED == 0).map(|entry| id_of(*entry))
    }
}

#[inline]
fn distance_of(entry: u64) -> f32 {
    f32::from_bits((entry >> 32) as u32)
}

#[inline]
fn id_of(entry: u64) -> u32 {
    (entry & (EXPANDED - 1)) as u32
}

/// Vertices that a search has seen: a bit each.
#[derive(Default)]
pub(super) struct Seen {
    words: Vec<u64>,
    touched: Vec<u32>,
}

impl Seen {
    /// Forgets all, and makes room for so many vertices.
    pub(super) fn reset(&mut self, len: usize) {
        for word in self.touched.drain(..) {
            self.words[word as usize] = 0;
        }
        if self.words.len() * 64 < len {
            self.words.resize(len.div_ceil(64), 0);
        }
    }

    /// Forgets a vertex.
    #[inline]
    pub(super) fn remove(&mut self, id: u32) {
        self.words[id as usize / 64] &= !(1 << (id % 64));
    }

    /// Notes a vertex; says whether it is new.
    #[inline]
    pub(super) fn insert(&mut self, id: u32) -> bool {
        let (word, bit) = (id / 64, 1 << (id % 64));
        let seen = &mut self.words[word as usize];
        if *seen & bit != 0 {
            return false;
        }
        if *seen == 0 {
            self.touched.push(word);
        }
        *seen |= bit;
        true
    }
}
