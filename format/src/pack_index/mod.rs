//! The pack index: which chunks are where, as rows in ascending order of ids that are searched where they lie.
//!
//! An index is larger than memory has to be, so nothing here holds its rows: an [`IndexLayout`] says where each part
//! lies, and whoever has the file reads that part. [`encode_index`] goes through its rows twice and keeps none.
//!
//! Spec: repository.md section 8.

mod encode;

pub use encode::{FAN_BITS_USUAL, encode_index};

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::limits;
use crate::pack::{ChunkHeader, ChunkKind, HEADER_LENGTH, PackHolds, Seal, validate_stored_length};

/// First bytes of an index file.
pub const MAGIC: [u8; 8] = *b"\x89DPTI\r\n\x1a";
/// The version that this crate reads and writes.
pub const VERSION: u16 = 1;
/// Length of an index file's header.
pub const INDEX_HEADER_LENGTH: usize = 32;
/// Length of what is said of a pack.
pub const INDEX_PACK_LENGTH: usize = 48;
/// Length of a row.
pub const INDEX_ROW_LENGTH: usize = 46;
/// Length of what ends an index file.
pub const INDEX_MAC_LENGTH: usize = 32;

/// Fields of the header: offset, size, name.
pub const INDEX_HEADER_FIELDS: &[(u64, u64, &str)] = &[
    (0, 8, "magic"),
    (8, 2, "version"),
    (10, 1, "fan_bits"),
    (11, 5, "reserved"),
    (16, 8, "chunks"),
    (24, 4, "packs"),
    (28, 4, "replaces"),
];

/// Fields of what is said of a pack: offset, size, name.
pub const INDEX_PACK_FIELDS: &[(u64, u64, &str)] =
    &[(0, 32, "name"), (32, 8, "length"), (40, 4, "chunks"), (44, 4, "holds")];

/// Fields of a row: offset, size, name.
pub const INDEX_ROW_FIELDS: &[(u64, u64, &str)] = &[
    (0, 32, "id"),
    (32, 4, "pack"),
    (36, 4, "offset"),
    (40, 4, "stored_length"),
    (44, 1, "kind"),
    (45, 1, "seal"),
];

/// The beginning of an index file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexHeader {
    /// How many bits of an id choose its bucket.
    pub fan_bits: u8,
    /// Number of rows.
    pub chunks: u64,
    /// Number of packs.
    pub packs: u32,
    /// Number of index files that this one replaces.
    pub replaces: u32,
}

impl IndexHeader {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; INDEX_HEADER_LENGTH] {
        let mut header = [0; INDEX_HEADER_LENGTH];
        header[..8].copy_from_slice(&MAGIC);
        header[8..10].copy_from_slice(&VERSION.to_le_bytes());
        header[10] = self.fan_bits;
        header[16..24].copy_from_slice(&self.chunks.to_le_bytes());
        header[24..28].copy_from_slice(&self.packs.to_le_bytes());
        header[28..].copy_from_slice(&self.replaces.to_le_bytes());
        header
    }

    /// Reads the header that begins `bytes`. Spec: R-8-5.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let Some((header, _)) = bytes.split_first_chunk::<INDEX_HEADER_LENGTH>() else {
            return Err(Error::truncated("the index ends inside its header"));
        };
        if header[..8] != MAGIC {
            return Err(Error::corrupt("this is no pack index: its first bytes are others"));
        }
        let version = u16::from_le_bytes([header[8], header[9]]);
        if version != VERSION {
            let what =
                format!("version {version} of the pack index is not known: a newer diptych may read it");
            return Err(Error::unsupported(what));
        }
        if header[11..16] != [0; 5] {
            return Err(Error::corrupt("reserved bytes of an index's header are not zero"));
        }
        let read = Self {
            fan_bits: header[10],
            chunks: u64::from_le_bytes(field(header, 16)),
            packs: u32::from_le_bytes(field(header, 24)),
            replaces: u32::from_le_bytes(field(header, 28)),
        };
        read.validate()?;
        Ok(read)
    }

    fn validate(&self) -> Result<()> {
        if u64::from(self.fan_bits) > limits::FAN_BITS_MAX {
            return Err(Error::limit(
                "bits of an index's fan-out",
                self.fan_bits.into(),
                limits::FAN_BITS_MAX,
            ));
        }
        if self.chunks > limits::INDEX_CHUNKS_MAX {
            return Err(Error::limit("chunks of an index", self.chunks, limits::INDEX_CHUNKS_MAX));
        }
        Ok(())
    }

    /// Where everything lies in the file.
    pub fn layout(&self) -> IndexLayout {
        // The limits keep every sum here far below 2^64.
        let replaces = INDEX_HEADER_LENGTH as u64 + u64::from(self.packs) * INDEX_PACK_LENGTH as u64;
        let fan_out = replaces + u64::from(self.replaces) * 32;
        let rows = fan_out + (4 << self.fan_bits.min(63));
        let mac = rows + self.chunks * INDEX_ROW_LENGTH as u64;
        IndexLayout { replaces, fan_out, rows, mac }
    }

    /// The place in the fan-out of an id: its first bits.
    pub fn bucket(&self, id: &Digest) -> usize {
        // At most FAN_BITS_MAX bits are left.
        (u64::from(id_prefix(id)) >> (32 - u32::from(self.fan_bits.min(32)))) as usize
    }
}

