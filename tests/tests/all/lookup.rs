//! Looking one path up in an archive of a million entries reads little, counted at the file.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use diptych_decoder::Archive;
use diptych_encoder::{Cuts, TreeEncoder};
use diptych_format::manifest::{ArchiveManifest, StreamRoot};
use diptych_format::map::{MapBuilder, Slice};
use diptych_format::pack::{ChunkKind, PackHolds, chunk_id};
use diptych_format::read_at::ReadAt;
use diptych_format::table::Owners;
use diptych_format::{Attributes, Change, Digest, Entry, Holds, Name, Result, Status, Time};
use diptych_repository::archive::ArchiveFiles;
use diptych_repository::chunk::{Compression, Compressor};
use diptych_repository::pack::PackWriter;
use diptych_repository::stream::CacheBudget;
use diptych_repository::{ChunkKeys, Padding};

const DIRECTORIES: u64 = 5000;
const FILES: u64 = 200;

/// Bytes that count how many of them are read.
struct Counted {
    bytes: Vec<u8>,
    read: AtomicU64,
}

impl ReadAt for Counted {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.read.fetch_add(buf.len() as u64, Ordering::Relaxed);
        self.bytes.read_exact_at(buf, offset)
    }
}

fn entry(name: &str, mode: u32, number: u64, holds: Holds) -> Entry {
    Entry {
        name: if name.is_empty() { Name::root() } else { Name::try_new(name.as_bytes()).unwrap() },
        attributes: Attributes { mode, ..Attributes::default() },
        mtime: Time { seconds: 1_600_000_000 + number as i64, nanoseconds: number as u32 },
        holds,
        holes: Vec::new(),
        change: Change { ctime: Time { seconds: 1_700_000_000, nanoseconds: number as u32 }, inode: number },
        status: Status::COMPLETE,
    }
}

fn directory(name: &str) -> Entry {
    entry(name, 0o040755, 0, Holds::Entries { digest: Digest::NONE })
}

/// The metadata file of an archive of a million empty files, each with a digest of its own.
fn metadata_file() -> Vec<u8> {
    let mut tree = TreeEncoder::new(Cuts::plain());
    let mut pack = PackWriter::new(Vec::new(), PackHolds::Metadata).unwrap();
    let mut compressor =
        Compressor::new(Compression::default().for_metadata(), ChunkKeys::plain(), Padding::None);
    let mut map = MapBuilder::default();
    let mut length = 0;
    let mut store = |kind, raw: &[u8]| {
        let id = chunk_id(kind, raw);
        let mut out = Vec::new();
        compressor.store(kind, id, raw, &mut out).unwrap();
        pack.append(id, kind, &out).unwrap();
        id
    };
    let mut hand_on = |tree: &mut TreeEncoder| {
        for chunk in tree.take_chunks() {
            let id = store(ChunkKind::Metadata, &chunk);
            map.push(Slice { chunk: id, start: 0, length: chunk.len() as u32 }).unwrap();
            length += chunk.len() as u64;
        }
    };
    tree.enter(directory("")).unwrap();
    // Fewer names than a piece has at least, on each level: nothing is cut.
    for outer in 0..DIRECTORIES / 100 {
        tree.enter(directory(&format!("{outer:03}"))).unwrap();
        for inner in 0..100 {
            tree.enter(directory(&format!("{inner:03}"))).unwrap();
            for file in 0..FILES {
                let number = (outer * 100 + inner) * FILES + file;
                let digest = Digest::of(&number.to_le_bytes());
                let file = entry(
                    &format!("file-{file:03}.txt"),
                    0o100644,
                    number,
                    Holds::Content { size: 0, digest },
                );
                tree.entry(file, None).unwrap();
            }
            tree.leave(Status::COMPLETE).unwrap();
            hand_on(&mut tree);
        }
        tree.leave(Status::COMPLETE).unwrap();
    }
    tree.leave(Status::COMPLETE).unwrap();
    let trailer = tree.finish(&Owners::default()).unwrap().trailer;
    hand_on(&mut tree);
    let (metadata, segments) = map.finish().unwrap();
    let (payload, empty) = MapBuilder::default().finish().unwrap();
    for segment in segments.iter().chain(&empty) {
        store(ChunkKind::Segment, &segment.bytes);
    }
    let manifest = ArchiveManifest {
        tree_id: trailer.tree_id,
        complete: true,
        entries: trailer.entries,
        metadata: StreamRoot { root: metadata.id, length },
        payload: StreamRoot { root: payload.id, length: 0 },
        tool: "test".to_owned(),
    };
    store(ChunkKind::Manifest, &manifest.encode().unwrap());
    pack.finish().unwrap().0
}

#[test]
fn looking_a_path_up_among_a_million_entries_reads_little() {
    let file = Arc::new(Counted { bytes: metadata_file(), read: AtomicU64::new(0) });
    let files = ArchiveFiles::open(file.clone(), None, CacheBudget::of(64 << 20)).unwrap();
    let archive = Archive::open(Arc::new(files.metadata)).unwrap();
    let entries = 1 + DIRECTORIES / 100 + DIRECTORIES + DIRECTORIES * FILES;
    assert_eq!(archive.trailer().entries, entries);
    let found = archive.lookup(b"031/059/file-123.txt").unwrap().unwrap();
    let number = (31 * 100 + 59) * FILES + 123;
    assert_eq!(found.entry.holds, Holds::Content { size: 0, digest: Digest::of(&number.to_le_bytes()) });
    assert!(archive.lookup(b"031/059/file-999.txt").unwrap().is_none());
    let (read, whole) = (file.read.load(Ordering::Relaxed), file.bytes.len());
    assert!(read < 500 << 10, "{read} of {whole} bytes were read");
}
