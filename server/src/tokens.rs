//! Tokens: what stands for a client, what it may do, and where the server keeps them.
//!
//! A token is shown once, when it is made. The file has its digest alone, so whoever reads it gets no token out of it.
//!
//! Spec: protocol.md sections 1 to 3.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

/// What `format` says in the file.
const FORMAT: &str = "diptych-tokens";
/// How a token begins, so that people and programs that look for secrets know one.
const PREFIX: &str = "dpt_";

/// What a token may do. Spec: P-3-4.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// See and read all files.
    pub read: bool,
    /// Send packs, indexes, leases and snapshots.
    pub append: bool,
    /// Forget snapshots.
    pub forget: bool,
    /// Everything.
    pub admin: bool,
}

impl Rights {
    /// Everything.
    pub const ALL: Self = Self { read: true, append: true, forget: true, admin: true };

    /// Reads a list of words, with commas between them.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut rights = Self::default();
        for word in text.split(',') {
            match word.trim() {
                "read" => rights.read = true,
                "append" => rights.append = true,
                "forget" => rights.forget = true,
                "admin" => rights = Self::ALL,
                other => return Err(format!("{other:?} is no right: read, append, forget or admin")),
            }
        }
        Ok(rights)
    }

    /// The words.
    pub fn words(self) -> Vec<&'static str> {
        let all =
            [(self.read, "read"), (self.append, "append"), (self.forget, "forget"), (self.admin, "admin")];
        all.into_iter().filter(|(has, _)| *has).map(|(_, word)| word).collect()
    }
}

impl Serialize for Rights {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.words().join(","))
    }
}

impl<'de> Deserialize<'de> for Rights {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// A token, without what proves it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// What it is listed and revoked by.
    pub id: String,
    /// Words for people.
    pub name: String,
    /// The namespace that it is for; none: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Whose chunks it may use.
    pub domain: String,
    /// What it may do.
    pub rights: Rights,
    /// Bytes that it may have sent and not deleted; none: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<u64>,
    /// Bytes that it may send, and bytes that it may fetch, in a second; none: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u64>,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends to be good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// Whether it is good no more.
    #[serde(default)]
    pub revoked: bool,
    /// BLAKE3 of the whole token, in hexadecimal digits.
    digest: String,
}

impl Token {
    /// Who runs the server over standard input and output: the operating system has let them in.
    pub fn of_owner() -> Self {
        Self {
            id: "owner".to_owned(),
            name: "standard input".to_owned(),
            namespace: None,
            domain: "owner".to_owned(),
            rights: Rights::ALL,
            quota: None,
            rate: None,
            created: Timestamp::UNIX_EPOCH,
            expires: None,
            revoked: false,
            digest: String::new(),
        }
    }

    /// Whether it is good for a namespace now.
    pub fn is_good(&self, namespace: &str, now: Timestamp) -> bool {
        let is_here = self.namespace.as_deref().is_none_or(|own| own == namespace);
        is_here && !self.revoked && self.expires.is_none_or(|expires| now < expires)
    }
}

/// What a new token is to be.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// Words for people.
    pub name: String,
    /// The namespace that it is for; none: all of them.
    pub namespace: Option<String>,
    /// Whose chunks it may use; none: its own.
    pub domain: Option<String>,
    /// What it may do.
    pub rights: Rights,
    /// Bytes that it may have sent.
    pub quota: Option<u64>,
    /// Bytes that it may send or fetch in a second.
    pub rate: Option<u64>,
    /// When it ends to be good.
    pub expires: Option<Timestamp>,
}

#[derive(Serialize, Deserialize)]
struct Document {
    format: String,
    version: u64,
    tokens: Vec<Token>,
}

/// What the file was when it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    length: u64,
    mtime: (i64, i64),
}

/// The file of tokens. What is changed in it counts from the next request on.
pub struct TokenStore {
    path: PathBuf,
    known: RwLock<(Option<Stamp>, Arc<HashMap<String, Arc<Token>>>)>,
}

