//! Rules that bind writers and leave no mark that a reader must refuse: where streams are cut, what is stored once,
//! what a checkpoint is. Each is written here as the specification has it, and compared with what the encoder does.

use std::sync::Arc;

use diptych_decoder::Archive;
use diptych_encoder::cut::LARGE_MIN;
use diptych_encoder::{Cuts, LinkKey, Payload, Place, TreeEncoder};
use diptych_format::limits::{PAYLOAD_CHUNK_MAX, PIECE_NAMES_MAX, PIECE_ROWS_MAX, PIECE_ROWS_MIN};
use diptych_format::map::{MapBuilder, Segment};
use diptych_format::pieces::CutRule;
use diptych_format::section::peek;
use diptych_format::stream::{HEADER_LENGTH, TRAILER_LENGTH};
use diptych_format::table::{Owners, body_digest};
use diptych_format::{Digest, Name, Slice, Status};
use diptych_tests::{Random, Tree, readers, tree};

/// A part of the metadata stream: where it ends and, for a table of names, its length and its body's digest.
struct Part {
    end: usize,
    names: Option<(u64, Digest)>,
}

/// Goes through a stream from its header to its trailer: nothing may be between the parts.
fn parts(stream: &[u8]) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut at = HEADER_LENGTH;
    while at < stream.len() - TRAILER_LENGTH {
        let (tag, length) = peek(&stream[at..]).unwrap();
        let body = at..at + length as usize;
        at = body.end;
        let names = match &tag.0 {
            b"DIRB" | b"IDXB" | b"LNKB" => {
                let (_, tail) = peek(&stream[at..]).unwrap();
                at += tail as usize;
                Some((length + tail, body_digest(&stream[body])))
            }
            b"HOLE" | b"VALU" | b"OWNR" => None,
            _ => panic!("{tag:?} at {}", body.start),
        };
        parts.push(Part { end: at, names });
    }
    parts
}

/// Whether a digest ends what is cut once in 2^`bits` bytes: its number against a threshold without rounding.
fn ends(key: Option<[u8; 32]>, digest: &Digest, length: u64, bits: u32) -> bool {
    let digest = key.map_or(*digest, |key| Digest::keyed(&key, &digest.0));
    (u128::from(digest.leading())) < (1u128 << (64 - bits)) * u128::from(length)
}

/// Without a key, and with two.
const KEYS: [Option<[u8; 32]>; 3] = [None, Some([1; 32]), Some([2; 32])];

fn cuts_of(key: Option<[u8; 32]>) -> Cuts {
    key.map_or_else(Cuts::plain, Cuts::keyed)
}

fn name(text: &str) -> Name {
    Name::try_new(text.as_bytes()).unwrap()
}

/// A directory of so many files, in pieces as the rule says.
fn add_directory(encoder: &mut TreeEncoder, directory: Name, names: &[String]) {
    encoder.enter(tree! {}.entry(directory)).unwrap();
    let mut rule = CutRule::new(0);
    for text in names {
        if rule.cuts_before(text.as_bytes()) {
            encoder.end_piece().unwrap();
        }
        encoder.entry(Tree::file(text).xattr("user.v", text.repeat(300)).entry(name(text)), None).unwrap();
    }
    encoder.leave(Status::COMPLETE).unwrap();
}

fn numbered(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}{number:06}")).collect()
}

/// Many directories and one in several pieces, as the chunks of a metadata stream.
fn stream_in_chunks(cuts: Cuts) -> Vec<Vec<u8>> {
    let mut encoder = TreeEncoder::new(cuts);
    encoder.enter(tree! {}.entry(Name::root())).unwrap();
    for number in 0..60 {
        let count = if number == 30 { 3000 } else { 5 * number };
        add_directory(&mut encoder, name(&format!("d{number:02}")), &numbered("file", count));
    }
    encoder.leave(Status::COMPLETE).unwrap();
    let owners = Owners { users: vec![(0, b"root".to_vec())], groups: vec![] };
    encoder.finish(&owners).unwrap();
    encoder.take_chunks()
}

