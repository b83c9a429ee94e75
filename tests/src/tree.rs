//! A tree as a literal: made on disk, read back from disk, made up at random, turned into entries, compared.
//!
//! ```
//! use diptych_tests::{Tree, tree};
//!
//! let tree = tree! {
//!     "empty" => Tree::file(""),
//!     "docs" => tree! {
//!         "notes" => Tree::file("remember").mode(0o600).mtime(-1, 5),
//!         "self" => Tree::symlink("notes"),
//!     },
//!     "again" => Tree::hard_link("docs/notes"),
//! };
//! assert_eq!(tree.count(), 6);
//! ```
//!
//! Always true of what [`Tree::read`](crate::disk) gives: of several paths of one inode the least, compared as
//! bytes of whole paths, has the content, and the others are hard links to it. A literal may have them otherwise;
//! comparisons put both into that form.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use diptych_format::digest::ContentHasher;
use diptych_format::{Attributes, Change, Digest, Entry, Holds, Hole, Kind, Name, Status, Time, Xattr};

use crate::dir::may_set_trusted_xattrs;
use crate::random::Random;

/// One object and all below it.
#[derive(Clone, PartialEq, Eq)]
pub struct Tree {
    /// What it is.
    pub what: What,
    /// Permission bits, set-id and sticky counted.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// When the content last changed.
    pub mtime: Time,
    /// Extended attributes in the kernel's representation.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// `chattr` flags.
    pub flags: u32,
}

/// What an object is, and what it holds.
#[derive(Clone, PartialEq, Eq)]
pub enum What {
    /// A regular file, as runs of data and of nothing.
    File(Vec<Run>),
    /// A directory, its names ascending.
    Directory(BTreeMap<Vec<u8>, Tree>),
    /// A symbolic link to anywhere.
    Symlink(Vec<u8>),
    /// A named pipe.
    Fifo,
    /// A socket's name.
    Socket,
    /// A character device, by major and minor number.
    CharDevice(u32, u32),
    /// A block device, likewise.
    BlockDevice(u32, u32),
    /// Another name for what is at this path, from the root of the literal.
    HardLink(Vec<u8>),
}

/// A run of a content.
#[derive(Clone, PartialEq, Eq)]
pub enum Run {
    /// These bytes.
    Data(Vec<u8>),
    /// So many bytes that are made from a seed, for long contents.
    Made {
        /// The seed.
        seed: u64,
        /// How many bytes.
        length: u64,
    },
    /// So many bytes that take no place. On disk a hole keeps its form if it begins and ends at a multiple of
    /// the file system's block.
    Hole(u64),
}

/// A directory as a literal: `tree! { "name" => Tree::file("content"), … }`.
#[macro_export]
macro_rules! tree {
    ($($name:expr => $below:expr),* $(,)?) => {
        $crate::Tree::directory([$((AsRef::<[u8]>::as_ref($name).to_vec(), $below)),*])
    };
}

impl Tree {
    fn new(what: What, mode: u32) -> Self {
        let mtime = Time { seconds: 1_600_000_000, nanoseconds: 0 };
        Self { what, mode, uid: 0, gid: 0, mtime, xattrs: BTreeMap::new(), flags: 0 }
    }

    /// A regular file with this content.
    pub fn file(content: impl AsRef<[u8]>) -> Self {
        let content = content.as_ref();
        let runs = if content.is_empty() { vec![] } else { vec![Run::Data(content.to_vec())] };
        Self::new(What::File(runs), 0o644)
    }

    /// A regular file of several runs.
    pub fn runs(runs: impl Into<Vec<Run>>) -> Self {
        Self::new(What::File(runs.into()), 0o644)
    }

    /// A directory.
    pub fn directory(below: impl IntoIterator<Item = (Vec<u8>, Tree)>) -> Self {
        Self::new(What::Directory(below.into_iter().collect()), 0o755)
    }

    /// A symbolic link.
    pub fn symlink(target: impl AsRef<[u8]>) -> Self {
        Self::new(What::Symlink(target.as_ref().to_vec()), 0o777)
    }

