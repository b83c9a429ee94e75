//! `cat`: one content, or a range of it.

use std::io::Write;

use diptych_decoder::Found;
use diptych_format::{Error as FormatError, Kind};

use crate::content::{ContentReader, Sink};
use crate::error::{Error, InPlace, Result};
use crate::names;
use crate::open::OpenArchive;
use crate::select::{PATHS, clean_path};

/// Which bytes of a content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// The first.
    pub start: u64,
    /// The one behind the last; the end of the content if there is none.
    pub end: Option<u64>,
}

/// Writes the content at `path`, or a range of it. A whole content is proved by its digest: if that is another one,
/// what was written is worthless, and the error says so.
pub fn cat(open: &OpenArchive, path: &[u8], range: Range, out: &mut dyn Write) -> Result<()> {
    let path = clean_path(path);
    let found = open.archive.lookup(&path).in_place(names::show(&path))?;
    let Some(found) = found else {
        return Err(Error::missing(names::show(&path), "is not in the archive", PATHS));
    };
    let kind = found.entry.kind().in_place(names::show(&path))?;
    if kind != Kind::File {
        let advice = match kind {
            Kind::Directory => "`diptych list` shows what is in a directory, `diptych extract` writes it.",
            Kind::Symlink => "`diptych list --long` shows where a symbolic link leads; give that path.",
            _ => "Only files have contents.",
        };
        return Err(Error::missing(names::show(&path), &format!("is no file but a {}", kind.word()), advice));
    }
    write_content(open, &found, range, out).map_err(|error| match error {
        Error::Failed { place, cause, advice } if place.is_empty() => {
            Error::Failed { place: names::show(&path), cause, advice }
        }
        other => other,
    })
}

fn write_content(open: &OpenArchive, found: &Found, range: Range, out: &mut dyn Write) -> Result<()> {
    let content = open.archive.content(found)?;
    let end = range.end.unwrap_or(content.size).min(content.size);
    let mut sink = Output { out };
    let mut reader = ContentReader::new(open.payload()?);
    if range.start == 0 && end == content.size {
        let is_proved = reader.read(&content, &mut sink)? == content.digest;
        if !is_proved {
            return Err(FormatError::corrupt("the content has another digest than the archive says").into());
        }
    } else if range.start < end {
        reader.read_range(&content, range.start..end, &mut sink)?;
    }
    sink.out.flush().map_err(cannot_write).map_err(Error::from)
}

struct Output<'o> {
    out: &'o mut dyn Write,
}

impl Sink for Output<'_> {
    fn data(&mut self, _: u64, bytes: &[u8]) -> diptych_format::Result<()> {
        self.out.write_all(bytes).map_err(cannot_write)
    }

    fn hole(&mut self, _: u64, length: u64) -> diptych_format::Result<()> {
        let zeros = std::io::copy(&mut std::io::Read::take(std::io::repeat(0), length), self.out);
        zeros.map(drop).map_err(cannot_write)
    }
}

fn cannot_write(error: std::io::Error) -> FormatError {
    FormatError::io("cannot write the content", error)
}
