//! Whatever ends a run, wherever it is: what was there before is there, and the next run succeeds.

use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use diptych_backend::faulty::{Faulty, Operation};
use diptych_backend::memory::{Change, Memory};
use diptych_backend::{Class as BackendClass, FileKind};
use diptych_client::backup::{BackupOptions, BaseChoice, backup};
use diptych_client::error::Error;
use diptych_client::progress::Progress;
use diptych_format::{Class, Digest, Kind, Monitor, Problem};
use diptych_repository::Repository;
use diptych_repository::documents::SnapshotKind;
use diptych_repository::repository::{OpenError, StoredSnapshot};
use diptych_tests::command::{Finished, binary, command, finish};
use diptych_tests::{Random, TestDir, diptych, tools};

use crate::repositories::{
    Told, assert_all_restore, back_up, hash, in_memory, open, options, restored, snapshot_of,
};

/// Runs before the one that is ended: with its own there are as many index files as are merged.
const RUNS_BEFORE: u8 = 7;

/// A tree, and a repository with snapshots of what it was. The tree has changed since the last.
struct History {
    dir: TestDir,
    tree: PathBuf,
    memory: Memory,
    /// Tree ids.
    snapshots: Vec<Digest>,
}

impl History {
    /// The last change is this many bytes long.
    fn new(name: &str, changed: usize) -> Self {
        let dir = TestDir::new(name);
        let tree = dir.join("tree");
        fs::create_dir(&tree).unwrap();
        let (memory, repository) = in_memory();
        let mut snapshots = Vec::new();
        let mut random = Random::new(1);
        for run in 0..RUNS_BEFORE {
            fs::write(tree.join("always"), [run; 100]).unwrap();
            fs::write(tree.join(run.to_string()), random.bytes(2000)).unwrap();
            snapshots.push(back_up(&repository, &options(&tree)).archives[0].tree_id);
        }
        fs::remove_file(tree.join("0")).unwrap();
        fs::write(tree.join("1"), "changed").unwrap();
        fs::write(tree.join("large"), random.bytes(changed)).unwrap();
        Self { dir, tree, memory, snapshots }
    }

    /// The repository opens, all there was restores, and a run succeeds, whose snapshot restores as well.
    #[track_caller]
    fn assert_unharmed(&self, memory: Memory) {
        let repository = open(Arc::new(memory)).unwrap();
        let mut found = assert_all_restore(&repository, &self.dir);
        let expected = hash(&self.tree);
        // The run may have come to its end but for what does not matter.
        if found.len() > self.snapshots.len() {
            assert_eq!(found.pop(), Some(expected));
        }
        assert_eq!(found, self.snapshots);
        let report = back_up(&repository, &options(&self.tree));
        assert_eq!(restored(&repository, &snapshot_of(&report), &self.dir), expected);
    }
}

#[test]
fn a_crash_between_any_two_operations_loses_nothing() {
    // Few chunks, so that the index file is as small as those of the runs before; many, for several packs.
    for changed in [10 << 10, 3 << 20] {
        let history = History::new("crash", changed);
        let begun = history.memory.log().len();
        back_up(&open(Arc::new(history.memory.clone())).unwrap(), &options(&history.tree));
        let log = history.memory.log();
        let count =
            |is_counted: fn(&Change) -> bool| log[begun..].iter().filter(|change| is_counted(change)).count();
        let packs = count(|change| matches!(change, Change::Kept(name, _) if name.kind() == FileKind::Data));
        let merged =
            count(|change| matches!(change, Change::Deleted(name) if name.kind() == FileKind::Index));
        assert_eq!((packs > 2, merged > 2), (changed > 1 << 20, changed < 1 << 20), "{packs} {merged}");
        for count in begun..=log.len() {
            history.assert_unharmed(history.memory.after(count));
        }
    }
}

/// What is not durable yet may be lost with the machine in any order. So nothing is begun that needs it.
#[test]
fn each_stage_is_durable_before_the_next_is_begun() {
    let history = History::new("stages", 3 << 20);
    let begun = history.memory.log().len();
    // Checkpoints all the time: partial snapshots are of no other kind.
    let often = BackupOptions { checkpoint_every: Duration::ZERO, ..options(&history.tree) };
    back_up(&open(Arc::new(history.memory.clone())).unwrap(), &often);
    let stage = |kind: FileKind| match kind {
        FileKind::Data => Some(0),
        FileKind::Index => Some(1),
        FileKind::Snapshot => Some(2),
        _ => None,
    };
    // Files of each stage that are being written.
    let mut written = [0; 3];
    let mut stages_seen = [0; 3];
    for change in &history.memory.log()[begun..] {
        match change {
            Change::Created(kind) => {
                let Some(stage) = stage(*kind) else { continue };
                assert_eq!(written[..stage], [0; 3][..stage], "{kind:?} is begun");
                written[stage] += 1;
                stages_seen[stage] += 1;
            }
            Change::Kept(name, _) => stage(name.kind()).into_iter().for_each(|stage| written[stage] -= 1),
            Change::Dropped(kind) => stage(*kind).into_iter().for_each(|stage| written[stage] -= 1),
            _ => {}
        }
    }
    assert!(stages_seen.iter().all(|seen| *seen > 1), "{stages_seen:?}");
}

