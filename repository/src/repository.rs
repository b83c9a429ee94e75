//! A repository that is open: its files, its keys, its chunks, its snapshots.
//!
//! Spec: repository.md.

use std::io::Write;
use std::sync::Arc;

use diptych_backend::{Backend, FileKind, FileName};
use diptych_format::manifest::StreamRoot;
use diptych_format::pack::ChunkKind;
use diptych_format::{Class, Digest, Error, ReadAt, Result, limits};
use jiff::Timestamp;

use crate::documents::{
    ArchiveRecord, Body, Config, Encryption, KeyDocument, KeyOwner, Lock, RepositoryId, SnapshotDocument,
    SnapshotKind, StreamRecord, unlock,
};
use crate::index::Index;
use crate::keys::{ChunkKeys, DocumentKeys, Kdf, MasterKey, Padding};
use crate::place::{KeptFile, NamedFile, told, told_at};
use crate::store::{Shelf, StoreReader, StoreWriter};
use crate::stream::{Caches, StreamReader};

/// How much of a file is read at once to digest it.
const READ_AT_ONCE: usize = 1 << 20;

/// Why a repository could not be opened.
#[derive(Debug)]
pub enum OpenError {
    /// There is none.
    None(Error),
    /// No key file opens with the password. Spec: R-4-3.
    WrongPassword,
    /// A password was given, and the repository is not encrypted: it may have been exchanged for another one.
    NotEncrypted,
    /// Something else.
    Failed(Error),
}

impl From<Error> for OpenError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// What a new repository is to be.
#[derive(Clone, Debug)]
pub struct InitOptions {
    /// The password, if it is to be encrypted, and whose it is.
    pub password: Option<(Vec<u8>, KeyOwner)>,
    /// How much sealed chunks are padded.
    pub padding: Padding,
    /// The time.
    pub created: Timestamp,
}

/// A file that is treated as not there.
#[derive(Debug)]
pub struct DamagedFile {
    /// Its path in the repository.
    pub path: String,
    /// What is wrong with it.
    pub error: Error,
}

/// A snapshot with its id.
#[derive(Clone, Debug)]
pub struct StoredSnapshot {
    /// Its file's name.
    pub id: Digest,
    /// What the file says.
    pub document: SnapshotDocument,
}

impl StoredSnapshot {
    /// When the run began; of a tombstone, when it was written.
    pub fn time(&self) -> Timestamp {
        match &self.document.body {
            Body::Snapshot(snapshot) => snapshot.time,
            Body::Tombstone(tombstone) => tombstone.time,
        }
    }
}

/// An open repository. Threads share it; a clone is the same one.
#[derive(Clone)]
pub struct Repository {
    backend: Arc<dyn Backend>,
    config: Arc<Config>,
    master: Option<Arc<MasterKey>>,
    key: Option<Digest>,
    chunk_keys: ChunkKeys,
    document_keys: DocumentKeys,
    index: Arc<Index>,
    shelf: Option<Arc<dyn Shelf>>,
}

impl Repository {
    /// Makes a repository where there is none.
    pub fn init(backend: Arc<dyn Backend>, options: &InitOptions) -> Result<Self> {
        backend.make_layout().map_err(told)?;
        let encryption = if options.password.is_some() { Encryption::Xaes256Gcm } else { Encryption::None };
        let config = Config::new(encryption, options.padding, options.created)?;
        let unlocked = match &options.password {
            None => None,
            Some((password, owner)) => {
                let master = MasterKey::generate()?;
                let key = KeyDocument::wrap(&master, config.id, password, owner.clone(), Kdf::generate()?)?;
                let name = put_file(&*backend, FileKind::Key, &key.encode()?)?;
                Some((name, master))
            }
        };
        let document_keys =
            unlocked.as_ref().map_or_else(DocumentKeys::plain, |(_, master)| DocumentKeys::of(master));
        // Last, for it is what makes a repository; whoever comes second finds that it is there.
        let bytes = config.encode(&document_keys)?;
        let mut file = backend.create(FileKind::Config).map_err(told)?;
        let at = |error| told_at(&*backend, Error::io("the configuration cannot be written", error));
        file.write_all(&bytes).map_err(at)?;
        file.keep(&FileName::CONFIG).map_err(told)?;
        Self::with(backend, config, unlocked)
    }

