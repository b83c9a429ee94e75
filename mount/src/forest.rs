//! Many archives under directories that stand nowhere but in memory, and that change as archives come and go.
//!
//! A [`Source`] says which directories there are, and opens an archive when somebody goes into it. A path keeps its
//! inode number for as long as the mount lasts.

use std::collections::{BTreeMap, HashMap};
use std::ops::{Bound, ControlFlow};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use diptych_format::{Error, Kind, Result, Time};
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::files::{Attributes, Files, Ino, Listed, Seek, Totals};
use crate::memory::Memory;
use crate::tree::Tree;

/// Between two looks at whether anybody wants to know.
const WANTED_EVERY: Duration = Duration::from_millis(200);
/// Trees that can be told apart by their inode numbers.
const TREES_MAX: u32 = 1 << 22;
/// Trees that are kept open, by the bytes that they take, and what one takes besides what it tells.
const TREES_BYTES: u64 = 4 << 20;
const TREE_BYTES: u64 = 2048;
/// Where a list goes on behind `.` and `..`.
const BEHIND_SELF: u64 = 1;
const BEHIND_PARENT: u64 = 2;

/// What stands in a directory of a [`Forest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plant {
    /// A directory.
    Directory {
        /// What is in it.
        below: BTreeMap<Vec<u8>, Plant>,
        /// When it last changed.
        mtime: Time,
    },
    /// A symbolic link with this target.
    Link(Vec<u8>, Time),
    /// The archive of this number, which is its own for as long as the mount lasts; never 0.
    Tree(u32),
}

/// Where the archives come from.
pub trait Source: Send + Sync {
    /// The root directory as it is now; none if nothing has changed since the last time.
    fn layout(&self) -> Result<Option<Plant>>;

    /// How long to wait between two looks at what there is.
    fn look_every(&self) -> Duration;

    /// Opens an archive as a tree of this number that shares `memory`.
    fn open(&self, number: u32, memory: &Memory) -> Result<Tree>;
}

/// Archives under directories.
pub struct Forest {
    source: Box<dyn Source>,
    memory: Memory,
    owner: (u32, u32),
    state: RwLock<State>,
    /// Those that were used last. One that is not there is opened again, and is the same.
    trees: Cache<u32, Tree, Weight>,
    /// How much there is in each one that was opened.
    totals: Mutex<HashMap<u32, Totals>>,
}

#[derive(Clone)]
struct Weight;

impl Weighter<u32, Tree> for Weight {
    fn weight(&self, _: &u32, tree: &Tree) -> u64 {
        tree.weight() as u64 + TREE_BYTES
    }
}

#[derive(Default)]
struct State {
    /// The numbers of paths, those among them that are gone.
    numbers: HashMap<Vec<u8>, u64>,
    /// The names of these, in the order of their numbers.
    names: Vec<Vec<u8>>,
    /// What there is now.
    nodes: HashMap<u64, Node>,
}

struct Node {
    path: Vec<u8>,
    parent: u64,
    is: Is,
}

enum Is {
    /// Names with what they stand for, and the numbers of their paths.
    Directory {
        below: BTreeMap<Vec<u8>, (Child, u64)>,
        mtime: Time,
    },
    Link(Vec<u8>, Time),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Child {
    Node(u64),
    Tree(u32),
}

impl Forest {
    /// Of what `source` has, as belonging to user and group `owner`.
    pub fn new(source: Box<dyn Source>, memory: Memory, owner: (u32, u32)) -> Result<Self> {
        let count = usize::try_from(TREES_BYTES / TREE_BYTES).unwrap_or(usize::MAX);
        let trees = Cache::with_weighter(count, TREES_BYTES, Weight);
        let forest =
            Self { source, memory, owner, state: RwLock::default(), trees, totals: Mutex::default() };
        forest.look()?;
        Ok(forest)
    }

    /// Looks what there is now, and says which directories and links have changed.
    fn look(&self) -> Result<Vec<Ino>> {
        let Some(layout) = self.source.layout()? else { return Ok(Vec::new()) };
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::take(&mut state.nodes);
        state.plant(Vec::new(), Ino::ROOT.0, &layout);
        let is_other = |(number, node): &(&u64, &Node)| {
            before.get(number).is_some_and(|before| match (&before.is, &node.is) {
                (Is::Directory { below: before, .. }, Is::Directory { below, .. }) => before != below,
                (Is::Link(before, _), Is::Link(target, _)) => before != target,
                _ => true,
            })
        };
        Ok(state.nodes.iter().filter(is_other).map(|(number, _)| Ino(*number)).collect())
    }

