//! The values of a column, read where they lie.
//!
//! Spec: archive.md section 6.

use crate::digest::Digest;

#[inline]
pub(super) fn read_u16(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|b| b.try_into().ok()).map_or(0, u16::from_le_bytes)
}

#[inline]
pub(super) fn read_u32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

/// Integers where they lie. An index beyond the end gives 0; the count was checked when the column was taken.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ints<'a> {
    pub(super) data: &'a [u8],
    pub(super) width: u16,
    pub(super) count: usize,
}

impl Ints<'_> {
    /// The value at `index`.
    #[inline]
    pub fn get(&self, index: usize) -> u64 {
        match self.width {
            0 => 0,
            1 => self.data.get(index).copied().map_or(0, u64::from),
            2 => u64::from(read_u16(self.data, index * 2)),
            4 => u64::from(read_u32(self.data, index * 4)),
            _ => self
                .data
                .get(index * 8..index * 8 + 8)
                .and_then(|b| b.try_into().ok())
                .map_or(0, u64::from_le_bytes),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        (0..self.count).map(|index| self.get(index))
    }

    /// The index of `value` in an ascending column.
    pub fn search(&self, value: u64) -> Option<usize> {
        let index = partition_point(self.count, |index| self.get(index) < value);
        (index < self.count && self.get(index) == value).then_some(index)
    }
}

/// Signed integers where they lie.
#[derive(Clone, Copy, Debug, Default)]
pub struct SignedInts<'a>(pub(super) Ints<'a>);

impl SignedInts<'_> {
    /// The value at `index`.
    #[inline]
    pub fn get(&self, index: usize) -> i64 {
        let raw = self.0.get(index).cast_signed();
        let unused = 64 - 8 * u32::from(self.0.width);
        if self.0.width == 0 { 0 } else { raw << unused >> unused }
    }
}

/// Ends that divide another column: element i reaches from end i-1 to end i.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ends<'a>(pub(super) Ints<'a>);

impl Ends<'_> {
    /// The range of element `index`.
    #[inline]
    pub fn range(&self, index: usize) -> std::ops::Range<usize> {
        let start = if index == 0 { 0 } else { self.0.get(index - 1) };
        // Both are at most the count of the divided column, which fits.
        usize::try_from(start).unwrap_or(0)..usize::try_from(self.0.get(index)).unwrap_or(0)
    }
}

/// Strings of bytes where they lie, one after another.
#[derive(Clone, Copy, Debug, Default)]
pub struct Divided<'a> {
    pub(super) ends: Ends<'a>,
    pub(super) bytes: &'a [u8],
}

impl<'a> Divided<'a> {
    /// The string at `index`.
    #[inline]
    pub fn get(&self, index: usize) -> &'a [u8] {
        self.bytes.get(self.ends.range(index)).unwrap_or(&[])
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The index of `string` among ascending ones.
    pub fn search(&self, string: &[u8]) -> Option<usize> {
        let index = partition_point(self.len(), |index| self.get(index) < string);
        (index < self.len() && self.get(index) == string).then_some(index)
    }

    /// The index of the last of ascending strings that is not above `string`.
    pub fn search_last(&self, string: &[u8]) -> Option<usize> {
        partition_point(self.len(), |index| self.get(index) <= string).checked_sub(1)
    }
}

/// The first of `count` indexes that is not before what is looked for: those that are come first.
#[inline]
fn partition_point(count: usize, is_before: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        if is_before(middle) { low = middle + 1 } else { high = middle }
    }
    low
}

/// Digests where they lie.
#[derive(Clone, Copy, Debug, Default)]
pub struct Digests<'a>(pub(super) &'a [u8]);

impl Digests<'_> {
    /// The digest at `index`; all zeros beyond the end.
    #[inline]
    pub fn get(&self, index: usize) -> Digest {
        let bytes = self.0.get(index * 32..index * 32 + 32).and_then(|b| b.try_into().ok());
        Digest(bytes.unwrap_or_default())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len() / 32
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
