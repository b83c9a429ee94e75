//! `diptych export`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use clap::ValueEnum;

use crate::error::{Error, Result};
use crate::export::export_tar;
use crate::open::OpenArchive;
use crate::progress::Losses;
use crate::select::PathSelection;

use super::options::Common;
use super::outcome::Outcome;
use super::output;
use super::terminal::Terminal;

/// Write an archive in another format on standard output.
///
/// The tar format is POSIX (pax): long and odd names, times in nanoseconds, extended attributes, ACLs, holes and hard links
/// are kept as GNU tar and bsdtar read them. What tar cannot hold (sockets, quota projects) is named, and the exit code is
/// 3. bsdtar misreads times before 1970 that are no whole seconds, by up to a second. To restore everything as root with GNU tar: `tar -x --xattrs --xattrs-include='*' --acls -p --numeric-owner`.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  diptych export --format tar /backup/home | zstd > home.tar.zst
  diptych export --format tar /backup/home alice | ssh host tar -x")]
pub struct Arguments {
    /// The archive: NAME, NAME.meta.dpt, or one file with both streams.
    #[arg(value_name = "ARCHIVE")]
    archive: PathBuf,
    /// Paths inside the archive, with all that is below them; * ? [...] {a,b} match within a name, ** across them.
    #[arg(value_name = "PATH")]
    paths: Vec<OsString>,
    /// The format to write.
    #[arg(long, value_name = "FORMAT", default_value = "tar")]
    format: Format,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// POSIX tar (pax).
    Tar,
}

pub(super) fn run(arguments: &Arguments, common: &Common) -> Result<Outcome> {
    if output::is_terminal() {
        let what = "a tar stream is not written to a terminal: send standard output to a file or a pipe";
        return Err(Error::Usage(what.to_owned()));
    }
    let paths: Vec<&[u8]> = arguments.paths.iter().map(|path| path.as_bytes()).collect();
    let mut selection = PathSelection::new(&paths)?;
    let open = OpenArchive::open(&arguments.archive)?;
    let terminal = Terminal::new(common, None);
    let losses = Losses::new(&*terminal);
    let mut out = output::results();
    match arguments.format {
        Format::Tar => export_tar(&open, &mut selection, &mut out, &losses)?,
    }
    terminal.finish();
    Ok(Outcome::of_losses(losses.count()))
}
