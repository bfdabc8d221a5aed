//! The clock on the wall.

use std::time::{SystemTime, UNIX_EPOCH};

use op_dbus_formats::calendar::Utc;

/// Now, in milliseconds since 1970-01-01 UTC; 0 for a clock that stands before.
pub(crate) fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// A moment in UTC, to the second, as it stands in names: `20261126T120305Z`.
pub(crate) fn utc_name(unix_ms: u64) -> String {
    let Utc { year, month, day, hour, minute, second } = Utc::from_unix_ms(unix_ms);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::utc_name;

    #[test]
    fn moments_have_the_names_that_date_gives_them() {
        for (seconds, name) in [
            (0, "19700101T000000Z"),
            (951_782_399, "20000228T235959Z"),
            (951_782_400, "20000229T000000Z"),
            (1_709_251_199, "20240229T235959Z"),
            (1_798_761_600, "20270101T000000Z"),
            (4_107_542_399, "21000228T235959Z"),
            (4_107_542_400, "21000301T000000Z"),
        ] {
            assert_eq!(utc_name(seconds * 1000 + 999), name);
        }
    }
}
