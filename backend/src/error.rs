//! What can go wrong with a repository's files, in classes that ask for different answers.

use std::fmt;
use std::io::{self, ErrorKind};

/// The class of an error: what a caller can tell apart, whatever the location is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// It is not there.
    Missing,
    /// It is there already, and is not to be replaced.
    Exists,
    /// Whoever runs this may not do it.
    Denied,
    /// There is no room left.
    Full,
    /// Nothing can be written there.
    ReadOnly,
    /// The file ends before the bytes that were asked for.
    Truncated,
    /// Something that this program does not do, or that the location cannot.
    Unsupported,
    /// Anything else that was said by the operating system or by whoever keeps the files.
    Io,
}

impl Class {
    /// The class of what an operating system said.
    pub fn of(error: &io::Error) -> Self {
        match error.kind() {
            ErrorKind::NotFound => Class::Missing,
            ErrorKind::AlreadyExists => Class::Exists,
            ErrorKind::PermissionDenied => Class::Denied,
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Class::Full,
            ErrorKind::ReadOnlyFilesystem => Class::ReadOnly,
            ErrorKind::UnexpectedEof => Class::Truncated,
            ErrorKind::Unsupported => Class::Unsupported,
            _ => Class::Io,
        }
    }

    /// The standard library's name for it; its class is this one again.
    pub fn kind(self) -> ErrorKind {
        match self {
            Class::Missing => ErrorKind::NotFound,
            Class::Exists => ErrorKind::AlreadyExists,
            Class::Denied => ErrorKind::PermissionDenied,
            Class::Full => ErrorKind::StorageFull,
            Class::ReadOnly => ErrorKind::ReadOnlyFilesystem,
            Class::Truncated => ErrorKind::UnexpectedEof,
            Class::Unsupported => ErrorKind::Unsupported,
            Class::Io => ErrorKind::Other,
        }
    }

    /// The word.
    pub fn word(self) -> &'static str {
        match self {
            Class::Missing => "missing",
            Class::Exists => "exists",
            Class::Denied => "denied",
            Class::Full => "full",
            Class::ReadOnly => "read-only",
            Class::Truncated => "truncated",
            Class::Unsupported => "unsupported",
            Class::Io => "io",
        }
    }

    /// What to do about what the operating system said, where that is the same wherever it happens.
    fn advice(self) -> Option<&'static str> {
        match self {
            Class::Denied => Some("run this as the user that the repository belongs to"),
            Class::Full => Some("make room there, or name a location that has some"),
            Class::ReadOnly => Some("make the location writable, or name another one"),
            _ => None,
        }
    }
}

/// An error with its class and, in words, its place.
#[derive(Debug, thiserror::Error)]
pub struct Error {
    /// The class.
    pub class: Class,
    /// The place, and what is wrong there.
    pub what: String,
    /// What the operating system said.
    #[source]
    pub source: Option<io::Error>,
}

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error that was not told by an operating system; `what` begins with the place and ends with what to do.
    pub fn new(class: Class, what: impl Into<String>) -> Self {
        Self { class, what: what.into(), source: None }
    }

    /// What the operating system said while doing `what`, which begins with the place; the class follows from it.
    pub fn io(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        Self { class: Class::of(&source), what: what.into(), source: Some(source) }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what)?;
        if let Some(source) = &self.source {
            write!(f, ": {source}")?;
            if let Some(advice) = self.class.advice() {
                write!(f, "; {advice}")?;
            }
        }
        write!(f, " ({})", self.class.word())
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn what_systems_say_has_a_class() {
        let said = [
            (Errno::NOENT, Class::Missing),
            (Errno::EXIST, Class::Exists),
            (Errno::ACCESS, Class::Denied),
            (Errno::PERM, Class::Denied),
            (Errno::NOSPC, Class::Full),
            (Errno::DQUOT, Class::Full),
            (Errno::ROFS, Class::ReadOnly),
            (Errno::OPNOTSUPP, Class::Unsupported),
            (Errno::IO, Class::Io),
            (Errno::STALE, Class::Io),
        ];
        for (errno, class) in said {
            assert_eq!(Error::io("here", errno).class, class, "{errno}");
        }
        for class in [Class::Missing, Class::Exists, Class::Denied, Class::Full, Class::ReadOnly]
            .into_iter()
            .chain([Class::Truncated, Class::Unsupported, Class::Io])
        {
            assert_eq!(Class::of(&class.kind().into()), class);
        }
    }

    #[test]
    fn a_message_says_what_to_do() {
        let error = Error::io("here: cannot be written", Errno::NOSPC).to_string();
        assert!(error.starts_with("here: cannot be written: No space left on device"), "{error}");
        assert!(error.ends_with("; make room there, or name a location that has some (full)"), "{error}");
        let error = Error::new(Class::Full, "here: full to the brim").to_string();
        assert_eq!(error, "here: full to the brim (full)");
    }
}
