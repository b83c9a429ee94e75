//! Directory tables: the entries of a directory, or of one piece of it.
//!
//! Spec: archive.md section 7.1.

use crate::digest::{CONTEXT_VALUES, Digest};
use crate::entry::{
    Attributes, Change, Entry, Holds, Hole, Kind, Name, Status, Time, Xattr, validate_name, validate_target,
};
use crate::error::{Error, Result};
use crate::limits;
use crate::section::{self, Digests, Ends, Ints, Section, SectionBuilder, SignedInts};

use super::{Below, Reference, body_digest, encode_holes, encode_values, join_parts, parse_parts};

/// A row to write: the entry, and for a directory what stands below it.
#[derive(Clone, Debug)]
pub struct DirectoryRow {
    /// The entry. A directory's digest is taken from `below`.
    pub entry: Entry,
    /// Where a directory's top table stands; nothing for other kinds.
    pub below: Option<Below>,
}

impl DirectoryRow {
    fn payload_length(&self) -> u64 {
        self.below.map_or_else(|| self.entry.payload_length(), |below| below.payload_length)
    }
}

/// Appends the hole and value tables of `rows`, which start at `position`, then their directory table; says how
/// the referrer sees it. The rows must be sorted by name.
pub fn encode_directory_table(rows: &[DirectoryRow], position: u64, out: &mut Vec<u8>) -> Result<Below> {
    for row in rows {
        row.entry.validate()?;
    }
    let start = out.len();
    let sets = Sets::of(rows);
    let holes = write_each(rows.iter().enumerate(), start, position, out, |(index, row), out| {
        let holes = &row.entry.holes;
        if holes.is_empty() { Ok(None) } else { encode_holes(holes, out).map(|length| Some((index, length))) }
    })?;
    let externals = write_each(sets.externals(), start, position, out, |(index, set), out| {
        encode_values(&set.xattrs, out).map(|length| Some((index, length)))
    })?;
    let external_digests: Vec<Digest> = externals
        .iter()
        .map(|external| {
            let from = start + usize::try_from(external.position - position).unwrap_or(0);
            let bytes = out.get(from..from + usize::try_from(external.length).unwrap_or(0));
            Digest::in_context(CONTEXT_VALUES, bytes.unwrap_or(&[]))
        })
        .collect();

    let table_start = out.len();
    let table_position = position + (table_start - start) as u64;
    let body_length = write_body(rows, &sets, &externals, &external_digests, out)?;
    let tail_length = write_tail(rows, table_position, &holes, &externals, out)?;

    // The writer reads back what it wrote: the same rules hold on both sides.
    let bytes = out.get(table_start..).unwrap_or(&[]);
    let table = DirectoryTable::parse(bytes)?;
    Ok(Below {
        position: table_position,
        length: (body_length + tail_length) as u64,
        digest: body_digest(table.body_bytes()),
        payload_length: table.payload_total,
        entries: table.entries_total,
    })
}

/// A hole or value table that was written for a row or set.
struct Written {
    index: usize,
    position: u64,
    length: u64,
}

fn write_each<T>(
    items: impl Iterator<Item = T>,
    start: usize,
    position: u64,
    out: &mut Vec<u8>,
    mut write: impl FnMut(T, &mut Vec<u8>) -> Result<Option<(usize, usize)>>,
) -> Result<Vec<Written>> {
    let mut all = Vec::new();
    for item in items {
        let at = position + (out.len() - start) as u64;
        if let Some((index, length)) = write(item, out)? {
            all.push(Written { index, position: at, length: length as u64 });
        }
    }
    Ok(all)
}

/// The distinct attributes of some rows, sorted, and which row has which.
struct Sets<'r> {
    sets: Vec<&'r Attributes>,
    of_row: Vec<u64>,
}

