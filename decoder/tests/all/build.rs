//! Archives from made-up trees: the least that a writer must do, bottom up.

use std::sync::Arc;

use diptych_decoder::Archive;
use diptych_format::digest::ContentHasher;
use diptych_format::pieces::CutRule;
use diptych_format::stream::{Trailer, encode_header, tree_id};
use diptych_format::table::{
    Below, DirectoryRow, IndexRow, LinkRow, Owners, Reference, encode_directory_table, encode_index_table,
    encode_link_table, encode_owners,
};
use diptych_format::{
    Attributes, Change, Digest, Entry, Holds, Hole, Kind, Name, Result, Status, Time, Xattr,
};

/// An entry with what is below it, or the bytes of its content that are no holes.
#[derive(Clone, Debug)]
pub struct Node {
    pub entry: Entry,
    pub children: Vec<Node>,
    pub payload: Vec<u8>,
}

pub fn node(name: &str, kind: Kind, holds: Holds) -> Node {
    let name = if name.is_empty() { Name::root() } else { Name::try_new(name.as_bytes()).unwrap() };
    let permissions = if kind == Kind::Directory { 0o755 } else { 0o644 };
    let entry = Entry {
        name,
        attributes: Attributes {
            mode: kind.mode_bits() | permissions,
            uid: 1000,
            gid: 100,
            ..Attributes::default()
        },
        mtime: Time { seconds: 1_700_000_000, nanoseconds: 5 },
        holds,
        holes: Vec::new(),
        change: Change { ctime: Time { seconds: 1_700_000_001, nanoseconds: 0 }, inode: 77 },
        status: Status::COMPLETE,
    };
    Node { entry, children: Vec::new(), payload: Vec::new() }
}

pub fn dir(name: &str, mut children: Vec<Node>) -> Node {
    children.sort_by(|a, b| a.entry.name.cmp(&b.entry.name));
    Node { children, ..node(name, Kind::Directory, Holds::Entries { digest: Digest::NONE }) }
}

pub fn file(name: &str, bytes: &[u8]) -> Node {
    let holds = Holds::Content { size: bytes.len() as u64, digest: Digest::of(bytes) };
    Node { payload: bytes.to_vec(), ..node(name, Kind::File, holds) }
}

/// A file of `size` bytes with `holes`, and `data` in between.
pub fn sparse(name: &str, size: u64, holes: &[(u64, u64)], data: &[u8]) -> Node {
    let holes: Vec<Hole> =
        holes.iter().map(|(start, length)| Hole { start: *start, length: *length }).collect();
    let mut hasher = ContentHasher::sparse();
    let (mut at, mut left) = (0, data);
    for hole in &holes {
        let (now, rest) = left.split_at((hole.start - at) as usize);
        hasher.update(now);
        hasher.zeros(hole.length);
        (at, left) = (hole.start + hole.length, rest);
    }
    hasher.update(left);
    assert_eq!(at + left.len() as u64, size);
    let mut node = node(name, Kind::File, Holds::Content { size, digest: hasher.finish() });
    node.entry.holes = holes;
    node.payload = data.to_vec();
    node
}

pub fn symlink(name: &str, target: &str) -> Node {
    node(name, Kind::Symlink, Holds::Target(target.as_bytes().into()))
}

impl Node {
    pub fn with(mut self, change: impl FnOnce(&mut Entry)) -> Self {
        change(&mut self.entry);
        self
    }

    pub fn xattr(self, name: &str, value: &[u8]) -> Self {
        self.with(|entry| {
            entry.attributes.xattrs.push(Xattr { name: name.as_bytes().into(), value: value.into() })
        })
    }
}

/// How directories are cut into pieces.
#[derive(Clone, Copy)]
pub enum Cut {
    /// As the specification says.
    Rule,
    /// After so many rows, on every level: readers do not care, but for `verify`.
    Every(usize),
}

/// Writes a metadata stream, and the payload stream beside it.
pub struct Writer {
    pub out: Vec<u8>,
    pub payload: Vec<u8>,
    cut: Cut,
}

impl Writer {
    pub fn new(cut: Cut) -> Self {
        Self { out: encode_header().to_vec(), payload: Vec::new(), cut }
    }

    pub fn table(&mut self, rows: &[DirectoryRow]) -> Below {
        encode_directory_table(rows, self.out.len() as u64, &mut self.out).unwrap()
    }

