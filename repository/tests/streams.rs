//! Streams put together from slices, and the files of an archive.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use diptych_format::manifest::{ArchiveManifest, StreamRoot};
use diptych_format::map::{MapBuilder, SegmentRef, Slice, encode_node, segment_id};
use diptych_format::pack::{ChunkKind, PackHolds, chunk_id};
use diptych_format::{Class, Digest, ReadAt, Result, Stream};
use diptych_repository::stream::CacheBudget;
use diptych_repository::{
    ArchiveFiles, ChunkKeys, Compression, Compressor, Decompressor, PackWriter, Padding, StreamReader, Verify,
};
use proptest::collection::vec;
use proptest::prelude::*;

struct Pack(PackWriter<Vec<u8>>, Compressor);

impl Pack {
    fn new(holds: PackHolds) -> Self {
        Self(
            PackWriter::new(Vec::new(), holds).unwrap(),
            Compressor::new(Compression::Zstd(1), ChunkKeys::plain(), Padding::None),
        )
    }

    fn add(&mut self, kind: ChunkKind, raw: &[u8]) -> Digest {
        let id = chunk_id(kind, raw);
        let mut stored = Vec::new();
        self.1.store(kind, id, raw, &mut stored).unwrap();
        self.0.append(id, kind, &stored).unwrap();
        id
    }

    fn add_map(&mut self, slices: &[Slice]) -> StreamRoot {
        let mut builder = MapBuilder::default();
        slices.iter().for_each(|slice| builder.push(*slice).unwrap());
        let (root, built) = builder.finish().unwrap();
        for segment in built {
            assert_eq!(self.add(ChunkKind::Segment, &segment.bytes), segment.id);
        }
        StreamRoot { root: root.id, length: root.length }
    }

    fn finish(mut self, metadata: StreamRoot, payload: StreamRoot) -> Arc<Vec<u8>> {
        let manifest = ArchiveManifest {
            tree_id: Digest::NONE,
            complete: true,
            entries: 1,
            metadata,
            payload,
            tool: "test".to_owned(),
        };
        self.add(ChunkKind::Manifest, &manifest.encode().unwrap());
        self.bytes()
    }

    fn bytes(self) -> Arc<Vec<u8>> {
        Arc::new(self.0.finish().unwrap().0)
    }
}

/// An archive of two files whose payload is `slices` (chunk, start, length) of `chunks`; the metadata is one chunk.
fn archive(chunks: &[Vec<u8>], slices: &[(usize, u32, u32)]) -> (Arc<Vec<u8>>, Arc<Vec<u8>>, Vec<u8>) {
    let mut data = Pack::new(PackHolds::Payload);
    let ids: Vec<Digest> = chunks.iter().map(|raw| data.add(ChunkKind::Payload, raw)).collect();
    let mut meta = Pack::new(PackHolds::Metadata);
    let id = meta.add(ChunkKind::Metadata, b"the metadata stream");
    let metadata = meta.add_map(&[Slice { chunk: id, start: 4, length: 15 }]);
    let map: Vec<Slice> = slices
        .iter()
        .map(|(n, start, length)| Slice { chunk: ids[*n], start: *start, length: *length })
        .collect();
    let payload = meta.add_map(&map);
    let whole =
        slices.iter().flat_map(|(n, start, length)| &chunks[*n][*start as usize..][..*length as usize]);
    (meta.finish(metadata, payload), data.bytes(), whole.copied().collect())
}

fn numbered(count: usize, length: usize) -> Vec<Vec<u8>> {
    (0..count as u64)
        .map(|n| Digest::of(&n.to_le_bytes()).0.repeat(length.div_ceil(32))[..length].to_vec())
        .collect()
}

fn read(stream: &dyn ReadAt, offset: u64, length: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    stream.read_exact_at(&mut bytes, offset).map(|()| bytes)
}

fn parts() -> impl Strategy<Value = Vec<(usize, u32, u32)>> {
    let slice = (0..20_usize, 0..500_u32, 1..500_u32)
        .prop_map(|(n, start, length)| (n, start, length.min(600 - start)));
    vec(slice, 0..2000)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_range_reads_as_the_slices_say(
        slices in parts(),
        ranges in vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 30),
        cache in 0..20_000_usize,
    ) {
        let (meta, data, whole) = archive(&numbered(20, 600), &slices);
        let files = ArchiveFiles::open(meta, Some(data), CacheBudget::of(cache)).unwrap();
        let payload = &files.payload;
        prop_assert_eq!(payload.len(), whole.len() as u64);
        prop_assert_eq!(read(&**payload, 0, whole.len()).unwrap(), &whole[..]);
        for (start, end) in ranges {
            let (start, end) = (start.index(whole.len() + 1), end.index(whole.len() + 1));
            let range = start.min(end)..start.max(end);
            prop_assert_eq!(read(&**payload, range.start as u64, range.len()).unwrap(), &whole[range.clone()]);

            let found = payload.slices(range.start as u64..range.end as u64).unwrap();
            let mut joined = Vec::new();
            for part in found {
                prop_assert_eq!(part.position, (range.start + joined.len()) as u64);
                let chunk = payload.read_chunk(&part.slice.chunk, Verify::Id, &mut Decompressor::default()).unwrap();
                joined.extend_from_slice(StreamReader::part(&chunk, &part.slice).unwrap());
            }
            prop_assert_eq!(joined, &whole[range]);
        }
        prop_assert_eq!(read(&**payload, 1, whole.len()).unwrap_err().class, Class::Truncated);
        prop_assert_eq!(read(&**payload, u64::MAX, 1).unwrap_err().class, Class::Truncated);
    }
}

