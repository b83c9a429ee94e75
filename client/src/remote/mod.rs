//! A repository on a server, as a backend: the same files, asked for over HTTP/2.
//!
//! [`address`] says where the server is, [`connect`] reaches it, [`transport`] asks and asks again when a connection is
//! lost, [`ahead`] asks before it is needed, [`file`] is a file on its way there. What never changes and is needed again is kept on this machine
//! ([`cache`]).
//!
//! Spec: protocol.md.

pub mod address;
mod ahead;
mod cache;
mod connect;
mod file;
mod tls;
mod transport;

use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use diptych_backend::{Backend, Class, Error, FileKind, FileName, Listed, NewFile, Result};
use diptych_format::pack::{HEADER_LENGTH, PackHolds, decode_header};
use hyper::Method;
use tokio::runtime::Runtime;

use address::Address;
use ahead::Ahead;
use cache::Cache;
use file::RemoteFile;
pub use tls::parse_fingerprint;
use transport::{Ask, Transport};

/// Files that are sent at once: enough to fill a line that is long and wide.
const WRITES_AT_ONCE: usize = 4;
/// Reads that are on their way at once, for the same reason.
const READS_AT_ONCE: usize = 8;
/// Longest list: of 25 million files.
const LIST_MAX: u64 = 1_000_000_000;
/// Length of a listed file.
const LISTED_LENGTH: usize = 40;
/// Longest document.
const DOCUMENT_MAX: u64 = diptych_format::limits::DOCUMENT_MAX;

/// How a client shows who it is, and knows whom it talks to.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// What stands for the client.
    pub token: Option<String>,
    /// SHA-256 of the server's certificate.
    pub fingerprint: Option<[u8; 32]>,
    /// Most bytes that are sent in a second.
    pub upload_max: Option<u64>,
    /// Most bytes that are fetched in a second.
    pub download_max: Option<u64>,
    /// How long a server that does not answer is asked again; two minutes unless it is said.
    pub try_for: Option<Duration>,
    /// Is told what people should know while it is tried again.
    pub notice: Option<fn(&str)>,
}

/// Where on this machine is kept what belongs to a location, if there is a place for such things.
pub fn cache_directory(location: &str) -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let root = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")))?;
    let name = blake3::hash(location.as_bytes()).to_hex();
    Some(root.join("diptych").join(name.get(..32)?))
}

/// The repository at `address`.
pub fn open(address: Address, credentials: Credentials) -> Result<Arc<dyn Backend>> {
    let cache = Cache::open(&address.location)?;
    let built = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("remote")
        .enable_all()
        .build();
    let runtime =
        built.map_err(|error| Error::io(format!("{}: cannot be reached", address.location), error))?;
    let transport = Arc::new(Transport::new(address, credentials, &runtime)?);
    let ahead = Arc::new(Ahead::new(Arc::clone(&transport)));
    // With these every verb begins.
    ahead.begin(&[transport.path_of(&FileName::CONFIG), path_of(&transport, FileKind::Key)]);
    ahead.begin(&[path_of(&transport, FileKind::Index)]);
    Ok(Arc::new(Remote { transport, cache, ahead, small: Arc::default(), runtime: Some(runtime) }))
}

struct Remote {
    transport: Arc<Transport>,
    cache: Arc<Cache>,
    ahead: Arc<Ahead>,
    small: Arc<Small>,
    /// There until the end.
    runtime: Option<Runtime>,
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.ahead.finish();
        if let Some(runtime) = self.runtime.take() {
            // Whatever runs still, nobody waits for.
            runtime.shutdown_background();
        }
    }
}

/// Small files that are needed more than once, and never change under their names.
type Small = Mutex<HashMap<FileName, Bytes>>;

impl Remote {
    fn small(&self) -> MutexGuard<'_, HashMap<FileName, Bytes>> {
        self.small.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was asked for ahead, or is asked for now.
    fn get(&self, path: String, answer_max: u64) -> Result<Bytes> {
        if let Some(bytes) = self.ahead.take(&path) {
            return Ok(bytes);
        }
        let mut ask = Ask::new(Method::GET, path);
        ask.answer_max = answer_max;
        Ok(self.transport.call(&ask)?.bytes)
    }

    /// Whether files of a kind are fetched whole and kept here.
    fn is_cached(kind: FileKind) -> bool {
        matches!(kind, FileKind::Key | FileKind::Index | FileKind::Snapshot)
    }

