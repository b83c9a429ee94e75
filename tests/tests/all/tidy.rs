//! The rules of the house, as tests: layers, headers, words, links, nothing left behind.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, str};

use cargo_metadata::MetadataCommand;
use diptych_tests::root;

/// All files of the project, from its root: what git tracks or would track. Without git, all that is there but
/// what is built.
pub fn files() -> Vec<PathBuf> {
    let mut git = Command::new("git");
    git.args(["-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let listed = git.current_dir(root()).output().ok().filter(|output| output.status.success());
    let mut found: Vec<PathBuf> = match listed {
        Some(output) => {
            let names = output.stdout.split(|byte| *byte == 0).filter(|name| !name.is_empty());
            names.map(|name| PathBuf::from(str::from_utf8(name).unwrap())).collect()
        }
        None => {
            let mut found = Vec::new();
            collect(Path::new(""), &mut found);
            found
        }
    };
    // A file that is tracked and just removed.
    found.retain(|path| root().join(path).is_file());
    found.sort();
    assert!(found.len() > 10, "the project's files are not to be seen: {found:?}");
    found
}

fn collect(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(root().join(dir)).unwrap() {
        let entry = entry.unwrap();
        let path = dir.join(entry.file_name());
        let skipped = ["target", ".git", "__pycache__", "artifacts"].iter().any(|name| path.ends_with(name));
        match entry.file_type().unwrap() {
            kind if kind.is_dir() && !skipped => collect(&path, found),
            kind if kind.is_file() => found.push(path),
            _ => {}
        }
    }
}

/// The files whose names end in one of `extensions`, with their text.
fn texts(extensions: &[&str]) -> Vec<(PathBuf, String)> {
    let mut found = files();
    found.retain(|path| {
        path.extension().is_some_and(|found| extensions.iter().any(|wanted| found == *wanted))
    });
    let text = |path: PathBuf| {
        let bytes = fs::read(root().join(&path)).unwrap();
        // A vector is text with bytes behind it; everything else is text whole.
        if path.extension().is_some_and(|found| found == "vec") {
            return (path, String::from_utf8_lossy(&bytes).into_owned());
        }
        (path.clone(), String::from_utf8(bytes).unwrap_or_else(|_| panic!("{}: not UTF-8", path.display())))
    };
    found.into_iter().map(text).collect()
}

/// Lines that break a rule, with their places.
#[track_caller]
fn assert_none(rule: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{rule}:\n{}", found.join("\n"));
}

fn lines_where(texts: &[(PathBuf, String)], breaks: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in texts {
        let lines = text.lines().enumerate().filter(|(_, line)| breaks(line));
        found.extend(lines.map(|(index, line)| format!("{}:{}: {}", path.display(), index + 1, line.trim())));
    }
    found
}

/// The crates of the table in ARCHITECTURE.md and what each may use; none for one that may use all.
fn layers() -> BTreeMap<String, Option<BTreeSet<String>>> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let rows = text.lines().skip_while(|line| !line.starts_with("| folder |")).skip(2);
    let rows = rows.take_while(|line| line.starts_with('|'));
    let row = |line: &str| {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [folder, _, uses, _] = cells[..] else { panic!("a row of four cells is expected: {line}") };
        let folder = folder.trim_matches('`').trim_end_matches('/').to_owned();
        let used = match uses {
            "all" => None,
            "-" => Some(BTreeSet::new()),
            names => Some(names.split(", ").map(str::to_owned).collect()),
        };
        (folder, used)
    };
    rows.map(row).collect()
}

#[test]
fn crates_use_only_what_the_architecture_lets_them() {
    let layers = layers();
    let metadata = MetadataCommand::new().manifest_path(root().join("Cargo.toml")).no_deps().exec().unwrap();
    let folder_of = |package: &str| match package.strip_prefix("diptych-") {
        Some(folder) => folder.to_owned(),
        None => package.to_owned(),
    };
    let ours: BTreeSet<String> = metadata.packages.iter().map(|package| folder_of(&package.name)).collect();
    let mut broken = Vec::new();
    for package in &metadata.packages {
        let name = folder_of(&package.name);
        let folder = package.manifest_path.parent().unwrap();
        if folder.file_name() != Some(&name) {
            broken.push(format!("{} lies in {folder}", package.name));
        }
        let Some(allowed) = layers.get(&name) else {
            broken.push(format!("{name} is not in the table"));
            continue;
        };
        // Dependencies of tests count as well: the encoder's tests know no decoder.
        let used = package.dependencies.iter().map(|dependency| folder_of(&dependency.name));
        for used in used.filter(|used| ours.contains(used)) {
            if allowed.as_ref().is_some_and(|allowed| !allowed.contains(&used)) {
                broken.push(format!("{name} uses {used}"));
            }
        }
    }
    assert_none("the table in ARCHITECTURE.md says otherwise", broken);
}

#[test]
fn the_architecture_names_what_there_is() {
    let mut broken = Vec::new();
    for (folder, used) in layers() {
        if !root().join(&folder).join("Cargo.toml").exists() && !root().join(&folder).is_dir() {
            broken.push(format!("{folder}/ is not there"));
        }
        for used in used.into_iter().flatten() {
            if !layers().contains_key(&used) {
                broken.push(format!("{folder} may use {used}, which has no row"));
            }
        }
    }
    assert_none("the table in ARCHITECTURE.md is not true", broken);
}

#[test]
fn pure_crates_know_no_machine() {
    const MACHINE: [&str; 7] = [
        "std::fs",
        "std::net",
        "std::thread",
        "std::process",
        "std::env",
        "SystemTime",
        "std::time::Instant",
    ];
    let mut broken = Vec::new();
    for (path, text) in texts(&["rs"]) {
        let is_pure = ["format/src", "encoder/src", "decoder/src"].iter().any(|pure| path.starts_with(pure));
        if !is_pure {
            continue;
        }
        if path.ends_with("src/lib.rs") && !text.contains("#![forbid(unsafe_code)]") {
            broken.push(format!("{}: does not forbid unsafe code", path.display()));
        }
        // Tests may use what they like.
        let code = text.split("#[cfg(test)]").next().unwrap();
        let used = MACHINE.iter().filter(|used| code.contains(**used));
        broken.extend(used.map(|used| format!("{}: {used}", path.display())));
    }
    assert_none("format, encoder and decoder do no I/O, read no clock and start no thread", broken);
}

#[test]
fn every_crate_keeps_the_lints() {
    let mut manifests = texts(&["toml"]);
    manifests.retain(|(path, _)| path.ends_with("Cargo.toml") && path != Path::new("Cargo.toml"));
    manifests.retain(|(path, _)| !path.starts_with("fuzz"));
    let without = manifests.iter().filter(|(_, text)| !text.contains("[lints]\nworkspace = true"));
    assert_none(
        "crates without the workspace's lints",
        without.map(|(path, _)| path.display().to_string()).collect(),
    );
}

#[test]
fn scripts_can_be_run() {
    use std::os::unix::fs::PermissionsExt;
    let mut broken = Vec::new();
    for path in files() {
        let place = root().join(&path);
        let is_script = fs::read(&place).unwrap().starts_with(b"#!/");
        let may_run = fs::metadata(&place).unwrap().permissions().mode() & 0o100 != 0;
        if is_script != may_run {
            broken.push(path.display().to_string());
        }
    }
    assert_none("a script can be run, and nothing else", broken);
}

#[test]
fn every_file_says_what_it_is() {
    let mut broken = Vec::new();
    for (path, text) in texts(&["rs"]) {
        let first = text.lines().next().unwrap_or_default();
        let says_nothing = ["//! This module", "//! This file", "//! This crate"];
        if !first.starts_with("//! ") || says_nothing.iter().any(|start| first.starts_with(start)) {
            broken.push(format!("{}: {first}", path.display()));
        }
    }
    assert_none("a Rust file begins with a line that says what the file is", broken);
}

#[test]
fn nothing_is_left_behind() {
    // Put together here, so that this file does not hold them.
    let calls = ["todo!", "dbg!", "unimplemented!"].map(|name| format!("{name}("));
    let words = [concat!("FIX", "ME"), concat!("XX", "X"), concat!("TO", "DO")];
    let ignored = concat!("#[", "ignore");
    let texts = texts(&["rs", "py", "sh", "md", "toml"]);
    let found = lines_where(&texts, |line| {
        let mut parts = line.split(|c: char| !c.is_alphanumeric());
        calls.iter().any(|call| line.contains(call))
            || line.contains(ignored)
            || parts.any(|part| words.contains(&part))
    });
    assert_none("what must not be merged", found);
}

#[test]
fn words_of_the_glossary_are_kept() {
    let banned = [
        concat!("cata", "log"),
        concat!("good", "bye"),
        concat!("data", "store"),
        concat!("vau", "lt"),
        concat!("swe", "ep"),
    ];
    let mut texts = texts(&["rs", "md", "py", "sh", "toml"]);
    // These speak about words, or about other programs in their own.
    texts.retain(|(path, _)| path != Path::new("spec/glossary.md") && !path.starts_with("docs/design"));
    let found = lines_where(&texts, |line| words(line).iter().any(|word| banned.contains(&&**word)));
    assert_none("another word is used for this: spec/glossary.md", found);
}

/// The words of a line, those in identifiers counted, in lower case and singular.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for part in line.split(|c: char| !c.is_ascii_alphabetic()) {
        let mut word = String::new();
        let mut previous_is_lower = false;
        for c in part.chars() {
            if c.is_ascii_uppercase() && previous_is_lower {
                words.push(std::mem::take(&mut word));
            }
            previous_is_lower = c.is_ascii_lowercase();
            word.push(c.to_ascii_lowercase());
        }
        words.push(word);
    }
    words.retain(|word| !word.is_empty());
    for word in &mut words {
        if let Some(singular) = word.strip_suffix('s') {
            *word = singular.to_owned();
        }
    }
    words
}

