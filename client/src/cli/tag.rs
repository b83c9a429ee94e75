//! `diptych tag`.

use serde_json::json;

use crate::error::{Error, Result};
use crate::snapshots::{list, named, short};
use crate::tag::tag;

use super::json::{JsonTo, summary_event};
use super::options::{Common, Json};
use super::outcome::Outcome;
use super::output;
use super::repository::RepositoryOptions;
use super::snapshots::FilterOptions;
use super::terminal::Terminal;

/// Change the tags of snapshots.
///
/// A snapshot whose tags change gets a new id, which is told; everything else stays as it is.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  diptych tag -r /backup/repo latest --add release
  diptych tag -r /backup/repo 4f1c22d0 --remove daily --add monthly")]
pub struct Arguments {
    /// Snapshots: `latest`, or the first digits of an id.
    #[arg(value_name = "SNAPSHOT", required = true)]
    snapshots: Vec<String>,
    /// Add TAG. May be repeated.
    #[arg(long, value_name = "TAG")]
    add: Vec<String>,
    /// Remove TAG, where it is. May be repeated.
    #[arg(long, value_name = "TAG")]
    remove: Vec<String>,
    #[command(flatten)]
    json: Json,
    #[command(flatten)]
    repository: RepositoryOptions,
    #[command(flatten)]
    filter: FilterOptions,
}

pub(super) fn run(arguments: &Arguments, common: &Common) -> Result<Outcome> {
    if arguments.add.is_empty() && arguments.remove.is_empty() {
        return Err(Error::Usage("say what to change: --add TAG, --remove TAG".to_owned()));
    }
    let terminal = Terminal::quiet(common);
    let repository = arguments.repository.open(&*terminal)?;
    let listed = list(&repository, &*terminal)?;
    let chosen = named(&listed, &arguments.snapshots, &arguments.filter.filter())?;
    if let Some(forgotten) = chosen.iter().find(|listed| listed.forgotten.is_some()) {
        let what = format!("snapshot {} is forgotten: `diptych unforget` comes first", forgotten.short_id());
        return Err(Error::Usage(what));
    }
    let mut count = 0;
    for listed in &chosen {
        let Some(id) = tag(&repository, listed, &arguments.add, &arguments.remove)? else { continue };
        count += 1;
        if arguments.json.json {
            let event =
                json!({ "event": "tag", "before": listed.id.to_string(), "snapshot": id.to_string() });
            JsonTo::Output.send(&event);
        } else if !common.quiet {
            output::say(&format!("{} is now {}", listed.short_id(), short(&id)));
        }
    }
    if arguments.json.json {
        let unchanged = chosen.len() - count;
        let fields = json!({ "changed": count, "unchanged": unchanged });
        JsonTo::Output.send(&summary_event("tag", fields));
    }
    Ok(Outcome::of_losses(terminal.losses()))
}
