//! Vectors of section 8: the two ends of a metadata stream, its root, its order.

use diptych_format::error::Class::{self, Corrupt, Truncated, Unsupported};
use diptych_format::error::Stream as Bytes;
use diptych_format::section as c;

use super::rows::Row;
use super::stream_maker::{StreamMaker, TableMaker, TrailerMaker};
use super::{Input, Stream, Vector, some_rows};

pub fn vectors() -> Vec<Vector> {
    [headers(), roots(), ends(), trailers(), partial(), payload()].into_iter().flatten().collect()
}

fn small() -> Stream {
    let mut stream = StreamMaker::new();
    let top = stream.directory(some_rows());
    stream.finish(top)
}

/// A stream of which nothing can be had.
fn of_bytes(
    name: &'static str,
    covers: &'static str,
    class: Class,
    what: &'static str,
    (at, bytes): (u64, Vec<u8>),
) -> Vector {
    Vector::of(Input::MetadataStream, name, covers, Some(class), what)
        .with(Some((Bytes::Metadata, at)), bytes)
        .with_listing(vec![], None)
}

fn headers() -> Vec<Vector> {
    let changed = |offset: usize, value: u8| {
        let mut bytes = small().bytes;
        bytes[offset] = value;
        (0, bytes)
    };
    let mut ignorable = small();
    ignorable.bytes[16..20].copy_from_slice(&[0xff; 4]);
    vec![
        of_bytes("8.1_magic", "A-8.1-1", Corrupt, "the magic's last byte is another", changed(7, 0x1b)),
        of_bytes("8.1_version", "A-8.1-2", Unsupported, "version 2", changed(8, 2)),
        of_bytes("8.1_version_0", "A-8.1-2", Unsupported, "version 0", changed(8, 0)),
        of_bytes("8.1_required", "A-8.1-3", Unsupported, "a feature to be known", changed(15, 0x80)),
        Vector::sound("8.1_ignorable", "A-8.1-4", "all features that may be unknown", ignorable),
    ]
}

fn root(name: &'static str, what: &'static str, spoil: impl FnOnce(&mut TableMaker) + 'static) -> Vector {
    let mut stream = StreamMaker::new();
    stream.spoil_root = Some(Box::new(spoil));
    let top = stream.directory(some_rows());
    Vector::fault(name, "A-8.2-1", Corrupt, what, stream.finish(top))
}

fn roots() -> Vec<Vector> {
    let file = |t: &mut TableMaker| {
        t.body.ints(c::BODY_SET_MODE, &[0o100755]);
        t.tail.remove(c::TAIL_DISTANCE).remove(c::TAIL_LENGTH).remove(c::TAIL_ENTRIES);
        t.tail.remove(c::TAIL_PAYLOAD_LENGTH);
    };
    let none = |t: &mut TableMaker| {
        (t.body.rows, t.tail.rows) = (0, 0);
        t.body.columns.clear();
        t.tail.columns.clear();
    };
    vec![
        root("8.2_root_is_file", "the root is a file", file),
        root("8.2_no_root", "the root table has no row", none),
        root("8.2_root_tag", "the root table is a hole table", |t| t.body.tag = *b"HOLE"),
    ]
}

fn ends() -> Vec<Vector> {
    let bytes = small().bytes;
    let cut = |length: usize| bytes[..length].to_vec();
    let end = bytes.len();
    vec![
        of_bytes("8.3_nothing", "A-8.3-1", Truncated, "no bytes at all", (0, vec![])),
        of_bytes("8.3_header_alone", "A-8.3-1", Truncated, "nothing behind the header", (0, cut(32))),
        of_bytes("8.3_of_159", "A-8.3-1", Truncated, "a byte shorter than both ends", (0, cut(159))),
        of_bytes(
            "8.3_cut_off",
            "A-8.3-1",
            Truncated,
            "the last byte lacks",
            (end as u64 - 129, cut(end - 1)),
        ),
        of_bytes("8.3_trailer_lacks", "A-8.3-1", Truncated, "all but the trailer", {
            (end as u64 - 256, cut(end - 128))
        }),
        of_bytes("8.3_byte_behind", "A-8.3-1", Truncated, "a byte behind the trailer", {
            (end as u64 - 127, [&bytes[..], &[0]].concat())
        }),
        of_bytes("8.3_trailer_twice", "A-8.3-1", Truncated, "the trailer stands twice", {
            (end as u64, [&bytes[..], &bytes[end - 128..]].concat())
        }),
    ]
}

