//! Places: directories that are known as long as something is to be done in them, and open while there is room.
//!
//! A deep tree holds a directory for each of its levels, and thousands may wait for a link to be made in them, but a
//! process may have few descriptors. So those that were opened first are closed when there are many. A closed one is
//! opened again from the root, following no link on the way, and is used only if it is the very directory that it was.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use diptych_format::Name;
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, StatxFlags, makedev, openat, openat2, statx};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::facts::retry;

/// Which part of the descriptors one tree may keep for its directories: two trees may be read at once, and contents
/// and archives need theirs.
const SHARE: u64 = 8;
/// How many are left open when some are closed, whatever the limit is.
const LEFT_OPEN_MIN: u64 = 8;
const LEFT_OPEN_MAX: u64 = 2048;
/// Bytes of a path that the kernel takes at once, without the zero that ends it (`PATH_MAX`).
const STEP_MAX: usize = 4095;

/// Which object something is, whatever its names are. An inode number is given to another file once its own is gone,
/// so the time of birth belongs to it where the file system knows that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub device: u64,
    pub inode: u64,
    born: Option<(i64, u32)>,
}

impl Identity {
    /// Which object an open file is.
    pub fn of_open(fd: impl AsFd) -> Result<Self, Errno> {
        Self::of(fd, b"", AtFlags::EMPTY_PATH)
    }

    /// Which object a name in a directory stands for, not following it.
    pub fn of_name(directory: impl AsFd, name: &Name) -> Result<Self, Errno> {
        Self::of(directory, name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW)
    }

    fn of(fd: impl AsFd, name: &[u8], flags: AtFlags) -> Result<Self, Errno> {
        let stat = retry(|| statx(&fd, name, flags, StatxFlags::INO | StatxFlags::BTIME))?;
        let knows_birth = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
        Ok(Self {
            device: makedev(stat.stx_dev_major, stat.stx_dev_minor),
            inode: stat.stx_ino,
            born: knows_birth.then_some((stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec)),
        })
    }
}

/// The directories of one tree.
#[derive(Debug)]
pub(crate) struct Places {
    /// Never closed: everything else is found again from here.
    root: Arc<OwnedFd>,
    /// How many are left open when some are closed, which is when there are twice as many.
    left_open: usize,
    /// Those that are open and those that are gone, the first to be closed in front.
    open: Mutex<VecDeque<Weak<Place>>>,
}

/// A directory of a tree.
#[derive(Debug)]
pub(crate) struct Place {
    tree: Arc<Places>,
    path: Arc<[u8]>,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Open(Arc<OwnedFd>),
    Closed(Identity),
}

impl Places {
    /// The directories below `root`.
    pub fn new(root: OwnedFd) -> Arc<Self> {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        // Twice as many are open at times.
        let left_open = (limit / SHARE / 2).clamp(LEFT_OPEN_MIN, LEFT_OPEN_MAX);
        Self::with_room(root, usize::try_from(left_open).unwrap_or(usize::MAX))
    }

    fn with_room(root: OwnedFd, left_open: usize) -> Arc<Self> {
        Arc::new(Self { root: Arc::new(root), left_open, open: Mutex::default() })
    }

    /// The root itself.
    pub fn root(self: &Arc<Self>) -> Arc<Place> {
        let state = Mutex::new(State::Open(Arc::clone(&self.root)));
        Arc::new(Place { tree: Arc::clone(self), path: Arc::default(), state })
    }

    /// The directory at `path`, which has been opened.
    pub fn add(self: &Arc<Self>, path: Arc<[u8]>, fd: OwnedFd) -> Arc<Place> {
        let state = Mutex::new(State::Open(Arc::new(fd)));
        let place = Arc::new(Place { tree: Arc::clone(self), path, state });
        self.note(&place);
        place
    }

    /// Notes that a directory has been opened, and closes others if too many are open.
    fn note(&self, place: &Arc<Place>) {
        let mut open = lock(&self.open);
        open.push_back(Arc::downgrade(place));
        if open.len() < self.left_open.saturating_mul(2) {
            return;
        }
        open.retain(|place| place.strong_count() > 0);
        let excess = open.len().saturating_sub(self.left_open);
        let closed: Vec<_> = open.drain(..excess).collect();
        // Whoever opens a directory holds it and waits for the queue: it must not wait for him.
        drop(open);
        closed.iter().filter_map(Weak::upgrade).for_each(|place| place.close());
    }
}

impl Place {
    /// The tree that it is in.
    pub fn tree(&self) -> &Arc<Places> {
        &self.tree
    }

    /// Its path below the root.
    pub fn path(&self) -> &Arc<[u8]> {
        &self.path
    }

    /// Its descriptor: opened again if it was closed, and open as long as it is held.
    pub fn fd(self: &Arc<Self>) -> Result<Arc<OwnedFd>, Errno> {
        let mut state = lock(&self.state);
        let identity = match &*state {
            State::Open(fd) => return Ok(Arc::clone(fd)),
            State::Closed(identity) => *identity,
        };
        let fd = Arc::new(reopen(&self.tree.root, &self.path, identity)?);
        *state = State::Open(Arc::clone(&fd));
        drop(state);
        self.tree.note(self);
        Ok(fd)
    }

