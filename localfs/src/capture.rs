//! Capture: what the scan found becomes an entry, and the content of a regular file can be read.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use diptych_format::limits::TARGET_LENGTH_MAX;
use diptych_format::{Digest, Entry, Holds, Hole, Kind, Monitor, Problem, Status, Time};
use rustix::fs::{Advice, fadvise, readlinkat};
use rustix::io::Errno;

use crate::attributes::{self, Read};
use crate::content::Runs;
use crate::facts::{Facts, join, retry, words};
use crate::handle::{FileSystem, patiently};
use crate::scan::Found;

pub use crate::content::Part;

/// From this size on the kernel is told that a file is read from its start to its end.
const ADVISE_FROM: u64 = 1 << 20;

/// An entry as far as it is known before its content has been read.
#[derive(Debug)]
pub struct Captured {
    /// The entry, without digest and holes.
    pub entry: Entry,
    /// The content of a regular file that could be opened.
    pub content: Option<Content>,
    /// How many names the inode has.
    pub links: u64,
    /// The device that it is on.
    pub device: u64,
}

/// Why there is nothing to make an entry of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// The name is not in the tree any more, so nothing is missing.
    Vanished,
    /// The tree has the name, and the archive will not: something else has taken its place, or it cannot be read.
    Lost,
}

/// Makes an entry of what the scan found. What there is nothing to make one of is reported.
pub fn capture(found: &Found, monitor: &dyn Monitor) -> Result<Captured, Absent> {
    match found.facts.kind {
        Kind::File => capture_file(found, monitor),
        _ => capture_other(found, monitor),
    }
}

fn capture_file(found: &Found, monitor: &dyn Monitor) -> Result<Captured, Absent> {
    let facts = &found.facts;
    let holds = Holds::Content { size: facts.size, digest: Digest::NONE };
    let fd = match patiently(|| found.parent.open_file(found.name.as_bytes())) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Err(vanished(found, monitor)),
        Err(error) => {
            loss(found, monitor, format!("cannot open it: {}", words(error)));
            let status = Status::NOT_READ.with(Status::ATTRIBUTES_INCOMPLETE);
            return Ok(captured(found, attributes::plain(facts), holds, status, None));
        }
    };
    if facts.size >= ADVISE_FROM {
        // Advice that is not taken costs nothing.
        let _ = fadvise(&fd, 0, None, Advice::Sequential);
    }
    let read = attributes::of_open(fd.as_fd(), facts, file_system(found));
    let status = report_missing(found, &read, monitor);
    let content = Content::new(fd, found);
    Ok(captured(found, read, holds, status, Some(content)))
}

fn capture_other(found: &Found, monitor: &dyn Monitor) -> Result<Captured, Absent> {
    let directory = match patiently(|| found.parent.fd()) {
        Ok(fd) => fd,
        Err(error) => {
            return Err(lost(found, monitor, format!("its directory is not open: {}", words(error))));
        }
    };
    let facts = &found.facts;
    let holds = match facts.kind {
        Kind::Symlink => match retry(|| readlinkat(&directory, found.name.as_bytes(), Vec::new())) {
            Ok(target) => Holds::Target(target.into_bytes().into()),
            Err(Errno::NOENT) => return Err(vanished(found, monitor)),
            Err(Errno::INVAL) => {
                return Err(lost(found, monitor, "replaced by something else while scanning"));
            }
            Err(error) => {
                let what = format!("cannot read the symbolic link: {}", words(error));
                return Err(lost(found, monitor, what));
            }
        },
        Kind::BlockDevice | Kind::CharDevice => {
            Holds::Device { major: facts.rdev_major, minor: facts.rdev_minor }
        }
        _ => Holds::Nothing,
    };
    if let Holds::Target(target) = &holds
        && target.len() > TARGET_LENGTH_MAX
    {
        let length = target.len();
        let what = format!("its target of {length} bytes is above the limit of {TARGET_LENGTH_MAX}");
        return Err(lost(found, monitor, what));
    }
    let read = attributes::of_name(directory.as_fd(), found.name.as_bytes(), facts, file_system(found));
    let status = report_missing(found, &read, monitor);
    Ok(captured(found, read, holds, status, None))
}

fn captured(found: &Found, read: Read, holds: Holds, status: Status, content: Option<Content>) -> Captured {
    let facts = &found.facts;
    let entry = Entry {
        name: found.name.clone(),
        attributes: read.attributes,
        mtime: facts.mtime,
        holds,
        holes: Vec::new(),
        change: facts.change(),
        status,
    };
    Captured { entry, content, links: facts.links.into(), device: facts.device }
}

