//! Numbers that look random and are the same in every run.

/// A small generator of pseudo-random numbers.
///
/// Source: SplitMix64 (Steele, Lea and Flood 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Creates the generator whose numbers follow from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    /// Returns a number from 0 to `end` without it.
    ///
    /// # Panics
    /// If `end` is 0.
    pub fn below(&mut self, end: usize) -> usize {
        // What a remainder prefers is beyond what a test can notice.
        (self.bits() % end as u64) as usize
    }

    /// Returns a number from -1 to 1.
    pub fn fraction(&mut self) -> f32 {
        const STEPS: f32 = (1 << 23) as f32;
        (self.bits() >> 40) as f32 / STEPS - 1.0
    }

    /// Returns a vector of numbers from -1 to 1.
    pub fn vector(&mut self, dimensions: usize) -> Vec<f32> {
        (0..dimensions).map(|_| self.fraction()).collect()
    }

    /// Returns words of lower-case letters, so that every text is a new one.
    pub fn words(&mut self, count: usize) -> String {
        let word = |random: &mut Self| -> String {
            let length = 2 + random.below(7);
            (0..length).map(|_| char::from(b'a' + random.below(26) as u8)).collect()
        };
        (0..count).map(|_| word(self)).collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_from_the_seed() {
        // The first outputs of the published algorithm for the seed 1234567.
        let mut random = Random::new(1_234_567);
        assert_eq!(random.bits(), 6_457_827_717_110_365_317);
        assert_eq!(random.bits(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn fractions_fill_their_range() {
        let mut random = Random::new(1);
        let numbers = random.vector(10_000);
        assert!(numbers.iter().all(|number| (-1.0..=1.0).contains(number)));
        assert!(numbers.iter().any(|&number| number < -0.99));
        assert!(numbers.iter().any(|&number| number > 0.99));
    }
}
