//! Directories with so many pieces that one index table does not hold them: each index table stands right behind
//! all that is below it, and every reader finds every name.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;

use diptych_decoder::{Archive, VerifyEvent};
use diptych_encoder::{Cuts, TreeEncoder};
use diptych_format::limits::PIECE_ROWS_MIN;
use diptych_format::section::peek;
use diptych_format::stream::{HEADER_LENGTH, TRAILER_LENGTH};
use diptych_format::table::{IndexTable, Owners};
use diptych_format::{Digest, Name, Status};
use diptych_tests::readers::{self, Seen};
use diptych_tests::{TestDir, Tree, diptych, tree};

/// The levels of the index tables of a stream, in the order in which they stand.
fn levels(stream: &[u8]) -> Vec<u64> {
    let mut levels = Vec::new();
    let mut at = HEADER_LENGTH;
    while at < stream.len() - TRAILER_LENGTH {
        let (tag, length) = peek(&stream[at..]).unwrap();
        let body = at;
        at += length as usize;
        if &tag.0 == b"IDXB" {
            at += peek(&stream[at..]).unwrap().1 as usize;
            levels.push(IndexTable::parse(&stream[body..at]).unwrap().level());
        }
    }
    levels
}

fn name(text: &str) -> Name {
    Name::try_new(text.as_bytes()).unwrap()
}

/// A name that begins a piece, and an index table too where the number of the piece is a multiple of PIECE_ROWS_MIN.
fn first_name(piece: usize) -> String {
    let cuts = |name: &String| {
        let bits = Digest::of(name.as_bytes()).leading();
        let begins_index = bits >> 10 & 1023 == 0;
        bits & 1023 == 0 && begins_index == piece.is_multiple_of(PIECE_ROWS_MIN)
    };
    (0u32..).map(|number| format!("{piece:04}-{number:08}")).find(cuts).unwrap()
}

/// A directory in so many pieces, each as small as can be.
struct Wide {
    encoder: TreeEncoder,
    entries: usize,
}

impl Wide {
    fn new() -> Self {
        let mut encoder = TreeEncoder::new(Cuts::plain());
        encoder.enter(tree! {}.entry(Name::root())).unwrap();
        encoder.entry(Tree::file("").entry(name("before")), None).unwrap();
        encoder.enter(tree! {}.entry(name("wide"))).unwrap();
        Self { encoder, entries: 3 }
    }

    /// The files of a piece and then its directories, the last of them left open.
    fn begin_piece(&mut self, piece: usize) {
        let names = (0..PIECE_ROWS_MIN).map(|row| match row {
            0 => first_name(piece),
            _ => format!("{piece:04}.{row:03}"),
        });
        // A directory is the first name of some pieces, in the middle of others, both, or neither.
        let is_directory = |row: usize| match row {
            0 => piece.is_multiple_of(2),
            7 | 300 => piece.is_multiple_of(3),
            _ => false,
        };
        let (directories, files): (Vec<_>, Vec<_>) =
            names.enumerate().partition(|(row, _)| is_directory(*row));
        for (_, text) in files {
            self.file(&text);
        }
        for (number, (_, text)) in directories.into_iter().enumerate() {
            if number > 0 {
                self.encoder.leave(Status::COMPLETE).unwrap();
            }
            self.encoder.enter(tree! {}.entry(name(&text))).unwrap();
            self.entries += 1;
            self.file("below");
        }
    }

    fn has_directories(piece: usize) -> bool {
        piece.is_multiple_of(2) || piece.is_multiple_of(3)
    }

    fn file(&mut self, text: &str) {
        self.encoder.entry(Tree::file("").entry(name(text)), None).unwrap();
        self.entries += 1;
    }

    fn end_piece(&mut self, piece: usize, is_last: bool) {
        if Self::has_directories(piece) {
            self.encoder.leave(Status::COMPLETE).unwrap();
        }
        if !is_last {
            self.encoder.end_piece().unwrap();
        }
    }

    /// The stream as far as it is, closed.
    fn checkpoint(&self, written: &[u8]) -> Vec<u8> {
        let (closing, finished) = self.encoder.checkpoint(&Owners::default()).unwrap();
        assert_eq!(finished.trailer.entries, self.entries as u64);
        [written, &closing.concat()].concat()
    }

