//! Checks a log of RocksDB: one of writes, or a manifest, which has the same format.
//!
//! | offset | size | field | |
//! |---|---|---|---|
//! | 0 | 4 | checksum | CRC-32C, masked, of everything from the type on |
//! | 4 | 2 | payload_len | bytes |
//! | 6 | 1 | type | whole, first, middle or last part of a record, or what is said between them |
//! | 7 | payload_len | payload | |
//!
//! There are types for logs that overwrite older ones, which ours never do.
//!
//! A log is blocks of 32 KiB, and no part of a record crosses the end of one: where not even a
//! header fits, zeros fill it. Space that was allocated and not written is zeros to the end.
//!
//! Source: the description of the write-ahead log file format in RocksDB's documentation.

use super::crc32c::{crc32c, crc32c_of_prefixes};
use super::{Damage, Flaw, Source};

const BLOCK_LEN_BYTES: usize = 32 << 10;
const HEADER_LEN_BYTES: usize = 7;
/// Where RocksDB finds one behind another record, it looks at it again and again, for ever.
pub(super) const OVERWRITING: &str = "a record of a type for logs that overwrite others";

/// What a type says about the record that its payload is a part of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Whole,
    First,
    Middle,
    Last,
    /// About the log itself: how it is compressed, or which log came before.
    Remark,
}

/// How a block ended.
enum Ended {
    /// The next block goes on.
    Full,
    /// Here: zeros follow, or nothing.
    Here,
    /// In the middle of what was being written.
    Torn(u64),
}

/// Reads a log and hands what is wrong to `found`; says where the log is torn, if it is.
pub(super) fn check(
    source: &mut Source<'_>,
    found: &mut dyn FnMut(Damage),
) -> Result<Option<u64>, Flaw> {
    let mut records = Records { inside: Some(false) };
    let mut start = 0;
    while start < source.len_bytes {
        let len = (source.len_bytes - start).min(BLOCK_LEN_BYTES as u64) as usize;
        let block = source.read(start, len)?;
        match records.check_block(&block, start) {
            Ok(Ended::Full) => {}
            Ok(Ended::Here) => return check_zeros(source, start + len as u64, found),
            Ok(Ended::Torn(offset)) => return Ok(Some(offset)),
            Err(damage) => {
                found(damage);
                records.inside = None;
            }
        }
        start += len as u64;
    }
    Ok((records.inside == Some(true)).then_some(source.len_bytes))
}

/// Whether a record has begun and not ended; unknown after damage.
struct Records {
    inside: Option<bool>,
}

impl Records {
    fn check_block(&mut self, block: &[u8], start: u64) -> Result<Ended, Damage> {
        let is_last = block.len() < BLOCK_LEN_BYTES;
        let mut rest = block;
        while let Some((header, body)) = rest.split_at_checked(HEADER_LEN_BYTES) {
            let offset = start + (block.len() - rest.len()) as u64;
            let damaged = |what: &str| Damage::at(offset, what);
            if header == [0; HEADER_LEN_BYTES] {
                return match body.iter().all(|&byte| byte == 0) {
                    true => Ok(Ended::Here),
                    false => Err(damaged("bytes follow the end of the log")),
                };
            }
            let part = part(header[6]).map_err(damaged)?;
            let stored = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
            let payload_len = usize::from(u16::from_le_bytes([header[4], header[5]]));
            let Some((record, after)) = rest.split_at_checked(HEADER_LEN_BYTES + payload_len)
            else {
                // One that was torn is not whole under any length.
                let mut checksums = crc32c_of_prefixes(&rest[HEADER_LEN_BYTES - 1..]);
                return if checksums.any(|crc| stored == masked(crc)) {
                    Err(damaged("the length of a record"))
                } else if is_last {
                    Ok(Ended::Torn(offset))
                } else {
                    Err(damaged("a record that crosses the end of its block"))
                };
            };
            if stored != masked(crc32c(&record[6..])) {
                return Err(damaged("the checksum of a record"));
            }
            self.follow(part).map_err(damaged)?;
            rest = after;
        }
        let offset = start + (block.len() - rest.len()) as u64;
        if is_last && !rest.is_empty() {
            return Ok(Ended::Torn(offset));
        }
        match rest.iter().all(|&byte| byte == 0) {
            true => Ok(Ended::Full),
            false => Err(Damage::at(offset, "bytes where a block is filled with zeros")),
        }
    }

    fn follow(&mut self, part: Part) -> Result<(), &'static str> {
        let (inside_before, inside_after) = match part {
            Part::Remark => return Ok(()),
            Part::Whole => (false, false),
            Part::First => (false, true),
            Part::Middle => (true, true),
            Part::Last => (true, false),
        };
        let before = self.inside.replace(inside_after);
        match before {
            Some(before) if before != inside_before => Err("a record with a part missing"),
            _ => Ok(()),
        }
    }
}

/// The meaning of a type; or what is wrong with it.
fn part(kind: u8) -> Result<Part, &'static str> {
    Ok(match kind {
        1 => Part::Whole,
        2 => Part::First,
        3 => Part::Middle,
        4 => Part::Last,
        9 | 10 | 130 => Part::Remark,
        5..=8 | 11 | 131 => return Err(OVERWRITING),
        _ => return Err("a record of unknown type"),
    })
}

/// Checksums of data that may contain checksums are masked.
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xA282_EAD8)
}

/// Past its end a log is zeros: space that was allocated beforehand.
fn check_zeros(
    source: &mut Source<'_>,
    mut start: u64,
    found: &mut dyn FnMut(Damage),
) -> Result<Option<u64>, Flaw> {
    while start < source.len_bytes {
        let len = (source.len_bytes - start).min(BLOCK_LEN_BYTES as u64) as usize;
        if source.read(start, len)?.iter().any(|&byte| byte != 0) {
            found(Damage::at(start, "bytes follow the end of the log"));
            break;
        }
        start += len as u64;
    }
    Ok(None)
}
