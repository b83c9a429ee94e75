//! The scan: a tree as steps in the one order that an archive has.
//!
//! In a directory, the names that are kept are sorted as bytes and cut into pieces by the format's rule. Each piece
//! gives its entries that are no directories, in the order of their names, and then its directories, each from its
//! opening to its end. So the same tree gives the same steps, however many threads read it.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use diptych_format::{Entry, Error, Monitor, Name, Result, Status};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::ahead::{Ahead, Job, Ready};
use crate::facts::{join, retry, words};
use crate::handle::patiently;
use crate::listing::{self, Context, Head, Notes};
use crate::names::RUN_NAMES;
use crate::place::Places;
use crate::select::Selection;

pub use crate::facts::Facts;
pub use crate::handle::DirHandle;
pub use crate::place::raise_descriptor_limit;

/// How a tree is scanned.
#[derive(Clone, Debug)]
pub struct ScanOptions {
    /// What is left out.
    pub selection: Selection,
    /// Threads that list directories, the caller's own included.
    pub threads: usize,
}

impl Default for ScanOptions {
    fn default() -> Self {
        Self { selection: Selection::default(), threads: 1 }
    }
}

/// A step of a scan.
#[derive(Debug)]
pub enum Step {
    /// A directory opens; the first is the root.
    Enter(Directory),
    /// Entries of the current piece that are no directories, in the order of their names; more may follow.
    Entries(Vec<Found>),
    /// A directory of the current piece that is not there any more.
    Vanished(Name),
    /// The piece is complete with all its directories; another one of the same directory follows.
    EndPiece,
    /// The directory that the matching [`Step::Enter`] opened is complete.
    Leave(Left),
}

/// A directory that closes.
#[derive(Debug)]
pub struct Left {
    /// Its path below the root; empty for the root.
    pub path: Arc<[u8]>,
    /// What was found out while its names were looked at: *not-read* if one could not be.
    pub status: Status,
}

/// A directory that opens.
#[derive(Debug)]
pub struct Directory {
    /// All of it but the digest of its entries.
    pub entry: Entry,
    /// Kept while entries found in it may have to be read.
    pub handle: Arc<DirHandle>,
    /// Its path below the root; empty for the root.
    pub path: Arc<[u8]>,
    /// What `statx` says of it.
    pub facts: Facts,
}

/// An entry that is no directory, not opened yet.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its name.
    pub name: Name,
    /// What `statx` says of it.
    pub facts: Facts,
    /// The directory that it is in.
    pub parent: Arc<DirHandle>,
    /// That directory's path below the root.
    pub parent_path: Arc<[u8]>,
}

impl Found {
    /// Its path below the root.
    pub fn path(&self) -> Vec<u8> {
        join(&self.parent_path, self.name.as_bytes())
    }

    /// The same name with what `statx` says of it now, for another try at an entry that changed while it was read.
    /// None if it is gone, or a directory by now.
    pub fn again(&self) -> Option<Found> {
        let facts =
            patiently(|| self.parent.fd()).and_then(|fd| Facts::of_name(fd, self.name.as_bytes())).ok()?;
        (facts.kind != diptych_format::Kind::Directory).then(|| Found { facts, ..self.clone() })
    }
}

/// A scan that is under way.
pub struct Scan {
    ahead: Ahead,
    first: Option<Ready>,
    open: Vec<Frame>,
    monitor: Arc<dyn Monitor>,
}

/// An open directory: what is still to be given of it.
struct Frame {
    files: VecDeque<Vec<Found>>,
    directories: VecDeque<Arc<Job>>,
    next: Option<Arc<Job>>,
    /// Its path below the root.
    path: Arc<[u8]>,
    /// Whether a name of it was left out that the archive should have.
    is_short: bool,
}

/// Begins to scan the tree at `root`. A symbolic link is followed there and nowhere else.
pub fn scan(root: &Path, options: ScanOptions, monitor: Arc<dyn Monitor>) -> Result<Scan> {
    scan_with(root, options, monitor, RUN_NAMES)
}