/// Spec: A-10.2-1, A-10.2-2, A-8.2-2, R-6-1.
#[test]
fn metadata_is_cut_at_tables_by_their_digests() {
    let found = KEYS.map(|key| {
        let chunks = stream_in_chunks(cuts_of(key));
        let stream = chunks.concat();
        let (mut expected, mut begin) = (Vec::new(), 0);
        for part in parts(&stream) {
            let Some((length, digest)) = part.names else { continue };
            // The root table is none of those that end a chunk: root, links, owners and trailer come together.
            if ends(key, &digest, length, 17) || part.end - begin >= 1 << 20 {
                expected.push(part.end);
                begin = part.end;
            }
        }
        expected.push(stream.len());
        let sum = |sum: &mut usize, chunk: &Vec<u8>| {
            *sum += chunk.len();
            Some(*sum)
        };
        let found: Vec<usize> = chunks.iter().scan(0, sum).collect();
        assert!(found.len() > 5, "{found:?}");
        assert_eq!(found, expected);
        let ends: Vec<usize> = parts(&stream).iter().map(|part| part.end).collect();
        assert!(found[..found.len() - 1].iter().all(|end| ends.contains(end)));
        (found, stream)
    });
    let [plain, keyed, other] = &found;
    assert!(plain.1 == keyed.1 && plain.1 == other.1, "the stream depends on how it is cut");
    assert!(plain.0 != keyed.0 && plain.0 != other.0 && keyed.0 != other.0, "a key changes nothing");
}

/// Spec: A-7.2-1, A-7.2-3.
#[test]
fn names_are_cut_by_themselves() {
    let mut random = Random::new(11);
    for long in [1usize, 700] {
        for level in [0u64, 1, 4] {
            let mut names: Vec<String> =
                (0..9000).map(|_| format!("{:016x}", random.any()).repeat(long.div_ceil(16))).collect();
            names.sort();
            let mut rule = CutRule::new(level);
            let (mut rows, mut bytes) = (0, 0);
            for name in &names {
                let bits = Digest::of(name.as_bytes()).leading() >> (10 * level) & 1023;
                let cuts = rows >= PIECE_ROWS_MAX
                    || bytes + name.len() > PIECE_NAMES_MAX
                    || rows >= PIECE_ROWS_MIN && bits == 0;
                assert_eq!(rule.cuts_before(name.as_bytes()), cuts, "level {level}, row {rows}");
                (rows, bytes) = if cuts { (1, name.len()) } else { (rows + 1, bytes + name.len()) };
            }
        }
    }
}

/// Who cuts elsewhere is refused. Spec: A-7.2-1.
/// The stream of a directory whose names the scan saw, of which some have no entry, and whether it is incomplete.
fn stream_with_absent(names: &[String], is_absent: impl Fn(usize) -> bool) -> (Vec<u8>, bool) {
    let mut encoder = TreeEncoder::new(Cuts::plain());
    encoder.enter(tree! {}.entry(Name::root())).unwrap();
    let mut rule = CutRule::new(0);
    for (number, text) in names.iter().enumerate() {
        if rule.cuts_before(text.as_bytes()) {
            encoder.end_piece().unwrap();
        }
        if is_absent(number) {
            encoder.vanished(text.as_bytes());
        } else {
            encoder.entry(Tree::file("x").entry(name(text)), None).unwrap();
        }
    }
    let found = encoder.leave(Status::COMPLETE).unwrap();
    let finished = encoder.finish(&Owners::default()).unwrap();
    assert_eq!(found.has(Status::NOT_READ), finished.trailer.is_incomplete);
    let stream = encoder.take_chunks().concat();
    (stream, finished.trailer.is_incomplete)
}

#[test]
fn names_that_vanished_leave_no_trace_unless_they_moved_a_cut() {
    let names = numbered("n", 12_000);
    let mut rule = CutRule::new(0);
    let begins: Vec<usize> = (0..names.len()).filter(|n| rule.cuts_before(names[*n].as_bytes())).collect();
    assert!(begins.len() > 1);
    let (first, last) = (begins[0], begins[begins.len() - 1]);
    let check = |is_absent: &dyn Fn(usize) -> bool| {
        let kept = (0..names.len()).filter(|number| !is_absent(*number)).map(|number| names[number].clone());
        let (alone, _) = stream_with_absent(&kept.collect::<Vec<_>>(), |_| false);
        let (stream, is_incomplete) = stream_with_absent(&names, is_absent);
        assert_eq!(stream == alone, !is_incomplete);
        is_incomplete
    };
    // A small directory has one piece whatever it lacks; a large one keeps its cuts if no first name of a piece goes.
    let few = names[..PIECE_ROWS_MIN].to_vec();
    assert!(!stream_with_absent(&few, |number| number % 2 == 0).1);
    assert!(!stream_with_absent(&few, |_| true).1);
    assert!(!check(&|number| number == last + 1));
    assert!(!check(&|number| number > last));
    assert!(check(&|number| number == first));
    assert!(!check(&|number| number < last));
    assert!(!check(&|number| number >= last));
    assert!(!check(&|_| true));
    for step in [2, 7, 97, 1009] {
        check(&|number| number % step == 0);
    }
}

#[test]
fn pieces_that_are_cut_elsewhere_are_not_written() {
    let mut encoder = TreeEncoder::new(Cuts::plain());
    encoder.enter(tree! {}.entry(Name::root())).unwrap();
    encoder.entry(Tree::file("").entry(name("a")), None).unwrap();
    encoder.end_piece().unwrap();
    encoder.entry(Tree::file("").entry(name("b")), None).unwrap();
    assert!(encoder.leave(Status::COMPLETE).is_err());
}

