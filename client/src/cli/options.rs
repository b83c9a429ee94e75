//! Options that several verbs have.

use std::path::PathBuf;

use diptych_localfs::select::Selection;
use globset::GlobBuilder;

use crate::error::{Error, Result};
use crate::size::parse_size;

/// What every verb takes.
#[derive(clap::Args)]
pub struct Common {
    /// Name each entry on standard error as it is dealt with.
    #[arg(short, long, global = true, help_heading = "Output")]
    pub verbose: bool,
    /// Say nothing but problems and errors.
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Output")]
    pub quiet: bool,
}

/// How many threads to use.
#[derive(clap::Args)]
pub struct Threads {
    /// Threads to use; by default as many as there are processors, and more to read from a server.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
}

impl Threads {
    /// The number.
    pub fn count(&self) -> usize {
        match self.threads {
            Some(threads) => threads.into(),
            None => std::thread::available_parallelism().map_or(1, usize::from).min(64),
        }
    }

    /// The number for whoever reads from there: where files are far away, more wait than work.
    pub fn count_for(&self, backend: &dyn diptych_backend::Backend) -> usize {
        match self.threads {
            Some(threads) => threads.into(),
            None => self.count().max(backend.reads_at_once()),
        }
    }
}

/// Whether to print JSON.
#[derive(clap::Args)]
pub struct Json {
    /// Print JSON: one object on each line, as docs/json.md describes.
    #[arg(long, help_heading = "Output")]
    pub json: bool,
}

/// Says what is wrong with a pattern that could leave nothing out: a backup that holds what it should not is noticed
/// late. The syntax itself is lenient, for the sake of ignore files.
pub(super) fn check_pattern(pattern: &str) -> Result<(), String> {
    if pattern.starts_with('#') {
        return Err("a line that begins with # is a comment; write \\# if a name begins so".to_owned());
    }
    let glob = pattern.strip_prefix('!').unwrap_or(pattern);
    if glob.trim_end().trim_matches('/').is_empty() {
        return Err("it matches nothing".to_owned());
    }
    let built = GlobBuilder::new(glob).literal_separator(true).backslash_escape(true).build();
    built.map(drop).map_err(|error| error.kind().to_string())
}

/// What of a directory tree to take.
#[derive(clap::Args)]
#[command(next_help_heading = "Selection")]
pub struct SelectionOptions {
    /// Leave out what matches PATTERN, written as in .gitignore. May be repeated.
    ///
    /// A pattern without a slash matches names anywhere; one that begins with a slash is told from DIR; one that ends
    /// with a slash matches directories alone; one that begins with ! takes back in what an earlier one left out.
    #[arg(short, long, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// Leave out what matches a pattern in FILE, which has one on each line. May be repeated.
    #[arg(long, value_name = "FILE")]
    exclude_from: Vec<PathBuf>,
    /// Take no notice of .diptychignore files in the tree.
    #[arg(long)]
    no_ignore_files: bool,
    /// Leave out what is in directories that are marked as caches by a CACHEDIR.TAG file.
    #[arg(long)]
    exclude_caches: bool,
    /// Leave out what is in directories that hold an entry called NAME. May be repeated.
    #[arg(long, value_name = "NAME")]
    exclude_if_present: Vec<std::ffi::OsString>,
    /// Stay on the file system of DIR; a directory where another one is mounted is kept, and is empty.
    #[arg(short = 'x', long)]
    one_file_system: bool,
    /// Leave out files larger than SIZE, such as 100M or 2G (powers of 1024).
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    exclude_larger_than: Option<u64>,
}

impl SelectionOptions {
    /// As the scan takes it.
    pub fn selection(&self) -> Result<Selection> {
        let mut exclude = self.exclude.clone();
        for pattern in &self.exclude {
            check_pattern(pattern)
                .map_err(|why| Error::Usage(format!("--exclude {pattern:?} is no pattern: {why}")))?;
        }
        for file in &self.exclude_from {
            let text = std::fs::read_to_string(file)
                .map_err(|error| Error::io(file.display().to_string(), "cannot be read", error))?;
            for (number, line) in text.lines().enumerate() {
                let is_pattern = !line.trim().is_empty() && !line.starts_with('#');
                if let Some(Err(why)) = is_pattern.then(|| check_pattern(line)) {
                    let what =
                        format!("{} line {}: {line:?} is no pattern: {why}", file.display(), number + 1);
                    return Err(Error::Usage(what));
                }
                exclude.push(line.to_owned());
            }
        }
        let names = self.exclude_if_present.iter().map(|name| name.clone().into_string());
        let exclude_if_present = names.collect::<Result<Vec<_>, _>>().map_err(|name| {
            Error::Usage(format!("--exclude-if-present {}: the name is not UTF-8", name.display()))
        })?;
        let selection = Selection {
            exclude,
            ignore_files: !self.no_ignore_files,
            exclude_caches: self.exclude_caches,
            exclude_if_present,
            one_file_system: self.one_file_system,
            exclude_larger_than: self.exclude_larger_than,
        };
        selection.validate().map_err(|error| Error::Usage(error.what))?;
        Ok(selection)
    }

    /// An archive has what it has: refuses options that say what of a directory to take.
    pub fn refuse_for_archives(&self) -> Result<()> {
        let is_used = !self.exclude.is_empty()
            || !self.exclude_from.is_empty()
            || self.no_ignore_files
            || self.exclude_caches
            || !self.exclude_if_present.is_empty()
            || self.one_file_system
            || self.exclude_larger_than.is_some();
        if is_used {
            let what = "options of selection say what of a directory to read; there is none here";
            return Err(Error::Usage(what.to_owned()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_that_could_match_nothing_are_refused() {
        for pattern in ["*.o", "/a/b/", "!kept", "\\[", "\\#x", "a b ", "[a-c]*", "{x,y}", "**/z"] {
            assert_eq!(check_pattern(pattern), Ok(()), "{pattern:?}");
        }
        for pattern in ["", " ", "/", "!", "!/", "[", "a[b", "{a", "#x", "x\\"] {
            assert!(check_pattern(pattern).is_err(), "{pattern:?}");
        }
    }
}
