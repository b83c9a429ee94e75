//! A tree and its copy are the same, whatever the target's place hands down to it.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, FileType, XattrFlags, mknodat, setxattr};

use crate::support::{as_nobody, copy, is_root, make, os, owned_by_nobody, temp, tool, tree};

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

fn mtime(path: &Path, seconds: i64, nanoseconds: u32) {
    let since = Duration::new(seconds.unsigned_abs(), 0);
    let moment = if seconds < 0 { SystemTime::UNIX_EPOCH - since } else { SystemTime::UNIX_EPOCH + since };
    File::open(path).unwrap().set_modified(moment + Duration::new(0, nanoseconds)).unwrap();
}

fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0];
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes().iter().chain(&permissions.to_le_bytes()).chain(&id.to_le_bytes()));
    }
    bytes
}

/// User and group objects, one user by name, a mask, others.
fn named_acl() -> Vec<u8> {
    let none = u32::MAX;
    acl(&[(1, 6, none), (2, 7, 4321), (4, 4, none), (0x10, 5, none), (0x20, 0, none)])
}

/// A tree with everything that any user may make.
fn everything(root: &Path) {
    make(root, &["a/b/c", "a/empty/", "a/x -> ../nowhere", "a/b/long", "ro/f", "plain"]);
    std::fs::write(root.join(os(b"a/\xff\xfe")), "not text").unwrap();
    std::fs::write(root.join("large"), vec![7; 300_000]).unwrap();
    let sparse = File::create(root.join("sparse")).unwrap();
    sparse.set_len(1 << 20).unwrap();
    sparse.write_all_at(b"middle", 500_000).unwrap();
    mknodat(CWD, root.join("pipe"), FileType::Fifo, 0o600.into(), 0).unwrap();
    mode(&root.join("pipe"), 0o622);
    std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    for (first, second) in [("large", "a/large"), ("a/x", "x"), ("pipe", "a/pipe")] {
        std::fs::hard_link(root.join(first), root.join(second)).unwrap();
    }
    for (name, mode) in [("plain", 0o4755), ("a/b/c", 0o000), ("a/b", 0o1777), ("a/empty", 0o2750)] {
        self::mode(&root.join(name), mode);
    }
    let _ = setxattr(root.join("ro/f"), "user.name", b"value", XattrFlags::empty());
    let _ = setxattr(root.join("ro"), "user.name", b"", XattrFlags::empty());
    let _ = setxattr(root.join("large"), "system.posix_acl_access", &named_acl(), XattrFlags::empty());
    let _ = setxattr(root.join("a"), "system.posix_acl_default", &named_acl(), XattrFlags::empty());
    mode(&root.join("ro/f"), 0o444);
    mtime(&root.join("large"), -5, 999_999_999);
    mtime(&root.join("plain"), 5_000_000_000, 1);
    mode(&root.join("ro"), 0o555);
    for directory in ["a/b", "a", "ro", ""] {
        mtime(&root.join(directory), 1_000_000, 5);
    }
}

/// What only root may make.
fn everything_of_root(root: &Path) {
    make(root, &["owned/f", "owned/g", "owned/l -> f", "flags/i", "flags/a", "flags/d/x", "flags/d/j"]);
    chown(root.join("owned/f"), Some(1001), Some(1002)).unwrap();
    chown(root.join("owned/g"), Some(0), Some(1002)).unwrap();
    std::os::unix::fs::lchown(root.join("owned/l"), Some(1003), Some(1004)).unwrap();
    mode(&root.join("owned/f"), 0o6755);
    mode(&root.join("owned/g"), 0o2755);
    mknodat(CWD, root.join("null"), FileType::CharacterDevice, 0o600.into(), rustix::fs::makedev(1, 3))
        .unwrap();
    mode(&root.join("null"), 0o666);
    chown(root.join("null"), Some(5), Some(6)).unwrap();
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    setxattr(root.join("owned/g"), "security.capability", &capability, XattrFlags::empty()).unwrap();
    setxattr(root.join("owned/g"), "trusted.t", b"t", XattrFlags::empty()).unwrap();
    rustix::fs::lsetxattr(root.join("owned/l"), "trusted.l", b"l", XattrFlags::empty()).unwrap();
    std::fs::hard_link(root.join("flags/i"), root.join("flags/second")).unwrap();
    for (flags, path) in [("+i", "flags/i"), ("+a", "flags/a"), ("+dA", "flags/d/x"), ("+id", "flags/d")] {
        assert!(tool("chattr", &[flags], &root.join(path)));
    }
}

