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
    /// Whether the next piece has begun and not been added yet.
    has_begun: bool,
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

    /// Says with which name the next piece begins, before any table of it or below it is written: the index tables
    /// that end in front of that name stand here, right behind the last table below them. Once is enough; what is
    /// said later of the same piece is not heard.
    pub(crate) fn begin(&mut self, first_name: &[u8], stream: &mut MetadataStream) -> Result<()> {
        if std::mem::replace(&mut self.has_begun, true) {
            return Ok(());
        }
        let mut index = 0;
        // Where one level goes on, so do all above it.
        while let Some(level) = self.levels.get_mut(index)
            && level.rule.cuts_before(first_name)
        {
            self.write_level(index, stream)?;
            index += 1;
        }
        Ok(())
    }

    /// Takes the piece that has begun and been written.
    pub(crate) fn add(&mut self, piece: IndexRow) -> Result<()> {
        self.has_begun = false;
        self.push(0, piece)
    }

    /// Writes the index tables that are open, and gives the one table that stands for all.
    pub(crate) fn finish(mut self, stream: &mut MetadataStream) -> Result<Below> {
        let mut index = 0;
        while let Some(level) = self.levels.get(index) {
            if let ([only], false) = (&level.rows[..], level.has_tables) {
                return Ok(only.below);
            }
            self.write_level(index, stream)?;
            index += 1;
        }
        Err(Error::corrupt("a directory has no pieces"))
    }

    /// Writes the open rows of a level as an index table, which is a row of the next level.
    fn write_level(&mut self, index: usize, stream: &mut MetadataStream) -> Result<()> {
        let Some(level) = self.levels.get_mut(index) else { return Ok(()) };
        level.has_tables = true;
        let rows = std::mem::take(&mut level.rows);
        let row = write_index(&rows, index, stream)?;
        self.push(index + 1, row)
    }

    fn push(&mut self, index: usize, row: IndexRow) -> Result<()> {
        if self.levels.len() <= index {
            let number = index as u64 + 1;
            if number > limits::INDEX_LEVEL_MAX {
                return Err(Error::limit("level of an index table", number, limits::INDEX_LEVEL_MAX));
            }
            let mut rule = CutRule::new(number);
            // Later rows are heard of when they begin; this one began before its level was there.
            rule.cuts_before(&row.first_name);
            self.levels.push(Level { rule, rows: Vec::new(), has_tables: false });
        }
        if let Some(level) = self.levels.get_mut(index) {
            level.rows.push(row);
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

#[cfg(test)]
mod tests {
    use diptych_format::section::peek;
    use diptych_format::stream::{HEADER_LENGTH, encode_header};
    use diptych_format::table::{
        IndexTable, LinkRow, TableKind, encode_directory_table, encode_link_table, kind_of,
    };

    use super::*;
    use crate::cut::Cuts;

    /// Rows with names so long that they fill an index table.
    const ROWS: usize = 16;

    /// A stream of so many pieces, each behind a table that is below it, and the top table.
    fn encode(pieces: usize) -> (Vec<u8>, Below) {
        let mut stream = MetadataStream::new(Cuts::plain());
        stream.out().extend_from_slice(&encode_header());
        let rest = format!("/{}", "x".repeat(limits::NAME_LENGTH_MAX)).repeat(63);
        let mut open = Pieces::default();
        for piece in 0..pieces {
            let first_name = format!("{piece:03}{rest}").into_bytes();
            assert_eq!(limits::PIECE_NAMES_MAX / first_name.len(), ROWS);
            open.begin(&first_name, &mut stream).unwrap();
            let position = stream.position();
            encode_directory_table(&[], position, stream.out()).unwrap();
            open.begin(b"said again", &mut stream).unwrap();
            let row = LinkRow { path: (*b"a").into(), first: Box::default(), count: 2 };
            let position = stream.position();
            let below = encode_link_table(&[row], position, stream.out()).unwrap();
            open.add(IndexRow { first_name: first_name.into(), below }).unwrap();
        }
        let top = open.finish(&mut stream).unwrap();
        stream.end_chunk();
        (stream.take_chunks().concat(), top)
    }

    /// Goes through all tables as they stand; says of which level the last one is.
    fn level_of_last(stream: &[u8], top: Below) -> u64 {
        let (mut level, mut at) = (0, HEADER_LENGTH);
        // Where tables stand that nothing has referred to yet.
        let mut open: Vec<u64> = Vec::new();
        while at < stream.len() {
            let (_, body) = peek(&stream[at..]).unwrap();
            let (_, tail) = peek(&stream[at + body as usize..]).unwrap();
            let table = &stream[at..at + (body + tail) as usize];
            match kind_of(table).unwrap() {
                TableKind::Directory => {}
                TableKind::Link => {
                    open.pop().unwrap();
                }
                TableKind::Index => {
                    let index = IndexTable::parse(table).unwrap();
                    let rows = (0..index.rows()).map(|row| index.reference(row).resolve(at as u64).unwrap());
                    let rows: Vec<u64> = rows.collect();
                    assert_eq!(open.split_off(open.len() - rows.len()), rows, "at {at}");
                    level = index.level();
                }
            }
            open.push(at as u64);
            at += table.len();
        }
        assert_eq!(open, [top.position]);
        level
    }

    /// Spec: A-7.2-3, A-7.2-7, A-8.2-2.
    #[test]
    fn index_tables_stand_right_behind_the_last_table_below_them() {
        for (pieces, level) in [
            (1, 0),
            (2, 1),
            (ROWS, 1),
            (ROWS + 1, 2),
            (2 * ROWS, 2),
            (2 * ROWS + 1, 2),
            (ROWS * ROWS, 2),
            (ROWS * ROWS + 1, 3),
            (2 * ROWS * ROWS, 3),
            (2 * ROWS * ROWS + ROWS + 1, 3),
        ] {
            let (stream, top) = encode(pieces);
            assert_eq!(level_of_last(&stream, top), level, "{pieces} pieces");
        }
    }
}
