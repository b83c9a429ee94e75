//! Which entries of an archive PATH arguments select: by name, with everything below, or by glob.

use diptych_decoder::Archive;
use globset::{GlobBuilder, GlobMatcher};

use crate::error::{Error, Result};
use crate::names;

/// What to do if a PATH leads nowhere.
pub const PATHS: &str = "Paths are told from the archive's root: `diptych list ARCHIVE` prints them.";

/// What a selection says of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is selected, and everything below it.
    Selected,
    /// It is not selected itself, but something below it may be.
    OnTheWay,
    /// Neither it nor anything below.
    Passed,
}

/// PATH arguments. None at all selects everything.
#[derive(Debug, Default)]
pub struct PathSelection {
    patterns: Vec<Pattern>,
    /// Which of them have selected something.
    used: Vec<bool>,
}

#[derive(Debug)]
struct Pattern {
    /// The argument as a path: it is always meant literally too, so that odd names can be named.
    literal: Vec<u8>,
    glob: Option<Glob>,
    /// Why there is no glob though there are wildcards.
    not_a_glob: Option<String>,
}

#[derive(Debug)]
struct Glob {
    matcher: GlobMatcher,
    /// The path above the first part with a wildcard: nothing outside it matches.
    within: Vec<u8>,
}

impl PathSelection {
    /// Reads arguments: paths inside the archive, with or without a leading `/` or `./`.
    pub fn new<A: AsRef<[u8]>>(arguments: &[A]) -> Result<Self> {
        let patterns =
            arguments.iter().map(|argument| Pattern::new(argument.as_ref())).collect::<Result<Vec<_>>>()?;
        let used = vec![false; patterns.len()];
        Ok(Self { patterns, used })
    }

    /// Whether everything is selected.
    pub fn is_everything(&self) -> bool {
        self.patterns.is_empty() || self.patterns.iter().any(|pattern| pattern.literal.is_empty())
    }

    /// Refuses arguments without wildcards that name nothing in `archive`: before anything is done.
    pub fn check(&mut self, archive: &Archive) -> Result<()> {
        for (pattern, used) in self.patterns.iter().zip(&mut self.used) {
            if archive.lookup(&pattern.literal)?.is_some() {
                *used = true;
            } else if let Some(why) = &pattern.not_a_glob {
                let shown = names::show(&pattern.literal);
                let what = format!(
                    "{shown}: no such name is in the archive, and no pattern can be read from it: {why}"
                );
                return Err(Error::Usage(what));
            } else if pattern.glob.is_none() {
                return Err(nothing_there(&pattern.literal));
            }
        }
        Ok(())
    }

    /// Says of an entry whether it is selected. Ask for a directory before what is below it; below a selected one
    /// there is no need to ask.
    pub fn verdict(&mut self, path: &[u8], is_directory: bool) -> Verdict {
        if self.patterns.is_empty() {
            return Verdict::Selected;
        }
        let mut verdict = Verdict::Passed;
        for (pattern, used) in self.patterns.iter().zip(&mut self.used) {
            if pattern.selects(path) {
                *used = true;
                verdict = Verdict::Selected;
            } else if verdict == Verdict::Passed && is_directory && pattern.may_select_below(path) {
                verdict = Verdict::OnTheWay;
            }
        }
        if verdict == Verdict::Selected && is_directory {
            // Nobody asks for what is below: what could select there counts as having done so.
            for (pattern, used) in self.patterns.iter().zip(&mut self.used) {
                *used |= pattern.may_select_below(path);
            }
        }
        verdict
    }

    /// After everything was asked for: an error for the first argument that selected nothing.
    pub fn finish(&self) -> Result<()> {
        let unused = self.patterns.iter().zip(&self.used).find(|(_, used)| !**used);
        unused.map_or(Ok(()), |(pattern, _)| Err(nothing_like(pattern)))
    }
}

fn nothing_like(pattern: &Pattern) -> Error {
    match pattern.glob {
        Some(_) => Error::missing(names::show(&pattern.literal), "nothing in the archive matches", PATHS),
        None => nothing_there(&pattern.literal),
    }
}

fn nothing_there(path: &[u8]) -> Error {
    Error::missing(names::show(path), "is not in the archive", PATHS)
}

