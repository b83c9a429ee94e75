//! Targets and orders of events that try to lead an extraction out of its tree.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use diptych_format::{Attributes, Digest, Entry, Holds, Kind, Status};
use diptych_localfs::extract::{OutDirectory, Target};

use crate::support::{is_root, make, name, temp};

fn entry(name: &[u8], kind: Kind, mode: u32, holds: Holds) -> Entry {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Entry {
        name: crate::support::name(name),
        attributes: Attributes { mode: kind.mode_bits() | mode, uid, gid, ..Attributes::default() },
        mtime: Default::default(),
        holds,
        holes: Vec::new(),
        change: Default::default(),
        status: Status::COMPLETE,
    }
}

fn file(name: &[u8], size: u64) -> Entry {
    entry(name, Kind::File, 0o644, Holds::Content { size, digest: Digest::NONE })
}

fn directory(name: &[u8]) -> Entry {
    entry(name, Kind::Directory, 0o755, Holds::Entries { digest: Digest::NONE })
}

fn link(name: &[u8], target: &[u8]) -> Entry {
    entry(name, Kind::Symlink, 0o777, Holds::Target(target.into()))
}

fn open(path: &Path, is_overwriting: bool) -> (Target, OutDirectory) {
    let target = Target::open(path, is_overwriting).unwrap();
    let root = target.root().unwrap();
    (target, root)
}

fn put(directory: &OutDirectory, entry: &Entry, bytes: &[u8]) {
    let file = directory.create_file(&entry.name).unwrap();
    file.write_at(bytes, 0).unwrap();
    assert_eq!(file.finish(entry).unwrap(), [] as [&str; 0]);
}

#[test]
fn a_link_of_the_archive_is_not_written_through() {
    let temp = temp();
    make(temp.path(), &["outside/victim"]);
    let (_, root) = open(&temp.path().join("to"), false);
    root.create_special(&link(b"out", b"../outside")).unwrap();
    root.create_special(&link(b"f", b"../outside/victim")).unwrap();
    // The same name once more, as a directory and as a file.
    assert!(root.create_directory(&name(b"out")).is_err());
    let error = root.create_file(&name(b"f")).err().unwrap().to_string();
    assert!(error.contains("something is there already"), "{error}");
    assert_eq!(std::fs::read(temp.path().join("outside/victim")).unwrap(), b"outside/victim");
    assert_eq!(std::fs::read_dir(temp.path().join("outside")).unwrap().count(), 1);
}

#[test]
fn links_that_stand_in_an_existing_target_are_replaced() {
    let temp = temp();
    make(
        temp.path(),
        &["outside/victim", "to/d -> ../outside", "to/victim -> ../outside/victim", "to/s -> ../outside"],
    );
    let (_, root) = open(&temp.path().join("to"), true);
    let d = root.create_directory(&name(b"d")).unwrap();
    put(&d, &file(b"victim", 3), b"new");
    put(&root, &file(b"victim", 3), b"new");
    root.create_special(&link(b"s", b"elsewhere")).unwrap();
    assert_eq!(d.finish(&directory(b"d")).unwrap(), [] as [&str; 0]);
    assert_eq!(std::fs::read(temp.path().join("outside/victim")).unwrap(), b"outside/victim");
    assert!(temp.path().join("to/d").symlink_metadata().unwrap().is_dir());
    assert!(temp.path().join("to/victim").symlink_metadata().unwrap().is_file());
    assert_eq!(temp.path().join("to/s").read_link().unwrap(), Path::new("elsewhere"));
}

#[test]
fn a_directory_that_is_swapped_for_a_link_is_written_where_it_is() {
    let temp = temp();
    make(temp.path(), &["outside/"]);
    let to = temp.path().join("to");
    let (target, root) = open(&to, false);
    let d = root.create_directory(&name(b"d")).unwrap();
    std::fs::rename(to.join("d"), to.join("moved")).unwrap();
    make(&to, &["d -> ../outside"]);
    put(&d, &file(b"f", 1), b"x");
    assert_eq!(d.finish(&directory(b"d")).unwrap(), [] as [&str; 0]);
    assert_eq!(std::fs::read_dir(temp.path().join("outside")).unwrap().count(), 0);
    assert!(to.join("moved/f").exists());
    // Nor does a link lead through it: neither from there nor to what is behind it.
    make(temp.path(), &["outside/f"]);
    assert!(root.link(&name(b"g"), &target, b"d/f").is_err());
    assert!(!to.join("g").exists());
}

#[test]
fn hard_links_are_made_to_links_themselves() {
    let temp = temp();
    make(temp.path(), &["outside"]);
    let to = temp.path().join("to");
    let (target, root) = open(&to, false);
    root.create_special(&link(b"s", b"../outside")).unwrap();
    root.link(&name(b"t"), &target, b"s").unwrap();
    assert_eq!(to.join("t").read_link().unwrap(), Path::new("../outside"));
    assert_eq!(std::fs::metadata(temp.path().join("outside")).unwrap().nlink(), 1);
}