fn trailer(
    name: &'static str,
    covers: &'static str,
    class: Class,
    what: &'static str,
    spoil: fn(&mut TrailerMaker),
) -> Vector {
    let mut stream = StreamMaker::new();
    stream.spoil_trailer = Some(Box::new(spoil));
    let top = stream.directory(some_rows());
    Vector::fault(name, covers, class, what, stream.finish(top))
}

fn trailers() -> Vec<Vector> {
    let mut no_mark = StreamMaker::new();
    no_mark.flags = Some(0);
    let top = no_mark.directory(vec![Row::fifo("f").status(8)]);
    let mut no_mark = no_mark.finish(top);
    no_mark.at = Some(no_mark.bytes.len() as u64 - 128);
    vec![
        trailer("8.3_magic", "A-8.3-1", Truncated, "the magic is the header's", |t| {
            t.magic = *b"\x89DPTM\r\n\x1a";
        }),
        trailer("8.3_stream_length", "A-8.3-1", Truncated, "the stream was longer", |t| {
            t.stream_length_off = 8
        }),
        trailer("8.3_version", "A-8.1-2", Unsupported, "the trailer has version 2", |t| t.version = 2),
        trailer("8.3_entries", "A-8.3-2", Corrupt, "an entry more than there are", |t| t.entries += 1),
        trailer("8.3_payload_length", "A-8.3-3", Corrupt, "a payload of no byte", |t| t.payload_length = 0),
        trailer("8.3_flag_beyond", "A-8.3-5", Unsupported, "a flag that is not known", |t| t.flags = 4),
        trailer("8.3_root_beyond", "A-7-4", Corrupt, "the root before the stream", |t| t.root.0 += 1 << 30),
        trailer("8.3_root_overlaps", "A-7-4", Corrupt, "the root overlaps the trailer", |t| t.root.0 = 8),
        trailer("8.3_links_beyond", "A-7-4", Corrupt, "the links in the header", |t| t.links.0 = 1 << 30),
        Vector::fault("8.3_not_incomplete", "A-8.3-4", Corrupt, "a status, and no INCOMPLETE", no_mark),
    ]
}

fn partial() -> Vec<Vector> {
    let mut stream = StreamMaker::new();
    stream.flags = Some(3);
    let below = stream.directory(vec![Row::file("first", "content")]);
    let top = stream.directory(vec![Row::directory("d", below).status(4)]);
    stream.root.status = 4;
    let what = "a checkpoint: two directories were not listed to their end";
    vec![Vector::sound("8.4_partial", "A-8.4-1 A-3.2-3", what, stream.finish(top))]
}

fn payload() -> Vec<Vector> {
    let mut stream = StreamMaker::new();
    let b = stream.directory(vec![Row::file("x", "third")]);
    let d = stream.directory(vec![Row::file("y", "fourth")]);
    let rows = vec![
        Row::file("a", "first"),
        Row::directory("b", b),
        Row::file("c", "second"),
        Row::directory("d", d),
    ];
    let top = stream.directory(rows);
    let stream = stream.finish(top);
    let (lines, tree_id) = (stream.listing.lines.clone(), stream.tree_id);
    let archive = super::pack_maker::ArchiveMaker::new(stream, b"firstsecondthirdfourth");
    let what = "files come before subdirectories, in the walk and in the payload";
    vec![
        Vector::of(Input::Archive, "9_files_first", "A-9-1 A-9-2", None, what)
            .with(None, archive.pack().encode())
            .with_listing(lines, Some(tree_id)),
    ]
}
