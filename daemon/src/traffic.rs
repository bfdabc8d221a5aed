//! How many calls were answered, and how many refused: counted by the gate, told with the statistics and,
//! by what they are about, with the metrics.

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

/// What calls are about, by their interface: names of classes, of which there are no more.
const CLASSES: [(&str, &str); 8] = [
    ("org.opdbus.Cache1", "cache"),
    ("org.opdbus.Journal1", "journal"),
    ("org.opdbus.Plugin1", "plugin"),
    ("org.opdbus.Plugins1", "plugins"),
    ("org.opdbus.Query1", "query"),
    ("org.opdbus.Snapshot1", "snapshot"),
    ("org.opdbus.State1", "state"),
    ("org.freedesktop.DBus.Properties", "properties"),
];
/// The class of all others.
const OTHER: &str = "other";

/// The class of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Class(usize);

impl Class {
    /// That of calls of this interface.
    pub(crate) fn of(interface: Option<&str>) -> Self {
        let known = CLASSES.iter().position(|(name, _)| Some(*name) == interface);
        Self(known.unwrap_or(CLASSES.len()))
    }

    fn name(self) -> &'static str {
        CLASSES.get(self.0).map_or(OTHER, |(_, class)| class)
    }
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It was let in and has ended, well or not.
    Answered,
    /// Its caller asked for too much, or the service ended.
    Refused,
    /// Its caller may not have what was asked for.
    Denied,
}

impl Ending {
    const ALL: [(Self, &str); 3] =
        [(Self::Answered, "answered"), (Self::Refused, "refused"), (Self::Denied, "denied")];
}

/// Counts calls as they end.
pub(crate) struct Counters {
    /// By class, and by how they ended.
    ended: [[AtomicU64; Ending::ALL.len()]; CLASSES.len() + 1],
    begun: Instant,
}

impl Counters {
    pub(crate) fn new() -> Self {
        Self { ended: Default::default(), begun: Instant::now() }
    }

    /// Counts a call that has ended.
    pub(crate) fn count(&self, class: Class, ending: Ending) {
        self.ended[class.0][ending as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many ended, by the names of their class and of how they did.
    pub(crate) fn by_class(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        let of_class = |(class, ended): (usize, &[AtomicU64; 3])| {
            let count = |ending: Ending| ended[ending as usize].load(Ordering::Relaxed);
            Ending::ALL.map(|(ending, name)| (Class(class).name(), name, count(ending)))
        };
        self.ended.iter().enumerate().flat_map(of_class)
    }

    pub(crate) fn sum(&self) -> Traffic {
        let count = |ending: Ending| {
            self.ended.iter().map(|ended| ended[ending as usize].load(Ordering::Relaxed)).sum()
        };
        let [answered, refused, denied]: [u64; 3] =
            [count(Ending::Answered), count(Ending::Refused), count(Ending::Denied)];
        let seconds = self.begun.elapsed().as_secs_f64();
        Traffic { answered, refused: refused + denied, seconds }
    }
}

/// A call that was let in. It is counted when it ends.
pub(crate) struct Counted {
    counters: Arc<Counters>,
    class: Class,
    is_denied: AtomicBool,
}

impl Counted {
    pub(crate) fn new(counters: &Arc<Counters>, class: Class) -> Self {
        Self { counters: Arc::clone(counters), class, is_denied: AtomicBool::new(false) }
    }

    /// Has it count as denied.
    pub(crate) fn deny(&self) {
        self.is_denied.store(true, Ordering::Relaxed);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let is_denied = self.is_denied.load(Ordering::Relaxed);
        let ending = if is_denied { Ending::Denied } else { Ending::Answered };
        self.counters.count(self.class, ending);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_counted_once_when_it_ends() {
        let counters = Arc::new(Counters::new());
        let (query, other) = (Class::of(Some("org.opdbus.Query1")), Class::of(None));
        let (well, denied) = (Counted::new(&counters, query), Counted::new(&counters, other));
        denied.deny();
        denied.deny();
        assert_eq!((counters.sum().answered, counters.sum().refused), (0, 0));
        drop((well, denied));
        counters.count(query, Ending::Refused);
        assert_eq!((counters.sum().answered, counters.sum().refused), (1, 2));
        let counted: Vec<_> = counters.by_class().filter(|(_, _, count)| *count > 0).collect();
        assert_eq!(
            counted,
            [("query", "answered", 1), ("query", "refused", 1), ("other", "denied", 1)]
        );
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
