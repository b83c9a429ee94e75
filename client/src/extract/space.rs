//! What an extraction will write, and whether there is room for it.

use diptych_decoder::{Descend, Row, Visitor};
use diptych_format::{Error as FormatError, Result as FormatResult};
use diptych_localfs::extract::Target;

use crate::error::{Error, Result};
use crate::select::Verdict;
use crate::size::show_size;

use super::choice::Choice;
use super::part::Part;

/// What is selected, in numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Entries.
    pub entries: u64,
    /// Bytes of contents, holes not counted, each name of a file counted.
    pub content_bytes: u64,
    /// The same with each file counted once, as far as it is known.
    pub bytes_on_disk: u64,
}

/// Counts what is selected: the trailer knows it of the whole archive, tables are read for parts.
pub fn totals(part: &Part<'_>, choice: Choice<'_>) -> Result<Totals> {
    let trailer = part.archive.trailer();
    if part.is_whole() && choice.is_everything() && part.links.len() == 0 {
        return Ok(Totals {
            entries: trailer.entries,
            content_bytes: trailer.payload_length,
            bytes_on_disk: trailer.payload_length,
        });
    }
    let seen = std::collections::HashSet::new();
    let mut counter = Counter { choice, part, seen, totals: Totals::default() };
    part.walk(&mut counter)?;
    Ok(counter.totals)
}

/// Fails if what is to be written cannot fit.
pub fn check(target: &Target, totals: &Totals, place: &str) -> Result<()> {
    // A file system that does not say how much room it has says so when it is full.
    let Ok(free) = target.free_bytes() else { return Ok(()) };
    if totals.bytes_on_disk <= free {
        return Ok(());
    }
    let what =
        format!("{} are to be written and {} are free", show_size(totals.bytes_on_disk), show_size(free));
    Err(Error::Failed {
        place: place.to_owned(),
        cause: FormatError::io(what, std::io::Error::from(std::io::ErrorKind::StorageFull)),
        advice: "Make room, choose another target, or name the PATHs that you need.".to_owned(),
    })
}

struct Counter<'s> {
    choice: Choice<'s>,
    part: &'s Part<'s>,
    /// Groups of which a name was counted.
    seen: std::collections::HashSet<crate::links::PathKey>,
    totals: Totals,
}

impl Visitor for Counter<'_> {
    fn enter(&mut self, path: &[u8], _: &Row<'_>) -> FormatResult<Descend> {
        match self.choice.enter(self.part.inside(path)) {
            Verdict::Passed => return Ok(Descend::Skip),
            Verdict::OnTheWay => {}
            Verdict::Selected => self.totals.entries += 1,
        }
        Ok(Descend::Enter)
    }

    fn entry(&mut self, path: &[u8], row: &Row<'_>) -> FormatResult<()> {
        if !self.choice.entry(self.part.inside(path)) {
            return Ok(());
        }
        let bytes = row.payload_length();
        self.totals.entries += 1;
        self.totals.content_bytes = self.totals.content_bytes.saturating_add(bytes);
        let is_counted = self.part.links.group_of(path).is_some_and(|group| !self.seen.insert(group.first));
        if !is_counted {
            self.totals.bytes_on_disk = self.totals.bytes_on_disk.saturating_add(bytes);
        }
        Ok(())
    }

    fn leave(&mut self, path: &[u8], _: &Row<'_>) -> FormatResult<()> {
        self.choice.leave(self.part.inside(path));
        Ok(())
    }

    fn damaged(&mut self, _: &[u8], _: FormatError) -> FormatResult<()> {
        // Told when it is extracted.
        Ok(())
    }
}
