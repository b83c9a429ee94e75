//! Entries and contents, as the tree stands and as it changes under the reader.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use diptych_format::{Entry, Holds, Hole, Kind, Status};
use diptych_localfs::capture::{Absent, Captured, Part, capture};
use diptych_localfs::scan::{Found, Step};
use diptych_localfs::select::Selection;

use crate::support::{Recorder, as_nobody, begin, is_root, make, name, owned_by_nobody, read, temp, tool};

/// What the scan finds in a directory, in order.
fn found(root: &Path) -> Vec<Found> {
    let (mut scan, _) = begin(root, Selection::default(), 1);
    let mut all = Vec::new();
    while let Some(step) = scan.next().unwrap() {
        if let Step::Entries(found) = step {
            all.extend(found);
        }
    }
    all
}

fn one(root: &Path) -> Found {
    let all = found(root);
    assert_eq!(all.len(), 1);
    all.into_iter().next().unwrap()
}

fn captured(found: &Found) -> (Entry, Vec<u8>, Vec<String>) {
    let recorder = Recorder::default();
    let (entry, bytes) = read(capture(found, &recorder).unwrap(), &recorder);
    (entry, bytes, recorder.lines())
}

#[test]
fn every_kind() {
    let temp = temp();
    make(temp.path(), &["file", "link -> some/where"]);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        temp.path().join("pipe"),
        rustix::fs::FileType::Fifo,
        0o640.into(),
        0,
    )
    .unwrap();
    std::os::unix::net::UnixListener::bind(temp.path().join("socket")).unwrap();
    let entries: Vec<Entry> = found(temp.path()).iter().map(|found| captured(found).0).collect();
    let kinds: Vec<Kind> = entries.iter().map(|entry| entry.kind().unwrap()).collect();
    assert_eq!(kinds, [Kind::File, Kind::Symlink, Kind::Fifo, Kind::Socket]);
    assert_eq!(entries[1].holds, Holds::Target((*b"some/where").into()));
    assert!(matches!(entries[0].holds, Holds::Content { size: 4, .. }));
    assert!(entries.iter().all(|entry| entry.status.is_complete() && entry.change.inode != 0));
}

#[test]
fn devices() {
    let temp = temp();
    let make = |name: &str, kind, device| {
        rustix::fs::mknodat(rustix::fs::CWD, temp.path().join(name), kind, 0o600.into(), device)
    };
    let device = rustix::fs::makedev(7, 200);
    if make("b", rustix::fs::FileType::BlockDevice, device).is_err() {
        return;
    }
    let entry = captured(&one(temp.path())).0;
    assert_eq!(
        (entry.kind().unwrap(), entry.holds),
        (Kind::BlockDevice, Holds::Device { major: 7, minor: 200 })
    );
}

#[test]
fn extended_attributes_are_sorted_and_whole() {
    let temp = temp();
    make(temp.path(), &["file"]);
    let path = temp.path().join("file");
    let long = vec![b'v'; 2000];
    let set = |name: &str, value: &[u8]| {
        rustix::fs::setxattr(&path, name, value, rustix::fs::XattrFlags::empty()).is_ok()
    };
    if !set("user.z", b"") {
        return;
    }
    assert!(set("user.a\n", b"\0\xff") && set("user.long", &long));
    let (entry, _, problems) = captured(&one(temp.path()));
    let xattrs: Vec<(&[u8], &[u8])> = entry.attributes.xattrs.iter().map(|x| (&*x.name, &*x.value)).collect();
    assert_eq!(xattrs, [(&b"user.a\n"[..], &b"\0\xff"[..]), (b"user.long", &long[..]), (b"user.z", b"")]);
    assert_eq!(problems, [] as [&str; 0]);
}

