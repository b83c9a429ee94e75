//! Digests: BLAKE3, plain for contents, and in derive-key mode with a context of its own for everything else,
//! so that no content can be crafted to stand for a table, a segment or a manifest.
//!
//! A content of up to 16 MiB has the digest that `b3sum` prints. A longer one is hashed in leaves of 16 MiB
//! that a binary tree joins. BLAKE3 alone would not do: its chunks count their position, so a run of zeros has
//! another value at each place, and a hole would cost hashing in proportion to its size. A leaf's digest does
//! not depend on its place, so leaves and whole subtrees of zeros are computed once.
//!
//! Spec: archive.md section 3; the contexts of repositories are of repository.md section 4.

use std::fmt;
use std::sync::OnceLock;

use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};

/// Context of the digest of a table's body.
pub const CONTEXT_BODY: &str = "diptych archive v1 table body";
/// Context of the digest of external extended attributes.
pub const CONTEXT_VALUES: &str = "diptych archive v1 attribute values";
/// Context of the tree id.
pub const CONTEXT_TREE: &str = "diptych archive v1 tree id";
/// Context of an inner node over the leaves of a long content.
pub const CONTEXT_NODE: &str = "diptych archive v1 content node";
/// Context of the root over the leaves of a long content.
pub const CONTEXT_LONG: &str = "diptych archive v1 long content";
/// Context of the id of a metadata chunk.
pub const CONTEXT_METADATA_CHUNK: &str = "diptych archive v1 metadata chunk";
/// Context of the id of a segment.
pub const CONTEXT_SEGMENT: &str = "diptych archive v1 segment";
/// Context of the id of a manifest.
pub const CONTEXT_MANIFEST: &str = "diptych archive v1 manifest";
/// Context of the digest of a pack's directory.
pub const CONTEXT_PACK_DIRECTORY: &str = "diptych archive v1 pack directory";

/// Context of the id of a payload chunk under a repository's key.
pub const CONTEXT_PAYLOAD_ID: &str = "diptych repository v1 payload chunk id";
/// Context of the id of a metadata chunk under a repository's key.
pub const CONTEXT_METADATA_ID: &str = "diptych repository v1 metadata chunk id";
/// Context of the id of a segment under a repository's key.
pub const CONTEXT_SEGMENT_ID: &str = "diptych repository v1 segment id";
/// Context of the id of a report, with or without a key.
pub const CONTEXT_REPORT_ID: &str = "diptych repository v1 report id";
/// Context of the key that chunks are sealed with.
pub const CONTEXT_CHUNK_SEAL: &str = "diptych repository v1 chunk seal";
/// Context of the key that documents are sealed with.
pub const CONTEXT_DOCUMENT_SEAL: &str = "diptych repository v1 document seal";
/// Context of the key of documents that are not sealed.
pub const CONTEXT_DOCUMENT_MAC: &str = "diptych repository v1 document mac";
/// Context of the key, or without one of the digest, at the end of index files.
pub const CONTEXT_INDEX_MAC: &str = "diptych repository v1 index mac";
/// Context of the key that cuts depend on.
pub const CONTEXT_CUT: &str = "diptych repository v1 cut";

/// The contexts of repositories by name, for the comparison with the specification.
pub const REPOSITORY_CONTEXTS: [(&str, &str); 9] = [
    ("CONTEXT_PAYLOAD_ID", CONTEXT_PAYLOAD_ID),
    ("CONTEXT_METADATA_ID", CONTEXT_METADATA_ID),
    ("CONTEXT_SEGMENT_ID", CONTEXT_SEGMENT_ID),
    ("CONTEXT_REPORT_ID", CONTEXT_REPORT_ID),
    ("CONTEXT_CHUNK_SEAL", CONTEXT_CHUNK_SEAL),
    ("CONTEXT_DOCUMENT_SEAL", CONTEXT_DOCUMENT_SEAL),
    ("CONTEXT_DOCUMENT_MAC", CONTEXT_DOCUMENT_MAC),
    ("CONTEXT_INDEX_MAC", CONTEXT_INDEX_MAC),
    ("CONTEXT_CUT", CONTEXT_CUT),
];

