//! The archive's own files, where they lie inside the tree that is archived: they are left out of it.
//!
//! Otherwise an archive would hold its predecessor, and what of itself was written when the scan came by.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use diptych_format::{Monitor, Problem};
use diptych_localfs::select::Selection;

/// `selection` without the files `own`, as far as they are below `root`. Those that were there before are named.
pub fn leave_out(own: &[PathBuf], root: &Path, mut selection: Selection, monitor: &dyn Monitor) -> Selection {
    // A directory that is not there is the scan's to tell.
    let Ok(root) = root.canonicalize() else { return selection };
    for path in own {
        let Some(below) = place_below(&root, path) else { continue };
        // Of patterns the last one decides.
        selection.exclude.push(pattern_of(&below));
        let is_whole = path.extension().is_none_or(|extension| extension != PARTIAL);
        if is_whole && path.symlink_metadata().is_ok() {
            let what = "left out: it is a file of the archive that is being made".to_owned();
            monitor.problem(Problem { path: below, what, is_loss: false });
        }
    }
    selection
}

/// `selection` without a repository, if that is below `root`: what is written while it is read would be read again, for
/// ever more. It is the same at every run, so that nothing is said of it.
pub fn leave_out_repository(location: &str, root: &Path, mut selection: Selection) -> Selection {
    let below = root.canonicalize().ok().and_then(|root| place_below(&root, Path::new(location)));
    if let Some(below) = below.filter(|below| !below.is_empty()) {
        selection.exclude.push(pattern_of(&below));
    }
    selection
}

/// How the names of files end that are not whole yet.
pub const PARTIAL: &str = "partial";

/// Where an open file is, if it is a file with a name.
pub fn path_of(file: &File) -> Option<PathBuf> {
    let is_file = file.metadata().is_ok_and(|metadata| metadata.is_file());
    is_file.then(|| std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()).flatten()
}

/// The path below `root` of what is at `path`. A link at its end counts itself: it is what would be replaced.
fn place_below(root: &Path, path: &Path) -> Option<Vec<u8>> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let place = parent.canonicalize().ok()?.join(path.file_name()?);
    place.strip_prefix(root).ok().map(|below| below.as_os_str().as_bytes().to_vec())
}

/// A pattern for the one path below the root, whatever is in its name.
fn pattern_of(below: &[u8]) -> String {
    let mut pattern = "/".to_owned();
    for part in below.utf8_chunks() {
        for letter in part.valid().chars() {
            if letter.is_whitespace() || r"\*?[]{}!#".contains(letter) {
                pattern.push('\\');
            }
            pattern.push(letter);
        }
        // Patterns are text. What is none can only be any byte.
        pattern.extend(part.invalid().iter().map(|_| '?'));
    }
    pattern
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Told(Mutex<Vec<Vec<u8>>>);

    impl Monitor for Told {
        fn entry(&self, _: &[u8], _: diptych_format::Kind) {}
        fn bytes(&self, _: u64) {}
        fn problem(&self, problem: Problem) {
            assert!(!problem.is_loss);
            self.0.lock().unwrap().push(problem.path);
        }
    }

    #[test]
    fn only_what_is_below_the_root_is_left_out() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::create_dir_all(at("tree/sub")).unwrap();
        for name in ["tree/sub/there", "tree/there.partial", "outside"] {
            std::fs::write(at(name), "").unwrap();
        }
        let own = ["tree/sub/there", "tree/new", "tree/there.partial", "outside", "tree2/x"].map(at);
        let told = Told::default();
        let selection = leave_out(&own, &at("tree/sub/.."), Selection::default(), &told);
        assert_eq!(selection.exclude, ["/sub/there", "/new", "/there.partial"]);
        assert_eq!(*told.0.lock().unwrap(), [b"sub/there"]);
    }

    #[test]
    fn patterns_mean_the_name() {
        assert_eq!(pattern_of(b"d/a*b [1]\\ \xff"), r"/d/a\*b\ \[1\]\\\ ?");
    }
}