/// Partial snapshots, made and removed while the run goes on.
#[test]
fn a_crash_around_a_checkpoint_loses_nothing() {
    let history = History::new("checkpoints", 300 << 10);
    let begun = history.memory.log().len();
    let often = BackupOptions { checkpoint_every: Duration::ZERO, ..options(&history.tree) };
    back_up(&open(Arc::new(history.memory.clone())).unwrap(), &often);
    let end = history.memory.log().len();
    // Each restores all there is: one in three of some hundred is enough, another third whenever the order differs.
    for count in (begun..end).step_by(3).chain(end - 12..=end) {
        history.assert_unharmed(history.memory.after(count));
    }
}

/// Interrupts a run when it comes to the first file.
struct AtFirstFile(Arc<AtomicBool>);

impl Monitor for AtFirstFile {
    fn entry(&self, _: &[u8], kind: Kind) {
        if kind == Kind::File {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    fn bytes(&self, _: u64) {}

    fn problem(&self, problem: Problem) {
        assert!(problem.what.contains("is kept as partial snapshot"), "{problem:?}");
    }
}

impl Progress for AtFirstFile {}

/// The last checkpoint of an interrupted run is often the same as the one before, under the same name: it stays.
#[test]
fn an_interrupted_run_keeps_its_last_checkpoint() {
    let history = History::new("interrupted", 100 << 10);
    let repository = open(Arc::new(history.memory.clone())).unwrap();
    let begun = repository.snapshots(|damaged| panic!("{damaged:?}")).unwrap().len();
    let interrupt = Arc::new(AtomicBool::new(false));
    let often = BackupOptions {
        checkpoint_every: Duration::ZERO,
        base: BaseChoice::None,
        interrupt: interrupt.clone(),
        ..options(&history.tree)
    };
    backup(&repository, &often, Arc::new(AtFirstFile(interrupt))).unwrap_err();
    let stored = repository.snapshots(|damaged| panic!("{damaged:?}")).unwrap();
    assert_eq!(stored.len(), begun + 1);
    let is_partial = |stored: &&StoredSnapshot| stored.document.kind == SnapshotKind::Partial;
    assert_eq!(stored.iter().filter(is_partial).count(), 1);
}

/// Runs on a backend that fails once.
fn run_on(faulty: Faulty, tree: &Path) -> Result<Option<Digest>, Error> {
    let opened = Repository::open(Arc::new(faulty), false, || panic!("no password is needed"), |_| {});
    let repository = opened.map_err(|error| match error {
        OpenError::Failed(error) | OpenError::None(error) => Error::from(error),
        other => panic!("{other:?}"),
    })?;
    backup(&repository, &options(tree), Arc::new(Told::default())).map(|report| report.snapshot)
}

#[test]
fn a_fault_of_any_operation_ends_the_run_and_no_more() {
    let history = History::new("faults", 100 << 10);
    let count = history.memory.log().len();
    let operations = [
        Operation::Create,
        Operation::Write,
        Operation::Keep,
        Operation::Read,
        Operation::Length,
        Operation::List,
        Operation::Delete,
    ];
    let mut failed = 0;
    for operation in operations {
        // A disk is full for whoever writes; the rest fails as broken disks do.
        let class = match operation {
            Operation::Create | Operation::Write | Operation::Keep => BackendClass::Full,
            _ => BackendClass::Io,
        };
        for before in 0.. {
            let memory = history.memory.after(count);
            let faulty = Faulty::new(Arc::new(memory.clone()), Some(operation), before, class);
            let strikes = faulty.watch();
            match run_on(faulty, &history.tree) {
                Ok(snapshot) => assert!(snapshot.is_some()),
                Err(error) => {
                    failed += 1;
                    assert_eq!(error.class(), Some(Class::Io), "{operation:?} {before}: {error}");
                    let text = error.to_string();
                    assert!(text.contains(&format!("{operation:?} is made to fail")), "{text}");
                    let advises = text.contains("make room there");
                    assert_eq!(advises, class == BackendClass::Full, "{text}");
                }
            }
            let has_struck = strikes.has_struck();
            history.assert_unharmed(memory);
            if !has_struck {
                assert!(before > 0, "a run does {operation:?}");
                break;
            }
        }
    }
    assert!(failed > 0);
}

/// A tree of one file that does not compress.
fn one_file(path: &Path, seed: u64, length: usize) {
    fs::create_dir_all(path).unwrap();
    fs::write(path.join("file"), Random::new(seed).bytes(length)).unwrap();
}

/// Runs `diptych VERB -r REPOSITORY ...` to its end.
fn run(verb: &str, repository: &Path, arguments: &[&Path]) -> Finished {
    let mut run = command([verb, "-r"]);
    finish(run.arg(repository).args(arguments))
}

fn bytes_below(path: &Path) -> u64 {
    let Ok(found) = fs::symlink_metadata(path) else { return 0 };
    if !found.is_dir() {
        return found.len();
    }
    // What is removed meanwhile does not count.
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    entries.flatten().map(|entry| bytes_below(&entry.path())).sum()
}

fn files_in(path: &Path) -> usize {
    fs::read_dir(path).unwrap().count()
}

#[test]
fn a_run_that_is_killed_loses_nothing() {
    const POINTS: u64 = 20;
    const LENGTH: usize = 3 << 20;
    /// Many times what a run takes.
    const LOOKS: u32 = 60_000;
    let dir = TestDir::new("killed");
    let (repository, tree) = (dir.join("repository"), dir.join("tree"));
    one_file(&tree, 0, 1000);
    diptych(["init", "--no-encryption", "-r", repository.to_str().unwrap()]).assert_code(0);
    run("backup", &repository, &[&tree]).assert_code(0);
    let before = hash(&tree);
    let mut killed = 0;
    for point in 0..POINTS {
        one_file(&tree, point + 1, LENGTH);
        let reached = bytes_below(&repository) + point * LENGTH as u64 / POINTS;
        // A level that takes its time, so that there is time to kill.
        let mut backup = command(["backup", "--compression", "15", "-r"]);
        backup.arg(&repository).arg(&tree).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let mut child = backup.spawn().unwrap();
        let mut looks = 0;
        while bytes_below(&repository) <= reached && child.try_wait().unwrap().is_none() {
            looks += 1;
            assert!(looks < LOOKS, "it got nowhere");
            std::thread::park_timeout(Duration::from_millis(1));
        }
        child.kill().unwrap();
        killed += u64::from(child.wait().unwrap().code().is_none());
        if point % 5 == 0 {
            run("backup", &repository, &[&tree]).assert_code(0);
            let target = dir.join("restored");
            run("restore", &repository, &[Path::new("latest"), Path::new("--target"), &target])
                .assert_code(0);
            assert_eq!(hash(&target), hash(&tree));
            fs::remove_dir_all(target).unwrap();
        }
    }
    assert!(killed > POINTS / 2, "{killed} were killed, the others were over before");
    // Nobody has said good-bye, and nobody minds.
    assert!(files_in(&repository.join("locks")) > 0);
    let local = diptych_backend::open(repository.to_str().unwrap()).unwrap();
    let opened = open(local).unwrap();
    assert!(!opened.locks(|damaged| panic!("{damaged:?}")).unwrap().is_empty());
    let all = assert_all_restore(&opened, &dir);
    assert_eq!(all.first(), Some(&before));
}

#[test]
fn a_full_disk_loses_nothing() {
    let dir = TestDir::new("full-disk");
    let may_mount = tools::tool("unshare").args(["--mount", "true"]).output().unwrap().status.success();
    if !may_mount {
        // Past the capture of what tests print.
        let _ = writeln!(std::io::stderr(), "without CAP_SYS_ADMIN, no repository is on a disk that is full");
        return;
    }
    let (small, large, disk) = (dir.join("small"), dir.join("large"), dir.join("disk"));
    one_file(&small, 1, 100 << 10);
    one_file(&large, 2, 64 << 20);
    fs::create_dir(&disk).unwrap();
    // The small disk goes with the shell, whatever becomes of the test.
    let script = r#"
        mount -t tmpfs -o size=48m none "$disk" || exit 99
        d() { verb=$1; shift; "$diptych" $verb -r "$disk/repository" "$@" || return $?; }
        d init --no-encryption || exit 98
        d backup "$small" || exit 97
        d backup "$large"; test $? = 1 || exit 96
        d restore latest --target "$restored" || exit 95
        d backup "$small" || exit 94
        d snapshots
        mount -o remount,size=200m "$disk" || exit 93
        d backup --json "$large" || exit 92
    "#;
    let mut shell: Command = tools::tool("unshare");
    shell.args(["--mount", "sh", "-c", script]).env("diptych", binary()).env("disk", &disk);
    shell
        .env("small", &small)
        .env("large", &large)
        .env("restored", dir.join("restored"))
        .env("XDG_STATE_HOME", "/dev/null");
    let output = shell.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("No space left on device"), "{said}");
    assert!(said.contains("make room there"), "{said}");
    assert_eq!(hash(&dir.join("restored")), hash(&small));
    let (snapshots, summary) =
        output.stdout.split_at(output.stdout.iter().position(|byte| *byte == b'{').unwrap());
    assert_eq!(snapshots.iter().filter(|byte| **byte == b'\n').count(), 2, "two snapshots");
    // The pack that was whole is not stored again.
    let last = summary.trim_ascii().rsplit(|byte| *byte == b'\n').next().unwrap();
    let stored = serde_json::from_slice::<serde_json::Value>(last).unwrap()["stored_bytes"].as_u64().unwrap();
    assert!(stored > 16 << 20 && stored < 40 << 20, "{stored}");
}
