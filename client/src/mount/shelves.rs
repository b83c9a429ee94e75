//! The snapshots of a repository as directories: by id, by time, by host, by tag.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use diptych_backend::{FileKind, FileName};
use diptych_format::{Digest, Error as FormatError, Result as FormatResult, Time};
use diptych_mount::{Memory, Plant, Source, Tree};
use diptych_repository::Repository;
use diptych_repository::documents::ArchiveRecord;
use diptych_repository::stream::Caches;

use super::ahead::Decoders;
use crate::progress::Progress;
use crate::remote::address::Address;
use crate::snapshots::{self, Filter, Listed, source_of};

/// What `latest` leads to is the newest one, in the root and in each directory of a host or a tag.
const LATEST: &[u8] = b"latest";

/// Longest name, longest path of a source that becomes directories, and how many of them at most.
const NAME_LENGTH_MAX: usize = 255;
const SOURCE_LENGTH_MAX: usize = 4096;
const SOURCE_DEPTH_MAX: usize = 256;

/// Between two looks for new snapshots: in a directory, and where each look is a request.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LOOK_EVERY_FAR: Duration = Duration::from_secs(15);

/// The snapshots of a repository that pass a filter.
pub(super) struct Shelves {
    pub(super) repository: Repository,
    pub(super) filter: Filter,
    pub(super) caches: Caches,
    pub(super) decoders: Decoders,
    pub(super) progress: Arc<dyn Progress>,
    pub(super) state: Mutex<State>,
}

#[derive(Default)]
pub(super) struct State {
    /// The files that were there the last time.
    seen: Option<BTreeSet<FileName>>,
    /// The numbers of archives, by their snapshot and their place in it.
    numbers: HashMap<(Digest, usize), u32>,
    archives: HashMap<u32, ArchiveRecord>,
}

impl Source for Shelves {
    fn layout(&self) -> FormatResult<Option<Plant>> {
        let files = self.repository.backend().list(FileKind::Snapshot).map_err(diptych_repository::told)?;
        let files: BTreeSet<FileName> = files.into_iter().map(|listed| listed.name).collect();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.seen.as_ref() == Some(&files) {
            return Ok(None);
        }
        let listed = snapshots::list(&self.repository, &*self.progress)
            .map_err(|error| FormatError::missing(format!("the snapshots cannot be listed: {error}")))?;
        state.seen = Some(files);
        let is_shown = |listed: &&Listed| {
            listed.forgotten.is_none() && !listed.is_partial && self.filter.takes(&listed.snapshot)
        };
        let shown: Vec<&Listed> = listed.iter().filter(is_shown).collect();
        Ok(Some(state.lay_out(&shown)))
    }

    fn look_every(&self) -> Duration {
        match Address::parse(&self.repository.backend().location()) {
            None => LOOK_EVERY,
            Some(_) => LOOK_EVERY_FAR,
        }
    }

    fn open(&self, number: u32, memory: &Memory) -> FormatResult<Tree> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let record = state.archives.get(&number).cloned();
        drop(state);
        let record = record.ok_or_else(|| FormatError::missing("the snapshot was never there"))?;
        let (archive, payload) = snapshots::open_streams(&self.repository, &record, &self.caches)
            .map_err(|error| FormatError::missing(error.to_string()))?;
        Tree::new(archive, self.decoders.serve(payload), memory, number)
    }
}

