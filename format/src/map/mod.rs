//! Stream maps: which slices of which chunks make up a stream, in segments that are stored like chunks.
//!
//! A segment holds lengths and no offsets, and is cut where a chunk id says so: an unchanged run of a map is
//! byte-identical, wherever in the stream it stands. [`Segment`] reads one where it lies; [`MapBuilder`] makes
//! the segments of a whole map, from the leaves to the root.
//!
//! Spec: archive.md section 10.3.

mod builder;

pub use builder::{BuiltSegment, MapBuilder};

use std::collections::HashMap;

use crate::digest::{CONTEXT_SEGMENT, Digest};
use crate::error::{Error, Result, Stream};
use crate::limits;
use crate::section::{
    Digests, Ints, SEGMENT_CHUNK_ID, SEGMENT_CHUNK_LENGTH, SEGMENT_CHUNKS, SEGMENT_SLICES, SLICE_CHUNK,
    SLICE_LENGTH, SLICE_LEVEL, SLICE_SLICES, SLICE_START, Section, SectionBuilder,
};

/// A range of one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slice {
    /// Id of the chunk.
    pub chunk: Digest,
    /// Where the slice starts in the chunk.
    pub start: u32,
    /// Its length in bytes, above 0.
    pub length: u32,
}

impl Slice {
    /// Where the slice ends in the chunk.
    pub fn end(&self) -> u64 {
        u64::from(self.start) + u64::from(self.length)
    }

    /// Both as one slice, where `next` is the same chunk's from this one's end on. Spec: A-10.3-3.
    pub fn join(self, next: Slice) -> Option<Slice> {
        let follows = self.chunk == next.chunk && self.end() == u64::from(next.start);
        let length = self.length.checked_add(next.length).filter(|_| follows)?;
        Some(Slice { length, ..self })
    }
}

/// A segment as the one above it, or a manifest, knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SegmentRef {
    /// Its chunk id.
    pub id: Digest,
    /// The bytes of the stream that it covers.
    pub length: u64,
    /// The slices in it and below it.
    pub slices: u64,
}

/// Id of the chunk that holds a segment. Spec: section 11.
pub fn segment_id(segment: &[u8]) -> Digest {
    Digest::in_context(CONTEXT_SEGMENT, segment)
}

/// The rule that says where a segment ends. Spec: A-10.3-4.
#[derive(Clone, Copy, Debug, Default)]
pub struct SegmentCut {
    rows: usize,
}

impl SegmentCut {
    /// Takes the chunk id of the next slice and says whether the segment ends after it.
    pub fn ends_after(&mut self, chunk: &Digest) -> bool {
        self.rows += 1;
        let ends = self.rows >= limits::SEGMENT_ROWS_MAX
            || self.rows >= limits::SEGMENT_ROWS_MIN && chunk.leading().is_multiple_of(1024);
        if ends {
            self.rows = 0;
        }
        ends
    }
}

/// The bytes of a segment of slices. They must have been joined and cut by the rules before.
pub fn encode_leaf(slices: &[Slice]) -> Result<Vec<u8>> {
    encode_leaf_of(slices, |_| 0)
}

/// The same with the length of each chunk, 0 where it is not known.
pub fn encode_leaf_of(slices: &[Slice], chunk_length: impl Fn(&Digest) -> u64) -> Result<Vec<u8>> {
    let rows = slices.iter().map(|s| (s.chunk, u64::from(s.start), u64::from(s.length), 0));
    encode(0, rows, slices.len(), chunk_length)
}

/// Where the chunk ids lie in a segment's bytes, and how many there are: what a sealed segment has in clear.
pub fn place_of_ids(segment: &[u8]) -> Result<(std::ops::Range<usize>, usize)> {
    let section = Section::parse(segment, SEGMENT_CHUNKS)?;
    // The column is there whenever there are rows, and has one id for each.
    Ok((section.place(SEGMENT_CHUNK_ID), section.digests(SEGMENT_CHUNK_ID, section.rows())?.len()))
}

/// The bytes of a segment of segments; `level` is above 0.
pub fn encode_node(level: u64, below: &[SegmentRef]) -> Result<Vec<u8>> {
    if level > limits::SEGMENT_LEVEL_MAX {
        return Err(Error::limit("level of segments", level, limits::SEGMENT_LEVEL_MAX));
    }
    encode(level, below.iter().map(|s| (s.id, 0, s.length, s.slices)), below.len(), |_| 0)
}

