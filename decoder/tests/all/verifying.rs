//! Verification: whole archives pass, and each fault is told.

use diptych_decoder::{Archive, VerifyEvent, VerifyStats, verify, verify_content};
use diptych_format::table::{DirectoryRow, LinkRow, Owners};
use diptych_format::{Class, Digest, Error, Holds, ReadAt, Status};

use super::build::*;

pub type Faults = Vec<(String, Error)>;

/// What verification says of an archive and its contents.
pub fn faults_of(archive: &Archive, payload: Option<&dyn ReadAt>) -> (VerifyStats, Faults) {
    let mut faults = Vec::new();
    let stats = verify(archive, payload, &mut |event| {
        if let VerifyEvent::Damaged { path, error } = event {
            faults.push((String::from_utf8_lossy(path).into_owned(), error));
        }
        Ok(())
    });
    let stats = stats.unwrap();
    assert_eq!(stats.damaged, faults.len() as u64);
    (stats, faults)
}

fn faults(built: &Built) -> Faults {
    faults_of(&built.open().unwrap(), Some(&built.payload)).1
}

#[track_caller]
fn assert_one_fault(built: &Built, path: &str, words: &str) {
    let found = faults(built);
    let [(found_path, error)] = &found[..] else { panic!("one fault is expected: {found:?}") };
    assert_eq!((found_path.as_str(), error.class), (path, Class::Corrupt));
    assert!(error.what.contains(words), "{error}");
    assert!(error.place.is_some(), "{error} has no place");
}

fn all(cut: Cut) -> Built {
    let (root, links, owners) = everything();
    build_with(&root, &links, &owners, cut)
}

#[test]
fn a_whole_archive_passes() {
    let built = all(Cut::Rule);
    let archive = built.open().unwrap();
    let (stats, faults) = faults_of(&archive, Some(&built.payload));
    assert!(faults.is_empty(), "{faults:?}");
    assert!(stats.is_whole());
    assert_eq!((stats.entries, stats.incomplete), (archive.trailer().entries, 1));
    assert_eq!(stats.content_bytes, built.payload.len() as u64);
    assert!(build(&dir("", vec![])).open().is_ok_and(|archive| faults_of(&archive, None).0.is_whole()));
}

#[test]
fn pieces_are_taken_as_they_are() {
    let root = dir("", (0..40).map(|i| file(&format!("{i:02}"), b"")).collect());
    for cut in [Cut::Rule, Cut::Every(3), Cut::Every(7)] {
        assert!(faults(&build_with(&root, &[], &Owners::default(), cut)).is_empty());
    }
}

#[test]
fn contents_can_be_verified_apart() {
    let built = all(Cut::Rule);
    let mut contents = Vec::new();
    let archive = built.open().unwrap();
    let stats = verify(&archive, None, &mut |event| {
        if let VerifyEvent::Content { path, content } = event {
            contents.push((path.to_vec(), content));
        }
        Ok(())
    });
    assert_eq!(stats.unwrap().contents, contents.len() as u64);
    let mut scratch = Vec::new();
    for (_, content) in &contents {
        verify_content(content, &built.payload, &mut scratch).unwrap();
    }
    let spoilt = vec![0; built.payload.len()];
    let wrong =
        contents.iter().filter(|(_, content)| verify_content(content, &spoilt, &mut scratch).is_err());
    assert_eq!(wrong.count(), contents.iter().filter(|(_, content)| content.payload_length() > 0).count());
}

#[test]
fn a_damaged_content_is_named_and_the_others_are_verified() {
    let mut built = all(Cut::Rule);
    built.payload[0] ^= 1;
    assert_one_fault(&built, "a", "another digest than its entry says");
    let mut built = all(Cut::Rule);
    built.payload.pop();
    let found = faults(&built);
    assert_eq!(found[0].0, "");
    assert_eq!((found[1].0.as_str(), found[1].1.class), ("sub-b/q", Class::Truncated));
}

#[test]
fn a_report_that_says_so_ends_verification() {
    let archive = all(Cut::Rule).open().unwrap();
    let mut events = 0;
    let result = verify(&archive, None, &mut |_| {
        events += 1;
        if events == 3 { Err(Error::missing("enough")) } else { Ok(()) }
    });
    assert_eq!(result.unwrap_err().what, "enough");
    assert_eq!(events, 3);
}

