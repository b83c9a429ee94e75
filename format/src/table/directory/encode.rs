//! Writing a directory table: rows become columns, and what is too large for a row stands before the table.

use crate::digest::{CONTEXT_VALUES, Digest};
use crate::entry::{Entry, Holds};
use crate::error::Result;
use crate::section::{self, SectionBuilder};
use crate::table::{Below, Reference, add_references, body_digest, encode_holes, encode_values};

use super::DirectoryTable;
use super::sets::SetRows;

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
    let sets = SetRows::of(rows.iter().map(|row| &row.entry.attributes));
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
        payload_length: table.payload_total(),
        entries: table.entries_total(),
    })
}

/// A hole or value table that was written for a row or set.
pub(super) struct Written {
    pub(super) index: usize,
    position: u64,
    length: u64,
}

impl Written {
    fn seen_from(&self, position: u64) -> Reference {
        Reference { distance: position - self.position, length: self.length }
    }
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

fn write_body(
    rows: &[DirectoryRow],
    sets: &SetRows<'_>,
    externals: &[Written],
    external_digests: &[Digest],
    out: &mut Vec<u8>,
) -> Result<usize> {
    let mut body = SectionBuilder::new(section::DIRECTORY_BODY, rows.len());
    let column =
        |value: fn(&Entry) -> u64| -> Vec<u64> { rows.iter().map(|row| value(&row.entry)).collect() };
    let names = rows.iter().map(|row| row.entry.name.as_bytes());
    let seconds: Vec<i64> = rows.iter().map(|row| row.entry.mtime.seconds).collect();
    let digests: Vec<Digest> = rows
        .iter()
        .map(|row| match (&row.entry.holds, row.below) {
            (_, Some(below)) => below.digest,
            (Holds::Content { digest, .. } | Holds::Entries { digest }, None) => *digest,
            _ => Digest::NONE,
        })
        .collect();
    body.divided(section::BODY_NAME_END, section::BODY_NAMES, names)
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
    sets.write(externals, external_digests, &mut body);
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
    body.ints(section::BODY_TARGET_ROW, &target_rows)
        .divided(section::BODY_TARGET_END, section::BODY_TARGETS, targets.into_iter())
        .ints(section::BODY_DEVICE_ROW, &device_rows)
        .ints(section::BODY_DEVICE_MAJOR, &majors)
        .ints(section::BODY_DEVICE_MINOR, &minors);
}

fn write_tail(
    rows: &[DirectoryRow],
    position: u64,
    holes: &[Written],
    externals: &[Written],
    out: &mut Vec<u8>,
) -> Result<usize> {
    let column = |value: fn(&DirectoryRow) -> u64| -> Vec<u64> { rows.iter().map(value).collect() };
    let below: Vec<Below> = rows.iter().filter_map(|row| row.below).collect();
    let directories: Vec<Reference> = below.iter().map(|below| below.seen_from(position)).collect();
    let entries: Vec<u64> = below.iter().map(|below| below.entries).collect();
    let hole_rows: Vec<u64> = holes.iter().map(|written| written.index as u64).collect();
    let seen = |written: &[Written]| -> Vec<Reference> {
        written.iter().map(|written| written.seen_from(position)).collect()
    };
    let ctime: Vec<i64> = rows.iter().map(|row| row.entry.change.ctime.seconds).collect();
    let mut tail = SectionBuilder::new(section::DIRECTORY_TAIL, rows.len());
    tail.ints(section::TAIL_PAYLOAD_LENGTH, &column(DirectoryRow::payload_length));
    add_references(&mut tail, section::TAIL_DISTANCE, section::TAIL_LENGTH, &directories)
        .ints(section::TAIL_ENTRIES, &entries)
        .ints(section::TAIL_HOLE_ROW, &hole_rows);
    add_references(&mut tail, section::TAIL_HOLE_DISTANCE, section::TAIL_HOLE_LENGTH, &seen(holes));
    add_references(
        &mut tail,
        section::TAIL_EXTERNAL_DISTANCE,
        section::TAIL_EXTERNAL_LENGTH,
        &seen(externals),
    );
    tail.ints(section::TAIL_STATUS, &column(|row| row.entry.status.0.into()))
        .signed(section::TAIL_CTIME_SECONDS, &ctime)
        .ints(section::TAIL_CTIME_NANOSECONDS, &column(|row| row.entry.change.ctime.nanoseconds.into()))
        .ints(section::TAIL_INODE, &column(|row| row.entry.change.inode))
        .finish(out)
}