/// Where the parts of an index file begin; each ends where the next begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexLayout {
    /// The names of files that this one replaces; the packs lie between the header and them.
    pub replaces: u64,
    /// The fan-out.
    pub fan_out: u64,
    /// The rows.
    pub rows: u64,
    /// What ends the file.
    pub mac: u64,
}

impl IndexLayout {
    /// Length of the whole file.
    pub fn length(&self) -> u64 {
        self.mac + INDEX_MAC_LENGTH as u64
    }

    /// Where a row lies.
    pub fn row(&self, row: u64) -> u64 {
        self.rows + row * INDEX_ROW_LENGTH as u64
    }

    /// A file must be as long as its parts. Spec: R-8-5.
    pub fn validate_length(&self, found: u64) -> Result<()> {
        let length = self.length();
        match found.cmp(&length) {
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Less => {
                Err(Error::truncated(format!("the index is {length} bytes long, and {found} are there")))
            }
            std::cmp::Ordering::Greater => {
                Err(Error::corrupt(format!("an index of {length} bytes is followed by others")))
            }
        }
    }
}

/// A pack, as an index file tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexPack {
    /// Its name.
    pub name: Digest,
    /// Length of its file.
    pub length: u64,
    /// Number of its chunks.
    pub chunks: u32,
    /// Which chunks it may hold.
    pub holds: PackHolds,
}

impl IndexPack {
    /// Its bytes.
    pub fn encode(&self) -> [u8; INDEX_PACK_LENGTH] {
        let mut pack = [0; INDEX_PACK_LENGTH];
        pack[..32].copy_from_slice(&self.name.0);
        pack[32..40].copy_from_slice(&self.length.to_le_bytes());
        pack[40..44].copy_from_slice(&self.chunks.to_le_bytes());
        pack[44..].copy_from_slice(&u32::from(self.holds.number()).to_le_bytes());
        pack
    }

    /// Reads what lies between header and replaced names, or a part of it behind the `packs` that are read. Spec: R-8-1.
    pub fn decode_onto(packs: &mut Vec<Self>, bytes: &[u8]) -> Result<()> {
        let last = packs.len().saturating_sub(1);
        let (more, _) = bytes.as_chunks::<INDEX_PACK_LENGTH>();
        for pack in more {
            packs.push(Self::decode(pack)?);
        }
        Self::validate_all(packs.get(last..).unwrap_or_default())
    }

    fn decode(bytes: &[u8; INDEX_PACK_LENGTH]) -> Result<Self> {
        let holds = u32::from_le_bytes(field(bytes, 44));
        let found = PackHolds::ALL.iter().find(|(_, number, _)| u32::from(*number) == holds);
        let (holds, _, _) =
            found.ok_or_else(|| Error::corrupt("an index does not say what a pack of it holds"))?;
        Ok(Self {
            name: Digest(field(bytes, 0)),
            length: u64::from_le_bytes(field(bytes, 32)),
            chunks: u32::from_le_bytes(field(bytes, 40)),
            holds: *holds,
        })
    }

    fn validate_all(packs: &[Self]) -> Result<()> {
        let longest = packs.iter().map(|pack| pack.length).max().unwrap_or(0);
        if longest > limits::PACK_LENGTH_MAX {
            return Err(Error::limit("length of a pack", longest, limits::PACK_LENGTH_MAX));
        }
        if packs.is_sorted_by(|a, b| a.name < b.name) {
            Ok(())
        } else {
            Err(Error::corrupt("the packs of an index are not in order"))
        }
    }
}