    /// Opens a repository. `password` is asked only if it takes one; `is_expected` says that the caller has one.
    /// Key and index files that cannot be read are told to `report`.
    pub fn open(
        backend: Arc<dyn Backend>,
        is_expected: bool,
        password: impl FnOnce() -> Result<Vec<u8>>,
        mut report: impl FnMut(DamagedFile),
    ) -> Result<Self, OpenError> {
        let bytes = match get_file(&*backend, &FileName::CONFIG) {
            Ok(bytes) => bytes,
            Err(error) if error.class == Class::Missing => return Err(OpenError::None(error)),
            Err(error) => return Err(OpenError::Failed(error)),
        };
        let config = Config::decode(&bytes).map_err(of_config)?;
        if !config.is_encrypted() {
            // Who can replace files can put a configuration here that says so, and wait for contents in clear.
            if is_expected {
                return Err(OpenError::NotEncrypted);
            }
            config.verify(&DocumentKeys::plain()).map_err(of_config)?;
            return Ok(Self::with(backend, config, None)?.reporting(report));
        }
        let names: Vec<FileName> =
            backend.list(FileKind::Key).map_err(told)?.into_iter().map(|listed| listed.name).collect();
        let files = names.iter().map(|name| get_named(&*backend, name));
        let mut told = |place: usize, error| {
            let path = names.get(place).map_or_else(String::new, FileName::path);
            report(DamagedFile { path, error });
        };
        let password = password()?;
        let Some((place, master)) = unlock(files, &config.id, &password, &mut told) else {
            return Err(OpenError::WrongPassword);
        };
        config.verify(&DocumentKeys::of(&master)).map_err(of_config)?;
        let name = names.get(place).map_or(Digest::NONE, |name| Digest(*name.digest()));
        Ok(Self::with(backend, config, Some((name, master)))?.reporting(report))
    }

    /// Tells of index files that could not be used.
    fn reporting(self, report: impl FnMut(DamagedFile)) -> Self {
        let damaged = self.index.take_damaged().into_iter();
        damaged.map(|found| DamagedFile { path: found.name.path(), error: found.error }).for_each(report);
        self
    }

    /// `unlocked` is the master key, and which key file gave it.
    fn with(
        backend: Arc<dyn Backend>,
        config: Config,
        unlocked: Option<(Digest, MasterKey)>,
    ) -> Result<Self> {
        let (key, master) = unlocked.unzip();
        let chunk_keys = master.as_ref().map_or_else(ChunkKeys::plain, ChunkKeys::of);
        let document_keys = master.as_ref().map_or_else(DocumentKeys::plain, DocumentKeys::of);
        let index = Arc::new(Index::open(Arc::clone(&backend), document_keys.index_hasher())?);
        let (config, master) = (Arc::new(config), master.map(Arc::new));
        Ok(Self { backend, config, master, key, chunk_keys, document_keys, index, shelf: None })
    }

    /// Where it is.
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// What it is.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What its chunks are identified and sealed with.
    pub fn chunk_keys(&self) -> &ChunkKeys {
        &self.chunk_keys
    }

    /// What its documents are sealed and proved with.
    pub fn document_keys(&self) -> &DocumentKeys {
        &self.document_keys
    }

    /// Which chunks are where.
    pub fn index(&self) -> &Arc<Index> {
        &self.index
    }

    /// Reads its chunks.
    pub fn reader(&self) -> StoreReader {
        StoreReader::new(Arc::clone(&self.index)).with_shelf(self.shelf.clone())
    }

    /// Keeps the payload's chunks that are read one by one on `shelf`, and looks for them there first.
    pub fn with_shelf(self, shelf: Arc<dyn Shelf>) -> Self {
        Self { shelf: Some(shelf), ..self }
    }

