//! `diptych find`.

use std::io::Write;

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::error::Result;
use crate::find::{Finder, Match, Patterns};
use crate::list::flush;
use crate::names;
use crate::progress::Losses;
use crate::snapshots::{Listed, caches, list, named_or_filtered, open_streams, source_of};

use super::json::put_path;
use super::options::{Common, Json};
use super::outcome::Outcome;
use super::output;
use super::repository::RepositoryOptions;
use super::snapshots::{FilterOptions, show_time};
use super::terminal::Terminal;

/// Find files by name in all snapshots.
///
/// Prints, oldest snapshot first: the snapshot, the time when the entry last changed, its size, and its path as it was on
/// the source. Reads no contents.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  diptych find -r /backup/repo -i '*report*.pdf'
  diptych find -r /backup/repo --snapshot latest '/home/*/.ssh/**'")]
pub struct Arguments {
    /// What to find. * ? [...] {a,b} match within a name, ** across names. Without a slash it is compared with names; with
    /// one, with whole paths as they were on the source.
    #[arg(value_name = "PATTERN", required = true)]
    patterns: Vec<String>,
    /// Take capital and small letters for the same.
    #[arg(short, long)]
    ignore_case: bool,
    /// Look in SNAPSHOT alone: `latest`, or the first digits of an id. May be repeated.
    #[arg(short, long, value_name = "SNAPSHOT")]
    snapshot: Vec<String>,
    #[command(flatten)]
    json: Json,
    #[command(flatten)]
    repository: RepositoryOptions,
    #[command(flatten)]
    filter: FilterOptions,
}

pub(super) fn run(arguments: &Arguments, common: &Common) -> Result<Outcome> {
    let patterns = Patterns::new(&arguments.patterns, arguments.ignore_case)?;
    let terminal = Terminal::quiet(common);
    let repository = arguments.repository.open(&*terminal)?;
    let listed = list(&repository, &*terminal)?;
    let searched = named_or_filtered(&listed, &arguments.snapshot, &arguments.filter.filter())?;
    let losses = Losses::new(&*terminal);
    let caches = caches(&repository);
    let mut finder = Finder::new(&patterns);
    let mut out = output::results();
    let mut count = 0_u64;
    for snapshot in searched {
        for record in &snapshot.snapshot.archives {
            let archive = match open_streams(&repository, record, &caches) {
                Ok((archive, _)) => archive,
                Err(error) => {
                    let what = format!("snapshot {} cannot be searched: {error}", snapshot.short_id());
                    losses.loss(source_of(record), what);
                    continue;
                }
            };
            finder.search(&archive, source_of(record), &losses, &mut |found| {
                count += 1;
                let line = match arguments.json.json {
                    true => json_line(&snapshot, found),
                    false => text_line(&snapshot, found),
                };
                out.write_all(&line).map_err(output::cannot_write)
            })?;
        }
    }
    flush(&mut out)?;
    if count == 0 && !common.quiet && !arguments.json.json {
        output::say("nothing found");
    }
    Ok(Outcome::of_losses(terminal.losses()))
}

fn text_line(snapshot: &Listed, found: &Match) -> Vec<u8> {
    let time = show_time(Timestamp::from_second(found.mtime.seconds).unwrap_or_default());
    let mut line = format!("{}  {time}  {:>12}  ", snapshot.short_id(), found.size).into_bytes();
    let shown = if output::is_terminal() { names::escape(&found.path) } else { (&found.path[..]).into() };
    line.extend_from_slice(&shown);
    line.extend_from_slice(if found.kind == diptych_format::Kind::Directory { b"/\n" } else { b"\n" });
    line
}

fn json_line(snapshot: &Listed, found: &Match) -> Vec<u8> {
    let mut line = Map::new();
    line.insert("snapshot".to_owned(), snapshot.id.to_string().into());
    put_path(&mut line, &found.path);
    line.insert("kind".to_owned(), found.kind.word().into());
    if found.kind == diptych_format::Kind::File {
        line.insert("size".to_owned(), found.size.into());
    }
    let mtime = format!("{}.{:09}", found.mtime.seconds, found.mtime.nanoseconds);
    line.insert("mtime".to_owned(), mtime.into());
    format!("{}\n", Value::Object(line)).into_bytes()
}
