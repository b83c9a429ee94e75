//! What a read-only file system has to answer.

use std::ops::ControlFlow;

use diptych_decoder::Row;
use diptych_format::entry::Holds;
use diptych_format::{Entry, Kind, Result, Time};

/// The number of an inode. The root's is [`Ino::ROOT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ino(pub u64);

impl Ino {
    /// The directory that is mounted.
    pub const ROOT: Self = Self(1);
    /// The largest number that an inode has in its own tree: more bytes than any stream of tables has.
    pub(crate) const LOCAL_MAX: u64 = (1 << Self::LOCAL_BITS) - 1;
    const LOCAL_BITS: u32 = 42;

    /// Inode `local` of a tree among others.
    pub(crate) fn of(tree: u32, local: u64) -> Self {
        Self(u64::from(tree) << Self::LOCAL_BITS | local & Self::LOCAL_MAX)
    }

    /// Which tree it is of.
    pub(crate) fn tree(self) -> u32 {
        u32::try_from(self.0 >> Self::LOCAL_BITS).unwrap_or(u32::MAX)
    }

    /// Its number there.
    pub(crate) fn local(self) -> u64 {
        self.0 & Self::LOCAL_MAX
    }
}

/// What `stat` shows of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Its number: the same for all names of an inode, and the same each time the archive is mounted.
    pub ino: Ino,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, those for set-id and sticky among them.
    pub permissions: u32,
    /// How many names it has in the archive; 1 for a directory, whose subdirectories nobody has counted.
    pub links: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of a content, holes counted; or of a link's target.
    pub size: u64,
    /// Bytes that are not holes.
    pub allocated: u64,
    /// When the content last changed.
    pub mtime: Time,
    /// When the inode last changed, as the scan saw it.
    pub ctime: Time,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Whether this never changes, so that it may be kept.
    pub is_lasting: bool,
}

impl Attributes {
    /// Of an entry in its table, that is `ino` and has so many names.
    pub(crate) fn of_row(row: &Row<'_>, ino: Ino, links: u64) -> Self {
        let (kind, change) = (row.kind(), row.change());
        let size = match kind {
            Kind::Symlink => row.target().len() as u64,
            _ => row.size(),
        };
        Self {
            ino,
            kind,
            permissions: row.mode() & 0o7777,
            links: u32::try_from(links).unwrap_or(u32::MAX),
            uid: row.uid(),
            gid: row.gid(),
            size,
            allocated: if kind == Kind::File { row.payload_length() } else { 0 },
            mtime: row.mtime(),
            ctime: changed(change.ctime, row.mtime()),
            device: row.device(),
            is_lasting: true,
        }
    }

    /// Of the root, which has no table to stand in.
    pub(crate) fn of_directory(entry: &Entry, ino: Ino) -> Self {
        let attributes = &entry.attributes;
        debug_assert!(matches!(entry.holds, Holds::Entries { .. }));
        Self {
            ino,
            kind: Kind::Directory,
            permissions: attributes.mode & 0o7777,
            links: 1,
            uid: attributes.uid,
            gid: attributes.gid,
            size: 0,
            allocated: 0,
            mtime: entry.mtime,
            ctime: changed(entry.change.ctime, entry.mtime),
            device: (0, 0),
            is_lasting: true,
        }
    }
}

/// The time of the inode's last change, where the scan has seen one.
fn changed(ctime: Time, mtime: Time) -> Time {
    if ctime == Time::default() { mtime } else { ctime }
}

/// A name of a directory.
#[derive(Debug)]
pub struct Listed<'n> {
    /// The name.
    pub name: &'n [u8],
    /// What is there.
    pub attributes: Attributes,
    /// Where a list goes on behind it.
    pub next: u64,
}

/// What a `lseek` looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// The next byte that is no hole.
    Data,
    /// The next hole; the end of a content counts as one.
    Hole,
}

/// What `statfs` shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Inodes, hard links counted for each name.
    pub entries: u64,
    /// Bytes of contents, holes not counted.
    pub bytes: u64,
}

/// A read-only file system. Several threads ask at once.
///
/// An inode is only asked for after it was given. An error is of what could not be read: it was told to whoever keeps a
/// log, and the kernel says EIO.
pub trait Files: Send + Sync {
    /// What is called `name` in a directory.
    fn lookup(&self, directory: Ino, name: &[u8]) -> Result<Option<Attributes>>;

    /// What an inode is.
    fn attributes(&self, ino: Ino) -> Result<Attributes>;

    /// Gives the names of a directory in order: from the first if `from` is 0, else behind the one whose `next` it was.
    fn list(
        &self,
        directory: Ino,
        from: u64,
        each: &mut dyn FnMut(Listed<'_>) -> ControlFlow<()>,
    ) -> Result<()>;

    /// The target of a symbolic link.
    fn target(&self, ino: Ino) -> Result<Vec<u8>>;

    /// The names of the extended attributes of an inode.
    fn xattr_names(&self, ino: Ino) -> Result<Vec<Vec<u8>>>;

    /// An extended attribute.
    fn xattr(&self, ino: Ino, name: &[u8]) -> Result<Option<Vec<u8>>>;

    /// The `chattr` flags of an inode and its quota project.
    fn flags(&self, ino: Ino) -> Result<(u32, u32)>;

    /// Fills `buffer` with the bytes of a content from `offset` on, and says how many there were: fewer only at the end.
    fn read(&self, ino: Ino, offset: u64, buffer: &mut [u8]) -> Result<usize>;

    /// Where the next data or hole from `offset` on begins; nothing beyond the end.
    fn seek(&self, ino: Ino, offset: u64, what: Seek) -> Result<Option<u64>>;

    /// Hands contents over, with the inodes that they are of, before they are asked for, as long as `is_wanted`. Comes back
    /// at once if nothing can be foreseen.
    fn foresee(&self, give: &dyn Fn(Ino, &[u8]), is_wanted: &dyn Fn() -> bool) {
        let _ = (give, is_wanted);
    }

    /// Tells of directories and links that have changed, as long as `is_wanted`. Comes back at once if nothing ever changes.
    fn watch(&self, changed: &dyn Fn(Ino), is_wanted: &dyn Fn() -> bool) {
        let _ = (changed, is_wanted);
    }

    /// Sums over all.
    fn totals(&self) -> Totals;

    /// The path of an inode below the root, for messages.
    fn path(&self, ino: Ino) -> Vec<u8>;
}
