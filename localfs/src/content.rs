//! Contents: the bytes of a file from its start to the size that the scan saw, as runs of data and holes.
//!
//! What cannot be read becomes holes too, so that all the rest of the file is kept.

use std::os::fd::OwnedFd;

use diptych_format::limits::HOLES_MAX;
use diptych_format::{Hole, Status};
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use crate::facts::{retry, words};
use crate::syscalls;

/// What is given up at a time where reading fails: the unit in which file systems and page caches fail.
const BLOCK: u64 = 4096;
/// Unreadable runs, and failed readings, after which the rest of a content counts as unreadable: a dying disk
/// may take seconds for each.
const BAD_RUNS_MAX: usize = 64;
const BAD_READS_MAX: usize = 1024;
/// Holes that are looked for, with room for those that unreadable runs make.
const SOUGHT_HOLES_MAX: usize = HOLES_MAX - 2 * BAD_RUNS_MAX;

/// What one reading of a content gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// So many bytes of data were appended.
    Data(usize),
    /// So many bytes are zeros that no one has written, or cannot be read.
    Hole(u64),
    /// The content is complete.
    End,
}

/// Where bytes come from: a file, or what a test makes of it.
pub(crate) trait Source {
    fn read_at(&self, buf: &mut Vec<u8>, most: usize, offset: u64) -> Result<usize, Errno>;
    fn next_data(&self, offset: u64) -> Result<u64, Errno>;
    fn next_hole(&self, offset: u64) -> Result<u64, Errno>;
}

impl Source for OwnedFd {
    fn read_at(&self, buf: &mut Vec<u8>, most: usize, offset: u64) -> Result<usize, Errno> {
        syscalls::read_at(self, buf, most, offset)
    }

    fn next_data(&self, offset: u64) -> Result<u64, Errno> {
        seek(self, SeekFrom::Data(offset))
    }

    fn next_hole(&self, offset: u64) -> Result<u64, Errno> {
        seek(self, SeekFrom::Hole(offset))
    }
}

/// A content that is being read.
pub(crate) struct Runs<S> {
    pub source: S,
    /// Where the content ends: at the scan's size, or before if it turned out shorter.
    size: u64,
    at: u64,
    /// Where the run of data ends that `at` is in.
    run_end: u64,
    /// Where data is known to begin: the end of the last hole.
    data_at: Option<u64>,
    seeks_holes: bool,
    /// Up to here a block at a time is read, because a larger reading has failed.
    careful_until: u64,
    /// An unreadable run at `at` that was found behind data and is to be told next.
    bad_until: Option<u64>,
    bad: Bad,
    holes: Vec<Hole>,
    /// Whether the content ended before the scan's size.
    is_short: bool,
}

/// What could not be read.
#[derive(Default)]
struct Bad {
    bytes: u64,
    runs: usize,
    reads: usize,
    first: u64,
    end: u64,
    error: Option<Errno>,
}

impl<S: Source> Runs<S> {
    /// A content of `size` bytes; `is_sparse` says whether holes are looked for.
    pub fn new(source: S, size: u64, is_sparse: bool) -> Self {
        Self {
            source,
            size,
            at: 0,
            run_end: if is_sparse { 0 } else { size },
            data_at: None,
            seeks_holes: is_sparse,
            careful_until: 0,
            bad_until: None,
            bad: Bad::default(),
            holes: Vec::new(),
            is_short: false,
        }
    }

    /// How far it has been read: its size at the end.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// The holes so far, ascending and never touching.
    pub fn into_holes(self) -> Vec<Hole> {
        self.holes
    }

    /// What the reading alone says of how whole the content is.
    pub fn status(&self) -> Status {
        let changed = if self.is_short { Status::CHANGED } else { Status::COMPLETE };
        let bad = if self.bad.bytes > 0 { Status::PARTLY_UNREADABLE } else { Status::COMPLETE };
        changed.with(bad)
    }

    /// What could not be read, in words.
    pub fn complaint(&self) -> Option<String> {
        let Bad { bytes, runs, first, end, error, .. } = &self.bad;
        let error = words((*error)?);
        let places = match runs {
            0 | 1 => format!("from offset {first}"),
            runs => format!("in {runs} places between offsets {first} and {end}"),
        };
        Some(format!("{bytes} bytes cannot be read and stand as zeros, {places}: {error}"))
    }

