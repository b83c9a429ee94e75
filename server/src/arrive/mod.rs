//! Files that clients send: nothing is believed of them, and nothing is kept that does not stand every comparison.
//!
//! Spec: protocol.md section 4.

mod parked;
mod snapshot;

pub use parked::Parked;

use std::io;
use std::sync::Arc;

use diptych_backend::{FileKind, FileName, NewFile};
use diptych_format::pack_index::{INDEX_HEADER_LENGTH, IndexHeader};
use diptych_format::{Digest, Error as FormatError, ReadAt, limits};
use diptych_repository::documents::{Config, KeyDocument, Lock, LockKind};
use diptych_repository::index::PackSum;
use diptych_repository::store::verify_pack;
use diptych_repository::{Decompressor, DocumentKeys, IndexFile, KeptFile, PackReader};
use jiff::Timestamp;

use crate::access::{Access, failed};
use crate::problem::{Problem, ProblemClass, Result};
use crate::records::Record;
use crate::server::Server;
use crate::tokens::Token;

/// Index files that one may replace.
const REPLACES_MAX: u32 = 1 << 16;

/// A file that has arrived whole and has no name yet.
pub struct Arrived {
    file: Box<dyn NewFile>,
    length: u64,
    digest: [u8; 32],
    reserved: Reserved,
}

/// A file that is arriving.
pub struct Arriving {
    file: Box<dyn NewFile>,
    length: u64,
    length_max: u64,
    /// The first bytes of an index file, which say how long it is.
    start: Vec<u8>,
    reserved: Reserved,
    hasher: blake3::Hasher,
    name: FileName,
}

/// Room of a token's quota that is set aside for what is arriving, until this is dropped.
struct Reserved {
    server: Arc<Server>,
    token: Arc<Token>,
    bytes: u64,
}

impl Reserved {
    /// Before it is there: what is refused at its end has filled the disk until then.
    fn add(&mut self, bytes: u64) -> Result<()> {
        if let Some((quota, records)) = self.token.quota.zip(self.server.records.as_ref()) {
            records.reserve(&self.token.id, bytes, quota).map_err(|left| {
                let what = format!("the quota of this token is used up: {left} bytes are left");
                Problem::new(ProblemClass::Full, what)
            })?;
            self.bytes += bytes;
        }
        Ok(())
    }
}

impl Reserved {
    /// It is not set aside any more.
    fn release(&mut self) {
        if let Some(records) = &self.server.records {
            records.release(&self.token.id, std::mem::take(&mut self.bytes));
        }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.release();
    }
}

impl Arriving {
    /// Begins to take the file `name`.
    pub fn new(access: &Access, name: FileName) -> Result<Self> {
        let length_max = match name.kind() {
            FileKind::Data => limits::PACK_LENGTH_MAX,
            // Its first bytes say more.
            FileKind::Index => u64::MAX,
            _ => limits::DOCUMENT_MAX,
        };
        let (server, token) = (Arc::clone(&access.server), Arc::clone(&access.token));
        let reserved = Reserved { server, token, bytes: 0 };
        let file = access.namespace.backend.create(name.kind())?;
        let (start, hasher) = (Vec::new(), blake3::Hasher::new());
        Ok(Self { file, length: 0, length_max, start, reserved, hasher, name })
    }

    /// Takes some bytes. Spec: P-4-3.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.length += bytes.len() as u64;
        if self.name.kind() == FileKind::Index && self.start.len() < INDEX_HEADER_LENGTH {
            let missing = INDEX_HEADER_LENGTH - self.start.len();
            self.start.extend_from_slice(bytes.get(..missing.min(bytes.len())).unwrap_or_default());
            if self.start.len() == INDEX_HEADER_LENGTH {
                self.length_max = index_length(&self.start)?;
            }
        }
        if self.length > self.length_max {
            let what = format!("{}: longer than {} bytes, which is the most", self.name, self.length_max);
            return Err(Problem::new(ProblemClass::Limit, what));
        }
        self.reserved.add(bytes.len() as u64)?;
        self.hasher.update(bytes);
        let written = self.file.write_all(bytes);
        written.map_err(|error| {
            diptych_backend::Error::io(format!("{}: cannot be written", self.name), error).into()
        })
    }

    /// Nobody sends it for now: what it takes is there for other files.
    fn rest(&mut self) {
        self.reserved.release();
    }

    /// It is gone on with.
    fn resume(&mut self) -> Result<()> {
        self.reserved.add(self.length)
    }

    /// How many bytes are there.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// All bytes are there.
    pub fn end(self) -> Arrived {
        let digest = *self.hasher.finalize().as_bytes();
        Arrived { file: self.file, length: self.length, digest, reserved: self.reserved }
    }
}

/// How long an index file is that begins so. What it makes the server keep in memory is bounded by the rows that it has: no
/// writer makes its fan-out finer than these, or names packs without any, or replaces more files than there ever are.
fn index_length(start: &[u8]) -> Result<u64> {
    let header = IndexHeader::decode(start)?;
    let is_fine = header.fan_bits > 0 && header.chunks >> (header.fan_bits - 1) == 0;
    if is_fine || u64::from(header.packs) > header.chunks || header.replaces > REPLACES_MAX {
        let what =
            "the index has a finer fan-out, more packs or more files that it replaces than its rows can need";
        return Err(Problem::new(ProblemClass::Limit, what));
    }
    Ok(header.layout().mac + size_of::<Digest>() as u64)
}

