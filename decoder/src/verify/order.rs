//! Whether the tables, in post-order, fill the stream without gap or overlap, and whether value tables are what their
//! sets say.
//!
//! Each table that the walk leaves must begin where the one before it ended, hole and value tables counted with the
//! table that refers to them. So no list of places has to be kept, however many tables there are.
//!
//! Spec: archive.md sections 7.1 and 8.2.

use diptych_format::error::{Error, Result, Stream};
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
    faults: Vec<Error>,
}

impl<'a> Order<'a> {
    pub(super) fn new(archive: &'a Archive) -> Self {
        let end = Some(HEADER_LENGTH as u64);
        Self { archive, end, open: Vec::new(), faults: Vec::new() }
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

    /// Where the hole and value tables of a directory table begin, which must end where it begins. Rows
    /// and sets of one table may share them. Spec: A-8.2-2.
    fn smalls_start(&mut self, piece: &Piece, table: &DirectoryTable<'_>) -> Result<u64> {
        let position = piece.below.position;
        let holes = (0..table.rows()).filter_map(|row| table.holes(row));
        let values = (0..table.sets()).filter_map(|set| table.external_of_set(set)).map(|(at, _)| at);
        let resolve = |reference: Reference| Ok((reference.resolve(position)?, reference.length));
        let mut places = holes.chain(values).map(resolve).collect::<Result<Vec<(u64, u64)>>>()?;
        places.sort_unstable();
        places.dedup();
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
    fn index(&mut self, piece: &Piece, _: &IndexTable<'_>) {
        self.open.push(piece.below.position);
    }

    fn directory(&mut self, piece: &Piece, table: &DirectoryTable<'_>) {
        let start = self.smalls_start(piece, table).unwrap_or_else(|error| {
            self.faults.push(error);
            piece.below.position
        });
        self.open.push(start);
        if let Err(error) = self.check_values(piece, table) {
            self.faults.push(at(piece.below.position)(error));
        }
    }

    fn links(&mut self, piece: &Piece, _: &LinkTable<'_>) {
        self.open.push(piece.below.position);
    }

    fn passed(&mut self, piece: &Piece) {
        if let Some(start) = self.open.pop() {
            let end = piece.below.position.saturating_add(piece.below.length);
            self.place(start, end);
        }
    }

    fn skipped(&mut self, below: &Below) {
        self.end = Some(below.position.saturating_add(below.length));
    }
}
