//! Vectors of section 6: the frame of sections and the form of columns.

use diptych_format::error::Class::{Corrupt, Truncated, Unsupported};
use diptych_format::section as c;

use super::rows::Row;
use super::stream_maker::TableMaker;
use super::{Vector, beside, broken, some_rows};

pub fn vectors() -> Vec<Vector> {
    [lengths(), ids(), counts(), widths(), zeros(), ends(), unknown(), frames()]
        .into_iter()
        .flatten()
        .collect()
}

fn wrong(
    name: &'static str,
    covers: &'static str,
    what: &'static str,
    spoil: impl FnOnce(&mut TableMaker),
) -> Vector {
    Vector::fault(name, covers, Corrupt, what, broken(some_rows(), spoil))
}

fn lengths() -> Vec<Vector> {
    vec![
        wrong("6_length_odd", "A-6-1", "a length that is no multiple of 8", |t| t.body.length_off = -4),
        wrong("6_length_8", "A-6-1", "a length below that of the header", |t| {
            t.body.length_off = 8 - t.body.encode().len() as i64;
        }),
        wrong("6_length_too_short", "A-6-1", "the columns end beyond the length", |t| t.body.length_off = -8),
        wrong("6_bytes_behind_columns", "A-6-1", "eight bytes behind the last column", |t| {
            t.body.rest = vec![0; 8];
        }),
        wrong("6_bytes_behind_columns_of_tail", "A-6-1", "eight bytes behind the tail's columns", |t| {
            t.tail.rest = vec![0; 8];
        }),
    ]
}

fn ids() -> Vec<Vector> {
    vec![
        wrong("6_ids_descend", "A-6-2", "two columns are in the wrong order", |t| t.body.columns.swap(1, 2)),
        wrong("6_id_twice", "A-6-2", "a column stands twice", |t| {
            let again = t.body.columns[0].clone();
            t.body.columns.insert(0, again);
        }),
    ]
}

fn counts() -> Vec<Vector> {
    let count = |name, what, spoil: fn(&mut TableMaker)| wrong(name, "A-6-4", what, spoil);
    vec![
        wrong("6_count_0", "A-6-3", "a column has no values", |t| {
            t.tail.put(0x04, 1, 0, vec![]);
        }),
        count("6_count_of_ints", "four sizes for three rows", |t| {
            t.body.ints(c::BODY_SIZE, &[1, 0, 0, 0]);
        }),
        count("6_count_of_signed", "two times for three rows", |t| {
            t.body.signed(c::BODY_MTIME_SECONDS, &[1, 2]);
        }),
        count("6_count_of_digests", "two digests for three rows", |t| {
            let column = t.body.column(c::BODY_DIGEST);
            (column.count, column.data) = (2, column.data[..64].to_vec());
        }),
        wrong("6_digests_absent", "A-6-13", "no digests for three rows", |t| {
            t.body.remove(c::BODY_DIGEST);
        }),
        count("6_count_of_sets", "two uids for three sets", |t| {
            t.body.ints(c::BODY_SET_UID, &[1, 2]);
        }),
        count("6_count_of_bytes", "a name more than there are ends", |t| {
            t.body.bytes(c::BODY_NAMES, b"fln!");
        }),
        count("6_count_of_status", "a status for a fourth row", |t| {
            t.tail.ints(c::TAIL_STATUS, &[1, 0, 0, 0]);
        }),
    ]
}

fn widths() -> Vec<Vector> {
    let width = |name, what, spoil: fn(&mut TableMaker)| wrong(name, "A-6-5", what, spoil);
    let wide = |name, what, spoil: fn(&mut TableMaker)| wrong(name, "A-6-6", what, spoil);
    vec![
        width("6_width_3", "integers of three bytes", |t| {
            t.body.put(c::BODY_SIZE.id, 3, 3, vec![1, 0, 0, 0, 0, 0, 0, 0, 0]);
        }),
        width("6_width_of_bytes", "bytes of width 2", |t| {
            t.body.put(c::BODY_NAMES.id, 2, 3, b"f\0l\0n\0".to_vec());
        }),
        width("6_width_of_digests", "digests of 16 bytes", |t| {
            let column = t.body.column(c::BODY_DIGEST);
            (column.width, column.data) = (16, column.data[..48].to_vec());
        }),
        width("6_width_0", "integers of no bytes", |t| {
            t.body.put(c::BODY_SIZE.id, 0, 3, vec![]);
        }),
        wide("6_ints_too_wide", "two bytes for numbers below 256", |t| {
            t.body.ints_of_width(c::BODY_SIZE, 2, &[1, 0, 0]);
        }),
        wide("6_ints_of_tail_too_wide", "eight bytes for numbers below 2^32", |t| {
            t.tail.ints_of_width(c::TAIL_PAYLOAD_LENGTH, 8, &[1, 0, 0]);
        }),
        wide("6_signed_too_wide", "eight bytes where four will do", |t| {
            let seconds = [1_700_000_000, u64::MAX, 1_600_000_000];
            t.body.ints_of_width(c::BODY_MTIME_SECONDS, 8, &seconds);
        }),
        least_widths(),
    ]
}

