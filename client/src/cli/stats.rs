//! `diptych stats`.

use serde_json::json;

use crate::error::Result;
use crate::size::show_size;
use crate::snapshots::{list, named_or_filtered};
use crate::stats::Stats;

use super::json::{JsonTo, summary_event};
use super::options::{Common, Json};
use super::outcome::Outcome;
use super::output;
use super::repository::RepositoryOptions;
use super::snapshots::FilterOptions;
use super::terminal::Terminal;

/// Show how large snapshots are, and how much is stored for them.
///
/// Without SNAPSHOT and without options that choose snapshots: for the whole repository, with what forgotten snapshots and
/// interrupted runs have left.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  diptych stats -r /backup/repo
  diptych stats -r /backup/repo --host mail --json")]
pub struct Arguments {
    /// Snapshots: `latest`, or the first digits of an id.
    #[arg(value_name = "SNAPSHOT")]
    snapshots: Vec<String>,
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
    let listed = list(&repository, &*terminal)?;
    let filter = arguments.filter.filter();
    let chosen = named_or_filtered(&listed, &arguments.snapshots, &filter)?;
    let stats = match arguments.snapshots.is_empty() && filter.is_everything() {
        true => Stats::of_all(&repository, &chosen),
        false => Stats::of_some(&repository, &chosen)?,
    };
    if arguments.json.json {
        JsonTo::Output.send(&summary_event("stats", fields(&stats)));
    } else {
        output::print(text(&stats).as_bytes())?;
    }
    Ok(Outcome::of_losses(terminal.losses()))
}

fn fields(stats: &Stats) -> serde_json::Value {
    let mut fields = json!({
        "snapshots": stats.snapshots,
        "entries": stats.entries,
        "content_bytes": stats.content_bytes,
        "payload_bytes": stats.payload_bytes,
        "metadata_bytes": stats.metadata_bytes,
        "chunks": stats.chunks,
        "stored_bytes": stats.stored_bytes,
        "ratio": stats.ratio(),
    });
    if let (Some(packs), Some(fields)) = (stats.packs, fields.as_object_mut()) {
        fields.insert("packs".to_owned(), packs.into());
    }
    fields
}

fn text(stats: &Stats) -> String {
    let packs = stats.packs.map_or_else(String::new, |packs| format!(" in {packs} packs"));
    format!(
        "snapshots  {}, {} entries\ncontents   {}\npayload    {} without holes\n\
         metadata   {}\nstored     {}, {} chunks{packs}\nratio      {:.1}: contents to what is stored\n",
        stats.snapshots,
        stats.entries,
        show_size(stats.content_bytes),
        show_size(stats.payload_bytes),
        show_size(stats.metadata_bytes),
        show_size(stats.stored_bytes),
        stats.chunks,
        stats.ratio(),
    )
}
