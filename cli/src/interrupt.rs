//! Signals: Ctrl-C ends long work after the batch at hand, a second one at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;

use crate::exit::Exit;

static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// At a file size limit lets the write fail, not the process die.
pub(crate) fn survive_file_size_limit() {
    // Without the handler the process dies there as any other does.
    let _ = flag::register(SIGXFSZ, Arc::default());
}

/// From now on, lets work that asks [`is_requested`] end by itself.
///
/// Work that does not ask must not call this: a signal would be lost on it.
pub(crate) fn catch() {
    let interrupted = INTERRUPTED.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first signal finds the flag unset and only sets it. A handler that
        // cannot be installed leaves the signal as deadly as it was, which loses nothing either.
        let exit_code = Exit::Interrupted.code().into();
        let _ = flag::register_conditional_shutdown(signal, exit_code, Arc::clone(interrupted))
            .and_then(|_| flag::register(signal, Arc::clone(interrupted)));
    }
}

/// From now on, [`is_requested`] is all that a signal does. Only for what asks several times a second,
/// and leaves the terminal as it was.
pub(crate) fn note() {
    let interrupted = INTERRUPTED.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM] {
        let _ = flag::register(signal, Arc::clone(interrupted));
    }
}

/// Whether the user wants long work to end.
pub(crate) fn is_requested() -> bool {
    INTERRUPTED.get().is_some_and(|interrupted| interrupted.load(Ordering::Relaxed))
}
