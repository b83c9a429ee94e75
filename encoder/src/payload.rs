//! The payload stream as it is decided: for each content, in order, which chunk takes it, or that it is there already.
//!
//! Chunks are numbered in the order in which they are first used. The ids of fresh ones come later, from whoever hashes
//! them; those of chunks that an earlier archive has are known at once.
//!
//! Spec: archive.md section 10.1.

use std::collections::HashMap;

use diptych_format::limits::PAYLOAD_CHUNK_MAX;
use diptych_format::map::Slice;
use diptych_format::{Digest, Error, Result};

use crate::cut::Cuts;
use crate::tree::LinkKey;

/// A range of a numbered chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NumberedSlice {
    /// Number of the chunk.
    pub chunk: u64,
    /// Where it starts in the chunk.
    pub start: u32,
    /// Its length, above 0.
    pub length: u32,
}

/// What becomes of a small content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Its bytes are there already, or there are none: nothing is to be stored.
    Known,
    /// Its bytes go at the end of the open group.
    Group {
        /// Number of the group that was open and ends first, if this content begins the next one.
        ended: Option<u64>,
        /// Number of the group that takes it.
        chunk: u64,
        /// Whether the group ends after it.
        ends_after: bool,
    },
}

/// Decides where contents go, and keeps the payload stream as slices of numbered chunks.
#[derive(Debug)]
pub struct Payload {
    cuts: Cuts,
    slices: Vec<NumberedSlice>,
    length: u64,
    next_chunk: u64,
    /// Number and length of the open group.
    group: Option<(u64, u32)>,
    known: HashMap<(Digest, u64), NumberedSlice>,
    known_max: usize,
    linked: HashMap<LinkKey, Vec<NumberedSlice>>,
    /// Chunks of earlier archives that this one uses, by id.
    reused: HashMap<Digest, Reused>,
}

/// A chunk of an earlier archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reused {
    /// Its number in this archive.
    pub number: u64,
    /// Its raw length, where that is known.
    pub length: Option<u32>,
}

impl Payload {
    /// An empty stream that remembers at most `known_max` small contents; what it has forgotten is stored again.
    pub fn new(cuts: Cuts, known_max: usize) -> Self {
        Self {
            cuts,
            slices: Vec::new(),
            length: 0,
            next_chunk: 0,
            group: None,
            known: HashMap::new(),
            known_max,
            linked: HashMap::new(),
            reused: HashMap::new(),
        }
    }

    /// Takes a slice of a chunk that an earlier archive has, whose raw length is `chunk_length` if that is known: it is
    /// neither read nor stored, and the open group goes on behind it.
    pub fn reuse(&mut self, slice: &Slice, chunk_length: Option<u32>) {
        let number = match self.reused.get(&slice.chunk) {
            Some(reused) => reused.number,
            None => {
                let number = self.begin_chunk();
                self.reused.insert(slice.chunk, Reused { number, length: chunk_length });
                number
            }
        };
        self.push(NumberedSlice { chunk: number, start: slice.start, length: slice.length });
    }

    /// Takes a content of `length` bytes of payload, below [`LARGE_MIN`](crate::cut::LARGE_MIN).
    pub fn small(&mut self, digest: Digest, length: u32) -> Place {
        if length == 0 {
            return Place::Known;
        }
        if let Some(slice) = self.known.get(&(digest, u64::from(length))).copied() {
            self.push(slice);
            return Place::Known;
        }
        let fits = |(_, filled): &(u64, u32)| (*filled as usize) + (length as usize) <= PAYLOAD_CHUNK_MAX;
        let ended = if self.group.is_some_and(|group| !fits(&group)) { self.end_group() } else { None };
        let (chunk, filled) = self.group.unwrap_or_else(|| (self.begin_chunk(), 0));
        let slice = NumberedSlice { chunk, start: filled, length };
        if self.known.len() < self.known_max {
            self.known.insert((digest, u64::from(length)), slice);
        }
        self.push(slice);
        let ends_after = self.cuts.ends_group(&digest, u64::from(length));
        self.group = (!ends_after).then_some((chunk, filled + length));
        Place::Group { ended, chunk, ends_after }
    }

