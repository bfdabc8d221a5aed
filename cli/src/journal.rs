//! The log as records of systemd's journal.
//!
//! A record has the fields of what is logged, each under its name in capitals, so that
//! `journalctl JOURNAL_HEAD=…` finds it; and a line of text with all of them, because that is what
//! `systemctl status` shows. (The crate tracing-journald leaves the fields out of that line: of "texts
//! cannot be searched for" the reason would be missing.)

use std::fmt::{Debug, Write};
use std::os::unix::net::UnixDatagram;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{DefaultFields, Writer};
use tracing_subscriber::layer::Context;

const SOCKET: &str = "/run/systemd/journal/socket";
const VARIABLE: &str = "JOURNAL_STREAM";
/// A longer text would not fit into a datagram.
const TEXT_LEN_MAX_BYTES: usize = 32 << 10;

/// Sends what is logged to the journal.
pub(crate) struct Journal {
    socket: UnixDatagram,
}

impl Journal {
    /// The journal, if standard error is a stream to it: a service's is, and that of a command which
    /// was merely started by one is not if it goes elsewhere.
    pub(crate) fn of_stderr() -> Option<Self> {
        let told = std::env::var(VARIABLE).ok()?;
        let stderr = rustix::fs::fstat(std::io::stderr()).ok()?;
        if told != format!("{}:{}", stderr.st_dev, stderr.st_ino) {
            return None;
        }
        let socket = UnixDatagram::unbound().ok()?;
        socket.connect(SOCKET).ok()?;
        Some(Self { socket })
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut record = Record::new(event.metadata());
        event.record(&mut record);
        let mut text = String::new();
        // Formatting into a string fails only where a value's own formatting does.
        let _ = DefaultFields::new().format_fields(Writer::new(&mut text), event);
        record.put("MESSAGE", beginning(&text));
        if self.socket.send(&record.bytes).is_err() {
            // The journal reads this stream, too.
            eprintln!("{text}");
        }
    }
}

fn beginning(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_LEN_MAX_BYTES)]
}

/// A record in the journal's own protocol.
struct Record {
    bytes: Vec<u8>,
}

impl Record {
    fn new(metadata: &Metadata<'_>) -> Self {
        // As syslog counts.
        let priority = match *metadata.level() {
            Level::ERROR => "3",
            Level::WARN => "4",
            Level::INFO => "6",
            Level::DEBUG | Level::TRACE => "7",
        };
        let mut record = Self { bytes: Vec::with_capacity(512) };
        record.put("PRIORITY", priority);
        record.put("SYSLOG_IDENTIFIER", env!("CARGO_PKG_NAME"));
        record.put("TARGET", metadata.target());
        record
    }

    /// Adds a field. Its length comes before its value, which may so have lines.
    fn put(&mut self, name: &str, value: &str) {
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(b'\n');
        self.bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(b'\n');
    }
}

impl Visit for Record {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() != "message" {
            let mut text = String::new();
            let _ = write!(text, "{value:?}");
            self.put(&name(field.name()), beginning(&text));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(&name(field.name()), beginning(value));
    }
}

/// The name of a field as the journal takes it: capitals, digits and underscores, beginning with a
/// capital.
fn name(name: &str) -> String {
    let capitals = name.bytes().map(|byte| match byte.to_ascii_uppercase() {
        byte @ (b'A'..=b'Z' | b'0'..=b'9') => byte.into(),
        _ => '_',
    });
    let capitals: String = capitals.collect();
    capitals.trim_start_matches(|first: char| !first.is_ascii_uppercase()).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt;

    /// The fields of a record.
    fn fields(mut bytes: &[u8]) -> Vec<(String, String)> {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let end = bytes.iter().position(|byte| *byte == b'\n').unwrap();
            let (name, rest) = (&bytes[..end], &bytes[end + 1..]);
            let len = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            fields.push((text(name), text(&rest[8..8 + len])));
            assert_eq!(rest[8 + len], b'\n');
            bytes = &rest[9 + len..];
        }
        fields
    }

    #[test]
    fn a_record_has_the_fields_and_a_line_with_all_of_them() {
        let (socket, journal) = UnixDatagram::pair().unwrap();
        let subscriber = tracing_subscriber::registry().with(Journal { socket });
        let error = std::io::Error::other("no\nlibrary");
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(%error, elapsed_ms = 7u64, r#type = "f32", "texts cannot be searched for");
        });
        let mut buffer = [0; 4096];
        let len = journal.recv(&mut buffer).unwrap();
        let fields = fields(&buffer[..len]);
        let value = |name: &str| {
            let found = fields.iter().find(|(known, _)| known == name);
            found.unwrap_or_else(|| panic!("no {name}: {fields:?}")).1.as_str()
        };
        assert_eq!(value("PRIORITY"), "4");
        assert_eq!(value("SYSLOG_IDENTIFIER"), "op-dbus");
        assert_eq!(value("ERROR"), "no\nlibrary");
        assert_eq!((value("ELAPSED_MS"), value("TYPE")), ("7", "f32"));
        let message = value("MESSAGE");
        assert!(message.starts_with("texts cannot be searched for "), "{message}");
        assert!(message.contains("library") && message.contains("elapsed_ms=7"), "{message}");
    }

    #[test]
    fn names_are_those_that_the_journal_takes() {
        assert_eq!(name("elapsed_ms"), "ELAPSED_MS");
        assert_eq!(name("_pid"), "PID");
        assert_eq!(name("http.status-2"), "HTTP_STATUS_2");
    }
}
