//! An entry that was looked up, with what it takes to go on from there.

use diptych_format::Entry;
use diptych_format::table::Below;

/// An entry and its place in the archive. It stays valid as long as the archive that gave it, and means nothing
/// to another one.
#[derive(Clone, Debug)]
pub struct Found {
    /// The entry, complete: with its holes, and with extended attributes wherever they stand.
    pub entry: Entry,
    /// Where its payload starts in the payload stream: that of a content, or of all below a directory.
    pub payload_start: u64,
    /// How long that payload is.
    pub payload_length: u64,
    /// The top table, of a directory.
    pub(crate) below: Option<Below>,
}

impl Found {
    /// Entries below a directory, at any depth; 0 for all else.
    pub fn entries_below(&self) -> u64 {
        self.below.map_or(0, |below| below.entries)
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.below.is_some()
    }
}
