//! What a client is told when its request is not done.
//!
//! Spec: protocol.md section 2.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use diptych_format::Class;
use serde::Serialize;

/// The class of a problem. Each has one status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProblemClass {
    /// No token that is good here.
    Unauthenticated,
    /// The token has no right to this.
    Denied,
    /// It is not there.
    Missing,
    /// It is there, and is not replaced.
    Exists,
    /// Longer than anything of its kind.
    Limit,
    /// The file ends before the range.
    Truncated,
    /// Not what it says it is, or it names what is not there.
    Corrupt,
    /// Too much at once.
    Busy,
    /// Nothing that this server does.
    Unsupported,
    /// The server is about to end.
    Draining,
    /// The place that keeps the files has failed.
    Io,
    /// No room is left.
    Full,
}

impl ProblemClass {
    /// All of them with their words and statuses, as the specification lists them.
    pub const ALL: [(ProblemClass, &'static str, u16); 12] = [
        (ProblemClass::Unauthenticated, "unauthenticated", 401),
        (ProblemClass::Denied, "denied", 403),
        (ProblemClass::Missing, "missing", 404),
        (ProblemClass::Exists, "exists", 409),
        (ProblemClass::Limit, "limit", 413),
        (ProblemClass::Truncated, "truncated", 416),
        (ProblemClass::Corrupt, "corrupt", 422),
        (ProblemClass::Busy, "busy", 429),
        (ProblemClass::Unsupported, "unsupported", 501),
        (ProblemClass::Draining, "draining", 503),
        (ProblemClass::Io, "io", 500),
        (ProblemClass::Full, "full", 507),
    ];

    fn entry(self) -> (&'static str, u16) {
        let found = Self::ALL.iter().find(|(class, ..)| *class == self);
        found.map_or(("io", 500), |(_, word, status)| (word, *status))
    }

    /// The word.
    pub fn word(self) -> &'static str {
        self.entry().0
    }

    /// The status.
    pub fn status(self) -> StatusCode {
        StatusCode::from_u16(self.entry().1).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

/// Why a request is not done.
#[derive(Debug)]
pub struct Problem {
    /// The class.
    pub class: ProblemClass,
    /// Words for people.
    pub detail: String,
}

/// A result with a [`Problem`].
pub type Result<T, E = Problem> = std::result::Result<T, E>;

impl Problem {
    /// A problem of a class.
    pub fn new(class: ProblemClass, detail: impl Into<String>) -> Self {
        Self { class, detail: detail.into() }
    }

    /// The token may not do it.
    pub fn denied(detail: impl Into<String>) -> Self {
        Self::new(ProblemClass::Denied, detail)
    }

    /// It is not there, or may not be seen, which is told in the same words.
    pub fn missing(what: &str) -> Self {
        Self::new(ProblemClass::Missing, format!("{what}: there is no such file"))
    }

    /// It is not what it says it is.
    pub fn corrupt(detail: impl Into<String>) -> Self {
        Self::new(ProblemClass::Corrupt, detail)
    }
}

#[derive(Serialize)]
struct Body<'a> {
    class: &'a str,
    detail: &'a str,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&Body { class: self.class.word(), detail: &self.detail });
        let mut response = (self.class.status(), body.unwrap_or_default()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.class == ProblemClass::Busy {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if self.class == ProblemClass::Unauthenticated {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<diptych_backend::Error> for Problem {
    fn from(error: diptych_backend::Error) -> Self {
        use diptych_backend::Class as Told;
        let class = match error.class {
            Told::Missing => ProblemClass::Missing,
            Told::Exists => ProblemClass::Exists,
            Told::Full => ProblemClass::Full,
            Told::Truncated => ProblemClass::Truncated,
            Told::Unsupported => ProblemClass::Unsupported,
            // That the server may not write is no fault of the client's.
            Told::Denied | Told::ReadOnly | Told::Io => ProblemClass::Io,
        };
        Self { class, detail: error.to_string() }
    }
}

impl From<diptych_format::Error> for Problem {
    /// What a client has sent is not as it should be.
    fn from(error: diptych_format::Error) -> Self {
        let class = match error.class {
            Class::Missing => ProblemClass::Missing,
            Class::Limit => ProblemClass::Limit,
            Class::Unsupported => ProblemClass::Unsupported,
            Class::Io => match error.source.as_ref().map(std::io::Error::kind) {
                Some(std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded) => {
                    ProblemClass::Full
                }
                _ => ProblemClass::Io,
            },
            _ => ProblemClass::Corrupt,
        };
        Self { class, detail: error.to_string() }
    }
}