fn scan_with(root: &Path, options: ScanOptions, monitor: Arc<dyn Monitor>, run_names: usize) -> Result<Scan> {
    options.selection.validate()?;
    raise_descriptor_limit();
    let fd = open_root(root)?;
    let failed = |error| Error::io(format!("cannot look at {}", root.display()), words(error));
    let facts = Facts::of_open(&fd).map_err(failed)?;
    let patterns = options.selection.patterns()?;
    let (selection, root_device) = (options.selection, facts.device);
    let context = Context { selection, patterns, file_systems: Default::default(), root_device, run_names };
    let file_system = context.file_systems.get(facts.device, &fd);
    if let Some(name) = file_system.virtual_name {
        return Err(Error::unsupported(format!(
            "{} is on a virtual file system ({name}), whose files the kernel makes up when they are read; \
             name a directory on a real one, or copy what is wanted to one",
            root.display()
        )));
    }
    let handle = Arc::new(DirHandle::new(Places::new(fd).root(), facts.device, file_system));
    let mut notes = Notes::default();
    let opened = listing::read(&context, Name::root(), handle, Arc::default(), 0, None, facts, &mut notes)?;
    let ahead = Ahead::start(context, options.threads.saturating_sub(1));
    let first = ahead.begin(opened, notes)?;
    Ok(Scan { ahead, first: Some(first), open: Vec::new(), monitor })
}

fn open_root(root: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = |flags| retry(|| rustix::fs::open(root, flags, Mode::empty()));
    let opened = match open(flags | OFlags::NOATIME) {
        Err(Errno::PERM) => open(flags),
        other => other,
    };
    opened.map_err(|error| {
        let root = root.display();
        let what = match error {
            Errno::NOTDIR => format!("{root} is no directory: name the one that it is in"),
            _ => format!("cannot open {root}"),
        };
        Error::io(what, words(error))
    })
}

impl Scan {
    /// The next step; none after the root has been left.
    #[expect(clippy::should_implement_trait, reason = "a step can fail, and the scan with it")]
    pub fn next(&mut self) -> Result<Option<Step>> {
        if let Some(first) = self.first.take() {
            return Ok(Some(self.begin(first)));
        }
        let Some(frame) = self.open.last_mut() else { return Ok(None) };
        if let Some(files) = frame.files.pop_front() {
            return Ok(Some(Step::Entries(files)));
        }
        if let Some(job) = frame.directories.pop_front().or_else(|| frame.next.take()) {
            let ready = self.ahead.take(&job)?;
            return Ok(Some(self.begin(ready)));
        }
        let Some(Frame { path, is_short, .. }) = self.open.pop() else { return Ok(None) };
        let status = if is_short { Status::NOT_READ } else { Status::COMPLETE };
        Ok(Some(Step::Leave(Left { path, status })))
    }

    /// Reports what went wrong, in the order of the scan, and keeps the rest to be given.
    fn begin(&mut self, ready: Ready) -> Step {
        let Ready { head, files, directories, next, problems, is_short, .. } = ready;
        for problem in problems {
            self.monitor.problem(problem);
        }
        match head {
            Head::Opened(directory) => {
                let path = Arc::clone(&directory.path);
                self.open.push(Frame { files, directories, next, path, is_short });
                Step::Enter(directory)
            }
            Head::Vanished(name) => Step::Vanished(name),
            Head::Continued => {
                if let Some(frame) = self.open.last_mut() {
                    let (path, is_short) = (Arc::clone(&frame.path), frame.is_short | is_short);
                    *frame = Frame { files, directories, next, path, is_short };
                }
                Step::EndPiece
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names that a scan gives, a line for each end of a piece among them.
    fn names(root: &Path, run_names: usize) -> Vec<Vec<u8>> {
        let options = ScanOptions { threads: 2, ..ScanOptions::default() };
        let monitor = Arc::new(diptych_format::monitor::Silent);
        let mut scan = scan_with(root, options, monitor, run_names).unwrap();
        let mut names = Vec::new();
        while let Some(step) = scan.next().unwrap() {
            match step {
                Step::Enter(directory) => names.push(directory.path.to_vec()),
                Step::Entries(found) => names.extend(found.iter().map(Found::path)),
                Step::EndPiece => names.push(b"|".to_vec()),
                Step::Vanished(_) | Step::Leave(_) => {}
            }
        }
        names
    }

    #[test]
    fn names_that_do_not_fit_in_memory_come_in_the_same_order() {
        let temp = tempfile::tempdir().unwrap();
        for i in 0..3000u64 {
            let path = temp.path().join(format!("{}", i * 7919 % 65_521));
            if i % 100 == 0 { std::fs::create_dir(path).unwrap() } else { std::fs::write(path, "").unwrap() }
        }
        let plain = names(temp.path(), RUN_NAMES);
        assert!(plain.contains(&b"|".to_vec()) && plain.len() > 3000);
        for run_names in [1000, 64, 2999] {
            assert_eq!(names(temp.path(), run_names), plain);
        }
    }
}
