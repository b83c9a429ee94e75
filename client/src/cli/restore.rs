//! `diptych restore`.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde_json::json;

use crate::error::{Error, Result};
use crate::extract::Overwrite;
use crate::patterns::Patterns;
use crate::restore::{RestoreOptions, RestoreReport, restore};
use crate::size::show_size;
use crate::snapshots::{Listed, find, list, locate_all, meant, short, split};

use super::json::{JsonTo, summary_event};
use super::options::{Common, Json, Threads, check_pattern};
use super::outcome::Outcome;
use super::output;
use super::repository::RepositoryOptions;
use super::signals;
use super::snapshots::FilterOptions;
use super::terminal::Terminal;

/// Write the tree of a snapshot into a directory.
///
/// Without PATH, the archive's root becomes DIR; of several archives, each goes below DIR at its own path. With PATH,
/// what is in that directory goes into DIR; anything else becomes DIR/NAME.
///
/// A content counts as restored only when it was found right; a damaged one is named and left out, the rest is restored,
/// and the exit code is 3. So it is if the snapshot itself does not have something whole, which -v names. Nothing is ever
/// written or deleted outside DIR, and no link is followed.
///
/// A restore that was interrupted goes on with --overwrite if-changed: what is there and right is not written again.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  diptych restore -r /backup/repo latest --target /restored
  diptych restore -r /backup/repo latest:/home/ann/notes -t notes --include '*.md'
  diptych restore -r /backup/repo 3f2a -t /home --overwrite if-changed --delete --dry-run")]
pub struct Arguments {
    /// The snapshot: `latest`, or the first digits of its id; behind a colon a path as it was on the source.
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    snapshot: String,
    /// The directory to write into; it is made if it is not there.
    #[arg(short, long, value_name = "DIR")]
    target: PathBuf,
    /// Restore only what matches PATTERN, written as in .gitignore and told from DIR, with all below it. May be repeated.
    #[arg(short, long, value_name = "PATTERN", help_heading = "Selection")]
    include: Vec<String>,
    /// Leave out what matches PATTERN, written as in .gitignore and told from DIR. May be repeated.
    #[arg(short, long, value_name = "PATTERN", help_heading = "Selection")]
    exclude: Vec<String>,
    /// Write into a directory that is not empty, and replace there what has the same name.
    #[arg(long, value_name = "WHICH", value_enum, help_heading = "What is there already")]
    overwrite: Option<Which>,
    /// Change files where they lie, writing only what differs. Where the file system can clone files, a clone is changed
    /// and takes the file's place; elsewhere an interruption leaves a file that is part old and part new. A file with
    /// names outside of what is restored is refused.
    #[arg(long, requires = "overwrite", help_heading = "What is there already")]
    in_place: bool,
    /// Delete from DIR what the snapshot does not have, where patterns take it; not on file systems mounted below.
    #[arg(long, requires = "overwrite", help_heading = "What is there already")]
    delete: bool,
    /// Change nothing: name what would be created, replaced and deleted.
    #[arg(short = 'n', long)]
    dry_run: bool,
    #[command(flatten)]
    json: Json,
    #[command(flatten)]
    repository: RepositoryOptions,
    #[command(flatten)]
    filter: FilterOptions,
    #[command(flatten)]
    threads: Threads,
}

/// What is replaced.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    /// Everything.
    Always,
    /// Files with other contents; the others get their attributes.
    IfChanged,
    /// Nothing: what is missing is restored, and what is there stays as it is.
    Never,
}

impl Arguments {
    fn options(&self) -> Result<RestoreOptions> {
        for (option, patterns) in [("--include", &self.include), ("--exclude", &self.exclude)] {
            for pattern in patterns {
                check_pattern(pattern)
                    .map_err(|why| Error::Usage(format!("{option} {pattern:?} is no pattern: {why}")))?;
            }
        }
        let overwrite = match self.overwrite {
            None => Overwrite::Refuse,
            Some(Which::Never) if self.in_place => {
                let what =
                    "--in-place changes files, and with --overwrite never none is changed: give another one";
                return Err(Error::Usage(what.to_owned()));
            }
            Some(Which::Never) => Overwrite::Never,
            Some(Which::IfChanged) => Overwrite::IfChanged,
            Some(Which::Always) => Overwrite::Always,
        };
        Ok(RestoreOptions {
            target: self.target.clone(),
            patterns: Patterns::new(&self.include, &self.exclude)?,
            overwrite,
            is_in_place: self.in_place,
            is_deleting: self.delete,
            is_dry_run: self.dry_run,
            threads: self.threads.count(),
            interrupt: signals::watch(),
        })
    }
}