impl<'r> Sets<'r> {
    fn of(rows: &'r [DirectoryRow]) -> Self {
        let mut sets: Vec<&Attributes> = Vec::new();
        let mut first_seen = Vec::with_capacity(rows.len());
        // Few rows differ, and a row is most often like the one before: a short list beats a map.
        let mut by_set = std::collections::HashMap::new();
        let mut previous: Option<(&Attributes, usize)> = None;
        for row in rows {
            let attributes = &row.entry.attributes;
            let index = match previous {
                Some((same, index)) if same == attributes => index,
                _ => *by_set.entry(attributes).or_insert_with(|| {
                    sets.push(attributes);
                    sets.len() - 1
                }),
            };
            previous = Some((attributes, index));
            first_seen.push(index);
        }
        let mut order: Vec<usize> = (0..sets.len()).collect();
        order.sort_by_key(|index| sets.get(*index));
        let mut rank = vec![0u64; sets.len()];
        for (place, index) in order.iter().enumerate() {
            if let Some(slot) = rank.get_mut(*index) {
                *slot = place as u64;
            }
        }
        sets.sort();
        let of_row = first_seen.into_iter().map(|index| rank.get(index).copied().unwrap_or(0)).collect();
        Self { sets, of_row }
    }

    /// Sets whose extended attributes are too large for the body.
    fn externals(&self) -> impl Iterator<Item = (usize, &'r Attributes)> + '_ {
        self.sets.iter().enumerate().filter(|(_, set)| is_external(set)).map(|(index, set)| (index, *set))
    }
}

fn is_external(attributes: &Attributes) -> bool {
    attributes.xattr_bytes() > limits::XATTR_INLINE_MAX
}

fn write_body(
    rows: &[DirectoryRow],
    sets: &Sets<'_>,
    externals: &[Written],
    external_digests: &[Digest],
    out: &mut Vec<u8>,
) -> Result<usize> {
    let mut body = SectionBuilder::new(section::DIRECTORY_BODY, rows.len());
    let column =
        |value: fn(&Entry) -> u64| -> Vec<u64> { rows.iter().map(|row| value(&row.entry)).collect() };
    let (name_ends, names) = join_parts(rows.iter().map(|row| row.entry.name.as_bytes()));
    let seconds: Vec<i64> = rows.iter().map(|row| row.entry.mtime.seconds).collect();
    let digests: Vec<Digest> = rows
        .iter()
        .map(|row| match (&row.entry.holds, row.below) {
            (_, Some(below)) => below.digest,
            (Holds::Content { digest, .. } | Holds::Entries { digest }, None) => *digest,
            _ => Digest::NONE,
        })
        .collect();
    body.ints(section::BODY_NAME_END, &name_ends)
        .bytes(section::BODY_NAMES, &names)
        .ints(section::BODY_SET, &sets.of_row)
        .signed(section::BODY_MTIME_SECONDS, &seconds)
        .ints(section::BODY_MTIME_NANOSECONDS, &column(|entry| entry.mtime.nanoseconds.into()))
        .ints(
            section::BODY_SIZE,
            &column(|entry| match entry.holds {
                Holds::Content { size, .. } => size,
                _ => 0,
            }),
        )
        .digests(section::BODY_DIGEST, &digests);
    write_targets_and_devices(rows, &mut body);
    write_sets(sets, externals, external_digests, &mut body);
    body.finish(out)
}

fn write_targets_and_devices(rows: &[DirectoryRow], body: &mut SectionBuilder) {
    let (mut target_rows, mut targets) = (Vec::new(), Vec::new());
    let (mut device_rows, mut majors, mut minors) = (Vec::new(), Vec::new(), Vec::new());
    for (index, row) in rows.iter().enumerate() {
        match &row.entry.holds {
            Holds::Target(target) => {
                target_rows.push(index as u64);
                targets.push(&target[..]);
            }
            Holds::Device { major, minor } => {
                device_rows.push(index as u64);
                majors.push(u64::from(*major));
                minors.push(u64::from(*minor));
            }
            _ => {}
        }
    }
    let (target_ends, targets) = join_parts(targets.into_iter());
    body.ints(section::BODY_TARGET_ROW, &target_rows)
        .ints(section::BODY_TARGET_END, &target_ends)
        .bytes(section::BODY_TARGETS, &targets)
        .ints(section::BODY_DEVICE_ROW, &device_rows)
        .ints(section::BODY_DEVICE_MAJOR, &majors)
        .ints(section::BODY_DEVICE_MINOR, &minors);
}

fn write_sets(sets: &Sets<'_>, externals: &[Written], digests: &[Digest], body: &mut SectionBuilder) {
    let column = |value: fn(&Attributes) -> u32| -> Vec<u64> {
        sets.sets.iter().map(|set| value(set).into()).collect()
    };
    let (mut set_ends, mut inline): (Vec<u64>, Vec<&Xattr>) = (Vec::new(), Vec::new());
    for set in &sets.sets {
        if !is_external(set) {
            inline.extend(&set.xattrs);
        }
        set_ends.push(inline.len() as u64);
    }
    let (name_ends, names) = join_parts(inline.iter().map(|xattr| &xattr.name[..]));
    let (value_ends, values) = join_parts(inline.iter().map(|xattr| &xattr.value[..]));
    let external_sets: Vec<u64> = externals.iter().map(|external| external.index as u64).collect();
    body.ints(section::BODY_SET_MODE, &column(|set| set.mode))
        .ints(section::BODY_SET_UID, &column(|set| set.uid))
        .ints(section::BODY_SET_GID, &column(|set| set.gid))
        .ints(section::BODY_SET_FLAGS, &column(|set| set.flags))
        .ints(section::BODY_SET_PROJECT, &column(|set| set.project))
        .ints(section::BODY_SET_XATTR_END, &set_ends)
        .ints(section::BODY_XATTR_NAME_END, &name_ends)
        .bytes(section::BODY_XATTR_NAMES, &names)
        .ints(section::BODY_XATTR_VALUE_END, &value_ends)
        .bytes(section::BODY_XATTR_VALUES, &values)
        .ints(section::BODY_EXTERNAL_SET, &external_sets)
        .digests(section::BODY_EXTERNAL_DIGEST, digests);
}

fn write_tail(
    rows: &[DirectoryRow],
    position: u64,
    holes: &[Written],
    externals: &[Written],
    out: &mut Vec<u8>,
) -> Result<usize> {
    let below: Vec<Below> = rows.iter().filter_map(|row| row.below).collect();
    let back = |written: &Written| position - written.position;
    let ctime: Vec<i64> = rows.iter().map(|row| row.entry.change.ctime.seconds).collect();
    let column = |value: fn(&DirectoryRow) -> u64| -> Vec<u64> { rows.iter().map(value).collect() };
    SectionBuilder::new(section::DIRECTORY_TAIL, rows.len())
        .ints(section::TAIL_PAYLOAD_LENGTH, &column(DirectoryRow::payload_length))
        .ints(
            section::TAIL_DISTANCE,
            &below.iter().map(|below| below.seen_from(position).distance).collect::<Vec<_>>(),
        )
        .ints(section::TAIL_LENGTH, &below.iter().map(|below| below.length).collect::<Vec<_>>())
        .ints(section::TAIL_ENTRIES, &below.iter().map(|below| below.entries).collect::<Vec<_>>())
        .ints(section::TAIL_HOLE_ROW, &holes.iter().map(|written| written.index as u64).collect::<Vec<_>>())
        .ints(section::TAIL_HOLE_DISTANCE, &holes.iter().map(back).collect::<Vec<_>>())
        .ints(section::TAIL_HOLE_LENGTH, &holes.iter().map(|written| written.length).collect::<Vec<_>>())
        .ints(section::TAIL_EXTERNAL_DISTANCE, &externals.iter().map(back).collect::<Vec<_>>())
        .ints(
            section::TAIL_EXTERNAL_LENGTH,
            &externals.iter().map(|written| written.length).collect::<Vec<_>>(),
        )
        .ints(section::TAIL_STATUS, &column(|row| row.entry.status.0.into()))
        .signed(section::TAIL_CTIME_SECONDS, &ctime)
        .ints(section::TAIL_CTIME_NANOSECONDS, &column(|row| row.entry.change.ctime.nanoseconds.into()))
        .ints(section::TAIL_INODE, &column(|row| row.entry.change.inode))
        .finish(out)
}

/// A directory table where it lies.
#[derive(Clone, Copy, Debug)]
pub struct DirectoryTable<'a> {
    body_bytes: &'a [u8],
    rows: usize,
    name_end: Ends<'a>,
    names: &'a [u8],
    set: Ints<'a>,
    seconds: SignedInts<'a>,
    nanoseconds: Ints<'a>,
    size: Ints<'a>,
    digest: Digests<'a>,
    target_row: Ints<'a>,
    target_end: Ends<'a>,
    targets: &'a [u8],
    device_row: Ints<'a>,
    device_major: Ints<'a>,
    device_minor: Ints<'a>,
    sets: SetColumns<'a>,
    payload_length: Ints<'a>,
    directories: DirectoryColumns<'a>,
    hole_row: Ints<'a>,
    hole_distance: Ints<'a>,
    hole_length: Ints<'a>,
    status: Ints<'a>,
    ctime_seconds: SignedInts<'a>,
    ctime_nanoseconds: Ints<'a>,
    inode: Ints<'a>,
    payload_total: u64,
    entries_total: u64,
}