fn with_links(links: &[LinkRow]) -> Built {
    let (root, _, owners) = everything();
    build_with(&root, links, &owners, Cut::Rule)
}

#[test]
fn links_must_fit_the_tree() {
    let is_there = [link("b", "", 2), link("nothing", "b", 2)];
    assert_one_fault(&with_links(&is_there), "nothing", "is not in the archive");
    let fewer = [link("b", "", 3), link("sub/b", "b", 3)];
    assert_one_fault(&with_links(&fewer), "b", "fewer paths than it says");
    let counts = [link("b", "", 2), link("sub/b", "b", 3)];
    assert_one_fault(&with_links(&counts), "sub/b", "count them differently");
    let contents = [link("a", "", 2), link("b", "a", 2)];
    assert_one_fault(&with_links(&contents), "b", "lead to different contents");
    let first = [link("sub/b", "b", 2)];
    assert_one_fault(&with_links(&first), "sub/b", "the first path of a group");
    let directories = with_links(&[link("hollow", "", 2), link("sub", "hollow", 2)]);
    assert!(faults(&directories).iter().any(|(_, error)| error.what.contains("a directory stands")));
}

#[test]
fn the_trailer_must_know_whether_all_is_complete() {
    let spoil = |status: Status, says: bool| {
        let root = dir("", vec![file("x", b"x").with(|entry| entry.status = status)]);
        let mut writer = Writer::new(Cut::Rule);
        let below = writer.directory(&root);
        let row = DirectoryRow { entry: root.entry, below: Some(below) };
        writer.finish(row, &[], &Owners::default(), |trailer| trailer.is_incomplete = says)
    };
    assert!(faults(&spoil(Status::CHANGED, true)).is_empty());
    assert_one_fault(&spoil(Status::CHANGED, false), "", "the trailer does not say so");
    assert_one_fault(&spoil(Status::COMPLETE, true), "", "and none is");
}

#[test]
fn bytes_that_nothing_refers_to_are_told() {
    for place in 0..4 {
        let root = dir("", vec![dir("a", vec![file("x", b"x")]), dir("b", vec![file("y", b"y")])]);
        let mut writer = Writer::new(Cut::Rule);
        let stray = |writer: &mut Writer, at| {
            if at == place {
                writer.table(&[]);
            }
        };
        stray(&mut writer, 0);
        let a = writer.directory(&root.children[0]);
        stray(&mut writer, 1);
        let b = writer.directory(&root.children[1]);
        stray(&mut writer, 2);
        writer.payload.extend_from_slice(b"xy");
        let rows = [a, b].into_iter().zip(&root.children);
        let rows: Vec<_> = rows
            .map(|(below, node)| DirectoryRow { entry: node.entry.clone(), below: Some(below) })
            .collect();
        let top = writer.table(&rows);
        stray(&mut writer, 3);
        let row = DirectoryRow { entry: root.entry, below: Some(top) };
        let built = writer.finish(row, &[], &Owners::default(), |_| {});
        let found = faults_of(&built.open().unwrap(), None).1;
        let [(_, error)] = &found[..] else { panic!("{place}: {found:?}") };
        assert!(error.what.contains("bytes that nothing refers to"), "{place}: {error}");
    }
}

#[test]
fn attribute_sets_must_ascend_by_what_a_value_table_holds() {
    let labelled = |name, byte| file(name, b"").xattr("user.large", &[byte; 5000]);
    let mut built = build(&dir("", vec![labelled("a", 1), labelled("b", 2)]));
    assert!(faults(&built).is_empty());
    // A value that is changed in the value table alone.
    let at = built.metadata.windows(8).position(|window| window == [1; 8]).unwrap();
    built.metadata[at] = 3;
    assert_one_fault(&built, "", "another digest than its set says");
}

#[test]
fn a_digest_that_no_content_has_is_told() {
    let wrong = file("f", b"text").with(|entry| {
        entry.holds = Holds::Content { size: 4, digest: Digest::of(b"other") };
    });
    assert_one_fault(&build(&dir("", vec![wrong])), "f", "another digest");
}
