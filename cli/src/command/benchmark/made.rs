//! Vectors that are made to be searched, the same each time.
//!
//! Embeddings differ in some directions much more than in others. So do these: in a few directions,
//! in each less than in the one before, and a little in all.

use std::num::NonZero;

use op_dbus_benches::traffic::{DIMENSIONS, Numbers, key};
use op_dbus_engine::{
    CollectionOptions, Encoding, ErrorKind, LinkOptions, Metric, Profile, Record, Store,
};

use super::Work;
use super::collection::Question;
use crate::error::Result;
use crate::interrupt;

pub(super) const COLLECTION: &str = "made";
/// Vectors unless the user says otherwise.
pub(super) const VECTORS_COUNT: u32 = 50_000;

const DIRECTIONS_COUNT: usize = 32;
/// Of what is the same length in each direction.
const NOISE: f32 = 0.1;
const SEED: u64 = 1;
const QUESTIONS_SEED: u64 = 2;
const BATCH_COUNT: u32 = 1000;

/// Makes vectors.
struct Maker {
    directions: Vec<f32>,
    numbers: Numbers,
}

impl Maker {
    /// The directions are those of all seeds.
    fn new(seed: u64) -> Self {
        let mut numbers = Numbers::new(SEED);
        let directions = (0..DIRECTIONS_COUNT * DIMENSIONS).map(|_| fraction(&mut numbers));
        Self { directions: directions.collect(), numbers: Numbers::new(seed << 32) }
    }

    fn next(&mut self) -> Vec<f32> {
        let mut vector: Vec<f32> =
            (0..DIMENSIONS).map(|_| NOISE * fraction(&mut self.numbers)).collect();
        for (place, direction) in self.directions.chunks_exact(DIMENSIONS).enumerate() {
            let amount = fraction(&mut self.numbers) / ((place + 1) as f32).sqrt();
            vector.iter_mut().zip(direction).for_each(|(x, d)| *x += amount * d);
        }
        vector
    }
}

/// From -1 to 1.
fn fraction(numbers: &mut Numbers) -> f32 {
    (2.0 * numbers.unit() - 1.0) as f32
}

/// Puts vectors into the collection, and links them; whether it was done before the user ended it.
pub(super) fn fill(work: &Work, store: &Store, count: u32) -> Result<bool> {
    let options = CollectionOptions::Given {
        dimensions: DIMENSIONS as u32,
        metric: Metric::Cosine,
        encoding: Encoding::F32,
    };
    store.create_collection(COLLECTION, options)?;
    let mut maker = Maker::new(SEED);
    for start in (0..count).step_by(BATCH_COUNT as usize) {
        if interrupt::is_requested() {
            return Ok(false);
        }
        work.say(&format!("searches: putting vectors, {start} of {count}"));
        let end = count.min(start + BATCH_COUNT);
        let record = |index| Record::new(key(index)).with_vector(maker.next());
        let records: Vec<Record> = (start..end).map(record).collect();
        store.put_batch(COLLECTION, &records)?;
    }
    let threads = std::thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN);
    let options = LinkOptions { profile: Profile::Speed, threads };
    let linked = store.link(COLLECTION, options, &mut |linked, of| {
        work.step(&format!("searches: linking vectors, {linked} of {of}")).map_err(|error| {
            op_dbus_engine::Error::new(ErrorKind::Busy, "ended by a signal").with_source(error)
        })
    });
    match linked {
        Err(_) if interrupt::is_requested() => Ok(false),
        linked => Ok(linked.map(|_| true)?),
    }
}

/// Vectors like those of the collection, and none of them.
pub(super) fn questions(count: u32) -> Vec<Question> {
    let mut maker = Maker::new(QUESTIONS_SEED);
    (0..count).map(|_| Question { key: None, vector: maker.next() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_the_same_each_time_and_differ() {
        let (mut one, mut again) = (Maker::new(SEED), Maker::new(SEED));
        let first = one.next();
        assert_eq!(first, again.next());
        assert_ne!(first, one.next());
        assert_ne!(first, questions(1)[0].vector);
        assert!(first.iter().all(|x| x.is_finite()) && first.len() == DIMENSIONS);
    }
}
