//! Restoring from a repository: parts by path, what is there already, what is deleted, and runs that were cut short.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use diptych_tests::command::{Finished, binary, command, finish};
use diptych_tests::tools::{assert_tools_see_no_difference, output, rsync_differences, tool};
use diptych_tests::{Random, TestDir, Tree, tree};

/// A repository without encryption, which keeps key derivation out of every run.
struct Kept {
    dir: TestDir,
}

impl Kept {
    /// One snapshot of `tree`, which is made at `source`.
    fn new(name: &str, tree: &Tree) -> Self {
        let kept = Self { dir: TestDir::new(name) };
        tree.create(&kept.source());
        kept.backup(&[&kept.source()]);
        kept
    }

    fn source(&self) -> PathBuf {
        self.dir.join("source")
    }

    fn target(&self) -> PathBuf {
        self.dir.join("target")
    }

    fn run<A: AsRef<OsStr>>(&self, verb: &str, arguments: &[A]) -> Finished {
        let mut run = command([verb]);
        run.arg("-r").arg(self.dir.join("repository")).args(arguments);
        finish(&mut run)
    }

    fn backup(&self, paths: &[&Path]) {
        let options = ["--init", "--no-encryption"].map(OsString::from);
        let arguments: Vec<OsString> =
            options.into_iter().chain(paths.iter().map(|path| path.as_os_str().to_owned())).collect();
        self.run("backup", &arguments).assert_code(0);
    }

    /// Restores the latest snapshot into the target; `arguments` are separated by blanks.
    fn restore(&self, arguments: &str) -> Finished {
        self.restore_at("", arguments)
    }

    /// Restores what was at a path below the source.
    fn restore_at(&self, path: &str, arguments: &str) -> Finished {
        let snapshot = match path {
            "" => "latest".to_owned(),
            path => format!("latest:{}", self.source().join(path).display()),
        };
        let mut all = vec![OsString::from(snapshot), "--target".into(), self.target().into()];
        all.extend(arguments.split_whitespace().map(OsString::from));
        self.run("restore", &all)
    }

    #[track_caller]
    fn assert_restored(&self) {
        assert_eq!(rsync_differences(&self.source(), &self.target()), "");
    }
}

/// A tool that runs the command, which knows no more of earlier tests than it does without one.
fn around(name: &str) -> Command {
    let mut command = tool(name);
    command.env("XDG_STATE_HOME", "/dev/null");
    command
}

/// Names below a folder, each directory with a slash behind it.
fn names(folder: &Path) -> Vec<String> {
    let paths = Tree::read(folder);
    let shown = |(path, tree): (Vec<u8>, &Tree)| {
        let is_directory = matches!(tree.what, diptych_tests::tree::What::Directory(_));
        let path = String::from_utf8(path).unwrap();
        (!path.is_empty()).then(|| if is_directory { path + "/" } else { path })
    };
    paths.paths().into_iter().filter_map(shown).collect()
}

fn inode(path: PathBuf) -> u64 {
    fs::symlink_metadata(path).unwrap().ino()
}

fn small() -> Tree {
    tree! {
        "docs" => tree! {
            "notes" => Tree::file("notes").mode(0o600).xattr("user.a", "b").mtime(1, 5),
            "again" => Tree::hard_link("docs/notes"),
            "link" => Tree::symlink("notes").mtime(9, 9),
            "old" => tree! { "x.pdf" => Tree::file("x"), "y.txt" => Tree::file("y") }.mode(0o711),
        }.mode(0o750).owner(7, 8).mtime(77, 7),
        "large" => Tree::file(Random::new(5).bytes(3 << 20)),
        "pipe" => Tree::fifo(),
        "z.pdf" => Tree::file("z"),
    }
}

#[test]
fn a_snapshot_of_one_archive_becomes_the_target() {
    let kept = Kept::new("restore-whole", &small());
    let said = kept.restore("").assert_code(0);
    assert!(said.stdout.is_empty(), "{}", said.text());
    assert_tools_see_no_difference(&kept.source(), &kept.target());
    let [a, b] =
        [kept.source(), kept.target()].map(|tree| finish(command(["hash"]).arg(tree)).assert_code(0).text());
    assert_eq!(a, b);
    // It is full now, and nothing was said of what is to become of that.
    let refused = kept.restore("").assert_code(1).messages();
    assert!(refused.contains("is not empty: name another target, or --overwrite"), "{refused}");
    assert_eq!(kept.restore("--overwrite never -q").assert_code(0).messages(), "");
}