#[test]
fn words_are_found_in_identifiers() {
    assert_eq!(words("let oldNames = the_NAME2;"), ["let", "old", "name", "the", "name"]);
}

#[test]
fn links_lead_somewhere() {
    let texts = texts(&["md"]);
    let mut broken = Vec::new();
    for (path, text) in &texts {
        for target in links(text) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let place = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            if !root().join(&place).exists() {
                broken.push(format!("{}: {target}", path.display()));
            } else if !anchor.is_empty() && place.extension().is_some_and(|extension| extension == "md") {
                let text = fs::read_to_string(root().join(&place)).unwrap();
                if !anchors(&text).contains(anchor) {
                    broken.push(format!("{}: {target}: no such heading", path.display()));
                }
            }
        }
    }
    assert_none("a link leads nowhere", broken);
}

/// The targets of a document's links, those in code left out.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in prose(text) {
        let outside_code: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
        for (start, _) in outside_code.match_indices("](") {
            if let Some((target, _)) = outside_code[start + 2..].split_once(')') {
                found.push(target.to_owned());
            }
        }
    }
    found
}

/// The lines of a document that are not in fenced code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut in_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        in_code ^= is_fence;
        !in_code && !is_fence
    })
}

/// What links to a document's headings end in.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text).filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let kept = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = kept.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn links_and_anchors_are_found() {
    let text = "# A b, c\n[x](y.md#a-b-c) `[no](z)`\n```\n[no](w)\n```\n";
    assert_eq!(links(text), ["y.md#a-b-c"]);
    assert_eq!(anchors(text), BTreeSet::from(["a-b-c".to_owned()]));
}

