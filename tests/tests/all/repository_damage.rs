//! What becomes of a repository whose files are damaged, removed or not its own; and what those who may read all of them
//! without the password see.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use diptych_repository::documents::{KeyOwner, Lock, LockKind};
use diptych_tests::command::{Finished, command, finish};
use diptych_tests::{Random, TestDir};
use jiff::Timestamp;

use crate::repositories::{aged, hash, open};

const PASSWORD: &str = "correct horse";

/// Who runs `diptych` on a repository, and on what.
struct Case {
    dir: TestDir,
    tree: PathBuf,
    repository: PathBuf,
    is_encrypted: bool,
}

impl Case {
    fn new(name: &str, is_encrypted: bool) -> Self {
        let dir = TestDir::new(name);
        let (tree, repository) = (dir.join("tree"), dir.join("repository"));
        let case = Self { dir, tree, repository, is_encrypted };
        fs::create_dir(&case.tree).unwrap();
        let mut random = Random::new(1);
        for number in 0..40 {
            fs::write(case.tree.join(format!("file{number}")), random.bytes(5000)).unwrap();
        }
        let encryption: &[&str] = if is_encrypted { &[] } else { &["--no-encryption"] };
        case.run("init", encryption).assert_code(0);
        case
    }

    fn run(&self, verb: &str, arguments: &[&str]) -> Finished {
        let mut run = command([verb, "-r", self.repository.to_str().unwrap()]);
        if self.is_encrypted {
            run.env("DIPTYCH_PASSWORD", PASSWORD);
        }
        finish(run.args(arguments))
    }

    fn back_up(&self) -> Finished {
        self.run("backup", &[self.tree.to_str().unwrap()])
    }

    /// A run whose snapshot makes everything it has count as unchanged by the next one.
    fn back_up_and_age(&self) {
        self.back_up().assert_code(0);
        let repository = open(diptych_backend::open(self.repository.to_str().unwrap()).unwrap()).unwrap();
        let newest = repository.snapshots(|damaged| panic!("{damaged:?}")).unwrap().pop().unwrap();
        aged(&repository, &newest.id);
    }

    /// Restores; says whether all of the tree is there then.
    fn restored(&self, snapshot: &str) -> (Finished, bool) {
        let target = self.dir.join("restored");
        let finished = self.run("restore", &[snapshot, "--target", target.to_str().unwrap()]);
        let is_whole = target.exists() && hash(&target) == hash(&self.tree);
        if target.exists() {
            fs::remove_dir_all(target).unwrap();
        }
        (finished, is_whole)
    }

    /// Restores what must be there whole.
    #[track_caller]
    fn restore(&self, snapshot: &str, code: i32) -> Finished {
        let (finished, is_whole) = self.restored(snapshot);
        assert!(is_whole, "{}", finished.messages());
        finished.assert_code(code)
    }

    /// The files of a kind, as paths in the repository.
    fn files(&self, kind: Kind) -> Vec<String> {
        let directory = match kind {
            Kind::Config => return vec!["config".to_owned()],
            Kind::Key => "keys",
            Kind::Payload | Kind::Metadata => "data",
            Kind::Index => "index",
            Kind::Snapshot => "snapshots",
            Kind::Lock => "locks",
        };
        let mut found = Vec::new();
        collect(&self.repository, directory, &mut found);
        // Of a pack, its header tells what it holds. Spec: archive.md section 11.
        let holds = |path: &String| fs::read(self.repository.join(path)).unwrap()[10];
        match kind {
            Kind::Payload => found.retain(|path| holds(path) == 1),
            Kind::Metadata => found.retain(|path| holds(path) == 2),
            _ => {}
        }
        found
    }

    /// The file of a kind.
    #[track_caller]
    fn file(&self, kind: Kind) -> String {
        let mut found = self.files(kind);
        assert_eq!(found.len(), 1, "{kind:?}: {found:?}");
        found.remove(0)
    }
}

