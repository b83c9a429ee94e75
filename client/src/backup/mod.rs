//! `backup`: directory trees become a snapshot in a repository.
//!
//! Each tree goes through the stages of [`crate::create`] into the repository's packs; what the base has unchanged is
//! neither read nor stored ([`crate::reuse`]). What is written comes in the one order that loses nothing: packs, index,
//! manifest as pending, manifest.
//!
//! Spec: repository.md sections 9 to 11.

mod input;
mod report;
mod store;

use std::collections::HashSet;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use diptych_format::pack::ChunkKind;
use diptych_format::{Class, Digest, Monitor, Name, Problem, Time};
use diptych_localfs::scan::{ScanOptions, scan};
use diptych_localfs::select::Selection;
use diptych_localfs::trust::{Trust, trust};
use diptych_repository::Repository;
use diptych_repository::chunk::Compression;
use diptych_repository::documents::{ArchiveRecord, Clock, Report};
use jiff::Timestamp;

use crate::commit::{Lease, commit};
use crate::create::own::leave_out_repository;
use crate::create::pipeline::{self, write_maps};
use crate::create::{Assembly, ChunkWriter, StreamFile};
use crate::error::{Error, InPlace, Result};
use crate::names;
use crate::progress::Progress;
use crate::reuse::{Base, Bases, ChangeKey, Counts, Sample};
use crate::snapshots::{self, Listed};
pub use input::Input;
use report::Recorder;
use store::{Current, Made, Store};

/// A change so shortly before the scan of the base began may have been followed by one with the same time: the clock of
/// a file system has steps, of two seconds at most.
const YOUNG_SECONDS: i64 = 2;

/// The same where another machine's clock dates the changes, which may be wrong by as much.
const YOUNG_SECONDS_ELSEWHERE: i64 = 3600;
/// Interrupted runs that a run compares with.
const PARTIAL_BASES: usize = 3;

/// What becomes an archive.
#[derive(Clone, Debug)]
pub struct Source {
    /// What its archive is called.
    pub name: Vec<u8>,
    /// What it is.
    pub what: What,
}

/// What a source is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A tree.
    Tree {
        /// How it was named: absolute, and with the links that are in it, as these stay when what they lead to moves.
        path: PathBuf,
        /// Where it is.
        place: PathBuf,
    },
    /// A stream of bytes, which becomes a file in a tree of its own.
    Stream(Input),
}

impl Source {
    /// What its file system's times and inode numbers are worth.
    fn trust(&self) -> Trust {
        match &self.what {
            What::Tree { place, .. } => trust(place),
            What::Stream(_) => trust(Path::new("/")),
        }
    }

    /// How the snapshot tells the path.
    fn recorded_path(&self) -> Option<Vec<u8>> {
        match &self.what {
            What::Tree { path, .. } => Some(path.as_os_str().as_bytes().to_vec()),
            What::Stream(_) => None,
        }
    }
}

/// What a run compares with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BaseChoice {
    /// The newest complete snapshot with the same host and paths.
    Newest,
    /// Nothing: everything is read.
    None,
    /// This one.
    Snapshot(String),
}

/// Who makes a snapshot, and how it is called.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The machine.
    pub host: String,
    /// The user.
    pub user: String,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// When the run began.
    pub time: Timestamp,
}

/// What to back up, and how.
pub struct BackupOptions {
    /// The trees.
    pub sources: Vec<Source>,
    /// What of them.
    pub selection: Selection,
    /// Who makes it.
    pub identity: Identity,
    /// What it is compared with.
    pub base: BaseChoice,
    /// Whether the time of the inode's last change is compared.
    pub compares_ctime: bool,
    /// Whether the inode's number is compared.
    pub compares_inode: bool,
    /// Least part of a chunk, in percent, that must be in use for it to be used on.
    pub min_live: u8,
    /// One in so many chunks whose files are read though they count as unchanged; 0 for none.
    pub sample_one_in: u64,
    /// How often a partial snapshot is made.
    pub checkpoint_every: Duration,
    /// How chunks are compressed.
    pub compression: Compression,
    /// Threads that read, and as many that compress.
    pub threads: usize,
    /// Bytes of memory for contents and tables of known contents.
    pub max_memory: u64,
    /// Whether anything that cannot be captured whole ends the run.
    pub is_strict: bool,
    /// Whether nothing is written.
    pub is_dry_run: bool,
    /// Set from outside to end the run.
    pub interrupt: Arc<AtomicBool>,
}

impl BackupOptions {
    /// Whether a path that cannot be read is left out.
    fn spares_paths(&self) -> bool {
        !self.is_strict && self.sources.len() > 1
    }
}

