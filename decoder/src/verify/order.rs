//! Whether the tables, in post-order, fill the stream without gap or overlap, whether directories are cut where the
//! rule says, and whether value tables are what their sets say.
//!
//! Each table that the walk leaves must begin where the one before it ended, hole and value tables counted with the
//! table that refers to them. So no list of places has to be kept, however many tables there are.
//!
//! Spec: archive.md sections 7.1, 7.2 and 8.2.

use diptych_format::error::{Error, Result, Stream};
use diptych_format::limits;
use diptych_format::pieces::CutRule;
use diptych_format::stream::HEADER_LENGTH;
use diptych_format::table::{Below, DirectoryTable, IndexTable, LinkTable, Reference};

use crate::archive::Archive;
use crate::pieces::{Piece, Watch};
use crate::source::at;

/// What is known of the order so far.
pub(super) struct Order<'a> {
    archive: &'a Archive,
    /// Where the last table ended; nothing after one whose beginning is not known.
    end: Option<u64>,
    /// The tables that were read and not yet left: where each begins, its hole and value tables counted.
    open: Vec<u64>,
    /// The cut rules of the open directories.
    cuts: Vec<Cuts>,
    faults: Vec<Error>,
}

impl<'a> Order<'a> {
    pub(super) fn new(archive: &'a Archive) -> Self {
        let end = Some(HEADER_LENGTH as u64);
        Self { archive, end, open: Vec::new(), cuts: Vec::new(), faults: Vec::new() }
    }

    pub(super) fn take_faults(&mut self) -> Vec<Error> {
        std::mem::take(&mut self.faults)
    }

    /// What comes next cannot be placed.
    pub(super) fn lose(&mut self) {
        self.end = None;
    }

    /// The owner table.
    pub(super) fn small(&mut self, position: u64, length: u64) {
        self.place(position, position.saturating_add(length));
    }

    /// The trailer.
    pub(super) fn end(&mut self, position: u64) {
        self.place(position, position);
    }

    /// The next part of the stream reaches from `start` to `end`.
    fn place(&mut self, start: u64, end: u64) {
        if let Some(expected) = self.end.filter(|expected| *expected != start) {
            let what = match expected < start {
                true => format!("there are {} bytes that nothing refers to", start - expected),
                false => "a table overlaps what stands before it".to_owned(),
            };
            self.faults.push(Error::corrupt(what).at(Stream::Metadata, expected.min(start)));
        }
        self.end = Some(end);
    }

    fn opened<'t>(&mut self, piece: &Piece, start: u64, level: u64, names: impl Iterator<Item = &'t [u8]>) {
        self.open.push(start);
        if piece.level.is_none() {
            self.cuts.push(Cuts::default());
        }
        let is_cut_well = self.cuts.last_mut().is_none_or(|cuts| cuts.take(level, names));
        if !is_cut_well {
            let error = Error::corrupt("a directory is cut into pieces elsewhere than the rule says");
            self.faults.push(error.at(Stream::Metadata, piece.below.position));
        }
    }

    /// Where the hole and value tables of a directory table begin, which must end where it begins.
    fn smalls_start(&mut self, piece: &Piece, table: &DirectoryTable<'_>) -> Result<u64> {
        let position = piece.below.position;
        let holes = (0..table.rows()).filter_map(|row| table.holes(row));
        let values = (0..table.sets()).filter_map(|set| table.external_of_set(set)).map(|(at, _)| at);
        let resolve = |reference: Reference| Ok((reference.resolve(position)?, reference.length));
        let mut places = holes.chain(values).map(resolve).collect::<Result<Vec<(u64, u64)>>>()?;
        places.sort_unstable();
        let start = places.first().map_or(position, |(start, _)| *start);
        let end = places
            .iter()
            .try_fold(start, |end, (start, length)| (end == *start).then(|| start.saturating_add(*length)));
        if end != Some(position) {
            let what = "the hole and value tables of a table do not stand right before it";
            return Err(Error::corrupt(what).at(Stream::Metadata, position));
        }
        Ok(start)
    }

    /// Sets with their real attributes ascend. Spec: A-7.1-2, A-7.1-7.
    fn check_values(&mut self, piece: &Piece, table: &DirectoryTable<'_>) -> Result<()> {
        if (0..table.sets()).all(|set| table.external_of_set(set).is_none()) {
            return Ok(());
        }
        let position = piece.below.position;
        let mut previous = None;
        for index in 0..table.sets() {
            let mut set = table.attributes_of_set(index)?;
            if let Some((reference, digest)) = table.external_of_set(index) {
                match self.archive.source().values(reference, &digest, position) {
                    Ok(values) => set.xattrs = values,
                    Err(error) => {
                        // Where it sorts is not known; whether others are well must be.
                        self.faults.push(error);
                        previous = None;
                        continue;
                    }
                }
            }
            if previous.as_ref().is_some_and(|previous| *previous >= set) {
                return Err(Error::corrupt("attribute sets do not ascend"));
            }
            previous = Some(set);
        }
        Ok(())
    }
}

