//! A directory table where it lies: every value is looked up in the bytes.

use crate::digest::Digest;
use crate::entry::{Attributes, Change, Entry, Holds, Hole, Kind, Name, Status, Time, Xattr};
use crate::error::{Error, Result};
use crate::section::{self, Digests, Divided, Ints, SignedInts};
use crate::table::{Reference, References, parse_parts};

use super::sets::SetColumns;

/// A directory table where it lies.
#[derive(Clone, Copy, Debug)]
pub struct DirectoryTable<'a> {
    body_bytes: &'a [u8],
    pub(super) rows: usize,
    pub(super) names: Divided<'a>,
    pub(super) set: Ints<'a>,
    pub(super) seconds: SignedInts<'a>,
    pub(super) nanoseconds: Ints<'a>,
    pub(super) size: Ints<'a>,
    pub(super) digest: Digests<'a>,
    pub(super) target_row: Ints<'a>,
    pub(super) targets: Divided<'a>,
    pub(super) device_row: Ints<'a>,
    pub(super) device_major: Ints<'a>,
    pub(super) device_minor: Ints<'a>,
    pub(super) sets: SetColumns<'a>,
    pub(super) payload_length: Ints<'a>,
    pub(super) directories: References<'a>,
    pub(super) directory_entries: Ints<'a>,
    pub(super) hole_row: Ints<'a>,
    pub(super) holes: References<'a>,
    pub(super) status: Ints<'a>,
    pub(super) ctime_seconds: SignedInts<'a>,
    pub(super) ctime_nanoseconds: Ints<'a>,
    pub(super) inode: Ints<'a>,
    pub(super) payload_total: u64,
    pub(super) entries_total: u64,
}

impl<'a> DirectoryTable<'a> {
    /// Checks the table that fills `bytes`. Spec: A-4-3, A-7.1-1 to A-7.1-12.
    pub fn parse(bytes: &'a [u8]) -> Result<Self> {
        let mut table = Self::read(bytes, false)?;
        table.validate()?;
        Ok(table)
    }

    /// The same bytes again, after [`DirectoryTable::parse`] found them right.
    pub fn view(bytes: &'a [u8]) -> Result<Self> {
        Self::read(bytes, true)
    }

    fn read(bytes: &'a [u8], is_checked: bool) -> Result<Self> {
        let (body, tail) = parse_parts(bytes, section::DIRECTORY_BODY, section::DIRECTORY_TAIL, is_checked)?;
        let rows = body.rows();
        if rows == 0 && (body.has_columns() || tail.has_columns()) {
            return Err(Error::corrupt("a table without rows has columns"));
        }
        let symlinks = body.count(section::BODY_TARGET_END);
        let devices = body
            .count(section::BODY_DEVICE_ROW)
            .max(body.count(section::BODY_DEVICE_MAJOR))
            .max(body.count(section::BODY_DEVICE_MINOR));
        let directories = tail.count(section::TAIL_DISTANCE);
        let sparse = tail.count(section::TAIL_HOLE_DISTANCE);
        Ok(Self {
            body_bytes: body.as_bytes(),
            rows,
            names: body.divided(section::BODY_NAME_END, section::BODY_NAMES, rows)?,
            set: body.ints(section::BODY_SET, rows)?,
            seconds: body.signed(section::BODY_MTIME_SECONDS, rows)?,
            nanoseconds: body.ints(section::BODY_MTIME_NANOSECONDS, rows)?,
            size: body.ints(section::BODY_SIZE, rows)?,
            digest: body.digests(section::BODY_DIGEST, rows)?,
            target_row: body.ints(section::BODY_TARGET_ROW, symlinks)?,
            targets: body.divided(section::BODY_TARGET_END, section::BODY_TARGETS, symlinks)?,
            device_row: body.ints(section::BODY_DEVICE_ROW, devices)?,
            device_major: body.ints(section::BODY_DEVICE_MAJOR, devices)?,
            device_minor: body.ints(section::BODY_DEVICE_MINOR, devices)?,
            sets: SetColumns::read(&body, &tail)?,
            payload_length: tail.ints(section::TAIL_PAYLOAD_LENGTH, rows)?,
            directories: References::read(&tail, section::TAIL_DISTANCE, section::TAIL_LENGTH, directories)?,
            directory_entries: tail.ints(section::TAIL_ENTRIES, directories)?,
            hole_row: tail.ints(section::TAIL_HOLE_ROW, sparse)?,
            holes: References::read(&tail, section::TAIL_HOLE_DISTANCE, section::TAIL_HOLE_LENGTH, sparse)?,
            status: tail.ints(section::TAIL_STATUS, rows)?,
            ctime_seconds: tail.signed(section::TAIL_CTIME_SECONDS, rows)?,
            ctime_nanoseconds: tail.ints(section::TAIL_CTIME_NANOSECONDS, rows)?,
            inode: tail.ints(section::TAIL_INODE, rows)?,
            payload_total: 0,
            entries_total: 0,
        })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The bytes of the body: what its digest covers.
    pub fn body_bytes(&self) -> &'a [u8] {
        self.body_bytes
    }