/// What became of a tree.
#[derive(Clone, Debug)]
pub struct ArchiveReport {
    /// What its archive is called.
    pub name: Vec<u8>,
    /// The tree id.
    pub tree_id: Digest,
    /// Whether everything was captured whole.
    pub is_complete: bool,
    /// Entries, the root counted.
    pub entries: u64,
    /// Bytes of contents, holes counted.
    pub content_bytes: u64,
    /// What was read and what was not.
    pub counts: Counts,
}

/// What became of a run.
#[derive(Clone, Debug)]
pub struct BackupReport {
    /// The snapshot; none of a dry run.
    pub snapshot: Option<Digest>,
    /// What it was compared with.
    pub base: Option<Digest>,
    /// The trees.
    pub archives: Vec<ArchiveReport>,
    /// Bytes stored for chunks that were not there.
    pub stored_bytes: u64,
    /// Chunks that were not there.
    pub stored_chunks: u64,
    /// Entries that were not captured whole.
    pub losses: u64,
}

/// Backs trees up.
pub fn backup(
    repository: &Repository,
    options: &BackupOptions,
    progress: Arc<dyn Progress>,
) -> Result<BackupReport> {
    let mut lease = None;
    if !options.is_dry_run {
        let taken = Lease::take(repository, &options.identity.host, &options.identity.user)?;
        taken.report_missing(&*progress);
        lease = Some(taken);
    }
    let bases = find_bases(repository, options, &*progress)?;
    let store = Store::new(repository, options, lease, bases.first().map(|base| base.id));
    let recorder = Arc::new(Recorder::new(progress));
    let mut run = Run { repository, options, recorder, bases, store, archives: Vec::new() };
    for source in &options.sources {
        let archived = run.archive(source);
        if archived.is_err() {
            run.tell_of_partial();
        }
        archived?;
    }
    if run.archives.is_empty() {
        let place = repository.backend().location();
        let advice = "Nothing was stored.";
        return Err(Error::missing(place, "no snapshot is made, as none of the paths could be read", advice));
    }
    run.finish()
}

/// The snapshots to compare with: what an interrupted run left, then the newest complete one.
fn find_bases(
    repository: &Repository,
    options: &BackupOptions,
    progress: &dyn Progress,
) -> Result<Vec<Listed>> {
    // Even where none is wanted, for the list shows whether an older state was put in place.
    let listed = snapshots::list(repository, progress)?;
    if let BaseChoice::None = &options.base {
        return Ok(Vec::new());
    }
    if let BaseChoice::Snapshot(text) = &options.base {
        return snapshots::find(&listed, text, &snapshots::Filter::default()).map(|base| vec![base]);
    }
    // A stream has no path; its name tells it.
    let paths: HashSet<Vec<u8>> = options
        .sources
        .iter()
        .map(|source| source.recorded_path().unwrap_or_else(|| source.name.clone()))
        .collect();
    let of_this_host =
        |listed: &&Listed| listed.forgotten.is_none() && listed.snapshot.host == options.identity.host;
    let paths_of = |listed: &Listed| -> HashSet<Vec<u8>> {
        let told = |archive: &ArchiveRecord| archive.path.clone().unwrap_or_else(|| archive.name.clone());
        listed.snapshot.archives.iter().map(told).collect()
    };
    let mut bases = Vec::new();
    for candidate in listed.iter().rev().filter(of_this_host) {
        if !candidate.is_partial && paths_of(candidate) == paths {
            bases.push(candidate.clone());
            break;
        }
        // It was interrupted before it came to all paths. The one before may have come further.
        if candidate.is_partial && bases.len() < PARTIAL_BASES && paths_of(candidate).is_subset(&paths) {
            bases.push(candidate.clone());
        }
    }
    Ok(bases)
}

/// A run under way.
struct Run<'r> {
    repository: &'r Repository,
    options: &'r BackupOptions,
    recorder: Arc<Recorder>,
    /// What it compares with, the first that has an entry as it is.
    bases: Vec<Listed>,
    store: Store<'r>,
    archives: Vec<ArchiveReport>,
}

