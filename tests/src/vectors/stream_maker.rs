//! Metadata streams table by table: right in everything but what a vector spoils on purpose. What depends on the
//! spoiled bytes (digests, distances, sums) is made to fit them, so that there is one fault and no other.

use diptych_format::digest::{CONTEXT_BODY, CONTEXT_TREE, CONTEXT_VALUES, Digest};
use diptych_format::section::{self as c, Column};

use super::rows::{Holds, Listing, Piece, Placed, Row};
use super::section_maker::SectionMaker;

/// A table before it is written: both of its sections.
pub struct TableMaker {
    /// What it is.
    pub body: SectionMaker,
    /// Where things are.
    pub tail: SectionMaker,
    /// Bytes between body and tail.
    pub between: Vec<u8>,
    /// Bytes behind the tail that references count.
    pub rest: Vec<u8>,
}

impl TableMaker {
    fn new(body: SectionMaker, tail: SectionMaker) -> Self {
        Self { body, tail, between: Vec::new(), rest: Vec::new() }
    }
}

/// Spoils something.
pub type Edit<'e, T> = Option<Box<dyn FnOnce(&mut T) + 'e>>;

/// Ids with their names.
pub type OwnerList<'e> = Vec<(u64, &'e [u8])>;

/// The fields of a trailer.
pub struct TrailerMaker {
    /// Distance and length of the root table.
    pub root: (u64, u64),
    /// Distance and length of the top link table.
    pub links: (u64, u64),
    /// Distance and length of the owner table.
    pub owners: (u64, u64),
    /// The tree id.
    pub tree_id: Digest,
    /// Entries.
    pub entries: u64,
    /// Length of the payload stream.
    pub payload_length: u64,
    /// What is added to the stream's length.
    pub stream_length_off: i64,
    /// Version.
    pub version: u16,
    /// Flags.
    pub flags: u16,
    /// The last of the reserved bytes.
    pub reserved: u8,
    /// The magic.
    pub magic: [u8; 8],
}

/// A metadata stream as far as it is written, and how it is to end.
pub struct StreamMaker<'e> {
    /// The bytes so far.
    pub bytes: Vec<u8>,
    /// Where the fault is.
    pub at: Option<u64>,
    /// Spoils the next hole table.
    pub spoil_holes: Edit<'e, SectionMaker>,
    /// Spoils the next value table.
    pub spoil_values: Edit<'e, SectionMaker>,
    /// Rows of the link table: path, first path, paths in the group.
    pub links: Vec<(Vec<u8>, Vec<u8>, u64)>,
    /// Spoils the link table, so that nothing can be handed out.
    pub spoil_links: Edit<'e, TableMaker>,
    /// Says that rows of the link table are wrong, which nobody sees who only walks.
    pub are_links_wrong: bool,
    /// Names of users and of groups.
    pub owners: Option<[OwnerList<'e>; 2]>,
    /// Spoils the owner table.
    pub spoil_owners: Edit<'e, SectionMaker>,
    /// Spoils the root table.
    pub spoil_root: Edit<'e, TableMaker>,
    /// Spoils the trailer.
    pub spoil_trailer: Edit<'e, TrailerMaker>,
    /// The trailer's flags, if they are not to follow from the rows.
    pub flags: Option<u16>,
    /// The root's own row; its name and what is below are set when the stream ends.
    pub root: Row,
}

/// A whole stream.
pub struct Stream {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// What a walk hands out.
    pub listing: Listing,
    /// Where the fault is.
    pub at: Option<u64>,
    /// The tree id.
    pub tree_id: Digest,
    /// Entries, the root counted.
    pub entries: u64,
    /// Length of the payload stream.
    pub payload_length: u64,
    /// The trailer's flags.
    pub flags: u16,
}

impl<'e> StreamMaker<'e> {
    /// A stream with its header.
    pub fn new() -> Self {
        let mut bytes = b"\x89DPTM\r\n\x1a\x01\0".to_vec();
        bytes.resize(32, 0);
        let nothing = Placed {
            position: 0,
            length: 0,
            digest: Digest::NONE,
            payload: 0,
            entries: 0,
            pieces: Vec::new(),
        };
        Self {
            bytes,
            at: None,
            spoil_holes: None,
            spoil_values: None,
            links: Vec::new(),
            spoil_links: None,
            are_links_wrong: false,
            owners: None,
            spoil_owners: None,
            spoil_root: None,
            spoil_trailer: None,
            flags: None,
            root: Row::directory("", nothing),
        }
    }