/// Spec: A-10.1-2, A-10.1-3, R-6-1.
#[test]
fn small_contents_are_grouped_by_their_digests() {
    for key in KEYS {
        let mut random = Random::new(5);
        let mut payload = Payload::new(cuts_of(key), usize::MAX);
        let (mut open, mut known) = (0u64, std::collections::HashSet::new());
        for _ in 0..3000 {
            let length = 1 + random.below(LARGE_MIN - 1) as u32;
            let digest = Digest::of(&random.below(1500).to_le_bytes());
            let length = if random.once_in(2) { length } else { 1 + length % 3000 };
            let place = payload.small(digest, length);
            if !known.insert((digest, length)) {
                assert_eq!(place, Place::Known, "what is there already is stored again");
                continue;
            }
            let ends_before = open + u64::from(length) > PAYLOAD_CHUNK_MAX as u64;
            let ends_after = ends(key, &digest, length.into(), 20);
            let Place::Group { ended, ends_after: is_end, .. } = place else {
                panic!("a fresh content is known")
            };
            assert_eq!((ended.is_some(), is_end), (ends_before, ends_after));
            open = if ends_before { 0 } else { open } + u64::from(length);
            open = if ends_after { 0 } else { open };
            if random.once_in(50) {
                assert_eq!(payload.end_group().is_some(), open > 0);
                payload.large_chunk(1 << 20);
                open = 0;
            }
        }
    }
}

/// Where the chunks of a large content end.
fn large_ends(cuts: &Cuts, content: &[u8]) -> Vec<usize> {
    let (mut ends, mut begin) = (Vec::new(), 0);
    while begin < content.len() {
        let rest = &content[begin..];
        let length = cuts.large_cut(&rest[..rest.len().min(PAYLOAD_CHUNK_MAX)]);
        assert!(length <= PAYLOAD_CHUNK_MAX && (length >= 256 << 10 || length == rest.len()));
        begin += length;
        ends.push(begin);
    }
    ends
}

/// Spec: A-10.1-1.
#[test]
fn large_contents_are_cut_from_their_first_byte() {
    let content = Random::new(3).bytes(12 << 20);
    for key in KEYS {
        let ends = large_ends(&cuts_of(key), &content);
        assert!(ends.len() > 4);
        // What follows a content does not matter to it: its cuts are those of a content that goes on alike.
        assert_eq!(large_ends(&cuts_of(key), &content[..8 << 20])[0], ends[0]);
    }
}

/// Noise, then what it is not: a run of one byte, a short pattern and a text of few letters.
fn mixed_content() -> Vec<u8> {
    let mut random = Random::new(17);
    let mut content = random.bytes(5 << 20);
    content.resize(11 << 20, 0);
    content.extend(b"abcdefghijklm".iter().cycle().take(3 << 20));
    content.extend(random.bytes(3 << 20).iter().map(|byte| b'a' + byte % 4));
    content.extend(random.bytes(12345));
    content
}

/// Spec: R-6-2, R-6-3.
#[test]
fn large_contents_are_cut_by_secret_values_and_a_keyed_decision() {
    let content = mixed_content();
    for key in KEYS.into_iter().flatten() {
        let number = |bytes: &[u8]| Digest::keyed(&key, bytes).leading();
        let values: Vec<u64> = (0..=255u8).map(|byte| number(&[byte])).collect();
        let (mut expected, mut begin, mut hash) = (Vec::new(), 0, 0u64);
        // The hash goes on from chunk to chunk: it is of the last 64 bytes, wherever a chunk begins.
        for (at, byte) in content.iter().enumerate() {
            hash = hash.wrapping_mul(2).wrapping_add(values[usize::from(*byte)]);
            let length = at + 1 - begin;
            let end = if length < 1 << 20 { 1 << 55 } else { 1 << 57 };
            let is_cut = length >= 256 << 10 && hash < 1 << 52 && number(&hash.to_le_bytes()) < end;
            if is_cut || length == 4 << 20 || at + 1 == content.len() {
                expected.push(at + 1);
                begin = at + 1;
            }
        }
        assert_eq!(large_ends(&Cuts::keyed(key), &content), expected);
    }
}

/// Spec: R-6-2, R-6-3.
#[test]
fn two_keys_have_no_cuts_of_a_content_in_common() {
    let content = Random::new(23).bytes(16 << 20);
    let [plain, one, two] = KEYS.map(|key| large_ends(&cuts_of(key), &content));
    assert_eq!(one, large_ends(&cuts_of(KEYS[1]), &content));
    for (a, b) in [(&plain, &one), (&plain, &two), (&one, &two)] {
        // By chance it would be one in a hundred thousand such contents. The end of the content is no cut.
        let common: Vec<_> = a.iter().filter(|end| b.contains(end)).collect();
        assert_eq!(common, [&content.len()]);
    }
}

