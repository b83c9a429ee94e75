//! What only a directory on this machine shows: modes, full and read-only disks, what others put there, and what is
//! left by writers that were ended.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on says so by a panic")]

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, SystemTime};

use diptych_backend::{Backend, Class, Error, FileKind, FileName, Listed, Local, Result};
use rustix::thread::{CapabilitySet, UnshareFlags, capabilities, set_capabilities};
use tempfile::TempDir;

const HEX: &str = "0101010101010101010101010101010101010101010101010101010101010101";

/// A new repository in a directory `repository`.
fn made() -> (TempDir, Local) {
    let directory = tempfile::tempdir().unwrap();
    let local = Local::open(directory.path().join("repository")).unwrap();
    local.make_layout().unwrap();
    (directory, local)
}

fn name(kind: FileKind, number: u8) -> FileName {
    FileName::new(kind, [number; 32])
}

fn write(backend: &dyn Backend, name: &FileName, bytes: &[u8]) -> Result<()> {
    let mut file = backend.create(name.kind())?;
    file.write_all(bytes).map_err(|error| Error::io("while writing", error))?;
    file.keep(name)
}

#[track_caller]
fn assert_fails(result: Result<()>, class: Class, words: &str) {
    let error = result.unwrap_err();
    assert!(error.class == class && error.to_string().contains(words), "{error}");
}

/// All paths of files below, whatever they are called.
fn files_below(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut left = vec![directory.to_owned()];
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else {
                found.push(path.strip_prefix(directory).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

/// Runs a test on a thread that has a file system of its own at `place`; it goes with the thread.
#[allow(unsafe_code)]
fn on_own_disk(place: &Path, options: &str, test: impl FnOnce() + Send) {
    let mount = |arguments: &[&str]| {
        let output = Command::new("mount").args(arguments).output().unwrap();
        assert!(output.status.success(), "mount {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            // SAFETY: the thread keeps the descriptors that all threads have; it gets mounts of its own alone.
            let own = unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) };
            own.expect("this test mounts a small disk: run it as root, with CAP_SYS_ADMIN");
            mount(&["--make-rprivate", "/"]);
            mount(&["-t", "tmpfs", "-o", options, "none", place.to_str().unwrap()]);
            test();
        });
    });
}

#[test]
fn the_files_lie_where_other_programs_look_for_them() {
    let (directory, local) = made();
    for kind in FileKind::ALL {
        write(&local, &name(kind, 1), b"x").unwrap();
    }
    let repository = directory.path().join("repository");
    let expected = ["config".to_owned(), format!("data/01/{HEX}")].into_iter();
    let flat = ["index", "keys", "locks", "snapshots"].map(|kind| format!("{kind}/{HEX}"));
    assert_eq!(files_below(&repository), expected.chain(flat).collect::<Vec<_>>());
    let mode = |path: &str| fs::metadata(repository.join(path)).unwrap().permissions().mode() & 0o7777;
    for path in [".", "keys", "data", "data/00", "data/ff", "index", "snapshots", "locks"] {
        assert_eq!(mode(path), 0o700, "{path}");
    }
    assert_eq!(mode("config"), 0o400);
    assert_eq!(mode(&format!("data/01/{HEX}")), 0o400);
}

#[test]
fn a_layout_is_made_in_an_empty_directory_and_in_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("there");
    fs::create_dir(&path).unwrap();
    // A disk of its own has this from its birth.
    fs::create_dir(path.join("lost+found")).unwrap();
    Local::open(&path).unwrap().make_layout().unwrap();
    // Whoever was ended while making it can try again.
    fs::remove_dir(path.join("data/80")).unwrap();
    fs::remove_dir(path.join("locks")).unwrap();
    Local::open(&path).unwrap().make_layout().unwrap();
    assert!(path.join("data/80").is_dir() && path.join("locks").is_dir());
    for stranger in ["letter", "data/letter", "data/80/letter", "keys/letter"] {
        fs::write(path.join(stranger), "dear").unwrap();
        let refused = Local::open(&path).unwrap().make_layout();
        assert_fails(refused, Class::Exists, &format!("the directory is not empty, it holds {stranger}"));
        fs::remove_file(path.join(stranger)).unwrap();
    }
    Local::open(&path).unwrap().make_layout().unwrap();
}