#[test]
fn links_have_extended_attributes_too() {
    let temp = temp();
    make(temp.path(), &["link -> nowhere"]);
    let path = temp.path().join("link");
    if rustix::fs::lsetxattr(&path, "trusted.t", b"v", rustix::fs::XattrFlags::empty()).is_err() {
        return;
    }
    let entry = captured(&one(temp.path())).0;
    assert_eq!(entry.attributes.xattrs.len(), 1);
    assert_eq!(&*entry.attributes.xattrs[0].name, b"trusted.t");
}

#[test]
fn flags() {
    let temp = temp();
    make(temp.path(), &["file"]);
    if !is_root() || !tool("chattr", &["+dA"], &temp.path().join("file")) {
        return;
    }
    let entry = captured(&one(temp.path())).0;
    // No-dump and no-atime; what says how the file system keeps it is masked.
    assert_eq!(entry.attributes.flags, 0x40 | 0x80);
}

#[test]
fn sparse_files() {
    let temp = temp();
    let size = 64 * 4096 + 100;
    let file = std::fs::File::create(temp.path().join("sparse")).unwrap();
    file.set_len(size).unwrap();
    file.write_all_at(&[1; 5000], 8 * 4096 - 10).unwrap();
    file.write_all_at(&[2; 1], 40 * 4096 + 7).unwrap();
    let found = one(temp.path());
    let (entry, bytes, problems) = captured(&found);
    assert_eq!(bytes, std::fs::read(temp.path().join("sparse")).unwrap());
    assert_eq!(problems, [] as [&str; 0]);
    if capture(&found, &Recorder::default()).unwrap().content.unwrap().is_sparse() {
        let holes: u64 = entry.holes.iter().map(|hole| hole.length).sum();
        assert!(
            entry.holes.len() == 3 && entry.holes[0].start == 0 && holes > 50 * 4096,
            "{:?}",
            entry.holes
        );
    }
}

#[test]
fn a_file_of_one_hole() {
    let temp = temp();
    std::fs::File::create(temp.path().join("hole")).unwrap().set_len(1 << 40).unwrap();
    let recorder = Recorder::default();
    let mut content = capture(&one(temp.path()), &recorder).unwrap().content.unwrap();
    let mut buf = Vec::new();
    assert_eq!(content.read(&mut buf, 4096), Part::Hole(1 << 40));
    assert_eq!(content.read(&mut buf, 4096), Part::End);
    assert_eq!(content.finish(&recorder).holes, [Hole { start: 0, length: 1 << 40 }]);
}

#[test]
fn a_file_that_grows_or_shrinks_after_the_scan() {
    for (change, kept) in [(8, 10), (-4, 6)] {
        let temp = temp();
        let path = temp.path().join("file");
        std::fs::write(&path, "0123456789").unwrap();
        let found = one(temp.path());
        let new = 10 + change;
        OpenOptions::new().write(true).open(&path).unwrap().set_len(new as u64).unwrap();
        let (entry, bytes, problems) = captured(&found);
        assert_eq!((bytes.len(), entry.status), (kept, Status::CHANGED));
        assert_eq!(problems, [format!("!file: changed while it was read: from 10 to {new} bytes")]);
        // Another look sees it as it is now.
        let again = found.again().unwrap();
        let (entry, bytes, problems) = captured(&again);
        assert_eq!((bytes.len(), entry.status, problems.len()), (new as usize, Status::COMPLETE, 0));
    }
}

#[test]
fn a_file_that_changes_while_it_is_read() {
    let temp = temp();
    let path = temp.path().join("file");
    std::fs::write(&path, vec![1; 100_000]).unwrap();
    let recorder = Recorder::default();
    let Captured { content, .. } = capture(&one(temp.path()), &recorder).unwrap();
    let mut content = content.unwrap();
    let mut buf = Vec::new();
    assert_eq!(content.read(&mut buf, 50_000), Part::Data(50_000));
    OpenOptions::new().write(true).open(&path).unwrap().write_all(b"new").unwrap();
    assert_eq!(content.read(&mut buf, 1 << 20), Part::Data(50_000));
    assert_eq!(content.read(&mut buf, 1 << 20), Part::End);
    assert_eq!(content.finish(&recorder).status, Status::CHANGED);
    assert_eq!(recorder.lines(), ["!file: changed while it was read"]);
}

