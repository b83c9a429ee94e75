//! Vectors of section 7.1: directory tables.

use diptych_format::error::Class::{Corrupt, Limit};
use diptych_format::section as c;

use super::rows::{Holds, Placed, Row};
use super::section_maker::SectionMaker;
use super::stream_maker::{StreamMaker, TableMaker};
use super::{Stream, Vector, beside, broken, lie, right_rows, some_rows, wrong_rows};

pub fn vectors() -> Vec<Vector> {
    [sets(), values(), kinds(), below(), holes(), empty()].into_iter().flatten().collect()
}

fn wrong(
    name: &'static str,
    covers: &'static str,
    what: &'static str,
    spoil: impl FnOnce(&mut TableMaker),
) -> Vector {
    Vector::fault(name, covers, Corrupt, what, broken(some_rows(), spoil))
}

/// Sets of [`some_rows`]: the device's, the file's, the link's.
fn sets() -> Vec<Vector> {
    let by_xattrs: Vec<Row> = vec![
        Row::fifo("a").xattr("user.a", "1"),
        Row::fifo("b").xattr("user.a", "0").xattr("user.b", ""),
        Row::fifo("c").xattr("user.a", "0"),
        Row::fifo("d"),
    ];
    vec![
        wrong("7.1_set_beyond", "A-7.1-1", "a row has a set that is not there", |t| {
            t.body.ints(c::BODY_SET, &[1, 2, 3]);
        }),
        wrong("7.1_set_unused", "A-7.1-2", "no row has the third set", |t| {
            t.body.ints(c::BODY_SET_MODE, &[0o020600, 0o100644, 0o120777, 0o140777]);
        }),
        wrong("7.1_sets_descend", "A-7.1-2", "sets do not ascend", |t| {
            t.body.ints(c::BODY_SET_MODE, &[0o100644, 0o020600, 0o120777]).ints(c::BODY_SET, &[0, 2, 1]);
        }),
        Vector::fault(
            "7.1_set_twice",
            "A-7.1-2",
            Corrupt,
            "two sets are the same",
            broken(vec![Row::fifo("a"), Row::fifo("b")], |t| {
                t.body.ints(c::BODY_SET_MODE, &[0o010644; 2]).ints(c::BODY_SET, &[0, 1]);
            }),
        ),
        Vector::fault(
            "7.1_no_sets",
            "A-7.1-1",
            Corrupt,
            "rows, and no set",
            broken(vec![Row::fifo("a")], |t| {
                t.body.remove(c::BODY_SET_MODE);
            }),
        ),
        Vector::sound("7.1_sets_by_xattrs", "A-7.1-2", "lists of attributes compare", right_rows(by_xattrs)),
    ]
}

fn large(name: &str, value: u8) -> Row {
    Row::fifo(name).xattr("user.a", vec![value; 3000])
}

/// A tree in which the value table of the file `f` is wrong.
fn wrong_values(row: Row, spoil: impl FnOnce(&mut SectionMaker)) -> Stream {
    let mut stream = StreamMaker::new();
    stream.spoil_values = Some(Box::new(spoil));
    let below = stream.directory(vec![row]);
    let top = stream.directory(vec![Row::directory("b", below)]);
    stream.finish(top)
}

