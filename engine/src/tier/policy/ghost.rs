//! Keys of the recent past, without what belonged to them.
//!
//! A table of buckets with a fingerprint and a turn in each place. It has no false negative but
//! one: when more keys of the last turns fall into a bucket than it has places, the oldest of them
//! is forgotten early, some three keys in a hundred. Two keys share a fingerprint once in about
//! 2^30, which costs one wrong guess.

const PLACES: usize = 8;
/// Places for each key remembered, so that few buckets overflow.
const SLACK_PERCENT: u64 = 150;

/// A key that was here: its fingerprint in the high half, the turn in the low one. 0 is nobody.
///
/// Plain numbers, because zeros of those come from the kernel untouched: a table for millions of
/// keys takes memory as they come.
type Entry = u64;

fn entry(fingerprint: u32, turn: u32) -> Entry {
    u64::from(fingerprint) << 32 | u64::from(turn)
}

fn fingerprint_of(entry: Entry) -> u32 {
    (entry >> 32) as u32
}

/// The last keys that were noted.
#[derive(Debug)]
pub(super) struct Ghost {
    buckets: Vec<[Entry; PLACES]>,
    /// A key is remembered for so many turns; each key noted is one.
    turns: u32,
    now: u32,
}

impl Ghost {
    /// Remembers the last `keys_count` keys.
    pub(super) fn new(keys_count: u32) -> Self {
        let turns = keys_count.max(1);
        let places = u64::from(turns) * SLACK_PERCENT / 100;
        let buckets = (places as usize).div_ceil(PLACES).max(1);
        Self { buckets: vec![[0; PLACES]; buckets], turns, now: 0 }
    }

    /// Notes that a key was here now.
    pub(super) fn note(&mut self, key_hash: u64) {
        self.now = self.now.wrapping_add(1);
        let now = self.now;
        let fingerprint = fingerprint(key_hash);
        let bucket = self.bucket(key_hash);
        let age = |entry: &Entry| match fingerprint_of(*entry) {
            // Its own place first, then one that nobody has, then that of the oldest.
            found if found == fingerprint => u64::MAX,
            0 => u64::MAX - 1,
            _ => u64::from(now.wrapping_sub(*entry as u32)),
        };
        if let Some(place) = bucket.iter_mut().max_by_key(|place| age(place)) {
            *place = entry(fingerprint, now);
        }
    }

    /// Forgets a key; says whether it was remembered.
    pub(super) fn take(&mut self, key_hash: u64) -> bool {
        let (turns, now) = (self.turns, self.now);
        let fingerprint = fingerprint(key_hash);
        let mut places = self.bucket(key_hash).iter_mut();
        let found = places.find(|place| fingerprint_of(**place) == fingerprint);
        found.map(std::mem::take).is_some_and(|entry| now.wrapping_sub(entry as u32) < turns)
    }

    fn bucket(&mut self, key_hash: u64) -> &mut [Entry; PLACES] {
        // The high half chooses the bucket, the low half is the fingerprint.
        let index = ((key_hash >> 32) * self.buckets.len() as u64) >> 32;
        &mut self.buckets[index as usize]
    }
}

fn fingerprint(key_hash: u64) -> u32 {
    (key_hash as u32).max(1)
}

#[cfg(test)]
mod tests {
    use xxhash_rust::xxh3::xxh3_64;

    use super::*;

    fn hash(number: u64) -> u64 {
        xxh3_64(&number.to_le_bytes())
    }

    #[test]
    fn the_last_keys_are_remembered_and_earlier_ones_are_not() {
        const KEYS: u64 = 10_000;
        let mut ghost = Ghost::new(KEYS as u32);
        (0..3 * KEYS).for_each(|key| ghost.note(hash(key)));
        let mut remembered =
            |keys: std::ops::Range<u64>| keys.filter(|key| ghost.take(hash(*key))).count();
        assert_eq!(remembered(0..2 * KEYS), 0);
        let last = remembered(2 * KEYS..3 * KEYS);
        assert!(last > KEYS as usize * 95 / 100, "{last} of {KEYS}");
        assert_eq!(remembered(2 * KEYS..3 * KEYS), 0, "taken ones are forgotten");
    }

    #[test]
    fn a_key_noted_again_is_young_again() {
        let mut ghost = Ghost::new(4);
        for key in [1, 2, 3, 1, 4, 5] {
            ghost.note(hash(key));
        }
        assert!(ghost.take(hash(1)));
        assert!(!ghost.take(hash(2)));
    }
}
