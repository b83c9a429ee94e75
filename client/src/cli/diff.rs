//! `diptych diff`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use diptych_decoder::diff::Aspect;
use diptych_decoder::{Change, Difference};
use diptych_format::{Error as FormatError, Kind, Result as FormatResult};
use serde_json::{Map, Value, json};

use diptych_repository::Repository;

use crate::archive_path::ArchivePath;
use crate::diff::{DiffOptions, Side, diff, open_directory};
use crate::error::{Error, Result};
use crate::list::flush;
use crate::names;
use crate::open::open_metadata;
use crate::snapshots::{Filter, Listed, find, list, locate, may_be_snapshot, split};

use super::json::{JsonTo, put_path, summary_event};
use super::options::{Common, Json, SelectionOptions, Threads};
use super::outcome::Outcome;
use super::output;
use super::repository::MaybeRepository;
use super::signals;
use super::terminal::Terminal;

/// Show what differs between two trees, each an archive, a directory, or a directory in a snapshot.
///
/// Of a repository, name a snapshot as `latest` or by the first digits of its id, with a path as it was on the source
/// behind a colon if not all of it is meant. What is there as a file or directory is taken for that; write `snapshot:` before
/// a snapshot that is called like one. Each line is + for what only B has, - for what only A has, or M for what both have, with what differs in parentheses.
/// Two archives are compared without their data files, and what is equal in both is not read. Directories are read whole.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  diptych diff /backup/home-monday /backup/home-friday
  diptych diff --exit-code /backup/home /home
  diptych diff -r /backup/repo 4f1c latest
  diptych diff -r /backup/repo latest:/home/alice /home/alice")]
pub struct Arguments {
    /// The first tree: an archive, a directory, or SNAPSHOT[:PATH].
    #[arg(value_name = "A")]
    before: PathBuf,
    /// The second tree: likewise.
    #[arg(value_name = "B")]
    after: PathBuf,
    /// Exit with code 1 if the trees differ, and with 3 if no difference was found but not everything had been read.
    #[arg(long)]
    exit_code: bool,
    #[command(flatten)]
    json: Json,
    #[command(flatten)]
    repository: MaybeRepository,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    selection: SelectionOptions,
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
    let mut sides = Sides { arguments, options, terminal: terminal.clone(), snapshots: None };
    let before = sides.open(&arguments.before)?;
    let after = sides.open(&arguments.after)?;
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
    Ok(match arguments.exit_code {
        true if report.differs() => Outcome::Differs,
        // What neither tree has read cannot be called equal.
        true if !report.is_complete => Outcome::WithLosses,
        _ => Outcome::Done,
    })
}

/// Opens what is compared.
struct Sides<'a> {
    arguments: &'a Arguments,
    options: DiffOptions,
    terminal: Arc<Terminal>,
    /// The repository with its snapshots, when it has been needed.
    snapshots: Option<(Repository, Vec<Listed>)>,
}

impl Sides<'_> {
    fn open(&mut self, argument: &Path) -> Result<Side> {
        let text = argument.to_str().unwrap_or_default();
        if let Some(text) = text.strip_prefix("snapshot:") {
            return self.open_snapshot(text);
        }
        if argument.is_dir() {
            return open_directory(argument, &self.options, self.terminal.clone()).map(Side::whole);
        }
        let is_there = ArchivePath::find(argument).metadata_file().exists();
        if !is_there && may_be_snapshot(text) && self.arguments.repository.given().is_some() {
            return self.open_snapshot(text);
        }
        open_metadata(argument).map(Side::whole)
    }

    fn open_snapshot(&mut self, argument: &str) -> Result<Side> {
        let (repository, listed) = match &self.snapshots {
            Some((repository, listed)) => (repository, listed),
            None => {
                let options = self.arguments.repository.given().ok_or_else(|| {
                    let what = "a snapshot is in a repository: say which, by -r LOCATION or DIPTYCH_REPO";
                    Error::Usage(what.to_owned())
                })?;
                let repository = options.open(&*self.terminal)?;
                let listed = list(&repository, &*self.terminal)?;
                let (repository, listed) = self.snapshots.insert((repository, listed));
                (&*repository, &*listed)
            }
        };
        let (text, path) = split(argument);
        let snapshot = find(listed, text, &Filter::default())?;
        let located = locate(repository, &snapshot, path.map(Path::new))?;
        let side = Side { archive: located.open.archive, path: located.path };
        match side.archive.lookup(&side.path)? {
            Some(found) if found.is_directory() => Ok(side),
            found => {
                let what = if found.is_some() { "is no directory" } else { "is not there" };
                let advice = format!("`diptych ls {}` shows what is there.", snapshot.short_id());
                Err(Error::missing(argument, what, &advice))
            }
        }
    }
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
