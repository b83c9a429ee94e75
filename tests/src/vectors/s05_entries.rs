//! Vectors of section 5: what single values may be.

use diptych_format::error::Class::{Corrupt, Limit};
use diptych_format::section as c;

use super::rows::{Holds, Row};
use super::{Stream, Vector, beside, right_rows, wrong_rows};

pub fn vectors() -> Vec<Vector> {
    [modes(), times(), attributes(), external_attributes(), status(), targets(), holes()]
        .into_iter()
        .flatten()
        .collect()
}

fn wrong(name: &'static str, covers: &'static str, what: &'static str, row: Row) -> Vector {
    Vector::fault(name, covers, Corrupt, what, wrong_rows(vec![row]))
}

fn right(name: &'static str, covers: &'static str, what: &'static str, row: Row) -> Vector {
    Vector::sound(name, covers, what, right_rows(vec![row]))
}

fn over(name: &'static str, covers: &'static str, what: &'static str, row: Row) -> Vector {
    Vector::fault(name, covers, Limit, what, wrong_rows(vec![row]))
}

fn modes() -> Vec<Vector> {
    let mut every: Vec<Row> = vec![Row::device("a-block", 8, 1).mode(0o060660), Row::device("b-char", 1, 3)];
    every.extend([Row::fifo("c-fifo"), Row::file("d-file", ""), Row::fifo("e-socket").mode(0o140755)]);
    every.push(Row::symlink("f-symlink", "d-file"));
    vec![
        Vector::sound("5.1_every_kind", "A-5.1-1", "one entry of each kind", right_rows(every)),
        wrong("5.1_no_kind", "A-5.1-1", "type bits that name no kind", Row::fifo("f").mode(0o030644)),
        wrong("5.1_kind_zero", "A-5.1-1", "no type bits", Row::fifo("f").mode(0o644)),
        right("5.1_all_permissions", "A-5.1-2", "all permission bits", Row::fifo("f").mode(0o017777)),
        wrong("5.1_bits_beyond", "A-5.1-2", "a mode has bit 16", Row::fifo("f").mode(0o210644)),
        wrong("5.1_mode_of_33_bits", "A-5.1-2", "a mode has bit 32", Row::fifo("f").mode(0x1_0000_11a4)),
    ]
}

fn times() -> Vec<Vector> {
    let mut ctime = Row::fifo("f");
    ctime.ctime.1 = 1_000_000_000;
    vec![
        right(
            "5.2_time_before_1970",
            "A-5.2-1",
            "times count forward",
            Row::fifo("f").mtime(-1, 999_999_999),
        ),
        right("5.2_first_time", "A-5.2-1", "the least time", Row::fifo("f").mtime(i64::MIN, 0)),
        wrong("5.2_a_whole_second", "A-5.2-1", "10^9 nanoseconds", Row::fifo("f").mtime(0, 1_000_000_000)),
        wrong("5.2_a_whole_second_of_ctime", "A-5.2-1", "10^9 nanoseconds in a ctime", ctime),
    ]
}

fn attributes() -> Vec<Vector> {
    let flags = |flags| Row { flags, ..Row::fifo("f") };
    let (name, value) = ([b'n'; 255], vec![b'v'; 2048 - 255]);
    let descending = Row::fifo("f").xattr("user.b", "").xattr("user.a", "");
    let twice = Row::fifo("f").xattr("user.a", "").xattr("user.a", "1");
    vec![
        right("5.3_all_flags", "A-5.3-1", "every flag of the mask", flags(1_652_802_815)),
        wrong("5.3_flag_beyond", "A-5.3-1", "the flag of extents is not in the mask", flags(0x0008_0000)),
        right("5.3_uid_max", "A-5.3-1", "the largest uid", Row::fifo("f").uid(u32::MAX.into())),
        wrong("5.3_uid_of_33_bits", "A-5.3-1", "a uid of 33 bits", Row::fifo("f").uid(1 << 32)),
        right("5.3_xattr_inline_max", "A-5.3-2 A-7.1-6", "2048 bytes", Row::fifo("f").xattr(name, value)),
        right("5.3_xattr_empty_value", "A-5.3-3", "an empty value", Row::fifo("f").xattr("user.e", "")),
        wrong("5.3_xattr_empty_name", "A-5.3-2", "an attribute without name", Row::fifo("f").xattr("", "v")),
        wrong("5.3_xattr_name_with_nul", "A-5.3-2", "NUL in a name", Row::fifo("f").xattr("user.\0", "v")),
        over("5.3_xattr_name_of_256", "A-5.3-2", "256 bytes of name", Row::fifo("f").xattr([b'n'; 256], "v")),
        wrong("5.3_xattrs_descend", "A-5.3-2", "names of attributes descend", descending),
        wrong("5.3_xattr_twice", "A-5.3-2", "an attribute stands twice", twice),
    ]
}

