//! What a restore would do, found out without doing it.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use diptych_decoder::{Descend, Row, Visitor};
use diptych_format::{Error as FormatError, Kind, Name, Result as FormatResult, Status};
use diptych_localfs::extract::{OutDirectory, Target, in_the_way};

use crate::error::{Error, Result};
use crate::extract::choice::Choice;
use crate::extract::part::Part;
use crate::extract::rules::{Fate, Rules};
use crate::extract::{Counts, Overwrite};
use crate::links::{PathKey, key_of};
use crate::progress::{Act, Losses, Progress};
use crate::select::Verdict;

/// Tells `losses` what would be done.
pub fn plan(
    part: &Part<'_>,
    rules: &Rules<'_>,
    choice: Choice<'_>,
    target: Option<&Target>,
    losses: &Losses<'_>,
    interrupt: &AtomicBool,
) -> Result<Counts> {
    let root = target.map(Target::root).transpose()?;
    let mut plan = Plan {
        part,
        rules,
        choice,
        losses,
        interrupt,
        counts: Counts::default(),
        deleted: AtomicU64::new(0),
        root,
        open: Vec::new(),
    };
    if !part.found.is_directory() {
        let there = plan.root.take();
        let act = there.is_none().then_some(Act::Create);
        plan.open.push(Open { path: Vec::new(), there, act, names: None });
    }
    match part.walk(&mut plan) {
        Err(_) if interrupt.load(Ordering::Relaxed) => Err(Error::Interrupted),
        walked => {
            walked?;
            Ok(Counts { deleted: plan.deleted.into_inner(), ..plan.counts })
        }
    }
}

/// A directory of the open path.
struct Open {
    path: Vec<u8>,
    /// What is there; nothing if it would have to be made.
    there: Option<OutDirectory>,
    /// What would be done to it, as long as it was not told: a directory on the way is made only for what is in it.
    act: Option<Act>,
    /// As in a restore: keys of the names that the archive has in it.
    names: Option<HashSet<PathKey>>,
}

struct Plan<'p> {
    part: &'p Part<'p>,
    rules: &'p Rules<'p>,
    choice: Choice<'p>,
    losses: &'p Losses<'p>,
    interrupt: &'p AtomicBool,
    counts: Counts,
    deleted: AtomicU64,
    /// The target, until the walk enters it.
    root: Option<OutDirectory>,
    open: Vec<Open>,
}

impl Plan<'_> {
    fn check(&self) -> FormatResult<()> {
        match self.interrupt.load(Ordering::Relaxed) {
            true => Err(FormatError::missing("the job was told to end")),
            false => Ok(()),
        }
    }

    /// Notes a name of the directory that the walk is in.
    fn note_name(&mut self, path: &[u8]) {
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        if let Some(names) = self.open.last_mut().and_then(|open| open.names.as_mut()) {
            names.insert(key_of(name));
        }
    }

    /// Tells of the directories that the walk is in, of those that were not told.
    fn announce(&mut self) {
        for open in &mut self.open {
            if let Some(act) = open.act.take() {
                self.losses.planned(act, &open.path, true);
            }
        }
    }

    /// What is there of a directory called `name`, and what would be done to it.
    fn directory(&mut self, name: &Name) -> FormatResult<(Option<OutDirectory>, Option<Act>)> {
        let Some(above) = self.open.last() else {
            let root = self.root.take();
            let act = root.is_none().then_some(Act::Create);
            return Ok((root, act));
        };
        let Some(above) = &above.there else { return Ok((None, Some(Act::Create))) };
        if let Some(there) = above.enter(name)? {
            return Ok((Some(there), None));
        }
        match above.standing(name)? {
            Some(standing) if self.rules.overwrite == Overwrite::Never => Err(in_the_way(standing.kind)),
            Some(_) => Ok((None, Some(Act::Replace))),
            None => Ok((None, Some(Act::Create))),
        }
    }

    /// Deletes, in words.
    fn delete(&self, out: &OutDirectory, keeps: &dyn Fn(&[u8]) -> bool) -> FormatResult<()> {
        let count = || {
            self.deleted.fetch_add(1, Ordering::Relaxed);
        };
        self.rules.delete(self.losses, &count, |deletion| out.delete_others(keeps, deletion))
    }

    fn close(&mut self, path: &[u8]) {
        self.choice.leave(path);
        if let Some(Open { there: Some(out), names: Some(names), .. }) = self.open.pop()
            && let Err(error) = self.delete(&out, &|name| names.contains(&key_of(name)))
        {
            self.losses.loss(path, error.to_string());
        }
    }
}

