//! Sealed chunks: they come back, nothing of them can be read or exchanged without the key, and lengths tell little.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

use std::sync::Arc;

use diptych_format::map::{Segment, Slice, encode_leaf_of};
use diptych_format::pack::{CHUNK_HEADER_LENGTH, ChunkHeader, ChunkKind, PackHolds, Seal};
use diptych_format::{Class, Digest, Result};
use diptych_repository::pack::rebuild_directory;
use diptych_repository::{
    ChunkKeys, ChunkSource, Compression, Compressor, Decompressor, MasterKey, PackReader, PackWriter,
    Padding, Verify,
};
use proptest::collection::vec;
use proptest::prelude::*;

const KINDS: [ChunkKind; 4] =
    [ChunkKind::Payload, ChunkKind::Metadata, ChunkKind::Segment, ChunkKind::Report];
/// Header, nonce, inner header, tag.
const OVERHEAD: usize = 40 + 24 + 8 + 16;

fn keys(n: u8) -> ChunkKeys {
    ChunkKeys::of(&MasterKey::from_bytes([n; 32]))
}

fn store(keys: &ChunkKeys, kind: ChunkKind, raw: &[u8], level: Compression, padding: Padding) -> Vec<u8> {
    let mut out = b"before".to_vec();
    let id = keys.chunk_id(kind, raw);
    Compressor::new(level, keys.clone(), padding).store(kind, id, raw, &mut out).unwrap();
    out.split_off(6)
}

fn open(keys: &ChunkKeys, stored: &[u8]) -> Result<Vec<u8>> {
    let header = ChunkHeader::decode(stored)?;
    let fill = |buffer: &mut [u8]| {
        buffer.copy_from_slice(&stored[..buffer.len()]);
        Ok(())
    };
    let whole = CHUNK_HEADER_LENGTH + header.stored_length as usize;
    assert!(whole <= stored.len() || keys.is_sealed());
    let bytes = Decompressor::new(keys.clone()).read_chunk(&header, Verify::Id, fill);
    bytes.map(|bytes| bytes.to_vec())
}

fn noise(length: usize) -> Vec<u8> {
    (0..length as u64).map(|n| Digest::of(&n.to_le_bytes()).0[0]).collect()
}

fn segment(rows: u64) -> Vec<u8> {
    let slice = |n: u64| Slice { chunk: Digest::of(&(n % 7).to_le_bytes()), start: n as u32 * 3, length: 1 };
    let slices: Vec<Slice> = (0..rows).map(slice).collect();
    encode_leaf_of(&slices, |_| 4000).unwrap()
}

