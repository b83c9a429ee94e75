//! What one token may see, read and delete in one namespace. Spec: protocol.md section 3.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use diptych_backend::{FileKind, FileName, Listed};
use diptych_format::Digest;
use diptych_format::pack::PackHolds;
use diptych_repository::documents::{Envelope, Lock, LockKind, SnapshotKind};

use crate::namespace::Namespace;
use crate::problem::{Problem, ProblemClass, Result};
use crate::records::Record;
use crate::server::Server;
use crate::tokens::Token;

/// A token at work in a namespace.
#[derive(Clone)]
pub struct Access {
    /// The server.
    pub server: Arc<Server>,
    /// The namespace.
    pub namespace: Arc<Namespace>,
    /// The token.
    pub token: Arc<Token>,
}

impl Access {
    /// Whether everything may be read.
    pub fn reads_all(&self) -> bool {
        self.token.rights.read || self.token.rights.admin
    }

    /// The files of a kind that the token may see, by name. Spec: P-3-2 and P-3-4.
    pub fn list(&self, kind: FileKind) -> Result<Vec<Listed>> {
        let all = self.namespace.backend.list(kind)?;
        if self.reads_all() || matches!(kind, FileKind::Config | FileKind::Key) {
            return Ok(all);
        }
        let records = self.all_records(kind)?;
        let mut seen = Vec::new();
        for listed in all {
            if self.sees_recorded(&listed.name, records.get(&listed.name).map_or(&[][..], Vec::as_slice))? {
                seen.push(listed);
            }
        }
        Ok(seen)
    }

    /// Refuses what the token may not read, in the words for what is not there. Spec: P-3-4.
    pub fn may_read(&self, name: &FileName) -> Result<()> {
        if self.reads_all() || matches!(name.kind(), FileKind::Config | FileKind::Key) {
            return Ok(());
        }
        let records = self.records(name)?;
        if !self.sees_recorded(name, &records)? {
            return Err(Problem::missing(&name.path()));
        }
        let holds = |record: &Record| record.pack.map(|(holds, _)| holds);
        let is_metadata = records.iter().any(|(_, record)| holds(record) == Some(PackHolds::Metadata));
        if name.kind() == FileKind::Data && !is_metadata {
            let what = "this token may not read contents: a token with the right to read may";
            return Err(Problem::denied(what));
        }
        Ok(())
    }

    /// Whether the token may see a file that is there.
    pub fn sees(&self, name: &FileName) -> Result<bool> {
        Ok(self.reads_all() || self.sees_recorded(name, &self.records(name)?)?)
    }

    fn sees_recorded(&self, name: &FileName, records: &[(String, Record)]) -> Result<bool> {
        let is_own = records.iter().any(|(token, _)| *token == self.token.id);
        if !self.token.rights.append {
            return Ok(matches!(name.kind(), FileKind::Config | FileKind::Key));
        }
        Ok(match name.kind() {
            FileKind::Config | FileKind::Key => true,
            FileKind::Data | FileKind::Index => is_own || self.is_of_domain(records),
            FileKind::Snapshot => {
                is_own
                    || self.is_of_domain(records)
                        && self.snapshot_kind(name)? == Some(SnapshotKind::Tombstone)
            }
            // What prune and check have to say concerns every writer.
            FileKind::Lease => is_own || !self.is_lease(name)?,
        })
    }

    /// Refuses to send files of a kind; what is in it may ask for more rights.
    pub fn may_send(&self, kind: FileKind) -> Result<()> {
        let rights = self.token.rights;
        let may = match kind {
            FileKind::Config | FileKind::Key => rights.admin,
            FileKind::Data | FileKind::Index => rights.append,
            FileKind::Snapshot | FileKind::Lease => rights.append || rights.forget,
        };
        self.unless_denied(may, &format!("send files of {}", kind.directory()))
    }

    /// Refuses to delete a file. Spec: P-5-2 and P-3-4.
    pub fn may_delete(&self, name: &FileName) -> Result<()> {
        if self.token.rights.admin {
            let is_kept = name.kind() == FileKind::Index && self.is_needed_by_others(name)?;
            return self.unless_denied(!is_kept, "remove an index that others see, for one that they do not");
        }
        if !self.sees(name)? {
            return Err(Problem::missing(&name.path()));
        }
        let is_own = self.records(name)?.iter().any(|(token, _)| *token == self.token.id);
        let may = match name.kind() {
            FileKind::Config | FileKind::Key | FileKind::Data => false,
            FileKind::Lease => is_own && self.is_lease(name)?,
            // Whether whoever replaces it had the key, no server can know: who has taken a machine over has its token.
            FileKind::Index => {
                self.token.rights.append && !self.namespace.facts()?.is_encrypted && self.is_replaced(name)?
            }
            FileKind::Snapshot => match self.snapshot_kind(name)? {
                None => return Err(Problem::missing(&name.path())),
                Some(SnapshotKind::Snapshot) => false,
                Some(SnapshotKind::Tombstone) => self.token.rights.forget,
                Some(SnapshotKind::Pending | SnapshotKind::Partial) => is_own,
            },
        };
        self.unless_denied(may, &format!("delete {name}"))
    }

    /// Refuses what only an administrator may do.
    pub fn is_admin(&self, what: &str) -> Result<()> {
        self.unless_denied(self.token.rights.admin, what)
    }

