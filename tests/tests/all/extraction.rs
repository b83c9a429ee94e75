//! Extraction where it is hard: little to work with, things in the way, and ends before it has begun.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use diptych_tests::command::{binary, diptych, finish};
use diptych_tests::{Random, TestDir, Tree, tree};
use rustix::fs::{Mode, OFlags};

/// Runs the command with no more than so many descriptors, which it cannot raise.
fn with_descriptors(limit: u32, arguments: &[&Path]) -> diptych_tests::command::Finished {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -n {limit} && exec \"$0\" \"$@\"")]);
    finish(command.arg(binary()).args(arguments).stdin(Stdio::null()))
}

#[test]
fn few_descriptors_are_enough_for_many_levels_and_many_waiting_links() {
    let dir = TestDir::new("descriptors");
    let [source, archive, copy] = ["source", "archive", "copy"].map(|name| dir.join(name));
    let linked = |number| (format!("{number:04}").into_bytes(), tree! { "link" => Tree::hard_link("large") });
    let wide = Tree::directory((0..1000).map(linked));
    let large = Random::new(1).bytes(3 << 20);
    tree! { "deep" => tree! {}, "large" => Tree::file(large), "wide" => wide }.create(&source);
    // Deeper than a path reaches that the kernel takes at once.
    let mut level = fs::File::open(source.join("deep")).unwrap();
    for _ in 0..600 {
        rustix::fs::openat(&level, "f", OFlags::CREATE, Mode::RUSR).unwrap();
        rustix::fs::mkdirat(&level, "a-name-of-some-length", Mode::RWXU).unwrap();
        level = rustix::fs::openat(&level, "a-name-of-some-length", OFlags::DIRECTORY, Mode::empty())
            .unwrap()
            .into();
    }
    let run = |arguments: &[&str], paths: &[&Path]| {
        let arguments: Vec<&Path> = arguments.iter().map(Path::new).chain(paths.iter().copied()).collect();
        with_descriptors(64, &arguments).assert_code(0).text()
    };
    run(&["create"], &[&archive, &source]);
    run(&["extract"], &[&archive, &copy]);
    run(&["diff"], &[&source, &copy]);
    assert_eq!(run(&["hash"], &[&archive]), run(&["hash"], &[&copy]));
}

#[test]
fn a_directory_in_the_way_stays_and_is_told_while_all_else_is_written() {
    let dir = TestDir::new("in-the-way");
    let [source, archive, target] = ["source", "archive", "target"].map(|name| dir.join(name));
    tree! {
        "a" => Tree::file("a"),
        "b" => tree! { "below" => Tree::file("below") },
        "c" => Tree::symlink("a"),
        "d" => Tree::hard_link("e"),
        "e" => Tree::file("e"),
        "z" => Tree::file("z"),
    }
    .create(&source);
    let full = || tree! { "kept" => Tree::file("kept") };
    tree! { "a" => full(), "b" => Tree::file("b"), "c" => full(), "d" => full(), "z" => tree! {} }
        .create(&target);
    diptych(["create".as_ref(), archive.as_os_str(), source.as_os_str()]).assert_code(0);
    let arguments = ["extract".as_ref(), "--overwrite".as_ref(), archive.as_os_str(), target.as_os_str()];
    let messages = diptych(arguments).assert_code(3).messages();
    for name in ["a", "c", "d"] {
        let told = format!("{name}: not ");
        let line = messages.lines().find(|line| line.contains(&told)).unwrap_or_else(|| panic!("{messages}"));
        assert!(line.contains("not empty is in the way: move it away or delete it"), "{line}");
        assert_eq!(fs::read(target.join(name).join("kept")).unwrap(), b"kept");
    }
    assert_eq!(fs::read(target.join("b/below")).unwrap(), b"below");
    assert_eq!(fs::read(target.join("e")).unwrap(), b"e");
    assert_eq!(fs::read(target.join("z")).unwrap(), b"z");
}

#[test]
fn what_fails_before_anything_is_written_leaves_no_target() {
    let dir = TestDir::new("no-target");
    let [source, archive, there] = ["source", "archive", "there"].map(|name| dir.join(name));
    tree! { "f" => Tree::file("f"), "d" => tree! { "g" => Tree::file("g") } }.create(&source);
    diptych(["create".as_ref(), archive.as_os_str(), source.as_os_str()]).assert_code(0);
    fs::create_dir(&there).unwrap();
    let names =
        || fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
    let before = names();
    for target in ["there", "there/new", "new", "new/below"] {
        for path in ["**/*.none", "d/none", "none/*"] {
            let target = dir.join(target);
            diptych(["extract".as_ref(), archive.as_os_str(), target.as_os_str(), path.as_ref()])
                .assert_code(1);
        }
        assert_eq!(names(), before, "{target}");
        assert_eq!(fs::read_dir(&there).unwrap().count(), 0, "{target}");
    }
}
