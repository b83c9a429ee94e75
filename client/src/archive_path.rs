//! What an ARCHIVE argument means: a pair of files, one file that holds both streams, or `-`.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// How the name of a pair's metadata file ends.
pub const METADATA_SUFFIX: &str = ".meta.dpt";
/// How the name of a pair's data file ends.
pub const DATA_SUFFIX: &str = ".data.dpt";

/// Where an archive is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArchivePath {
    /// Two files; `base` is their name without the suffixes.
    Pair {
        /// The common part of both names.
        base: PathBuf,
    },
    /// One file that holds both streams.
    Single(PathBuf),
    /// Standard input or output: one file that holds both streams.
    Standard,
}

impl ArchivePath {
    /// Where to write: `-`, or a pair under the name that is left when a suffix is taken off.
    pub fn for_writing(argument: &Path) -> Self {
        if argument.as_os_str() == "-" {
            return Self::Standard;
        }
        Self::Pair { base: base_of(argument).unwrap_or_else(|| argument.to_owned()) }
    }

    /// What is there to read: `exists` tells which files are.
    ///
    /// A name with a suffix is a pair; any other name is a pair if its metadata file is there, and else one
    /// file if that is there. If nothing is there it is the pair, for that is what the error should name.
    pub fn for_reading(argument: &Path, exists: impl Fn(&Path) -> bool) -> Self {
        if argument.as_os_str() == "-" {
            return Self::Standard;
        }
        if let Some(base) = base_of(argument) {
            return Self::Pair { base };
        }
        let base = argument.to_owned();
        if !exists(&with_suffix(&base, METADATA_SUFFIX)) && exists(&base) {
            return Self::Single(base);
        }
        Self::Pair { base }
    }

    /// [`ArchivePath::for_reading`] with the files of this machine.
    pub fn find(argument: &Path) -> Self {
        Self::for_reading(argument, Path::is_file)
    }

    /// The file that has the metadata stream.
    pub fn metadata_file(&self) -> PathBuf {
        match self {
            Self::Pair { base } => with_suffix(base, METADATA_SUFFIX),
            Self::Single(path) => path.clone(),
            Self::Standard => PathBuf::from("-"),
        }
    }

    /// The file that has the contents.
    pub fn data_file(&self) -> PathBuf {
        match self {
            Self::Pair { base } => with_suffix(base, DATA_SUFFIX),
            Self::Single(path) => path.clone(),
            Self::Standard => PathBuf::from("-"),
        }
    }
}

fn with_suffix(base: &Path, suffix: &str) -> PathBuf {
    let mut name = base.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The path without a suffix, if it has one and something is left of the name.
fn base_of(argument: &Path) -> Option<PathBuf> {
    let bytes = argument.as_os_str().as_bytes();
    [METADATA_SUFFIX, DATA_SUFFIX]
        .iter()
        .find_map(|suffix| bytes.strip_suffix(suffix.as_bytes()))
        .filter(|base| !base.is_empty() && !base.ends_with(b"/"))
        .map(|base| PathBuf::from(OsString::from_vec(base.to_vec())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(base: &str) -> ArchivePath {
        ArchivePath::Pair { base: base.into() }
    }

    #[test]
    fn every_way_to_name_an_archive() {
        let cases: [(&str, &[&str], ArchivePath); 9] = [
            ("-", &[], ArchivePath::Standard),
            ("home", &["home.meta.dpt"], pair("home")),
            ("home.meta.dpt", &["home.meta.dpt"], pair("home")),
            ("d/home.data.dpt", &[], pair("d/home")),
            ("home", &["home", "home.meta.dpt"], pair("home")),
            ("home.dpt", &["home.dpt"], ArchivePath::Single("home.dpt".into())),
            ("nothing", &[], pair("nothing")),
            (".meta.dpt", &[".meta.dpt"], ArchivePath::Single(".meta.dpt".into())),
            ("d/.data.dpt", &[], pair("d/.data.dpt")),
        ];
        for (argument, files, expected) in cases {
            let found = ArchivePath::for_reading(Path::new(argument), |path| {
                files.iter().any(|file| Path::new(file) == path)
            });
            assert_eq!(found, expected, "{argument}");
        }
    }

    #[test]
    fn writing_takes_a_suffix_off() {
        assert_eq!(ArchivePath::for_writing(Path::new("a.data.dpt")), pair("a"));
        assert_eq!(ArchivePath::for_writing(Path::new("a.dpt")), pair("a.dpt"));
        assert_eq!(pair("a").metadata_file(), Path::new("a.meta.dpt"));
        assert_eq!(pair("a").data_file(), Path::new("a.data.dpt"));
    }
}
