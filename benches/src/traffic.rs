//! Keys, their vectors, and who is asked for how often: all repeatable.

/// Elements of a vector: 1,536 bytes, what the default model makes.
pub const DIMENSIONS: usize = 384;
/// Bytes of a vector.
pub const VALUE_BYTES: usize = DIMENSIONS * size_of::<f32>();

/// A repeatable stream of numbers: SplitMix64 (Steele, Lea & Flood, OOPSLA 2014).
#[derive(Clone, Debug)]
pub struct Numbers(u64);

impl Numbers {
    /// Begins the stream of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number, uniform in all its bits.
    #[expect(clippy::should_implement_trait, reason = "it never ends")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to 1, 1 excluded.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// The key of number `index`.
#[must_use]
pub fn key(index: u32) -> [u8; 8] {
    u64::from(index).to_be_bytes()
}

/// Writes the vector of number `index`, of length 1 as embeddings are. Shape: `[DIMENSIONS]`.
pub fn fill_vector(index: u32, vector: &mut [f32]) {
    let mut numbers = Numbers::new(u64::from(index) << 32);
    let mut pair = 0;
    for (position, element) in vector.iter_mut().enumerate() {
        if position % 2 == 0 {
            pair = numbers.next();
        }
        *element = (pair as u32 >> 8) as f32 / (1 << 24) as f32 - 0.5;
        pair >>= 32;
    }
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    vector.iter_mut().for_each(|x| *x /= length);
}

/// Draws `count` of `keys_count` keys by Zipf's law: the key of rank r with weight r^-exponent.
///
/// Ranks are scattered over the keys, so that neighbours in memory are not alike.
#[must_use]
pub fn zipf(keys_count: u32, count: usize, exponent: f64, seed: u64) -> Vec<u32> {
    let mut numbers = Numbers::new(seed);
    let mut key_of_rank: Vec<u32> = (0..keys_count).collect();
    for rank in (1..key_of_rank.len()).rev() {
        let other = numbers.next() % (rank as u64 + 1);
        key_of_rank.swap(rank, other as usize);
    }
    let mut sum = 0.0;
    let sums: Vec<f64> = (1..=keys_count)
        .map(|rank| {
            sum += f64::from(rank).powf(-exponent);
            sum
        })
        .collect();
    (0..count)
        .map(|_| {
            let drawn = numbers.unit() * sum;
            let rank = sums.partition_point(|&below| below <= drawn);
            key_of_rank[rank.min(key_of_rank.len() - 1)]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_follow_zipf() {
        let draws = zipf(1000, 100_000, 1.0, 7);
        let mut counts = vec![0_u32; 1000];
        draws.iter().for_each(|&key| counts[key as usize] += 1);
        counts.sort_unstable_by_key(|&count| std::cmp::Reverse(count));
        // The harmonic number of 1000 is 7.485: the first is drawn in 13.4 % of all cases.
        assert!((12_800..14_000).contains(&counts[0]), "{}", counts[0]);
        assert!((6_300..7_100).contains(&counts[1]), "{}", counts[1]);
    }

    #[test]
    fn vectors_have_length_one_and_differ() {
        let (mut a, mut b) = ([0.0; DIMENSIONS], [0.0; DIMENSIONS]);
        fill_vector(1, &mut a);
        fill_vector(2, &mut b);
        assert!((a.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-5);
        assert_ne!(a, b);
    }
}
