//! The kernel's questions, handed to a [`Files`].
//!
//! Nothing is decided here but how an answer is put: what may be kept is kept for ever, files and directories are not
//! opened (`ENOSYS` tells the kernel to do without), and what cannot be read is EIO and a line in the log.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use diptych_format::{Class, Error, Kind, Result, Time};
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, Generation, INodeNo,
    InitFlags, IoctlFlags, KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyStatfs,
    ReplyXattr, Request, SessionACL,
};

use crate::files::{Attributes, Files, Ino, Seek};

/// For as long as the kernel keeps what never changes.
const LASTING: Duration = Duration::from_secs(365 * 24 * 3600);
/// For as long as it keeps what may change.
const PASSING: Duration = Duration::from_secs(1);
/// What programs are told to read at a time.
const BLOCK: u32 = 128 << 10;
/// Bytes of a block in `statfs`, and of those that `stat` counts.
const SECTOR: u64 = 512;
/// Requests of readers that the kernel has under way at most.
const BACKGROUND: u16 = 64;
/// How far the kernel reads ahead in a long file at most, and at least, in KiB; and what all threads together have for
/// answers of that length.
const READ_AHEAD_KIB: usize = 1024;
const READ_AHEAD_KIB_MIN: usize = 128;
const ANSWERS_KIB: usize = 8 << 10;
/// Inodes and what is wrong with them that are told once and not again; what is beyond that is not told.
const TOLD_MAX: usize = 10_000;
/// Buffers for answers that are kept for the next ones.
const BUFFERS_KEPT: usize = 8;

/// How a file system is mounted.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// What the list of mounts shows as its source.
    pub source: String,
    /// Whether others than who mounts it may look at it.
    pub allow_other: bool,
    /// User and group that all of it belongs to; none if each keeps its own.
    pub owner: Option<(u32, u32)>,
    /// Threads that answer.
    pub threads: usize,
}

/// Takes the path of what could not be read, below the root, and what is wrong with it.
pub type Log = Arc<dyn Fn(&[u8], &Error) + Send + Sync>;

/// A file system that is mounted. Dropped, it is unmounted.
pub struct Mounted {
    session: BackgroundSession,
    is_over: Arc<AtomicBool>,
}

impl Mounted {
    /// Unmounts it, unless somebody has done so, and waits until nobody is answered any more.
    pub fn unmount(self) -> io::Result<()> {
        self.is_over.store(true, Ordering::Relaxed);
        if self.session.guard.is_finished() {
            return self.session.join();
        }
        match self.session.umount_and_join() {
            // Somebody was faster just now.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
            ended => ended,
        }
    }

    /// Whether it has been unmounted by somebody else.
    pub fn is_over(&self) -> bool {
        self.session.guard.is_finished()
    }
}

/// Mounts `files` at `place`. What cannot be read is told to `log`.
pub fn mount(files: Arc<dyn Files>, place: &Path, options: &MountOptions, log: Log) -> io::Result<Mounted> {
    let adapter =
        Adapter { files, owner: options.owner, log, told: Mutex::default(), buffers: Buffers::default() };
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::RO,
        MountOption::NoDev,
        MountOption::NoSuid,
        MountOption::NoAtime,
        // The kernel checks modes and ACLs, as it knows both.
        MountOption::DefaultPermissions,
        // Options are told with commas between them.
        MountOption::FSName(options.source.replace([',', '\\'], "_")),
        MountOption::Subtype("diptych".to_owned()),
    ];
    config.acl = if options.allow_other { SessionACL::All } else { SessionACL::Owner };
    config.n_threads = Some(options.threads.max(1));
    config.clone_fd = true;
    let files = Arc::clone(&adapter.files);
    let session = fuser::spawn_mount(adapter, place, &config)?;
    read_further_ahead(place, options.threads.max(1));
    let is_over = Arc::new(AtomicBool::new(false));
    for number in 0..options.threads.max(1) {
        let (files, notifier, is_over) = (Arc::clone(&files), session.notifier(), Arc::clone(&is_over));
        let work = move || {
            // What the kernel does not know by now, or has no room for, it asks for when it is wanted.
            let give = |ino: Ino, bytes: &[u8]| drop(notifier.store(INodeNo(ino.0), 0, bytes));
            files.foresee(&give, &|| !is_over.load(Ordering::Relaxed));
        };
        // Without the thread nothing is foreseen.
        drop(std::thread::Builder::new().name(format!("foresee-{number}")).spawn(work));
    }
    let (notifier, is_ended) = (session.notifier(), Arc::clone(&is_over));
    let watch = move || {
        // What the kernel has of their names, it asks for anew.
        let changed = |ino: Ino| drop(notifier.inval_inode(INodeNo(ino.0), 0, 0));
        files.watch(&changed, &|| !is_ended.load(Ordering::Relaxed));
    };
    // Without the thread nothing new appears.
    drop(std::thread::Builder::new().name("watch".to_owned()).spawn(watch));
    Ok(Mounted { session, is_over })
}

