//! Stored bytes as they were first written, so that the format cannot drift unnoticed: a chunk, a segment, a key file
//! and a snapshot, sealed with nonces that are not random.
//!
//! They were made a second time by a program that shares no code with this one.

use diptych_format::map::{Slice, encode_leaf};
use diptych_format::pack::{CHUNK_HEADER_LENGTH, ChunkHeader, ChunkKind};
use diptych_format::{Digest, Result};

use crate::chunk::{Compression, Compressor, Decompressor, Verify};
use crate::documents::{
    ArchiveRecord, Body, Clock, KeyDocument, KeyOwner, Report, RepositoryId, Snapshot, SnapshotDocument,
    SnapshotKind, StreamRecord,
};
use crate::keys::{ChunkKeys, DocumentKeys, Kdf, MasterKey, NONCE_LENGTH, Padding};

const REPOSITORY: RepositoryId = RepositoryId([0x11; 32]);
const NONCE: [u8; NONCE_LENGTH] = *b"not a random nonce here!";

fn master() -> MasterKey {
    MasterKey::from_bytes(std::array::from_fn(|n| n as u8))
}

fn time() -> jiff::Timestamp {
    "2026-11-21T07:00:00Z".parse().unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn stored(kind: ChunkKind, raw: &[u8]) -> Vec<u8> {
    let keys = ChunkKeys::with_nonce(&master(), NONCE);
    let mut out = Vec::new();
    let mut compressor = Compressor::new(Compression::None, keys.clone(), Padding::Padme);
    compressor.store(kind, keys.chunk_id(kind, raw), raw, &mut out).unwrap();
    assert_eq!(open(&out).unwrap(), raw);
    out
}

fn open(stored: &[u8]) -> Result<Vec<u8>> {
    let header = ChunkHeader::decode(stored)?;
    let mut bytes = stored[CHUNK_HEADER_LENGTH..].to_vec();
    let mut decompressor = Decompressor::new(ChunkKeys::of(&master()));
    decompressor.open_chunk(&header, &mut bytes, Verify::Id, &mut Vec::new()).map(<[u8]>::to_vec)
}

#[test]
fn a_sealed_chunk() {
    assert_eq!(
        hex(&stored(ChunkKind::Payload, b"the golden chunk")),
        "d08d57d432afc2e5c6870c0c4667c7964b962120fbe2a322bd30664f899dc0fe40000000010100006e6f74206120726\
     16e646f6d206e6f6e63652068657265219c718cb5bac5c4757e590f3a01d066810a087a17be62b1f2c3bb5054d46fac\
     652dc322ae5ff3ed79"
    );
}

#[test]
fn a_sealed_segment() {
    let slice = |byte, start| Slice { chunk: Digest([byte; 32]), start, length: 9 };
    let raw = encode_leaf(&[slice(0xaa, 0), slice(0xbb, 1), slice(0xaa, 300)]).unwrap();
    let stored = stored(ChunkKind::Segment, &raw);
    assert_eq!(
        Digest::of(&stored).to_string(),
        "28c6aa929026d00520ec4ac3fcc0ef6a796d4ecc02935e5572013e2e3f0f916f"
    );
}

#[test]
fn a_key_file() {
    let owner = KeyOwner { created: time(), user: "u".into(), host: "h".into(), label: "first".into() };
    let kdf = Kdf { memory_kib: 64, passes: 2, lanes: 2, salt: [0x22; 16] };
    let document =
        KeyDocument::wrap_with_nonce(&master(), REPOSITORY, b"password", owner, kdf, NONCE).unwrap();
    let text = String::from_utf8(document.encode().unwrap()).unwrap();
    assert_eq!(text, GOLDEN_KEY_FILE);
    let found = KeyDocument::decode(text.as_bytes()).unwrap().unwrap(&REPOSITORY, b"password").unwrap();
    assert_eq!(found.map(|found| *found.bytes()), Some(*master().bytes()));
}

const GOLDEN_KEY_FILE: &str = "\
     {\"format\":\"diptych-key\",\"version\":1,\"repository\":\"111111111111111111111111111111111111\
     1111111111111111111111111111\",\"created\":\"2026-11-21T07:00:00Z\",\"user\":\"u\",\"host\":\"\
     h\",\"label\":\"first\",\"kdf\":{\"algorithm\":\"argon2id\",\"memory_kib\":64,\"passes\":2,\"la\
     nes\":2,\"salt\":\"22222222222222222222222222222222\"},\"wrapped\":\"6e6f7420612072616e646f6d20\
     6e6f6e6365206865726521fa9af3697c8ea701271286878a8d1d1e33f49e938275ab70cb6a2cd6d8bc5fc6a1a5d3308\
     bad5265bdf39f553484c75a\"}";

#[test]
fn a_snapshot() {
    let stream = |byte| StreamRecord { root: Digest([byte; 32]), length: 160 };
    let snapshot = Snapshot {
        time: time(),
        host: "h".into(),
        user: "u".into(),
        tags: vec!["daily".into()],
        tool: "diptych 0.1.0".into(),
        base: Some(Digest([0x44; 32])),
        replaces: None,
        archives: vec![ArchiveRecord {
            name: b"home".to_vec(),
            path: Some(b"/home/\xff\\".to_vec()),
            tree_id: Digest([0x55; 32]),
            complete: true,
            entries: 3,
            content_bytes: 7,
            metadata: stream(0x66),
            payload: stream(0x77),
            started: Clock { seconds: 1_795_244_400, nanoseconds: 5 },
            sparse_chunks: vec![Digest([0x88; 32])],
            sample: 4,
        }],
        report: Some(Report { id: Digest([0x99; 32]), losses: 1, changed: 0 }),
    };
    let document = SnapshotDocument {
        repository: REPOSITORY,
        kind: SnapshotKind::Snapshot,
        body: Body::Snapshot(snapshot),
    };
    let plain = document.encode(&DocumentKeys::plain()).unwrap();
    assert_eq!(String::from_utf8(plain).unwrap(), GOLDEN_SNAPSHOT);
    let sealed = document.encode(&DocumentKeys::with_nonce(&master(), NONCE)).unwrap();
    assert_eq!(
        Digest::of(&sealed).to_string(),
        "cbfd749bf5468fbe96a6268ce73d5ee139a9169ddc7a849991f0b99d163ea7a9"
    );
    let found = SnapshotDocument::decode(&sealed, &DocumentKeys::of(&master()), &REPOSITORY).unwrap();
    assert_eq!(found, document);
}

const GOLDEN_SNAPSHOT: &str = "\
     {\"format\":\"diptych-snapshot\",\"version\":1,\"repository\":\"1111111111111111111111111111111\
     111111111111111111111111111111111\",\"kind\":\"snapshot\",\"roots\":[\"666666666666666666666666\
     6666666666666666666666666666666666666666\",\"77777777777777777777777777777777777777777777777777\
     77777777777777\",\"9999999999999999999999999999999999999999999999999999999999999999\"],\"body\"\
     :{\"time\":\"2026-11-21T07:00:00Z\",\"host\":\"h\",\"user\":\"u\",\"tags\":[\"daily\"],\"tool\"\
     :\"diptych 0.1.0\",\"base\":\"444444444444444444444444444444444444444444444444444444444444444\
     4\",\"archives\":[{\"name\":\"home\",\"path\":\"/home/\\\\xff\\\\\\\\\",\"tree_id\":\"555555555\
     5555555555555555555555555555555555555555555555555555555\",\"complete\":true,\"entries\":3,\"con\
     tent_bytes\":7,\"metadata\":{\"root\":\"6666666666666666666666666666666666666666666666666666666\
     666666666\",\"length\":160},\"payload\":{\"root\":\"7777777777777777777777777777777777777777777\
     777777777777777777777\",\"length\":160},\"started\":{\"seconds\":1795244400,\"nanoseconds\":5}\
     ,\"sparse_chunks\":[\"8888888888888888888888888888888888888888888888888888888888888888\"],\"sam\
     ple\":4}],\"report\":{\"id\":\"999999999999999999999999999999999999999999999999999999999999999\
     9\",\"losses\":1,\"changed\":0}}}";
