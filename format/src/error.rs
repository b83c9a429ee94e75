//! What can be wrong with bytes, in six classes that code, specification, vectors and exit reports share.
//!
//! Spec: archive.md section 1.3.

use std::fmt;

/// The class of an error: the same six words everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// The bytes end inside something.
    Truncated,
    /// The bytes break a rule of the specification.
    Corrupt,
    /// A version or a required feature that this reader does not have.
    Unsupported,
    /// Well-formed, but beyond a limit.
    Limit,
    /// Something that is named is not there.
    Missing,
    /// The operating system said no.
    Io,
}

impl Class {
    /// All classes with their words, as the specification lists them.
    pub const ALL: [(Class, &'static str); 6] = [
        (Class::Truncated, "truncated"),
        (Class::Corrupt, "corrupt"),
        (Class::Unsupported, "unsupported"),
        (Class::Limit, "limit"),
        (Class::Missing, "missing"),
        (Class::Io, "io"),
    ];

    /// The word.
    pub fn word(self) -> &'static str {
        match self {
            Class::Truncated => "truncated",
            Class::Corrupt => "corrupt",
            Class::Unsupported => "unsupported",
            Class::Limit => "limit",
            Class::Missing => "missing",
            Class::Io => "io",
        }
    }
}

/// Which bytes an offset counts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    /// The metadata stream.
    Metadata,
    /// The payload stream.
    Payload,
    /// A pack file.
    Pack,
    /// A segment of a stream map.
    Segment,
    /// A manifest.
    Manifest,
}

impl Stream {
    /// The words for it in messages.
    pub fn words(self) -> &'static str {
        match self {
            Stream::Metadata => "metadata stream",
            Stream::Payload => "payload stream",
            Stream::Pack => "pack",
            Stream::Segment => "map segment",
            Stream::Manifest => "manifest",
        }
    }
}

/// An error with its class and, where it is known, its place.
#[derive(Debug, thiserror::Error)]
pub struct Error {
    /// The class.
    pub class: Class,
    /// The stream and the offset in it, in bytes.
    pub place: Option<(Stream, u64)>,
    /// What is wrong, in words.
    pub what: String,
    /// What the operating system said.
    #[source]
    pub source: Option<std::io::Error>,
}

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `class`; the place is added by whoever knows it.
    pub fn new(class: Class, what: impl Into<String>) -> Self {
        Self { class, place: None, what: what.into(), source: None }
    }

    /// A broken rule.
    pub fn corrupt(what: impl Into<String>) -> Self {
        Self::new(Class::Corrupt, what)
    }

    /// Bytes that end too early.
    pub fn truncated(what: impl Into<String>) -> Self {
        Self::new(Class::Truncated, what)
    }

    /// A version or feature that is not known.
    pub fn unsupported(what: impl Into<String>) -> Self {
        Self::new(Class::Unsupported, what)
    }

    /// Something that is not there.
    pub fn missing(what: impl Into<String>) -> Self {
        Self::new(Class::Missing, what)
    }

    /// A limit that was passed.
    pub fn limit(what: &str, found: u64, most: u64) -> Self {
        Self::new(Class::Limit, format!("{what} {found} is above the limit of {most}"))
    }

    /// What the operating system said while doing `what`.
    pub fn io(what: impl Into<String>, source: std::io::Error) -> Self {
        Self { class: Class::Io, place: None, what: what.into(), source: Some(source) }
    }

    /// The same error once more: what cannot be had may be missed in several places.
    #[must_use]
    pub fn again(&self) -> Self {
        let mut what = self.what.clone();
        if let Some(source) =
            self.source.as_ref().filter(|source| source.to_string() != source.kind().to_string())
        {
            what = format!("{what}: {source}");
        }
        Self {
            class: self.class,
            place: self.place,
            what,
            source: self.source.as_ref().map(|s| s.kind().into()),
        }
    }

    /// The same error at a place; a place that is known already stays, for it is nearer to the fault.
    #[must_use]
    pub fn at(mut self, stream: Stream, offset: u64) -> Self {
        self.place.get_or_insert((stream, offset));
        self
    }

    /// The same error with its place moved by `base`: what was relative to a part becomes relative to the whole.
    #[must_use]
    pub fn moved(mut self, stream: Stream, base: u64) -> Self {
        let inner = self.place.map_or(0, |(_, offset)| offset);
        self.place = Some((stream, base.saturating_add(inner)));
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((stream, offset)) = self.place {
            write!(f, "{} at {offset}: ", stream.words())?;
        }
        write!(f, "{}", self.what)?;
        // A kind alone was not said by the operating system, and the words before it say more.
        if let Some(source) = &self.source
            && source.to_string() != source.kind().to_string()
        {
            write!(f, ": {source}")?;
        }
        write!(f, " ({})", self.class.word())
    }
}
