//! Which effort finds how much: measured on the graph itself when it is made, and kept with it.
//!
//! Vectors that are about to be linked are the questions: whoever asks for what is in the graph asks
//! for the like.

use std::num::NonZero;

use op_dbus_formats::graph_file::{CALIBRATED_EFFORTS, CALIBRATED_LIMITS};

use super::GraphIndex;
use super::filter::GraphFilter;
use super::traverse::{Effort, Near, Scratch};
use crate::os::threads::in_parts;

/// Questions that are asked.
const QUESTIONS_COUNT: usize = 300;
/// One vector of so many is a question, where there are few.
const QUESTION_PARTS: usize = 5;
/// Above this recall the rest is taken for as good.
const RECALL_MAX: f64 = 0.9985;
/// A recall of one.
const WHOLE: f64 = u16::MAX as f64;

impl GraphIndex {
    /// The effort that finds this part of the nearest, of which `limit` are asked for: as far as is
    /// known from what was measured when the graph was made.
    #[must_use]
    pub fn effort_for(&self, recall: f64, limit: usize) -> usize {
        let efforts = self.calibration.map(|measured| effort_of(&measured, recall));
        let [few, many] = CALIBRATED_LIMITS.map(f64::from);
        // Beyond the few it grows about evenly.
        let part = ((limit as f64 - few) / (many - few)).max(0.0);
        let more = (efforts[1] - efforts[0]).max(0.0);
        (efforts[0] + part * more).ceil().max(1.0) as usize
    }

    /// How many of so many vectors are to be questions before they are linked.
    pub(super) fn questions_count(count: usize) -> usize {
        QUESTIONS_COUNT.min(count / QUESTION_PARTS)
    }

    /// Measures how much each effort finds, of vectors that wait to be linked.
    pub(super) fn calibrate(&mut self, questions: &[u32], threads: NonZero<usize>) {
        let [few, many] = CALIBRATED_LIMITS.map(usize::from);
        let truths = in_parts(questions, threads, |question, scratch: &mut Scratch| {
            self.prepare_vertex(*question, scratch);
            scratch.scan(self.rows.view(), many, &GraphFilter::All);
            nearest(scratch, many)
        });
        self.calibration = [few, many].map(|limit| {
            let mut recall = 0.0;
            CALIBRATED_EFFORTS.map(|effort| {
                if recall < RECALL_MAX {
                    recall = self.recall(questions, &truths, (effort.into(), limit), threads);
                }
                (recall * WHOLE) as u16
            })
        });
    }

    /// The part of the first `limit` of what should be found that is.
    fn recall(
        &self,
        questions: &[u32],
        truths: &[Vec<Near>],
        (width, limit): (usize, usize),
        threads: NonZero<usize>,
    ) -> f64 {
        let kept = self.kept_count(width, limit);
        let effort = Effort { width, kept, expanded_max: usize::MAX };
        let found = in_parts(questions, threads, |question, scratch: &mut Scratch| {
            self.prepare_vertex(*question, scratch);
            let findable = self.findable(GraphFilter::All);
            scratch.search(self.rows.view(), &self.hub, effort, &findable);
            self.add_twins(&mut scratch.found, limit, GraphFilter::All);
            nearest(scratch, limit)
        });
        let (mut hits_count, mut all_count) = (0, 0);
        for (found, truth) in found.iter().zip(truths) {
            let truth = &truth[..truth.len().min(limit)];
            // Of those that are as far as each other, any will do.
            let farthest = truth.last().map_or(0.0, |near| near.distance);
            hits_count += found.iter().filter(|near| near.distance <= farthest).count();
            all_count += truth.len();
        }
        hits_count as f64 / all_count.max(1) as f64
    }
}

/// The effort that finds this part, between those that were measured.
fn effort_of(measured: &[u16; CALIBRATED_EFFORTS.len()], recall: f64) -> f64 {
    let mut before = (0.0, 0.0);
    for (effort, known) in CALIBRATED_EFFORTS.iter().zip(measured) {
        let (effort, known) = (f64::from(*effort), f64::from(*known) / WHOLE);
        if known >= recall {
            let (effort_before, recall_before) = before;
            let part = (recall - recall_before) / (known - recall_before).max(f64::EPSILON);
            return effort_before + (effort - effort_before) * part;
        }
        before = (effort, known);
    }
    f64::from(CALIBRATED_EFFORTS[CALIBRATED_EFFORTS.len() - 1])
}

/// What was found that is nearest by its bytes.
fn nearest(scratch: &mut Scratch, limit: usize) -> Vec<Near> {
    scratch.found.sort_unstable_by(Near::order);
    scratch.found.iter().take(limit).copied().collect()
}