    /// A named pipe.
    pub fn fifo() -> Self {
        Self::new(What::Fifo, 0o644)
    }

    /// A socket's name.
    pub fn socket() -> Self {
        Self::new(What::Socket, 0o755)
    }

    /// A character device.
    pub fn char_device(major: u32, minor: u32) -> Self {
        Self::new(What::CharDevice(major, minor), 0o600)
    }

    /// A block device.
    pub fn block_device(major: u32, minor: u32) -> Self {
        Self::new(What::BlockDevice(major, minor), 0o660)
    }

    /// Another name for what is at `path`, counted from the root of the literal.
    pub fn hard_link(path: impl AsRef<[u8]>) -> Self {
        Self::new(What::HardLink(path.as_ref().to_vec()), 0)
    }

    /// The same with these permission bits.
    #[must_use]
    pub fn mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }

    /// The same with these owners.
    #[must_use]
    pub fn owner(self, uid: u32, gid: u32) -> Self {
        Self { uid, gid, ..self }
    }

    /// The same, last changed then.
    #[must_use]
    pub fn mtime(self, seconds: i64, nanoseconds: u32) -> Self {
        Self { mtime: Time { seconds, nanoseconds }, ..self }
    }

    /// The same with one more extended attribute.
    #[must_use]
    pub fn xattr(mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.xattrs.insert(name.as_ref().to_vec(), value.as_ref().to_vec());
        self
    }

    /// The same with these `chattr` flags.
    #[must_use]
    pub fn flags(self, flags: u32) -> Self {
        Self { flags, ..self }
    }

    /// The kind; what a hard link leads to decides for it.
    pub fn kind(&self) -> Option<Kind> {
        match self.what {
            What::File(_) => Some(Kind::File),
            What::Directory(_) => Some(Kind::Directory),
            What::Symlink(_) => Some(Kind::Symlink),
            What::Fifo => Some(Kind::Fifo),
            What::Socket => Some(Kind::Socket),
            What::CharDevice(..) => Some(Kind::CharDevice),
            What::BlockDevice(..) => Some(Kind::BlockDevice),
            What::HardLink(_) => None,
        }
    }

    /// How many objects there are, this one counted.
    pub fn count(&self) -> usize {
        self.paths().len()
    }

    /// All objects with their paths from here, by path as the link table orders them; the first path is empty.
    pub fn paths(&self) -> BTreeMap<Vec<u8>, &Tree> {
        fn collect<'a>(tree: &'a Tree, path: Vec<u8>, found: &mut BTreeMap<Vec<u8>, &'a Tree>) {
            if let What::Directory(below) = &tree.what {
                for (name, tree) in below {
                    collect(tree, join(&path, name), found);
                }
            }
            found.insert(path, tree);
        }
        let mut found = BTreeMap::new();
        collect(self, Vec::new(), &mut found);
        found
    }

    /// What stands at `path`.
    pub fn at(&self, path: &[u8]) -> Option<&Tree> {
        self.names(path).try_fold(self, |tree, name| match &tree.what {
            What::Directory(below) => below.get(name),
            _ => None,
        })
    }

    /// What stands at `path`, to be changed.
    pub fn at_mut(&mut self, path: &[u8]) -> Option<&mut Tree> {
        let names: Vec<Vec<u8>> = self.names(path).map(<[u8]>::to_vec).collect();
        names.iter().try_fold(self, |tree, name| match &mut tree.what {
            What::Directory(below) => below.get_mut(name),
            _ => None,
        })
    }

    fn names<'p>(&self, path: &'p [u8]) -> impl Iterator<Item = &'p [u8]> + use<'p> {
        path.split(|byte| *byte == b'/').filter(|name| !name.is_empty())
    }

    /// The length of a file's content, holes counted; 0 for all else.
    pub fn size(&self) -> u64 {
        match &self.what {
            What::File(runs) => runs.iter().map(Run::length).sum(),
            _ => 0,
        }
    }

    /// A file's content, holes as zeros; nothing for all else.
    pub fn content(&self) -> Vec<u8> {
        let What::File(runs) = &self.what else { return Vec::new() };
        // Slice by slice: byte by byte takes seconds where nothing is optimised.
        runs.iter().map(Run::content).collect::<Vec<_>>().concat()
    }

    /// A file's content as it stands in the payload stream: without its holes.
    pub fn payload(&self) -> Vec<u8> {
        let What::File(runs) = &self.what else { return Vec::new() };
        let data = runs.iter().filter(|run| !matches!(run, Run::Hole(_)));
        data.map(Run::content).collect::<Vec<_>>().concat()
    }

    /// A file's holes, joined where they touch.
    pub fn holes(&self) -> Vec<Hole> {
        let What::File(runs) = &self.what else { return Vec::new() };
        let mut holes: Vec<Hole> = Vec::new();
        let mut start = 0;
        for run in runs {
            let length = run.length();
            match (run, holes.last_mut()) {
                (Run::Hole(0), _) => {}
                (Run::Hole(_), Some(last)) if last.start + last.length == start => last.length += length,
                (Run::Hole(_), _) => holes.push(Hole { start, length }),
                _ => {}
            }
            start += length;
        }
        holes
    }

    /// The entry for this object under `name`; not for hard links, whose entry is that of what they lead to. A
    /// directory's digest is left open, as a scan leaves it.
    pub fn entry(&self, name: Name) -> Entry {
        let kind = self.kind().expect("a hard link's entry is that of what it leads to");
        let holds = match &self.what {
            What::File(_) => Holds::Content { size: self.size(), digest: self.digest() },
            What::Directory(_) => Holds::Entries { digest: Digest::NONE },
            What::Symlink(target) => Holds::Target(target.clone().into()),
            What::CharDevice(major, minor) | What::BlockDevice(major, minor) => {
                Holds::Device { major: *major, minor: *minor }
            }
            What::Fifo | What::Socket | What::HardLink(_) => Holds::Nothing,
        };
        let xattr =
            |(name, value): (&Vec<u8>, &Vec<u8>)| Xattr { name: (**name).into(), value: (**value).into() };
        let attributes = Attributes {
            mode: kind.mode_bits() | self.mode,
            uid: self.uid,
            gid: self.gid,
            flags: self.flags,
            project: 0,
            xattrs: self.xattrs.iter().map(xattr).collect(),
        };
        let (change, status) = (Change::default(), Status::COMPLETE);
        Entry { name, attributes, mtime: self.mtime, holds, holes: self.holes(), change, status }
    }

    /// The content's digest.
    pub fn digest(&self) -> Digest {
        let mut hasher = ContentHasher::new();
        hasher.update(&self.content());
        hasher.finish()
    }

    /// The same with the least path of each group of hard links holding the content.
    #[must_use]
    pub fn normal(&self) -> Self {
        let mut groups: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
        for (path, tree) in self.paths() {
            if let What::HardLink(target) = &tree.what {
                groups.entry(target.clone()).or_default().push(path);
            }
        }
        let mut normal = self.clone();
        for (target, mut paths) in groups {
            let least = paths.iter().min().filter(|least| **least < target).cloned();
            let Some(least) = least else { continue };
            let held = self.at(&target).expect("a hard link leads nowhere").clone();
            paths.push(target);
            for path in paths {
                let place = normal.at_mut(&path).expect("it was there");
                *place = if path == least { held.clone() } else { Tree::hard_link(&least) };
            }
        }
        normal
    }

    /// What differs between two trees, a line for each path.
    pub fn differences(&self, other: &Tree) -> Vec<String> {
        let (left, right) = (self.normal(), other.normal());
        let (left, right) = (left.paths(), right.paths());
        let mut lines = Vec::new();
        for (path, before) in &left {
            let shown = String::from_utf8_lossy(path);
            match right.get(path) {
                None => lines.push(format!("{shown}: only in the first")),
                Some(after) if before.is_like(after) => {}
                Some(after) => lines.push(format!("{shown}: {} | {}", before.line(), after.line())),
            }
        }
        let only = right.keys().filter(|path| !left.contains_key(*path));
        lines.extend(only.map(|path| format!("{}: only in the second", String::from_utf8_lossy(path))));
        lines
    }

    /// Fails when the trees differ in anything but where holes are.
    #[track_caller]
    pub fn assert_same(&self, other: &Tree) {
        let differences = self.differences(other);
        assert!(differences.is_empty(), "the trees differ:\n{}", differences.join("\n"));
    }

    /// Whether two objects are the same, what is below them and where holes are not counted.
    fn is_like(&self, other: &Tree) -> bool {
        let held = match (&self.what, &other.what) {
            (What::HardLink(target), What::HardLink(other)) => return target == other,
            (What::File(_), What::File(_)) => {
                self.size() == other.size() && self.content() == other.content()
            }
            (What::Directory(_), What::Directory(_)) => true,
            (what, other) => what == other,
        };
        let all = |tree: &Tree| (tree.mode, tree.uid, tree.gid, tree.mtime, tree.flags);
        held && all(self) == all(other) && self.xattrs == other.xattrs
    }

    fn line(&self) -> String {
        let mut line = match &self.what {
            What::File(_) => format!("file {} {}", self.size(), self.digest()),
            What::Directory(below) => format!("directory of {}", below.len()),
            What::Symlink(target) => format!("symlink {:.60?}", String::from_utf8_lossy(target)),
            What::Fifo => "fifo".to_owned(),
            What::Socket => "socket".to_owned(),
            What::CharDevice(major, minor) => format!("char-device {major}:{minor}"),
            What::BlockDevice(major, minor) => format!("block-device {major}:{minor}"),
            What::HardLink(target) => return format!("hard link {:?}", String::from_utf8_lossy(target)),
        };
        let Time { seconds, nanoseconds } = self.mtime;
        let _ = write!(line, " {:o} {}:{} {seconds}.{nanoseconds:09}", self.mode, self.uid, self.gid);
        if self.flags != 0 {
            let _ = write!(line, " flags {:#x}", self.flags);
        }
        for (name, value) in &self.xattrs {
            let _ = write!(line, " {}={}", String::from_utf8_lossy(name), Digest::of(value));
        }
        line
    }
}

