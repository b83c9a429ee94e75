//! Where the bytes of a content are: ranges of the payload stream, and holes.
//!
//! Spec: archive.md sections 5.6 and 9.

use diptych_format::error::{Error, Result};
use diptych_format::{Digest, Hole, Status};

/// A content: what it is, and what it is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentMap {
    /// Length in bytes, holes counted.
    pub size: u64,
    /// Digest of the content.
    pub digest: Digest,
    /// Its parts, in order and without gaps. A content without bytes has none.
    pub parts: Vec<Part>,
}

/// A part of a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Bytes that stand in the payload stream.
    Data {
        /// Where the part starts in the content.
        content_offset: u64,
        /// Where it starts in the payload stream.
        payload_offset: u64,
        /// Its length.
        length: u64,
    },
    /// Bytes that stand nowhere and read as zeros.
    Hole {
        /// Where the part starts in the content.
        content_offset: u64,
        /// Its length.
        length: u64,
    },
}

impl ContentMap {
    /// The map of a content whose holes were checked.
    pub(crate) fn new(
        (size, digest): (u64, Digest),
        holes: &[Hole],
        status: Status,
        payload_start: u64,
    ) -> Result<Self> {
        if status.has(Status::NOT_READ) {
            return Err(Error::missing("the content was not read when the archive was made"));
        }
        let mut parts = Vec::with_capacity(holes.len().saturating_mul(2).saturating_add(1));
        let (mut content_offset, mut payload_offset) = (0u64, payload_start);
        let mut data_to = |end: u64, content_offset: u64, parts: &mut Vec<Part>| -> Result<()> {
            let length = end.saturating_sub(content_offset);
            if length > 0 {
                parts.push(Part::Data { content_offset, payload_offset, length });
                payload_offset = payload_offset.checked_add(length).ok_or_else(beyond)?;
            }
            Ok(())
        };
        for hole in holes {
            data_to(hole.start, content_offset, &mut parts)?;
            parts.push(Part::Hole { content_offset: hole.start, length: hole.length });
            content_offset = hole.start.checked_add(hole.length).ok_or_else(beyond)?;
        }
        data_to(size, content_offset, &mut parts)?;
        Ok(Self { size, digest, parts })
    }

    /// Whether any part is a hole.
    pub fn has_holes(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Hole { .. }))
    }

    /// Bytes that stand in the payload stream.
    pub fn payload_length(&self) -> u64 {
        self.parts.iter().fold(0, |sum, part| match part {
            Part::Data { length, .. } => sum.saturating_add(*length),
            Part::Hole { .. } => sum,
        })
    }
}

fn beyond() -> Error {
    Error::corrupt("a content reaches beyond what 64 bits can say")
}