/// Flags that forbid to remove a tree.
fn release(root: &Path) {
    if is_root() {
        tool("chattr", &["-R", "-f", "-ia"], root);
    }
}

fn compare(from: &Path, to: &Path) {
    let (from_tree, to_tree) = (tree(from), tree(to));
    for (path, entry) in &from_tree {
        let Some(other) = to_tree.get(path) else { panic!("{path} is missing") };
        assert_eq!(entry, other, "{path}");
    }
    assert_eq!(from_tree.len(), to_tree.len());
}

fn make_source(root: &Path) {
    std::fs::create_dir(root).unwrap();
    if is_root() {
        everything_of_root(root);
    }
    everything(root);
    if !is_root() {
        // Nobody else could read it back.
        mode(&root.join("a/b/c"), 0o400);
    }
}

#[test]
fn a_tree_and_its_copy_are_the_same() {
    let temp = temp();
    let (from, to) = (temp.path().join("from"), temp.path().join("a/target/to"));
    make_source(&from);
    assert_eq!(copy(&from, &to, false), [] as [&str; 0]);
    compare(&from, &to);
    let inode = |path: &str| std::fs::symlink_metadata(to.join(path)).unwrap().ino();
    assert_eq!(
        (inode("large"), inode("x"), inode("pipe")),
        (inode("a/large"), inode("a/x"), inode("a/pipe"))
    );
    // And once more over the copy, whatever its flags forbid.
    assert_eq!(copy(&from, &to, true), [] as [&str; 0]);
    compare(&from, &to);
    release(temp.path());
}

#[test]
fn a_copy_has_nothing_that_the_target_hands_down() {
    let temp = temp();
    let (from, to) = (temp.path().join("from"), temp.path().join("to"));
    make_source(&from);
    std::fs::create_dir(&to).unwrap();
    let _ = setxattr(&to, "system.posix_acl_default", &named_acl(), XattrFlags::empty());
    let _ = setxattr(&to, "user.other", b"x", XattrFlags::empty());
    if is_root() {
        assert!(tool("chattr", &["+dAS"], &to));
        chown(&to, Some(77), Some(78)).unwrap();
    }
    mode(&to, 0o2777);
    assert_eq!(copy(&from, &to, false), [] as [&str; 0]);
    compare(&from, &to);
    release(temp.path());
}

#[test]
fn a_default_acl_that_shuts_owners_out_does_not_keep_a_copy_from_being_made() {
    let temp = temp();
    let (from, to) = (temp.path().join("from"), temp.path().join("work/to"));
    owned_by_nobody(&temp.path().join("work"));
    make(&from, &["a/b/c"]);
    as_nobody(|| {
        std::fs::create_dir(&to).unwrap();
        let minimal = acl(&[(1, 6, u32::MAX), (4, 0, u32::MAX), (0x20, 0, u32::MAX)]);
        let _ = setxattr(&to, "system.posix_acl_default", &minimal, XattrFlags::empty());
        let problems = copy(&from, &to, false);
        // Who may not give files away is told so, and nothing else.
        assert!(problems.iter().all(|problem| problem.contains("the owner")), "{problems:?}");
    });
    assert!(rustix::fs::getxattr(to.join("a"), "system.posix_acl_default", &mut [0u8; 100][..]).is_err());
    assert_eq!(std::fs::read(to.join("a/b/c")).unwrap(), b"a/b/c");
}

#[test]
fn overwriting_merges_directories_and_replaces_all_else() {
    let temp = temp();
    let (from, to) = (temp.path().join("from"), temp.path().join("to"));
    make_source(&from);
    make(
        &to,
        &["a/kept", "a/x/", "plain/", "large -> ../outside", "ro -> a", "sparse", "a/b/c -> kept", "socket"],
    );
    make(temp.path(), &["outside"]);
    std::fs::hard_link(temp.path().join("outside"), to.join("pipe")).unwrap();
    let _ = setxattr(to.join("a"), "user.stale", b"x", XattrFlags::empty());
    let _ = setxattr(to.join("a"), "system.posix_acl_default", &named_acl(), XattrFlags::empty());
    assert_eq!(copy(&from, &to, true), [] as [&str; 0]);
    assert_eq!(std::fs::read(to.join("a/kept")).unwrap(), b"a/kept");
    assert_eq!(std::fs::read(temp.path().join("outside")).unwrap(), b"outside");
    std::fs::remove_file(to.join("a/kept")).unwrap();
    mtime(&to.join("a"), 1_000_000, 5);
    compare(&from, &to);
    release(temp.path());
}

