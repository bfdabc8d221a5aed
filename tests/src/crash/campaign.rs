//! How often, from which seed, and what is printed about it.

use std::fmt::{Debug, Display};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::check::Finding;
use crate::random::Random;

/// A number of crashes to survive, and the count of those survived.
pub struct Campaign {
    name: &'static str,
    seed: u64,
    crashes_max: u64,
    crashes_count: u64,
    acknowledged_count: u64,
    started: Instant,
}

impl Campaign {
    /// Starts a campaign of `share_percent` of the crashes that the variable asks for, or of the
    /// default.
    ///
    /// The seed is the clock unless `OPDBUS_TEST_SEED` gives one: every run finds other moments,
    /// and a failure says which seed repeats its operations.
    ///
    /// # Panics
    /// If a variable is not a number.
    #[must_use]
    pub fn start(name: &'static str, variable: &str, default: u64, share_percent: u64) -> Self {
        let crashes = number(variable).unwrap_or(default);
        Self::of(name, (crashes * share_percent).div_ceil(100))
    }

    /// Starts a campaign of so many crashes, its seed chosen as in [`Self::start`].
    ///
    /// # Panics
    /// If `OPDBUS_TEST_SEED` is not a number.
    #[must_use]
    pub fn of(name: &'static str, crashes_max: u64) -> Self {
        let seed = number("OPDBUS_TEST_SEED").unwrap_or_else(clock_seed);
        Self {
            name,
            seed,
            crashes_max,
            crashes_count: 0,
            acknowledged_count: 0,
            started: Instant::now(),
        }
    }

    /// Where all randomness of this campaign comes from.
    #[must_use]
    pub fn random(&self) -> Random {
        Random::new(self.seed)
    }

    /// Whether there are crashes left.
    #[must_use]
    pub fn goes_on(&self) -> bool {
        self.crashes_count < self.crashes_max
    }

    /// Counts a crash that the store survived; `settled` says how many writes had been
    /// acknowledged before it.
    ///
    /// # Panics
    /// If the store did not survive: with what was found, how to repeat it, and where `keep` has
    /// left the store.
    pub fn judge(
        &mut self,
        moment: &dyn Debug,
        settled: Result<usize, Vec<Finding>>,
        keep: impl FnOnce() -> PathBuf,
    ) {
        const SHOWN_COUNT: usize = 20;
        self.crashes_count += 1;
        let findings = match settled {
            Ok(acknowledged_count) => {
                self.acknowledged_count += acknowledged_count as u64;
                return;
            }
            Err(findings) => findings,
        };
        let mut text = String::new();
        for finding in findings.iter().take(SHOWN_COUNT) {
            text.push_str(&format!("\n  {finding}"));
        }
        if findings.len() > SHOWN_COUNT {
            text.push_str(&format!("\n  and {} more", findings.len() - SHOWN_COUNT));
        }
        let Self { name, crashes_count, seed, .. } = self;
        let kept = keep();
        panic!(
            "{name}: crash {crashes_count}, {moment:?}:{text}\nkept: {}\nto repeat: \
             OPDBUS_TEST_SEED={seed}",
            kept.display(),
        );
    }

    /// Prints the line for the ledger in tests/README.md.
    pub fn finish(self, note: &str) {
        let Self { name, seed, crashes_count, acknowledged_count, started, .. } = self;
        println!(
            "ledger: {name}: {crashes_count} crashes, {acknowledged_count} writes acknowledged, \
             0 lost, {:.0} s, seed {seed}{note}",
            started.elapsed().as_secs_f64()
        );
    }
}

/// Says on standard error, past the test runner's capture, that a test did nothing.
pub fn skip(test: &str, reason: &dyn Display) {
    use std::io::Write;
    // A test cannot do more than try to say it.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {reason}");
}

/// A random duration below `end`.
pub fn duration_below(random: &mut Random, end: Duration) -> Duration {
    let end_micros = usize::try_from(end.as_micros()).expect("test durations are short");
    Duration::from_micros(random.below(end_micros.max(1)) as u64)
}

/// A random number below `2^bits_max` whose magnitude, not its value, is evenly distributed.
pub fn magnitude_below(random: &mut Random, bits_max: usize) -> usize {
    let bits = random.below(bits_max + 1);
    random.below(1 << bits)
}

/// The number that an environment variable is set to.
///
/// # Panics
/// If it is set to something else.
#[must_use]
pub fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable}={value} is not a number")))
}

fn clock_seed() -> u64 {
    /// A seed is copied by hand.
    const SEEDS_COUNT: u64 = 1_000_000;
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock stands after 1970");
    u64::from(since.subsec_nanos()) % SEEDS_COUNT
}
