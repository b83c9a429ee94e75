//! Snapshots: which archives a run has made, and which segments they begin with.
//!
//! What is in use stands in clear; everything else is sealed where the repository is encrypted, and bound to what
//! stands in clear.
//!
//! Spec: repository.md section 9.

use std::collections::HashSet;

use diptych_format::{Digest, Error, Result};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::text::{As, AsList, AsOption, Escaped, Hex, Rfc3339, Text, object, objects, optional_object};
use super::{RepositoryId, decode, encode, from_json, to_json, validate_repository, with_last};
use crate::keys::DocumentKeys;

/// What `format` says in one.
pub(super) const FORMAT: &str = "diptych-snapshot";

/// What a file in `snapshots/` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SnapshotKind {
    /// A complete run.
    Snapshot,
    /// What an interrupted run had so far.
    Partial,
    /// A run that is about to commit.
    Pending,
    /// A snapshot that was forgotten.
    Tombstone,
}

impl SnapshotKind {
    /// All kinds with their words, as the specification lists them.
    pub const ALL: [(SnapshotKind, &'static str); 4] = [
        (SnapshotKind::Snapshot, "snapshot"),
        (SnapshotKind::Partial, "partial"),
        (SnapshotKind::Pending, "pending"),
        (SnapshotKind::Tombstone, "tombstone"),
    ];
}

/// A kind as its word.
struct Word;

impl Text<SnapshotKind> for Word {
    const EXPECTED: &'static str = "snapshot, partial, pending or tombstone";

    fn show(value: &SnapshotKind) -> String {
        let found = SnapshotKind::ALL.iter().find(|(kind, _)| kind == value);
        found.map_or_else(String::new, |(_, word)| (*word).to_owned())
    }

    fn read(text: &str) -> Option<SnapshotKind> {
        SnapshotKind::ALL.iter().find(|(_, word)| *word == text).map(|(kind, _)| *kind)
    }
}

/// What stands in clear in a snapshot's file: whoever has no key can tell by it what is in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// The repository.
    #[serde(with = "As::<Hex>")]
    pub repository: RepositoryId,
    /// What the file is.
    #[serde(with = "As::<Word>")]
    pub kind: SnapshotKind,
    /// Ids of the root segments and of the report.
    #[serde(with = "AsList::<Hex>")]
    pub roots: Vec<Digest>,
}

impl Envelope {
    /// Reads what stands in clear. It is not proved, which takes the key.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        decode(FORMAT, bytes)
    }
}

/// A file in `snapshots/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotDocument {
    /// The repository.
    pub repository: RepositoryId,
    /// What the file is.
    pub kind: SnapshotKind,
    /// What it says.
    pub body: Body,
}

/// What a file in `snapshots/` says, by its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Of a run: kinds snapshot, partial and pending.
    Snapshot(Snapshot),
    /// Of a tombstone.
    Tombstone(Tombstone),
}

/// What a run has made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// When the run began.
    #[serde(with = "As::<Rfc3339>")]
    pub time: Timestamp,
    /// Where.
    pub host: String,
    /// As whom.
    pub user: String,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// Name and version of the writer.
    pub tool: String,
    /// Name of the snapshot that the run compared with.
    #[serde(default, with = "AsOption::<Hex>", skip_serializing_if = "Option::is_none")]
    pub base: Option<Digest>,
    /// Name of the snapshot that this one stands for since its tags were changed. Spec: R-9-5.
    #[serde(default, with = "AsOption::<Hex>", skip_serializing_if = "Option::is_none")]
    pub replaces: Option<Digest>,
    /// What was archived: one at least.
    #[serde(deserialize_with = "objects")]
    pub archives: Vec<ArchiveRecord>,
    /// What there is to report; none where all is well.
    #[serde(default, deserialize_with = "optional_object", skip_serializing_if = "Option::is_none")]
    pub report: Option<Report>,
}

/// One archive of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveRecord {
    /// What it is called, once in the snapshot.
    #[serde(with = "As::<Escaped>")]
    pub name: Vec<u8>,
    /// The absolute path of the tree's root on the source; none for a stream of bytes.
    #[serde(default, with = "AsOption::<Escaped>", skip_serializing_if = "Option::is_none")]
    pub path: Option<Vec<u8>>,
    /// The tree id.
    #[serde(with = "As::<Hex>")]
    pub tree_id: Digest,
    /// Whether everything was captured whole.
    pub complete: bool,
    /// Number of entries, the root counted.
    pub entries: u64,
    /// Bytes of contents, holes counted.
    pub content_bytes: u64,
    /// The metadata stream.
    #[serde(deserialize_with = "object")]
    pub metadata: StreamRecord,
    /// The payload stream.
    #[serde(deserialize_with = "object")]
    pub payload: StreamRecord,
    /// The file system's clock when the scan began.
    #[serde(deserialize_with = "object")]
    pub started: Clock,
    /// Ids of chunks that the next run should not reuse, as too little of them lives.
    #[serde(with = "AsList::<Hex>")]
    pub sparse_chunks: Vec<Digest>,
    /// Which part of unchanged files was read again; the next run adds one.
    pub sample: u64,
}

/// One of an archive's two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamRecord {
    /// Id of the map's root segment.
    #[serde(with = "As::<Hex>")]
    pub root: Digest,
    /// Length of the stream.
    pub length: u64,
}

/// A moment by a file system's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Clock {
    /// Seconds since 1970.
    pub seconds: i64,
    /// And nanoseconds.
    pub nanoseconds: u32,
}

/// What a run has to say of its losses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Id of the chunk that holds the report.
    #[serde(with = "As::<Hex>")]
    pub id: Digest,
    /// How many entries were not captured whole.
    pub losses: u64,
    /// How many changed while they were read.
    pub changed: u64,
}

