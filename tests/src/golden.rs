//! Golden archives: made once, never edited, read by every later release.
//!
//! The encoder writes them in memory, from trees that no file system need hold. Once an archive is in spec/golden its
//! bytes are what counts: this file says how it came about, and makes those that a later version of the format adds.

use std::collections::{BTreeMap, HashMap};

use diptych_encoder::cut::{Cuts, LARGE_MIN};
use diptych_encoder::{Finished, LinkKey, Payload, Place, TreeEncoder};
use diptych_format::limits::{self, PAYLOAD_CHUNK_MAX};
use diptych_format::manifest::{ArchiveManifest, StreamRoot};
use diptych_format::map::MapBuilder;
use diptych_format::pack::{ChunkKind, PackHolds, chunk_id};
use diptych_format::pieces::CutRule;
use diptych_format::table::Owners;
use diptych_format::{Digest, Entry, Name, SegmentRef, Slice, Status};
use diptych_repository::{ChunkKeys, Compression, Compressor, PackWriter, Padding};

use crate::random::Random;
use crate::tree;
use crate::tree::{Run, Tree, What, join, odd_names};

/// How one golden archive is made.
pub struct Golden {
    /// Name of its folder.
    pub name: &'static str,
    /// What it shows, for its README.
    pub about: &'static str,
    /// What is in it.
    pub tree: Tree,
    /// Whether it is a pair of files.
    pub is_pair: bool,
    /// After how many objects it ends, as a checkpoint.
    pub partial: Option<usize>,
}

impl Golden {
    fn new(name: &'static str, about: &'static str, tree: Tree) -> Self {
        Self { name, about, tree, is_pair: false, partial: None }
    }
}

/// All of version 1.
pub fn all() -> Vec<Golden> {
    vec![
        Golden::new("empty", "An empty directory: no payload, and maps without slices.", tree! {}),
        Golden {
            is_pair: true,
            ..Golden::new(
                "every_kind",
                "Every kind of entry, attributes, owners with names; as a pair of files.",
                every_kind(),
            )
        },
        Golden::new("deep", "Directories 300 deep, a file in each tenth.", deep()),
        Golden::new("wide", "A directory of 5,000 names in several pieces under an index table.", wide()),
        Golden::new(
            "hardlinks",
            "Groups of hard links, within a directory and across; a linked symlink.",
            links(),
        ),
        Golden::new(
            "sparse",
            "Holes at the start, in the middle and at the end; one content that is all hole.",
            sparse(),
        ),
        Golden::new(
            "odd_names",
            "Names and targets that are no UTF-8, and others that break programs.",
            odd(),
        ),
        Golden::new(
            "deduplicated",
            "The same contents again and again: slices that are used more than once.",
            again(),
        ),
        Golden::new("max_limits", "Names, targets and attributes as long as they can be.", longest()),
        Golden {
            partial: Some(9),
            ..Golden::new(
                "partial",
                "A checkpoint: directories that were not yet listed to their end.",
                every_kind(),
            )
        },
    ]
}

fn every_kind() -> Tree {
    tree! {
        "block" => Tree::block_device(259, 1_048_575).owner(0, 6),
        "char" => Tree::char_device(1, 3).mode(0o666),
        "directory" => tree! {
            "empty" => Tree::file(""),
            "script" => Tree::file("#!/bin/sh\n").mode(0o4755).xattr("security.capability", [1, 0, 0, 2]),
        }.mode(0o1777).flags(0x10),
        "fifo" => Tree::fifo().mtime(-1, 999_999_999),
        "file" => Tree::file("content\n").owner(1000, 100).xattr("user.comment", "a file").flags(0x40),
        "large" => Tree::runs([Run::Made { seed: 1, length: 300_000 }]).owner(1000, 1000),
        "socket" => Tree::socket().mtime(5_000_000_000, 1),
        "symlink" => Tree::symlink("directory/script").owner(u32::MAX - 1, 4_000_000_000),
    }
}

