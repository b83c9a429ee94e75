//! One index file: its packs and fan-out in memory, its rows where they lie.
//!
//! Rows are read and not mapped: a file that is cut short under a map ends the process, whereas a read gives an error,
//! works with any backend, and takes a microsecond where the file is in the page cache.
//!
//! Spec: repository.md section 8.

use std::ops::Range;
use std::sync::Arc;

use diptych_format::pack_index::{
    INDEX_HEADER_LENGTH, INDEX_MAC_LENGTH, INDEX_PACK_LENGTH, INDEX_ROW_LENGTH, IndexHeader, IndexLayout,
    IndexPack, IndexRow, decode_fan_out, decode_replaces_onto, validate_order,
};
use diptych_format::{Digest, Error, ReadAt, Result};

use super::view::PackSum;

/// Rows that are read at once to find one. Buckets have about a third of that.
const FIND_ROWS: usize = 96;
/// Rows that are read at once to see them all.
const PASS_ROWS: usize = 4096;

/// An open index file.
pub struct IndexFile {
    file: Arc<dyn ReadAt>,
    head: Head,
}

/// What is kept in memory of it.
struct Head {
    header: IndexHeader,
    layout: IndexLayout,
    packs: Vec<IndexPack>,
    replaces: Vec<Digest>,
    fan_out: Vec<u32>,
}

impl IndexFile {
    /// Reads the file from front to back and checks all of it; `mac` is the keyed hasher, or that of the context.
    /// Spec: R-8-4 to R-8-6.
    pub fn open(file: Arc<dyn ReadAt>, mac: &blake3::Hasher) -> Result<Self> {
        let (head, found, expected) = Self::read(&*file, mac.clone())?;
        // This comparison takes as long whatever the bytes are.
        if found != expected {
            let what = "a pack index has other bytes than were written, or is not of this repository";
            return Err(Error::corrupt(what));
        }
        // What was found in bytes that nobody had vouched for yet counts only now.
        Ok(Self { head: head?, file })
    }

    /// The same for whoever has no key: it is well-formed, and nothing is known of who wrote it.
    pub fn open_unproved(file: Arc<dyn ReadAt>) -> Result<Self> {
        let (head, ..) = Self::read(&*file, blake3::Hasher::new())?;
        Ok(Self { head: head?, file })
    }

    /// What is found in the file, its mac, and the mac that it has.
    fn read(
        file: &dyn ReadAt,
        mac: blake3::Hasher,
    ) -> Result<(Result<Head>, blake3::Hash, [u8; INDEX_MAC_LENGTH])> {
        let mut pass = Pass { file, offset: 0, mac };
        let header = IndexHeader::decode(&pass.take(INDEX_HEADER_LENGTH as u64)?)?;
        let layout = header.layout();
        // From here on no length is longer than the file.
        layout.validate_length(file.len())?;
        let mut head = Head::read(header, &mut pass)?;
        let mut rows = RowsCheck::default();
        while pass.offset < layout.mac {
            let part = pass.take((layout.mac - pass.offset).min((PASS_ROWS * INDEX_ROW_LENGTH) as u64))?;
            head = head.and_then(|head| rows.go_on(&head, &part).map(|()| head));
        }
        let mut expected = [0; INDEX_MAC_LENGTH];
        file.read_exact_at(&mut expected, layout.mac)?;
        Ok((head, pass.mac.finalize(), expected))
    }

    /// What it says of each of its packs, all in all. Goes through all rows.
    pub fn sums(&self, mac: &blake3::Hasher) -> Result<Vec<PackSum>> {
        let mut sums = vec![PackSum::default(); self.packs().len()];
        for row in self.rows() {
            let row = row?;
            if let Some(sum) = sums.get_mut(row.pack as usize) {
                sum.add(&row, mac);
            }
        }
        Ok(sums)
    }

    /// Number of rows.
    pub fn chunks(&self) -> u64 {
        self.head.header.chunks
    }

    /// The packs, by name.
    pub fn packs(&self) -> &[IndexPack] {
        &self.head.packs
    }

    /// Bytes of memory that it takes, roughly.
    pub fn weight(&self) -> usize {
        let Head { packs, replaces, fan_out, .. } = &self.head;
        size_of::<Self>() + size_of_val(&packs[..]) + size_of_val(&replaces[..]) + size_of_val(&fan_out[..])
    }

    /// The index files that this one replaces, by name.
    pub fn replaces(&self) -> &[Digest] {
        &self.head.replaces
    }

    /// Calls `each` with the rows of a chunk, one for each pack that has it, until it gives something.
    pub fn find_map<T>(&self, id: &Digest, mut each: impl FnMut(IndexRow) -> Option<T>) -> Result<Option<T>> {
        self.find_numbered(id, |_, row| each(row))
    }