fn values() -> Vec<Vector> {
    let inline = broken(vec![Row::fifo("f").xattr("user.a", [0; 2042])], |t| {
        t.body.ints(c::BODY_XATTR_VALUE_END, &[2043]).bytes(c::BODY_XATTR_VALUES, &[0; 2043]);
    });
    let both = broken(vec![large("f", 1)], |t| {
        t.body.ints(c::BODY_SET_XATTR_END, &[1]);
        t.body.parts(c::BODY_XATTR_NAME_END, c::BODY_XATTR_NAMES, &["user.b"]);
    });
    let short = wrong_values(large("f", 1), |values| {
        values.ints(c::VALUE_XATTR_VALUE_END, &[2042]).bytes(c::VALUE_XATTR_VALUES, &[1; 2042]);
    });
    let digest = beside(|stream| {
        stream.spoil_values = Some(Box::new(|_| ()));
        stream.changed(vec![large("f", 1)], |t| t.body.column(c::BODY_EXTERNAL_DIGEST).data[0] ^= 1)
    });
    let tag = wrong_values(large("f", 1), |values| values.tag = *b"HOLE");
    let beyond = broken(vec![large("f", 1)], |t| {
        t.body.ints(c::BODY_EXTERNAL_SET, &[1]);
    });
    let fault = |name, covers, what, stream| Vector::fault(name, covers, Corrupt, what, stream);
    let two = right_rows(vec![large("a", 2), large("b", 1), Row::fifo("c")]);
    vec![
        fault("7.1_large_values_inline", "A-7.1-6", "2049 bytes of attributes in the body", inline),
        fault("7.1_values_twice", "A-7.1-6", "attributes in the body and outside", both),
        fault("7.1_short_values_outside", "A-7.1-6", "2048 bytes in a value table", short),
        fault("7.1_values_digest", "A-7.1-7", "a value table has another digest", digest),
        fault("7.1_values_tag", "A-6-12 A-7.1-7", "a hole table where values should be", tag),
        fault("7.1_external_set_beyond", "A-7.1-6", "values of a set that is not there", beyond),
        Vector::sound("7.1_two_external_sets", "A-7.1-2 A-7.1-6", "externals sort by values", two),
    ]
}

fn kinds() -> Vec<Vector> {
    let large = |size: u64| {
        let mut row = Row::sparse("f", 1 << 20, &[(0, 1)]);
        if let Holds::Content(found, _, holes) = &mut row.holds {
            (*found, *holes) = (size, vec![(0, size)]);
        }
        row
    };
    vec![
        wrong("7.1_size_of_link", "A-7.1-3", "a symbolic link has a size", |t| {
            t.body.ints(c::BODY_SIZE, &[1, 1, 0]);
        }),
        Vector::sound("7.1_size_max", "A-7.1-3", "2^63-1 bytes", right_rows(vec![large(u64::MAX / 2)])),
        Vector::fault(
            "7.1_size_beyond",
            "A-7.1-3 A-13-1",
            Limit,
            "a content of 2^63 bytes",
            wrong_rows(vec![large(1 << 63)]),
        ),
        wrong("7.1_digest_of_device", "A-7.1-4", "a device has a digest", |t| {
            t.body.column(c::BODY_DIGEST).data[95] = 1;
        }),
        wrong("7.1_target_of_file", "A-7.1-5", "a target for a row that is a file", |t| {
            t.body.remove(c::BODY_TARGET_ROW);
        }),
        wrong("7.1_target_absent", "A-7.1-5", "a symbolic link without target", |t| {
            t.body.remove(c::BODY_TARGET_ROW).remove(c::BODY_TARGET_END).remove(c::BODY_TARGETS);
        }),
        wrong("7.1_target_too_many", "A-7.1-5", "two targets for one symbolic link", |t| {
            t.body.ints(c::BODY_TARGET_ROW, &[1, 2]);
            t.body.parts(c::BODY_TARGET_END, c::BODY_TARGETS, &["f", "g"]);
        }),
        wrong("7.1_device_of_file", "A-7.1-5", "a number for a row that is a file", |t| {
            t.body.remove(c::BODY_DEVICE_ROW);
        }),
        wrong("7.1_device_too_many", "A-7.1-5", "numbers for two devices, and one is there", |t| {
            t.body.ints(c::BODY_DEVICE_ROW, &[1, 2]).ints(c::BODY_DEVICE_MAJOR, &[1, 1]);
            t.body.ints(c::BODY_DEVICE_MINOR, &[3, 3]);
        }),
        wrong("7.1_payload_of_device", "A-7.1-8", "a device has a payload", |t| {
            t.tail.ints(c::TAIL_PAYLOAD_LENGTH, &[1, 0, 1]);
        }),
        wrong("7.1_payload_of_file", "A-7.1-8 A-7.1-11", "a payload that is not the size", |t| {
            t.tail.ints(c::TAIL_PAYLOAD_LENGTH, &[2, 0, 0]);
        }),
    ]
}

