//! Opening, walking, looking up.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use diptych_decoder::{Archive, Descend, Found, Part, Row, Visitor};
use diptych_format::table::Owners;
use diptych_format::{Class, Digest, Entry, Error, Holds, Kind, ReadAt, Result};

use super::build::*;

/// Notes all that it comes by, in order.
#[derive(Default)]
pub struct List {
    pub entries: Vec<(Vec<u8>, Found)>,
    pub left: Vec<Vec<u8>>,
    pub damaged: Vec<(Vec<u8>, Error)>,
    pub skip: Option<Vec<u8>>,
}

impl Visitor for List {
    fn enter(&mut self, path: &[u8], row: &Row<'_>) -> Result<Descend> {
        self.entry(path, row)?;
        Ok(if self.skip.as_deref() == Some(path) { Descend::Skip } else { Descend::Enter })
    }

    fn entry(&mut self, path: &[u8], row: &Row<'_>) -> Result<()> {
        let found = row.found()?;
        assert_eq!(row.name(), found.entry.name.as_bytes());
        assert_eq!(row.mode(), found.entry.attributes.mode);
        assert_eq!(row.mtime(), found.entry.mtime);
        assert_eq!(row.change(), found.entry.change);
        assert_eq!(row.has_xattrs(), !found.entry.attributes.xattrs.is_empty());
        assert_eq!(row.has_holes(), !found.entry.holes.is_empty());
        self.entries.push((path.to_vec(), found));
        Ok(())
    }

    fn leave(&mut self, path: &[u8], row: &Row<'_>) -> Result<()> {
        assert_eq!(row.kind(), Kind::Directory);
        assert!(path.ends_with(row.name()));
        self.left.push(path.to_vec());
        Ok(())
    }

    fn damaged(&mut self, path: &[u8], error: Error) -> Result<()> {
        self.damaged.push((path.to_vec(), error));
        Ok(())
    }
}

pub fn list(archive: &Archive) -> Result<List> {
    let mut list = List::default();
    archive.walk(&archive.root()?, b"", &mut list)?;
    Ok(list)
}

/// Entries as they were given: a directory's digest comes with its table.
pub fn bare(entry: &Entry) -> Entry {
    let mut entry = entry.clone();
    if let Holds::Entries { digest } = &mut entry.holds {
        *digest = Digest::NONE;
    }
    entry
}

pub fn read(archive: &Archive, found: &Found, payload: &dyn ReadAt) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    for part in archive.content(found)?.parts {
        match part {
            Part::Data { content_offset, payload_offset, length } => {
                assert_eq!(content_offset, all.len() as u64);
                let mut bytes = vec![0; length as usize];
                payload.read_exact_at(&mut bytes, payload_offset)?;
                all.extend(bytes);
            }
            Part::Hole { content_offset, length } => {
                assert_eq!(content_offset, all.len() as u64);
                all.resize(all.len() + length as usize, 0);
            }
        }
    }
    Ok(all)
}

/// Every way to come by an entry gives the entry that went in.
fn assert_reads_back(root: &Node, built: &Built, cut: Cut) {
    let archive = built.open().unwrap();
    let expected = expected(root, cut);
    let before = archive.tables_read();
    let listed = list(&archive).unwrap();
    let after = archive.tables_read();
    assert!(listed.damaged.is_empty(), "{:?}", listed.damaged);
    assert_eq!(listed.entries.len(), expected.len());
    assert_eq!(archive.trailer().entries, expected.len() as u64);
    let directories =
        expected.iter().filter(|(_, entry, _)| entry.kind().unwrap() == Kind::Directory).count();
    assert_eq!(listed.left.len(), directories);
    assert!(after - before <= 2 * expected.len() as u64);

    let mut payload_start = 0;
    // Of many entries not each is looked up.
    let step = expected.len() / 300 + 1;
    for (index, ((path, found), (expected_path, entry, payload))) in
        listed.entries.iter().zip(&expected).enumerate()
    {
        let shown = String::from_utf8_lossy(path);
        assert_eq!(path, expected_path);
        assert_eq!(bare(&found.entry), *entry, "{shown}");
        assert_eq!(found.payload_start, payload_start, "{shown}");
        payload_start += payload.len() as u64;
        if index % step != 0 {
            continue;
        }
        let looked_up = archive.lookup(path).unwrap().unwrap_or_else(|| panic!("{shown} is not found"));
        assert_eq!(looked_up.entry, found.entry, "{shown}");
        assert_eq!(looked_up.payload_start, found.payload_start, "{shown}");
        assert_eq!(looked_up.payload_length, found.payload_length, "{shown}");
        assert_eq!(looked_up.entries_below(), found.entries_below(), "{shown}");
        if let Holds::Content { size, digest } = entry.holds
            && digest != Digest::NONE
        {
            let bytes = read(&archive, found, &built.payload).unwrap();
            assert_eq!(bytes.len() as u64, size);
            let stood = if entry.holes.is_empty() { Digest::of(&bytes) } else { digest };
            assert_eq!(stood, digest, "{shown}");
        }
        assert!(archive.lookup(&[path, &b"/nothing"[..]].concat()).unwrap().is_none());
        assert!(archive.lookup(&[path, &b"!"[..]].concat()).unwrap().is_none());
    }
    assert_eq!(payload_start, archive.trailer().payload_length);
}