    fn with_node<T>(&self, ino: Ino, take: impl FnOnce(&Node) -> Result<T>) -> Result<T> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        match state.nodes.get(&ino.0) {
            Some(node) => take(node),
            None => Err(Error::missing("the snapshot is not there any more")),
        }
    }

    fn tree(&self, number: u32) -> Result<Tree> {
        // Two that come at once open it once.
        self.trees.get_or_insert_with(&number, || {
            let tree = self.source.open(number, &self.memory)?;
            self.lock_totals().insert(number, tree.totals());
            Ok(tree)
        })
    }

    /// The tree that an inode is of; none if it is of none.
    fn tree_of(&self, ino: Ino) -> Result<Option<Tree>> {
        match ino.tree() {
            0 => Ok(None),
            number => self.tree(number).map(Some),
        }
    }

    fn lock_totals(&self) -> MutexGuard<'_, HashMap<u32, Totals>> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, ino: Ino, node: &Node) -> Attributes {
        let (kind, permissions, size, mtime) = match &node.is {
            Is::Directory { mtime, .. } => (Kind::Directory, 0o555, 0, *mtime),
            Is::Link(target, mtime) => (Kind::Symlink, 0o777, target.len() as u64, *mtime),
        };
        Attributes {
            ino,
            kind,
            permissions,
            links: 1,
            uid: self.owner.0,
            gid: self.owner.1,
            size,
            allocated: 0,
            mtime,
            ctime: mtime,
            device: (0, 0),
            is_lasting: false,
        }
    }

    fn show_child(&self, child: Child) -> Result<Attributes> {
        match child {
            Child::Node(number) => self.with_node(Ino(number), |node| Ok(self.show(Ino(number), node))),
            Child::Tree(number) => {
                let attributes = self.tree(number)?.attributes(Ino::of(number, Ino::ROOT.0))?;
                // What it is never changes; whether it stands there does.
                Ok(Attributes { is_lasting: false, ..attributes })
            }
        }
    }
}

impl State {
    /// Plants what stands at `path`; gives it, and the number of the path.
    fn plant(&mut self, path: Vec<u8>, parent: u64, plant: &Plant) -> (Child, u64) {
        let next = self.numbers.len() as u64 + Ino::ROOT.0;
        let number = *self.numbers.entry(path.clone()).or_insert(next);
        if number == next {
            let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
            self.names.push(name.to_vec());
        }
        let is = match plant {
            Plant::Tree(tree) => return (Child::Tree((*tree).min(TREES_MAX - 1)), number),
            Plant::Link(target, mtime) => Is::Link(target.clone(), *mtime),
            Plant::Directory { mtime, .. } => Is::Directory { below: BTreeMap::new(), mtime: *mtime },
        };
        self.nodes.insert(number, Node { path: path.clone(), parent, is });
        if let Plant::Directory { below, .. } = plant {
            let children = below.iter().map(|(name, plant)| {
                let path = if path.is_empty() { name.clone() } else { [&path[..], b"/", name].concat() };
                (name.clone(), self.plant(path, number, plant))
            });
            let children: BTreeMap<_, _> = children.collect();
            if let Some(Node { is: Is::Directory { below, .. }, .. }) = self.nodes.get_mut(&number) {
                *below = children;
            }
        }
        (Child::Node(number), number)
    }
}

impl Files for Forest {
    fn lookup(&self, directory: Ino, name: &[u8]) -> Result<Option<Attributes>> {
        if let Some(tree) = self.tree_of(directory)? {
            return tree.lookup(directory, name);
        }
        let child = self.with_node(directory, |node| match &node.is {
            Is::Directory { below, .. } => Ok(below.get(name).map(|(child, _)| *child)),
            Is::Link(..) => Ok(None),
        })?;
        child.map(|child| self.show_child(child)).transpose()
    }

    fn attributes(&self, ino: Ino) -> Result<Attributes> {
        match self.tree_of(ino)? {
            Some(tree) => tree.attributes(ino),
            None => self.with_node(ino, |node| Ok(self.show(ino, node))),
        }
    }

