//! Tests of contents on sources that fail, shrink and have holes where they are told to.

use std::cell::Cell;

use diptych_format::entry::validate_holes;

use super::*;

/// A file that is made up: bytes, holes, and places that cannot be read.
struct Fake {
    bytes: Vec<u8>,
    holes: Vec<(u64, u64)>,
    bad: Vec<(u64, u64)>,
    error: Errno,
    /// What the file system says when it is asked for holes.
    seek_error: Option<Errno>,
    reads: Cell<usize>,
    interrupts: Cell<usize>,
}

impl Fake {
    fn new(size: usize) -> Self {
        let bytes = (0..size).map(|i| (i % 251) as u8 + 1).collect();
        let (holes, bad, seek_error) = (Vec::new(), Vec::new(), None);
        Self {
            bytes,
            holes,
            bad,
            error: Errno::IO,
            seek_error,
            reads: Cell::new(0),
            interrupts: Cell::new(0),
        }
    }

    fn with_hole(mut self, start: u64, length: u64) -> Self {
        self.bytes[start as usize..(start + length) as usize].fill(0);
        self.holes.push((start, start + length));
        self
    }

    fn with_bad(mut self, start: u64, length: u64) -> Self {
        self.bad.push((start, start + length));
        self
    }
}

impl Source for Fake {
    fn read_at(&self, buf: &mut Vec<u8>, most: usize, offset: u64) -> Result<usize, Errno> {
        self.reads.set(self.reads.get() + 1);
        if self.interrupts.get() > 0 {
            self.interrupts.set(self.interrupts.get() - 1);
            return Err(Errno::INTR);
        }
        let end = (offset + most as u64).min(self.bytes.len() as u64);
        // As the page cache does: what comes before the bad place is delivered.
        let end =
            self.bad.iter().filter(|bad| bad.1 > offset).map(|bad| bad.0.max(offset)).fold(end, u64::min);
        if self.bad.iter().any(|bad| bad.0 <= offset && offset < bad.1) {
            return Err(self.error);
        }
        let part = self.bytes.get(offset as usize..end as usize).unwrap_or_default();
        buf.extend_from_slice(part);
        Ok(part.len())
    }

    fn next_data(&self, offset: u64) -> Result<u64, Errno> {
        if let Some(error) = self.seek_error {
            return Err(error);
        }
        let data = self.holes.iter().find(|h| h.0 <= offset && offset < h.1).map_or(offset, |h| h.1);
        if data >= self.bytes.len() as u64 { Err(Errno::NXIO) } else { Ok(data) }
    }

    fn next_hole(&self, offset: u64) -> Result<u64, Errno> {
        if self.holes.iter().any(|h| h.0 <= offset && offset < h.1) {
            return Ok(offset);
        }
        Ok(self.holes.iter().map(|h| h.0).find(|start| *start >= offset).unwrap_or(self.bytes.len() as u64))
    }
}

/// What was delivered: the bytes with zeros in the holes, and what `Runs` says of itself.
fn drain(mut runs: Runs<Fake>, most: usize) -> (Vec<u8>, Runs<Fake>) {
    let (mut all, mut buf) = (Vec::new(), Vec::new());
    loop {
        buf.clear();
        match runs.read(&mut buf, most) {
            Part::Data(count) => {
                assert!(count > 0 && count <= most && count == buf.len());
                all.extend_from_slice(&buf);
            }
            Part::Hole(length) => {
                assert!(length > 0 && buf.is_empty());
                all.resize(all.len() + length as usize, 0);
            }
            Part::End => break,
        }
    }
    assert_eq!(all.len() as u64, runs.position());
    validate_holes(&runs.holes, runs.position()).unwrap();
    (all, runs)
}

#[test]
fn a_small_content_takes_one_reading() {
    let (bytes, runs) = drain(Runs::new(Fake::new(1000), 1000, false), 4096);
    assert_eq!(bytes, Fake::new(1000).bytes);
    assert_eq!(runs.source.reads.get(), 1);
    assert_eq!((runs.status(), runs.complaint()), (Status::COMPLETE, None));
}

