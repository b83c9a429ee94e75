//! Reads chunks from the packs of a repository.

use std::sync::Arc;

use diptych_backend::{FileKind, FileName};
use diptych_format::pack::ChunkKind;
use diptych_format::{Class, Digest, Error, ReadAt, Result, Stream};

use super::shelf::Shelf;
use crate::chunk::{ChunkBytes, Decompressor, Verify};
use crate::index::{Index, Location};
use crate::keys::ChunkKeys;
use crate::pack::{ChunkPlace, ChunkSource, EachChunk};
use crate::place::told;

/// The chunks of a repository. Threads share it.
#[derive(Clone)]
pub struct StoreReader {
    index: Arc<Index>,
    shelf: Option<Arc<dyn Shelf>>,
}

impl StoreReader {
    /// Reads what the index knows.
    pub fn new(index: Arc<Index>) -> Self {
        Self { index, shelf: None }
    }

    /// Keeps the payload's chunks that are read one by one on `shelf`, and looks for them there first.
    pub fn with_shelf(self, shelf: Option<Arc<dyn Shelf>>) -> Self {
        Self { shelf, ..self }
    }

    /// Reads chunks in the order in which they come, those that are neighbours in a pack at once, and calls `each`
    /// with every one. So whoever sorts by pack and offset reads each pack from front to back.
    pub fn read_run(
        &self,
        locations: &[Location],
        verify: Verify,
        decompressor: &mut Decompressor,
        mut each: impl FnMut(&Location, Result<ChunkBytes>, &mut Decompressor) -> Result<()>,
    ) -> Result<()> {
        let verify = at_least(verify, decompressor);
        let mut buffer = Vec::new();
        for run in locations.chunk_by(|a, b| a.pack == b.pack) {
            let mut rest = run;
            while let Some((first, others)) = rest.split_first() {
                let start = first.chunk.offset;
                let mut last = first.place();
                let is_near = |location: &&Location| {
                    let next = location.place();
                    let is_near = last.runs_into(&next, start);
                    last = if is_near { next } else { last };
                    is_near
                };
                let count = 1 + others.iter().take_while(is_near).count();
                let end = last.end;
                let (now, later) = rest.split_at_checked(count).unwrap_or((rest, &[]));
                rest = later;
                // The index has checked that chunks are not longer than their limits.
                buffer.resize((end - start) as usize, 0);
                let is_read = self.read_pack(&first.pack, &mut buffer, start).is_ok();
                for location in now {
                    let at = (location.chunk.offset - start) as usize;
                    let header = &location.chunk.header;
                    let found = buffer.get(at..).filter(|_| is_read).and_then(|bytes| {
                        let fill = |out: &mut [u8]| bytes.read_exact_at(out, 0);
                        decompressor.read_chunk(header, verify, fill).ok()
                    });
                    // By itself, or from another pack, the chunk may be readable; if not, that error says which it is.
                    let bytes = match found {
                        Some(bytes) => Ok(bytes),
                        None => self.read_chunk(header.kind, &header.id, verify, decompressor),
                    };
                    each(location, bytes, decompressor)?;
                }
            }
        }
        Ok(())
    }

    /// Reads a chunk at one of its places, and nowhere else.
    pub fn read_place(&self, location: &Location, decompressor: &mut Decompressor) -> Result<ChunkBytes> {
        self.read_at(location, location.chunk.header.kind, Verify::Id, decompressor)
    }

    /// Whether a chunk need not be stored. Where others were found to be damaged, this one is read first: what is
    /// about to be named must be there.
    pub fn has(&self, kind: ChunkKind, id: &Digest, keys: &ChunkKeys) -> Result<bool> {
        if !self.index.contains(id)? {
            return Ok(false);
        }
        if !self.index.is_damaged() || self.index.is_fresh(id) {
            return Ok(true);
        }
        match self.read_chunk(kind, id, Verify::Id, &mut Decompressor::new(keys.clone())) {
            Ok(_) => Ok(true),
            Err(error) if error.class == Class::Io => Err(error),
            Err(_) => Ok(false),
        }
    }

    fn read_pack(&self, pack: &Digest, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.index.backend().read_at(&FileName::new(FileKind::Data, pack.0), buffer, offset).map_err(told)
    }

