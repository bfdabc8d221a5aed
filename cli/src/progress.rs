//! A bar with rate and time left on a terminal; nothing in a pipe.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

/// Progress of long work, shown on standard error.
pub(crate) struct Progress(ProgressBar);

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

    /// Starts a count of bytes without an end.
    pub(crate) fn start_bytes() -> Self {
        Self::with_template(None, "{msg} {spinner} {binary_bytes} {binary_bytes_per_sec}")
    }

    fn with_template(total: Option<u64>, template: &str) -> Self {
        // indicatif draws only where standard error is a terminal.
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.with_key("rate", rate));
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    pub(crate) fn say(&self, doing: impl Into<String>) {
        self.0.set_message(doing.into());
    }

    pub(crate) fn advance(&self, steps: u64) {
        self.0.inc(steps);
    }
}

/// Steps a second, without the decimals that indicatif's own figure has.
fn rate(state: &ProgressState, out: &mut dyn std::fmt::Write) {
    // A bar that cannot be written is not worth a failure.
    let _ = write!(out, "{:.0}/s", state.per_sec());
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
