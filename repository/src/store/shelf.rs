//! A place nearer than the packs, where chunks may be kept as they are stored.

use diptych_format::Digest;

/// Keeps stored chunks: sealed, where they are sealed in their packs. What it gives is proved like what a pack gives, and
/// what does not prove right is fetched from the pack.
pub trait Shelf: Send + Sync {
    /// Fills `buffer` with a chunk of this length; says whether it is there.
    fn get(&self, id: &Digest, buffer: &mut [u8]) -> bool;

    /// Keeps a chunk, if there is room for it.
    fn put(&self, id: &Digest, stored: &[u8]);

    /// Lets go of a chunk that is not what it should be.
    fn remove(&self, id: &Digest);
}
