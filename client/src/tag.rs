//! `tag`: a snapshot with other tags in the place of one.
//!
//! Files are never changed, so there is a moment with both. The new one says which one it replaces, and whoever comes by in
//! that moment, or after a run that ended there, takes the new one for both.
//!
//! Spec: repository.md section 9.

use diptych_format::{Class, Digest};
use diptych_repository::Repository;
use diptych_repository::documents::{Body, Snapshot, SnapshotKind};

use crate::backup::{host_name, user_name};
use crate::commit::{Lease, commit};
use crate::error::{InPlace, Result};
use crate::snapshots::Listed;

/// Adds and removes tags of a snapshot; gives its new id, or none if it has them as wanted.
pub fn tag(
    repository: &Repository,
    listed: &Listed,
    added: &[String],
    removed: &[String],
) -> Result<Option<Digest>> {
    let tags = changed(&listed.snapshot.tags, added, removed);
    if tags == listed.snapshot.tags {
        return Ok(None);
    }
    let lease = Lease::take(repository, &host_name(), &user_name())?;
    // What it replaces itself, if a run ended too early, would be seen again once it is gone. Spec: R-9-5.
    if let Some(replaced) = &listed.snapshot.replaces {
        remove(repository, replaced)?;
    }
    let snapshot = Snapshot { tags, replaces: Some(listed.id), ..listed.snapshot.clone() };
    let id = match listed.is_partial {
        true => repository.put_snapshot(SnapshotKind::Partial, Body::Snapshot(snapshot)).in_place("")?.id,
        false => commit(repository, snapshot)?,
    };
    remove(repository, &listed.id)?;
    drop(lease);
    Ok(Some(id))
}

fn remove(repository: &Repository, id: &Digest) -> Result<()> {
    match repository.remove_snapshot(id) {
        Err(error) if error.class == Class::Missing => Ok(()),
        other => other.in_place(""),
    }
}

fn changed(tags: &[String], added: &[String], removed: &[String]) -> Vec<String> {
    let mut tags: Vec<String> = tags.iter().filter(|tag| !removed.contains(tag)).cloned().collect();
    for tag in added {
        if !tags.contains(tag) {
            tags.push(tag.clone());
        }
    }
    tags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_come_once_and_in_their_order() {
        let tags = |words: &str| words.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        for (before, added, removed, after) in [
            ("a b", "c a c", "", "a b c"),
            ("a b a", "", "a", "b"),
            ("a b", "a", "a", "b a"),
            ("a", "", "x", "a"),
        ] {
            assert_eq!(changed(&tags(before), &tags(added), &tags(removed)), tags(after), "{before}");
        }
    }
}
