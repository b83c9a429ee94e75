//! `check`: proves a repository whole, and says of what is damaged which snapshots and paths it costs.
//!
//! Files first, then packs (what they say of themselves, and as much of their bytes as is asked for), then the maps of all
//! snapshots, then what all that comes to. A chunk is lost when no pack has it whole; what is damaged and lost to nobody is
//! told and costs nothing. Of each chunk two bits are kept: whether a snapshot names it, and whether it can be read.
//!
//! Spec: repository.md.

mod bits;
mod costs;
mod maps;
mod marks;
mod packs;
mod portion;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use diptych_backend::{FileKind, FileName};
use diptych_decoder::Archive;
use diptych_format::pack::ChunkKind;
use diptych_format::{Class, Digest, Error as FormatError};
use diptych_repository::Repository;
use diptych_repository::documents::{ArchiveRecord, Body, Lock, Snapshot, SnapshotKind};
use diptych_repository::index::{IndexView, PlacedChunk};
use diptych_repository::repository::DamagedFile;
use diptych_repository::store::{RebuiltIndex, rebuild_index};
use diptych_repository::told;
use jiff::Timestamp;

use crate::commit::Lease;
use crate::error::{Error, InPlace, Result};
use crate::progress::Progress;
use crate::snapshots::caches;
use bits::Bits;
use costs::Costs;
use maps::Maps;
use packs::{Fault, Packs, check_packs};
use portion::Cursor;
pub use portion::{ReadData, cache_directory};

/// How often the lease is renewed.
const RENEW_EVERY: Duration = Duration::from_secs(300);

/// What to check, and how.
#[derive(Clone, Debug)]
pub struct CheckOptions {
    /// What of the payload packs is read to their ends.
    pub read_data: ReadData,
    /// Whether the index is made anew from the packs first.
    pub repairs_index: bool,
    /// Where it is kept which packs were read.
    pub cache: Option<PathBuf>,
    /// The machine.
    pub host: String,
    /// The user.
    pub user: String,
    /// Threads that read packs.
    pub threads: usize,
    /// Set from outside to end the job.
    pub interrupt: Arc<AtomicBool>,
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Something is damaged or missing.
    Damaged,
    /// Something could not be read, and may be whole.
    Unreadable,
    /// Nothing is lost by it.
    Harmless,
}

impl Severity {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Severity::Damaged => "damaged",
            Severity::Unreadable => "unreadable",
            Severity::Harmless => "harmless",
        }
    }
}

/// Something that is not as it should be.
#[derive(Clone, Debug)]
pub enum Finding {
    /// A file of the repository.
    File {
        /// Its path in the repository; empty for what is the whole repository's.
        path: String,
        /// What is wrong with it.
        what: String,
        /// How much that matters.
        severity: Severity,
    },
    /// A snapshot lacks chunks.
    Snapshot {
        /// The snapshot.
        id: Digest,
        /// When its run began.
        time: Timestamp,
        /// How many chunks and segments.
        chunks: u64,
    },
    /// A path loses something.
    Lost {
        /// The path, as it was on the source.
        path: Vec<u8>,
        /// What it loses.
        what: String,
        /// The newest snapshot in which it does.
        snapshot: Digest,
        /// How many others lack the same.
        others: u64,
    },
}

/// What was checked, and what was found.
#[derive(Debug, Default)]
pub struct CheckReport {
    /// Snapshots, those that are forgotten or not complete counted.
    pub snapshots: u64,
    /// Chunks that they name, each once.
    pub chunks: u64,
    /// Packs that the index names.
    pub packs: u64,
    /// Of these, packs of payload, and their bytes.
    pub payload_packs: u64,
    /// Their bytes.
    pub payload_bytes: u64,
    /// Packs of payload that were read to their ends.
    pub packs_read: u64,
    /// Their bytes.
    pub bytes_read: u64,
    /// Packs that no index file names.
    pub leftover_packs: u64,
    /// Their bytes.
    pub leftover_bytes: u64,
    /// Findings that are damage.
    pub damaged: u64,
    /// Findings of what could not be read.
    pub unreadable: u64,
    /// Findings by which nothing is lost.
    pub harmless: u64,
    /// Chunks that snapshots name and nobody has whole.
    pub lost_chunks: u64,
    /// Snapshots that lack some of them.
    pub snapshots_damaged: u64,
    /// Paths that lose something.
    pub paths_lost: u64,
    /// The index that was made anew.
    pub rebuilt: Option<RebuiltIndex>,
    /// Whether it was ended before it was done.
    pub is_interrupted: bool,
}