#[derive(Clone, Copy, Debug)]
struct SetColumns<'a> {
    count: usize,
    mode: Ints<'a>,
    uid: Ints<'a>,
    gid: Ints<'a>,
    flags: Ints<'a>,
    project: Ints<'a>,
    xattr_end: Ends<'a>,
    name_end: Ends<'a>,
    names: &'a [u8],
    value_end: Ends<'a>,
    values: &'a [u8],
    external_set: Ints<'a>,
    external_digest: Digests<'a>,
    external_distance: Ints<'a>,
    external_length: Ints<'a>,
}

#[derive(Clone, Copy, Debug)]
struct DirectoryColumns<'a> {
    distance: Ints<'a>,
    length: Ints<'a>,
    entries: Ints<'a>,
}

impl<'a> SetColumns<'a> {
    fn read(body: &Section<'a>, tail: &Section<'a>) -> Result<Self> {
        let count = body.count(section::BODY_SET_MODE);
        let names = body.bytes(section::BODY_XATTR_NAMES)?;
        let values = body.bytes(section::BODY_XATTR_VALUES)?;
        let xattrs = body.count(section::BODY_XATTR_NAME_END);
        let externals = body.count(section::BODY_EXTERNAL_DIGEST);
        Ok(Self {
            count,
            mode: body.ints(section::BODY_SET_MODE, count)?,
            uid: body.ints(section::BODY_SET_UID, count)?,
            gid: body.ints(section::BODY_SET_GID, count)?,
            flags: body.ints(section::BODY_SET_FLAGS, count)?,
            project: body.ints(section::BODY_SET_PROJECT, count)?,
            xattr_end: body.ends(section::BODY_SET_XATTR_END, count, xattrs)?,
            name_end: body.ends(section::BODY_XATTR_NAME_END, xattrs, names.len())?,
            names,
            value_end: body.ends(section::BODY_XATTR_VALUE_END, xattrs, values.len())?,
            values,
            external_set: body.ints(section::BODY_EXTERNAL_SET, externals)?,
            external_digest: body.digests(section::BODY_EXTERNAL_DIGEST, externals)?,
            external_distance: tail.ints(section::TAIL_EXTERNAL_DISTANCE, externals)?,
            external_length: tail.ints(section::TAIL_EXTERNAL_LENGTH, externals)?,
        })
    }

