//! The change key: what has to be equal so that a file counts as unchanged without being opened.

use diptych_decoder::Found as Row;
use diptych_format::{Holds, Kind, Time};
use diptych_localfs::scan::{Facts, Found};

/// Which of an inode's facts are compared, beside kind, size and mtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangeKey {
    /// The time of the inode's last change, which moves with attributes too.
    pub ctime: bool,
    /// The inode's number.
    pub inode: bool,
    /// What changed from this moment on may have changed again without another time: it is read.
    pub young_from: Time,
}

/// Why a file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// There is nothing to compare with.
    NoBase,
    /// The base has no such name.
    New,
    /// It was something else.
    Kind,
    /// It had another size.
    Size,
    /// Its content changed at another time.
    Mtime,
    /// Its inode changed at another time.
    Ctime,
    /// It was another inode.
    Inode,
    /// It changed too shortly before the base was made, or while.
    Young,
    /// The base does not have it whole.
    Incomplete,
    /// A chunk of its content cannot be had.
    Lost,
    /// Too little of the chunk that holds it is in use.
    Sparse,
    /// To see whether what counts as unchanged is.
    Sample,
}

impl Reason {
    /// All of them, in the order in which they are told.
    pub const ALL: [Reason; 12] = [
        Reason::NoBase,
        Reason::New,
        Reason::Kind,
        Reason::Size,
        Reason::Mtime,
        Reason::Ctime,
        Reason::Inode,
        Reason::Young,
        Reason::Incomplete,
        Reason::Lost,
        Reason::Sparse,
        Reason::Sample,
    ];

    /// The word for it in reports.
    pub fn word(self) -> &'static str {
        match self {
            Reason::NoBase => "no-base",
            Reason::New => "new",
            Reason::Kind => "kind",
            Reason::Size => "size",
            Reason::Mtime => "mtime",
            Reason::Ctime => "ctime",
            Reason::Inode => "inode",
            Reason::Young => "young",
            Reason::Incomplete => "incomplete",
            Reason::Lost => "lost",
            Reason::Sparse => "sparse",
            Reason::Sample => "sample",
        }
    }
}

impl ChangeKey {
    /// Whether an inode with its ctime tells a file, whatever its name.
    pub(super) fn knows_inodes(&self) -> bool {
        self.ctime && self.inode
    }

    /// Why `facts` are not those of `row`; none if they are.
    pub fn difference(&self, facts: &Facts, row: &Row) -> Option<Reason> {
        let entry = &row.entry;
        if entry.attributes.kind().ok() != Some(facts.kind) || facts.kind == Kind::Directory {
            return Some(Reason::Kind);
        }
        if matches!(entry.holds, Holds::Content { size, .. } if size != facts.size) {
            return Some(Reason::Size);
        }
        if entry.mtime != facts.mtime {
            return Some(Reason::Mtime);
        }
        if self.ctime && entry.change.ctime != facts.ctime {
            return Some(Reason::Ctime);
        }
        if self.inode && entry.change.inode != facts.inode {
            return Some(Reason::Inode);
        }
        if facts.mtime >= self.young_from || self.ctime && facts.ctime >= self.young_from {
            return Some(Reason::Young);
        }
        // Without its ctime nothing tells whether attributes have changed but themselves.
        if !self.ctime
            && (entry.attributes.mode, entry.attributes.uid, entry.attributes.gid)
                != (facts.mode, facts.uid, facts.gid)
        {
            return Some(Reason::Ctime);
        }
        (!entry.status.is_complete()).then_some(Reason::Incomplete)
    }
}

/// What a run read and what it did not.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Entries that were taken from the base.
    pub reused: u64,
    /// Bytes of payload that were.
    pub reused_bytes: u64,
    /// Of the new ones, how many had contents that were stored already, and their bytes of payload.
    pub deduplicated: (u64, u64),
    /// Entries that counted as unchanged and proved to have changed.
    pub missed: u64,
    /// How many were read, and how many bytes of contents they have, by the reason.
    pub read: [(u64, u64); Reason::ALL.len()],
}

impl Counts {
    /// Counts an entry that is read.
    pub(crate) fn read(&mut self, reason: Reason, found: &Found) {
        self.read_bytes(reason, if found.facts.kind == Kind::File { found.facts.size } else { 0 });
    }

    /// The same of a content of so many bytes.
    pub(crate) fn read_bytes(&mut self, reason: Reason, bytes: u64) {
        if let Some((files, sum)) = self.read.get_mut(reason as usize) {
            *files += 1;
            *sum += bytes;
        }
    }
}