/// All files below a directory, as paths from the root.
fn collect(root: &Path, below: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(root.join(below)).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{below}/{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            collect(root, &path, found);
        } else {
            found.push(path);
        }
    }
    found.sort();
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Config,
    Key,
    Payload,
    Metadata,
    Index,
    Snapshot,
    Lock,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Damage {
    Flip,
    Truncate,
    Delete,
    Zero,
}

const DAMAGES: [Damage; 4] = [Damage::Flip, Damage::Truncate, Damage::Delete, Damage::Zero];

fn damage(path: &Path, damage: Damage) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    match damage {
        Damage::Flip => bytes[middle] ^= 1,
        Damage::Truncate => bytes.truncate(middle),
        Damage::Zero => bytes.fill(0),
        Damage::Delete => return fs::remove_file(path).unwrap(),
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Damages the only file of a kind. Then: the exit codes of `snapshots`, of `restore` of what was there and of `backup`,
/// and whether each has to name the file; the exit code of `restore` of what was made last, and whether that is whole.
#[track_caller]
fn assert_codes(case: &Case, kind: Kind, how: Damage, expected: [(i32, bool); 3], afterwards: (i32, bool)) {
    let name = case.file(kind);
    damage(&case.repository.join(&name), how);
    let digits = name.rsplit('/').next().unwrap();
    let found = [case.run("snapshots", &[]), case.restored("latest").0, case.back_up()];
    for ((finished, (code, names)), step) in
        found.iter().zip(expected).zip(["snapshots", "restore", "backup"])
    {
        let said = finished.messages();
        assert_eq!(finished.code, Some(code), "{kind:?} {how:?} {step}:\n{said}");
        assert_eq!(said.contains(digits), names, "{kind:?} {how:?} {step} names {name}:\n{said}");
    }
    let (after, is_whole) = case.restored("latest");
    let found = (after.code, is_whole);
    let (code, is_whole) = afterwards;
    assert_eq!(found, (Some(code), is_whole), "{kind:?} {how:?}, then a run:\n{}", after.messages());
}

#[test]
fn a_damaged_config_is_no_repository_to_work_on() {
    for how in DAMAGES {
        let case = Case::new("damaged-head", true);
        let (code, names) = if how == Damage::Delete { (10, false) } else { (1, true) };
        assert_codes(&case, Kind::Config, how, [(code, names); 3], (code, false));
        // It is not made anew over what is there.
        let made = case.run("backup", &["--init", case.tree.to_str().unwrap()]);
        assert_eq!(made.code, Some(1), "{}", made.messages());
    }
}

#[test]
fn without_its_only_key_file_a_repository_is_closed() {
    for how in DAMAGES {
        let case = Case::new("damaged-key", true);
        assert_codes(&case, Kind::Key, how, [(12, how != Damage::Delete); 3], (12, false));
    }
}

#[test]
fn a_damaged_key_file_beside_a_good_one_does_no_harm() {
    let case = Case::new("two-keys", true);
    let first = case.file(Kind::Key);
    {
        let backend = diptych_backend::open(case.repository.to_str().unwrap()).unwrap();
        let password = || Ok(PASSWORD.as_bytes().to_vec());
        let repository =
            diptych_repository::Repository::open(backend, true, password, |damaged| panic!("{damaged:?}"));
        let owner = KeyOwner {
            created: Timestamp::UNIX_EPOCH,
            user: String::new(),
            host: String::new(),
            label: "second".to_owned(),
        };
        repository.unwrap().add_key(owner, PASSWORD.as_bytes()).unwrap().unwrap();
    }
    damage(&case.repository.join(&first), Damage::Truncate);
    let said = case.back_up().assert_code(0).messages();
    // All key files are read before any is tried.
    assert!(said.contains(&first), "{said}");
    case.restore("latest", 0);
}

#[test]
fn damaged_contents_are_missed_when_they_are_read() {
    for how in DAMAGES {
        let case = Case::new("damaged-payload", false);
        case.back_up_and_age();
        // A run reads no content that has not changed: it sees what is gone, not what is wrong inside.
        let is_seen = matches!(how, Damage::Truncate | Damage::Delete);
        let backup = if is_seen { (3, true) } else { (0, false) };
        let afterwards = if is_seen { (0, true) } else { (3, false) };
        assert_codes(&case, Kind::Payload, how, [(0, false), (3, true), backup], afterwards);
        if how == Damage::Delete {
            // The same contents have made the same pack.
            case.back_up().assert_code(0);
        }
    }
}

#[test]
fn damaged_metadata_are_stored_again() {
    for how in DAMAGES {
        let case = Case::new("damaged-metadata", false);
        case.back_up_and_age();
        let is_seen = matches!(how, Damage::Truncate | Damage::Delete);
        let backup = (if is_seen { 3 } else { 0 }, true);
        assert_codes(&case, Kind::Metadata, how, [(0, false), (1, true), backup], (0, true));
    }
}

#[test]
fn without_its_index_everything_is_stored_again() {
    for how in DAMAGES {
        let case = Case::new("damaged-index", false);
        case.back_up_and_age();
        let names = how != Damage::Delete;
        let told = if names { 3 } else { 0 };
        assert_codes(&case, Kind::Index, how, [(told, names), (1, names), (told, names)], (told, true));
    }
}

/// The same contents make files of the same names.
#[test]
fn what_is_written_again_takes_the_place_of_what_is_damaged() {
    for how in [Damage::Flip, Damage::Truncate, Damage::Zero] {
        let case = Case::new("written-again", false);
        case.back_up().assert_code(0);
        let kinds = [Kind::Payload, Kind::Metadata, Kind::Index];
        let names = kinds.map(|kind| case.file(kind));
        let whole = names.clone().map(|name| fs::read(case.repository.join(name)).unwrap());
        names.iter().for_each(|name| damage(&case.repository.join(name), how));
        // The index names nothing any more, and nothing is compared: all is as it was the first time.
        case.run("backup", &["--force", case.tree.to_str().unwrap()]).assert_code(3);
        assert_eq!(names.clone().map(|name| fs::read(case.repository.join(name)).unwrap()), whole);
        assert_eq!(kinds.map(|kind| case.file(kind)), names);
        case.run("snapshots", &[]).assert_code(0);
        case.restore("latest", 0);
    }
}

#[test]
fn a_damaged_snapshot_is_passed_over() {
    for how in DAMAGES {
        let case = Case::new("damaged-snapshot", false);
        case.back_up_and_age();
        let names = how != Damage::Delete;
        let told = if names { 3 } else { 0 };
        assert_codes(&case, Kind::Snapshot, how, [(told, names), (1, names), (told, names)], (told, true));
    }
}

/// A lock that cannot be read may name packs that are about to go.
#[test]
fn beside_a_damaged_lock_nobody_writes() {
    for how in DAMAGES {
        let case = Case::new("damaged-lock", false);
        case.back_up_and_age();
        let repository = open(diptych_backend::open(case.repository.to_str().unwrap()).unwrap()).unwrap();
        let lock = Lock {
            repository: repository.id(),
            kind: LockKind::Lease { sees: Vec::new() },
            host: "elsewhere".to_owned(),
            user: "somebody".to_owned(),
            process: 1,
            written: Timestamp::UNIX_EPOCH,
        };
        repository.put_lock(&lock).unwrap();
        let backup = if how == Damage::Delete { (0, false) } else { (1, true) };
        assert_codes(&case, Kind::Lock, how, [(0, false), (0, false), backup], (0, true));
    }
}

#[test]
fn a_damaged_pack_costs_the_snapshots_that_use_it_and_no_others() {
    let case = Case::new("damaged-one", false);
    case.back_up().assert_code(0);
    let packs = case.files(Kind::Payload);
    let other = case.dir.join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("file"), "what no other tree has").unwrap();
    case.run("backup", &[other.to_str().unwrap()]).assert_code(0);
    damage(&case.repository.join(&packs[0]), Damage::Flip);
    let target = case.dir.join("restored-other");
    case.run("restore", &["latest", "--target", target.to_str().unwrap()]).assert_code(0);
    assert_eq!(hash(&target), hash(&other));
    let path = case.tree.to_str().unwrap();
    let target = case.dir.join("restored-tree");
    let finished = case.run("restore", &["latest", "--path", path, "--target", target.to_str().unwrap()]);
    finished.assert_code(3);
    // One chunk is damaged, and few files are in it.
    assert!(fs::read_dir(target).unwrap().count() >= 20);
}