#[test]
fn a_map_of_several_levels_is_read_where_it_is_needed() {
    let slices: Vec<(usize, u32, u32)> =
        (0..200_000).map(|n| (n * 7919 % 2000, 0, 1 + (n % 64) as u32)).collect();
    let (meta, data, whole) = archive(&numbered(2000, 64), &slices);
    let files = ArchiveFiles::open(meta.clone(), Some(data), CacheBudget::of(1 << 20)).unwrap();
    // The manifest was read, the root, one leaf and one chunk follow, and then nothing.
    assert_eq!(files.counters.chunks_decoded(), 1);
    assert_eq!(read(&*files.payload, 3_000_000, 10).unwrap(), whole[3_000_000..3_000_010]);
    let cost = files.counters.bytes_read();
    assert_eq!(files.counters.chunks_decoded(), 4);
    assert_eq!(read(&*files.payload, 3_000_000, 10).unwrap(), whole[3_000_000..3_000_010]);
    assert_eq!((files.counters.bytes_read(), files.counters.chunks_decoded()), (cost, 4));
    assert_eq!(read(&*files.payload, 0, whole.len()).unwrap(), whole);
}

#[test]
fn threads_that_read_the_same_decode_it_once() {
    let slices: Vec<(usize, u32, u32)> = (0..100).map(|n| (n, 0, 5000)).collect();
    let (meta, data, whole) = archive(&numbered(100, 5000), &slices);
    let files = ArchiveFiles::open(meta, Some(data), CacheBudget::of(1 << 20)).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| assert_eq!(read(&*files.payload, 0, whole.len()).unwrap(), whole));
        }
    });
    // The manifest, one segment, and each chunk once.
    assert_eq!(files.counters.chunks_decoded(), 102);
}

/// A file that counts what is asked of it.
struct Watched(Arc<Vec<u8>>, AtomicU64);

impl ReadAt for Watched {
    fn len(&self) -> u64 {
        ReadAt::len(&*self.0)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.read_exact_at(buf, offset)
    }
}

#[test]
fn the_data_file_is_left_alone_until_payload_is_wanted() {
    let (meta, data, whole) = archive(&numbered(3, 100), &[(0, 0, 100), (2, 50, 50)]);
    let data = Arc::new(Watched(data, AtomicU64::new(0)));
    let files = ArchiveFiles::open(meta.clone(), Some(data.clone()), CacheBudget::of(1 << 20)).unwrap();
    assert_eq!(read(&*files.metadata, 0, 15).unwrap(), b"metadata stream");
    assert_eq!(files.payload.slices(0..150).unwrap().len(), 2);
    assert_eq!(data.1.load(Ordering::Relaxed), 0);
    assert_eq!(read(&*files.payload, 0, 150).unwrap(), whole);
    assert_eq!(files.data_pack().unwrap().unwrap().chunks().len(), 3);

    let alone = ArchiveFiles::open(meta.clone(), None, CacheBudget::of(1 << 20)).unwrap();
    assert_eq!(read(&*alone.metadata, 0, 15).unwrap(), b"metadata stream");
    let error = read(&*alone.payload, 120, 5).unwrap_err();
    assert_eq!((error.class, error.place), (Class::Missing, Some((Stream::Payload, 120))));

    let mut other = Pack::new(PackHolds::Payload);
    other.add(ChunkKind::Payload, &numbered(1, 100)[0]);
    let partly = ArchiveFiles::open(meta.clone(), Some(other.bytes()), CacheBudget::of(1 << 20)).unwrap();
    assert_eq!(read(&*partly.payload, 0, 100).unwrap(), whole[..100]);
    assert_eq!(read(&*partly.payload, 0, 101).unwrap_err().class, Class::Missing);

    let twice = ArchiveFiles::open(meta.clone(), Some(meta), CacheBudget::of(1 << 20)).unwrap();
    assert_eq!(read(&*twice.payload, 0, 1).unwrap_err().class, Class::Corrupt);
    let error = ArchiveFiles::open(data.0.clone(), None, CacheBudget::of(1 << 20)).map(|_| ()).unwrap_err();
    assert_eq!(error.class, Class::Corrupt);
}

