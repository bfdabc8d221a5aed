//! How many calls were answered, and how many refused: counted by the gate, told with the statistics.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Calls since the service began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Traffic {
    /// Calls that were let in and have ended, well or not.
    pub answered: u64,
    /// Calls that were not let in, or asked for what their caller may not have.
    pub refused: u64,
    /// How long ago the service began.
    pub seconds: f64,
}

impl Traffic {
    /// The name that it has beside the figures of the store.
    const NAME: &str = "bus";

    /// What is told: the figures of the store, and these.
    pub(crate) fn beside(self, figures: &impl Serialize) -> String {
        let mut told = serde_json::json!(figures);
        if let Value::Object(told) = &mut told {
            told.insert(Self::NAME.to_owned(), serde_json::json!(self));
        }
        told.to_string()
    }

    /// Reads what was told.
    ///
    /// # Errors
    /// If it is no JSON, or misses something.
    pub fn parse<T: DeserializeOwned>(told: &str) -> serde_json::Result<(T, Self)> {
        #[derive(Deserialize)]
        struct Beside {
            bus: Traffic,
        }
        let Beside { bus } = serde_json::from_str(told)?;
        Ok((serde_json::from_str(told)?, bus))
    }
}

/// Counts calls as they end.
pub(crate) struct Counters {
    answered: AtomicU64,
    refused: AtomicU64,
    begun: Instant,
}

impl Counters {
    pub(crate) fn new() -> Self {
        Self { answered: AtomicU64::new(0), refused: AtomicU64::new(0), begun: Instant::now() }
    }

    /// Counts a call that was not let in.
    pub(crate) fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn sum(&self) -> Traffic {
        Traffic {
            answered: self.answered.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            seconds: self.begun.elapsed().as_secs_f64(),
        }
    }
}

/// A call that was let in. It is counted when it ends.
pub(crate) struct Counted {
    counters: Arc<Counters>,
    is_refused: AtomicBool,
}

impl Counted {
    pub(crate) fn new(counters: &Arc<Counters>) -> Self {
        Self { counters: Arc::clone(counters), is_refused: AtomicBool::new(false) }
    }

    /// Has it count as refused.
    pub(crate) fn refuse(&self) {
        self.is_refused.store(true, Ordering::Relaxed);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let counters = &self.counters;
        let is_refused = self.is_refused.load(Ordering::Relaxed);
        let counter = if is_refused { &counters.refused } else { &counters.answered };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_counted_once_when_it_ends() {
        let counters = Arc::new(Counters::new());
        let (well, refused) = (Counted::new(&counters), Counted::new(&counters));
        refused.refuse();
        refused.refuse();
        assert_eq!((counters.sum().answered, counters.sum().refused), (0, 0));
        drop((well, refused));
        counters.refuse();
        assert_eq!((counters.sum().answered, counters.sum().refused), (1, 2));
    }

    #[test]
    fn what_is_told_comes_back() {
        let traffic = Traffic { answered: 3, refused: 1, seconds: 0.125 };
        let figures = std::collections::BTreeMap::from([("records".to_owned(), 7)]);
        let told = traffic.beside(&figures);
        let expected = r#"{"records":7,"bus":{"answered":3,"refused":1,"seconds":0.125}}"#;
        assert_eq!(told, expected);
        #[derive(Debug, Deserialize, PartialEq)]
        struct Figures {
            records: u32,
        }
        assert_eq!(Traffic::parse(&told).unwrap(), (Figures { records: 7 }, traffic));
        assert!(Traffic::parse::<Figures>("{\"records\":7}").is_err());
    }
}
