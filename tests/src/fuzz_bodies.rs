//! What each fuzz target does with its bytes: one function for each decoder of bytes that anyone may have written.
//!
//! A body panics only where a property is violated; bytes that are refused are no violation. The targets in fuzz/
//! call these functions, and so does a test with what is kept as vectors and golden archives, and mutations of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use diptych_decoder::Archive;
use diptych_format::manifest::ArchiveManifest;
use diptych_format::map::{Segment, encode_leaf, encode_node};
use diptych_format::pack::{CHUNK_HEADER_LENGTH, ChunkHeader, ChunkKind, Seal, chunk_id};
use diptych_format::section::peek;
use diptych_format::table::{
    Below, DirectoryTable, IndexRow, IndexTable, LinkRow, LinkTable, decode_holes, decode_owners,
    decode_values, encode_holes, encode_index_table, encode_link_table, encode_owners, encode_values,
};
use diptych_format::{Digest, ReadAt};
use diptych_repository::{Decompressor, PackReader, Verify};

use crate::readers::{self, Seen};

/// A body.
pub type Body = fn(&[u8]);

/// All bodies with the names of their targets.
pub const ALL: [(&str, Body); 7] = [
    ("metadata_stream", metadata_stream),
    ("table", table),
    ("segment", segment),
    ("pack", pack),
    ("manifest", manifest),
    ("chunk", chunk),
    ("archive", archive),
];

/// Readers in order and at random agree on what is right, and verification accepts nothing that either refuses.
pub fn metadata_stream(bytes: &[u8]) {
    let Ok(archive) = Archive::open(Arc::new(bytes.to_vec())) else { return };
    let mut seen = Seen::default();
    if let Err(error) = readers::read_tree(&archive, None, &mut seen) {
        seen.faults.push(error);
    }
    assert_agreement(&seen, archive.trailer().entries);
    // Whatever is there or not: no lookup may panic, and the root is never lost.
    for path in [&b""[..], b"/", b"a", b"a/b/../c", b"\0", b"b/f"] {
        let _ = archive.lookup(path);
    }
    let _ = archive.owners();
    let _ = archive.links().for_each(&mut |_, _, _| Ok(()));
    if seen.faults.is_empty() {
        let same = diptych_decoder::diff(&archive, &archive, &mut |difference| {
            panic!("an archive differs from itself at {:?}", String::from_utf8_lossy(&difference.path))
        });
        same.expect("what is right can be compared");
    }
}

fn assert_agreement(seen: &Seen, entries: u64) {
    if seen.walk_error.is_some() {
        assert!(!seen.faults.is_empty(), "verification accepts what the walk refuses: {:?}", seen.walk_error);
        return;
    }
    let walked: BTreeSet<Vec<u8>> = seen.walked.iter().cloned().collect();
    assert_eq!(walked.len(), seen.walked.len(), "the walk hands something out twice");
    assert_eq!(walked.len() as u64, entries, "the walk hands out another number than the trailer says");
    if seen.found_errors.is_empty() {
        assert!(walked == seen.found, "the random reader finds other entries than the walk");
    } else {
        assert!(!seen.faults.is_empty(), "verification accepts what the random reader refuses");
    }
}

/// What is read from a table and written again is the same bytes: there is one form for each value.
pub fn table(bytes: &[u8]) {
    if let Ok(table) = DirectoryTable::parse(bytes) {
        DirectoryTable::view(bytes).expect("what was parsed can be viewed");
        for row in 0..table.rows() {
            assert_eq!(table.find(table.name(row)), Some(row));
            let _ = table.entry(row, Vec::new(), None);
        }
        assert_eq!(
            table.directories().count(),
            (0..table.rows()).filter(|row| table.is_directory(*row)).count()
        );
    }
    if let Ok(table) = IndexTable::parse(bytes) {
        index(&table);
    }
    if let Ok(table) = LinkTable::parse(bytes) {
        links(&table);
    }
    small(bytes);
}

fn index(table: &IndexTable<'_>) {
    const POSITION: u64 = 1 << 63;
    let rows: Vec<IndexRow> = (0..table.rows())
        .map(|row| IndexRow {
            first_name: table.first_name(row).into(),
            below: Below {
                position: POSITION.saturating_sub(table.reference(row).distance),
                length: table.reference(row).length,
                digest: table.digest(row),
                payload_length: table.payload_length(row),
                entries: table.entries(row),
            },
        })
        .collect();
    let mut again = Vec::new();
    encode_index_table(&rows, table.level(), POSITION, &mut again).expect("what was read can be written");
    assert!(again.starts_with(table.body_bytes()), "two forms of one index table");
    for row in 0..table.rows() {
        assert_eq!(table.find(table.first_name(row)), Some(row));
    }
}

fn links(table: &LinkTable<'_>) {
    let row = |row| LinkRow {
        path: table.path(row).into(),
        first: table.first(row).into(),
        count: table.count(row),
    };
    let rows: Vec<LinkRow> = (0..table.rows()).map(row).collect();
    let mut again = Vec::new();
    encode_link_table(&rows, 32, &mut again).expect("what was read can be written");
    assert!(again.starts_with(table.body_bytes()), "two forms of one link table");
}

