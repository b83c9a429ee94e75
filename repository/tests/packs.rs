//! Packs as a whole: what is written comes back, and damage is found wherever it is.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

use std::collections::BTreeMap;
use std::sync::Arc;

use diptych_format::pack::{ChunkHeader, ChunkKind, PackHolds, chunk_id, directory_digest, encode_directory};
use diptych_format::{Class, Digest, ReadAt, Stream};
use diptych_repository::pack::rebuild_directory;
use diptych_repository::{
    ChunkKeys, ChunkSource, Compression, Compressor, Decompressor, PackReader, PackWriter, Padding, Verify,
};
use proptest::collection::vec;
use proptest::prelude::*;

type Chunks = BTreeMap<(ChunkKind, Digest), Vec<u8>>;

/// Writes the chunks in the order in which they come, leaving out those that are there already.
fn write(holds: PackHolds, compression: Compression, raws: &[(ChunkKind, Vec<u8>)]) -> (Vec<u8>, Chunks) {
    let mut writer = PackWriter::new(Vec::new(), holds).unwrap();
    let mut compressor = Compressor::new(compression, ChunkKeys::plain(), Padding::None);
    let mut chunks = Chunks::new();
    for (kind, raw) in raws {
        let id = chunk_id(*kind, raw);
        if chunks.insert((*kind, id), raw.clone()).is_none() {
            let mut stored = Vec::new();
            compressor.store(*kind, id, raw, &mut stored).unwrap();
            writer.append(id, *kind, &stored).unwrap();
        }
    }
    let (bytes, stats) = writer.finish().unwrap();
    assert_eq!((stats.chunks, stats.pack_length), (chunks.len() as u64, bytes.len() as u64));
    (bytes, chunks)
}

/// Reads every chunk and compares; an error is the first that comes.
fn read_all(bytes: Vec<u8>, chunks: &Chunks) -> diptych_format::Result<()> {
    let pack = PackReader::open(Arc::new(bytes))?;
    let mut decompressor = Decompressor::default();
    for ((kind, id), raw) in chunks {
        let found = pack.read_chunk(*kind, id, Verify::Id, &mut decompressor)?;
        assert_eq!(&found[..], raw, "wrong bytes were handed out");
        decompressor.recycle(found);
    }
    assert_eq!(pack.chunks().len(), chunks.len());
    Ok(())
}

fn small_pack() -> (Vec<u8>, Chunks) {
    let raws = [
        (ChunkKind::Payload, vec![7; 300]),
        (ChunkKind::Metadata, b"metadata that does not compress".to_vec()),
        (ChunkKind::Segment, b"segment segment segment segment segment segment".to_vec()),
        (ChunkKind::Manifest, b"{}".to_vec()),
    ];
    write(PackHolds::Both, Compression::Zstd(3), &raws)
}

fn raw() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(any::<u8>(), 1..2000),
        (any::<u8>(), 1..5000_usize).prop_map(|(byte, length)| vec![byte; length]),
        (vec(any::<u8>(), 1..40), 1..300_usize).prop_map(|(part, times)| part.repeat(times)),
    ]
}