    fn position(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Writes the table of a directory, or of a piece.
    pub fn directory(&mut self, rows: Vec<Row>) -> Placed {
        self.write_directory(rows, |_| (), false)
    }

    /// Writes a table of a directory that is wrong.
    pub fn broken(&mut self, rows: Vec<Row>, spoil: impl FnOnce(&mut TableMaker)) -> Placed {
        self.write_directory(rows, spoil, true)
    }

    /// Writes a table of a directory that is changed and still right.
    pub fn changed(&mut self, rows: Vec<Row>, change: impl FnOnce(&mut TableMaker)) -> Placed {
        self.write_directory(rows, change, false)
    }

    fn write_directory(
        &mut self,
        rows: Vec<Row>,
        spoil: impl FnOnce(&mut TableMaker),
        is_broken: bool,
    ) -> Placed {
        let aside = self.at;
        let holes = self.write_holes(&rows);
        let sets = sets_of(&rows);
        let values = self.write_values(&sets);
        let position = self.position();
        let body = directory_body(&rows, &sets, &values);
        let tail = directory_tail(&rows, position, &holes, &values);
        let mut table = TableMaker::new(body, tail);
        spoil(&mut table);
        if is_broken {
            self.at = Some(position);
        }
        let payload = rows.iter().fold(0u64, |sum, row| sum.wrapping_add(row.payload()));
        let entries =
            rows.iter().fold(0u64, |sum, row| sum.wrapping_add(1).wrapping_add(row.entries_below()));
        // A hole or value table that was spoiled just now breaks the table that refers to it.
        let is_broken = self.at != aside;
        let (digest, length) = self.write_table(&table);
        Placed { position, length, digest, payload, entries, pieces: vec![Piece { rows, is_broken }] }
    }

    fn write_table(&mut self, table: &TableMaker) -> (Digest, u64) {
        let start = self.position();
        let body = table.body.encode();
        self.bytes.extend(&body);
        self.bytes.extend(&table.between);
        self.bytes.extend(table.tail.encode());
        self.bytes.extend(&table.rest);
        (Digest::in_context(CONTEXT_BODY, &body), self.position() - start)
    }

    /// Writes the hole tables of some rows: row, position, length of each.
    fn write_holes(&mut self, rows: &[Row]) -> Vec<(u64, u64, u64)> {
        let mut found = Vec::new();
        for (index, row) in rows.iter().enumerate() {
            let Holds::Content(_, _, holes) = &row.holds else { continue };
            if holes.is_empty() {
                continue;
            }
            let mut section = SectionMaker::new(c::HOLES, holes.len());
            section.ints(c::HOLE_START, &holes.iter().map(|hole| hole.0).collect::<Vec<_>>());
            section.ints(c::HOLE_LENGTH, &holes.iter().map(|hole| hole.1).collect::<Vec<_>>());
            let position = self.position();
            if let Some(spoil) = self.spoil_holes.take() {
                spoil(&mut section);
                self.at = Some(position);
            }
            self.bytes.extend(section.encode());
            found.push((index as u64, position, self.position() - position));
        }
        found
    }

    /// Writes the value tables of some sets: set, position, length, digest of each.
    fn write_values(&mut self, sets: &[&Row]) -> Vec<(u64, u64, u64, Digest)> {
        let mut found = Vec::new();
        for (index, set) in sets.iter().enumerate() {
            if set.xattr_bytes() <= 2048 {
                continue;
            }
            let names: Vec<&[u8]> = set.xattrs.iter().map(|xattr| &xattr.0[..]).collect();
            let values: Vec<&[u8]> = set.xattrs.iter().map(|xattr| &xattr.1[..]).collect();
            let mut section = SectionMaker::new(c::VALUES, names.len());
            section.parts(c::VALUE_XATTR_NAME_END, c::VALUE_XATTR_NAMES, &names);
            section.parts(c::VALUE_XATTR_VALUE_END, c::VALUE_XATTR_VALUES, &values);
            let position = self.position();
            if let Some(spoil) = self.spoil_values.take() {
                spoil(&mut section);
                self.at = Some(position);
            }
            let bytes = section.encode();
            let digest = Digest::in_context(CONTEXT_VALUES, &bytes);
            self.bytes.extend(bytes);
            found.push((index as u64, position, self.position() - position, digest));
        }
        found
    }

    /// Writes an index table over pieces.
    pub fn index(&mut self, pieces: Vec<Placed>, level: u64) -> Placed {
        self.write_index(pieces, level, |_| (), false)
    }

    /// Writes an index table that is wrong.
    pub fn broken_index(
        &mut self,
        pieces: Vec<Placed>,
        level: u64,
        spoil: impl FnOnce(&mut TableMaker),
    ) -> Placed {
        self.write_index(pieces, level, spoil, true)
    }

    /// Writes an index table that says something else of its pieces.
    pub fn changed_index(&mut self, pieces: Vec<Placed>, change: impl FnOnce(&mut TableMaker)) -> Placed {
        self.write_index(pieces, 1, change, false)
    }

    fn write_index(
        &mut self,
        pieces: Vec<Placed>,
        level: u64,
        spoil: impl FnOnce(&mut TableMaker),
        is_broken: bool,
    ) -> Placed {
        let position = self.position();
        let firsts: Vec<&[u8]> = pieces
            .iter()
            .map(|piece| piece.pieces[0].rows.first().map_or(&b""[..], |row| &row.name))
            .collect();
        let digests: Vec<Digest> = pieces.iter().map(|piece| piece.digest).collect();
        let column = |value: fn(&Placed) -> u64| pieces.iter().map(value).collect::<Vec<u64>>();
        let distances: Vec<u64> = column(|piece| piece.position).iter().map(|at| position - at).collect();
        let mut body = SectionMaker::new(c::INDEX_BODY, pieces.len());
        body.parts(c::INDEX_NAME_END, c::INDEX_NAMES, &firsts).digests(c::INDEX_DIGEST, &digests);
        body.ints(c::INDEX_LEVEL, &[level]);
        let mut tail = SectionMaker::new(c::INDEX_TAIL, pieces.len());
        tail.ints(c::INDEX_PAYLOAD_LENGTH, &column(|piece| piece.payload));
        tail.ints(c::INDEX_DISTANCE, &distances).ints(c::INDEX_LENGTH, &column(|piece| piece.length));
        tail.ints(c::INDEX_ENTRIES, &column(|piece| piece.entries));
        let (payload, entries) =
            (column(|piece| piece.payload).iter().sum(), column(|piece| piece.entries).iter().sum());
        let mut table = TableMaker::new(body, tail);
        spoil(&mut table);
        let (digest, length) = self.write_table(&table);
        if is_broken {
            self.at = Some(position);
        }
        let mut pieces: Vec<Piece> = pieces.into_iter().flat_map(|piece| piece.pieces).collect();
        if let Some(first) = pieces.first_mut().filter(|_| is_broken) {
            first.is_broken = true;
        }
        Placed { position, length, digest, payload, entries, pieces }
    }

    /// Writes root, links, owners and trailer over the root directory's top table.
    pub fn finish(mut self, top: Placed) -> Stream {
        let before_the_ends = self.at;
        self.root.holds = Holds::Below(top);
        let root = self.root.clone();
        let spoil = self.spoil_root.take();
        let root_table = match spoil {
            None => self.directory(vec![root.clone()]),
            Some(spoil) => self.broken(vec![root.clone()], spoil),
        };
        let (links_at, links) = self.write_links();
        let owners_at = self.position();
        let owners_length = self.write_owners();
        let end = self.position();
        let tree_id = Digest::in_context(CONTEXT_TREE, &[root_table.digest.0, links.0.0].concat());
        let mut trailer = TrailerMaker {
            root: (end - root_table.position, root_table.length),
            links: (end - links_at, links.1),
            owners: if owners_length > 0 { (end - owners_at, owners_length) } else { (0, 0) },
            tree_id,
            entries: root_table.entries,
            payload_length: root_table.payload,
            stream_length_off: 0,
            version: 1,
            flags: self.flags.unwrap_or(2 * u16::from(has_status(&root))),
            reserved: 0,
            magic: *b"DPTMEND\n",
        };
        let mut listing = Listing::default();
        let is_hidden = self.at != before_the_ends && !self.are_links_wrong && self.at != Some(owners_at);
        if let Some(spoil) = self.spoil_trailer.take() {
            spoil(&mut trailer);
            self.at = Some(end);
        } else if !is_hidden {
            listing.add(b"", &root);
        }
        let flags = trailer.flags;
        self.write_trailer(&trailer);
        let Self { bytes, at, .. } = self;
        let (entries, payload_length) = (root_table.entries, root_table.payload);
        Stream { bytes, listing, at, tree_id, entries, payload_length, flags }
    }

    fn write_links(&mut self) -> (u64, (Digest, u64)) {
        let position = self.position();
        let mut body = SectionMaker::new(c::LINK_BODY, self.links.len());
        let paths: Vec<&[u8]> = self.links.iter().map(|link| &link.0[..]).collect();
        let firsts: Vec<&[u8]> = self.links.iter().map(|link| &link.1[..]).collect();
        let counts: Vec<u64> = self.links.iter().map(|link| link.2).collect();
        body.parts(c::LINK_NAME_END, c::LINK_NAMES, &paths).parts(c::LINK_FIRST_END, c::LINK_FIRSTS, &firsts);
        body.ints(c::LINK_COUNT, &counts);
        let tail = SectionMaker::new(c::LINK_TAIL, self.links.len());
        let mut table = TableMaker::new(body, tail);
        if let Some(spoil) = self.spoil_links.take() {
            spoil(&mut table);
            self.at = Some(position);
        }
        if self.are_links_wrong {
            self.at = Some(position);
        }
        (position, self.write_table(&table))
    }

    fn write_owners(&mut self) -> u64 {
        let Some([users, groups]) = &self.owners else { return 0 };
        let mut section = SectionMaker::new(c::OWNERS, users.len() + groups.len());
        let mut list = |id: Column, ends: Column, names: Column, list: &[(u64, &[u8])]| {
            section.ints(id, &list.iter().map(|owner| owner.0).collect::<Vec<_>>());
            section.parts(ends, names, &list.iter().map(|owner| owner.1).collect::<Vec<_>>());
        };
        list(c::OWNER_UID, c::OWNER_USER_END, c::OWNER_USERS, users);
        list(c::OWNER_GID, c::OWNER_GROUP_END, c::OWNER_GROUPS, groups);
        section.ints(c::OWNER_USER_COUNT, &[users.len() as u64]);
        section.ints(c::OWNER_GROUP_COUNT, &[groups.len() as u64]);
        let position = self.position();
        if let Some(spoil) = self.spoil_owners.take() {
            spoil(&mut section);
            self.at = Some(position);
        }
        self.bytes.extend(section.encode());
        self.position() - position
    }

    fn write_trailer(&mut self, trailer: &TrailerMaker) {
        let length = (self.position() + 128).wrapping_add_signed(trailer.stream_length_off);
        let TrailerMaker { root, links, owners, .. } = trailer;
        for number in [root.0, root.1, links.0, links.1, owners.0, owners.1] {
            self.bytes.extend(number.to_le_bytes());
        }
        self.bytes.extend(trailer.tree_id.0);
        for number in [trailer.entries, trailer.payload_length, length] {
            self.bytes.extend(number.to_le_bytes());
        }
        self.bytes.extend(trailer.version.to_le_bytes());
        self.bytes.extend(trailer.flags.to_le_bytes());
        self.bytes.extend([0; 11]);
        self.bytes.push(trailer.reserved);
        self.bytes.extend(trailer.magic);
    }
}

impl Default for StreamMaker<'_> {
    fn default() -> Self {
        Self::new()
    }
}

