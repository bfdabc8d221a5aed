//! Plain elements: numbers to bytes and back, in each encoding.

use half::f16;
use half::slice::HalfFloatSliceExt;
use zerocopy::IntoBytes;

use super::{Encoding, check_finite};
use crate::FormatError;

/// Largest code. The one code without an opposite is never written.
const CODE_MAX: f32 = 127.0;

/// Numbers converted at once: a vector of them fits on the stack.
const BLOCK_LEN: usize = 64;

/// Appends the scale, if there is one, and the plain elements.
pub(super) fn push(
    vector: &[f32],
    encoding: Encoding,
    bytes: &mut Vec<u8>,
) -> Result<(), FormatError> {
    match encoding {
        Encoding::F32 if cfg!(target_endian = "little") => {
            bytes.extend_from_slice(vector.as_bytes());
        }
        Encoding::F32 => bytes.extend(vector.iter().flat_map(|number| number.to_le_bytes())),
        Encoding::F16 => {
            for (block_index, block) in vector.chunks(BLOCK_LEN).enumerate() {
                let mut halves = [f16::ZERO; BLOCK_LEN];
                let halves = &mut halves[..block.len()];
                halves.convert_from_f32_slice(block);
                if let Some(index) = halves.iter().position(|half| !half.is_finite()) {
                    let index = (block_index * BLOCK_LEN + index) as u64;
                    return Err(FormatError::NotRepresentable { index, encoding: "f16" });
                }
                bytes.extend(halves.iter().flat_map(|half| half.to_le_bytes()));
            }
        }
        Encoding::I8 => {
            let scale = scale_of(vector);
            bytes.extend_from_slice(&scale.to_le_bytes());
            bytes.extend(vector.iter().map(|&number| code_of(number, scale) as u8));
        }
    }
    Ok(())
}

/// Decodes 16-bit floats, of which there is one for each number of `vector`.
pub(crate) fn decode_f16(elements: &[u8], vector: &mut [f32]) {
    let (pairs, _) = elements.as_chunks::<2>();
    for (numbers, pairs) in vector.chunks_mut(BLOCK_LEN).zip(pairs.chunks(BLOCK_LEN)) {
        let mut halves = [f16::ZERO; BLOCK_LEN];
        let halves = &mut halves[..pairs.len()];
        for (half, pair) in halves.iter_mut().zip(pairs) {
            *half = f16::from_le_bytes(*pair);
        }
        halves.convert_to_f32_slice(numbers);
    }
}

/// Returns the scale that maps the largest magnitude of `vector` to the largest code.
fn scale_of(vector: &[f32]) -> f32 {
    let largest = vector.iter().fold(0.0_f32, |largest, number| largest.max(number.abs()));
    let scale = largest / CODE_MAX;
    // Rounding may have gone up, and the largest code must not become infinite.
    if (scale * CODE_MAX).is_finite() { scale } else { scale.next_down() }
}

/// Rounds to the nearest code, halves away from zero.
fn code_of(number: f32, scale: f32) -> i8 {
    // A vector of zeros, or of numbers so small that the scale vanishes.
    if scale == 0.0 {
        return 0;
    }
    // To add a half and cut is vector code on every processor; `round` is a call on
    // those without SSE 4.1.
    let scaled = (number / scale).clamp(-CODE_MAX, CODE_MAX);
    (scaled + 0.5_f32.copysign(scaled)) as i8
}

/// Decodes plain elements, of which there is one for each number of `vector`.
pub(super) fn decode(
    elements: &[u8],
    encoding: Encoding,
    scale: f32,
    vector: &mut [f32],
) -> Result<(), FormatError> {
    match encoding {
        Encoding::F32 if cfg!(target_endian = "little") => {
            vector.as_mut_bytes().copy_from_slice(elements);
            check_finite(vector)
        }
        Encoding::F32 => {
            for (number, bytes) in vector.iter_mut().zip(elements.as_chunks().0) {
                *number = f32::from_le_bytes(*bytes);
            }
            check_finite(vector)
        }
        Encoding::F16 => {
            decode_f16(elements, vector);
            check_finite(vector)
        }
        Encoding::I8 => {
            let lowest = i8::MIN as u8;
            if elements.contains(&lowest) {
                return Err(FormatError::UnknownTag { what: "i8 code", found: lowest });
            }
            // The scale has been checked, so that no product is infinite.
            for (number, code) in vector.iter_mut().zip(elements) {
                *number = f32::from(*code as i8) * scale;
            }
            Ok(())
        }
    }
}

/// Checks that no code times `scale` is infinite.
pub(super) fn check_scale(scale: f32) -> Result<f32, FormatError> {
    if scale.is_sign_negative() || !(scale * CODE_MAX).is_finite() {
        return Err(FormatError::InvalidScale { found_bits: scale.to_bits() });
    }
    Ok(scale)
}
