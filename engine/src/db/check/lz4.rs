//! Decompression of one LZ4 block, the form in which RocksDB keeps the index of a table.
//!
//! Source: the LZ4 block format description (Collet). A block is sequences: a token of two
//! nibbles, literals, and a copy of earlier output; the last sequence has no copy. The length of
//! the output is known beforehand, and bounds all of it.

/// A copy is at least so long; the token tells the rest.
const COPY_LEN_MIN: usize = 4;
/// A nibble of this value goes on in the bytes that follow.
const NIBBLE_MAX: u8 = 15;
/// A byte of input stands for at most so many of output.
const RATIO_MAX: usize = 255;

/// Returns the output, of exactly `len` bytes; `None` if the block is no such thing.
pub(super) fn decompress(block: &[u8], len: usize) -> Option<Vec<u8>> {
    let mut input = block;
    let mut output = Vec::with_capacity(len.min(block.len().saturating_mul(RATIO_MAX)));
    loop {
        let token = take(&mut input, 1)?[0];
        let literals_len = length(token >> 4, &mut input)?;
        output.extend_from_slice(take(&mut input, literals_len)?);
        if output.len() > len {
            return None;
        }
        if input.is_empty() {
            return (output.len() == len).then_some(output);
        }
        let distance = take(&mut input, 2)?;
        let distance = usize::from(u16::from_le_bytes([distance[0], distance[1]]));
        let copy_len = length(token & NIBBLE_MAX, &mut input)?.checked_add(COPY_LEN_MIN)?;
        let start = output.len().checked_sub(distance).filter(|_| distance > 0)?;
        if copy_len > len - output.len() {
            return None;
        }
        // A copy may overlap what it makes.
        for index in start..start + copy_len {
            output.push(output[index]);
        }
    }
}

fn take<'a>(input: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, rest) = input.split_at_checked(len)?;
    *input = rest;
    Some(taken)
}

/// The length that a nibble begins and bytes go on with, up to the first that is not 255.
fn length(nibble: u8, input: &mut &[u8]) -> Option<usize> {
    let mut length = usize::from(nibble);
    let mut goes_on = nibble == NIBBLE_MAX;
    while goes_on {
        let more = take(input, 1)?[0];
        length = length.checked_add(usize::from(more))?;
        goes_on = more == u8::MAX;
    }
    Some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_copies_and_long_lengths() {
        assert_eq!(decompress(b"\x30abc", 3).unwrap(), b"abc");
        // Two literals, then 4 + 15 + 3 bytes from 2 back, then a literal.
        let repeated = decompress(b"\x2fab\x02\x00\x03\x10c", 25).unwrap();
        assert_eq!(repeated, [&b"ab".repeat(12)[..], b"c"].concat());
        let long = [&b"\xf0\xff\x01"[..], &[b'x'; 271]].concat();
        assert_eq!(decompress(&long, 271).unwrap(), [b'x'; 271]);
    }

    #[test]
    fn what_is_no_block_is_refused() {
        for (block, len) in [
            (&b""[..], 0),
            (b"\x30ab", 3),
            (b"\x30abc", 2),
            (b"\x30abc", 4),
            (b"\x2fab\x03\x00\x03\x10c", 25),
            (b"\x2fab\x00\x00\x03\x10c", 25),
            (b"\x2fab\x02\x00\xff\xff", 25),
            (b"\x2fab\x02", 25),
        ] {
            assert_eq!(decompress(block, len), None, "{block:?}");
        }
    }
}
