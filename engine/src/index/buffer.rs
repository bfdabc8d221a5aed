//! Vectors in memory that the processor finds fast, wherever in it one lies.

use std::ops::Deref;

use zerocopy::{FromBytes, IntoBytes};

use crate::error::{Error, ErrorKind, Result};
use crate::os::memory::GrowingBytes;

/// Vectors of one length, one behind the other, in huge pages where there are any.
#[derive(Debug)]
pub struct VectorBuffer {
    dimensions: usize,
    bytes: GrowingBytes,
    numbers_count: usize,
}

impl VectorBuffer {
    /// Makes room for so many vectors; memory is taken when they come.
    ///
    /// # Errors
    /// [`ErrorKind::Full`] if the address space is limited.
    pub fn with_capacity(dimensions: usize, vectors_count: usize) -> Result<Self> {
        let len_bytes = dimensions
            .checked_mul(vectors_count)
            .and_then(|numbers_count| numbers_count.checked_mul(size_of::<f32>()))
            .ok_or_else(|| {
                let what = format!("{vectors_count} vectors of {dimensions} numbers");
                Error::new(ErrorKind::Full, format!("there is no memory for {what}"))
            })?;
        Ok(Self { dimensions, bytes: GrowingBytes::new(len_bytes)?, numbers_count: 0 })
    }

    /// Adds a vector. Shape: `[dimensions]`.
    ///
    /// # Errors
    /// [`ErrorKind::Full`] if memory is short, or there are as many as there was made room for;
    /// [`ErrorKind::Invalid`] for a vector of another length.
    pub fn push(&mut self, vector: &[f32]) -> Result<()> {
        if vector.len() != self.dimensions {
            let (found, expected) = (vector.len(), self.dimensions);
            let context = format!("a vector of {found} numbers, not {expected}");
            return Err(Error::new(ErrorKind::Invalid, context));
        }
        let (start, end) = (self.numbers_count, self.numbers_count + vector.len());
        self.bytes.grow_to(end * size_of::<f32>())?;
        let place = &mut self.bytes[start * size_of::<f32>()..end * size_of::<f32>()];
        place.copy_from_slice(vector.as_bytes());
        self.numbers_count = end;
        Ok(())
    }
}

impl Deref for VectorBuffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        let bytes = &self.bytes[..self.numbers_count * size_of::<f32>()];
        <[f32]>::ref_from_bytes(bytes).expect("memory begins at a page")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_pushed_lies_there_in_order() {
        let mut buffer = VectorBuffer::with_capacity(3, 1000).unwrap();
        assert!(buffer.is_empty());
        for row in 0..1000 {
            buffer.push(&[row as f32, 0.5, -1.0]).unwrap();
        }
        assert_eq!((buffer.len(), &buffer[2997..]), (3000, &[999.0, 0.5, -1.0][..]));
        assert_eq!(buffer.push(&[1.0]).unwrap_err().kind(), ErrorKind::Invalid);
        let none = VectorBuffer::with_capacity(usize::MAX, 2).unwrap_err();
        assert_eq!(none.kind(), ErrorKind::Full);
    }
}
