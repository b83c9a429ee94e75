//! Vectors of section 1: sums that do not fit, bytes that must be zero.

use diptych_format::error::Class::Corrupt;
use diptych_format::error::Stream as Bytes;
use diptych_format::section as c;

use super::pack_maker::{ChunkMaker, PAYLOAD, PackMaker};
use super::rows::Row;
use super::stream_maker::StreamMaker;
use super::{Input, Vector, beside, broken, some_rows};

pub fn vectors() -> Vec<Vector> {
    vec![
        payload_sum(),
        entries_sum(),
        reserved_in_header(),
        reserved_at_the_end_of_header(),
        reserved_in_section(),
        reserved_in_tail(),
        padding(),
        reserved_in_trailer(),
        reserved_in_pack_header(),
        reserved_in_pack_trailer(),
        reserved_in_chunk_header(),
        reserved_in_inner_header(),
    ]
}

fn payload_sum() -> Vector {
    let stream = beside(|stream| {
        let mut one = stream.directory(vec![]);
        one.payload = u64::MAX;
        let mut two = stream.directory(vec![]);
        two.payload = 1;
        stream.broken(vec![Row::directory("one", one), Row::directory("two", two)], |_| ())
    });
    let what = "the payload of two directories adds up to 2^64";
    Vector::fault("1.2_payload_sum", "A-1.2-1", Corrupt, what, stream)
}

fn entries_sum() -> Vector {
    let stream = beside(|stream| {
        let mut one = stream.directory(vec![]);
        one.entries = u64::MAX;
        stream.broken(vec![Row::directory("one", one)], |_| ())
    });
    let what = "a directory and the 2^64-1 entries below it are 2^64";
    Vector::fault("1.2_entries_sum", "A-1.2-1", Corrupt, what, stream)
}

/// A stream of an empty directory with one byte of its header changed.
fn header_byte(offset: usize) -> (Option<(Bytes, u64)>, Vec<u8>) {
    let mut stream = StreamMaker::new();
    let top = stream.directory(vec![]);
    let mut bytes = stream.finish(top).bytes;
    bytes[offset] = 1;
    (Some((Bytes::Metadata, 0)), bytes)
}

fn reserved_in_header() -> Vector {
    let (place, bytes) = header_byte(10);
    let what = "bytes 10 and 11 of the header are not zero";
    Vector::of(Input::MetadataStream, "1.2_reserved_in_header", "A-1.2-2", Some(Corrupt), what)
        .with(place, bytes)
        .with_listing(vec![], None)
}

fn reserved_at_the_end_of_header() -> Vector {
    let (place, bytes) = header_byte(31);
    let what = "the last byte of the header is not zero";
    Vector::of(Input::MetadataStream, "1.2_reserved_at_end_of_header", "A-1.2-2", Some(Corrupt), what)
        .with(place, bytes)
        .with_listing(vec![], None)
}

fn reserved_in_section() -> Vector {
    let stream = broken(some_rows(), |table| table.body.reserved = 1);
    let what = "the reserved field of a body is not zero";
    Vector::fault("1.2_reserved_in_section", "A-1.2-2", Corrupt, what, stream)
}

fn reserved_in_tail() -> Vector {
    let stream = broken(some_rows(), |table| table.tail.reserved = 0x100);
    let what = "the reserved field of a tail is not zero";
    Vector::fault("1.2_reserved_in_tail", "A-1.2-2", Corrupt, what, stream)
}

fn padding() -> Vector {
    let stream = broken(some_rows(), |table| table.body.column(c::BODY_NAMES).padding = 1);
    let what = "the padding behind the names is not zero";
    Vector::fault("1.2_padding", "A-1.2-2", Corrupt, what, stream)
}

fn reserved_in_trailer() -> Vector {
    let mut stream = StreamMaker::new();
    stream.spoil_trailer = Some(Box::new(|trailer| trailer.reserved = 1));
    let top = stream.directory(vec![]);
    let what = "the last reserved byte of the trailer is not zero";
    Vector::fault("1.2_reserved_in_trailer", "A-1.2-2", Corrupt, what, stream.finish(top))
}

fn reserved_in_pack_header() -> Vector {
    let mut pack = PackMaker::new(1, vec![]);
    pack.header[15] = 1;
    let what = "the last byte of a pack's header is not zero";
    Vector::of(Input::Pack, "1.2_reserved_in_pack_header", "A-1.2-2", Some(Corrupt), what)
        .with(Some((Bytes::Pack, 0)), pack.encode())
}

fn reserved_in_pack_trailer() -> Vector {
    let mut pack = PackMaker::new(1, vec![]);
    pack.spoil_trailer = Some(Box::new(|trailer| trailer.reserved = 1));
    let place = (Bytes::Pack, pack.directory_offset() + 16);
    let what = "the last reserved byte of a pack's trailer is not zero";
    Vector::of(Input::Pack, "1.2_reserved_in_pack_trailer", "A-1.2-2", Some(Corrupt), what)
        .with(Some(place), pack.encode())
}

fn reserved_in_chunk_header() -> Vector {
    let chunk = ChunkMaker { reserved: 0x100, ..ChunkMaker::raw(PAYLOAD, b"content") };
    let what = "the reserved field of a chunk's header is not zero";
    Vector::of(Input::Pack, "1.2_reserved_in_chunk_header", "A-1.2-2", Some(Corrupt), what)
        .with(Some((Bytes::Pack, 16)), PackMaker::new(1, vec![chunk]).encode())
}

fn reserved_in_inner_header() -> Vector {
    let mut chunk = ChunkMaker::raw(PAYLOAD, b"content");
    chunk.stored[3] = 1;
    let what = "the last reserved byte before a chunk's length is not zero";
    Vector::of(Input::Pack, "1.2_reserved_in_inner_header", "A-1.2-2", Some(Corrupt), what)
        .with(Some((Bytes::Pack, 16)), PackMaker::new(1, vec![chunk]).encode())
}
