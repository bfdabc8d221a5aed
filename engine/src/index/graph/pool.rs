//! The candidates of one search, nearest first, and the vertices that it need not look at again.

use op_dbus_formats::graph_file::DEGREE_MAX;

use super::batch::Batch;

/// Whether its neighbours were looked at.
const EXPANDED: u64 = 1;
/// Whether it may be in the answer.
const PASSING: u64 = 1 << 1;
const ID_SHIFT: u32 = 2;
const DISTANCE_SHIFT: u32 = 33;

/// A candidate.
///
/// It is one number, by which candidates are in order: the bits of the distance, which order like
/// the distance as it is not negative, the vertex, whose number has no more than 31 bits, and what
/// is known of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry(u64);

impl Entry {
    #[inline]
    pub(super) fn new(distance: f32, id: u32, is_passing: bool) -> Self {
        let distance = u64::from(distance.max(0.0).to_bits()) << DISTANCE_SHIFT;
        Self(distance | u64::from(id) << ID_SHIFT | if is_passing { PASSING } else { 0 })
    }

    #[inline]
    pub(super) fn id(self) -> u32 {
        (self.0 >> ID_SHIFT & 0x7FFF_FFFF) as u32
    }

    #[inline]
    fn distance(self) -> f32 {
        f32::from_bits((self.0 >> DISTANCE_SHIFT) as u32)
    }

    #[inline]
    pub(super) fn is_expanded(self) -> bool {
        self.0 & EXPANDED != 0
    }

    #[inline]
    pub(super) fn is_passing(self) -> bool {
        self.0 & PASSING != 0
    }
}

/// The nearest candidates so far, at most a fixed number of them.
#[derive(Default)]
pub(super) struct Pool {
    entries: Vec<Entry>,
    limit: usize,
    /// All before were expanded.
    cursor: usize,
    /// So many of those pass. Counted only where not all do.
    passing_count: usize,
}

impl Pool {
    pub(super) fn reset(&mut self, limit: usize) {
        self.entries.clear();
        self.entries.reserve(limit);
        (self.limit, self.cursor, self.passing_count) = (limit, 0, 0);
    }

    /// What is as far or farther does not get in.
    #[inline]
    pub(super) fn bound(&self) -> f32 {
        match self.entries.last() {
            Some(last) if self.entries.len() == self.limit => last.distance(),
            _ => f32::INFINITY,
        }
    }

    /// Takes candidates, as many as a vertex has neighbours at most. The farthest leave if there is no
    /// room.
    #[inline]
    pub(super) fn insert<const ALL_PASS: bool>(&mut self, new: &mut [Entry]) {
        new.sort_unstable();
        let mut new_len = new.len();
        for _ in self.limit..self.entries.len() + new_len {
            let last = match (self.entries.last(), new[..new_len].last()) {
                (Some(old), Some(new)) if old < new => None,
                (None, _) => None,
                _ => self.entries.pop(),
            };
            if last.is_none() {
                new_len -= 1;
            } else if self.entries.len() < self.cursor {
                self.cursor = self.entries.len();
                self.passing_count -= usize::from(!ALL_PASS && last.is_some_and(Entry::is_passing));
            }
        }
        let mut end = self.entries.len();
        let new = &new[..new_len];
        let Some(first) = new.first() else { return };
        // All places first: none of these searches waits for another.
        let mut places = [0_u32; DEGREE_MAX as usize];
        for (place, entry) in places.iter_mut().zip(new) {
            *place = self.entries.partition_point(|other| other < entry) as u32;
        }
        self.entries.resize(end + new_len, *first);
        // From the last: each run between two new ones is moved once.
        for (before_count, (entry, place)) in new.iter().zip(&places).enumerate().rev() {
            let place = *place as usize;
            self.entries.copy_within(place..end, place + before_count + 1);
            self.entries[place + before_count] = *entry;
            end = place;
        }
        if end < self.cursor {
            if !ALL_PASS {
                self.passing_count = 0;
                let before = &self.entries[..end];
                self.passing_count += before.iter().filter(|entry| entry.is_passing()).count();
            }
            self.cursor = end;
        }
    }

