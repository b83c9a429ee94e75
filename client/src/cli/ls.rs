//! `diptych ls`.

use std::path::Path;

use diptych_repository::Repository;
use diptych_repository::documents::ArchiveRecord;

use crate::error::Result;
use crate::list::{Scope, Style, flush, list_scope};
use crate::progress::Losses;
use crate::select::PathSelection;
use crate::snapshots::{caches, find, list, locate, meant, not_there, open_streams, prefix_of, split};

use super::options::{Common, Json};
use super::outcome::Outcome;
use super::output;
use super::repository::RepositoryOptions;
use super::snapshots::FilterOptions;
use super::terminal::Terminal;

/// Show what is in a directory of a snapshot.
///
/// Prints paths as they were on the source, one on each line, directories with a slash at the end: what `restore` and
/// `cat` take behind the colon. Reads no contents. On a terminal, and with --long, control characters in names are shown
/// as \ooo and a backslash as \\.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  diptych ls -r /backup/repo latest
  diptych ls -r /backup/repo --long latest:/home/alice/documents
  diptych ls -r /backup/repo --recursive 'latest:/home/**/*.pdf'")]
pub struct Arguments {
    /// The snapshot: `latest`, or the first digits of its id; behind a colon the path of a directory or file as it was
    /// on the source, without which all archives of the snapshot are shown. * ? [...] {a,b} match within a name, ** across.
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    snapshot: String,
    /// Show what is below directories as well.
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Show mode, owner, size and time as well, like `tar tv`.
    #[arg(short, long, conflicts_with = "json")]
    long: bool,
    /// With --long, show owners by number.
    #[arg(long, requires = "long")]
    numeric_owner: bool,
    /// End each path with NUL instead of a newline, and escape nothing.
    #[arg(short = '0', long, conflicts_with_all = ["long", "json"])]
    null: bool,
    #[command(flatten)]
    json: Json,
    #[command(flatten)]
    repository: RepositoryOptions,
    #[command(flatten)]
    filter: FilterOptions,
}

pub(super) fn run(arguments: &Arguments, common: &Common) -> Result<Outcome> {
    let terminal = Terminal::quiet(common);
    let repository = arguments.repository.open(&*terminal)?;
    let (text, path) = split(&arguments.snapshot);
    let listed = list(&repository, &*terminal)?;
    let snapshot = find(&listed, text, &arguments.filter.filter())?;
    let losses = Losses::new(&*terminal);
    let mut out = output::results();
    let mut show = |record: &ArchiveRecord, archive: &diptych_decoder::Archive, path: &[u8]| {
        let paths: &[&[u8]] = if path.is_empty() { &[] } else { &[path] };
        let scope = Scope::Inside { prefix: prefix_of(record), is_recursive: arguments.recursive };
        list_scope(archive, &mut PathSelection::new(paths)?, scope, style(arguments), &mut out, &losses)
    };
    match meant(&snapshot, path) {
        Some(path) => {
            let located = locate(&repository, &snapshot, Some(Path::new(path)))?;
            show(&located.record, &located.open.archive, &located.path)
                .map_err(|error| not_there(error, path, &snapshot))?;
        }
        None => show_all(&repository, &snapshot.snapshot.archives, &mut show)?,
    }
    flush(&mut out)?;
    Ok(Outcome::of_losses(terminal.losses()))
}

fn show_all(
    repository: &Repository,
    records: &[ArchiveRecord],
    show: &mut dyn FnMut(&ArchiveRecord, &diptych_decoder::Archive, &[u8]) -> Result<()>,
) -> Result<()> {
    let caches = caches(repository);
    records.iter().try_for_each(|record| {
        let (archive, _) = open_streams(repository, record, &caches)?;
        show(record, &archive, b"")
    })
}

fn style(arguments: &Arguments) -> Style {
    match (arguments.json.json, arguments.long, arguments.null) {
        (true, ..) => Style::Json,
        (_, true, _) => Style::Long { is_numeric: arguments.numeric_owner },
        (_, _, true) => Style::Plain { is_escaped: false, end: 0 },
        _ => Style::Plain { is_escaped: output::is_terminal(), end: b'\n' },
    }
}
