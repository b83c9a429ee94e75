//! Pieces: the entries of a directory as they are given, cut by the format's rule on the names that are kept.

use super::{
    Arc, Context, CutRule, Facts, FileType, Found, Here, Kind, Name, Names, Notes, Result, VecDeque,
};
use super::{names_error, select};

use diptych_format::limits::{NAME_LENGTH_MAX, PATH_LENGTH_MAX, PIECE_ROWS_MAX};
use rustix::io::Errno;

use crate::facts::{join, words};
use crate::handle::patiently;
use crate::names::Listed;

/// Entries of one step at most.
const BATCH: usize = 256;
/// From how many on it pays to ask in the order of inodes, in which disks keep them.
const SORT_FROM: usize = 32;

/// The entries of one piece.
pub(crate) struct Piece {
    /// Those that are not directories, in steps.
    pub files: VecDeque<Vec<Found>>,
    /// The directories.
    pub directories: Vec<Row>,
    /// How many entries it has.
    pub rows: usize,
    /// Whether a name was left out that the archive should have: the directory is not read whole.
    pub is_short: bool,
}

/// A name with what is known of it.
pub(crate) struct Row {
    pub name: Name,
    pub facts: Facts,
}

/// A directory that is being given.
pub(crate) struct Pieces {
    here: Arc<Here>,
    names: Names,
    rule: CutRule,
    /// Rows that are known and not given yet; the first one begins the next piece.
    ready: VecDeque<Row>,
    /// Whether the rule has taken the first of them already.
    has_cut: bool,
    /// Whether a name was left out since the last piece was given.
    is_short: bool,
}

impl Pieces {
    pub fn new(here: Arc<Here>, names: Names) -> Self {
        Self { here, names, rule: CutRule::new(0), ready: VecDeque::new(), has_cut: false, is_short: false }
    }

    /// The directory.
    pub fn here(&self) -> &Arc<Here> {
        &self.here
    }

    /// How many names it holds in wait.
    pub fn left(&self) -> usize {
        self.names.left() + self.ready.len()
    }

    /// The name that begins the next piece; none if all pieces have been given.
    pub fn next_name(&self) -> Option<&Name> {
        self.ready.front().map(|row| &row.name)
    }

    /// The next piece, empty only if the directory is.
    pub fn next(&mut self, context: &Context, notes: &mut Notes) -> Result<Piece> {
        let mut piece = self.gather(context, notes)?;
        piece.is_short = std::mem::take(&mut self.is_short);
        Ok(piece)
    }

    /// Takes rows up to the next cut.
    fn gather(&mut self, context: &Context, notes: &mut Notes) -> Result<Piece> {
        let mut piece = Piece { files: VecDeque::new(), directories: Vec::new(), rows: 0, is_short: false };
        while self.fill(context, notes)? {
            while let Some(row) = self.ready.pop_front() {
                if !std::mem::take(&mut self.has_cut) && self.rule.cuts_before(row.name.as_bytes()) {
                    self.ready.push_front(row);
                    self.has_cut = true;
                    return Ok(piece);
                }
                piece.push(row, &self.here, self.left());
            }
        }
        Ok(piece)
    }

    /// Makes sure that rows are ready, unless there are none.
    fn fill(&mut self, context: &Context, notes: &mut Notes) -> Result<bool> {
        while self.ready.is_empty() {
            let listed = self.select_names(context, notes)?;
            if listed.is_empty() {
                return Ok(false);
            }
            let facts = self.look_at(&listed);
            self.ready.reserve_exact(listed.len());
            for (listed, facts) in listed.into_iter().zip(facts) {
                self.keep(&listed.name, facts, context, notes);
            }
        }
        Ok(true)
    }