fn raw_of(kind: ChunkKind) -> Vec<u8> {
    if kind == ChunkKind::Segment {
        segment(20)
    } else {
        b"some content, some content, some content".to_vec()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Spec: R-5-3 to R-5-6
    #[test]
    fn sealed_chunks_come_back(
        raw in prop_oneof![
            vec(any::<u8>(), 1..3000),
            (vec(any::<u8>(), 1..40), 1..300_usize).prop_map(|(part, times)| part.repeat(times)),
        ],
        rows in 0..200_u64,
        level in 0..3,
        is_padded in any::<bool>(),
    ) {
        let compression = if level == 0 { Compression::None } else { Compression::Zstd(level) };
        let padding = if is_padded { Padding::Padme } else { Padding::None };
        let keys = keys(1);
        let segment = segment(rows);
        let mut decompressor = Decompressor::new(keys.clone());
        for kind in KINDS {
            let raw = if kind == ChunkKind::Segment { &segment } else { &raw };
            let stored = store(&keys, kind, raw, compression, padding);
            let header = ChunkHeader::decode(&stored).unwrap();
            prop_assert_eq!(header.seal.number(), if kind == ChunkKind::Segment { 2 } else { 1 });
            let fill = |buffer: &mut [u8]| {
                buffer.copy_from_slice(&stored);
                Ok(())
            };
            let bytes = decompressor.read_chunk(&header, Verify::Id, fill).unwrap();
            prop_assert_eq!(&bytes[..], &raw[..]);
            decompressor.recycle(bytes);
        }
    }

    #[test]
    fn hostile_bytes_are_never_opened(bytes in vec(any::<u8>(), 0..400), kind in 0..4_usize) {
        let kind = KINDS[kind];
        let keys = keys(1);
        let stored_length = bytes.len() as u32;
        let header = ChunkHeader { id: Digest::NONE, stored_length, kind, seal: keys.seal_of(kind) };
        let mut bytes = bytes;
        let opened = Decompressor::new(keys).open_chunk(&header, &mut bytes, Verify::Id, &mut Vec::new()).map(<[u8]>::len);
        prop_assert_eq!(opened.unwrap_err().class, Class::Corrupt);
    }
}

/// Spec: R-5-8
#[test]
fn every_flip_is_refused() {
    let keys = keys(1);
    for kind in KINDS {
        for level in [Compression::None, Compression::Zstd(1)] {
            let stored = store(&keys, kind, &raw_of(kind), level, Padding::Padme);
            assert_eq!(open(&keys, &stored).unwrap(), raw_of(kind));
            for bit in 0..stored.len() * 8 {
                let mut changed = stored.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                // A length beyond what is there is none that a pack's directory would say.
                let header = ChunkHeader::decode(&changed);
                let is_longer = header.is_ok_and(|header| header.whole_length() > stored.len() as u64);
                assert!(is_longer || open(&keys, &changed).is_err(), "{kind:?}: bit {bit}");
            }
        }
    }
}

#[test]
fn a_header_of_another_chunk_does_not_fit() {
    let keys = keys(1);
    let [a, b] =
        [b"a", b"b"].map(|raw| store(&keys, ChunkKind::Payload, raw, Compression::None, Padding::None));
    let swapped = [&a[..40], &b[40..]].concat();
    assert_eq!(open(&keys, &swapped).unwrap_err().class, Class::Corrupt);
    // Nor does a caller that compares digests itself get bytes of another chunk.
    let header = ChunkHeader::decode(&swapped).unwrap();
    let mut stored = swapped[40..].to_vec();
    let opened = Decompressor::new(keys.clone())
        .open_chunk(&header, &mut stored, Verify::Caller, &mut Vec::new())
        .map(<[u8]>::len);
    assert_eq!(opened.unwrap_err().class, Class::Corrupt);
    // The same bytes are another chunk as metadata.
    let mut other_kind = a.clone();
    other_kind[36] = ChunkKind::Metadata.number();
    assert_eq!(open(&keys, &other_kind).unwrap_err().class, Class::Corrupt);
}

#[test]
fn ids_of_a_segment_cannot_be_exchanged() {
    let keys = keys(1);
    let raw = segment(20);
    let stored = store(&keys, ChunkKind::Segment, &raw, Compression::Zstd(1), Padding::None);
    let count = u32::from_le_bytes(stored[40..44].try_into().unwrap());
    assert_eq!(count, 7);
    let ids: Vec<Digest> = Segment::parse(&raw).unwrap().ids().collect();
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(stored[44 + 32 * n..][..32], id.0);
    }
    let mut swapped = stored.clone();
    swapped[44..76].copy_from_slice(&ids[1].0);
    swapped[76..108].copy_from_slice(&ids[0].0);
    assert_eq!(open(&keys, &swapped).unwrap_err().class, Class::Corrupt);
    for count in [0, 6, 8, u32::MAX] {
        let mut changed = stored.clone();
        changed[40..44].copy_from_slice(&count.to_le_bytes());
        assert_eq!(open(&keys, &changed).unwrap_err().class, Class::Corrupt, "{count}");
    }
}

/// Spec: R-5-7
#[test]
fn who_has_a_key_takes_nothing_plain_and_who_has_none_nothing_sealed() {
    for kind in KINDS {
        let raw = raw_of(kind);
        let sealed = store(&keys(1), kind, &raw, Compression::None, Padding::None);
        let plain = store(&ChunkKeys::plain(), kind, &raw, Compression::None, Padding::None);
        assert_eq!(open(&ChunkKeys::plain(), &plain).unwrap(), raw);
        assert_eq!(open(&ChunkKeys::plain(), &sealed).unwrap_err().class, Class::Unsupported);
        assert_eq!(open(&keys(1), &plain).unwrap_err().class, Class::Corrupt);
        assert_eq!(open(&keys(2), &sealed).unwrap_err().class, Class::Corrupt);
        // A chunk of a plain repository under the id that it would have here.
        let id = keys(1).chunk_id(kind, &raw);
        let mut forged = Vec::new();
        let mut compressor = Compressor::new(Compression::None, ChunkKeys::plain(), Padding::None);
        compressor.store(kind, id, &raw, &mut forged).unwrap();
        assert_eq!(open(&keys(1), &forged).unwrap_err().class, Class::Corrupt);
    }
    let mut out = Vec::new();
    let mut compressor = Compressor::new(Compression::None, keys(1), Padding::None);
    let manifest = compressor.store(ChunkKind::Manifest, Digest::NONE, b"{}", &mut out);
    assert_eq!(manifest.unwrap_err().class, Class::Corrupt);
}

