//! Listing: opening a directory, reading its names and attributes, and giving its entries piece by piece.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use diptych_format::limits::DEPTH_MAX;
use diptych_format::pieces::CutRule;
use diptych_format::{Digest, Entry, Holds, Kind, Name, Problem, Result, Status};
use ignore::gitignore::Gitignore;
use rustix::fs::{FileType, RawDir};
use rustix::io::Errno;

use crate::attributes;
use crate::facts::{Facts, words};
use crate::handle::{DirHandle, FileSystems, patiently};
use crate::names::{Collector, Names};
use crate::scan::{Directory, Found};
use crate::select::{self, Scope, Selection};

mod piece;
pub(crate) use piece::Pieces;

/// What one `getdents64` may bring.
const LISTING_BUFFER: usize = 64 << 10;
/// Longest ignore file that is read.
const IGNORE_FILE_MAX: usize = 1 << 20;

/// What all directories of a scan have in common.
pub(crate) struct Context {
    pub selection: Selection,
    pub patterns: Option<Gitignore>,
    pub file_systems: FileSystems,
    pub root_device: u64,
    /// Names of one directory that are kept in memory.
    pub run_names: usize,
}

/// An open directory, as those in it see it.
pub(crate) struct Here {
    pub handle: Arc<DirHandle>,
    pub path: Arc<[u8]>,
    pub depth: usize,
    pub scope: Option<Arc<Scope>>,
}

/// What became of a directory that was to be opened, with its names if it could be listed.
pub(crate) struct Opened {
    pub head: Head,
    pub pieces: Option<Box<Pieces>>,
}

/// What a piece begins with.
pub(crate) enum Head {
    /// The directory whose first piece it is.
    Opened(Directory),
    /// The name of a directory that is not there any more: there is no piece.
    Vanished(Name),
    /// Nothing: the directory is open.
    Continued,
}

/// A directory below the root that is to be opened.
pub(crate) struct Unopened {
    pub above: Arc<Here>,
    pub path: Arc<[u8]>,
    pub name: Name,
    pub facts: Facts,
}

/// Problems of one piece of work, in order; who consumes the work reports them.
#[derive(Default)]
pub(crate) struct Notes(pub Vec<Problem>);

impl Notes {
    /// Something that the archive will lack.
    pub fn loss(&mut self, path: &[u8], what: impl Into<String>) {
        self.0.push(Problem { path: path.to_vec(), what: what.into(), is_loss: true });
    }

    /// Something that costs nothing.
    pub fn notice(&mut self, path: &[u8], what: impl Into<String>) {
        self.0.push(Problem { path: path.to_vec(), what: what.into(), is_loss: false });
    }
}

impl Unopened {
    /// Opens the directory and reads its names. Gives itself back where there is no descriptor to be had and
    /// `may_wait` forbids to wait for one.
    pub fn open(self, context: &Context, may_wait: bool, notes: &mut Notes) -> Result<Result<Opened>, Self> {
        if let Some(why) = self.reason_to_skip(context, None) {
            return Ok(Ok(self.empty(Status::COMPLETE, why, notes)));
        }
        let open = || self.above.handle.open_directory(self.name.as_bytes());
        let fd = match if may_wait { patiently(open) } else { open() } {
            Ok(fd) => fd,
            Err(Errno::MFILE | Errno::NFILE) if !may_wait => return Err(self),
            Err(error) => return Ok(Ok(self.not_opened(error, notes))),
        };
        let facts = Facts::of_open(&fd).unwrap_or(self.facts);
        // What was opened is another device than the name was on if the opening has mounted one.
        if facts.device != self.facts.device
            && let Some(why) = self.reason_to_skip(context, Some((&fd, facts.device)))
        {
            return Ok(Ok(self.empty(Status::COMPLETE, why, notes)));
        }
        let file_system = if facts.device == self.above.handle.device() {
            Arc::clone(self.above.handle.file_system())
        } else {
            context.file_systems.get(facts.device, &fd)
        };
        let place = match self.above.handle.place_below(&self.path, fd) {
            Ok(place) => place,
            Err(error) => return Ok(Ok(self.not_opened(error, notes))),
        };
        let handle = Arc::new(DirHandle::new(place, facts.device, file_system));
        let depth = self.above.depth + 1;
        Ok(read(context, self.name, handle, self.path, depth, self.above.scope.clone(), facts, notes))
    }

