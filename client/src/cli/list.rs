//! `diptych list`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::error::Result;
use crate::list::{Style, flush, list};
use crate::open::open_metadata;
use crate::progress::Losses;
use crate::select::PathSelection;

use super::options::{Common, Json};
use super::outcome::Outcome;
use super::output;
use super::terminal::Terminal;

/// Show what is in an archive.
///
/// Prints one name on each line, directories with a slash at the end. Reads the metadata file alone. On a terminal, and
/// with --long, control characters in names are shown as \ooo and a backslash as \\.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  diptych list /backup/home
  diptych list --long /backup/home alice/documents
  diptych list /backup/home '**/*.pdf'")]
pub struct Arguments {
    /// The archive: NAME, NAME.meta.dpt, or one file with both streams; `-` is standard input, redirected from a file.
    #[arg(value_name = "ARCHIVE")]
    archive: PathBuf,
    /// Paths inside the archive, with all that is below them; * ? [...] {a,b} match within a name, ** across them.
    #[arg(value_name = "PATH")]
    paths: Vec<OsString>,
    /// Show mode, owner, size and time as well, like `tar tv`.
    #[arg(short, long, conflicts_with = "json")]
    long: bool,
    /// With --long, show owners by number.
    #[arg(long, requires = "long")]
    numeric_owner: bool,
    /// End each name with NUL instead of a newline, and escape nothing.
    #[arg(short = '0', long, conflicts_with_all = ["long", "json"])]
    null: bool,
    #[command(flatten)]
    json: Json,
}

pub(super) fn run(arguments: &Arguments, common: &Common) -> Result<Outcome> {
    let paths: Vec<&[u8]> = arguments.paths.iter().map(|path| path.as_bytes()).collect();
    let mut selection = PathSelection::new(&paths)?;
    let archive = open_metadata(&arguments.archive)?;
    let style = match (arguments.json.json, arguments.long, arguments.null) {
        (true, ..) => Style::Json,
        (_, true, _) => Style::Long { is_numeric: arguments.numeric_owner },
        (_, _, true) => Style::Plain { is_escaped: false, end: 0 },
        _ => Style::Plain { is_escaped: output::is_terminal(), end: b'\n' },
    };
    let terminal = Terminal::quiet(common);
    let losses = Losses::new(&*terminal);
    let mut out = output::results();
    list(&archive, &mut selection, style, &mut out, &losses)?;
    flush(&mut out)?;
    Ok(Outcome::of_losses(losses.count()))
}
