//! Pieces under index tables, level upon level, for directories and for the link table alike.
//!
//! Spec: archive.md section 7.2.

use diptych_format::pieces::CutRule;
use diptych_format::table::{Below, IndexRow, encode_index_table};
use diptych_format::{Error, Result, limits};

use crate::metadata::MetadataStream;

/// The pieces of one directory so far, as the index rows of each level that are still open.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pieces {
    /// Level 1 first.
    levels: Vec<Level>,
}

#[derive(Clone, Debug)]
struct Level {
    rule: CutRule,
    rows: Vec<IndexRow>,
    /// Whether an index table of this level has been written.
    has_tables: bool,
}

impl Pieces {
    /// Whether there is any piece yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.levels.is_empty()
    }

    /// Takes a piece that has been written.
    pub(crate) fn add(&mut self, piece: IndexRow, stream: &mut MetadataStream) -> Result<()> {
        self.add_to(0, piece, stream)
    }

    /// Writes the index tables that are open, and gives the one table that stands for all.
    pub(crate) fn finish(mut self, stream: &mut MetadataStream) -> Result<Below> {
        let mut index = 0;
        while let Some(level) = self.levels.get_mut(index) {
            if let ([only], false) = (&level.rows[..], level.has_tables) {
                return Ok(only.below);
            }
            let rows = std::mem::take(&mut level.rows);
            let row = write_index(&rows, index, stream)?;
            self.add_to(index + 1, row, stream)?;
            index += 1;
        }
        Err(Error::corrupt("a directory has no pieces"))
    }

    fn add_to(&mut self, index: usize, row: IndexRow, stream: &mut MetadataStream) -> Result<()> {
        if self.levels.len() <= index {
            let number = index as u64 + 1;
            if number > limits::INDEX_LEVEL_MAX {
                return Err(Error::limit("level of an index table", number, limits::INDEX_LEVEL_MAX));
            }
            self.levels.push(Level { rule: CutRule::new(number), rows: Vec::new(), has_tables: false });
        }
        let Some(level) = self.levels.get_mut(index) else { return Ok(()) };
        let full = if level.rule.cuts_before(&row.first_name) {
            level.has_tables = true;
            std::mem::take(&mut level.rows)
        } else {
            Vec::new()
        };
        level.rows.push(row);
        if !full.is_empty() {
            let written = write_index(&full, index, stream)?;
            self.add_to(index + 1, written, stream)?;
        }
        Ok(())
    }
}

fn write_index(rows: &[IndexRow], index: usize, stream: &mut MetadataStream) -> Result<IndexRow> {
    let position = stream.position();
    let below = encode_index_table(rows, index as u64 + 1, position, stream.out())?;
    stream.table_ends(&below);
    let first_name = rows.first().map(|row| row.first_name.clone()).unwrap_or_default();
    Ok(IndexRow { first_name, below })
}
