//! Where libraries report progress and what they could not do. Only the command line prints.

use crate::entry::Kind;

/// Something that could not be read or written faithfully, and does not end the job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The path below the root that it concerns; empty for the root itself.
    pub path: Vec<u8>,
    /// What is wrong, in words, with what the operating system said.
    pub what: String,
    /// Whether the archive or the target lacks something because of it. A notice (say, a socket that was
    /// left out on request) costs nothing and does not change the exit code.
    pub is_loss: bool,
}

/// Receives progress and problems. Called from several threads.
pub trait Monitor: Send + Sync {
    /// An entry was dealt with. `path` is below the root; the root's own is empty.
    fn entry(&self, path: &[u8], kind: Kind);
    /// So many bytes of contents were dealt with.
    fn bytes(&self, count: u64);
    /// Something could not be done faithfully.
    fn problem(&self, problem: Problem);
    /// An entry is read though there is an earlier archive to compare with; `why` is one word.
    fn read(&self, path: &[u8], why: &'static str) {
        let _ = (path, why);
    }
}

/// A monitor that drops everything.
pub struct Silent;

impl Monitor for Silent {
    fn entry(&self, _: &[u8], _: Kind) {}
    fn bytes(&self, _: u64) {}
    fn problem(&self, _: Problem) {}
}
