//! `diptych check`.

use std::sync::{Mutex, PoisonError};

use diptych_format::{Kind, Monitor, Problem};
use serde_json::{Map, Value, json};

use crate::backup::{host_name, user_name};
use crate::check::{CheckOptions, CheckReport, Finding, ReadData, Severity, cache_directory, check};
use crate::error::{Error, InPlace, Result};
use crate::names;
use crate::progress::Progress;
use crate::size::show_size;
use crate::snapshots::short;

use super::json::{JsonTo, put_path, summary_event};
use super::options::{Common, Json, Threads};
use super::outcome::Outcome;
use super::output;
use super::repository::{RepositoryOptions, told};
use super::signals;
use super::terminal::Terminal;

/// Prove a repository whole, or say what is damaged and which files that costs.
///
/// Reads all files but the packs of contents to their ends, and of those what they say of themselves; every snapshot, also
/// a forgotten one, must find all that it names. With --read-data, contents are read and compared as well. What is
/// damaged is remembered in the repository, so that the next backup stores it again if the files are still there.
/// docs/checking.md says what to do about each finding.
///
/// Exit code 1: something is damaged or missing. 3: something could not be read, and may be whole.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  diptych check -r /backup/repo
  diptych check -r /backup/repo --read-data-subset 5%
  diptych check -r /backup/repo --repair-index")]
pub struct Arguments {
    /// Read all contents, and compare every chunk with its id.
    #[arg(long, conflicts_with = "read_data_subset")]
    read_data: bool,
    /// The same of a part: 5% or 500M go on where the last check ended, 3/10 are always the same packs.
    #[arg(long, value_name = "PART", value_parser = ReadData::parse)]
    read_data_subset: Option<ReadData>,
    /// First make the index anew from the packs: for when it is damaged or gone.
    #[arg(long)]
    repair_index: bool,
    #[command(flatten)]
    json: Json,
    #[command(flatten)]
    repository: RepositoryOptions,
    #[command(flatten)]
    threads: Threads,
}

pub(super) fn run(arguments: &Arguments, common: &Common) -> Result<Outcome> {
    let terminal = Terminal::new(common, arguments.json.json.then_some(JsonTo::Output));
    if arguments.repair_index {
        match arguments.repository.backend()?.mend_layout() {
            // Opening says what is not there.
            Err(error) if error.class == diptych_backend::Class::Missing => {}
            mended => mended.map_err(told)?,
        }
    }
    let opening = Opening::default();
    let repository = arguments.repository.open(&opening).inspect_err(|_| opening.tell(&terminal))?;
    let read_data = match arguments.read_data_subset {
        Some(part) => part,
        None if arguments.read_data => ReadData::All,
        None => ReadData::None,
    };
    let options = CheckOptions {
        read_data,
        repairs_index: arguments.repair_index,
        cache: cache_directory(),
        host: host_name(),
        user: user_name(),
        threads: arguments.threads.count_for(&**repository.backend()),
        interrupt: signals::watch(),
    };
    let found = |finding: &Finding| match terminal.json() {
        Some(json) => json.send(&event(finding)),
        None => terminal.problem(problem(finding)),
    };
    let report = check(&repository, &options, &*terminal, &found);
    terminal.finish();
    let report = report?;
    match terminal.json() {
        Some(json) => {
            json.send(&summary_event("check", summary(&report, terminal.elapsed().as_secs_f64())));
        }
        None if common.quiet => {}
        None => say(&report, &options, terminal.elapsed().as_secs_f64()),
    }
    outcome(&report, &arguments.repository.repository)
}

/// Keeps what opening has to tell: the check tells it again, unless it comes to none.
#[derive(Default)]
struct Opening(Mutex<Vec<Problem>>);

impl Opening {
    fn tell(&self, terminal: &Terminal) {
        let problems = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        problems.into_iter().for_each(|problem| terminal.problem(problem));
    }
}

impl Monitor for Opening {
    fn entry(&self, _: &[u8], _: Kind) {}

    fn bytes(&self, _: u64) {}

    fn problem(&self, problem: Problem) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(problem);
    }
}

impl Progress for Opening {}

fn outcome(report: &CheckReport, place: &str) -> Result<Outcome> {
    if report.is_interrupted {
        return Err(Error::Interrupted);
    }
    if report.damaged == 0 {
        return Ok(Outcome::of_losses(report.unreadable));
    }
    let what = match report.lost_chunks {
        0 => "the repository is damaged, as told above; no snapshot has lost anything".to_owned(),
        _ => format!(
            "the repository is damaged, as told above; {} snapshots lose something, in {} paths",
            report.snapshots_damaged, report.paths_lost
        ),
    };
    Err(diptych_format::Error::corrupt(what)).in_place(place).map_err(|error| match error {
        Error::Failed { place, cause, .. } => {
            let advice = "`diptych backup` stores again what the files still have; `diptych restore` restores what is \
                not damaged."
                .to_owned();
            Error::Failed { place, cause, advice }
        }
        other => other,
    })
}