    fn finish(mut self, mut written: Vec<u8>) -> Vec<u8> {
        (0..2).for_each(|_| assert!(self.encoder.leave(Status::COMPLETE).unwrap().is_complete()));
        self.encoder.finish(&Owners::default()).unwrap();
        written.append(&mut self.encoder.take_chunks().concat());
        written
    }
}

fn opened(stream: Vec<u8>) -> Archive {
    Archive::open(Arc::new(stream)).unwrap()
}

/// Whole verification goes through all tables in order.
#[track_caller]
fn assert_verified(archive: &Archive) {
    let mut faults = Vec::new();
    let mut visit = |event: VerifyEvent| {
        if let VerifyEvent::Damaged { error, .. } = event {
            faults.push(error);
        }
        Ok(())
    };
    diptych_decoder::verify(archive, None, &mut visit).unwrap();
    assert!(faults.is_empty(), "{faults:?}");
}

/// Spec: A-7.2-3, A-7.2-7, A-8.2-2, A-8.4-1.
#[test]
fn index_tables_stand_right_behind_what_is_below_them() {
    let mut wide = Wide::new();
    let mut written = Vec::new();
    let last = PIECE_ROWS_MIN;
    for piece in 0..=last {
        wide.begin_piece(piece);
        written.append(&mut wide.encoder.take_chunks().concat());
        // While a directory of the piece is open: in the first index table, and just behind it.
        for (checked, expected) in [(2, &[1][..]), (PIECE_ROWS_MIN, &[1, 1, 2])] {
            if piece == checked {
                let partial = wide.checkpoint(&written);
                assert_eq!(levels(&partial), expected);
                assert_verified(&opened(partial));
            }
        }
        wide.end_piece(piece, piece == last);
    }
    let entries = wide.entries;
    let stream = wide.finish(written);
    assert_eq!(levels(&stream), [1, 1, 2]);

    let dir = TestDir::new("index-tables");
    let file = dir.join("stream");
    std::fs::write(&file, &stream).unwrap();
    let mut seen = Seen::default();
    readers::read_tree(&opened(stream), None, &mut seen).unwrap();
    assert!(seen.walk_error.is_none(), "{:?}", seen.walk_error);
    assert!(seen.faults.is_empty() && seen.found_errors.is_empty(), "{:?}", (seen.faults, seen.found_errors));
    assert_eq!((seen.walked.len(), seen.found.len()), (entries, entries));
    let [python] = &readers::python(&[("verified-stream", file)])[..] else { panic!("one answer") };
    assert_eq!(python["verify"], "ok", "{python}");
    assert_eq!(python["tree"], seen.tree_id.unwrap().to_string());
}

/// One directory through the command: with so many names that it and its links have several index tables when
/// DIPTYCH_SOAK says that there is time, and else with enough for one.
#[test]
fn a_large_directory_goes_through_every_job() {
    let names = if std::env::var_os("DIPTYCH_SOAK").is_some() { 3_000_000 } else { 6000 };
    let dir = TestDir::new("large-directory");
    let [source, archive, copy] = ["source", "archive", "copy"].map(|name| dir.join(name));
    std::fs::create_dir(&source).unwrap();
    let path = |number: usize| source.join(format!("{number:07}"));
    // Links, because so many inodes would cost more than all that is shown here.
    for number in 0..names {
        match number % 1000 {
            0 => std::fs::write(path(number), number.to_string()).unwrap(),
            500 => std::fs::create_dir(path(number)).unwrap(),
            link => std::fs::hard_link(path(number - link), path(number)).unwrap(),
        }
    }
    let job = |name: &str, of: &[&Path]| {
        let arguments = [OsStr::new(name)].into_iter().chain(of.iter().map(|path| path.as_os_str()));
        diptych(arguments).assert_code(0).text()
    };
    job("create", &[&archive, &source]);
    job("verify", &[&archive]);
    assert_eq!(job("list", &[&archive]).lines().count(), names + 1);
    job("extract", &[&archive, &copy]);
    let ids = [&source, &archive, &copy]
        .map(|of| job("hash", &[of]).split_whitespace().next().unwrap_or_default().to_owned());
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}
