//! How often keys were asked for, estimated in four bits each.
//!
//! A count-min sketch: a key has four counters, shared with others, and its estimate is the least
//! of them. Only counters that hold the estimate are raised ("conservative update"), which keeps
//! strangers' counts out. All four lie in 64 bytes. Counters are halved in turns, so that the past
//! fades without anybody having to wait for it.
//!
//! Sources: Cormode and Muthukrishnan 2005; aging by halving: Einziger, Friedman, Manes 2017.

/// Sixteen counters a word, eight words for the counters of a key.
const WORDS_PER_BLOCK: usize = 8;
const ROWS: u32 = 4;
const COUNTER_BITS: u32 = 4;
const COUNTER_MAX: u64 = 15;
/// Clears what halving moves from each counter into its neighbour.
const HALVED: u64 = 0x7777_7777_7777_7777;

/// Plain numbers, because zeros of those come from the kernel untouched: a sketch for millions of
/// keys takes memory as they come.
type Block = [u64; WORDS_PER_BLOCK];

/// Estimated frequencies of any number of keys.
#[derive(Debug)]
pub(super) struct Sketch {
    blocks: Vec<Block>,
}

impl Sketch {
    /// Has so many words of sixteen counters.
    pub(super) fn new(words_count: u32) -> Self {
        let blocks = (words_count as usize).div_ceil(WORDS_PER_BLOCK).max(1);
        Self { blocks: vec![[0; WORDS_PER_BLOCK]; blocks] }
    }

    /// The number of blocks to halve.
    pub(super) fn blocks_count(&self) -> u32 {
        u32::try_from(self.blocks.len()).unwrap_or(u32::MAX)
    }

    /// Halves the counters of a block.
    pub(super) fn halve(&mut self, block: u32) {
        for word in &mut self.blocks[block as usize] {
            *word = *word >> 1 & HALVED;
        }
    }

    /// Returns the estimate for a key, which is never too low but for what has faded.
    pub(super) fn frequency(&self, key_hash: u64) -> u8 {
        let block = &self.blocks[self.block(key_hash)];
        let counters = places(key_hash).map(|(word, shift)| block[word] >> shift & COUNTER_MAX);
        counters.into_iter().min().unwrap_or(0) as u8
    }

    /// Counts a request.
    pub(super) fn increment(&mut self, key_hash: u64) {
        self.raise(key_hash, self.frequency(key_hash).saturating_add(1));
    }

    /// Raises the estimate to `frequency` if it is lower.
    pub(super) fn raise(&mut self, key_hash: u64, frequency: u8) {
        let frequency = u64::from(frequency).min(COUNTER_MAX);
        let index = self.block(key_hash);
        let block = &mut self.blocks[index];
        for (word, shift) in places(key_hash) {
            if block[word] >> shift & COUNTER_MAX < frequency {
                block[word] = block[word] & !(COUNTER_MAX << shift) | frequency << shift;
            }
        }
    }

    fn block(&self, key_hash: u64) -> usize {
        (((key_hash >> 32) * self.blocks.len() as u64) >> 32) as usize
    }
}

/// A word of the block and a shift in it for each of a key's counters: row `n` has words `2n` and
/// `2n + 1` to itself.
fn places(key_hash: u64) -> [(usize, u32); ROWS as usize] {
    // The block came from the high half; five bits a row come from the low half, mixed once more
    // because a table of another kind may have used it.
    let mixed = (key_hash as u32).wrapping_mul(0x9E37_79B1) >> 8;
    std::array::from_fn(|row| {
        let bits = mixed >> (row * 5) & 31;
        (2 * row + (bits & 1) as usize, (bits >> 1) * COUNTER_BITS)
    })
}

#[cfg(test)]
mod tests {
    use xxhash_rust::xxh3::xxh3_64;

    use super::*;

    fn hash(number: u64) -> u64 {
        xxh3_64(&number.to_le_bytes())
    }

    #[test]
    fn estimates_are_never_low_and_seldom_high() {
        const KEYS: u64 = 10_000;
        let mut sketch = Sketch::new(KEYS as u32);
        let expected = |key: u64| (key % 7) as u8;
        for key in 0..KEYS {
            (0..expected(key)).for_each(|_| sketch.increment(hash(key)));
        }
        let mut exact = 0;
        for key in 0..KEYS {
            let found = sketch.frequency(hash(key));
            assert!(found >= expected(key), "{found} for {key}");
            exact += u64::from(found == expected(key));
        }
        assert!(exact > KEYS * 95 / 100, "{exact} of {KEYS} are exact");
    }

    #[test]
    fn counters_stop_at_their_maximum_and_fade() {
        let mut sketch = Sketch::new(1);
        (0..40).for_each(|_| sketch.increment(hash(1)));
        let mut seen = vec![sketch.frequency(hash(1))];
        for _ in 0..4 {
            (0..sketch.blocks_count()).for_each(|block| sketch.halve(block));
            seen.push(sketch.frequency(hash(1)));
        }
        assert_eq!(seen, [15, 7, 3, 1, 0]);
        sketch.raise(hash(1), 9);
        sketch.raise(hash(1), 4);
        assert_eq!(sketch.frequency(hash(1)), 9);
    }
}
