//! `diptych extract`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use serde_json::json;

use crate::archive_path::ArchivePath;
use crate::error::Result;
use crate::extract::{ExtractOptions, extract};
use crate::open::OpenArchive;
use crate::select::PathSelection;
use crate::size::show_size;
use crate::spool::spooled_input;

use super::json::{JsonTo, summary_event};
use super::options::{Common, Json, Threads};
use super::outcome::Outcome;
use super::output;
use super::signals;
use super::terminal::Terminal;

/// Write the tree of an archive, or parts of it, into a directory.
///
/// A content counts as restored only when it was found right; a damaged one is named and left out, the rest is restored,
/// and the exit code is 3. Nothing is ever written outside TARGET, and no link is followed. Owners can be set by
/// root alone: for others their number is told at the end. Any other attribute that cannot be set is named.
///
/// An archive on standard input is first kept on disk beside TARGET, for it is read from its end. Where that is not
/// wanted, `diptych export --format tar` gives a stream that can be extracted as it comes.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  diptych extract /backup/home /restored
  diptych extract /backup/home /restored alice/documents '**/*.pdf'
  ssh host 'cat srv.dpt' | diptych extract - /srv")]
pub struct Arguments {
    /// The archive: NAME, NAME.meta.dpt, or one file with both streams; `-` is standard input.
    #[arg(value_name = "ARCHIVE")]
    archive: PathBuf,
    /// The directory to write into; it is made if it is not there.
    #[arg(value_name = "TARGET")]
    target: PathBuf,
    /// Paths inside the archive, with all that is below them; * ? [...] {a,b} match within a name, ** across them.
    #[arg(value_name = "PATH")]
    paths: Vec<OsString>,
    /// Write into a directory that is not empty, and replace what has the same name there.
    #[arg(long)]
    overwrite: bool,
    /// Where to keep an archive from standard input; beside TARGET by default.
    #[arg(long, value_name = "DIR")]
    spool: Option<PathBuf>,
    #[command(flatten)]
    json: Json,
    #[command(flatten)]
    threads: Threads,
}

pub(super) fn run(arguments: &Arguments, common: &Common) -> Result<Outcome> {
    let paths: Vec<&[u8]> = arguments.paths.iter().map(|path| path.as_bytes()).collect();
    let selection = PathSelection::new(&paths)?;
    let open = match ArchivePath::find(&arguments.archive) {
        ArchivePath::Standard => {
            let file = spooled_input(&arguments.target, arguments.spool.as_deref())?;
            OpenArchive::open_file(file, "standard input")?
        }
        _ => OpenArchive::open(&arguments.archive)?,
    };
    let terminal = Terminal::new(common, arguments.json.json.then_some(JsonTo::Output));
    let options = ExtractOptions {
        target: arguments.target.clone(),
        selection,
        is_overwriting: arguments.overwrite,
        threads: arguments.threads.count(),
        interrupt: signals::watch(),
    };
    let report = extract(&open, options, &*terminal);
    terminal.finish();
    let report = report?;
    match terminal.json() {
        Some(json) => json.send(&summary_event(
            "extract",
            json!({
                "entries": report.entries,
                "content_bytes": report.content_bytes,
                "problems": report.losses,
                "seconds": terminal.elapsed().as_secs_f64(),
            }),
        )),
        None if common.quiet => {}
        None => output::say(&format!(
            "{} entries, {} in contents, each compared with its digest, in {:.1} s{}",
            report.entries,
            show_size(report.content_bytes),
            terminal.elapsed().as_secs_f64(),
            terminal.problem_count(),
        )),
    }
    Ok(Outcome::of_losses(report.losses))
}
