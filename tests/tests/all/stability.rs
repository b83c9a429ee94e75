//! A table depends on its directory alone: whatever is changed in a tree, the tables of all directories that are not
//! above the change stay as they are, byte for byte.
//!
//! Spec: A-2, archive.md section 2.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use diptych_client::hash::scan_to_metadata;
use diptych_format::monitor::Silent;
use diptych_format::stream::{TRAILER_LENGTH, Trailer};
use diptych_format::table::{DirectoryTable, IndexTable, Reference, TableKind, kind_of};
use diptych_localfs::select::Selection;
use diptych_tests::Tree;
use diptych_tests::dir::TestDir;
use diptych_tests::random::{Random, for_each_seed};
use diptych_tests::tree::Size;

/// The tables of each directory by its path, as their bytes.
type Tables = BTreeMap<Vec<u8>, Vec<Vec<u8>>>;

fn tables_of(root: &Path) -> Tables {
    let interrupt = Arc::new(AtomicBool::new(false));
    let stream = scan_to_metadata(root, Selection::default(), 2, interrupt, Arc::new(Silent)).unwrap();
    let length = stream.len();
    let trailer: &[u8; TRAILER_LENGTH] = stream[length - TRAILER_LENGTH..].try_into().unwrap();
    let trailer = Trailer::decode(trailer, length as u64).unwrap();
    let mut tables = Tables::new();
    let (root_table, root_at) = table(&stream, trailer.root, (length - TRAILER_LENGTH) as u64);
    let parsed = DirectoryTable::parse(root_table).unwrap();
    let (reference, _) = parsed.directory(0).unwrap();
    collect(&stream, reference, root_at, b"", &mut tables);
    tables
}

fn table(stream: &[u8], reference: Reference, from: u64) -> (&[u8], u64) {
    let at = reference.resolve(from).unwrap();
    (&stream[at as usize..(at + reference.length) as usize], at)
}

fn collect(stream: &[u8], reference: Reference, from: u64, path: &[u8], tables: &mut Tables) {
    let (bytes, at) = table(stream, reference, from);
    tables.entry(path.to_vec()).or_default().push(bytes.to_vec());
    if kind_of(bytes).unwrap() == TableKind::Index {
        let index = IndexTable::parse(bytes).unwrap();
        (0..index.rows()).for_each(|row| collect(stream, index.reference(row), at, path, tables));
        return;
    }
    let directory = DirectoryTable::parse(bytes).unwrap();
    for (row, below, _) in directory.directories() {
        let path = [path, if path.is_empty() { b"" } else { b"/" }, directory.name(row)].concat();
        collect(stream, below, at, &path, tables);
    }
}

/// Changes something in the tree on disk, and says in which directories.
fn change(random: &mut Random, root: &Path, directories: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let place = |path: &[u8]| root.join(std::str::from_utf8(path).unwrap());
    let at = random.pick(directories).clone();
    match random.below(4) {
        0 => std::fs::write(place(&at).join("grown"), random.bytes(400_000)).unwrap(),
        1 => std::fs::create_dir(place(&at).join(format!("added-{}", random.any()))).unwrap(),
        2 => {
            for file in std::fs::read_dir(place(&at)).unwrap().map(Result::unwrap) {
                if file.file_type().unwrap().is_file() {
                    std::fs::remove_file(file.path()).unwrap();
                }
            }
        }
        _ => {
            let file = place(&at).join("moved");
            std::fs::write(&file, b"moved").unwrap();
            let to = random.pick(directories).clone();
            std::fs::rename(file, place(&to).join("moved-here")).unwrap();
            return vec![at, to];
        }
    }
    vec![at]
}

#[test]
fn tables_outside_the_ancestors_of_a_change_stay_as_they_are() {
    let dir = TestDir::new("stability");
    for_each_seed(16, |random| {
        let root = dir.join(format!("tree-{}", random.any()));
        Tree::made_up(random, Size { objects: 200, depth: 6, content: 2 << 20 }).create(&root);
        let before = tables_of(&root);
        // A hard link's ctime changes with that of its other names, wherever they are; names must be text to be used.
        let usable: Vec<Vec<u8>> = before
            .keys()
            .filter(|path| std::str::from_utf8(path).is_ok())
            .filter(|path| !has_links(&root.join(std::str::from_utf8(path).unwrap())))
            .cloned()
            .collect();
        if usable.is_empty() {
            return;
        }
        let changed = change(random, &root, &usable);
        let after = tables_of(&root);
        for (path, tables) in &before {
            let is_above = |change: &Vec<u8>| {
                path.is_empty() || change == path || change.starts_with(&[path, &b"/"[..]].concat())
            };
            if !changed.iter().any(is_above) {
                assert!(
                    after.get(path) == Some(tables),
                    "{:?} changed with {changed:?}",
                    String::from_utf8_lossy(path)
                );
            }
        }
        std::fs::remove_dir_all(&root).unwrap();
    });
}

fn has_links(directory: &Path) -> bool {
    std::fs::read_dir(directory).unwrap().map(Result::unwrap).any(|entry| {
        let metadata = entry.path().symlink_metadata().unwrap();
        !metadata.is_dir() && std::os::unix::fs::MetadataExt::nlink(&metadata) > 1
    })
}
