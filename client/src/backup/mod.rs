//! `backup`: directory trees become a snapshot in a repository.
//!
//! Each tree goes through the stages of [`crate::create`] into the repository's packs; what the base has unchanged is
//! neither read nor stored ([`crate::reuse`]). What is written comes in the one order that loses nothing: packs, index,
//! manifest as pending, manifest.
//!
//! Spec: repository.md sections 9 to 11.

mod report;

use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use diptych_format::pack::ChunkKind;
use diptych_format::{Digest, Monitor, Time};
use diptych_localfs::scan::{ScanOptions, scan};
use diptych_localfs::select::Selection;
use diptych_repository::chunk::Compression;
use diptych_repository::documents::{
    ArchiveRecord, Clock, Report, Snapshot, StreamRecord,
};
use diptych_repository::{Repository, StoreWriter};
use jiff::Timestamp;

use crate::create::{Assembly, ChunkWriter, Storing, TOOL, pipeline};
use crate::error::{Error, InPlace, Result};
use crate::commit::{Lease, commit};
use crate::progress::Progress;
use crate::reuse::{Base, ChangeKey, Counts};
use crate::snapshots::{self, Listed};
use report::Recorder;

/// A change so shortly before the scan of the base began may have been followed by one with the same time: the clock of
/// a file system has steps, of two seconds at most.
const YOUNG_SECONDS: i64 = 2;

/// A tree to back up.
#[derive(Clone, Debug)]
pub struct Source {
    /// What its archive is called.
    pub name: Vec<u8>,
    /// Where it is.
    pub path: PathBuf,
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
        lease = Some(Lease::take(repository, &options.identity.host, &options.identity.user)?);
    }
    let base = find_base(repository, options, &*progress)?;
    let recorder = Arc::new(Recorder::new(progress));
    let mut run = Run {
        repository,
        options,
        recorder,
        base,
        store: Store { writer: repository.writer(), is_dry: options.is_dry_run, bytes: 0, chunks: 0 },
        records: Vec::new(),
        archives: Vec::new(),
    };
    for source in &options.sources {
        run.archive(source)?;
    }
    let report = run.finish()?;
    drop(lease);
    Ok(report)
}

/// The snapshot to compare with.
fn find_base(
    repository: &Repository,
    options: &BackupOptions,
    progress: &dyn Progress,
) -> Result<Option<Listed>> {
    let listed = match &options.base {
        BaseChoice::None => return Ok(None),
        _ => snapshots::list(repository, progress)?,
    };
    if let BaseChoice::Snapshot(text) = &options.base {
        return snapshots::find(&listed, text, &snapshots::Filter::default()).map(Some);
    }
    let paths: HashSet<&[u8]> = options.sources.iter().map(|source| source.path.as_os_str().as_bytes()).collect();
    let is_same = |listed: &&Listed| {
        let found: HashSet<&[u8]> =
            listed.snapshot.archives.iter().filter_map(|archive| archive.path.as_deref()).collect();
        !listed.is_partial
            && listed.forgotten.is_none()
            && listed.snapshot.host == options.identity.host
            && found == paths
    };
    Ok(listed.iter().rfind(is_same).cloned())
}

/// Where chunks go.
struct Store {
    writer: StoreWriter,
    is_dry: bool,
    bytes: u64,
    chunks: u64,
}

impl ChunkWriter for Store {
    fn append(&mut self, kind: ChunkKind, id: Digest, stored: &[u8]) -> diptych_format::Result<()> {
        if self.is_dry || self.writer.append(kind, id, stored)? {
            self.bytes += stored.len() as u64;
            self.chunks += 1;
        }
        Ok(())
    }
}

/// A run under way.
struct Run<'r> {
    repository: &'r Repository,
    options: &'r BackupOptions,
    recorder: Arc<Recorder>,
    base: Option<Listed>,
    store: Store,
    records: Vec<ArchiveRecord>,
    archives: Vec<ArchiveReport>,
}

