//! `diptych create`.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::archive_path::ArchivePath;
use crate::create::{CreateOptions, Destination, MEMORY_MIN, create};
use crate::error::{Error, Result};
use crate::size::{parse_size, show_size};
use diptych_repository::chunk::Compression;

use super::json::{JsonTo, summary_event};
use super::options::{Common, Json, SelectionOptions, Threads};
use super::outcome::Outcome;
use super::output;
use super::signals;
use super::terminal::Terminal;

/// Make an archive of a directory.
///
/// Writes ARCHIVE.meta.dpt and ARCHIVE.data.dpt; they appear under these names when they are whole. With `-` one file
/// that holds both streams goes to standard output. What cannot be read is named, recorded in the archive, and makes
/// the exit code 3.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  diptych create /backup/home /home
  diptych create --exclude '*.o' --exclude-caches -x /backup/root /
  diptych create - /srv | ssh host 'cat > srv.dpt'")]
pub struct Arguments {
    /// The archive to make: NAME for NAME.meta.dpt and NAME.data.dpt, or `-` for standard output.
    #[arg(value_name = "ARCHIVE")]
    archive: PathBuf,
    /// The directory whose tree is archived.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// How hard to compress: 1 (fast) to 19 (small), or `none`.
    #[arg(long, value_name = "LEVEL", default_value = "1", value_parser = parse_compression)]
    compression: Compression,
    /// Replace archive files that are there already.
    #[arg(long)]
    force: bool,
    /// Fail at the first entry that cannot be archived whole, and leave no archive.
    #[arg(long)]
    strict: bool,
    /// Memory for contents on their way and for finding equal contents, such as 200M or 2G.
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = parse_memory)]
    max_memory: u64,
    #[command(flatten)]
    json: Json,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    selection: SelectionOptions,
}

pub(super) fn parse_compression(text: &str) -> Result<Compression, String> {
    if text == "none" {
        return Ok(Compression::None);
    }
    match text.parse() {
        Ok(level @ 1..=19) => Ok(Compression::Zstd(level)),
        _ => Err("write a level from 1 to 19, or none".to_owned()),
    }
}

pub(super) fn parse_memory(text: &str) -> Result<u64, String> {
    match parse_size(text)? {
        memory if memory < MEMORY_MIN => Err(format!("at least {} are needed", show_size(MEMORY_MIN))),
        memory => Ok(memory),
    }
}

pub(super) fn run(arguments: &Arguments, common: &Common) -> Result<Outcome> {
    let path = ArchivePath::for_writing(&arguments.archive);
    let is_stdout = path == ArchivePath::Standard;
    let destination = match &path {
        ArchivePath::Standard => {
            refuse_terminal()?;
            Destination::Stdout
        }
        _ if has_no_name(&arguments.archive) => {
            let what =
                format!("{} is a directory: give the archive a name in it", arguments.archive.display());
            return Err(Error::Usage(what));
        }
        _ => Destination::Pair {
            metadata: path.metadata_file(),
            payload: path.data_file(),
            is_replacing: arguments.force,
        },
    };
    let to = if is_stdout { JsonTo::Error } else { JsonTo::Output };
    let terminal = Terminal::new(common, arguments.json.json.then_some(to));
    let options = CreateOptions {
        destination,
        root: arguments.directory.clone(),
        selection: arguments.selection.selection()?,
        compression: arguments.compression,
        threads: arguments.threads.count(),
        max_memory: arguments.max_memory,
        is_strict: arguments.strict,
        interrupt: signals::watch(),
    };
    let report = create(options, terminal.clone());
    terminal.finish();
    let report = report?;
    let stored = report.stored_metadata_bytes + report.stored_payload_bytes;
    match terminal.json() {
        Some(json) => json.send(&summary_event(
            "create",
            json!({
                "tree_id": report.tree_id.to_string(),
                "complete": report.is_complete,
                "entries": report.entries,
                "content_bytes": report.content_bytes,
                "payload_bytes": report.payload_bytes,
                "metadata_bytes": report.metadata_bytes,
                "stored_payload_bytes": report.stored_payload_bytes,
                "stored_metadata_bytes": report.stored_metadata_bytes,
                "problems": terminal.losses(),
                "seconds": terminal.elapsed().as_secs_f64(),
            }),
        )),
        None if common.quiet => {}
        None => {
            let seconds = terminal.elapsed().as_secs_f64();
            output::say(&format!(
                "{} entries, {} in contents, stored in {} ({} of it metadata) in {seconds:.1} s{}",
                report.entries,
                show_size(report.content_bytes),
                show_size(stored),
                show_size(report.stored_metadata_bytes),
                terminal.problem_count(),
            ));
            output::say(&format!(
                "tree id {}{}",
                report.tree_id,
                if report.is_complete { "" } else { "  incomplete" }
            ));
        }
    }
    Ok(if report.is_complete { Outcome::of_losses(terminal.losses()) } else { Outcome::WithLosses })
}

/// Whether the path ends with no name that the names of files could be made from.
fn has_no_name(path: &Path) -> bool {
    let last = path.as_os_str().as_bytes().rsplit(|byte| *byte == b'/').next();
    matches!(last, None | Some(b"" | b"." | b".."))
}

/// Bytes of an archive would do a terminal no good.
fn refuse_terminal() -> Result<()> {
    if output::is_terminal() {
        let what = "an archive is not written to a terminal: send standard output to a file or a pipe";
        return Err(Error::Usage(what.to_owned()));
    }
    Ok(())
}
