//! Where figures of a service are told to whoever asks.
//!
//! | text | meaning |
//! |---|---|
//! | `127.0.0.1:9464`, `[::1]:9464` | this port, for programs of this machine |
//! | `unix:/run/op-dbus/metrics.sock` | a Unix socket at this path |
//! | `public:0.0.0.0:9464` | this port, for whoever reaches it |
//!
//! Without `public:` an address that others reach is refused: nobody there is asked who they are.

use std::fmt::{self, Display, Formatter};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;

/// What stands before the path of a socket.
const SOCKET: &str = "unix:";
/// What stands before an address that others may reach.
const PUBLIC: &str = "public:";

/// Where figures are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetricsAddress {
    /// At a Unix socket, whose file says who may.
    Socket(PathBuf),
    /// At a port of this machine's own.
    Local(SocketAddr),
    /// At a port that others may reach.
    Public(SocketAddr),
}

/// Why a text is no such address.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MetricsAddressError {
    /// It is no address and no path.
    #[error(
        "it must be like 127.0.0.1:9464, [::1]:9464, unix:/run/op-dbus/metrics.sock or \
         public:0.0.0.0:9464"
    )]
    Unknown,
    /// Others reach it.
    #[error(
        "other machines reach {0}, and nobody who asks there is asked who they are; say \
         public:{0} if you mean it"
    )]
    NotLocal(SocketAddr),
}

impl FromStr for MetricsAddress {
    type Err = MetricsAddressError;

    fn from_str(text: &str) -> Result<Self, MetricsAddressError> {
        let address =
            |text: &str| text.parse::<SocketAddr>().map_err(|_| MetricsAddressError::Unknown);
        if let Some(path) = text.strip_prefix(SOCKET) {
            // One that depends on the directory is another for whoever asks.
            let is_path = path.starts_with('/') && !path.contains('\0');
            return match is_path {
                true => Ok(Self::Socket(path.into())),
                false => Err(MetricsAddressError::Unknown),
            };
        }
        if let Some(text) = text.strip_prefix(PUBLIC) {
            return address(text).map(Self::Public);
        }
        match address(text)? {
            local if local.ip().to_canonical().is_loopback() => Ok(Self::Local(local)),
            other => Err(MetricsAddressError::NotLocal(other)),
        }
    }
}

impl Display for MetricsAddress {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "{SOCKET}{}", path.display()),
            Self::Local(address) => write!(f, "{address}"),
            Self::Public(address) => write!(f, "{PUBLIC}{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_back_as_they_were_written() {
        for text in [
            "127.0.0.1:9464",
            "[::1]:9464",
            "unix:/run/op-dbus/metrics.sock",
            "public:0.0.0.0:9464",
            "public:[::]:0",
            "public:127.0.0.1:1",
        ] {
            assert_eq!(text.parse::<MetricsAddress>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_others_reach_is_refused_unless_it_is_said() {
        let refused = |text: &str| text.parse::<MetricsAddress>().unwrap_err();
        for text in ["0.0.0.0:9464", "[::]:9464", "192.0.2.1:80", "[::ffff:192.0.2.1]:80"] {
            let error = refused(text);
            assert!(matches!(error, MetricsAddressError::NotLocal(_)), "{text}");
            assert!(error.to_string().contains(&format!("public:{text}")), "{error}");
        }
        for text in
            ["", "9464", "localhost:9464", "127.0.0.1", "unix:", "unix:a", "public:", "unix:/\0"]
        {
            assert_eq!(refused(text), MetricsAddressError::Unknown, "{text}");
        }
    }
}
