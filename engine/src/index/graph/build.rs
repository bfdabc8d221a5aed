//! Linking vertices, many at a time.
//!
//! All vectors of a batch look for neighbours in the graph as it was before; then they are linked
//! from those. What a batch does depends neither on the number of threads nor on their order. What
//! to do is found out without changing anything, so that searches go on meanwhile.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::num::NonZero;

use op_dbus_formats::graph_file::Calibration;

use super::GraphIndex;
use super::filter::GraphFilter;
use super::hub::Hub;
use super::quantize::Quantized;
use super::rows::{APART, HOLLOW, LIVE, TWIN, WAITING};
use super::select::select;
use super::sequence::Sequence;
use super::traverse::{Effort, Near, Scratch};
use super::twins::Twin;
use crate::error::Result;
use crate::os::threads::in_parts;

/// The part of the graph that a batch may be.
const BATCH_PARTS: usize = 50;
const BATCH_MIN: usize = 32;
/// What is looked at to find the neighbours of a vertex. By signs, many candidates are the same
/// vertex.
const EFFORT_BY_SIGNS: Effort = Effort { width: 440, kept: 460, expanded_max: usize::MAX };
const EFFORT_BY_BYTES: Effort = Effort { width: 340, kept: 360, expanded_max: usize::MAX };
/// Where a search finds fewer, all are compared.
const FOUND_MIN: usize = 16;
/// Among so many of what was found they are chosen: more cost more than they bring.
const CHOSEN_AMONG: usize = 120;

/// A link to be made: from a vertex to a new one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Backlink {
    from: u32,
    to: u32,
}

/// Which links vertices are to have.
pub(crate) struct Plan {
    links: Vec<(u32, Vec<u32>)>,
    /// Vectors that are to be beside a vertex instead of linked.
    twins: Vec<Twin>,
    /// Vertices that are linked by it and were not before.
    new_count: usize,
}

impl Plan {
    /// Other links for vertices that are linked.
    pub(super) fn of_linked(links: Vec<(u32, Vec<u32>)>) -> Self {
        Self { links, twins: Vec::new(), new_count: 0 }
    }
}

/// What is to become of a vector.
enum Choice {
    Links(Vec<u32>),
    TwinOf(u32),
}

/// In which order the vectors of a new graph are linked, and how far that is.
pub(crate) struct Linking {
    /// Those that are linked first.
    order: Vec<u32>,
    linked_count: usize,
    /// From here on they are questions before they are linked, if it is not known yet how much
    /// searches find.
    questions_start: usize,
}

impl Linking {
    /// Goes on with a graph as it is: equal graphs go on in the same way.
    pub(crate) fn of(index: &GraphIndex) -> Self {
        let rows = index.rows.view();
        let is_waiting = |id: &u32| rows.header(*id).state == WAITING;
        let is_linked = |id: &u32| matches!(rows.header(*id).state, LIVE | HOLLOW | TWIN);
        let ids = 0..rows.len() as u32;
        let mut order: Vec<u32> = ids.filter(|id| is_linked(id) || is_waiting(id)).collect();
        // What comes together is often near, and a batch does not see itself.
        shuffle(&mut order, index.options.seed);
        order.sort_by_key(is_waiting);
        let linked_count = order.partition_point(is_linked);
        let questions_start = order.len() - GraphIndex::questions_count(order.len());
        Self { order, linked_count, questions_start: questions_start.max(linked_count) }
    }

    pub(crate) fn linked_count(&self) -> usize {
        self.linked_count
    }

    /// Links some vectors of the graph; says whether there are more.
    pub(crate) fn step(&mut self, index: &mut GraphIndex, threads: NonZero<usize>) -> Result<bool> {
        let Self { order, linked_count, questions_start } = self;
        if linked_count == questions_start && index.calibration == Calibration::default() {
            index.renew_hub(&index.vertices(&order[..*linked_count]))?;
            index.calibrate(&order[*questions_start..], threads);
        }
        let is_before = linked_count < questions_start;
        let end = if is_before { *questions_start } else { order.len() };
        let batch = &order[*linked_count..end.min(*linked_count + index.batch_len())];
        index.apply(&index.plan(batch, threads));
        *linked_count += batch.len();
        let is_more = *linked_count < order.len();
        if !is_more || index.linked_count >= 2 * index.hub_of_count {
            index.renew_hub(&index.vertices(&order[..*linked_count]))?;
        }
        Ok(is_more)
    }
}

impl GraphIndex {
    /// How many may be linked at once.
    pub(crate) fn batch_len(&self) -> usize {
        (self.linked_count / BATCH_PARTS).max(BATCH_MIN)
    }