#[test]
fn a_path_is_stripped_and_a_file_goes_into_the_target() {
    let kept = Kept::new("restore-path", &small());
    kept.restore_at("docs", "").assert_code(0);
    assert_eq!(rsync_differences(&kept.source().join("docs"), &kept.target()), "");
    fs::remove_dir_all(kept.target()).unwrap();
    // One name of two is a file like any other.
    kept.restore_at("docs/notes", "").assert_code(0);
    assert_eq!(names(&kept.target()), ["notes"]);
    assert_eq!(fs::read(kept.target().join("notes")).unwrap(), b"notes");
    fs::remove_dir_all(kept.target()).unwrap();
    let missing = kept.restore_at("docs/none", "").assert_code(1).messages();
    assert!(missing.contains("docs/none: is not in the snapshot"), "{missing}");
    assert!(!kept.target().exists());
}

#[test]
fn archives_of_one_snapshot_are_restored_at_their_paths() {
    let kept = Kept::new(
        "restore-several",
        &tree! { "a" => Tree::file("a"), "in" => tree! { "b" => Tree::file("b") } },
    );
    let other = kept.dir.join("other");
    tree! { "c" => Tree::file("c") }.create(&other);
    // One of them lies inside another one.
    kept.backup(&[&kept.source(), &other, &kept.source().join("in")]);
    let paths: Vec<String> = [&kept.source(), &other, &kept.source().join("in")]
        .iter()
        .flat_map(|path| ["--path".to_owned(), path.display().to_string()])
        .collect();
    kept.restore(&paths.join(" ")).assert_code(0);
    let below = |path: &Path| kept.target().join(path.strip_prefix("/").unwrap());
    assert_eq!(rsync_differences(&kept.source(), &below(&kept.source())), "");
    assert_eq!(rsync_differences(&other, &below(&other)), "");
    // What is in none of them is deleted from their directories, and from no other one.
    fs::write(below(&other).join("junk"), "").unwrap();
    fs::write(below(&kept.source()).join("in/junk"), "").unwrap();
    fs::write(kept.target().join("mine"), "").unwrap();
    let dry = kept.restore(&format!("{} --overwrite if-changed --delete --dry-run", paths.join(" ")));
    let shown = |path: PathBuf| path.strip_prefix(kept.target()).unwrap().display().to_string();
    let mut expected = [below(&other), below(&kept.source()).join("in")]
        .map(|directory| format!("delete  {}\n", shown(directory.join("junk"))));
    expected.sort();
    let dry = dry.assert_code(0).text();
    let mut deleted: Vec<&str> = dry.split_inclusive('\n').collect();
    deleted.sort_unstable();
    deleted.dedup();
    assert_eq!(deleted, expected);
    kept.restore(&format!("{} --overwrite if-changed --delete", paths.join(" "))).assert_code(0);
    assert_eq!(rsync_differences(&other, &below(&other)), "");
    assert_eq!(rsync_differences(&kept.source(), &below(&kept.source())), "");
    assert!(kept.target().join("mine").exists());
}

#[test]
fn patterns_are_told_from_the_restored_root() {
    let kept = Kept::new("restore-patterns", &small());
    kept.restore("--include *.pdf --exclude /z.pdf").assert_code(0);
    assert_eq!(names(&kept.target()), ["docs/", "docs/old/", "docs/old/x.pdf"]);
    // Directories on the way are as they were.
    let mode = |tree: PathBuf| fs::metadata(tree.join("docs/old")).unwrap().mode();
    assert_eq!(mode(kept.target()), mode(kept.source()));
    fs::remove_dir_all(kept.target()).unwrap();
    kept.restore_at("docs", "--exclude /old/ --exclude link").assert_code(0);
    assert_eq!(names(&kept.target()), ["again", "notes"]);
    fs::remove_dir_all(kept.target()).unwrap();
    let none = kept.restore("--include nothing").assert_code(1).messages();
    assert!(none.contains("nothing in the snapshot matches"), "{none}");
    kept.restore("--include [").assert_code(2);
    assert!(!kept.target().exists());
}