fn has_status(row: &Row) -> bool {
    let below = match &row.holds {
        Holds::Below(below) => &below.pieces[..],
        _ => &[],
    };
    row.status != 0 || below.iter().flat_map(|piece| &piece.rows).any(has_status)
}

/// What rows that share a set have in common.
type SetKey<'r> = (u64, u64, u64, u64, &'r [(Vec<u8>, Vec<u8>)]);

fn set_key(row: &Row) -> SetKey<'_> {
    (row.mode, row.uid, row.gid, row.flags, &row.xattrs)
}

/// One row of each set, by set.
fn sets_of(rows: &[Row]) -> Vec<&Row> {
    let mut sets: Vec<&Row> = rows.iter().collect();
    sets.sort_by(|a, b| set_key(a).cmp(&set_key(b)));
    sets.dedup_by(|a, b| set_key(a) == set_key(b));
    sets
}

fn directory_body(rows: &[Row], sets: &[&Row], values: &[(u64, u64, u64, Digest)]) -> SectionMaker {
    let mut body = SectionMaker::new(c::DIRECTORY_BODY, rows.len());
    let column = |value: &dyn Fn(&Row) -> u64| rows.iter().map(value).collect::<Vec<u64>>();
    let set_of = |row: &Row| sets.iter().position(|set| set_key(set) == set_key(row)).unwrap() as u64;
    let names: Vec<&[u8]> = rows.iter().map(|row| &row.name[..]).collect();
    body.parts(c::BODY_NAME_END, c::BODY_NAMES, &names).ints(c::BODY_SET, &column(&set_of));
    body.signed(c::BODY_MTIME_SECONDS, &rows.iter().map(|row| row.mtime.0).collect::<Vec<_>>());
    body.ints(c::BODY_MTIME_NANOSECONDS, &column(&|row| row.mtime.1));
    body.ints(c::BODY_SIZE, &column(&Row::size));
    body.digests(c::BODY_DIGEST, &rows.iter().map(Row::digest).collect::<Vec<_>>());
    let (mut links, mut targets, mut devices) = (Vec::new(), Vec::new(), Vec::new());
    for (index, row) in rows.iter().enumerate() {
        match &row.holds {
            Holds::Target(target) => {
                links.push(index as u64);
                targets.push(target);
            }
            Holds::Device(major, minor) => devices.push((index as u64, *major, *minor)),
            _ => {}
        }
    }
    let device = |part: fn(&(u64, u64, u64)) -> u64| devices.iter().map(part).collect::<Vec<u64>>();
    body.ints(c::BODY_TARGET_ROW, &links).parts(c::BODY_TARGET_END, c::BODY_TARGETS, &targets);
    body.ints(c::BODY_DEVICE_ROW, &device(|d| d.0)).ints(c::BODY_DEVICE_MAJOR, &device(|d| d.1));
    body.ints(c::BODY_DEVICE_MINOR, &device(|d| d.2));
    let column = |value: fn(&Row) -> u64| sets.iter().map(|set| value(set)).collect::<Vec<u64>>();
    body.ints(c::BODY_SET_MODE, &column(|set| set.mode)).ints(c::BODY_SET_UID, &column(|set| set.uid));
    body.ints(c::BODY_SET_GID, &column(|set| set.gid)).ints(c::BODY_SET_FLAGS, &column(|set| set.flags));
    write_xattrs(sets, &mut body);
    body.ints(c::BODY_EXTERNAL_SET, &values.iter().map(|value| value.0).collect::<Vec<_>>());
    body.digests(c::BODY_EXTERNAL_DIGEST, &values.iter().map(|value| value.3).collect::<Vec<_>>());
    body
}

