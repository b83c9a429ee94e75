//! A stream of bytes as an archive: a directory that holds one file.

use std::io::Read;
use std::sync::Arc;

use diptych_encoder::cut::LARGE_MIN;
use diptych_encoder::{Cuts, Payload, TreeEncoder};
use diptych_format::digest::ContentHasher;
use diptych_format::limits::PAYLOAD_CHUNK_MAX;
use diptych_format::{
    Attributes, Change, Digest, Entry, Error, Holds, Kind, Monitor, Name, Result, Status, Time,
};

use super::assemble::{Assembled, Assembly, Sink};
use super::buffers::{Buffers, Bytes};
use crate::owners;
use crate::reuse::{Counts, Reason};

/// How much is read at a time.
const READ_AT_ONCE: usize = 512 << 10;
/// What is read into; chunks are ranges of it.
const WINDOW: usize = 2 * PAYLOAD_CHUNK_MAX;

/// What the file in the archive is called, and whose it is.
#[derive(Clone, Debug)]
pub(crate) struct StreamFile {
    /// Its name.
    pub name: Name,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// When the stream began.
    pub time: Time,
}

/// Reads `source` to its end.
pub(crate) fn assemble_stream(
    file: &StreamFile,
    source: &mut dyn Read,
    assembly: &Assembly,
    cuts: &Cuts,
    buffers: &Buffers,
    monitor: &dyn Monitor,
    sink: &mut dyn Sink,
) -> Result<Assembled> {
    let payload = Payload::new(cuts.clone(), 0);
    let mut content = StreamContent { cuts, payload, hasher: ContentHasher::new(), size: 0, buffers, sink };
    content.read(source, assembly, monitor)?;
    let StreamContent { payload, hasher, size, sink, .. } = content;
    let mut tree = TreeEncoder::new(cuts.clone());
    tree.enter(entry(file, Name::root(), Kind::Directory, Holds::Entries { digest: Digest::NONE }))?;
    let holds = Holds::Content { size, digest: hasher.finish() };
    tree.entry(entry(file, file.name.clone(), Kind::File, holds), None)?;
    monitor.entry(file.name.as_bytes(), Kind::File);
    tree.leave(Status::COMPLETE)?;
    let owners = owners::look_up(&[file.uid].into(), &[file.gid].into());
    let finished = tree.finish(&owners)?;
    tree.take_chunks().into_iter().try_for_each(|chunk| sink.metadata(chunk))?;
    let mut counts = Counts::default();
    counts.read_bytes(Reason::NoBase, size);
    Ok(Assembled { finished, payload: payload.finish(), content_bytes: size, counts, sparse: Vec::new() })
}

fn entry(file: &StreamFile, name: Name, kind: Kind, holds: Holds) -> Entry {
    let permissions = if kind == Kind::Directory { 0o700 } else { 0o600 };
    let attributes = Attributes {
        mode: kind.mode_bits() | permissions,
        uid: file.uid,
        gid: file.gid,
        ..Attributes::default()
    };
    Entry {
        name,
        attributes,
        mtime: file.time,
        holds,
        holes: Vec::new(),
        change: Change::default(),
        status: Status::COMPLETE,
    }
}

struct StreamContent<'s> {
    cuts: &'s Cuts,
    payload: Payload,
    hasher: ContentHasher,
    size: u64,
    buffers: &'s Buffers,
    sink: &'s mut dyn Sink,
}

impl StreamContent<'_> {
    fn read(&mut self, source: &mut dyn Read, assembly: &Assembly, monitor: &dyn Monitor) -> Result<()> {
        let mut window = self.buffers.take(WINDOW);
        loop {
            assembly.check_interrupt()?;
            let before = window.len();
            let read = source
                .take(READ_AT_ONCE as u64)
                .read_to_end(&mut window)
                .map_err(|error| Error::io("cannot read the stream", error))?;
            if read == 0 {
                return self.hand_on(window, true).map(drop);
            }
            self.hasher.update(window.get(before..).unwrap_or_default());
            self.size += read as u64;
            monitor.bytes(read as u64);
            if window.len() + READ_AT_ONCE > WINDOW {
                window = self.hand_on(window, false)?;
            }
        }
    }

    /// Hands on the chunks that can be cut off, and gives a window that begins with the rest.
    fn hand_on(&mut self, window: Vec<u8>, is_end: bool) -> Result<Vec<u8>> {
        if is_end && self.size < LARGE_MIN {
            return self.hand_on_small(window);
        }
        let window = Arc::new(window);
        let mut start = 0;
        loop {
            let rest = window.get(start..).unwrap_or_default();
            if rest.is_empty() || !is_end && rest.len() < PAYLOAD_CHUNK_MAX {
                let mut next = self.buffers.take(WINDOW);
                next.extend_from_slice(rest);
                return Ok(next);
            }
            let end = start + self.cuts.large_cut(rest.get(..PAYLOAD_CHUNK_MAX).unwrap_or(rest));
            let length = u32::try_from(end - start).map_err(|_| Error::corrupt("a chunk is too long"))?;
            let number = self.payload.large_chunk(length);
            self.sink.payload(number, Bytes::range(&window, start..end))?;
            start = end;
        }
    }

    /// A stream below the least length of a large content is a group of one.
    fn hand_on_small(&mut self, content: Vec<u8>) -> Result<Vec<u8>> {
        let length = u32::try_from(content.len()).map_err(|_| Error::corrupt("a small content is large"))?;
        self.payload.small(Digest::of(&content), length);
        if length > 0 {
            self.payload.end_group();
            self.sink.payload(0, Bytes::whole(content))?;
        }
        Ok(Vec::new())
    }
}
