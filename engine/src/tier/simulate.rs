//! What a policy would have made of a sequence of requests.
//!
//! The simulation follows the pool in everything that decides about hits: the same policies, marks,
//! clock and access words. Only the vectors are missing, and demotions are done before the next
//! request instead of in the background. It is of a store with one pool, in which nothing moves the
//! clock but insertions.

use std::cell::Cell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use serde::Serialize;

use super::policy::{Access, Policy, PolicyKind, Residents, Water};

/// What came of a simulation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SimulationReport {
    /// Requests made.
    pub requests: u64,
    /// Requests that found their key resident.
    pub hits: u64,
    /// Hits by requests; `None` when there were no requests.
    pub hit_ratio: Option<f64>,
    /// Keys brought in.
    pub promotions: u64,
    /// Keys that made room for others.
    pub demotions: u64,
}

/// Plays requests for keys, given by their hashes, against a pool with this many slots.
///
/// As in a pool, residents fill between 85 and 90 % of the slots.
///
/// Cost: memory in proportion to `capacity_slots`, some hundred bytes each; some 100 ns a request.
pub fn simulate(
    keys: impl IntoIterator<Item = u64>,
    capacity_slots: u32,
    policy: PolicyKind,
) -> SimulationReport {
    let mut simulation = Simulation::new(capacity_slots, policy.build(capacity_slots));
    for key_hash in keys {
        simulation.request(key_hash);
    }
    simulation.report()
}

/// A pool without vectors.
struct Simulation {
    policy: Box<dyn Policy>,
    water: Water,
    slots_by_key: HashMap<u64, u32, BuildHasherDefault<AsIs>>,
    slots: Slots,
    free: Vec<u32>,
    requests: u64,
    hits: u64,
    promotions: u64,
    demotions: u64,
}

/// Who is in each slot.
struct Slots {
    entries: Vec<Option<Entry>>,
    now: u32,
}

struct Entry {
    key_hash: u64,
    access: Cell<Access>,
}

impl Simulation {
    fn new(capacity_slots: u32, policy: Box<dyn Policy>) -> Self {
        Self {
            policy,
            water: Water::of(capacity_slots),
            slots_by_key: HashMap::default(),
            slots: Slots { entries: Vec::new(), now: 0 },
            free: Vec::new(),
            requests: 0,
            hits: 0,
            promotions: 0,
            demotions: 0,
        }
    }

    /// Asks for a key; says whether it was resident.
    fn request(&mut self, key_hash: u64) -> bool {
        self.requests += 1;
        if let Some(&slot) = self.slots_by_key.get(&key_hash) {
            if let Some(access) = self.slots.access(slot) {
                self.slots.set_access(slot, access.touched(self.slots.now));
            }
            self.hits += 1;
            return true;
        }
        let full = self.water.is_full(self.residents_count());
        if self.policy.admit(key_hash, full, &self.slots) {
            self.promote(key_hash);
        }
        false
    }

    fn promote(&mut self, key_hash: u64) {
        let entry = Entry { key_hash, access: Cell::new(Access::new(self.slots.now)) };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots.entries[slot as usize] = Some(entry);
                slot
            }
            None => {
                self.slots.entries.push(Some(entry));
                self.slots.slots_end() - 1
            }
        };
        self.slots_by_key.insert(key_hash, slot);
        self.policy.inserted(slot, key_hash);
        self.promotions += 1;
        if self.promotions.is_multiple_of(u64::from(self.water.inserts_per_tick)) {
            self.slots.now = self.slots.now.wrapping_add(1);
        }
        if self.residents_count() > self.water.high_slots {
            while self.residents_count() > self.water.low_slots && self.demote() {}
        }
    }

    /// Frees the slot that the policy chooses; says whether there was one.
    fn demote(&mut self) -> bool {
        let Some(slot) = self.policy.choose(&self.slots) else { return false };
        let Some(entry) = self.slots.entries[slot as usize].take() else { return false };
        self.slots_by_key.remove(&entry.key_hash);
        self.free.push(slot);
        self.demotions += 1;
        true
    }

    fn residents_count(&self) -> u32 {
        // Slots are numbered in 32 bits.
        self.slots_by_key.len() as u32
    }

    fn report(&self) -> SimulationReport {
        SimulationReport {
            requests: self.requests,
            hits: self.hits,
            hit_ratio: (self.requests > 0).then(|| self.hits as f64 / self.requests as f64),
            promotions: self.promotions,
            demotions: self.demotions,
        }
    }
}

