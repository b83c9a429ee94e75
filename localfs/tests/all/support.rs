//! Trees to test with, and what tests see of them.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use diptych_format::{Digest, Entry, Holds, Kind, Monitor, Problem};
use diptych_localfs::capture::{Captured, Part, capture};
use diptych_localfs::extract::{OutDirectory, Target};
use diptych_localfs::scan::{Scan, ScanOptions, Step, scan};
use diptych_localfs::select::Selection;
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use tempfile::TempDir;

/// Keeps what is reported.
#[derive(Default)]
pub struct Recorder(pub Mutex<Vec<Problem>>);

impl Monitor for Recorder {
    fn entry(&self, _: &[u8], _: Kind) {}
    fn bytes(&self, _: u64) {}
    fn problem(&self, problem: Problem) {
        self.0.lock().unwrap().push(problem);
    }
}

impl Recorder {
    /// What was reported, as `path: what`, with `!` in front of a loss.
    pub fn lines(&self) -> Vec<String> {
        let problems = std::mem::take(&mut *self.0.lock().unwrap());
        problems
            .into_iter()
            .map(|p| format!("{}{}: {}", if p.is_loss { "!" } else { "" }, show(&p.path), p.what))
            .collect()
    }
}

pub fn show(path: &[u8]) -> String {
    path.escape_ascii().to_string()
}

/// A directory on the file system that builds are on, which everyone may enter.
pub fn temp() -> TempDir {
    let temp = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    std::fs::set_permissions(temp.path(), PermissionsExt::from_mode(0o755)).unwrap();
    temp
}

/// Writes files; a path that ends in `/` is a directory, one with ` -> ` a symbolic link.
pub fn make(root: &Path, paths: &[&str]) {
    for path in paths {
        if let Some((name, target)) = path.split_once(" -> ") {
            std::fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(target, root.join(name)).unwrap();
        } else if path.ends_with('/') {
            std::fs::create_dir_all(root.join(path)).unwrap();
        } else {
            std::fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            std::fs::write(root.join(path), path).unwrap();
        }
    }
}

pub fn begin(root: &Path, selection: Selection, threads: usize) -> (Scan, Arc<Recorder>) {
    let recorder = Arc::new(Recorder::default());
    let scan =
        scan(root, ScanOptions { selection, threads }, Arc::clone(&recorder) as Arc<dyn Monitor>).unwrap();
    (scan, recorder)
}

/// The steps of a scan in a line each: `>` enters, `<` leaves, `|` ends a piece, the rest are names.
pub fn steps(root: &Path, selection: Selection, threads: usize) -> (Vec<String>, Vec<String>) {
    let (mut scan, recorder) = begin(root, selection, threads);
    let mut lines = Vec::new();
    while let Some(step) = scan.next().unwrap() {
        match step {
            Step::Enter(directory) => {
                let words: Vec<_> = directory.entry.status.words().collect();
                directory.entry.validate().unwrap();
                lines.push(format!("> {} {}", show(&directory.path), words.join(" ")).trim_end().to_owned());
            }
            Step::Entries(found) => {
                assert!(!found.is_empty() && found.len() <= 256);
                lines.extend(found.iter().map(|found| show(&found.path())));
            }
            Step::EndPiece => lines.push("|".to_owned()),
            Step::Leave(_) => lines.push("<".to_owned()),
            Step::Vanished(name) => lines.push(format!("- {}", show(name.as_bytes()))),
        }
    }
    assert!(scan.next().unwrap().is_none());
    (lines, recorder.lines())
}

/// The paths of a scan without its structure.
pub fn paths(root: &Path, selection: Selection) -> Vec<String> {
    let (lines, problems) = steps(root, selection, 1);
    assert_eq!(problems, [] as [&str; 0]);
    let names = lines.iter().filter(|line| !matches!(line.as_str(), "<" | "|" | ">"));
    names.map(|line| line.strip_prefix("> ").map_or(line.clone(), |path| format!("{path}/"))).collect()
}

/// Reads a content whole: the entry with its digest and holes, and the bytes with zeros in the holes.
pub fn read(captured: Captured, monitor: &dyn Monitor) -> (Entry, Vec<u8>) {
    let (mut entry, mut all) = (captured.entry, Vec::new());
    if let Some(mut content) = captured.content {
        loop {
            let before = all.len();
            match content.read(&mut all, 64 << 10) {
                Part::Data(count) => assert_eq!(all.len(), before + count),
                Part::Hole(length) => all.resize(before + length as usize, 0),
                Part::End => break,
            }
        }
        let outcome = content.finish(monitor);
        assert_eq!(outcome.size, all.len() as u64);
        entry.status = entry.status.with(outcome.status);
        entry.holes = outcome.holes;
        entry.holds = Holds::Content { size: outcome.size, digest: Digest::of(&all) };
    }
    entry.validate().unwrap();
    (entry, all)
}

