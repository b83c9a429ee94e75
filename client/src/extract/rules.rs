//! What to do with what is there already.

use std::collections::HashMap;

use diptych_format::digest::ContentHasher;
use diptych_format::{Digest, Entry, Error as FormatError, Holds, Kind, Result as FormatResult};
use diptych_localfs::extract::{Deleted, Deletion, MayGo, Mount, OldFile, OutDirectory, Standing, Target};

use crate::error::Result;
use crate::links::{Group, PathKey};
use crate::patterns::Patterns;
use crate::progress::{Act, Losses, Progress};
use crate::select::Verdict;

use super::choice::joined;
use super::part::Part;

/// How much of a file is compared at once.
const COMPARED: usize = 1 << 20;

/// What may happen to a target that is not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overwrite {
    /// It is refused.
    Refuse,
    /// What is missing is restored; what is there stays as it is.
    Never,
    /// Files are replaced whose contents differ; the others get their attributes.
    IfChanged,
    /// Whatever has the same name is replaced.
    Always,
}

/// How what is there is dealt with.
pub struct Rules<'r> {
    /// What may be replaced.
    pub overwrite: Overwrite,
    /// Whether files that are there are changed where they lie.
    pub is_in_place: bool,
    /// What may be deleted that the archive does not have; none if nothing is.
    pub deletion: Option<Others<'r>>,
    own: HashMap<(PathKey, (u64, u64)), u64>,
}

/// What of others is deleted.
#[derive(Clone, Copy)]
pub struct Others<'r> {
    /// What is taken by patterns, and so may go.
    pub patterns: &'r Patterns,
    /// The path from where patterns are told to the target.
    pub prefix: &'r [u8],
    /// Paths, told like those of patterns, that are restored from elsewhere.
    pub spared: &'r [Vec<u8>],
    /// The mount that is not left.
    pub mount: Mount,
    /// Whether to say only what would be deleted.
    pub is_dry: bool,
}

/// What becomes of an entry.
pub enum Fate {
    /// It is made, in place of what is of this kind, if something is.
    Make(Option<Kind>),
    /// The file that is there is changed where it differs.
    Change,
    /// The content that is there is right.
    Keep(OldFile),
    /// The symbolic link that is there is right.
    KeepLink,
    /// What is there stays, whatever it is.
    Skip,
}

impl<'r> Rules<'r> {
    /// Rules for a target; which names in it belong to which inode is found out where that matters.
    pub fn new(
        overwrite: Overwrite,
        is_in_place: bool,
        deletion: Option<Others<'r>>,
        target: Option<&Target>,
        part: &Part<'_>,
    ) -> Result<Self> {
        let mut own = HashMap::new();
        if let Some(target) = target.filter(|_| overwrite == Overwrite::IfChanged || is_in_place) {
            part.links.for_each(&mut |path, group: Group| {
                let standing = part.below(path).and_then(|path| target.standing(path));
                if let Some(standing) = standing {
                    *own.entry((group.first, standing.inode)).or_default() += 1;
                }
            })?;
        }
        Ok(Self { overwrite, is_in_place, deletion, own })
    }