#[test]
fn files_with_other_names_are_left_alone() {
    let case = Case::new("strangers", false);
    case.back_up().assert_code(0);
    let strangers =
        ["README", "data/ab/notes.txt", "data/x", "index/1234", "snapshots/a.tmp", "locks/LOCK", "keys/k"];
    for name in strangers {
        fs::write(case.repository.join(name), "not ours").unwrap();
    }
    for verb in [case.run("snapshots", &[]), case.back_up(), case.restore("latest", 0)] {
        assert!(!verb.assert_code(0).messages().contains("passed over"));
    }
    for name in strangers {
        assert_eq!(fs::read(case.repository.join(name)).unwrap(), b"not ours");
    }
}

#[test]
fn a_snapshot_of_another_repository_is_refused() {
    let (case, other) = (Case::new("ours", false), Case::new("others", false));
    other.back_up().assert_code(0);
    let name = other.file(Kind::Snapshot);
    fs::copy(other.repository.join(&name), case.repository.join(&name)).unwrap();
    let id = name.rsplit('/').next().unwrap();
    let listed = case.run("snapshots", &[]).assert_code(3);
    assert!(listed.messages().contains(&name) && listed.messages().contains("is of repository"));
    assert_eq!(listed.text(), "");
    case.restored(id).0.assert_code(1);
    // It is no base either.
    let said = case.back_up().assert_code(3);
    assert!(said.messages().contains(&name));
    case.restore("latest", 3);
}

