//! `diptych cat`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::cat::{Range, cat};
use crate::error::{Error, Result};
use crate::open::OpenArchive;
use crate::size::{parse_range, parse_size};
use crate::snapshots::{find, list, locate, not_there, split};

use super::options::Common;
use super::outcome::Outcome;
use super::output;
use super::repository::MaybeRepository;
use super::snapshots::FilterOptions;
use super::terminal::Terminal;

/// Print the content of a file in an archive or a snapshot.
///
/// Reads only what is asked for. A whole content is compared with its digest; if it differs, the command fails and
/// what was printed must not be used.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  diptych cat /backup/home alice/notes.txt
  diptych cat --range 1G-1025M /backup/home alice/disk.img | file -
  diptych cat -r /backup/repo latest:/home/alice/notes.txt")]
pub struct Arguments {
    /// The archive (NAME, NAME.meta.dpt, or one file with both streams), with PATH behind it; or a file in a snapshot of
    /// a repository, as it was on the source: its path behind `latest:` or the first digits of the snapshot's id.
    #[arg(value_name = "ARCHIVE | SNAPSHOT:PATH")]
    archive: OsString,
    /// The file's path inside the archive.
    #[arg(value_name = "PATH")]
    inside: Option<OsString>,
    /// Print the bytes from START up to END, END not included; END may be left out. Sizes as 4096, 1M, 2G.
    #[arg(long, value_name = "START-END", value_parser = parse_range)]
    range: Option<(u64, Option<u64>)>,
    /// Begin with this byte.
    #[arg(long, value_name = "SIZE", value_parser = parse_size, conflicts_with = "range")]
    offset: Option<u64>,
    /// Print at most so many bytes.
    #[arg(long, value_name = "SIZE", value_parser = parse_size, conflicts_with = "range")]
    length: Option<u64>,
    #[command(flatten)]
    repository: MaybeRepository,
    #[command(flatten)]
    filter: FilterOptions,
}

pub(super) fn run(arguments: &Arguments, common: &Common) -> Result<Outcome> {
    let range = match arguments.range {
        Some((start, end)) => Range { start, end },
        None => {
            let start = arguments.offset.unwrap_or(0);
            Range { start, end: arguments.length.map(|length| start.saturating_add(length)) }
        }
    };
    match &arguments.inside {
        Some(path) => {
            let open = OpenArchive::open(Path::new(&arguments.archive))?;
            cat(&open, path.as_bytes(), range, &mut output::results())?;
            Ok(Outcome::Done)
        }
        None => cat_of_snapshot(arguments, range, common),
    }
}

fn cat_of_snapshot(arguments: &Arguments, range: Range, common: &Common) -> Result<Outcome> {
    let usage =
        || Error::Usage("one argument is SNAPSHOT:PATH; of an archive, give ARCHIVE and PATH".to_owned());
    let (text, path) = arguments.archive.to_str().map(split).ok_or_else(usage)?;
    let path = path.ok_or_else(usage)?;
    let repository = arguments.repository.given().ok_or_else(|| {
        let what = "SNAPSHOT:PATH is in a repository: say which, by -r LOCATION or DIPTYCH_REPO";
        Error::Usage(what.to_owned())
    })?;
    let terminal = Terminal::quiet(common);
    let repository = repository.open_to_read(&*terminal)?;
    let snapshot = find(&list(&repository, &*terminal)?, text, &arguments.filter.filter())?;
    let located = locate(&repository, &snapshot, Some(Path::new(path)))?;
    cat(&located.open, &located.path, range, &mut output::results())
        .map_err(|error| not_there(error, path, &snapshot))?;
    Ok(Outcome::of_losses(terminal.losses()))
}
