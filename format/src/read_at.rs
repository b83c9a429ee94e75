//! The seam between bytes that are kept somewhere and bytes that are understood.
//!
//! A file, a slice in memory and a stream that is put together from chunks all look the same to a decoder.

use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, Result};

/// Bytes that can be read at any offset, from several threads at once.
#[expect(clippy::len_without_is_empty, reason = "nobody who reads at offsets asks")]
pub trait ReadAt: Send + Sync {
    /// How many bytes there are.
    fn len(&self) -> u64;

    /// Fills `buf` with the bytes from `offset` on; bytes beyond the end are *truncated*.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()>;

    /// Names ranges that will be read soon, so that they can be fetched ahead. Promises nothing.
    fn hint(&self, _ranges: &[Range<u64>]) {}
}

/// The error of a read of `length` bytes at `offset` where only `whole` bytes are.
pub fn beyond_the_end(length: usize, offset: u64, whole: u64) -> Error {
    Error::truncated(format!("{length} bytes at {offset} are asked for, and only {whole} are there"))
}

impl ReadAt for [u8] {
    fn len(&self) -> u64 {
        <[u8]>::len(self) as u64
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let found = usize::try_from(offset)
            .ok()
            .and_then(|start| self.get(start..))
            .and_then(|rest| rest.get(..buf.len()));
        match found {
            Some(bytes) => {
                buf.copy_from_slice(bytes);
                Ok(())
            }
            None => Err(beyond_the_end(buf.len(), offset, ReadAt::len(self))),
        }
    }
}

impl ReadAt for Vec<u8> {
    fn len(&self) -> u64 {
        ReadAt::len(self.as_slice())
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.as_slice().read_exact_at(buf, offset)
    }
}

impl<T: ReadAt + ?Sized> ReadAt for &T {
    fn len(&self) -> u64 {
        (**self).len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        (**self).read_exact_at(buf, offset)
    }

    fn hint(&self, ranges: &[Range<u64>]) {
        (**self).hint(ranges);
    }
}

impl<T: ReadAt + ?Sized> ReadAt for Arc<T> {
    fn len(&self) -> u64 {
        (**self).len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        (**self).read_exact_at(buf, offset)
    }

    fn hint(&self, ranges: &[Range<u64>]) {
        (**self).hint(ranges);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Class;

    #[test]
    fn reads_inside_and_refuses_beyond() {
        let bytes = b"abcdef".to_vec();
        let mut two = [0; 2];
        bytes.read_exact_at(&mut two, 4).unwrap();
        assert_eq!(&two, b"ef");
        bytes.read_exact_at(&mut [], 6).unwrap();
        for offset in [5, 6, 7, u64::MAX] {
            assert_eq!(bytes.read_exact_at(&mut two, offset).unwrap_err().class, Class::Truncated);
        }
    }
}
