//! The clock on the wall.

use std::time::{SystemTime, UNIX_EPOCH};

/// Now, in milliseconds since 1970-01-01 UTC; 0 for a clock that stands before.
pub(crate) fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