/// A check under way.
struct Check<'c> {
    repository: &'c Repository,
    options: &'c CheckOptions,
    progress: &'c dyn Progress,
    found: &'c (dyn Fn(&Finding) + Sync),
    view: IndexView,
    report: Mutex<CheckReport>,
    /// Says to others, now and then, that this is still at work.
    stay: &'c (dyn Fn() + Sync),
}

/// Which places of chunks are whole, as far as is known.
struct Health<'h> {
    view: &'h IndexView,
    /// Rows of chunks that cannot be read.
    bad: &'h Bits,
    /// Packs that are not there.
    gone: HashSet<Digest>,
}

/// A snapshot that is checked.
struct Checked {
    id: Digest,
    /// The path of its file.
    file: String,
    snapshot: Snapshot,
}

/// Checks a repository. What is wrong is told to `found`.
pub fn check(
    repository: &Repository,
    options: &CheckOptions,
    progress: &dyn Progress,
    found: &(dyn Fn(&Finding) + Sync),
) -> Result<CheckReport> {
    let mut report = CheckReport::default();
    let lease = Lease::hold(repository, &options.host, &options.user);
    let mut without = None;
    let lease = match lease {
        Ok(lease) => Some(lease),
        Err(error) if options.repairs_index => return Err(error),
        // What can be read can be checked.
        Err(error) => {
            without = Some(error);
            repository.index().refresh()?;
            None
        }
    };
    if options.repairs_index {
        let mac = repository.document_keys().index_hasher();
        report.rebuilt = Some(rebuild_index(repository.backend(), &mac).in_place("")?);
        repository.index().refresh()?;
    }
    let view = repository.index().view();
    let held = Mutex::new((lease, Instant::now()));
    let stay = || {
        if let Ok(mut held) = held.try_lock()
            && held.1.elapsed() > RENEW_EVERY
        {
            // Without it `prune` may remove what nobody needs, which is told and costs nothing.
            let _ = held.0.as_mut().map(Lease::renew);
            held.1 = Instant::now();
        }
    };
    let check = Check { repository, options, progress, found, view, report: Mutex::new(report), stay: &stay };
    if let Some(error) = without {
        let what = format!("no lease can be written, and `prune` may remove what is checked: {error}");
        check.harmless("locks", &what);
    }
    match check.run() {
        Err(Error::Interrupted) => check.count(|report| report.is_interrupted = true),
        done => done?,
    }
    Ok(check.report.into_inner().unwrap_or_else(PoisonError::into_inner))
}

