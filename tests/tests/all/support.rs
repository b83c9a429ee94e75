//! The tests' own support: what judges must be judged first.

use std::fs;

use diptych_format::Name;
use diptych_tests::tree::{Size, What};
use diptych_tests::{Random, Run, TestDir, Tree, for_each_seed, tools, tree};

#[test]
fn a_literal_is_read_back_as_it_was_made() {
    let dir = TestDir::new("literal");
    let tree = tree! {
        "z" => Tree::file("content").mode(0o4755).owner(5, 6).mtime(-5, 999_999_999),
        "a" => Tree::hard_link("z"),
        "d" => tree! {
            b"\xff" => Tree::symlink("nowhere").mtime(1, 2),
            "sparse" => Tree::runs([Run::Hole(1 << 20), Run::Data(b"end".to_vec())]),
            "fifo" => Tree::fifo(),
            "null" => Tree::char_device(1, 3),
            "flags" => Tree::file("").flags(0x40),
        }.mode(0o700).mtime(5_000_000_000, 1),
    };
    tree.create(&dir.join("tree"));
    let found = Tree::read(&dir.join("tree"));
    tree.assert_same(&found);
    assert!(matches!(found.at(b"a").unwrap().what, What::File(_)), "the least path holds the content");
    assert_eq!(found.at(b"d/sparse").unwrap().holes(), tree.at(b"d/sparse").unwrap().holes());
}

#[test]
fn differences_are_seen() {
    let tree = tree! { "f" => Tree::file("a"), "g" => Tree::file("") };
    for (changed, what) in [
        (tree! { "f" => Tree::file("b"), "g" => Tree::file("") }, "f: "),
        (tree! { "f" => Tree::file("a").mode(0o600), "g" => Tree::file("") }, "f: "),
        (tree! { "f" => Tree::file("a").mtime(1, 1), "g" => Tree::file("") }, "f: "),
        (tree! { "f" => Tree::file("a").xattr("user.x", ""), "g" => Tree::file("") }, "f: "),
        (tree! { "f" => Tree::file("a") }, "g: only in the first"),
        (
            tree! { "f" => Tree::file("a"), "g" => Tree::file(""), "h" => Tree::fifo() },
            "h: only in the second",
        ),
        (tree! { "f" => Tree::file("a"), "g" => Tree::hard_link("f") }, "g: "),
    ] {
        let found = tree.differences(&changed);
        assert!(matches!(&found[..], [line] if line.starts_with(what)), "{what}: {found:?}");
    }
    tree.assert_same(&tree.clone());
}

#[test]
fn made_up_trees_survive_a_disk_and_other_tools_agree() {
    for_each_seed(8, |random| {
        let dir = TestDir::new("made-up");
        let tree = Tree::made_up(random, Size::SMALL);
        let (first, second) = (dir.join("first"), dir.join("second"));
        tree.create(&first);
        let found = Tree::read(&first);
        tree.assert_same(&found);
        found.create(&second);
        tools::assert_tools_see_no_difference(&first, &second);
    });
}

#[test]
fn other_tools_see_each_difference() {
    let dir = TestDir::new("tools");
    let original = tree! { "f" => Tree::file("a").mtime(5, 0), "d" => tree! {} };
    original.create(&dir.join("original"));
    let changes: [fn(&mut Tree); 5] = [
        |tree| tree.at_mut(b"f").unwrap().mode = 0o755,
        |tree| tree.at_mut(b"f").unwrap().mtime.nanoseconds = 1,
        |tree| *tree.at_mut(b"d").unwrap() = tree.at(b"d").unwrap().clone().xattr("user.x", "y"),
        |tree| tree.at_mut(b"d").unwrap().flags = 0x40,
        |tree| tree.at_mut(b"f").unwrap().what = What::File(vec![Run::Data(b"b".to_vec())]),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut changed = original.clone();
        change(&mut changed);
        let copy = dir.join(number.to_string());
        changed.create(&copy);
        let compared =
            std::panic::catch_unwind(|| tools::assert_tools_see_no_difference(&dir.join("original"), &copy));
        assert!(compared.is_err(), "change {number} was not seen");
    }
}

#[test]
fn made_up_trees_give_valid_entries() {
    for_each_seed(50, |random| {
        let tree = Tree::made_up(random, Size::SMALL);
        for (path, tree) in tree.paths() {
            let name = path.rsplit(|byte| *byte == b'/').next().unwrap();
            let name = if path.is_empty() { Name::root() } else { Name::try_new(name).unwrap() };
            if tree.kind().is_some() {
                let entry = tree.entry(name);
                entry.validate().unwrap();
                assert_eq!(entry.payload_length(), tree.payload().len() as u64);
            }
        }
    });
}

#[test]
fn the_same_seed_gives_the_same_tree() {
    let made = |seed| Tree::made_up(&mut Random::new(seed), Size::SMALL);
    assert!(made(7) == made(7));
    assert!((0..9).any(|seed| made(seed) != made(7)));
}

#[test]
fn folders_of_tests_keep_attributes_and_go_away() {
    let dir = TestDir::new("folder");
    let path = dir.path().to_owned();
    fs::write(dir.join("f"), "").unwrap();
    drop(dir);
    assert!(!path.exists());
}
