//! `list`: the entries of an archive, as names, in lines like those of `tar tv`, or as JSON.
//!
//! Plain names cost next to nothing: they are written from the tables as they lie, without an allocation for an entry.

mod json;
mod long;

use std::io::Write;

use diptych_decoder::{Archive, Descend, Row, Visitor};
use diptych_format::{Error as FormatError, Kind, Result as FormatResult};

use crate::error::{Error, Result};
use crate::links::LinkIndex;
use crate::names;
use crate::progress::Losses;
use crate::select::{PathSelection, Verdict};

/// How entries are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Names alone.
    Plain {
        /// Whether control characters are escaped.
        is_escaped: bool,
        /// What ends a name.
        end: u8,
    },
    /// Lines with mode, owner, size and time.
    Long {
        /// Whether owners are shown by number.
        is_numeric: bool,
    },
    /// A JSON object for each entry.
    Json,
}

/// Writes the entries of `archive` that are selected. A directory whose table is damaged is reported and passed over.
pub fn list(
    archive: &Archive,
    selection: &mut PathSelection,
    style: Style,
    out: &mut dyn Write,
    losses: &Losses<'_>,
) -> Result<()> {
    list_scope(archive, selection, Scope::Selected, style, out, losses)
}

/// What is shown of what is selected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Itself and everything below it.
    Selected,
    /// What is in it; paths are told with this before them, which ends in a slash.
    Inside {
        /// What stands before each path.
        prefix: Vec<u8>,
        /// Whether what is below its directories is shown as well.
        is_recursive: bool,
    },
}

/// Writes of the entries of `archive` that are selected what `scope` says.
pub fn list_scope(
    archive: &Archive,
    selection: &mut PathSelection,
    scope: Scope,
    style: Style,
    out: &mut dyn Write,
    losses: &Losses<'_>,
) -> Result<()> {
    selection.check(archive)?;
    let links = match style {
        Style::Plain { .. } => LinkIndex::default(),
        Style::Long { .. } | Style::Json => LinkIndex::load(archive)?,
    };
    let printer: Box<dyn Printer> = match style {
        Style::Plain { is_escaped, end } => Box::new(Plain { is_escaped, end }),
        Style::Long { is_numeric } => Box::new(long::Long::new(archive, is_numeric)?),
        Style::Json => Box::new(json::Json::default()),
    };
    let mut lister = Lister { scope, printer, links, selection, selected_at: None, out, losses };
    let root = archive.root()?;
    archive.walk(&root, b"", &mut lister)?;
    lister.selection.finish()
}

/// Writes one entry.
trait Printer {
    /// `first` is the first name of the inode that `path` is another name of.
    fn print(
        &mut self,
        path: &[u8],
        row: &Row<'_>,
        first: Option<&[u8]>,
        out: &mut dyn Write,
    ) -> FormatResult<()>;
}

struct Lister<'a> {
    scope: Scope,
    printer: Box<dyn Printer>,
    links: LinkIndex,
    selection: &'a mut PathSelection,
    /// Length of the path of the selected directory that the walk is in.
    selected_at: Option<usize>,
    out: &'a mut dyn Write,
    losses: &'a Losses<'a>,
}

impl Lister<'_> {
    fn verdict(&mut self, path: &[u8], is_directory: bool) -> Verdict {
        match self.selected_at {
            Some(_) => Verdict::Selected,
            None => self.selection.verdict(path, is_directory),
        }
    }

    fn print(&mut self, path: &[u8], row: &Row<'_>) -> FormatResult<()> {
        let first = match row.kind() {
            Kind::Directory => None,
            _ => self.links.first_of(path)?,
        };
        let Scope::Inside { prefix, .. } = &self.scope else {
            return self.printer.print(path, row, first.as_deref(), self.out);
        };
        let first = first.map(|first| [prefix, &first[..]].concat());
        self.printer.print(&[prefix, path].concat(), row, first.as_deref(), self.out)
    }
}

impl Visitor for Lister<'_> {
    fn enter(&mut self, path: &[u8], row: &Row<'_>) -> FormatResult<Descend> {
        match self.verdict(path, true) {
            Verdict::Passed => return Ok(Descend::Skip),
            Verdict::OnTheWay => {}
            Verdict::Selected => {
                let is_first = self.selected_at.is_none();
                self.selected_at.get_or_insert(path.len());
                let is_recursive = match &self.scope {
                    Scope::Selected => true,
                    Scope::Inside { .. } if is_first => return Ok(Descend::Enter),
                    Scope::Inside { is_recursive, .. } => *is_recursive,
                };
                self.print(path, row)?;
                if !is_recursive {
                    return Ok(Descend::Skip);
                }
            }
        }
        Ok(Descend::Enter)
    }

    fn entry(&mut self, path: &[u8], row: &Row<'_>) -> FormatResult<()> {
        if self.verdict(path, false) == Verdict::Selected { self.print(path, row) } else { Ok(()) }
    }

    fn leave(&mut self, path: &[u8], _: &Row<'_>) -> FormatResult<()> {
        if self.selected_at == Some(path.len()) {
            self.selected_at = None;
        }
        Ok(())
    }

    fn damaged(&mut self, path: &[u8], error: FormatError) -> FormatResult<()> {
        self.losses.loss(path, format!("what is in it cannot be listed: {error}"));
        Ok(())
    }
}

struct Plain {
    is_escaped: bool,
    end: u8,
}

impl Printer for Plain {
    fn print(
        &mut self,
        path: &[u8],
        row: &Row<'_>,
        _: Option<&[u8]>,
        out: &mut dyn Write,
    ) -> FormatResult<()> {
        let shown = if path.is_empty() { b"." } else { path };
        let wrote = match self.is_escaped {
            true => out.write_all(&names::escape(shown)),
            false => out.write_all(shown),
        };
        let ending: &[u8] = if row.kind() == Kind::Directory { &[b'/', self.end] } else { &[self.end] };
        wrote.and_then(|()| out.write_all(ending)).map_err(cannot_write)
    }
}

/// Standard output is gone, or full.
fn cannot_write(error: std::io::Error) -> FormatError {
    FormatError::io("cannot write the list", error)
}

/// Ends a list that went through a buffer.
pub fn flush(out: &mut dyn Write) -> Result<()> {
    out.flush().map_err(|error| Error::from(cannot_write(error)))
}