    /// Sees to it that a file is in the cache.
    fn fetch(&self, name: &FileName) -> Result<()> {
        if self.cache.has(name) {
            return Ok(());
        }
        let mut file = self.cache.create(name.kind())?;
        let ask = Ask::new(Method::GET, self.transport.path_of(name));
        let mut hasher = blake3::Hasher::new();
        // A connection that breaks off in the middle begins the file anew.
        self.transport.fetch(&ask, &mut |part| match part {
            None => {
                hasher.reset();
                file = self.cache.create(name.kind())?;
                Ok(())
            }
            Some(part) => {
                hasher.update(&part);
                file.write_all(&part).map_err(|error| Error::io("the cache cannot be written", error))
            }
        })?;
        // What a server gives under a name that is not its own never gets into the cache.
        if hasher.finalize() != *name.digest() {
            let what = format!(
                "{}/{name}: the file has other bytes than its name says; check the repository",
                self.location()
            );
            return Err(Error::new(Class::Truncated, what));
        }
        file.keep(name)
    }

    fn read_remote(&self, file: &FileName, buf: &mut [u8], offset: u64) -> Result<()> {
        if buf.is_empty() {
            return Ok(());
        }
        let end = offset.checked_add(buf.len() as u64).map(|end| end - 1);
        let Some(last) = end else {
            return Err(Error::new(Class::Truncated, format!("{file}: no file is as long as that")));
        };
        let mut ask = Ask::new(Method::GET, self.transport.path_of(file));
        ask.range = Some((offset, last));
        let mut filled = 0;
        self.transport.fetch(&ask, &mut |part| {
            match part {
                None => filled = 0,
                Some(part) => {
                    let room = buf.get_mut(filled..filled + part.len());
                    room.ok_or_else(|| too_long(file))?.copy_from_slice(&part);
                    filled += part.len();
                }
            }
            Ok(())
        })?;
        if filled == buf.len() {
            return Ok(());
        }
        let what = format!(
            "{}/{file}: {} bytes at {offset} are wanted, and it has {filled}; check the repository",
            self.location(),
            buf.len()
        );
        Err(Error::new(Class::Truncated, what))
    }
}

impl Backend for Remote {
    fn location(&self) -> String {
        self.transport.location().to_owned()
    }

    fn view(&self) -> String {
        self.transport.view()
    }

    fn make_layout(&self) -> Result<()> {
        self.transport.call(&Ask::new(Method::PUT, self.transport.base().to_owned())).map(drop)
    }

    fn mend_layout(&self) -> Result<()> {
        let path = format!("{}/mend", self.transport.base());
        self.transport.call(&Ask::new(Method::POST, path)).map(drop)
    }

    fn create(&self, kind: FileKind) -> Result<Box<dyn NewFile>> {
        Ok(Box::new(RemoteFile::new(
            Arc::clone(&self.transport),
            Arc::clone(&self.cache),
            Arc::clone(&self.ahead),
            Arc::clone(&self.small),
            kind,
        )))
    }

    fn read_at(&self, file: &FileName, buf: &mut [u8], offset: u64) -> Result<()> {
        if Self::is_cached(file.kind()) {
            self.fetch(file)?;
            return self.cache.read_at(file, buf, offset);
        }
        if file.kind() == FileKind::Data {
            if self.cache.has(file) {
                return self.cache.read_at(file, buf, offset);
            }
            // Metadata are read again and again, and in small pieces.
            if self.holds_metadata(file)? {
                self.fetch(file)?;
                return self.cache.read_at(file, buf, offset);
            }
            return self.read_remote(file, buf, offset);
        }
        let small = self.small().get(file).cloned();
        match small {
            Some(bytes) if offset == 0 && bytes.len() == buf.len() => {
                buf.copy_from_slice(&bytes);
                Ok(())
            }
            _ => self.read_remote(file, buf, offset),
        }
    }

    fn length(&self, file: &FileName) -> Result<u64> {
        if Self::is_cached(file.kind()) {
            self.fetch(file)?;
            return self.cache.length(file);
        }
        if file.kind() == FileKind::Data {
            let answer = self.transport.call(&Ask::new(Method::HEAD, self.transport.path_of(file)))?;
            return answer.length.ok_or_else(|| too_short(file));
        }
        let known = self.small().get(file).map(|bytes| bytes.len() as u64);
        if let Some(length) = known {
            return Ok(length);
        }
        let bytes = self.get(self.transport.path_of(file), DOCUMENT_MAX)?;
        let length = bytes.len() as u64;
        self.small().insert(*file, bytes);
        Ok(length)
    }

