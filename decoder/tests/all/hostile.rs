//! Archives that no writer writes: references that loop, share or lie, and lengths that would exhaust memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use diptych_decoder::{Archive, Read};
use diptych_format::stream::Trailer;
use diptych_format::table::{Below, DirectoryRow, IndexRow, Owners, Reference, encode_index_table};
use diptych_format::{Class, Error, ReadAt, Result};

use super::build::*;
use super::reading::{List, list};
use super::verifying::faults_of;

fn directory_row(name: &str, below: Below) -> DirectoryRow {
    DirectoryRow { entry: dir(name, vec![]).entry, below: Some(below) }
}

fn file_row(name: &str) -> DirectoryRow {
    DirectoryRow { entry: file(name, b"").entry, below: None }
}

fn finish(writer: Writer, top: Below) -> Built {
    let root = directory_row("", top);
    writer.finish(root, &[], &Owners::default(), |_| {})
}

/// The one error that walking gives, which verification and, if there is something to look up, look-ups see too.
#[track_caller]
fn refusal(built: &Built, path: &str) -> Error {
    let archive = built.open().unwrap();
    let List { mut damaged, .. } = list(&archive).unwrap();
    assert_eq!(damaged.len(), 1, "{damaged:?}");
    assert!(!faults_of(&archive, None).0.is_whole());
    if !path.is_empty() {
        assert!(archive.lookup(path.as_bytes()).is_err());
    }
    damaged.remove(0).1
}

#[test]
fn references_to_itself_or_forward_are_refused() {
    for ahead in [0, 8, 1000] {
        let mut writer = Writer::new(Cut::Rule);
        let (fine, below) = (writer.table(&[]), writer.table(&[file_row("f")]));
        let position = writer.out.len() as u64 + ahead;
        let forward = directory_row("d", Below { position, ..below });
        let top = writer.table(&[directory_row("c", fine), forward]);
        let error = refusal(&finish(writer, top), "d/f");
        assert_eq!(error.class, Class::Corrupt);
        assert!(error.what.contains("leads out of the stream or forward"), "{error}");
        // The place is that of the table at fault.
        assert_eq!(error.place.unwrap().1, top.position);
    }
}

#[test]
fn references_into_the_header_are_refused() {
    let mut writer = Writer::new(Cut::Rule);
    let below = writer.table(&[file_row("f")]);
    let top = writer.table(&[directory_row("d", Below { position: 24, ..below })]);
    assert_eq!(refusal(&finish(writer, top), "d/f").class, Class::Corrupt);
}

#[test]
fn shared_tables_are_refused() {
    let mut writer = Writer::new(Cut::Rule);
    let shared = writer.table(&[file_row("f")]);
    let top = writer.table(&[directory_row("a", shared), directory_row("b", shared)]);
    let error = refusal(&finish(writer, top), "");
    assert!(error.what.contains("shared or out of order"), "{error}");
}

#[test]
fn who_reads_tables_one_at_a_time_is_led_to_none_twice() {
    let refused = |writer: Writer, top: Below| {
        let archive = finish(writer, top).open().unwrap();
        let Err(error) = archive.read(&archive.root_ref().unwrap()) else { panic!("was read") };
        assert!(error.what.contains("shared or out of order"), "{error}");
    };
    let mut writer = Writer::new(Cut::Rule);
    let shared = writer.table(&[file_row("f")]);
    let top = writer.table(&[directory_row("a", shared), directory_row("b", shared)]);
    refused(writer, top);
    let mut writer = Writer::new(Cut::Rule);
    let (b, a) = (writer.table(&[file_row("f")]), writer.table(&[file_row("g")]));
    let top = writer.table(&[directory_row("a", a), directory_row("b", b)]);
    refused(writer, top);
    // Through a directory that comes first, and out of it.
    let mut writer = Writer::new(Cut::Rule);
    let deep = writer.table(&[file_row("f")]);
    let a = writer.table(&[directory_row("deep", deep)]);
    let b = writer.table(&[directory_row("stolen", deep)]);
    let top = writer.table(&[directory_row("a", a), directory_row("b", b)]);
    let archive = finish(writer, top).open().unwrap();
    let Read::Names(names) = archive.read(&archive.root_ref().unwrap()).unwrap() else { panic!("an index") };
    let below = |row| archive.read(&names.directory(row).unwrap().unwrap());
    assert!(matches!(below(0), Ok(Read::Names(_))));
    assert!(below(1).unwrap_err().what.contains("shared or out of order"));
}

#[test]
fn tables_that_multiply_do_not() {
    // 64 levels of two names for one table are more entries than can ever be listed.
    let mut writer = Writer::new(Cut::Rule);
    let mut below = writer.table(&[file_row("f")]);
    for _ in 0..60 {
        below = writer.table(&[directory_row("a", below), directory_row("b", below)]);
    }
    let built = finish(writer, below);
    let archive = built.open().unwrap();
    let listed = list(&archive).unwrap();
    assert!(listed.entries.len() < 300);
    assert_eq!(listed.damaged.len(), 60);
    assert!(archive.tables_read() < 300);
    assert!(!faults_of(&archive, None).0.is_whole());
    assert!(
        diptych_decoder::diff(&archive, &build(&dir("", vec![])).open().unwrap(), &mut |_| Ok(())).is_err()
    );
}

#[test]
fn tables_out_of_order_are_refused() {
    let mut writer = Writer::new(Cut::Rule);
    let (b, a) = (writer.table(&[file_row("f")]), writer.table(&[file_row("g")]));
    let top = writer.table(&[directory_row("a", a), directory_row("b", b)]);
    assert!(refusal(&finish(writer, top), "").what.contains("out of order"));
}

