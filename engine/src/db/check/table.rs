//! Checks a table of RocksDB: every block against its checksum, whatever it holds.
//!
//! A table is blocks, and a footer that leads to them: it names the metaindex, which names the
//! index, which names the blocks of data. A block is its content, one byte that says how it is
//! compressed, and a checksum of both that depends on where the block lies:
//! XXH3-64(content), its lower half, xor compression times a prime, plus a modifier.
//!
//! | offset | size | field | |
//! |---|---|---|---|
//! | 0 | 1 | checksum_type | 4: XXH3 |
//! | 1 | 4 | extended_magic | `3e 00 7a 00` |
//! | 5 | 4 | footer_checksum | of the footer with zeros in its place |
//! | 9 | 4 | checksum_base | what the modifiers are made of |
//! | 13 | 4 | metaindex_len | bytes of the block right before the footer |
//! | 17 | 24 | reserved | |
//! | 41 | 4 | version | 6 or 7 |
//! | 45 | 8 | magic | |
//!
//! Source: RocksDB's table/format.cc and table/block_based (version 11.8); the numbers and names
//! are theirs. Older footers, and indexes in several parts, are not written by this engine.

use xxhash_rust::xxh3::xxh3_64;

use super::{Damage, Flaw, KeyRange, Source, lz4};

const FOOTER_LEN_BYTES: usize = 53;
const TRAILER_LEN_BYTES: u64 = 5;
const MAGIC: u64 = 0x88E2_41B7_85F4_CFF7;
const EXTENDED_MAGIC: [u8; 4] = [0x3E, 0x00, 0x7A, 0x00];
const CHECKSUM_XXH3: u8 = 4;
const LAST_BYTE_PRIME: u32 = 0x6B90_83D9;
const UNCOMPRESSED: u8 = 0;
const LZ4: u8 = 4;
/// Of a sequence and a kind, which follow a user's key in a full one.
const KEY_SUFFIX_LEN_BYTES: usize = 8;

/// Where a block lies.
#[derive(Clone, Copy)]
struct Handle {
    offset: u64,
    len: u64,
}

/// What the properties say about the index.
struct IndexForm {
    values_are_deltas: bool,
    keys_are_whole: bool,
}

struct Table<'a, 's> {
    source: &'a mut Source<'s>,
    checksum_base: u32,
    blocks_end: u64,
    /// Bytes of blocks that were reached, which must be all there are.
    covered_bytes: u64,
}

/// Reads a table and hands what is wrong to `found`.
pub(super) fn check(source: &mut Source<'_>, found: &mut dyn FnMut(Damage)) -> Result<(), Flaw> {
    let Some(blocks_end) = source.len_bytes.checked_sub(FOOTER_LEN_BYTES as u64) else {
        return Err(Flaw::Damaged(Damage::at(0, "the file is too short for a table")));
    };
    let footer = source.read(blocks_end, FOOTER_LEN_BYTES)?;
    let (checksum_base, metaindex_len) = decode_footer(&footer, blocks_end)
        .map_err(|what| Flaw::Damaged(Damage::at(blocks_end, what)))?;
    let metaindex_end = blocks_end.saturating_sub(TRAILER_LEN_BYTES);
    let metaindex =
        Handle { offset: metaindex_end.saturating_sub(metaindex_len), len: metaindex_len };
    let mut table = Table { source, checksum_base, blocks_end, covered_bytes: 0 };
    let (properties, index) = table.check_metaindex(metaindex, found)?;
    let form = index_form(&properties)
        .ok_or_else(|| Flaw::Damaged(Damage::at(blocks_end, "the properties of the table")))?;
    let blocks = data_blocks(&index, &form)
        .ok_or_else(|| Flaw::Damaged(Damage::at(blocks_end, "the entries of the index")))?;
    let mut after: Vec<u8> = Vec::new();
    for (until, block) in blocks {
        match table.block(block, "the checksum of a block of data") {
            Err(Flaw::Damaged(damage)) => {
                let keys = KeyRange { after, until: until.clone() };
                found(Damage { keys: Some(keys), ..damage });
            }
            content => drop(content?),
        }
        after = until;
    }
    if table.covered_bytes != blocks_end {
        found(Damage::at(0, "some bytes belong to no block of the table"));
    }
    Ok(())
}