/// The contexts by name, for the comparison with the specification.
pub const CONTEXTS: [(&str, &str); 9] = [
    ("CONTEXT_BODY", CONTEXT_BODY),
    ("CONTEXT_VALUES", CONTEXT_VALUES),
    ("CONTEXT_TREE", CONTEXT_TREE),
    ("CONTEXT_NODE", CONTEXT_NODE),
    ("CONTEXT_LONG", CONTEXT_LONG),
    ("CONTEXT_METADATA_CHUNK", CONTEXT_METADATA_CHUNK),
    ("CONTEXT_SEGMENT", CONTEXT_SEGMENT),
    ("CONTEXT_MANIFEST", CONTEXT_MANIFEST),
    ("CONTEXT_PACK_DIRECTORY", CONTEXT_PACK_DIRECTORY),
];

/// The bytes of a content that one leaf covers; the last leaf may be shorter.
pub const LEAF_LENGTH: u64 = 16 << 20;

/// What a sparse leaf is hashed in, so long that data is hashed at full speed.
const UNIT_LENGTH: usize = 64 << 10;
/// What a unit is divided into, so short that little data between holes costs little.
const GRAIN_LENGTH: usize = 4 << 10;

/// A BLAKE3 digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// No digest: what stands where there is nothing to digest.
    pub const NONE: Digest = Digest([0; 32]);

    /// Digest of `bytes`, the value that `b3sum` prints.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// Digest of `bytes` in a context of its own.
    pub fn in_context(context: &'static str, bytes: &[u8]) -> Self {
        Self(blake3::derive_key(context, bytes))
    }

    /// Digest of `bytes` under a key.
    pub fn keyed(key: &[u8; 32], bytes: &[u8]) -> Self {
        Self(*blake3::keyed_hash(key, bytes).as_bytes())
    }

    /// Reads 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        blake3::Hash::from_hex(text).ok().map(|hash| Self(*hash.as_bytes()))
    }

    /// The first eight bytes as a little-endian number: what the rules for cuts compare.
    pub fn leading(&self) -> u64 {
        let (first, _) = self.0.split_at(8);
        first.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(blake3::Hash::from_bytes(self.0).to_hex().as_str())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Digests a content that comes as runs of data and of zeros.
pub struct ContentHasher {
    leaf: Leaf,
    /// Bytes in the open leaf.
    filled: u64,
    tree: LeafTree,
}

impl Default for ContentHasher {
    fn default() -> Self {
        Self::new()
    }
}

impl ContentHasher {
    /// For a content that is mostly data.
    pub fn new() -> Self {
        Self { leaf: Leaf::Dense(Box::default()), filled: 0, tree: LeafTree::default() }
    }

    /// For a content with holes: runs of zeros cost next to nothing. Gives the same digest.
    pub fn sparse() -> Self {
        Self { leaf: Leaf::Units(Units::default()), filled: 0, tree: LeafTree::default() }
    }

    /// Takes data.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            self.close_full_leaf();
            let room = usize::try_from(LEAF_LENGTH - self.filled).unwrap_or(usize::MAX);
            let (now, rest) = bytes.split_at(room.min(bytes.len()));
            match &mut self.leaf {
                Leaf::Dense(hasher) => {
                    hasher.update(now);
                }
                Leaf::Units(units) => units.data(now),
            }
            self.filled += now.len() as u64;
            bytes = rest;
        }
    }

    /// Takes `count` zeros.
    pub fn zeros(&mut self, mut count: u64) {
        while count > 0 {
            self.close_full_leaf();
            if self.filled == 0 && count > LEAF_LENGTH {
                // All but the last leaf: whether that one is the end is not known yet.
                let leaves = (count - 1) / LEAF_LENGTH;
                self.tree.push_zero_leaves(leaves);
                count -= leaves * LEAF_LENGTH;
                continue;
            }
            let now = count.min(LEAF_LENGTH - self.filled);
            match &mut self.leaf {
                Leaf::Dense(hasher) => {
                    let mut left = now;
                    while left > 0 {
                        let part = left.min(ZEROS.len() as u64);
                        hasher.update(ZEROS.split_at(usize::try_from(part).unwrap_or(0)).0);
                        left -= part;
                    }
                }
                Leaf::Units(units) => units.zeros(now),
            }
            self.filled += now;
            count -= now;
        }
    }

    /// The digest of all that came.
    pub fn finish(mut self) -> Digest {
        let last = self.take_leaf();
        if self.tree.leaves == 0 {
            return last;
        }
        let length = self.tree.leaves * LEAF_LENGTH + self.filled;
        self.tree.push(last);
        self.tree.finish(length)
    }

    /// A full leaf is closed only when more follows: a content of one leaf is hashed without a tree.
    fn close_full_leaf(&mut self) {
        if self.filled == LEAF_LENGTH {
            let leaf = self.take_leaf();
            self.tree.push(leaf);
            self.filled = 0;
        }
    }

    fn take_leaf(&mut self) -> Digest {
        match &mut self.leaf {
            Leaf::Dense(hasher) => {
                let digest = Digest(*hasher.finalize().as_bytes());
                hasher.reset();
                digest
            }
            Leaf::Units(units) => std::mem::take(units).finish(),
        }
    }
}