#[test]
fn a_tree_is_copied_without_the_rights_of_root() {
    let temp = temp();
    let work = temp.path().join("work");
    owned_by_nobody(&work);
    as_nobody(|| {
        let (from, to) = (work.join("from"), work.join("to"));
        std::fs::create_dir(&from).unwrap();
        everything(&from);
        mode(&from.join("a/b/c"), 0o400);
        assert_eq!(copy(&from, &to, false), [] as [&str; 0]);
        compare(&from, &to);
        // Directories that their owner may not write are made so that they can be written over.
        assert_eq!(copy(&from, &to, true), [] as [&str; 0]);
        compare(&from, &to);
    });
}

#[test]
fn what_only_root_may_do_is_told_and_all_else_done() {
    if !is_root() {
        return;
    }
    let temp = temp();
    let (from, work) = (temp.path().join("from"), temp.path().join("work"));
    std::fs::create_dir(&from).unwrap();
    everything_of_root(&from);
    owned_by_nobody(&work);
    let to = work.join("to");
    let problems = as_nobody(|| copy(&from, &to, false));
    let told = |path: &str, what: &str| {
        let prefix = format!("{path}: {what}");
        assert!(problems.iter().any(|problem| problem.starts_with(&prefix)), "{prefix}\n{problems:#?}");
    };
    told("owned/f", "the owner 1001:1002 cannot be set: Operation not permitted");
    told("owned/f", "set-id bits are left out");
    told("owned/g", "the extended attribute security.capability cannot be set");
    told("owned/l", "the owner 1003:1004 cannot be set");
    told("null", "cannot be made: Operation not permitted");
    told("flags/i", "the file flags");
    let bits = |path: &str| std::fs::metadata(to.join(path)).unwrap().mode() & 0o7777;
    assert_eq!((bits("owned/f"), bits("owned/g")), (0o755, 0o755));
    assert_eq!(std::fs::read(to.join("owned/f")).unwrap(), b"owned/f");
    assert!(to.join("flags/second").exists());
    release(temp.path());
}

#[test]
fn paths_far_beyond_what_the_kernel_takes_are_written() {
    let temp = temp();
    let (from, to) = (temp.path().join("from"), temp.path().join("to"));
    std::fs::create_dir(&from).unwrap();
    let mut at = File::open(&from).unwrap();
    for _ in 0..300 {
        rustix::fs::mkdirat(&at, "a-name-of-some-length", 0o700.into()).unwrap();
        at = rustix::fs::openat(&at, "a-name-of-some-length", rustix::fs::OFlags::DIRECTORY, 0.into())
            .unwrap()
            .into();
    }
    let last = rustix::fs::openat(&at, "f", rustix::fs::OFlags::CREATE, 0o600.into()).unwrap();
    rustix::fs::linkat(&at, "f", &at, "g", rustix::fs::AtFlags::empty()).unwrap();
    if is_root() {
        let flags = rustix::fs::ioctl_getflags(&last).unwrap() | rustix::fs::IFlags::IMMUTABLE;
        rustix::fs::ioctl_setflags(&last, flags).unwrap();
    }
    assert_eq!(copy(&from, &to, false), [] as [&str; 0]);
    compare(&from, &to);
    let open = |flags| {
        let mut at = File::open(&to).unwrap();
        for _ in 0..300 {
            at = rustix::fs::openat(&at, "a-name-of-some-length", rustix::fs::OFlags::DIRECTORY, 0.into())
                .unwrap()
                .into();
        }
        rustix::fs::openat(&at, "f", flags, 0.into()).unwrap()
    };
    for fd in [&last, &open(rustix::fs::OFlags::RDONLY)] {
        if is_root() {
            let flags = rustix::fs::ioctl_getflags(fd).unwrap();
            assert!(flags.contains(rustix::fs::IFlags::IMMUTABLE));
            rustix::fs::ioctl_setflags(fd, flags - rustix::fs::IFlags::IMMUTABLE).unwrap();
        }
    }
}
