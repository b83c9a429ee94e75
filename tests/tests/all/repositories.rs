//! Repositories under test, for other tests: backed up into, restored from and judged through the library.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use diptych_backend::memory::Memory;
use diptych_backend::{Backend, FileKind, FileName};
use diptych_client::backup::{BackupOptions, BackupReport, BaseChoice, Identity, backup, source};
use diptych_client::extract::{ExtractOptions, extract};
use diptych_client::hash::hash_directory;
use diptych_client::progress::Progress;
use diptych_client::reuse::{MIN_LIVE, Reason};
use diptych_client::select::PathSelection;
use diptych_client::snapshots::{caches, find, list, locate, open_streams};
use diptych_format::{Digest, Kind, Monitor, Problem};
use diptych_localfs::select::Selection;
use diptych_repository::Repository;
use diptych_repository::chunk::Compression;
use diptych_repository::documents::{
    ArchiveRecord, Body, Config, Encryption, Snapshot, SnapshotDocument, SnapshotKind,
};
use diptych_repository::keys::{DocumentKeys, Padding};
use diptych_repository::repository::OpenError;
use diptych_tests::{TestDir, TestMonitor};
use jiff::Timestamp;

/// The least packs there may be: a small tree fills several.
const PACK_SIZE: u64 = 1 << 20;

/// What an extraction says of what the archive has, but not whole.
const NOT_WHOLE: &str = "restored as it was archived, which is not whole";

/// Remembers what a job told.
#[derive(Default)]
pub struct Told(pub TestMonitor);

impl Monitor for Told {
    fn entry(&self, path: &[u8], kind: Kind) {
        self.0.entry(path, kind);
    }

    fn bytes(&self, count: u64) {
        self.0.bytes(count);
    }

    fn problem(&self, problem: Problem) {
        self.0.problem(problem);
    }
}

impl Progress for Told {}

/// A repository in memory that is not encrypted.
pub fn in_memory() -> (Memory, Repository) {
    let memory = Memory::new();
    memory.make_layout().unwrap();
    let mut config = Config::new(Encryption::None, Padding::None, Timestamp::UNIX_EPOCH).unwrap();
    config.pack_size = PACK_SIZE;
    let mut file = memory.create(FileKind::Config).unwrap();
    file.write_all(&config.encode(&DocumentKeys::plain()).unwrap()).unwrap();
    file.keep(&FileName::CONFIG).unwrap();
    let repository = open(Arc::new(memory.clone())).unwrap();
    (memory, repository)
}

/// Opens a repository that is not encrypted.
pub fn open(backend: Arc<dyn Backend>) -> Result<Repository, OpenError> {
    Repository::open(backend, false, || panic!("no password is needed"), |damaged| panic!("{damaged:?}"))
}

/// How to back up the tree at `path`, compared with the newest snapshot.
pub fn options(path: &Path) -> BackupOptions {
    BackupOptions {
        sources: vec![source(path, None).unwrap()],
        selection: Selection::default(),
        identity: Identity {
            host: "host".to_owned(),
            user: "user".to_owned(),
            tags: Vec::new(),
            time: Timestamp::now(),
        },
        base: BaseChoice::Newest,
        compares_ctime: true,
        compares_inode: true,
        min_live: MIN_LIVE,
        sample_one_in: 0,
        checkpoint_every: Duration::from_secs(3600),
        compression: Compression::default(),
        threads: 2,
        max_memory: 64 << 20,
        is_strict: false,
        is_dry_run: false,
        interrupt: Arc::new(AtomicBool::new(false)),
    }
}

/// Backs up; nothing may be reported.
#[track_caller]
pub fn back_up(repository: &Repository, options: &BackupOptions) -> BackupReport {
    let told = Arc::new(Told::default());
    let report = backup(repository, options, told.clone()).unwrap_or_else(|error| panic!("{error}"));
    told.0.assert_no_problems();
    report
}

/// The snapshot of a run that was not dry.
pub fn snapshot_of(report: &BackupReport) -> Digest {
    report.snapshot.expect("the run was not dry")
}

/// How many files were read for a reason.
pub fn read_for(report: &BackupReport, reason: Reason) -> u64 {
    report.archives[0].counts.read[reason as usize].0
}

/// How many files were read at all.
pub fn read_at_all(report: &BackupReport) -> u64 {
    report.archives[0].counts.read.iter().map(|(files, _)| files).sum()
}

