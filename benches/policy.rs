//! What a request costs under each eviction policy, simulated, and what share of them hit.
//!
//! Requests follow Zipf's law over more keys than fit. Reading them alone stands beside the
//! policies: what is above it is theirs and the map's that finds the keys.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use op_dbus_engine::{PolicyKind, simulate};

const KEYS_COUNT: usize = 200_000;
const REQUESTS_COUNT: usize = 1_000_000;
const EXPONENT: f64 = 0.9;

/// A number that looks random. Source: SplitMix64's finisher (Steele, Lea and Flood 2014).
fn mixed(number: u64) -> u64 {
    let mut bits = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

fn requests() -> Vec<u64> {
    let mut total = 0.0;
    let cumulated: Vec<f64> = (1..=KEYS_COUNT)
        .map(|rank| {
            total += (rank as f64).powf(-EXPONENT);
            total
        })
        .collect();
    let request = |index: u64| {
        let unit = (mixed(index) >> 11) as f64 / (1_u64 << 53) as f64;
        mixed(cumulated.partition_point(|sum| *sum < unit * total) as u64)
    };
    (0..REQUESTS_COUNT as u64).map(request).collect()
}

fn request(criterion: &mut Criterion) {
    let requests = requests();
    let mut group = criterion.benchmark_group("policy_request");
    group.throughput(Throughput::Elements(REQUESTS_COUNT as u64)).sample_size(10);
    for percent in [1, 10] {
        let slots = (KEYS_COUNT * percent / 100) as u32;
        for policy in PolicyKind::ALL {
            let ratio = simulate(requests.iter().copied(), slots, policy).hit_ratio;
            println!("{policy} at {percent} %: {:.1} % hits", ratio.unwrap_or(0.0) * 100.0);
            group.bench_function(format!("{policy}/{percent}%"), |bencher| {
                bencher.iter(|| simulate(black_box(&requests).iter().copied(), slots, policy));
            });
        }
    }
    group.bench_function("physical/read", |bencher| {
        bencher.iter(|| black_box(&requests).iter().fold(0, |sum: u64, key| sum ^ key));
    });
    group.finish();
}

criterion_group!(benches, request);
criterion_main!(benches);
