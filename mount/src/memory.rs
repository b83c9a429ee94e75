//! What the trees of one mount share: tables and maps that were read, and what is handed over ahead.

use std::sync::Arc;
use std::time::Duration;

use diptych_decoder::{ContentMap, Part, Read, TableRef};
use quick_cache::sync::Cache;
use quick_cache::{OptionsBuilder, Weighter};

use crate::files::Ino;
use crate::foresight::Foresight;
use crate::tree::Tree;

/// Maps of contents with holes that are kept, in bytes: the longest that there may be is one of them.
const MAPS_BYTES: u64 = 40 << 20;
/// Between two looks at whether anybody wants what is foreseen.
const FORESEE_LOOK: Duration = Duration::from_millis(200);

/// What the trees of one mount share. A clone is the same memory.
#[derive(Clone)]
pub struct Memory(pub(crate) Arc<Kept>);

pub(crate) struct Kept {
    /// Tables by their tree and where they stand in its stream.
    pub tables: Cache<(u32, u64), Arc<Cached>, Weight>,
    /// Maps of contents with holes by inode: their tables are long, and each read would go through one.
    pub maps: Cache<(u32, u64), Arc<ContentMap>, Weight>,
    pub foresight: Foresight<Foreseen>,
}

impl Memory {
    /// Tables take up to `table_bytes`.
    pub fn new(table_bytes: u64) -> Self {
        Self(Arc::new(Kept {
            tables: cache(table_bytes, None),
            // Undivided, so that a long one has room.
            maps: cache(MAPS_BYTES, Some(1)),
            foresight: Foresight::default(),
        }))
    }

    /// Hands contents over before they are asked for: see [`Files::foresee`].
    pub(crate) fn foresee(&self, give: &dyn Fn(Ino, &[u8]), is_wanted: &dyn Fn() -> bool) {
        let batches = self.0.foresight.batches();
        while is_wanted() {
            if let Ok(batch) = batches.recv_timeout(FORESEE_LOOK) {
                // Whoever reads it is told what is wrong with it.
                let _ = batch.table.tree.give(&batch, give);
            }
        }
    }
}

/// A table whose small files are handed over.
pub(crate) struct Foreseen {
    pub tree: Tree,
    /// Where it stands.
    pub place: u64,
}

/// A table that was read.
pub(crate) struct Cached {
    /// What led to it.
    pub of: TableRef,
    /// The directory that it is of.
    pub directory: u64,
    pub read: Read,
}

/// What things in caches weigh, in bytes.
#[derive(Clone)]
pub(crate) struct Weight;

impl Weighter<(u32, u64), Arc<Cached>> for Weight {
    fn weight(&self, _: &(u32, u64), cached: &Arc<Cached>) -> u64 {
        let weight = match &cached.read {
            Read::Names(table) => table.weight(),
            Read::Index(references) => references.iter().map(TableRef::weight).sum(),
        };
        weight as u64
    }
}

impl Weighter<(u32, u64), Arc<ContentMap>> for Weight {
    fn weight(&self, _: &(u32, u64), map: &Arc<ContentMap>) -> u64 {
        (size_of::<ContentMap>() + map.parts.len() * size_of::<Part>()) as u64
    }
}

/// A cache of so many bytes, which is cut into `parts` that have a lock each.
fn cache<V: Clone>(bytes: u64, parts: Option<usize>) -> Cache<(u32, u64), V, Weight>
where
    Weight: Weighter<(u32, u64), V>,
{
    // What most tables take, for a start.
    let count = usize::try_from(bytes / 4096).unwrap_or(usize::MAX).max(16);
    let mut options = OptionsBuilder::new();
    options.estimated_items_capacity(count).weight_capacity(bytes);
    if let Some(parts) = parts {
        options.shards(parts);
    }
    match options.build() {
        Ok(options) => Cache::with_options(options, Weight, Default::default(), Default::default()),
        // It lacks nothing that it needs.
        Err(_) => Cache::with_weighter(count, bytes, Weight),
    }
}