    /// Name of `row`.
    #[inline]
    pub fn name(&self, row: usize) -> &'a [u8] {
        self.names.get(row)
    }

    /// The row of `name`.
    pub fn find(&self, name: &[u8]) -> Option<usize> {
        self.names.search(name)
    }

    fn set_of(&self, row: usize) -> usize {
        usize::try_from(self.set.get(row)).unwrap_or(usize::MAX)
    }

    /// Mode of `row`, type bits and all.
    pub fn mode(&self, row: usize) -> u32 {
        u32::try_from(self.sets.mode.get(self.set_of(row))).unwrap_or(0)
    }

    /// Owner of `row`.
    pub fn uid(&self, row: usize) -> u32 {
        u32::try_from(self.sets.uid.get(self.set_of(row))).unwrap_or(0)
    }

    /// Group of `row`.
    pub fn gid(&self, row: usize) -> u32 {
        u32::try_from(self.sets.gid.get(self.set_of(row))).unwrap_or(0)
    }

    /// Whether `row` has extended attributes.
    pub fn has_xattrs(&self, row: usize) -> bool {
        self.sets.has_inline_xattrs(self.set_of(row)) || self.external(row).is_some()
    }

    /// Kind of `row`.
    pub fn kind(&self, row: usize) -> Result<Kind> {
        Kind::from_mode(self.mode(row))
    }

    /// Whether `row` is a directory.
    pub fn is_directory(&self, row: usize) -> bool {
        self.mode(row) & 0o170000 == 0o040000
    }

    /// When the content of `row` last changed.
    pub fn mtime(&self, row: usize) -> Time {
        let nanoseconds = u32::try_from(self.nanoseconds.get(row)).unwrap_or(0);
        Time { seconds: self.seconds.get(row), nanoseconds }
    }

    /// Length of the content of `row`.
    pub fn size(&self, row: usize) -> u64 {
        self.size.get(row)
    }

    /// Digest of the content or the directory of `row`.
    pub fn digest(&self, row: usize) -> Digest {
        self.digest.get(row)
    }

    /// Target of the symbolic link at `row`; empty for other kinds.
    pub fn target(&self, row: usize) -> &'a [u8] {
        self.target_row.search(row as u64).map_or(&[], |index| self.targets.get(index))
    }

    /// Major and minor number of the device at `row`.
    pub fn device(&self, row: usize) -> (u32, u32) {
        let index = self.device_row.search(row as u64).unwrap_or(0);
        let narrow = |value| u32::try_from(value).unwrap_or(0);
        (narrow(self.device_major.get(index)), narrow(self.device_minor.get(index)))
    }

    /// Payload of a content, or of all below a directory.
    pub fn payload_length(&self, row: usize) -> u64 {
        self.payload_length.get(row)
    }

    /// Where the payload of each row starts, seen from where this table's payload starts: that of the files comes
    /// first. Spec: A-9-2.
    pub fn payload_starts(&self) -> Vec<u64> {
        let mut starts = vec![0; self.rows];
        let mut next = 0u64;
        for directories in [false, true] {
            for (row, start) in starts.iter_mut().enumerate() {
                if self.is_directory(row) == directories {
                    *start = next;
                    next = next.saturating_add(self.payload_length.get(row));
                }
            }
        }
        starts
    }

    /// Rows that are directories, in order, each with the place of its top table and the entries below it.
    pub fn directories(&self) -> impl Iterator<Item = (usize, Reference, u64)> + 'a {
        let table = *self;
        (0..self.rows).filter(move |row| table.is_directory(*row)).enumerate().map(move |(index, row)| {
            let (reference, entries) = table.nth_directory(index);
            (row, reference, entries)
        })
    }

    /// Where the top table of the directory with this number among the directories stands, and the entries below it.
    pub fn nth_directory(&self, index: usize) -> (Reference, u64) {
        (self.directories.get(index), self.directory_entries.get(index))
    }

    /// Where the top table of the directory at `row` stands, and the entries below it.
    pub fn directory(&self, row: usize) -> Option<(Reference, u64)> {
        self.directories()
            .find(|(found, ..)| *found == row)
            .map(|(_, reference, entries)| (reference, entries))
    }

    /// Where the hole table of the content at `row` stands, if it has holes.
    pub fn holes(&self, row: usize) -> Option<Reference> {
        self.hole_row.search(row as u64).map(|index| self.holes.get(index))
    }

    /// Where the value table of `row` stands, if its extended attributes are not in the body, and its digest.
    pub fn external(&self, row: usize) -> Option<(Reference, Digest)> {
        self.external_of_set(self.set_of(row))
    }

    /// Number of attribute sets.
    pub fn sets(&self) -> usize {
        self.sets.count
    }

    /// The attributes of a set as they stand in the body: without those of a value table.
    pub fn attributes_of_set(&self, set: usize) -> Result<Attributes> {
        self.sets.get(set)
    }

    /// Where the value table of a set stands, if it has one, and its digest.
    pub fn external_of_set(&self, set: usize) -> Option<(Reference, Digest)> {
        self.sets.external(set)
    }

    /// How faithfully `row` was captured.
    pub fn status(&self, row: usize) -> Status {
        Status(u8::try_from(self.status.get(row)).unwrap_or(u8::MAX))
    }

    /// What the scan saw of the inode of `row`.
    pub fn change(&self, row: usize) -> Change {
        let nanoseconds = u32::try_from(self.ctime_nanoseconds.get(row)).unwrap_or(0);
        Change {
            ctime: Time { seconds: self.ctime_seconds.get(row), nanoseconds },
            inode: self.inode.get(row),
        }
    }

    /// The attributes of `row` as they stand in the body: without those of a value table.
    pub fn attributes(&self, row: usize) -> Result<Attributes> {
        self.sets.get(self.set_of(row))
    }

    /// The entry of `row`, with the holes and the external attributes that were read for it.
    pub fn entry(&self, row: usize, holes: Vec<Hole>, external: Option<Vec<Xattr>>) -> Result<Entry> {
        let mut attributes = self.attributes(row)?;
        if let Some(xattrs) = external {
            attributes.xattrs = xattrs;
        }
        let holds = match attributes.kind()? {
            Kind::File => Holds::Content { size: self.size(row), digest: self.digest(row) },
            Kind::Directory => Holds::Entries { digest: self.digest(row) },
            Kind::Symlink => Holds::Target(self.target(row).into()),
            Kind::BlockDevice | Kind::CharDevice => {
                let (major, minor) = self.device(row);
                Holds::Device { major, minor }
            }
            Kind::Fifo | Kind::Socket => Holds::Nothing,
        };
        let name = match self.name(row) {
            [] => Name::root(),
            name => Name::try_new(name)?,
        };
        let entry = Entry {
            name,
            attributes,
            mtime: self.mtime(row),
            holds,
            holes,
            change: self.change(row),
            status: self.status(row),
        };
        if entry.kind()? == Kind::File && entry.payload_length() != self.payload_length(row) {
            return Err(Error::corrupt("a content's holes do not fit its payload length"));
        }
        Ok(entry)
    }

    /// Payload of all rows; known after [`DirectoryTable::parse`] alone.
    pub fn payload_total(&self) -> u64 {
        self.payload_total
    }

    /// Entries of all rows and below; known after [`DirectoryTable::parse`] alone.
    pub fn entries_total(&self) -> u64 {
        self.entries_total
    }
}