#[test]
fn an_empty_content_takes_none() {
    let (_, runs) = drain(Runs::new(Fake::new(0), 0, false), 4096);
    assert_eq!(runs.source.reads.get(), 0);
}

#[test]
fn a_file_that_grew_is_cut_where_the_scan_saw_its_end() {
    let (bytes, runs) = drain(Runs::new(Fake::new(5000), 3000, false), 4096);
    assert_eq!(bytes, &Fake::new(5000).bytes[..3000]);
    assert_eq!(runs.source.reads.get(), 1);
}

#[test]
fn a_file_that_shrank_ends_early_and_says_so() {
    let (bytes, runs) = drain(Runs::new(Fake::new(3000), 5000, false), 4096);
    assert_eq!(bytes.len(), 3000);
    assert_eq!(runs.status(), Status::CHANGED);
}

#[test]
fn interruptions_are_not_seen() {
    let fake = Fake::new(100);
    fake.interrupts.set(3);
    let (bytes, runs) = drain(Runs::new(fake, 100, false), 64);
    assert_eq!((bytes.len(), runs.status()), (100, Status::COMPLETE));
}

#[test]
fn holes_at_the_head_in_the_middle_and_at_the_tail() {
    let size = 10 * 4096 + 123;
    for most in [1000, 4096, 1 << 20] {
        let fake = Fake::new(size)
            .with_hole(0, 4096)
            .with_hole(3 * 4096, 2 * 4096)
            .with_hole(8 * 4096, 2 * 4096 + 123);
        let expected = fake.bytes.clone();
        let (bytes, runs) = drain(Runs::new(fake, size as u64, true), most);
        assert_eq!(bytes, expected);
        let holes: Vec<_> = runs.holes.iter().map(|hole| (hole.start / 4096, hole.length)).collect();
        assert_eq!(holes, [(0, 4096), (3, 8192), (8, 8192 + 123)]);
    }
}

#[test]
fn nothing_but_a_hole() {
    let (bytes, runs) = drain(Runs::new(Fake::new(9999).with_hole(0, 9999), 9999, true), 4096);
    assert_eq!(bytes, vec![0; 9999]);
    assert_eq!(runs.into_holes(), [Hole { start: 0, length: 9999 }]);
}

#[test]
fn a_hole_beyond_the_scan_size_is_cut() {
    let (bytes, runs) = drain(Runs::new(Fake::new(20_000).with_hole(4096, 12_288), 10_000, true), 4096);
    assert_eq!(bytes.len(), 10_000);
    assert_eq!(runs.into_holes(), [Hole { start: 4096, length: 10_000 - 4096 }]);
}

#[test]
fn a_file_system_that_does_not_tell_holes_is_read_like_others() {
    let mut fake = Fake::new(20_000).with_hole(4096, 8192);
    fake.seek_error = Some(Errno::INVAL);
    let expected = fake.bytes.clone();
    let (bytes, runs) = drain(Runs::new(fake, 20_000, true), 4096);
    assert_eq!((bytes, runs.holes.len()), (expected, 0));
}

#[test]
fn what_cannot_be_read_becomes_a_hole_and_all_else_is_kept() {
    let size = 100 * 4096 + 77;
    // In the middle, two neighbours, and the odd end; one of them within a block.
    for most in [777, 4096, 16_384, 1 << 20] {
        let fake =
            Fake::new(size).with_bad(5 * 4096 + 10, 20).with_bad(50 * 4096, 8192).with_bad(100 * 4096, 77);
        let original = fake.bytes.clone();
        let (bytes, runs) = drain(Runs::new(fake, size as u64, false), most);
        assert_eq!(runs.status(), Status::PARTLY_UNREADABLE, "{most}");
        let mut expected = original;
        for hole in &runs.holes {
            expected[hole.start as usize..(hole.start + hole.length) as usize].fill(0);
        }
        assert_eq!(bytes, expected, "{most}");
        let lost: u64 = runs.holes.iter().map(|hole| hole.length).sum();
        assert!(lost <= 4096 + 8192 + 77, "{most}: {lost}");
        let complaint = runs.complaint().unwrap();
        assert!(complaint.starts_with(&format!("{lost} bytes cannot be read")), "{complaint}");
        assert!(complaint.contains("3 places"), "{complaint}");
    }
}

