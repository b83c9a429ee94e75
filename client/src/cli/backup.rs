//! `diptych backup`.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use crate::backup::{
    BackupOptions, BackupReport, BaseChoice, Identity, Input, Source, What, backup, host_name, source,
    user_name,
};
use crate::error::{Error, Result};
use crate::names;
use crate::reuse::Reason;
use crate::size::show_size;
use crate::snapshots::short;
use diptych_repository::chunk::Compression;

use super::init::{NewOptions, make};
use super::json::{JsonTo, summary_event};
use super::options::{Common, Json, SelectionOptions, Threads};
use super::outcome::Outcome;
use super::output;
use super::repository::RepositoryOptions;
use super::signals;
use super::terminal::Terminal;

/// Back directories up into a repository.
///
/// Each PATH becomes an archive of one snapshot. What has not changed since the last snapshot of the same host and paths
/// is neither read nor stored again. The repository itself is left out if it lies below a PATH. What cannot be read is named, recorded in the snapshot, and makes the exit code 3.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  diptych backup -r /backup/repo --init /home
  diptych backup -r /backup/repo --tag daily --exclude '*.o' /home /etc
  diptych backup -r /backup/repo --command db.sql -- pg_dump mydb")]
pub struct Arguments {
    /// The directories; with --command, the command and its arguments.
    #[arg(value_name = "PATH", required_unless_present = "stdin")]
    paths: Vec<PathBuf>,
    /// Back standard input up, as a file called NAME.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["paths", "command", "name"])]
    stdin: Option<String>,
    /// Back up what a command prints, as a file called NAME; the command stands behind --. If it fails, the run does.
    #[arg(long, value_name = "NAME", conflicts_with = "name")]
    command: Option<String>,
    /// Make the repository if there is none.
    #[arg(long)]
    init: bool,
    /// Mark the snapshot with TAG. May be repeated.
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// Say that this is HOST; by default the machine's name.
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// Call the archive NAME; by default the path.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Compare with SNAPSHOT, or with `none`; by default with the newest of the same host and paths.
    #[arg(long, value_name = "SNAPSHOT")]
    base: Option<String>,
    /// Read every file, whatever has changed.
    #[arg(long, conflicts_with = "base")]
    force: bool,
    /// Do not compare when inodes changed last.
    #[arg(long)]
    ignore_ctime: bool,
    /// Do not compare inode numbers, which some file systems make up anew at every mount.
    #[arg(long)]
    ignore_inode: bool,
    /// Use a stored chunk on while this part of it, in percent, is still needed; below, what is needed is stored anew.
    #[arg(long, value_name = "PERCENT", default_value_t = crate::reuse::MIN_LIVE,
        value_parser = clap::value_parser!(u8).range(0..=100))]
    min_live: u8,
    /// Read this part of what counts as unchanged all the same, in percent, another one in each run; 0 for none. Whole
    /// chunks are taken, so that of a small tree it may be none or more.
    #[arg(long, value_name = "PERCENT", default_value_t = 0.5, value_parser = parse_percent)]
    sample: f64,
    /// Make a partial snapshot every so many seconds, from which an interrupted run goes on.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    checkpoint: u64,
    /// Name each entry that is read though there is a snapshot to compare with, and why.
    #[arg(long, help_heading = "Output")]
    why: bool,
    /// Store nothing: say what would be.
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// How hard to compress: 1 (fast) to 19 (small), or `none`.
    #[arg(long, value_name = "LEVEL", default_value = "1", value_parser = super::create::parse_compression)]
    compression: Compression,
    /// Fail at the first thing that cannot be read, and make no snapshot.
    #[arg(long)]
    strict: bool,
    /// Memory for contents on their way and for finding equal contents, such as 200M or 2G.
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = super::create::parse_memory)]
    max_memory: u64,
    #[command(flatten)]
    json: Json,
    #[command(flatten)]
    repository: RepositoryOptions,
    #[command(flatten)]
    new: NewOptions,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    selection: SelectionOptions,
}

fn parse_percent(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent),
        _ => Err("write a part in percent, from 0 to 100".to_owned()),
    }
}

pub(super) fn run(arguments: &Arguments, common: &Common) -> Result<Outcome> {
    let sources = sources(arguments)?;
    let terminal = Terminal::new(common, arguments.json.json.then_some(JsonTo::Output));
    if arguments.why {
        terminal.tell_why();
    }
    let base = match arguments.base.as_deref() {
        _ if arguments.force => BaseChoice::None,
        None => BaseChoice::Newest,
        Some("none") => BaseChoice::None,
        Some(snapshot) => BaseChoice::Snapshot(snapshot.to_owned()),
    };
    let options = BackupOptions {
        sources,
        selection: arguments.selection.selection()?,
        identity: Identity {
            host: arguments.host.clone().unwrap_or_else(host_name),
            user: user_name(),
            tags: arguments.tag.clone(),
            time: Timestamp::now(),
        },
        base,
        compares_ctime: !arguments.ignore_ctime,
        compares_inode: !arguments.ignore_inode,
        min_live: arguments.min_live,
        sample_one_in: if arguments.sample > 0.0 { (100.0 / arguments.sample).round() as u64 } else { 0 },
        checkpoint_every: Duration::from_secs(arguments.checkpoint),
        compression: arguments.compression,
        threads: arguments.threads.count(),
        max_memory: arguments.max_memory,
        is_strict: arguments.strict,
        is_dry_run: arguments.dry_run,
        interrupt: signals::watch(),
    };
    let repository = match arguments.repository.open(&*terminal) {
        Err(Error::NoRepository(location)) if arguments.init && arguments.dry_run => {
            let what = format!(
                "{location}: there is no repository yet, and --dry-run makes none: run `diptych init` first, or leave \
                    --dry-run out"
            );
            return Err(Error::Usage(what));
        }
        Err(Error::NoRepository(_)) if arguments.init => make(&arguments.repository, &arguments.new)?,
        other => other?,
    };
    let report = backup(&repository, &options, terminal.clone());
    terminal.finish();
    let report = report?;
    match terminal.json() {
        Some(json) => json.send(&summary_event("backup", summary(&report, terminal.elapsed().as_secs_f64()))),
        None if common.quiet => {}
        None => say(&report, &terminal),
    }
    // Damage of the repository is not in the report, which is about the trees.
    Ok(Outcome::of_losses(report.losses.max(terminal.losses())))
}

