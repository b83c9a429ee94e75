//! Vectors of section 4: names and paths.

use diptych_format::error::Class::{Corrupt, Limit};
use diptych_format::section as c;

use super::rows::Row;
use super::stream_maker::StreamMaker;
use super::{Placed, Vector, right_rows, wrong_rows};

pub fn vectors() -> Vec<Vector> {
    let wrong = |name, what, bytes: &[u8]| {
        let rows = vec![Row::fifo("!"), Row::fifo(bytes)];
        Vector::fault(name, "A-4-1", Corrupt, what, wrong_rows(rows))
    };
    vec![
        wrong("4_name_is_dot", "a name is \".\"", b"."),
        wrong("4_name_is_dot_dot", "a name is \"..\"", b".."),
        wrong("4_name_with_slash", "a name holds a slash", b"a/b"),
        wrong("4_name_with_nul", "a name holds NUL", b"a\0"),
        empty_name(),
        empty_name_below(),
        odd_names(),
        name_of_1024(),
        name_of_1025(),
        names_descend(),
        names_compare_unsigned(),
        name_twice(),
        root_with_name(),
        path_of_65536(),
        path_of_65537(),
        link_path_too_deep(),
        link_path_name_too_long(),
    ]
}

fn empty_name() -> Vector {
    let rows = vec![Row::fifo(""), Row::fifo("a")];
    Vector::fault("4_name_is_empty", "A-4-1 A-4-2", Corrupt, "a name is empty", wrong_rows(rows))
}

fn empty_name_below() -> Vector {
    let what = "a directory that is not the root's holds one entry without a name";
    Vector::fault("4_only_name_is_empty", "A-4-2", Corrupt, what, wrong_rows(vec![Row::fifo("")]))
}

fn odd_names() -> Vector {
    let names: [&[u8]; 6] = [b"\x01\n", b" ", b"...", b"..a", b"\xc3\xa4", b"\xff\xfe"];
    let rows = names.into_iter().map(Row::fifo).collect();
    Vector::sound("4_odd_names", "A-4-1", "names are bytes: line feeds, no UTF-8", right_rows(rows))
}

fn name_of_1024() -> Vector {
    let rows = vec![Row::fifo([b'n'; 1024])];
    Vector::sound("4_name_of_1024", "A-4-1 A-13-1", "a name as long as can be", right_rows(rows))
}

fn name_of_1025() -> Vector {
    let rows = vec![Row::fifo([b'n'; 1025])];
    Vector::fault("4_name_of_1025", "A-4-1 A-13-1", Limit, "a name is one byte too long", wrong_rows(rows))
}

fn names_descend() -> Vector {
    let rows = vec![Row::fifo("b"), Row::fifo("a")];
    Vector::fault("4_names_descend", "A-4-3", Corrupt, "names descend", wrong_rows(rows))
}

fn names_compare_unsigned() -> Vector {
    let rows = vec![Row::fifo("a"), Row::fifo(b"a\x7f"), Row::fifo(b"a\x80"), Row::fifo("b")];
    Vector::sound("4_names_compare_unsigned", "A-4-3", "bytes compare as unsigned", right_rows(rows))
}

fn name_twice() -> Vector {
    let rows = vec![Row::fifo("a"), Row::fifo("a")];
    Vector::fault("4_name_twice", "A-4-3", Corrupt, "a name stands twice", wrong_rows(rows))
}

fn root_with_name() -> Vector {
    let mut stream = StreamMaker::new();
    stream.spoil_root = Some(Box::new(|table| {
        table.body.parts(c::BODY_NAME_END, c::BODY_NAMES, &["r"]);
    }));
    let top = stream.directory(vec![]);
    Vector::fault("4_root_with_name", "A-4-2 A-8.2-1", Corrupt, "the root has a name", stream.finish(top))
}

/// 63 directories with names of 1024 bytes, and a name of `length` below them.
fn long_path(stream: &mut StreamMaker<'_>, length: usize, is_wrong: bool) -> Placed {
    let rows = vec![Row::fifo(vec![b'p'; length])];
    let mut below = if is_wrong { stream.broken(rows, |_| ()) } else { stream.directory(rows) };
    for _ in 0..63 {
        below = stream.directory(vec![Row::directory([b'd'; 1024], below)]);
    }
    below
}

fn path_of_65536() -> Vector {
    let mut stream = StreamMaker::new();
    let top = long_path(&mut stream, 65_536 - 63 * 1025, false);
    Vector::sound("4_path_of_65536", "A-4-4", "a path as long as can be", stream.finish(top))
}

fn path_of_65537() -> Vector {
    let mut stream = StreamMaker::new();
    let top = long_path(&mut stream, 65_537 - 63 * 1025, true);
    Vector::fault("4_path_of_65537", "A-4-4", Limit, "a path is one byte too long", stream.finish(top))
}

fn link_path_too_deep() -> Vector {
    let mut stream = StreamMaker::new();
    let path = [&[b'd'; 1][..]].repeat(2049).join(&b'/');
    stream.links = vec![(path, vec![], 2)];
    stream.spoil_links = Some(Box::new(|_| ()));
    let top = stream.directory(vec![]);
    let what = "a path of the link table has 2049 names";
    Vector::fault("4_link_path_too_deep", "A-4-4", Limit, what, stream.finish(top))
}

fn link_path_name_too_long() -> Vector {
    let mut stream = StreamMaker::new();
    stream.links = vec![(vec![b'd'; 1025], vec![], 2)];
    stream.spoil_links = Some(Box::new(|_| ()));
    let top = stream.directory(vec![]);
    let what = "a name in a path of the link table is one byte too long";
    Vector::fault("4_link_path_name_of_1025", "A-4-1 A-4-4", Limit, what, stream.finish(top))
}