#[test]
fn hard_links_do_not_leave_the_target() {
    let temp = temp();
    make(temp.path(), &["outside"]);
    let to = temp.path().join("to");
    let (target, root) = open(&to, false);
    for path in [&b"../outside"[..], b"/etc/passwd", b"..", b".", b"", b"none"] {
        assert!(root.link(&name(b"g"), &target, path).is_err(), "{path:?}");
    }
    assert!(!to.join("g").exists());
    assert_eq!(std::fs::metadata(temp.path().join("outside")).unwrap().nlink(), 1);
}

#[test]
fn a_hard_link_to_what_took_the_place_of_a_file_is_taken_back() {
    let temp = temp();
    make(temp.path(), &["secret"]);
    let to = temp.path().join("to");
    let (target, root) = open(&to, false);
    let made = root.create_file(&name(b"f")).unwrap();
    made.identity().unwrap();
    made.finish(&file(b"f", 0)).unwrap();
    root.link(&name(b"good"), &target, b"f").unwrap();
    std::fs::remove_file(to.join("f")).unwrap();
    std::fs::hard_link(temp.path().join("secret"), to.join("f")).unwrap();
    let error = root.link(&name(b"bad"), &target, b"f").unwrap_err().to_string();
    assert!(error.contains("something else has taken the place"), "{error}");
    assert!(to.join("good").exists() && !to.join("bad").exists());
}

#[test]
fn nothing_is_readable_for_others_before_it_is_finished() {
    let temp = temp();
    let to = temp.path().join("to");
    let (_, root) = open(&to, false);
    let d = root.create_directory(&name(b"d")).unwrap();
    let f = d.create_file(&name(b"f")).unwrap();
    let mode = |path: &str| std::fs::metadata(to.join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(""), mode("d"), mode("d/f")), (0o700, 0o700, 0o600));
    f.finish(&file(b"f", 0)).unwrap();
    d.finish(&directory(b"d")).unwrap();
    assert_eq!((mode("d"), mode("d/f")), (0o755, 0o644));
}

#[test]
fn a_file_that_is_dropped_before_it_is_finished_is_gone() {
    let temp = temp();
    let to = temp.path().join("to");
    let (_, root) = open(&to, false);
    drop(root.create_file(&name(b"f")).unwrap());
    root.create_file(&name(b"g")).unwrap().discard();
    assert_eq!(std::fs::read_dir(&to).unwrap().count(), 0);
    // But not what has taken its name.
    let f = root.create_file(&name(b"f")).unwrap();
    std::fs::remove_file(to.join("f")).unwrap();
    std::fs::write(to.join("f"), "another's").unwrap();
    drop(f);
    assert_eq!(std::fs::read(to.join("f")).unwrap(), b"another's");
}

#[test]
fn a_target_that_holds_something_is_refused() {
    let temp = temp();
    make(temp.path(), &["to/f", "empty/", "file"]);
    let error = Target::open(&temp.path().join("to"), false).err().unwrap().to_string();
    assert!(error.contains("is not empty"), "{error}");
    assert!(Target::open(&temp.path().join("empty"), false).is_ok());
    assert!(Target::open(&temp.path().join("file"), true).is_err());
}

#[test]
fn only_empty_directories_make_way() {
    let temp = temp();
    make(temp.path(), &["to/full/f", "to/empty/"]);
    let (_, root) = open(&temp.path().join("to"), true);
    put(&root, &file(b"empty", 1), b"x");
    let error = root.create_file(&name(b"full")).err().unwrap().to_string();
    assert!(error.contains("a directory that is not empty is in the way"), "{error}");
    assert!(temp.path().join("to/full/f").exists());
}

/// Sets the immutable flag, or takes it away, and says whether it was there.
fn set_immutable(path: &Path, is_immutable: bool) -> bool {
    use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
    let file = std::fs::File::open(path).unwrap();
    let had = ioctl_getflags(&file).unwrap();
    let wanted = if is_immutable { had | IFlags::IMMUTABLE } else { had - IFlags::IMMUTABLE };
    ioctl_setflags(&file, wanted).unwrap();
    had.contains(IFlags::IMMUTABLE)
}

#[test]
fn another_name_of_what_is_replaced_keeps_its_flags() {
    if !is_root() {
        return;
    }
    let temp = temp();
    make(temp.path(), &["outside/f", "to/"]);
    let (outside, inside) = (temp.path().join("outside/f"), temp.path().join("to/f"));
    std::fs::hard_link(&outside, &inside).unwrap();
    set_immutable(&outside, true);
    let (_, root) = open(&temp.path().join("to"), true);
    put(&root, &file(b"f", 3), b"new");
    assert_eq!(std::fs::read(&inside).unwrap(), b"new");
    assert_eq!(std::fs::read(&outside).unwrap(), b"outside/f");
    assert!(set_immutable(&outside, false));
    assert!(!set_immutable(&inside, false));
}