fn small(bytes: &[u8]) {
    let is_plain = |again: &[u8]| {
        // Columns that may be ignored are lost when the rest is written again.
        again == bytes || peek(again).is_ok_and(|(_, length)| length < bytes.len() as u64)
    };
    if let Ok(holes) = decode_holes(bytes, u64::MAX / 2) {
        let mut again = Vec::new();
        encode_holes(&holes, &mut again).expect("what was read can be written");
        assert!(is_plain(&again), "two forms of one hole table");
    }
    if let Ok(values) = decode_values(bytes) {
        let mut again = Vec::new();
        encode_values(&values, &mut again).expect("what was read can be written");
        assert!(is_plain(&again), "two forms of one value table");
    }
    if let Ok(owners) = decode_owners(bytes) {
        let mut again = Vec::new();
        encode_owners(&owners, &mut again).expect("what was read can be written");
        assert!(is_plain(&again), "two forms of one owner table");
    }
}

/// A segment is read as it was written, and its sums are those of its rows.
pub fn segment(bytes: &[u8]) {
    let Ok(segment) = Segment::parse(bytes) else { return };
    let again = if segment.level() == 0 {
        let slices: Vec<_> = (0..segment.rows()).map(|row| segment.slice(row)).collect();
        let length = slices.iter().map(|slice| u64::from(slice.length)).sum::<u64>();
        assert_eq!((length, slices.len() as u64), (segment.length(), segment.slice_count()));
        encode_leaf(&slices)
    } else {
        let below: Vec<_> = (0..segment.rows()).map(|row| segment.below(row)).collect();
        let slices = below.iter().map(|below| below.slices).sum::<u64>();
        assert_eq!(slices, segment.slice_count());
        encode_node(segment.level(), &below)
    };
    let again = again.expect("what was read can be written");
    assert!(again == bytes || again.len() < bytes.len(), "two forms of one segment");
}

/// Every chunk that is handed out has the digest that its id says.
pub fn pack(bytes: &[u8]) {
    let Ok(pack) = PackReader::open(Arc::new(bytes.to_vec())) else { return };
    let mut decompressor = Decompressor::default();
    for chunk in pack.chunks() {
        assert_eq!(pack.locate(&chunk.header.id), Some(*chunk));
        if let Ok(raw) = pack.read_stored(chunk, Verify::Id, &mut decompressor) {
            assert_eq!(chunk_id(chunk.header.kind, &raw), chunk.header.id);
        }
    }
    let _ = pack.manifest_id();
}

/// What a manifest says can be written and read again.
pub fn manifest(bytes: &[u8]) {
    let Ok(manifest) = ArchiveManifest::decode(bytes) else { return };
    // What the reader of JSON takes may be longer when it is written: an escape is six bytes.
    let Ok(again) = manifest.encode() else { return };
    assert_eq!(ArchiveManifest::decode(&again).expect("what was written can be read"), manifest);
}

/// A chunk opens to as many bytes as its inner header says, and never to other bytes than its id says.
pub fn chunk(bytes: &[u8]) {
    let Ok(header) = ChunkHeader::decode(bytes) else { return };
    let stored = &bytes[CHUNK_HEADER_LENGTH..];
    let (mut out, mut again) = (Vec::new(), Vec::new());
    let mut decompressor = Decompressor::default();
    let mut copy = stored.to_vec();
    let open = decompressor.open_chunk(&header, &mut copy, Verify::Caller, &mut out);
    let raw = open.map(<[u8]>::to_vec);
    if let Ok(raw) = &raw {
        let length = u32::from_le_bytes(stored[4..8].try_into().expect("four bytes"));
        assert_eq!(raw.len() as u64, u64::from(length));
        assert!(raw.len() <= header.kind.raw_length_max());
    }
    let mut copy = stored.to_vec();
    let verified = decompressor.open_chunk(&header, &mut copy, Verify::Id, &mut again);
    let is_right = raw.is_ok_and(|raw| chunk_id(header.kind, &raw) == header.id);
    assert_eq!(verified.is_ok(), is_right, "a chunk with another digest than its id");
}

/// An archive of one file, and the same file taken for one of two: what is listed agrees with the manifest's count.
pub fn archive(bytes: &[u8]) {
    let mut seen = Seen::default();
    let file: Arc<dyn ReadAt> = Arc::new(bytes.to_vec());
    let result = readers::read_archive(file.clone(), None, &mut seen);
    if result.is_ok() {
        assert!(seen.tree_id.is_some_and(|id| id != Digest::NONE));
        assert_agreement(&seen, seen.walked.len() as u64);
    }
    let mut pair = Seen::default();
    let _ = readers::read_archive(file.clone(), Some(file), &mut pair);
}

/// A body that is wrong on purpose: whoever runs bodies must see that it fails.
pub fn canary(bytes: &[u8]) {
    assert!(bytes.windows(4).all(|four| four != b"DPTM"), "the canary sings");
}

/// Another, which takes more memory than a body may.
pub fn glutton(bytes: &[u8]) {
    let all = vec![1u8; 300 << 20];
    assert_eq!(all.iter().step_by(1 << 20).map(|byte| usize::from(*byte)).sum::<usize>(), 300, "{bytes:?}");
}

/// A chunk as the body of the same name takes it: header, inner header, data.
pub fn stored_chunk(kind: ChunkKind, raw: &[u8]) -> Vec<u8> {
    let stored = [&[0; 4][..], &(raw.len() as u32).to_le_bytes(), raw].concat();
    let stored_length = stored.len() as u32;
    let header = ChunkHeader { id: chunk_id(kind, raw), stored_length, kind, seal: Seal::None };
    [&header.encode()[..], &stored].concat()
}
