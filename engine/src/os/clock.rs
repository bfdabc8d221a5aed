//! The clock on the wall.

use std::time::{SystemTime, UNIX_EPOCH};

/// Now, in milliseconds since 1970-01-01 UTC; 0 for a clock that stands before.
pub(crate) fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// A moment in UTC, to the second, as it stands in names: `20261126T120305Z`.
///
/// Source: Hinnant, "chrono-Compatible Low-Level Date Algorithms", 2021.
pub(crate) fn utc_name(unix_ms: u64) -> String {
    const DAY_SECONDS: u64 = 24 * 60 * 60;
    // From the first of March of a year that 400 divides, so that each leap day ends its year.
    const DAYS_BEFORE_1970: u64 = 719_468;
    let seconds = unix_ms / 1000;
    let day = seconds / DAY_SECONDS + DAYS_BEFORE_1970;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = 400 * era + year + next;
    let of_day = seconds % DAY_SECONDS;
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
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