impl Table<'_, '_> {
    /// Checks the metaindex and the blocks it names; returns the properties and the index.
    fn check_metaindex(
        &mut self,
        handle: Handle,
        found: &mut dyn FnMut(Damage),
    ) -> Result<(Vec<u8>, Vec<u8>), Flaw> {
        let malformed = |what| Flaw::Damaged(Damage::at(handle.offset, what));
        let metaindex = self.block(handle, "the checksum of the metaindex")?;
        let metaindex = decompressed(metaindex).ok_or_else(|| malformed("the metaindex"))?;
        let entries = entries(&metaindex).ok_or_else(|| malformed("the metaindex"))?;
        let (mut properties, mut index) = (None, None);
        for (name, value) in entries {
            let handle = handle_of(&mut &value[..]).ok_or_else(|| malformed("the metaindex"))?;
            let content = match &name[..] {
                b"rocksdb.properties" => &mut properties,
                b"rocksdb.index" => &mut index,
                // Filters, and ranges removed. Without a filter RocksDB reads more; it says nothing.
                _ => match self.block(handle, "the checksum of a filter or of removed ranges") {
                    Err(Flaw::Damaged(damage)) => {
                        found(damage);
                        continue;
                    }
                    content => {
                        drop(content?);
                        continue;
                    }
                },
            };
            let block = self.block(handle, "the checksum of the index or of the properties")?;
            *content = decompressed(block);
        }
        let missing = || malformed("the index or the properties");
        Ok((properties.ok_or_else(missing)?, index.ok_or_else(missing)?))
    }

    /// Reads a block and checks it; its last five bytes are the trailer.
    fn block(&mut self, handle: Handle, what: &'static str) -> Result<Vec<u8>, Flaw> {
        let damaged = || Flaw::Damaged(Damage::at(handle.offset, what));
        let len = handle.len.checked_add(TRAILER_LEN_BYTES).ok_or_else(damaged)?;
        if handle.offset.checked_add(len).is_none_or(|end| end > self.blocks_end) {
            return Err(damaged());
        }
        self.covered_bytes += len;
        let block = self.source.read(handle.offset, len as usize)?;
        let (content, trailer) = block.split_at(handle.len as usize);
        let stored = u32::from_le_bytes([trailer[1], trailer[2], trailer[3], trailer[4]]);
        let modifier = modifier(self.checksum_base, handle.offset);
        if stored != checksum(content, trailer[0]).wrapping_add(modifier) {
            return Err(damaged());
        }
        Ok(block)
    }
}

fn checksum(content: &[u8], last: u8) -> u32 {
    xxh3_64(content) as u32 ^ u32::from(last).wrapping_mul(LAST_BYTE_PRIME)
}

/// Makes the checksum of a block that lies elsewhere, or in another file, a wrong one.
fn modifier(base: u32, offset: u64) -> u32 {
    base ^ (offset as u32).wrapping_add((offset >> 32) as u32)
}

/// Returns the base of the checksums and the length of the metaindex.
fn decode_footer(footer: &[u8], offset: u64) -> Result<(u32, u64), &'static str> {
    let number = |at: usize| -> u32 {
        u32::from_le_bytes([footer[at], footer[at + 1], footer[at + 2], footer[at + 3]])
    };
    let magic = u64::from(number(49)) << 32 | u64::from(number(45));
    if magic != MAGIC || footer[1..5] != EXTENDED_MAGIC {
        return Err("the footer is not that of a table");
    }
    if footer[0] != CHECKSUM_XXH3 || !(6..=7).contains(&number(41)) {
        return Err("the table has a version or a kind of checksum that this engine never writes");
    }
    let (stored, base) = (number(5), number(9));
    let mut without = footer.to_vec();
    without[5..9].fill(0);
    let (last, head) = (without[FOOTER_LEN_BYTES - 1], &without[..FOOTER_LEN_BYTES - 1]);
    if base == 0 || stored != checksum(head, last).wrapping_add(modifier(base, offset)) {
        return Err("the checksum of the footer");
    }
    Ok((base, number(13).into()))
}

/// The content of a block; `None` if it cannot be decompressed.
fn decompressed(mut block: Vec<u8>) -> Option<Vec<u8>> {
    let len = block.len() - TRAILER_LEN_BYTES as usize;
    let compression = block[len];
    block.truncate(len);
    match compression {
        UNCOMPRESSED => Some(block),
        LZ4 => {
            let mut input = &block[..];
            let len = usize::try_from(varint(&mut input)?).ok()?;
            lz4::decompress(input, len)
        }
        _ => None,
    }
}

