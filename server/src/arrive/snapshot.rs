//! Snapshots: whether everything that one names is there, which shows without any key.
//!
//! Spec: protocol.md section 4.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use diptych_backend::{FileKind, FileName};
use diptych_format::map::Segment;
use diptych_format::pack::{CHUNK_HEADER_LENGTH, ChunkHeader, ChunkKind};
use diptych_format::{Digest, limits};
use diptych_repository::chunk::ids_in_clear;
use diptych_repository::documents::{Envelope, SnapshotDocument, SnapshotKind};
use diptych_repository::{Decompressor, DocumentKeys, IndexFile, Verify};

use crate::access::Access;
use crate::namespace::Facts;
use crate::problem::{Problem, ProblemClass, Result};

impl Access {
    /// Spec: P-4-6.
    pub(super) fn validate_snapshot(&self, bytes: &[u8], facts: &Facts) -> Result<()> {
        let envelope = match facts.is_encrypted {
            true => Envelope::decode(bytes)?,
            false => SnapshotDocument::decode(bytes, &DocumentKeys::plain(), &facts.id)?.envelope(),
        };
        if envelope.repository != facts.id {
            return Err(Problem::corrupt("this is a snapshot of another repository"));
        }
        if envelope.kind == SnapshotKind::Tombstone {
            return self.unless_denied(self.token.rights.forget, "forget snapshots");
        }
        self.unless_denied(self.token.rights.append, "send snapshots")?;
        if !self.has_lease()? {
            let what =
                "a snapshot is taken only from who holds a lease: nothing keeps its packs from being removed";
            return Err(Problem::corrupt(what));
        }
        let mut walk = Walk::new(self, facts)?;
        envelope.roots.iter().try_for_each(|root| walk.chunk(root, 0))
    }
}

/// A walk through everything that a snapshot names.
struct Walk<'a> {
    access: &'a Access,
    is_encrypted: bool,
    /// Whose view of the indexes this is.
    domain: &'a str,
    indexes: Vec<Arc<IndexFile>>,
    /// Whether packs are there.
    packs: HashMap<Digest, bool>,
    seen: HashSet<Digest>,
    decompressor: Decompressor,
}

impl<'a> Walk<'a> {
    fn new(access: &'a Access, facts: &Facts) -> Result<Self> {
        let mut indexes = Vec::new();
        access.namespace.note_indexes(&access.namespace.backend.list(FileKind::Index)?);
        for listed in access.list(FileKind::Index)? {
            match access.namespace.index(&listed.name) {
                Ok(index) => indexes.push(index),
                // Another one has replaced it.
                Err(error) if error.class == ProblemClass::Missing => {}
                Err(error) => return Err(error),
            }
        }
        // No domain has a space in its name.
        let domain = if access.reads_all() { "all of them" } else { &*access.token.domain };
        Ok(Self {
            access,
            is_encrypted: facts.is_encrypted,
            domain,
            indexes,
            packs: HashMap::new(),
            seen: HashSet::new(),
            decompressor: Decompressor::default(),
        })
    }

    fn chunk(&mut self, id: &Digest, depth: u64) -> Result<()> {
        if !self.seen.insert(*id) || self.access.namespace.is_whole(self.domain, id) {
            return Ok(());
        }
        let Some((pack, header, offset)) = self.find(id)? else {
            return Err(Problem::corrupt(format!("the snapshot names chunk {id}, which is not there")));
        };
        if header.kind != ChunkKind::Segment {
            return Ok(());
        }
        if depth > limits::SEGMENT_LEVEL_MAX {
            return Err(Problem::corrupt("the snapshot has a map of more levels than any has"));
        }
        for id in self.ids(&pack, &header, offset)? {
            self.chunk(&id, depth + 1)?;
        }
        self.access.namespace.note_whole(self.domain, id);
        Ok(())
    }

    /// A place of a chunk in a pack that is there.
    fn find(&mut self, id: &Digest) -> Result<Option<(FileName, ChunkHeader, u64)>> {
        let mut places = Vec::new();
        for index in &self.indexes {
            index.find_map(id, |row| {
                let pack = index.packs().get(row.pack as usize);
                places.extend(pack.map(|pack| (pack.name, row.header, u64::from(row.offset))));
                None::<()>
            })?;
        }
        for (pack, header, offset) in places {
            let name = FileName::new(FileKind::Data, pack.0);
            let is_there = match self.packs.get(&pack) {
                Some(is_there) => *is_there,
                None => match self.access.namespace.backend.length(&name) {
                    Ok(_) => true,
                    Err(error) if error.class == diptych_backend::Class::Missing => false,
                    Err(error) => return Err(error.into()),
                },
            };
            self.packs.insert(pack, is_there);
            if is_there {
                return Ok(Some((name, header, offset)));
            }
        }
        Ok(None)
    }

    /// What a segment names.
    fn ids(&mut self, pack: &FileName, header: &ChunkHeader, offset: u64) -> Result<Vec<Digest>> {
        let backend = &self.access.namespace.backend;
        if self.is_encrypted {
            // The length was checked with the index.
            let mut stored = vec![0; CHUNK_HEADER_LENGTH + header.stored_length as usize];
            backend.read_at(pack, &mut stored, offset)?;
            if ChunkHeader::decode(&stored)? != *header {
                return Err(Problem::corrupt(format!("{pack}: chunk {} has another header", header.id)));
            }
            return Ok(ids_in_clear(header, stored.get(CHUNK_HEADER_LENGTH..).unwrap_or_default())?);
        }
        let fill =
            |buffer: &mut [u8]| backend.read_at(pack, buffer, offset).map_err(diptych_repository::told);
        let bytes = self.decompressor.read_chunk(header, Verify::Id, fill)?;
        let segment = Segment::parse(&bytes)?;
        let id = |row| match segment.level() {
            0 => segment.slice(row).chunk,
            _ => segment.below(row).id,
        };
        Ok((0..segment.rows()).map(id).collect())
    }
}