/// Joins the digests of leaves that were computed apart, in order: the digest of a content longer than a leaf.
///
/// `length` is the content's; the number of leaves must fit it.
pub fn join_leaves(leaves: &[Digest], length: u64) -> Digest {
    match leaves {
        [only] if length <= LEAF_LENGTH => *only,
        _ => {
            let mut tree = LeafTree::default();
            leaves.iter().for_each(|leaf| tree.push(*leaf));
            tree.finish(length)
        }
    }
}

static ZEROS: [u8; UNIT_LENGTH] = [0; UNIT_LENGTH];

enum Leaf {
    Dense(Box<blake3::Hasher>),
    Units(Units),
}

/// A leaf as the chaining values of its units. The last unit stays open, for it may be the leaf's only one.
#[derive(Default)]
struct Units {
    done: Vec<ChainingValue>,
    /// The open unit, with zeros where no data came. Empty until there is any use for it.
    open: Vec<u8>,
    /// A bit for each grain of the open unit that data came for.
    touched: u64,
    filled: usize,
}

impl Units {
    fn data(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            self.close_full_unit();
            if self.filled == 0
                && let Some((unit, rest)) = bytes.split_at_checked(UNIT_LENGTH)
                && !rest.is_empty()
            {
                self.done.push(hash_part(unit, self.offset()));
                bytes = rest;
                continue;
            }
            let (now, rest) = bytes.split_at(bytes.len().min(UNIT_LENGTH - self.filled));
            let end = self.filled + now.len();
            self.open.resize(UNIT_LENGTH, 0);
            if let Some(open) = self.open.get_mut(self.filled..end) {
                open.copy_from_slice(now);
            }
            for grain in self.filled / GRAIN_LENGTH..end.div_ceil(GRAIN_LENGTH) {
                self.touched |= 1 << grain;
            }
            self.filled = end;
            bytes = rest;
        }
    }

    fn zeros(&mut self, mut count: u64) {
        while count > 0 {
            self.close_full_unit();
            let now = usize::try_from(count).unwrap_or(UNIT_LENGTH).min(UNIT_LENGTH - self.filled);
            self.filled += now;
            count -= now as u64;
        }
    }

    fn offset(&self) -> usize {
        self.done.len() * UNIT_LENGTH
    }

    fn close_full_unit(&mut self) {
        if self.filled < UNIT_LENGTH {
            return;
        }
        self.open.resize(UNIT_LENGTH, 0);
        self.done.push(hash_unit(&self.open, self.touched, self.offset()));
        for (grain, bytes) in self.open.chunks_mut(GRAIN_LENGTH).enumerate() {
            if self.touched >> grain & 1 == 1 {
                bytes.fill(0);
            }
        }
        (self.touched, self.filled) = (0, 0);
    }

    fn finish(mut self) -> Digest {
        self.open.resize(UNIT_LENGTH, 0);
        let last = self.open.get(..self.filled).unwrap_or_default();
        if self.done.is_empty() {
            return Digest::of(last);
        }
        let value = match self.filled {
            UNIT_LENGTH => hash_unit(last, self.touched, self.offset()),
            _ => hash_part(last, self.offset()),
        };
        self.done.push(value);
        let (left, right) = self.done.split_at(left_count(self.done.len()));
        let hash = merge_subtrees_root(&join_units(left), &join_units(right), Mode::Hash);
        Digest(*hash.as_bytes())
    }
}

/// BLAKE3's tree: the left subtree is the largest power of two below the whole.
fn left_count(count: usize) -> usize {
    count.next_power_of_two() / 2
}

/// The chaining value of bytes that are a subtree of their leaf, at `offset` in it.
fn hash_part(bytes: &[u8], offset: usize) -> ChainingValue {
    blake3::Hasher::new().set_input_offset(offset as u64).update(bytes).finalize_non_root()
}

