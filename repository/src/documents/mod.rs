//! Documents: the small JSON files of a repository, which say what it is, who may open it, what it holds and who is
//! at work.
//!
//! Each has one form that writers write. What authenticates it is computed of that form, so nothing that a reader
//! takes is left out of it.
//!
//! Spec: repository.md sections 3, 4, 9 and 10.

mod config;
mod key;
mod lock;
mod snapshot;
mod text;

use std::fmt;

use diptych_format::{Digest, Error, Result, limits};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use config::{Config, Encryption, PACK_SIZE_DEFAULT};
pub use key::{KeyDocument, KeyOwner, unlock};
pub use lock::{Lock, LockKind};
pub use snapshot::{
    ArchiveRecord, Body, Clock, Envelope, Report, Snapshot, SnapshotDocument, SnapshotKind, StreamRecord,
    Tombstone,
};

use crate::keys::{DocumentKeys, random};
use text::{AsOption, Hex, Object, Text};

/// The version that this crate reads and writes.
pub const VERSION: u64 = 1;

/// The documents with what `format` says in each and the keys behind `version`, as the specification lists them.
pub const DOCUMENTS: [(&str, &str, &str); 4] = [
    ("config", config::FORMAT, "id, created, names, encryption, padding, pack_size, mac"),
    ("key", key::FORMAT, "repository, created, user, host, label, kdf, wrapped"),
    ("snapshot", snapshot::FORMAT, "repository, kind, roots, body or sealed"),
    ("lock", lock::FORMAT, "repository, kind, host, user, process, written, sees, packs, chunks, mac"),
];

/// The keys of the body of a snapshot, as the specification lists them.
pub const SNAPSHOT_KEYS: [&str; 9] =
    ["time", "host", "user", "tags", "tool", "base", "replaces", "archives", "report"];

/// The keys of an archive in a snapshot, as the specification lists them.
pub const ARCHIVE_KEYS: [&str; 11] = [
    "name",
    "path",
    "tree_id",
    "complete",
    "entries",
    "content_bytes",
    "metadata",
    "payload",
    "started",
    "sparse_chunks",
    "sample",
];

/// What a repository is known by, wherever it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RepositoryId(pub [u8; 32]);

impl RepositoryId {
    /// A new one.
    pub fn generate() -> Result<Self> {
        random().map(Self)
    }
}

impl fmt::Display for RepositoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Hex::show(&self.0))
    }
}

impl Text<RepositoryId> for Hex {
    const EXPECTED: &'static str = <Hex as Text<Digest>>::EXPECTED;

    fn show(value: &RepositoryId) -> String {
        value.to_string()
    }

    fn read(text: &str) -> Option<RepositoryId> {
        Hex::read(text).map(RepositoryId)
    }
}

/// What all documents begin with.
#[derive(Deserialize)]
struct Head {
    format: String,
    version: u64,
}

/// A document as it is written: its head, then its keys.
#[derive(Serialize)]
struct Whole<'a, T> {
    format: &'a str,
    version: u64,
    #[serde(flatten)]
    keys: &'a T,
}

/// What authenticates a document that is not sealed.
#[derive(Deserialize)]
struct Mac {
    #[serde(default, with = "AsOption::<Hex>")]
    mac: Option<[u8; 32]>,
}

/// The one form of a document with these keys.
fn encode<T: Serialize>(format: &str, keys: &T) -> Result<Vec<u8>> {
    to_json(format, &Whole { format, version: VERSION, keys })
}

fn to_json(format: &str, value: &impl Serialize) -> Result<Vec<u8>> {
    let bytes = serde_json::to_vec(value)
        .map_err(|error| Error::corrupt(format!("a document ({format}) cannot be written: {error}")))?;
    validate_length(bytes.len())?;
    Ok(bytes)
}

/// The same document with one key more at its end, whose value is JSON already.
fn with_last(mut document: Vec<u8>, key: &str, value: &[u8]) -> Result<Vec<u8>> {
    let added = key.len() + value.len() + 4;
    validate_length(document.len() + added)?;
    document.reserve_exact(added);
    document.pop();
    document.extend_from_slice(b",\"");
    document.extend_from_slice(key.as_bytes());
    document.extend_from_slice(b"\":");
    document.extend_from_slice(value);
    document.push(b'}');
    Ok(document)
}

/// Reads the keys of a document; those that are not known are ignored. Spec: R-3-1.
fn decode<T: DeserializeOwned>(format: &str, bytes: &[u8]) -> Result<T> {
    validate_length(bytes.len())?;
    let head: Head = from_json(format, bytes)?;
    if head.format != format {
        let found: String = head.format.chars().take(40).collect();
        return Err(Error::corrupt(format!("a document is of format {found:?} where {format} is expected")));
    }
    if head.version != VERSION {
        return Err(Error::unsupported(format!(
            "version {} of a document ({format}) is not known: a newer diptych may read it",
            head.version
        )));
    }
    from_json(format, bytes)
}

fn from_json<T: DeserializeOwned>(format: &str, bytes: &[u8]) -> Result<T> {
    let Object(value) = serde_json::from_slice(bytes)
        .map_err(|error| Error::corrupt(format!("a document ({format}) cannot be read: {error}")))?;
    Ok(value)
}

fn validate_length(length: usize) -> Result<()> {
    if length as u64 > limits::DOCUMENT_MAX {
        return Err(Error::limit("length of a document", length as u64, limits::DOCUMENT_MAX));
    }
    Ok(())
}

/// A document with its mac, where there are keys. Spec: R-3-3.
fn encode_authentic<T: Serialize>(format: &str, keys: &T, document_keys: &DocumentKeys) -> Result<Vec<u8>> {
    let bytes = encode(format, keys)?;
    match document_keys.mac(&bytes) {
        Some(mac) => with_last(bytes, "mac", &to_json(format, &mac.to_hex().as_str())?),
        None => Ok(bytes),
    }
}

/// Compares a document's mac with that of its one form. Spec: R-3-4.
fn verify_mac<T: Serialize>(
    format: &str,
    keys: &T,
    mac: Option<[u8; 32]>,
    document_keys: &DocumentKeys,
) -> Result<()> {
    // The comparison of hashes takes the same time wherever they differ.
    let found = mac.map(blake3::Hash::from_bytes);
    if found == document_keys.mac(&encode(format, keys)?) {
        return Ok(());
    }
    Err(Error::corrupt(match (found, document_keys.is_sealed()) {
        (None, _) => format!("a document ({format}) of an encrypted repository has no mac"),
        (Some(_), true) => format!("a document ({format}) has a mac that no holder of the key has made"),
        (Some(_), false) => format!("a document ({format}) has a mac, and its repository is not encrypted"),
    }))
}

/// A document says whose it is; one that was put into another repository is none of it.
fn validate_repository(format: &str, found: &RepositoryId, expected: &RepositoryId) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Error::corrupt(format!("a document ({format}) is of repository {found}, and this one is {expected}")))
}
