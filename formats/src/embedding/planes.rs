//! Byte planes: byte 0 of every element, then byte 1 of every element, and so on. The
//! layout stands in the module above.
//!
//! The last byte of a float holds its sign and most of its exponent. The exponents of
//! a vector resemble each other and compress; signs and mantissas are noise and do
//! not. So that all of the exponent falls in one plane and the sign in another, each
//! float is first rotated left by one bit.

use std::cell::RefCell;

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::compress_bound;

use crate::FormatError;

/// Level of zstd. Planes are so short that higher levels find nothing more.
const LEVEL: i32 = 3;

thread_local! {
    // To make a context costs several times more than to use it on a plane, and a
    // context has no state that outlives one frame.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Packs plain `elements`, of `element_len` bytes each, if that saves a sixteenth.
pub(super) fn pack(elements: &[u8], element_len: usize) -> Option<Vec<u8>> {
    let dimensions = elements.len() / element_len;
    let mut rotated = elements.to_vec();
    rotate_left(&mut rotated, element_len, 1);
    let mut frame = vec![0; compress_bound(dimensions)];
    let mut table = Vec::with_capacity(2 * element_len);
    let mut planes = Vec::with_capacity(elements.len());
    for index in 0..element_len {
        let plane: Vec<u8> = rotated.iter().skip(index).step_by(element_len).copied().collect();
        let packed_len = match compress(&plane, &mut frame) {
            Some(len) if len < dimensions => {
                planes.extend_from_slice(&frame[..len]);
                len
            }
            // A plane that does not become smaller is kept raw.
            _ => {
                planes.extend_from_slice(&plane);
                0
            }
        };
        // It fits: it is less than the number of dimensions, which is 65,536 at most.
        table.extend_from_slice(&(packed_len as u16).to_le_bytes());
    }
    if table.len() + planes.len() > elements.len() - elements.len() / 16 {
        return None;
    }
    table.append(&mut planes);
    Some(table)
}

/// Checks that `packed` has planes for so many elements, without decompressing them.
pub(super) fn check(
    packed: &[u8],
    dimensions: usize,
    element_len: usize,
) -> Result<(), FormatError> {
    let table_len = 2 * element_len;
    if packed.len() < table_len {
        return Err(FormatError::TooShort { needed: table_len as u64, given: packed.len() as u64 });
    }
    let (table, planes) = packed.split_at(table_len);
    let mut expected = 0;
    for packed_len in packed_lens(table) {
        if packed_len >= dimensions {
            return Err(FormatError::TooLarge {
                what: "length of a compressed plane in bytes",
                found: packed_len as u64,
                limit: dimensions as u64 - 1,
            });
        }
        expected += plane_len(packed_len, dimensions);
    }
    if planes.len() != expected {
        return Err(FormatError::Mismatch {
            what: "length of the planes in bytes",
            expected: expected as u64,
            found: planes.len() as u64,
        });
    }
    Ok(())
}

/// Unpacks what [`check`] has checked to plain elements.
pub(super) fn unpack(
    packed: &[u8],
    dimensions: usize,
    element_len: usize,
) -> Result<Vec<u8>, FormatError> {
    let (table, mut planes) = packed.split_at(2 * element_len);
    let mut elements = vec![0; dimensions * element_len];
    let mut decompressed = Vec::new();
    for (index, packed_len) in packed_lens(table).enumerate() {
        let (packed_plane, rest) = planes.split_at(plane_len(packed_len, dimensions));
        planes = rest;
        let plane = if packed_len == 0 {
            packed_plane
        } else {
            decompressed.resize(dimensions, 0);
            match decompress(packed_plane, &mut decompressed) {
                Some(len) if len == dimensions => &decompressed[..],
                _ => return Err(FormatError::Compression { plane: index as u8 }),
            }
        };
        for (element, byte) in elements.chunks_exact_mut(element_len).zip(plane) {
            element[index] = *byte;
        }
    }
    // Rotating by all bits but one undoes a rotation by one.
    rotate_left(&mut elements, element_len, 8 * element_len as u32 - 1);
    Ok(elements)
}

/// Compresses to `frame` and returns the length, if there is memory and room.
fn compress(plane: &[u8], frame: &mut [u8]) -> Option<usize> {
    let used = COMPRESSOR.try_with(|context| {
        let mut context = context.borrow_mut();
        let context = match &mut *context {
            Some(context) => context,
            none => none.insert(Compressor::new(LEVEL).ok()?),
        };
        context.compress_to_buffer(plane, frame).ok()
    });
    used.ok().flatten()
}

/// Decompresses to `plane` and returns the length, unless the frame is damaged or
/// holds more; nothing is written past the end, whatever length the frame claims.
fn decompress(frame: &[u8], plane: &mut [u8]) -> Option<usize> {
    let used = DECOMPRESSOR.try_with(|context| {
        let mut context = context.borrow_mut();
        let context = match &mut *context {
            Some(context) => context,
            none => none.insert(Decompressor::new().ok()?),
        };
        context.decompress_to_buffer(frame, plane).ok()
    });
    used.ok().flatten()
}

fn packed_lens(table: &[u8]) -> impl Iterator<Item = usize> {
    table.as_chunks().0.iter().map(|len| usize::from(u16::from_le_bytes(*len)))
}

fn plane_len(packed_len: usize, dimensions: usize) -> usize {
    if packed_len == 0 { dimensions } else { packed_len }
}

/// Rotates every float; codes of one byte have no exponent and stay as they are.
fn rotate_left(elements: &mut [u8], element_len: usize, bits: u32) {
    match element_len {
        2 => {
            for element in elements.as_chunks_mut().0 {
                *element = u16::from_le_bytes(*element).rotate_left(bits).to_le_bytes();
            }
        }
        4 => {
            for element in elements.as_chunks_mut().0 {
                *element = u32::from_le_bytes(*element).rotate_left(bits).to_le_bytes();
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Elements that compress: exponents near each other, noise below.
    fn elements(dimensions: usize) -> Vec<u8> {
        (0..dimensions)
            .flat_map(|index| (0.05 * ((index * index) as f32).sin()).to_le_bytes())
            .collect()
    }

    #[test]
    fn planes_come_back() {
        for element_len in [1, 2, 4] {
            let elements = match element_len {
                4 => elements(300),
                // Repeated bytes compress whatever their width.
                _ => [7, 60].repeat(150 * element_len),
            };
            let dimensions = elements.len() / element_len;
            let packed = pack(&elements, element_len).unwrap();
            assert_eq!(check(&packed, dimensions, element_len), Ok(()));
            assert_eq!(unpack(&packed, dimensions, element_len), Ok(elements));
        }
    }

    #[test]
    fn a_wrong_table_is_refused() {
        let packed = pack(&elements(300), 4).unwrap();
        assert_eq!(check(&packed[..7], 300, 4), Err(FormatError::TooShort { needed: 8, given: 7 }));
        assert!(matches!(
            check(&packed[..packed.len() - 1], 300, 4),
            Err(FormatError::Mismatch { .. })
        ));
        let mut too_long = packed.clone();
        too_long[..2].copy_from_slice(&300_u16.to_le_bytes());
        assert!(matches!(
            check(&too_long, 300, 4),
            Err(FormatError::TooLarge { found: 300, limit: 299, .. })
        ));
    }

    #[test]
    fn a_frame_of_another_length_is_refused() {
        for wrong in [299, 301, 100_000] {
            let frame = zstd::bulk::compress(&vec![0; wrong], LEVEL).unwrap();
            let packed = [&(frame.len() as u16).to_le_bytes()[..], &frame].concat();
            assert_eq!(check(&packed, 300, 1), Ok(()));
            assert_eq!(unpack(&packed, 300, 1), Err(FormatError::Compression { plane: 0 }));
        }
    }
}
