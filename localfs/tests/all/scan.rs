//! The order of scans, and what they meet on the way.

use std::collections::BTreeMap;
use std::path::Path;

use diptych_format::limits::DEPTH_MAX;
use diptych_format::pieces::CutRule;
use diptych_localfs::scan::{ScanOptions, Step, scan};
use diptych_localfs::select::Selection;
use rustix::fs::{Mode, OFlags, mkdirat, openat};

use crate::support::{as_nobody, begin, make, os, owned_by_nobody, paths, show, steps, temp};

/// The steps that the rule asks for, made in the plainest way.
fn expected(root: &Path, path: &str, lines: &mut Vec<String>) {
    lines.push(format!("> {path}").trim_end().to_owned());
    let entries = std::fs::read_dir(root.join(path)).unwrap().map(Result::unwrap);
    let names: BTreeMap<Vec<u8>, bool> =
        entries.map(|e| (e.file_name().into_encoded_bytes(), e.file_type().unwrap().is_dir())).collect();
    let join = |name: &[u8]| {
        let name = String::from_utf8(name.to_vec()).unwrap();
        if path.is_empty() { name } else { format!("{path}/{name}") }
    };
    let mut rule = CutRule::new(0);
    let mut pieces = vec![(Vec::new(), Vec::new())];
    for (name, is_directory) in &names {
        if rule.cuts_before(name) {
            pieces.push((Vec::new(), Vec::new()));
        }
        let piece = pieces.last_mut().unwrap();
        if *is_directory { piece.1.push(join(name)) } else { piece.0.push(join(name)) }
    }
    let last = pieces.len() - 1;
    for (index, (files, directories)) in pieces.into_iter().enumerate() {
        lines.extend(files);
        directories.iter().for_each(|directory| expected(root, directory, lines));
        if index < last {
            lines.push("|".to_owned());
        }
    }
    lines.push("<".to_owned());
}

#[test]
fn pieces_of_a_large_directory_come_in_the_order_of_the_rule() {
    let temp = temp();
    for i in 0..5000 {
        let path = temp.path().join(format!("{:x}-{i}", i * 2_654_435_761u64 % 65_536));
        if i % 7 == 0 { std::fs::create_dir(path).unwrap() } else { std::fs::write(path, "").unwrap() }
    }
    make(temp.path(), &["0-0/x/y", "0-0/a"]);
    let mut lines = Vec::new();
    expected(temp.path(), "", &mut lines);
    assert!(lines.iter().filter(|line| *line == "|").count() >= 2);
    for threads in [1, 2, 4] {
        assert_eq!(
            steps(temp.path(), Selection::default(), threads),
            (lines.clone(), vec![]),
            "{threads} threads"
        );
    }
}

#[test]
fn directories_come_in_the_order_of_their_bytes() {
    let temp = temp();
    make(
        temp.path(),
        &["a/b", "a!/x", "a-", "a0/", "a/!/c", "B/d", "a -> b"]
            .map(|p| if p == "a -> b" { "l -> a" } else { p }),
    );
    let mut lines = Vec::new();
    expected(temp.path(), "", &mut lines);
    assert_eq!(steps(temp.path(), Selection::default(), 3).0, lines);
    assert_eq!(lines[..4], [">", "a-", "l", "> B"].map(str::to_owned));
}

#[test]
fn a_wide_and_nested_tree_gives_the_same_steps_to_any_number_of_threads() {
    let temp = temp();
    for i in 0..30 {
        for j in 0..20 {
            make(temp.path(), &[&format!("{i}/{j}/f"), &format!("{i}/{j}/g/h"), &format!("{i}/{j}x")]);
        }
    }
    let mut lines = Vec::new();
    expected(temp.path(), "", &mut lines);
    for threads in [1, 2, 3, 8] {
        assert_eq!(steps(temp.path(), Selection::default(), threads), (lines.clone(), vec![]));
    }
}

