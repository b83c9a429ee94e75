//! What a scan leaves out: patterns, ignore files, marked directories, other file systems, large files.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use diptych_format::{Error, Result};
use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

/// The file whose lines say what to leave out of its directory.
pub const IGNORE_FILE: &[u8] = b".diptychignore";
/// The file that marks a directory as a cache, and what it begins with if it means it.
pub(crate) const CACHE_TAG: &[u8] = b"CACHEDIR.TAG";
pub(crate) const CACHE_SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";

/// What a scan leaves out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Patterns in the syntax of `.gitignore`, relative to the root; a later one overrides an earlier one, `!`
    /// takes back, and all of them go before what ignore files say.
    pub exclude: Vec<String>,
    /// Whether `.diptychignore` in a directory says what is left out of it, in the syntax of `.gitignore`.
    pub ignore_files: bool,
    /// Whether a directory with a valid `CACHEDIR.TAG` is kept with that tag alone.
    pub exclude_caches: bool,
    /// Names whose presence in a directory leaves it empty.
    pub exclude_if_present: Vec<String>,
    /// Whether directories on other devices than the root are kept empty.
    pub one_file_system: bool,
    /// Regular files above this many bytes are left out.
    pub exclude_larger_than: Option<u64>,
}

impl Default for Selection {
    fn default() -> Self {
        Self {
            exclude: Vec::new(),
            ignore_files: true,
            exclude_caches: false,
            exclude_if_present: Vec::new(),
            one_file_system: false,
            exclude_larger_than: None,
        }
    }
}

impl Selection {
    /// Says which pattern is not one, before anything is scanned.
    pub fn validate(&self) -> Result<()> {
        self.patterns()?;
        match self.exclude_if_present.iter().find(|name| name.is_empty() || name.contains(['/', '\0'])) {
            Some(name) => Err(Error::corrupt(format!("{name:?} is not a name that a file can have"))),
            None => Ok(()),
        }
    }

    /// The patterns, ready to be matched with paths below the root; none if there are none.
    pub(crate) fn patterns(&self) -> Result<Option<Gitignore>> {
        Ok(PatternList::new(&self.exclude)?.map(|list| list.0))
    }
}

/// Patterns in the syntax of `.gitignore`, to be matched with paths below one root.
#[derive(Debug)]
pub struct PatternList(Gitignore);

impl PatternList {
    /// Reads patterns; none if there are none.
    pub fn new(patterns: &[String]) -> Result<Option<Self>> {
        if patterns.is_empty() {
            return Ok(None);
        }
        let mut builder = GitignoreBuilder::new(".");
        for pattern in patterns {
            builder.add_line(None, pattern).map_err(|error| bad_pattern(pattern, &error))?;
        }
        let built = builder.build().map_err(|error| Error::corrupt(format!("the patterns: {error}")))?;
        Ok(Some(Self(built)))
    }

    /// Whether the last pattern that matches takes it (true) or takes it back (false); nothing if none matches. What
    /// stands above it is not looked at.
    pub fn decide(&self, path: &[u8], is_directory: bool) -> Option<bool> {
        decide(&self.0, path, is_directory)
    }
}

fn bad_pattern(pattern: &str, error: &ignore::Error) -> Error {
    Error::corrupt(format!("the pattern {pattern:?} is not valid: {error}"))
}

/// The patterns that hold for a directory: its own ignore file's, then those of the directories above it.
#[derive(Debug)]
pub(crate) struct Scope {
    patterns: Gitignore,
    /// The bytes of a path that lead to the directory, with the slash behind them.
    prefix: usize,
    above: Option<Arc<Scope>>,
}

impl Scope {
    /// The scope that the ignore file of the directory at `path` opens, and what is wrong with its lines.
    pub fn open(path: &[u8], text: &[u8], above: Option<Arc<Scope>>) -> (Option<Arc<Scope>>, Vec<String>) {
        let mut builder = GitignoreBuilder::new(".");
        let mut wrong = Vec::new();
        // A byte order mark is not part of the first pattern.
        let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
        for (line, number) in text.split(|b| *b == b'\n').zip(1u64..) {
            let added = std::str::from_utf8(line)
                .map_err(|_| "it is not UTF-8".to_owned())
                .and_then(|line| builder.add_line(None, line).map(|_| ()).map_err(|error| error.to_string()));
            if let Err(error) = added {
                wrong.push(format!("line {number} is left aside: {error}"));
            }
        }
        let prefix = if path.is_empty() { 0 } else { path.len() + 1 };
        match builder.build() {
            Ok(patterns) if patterns.is_empty() => (above, wrong),
            Ok(patterns) => (Some(Arc::new(Scope { patterns, prefix, above })), wrong),
            Err(error) => {
                wrong.push(error.to_string());
                (above, wrong)
            }
        }
    }
}

/// Whether patterns leave out what is at `path`: the root's first, then the nearest ignore file's outward.
pub(crate) fn is_excluded(
    root: Option<&Gitignore>,
    scope: Option<&Scope>,
    path: &[u8],
    is_directory: bool,
) -> bool {
    if let Some(decision) = root.and_then(|patterns| decide(patterns, path, is_directory)) {
        return decision;
    }
    let mut next = scope;
    while let Some(scope) = next {
        let below = path.get(scope.prefix..).unwrap_or(path);
        if let Some(decision) = decide(&scope.patterns, below, is_directory) {
            return decision;
        }
        next = scope.above.as_deref();
    }
    false
}

fn decide(patterns: &Gitignore, path: &[u8], is_directory: bool) -> Option<bool> {
    match patterns.matched(Path::new(std::ffi::OsStr::from_bytes(path)), is_directory) {
        Match::None => None,
        Match::Ignore(_) => Some(true),
        Match::Whitelist(_) => Some(false),
    }
}
