//! Moments as dates of the calendar, in UTC.
//!
//! Source: Hinnant, "chrono-Compatible Low-Level Date Algorithms", 2021.

/// From the first of March of a year that 400 divides, so that each leap day ends its year.
const DAYS_BEFORE_1970: u64 = 719_468;
/// 400 years have 97 leap days.
const DAYS_OF_ERA: u64 = 146_097;
/// Later ones have more than four digits.
const YEAR_MAX: u64 = 9999;
const SECONDS_OF_DAY: u64 = 24 * 60 * 60;

/// A second in UTC, from 1970 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Utc {
    /// The year.
    pub year: u64,
    /// 1 to 12.
    pub month: u64,
    /// 1 to 31.
    pub day: u64,
    /// 0 to 23.
    pub hour: u64,
    /// 0 to 59.
    pub minute: u64,
    /// 0 to 59.
    pub second: u64,
}

impl Utc {
    /// The second that a moment is in, told in milliseconds since 1970-01-01 UTC.
    #[must_use]
    pub fn from_unix_ms(unix_ms: u64) -> Self {
        let seconds = unix_ms / 1000;
        let day = seconds / SECONDS_OF_DAY + DAYS_BEFORE_1970;
        let (era, day) = (day / DAYS_OF_ERA, day % DAYS_OF_ERA);
        // 100 years have 24 leap days and 4 have one.
        let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        // Five months from March on have 153 days, and so have the five after them.
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
        let of_day = seconds % SECONDS_OF_DAY;
        let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
        Self { year: 400 * era + year + next, month, day, hour, minute, second }
    }

    /// The moment, in milliseconds since 1970-01-01 UTC; none if the calendar has not got it.
    #[must_use]
    pub fn unix_ms(&self) -> Option<u64> {
        let Self { year, month, day, .. } = *self;
        let of_day = [(self.hour, 23), (self.minute, 59), (self.second, 59)];
        let in_bounds = |(number, most): &(u64, u64)| number <= most;
        if ![(year, YEAR_MAX), (month, 12), (day, 31)].iter().chain(&of_day).all(in_bounds) {
            return None;
        }
        // A year begins in March, so that a leap day ends it.
        let year = if self.month <= 2 { self.year.checked_sub(1)? } else { self.year };
        let (era, of_era) = (year / 400, year % 400);
        let of_year = (153 * ((self.month + 9) % 12) + 2) / 5 + self.day.checked_sub(1)?;
        let days = era * DAYS_OF_ERA + of_era * 365 + of_era / 4 - of_era / 100 + of_year;
        let of_day = self.hour * 3600 + self.minute * 60 + self.second;
        let seconds = days.checked_sub(DAYS_BEFORE_1970)? * SECONDS_OF_DAY + of_day;
        // What is no date, such as the 31st of April, is another one.
        (Self::from_unix_ms(seconds * 1000) == *self).then_some(seconds * 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_of_four_centuries_comes_back() {
        let mut before = Utc::from_unix_ms(0);
        assert_eq!((before.year, before.month, before.day), (1970, 1, 1));
        for day in 1..150_000 {
            let unix_ms = (day * SECONDS_OF_DAY + day % SECONDS_OF_DAY) * 1000;
            let utc = Utc::from_unix_ms(unix_ms);
            assert_eq!(utc.unix_ms(), Some(unix_ms));
            let date = |utc: &Utc| (utc.year, utc.month, utc.day);
            let follows = utc.day == before.day + 1 || (utc.day == 1 && before.day >= 28);
            assert!(follows && date(&utc) > date(&before), "{before:?} {utc:?}");
            before = utc;
        }
    }

    #[test]
    fn dates_that_there_are_not_are_none() {
        let date = |year, month, day| Utc { year, month, day, hour: 0, minute: 0, second: 0 };
        assert_eq!(date(2000, 2, 29).unix_ms(), Some(951_782_400_000));
        for (year, month, day) in [
            (2026, 2, 29),
            (2100, 2, 29),
            (2026, 4, 31),
            (2026, 13, 1),
            (2026, 1, 0),
            (1969, 12, 31),
        ] {
            assert_eq!(date(year, month, day).unix_ms(), None, "{year}-{month}-{day}");
        }
    }
}
