//! A bar with rate and time left on a terminal; nothing in a pipe.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

/// Progress of long work, shown on standard error.
pub(crate) struct Progress {
    bar: ProgressBar,
    /// Bytes of what was done, where steps have some.
    bytes: Arc<AtomicU64>,
}

impl Progress {
    /// Starts a bar for `total` steps, or one without an end if that is unknown.
    pub(crate) fn start(total: Option<u64>) -> Self {
        Self::with_template(
            total,
            match total {
                Some(_) => "{msg} {wide_bar} {human_pos}/{human_len} {rate} {eta} left",
                None => "{msg} {spinner} {human_pos} {rate}",
            },
        )
    }

    /// The same for steps that have content, whose bytes a second are shown too.
    pub(crate) fn start_content(total: Option<u64>) -> Self {
        Self::with_template(
            total,
            match total {
                Some(_) => "{msg} {wide_bar} {human_pos}/{human_len} {rate} {volume} {eta} left",
                None => "{msg} {spinner} {human_pos} {rate} {volume}",
            },
        )
    }

    /// Starts a count of bytes without an end.
    pub(crate) fn start_bytes() -> Self {
        Self::with_template(None, "{msg} {spinner} {binary_bytes} {binary_bytes_per_sec}")
    }

    fn with_template(total: Option<u64>, template: &str) -> Self {
        // indicatif draws only where standard error is a terminal.
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
        let bytes = Arc::<AtomicU64>::default();
        let done = Arc::clone(&bytes);
        // A bar that cannot be written is not worth a failure.
        let volume = move |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            let seconds = state.elapsed().as_secs_f64().max(1e-3);
            let _ = write!(out, "{:.0} MB/s", done.load(Relaxed) as f64 / seconds / 1e6);
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.with_key("rate", rate).with_key("volume", volume));
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bar, bytes }
    }

    pub(crate) fn say(&self, doing: impl Into<String>) {
        self.bar.set_message(doing.into());
    }

    pub(crate) fn advance(&self, steps: u64) {
        self.bar.inc(steps);
    }

    pub(crate) fn advance_content(&self, steps: u64, bytes: u64) {
        self.bytes.fetch_add(bytes, Relaxed);
        self.advance(steps);
    }
}

/// Steps a second, without the decimals that indicatif's own figure has.
fn rate(state: &ProgressState, out: &mut dyn std::fmt::Write) {
    // A bar that cannot be written is not worth a failure.
    let _ = write!(out, "{:.0}/s", state.per_sec());
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