/// Reads the names of the files that an index file replaces, or a part of them behind the `names` that are read.
pub fn decode_replaces_onto(names: &mut Vec<Digest>, bytes: &[u8]) -> Result<()> {
    let last = names.len().saturating_sub(1);
    let (more, _) = bytes.as_chunks::<32>();
    names.extend(more.iter().map(|name| Digest(*name)));
    validate_replaces(names.get(last..).unwrap_or_default())
}

fn validate_replaces(names: &[Digest]) -> Result<()> {
    if names.is_sorted_by(|a, b| a < b) {
        Ok(())
    } else {
        Err(Error::corrupt("the names of files that an index replaces are not in order"))
    }
}

/// Reads the fan-out of an index of `chunks` rows. Spec: R-8-2 and R-8-5.
pub fn decode_fan_out(bytes: &[u8], chunks: u64) -> Result<Vec<u32>> {
    let (counts, _) = bytes.as_chunks::<4>();
    let fan_out: Vec<u32> = counts.iter().map(|count| u32::from_le_bytes(*count)).collect();
    if !fan_out.is_sorted() || fan_out.last().copied().map(u64::from) != Some(chunks) {
        return Err(Error::corrupt("an index's fan-out does not count its rows"));
    }
    Ok(fan_out)
}

/// Where one chunk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexRow {
    /// The header that stands there.
    pub header: ChunkHeader,
    /// Which of the index's packs has it.
    pub pack: u32,
    /// Where the header starts in the pack.
    pub offset: u32,
}

impl IndexRow {
    /// Its bytes.
    pub fn encode(&self) -> [u8; INDEX_ROW_LENGTH] {
        let mut row = [0; INDEX_ROW_LENGTH];
        row[..32].copy_from_slice(&self.header.id.0);
        row[32..36].copy_from_slice(&self.pack.to_le_bytes());
        row[36..40].copy_from_slice(&self.offset.to_le_bytes());
        row[40..44].copy_from_slice(&self.header.stored_length.to_le_bytes());
        row[44] = self.header.kind.number();
        row[45] = self.header.seal.number();
        row
    }

    /// Reads a row of an index with these packs. Spec: R-8-5.
    pub fn decode(bytes: &[u8; INDEX_ROW_LENGTH], packs: &[IndexPack]) -> Result<Self> {
        let kind = ChunkKind::from_number(u64::from(bytes[44]))?;
        let header = ChunkHeader {
            id: Digest(field(bytes, 0)),
            stored_length: u32::from_le_bytes(field(bytes, 40)),
            kind,
            seal: Seal::from_number(u64::from(bytes[45]), kind)?,
        };
        let row = Self {
            header,
            pack: u32::from_le_bytes(field(bytes, 32)),
            offset: u32::from_le_bytes(field(bytes, 36)),
        };
        row.validate(packs)?;
        Ok(row)
    }

    /// A chunk lies inside a pack that may hold it.
    pub fn validate(&self, packs: &[IndexPack]) -> Result<()> {
        let ChunkHeader { id, kind, seal, stored_length } = self.header;
        let Some(pack) = packs.get(self.pack as usize) else {
            return Err(Error::corrupt(format!("chunk {id} is in a pack that the index does not list")));
        };
        validate_stored_length(kind, seal, stored_length.into())?;
        let end = u64::from(self.offset) + self.header.whole_length();
        if self.offset < HEADER_LENGTH as u32 || end > pack.length {
            return Err(Error::corrupt(format!("chunk {id} lies outside of pack {}", pack.name)));
        }
        if !pack.holds.admits(kind) || kind == ChunkKind::Manifest {
            let what = format!("a {} chunk has no place in pack {}", kind.word(), pack.name);
            return Err(Error::corrupt(what));
        }
        Ok(())
    }

    /// What rows are in the order of; no two of an index have the same.
    pub fn key(&self) -> (Digest, u32) {
        (self.header.id, self.pack)
    }
}

/// The order in which rows stand. Spec: R-8-3.
pub fn validate_order(before: &IndexRow, row: &IndexRow) -> Result<()> {
    if before.key() < row.key() {
        Ok(())
    } else {
        Err(Error::corrupt("the rows of an index are not in order"))
    }
}

fn id_prefix(id: &Digest) -> u32 {
    u32::from_be_bytes(field(&id.0, 0))
}

