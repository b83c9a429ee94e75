//! Vectors of section 11: packs and the chunks in them.

use diptych_format::error::Class::{self, Corrupt, Limit, Truncated, Unsupported};
use diptych_format::error::Stream as Bytes;
use diptych_format::section as c;

use super::pack_maker::{
    ChunkMaker, METADATA, PAYLOAD, PackMaker, PackTrailerMaker, SEGMENT, SegmentMaker, chunk_id, inner,
    zstd_run,
};
use super::section_maker::SectionMaker;
use super::{Input, Vector};

pub fn vectors() -> Vec<Vector> {
    [headers(), chunks(), kinds(), codecs(), directories(), trailers()].into_iter().flatten().collect()
}

fn right(name: &'static str, covers: &'static str, what: &'static str, pack: PackMaker<'_>) -> Vector {
    Vector::of(Input::Pack, name, covers, None, what).with(None, pack.encode())
}

fn fault(
    name: &'static str,
    covers: &'static str,
    class: Class,
    what: &'static str,
    (at, pack): (u64, PackMaker<'_>),
) -> Vector {
    Vector::of(Input::Pack, name, covers, Some(class), what).with(Some((Bytes::Pack, at)), pack.encode())
}

/// Two chunks of payload.
fn pack() -> PackMaker<'static> {
    PackMaker::new(1, vec![ChunkMaker::raw(PAYLOAD, b"first"), ChunkMaker::raw(PAYLOAD, b"second")])
}

/// A pack whose second chunk is changed: it is the part at fault.
fn second(change: impl FnOnce(&mut ChunkMaker)) -> (u64, PackMaker<'static>) {
    let mut pack = pack();
    change(&mut pack.chunks[1]);
    (pack.offset(1), pack)
}

fn headers() -> Vec<Vector> {
    let header = |offset: usize, value: u8| {
        let mut pack = pack();
        pack.header[offset] = value;
        (0, pack)
    };
    vec![
        right("11_two_chunks", "A-11-5 A-11-7", "two chunks as they are", pack()),
        right("11_no_chunks", "A-11-7 A-7.1-12", "a pack without chunks", PackMaker::new(1, vec![])),
        fault("11_magic", "A-11-8", Corrupt, "the magic's last byte is another", header(7, 0)),
        fault("11_version", "A-8.1-2", Unsupported, "version 2", header(8, 2)),
        fault("11_holds_0", "A-11-7", Corrupt, "the pack holds nothing that is known", header(10, 0)),
        fault("11_holds_4", "A-11-7", Corrupt, "the pack holds what is not known", header(10, 4)),
    ]
}

fn chunks() -> Vec<Vector> {
    let other =
        |kind, id| second(|chunk| *chunk = ChunkMaker { kind, id, ..ChunkMaker::raw(PAYLOAD, b"second") });
    let metadata = chunk_id(METADATA, b"second");
    let twice = |chunk: &mut ChunkMaker| *chunk = ChunkMaker::raw(PAYLOAD, b"first");
    let (_, twice) = second(twice);
    vec![
        fault("11_other_bytes", "A-11-5 A-14-2", Corrupt, "bytes of another digest than the id", {
            second(|chunk| chunk.stored[8] ^= 1)
        }),
        fault("11_id_of_other_kind", "A-11-5", Corrupt, "the id that the bytes have as metadata", {
            other(PAYLOAD, metadata)
        }),
        fault("11_chunk_twice", "A-11-6", Corrupt, "a chunk stands twice", (twice.directory_offset(), twice)),
        fault("11_header_length", "A-11-7", Corrupt, "the chunk's header tells another length", {
            second(|chunk| chunk.length_off = -1)
        }),
    ]
}

fn kinds() -> Vec<Vector> {
    let segment = SegmentMaker::new(&[], &[]).encode();
    let metadata = vec![ChunkMaker::raw(METADATA, b"metadata"), ChunkMaker::raw(SEGMENT, &segment)];
    let mut wrong_kind = PackMaker::new(1, vec![ChunkMaker::raw(PAYLOAD, b"first")]);
    wrong_kind.chunks.push(ChunkMaker::raw(METADATA, b"second"));
    let mut not_in_header = pack();
    not_in_header.spoil_directory = Some(Box::new(|directory| {
        directory.ints(c::PACK_KIND, &[1, 5]);
    }));
    vec![
        right("11_metadata", "A-11-5", "a chunk of metadata and a segment", PackMaker::new(2, metadata)),
        fault("11_kind_not_held", "A-11-7", Corrupt, "metadata in a pack that holds payload", {
            (wrong_kind.directory_offset(), wrong_kind)
        }),
        fault("11_kind_unknown", "A-11-4", Unsupported, "kind 5 in the directory", {
            (not_in_header.directory_offset(), not_in_header)
        }),
        fault("11_seal", "A-11-4", Unsupported, "a seal that is not known", second(|chunk| chunk.seal = 1)),
    ]
}

fn stored(stored: Vec<u8>, raw: &[u8]) -> (u64, PackMaker<'static>) {
    second(|chunk| *chunk = ChunkMaker::stored(chunk_id(PAYLOAD, raw), PAYLOAD, stored))
}

