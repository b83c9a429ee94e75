//! Vectors of section 12: manifests, and archives of one file whose parts must agree.

use diptych_format::Digest;
use diptych_format::error::Class::{self, Corrupt, Limit, Missing, Unsupported};
use diptych_format::error::Stream as Bytes;

use super::pack_maker::{ArchiveMaker, ChunkMaker, MANIFEST, PAYLOAD, SEGMENT, SegmentMaker, manifest};
use super::rows::Row;
use super::stream_maker::{Stream, StreamMaker};
use super::{Input, Vector};

pub fn vectors() -> Vec<Vector> {
    [manifests(), places(), agreement(), maps(), missing()].into_iter().flatten().collect()
}

fn stream() -> Stream {
    let mut stream = StreamMaker::new();
    let top = stream.directory(vec![Row::file("f", "content")]);
    stream.finish(top)
}

fn text() -> String {
    manifest(&stream(), (Digest([0xab; 32]), 600), (Digest([0xcd; 32]), 7))
}

fn of_text(
    name: &'static str,
    covers: &'static str,
    expect: Option<Class>,
    what: &'static str,
    text: &[u8],
) -> Vector {
    let place = expect.map(|_| (Bytes::Manifest, 0));
    Vector::of(Input::Manifest, name, covers, expect, what).with(place, text.to_vec())
}

fn manifests() -> Vec<Vector> {
    let right = |name, covers, what, text: String| of_text(name, covers, None, what, text.as_bytes());
    let wrong = |name, what, from: &str, to: &str| {
        assert!(text().contains(from), "{from}");
        of_text(name, "A-12-2", Some(Corrupt), what, text().replacen(from, to, 1).as_bytes())
    };
    let version = text().replace("\"version\":1", "\"version\":2");
    let version = version.replace("\"tree_id\"", "\"tree\"");
    vec![
        right("12_manifest", "A-12-2", "a manifest", text()),
        right("12_keys_in_other_order", "A-12-2", "keys in another order, and spaces", reordered()),
        right("12_unknown_keys", "A-12-3", "keys that are not known", {
            text()
                .replace("\"root\"", "\"new\":[{}],\"root\"")
                .replace("{\"format\"", "{\"a\":null,\"format\"")
        }),
        of_text("12_version", "A-12-2", Some(Unsupported), "version 2, with other keys", version.as_bytes()),
        wrong("12_format", "the format is another", "diptych-archive", "diptych-snapshot"),
        wrong("12_version_is_text", "the version is a string", "\"version\":1", "\"version\":\"1\""),
        wrong("12_key_lacks", "no key complete", "\"complete\":true,", ""),
        wrong(
            "12_key_twice",
            "a key stands twice",
            "\"complete\":true,",
            "\"complete\":true,\"complete\":true,",
        ),
        wrong("12_id_too_short", "63 hexadecimal digits", "\"abab", "\"bab"),
        wrong("12_id_not_hexadecimal", "a digit that is none", "\"abab", "\"gbab"),
        wrong("12_entries_below_0", "-1 entries", "\"entries\":2", "\"entries\":-1"),
        wrong("12_entries_of_65_bits", "2^64 entries", "\"entries\":2", "\"entries\":18446744073709551616"),
        wrong("12_entries_fraction", "two and a half entries", "\"entries\":2", "\"entries\":2.5"),
        wrong("12_cut_off", "the last brace lacks", "\"vectors\"}", "\"vectors\""),
        wrong("12_more_behind", "a second object", "\"vectors\"}", "\"vectors\"}{}"),
        of_text("12_no_json", "A-12-2", Some(Corrupt), "no JSON", b"diptych"),
        of_text(
            "12_not_utf8",
            "A-12-2",
            Some(Corrupt),
            "no UTF-8",
            &[b"{\"\xff\":", text().as_bytes()].concat(),
        ),
        of_text("12_no_object", "A-12-2", Some(Corrupt), "an array", format!("[{}]", text()).as_bytes()),
    ]
}

fn reordered() -> String {
    let text = text();
    let (first, rest) = text.strip_prefix('{').and_then(|text| text.split_once(',')).unwrap();
    format!(" {{ {}, {first} }}\n", rest.strip_suffix('}').unwrap())
}

type Maker = ArchiveMaker<'static>;

fn archive() -> Maker {
    ArchiveMaker::new(stream(), b"content")
}

/// An archive that cannot be opened, and the index of the chunk at fault.
fn closed(
    name: &'static str,
    covers: &'static str,
    class: Class,
    what: &'static str,
    spoil: impl FnOnce(&mut Maker),
) -> Vector {
    let mut archive = archive();
    spoil(&mut archive);
    let pack = archive.pack();
    let manifest = pack.chunks.iter().position(|chunk| chunk.kind == MANIFEST);
    let place = match class {
        Missing => (Bytes::Metadata, 0),
        _ => (Bytes::Pack, manifest.map_or(0, |manifest| pack.offset(manifest))),
    };
    Vector::of(Input::Archive, name, covers, Some(class), what)
        .with(Some(place), pack.encode())
        .with_listing(vec![], None)
}

fn spoil_chunks(maker: &mut Maker, spoil: impl FnOnce(&mut Vec<ChunkMaker>) + 'static) {
    maker.spoil_chunks = Some(Box::new(spoil));
}

