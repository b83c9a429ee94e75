//! What differs between two archives, in time proportional to what differs.
//!
//! Both trees are gone through together, by name. Directories whose digests agree are equal in all that is compared,
//! links apart, and are passed over without being read; likewise equal pieces of a large directory. Whether a path
//! is linked is told by the link tables alone, which are compared first.
//!
//! Spec: archive.md sections 3.2 and 7.2.

mod compare;
mod cursor;
mod links;
mod merge;

use std::collections::BTreeSet;

use diptych_format::Entry;
use diptych_format::error::{Error, Result};

use crate::archive::Archive;
use crate::finder::Finder;
use crate::pieces::Piece;

/// An entry that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Its path; empty for the root.
    pub path: Vec<u8>,
    /// How.
    pub kind: Change,
    /// The entry in the first archive, if it is there.
    pub before: Option<Entry>,
    /// The entry in the second one.
    pub after: Option<Entry>,
}

/// How an entry differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is in the second archive alone.
    Added,
    /// It is in the first one alone.
    Removed,
    /// It is in both.
    Changed {
        /// In what it differs; never empty, and in the order of [`Aspect`].
        what: Vec<Aspect>,
    },
}

/// What an entry can differ in. Holes, ctime, inode number and status are no differences.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Aspect {
    /// What it is.
    Kind,
    /// Size or digest of a content.
    Content,
    /// Target of a symbolic link.
    Target,
    /// Number of a device.
    Device,
    /// Permissions.
    Mode,
    /// Owner or group.
    Owner,
    /// When the content last changed.
    Times,
    /// Extended attributes.
    Xattrs,
    /// `chattr` flags.
    Flags,
    /// Quota project.
    Project,
    /// The other paths of its inode.
    Links,
}

/// Receives differences; an error ends the comparison.
pub type DifferenceSink<'s> = dyn FnMut(Difference) -> Result<()> + 's;

/// Tells `sink` in what `b` differs from `a`: a directory before what is below it, names in order, and what is below
/// a directory that was added or removed entry by entry. Paths that differ in nothing but their links, in directories
/// that are equal otherwise, come last.
pub fn diff(a: &Archive, b: &Archive, sink: &mut DifferenceSink<'_>) -> Result<()> {
    let mut relinked = links::changed(a, b)?;
    merge::Merge::new(a, b, &mut relinked, sink).run()?;
    tell_of_links(a, b, relinked, sink)
}

/// The same of what is below two directories, which both archives have; they themselves are not compared. Paths are told
/// from the root of `a`. Links are compared only where both have the same path, for they are told from the root.
pub fn diff_below(
    (a, path_a): (&Archive, &[u8]),
    (b, path_b): (&Archive, &[u8]),
    sink: &mut DifferenceSink<'_>,
) -> Result<()> {
    let mut relinked = if path_a == path_b { links::changed(a, b)? } else { BTreeSet::new() };
    let is_below = |path: &[u8]| {
        path.strip_prefix(path_a).is_some_and(|rest| path_a.is_empty() || rest.starts_with(b"/"))
    };
    relinked.retain(|path| is_below(path));
    let top = |archive: &Archive, path: &[u8]| {
        let found = archive.lookup(path)?.and_then(|found| found.below);
        found.map(|below| Piece::top(below, 0)).ok_or_else(|| {
            Error::missing(format!("{} is no directory of the archive", String::from_utf8_lossy(path)))
        })
    };
    let tops = [top(a, path_a)?, top(b, path_b)?];
    merge::Merge::new(a, b, &mut relinked, sink).run_below(path_a, tops)?;
    tell_of_links(a, b, relinked, sink)
}

/// Tells of paths that differ in nothing but their links.
fn tell_of_links(
    a: &Archive,
    b: &Archive,
    relinked: BTreeSet<Box<[u8]>>,
    sink: &mut DifferenceSink<'_>,
) -> Result<()> {
    let (mut finder_a, mut finder_b) = (Finder::new(a), Finder::new(b));
    for path in relinked {
        // A path that is in one archive alone was told of.
        let Some(before) = finder_a.find(&path, |table, row, piece| a.found(table, row, piece))? else {
            continue;
        };
        let Some(after) = finder_b.find(&path, |table, row, piece| b.found(table, row, piece))? else {
            continue;
        };
        sink(Difference {
            path: path.into(),
            kind: Change::Changed { what: vec![Aspect::Links] },
            before: Some(before.entry),
            after: Some(after.entry),
        })?;
    }
    Ok(())
}
