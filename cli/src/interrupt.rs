//! Signals: Ctrl-C ends long work after the batch at hand, a second one at once.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;

use crate::error::{Error, Result};
use crate::exit::Exit;

static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Installs the handlers.
pub(crate) fn install() -> Result<()> {
    let interrupted = INTERRUPTED.get_or_init(Arc::default);
    let install = || -> std::io::Result<()> {
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal finds the flag unset and only sets it.
            let exit_code = Exit::Interrupted.code().into();
            flag::register_conditional_shutdown(signal, exit_code, Arc::clone(interrupted))?;
            flag::register(signal, Arc::clone(interrupted))?;
        }
        // At a file size limit the write must fail, not the process die.
        flag::register(SIGXFSZ, Arc::default())?;
        Ok(())
    };
    install().map_err(|error| Error::usage(format!("cannot handle signals: {error}")))
}

/// Whether the user wants long work to end.
pub(crate) fn is_requested() -> bool {
    INTERRUPTED.get().is_some_and(|interrupted| interrupted.load(Ordering::Relaxed))
}
