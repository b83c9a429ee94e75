//! What a run takes from an earlier one is what it would have read: whatever was done to the tree in between.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use diptych_backend::{Backend, FileKind};
use diptych_client::backup::{BackupOptions, BackupReport, BaseChoice};
use diptych_client::reuse::Reason;
use diptych_format::Digest;
use diptych_tests::command::{binary, command, finish};
use diptych_tests::edits::{begin, edit, set_mtime, tick};
use diptych_tests::{Random, TestDir, for_each_seed, tools};

use crate::repositories::{
    Told, aged, back_up, chunks_of_files, hash, in_memory, open, options, read_at_all, read_for, restored,
    snapshot_of,
};

/// Runs of a history, and edits before each.
const STEPS: usize = 30;
const EDITS: (i64, i64) = (10, 20);

#[test]
fn whatever_is_done_to_a_tree_the_next_run_has_it() {
    let mut reused = 0;
    for_each_seed(8, |random| reused += history(random));
    assert!(reused > 0, "nothing was ever reused");
}

/// One history; gives how many entries its runs reused.
fn history(random: &mut Random) -> u64 {
    let dir = TestDir::new("history");
    let (tree, probe) = (dir.join("tree"), dir.join("probe"));
    begin(random, &tree);
    let (_, repository) = in_memory();
    let mut kept: Vec<(Digest, Digest)> = Vec::new();
    let mut reused = 0;
    for step in 0..STEPS {
        (0..random.between(EDITS.0, EDITS.1)).for_each(|_| edit(random, &tree));
        let base = if random.once_in(8) { BaseChoice::None } else { BaseChoice::Newest };
        let options = BackupOptions {
            base,
            min_live: *random.pick(&[75, 75, 0, 100]),
            sample_one_in: *random.pick(&[0, 0, 3]),
            ..options(&tree)
        };
        let report = back_up(&repository, &options);
        let tree_id = hash(&tree);
        assert_eq!(report.archives[0].tree_id, tree_id, "step {step}, {:?}", options.base);
        reused += report.archives[0].counts.reused;
        let snapshot = snapshot_of(&report);
        let snapshot = if random.once_in(4) { snapshot } else { aged(&repository, &snapshot) };
        kept.push((snapshot, tree_id));
        if step % 4 == 3 {
            let (snapshot, tree_id) = random.pick(&kept);
            assert_eq!(restored(&repository, snapshot, &dir), *tree_id, "after step {step}");
        }
        // A base that was aged is not to tell what changes within the same moment: that is another test's.
        tick(&probe);
    }
    let (last, tree_id) = kept.last().unwrap();
    assert_eq!(restored(&repository, last, &dir), *tree_id);
    reused
}

/// A folder with files of the same time, long ago.
fn files(dir: &TestDir, count: usize, length: usize) -> std::path::PathBuf {
    let tree = dir.join("tree");
    fs::create_dir(&tree).unwrap();
    let mut random = Random::new(1);
    for number in 0..count {
        let path = tree.join(format!("f{number:04}"));
        fs::write(&path, random.bytes(length)).unwrap();
        set_mtime(&path, 1_500_000_000, 0);
    }
    tree
}

/// A run that uses a chunk on, however little of it lives: what is read is read for what it is itself.
fn every_chunk(tree: &Path) -> BackupOptions {
    BackupOptions { min_live: 0, ..options(tree) }
}

/// Only these files were read, for this reason; the rest were reused.
#[track_caller]
fn assert_read(report: &BackupReport, reason: Reason, count: u64, of: u64) {
    let counts = &report.archives[0].counts;
    assert_eq!((read_for(report, reason), read_at_all(report), counts.reused), (count, count, of - count));
}

#[test]
fn what_looks_the_same_and_is_not_is_read() {
    let dir = TestDir::new("looks-the-same");
    let tree = files(&dir, 4, 100);
    let path = |name: &str| tree.join(name);
    let (_, repository) = in_memory();
    let traps: [(&str, &dyn Fn(), Reason, u64); 6] = [
        ("written in place", &|| write_same_time(&path("f0000"), b'1'), Reason::Ctime, 1),
        (
            "renamed over",
            &|| {
                write_same_time(&path("new"), b'2');
                fs::rename(path("new"), path("f0001")).unwrap();
            },
            Reason::Ctime,
            1,
        ),
        (
            "swapped",
            &|| {
                fs::rename(path("f0000"), path("x")).unwrap();
                fs::rename(path("f0001"), path("f0000")).unwrap();
                fs::rename(path("x"), path("f0001")).unwrap();
            },
            Reason::Ctime,
            2,
        ),
        (
            "an attribute",
            &|| {
                let flags = rustix::fs::XattrFlags::empty();
                rustix::fs::setxattr(path("f0002"), "user.new", b"x", flags).unwrap();
            },
            Reason::Ctime,
            1,
        ),
        (
            "a further name, which is no further file",
            &|| fs::hard_link(path("f0003"), dir.join("f")).unwrap(),
            Reason::Ctime,
            1,
        ),
        ("one name less", &|| fs::remove_file(dir.join("f")).unwrap(), Reason::Ctime, 1),
    ];
    aged(&repository, &snapshot_of(&back_up(&repository, &every_chunk(&tree))));
    for (what, change, reason, count) in traps {
        tick(&dir.join("probe"));
        change();
        let report = back_up(&repository, &every_chunk(&tree));
        assert_eq!(report.archives[0].tree_id, hash(&tree), "{what}");
        assert_read(&report, reason, count, 4);
        aged(&repository, &snapshot_of(&report));
    }
}