    /// The same with the number of each row.
    pub(crate) fn find_numbered<T>(
        &self,
        id: &Digest,
        mut each: impl FnMut(u64, IndexRow) -> Option<T>,
    ) -> Result<Option<T>> {
        let Range { start: mut low, end } = self.head.bucket(id);
        let mut high = end;
        // A bucket that is larger than usual is halved until one read has the first of the rows.
        while high - low >= FIND_ROWS as u64 {
            let middle = low + (high - low) / 2;
            let mut at_middle = [0; 32];
            self.file.read_exact_at(&mut at_middle, self.head.layout.row(middle))?;
            if at_middle < id.0 {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let mut buffer = [0; FIND_ROWS * INDEX_ROW_LENGTH];
        while low < end {
            let count = (end - low).min(FIND_ROWS as u64);
            let read = buffer.get_mut(..count as usize * INDEX_ROW_LENGTH).unwrap_or_default();
            self.file.read_exact_at(read, self.head.layout.row(low))?;
            let (rows, _) = read.as_chunks::<INDEX_ROW_LENGTH>();
            let first = rows.partition_point(|row| row[..32] < id.0[..]);
            for (number, row) in (low..).zip(rows).skip(first) {
                if row[..32] != id.0 {
                    return Ok(None);
                }
                if let Some(found) = each(number, IndexRow::decode(row, &self.head.packs)?) {
                    return Ok(Some(found));
                }
            }
            low += count;
        }
        Ok(None)
    }

    /// All rows in order.
    pub fn rows(&self) -> IndexRows<'_> {
        IndexRows { index: self, next: 0, buffer: Vec::new(), used: 0 }
    }
}

/// The rows of an index file in order.
pub struct IndexRows<'a> {
    index: &'a IndexFile,
    /// The first row that is not in the buffer yet.
    next: u64,
    buffer: Vec<u8>,
    used: usize,
}

impl Iterator for IndexRows<'_> {
    type Item = Result<IndexRow>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.used == self.buffer.len() {
            let count = (self.index.head.header.chunks - self.next).min(PASS_ROWS as u64);
            if count == 0 {
                return None;
            }
            self.buffer.resize(count as usize * INDEX_ROW_LENGTH, 0);
            let read = self.index.file.read_exact_at(&mut self.buffer, self.index.head.layout.row(self.next));
            if let Err(error) = read {
                // Nobody goes on after an error; if they do, there is no more.
                self.next = self.index.head.header.chunks;
                self.buffer.clear();
                self.used = 0;
                return Some(Err(error));
            }
            (self.next, self.used) = (self.next + count, 0);
        }
        let row = self.buffer.get(self.used..).and_then(|rest| rest.first_chunk())?;
        self.used += INDEX_ROW_LENGTH;
        Some(IndexRow::decode(row, &self.index.head.packs))
    }
}

impl Head {
    /// Reads what lies before the rows. The error outside is one of reading, the one inside is in the bytes.
    fn read(header: IndexHeader, pass: &mut Pass<'_>) -> Result<Result<Self>> {
        let layout = header.layout();
        let packs = pass.take_items(layout.replaces, INDEX_PACK_LENGTH, IndexPack::decode_onto)?;
        let replaces = pass.take_items(layout.fan_out, size_of::<Digest>(), decode_replaces_onto)?;
        let fan_out = decode_fan_out(&pass.take(layout.rows - layout.fan_out)?, header.chunks);
        let head = |packs, replaces, fan_out| Self { header, layout, packs, replaces, fan_out };
        Ok(packs.and_then(|packs| Ok(head(packs, replaces?, fan_out?))))
    }

    /// Which rows have ids that begin as this one does.
    fn bucket(&self, id: &Digest) -> Range<u64> {
        let bucket = self.header.bucket(id);
        let end_of = |bucket: usize| self.fan_out.get(bucket).copied().map_or(0, u64::from);
        bucket.checked_sub(1).map_or(0, end_of)..end_of(bucket)
    }
}

/// One pass over the file.
struct Pass<'a> {
    file: &'a dyn ReadAt,
    offset: u64,
    mac: blake3::Hasher,
}

impl Pass<'_> {
    fn take(&mut self, length: u64) -> Result<Vec<u8>> {
        let length =
            usize::try_from(length).map_err(|_| Error::limit("bytes at once", length, usize::MAX as u64))?;
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, self.offset)?;
        self.mac.update(&bytes);
        self.offset += length as u64;
        Ok(bytes)
    }

    /// Items of `length` bytes up to `end`. From the first on that is not in order none is kept: what a file claims that is
    /// long by a hole costs no memory.
    fn take_items<T>(
        &mut self,
        end: u64,
        length: usize,
        decode_onto: impl Fn(&mut Vec<T>, &[u8]) -> Result<()>,
    ) -> Result<Result<Vec<T>>> {
        let mut items = Ok(Vec::new());
        while self.offset < end {
            let part = self.take((end - self.offset).min((PASS_ROWS * length) as u64))?;
            items = items.and_then(|mut items| decode_onto(&mut items, &part).map(|()| items));
        }
        Ok(items)
    }
}

/// What has been seen of rows that come part by part.
#[derive(Default)]
struct RowsCheck {
    before: Option<IndexRow>,
    count: u64,
}

impl RowsCheck {
    fn go_on(&mut self, head: &Head, part: &[u8]) -> Result<()> {
        let (rows, _) = part.as_chunks::<INDEX_ROW_LENGTH>();
        for row in rows {
            let row = IndexRow::decode(row, &head.packs)?;
            if let Some(before) = &self.before {
                validate_order(before, &row)?;
            }
            if !head.bucket(&row.header.id).contains(&self.count) {
                return Err(Error::corrupt("an index's fan-out does not count its rows"));
            }
            self.before = Some(row);
            self.count += 1;
        }
        Ok(())
    }
}
