//! Vectors that the processor finds fast, wherever in memory or in the map of a file one lies.

use std::fs::File;
use std::ops::{Deref, Range};
use std::path::Path;

use zerocopy::{FromBytes, IntoBytes};

use crate::error::{Error, ErrorKind, Result};
use crate::os::map::{Map, MapUse};
use crate::os::memory::{GrowingBytes, Pages, Reservation};

/// Vectors of one length, one behind the other, in huge pages where there are any.
#[derive(Debug)]
pub struct VectorBuffer {
    dimensions: usize,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Memory { bytes: GrowingBytes, numbers_count: usize },
    Mapped { map: Map, range: Range<usize> },
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
        let bytes = GrowingBytes::new(Reservation::new(len_bytes)?, Pages::Huge);
        let place = Place::Memory { bytes, numbers_count: 0 };
        Ok(Self { dimensions, place })
    }

    /// Maps a file whose vectors begin at this byte; nobody may change them meanwhile. `None` if they
    /// are not where a processor can read them.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if the file is too short; what the kernel refuses.
    pub fn map(
        path: &Path,
        start_bytes: usize,
        dimensions: usize,
        vectors_count: usize,
    ) -> Result<Option<Self>> {
        let numbers_count = dimensions.saturating_mul(vectors_count);
        let end_bytes = numbers_count.saturating_mul(size_of::<f32>()).saturating_add(start_bytes);
        let is_aligned = start_bytes.is_multiple_of(align_of::<f32>());
        if !is_aligned || numbers_count == 0 || cfg!(target_endian = "big") {
            return Ok(None);
        }
        let file = File::open(path).map_err(|error| Error::io("open", path, error))?;
        let map = Map::open(&file, path, None, end_bytes, MapUse::Whole)?;
        Ok(Some(Self { dimensions, place: Place::Mapped { map, range: start_bytes..end_bytes } }))
    }

    /// Adds a vector. Shape: `[dimensions]`.
    ///
    /// # Errors
    /// [`ErrorKind::Full`] if memory is short, or there are as many as there was made room for;
    /// [`ErrorKind::Invalid`] for a vector of another length, or if it is a map.
    pub fn push(&mut self, vector: &[f32]) -> Result<()> {
        if vector.len() != self.dimensions {
            let (found, expected) = (vector.len(), self.dimensions);
            let context = format!("a vector of {found} numbers, not {expected}");
            return Err(Error::new(ErrorKind::Invalid, context));
        }
        let Place::Memory { bytes, numbers_count } = &mut self.place else {
            return Err(Error::new(ErrorKind::Invalid, "what is mapped is not written"));
        };
        let (start, end) = (*numbers_count, *numbers_count + vector.len());
        bytes.grow_to(end * size_of::<f32>())?;
        let place = &mut bytes[start * size_of::<f32>()..end * size_of::<f32>()];
        place.copy_from_slice(vector.as_bytes());
        *numbers_count = end;
        Ok(())
    }
}

impl Deref for VectorBuffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        let bytes = match &self.place {
            Place::Memory { bytes, numbers_count } => &bytes[..numbers_count * size_of::<f32>()],
            Place::Mapped { map, range } => &map.bytes()[range.clone()],
        };
        <[f32]>::ref_from_bytes(bytes).expect("whole numbers were aligned")
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

    #[test]
    fn a_file_is_read_where_it_lies() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let numbers = [1.0_f32, 2.0, 3.0, 4.0];
        std::fs::write(file.path(), [&[0; 8], numbers.as_bytes()].concat()).unwrap();
        let map = |start, count| VectorBuffer::map(file.path(), start, 2, count);
        let mut mapped = map(8, 2).unwrap().unwrap();
        assert_eq!(*mapped, numbers);
        assert_eq!(mapped.push(&[1.0, 2.0]).unwrap_err().kind(), ErrorKind::Invalid);
        assert!(map(3, 1).unwrap().is_none() && map(8, 0).unwrap().is_none());
        assert_eq!(map(8, 3).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}