    /// Refuses what the token's rights do not allow.
    pub fn unless_denied(&self, may: bool, what: &str) -> Result<()> {
        let rights = self.token.rights.words().join(", ");
        let told = || Problem::denied(format!("this token may not {what}: its rights are {rights}"));
        if may { Ok(()) } else { Err(told()) }
    }

    /// Whether another index file that is there says that it replaces this one, and has all its packs.
    fn is_replaced(&self, name: &FileName) -> Result<bool> {
        let old = self.namespace.index(name)?;
        for listed in self.list(FileKind::Index)?.iter().filter(|listed| listed.name != *name) {
            let new = match self.namespace.index(&listed.name) {
                Err(error) if error.class == ProblemClass::Missing => continue,
                index => index?,
            };
            let has = |pack: &Digest| new.packs().binary_search_by_key(pack, |pack| pack.name).is_ok();
            if new.replaces().contains(&Digest(*name.digest()))
                && old.packs().iter().all(|pack| has(&pack.name))
                && self.domains(name)?.is_subset(&self.domains(&listed.name)?)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether an index file that others replace is one that some domain sees, which sees none of those others. Whoever sees all
    /// joins what many have sent: they would not find their own any more.
    fn is_needed_by_others(&self, name: &FileName) -> Result<bool> {
        let domains = self.domains(name)?;
        let mut is_needed = false;
        for listed in self.list(FileKind::Index)?.iter().filter(|listed| listed.name != *name) {
            // What cannot be read replaces nothing.
            let Ok(new) = self.namespace.index(&listed.name) else { continue };
            if new.replaces().contains(&Digest(*name.digest())) {
                match domains.is_subset(&self.domains(&listed.name)?) {
                    true => return Ok(false),
                    false => is_needed = true,
                }
            }
        }
        Ok(is_needed)
    }

    /// The domains of the tokens that have sent a file.
    fn domains(&self, name: &FileName) -> Result<HashSet<String>> {
        let domain = |token: String| {
            let tokens = self.server.tokens.as_ref();
            tokens.and_then(|tokens| tokens.domain(&token)).unwrap_or(token)
        };
        Ok(self.records(name)?.into_iter().map(|(token, _)| domain(token)).collect())
    }

    /// Whether the token holds a lease. Spec: P-4-6.
    pub fn has_lease(&self) -> Result<bool> {
        if self.server.records.is_none() {
            return Ok(!self.namespace.backend.list(FileKind::Lease)?.is_empty());
        }
        let records = self.all_records(FileKind::Lease)?;
        for (name, records) in records {
            if records.iter().any(|(token, _)| *token == self.token.id) {
                // One that somebody has removed keeps nothing from being removed.
                let is_there = match self.namespace.backend.length(&name) {
                    Err(error) if error.class == diptych_backend::Class::Missing => false,
                    length => length.map(|_| true)?,
                };
                if is_there && self.is_lease(&name)? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn is_lease(&self, name: &FileName) -> Result<bool> {
        let bytes = match self.namespace.read(name) {
            Err(error) if error.class == ProblemClass::Missing => return Ok(true),
            bytes => bytes?,
        };
        let lock = Lock::decode_unproved(&bytes, &self.namespace.facts()?.id);
        // What cannot be read may be anything, and every writer has to know of it.
        Ok(lock.is_ok_and(|lock| matches!(lock.kind, LockKind::Lease { .. })))
    }

    /// None if it is gone by now.
    fn snapshot_kind(&self, name: &FileName) -> Result<Option<SnapshotKind>> {
        match self.namespace.read(name) {
            Err(error) if error.class == ProblemClass::Missing => Ok(None),
            bytes => Ok(Envelope::decode(&bytes?).ok().map(|envelope| envelope.kind)),
        }
    }

    fn is_of_domain(&self, records: &[(String, Record)]) -> bool {
        records.iter().any(|(token, _)| {
            *token == self.token.id
                || self.server.tokens.as_ref().and_then(|tokens| tokens.domain(token)).as_deref()
                    == Some(&*self.token.domain)
        })
    }

    /// Who has sent a file.
    pub fn records(&self, name: &FileName) -> Result<Vec<(String, Record)>> {
        match &self.server.records {
            Some(records) => records.of(&self.namespace.name, name).map_err(failed),
            None => Ok(Vec::new()),
        }
    }

    /// All files of a kind that tokens have sent, whoever may see them.
    pub(crate) fn all_records(&self, kind: FileKind) -> Result<HashMap<FileName, Vec<(String, Record)>>> {
        match &self.server.records {
            Some(records) => records.all(&self.namespace.name, kind).map_err(failed),
            None => Ok(HashMap::new()),
        }
    }

    /// Deletes a file. Spec: P-5-1.
    pub fn delete(&self, name: &FileName) -> Result<()> {
        self.may_delete(name)?;
        let deleted = self.namespace.backend.delete(name);
        self.namespace.forget(name);
        // Of what is gone as well: its record may be what could not be removed the last time.
        let is_gone =
            deleted.as_ref().map_or_else(|error| error.class == diptych_backend::Class::Missing, |()| true);
        if is_gone && let Some(records) = &self.server.records {
            records.remove(&self.namespace.name, name).map_err(failed)?;
        }
        Ok(deleted?)
    }
}

/// The server's own state cannot be read or written.
pub(crate) fn failed(error: std::io::Error) -> Problem {
    let class = match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ProblemClass::Full,
        _ => ProblemClass::Io,
    };
    Problem::new(class, format!("the server's state: {error}"))
}
