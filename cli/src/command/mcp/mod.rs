//! `op-dbus mcp`: a server of the Model Context Protocol, for language models.
//!
//! The protocol is the library's. Its messages have standard output for themselves; the log goes to
//! standard error. Whatever is changed anywhere is changed through the service, which decides about it
//! as about a call of the command line.

mod call;
mod source;
mod tools;
mod transport;

use std::sync::Arc;
use std::time::Duration;

use op_dbus_engine::{Error as EngineError, ErrorKind};
use rmcp::ServiceExt;
use rmcp::service::{QuitReason, ServerInitializeError};
use tokio::signal::unix::{SignalKind, signal};

use crate::args;
use crate::config::Config;
use crate::error::Result;
use crate::exit::Exit;
use source::Sources;
use tools::Tools;
use transport::Patient;

/// How long what is at work may take when the server ends.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn run(config: &Config, arguments: args::Mcp) -> Result<Exit> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| EngineError::new(ErrorKind::Io, "no runtime").with_source(error))?;
    let sources = Arc::new(Sources::new(config.clone()));
    let served = runtime.block_on(serve(Arc::clone(&sources), arguments));
    runtime.block_on(sources.close());
    // A thread that reads a terminal reads on until there is a line.
    runtime.shutdown_timeout(PATIENCE.min(Duration::from_millis(100)));
    served?;
    Ok(Exit::Success)
}

async fn serve(sources: Arc<Sources>, arguments: args::Mcp) -> Result<(), EngineError> {
    let no_signals =
        |error| EngineError::new(ErrorKind::Io, "cannot listen to signals").with_source(error);
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
    let releasing = tokio::spawn(source::release_when_idle(Arc::clone(&sources)));
    let tools = Tools::new(sources, arguments.plugins.plugins);
    let serving = async {
        let running = match tools.serve(Patient::on_standard_streams()).await {
            // Whoever goes before saying anything wants nothing.
            Err(ServerInitializeError::ConnectionClosed(_)) => return Ok(()),
            Err(error) => {
                let problem = "the client does not begin as the protocol says";
                return Err(EngineError::new(ErrorKind::Invalid, problem)
                    .with_source(error)
                    .with_remedy("use a client of the Model Context Protocol"));
            }
            Ok(running) => running,
        };
        match running.waiting().await {
            Ok(QuitReason::JoinError(error)) | Err(error) => {
                let problem = "the server failed";
                Err(EngineError::new(ErrorKind::Io, problem).with_source(error))
            }
            Ok(_) => Ok(()),
        }
    };
    let served = tokio::select! {
        served = serving => served,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    releasing.abort();
    served
}