fn kind() -> impl Strategy<Value = ChunkKind> {
    prop_oneof![Just(ChunkKind::Payload), Just(ChunkKind::Metadata), Just(ChunkKind::Segment)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_packs_come_back(raws in vec((kind(), raw()), 0..40), level in 0..4_i32) {
        let compression = if level == 0 { Compression::None } else { Compression::Zstd(level) };
        let (bytes, chunks) = write(PackHolds::Both, compression, &raws);
        read_all(bytes.clone(), &chunks).unwrap();

        let pack = PackReader::open(Arc::new(bytes.clone())).unwrap();
        let rebuilt = rebuild_directory(&bytes).unwrap();
        prop_assert_eq!(&rebuilt.chunks[..], pack.chunks());
        prop_assert_eq!(pack.locate(&Digest::of(b"not there")), None);
        for chunk in pack.chunks() {
            prop_assert_eq!(pack.locate(&chunk.header.id), Some(*chunk));
        }
    }
}

#[test]
fn every_prefix_is_truncated_and_its_whole_chunks_can_be_found() {
    let (bytes, _) = small_pack();
    let all = PackReader::open(Arc::new(bytes.clone())).unwrap().chunks().to_vec();
    for end in 0..bytes.len() {
        let prefix = bytes[..end].to_vec();
        let error = PackReader::open(Arc::new(prefix.clone())).map(|_| ()).unwrap_err();
        assert_eq!(error.class, Class::Truncated, "{end}: {error}");
        assert_eq!(error.place.unwrap().0, Stream::Pack);
        match rebuild_directory(&prefix) {
            Ok(rebuilt) => {
                let whole =
                    all.iter().filter(|chunk| chunk.offset + chunk.header.whole_length() <= end as u64);
                assert_eq!(rebuilt.chunks, whole.copied().collect::<Vec<_>>());
            }
            Err(error) => assert!(end < 16 && error.class == Class::Truncated),
        }
    }
}

/// Where a change may leave everything as it was: a zstd frame has bits that its decoder does not look at.
fn frames(bytes: &[u8]) -> Vec<std::ops::Range<u64>> {
    let pack = PackReader::open(Arc::new(bytes.to_vec())).unwrap();
    let chunks =
        pack.chunks().iter().map(|chunk| chunk.offset + 48..chunk.offset + chunk.header.whole_length());
    chunks.filter(|data| bytes[data.start as usize - 8] == 1).collect()
}

#[test]
fn every_change_of_a_byte_is_found_or_changes_nothing() {
    let (bytes, chunks) = small_pack();
    read_all(bytes.clone(), &chunks).unwrap();
    let frames = frames(&bytes);
    assert!(!frames.is_empty());
    for at in 0..bytes.len() {
        let flips = (0..8).map(|bit| bytes[at] ^ 1 << bit);
        for value in flips.chain([0, 1, 2, 3, 4, 0x7f, 0xff]).filter(|value| *value != bytes[at]) {
            let mut changed = bytes.clone();
            changed[at] = value;
            let is_in_frame = frames.iter().any(|data| data.contains(&(at as u64)));
            assert!(read_all(changed, &chunks).is_err() || is_in_frame, "byte {at} as {value}");
        }
    }
}

/// A pack whose directory says what the test wants, with a trailer that fits it.
fn with_directory(bytes: &[u8], directory: &[u8]) -> Vec<u8> {
    let old = u64::from_le_bytes(bytes[bytes.len() - 32..bytes.len() - 24].try_into().unwrap()) as usize;
    let mut out = bytes[..bytes.len() - 64 - old].to_vec();
    out.extend(directory);
    out.extend(directory_digest(directory).0);
    out.extend((directory.len() as u64).to_le_bytes());
    out.extend((out.len() as u64 + 24).to_le_bytes());
    out.extend(&bytes[bytes.len() - 16..]);
    out
}

#[test]
fn directories_that_lie_are_found() {
    let (bytes, chunks) = small_pack();
    let pack = PackReader::open(Arc::new(bytes.clone())).unwrap();
    let headers: Vec<ChunkHeader> = pack.chunks().iter().map(|chunk| chunk.header).collect();
    let class = |change: &dyn Fn(&mut Vec<ChunkHeader>)| {
        let mut headers = headers.clone();
        change(&mut headers);
        read_all(with_directory(&bytes, &encode_directory(&headers, 0).unwrap()), &chunks).unwrap_err().class
    };
    read_all(with_directory(&bytes, &encode_directory(&headers, 0).unwrap()), &chunks).unwrap();
    assert_eq!(class(&|headers| headers[1].id = headers[0].id), Class::Corrupt);
    assert_eq!(class(&|headers| headers.swap(0, 1)), Class::Corrupt);
    assert_eq!(class(&|headers| headers[2].kind = ChunkKind::Metadata), Class::Corrupt);
    assert_eq!(class(&|headers| headers[0].stored_length += 1), Class::Corrupt);
    assert_eq!(class(&|headers| headers[3].stored_length = u32::MAX), Class::Limit);
    assert_eq!(class(&|headers| headers[0].id = Digest::NONE), Class::Missing);
    assert_eq!(
        class(&|headers| {
            headers[0].stored_length += 1;
            headers[1].stored_length -= 1;
        }),
        Class::Corrupt
    );
}

#[test]
fn a_seal_that_is_not_known_is_unsupported() {
    let (mut bytes, chunks) = small_pack();
    bytes[16 + 37] = 1;
    assert_eq!(read_all(bytes, &chunks).unwrap_err().class, Class::Unsupported);
}

#[test]
fn a_large_directory_is_found_in_one_read_more() {
    let raws: Vec<_> = (0..3000_u32).map(|n| (ChunkKind::Payload, n.to_le_bytes().to_vec())).collect();
    let (bytes, chunks) = write(PackHolds::Payload, Compression::None, &raws);
    assert!(bytes.len() > 200_000);
    read_all(bytes, &chunks).unwrap();
}

#[test]
fn what_is_stored_can_be_copied_as_it_is() {
    let (bytes, chunks) = small_pack();
    let pack = PackReader::open(Arc::new(bytes.clone())).unwrap();
    let mut writer = PackWriter::new(Vec::new(), PackHolds::Both).unwrap();
    let mut stored = Vec::new();
    for chunk in pack.chunks() {
        pack.read_unopened(chunk, &mut stored).unwrap();
        writer.append(chunk.header.id, chunk.header.kind, &stored).unwrap();
    }
    let (copy, _) = writer.finish().unwrap();
    assert_eq!(copy, bytes);
    read_all(copy, &chunks).unwrap();
}

#[test]
fn the_manifest_is_the_last_chunk_and_the_only_one() {
    let manifest = |n: u8| (ChunkKind::Manifest, vec![n]);
    let class = |raws: &[(ChunkKind, Vec<u8>)]| {
        let (bytes, _) = write(PackHolds::Metadata, Compression::None, raws);
        PackReader::open(Arc::new(bytes)).unwrap().manifest_id().map_err(|error| error.class)
    };
    let other = (ChunkKind::Segment, vec![9]);
    assert_eq!(class(&[other.clone(), manifest(1)]), Ok(chunk_id(ChunkKind::Manifest, &[1])));
    assert_eq!(class(&[manifest(1), other.clone()]), Err(Class::Corrupt));
    assert_eq!(class(&[manifest(1), manifest(2)]), Err(Class::Corrupt));
    assert_eq!(class(&[other]), Err(Class::Corrupt));
}

/// A file that says it is longer than it is must not make anyone allocate what it says.
struct Endless;

impl ReadAt for Endless {
    fn len(&self) -> u64 {
        u64::MAX
    }

    fn read_exact_at(&self, buf: &mut [u8], _: u64) -> diptych_format::Result<()> {
        buf.fill(0);
        Ok(())
    }
}

#[test]
fn an_endless_file_is_no_pack() {
    assert_eq!(PackReader::open(Arc::new(Endless)).map(|_| ()).unwrap_err().class, Class::Corrupt);
    assert_eq!(rebuild_directory(&Endless).unwrap_err().class, Class::Corrupt);
}
