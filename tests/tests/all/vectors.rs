//! The vectors, through every reader: each must say what the vector says, no more and no less.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use diptych_format::Error;
use diptych_tests::TestDir;
use diptych_tests::readers::{self, Seen, vectors_folder};
use diptych_tests::vectors::{self, Vector};
use serde_json::Value;

/// Fewer would be a mistake of whoever took some away.
const LEAST: usize = 250;

#[test]
fn vectors_are_up_to_date() {
    let folder = vectors_folder();
    let is_update = std::env::var_os("UPDATE").is_some();
    let all = vectors::all();
    assert!(all.len() >= LEAST, "{} vectors", all.len());
    let mut differ = Vec::new();
    for vector in &all {
        let path = folder.join(format!("{}.vec", vector.name));
        let bytes = vector.encode();
        if fs::read(&path).ok().as_ref() == Some(&bytes) {
            continue;
        }
        differ.push(vector.name.to_owned());
        if is_update {
            fs::create_dir_all(&folder).unwrap();
            fs::write(&path, bytes).unwrap();
        }
    }
    let names: BTreeSet<PathBuf> =
        all.iter().map(|vector| folder.join(format!("{}.vec", vector.name))).collect();
    let there = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path());
    for path in there.filter(|path| path.extension().is_some_and(|end| end == "vec") && !names.contains(path))
    {
        differ.push(path.file_name().unwrap().to_string_lossy().into_owned());
        if is_update {
            fs::remove_file(path).unwrap();
        }
    }
    assert!(is_update || differ.is_empty(), "not up to date: {differ:?}; UPDATE=1 writes them anew");
}

#[test]
fn every_reader_says_what_the_vector_says() {
    let mut wrong = Vec::new();
    for vector in vectors::all().into_iter().chain(vectors::large()) {
        let seen = readers::read(vector.input, vector.bytes.clone());
        wrong.extend(differences(&vector, &seen).into_iter().map(|what| format!("{}: {what}", vector.name)));
    }
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
}

fn differences(vector: &Vector, seen: &Seen) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut check = |reader: &str, error: Option<&Error>| {
        let found = error.map(|error| (error.class, error.place));
        let expected = vector.expect.map(|class| (class, vector.place));
        if found != expected {
            let said = error.map_or("ok".to_owned(), ToString::to_string);
            wrong.push(format!("{reader} says {said}, not {expected:?}"));
        }
    };
    check("verification", seen.faults.first());
    if let Some(error) = &seen.walk_error {
        check("the walk", Some(error));
    }
    seen.found_errors.iter().for_each(|error| check("the random reader", Some(error)));
    let Some(lines) = &vector.lines else { return wrong };
    if seen.walked != *lines {
        wrong.push(format!("the walk hands out {} entries, not {}", seen.walked.len(), lines.len()));
    }
    if seen.walk_error.is_none() && vector.expect.is_none() {
        let expected: BTreeSet<Vec<u8>> = lines.iter().cloned().collect();
        if seen.found != expected {
            wrong.push("the random reader finds other entries than the walk".to_owned());
        }
        if seen.tree_id != vector.tree_id {
            wrong.push("another tree id".to_owned());
        }
    }
    wrong
}

#[test]
fn the_independent_reader_says_what_the_vector_says() {
    let dir = TestDir::new("vectors");
    let mut files: Vec<(&str, PathBuf)> = Vec::new();
    let all: Vec<Vector> = vectors::all().into_iter().chain(vectors::large()).collect();
    for vector in &all {
        let path = dir.join(format!("{}.vec", vector.name));
        fs::write(&path, vector.encode()).unwrap();
        files.push((vector.input.word(), path));
    }
    let mut wrong = Vec::new();
    for (vector, answer) in all.iter().zip(readers::python(&files)) {
        let found = differences_of_python(vector, &answer);
        wrong.extend(found.into_iter().map(|what| format!("{}: {what}", vector.name)));
    }
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
}

fn differences_of_python(vector: &Vector, answer: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut check = |reader: &str, said: &Value| {
        let class = said["class"].as_str().unwrap_or("ok");
        let is_class = class == vector.expect.map_or("ok", |class| class.word());
        let place = vector.place.map(|(stream, at)| (stream.words(), at));
        let found = said["stream"].as_str().zip(said["at"].as_u64());
        // What a map names and no file has is nowhere: this reader says so.
        let is_nowhere = class == "missing" && found == Some(("archive", 0));
        if !is_class || found != place && !is_nowhere {
            wrong.push(format!("{reader} says {said}, not {:?} {place:?}", vector.expect));
        }
    };
    check("verification", &answer["verify"]);
    if answer["walk"].is_object() {
        check("the walk", &answer["walk"]);
    }
    let Some(lines) = &vector.lines else { return wrong };
    let hex = |line: &Vec<u8>| line.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    if let Some(found) = answer["lines"].as_array()
        && !found.iter().map(|line| line.as_str().unwrap().to_owned()).eq(lines.iter().map(hex))
    {
        wrong.push(format!("the walk hands out {} entries, not {}", found.len(), lines.len()));
    }
    if vector.expect.is_none()
        && answer["tree"].as_str().map(str::to_owned) != vector.tree_id.map(|id| id.to_string())
    {
        wrong.push(format!("another tree id: {}", answer["tree"]));
    }
    wrong
}

/// Whoever reads the header of a vector finds the bytes behind the first empty line.
#[test]
fn headers_of_vectors_are_text() {
    for vector in vectors::all() {
        let bytes = vector.encode();
        let end = bytes.windows(2).position(|pair| pair == b"\n\n").unwrap();
        let header = std::str::from_utf8(&bytes[..end]).unwrap();
        assert!(header.lines().all(|line| line.contains(": ")), "{header}");
        assert_eq!(&bytes[end + 2..], vector.bytes);
        assert!(Path::new(vector.name).file_name().is_some_and(|name| name == vector.name));
    }
}
