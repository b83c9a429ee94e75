//! A link table with more paths than one piece holds: where it is cut, and that every reader finds every path.

use std::sync::Arc;

use diptych_decoder::Archive;
use diptych_encoder::{Cuts, LinkKey, TreeEncoder};
use diptych_format::limits::{PIECE_NAMES_MAX, PIECE_ROWS_MAX, PIECE_ROWS_MIN};
use diptych_format::stream::{TRAILER_LENGTH, Trailer};
use diptych_format::table::{IndexTable, LinkRow, LinkTable, Owners, Reference, TableKind, kind_of};
use diptych_format::{Digest, Name, Status};
use diptych_tests::{TestDir, Tree, for_each_seed, readers, tree};

/// Encodes a tree of files, each with the number of its inode, below directories. Files come as paths, ascending, no
/// more of them in a directory than a piece has at least, so that no directory is cut.
struct LinkedTree {
    encoder: TreeEncoder,
    open: Vec<String>,
}

impl LinkedTree {
    fn new() -> Self {
        let mut encoder = TreeEncoder::new(Cuts::plain());
        encoder.enter(tree! {}.entry(Name::root())).unwrap();
        Self { encoder, open: Vec::new() }
    }

    fn file(&mut self, path: &str, inode: u64) {
        let mut directories: Vec<String> = path.split('/').map(str::to_owned).collect();
        let name = directories.pop().unwrap();
        while !directories.starts_with(&self.open) {
            self.encoder.leave(Status::COMPLETE).unwrap();
            self.open.pop();
        }
        for directory in &directories[self.open.len()..] {
            self.encoder.enter(tree! {}.entry(entry_name(directory))).unwrap();
        }
        self.open = directories;
        let entry = Tree::file(inode.to_string()).entry(entry_name(&name));
        self.encoder.entry(entry, Some(LinkKey { device: 1, inode })).unwrap();
    }

    fn finish(mut self) -> Vec<u8> {
        for _ in 0..=self.open.len() {
            self.encoder.leave(Status::COMPLETE).unwrap();
        }
        self.encoder.finish(&Owners::default()).unwrap();
        self.encoder.take_chunks().concat()
    }
}

fn entry_name(text: &str) -> Name {
    Name::try_new(text.as_bytes()).unwrap()
}

/// The stream of a tree whose files are the paths of `rows`, and what its link table must be, cut as the
/// specification says.
fn encode(paths: &[(String, u64)]) -> (Vec<u8>, Vec<Vec<LinkRow>>) {
    let mut tree = LinkedTree::new();
    paths.iter().for_each(|(path, inode)| tree.file(path, *inode));
    let rows = paths.iter().map(|(path, inode)| {
        let mut group = paths.iter().filter(|(_, other)| other == inode).map(|(path, _)| path);
        let least = group.clone().min().unwrap();
        let first = if least == path { "" } else { least };
        LinkRow {
            path: path.as_bytes().into(),
            first: first.as_bytes().into(),
            count: group.by_ref().count() as u64,
        }
    });
    let mut pieces: Vec<Vec<LinkRow>> = vec![Vec::new()];
    for row in rows {
        let piece = pieces.last_mut().unwrap();
        let bytes: usize = piece.iter().chain([&row]).map(|row| row.path.len() + row.first.len()).sum();
        let cuts = piece.len() >= PIECE_ROWS_MAX
            || bytes > PIECE_NAMES_MAX
            || piece.len() >= PIECE_ROWS_MIN && Digest::of(&row.path).leading().is_multiple_of(1024);
        if cuts { pieces.push(vec![row]) } else { piece.push(row) }
    }
    (tree.finish(), pieces)
}

fn links_of(stream: &[u8]) -> Reference {
    let trailer: &[u8; TRAILER_LENGTH] = stream.last_chunk().unwrap();
    Trailer::decode(trailer, stream.len() as u64).unwrap().links
}

/// The pieces of the link table, through its index tables; each of those is checked on the way.
fn pieces_of(stream: &[u8]) -> Vec<Vec<LinkRow>> {
    let mut pieces = Vec::new();
    collect(stream, links_of(stream), (stream.len() - TRAILER_LENGTH) as u64, &mut pieces);
    pieces
}

/// The level of the top link table.
fn top_level(stream: &[u8]) -> u64 {
    let links = links_of(stream);
    let end = stream.len() - TRAILER_LENGTH;
    let at = links.resolve(end as u64).unwrap() as usize;
    let bytes = &stream[at..at + links.length as usize];
    if kind_of(bytes).unwrap() == TableKind::Index { IndexTable::parse(bytes).unwrap().level() } else { 0 }
}

