//! The arena against a plain map, and under readers that never stop.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::*;

const DIMENSIONS: usize = 24;

/// Spreads a number over all bits of a key, as hashes are.
fn key(number: u32) -> u128 {
    u128::from(number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835)
}

fn contents(key: u128, vector: &[f32]) -> Contents<'_> {
    Contents { key, expires_at_unix_ms: NEVER, vector }
}

fn slots(count: usize) -> (Arena, Writer) {
    create(DIMENSIONS, count * slot_bytes(DIMENSIONS), Arc::default()).unwrap()
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        ((self.0 >> 33) % u64::from(bound)) as u32
    }
}

#[test]
fn it_holds_what_a_map_holds() {
    let (arena, mut writer) = slots(300);
    let mut model: BTreeMap<u32, f32> = BTreeMap::new();
    let mut random = Random(3);
    for round in 0..20_000_u32 {
        let number = random.below(400);
        match writer.find(key(number)) {
            Some(slot) => {
                assert_eq!(writer.key(slot), key(number));
                writer.remove(slot);
                model.remove(&number);
            }
            None => {
                let vector = [round as f32; DIMENSIONS];
                if writer.insert(&contents(key(number), &vector), 0, |_| true).unwrap().is_some() {
                    model.insert(number, round as f32);
                } else {
                    // Full only when it is: what was taken out and is not read comes back.
                    assert!(model.len() + writer.departed.len() == 300);
                }
            }
        }
        assert_eq!(writer.residents_count() as usize, model.len());
        if round % 500 == 0 {
            writer.shrink(u32::MAX, |_, _, _| ()).unwrap();
        }
        let number = random.below(400);
        let found = arena.find(key(number), Wanted::Whole).map(|hot| hot[DIMENSIONS - 1]);
        assert_eq!(found, model.get(&number).copied());
    }
}

#[test]
fn the_table_grows_and_loses_nothing() {
    let count = 500_000;
    let (arena, mut writer) = create(1, count as usize * slot_bytes(1), Arc::default()).unwrap();
    let table_bytes = |arena: &Arena| arena.shared.table(&epoch::pin()).memory_bytes();
    let before = table_bytes(&arena);
    for number in 0..count {
        assert!(
            writer.insert(&contents(key(number), &[number as f32]), 0, |_| true).unwrap().is_some()
        );
    }
    assert!(table_bytes(&arena) > before);
    for number in 0..count {
        assert_eq!(arena.find(key(number), Wanted::Whole).map(|hot| hot[0]), Some(number as f32));
        assert!(arena.find(key(number + count), Wanted::Whole).is_none());
    }
}

#[test]
fn a_handle_means_one_life() {
    let (arena, mut writer) = slots(1);
    let slot = writer.insert(&contents(key(1), &[1.0; DIMENSIONS]), 0, |_| true).unwrap().unwrap();
    let handle = writer.handle(slot);
    assert_eq!(arena.resolve(handle).unwrap()[0], 1.0);
    writer.remove(slot);
    assert!(arena.resolve(handle).is_none());
    let insert =
        |writer: &mut Writer| writer.insert(&contents(key(2), &[2.0; DIMENSIONS]), 0, |_| true);
    let again = std::iter::repeat_with(|| insert(&mut writer).unwrap()).flatten().next();
    assert_eq!(again, Some(slot));
    assert!(arena.resolve(handle).is_none());
    assert_eq!(arena.resolve(writer.handle(slot)).unwrap()[0], 2.0);
}

#[test]
fn memory_that_is_given_back_ends_no_life_and_begins_none() {
    const COUNT: usize = 50_000;
    let (arena, mut writer) = slots(COUNT);
    let insert = |number: usize, writer: &mut Writer| {
        let vector = [number as f32; DIMENSIONS];
        let contents = Contents { key: key(number as u32), expires_at_unix_ms: 7, vector: &vector };
        writer.insert(&contents, 3, |_| true).unwrap().unwrap()
    };
    let all: Vec<Slot> = (0..COUNT).map(|number| insert(number, &mut writer)).collect();
    let handle = writer.handle(all[COUNT - 1]);
    let memory_bytes = arena.memory_bytes();
    // Every fourth stays.
    (0..COUNT).filter(|number| number % 4 > 0).for_each(|number| writer.remove(all[number]));
    let mut freed_bytes = 0;
    while freed_bytes < COUNT * slot_bytes(DIMENSIONS) * 7 / 10 {
        freed_bytes += writer.shrink(u32::MAX, |_, _, _| ()).unwrap();
    }
    assert!(arena.memory_bytes() < memory_bytes);
    for number in 0..COUNT {
        let found = arena.find(key(number as u32), Wanted::Whole);
        let told = found
            .map(|hot| (hot[0], hot.expires_at_unix_ms(), hot.access().load(Ordering::Relaxed)));
        assert_eq!(told, (number % 4 == 0).then_some((number as f32, 7, 3)));
    }
    // The memory comes back, and an old handle still means nothing.
    assert!(arena.resolve(handle).is_none());
    let again: Vec<Slot> =
        (COUNT..COUNT + COUNT / 4 * 3).map(|number| insert(number, &mut writer)).collect();
    assert!(again.contains(&all[COUNT - 1]));
    assert!(arena.resolve(handle).is_none());
    assert_eq!(arena.memory_bytes(), memory_bytes);
}

