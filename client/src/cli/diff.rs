//! `diptych diff`.

use std::io::Write;
use std::path::PathBuf;

use diptych_decoder::diff::Aspect;
use diptych_decoder::{Change, Difference};
use diptych_format::{Error as FormatError, Kind, Result as FormatResult};
use serde_json::{Map, Value, json};

use crate::diff::{DiffOptions, diff, open_side};
use crate::error::Result;
use crate::list::flush;
use crate::names;

use super::json::{JsonTo, put_path, summary_event};
use super::options::{Common, Json, SelectionOptions, Threads};
use super::outcome::Outcome;
use super::output;
use super::signals;
use super::terminal::Terminal;

/// Show what differs between two trees, each an archive or a directory.
///
/// Each line is + for what only B has, - for what only A has, or M for what both have, with what differs in parentheses.
/// Two archives are compared without their data files, and what is equal in both is not read. Directories are read whole.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  diptych diff /backup/home-monday /backup/home-friday
  diptych diff --exit-code /backup/home /home")]
pub struct Arguments {
    /// The first tree: an archive or a directory.
    #[arg(value_name = "A")]
    before: PathBuf,
    /// The second tree: an archive or a directory.
    #[arg(value_name = "B")]
    after: PathBuf,
    /// Exit with code 1 if the trees differ.
    #[arg(long)]
    exit_code: bool,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    selection: SelectionOptions,
    #[command(flatten)]
    json: Json,
}

pub(super) fn run(arguments: &Arguments, common: &Common) -> Result<Outcome> {
    if !arguments.before.is_dir() && !arguments.after.is_dir() {
        arguments.selection.refuse_for_archives()?;
    }
    let is_json = arguments.json.json;
    let options = DiffOptions {
        selection: arguments.selection.selection()?,
        threads: arguments.threads.count(),
        interrupt: signals::watch(),
    };
    let terminal = Terminal::new(common, is_json.then_some(JsonTo::Output));
    let before = open_side(&arguments.before, &options, terminal.clone())?;
    let after = open_side(&arguments.after, &options, terminal.clone())?;
    terminal.finish();
    let is_escaped = output::is_terminal();
    let mut out = output::results();
    let report = diff(&before, &after, &mut |difference| match is_json {
        true => print_json(difference, &mut out),
        false => print_line(difference, is_escaped, &mut out),
    })?;
    flush(&mut out)?;
    drop(out);
    if is_json {
        JsonTo::Output.send(&summary_event(
            "diff",
            json!({
                "added": report.added,
                "removed": report.removed,
                "changed": report.changed,
                "complete": report.is_complete,
            }),
        ));
    } else if !common.quiet && !report.is_complete {
        output::say("diptych: not everything could be read when the trees were archived: more may differ");
    }
    if terminal.losses() > 0 {
        return Ok(Outcome::WithLosses);
    }
    Ok(if arguments.exit_code && report.differs() { Outcome::Differs } else { Outcome::Done })
}

fn print_line(difference: &Difference, is_escaped: bool, out: &mut dyn Write) -> FormatResult<()> {
    let sign: &[u8] = match difference.kind {
        Change::Added => b"+ ",
        Change::Removed => b"- ",
        Change::Changed { .. } => b"M ",
    };
    let mut line = sign.to_vec();
    let path = if difference.path.is_empty() { b"." } else { &difference.path[..] };
    line.extend_from_slice(&if is_escaped { names::escape(path) } else { path.into() });
    if kind_of(difference) == Some(Kind::Directory) {
        line.push(b'/');
    }
    if let Change::Changed { what } = &difference.kind {
        let words: Vec<&str> = what.iter().map(|aspect| word(*aspect)).collect();
        line.extend_from_slice(format!(" ({})", words.join(", ")).as_bytes());
    }
    line.push(b'\n');
    out.write_all(&line).map_err(cannot_write)
}

fn print_json(difference: &Difference, out: &mut dyn Write) -> FormatResult<()> {
    let mut event = Map::new();
    event.insert("event".to_owned(), "difference".into());
    put_path(&mut event, &difference.path);
    let change = match &difference.kind {
        Change::Added => "added",
        Change::Removed => "removed",
        Change::Changed { what } => {
            let words: Vec<Value> = what.iter().map(|aspect| word(*aspect).into()).collect();
            event.insert("what".to_owned(), Value::Array(words));
            "changed"
        }
    };
    event.insert("change".to_owned(), change.into());
    if let Some(kind) = kind_of(difference) {
        event.insert("kind".to_owned(), kind.word().into());
    }
    writeln!(out, "{}", Value::Object(event)).map_err(cannot_write)
}

/// What it is now, or was.
fn kind_of(difference: &Difference) -> Option<Kind> {
    difference.after.as_ref().or(difference.before.as_ref()).and_then(|entry| entry.kind().ok())
}

fn word(aspect: Aspect) -> &'static str {
    match aspect {
        Aspect::Kind => "kind",
        Aspect::Content => "content",
        Aspect::Target => "target",
        Aspect::Device => "device",
        Aspect::Mode => "mode",
        Aspect::Owner => "owner",
        Aspect::Times => "mtime",
        Aspect::Xattrs => "xattrs",
        Aspect::Flags => "flags",
        Aspect::Project => "project",
        Aspect::Links => "links",
    }
}

fn cannot_write(error: std::io::Error) -> FormatError {
    FormatError::io("cannot write what differs", error)
}