    fn list(&self, kind: FileKind) -> Result<Vec<Listed>> {
        let bytes = self.get(path_of(&self.transport, kind), LIST_MAX)?;
        let wrong = || {
            let what = format!("{}: the server's list of {} is none", self.location(), kind.word());
            Error::new(Class::Io, what)
        };
        let (rows, rest) = bytes.as_chunks::<LISTED_LENGTH>();
        let listed = |row: &[u8; LISTED_LENGTH]| {
            let (digest, length) = row.split_first_chunk()?;
            let length = u64::from_le_bytes(*length.first_chunk()?);
            Some(Listed { name: FileName::new(kind, *digest), length })
        };
        let listed: Option<Vec<Listed>> = rows.iter().map(listed).collect();
        let listed = listed.filter(|_| rest.is_empty()).ok_or_else(wrong)?;
        if !listed.is_sorted_by(|a, b| a.name < b.name) {
            return Err(wrong());
        }
        self.cache.retain(kind, &listed);
        if kind == FileKind::Lease {
            self.small().retain(|name, _| {
                name.kind() != kind || listed.binary_search_by_key(name, |listed| listed.name).is_ok()
            });
        }
        Ok(listed)
    }

    fn strangers(&self, kind: FileKind) -> Result<Vec<String>> {
        let mut ask = Ask::new(Method::GET, format!("{}/strangers/{}", self.transport.base(), kind.word()));
        ask.answer_max = DOCUMENT_MAX;
        let bytes = self.transport.call(&ask)?.bytes;
        serde_json::from_slice(&bytes).map_err(|error| {
            Error::new(Class::Io, format!("{}: the server's answer is none: {error}", self.location()))
        })
    }

    fn delete(&self, file: &FileName) -> Result<()> {
        self.cache.remove(file);
        self.ahead.forget();
        let answer = self.transport.call(&Ask::new(Method::DELETE, self.transport.path_of(file)));
        match answer {
            // The first time it was done, and the answer was lost.
            Err(error) if error.class == Class::Missing && self.transport.was_lost() => Ok(()),
            answer => answer.map(drop),
        }
    }

    fn may_read_contents(&self) -> Result<()> {
        let said = self.get(self.transport.base().to_owned(), DOCUMENT_MAX)?;
        let said: serde_json::Value = serde_json::from_slice(&said).unwrap_or_default();
        let rights = said.get("rights").and_then(|rights| rights.as_array().cloned()).unwrap_or_default();
        if rights.iter().any(|right| right == "read" || right == "admin") {
            return Ok(());
        }
        let what = format!(
            "{}: the token that was given may not read contents; give one with the right to read",
            self.location()
        );
        Err(Error::new(Class::Denied, what))
    }

    fn delete_soon(&self, file: &FileName) {
        self.cache.remove(file);
        self.ahead.forget();
        self.ahead.finish_later(Ask::new(Method::DELETE, self.transport.path_of(file)));
    }

    fn reads_at_once(&self) -> usize {
        READS_AT_ONCE
    }

    fn writes_at_once(&self) -> usize {
        WRITES_AT_ONCE
    }

    /// What is left on the server the server removes.
    fn remove_leftovers(&self) -> Result<u64> {
        Ok(0)
    }
}

impl Remote {
    fn holds_metadata(&self, file: &FileName) -> Result<bool> {
        if let Some(holds) = self.cache.holds(file) {
            return Ok(holds == PackHolds::Metadata);
        }
        let mut header = [0; HEADER_LENGTH];
        self.read_remote(file, &mut header, 0)?;
        // Whoever reads the pack finds out what is wrong with it.
        let holds = decode_header(&header).unwrap_or(PackHolds::Payload);
        self.cache.note_holds(file, holds);
        Ok(holds == PackHolds::Metadata)
    }
}

/// The path of the files of a kind.
fn path_of(transport: &Transport, kind: FileKind) -> String {
    format!("{}/{}", transport.base(), kind.word())
}

fn too_short(file: &FileName) -> Error {
    Error::new(Class::Io, format!("{file}: the server gave less than it said"))
}

fn too_long(file: &FileName) -> Error {
    Error::new(Class::Io, format!("{file}: the server gave more than was asked for"))
}