/// That a snapshot was forgotten.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    /// Name of the snapshot.
    #[serde(with = "As::<Hex>")]
    pub snapshot: Digest,
    /// When it was forgotten.
    #[serde(with = "As::<Rfc3339>")]
    pub time: Timestamp,
    /// When its data may go.
    #[serde(with = "As::<Rfc3339>")]
    pub expires: Timestamp,
}

#[derive(Deserialize)]
#[serde(bound = "B: DeserializeOwned")]
struct InClear<B> {
    #[serde(deserialize_with = "object")]
    body: B,
}

#[derive(Deserialize)]
struct Sealed {
    #[serde(with = "As::<Hex>")]
    sealed: Vec<u8>,
}

impl Body {
    /// Ids of the root segments and of the report, each once, in order. A tombstone has none: what it names keeps its
    /// own.
    pub fn roots(&self) -> Vec<Digest> {
        let Body::Snapshot(snapshot) = self else { return Vec::new() };
        let streams =
            snapshot.archives.iter().flat_map(|archive| [archive.metadata.root, archive.payload.root]);
        let mut known = HashSet::new();
        streams.chain(snapshot.report.map(|report| report.id)).filter(|id| known.insert(*id)).collect()
    }
}

impl SnapshotDocument {
    /// What stands in clear of it.
    pub fn envelope(&self) -> Envelope {
        Envelope { repository: self.repository, kind: self.kind, roots: self.body.roots() }
    }

    /// The document. Spec: R-9-1.
    pub fn encode(&self, document_keys: &DocumentKeys) -> Result<Vec<u8>> {
        self.validate()?;
        let envelope = encode(FORMAT, &self.envelope())?;
        let body = match &self.body {
            Body::Snapshot(snapshot) => to_json(FORMAT, snapshot)?,
            Body::Tombstone(tombstone) => to_json(FORMAT, tombstone)?,
        };
        match document_keys.seal_key() {
            None => with_last(envelope, "body", &body),
            Some(key) => {
                let sealed = key.seal_copy(&body, &envelope)?;
                with_last(envelope, "sealed", &to_json(FORMAT, &Hex::show(&sealed))?)
            }
        }
    }

    /// Reads a document of `repository`. Spec: R-9-1, R-9-2.
    pub fn decode(bytes: &[u8], document_keys: &DocumentKeys, repository: &RepositoryId) -> Result<Self> {
        let envelope = Envelope::decode(bytes)?;
        validate_repository(FORMAT, &envelope.repository, repository)?;
        let opened = document_keys.seal_key().map(|key| {
            let Sealed { mut sealed } = from_json(FORMAT, bytes)?;
            // Other bytes with the same meaning would be another file: a snapshot that nobody made. Spec: R-9-7.
            let written =
                with_last(encode(FORMAT, &envelope)?, "sealed", &to_json(FORMAT, &Hex::show(&sealed))?)?;
            if written != bytes {
                return Err(Error::corrupt("a sealed snapshot is not as its writer wrote it"));
            }
            let body = key.open(&mut sealed, &encode(FORMAT, &envelope)?).map(|body| body.to_vec());
            body.ok_or_else(|| {
                Error::corrupt(
                    "a snapshot does not open: it was changed, or another repository's key sealed it",
                )
            })
        });
        let opened = opened.transpose()?;
        let body = match envelope.kind {
            SnapshotKind::Tombstone => Body::Tombstone(read_body(bytes, opened.as_deref())?),
            _ => Body::Snapshot(read_body(bytes, opened.as_deref())?),
        };
        if body.roots() != envelope.roots {
            return Err(Error::corrupt(
                "a snapshot has other roots than the archives and the report that it names",
            ));
        }
        let document = Self { repository: envelope.repository, kind: envelope.kind, body };
        document.validate()?;
        Ok(document)
    }

    fn validate(&self) -> Result<()> {
        let snapshot = match (&self.body, self.kind == SnapshotKind::Tombstone) {
            (Body::Tombstone(_), true) => return Ok(()),
            (Body::Snapshot(snapshot), false) => snapshot,
            _ => return Err(Error::corrupt("a snapshot's body is not one of its kind")),
        };
        if snapshot.archives.is_empty() {
            return Err(Error::corrupt("a snapshot has no archive"));
        }
        for archive in &snapshot.archives {
            let told = [Some(&archive.name), archive.path.as_ref()];
            if let Some(wrong) = told.into_iter().flatten().find(|path| !is_plain(path)) {
                let path = Escaped::show(wrong);
                return Err(Error::corrupt(format!(
                    "a snapshot has {path:?} for the path or name of an archive"
                )));
            }
            if archive.path.as_ref().is_some_and(|path| !path.starts_with(b"/")) {
                return Err(Error::corrupt("a snapshot has an archive whose path is not absolute"));
            }
        }
        let mut names = HashSet::new();
        if let Some(twice) = snapshot.archives.iter().find(|archive| !names.insert(&archive.name)) {
            let name = Escaped::show(&twice.name);
            return Err(Error::corrupt(format!("a snapshot has two archives with the name {name:?}")));
        }
        Ok(())
    }
}

/// Reads what was opened, or what stands in clear.
/// Whether a path leads nowhere but down: a restore makes directories of it. Spec: R-9-6.
fn is_plain(path: &[u8]) -> bool {
    let is_up = |part: &[u8]| part == b"." || part == b"..";
    !path.is_empty() && !path.contains(&0) && !path.split(|byte| *byte == b'/').any(is_up)
}

fn read_body<B: DeserializeOwned>(document: &[u8], opened: Option<&[u8]>) -> Result<B> {
    match opened {
        Some(body) => from_json(FORMAT, body),
        None => from_json(FORMAT, document).map(|InClear { body }| body),
    }
}
