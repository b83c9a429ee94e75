//! The names of one directory in ascending order, in little memory: what does not fit goes to an unlinked file in
//! sorted runs, which are merged while they are read.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FileType, Mode, OFlags};

/// Names that are kept in memory before they go to disk: some 40 MB.
pub(crate) const RUN_NAMES: usize = 1 << 20;
/// Bytes of names that are kept in memory, so that offsets fit 32 bits.
const RUN_BYTES: usize = 1 << 30;
/// What is read of a run at a time.
const WINDOW: usize = 64 << 10;
/// Length, kind and inode in front of each name in a run.
const HEADER: usize = 11;

/// What listing a directory says of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub name: Box<[u8]>,
    pub file_type: FileType,
    pub inode: u64,
}

/// Where a name lies in the bytes of all.
#[derive(Clone, Copy, Debug)]
struct Row {
    offset: u32,
    length: u16,
    file_type: u8,
    inode: u64,
}

/// Names that are collected in any order.
pub(crate) struct Collector {
    bytes: Vec<u8>,
    rows: Vec<Row>,
    run_names: usize,
    spill: Option<Spill>,
    count: usize,
}

/// The runs that have been written.
struct Spill {
    file: Arc<File>,
    length: u64,
    runs: Vec<(u64, u64)>,
}

impl Collector {
    /// Keeps `run_names` names in memory at most.
    pub fn new(run_names: usize) -> Self {
        Self { bytes: Vec::new(), rows: Vec::new(), run_names, spill: None, count: 0 }
    }

    /// How many names were taken.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Takes a name.
    pub fn push(&mut self, name: &[u8], file_type: FileType, inode: u64) {
        if self.rows.len() >= self.run_names || self.bytes.len() >= RUN_BYTES {
            self.spill();
        }
        // The kernel's names end at 255 bytes, and a run's bytes at RUN_BYTES and one name.
        let (Ok(offset), Ok(length)) = (u32::try_from(self.bytes.len()), u16::try_from(name.len())) else {
            return;
        };
        self.bytes.extend_from_slice(name);
        self.rows.push(Row { offset, length, file_type: type_code(file_type), inode });
        self.count += 1;
    }

    /// Writes what is in memory as a run. Where that fails, memory has to do.
    fn spill(&mut self) {
        sort(&mut self.rows, &self.bytes);
        let written = match &mut self.spill {
            Some(spill) => spill.write(&self.rows, &self.bytes),
            None => Spill::create().and_then(|mut spill| {
                spill.write(&self.rows, &self.bytes)?;
                self.spill = Some(spill);
                Ok(())
            }),
        };
        match written {
            Ok(()) => {
                self.rows.clear();
                self.bytes.clear();
            }
            Err(_) => self.run_names = self.run_names.saturating_mul(2),
        }
    }

    /// The names in order.
    pub fn finish(mut self) -> io::Result<Names> {
        sort(&mut self.rows, &self.bytes);
        self.rows.shrink_to_fit();
        let memory = Memory { bytes: self.bytes, rows: self.rows, next: 0 };
        let merge = self.spill.as_ref().map(Merge::open).transpose()?;
        Ok(Names { memory, merge, left: self.count })
    }
}

fn sort(rows: &mut [Row], bytes: &[u8]) {
    rows.sort_unstable_by(|a, b| name_of(*a, bytes).cmp(name_of(*b, bytes)));
}

fn name_of(row: Row, bytes: &[u8]) -> &[u8] {
    let start = row.offset as usize;
    bytes.get(start..start + usize::from(row.length)).unwrap_or_default()
}

fn type_code(file_type: FileType) -> u8 {
    // The type bits of a mode are its four highest: they fit a byte without the twelve below them.
    (file_type.as_raw_mode() >> 12) as u8
}

fn type_of(code: u8) -> FileType {
    FileType::from_raw_mode(u32::from(code) << 12)
}

impl Spill {
    fn create() -> io::Result<Self> {
        Ok(Self { file: Arc::new(unlinked_file(&std::env::temp_dir())?), length: 0, runs: Vec::new() })
    }

    /// Writes a sorted run behind the others.
    fn write(&mut self, rows: &[Row], bytes: &[u8]) -> io::Result<()> {
        let start = self.length;
        let mut at = start;
        let mut window = Vec::with_capacity(WINDOW + HEADER + usize::from(u16::MAX));
        for row in rows {
            window.extend_from_slice(&row.length.to_le_bytes());
            window.push(row.file_type);
            window.extend_from_slice(&row.inode.to_le_bytes());
            window.extend_from_slice(name_of(*row, bytes));
            if window.len() >= WINDOW {
                self.file.write_all_at(&window, at)?;
                at += window.len() as u64;
                window.clear();
            }
        }
        self.file.write_all_at(&window, at)?;
        self.length = at + window.len() as u64;
        self.runs.push((start, self.length));
        Ok(())
    }
}

/// A file without a name, so that it is gone with its last descriptor, however the process ends.
fn unlinked_file(directory: &Path) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR)?))
}

/// The names of a directory in ascending order, each once.
pub(crate) struct Names {
    memory: Memory,
    merge: Option<Merge>,
    left: usize,
}

/// The names that are in memory.
struct Memory {
    bytes: Vec<u8>,
    rows: Vec<Row>,
    next: usize,
}

impl Memory {
    fn peek(&self) -> Option<&[u8]> {
        self.rows.get(self.next).map(|row| name_of(*row, &self.bytes))
    }

    fn take(&mut self) -> Option<Listed> {
        let row = *self.rows.get(self.next)?;
        self.next += 1;
        let name = name_of(row, &self.bytes).into();
        Some(Listed { name, file_type: type_of(row.file_type), inode: row.inode })
    }
}