/// Asks the kernel to read more at a time than it does by itself, which root alone may.
fn read_further_ahead(place: &Path, threads: usize) {
    let Ok(metadata) = place.metadata() else { return };
    let device = metadata.dev();
    let (major, minor) = (device >> 8 & 0xfff, device & 0xff | device >> 12 & 0xfff00);
    // Without it, long files take some more questions.
    let length = (ANSWERS_KIB / threads).clamp(READ_AHEAD_KIB_MIN, READ_AHEAD_KIB);
    let _ = std::fs::write(format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb"), length.to_string());
}

struct Adapter {
    files: Arc<dyn Files>,
    owner: Option<(u32, u32)>,
    log: Log,
    /// What was told to be unreadable.
    told: Mutex<HashSet<(u64, Class)>>,
    buffers: Buffers,
}

/// Buffers for answers. A few are kept, however many threads there are.
#[derive(Default)]
struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    fn take(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    fn give_back(&self, buffer: Vec<u8>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < BUFFERS_KEPT {
            kept.push(buffer);
        }
    }
}

impl Adapter {
    fn show(&self, attributes: &Attributes) -> FileAttr {
        let (uid, gid) = self.owner.unwrap_or((attributes.uid, attributes.gid));
        let (major, minor) = attributes.device;
        let mtime = moment(attributes.mtime);
        FileAttr {
            ino: INodeNo(attributes.ino.0),
            size: attributes.size,
            blocks: attributes.allocated.div_ceil(SECTOR),
            atime: mtime,
            mtime,
            ctime: moment(attributes.ctime),
            crtime: mtime,
            kind: kind(attributes.kind),
            perm: attributes.permissions as u16,
            nlink: attributes.links,
            uid,
            gid,
            // As the kernel writes a device's number down.
            rdev: minor & 0xff | major << 8 | (minor & !0xff) << 12,
            blksize: BLOCK,
            flags: 0,
        }
    }

    /// Tells what is wrong with an inode, once.
    fn refuse(&self, ino: u64, error: &Error) -> Errno {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = told.len() < TOLD_MAX && told.insert((ino, error.class));
        drop(told);
        if is_new {
            let path = self.files.path(Ino(ino));
            (self.log)(&path, error);
        }
        Errno::EIO
    }

    /// The end of an answer.
    fn answer<T>(&self, ino: INodeNo, result: Result<T>) -> Result<T, Errno> {
        result.map_err(|error| self.refuse(ino.0, &error))
    }
}

fn ttl(attributes: &Attributes) -> Duration {
    if attributes.is_lasting { LASTING } else { PASSING }
}

fn moment(time: Time) -> SystemTime {
    let seconds = Duration::from_secs(time.seconds.unsigned_abs());
    let whole =
        if time.seconds < 0 { UNIX_EPOCH.checked_sub(seconds) } else { UNIX_EPOCH.checked_add(seconds) };
    let moment = whole.and_then(|whole| whole.checked_add(Duration::from_nanos(time.nanoseconds.into())));
    moment.unwrap_or(UNIX_EPOCH)
}

fn kind(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Directory => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
        Kind::BlockDevice => FileType::BlockDevice,
        Kind::CharDevice => FileType::CharDevice,
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Each by itself: what an older kernel does not know, it does without.
        for wanted in [
            InitFlags::FUSE_ASYNC_READ,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_NO_OPEN_SUPPORT,
            InitFlags::FUSE_NO_OPENDIR_SUPPORT,
            InitFlags::FUSE_POSIX_ACL,
            InitFlags::FUSE_MAX_PAGES,
        ] {
            let _ = config.add_capabilities(wanted);
        }
        let _ = config.set_max_background(BACKGROUND);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.answer(parent, self.files.lookup(Ino(parent.0), name.as_bytes())) {
            Ok(Some(found)) => reply.entry(&ttl(&found), &self.show(&found), Generation(0)),
            Ok(None) => match self.files.attributes(Ino(parent.0)) {
                // An inode 0 says that there is nothing, and that this may be kept.
                Ok(parent) => {
                    let mut nothing = self.show(&parent);
                    nothing.ino = INodeNo(0);
                    reply.entry(&ttl(&parent), &nothing, Generation(0));
                }
                Err(_) => reply.error(Errno::ENOENT),
            },
            Err(errno) => reply.error(errno),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.answer(ino, self.files.attributes(Ino(ino.0))) {
            Ok(found) => reply.attr(&ttl(&found), &self.show(&found)),
            Err(errno) => reply.error(errno),
        }
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        match self.answer(ino, self.files.target(Ino(ino.0))) {
            Ok(target) => reply.data(&target),
            Err(errno) => reply.error(errno),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.error(Errno::ENOSYS);
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.error(Errno::ENOSYS);
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let size = size as usize;
        let mut buffer = self.buffers.take();
        if buffer.len() < size {
            buffer.resize(size, 0);
        }
        let place = buffer.get_mut(..size).unwrap_or_default();
        match self.answer(ino, self.files.read(Ino(ino.0), offset, place)) {
            Ok(read) => reply.data(buffer.get(..read).unwrap_or_default()),
            Err(errno) => reply.error(errno),
        }
        self.buffers.give_back(buffer);
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let mut count = 0;
        let listed = self.files.list(Ino(ino.0), offset, &mut |listed| {
            count += 1;
            let number = INodeNo(listed.attributes.ino.0);
            let name = OsStr::from_bytes(listed.name);
            match reply.add(number, listed.next, kind(listed.attributes.kind), name) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
        match self.answer(ino, listed) {
            // What was found before an error is given; who asks for more is told.
            Err(errno) if count == 0 => reply.error(errno),
            _ => reply.ok(),
        }
    }

    fn readdirplus(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let mut count = 0;
        let listed = self.files.list(Ino(ino.0), offset, &mut |listed| {
            count += 1;
            let attributes = self.show(&listed.attributes);
            let (name, ttl) = (OsStr::from_bytes(listed.name), ttl(&listed.attributes));
            match reply.add(attributes.ino, listed.next, name, &ttl, &attributes, Generation(0)) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
        match self.answer(ino, listed) {
            // What was found before an error is given; who asks for more is told.
            Err(errno) if count == 0 => reply.error(errno),
            _ => reply.ok(),
        }
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let totals = self.files.totals();
        let blocks = totals.bytes.div_ceil(SECTOR);
        let names = u32::try_from(diptych_format::limits::NAME_LENGTH_MAX).unwrap_or(u32::MAX);
        reply.statfs(blocks, 0, 0, totals.entries, 0, SECTOR as u32, names, SECTOR as u32);
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        match self.answer(ino, self.files.xattr(Ino(ino.0), name.as_bytes())) {
            Ok(Some(value)) => give(&value, size, reply),
            Ok(None) => reply.error(Errno::ENODATA),
            Err(errno) => reply.error(errno),
        }
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        match self.answer(ino, self.files.xattr_names(Ino(ino.0))) {
            Ok(names) => {
                let names: Vec<u8> =
                    names.iter().flat_map(|name| name.iter().copied().chain(std::iter::once(0))).collect();
                give(&names, size, reply);
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn ioctl(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        command: u32,
        _: &[u8],
        room: u32,
        reply: ReplyIoctl,
    ) {
        let room = room as usize;
        let answer = match command {
            FS_IOC_GETFLAGS | FS_IOC_FSGETXATTR => self.answer(ino, self.files.flags(Ino(ino.0))),
            _ => Err(Errno::ENOTTY),
        };
        match answer {
            Ok((flags, project)) => {
                let words = match command {
                    FS_IOC_GETFLAGS => [flags, 0, 0, 0, 0, 0, 0],
                    // `struct fsxattr`: its own flags, which follow from the others, and the project in the fourth place.
                    _ => [extended(flags), 0, 0, project, 0, 0, 0],
                };
                let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
                reply.ioctl(0, bytes.get(..room.min(bytes.len())).unwrap_or_default());
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn lseek(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let what = match whence {
            SEEK_DATA => Seek::Data,
            SEEK_HOLE => Seek::Hole,
            _ => return reply.error(Errno::EINVAL),
        };
        let Ok(offset) = u64::try_from(offset) else { return reply.error(Errno::ENXIO) };
        match self.answer(ino, self.files.seek(Ino(ino.0), offset, what)) {
            Ok(Some(found)) => reply.offset(i64::try_from(found).unwrap_or(i64::MAX)),
            Ok(None) => reply.error(Errno::ENXIO),
            Err(errno) => reply.error(errno),
        }
    }
}

/// As `ioctl` has them, on all architectures that agree on how requests are numbered.
const FS_IOC_GETFLAGS: u32 = 0x8008_6601;
const FS_IOC_FSGETXATTR: u32 = 0x801c_581f;

/// The flags of `struct fsxattr` that say the same as `chattr`'s.
fn extended(flags: u32) -> u32 {
    // sync, immutable, append, no dump, no access time, inherited project
    let pairs = [(0x8, 0x20), (0x10, 0x8), (0x20, 0x10), (0x40, 0x80), (0x80, 0x40), (0x2000_0000, 0x200)];
    pairs.iter().filter(|(flag, _)| flags & flag != 0).fold(0, |sum, (_, extended)| sum | extended)
}

/// As `lseek` has them; they are the same on every architecture.
const SEEK_DATA: i32 = 3;
const SEEK_HOLE: i32 = 4;

/// An extended attribute, or its length for who asks with no room for it.
fn give(value: &[u8], room: u32, reply: ReplyXattr) {
    let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
    match room {
        0 => reply.size(length),
        _ if room < length => reply.error(Errno::ERANGE),
        _ => reply.data(value),
    }
}