fn encode(
    level: u64,
    rows: impl Iterator<Item = (Digest, u64, u64, u64)>,
    count: usize,
    chunk_length: impl Fn(&Digest) -> u64,
) -> Result<Vec<u8>> {
    if count > limits::SEGMENT_ROWS_MAX {
        return Err(Error::limit("slices of a segment", count as u64, limits::SEGMENT_ROWS_MAX as u64));
    }
    let mut ids = Vec::new();
    let mut position_of = HashMap::with_capacity(count);
    let mut columns = [const { Vec::new() }; 4];
    let [chunks, starts, lengths, slices] = &mut columns;
    for (id, start, length, below) in rows {
        let position = *position_of.entry(id).or_insert(ids.len());
        if position == ids.len() {
            ids.push(id);
        }
        chunks.push(position as u64);
        starts.push(start);
        lengths.push(length);
        slices.push(below);
    }
    let chunk_lengths: Vec<u64> = ids.iter().map(chunk_length).collect();
    let mut out = Vec::new();
    SectionBuilder::new(SEGMENT_CHUNKS, ids.len())
        .digests(SEGMENT_CHUNK_ID, &ids)
        .ints(SEGMENT_CHUNK_LENGTH, &chunk_lengths)
        .finish(&mut out)?;
    SectionBuilder::new(SEGMENT_SLICES, count)
        .ints(SLICE_CHUNK, chunks)
        .ints(SLICE_START, starts)
        .ints(SLICE_LENGTH, lengths)
        .ints(SLICE_SLICES, slices)
        .ints(SLICE_LEVEL, &[level])
        .finish(&mut out)?;
    Ok(out)
}

/// A segment where it lies, all its rules checked.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    ids: Digests<'a>,
    chunk_lengths: Ints<'a>,
    chunks: Ints<'a>,
    starts: Ints<'a>,
    lengths: Ints<'a>,
    slices: Ints<'a>,
    level: u64,
    length: u64,
    slice_count: u64,
}

impl<'a> Segment<'a> {
    /// Checks the segment that `bytes` are. Spec: A-10.3-1 to A-10.3-5, A-10.3-7.
    pub fn parse(bytes: &'a [u8]) -> Result<Self> {
        Self::parse_unplaced(bytes).map_err(|error| error.at(Stream::Segment, 0))
    }

    fn parse_unplaced(bytes: &'a [u8]) -> Result<Self> {
        let chunks = Section::parse(bytes, SEGMENT_CHUNKS)?;
        let rest = bytes.get(chunks.length()..).unwrap_or_default();
        let rows = Section::parse(rest, SEGMENT_SLICES)?;
        if rows.length() != rest.len() {
            return Err(Error::corrupt("bytes follow a segment"));
        }
        Self::from_sections(&chunks, &rows)
    }

    fn from_sections(chunks: &Section<'a>, rows: &Section<'a>) -> Result<Self> {
        let most = limits::SEGMENT_ROWS_MAX;
        if let Some(found) = [rows.rows(), chunks.rows()].into_iter().find(|found| *found > most) {
            return Err(Error::limit("slices of a segment", found as u64, most as u64));
        }
        let level = rows.ints(SLICE_LEVEL, 1)?.get(0);
        if level > limits::SEGMENT_LEVEL_MAX {
            return Err(Error::limit("level of segments", level, limits::SEGMENT_LEVEL_MAX));
        }
        let mut segment = Self {
            ids: chunks.digests(SEGMENT_CHUNK_ID, chunks.rows())?,
            chunk_lengths: chunks.ints(SEGMENT_CHUNK_LENGTH, chunks.rows())?,
            chunks: rows.ints(SLICE_CHUNK, rows.rows())?,
            starts: rows.ints(SLICE_START, rows.rows())?,
            lengths: rows.ints(SLICE_LENGTH, rows.rows())?,
            slices: rows.ints(SLICE_SLICES, rows.rows())?,
            level,
            length: 0,
            slice_count: 0,
        };
        segment.validate_ids()?;
        segment.validate_rows()?;
        Ok(segment)
    }

