//! What `check` leaves for writers: which chunks they are not to take, so that the next backup stores them again.
//!
//! Spec: repository.md section 10, rules 4 and 5.

use std::collections::HashSet;

use diptych_format::Digest;
use diptych_repository::documents::{Lock, LockKind};

use super::packs::Packs;
use super::{Check, Health};
use crate::commit::lock;
use crate::error::Result;

/// Ids in one document, which stays far below what one may have.
const IDS_MAX: usize = 50_000;

/// The packs that earlier marks name: they are read again, whatever else is.
pub(super) fn marked_packs(locks: &[(Digest, Lock)]) -> HashSet<Digest> {
    let packs = locks.iter().filter_map(|(_, lock)| match &lock.kind {
        LockKind::Damaged { packs, .. } => Some(packs),
        _ => None,
    });
    packs.flatten().copied().collect()
}

/// Puts what was found in the place of what earlier runs had marked; without `is_all`, beside it.
pub(super) fn leave_marks(
    check: &Check<'_>,
    locks: &[(Digest, Lock)],
    packs: &Packs,
    health: &Health<'_>,
    is_all: bool,
) -> Result<()> {
    let mut wanted = marks(check, packs, health)?;
    let mut old = Vec::new();
    for (name, lock) in locks.iter().filter(|(_, lock)| matches!(lock.kind, LockKind::Damaged { .. })) {
        match wanted.iter().position(|kind| *kind == lock.kind) {
            Some(place) => drop(wanted.swap_remove(place)),
            None => old.push(name),
        }
    }
    let options = check.options;
    for kind in wanted {
        check.repository.put_lock(&lock(check.repository, &options.host, &options.user, kind))?;
    }
    // A pack that nobody was allowed to read may be as damaged as it was.
    if is_all && !packs.faults.values().any(|fault| fault.is_refused) {
        old.into_iter().try_for_each(|name| check.repository.remove_lock(name))?;
    }
    Ok(())
}

fn marks(check: &Check<'_>, packs: &Packs, health: &Health<'_>) -> Result<Vec<LockKind>> {
    // Writers see for themselves which packs are not there.
    let is_there = |name: &&Digest| packs.faults.get(*name).is_some_and(|fault| !fault.is_gone);
    let mut whole: Vec<Digest> = Vec::new();
    let mut partly: HashSet<Digest> = HashSet::new();
    for (name, fault) in packs.faults.iter().filter(|(name, fault)| is_there(name) && !fault.is_refused) {
        match fault.is_frail {
            true => whole.push(*name),
            false => drop(partly.insert(*name)),
        }
    }
    let mut ids: HashSet<Digest> = HashSet::new();
    for placed in check.view.rows_of(&partly)?.into_values().flatten() {
        if health.bad.has(placed.row) && ids.len() <= IDS_MAX {
            ids.insert(placed.location.chunk.header.id);
        }
    }
    let mut partly: Vec<Digest> = partly.into_iter().collect();
    partly.sort_unstable();
    // Too many to be named: the packs are done without.
    if ids.len() > IDS_MAX {
        whole.append(&mut partly);
        whole.sort_unstable();
    }
    let mut chunks: Vec<Digest> = ids.into_iter().collect();
    chunks.sort_unstable();
    let all = (!whole.is_empty()).then(|| LockKind::Damaged { packs: whole, chunks: Vec::new() });
    let some =
        (!partly.is_empty() && !chunks.is_empty()).then_some(LockKind::Damaged { packs: partly, chunks });
    Ok(all.into_iter().chain(some).collect())
}