#[test]
fn a_directory_that_is_only_on_the_way_gets_back_what_kept_it_from_being_written() {
    if !is_root() {
        return;
    }
    let temp = temp();
    make(temp.path(), &["to/left/f", "to/dropped/f"]);
    let path = |name: &str| temp.path().join("to").join(name);
    let (_, root) = open(&temp.path().join("to"), true);
    for (place, is_left) in [("left", true), ("dropped", false)] {
        std::fs::set_permissions(path(place), PermissionsExt::from_mode(0o555)).unwrap();
        set_immutable(&path(place), true);
        let d = root.create_directory(&name(place.as_bytes())).unwrap();
        put(&d, &file(b"f", 3), b"new");
        assert!(!set_immutable(&path(place), false));
        if is_left {
            assert_eq!(d.leave().unwrap(), [] as [&str; 0]);
        }
        drop(d);
        assert_eq!(std::fs::read(path(place).join("f")).unwrap(), b"new");
        assert_eq!(std::fs::metadata(path(place)).unwrap().mode() & 0o7777, 0o555);
        assert!(set_immutable(&path(place), false), "{place}");
    }
}

#[test]
fn an_extraction_that_fails_takes_back_the_directories_that_it_made() {
    let temp = temp();
    make(temp.path(), &["there/"]);
    let [new, there, used] = ["a/b/to", "there/c/../c/to", "there/used"].map(|path| temp.path().join(path));
    open(&new, false).0.give_up();
    open(&there, true).0.give_up();
    assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 1);
    assert_eq!(std::fs::read_dir(temp.path().join("there")).unwrap().count(), 0);
    let (target, root) = open(&used, false);
    put(&root, &file(b"f", 1), b"x");
    target.give_up();
    assert!(used.join("f").exists());
}

#[test]
fn flags_are_not_set_on_what_took_the_place() {
    let temp = temp();
    let to = temp.path().join("to");
    let (target, root) = open(&to, false);
    let mut immutable = file(b"f", 0);
    immutable.attributes.flags = 0x10;
    root.create_file(&name(b"f")).unwrap().finish(&immutable).unwrap();
    make(&to, &["another's"]);
    std::fs::rename(to.join("another's"), to.join("f")).unwrap();
    let problems = target.finish();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].1.contains("the file flags cannot be set"), "{problems:?}");
    std::fs::write(to.join("f"), "still another's").unwrap();
}

#[test]
fn an_entry_that_holds_something_else_than_its_kind_is_refused() {
    let temp = temp();
    let (_, root) = open(&temp.path().join("to"), false);
    let wrong = entry(b"f", Kind::Fifo, 0o644, Holds::Device { major: 1, minor: 3 });
    root.create_special(&wrong).unwrap();
    assert!(!temp.path().join("to/f").metadata().unwrap().file_type().is_file());
    let wrong = entry(b"d", Kind::CharDevice, 0o644, Holds::Nothing);
    assert!(root.create_special(&wrong).is_err());
    assert!(root.create_special(&file(b"g", 0)).is_err());
}

#[test]
fn a_partner_who_swaps_directories_for_links_gets_nothing() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let temp = temp();
    make(temp.path(), &["outside/", "to/"]);
    let to = temp.path().join("to");
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let _ = std::fs::rename(to.join("d"), to.join("moved"));
                let _ = std::os::unix::fs::symlink("../outside", to.join("d"));
                let _ = std::fs::remove_file(to.join("d"));
                let _ = std::fs::remove_dir_all(to.join("moved"));
            }
        });
        let (target, root) = open(&to, true);
        for _ in 0..2000 {
            let Ok(d) = root.create_directory(&name(b"d")) else { continue };
            if let Ok(f) = d.create_file(&name(b"f")) {
                let _ = f.finish(&file(b"f", 0));
            }
            let _ = root.link(&name(b"g"), &target, b"d/f");
            let _ = d.finish(&directory(b"d"));
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert_eq!(std::fs::read_dir(temp.path().join("outside")).unwrap().count(), 0);
}

/// The path of a part comes from whoever wrote the snapshot.
#[test]
fn a_target_below_is_never_above() {
    let temp = tempfile::tempdir().unwrap();
    let victim = temp.path().join("victim");
    std::fs::create_dir(&victim).unwrap();
    std::fs::create_dir(temp.path().join("target")).unwrap();
    std::os::unix::fs::symlink(&victim, temp.path().join("target/link")).unwrap();
    let target = Target::open(&temp.path().join("target"), true).unwrap();
    for path in [&b"../victim"[..], b"a/../../victim", b"/..", b".", b"link", b"link/x"] {
        assert!(target.below(path, true, true).is_err(), "{}", String::from_utf8_lossy(path));
        assert!(target.below(path, false, true).is_err() || path.starts_with(b"a/"));
    }
    assert!(target.below(b"a/b", true, true).unwrap().is_some());
    assert_eq!(std::fs::read_dir(&victim).unwrap().count(), 0);
}
