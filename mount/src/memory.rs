//! What the trees of one mount share: tables and maps that were read, and what is handed over ahead.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use diptych_decoder::{ContentMap, LinkPart, Part, Read, TableRef};
use diptych_format::Result;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter};

use crate::files::Ino;
use crate::foresight::Foresight;
use crate::tree::Tree;

/// This part of what there is for tables is for maps of contents with holes.
const MAPS_SHARE: u64 = 6;
/// A part of a cache that has a lock of its own is at least so large, in bytes: larger than most tables ever are.
const SHARD_BYTES: u64 = 4 << 20;
const SHARDS_MAX: u64 = 64;
/// What a thing in a cache takes besides its own bytes, roughly: its slot, its allocations, where it is found by place.
const SLOT_BYTES: u64 = 160;
/// Parts of link tables that are kept: what few walks at once look in.
const LINK_PARTS: usize = 4;
/// Between two looks at whether anybody wants what is foreseen.
const FORESEE_LOOK: Duration = Duration::from_millis(200);

/// A tree's number, and a place in its stream or an inode of it.
type Key = (u32, u64);

/// What the trees of one mount share. A clone is the same memory.
#[derive(Clone)]
pub struct Memory(pub(crate) Arc<Kept>);

pub(crate) struct Kept {
    pub tables: Tables,
    /// Maps of contents with holes by inode: their tables are long, and each read would go through one.
    pub maps: Cache<Key, Arc<ContentMap>, Weight>,
    /// The parts of link tables that were looked in last, with the numbers of their trees.
    link_parts: Mutex<VecDeque<(u32, Arc<LinkPart>)>>,
    pub foresight: Foresight<Foreseen>,
}

impl Memory {
    /// Tables take up to `table_bytes`.
    pub fn new(table_bytes: u64) -> Self {
        let map_bytes = table_bytes / MAPS_SHARE;
        Self(Arc::new(Kept {
            tables: Tables::new(table_bytes - map_bytes),
            // Undivided, so that a long one has room.
            maps: cache(map_bytes, 1, DefaultLifecycle::default()),
            link_parts: Mutex::default(),
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

impl Kept {
    /// The part of the link table of `tree` that `path` would be in, if it was looked in lately.
    pub(crate) fn link_part(&self, tree: u32, path: &[u8]) -> Option<Arc<LinkPart>> {
        let mut parts = self.link_parts.lock().unwrap_or_else(PoisonError::into_inner);
        let place = parts.iter().position(|(of, part)| *of == tree && part.covers(path))?;
        // What was used last comes first.
        let found = parts.remove(place)?;
        let part = Arc::clone(&found.1);
        parts.push_front(found);
        Some(part)
    }

    pub(crate) fn keep_link_part(&self, tree: u32, part: Arc<LinkPart>) {
        let mut parts = self.link_parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.push_front((tree, part));
        parts.truncate(LINK_PARTS);
    }
}

/// Tables by their tree and where they stand in its stream.
pub(crate) struct Tables {
    cache: Cache<Key, Arc<Cached>, Weight, DefaultHashBuilder, Forget>,
    /// Where the tables of names stand that are in the cache. One that is missing here is only found the long way.
    standing: Standing,
}

type Standing = Arc<RwLock<BTreeSet<Key>>>;

impl Tables {
    fn new(bytes: u64) -> Self {
        let standing = Standing::default();
        let shards = (bytes / SHARD_BYTES).clamp(1, SHARDS_MAX);
        Self { cache: cache(bytes, shards, Forget(Arc::clone(&standing))), standing }
    }

    /// A table, which is read by `read` if it is not there. Two that want the same one read it once.
    pub(crate) fn get_or_read(&self, key: Key, read: impl FnOnce() -> Result<Cached>) -> Result<Arc<Cached>> {
        let mut is_new = false;
        let cached = self.cache.get_or_insert_with(&key, || {
            is_new = true;
            read().map(Arc::new)
        })?;
        if is_new && matches!(cached.read, Read::Names(_)) {
            self.standing.write().unwrap_or_else(PoisonError::into_inner).insert(key);
        }
        Ok(cached)
    }

    /// The last table of names before an inode, or at it, among those that are there.
    pub(crate) fn before(&self, key: Key) -> Option<Arc<Cached>> {
        let standing = self.standing.read().unwrap_or_else(PoisonError::into_inner);
        let place = *standing.range((key.0, 0)..=key).next_back()?;
        drop(standing);
        let found = self.cache.get(&place);
        if found.is_none() {
            // It went before it was noted.
            self.standing.write().unwrap_or_else(PoisonError::into_inner).remove(&place);
        }
        found
    }
}

/// Forgets where a table stands that the cache lets go of.
#[derive(Clone)]
pub(crate) struct Forget(Standing);

impl Lifecycle<Key, Arc<Cached>> for Forget {
    /// What goes is dropped when the cache's lock is given back.
    type RequestState = Option<Arc<Cached>>;

    fn begin_request(&self) -> Self::RequestState {
        None
    }

    fn on_evict(&self, state: &mut Self::RequestState, key: Key, gone: Arc<Cached>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&key);
        *state = Some(gone);
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
    /// The directory that it is of.
    pub directory: u64,
    pub read: Read,
}

/// What things in caches weigh, in bytes.
#[derive(Clone)]
pub(crate) struct Weight;

impl Weighter<Key, Arc<Cached>> for Weight {
    fn weight(&self, _: &Key, cached: &Arc<Cached>) -> u64 {
        let weight = match &cached.read {
            Read::Names(table) => table.weight(),
            Read::Index(references) => references.iter().map(TableRef::weight).sum(),
        };
        weight as u64 + SLOT_BYTES
    }
}

impl Weighter<Key, Arc<ContentMap>> for Weight {
    fn weight(&self, _: &Key, map: &Arc<ContentMap>) -> u64 {
        (size_of::<ContentMap>() + map.parts.len() * size_of::<Part>()) as u64 + SLOT_BYTES
    }
}

/// A cache of so many bytes, cut into shards that have a lock each.
fn cache<V: Clone, L: Lifecycle<Key, V> + Clone>(
    bytes: u64,
    shards: u64,
    lifecycle: L,
) -> Cache<Key, V, Weight, DefaultHashBuilder, L>
where
    Weight: Weighter<Key, V>,
{
    // What most tables take, for a start.
    let count = usize::try_from(bytes / 4096).unwrap_or(usize::MAX).max(16);
    let mut options = OptionsBuilder::new();
    options.estimated_items_capacity(count).weight_capacity(bytes);
    options.shards(usize::try_from(shards).unwrap_or(1));
    match options.build() {
        Ok(options) => Cache::with_options(options, Weight, DefaultHashBuilder::default(), lifecycle),
        // It lacks nothing that it needs.
        Err(_) => Cache::with(count, bytes, Weight, DefaultHashBuilder::default(), lifecycle),
    }
}