fn codecs() -> Vec<Vector> {
    let run = vec![b'z'; 300];
    let frame = zstd_run(b'z', 300);
    let spoilt = |byte: usize| {
        let mut frame = frame.clone();
        frame[byte] ^= 0x40;
        inner(1, 300, &frame)
    };
    let wrong = |name, covers, what, data: Vec<u8>| fault(name, covers, Corrupt, what, stored(data, &run));
    let limit = |name, length: u32| {
        let data = inner(1, length, &frame);
        fault(name, "A-11-1 A-13-1", Limit, "a raw length above the limit", stored(data, &run))
    };
    let empty = zstd_run(b'z', 0);
    vec![
        right("11_compressed", "A-11-2 A-11-3", "300 bytes in 13", stored(inner(1, 300, &frame), &run).1),
        right("11_payload_chunk_max", "A-11-1", "4 MiB", {
            PackMaker::new(1, vec![ChunkMaker::run(b'z', 4 << 20)])
        }),
        limit("11_raw_length_beyond", (4 << 20) + 1),
        limit("11_raw_length_of_32_bits", u32::MAX),
        wrong("11_raw_length_too_large", "A-11-2", "data decodes to a byte less", inner(1, 301, &frame)),
        wrong("11_raw_length_too_small", "A-11-2", "data decodes to a byte more", inner(1, 299, &frame)),
        wrong("11_raw_length_of_raw", "A-11-2", "raw data is a byte longer", inner(0, 299, &run)),
        wrong("11_two_frames", "A-11-3", "an empty frame behind the first", {
            inner(1, 300, &[&frame[..], &empty].concat())
        }),
        wrong("11_byte_behind_frame", "A-11-3", "a byte behind the frame", {
            inner(1, 300, &[&frame[..], &[0]].concat())
        }),
        wrong("11_frame_cut_off", "A-11-3", "the frame's last byte lacks", inner(1, 300, &frame[..12])),
        wrong("11_no_frame", "A-11-3", "data that is no frame", spoilt(0)),
        fault(
            "11_codec",
            "A-11-4",
            Unsupported,
            "a codec that is not known",
            stored(inner(2, 300, &run), &run),
        ),
    ]
}

fn directories() -> Vec<Vector> {
    let spoilt = |spoil: fn(&mut SectionMaker)| {
        let mut pack = pack();
        pack.spoil_directory = Some(Box::new(spoil));
        (pack.directory_offset(), pack)
    };
    let digest = || {
        let mut pack = pack();
        pack.spoil_trailer = Some(Box::new(|trailer| trailer.digest.0[9] ^= 1));
        (pack.directory_offset(), pack)
    };
    vec![
        fault("11_directory_digest", "A-11-9", Corrupt, "the directory has another digest", digest()),
        fault("11_lengths_too_short", "A-11-10", Corrupt, "lengths end before the directory", {
            spoilt(|directory| {
                directory.ints(c::PACK_STORED_LENGTH, &[13, 13]);
            })
        }),
        fault("11_lengths_too_long", "A-11-10", Corrupt, "lengths end in the directory", {
            spoilt(|directory| {
                directory.ints(c::PACK_STORED_LENGTH, &[13, 15]);
            })
        }),
        fault("11_directory_tag", "A-6-12", Corrupt, "the directory's tag is a segment's", {
            spoilt(|directory| directory.tag = *b"SEGC")
        }),
        fault("11_directory_count", "A-6-4", Corrupt, "a kind for one of two chunks", {
            spoilt(|directory| {
                directory.ints(c::PACK_KIND, &[1]);
            })
        }),
    ]
}

fn trailers() -> Vec<Vector> {
    let trailer = |spoil: fn(&mut PackTrailerMaker)| {
        let mut pack = pack();
        let at = pack.directory_offset();
        pack.spoil_trailer = Some(Box::new(spoil));
        let length = pack_directory_length();
        (at + length, pack)
    };
    let of_bytes = |name, what, (at, bytes): (u64, Vec<u8>)| {
        Vector::of(Input::Pack, name, "A-11-8", Some(Truncated), what).with(Some((Bytes::Pack, at)), bytes)
    };
    let whole = pack().encode();
    let end = whole.len() as u64;
    vec![
        of_bytes("11_nothing", "no bytes at all", (0, vec![])),
        of_bytes("11_of_79", "a byte shorter than both ends", (0, whole[..79].to_vec())),
        of_bytes("11_cut_off", "the last byte lacks", (end - 65, whole[..whole.len() - 1].to_vec())),
        of_bytes("11_byte_behind", "a byte behind the trailer", (end - 63, [&whole[..], &[0]].concat())),
        fault("11_end_magic", "A-11-8", Truncated, "the magic at the end is the header's", {
            trailer(|trailer| trailer.magic = *b"\x89DPTP\r\n\x1a")
        }),
        fault("11_pack_length", "A-11-8", Truncated, "the pack was longer", {
            trailer(|trailer| trailer.length_off = 1)
        }),
        fault("11_trailer_version", "A-8.1-2", Unsupported, "the trailer has version 2", {
            trailer(|trailer| trailer.version = 2)
        }),
        fault("11_directory_length", "A-11-10", Corrupt, "a directory longer than the pack", {
            trailer(|trailer| trailer.directory_length = 1 << 40)
        }),
    ]
}

/// Length of the directory of [`pack`].
fn pack_directory_length() -> u64 {
    pack().encode().len() as u64 - 64 - pack().directory_offset()
}
