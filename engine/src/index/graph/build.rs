//! Insertion, many vectors at a time.
//!
//! All vectors of a batch look for neighbours in the graph as it was before; then they are linked
//! from those. What a batch does depends neither on the number of threads nor on their order.

use std::num::NonZero;

use op_dbus_formats::graph_file::DEGREE_MAX;

use super::hub::Hub;
use super::quantize::{Quantized, write_signs};
use super::rows::{NO_LINK, Rows};
use super::search::{Effort, Near, Scratch};
use super::select::select;
use super::sequence::Sequence;
use super::{GraphIndex, HUB_COUNT, HUB_PARTS};
use crate::error::Result;

/// The part of the graph that a batch may be.
const BATCH_PARTS: usize = 50;
const BATCH_MIN: usize = 32;
/// What is looked at to find the neighbours of a vertex.
const BUILD_EFFORT: Effort = Effort { width: 100, kept: 150 };

/// A link to be made: from a vertex to a new one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Backlink {
    from: u32,
    to: u32,
}

impl GraphIndex {
    /// Writes the vectors, and links them in an order of its own.
    pub(super) fn insert_all(
        &mut self,
        vectors: &[f32],
        threads: NonZero<usize>,
        progress: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<()> {
        self.set_vertices(vectors);
        let count = self.len();
        let mut ids: Vec<u32> = (0..count as u32).collect();
        // What comes together is often near, and a batch does not see itself.
        shuffle(&mut ids, self.options.seed);
        let (mut linked_count, mut hub_of_count) = (0, 0);
        while linked_count < count {
            progress(linked_count)?;
            if linked_count >= 2 * hub_of_count {
                self.renew_hub(&ids[..linked_count])?;
                hub_of_count = linked_count;
            }
            let batch = (linked_count / BATCH_PARTS).max(BATCH_MIN).min(count - linked_count);
            self.link(&ids[linked_count..linked_count + batch], linked_count, threads);
            linked_count += batch;
        }
        self.renew_hub(&ids)?;
        progress(count)
    }

    /// Chooses where searches begin among the vertices that are linked.
    fn renew_hub(&mut self, linked: &[u32]) -> Result<()> {
        let count = HUB_COUNT.min(linked.len().div_ceil(HUB_PARTS));
        // They are in an order that means nothing.
        self.hub = Hub::of(&self.rows, &linked[..count])?;
        Ok(())
    }

    fn set_vertices(&mut self, vectors: &[f32]) {
        let (mut placed, mut quantized) = (Vec::new(), Quantized::default());
        for (id, vector) in (0..).zip(vectors.chunks_exact(self.space.dimensions)) {
            self.space.place(vector, &mut placed);
            placed.resize(self.rows.shape().padded, 0.0);
            self.rotation.rotate(&mut placed);
            quantized.set(&placed);
            self.rows.set_vertex(id, &quantized.bytes, quantized.header);
        }
    }

    /// Links vertices with those `linked_count` that are linked.
    fn link(&mut self, ids: &[u32], linked_count: usize, threads: NonZero<usize>) {
        let chosen: Vec<Vec<u32>> = if linked_count == 0 {
            (0..ids.len()).map(|index| self.choose_among(ids[index], &ids[..index])).collect()
        } else {
            let choose = |id: &u32, scratch: &mut Scratch| self.choose(*id, scratch);
            in_parts(ids, threads, choose)
        };
        let mut backlinks = Vec::new();
        for (id, chosen) in ids.iter().zip(&chosen) {
            backlinks.extend(chosen.iter().map(|from| Backlink { from: *from, to: *id }));
            write_links(&mut self.rows, *id, chosen);
        }
        backlinks.sort_unstable();
        let groups: Vec<&[Backlink]> = backlinks.chunk_by(|a, b| a.from == b.from).collect();
        let changed = in_parts(&groups, threads, |group, _| self.relink(group));
        for (group, links) in groups.iter().zip(changed) {
            if let Some(links) = links {
                write_links(&mut self.rows, group[0].from, &links);
            }
        }
    }

    /// Chooses neighbours for a vertex among these.
    fn choose_among(&self, id: u32, others: &[u32]) -> Vec<u32> {
        let mut candidates: Vec<Near> = self.nearnesses(id, others).collect();
        candidates.sort_unstable_by(Near::order);
        select(&self.rows, &candidates)
    }

    /// How near vertices are to one.
    fn nearnesses(&self, id: u32, others: &[u32]) -> impl Iterator<Item = Near> {
        let vertex = self.rows.vertex(id);
        let distance = move |other: u32| vertex.distance(&self.rows.vertex(other));
        others.iter().map(move |other| Near { distance: distance(*other), id: *other })
    }

    /// Chooses neighbours for a vertex among those that it has and those that a search finds.
    fn choose(&self, id: u32, scratch: &mut Scratch) -> Vec<u32> {
        self.prepare_vertex(id, scratch);
        scratch.search(&self.rows, &self.hub, BUILD_EFFORT);
        scratch.found.extend(self.nearnesses(id, self.rows.links(id)));
        scratch.found.retain(|near| near.id != id);
        scratch.found.sort_unstable_by(Near::order);
        scratch.found.dedup_by_key(|near| near.id);
        scratch.found.truncate(BUILD_EFFORT.kept);
        select(&self.rows, &scratch.found)
    }

    /// Makes a query of a vertex.
    fn prepare_vertex(&self, id: u32, scratch: &mut Scratch) {
        let vertex = self.rows.vertex(id);
        let scale = vertex.header.scale;
        scratch.query.rotated.clear();
        scratch.query.rotated.extend(vertex.bytes.iter().map(|byte| scale * f32::from(*byte)));
        scratch.query.prepare_rotated();
    }

    /// The links of a vertex with new ones among them; `None` if they stay as they are.
    fn relink(&self, backlinks: &[Backlink]) -> Option<Vec<u32>> {
        let from = backlinks[0].from;
        let links = self.rows.links(from);
        let new: Vec<u32> =
            backlinks.iter().map(|link| link.to).filter(|to| !links.contains(to)).collect();
        if new.is_empty() {
            return None;
        }
        let mut all = links.to_vec();
        all.extend(new);
        if all.len() <= self.rows.shape().degree {
            return Some(all);
        }
        all.iter().for_each(|id| self.rows.prefetch_vertex(*id));
        Some(self.choose_among(from, &all))
    }
}

/// Gives a vertex these neighbours. Those that it had stay where they are.
fn write_links(rows: &mut Rows, id: u32, links: &[u32]) {
    let mut placed = [NO_LINK; DEGREE_MAX as usize];
    let before = rows.links(id).to_vec();
    let mut new: Vec<u32> = links.iter().copied().filter(|link| !before.contains(link)).collect();
    for (slot, link) in before.iter().enumerate().take(links.len()) {
        placed[slot] = if links.contains(link) { *link } else { new.pop().unwrap_or(NO_LINK) };
    }
    let moved = before.iter().skip(links.len()).filter(|link| links.contains(link));
    let mut rest = moved.copied().chain(new);
    for place in placed[..links.len()].iter_mut().filter(|place| **place == NO_LINK) {
        *place = rest.next().unwrap_or(NO_LINK);
    }
    // Signs are made of two rows: those that are read are copied.
    let vertex = Quantized::of(rows.vertex(id));
    for (slot, link) in placed[..links.len()].iter().enumerate() {
        if rows.shape().has_signs && before.get(slot) != Some(link) {
            let other = Quantized::of(rows.vertex(*link));
            let mut neighbourhood = rows.neighbourhood(id);
            write_signs(&mut neighbourhood, slot, &vertex, &other);
        }
    }
    let neighbourhood = rows.neighbourhood(id);
    let degree = neighbourhood.links.len();
    neighbourhood.links.copy_from_slice(&placed[..degree]);
    neighbourhood.header.links_count = links.len() as u16;
}

fn shuffle(ids: &mut [u32], seed: u64) {
    let mut random = Sequence::new(seed);
    for end in (1..ids.len()).rev() {
        ids.swap(end, (random.next() % (end as u64 + 1)) as usize);
    }
}

/// Does work on items on several threads, and returns what came out in their order.
fn in_parts<I: Sync, T: Send>(
    items: &[I],
    threads: NonZero<usize>,
    work: impl Fn(&I, &mut Scratch) -> T + Sync,
) -> Vec<T> {
    let each = |items: &[I]| {
        let mut scratch = Scratch::default();
        items.iter().map(|item| work(item, &mut scratch)).collect::<Vec<T>>()
    };
    let mut parts = items.chunks(items.len().div_ceil(threads.get()).max(1));
    let Some(first) = parts.next() else { return Vec::new() };
    std::thread::scope(|scope| {
        let each = &each;
        let others: Vec<_> = parts.map(|part| scope.spawn(move || each(part))).collect();
        let mut done = each(first);
        for other in others {
            done.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        done
    })
}