#[test]
fn a_place_that_is_no_directory_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    assert_fails(Local::open(&file).map(drop), Class::Io, "file: cannot be opened as a directory");
    let below = Local::open(directory.path().join("not mounted/repository")).unwrap();
    assert_fails(below.make_layout(), Class::Missing, "the directory above it is not there");
    assert!(!directory.path().join("not mounted").exists());
    assert_fails(below.list(FileKind::Snapshot).map(drop), Class::Missing, "no repository is here");
}

#[test]
fn a_directory_that_is_gone_is_not_an_empty_one() {
    for gone in ["snapshots", "data/3f", "data"] {
        let (directory, local) = made();
        fs::remove_dir_all(directory.path().join("repository").join(gone)).unwrap();
        let kind = if gone == "snapshots" { FileKind::Snapshot } else { FileKind::Data };
        assert_fails(local.list(kind).map(drop), Class::Missing, gone);
        assert_eq!(local.list(FileKind::Key).unwrap(), []);
    }
    let (directory, local) = made();
    fs::remove_dir_all(directory.path().join("repository")).unwrap();
    for kind in FileKind::ALL {
        assert_fails(local.list(kind).map(drop), Class::Missing, "cannot be listed");
    }
}

#[test]
fn what_others_put_there_is_told_and_left_alone() {
    let (directory, local) = made();
    let repository = directory.path().join("repository");
    let ours = name(FileKind::Data, 1);
    write(&local, &ours, b"x").unwrap();
    let other = HEX.replace('1', "2");
    fs::write(repository.join("letter"), "").unwrap();
    fs::write(repository.join("data/letter"), "").unwrap();
    // Names of ours: two in the wrong place, and two that are no files.
    fs::write(repository.join(format!("data/{HEX}")), "").unwrap();
    fs::write(repository.join(format!("data/01/{other}")), "").unwrap();
    fs::create_dir(repository.join(format!("data/02/{other}"))).unwrap();
    symlink("letter", repository.join(format!("keys/{HEX}"))).unwrap();
    fs::write(repository.join(format!("index/{}", HEX.replace('1', "A"))), "").unwrap();
    assert_eq!(local.strangers(FileKind::Config).unwrap(), ["letter"]);
    let expected = [format!("data/01/{other}"), format!("data/{HEX}"), format!("data/02/{other}")];
    assert_eq!(local.strangers(FileKind::Data).unwrap()[..3], expected);
    assert_eq!(local.strangers(FileKind::Data).unwrap()[3..], ["data/letter"]);
    assert_eq!(local.strangers(FileKind::Key).unwrap(), [format!("keys/{HEX}")]);
    assert_eq!(local.strangers(FileKind::Index).unwrap().len(), 1);
    assert_eq!(local.list(FileKind::Data).unwrap(), [Listed { name: ours, length: 1 }]);
    for kind in [FileKind::Config, FileKind::Key, FileKind::Index] {
        assert_eq!(local.list(kind).unwrap(), []);
    }
    // A link leads to a file that is none of ours.
    let key = name(FileKind::Key, 1);
    assert_fails(local.read_at(&key, &mut [], 0), Class::Io, "cannot be opened");
    assert_fails(local.length(&key).map(drop), Class::Io, "this is no regular file");
}

#[test]
fn a_repository_is_the_one_that_was_opened() {
    let (directory, local) = made();
    let [here, there] = ["repository", "moved"].map(|name| directory.path().join(name));
    let mut begun = local.create(FileKind::Data).unwrap();
    begun.write_all(b"1").unwrap();
    fs::rename(&here, &there).unwrap();
    let other = Local::open(&here).unwrap();
    other.make_layout().unwrap();
    begun.keep(&name(FileKind::Data, 1)).unwrap();
    write(&local, &name(FileKind::Data, 2), b"2").unwrap();
    local.delete(&name(FileKind::Data, 1)).unwrap();
    assert_eq!(files_below(&here), [""; 0]);
    assert_eq!(files_below(&there), [name(FileKind::Data, 2).path()]);
    assert_eq!(local.list(FileKind::Data).unwrap().len(), 1);
    assert_eq!(other.list(FileKind::Data).unwrap(), []);
}

