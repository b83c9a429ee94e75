//! How a job fails: where, what, and what to do about it.

use std::fmt;

use diptych_format::{Class, Error as FormatError};

/// Why a job ended without a result.
#[derive(Debug)]
pub enum Error {
    /// Something in an archive, or in a tree, or the operating system.
    Failed {
        /// The file, directory or path inside the archive that it concerns; empty where the cause names it.
        place: String,
        /// What is wrong.
        cause: FormatError,
        /// What to do about it; empty where nothing is known to help.
        advice: String,
    },
    /// The command was called in a way that makes no sense; says how to call it.
    Usage(String),
    /// What was asked for would do harm, and was not done; says how to go on.
    Refused(String),
    /// There is no repository at the location.
    NoRepository(String),
    /// No password that was given opens the repository.
    WrongPassword(String),
    /// Somebody asked for the end.
    Interrupted,
}

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// What the operating system said while doing `what` with `place`.
    pub fn io(place: impl Into<String>, what: &str, source: std::io::Error) -> Self {
        Self::Failed { place: place.into(), cause: FormatError::io(what, source), advice: String::new() }
    }

    /// Something that is not there.
    pub fn missing(place: impl Into<String>, what: &str, advice: &str) -> Self {
        Self::Failed { place: place.into(), cause: FormatError::missing(what), advice: advice.to_owned() }
    }

    /// The class, where there is one.
    pub fn class(&self) -> Option<Class> {
        match self {
            Self::Failed { cause, .. } => Some(cause.class),
            _ => None,
        }
    }

    /// Whether the reader of our output went away.
    pub fn is_broken_pipe(&self) -> bool {
        let Self::Failed { cause, .. } = self else { return false };
        cause.source.as_ref().is_some_and(|source| source.kind() == std::io::ErrorKind::BrokenPipe)
    }
}

impl From<FormatError> for Error {
    fn from(cause: FormatError) -> Self {
        Self::Failed { place: String::new(), advice: advice_for(&cause).to_owned(), cause }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed { place, cause, advice } => {
                let cause = cause.to_string();
                // Errors of repositories say where by themselves.
                let rest = cause.strip_prefix(place.as_str());
                let says_where = rest.is_some_and(|rest| rest.starts_with(": ") || rest.starts_with('/'));
                if !place.is_empty() && !says_where {
                    write!(f, "{place}: ")?;
                }
                write!(f, "{cause}")?;
                if advice.is_empty() { Ok(()) } else { write!(f, "\n  {advice}") }
            }
            Self::Usage(what)
            | Self::Refused(what)
            | Self::NoRepository(what)
            | Self::WrongPassword(what) => f.write_str(what),
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

impl std::error::Error for Error {}

/// Adds the place to an error that does not know it.
pub trait InPlace<T> {
    /// The same, with the file or path that it concerns.
    fn in_place(self, place: impl fmt::Display) -> Result<T>;
}

impl<T> InPlace<T> for diptych_format::Result<T> {
    fn in_place(self, place: impl fmt::Display) -> Result<T> {
        self.map_err(|cause| Error::Failed {
            place: place.to_string(),
            advice: advice_for(&cause).to_owned(),
            cause,
        })
    }
}

/// What helps against errors of a class, wherever they come from.
fn advice_for(cause: &FormatError) -> &'static str {
    // Without a place in some bytes it is not an archive's fault.
    match cause.class {
        _ if cause.place.is_none() => "",
        Class::Truncated => "The file is not whole: was it copied to its end, and did `create` finish?",
        Class::Corrupt => "The bytes are damaged: use another copy of the file.",
        Class::Unsupported => "A newer version of diptych may read it.",
        Class::Limit | Class::Missing | Class::Io => "",
    }
}