#[test]
fn a_scan_that_is_dropped_ends_its_helpers() {
    let temp = temp();
    for i in 0..2000 {
        make(temp.path(), &[&format!("{i}/a")]);
    }
    for taken in [0, 1, 5, 500] {
        let (mut scan, _) = begin(temp.path(), Selection::default(), 4);
        for _ in 0..taken {
            scan.next().unwrap();
        }
    }
}

#[test]
fn links_are_not_followed_but_at_the_root() {
    let temp = temp();
    make(temp.path(), &["tree/f", "tree/up -> ..", "root -> tree"]);
    assert_eq!(paths(&temp.path().join("root"), Selection::default()), ["f", "up"]);
}

#[test]
fn roots_that_are_no_directory_on_a_real_file_system_are_refused() {
    let temp = temp();
    make(temp.path(), &["file"]);
    let refusal = |path: &Path| {
        let monitor = std::sync::Arc::new(diptych_format::monitor::Silent);
        scan(path, ScanOptions::default(), monitor).err().map(|error| error.to_string()).unwrap()
    };
    assert!(refusal(&temp.path().join("file")).contains("is no directory"));
    assert!(refusal(&temp.path().join("none")).contains("cannot open"));
    assert!(refusal(Path::new("/proc")).contains("virtual file system (proc)"));
}

#[test]
fn virtual_file_systems_below_the_root_are_kept_as_empty_directories() {
    let selection = Selection { exclude: vec!["/*".into(), "!/proc".into()], ..Selection::default() };
    let (lines, problems) = steps(Path::new("/"), selection, 1);
    assert_eq!(lines, [">", "> proc", "<", "<"]);
    assert_eq!(problems, ["proc: a virtual file system (proc) is mounted here and left out"]);
}

#[test]
fn one_file_system_keeps_others_as_empty_directories() {
    let device = |path| std::os::unix::fs::MetadataExt::dev(&std::fs::metadata(path).unwrap());
    if device("/") == device("/dev") {
        return;
    }
    let exclude = vec!["/*".into(), "!/dev".into()];
    let selection = Selection { exclude, one_file_system: true, ..Selection::default() };
    let (lines, problems) = steps(Path::new("/"), selection, 1);
    assert_eq!(lines, [">", "> dev", "<", "<"]);
    assert_eq!(problems, ["dev: another file system is mounted here and left out"]);
}

#[test]
fn directories_that_cannot_be_read_are_told_and_marked() {
    let temp = temp();
    let root = temp.path().join("root");
    owned_by_nobody(&root);
    let (lines, problems) = as_nobody(|| {
        use std::os::unix::fs::PermissionsExt;
        make(&root, &["closed/x", "open/y"]);
        let mode = |name: &str, mode| {
            std::fs::set_permissions(root.join(name), PermissionsExt::from_mode(mode)).unwrap()
        };
        mode("closed", 0o300);
        let result = steps(&root, Selection::default(), 1);
        mode("closed", 0o700);
        result
    });
    assert_eq!(lines, [">", "> closed not-read attributes-incomplete", "<", "> open", "open/y", "<", "<"]);
    assert_eq!(problems, ["!closed: cannot open the directory: Permission denied (os error 13)"]);
}

#[test]
fn directories_that_cannot_be_searched_lose_their_entries_and_say_so() {
    let temp = temp();
    let root = temp.path().join("root");
    owned_by_nobody(&root);
    let (lines, problems) = as_nobody(|| {
        use std::os::unix::fs::PermissionsExt;
        make(&root, &["blind/x"]);
        std::fs::set_permissions(root.join("blind"), PermissionsExt::from_mode(0o400)).unwrap();
        steps(&root, Selection::default(), 1)
    });
    std::fs::set_permissions(root.join("blind"), std::os::unix::fs::PermissionsExt::from_mode(0o700))
        .unwrap();
    assert_eq!(lines, [">", "> blind", "<", "<"]);
    assert_eq!(problems, ["!blind/x: cannot look at it: Permission denied (os error 13)"]);
}

