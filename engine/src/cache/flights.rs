//! Embeddings that are being computed, so that a text is computed once however many ask for it at the
//! same time.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use op_dbus_formats::embedding::EmbeddingKey;

use crate::error::{Error, ErrorKind, Result};

#[derive(Default)]
pub(super) struct Flights {
    flying: Mutex<HashMap<EmbeddingKey, Arc<Flight>>>,
}

/// One that is being computed.
#[derive(Default)]
pub(super) struct Flight {
    end: Mutex<Option<End>>,
    ended: Condvar,
}

enum End {
    Landed(Vec<f32>),
    Failed {
        kind: ErrorKind,
        context: String,
        remedy: Option<String>,
    },
    /// Whoever computed it came to no end.
    Lost,
}

/// What is to be computed by whoever claimed it, and what others compute meanwhile. What has come to
/// no end when this is dropped is lost.
pub(super) struct Claim<'f> {
    flights: &'f Flights,
    pub(super) mine: HashSet<EmbeddingKey>,
    pub(super) others: Vec<(EmbeddingKey, Arc<Flight>)>,
}

impl Flights {
    /// Claims those of `keys`, which differ, that nobody computes.
    pub(super) fn claim(&self, keys: &[EmbeddingKey]) -> Claim<'_> {
        let (mut mine, mut others) = (HashSet::new(), Vec::new());
        let mut flying = self.flying();
        for key in keys {
            match flying.get(key) {
                Some(flight) => others.push((*key, Arc::clone(flight))),
                None => {
                    flying.insert(*key, Arc::default());
                    mine.insert(*key);
                }
            }
        }
        drop(flying);
        Claim { flights: self, mine, others }
    }

    fn end(&self, key: EmbeddingKey, end: End) {
        let Some(flight) = self.flying().remove(&key) else { return };
        *flight.end.lock().unwrap_or_else(PoisonError::into_inner) = Some(end);
        flight.ended.notify_all();
    }

    fn flying(&self) -> MutexGuard<'_, HashMap<EmbeddingKey, Arc<Flight>>> {
        self.flying.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Flight {
    /// Waits for the embedding; none if it was lost.
    ///
    /// # Errors
    /// Why it could not be computed, without the cause.
    pub(super) fn wait(&self) -> Result<Option<Vec<f32>>> {
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match &*end {
                Some(End::Landed(vector)) => return Ok(Some(vector.clone())),
                Some(End::Lost) => return Ok(None),
                Some(End::Failed { kind, context, remedy }) => {
                    let error = Error::new(*kind, context.clone());
                    return Err(match remedy {
                        Some(remedy) => error.with_remedy(remedy.clone()),
                        None => error,
                    });
                }
                None => end = self.ended.wait(end).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

impl Claim<'_> {
    /// Hands an embedding to those who wait for it.
    pub(super) fn land(&mut self, key: EmbeddingKey, vector: &[f32]) {
        self.flights.end(key, End::Landed(vector.to_vec()));
        self.mine.remove(&key);
    }

    /// Tells those who wait for what is left why it does not come.
    pub(super) fn fail(&mut self, error: &Error) {
        for key in self.mine.drain() {
            let (context, remedy) = (error.to_string(), error.remedy().map(str::to_owned));
            self.flights.end(key, End::Failed { kind: error.kind(), context, remedy });
        }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.mine.drain().for_each(|key| self.flights.end(key, End::Lost));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [EmbeddingKey; 3] = [EmbeddingKey(1), EmbeddingKey(2), EmbeddingKey(3)];

    #[test]
    fn who_comes_second_waits_for_the_first() {
        let of = |keys: &[EmbeddingKey]| keys.iter().copied().collect::<HashSet<_>>();
        let flights = Flights::default();
        let mut first = flights.claim(&KEYS[..2]);
        assert_eq!((&first.mine, first.others.len()), (&of(&KEYS[..2]), 0));
        let second = flights.claim(&KEYS);
        assert_eq!((&second.mine, second.others.len()), (&of(&KEYS[2..]), 2));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| second.others[0].1.wait().unwrap());
            first.land(KEYS[0], &[1.0, 2.0]);
            assert_eq!(waiting.join().unwrap(), Some(vec![1.0, 2.0]));
        });
        first.fail(&Error::new(ErrorKind::Unavailable, "no model").with_remedy("get one"));
        let error = second.others[1].1.wait().unwrap_err();
        assert_eq!(
            (error.kind(), &error.to_string()[..], error.remedy()),
            (ErrorKind::Unavailable, "no model", Some("get one"))
        );
        // What has landed can be claimed again, and so can what was lost.
        let third = flights.claim(&KEYS);
        assert_eq!(third.mine, of(&KEYS[..2]));
        drop(second);
        assert_eq!(third.others[0].1.wait().unwrap(), None);
        assert_eq!(flights.claim(&KEYS[2..]).mine, of(&KEYS[2..]));
    }
}
