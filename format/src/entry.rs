//! Entries: one named object of a tree, with all that the archive keeps of it.
//!
//! `Entry` is the only thing that a scan yields, the encoder takes, the decoder gives and an extraction
//! consumes. An `Entry` can be made with any values; [`Entry::validate`] holds the rules, and both the
//! encoder and the decoder call it, so nothing is written that would be refused.
//!
//! Spec: archive.md sections 4 and 5.

use std::fmt;

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::limits;

/// A name in a directory: any bytes but `/` and NUL, not empty, not `.` or `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<[u8]>);

impl Name {
    /// Makes a name, or says which rule it breaks. Spec: A-4-1.
    pub fn try_new(bytes: &[u8]) -> Result<Self> {
        validate_name(bytes)?;
        Ok(Self(bytes.into()))
    }

    /// The name of an archive's root: empty, and valid nowhere else.
    pub fn root() -> Self {
        Self(Box::default())
    }

    /// The bytes as they stand in the directory.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

/// Checks the rules of a name without keeping it. Spec: A-4-1.
pub fn validate_name(bytes: &[u8]) -> Result<()> {
    if bytes.is_empty() {
        return Err(Error::corrupt("a name is empty"));
    }
    if bytes.len() > limits::NAME_LENGTH_MAX {
        return Err(Error::limit("name length", bytes.len() as u64, limits::NAME_LENGTH_MAX as u64));
    }
    if bytes == b"." || bytes == b".." {
        return Err(Error::corrupt("a name is \".\" or \"..\", which would lead out of the target"));
    }
    if bytes.iter().any(|&b| b == b'/' || b == 0) {
        return Err(Error::corrupt("a name holds \"/\" or NUL, which would lead out of the target"));
    }
    Ok(())
}

/// A moment: seconds since 1970 (negative before) and nanoseconds that count forward from there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    /// Seconds since 1970-01-01T00:00:00Z.
    pub seconds: i64,
    /// Nanoseconds, below 1,000,000,000.
    pub nanoseconds: u32,
}

/// What an entry is; the type bits of its mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A socket's name.
    Socket,
    /// A block device.
    BlockDevice,
    /// A character device.
    CharDevice,
}

impl Kind {
    /// All kinds with their type bits (`S_IFMT`), as the specification lists them.
    pub const ALL: [(Kind, u32, &'static str); 7] = [
        (Kind::Fifo, 0o010000, "fifo"),
        (Kind::CharDevice, 0o020000, "char-device"),
        (Kind::Directory, 0o040000, "directory"),
        (Kind::BlockDevice, 0o060000, "block-device"),
        (Kind::File, 0o100000, "file"),
        (Kind::Symlink, 0o120000, "symlink"),
        (Kind::Socket, 0o140000, "socket"),
    ];

    /// The kind that a mode's type bits name.
    pub fn from_mode(mode: u32) -> Result<Self> {
        Self::ALL
            .iter()
            .find(|(_, bits, _)| *bits == mode & 0o170000)
            .map(|(kind, _, _)| *kind)
            .ok_or_else(|| Error::corrupt("a mode's type bits name no kind of entry"))
    }

    /// The type bits of this kind.
    pub fn mode_bits(self) -> u32 {
        match self {
            Kind::Fifo => 0o010000,
            Kind::CharDevice => 0o020000,
            Kind::Directory => 0o040000,
            Kind::BlockDevice => 0o060000,
            Kind::File => 0o100000,
            Kind::Symlink => 0o120000,
            Kind::Socket => 0o140000,
        }
    }

    /// The word for this kind in listings.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Fifo => "fifo",
            Kind::CharDevice => "char-device",
            Kind::Directory => "directory",
            Kind::BlockDevice => "block-device",
            Kind::File => "file",
            Kind::Symlink => "symlink",
            Kind::Socket => "socket",
        }
    }
}

/// An extended attribute, in the kernel's own representation: POSIX ACLs, file capabilities and security
/// labels are attributes like any other.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Xattr {
    /// The full name with its namespace, such as `user.comment` or `system.posix_acl_access`.
    pub name: Box<[u8]>,
    /// The value.
    pub value: Box<[u8]>,
}

/// What entries tend to share: permissions, owners, flags and extended attributes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Attributes {
    /// Type and permission bits, as `st_mode`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// `chattr` flags, only those of [`limits::FLAGS_MASK`].
    pub flags: u32,
    /// Quota project id.
    pub project: u32,
    /// Extended attributes, in ascending order of their names.
    pub xattrs: Vec<Xattr>,
}