/// The extended attributes that stand in the body.
fn write_xattrs(sets: &[&Row], body: &mut SectionMaker) {
    let (mut ends, mut names, mut values) = (Vec::new(), Vec::<&[u8]>::new(), Vec::<&[u8]>::new());
    for set in sets {
        for (name, value) in set.xattrs.iter().filter(|_| set.xattr_bytes() <= 2048) {
            names.push(name);
            values.push(value);
        }
        ends.push(names.len() as u64);
    }
    body.ints(c::BODY_SET_XATTR_END, &ends);
    body.parts(c::BODY_XATTR_NAME_END, c::BODY_XATTR_NAMES, &names);
    body.parts(c::BODY_XATTR_VALUE_END, c::BODY_XATTR_VALUES, &values);
}

fn directory_tail(
    rows: &[Row],
    position: u64,
    holes: &[(u64, u64, u64)],
    values: &[(u64, u64, u64, Digest)],
) -> SectionMaker {
    let mut tail = SectionMaker::new(c::DIRECTORY_TAIL, rows.len());
    let below: Vec<&Placed> = rows
        .iter()
        .filter_map(|row| match &row.holds {
            Holds::Below(below) => Some(below),
            _ => None,
        })
        .collect();
    let column = |value: fn(&Row) -> u64| rows.iter().map(value).collect::<Vec<u64>>();
    let of_below = |value: &dyn Fn(&&Placed) -> u64| below.iter().map(value).collect::<Vec<u64>>();
    tail.ints(c::TAIL_PAYLOAD_LENGTH, &column(Row::payload));
    tail.ints(c::TAIL_DISTANCE, &of_below(&|below| position - below.position));
    tail.ints(c::TAIL_LENGTH, &of_below(&|below| below.length));
    tail.ints(c::TAIL_ENTRIES, &of_below(&|below| below.entries));
    tail.ints(c::TAIL_HOLE_ROW, &holes.iter().map(|hole| hole.0).collect::<Vec<_>>());
    tail.ints(c::TAIL_HOLE_DISTANCE, &holes.iter().map(|hole| position - hole.1).collect::<Vec<_>>());
    tail.ints(c::TAIL_HOLE_LENGTH, &holes.iter().map(|hole| hole.2).collect::<Vec<_>>());
    tail.ints(c::TAIL_EXTERNAL_DISTANCE, &values.iter().map(|value| position - value.1).collect::<Vec<_>>());
    tail.ints(c::TAIL_EXTERNAL_LENGTH, &values.iter().map(|value| value.2).collect::<Vec<_>>());
    tail.ints(c::TAIL_STATUS, &column(|row| row.status));
    tail.signed(c::TAIL_CTIME_SECONDS, &rows.iter().map(|row| row.ctime.0).collect::<Vec<_>>());
    tail.ints(c::TAIL_CTIME_NANOSECONDS, &column(|row| row.ctime.1));
    tail
}
