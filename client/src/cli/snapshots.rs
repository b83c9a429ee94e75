//! `diptych snapshots`.

use std::io::Write;

use diptych_format::Digest;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::json;

use crate::error::Result;
use crate::names;
use crate::size::show_size;
use crate::snapshots::{Filter, Listed, list};

use super::options::{Common, Json};
use super::outcome::Outcome;
use super::output;
use super::repository::RepositoryOptions;
use super::terminal::Terminal;

/// List the snapshots of a repository, oldest first.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  diptych snapshots -r /backup/repo
  diptych snapshots -r /backup/repo --host mail --tag daily --json")]
pub struct Arguments {
    /// Show forgotten snapshots as well.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    json: Json,
    #[command(flatten)]
    repository: RepositoryOptions,
    #[command(flatten)]
    filter: FilterOptions,
}

/// Which snapshots are meant.
#[derive(clap::Args)]
#[command(next_help_heading = "Snapshots")]
pub struct FilterOptions {
    /// Of HOST alone.
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// With TAG. May be repeated: all of them.
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// Of this PATH, as it was on the source. May be repeated: all of them.
    #[arg(long, value_name = "PATH")]
    path: Vec<std::ffi::OsString>,
}

impl FilterOptions {
    /// As jobs take it.
    pub fn filter(&self) -> Filter {
        use std::os::unix::ffi::OsStrExt;
        Filter {
            host: self.host.clone(),
            tags: self.tag.clone(),
            paths: self.path.iter().map(|path| path.as_bytes().to_vec()).collect(),
        }
    }
}

pub(super) fn run(arguments: &Arguments, common: &Common) -> Result<Outcome> {
    let terminal = Terminal::quiet(common);
    let repository = arguments.repository.open(&*terminal)?;
    let filter = arguments.filter.filter();
    let listed = list(&repository, &*terminal)?;
    terminal.finish();
    let shown = listed
        .iter()
        .filter(|listed| filter.takes(&listed.snapshot) && (arguments.all || listed.forgotten.is_none()));
    let mut out = output::results();
    let mut count = 0;
    for listed in shown {
        count += 1;
        let line = if arguments.json.json { json_line(listed) } else { text_line(listed) };
        out.write_all(line.as_bytes()).map_err(output::cannot_write)?;
    }
    out.flush().map_err(output::cannot_write)?;
    if count == 0 && !common.quiet && !arguments.json.json {
        output::say("no snapshots");
    }
    Ok(Outcome::of_losses(terminal.losses()))
}

/// A time as this machine's clocks show it.
pub fn show_time(time: Timestamp) -> String {
    time.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

fn text_line(listed: &Listed) -> String {
    let snapshot = &listed.snapshot;
    let time = show_time(snapshot.time);
    let paths: Vec<String> = snapshot
        .archives
        .iter()
        .map(|archive| names::show(archive.path.as_deref().unwrap_or(&archive.name)))
        .collect();
    let entries: u64 = snapshot.archives.iter().map(|archive| archive.entries).sum();
    let bytes: u64 = snapshot.archives.iter().map(|archive| archive.content_bytes).sum();
    let mut notes = Vec::new();
    if listed.is_partial {
        notes.push("partial".to_owned());
    }
    if listed.forgotten.is_some() {
        notes.push("forgotten".to_owned());
    }
    match snapshot.report.map_or(0, |report| report.losses) {
        0 => {}
        1 => notes.push("1 problem".to_owned()),
        losses => notes.push(format!("{losses} problems")),
    }
    if !snapshot.tags.is_empty() {
        notes.push(names::show(snapshot.tags.join(",").as_bytes()));
    }
    let notes = if notes.is_empty() { String::new() } else { format!("  [{}]", notes.join("; ")) };
    format!(
        "{}  {time}  {}  {:>9}  {:>10}  {}{notes}\n",
        listed.short_id(),
        names::show(snapshot.host.as_bytes()),
        entries,
        show_size(bytes),
        paths.join(" "),
    )
}

fn json_line(listed: &Listed) -> String {
    let snapshot = &listed.snapshot;
    let archives: Vec<serde_json::Value> = snapshot
        .archives
        .iter()
        .map(|archive| {
            json!({
                "name": names::show(&archive.name),
                "path": archive.path.as_deref().map(names::show),
                "tree_id": archive.tree_id.to_string(),
                "complete": archive.complete,
                "entries": archive.entries,
                "content_bytes": archive.content_bytes,
                "metadata_bytes": archive.metadata.length,
                "payload_bytes": archive.payload.length,
            })
        })
        .collect();
    let mut line = json!({
        "id": listed.id.to_string(),
        "time": snapshot.time.to_string(),
        "host": snapshot.host,
        "user": snapshot.user,
        "tags": snapshot.tags,
        "base": snapshot.base.as_ref().map(Digest::to_string),
        "partial": listed.is_partial,
        "forgotten": listed.forgotten.is_some(),
        "problems": snapshot.report.map_or(0, |report| report.losses),
        "archives": archives,
    })
    .to_string();
    line.push('\n');
    line
}