impl Attributes {
    /// The kind that the mode says.
    pub fn kind(&self) -> Result<Kind> {
        Kind::from_mode(self.mode)
    }

    /// The bytes that names and values of the extended attributes take.
    pub fn xattr_bytes(&self) -> u64 {
        self.xattrs.iter().map(|x| (x.name.len() + x.value.len()) as u64).sum()
    }

    /// The rules of attributes. Spec.
    pub fn validate(&self) -> Result<()> {
        self.kind()?;
        if self.mode & !0o177777 != 0 {
            return Err(Error::corrupt("a mode has bits beyond type and permissions"));
        }
        if self.flags & !limits::FLAGS_MASK != 0 {
            return Err(Error::corrupt("file flags hold bits that cannot be set"));
        }
        let mut previous: Option<&[u8]> = None;
        for xattr in &self.xattrs {
            if xattr.name.is_empty() || xattr.name.contains(&0) {
                return Err(Error::corrupt("an extended attribute's name is empty or holds NUL"));
            }
            if xattr.name.len() > limits::XATTR_NAME_MAX {
                let (found, most) = (xattr.name.len() as u64, limits::XATTR_NAME_MAX as u64);
                return Err(Error::limit("extended attribute name length", found, most));
            }
            if xattr.value.len() > limits::XATTR_VALUE_MAX {
                let (found, most) = (xattr.value.len() as u64, limits::XATTR_VALUE_MAX as u64);
                return Err(Error::limit("extended attribute value length", found, most));
            }
            if previous.is_some_and(|p| p >= &xattr.name[..]) {
                return Err(Error::corrupt("extended attributes are not in ascending order of names"));
            }
            previous = Some(&xattr.name);
        }
        if self.xattr_bytes() > limits::XATTR_TOTAL_MAX {
            return Err(Error::limit(
                "extended attribute bytes",
                self.xattr_bytes(),
                limits::XATTR_TOTAL_MAX,
            ));
        }
        Ok(())
    }
}

/// What an entry holds, by kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Holds {
    /// A regular file's content: its length in bytes, holes included, and its digest.
    Content {
        /// Length in bytes.
        size: u64,
        /// Content digest; all zeros while it is not known, and for a content that could not be read.
        digest: Digest,
    },
    /// A directory's entries, told by their digest: that of the body of the directory's top table.
    Entries {
        /// Digest of the body; all zeros while it is not known.
        digest: Digest,
    },
    /// A symbolic link's target, any bytes but NUL.
    Target(Box<[u8]>),
    /// A device's number.
    Device {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// Nothing: FIFOs and sockets.
    Nothing,
}

/// What a scan saw of an inode that tells a later run whether it has changed since.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Change {
    /// When the inode last changed.
    pub ctime: Time,
    /// Inode number.
    pub inode: u64,
}

/// How faithfully an entry was captured: nothing set means whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Status(pub u8);

impl Status {
    /// Captured whole.
    pub const COMPLETE: Status = Status(0);
    /// The content changed while it was read: it may be a mixture of two states.
    pub const CHANGED: Status = Status(1);
    /// Parts of the content could not be read and stand as zeros.
    pub const PARTLY_UNREADABLE: Status = Status(2);
    /// The content was not read, or the directory not listed, or not to its end.
    pub const NOT_READ: Status = Status(4);
    /// Some attributes could not be read.
    pub const ATTRIBUTES_INCOMPLETE: Status = Status(8);

    /// All bits with their words, as the specification lists them.
    pub const ALL: [(Status, &'static str); 4] = [
        (Status::CHANGED, "changed-while-read"),
        (Status::PARTLY_UNREADABLE, "partly-unreadable"),
        (Status::NOT_READ, "not-read"),
        (Status::ATTRIBUTES_INCOMPLETE, "attributes-incomplete"),
    ];

    /// Whether the entry was captured whole.
    pub fn is_complete(self) -> bool {
        self.0 == 0
    }

    /// Whether all bits of `other` are set.
    pub fn has(self, other: Status) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both.
    #[must_use]
    pub fn with(self, other: Status) -> Self {
        Status(self.0 | other.0)
    }

    /// The words for what is set.
    pub fn words(self) -> impl Iterator<Item = &'static str> {
        Self::ALL.into_iter().filter(move |(bit, _)| self.has(*bit)).map(|(_, word)| word)
    }
}