    /// Appends up to `most` bytes of data, or tells of a run that is not data.
    pub fn read(&mut self, buf: &mut Vec<u8>, most: usize) -> Part {
        loop {
            if self.at >= self.size {
                return Part::End;
            }
            if let Some(end) = self.bad_until.take() {
                return self.hole(end);
            }
            if self.at >= self.run_end
                && let Some(end) = self.find_run()
            {
                self.data_at = Some(end);
                return self.hole(end);
            }
            if self.at < self.careful_until {
                return self.read_blocks(buf, most.max(1));
            }
            let length = self.run_end.saturating_sub(self.at).min(most.max(1) as u64);
            match self.read_once(buf, length) {
                Ok(0) => return self.end_short(),
                Ok(count) => return Part::Data(count),
                Err(error) if is_local(error) => self.careful_until = self.at.saturating_add(length),
                Err(error) => {
                    self.note_bad(self.size, error);
                    return self.hole(self.size);
                }
            }
        }
    }

    /// Looks where the next run of data ends, or tells where a hole at the current place does.
    fn find_run(&mut self) -> Option<u64> {
        if self.seeks_holes && self.holes.len() < SOUGHT_HOLES_MAX {
            let data =
                if self.data_at == Some(self.at) { Ok(self.at) } else { self.source.next_data(self.at) };
            match data {
                Ok(data) if data > self.at => return Some(data.min(self.size)),
                Err(Errno::NXIO) => return Some(self.size),
                Ok(_) => match self.source.next_hole(self.at) {
                    Ok(hole) if hole > self.at => {
                        self.run_end = hole.min(self.size);
                        return None;
                    }
                    _ => self.seeks_holes = false,
                },
                Err(_) => self.seeks_holes = false,
            }
        }
        // The file system does not tell, or there are too many: zeros are read like other data.
        self.run_end = self.size;
        None
    }

    /// Reads block by block where a larger reading has failed.
    fn read_blocks(&mut self, buf: &mut Vec<u8>, most: usize) -> Part {
        let mut gathered = 0;
        while gathered < most && self.at < self.careful_until.min(self.run_end) {
            let block_end = (self.at / BLOCK).saturating_add(1).saturating_mul(BLOCK).min(self.run_end);
            let length = (block_end - self.at).min((most - gathered) as u64);
            match self.read_once(buf, length) {
                Ok(0) if gathered == 0 => return self.end_short(),
                Ok(0) => break,
                Ok(count) => gathered += count,
                Err(error) => {
                    let end = self.note_bad(if is_local(error) { block_end } else { self.size }, error);
                    if gathered == 0 {
                        return self.hole(end);
                    }
                    self.bad_until = Some(end);
                    break;
                }
            }
        }
        Part::Data(gathered)
    }

    fn read_once(&mut self, buf: &mut Vec<u8>, length: u64) -> Result<usize, Errno> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let count = retry(|| match self.source.read_at(buf, length, self.at) {
            // A directory or a pipe has taken the file's place: it has none of these bytes.
            Err(Errno::ISDIR | Errno::AGAIN | Errno::SPIPE) => Ok(0),
            other => other,
        })?;
        self.at += count as u64;
        Ok(count)
    }

    /// Notes that nothing can be read up to `end`, and says where the next try is worth while.
    fn note_bad(&mut self, end: u64, error: Errno) -> u64 {
        let bad = &mut self.bad;
        if bad.error.is_none() {
            bad.first = self.at;
        }
        if bad.error.is_none() || bad.end != self.at {
            bad.runs += 1;
        }
        bad.reads += 1;
        let gives_up = bad.runs > BAD_RUNS_MAX || bad.reads > BAD_READS_MAX;
        let end = if gives_up { self.size } else { end };
        bad.bytes += end - self.at;
        bad.end = end;
        bad.error.get_or_insert(error);
        end
    }

    fn hole(&mut self, end: u64) -> Part {
        let (start, length) = (self.at, end.saturating_sub(self.at));
        match self.holes.last_mut() {
            Some(last) if last.start + last.length == start => last.length += length,
            _ => self.holes.push(Hole { start, length }),
        }
        self.at = end;
        Part::Hole(length)
    }

    fn end_short(&mut self) -> Part {
        self.size = self.at;
        self.is_short = true;
        Part::End
    }
}

/// Whether an error may concern one block and spare its neighbours.
fn is_local(error: Errno) -> bool {
    const LOCAL: [Errno; 7] = [
        Errno::IO,
        Errno::BADMSG,
        Errno::UCLEAN,
        Errno::NODATA,
        Errno::REMOTEIO,
        Errno::ILSEQ,
        Errno::TIMEDOUT,
    ];
    LOCAL.contains(&error)
}

#[cfg(test)]
#[path = "content_tests.rs"]
mod tests;
