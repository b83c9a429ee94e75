//! Which entries patterns take: those of `--include` and `--exclude`, in the syntax of `.gitignore`.

use diptych_localfs::select::PatternList;

use crate::error::{Error, Result};
use crate::select::Verdict;

/// Patterns that are told from one root.
#[derive(Debug, Default)]
pub struct Patterns {
    include: Option<PatternList>,
    exclude: Option<PatternList>,
}

impl Patterns {
    /// Takes what `include` matches, with all below it, or everything if that is empty; but not what `exclude` matches.
    pub fn new(include: &[String], exclude: &[String]) -> Result<Self> {
        let list = |patterns| PatternList::new(patterns).map_err(|error| Error::Usage(error.what));
        Ok(Self { include: list(include)?, exclude: list(exclude)? })
    }

    /// Whether something has to match to be taken.
    pub fn has_include(&self) -> bool {
        self.include.is_some()
    }

    /// Whether everything is taken.
    pub fn is_everything(&self) -> bool {
        self.include.is_none() && self.exclude.is_none()
    }

    /// Says of a path whether it is taken, whatever was asked before. The nearest that matches decides, so that `!` takes
    /// back what a directory above it has; what is below something excluded is lost for good, as in `.gitignore`.
    pub fn verdict(&self, path: &[u8], is_directory: bool) -> Verdict {
        if self.is_everything() {
            return Verdict::Selected;
        }
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(end, _)| end);
        let mut is_included = self.include.is_none();
        for end in ends.chain((!path.is_empty()).then_some(path.len())) {
            let (path, is_directory) = (path.get(..end).unwrap_or(path), is_directory || end < path.len());
            let decide = |list: &PatternList| list.decide(path, is_directory);
            if self.exclude.as_ref().and_then(decide) == Some(true) {
                return Verdict::Passed;
            }
            if let Some(decision) = self.include.as_ref().and_then(decide) {
                is_included = decision;
            }
        }
        match is_included {
            true => Verdict::Selected,
            false if is_directory => Verdict::OnTheWay,
            false => Verdict::Passed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(include: &[&str], exclude: &[&str], paths: &[(&str, Verdict)]) {
        let owned =
            |patterns: &[&str]| patterns.iter().map(|&pattern| pattern.to_owned()).collect::<Vec<_>>();
        let patterns = Patterns::new(&owned(include), &owned(exclude)).unwrap();
        for (path, expected) in paths {
            let (path, is_directory) =
                path.strip_suffix('/').map_or((*path, path.is_empty()), |path| (path, true));
            assert_eq!(
                patterns.verdict(path.as_bytes(), is_directory),
                *expected,
                "{include:?} {exclude:?} {path}"
            );
        }
    }

    #[test]
    fn what_is_included_is_taken_with_all_below_it_but_what_is_excluded() {
        use Verdict::{OnTheWay, Passed, Selected};
        verdicts(&[], &[], &[("", Selected), ("a", Selected)]);
        verdicts(
            &[],
            &["*.o", "/tmp/"],
            &[("a.o", Passed), ("x/a.o", Passed), ("tmp/", Passed), ("x/tmp/", Selected)],
        );
        verdicts(
            &["/docs", "*.pdf", "!/docs/old"],
            &["draft*"],
            &[
                ("", OnTheWay),
                ("docs/", Selected),
                ("docs/a/b", Selected),
                ("docs/old/", OnTheWay),
                ("docs/old/a", Passed),
                ("docs/old/a.pdf", Selected),
                ("docs/draft/a.pdf", Passed),
                ("x/", OnTheWay),
                ("x/a", Passed),
                ("x/a.pdf", Selected),
            ],
        );
        verdicts(&[], &["*.o", "!kept.o"], &[("a.o", Passed), ("kept.o", Selected)]);
    }
}
