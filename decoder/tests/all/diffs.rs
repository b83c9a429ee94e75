//! Comparing archives: what is told, and how little is read for it.

use diptych_decoder::{Archive, Aspect, Change, diff};
use diptych_format::table::Owners;
use diptych_format::{Holds, Kind};

use super::build::*;

/// Differences in short: a sign, the path, and what changed.
fn differences(a: &Archive, b: &Archive) -> Vec<String> {
    let mut all = Vec::new();
    diff(a, b, &mut |difference| {
        let path = String::from_utf8_lossy(&difference.path).into_owned();
        let (before, after) = (difference.before, difference.after);
        all.push(match difference.kind {
            Change::Added => {
                assert!(before.is_none() && after.is_some());
                format!("+{path}")
            }
            Change::Removed => {
                assert!(before.is_some() && after.is_none());
                format!("-{path}")
            }
            Change::Changed { what } => {
                assert_eq!(before.unwrap().name, after.unwrap().name);
                format!("{path} {what:?}")
            }
        });
        Ok(())
    })
    .unwrap();
    all
}

fn of(a: &Built, b: &Built) -> Vec<String> {
    differences(&a.open().unwrap(), &b.open().unwrap())
}

#[test]
fn an_archive_does_not_differ_from_itself_and_nothing_is_read_to_say_so() {
    let (root, links, owners) = everything();
    let (a, b) =
        (build_with(&root, &links, &owners, Cut::Rule), build_with(&root, &links, &owners, Cut::Rule));
    let (a, b) = (a.open().unwrap(), b.open().unwrap());
    assert!(differences(&a, &b).is_empty());
    assert_eq!((a.tables_read(), b.tables_read()), (2, 2));
}

#[test]
fn every_aspect_is_told() {
    let device = |minor| node("d", Kind::CharDevice, Holds::Device { major: 1, minor });
    let large = |byte| file("f", b"").xattr("user.l", &[byte; 3000]);
    let plain = || file("f", b"one");
    let cases = [
        (plain(), file("f", b"two"), vec![Aspect::Content]),
        (plain(), symlink("f", "to"), vec![Aspect::Kind]),
        (symlink("f", "to"), symlink("f", "fro"), vec![Aspect::Target]),
        (device(1), device(2), vec![Aspect::Device]),
        (plain(), plain().with(|e| e.attributes.mode = 0o100600), vec![Aspect::Mode]),
        (plain(), plain().with(|e| e.attributes.uid = 0), vec![Aspect::Owner]),
        (plain(), plain().with(|e| e.attributes.gid = 0), vec![Aspect::Owner]),
        (plain(), plain().with(|e| e.mtime.nanoseconds = 6), vec![Aspect::Times]),
        (plain(), plain().xattr("user.x", b"y"), vec![Aspect::Xattrs]),
        (large(1), large(2), vec![Aspect::Xattrs]),
        (plain(), large(2), vec![Aspect::Content, Aspect::Xattrs]),
        (plain(), plain().with(|e| e.attributes.flags = 0x10), vec![Aspect::Flags]),
        (plain(), plain().with(|e| e.attributes.project = 3), vec![Aspect::Project]),
    ];
    for (before, after, what) in cases {
        let name = String::from_utf8_lossy(before.entry.name.as_bytes()).into_owned();
        let found = of(&build(&dir("", vec![before])), &build(&dir("", vec![after])));
        assert_eq!(found, [format!("{name} {what:?}")]);
    }
}

#[test]
fn what_is_no_difference_is_not_told() {
    let other = file("f", b"ab\0\0").with(|entry| {
        entry.change.inode = 5;
        entry.change.ctime.seconds = 9;
        entry.status = diptych_format::Status::CHANGED;
    });
    let holey = sparse("f", 4, &[(2, 2)], b"ab");
    assert!(of(&build(&dir("", vec![other])), &build(&dir("", vec![holey]))).is_empty());
}

#[test]
fn additions_and_removals_are_told_entry_by_entry() {
    let one = dir("", vec![file("a", b""), dir("d", vec![file("x", b""), dir("e", vec![file("y", b"")])])]);
    let two = dir("", vec![file("b", b""), file("d", b""), dir("n", vec![file("z", b"")])]);
    let (one, two) = (build(&one), build(&two));
    let forth = of(&one, &two);
    assert_eq!(forth, ["-a", "+b", "d [Kind, Mode]", "-d/e", "-d/e/y", "-d/x", "+n", "+n/z"]);
    let back = of(&two, &one);
    assert_eq!(back, ["+a", "-b", "d [Kind, Mode]", "+d/e", "+d/e/y", "+d/x", "-n", "-n/z"]);
    assert_eq!(of(&one, &build(&dir("", vec![]))).len(), 5);
}