#[test]
fn what_is_there_stays_if_nothing_is_overwritten() {
    let kept = Kept::new("restore-never", &small());
    let there = tree! {
        "docs" => tree! { "notes" => Tree::file("mine").mode(0o640) }.mode(0o700),
        "z.pdf" => tree! { "below" => Tree::file("") },
    };
    there.create(&kept.target());
    let dry = kept.restore("--overwrite never --dry-run").assert_code(0).text();
    assert!(
        dry.contains("create  docs/again\n") && !dry.contains("docs/notes") && !dry.contains("z.pdf"),
        "{dry}"
    );
    there.assert_same(&Tree::read(&kept.target()));
    kept.restore("--overwrite never").assert_code(0);
    let found = Tree::read(&kept.target());
    for path in [&b"docs/notes"[..], b"z.pdf/below"] {
        assert!(found.at(path) == there.at(path), "{path:?}");
    }
    assert_eq!(found.at(b"docs").unwrap().mode, 0o700);
    // The other name of the file that is another one now is a file by itself.
    assert_eq!(found.at(b"docs/again").unwrap().content(), b"notes");
    assert!(found.at(b"docs/old") == Tree::read(&kept.source()).at(b"docs/old"));
    // A file in the place of a directory stays too, and that costs what is in the directory.
    fs::remove_dir_all(kept.target()).unwrap();
    tree! { "docs" => Tree::file("mine") }.create(&kept.target());
    let lost = kept.restore("--overwrite never").assert_code(3).messages();
    assert!(lost.contains("docs: not restored, nor anything below it: a file is in its place"), "{lost}");
    assert_eq!(fs::read(kept.target().join("docs")).unwrap(), b"mine");
}