/// A range of a content that holds no data and reads as zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hole {
    /// Where it starts in the content.
    pub start: u64,
    /// Its length in bytes, above 0.
    pub length: u64,
}

/// One named object of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Name in its directory; empty for the root alone.
    pub name: Name,
    /// Permissions, owners, flags, extended attributes.
    pub attributes: Attributes,
    /// When the content (or the directory) last changed.
    pub mtime: Time,
    /// What it holds.
    pub holds: Holds,
    /// Holes of a sparse content, ascending, never touching each other. Not part of the tree id.
    pub holes: Vec<Hole>,
    /// For the next run's comparison. Not part of the tree id.
    pub change: Change,
    /// How faithfully it was captured. Not part of the tree id, which it marks as incomplete.
    pub status: Status,
}

impl Entry {
    /// The kind; a directory's children decide nothing here, so the mode's type bits are the one source.
    pub fn kind(&self) -> Result<Kind> {
        self.attributes.kind()
    }

    /// The length of a content that stands in the payload stream: its size without holes; 0 for all else
    /// and for a content that was not read.
    pub fn payload_length(&self) -> u64 {
        match self.holds {
            Holds::Content { .. } if self.status.has(Status::NOT_READ) => 0,
            Holds::Content { size, .. } => {
                size.saturating_sub(self.holes.iter().fold(0, |sum, hole| sum.saturating_add(hole.length)))
            }
            _ => 0,
        }
    }

    /// The rules of an entry. The root is the one entry whose name is empty. Spec.
    pub fn validate(&self) -> Result<()> {
        if !self.name.0.is_empty() {
            validate_name(&self.name.0)?;
        }
        self.attributes.validate()?;
        if self.mtime.nanoseconds >= 1_000_000_000 || self.change.ctime.nanoseconds >= 1_000_000_000 {
            return Err(Error::corrupt("a time has 1,000,000,000 nanoseconds or more"));
        }
        match (self.kind()?, &self.holds) {
            (Kind::File, Holds::Content { size, .. }) => validate_holes(&self.holes, *size)?,
            (Kind::Directory, Holds::Entries { .. }) => {}
            (Kind::Symlink, Holds::Target(target)) => validate_target(target)?,
            (Kind::BlockDevice | Kind::CharDevice, Holds::Device { .. }) => {}
            (Kind::Fifo | Kind::Socket, Holds::Nothing) => {}
            _ => return Err(Error::corrupt("what an entry holds does not fit its kind")),
        }
        if !self.holes.is_empty() && !matches!(self.holds, Holds::Content { .. }) {
            return Err(Error::corrupt("an entry without a content has holes"));
        }
        Ok(())
    }
}

/// Checks the rules of a symbolic link's target. Spec.
pub fn validate_target(target: &[u8]) -> Result<()> {
    if target.is_empty() || target.contains(&0) {
        return Err(Error::corrupt("a symbolic link's target is empty or holds NUL"));
    }
    if target.len() > limits::TARGET_LENGTH_MAX {
        let (found, most) = (target.len() as u64, limits::TARGET_LENGTH_MAX as u64);
        return Err(Error::limit("symbolic link target length", found, most));
    }
    Ok(())
}

/// Checks that holes ascend, do not touch, and lie inside a content of `size` bytes. Spec.
pub fn validate_holes(holes: &[Hole], size: u64) -> Result<()> {
    if size > limits::SIZE_MAX {
        return Err(Error::limit("content size", size, limits::SIZE_MAX));
    }
    if holes.len() > limits::HOLES_MAX {
        return Err(Error::limit("holes of a content", holes.len() as u64, limits::HOLES_MAX as u64));
    }
    let mut least_start = 0;
    for hole in holes {
        let end = hole.start.checked_add(hole.length).filter(|end| *end <= size);
        let Some(end) = end else {
            return Err(Error::corrupt("a hole reaches beyond the end of its content"));
        };
        if hole.length == 0 || hole.start < least_start {
            return Err(Error::corrupt("holes are empty, touch, or do not ascend"));
        }
        // Two holes that touch are one hole; the next may start one byte of data further on.
        least_start = end.saturating_add(1);
    }
    Ok(())
}
