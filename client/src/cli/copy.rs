//! `diptych copy`.

use std::path::PathBuf;

use diptych_repository::chunk::Compression;
use serde_json::{Map, json};

use crate::copy::{Copied, CopyOptions, copy};
use crate::error::{Error, Result};
use crate::progress::Losses;
use crate::size::show_size;
use crate::snapshots::{list, named_or_filtered, short};

use super::json::{JsonTo, summary_event};
use super::options::{Common, Json, Threads};
use super::outcome::Outcome;
use super::output;
use super::repository::{PasswordOptions, RepositoryOptions};
use super::signals;
use super::snapshots::FilterOptions;
use super::terminal::Terminal;

/// Copy snapshots into another repository.
///
/// What the other one has is not copied again, and snapshots that it has are passed over. Each may be encrypted or not:
/// what is copied is sealed under the other one's key. What cannot be read is named, its snapshot is left out, and the exit
/// code is 3.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  diptych copy -r /backup/repo --to /media/disk/repo --to-password-file /etc/disk.password
  diptych copy -r /backup/repo --to /media/disk/repo --tag monthly latest")]
pub struct Arguments {
    /// Snapshots: `latest`, or the first digits of an id; without any, all complete ones.
    #[arg(value_name = "SNAPSHOT")]
    snapshots: Vec<String>,
    /// The other repository, which must be there: as for -r.
    #[arg(long, value_name = "LOCATION")]
    to: String,
    /// Read the other one's password from the first line of FILE; without it, DIPTYCH_TO_PASSWORD has it, or the terminal is
    /// asked.
    #[arg(long, value_name = "FILE")]
    to_password_file: Option<PathBuf>,
    /// Copy what interrupted runs have left as well.
    #[arg(long)]
    partial: bool,
    /// How hard to compress: 1 (fast) to 19 (small), or `none`.
    #[arg(long, value_name = "LEVEL", default_value = "1", value_parser = super::create::parse_compression)]
    compression: Compression,
    #[command(flatten)]
    json: Json,
    /// Read the token for the other repository's server from the first line of FILE. Else it is in DIPTYCH_TO_TOKEN.
    #[arg(long, value_name = "FILE")]
    to_token_file: Option<PathBuf>,
    /// The fingerprint of that server's certificate.
    #[arg(long, value_name = "FINGERPRINT")]
    to_fingerprint: Option<String>,
    #[command(flatten)]
    repository: RepositoryOptions,
    #[command(flatten)]
    filter: FilterOptions,
    #[command(flatten)]
    threads: Threads,
}

pub(super) fn run(arguments: &Arguments, common: &Common) -> Result<Outcome> {
    let terminal = Terminal::new(common, arguments.json.json.then_some(JsonTo::Output));
    let from = arguments.repository.open_to_read(&*terminal)?;
    let other = RepositoryOptions {
        repository: arguments.to.clone(),
        password: PasswordOptions::of_file(arguments.to_password_file.clone(), "DIPTYCH_TO_PASSWORD"),
        remote: arguments.repository.remote.other(
            arguments.to_token_file.clone(),
            arguments.to_fingerprint.clone(),
            "DIPTYCH_TO_TOKEN",
        ),
    };
    let to = other.open(&*terminal)?;
    if from.id() == to.id() {
        return Err(Error::Usage("--to names the repository that is copied from".to_owned()));
    }
    let listed = list(&from, &*terminal)?;
    let mut chosen = named_or_filtered(&listed, &arguments.snapshots, &arguments.filter.filter())?;
    // One that is named is meant.
    chosen.retain(|listed| arguments.partial || !listed.is_partial || !arguments.snapshots.is_empty());
    let interrupt = signals::watch();
    let options = CopyOptions {
        compression: arguments.compression,
        threads: arguments.threads.count_for(&**from.backend()),
        interrupt: &interrupt,
    };
    let losses = Losses::new(&*terminal);
    let report = copy(&from, &to, &listed, &chosen, &options, &losses);
    terminal.finish();
    let report = report?;
    let (mut new, mut there) = (0, 0);
    for (here, copied) in &report.snapshots {
        let (id, word) = match copied {
            Copied::New(id) => (Some(id), "copied"),
            Copied::There(id) => (Some(id), "there"),
            Copied::Damaged => (None, "damaged"),
        };
        new += u64::from(matches!(copied, Copied::New(_)));
        there += u64::from(matches!(copied, Copied::There(_)));
        if let Some(json) = terminal.json() {
            let mut event = Map::new();
            event.insert("event".to_owned(), "copy".into());
            event.insert("snapshot".to_owned(), here.to_string().into());
            event.insert("outcome".to_owned(), word.into());
            if let Some(id) = id {
                event.insert("to".to_owned(), id.to_string().into());
            }
            json.send(&event.into());
        } else if let (Copied::New(id), false) = (copied, common.quiet) {
            output::say(&format!("{} copied, there {}", short(here), short(id)));
        }
    }
    match terminal.json() {
        Some(json) => json.send(&summary_event(
            "copy",
            json!({
                "copied": new,
                "there": there,
                "stored_bytes": report.stored_bytes,
                "stored_chunks": report.stored_chunks,
                "problems": terminal.losses(),
                "seconds": terminal.elapsed().as_secs_f64(),
            }),
        )),
        None if common.quiet => {}
        None => output::say(&format!(
            "{new} copied, {there} there already; {} stored in {} chunks, {:.1} s{}",
            show_size(report.stored_bytes),
            report.stored_chunks,
            terminal.elapsed().as_secs_f64(),
            terminal.problem_count(),
        )),
    }
    Ok(Outcome::of_losses(terminal.losses()))
}