fn sources(arguments: &Arguments) -> Result<Vec<Source>> {
    if arguments.host.as_deref() == Some("") || arguments.tag.iter().any(String::is_empty) {
        return Err(Error::Usage("--host and --tag want a word".to_owned()));
    }
    if let Some(name) = arguments.stdin.as_ref().or(arguments.command.as_ref())
        && diptych_format::Name::try_new(name.as_bytes()).is_err()
    {
        return Err(Error::Usage(format!(
            "{name:?} is no name of a file: it has no slash, and is not . or .."
        )));
    }
    let stream =
        |name: &str, input| vec![Source { name: name.as_bytes().to_vec(), what: What::Stream(input) }];
    if let Some(name) = &arguments.stdin {
        return Ok(stream(name, Input::Stdin));
    }
    if let Some(name) = &arguments.command {
        let words = arguments.paths.iter().map(|word| word.clone().into_os_string()).collect();
        return Ok(stream(name, Input::Command(words)));
    }
    if arguments.name.is_some() && arguments.paths.len() > 1 {
        return Err(Error::Usage(
            "--name is for one PATH: each archive of a snapshot has its own".to_owned(),
        ));
    }
    let mut sources: Vec<Source> = Vec::new();
    for path in &arguments.paths {
        let source = source(path, arguments.name.as_deref())?;
        if sources.iter().any(|other| other.what == source.what) {
            return Err(Error::Usage(format!("{} is given twice", path.display())));
        }
        sources.push(source);
    }
    Ok(sources)
}

fn summary(report: &BackupReport, seconds: f64) -> serde_json::Value {
    let archives: Vec<serde_json::Value> = report
        .archives
        .iter()
        .map(|archive| {
            let read: serde_json::Map<String, serde_json::Value> = Reason::ALL
                .into_iter()
                .zip(archive.counts.read)
                .filter(|(_, (files, _))| *files > 0)
                .map(|(reason, (files, bytes))| {
                    (reason.word().to_owned(), json!({ "entries": files, "bytes": bytes }))
                })
                .collect();
            json!({
                "name": names::show(&archive.name),
                "tree_id": archive.tree_id.to_string(),
                "complete": archive.is_complete,
                "entries": archive.entries,
                "content_bytes": archive.content_bytes,
                "reused": { "entries": archive.counts.reused, "bytes": archive.counts.reused_bytes },
                "deduplicated": { "entries": archive.counts.deduplicated.0, "bytes": archive.counts.deduplicated.1 },
                "read": read,
            })
        })
        .collect();
    json!({
        "snapshot": report.snapshot.map(|id| id.to_string()),
        "base": report.base.map(|id| id.to_string()),
        "archives": archives,
        "stored_bytes": report.stored_bytes,
        "stored_chunks": report.stored_chunks,
        "problems": report.losses,
        "seconds": seconds,
    })
}

fn say(report: &BackupReport, terminal: &Terminal) {
    for archive in &report.archives {
        let counts = &archive.counts;
        let (files, bytes) =
            counts.read.iter().fold((0, 0), |(files, bytes), (more, sum)| (files + more, bytes + sum));
        output::say(&format!(
            "{}: {} entries, {} in contents; read {files} ({}), reused {} ({})",
            names::show(&archive.name),
            archive.entries,
            show_size(archive.content_bytes),
            show_size(bytes),
            counts.reused,
            show_size(counts.reused_bytes),
        ));
        let why: Vec<String> = Reason::ALL
            .into_iter()
            .zip(counts.read)
            .filter(|(reason, (files, _))| *files > 0 && *reason != Reason::NoBase)
            .map(|(reason, (files, bytes))| format!("{} {files} ({})", reason.word(), show_size(bytes)))
            .collect();
        if !why.is_empty() {
            output::say(&format!("  read because of: {}", why.join(", ")));
        }
        let (files, bytes) = counts.deduplicated;
        if files > 0 {
            output::say(&format!("  stored already: {files} ({}) of what was read", show_size(bytes)));
        }
        output::say(&format!(
            "  tree id {}{}",
            archive.tree_id,
            if archive.is_complete { "" } else { "  incomplete" }
        ));
    }
    let seconds = terminal.elapsed().as_secs_f64();
    let what = report.snapshot.map_or_else(|| "dry run".to_owned(), |id| format!("snapshot {}", short(&id)));
    let base = report.base.map_or_else(String::new, |id| format!(", compared with {}", short(&id)));
    output::say(&format!(
        "{what}{base}: {} stored in {} chunks, {seconds:.1} s{}",
        show_size(report.stored_bytes),
        report.stored_chunks,
        terminal.problem_count(),
    ));
}