    /// Stores chunks.
    pub fn writer(&self) -> StoreWriter {
        StoreWriter::new(Arc::clone(&self.index), self.config.pack_size)
    }

    /// The two streams of an archive: metadata, payload.
    pub fn streams(&self, archive: &ArchiveRecord, caches: &Caches) -> [Arc<StreamReader>; 2] {
        let source = Arc::new(self.reader());
        let stream = |kind, of: &StreamRecord| {
            let root = StreamRoot { root: of.root, length: of.length };
            Arc::new(StreamReader::new(source.clone(), kind, root, caches))
        };
        [stream(ChunkKind::Metadata, &archive.metadata), stream(ChunkKind::Payload, &archive.payload)]
    }

    /// All snapshots, tombstones and the like, oldest first. Those that cannot be read are told to `report`.
    pub fn snapshots(&self, mut report: impl FnMut(DamagedFile)) -> Result<Vec<StoredSnapshot>> {
        let mut found = Vec::new();
        for listed in self.backend.list(FileKind::Snapshot).map_err(told)? {
            match self.snapshot(&Digest(*listed.name.digest())) {
                Ok(snapshot) => found.push(snapshot),
                // Removed since it was listed.
                Err(error) if error.class == Class::Missing => {}
                Err(error) => report(DamagedFile { path: listed.name.path(), error }),
            }
        }
        found.sort_by_key(|snapshot| (snapshot.time(), snapshot.id));
        Ok(found)
    }

    /// One of them.
    pub fn snapshot(&self, id: &Digest) -> Result<StoredSnapshot> {
        let bytes = get_named(&*self.backend, &FileName::new(FileKind::Snapshot, id.0))?;
        let document = SnapshotDocument::decode(&bytes, &self.document_keys, &self.config.id)?;
        Ok(StoredSnapshot { id: *id, document })
    }

    /// Writes a snapshot, a tombstone or the like; gives its id.
    pub fn put_snapshot(&self, kind: SnapshotKind, body: Body) -> Result<StoredSnapshot> {
        let document = SnapshotDocument { repository: self.config.id, kind, body };
        let bytes = document.encode(&self.document_keys)?;
        let id = put_file(&*self.backend, FileKind::Snapshot, &bytes)?;
        Ok(StoredSnapshot { id, document })
    }

    /// Removes one of the files in snapshots/.
    pub fn remove_snapshot(&self, id: &Digest) -> Result<()> {
        self.backend.delete(&FileName::new(FileKind::Snapshot, id.0)).map_err(told)
    }

    /// Removes one of them that does no harm if it stays.
    pub fn remove_snapshot_soon(&self, id: &Digest) {
        self.backend.delete_soon(&FileName::new(FileKind::Snapshot, id.0));
    }

    /// The key file that the password opened; none if the repository is not encrypted.
    pub fn key(&self) -> Option<Digest> {
        self.key
    }

    /// The key files that can be read, by name.
    pub fn keys(&self, mut report: impl FnMut(DamagedFile)) -> Result<Vec<(Digest, KeyDocument)>> {
        let mut found = Vec::new();
        for listed in self.backend.list(FileKind::Key).map_err(told)? {
            match get_named(&*self.backend, &listed.name).and_then(|bytes| KeyDocument::decode(&bytes)) {
                Ok(key) => found.push((Digest(*listed.name.digest()), key)),
                Err(error) => report(DamagedFile { path: listed.name.path(), error }),
            }
        }
        Ok(found)
    }

    /// Adds a password; none if the repository is not encrypted.
    pub fn add_key(&self, owner: KeyOwner, password: &[u8]) -> Result<Option<Digest>> {
        let Some(master) = &self.master else { return Ok(None) };
        let key = KeyDocument::wrap(master, self.config.id, password, owner, Kdf::generate()?)?;
        put_file(&*self.backend, FileKind::Key, &key.encode()?).map(Some)
    }