    /// Closes it, if it can be told apart from others later.
    fn close(&self) {
        let mut state = lock(&self.state);
        if let State::Open(fd) = &*state
            && let Ok(identity) = Identity::of_open(fd)
        {
            *state = State::Closed(identity);
        }
    }
}

/// Opens a directory that was open before, without a trace in its access time where that may be had.
fn reopen(root: &OwnedFd, path: &[u8], identity: Identity) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = match open_beneath(root, path, flags | OFlags::NOATIME) {
        Err(Errno::PERM) => open_beneath(root, path, flags),
        other => other,
    }?;
    if Identity::of_open(&fd)? == identity { Ok(fd) } else { Err(Errno::STALE) }
}

/// Opens a path below a directory, following no link: as many names at once as the kernel takes.
pub(crate) fn open_beneath(root: &OwnedFd, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let through = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let (mut at, mut rest) = (None, path);
    while let Some(window) = rest.get(..STEP_MAX) {
        // No name is as long as that, so one ends in the window.
        let end = window.iter().rposition(|byte| *byte == b'/').ok_or(Errno::NAMETOOLONG)?;
        let (step, after) = rest.split_at(end);
        at = Some(open_step(at.as_ref().unwrap_or(root), step, through)?);
        rest = after.get(1..).unwrap_or_default();
    }
    open_step(at.as_ref().unwrap_or(root), rest, flags)
}

/// Opens a path of several names below a directory: at once where the kernel can be told not to follow links on
/// the way, else name by name.
fn open_step(root: &OwnedFd, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match retry(|| openat2(root, path, flags, Mode::empty(), resolve)) {
        // A kernel without it, a filter that forbids it, a rename elsewhere.
        Err(Errno::NOSYS | Errno::PERM | Errno::AGAIN) => {}
        other => return other,
    }
    let mut names: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
    let Some(last) = names.pop() else { return Err(Errno::NOENT) };
    let mut at: Option<OwnedFd> = None;
    for name in names {
        let through = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let next = retry(|| openat(at.as_ref().unwrap_or(root), name, through, Mode::empty()))?;
        at = Some(next);
    }
    retry(|| openat(at.as_ref().unwrap_or(root), last, flags | OFlags::NOFOLLOW, Mode::empty()))
}

/// Lets this process have as many descriptors as it may: what is read and written at once has one for each part.
pub fn raise_descriptor_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        // Where that is refused, there are as many as there are.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Places with room for two, of which the first that was opened, `d0`, is closed by now.
    fn places(root: &std::path::Path) -> Vec<Arc<Place>> {
        let tree = Places::with_room(fs::File::open(root).unwrap().into(), 2);
        let add = |name: String| {
            fs::create_dir(root.join(&name)).unwrap();
            let fd = fs::File::open(root.join(&name)).unwrap().into();
            tree.add(name.into_bytes().into(), fd)
        };
        (0..4).map(|number| add(format!("d{number}"))).collect()
    }

    fn is_open(place: &Place) -> bool {
        matches!(*lock(&place.state), State::Open(_))
    }

    #[test]
    fn what_was_opened_first_is_closed_and_opened_again() {
        let temp = tempfile::tempdir().unwrap();
        let places = places(temp.path());
        let open = |places: &[Arc<Place>]| places.iter().map(|place| is_open(place)).collect::<Vec<_>>();
        assert_eq!(open(&places), [false, false, true, true]);
        let held = places[0].fd().unwrap();
        assert_eq!(open(&places), [true, false, true, true]);
        assert_eq!(
            Identity::of_open(&held),
            Identity::of_open(fs::File::open(temp.path().join("d0")).unwrap())
        );
        // Those that are gone make room without any being closed.
        let tree = Arc::clone(places[0].tree());
        let [_, _, _, last] = <[Arc<Place>; 4]>::try_from(places).unwrap();
        let next = tree.add((*b"d1").into(), fs::File::open(temp.path().join("d1")).unwrap().into());
        assert!(is_open(&last) && is_open(&next));
    }

    #[test]
    fn only_the_same_directory_is_opened_again() {
        let temp = tempfile::tempdir().unwrap();
        let places = places(temp.path());
        fs::rename(temp.path().join("d0"), temp.path().join("moved")).unwrap();
        assert_eq!(places[0].fd().err(), Some(Errno::NOENT));
        fs::create_dir(temp.path().join("d0")).unwrap();
        assert_eq!(places[0].fd().err(), Some(Errno::STALE));
        fs::remove_dir(temp.path().join("d0")).unwrap();
        std::os::unix::fs::symlink("moved", temp.path().join("d0")).unwrap();
        assert!(matches!(places[0].fd().err(), Some(Errno::LOOP | Errno::NOTDIR)));
        fs::remove_file(temp.path().join("d0")).unwrap();
        fs::rename(temp.path().join("moved"), temp.path().join("d0")).unwrap();
        assert!(places[0].fd().is_ok());
    }
}
