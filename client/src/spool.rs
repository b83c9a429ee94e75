//! An archive from a pipe: kept on disk in a file without a name until it is extracted, for it is read from its end.

use std::fs::File;
use std::io::{IsTerminal, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, fstatvfs};

use crate::error::{Error, Result};
use crate::open::{duplicate_standard_input, refuse_others};
use crate::size::show_size;

/// How much is copied before the space is looked at again.
const STEP: u64 = 16 << 20;
/// Space that is left for others.
const RESERVE: u64 = 16 << 20;

/// Standard input as a file that can be read at any place: itself if it is one, or a copy in `directory`, which is that
/// of `target` if none is given.
///
/// Nothing is left of the copy whenever the process ends: nobody need wait for input that does not come.
pub fn spooled_input(target: &Path, directory: Option<&Path>) -> Result<File> {
    let input = duplicate_standard_input()?;
    if input.is_terminal() {
        let what = "standard input is a terminal: send an archive to it, or name one";
        return Err(Error::Usage(what.to_owned()));
    }
    let is_file = input.metadata().is_ok_and(|metadata| metadata.is_file());
    // A file that was read in part already does not begin with an archive: what is left of it is copied.
    if is_file && (&input).stream_position().is_ok_and(|position| position == 0) {
        return Ok(input);
    }
    let directory = directory.map_or_else(|| beside(target), Path::to_owned);
    let mut spool = open_nameless(&directory)?;
    spool_from(input, &mut spool, &directory)?;
    Ok(spool)
}

/// The nearest directory above `target` that is there.
fn beside(target: &Path) -> PathBuf {
    let above = target.ancestors().skip(1).find(|directory| directory.is_dir());
    match above {
        Some(directory) if !directory.as_os_str().is_empty() => directory.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn open_nameless(directory: &Path) -> Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    if let Ok(fd) = rustix::fs::open(directory, flags, mode) {
        return Ok(File::from(fd));
    }
    // Not every file system knows files without a name: one with a name that is taken away at once will do.
    let failed = |error| Error::io(directory.display().to_string(), "cannot keep the archive here", error);
    let path = directory.join(format!(".diptych-spool-{}", std::process::id()));
    let file = File::options().read(true).write(true).create_new(true).open(&path).map_err(failed)?;
    std::fs::remove_file(&path).map_err(failed)?;
    Ok(file)
}

fn spool_from(mut input: impl Read, spool: &mut File, directory: &Path) -> Result<()> {
    let place = || directory.display().to_string();
    let mut is_start = true;
    loop {
        check_space(spool, directory)?;
        // One after another, so that what failed is known.
        let mut buffer = Vec::new();
        let read = Read::by_ref(&mut input).take(STEP).read_to_end(&mut buffer);
        read.map_err(|error| Error::io("standard input", "cannot be read", error))?;
        if is_start {
            refuse_others(&buffer, "standard input")?;
            is_start = false;
        }
        if buffer.is_empty() {
            break;
        }
        spool.write_all(&buffer).map_err(|error| Error::io(place(), "cannot keep the archive", error))?;
    }
    spool.seek(SeekFrom::Start(0)).map(drop).map_err(|error| Error::io(place(), "cannot be read", error))
}

/// Fails before the file system is full to the brim.
fn check_space(spool: &File, directory: &Path) -> Result<()> {
    // A file system that does not say how much room it has says so when it is full.
    let Ok(found) = fstatvfs(spool) else { return Ok(()) };
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    if free < STEP + RESERVE {
        let what = format!("only {} are free, and the archive goes on", show_size(free));
        let advice =
            "Choose another place with --spool DIR, or send a tar stream: `diptych export --format tar`.";
        return Err(Error::Failed {
            place: directory.display().to_string(),
            cause: diptych_format::Error::io(what, std::io::Error::from(std::io::ErrorKind::StorageFull)),
            advice: advice.to_owned(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use diptych_format::pack::{PackHolds, encode_header};

    use super::*;

    #[test]
    fn a_pipe_is_kept_whole_and_leaves_no_name() {
        let directory = tempfile::tempdir().unwrap();
        let mut bytes = encode_header(PackHolds::Both).to_vec();
        bytes.extend((0..100_000u32).flat_map(u32::to_le_bytes));
        let mut spool = open_nameless(directory.path()).unwrap();
        spool_from(&bytes[..], &mut spool, directory.path()).unwrap();
        let mut read = Vec::new();
        spool.read_to_end(&mut read).unwrap();
        assert_eq!(read, bytes);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_cannot_be_extracted_is_refused_at_its_start() {
        let directory = tempfile::tempdir().unwrap();
        let refused = |input: &mut dyn Read| {
            let mut spool = open_nameless(directory.path()).unwrap();
            spool_from(input, &mut spool, directory.path()).unwrap_err().to_string()
        };
        // Neither of these inputs has an end.
        let data_file = encode_header(PackHolds::Payload);
        assert!(refused(&mut data_file.chain(std::io::repeat(1))).contains("the contents alone"));
        assert!(refused(&mut std::io::repeat(1)).contains("no archive"));
    }

    #[test]
    fn the_place_is_the_nearest_directory_there_is() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(beside(&directory.path().join("a/b/c")), directory.path());
        assert_eq!(beside(Path::new("here")), Path::new("."));
    }
}