fn least_widths() -> Vector {
    let times = [-0x80, 0x7f, -1];
    let rows = ["a", "b", "c"].iter().zip(times).map(|(name, time)| Row::fifo(name).mtime(time, 255));
    let what = "one byte holds -128 to 127, and 255 without a sign";
    let stream = beside(|stream| stream.directory(rows.collect()));
    Vector::sound("6_least_widths", "A-6-6", what, stream)
}

fn zeros() -> Vec<Vector> {
    let zero = |name, what, spoil: fn(&mut TableMaker)| wrong(name, "A-6-7", what, spoil);
    vec![
        zero("6_zeros", "a column of integers of nothing but zeros", |t| {
            t.body.ints_of_width(c::BODY_SET_UID, 1, &[0, 0, 0]);
        }),
        zero("6_signed_zeros", "a signed column of nothing but zeros", |t| {
            t.body.ints_of_width(c::BODY_MTIME_SECONDS, 1, &[0, 0, 0]);
        }),
        wrong("6_ends_of_zeros", "A-6-7 A-6-8", "a column of ends of nothing but zeros", |t| {
            t.body.ints_of_width(c::BODY_SET_XATTR_END, 1, &[0, 0, 0]);
        }),
    ]
}

fn ends() -> Vec<Vector> {
    let end = |name, what, spoil: fn(&mut TableMaker)| wrong(name, "A-6-8", what, spoil);
    vec![
        end("6_ends_descend", "ends of names descend", |t| {
            t.body.ints(c::BODY_NAME_END, &[2, 1, 3]);
        }),
        end("6_ends_beyond", "the last end is beyond the names", |t| {
            t.body.ints(c::BODY_NAME_END, &[1, 2, 4]);
        }),
        end("6_ends_before_the_end", "the last end is before that of the values", |t| {
            t.body.ints(c::BODY_TARGET_END, &[1]).bytes(c::BODY_TARGETS, b"ff");
        }),
        end("6_ends_absent", "names, and no ends", |t| {
            t.body.remove(c::BODY_NAME_END);
        }),
    ]
}

fn unknown() -> Vec<Vector> {
    let required = |name, what, spoil: fn(&mut TableMaker)| {
        Vector::fault(name, "A-6-9", Unsupported, what, broken(some_rows(), spoil))
    };
    let ignorable = beside(|stream| {
        stream.changed(some_rows(), |t| {
            t.tail.put(0x8000, 5, 3, vec![7; 15]).put(0xffff, 1, 1, vec![0]);
        })
    });
    vec![
        required("6_unknown_column", "a column of a body that is not known", |t| {
            t.body.put(0x7fff, 1, 3, vec![1; 3]);
        }),
        required("6_unknown_column_of_tail", "a column of a tail that is not known", |t| {
            t.tail.put(0x0b, 1, 3, vec![1; 3]);
        }),
        Vector::sound("6_ignorable_columns", "A-6-9", "columns of a tail to be ignored", ignorable),
        wrong("6_ignorable_column_in_body", "A-6-10", "a column to be ignored stands in a body", |t| {
            t.body.put(0x8000, 1, 3, vec![1; 3]);
        }),
    ]
}

fn frames() -> Vec<Vector> {
    let cut = |name, what, spoil: fn(&mut TableMaker)| {
        Vector::fault(name, "A-6-11", Truncated, what, broken(some_rows(), spoil))
    };
    let tag = |name, what, spoil: fn(&mut TableMaker)| wrong(name, "A-6-12", what, spoil);
    vec![
        cut("6_body_beyond_table", "a body ends beyond its table", |t| t.body.length_off = 1 << 20),
        cut("6_tail_beyond_table", "a tail ends beyond its table", |t| t.tail.length_off = 8),
        tag("6_tag_of_body", "a table begins with a hole table's tag", |t| t.body.tag = *b"HOLE"),
        tag("6_tag_of_tail", "a body is followed by an index table's tail", |t| t.tail.tag = *b"IDXT"),
        tag("6_tag_unknown", "a tag that is none", |t| t.body.tag = *b"dirb"),
        links_instead_of_directory(),
    ]
}

fn links_instead_of_directory() -> Vector {
    let stream = broken(vec![], |t| (t.body.tag, t.tail.tag) = (*b"LNKB", *b"LNKT"));
    Vector::fault("6_links_as_directory", "A-6-12", Corrupt, "a directory leads to a link table", stream)
}