/// The field of `N` bytes at `at`, which lies in the structure.
fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..at + N).and_then(|field| field.try_into().ok()).unwrap_or([0; N])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Class;

    const HEADER: IndexHeader = IndexHeader { fan_bits: 3, chunks: 5, packs: 2, replaces: 1 };

    fn pack(name: u8) -> IndexPack {
        IndexPack { name: Digest([name; 32]), length: 500, chunks: 2, holds: PackHolds::Metadata }
    }

    fn row() -> IndexRow {
        let kind = ChunkKind::Segment;
        let header = ChunkHeader { id: Digest([0xa7; 32]), stored_length: 444, kind, seal: Seal::Segment };
        IndexRow { header, pack: 1, offset: 16 }
    }

    #[test]
    fn fields_fill_their_structures() {
        for (fields, length) in [
            (INDEX_HEADER_FIELDS, INDEX_HEADER_LENGTH),
            (INDEX_PACK_FIELDS, INDEX_PACK_LENGTH),
            (INDEX_ROW_FIELDS, INDEX_ROW_LENGTH),
        ] {
            let end = fields.iter().fold(0, |end, (offset, size, name)| {
                assert_eq!(end, *offset, "{name}");
                end + size
            });
            assert_eq!(end, length as u64);
        }
    }

    #[test]
    fn headers_come_back_and_are_checked() {
        let bytes = HEADER.encode();
        assert_eq!(IndexHeader::decode(&bytes).unwrap(), HEADER);
        let class = |at: usize, value: u8| {
            let mut changed = bytes;
            changed[at] = value;
            IndexHeader::decode(&changed).unwrap_err().class
        };
        assert_eq!(class(0, 0), Class::Corrupt);
        assert_eq!(class(8, 2), Class::Unsupported);
        assert_eq!(class(10, 25), Class::Limit);
        assert_eq!(class(15, 1), Class::Corrupt);
        assert_eq!(class(20, 1), Class::Limit);
        assert_eq!(IndexHeader::decode(&bytes[..31]).unwrap_err().class, Class::Truncated);
    }

    #[test]
    fn the_largest_index_has_a_length() {
        let largest = IndexHeader {
            fan_bits: 24,
            chunks: limits::INDEX_CHUNKS_MAX,
            packs: u32::MAX,
            replaces: u32::MAX,
        };
        let layout = IndexHeader::decode(&largest.encode()).unwrap().layout();
        let most = u64::from(u32::MAX);
        assert_eq!(layout.length(), 32 + most * (48 + 32 + 46) + (4 << 24) + 32);
        assert_eq!(layout.row(most), layout.mac);
    }

    /// Spec: R-8-5.
    #[test]
    fn a_file_is_as_long_as_its_parts() {
        let layout = HEADER.layout();
        assert_eq!(layout.length(), 32 + 2 * 48 + 32 + 8 * 4 + 5 * 46 + 32);
        layout.validate_length(layout.length()).unwrap();
        assert_eq!(layout.validate_length(layout.length() - 1).unwrap_err().class, Class::Truncated);
        assert_eq!(layout.validate_length(layout.length() + 1).unwrap_err().class, Class::Corrupt);
    }

    #[test]
    fn buckets_are_the_first_bits() {
        let bucket = |fan_bits, first: u8| {
            IndexHeader { fan_bits, ..HEADER }
                .bucket(&Digest(std::array::from_fn(|at| [first, 0x81][at % 2])))
        };
        assert_eq!(bucket(0, 0xff), 0);
        assert_eq!(bucket(1, 0x7f), 0);
        assert_eq!(bucket(3, 0xa0), 5);
        assert_eq!(bucket(12, 0xa0), 0xa08);
        assert_eq!(bucket(24, 0xff), 0xff_81ff);
    }

    /// Spec: R-8-1.
    #[test]
    fn packs_come_back_in_order() {
        let packs = [pack(1), pack(2)];
        let bytes = |packs: &[IndexPack]| packs.iter().flat_map(IndexPack::encode).collect::<Vec<u8>>();
        let class = |bytes: &[u8]| IndexPack::decode_onto(&mut Vec::new(), bytes).unwrap_err().class;
        let mut read = Vec::new();
        for part in packs.chunks(1) {
            IndexPack::decode_onto(&mut read, &bytes(part)).unwrap();
        }
        assert_eq!(read, packs);
        assert_eq!(IndexPack::decode_onto(&mut read, &bytes(&packs[1..])).unwrap_err().class, Class::Corrupt);
        assert_eq!(class(&bytes(&[pack(2), pack(1)])), Class::Corrupt);
        assert_eq!(class(&bytes(&[pack(2), pack(2)])), Class::Corrupt);
        assert_eq!(class(&bytes(&[IndexPack { length: 1 << 32, ..pack(1) }])), Class::Limit);
        let mut holds_nothing = bytes(&packs);
        holds_nothing[44] = 0;
        assert_eq!(class(&holds_nothing), Class::Corrupt);
    }

    /// Spec: R-8-2.
    #[test]
    fn a_fan_out_counts_all_rows_and_never_less() {
        let bytes = |counts: &[u32]| counts.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>();
        assert_eq!(decode_fan_out(&bytes(&[0, 3, 3, 5]), 5).unwrap(), [0, 3, 3, 5]);
        for wrong in [&[0, 3, 2, 5][..], &[0, 3, 3, 4], &[0, 3, 3, 6], &[]] {
            assert_eq!(decode_fan_out(&bytes(wrong), 5).unwrap_err().class, Class::Corrupt);
        }
    }

    #[test]
    fn rows_come_back_and_lie_in_their_pack() {
        let packs = [pack(1), pack(2)];
        assert_eq!(IndexRow::decode(&row().encode(), &packs).unwrap(), row());
        let class = |row: IndexRow| IndexRow::decode(&row.encode(), &packs).unwrap_err().class;
        assert_eq!(class(IndexRow { pack: 2, ..row() }), Class::Corrupt);
        assert_eq!(class(IndexRow { offset: 15, ..row() }), Class::Corrupt);
        assert_eq!(class(IndexRow { offset: 17, ..row() }), Class::Corrupt);
        assert_eq!(class(IndexRow { offset: u32::MAX, ..row() }), Class::Corrupt);
        let class = |header: ChunkHeader| class(IndexRow { header, ..row() });
        let header = ChunkHeader { seal: Seal::None, ..row().header };
        assert_eq!(class(ChunkHeader { stored_length: u32::MAX, ..header }), Class::Limit);
        assert_eq!(class(ChunkHeader { stored_length: 7, ..header }), Class::Corrupt);
        assert_eq!(class(ChunkHeader { kind: ChunkKind::Payload, ..header }), Class::Corrupt);
        assert_eq!(class(ChunkHeader { kind: ChunkKind::Manifest, ..header }), Class::Corrupt);
        assert_eq!(class(ChunkHeader { seal: Seal::Sealed, ..header }), Class::Corrupt);
        let mut unknown = row().encode();
        unknown[44] = 99;
        assert_eq!(IndexRow::decode(&unknown, &packs).unwrap_err().class, Class::Unsupported);
    }

    /// Spec: R-8-3.
    #[test]
    fn nothing_is_written_that_would_be_refused() {
        let packs = [pack(1), pack(2)];
        let encode = |packs: &[IndexPack], replaces: &[Digest], rows: &[IndexRow]| {
            let mut out = Vec::new();
            let rows = || Ok(rows.iter().copied().map(Ok));
            encode_index(&mut out, &blake3::Hasher::new(), packs, replaces, rows).map(|_| out)
        };
        let other = IndexRow { pack: 0, ..row() };
        let bytes = encode(&packs, &[], &[other, row()]).unwrap();
        assert_eq!(bytes.len() as u64, IndexHeader::decode(&bytes).unwrap().layout().length());
        assert!(encode(&packs, &[], &[row(), other]).is_err());
        assert!(encode(&packs, &[], &[row(), row()]).is_err());
        assert!(encode(&packs, &[], &[IndexRow { offset: 17, ..row() }]).is_err());
        assert!(encode(&[pack(2), pack(1)], &[], &[]).is_err());
        assert!(encode(&packs, &[Digest([2; 32]), Digest([1; 32])], &[]).is_err());
    }

    #[test]
    fn rows_that_are_not_the_same_twice_are_refused() {
        let mut calls = 0;
        let rows = || {
            calls += 1;
            Ok((1..calls).map(|_| Ok(row())))
        };
        let error = encode_index(&mut Vec::new(), &blake3::Hasher::new(), &[pack(1), pack(2)], &[], rows);
        assert_eq!(error.unwrap_err().class, Class::Corrupt);
    }
}
