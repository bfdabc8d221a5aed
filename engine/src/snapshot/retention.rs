//! Which snapshots stay: the last ones, and the last of each of so many hours, days and weeks.

use super::SnapshotInfo;

/// A span of time of which the last snapshot stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// From one full hour to the next, in UTC.
    Hour,
    /// From midnight to midnight, in UTC.
    Day,
    /// From Monday to Sunday.
    Week,
}

impl Period {
    /// All there are, the shortest first.
    pub const ALL: [Self; 3] = [Self::Hour, Self::Day, Self::Week];

    const HOUR_MS: u64 = 60 * 60 * 1000;
    const DAY_MS: u64 = 24 * Self::HOUR_MS;

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
        }
    }

    /// The number of the period that a moment is in.
    fn of(self, unix_ms: u64) -> u64 {
        // 1970 began on a Thursday.
        const DAYS_FROM_MONDAY: u64 = 3;
        match self {
            Self::Hour => unix_ms / Self::HOUR_MS,
            Self::Day => unix_ms / Self::DAY_MS,
            Self::Week => (unix_ms / Self::DAY_MS + DAYS_FROM_MONDAY) / 7,
        }
    }
}

/// How many snapshots stay, those not counted that are kept until they are deleted by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// The last ones.
    pub count: usize,
    /// Of so many periods in which there was one, the last in each.
    pub schedule: Vec<(usize, Period)>,
    /// Of the file system, in percent: where less is free, the earliest go before their time.
    pub free_percent_min: u8,
}

impl Retention {
    /// The last `count`, as long as a tenth of the file system is free.
    #[must_use]
    pub fn of_count(count: usize) -> Self {
        Self { count, schedule: Vec::new(), free_percent_min: 10 }
    }

    /// What must be free of a file system.
    pub(super) fn free_bytes_min(&self, total_bytes: u64) -> u64 {
        total_bytes / 100 * u64::from(self.free_percent_min.min(100))
    }

    /// The names of those that need not stay, of snapshots in the order of time.
    pub(super) fn surplus(&self, snapshots: &[SnapshotInfo]) -> Vec<String> {
        let stays = |place: usize| {
            snapshots.len() - place <= self.count
                || self.schedule.iter().any(|&(count, period)| {
                    is_last_of_period(snapshots, place, period)
                        && periods_after(snapshots, place, period) < count
                })
        };
        let surplus = (0..snapshots.len()).filter(|place| !stays(*place));
        surplus.map(|place| snapshots[place].name.clone()).collect()
    }
}

fn is_last_of_period(snapshots: &[SnapshotInfo], place: usize, period: Period) -> bool {
    let of = |info: &SnapshotInfo| period.of(info.taken_unix_ms);
    snapshots.get(place + 1).is_none_or(|next| of(next) != of(&snapshots[place]))
}

/// How many later periods have a snapshot.
fn periods_after(snapshots: &[SnapshotInfo], place: usize, period: Period) -> usize {
    let later = place + 1..snapshots.len();
    later.filter(|later| is_last_of_period(snapshots, *later, period)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(hours: &[u64]) -> Vec<SnapshotInfo> {
        let info = |&hour: &u64| SnapshotInfo {
            name: hour.to_string(),
            taken_unix_ms: hour * Period::HOUR_MS,
            ..SnapshotInfo::default()
        };
        hours.iter().map(info).collect()
    }

    /// The hours of those that stay.
    fn stay(hours: &[u64], count: usize, schedule: &[(usize, Period)]) -> Vec<u64> {
        let retention = Retention { schedule: schedule.to_vec(), ..Retention::of_count(count) };
        let surplus = retention.surplus(&taken(hours));
        hours.iter().copied().filter(|hour| !surplus.contains(&hour.to_string())).collect()
    }

    #[test]
    fn the_last_stay() {
        assert_eq!(stay(&[1, 2, 3, 4], 2, &[]), [3, 4]);
        assert_eq!(stay(&[1, 2], 5, &[]), [1, 2]);
        assert_eq!(stay(&[], 5, &[(3, Period::Day)]), [0; 0]);
    }

    #[test]
    fn the_last_of_each_period_stay() {
        // Three a day, on ten days; the first day is a Thursday.
        let hours: Vec<u64> =
            (0..10).flat_map(|day| [0, 8, 16].map(|hour| day * 24 + hour)).collect();
        assert_eq!(stay(&hours, 1, &[(3, Period::Day)]), [7 * 24 + 16, 8 * 24 + 16, 9 * 24 + 16]);
        // Thursday to Sunday, Monday to Saturday.
        assert_eq!(stay(&hours, 1, &[(5, Period::Week)]), [3 * 24 + 16, 9 * 24 + 16]);
        assert_eq!(
            stay(&hours, 1, &[(2, Period::Hour), (2, Period::Week)]),
            [3 * 24 + 16, 9 * 24 + 8, 9 * 24 + 16]
        );
        // Periods without a snapshot do not count.
        assert_eq!(stay(&[0, 1000, 1001], 1, &[(2, Period::Day)]), [0, 1001]);
    }
}
