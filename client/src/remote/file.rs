//! A file on its way to a server: it is kept here until its name is known, and sent as often as it takes.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use diptych_backend::{Class, Error, FileKind, FileName, NewFile, Result};
use diptych_format::pack::{HEADER_LENGTH, PackHolds, decode_header};
use hyper::Method;

use super::ahead::Ahead;
use super::cache::Cache;
use super::transport::{Ask, Sent, Transport};
use super::{Small, path_of};

/// Longer files are kept on disk while they wait.
const MEMORY_MAX: usize = 1 << 20;
/// How much is copied at once.
const PART: usize = 256 << 10;

pub(super) struct RemoteFile {
    transport: Arc<Transport>,
    cache: Arc<Cache>,
    ahead: Arc<Ahead>,
    small: Arc<Small>,
    kind: FileKind,
    start: Vec<u8>,
    /// What follows the start, if it is long.
    rest: Option<File>,
    length: u64,
}

impl RemoteFile {
    pub fn new(
        transport: Arc<Transport>,
        cache: Arc<Cache>,
        ahead: Arc<Ahead>,
        small: Arc<Small>,
        kind: FileKind,
    ) -> Self {
        Self { transport, cache, ahead, small, kind, start: Vec::new(), rest: None, length: 0 }
    }

    /// Whether others of this machine's runs will want it again.
    fn is_kept_here(&self) -> bool {
        match self.kind {
            FileKind::Key | FileKind::Index | FileKind::Snapshot => true,
            FileKind::Config | FileKind::Lease => false,
            FileKind::Data => {
                let header = self.start.first_chunk::<HEADER_LENGTH>();
                header.and_then(|header| decode_header(header).ok()) == Some(PackHolds::Metadata)
            }
        }
    }

    fn keep_here(&self, name: &FileName) -> Result<()> {
        let failed = |error| Error::io("the cache cannot be written", error);
        let mut file = self.cache.create(self.kind)?;
        let mut buffer = vec![0; PART];
        let mut offset = 0;
        while offset < self.length {
            let count = usize::try_from(self.length - offset).unwrap_or(PART).min(PART);
            let part = buffer.get_mut(..count).unwrap_or_default();
            self.read_back(part, offset).map_err(failed)?;
            file.write_all(part).map_err(failed)?;
            offset += count as u64;
        }
        file.keep(name)
    }
}

impl Write for RemoteFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match &mut self.rest {
            None if self.start.len() + bytes.len() <= MEMORY_MAX => self.start.write(bytes)?,
            None => self.rest.insert(tempfile::tempfile()?).write(bytes)?,
            Some(rest) => rest.write(bytes)?,
        };
        self.length += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl NewFile for RemoteFile {
    fn read_back(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.start.len());
        let from_start = self.start.get(start..).unwrap_or_default();
        let count = from_start.len().min(buf.len());
        let (first, second) = buf.split_at_mut(count);
        first.copy_from_slice(&from_start[..count]);
        match &self.rest {
            _ if second.is_empty() => Ok(()),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
            Some(rest) => rest.read_exact_at(second, offset + count as u64 - self.start.len() as u64),
        }
    }

    fn keep(mut self: Box<Self>, name: &FileName) -> Result<()> {
        if self.is_kept_here() {
            // Without it there is more to be fetched next time, and no more than that.
            let _ = self.keep_here(name);
        }
        let mut ask = Ask::new(Method::PUT, self.transport.path_of(name));
        let start = Bytes::from(std::mem::take(&mut self.start));
        ask.body =
            Some(Sent { start: start.clone(), rest: self.rest.take().map(Arc::new), length: self.length });
        self.ahead.forget();
        match self.transport.call(&ask) {
            // It may be this very one, of which the answer was lost.
            Err(error) if error.class == Class::Exists && name.kind() == FileKind::Config => {
                let mut there = Ask::new(Method::GET, self.transport.path_of(name));
                there.answer_max = super::DOCUMENT_MAX;
                let there = self.transport.call(&there)?;
                if there.bytes == start { Ok(()) } else { Err(error) }
            }
            Err(error) => {
                self.cache.remove(name);
                Err(error)
            }
            Ok(_) => {
                if name.kind() == FileKind::Lease {
                    self.small.lock().unwrap_or_else(PoisonError::into_inner).insert(*name, start);
                    // Whoever has said that it is at work looks next at what is there.
                    let lists = [FileKind::Lease, FileKind::Index, FileKind::Data, FileKind::Snapshot];
                    self.ahead.begin(&lists.map(|kind| path_of(&self.transport, kind)));
                }
                Ok(())
            }
        }
    }
}
