//! How long a large pack index takes to make, merge, open and search, and in how much memory.
//!
//! `cargo run --release -p diptych-bench --example index -- DIRECTORY [MILLIONS]` makes a repository's index of as many
//! million chunks (20 if none are named) in an empty directory, as runs of a million each would leave it.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "it is run by hand, and says what it found")]

use std::sync::Arc;
use std::time::Instant;

use diptych_backend::{Backend, FileKind, FileName};
use diptych_format::Digest;
use diptych_format::pack::{ChunkHeader, ChunkKind, PackHolds, Seal};
use diptych_format::pack_index::{IndexPack, IndexRow, encode_index};
use diptych_repository::{DocumentKeys, Index};

const RUN_CHUNKS: u64 = 1_000_000;
const PACK_CHUNKS: u64 = 700;
const STORED_LENGTH: u32 = 45_000;
const LOOK_UPS: u64 = 1_000_000;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let Some(directory) = arguments.next() else {
        println!("name an empty directory with some room, and how many million chunks (20)");
        return;
    };
    let runs: u64 = arguments.next().map_or(20, |millions| millions.parse().unwrap());
    let backend: Arc<dyn Backend> = diptych_backend::open(&directory).unwrap();
    backend.make_layout().unwrap();
    let mac = DocumentKeys::plain().index_hasher();

    let start = Instant::now();
    (0..runs).for_each(|run| write_run(&*backend, &mac, run));
    tell("made", start, runs * RUN_CHUNKS, "rows");

    let start = Instant::now();
    let index = Index::open(backend, mac.clone()).unwrap();
    tell("opened", start, runs * RUN_CHUNKS, "rows");

    look_up(&index, runs);
    let start = Instant::now();
    let written = index.merge_levels().unwrap();
    println!("{written} files written:");
    tell("merged", start, runs * RUN_CHUNKS, "rows");
    look_up(&index, runs);
}

fn id(n: u64) -> Digest {
    Digest::of(&n.to_le_bytes())
}

fn write_run(backend: &dyn Backend, mac: &blake3::Hasher, run: u64) {
    let packs = RUN_CHUNKS.div_ceil(PACK_CHUNKS);
    let pack = |n: u64| IndexPack {
        name: Digest::in_context("diptych bench pack", &(run * packs + n).to_le_bytes()),
        length: 32 << 20,
        chunks: PACK_CHUNKS as u32,
        holds: PackHolds::Payload,
    };
    let mut packs: Vec<IndexPack> = (0..packs).map(pack).collect();
    packs.sort_by_key(|pack| pack.name);
    let row = |n: u64| IndexRow {
        header: ChunkHeader {
            id: id(run * RUN_CHUNKS + n),
            stored_length: STORED_LENGTH,
            kind: ChunkKind::Payload,
            seal: Seal::None,
        },
        pack: (n / PACK_CHUNKS) as u32,
        offset: 16 + (n % PACK_CHUNKS) as u32 * (40 + STORED_LENGTH),
    };
    let mut rows: Vec<IndexRow> = (0..RUN_CHUNKS).map(row).collect();
    rows.sort_unstable_by_key(IndexRow::key);
    let mut bytes = Vec::new();
    encode_index(&mut bytes, mac, &packs, &[], || Ok(rows.iter().copied().map(Ok))).unwrap();
    let mut file = backend.create(FileKind::Index).unwrap();
    file.write_all(&bytes).unwrap();
    file.keep(&FileName::new(FileKind::Index, Digest::of(&bytes).0)).unwrap();
}

fn look_up(index: &Index, runs: u64) {
    for (what, first) in [("found", 0), ("missed", runs * RUN_CHUNKS)] {
        let start = Instant::now();
        let mut n = 1_u64;
        for _ in 0..LOOK_UPS {
            // Far apart, and in no order.
            n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let found = index.contains(&id(first + (n >> 16) % (runs * RUN_CHUNKS))).unwrap();
            assert_eq!(found, first == 0);
        }
        tell(what, start, LOOK_UPS, "look-ups");
    }
}

fn tell(what: &str, start: Instant, count: u64, of_what: &str) {
    let seconds = start.elapsed().as_secs_f64();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim();
    println!(
        "{what}: {count} {of_what} in {seconds:.2} s, {:.0} a second; memory at most {peak}",
        count as f64 / seconds
    );
}