    /// Chooses where searches begin among these, which are in the order that they were linked in, or in
    /// none.
    pub(super) fn renew_hub(&mut self, linked: &[u32]) -> Result<()> {
        // What many have in common is asked for most.
        self.hub = Hub::of(&self.rows, linked, &self.twins.vertices())?;
        self.hub_of_count = linked.len();
        Ok(())
    }

    /// Writes vectors into rows. Those without direction are found apart, the others wait for links.
    pub(super) fn set_vertices(&mut self, ids: &[u32], vectors: &[f32]) {
        let (mut placed, mut quantized) = (Vec::new(), Quantized::default());
        for (id, vector) in ids.iter().zip(vectors.chunks_exact(self.space.dimensions)) {
            self.space.place(vector, &mut placed);
            placed.resize(self.rows.shape().padded, 0.0);
            self.rotation.rotate(&mut placed);
            quantized.set(&placed);
            self.rows.set_vertex(*id, &quantized.bytes, quantized.vertex_header());
            if self.space.is_nowhere(vector) {
                self.rows.set_state(*id, APART);
                self.apart.push(*id);
            } else {
                self.rows.set_state(*id, WAITING);
            }
        }
    }

    /// Finds out how to link vertices that are not linked yet with those that are.
    pub(crate) fn plan(&self, ids: &[u32], threads: NonZero<usize>) -> Plan {
        let is_first = self.findable_count() == 0;
        let (ids, mut twins) = self.without_twins(ids);
        let choices: Vec<Choice> = if is_first {
            let choose = |index: usize| self.choose_among(ids[index], &ids[..index]);
            (0..ids.len()).map(|index| Choice::Links(choose(index))).collect()
        } else {
            in_parts(&ids, threads, |id, scratch: &mut Scratch| self.choose(*id, scratch))
        };
        let (mut links, mut found, mut vertex_of) = (Vec::new(), Vec::new(), HashMap::new());
        for (id, choice) in ids.into_iter().zip(choices) {
            match choice {
                Choice::Links(chosen) => links.push((id, chosen)),
                Choice::TwinOf(vertex) => {
                    found.push(Twin { vertex, id });
                    vertex_of.insert(id, vertex);
                }
            }
        }
        for twin in &mut twins {
            twin.vertex = vertex_of.get(&twin.vertex).copied().unwrap_or(twin.vertex);
        }
        twins.append(&mut found);
        let new_count = links.len();
        let mut backlinks = Vec::new();
        for (id, chosen) in &links {
            backlinks.extend(chosen.iter().map(|from| Backlink { from: *from, to: *id }));
        }
        backlinks.sort_unstable();
        // The first of a graph are linked among themselves: what they are to have counts.
        let planned = if is_first { links.clone() } else { Vec::new() };
        let groups: Vec<&[Backlink]> = backlinks.chunk_by(|a, b| a.from == b.from).collect();
        let changed = in_parts(&groups, threads, |group, (): &mut ()| {
            let before = planned.iter().find(|(id, _)| *id == group[0].from);
            let before = before.map_or(self.rows.view().links(group[0].from), |(_, links)| links);
            self.relink(before, group)
        });
        for (group, changed) in groups.iter().zip(changed) {
            if let Some(changed) = changed {
                links.push((group[0].from, changed));
            }
        }
        Plan { links, twins, new_count }
    }

    /// Leaves of equal vectors only the first, and says of which the others are twins.
    fn without_twins(&self, ids: &[u32]) -> (Vec<u32>, Vec<Twin>) {
        let rows = self.rows.view();
        let mut firsts = HashMap::with_capacity(ids.len());
        let (mut different, mut twins) = (Vec::with_capacity(ids.len()), Vec::new());
        for id in ids {
            match firsts.entry(rows.vertex(*id).identity()) {
                Entry::Occupied(first) => twins.push(Twin { vertex: *first.get(), id: *id }),
                Entry::Vacant(first) => {
                    first.insert(*id);
                    different.push(*id);
                }
            }
        }
        (different, twins)
    }

    /// Does what was found out.
    pub(crate) fn apply(&mut self, plan: &Plan) {
        let (new, _) = plan.links.split_at(plan.new_count);
        new.iter().for_each(|(id, _)| self.rows.set_state(*id, LIVE));
        self.write_all_links(&plan.links);
        for twin in &plan.twins {
            self.rows.set_state(twin.id, TWIN);
            self.twins.add(*twin);
        }
        self.linked_count += plan.new_count;
    }

    /// Chooses neighbours for a vertex among these.
    pub(super) fn choose_among(&self, id: u32, others: &[u32]) -> Vec<u32> {
        let mut candidates: Vec<Near> = self.nearnesses(id, others).collect();
        candidates.sort_unstable_by(Near::order);
        select(self.rows.view(), &candidates)
    }

