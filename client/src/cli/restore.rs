//! `diptych restore`.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::error::Result;
use crate::extract::{ExtractOptions, extract};
use crate::select::PathSelection;
use crate::size::show_size;
use crate::snapshots::{find, list, locate, split};

use super::json::{JsonTo, summary_event};
use super::options::{Common, Json, Threads};
use super::outcome::Outcome;
use super::output;
use super::repository::RepositoryOptions;
use super::signals;
use super::snapshots::FilterOptions;
use super::terminal::Terminal;

/// Write the tree of a snapshot into a directory.
///
/// A content counts as restored only when it was found right; a damaged one is named and left out, the rest is restored,
/// and the exit code is 3. Nothing is ever written outside DIR, and no link is followed.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  diptych restore -r /backup/repo latest --target /restored")]
pub struct Arguments {
    #[command(flatten)]
    repository: RepositoryOptions,
    /// The snapshot: `latest`, or the first digits of its id; behind a colon a path as it was on the source.
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    snapshot: String,
    /// The directory to write into; it is made if it is not there.
    #[arg(short, long, value_name = "DIR")]
    target: PathBuf,
    /// Write into a directory that is not empty, and replace what has the same name there.
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    filter: FilterOptions,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    json: Json,
}

pub(super) fn run(arguments: &Arguments, common: &Common) -> Result<Outcome> {
    let terminal = Terminal::new(common, arguments.json.json.then_some(JsonTo::Output));
    let repository = arguments.repository.open(&*terminal)?;
    let (text, path) = split(&arguments.snapshot);
    let listed = list(&repository, &*terminal)?;
    let snapshot = find(&listed, text, &arguments.filter.filter())?;
    let located = locate(&repository, &snapshot, path.map(Path::new))?;
    let paths: &[&[u8]] = if located.path.is_empty() { &[] } else { &[&located.path] };
    let options = ExtractOptions {
        target: arguments.target.clone(),
        selection: PathSelection::new(paths)?,
        is_overwriting: arguments.overwrite,
        threads: arguments.threads.count(),
        interrupt: signals::watch(),
    };
    let report = extract(&located.open, options, &*terminal);
    terminal.finish();
    let report = report?;
    match terminal.json() {
        Some(json) => json.send(&summary_event(
            "restore",
            json!({
                "snapshot": snapshot.id.to_string(),
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
