//! Vectors of section 7.2: pieces and index tables.

use diptych_format::error::Class::{Corrupt, Limit};
use diptych_format::{Digest, section as c};

use super::rows::{Placed, Row};
use super::stream_maker::{StreamMaker, TableMaker};
use super::{Stream, Vector, beside, lie};

pub fn vectors() -> Vec<Vector> {
    [pieces(), indices(), levels()].into_iter().flatten().collect()
}

/// A name that begins a new piece once the piece has 512 names.
fn cut_name(prefix: &str) -> String {
    let is_cut = |name: &String| Digest::of(name.as_bytes()).leading() & 0x3ff == 0;
    (0..).map(|number| format!("{prefix}{number}")).find(is_cut).unwrap()
}

/// The names `n000` to `n511`, none of which begins a piece.
fn full_piece(stream: &mut StreamMaker<'_>) -> Placed {
    stream.directory((0..512).map(|number| Row::fifo(format!("n{number:03}"))).collect())
}

/// A directory of two pieces.
fn two_pieces(stream: &mut StreamMaker<'_>) -> Vec<Placed> {
    let first = full_piece(stream);
    let second = stream.directory(vec![Row::file(cut_name("o"), "7 bytes")]);
    vec![first, second]
}

fn with_index(change: impl FnOnce(&mut TableMaker)) -> Stream {
    beside(|stream| {
        let pieces = two_pieces(stream);
        stream.broken_index(pieces, 1, change)
    })
}

/// A tree in which an index does not tell the truth about its piece `piece`.
fn told(piece: usize, change: impl FnOnce(&mut TableMaker)) -> Stream {
    beside(|stream| {
        let mut pieces = two_pieces(stream);
        pieces[piece].pieces[0].is_broken = true;
        stream.at = Some(pieces[piece].position);
        stream.changed_index(pieces, change)
    })
}

fn fault(name: &'static str, covers: &'static str, what: &'static str, stream: Stream) -> Vector {
    Vector::fault(name, covers, Corrupt, what, stream)
}

fn pieces() -> Vec<Vector> {
    let sound = beside(|stream| {
        let pieces = two_pieces(stream);
        stream.index(pieces, 1)
    });
    let overlap = beside(|stream| {
        let first = full_piece(stream);
        let first = lie(stream, first, |_| ());
        let second = stream.directory(vec![Row::fifo(cut_name("n500x"))]);
        stream.index(vec![first, second], 1)
    });
    let digest = told(1, |t| t.body.column(c::INDEX_DIGEST).data[40] ^= 1);
    let payload = beside(|stream| {
        let mut pieces = two_pieces(stream);
        pieces[0] = lie(stream, pieces[0].clone(), |told| told.payload = 1);
        stream.index(pieces, 1)
    });
    let entries = beside(|stream| {
        let mut pieces = two_pieces(stream);
        pieces[1] = lie(stream, pieces[1].clone(), |told| told.entries = 2);
        stream.index(pieces, 1)
    });
    let first = told(0, |t| t.body.column(c::INDEX_NAMES).data[3] = b'!');
    let second = told(1, |t| t.body.column(c::INDEX_NAMES).data[5] -= 1);
    vec![
        Vector::sound("7.2_two_pieces", "A-7.2-1 A-7.2-2", "a directory of two pieces", sound),
        fault("7.2_piece_overlaps", "A-7.2-5", "a piece's last name is above the next one's first", overlap),
        fault("7.2_piece_digest", "A-7.2-2 A-14-1", "a piece has another digest", digest),
        fault("7.2_piece_payload", "A-7.2-2", "a piece has another payload length", payload),
        fault("7.2_piece_entries", "A-7.2-2", "a piece has another number of entries", entries),
        fault("7.2_first_name", "A-7.2-5 A-7.2-6", "the first piece begins with another name", first),
        fault("7.2_second_name", "A-7.2-5 A-7.2-6", "the second piece begins with another name", second),
    ]
}

fn indices() -> Vec<Vector> {
    let level = |level: u64| {
        with_index(|t| {
            t.body.ints(c::INDEX_LEVEL, &[level]);
        })
    };
    let too_high = told(0, |t| {
        t.body.ints(c::INDEX_LEVEL, &[2]);
    });
    let none = beside(|stream| {
        let pieces = two_pieces(stream);
        stream.broken_index(pieces, 1, |t| {
            (t.body.rows, t.tail.rows) = (0, 0);
            t.body.columns.clear();
            t.tail.columns.clear();
        })
    });
    let descend = with_index(|t| t.body.column(c::INDEX_NAMES).data[0] = b'p');
    let distance = with_index(|t| {
        t.tail.ints(c::INDEX_DISTANCE, &[1 << 30, 8]);
    });
    let one = beside(|stream| {
        let piece = full_piece(stream);
        stream.broken_index(vec![piece], 1, |_| ())
    });
    vec![
        fault("7.2_level_0", "A-7.2-2", "an index table without level", level(0)),
        Vector::fault("7.2_level_7", "A-7.2-3 A-13-1", Limit, "a level above the limit", level(7)),
        fault("7.2_level_2_over_pieces", "A-7.2-4", "an index of level 2 leads to pieces", too_high),
        fault("7.2_no_pieces", "A-7.2-2", "an index table without rows", none),
        fault("7.2_one_piece", "A-7.2-2 A-7.2-7", "an index table over one piece alone", one),
        fault("7.2_names_descend", "A-4-3 A-7.2-2", "first names of pieces descend", descend),
        fault("7.2_distance", "A-7-4", "an index leads before the stream", distance),
    ]
}

/// A directory of four small pieces under index tables of two levels; `third` writes the third piece, with the index
/// table over the first two before it or behind it. Nobody judges the cuts: an entry has a status, so that there may
/// have been more names.
fn two_levels(third: impl FnOnce(&mut StreamMaker<'_>, [Placed; 2]) -> [Placed; 2]) -> Stream {
    beside(|stream| {
        let first = stream.directory(vec![Row::fifo("n0").status(1), Row::fifo("n1")]);
        let second = stream.directory(vec![Row::fifo("n2"), Row::file("n3", "7 bytes")]);
        let [lower, third] = third(stream, [first, second]);
        let fourth = stream.directory(vec![Row::fifo("n6")]);
        let upper = stream.index(vec![third, fourth], 1);
        stream.index(vec![lower, upper], 2)
    })
}

fn levels() -> Vec<Vector> {
    let sound = two_levels(|stream, before| {
        let lower = stream.index(before.to_vec(), 1);
        let below = stream.directory(vec![Row::file("below", "8 bytes.")]);
        let third = stream.directory(vec![Row::directory("n4", below), Row::fifo("n5")]);
        [lower, third]
    });
    let late = two_levels(|stream, before| {
        let mut third = stream.directory(vec![Row::fifo("n4"), Row::fifo("n5")]);
        third.pieces[0].is_broken = true;
        stream.at = Some(third.position);
        [stream.index(before.to_vec(), 1), third]
    });
    vec![
        Vector::sound(
            "7.2_two_levels",
            "A-7.2-3 A-7.2-7 A-8.2-2",
            "two index tables under one, each right behind the last table below it",
            sound,
        ),
        fault(
            "8.2_index_too_late",
            "A-7.2-7 A-8.2-2",
            "an index table stands behind the piece that follows those below it",
            late,
        ),
    ]
}