/// A file whose attributes stand in a value table that is wrong.
fn wrong_values(row: Row) -> Stream {
    beside(|stream| {
        stream.spoil_values = Some(Box::new(|_| ()));
        stream.directory(vec![row])
    })
}

fn external_attributes() -> Vec<Vector> {
    let long = |value: usize| Row::fifo("f").xattr("user.a", "").xattr("user.v", vec![b'v'; value]);
    let descend = Row::fifo("f").xattr("user.b", [0; 2000]).xattr("user.a", [0; 2000]);
    let empty = Row::fifo("f").xattr("", [0; 3000]);
    let fault = Vector::fault;
    vec![
        right("5.3_xattr_value_max", "A-5.3-3 A-7.1-7", "a value of 64 KiB", long(65_536)),
        fault("5.3_xattr_value_of_65537", "A-5.3-3", Limit, "too long a value", wrong_values(long(65_537))),
        fault("5.3_external_descend", "A-5.3-2", Corrupt, "names descend outside", wrong_values(descend)),
        fault("5.3_external_empty_name", "A-5.3-2", Corrupt, "a name lacks outside", wrong_values(empty)),
    ]
}

fn status() -> Vec<Vector> {
    let mut not_read = Row::file("f", "content").status(4);
    let mut paid = not_read.clone();
    let Holds::Content(size, digest, _) = &mut not_read.holds else { unreachable!() };
    (*size, digest.0) = (7, [0; 32]);
    paid.holds = not_read.holds.clone();
    let has_payload = beside(|stream| {
        stream.broken(vec![paid], |table| {
            table.tail.ints(c::TAIL_PAYLOAD_LENGTH, &[7]);
        })
    });
    let has_digest = Row::file("f", "content").status(4);
    vec![
        right("5.4_not_read", "A-5.4-1", "a content that was not read", not_read),
        wrong("5.4_not_read_with_digest", "A-5.4-1", "not read, and yet a digest", has_digest),
        Vector::fault(
            "5.4_not_read_with_payload",
            "A-5.4-1",
            Corrupt,
            "not read, and yet a payload",
            has_payload,
        ),
        right("5.4_all_bits", "A-5.4-2", "a pipe with every status", Row::fifo("f").status(15)),
        wrong("5.4_bit_beyond", "A-5.4-2", "a status has bit 4", Row::fifo("f").status(16)),
    ]
}

fn targets() -> Vec<Vector> {
    vec![
        right("5.5_target_of_4096", "A-5.5-1", "a target as long as can be", Row::symlink("l", [b't'; 4096])),
        over("5.5_target_of_4097", "A-5.5-1", "a target is a byte too long", Row::symlink("l", [b't'; 4097])),
        wrong("5.5_target_with_nul", "A-5.5-1", "a target holds NUL", Row::symlink("l", "a\0b")),
        wrong("5.5_target_is_empty", "A-5.5-1", "a target is empty", Row::symlink("l", "")),
    ]
}

/// A file whose hole table is wrong; the payload length fits the holes.
fn wrong_holes(size: u64, holes: &[(u64, u64)]) -> Stream {
    beside(|stream| {
        stream.spoil_holes = Some(Box::new(|_| ()));
        stream.directory(vec![Row::sparse("f", size, holes)])
    })
}

fn holes() -> Vec<Vector> {
    let fault = |name, what, size, holes: &[(u64, u64)]| {
        Vector::fault(name, "A-5.6-1", Corrupt, what, wrong_holes(size, holes))
    };
    let whole = Row::sparse("f", 4096, &[(0, 4096)]);
    let near = Row::sparse("f", 100, &[(0, 10), (11, 10), (99, 1)]);
    vec![
        right("5.6_only_a_hole", "A-5.6-1 A-7.1-11", "a content that is one hole", whole),
        right("5.6_holes_a_byte_apart", "A-5.6-1", "one byte between holes", near),
        fault("5.6_hole_is_empty", "a hole of no bytes", 100, &[(0, 10), (50, 0)]),
        fault("5.6_holes_touch", "two holes touch", 100, &[(0, 10), (10, 10)]),
        fault("5.6_holes_descend", "holes descend", 100, &[(50, 10), (0, 10)]),
        fault("5.6_holes_overlap", "holes overlap", 100, &[(0, 20), (10, 20)]),
        fault("5.6_hole_beyond", "a hole ends beyond the content", 100, &[(95, 10)]),
        fault("5.6_hole_of_2_to_64", "a hole ends beyond 2^64", 100, &[(u64::MAX, 50)]),
    ]
}
