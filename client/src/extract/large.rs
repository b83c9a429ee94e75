//! Contents longer than a leaf of their digest: several threads write them, leaf by leaf, and the last one proves them.

use std::sync::{Arc, Mutex, PoisonError};

use diptych_decoder::ContentMap;
use diptych_format::digest::{LEAF_LENGTH, join_leaves};
use diptych_format::{Digest, Error as FormatError};
use diptych_localfs::extract::OutFile;

use crate::content::ContentReader;
use crate::error::Result;

use super::Item;
use super::rules::Fate;
use super::work::{Done, Extractor, ToFile, mixed, other_digest};

/// A long content that several threads write.
pub struct Large {
    item: Item,
    content: ContentMap,
    file: OutFile,
    /// Whether the file held something before.
    is_change: bool,
    leaves: Mutex<Vec<Digest>>,
    error: Mutex<Option<FormatError>>,
}

impl Extractor<'_> {
    /// Makes the file of a long content; nothing if it could not be made, which is told.
    pub fn begin_large(&self, item: Item, leaves: u64) -> Result<Option<Large>> {
        let Some((mut item, fate)) = self.sift(item, None)? else { return Ok(None) };
        let is_change = matches!(fate, Fate::Change);
        let begun = self.create_file(&item, &fate).and_then(|file| {
            let content = item.content.take().ok_or_else(|| FormatError::missing("no content"))?;
            file.set_length(content.size)?;
            Ok((file, content))
        });
        match begun {
            Ok((file, content)) => {
                let leaves = vec![Digest::NONE; usize::try_from(leaves).unwrap_or(0)];
                let (leaves, error) = (Mutex::new(leaves), Mutex::default());
                Ok(Some(Large { item, content: *content, file, is_change, leaves, error }))
            }
            Err(error) => self.settle(item, Err(error), None).map(|()| None),
        }
    }

    /// Writes one leaf.
    pub(super) fn leaf(&self, large: &Large, leaf: u64, reader: &mut ContentReader) {
        if lock(&large.error).is_some() {
            return;
        }
        let start = leaf * LEAF_LENGTH;
        let range = start..start.saturating_add(LEAF_LENGTH).min(large.content.size);
        let mut sink = ToFile::new(&large.file, large.is_change, Some(self.losses));
        match reader.read_range(&large.content, range, &mut sink) {
            Ok(digest) => {
                let place = usize::try_from(leaf).unwrap_or(usize::MAX);
                if let Some(slot) = lock(&large.leaves).get_mut(place) {
                    *slot = digest;
                }
            }
            Err(error) => {
                lock(&large.error).get_or_insert(error);
            }
        }
    }

    /// Lets go of a long content; the last to do so compares its digest.
    pub fn let_go_of(&self, large: Arc<Large>) -> Result<()> {
        let Some(large) = Arc::into_inner(large) else { return Ok(()) };
        let Large { item, content, file, leaves, error, .. } = large;
        let error = error.into_inner().unwrap_or_else(PoisonError::into_inner);
        let leaves = leaves.into_inner().unwrap_or_else(PoisonError::into_inner);
        if error.is_none() && leaves.contains(&Digest::NONE) {
            // The job ends before this content was whole; why is told by what ended it.
            return Ok(());
        }
        let written = match error {
            Some(error) => Err(mixed(&file, error)),
            None if join_leaves(&leaves, content.size) != content.digest => Err(mixed(&file, other_digest())),
            None => file.finish(&item.entry),
        };
        self.settle_bytes(item, written.map(Done::Restored), None, false)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
