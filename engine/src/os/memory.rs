//! Anonymous memory: address space reserved at once, given memory piece by piece.
//!
//! Memory that is given begins at a multiple of [`REGION_BYTES`] and can ask for huge pages, so that
//! a random access costs one entry of the translation cache, not one of hundreds of thousands.
//! Where there are none, ordinary pages serve. Reserved address space counts for nothing, neither
//! in resident memory nor against the kernel's overcommit limit.

use std::ops::Range;
use std::ptr::NonNull;

use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags};

use crate::error::{Error, ErrorKind, Result};

/// The unit in which memory is given: one huge page of x86-64 and of AArch64 with 4 KiB pages.
pub(crate) const REGION_BYTES: usize = 2 << 20;

/// In what pages memory is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pages {
    /// In huge ones where there are any: a whole region counts as soon as a byte of it is touched.
    Huge,
    /// In huge ones behind the first region. Whoever opens a store for one question touches a little of
    /// each reservation, and on a virtual machine zeros for a huge page take 1 ms.
    HugeBehindFirst,
    /// In the system's ordinary ones.
    Ordinary,
}

/// A range of address space.
#[derive(Debug)]
pub(crate) struct Reservation {
    mapped: NonNull<u8>,
    mapped_bytes: usize,
    base: NonNull<u8>,
    len_bytes: usize,
}

// SAFETY: it is a range of addresses, which is the same in every thread.
#[expect(unsafe_code, reason = "a pointer is not Send by itself")]
unsafe impl Send for Reservation {}
// SAFETY: what changes the range, giving and taking, is done by the kernel, which orders it.
#[expect(unsafe_code, reason = "a pointer is not Sync by itself")]
unsafe impl Sync for Reservation {}

impl Reservation {
    /// Reserves at least `len_bytes`, without memory.
    ///
    /// # Errors
    /// [`ErrorKind::Full`] if the address space is limited (`ulimit -v`).
    pub(crate) fn new(len_bytes: usize) -> Result<Self> {
        let len_bytes = len_bytes.max(1).next_multiple_of(REGION_BYTES);
        // Room to move the beginning to the next multiple.
        let mapped_bytes = len_bytes + REGION_BYTES;
        #[expect(unsafe_code, reason = "mapping memory has no safe interface")]
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let mapped = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                mapped_bytes,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }
        .map_err(|error| no_memory("reserve", mapped_bytes, error))?;
        let mapped = NonNull::new(mapped.cast::<u8>())
            .ok_or_else(|| no_memory("reserve", mapped_bytes, rustix::io::Errno::NOMEM))?;
        let skip_bytes = mapped.as_ptr().align_offset(REGION_BYTES);
        #[expect(unsafe_code, reason = "an address inside the mapping")]
        // SAFETY: at most REGION_BYTES - 1 are skipped, and the mapping is longer by one region.
        let base = unsafe { mapped.add(skip_bytes) };
        Ok(Self { mapped, mapped_bytes, base, len_bytes })
    }

    /// The first address. Only what was [committed](Self::commit) may be touched.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// All of it.
    pub(crate) fn addresses(&self) -> Range<usize> {
        let start = self.base.as_ptr().addr();
        start..start + self.len_bytes
    }

    /// The number of bytes reserved.
    pub(crate) fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// Gives memory, which reads as zeros, to a range of whole regions.
    ///
    /// # Errors
    /// [`ErrorKind::Full`] if the kernel has none.
    pub(crate) fn commit(&self, offset_bytes: usize, len_bytes: usize, pages: Pages) -> Result<()> {
        let start = self.region(offset_bytes, len_bytes);
        #[expect(unsafe_code, reason = "changing protection has no safe interface")]
        // SAFETY: the range is ours, and more rights take nothing from those who use it.
        unsafe {
            rustix::mm::mprotect(
                start.cast(),
                len_bytes,
                MprotectFlags::READ | MprotectFlags::WRITE,
            )
        }
        .map_err(|error| no_memory("get", len_bytes, error))?;
        let ordinary_bytes = match pages {
            Pages::Ordinary => len_bytes,
            Pages::HugeBehindFirst => REGION_BYTES.saturating_sub(offset_bytes).min(len_bytes),
            Pages::Huge => 0,
        };
        self.advise(offset_bytes, ordinary_bytes, Advice::LinuxNoHugepage);
        let huge_bytes = len_bytes - ordinary_bytes;
        self.advise(offset_bytes + ordinary_bytes, huge_bytes, Advice::LinuxHugepage);
        Ok(())
    }

    fn advise(&self, offset_bytes: usize, len_bytes: usize, advice: Advice) {
        if len_bytes == 0 {
            return;
        }
        let start = self.region(offset_bytes, len_bytes);
        #[expect(unsafe_code, reason = "advising has no safe interface")]
        // SAFETY: the range is ours; none of the advice given here changes a byte of it.
        let advised = unsafe { rustix::mm::madvise(start.cast(), len_bytes, advice) };
        if let Err(error) = advised {
            // A kernel without huge pages: slower, not wrong.
            tracing::debug!(%error, "no huge pages for memory of the arena");
        }
    }

    /// Takes the memory of the whole pages in a range back, which then reads as zeros.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if the kernel keeps it, or some of it, because it is locked.
    ///
    /// # Safety
    /// Nobody may rely on what is there, nor read or write it meanwhile but through atomics.
    #[expect(unsafe_code, reason = "what the range holds is known to the caller")]
    pub(crate) unsafe fn discard(&self, range_bytes: Range<usize>) -> Result<()> {
        assert!(range_bytes.end <= self.len_bytes, "the range is inside the reservation");
        let page_bytes = rustix::param::page_size();
        let start_bytes = range_bytes.start.next_multiple_of(page_bytes);
        let len_bytes = range_bytes.end.next_multiple_of(page_bytes).saturating_sub(start_bytes);
        let start = self.base.as_ptr().wrapping_add(start_bytes);
        // SAFETY: the range is ours, and the caller gives up what it holds.
        unsafe { rustix::mm::madvise(start.cast(), len_bytes, Advice::LinuxDontNeed) }.map_err(
            |error| {
                let what = format!("cannot give {len_bytes} bytes of memory back");
                Error::new(ErrorKind::Unavailable, what)
                    .with_source(std::io::Error::from(error))
                    .with_remedy("do not lock the memory of a process that has a store (mlockall)")
            },
        )
    }

    fn region(&self, offset_bytes: usize, len_bytes: usize) -> *mut u8 {
        let whole =
            offset_bytes.is_multiple_of(REGION_BYTES) && len_bytes.is_multiple_of(REGION_BYTES);
        let inside = offset_bytes.checked_add(len_bytes).is_some_and(|end| end <= self.len_bytes);
        assert!(whole && inside, "regions are whole and inside the reservation");
        self.base.as_ptr().wrapping_add(offset_bytes)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "unmapping has no safe interface")]
        // SAFETY: the mapping is ours, and whoever uses its memory keeps the reservation alive.
        let unmapped =
            unsafe { rustix::mm::munmap(self.mapped.as_ptr().cast(), self.mapped_bytes) };
        debug_assert!(unmapped.is_ok(), "{unmapped:?}");
    }
}

