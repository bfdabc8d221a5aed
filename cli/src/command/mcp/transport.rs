//! Standard input and output as the library reads and writes them, and a client that begins otherwise
//! than the protocol says.

use std::borrow::Cow;
use std::io;

use rmcp::RoleServer;
use rmcp::model::JsonRpcMessage;
use rmcp::service::{RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::Transport;
use rmcp::transport::async_rw::AsyncRwTransport;
use rmcp::transport::io::{StdioReader, StdioWriter, stdio_pipes};

/// Bytes of one message.
const MESSAGE_LEN_MAX_BYTES: usize = 4 << 20;

/// Passes over whatever comes before the first request: the library would end there.
pub(super) struct Patient {
    inner: AsyncRwTransport<RoleServer, StdioReader, StdioWriter>,
    has_begun: bool,
}

impl Patient {
    pub(super) fn on_standard_streams() -> Self {
        let (reader, writer) = stdio_pipes();
        let inner = AsyncRwTransport::new(reader, writer);
        Self { inner: inner.with_max_line_length(MESSAGE_LEN_MAX_BYTES), has_begun: false }
    }
}

impl Transport<RoleServer> for Patient {
    type Error = io::Error;

    fn name() -> Cow<'static, str> {
        "standard input and output".into()
    }

    fn send(
        &mut self,
        message: TxJsonRpcMessage<RoleServer>,
    ) -> impl Future<Output = io::Result<()>> + Send + 'static {
        self.inner.send(message)
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        loop {
            let message = self.inner.receive().await?;
            self.has_begun |= matches!(message, JsonRpcMessage::Request(_));
            if self.has_begun {
                return Some(message);
            }
            tracing::warn!("a message before the first request is passed over");
        }
    }

    async fn close(&mut self) -> io::Result<()> {
        self.inner.close().await
    }
}