#[test]
fn a_directory_that_vanishes_after_it_was_seen_is_left_out() {
    let temp = temp();
    make(temp.path(), &["a/x", "b/y"]);
    let (mut scan, recorder) = begin(temp.path(), Selection::default(), 1);
    assert!(matches!(scan.next().unwrap(), Some(Step::Enter(_))));
    std::fs::remove_dir_all(temp.path().join("a")).unwrap();
    let Some(Step::Vanished(name)) = scan.next().unwrap() else { panic!("a is still there") };
    assert_eq!(name.as_bytes(), b"a");
    assert!(matches!(scan.next().unwrap(), Some(Step::Enter(_))));
    assert_eq!(recorder.lines(), ["a: vanished while scanning"]);
}

#[test]
fn a_directory_that_becomes_a_link_is_not_followed() {
    let temp = temp();
    make(temp.path(), &["tree/a/x", "secret/y"]);
    let (mut scan, recorder) = begin(&temp.path().join("tree"), Selection::default(), 1);
    scan.next().unwrap();
    std::fs::remove_dir_all(temp.path().join("tree/a")).unwrap();
    make(temp.path(), &["tree/a -> ../secret"]);
    assert!(matches!(scan.next().unwrap(), Some(Step::Enter(_))));
    assert!(matches!(scan.next().unwrap(), Some(Step::Leave(_))));
    assert_eq!(recorder.lines(), ["!a: replaced by something else while scanning"]);
}

#[test]
fn names_are_any_bytes() {
    let temp = temp();
    let names: [&[u8]; 5] = [b"\x01", b" ", b"\\", b"\xc3\x28", b"\xff\xfe"];
    for name in names {
        std::fs::write(temp.path().join(os(name)), "").unwrap();
    }
    assert_eq!(paths(temp.path(), Selection::default()), names.map(show));
}

/// Makes a chain of directories, one below the other, with a file in the last.
fn chain(root: &Path, levels: usize, name: &str) {
    let open =
        |at: &rustix::fd::OwnedFd, name: &str| openat(at, name, OFlags::DIRECTORY, Mode::empty()).unwrap();
    let mut at = rustix::fs::open(root, OFlags::DIRECTORY, Mode::empty()).unwrap();
    for _ in 0..levels {
        mkdirat(&at, name, Mode::RWXU).unwrap();
        at = open(&at, name);
    }
    openat(&at, "last", OFlags::CREATE | OFlags::WRONLY, Mode::RWXU).unwrap();
}

#[test]
fn paths_far_beyond_what_the_kernel_takes_are_scanned() {
    let temp = temp();
    chain(temp.path(), 300, "a-name-of-some-length");
    for threads in [1, 3] {
        let (lines, problems) = steps(temp.path(), Selection::default(), threads);
        assert_eq!((lines.len(), problems.len()), (2 * 301 + 1, 0));
        assert!(lines[301].ends_with("/last") && lines[301].len() > 4096);
    }
}

#[test]
fn what_lies_deeper_than_the_format_holds_is_told() {
    let temp = temp();
    chain(temp.path(), DEPTH_MAX, "d");
    let (lines, problems) = steps(temp.path(), Selection::default(), 2);
    assert_eq!(lines.len(), 2 * (DEPTH_MAX + 1));
    assert!(lines[DEPTH_MAX].ends_with(" not-read"));
    assert_eq!(problems.len(), 1);
    assert!(problems[0].starts_with('!') && problems[0].ends_with("deeper than the limit of 2048 levels"));
}

#[test]
fn paths_longer_than_the_format_holds_are_told() {
    let temp = temp();
    let name = "n".repeat(255);
    chain(temp.path(), 258, &name);
    let (lines, problems) = steps(temp.path(), Selection::default(), 1);
    assert_eq!((lines.len(), problems.len()), (2 * 257, 1));
    assert!(problems[0].ends_with("is above the limit of 65536"), "{}", problems[0].len());
}
