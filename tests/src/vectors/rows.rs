//! Rows of directories as values: what a table is made from, and what a walk must have handed out.

use diptych_format::Digest;

/// One entry.
#[derive(Clone)]
pub struct Row {
    /// Its name.
    pub name: Vec<u8>,
    /// Type and permission bits.
    pub mode: u64,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// `chattr` flags.
    pub flags: u64,
    /// Names and values of extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Seconds and nanoseconds.
    pub mtime: (i64, u64),
    /// The same of the inode.
    pub ctime: (i64, u64),
    /// Status bits.
    pub status: u64,
    /// What it holds.
    pub holds: Holds,
}

/// What an entry holds.
#[derive(Clone)]
pub enum Holds {
    /// A content: size, digest, holes as start and length.
    Content(u64, Digest, Vec<(u64, u64)>),
    /// What stands below a directory.
    Below(Placed),
    /// Target of a symbolic link.
    Target(Vec<u8>),
    /// Major and minor number.
    Device(u64, u64),
    /// Nothing.
    Nothing,
}

/// A table of names that was written.
#[derive(Clone)]
pub struct Placed {
    /// Where it starts.
    pub position: u64,
    /// Its length.
    pub length: u64,
    /// Digest of its body.
    pub digest: Digest,
    /// Payload in it and below.
    pub payload: u64,
    /// Entries in it and below.
    pub entries: u64,
    /// Its rows, piece by piece; the first name of each piece is that of its first row.
    pub pieces: Vec<Piece>,
}

/// The rows of one table.
#[derive(Clone)]
pub struct Piece {
    /// The rows.
    pub rows: Vec<Row>,
    /// Whether no reader may hand any of them out.
    pub is_broken: bool,
}

impl Row {
    fn new(name: impl AsRef<[u8]>, mode: u64, holds: Holds) -> Self {
        let name = name.as_ref().to_vec();
        let (uid, gid, flags, xattrs, status) = (0, 0, 0, Vec::new(), 0);
        let (mtime, ctime) = ((1_600_000_000, 0), (1_600_000_001, 5));
        Self { name, mode, uid, gid, flags, xattrs, mtime, ctime, status, holds }
    }

    /// A file with this content.
    pub fn file(name: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Self {
        let content = content.as_ref();
        let holds = Holds::Content(content.len() as u64, Digest::of(content), Vec::new());
        Self::new(name, 0o100644, holds)
    }

    /// A file of nothing but holes and zeros.
    pub fn sparse(name: impl AsRef<[u8]>, size: u64, holes: &[(u64, u64)]) -> Self {
        let mut hasher = diptych_format::digest::ContentHasher::sparse();
        hasher.zeros(size);
        Self::new(name, 0o100644, Holds::Content(size, hasher.finish(), holes.to_vec()))
    }

    /// A directory.
    pub fn directory(name: impl AsRef<[u8]>, below: Placed) -> Self {
        Self::new(name, 0o040755, Holds::Below(below))
    }

    /// A symbolic link.
    pub fn symlink(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        Self::new(name, 0o120777, Holds::Target(target.as_ref().to_vec()))
    }

    /// A character device.
    pub fn device(name: impl AsRef<[u8]>, major: u64, minor: u64) -> Self {
        Self::new(name, 0o020600, Holds::Device(major, minor))
    }

    /// A named pipe.
    pub fn fifo(name: impl AsRef<[u8]>) -> Self {
        Self::new(name, 0o010644, Holds::Nothing)
    }

    /// The same with another mode.
    #[must_use]
    pub fn mode(self, mode: u64) -> Self {
        Self { mode, ..self }
    }

    /// The same of another owner.
    #[must_use]
    pub fn uid(self, uid: u64) -> Self {
        Self { uid, ..self }
    }

    /// The same with a status.
    #[must_use]
    pub fn status(self, status: u64) -> Self {
        Self { status, ..self }
    }

    /// The same with one more extended attribute.
    #[must_use]
    pub fn xattr(mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.xattrs.push((name.as_ref().to_vec(), value.as_ref().to_vec()));
        self
    }

    /// The same changed at another time.
    #[must_use]
    pub fn mtime(self, seconds: i64, nanoseconds: u64) -> Self {
        Self { mtime: (seconds, nanoseconds), ..self }
    }

    /// Bytes of names and values of the extended attributes.
    pub fn xattr_bytes(&self) -> usize {
        self.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    /// Payload of a content, or all below a directory.
    pub fn payload(&self) -> u64 {
        match &self.holds {
            Holds::Content(..) if self.status & 4 != 0 => 0,
            Holds::Content(size, _, holes) => size.wrapping_sub(holes.iter().map(|hole| hole.1).sum()),
            Holds::Below(below) => below.payload,
            _ => 0,
        }
    }

    /// Entries below a directory.
    pub fn entries_below(&self) -> u64 {
        match &self.holds {
            Holds::Below(below) => below.entries,
            _ => 0,
        }
    }

    /// Length of a content.
    pub fn size(&self) -> u64 {
        match &self.holds {
            Holds::Content(size, ..) => *size,
            _ => 0,
        }
    }

    /// Digest of a content or a directory.
    pub fn digest(&self) -> Digest {
        match &self.holds {
            Holds::Content(_, digest, _) => *digest,
            Holds::Below(below) => below.digest,
            _ => Digest::NONE,
        }
    }

    fn kind_word(&self) -> &'static str {
        diptych_format::Kind::from_mode(self.mode as u32).map_or("none", diptych_format::Kind::word)
    }
}

/// One line of the listing that vectors digest: path, kind, size and digest, each ended by NUL, then a line feed.
pub fn line(path: &[u8], kind: &str, size: u64, digest: &Digest) -> Vec<u8> {
    let mut line = path.to_vec();
    line.push(0);
    line.extend(format!("{kind}\0{size}\0{digest}\n").bytes());
    line
}

/// What a walk hands out before it comes to a table that is broken: lines in archive order.
#[derive(Default)]
pub struct Listing {
    /// The lines.
    pub lines: Vec<Vec<u8>>,
    is_ended: bool,
}

impl Listing {
    /// Everything from `row` on, at `path`.
    pub fn add(&mut self, path: &[u8], row: &Row) {
        if self.is_ended {
            return;
        }
        self.lines.push(line(path, row.kind_word(), row.size(), &row.digest()));
        let Holds::Below(below) = &row.holds else { return };
        for piece in &below.pieces {
            self.is_ended |= piece.is_broken;
            let is_directory = |row: &Row| matches!(row.holds, Holds::Below(_));
            let (directories, others): (Vec<&Row>, Vec<&Row>) =
                piece.rows.iter().partition(|row| is_directory(row));
            for row in others.into_iter().chain(directories) {
                self.add(&crate::tree::join(path, &row.name), row);
            }
        }
    }

    /// BLAKE3 of the lines.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.lines.concat())
    }
}
