//! Whether a content is the one that its digest says.
//!
//! Spec: archive.md sections 3.1 and 14.

use diptych_format::ReadAt;
use diptych_format::digest::ContentHasher;
use diptych_format::error::{Error, Result, Stream};

use crate::content::{ContentMap, Part};

/// Most bytes that are read at once.
const READ_MAX: u64 = 1 << 20;

/// Reads a content from the payload stream and compares its digest. `scratch` is there to be used again; it never
/// holds more than 1 MiB. Holes cost next to nothing, however large. Spec: A-14-3.
pub fn verify_content(content: &ContentMap, payload: &dyn ReadAt, scratch: &mut Vec<u8>) -> Result<()> {
    let mut hasher = match content.has_holes() {
        true => ContentHasher::sparse(),
        false => ContentHasher::new(),
    };
    let mut first_offset = None;
    for part in &content.parts {
        match *part {
            Part::Hole { length, .. } => hasher.zeros(length),
            Part::Data { payload_offset, length, .. } => {
                first_offset.get_or_insert(payload_offset);
                let mut done = 0;
                while done < length {
                    let now = (length - done).min(READ_MAX);
                    let offset = payload_offset.saturating_add(done);
                    scratch.resize(usize::try_from(now).unwrap_or(0), 0);
                    let read = payload.read_exact_at(scratch, offset);
                    read.map_err(|error| error.at(Stream::Payload, offset))?;
                    hasher.update(scratch);
                    done += now;
                }
            }
        }
    }
    if hasher.finish() != content.digest {
        let error = Error::corrupt("a content has another digest than its entry says");
        return Err(error.at(Stream::Payload, first_offset.unwrap_or(0)));
    }
    Ok(())
}
