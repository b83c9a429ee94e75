//! Snapshots of a repository: which there are, and which one an argument means.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use diptych_decoder::Archive;
use diptych_format::Digest;
use diptych_repository::counters::Counters;
use diptych_repository::documents::{
    ArchiveRecord, Body, Snapshot, SnapshotDocument, SnapshotKind, Tombstone,
};
use diptych_repository::repository::{DamagedFile, StoredSnapshot};
use diptych_repository::stream::{CacheBudget, Caches};
use diptych_repository::{Repository, StreamReader};

use crate::error::{Error, InPlace, Result};
use crate::open::{CACHE_BYTES, OpenArchive};
use crate::progress::Progress;

/// A snapshot that can be listed.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its id.
    pub id: Digest,
    /// Whether an interrupted run left it.
    pub is_partial: bool,
    /// What the run says.
    pub snapshot: Snapshot,
    /// The tombstone that names it, with its id.
    pub forgotten: Option<(Digest, Tombstone)>,
}

impl Listed {
    /// As many digits of the id as are shown.
    pub fn short_id(&self) -> String {
        short(&self.id)
    }
}

/// As many digits of an id as are shown.
pub fn short(id: &Digest) -> String {
    id.to_string().chars().take(8).collect()
}

/// All snapshots, oldest first, forgotten ones too. What cannot be read is reported. Spec: R-9-4.
pub fn list(repository: &Repository, progress: &dyn Progress) -> Result<Vec<Listed>> {
    let report = |damaged: DamagedFile| report_damaged(progress, &damaged);
    let stored = repository.snapshots(report).in_place("")?;
    let mut tombstones = HashMap::new();
    for snapshot in &stored {
        if let Body::Tombstone(tombstone) = &snapshot.document.body {
            tombstones.insert(tombstone.snapshot, (snapshot.id, tombstone.clone()));
        }
    }
    let by_id: HashMap<&Digest, &SnapshotDocument> =
        stored.iter().map(|stored| (&stored.id, &stored.document)).collect();
    let replaced: HashSet<Digest> =
        stored.iter().filter_map(|stored| replaced_by(&stored.document, &by_id)).collect();
    let listed = |StoredSnapshot { id, document }: StoredSnapshot| {
        let is_partial = match document.kind {
            _ if replaced.contains(&id) => return None,
            SnapshotKind::Snapshot => false,
            SnapshotKind::Partial => true,
            SnapshotKind::Pending | SnapshotKind::Tombstone => return None,
        };
        let Body::Snapshot(snapshot) = document.body else { return None };
        Some(Listed { id, is_partial, snapshot, forgotten: tombstones.get(&id).cloned() })
    };
    let listed: Vec<Listed> = stored.into_iter().filter_map(listed).collect();
    let complete = listed.iter().filter(|listed| !listed.is_partial);
    let complete: Vec<_> = complete.map(|listed| (listed.id, listed.snapshot.time)).collect();
    if let Some(what) = crate::seen::compare(repository, &complete) {
        let path = repository.backend().location().into_bytes();
        progress.problem(diptych_format::Problem { path, what, is_loss: true });
    }
    Ok(listed)
}

/// The snapshot that another one replaces: one of its own kind that says the same but for the tags. Whoever may send
/// snapshots is not to make others' disappear. Spec: R-9-5.
fn replaced_by(new: &SnapshotDocument, by_id: &HashMap<&Digest, &SnapshotDocument>) -> Option<Digest> {
    let Body::Snapshot(snapshot) = &new.body else { return None };
    let id = snapshot.replaces?;
    let old = by_id.get(&id)?;
    let Body::Snapshot(replaced) = &old.body else { return None };
    let says_the_same = *snapshot
        == Snapshot { tags: snapshot.tags.clone(), replaces: snapshot.replaces, ..replaced.clone() };
    (old.kind == new.kind && says_the_same).then_some(id)
}

/// Tells of a file of the repository that is treated as not there.
pub fn report_damaged(progress: &dyn Progress, damaged: &DamagedFile) {
    progress.problem(diptych_format::Problem {
        path: damaged.path.clone().into_bytes(),
        what: format!("passed over: {}", without_path(&damaged.error.to_string(), &damaged.path)),
        // Of a key file only a way in is lost.
        is_loss: !damaged.path.starts_with("keys/"),
    });
}

/// A message that begins with the path which is told before it.
fn without_path<'m>(message: &'m str, path: &str) -> &'m str {
    message.strip_prefix(path).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(message)
}

/// What of the snapshots an argument may mean.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of this host alone.
    pub host: Option<String>,
    /// With all of these tags.
    pub tags: Vec<String>,
    /// With all of these paths.
    pub paths: Vec<Vec<u8>>,
}

impl Filter {
    /// Whether all snapshots pass.
    pub fn is_everything(&self) -> bool {
        self.host.is_none() && self.tags.is_empty() && self.paths.is_empty()
    }