impl Run<'_> {
    fn archive(&mut self, source: &Source) -> Result<()> {
        let started = clock();
        let options = self.options;
        self.recorder.begin(source);
        let trust = source.trust();
        self.tell_of_trust(source, &trust);
        let records = self.records_of(source);
        let sample = records.first().map_or(0, |record| record.sample.wrapping_add(1));
        let bases = Bases {
            in_order: records.iter().filter_map(|record| self.open_base(record, &trust)).collect(),
            min_live: options.min_live,
            sample: Sample { one_in: options.sample_one_in, round: sample },
        };
        self.store.current = Some(Current {
            source: source.clone(),
            started: Clock { seconds: started.seconds, nanoseconds: started.nanoseconds },
            sample,
        });
        let monitor: Arc<dyn Monitor> = self.recorder.clone();
        let assembly = Assembly {
            bases: Some(bases).filter(|bases| !bases.in_order.is_empty()),
            checkpoint_every: Some(options.checkpoint_every),
            ..Assembly::new(options.threads, options.max_memory, options.is_strict, &options.interrupt)
        };
        let place = names::show(&source.name);
        let (storing, store) = (self.store.storing(), &mut self.store);
        let (assembled, written) = match &source.what {
            What::Tree { place: tree, .. } => {
                let location = self.repository.backend().location();
                let selection = leave_out_repository(&location, tree, options.selection.clone());
                let scan_options = ScanOptions { selection, threads: options.threads };
                let scan = match scan(tree, scan_options, Arc::clone(&monitor)) {
                    // One path that is not there is no reason to leave the others without a backup.
                    Err(error) if error.class == Class::Io && options.spares_paths() => {
                        let what = format!("left out: {error}");
                        monitor.problem(Problem { path: Vec::new(), what, is_loss: true });
                        self.store.current = None;
                        return Ok(());
                    }
                    scan => scan.in_place("")?,
                };
                pipeline::run(scan, &assembly, &storing, &monitor, store)
            }
            What::Stream(input) => {
                let file = stream_file(&source.name, started).in_place(&place)?;
                let mut stream = input.open()?;
                pipeline::run_stream(&file, &mut *stream, &assembly, &storing, &*monitor, store)
            }
        }
        .in_place(&place)?;
        let maps = write_maps(&assembled.payload, &written, &written.metadata, &storing, true, store)
            .in_place(&place)?;
        let trailer = assembled.finished.trailer;
        self.archives.push(ArchiveReport {
            name: source.name.clone(),
            tree_id: trailer.tree_id,
            is_complete: trailer.is_complete(),
            entries: trailer.entries,
            content_bytes: assembled.content_bytes,
            counts: assembled.counts,
        });
        let made = Made {
            finished: &assembled.finished,
            maps: &maps,
            content_bytes: assembled.content_bytes,
            sparse: &assembled.sparse,
        };
        let record = self.store.record(&made);
        self.store.records.extend(record);
        self.store.current = None;
        Ok(())
    }

    /// The run ends early: says what is kept of it.
    fn tell_of_partial(&self) {
        if let Some(id) = self.store.partial() {
            let what = format!(
                "what was done so far is kept as partial snapshot {}: the next run goes on from there",
                snapshots::short(id)
            );
            self.recorder.problem(Problem { path: Vec::new(), what, is_loss: false });
        }
    }

    /// Says by what a tree is compared, where it is less than elsewhere.
    fn tell_of_trust(&self, source: &Source, trust: &Trust) {
        let Some(name) = trust.name else { return };
        let mut what = Vec::new();
        if !trust.has_lasting_inodes {
            what.push("inode numbers are not compared, as they may change from mount to mount".to_owned());
        }
        if !trust.is_dated_here {
            let minutes = YOUNG_SECONDS_ELSEWHERE / 60;
            what.push(format!(
                "what changed in the last {minutes} minutes before the run before is read again, as another machine dates it"
            ));
        }
        if !what.is_empty() && !self.bases.is_empty() {
            let what = format!("this is {name}: {}", what.join("; "));
            self.recorder.problem(Problem { path: source.name.clone(), what, is_loss: false });
        }
    }

    /// What the bases say of a tree.
    fn records_of(&self, source: &Source) -> Vec<ArchiveRecord> {
        let path = source.recorded_path();
        let is_named = matches!(self.options.base, BaseChoice::Snapshot(_));
        let of = |base: &Listed| {
            let archives = &base.snapshot.archives;
            let same = archives.iter().find(|archive| archive.path.is_some() && archive.path == path);
            // A base that was asked for by name is meant, wherever the tree was.
            let only = match &archives[..] {
                [only] if is_named && self.options.sources.len() == 1 => Some(only),
                _ => None,
            };
            same.or(only).cloned()
        };
        let records: Vec<ArchiveRecord> = self.bases.iter().filter_map(of).collect();
        if is_named && records.is_empty() {
            let what = "the base has no archive of this path: everything is read".to_owned();
            self.recorder.problem(Problem { path: Vec::new(), what, is_loss: false });
        }
        records
    }

    /// An archive to compare with. One that cannot be opened is told and done without.
    fn open_base(&self, record: &ArchiveRecord, trust: &Trust) -> Option<Base> {
        let caches = snapshots::caches(self.repository);
        let opened = snapshots::open_streams(self.repository, record, &caches);
        let (archive, payload) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                let what = format!("the base cannot be read, and files are read again: {error}");
                self.recorder.problem(Problem { path: Vec::new(), what, is_loss: false });
                return None;
            }
        };
        let index = Arc::clone(self.repository.index());
        let guard = if trust.is_dated_here { YOUNG_SECONDS } else { YOUNG_SECONDS_ELSEWHERE };
        Some(Base {
            archive,
            payload,
            key: ChangeKey {
                ctime: self.options.compares_ctime,
                inode: self.options.compares_inode && trust.has_lasting_inodes,
                young_from: Time {
                    seconds: record.started.seconds.saturating_sub(guard),
                    nanoseconds: record.started.nanoseconds,
                },
            },
            avoided: record.sparse_chunks.iter().copied().collect(),
            has_chunk: Arc::new(move |id| index.contains(id)),
        })
    }

    /// Commits the run. Spec: section 11.
    fn finish(mut self) -> Result<BackupReport> {
        let snapshot = if self.options.is_dry_run { None } else { Some(self.commit()?) };
        Ok(BackupReport {
            snapshot,
            base: self.bases.first().map(|base| base.id),
            archives: self.archives,
            stored_bytes: self.store.bytes,
            stored_chunks: self.store.chunks,
            losses: self.recorder.losses(),
        })
    }

    fn commit(&mut self) -> Result<Digest> {
        let report = self.store_report()?;
        self.store.flush()?;
        let records = std::mem::take(&mut self.store.records);
        let id = commit(self.repository, self.store.snapshot(records, report))?;
        // Whatever partial snapshots have, this one has as well; one that stays does no harm.
        let _ = self.store.remove_partial();
        for base in self.bases.iter().filter(|base| base.is_partial) {
            let _ = self.repository.remove_snapshot(&base.id);
        }
        Ok(id)
    }

    /// Stores what there is to report.
    fn store_report(&mut self) -> Result<Option<Report>> {
        let Some(bytes) = self.recorder.encode()? else { return Ok(None) };
        let storing = self.store.storing();
        let id = storing.keys.chunk_id(ChunkKind::Report, &bytes);
        if !(storing.is_stored)(ChunkKind::Report, &id)? {
            let mut out = Vec::new();
            storing.metadata_compressor().store(ChunkKind::Report, id, &bytes, &mut out)?;
            self.store.append(ChunkKind::Report, id, &out)?;
        }
        Ok(Some(Report { id, losses: self.recorder.losses(), changed: self.recorder.changed() }))
    }
}

