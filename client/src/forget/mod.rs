//! `forget`: tombstones for snapshots that are no longer wanted, by name or by policy; and `unforget`, which removes them.
//!
//! A tombstone removes nothing: until it has expired and `prune` has come, it can be taken back.
//!
//! Spec: repository.md section 9.

pub mod policy;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use diptych_format::Digest;
use diptych_repository::Repository;
use diptych_repository::documents::{Body, Snapshot, SnapshotKind, Tombstone};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Timestamp};

use crate::error::{Error, InPlace, Result};
use crate::snapshots::{self, Filter, Listed, source_of};
use policy::{Candidate, Policy, Reason, decide};

/// Clocks of machines that back up into one repository may differ by this much.
const CLOCKS_MAX: SignedDuration = SignedDuration::from_hours(24);

/// By what snapshots are grouped before a policy looks at them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupBy {
    /// By host.
    pub host: bool,
    /// By the paths of all archives.
    pub paths: bool,
    /// By all tags.
    pub tags: bool,
}

/// What the snapshots of a group have in common, as far as they are grouped by it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupKey {
    /// The host.
    pub host: Option<String>,
    /// The paths.
    pub paths: Option<BTreeSet<Vec<u8>>>,
    /// The tags.
    pub tags: Option<BTreeSet<String>>,
    /// Who has sent them, where that is known.
    pub sender: Option<String>,
}

/// Who has sent which snapshots. Those of different senders are never counted together: a host is what a sender says.
pub type Senders = HashMap<Digest, String>;

impl GroupBy {
    fn key(self, Listed { id, snapshot, .. }: &Listed, senders: &Senders) -> GroupKey {
        let paths = || snapshot.archives.iter().map(|archive| source_of(archive).to_vec()).collect();
        GroupKey {
            host: self.host.then(|| snapshot.host.clone()),
            paths: self.paths.then(paths),
            tags: self.tags.then(|| snapshot.tags.iter().cloned().collect()),
            sender: senders.get(id).cloned(),
        }
    }
}

/// A snapshot, and why it is kept: for no reason, if it is to be forgotten.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The snapshot.
    pub listed: Listed,
    /// Why it is kept.
    pub reasons: Vec<Reason>,
}

/// Snapshots that a policy looks at together.
#[derive(Clone, Debug)]
pub struct Group {
    /// What they have in common.
    pub key: GroupKey,
    /// What becomes of them, oldest first.
    pub verdicts: Vec<Verdict>,
}

impl Group {
    /// Those that are to be forgotten.
    pub fn forgotten(&self) -> impl Iterator<Item = &Listed> {
        self.verdicts.iter().filter(|verdict| verdict.reasons.is_empty()).map(|verdict| &verdict.listed)
    }
}

impl<'l> Candidate<'l> {
    fn of(listed: &'l Listed) -> Self {
        let Snapshot { time, tags, .. } = &listed.snapshot;
        Self { time: *time, tags, is_partial: listed.is_partial }
    }
}

/// What a policy makes of the snapshots that `filter` takes. It is an error if nothing of a group would be kept.
pub fn plan(
    listed: &[Listed],
    filter: &Filter,
    policy: &Policy,
    group_by: GroupBy,
    senders: &Senders,
    zone: &TimeZone,
) -> Result<Vec<Group>> {
    let mut groups: BTreeMap<GroupKey, Vec<Listed>> = BTreeMap::new();
    for listed in listed.iter().filter(|listed| listed.forgotten.is_none() && filter.takes(&listed.snapshot))
    {
        groups.entry(group_by.key(listed, senders)).or_default().push(listed.clone());
    }
    let group = |(key, members): (GroupKey, Vec<Listed>)| {
        let candidates: Vec<Candidate<'_>> = members.iter().map(Candidate::of).collect();
        let reasons = decide(policy, &candidates, zone)?;
        let mut complete =
            candidates.iter().zip(&reasons).filter(|(candidate, _)| !candidate.is_partial).peekable();
        if complete.peek().is_some() && complete.all(|(_, reasons)| reasons.is_empty()) {
            let newest = members.last().map(Listed::short_id).unwrap_or_default();
            let what = format!(
                "the policy would keep no complete snapshot of the group of {newest}: nothing is forgotten\n  \
                 Keep more, or name the snapshots that are to be forgotten by their ids."
            );
            return Err(Error::Refused(what));
        }
        let verdicts = members.into_iter().zip(reasons).map(|(listed, reasons)| Verdict { listed, reasons });
        Ok(Group { key, verdicts: verdicts.collect() })
    };
    groups.into_iter().map(group).collect()
}

/// The snapshots that are named by their ids and are not forgotten yet. `latest` is none: what it means changes.
pub fn named(listed: &[Listed], ids: &[String]) -> Result<Vec<Listed>> {
    if ids.iter().any(|id| id == "latest") {
        let what = "latest is another snapshot after the next backup: name what is to be forgotten by its id";
        return Err(Error::Usage(what.to_owned()));
    }
    let mut found = snapshots::named(listed, ids, &Filter::default())?;
    found.retain(|listed| listed.forgotten.is_none());
    Ok(found)
}

/// Refuses a clock that is plainly wrong, by the snapshots there are: with it, what is young would be taken for old, or
/// tombstones would expire when they should not. `named` may be what has the wrong time.
pub fn check_clock(listed: &[Listed], named: &[Listed], now: Timestamp) -> Result<()> {
    let is_named = |id: &Digest| named.iter().any(|listed| listed.id == *id);
    let others = listed.iter().filter(|listed| listed.forgotten.is_none() && !is_named(&listed.id));
    let Some(newest) = others.max_by_key(|listed| listed.snapshot.time) else { return Ok(()) };
    if newest.snapshot.time.duration_since(now) <= CLOCKS_MAX {
        return Ok(());
    }
    let what = format!(
        "snapshot {} is of {}, and the clock says {now}: one of them is wrong, and nothing is forgotten\n  \
         Set the clock; or, if the snapshot's time is wrong, forget it by its id.",
        newest.short_id(),
        newest.snapshot.time,
    );
    Err(Error::Refused(what))
}

/// When a tombstone that is written at `now` expires.
pub fn expires(now: Timestamp, expire: Span) -> Result<Timestamp> {
    let at = now.to_zoned(TimeZone::UTC).checked_add(expire);
    at.map(|at| at.timestamp()).map_err(|_| Error::Usage("--expire is too far away".to_owned()))
}

/// Writes a tombstone for each snapshot.
pub fn forget<'l>(
    repository: &Repository,
    snapshots: impl IntoIterator<Item = &'l Listed>,
    time: Timestamp,
    expires: Timestamp,
) -> Result<()> {
    for listed in snapshots {
        let body = Body::Tombstone(Tombstone { snapshot: listed.id, time, expires });
        repository.put_snapshot(SnapshotKind::Tombstone, body).in_place("")?;
    }
    Ok(())
}

/// Removes all tombstones that name one of these snapshots.
pub fn unforget(repository: &Repository, snapshots: &[Listed]) -> Result<()> {
    // Whoever has listed the snapshots was told of those that cannot be read.
    for stored in repository.snapshots(|_| ()).in_place("")? {
        if let Body::Tombstone(tombstone) = &stored.document.body
            && snapshots.iter().any(|listed| listed.id == tombstone.snapshot)
        {
            repository.remove_snapshot(&stored.id).in_place("")?;
        }
    }
    Ok(())
}