    /// Removes a password.
    pub fn remove_key(&self, name: &Digest) -> Result<()> {
        self.backend.delete(&FileName::new(FileKind::Key, name.0)).map_err(told)
    }

    /// Writes a lease or the like; gives its name.
    pub fn put_lock(&self, lock: &Lock) -> Result<Digest> {
        put_file(&*self.backend, FileKind::Lease, &lock.encode(&self.document_keys)?)
    }

    /// All leases and the like. Those that cannot be read are told to `report`.
    pub fn locks(&self, mut report: impl FnMut(DamagedFile)) -> Result<Vec<(Digest, Lock)>> {
        let mut found = Vec::new();
        for listed in self.backend.list(FileKind::Lease).map_err(told)? {
            let lock = get_named(&*self.backend, &listed.name)
                .and_then(|bytes| Lock::decode(&bytes, &self.document_keys, &self.config.id));
            match lock {
                Ok(lock) => found.push((Digest(*listed.name.digest()), lock)),
                Err(error) if error.class == Class::Missing => {}
                Err(error) => report(DamagedFile { path: listed.name.path(), error }),
            }
        }
        Ok(found)
    }

    /// Removes a lease.
    pub fn remove_lock(&self, name: &Digest) -> Result<()> {
        self.backend.delete(&FileName::new(FileKind::Lease, name.0)).map_err(told)
    }

    /// Removes a lease that does no harm if it stays.
    pub fn remove_lock_soon(&self, name: &Digest) {
        self.backend.delete_soon(&FileName::new(FileKind::Lease, name.0));
    }

    /// Reads a file to its end and compares the digest of its bytes with its name. Spec: R-2-1 and R-2-2.
    pub fn verify_name(&self, name: &FileName) -> Result<()> {
        let file = KeptFile::open(Arc::clone(&self.backend), *name)?;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; READ_AT_ONCE];
        let mut offset = 0;
        while offset < file.len() {
            let length = usize::try_from(file.len() - offset).unwrap_or(READ_AT_ONCE).min(READ_AT_ONCE);
            let part = buffer.get_mut(..length).unwrap_or_default();
            file.read_exact_at(part, offset)?;
            hasher.update(part);
            offset += length as u64;
        }
        if hasher.finalize() == *name.digest() { Ok(()) } else { Err(other_bytes(name)) }
    }

    /// The repository's id.
    pub fn id(&self) -> RepositoryId {
        self.config.id
    }
}

/// An error of the config, which says nothing of where it is.
fn of_config(error: Error) -> Error {
    Error { what: format!("{}: {}", FileName::CONFIG, error.what), ..error }
}

/// Writes a file that is named by its bytes. Spec: R-2-1.
fn put_file(backend: &dyn Backend, kind: FileKind, bytes: &[u8]) -> Result<Digest> {
    let mut file = NamedFile::create(backend, kind)?;
    file.write_all(bytes).map_err(|error| told_at(backend, Error::io("a file cannot be written", error)))?;
    file.keep()
}

/// Reads a document whole.
fn get_file(backend: &dyn Backend, name: &FileName) -> Result<Vec<u8>> {
    let length = backend.length(name).map_err(told)?;
    if length > limits::DOCUMENT_MAX {
        return Err(Error::limit("length of a document", length, limits::DOCUMENT_MAX));
    }
    // DOCUMENT_MAX bounds it.
    let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
    backend.read_at(name, &mut bytes, 0).map_err(told)?;
    Ok(bytes)
}

/// The same of a file that is named by its bytes. Spec: R-2-2.
fn get_named(backend: &dyn Backend, name: &FileName) -> Result<Vec<u8>> {
    let bytes = get_file(backend, name)?;
    if *blake3::hash(&bytes).as_bytes() != *name.digest() {
        return Err(other_bytes(name));
    }
    Ok(bytes)
}

fn other_bytes(name: &FileName) -> Error {
    Error::corrupt(format!("{}: the file has other bytes than its name says", name.path()))
}
