//! Which bytes of a file are its own, which it shares with copies that were made without copying, and
//! which the file system has compressed.

use std::fs::File;
use std::mem::size_of;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::ioctl::{self, Opcode, Updater};

use super::file::SECTOR_BYTES;
use crate::error::{Error, Result};

/// `FS_IOC_FIEMAP` in linux/fs.h.
const FIEMAP: Opcode = ioctl::opcode::read_write::<Header>(b'f', 11);
/// `FIEMAP_EXTENT_LAST`, `FIEMAP_EXTENT_ENCODED` and `FIEMAP_EXTENT_SHARED` in linux/fiemap.h.
const EXTENT_LAST: u32 = 1;
const EXTENT_ENCODED: u32 = 8;
const EXTENT_SHARED: u32 = 0x2000;
/// Extents that are asked for at a time.
const EXTENTS_COUNT: usize = 64;

/// `struct fiemap`, without the extents that follow it.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Header {
    start: u64,
    length: u64,
    flags: u32,
    mapped_extents: u32,
    extent_count: u32,
    reserved: u32,
}

/// `struct fiemap_extent`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Extent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved_64: [u64; 2],
    flags: u32,
    reserved: [u32; 3],
}

#[repr(C)]
struct Request {
    header: Header,
    extents: [Extent; EXTENTS_COUNT],
}

const _: () = {
    assert!(size_of::<Header>() == 32);
    assert!(size_of::<Extent>() == 56);
};

/// Bytes that only this file uses, as they were before the file system compressed them.
///
/// Where the file system does not tell, all of a file that has no other name.
pub(crate) fn own_bytes(path: &Path) -> Result<u64> {
    let file = File::open(path).map_err(|error| Error::io("open", path, error))?;
    let status = file.metadata().map_err(|error| Error::io("examine", path, error))?;
    if status.nlink() > 1 {
        return Ok(0);
    }
    let own = extents_bytes(&file, |flags| flags & EXTENT_SHARED == 0);
    Ok(own.unwrap_or(status.blocks() * SECTOR_BYTES))
}

/// Bytes of a file that the file system has compressed, and all that lie on the disk, both as they are
/// read. Where it does not tell, none are compressed.
pub(crate) fn compressed_bytes(path: &Path) -> Result<(u64, u64)> {
    let file = File::open(path).map_err(|error| Error::io("open", path, error))?;
    let of = |is_wanted: fn(u32) -> bool| extents_bytes(&file, is_wanted).unwrap_or_default();
    Ok((of(|flags| flags & EXTENT_ENCODED != 0), of(|_| true)))
}

/// Bytes of those extents of a file that have wanted flags; `None` where the file system does not tell.
#[expect(unsafe_code, reason = "rustix has no safe call for this ioctl")]
fn extents_bytes(file: &File, is_wanted: impl Fn(u32) -> bool) -> Option<u64> {
    let (mut start, mut wanted_bytes) = (0, 0);
    loop {
        let header = Header {
            start,
            length: u64::MAX - start,
            extent_count: EXTENTS_COUNT as u32,
            ..Header::default()
        };
        let mut request = Request { header, extents: [Extent::default(); EXTENTS_COUNT] };
        // SAFETY: FIEMAP reads a `struct fiemap` and writes it and as many extents behind it as it
        // says there is room for, which is what `Request` has.
        let update = unsafe { Updater::<FIEMAP, Request>::new(&mut request) };
        // SAFETY: as above; the file is open.
        unsafe { ioctl::ioctl(file, update) }.ok()?;
        let found = request.extents.get(..request.header.mapped_extents as usize)?;
        let wanted = found.iter().filter(|extent| is_wanted(extent.flags));
        wanted_bytes += wanted.map(|extent| extent.length).sum::<u64>();
        match found.last() {
            Some(last) if last.flags & EXTENT_LAST == 0 => start = last.logical + last.length,
            _ => return Some(wanted_bytes),
        }
    }
}
