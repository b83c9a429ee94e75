//! What each stage costs for a byte or for an entry, one thread, in cache.
//!
//! `cargo bench -p diptych-bench`

#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use diptych_decoder::{Archive, Descend, Row, Visitor};
use diptych_encoder::{Cuts, Payload, TreeEncoder};
use diptych_format::digest::ContentHasher;
use diptych_format::pack::{ChunkKind, chunk_id};
use diptych_format::table::Owners;
use diptych_format::{Attributes, Change, Digest, Entry, Holds, Name, Result, Status, Time};
use diptych_repository::chunk::{Compression, Compressor};
use diptych_repository::{ChunkKeys, Padding};

/// Text-like bytes: words from a small vocabulary, so that compression has something to find.
fn text(length: usize) -> Vec<u8> {
    let words = [
        "struct ", "return ", "static ", "int ", "if (", ") {\n", "\t", "device", "->", "error;\n", "0x",
        "buffer",
    ];
    let mut state = 1u64;
    let mut bytes = Vec::with_capacity(length + 16);
    while bytes.len() < length {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(words[(state >> 33) as usize % words.len()].as_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn entry(name: &str, number: u64) -> Entry {
    Entry {
        name: Name::try_new(name.as_bytes()).unwrap(),
        attributes: Attributes { mode: 0o100644, uid: 1000, gid: 1000, ..Attributes::default() },
        mtime: Time { seconds: 1_700_000_000 + number as i64, nanoseconds: 0 },
        holds: Holds::Content { size: number % 10_000, digest: Digest::of(&number.to_le_bytes()) },
        holes: Vec::new(),
        change: Change { ctime: Time { seconds: 1_700_000_000, nanoseconds: 0 }, inode: number },
        status: Status::COMPLETE,
    }
}

fn directory(name: &str) -> Entry {
    let name = if name.is_empty() { Name::root() } else { Name::try_new(name.as_bytes()).unwrap() };
    let holds = Holds::Entries { digest: Digest::NONE };
    let attributes = Attributes { mode: 0o040755, ..Attributes::default() };
    Entry { name, attributes, holds, ..entry("x", 0) }
}

/// A metadata stream of 1,000 directories with 20 files each.
fn stream() -> Vec<u8> {
    let mut tree = TreeEncoder::new(Cuts::plain());
    tree.enter(directory("")).unwrap();
    // Below PIECE_ROWS_MIN names a directory, so that no piece ends: 40 times 25 directories.
    for outer in 0..40 {
        tree.enter(directory(&format!("outer-{outer:02}"))).unwrap();
        for inner in 0..25 {
            tree.enter(directory(&format!("inner-{inner:02}"))).unwrap();
            for file in 0..20 {
                let number = (outer * 25 + inner) * 20 + file;
                tree.entry(entry(&format!("file-{file:02}.c"), number), None).unwrap();
            }
            tree.leave(Status::COMPLETE).unwrap();
        }
        tree.leave(Status::COMPLETE).unwrap();
    }
    tree.leave(Status::COMPLETE).unwrap();
    tree.finish(&Owners::default()).unwrap();
    tree.take_chunks().concat()
}

struct Count(u64);

impl Visitor for Count {
    fn enter(&mut self, _: &[u8], row: &Row<'_>) -> Result<Descend> {
        self.0 += u64::from(row.mode() & 1);
        Ok(Descend::Enter)
    }
    fn entry(&mut self, path: &[u8], row: &Row<'_>) -> Result<()> {
        self.0 += path.len() as u64 + row.size();
        Ok(())
    }
}

fn bytes(criterion: &mut Criterion) {
    let data = text(16 << 20);
    let mut group = criterion.benchmark_group("bytes");
    group.throughput(Throughput::Bytes(data.len() as u64)).sample_size(20);
    group.bench_function("content digest", |b| {
        b.iter(|| {
            let mut hasher = ContentHasher::new();
            data.chunks(512 << 10).for_each(|part| hasher.update(part));
            hasher.finish()
        });
    });
    group.bench_function("chunk id, 1 MiB", |b| {
        b.iter(|| {
            data.chunks(1 << 20).for_each(|chunk| {
                black_box(chunk_id(ChunkKind::Payload, chunk));
            })
        });
    });
    for (name, cuts) in [("cut", Cuts::plain()), ("cut, keyed", Cuts::keyed([1; 32]))] {
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut rest = &data[..];
                while !rest.is_empty() {
                    rest = &rest[cuts.large_cut(&rest[..rest.len().min(4 << 20)])..];
                }
            });
        });
    }
    group.bench_function("compress, level 1, 1 MiB", |b| {
        let mut compressor = Compressor::new(Compression::default(), ChunkKeys::plain(), Padding::None);
        let mut out = Vec::new();
        b.iter(|| {
            for chunk in data.chunks(1 << 20) {
                out.clear();
                compressor.store(ChunkKind::Payload, Digest::NONE, chunk, &mut out).unwrap();
            }
        });
    });
    group.finish();
}

fn entries(criterion: &mut Criterion) {
    let stream = stream();
    let archive = Archive::open(Arc::new(stream.clone())).unwrap();
    let root = archive.root().unwrap();
    let mut group = criterion.benchmark_group("entries");
    group.throughput(Throughput::Elements(21_041)).sample_size(20);
    group.bench_function("encode", |b| b.iter(self::stream));
    group.bench_function("walk", |b| {
        b.iter(|| {
            let mut count = Count(0);
            archive.walk(&root, b"", &mut count).unwrap();
            count.0
        });
    });
    group.bench_function("decide where small contents go", |b| {
        let digests: Vec<Digest> = (0..21_041u64).map(|n| Digest::of(&n.to_le_bytes())).collect();
        b.iter(|| {
            let mut payload = Payload::new(Cuts::plain(), 1 << 20);
            digests.iter().for_each(|digest| {
                black_box(payload.small(*digest, 5000));
            });
            payload.chunks()
        });
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("look a path up", |b| {
        b.iter(|| archive.lookup(black_box(b"outer-20/inner-12/file-07.c")).unwrap());
    });
    group.finish();
}

criterion_group!(benches, bytes, entries);
criterion_main!(benches);
