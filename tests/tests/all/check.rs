//! `check`: whatever is done to whichever file is found and named, with what it costs; and what helps against it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use diptych_backend::{Backend, Class, Error, FileKind, FileName, Listed, NewFile};
use diptych_client::check::{CheckOptions, CheckReport, Finding, ReadData, Severity, check};
use diptych_format::monitor::Silent;
use diptych_repository::Repository;
use diptych_repository::documents::{Lock, LockKind};
use diptych_tests::command::{Finished, command, finish};
use diptych_tests::{Random, TestDir};
use serde_json::Value;

const RUNS: usize = 3;
/// More than is read of a pack to see what it holds.
const TAIL: u64 = (64 << 10) + 16;

/// What each run has stored.
struct Stored {
    payload: PathBuf,
    metadata: PathBuf,
    index: PathBuf,
    snapshot: PathBuf,
}

/// A repository that is not encrypted with three snapshots of one tree. Before each run a file of its own was added, whose
/// content is in a pack of its own.
struct Made {
    dir: TestDir,
    stored: Vec<Stored>,
    random: Random,
}

impl Made {
    fn new(name: &str) -> Self {
        let dir = TestDir::new(name);
        let mut made = Self { dir, stored: Vec::new(), random: Random::new(7) };
        fs::create_dir(made.dir.join("tree")).unwrap();
        made.run("init --no-encryption").assert_code(0);
        for number in 0..RUNS {
            let bytes = made.random.bytes(300_000);
            let file = made.dir.join("tree").join(number.to_string());
            fs::write(&file, bytes).unwrap();
            // What changed just before a run is read again by the next, and shows nothing of what is reused.
            let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
            fs::File::options().write(true).open(file).unwrap().set_modified(old).unwrap();
            let before = made.files();
            made.backup();
            let new: Vec<PathBuf> = made.files().difference(&before).cloned().collect();
            let of = |kind: &str| -> Vec<PathBuf> {
                new.iter().filter(|path| path.starts_with(kind)).cloned().collect()
            };
            let mut packs = of("data");
            packs.sort_by_key(|path| fs::metadata(made.dir.join("repo").join(path)).unwrap().len());
            let [metadata, payload] = &packs[..] else { panic!("two packs are expected: {packs:?}") };
            made.stored.push(Stored {
                payload: payload.clone(),
                metadata: metadata.clone(),
                index: of("index").remove(0),
                snapshot: of("snapshots").remove(0),
            });
        }
        made
    }

    fn run(&self, words: &str) -> Finished {
        let mut command = command(words.split(' '));
        command.current_dir(self.dir.path()).env("DIPTYCH_REPO", "repo");
        finish(command.env("XDG_CACHE_HOME", self.dir.path().canonicalize().unwrap().join("cache")))
    }

    fn backup(&self) {
        self.run("backup --sample 0 --ignore-ctime tree").assert_code(0);
    }

    /// Backs up what was damaged. Packs that are not whole are told by every run.
    fn mend(&self) {
        let finished = self.run("backup --sample 0 --ignore-ctime tree");
        let is_told = finished.messages().contains("the pack is not there or is not whole");
        finished.assert_code(if is_told { 3 } else { 0 });
    }

    fn check(&self, words: &str) -> Checked {
        let finished = self.run(&format!("check --json{words}"));
        let events = finished.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        Checked { code: finished.code.unwrap(), events, messages: finished.messages() }
    }

    /// All files, as paths in the repository.
    fn files(&self) -> BTreeSet<PathBuf> {
        fn collect(root: &Path, below: &Path, found: &mut BTreeSet<PathBuf>) {
            for entry in fs::read_dir(root.join(below)).unwrap() {
                let entry = entry.unwrap();
                let path = below.join(entry.file_name());
                match entry.file_type().unwrap().is_dir() {
                    true => collect(root, &path, found),
                    false => drop(found.insert(path)),
                }
            }
        }
        let mut found = BTreeSet::new();
        collect(&self.dir.join("repo"), Path::new(""), &mut found);
        found
    }