/// 100 bytes at the time that [`files`] have.
fn write_same_time(path: &Path, byte: u8) {
    fs::write(path, [byte; 100]).unwrap();
    set_mtime(path, 1_500_000_000, 0);
}

/// Where inodes keep their ctime, as some file systems have it, the number of the inode tells.
#[test]
fn without_ctimes_another_inode_is_read() {
    let dir = TestDir::new("other-inode");
    let tree = files(&dir, 3, 100);
    let (_, repository) = in_memory();
    let without = || BackupOptions { compares_ctime: false, ..every_chunk(&tree) };
    back_up(&repository, &without());
    write_same_time(&tree.join("new"), b'1');
    fs::rename(tree.join("new"), tree.join("f0001")).unwrap();
    let report = back_up(&repository, &without());
    assert_read(&report, Reason::Inode, 1, 3);
    assert_eq!(report.archives[0].tree_id, hash(&tree));
    // So does its mode, where nothing else does.
    let without = || BackupOptions { compares_inode: false, ..without() };
    rustix::fs::chmod(tree.join("f0002"), rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    let report = back_up(&repository, &without());
    assert_eq!((read_at_all(&report), report.archives[0].tree_id), (1, hash(&tree)));
}

/// A file that changes twice within one step of the clock, with a scan in between, looks the same to the next one. The
/// same is made here by setting the time back, with ctimes left aside.
#[test]
fn what_was_young_when_the_base_was_made_is_read() {
    let dir = TestDir::new("young");
    let tree = files(&dir, 2, 100);
    let now = fs::metadata(&tree).unwrap();
    let (_, repository) = in_memory();
    let without = || BackupOptions { compares_ctime: false, ..every_chunk(&tree) };
    // Just before the scan begins, in the same second, after it has begun.
    for (number, (seconds, nanoseconds)) in
        [(now.mtime() - 1, 0), (now.mtime(), now.mtime_nsec()), (now.mtime() + 60, 0)].into_iter().enumerate()
    {
        let write = |byte: u8| {
            fs::write(tree.join("f0000"), [byte; 100]).unwrap();
            set_mtime(&tree.join("f0000"), seconds, nanoseconds);
        };
        write(b'a' + number as u8);
        back_up(&repository, &without());
        write(b'A' + number as u8);
        let report = back_up(&repository, &without());
        assert_read(&report, Reason::Young, 1, 2);
        assert_eq!(report.archives[0].tree_id, hash(&tree));
    }
    // With ctimes everything here is young, for it was made a moment ago.
    back_up(&repository, &options(&tree));
    assert_read(&back_up(&repository, &options(&tree)), Reason::Young, 2, 2);
}

#[test]
fn a_run_where_nothing_has_changed_opens_no_file_and_stores_nothing() {
    let dir = TestDir::new("unchanged");
    let tree = files(&dir, 300, 50);
    fs::create_dir(tree.join("d")).unwrap();
    fs::write(tree.join("d/f9999"), "x").unwrap();
    let (_, repository) = in_memory();
    aged(&repository, &snapshot_of(&back_up(&repository, &options(&tree))));
    let report = back_up(&repository, &options(&tree));
    assert_eq!((read_at_all(&report), report.archives[0].counts.reused), (0, 301));
    assert_eq!((report.stored_chunks, report.stored_bytes), (0, 0));

    // The same by the program, which is watched.
    let place = dir.join("repository");
    let backup = |program: &mut Command| {
        program.args(["backup", "--init", "--no-encryption", "--sample", "0", "-r"]).arg(&place).arg(&tree);
    };
    let mut first = command([""; 0]);
    backup(&mut first);
    finish(&mut first).assert_code(0);
    let repository = open(diptych_backend::open(place.to_str().unwrap()).unwrap()).unwrap();
    let newest = repository.snapshots(|damaged| panic!("{damaged:?}")).unwrap().pop().unwrap();
    aged(&repository, &newest.id);
    let log = dir.join("strace");
    let mut strace = tools::tool("strace");
    strace.args(["-f", "-qq", "-s", "200", "-e", "trace=%file,%desc", "-o"]).arg(&log);
    strace.env("XDG_STATE_HOME", "/dev/null").arg(binary());
    backup(&mut strace);
    tools::output(&mut strace);
    let log = fs::read_to_string(log).unwrap();
    // Lines begin with the thread's number, then the call.
    let mut calls: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for line in log.lines() {
        let call = line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ');
        let (call, rest) = call.split_once('(').unwrap_or((call, ""));
        let file = rest.split('"').nth(1).filter(|name| {
            name.len() == 5 && name.starts_with('f') && name[1..].bytes().all(|byte| byte.is_ascii_digit())
        });
        if let Some(file) = file {
            *calls.entry((file, call)).or_default() += 1;
        }
    }
    let found: BTreeSet<(&str, u64)> = calls.iter().map(|((_, call), count)| (*call, *count)).collect();
    assert_eq!(found, BTreeSet::from([("statx", 1)]), "calls by file name");
    assert_eq!(calls.len(), 301);
}

#[test]
fn one_small_edit_stores_a_few_chunks() {
    let dir = TestDir::new("one-edit");
    let tree = files(&dir, 3000, 20);
    let (_, repository) = in_memory();
    aged(&repository, &snapshot_of(&back_up(&repository, &options(&tree))));
    tick(&dir.join("probe"));
    fs::write(tree.join("f1500"), "changed").unwrap();
    let report = back_up(&repository, &options(&tree));
    assert_read(&report, Reason::Size, 1, 3000);
    // The content; its place in the directory and what ends the metadata; the segments of two maps.
    assert!(report.stored_chunks <= 8, "{} chunks", report.stored_chunks);
    assert_eq!(restored(&repository, &snapshot_of(&report), &dir), hash(&tree));
}

#[test]
fn a_chunk_that_is_mostly_dead_is_let_go() {
    let dir = TestDir::new("sparse");
    let tree = files(&dir, 200, 4000);
    let (_, repository) = in_memory();
    let first = snapshot_of(&back_up(&repository, &options(&tree)));
    let mut files_of: BTreeMap<Digest, Vec<String>> = BTreeMap::new();
    for (name, chunks) in chunks_of_files(&repository, &first) {
        assert_eq!(chunks.len(), 1, "{name} is small");
        files_of.entry(chunks[0]).or_default().push(name);
    }
    let (chunk, names) = files_of.into_iter().max_by_key(|(_, names)| names.len()).unwrap();
    assert!(names.len() >= 10, "the contents are to share chunks");
    let (deleted, left) = names.split_at(names.len() * 4 / 5);
    aged(&repository, &first);
    for name in deleted {
        fs::remove_file(tree.join(name)).unwrap();
    }
    let report = back_up(&repository, &options(&tree));
    let rest = 200 - deleted.len() as u64;
    assert_read(&report, Reason::Sparse, left.len() as u64, rest);
    let second = snapshot_of(&report);
    assert!(chunks_of_files(&repository, &second).values().all(|chunks| *chunks != [chunk]));
    assert_eq!(restored(&repository, &second, &dir), hash(&tree));
    // Once is enough.
    aged(&repository, &second);
    assert_read(&back_up(&repository, &options(&tree)), Reason::Sparse, 0, rest);
}

#[test]
fn contents_whose_pack_is_gone_are_read_again() {
    let dir = TestDir::new("lost");
    let tree = files(&dir, 50, 30_000);
    let (memory, repository) = in_memory();
    let first = aged(&repository, &snapshot_of(&back_up(&repository, &options(&tree))));
    let chunks = chunks_of_files(&repository, &first);
    let pack = |chunk: &Digest| repository.index().find(chunk).unwrap().unwrap().pack;
    let gone = pack(&chunks["f0000"][0]);
    let lost = chunks.values().filter(|chunks| chunks.iter().any(|chunk| pack(chunk) == gone)).count() as u64;
    assert!(lost < 50, "there are several packs");
    memory.delete(&diptych_backend::FileName::new(FileKind::Data, gone.0)).unwrap();

    let repository = open(std::sync::Arc::new(memory)).unwrap();
    let told = std::sync::Arc::new(Told::default());
    let report = diptych_client::backup::backup(&repository, &options(&tree), told.clone()).unwrap();
    let problems = told.0.problems();
    let named = String::from_utf8_lossy(&problems[0].path).contains(&gone.to_string());
    assert!(problems.len() == 1 && named, "{problems:?}");
    assert_read(&report, Reason::Lost, lost, 50);
    // What was stored again is there for the first snapshot as well.
    for snapshot in [first, snapshot_of(&report)] {
        assert_eq!(restored(&repository, &snapshot, &dir), hash(&tree));
    }
}