#[test]
fn no_file_names_a_place_on_one_machine() {
    let places = ["work", "root"].map(|name| format!("/{name}/"));
    let mut texts = texts(&["rs", "md", "py", "sh", "toml", "vec", "json", "txt", "yml"]);
    texts.extend(fs::read_to_string(root().join(".ci/run")).map(|text| (PathBuf::from(".ci/run"), text)));
    let found = lines_where(&texts, |line| {
        places.iter().any(|place| {
            let is_absolute = |start: usize| {
                !line[..start].ends_with(|c: char| c.is_alphanumeric() || "_.-}~*".contains(c))
            };
            line.match_indices(place).any(|(start, _)| is_absolute(start))
        })
    });
    assert_none("a path of one machine", found);
}

#[test]
fn no_file_is_large() {
    const MOST: u64 = 1 << 20;
    let length = |path: &PathBuf| fs::metadata(root().join(path)).map_or(0, |metadata| metadata.len());
    let large = files().into_iter().filter(|path| length(path) > MOST);
    assert_none("files above 1 MiB", large.map(|path| path.display().to_string()).collect());
}

#[test]
fn no_test_is_forgotten() {
    let folder = Path::new("tests/tests/all");
    let main = fs::read_to_string(root().join(folder).join("main.rs")).unwrap();
    let named: BTreeSet<String> = main
        .lines()
        .filter_map(|line| line.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')))
        .map(str::to_owned)
        .collect();
    let in_folder = |path: PathBuf| path.strip_prefix(folder).ok().map(Path::to_owned);
    let there = files().into_iter().filter_map(in_folder).filter(|path| path.components().count() == 1);
    let there = there.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let there: BTreeSet<String> =
        there.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect();
    assert_eq!(there.into_iter().filter(|name| name != "main").collect::<BTreeSet<_>>(), named);
    // A second binary would be a second link, and its files would be looked for here in vain.
    let others =
        files().into_iter().filter(|path| path.starts_with("tests/tests") && !path.starts_with(folder));
    let others = others.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    assert_none("test files beside tests/tests/all", others.map(|path| path.display().to_string()).collect());
}