fn children_of(archive: &Archive, path: &str) -> Vec<String> {
    let found = archive.lookup(path.as_bytes()).unwrap().unwrap();
    let children = archive.children(&found).unwrap();
    children.iter().map(|child| String::from_utf8_lossy(child.entry.name.as_bytes()).into_owned()).collect()
}

#[test]
fn every_kind_reads_back() {
    let (root, links, owners) = everything();
    let built = build_with(&root, &links, &owners, Cut::Rule);
    assert_reads_back(&root, &built, Cut::Rule);
    let archive = built.open().unwrap();
    assert_eq!(archive.owners().unwrap(), owners);
    assert_eq!(children_of(&archive, "sub"), ["b", "deep", "deep-er", "z"]);
    assert_eq!(children_of(&archive, "a"), [""; 0]);
    for path in ["/", "//", "sub/", "/sub", "sub//b", "way/x", "~", "0", "sub/deep/w"] {
        assert!(archive.lookup(path.as_bytes()).unwrap().is_none(), "{path}");
    }
}

#[test]
fn links_are_found() {
    let (root, links, owners) = everything();
    let archive = build_with(&root, &links, &owners, Cut::Rule).open().unwrap();
    let links = archive.links();
    assert!(!links.is_empty().unwrap());
    assert_eq!(links.paths(), 2);
    assert_eq!(links.find(b"b").unwrap().unwrap().first, None);
    assert_eq!(links.find(b"sub/b").unwrap().unwrap().first.as_deref(), Some(&b"b"[..]));
    assert_eq!(links.find(b"a").unwrap(), None);
    let mut seen = Vec::new();
    links
        .for_each(&mut |path, first, count| {
            seen.push((path.to_vec(), first.to_vec(), count));
            Ok(())
        })
        .unwrap();
    assert_eq!(seen, [(b"b".to_vec(), b"b".to_vec(), 2), (b"sub/b".to_vec(), b"b".to_vec(), 2)]);
}

#[test]
fn many_links_are_found_in_pieces() {
    let rows: Vec<_> = (0..50)
        .flat_map(|i| [link(&format!("{i:03}"), "", 2), link(&format!("{i:03}x"), &format!("{i:03}"), 2)])
        .collect();
    let files = rows.iter().map(|row| file(std::str::from_utf8(&row.path).unwrap(), b"")).collect();
    let built = build_with(&dir("", files), &rows, &Owners::default(), Cut::Every(5));
    let links = built.open().unwrap().links();
    let mut count = 0;
    links
        .for_each(&mut |_, _, _| {
            count += 1;
            Ok(())
        })
        .unwrap();
    assert_eq!(count, 100);
    for row in &rows {
        assert_eq!(links.find(&row.path).unwrap().unwrap().count, 2);
        assert!(links.find(&[&row.path[..], b"!"].concat()).unwrap().is_none());
    }
    assert!(links.find(b"!").unwrap().is_none());
}

#[test]
fn a_tree_without_entries_reads_back() {
    let root = dir("", vec![]);
    let built = build(&root);
    assert_reads_back(&root, &built, Cut::Rule);
    let archive = built.open().unwrap();
    assert!(archive.links().is_empty().unwrap());
    assert!(archive.owners().unwrap() == Owners::default());
}

fn wide(count: usize) -> Node {
    let children = (0..count).map(|i| match i % 50 {
        0 => dir(&format!("{i:06}"), vec![file("inner", format!("in {i}").as_bytes()), file("more", b"..")]),
        _ => file(&format!("{i:06}"), format!("{i}").as_bytes()),
    });
    dir("", vec![dir("wide", children.collect()), file("zero", b"0")])
}

#[test]
fn large_directories_read_back_in_pieces() {
    for (count, cut) in [(5000, Cut::Rule), (130, Cut::Every(4)), (17, Cut::Every(2))] {
        let root = wide(count);
        let built = build_with(&root, &[], &Owners::default(), cut);
        assert_reads_back(&root, &built, cut);
        let archive = built.open().unwrap();
        for path in ["wide/!", "wide/000000!", "wide/000016/x", "wide/9"] {
            assert!(archive.lookup(path.as_bytes()).unwrap().is_none(), "{path}");
        }
        assert_eq!(children_of(&archive, "wide").len(), count);
    }
}

#[test]
fn a_lookup_reads_one_table_for_each_level() {
    let built = build_with(&wide(130), &[], &Owners::default(), Cut::Every(4));
    let archive = built.open().unwrap();
    assert_eq!(archive.tables_read(), 2, "opening reads the root and the link table");
    archive.lookup(b"zero").unwrap().unwrap();
    assert_eq!(archive.tables_read(), 3);
    archive.lookup(b"wide/000129").unwrap().unwrap();
    // 130 rows by four are three levels of index tables, and a piece.
    assert_eq!(archive.tables_read(), 3 + 1 + 4);
}

