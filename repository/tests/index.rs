//! Index files one by one: every row is found, and nothing that was not written is believed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use diptych_format::pack::{ChunkHeader, ChunkKind, PackHolds, Seal};
use diptych_format::pack_index::{
    INDEX_HEADER_LENGTH, INDEX_ROW_LENGTH, IndexHeader, IndexPack, IndexRow, decode_fan_out, encode_index,
};
use diptych_format::{Class, Digest, ReadAt};
use diptych_repository::{DocumentKeys, IndexFile, MasterKey};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

fn mac() -> blake3::Hasher {
    DocumentKeys::plain().index_hasher()
}

fn packs(count: u8) -> Vec<IndexPack> {
    let pack = |n| IndexPack {
        name: Digest([n; 32]),
        length: 1 << 20,
        chunks: 1,
        holds: if n % 2 == 0 { PackHolds::Payload } else { PackHolds::Metadata },
    };
    (0..count).map(pack).collect()
}

fn row(id: Digest, pack: u32, offset: u32) -> IndexRow {
    let kind = if pack.is_multiple_of(2) { ChunkKind::Payload } else { ChunkKind::Segment };
    let header = ChunkHeader { id, stored_length: 8 + offset % 77, kind, seal: Seal::None };
    IndexRow { header, pack, offset: 16 + offset }
}

fn encode(packs: &[IndexPack], replaces: &[Digest], rows: &[IndexRow]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_index(&mut out, &mac(), packs, replaces, || Ok(rows.iter().copied().map(Ok))).unwrap();
    out
}

fn open(bytes: Vec<u8>) -> diptych_format::Result<IndexFile> {
    IndexFile::open(Arc::new(bytes), &mac())
}

fn find_all(index: &IndexFile, id: &Digest) -> Vec<IndexRow> {
    let mut found = Vec::new();
    index
        .find_map(id, |row| {
            found.push(row);
            None::<()>
        })
        .unwrap();
    found
}

