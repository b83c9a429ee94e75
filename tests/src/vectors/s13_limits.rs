//! Vectors of section 13 that are too long to be kept as files.

use diptych_format::Digest;
use diptych_format::error::Class::Limit;
use diptych_format::limits::{DEPTH_MAX, HOLES_MAX, PIECE_ROWS_MAX};

use super::rows::Row;
use super::stream_maker::StreamMaker;
use super::{Stream, Vector, beside, right_rows, s12_archives, wrong_rows};

pub fn vectors() -> Vec<Vector> {
    let mut vectors = vec![depth_max(), too_deep(), holes_max(), too_many_holes(), too_many_rows(), xattrs()];
    vectors.extend([large_names(), too_many_xattrs()]);
    vectors.extend(s12_archives::large());
    vectors
}

/// A pipe below `depth` directories.
fn deep(depth: usize, is_wrong: bool) -> Stream {
    let mut stream = StreamMaker::new();
    let rows = vec![Row::fifo("f")];
    let mut below = if is_wrong { stream.broken(rows, |_| ()) } else { stream.directory(rows) };
    for _ in 0..depth {
        below = stream.directory(vec![Row::directory("d", below)]);
    }
    stream.finish(below)
}

fn depth_max() -> Vector {
    Vector::sound("13_depth_max", "A-4-4 A-13-1", "2048 names deep", deep(DEPTH_MAX - 1, false))
}

fn too_deep() -> Vector {
    Vector::fault("13_depth_beyond", "A-4-4 A-13-1 A-14-4", Limit, "2049 names deep", deep(DEPTH_MAX, true))
}

/// A content with so many holes of a byte.
fn holey(count: usize) -> Row {
    let holes: Vec<(u64, u64)> = (0..count as u64).map(|number| (2 * number, 1)).collect();
    Row::sparse("f", 2 * count as u64, &holes)
}

fn holes_max() -> Vector {
    Vector::sound("13_holes_max", "A-5.6-2", "524,288 holes", right_rows(vec![holey(HOLES_MAX)]))
}

fn too_many_holes() -> Vector {
    let stream = beside(|stream| {
        stream.spoil_holes = Some(Box::new(|_| ()));
        stream.directory(vec![holey(HOLES_MAX + 1)])
    });
    Vector::fault("13_holes_beyond", "A-5.6-2 A-13-1", Limit, "a hole too many", stream)
}

fn too_many_rows() -> Vector {
    let rows = (0..=PIECE_ROWS_MAX).map(|number| Row::fifo(format!("{number:04}"))).collect();
    Vector::fault("13_rows_beyond", "A-7.2-1 A-13-1", Limit, "a row too many for a piece", wrong_rows(rows))
}

/// So many attributes of 64 KiB, names counted.
fn many_xattrs(count: usize) -> Row {
    let value = vec![7; 65_536 - 8];
    (0..count).fold(Row::fifo("f"), |row, number| row.xattr(format!("user.{number:03}"), &value))
}

fn xattrs() -> Vector {
    Vector::sound("13_xattrs_max", "A-5.3-3", "16 MiB of attributes", right_rows(vec![many_xattrs(256)]))
}

fn too_many_xattrs() -> Vector {
    let stream = beside(|stream| {
        stream.spoil_values = Some(Box::new(|_| ()));
        stream.directory(vec![many_xattrs(256).xattr("user.z", "")])
    });
    Vector::fault("13_xattrs_beyond", "A-5.3-3 A-13-1", Limit, "a byte of attributes too many", stream)
}

fn large_names() -> Vector {
    let names = (0..).map(|number| format!("{number:04}{}", "n".repeat(1020)));
    // None of them begins a piece.
    let names = names.filter(|name| Digest::of(name.as_bytes()).leading() & 0x3ff != 0);
    let rows = names.take(1024).map(Row::fifo).collect();
    Vector::sound("13_names_max", "A-7.2-1", "names of 1 MiB in a piece", right_rows(rows))
}