fn deep() -> Tree {
    (0..300).rev().fold(tree! { "bottom" => Tree::file("here") }, |below, depth| {
        let file =
            if depth % 10 == 0 { vec![(b"file".to_vec(), Tree::file(format!("{depth}")))] } else { vec![] };
        Tree::directory([(format!("d{depth}").into_bytes(), below)].into_iter().chain(file))
    })
}

fn wide() -> Tree {
    let names = (0..5000).map(|number| {
        let tree = match number % 50 {
            0 => tree! { "below" => Tree::file(format!("{number}")) },
            1 => Tree::symlink(format!("name{}", number - 1)),
            _ => Tree::file(if number % 10 == 0 { format!("{number}") } else { String::new() }),
        };
        (format!("name{number:05}").into_bytes(), tree)
    });
    Tree::directory(names)
}

fn links() -> Tree {
    tree! {
        "a" => Tree::hard_link("m"),
        "d" => tree! { "n" => Tree::hard_link("m"), "o" => Tree::hard_link("l") },
        "e" => tree! { "x" => Tree::runs([Run::Made { seed: 9, length: 270_000 }]), "y" => Tree::hard_link("e/x") },
        "l" => Tree::symlink("m"),
        "m" => Tree::file("three names"),
    }
}

fn sparse() -> Tree {
    let data = |seed, length| Run::Made { seed, length };
    tree! {
        "all" => Tree::runs([Run::Hole(17 << 20)]),
        "end" => Tree::runs([data(1, 100), Run::Hole(1 << 20)]),
        "middle" => Tree::runs([data(2, 4096), Run::Hole(20 << 20), data(3, 4096), Run::Hole(65_536), data(4, 1)]),
        "start" => Tree::runs([Run::Hole(4096), data(5, 10)]),
        "zeros" => Tree::file([0; 5000]),
    }
}

fn odd() -> Tree {
    let mut below: Vec<(Vec<u8>, Tree)> =
        odd_names().into_iter().map(|name| (name, Tree::file("odd"))).collect();
    below.push((b"\xfd".to_vec(), tree! { b"\xfc\n" => Tree::symlink(b"\xff/\xfe") }));
    below.push((b"\xf0".to_vec(), Tree::hard_link(b"\xff\xfe")));
    Tree::directory(below)
}

fn again() -> Tree {
    let large = || Tree::runs([Run::Made { seed: 4, length: 280_000 }]);
    let small = |number: usize| Tree::file(format!("content {}", number % 3));
    let copies = (0..9).map(|number| (format!("copy{number}").into_bytes(), small(number)));
    tree! {
        "a" => Tree::directory(copies.clone()),
        "b" => Tree::directory(copies),
        "large" => large(),
        "large again" => large(),
        "longer" => Tree::runs([Run::Made { seed: 4, length: 280_000 }, Run::Data(b"more".to_vec())]),
    }
}

fn longest() -> Tree {
    let value = |seed| Random::new(seed).bytes(limits::XATTR_VALUE_MAX);
    let full = |name: u8| vec![name; limits::NAME_LENGTH_MAX];
    let inline = vec![b'i'; limits::XATTR_INLINE_MAX as usize - 6];
    Tree::directory([
        (full(b'd'), Tree::directory([(full(b'e'), Tree::file("deep")), (full(0xff), Tree::fifo())])),
        (b"inline".to_vec(), Tree::file("").xattr("user.i", inline)),
        (b"owner".to_vec(), Tree::file("").owner(u32::MAX, u32::MAX).mode(0o7777)),
        (b"target".to_vec(), Tree::symlink(vec![b't'; limits::TARGET_LENGTH_MAX])),
        (b"times".to_vec(), Tree::file("").mtime(i64::MIN, 999_999_999)),
        (b"times2".to_vec(), Tree::file("").mtime(i64::MAX, 999_999_999)),
        (b"value".to_vec(), Tree::file("").xattr("user.v", value(1))),
        (b"values".to_vec(), Tree::file("").xattr([b'n'; 255], value(2)).xattr("user.w", "")),
    ])
}