impl Visitor for Plan<'_> {
    fn enter(&mut self, path: &[u8], row: &Row<'_>) -> FormatResult<Descend> {
        self.check()?;
        let path = self.part.inside(path);
        if !path.is_empty() {
            self.note_name(path);
        }
        let verdict = self.choice.enter(path);
        if verdict == Verdict::Passed {
            return Ok(Descend::Skip);
        }
        let found = row.to_entry().and_then(|entry| self.directory(&entry.name));
        let (there, act) = match found {
            Ok(found) => found,
            Err(error) => {
                self.choice.leave(path);
                self.losses.loss(path, format!("would not be restored, nor anything below it: {error}"));
                return Ok(Descend::Skip);
            }
        };
        let is_listed = self.rules.deletion.is_some() && !row.status().has(Status::NOT_READ);
        self.open.push(Open { path: path.to_vec(), there, act, names: is_listed.then(HashSet::new) });
        if verdict == Verdict::Selected {
            self.announce();
            self.counts.entries += 1;
        }
        Ok(Descend::Enter)
    }

    fn entry(&mut self, whole_path: &[u8], row: &Row<'_>) -> FormatResult<()> {
        self.check()?;
        let path = self.part.inside(whole_path);
        self.note_name(path);
        if !self.choice.entry(path) {
            return Ok(());
        }
        if row.status().has(Status::NOT_READ) {
            self.counts.incomplete += 1;
            self.losses
                .incomplete(path, "would not be restored: its content was not read when it was backed up");
            return Ok(());
        }
        self.announce();
        let entry = row.to_entry()?;
        let there = self.open.last().and_then(|open| open.there.as_ref());
        let group = self.part.links.group_of(whole_path);
        let fate = there.map_or(Ok(Fate::Make(None)), |there| self.rules.judge(there, &entry, group));
        let act = match (fate, there) {
            (Ok(Fate::Make(Some(Kind::Directory))), Some(there)) if self.rules.deletion.is_some() => {
                self.delete(there, &|name| name != entry.name.as_bytes())?;
                Some(Act::Create)
            }
            (Ok(Fate::Make(None)), _) => Some(Act::Create),
            (Ok(Fate::Make(Some(_)) | Fate::Change), _) => Some(Act::Replace),
            (Ok(Fate::Keep(_) | Fate::KeepLink), _) => {
                self.counts.kept += 1;
                None
            }
            (Ok(Fate::Skip), _) => {
                self.counts.skipped += 1;
                return Ok(());
            }
            (Err(error), _) => {
                self.losses.loss(path, format!("would not be restored: {error}"));
                return Ok(());
            }
        };
        self.counts.entries += 1;
        self.counts.content_bytes = self.counts.content_bytes.saturating_add(row.size());
        if let Some(act) = act {
            self.losses.planned(act, path, false);
        }
        Ok(())
    }

    fn leave(&mut self, path: &[u8], _: &Row<'_>) -> FormatResult<()> {
        self.close(self.part.inside(path));
        Ok(())
    }

    fn damaged(&mut self, path: &[u8], error: FormatError) -> FormatResult<()> {
        let path = self.part.inside(path);
        for open in self.open.iter_mut().filter(|open| open.path == path) {
            open.names = None;
        }
        self.losses.loss(path, format!("part of what is in it could not be restored: {error}"));
        Ok(())
    }
}
