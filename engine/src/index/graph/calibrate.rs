//! Which effort finds how much: measured on the graph itself when it is made, and kept with it.

use std::num::NonZero;

use op_dbus_formats::graph_file::CALIBRATED_EFFORTS;

use super::GraphIndex;
use super::build::in_parts;
use super::filter::GraphFilter;
use super::rows::LIVE;
use super::search::COMPARED_COUNT;
use super::sequence::Sequence;
use super::traverse::{Effort, Near, Scratch};

/// Questions that are asked.
const QUESTIONS_COUNT: usize = 200;
/// Neighbours that each asks for.
const LIMIT: usize = 10;
/// Above this recall the rest is taken for as good.
const RECALL_MAX: f64 = 0.9985;
/// A recall of one.
const WHOLE: f64 = u16::MAX as f64;
/// How far a question is from a vector, on the way to another.
const AWAY_PART: f32 = 0.25;

impl GraphIndex {
    /// The effort that finds this part of the nearest, as far as is known: what was measured when the
    /// graph was made, with questions that lie between its vectors.
    #[must_use]
    pub fn effort_for(&self, recall: f64) -> usize {
        let known = self.calibration.iter().map(|part| f64::from(*part) / WHOLE);
        let mut before = (0.0, 0.0);
        for (effort, known) in CALIBRATED_EFFORTS.iter().zip(known) {
            let effort = f64::from(*effort);
            if known >= recall {
                let (effort_before, recall_before) = before;
                let part = (recall - recall_before) / (known - recall_before).max(f64::EPSILON);
                return (effort_before + (effort - effort_before) * part).ceil().max(1.0) as usize;
            }
            before = (effort, known);
        }
        usize::from(CALIBRATED_EFFORTS[CALIBRATED_EFFORTS.len() - 1])
    }

    /// Measures how much each effort finds.
    pub(super) fn calibrate(&mut self, threads: NonZero<usize>) {
        let questions = self.questions();
        let truths = in_parts(&questions, threads, |question, scratch| {
            self.ask(question, scratch);
            scratch.scan(&self.rows, LIMIT, &GraphFilter::All);
            nearest(scratch)
        });
        let mut recall = 0.0;
        let measured = CALIBRATED_EFFORTS.map(|effort| {
            if recall < RECALL_MAX {
                recall = self.recall(&questions, &truths, effort.into(), threads);
            }
            (recall * WHOLE) as u16
        });
        self.calibration = measured;
    }

    fn recall(
        &self,
        questions: &[Vec<f32>],
        truths: &[Vec<u32>],
        width: usize,
        threads: NonZero<usize>,
    ) -> f64 {
        let effort =
            Effort { width, kept: width.max(LIMIT) + COMPARED_COUNT, expanded_max: usize::MAX };
        let found = in_parts(questions, threads, |question, scratch| {
            self.ask(question, scratch);
            scratch.search(&self.rows, &self.hub, effort, &self.findable(GraphFilter::All));
            nearest(scratch)
        });
        let hits = |(found, truth): (&Vec<u32>, &Vec<u32>)| {
            truth.iter().filter(|id| found.contains(id)).count()
        };
        let hits_count: usize = found.iter().zip(truths).map(hits).sum();
        hits_count as f64 / truths.iter().map(Vec::len).sum::<usize>().max(1) as f64
    }

    /// Places between vectors, rotated.
    fn questions(&self) -> Vec<Vec<f32>> {
        let mut random = Sequence::new(self.options.seed);
        let mut draw = || loop {
            let id = (random.next() % self.rows.len() as u64) as u32;
            if self.rows.header(id).state == LIVE {
                break self.rows.vertex(id);
            }
        };
        let has_any = self.live_count > self.apart.len();
        let count = if has_any { QUESTIONS_COUNT } else { 0 };
        let question = |_| {
            let (near, far) = (draw(), draw());
            let number = |(x, y): (&i8, &i8)| {
                let x = near.header.scale * f32::from(*x);
                x + (far.header.scale * f32::from(*y) - x) * AWAY_PART
            };
            near.bytes.iter().zip(far.bytes).map(number).collect()
        };
        (0..count).map(question).collect()
    }

    fn ask(&self, question: &[f32], scratch: &mut Scratch) {
        scratch.query.rotated.clear();
        scratch.query.rotated.extend_from_slice(question);
        scratch.query.prepare_rotated();
    }
}

/// What was found that is nearest by its bytes.
fn nearest(scratch: &mut Scratch) -> Vec<u32> {
    scratch.found.sort_unstable_by(Near::order);
    scratch.found.iter().take(LIMIT).map(|near| near.id).collect()
}