#[test]
fn the_root_differs_like_any_other() {
    let other = dir("", vec![]).with(|entry| entry.attributes.mode = 0o040700);
    assert_eq!(of(&build(&dir("", vec![])), &build(&other)), [" [Mode]"]);
}

#[test]
fn only_tables_that_differ_are_read() {
    let tree = |changed: &[u8]| {
        let siblings = (0..40).map(|i| dir(&format!("{i:02}"), vec![dir("in", vec![file("f", b"same")])]));
        let mut children: Vec<_> = siblings.collect();
        children.push(dir("99", vec![dir("in", vec![file("f", changed)])]));
        build(&dir("", children)).open().unwrap()
    };
    let (a, b) = (tree(b"one"), tree(b"two"));
    assert_eq!(differences(&a, &b), ["99/in/f [Content]"]);
    // Beyond the two of opening: the root directory, 99 and 99/in.
    assert_eq!((a.tables_read(), b.tables_read()), (5, 5));
}

#[test]
fn only_pieces_that_differ_are_read() {
    let tree = |names: &[usize], cut| {
        let files = names.iter().map(|i| file(&format!("{i:06}"), b"")).collect();
        build_with(&dir("", files), &[], &Owners::default(), cut).open().unwrap()
    };
    let all: Vec<usize> = (0..20_000).collect();
    let less: Vec<usize> = all.iter().copied().filter(|i| *i != 9_000).collect();
    let (a, b) = (tree(&all, Cut::Rule), tree(&less, Cut::Rule));
    assert_eq!(differences(&a, &b), ["-009000"]);
    assert!(
        a.tables_read() <= 2 + 1 + 2 && b.tables_read() <= 2 + 1 + 2,
        "{} {}",
        a.tables_read(),
        b.tables_read()
    );

    // However the pieces lie, what is told is right.
    let names: Vec<usize> = (0..100).collect();
    let other: Vec<usize> = (0..120).filter(|i| i % 7 != 3).collect();
    for (one, two) in [(4, 4), (4, 5), (100, 3), (3, 1000)] {
        let (a, b) = (tree(&names, Cut::Every(one)), tree(&other, Cut::Every(two)));
        let expected: Vec<String> = (0..120)
            .filter_map(|i| match (names.contains(&i), other.contains(&i)) {
                (true, false) => Some(format!("-{i:06}")),
                (false, true) => Some(format!("+{i:06}")),
                _ => None,
            })
            .collect();
        assert_eq!(differences(&a, &b), expected);
        let (a, b) = (tree(&names, Cut::Every(one)), tree(&other, Cut::Every(two)));
        a.keep_at_most(0);
        assert_eq!(differences(&a, &b), expected);
    }
}

#[test]
fn links_differ_by_group() {
    let (root, links, owners) = everything();
    let linked = build_with(&root, &links, &owners, Cut::Rule);
    let apart = build_with(&root, &[], &owners, Cut::Rule);
    assert_eq!(of(&linked, &apart), ["b [Links]", "sub/b [Links]"]);
    assert_eq!(of(&apart, &linked), ["b [Links]", "sub/b [Links]"]);

    // A path that differs in more is told of once; one that is gone is not told to have other links.
    let mut other = root.clone();
    other
        .children
        .iter_mut()
        .find(|child| child.entry.name.as_bytes() == b"b")
        .unwrap()
        .entry
        .mtime
        .seconds = 1;
    other.children.retain(|child| child.entry.name.as_bytes() != b"sub");
    let other = build_with(&other, &[], &owners, Cut::Rule);
    let found = of(&linked, &other);
    assert_eq!(found[0], "b [Times, Links]");
    assert!(found[1..].iter().all(|line| line.starts_with("-sub")), "{found:?}");
}

#[test]
fn many_links_are_compared_by_piece() {
    let names: Vec<String> = (0..60).map(|i| format!("{i:03}")).collect();
    let files = || dir("", names.iter().map(|name| file(name, b"")).collect());
    let rows = |pairs: usize| -> Vec<_> {
        (0..pairs)
            .flat_map(|i| [link(&names[2 * i], "", 2), link(&names[2 * i + 1], &names[2 * i], 2)])
            .collect()
    };
    let a = build_with(&files(), &rows(30), &Owners::default(), Cut::Every(3)).open().unwrap();
    let b = build_with(&files(), &rows(28), &Owners::default(), Cut::Every(4)).open().unwrap();
    let expected: Vec<String> = (56..60).map(|i| format!("{i:03} [Links]")).collect();
    assert_eq!(differences(&a, &b), expected);
}