impl Names {
    /// How many names are still to come, repeated ones included.
    pub fn left(&self) -> usize {
        self.left
    }

    /// The next name in order. A directory that changes while it is listed may give a name twice; here the last
    /// of equal ones stands for all.
    pub fn next(&mut self) -> io::Result<Option<Listed>> {
        while let Some(listed) = self.next_of_both()? {
            self.left = self.left.saturating_sub(1);
            let spilled = self.merge.as_ref().and_then(Merge::peek);
            if self.memory.peek() != Some(&*listed.name) && spilled != Some(&*listed.name) {
                return Ok(Some(listed));
            }
        }
        Ok(None)
    }

    fn next_of_both(&mut self) -> io::Result<Option<Listed>> {
        let Some(merge) = &mut self.merge else { return Ok(self.memory.take()) };
        match (merge.peek(), self.memory.peek()) {
            (Some(spilled), Some(kept)) if spilled <= kept => merge.take(),
            (Some(_), None) => merge.take(),
            _ => Ok(self.memory.take()),
        }
    }
}

/// Runs on disk, merged: the run whose next name is least is on top.
struct Merge(BinaryHeap<Run>);

impl Merge {
    fn open(spill: &Spill) -> io::Result<Self> {
        let mut runs = BinaryHeap::with_capacity(spill.runs.len());
        for &(start, end) in &spill.runs {
            let mut run = Run {
                file: Arc::clone(&spill.file),
                at: start,
                end,
                window: Vec::new(),
                used: 0,
                head: None,
            };
            run.advance()?;
            runs.push(run);
        }
        Ok(Self(runs))
    }

    fn peek(&self) -> Option<&[u8]> {
        self.0.peek().and_then(|run| run.head.as_ref()).map(|head| &*head.name)
    }

    fn take(&mut self) -> io::Result<Option<Listed>> {
        let Some(mut run) = self.0.peek_mut() else { return Ok(None) };
        let head = run.head.take();
        run.advance()?;
        Ok(head)
    }
}

/// One run, read from its start to its end.
struct Run {
    file: Arc<File>,
    at: u64,
    end: u64,
    window: Vec<u8>,
    used: usize,
    head: Option<Listed>,
}

impl Run {
    /// Reads the next name into `head`, or leaves none there at the end.
    fn advance(&mut self) -> io::Result<()> {
        self.head = None;
        if self.at == self.end && self.used == self.window.len() {
            return Ok(());
        }
        let header: [u8; HEADER] =
            self.bytes(HEADER)?.try_into().map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let [l0, l1, file_type, inode @ ..] = header;
        let name = self.bytes(usize::from(u16::from_le_bytes([l0, l1])))?.into();
        let inode = u64::from_le_bytes(inode);
        self.head = Some(Listed { name, file_type: type_of(file_type), inode });
        Ok(())
    }

    /// The next bytes, with more read where the window ends.
    fn bytes(&mut self, count: usize) -> io::Result<&[u8]> {
        if self.window.len() - self.used < count {
            self.window.drain(..self.used);
            self.used = 0;
            let kept = self.window.len();
            let more = usize::try_from(self.end - self.at).unwrap_or(WINDOW).min(WINDOW);
            self.window.resize(kept + more, 0);
            self.file.read_exact_at(self.window.get_mut(kept..).unwrap_or_default(), self.at)?;
            self.at += more as u64;
        }
        let bytes = self.window.get(self.used..self.used + count);
        self.used += count;
        bytes.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

impl Ord for Run {
    /// Reversed, because a heap has its greatest on top; a run at its end is the least of all.
    fn cmp(&self, other: &Self) -> Ordering {
        match (&self.head, &other.head) {
            (Some(a), Some(b)) => b.name.cmp(&a.name),
            (a, b) => a.is_some().cmp(&b.is_some()),
        }
    }
}

impl PartialOrd for Run {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Run {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Run {}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(names: &[&str], run_names: usize) -> Vec<String> {
        let mut collector = Collector::new(run_names);
        for (name, inode) in names.iter().zip(1..) {
            collector.push(name.as_bytes(), FileType::Fifo, inode);
        }
        let mut sorted = collector.finish().unwrap();
        assert_eq!(sorted.left(), names.len());
        let mut out = Vec::new();
        while let Some(listed) = sorted.next().unwrap() {
            assert_eq!(listed.file_type, FileType::Fifo);
            assert_eq!(names[listed.inode as usize - 1].as_bytes(), &*listed.name);
            out.push(String::from_utf8(listed.name.into()).unwrap());
        }
        assert_eq!(sorted.left(), 0);
        out
    }

    #[test]
    fn memory_and_runs_give_the_same_order() {
        // Steps through all residues, so that the names come mixed; long ones cross the windows.
        let names: Vec<String> = (0..20_000u64)
            .map(|i| format!("{:05}{}", i * 7919 % 20_000, "x".repeat(i as usize % 40)))
            .collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let plain = sorted(&names, usize::MAX);
        assert!(plain.is_sorted() && plain.len() == 20_000);
        assert_eq!(sorted(&names, 700), plain);
        assert_eq!(sorted(&names, 20_000), plain);
        assert_eq!(sorted(&names, 10_000), plain);
    }

    #[test]
    fn a_name_that_is_listed_twice_is_given_once() {
        for run_names in [1, 2, 3, 100] {
            assert_eq!(sorted(&["b", "a", "b", "c", "b", "a"], run_names), ["a", "b", "c"], "{run_names}");
        }
    }

    #[test]
    fn no_names() {
        assert!(sorted(&[], 10).is_empty());
    }
}
