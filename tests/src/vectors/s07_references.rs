//! Vectors of section 7 about tables as such: their parts, and the references to them.

use diptych_format::error::Class::{Corrupt, Limit, Truncated};
use diptych_format::section as c;

use super::rows::{Placed, Row};
use super::stream_maker::{StreamMaker, TableMaker};
use super::{Stream, Vector, beside, broken, lie, right_rows, some_rows};

pub fn vectors() -> Vec<Vector> {
    [parts(), lengths(), distances(), order()].into_iter().flatten().collect()
}

fn parts() -> Vec<Vector> {
    let wrong = |name, covers, what, spoil: fn(&mut TableMaker)| {
        Vector::fault(name, covers, Corrupt, what, broken(some_rows(), spoil))
    };
    vec![
        wrong("7_rows_of_tail", "A-7-2", "the tail has a row more than the body", |t| t.tail.rows = 4),
        wrong("7_tail_not_at_once", "A-7-2 A-6-12", "eight bytes between body and tail", |t| {
            t.between = vec![0; 8];
        }),
        wrong("7_bytes_behind_tail", "A-7-3", "eight bytes behind the tail count as the table's", |t| {
            t.rest = vec![0; 8];
        }),
    ]
}

/// A tree in which what a row says of a directory's table is not true.
fn told(change: impl FnOnce(&mut Placed)) -> Stream {
    beside(|stream| {
        let below = stream.directory(some_rows());
        lie(stream, below, change)
    })
}

fn lengths() -> Vec<Vector> {
    let limit = refer(|t| {
        t.tail.ints(c::TAIL_LENGTH, &[(32 << 20) + 8]).ints(c::TAIL_DISTANCE, &[(32 << 20) + 8]);
    });
    let odd = refer(|t| {
        t.tail.column(c::TAIL_LENGTH).data[0] += 4;
    });
    vec![
        Vector::fault(
            "7_length_too_short",
            "A-7-3 A-6-11",
            Truncated,
            "a reference tells a length that ends inside the tail",
            told(|told| told.length -= 8),
        ),
        Vector::fault("7_length_beyond_limit", "A-7-1 A-13-1", Limit, "a table is too long", limit),
        Vector::fault("7_length_odd", "A-7-1", Corrupt, "a length is no multiple of 8", odd),
    ]
}

/// A tree in which the table above the directory `b/d` is wrong.
fn refer(spoil: impl FnOnce(&mut TableMaker)) -> Stream {
    beside(|stream| {
        let below = stream.directory(some_rows());
        stream.broken(vec![Row::directory("d", below)], spoil)
    })
}

fn distances() -> Vec<Vector> {
    let wrong = |name, what, distance: u64| {
        let stream = refer(|t| {
            t.tail.ints(c::TAIL_DISTANCE, &[distance]);
        });
        Vector::fault(name, "A-7-4 A-14-4", Corrupt, what, stream)
    };
    let holes = beside(|stream| {
        stream.broken(vec![Row::sparse("f", 100, &[(0, 100)])], |t| {
            t.tail.ints(c::TAIL_HOLE_DISTANCE, &[1 << 20]);
        })
    });
    let values = beside(|stream| {
        stream.broken(vec![Row::fifo("f").xattr("user.a", [0; 3000])], |t| {
            t.tail.ints(c::TAIL_EXTERNAL_DISTANCE, &[8]);
        })
    });
    vec![
        wrong("7_distance_0", "a table refers to itself", 0),
        wrong("7_distance_below_length", "a reference overlaps the table that refers", 8),
        wrong("7_distance_into_header", "a reference leads into the header", distance_to_start() - 24),
        wrong("7_distance_beyond_start", "a reference leads before the stream", 1 << 40),
        wrong("7_distance_of_64_bits", "a reference wraps around", u64::MAX - 7),
        Vector::fault("7_distance_of_holes", "A-7-4", Corrupt, "holes before the stream", holes),
        Vector::fault("7_distance_of_values", "A-7-4", Corrupt, "values overlap their table", values),
        Vector::sound("7.1_empty", "A-7.1-12", "a directory without entries", right_rows(vec![])),
    ]
}

/// Where the table of `b` stands in the trees of [`refer`].
fn distance_to_start() -> u64 {
    refer(|_| ()).at.unwrap()
}

fn order() -> Vec<Vector> {
    let shared = beside(|stream| {
        let once = stream.directory(vec![]);
        let mut again = once.clone();
        again.pieces[0].is_broken = true;
        stream.at = Some(once.position);
        stream.directory(vec![Row::directory("d", once), Row::directory("e", again)])
    });
    vec![
        Vector::fault("8.2_shared_table", "A-8.2-2 A-14-4", Corrupt, "two directories share a table", shared),
        gap(),
        nested(),
    ]
}

fn gap() -> Vector {
    let mut stream = StreamMaker::new();
    let top = stream.directory(some_rows());
    let gap = stream.bytes.len() as u64;
    stream.bytes.extend([0; 8]);
    let mut stream = stream.finish(top);
    stream.at = Some(gap);
    Vector::fault("8.2_gap", "A-8.2-2", Corrupt, "eight bytes before the root table", stream)
}

fn nested() -> Vector {
    let mut stream = StreamMaker::new();
    let mut below = stream.directory(vec![]);
    for _ in 0..40 {
        below = stream.directory(vec![Row::directory("d", below)]);
    }
    Vector::sound("8.2_nested", "A-14-4", "forty directories, each in the other", stream.finish(below))
}