impl std::fmt::Debug for Tree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (path, tree) in self.paths() {
            writeln!(f, "{:?}: {}", String::from_utf8_lossy(&path), tree.line())?;
        }
        Ok(())
    }
}

impl Run {
    /// How many bytes of the content it is.
    pub fn length(&self) -> u64 {
        match self {
            Run::Data(bytes) => bytes.len() as u64,
            Run::Made { length, .. } | Run::Hole(length) => *length,
        }
    }

    /// The bytes that it reads as.
    pub fn content(&self) -> Vec<u8> {
        match self {
            Run::Data(bytes) => bytes.clone(),
            Run::Made { seed, length } => Random::new(*seed).bytes(*length as usize),
            Run::Hole(length) => vec![0; *length as usize],
        }
    }
}

/// A path and one more name.
pub fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() }
}

/// Names that have broken programs: any bytes but `/` and NUL.
pub fn odd_names() -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = [
        &b" "[..],
        b" leading",
        b"trailing ",
        b"-rf",
        b"--",
        b"...",
        b".hidden",
        b"~",
        b"a\nb",
        b"\t",
        b"\x01\x7f\x1b[31m",
        b"\xff\xfe",
        b"caf\xe9",
        b"caf\xc3\xa9",
        b"cafe\xcc\x81",
        b"back\\slash",
        b"*?[a-z]{x,y}",
        b"$(touch x);`y`",
        b"%s%n",
        b"\"'",
        b"con",
        b"upper",
        b"UPPER",
        b"a:b",
        b"\xe2\x80\xae\xf0\x9f\x92\xbe",
    ]
    .map(<[u8]>::to_vec)
    .to_vec();
    names.push(vec![b'x'; 255]);
    names.push(vec![0xfe; 255]);
    names
}