/// All entries of a tree by path, without what a copy cannot have.
pub fn tree(root: &Path) -> BTreeMap<String, Entry> {
    let (mut scan, recorder) = begin(root, Selection::default(), 1);
    let mut tree = BTreeMap::new();
    let mut keep = |path: &[u8], mut entry: Entry| {
        entry.change = Default::default();
        tree.insert(show(path), entry);
    };
    while let Some(step) = scan.next().unwrap() {
        match step {
            Step::Enter(directory) => keep(&directory.path, directory.entry),
            Step::Entries(found) => {
                for found in found {
                    keep(&found.path(), read(capture(&found, &*recorder).unwrap(), &*recorder).0);
                }
            }
            Step::Vanished(_) | Step::EndPiece | Step::Leave(_) => {}
        }
    }
    assert_eq!(recorder.lines(), [] as [&str; 0]);
    tree
}

/// Copies a tree entry by entry, and says what could not be done.
pub fn copy(from: &Path, to: &Path, is_overwriting: bool) -> Vec<String> {
    let (mut scan, recorder) = begin(from, Selection::default(), 2);
    let target = Target::open(to, is_overwriting).unwrap();
    let mut problems = Vec::new();
    let mut open: Vec<(OutDirectory, Entry, Vec<u8>)> = Vec::new();
    let mut links: HashMap<(u64, u64), Vec<u8>> = HashMap::new();
    let mut note = |path: &[u8], result: diptych_format::Result<Vec<String>>| match result {
        Ok(lines) => problems.extend(lines.into_iter().map(|line| format!("{}: {line}", show(path)))),
        Err(error) => problems.push(format!("{}: {error}", show(path))),
    };
    while let Some(step) = scan.next().unwrap() {
        match step {
            Step::Enter(directory) => {
                let out = match open.last() {
                    None => target.root().unwrap(),
                    Some((parent, ..)) => parent.create_directory(&directory.entry.name).unwrap(),
                };
                out.prepare(&directory.entry);
                open.push((out, directory.entry, directory.path.to_vec()));
            }
            Step::Entries(found) => {
                let (directory, ..) = open.last().unwrap();
                for found in found {
                    let path = found.path();
                    let captured = capture(&found, &*recorder).unwrap();
                    let identity = (captured.device, found.facts.inode);
                    let is_linked = captured.links > 1;
                    let (entry, bytes) = read(captured, &*recorder);
                    if let Some(first) = links.get(&identity).filter(|_| is_linked) {
                        note(&path, directory.link(&entry.name, &target, first).map(|()| Vec::new()));
                        continue;
                    }
                    note(&path, write(directory, &entry, &bytes, is_linked));
                    links.insert(identity, path);
                }
            }
            Step::Vanished(_) | Step::EndPiece => {}
            Step::Leave(_) => {
                let (directory, entry, path) = open.pop().unwrap();
                note(&path, directory.finish(&entry));
            }
        }
    }
    for (path, problem) in target.finish() {
        note(&path, Ok(vec![problem]));
    }
    assert_eq!(recorder.lines(), [] as [&str; 0]);
    problems
}

/// Writes an entry with its content, the holes left out.
pub fn write(
    directory: &OutDirectory,
    entry: &Entry,
    bytes: &[u8],
    is_linked: bool,
) -> diptych_format::Result<Vec<String>> {
    let Holds::Content { size, .. } = entry.holds else {
        let problems = directory.create_special(entry)?;
        if is_linked {
            directory.identity(&entry.name)?;
        }
        return Ok(problems);
    };
    let file = directory.create_file(&entry.name)?;
    file.prepare(entry);
    if is_linked {
        file.identity()?;
    }
    file.set_length(size)?;
    let mut at = 0;
    for hole in &entry.holes {
        file.write_at(&bytes[at as usize..hole.start as usize], at)?;
        at = hole.start + hole.length;
    }
    file.write_at(&bytes[at as usize..], at)?;
    file.finish(entry)
}

/// Whether the tests may do what only root may.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The user that `as_nobody` becomes.
pub const NOBODY: u32 = 54_321;

/// Runs something without root's rights: on a thread of its own, which alone gives them up.
pub fn as_nobody<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if is_root() {
                let (user, group) = (rustix::fs::Uid::from_raw(NOBODY), rustix::fs::Gid::from_raw(NOBODY));
                set_thread_groups(&[]).unwrap();
                set_thread_res_gid(group, group, group).unwrap();
                set_thread_res_uid(user, user, user).unwrap();
            }
            run()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Makes a directory that `as_nobody` owns.
pub fn owned_by_nobody(path: &Path) {
    std::fs::create_dir_all(path).unwrap();
    if is_root() {
        std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
}

/// Runs a tool on a path; false if there is no such tool or it fails.
pub fn tool(name: &str, arguments: &[&str], path: &Path) -> bool {
    std::process::Command::new(name).args(arguments).arg(path).status().is_ok_and(|status| status.success())
}

pub fn name(bytes: &[u8]) -> diptych_format::Name {
    diptych_format::Name::try_new(bytes).unwrap()
}

pub fn os(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}
