//! Where the bytes of rows lie: in memory, or in the map of a file until they are changed.

use std::ops::{Deref, Range};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::arena::Placement;
use crate::error::{Error, ErrorKind, Result};
use crate::os::memory::{GrowingBytes, Pages, Reservation};
use crate::pages::CheckedMap;

/// Address space that rows may grow into without moving, where there is so much.
const RESERVED_BYTES: usize = 64 << 30;
/// Rows that are compared with their checksums together take about so many bytes.
const PART_BYTES: usize = 16 << 10;
/// Rows that are brought in together when all are wanted take about so many bytes.
const POPULATED_BYTES: usize = 2 << 20;

/// The bytes of rows, one behind the other.
pub(super) enum Storage {
    Memory(GrowingBytes),
    Mapped(Arc<MappedRows>),
}

impl Storage {
    /// Zeros, and room for many more.
    pub(super) fn zeros(len_bytes: usize, placement: &Placement) -> Result<Self> {
        Ok(Self::Memory(zeros(len_bytes, (placement, 0))?))
    }

    /// Makes it at least so long.
    pub(super) fn grow_to(&mut self, len_bytes: usize, placement: &Placement) -> Result<()> {
        if let Self::Memory(bytes) = self
            && bytes.grow_to(len_bytes).is_ok()
        {
            return Ok(());
        }
        // Beyond what could be reserved.
        let more_bytes = len_bytes + len_bytes / 2;
        let mut moved = reserved(more_bytes, (placement, 0))?;
        moved.grow_to(len_bytes)?;
        let len_before = self.len().min(len_bytes);
        moved[..len_before].copy_from_slice(&self[..len_before]);
        *self = Self::Memory(moved);
        Ok(())
    }

    /// # Panics
    /// If it is mapped.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Memory(bytes) => bytes,
            Self::Mapped(_) => panic!("what is mapped is not written"),
        }
    }
}

impl Deref for Storage {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Self::Memory(bytes) => bytes,
            Self::Mapped(rows) => &rows.map.bytes()[rows.range.clone()],
        }
    }
}

/// Zeros, and room for many more, for one of the copies that there may be.
pub(super) fn zeros(
    len_bytes: usize,
    (placement, copy): (&Placement, usize),
) -> Result<GrowingBytes> {
    let mut bytes = reserved(len_bytes.max(RESERVED_BYTES), (placement, copy))
        .or_else(|_| reserved(len_bytes, (placement, copy)))?;
    bytes.grow_to(len_bytes)?;
    Ok(bytes)
}

fn reserved(len_bytes_max: usize, (placement, copy): (&Placement, usize)) -> Result<GrowingBytes> {
    let reservation = Reservation::new(len_bytes_max)?;
    placement.place_copy(&reservation, copy);
    Ok(GrowingBytes::new(reservation, Pages::Huge))
}

/// Rows in a file, of which none is believed before its pages were compared with their checksums.
pub(super) struct MappedRows {
    map: Arc<CheckedMap>,
    range: Range<usize>,
    stride_bytes: usize,
    /// Rows are checked in parts of two to this power.
    part_shift: u32,
    /// A bit for each part: whether it was checked.
    checked: Vec<AtomicU64>,
    failure: OnceLock<Error>,
}

impl MappedRows {
    pub(super) fn new(map: Arc<CheckedMap>, range: Range<usize>, stride_bytes: usize) -> Self {
        let part_shift = (PART_BYTES / stride_bytes).max(1).ilog2();
        let rows_count = range.len() / stride_bytes;
        let parts_count = (rows_count >> part_shift) + 1;
        let checked = (0..parts_count.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Self { map, range, stride_bytes, part_shift, checked, failure: OnceLock::new() }
    }

    /// The rows that are checked together with one.
    pub(super) fn part_of(&self, id: u32) -> Range<u32> {
        let rows_count = (self.range.len() / self.stride_bytes) as u32;
        let start = id >> self.part_shift << self.part_shift;
        start..rows_count.min(start + (1 << self.part_shift))
    }

    /// Brings in a row and those that follow it, unless it was read before; returns the first that was
    /// left out.
    pub(super) fn populate(&self, id: u32) -> u32 {
        let rows_count = (POPULATED_BYTES / self.stride_bytes).max(1) as u32;
        if !self.is_checked(id) {
            let start = self.range.start + id as usize * self.stride_bytes;
            let len_bytes = rows_count as usize * self.stride_bytes;
            self.map.populate(start..(start + len_bytes).min(self.range.end));
        }
        id.saturating_add(rows_count)
    }

    /// Whether a row was found to be right.
    #[inline]
    pub(super) fn is_checked(&self, id: u32) -> bool {
        let part = id >> self.part_shift;
        // Nothing else is published by this bit: the file never changes.
        self.checked[part as usize / 64].load(Ordering::Relaxed) & 1 << (part % 64) != 0
    }

    /// Compares the part that a row is in with its checksums, and looks at its rows; says whether it
    /// may be read.
    #[cold]
    pub(super) fn check(&self, id: u32, look: impl Fn(Range<u32>) -> Result<()>) -> bool {
        let rows = self.part_of(id);
        let at = |row: u32| (self.range.start + row as usize * self.stride_bytes) as u64;
        let verified = self.map.verify(at(rows.start)..at(rows.end)).and_then(|()| look(rows));
        match verified {
            Ok(()) => {
                let part = id >> self.part_shift;
                self.checked[part as usize / 64].fetch_or(1 << (part % 64), Ordering::Relaxed);
                true
            }
            Err(error) => {
                _ = self.failure.set(error);
                false
            }
        }
    }

    pub(super) fn is_damaged(&self) -> bool {
        self.map.is_damaged() || self.failure.get().is_some()
    }

    /// What was wrong, once something was.
    pub(super) fn failure(&self) -> Option<Error> {
        self.failure.get().map(|error| {
            let error = Error::new(ErrorKind::Corrupt, error.to_string());
            error.with_remedy("remove it, so that it is made anew")
        })
    }
}