#[test]
fn a_walk_begins_anywhere_and_passes_over_what_is_not_wanted() {
    let (root, links, owners) = everything();
    let archive = build_with(&root, &links, &owners, Cut::Rule).open().unwrap();
    let sub = archive.lookup(b"sub").unwrap().unwrap();
    let mut visitor = List { skip: Some(b"sub/deep".to_vec()), ..List::default() };
    let before = archive.tables_read();
    archive.walk(&sub, b"sub", &mut visitor).unwrap();
    assert_eq!(archive.tables_read() - before, 2, "sub and sub/deep-er");
    let paths: Vec<_> = visitor.entries.iter().map(|(path, _)| String::from_utf8_lossy(path)).collect();
    assert_eq!(paths, ["sub", "sub/b", "sub/z", "sub/deep", "sub/deep-er", "sub/deep-er/y"]);
    assert_eq!(visitor.left, [&b"sub/deep-er"[..], b"sub"]);

    let single = archive.lookup(b"a").unwrap().unwrap();
    let mut visitor = List::default();
    archive.walk(&single, b"a", &mut visitor).unwrap();
    assert_eq!(visitor.entries.len(), 1);
}

#[test]
fn content_that_was_not_read_is_missing() {
    let (root, links, owners) = everything();
    let archive = build_with(&root, &links, &owners, Cut::Rule).open().unwrap();
    let class = |path: &[u8]| {
        let found = archive.lookup(path).unwrap().unwrap();
        archive.content(&found).unwrap_err().class
    };
    assert_eq!(class(b"unread"), Class::Missing);
    assert_eq!(class(b"sub"), Class::Missing);
}

#[test]
fn the_deepest_tree_is_walked_and_one_deeper_is_refused() {
    // Built by hand: the tree's own nodes would need a deep recursion.
    for (depth, is_fine) in [(2048, true), (2049, false)] {
        let mut writer = Writer::new(Cut::Rule);
        let mut below = writer.table(&[]);
        for _ in 0..depth {
            let entry = dir("d", vec![]).entry;
            below = writer.table(&[diptych_format::table::DirectoryRow { entry, below: Some(below) }]);
        }
        let root = diptych_format::table::DirectoryRow { entry: dir("", vec![]).entry, below: Some(below) };
        let built = writer.finish(root, &[], &Owners::default(), |_| {});
        let archive = built.open().unwrap();
        let listed = list(&archive).unwrap();
        assert_eq!(listed.entries.len(), 2049);
        assert_eq!(listed.damaged.is_empty(), is_fine);
        assert!(listed.damaged.iter().all(|(_, error)| error.class == Class::Limit));
    }
}

#[test]
fn a_walk_that_may_keep_nothing_reads_tables_again() {
    let root = wide(130);
    let built = build_with(&root, &[], &Owners::default(), Cut::Every(4));
    let (plenty, little) = (built.open().unwrap(), built.open().unwrap());
    little.keep_at_most(0);
    let (one, other) = (list(&plenty).unwrap(), list(&little).unwrap());
    assert!(other.damaged.is_empty());
    assert!(one.entries.iter().map(|(path, _)| path).eq(other.entries.iter().map(|(path, _)| path)));
    assert!(little.tables_read() > plenty.tables_read());
}

/// Notes what is announced, and what is read without having been.
#[derive(Default)]
struct Announced {
    bytes: Vec<u8>,
    ranges: Mutex<Vec<Range<u64>>>,
    surprises: AtomicU64,
}

impl ReadAt for Announced {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let end = offset + buf.len() as u64;
        if !self.ranges.lock().unwrap().iter().any(|range| range.start <= offset && end <= range.end) {
            self.surprises.fetch_add(1, Ordering::Relaxed);
        }
        self.bytes.read_exact_at(buf, offset)
    }

    fn hint(&self, ranges: &[Range<u64>]) {
        assert!(ranges.is_sorted_by(|a, b| a.end < b.start));
        self.ranges.lock().unwrap().extend_from_slice(ranges);
    }
}

#[test]
fn tables_are_announced_before_they_are_read() {
    let built = build_with(&wide(130), &[], &Owners::default(), Cut::Every(4));
    let announced = Arc::new(Announced { bytes: built.metadata, ..Announced::default() });
    let archive = Archive::open(announced.clone()).unwrap();
    let root = archive.root().unwrap();
    announced.surprises.store(0, Ordering::Relaxed);
    archive.walk(&root, b"", &mut List::default()).unwrap();
    // The first one, the top table of the root, could not be announced before.
    assert_eq!(announced.surprises.load(Ordering::Relaxed), 1);
}

#[test]
fn an_archive_is_shared_between_threads() {
    let (root, links, owners) = everything();
    let archive = build_with(&root, &links, &owners, Cut::Rule).open().unwrap();
    let counts = std::thread::scope(|scope| {
        let count = || list(&archive.clone()).unwrap().entries.len();
        [scope.spawn(count), scope.spawn(count)].map(|thread| thread.join().unwrap())
    });
    assert_eq!(counts[0], counts[1]);
}