impl Residents for Slots {
    fn slots_end(&self) -> u32 {
        self.entries.len() as u32
    }

    fn access(&self, slot: u32) -> Option<Access> {
        Some(self.entries.get(slot as usize)?.as_ref()?.access.get())
    }

    fn set_access(&self, slot: u32, access: Access) {
        if let Some(Some(entry)) = self.entries.get(slot as usize) {
            entry.access.set(access);
        }
    }

    fn key_hash(&self, slot: u32) -> u64 {
        let entry = self.entries.get(slot as usize).and_then(Option::as_ref);
        entry.map_or(0, |entry| entry.key_hash)
    }

    fn now(&self) -> u32 {
        self.now
    }
}

/// Keys are hashes already.
#[derive(Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(self.0 << 8 | u64::from(byte));
        }
    }

    fn write_u64(&mut self, key_hash: u64) {
        self.0 = key_hash;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use xxhash_rust::xxh3::xxh3_64;

    use super::*;

    const KEYS: usize = 10_000;
    const REQUESTS: usize = 1_500_000;
    /// Of the slots, on average, are occupied.
    const OCCUPIED: f64 = 0.875;

    /// Requests whose frequency falls with the rank of the key to the power of 0.9.
    fn zipf(requests_count: usize) -> Vec<u64> {
        let weights = (1..=KEYS).scan(0.0, |sum, rank| {
            *sum += (rank as f64).powf(-0.9);
            Some(*sum)
        });
        let cumulated: Vec<f64> = weights.collect();
        let total = cumulated[KEYS - 1];
        let request = |index: u64| {
            let unit = (xxh3_64(&index.to_le_bytes()) >> 11) as f64 / (1_u64 << 53) as f64;
            let rank = cumulated.partition_point(|sum| *sum < unit * total) as u64;
            hash(rank)
        };
        (0..requests_count as u64).map(request).collect()
    }

    fn hash(key: u64) -> u64 {
        xxh3_64(format!("key {key}").as_bytes())
    }

    /// The slots of a pool that holds this share of all keys on average.
    fn slots_for(share: f64) -> u32 {
        (KEYS as f64 * share / OCCUPIED).round() as u32
    }

    /// Least recently used to the letter.
    fn plain_lru(keys: &[u64], residents_max: usize) -> f64 {
        let (mut last_use, mut by_use) = (HashMap::new(), BTreeMap::new());
        let mut hits = 0;
        for (now, key) in keys.iter().enumerate() {
            if let Some(before) = last_use.insert(*key, now) {
                by_use.remove(&before);
                hits += 1;
            }
            by_use.insert(now, *key);
            if by_use.len() > residents_max {
                let (_, oldest) = by_use.pop_first().unwrap();
                last_use.remove(&oldest);
            }
        }
        hits as f64 / keys.len() as f64
    }

    /// A policy without its door.
    struct Open(Box<dyn Policy>);

    impl Policy for Open {
        fn admit(&mut self, _: u64, _: bool, _: &dyn Residents) -> bool {
            true
        }
        fn inserted(&mut self, slot: u32, key_hash: u64) {
            self.0.inserted(slot, key_hash);
        }
        fn removed(&mut self, slot: u32) {
            self.0.removed(slot);
        }
        fn choose(&mut self, residents: &dyn Residents) -> Option<u32> {
            self.0.choose(residents)
        }
    }

    fn assert_near(found: f64, expected: f64, points: f64, what: &str) {
        let (found, expected) = (found * 100.0, expected * 100.0);
        println!("{what}: {found:.2} %, expected {expected:.2} %");
        assert!((found - expected).abs() <= points, "{what}: {found:.2} %, not {expected:.2} %");
    }

    /// Published: foyer's bench of hit ratios, the same number of keys and exponent; TinyLFU there
    /// is moka's.
    #[test]
    fn hit_ratios_are_those_published() {
        let keys = zipf(REQUESTS);
        for (share, lru, s3fifo, tinylfu) in
            [(0.005, 0.192, 0.324, 0.334), (0.1, 0.557, 0.651, 0.642)]
        {
            let slots = slots_for(share);
            let plain = plain_lru(&keys, (KEYS as f64 * share) as usize);
            assert_near(plain, lru, 0.5, "plain LRU");
            let mut sampled = Simulation::new(slots, Box::new(Open(PolicyKind::Lru.build(slots))));
            keys.iter().for_each(|key| {
                sampled.request(*key);
            });
            assert_near(sampled.report().hit_ratio.unwrap(), plain, 1.5, "LRU without its door");
            let ratio = |policy| simulate(keys.iter().copied(), slots, policy).hit_ratio.unwrap();
            assert_near(ratio(PolicyKind::S3Fifo), s3fifo, 2.0, "S3-FIFO");
            assert_near(ratio(PolicyKind::TinyLfu), tinylfu, 2.0, "TinyLFU");
            let with_door = ratio(PolicyKind::Lru);
            assert!(with_door > plain + 0.05, "LRU with its door: {with_door}, plain {plain}");
        }
    }

    #[test]
    fn a_scan_does_not_wash_out_what_is_used() {
        const PART: usize = 300_000;
        let keys = zipf(2 * PART);
        let (before, after) = keys.split_at(PART);
        let slots = slots_for(0.1);
        let ratio_after = |policy: Box<dyn Policy>, scanned_count: u64| {
            let mut simulation = Simulation::new(slots, policy);
            before.iter().for_each(|key| {
                simulation.request(*key);
            });
            let mut scan = (0..scanned_count).map(|key| hash(1_000_000 + key));
            assert!(!scan.any(|key| simulation.request(key)));
            // Soon after, while what a scan washed out would still be missed.
            let soon = &after[..slots as usize];
            let hits = soon.iter().filter(|key| simulation.request(**key)).count();
            hits as f64 / soon.len() as f64
        };
        let scan_len = u64::from(slots) * 10;
        for kind in PolicyKind::ALL {
            let [with, without] = [scan_len, 0].map(|len| ratio_after(kind.build(slots), len));
            assert_near(with, without, 2.0, &kind.to_string());
        }
        // What has no door shows that the scan was one.
        let open = || Box::new(Open(PolicyKind::Lru.build(slots)));
        let lost = ratio_after(open(), 0) - ratio_after(open(), scan_len);
        assert!(lost > 0.05, "{lost}");
    }

    #[test]
    fn what_was_popular_once_makes_room() {
        let keys = zipf(600_000);
        let slots = slots_for(0.1);
        for policy in PolicyKind::ALL {
            let moved = keys.iter().map(|key| !key);
            let mut simulation = Simulation::new(slots, policy.build(slots));
            keys.iter().for_each(|key| {
                simulation.request(*key);
            });
            moved.clone().for_each(|key| {
                simulation.request(key);
            });
            let hits = moved.filter(|key| simulation.request(*key)).count();
            let fresh = simulate(keys.iter().copied(), slots, policy).hit_ratio.unwrap();
            assert_near(hits as f64 / keys.len() as f64, fresh, 1.0, &policy.to_string());
        }
    }

    #[test]
    fn the_pool_stays_between_its_marks() {
        for policy in PolicyKind::ALL {
            let mut simulation = Simulation::new(1000, policy.build(1000));
            for key in zipf(100_000) {
                simulation.request(key);
                assert!(simulation.residents_count() <= 900, "{policy}");
            }
            let report = simulation.report();
            assert!(report.demotions > 0 && simulation.residents_count() >= 850, "{policy}");
            let residents = report.promotions - report.demotions;
            assert_eq!(residents, u64::from(simulation.residents_count()), "{policy}");
            assert!(report.promotions <= report.requests - report.hits, "{policy}");
        }
    }

    #[test]
    fn there_is_no_ratio_without_requests_and_no_hit_without_room() {
        for policy in PolicyKind::ALL {
            assert_eq!(simulate([], 100, policy).hit_ratio, None);
            let report = simulate([1, 1, 1, 1], 0, policy);
            assert_eq!((report.requests, report.hits, report.hit_ratio), (4, 0, Some(0.0)));
        }
    }
}
