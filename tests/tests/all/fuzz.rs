//! The bodies of the fuzz targets over all vectors and golden archives, and over mutations of them.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use diptych_format::pack::ChunkKind;
use diptych_tests::fuzz_bodies::{self, Body, stored_chunk};
use diptych_tests::vectors::{self, Input};
use diptych_tests::{Random, for_each_seed, heap};

/// What a body may hold at most.
const MEMORY_MAX: u64 = 256 << 20;

/// The bytes to begin with, for each body by its name.
fn corpus() -> BTreeMap<&'static str, Vec<Vec<u8>>> {
    let mut corpus: BTreeMap<&str, Vec<Vec<u8>>> = BTreeMap::new();
    // Contents of many MiB would take all the time.
    for vector in vectors::all().into_iter().filter(|vector| !vector.name.starts_with("3.1_")) {
        let name = match vector.input {
            Input::MetadataStream => "metadata_stream",
            Input::Pack => "pack",
            Input::Segment => "segment",
            Input::Manifest => "manifest",
            Input::Archive => "archive",
        };
        if vector.input == Input::MetadataStream && vector.bytes.len() < 5000 {
            let tables = tables_in(&vector.bytes);
            corpus.entry("table").or_default().extend(tables);
        }
        if vector.input == Input::Pack && vector.bytes.len() > 100 {
            // The chunks begin behind the pack's header.
            corpus.entry("chunk").or_default().push(vector.bytes[16..].to_vec());
        }
        corpus.entry(name).or_default().push(vector.bytes);
    }
    let golden = std::fs::read_dir(diptych_tests::root().join("spec/golden/v1")).unwrap();
    let golden = golden.filter_map(|folder| std::fs::read(folder.unwrap().path().join("archive.dpt")).ok());
    corpus.entry("archive").or_default().extend(golden.filter(|bytes| bytes.len() < 20_000));
    let chunks = [ChunkKind::Payload, ChunkKind::Metadata].map(|kind| stored_chunk(kind, b"content"));
    corpus.entry("chunk").or_default().extend(chunks);
    corpus
}

/// What looks like tables in a stream: from each tag of a body or of a single section to the next.
fn tables_in(stream: &[u8]) -> Vec<Vec<u8>> {
    let tags = [b"DIRB", b"IDXB", b"LNKB", b"HOLE", b"VALU", b"OWNR"];
    let is_start = |at: &usize| tags.iter().any(|tag| stream[*at..].starts_with(*tag));
    let mut starts: Vec<usize> = (0..stream.len()).step_by(8).filter(is_start).collect();
    starts.push(stream.len().saturating_sub(128));
    starts.windows(2).filter(|pair| pair[0] < pair[1]).map(|pair| stream[pair[0]..pair[1]].to_vec()).collect()
}

/// Runs a body and watches what it holds.
fn run(body: Body, bytes: &[u8]) {
    let ((), peak) = heap::peak_of(|| body(bytes));
    assert!(peak <= MEMORY_MAX, "{peak} bytes were held for {} bytes", bytes.len());
}

fn run_all(body: Body, seeds: &[Vec<u8>], cases: u64) {
    seeds.iter().for_each(|bytes| run(body, bytes));
    for_each_seed(cases, |random| {
        let mut bytes = random.pick(seeds).clone();
        for _ in 0..=random.below(4) {
            mutate(random, &mut bytes, seeds);
        }
        run(body, &bytes);
    });
}

/// Values that are at the border of something.
const BORDERS: [u64; 16] = [
    0,
    1,
    7,
    8,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0x8000,
    0xffff,
    0x1_0000,
    0x7fff_ffff,
    0xffff_ffff,
    u64::MAX / 2,
    u64::MAX,
];

fn mutate(random: &mut Random, bytes: &mut Vec<u8>, others: &[Vec<u8>]) {
    let length = bytes.len() as u64;
    if length == 0 {
        *bytes = random.pick(others).clone();
        return;
    }
    let at = random.below(length) as usize;
    let part = (random.below(24) + 1).min(length - at as u64) as usize;
    match random.below(10) {
        0..=2 => bytes[at] ^= 1 << random.below(8),
        3 => bytes[at] = random.any() as u8,
        4 | 5 => {
            let (value, width) = (random.pick(&BORDERS).to_le_bytes(), *random.pick(&[1, 2, 4, 8]));
            // Fields stand at multiples of their width.
            let start = at / width * width;
            bytes.iter_mut().skip(start).zip(&value[..width]).for_each(|(byte, value)| *byte = *value);
        }
        6 => drop(bytes.drain(at..at + part)),
        7 => {
            let copy = bytes[at..at + part].to_vec();
            bytes.splice(at..at, copy);
        }
        8 => bytes.truncate(at),
        _ => {
            let other = random.pick(others);
            let from = random.below(other.len() as u64 + 1) as usize;
            let piece = other[from..].iter().copied().take(64).collect::<Vec<u8>>();
            let end = (at + piece.len()).min(bytes.len());
            bytes.splice(at..end, piece);
        }
    }
}

fn fuzz(name: &str, cases: u64) {
    let corpus = corpus();
    let seeds = corpus.get(name).unwrap_or_else(|| panic!("nothing to begin {name} with"));
    let (_, body) = fuzz_bodies::ALL.iter().find(|(found, _)| *found == name).unwrap();
    run_all(*body, seeds, cases);
}

#[test]
fn metadata_streams() {
    fuzz("metadata_stream", 1500);
}

#[test]
fn tables() {
    fuzz("table", 3000);
}

#[test]
fn segments() {
    fuzz("segment", 3000);
}

#[test]
fn packs() {
    fuzz("pack", 1500);
}

#[test]
fn manifests() {
    fuzz("manifest", 3000);
}

#[test]
fn chunks() {
    fuzz("chunk", 1500);
}

#[test]
fn archives() {
    fuzz("archive", 600);
}

#[test]
fn failures_are_seen() {
    let seeds = corpus().remove("metadata_stream").unwrap();
    for body in [fuzz_bodies::canary as Body, fuzz_bodies::glutton] {
        let failed = catch_unwind(AssertUnwindSafe(|| run(body, &seeds[0])));
        assert!(failed.is_err(), "a body that fails was not seen");
    }
}

/// Each body is a target, and each target is a body.
#[test]
fn every_body_is_a_target() {
    let folder = diptych_tests::root().join("fuzz/fuzz_targets");
    let file = |file: std::io::Result<std::fs::DirEntry>| file.unwrap().path();
    let name = |path: std::path::PathBuf| path.file_stem().unwrap().to_string_lossy().into_owned();
    let mut targets: Vec<String> = std::fs::read_dir(folder).unwrap().map(file).map(name).collect();
    targets.sort();
    let mut bodies = fuzz_bodies::ALL.map(|(name, _)| name);
    bodies.sort_unstable();
    assert_eq!(targets, bodies);
}