impl ReadAt for Arrived {
    fn len(&self) -> u64 {
        self.length
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<(), FormatError> {
        self.file.read_back(buf, offset).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => FormatError::truncated("the file ends too early"),
            _ => FormatError::io("what arrived cannot be read back", error),
        })
    }
}

impl Access {
    /// Keeps a file that has arrived, if it is what its name and its bytes say. Spec: P-4-1.
    pub fn keep(&self, name: &FileName, arrived: Arrived) -> Result<()> {
        // Spec: P-4-2.
        if name.kind() != FileKind::Config && arrived.digest != *name.digest() {
            return Err(Problem::corrupt(format!("{name}: the bytes that arrived have another digest")));
        }
        let length = arrived.length;
        let file = Arc::new(arrived);
        let pack = match name.kind() {
            FileKind::Data => Some(self.validate_pack(name, &file)?),
            FileKind::Index => self.validate_index(&file).map(|()| None)?,
            _ => self.validate_document(name, &file).map(|()| None)?,
        };
        let mut whole = Arc::into_inner(file)
            .ok_or_else(|| Problem::new(ProblemClass::Io, format!("{name}: the file is still in use")))?;
        let Some(records) = &self.server.records else { return Ok(whole.file.keep(name)?) };
        // First the record, so that no file is there that nobody is known to have sent: a token's own it could not delete.
        let arrived = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default();
        let record = Record { arrived, length, pack };
        let (namespace, token) = (&self.namespace.name, &self.token.id);
        let was_known = self.records(name)?.iter().any(|(known, _)| known == token);
        records.add(namespace, name, token, &record, whole.reserved.bytes).map_err(failed)?;
        whole.reserved.bytes = 0;
        whole.file.keep(name).map_err(|error| {
            if !was_known && let Err(error) = records.take_back(namespace, name, token, &record) {
                tracing::error!(%error, "the record of a file that was not kept cannot be taken back");
            }
            error.into()
        })
    }

    /// Spec: P-4-4.
    fn validate_pack(
        &self,
        name: &FileName,
        file: &Arc<Arrived>,
    ) -> Result<(diptych_format::pack::PackHolds, PackSum)> {
        let pack = PackReader::open(Arc::clone(file) as Arc<dyn ReadAt>)?;
        if !self.namespace.facts()?.is_encrypted {
            let id = Digest(*name.digest());
            verify_pack(&**file, &id, &pack, &mut Decompressor::default(), |_| Ok(()))?;
        }
        Ok((pack.holds(), PackSum::of(pack.chunks(), &self.server.secret)?))
    }

    /// Spec: P-4-5.
    fn validate_index(&self, file: &Arc<Arrived>) -> Result<()> {
        let shared = Arc::clone(file) as Arc<dyn ReadAt>;
        let index = match self.namespace.facts()?.is_encrypted {
            true => IndexFile::open_unproved(shared)?,
            false => IndexFile::open(shared, &DocumentKeys::plain().index_hasher())?,
        };
        for (pack, sum) in index.packs().iter().zip(index.sums(&self.server.secret)?) {
            let name = FileName::new(FileKind::Data, pack.name.0);
            let wrong = |what: &str| Problem::corrupt(format!("the index names {name}, {what}"));
            let gone = || wrong("which is not there or was sent by somebody else");
            if !self.sees(&name)? {
                return Err(gone());
            }
            let length = match self.namespace.backend.length(&name) {
                Err(error) if error.class == diptych_backend::Class::Missing => return Err(gone()),
                length => length?,
            };
            if length != pack.length || self.sum_of(&name)? != sum {
                return Err(wrong("and has other rows for it than the pack's directory"));
            }
        }
        Ok(())
    }

    /// What a pack's directory says: as recorded when it arrived, or else as it says now.
    fn sum_of(&self, name: &FileName) -> Result<PackSum> {
        let recorded = self.records(name)?.into_iter().find_map(|(_, record)| record.pack);
        if let Some((_, sum)) = recorded {
            return Ok(sum);
        }
        let file = Arc::new(KeptFile::open(Arc::clone(&self.namespace.backend), *name)?);
        Ok(PackSum::of(PackReader::open(file)?.chunks(), &self.server.secret)?)
    }

    /// Spec: P-4-7.
    fn validate_document(&self, name: &FileName, file: &Arc<Arrived>) -> Result<()> {
        // Bounded when it arrived.
        let mut bytes = vec![0; usize::try_from(file.len()).unwrap_or_default()];
        file.read_exact_at(&mut bytes, 0)?;
        if name.kind() == FileKind::Config {
            return Ok(Config::decode(&bytes).map(drop)?);
        }
        if name.kind() == FileKind::Key {
            // The configuration comes after the first key.
            let key = KeyDocument::decode(&bytes)?;
            return match self.namespace.facts() {
                Ok(facts) if facts.id != key.repository => {
                    Err(Problem::corrupt(format!("{name}: this is a key of another repository")))
                }
                Err(error) if error.class != ProblemClass::Missing => Err(error),
                _ => Ok(()),
            };
        }
        let facts = self.namespace.facts()?;
        if name.kind() == FileKind::Snapshot {
            return self.validate_snapshot(&bytes, &facts);
        }
        let lock = match facts.is_encrypted {
            true => Lock::decode_unproved(&bytes, &facts.id)?,
            false => Lock::decode(&bytes, &DocumentKeys::plain(), &facts.id)?,
        };
        match lock.kind {
            LockKind::Lease { .. } => Ok(()),
            _ => self.is_admin("keep others from packs"),
        }
    }
}