    /// The same repository once more, to be damaged.
    fn copy(&self) -> Self {
        let dir = TestDir::new("check-copy");
        // The tree stays where it is, by its path and its inodes: it is what snapshots are of.
        let copied = Command::new("cp").arg("-a").arg(self.dir.join("repo")).arg(dir.join("repo")).status();
        assert!(copied.unwrap().success());
        std::os::unix::fs::symlink(self.dir.join("tree").canonicalize().unwrap(), dir.join("tree")).unwrap();
        let stored = self.stored.iter().map(|stored| Stored {
            payload: stored.payload.clone(),
            metadata: stored.metadata.clone(),
            index: stored.index.clone(),
            snapshot: stored.snapshot.clone(),
        });
        Self { dir, stored: stored.collect(), random: Random::new(8) }
    }

    fn place(&self, file: &Path) -> PathBuf {
        self.dir.join("repo").join(file)
    }

    fn damage(&self, action: Action, file: &Path, other: &Path) {
        let (place, other) = (self.place(file), self.place(other));
        if action == Action::Delete {
            return fs::remove_file(place).unwrap();
        }
        let mut bytes = fs::read(&place).unwrap();
        let middle = bytes.len() / 2;
        match action {
            Action::Flip => bytes[middle] ^= 1,
            Action::Truncate => bytes.truncate(middle),
            Action::Zero => bytes[middle..].iter_mut().take(512).for_each(|byte| *byte = 0),
            Action::Swap => {
                put(&place, &fs::read(&other).unwrap());
                return put(&other, &bytes);
            }
            Action::Delete => {}
        }
        put(&place, &bytes);
    }

    fn source(&self, number: usize) -> String {
        let tree = self.dir.join("tree").canonicalize().unwrap();
        tree.join(number.to_string()).to_str().unwrap().to_owned()
    }

    /// Whether the newest snapshot gives the tree back.
    fn assert_newest_is_whole(&self) {
        self.run("restore latest --target out").assert_code(0);
        for number in 0..RUNS {
            let read = |folder: &str| fs::read(self.dir.join(folder).join(number.to_string())).unwrap();
            assert!(read("out") == read("tree"));
        }
        fs::remove_dir_all(self.dir.join("out")).unwrap();
    }
}