fn others(count: u64) -> String {
    match count {
        0 => String::new(),
        1 => " and another one".to_owned(),
        count => format!(" and {count} others"),
    }
}

fn problem(finding: &Finding) -> Problem {
    match finding {
        Finding::File { path, what, severity } => {
            let path = if path.is_empty() { "repository" } else { path };
            let is_loss = *severity != Severity::Harmless;
            Problem { path: path.as_bytes().to_vec(), what: what.clone(), is_loss }
        }
        Finding::Snapshot { id, time, chunks } => Problem {
            path: format!("snapshot {}", short(id)).into_bytes(),
            what: format!("of {time}: lacks {chunks} chunks"),
            is_loss: true,
        },
        Finding::Lost { path, what, snapshot, others: count } => Problem {
            path: path.clone(),
            what: format!("{what}; in snapshot {}{}", short(snapshot), others(*count)),
            is_loss: true,
        },
    }
}

fn event(finding: &Finding) -> Value {
    let mut event = Map::new();
    let mut put = |key: &str, value: Value| drop(event.insert(key.to_owned(), value));
    match finding {
        Finding::File { path, what, severity } => {
            put("event", "file".into());
            put("file", path.as_str().into());
            put("what", what.as_str().into());
            put("severity", severity.word().into());
        }
        Finding::Snapshot { id, time, chunks } => {
            put("event", "snapshot".into());
            put("snapshot", id.to_string().into());
            put("time", time.to_string().into());
            put("chunks", (*chunks).into());
        }
        Finding::Lost { path, what, snapshot, others } => {
            put("event", "lost".into());
            put("what", what.as_str().into());
            put("snapshot", snapshot.to_string().into());
            put("others", (*others).into());
            put_path(&mut event, path);
        }
    }
    Value::Object(event)
}

fn summary(report: &CheckReport, seconds: f64) -> Value {
    let mut summary = json!({
        "snapshots": report.snapshots,
        "chunks": report.chunks,
        "packs": report.packs,
        "payload_packs": report.payload_packs,
        "payload_bytes": report.payload_bytes,
        "packs_read": report.packs_read,
        "bytes_read": report.bytes_read,
        "leftover_packs": report.leftover_packs,
        "leftover_bytes": report.leftover_bytes,
        "damaged": report.damaged,
        "unreadable": report.unreadable,
        "harmless": report.harmless,
        "lost_chunks": report.lost_chunks,
        "snapshots_damaged": report.snapshots_damaged,
        "paths_lost": report.paths_lost,
        "complete": !report.is_interrupted,
        "seconds": seconds,
    });
    if let (Some(rebuilt), Value::Object(summary)) = (&report.rebuilt, &mut summary) {
        let rebuilt = json!({
            "packs": rebuilt.packs,
            "chunks": rebuilt.chunks,
            "damaged_packs": rebuilt.damaged.len(),
            "left_out_packs": rebuilt.left_out.len(),
            "removed_files": rebuilt.removed.len(),
        });
        summary.insert("index".to_owned(), rebuilt);
    }
    summary
}

fn say(report: &CheckReport, options: &CheckOptions, seconds: f64) {
    if let Some(rebuilt) = &report.rebuilt {
        output::say(&format!("index made anew: {} chunks in {} packs", rebuilt.chunks, rebuilt.packs));
        let told = [
            ("an index file could not be used, and was removed", &rebuilt.removed),
            ("a pack's end is damaged", &rebuilt.damaged),
            ("nothing was found in a pack", &rebuilt.left_out),
        ];
        for (what, files) in told {
            for (name, error) in files {
                output::say(&format!("  {what}: {}: {error}", names::show(name.path().as_bytes())));
            }
        }
    }
    if report.leftover_packs > 0 {
        output::say(&format!(
            "{} packs ({}) that the index does not name: left by a run that was ended, or being written",
            report.leftover_packs,
            show_size(report.leftover_bytes),
        ));
    }
    let read = match options.read_data {
        ReadData::None => "no content was read".to_owned(),
        _ => format!(
            "contents read: {} of {} packs, {} of {}",
            report.packs_read,
            report.payload_packs,
            show_size(report.bytes_read),
            show_size(report.payload_bytes),
        ),
    };
    if report.is_interrupted {
        output::say(&format!("ended before it was done; {read}"));
        return;
    }
    let result = if report.damaged + report.unreadable == 0 { "all right" } else { "not all right" };
    output::say(&format!(
        "{} snapshots, {} chunks, {} packs; {read}: {result}, {seconds:.1} s",
        report.snapshots, report.chunks, report.packs
    ));
}
