//! Writing links, and seeing to it that some lead to every vertex: what is far from everything is no
//! vertex's choice, and could not be found however much a search looks at.

use op_dbus_formats::graph_file::DEGREE_MAX;

use super::GraphIndex;
use super::quantize::{Quantized, write_signs};
use super::rows::{NO_LINK, Rows};
use super::traverse::Near;
use super::view::RowsView;

/// Links that lead to a vertex at least, if it is linked with as many: one of them may be that of a
/// vertex that is removed next.
const IN_LINKS_MIN: u32 = 3;

impl GraphIndex {
    /// Gives vertices these neighbours.
    pub(super) fn write_all_links(&mut self, all: &[(u32, Vec<u32>)]) {
        let mut ids: Vec<u32> = Vec::new();
        for (id, links) in all {
            ids.push(*id);
            ids.extend(self.write_links(*id, links));
        }
        self.lead_to(&ids);
    }

    /// Gives a vertex these neighbours; returns those that it had and has no more.
    fn write_links(&mut self, id: u32, links: &[u32]) -> Vec<u32> {
        let before = self.rows.view().links(id);
        let out = |link: &&u32| !links.contains(link);
        let left: Vec<u32> = before.iter().filter(out).copied().collect();
        for link in links.iter().filter(|link| !before.contains(link)) {
            self.in_links_counts[*link as usize] += 1;
        }
        self.forget_links(&left);
        write_row(&mut self.rows, id, links);
        left
    }

    /// Counts links less that led to these.
    pub(super) fn forget_links(&mut self, links: &[u32]) {
        for link in links {
            self.in_links_counts[*link as usize] -= 1;
        }
    }

    /// Sees to it that links lead to these vertices: from those that they have links to, the nearest
    /// first, and in place of the farthest that others lead to as well.
    pub(super) fn lead_to(&mut self, ids: &[u32]) {
        for id in ids {
            if self.in_links_counts[*id as usize] >= IN_LINKS_MIN {
                continue;
            }
            let rows = self.rows.view();
            let is_findable = |id: &u32| rows.header(*id).is_findable();
            let links: Vec<u32> = rows.links(*id).iter().copied().filter(is_findable).collect();
            if !is_findable(id) {
                continue;
            }
            let mut near: Vec<Near> = self.nearnesses(*id, &links).collect();
            near.sort_unstable_by(Near::order);
            for from in near {
                if self.in_links_counts[*id as usize] >= IN_LINKS_MIN {
                    break;
                }
                self.link_also(from.id, *id);
            }
        }
    }

    /// Links a vertex with one more, which is worth more than the farthest of the others.
    pub(super) fn link_also(&mut self, from: u32, to: u32) {
        let mut links = self.rows.view().links(from).to_vec();
        if links.contains(&to) {
            return;
        }
        if links.len() < self.rows.shape().degree {
            links.push(to);
        } else {
            let can_do_without =
                |near: &Near| self.in_links_counts[near.id as usize] > IN_LINKS_MIN;
            let farthest = self.nearnesses(from, &links).filter(can_do_without).max_by(Near::order);
            let Some(farthest) = farthest else { return };
            links.iter_mut().filter(|link| **link == farthest.id).for_each(|link| *link = to);
        }
        self.write_links(from, &links);
    }
}

/// How many links lead to each vertex.
pub(super) fn count_links(rows: RowsView<'_>) -> Vec<u32> {
    let mut counts = vec![0; rows.len()];
    for link in (0..rows.len() as u32).flat_map(|id| rows.links(id)) {
        counts[*link as usize] += 1;
    }
    counts
}

/// Writes neighbours into a row. Those that it had stay where they are.
fn write_row(rows: &mut Rows, id: u32, links: &[u32]) {
    let mut placed = [NO_LINK; DEGREE_MAX as usize];
    let before = rows.view().links(id).to_vec();
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
    let vertex = Quantized::of(&rows.view().vertex(id));
    for (slot, link) in placed[..links.len()].iter().enumerate() {
        if rows.shape().has_signs && before.get(slot) != Some(link) {
            let other = Quantized::of(&rows.view().vertex(*link));
            let mut neighbourhood = rows.neighbourhood(id);
            write_signs(&mut neighbourhood, slot, &vertex, &other);
        }
    }
    let neighbourhood = rows.neighbourhood(id);
    let degree = neighbourhood.links.len();
    neighbourhood.links.copy_from_slice(&placed[..degree]);
    neighbourhood.header.links_count = links.len() as u16;
}
