//! Measures on a thread of its own, so that keys and signals are heard while a measurement takes long.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use op_dbus_engine::{Error as EngineError, ErrorKind};

use crate::error::Result;
use crate::interrupt;
use crate::source::Source;

/// How long a signal is not heard at most.
pub(crate) const POLL: Duration = Duration::from_millis(50);

/// What measures, and what it has measured.
pub(crate) struct Feed<T> {
    asks: Option<Sender<()>>,
    measured: Receiver<Result<T>>,
    thread: Option<JoinHandle<()>>,
    /// Whether the store is closed at the end, which has to be waited for.
    has_store: bool,
}

impl<T: Send + 'static> Feed<T> {
    /// Measures by `measure` whenever it is asked to.
    pub(crate) fn start(
        source: Source,
        mut measure: impl FnMut(&Source) -> Result<T> + Send + 'static,
    ) -> Result<Self> {
        let has_store = matches!(source, Source::Store(_));
        let ((asks, asked), (tells, measured)) = (channel(), channel());
        let work = move || {
            while let Ok(()) = asked.recv() {
                if tells.send(measure(&source)).is_err() {
                    break;
                }
            }
            source.close();
        };
        let thread = std::thread::Builder::new().name("op-dbus-feed".to_owned()).spawn(work);
        let thread = thread.map_err(|error| {
            EngineError::new(ErrorKind::Full, "cannot start a thread").with_source(error)
        })?;
        Ok(Self { asks: Some(asks), measured, thread: Some(thread), has_store })
    }

    /// Asks for a measurement, which comes later.
    pub(crate) fn ask(&self) {
        if let Some(asks) = &self.asks {
            // A thread that has gone is noticed when it is waited for.
            let _ = asks.send(());
        }
    }

    /// Waits so long for a measurement; none if it does not come.
    pub(crate) fn wait(&self, time: Duration) -> Result<Option<T>> {
        match self.measured.recv_timeout(time) {
            Ok(measured) => measured.map(Some),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => {
                Err(EngineError::new(ErrorKind::Io, "the measurement failed").into())
            }
        }
    }

    /// Asks for a measurement and waits for it; none if the user wants to end.
    pub(crate) fn next(&self) -> Result<Option<T>> {
        self.ask();
        loop {
            if interrupt::is_requested() {
                return Ok(None);
            }
            if let Some(measured) = self.wait(POLL)? {
                return Ok(Some(measured));
            }
        }
    }
}

impl<T> Drop for Feed<T> {
    fn drop(&mut self) {
        self.asks = None;
        // A service that does not answer is not waited for.
        if self.has_store
            && let Some(thread) = self.thread.take()
        {
            // What panicked there has said so itself.
            let _ = thread.join();
        }
    }
}
