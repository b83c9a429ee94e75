//! What selections leave out.

use diptych_localfs::select::Selection;

use crate::support::{make, paths, steps, temp};

fn exclude(patterns: &[&str]) -> Selection {
    Selection { exclude: patterns.iter().map(|p| (*p).to_owned()).collect(), ..Selection::default() }
}

#[test]
fn patterns_are_relative_to_the_root_and_take_back() {
    let temp = temp();
    make(
        temp.path(),
        &["a.o", "b.c", "sub/a.o", "sub/keep.o", "sub/deep/a.o", "build/x", "sub/build/y", "tmp/z"],
    );
    let selection = exclude(&["*.o", "!keep.o", "/build/", "sub/deep"]);
    assert_eq!(
        paths(temp.path(), selection),
        ["b.c", "sub/", "sub/keep.o", "sub/build/", "sub/build/y", "tmp/", "tmp/z"]
    );
}

#[test]
fn a_pattern_for_directories_spares_files() {
    let temp = temp();
    make(temp.path(), &["cache", "sub/cache/x", "sub/y"]);
    assert_eq!(paths(temp.path(), exclude(&["cache/"])), ["cache", "sub/", "sub/y"]);
}

#[test]
fn ignore_files_hold_for_their_directory_and_the_nearest_decides() {
    let temp = temp();
    let root = temp.path();
    make(root, &["a.log", "x/a.log", "x/b.log", "x/only", "y/only", "y/a.log", "x/z/b.log"]);
    std::fs::write(root.join(".diptychignore"), "*.log\r\n# a comment\n\n").unwrap();
    std::fs::write(root.join("x/.diptychignore"), "!b.log\n/only\n").unwrap();
    assert_eq!(
        paths(root, Selection::default()),
        [".diptychignore", "x/", "x/.diptychignore", "x/b.log", "x/z/", "x/z/b.log", "y/", "y/only"]
    );
    // The patterns of the run go before all of them.
    assert!(paths(root, exclude(&["!a.log"])).contains(&"y/a.log".to_owned()));
    let selection = Selection { ignore_files: false, ..Selection::default() };
    assert_eq!(paths(root, selection).len(), 12);
}

#[test]
fn what_is_wrong_with_an_ignore_file_is_told_and_costs_nothing() {
    let temp = temp();
    make(temp.path(), &["a.log", "b"]);
    std::fs::write(temp.path().join(".diptychignore"), b"\xff\xfe\n[z-a]\n*.log\n").unwrap();
    make(temp.path(), &["sub/.diptychignore/x", "link/", "link/.diptychignore -> /etc/passwd"]);
    let (lines, problems) = steps(temp.path(), Selection::default(), 1);
    assert!(!lines.contains(&"a.log".to_owned()) && lines.contains(&"b".to_owned()));
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(
        problems[0].starts_with(".diptychignore: line 1")
            && problems[1].starts_with(".diptychignore: line 2")
    );
}

#[test]
fn caches_are_kept_with_their_tag_alone() {
    let temp = temp();
    let root = temp.path();
    make(root, &["cache/a", "cache/sub/b", "false/a", "false/CACHEDIR.TAG", "c"]);
    std::fs::write(root.join("cache/CACHEDIR.TAG"), "Signature: 8a477f597d28d172789f06886806bc55\n# more")
        .unwrap();
    let selection = Selection { exclude_caches: true, ..Selection::default() };
    assert_eq!(
        paths(root, selection),
        ["c", "cache/", "cache/CACHEDIR.TAG", "false/", "false/CACHEDIR.TAG", "false/a"]
    );
    assert_eq!(paths(root, Selection::default()).len(), 9);
}

#[test]
fn a_marked_directory_is_kept_empty() {
    let temp = temp();
    make(temp.path(), &["a/.nobackup", "a/x", "a/sub/y", "b/.nobackup/z", "b/x", "c/x"]);
    let selection = Selection { exclude_if_present: vec![".nobackup".to_owned()], ..Selection::default() };
    assert_eq!(paths(temp.path(), selection), ["a/", "b/", "c/", "c/x"]);
}

#[test]
fn large_files_are_left_out_by_their_size() {
    let temp = temp();
    std::fs::write(temp.path().join("large"), [0; 101]).unwrap();
    std::fs::write(temp.path().join("small"), [0; 100]).unwrap();
    make(temp.path(), &["directory/"]);
    let selection = Selection { exclude_larger_than: Some(100), ..Selection::default() };
    assert_eq!(paths(temp.path(), selection), ["small", "directory/"]);
}

#[test]
fn patterns_that_are_none_are_refused_before_anything_is_read() {
    assert!(exclude(&["a", "*.o", "!b/"]).validate().is_ok());
    let error = exclude(&["a[z-a]"]).validate().unwrap_err().to_string();
    assert!(error.contains("a[z-a]"), "{error}");
    for name in ["", "a/b"] {
        let selection = Selection { exclude_if_present: vec![name.to_owned()], ..Selection::default() };
        assert!(selection.validate().is_err());
    }
}

#[test]
fn names_that_are_not_utf_8_match() {
    let temp = temp();
    for name in [&b"\xff.o"[..], b"\xff.c"] {
        std::fs::write(temp.path().join(crate::support::os(name)), "").unwrap();
    }
    assert_eq!(paths(temp.path(), exclude(&["*.o"])), ["\\xff.c"]);
}
