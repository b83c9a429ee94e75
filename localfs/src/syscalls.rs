//! The system calls for which there is no safe wrapper: reading into memory that is not filled, and a file's quota
//! project.
//!
//! The only file of this crate that may hold `unsafe`.

#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::os::fd::AsFd;

use rustix::io::{Errno, pread};
use rustix::ioctl::{Getter, Opcode, Setter, ioctl, opcode};

/// Reads up to `most` bytes at `offset` and appends them to `buf`.
pub(crate) fn read_at(fd: impl AsFd, buf: &mut Vec<u8>, most: usize, offset: u64) -> Result<usize, Errno> {
    buf.reserve(most);
    let before = buf.len();
    let spare: &mut [MaybeUninit<u8>] = buf.spare_capacity_mut();
    let end = most.min(spare.len());
    let (room, _) = spare.split_at_mut(end);
    let (read, _) = pread(fd, room, offset)?;
    let count = read.len();
    // SAFETY: `pread` says that it has initialized the first `count` bytes of the spare capacity.
    unsafe { buf.set_len(before + count) };
    Ok(count)
}

/// The kernel's `struct fsxattr`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct FsXattr {
    xflags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    cow_extent_size: u32,
    padding: [u8; 8],
}

const GET: Opcode = opcode::read::<FsXattr>(b'X', 31);
const SET: Opcode = opcode::write::<FsXattr>(b'X', 32);

/// The quota project of an open file or directory.
pub(crate) fn project(fd: impl AsFd) -> Result<u32, Errno> {
    get(fd).map(|attributes| attributes.project)
}

/// Sets the quota project of an open file or directory, and nothing else that travels in the same structure.
pub(crate) fn set_project(fd: impl AsFd, project: u32) -> Result<(), Errno> {
    let fd = fd.as_fd();
    let attributes = FsXattr { project, ..get(fd)? };
    // SAFETY: FS_IOC_FSSETXATTR reads one `struct fsxattr`, whose layout `FsXattr` repeats, through the pointer
    // and keeps it no longer than the call.
    unsafe { ioctl(fd, Setter::<SET, FsXattr>::new(attributes)) }
}

fn get(fd: impl AsFd) -> Result<FsXattr, Errno> {
    // SAFETY: FS_IOC_FSGETXATTR fills one `struct fsxattr`, whose layout `FsXattr` repeats, and any bytes are a
    // valid `FsXattr`.
    unsafe { ioctl(fd, Getter::<GET, FsXattr>::new()) }
}
