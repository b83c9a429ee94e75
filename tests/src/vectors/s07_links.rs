//! Vectors of sections 7.3 and 7.4: hard links and owners.

use diptych_format::error::Class::Corrupt;
use diptych_format::section as c;

use super::rows::{Placed, Row};
use super::stream_maker::{StreamMaker, TableMaker};
use super::{Stream, Vector};

pub fn vectors() -> Vec<Vector> {
    [tables(), groups(), owners()].into_iter().flatten().collect()
}

type Links<'l> = &'l [(&'l str, &'l str, u64)];

/// Three files of one content, one of another, a directory; and these rows of the link table.
fn linked<'e>(links: Links<'_>) -> (StreamMaker<'e>, Placed) {
    let mut stream = StreamMaker::new();
    let below = stream.directory(vec![Row::file("c", "content")]);
    let rows = [Row::file("a", "content"), Row::file("b", "content"), Row::directory("d", below)];
    let top = stream.directory(rows.into_iter().chain([Row::file("e", "another")]).collect());
    let row =
        |(path, first, count): &(&str, &str, u64)| (path.as_bytes().into(), first.as_bytes().into(), *count);
    stream.links = links.iter().map(row).collect();
    (stream, top)
}

const PAIR: Links<'_> = &[("a", "", 2), ("b", "a", 2)];

/// A link table that is wrong in itself.
fn broken(links: Links<'_>, spoil: impl FnOnce(&mut TableMaker)) -> Stream {
    let (mut stream, top) = linked(links);
    stream.spoil_links = Some(Box::new(spoil));
    stream.finish(top)
}

/// A link table that is right in itself, and does not fit the tree.
fn unfit(links: Links<'_>) -> Stream {
    let (mut stream, top) = linked(links);
    stream.are_links_wrong = true;
    stream.finish(top)
}

fn fault(name: &'static str, covers: &'static str, what: &'static str, stream: Stream) -> Vector {
    Vector::fault(name, covers, Corrupt, what, stream)
}

fn tables() -> Vec<Vector> {
    let (stream, top) = linked(&[("a", "", 3), ("b", "a", 3), ("d/c", "a", 3)]);
    let column = broken(PAIR, |t| {
        t.tail.put(0x01, 1, 2, vec![1; 2]);
    });
    let digest = broken(PAIR, |t| t.body.tag = *b"DIRB");
    vec![
        Vector::sound("7.3_three_paths", "A-7.3-1 A-7.3-3", "three paths of one inode", stream.finish(top)),
        fault("7.3_group_of_one", "A-7.3-1", "a path alone", broken(&[("a", "", 1)], |_| ())),
        fault("7.3_first_is_not_least", "A-7.3-1", "the first path of a group is above another", {
            broken(&[("a", "b", 2), ("b", "", 2)], |_| ())
        }),
        fault("7.3_paths_descend", "A-4-3 A-7.3-1", "paths descend", {
            broken(&[("b", "", 2), ("a", "", 2)], |_| ())
        }),
        fault("7.3_path_with_dot_dot", "A-4-4 A-4-1", "a path leads out", broken(&[("../a", "", 2)], |_| ())),
        fault("7.3_path_with_two_slashes", "A-4-4 A-4-1", "an empty name in a path", {
            broken(&[("d//c", "", 2)], |_| ())
        }),
        Vector::fault(
            "7.3_column_of_tail",
            "A-6-9",
            diptych_format::error::Class::Unsupported,
            "a column of a link table's tail",
            column,
        ),
        fault("7.3_tag", "A-6-12", "the links are no link table", digest),
    ]
}

fn groups() -> Vec<Vector> {
    let wrong = |name, what, links| fault(name, "A-7.3-1", what, unfit(links));
    let unlike = |name, what, links| fault(name, "A-7.3-3", what, unfit(links));
    vec![
        wrong("7.3_count_too_large", "a group has a path less than it says", &[("a", "", 3), ("b", "a", 3)]),
        wrong("7.3_counts_differ", "paths of a group tell different numbers", {
            &[("a", "", 3), ("b", "a", 2), ("d/c", "a", 3)]
        }),
        wrong("7.3_first_is_not_there", "the first path of a group is not in the table", {
            &[("b", "a", 2), ("d/c", "a", 2)]
        }),
        wrong("7.3_path_is_not_there", "a path leads to nothing", &[("a", "", 2), ("x", "a", 2)]),
        unlike("7.3_other_content", "two paths lead to different contents", &[("a", "", 2), ("e", "a", 2)]),
        unlike("7.3_directory", "a path leads to a directory", &[("a", "", 2), ("d", "a", 2)]),
    ]
}

/// A stream with these names of users, and two groups.
fn owned<'e>(users: Vec<(u64, &'e [u8])>) -> StreamMaker<'e> {
    let mut stream = StreamMaker::new();
    stream.owners = Some([users, vec![(0, b"root"), (100, b"users")]]);
    stream
}

fn wrong_owners(name: &'static str, what: &'static str, users: Vec<(u64, &'static [u8])>) -> Vector {
    let mut stream = owned(users);
    stream.spoil_owners = Some(Box::new(|_| ()));
    let top = stream.directory(vec![Row::fifo("f")]);
    fault(name, "A-7.4-1", what, stream.finish(top))
}

fn owners() -> Vec<Vector> {
    let mut sound = owned(vec![(0, b"root"), (u32::MAX.into(), b"nobody\xff")]);
    let top = sound.directory(vec![Row::fifo("f")]);
    let mut counts = owned(vec![(1, b"one")]);
    counts.spoil_owners = Some(Box::new(|owners| {
        owners.ints(c::OWNER_USER_COUNT, &[2]);
    }));
    let counts_top = counts.directory(vec![]);
    vec![
        Vector::sound("7.4_owners", "A-7.4-1", "names of two users and two groups", sound.finish(top)),
        wrong_owners("7.4_ids_descend", "ids of users descend", vec![(2, b"two"), (1, b"one")]),
        wrong_owners("7.4_id_twice", "an id stands twice", vec![(1, b"one"), (1, b"eins")]),
        wrong_owners("7.4_empty_name", "a user without name", vec![(1, b""), (2, b"two")]),
        wrong_owners("7.4_name_with_nul", "a name of a user holds NUL", vec![(1, b"o\0ne")]),
        fault("7.4_count", "A-6-4", "a user more than there are names", counts.finish(counts_top)),
    ]
}