/// Ids many of which begin alike, so that buckets are empty, usual, and far larger than one read.
fn id() -> impl Strategy<Value = Digest> {
    let tail = |n: u16| Digest::of(&n.to_le_bytes()).0;
    (prop_oneof![Just(0), Just(0), Just(0xff), any::<u8>()], 0..900_u16).prop_map(move |(first, n)| {
        let mut id = if first == 0 { [0; 32] } else { tail(n) };
        id[0] = first;
        id[30..].copy_from_slice(&n.to_be_bytes());
        Digest(id)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_row_is_found_and_no_other(
        places in btree_map((id(), 0..6_u32), 0..100_000_u32, 0..900),
        others in vec(id(), 0..60),
    ) {
        let rows: Vec<IndexRow> = places.iter().map(|((id, pack), offset)| row(*id, *pack, *offset)).collect();
        let replaces = [Digest([1; 32]), Digest([2; 32])];
        let index = open(encode(&packs(6), &replaces, &rows)).unwrap();
        prop_assert_eq!(index.rows().collect::<Result<Vec<_>, _>>().unwrap(), &rows[..]);
        prop_assert_eq!((index.chunks(), index.packs()), (rows.len() as u64, &packs(6)[..]));
        prop_assert_eq!(index.replaces(), replaces);
        let mut by_id: BTreeMap<Digest, Vec<IndexRow>> = BTreeMap::new();
        rows.iter().for_each(|row| by_id.entry(row.header.id).or_default().push(*row));
        for (id, rows) in &by_id {
            prop_assert_eq!(&find_all(&index, id), rows);
        }
        for id in others {
            prop_assert_eq!(find_all(&index, &id), by_id.get(&id).cloned().unwrap_or_default());
        }
    }
}

/// Bytes that count how often they are read.
struct Counted(Vec<u8>, std::sync::atomic::AtomicU64);

impl ReadAt for Counted {
    fn len(&self) -> u64 {
        ReadAt::len(&self.0)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> diptych_format::Result<()> {
        self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.0.read_exact_at(buf, offset)
    }
}

#[test]
fn one_read_finds_a_chunk_or_shows_that_there_is_none() {
    let ids = (0..20_000_u32).map(|n| Digest::of(&n.to_le_bytes()));
    let mut rows: Vec<IndexRow> = ids.map(|id| row(id, 0, 0)).collect();
    rows.sort_by_key(IndexRow::key);
    let file = Arc::new(Counted(encode(&packs(1), &[], &rows), Default::default()));
    let index = IndexFile::open(file.clone(), &mac()).unwrap();
    let reads = || file.1.swap(0, std::sync::atomic::Ordering::Relaxed);
    reads();
    for n in 0..1000_u32 {
        let is_there = n % 2 == 0;
        let id = Digest::of(&(if is_there { n } else { n + 20_000 }).to_le_bytes());
        assert_eq!(find_all(&index, &id).len(), usize::from(is_there));
        assert_eq!(reads(), 1);
    }
}

fn small() -> (Vec<u8>, Vec<IndexRow>) {
    let mut rows: Vec<IndexRow> =
        (0..5_u32).map(|n| row(Digest::of(&n.to_le_bytes()), n % 2, 50 * n)).collect();
    rows.sort_by_key(IndexRow::key);
    (encode(&packs(2), &[Digest([9; 32])], &rows), rows)
}

/// Spec: R-8-4, R-8-6.
#[test]
fn every_flip_is_refused() {
    let (bytes, _) = small();
    assert!(open(bytes.clone()).is_ok());
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(open(flipped).is_err(), "bit {bit} was flipped and nobody saw");
    }
}

/// Spec: R-8-5.
#[test]
fn a_truncated_index_is_truncated_and_a_longer_one_corrupt() {
    let (mut bytes, _) = small();
    for length in 0..bytes.len() {
        assert_eq!(open(bytes[..length].to_vec()).err().unwrap().class, Class::Truncated, "{length}");
    }
    bytes.push(0);
    assert_eq!(open(bytes).err().unwrap().class, Class::Corrupt);
}

/// Spec: R-8-4.
#[test]
fn an_index_of_another_repository_is_refused() {
    let [ours, theirs] = [[1; 32], [2; 32]].map(|key| DocumentKeys::of(&MasterKey::from_bytes(key)));
    let mut bytes = Vec::new();
    let none = || Ok(std::iter::empty());
    encode_index(&mut bytes, &ours.index_hasher(), &[], &[], none).unwrap();
    assert!(IndexFile::open(Arc::new(bytes.clone()), &ours.index_hasher()).is_ok());
    for foreign in [theirs.index_hasher(), mac()] {
        let error = IndexFile::open(Arc::new(bytes.clone()), &foreign).err().unwrap();
        assert_eq!(error.class, Class::Corrupt);
    }
}

/// Puts the right end to bytes that were changed: whoever has the key, or needs none, can write anything.
fn signed(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.len() - 32;
    let code = mac().update(&bytes[..end]).finalize();
    bytes[end..].copy_from_slice(code.as_bytes());
    bytes
}

/// Spec: R-8-1 to R-8-3, R-8-5.
#[test]
fn what_breaks_a_rule_is_refused_whoever_wrote_it() {
    let (bytes, rows) = small();
    let layout = IndexHeader::decode(&bytes).unwrap().layout();
    let changed = |at: u64, part: &[u8]| {
        let mut changed = bytes.clone();
        changed[at as usize..][..part.len()].copy_from_slice(part);
        assert_ne!(changed, bytes);
        open(signed(changed)).err().unwrap().class
    };
    let swapped = [rows[1].encode(), rows[0].encode()].concat();
    assert_eq!(changed(layout.row(0), &swapped), Class::Corrupt);
    assert_eq!(changed(layout.row(1), &rows[0].encode()), Class::Corrupt);
    assert_eq!(changed(layout.row(0), &IndexRow { pack: 2, ..rows[0] }.encode()), Class::Corrupt);
    assert_eq!(changed(layout.row(0), &IndexRow { offset: 15, ..rows[0] }.encode()), Class::Corrupt);
    assert_eq!(changed(layout.row(0), &IndexRow { offset: 1 << 20, ..rows[0] }.encode()), Class::Corrupt);
    assert_eq!(changed(layout.fan_out, &4_u32.to_le_bytes()), Class::Corrupt);
    assert_eq!(changed(layout.fan_out, &6_u32.to_le_bytes()), Class::Corrupt);
    assert_eq!(changed(32, &[3; 32]), Class::Corrupt);
    assert_eq!(changed(8, &[2]), Class::Unsupported);
    let two = encode(&packs(1), &[Digest([1; 32]), Digest([2; 32])], &[]);
    let mut twice = two.clone();
    twice[32 + 48..][..32].copy_from_slice(&[2; 32]);
    assert_eq!(open(signed(twice)).err().unwrap().class, Class::Corrupt);
}

/// Spec: R-8-2, R-8-5.
#[test]
fn rows_stand_in_the_bucket_of_their_id() {
    let mut rows: Vec<IndexRow> =
        (0..200_u32).map(|n| row(Digest::of(&n.to_le_bytes()), 0, 50 * n)).collect();
    rows.sort_by_key(IndexRow::key);
    let bytes = encode(&packs(1), &[], &rows);
    let header = IndexHeader::decode(&bytes).unwrap();
    let layout = header.layout();
    let at = layout.fan_out as usize;
    let counts = decode_fan_out(&bytes[at..layout.rows as usize], 200).unwrap();
    assert!(counts.len() > 2);
    let mut changed = bytes.clone();
    changed[at..][..4].copy_from_slice(&(counts[0] - 1).to_le_bytes());
    assert_eq!(open(signed(changed)).err().unwrap().class, Class::Corrupt);
    assert_eq!(bytes.len() as u64, layout.rows + 200 * INDEX_ROW_LENGTH as u64 + 32);
}

/// A header, and then a hole.
struct Hole {
    header: [u8; INDEX_HEADER_LENGTH],
    length: u64,
    longest_read: AtomicUsize,
}

impl ReadAt for Hole {
    fn len(&self) -> u64 {
        self.length
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> diptych_format::Result<()> {
        self.longest_read.fetch_max(buf.len(), Ordering::Relaxed);
        buf.fill(0);
        if offset == 0 {
            buf[..INDEX_HEADER_LENGTH].copy_from_slice(&self.header);
        }
        Ok(())
    }
}

#[test]
fn what_a_hole_claims_costs_no_memory() {
    let header = IndexHeader { fan_bits: 0, chunks: 0, packs: 400_000, replaces: 400_000 };
    let length = header.layout().length();
    let hole = Arc::new(Hole { header: header.encode(), length, longest_read: AtomicUsize::new(0) });
    assert_eq!(IndexFile::open(hole.clone(), &mac()).err().unwrap().class, Class::Corrupt);
    assert!(hole.longest_read.load(Ordering::Relaxed) < 256 << 10, "{:?}", hole.longest_read);
}

#[test]
fn more_packs_than_are_read_at_once_come_back() {
    let pack = |n: u32| {
        let mut name = [0; 32];
        name[..4].copy_from_slice(&n.to_be_bytes());
        IndexPack { name: Digest(name), length: 1 << 20, chunks: 1, holds: PackHolds::Payload }
    };
    let packs: Vec<IndexPack> = (0..9_000).map(pack).collect();
    let replaces: Vec<Digest> = packs.iter().map(|pack| pack.name).collect();
    let index = open(encode(&packs, &replaces, &[])).unwrap();
    assert_eq!(index.packs(), packs);
    assert_eq!(index.replaces(), replaces);
}