#[test]
fn sums_that_lie_are_refused() {
    for wrong in [
        |below: Below| Below { entries: below.entries + 1, ..below },
        |below: Below| Below { payload_length: 5, ..below },
    ] {
        let mut writer = Writer::new(Cut::Rule);
        let below = writer.table(&[file_row("f")]);
        let top = writer.table(&[directory_row("d", wrong(below))]);
        let error = refusal(&finish(writer, top), "d/f");
        assert!(error.what.contains("other sums"), "{error}");
        assert_eq!(error.place.unwrap().1, below.position);
    }
}

#[test]
fn digests_that_lie_are_refused() {
    let mut writer = Writer::new(Cut::Rule);
    let (below, other) = (writer.table(&[file_row("f")]), Below::default());
    let top = writer.table(&[directory_row("d", Below { digest: other.digest, ..below })]);
    assert!(refusal(&finish(writer, top), "d/f").what.contains("another digest"));
}

fn index(writer: &mut Writer, rows: &[(&str, Below)], level: u64) -> Below {
    let rows: Vec<_> = rows
        .iter()
        .map(|(name, below)| IndexRow { first_name: name.as_bytes().into(), below: *below })
        .collect();
    encode_index_table(&rows, level, writer.out.len() as u64, &mut writer.out).unwrap()
}

#[test]
fn levels_must_descend_one_by_one() {
    for (lower, upper) in [(1, 1), (1, 3), (2, 3)] {
        let mut writer = Writer::new(Cut::Rule);
        let piece = writer.table(&[file_row("f")]);
        let below = index(&mut writer, &[("f", piece)], lower);
        let other = writer.table(&[file_row("g")]);
        let top = index(&mut writer, &[("f", below), ("g", other)], upper);
        let built = finish(writer, top);
        assert_eq!(built.open().unwrap().lookup(b"f").unwrap_err().class, Class::Corrupt);
        assert_eq!(list(&built.open().unwrap()).unwrap().damaged.len(), if upper == 1 { 1 } else { 2 });
    }
}

#[test]
fn an_index_table_above_a_single_piece_is_refused() {
    let mut writer = Writer::new(Cut::Rule);
    let piece = writer.table(&[file_row("f")]);
    let top = index(&mut writer, &[("f", piece)], 1);
    assert!(refusal(&finish(writer, top), "f").what.contains("a single piece"));
}

#[test]
fn pieces_must_begin_and_end_where_the_index_says() {
    let pieces = |writer: &mut Writer| {
        let one = writer.table(&[file_row("a"), file_row("c")]);
        (one, writer.table(&[file_row("d")]))
    };
    for (first, second, words) in
        [("b", "d", "begins with another name"), ("a", "bb", "reaches into the next one")]
    {
        let mut writer = Writer::new(Cut::Rule);
        let (one, two) = pieces(&mut writer);
        let top = index(&mut writer, &[(first, one), (second, two)], 1);
        let listed = list(&finish(writer, top).open().unwrap()).unwrap();
        assert!(listed.damaged[0].1.what.contains(words), "{:?}", listed.damaged);
    }
}

#[test]
fn a_name_is_empty_for_the_root_alone() {
    let mut writer = Writer::new(Cut::Rule);
    let top = writer.table(&[DirectoryRow {
        entry: file("x", b"").with(|entry| entry.name = diptych_format::Name::root()).entry,
        below: None,
    }]);
    assert!(refusal(&finish(writer, top), "x").what.contains("a name is empty"));
}

fn spoilt_trailer(change: impl FnOnce(&mut Trailer)) -> Error {
    let mut writer = Writer::new(Cut::Rule);
    let below = writer.table(&[file_row("f")]);
    let root = directory_row("", below);
    writer.finish(root, &[], &Owners::default(), change).open().err().unwrap()
}

#[test]
fn a_trailer_that_lies_is_refused() {
    let far = Reference { distance: u64::MAX, length: 64 };
    assert_eq!(spoilt_trailer(|trailer| trailer.root = far).class, Class::Corrupt);
    assert_eq!(spoilt_trailer(|trailer| trailer.links = far).class, Class::Corrupt);
    assert_eq!(spoilt_trailer(|trailer| trailer.root.length = 1 << 40).class, Class::Limit);
    assert_eq!(spoilt_trailer(|trailer| trailer.entries += 1).class, Class::Corrupt);
    assert_eq!(spoilt_trailer(|trailer| trailer.payload_length += 1).class, Class::Corrupt);
    assert_eq!(spoilt_trailer(|trailer| trailer.tree_id.0[0] ^= 1).class, Class::Corrupt);
    assert_eq!(spoilt_trailer(|trailer| trailer.stream_length += 1).class, Class::Truncated);
}

/// Notes the longest read.
struct Watched(Vec<u8>, AtomicU64);

impl ReadAt for Watched {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.1.fetch_max(buf.len() as u64, Ordering::Relaxed);
        self.0.read_exact_at(buf, offset)
    }
}

#[test]
fn hostile_lengths_allocate_nothing() {
    for length in [1 << 24, 1 << 25, u64::MAX] {
        let mut writer = Writer::new(Cut::Rule);
        let below = writer.table(&[file_row("f")]);
        let top = writer.table(&[directory_row("d", Below { length, ..below })]);
        let built = finish(writer, top);
        let watched = Arc::new(Watched(built.metadata, AtomicU64::new(0)));
        let archive = Archive::open(watched.clone()).unwrap();
        assert_eq!(list(&archive).unwrap().damaged.len(), 1);
        assert!(watched.1.load(Ordering::Relaxed) < 1000);
    }
}