    /// The ids are distinct and in the order in which the slices use them first. Spec: A-10.3-1.
    fn validate_ids(&self) -> Result<()> {
        let mut used = 0;
        for position in self.chunks.iter() {
            if position > used {
                return Err(Error::corrupt("chunk ids of a segment are not in order of first use"));
            }
            used += u64::from(position == used);
        }
        if used != self.ids.len() as u64 {
            return Err(Error::corrupt("a segment has another number of chunk ids than its slices use"));
        }
        let mut ids: Vec<Digest> = (0..self.ids.len()).map(|index| self.ids.get(index)).collect();
        ids.sort_unstable();
        if ids.array_windows().any(|[a, b]| a == b) {
            return Err(Error::corrupt("a segment lists a chunk id twice"));
        }
        Ok(())
    }

    fn validate_rows(&mut self) -> Result<()> {
        if self.rows() == 0 && self.level > 0 {
            return Err(Error::corrupt("a segment of segments has no rows"));
        }
        let mut cut = SegmentCut::default();
        for row in 0..self.rows() {
            let (start, length, below) = (self.starts.get(row), self.lengths.get(row), self.slices.get(row));
            if length == 0 {
                return Err(Error::corrupt("a slice is empty"));
            }
            if self.level == 0 {
                // No chunk is as long; what is left fits a slice's numbers.
                if start.saturating_add(length) > limits::METADATA_CHUNK_MAX as u64 {
                    return Err(Error::corrupt("a slice reaches beyond the end of any chunk"));
                }
                let told = self.chunk_length(self.position(row));
                if told.is_some_and(|told| start + length > told) {
                    return Err(Error::corrupt(
                        "a slice reaches beyond the length that its chunk is said to have",
                    ));
                }
                let before = row.checked_sub(1).map(|row| self.slice(row));
                if before.is_some_and(|before| before.join(self.slice(row)).is_some()) {
                    return Err(Error::corrupt("neighbouring slices of one chunk are not joined"));
                }
            }
            if (self.level == 0) != (below == 0) || self.level > 0 && start != 0 {
                return Err(Error::corrupt("a slice does not fit the level of its segment"));
            }
            if cut.ends_after(&self.chunk(row)) && row + 1 < self.rows() {
                return Err(Error::corrupt("a segment goes on beyond where a chunk id ends it"));
            }
            let sums = self.length.checked_add(length).zip(self.slice_count.checked_add(below.max(1)));
            let Some((length, slice_count)) = sums else {
                return Err(Error::corrupt("the lengths of a segment add up to more than a number can say"));
            };
            (self.length, self.slice_count) = (length, slice_count);
        }
        Ok(())
    }

    /// Number of rows: slices at level 0, segments above.
    pub fn rows(&self) -> usize {
        self.chunks.len()
    }

    /// 0 where the rows are slices; the rows of level n are segments of level n-1.
    pub fn level(&self) -> u64 {
        self.level
    }

    /// The bytes of the stream that it covers.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The slices in it and below it.
    pub fn slice_count(&self) -> u64 {
        self.slice_count
    }

