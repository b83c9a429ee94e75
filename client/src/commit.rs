//! What every writer of snapshots does alike: it takes a lease before it reads the index, and commits in the one order
//! that loses nothing.
//!
//! Spec: repository.md sections 10 and 11.

use std::collections::HashSet;

use diptych_backend::{FileKind, FileName};
use diptych_format::{Class, Digest, Error as FormatError, Problem};
use diptych_repository::Repository;
use diptych_repository::documents::{Body, Lock, LockKind, Snapshot, SnapshotKind};
use jiff::{SignedDuration, Timestamp};

use crate::error::{Error, InPlace, Result};
use crate::progress::Progress;

/// Hours after which a lease that was not renewed is removed; a run renews its own every few minutes.
const STALE_HOURS: i64 = 24;

/// A writer's claim: given up when it is dropped. Spec: R-10-1 and section 10, rule 3.
pub struct Lease<'r> {
    repository: &'r Repository,
    host: String,
    user: String,
    sees: Vec<Digest>,
    name: Digest,
    /// What it was before it was renewed.
    before: Option<Digest>,
    /// Packs that the index names and that are not there or not whole.
    missing: Vec<Digest>,
}

impl<'r> Lease<'r> {
    /// Claims the repository for who takes no chunk and wants none removed: packs stay until it is dropped.
    pub fn hold(repository: &'r Repository, host: &str, user: &str) -> Result<Self> {
        let lease = Self::put(repository, host, user)?;
        lease.remove_stale(repository.locks(|_| {})?);
        // After the lease, so that whoever condemns packs from now on sees it.
        repository.index().refresh()?;
        Ok(lease)
    }

    fn put(repository: &'r Repository, host: &str, user: &str) -> Result<Self> {
        let lock = lease(repository, host, user, &[]);
        Ok(Self {
            repository,
            host: host.to_owned(),
            user: user.to_owned(),
            sees: Vec::new(),
            name: repository.put_lock(&lock).in_place("")?,
            before: None,
            missing: Vec::new(),
        })
    }

    /// Claims the repository for a writer on `host`, run by `user`, and looks again at which chunks it may use.
    pub fn take(repository: &'r Repository, host: &str, user: &str) -> Result<Self> {
        let mut lease = Self::put(repository, host, user)?;
        // Once, and after the lease: where the repository is far away, each listing takes its time.
        let locks = locks(repository)?;
        repository.index().refresh()?;
        // A pack that somebody has removed is in the index still.
        lease.missing = repository.index().leave_out_absent()?;
        let (mut condemned, mut damaged) = (Vec::new(), Vec::new());
        for (name, lock) in &locks {
            match &lock.kind {
                LockKind::Condemn { packs } => condemned.push((*name, packs.clone())),
                LockKind::Damaged { packs, chunks } => damaged.push((packs.clone(), chunks.clone())),
                LockKind::Lease { .. } | LockKind::Doom { .. } => {}
            }
        }
        lease.remove_stale(locks);
        // What is damaged is stored again by whoever still has it. Spec: R-10-4.
        for (packs, chunks) in damaged {
            match chunks.is_empty() {
                true => repository.index().leave_out(packs),
                false => repository.index().leave_out_chunks(packs, chunks),
            }
        }
        if !condemned.is_empty() {
            lease.sees = condemned.iter().map(|(name, _)| *name).collect();
            lease.renew()?;
            let condemned: HashSet<Digest> = condemned.into_iter().flat_map(|(_, packs)| packs).collect();
            // Those are missed by nobody.
            lease.missing.retain(|pack| !condemned.contains(pack));
            repository.index().leave_out(condemned);
        }
        Ok(lease)
    }

    /// Leases that nobody has renewed for so long are of runs that were killed. No data depends on it: what a run takes from
    /// packs is looked at again when it commits.
    fn remove_stale(&self, locks: Vec<(Digest, Lock)>) {
        let stale_before = Timestamp::now() - SignedDuration::from_hours(STALE_HOURS);
        for (name, lock) in locks {
            if matches!(lock.kind, LockKind::Lease { .. }) && lock.written < stale_before {
                // Another run may have been quicker.
                let _ = self.repository.remove_lock(&name);
            }
        }
    }

    /// Says that the writer is still at work. The lease before stays until the next time, so that no listing misses both.
    /// Spec: R-10-3.
    pub fn renew(&mut self) -> diptych_format::Result<()> {
        let lock = lease(self.repository, &self.host, &self.user, &self.sees);
        let name = self.repository.put_lock(&lock)?;
        let replaced = self.before.replace(std::mem::replace(&mut self.name, name));
        // Whoever took this writer for dead may have removed it.
        replaced.map_or(Ok(()), |replaced| self.repository.remove_lock(&replaced)).or_else(unless_gone)
    }

    /// Tells of packs that are missing.
    pub fn report_missing(&self, progress: &dyn Progress) {
        for pack in &self.missing {
            progress.problem(Problem {
                path: FileName::new(FileKind::Data, pack.0).path().into_bytes(),
                what: "the pack is not there or is not whole: what of it is found again is stored again; \
                    run 'diptych check' to see what is lost"
                    .to_owned(),
                is_loss: true,
            });
        }
    }
}

fn unless_gone(error: FormatError) -> diptych_format::Result<()> {
    if error.class == Class::Missing { Ok(()) } else { Err(error) }
}

fn lease(repository: &Repository, host: &str, user: &str, sees: &[Digest]) -> Lock {
    lock(repository, host, user, LockKind::Lease { sees: sees.to_vec() })
}

/// What this process has to say to others.
pub fn lock(repository: &Repository, host: &str, user: &str, kind: LockKind) -> Lock {
    Lock {
        repository: repository.id(),
        kind,
        host: host.to_owned(),
        user: user.to_owned(),
        process: std::process::id().into(),
        written: Timestamp::now(),
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        // One that stays is found to be of a process that has ended.
        for name in self.before.iter().chain([&self.name]) {
            self.repository.remove_lock_soon(name);
        }
    }
}

/// All leases and the like. One that cannot be read may name any packs: that is an error.
fn locks(repository: &Repository) -> Result<Vec<(Digest, Lock)>> {
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
    Ok(locks)
}

/// Makes a snapshot of what is durable and indexed. Spec: R-11-1, R-11-2.
pub fn commit(repository: &Repository, snapshot: Snapshot) -> Result<Digest> {
    let time = snapshot.time;
    let body = Body::Snapshot(snapshot);
    let pending = repository.put_snapshot(SnapshotKind::Pending, body.clone())?;
    refuse_doomed(repository)?;
    let snapshot = repository.put_snapshot(SnapshotKind::Snapshot, body)?;
    // The snapshot is there, whatever becomes of the rest: what stays costs some room, and no more.
    repository.remove_snapshot_soon(&pending.id);
    let _ = repository.index().merge_levels();
    crate::seen::committed(repository, &snapshot.id, time);
    Ok(snapshot.id)
}

/// Packs that are about to be removed count as gone: what the run took from them would be lost.
fn refuse_doomed(repository: &Repository) -> Result<()> {
    let doomed = locks(repository)?.into_iter().any(|(_, lock)| match lock.kind {
        LockKind::Doom { packs } => !packs.is_empty(),
        _ => false,
    });
    if !doomed {
        return Ok(());
    }
    let what = "packs that this run may use are being removed by `prune`";
    Err(Error::Failed {
        place: repository.backend().location(),
        cause: FormatError::missing(what),
        advice: "Run it again when `prune` is done.".to_owned(),
    })
}