    /// Why the scan does not go into the directory, if it is on another file system than the one above it.
    fn reason_to_skip(&self, context: &Context, opened: Option<(&OwnedFd, u64)>) -> Option<String> {
        let device = opened.map_or(self.facts.device, |(_, device)| device);
        if context.selection.one_file_system && device != context.root_device {
            return Some("another file system is mounted here and left out".to_owned());
        }
        if device == self.above.handle.device() {
            return None;
        }
        let name = match opened {
            Some((fd, _)) => context.file_systems.get(device, fd).virtual_name,
            // The place alone, so that nothing is mounted by asking.
            None => {
                let place = self.above.handle.open_place(self.name.as_bytes()).ok()?;
                context.file_systems.get(device, place).virtual_name
            }
        };
        name.map(|name| format!("a virtual file system ({name}) is mounted here and left out"))
    }

    /// The directory without its entries.
    fn empty(self, status: Status, notice: String, notes: &mut Notes) -> Opened {
        if !notice.is_empty() {
            notes.notice(&self.path, notice);
        }
        let file_system = Arc::clone(self.above.handle.file_system());
        let handle = Arc::new(DirHandle::closed(self.facts.device, file_system));
        let entry = entry(self.name, attributes::plain(&self.facts), &self.facts, status);
        let directory = Directory { entry, handle, path: self.path, facts: self.facts };
        Opened { head: Head::Opened(directory), pieces: None }
    }

    fn not_opened(self, error: Errno, notes: &mut Notes) -> Opened {
        match error {
            Errno::NOENT => {
                notes.notice(&self.path, "vanished while scanning");
                return Opened { head: Head::Vanished(self.name), pieces: None };
            }
            Errno::NOTDIR | Errno::LOOP => {
                notes.loss(&self.path, "replaced by something else while scanning")
            }
            error => notes.loss(&self.path, format!("cannot open the directory: {}", words(error))),
        }
        // What cannot be opened shows no more than what `statx` says.
        self.empty(Status::NOT_READ.with(Status::ATTRIBUTES_INCOMPLETE), String::new(), notes)
    }
}

/// Reads what an open directory has: attributes, names, and the rules for its names.
#[expect(clippy::too_many_arguments, reason = "the parts of a directory, each from another source")]
pub(crate) fn read(
    context: &Context,
    name: Name,
    handle: Arc<DirHandle>,
    path: Arc<[u8]>,
    depth: usize,
    scope: Option<Arc<Scope>>,
    facts: Facts,
    notes: &mut Notes,
) -> Result<Opened> {
    let fd = patiently(|| handle.fd())
        .map_err(|error| diptych_format::Error::io("a directory that is not open", words(error)))?;
    let read = attributes::of_open(fd.as_fd(), &facts, Some(handle.file_system()));
    if !read.missing.is_empty() {
        notes.loss(&path, read.missing.join("; "));
    }
    let (mut collector, seen, failure) = collect(fd.as_fd(), context);
    let mut status = Status::COMPLETE;
    if let Some(error) = failure {
        notes.loss(&path, format!("cannot list the directory to its end: {}", words(error)));
        status = Status::NOT_READ;
    }
    if seen.marker {
        collector = Collector::new(context.run_names);
    } else if seen.cache_tag && is_cache(&handle) {
        collector = Collector::new(context.run_names);
        collector.push(select::CACHE_TAG, FileType::Unknown, 0);
    }
    if depth >= DEPTH_MAX && collector.count() > 0 {
        notes.loss(&path, format!("its entries lie deeper than the limit of {DEPTH_MAX} levels"));
        collector = Collector::new(context.run_names);
        status = Status::NOT_READ;
    }
    let scope = if seen.ignore_file { open_scope(&handle, &path, scope, notes) } else { scope };
    let names = collector.finish().map_err(names_error)?;
    let entry = entry(name, read, &facts, status);
    let directory = Directory { entry, handle: Arc::clone(&handle), path: Arc::clone(&path), facts };
    let here = Arc::new(Here { handle, path, depth, scope });
    Ok(Opened { head: Head::Opened(directory), pieces: Some(Box::new(Pieces::new(here, names))) })
}

/// An error of the file that names are spilled to.
pub(crate) fn names_error(error: std::io::Error) -> diptych_format::Error {
    diptych_format::Error::io("the temporary file that sorts the names of a large directory", error)
}

