//! The config: what a repository is. It is written once, when the repository is made.
//!
//! Spec: repository.md section 3.

use diptych_format::{Error, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::text::{As, Hex, Rfc3339};
use super::{Mac, RepositoryId, decode, encode_authentic, from_json, verify_mac};
use crate::keys::{DocumentKeys, Padding};

/// What `format` says in it.
pub(super) const FORMAT: &str = "diptych-repository";

/// What `names` says: files are named by BLAKE3.
const NAMES: &str = "blake3";

/// The length that packs are filled to if nobody says otherwise.
pub const PACK_SIZE_DEFAULT: u64 = 32 << 20;
/// The least and the most that anybody may say.
const PACK_SIZE_MIN: u64 = 1 << 20;
const PACK_SIZE_MAX: u64 = 1 << 30;

/// Whether chunks and snapshots are sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// They are not.
    None,
    /// With XAES-256-GCM.
    Xaes256Gcm,
}

impl Encryption {
    /// All values with their words.
    pub const ALL: [(Encryption, &'static str); 2] =
        [(Encryption::None, "none"), (Encryption::Xaes256Gcm, "xaes-256-gcm")];
}

/// What a repository is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What it is known by.
    pub id: RepositoryId,
    /// When it was made.
    pub created: Timestamp,
    /// Whether it is encrypted. Whoever expects it to be must look: who can replace files can put a config here that
    /// says it is not.
    pub encryption: Encryption,
    /// How much sealed chunks are padded.
    pub padding: Padding,
    /// The length that packs are filled to.
    pub pack_size: u64,
    mac: Option<[u8; 32]>,
}

#[derive(Serialize, Deserialize)]
struct Keys {
    #[serde(with = "As::<Hex>")]
    id: RepositoryId,
    #[serde(with = "As::<Rfc3339>")]
    created: Timestamp,
    names: String,
    encryption: String,
    padding: String,
    pack_size: u64,
}

impl Config {
    /// That of a new repository.
    pub fn new(encryption: Encryption, padding: Padding, created: Timestamp) -> Result<Self> {
        let id = RepositoryId::generate()?;
        Ok(Self { id, created, encryption, padding, pack_size: PACK_SIZE_DEFAULT, mac: None })
    }

    /// Whether the repository is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.encryption != Encryption::None
    }

    /// The document. The keys are those of the repository.
    pub fn encode(&self, document_keys: &DocumentKeys) -> Result<Vec<u8>> {
        validate_pack_size(self.pack_size)?;
        self.validate_keys(document_keys)?;
        encode_authentic(FORMAT, &self.keys(), document_keys)
    }

    /// Reads a document. Nothing that it says is proved before [`Self::verify`]: which keys there are to prove it with
    /// is one of the things that it says. Spec: R-3-5.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let keys: Keys = decode(FORMAT, bytes)?;
        let Mac { mac } = from_json(FORMAT, bytes)?;
        if keys.names != NAMES {
            return Err(unknown("names", &keys.names));
        }
        let encryption = Encryption::ALL.iter().find(|(_, word)| *word == keys.encryption);
        let (encryption, _) = encryption.ok_or_else(|| unknown("encryption", &keys.encryption))?;
        let padding = Padding::ALL.iter().find(|(_, word)| *word == keys.padding);
        let (padding, _) = padding.ok_or_else(|| unknown("padding", &keys.padding))?;
        validate_pack_size(keys.pack_size)?;
        let Keys { id, created, pack_size, .. } = keys;
        Ok(Self { id, created, encryption: *encryption, padding: *padding, pack_size, mac })
    }

    /// Proves that a holder of the keys has written this. Spec: R-3-4.
    pub fn verify(&self, document_keys: &DocumentKeys) -> Result<()> {
        self.validate_keys(document_keys)?;
        verify_mac(FORMAT, &self.keys(), self.mac, document_keys)
    }

    fn validate_keys(&self, document_keys: &DocumentKeys) -> Result<()> {
        match (self.is_encrypted(), document_keys.is_sealed()) {
            (true, false) => {
                Err(Error::corrupt("the config says that the repository is encrypted, and there is no key"))
            }
            (false, true) => Err(Error::corrupt(
                "the config says that the repository is not encrypted, and there is a key for it",
            )),
            _ => Ok(()),
        }
    }

    fn keys(&self) -> Keys {
        let encryption = Encryption::ALL.iter().find(|(value, _)| *value == self.encryption);
        let padding = Padding::ALL.iter().find(|(value, _)| *value == self.padding);
        Keys {
            id: self.id,
            created: self.created,
            names: NAMES.to_owned(),
            encryption: encryption.map_or_else(String::new, |(_, word)| (*word).to_owned()),
            padding: padding.map_or_else(String::new, |(_, word)| (*word).to_owned()),
            pack_size: self.pack_size,
        }
    }
}

fn unknown(key: &str, value: &str) -> Error {
    let value: String = value.chars().take(40).collect();
    Error::unsupported(format!(
        "{key} of the repository is {value:?}, which is not known: a newer diptych may read it"
    ))
}

fn validate_pack_size(found: u64) -> Result<()> {
    if (PACK_SIZE_MIN..=PACK_SIZE_MAX).contains(&found) {
        return Ok(());
    }
    Err(Error::unsupported(format!(
        "pack_size of the repository is {found}, not {PACK_SIZE_MIN} to {PACK_SIZE_MAX}"
    )))
}
