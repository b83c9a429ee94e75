//! `diptych cat`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::cat::{Range, cat};
use crate::error::Result;
use crate::open::OpenArchive;
use crate::size::{parse_range, parse_size};

use super::outcome::Outcome;
use super::output;

/// Print the content of a file in an archive.
///
/// Reads only what is asked for. A whole content is compared with its digest; if it differs, the command fails and
/// what was printed must not be used.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  diptych cat /backup/home alice/notes.txt
  diptych cat --range 1G-1025M /backup/home alice/disk.img | file -")]
pub struct Arguments {
    /// The archive: NAME, NAME.meta.dpt, or one file with both streams.
    #[arg(value_name = "ARCHIVE")]
    archive: PathBuf,
    /// The file's path inside the archive.
    #[arg(value_name = "PATH")]
    path: OsString,
    /// Print the bytes from START up to END, END not included; END may be left out. Sizes as 4096, 1M, 2G.
    #[arg(long, value_name = "START-END", value_parser = parse_range)]
    range: Option<(u64, Option<u64>)>,
    /// Begin with this byte.
    #[arg(long, value_name = "SIZE", value_parser = parse_size, conflicts_with = "range")]
    offset: Option<u64>,
    /// Print at most so many bytes.
    #[arg(long, value_name = "SIZE", value_parser = parse_size, conflicts_with = "range")]
    length: Option<u64>,
}

pub(super) fn run(arguments: &Arguments) -> Result<Outcome> {
    let range = match arguments.range {
        Some((start, end)) => Range { start, end },
        None => {
            let start = arguments.offset.unwrap_or(0);
            Range { start, end: arguments.length.map(|length| start.saturating_add(length)) }
        }
    };
    let open = OpenArchive::open(&arguments.archive)?;
    cat(&open, arguments.path.as_bytes(), range, &mut output::results())?;
    Ok(Outcome::Done)
}
