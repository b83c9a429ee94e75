//! The bytes of a content, one after another, holes as zeros.

use std::io::{self, Read};
use std::sync::Arc;

use diptych_decoder::{ContentMap, Part};
use diptych_format::ReadAt;
use diptych_repository::StreamReader;

/// Reads a content from front to back.
pub(super) struct Content {
    payload: Arc<StreamReader>,
    parts: std::vec::IntoIter<Part>,
    current: Option<Part>,
    done: u64,
}

impl Content {
    pub fn new(payload: Arc<StreamReader>, map: ContentMap) -> Self {
        Self { payload, parts: map.parts.into_iter(), current: None, done: 0 }
    }
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let (length, from) = match self.current {
                Some(Part::Data { payload_offset, length, .. }) => (length, Some(payload_offset)),
                Some(Part::Hole { length, .. }) => (length, None),
                None => match self.parts.next() {
                    Some(part) => {
                        (self.current, self.done) = (Some(part), 0);
                        continue;
                    }
                    None => return Ok(0),
                },
            };
            let left = length - self.done;
            if left == 0 {
                self.current = None;
                continue;
            }
            let count = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let part = buffer.get_mut(..count).unwrap_or_default();
            match from {
                Some(start) => {
                    self.payload.read_exact_at(part, start + self.done).map_err(io::Error::other)?;
                }
                None => part.fill(0),
            }
            self.done += count as u64;
            return Ok(count);
        }
    }
}
