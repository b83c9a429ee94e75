//! Streams that are cut off, spoilt or full of holes.

use std::ops::Range;
use std::sync::Arc;

use diptych_decoder::Archive;
use diptych_format::{Change, Class, Entry, Error, ReadAt, Result, Status};

use super::build::*;
use super::reading::{List, list, read};
use super::verifying::faults_of;

/// What no digest in the stream covers, and what nothing else in it tells: ctime, inode number and status.
fn covered(entry: &Entry) -> Entry {
    Entry { change: Change::default(), status: Status::COMPLETE, ..entry.clone() }
}

type Listing = Vec<(Vec<u8>, Entry, Option<Vec<u8>>)>;

/// Everything that an archive says, read in one go; an error where anything is at fault.
fn whole(archive: &Archive, payload: &dyn ReadAt) -> Result<Listing> {
    let listed = list(archive)?;
    if let Some((_, error)) = listed.damaged.into_iter().next() {
        return Err(error);
    }
    archive.owners()?;
    let contents = listed.entries.into_iter().map(|(path, found)| {
        let content = read(archive, &found, payload).ok();
        (path, covered(&found.entry), content)
    });
    Ok(contents.collect())
}

fn small() -> Built {
    let root = dir(
        "",
        vec![
            file("a", b"first").xattr("user.x", b"y"),
            sparse("gaps", 300, &[(2, 100), (103, 190)], b"xyzabcdefg"),
            symlink("way", "a"),
            dir("sub", vec![file("b", b"linked"), file("large", b"1").xattr("user.l", &[7; 2100])]),
            file("b", b"linked"),
        ],
    );
    let (_, links, owners) = everything();
    build_with(&root, &links, &owners, Cut::Every(3))
}

#[test]
fn no_flipped_byte_makes_wrong_data_pass() {
    let built = small();
    let right = whole(&built.open().unwrap(), &built.payload).unwrap();
    let (mut flips, mut unseen) = (0, 0);
    for position in 0..built.metadata.len() {
        for flip in [1 << (position % 8), 0xff].into_iter().take(1 + usize::from(position % 3 == 0)) {
            let mut spoilt = built.clone();
            spoilt.metadata[position] ^= flip;
            flips += 1;
            let Ok(archive) = spoilt.open() else { continue };
            let listed = whole(&archive, &built.payload);
            for (path, entry, _) in &right {
                // A look-up gives what is right, or none, or an error.
                if let Ok(Some(found)) = archive.lookup(path) {
                    let (mut found, mut entry) = (covered(&found.entry), entry.clone());
                    if found.holes.len() == entry.holes.len() {
                        (found.holes, entry.holes) = Default::default();
                    }
                    assert_eq!(found, entry, "byte {position}");
                }
            }
            let is_seen = !faults_of(&archive, Some(&built.payload)).0.is_whole();
            match listed {
                Ok(listed) if listed == right => unseen += usize::from(!is_seen),
                _ => assert!(is_seen, "byte {position} ^ {flip:#x} passes"),
            }
        }
    }
    // Little is without effect: ctimes, inode numbers, owners, what is ignorable.
    assert!(unseen < flips / 8, "{unseen} of {flips} flips");
}

#[test]
fn every_prefix_is_truncated() {
    let built = small();
    for length in 0..built.metadata.len() {
        let prefix = built.metadata[..length].to_vec();
        let error = Archive::open(Arc::new(prefix)).err().unwrap();
        assert_eq!(error.class, Class::Truncated, "{length}: {error}");
    }
}

/// A stream of which a range cannot be read.
struct Holey {
    bytes: Vec<u8>,
    missing: Range<u64>,
}

impl ReadAt for Holey {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let end = offset + buf.len() as u64;
        match self.missing.start < end && offset < self.missing.end {
            true => Err(Error::missing("a chunk is not there")),
            false => self.bytes.read_exact_at(buf, offset),
        }
    }
}

#[test]
fn what_is_beside_a_missing_table_is_had() {
    let root = dir(
        "",
        vec![
            dir("a", vec![file("x", b"x"), dir("below", vec![file("y", b"y")])]),
            dir("b", vec![file("z", b"zz")]),
            file("c", b"c"),
        ],
    );
    let mut writer = Writer::new(Cut::Rule);
    writer.directory(&root.children[0].children[0]);
    let from = writer.out.len() as u64;
    let built = build(&root);
    // The table of "a" stands behind that of "a/below".
    let missing = from..from + 8;
    let archive = Archive::open(Arc::new(Holey { bytes: built.metadata.clone(), missing })).unwrap();
    let listed = list(&archive).unwrap();
    let paths: Vec<_> = listed.entries.iter().map(|(path, _)| String::from_utf8_lossy(path)).collect();
    assert_eq!(paths, ["", "c", "a", "b", "b/z"]);
    assert_eq!(listed.left.len(), 3);
    let [(path, error)] = &listed.damaged[..] else { panic!() };
    assert_eq!((&path[..], error.class), (&b"a"[..], Class::Missing));
    assert_eq!(listed.entries.iter().find(|(path, _)| path == b"b/z").unwrap().1.payload_start, 3);

    let (stats, faults) = faults_of(&archive, Some(&built.payload));
    assert_eq!((stats.damaged, faults[0].0.as_str(), stats.entries), (1, "a", 5));
    assert_eq!(archive.lookup(b"a/x").unwrap_err().class, Class::Missing);
    assert!(archive.lookup(b"b/z").unwrap().is_some());
}

#[test]
fn other_pieces_are_had_beside_a_missing_one() {
    let names: Vec<_> = (0..20).map(|i| file(&format!("{i:02}"), b"1")).collect();
    let built = build_with(&dir("", names), &[], &Default::default(), Cut::Every(4));
    // The first piece begins where the header ends.
    let missing = 32..40;
    let archive = Archive::open(Arc::new(Holey { bytes: built.metadata, missing })).unwrap();
    let List { entries, damaged, .. } = list(&archive).unwrap();
    assert_eq!((entries.len(), damaged.len()), (1 + 16, 1));
    assert_eq!(entries[1].0, b"04");
    assert_eq!(entries[1].1.payload_start, 4);
}