    /// Everything below `node`, and its own table.
    pub fn directory(&mut self, node: &Node) -> Below {
        let mut pieces = self.cut_rule(0, node.children.iter().map(|child| child.entry.name.as_bytes()));
        if pieces.is_empty() {
            pieces.push(0..0);
        }
        let mut levels = Levels::new();
        for range in pieces {
            let children = &node.children[range];
            let first: Box<[u8]> = children.first().map_or(&[][..], |c| c.entry.name.as_bytes()).into();
            levels.begin(&first, self, encode_index);
            for child in children {
                self.payload.extend_from_slice(&child.payload);
            }
            let rows: Vec<DirectoryRow> = children
                .iter()
                .map(|child| {
                    let is_directory = child.entry.kind().unwrap() == Kind::Directory;
                    let below = is_directory.then(|| self.directory(child));
                    DirectoryRow { entry: child.entry.clone(), below }
                })
                .collect();
            let below = self.table(&rows);
            levels.pending[0].push(IndexRow { first_name: first, below });
        }
        levels.finish(self, encode_index)
    }

    fn cut_rule<'n>(&self, level: u64, names: impl Iterator<Item = &'n [u8]>) -> Vec<std::ops::Range<usize>> {
        let mut rule = CutRule::new(level);
        let mut pieces: Vec<std::ops::Range<usize>> = Vec::new();
        for (index, name) in names.enumerate() {
            let cuts = match self.cut {
                Cut::Rule => rule.cuts_before(name),
                Cut::Every(rows) => index % rows == 0,
            };
            match pieces.last_mut() {
                Some(piece) if !cuts => piece.end += 1,
                _ => pieces.push(index..index + 1),
            }
        }
        pieces
    }

    pub fn links(&mut self, rows: &[LinkRow]) -> Below {
        let mut levels = Levels::new();
        let mut pieces = self.cut_rule(0, rows.iter().map(|row| &row.path[..]));
        if pieces.is_empty() {
            pieces.push(0..0);
        }
        for range in pieces {
            let rows = &rows[range];
            let first: Box<[u8]> = rows.first().map_or(&[][..], |row| &row.path).into();
            levels.begin(&first, self, encode_index);
            let below = encode_link_table(rows, self.out.len() as u64, &mut self.out).unwrap();
            levels.pending[0].push(IndexRow { first_name: first, below });
        }
        levels.finish(self, encode_index)
    }

    /// Root, links, owners, trailer. `change` may spoil the trailer.
    pub fn finish(
        mut self,
        root: DirectoryRow,
        links: &[LinkRow],
        owners: &Owners,
        change: impl FnOnce(&mut Trailer),
    ) -> Built {
        let root = self.table(&[root]);
        let links = self.links(links);
        let owner_position = self.out.len() as u64;
        let owners = (!owners.is_empty()).then(|| encode_owners(owners, &mut self.out).unwrap() as u64);
        let position = self.out.len() as u64;
        let back = |start: u64, length| Reference { distance: position - start, length };
        let mut trailer = Trailer {
            root: back(root.position, root.length),
            links: back(links.position, links.length),
            owners: owners.map(|length| back(owner_position, length)),
            tree_id: tree_id(&root.digest, &links.digest),
            entries: root.entries,
            payload_length: root.payload_length,
            stream_length: position + 128,
            is_partial: false,
            is_incomplete: false,
        };
        change(&mut trailer);
        self.out.extend_from_slice(&trailer.encode());
        Built { metadata: self.out, payload: self.payload }
    }
}

fn encode_index(rows: &[IndexRow], level: u64, writer: &mut Writer) -> Below {
    encode_index_table(rows, level, writer.out.len() as u64, &mut writer.out).unwrap()
}

type EncodeIndex = fn(&[IndexRow], u64, &mut Writer) -> Below;

/// The index rows that wait for their table, level by level.
struct Levels {
    pending: Vec<Vec<IndexRow>>,
    rules: Vec<CutRule>,
    is_begun: bool,
}

impl Levels {
    fn new() -> Self {
        Self { pending: vec![Vec::new(); 8], rules: (1..8).map(CutRule::new).collect(), is_begun: false }
    }

    /// A piece begins: index tables that end before it are written.
    fn begin(&mut self, first: &[u8], writer: &mut Writer, encode: EncodeIndex) {
        for level in 0..7 {
            let cuts = match writer.cut {
                Cut::Rule => self.rules[level].cuts_before(first),
                Cut::Every(rows) => self.pending[level].len() >= rows,
            };
            if self.is_begun && !cuts {
                break;
            }
            if self.is_begun {
                self.flush(level, writer, encode);
            }
        }
        self.is_begun = true;
    }

    fn flush(&mut self, level: usize, writer: &mut Writer, encode: EncodeIndex) {
        let rows = std::mem::take(&mut self.pending[level]);
        let below = encode(&rows, level as u64 + 1, writer);
        self.pending[level + 1].push(IndexRow { first_name: rows[0].first_name.clone(), below });
    }

