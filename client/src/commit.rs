//! What every writer of snapshots does alike: it takes a lease before it reads the index, and commits in the one order
//! that loses nothing.
//!
//! Spec: repository.md sections 10 and 11.

use std::collections::HashSet;

use diptych_format::{Digest, Error as FormatError};
use diptych_repository::Repository;
use diptych_repository::documents::{Body, Lock, LockKind, Snapshot, SnapshotKind};
use jiff::Timestamp;

use crate::error::{Error, InPlace, Result};

/// A writer's claim: given up when it is dropped. Spec: R-10-1 and section 10, rule 3.
pub struct Lease<'r> {
    repository: &'r Repository,
    name: Digest,
}

impl<'r> Lease<'r> {
    /// Claims the repository for a writer on `host`, run by `user`, and looks again at which chunks it may use.
    pub fn take(repository: &'r Repository, host: &str, user: &str) -> Result<Self> {
        let lock = |sees: Vec<Digest>| Lock {
            repository: repository.id(),
            kind: LockKind::Lease { sees },
            host: host.to_owned(),
            user: user.to_owned(),
            process: std::process::id().into(),
            written: Timestamp::now(),
        };
        let mut lease = Self { repository, name: repository.put_lock(&lock(Vec::new())).in_place("")? };
        // After the lease, so that whoever condemns packs from now on sees it.
        repository.index().refresh()?;
        // A pack that somebody has removed is in the index still.
        repository.index().leave_out_absent()?;
        let condemned: Vec<(Digest, Vec<Digest>)> = packs_of(repository, |kind| match kind {
            LockKind::Condemn { packs } => Some(packs),
            _ => None,
        })?;
        if !condemned.is_empty() {
            let sees = condemned.iter().map(|(name, _)| *name).collect();
            let renewed = repository.put_lock(&lock(sees)).in_place("")?;
            let first = std::mem::replace(&mut lease.name, renewed);
            repository.remove_lock(&first)?;
            repository.index().leave_out(condemned.into_iter().flat_map(|(_, packs)| packs));
        }
        Ok(lease)
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        // One that stays is found to be of a process that has ended.
        let _ = self.repository.remove_lock(&self.name);
    }
}

/// The packs that documents of one kind name. One that cannot be read may name any: that is an error.
fn packs_of(
    repository: &Repository,
    mut pick: impl FnMut(LockKind) -> Option<Vec<Digest>>,
) -> Result<Vec<(Digest, Vec<Digest>)>> {
    let mut damaged = None;
    let locks = repository.locks(|found| damaged = Some(found))?;
    if let Some(damaged) = damaged {
        let what = format!("cannot tell which packs are about to be removed: {}", damaged.error);
        return Err(Error::Failed {
            place: damaged.path,
            cause: FormatError::new(damaged.error.class, what),
            advice: "Remove the file if no other program works on the repository.".to_owned(),
        });
    }
    Ok(locks.into_iter().filter_map(|(name, lock)| Some((name, pick(lock.kind)?))).collect())
}

/// Makes a snapshot of what is durable and indexed. Spec: R-11-1, R-11-2.
pub fn commit(repository: &Repository, snapshot: Snapshot) -> Result<Digest> {
    let body = Body::Snapshot(snapshot);
    let pending = repository.put_snapshot(SnapshotKind::Pending, body.clone())?;
    refuse_doomed(repository)?;
    let snapshot = repository.put_snapshot(SnapshotKind::Snapshot, body)?;
    repository.remove_snapshot(&pending.id)?;
    repository.index().merge_levels()?;
    Ok(snapshot.id)
}

/// Packs that are about to be removed count as gone: what the run took from them would be lost.
fn refuse_doomed(repository: &Repository) -> Result<()> {
    let doomed = packs_of(repository, |kind| match kind {
        LockKind::Doom { packs } => Some(packs),
        _ => None,
    })?;
    let doomed: HashSet<Digest> = doomed.into_iter().flat_map(|(_, packs)| packs).collect();
    if doomed.is_empty() {
        return Ok(());
    }
    let what = "packs that this run may use are being removed by `prune`";
    Err(Error::Failed {
        place: repository.backend().location(),
        cause: FormatError::missing(what),
        advice: "Run it again when `prune` is done.".to_owned(),
    })
}