fn collect(stream: &[u8], reference: Reference, from: u64, pieces: &mut Vec<Vec<LinkRow>>) -> u64 {
    let at = reference.resolve(from).unwrap();
    let bytes = &stream[at as usize..(at + reference.length) as usize];
    if kind_of(bytes).unwrap() == TableKind::Index {
        let index = IndexTable::parse(bytes).unwrap();
        let below = (0..index.rows()).map(|row| {
            assert_eq!(index.payload_length(row), 0);
            let rows = collect(stream, index.reference(row), at, pieces);
            assert_eq!(index.entries(row), rows);
            rows
        });
        return below.sum();
    }
    let table = LinkTable::parse(bytes).unwrap();
    let row = |row| LinkRow {
        path: table.path(row).into(),
        first: table.first(row).into(),
        count: table.count(row),
    };
    pieces.push((0..table.rows()).map(row).collect());
    table.rows() as u64
}

/// All that readers say of the links, at random, in order and whole, and what the reader in Python says.
fn assert_read(stream: Vec<u8>, rows: &[LinkRow]) {
    let dir = TestDir::new("link-pieces");
    let file = dir.join("stream");
    std::fs::write(&file, &stream).unwrap();
    let archive = Archive::open(Arc::new(stream)).unwrap();
    let links = archive.links();
    assert_eq!(links.paths(), rows.len() as u64);
    for row in rows {
        let found = links.find(&row.path).unwrap().unwrap();
        assert_eq!((found.first.unwrap_or_default(), found.count), (row.first.clone(), row.count));
    }
    assert!(links.find(b"a path that is not there").unwrap().is_none());
    let mut visited = Vec::new();
    let mut visit = |path: &[u8], first: &[u8], count| {
        let first = if path == first { &[] } else { first };
        visited.push(LinkRow { path: path.into(), first: first.into(), count });
        Ok(())
    };
    links.for_each(&mut visit).unwrap();
    assert!(visited == rows);

    let mut seen = readers::Seen::default();
    readers::read_tree(&archive, None, &mut seen).unwrap();
    assert!(seen.faults.is_empty() && seen.walk_error.is_none(), "{:?}", seen.faults);
    let [python] = &readers::python(&[("metadata-stream", file)])[..] else { panic!("one answer") };
    assert_eq!(python["verify"], "ok", "{python}");
    assert_eq!(python["tree"], seen.tree_id.unwrap().to_string());
    assert_eq!(python["lines"].as_array().unwrap().len(), seen.walked.len());
}

/// Says of which level the top link table is.
#[track_caller]
fn assert_pieces(paths: &[(String, u64)], at_least: usize) -> u64 {
    let (stream, expected) = encode(paths);
    assert!(expected.len() >= at_least, "{} pieces", expected.len());
    let found = pieces_of(&stream);
    let lengths = |pieces: &[Vec<LinkRow>]| pieces.iter().map(Vec::len).collect::<Vec<_>>();
    assert_eq!(lengths(&found), lengths(&expected));
    assert!(found == expected);
    let level = top_level(&stream);
    assert_read(stream, &expected.concat());
    level
}

/// Spec: A-7.3-2, A-7.2-1.
#[test]
fn links_are_cut_into_pieces_by_their_paths() {
    // Twelve directories with the same 500 inodes.
    let path = |number: u64| (format!("d{:02}/file{:03}", number / 500, number % 500), number % 500);
    assert_pieces(&(0..6000).map(path).collect::<Vec<_>>(), 4);
}

/// Spec: A-7.3-2.
#[test]
fn the_first_path_of_a_link_counts_where_pieces_are_cut() {
    // Too few rows and too few bytes of paths for a cut: the first path, which all but one name, makes them too long.
    let long = format!("a/{}", vec!["x".repeat(1000); 5].join("/"));
    let mut paths = vec![(long, 0)];
    paths.extend((0..400).map(|number| (format!("b/{number:03}"), 0)));
    assert!(paths.len() < PIECE_ROWS_MIN);
    assert_pieces(&paths, 2);
}

/// So many paths of two files, as long as paths can be but for a few bytes.
fn long_paths(count: usize, depth: usize, length: usize) -> Vec<(String, u64)> {
    let deep = vec!["x".repeat(length); depth].join("/");
    (0..count).map(|number| (format!("{deep}/{number:03}"), number as u64 % 2)).collect()
}

/// Two of the longest paths and eight pairs of them fill a piece; sixteen of them an index table. So a third index
/// table of the first level begins, each of them right behind its pieces. Spec: A-7.2-3, A-7.3-2, A-8.2-2.
#[test]
fn a_link_table_has_index_tables_above_index_tables() {
    assert_eq!(assert_pieces(&long_paths(300, 63, 1024), 33), 2);
}

/// Spec: A-7.2-3, A-7.3-2.
#[test]
fn link_tables_of_any_number_of_pieces_are_read() {
    for_each_seed(4, |random| {
        let count = random.between(2, 500) as usize;
        let (depth, length) = (random.between(1, 63) as usize, random.between(300, 1024) as usize);
        assert_pieces(&long_paths(count, depth, length), 1);
    });
}
