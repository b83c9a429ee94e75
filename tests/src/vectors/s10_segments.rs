//! Vectors of section 10.3: segments of stream maps.

use diptych_format::error::Class::{self, Corrupt, Limit, Truncated, Unsupported};
use diptych_format::error::Stream as Bytes;
use diptych_format::{Digest, section as c};

use super::pack_maker::SegmentMaker;
use super::{Input, Vector};

pub fn vectors() -> Vec<Vector> {
    [frames(), ids(), slices(), cuts(), levels()].into_iter().flatten().collect()
}

/// Ids whose first bytes end no segment.
fn ids_of(count: usize) -> Vec<Digest> {
    let id = |number: usize| {
        let mut id = [1; 32];
        id[16..20].copy_from_slice(&(number as u32).to_le_bytes());
        Digest(id)
    };
    (0..count).map(id).collect()
}

fn right(name: &'static str, covers: &'static str, what: &'static str, segment: SegmentMaker) -> Vector {
    Vector::of(Input::Segment, name, covers, None, what).with(None, segment.encode())
}

fn fault(
    name: &'static str,
    covers: &'static str,
    class: Class,
    what: &'static str,
    segment: SegmentMaker,
) -> Vector {
    Vector::of(Input::Segment, name, covers, Some(class), what)
        .with(Some((Bytes::Segment, 0)), segment.encode())
}

fn wrong(name: &'static str, covers: &'static str, what: &'static str, segment: SegmentMaker) -> Vector {
    fault(name, covers, Corrupt, what, segment)
}

fn two() -> SegmentMaker {
    SegmentMaker::new(&ids_of(2), &[(0, 0, 10), (1, 5, 10), (0, 0, 10)])
}

fn changed(change: impl FnOnce(&mut SegmentMaker)) -> SegmentMaker {
    let mut segment = two();
    change(&mut segment);
    segment
}

fn frames() -> Vec<Vector> {
    vec![
        right("10.3_segment", "A-10.3-1 A-10.3-2", "three slices of two chunks", two()),
        right("10.3_no_slices", "A-10.3-1", "the map of an empty stream", SegmentMaker::new(&[], &[])),
        wrong("10.3_bytes_behind", "A-6-1", "bytes behind a segment", changed(|s| s.rest = vec![0; 8])),
        fault(
            "10.3_cut_off",
            "A-6-11",
            Truncated,
            "slices end beyond the segment",
            changed(|s| s.slices.length_off = 8),
        ),
        wrong(
            "10.3_tag",
            "A-6-12",
            "slices before ids",
            changed(|s| std::mem::swap(&mut s.ids, &mut s.slices)),
        ),
        fault(
            "10.3_unknown_column",
            "A-6-9",
            Unsupported,
            "a column of slices that is not known",
            changed(|s| {
                s.slices.put(0x06, 1, 3, vec![1; 3]);
            }),
        ),
        wrong("10.3_count_of_ids", "A-6-4", "an id for each of two rows, and one id", {
            changed(|s| {
                let column = s.ids.column(c::SEGMENT_CHUNK_ID);
                (column.count, column.data) = (1, column.data[..32].to_vec());
            })
        }),
    ]
}

fn ids() -> Vec<Vector> {
    let new = SegmentMaker::new;
    let id = ids_of(3);
    let again = [id[0], id[0]];
    vec![
        wrong("10.3_ids_out_of_order", "A-10.3-1", "the second id comes first", {
            new(&id[..2], &[(1, 0, 10), (0, 0, 10)])
        }),
        wrong("10.3_id_unused", "A-10.3-1", "no slice has the third id", new(&id, &[(0, 0, 9), (1, 0, 9)])),
        wrong("10.3_id_twice", "A-10.3-1", "an id is listed twice", new(&again, &[(0, 0, 9), (1, 0, 9)])),
        wrong("10.3_id_beyond", "A-10.3-1", "a slice of an id beyond the list", {
            new(&id[..1], &[(0, 0, 10), (1, 0, 10)])
        }),
    ]
}

fn slices() -> Vec<Vector> {
    let new = SegmentMaker::new;
    let id = ids_of(2);
    vec![
        wrong("10.3_slice_is_empty", "A-10.3-2", "a slice of no bytes", new(&id, &[(0, 0, 0), (1, 0, 9)])),
        wrong("10.3_slices_not_joined", "A-10.3-3", "a slice goes on from the one before", {
            new(&id[..1], &[(0, 0, 10), (0, 10, 5)])
        }),
        right("10.3_slices_apart", "A-10.3-3", "a chunk's slices a byte apart, and again", {
            new(&id[..1], &[(0, 0, 10), (0, 11, 5), (0, 0, 10)])
        }),
    ]
}

fn cuts() -> Vec<Vector> {
    // The first id ends a segment that has slices enough.
    let ids = [Digest([0; 32]), Digest([1; 32])];
    let alternate = |count: u64| {
        let slices: Vec<_> = (0..count).map(|row| (row % 2, 0, 9)).collect();
        slices
    };
    let ends = [ids[1], ids[0]];
    let none = [ids_of(2)[0], ids_of(2)[1]];
    let new = SegmentMaker::new;
    vec![
        right("10.3_ends_at_256", "A-10.3-4", "256 slices, of which the last ends it", {
            new(&ends, &alternate(256))
        }),
        wrong("10.3_goes_on_at_256", "A-10.3-4", "a slice behind one that ends the segment", {
            new(&ends, &alternate(257))
        }),
        right(
            "10.3_goes_on_before_256",
            "A-10.3-4",
            "the id ends no segment of 255",
            new(&ids, &alternate(256)),
        ),
        right("10.3_of_4096", "A-10.3-4 A-13-1", "slices as many as can be", new(&none, &alternate(4096))),
        fault("10.3_of_4097", "A-10.3-4 A-13-1", Limit, "a slice too many", new(&none, &alternate(4097))),
    ]
}

fn levels() -> Vec<Vector> {
    let new = SegmentMaker::of_level;
    let id = ids_of(2);
    let rows = [(0, 0, 1 << 40, 300), (1, 0, 1 << 20, 256)];
    let one = |row: (u64, u64, u64, u64)| [row, rows[1]];
    vec![
        right("10.3_level_6", "A-10.3-5", "segments of the highest level", new(6, &id, &rows)),
        fault("10.3_level_7", "A-10.3-5 A-13-1", Limit, "a level too high", new(7, &id, &rows)),
        wrong("10.3_start_above_0", "A-10.3-5", "a segment of segments starts inside one", {
            new(1, &id, &one((0, 8, 1 << 40, 300)))
        }),
        wrong("10.3_without_slices", "A-10.3-5", "a segment of no slices in one above", {
            new(1, &id, &one((0, 0, 1 << 40, 0)))
        }),
        wrong("10.3_slices_at_level_0", "A-10.3-5", "SLICES in a segment of level 0", {
            new(0, &id, &[(0, 0, 9, 1), (1, 0, 9, 1)])
        }),
        wrong("10.3_lengths_of_2_to_64", "A-1.2-1", "lengths add up to 2^64", {
            new(1, &id, &[(0, 0, 1 << 63, 300), (1, 0, 1 << 63, 256)])
        }),
        wrong("10.3_no_segments", "A-10.3-5", "a segment of no segments", new(1, &[], &[])),
    ]
}
