//! Which effort finds how much: measured on the graph itself when it is made, and kept with it.
//!
//! Vectors that are about to be linked are the questions: whoever asks for what is in the graph asks
//! for the like. When a graph has grown, it is measured again.

use std::num::NonZero;

use op_dbus_formats::graph_file::{CALIBRATED_EFFORTS, CALIBRATED_LIMITS, Calibration};

use super::GraphIndex;
use super::filter::GraphFilter;
use super::rows::{LIVE, WAITING};
use super::traverse::{Effort, Near, Scratch};
use crate::os::threads::in_parts;

/// Questions that are asked.
const QUESTIONS_COUNT: usize = 300;
/// One vector of so many is a question, where there are few.
const QUESTION_PARTS: usize = 5;
/// It is measured again when there are so many times the vectors.
const GROWN_TIMES: usize = 2;
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

    /// Whether there are so many more vectors than when it was measured that it tells nothing.
    pub(crate) fn needs_calibration(&self) -> bool {
        self.findable_count() >= GROWN_TIMES * self.calibrated_of_count.max(1)
    }

    /// Some vertices to measure with.
    pub(crate) fn questions(&self) -> Vec<u32> {
        let count = self.rows.len();
        let step = (count / Self::questions_count(count).max(1)).max(1);
        (0..count as u32).step_by(step).collect()
    }

    pub(crate) fn set_calibration(&mut self, measured: &Measured) {
        self.calibration = measured.calibration();
        self.calibrated_of_count = self.findable_count();
    }

    /// Measures again what searches find, if it is worth it.
    pub(crate) fn calibrate_if_needed(&mut self, threads: NonZero<usize>) {
        if self.needs_calibration() {
            self.calibrate(&self.questions(), threads);
        }
    }

    /// Measures how much each effort finds of these vertices, which may wait to be linked.
    pub(super) fn calibrate(&mut self, questions: &[u32], threads: NonZero<usize>) {
        let mut all = Measured::default();
        for measured in in_parts(questions, threads, |id, scratch| self.measure(*id, scratch)) {
            all.add(&measured);
        }
        self.set_calibration(&all);
    }

    /// Asks for what is near a vertex, in searches that do not see it. Nothing is measured of what is
    /// none, or of one of many equal ones.
    pub(crate) fn measure(&self, question: u32, scratch: &mut Scratch) -> Measured {
        let (rows, mut measured) = (self.rows.view(), Measured::default());
        let is_vertex =
            rows.is_ready(question) && matches!(rows.header(question).state, LIVE | WAITING);
        if !is_vertex || !self.twins.of(question).is_empty() {
            return measured;
        }
        let [.., many] = CALIBRATED_LIMITS.map(usize::from);
        self.prepare_vertex(question, scratch);
        scratch.scan(rows, many + 1, &GraphFilter::All, NonZero::<usize>::MIN);
        scratch.found.retain(|near| near.id != question);
        scratch.found.sort_unstable_by(Near::order);
        let truth: Vec<f32> = scratch.found.iter().take(many).map(|near| near.distance).collect();
        for (place, limit) in CALIBRATED_LIMITS.into_iter().map(usize::from).enumerate() {
            let truth = &truth[..truth.len().min(limit)];
            // Of those that are as far as each other, any will do.
            let farthest = truth.last().copied().unwrap_or_default();
            let mut hits_count = 0;
            for (hits, effort) in measured.hits_counts[place].iter_mut().zip(CALIBRATED_EFFORTS) {
                // Who has found all with less finds them with more.
                if hits_count < truth.len() {
                    self.find_near(question, (effort.into(), limit), scratch);
                    let found = scratch.found.iter().filter(|near| near.distance <= farthest);
                    hits_count = found.count().min(truth.len());
                }
                *hits = hits_count as u64;
            }
            measured.wanted_counts[place] = truth.len() as u64;
        }
        measured
    }

    fn find_near(&self, question: u32, (width, limit): (usize, usize), scratch: &mut Scratch) {
        let kept = self.kept_count(width, limit);
        let effort = Effort { width, kept, expanded_max: usize::MAX };
        let effort = self.effort_among_removed(effort);
        let findable = self.findable(GraphFilter::All);
        scratch.search_without(Some(question), self.rows.view(), &self.hub, effort, &findable);
        self.add_twins(&mut scratch.found, limit, GraphFilter::All);
    }
}

/// How much was found of what should be, for each limit and effort.
#[derive(Default)]
pub(crate) struct Measured {
    hits_counts: [[u64; CALIBRATED_EFFORTS.len()]; CALIBRATED_LIMITS.len()],
    wanted_counts: [u64; CALIBRATED_LIMITS.len()],
}

impl Measured {
    pub(crate) fn add(&mut self, other: &Self) {
        let hits = self.hits_counts.as_flattened_mut().iter_mut();
        hits.zip(other.hits_counts.as_flattened()).for_each(|(sum, count)| *sum += count);
        let wanted = self.wanted_counts.iter_mut();
        wanted.zip(other.wanted_counts).for_each(|(sum, count)| *sum += count);
    }

    fn calibration(&self) -> Calibration {
        let mut calibration = Calibration::default();
        for (place, recalls) in calibration.iter_mut().enumerate() {
            let wanted = self.wanted_counts[place].max(1) as f64;
            let recall = |hits: u64| (hits as f64 / wanted * WHOLE) as u16;
            *recalls = self.hits_counts[place].map(recall);
        }
        calibration
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