impl Pattern {
    fn new(argument: &[u8]) -> Result<Self> {
        if argument.is_empty() {
            let what = "an empty PATH names nothing: write . for the whole tree";
            return Err(Error::Usage(what.to_owned()));
        }
        let literal = clean(argument);
        let Some(wildcard) = literal.iter().position(|byte| b"*?[{".contains(byte)) else {
            return Ok(Self { literal, glob: None, not_a_glob: None });
        };
        let within = literal[..wildcard].iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash);
        let within = literal[..within].to_vec();
        // A pattern that is no text cannot be a glob; it may still be a name. So may one with an open bracket.
        let glob = std::str::from_utf8(&literal).map_err(|_| "it is not UTF-8".to_owned()).and_then(|text| {
            let glob = GlobBuilder::new(text).literal_separator(true).build();
            glob.map_err(|error| error.kind().to_string())
        });
        Ok(match glob {
            Ok(glob) => {
                let glob = Glob { matcher: glob.compile_matcher(), within };
                Self { literal, glob: Some(glob), not_a_glob: None }
            }
            Err(why) => Self { literal, glob: None, not_a_glob: Some(why) },
        })
    }

    fn selects(&self, path: &[u8]) -> bool {
        use std::os::unix::ffi::OsStrExt;
        is_within(path, &self.literal)
            || self.glob.as_ref().is_some_and(|glob| glob.matcher.is_match(std::ffi::OsStr::from_bytes(path)))
    }

    fn may_select_below(&self, directory: &[u8]) -> bool {
        is_within(&self.literal, directory)
            || self
                .glob
                .as_ref()
                .is_some_and(|glob| is_within(&glob.within, directory) || is_within(directory, &glob.within))
    }
}

/// Whether `path` is `directory` or below it.
fn is_within(path: &[u8], directory: &[u8]) -> bool {
    directory.is_empty()
        || path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// Takes leading `/` and `./` and trailing `/` off.
fn clean(argument: &[u8]) -> Vec<u8> {
    argument
        .split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .collect::<Vec<_>>()
        .join(&b'/')
}

/// Reads one PATH argument that is meant literally.
pub fn clean_path(argument: &[u8]) -> Vec<u8> {
    clean(argument)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(arguments: &[&str], paths: &[(&str, Verdict)]) {
        let mut selection = PathSelection::new(arguments).unwrap();
        for (path, expected) in paths {
            assert_eq!(selection.verdict(path.as_bytes(), true), *expected, "{arguments:?} {path}");
        }
    }

    #[test]
    fn paths_select_what_is_below() {
        use Verdict::{OnTheWay, Passed, Selected};
        verdicts(&[], &[("", Selected), ("a/b", Selected)]);
        verdicts(
            &["./etc/ssh/"],
            &[
                ("", OnTheWay),
                ("etc", OnTheWay),
                ("etc/ssh", Selected),
                ("etc/ssh/config", Selected),
                ("etc/ssh2", Passed),
                ("etcetera", Passed),
            ],
        );
    }

    #[test]
    fn globs_select_what_matches() {
        use Verdict::{OnTheWay, Passed, Selected};
        verdicts(
            &["usr/*/bin"],
            &[
                ("", OnTheWay),
                ("usr", OnTheWay),
                ("var", Passed),
                ("usr/local", OnTheWay),
                ("usr/local/bin", Selected),
                ("usr/local/x/bin", OnTheWay),
            ],
        );
        verdicts(&["**/*.rs"], &[("", OnTheWay), ("a", OnTheWay), ("a/b.rs", Selected), ("c.rs", Selected)]);
        // A name that looks like a glob can be named.
        verdicts(&["names/[a]"], &[("names/[a]", Selected), ("names/a", Selected), ("names/b", OnTheWay)]);
    }

    #[test]
    fn what_selects_nothing_is_named() {
        let mut selection = PathSelection::new(&["a", "b*"]).unwrap();
        selection.verdict(b"a", false);
        assert!(selection.finish().unwrap_err().to_string().starts_with("b*: "));
        selection.verdict(b"bb", false);
        assert!(selection.finish().is_ok());
    }

    #[test]
    fn what_another_argument_selects_as_a_whole_counts_for_globs() {
        let mut selection = PathSelection::new(&["docs", "**/*.txt", "other/*.txt"]).unwrap();
        assert_eq!(selection.verdict(b"docs", true), Verdict::Selected);
        assert!(selection.finish().unwrap_err().to_string().starts_with("other/*.txt: "));
    }
}