/// Writes one archive. Calls go as those of the real writer, on one thread and in memory.
struct Writer {
    encoder: TreeEncoder,
    metadata: Vec<Vec<u8>>,
    payload: Payload,
    /// Bytes of each payload chunk, by number.
    chunks: Vec<Vec<u8>>,
    keys: HashMap<Vec<u8>, LinkKey>,
    left: usize,
}

/// The files of the archive by their names.
pub fn files(golden: &Golden) -> BTreeMap<String, Vec<u8>> {
    let mut writer = Writer {
        encoder: TreeEncoder::new(Cuts::plain()),
        metadata: Vec::new(),
        payload: Payload::new(Cuts::plain(), 1 << 16),
        chunks: Vec::new(),
        keys: link_keys(&golden.tree),
        left: golden.partial.unwrap_or(usize::MAX),
    };
    writer.directory(&golden.tree, &golden.tree, b"", Name::root());
    let user = |id, name: &str| (id, name.as_bytes().to_vec());
    let owners = match golden.name {
        "every_kind" => Owners {
            users: vec![user(0, "root"), user(1000, "someone")],
            groups: vec![user(0, "root"), user(100, "users")],
        },
        _ => Owners::default(),
    };
    let finished = match golden.partial {
        None => writer.encoder.finish(&owners).unwrap(),
        Some(_) => {
            let (chunks, finished) = writer.encoder.checkpoint(&owners).unwrap();
            writer.metadata.extend(writer.encoder.take_chunks());
            writer.metadata.extend(chunks);
            finished
        }
    };
    writer.metadata.extend(writer.encoder.take_chunks());
    writer.pack(golden, finished)
}

/// A key for each path that is one of several of its inode.
fn link_keys(tree: &Tree) -> HashMap<Vec<u8>, LinkKey> {
    let mut keys = HashMap::new();
    for (path, found) in tree.paths() {
        if let What::HardLink(target) = &found.what {
            let inode = 1 + keys.len() as u64;
            let key = *keys.entry(target.clone()).or_insert(LinkKey { device: 1, inode });
            keys.insert(path, key);
        }
    }
    keys
}

impl Writer {
    fn directory(&mut self, root: &Tree, tree: &Tree, path: &[u8], name: Name) {
        let What::Directory(below) = &tree.what else { panic!("a directory is expected") };
        self.encoder.enter(tree.entry(name)).unwrap();
        let mut rule = CutRule::new(0);
        let mut pieces: Vec<Vec<(&Vec<u8>, &Tree)>> = vec![vec![]];
        for (name, tree) in below {
            if rule.cuts_before(name) {
                pieces.push(vec![]);
            }
            pieces.last_mut().unwrap().push((name, tree));
        }
        let last = pieces.len() - 1;
        for (index, piece) in pieces.into_iter().enumerate() {
            let (directories, others): (Vec<_>, Vec<_>) =
                piece.into_iter().partition(|(_, tree)| matches!(tree.what, What::Directory(_)));
            for (name, tree) in others.into_iter().chain(directories) {
                let path = join(path, name);
                let name = Name::try_new(name).unwrap();
                // A checkpoint is taken where so many have come: what follows is not there.
                if self.left == 0 {
                    return;
                }
                self.left -= 1;
                match &tree.what {
                    What::Directory(_) => self.directory(root, tree, &path, name),
                    What::HardLink(target) => self.entry(root.at(target).unwrap(), &path, name),
                    _ => self.entry(tree, &path, name),
                }
            }
            if self.left > 0 && index < last {
                self.encoder.end_piece().unwrap();
            }
        }
        if self.left > 0 {
            self.encoder.leave(Status::COMPLETE).unwrap();
        }
        self.metadata.extend(self.encoder.take_chunks());
    }

    fn entry(&mut self, tree: &Tree, path: &[u8], name: Name) {
        let entry: Entry = tree.entry(name);
        let key = self.keys.get(path).copied();
        self.encoder.entry(entry, key).unwrap();
        if matches!(tree.what, What::File(_)) && key.is_none_or(|key| !self.payload.repeat_link(key)) {
            let mark = self.payload.mark();
            self.content(tree.digest(), &tree.payload());
            if let Some(key) = key {
                self.payload.remember_link(key, mark);
            }
        }
    }