/// How large a made-up tree becomes.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Most objects.
    pub objects: usize,
    /// Deepest nesting.
    pub depth: usize,
    /// Most bytes of data in a content that is large; few are.
    pub content: u64,
}

impl Size {
    /// Small enough for hundreds of cases.
    pub const SMALL: Size = Size { objects: 60, depth: 5, content: 3 << 20 };
}

/// Seconds of times to try: what the field gets wrong, all within what ext4 keeps.
const SECONDS: [i64; 10] = [
    -2_147_483_648,
    -86_401,
    -1,
    0,
    1,
    2_147_483_647,
    2_147_483_648,
    4_294_967_295,
    4_294_967_296,
    15_032_385_535,
];

/// `chattr` flags that do not keep a test from clearing up: synchronous, no dump, no access time.
const FLAGS: [u32; 3] = [0x8, 0x40, 0x80];

impl Tree {
    /// A tree made up of everything: all kinds, odd names, owners, times, attributes, holes, hard links. Made on
    /// disk by the administrator only.
    pub fn made_up(random: &mut Random, size: Size) -> Tree {
        let mut tree = tree! {};
        let mut directories: Vec<(Vec<u8>, usize)> = vec![(Vec::new(), 0)];
        let mut linkable: Vec<Vec<u8>> = Vec::new();
        let odd = odd_names();
        for number in 0..random.below(size.objects as u64 + 1) {
            let (parent, depth) = random.pick(&directories).clone();
            let name = match random.below(4) {
                0 => random.pick(&odd).clone(),
                1 => format!("{:x}", random.any()).into_bytes(),
                _ => format!("object{number}").into_bytes(),
            };
            let path = join(&parent, &name);
            let Some(Tree { what: What::Directory(below), .. }) = tree.at_mut(&parent) else { continue };
            // Paths stay short enough to be opened by their names.
            if below.contains_key(&name) || path.len() > 1500 {
                continue;
            }
            let mut made = made_up_object(random, size, depth, &linkable);
            match made.what {
                What::Directory(_) => directories.push((path.clone(), depth + 1)),
                What::HardLink(_) => {}
                _ => linkable.push(path.clone()),
            }
            made_up_attributes(random, &mut made);
            below.insert(name, made);
        }
        made_up_attributes(random, &mut tree);
        tree
    }
}

