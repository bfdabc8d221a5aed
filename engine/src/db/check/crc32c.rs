//! CRC-32C (Castagnoli), the checksum of RocksDB's logs.

/// The polynomial 0x1EDC6F41, its bits reversed.
const POLYNOMIAL: u32 = 0x82F6_3B78;

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < table.len() {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// Returns the checksum of the bytes.
pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, step)
}

/// Returns the checksums of the first byte, the first two, and so on.
pub(super) fn crc32c_of_prefixes(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.iter().scan(u32::MAX, |crc, byte| {
        *crc = step(*crc, byte);
        Some(!*crc)
    })
}

fn step(crc: u32, byte: &u8) -> u32 {
    crc >> 8 ^ TABLE[usize::from(crc as u8 ^ byte)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_examples_hold() {
        // RFC 3720, B.4, and the check value of the catalogues of CRCs.
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(&[0xFF; 32]), 0x62A8_AB43);
        assert_eq!(crc32c_of_prefixes(b"123456789x").nth(8), Some(0xE306_9283));
    }
}