#[test]
fn a_file_that_is_replaced() {
    let temp = temp();
    let path = temp.path().join("file");
    std::fs::write(&path, "old").unwrap();
    let found = one(temp.path());
    std::fs::write(temp.path().join("new"), "new").unwrap();
    std::fs::rename(temp.path().join("new"), &path).unwrap();
    let (entry, _, problems) = captured(&found);
    assert_eq!(entry.status, Status::CHANGED);
    assert_eq!(problems, ["!file: replaced while it was read: what was kept may be a mixture"]);
}

#[test]
fn a_file_whose_place_something_else_takes() {
    let temp = temp();
    let path = temp.path().join("file");
    let replace = |with: &str| {
        std::fs::write(&path, "0123456789").unwrap();
        let found = one(temp.path());
        std::fs::remove_file(&path).unwrap();
        make(temp.path(), &[with]);
        found
    };
    // A link is not followed, a directory has no bytes, and a pipe does not block.
    let (entry, bytes, problems) = captured(&replace("file -> /etc/passwd"));
    assert!(entry.status.has(Status::NOT_READ) && bytes.is_empty());
    assert!(problems[0].starts_with("!file: cannot open it"), "{problems:?}");
    std::fs::remove_file(&path).unwrap();
    let (entry, bytes, _) = captured(&replace("file/"));
    assert!(entry.status.has(Status::CHANGED) && bytes.is_empty());
    std::fs::remove_dir(&path).unwrap();
    let found = replace("unrelated");
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let (entry, bytes, _) = captured(&found);
    assert!(entry.status.has(Status::CHANGED) && bytes.is_empty());
}

#[test]
fn what_vanishes_costs_nothing_and_is_told() {
    let temp = temp();
    make(temp.path(), &["file", "link -> x"]);
    let all = found(temp.path());
    for entry in ["file", "link"] {
        std::fs::remove_file(temp.path().join(entry)).unwrap();
    }
    let recorder = Recorder::default();
    assert!(all.iter().all(|found| capture(found, &recorder).err() == Some(Absent::Vanished) && found.again().is_none()));
    assert_eq!(recorder.lines(), ["file: vanished while scanning", "link: vanished while scanning"]);
}

#[test]
fn a_link_whose_place_a_file_takes() {
    let temp = temp();
    make(temp.path(), &["link -> x"]);
    let found = one(temp.path());
    std::fs::remove_file(temp.path().join("link")).unwrap();
    make(temp.path(), &["link"]);
    let recorder = Recorder::default();
    assert_eq!(capture(&found, &recorder).err(), Some(Absent::Lost));
    assert_eq!(recorder.lines(), ["!link: replaced by something else while scanning"]);
}

#[test]
fn a_file_that_may_not_be_read() {
    let temp = temp();
    let root = temp.path().join("root");
    owned_by_nobody(&root);
    let (entry, problems) = as_nobody(|| {
        make(&root, &["secret"]);
        std::fs::set_permissions(root.join("secret"), std::os::unix::fs::PermissionsExt::from_mode(0o0))
            .unwrap();
        let (entry, _, problems) = captured(&one(&root));
        (entry, problems)
    });
    assert!(entry.status.has(Status::NOT_READ) && entry.name == name(b"secret"));
    assert!(matches!(entry.holds, Holds::Content { size: 6, .. }));
    assert_eq!(problems, ["!secret: cannot open it: Permission denied (os error 13)"]);
}

#[test]
fn files_of_others_are_read_although_only_owners_may_hide_that() {
    let temp = temp();
    make(temp.path(), &["file"]);
    if is_root() {
        as_nobody(|| assert_eq!(captured(&one(temp.path())).1, b"file"));
    }
}
