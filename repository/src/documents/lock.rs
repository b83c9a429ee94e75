//! Locks: leases, by which writers say that they are at work, what `prune` says of the packs that it is about to
//! remove, and what `check` says of those that are damaged.
//!
//! Spec: repository.md section 10.

use diptych_format::{Digest, Error, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::text::{As, AsList, Hex, Rfc3339};
use super::{Mac, RepositoryId, decode, encode_authentic, from_json, validate_repository, verify_mac};
use crate::keys::DocumentKeys;

/// What `format` says in one.
pub(super) const FORMAT: &str = "diptych-lock";

/// What a lock is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// A writer works; it has seen these condemn files.
    Lease {
        /// Their names.
        sees: Vec<Digest>,
    },
    /// No writer that sees this takes a chunk from these packs.
    Condemn {
        /// Their names.
        packs: Vec<Digest>,
    },
    /// These packs count as gone.
    Doom {
        /// Their names.
        packs: Vec<Digest>,
    },
    /// These chunks cannot be read in these packs. Spec: R-10-4.
    Damaged {
        /// The packs' names.
        packs: Vec<Digest>,
        /// Ids of the chunks; without any, all that the packs have.
        chunks: Vec<Digest>,
    },
}

/// A file in `locks/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    /// The repository.
    pub repository: RepositoryId,
    /// What it is for.
    pub kind: LockKind,
    /// Where its writer runs.
    pub host: String,
    /// As whom.
    pub user: String,
    /// The number of its process there.
    pub process: u64,
    /// When it was written, by its writer's clock.
    pub written: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct Keys {
    #[serde(with = "As::<Hex>")]
    repository: RepositoryId,
    kind: String,
    host: String,
    user: String,
    process: u64,
    #[serde(with = "As::<Rfc3339>")]
    written: Timestamp,
    #[serde(with = "AsList::<Hex>")]
    sees: Vec<Digest>,
    #[serde(with = "AsList::<Hex>")]
    packs: Vec<Digest>,
    #[serde(with = "AsList::<Hex>")]
    chunks: Vec<Digest>,
}

impl LockKind {
    /// The word for it in documents.
    pub fn word(&self) -> &'static str {
        match self {
            LockKind::Lease { .. } => "lease",
            LockKind::Condemn { .. } => "condemn",
            LockKind::Doom { .. } => "doom",
            LockKind::Damaged { .. } => "damaged",
        }
    }
}

impl Lock {
    /// The document.
    pub fn encode(&self, document_keys: &DocumentKeys) -> Result<Vec<u8>> {
        encode_authentic(FORMAT, &self.keys(), document_keys)
    }

    /// Reads a document of `repository`. Spec: R-3-4.
    pub fn decode(bytes: &[u8], document_keys: &DocumentKeys, repository: &RepositoryId) -> Result<Self> {
        let keys: Keys = decode(FORMAT, bytes)?;
        let Mac { mac } = from_json(FORMAT, bytes)?;
        validate_repository(FORMAT, &keys.repository, repository)?;
        verify_mac(FORMAT, &keys, mac, document_keys)?;
        Self::of(keys)
    }

    /// The same for whoever has no key, and so cannot know who wrote it.
    pub fn decode_unproved(bytes: &[u8], repository: &RepositoryId) -> Result<Self> {
        let keys: Keys = decode(FORMAT, bytes)?;
        validate_repository(FORMAT, &keys.repository, repository)?;
        Self::of(keys)
    }

    fn of(keys: Keys) -> Result<Self> {
        let Keys { repository, kind, host, user, process, written, sees, packs, chunks } = keys;
        let kind = match (&kind[..], &sees[..], &packs[..], &chunks[..]) {
            ("lease", _, [], []) => LockKind::Lease { sees },
            ("condemn", [], _, []) => LockKind::Condemn { packs },
            ("doom", [], _, []) => LockKind::Doom { packs },
            ("damaged", [], _, _) => LockKind::Damaged { packs, chunks },
            ("lease" | "condemn" | "doom" | "damaged", ..) => {
                return Err(Error::corrupt(format!("a lock of kind {kind} names what it has no names for")));
            }
            _ => {
                let kind: String = kind.chars().take(40).collect();
                return Err(Error::unsupported(format!(
                    "a lock is of kind {kind:?}, which is not known: a newer diptych may read it"
                )));
            }
        };
        Ok(Self { repository, kind, host, user, process, written })
    }

    fn keys(&self) -> Keys {
        let (mut sees, mut packs, mut chunks) = (Vec::new(), Vec::new(), Vec::new());
        match &self.kind {
            LockKind::Lease { sees: names } => sees.clone_from(names),
            LockKind::Condemn { packs: names } | LockKind::Doom { packs: names } => packs.clone_from(names),
            LockKind::Damaged { packs: names, chunks: ids } => {
                (packs, chunks) = (names.clone(), ids.clone());
            }
        }
        Keys {
            repository: self.repository,
            kind: self.kind.word().to_owned(),
            host: self.host.clone(),
            user: self.user.clone(),
            process: self.process,
            written: self.written,
            sees,
            packs,
            chunks,
        }
    }
}