    /// The distinct ids: of chunks at level 0, of segments above.
    pub fn ids(&self) -> impl ExactSizeIterator<Item = Digest> + '_ {
        (0..self.ids.len()).map(|index| self.ids.get(index))
    }

    /// The length of the chunk whose id stands at `position` in [`Self::ids`], where the segment tells it.
    /// Spec: R-5-10.
    pub fn chunk_length(&self, position: usize) -> Option<u64> {
        Some(self.chunk_lengths.get(position)).filter(|length| *length != 0)
    }

    /// The length of the chunk of row `row`, where the segment tells it.
    pub fn chunk_length_of(&self, row: usize) -> Option<u64> {
        self.chunk_length(self.position(row))
    }

    /// Row `row` of a segment of level 0.
    pub fn slice(&self, row: usize) -> Slice {
        // `validate_rows` has bounded both.
        let number = |ints: &Ints<'_>| u32::try_from(ints.get(row)).unwrap_or(u32::MAX);
        Slice { chunk: self.chunk(row), start: number(&self.starts), length: number(&self.lengths) }
    }

    /// Row `row` of a segment of a level above 0.
    pub fn below(&self, row: usize) -> SegmentRef {
        SegmentRef { id: self.chunk(row), length: self.lengths.get(row), slices: self.slices.get(row) }
    }

    fn chunk(&self, row: usize) -> Digest {
        self.ids.get(self.position(row))
    }

    /// Where the id of a row's chunk stands among the ids.
    pub fn position(&self, row: usize) -> usize {
        usize::try_from(self.chunks.get(row)).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Class;
    use std::collections::HashSet;

    fn slice(chunk: u64, start: u32, length: u32) -> Slice {
        Slice { chunk: Digest::of(&chunk.to_le_bytes()), start, length }
    }

    fn map(slices: impl Iterator<Item = Slice>) -> (SegmentRef, HashMap<Digest, Vec<u8>>) {
        let mut builder = MapBuilder::default();
        let mut built = Vec::new();
        for slice in slices {
            builder.push(slice).unwrap();
            built.extend(builder.take_built());
        }
        let (root, rest) = builder.finish().unwrap();
        built.extend(rest);
        let ids: HashSet<Digest> = built.iter().map(|segment| segment.id).collect();
        assert_eq!(ids.len(), built.len());
        (root, built.into_iter().map(|segment| (segment.id, segment.bytes)).collect())
    }

    fn flatten(root: SegmentRef, segments: &HashMap<Digest, Vec<u8>>, level: Option<u64>) -> Vec<Slice> {
        let segment = Segment::parse(&segments[&root.id]).unwrap();
        assert_eq!((segment.length(), segment.slice_count()), (root.length, root.slices));
        assert!(level.is_none_or(|level| level == segment.level()));
        match segment.level() {
            0 => (0..segment.rows()).map(|row| segment.slice(row)).collect(),
            level => (0..segment.rows())
                .flat_map(|row| flatten(segment.below(row), segments, Some(level - 1)))
                .collect(),
        }
    }

    #[test]
    fn a_map_comes_back_whatever_its_size() {
        for count in [0, 1, 255, 256, 5000, 300_000] {
            let slices = || (0..count).map(|n| slice(n % 7000, (n / 7000) as u32 * 2, 1 + (n % 5) as u32));
            let (root, segments) = map(slices());
            assert_eq!(flatten(root, &segments, None), slices().collect::<Vec<_>>(), "{count}");
            assert_eq!(root.slices, count.max(u64::from(count == 0)).min(count));
        }
    }

    #[test]
    fn a_run_that_comes_again_gives_segments_that_are_there() {
        let (root, segments) = map((0..100_000).map(|n| slice(n % 10_000, 0, 9)));
        assert_eq!((root.slices, root.length), (100_000, 900_000));
        assert!(segments.len() < 40, "{}", segments.len());
    }

    #[test]
    fn an_insertion_changes_few_segments() {
        let (_, before) = map((0..200_000).map(|n| slice(n, 0, 9)));
        let (_, after) = map((0..200_001).map(|n| slice(if n == 0 { 1 << 40 } else { n - 1 }, 0, 9)));
        let new = after.keys().filter(|id| !before.contains_key(id)).count();
        assert!(before.len() > 100 && new <= 4, "{new} of {} are new", after.len());
    }

    #[test]
    fn neighbours_join() {
        let (root, segments) =
            map([slice(1, 0, 5), slice(1, 5, 7), slice(1, 13, 1), slice(2, 14, 1)].into_iter());
        let joined = [slice(1, 0, 12), slice(1, 13, 1), slice(2, 14, 1)];
        assert_eq!(flatten(root, &segments, None), joined);
    }

    /// Spec: R-5-10
    #[test]
    fn a_segment_may_tell_how_long_its_chunks_are() {
        let mut builder = MapBuilder::default();
        for (slice, length) in [(slice(1, 0, 5), 9), (slice(2, 3, 70_000), 70_003), (slice(1, 7, 2), 9)] {
            builder.push_of(slice, length).unwrap();
        }
        builder.push(slice(3, 0, 1)).unwrap();
        let (_, built) = builder.finish().unwrap();
        let segment = Segment::parse(&built[0].bytes).unwrap();
        let lengths: Vec<_> = (0..segment.ids().len()).map(|n| segment.chunk_length(n)).collect();
        assert_eq!(lengths, [Some(9), Some(70_003), None]);
        assert_eq!((0..4).map(|row| segment.position(row)).collect::<Vec<_>>(), [0, 1, 0, 2]);
        let short = encode_leaf_of(&[slice(1, 2, 5)], |_| 6).unwrap();
        assert_eq!(Segment::parse(&short).unwrap_err().class, Class::Corrupt);
        let plain = encode_leaf(&[slice(1, 2, 5)]).unwrap();
        assert_eq!(Segment::parse(&plain).unwrap().chunk_length(0), None);
    }

    #[test]
    fn ids_of_segments_are_found_in_their_bytes_and_may_be_keyed() {
        let (place, count) = place_of_ids(&encode_leaf(&[]).unwrap()).unwrap();
        assert_eq!((place.len(), count), (0, 0));
        let bytes = encode_leaf_of(&[slice(1, 0, 5), slice(2, 0, 5), slice(1, 9, 1)], |_| 50).unwrap();
        let (place, count) = place_of_ids(&bytes).unwrap();
        assert_eq!(bytes[place], [slice(1, 0, 1).chunk.0, slice(2, 0, 1).chunk.0].concat());
        assert_eq!(count, 2);
        let mut builder = MapBuilder::with_ids(|bytes| Digest::keyed(&[7; 32], bytes));
        builder.push(slice(1, 0, 5)).unwrap();
        let (root, built) = builder.finish().unwrap();
        assert_eq!(root.id, Digest::keyed(&[7; 32], &built[0].bytes));
    }

    #[test]
    fn broken_rules_are_found() {
        let class = |bytes: &[u8]| Segment::parse(bytes).map(|_| ()).unwrap_err().class;
        let leaf = |slices: &[Slice]| encode_leaf(slices).unwrap();
        assert_eq!(class(&leaf(&[slice(1, 0, 0)])), Class::Corrupt);
        assert_eq!(class(&leaf(&[slice(1, 0, 5), slice(1, 5, 5)])), Class::Corrupt);
        assert_eq!(class(&leaf(&[slice(1, u32::MAX, 5)])), Class::Corrupt);
        assert_eq!(class(&encode_node(1, &[]).unwrap()), Class::Corrupt);
        let below = SegmentRef { id: Digest::of(b"x"), length: 9, slices: 0 };
        assert_eq!(class(&encode_node(1, &[below]).unwrap()), Class::Corrupt);
        assert_eq!(
            class(
                &encode_node(
                    1,
                    &[SegmentRef { slices: 1, ..below }; 4096].map(|s| SegmentRef { length: u64::MAX, ..s })
                )
                .unwrap()
            ),
            Class::Corrupt
        );
        assert_eq!(encode_node(7, &[]).unwrap_err().class, Class::Limit);
        assert_eq!(encode_leaf(&[slice(1, 0, 1); 4097]).unwrap_err().class, Class::Limit);

        let whole = leaf(&[slice(1, 0, 5), slice(2, 0, 5)]);
        assert_eq!(class(&[&whole[..], &[0; 8]].concat()), Class::Corrupt);
        for end in 0..whole.len() {
            assert_eq!(class(&whole[..end]), Class::Truncated, "{end}");
        }

        let section = |ids: &[u64], chunks: &[u64]| {
            let ids: Vec<Digest> = ids.iter().map(|id| Digest::of(&id.to_le_bytes())).collect();
            let mut out = Vec::new();
            SectionBuilder::new(SEGMENT_CHUNKS, ids.len())
                .digests(SEGMENT_CHUNK_ID, &ids)
                .finish(&mut out)
                .unwrap();
            SectionBuilder::new(SEGMENT_SLICES, chunks.len())
                .ints(SLICE_CHUNK, chunks)
                .ints(SLICE_LENGTH, &vec![3; chunks.len()])
                .finish(&mut out)
                .unwrap();
            out
        };
        assert!(Segment::parse(&section(&[4, 5], &[0, 1, 0])).is_ok());
        assert_eq!(class(&section(&[4, 5], &[1, 0])), Class::Corrupt);
        assert_eq!(class(&section(&[4, 5], &[0, 0])), Class::Corrupt);
        assert_eq!(class(&section(&[4], &[0, 1])), Class::Corrupt);
        assert_eq!(class(&section(&[4, 4], &[0, 1])), Class::Corrupt);
    }

    #[test]
    fn a_segment_beyond_its_cut_is_found() {
        let cutting = (0..).map(|n| slice(n, 0, 1)).find(|s| s.chunk.leading() % 1024 == 0).unwrap();
        let mut slices: Vec<Slice> = (0..300).map(|n| slice(1 << 50 | n, 0, 1)).collect();
        slices[280] = cutting;
        assert_eq!(Segment::parse(&encode_leaf(&slices).unwrap()).unwrap_err().class, Class::Corrupt);
        slices.truncate(281);
        Segment::parse(&encode_leaf(&slices).unwrap()).unwrap();
        slices.swap(280, 100);
        Segment::parse(&encode_leaf(&slices).unwrap()).unwrap();
    }
}