/// The same of a whole unit, or of what halving it gives, with a bit for each grain that may not be zeros.
fn hash_unit(bytes: &[u8], touched: u64, offset: usize) -> ChainingValue {
    let grains = bytes.len() / GRAIN_LENGTH;
    if touched == 0 {
        return zeros_at(grains, offset);
    }
    if touched.count_ones() as usize == grains {
        return hash_part(bytes, offset);
    }
    let (left, right) = bytes.split_at(bytes.len() / 2);
    let left_touched = touched & ((1 << (grains / 2)) - 1);
    merge_subtrees_non_root(
        &hash_unit(left, left_touched, offset),
        &hash_unit(right, touched >> (grains / 2), offset + left.len()),
        Mode::Hash,
    )
}

fn join_units(units: &[ChainingValue]) -> ChainingValue {
    match units {
        [] => ChainingValue::default(),
        [only] => *only,
        _ => {
            let (left, right) = units.split_at(left_count(units.len()));
            merge_subtrees_non_root(&join_units(left), &join_units(right), Mode::Hash)
        }
    }
}

/// The chaining value of so many grains of zeros, a power of two up to a unit, at each place in a leaf.
fn zeros_at(grains: usize, offset: usize) -> ChainingValue {
    static TABLE: OnceLock<Vec<Vec<ChainingValue>>> = OnceLock::new();
    let table = TABLE.get_or_init(|| {
        let (grain, _) = ZEROS.split_at(GRAIN_LENGTH);
        let places = 0..LEAF_LENGTH / GRAIN_LENGTH as u64;
        let grains = places.map(|place| hash_part(grain, place as usize * GRAIN_LENGTH)).collect();
        let join = |level: &Vec<ChainingValue>| Some(level.chunks(2).map(join_units).collect());
        let levels = (UNIT_LENGTH / GRAIN_LENGTH).ilog2() as usize + 1;
        std::iter::successors(Some(grains), join).take(levels).collect()
    });
    let level = table.get(grains.trailing_zeros() as usize);
    // A leaf has as many places as the table; beyond it there is nothing to hash.
    level.and_then(|level| level.get(offset / (grains * GRAIN_LENGTH))).copied().unwrap_or_default()
}

/// The binary tree over leaves, shaped as BLAKE3's own: subtrees are complete from the left.
#[derive(Default)]
struct LeafTree {
    /// Complete subtrees, largest first: one for each bit of `leaves` that is set.
    stack: Vec<Digest>,
    leaves: u64,
}

impl LeafTree {
    fn push(&mut self, leaf: Digest) {
        self.push_subtree(leaf, 0);
    }

    /// Pushes a complete subtree of 2^level leaves; the leaves before it must be a multiple of that.
    fn push_subtree(&mut self, subtree: Digest, level: u32) {
        let mut node = subtree;
        let mut carry = self.leaves >> level;
        while carry & 1 == 1 {
            let left = self.stack.pop().unwrap_or_default();
            node = join_nodes(left, node);
            carry >>= 1;
        }
        self.stack.push(node);
        self.leaves += 1 << level;
    }

    fn push_zero_leaves(&mut self, mut count: u64) {
        while count > 0 {
            let aligned = if self.leaves == 0 { 63 } else { self.leaves.trailing_zeros() };
            let level = aligned.min(count.ilog2());
            self.push_subtree(zero_subtree(level), level);
            count -= 1 << level;
        }
    }

    fn finish(self, length: u64) -> Digest {
        let top =
            self.stack.into_iter().rev().reduce(|right, left| join_nodes(left, right)).unwrap_or_default();
        let mut hasher = blake3::Hasher::new_derive_key(CONTEXT_LONG);
        hasher.update(&length.to_le_bytes()).update(&top.0);
        Digest(*hasher.finalize().as_bytes())
    }
}

fn join_nodes(left: Digest, right: Digest) -> Digest {
    static CONTEXT: OnceLock<blake3::hazmat::ContextKey> = OnceLock::new();
    let key = CONTEXT.get_or_init(|| blake3::hazmat::hash_derive_key_context(CONTEXT_NODE));
    let mut hasher = blake3::Hasher::new_from_context_key(key);
    hasher.update(&left.0).update(&right.0);
    Digest(*hasher.finalize().as_bytes())
}