pub(super) fn run(arguments: &Arguments, common: &Common) -> Result<Outcome> {
    // What makes no sense is told before anybody is asked for a password.
    let mut options = arguments.options()?;
    let terminal = Terminal::new(common, arguments.json.json.then_some(JsonTo::Output));
    let repository = arguments.repository.open_to_read(&*terminal)?;
    options.threads = arguments.threads.count_for(&**repository.backend());
    let (text, path) = split(&arguments.snapshot);
    let listed = list(&repository, &*terminal)?;
    let snapshot = find(&listed, text, &arguments.filter.filter())?;
    if arguments.delete && snapshot.is_partial {
        let what = format!(
            "snapshot {} is what an interrupted run had so far: --delete would delete what it had not reached",
            snapshot.short_id()
        );
        return Err(Error::Usage(what));
    }
    let located = locate_all(&repository, &snapshot, meant(&snapshot, path).map(Path::new))?;
    let report = restore(&located, &options, &*terminal);
    terminal.finish();
    if report.is_err() && signals::is_interrupted() && !common.quiet && !options.is_dry_run {
        output::say(
            "diptych: interrupted: what was restored is whole; --overwrite if-changed goes on from there",
        );
    }
    let report = report?;
    match terminal.json() {
        Some(json) => json.send(&summary_event("restore", summary(&snapshot, &options, &report, &terminal))),
        None => {
            if !common.quiet {
                say(&snapshot, &options, &report, &terminal);
            }
            say_incomplete(report.counts.incomplete, common.verbose);
        }
    }
    Ok(Outcome::of_losses(terminal.losses().max(report.losses + report.counts.incomplete)))
}

fn summary(
    snapshot: &Listed,
    options: &RestoreOptions,
    report: &RestoreReport,
    terminal: &Terminal,
) -> serde_json::Value {
    let counts = &report.counts;
    json!({
        "snapshot": snapshot.id.to_string(),
        "dry_run": options.is_dry_run,
        "entries": counts.entries,
        "content_bytes": counts.content_bytes,
        "kept": counts.kept,
        "skipped": counts.skipped,
        "deleted": counts.deleted,
        "incomplete": counts.incomplete,
        "problems": report.losses,
        "seconds": terminal.elapsed().as_secs_f64(),
    })
}

fn say(snapshot: &Listed, options: &RestoreOptions, report: &RestoreReport, terminal: &Terminal) {
    let counts = &report.counts;
    let more = [
        (counts.kept, "had the right content already"),
        (counts.skipped, "stay as they are"),
        (counts.deleted, if options.is_dry_run { "would be deleted" } else { "deleted" }),
    ];
    let more: String = more
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("; {count} {what}"))
        .collect();
    let begin = if options.is_dry_run { "dry run of snapshot" } else { "snapshot" };
    let proved = if options.is_dry_run { "" } else { ", each compared with its digest" };
    output::say(&format!(
        "{begin} {}: {} entries, {} in contents{proved}, in {:.1} s{more}{}",
        short(&snapshot.id),
        counts.entries,
        show_size(counts.content_bytes),
        terminal.elapsed().as_secs_f64(),
        terminal.problem_count(),
    ));
}

/// An exit code of 3 is never left without a word.
fn say_incomplete(count: u64, is_named: bool) {
    let (entries, them) = match count {
        0 => return,
        1 => ("1 entry is".to_owned(), "it"),
        _ => (format!("{count} entries are"), "them"),
    };
    let names = if is_named { "named above".to_owned() } else { format!("-v names {them}") };
    output::say(&format!("{entries} not whole in the snapshot itself; {names}"));
}