fn places() -> Vec<Vector> {
    let sound = archive();
    let (lines, tree_id) = (sound.stream.listing.lines.clone(), sound.stream.tree_id);
    vec![
        Vector::of(Input::Archive, "12_archive", "A-12-1 A-12-4 A-10.3-6", None, "an archive of one file")
            .with(None, sound.pack().encode())
            .with_listing(lines, Some(tree_id)),
        closed("12_manifest_not_last", "A-12-1", Corrupt, "a chunk behind the manifest", |maker| {
            spoil_chunks(maker, |chunks| {
                let last = chunks.len() - 1;
                chunks.swap(last - 1, last);
            });
        }),
        closed("12_two_manifests", "A-12-1", Corrupt, "two chunks of kind manifest", |maker| {
            spoil_chunks(maker, |chunks| chunks.insert(1, ChunkMaker::raw(MANIFEST, text().as_bytes())));
        }),
        closed("12_no_manifest", "A-12-1", Corrupt, "no chunk of kind manifest", |maker| {
            spoil_chunks(maker, |chunks| drop(chunks.pop()));
        }),
    ]
}

fn agreement() -> Vec<Vector> {
    let differs = |name, what, from: &'static str, to: &'static str| {
        closed(name, "A-12-4", Corrupt, what, move |maker| {
            maker.spoil_manifest = Some(Box::new(move |text| {
                assert!(text.contains(from), "{from}");
                *text = text.replacen(from, to, 1);
            }));
        })
    };
    let tree =
        closed("12_tree_id_differs", "A-12-4", Corrupt, "the manifest tells another tree id", |maker| {
            let id = maker.stream.tree_id.to_string();
            maker.spoil_manifest =
                Some(Box::new(move |text| *text = text.replace(&id, &id.chars().rev().collect::<String>())));
        });
    vec![
        tree,
        differs(
            "12_entries_differ",
            "the manifest tells three entries of two",
            "\"entries\":2",
            "\"entries\":3",
        ),
        differs("12_complete_differs", "the manifest tells no complete archive", "true", "false"),
    ]
}

/// An archive in which the map of the payload is wrong, or what it leads to.
fn mapped(
    name: &'static str,
    covers: &'static str,
    (class, place): (Class, (Bytes, u64)),
    what: &'static str,
    (payload, map, length): (Vec<ChunkMaker>, SegmentMaker, u64),
) -> Vector {
    let mut stream = StreamMaker::new();
    let top = stream.directory(vec![Row::file("f", "content")]);
    let archive = ArchiveMaker::of_parts(stream.finish(top), payload, map, length);
    Vector::of(Input::Archive, name, covers, Some(class), what).with(Some(place), archive.pack().encode())
}

fn maps() -> Vec<Vector> {
    let chunk = || ChunkMaker::raw(PAYLOAD, b"content");
    let id = chunk().id;
    let map = |slices: &[(u64, u64, u64)]| SegmentMaker::new(&[id], slices);
    vec![
        mapped(
            "10.3_map_too_short",
            "A-10.3-6",
            (Corrupt, (Bytes::Payload, 0)),
            "the map of the payload is a byte shorter than the stream",
            (vec![chunk()], map(&[(0, 0, 6)]), 7),
        ),
        mapped(
            "10.3_map_too_long",
            "A-10.3-6",
            (Corrupt, (Bytes::Payload, 0)),
            "the map of the payload is a byte longer than the stream",
            (
                vec![ChunkMaker::raw(PAYLOAD, b"contents")],
                { SegmentMaker::new(&[ChunkMaker::raw(PAYLOAD, b"contents").id], &[(0, 0, 8)]) },
                7,
            ),
        ),
        mapped(
            "10.3_slice_beyond_chunk",
            "A-10.3-7",
            (Corrupt, (Bytes::Payload, 0)),
            "a slice ends beyond its chunk",
            (
                vec![ChunkMaker::raw(PAYLOAD, b"conten")],
                { SegmentMaker::new(&[ChunkMaker::raw(PAYLOAD, b"conten").id], &[(0, 0, 7)]) },
                7,
            ),
        ),
        mapped(
            "10.3_segment_as_payload",
            "A-10.3-7",
            (Corrupt, (Bytes::Pack, 16)),
            "a slice of the payload is one of a segment",
            {
                let segment = SegmentMaker::new(&[id], &[(0, 0, 7)]).encode();
                let stored = ChunkMaker::raw(SEGMENT, &segment);
                let map = SegmentMaker::new(&[stored.id], &[(0, 0, 7)]);
                (vec![stored], map, 7)
            },
        ),
    ]
}

fn missing() -> Vec<Vector> {
    let absent = ChunkMaker::raw(PAYLOAD, b"content").id;
    vec![
        mapped(
            "12_payload_missing",
            "A-12-5",
            (Missing, (Bytes::Payload, 0)),
            "a chunk of the payload is in no file of the archive",
            (vec![], SegmentMaker::new(&[absent], &[(0, 0, 7)]), 7),
        ),
        closed("12_metadata_missing", "A-12-5", Missing, "the metadata's chunk is not there", |maker| {
            spoil_chunks(maker, |chunks| drop(chunks.remove(1)));
        }),
        closed("12_map_missing", "A-12-5", Missing, "the root of the metadata's map is not there", |maker| {
            spoil_chunks(maker, |chunks| drop(chunks.remove(2)));
        }),
    ]
}

/// A manifest that is too long to be kept as a file.
pub fn large() -> Vec<Vector> {
    let long = |length: usize| format!("{}{}", text(), " ".repeat(length - text().len()));
    vec![
        of_text(
            "12_manifest_of_1_mib",
            "A-12-1",
            None,
            "a manifest as long as can be",
            long(1 << 20).as_bytes(),
        ),
        of_text(
            "12_manifest_beyond",
            "A-12-1",
            Some(Limit),
            "a byte too long",
            long((1 << 20) + 1).as_bytes(),
        ),
    ]
}