/// A key hides lengths, but neither are there more chunks nor larger ones. Spec: R-6-3.
#[test]
fn keyed_chunks_are_spread_as_plain_ones_are() {
    let content = Random::new(29).bytes(32 << 20);
    let counts = |cuts: &Cuts| large_ends(cuts, &content).len();
    let plain = counts(&Cuts::plain());
    let keyed: usize = (0..4).map(|number| counts(&Cuts::keyed([number; 32]))).sum();
    assert!((3 * plain..5 * plain).contains(&keyed), "{plain} chunks, and {keyed} with four keys");
}

/// Spec: A-8.4-1, A-8.3-4, A-3.2-3.
#[test]
fn a_checkpoint_is_a_side_branch() {
    let mut with = TreeEncoder::new(Cuts::plain());
    let mut without = TreeEncoder::new(Cuts::plain());
    for encoder in [&mut with, &mut without] {
        encoder.enter(tree! {}.entry(Name::root())).unwrap();
        encoder.entry(Tree::file("first").entry(name("a")), Some(LinkKey { device: 1, inode: 1 })).unwrap();
        add_directory(encoder, name("done"), &numbered("file", 700));
        encoder.enter(tree! {}.entry(name("open"))).unwrap();
        encoder.entry(Tree::file("second").entry(name("b")), None).unwrap();
    }
    let mut written = with.take_chunks();
    let (closing, finished) = with.checkpoint(&Owners::default()).unwrap();
    assert!(finished.trailer.is_partial && finished.trailer.is_incomplete);
    let partial = [written.concat(), closing.concat()].concat();
    let mut seen = readers::Seen::default();
    let archive = Archive::open(Arc::new(partial)).unwrap();
    readers::read_tree(&archive, None, &mut seen).unwrap();
    assert!(seen.faults.is_empty() && seen.walk_error.is_none(), "{:?}", seen.faults);
    assert_eq!(seen.walked.len(), 1 + 1 + 701 + 2);
    for path in [&b""[..], b"open"] {
        assert!(archive.lookup(path).unwrap().unwrap().entry.status.has(Status::NOT_READ));
    }
    assert!(archive.lookup(b"done").unwrap().unwrap().entry.status.is_complete());
    // The main stream goes on as if nothing had been.
    let mut whole = Vec::new();
    for encoder in [&mut with, &mut without] {
        encoder.entry(Tree::file("third").entry(name("c")), None).unwrap();
        encoder.leave(Status::COMPLETE).unwrap();
        encoder.leave(Status::COMPLETE).unwrap();
        encoder.finish(&Owners::default()).unwrap();
        whole.push(encoder.take_chunks());
    }
    written.append(&mut whole[0]);
    assert_eq!(written, whole[1]);
}

/// Spec: A-10.3-3, A-10.3-4, A-10.3-5.
#[test]
fn maps_are_joined_and_cut_by_chunk_ids() {
    let mut builder = MapBuilder::default();
    let mut expected: Vec<Slice> = Vec::new();
    for number in 0..30_000u32 {
        let chunk = Digest::of(&(number / 3).to_le_bytes());
        // Of three slices of a chunk, two follow each other.
        let slice = Slice { chunk, start: [0, 100, 300][number as usize % 3], length: 100 };
        builder.push(slice).unwrap();
        match expected.last_mut() {
            Some(last) if last.chunk == chunk && last.start + last.length == slice.start => {
                last.length += 100
            }
            _ => expected.push(slice),
        }
    }
    let (root, built) = builder.finish().unwrap();
    assert_eq!((root.length, root.slices), (3_000_000, expected.len() as u64));
    let mut found: Vec<Slice> = Vec::new();
    let leaves: Vec<Segment<'_>> = built
        .iter()
        .map(|segment| Segment::parse(&segment.bytes).unwrap())
        .filter(|segment| segment.level() == 0)
        .collect();
    for (index, leaf) in leaves.iter().enumerate() {
        let slices: Vec<Slice> = (0..leaf.rows()).map(|row| leaf.slice(row)).collect();
        let last = slices.last().unwrap();
        let ends = slices.len() >= 256 && last.chunk.leading().is_multiple_of(1024) || slices.len() == 4096;
        assert!(ends || index + 1 == leaves.len(), "segment {index} ends where it must not");
        found.extend(slices);
    }
    assert_eq!(found, expected);
    assert!(leaves.len() > 5 && built.len() > leaves.len());
}