    /// A set's attributes as they stand in the body: without those in a value table.
    fn get(&self, index: usize) -> Result<Attributes> {
        // Spec: A-5.3-4.
        let narrow =
            |value: u64| u32::try_from(value).map_err(|_| Error::corrupt("an attribute is above 32 bits"));
        let xattrs = self.xattr_end.range(index).map(|xattr| Xattr {
            name: self.name_end.part(xattr, self.names).into(),
            value: self.value_end.part(xattr, self.values).into(),
        });
        Ok(Attributes {
            mode: narrow(self.mode.get(index))?,
            uid: narrow(self.uid.get(index))?,
            gid: narrow(self.gid.get(index))?,
            flags: narrow(self.flags.get(index))?,
            project: narrow(self.project.get(index))?,
            xattrs: xattrs.collect(),
        })
    }

    /// Spec: A-7.1-2, A-7.1-6, A-7.1-7.
    fn validate(&self) -> Result<()> {
        let mut previous: Option<(Attributes, bool)> = None;
        for index in 0..self.count {
            let set = self.get(index)?;
            set.validate()?;
            let is_external = self.external_set.search(index as u64).is_some();
            if is_external && !set.xattrs.is_empty() || set.xattr_bytes() > limits::XATTR_INLINE_MAX {
                return Err(Error::corrupt(
                    "extended attributes stand in the body that belong in a value table",
                ));
            }
            if let Some((before, was_external)) = &previous {
                // Two sets that differ in nothing but extended attributes sort by those, which a value table hides.
                let same_but_hidden = (is_external || *was_external) && {
                    let bare = |set: &Attributes| Attributes { xattrs: Vec::new(), ..set.clone() };
                    bare(before) == bare(&set)
                };
                if !same_but_hidden && *before >= set {
                    return Err(Error::corrupt("attribute sets do not ascend"));
                }
            }
            previous = Some((set, is_external));
        }
        let mut last = None;
        for index in self.external_set.iter() {
            if index >= self.count as u64 || last.is_some_and(|last| last >= index) {
                return Err(Error::corrupt("sets with a value table do not ascend or are none"));
            }
            last = Some(index);
        }
        Ok(())
    }
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
        let (mut body, mut tail) = parse_parts(bytes, section::DIRECTORY_BODY, section::DIRECTORY_TAIL)?;
        if is_checked {
            (body, tail) = (body.checked(), tail.checked());
        }
        let rows = body.rows();
        if rows == 0 && (body.has_columns() || tail.has_columns()) {
            return Err(Error::corrupt("a table without rows has columns"));
        }
        let names = body.bytes(section::BODY_NAMES)?;
        let targets = body.bytes(section::BODY_TARGETS)?;
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
            name_end: body.ends(section::BODY_NAME_END, rows, names.len())?,
            names,
            set: body.ints(section::BODY_SET, rows)?,
            seconds: body.signed(section::BODY_MTIME_SECONDS, rows)?,
            nanoseconds: body.ints(section::BODY_MTIME_NANOSECONDS, rows)?,
            size: body.ints(section::BODY_SIZE, rows)?,
            digest: body.digests(section::BODY_DIGEST, rows)?,
            target_row: body.ints(section::BODY_TARGET_ROW, symlinks)?,
            target_end: body.ends(section::BODY_TARGET_END, symlinks, targets.len())?,
            targets,
            device_row: body.ints(section::BODY_DEVICE_ROW, devices)?,
            device_major: body.ints(section::BODY_DEVICE_MAJOR, devices)?,
            device_minor: body.ints(section::BODY_DEVICE_MINOR, devices)?,
            sets: SetColumns::read(&body, &tail)?,
            payload_length: tail.ints(section::TAIL_PAYLOAD_LENGTH, rows)?,
            directories: DirectoryColumns {
                distance: tail.ints(section::TAIL_DISTANCE, directories)?,
                length: tail.ints(section::TAIL_LENGTH, directories)?,
                entries: tail.ints(section::TAIL_ENTRIES, directories)?,
            },
            hole_row: tail.ints(section::TAIL_HOLE_ROW, sparse)?,
            hole_distance: tail.ints(section::TAIL_HOLE_DISTANCE, sparse)?,
            hole_length: tail.ints(section::TAIL_HOLE_LENGTH, sparse)?,
            status: tail.ints(section::TAIL_STATUS, rows)?,
            ctime_seconds: tail.signed(section::TAIL_CTIME_SECONDS, rows)?,
            ctime_nanoseconds: tail.ints(section::TAIL_CTIME_NANOSECONDS, rows)?,
            inode: tail.ints(section::TAIL_INODE, rows)?,
            payload_total: 0,
            entries_total: 0,
        })
    }

    fn validate(&mut self) -> Result<()> {
        self.sets.validate()?;
        let kinds = (0..self.sets.count)
            .map(|set| Kind::from_mode(u32::try_from(self.sets.mode.get(set)).unwrap_or(0)))
            .collect::<Result<Vec<Kind>>>()?;
        let mut used = vec![false; self.sets.count];
        let mut sums = Sums::default();
        for row in 0..self.rows {
            let set = usize::try_from(self.set.get(row)).unwrap_or(usize::MAX);
            let (Some(kind), Some(used)) = (kinds.get(set), used.get_mut(set)) else {
                return Err(Error::corrupt("a row has an attribute set that is not there"));
            };
            *used = true;
            self.validate_name(row)?;
            self.validate_row(row, *kind, &mut sums)?;
        }
        if used.contains(&false) {
            return Err(Error::corrupt("an attribute set is not used"));
        }
        self.validate_counts(&sums)?;
        self.payload_total = sums.payload;
        self.entries_total = sums.entries;
        Ok(())
    }

    /// Names ascend and are valid; the root's, alone in its table, is empty.
    fn validate_name(&self, row: usize) -> Result<()> {
        let name = self.name(row);
        if name.is_empty() && self.rows == 1 {
            return Ok(());
        }
        validate_name(name)?;
        if row > 0 && self.name(row - 1) >= name {
            return Err(Error::corrupt("names of a directory do not ascend"));
        }
        Ok(())
    }

    fn validate_row(&self, row: usize, kind: Kind, sums: &mut Sums) -> Result<()> {
        if self.nanoseconds.get(row) >= 1_000_000_000 || self.ctime_nanoseconds.get(row) >= 1_000_000_000 {
            return Err(Error::corrupt("a time has 1,000,000,000 nanoseconds or more"));
        }
        if self.status.get(row) > 0xf {
            return Err(Error::corrupt("a status has bits that are not known"));
        }
        let (size, payload) = (self.size.get(row), self.payload_length.get(row));
        match kind {
            Kind::File => {
                if size > limits::SIZE_MAX {
                    return Err(Error::limit("content size", size, limits::SIZE_MAX));
                }
                let is_sparse =
                    self.hole_row.get(sums.sparse) == row as u64 && sums.sparse < self.hole_row.len();
                sums.sparse += usize::from(is_sparse);
                let is_unread = self.status(row).has(Status::NOT_READ);
                let fits = match (is_unread, is_sparse) {
                    (true, _) => payload == 0 && !is_sparse && self.digest.get(row) == Digest::NONE,
                    (false, true) => payload < size,
                    (false, false) => payload == size,
                };
                if !fits {
                    return Err(Error::corrupt(
                        "a content's size, payload length, holes and status disagree",
                    ));
                }
            }
            Kind::Directory => {
                let entries = self.directories.entries.get(sums.directories);
                sums.entries = sums.entries.checked_add(entries).ok_or_else(too_large)?;
                sums.directories += 1;
            }
            Kind::Symlink => {
                if self.target_row.get(sums.symlinks) != row as u64 {
                    return Err(Error::corrupt("a symbolic link has no target"));
                }
                validate_target(self.target_end.part(sums.symlinks, self.targets))?;
                sums.symlinks += 1;
            }
            Kind::BlockDevice | Kind::CharDevice => {
                let (major, minor) =
                    (self.device_major.get(sums.devices), self.device_minor.get(sums.devices));
                if self.device_row.get(sums.devices) != row as u64 || (major | minor) > u64::from(u32::MAX) {
                    return Err(Error::corrupt("a device has no number, or one above 32 bits"));
                }
                sums.devices += 1;
            }
            Kind::Fifo | Kind::Socket => {}
        }
        if kind != Kind::File && size != 0 {
            return Err(Error::corrupt("an entry without a content has a size"));
        }
        if !matches!(kind, Kind::File | Kind::Directory)
            && (payload != 0 || self.digest.get(row) != Digest::NONE)
        {
            return Err(Error::corrupt("an entry that holds no bytes has a payload or a digest"));
        }
        sums.payload = sums.payload.checked_add(payload).ok_or_else(too_large)?;
        sums.entries = sums.entries.checked_add(1).ok_or_else(too_large)?;
        Ok(())
    }

    /// The columns for rows of one kind are as long as there are such rows. Spec: A-6-4, A-7.1-5, A-7.1-9.
    fn validate_counts(&self, sums: &Sums) -> Result<()> {
        // A row column of zeros only is absent (the one row is row 0), so that its own count says nothing.
        if self.target_row.len() != sums.symlinks {
            return Err(Error::corrupt("there are targets for rows that are no symbolic links"));
        }
        if self.device_row.len() > sums.devices {
            return Err(Error::corrupt("there are numbers for rows that are no devices"));
        }
        if self.directories.distance.len() != sums.directories {
            return Err(Error::corrupt("there are not as many references as directories"));
        }
        if self.hole_row.len() != sums.sparse {
            return Err(Error::corrupt("there are hole tables for rows that have no content"));
        }
        Ok(())
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
        self.name_end.part(row, self.names)
    }

    /// The row of `name`.
    pub fn find(&self, name: &[u8]) -> Option<usize> {
        let (mut low, mut high) = (0, self.rows);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.name(middle) < name { low = middle + 1 } else { high = middle }
        }
        (low < self.rows && self.name(low) == name).then_some(low)
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
        let set = self.set_of(row);
        !self.sets.xattr_end.range(set).is_empty() || self.external(row).is_some()
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
        self.target_row.search(row as u64).map_or(&[], |index| self.target_end.part(index, self.targets))
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
        let (table, columns) = (*self, self.directories);
        (0..self.rows).filter(move |row| table.is_directory(*row)).enumerate().map(move |(index, row)| {
            let reference =
                Reference { distance: columns.distance.get(index), length: columns.length.get(index) };
            (row, reference, columns.entries.get(index))
        })
    }

    /// Where the top table of the directory at `row` stands, and the entries below it.
    pub fn directory(&self, row: usize) -> Option<(Reference, u64)> {
        self.directories()
            .find(|(found, ..)| *found == row)
            .map(|(_, reference, entries)| (reference, entries))
    }

    /// Where the hole table of the content at `row` stands, if it has holes.
    pub fn holes(&self, row: usize) -> Option<Reference> {
        let index = self.hole_row.search(row as u64)?;
        Some(Reference { distance: self.hole_distance.get(index), length: self.hole_length.get(index) })
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
        let index = self.sets.external_set.search(set as u64)?;
        let (distance, length) =
            (self.sets.external_distance.get(index), self.sets.external_length.get(index));
        Some((Reference { distance, length }, self.sets.external_digest.get(index)))
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

/// What is counted while the rows of a table are checked.
#[derive(Default)]
struct Sums {
    payload: u64,
    entries: u64,
    directories: usize,
    symlinks: usize,
    devices: usize,
    sparse: usize,
}

fn too_large() -> Error {
    Error::corrupt("the sums of a table do not fit 64 bits")
}