#[test]
fn equal_contents_keep_their_files_and_get_attributes() {
    let kept = Kept::new("restore-changed", &small());
    kept.restore("").assert_code(0);
    let target = |name: &str| kept.target().join(name);
    let inodes = || ["large", "docs/notes", "docs/old/x.pdf", "z.pdf"].map(|name| inode(target(name)));
    let before = inodes();
    // As long as it was, and younger.
    fs::write(target("z.pdf"), "Z").unwrap();
    fs::write(target("docs/old/x.pdf"), "longer").unwrap();
    fs::set_permissions(target("large"), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    rustix::fs::setxattr(target("docs/notes"), "user.more", b"", rustix::fs::XattrFlags::empty()).unwrap();
    // Another file with the same content, and a link that leads elsewhere.
    fs::remove_file(target("docs/again")).unwrap();
    fs::write(target("docs/again"), "notes").unwrap();
    fs::remove_file(target("docs/link")).unwrap();
    symlink("/", target("docs/link")).unwrap();
    let dry = kept.restore("--overwrite if-changed --dry-run").assert_code(0).text();
    for name in ["z.pdf", "docs/old/x.pdf", "docs/link"] {
        assert!(dry.contains(&format!("replace {name}\n")), "{name}: {dry}");
    }
    assert!(!dry.contains("large") && !dry.contains("create") && !dry.contains("delete"), "{dry}");
    assert_ne!(rsync_differences(&kept.source(), &kept.target()), "");
    kept.restore("--overwrite if-changed").assert_code(0);
    assert_tools_see_no_difference(&kept.source(), &kept.target());
    let after = inodes();
    assert_eq!(before[0], after[0]);
    assert_ne!(before[2], after[2]);
    assert_ne!(before[3], after[3]);
    kept.restore("--overwrite always").assert_code(0);
    assert_tools_see_no_difference(&kept.source(), &kept.target());
    assert_ne!(inodes()[0], after[0]);
}

#[test]
fn a_file_with_names_elsewhere_is_replaced_and_never_changed() {
    let kept = Kept::new(
        "restore-elsewhere",
        &tree! { "a" => Tree::file("a").mode(0o600), "b" => Tree::hard_link("a") },
    );
    fs::create_dir(kept.target()).unwrap();
    let outside = kept.dir.join("outside");
    fs::write(&outside, "a").unwrap();
    let link = || {
        let _ = fs::remove_file(kept.target().join("a"));
        fs::hard_link(&outside, kept.target().join("a")).unwrap();
    };
    link();
    let mode = fs::metadata(&outside).unwrap().mode();
    let refused = kept.restore("--overwrite always --in-place").assert_code(3).messages();
    assert!(
        refused.contains("a: not restored: it has other names, outside of what is restored"),
        "{refused}"
    );
    link();
    // It has as many names as the snapshot's file, and one of them is not in the target.
    fs::write(kept.target().join("b"), "b").unwrap();
    kept.restore("--overwrite if-changed").assert_code(0);
    kept.assert_restored();
    assert_eq!((fs::metadata(&outside).unwrap().mode(), fs::metadata(&outside).unwrap().nlink()), (mode, 1));
    // Now that both are its own, the file is kept.
    let before = inode(kept.target().join("a"));
    kept.restore("--overwrite if-changed").assert_code(0);
    assert_eq!(inode(kept.target().join("a")), before);
    kept.assert_restored();
}

#[test]
fn only_what_the_snapshot_has_is_left_and_nothing_outside_is_touched() {
    let kept = Kept::new("restore-delete", &small());
    kept.restore("").assert_code(0);
    let outside = kept.dir.join("outside");
    tree! { "f" => Tree::file("f"), "d" => tree! { "g" => Tree::file("g") } }.create(&outside);
    let extra = || {
        let below = |name: &str| kept.target().join(name);
        symlink(&outside, below("out")).unwrap();
        symlink(&outside, below("docs/out")).unwrap();
        tree! {
            "deep" => tree! { "f" => Tree::file("f"), "out" => Tree::symlink(outside.to_str().unwrap()) }.mode(0),
            "pipe" => Tree::fifo(),
        }
        .create(&below("extra"));
        // A directory where the snapshot has a file.
        fs::remove_file(below("z.pdf")).unwrap();
        tree! { "f" => Tree::file("f") }.create(&below("z.pdf"));
        // And a link where it has a directory.
        fs::remove_dir_all(below("docs/old")).unwrap();
        symlink(&outside, below("docs/old")).unwrap();
    };
    extra();
    let before = Tree::read(&kept.target());
    let dry = kept.restore("--overwrite if-changed --delete --dry-run").assert_code(0).text();
    before.assert_same(&Tree::read(&kept.target()));
    let mut deleted: Vec<&str> = dry.lines().filter_map(|line| line.strip_prefix("delete  ")).collect();
    deleted.sort_unstable();
    let expected = [
        "docs/out",
        "extra/",
        "extra/deep/",
        "extra/deep/f",
        "extra/deep/out",
        "extra/pipe",
        "out",
        "z.pdf/",
        "z.pdf/f",
    ];
    assert_eq!(deleted, expected);
    let named = kept.restore("--overwrite if-changed --delete --verbose").assert_code(0).messages();
    let mut really: Vec<&str> = named.lines().filter_map(|line| line.strip_prefix("delete  ")).collect();
    really.sort_unstable();
    assert_eq!(really, expected);
    kept.assert_restored();
    assert_eq!(names(&outside), ["d/", "d/g", "f"]);
    // Patterns keep from being deleted what they leave out.
    extra();
    kept.restore("--overwrite if-changed --delete --exclude extra/ --exclude out").assert_code(0);
    assert!(kept.target().join("extra/deep/out").is_symlink() && kept.target().join("out").is_symlink());
    fs::remove_dir_all(kept.target().join("extra")).unwrap();
    kept.restore("--overwrite if-changed --delete").assert_code(0);
    kept.assert_restored();
    assert_eq!(names(&outside), ["d/", "d/g", "f"]);
    kept.restore("--delete").assert_code(2);
}

#[test]
fn nothing_on_a_file_system_mounted_below_is_deleted() {
    if !tool("unshare").args(["--mount", "true"]).output().unwrap().status.success() {
        return;
    }
    let kept = Kept::new("restore-mounted", &tree! { "d" => tree! {}, "f" => Tree::file("f") });
    let outside = kept.dir.join("outside");
    tree! { "kept" => Tree::file("kept") }.create(&outside);
    tree! { "d" => tree! {}, "extra" => tree! { "m" => tree! {}, "n" => Tree::file("") } }
        .create(&kept.target());
    // The same file system once more is another mount all the same.
    let script = r#"mount --bind "$0" "$1/d" && mount --bind "$0" "$1/extra/m" && shift && exec "$@""#;
    let mut shell = around("unshare");
    shell.args(["--mount", "sh", "-c", script]).arg(&outside).arg(kept.target()).arg(binary());
    shell.args(["restore", "latest", "--overwrite", "if-changed", "--delete", "-r"]);
    shell.arg(kept.dir.join("repository")).arg("--target").arg(kept.target()).stdin(Stdio::null());
    let messages = finish(&mut shell).assert_code(3).messages();
    for place in ["d", "extra/m"] {
        let told =
            format!("diptych: {place}: another file system is mounted there: nothing on it is deleted");
        assert!(messages.contains(&told), "{messages}");
    }
    assert_eq!(names(&outside), ["kept"]);
    assert_eq!(names(&kept.target()), ["d/", "extra/", "extra/m/", "f"]);
}

#[test]
fn in_place_only_what_differs_is_written() {
    let bytes = Random::new(9).bytes(40 << 20);
    let kept = Kept::new(
        "restore-in-place",
        &tree! { "f" => Tree::file(&bytes), "g" => Tree::hard_link("f"), "s" => Tree::file("small") },
    );
    let mut other = bytes.clone();
    other[20_000_000] ^= 1;
    other.truncate(39 << 20);
    other.extend_from_slice(&[7; 2 << 20]);
    tree! { "f" => Tree::file(&other), "g" => Tree::hard_link("f"), "s" => Tree::file("smaller") }
        .create(&kept.target());
    let log = kept.dir.join("log");
    let before = inode(kept.target().join("f"));
    let mut run = around("strace");
    run.args(["-f", "-qq", "-e", "trace=pwrite64,ioctl", "-e", "write=none", "-o"]).arg(&log).arg(binary());
    run.args(["restore", "latest", "--overwrite", "if-changed", "--in-place", "-r"]);
    run.arg(kept.dir.join("repository")).arg("--target").arg(kept.target());
    output(&mut run);
    kept.assert_restored();
    let calls = fs::read_to_string(&log).unwrap();
    let written = calls.lines().filter(|line| line.contains("pwrite64"));
    let written: u64 = written.filter_map(|line| line.rsplit_once("= ")?.1.parse::<u64>().ok()).sum();
    // The chunk around the byte, and those behind the end.
    assert!(written > 1 << 20 && written < 16 << 20, "{written}");
    let is_cloned = calls.lines().any(|line| line.contains("FICLONE") && line.ends_with("= 0"));
    assert_eq!(inode(kept.target().join("f")) == before, !is_cloned);
    // What is right is not changed again, and may have other names.
    let inode_before = inode(kept.target().join("s"));
    fs::hard_link(kept.target().join("f"), kept.dir.join("outside")).unwrap();
    let again = kept.restore("--overwrite if-changed --in-place --json").assert_code(0);
    let summary: serde_json::Value = serde_json::from_str(again.text().lines().last().unwrap()).unwrap();
    assert_eq!(summary["kept"], 1, "{summary}");
    assert_eq!(inode(kept.target().join("s")), inode_before);
    kept.assert_restored();
    assert!(kept.restore("--in-place").assert_code(2).messages().contains("--overwrite"));
    kept.restore("--overwrite never --in-place").assert_code(2);
}

#[test]
fn a_damaged_chunk_costs_nothing_that_was_whole_but_in_place() {
    let kept = Kept::new("restore-damaged", &tree! { "f" => Tree::file(Random::new(1).bytes(6 << 20)) });
    let packs =
        output(tool("find").arg(kept.dir.join("repository/data")).args(["-type", "f", "-size", "+4M"]));
    let pack = PathBuf::from(String::from_utf8(packs).unwrap().trim());
    let mut bytes = fs::read(&pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::set_permissions(&pack, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    fs::write(&pack, bytes).unwrap();
    let old = Random::new(2).bytes(6 << 20);
    tree! { "f" => Tree::file(&old) }.create(&kept.target());
    let messages = kept.restore("--overwrite always").assert_code(3).messages();
    assert!(
        messages.contains("f: not restored: ") && messages.contains("1 problem, named above"),
        "{messages}"
    );
    assert_eq!(names(&kept.target()), ["f"]);
    assert!(fs::read(kept.target().join("f")).unwrap() == old);
    let messages = kept.restore("--overwrite always --in-place").assert_code(3).messages();
    // Where the file system clones files, the clone is dropped.
    let is_mixed = fs::read(kept.target().join("f")).unwrap() != old;
    assert_eq!(messages.contains("and the file that was there is changed in part"), is_mixed, "{messages}");
    assert_eq!(names(&kept.target()), ["f"]);
}

#[test]
fn packs_are_read_by_the_run_and_no_part_of_them_twice() {
    let name = |number: u64| format!("{number:03}").into_bytes();
    let file = |number: u64, seed: u64| Tree::file(Random::new(seed + number).bytes(20_000));
    // Every third file changes, so that a directory's contents lie in the packs of two runs by turns.
    let first = Tree::directory((0..600).map(|number| (name(number), file(number, 0))));
    let kept = Kept::new("restore-packs", &first);
    let second = (0..600).map(|number| (name(number), file(number, if number % 3 == 0 { 1000 } else { 0 })));
    fs::remove_dir_all(kept.source()).unwrap();
    Tree::directory(second).create(&kept.source());
    kept.backup(&[&kept.source()]);
    let log = kept.dir.join("log");
    let mut run = around("strace");
    run.args(["-f", "-y", "-qq", "-e", "trace=pread64", "-o"]).arg(&log).arg(binary());
    run.args(["restore", "latest", "--threads", "1", "-r"]).arg(kept.dir.join("repository"));
    output(run.arg("--target").arg(kept.target()));
    kept.assert_restored();
    let calls = fs::read_to_string(&log).unwrap();
    let mut reads: Vec<(String, u64, u64)> = Vec::new();
    for line in calls.lines() {
        let Some((_, rest)) = line.split_once("/repository/data/") else { continue };
        let (pack, rest) = rest.split_once('>').unwrap();
        let (rest, length) = rest.rsplit_once(" = ").unwrap();
        let offset = rest.trim_end().trim_end_matches(')').rsplit_once(", ").unwrap().1;
        reads.push((pack.to_owned(), offset.parse().unwrap(), length.parse().unwrap()));
    }
    // Two packs of contents, of some 12 MB, in runs of up to 8 MiB; tables and maps are in others.
    let large: Vec<_> = reads.iter().filter(|(_, _, length)| *length > 100_000).collect();
    let bytes: u64 = large.iter().map(|(_, _, length)| length).sum();
    assert!(large.len() <= 6 && bytes > 11 << 20 && bytes < 17 << 20, "{large:?}");
    reads.sort();
    for pair in reads.windows(2) {
        let [(pack, start, length), (next_pack, next, _)] = pair else { unreachable!() };
        assert!(pack != next_pack || start + length <= *next, "{pair:?}");
    }
}

#[test]
fn a_restore_that_was_cut_short_goes_on() {
    let file = |number: u64| {
        let bytes = Random::new(number).bytes(if number.is_multiple_of(10) { 5 << 20 } else { 90_000 });
        (format!("{number:02}").into_bytes(), Tree::file(bytes).mode(0o640).mtime(5, 5))
    };
    let files = Tree::directory((0..40).map(file)).mode(0o550).mtime(3, 3);
    let kept = Kept::new("restore-again", &tree! { "d" => files, "z" => Tree::hard_link("d/11") });
    kept.restore("").assert_code(0);
    // As it is when a run is killed: some files whole, one in part, the rest missing, directories for their owner alone.
    let below = |number: u64| kept.target().join(format!("d/{number:02}"));
    let whole = [below(1), below(10), kept.target().join("z")].map(|path| (inode(path.clone()), path));
    fs::remove_file(below(11)).unwrap();
    for number in 20..40 {
        fs::remove_file(below(number)).unwrap();
    }
    let part = fs::OpenOptions::new().write(true).open(below(12)).unwrap();
    part.set_len(1000).unwrap();
    fs::set_permissions(below(12), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    fs::set_permissions(kept.target().join("d"), std::os::unix::fs::PermissionsExt::from_mode(0o700))
        .unwrap();
    let said = kept.restore("--overwrite if-changed").assert_code(0).messages();
    assert!(said.contains("; 19 had the right content already"), "{said}");
    kept.assert_restored();
    for (before, path) in whole {
        assert_eq!(inode(path.clone()), before, "{}", path.display());
    }
}

#[test]
fn what_the_snapshot_does_not_have_whole_is_counted_and_named_on_demand() {
    let kept = Kept { dir: TestDir::new("restore-incomplete") };
    tree! { "f" => Tree::file("f"), "g" => Tree::file("g").mode(0o600).owner(5, 5) }.create(&kept.source());
    // Root that may not read what belongs to others.
    let mut run = around("setpriv");
    run.arg("--bounding-set=-dac_override,-dac_read_search").arg(binary());
    run.args(["backup", "--init", "--no-encryption", "-r"])
        .arg(kept.dir.join("repository"))
        .arg(kept.source());
    finish(&mut run).assert_code(3);
    let messages = kept.restore("").assert_code(3).messages();
    let counted = "1 entry is not whole in the snapshot itself; -v names it\n";
    assert!(messages.ends_with(counted) && !messages.contains("g: "), "{messages}");
    assert_eq!(names(&kept.target()), ["f"]);
    let named = kept.restore("--overwrite if-changed --verbose").assert_code(3).messages();
    assert!(named.contains("g: not restored: its content was not read when it was backed up"), "{named}");
    assert_eq!(kept.restore("--overwrite always -q").assert_code(3).messages(), counted);
    let events = kept.restore("--overwrite if-changed --json").assert_code(3).text();
    assert!(events.contains(r#""event":"incomplete","path":"g""#), "{events}");
}

#[test]
fn a_directory_whose_names_cannot_be_looked_at_is_not_whole() {
    let kept = Kept { dir: TestDir::new("restore-unsearchable") };
    // Anybody may read the names, and only the owner may go on from there.
    let closed = tree! { "g" => Tree::file("g") }.mode(0o744).owner(5, 5);
    tree! { "d" => closed, "f" => Tree::file("f") }.create(&kept.source());
    let limited = |arguments: &[&str]| {
        let mut run = around("setpriv");
        run.arg("--bounding-set=-dac_override,-dac_read_search").arg(binary()).args(arguments);
        run.current_dir(kept.dir.path());
        finish(&mut run)
    };
    let source = kept.source();
    let source = source.to_str().unwrap();
    let created = limited(&["create", "archive", source]).assert_code(3).messages();
    assert!(created.contains("d/g: cannot look at it: "), "{created}");
    let strict = limited(&["create", "--strict", "other", source]).assert_code(1).messages();
    assert!(strict.contains("d could not be captured whole (not-read)"), "{strict}");
    let verified = limited(&["verify", "archive"]).assert_code(0).messages();
    assert!(verified.ends_with("  incomplete\n"), "{verified}");
    limited(&["extract", "archive", "extracted"]).assert_code(3);
    let hashed = limited(&["hash", "--json", source]).assert_code(3).text();
    assert!(hashed.contains(r#""complete":false"#), "{hashed}");
    limited(&["backup", "--init", "--no-encryption", "-r", "repository", source]).assert_code(3);
    let restored = kept.restore("--verbose").assert_code(3).messages();
    assert!(restored.contains("d: "), "{restored}");
    assert_eq!(names(&kept.target()), ["d/", "f"]);
}

#[test]
fn what_would_be_done_is_told_as_events() {
    let kept = Kept::new(
        "restore-events",
        &tree! { "a" => Tree::file("a"), "d" => tree! { "b" => Tree::file("b") } },
    );
    let events = kept.restore("--dry-run --json").assert_code(0).text();
    let actions: Vec<serde_json::Value> =
        events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let planned: Vec<_> = actions
        .iter()
        .filter(|event| event["event"] == "planned")
        .map(|event| {
            (
                event["action"].as_str().unwrap(),
                event["path"].as_str().unwrap(),
                event["directory"].as_bool().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        planned,
        [("create", "", true), ("create", "a", false), ("create", "d", true), ("create", "d/b", false)]
    );
    assert_eq!(actions.last().unwrap()["dry_run"], true);
    assert!(!kept.target().exists());
    assert_eq!(kept.restore("--dry-run -q").assert_code(0).text(), "");
}
