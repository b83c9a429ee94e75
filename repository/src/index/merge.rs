//! One index file from several, in the memory of their packs and fan-outs.
//!
//! Spec: repository.md section 8.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use diptych_backend::{Backend, FileKind};
use diptych_format::pack_index::{IndexPack, IndexRow, encode_index};
use diptych_format::{Digest, Result};

use super::file::{IndexFile, IndexRows};
use crate::place::{NamedFile, told_at};

/// Writes an index file and makes it durable; `rows` is called twice.
pub(crate) fn write_index<I: Iterator<Item = Result<IndexRow>>>(
    backend: &dyn Backend,
    mac: &blake3::Hasher,
    packs: &[IndexPack],
    replaces: &[Digest],
    rows: impl FnMut() -> Result<I>,
) -> Result<Digest> {
    let mut file = NamedFile::create(backend, FileKind::Index)?;
    encode_index(&mut file, mac, packs, replaces, rows).map_err(|error| told_at(backend, error))?;
    file.keep()
}

/// Writes one index file of all rows that are taken of `inputs`. Every place of a chunk stays: a pack that is there today may be the one that goes. Spec: R-8-8.
pub(crate) fn merge(
    backend: &dyn Backend,
    mac: &blake3::Hasher,
    inputs: &[Input<'_>],
    replaces: &[Digest],
) -> Result<Digest> {
    let packs: BTreeMap<Digest, IndexPack> =
        inputs.iter().flat_map(|input| input.packs()).map(|pack| (pack.name, *pack)).collect();
    let packs: Vec<IndexPack> = packs.into_values().collect();
    let place_of = |pack: &IndexPack| {
        let place = packs.binary_search_by_key(&pack.name, |pack| pack.name).ok()?;
        u32::try_from(place).ok()
    };
    let places_of = |input: &Input<'_>| -> Vec<Option<u32>> {
        let places = input.file.packs().iter().zip(&input.has);
        places.map(|(pack, has)| has.then(|| place_of(pack)).flatten()).collect()
    };
    let places: Vec<Vec<Option<u32>>> = inputs.iter().map(places_of).collect();
    write_index(backend, mac, &packs, replaces, || {
        let read = inputs.iter().zip(&places).map(|(input, places)| Rows { rows: input.file.rows(), places });
        Merged::new(read.collect())
    })
}

/// A file to merge.
pub(crate) struct Input<'a> {
    file: &'a IndexFile,
    /// Of each of its packs, whether its rows are taken.
    has: Vec<bool>,
}

impl<'a> Input<'a> {
    /// The rows of those packs that `has` has.
    pub(crate) fn new(file: &'a IndexFile, has: impl FnMut(&IndexPack) -> bool) -> Self {
        Self { file, has: file.packs().iter().map(has).collect() }
    }

    fn packs(&self) -> impl Iterator<Item = &'a IndexPack> + '_ {
        self.file.packs().iter().zip(&self.has).filter(|(_, has)| **has).map(|(pack, _)| pack)
    }
}

struct Rows<'a> {
    rows: IndexRows<'a>,
    /// Where this file's packs are in the list of the merged one.
    places: &'a [Option<u32>],
}

impl Rows<'_> {
    fn next(&mut self) -> Result<Option<IndexRow>> {
        for row in &mut self.rows {
            let row = row?;
            if let Some(pack) = self.places.get(row.pack as usize).copied().flatten() {
                return Ok(Some(IndexRow { pack, ..row }));
            }
        }
        Ok(None)
    }
}

/// Rows of all inputs in order, each once. Packs are in the same order in each list, so the order of an input's rows
/// stays what it was.
struct Merged<'a> {
    inputs: Vec<Rows<'a>>,
    /// The next row of each input.
    heads: Vec<Option<IndexRow>>,
    order: BinaryHeap<Reverse<((Digest, u32), usize)>>,
    last: Option<(Digest, u32)>,
}

impl<'a> Merged<'a> {
    fn new(inputs: Vec<Rows<'a>>) -> Result<Self> {
        let count = inputs.len();
        let mut merged =
            Self { inputs, heads: vec![None; count], order: BinaryHeap::with_capacity(count), last: None };
        (0..count).try_for_each(|place| merged.advance(place).map(drop))?;
        Ok(merged)
    }

    /// Takes an input's row and puts the next one in its place.
    fn advance(&mut self, place: usize) -> Result<Option<IndexRow>> {
        let Some((input, head)) = self.inputs.get_mut(place).zip(self.heads.get_mut(place)) else {
            return Ok(None);
        };
        let next = input.next()?;
        if let Some(row) = &next {
            self.order.push(Reverse((row.key(), place)));
        }
        Ok(std::mem::replace(head, next))
    }
}

impl Iterator for Merged<'_> {
    type Item = Result<IndexRow>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Reverse((key, place)) = self.order.pop()?;
            let row = self.advance(place).transpose();
            if self.last.replace(key) != Some(key) {
                return row;
            }
            // A second one is left out, an error is not.
            if let Some(Err(error)) = row {
                return Some(Err(error));
            }
        }
    }
}