#[test]
fn what_is_dropped_leaves_no_file() {
    let (directory, local) = made();
    for kind in FileKind::ALL {
        local.create(kind).unwrap().write_all(b"half").unwrap();
        write(&local, &name(kind, 1), b"x").unwrap();
        // This one is there already.
        let _ = write(&local, &name(kind, 1), b"x");
    }
    let left = files_below(&directory.path().join("repository"));
    assert_eq!(left.len(), FileKind::ALL.len(), "{left:?}");
}

#[test]
fn only_old_files_of_writers_that_are_gone_are_leftovers() {
    let (directory, local) = made();
    let repository = directory.path().join("repository");
    let make_old = |path: &Path| {
        let day_before_yesterday = SystemTime::now() - Duration::from_secs(2 * 24 * 60 * 60);
        File::open(path).unwrap().set_modified(day_before_yesterday).unwrap();
    };
    let mut alive = local.create(FileKind::Data).unwrap();
    alive.write_all(b"slowly").unwrap();
    let alive_path = repository.join(&files_below(&repository)[0]);
    make_old(&alive_path);
    for directory in [".", "keys", "data", "locks"] {
        for age in ["old", "young"] {
            let path = repository.join(directory).join(format!(".new-0-{age}"));
            fs::write(&path, "left").unwrap();
            if age == "old" {
                make_old(&path);
            }
        }
    }
    fs::write(repository.join("letter"), "not ours").unwrap();
    make_old(&repository.join("letter"));
    assert_eq!(local.remove_leftovers().unwrap(), 4);
    let mut expected: Vec<_> =
        ["", "data/", "keys/", "locks/"].map(|below| format!("{below}.new-0-young")).into();
    expected.push(alive_path.strip_prefix(&repository).unwrap().to_str().unwrap().to_owned());
    expected.push("letter".to_owned());
    expected.sort();
    assert_eq!(files_below(&repository), expected);
    assert_eq!(local.remove_leftovers().unwrap(), 0);
    alive.keep(&name(FileKind::Data, 1)).unwrap();
    assert_eq!(local.length(&name(FileKind::Data, 1)).unwrap(), 6);
}

#[test]
fn a_number_of_another_writer_is_not_taken() {
    let (directory, local) = made();
    let keys = directory.path().join("repository/keys");
    let mine = |number: u64| keys.join(format!(".new-{}-{number}", std::process::id()));
    let taken: Vec<_> = (0..1000).map(mine).collect();
    taken.iter().for_each(|path| fs::write(path, "another's").unwrap());
    write(&local, &name(FileKind::Key, 1), b"mine").unwrap();
    assert!(taken.iter().all(|path| fs::read(path).unwrap() == b"another's"));
    assert_eq!(fs::metadata(keys.join(HEX)).unwrap().size(), 4);
}

#[test]
fn a_configuration_that_another_made_anew_is_read_anew() {
    let (directory, local) = made();
    let other = Local::open(directory.path().join("repository")).unwrap();
    for bytes in [*b"old", *b"new"] {
        write(&other, &FileName::CONFIG, &bytes).unwrap();
        let mut found = [0; 3];
        local.read_at(&FileName::CONFIG, &mut found, 0).unwrap();
        assert_eq!(found, bytes);
        other.delete(&FileName::CONFIG).unwrap();
    }
}

#[test]
fn few_files_are_held_open() {
    let (directory, local) = made();
    for number in 0..100 {
        write(&local, &name(FileKind::Data, number), &[number]).unwrap();
    }
    // Those of this directory alone: other tests open their own meanwhile.
    let open = || {
        let links =
            fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
        links.filter(|path| path.starts_with(directory.path().join("repository/data"))).count()
    };
    assert_eq!(open(), 0);
    for round in 0..2 {
        for number in 0..100 {
            let mut byte = [0xff];
            local.read_at(&name(FileKind::Data, number), &mut byte, 0).unwrap();
            assert_eq!(byte, [number]);
            assert_eq!(open(), if round == 0 { usize::from(number) + 1 } else { 64 }.min(64));
        }
    }
    // A pack that is deleted gives its room back, and is gone at once.
    let last = name(FileKind::Data, 99);
    local.delete(&last).unwrap();
    assert_eq!(open(), 63);
    assert_eq!(local.read_at(&last, &mut [0], 0).unwrap_err().class, Class::Missing);
}