impl TokenStore {
    /// The tokens of the server whose state is in `directory`.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let store = Self { path: directory.join("tokens.json"), known: RwLock::default() };
        store.refresh()?;
        Ok(store)
    }

    /// The token that a client has shown, if it is one.
    pub fn find(&self, shown: &str) -> io::Result<Option<Arc<Token>>> {
        let Some(id) = shown.strip_prefix(PREFIX).and_then(|rest| rest.split('_').next()) else {
            return Ok(None);
        };
        let Some(token) = self.refresh()?.get(id).cloned() else { return Ok(None) };
        let expected = blake3::Hash::from_hex(&token.digest).ok();
        // Hashes are compared in the same time wherever they differ.
        Ok(expected.filter(|expected| *expected == blake3::hash(shown.as_bytes())).map(|_| token))
    }

    /// The domain of a token, good or not.
    pub fn domain(&self, id: &str) -> Option<String> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.1.get(id).map(|token| token.domain.clone())
    }

    /// What people call a token.
    pub fn name(&self, id: &str) -> Option<String> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.1.get(id).map(|token| token.name.clone())
    }

    /// All tokens, the oldest first.
    pub fn list(&self) -> io::Result<Vec<Token>> {
        let mut all: Vec<Token> = self.refresh()?.values().map(|token| Token::clone(token)).collect();
        all.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        Ok(all)
    }

    /// Makes a token: it, and what stands for it, which is kept nowhere.
    pub fn create(&self, new: NewToken) -> io::Result<(Token, String)> {
        let id = hex(&random::<4>()?);
        let shown = format!("{PREFIX}{id}_{}", hex(&random::<32>()?));
        let token = Token {
            domain: new.domain.unwrap_or_else(|| id.clone()),
            id,
            name: new.name,
            namespace: new.namespace,
            rights: new.rights,
            quota: new.quota,
            rate: new.rate,
            created: Timestamp::now(),
            expires: new.expires,
            revoked: false,
            digest: blake3::hash(shown.as_bytes()).to_hex().to_string(),
        };
        self.change(|tokens| tokens.push(token.clone()))?;
        Ok((token, shown))
    }

    /// Revokes a token; says whether there was one that was good.
    pub fn revoke(&self, id: &str) -> io::Result<bool> {
        let mut was_good = false;
        self.change(|tokens| {
            for token in tokens.iter_mut().filter(|token| token.id == id && !token.revoked) {
                token.revoked = true;
                was_good = true;
            }
        })?;
        Ok(was_good)
    }

    /// Lets a token be good until another time, or for ever; says whether there was one that was not revoked. It stays the
    /// same token: whoever has it finds what it has sent.
    pub fn renew(&self, id: &str, expires: Option<Timestamp>) -> io::Result<bool> {
        let mut was_good = false;
        self.change(|tokens| {
            for token in tokens.iter_mut().filter(|token| token.id == id && !token.revoked) {
                token.expires = expires;
                was_good = true;
            }
        })?;
        Ok(was_good)
    }

    /// What is made here belongs to whoever the state belongs to: the server, as root it may not be.
    fn give_to_owner(&self, file: &File) -> io::Result<()> {
        use std::os::unix::fs::{MetadataExt, fchown};
        let owner = std::fs::metadata(self.path.parent().unwrap_or(Path::new(".")))?;
        let made = file.metadata()?;
        match (owner.uid(), owner.gid()) == (made.uid(), made.gid()) {
            true => Ok(()),
            false => fchown(file, Some(owner.uid()), Some(owner.gid())),
        }
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Token>)) -> io::Result<()> {
        use std::os::unix::fs::OpenOptionsExt;
        let directory = self.path.parent().unwrap_or(Path::new("."));
        let mut options = File::options();
        let lock = options
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(directory.join("tokens.lock"))?;
        self.give_to_owner(&lock)?;
        flock(&lock, FlockOperation::LockExclusive)?;
        let mut tokens = self.list()?;
        change(&mut tokens);
        let document = Document { format: FORMAT.to_owned(), version: 1, tokens };
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        serde_json::to_writer_pretty(&mut file, &document)?;
        file.write_all(b"\n")?;
        self.give_to_owner(file.as_file())?;
        file.as_file().sync_all()?;
        file.persist(&self.path).map_err(|error| error.error)?;
        File::open(directory)?.sync_all()?;
        self.refresh().map(drop)
    }

    /// Reads the file again if it is another one than before.
    fn refresh(&self) -> io::Result<Arc<HashMap<String, Arc<Token>>>> {
        use std::os::unix::fs::MetadataExt;
        let stamp = match std::fs::metadata(&self.path) {
            Ok(found) => Some(Stamp {
                inode: found.ino(),
                length: found.len(),
                mtime: (found.mtime(), found.mtime_nsec()),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        {
            let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
            if known.0 == stamp {
                return Ok(Arc::clone(&known.1));
            }
        }
        let tokens = match stamp {
            None => Vec::new(),
            Some(_) => {
                let document: Document = serde_json::from_slice(&std::fs::read(&self.path)?)?;
                if (&document.format[..], document.version) != (FORMAT, 1) {
                    let what = format!("{} is of another format or version", self.path.display());
                    return Err(io::Error::new(io::ErrorKind::InvalidData, what));
                }
                document.tokens
            }
        };
        let tokens: HashMap<String, Arc<Token>> =
            tokens.into_iter().map(|token| (token.id.clone(), Arc::new(token))).collect();
        let tokens = Arc::new(tokens);
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = (stamp, Arc::clone(&tokens));
        Ok(tokens)
    }
}

/// Random bytes from the operating system.
pub(crate) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| io::Error::other("there are no random numbers"))?;
    Ok(bytes)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn new(name: &str) -> NewToken {
        let rights = Rights::parse("append").unwrap();
        NewToken {
            name: name.to_owned(),
            namespace: Some("main".to_owned()),
            domain: None,
            rights,
            quota: None,
            rate: None,
            expires: None,
        }
    }

    #[test]
    fn tokens_are_found_by_what_was_shown_and_by_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let store = TokenStore::open(directory.path()).unwrap();
        let (first, shown) = store.create(new("first")).unwrap();
        let (second, other) = store.create(new("second")).unwrap();
        assert_eq!(*store.find(&shown).unwrap().unwrap(), first);
        assert_eq!(*store.find(&other).unwrap().unwrap(), second);
        assert!(first.domain != second.domain);
        let file = std::fs::read_to_string(directory.path().join("tokens.json")).unwrap();
        assert!(!file.contains(&shown[13..]));
        for wrong in ["", "dpt_", &shown[..shown.len() - 1], &format!("{shown}0"), &shown.to_uppercase()] {
            assert!(store.find(wrong).unwrap().is_none(), "{wrong}");
        }
        // Another process revokes it.
        assert!(TokenStore::open(directory.path()).unwrap().revoke(&first.id).unwrap());
        assert!(!store.find(&shown).unwrap().unwrap().is_good("main", Timestamp::now()));
        assert!(!store.revoke(&first.id).unwrap());
    }

    #[test]
    fn a_token_is_good_in_its_namespace_until_it_expires() {
        let now = Timestamp::now();
        let token = Token { namespace: Some("main".to_owned()), expires: Some(now), ..Token::of_owner() };
        assert!(!token.is_good("main", now));
        let token = Token { expires: None, ..token };
        assert!(token.is_good("main", now) && !token.is_good("other", now));
        assert!(!Token { revoked: true, ..token }.is_good("main", now));
    }

    #[test]
    fn rights_are_words() {
        let rights = Rights::parse("append, read").unwrap();
        assert_eq!(rights.words(), ["read", "append"]);
        assert_eq!(Rights::parse("admin").unwrap(), Rights::ALL);
        assert!(Rights::parse("write").unwrap_err().contains("\"write\" is no right"));
    }
}