#[test]
fn an_unreadable_run_joins_the_hole_beside_it() {
    let size = 8 * 4096;
    let fake = Fake::new(size).with_hole(2 * 4096, 4096).with_bad(3 * 4096, 4096).with_bad(4096, 4096);
    let (_, runs) = drain(Runs::new(fake, size as u64, true), 1 << 20);
    assert_eq!(runs.into_holes(), [Hole { start: 4096, length: 3 * 4096 }]);
}

#[test]
fn a_dying_disk_is_given_up() {
    let size = 1000 * 4096;
    let mut fake = Fake::new(size);
    fake.bad = (0..500).map(|i| (i * 8192, i * 8192 + 4096)).collect();
    let (_, runs) = drain(Runs::new(fake, size as u64, false), 1 << 20);
    assert!(runs.source.reads.get() < 1000, "{}", runs.source.reads.get());
    assert_eq!(runs.holes.len(), BAD_RUNS_MAX + 1);
    assert_eq!(runs.holes.last().map(|hole| hole.start + hole.length), Some(size as u64));
}

#[test]
fn one_long_unreadable_run_is_given_up() {
    let size = 100_000 * 4096u64;
    let mut fake = Fake::new(4096);
    fake.bad = vec![(4096, size)];
    let (bytes, runs) = drain(Runs::new(fake, size, false), 1 << 20);
    assert_eq!(bytes.len() as u64, size);
    assert!(runs.source.reads.get() < 2 * BAD_READS_MAX);
    assert_eq!(runs.into_holes(), [Hole { start: 4096, length: size - 4096 }]);
}

#[test]
fn an_error_of_the_whole_file_ends_the_reading_at_once() {
    let mut fake = Fake::new(100_000).with_bad(8192, 10);
    fake.error = Errno::STALE;
    let (_, runs) = drain(Runs::new(fake, 100_000, false), 4096);
    assert_eq!(runs.holes, [Hole { start: 8192, length: 100_000 - 8192 }]);
    assert_eq!(runs.source.reads.get(), 3);
}

#[test]
fn a_directory_in_the_place_of_the_file_is_a_change() {
    let mut fake = Fake::new(10).with_bad(0, 10);
    fake.error = Errno::ISDIR;
    let (bytes, runs) = drain(Runs::new(fake, 10, false), 4096);
    assert_eq!((bytes.len(), runs.status()), (0, Status::CHANGED));
}

#[test]
fn more_holes_than_the_format_holds_are_read_as_zeros() {
    struct Comb;
    impl Source for Comb {
        fn read_at(&self, buf: &mut Vec<u8>, most: usize, _: u64) -> Result<usize, Errno> {
            buf.resize(buf.len() + most, 7);
            Ok(most)
        }
        fn next_data(&self, offset: u64) -> Result<u64, Errno> {
            Ok(offset | 1)
        }
        fn next_hole(&self, offset: u64) -> Result<u64, Errno> {
            Ok(offset + 1)
        }
    }
    let size = 2 * HOLES_MAX as u64 + 10;
    let mut runs = Runs::new(Comb, size, true);
    let mut buf = Vec::new();
    while runs.read(&mut buf, 1 << 20) != Part::End {
        buf.clear();
    }
    assert_eq!(runs.position(), size);
    let holes = runs.into_holes();
    assert_eq!(holes.len(), SOUGHT_HOLES_MAX);
    validate_holes(&holes, size).unwrap();
}
