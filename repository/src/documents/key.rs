//! Key files: the master key under a password, as often as there are passwords.
//!
//! Spec: repository.md section 4.

use diptych_format::{Error, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use super::text::{As, Hex, Rfc3339, object};
use super::{RepositoryId, decode, encode, validate_repository};
use crate::keys::{ALGORITHM, Kdf, MasterKey, NONCE_LENGTH, SealKey, TAG_LENGTH};

/// What `format` says in one.
pub(super) const FORMAT: &str = "diptych-key";

/// What the wrapped key is bound to, before the repository's id.
const PURPOSE: &[u8] = b"diptych key";
/// Length of a wrapped master key.
const WRAPPED_LENGTH: usize = NONCE_LENGTH + 32 + TAG_LENGTH;

/// Whose a key file is: words for people, which nothing depends on and nothing proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyOwner {
    /// When it was made.
    pub created: Timestamp,
    /// Who made it.
    pub user: String,
    /// Where.
    pub host: String,
    /// What it is called.
    pub label: String,
}

/// A key file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyDocument {
    /// The repository that it opens.
    pub repository: RepositoryId,
    /// Whose it is.
    pub owner: KeyOwner,
    /// How the password becomes the key that the master key is sealed with.
    pub kdf: Kdf,
    wrapped: [u8; WRAPPED_LENGTH],
}

#[derive(Serialize, Deserialize)]
struct Keys {
    #[serde(with = "As::<Hex>")]
    repository: RepositoryId,
    #[serde(with = "As::<Rfc3339>")]
    created: Timestamp,
    user: String,
    host: String,
    label: String,
    #[serde(deserialize_with = "object")]
    kdf: KdfKeys,
    #[serde(with = "As::<Hex>")]
    wrapped: [u8; WRAPPED_LENGTH],
}

#[derive(Serialize, Deserialize)]
struct KdfKeys {
    algorithm: String,
    memory_kib: u64,
    passes: u64,
    lanes: u64,
    #[serde(with = "As::<Hex>")]
    salt: [u8; 16],
}

impl KeyDocument {
    /// Wraps the master key of a repository under a password. Spec: R-4-2.
    pub fn wrap(
        master: &MasterKey,
        repository: RepositoryId,
        password: &[u8],
        owner: KeyOwner,
        kdf: Kdf,
    ) -> Result<Self> {
        Self::wrap_with(&SealKey::new(&*kdf.derive(password)?), master, repository, owner, kdf)
    }

    /// The same with a nonce that is not random: what is sealed can be compared.
    #[cfg(test)]
    pub(crate) fn wrap_with_nonce(
        master: &MasterKey,
        repository: RepositoryId,
        password: &[u8],
        owner: KeyOwner,
        kdf: Kdf,
        nonce: [u8; NONCE_LENGTH],
    ) -> Result<Self> {
        let key = SealKey::new(&*kdf.derive(password)?).with_nonce(nonce);
        Self::wrap_with(&key, master, repository, owner, kdf)
    }

    fn wrap_with(
        key: &SealKey,
        master: &MasterKey,
        repository: RepositoryId,
        owner: KeyOwner,
        kdf: Kdf,
    ) -> Result<Self> {
        let wrapped = key.seal_copy(master.bytes(), &associated(&repository))?;
        let wrapped = wrapped.try_into().map_err(|_| Error::corrupt("a wrapped key has another length"))?;
        Ok(Self { repository, owner, kdf, wrapped })
    }

    /// The master key, if this is its password and nothing was changed; whether it is the one or the other cannot be
    /// told.
    pub fn unwrap(&self, repository: &RepositoryId, password: &[u8]) -> Result<Option<MasterKey>> {
        validate_repository(FORMAT, &self.repository, repository)?;
        let key = SealKey::new(&*self.kdf.derive(password)?);
        let mut wrapped = self.wrapped;
        let master: Option<[u8; 32]> =
            key.open(&mut wrapped, &associated(repository)).and_then(|bytes| (&*bytes).try_into().ok());
        wrapped.zeroize();
        Ok(master.map(MasterKey::from_bytes))
    }

    /// The document.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let KeyOwner { created, user, host, label } = self.owner.clone();
        let Kdf { memory_kib, passes, lanes, salt } = self.kdf;
        let kdf = KdfKeys {
            algorithm: ALGORITHM.to_owned(),
            memory_kib: memory_kib.into(),
            passes: passes.into(),
            lanes: lanes.into(),
            salt,
        };
        let wrapped = self.wrapped;
        encode(FORMAT, &Keys { repository: self.repository, created, user, host, label, kdf, wrapped })
    }

    /// Reads a document. Spec: R-4-1.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let Keys { repository, created, user, host, label, kdf, wrapped } = decode(FORMAT, bytes)?;
        if kdf.algorithm != ALGORITHM {
            let found: String = kdf.algorithm.chars().take(40).collect();
            return Err(Error::unsupported(format!(
                "a key file makes its key by {found:?}, which is not known: a newer diptych may read it"
            )));
        }
        // What does not fit is above every limit, which the next line says.
        let number = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        let kdf = Kdf {
            memory_kib: number(kdf.memory_kib),
            passes: number(kdf.passes),
            lanes: number(kdf.lanes),
            salt: kdf.salt,
        };
        kdf.validate()?;
        Ok(Self { repository, owner: KeyOwner { created, user, host, label }, kdf, wrapped })
    }
}

fn associated(repository: &RepositoryId) -> Vec<u8> {
    [PURPOSE, &repository.0].concat()
}

/// Tries a password on key files, and gives the place of one that it opens with the master key; none if it opens none. Those
/// that cost least are tried first, so that one that was made to cost much is no hindrance to who has another. A key file
/// that cannot be read is told to `report` and passed over. Spec: R-4-3, R-4-4.
pub fn unlock(
    files: impl IntoIterator<Item = Result<Vec<u8>>>,
    repository: &RepositoryId,
    password: &[u8],
    mut report: impl FnMut(usize, Error),
) -> Option<(usize, MasterKey)> {
    let mut keys = Vec::new();
    for (place, file) in files.into_iter().enumerate() {
        match file.and_then(|bytes| KeyDocument::decode(&bytes)) {
            Ok(key) => keys.push((place, key)),
            Err(error) => report(place, error),
        }
    }
    keys.sort_by_key(|(_, key)| key.kdf.cost());
    for (place, key) in keys {
        match key.unwrap(repository, password) {
            Ok(Some(master)) => return Some((place, master)),
            Ok(None) => {}
            Err(error) => report(place, error),
        }
    }
    None
}