impl Check<'_> {
    fn run(&self) -> Result<()> {
        let (snapshots, locks) = self.files()?;
        self.go_on()?;
        let bad = Bits::new(self.view.rows());
        let packs = check_packs(self, &marks::marked_packs(&locks), &bad)?;
        let gone = packs.faults.iter().filter(|(_, fault)| fault.is_gone).map(|(name, _)| *name);
        let health = Health { view: &self.view, bad: &bad, gone: gone.collect() };
        let told = match packs.is_interrupted {
            true => Err(Error::Interrupted),
            false => self.snapshots(&snapshots, &packs, &health),
        };
        if matches!(told, Err(Error::Interrupted)) {
            // What it costs is not known yet.
            packs.faults.iter().for_each(|(name, fault)| self.pack(name, fault, Severity::Damaged));
        }
        let marked = marks::leave_marks(self, &locks, &packs, &health, told.is_ok());
        if let Err(error) = marked {
            self.harmless("locks", &format!("what is damaged cannot be kept for the next backup: {error}"));
        }
        told
    }

    /// Small files, and what is no file of a repository.
    fn files(&self) -> Result<(Vec<Checked>, Vec<(Digest, Lock)>)> {
        let repository = self.repository;
        let with = |advice: &'static str| move |file: DamagedFile| self.file(&file, advice);
        repository.keys(with("another key opens the repository: remove the file"))?;
        let locks = repository.locks(with("remove the file if no other program works on the repository"))?;
        let stored =
            repository.snapshots(with("what the snapshot had cannot be told any more: remove the file"))?;
        let advice = "`diptych check --repair-index` makes the index anew";
        let mut damaged = HashSet::new();
        for file in repository.index().take_damaged() {
            damaged.insert(*file.name.digest());
            self.file(&DamagedFile { path: file.name.path(), error: file.error }, advice);
        }
        for (name, _) in self.list(FileKind::Index)? {
            self.go_on()?;
            let file = FileName::new(FileKind::Index, name.0);
            match repository.verify_name(&file) {
                Err(error) if error.class != Class::Missing && !damaged.contains(&name.0) => {
                    self.file(&DamagedFile { path: file.path(), error }, advice);
                }
                _ => {}
            }
        }
        for kind in FileKind::ALL {
            for stranger in repository.backend().strangers(kind).map_err(told)? {
                self.harmless(&stranger, "this is no file of a repository, and is left alone");
            }
        }
        let complete = stored.iter().filter(|stored| stored.document.kind == SnapshotKind::Snapshot);
        let complete: Vec<_> = complete
            .filter_map(|stored| match &stored.document.body {
                Body::Snapshot(snapshot) => Some((stored.id, snapshot.time)),
                Body::Tombstone(_) => None,
            })
            .collect();
        if let Some(what) = crate::seen::compare(repository, &complete) {
            self.damaged("snapshots", &what);
        }
        let checked = stored.into_iter().filter_map(|stored| {
            let file = FileName::new(FileKind::Snapshot, stored.id.0).path();
            let Body::Snapshot(snapshot) = stored.document.body else { return None };
            Some(Checked { id: stored.id, file, snapshot })
        });
        Ok((checked.collect(), locks))
    }

    /// Maps, what damage there is in packs, and what it costs.
    fn snapshots(&self, snapshots: &[Checked], packs: &Packs, health: &Health<'_>) -> Result<()> {
        let named = Bits::new(self.view.rows());
        let mut maps = Maps::new(self, health, &named);
        for Checked { file, snapshot, .. } in snapshots {
            for archive in &snapshot.archives {
                maps.stream(file, ChunkKind::Metadata, &archive.metadata)?;
                maps.stream(file, ChunkKind::Payload, &archive.payload)?;
            }
            if let Some(report) = &snapshot.report {
                maps.name(ChunkKind::Report, &report.id)?;
            }
        }
        let (chunks, unindexed) = (maps.chunks, maps.unindexed.len() as u64);
        let lost = self.settle(packs, health, &named)?;
        self.count(|report| {
            (report.snapshots, report.chunks) = (snapshots.len() as u64, chunks);
            report.lost_chunks = lost + unindexed;
        });
        if unindexed > 0 {
            let what = format!(
                "{unindexed} chunks that snapshots name are in no pack that the index names; \
                `diptych check --repair-index` finds those that are in packs"
            );
            self.damaged("index", &what);
        }
        self.trailers(snapshots, lost + unindexed > 0)?;
        if lost + unindexed > 0 {
            Costs::new(self, health).tell(snapshots)?;
        }
        Ok(())
    }

    /// Tells of each pack that is not as it should be; gives the number of chunks that nobody has whole.
    fn settle(&self, packs: &Packs, health: &Health<'_>, named: &Bits) -> Result<u64> {
        let mut needed: HashMap<Digest, u64> = HashMap::new();
        let mut lost = 0;
        if !packs.faults.is_empty() {
            let is_frail = |pack: &Digest| {
                packs.faults.get(pack).is_some_and(|fault| fault.is_frail || fault.is_refused)
            };
            self.view.for_each(|placed| {
                let pack = placed.location.pack;
                if !packs.faults.contains_key(&pack) || !named.has(placed.row) {
                    return Ok(());
                }
                let header = placed.location.chunk.header;
                let mut places = self.view.find(&header.id)?;
                places.retain(|place| place.location.chunk.header.kind == header.kind);
                let is_first = places.iter().all(|place| place.row >= placed.row);
                places.retain(|place| health.is_whole(place));
                lost += u64::from(places.is_empty() && is_first);
                // Chunks that can be read, but only in a pack that does not say itself what it holds, are at risk.
                if places.iter().all(|place| is_frail(&place.location.pack)) {
                    *needed.entry(pack).or_default() += 1;
                }
                Ok(())
            })?;
        }
        for (name, fault) in &packs.faults {
            let is_needed = needed.contains_key(name);
            self.pack(name, fault, if is_needed { Severity::Damaged } else { Severity::Harmless });
        }
        Ok(lost)
    }

    fn pack(&self, name: &Digest, fault: &Fault, severity: Severity) {
        let severity = if fault.is_refused { Severity::Unreadable } else { severity };
        let path = FileName::new(FileKind::Data, name.0).path();
        self.tell(&Finding::File { what: without_path(&fault.what, &path), path, severity });
    }

    /// What snapshots say of archives must agree with their trailers. Spec: R-9-2.
    fn trailers(&self, snapshots: &[Checked], has_lost: bool) -> Result<()> {
        let caches = caches(self.repository);
        let mut known: HashSet<(Digest, Digest)> = HashSet::new();
        for Checked { file, snapshot, .. } in snapshots {
            for record in &snapshot.archives {
                self.go_on()?;
                if !known.insert((record.metadata.root, record.tree_id)) {
                    continue;
                }
                let [metadata, _] = self.repository.streams(record, &caches);
                let archive = match Archive::open(metadata) {
                    Ok(archive) => archive,
                    // Chunks that nobody has are told with what they cost.
                    Err(_) if has_lost => continue,
                    Err(error) => {
                        self.damaged(file, &format!("an archive cannot be opened: {error}"));
                        continue;
                    }
                };
                if let Some(what) = disagreement(record, &archive) {
                    self.damaged(file, &what);
                }
            }
        }
        Ok(())
    }

    /// Files of a kind with their lengths.
    fn list(&self, kind: FileKind) -> Result<Vec<(Digest, u64)>> {
        let listed = self.repository.backend().list(kind).map_err(told)?;
        Ok(listed.into_iter().map(|listed| (Digest(*listed.name.digest()), listed.length)).collect())
    }

    fn cursor(&self) -> Cursor {
        Cursor::new(self.options.cache.as_deref(), &self.repository.id().to_string())
    }

    /// An error if somebody asked for the end; else says to others that this is still at work.
    fn go_on(&self) -> Result<()> {
        (self.stay)();
        if self.options.interrupt.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
    }

    fn count(&self, change: impl FnOnce(&mut CheckReport)) {
        change(&mut self.report.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn tell(&self, finding: &Finding) {
        self.count(|report| match finding {
            Finding::File { severity: Severity::Damaged, .. } => report.damaged += 1,
            Finding::File { severity: Severity::Unreadable, .. } => report.unreadable += 1,
            Finding::File { severity: Severity::Harmless, .. } => report.harmless += 1,
            Finding::Snapshot { .. } => report.snapshots_damaged += 1,
            Finding::Lost { .. } => report.paths_lost += 1,
        });
        (self.found)(finding);
    }

    /// A small file that is damaged, or could not be read.
    fn file(&self, file: &DamagedFile, advice: &str) {
        let is_unreadable = matches!(file.error.class, Class::Io | Class::Unsupported);
        let severity = if is_unreadable { Severity::Unreadable } else { Severity::Damaged };
        let mut what = without_path(&file.error.to_string(), &file.path);
        if !is_unreadable {
            what = format!("{what}; {advice}");
        }
        self.tell(&Finding::File { path: file.path.clone(), what, severity });
    }

    fn damaged(&self, path: &str, what: &str) {
        self.told(path, what, Severity::Damaged);
    }

    fn unreadable(&self, path: &str, what: &str) {
        self.told(path, what, Severity::Unreadable);
    }

    fn harmless(&self, path: &str, what: &str) {
        self.told(path, what, Severity::Harmless);
    }

    fn told(&self, path: &str, what: &str, severity: Severity) {
        self.tell(&Finding::File { path: path.to_owned(), what: what.to_owned(), severity });
    }
}

impl Health<'_> {
    /// Whether a snapshot that names this chunk lacks it: no pack has it whole.
    fn is_lost(&self, kind: ChunkKind, id: &Digest) -> Result<bool> {
        let places = self.view.find(id)?;
        let is_here = |place: &PlacedChunk| place.location.chunk.header.kind == kind && self.is_whole(place);
        Ok(!places.iter().any(is_here))
    }

    fn is_whole(&self, place: &PlacedChunk) -> bool {
        !self.bad.has(place.row) && !self.gone.contains(&place.location.pack)
    }
}

/// Whether nobody may read this, which says nothing of how it is.
fn is_refused(error: &FormatError) -> bool {
    error.class == Class::Io
        && error.source.as_ref().is_some_and(|source| source.kind() == std::io::ErrorKind::PermissionDenied)
}

/// The words of an error without the path that stands before them anyway.
fn without_path(what: &str, path: &str) -> String {
    what.strip_prefix(path).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(what).to_owned()
}

/// In what a snapshot and the trailer of an archive disagree.
fn disagreement(record: &ArchiveRecord, archive: &Archive) -> Option<String> {
    let trailer = archive.trailer();
    let compared = [
        ("tree id", record.tree_id == trailer.tree_id),
        ("completeness", record.complete == trailer.is_complete()),
        ("number of entries", record.entries == trailer.entries),
        ("length of the metadata stream", record.metadata.length == trailer.stream_length),
        ("length of the payload stream", record.payload.length == trailer.payload_length),
    ];
    let differ: Vec<&str> =
        compared.iter().filter(|(_, is_equal)| !is_equal).map(|(what, _)| *what).collect();
    let name = crate::names::show(&record.name);
    (!differ.is_empty()).then(|| format!("it says another {} than archive {name} has", differ.join(", ")))
}