#[test]
fn memory_that_somebody_reads_is_not_given_back() {
    let (arena, mut writer) = slots(4);
    let slot = writer.insert(&contents(key(1), &[1.0; DIMENSIONS]), 0, |_| true).unwrap().unwrap();
    let hot = arena.find(key(1), Wanted::Whole).unwrap();
    writer.remove(slot);
    assert_eq!(writer.shrink_to(0), 0);
    assert_eq!(&*hot, &[1.0; DIMENSIONS]);
    drop(hot);
    assert!((0..1000).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(1));
        writer.shrink_to(0) == slot_bytes(DIMENSIONS)
    }));
}

#[test]
fn a_refusal_of_memory_is_want_of_room() {
    let (_arena, mut writer) = slots(4);
    let vector = [1.0; DIMENSIONS];
    assert_eq!(writer.insert(&contents(key(1), &vector), 0, |_| false).unwrap(), None);
    assert!(writer.insert(&contents(key(1), &vector), 0, |_| true).unwrap().is_some());
}

#[test]
fn a_reader_keeps_what_it_found() {
    let (arena, mut writer) = slots(2);
    let slot = writer.insert(&contents(key(1), &[1.0; DIMENSIONS]), 0, |_| true).unwrap().unwrap();
    let hot = arena.find(key(1), Wanted::Whole).unwrap();
    writer.remove(slot);
    assert!(arena.find(key(1), Wanted::Whole).is_none());
    // One slot is left; the other is being read.
    assert!(writer.insert(&contents(key(2), &[2.0; DIMENSIONS]), 0, |_| true).unwrap().is_some());
    assert!(writer.insert(&contents(key(3), &[3.0; DIMENSIONS]), 0, |_| true).unwrap().is_none());
    assert_eq!(&*hot, &[1.0; DIMENSIONS]);
    drop(hot);
}

/// What readers found that was not what they had looked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct WrongReads {
    /// Another's vector, whose slot was used again.
    others_count: u64,
    /// Zeros, whose memory was given back.
    zeros_count: u64,
}

/// Readers and a writer for a while; returns what was read wrongly, and how much memory was given
/// back meanwhile.
fn read_and_write(ignores_readers: bool, rounds: u32) -> (WrongReads, usize) {
    const SLOTS_COUNT: usize = 64;
    const KEYS_COUNT: u32 = 96;
    // Longer than a page, so that the memory of each can be given back.
    const DIMENSIONS: usize = 1024;
    let (arena, mut writer) =
        create(DIMENSIONS, SLOTS_COUNT * slot_bytes(DIMENSIONS), Arc::default()).unwrap();
    writer.ignores_readers = ignores_readers;
    let (ended, began_count) = (AtomicBool::new(false), AtomicU32::new(0));
    // No key has zeros.
    let element = |number: u32| (number + 1) as f32;
    let read = |seed: u64| {
        let mut random = Random(seed);
        let (mut wrong, mut found) = (WrongReads::default(), 0_u64);
        while !ended.load(Ordering::Relaxed) {
            let number = random.below(KEYS_COUNT);
            let Some(hot) = arena.find(key(number), Wanted::Whole) else { continue };
            if found == 0 {
                began_count.fetch_add(1, Ordering::Relaxed);
            }
            found += 1;
            // Lets the writer run between finding and reading, now and then.
            if found % 16 == 0 {
                std::thread::yield_now();
            }
            match hot.iter().find(|found| **found != element(number)) {
                Some(0.0) => wrong.zeros_count += 1,
                Some(_) => wrong.others_count += 1,
                None => {}
            }
        }
        wrong
    };
    std::thread::scope(|scope| {
        let readers: Vec<_> = (1..=3).map(|seed| scope.spawn(move || read(seed))).collect();
        let mut random = Random(9);
        let (mut round, mut returned_bytes) = (0, 0);
        // Not before each reader has something to read.
        while round < rounds || began_count.load(Ordering::Relaxed) < 3 {
            round += 1;
            if round % 64 == 0 {
                returned_bytes += writer.shrink(u32::MAX, |_, _, _| ()).unwrap();
            }
            let number = random.below(KEYS_COUNT);
            match writer.find(key(number)) {
                Some(slot) => writer.remove(slot),
                None => {
                    let vector = [element(number); DIMENSIONS];
                    writer.insert(&contents(key(number), &vector), 0, |_| true).unwrap();
                }
            }
        }
        ended.store(true, Ordering::Relaxed);
        let mut wrong = WrongReads::default();
        for reader in readers {
            let WrongReads { others_count, zeros_count } = reader.join().unwrap();
            wrong.others_count += others_count;
            wrong.zeros_count += zeros_count;
        }
        (wrong, returned_bytes)
    })
}

#[test]
fn nobody_reads_what_another_wrote() {
    let (wrong, returned_bytes) = read_and_write(false, 200_000);
    assert_eq!(wrong, WrongReads::default());
    assert!(returned_bytes > 10 * slot_bytes(1024), "{returned_bytes}");
}

/// The planted bug: slots become free at once. The test above must be able to fail, both ways.
#[test]
fn slots_reused_or_given_back_too_early_are_noticed() {
    let mut noticed = WrongReads::default();
    for _ in 0..50 {
        let (wrong, _) = read_and_write(true, 100_000);
        noticed.others_count += wrong.others_count;
        noticed.zeros_count += wrong.zeros_count;
        if noticed.others_count > 0 && noticed.zeros_count > 0 {
            return;
        }
    }
    panic!("{noticed:?}");
}