    fn list(
        &self,
        directory: Ino,
        from: u64,
        each: &mut dyn FnMut(Listed<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        if let Some(tree) = self.tree_of(directory)? {
            return tree.list(directory, from, each);
        }
        let (parent, below) = self.with_node(directory, |node| match &node.is {
            Is::Directory { below, .. } => Ok((Ino(node.parent), below.clone())),
            Is::Link(..) => Err(Error::missing("no directory")),
        })?;
        let dots = [(b".".to_vec(), directory, BEHIND_SELF), (b"..".to_vec(), parent, BEHIND_PARENT)];
        for (name, ino, next) in dots.iter().filter(|(.., next)| *next > from) {
            let attributes = self.attributes(*ino)?;
            if each(Listed { name, attributes, next: *next }).is_break() {
                return Ok(());
            }
        }
        // A place in a list is told by the name that was given last, whether it is there still or not.
        let last =
            from.checked_sub(BEHIND_PARENT + Ino::ROOT.0).and_then(|place| usize::try_from(place).ok());
        let last = last.and_then(|place| {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            state.names.get(place).cloned()
        });
        let behind = last.map_or(Bound::Unbounded, Bound::Excluded);
        for (name, (child, number)) in below.range::<Vec<u8>, _>((behind, Bound::Unbounded)) {
            let next = BEHIND_PARENT + number;
            // One that cannot be opened is there all the same, for whoever lists the others.
            let attributes = match (self.show_child(*child), child) {
                (Ok(attributes), _) => attributes,
                (Err(_), Child::Tree(number)) => {
                    Attributes { ino: Ino::of(*number, Ino::ROOT.0), ..self.attributes(directory)? }
                }
                (Err(error), Child::Node(_)) => return Err(error),
            };
            if each(Listed { name, attributes, next }).is_break() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn target(&self, ino: Ino) -> Result<Vec<u8>> {
        match self.tree_of(ino)? {
            Some(tree) => tree.target(ino),
            None => self.with_node(ino, |node| match &node.is {
                Is::Link(target, _) => Ok(target.clone()),
                Is::Directory { .. } => Err(Error::missing("a directory has no target")),
            }),
        }
    }

    fn xattr_names(&self, ino: Ino) -> Result<Vec<Vec<u8>>> {
        self.tree_of(ino)?.map_or_else(|| Ok(Vec::new()), |tree| tree.xattr_names(ino))
    }

    fn xattr(&self, ino: Ino, name: &[u8]) -> Result<Option<Vec<u8>>> {
        self.tree_of(ino)?.map_or(Ok(None), |tree| tree.xattr(ino, name))
    }

    fn flags(&self, ino: Ino) -> Result<(u32, u32)> {
        self.tree_of(ino)?.map_or(Ok((0, 0)), |tree| tree.flags(ino))
    }

    fn read(&self, ino: Ino, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let tree = self.tree_of(ino)?.ok_or_else(no_content)?;
        tree.read(ino, offset, buffer)
    }

    fn seek(&self, ino: Ino, offset: u64, what: Seek) -> Result<Option<u64>> {
        let tree = self.tree_of(ino)?.ok_or_else(no_content)?;
        tree.seek(ino, offset, what)
    }

    fn foresee(&self, give: &dyn Fn(Ino, &[u8]), is_wanted: &dyn Fn() -> bool) {
        self.memory.foresee(give, is_wanted);
    }

    fn watch(&self, changed: &dyn Fn(Ino), is_wanted: &dyn Fn() -> bool) {
        let (mut last, mut again) = (Instant::now(), Vec::new());
        while is_wanted() {
            std::thread::park_timeout(WANTED_EVERY);
            if last.elapsed() >= self.source.look_every() {
                // What cannot be listed now may be the next time; until then there is what there was.
                let others = self.look().unwrap_or_default();
                // Once more the next time: who was told something while it changed may have kept what there was before.
                again.into_iter().chain(others.iter().copied()).for_each(changed);
                again = others;
                last = Instant::now();
            }
        }
    }

    /// Of the trees that were opened.
    fn totals(&self) -> Totals {
        self.lock_totals().values().fold(Totals::default(), |sum, one| Totals {
            entries: sum.entries.saturating_add(one.entries),
            bytes: sum.bytes.saturating_add(one.bytes),
        })
    }

    fn path(&self, ino: Ino) -> Vec<u8> {
        match self.tree_of(ino) {
            Ok(Some(tree)) => tree.path(ino),
            _ => self.with_node(ino, |node| Ok(node.path.clone())).unwrap_or_default(),
        }
    }
}

fn no_content() -> Error {
    Error::missing("what is no file has no content")
}
