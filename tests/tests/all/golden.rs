//! The golden archives: never edited, all listed, and read by every reader as they were when they were made.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use diptych_format::{Digest, ReadAt};
use diptych_tests::command::diptych;
use diptych_tests::golden::{self, Golden};
use diptych_tests::readers::{self, Seen};
use diptych_tests::{fuzz_bodies, root};
use serde_json::Value;

fn folder() -> PathBuf {
    root().join("spec/golden/v1")
}

/// All files of golden archives, by path from their folder, with their digests.
fn digests() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder()];
    while let Some(dir) = open.pop() {
        for path in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let name = path.strip_prefix(folder()).unwrap().to_str().unwrap().to_owned();
            if name != "DIGESTS" {
                found.insert(name, Digest::of(&fs::read(&path).unwrap()).to_string());
            }
        }
    }
    found
}

fn as_list(digests: &BTreeMap<String, String>) -> String {
    digests.iter().map(|(name, digest)| format!("{digest}  {name}\n")).collect()
}

/// `UPDATE_GOLDEN=1` makes the archives that are not there yet, and no other.
#[test]
fn golden_archives_are_listed_and_unchanged() {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        golden::all().iter().filter(|golden| !folder().join(golden.name).exists()).for_each(make);
        fs::write(folder().join("DIGESTS"), as_list(&digests())).unwrap();
    }
    let listed = fs::read_to_string(folder().join("DIGESTS")).unwrap();
    assert_eq!(as_list(&digests()), listed, "golden archives are never edited, and all are listed");
    for golden in golden::all() {
        assert!(folder().join(golden.name).is_dir(), "{} is not there: UPDATE_GOLDEN=1", golden.name);
    }
}

fn make(golden: &Golden) {
    let folder = folder().join(golden.name);
    fs::create_dir_all(&folder).unwrap();
    for (name, bytes) in golden::files(golden) {
        fs::write(folder.join(name), bytes).unwrap();
    }
    fs::write(folder.join("listing.jsonl"), listing(&folder)).unwrap();
    fs::write(folder.join("README.md"), format!("# {}\n\n{}\n", golden.name, golden.about)).unwrap();
}

/// The name that `diptych` takes for the archive in a folder.
fn archive_in(folder: &Path) -> PathBuf {
    let pair = folder.join("archive.meta.dpt");
    if pair.exists() { pair } else { folder.join("archive.dpt") }
}

fn listing(folder: &Path) -> Vec<u8> {
    let archive = archive_in(folder);
    diptych(["list".as_ref(), "--json".as_ref(), archive.as_os_str()]).assert_code(0).stdout
}

fn folders() -> Vec<PathBuf> {
    let found =
        fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let mut found: Vec<PathBuf> = found.collect();
    found.sort();
    assert!(found.len() >= golden::all().len());
    found
}

#[test]
fn listings_of_golden_archives_stay() {
    for folder in folders() {
        let expected = fs::read(folder.join("listing.jsonl")).unwrap();
        assert!(listing(&folder) == expected, "{}: the listing differs", folder.display());
    }
}

#[test]
fn golden_archives_are_whole_for_every_reader() {
    for folder in folders() {
        let file = |path: &Path| Arc::new(fs::read(path).unwrap()) as Arc<dyn ReadAt>;
        let archive = archive_in(&folder);
        let data = folder.join("archive.data.dpt");
        let data = data.exists().then(|| file(&data));
        let mut seen = Seen::default();
        readers::read_archive(file(&archive), data, &mut seen).unwrap();
        let faults: Vec<String> = seen.faults.iter().map(ToString::to_string).collect();
        assert!(faults.is_empty() && seen.walk_error.is_none(), "{}: {faults:?}", folder.display());
        assert!(seen.found_errors.is_empty());
        assert_eq!(seen.walked.len(), seen.found.len(), "{}", folder.display());
        let lines = fs::read(folder.join("listing.jsonl")).unwrap();
        assert_eq!(lines.split(|byte| *byte == b'\n').count() - 1, seen.walked.len());
        fuzz_bodies::archive(&fs::read(&archive).unwrap());
    }
}

#[test]
fn the_independent_reader_lists_golden_archives_alike() {
    let folders = folders();
    let files: Vec<(&str, PathBuf)> = folders.iter().map(|folder| ("list", archive_in(folder))).collect();
    for (folder, answer) in folders.iter().zip(readers::python(&files)) {
        assert_eq!(answer["verify"], "ok", "{}", folder.display());
        let expected = fs::read_to_string(folder.join("listing.jsonl")).unwrap();
        let expected: Vec<Value> = expected.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let found = answer["list"].as_array().unwrap();
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!(found, expected, "{}", folder.display());
        }
        assert_eq!(found.len(), expected.len(), "{}", folder.display());
    }
}