    /// Says what becomes of an entry that goes into `out` and is no directory. Reads what is there if its length is right.
    pub fn judge(&self, out: &OutDirectory, entry: &Entry, group: Option<Group>) -> FormatResult<Fate> {
        if self.overwrite == Overwrite::Refuse {
            return Ok(Fate::Make(None));
        }
        let Some(standing) = out.standing(&entry.name)? else { return Ok(Fate::Make(None)) };
        let make = Ok(Fate::Make(Some(standing.kind)));
        match (self.overwrite, &entry.holds) {
            (Overwrite::Never, _) => Ok(Fate::Skip),
            (_, Holds::Content { size, digest }) if standing.kind == Kind::File => {
                let is_own = self.is_own(&standing, group);
                let is_compared = self.overwrite == Overwrite::IfChanged
                    && standing.size == *size
                    && (is_own || self.is_in_place);
                // What cannot be read is not known to be right.
                let old = if is_compared { out.open_standing(&entry.name).ok() } else { None };
                match old.filter(|old| content_is(old, *size, digest)) {
                    Some(old) if is_own => Ok(Fate::Keep(old)),
                    None if self.is_in_place && is_own => Ok(Fate::Change),
                    None if self.is_in_place => {
                        let what = "it has other names, outside of what is restored, that would change with it: \
                            restore it without --in-place";
                        Err(FormatError::io(what, std::io::ErrorKind::AlreadyExists.into()))
                    }
                    // One that is right and has other names outside gets a file of its own, as its attributes are
                    // theirs too.
                    _ => make,
                }
            }
            (Overwrite::IfChanged, Holds::Target(target))
                if standing.kind == Kind::Symlink
                    && standing.links == 1
                    && out.target_of(&entry.name).is_ok_and(|found| found[..] == target[..]) =>
            {
                Ok(Fate::KeepLink)
            }
            _ => make,
        }
    }

    /// Whether a large content can be begun without reading what is there.
    pub fn is_quick(&self, out: &OutDirectory, entry: &Entry) -> bool {
        self.overwrite != Overwrite::IfChanged || matches!(out.standing(&entry.name), Ok(None))
    }

    /// Whether all names of what is there are names in the target of the same entry: what is done to it is done to
    /// nothing else.
    fn is_own(&self, standing: &Standing, group: Option<Group>) -> bool {
        let own = group.and_then(|group| self.own.get(&(group.first, standing.inode)));
        standing.links <= own.copied().unwrap_or(1)
    }

    /// Lends `work` what it takes to delete; nothing happens where nothing is to be deleted.
    pub fn delete(
        &self,
        losses: &Losses<'_>,
        count: &dyn Fn(),
        work: impl FnOnce(&Deletion<'_>) -> FormatResult<()>,
    ) -> FormatResult<()> {
        let Some(others) = self.deletion else { return Ok(()) };
        let told = |path: &[u8], deleted: Deleted| match deleted {
            Deleted::Gone { is_directory } => {
                count();
                match others.is_dry {
                    true => losses.planned(Act::Delete, path, is_directory),
                    false => losses.deleted(path, is_directory),
                }
            }
            Deleted::Stays(why) => losses.loss(path, why),
        };
        let may_go = |path: &[u8], is_directory: bool| others.may_go(path, is_directory);
        work(&Deletion { may_go: &may_go, told: &told, is_dry: others.is_dry, mount: others.mount })
    }
}

impl Others<'_> {
    fn may_go(&self, path: &[u8], is_directory: bool) -> MayGo {
        let path = joined(self.prefix, path);
        let is_above = |spared: &Vec<u8>| {
            spared.strip_prefix(&path[..]).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        };
        if self.spared.contains(&path) {
            return MayGo::No;
        }
        match self.patterns.verdict(&path, is_directory) {
            Verdict::Selected if self.spared.iter().any(is_above) => MayGo::Below,
            Verdict::Selected => MayGo::Yes,
            Verdict::OnTheWay => MayGo::Below,
            Verdict::Passed => MayGo::No,
        }
    }
}

/// Whether a file holds the content that it should.
fn content_is(file: &OldFile, size: u64, digest: &Digest) -> bool {
    let mut hasher = ContentHasher::new();
    let mut buffer = vec![0; usize::try_from(size).unwrap_or(COMPARED).min(COMPARED)];
    let mut at = 0;
    while at < size {
        let most = usize::try_from(size - at).unwrap_or(COMPARED).min(buffer.len());
        let Some(window) = buffer.get_mut(..most) else { return false };
        match file.read_at(window, at) {
            Ok(got) if got == most => hasher.update(window),
            _ => return false,
        }
        at += most as u64;
    }
    hasher.finish() == *digest
}