fn below() -> Vec<Vector> {
    let told = |change: fn(&mut Placed)| {
        beside(|stream| {
            let below = stream.directory(some_rows());
            lie(stream, below, change)
        })
    };
    let fault = |name, covers, what, stream| Vector::fault(name, covers, Corrupt, what, stream);
    let too_many = broken(some_rows(), |t| {
        t.tail.ints(c::TAIL_DISTANCE, &[64]).ints(c::TAIL_LENGTH, &[32]);
    });
    vec![
        fault("7.1_payload_below", "A-7.1-8", "another payload below", told(|told| told.payload += 1)),
        fault(
            "7.1_entries_below",
            "A-7.1-9",
            "another number of entries below",
            told(|told| told.entries -= 1),
        ),
        fault("7.1_directories_too_many", "A-7.1-9", "a reference, and no directory", too_many),
        fault("7.1_no_reference", "A-7.1-9", "a directory, and no reference", {
            beside(|stream| {
                let below = stream.directory(vec![]);
                stream.broken(vec![Row::directory("d", below)], |t| {
                    t.tail.remove(c::TAIL_DISTANCE).remove(c::TAIL_LENGTH);
                })
            })
        }),
    ]
}

fn holes() -> Vec<Vector> {
    let sparse = || Row::sparse("f", 100, &[(0, 50)]);
    let fault = |name, covers, what, stream| Vector::fault(name, covers, Corrupt, what, stream);
    let of_device = broken(vec![Row::device("d", 1, 1), sparse()], |t| {
        t.tail.remove(c::TAIL_HOLE_ROW);
    });
    let beyond = broken(vec![sparse()], |t| {
        t.tail.ints(c::TAIL_HOLE_ROW, &[1]);
    });
    let unfit = beside(|stream| {
        stream.spoil_holes = Some(Box::new(|holes| {
            holes.ints(c::HOLE_LENGTH, &[51]);
        }));
        stream.directory(vec![sparse()])
    });
    let none = beside(|stream| {
        stream.spoil_holes = Some(Box::new(|holes| {
            holes.rows = 0;
            holes.columns.clear();
        }));
        stream.directory(vec![sparse()])
    });
    let sum = broken(vec![sparse()], |t| {
        t.tail.ints(c::TAIL_PAYLOAD_LENGTH, &[100]);
    });
    vec![
        fault("7.1_holes_of_device", "A-7.1-10", "holes of a device", of_device),
        fault("7.1_holes_beyond_rows", "A-7.1-10", "holes of a row that is not there", beyond),
        fault("7.1_holes_unfit", "A-7.1-11", "holes that do not fit the payload", unfit),
        fault("7.1_no_holes", "A-7.1-10", "a hole table without holes", none),
        fault("7.1_payload_with_holes", "A-7.1-11", "all of the size is payload, and yet holes", sum),
    ]
}

fn empty() -> Vec<Vector> {
    let body = broken(vec![], |t| {
        t.body.put(c::BODY_NAMES.id, 1, 1, vec![0]);
    });
    let tail = broken(vec![], |t| {
        t.tail.put(0x8003, 1, 1, vec![1]);
    });
    vec![
        Vector::fault("7.1_no_rows_and_columns", "A-7.1-12", Corrupt, "columns without rows", body),
        Vector::fault("7.1_no_rows_and_inode", "A-7.1-12", Corrupt, "a tail's column without rows", tail),
    ]
}