    /// Ends the open group, if there is one, and gives its number: a large content follows, or nothing does.
    pub fn end_group(&mut self) -> Option<u64> {
        self.group.take().map(|(number, _)| number)
    }

    /// Takes one chunk of a large content; no group is open. Gives the chunk's number.
    pub fn large_chunk(&mut self, length: u32) -> u64 {
        let chunk = self.begin_chunk();
        self.push(NumberedSlice { chunk, start: 0, length });
        chunk
    }

    /// Remembers the slices pushed since `mark` as the content of an inode with more names.
    pub fn remember_link(&mut self, key: LinkKey, mark: Mark) {
        let slices = self.slices_since(mark);
        self.linked.insert(key, slices);
    }

    /// Takes a further name of an inode whose content was taken before. False if it was not.
    pub fn repeat_link(&mut self, key: LinkKey) -> bool {
        let Some(slices) = self.linked.get(&key).cloned() else { return false };
        slices.into_iter().for_each(|slice| self.push(slice));
        true
    }

    /// Forgets an inode all of whose names have come.
    pub fn forget_link(&mut self, key: LinkKey) {
        self.linked.remove(&key);
    }

    /// Counts a content of `length` bytes of payload whose chunks nobody wants.
    pub fn skip(&mut self, length: u64) {
        self.length = self.length.saturating_add(length);
    }

    /// The stream's length so far: where the next content begins.
    pub fn mark(&self) -> Mark {
        Mark { length: self.length }
    }

    /// Number of chunks begun so far.
    pub fn chunks(&self) -> u64 {
        self.next_chunk
    }

    /// The whole stream.
    pub fn finish(self) -> Stream {
        Stream { slices: self.slices, length: self.length, chunks: self.next_chunk, reused: self.reused }
    }

    /// The stream so far, for a partial archive; nothing of the open group may be in it.
    pub fn so_far(&self) -> Stream {
        Stream {
            slices: self.slices.clone(),
            length: self.length,
            chunks: self.next_chunk,
            reused: self.reused.clone(),
        }
    }

    fn begin_chunk(&mut self) -> u64 {
        self.next_chunk += 1;
        self.next_chunk - 1
    }

    /// Adds a slice, joined to the last one where it goes on from there.
    fn push(&mut self, slice: NumberedSlice) {
        self.length += u64::from(slice.length);
        if let Some(last) = self.slices.last_mut()
            && last.chunk == slice.chunk
            && last.start.checked_add(last.length) == Some(slice.start)
        {
            last.length += slice.length;
            return;
        }
        self.slices.push(slice);
    }

    /// The slices since `mark`; the first may have been joined to an earlier one, of which the end is taken.
    fn slices_since(&self, mark: Mark) -> Vec<NumberedSlice> {
        let mut wanted = self.length - mark.length;
        let mut found: Vec<NumberedSlice> = Vec::new();
        for slice in self.slices.iter().rev() {
            if wanted == 0 {
                break;
            }
            let length = u32::try_from(wanted).unwrap_or(u32::MAX).min(slice.length);
            found.push(NumberedSlice { start: slice.start + (slice.length - length), length, ..*slice });
            wanted -= u64::from(length);
        }
        found.reverse();
        found
    }
}

/// A payload stream that was decided.
#[derive(Debug)]
pub struct Stream {
    /// Its slices in order.
    pub slices: Vec<NumberedSlice>,
    /// Its length.
    pub length: u64,
    /// How many chunks have a number.
    pub chunks: u64,
    reused: HashMap<Digest, Reused>,
}

impl Stream {
    /// The slices with the ids of their chunks and, where they are known, the raw lengths of these. `fresh` tells id and
    /// raw length of the fresh chunks by their numbers.
    pub fn with_ids(
        &self,
        fresh: impl Fn(u64) -> Option<(Digest, u32)>,
    ) -> impl Iterator<Item = Result<(Slice, Option<u32>)>> {
        let reused: HashMap<u64, (Digest, Option<u32>)> =
            self.reused.iter().map(|(id, reused)| (reused.number, (*id, reused.length))).collect();
        self.slices.iter().map(move |slice| {
            let NumberedSlice { chunk: number, start, length } = *slice;
            let found = reused.get(&number).copied();
            let found = found.or_else(|| fresh(number).map(|(id, length)| (id, Some(length))));
            let (chunk, chunk_length) =
                found.ok_or_else(|| Error::corrupt("a chunk of the payload has no id"))?;
            Ok((Slice { chunk, start, length }, chunk_length))
        })
    }

