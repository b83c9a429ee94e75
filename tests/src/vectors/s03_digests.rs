//! Vectors of section 3: digests of contents, bodies and trees.

use diptych_format::digest::ContentHasher;
use diptych_format::error::Class::Corrupt;
use diptych_format::error::Stream as Bytes;

use super::pack_maker::{ArchiveMaker, ChunkMaker, SegmentMaker};
use super::rows::{Holds, Row};
use super::stream_maker::{Stream, StreamMaker};
use super::{Input, Vector, beside, lie};

pub fn vectors() -> Vec<Vector> {
    vec![
        content_of_two_leaves(),
        content_of_a_leaf(),
        wrong_content(),
        holes_are_zeros(),
        body_digest(),
        tree_id(),
        incomplete(),
    ]
}

/// A stream of one file.
fn one_file(row: Row) -> Stream {
    let mut stream = StreamMaker::new();
    let top = stream.directory(vec![row]);
    stream.finish(top)
}

/// An archive of one file of `length` bytes `y`, in chunks of a run.
fn run_archive(length: u64, chunk: u64) -> ArchiveMaker<'static> {
    let mut hasher = ContentHasher::new();
    hasher.update(&vec![b'y'; length as usize]);
    let mut row = Row::file("f", "");
    row.holds = Holds::Content(length, hasher.finish(), vec![]);
    let full = ChunkMaker::run(b'y', chunk as usize);
    let id = full.id;
    let mut slices: Vec<_> = (0..length / chunk).map(|_| (0, 0, chunk)).collect();
    if !length.is_multiple_of(chunk) {
        slices.push((0, 0, length % chunk));
    }
    ArchiveMaker::of_parts(one_file(row), vec![full], SegmentMaker::new(&[id], &slices), length)
}

fn archive(name: &'static str, covers: &'static str, what: &'static str, maker: ArchiveMaker<'_>) -> Vector {
    let (lines, tree_id) = (maker.stream.listing.lines.clone(), maker.stream.tree_id);
    Vector::of(Input::Archive, name, covers, None, what)
        .with(None, maker.pack().encode())
        .with_listing(lines, Some(tree_id))
}

fn content_of_two_leaves() -> Vector {
    let what = "a content of 16 MiB and one byte has two leaves";
    archive("3.1_content_of_two_leaves", "A-3.1-2 A-14-3", what, run_archive((16 << 20) + 1, 1 << 20))
}

fn content_of_a_leaf() -> Vector {
    let what = "a content of 16 MiB has the plain digest";
    archive("3.1_content_of_a_leaf", "A-3.1-1 A-14-3", what, run_archive(16 << 20, 4 << 20))
}

fn wrong_content() -> Vector {
    let stream = one_file(Row::file("f", "content"));
    let lines = stream.listing.lines.clone();
    let what = "the content has another digest than its row says";
    Vector::of(Input::Archive, "3.1_wrong_content", "A-3.1-1 A-14-3", Some(Corrupt), what)
        .with(Some((Bytes::Payload, 0)), ArchiveMaker::new(stream, b"CONTENT").pack().encode())
        .with_listing(lines, None)
}

fn holes_are_zeros() -> Vector {
    let length = 40 << 20;
    let row = Row::sparse("f", length, &[(0, (20 << 20) + 5), ((20 << 20) + 7, length - (20 << 20) - 7)]);
    let what = "a content of three leaves is two zeros between holes";
    archive("3.1_holes_are_zeros", "A-3.1-3", what, ArchiveMaker::new(one_file(row), &[0; 2]))
}

fn body_digest() -> Vector {
    let stream = beside(|stream| {
        let below = stream.directory(vec![Row::fifo("x")]);
        lie(stream, below, |told| told.digest.0[31] ^= 1)
    });
    let what = "a directory's body has another digest than the row that leads to it says";
    Vector::fault("3.2_body_digest", "A-3.2-1 A-14-1", Corrupt, what, stream)
}

fn tree_id() -> Vector {
    let mut stream = StreamMaker::new();
    stream.spoil_trailer = Some(Box::new(|trailer| trailer.tree_id.0[0] ^= 0x80));
    let top = stream.directory(vec![]);
    let what = "the tree id is not that of root and links";
    Vector::fault("3.2_tree_id", "A-3.2-2", Corrupt, what, stream.finish(top))
}

fn incomplete() -> Vector {
    let what = "an entry that changed while it was read: the tree id stands with the mark incomplete";
    let stream = one_file(Row::file("f", "content").status(1));
    Vector::sound("3.2_incomplete", "A-3.2-3 A-8.3-4", what, stream)
}
