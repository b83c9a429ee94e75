//! Vectors: bytes with one fault each, or at one boundary, and what a reader must say of them.
//!
//! The files are in spec/vectors; [`all`] makes them anew. Each comes from a function of its own, on makers that are
//! right unless told otherwise. The makers share nothing with the encoder but the ids of columns, so that both cannot
//! have the same mistake.

pub mod pack_maker;
pub mod rows;
pub mod section_maker;
pub mod stream_maker;

mod s01_conventions;
mod s03_digests;
mod s04_names;
mod s05_entries;
mod s06_sections;
mod s07_directories;
mod s07_links;
mod s07_pieces;
mod s07_references;
mod s08_stream;
mod s10_segments;
mod s11_packs;
mod s12_archives;
mod s13_limits;

use diptych_format::Digest;
use diptych_format::error::{Class, Stream as Bytes};

use rows::{Placed, Row};
use stream_maker::{Stream, StreamMaker, TableMaker};

/// What the bytes of a vector are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// A metadata stream.
    MetadataStream,
    /// A pack.
    Pack,
    /// A segment.
    Segment,
    /// A manifest.
    Manifest,
    /// An archive of one file.
    Archive,
}

impl Input {
    /// The word in the header of a vector.
    pub fn word(self) -> &'static str {
        match self {
            Input::MetadataStream => "metadata-stream",
            Input::Pack => "pack",
            Input::Segment => "segment",
            Input::Manifest => "manifest",
            Input::Archive => "archive",
        }
    }
}

/// One vector.
pub struct Vector {
    /// Name of its file, without the end.
    pub name: &'static str,
    /// Requirements that it shows.
    pub covers: &'static str,
    /// What the bytes are.
    pub input: Input,
    /// The class of the error; none for bytes that are right.
    pub expect: Option<Class>,
    /// The part at fault.
    pub place: Option<(Bytes, u64)>,
    /// The lines of the listing that a walk hands out, before the error if there is one.
    pub lines: Option<Vec<Vec<u8>>>,
    /// The tree id of what is right.
    pub tree_id: Option<Digest>,
    /// What is wrong, in words.
    pub comment: &'static str,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl Vector {
    /// A metadata stream that is right.
    fn sound(name: &'static str, covers: &'static str, comment: &'static str, stream: Stream) -> Self {
        assert_eq!(stream.at, None, "{name} is not right");
        Self::of(Input::MetadataStream, name, covers, None, comment)
            .with(None, stream.bytes)
            .with_listing(stream.listing.lines, Some(stream.tree_id))
    }

    /// A metadata stream that is wrong where its maker was told to spoil it.
    fn fault(
        name: &'static str,
        covers: &'static str,
        class: Class,
        comment: &'static str,
        stream: Stream,
    ) -> Self {
        let at = stream.at.unwrap_or_else(|| panic!("nothing is wrong with {name}"));
        Self::of(Input::MetadataStream, name, covers, Some(class), comment)
            .with(Some((Bytes::Metadata, at)), stream.bytes)
            .with_listing(stream.listing.lines, None)
    }

    fn of(
        input: Input,
        name: &'static str,
        covers: &'static str,
        expect: Option<Class>,
        comment: &'static str,
    ) -> Self {
        let (place, lines, tree_id, bytes) = (None, None, None, Vec::new());
        Self { name, covers, input, expect, place, lines, tree_id, comment, bytes }
    }

    fn with(self, place: Option<(Bytes, u64)>, bytes: Vec<u8>) -> Self {
        Self { place, bytes, ..self }
    }

    fn with_listing(self, lines: Vec<Vec<u8>>, tree_id: Option<Digest>) -> Self {
        Self { lines: Some(lines), tree_id, ..self }
    }

    /// BLAKE3 of the listing.
    pub fn listing(&self) -> Option<Digest> {
        self.lines.as_ref().map(|lines| Digest::of(&lines.concat()))
    }

    /// The file.
    pub fn encode(&self) -> Vec<u8> {
        let mut header = format!("covers: {}\ninput: {}\n", self.covers, self.input.word());
        header += &format!("expect: {}\n", self.expect.map_or("ok", Class::word));
        if let Some((stream, at)) = self.place {
            header += &format!("stream: {}\nat: {at}\n", stream.words());
        }
        if let (Some(lines), Some(listing)) = (&self.lines, self.listing()) {
            header += &format!("entries: {}\nlisting: {listing}\n", lines.len());
        }
        if let Some(tree_id) = self.tree_id {
            header += &format!("tree: {tree_id}\n");
        }
        header += &format!("comment: {}\n\n", self.comment);
        [header.as_bytes(), &self.bytes].concat()
    }
}

/// All vectors that are kept as files, by name.
pub fn all() -> Vec<Vector> {
    let mut all: Vec<Vector> = [
        s01_conventions::vectors(),
        s03_digests::vectors(),
        s04_names::vectors(),
        s05_entries::vectors(),
        s06_sections::vectors(),
        s07_directories::vectors(),
        s07_links::vectors(),
        s07_pieces::vectors(),
        s07_references::vectors(),
        s08_stream::vectors(),
        s10_segments::vectors(),
        s11_packs::vectors(),
        s12_archives::vectors(),
    ]
    .into_iter()
    .flatten()
    .collect();
    all.sort_by_key(|vector| vector.name);
    assert!(all.windows(2).all(|pair| pair[0].name < pair[1].name), "two vectors have one name");
    all
}

/// Vectors that are too long to be kept: they are made anew for each run.
pub fn large() -> Vec<Vector> {
    // Values that are nested as deep as an archive can be are made, copied and dropped by recursion.
    let thread = std::thread::Builder::new().stack_size(256 << 20).spawn(s13_limits::vectors);
    thread.unwrap().join().unwrap()
}

/// A tree in which a directory `b` is whatever `table` writes, with a sound directory before it.
fn beside(table: impl FnOnce(&mut StreamMaker<'_>) -> Placed) -> Stream {
    let mut stream = StreamMaker::new();
    let sound = stream.directory(vec![Row::file("x", "content")]);
    let other = table(&mut stream);
    let rows = vec![Row::directory("a", sound), Row::directory("b", other), Row::fifo("c")];
    let top = stream.directory(rows);
    stream.finish(top)
}

/// A tree in which the table of the directory `b` has these rows and is wrong.
fn broken(rows: Vec<Row>, spoil: impl FnOnce(&mut TableMaker)) -> Stream {
    beside(|stream| stream.broken(rows, spoil))
}

/// A tree in which the directory `b` has rows that must not be.
fn wrong_rows(rows: Vec<Row>) -> Stream {
    broken(rows, |_| ())
}

/// A tree in which the directory `b` has these rows, which are right.
fn right_rows(rows: Vec<Row>) -> Stream {
    beside(|stream| stream.directory(rows))
}

/// Three rows of different kinds: a file, a symbolic link, a device.
fn some_rows() -> Vec<Row> {
    vec![
        Row::file("f", "1").mtime(1_700_000_000, 500),
        Row::symlink("l", "f").mtime(-1, 999_999_999),
        Row::device("n", 1, 3),
    ]
}

/// What the row that leads to a table says of it, when that is not true: the table is at fault.
fn lie(stream: &mut StreamMaker<'_>, mut told: Placed, change: impl FnOnce(&mut Placed)) -> Placed {
    stream.at = Some(told.position);
    told.pieces[0].is_broken = true;
    change(&mut told);
    told
}