    fn read_at(
        &self,
        location: &Location,
        kind: ChunkKind,
        verify: Verify,
        decompressor: &mut Decompressor,
    ) -> Result<ChunkBytes> {
        let chunk = &location.chunk;
        if chunk.header.kind != kind {
            let (found, expected) = (chunk.header.kind.word(), kind.word());
            let what = format!("chunk {} is of kind {found} where {expected} is expected", chunk.header.id);
            return Err(Error::corrupt(what));
        }
        let read_pack = |buffer: &mut [u8]| self.read_pack(&location.pack, buffer, chunk.offset);
        let placed = |error| self.placed(location, error);
        let verify = at_least(verify, decompressor);
        let Some(shelf) = self.shelf.as_ref().filter(|_| kind == ChunkKind::Payload) else {
            return decompressor.read_chunk(&chunk.header, verify, read_pack).map_err(placed);
        };
        let id = &chunk.header.id;
        let take = |buffer: &mut [u8]| match shelf.get(id, buffer) {
            true => Ok(()),
            false => Err(Error::missing("a chunk that is not on the shelf")),
        };
        match decompressor.read_chunk(&chunk.header, Verify::Id, take) {
            Ok(bytes) => return Ok(bytes),
            Err(error) if error.class == Class::Missing => {}
            Err(_) => shelf.remove(id),
        }
        let mut stored = Vec::new();
        let fetch = |buffer: &mut [u8]| {
            read_pack(buffer)?;
            stored.extend_from_slice(buffer);
            Ok(())
        };
        let bytes = decompressor.read_chunk(&chunk.header, verify, fetch).map_err(placed)?;
        shelf.put(id, &stored);
        Ok(bytes)
    }

    fn placed(&self, location: &Location, error: Error) -> Error {
        let file = FileName::new(FileKind::Data, location.pack.0);
        let id = location.chunk.header.id;
        let what =
            format!("{file}: chunk {id}: {}; run 'diptych check' to see what else is damaged", error.what);
        Error { what, ..error }.at(Stream::Pack, location.chunk.offset)
    }

    /// The chunk from any other pack that has it.
    fn read_elsewhere(
        &self,
        tried: &Location,
        kind: ChunkKind,
        verify: Verify,
        decompressor: &mut Decompressor,
    ) -> Option<ChunkBytes> {
        let others = self.index.find_all(&tried.chunk.header.id).ok()?;
        let others = others.iter().filter(|location| *location != tried);
        others.map(|location| self.read_at(location, kind, verify, decompressor)).find_map(Result::ok)
    }
}

impl ChunkSource for StoreReader {
    /// One read, where nothing is damaged.
    fn read_chunk(
        &self,
        kind: ChunkKind,
        id: &Digest,
        verify: Verify,
        decompressor: &mut Decompressor,
    ) -> Result<ChunkBytes> {
        let mut is_new = false;
        loop {
            let found = self.index.find(id)?;
            let result = match &found {
                Some(location) => self.read_at(location, kind, verify, decompressor),
                None => Err(Error::missing(format!(
                    "{}: chunk {id} is in no pack that the index names; run 'diptych check' to see what else is missing",
                    self.index.backend().location()
                ))),
            };
            let error = match result {
                Err(error)
                    if matches!(
                        error.class,
                        Class::Missing | Class::Truncated | Class::Corrupt | Class::Io
                    ) =>
                {
                    error
                }
                other => return other,
            };
            let elsewhere =
                found.as_ref().and_then(|tried| self.read_elsewhere(tried, kind, verify, decompressor));
            if let Some(bytes) = elsewhere {
                return Ok(bytes);
            }
            if let Some(location) = &found {
                self.index.note_unreadable(location);
            }
            // The packs may have been rewritten since the index was opened. Spec: R-8-9.
            if error.class != Class::Missing || is_new {
                return Err(error);
            }
            self.index.refresh()?;
            is_new = true;
        }
    }

    fn place(&self, kind: ChunkKind, id: &Digest) -> Option<ChunkPlace> {
        // What cannot be found is told when it is read.
        let found = self.index.find(id).ok().flatten();
        found.filter(|location| location.chunk.header.kind == kind).map(|location| location.place())
    }

    fn read_chunks(
        &self,
        kind: ChunkKind,
        ids: &[Digest],
        verify: Verify,
        decompressor: &mut Decompressor,
        each: &mut EachChunk<'_>,
    ) -> Result<()> {
        let mut locations = Vec::with_capacity(ids.len());
        for id in ids {
            match self.index.find(id)? {
                Some(location) if location.chunk.header.kind == kind => locations.push(location),
                _ => {
                    self.run(&mut locations, verify, decompressor, each)?;
                    let bytes = self.read_chunk(kind, id, verify, decompressor);
                    each(id, bytes, decompressor)?;
                }
            }
        }
        self.run(&mut locations, verify, decompressor, each)
    }
}

/// A seal shows that a chunk is damaged. Where there is none its id has to: else nobody would look for the chunk in
/// another pack, which may have it whole.
fn at_least(verify: Verify, decompressor: &Decompressor) -> Verify {
    if decompressor.opens_seals() { verify } else { Verify::Id }
}

impl StoreReader {
    /// Reads what was gathered, and gathers anew.
    fn run(
        &self,
        locations: &mut Vec<Location>,
        verify: Verify,
        decompressor: &mut Decompressor,
        each: &mut EachChunk<'_>,
    ) -> Result<()> {
        let locations = std::mem::take(locations);
        self.read_run(&locations, verify, decompressor, |location, bytes, decompressor| {
            each(&location.chunk.header.id, bytes, decompressor)
        })
    }
}