#[test]
fn a_full_disk_is_full_and_nothing_is_left_on_it() {
    let directory = tempfile::tempdir().unwrap();
    on_own_disk(directory.path(), "size=1m,nr_inodes=400", || {
        let local = Local::open(directory.path()).unwrap();
        local.make_layout().unwrap();
        write(&local, &name(FileKind::Data, 1), &vec![1; 600 << 10]).unwrap();
        let full = || write(&local, &name(FileKind::Data, 2), &vec![2; 600 << 10]);
        assert_fails(full(), Class::Full, "make room there");
        assert_eq!(files_below(directory.path()), [name(FileKind::Data, 1).path()]);
        local.delete(&name(FileKind::Data, 1)).unwrap();
        full().unwrap();
        // No room for one more file.
        let filled =
            (0..).map_while(|number| File::create(directory.path().join(format!("{number}"))).ok()).count();
        assert!(filled > 0);
        assert_fails(write(&local, &name(FileKind::Key, 1), b""), Class::Full, "keys: cannot begin a file");
    });
}

#[test]
fn a_read_only_disk_is_read_and_not_written() {
    let directory = tempfile::tempdir().unwrap();
    on_own_disk(directory.path(), "size=1m", || {
        let repository = directory.path().join("repository");
        let local = Local::open(&repository).unwrap();
        local.make_layout().unwrap();
        let file = name(FileKind::Snapshot, 1);
        write(&local, &file, b"x").unwrap();
        let status = Command::new("mount").args(["-o", "remount,ro"]).arg(directory.path()).status().unwrap();
        assert!(status.success());
        let local = Local::open(&repository).unwrap();
        let mut byte = [0];
        local.read_at(&file, &mut byte, 0).unwrap();
        assert_eq!(byte, *b"x");
        assert_eq!(local.list(FileKind::Snapshot).unwrap().len(), 1);
        assert_fails(write(&local, &file, b"x"), Class::ReadOnly, "snapshots: cannot begin a file");
        assert_fails(local.delete(&file), Class::ReadOnly, "cannot be deleted");
        let other = Local::open(directory.path().join("other")).unwrap();
        assert_fails(other.make_layout(), Class::ReadOnly, "cannot be made");
    });
}

#[test]
fn who_may_not_write_is_denied() {
    let (directory, local) = made();
    let repository = directory.path().join("repository");
    let file = name(FileKind::Snapshot, 1);
    write(&local, &file, b"x").unwrap();
    let set_mode =
        |mode| fs::set_permissions(repository.join("snapshots"), PermissionsExt::from_mode(mode)).unwrap();
    set_mode(0o500);
    thread::scope(|scope| {
        scope.spawn(|| {
            // Modes do not bind root while it has these; the thread alone gives them up.
            let mut sets = capabilities(None).unwrap();
            sets.effective -= CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
            set_capabilities(None, sets).unwrap();
            assert_fails(write(&local, &file, b"x"), Class::Denied, "snapshots: cannot begin a file");
            assert_fails(local.delete(&file), Class::Denied, "cannot be deleted");
            assert_eq!(local.list(FileKind::Snapshot).unwrap().len(), 1);
            set_mode(0);
            assert_fails(
                local.list(FileKind::Snapshot).map(drop),
                Class::Denied,
                "snapshots: cannot be listed",
            );
            assert_fails(local.length(&file).map(drop), Class::Denied, "cannot be looked at");
        });
    });
    set_mode(0o700);
    local.delete(&file).unwrap();
}

#[test]
fn a_directory_under_the_name_of_a_file_is_told_and_left_alone() {
    let (directory, local) = made();
    let name = name(FileKind::Data, 1);
    let place = directory.path().join("repository").join(name.path());
    fs::create_dir(&place).unwrap();
    assert_fails(write(&local, &name, b"pack"), Class::Io, "a directory has its name; move that away");
    assert!(place.is_dir());
    assert!(local.list(FileKind::Data).unwrap().is_empty());
    fs::remove_dir(&place).unwrap();
    write(&local, &name, b"pack").unwrap();
}
