//! How fast a scrub may read.

use std::num::NonZeroU64;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// Whoever waits wants to hear something after so long.
const NAP_MAX: Duration = Duration::from_millis(100);

/// Lets work go on no faster than so many bytes a second, on the whole.
pub(super) struct Pace {
    rate_bytes_per_second: Option<NonZeroU64>,
    started: Instant,
    bytes: u64,
}

impl Pace {
    pub(super) fn start(rate_bytes_per_second: Option<NonZeroU64>) -> Self {
        Self { rate_bytes_per_second, started: Instant::now(), bytes: 0 }
    }

    /// Counts bytes and waits until they are due, asking `go_on` before and while it waits.
    pub(super) fn advance(
        &mut self,
        bytes: u64,
        go_on: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        self.bytes += bytes;
        loop {
            go_on()?;
            let Some(rate) = self.rate_bytes_per_second else { return ControlFlow::Continue(()) };
            let seconds = self.bytes as f64 / rate.get() as f64;
            let due = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
            let early = due.saturating_sub(self.started.elapsed());
            if early.is_zero() {
                return ControlFlow::Continue(());
            }
            std::thread::sleep(early.min(NAP_MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_kept_and_can_be_broken_off() {
        let mut pace = Pace::start(NonZeroU64::new(1 << 20));
        let started = Instant::now();
        for _ in 0..10 {
            assert!(pace.advance(30 << 10, &mut || ControlFlow::Continue(())).is_continue());
        }
        // 300 of 1024 KiB a second.
        assert!(started.elapsed() >= Duration::from_millis(290), "{:?}", started.elapsed());

        let mut asked = 0;
        let mut once = || {
            asked += 1;
            if asked > 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        assert!(pace.advance(u64::from(u32::MAX), &mut once).is_break());
        assert_eq!(asked, 3);
    }
}
