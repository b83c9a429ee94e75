//! The audit log: who changed what, and when by the server's clock, as a line of JSON for each request that was to
//! change something.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use serde::Serialize;

/// The log's file.
pub struct Audit {
    file: Mutex<File>,
}

/// A line of it.
#[derive(Serialize)]
pub struct Line<'a> {
    /// When the answer was given.
    pub time: Timestamp,
    /// The token's id; none if there was none that is good.
    pub token: Option<&'a str>,
    /// The request's method.
    pub method: &'a str,
    /// And path.
    pub path: &'a str,
    /// What was answered.
    pub status: u16,
    /// Where the request came from, as far as that is known.
    pub peer: &'a str,
}

impl Audit {
    /// The log in the server's state.
    pub fn open(directory: &Path) -> io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt;
        let path = directory.join("audit.log");
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        Ok(Self { file: Mutex::new(file) })
    }

    /// Appends a line, in one piece.
    pub fn write(&self, line: &Line<'_>) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(line)?;
        bytes.push(b'\n');
        self.file.lock().unwrap_or_else(PoisonError::into_inner).write_all(&bytes)
    }
}