    /// The reused chunks.
    pub fn reused(&self) -> impl ExactSizeIterator<Item = (&Digest, &Reused)> {
        self.reused.iter()
    }
}

/// A point in the payload stream.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    length: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(n: u64) -> Digest {
        Digest::of(&n.to_le_bytes())
    }

    #[test]
    fn the_same_content_is_stored_once() {
        let mut payload = Payload::new(Cuts::plain(), 100);
        assert!(matches!(payload.small(digest(1), 10), Place::Group { .. }));
        assert!(matches!(payload.small(digest(2), 10), Place::Group { .. }));
        assert_eq!(payload.small(digest(1), 10), Place::Known);
        assert_eq!(payload.small(digest(3), 0), Place::Known);
        let stream = payload.finish();
        assert_eq!(stream.length, 30);
        assert_eq!(stream.slices.len(), 2, "{stream:?}");
    }

    #[test]
    fn what_is_forgotten_is_stored_again() {
        let mut payload = Payload::new(Cuts::plain(), 1);
        payload.small(digest(1), 10);
        payload.small(digest(2), 10);
        assert!(matches!(payload.small(digest(2), 10), Place::Group { .. }));
        assert_eq!(payload.small(digest(1), 10), Place::Known);
    }

    #[test]
    fn a_link_repeats_the_slices_of_its_inode() {
        let key = LinkKey { device: 1, inode: 2 };
        let mut payload = Payload::new(Cuts::plain(), 100);
        payload.small(digest(1), 10);
        let mark = payload.mark();
        payload.small(digest(2), 20);
        payload.remember_link(key, mark);
        payload.end_group();
        payload.large_chunk(300_000);
        assert!(payload.repeat_link(key));
        assert!(!payload.repeat_link(LinkKey { device: 1, inode: 3 }));
        let stream = payload.finish();
        assert_eq!(stream.length, 30 + 300_000 + 20);
        assert_eq!(stream.slices.last(), Some(&NumberedSlice { chunk: 0, start: 10, length: 20 }));
    }

    #[test]
    fn a_group_goes_on_behind_what_is_reused() {
        let old = |start| Slice { chunk: digest(9), start, length: 5 };
        let mut payload = Payload::new(Cuts::plain(), 100);
        assert!(matches!(payload.small(digest(1), 10), Place::Group { .. }));
        payload.reuse(&old(0), Some(50));
        payload.reuse(&old(5), Some(50));
        assert_eq!(payload.small(digest(2), 10), Place::Group { ended: None, chunk: 0, ends_after: false });
        payload.reuse(&old(0), Some(50));
        let stream = payload.finish();
        assert_eq!((stream.length, stream.chunks), (35, 2));
        let fresh = |number| (number == 0).then_some((digest(8), 20));
        let slices: Vec<_> = stream.with_ids(fresh).collect::<Result<_>>().unwrap();
        let fresh = |start| (Slice { chunk: digest(8), start, length: 10 }, Some(20));
        let joined = Slice { length: 10, ..old(0) };
        assert_eq!(slices, [fresh(0), (joined, Some(50)), fresh(10), (old(0), Some(50))]);
        assert!(stream.with_ids(|_| None).any(|slice| slice.is_err()));
    }

    #[test]
    fn groups_stay_below_the_largest_chunk() {
        let mut payload = Payload::new(Cuts::plain(), 0);
        let mut filled = 0u32;
        for n in 0..2000 {
            let Place::Group { ended, ends_after, .. } = payload.small(digest(n), 200_000) else { panic!() };
            filled = if ended.is_some() { 0 } else { filled } + 200_000;
            assert!(filled as usize <= PAYLOAD_CHUNK_MAX);
            if ends_after {
                filled = 0;
            }
        }
    }
}