impl Run<'_> {
    fn archive(&mut self, source: &Source) -> Result<()> {
        let started = clock();
        let place = source.path.display().to_string();
        let base = self.base_of(source);
        let options = self.options;
        let scan_options = ScanOptions { selection: options.selection.clone(), threads: options.threads };
        let monitor: Arc<dyn Monitor> = self.recorder.clone();
        self.recorder.begin(&source.name);
        let scan = scan(&source.path, scan_options, Arc::clone(&monitor)).in_place("")?;
        let assembly = Assembly {
            base,
            ..Assembly::new(options.threads, options.max_memory, options.is_strict, &options.interrupt)
        };
        let index = self.repository.index();
        let storing = Storing {
            compression: options.compression,
            keys: self.repository.chunk_keys().clone(),
            padding: self.repository.config().padding,
            is_stored: &|_, id| index.contains(id),
        };
        let store = &mut self.store;
        let (assembled, written) =
            pipeline::run(scan, &assembly, &storing, &monitor, store).in_place(&place)?;
        let maps = pipeline::write_maps(&assembled, &written, &storing, true, store).in_place(&place)?;
        let trailer = assembled.finished.trailer;
        self.archives.push(ArchiveReport {
            name: source.name.clone(),
            tree_id: trailer.tree_id,
            is_complete: trailer.is_complete(),
            entries: trailer.entries,
            content_bytes: assembled.content_bytes,
            counts: assembled.counts,
        });
        self.records.push(ArchiveRecord {
            name: source.name.clone(),
            path: Some(source.path.as_os_str().as_bytes().to_vec()),
            tree_id: trailer.tree_id,
            complete: trailer.is_complete(),
            entries: trailer.entries,
            content_bytes: assembled.content_bytes,
            metadata: StreamRecord { root: maps.metadata.id, length: maps.metadata.length },
            payload: StreamRecord { root: maps.payload.id, length: maps.payload.length },
            started: Clock { seconds: started.seconds, nanoseconds: started.nanoseconds },
            sparse_chunks: assembled.sparse,
            sample: 0,
        });
        Ok(())
    }

    /// The archive of the base that a tree is compared with. One that cannot be opened is told and done without.
    fn base_of(&self, source: &Source) -> Option<Base> {
        let base = self.base.as_ref()?;
        let path = source.path.as_os_str().as_bytes();
        let record = base.snapshot.archives.iter().find(|archive| archive.path.as_deref() == Some(path))?;
        let caches = snapshots::caches(self.repository);
        let opened = snapshots::open_streams(self.repository, record, &caches);
        let (archive, payload) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                let what = format!("the base cannot be read, and everything is read again: {error}");
                let path = source.name.clone();
                self.recorder.problem(diptych_format::Problem { path, what, is_loss: false });
                return None;
            }
        };
        let index = Arc::clone(self.repository.index());
        Some(Base {
            archive,
            payload,
            key: ChangeKey {
                ctime: self.options.compares_ctime,
                inode: self.options.compares_inode,
                young_from: Time {
                    seconds: record.started.seconds.saturating_sub(YOUNG_SECONDS),
                    nanoseconds: record.started.nanoseconds,
                },
            },
            avoided: record.sparse_chunks.iter().copied().collect(),
            has_chunk: Arc::new(move |id| index.contains(id)),
            min_live: self.options.min_live,
        })
    }

    /// Commits the run. Spec: section 11.
    fn finish(mut self) -> Result<BackupReport> {
        let losses = self.recorder.losses();
        let snapshot = if self.options.is_dry_run { None } else { Some(self.commit()?) };
        Ok(BackupReport {
            snapshot,
            base: self.base.map(|base| base.id),
            archives: self.archives,
            stored_bytes: self.store.bytes,
            stored_chunks: self.store.chunks,
            losses,
        })
    }

    fn commit(&mut self) -> Result<Digest> {
        let report = self.store_report()?;
        self.store.writer.flush()?;
        let identity = &self.options.identity;
        let body = Snapshot {
            time: identity.time,
            host: identity.host.clone(),
            user: identity.user.clone(),
            tags: identity.tags.clone(),
            tool: TOOL.to_owned(),
            base: self.base.as_ref().map(|base| base.id),
            archives: std::mem::take(&mut self.records),
            report,
        };
        commit(self.repository, body)
    }

    /// Stores what there is to report.
    fn store_report(&mut self) -> Result<Option<Report>> {
        let Some(bytes) = self.recorder.encode()? else { return Ok(None) };
        let keys = self.repository.chunk_keys();
        let id = keys.chunk_id(ChunkKind::Report, &bytes);
        if !self.repository.index().contains(&id)? {
            let storing = Storing {
                compression: self.options.compression,
                keys: keys.clone(),
                padding: self.repository.config().padding,
                is_stored: &|_, _| Ok(false),
            };
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

/// The path of a tree as snapshots tell it: absolute, without links.
pub fn source(path: &Path, name: Option<&str>) -> Result<Source> {
    let full = path
        .canonicalize()
        .map_err(|error| Error::io(path.display().to_string(), "cannot be backed up", error))?;
    let name = name.map_or_else(|| full.as_os_str().as_bytes().to_vec(), |name| name.as_bytes().to_vec());
    Ok(Source { name, path: full })
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