/// The clock by which file systems of this machine date changes.
fn clock() -> Time {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    Time { seconds: now.tv_sec, nanoseconds: u32::try_from(now.tv_nsec).unwrap_or(0) }
}

/// The tree at `path`, called so unless it is given a `name`. Whether it can be read shows when it is.
pub fn source(path: &Path, name: Option<&str>) -> Result<Source> {
    let failed = |error| Error::io(path.display().to_string(), "cannot be backed up", error);
    let place = path.canonicalize().or_else(|_| std::path::absolute(path)).map_err(failed)?;
    let path = absolute(path).map_err(failed)?.unwrap_or_else(|| place.clone());
    let name = name.map_or_else(|| path.as_os_str().as_bytes().to_vec(), |name| name.as_bytes().to_vec());
    Ok(Source { name, what: What::Tree { path, place } })
}

/// `path` from the root on, links kept; nothing where it goes up, for what is above a link only the system knows.
fn absolute(path: &Path) -> io::Result<Option<PathBuf>> {
    if path.components().any(|part| part == Component::ParentDir) {
        return Ok(None);
    }
    let base = if path.is_absolute() { PathBuf::from("/") } else { working_directory()? };
    Ok(Some(base.join(path).components().collect()))
}

/// The working directory as the shell calls it, if that is the one.
fn working_directory() -> io::Result<PathBuf> {
    let actual = std::env::current_dir()?;
    let told = std::env::var_os("PWD").map(PathBuf::from).filter(|told| told.is_absolute());
    let is_it = |told: &PathBuf| told.canonicalize().is_ok_and(|place| place == actual);
    Ok(told.filter(is_it).unwrap_or(actual))
}

/// The file that a stream becomes, called as its archive is.
fn stream_file(name: &[u8], time: Time) -> diptych_format::Result<StreamFile> {
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    Ok(StreamFile { name: Name::try_new(name)?, uid, gid, time })
}

/// The name of this machine.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The name of who runs this, or the number.
pub fn user_name() -> String {
    let uid = nix::unistd::geteuid();
    let user = nix::unistd::User::from_uid(uid).ok().flatten();
    user.map_or_else(|| uid.to_string(), |user| user.name)
}
