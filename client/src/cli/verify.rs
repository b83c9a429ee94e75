//! `diptych verify`.

use std::path::PathBuf;

use serde_json::json;

use crate::error::{Error, InPlace, Result};
use crate::open::OpenArchive;
use crate::size::show_size;
use crate::verify::{VerifyOptions, verify};

use super::json::{JsonTo, summary_event};
use super::options::{Common, Json, Threads};
use super::outcome::Outcome;
use super::output;
use super::signals;
use super::terminal::Terminal;

/// Prove an archive: compare every digest with what it stands for.
///
/// Reads both files to their ends: all tables, all contents, and every stored chunk, whether anything uses it or not. What
/// is damaged is named by the paths that it costs, and the exit code is 1.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  diptych verify /backup/home
  diptych verify --metadata-only /backup/home")]
pub struct Arguments {
    /// The archive: NAME, NAME.meta.dpt, or one file with both streams.
    #[arg(value_name = "ARCHIVE")]
    archive: PathBuf,
    /// Leave contents and the data file alone.
    #[arg(long)]
    metadata_only: bool,
    #[command(flatten)]
    json: Json,
    #[command(flatten)]
    threads: Threads,
}

pub(super) fn run(arguments: &Arguments, common: &Common) -> Result<Outcome> {
    let open = OpenArchive::open(&arguments.archive)?;
    let terminal = Terminal::new(common, arguments.json.json.then_some(JsonTo::Output));
    let options = VerifyOptions {
        is_metadata_only: arguments.metadata_only,
        threads: arguments.threads.count(),
        interrupt: signals::watch(),
    };
    let report = verify(&open, &options, &*terminal);
    terminal.finish();
    let report = report?;
    if let Some(json) = terminal.json() {
        json.send(&summary_event(
            "verify",
            json!({
                "tree_id": report.tree_id.to_string(),
                "complete": report.is_complete,
                "entries": report.entries,
                "contents": report.contents,
                "content_bytes": report.content_bytes,
                "chunks": report.chunks,
                "damaged": report.damaged,
                "seconds": terminal.elapsed().as_secs_f64(),
            }),
        ));
    } else if !common.quiet && report.damaged == 0 {
        let what = match arguments.metadata_only {
            true => "no content was looked at".to_owned(),
            false => format!("{} contents with {}", report.contents, show_size(report.content_bytes)),
        };
        output::say(&format!("{} entries, {what}, {} chunks: all right", report.entries, report.chunks));
        output::say(&format!(
            "tree id {}{}",
            report.tree_id,
            if report.is_complete { "" } else { "  incomplete" }
        ));
    }
    if report.damaged > 0 {
        let what = match report.damaged {
            1 => "the archive is damaged in one place, which is named above".to_owned(),
            places => format!("the archive is damaged in {places} places, which are named above"),
        };
        let damaged = Err(diptych_format::Error::corrupt(what));
        return damaged.in_place(arguments.archive.display()).map_err(|error| match error {
            Error::Failed { place, cause, .. } => {
                let advice = "`diptych extract` restores what is not damaged and names the rest.".to_owned();
                Error::Failed { place, cause, advice }
            }
            other => other,
        });
    }
    Ok(Outcome::Done)
}
