//! Open directories, and what is learnt of the file systems that they are on.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{Mode, OFlags, fstatfs, openat};
use rustix::io::Errno;

use crate::facts::retry;
use crate::place::Place;

/// Magic numbers of file systems whose files the kernel makes up when they are read.
const VIRTUAL: [(u64, &str); 27] = [
    (0x9fa0, "proc"),
    (0x6265_6572, "sysfs"),
    (0x1cd1, "devpts"),
    (0x0027_e0eb, "cgroup"),
    (0x6367_7270, "cgroup2"),
    (0x6462_6720, "debugfs"),
    (0x7472_6163, "tracefs"),
    (0x7363_6673, "securityfs"),
    (0xf97c_ff8c, "selinuxfs"),
    (0x4341_5d53, "smackfs"),
    (0x5a3c_69f0, "apparmorfs"),
    (0xcafe_4a11, "bpf"),
    (0x6165_676c, "pstore"),
    (0x6265_6570, "configfs"),
    (0xde5e_81e4, "efivarfs"),
    (0x4249_4e4d, "binfmt_misc"),
    (0x1980_0202, "mqueue"),
    (0x6e73_6673, "nsfs"),
    (0x6573_5543, "fusectl"),
    (0x6759_6969, "rpc_pipefs"),
    (0x6e66_7364, "nfsd"),
    (0x9584_58f6, "hugetlbfs"),
    (0x0765_5821, "resctrl"),
    (0x6c6f_6f70, "binder"),
    (0xabba_1974, "xenfs"),
    (0x9fa2, "usbdevfs"),
    (0x0187, "autofs"),
];
const OVERLAYFS: u64 = 0x794c_7630;

/// What was learnt of one file system: what it does not have is not asked for again.
#[derive(Debug, Default)]
pub(crate) struct FileSystem {
    /// The name of the virtual file system that it is.
    pub virtual_name: Option<&'static str>,
    /// An overlay answers for the layers below it, which need not be alike: nothing is remembered of it.
    is_mixed: bool,
    lacks_xattrs: AtomicBool,
    lacks_flags: AtomicBool,
    lacks_projects: AtomicBool,
    /// Whether it was reported that attributes could not be read here for want of `/proc`.
    pub told_of_proc: AtomicBool,
}

/// Something that a file system may not have.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Feature {
    Xattrs,
    Flags,
    Projects,
}

impl FileSystem {
    /// Asks what kind of file system an open file is on.
    pub fn of(fd: impl AsFd) -> Self {
        // A file system that does not say what it is takes part like any other.
        // The magic number is an integer of 32 bits that some machines keep in a signed word.
        let magic = retry(|| fstatfs(&fd)).map_or(0, |s| (s.f_type as u64) & 0xffff_ffff);
        Self {
            virtual_name: VIRTUAL.iter().find(|(m, _)| *m == magic).map(|(_, name)| *name),
            is_mixed: magic == OVERLAYFS,
            ..Self::default()
        }
    }

    /// Whether it is known not to have `feature`.
    pub fn lacks(&self, feature: Feature) -> bool {
        self.mark(feature).load(Ordering::Relaxed)
    }

    /// Remembers that it does not have `feature`.
    pub fn remember_lack(&self, feature: Feature) {
        if !self.is_mixed {
            self.mark(feature).store(true, Ordering::Relaxed);
        }
    }

    fn mark(&self, feature: Feature) -> &AtomicBool {
        match feature {
            Feature::Xattrs => &self.lacks_xattrs,
            Feature::Flags => &self.lacks_flags,
            Feature::Projects => &self.lacks_projects,
        }
    }
}

/// The file systems that a scan has met, by device.
#[derive(Debug, Default)]
pub(crate) struct FileSystems(Mutex<HashMap<u64, Arc<FileSystem>>>);

impl FileSystems {
    /// What is known of the file system on `device`, on which `fd` is open.
    pub fn get(&self, device: u64, fd: impl AsFd) -> Arc<FileSystem> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(known.entry(device).or_insert_with(|| Arc::new(FileSystem::of(fd))))
    }
}

/// A directory that the scan opened, kept while entries found in it may have to be read.
#[derive(Debug)]
pub struct DirHandle {
    place: Option<Arc<Place>>,
    device: u64,
    file_system: Arc<FileSystem>,
}

impl DirHandle {
    pub(crate) fn new(place: Arc<Place>, device: u64, file_system: Arc<FileSystem>) -> Self {
        Self { place: Some(place), device, file_system }
    }

    /// The handle of a directory that could not be opened or was not to be.
    pub(crate) fn closed(device: u64, file_system: Arc<FileSystem>) -> Self {
        Self { place: None, device, file_system }
    }

    fn place(&self) -> Result<&Arc<Place>, Errno> {
        self.place.as_ref().ok_or(Errno::BADF)
    }

    /// Its descriptor, unless the directory was not opened.
    pub(crate) fn fd(&self) -> Result<Arc<OwnedFd>, Errno> {
        self.place()?.fd()
    }

    /// The place of a directory in it that has been opened.
    pub(crate) fn place_below(&self, path: &Arc<[u8]>, fd: OwnedFd) -> Result<Arc<Place>, Errno> {
        Ok(self.place()?.tree().add(Arc::clone(path), fd))
    }

    pub(crate) fn device(&self) -> u64 {
        self.device
    }

    pub(crate) fn file_system(&self) -> &Arc<FileSystem> {
        &self.file_system
    }

    /// Opens a directory in it for listing.
    pub(crate) fn open_directory(&self, name: &[u8]) -> Result<OwnedFd, Errno> {
        open_quietly(&*self.fd()?, name, OFlags::DIRECTORY)
    }

    /// Opens a regular file in it for reading. A pipe or a device that has taken its place does not block.
    pub(crate) fn open_file(&self, name: &[u8]) -> Result<OwnedFd, Errno> {
        open_quietly(&*self.fd()?, name, OFlags::NONBLOCK | OFlags::NOCTTY)
    }

    /// Opens a name as a place only: nothing is read, mounted or followed.
    pub(crate) fn open_place(&self, name: &[u8]) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = self.fd()?;
        retry(|| openat(&directory, name, flags, Mode::empty()))
    }
}

/// How often and for how long an opening waits for descriptors that others hold for a while.
const WAITS: usize = 300;
const WAIT: Duration = Duration::from_millis(10);

/// Opens something, waiting for a descriptor if none is left.
pub(crate) fn patiently<T>(mut open: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    for _ in 0..WAITS {
        match open() {
            Err(Errno::MFILE | Errno::NFILE) => std::thread::sleep(WAIT),
            other => return other,
        }
    }
    open()
}

/// Opens for reading without leaving a trace in the access time, which only the owner and root may ask for.
fn open_quietly(directory: &OwnedFd, name: &[u8], more: OFlags) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | more;
    match retry(|| openat(directory, name, flags | OFlags::NOATIME, Mode::empty())) {
        Err(Errno::PERM) => retry(|| openat(directory, name, flags, Mode::empty())),
        other => other,
    }
}