fn made_up_object(random: &mut Random, size: Size, depth: usize, linkable: &[Vec<u8>]) -> Tree {
    match random.below(16) {
        0..=3 if depth + 1 < size.depth => tree! {},
        4 => Tree::symlink(random.pick(&[&b"somewhere"[..], b"/", b"..", b"\xff", &[b'y'; 4000]])),
        5 => Tree::fifo(),
        6 => Tree::socket(),
        7 => Tree::char_device(random.below(4096) as u32, random.below(1 << 20) as u32),
        8 => Tree::block_device(random.below(4096) as u32, random.below(1 << 20) as u32),
        9 | 10 if !linkable.is_empty() => Tree::hard_link(random.pick(linkable)),
        _ => Tree::runs(made_up_content(random, size)),
    }
}

fn made_up_content(random: &mut Random, size: Size) -> Vec<Run> {
    const BLOCK: u64 = 64 << 10;
    match random.below(12) {
        0 => vec![],
        // The same content again, to be kept once.
        1 => vec![Run::Data(b"the same in many files".to_vec())],
        2 => vec![Run::Made { seed: random.below(4), length: 300_000 }],
        3 => {
            let zeros = random.below(size.content) + 1;
            vec![Run::Data(vec![0; zeros as usize])]
        }
        4 => vec![Run::Hole(BLOCK * (1 + random.below(300)))],
        5 => {
            let mut runs = Vec::new();
            for _ in 0..=random.below(4) {
                runs.push(Run::Hole(BLOCK * random.below(40)));
                runs.push(Run::Made { seed: random.any(), length: BLOCK * random.below(4) });
            }
            runs.push(Run::Made { seed: random.any(), length: 1 + random.below(5000) });
            runs.retain(|run| run.length() > 0);
            runs
        }
        6 => vec![Run::Made { seed: random.any(), length: random.below(size.content) + 1 }],
        _ => {
            let most = 1 << random.below(16);
            let length = 1 + random.below(most);
            vec![Run::Data(random.bytes(length as usize))]
        }
    }
}