/// Bytes that begin as zeros, and of which there can be more without moving those that there are.
#[derive(Debug)]
pub(crate) struct GrowingBytes {
    reservation: Reservation,
    pages: Pages,
    committed_bytes: usize,
}

impl GrowingBytes {
    /// As many as there is address space for, of which nothing was committed yet.
    pub(crate) fn new(reservation: Reservation, pages: Pages) -> Self {
        Self { reservation, pages, committed_bytes: 0 }
    }

    /// The address space that they are in.
    pub(crate) fn reservation(&self) -> &Reservation {
        &self.reservation
    }

    /// Makes it at least so long.
    ///
    /// # Errors
    /// [`ErrorKind::Full`] if the kernel has no memory, or it is longer than what was reserved.
    pub(crate) fn grow_to(&mut self, len_bytes: usize) -> Result<()> {
        let needed_bytes = len_bytes.next_multiple_of(REGION_BYTES);
        if needed_bytes > self.reservation.len_bytes() {
            return Err(no_memory("get", len_bytes, rustix::io::Errno::NOMEM));
        }
        if needed_bytes > self.committed_bytes {
            let more_bytes = needed_bytes - self.committed_bytes;
            self.reservation.commit(self.committed_bytes, more_bytes, self.pages)?;
            self.committed_bytes = needed_bytes;
        }
        Ok(())
    }
}

impl std::ops::Deref for GrowingBytes {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        #[expect(unsafe_code, reason = "a mapping is a pointer and a length")]
        // SAFETY: so much was committed, which reads as zeros until it is written, and is written
        // only through `deref_mut`.
        unsafe {
            std::slice::from_raw_parts(self.reservation.base().as_ptr(), self.committed_bytes)
        }
    }
}

impl std::ops::DerefMut for GrowingBytes {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        #[expect(unsafe_code, reason = "a mapping is a pointer and a length")]
        // SAFETY: as in `deref`; the borrow is of all of it.
        unsafe {
            std::slice::from_raw_parts_mut(self.reservation.base().as_ptr(), self.committed_bytes)
        }
    }
}

fn no_memory(action: &str, len_bytes: usize, error: rustix::io::Errno) -> Error {
    Error::new(ErrorKind::Full, format!("cannot {action} {len_bytes} bytes of memory"))
        .with_source(std::io::Error::from(error))
        .with_remedy("raise the limit (ulimit -v, MemoryMax) or lower the cache's capacity")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reservation_is_aligned_and_cheap() {
        // Far more than any machine of ours has.
        let reservation = Reservation::new(1 << 40).unwrap();
        assert_eq!(reservation.base().as_ptr().align_offset(REGION_BYTES), 0);
        assert_eq!(reservation.len_bytes(), 1 << 40);
        reservation.commit(3 * REGION_BYTES, REGION_BYTES, Pages::Huge).unwrap();
    }

    #[test]
    #[should_panic = "whole and inside"]
    fn a_region_beyond_the_end_is_refused() {
        let reservation = Reservation::new(1).unwrap();
        let _ = reservation.commit(REGION_BYTES, REGION_BYTES, Pages::Huge);
    }
}