/// What is known of the file system, unless the file is on another one than its directory.
fn file_system(found: &Found) -> Option<&FileSystem> {
    (found.facts.device == found.parent.device()).then_some(&**found.parent.file_system())
}

fn report_missing(found: &Found, read: &Read, monitor: &dyn Monitor) -> Status {
    if !read.missing.is_empty() {
        loss(found, monitor, format!("cannot read {}", read.missing.join("; ")));
    }
    if read.is_incomplete { Status::ATTRIBUTES_INCOMPLETE } else { Status::COMPLETE }
}

fn vanished(found: &Found, monitor: &dyn Monitor) -> Absent {
    let what = "vanished while scanning".to_owned();
    monitor.problem(Problem { path: found.path(), what, is_loss: false });
    Absent::Vanished
}

fn lost(found: &Found, monitor: &dyn Monitor, what: impl Into<String>) -> Absent {
    loss(found, monitor, what);
    Absent::Lost
}

fn loss(found: &Found, monitor: &dyn Monitor, what: impl Into<String>) {
    monitor.problem(Problem { path: found.path(), what: what.into(), is_loss: true });
}

/// The content of a regular file, from its start to the size that the scan saw.
pub struct Content {
    runs: Runs<OwnedFd>,
    facts: Facts,
    is_sparse: bool,
    parent_path: Arc<[u8]>,
    name: diptych_format::Name,
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Content").field("name", &self.name).field("at", &self.runs.position()).finish()
    }
}

/// What is known of a content when it has been read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// How whole it is.
    pub status: Status,
    /// The bytes that were delivered, holes included: fewer than the scan saw if the file shrank.
    pub size: u64,
    /// Its holes, ascending and never touching.
    pub holes: Vec<Hole>,
    /// When the content had last changed as of the scan.
    pub mtime: Time,
    /// When the inode had last changed as of the scan.
    pub ctime: Time,
}

impl Content {
    fn new(fd: OwnedFd, found: &Found) -> Self {
        let facts = found.facts;
        // A file system that packs or compresses takes fewer blocks as well: asking it costs one call.
        let is_sparse = facts.blocks.saturating_mul(512) < facts.size;
        let runs = Runs::new(fd, facts.size, is_sparse);
        Self { runs, facts, is_sparse, parent_path: Arc::clone(&found.parent_path), name: found.name.clone() }
    }

    /// The size that the scan saw.
    pub fn size(&self) -> u64 {
        self.facts.size
    }

    /// Whether the file takes less room than its size, so that holes are looked for.
    pub fn is_sparse(&self) -> bool {
        self.is_sparse
    }

    /// Appends up to `most` bytes of data to `buf`, or tells of a run that is not data.
    ///
    /// A file that has grown is cut at the size that the scan saw.
    pub fn read(&mut self, buf: &mut Vec<u8>, most: usize) -> Part {
        self.runs.read(buf, most)
    }

    /// Compares the file with what the scan saw, and reports what is wrong with the content.
    pub fn finish(self, monitor: &dyn Monitor) -> Outcome {
        let Facts { mtime, ctime, .. } = self.facts;
        let mut status = self.runs.status();
        let report = |what: String| {
            let path = join(&self.parent_path, self.name.as_bytes());
            monitor.problem(Problem { path, what, is_loss: true });
        };
        if let Some(complaint) = self.runs.complaint() {
            report(complaint);
        }
        if let Some(change) = self.find_change() {
            status = status.with(Status::CHANGED);
            report(change);
        }
        let size = self.runs.position();
        Outcome { status, size, holes: self.runs.into_holes(), mtime, ctime }
    }

    /// How the file differs from what the scan saw, in words.
    fn find_change(&self) -> Option<String> {
        let seen = &self.facts;
        let now = match Facts::of_open(&self.runs.source) {
            Ok(now) => now,
            Err(error) => return Some(format!("cannot tell whether it has changed: {}", words(error))),
        };
        if (now.device, now.inode, now.kind) != (seen.device, seen.inode, seen.kind) {
            return Some("replaced while it was read: what was kept may be a mixture".to_owned());
        }
        let is_short = self.runs.status().has(Status::CHANGED);
        if now.size != seen.size {
            return Some(format!("changed while it was read: from {} to {} bytes", seen.size, now.size));
        }
        let is_same = now.mtime == seen.mtime && now.ctime == seen.ctime;
        (is_short || !is_same).then(|| "changed while it was read".to_owned())
    }
}