    /// Takes the nearest candidate to expand, unless `width` of those that pass are expanded and
    /// nearer.
    #[inline]
    pub(super) fn expand_next<const ALL_PASS: bool>(&mut self, width: usize) -> Option<u32> {
        while let Some(entry) = self.entries.get_mut(self.cursor) {
            let passed_count = if ALL_PASS { self.cursor } else { self.passing_count };
            let is_expanded = entry.is_expanded();
            if passed_count >= width {
                return None;
            }
            entry.0 |= EXPANDED;
            self.cursor += 1;
            self.passing_count += usize::from(!ALL_PASS && entry.is_passing());
            if !is_expanded {
                return Some(entry.id());
            }
        }
        None
    }

    /// Those that pass and were not expanded, nearest first.
    pub(super) fn unexpanded(&self) -> impl Iterator<Item = u32> {
        let wanted = |entry: &&Entry| entry.is_passing() && !entry.is_expanded();
        self.entries.iter().filter(wanted).map(|entry| entry.id())
    }
}

/// Vertices that a search need not look at again: a bit each.
#[derive(Default)]
pub(super) struct Seen {
    words: Vec<u64>,
    /// Words with a bit, and room for one more.
    touched: Vec<u32>,
    touched_count: usize,
}

impl Seen {
    /// Forgets all, and makes room for so many vertices.
    pub(super) fn reset(&mut self, len: usize) {
        for word in &self.touched[..self.touched_count] {
            self.words[*word as usize] = 0;
        }
        self.touched_count = 0;
        if self.words.len() * 64 < len {
            self.words.resize(len.div_ceil(64), 0);
            self.touched.resize(self.words.len() + 1, 0);
        }
    }

    /// Whether a vertex was noted.
    #[inline]
    pub(super) fn contains(&self, id: u32) -> bool {
        self.words[id as usize / 64] & 1 << (id % 64) != 0
    }

    /// Notes a vertex; says whether it is new.
    #[inline]
    pub(super) fn insert(&mut self, id: u32) -> bool {
        note(&mut self.words, &mut self.touched, &mut self.touched_count, id)
    }

    /// Notes vertices, and hands those on that are new.
    #[inline]
    pub(super) fn insert_new(&mut self, ids: &[u32], new: &mut Batch<u32>) {
        // A variable of its own stays in a register.
        let mut touched_count = self.touched_count;
        let (words, touched) = (self.words.as_mut_slice(), self.touched.as_mut_slice());
        new.extend_if(ids.iter().map(|id| (*id, note(words, touched, &mut touched_count, *id))));
        self.touched_count = touched_count;
    }
}

/// Notes a vertex, without branches, as for a batch; says whether it is new.
#[inline(always)]
fn note(words: &mut [u64], touched: &mut [u32], touched_count: &mut usize, id: u32) -> bool {
    let (word, bit) = (id / 64, 1 << (id % 64));
    let seen = &mut words[word as usize];
    touched[*touched_count] = word;
    *touched_count += usize::from(*seen == 0);
    let is_new = *seen & bit == 0;
    *seen |= bit;
    is_new
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distance::tests::Random;

    /// Whatever comes in whatever batches, what is kept is the nearest, in order.
    #[test]
    fn the_nearest_stay() {
        let mut random = Random(3);
        let mut pool = Pool::default();
        for limit in [1, 2, 7, 40] {
            pool.reset(limit);
            let mut all = Vec::new();
            for batch in 0..60_u32 {
                let count = random.below(9) as u32;
                let entry = |slot: u32| {
                    let id = batch * 10 + slot;
                    Entry::new(random.below(1000) as f32 / 8.0, id, id.is_multiple_of(3))
                };
                let mut new: Vec<Entry> = (0..count).map(entry).collect();
                all.extend_from_slice(&new);
                pool.insert::<false>(&mut new);
                pool.expand_next::<false>(5);
                let passing = pool.entries[..pool.cursor].iter().filter(|e| e.is_passing()).count();
                assert_eq!(pool.passing_count, passing);
                assert!(pool.entries[..pool.cursor].iter().all(|entry| entry.is_expanded()));
            }
            all.sort_unstable();
            let kept: Vec<u32> = pool.entries.iter().map(|entry| entry.id()).collect();
            let nearest: Vec<u32> = all.iter().take(limit).map(|entry| entry.id()).collect();
            assert_eq!(kept, nearest, "of {limit}");
        }
    }
}
