//! Writes a pack index from rows in order, which it goes through twice and keeps none of: an index of a hundred
//! million chunks is made in the memory of its packs and its fan-out.

use std::io::Write;

use super::{IndexHeader, IndexPack, IndexRow, id_prefix, validate_order, validate_replaces};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::limits;

/// The most bits of a fan-out that [`encode_index`] makes: 4 MiB in the memory of whoever opens the index.
pub const FAN_BITS_USUAL: u8 = 20;

/// About how many rows have the same first bits: they are read at once.
const BUCKET_ROWS: u64 = 32;

/// What is written and hashed at once: hashing 46 bytes at a time takes several times as long.
const BUFFER_LENGTH: usize = 256 << 10;

/// Writes an index file to `out` in few large pieces.
///
/// `mac` is the keyed hasher, or that of the context, which has seen nothing. `rows` gives the rows in order and is
/// called twice; both times it must give the same. Nothing is written that a reader would refuse.
pub fn encode_index<I: Iterator<Item = Result<IndexRow>>>(
    out: &mut impl Write,
    mac: &blake3::Hasher,
    packs: &[IndexPack],
    replaces: &[Digest],
    mut rows: impl FnMut() -> Result<I>,
) -> Result<IndexHeader> {
    IndexPack::validate_all(packs)?;
    validate_replaces(replaces)?;
    let (chunks, mut fan_out) = count(rows()?, packs)?;
    let fan_bits = fan_bits(chunks);
    // Each bucket of the coarser fan-out counts what the last of its finer ones does.
    let finer = 1 << (FAN_BITS_USUAL - fan_bits);
    fan_out = fan_out.into_iter().skip(finer - 1).step_by(finer).collect();

    let count_of = |what, count: usize| {
        u32::try_from(count).map_err(|_| Error::limit(what, count as u64, u32::MAX.into()))
    };
    let header = IndexHeader {
        fan_bits,
        chunks,
        packs: count_of("packs of an index", packs.len())?,
        replaces: count_of("files that an index replaces", replaces.len())?,
    };
    let mut out = Authenticated { out, mac: mac.clone(), buffer: Vec::with_capacity(BUFFER_LENGTH) };
    out.write(&header.encode())?;
    packs.iter().try_for_each(|pack| out.write(&pack.encode()))?;
    replaces.iter().try_for_each(|name| out.write(&name.0))?;
    fan_out.iter().try_for_each(|count| out.write(&count.to_le_bytes()))?;
    let mut written = 0;
    for row in rows()? {
        out.write(&row?.encode())?;
        written += 1;
    }
    if written != chunks {
        return Err(Error::corrupt(format!("an index was to have {chunks} rows and got {written}")));
    }
    out.finish()?;
    Ok(header)
}

/// The number of rows and, for the finest fan-out, how many are there up to each bucket.
fn count(rows: impl Iterator<Item = Result<IndexRow>>, packs: &[IndexPack]) -> Result<(u64, Vec<u32>)> {
    let mut counts = vec![0_u32; 1 << FAN_BITS_USUAL];
    let mut before: Option<IndexRow> = None;
    let mut chunks = 0;
    for row in rows {
        let row = row?;
        row.validate(packs)?;
        if let Some(before) = before {
            validate_order(&before, &row)?;
        }
        chunks += 1;
        if chunks > limits::INDEX_CHUNKS_MAX {
            return Err(Error::limit("chunks of an index", chunks, limits::INDEX_CHUNKS_MAX));
        }
        if let Some(count) = counts.get_mut((id_prefix(&row.header.id) >> (32 - FAN_BITS_USUAL)) as usize) {
            *count += 1;
        }
        before = Some(row);
    }
    let mut sum = 0;
    for count in &mut counts {
        // All of them together are at most INDEX_CHUNKS_MAX.
        sum += *count;
        *count = sum;
    }
    Ok((chunks, counts))
}

fn fan_bits(chunks: u64) -> u8 {
    (0..FAN_BITS_USUAL).find(|bits| chunks >> bits <= BUCKET_ROWS).unwrap_or(FAN_BITS_USUAL)
}

/// Gathers what is written, and takes it into the code that ends the file.
struct Authenticated<'a, W> {
    out: &'a mut W,
    mac: blake3::Hasher,
    buffer: Vec<u8>,
}

impl<W: Write> Authenticated<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if self.buffer.len() + bytes.len() > BUFFER_LENGTH {
            self.flush()?;
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.mac.update(&self.buffer);
        put(self.out, &self.buffer)?;
        self.buffer.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        self.flush()?;
        let mac = *self.mac.finalize().as_bytes();
        put(self.out, &mac)
    }
}

fn put(out: &mut impl Write, bytes: &[u8]) -> Result<()> {
    out.write_all(bytes).map_err(|error| Error::io("cannot write a pack index", error))
}