    /// Whether a snapshot passes.
    pub fn takes(&self, snapshot: &Snapshot) -> bool {
        let paths: HashSet<&[u8]> = snapshot
            .archives
            .iter()
            .map(|archive| archive.path.as_deref().unwrap_or(&archive.name))
            .collect();
        self.host.as_ref().is_none_or(|host| *host == snapshot.host)
            && self.tags.iter().all(|tag| snapshot.tags.contains(tag))
            && self.paths.iter().all(|path| paths.contains(&path[..]))
    }
}

/// The snapshot that `text` means: `latest`, or the first digits of an id. `latest` is a complete one.
pub fn find(listed: &[Listed], text: &str, filter: &Filter) -> Result<Listed> {
    let living = || listed.iter().filter(|listed| listed.forgotten.is_none());
    if text == "latest" {
        let newest = living().rfind(|listed| !listed.is_partial && filter.takes(&listed.snapshot));
        let none = || {
            Error::missing(
                "latest",
                "there is no complete snapshot that fits",
                "`diptych snapshots` lists all.",
            )
        };
        return newest.cloned().ok_or_else(none);
    }
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let what = format!("{text:?} is no snapshot: write the first digits of its id, or latest");
        return Err(Error::Usage(what));
    }
    let text = text.to_ascii_lowercase();
    let mut fitting = listed.iter().filter(|listed| listed.id.to_string().starts_with(&text));
    match (fitting.next(), fitting.next()) {
        (Some(one), None) => Ok(one.clone()),
        (None, _) => Err(Error::missing(text, "there is no such snapshot", "`diptych snapshots` lists all.")),
        (Some(a), Some(b)) => {
            let what = format!("{text} may be {} or {}: write more digits", a.short_id(), b.short_id());
            Err(Error::Usage(what))
        }
    }
}

/// The snapshots that arguments mean, each once and in their order.
pub fn named(listed: &[Listed], texts: &[String], filter: &Filter) -> Result<Vec<Listed>> {
    let mut known = HashSet::new();
    let found = texts.iter().map(|text| find(listed, text, filter)).collect::<Result<Vec<_>>>()?;
    Ok(found.into_iter().filter(|found| known.insert(found.id)).collect())
}

/// The same; without any argument, all that are not forgotten and pass.
pub fn named_or_filtered(listed: &[Listed], texts: &[String], filter: &Filter) -> Result<Vec<Listed>> {
    if !texts.is_empty() {
        return named(listed, texts, filter);
    }
    let passes = |listed: &&Listed| listed.forgotten.is_none() && filter.takes(&listed.snapshot);
    Ok(listed.iter().filter(passes).cloned().collect())
}

/// Caches for the streams of snapshots.
pub fn caches(repository: &Repository) -> Caches {
    caches_of(repository, CacheBudget::of(CACHE_BYTES))
}

/// The same within `budget`.
pub fn caches_of(repository: &Repository, budget: CacheBudget) -> Caches {
    Caches::new(budget, Arc::new(Counters::default()), repository.chunk_keys().clone())
}

/// The streams of an archive in a snapshot.
pub fn open_streams(
    repository: &Repository,
    record: &ArchiveRecord,
    caches: &Caches,
) -> Result<(Archive, Arc<StreamReader>)> {
    let [metadata, payload] = repository.streams(record, caches);
    let place = String::from_utf8_lossy(&record.name).into_owned();
    let archive = Archive::open(metadata).in_place(&place)?;
    if archive.trailer().tree_id != record.tree_id {
        let what = "the archive's tree id is not the one that the snapshot says";
        return Err(diptych_format::Error::corrupt(what)).in_place(&place);
    }
    Ok((archive, payload))
}

/// An archive of a snapshot, open, and a path in it.
pub struct Located {
    /// The archive.
    pub open: OpenArchive,
    /// What the snapshot says of it.
    pub record: ArchiveRecord,
    /// Path below its root.
    pub path: Vec<u8>,
}