impl State {
    fn lay_out(&mut self, shown: &[&Listed]) -> Plant {
        let newest = shown.iter().map(|listed| time_of(listed)).max().unwrap_or_default();
        let mut ids = BTreeMap::new();
        let mut root = BTreeMap::new();
        let mut groups: BTreeMap<Vec<Vec<u8>>, BTreeMap<Vec<u8>, Plant>> = BTreeMap::new();
        let mut short = HashMap::<String, usize>::new();
        shown.iter().for_each(|listed| *short.entry(listed.short_id()).or_default() += 1);
        let id_of = |listed: &Listed| match short.get(&listed.short_id()) {
            Some(1) => listed.short_id(),
            _ => listed.id.to_string(),
        };
        for listed in shown {
            let id = id_of(listed).into_bytes();
            self.plant_snapshot(listed, &id, &mut ids);
            let of_host = vec![b"hosts".to_vec(), name_of(listed.snapshot.host.as_bytes())];
            let of_tags =
                listed.snapshot.tags.iter().map(|tag| vec![b"tags".to_vec(), name_of(tag.as_bytes())]);
            for path in of_tags.chain([of_host, vec![b"times".to_vec()]]) {
                let up = b"../".repeat(path.len());
                let link = Plant::Link([&up[..], b"ids/", &id].concat(), time_of(listed));
                let group = groups.entry(path).or_default();
                let time = listed.snapshot.time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into_bytes();
                let name = match group.contains_key(&time) {
                    true => [&time[..], b"-", &id].concat(),
                    false => time,
                };
                group.insert(name, link.clone());
                // They come by time.
                group.insert(LATEST.to_vec(), link);
            }
        }
        let directory = |below| Plant::Directory { below, mtime: newest };
        for (path, group) in groups {
            plant_at(&mut root, &path, directory(group), newest);
        }
        if let Some(newest) = shown.last() {
            let target = [b"ids/", id_of(newest).as_bytes()].concat();
            root.insert(LATEST.to_vec(), Plant::Link(target, time_of(newest)));
        }
        root.insert(b"ids".to_vec(), directory(ids));
        for group in ["hosts", "tags", "times"] {
            root.entry(group.as_bytes().to_vec()).or_insert_with(|| directory(BTreeMap::new()));
        }
        directory(root)
    }

    /// Each archive stands where it was on the source, below the snapshot's own directory.
    fn plant_snapshot(&mut self, listed: &Listed, id: &[u8], ids: &mut BTreeMap<Vec<u8>, Plant>) {
        let mut archives: Vec<(usize, &ArchiveRecord)> =
            listed.snapshot.archives.iter().enumerate().collect();
        // What lies in another one comes behind it.
        archives.sort_by_key(|(_, record)| source_of(record).len());
        let empty = Plant::Directory { below: BTreeMap::new(), mtime: time_of(listed) };
        if archives.is_empty() {
            ids.insert(id.to_vec(), empty);
        }
        for (place, record) in archives {
            let next = u32::try_from(self.numbers.len() + 1).unwrap_or(u32::MAX);
            let number = *self.numbers.entry((listed.id, place)).or_insert(next);
            self.archives.entry(number).or_insert_with(|| record.clone());
            let source = source_of(record);
            let parts = source.split(|byte| *byte == b'/').filter(|part| !part.is_empty());
            let mut path: Vec<Vec<u8>> = std::iter::once(id.to_vec()).chain(parts.map(name_of)).collect();
            // No real path is so long; one that is does not become as many directories.
            if source.len() > SOURCE_LENGTH_MAX || path.len() > SOURCE_DEPTH_MAX {
                path = vec![id.to_vec(), name_of(source)];
            }
            plant_at(ids, &path, Plant::Tree(number), time_of(listed));
        }
    }
}

/// Plants something at a path, making the directories on the way. Where another archive is in the way, it comes to stand
/// beside that, called by the rest of its path.
fn plant_at(below: &mut BTreeMap<Vec<u8>, Plant>, path: &[Vec<u8>], plant: Plant, mtime: Time) {
    let Some((name, rest)) = path.split_first() else { return };
    if rest.is_empty() {
        below.insert(name.clone(), plant);
        return;
    }
    let directory = || Plant::Directory { below: BTreeMap::new(), mtime };
    match below.entry(name.clone()).or_insert_with(directory) {
        Plant::Directory { below, .. } => plant_at(below, rest, plant, mtime),
        Plant::Tree(_) | Plant::Link(..) => {
            below.insert([&name[..], b":", &rest.join(&b'_')].concat(), plant);
        }
    }
}

fn time_of(listed: &Listed) -> Time {
    let time = listed.snapshot.time;
    let nanoseconds = time.as_nanosecond().rem_euclid(1_000_000_000);
    Time {
        seconds: i64::try_from(time.as_nanosecond().div_euclid(1_000_000_000)).unwrap_or(0),
        nanoseconds: u32::try_from(nanoseconds).unwrap_or(0),
    }
}

/// A name that a directory can have.
fn name_of(text: &[u8]) -> Vec<u8> {
    let text = text.get(..NAME_LENGTH_MAX).unwrap_or(text);
    let name: Vec<u8> = text.iter().map(|byte| if matches!(byte, b'/' | 0) { b'_' } else { *byte }).collect();
    if matches!(&name[..], b"" | b"." | b"..") { b"_".to_vec() } else { name }
}
