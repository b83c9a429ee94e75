//! Keys: what a repository's chunks and documents are identified, sealed and proved with.
//!
//! One master key, which passwords unwrap, and one key made of it for each purpose, so that nothing that is made for
//! one can stand for another. A repository without encryption has none, and the same calls do without.
//!
//! Spec: repository.md sections 4 and 5.

mod kdf;
mod padding;
mod xaes;

use std::fmt;
use std::sync::Arc;

use diptych_format::digest::{
    CONTEXT_CHUNK_SEAL, CONTEXT_CUT, CONTEXT_DOCUMENT_MAC, CONTEXT_DOCUMENT_SEAL, CONTEXT_INDEX_MAC,
    CONTEXT_METADATA_ID, CONTEXT_PAYLOAD_ID, CONTEXT_REPORT_ID, CONTEXT_SEGMENT_ID,
};
use diptych_format::pack::{self, ChunkKind, Seal};
use diptych_format::{Digest, Error, Result};
use zeroize::{Zeroize, Zeroizing};

pub use kdf::{ALGORITHM, Kdf};
pub use padding::Padding;
pub use xaes::{NONCE_LENGTH, SealKey, TAG_LENGTH};

/// Random bytes of the operating system's.
pub fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| Error::io("cannot get random bytes", std::io::Error::other("no source of them")))?;
    Ok(bytes)
}

/// What all keys of a repository are made of. It is wiped when it is dropped and never shown.
#[derive(Clone)]
pub struct MasterKey(Zeroizing<[u8; 32]>);

impl MasterKey {
    /// The key with these bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// A new one.
    pub fn generate() -> Result<Self> {
        random().map(Self::from_bytes)
    }

    /// Its bytes, for sealing them under a password.
    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key for one purpose.
    fn derive(&self, context: &'static str) -> [u8; 32] {
        blake3::derive_key(context, &*self.0)
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey")
    }
}

/// What a repository's chunks are identified and sealed with; nothing in a plain one. Cheap to clone.
#[derive(Clone, Default)]
pub struct ChunkKeys(Option<Arc<ChunkSecrets>>);

struct ChunkSecrets {
    payload: [u8; 32],
    metadata: [u8; 32],
    segment: [u8; 32],
    report: [u8; 32],
    cut: [u8; 32],
    seal: SealKey,
}

impl Drop for ChunkSecrets {
    fn drop(&mut self) {
        let Self { payload, metadata, segment, report, cut, seal: _ } = self;
        [payload, metadata, segment, report, cut].into_iter().for_each(Zeroize::zeroize);
    }
}

impl ChunkKeys {
    /// No keys: of archive files, and of repositories without encryption.
    pub fn plain() -> Self {
        Self(None)
    }

    /// The keys of an encrypted repository.
    pub fn of(master: &MasterKey) -> Self {
        Self(Some(Arc::new(ChunkSecrets {
            payload: master.derive(CONTEXT_PAYLOAD_ID),
            metadata: master.derive(CONTEXT_METADATA_ID),
            segment: master.derive(CONTEXT_SEGMENT_ID),
            report: master.derive(CONTEXT_REPORT_ID),
            cut: master.derive(CONTEXT_CUT),
            seal: SealKey::new(&Zeroizing::new(master.derive(CONTEXT_CHUNK_SEAL))),
        })))
    }

    /// The same keys with a nonce that is not random: what is sealed can be compared.
    #[cfg(test)]
    pub(crate) fn with_nonce(master: &MasterKey, nonce: [u8; NONCE_LENGTH]) -> Self {
        let mut keys = Self::of(master);
        let secrets = keys.0.as_mut().and_then(Arc::get_mut).unwrap();
        secrets.seal = SealKey::new(&master.derive(CONTEXT_CHUNK_SEAL)).with_nonce(nonce);
        keys
    }

    /// Whether chunks are sealed.
    pub fn is_sealed(&self) -> bool {
        self.0.is_some()
    }

    /// The seal that chunks of `kind` have.
    pub fn seal_of(&self, kind: ChunkKind) -> Seal {
        if self.is_sealed() { Seal::of(kind) } else { Seal::None }
    }

    /// Id of the chunk of `kind` whose bytes are `raw`. Spec: R-5-1, R-5-2.
    pub fn chunk_id(&self, kind: ChunkKind, raw: &[u8]) -> Digest {
        let key = self.0.as_ref().and_then(|keys| keys.id_key(kind));
        key.map_or_else(|| pack::chunk_id(kind, raw), |key| Digest::keyed(key, raw))
    }

    /// The key that cuts depend on. Spec: section 6.
    pub fn cut_key(&self) -> Option<[u8; 32]> {
        self.0.as_ref().map(|keys| keys.cut)
    }

    /// What chunks are sealed with.
    pub(crate) fn seal_key(&self) -> Option<&SealKey> {
        self.0.as_ref().map(|keys| &keys.seal)
    }
}

impl ChunkSecrets {
    /// None for manifests, which are of archive files alone.
    fn id_key(&self, kind: ChunkKind) -> Option<&[u8; 32]> {
        match kind {
            ChunkKind::Payload => Some(&self.payload),
            ChunkKind::Metadata => Some(&self.metadata),
            ChunkKind::Segment => Some(&self.segment),
            ChunkKind::Report => Some(&self.report),
            ChunkKind::Manifest => None,
        }
    }
}

