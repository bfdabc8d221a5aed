//! Which of the vertices near one become its neighbours.
//!
//! One that is nearer to a chosen neighbour than to the vertex is found by way of that neighbour, so
//! a choice of near ones in all directions is worth more than one of the nearest. The rule is
//! relaxed step by step until there are as many as a row holds, as all are looked at for the price
//! of one.
//!
//! Source: Jayaram Subramanya et al., "DiskANN", NeurIPS 2019.

use super::quantize::Quantized;
use super::traverse::Near;
use super::view::{RowsView, Vertex};

/// How much nearer to a neighbour than to the vertex, in squared distances, leaves one out.
const SLACKS: [f32; 4] = [1.0, 1.1, 1.2, 1.5];

/// Chooses among candidates, which are in order, as many as a row holds.
pub(super) fn select(rows: RowsView<'_>, candidates: &[Near]) -> Vec<u32> {
    let limit = rows.shape().degree;
    if candidates.len() <= limit {
        return candidates.iter().map(|near| near.id).collect();
    }
    let mut chosen = Vec::with_capacity(limit);
    let vertices: Vec<Vertex<'_>> = candidates.iter().map(|near| rows.vertex(near.id)).collect();
    // How much farther the vertex is than the nearest chosen neighbour.
    let mut occlusions = vec![0.0_f32; candidates.len()];
    for slack in SLACKS {
        for index in 0..candidates.len() {
            if chosen.len() == limit {
                return chosen;
            }
            if occlusions[index] > slack {
                continue;
            }
            occlusions[index] = f32::INFINITY;
            chosen.push(candidates[index].id);
            let vector = Quantized::of(&vertices[index]);
            for later in index + 1..candidates.len() {
                if occlusions[later] <= SLACKS[SLACKS.len() - 1] {
                    let between = vertices[later].distance(&vector);
                    let occlusion = candidates[later].distance / between.max(f32::MIN_POSITIVE);
                    occlusions[later] = occlusions[later].max(occlusion);
                }
            }
        }
    }
    // What is left out by all of these, the nearest first.
    let is_left = |index: &usize| occlusions[*index] < f32::INFINITY;
    for index in (0..candidates.len()).filter(is_left) {
        if chosen.len() == limit {
            break;
        }
        chosen.push(candidates[index].id);
    }
    chosen
}