/// The digest of 2^level leaves of zeros. A content of at most 2^63 bytes has at most 2^39 leaves.
fn zero_subtree(level: u32) -> Digest {
    static TABLE: OnceLock<Vec<Digest>> = OnceLock::new();
    let table = TABLE.get_or_init(|| {
        let mut units = Units::default();
        units.zeros(LEAF_LENGTH);
        let leaf = units.finish();
        std::iter::successors(Some(leaf), |node| Some(join_nodes(*node, *node))).take(40).collect()
    });
    table.get(level as usize).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: u64 = UNIT_LENGTH as u64;

    fn digest_of_parts(sparse: bool, parts: &[(u8, u64)]) -> Digest {
        let mut hasher = if sparse { ContentHasher::sparse() } else { ContentHasher::new() };
        for (byte, count) in parts {
            match byte {
                0 => hasher.zeros(*count),
                _ => hasher.update(&vec![*byte; *count as usize]),
            }
        }
        hasher.finish()
    }

    /// The definition, written as the specification has it.
    fn by_definition(bytes: &[u8]) -> Digest {
        fn subtree(leaves: &[Digest]) -> Digest {
            match leaves {
                [only] => *only,
                _ => {
                    let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
                    let pair = [subtree(left).0, subtree(right).0].concat();
                    Digest::in_context(CONTEXT_NODE, &pair)
                }
            }
        }
        if bytes.len() as u64 <= LEAF_LENGTH {
            return Digest::of(bytes);
        }
        let leaves: Vec<Digest> = bytes.chunks(LEAF_LENGTH as usize).map(Digest::of).collect();
        let mut root = (bytes.len() as u64).to_le_bytes().to_vec();
        root.extend(subtree(&leaves).0);
        Digest::in_context(CONTEXT_LONG, &root)
    }

    #[test]
    fn every_way_to_hash_gives_the_defined_digest() {
        let shapes: [&[(u8, u64)]; 12] = [
            &[],
            &[(0, 1)],
            &[(0, UNIT)],
            &[(7, UNIT), (0, UNIT)],
            &[(0, UNIT + 1), (7, 5)],
            &[(7, 3), (0, 3 * UNIT), (7, 3)],
            &[(0, LEAF_LENGTH)],
            &[(7, LEAF_LENGTH)],
            &[(7, 1), (0, LEAF_LENGTH)],
            &[(0, LEAF_LENGTH * 2), (7, 1)],
            &[(7, LEAF_LENGTH + 9), (0, LEAF_LENGTH * 2 + 5)],
            &[(0, LEAF_LENGTH * 3 - 1), (7, 2), (0, LEAF_LENGTH)],
        ];
        for shape in shapes {
            let whole: Vec<u8> = shape.iter().flat_map(|(b, n)| vec![*b; *n as usize]).collect();
            let defined = by_definition(&whole);
            assert_eq!(digest_of_parts(false, shape), defined, "dense {shape:?}");
            assert_eq!(digest_of_parts(true, shape), defined, "sparse {shape:?}");
            if !whole.is_empty() {
                let leaves: Vec<Digest> = whole.chunks(LEAF_LENGTH as usize).map(Digest::of).collect();
                assert_eq!(join_leaves(&leaves, whole.len() as u64), defined, "joined {shape:?}");
            }
        }
    }

    /// Runs that end on, before and behind the borders of grains and units, in many orders.
    #[test]
    fn little_data_between_holes_is_hashed_as_any_other() {
        let grain = GRAIN_LENGTH as u64;
        let lengths = [1, grain - 1, grain, grain + 1, 3 * grain, UNIT - grain, UNIT, UNIT + 1, 2 * UNIT];
        let mut number = 1u64;
        for round in 0..200 {
            let run = |part: u8| {
                number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(round);
                let length = lengths[(number >> 33) as usize % lengths.len()];
                ((number >> 60) as u8 % 2 * (part + 1), length)
            };
            let parts: Vec<(u8, u64)> = (0..12).map(run).collect();
            let whole: Vec<u8> = parts.iter().flat_map(|(b, n)| vec![*b; *n as usize]).collect();
            assert_eq!(digest_of_parts(true, &parts), by_definition(&whole), "{parts:?}");
        }
    }

    #[test]
    fn the_largest_hole_is_hashed_at_once() {
        let all = digest_of_parts(true, &[(0, i64::MAX as u64)]);
        let halves = digest_of_parts(true, &[(0, 1 << 62), (0, i64::MAX as u64 - (1 << 62))]);
        assert_eq!(all, halves);
    }

    /// Why plain BLAKE3 cannot give holes away: the same zeros have another value at another place.
    #[test]
    fn zeros_have_another_chaining_value_at_each_place() {
        assert_ne!(zeros_at(1, 0), zeros_at(1, GRAIN_LENGTH));
        assert_ne!(zeros_at(16, 0), zeros_at(16, UNIT_LENGTH));
    }
}