/// The part of a block that holds its entries, before the list of where keys are whole.
fn entries_part(block: &[u8]) -> Option<&[u8]> {
    let (rest, last) = block.split_last_chunk::<4>()?;
    let packed = u32::from_le_bytes(*last);
    // The upper bits are features; one says something about the keys that changes nothing here.
    const KEYS_ARE_EVEN: u32 = 1 << 29;
    let restarts_count = packed & 0x0FFF_FFFF;
    if packed & !KEYS_ARE_EVEN != restarts_count {
        return None;
    }
    rest.len().checked_sub(4 * restarts_count as usize).map(|end| &rest[..end])
}

/// The keys and values of a block whose entries say how long their values are.
fn entries(block: &[u8]) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut input = entries_part(block)?;
    let (mut entries, mut key) = (Vec::new(), Vec::new());
    while !input.is_empty() {
        let (shared, own) = (varint(&mut input)?, varint(&mut input)?);
        let value_len = varint(&mut input)?;
        extend_key(&mut key, shared, take(&mut input, own)?)?;
        entries.push((key.clone(), take(&mut input, value_len)?.to_vec()));
    }
    Some(entries)
}

fn index_form(properties: &[u8]) -> Option<IndexForm> {
    let properties = entries(properties)?;
    let number = |name: &[u8]| {
        let value = properties.iter().find(|(found, _)| found == name);
        value.map_or(Some(0), |(_, value)| varint(&mut &value[..]))
    };
    let kind = properties
        .iter()
        .find(|(name, _)| name == b"rocksdb.block.based.table.index.type")
        .is_none_or(|(_, value)| value[..] == [0; 4]);
    Some(IndexForm {
        values_are_deltas: number(b"rocksdb.index.value.is.delta.encoded")? != 0,
        keys_are_whole: number(b"rocksdb.index.key.is.user.key")? != 0,
    })
    .filter(|_| kind)
}

/// The blocks of data, each with a key that none of its keys is greater than.
fn data_blocks(index: &[u8], form: &IndexForm) -> Option<Vec<(Vec<u8>, Handle)>> {
    let mut input = entries_part(index)?;
    let mut blocks: Vec<(Vec<u8>, Handle)> = Vec::new();
    let mut key = Vec::new();
    while !input.is_empty() {
        let (shared, own) = (varint(&mut input)?, varint(&mut input)?);
        if !form.values_are_deltas {
            varint(&mut input)?;
        }
        extend_key(&mut key, shared, take(&mut input, own)?)?;
        let handle = match blocks.last() {
            // Behind the one before; only the difference of their lengths is stored.
            Some((_, previous)) if form.values_are_deltas && shared > 0 => {
                let zigzag = varint(&mut input)?;
                let difference = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
                let previous_end = previous.offset.checked_add(previous.len)?;
                Handle {
                    offset: previous_end.checked_add(TRAILER_LEN_BYTES)?,
                    len: previous.len.checked_add_signed(difference)?,
                }
            }
            _ => handle_of(&mut input)?,
        };
        let whole_len = match form.keys_are_whole {
            true => key.len(),
            false => key.len().checked_sub(KEY_SUFFIX_LEN_BYTES)?,
        };
        blocks.push((key[..whole_len].to_vec(), handle));
    }
    Some(blocks)
}

fn handle_of(input: &mut &[u8]) -> Option<Handle> {
    Some(Handle { offset: varint(input)?, len: varint(input)? })
}

fn extend_key(key: &mut Vec<u8>, shared: u64, own: &[u8]) -> Option<()> {
    let shared = usize::try_from(shared).ok().filter(|shared| *shared <= key.len())?;
    key.truncate(shared);
    key.extend_from_slice(own);
    Some(())
}

fn take<'a>(input: &mut &'a [u8], len: u64) -> Option<&'a [u8]> {
    let (taken, rest) = input.split_at_checked(usize::try_from(len).ok()?)?;
    *input = rest;
    Some(taken)
}

/// A number of seven bits a byte, the lowest first.
fn varint(input: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let (byte, rest) = input.split_first()?;
        *input = rest;
        number |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}