/// A directory's own entry.
fn entry(name: Name, read: attributes::Read, facts: &Facts, status: Status) -> Entry {
    let is_whole = !read.is_incomplete;
    Entry {
        name,
        attributes: read.attributes,
        mtime: facts.mtime,
        holds: Holds::Entries { digest: Digest::NONE },
        holes: Vec::new(),
        change: facts.change(),
        status: if is_whole { status } else { status.with(Status::ATTRIBUTES_INCOMPLETE) },
    }
}

/// Names with a meaning for the scan that a directory has.
#[derive(Default)]
struct Seen {
    ignore_file: bool,
    cache_tag: bool,
    marker: bool,
}

impl Seen {
    fn note(&mut self, name: &[u8], selection: &Selection) {
        if selection.ignore_files && name == select::IGNORE_FILE {
            self.ignore_file = true;
        } else if selection.exclude_caches && name == select::CACHE_TAG {
            self.cache_tag = true;
        }
        if selection.exclude_if_present.iter().any(|marker| marker.as_bytes() == name) {
            self.marker = true;
        }
    }
}

/// Reads the names of an open directory, as far as that goes.
fn collect(fd: BorrowedFd<'_>, context: &Context) -> (Collector, Seen, Option<Errno>) {
    let mut collector = Collector::new(context.run_names);
    let mut seen = Seen::default();
    let mut buffer = Vec::<u8>::with_capacity(LISTING_BUFFER);
    let mut entries = RawDir::new(fd, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        match entry {
            Ok(entry) => {
                let name = entry.file_name().to_bytes();
                if name != b"." && name != b".." {
                    seen.note(name, &context.selection);
                    collector.push(name, entry.file_type(), entry.ino());
                }
            }
            Err(Errno::INTR) => {}
            // Removed while it was listed: it has no more names.
            Err(Errno::NOENT) => break,
            Err(error) => return (collector, seen, Some(error)),
        }
    }
    (collector, seen, None)
}

/// Whether a directory's tag has the signature that makes it one.
fn is_cache(handle: &DirHandle) -> bool {
    let signature = select::CACHE_SIGNATURE;
    is_regular(handle, select::CACHE_TAG)
        && read_file(handle, select::CACHE_TAG, signature.len()).is_ok_and(|bytes| bytes == signature)
}

fn is_regular(handle: &DirHandle, name: &[u8]) -> bool {
    let facts = patiently(|| handle.fd()).and_then(|fd| Facts::of_name(fd, name));
    facts.is_ok_and(|facts| facts.kind == Kind::File)
}

/// The scope that a directory's ignore file opens. Whatever else has its name means nothing.
fn open_scope(
    handle: &DirHandle,
    path: &[u8],
    above: Option<Arc<Scope>>,
    notes: &mut Notes,
) -> Option<Arc<Scope>> {
    if !is_regular(handle, select::IGNORE_FILE) {
        return above;
    }
    let file = crate::facts::join(path, select::IGNORE_FILE);
    match read_file(handle, select::IGNORE_FILE, IGNORE_FILE_MAX + 1) {
        Ok(text) if text.len() > IGNORE_FILE_MAX => {
            notes.notice(&file, format!("longer than {IGNORE_FILE_MAX} bytes, so it excludes nothing"));
            above
        }
        Ok(text) => {
            let (scope, wrong) = Scope::open(path, &text, above);
            for wrong in wrong {
                notes.notice(&file, wrong);
            }
            scope
        }
        Err(error) => {
            notes.notice(&file, format!("cannot be read, so it excludes nothing: {}", words(error)));
            above
        }
    }
}

/// The first bytes of a small file.
fn read_file(handle: &DirHandle, name: &[u8], most: usize) -> Result<Vec<u8>, Errno> {
    let fd = patiently(|| handle.open_file(name))?;
    let mut bytes = Vec::new();
    while bytes.len() < most {
        let mut window = [0; 4096];
        let room = (most - bytes.len()).min(window.len());
        let (window, _) = window.split_at_mut(room);
        let got = crate::facts::retry(|| rustix::io::read(fd.as_fd(), &mut *window))?;
        if got == 0 {
            break;
        }
        bytes.extend_from_slice(window.get(..got).unwrap_or_default());
    }
    Ok(bytes)
}
