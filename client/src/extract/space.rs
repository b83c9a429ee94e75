//! What an extraction will write, and whether there is room for it.

use diptych_decoder::{Archive, Descend, Row, Visitor};
use diptych_format::{Error as FormatError, Result as FormatResult};
use diptych_localfs::extract::Target;

use crate::error::{Error, Result};
use crate::links::LinkIndex;
use crate::select::{PathSelection, Verdict};
use crate::size::show_size;

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
pub fn totals(archive: &Archive, links: &LinkIndex, selection: &mut PathSelection) -> Result<Totals> {
    let trailer = archive.trailer();
    if selection.is_everything() && links.len() == 0 {
        return Ok(Totals {
            entries: trailer.entries,
            content_bytes: trailer.payload_length,
            bytes_on_disk: trailer.payload_length,
        });
    }
    let mut counter = Counter {
        selection,
        links,
        seen: std::collections::HashSet::new(),
        totals: Totals::default(),
        selected_at: None,
    };
    archive.walk(&archive.root()?, b"", &mut counter)?;
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
    selection: &'s mut PathSelection,
    links: &'s LinkIndex,
    /// Groups of which a name was counted.
    seen: std::collections::HashSet<crate::links::PathKey>,
    totals: Totals,
    selected_at: Option<usize>,
}

impl Visitor for Counter<'_> {
    fn enter(&mut self, path: &[u8], _: &Row<'_>) -> FormatResult<Descend> {
        if self.selected_at.is_none() {
            match self.selection.verdict(path, true) {
                Verdict::Passed => return Ok(Descend::Skip),
                Verdict::OnTheWay => return Ok(Descend::Enter),
                Verdict::Selected => self.selected_at = Some(path.len()),
            }
        }
        self.totals.entries += 1;
        Ok(Descend::Enter)
    }

    fn entry(&mut self, path: &[u8], row: &Row<'_>) -> FormatResult<()> {
        if self.selected_at.is_none() && self.selection.verdict(path, false) != Verdict::Selected {
            return Ok(());
        }
        let bytes = row.payload_length();
        self.totals.entries += 1;
        self.totals.content_bytes = self.totals.content_bytes.saturating_add(bytes);
        let is_counted = self.links.group_of(path).is_some_and(|group| !self.seen.insert(group.first));
        if !is_counted {
            self.totals.bytes_on_disk = self.totals.bytes_on_disk.saturating_add(bytes);
        }
        Ok(())
    }

    fn leave(&mut self, path: &[u8], _: &Row<'_>) -> FormatResult<()> {
        if self.selected_at == Some(path.len()) {
            self.selected_at = None;
        }
        Ok(())
    }

    fn damaged(&mut self, _: &[u8], _: FormatError) -> FormatResult<()> {
        // Told when it is extracted.
        Ok(())
    }
}
