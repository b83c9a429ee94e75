//! `diptych hash`.

use std::path::PathBuf;

use serde_json::json;

use crate::error::{InPlace, Result};
use crate::hash::hash_directory;
use crate::open::open_metadata;

use super::json::{JsonTo, summary_event};
use super::options::{Common, Json, SelectionOptions, Threads};
use super::outcome::Outcome;
use super::output;
use super::signals;
use super::terminal::Terminal;

/// Print the tree id of a directory or of an archive.
///
/// The tree id is a digest of a whole tree: names, attributes and contents. A directory, an archive of it and what was
/// extracted from that have the same one. It is followed by `incomplete` if something could not be read.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  diptych extract /backup/home /restored
  diptych hash /restored
  diptych hash /backup/home")]
pub struct Arguments {
    /// The directory, or the archive: NAME, NAME.meta.dpt, or one file with both streams.
    #[arg(value_name = "DIR|ARCHIVE")]
    what: PathBuf,
    #[command(flatten)]
    json: Json,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    selection: SelectionOptions,
}

pub(super) fn run(arguments: &Arguments, common: &Common) -> Result<Outcome> {
    let json = arguments.json.json.then_some(JsonTo::Output);
    let (tree_id, is_complete, entries) = if arguments.what.is_dir() {
        let terminal = Terminal::new(common, json);
        let selection = arguments.selection.selection()?;
        let threads = arguments.threads.count();
        let report = hash_directory(&arguments.what, selection, threads, signals::watch(), terminal.clone())
            .in_place(arguments.what.display())?;
        terminal.finish();
        (report.tree_id, report.is_complete, report.entries)
    } else {
        arguments.selection.refuse_for_archives()?;
        let archive = open_metadata(&arguments.what)?;
        let trailer = archive.trailer();
        (trailer.tree_id, trailer.is_complete(), trailer.entries)
    };
    match json {
        Some(json) => {
            let fields = json!({
                "tree_id": tree_id.to_string(), "complete": is_complete, "entries": entries
            });
            json.send(&summary_event("hash", fields));
        }
        None => {
            let line = format!("{tree_id}{}\n", if is_complete { "" } else { "  incomplete" });
            output::print(line.as_bytes())?;
        }
    }
    Ok(if is_complete { Outcome::Done } else { Outcome::WithLosses })
}