    fn finish(mut self, writer: &mut Writer, encode: EncodeIndex) -> Below {
        let mut level = 0;
        loop {
            let is_last = self.pending[level + 1..].iter().all(Vec::is_empty);
            if is_last && self.pending[level].len() == 1 {
                return self.pending[level][0].below;
            }
            self.flush(level, writer, encode);
            level += 1;
        }
    }
}

/// The two streams.
#[derive(Clone)]
pub struct Built {
    pub metadata: Vec<u8>,
    pub payload: Vec<u8>,
}

impl Built {
    pub fn open(&self) -> Result<Archive> {
        Archive::open(Arc::new(self.metadata.clone()))
    }
}

/// The archive of a tree.
pub fn build(root: &Node) -> Built {
    build_with(root, &[], &Owners::default(), Cut::Rule)
}

pub fn build_with(root: &Node, links: &[LinkRow], owners: &Owners, cut: Cut) -> Built {
    let mut writer = Writer::new(cut);
    let below = writer.directory(root);
    let row = DirectoryRow { entry: root.entry.clone(), below: Some(below) };
    let is_incomplete = any(root, &|node| !node.entry.status.is_complete());
    writer.finish(row, links, owners, |trailer| trailer.is_incomplete = is_incomplete)
}

fn any(node: &Node, is: &dyn Fn(&Node) -> bool) -> bool {
    is(node) || node.children.iter().any(|child| any(child, is))
}

pub fn link(path: &str, first: &str, count: u64) -> LinkRow {
    LinkRow { path: path.as_bytes().into(), first: first.as_bytes().into(), count }
}

/// A tree with one of everything, its links and its owners.
pub fn everything() -> (Node, Vec<LinkRow>, Owners) {
    let device = node("disk", Kind::BlockDevice, Holds::Device { major: 8, minor: 1 });
    let root = dir(
        "",
        vec![
            file("a", b"first").xattr("user.comment", b"small"),
            file("b", b"linked"),
            sparse("gaps", 5_000_000, &[(2, 1_000_000), (1_000_003, 3_999_995)], b"xyz..".split_at(5).0),
            file("empty", b""),
            file("labelled", b"1").xattr("user.large", &[7; 5000]),
            file("labelled-too", b"2").xattr("user.large", &[7; 5000]),
            file("unread", b"").with(|entry| {
                entry.holds = Holds::Content { size: 99, digest: Digest::NONE };
                entry.status = Status::NOT_READ;
            }),
            symlink("way", "a/b/c"),
            device,
            node("null", Kind::CharDevice, Holds::Device { major: 1, minor: 3 }),
            node("pipe", Kind::Fifo, Holds::Nothing),
            node("plug", Kind::Socket, Holds::Nothing),
            dir("hollow", vec![]),
            dir(
                "sub",
                vec![
                    file("b", b"linked"),
                    file("z", &[9; 3000]),
                    dir("deep", vec![file("x", b"deepest").with(|entry| entry.mtime.seconds = -5)]),
                    dir("deep-er", vec![file("y", b"other")]),
                ],
            ),
            dir("sub-b", vec![file("q", b"last")]).xattr("user.large", &[8; 4000]),
        ],
    );
    let links = vec![link("b", "", 2), link("sub/b", "b", 2)];
    let owners = Owners { users: vec![(1000, b"ada".to_vec())], groups: vec![(100, b"users".to_vec())] };
    (root, links, owners)
}

/// The entries of a tree in archive order with their paths and the bytes of their payloads, cut as `cut` says.
pub fn expected(root: &Node, cut: Cut) -> Vec<(Vec<u8>, Entry, Vec<u8>)> {
    fn add(node: &Node, path: &[u8], writer: &Writer, all: &mut Vec<(Vec<u8>, Entry, Vec<u8>)>) {
        all.push((path.to_vec(), node.entry.clone(), node.payload.clone()));
        let join = |child: &Node| match path {
            [] => child.entry.name.as_bytes().to_vec(),
            _ => [path, b"/", child.entry.name.as_bytes()].concat(),
        };
        let names = node.children.iter().map(|child| child.entry.name.as_bytes());
        for piece in writer.cut_rule(0, names) {
            for wanted in [false, true] {
                for child in &node.children[piece.clone()] {
                    if (child.entry.kind().unwrap() == Kind::Directory) == wanted {
                        add(child, &join(child), writer, all);
                    }
                }
            }
        }
    }
    let mut all = Vec::new();
    add(root, b"", &Writer::new(cut), &mut all);
    all
}