/// Spec: R-5-6
#[test]
fn padding_makes_lengths_alike() {
    let keys = keys(1);
    let length = |raw: usize, padding| {
        let stored = store(&keys, ChunkKind::Payload, &noise(raw), Compression::None, padding);
        assert_eq!(open(&keys, &stored).unwrap().len(), raw);
        stored.len() - (OVERHEAD - 8)
    };
    assert_eq!(length(1000, Padding::None), 1008);
    for raw in [1000, 1001, 1010, 1016] {
        assert_eq!(length(raw, Padding::Padme), 1024);
    }
    assert_eq!(length(1017, Padding::Padme), 1088);
    assert_eq!(length(100_000, Padding::Padme), 100_352);
    // Of what compresses, the compressed length is padded.
    let stored = store(&keys, ChunkKind::Payload, &vec![7; 100_000], Compression::Zstd(1), Padding::Padme);
    assert!(stored.len() < 200);
    assert_eq!(open(&keys, &stored).unwrap(), vec![7; 100_000]);
    let plain =
        store(&ChunkKeys::plain(), ChunkKind::Payload, &noise(1000), Compression::None, Padding::Padme);
    assert_eq!(plain.len(), 1048);
}

#[test]
fn the_largest_chunk_can_be_sealed_and_padded() {
    let keys = keys(1);
    let raw = noise(1 << 16).repeat((36 << 20) >> 16);
    let stored = store(&keys, ChunkKind::Metadata, &raw, Compression::None, Padding::Padme);
    assert!(open(&keys, &stored).unwrap() == raw);
}

#[test]
fn equal_contents_are_one_chunk_here_and_another_elsewhere() {
    let stored = |n| store(&keys(n), ChunkKind::Payload, b"content", Compression::None, Padding::None);
    let [first, again, elsewhere] = [stored(1), stored(1), stored(2)];
    assert_eq!(first[..40], again[..40]);
    assert_ne!(first[40..], again[40..]);
    assert_ne!(first[..32], elsewhere[..32]);
}

/// Spec: R-5-2, R-5-9
#[test]
fn a_sealed_pack_holds_no_plain_byte_and_comes_back() {
    let keys = keys(1);
    let text = b"the name of a file that nobody should see".repeat(30);
    let mut writer = PackWriter::new(Vec::new(), PackHolds::Metadata).unwrap();
    let mut compressor = Compressor::new(Compression::None, keys.clone(), Padding::Padme);
    let raws =
        [(ChunkKind::Metadata, text.clone()), (ChunkKind::Segment, segment(300)), (ChunkKind::Report, text)];
    for (kind, raw) in &raws {
        let (id, mut stored) = (keys.chunk_id(*kind, raw), Vec::new());
        compressor.store(*kind, id, raw, &mut stored).unwrap();
        writer.append(id, *kind, &stored).unwrap();
    }
    let (bytes, _) = writer.finish().unwrap();
    for part in [&b"name of a file"[..], b"SEGS", b"SEGC"] {
        assert!(!bytes.windows(part.len()).any(|window| window == part));
    }
    for (_, raw) in &raws {
        let plain = Digest::of(raw).0;
        assert!(!bytes.windows(32).any(|window| window == plain));
    }
    let pack = PackReader::open(Arc::new(bytes.clone())).unwrap();
    let seals: Vec<Seal> = pack.chunks().iter().map(|chunk| chunk.header.seal).collect();
    assert_eq!(seals, [Seal::Sealed, Seal::Segment, Seal::Sealed]);
    assert_eq!(rebuild_directory(&bytes).unwrap().chunks, pack.chunks());
    for (kind, raw) in &raws {
        let id = keys.chunk_id(*kind, raw);
        let found = pack.read_chunk(*kind, &id, Verify::Id, &mut Decompressor::new(keys.clone())).unwrap();
        assert_eq!(&found[..], raw);
    }
    let as_archive = PackReader::open_archive(Arc::new(bytes)).map(|_| ());
    assert_eq!(as_archive.unwrap_err().class, Class::Unsupported);
}

#[test]
fn a_report_is_unknown_in_archive_files() {
    let mut writer = PackWriter::new(Vec::new(), PackHolds::Metadata).unwrap();
    let stored = store(&ChunkKeys::plain(), ChunkKind::Report, b"{}", Compression::None, Padding::None);
    writer.append(ChunkKeys::plain().chunk_id(ChunkKind::Report, b"{}"), ChunkKind::Report, &stored).unwrap();
    let bytes = Arc::new(writer.finish().unwrap().0);
    assert!(PackReader::open(bytes.clone()).is_ok());
    assert_eq!(PackReader::open_archive(bytes).map(|_| ()).unwrap_err().class, Class::Unsupported);
}