#[test]
fn one_file_can_hold_all() {
    let mut pack = Pack::new(PackHolds::Both);
    let payload = pack.add(ChunkKind::Payload, b"payload");
    let metadata = pack.add(ChunkKind::Metadata, b"metadata");
    let payload = pack.add_map(&[Slice { chunk: payload, start: 0, length: 7 }]);
    let metadata = pack.add_map(&[Slice { chunk: metadata, start: 0, length: 8 }]);
    let files = ArchiveFiles::open(pack.finish(metadata, payload), None, CacheBudget::of(0)).unwrap();
    assert_eq!(read(&*files.payload, 0, 7).unwrap(), b"payload");
    assert_eq!(read(&*files.metadata, 0, 8).unwrap(), b"metadata");
}

fn class_of_payload(make: impl FnOnce(&mut Pack, Digest) -> StreamRoot) -> Class {
    let mut pack = Pack::new(PackHolds::Both);
    let chunk = pack.add(ChunkKind::Payload, &[1; 100]);
    let payload = make(&mut pack, chunk);
    let files = ArchiveFiles::open(pack.finish(payload, payload), None, CacheBudget::of(0)).unwrap();
    let length = usize::try_from(payload.length.min(1000)).unwrap();
    read(&*files.payload, payload.length - length as u64, length).unwrap_err().class
}

#[test]
fn maps_that_lie_are_found() {
    let whole = |chunk| Slice { chunk, start: 0, length: 100 };
    // A stream that is longer, or shorter, than its map.
    for length in [99, 101] {
        let class = class_of_payload(|pack, chunk| StreamRoot { length, ..pack.add_map(&[whole(chunk)]) });
        assert_eq!(class, Class::Corrupt);
    }
    // A slice beyond the end of its chunk.
    let class = class_of_payload(|pack, chunk| pack.add_map(&[Slice { start: 1, ..whole(chunk) }]));
    assert_eq!(class, Class::Corrupt);
    // A chunk, and a segment, that are not there.
    assert_eq!(class_of_payload(|pack, _| pack.add_map(&[whole(Digest::NONE)])), Class::Missing);
    assert_eq!(
        class_of_payload(|_, chunk| StreamRoot { root: chunk_id(ChunkKind::Segment, &chunk.0), length: 1 }),
        Class::Missing
    );
    // A chunk of the wrong kind as root, and as slice.
    assert_eq!(class_of_payload(|_, chunk| StreamRoot { root: chunk, length: 100 }), Class::Corrupt);
    let class = class_of_payload(|pack, _| {
        let metadata = pack.add(ChunkKind::Metadata, &[1; 100]);
        pack.add_map(&[whole(metadata)])
    });
    assert_eq!(class, Class::Corrupt);
    // Segments whose sums or levels are others than said above them.
    let node = |level: u64, lengths: [u64; 2], slices: u64| {
        class_of_payload(move |pack, chunk| {
            let leaf = pack.add_map(&[whole(chunk)]).root;
            let below = lengths.map(|length| SegmentRef { id: leaf, length, slices });
            let bytes = encode_node(level, &below).unwrap();
            pack.add(ChunkKind::Segment, &bytes);
            StreamRoot { root: segment_id(&bytes), length: lengths.iter().sum() }
        })
    };
    assert_eq!(node(1, [100, 99], 1), Class::Corrupt);
    assert_eq!(node(1, [100, u64::MAX - 100], 1), Class::Corrupt);
    assert_eq!(node(1, [100, 100], 2), Class::Corrupt);
    assert_eq!(node(2, [100, 100], 1), Class::Corrupt);
    // A node of one segment at the root.
    let class = class_of_payload(|pack, chunk| {
        let leaf = pack.add_map(&[whole(chunk)]);
        let bytes = encode_node(1, &[SegmentRef { id: leaf.root, length: 100, slices: 1 }]).unwrap();
        StreamRoot { root: pack.add(ChunkKind::Segment, &bytes), length: 100 }
    });
    assert_eq!(class, Class::Corrupt);
}

#[test]
fn a_stream_without_bytes_has_a_map_without_rows() {
    let (meta, _, _) = archive(&[], &[]);
    let files = ArchiveFiles::open(meta, None, CacheBudget::of(0)).unwrap();
    assert_eq!(files.payload.len(), 0);
    assert_eq!(files.payload.slices(0..0).unwrap(), []);
    assert_eq!(read(&*files.payload, 0, 0).unwrap(), b"");
    assert_eq!(read(&*files.payload, 0, 1).unwrap_err().class, Class::Truncated);
}