    /// The next names that are not left out.
    fn select_names(&mut self, context: &Context, notes: &mut Notes) -> Result<Vec<Listed>> {
        let mut listed = Vec::with_capacity(self.names.left().min(PIECE_ROWS_MAX));
        let patterns = context.patterns.as_ref();
        let scope = self.here.scope.clone();
        let has_patterns = patterns.is_some() || scope.is_some();
        while listed.len() < PIECE_ROWS_MAX
            && let Some(next) = self.names.next().map_err(names_error)?
        {
            if !self.fits(&next.name, notes) {
                continue;
            }
            if has_patterns {
                let path = join(&self.here.path, &next.name);
                if select::is_excluded(patterns, scope.as_deref(), &path, self.is_directory(&next)) {
                    continue;
                }
            }
            listed.push(next);
        }
        Ok(listed)
    }

    /// Whether the format can hold a name here.
    fn fits(&mut self, name: &[u8], notes: &mut Notes) -> bool {
        let path = self.here.path.len() + 1 + name.len();
        if name.len() > NAME_LENGTH_MAX {
            let what = format!("its name of {} bytes is above the limit of {NAME_LENGTH_MAX}", name.len());
            notes.loss(&join(&self.here.path, name), what);
        } else if path > PATH_LENGTH_MAX {
            let what = format!("its path of {path} bytes is above the limit of {PATH_LENGTH_MAX}");
            notes.loss(&join(&self.here.path, name), what);
        } else {
            return true;
        }
        self.is_short = true;
        false
    }

    fn is_directory(&self, listed: &Listed) -> bool {
        match listed.file_type {
            FileType::Directory => true,
            FileType::Unknown => self.look_at_one(listed).is_ok_and(|facts| facts.kind == Kind::Directory),
            _ => false,
        }
    }

    fn look_at_one(&self, listed: &Listed) -> Result<Facts, Errno> {
        Facts::of_name(patiently(|| self.here.handle.fd())?, &listed.name)
    }

    /// The facts of all names, in their order.
    fn look_at(&self, listed: &[Listed]) -> Vec<Result<Facts, Errno>> {
        if listed.len() < SORT_FROM {
            return listed.iter().map(|listed| self.look_at_one(listed)).collect();
        }
        let mut order: Vec<(u64, usize)> = listed.iter().map(|listed| listed.inode).zip(0..).collect();
        order.sort_unstable();
        let mut facts = vec![Err(Errno::NOENT); listed.len()];
        for (_, index) in order {
            if let (Some(slot), Some(listed)) = (facts.get_mut(index), listed.get(index)) {
                *slot = self.look_at_one(listed);
            }
        }
        facts
    }

    /// Makes a row of a name, or says why not.
    fn keep(&mut self, name: &[u8], facts: Result<Facts, Errno>, context: &Context, notes: &mut Notes) {
        let path = || join(&self.here.path, name);
        let mut lose = |what: String| {
            notes.loss(&path(), what);
            self.is_short = true;
        };
        let facts = match facts {
            Ok(facts) => facts,
            Err(Errno::NOENT) => return notes.notice(&path(), "vanished while scanning"),
            Err(Errno::NOTSUP) => return lose("of a kind that an archive cannot hold".to_owned()),
            Err(error) => return lose(format!("cannot look at it: {}", words(error))),
        };
        let most = context.selection.exclude_larger_than.unwrap_or(u64::MAX);
        if facts.kind == Kind::File && facts.size > most {
            return;
        }
        match Name::try_new(name) {
            Ok(name) => self.ready.push_back(Row { name, facts }),
            Err(error) => lose(error.to_string()),
        }
    }
}

impl Piece {
    fn push(&mut self, row: Row, here: &Here, left: usize) {
        self.rows += 1;
        if row.facts.kind == Kind::Directory {
            self.directories.push(row);
            return;
        }
        if self.files.back().is_none_or(|batch| batch.len() >= BATCH) {
            self.files.push_back(Vec::with_capacity((left + 1).min(BATCH)));
        }
        if let Some(batch) = self.files.back_mut() {
            let (parent, parent_path) = (Arc::clone(&here.handle), Arc::clone(&here.path));
            batch.push(Found { name: row.name, facts: row.facts, parent, parent_path });
        }
    }
}