/// Whether `SNAPSHOT[:PATH]` can have been meant, where something else can be as well.
pub fn may_be_snapshot(argument: &str) -> bool {
    let (text, _) = split(argument);
    text == "latest" || !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What an archive of a snapshot was on the source: its root's path, or what it is called.
pub fn source_of(record: &ArchiveRecord) -> &[u8] {
    record.path.as_deref().unwrap_or(&record.name)
}

/// What stands before the paths of an archive, so that they are told as they were on the source.
pub fn prefix_of(record: &ArchiveRecord) -> Vec<u8> {
    let source = source_of(record);
    if source.ends_with(b"/") { source.to_vec() } else { [source, b"/"].concat() }
}

/// Tells of a path that an archive does not have as it was given, and where to look.
pub fn not_there(error: Error, path: &str, listed: &Listed) -> Error {
    let Error::Failed { place, cause, advice: told } = error else { return error };
    let id = listed.short_id();
    let advice = format!("`diptych ls {id}` shows what is there.");
    let shown = crate::names::show(path.as_bytes());
    match &cause.what[..] {
        "is not in the archive" | "nothing in the archive matches" => {
            Error::missing(shown, &format!("is not in snapshot {id}"), &advice)
        }
        what if what.starts_with("is no file") => Error::Failed { place: shown, cause, advice },
        _ => Error::Failed { place, cause, advice: told },
    }
}

/// SNAPSHOT and PATH of `SNAPSHOT[:PATH]`.
pub fn split(argument: &str) -> (&str, Option<&str>) {
    match argument.split_once(':') {
        Some((snapshot, path)) => (snapshot, Some(path)),
        None => (argument, None),
    }
}

/// The path that an argument means in a snapshot: `/` is all that is in it, unless there is an archive of `/` itself.
pub fn meant<'p>(listed: &Listed, path: Option<&'p str>) -> Option<&'p str> {
    let is_root = |path: &[u8]| crate::select::clean_path(path).is_empty();
    let has_root = listed.snapshot.archives.iter().any(|archive| is_root(source_of(archive)));
    path.filter(|path| has_root || !path.starts_with('/') || !is_root(path.as_bytes()))
}

/// The archive of a snapshot that holds `path`, or all of them without a path.
pub fn locate_all(repository: &Repository, listed: &Listed, path: Option<&Path>) -> Result<Vec<Located>> {
    if path.is_some() || listed.snapshot.archives.len() == 1 {
        return Ok(vec![locate(repository, listed, path)?]);
    }
    let caches = caches(repository);
    let open = |record: &ArchiveRecord| {
        let (archive, payload) = open_streams(repository, record, &caches)?;
        let open = OpenArchive::of_streams(archive, payload);
        Ok(Located { open, record: record.clone(), path: Vec::new() })
    };
    listed.snapshot.archives.iter().map(open).collect()
}

/// Opens the archive of a snapshot that holds `path`, which is told as it was on the source; without a path its only
/// archive.
pub fn locate(repository: &Repository, listed: &Listed, path: Option<&Path>) -> Result<Located> {
    locate_with(repository, listed, path, &caches(repository))
}

/// The same, with chunks kept in `caches`.
pub fn locate_with(
    repository: &Repository,
    listed: &Listed,
    path: Option<&Path>,
    caches: &Caches,
) -> Result<Located> {
    use std::os::unix::ffi::OsStrExt;
    let archives = &listed.snapshot.archives;
    let named = |archive: &ArchiveRecord| archive.path.clone().unwrap_or_else(|| archive.name.clone());
    let (record, below) = match path {
        None => match &archives[..] {
            [only] => (only, Vec::new()),
            _ => {
                let names: Vec<String> =
                    archives.iter().map(|archive| crate::names::show(&named(archive))).collect();
                let what = format!(
                    "snapshot {} has {} archives: write which, as in {}:{} (there are {})",
                    listed.short_id(),
                    archives.len(),
                    listed.short_id(),
                    names.first().map_or("", String::as_str),
                    names.join(", ")
                );
                return Err(Error::Usage(what));
            }
        },
        Some(path) => {
            let wanted = crate::select::clean_path(path.as_os_str().as_bytes());
            let below = |archive: &ArchiveRecord| {
                let root = crate::select::clean_path(&named(archive));
                if root.is_empty() || wanted == root {
                    return Some(if root.is_empty() { wanted.clone() } else { Vec::new() });
                }
                wanted.strip_prefix(&root[..])?.strip_prefix(b"/").map(<[u8]>::to_vec)
            };
            // Of archives inside each other the innermost.
            let fitting = archives.iter().filter_map(|archive| below(archive).map(|below| (archive, below)));
            let found = fitting.min_by_key(|(_, below)| below.len());
            // A path that is told from the archive's root is meant if there is no other choice.
            let found = found.or_else(|| match (&archives[..], path.is_absolute()) {
                ([only], false) => Some((only, wanted.clone())),
                _ => None,
            });
            found.ok_or_else(|| {
                let what = format!("snapshot {} has no archive with it", listed.short_id());
                let advice = "Paths are told as they were on the source; `diptych snapshots` shows them.";
                Error::missing(path.display().to_string(), &what, advice)
            })?
        }
    };
    // A stream has its name for a path, and is a file of that name.
    let is_stream_itself = record.path.is_none() && path.is_some() && below.is_empty();
    let below = if is_stream_itself { record.name.clone() } else { below };
    let (archive, payload) = open_streams(repository, record, caches)?;
    Ok(Located { open: OpenArchive::of_streams(archive, payload), record: record.clone(), path: below })
}