#[test]
fn without_the_password_nothing_of_the_trees_is_seen() {
    const SECRETS: [&str; 8] = [
        "SecretContent",
        "SecretName",
        "SecretDirectory",
        "SecretTarget",
        "user.SecretXattr",
        "SecretValue",
        "SecretTag",
        "SecretHost",
    ];
    let case = Case::new("secrets", true);
    let [content, name, directory, target, xattr, value, tag, host] = SECRETS;
    let below = case.tree.join(directory);
    fs::create_dir(&below).unwrap();
    fs::write(below.join(name), content.repeat(3)).unwrap();
    symlink(target, below.join("link")).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(below.join(name), xattr, value.as_bytes(), flags).unwrap();
    let path = case.tree.to_str().unwrap();
    let backup = |compression| {
        let arguments = ["--tag", tag, "--host", host, "--compression", compression, path];
        case.run("backup", &arguments).assert_code(0);
    };
    // Nothing that is not compressed hides behind compression.
    backup("none");
    fs::write(below.join("more"), content).unwrap();
    backup("1");
    let (mut files, mut secrets) = (vec!["config".to_owned()], SECRETS.map(str::to_owned).to_vec());
    for directory in ["keys", "data", "index", "snapshots", "locks"] {
        collect(&case.repository, directory, &mut files);
    }
    assert!(files.len() >= 8, "{files:?}");
    secrets.push(path.to_owned());
    // In the same bytes in a repository that is not encrypted, all of it is seen: the test does not look past it.
    let plain = Case::new("no-secrets", false);
    let arguments = ["--tag", tag, "--host", host, "--compression", "none", path];
    plain.run("backup", &arguments).assert_code(0);
    let mut of_plain = Vec::new();
    ["data", "snapshots"].iter().for_each(|below| collect(&plain.repository, below, &mut of_plain));
    let seen = |repository: &Path, files: &[String], secret: &str| {
        files.iter().any(|file| {
            let bytes = fs::read(repository.join(file)).unwrap();
            bytes.windows(secret.len()).any(|window| window == secret.as_bytes())
        })
    };
    for secret in secrets {
        assert!(!seen(&case.repository, &files, &secret), "{secret} is seen");
        assert!(seen(&plain.repository, &of_plain, &secret), "{secret} is nowhere");
    }
}