/// Restores a snapshot; gives the tree id of what is there then.
#[track_caller]
pub fn restored(repository: &Repository, snapshot: &Digest, dir: &TestDir) -> Digest {
    let told = Told::default();
    let listed = list(repository, &told).unwrap();
    let listed = find(&listed, &snapshot.to_string(), &Default::default()).unwrap_or_else(|e| panic!("{e}"));
    let located = locate(repository, &listed, None).unwrap_or_else(|error| panic!("{error}"));
    let target = dir.join("restored");
    let options = ExtractOptions {
        target: target.clone(),
        selection: PathSelection::default(),
        is_overwriting: false,
        threads: 2,
        interrupt: Arc::new(AtomicBool::new(false)),
    };
    let report = extract(&located.open, options, &told).unwrap_or_else(|error| panic!("{error}"));
    told.0.assert_no_problems();
    assert_eq!(report.losses, 0);
    let tree_id = hash(&target);
    fs::remove_dir_all(target).unwrap();
    tree_id
}

/// The tree id of what is at `path`.
#[track_caller]
pub fn hash(path: &Path) -> Digest {
    let monitor = Arc::new(TestMonitor::new());
    let interrupt = Arc::new(AtomicBool::new(false));
    let report = hash_directory(path, Selection::default(), 2, interrupt, monitor.clone()).unwrap();
    monitor.assert_no_problems();
    report.tree_id
}

/// Every snapshot, interrupted and uncommitted ones too, restored: what each of them names is there.
#[track_caller]
pub fn assert_all_restore(repository: &Repository, dir: &TestDir) -> Vec<Digest> {
    let mut complete = Vec::new();
    let stored = repository.snapshots(|damaged| panic!("{damaged:?}")).unwrap();
    for SnapshotDocument { kind, body, .. } in stored.into_iter().map(|stored| stored.document) {
        let Body::Snapshot(snapshot) = body else { continue };
        let target = dir.join("any");
        let told = Told::default();
        for record in &snapshot.archives {
            let (archive, payload) = open_streams(repository, record, &caches(repository))
                .unwrap_or_else(|error| panic!("{kind:?}: {error}"));
            let open = diptych_client::open::OpenArchive::of_streams(archive, payload);
            let options = ExtractOptions {
                target: target.clone(),
                selection: PathSelection::default(),
                is_overwriting: false,
                threads: 2,
                interrupt: Arc::new(AtomicBool::new(false)),
            };
            extract(&open, options, &told).unwrap_or_else(|error| panic!("{kind:?}: {error}"));
            let problems = told.0.problems();
            let is_whole =
                |problem: &Problem| kind == SnapshotKind::Partial && problem.what.starts_with(NOT_WHOLE);
            assert!(problems.iter().all(is_whole), "{kind:?}: {problems:?}");
            if kind == SnapshotKind::Snapshot {
                assert_eq!(hash(&target), record.tree_id);
                complete.push(record.tree_id);
            }
            fs::remove_dir_all(&target).unwrap();
        }
    }
    complete
}

/// The only archive of a snapshot.
pub fn record(repository: &Repository, snapshot: &Digest) -> ArchiveRecord {
    let Body::Snapshot(Snapshot { mut archives, .. }) = repository.snapshot(snapshot).unwrap().document.body
    else {
        panic!("a tombstone");
    };
    assert_eq!(archives.len(), 1);
    archives.remove(0)
}

/// The payload chunks of each file right below the root.
pub fn chunks_of_files(repository: &Repository, snapshot: &Digest) -> BTreeMap<String, Vec<Digest>> {
    let record = record(repository, snapshot);
    let (archive, payload) = open_streams(repository, &record, &caches(repository)).unwrap();
    let children = archive.children(&archive.root().unwrap()).unwrap();
    let chunks = |start: u64, length: u64| {
        let slices = if length == 0 { Vec::new() } else { payload.slices(start..start + length).unwrap() };
        slices.into_iter().map(|slice| slice.slice.chunk).collect()
    };
    let file = |found: diptych_decoder::Found| {
        let name = String::from_utf8(found.entry.name.as_bytes().to_vec()).unwrap();
        (name, chunks(found.payload_start, found.payload_length))
    };
    children.into_iter().map(file).collect()
}

/// Puts another snapshot in the place of one: its scan began an hour later, so that nothing it has counts as too young.
/// It is as if the next run came much later than the last change, which a test has no time for.
pub fn aged(repository: &Repository, snapshot: &Digest) -> Digest {
    let SnapshotDocument { kind, mut body, .. } = repository.snapshot(snapshot).unwrap().document;
    let Body::Snapshot(changed) = &mut body else { panic!("a tombstone") };
    changed.archives.iter_mut().for_each(|archive| archive.started.seconds += 3600);
    let stored = repository.put_snapshot(kind, body).unwrap();
    repository.remove_snapshot(snapshot).unwrap();
    stored.id
}