fn made_up_attributes(random: &mut Random, tree: &mut Tree) {
    if let What::HardLink(_) = tree.what {
        return;
    }
    let is_symlink = matches!(tree.what, What::Symlink(_));
    let is_plain = matches!(tree.what, What::File(_) | What::Directory(_));
    if !is_symlink {
        tree.mode = *random.pick(&[0o644, 0o600, 0o755, 0o000, 0o4755, 0o2755, 0o1777, 0o777, 0o6711]);
    }
    if random.once_in(3) {
        (tree.uid, tree.gid) = (*random.pick(&[0, 1, 1000, 65_534, 4_000_000_000]), random.below(5) as u32);
    }
    tree.mtime.seconds = match random.below(3) {
        0 => *random.pick(&SECONDS),
        1 => random.between(1_500_000_000, 1_700_000_000),
        _ => random.between(SECONDS[0], SECONDS[9]),
    };
    tree.mtime.nanoseconds = *random.pick(&[0, 1, 999_999_999, 123_456_789]);
    // Linux cuts times off at what the file system keeps, nanoseconds included.
    if [SECONDS[0], SECONDS[9]].contains(&tree.mtime.seconds) {
        tree.mtime.nanoseconds = 0;
    }
    // Files and directories alone have attributes of users.
    let space = if is_plain { "user" } else { "trusted" };
    let may_have_xattrs = is_plain || may_set_trusted_xattrs();
    if random.once_in(4) && may_have_xattrs {
        for number in 0..=random.below(3) {
            let length = *random.pick(&[0, 1, 20, 300]);
            tree.xattrs.insert(format!("{space}.number{number}").into_bytes(), random.bytes(length));
        }
    }
    if random.once_in(16) && may_have_xattrs {
        // More than a body holds itself.
        tree.xattrs.insert(format!("{space}.large").into_bytes(), random.bytes(2100));
    }
    if random.once_in(8) && is_plain {
        tree.xattrs
            .insert(b"system.posix_acl_access".to_vec(), acl(tree.mode, 1000 + random.below(3) as u32));
    }
    if random.once_in(8) && matches!(tree.what, What::Directory(_)) {
        tree.xattrs.insert(b"system.posix_acl_default".to_vec(), acl(0o750, 7));
    }
    if random.once_in(8) && matches!(tree.what, What::File(_)) {
        // Revision 2, effective, permitted: net_bind_service.
        let capability = [&[1, 0, 0, 2, 0, 4, 0, 0][..], &[0; 12]].concat();
        tree.xattrs.insert(b"security.capability".to_vec(), capability);
    }
    if random.once_in(8) && is_plain {
        tree.flags = *random.pick(&FLAGS) | *random.pick(&FLAGS);
    }
}

/// An access control list in the kernel's representation that says what `mode` says, and names one user.
pub fn acl(mode: u32, user: u32) -> Vec<u8> {
    const NOBODY: u32 = u32::MAX;
    let (owner, group, other) = (mode >> 6 & 7, mode >> 3 & 7, mode & 7);
    // Owner, a user by name, group, mask, others; the mask is what a mode shows for the group.
    let entries =
        [(1, owner, NOBODY), (2, 5, user), (4, 4, NOBODY), (0x10, group, NOBODY), (0x20, other, NOBODY)];
    let mut acl = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        acl.extend_from_slice(&(tag as u16).to_le_bytes());
        acl.extend_from_slice(&(permissions as u16).to_le_bytes());
        acl.extend_from_slice(&u32::to_le_bytes(id));
    }
    acl
}