impl fmt::Debug for ChunkKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_sealed() { "ChunkKeys(sealed)" } else { "ChunkKeys(plain)" })
    }
}

/// What a repository's documents and index files are sealed and proved with; nothing in a plain one. Cheap to clone.
#[derive(Clone, Default)]
pub struct DocumentKeys(Option<Arc<DocumentSecrets>>);

struct DocumentSecrets {
    seal: SealKey,
    mac: [u8; 32],
    index: [u8; 32],
}

impl Drop for DocumentSecrets {
    fn drop(&mut self) {
        self.mac.zeroize();
        self.index.zeroize();
    }
}

impl DocumentKeys {
    /// No keys: of repositories without encryption.
    pub fn plain() -> Self {
        Self(None)
    }

    /// The keys of an encrypted repository.
    pub fn of(master: &MasterKey) -> Self {
        Self(Some(Arc::new(DocumentSecrets {
            seal: SealKey::new(&Zeroizing::new(master.derive(CONTEXT_DOCUMENT_SEAL))),
            mac: master.derive(CONTEXT_DOCUMENT_MAC),
            index: master.derive(CONTEXT_INDEX_MAC),
        })))
    }

    /// The same keys with a nonce that is not random: what is sealed can be compared.
    #[cfg(test)]
    pub(crate) fn with_nonce(master: &MasterKey, nonce: [u8; NONCE_LENGTH]) -> Self {
        let mut keys = Self::of(master);
        let secrets = keys.0.as_mut().and_then(Arc::get_mut).unwrap();
        secrets.seal = SealKey::new(&master.derive(CONTEXT_DOCUMENT_SEAL)).with_nonce(nonce);
        keys
    }

    /// Whether documents are sealed.
    pub fn is_sealed(&self) -> bool {
        self.0.is_some()
    }

    /// The hasher whose value stands at the end of an index file. Spec: R-8-4.
    pub fn index_hasher(&self) -> blake3::Hasher {
        match &self.0 {
            Some(keys) => blake3::Hasher::new_keyed(&keys.index),
            None => blake3::Hasher::new_derive_key(CONTEXT_INDEX_MAC),
        }
    }

    /// The `mac` of a document, which is only in an encrypted repository. Spec: R-3-3.
    pub(crate) fn mac(&self, document: &[u8]) -> Option<blake3::Hash> {
        self.0.as_ref().map(|keys| blake3::keyed_hash(&keys.mac, document))
    }

    /// What documents are sealed with.
    pub(crate) fn seal_key(&self) -> Option<&SealKey> {
        self.0.as_ref().map(|keys| &keys.seal)
    }
}

impl fmt::Debug for DocumentKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_sealed() { "DocumentKeys(sealed)" } else { "DocumentKeys(plain)" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// Spec: R-5-1, R-5-2
    #[test]
    fn ids_are_keyed_by_kind_and_repository() {
        let keys = [1, 2].map(|n| ChunkKeys::of(&MasterKey::from_bytes([n; 32])));
        let kinds = [ChunkKind::Payload, ChunkKind::Metadata, ChunkKind::Segment, ChunkKind::Report];
        let ids = |keys: &ChunkKeys| kinds.map(|kind| keys.chunk_id(kind, b"x"));
        let all: HashSet<Digest> =
            [ids(&keys[0]), ids(&keys[1]), ids(&ChunkKeys::plain())].into_iter().flatten().collect();
        assert_eq!(all.len(), 12);
        let key = blake3::derive_key("diptych repository v1 payload chunk id", &[1; 32]);
        assert_eq!(keys[0].chunk_id(ChunkKind::Payload, b"x"), Digest::keyed(&key, b"x"));
        let report = blake3::derive_key("diptych repository v1 report id", b"x");
        assert_eq!(ChunkKeys::plain().chunk_id(ChunkKind::Report, b"x"), Digest(report));
        assert_eq!(ChunkKeys::plain().chunk_id(ChunkKind::Payload, b"x"), Digest::of(b"x"));
    }

    #[test]
    fn no_key_is_shown() {
        let master = MasterKey::from_bytes([0xab; 32]);
        let shown = format!("{master:?} {:?} {:?}", ChunkKeys::of(&master), DocumentKeys::of(&master));
        assert_eq!(shown, "MasterKey ChunkKeys(sealed) DocumentKeys(sealed)");
    }

    #[test]
    fn each_purpose_has_its_key() {
        let master = MasterKey::from_bytes([3; 32]);
        let keys: HashSet<[u8; 32]> = diptych_format::digest::REPOSITORY_CONTEXTS
            .iter()
            .map(|(_, context)| master.derive(context))
            .collect();
        assert_eq!(keys.len(), 9);
        assert_eq!(ChunkKeys::of(&master).cut_key(), Some(master.derive(CONTEXT_CUT)));
        assert_eq!(ChunkKeys::plain().cut_key(), None);
        let index = |keys: DocumentKeys| *keys.index_hasher().update(b"i").finalize().as_bytes();
        assert_eq!(index(DocumentKeys::plain()), Digest::in_context(CONTEXT_INDEX_MAC, b"i").0);
        assert_eq!(
            index(DocumentKeys::of(&master)),
            Digest::keyed(&master.derive(CONTEXT_INDEX_MAC), b"i").0
        );
        assert_eq!(DocumentKeys::plain().mac(b"d"), None);
    }
}