    /// How near vertices are to one.
    pub(super) fn nearnesses(&self, id: u32, others: &[u32]) -> impl Iterator<Item = Near> {
        let rows = self.rows.view();
        let vector = Quantized::of(&rows.vertex(id));
        let distance = move |other: u32| rows.vertex(other).distance(&vector);
        others.iter().map(move |other| Near { distance: distance(*other), id: *other })
    }

    /// Vertices that are linked and can be found.
    pub(super) fn findable_count(&self) -> usize {
        self.linked_count - self.removed.len()
    }

    /// Chooses neighbours for a vertex among those that a search finds.
    fn choose(&self, id: u32, scratch: &mut Scratch) -> Choice {
        self.prepare_vertex(id, scratch);
        let effort = if self.rows.shape().has_signs { EFFORT_BY_SIGNS } else { EFFORT_BY_BYTES };
        let effort = self.effort_among_removed(effort);
        scratch.search(self.rows.view(), &self.hub, effort, &self.findable(GraphFilter::All));
        if scratch.found.len() < FOUND_MIN.min(self.findable_count()) {
            // Nearly all that is near was removed.
            let alone = NonZero::<usize>::MIN;
            scratch.scan(self.rows.view(), FOUND_MIN, &GraphFilter::All, alone);
            scratch.found.retain(|near| self.rows.view().header(near.id).is_findable());
        }
        scratch.found.sort_unstable_by(Near::order);
        scratch.found.truncate(CHOSEN_AMONG);
        let rows = self.rows.view();
        let identity = rows.vertex(id).identity();
        // Rounding puts equal ones at any small distance.
        let nearest =
            scratch.found.iter().take_while(|near| near.distance <= scratch.found[0].distance);
        match nearest.map(|near| near.id).find(|other| rows.vertex(*other).identity() == identity) {
            Some(vertex) => Choice::TwinOf(vertex),
            None => Choice::Links(select(rows, &scratch.found)),
        }
    }

    /// Makes a query of a vertex.
    pub(super) fn prepare_vertex(&self, id: u32, scratch: &mut Scratch) {
        let vector = Quantized::of(&self.rows.view().vertex(id));
        scratch.query.rotated.clear();
        scratch.query.rotated.extend(vector.numbers());
        scratch.query.prepare_rotated();
    }

    /// Which of a vertex's links it can best do without, now that the last has come: one that the new
    /// one stands before, or the new one; else the farthest. To choose among all again would find
    /// hardly better ones, and cost ten times as much.
    fn least_needed(&self, from: u32, links: &[u32]) -> usize {
        let last = links.len() - 1;
        let rows = self.rows.view();
        let new = rows.vertex(links[last]);
        let vector = Quantized::of(&rows.vertex(from));
        let to_new = new.distance(&vector);
        let new = Quantized::of(&new);
        // How much farther the vertex is than what stands before.
        let mut occlusion_of_new = 0.0_f32;
        let mut most_occluded = (0.0_f32, last);
        let mut farthest = (to_new, last);
        for (slot, link) in links[..last].iter().enumerate() {
            let other = rows.vertex(*link);
            let distance = other.distance(&vector);
            let between = other.distance(&new).max(f32::MIN_POSITIVE);
            if distance > farthest.0 {
                farthest = (distance, slot);
            }
            if distance < to_new {
                occlusion_of_new = occlusion_of_new.max(to_new / between);
            } else if distance / between > most_occluded.0 {
                most_occluded = (distance / between, slot);
            }
        }
        if occlusion_of_new >= most_occluded.0 {
            most_occluded = (occlusion_of_new, last);
        }
        if most_occluded.0 > 1.0 { most_occluded.1 } else { farthest.1 }
    }

    /// The links of a vertex with new ones among them; `None` if they stay as they are.
    fn relink(&self, links: &[u32], backlinks: &[Backlink]) -> Option<Vec<u32>> {
        let from = backlinks[0].from;
        let new: Vec<u32> =
            backlinks.iter().map(|link| link.to).filter(|to| !links.contains(to)).collect();
        if new.is_empty() {
            return None;
        }
        let mut all = links.to_vec();
        all.extend(new);
        let rows = self.rows.view();
        all.iter().for_each(|id| rows.prefetch_vertex(*id));
        // What waits is what the new links lead to.
        all.retain(|id| rows.header(*id).is_findable() || rows.header(*id).state == WAITING);
        let limit = self.rows.shape().degree;
        if all.len() <= limit {
            return Some(all);
        }
        if all.len() == limit + 1 {
            let out = self.least_needed(from, &all);
            if out == limit {
                return None;
            }
            all.swap_remove(out);
            return Some(all);
        }
        Some(self.choose_among(from, &all))
    }
}

pub(super) fn shuffle(ids: &mut [u32], seed: u64) {
    let mut random = Sequence::new(seed);
    for end in (1..ids.len()).rev() {
        ids.swap(end, (random.next() % (end as u64 + 1)) as usize);
    }
}