impl Watch for Order<'_> {
    fn index(&mut self, piece: &Piece, table: &IndexTable<'_>) {
        let names = (0..table.rows()).map(|row| table.first_name(row));
        self.opened(piece, piece.below.position, table.level(), names);
        if piece.level.is_none() && table.rows() < 2 {
            let error = Error::corrupt("an index table stands above a single piece");
            self.faults.push(error.at(Stream::Metadata, piece.below.position));
        }
    }

    fn directory(&mut self, piece: &Piece, table: &DirectoryTable<'_>) {
        let start = self.smalls_start(piece, table).unwrap_or_else(|error| {
            self.faults.push(error);
            piece.below.position
        });
        self.opened(piece, start, 0, (0..table.rows()).map(|row| table.name(row)));
        if let Err(error) = self.check_values(piece, table) {
            self.faults.push(at(piece.below.position)(error));
        }
    }

    fn links(&mut self, piece: &Piece, table: &LinkTable<'_>) {
        self.opened(piece, piece.below.position, 0, (0..table.rows()).map(|row| table.path(row)));
    }

    fn passed(&mut self, piece: &Piece) {
        if let Some(start) = self.open.pop() {
            let end = piece.below.position.saturating_add(piece.below.length);
            self.place(start, end);
        }
        if piece.level.is_none() {
            self.cuts.pop();
        }
    }

    fn skipped(&mut self, below: &Below) {
        self.end = Some(below.position.saturating_add(below.length));
        if let Some(cuts) = self.cuts.last_mut() {
            cuts.is_lost = true;
        }
    }
}

/// The cut rules of one directory, level by level.
#[derive(Default)]
struct Cuts {
    levels: [Option<CutRule>; limits::INDEX_LEVEL_MAX as usize + 1],
    /// A piece could not be read, so that where the next cut falls is not known.
    is_lost: bool,
}

impl Cuts {
    /// Takes the names of the next table of a level; says whether it begins and ends where it should, as far as
    /// is known: whether it ends too early shows with the next one. Spec: A-7.2-1, A-7.2-3.
    fn take<'t>(&mut self, level: u64, names: impl Iterator<Item = &'t [u8]>) -> bool {
        let slot = usize::try_from(level).ok().and_then(|level| self.levels.get_mut(level));
        let Some(slot) = slot else { return false };
        let is_first = slot.is_none() || self.is_lost;
        let rule = slot.get_or_insert_with(|| CutRule::new(level));
        if self.is_lost {
            return true;
        }
        let mut is_right = true;
        for (index, name) in names.enumerate() {
            let should_cut = index == 0 && !is_first;
            is_right &= rule.cuts_before(name) == should_cut;
        }
        is_right
    }
}