    fn content(&mut self, digest: Digest, payload: &[u8]) {
        if payload.len() as u64 >= LARGE_MIN {
            self.payload.end_group();
            let mut rest = payload;
            while !rest.is_empty() {
                let (chunk, behind) =
                    rest.split_at(Cuts::plain().large_cut(&rest[..rest.len().min(PAYLOAD_CHUNK_MAX)]));
                self.payload.large_chunk(chunk.len() as u32);
                self.chunks.push(chunk.to_vec());
                rest = behind;
            }
            return;
        }
        if let Place::Group { .. } = self.payload.small(digest, payload.len() as u32) {
            // The group's number says whether it is a new one.
            self.chunks.resize(self.payload.chunks() as usize, Vec::new());
            self.chunks.last_mut().unwrap().extend_from_slice(payload);
        }
    }

    fn pack(self, golden: &Golden, finished: Finished) -> BTreeMap<String, Vec<u8>> {
        let ids: Vec<Digest> = self.chunks.iter().map(|raw| chunk_id(ChunkKind::Payload, raw)).collect();
        let stream = self.payload.finish();
        let ids = |number: u64| ids.get(number as usize).map(|id| (*id, 0));
        let payload_map = map(stream.with_ids(ids).map(|slice| slice.unwrap().0));
        let metadata_map = map(self.metadata.iter().map(|raw| Slice {
            chunk: chunk_id(ChunkKind::Metadata, raw),
            start: 0,
            length: raw.len() as u32,
        }));
        let root = |of: &SegmentRef, length| StreamRoot { root: of.id, length };
        let manifest = ArchiveManifest {
            tree_id: finished.trailer.tree_id,
            complete: finished.trailer.is_complete(),
            entries: finished.trailer.entries,
            metadata: root(&metadata_map.0, finished.trailer.stream_length),
            payload: root(&payload_map.0, stream.length),
            tool: "diptych golden".to_owned(),
        };
        let payload: Vec<_> = self.chunks.into_iter().map(|raw| (ChunkKind::Payload, raw)).collect();
        let segments = metadata_map.1.into_iter().chain(payload_map.1);
        let metadata = self.metadata.into_iter().map(|raw| (ChunkKind::Metadata, raw));
        let mut rest: Vec<_> = metadata.chain(segments.map(|raw| (ChunkKind::Segment, raw))).collect();
        rest.push((ChunkKind::Manifest, manifest.encode().unwrap()));
        if golden.is_pair {
            let meta = pack_of(PackHolds::Metadata, &rest);
            let data = pack_of(PackHolds::Payload, &payload);
            return BTreeMap::from([("archive.meta.dpt".into(), meta), ("archive.data.dpt".into(), data)]);
        }
        let all = [payload, rest].concat();
        BTreeMap::from([("archive.dpt".into(), pack_of(PackHolds::Both, &all))])
    }
}

fn map(slices: impl Iterator<Item = Slice>) -> (SegmentRef, Vec<Vec<u8>>) {
    let mut builder = MapBuilder::default();
    slices.for_each(|slice| builder.push(slice).unwrap());
    let (root, built) = builder.finish().unwrap();
    (root, built.into_iter().map(|segment| segment.bytes).collect())
}

fn pack_of(holds: PackHolds, chunks: &[(ChunkKind, Vec<u8>)]) -> Vec<u8> {
    let mut writer = PackWriter::new(Vec::new(), holds).unwrap();
    let mut compressor = Compressor::new(Compression::Zstd(3), ChunkKeys::plain(), Padding::None);
    let mut present = std::collections::HashSet::new();
    for (kind, raw) in chunks {
        let id = chunk_id(*kind, raw);
        if present.insert(id) {
            let mut stored = Vec::new();
            compressor.store(*kind, id, raw, &mut stored).unwrap();
            writer.append(id, *kind, &stored).unwrap();
        }
    }
    writer.finish().unwrap().0
}