fn put(place: &Path, bytes: &[u8]) {
    fs::set_permissions(place, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(place, bytes).unwrap();
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Action {
    Flip,
    Truncate,
    Delete,
    Zero,
    Swap,
}

const ACTIONS: [Action; 5] = [Action::Flip, Action::Truncate, Action::Delete, Action::Zero, Action::Swap];

/// What a check said.
struct Checked {
    code: i32,
    events: Vec<Value>,
    messages: String,
}

impl Checked {
    fn of(&self, event: &str) -> impl Iterator<Item = &Value> {
        self.events.iter().filter(move |found| found["event"] == event)
    }

    #[track_caller]
    fn assert_code(&self, code: i32, what: &str) {
        assert_eq!(self.code, code, "{what}: {:#?}\n{}", self.events, self.messages);
    }

    #[track_caller]
    fn assert_names(&self, file: &Path, severity: &str, what: &str) {
        let is_named =
            |event: &Value| event["file"] == file.to_str().unwrap() && event["severity"] == severity;
        assert!(self.of("file").any(is_named), "{what}: {} is not named: {:#?}", file.display(), self.events);
    }

    /// Paths with the number of other snapshots that lose them.
    fn lost(&self) -> BTreeMap<String, u64> {
        let path =
            |event: &Value| (event["path"].as_str().unwrap().to_owned(), event["others"].as_u64().unwrap());
        self.of("lost").map(path).collect()
    }

    fn number(&self, key: &str) -> u64 {
        self.events.last().unwrap()[key].as_u64().unwrap()
    }
}

#[test]
fn a_whole_repository_is_told_so() {
    let made = Made::new("check-whole");
    for words in ["", " --read-data", " --read-data-subset 1/2", " --repair-index"] {
        let checked = made.check(words);
        checked.assert_code(0, words);
        assert_eq!(checked.events.len(), 1, "{:?}", checked.events);
        assert_eq!((checked.number("snapshots"), checked.number("packs")), (3, 6));
        assert_eq!(checked.number("damaged") + checked.number("unreadable") + checked.number("harmless"), 0);
        assert!(made.files().iter().all(|path| !path.starts_with("locks")));
    }
    assert!(made.run("check --read-data").assert_code(0).messages().contains("3 of 3 packs"));
    let all = made.check(" --read-data");
    assert_eq!((all.number("packs_read"), all.number("bytes_read")), (3, all.number("payload_bytes")));
    assert_eq!(made.check("").number("packs_read"), 0);
}

#[test]
fn damage_to_contents_is_named_costs_its_paths_and_is_mended_by_the_next_backup() {
    let template = Made::new("check-payload");
    for action in ACTIONS {
        let made = template.copy();
        let [first, second, _] = &made.stored[..] else { panic!() };
        made.damage(action, &second.payload, &first.payload);
        let what = format!("{action:?}");
        // What lies inside of chunks is found by those who read them.
        let is_inside = matches!(action, Action::Flip | Action::Zero);
        made.check("").assert_code(if is_inside { 0 } else { 1 }, &what);
        let checked = made.check(" --read-data");
        checked.assert_code(1, &what);
        checked.assert_names(&second.payload, "damaged", &what);
        let mut lost = BTreeMap::from([(made.source(1), 1)]);
        if action == Action::Swap {
            checked.assert_names(&first.payload, "damaged", &what);
            lost.insert(made.source(0), 2);
        }
        assert_eq!(checked.lost(), lost, "{what}");
        assert_eq!(checked.number("snapshots_damaged"), if action == Action::Swap { 3 } else { 2 }, "{what}");
        // The files are there still.
        made.mend();
        made.assert_newest_is_whole();
        let mended = made.check(" --read-data");
        mended.assert_code(0, &what);
        if action == Action::Delete {
            // The same chunks have made the same pack.
            assert_eq!(mended.of("file").count(), 0, "{what}");
        } else {
            mended.assert_names(&second.payload, "harmless", &what);
        }
        assert_eq!(mended.number("lost_chunks"), 0, "{what}");
        made.run("snapshots").assert_code(0);
    }
}

#[test]
fn damage_to_metadata_is_found_without_reading_contents() {
    let template = Made::new("check-metadata");
    for action in ACTIONS {
        let made = template.copy();
        let [first, second, _] = &made.stored[..] else { panic!() };
        made.damage(action, &second.metadata, &first.metadata);
        let what = format!("{action:?}");
        let checked = made.check("");
        checked.assert_code(1, &what);
        checked.assert_names(&second.metadata, "damaged", &what);
        assert!(checked.number("snapshots_damaged") > 0, "{what}");
        assert!(!checked.lost().is_empty(), "{what}");
        made.mend();
        made.assert_newest_is_whole();
        let newest = made.files().into_iter().filter(|path| path.starts_with("snapshots"));
        let known: BTreeSet<&PathBuf> = template.stored.iter().map(|stored| &stored.snapshot).collect();
        let newest: Vec<PathBuf> = newest.filter(|path| !known.contains(path)).collect();
        let newest = newest[0].file_name().unwrap().to_str().unwrap().to_owned();
        assert!(made.check("").of("snapshot").all(|event| event["snapshot"] != newest[..]), "{what}");
    }
}

#[test]
fn damage_to_the_index_is_named_and_mended() {
    let template = Made::new("check-index");
    for action in ACTIONS {
        let made = template.copy();
        let [first, second, _] = &made.stored[..] else { panic!() };
        made.damage(action, &second.index, &first.index);
        let what = format!("{action:?}");
        let checked = made.check("");
        checked.assert_code(1, &what);
        match action {
            Action::Delete => checked.assert_names(Path::new("index"), "damaged", &what),
            _ => checked.assert_names(&second.index, "damaged", &what),
        }
        let costs = !matches!(action, Action::Swap);
        assert_eq!(checked.number("snapshots_damaged") > 0, costs, "{what}");
        made.check(" --repair-index --read-data").assert_code(0, &what);
        made.check("").assert_code(0, &what);
        made.assert_newest_is_whole();
    }
}

#[test]
fn an_index_that_is_gone_is_made_anew() {
    let made = Made::new("check-no-index");
    fs::remove_dir_all(made.dir.join("repo/index")).unwrap();
    made.run("check").assert_code(1);
    let checked = made.check(" --repair-index");
    checked.assert_code(0, "no index");
    assert_eq!(checked.events.last().unwrap()["index"]["packs"], 6);
    made.assert_newest_is_whole();
    // One file that was damaged, and comes out the same.
    let made = Made::new("check-one-index");
    let indexes: Vec<PathBuf> = made.files().into_iter().filter(|path| path.starts_with("index")).collect();
    made.run("check --repair-index").assert_code(0);
    assert_eq!(indexes.len(), RUNS);
    let [index] = &made.files().into_iter().filter(|path| path.starts_with("index")).collect::<Vec<_>>()[..]
    else {
        panic!("one file has replaced the others")
    };
    made.damage(Action::Flip, index, index);
    made.check(" --repair-index").assert_code(0, "one index");
    made.assert_newest_is_whole();
}

#[test]
fn damage_to_small_files_is_named() {
    let template = Made::new("check-small");
    for action in ACTIONS {
        let what = format!("{action:?}");
        let made = template.copy();
        let [first, second, _] = &made.stored[..] else { panic!() };
        made.damage(action, &second.snapshot, &first.snapshot);
        let checked = made.check("");
        if action == Action::Delete {
            // Nothing says that it was there.
            checked.assert_code(0, &what);
            assert_eq!(checked.number("snapshots"), 2);
        } else {
            checked.assert_code(1, &what);
            checked.assert_names(&second.snapshot, "damaged", &what);
        }

        let made = template.copy();
        let [lease, other] = [leave_lease(&made, 1), leave_lease(&made, 2)];
        made.check("").assert_code(0, "leases");
        made.damage(action, &lease, &other);
        let checked = made.check("");
        if action == Action::Delete {
            checked.assert_code(0, &what);
        } else {
            checked.assert_code(1, &what);
            checked.assert_names(&lease, "damaged", &what);
        }

        if action == Action::Swap {
            continue;
        }
        let made = template.copy();
        made.damage(action, Path::new("config"), Path::new("config"));
        let checked = made.run("check");
        let checked = checked.assert_code(if action == Action::Delete { 10 } else { 1 });
        assert!(action == Action::Delete || checked.messages().contains("config"), "{}", checked.messages());
    }
}

/// What a writer leaves that was ended.
fn leave_lease(made: &Made, process: u64) -> PathBuf {
    let repository = open(diptych_backend::open(made.dir.join("repo").to_str().unwrap()).unwrap());
    let kind = LockKind::Lease { sees: Vec::new() };
    let (host, user) = ("h".to_owned(), "u".to_owned());
    // An old one would be removed.
    let written = jiff::Timestamp::now();
    let lock = Lock { repository: repository.id(), kind, host, user, process, written };
    let name = repository.put_lock(&lock).unwrap();
    PathBuf::from(FileName::new(FileKind::Lease, name.0).path())
}

#[test]
fn a_damaged_key_is_named_and_another_one_opens() {
    let dir = TestDir::new("check-key");
    let run = |password: &str, words: &str| {
        let mut command = command(words.split(' '));
        finish(command.current_dir(dir.path()).env("DIPTYCH_REPO", "repo").env("DIPTYCH_PASSWORD", password))
    };
    run("one", "init").assert_code(0);
    let keys = || -> BTreeSet<PathBuf> {
        fs::read_dir(dir.join("repo/keys")).unwrap().map(|entry| entry.unwrap().path()).collect()
    };
    let first = keys().pop_first().unwrap();
    fs::write(dir.join("second"), "two").unwrap();
    run("one", "key add --new-password-file second").assert_code(0);
    run("two", "check").assert_code(0);
    let mut bytes = fs::read(&first).unwrap();
    bytes[20] ^= 1;
    put(&first, &bytes);
    let messages = run("two", "check").assert_code(1).messages();
    assert!(messages.contains(first.file_name().unwrap().to_str().unwrap()), "{messages}");
    run("one", "check").assert_code(12);
}

#[test]
fn a_pack_whose_end_is_damaged_is_stored_again() {
    let made = Made::new("check-end");
    let pack = &made.stored[1].payload;
    let mut bytes = fs::read(made.place(pack)).unwrap();
    let end = bytes.len();
    bytes[end - 20] ^= 1;
    put(&made.place(pack), &bytes);
    let checked = made.check("");
    checked.assert_code(1, "end");
    checked.assert_names(pack, "damaged", "end");
    assert_eq!((checked.number("lost_chunks"), checked.lost().len()), (0, 0));
    made.backup();
    made.check("").assert_code(0, "stored again");
    // Both places of the chunk are known to an index that is made anew.
    made.check(" --repair-index").assert_code(0, "index made anew");
    made.assert_newest_is_whole();
}

/// Spec: R-10-4, R-10-5
#[test]
fn what_is_damaged_is_marked_until_it_is_found_whole() {
    let made = Made::new("check-marks");
    let place = made.place(&made.stored[0].payload);
    let whole = fs::read(&place).unwrap();
    made.damage(Action::Flip, &made.stored[0].payload, Path::new(""));
    let marks = || made.files().into_iter().filter(|path| path.starts_with("locks")).collect::<Vec<_>>();
    made.check(" --read-data").assert_code(1, "damaged");
    let left = marks();
    assert_eq!(left.len(), 1);
    // It is read again without being asked for, and the mark stays the same.
    made.check("").assert_code(1, "damaged still");
    assert_eq!(marks(), left);
    let stored = made.run("backup --json --sample 0 --ignore-ctime tree").assert_code(0).text();
    let stored: Value = serde_json::from_str(stored.lines().last().unwrap()).unwrap();
    assert_eq!(stored["archives"][0]["read"]["lost"]["entries"], 1, "{stored}");
    // Once it is stored again, it is there for the runs behind.
    let again = made.run("backup --json --sample 0 --ignore-ctime tree").assert_code(0).text();
    let again: Value = serde_json::from_str(again.lines().last().unwrap()).unwrap();
    assert_eq!((&again["stored_chunks"], &again["archives"][0]["reused"]["entries"]), (&0.into(), &3.into()));
    put(&place, &whole);
    made.check("").assert_code(0, "whole again");
    assert!(marks().is_empty());
}

#[test]
fn parts_come_by_every_pack() {
    let made = Made::new("check-parts");
    let read = |words: &str| made.check(words).number("packs_read");
    assert_eq!((1..=4).map(|part| read(&format!(" --read-data-subset {part}/4"))).sum::<u64>(), 3);
    for _ in 0..RUNS {
        assert_eq!(read(" --read-data-subset 1%"), 1);
    }
    made.damage(Action::Flip, &made.stored[1].payload, Path::new(""));
    let codes: Vec<i32> = (0..RUNS).map(|_| made.check(" --read-data-subset 1K").code).collect();
    assert!(codes.contains(&1), "{codes:?}");
    made.run("check --read-data-subset 0/4").assert_code(2);
    made.run("check --read-data --read-data-subset 5%").assert_code(2);
}

#[test]
fn strangers_and_leftovers_are_told_and_cost_nothing() {
    let made = Made::new("check-strangers");
    fs::write(made.dir.join("repo/snapshots/notes.txt"), "mine").unwrap();
    let pack = fs::read(made.place(&made.stored[0].payload)).unwrap();
    let name = diptych_format::Digest::of(b"no pack's").to_string();
    fs::write(made.dir.join(format!("repo/data/{}/{name}", &name[..2])), pack).unwrap();
    let checked = made.check("");
    checked.assert_code(0, "strangers");
    checked.assert_names(Path::new("snapshots/notes.txt"), "harmless", "strangers");
    assert_eq!(checked.number("leftover_packs"), 1);
    assert!(made.dir.join("repo/snapshots/notes.txt").exists());
}

/// Counts what is read of packs, and refuses to read one.
struct Counting {
    inner: Arc<dyn Backend>,
    /// Reads and bytes.
    read: Mutex<BTreeMap<FileName, (u64, u64)>>,
    refused: Option<FileName>,
}

impl Backend for Counting {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn make_layout(&self) -> diptych_backend::Result<()> {
        self.inner.make_layout()
    }

    fn create(&self, kind: FileKind) -> diptych_backend::Result<Box<dyn NewFile>> {
        self.inner.create(kind)
    }

    fn read_at(&self, file: &FileName, buf: &mut [u8], offset: u64) -> diptych_backend::Result<()> {
        if self.refused == Some(*file) {
            return Err(Error::io(format!("{file}: refused"), std::io::Error::from(Class::Denied.kind())));
        }
        let mut read = self.read.lock().unwrap();
        let (reads, bytes) = read.entry(*file).or_default();
        (*reads, *bytes) = (*reads + 1, *bytes + buf.len() as u64);
        self.inner.read_at(file, buf, offset)
    }

    fn length(&self, file: &FileName) -> diptych_backend::Result<u64> {
        self.inner.length(file)
    }

    fn list(&self, kind: FileKind) -> diptych_backend::Result<Vec<Listed>> {
        self.inner.list(kind)
    }

    fn strangers(&self, kind: FileKind) -> diptych_backend::Result<Vec<String>> {
        self.inner.strangers(kind)
    }

    fn delete(&self, file: &FileName) -> diptych_backend::Result<()> {
        self.inner.delete(file)
    }

    fn remove_leftovers(&self) -> diptych_backend::Result<u64> {
        self.inner.remove_leftovers()
    }
}

fn open(backend: Arc<dyn Backend>) -> Repository {
    Repository::open(backend, false, || unreachable!(), |damaged| panic!("{damaged:?}")).unwrap()
}

/// Checks through the library; gives what was found, and what was read of each pack.
fn check_counted(
    made: &Made,
    read_data: ReadData,
    refused: Option<&Path>,
    is_interrupted: bool,
) -> (CheckReport, Vec<(String, Severity)>, BTreeMap<FileName, (u64, u64)>) {
    let inner = diptych_backend::open(made.dir.join("repo").to_str().unwrap()).unwrap();
    let name = |path: &Path| FileName::decode(FileKind::Data, path.file_name().unwrap().to_str().unwrap());
    let refused = refused.map(|path| name(path).unwrap());
    let counting = Arc::new(Counting { inner, read: Mutex::default(), refused });
    let options = CheckOptions {
        read_data,
        repairs_index: false,
        cache: None,
        host: "h".to_owned(),
        user: "u".to_owned(),
        threads: 2,
        interrupt: Arc::new(is_interrupted.into()),
    };
    let found = Mutex::new(Vec::new());
    let each = |finding: &Finding| {
        let Finding::File { path, severity, .. } = finding else { panic!("{finding:?}") };
        found.lock().unwrap().push((path.clone(), *severity));
    };
    let report = check(&open(counting.clone()), &options, &Silent, &each).unwrap();
    let read = std::mem::take(&mut *counting.read.lock().unwrap());
    (report, found.into_inner().unwrap(), read)
}

#[test]
fn each_pack_is_read_once() {
    let made = Made::new("check-once");
    for (read_data, is_read) in [(ReadData::All, true), (ReadData::None, false)] {
        let (report, found, read) = check_counted(&made, read_data, None, false);
        assert!(found.is_empty() && !report.is_interrupted, "{found:?}");
        for stored in &made.stored {
            let name = stored.payload.file_name().unwrap().to_str().unwrap();
            let (reads, bytes) = read[&FileName::decode(FileKind::Data, name).unwrap()];
            let length = fs::metadata(made.place(&stored.payload)).unwrap().len();
            // Its two ends are looked at first.
            let ends = bytes - if is_read { length } else { 0 };
            assert!(ends <= TAIL, "{reads} reads, {bytes} bytes of {length}");
            assert!(is_read || reads <= 2, "{reads} reads");
        }
    }
}

#[test]
fn what_may_not_be_read_is_not_called_damaged() {
    let made = Made::new("check-refused");
    let pack = &made.stored[1].payload;
    let (report, found, _) = check_counted(&made, ReadData::None, Some(pack), false);
    assert_eq!(found, [(pack.to_str().unwrap().to_owned(), Severity::Unreadable)]);
    assert_eq!((report.damaged, report.unreadable, report.lost_chunks), (0, 1, 0));
    assert!(made.files().iter().all(|path| !path.starts_with("locks")), "nothing is marked");
}

#[test]
fn an_end_before_the_end_is_told() {
    let made = Made::new("check-interrupted");
    let (report, found, _) = check_counted(&made, ReadData::All, None, true);
    assert!(report.is_interrupted && found.is_empty());
    assert_eq!((report.packs_read, report.damaged), (0, 0));
}
