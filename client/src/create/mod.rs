//! `create`: a directory tree becomes archive files.
//!
//! Stages on threads with bounded memory: the scan lists directories ahead, readers read and digest files, the
//! assembler puts everything in order, compressing threads digest and compress chunks, and a writer writes them. What is
//! written does not depend on how the threads run.

mod assemble;
mod behind;
mod budget;
mod buffers;
pub(crate) mod own;
pub(crate) mod pipeline;
mod read;
mod store;
mod stream;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use diptych_encoder::{Cuts, Finished};
use diptych_format::manifest::{ArchiveManifest, StreamRoot};
use diptych_format::pack::{ChunkKind, PackHolds};
use diptych_format::{Digest, Error, Monitor, Result};
use diptych_localfs::scan::{Scan, ScanOptions, scan};
use diptych_localfs::select::Selection;
use diptych_repository::chunk::Compression;
use diptych_repository::pack::PackWriter;
use diptych_repository::{ChunkKeys, Padding};

pub(crate) use assemble::{Assembly, Partial};
use assemble::{Sink, assemble};
use behind::WriteBehind;
use buffers::{Buffers, Bytes};
use pipeline::Maps;
use store::Packs;
pub(crate) use store::{ChunkWriter, Storing, WrittenChunks};
pub(crate) use stream::StreamFile;

/// Least memory that a run works with.
pub const MEMORY_MIN: u64 = 64 << 20;
/// How archives say who wrote them.
pub(crate) const TOOL: &str = concat!("diptych ", env!("CARGO_PKG_VERSION"));

/// Where the archive goes.
#[derive(Clone, Debug)]
pub enum Destination {
    /// Two files, `BASE.meta.dpt` and `BASE.data.dpt`.
    Pair {
        /// Path of the metadata file.
        metadata: PathBuf,
        /// Path of the payload file.
        payload: PathBuf,
        /// Whether files that are there may be replaced.
        is_replacing: bool,
    },
    /// One file with all, on standard output.
    Stdout,
}

/// What to create.
pub struct CreateOptions {
    /// Where it goes.
    pub destination: Destination,
    /// The directory.
    pub root: PathBuf,
    /// What of it.
    pub selection: Selection,
    /// How chunks are compressed.
    pub compression: Compression,
    /// Threads that read, and as many that compress.
    pub threads: usize,
    /// Bytes of memory for contents and tables of known contents.
    pub max_memory: u64,
    /// Whether anything that cannot be captured whole ends the run.
    pub is_strict: bool,
    /// Set from outside to end the run.
    pub interrupt: Arc<AtomicBool>,
}

/// What was created.
#[derive(Clone, Copy, Debug)]
pub struct CreateReport {
    /// The tree id.
    pub tree_id: Digest,
    /// Whether everything was captured whole.
    pub is_complete: bool,
    /// Entries, the root counted.
    pub entries: u64,
    /// Bytes of contents, holes counted.
    pub content_bytes: u64,
    /// Length of the payload stream.
    pub payload_bytes: u64,
    /// Length of the metadata stream.
    pub metadata_bytes: u64,
    /// Bytes stored for the metadata stream.
    pub stored_metadata_bytes: u64,
    /// Bytes stored for the payload.
    pub stored_payload_bytes: u64,
}

/// Creates an archive.
///
/// The files appear under their names when they are whole; an earlier end leaves nothing. Where they lie inside the tree
/// they are not part of it.
pub fn create(options: CreateOptions, monitor: Arc<dyn Monitor>) -> Result<CreateReport> {
    let start_scan_without = |own: &[PathBuf]| {
        let selection = own::leave_out(own, &options.root, options.selection.clone(), &*monitor);
        start_scan(&options.root, selection, options.threads, &monitor)
    };
    match options.destination.clone() {
        Destination::Stdout => {
            // Standard output is written as it comes: there is no name that could appear too early.
            let file = duplicate_stdout()?;
            let scan = start_scan_without(own::path_of(&file).as_slice())?;
            let packs = Packs { metadata: PackWriter::new(file, PackHolds::Both)?, payload: None };
            let (report, _) = write_archive(scan, &options, &monitor, packs)?;
            Ok(report)
        }
        Destination::Pair { metadata, payload, is_replacing } => {
            let files = [NewFile::create(&metadata, is_replacing)?, NewFile::create(&payload, is_replacing)?];
            let [metadata_file, payload_file] = &files;
            let own =
                [metadata_file, payload_file].map(|file| [file.path.clone(), file.file.path().to_owned()]);
            let scan = start_scan_without(own.as_flattened())?;
            let packs = Packs {
                metadata: PackWriter::new(metadata_file.behind()?, PackHolds::Metadata)?,
                payload: Some(PackWriter::new(payload_file.behind()?, PackHolds::Payload)?),
            };
            let (report, written) = write_archive(scan, &options, &monitor, packs)?;
            for file in written {
                file.sync().map_err(|error| Error::io("cannot make the archive durable", error))?;
            }
            keep_both(files, is_replacing)?;
            Ok(report)
        }
    }
}

fn start_scan(root: &Path, selection: Selection, threads: usize, monitor: &Arc<dyn Monitor>) -> Result<Scan> {
    scan(root, ScanOptions { selection, threads }, Arc::clone(monitor))
}

/// Runs all stages into `packs`; gives the files back when the packs are finished.
fn write_archive<W: Write + Send>(
    scan: Scan,
    options: &CreateOptions,
    monitor: &Arc<dyn Monitor>,
    mut packs: Packs<W>,
) -> Result<(CreateReport, Vec<W>)> {
    let assembly = Assembly::new(options.threads, options.max_memory, options.is_strict, &options.interrupt);
    let storing = Storing {
        compression: options.compression,
        keys: ChunkKeys::plain(),
        padding: Padding::None,
        // An archive file has nothing but what this run puts there.
        is_stored: Box::new(|_, _| Ok(false)),
    };
    let (assembled, written) = pipeline::run(scan, &assembly, &storing, monitor, &mut packs)?;
    let maps =
        pipeline::write_maps(&assembled.payload, &written, &written.metadata, &storing, false, &mut packs)?;
    let trailer = assembled.finished.trailer;
    let manifest = manifest(&assembled.finished, &maps).encode()?;
    let id = storing.keys.chunk_id(ChunkKind::Manifest, &manifest);
    let mut out = Vec::new();
    storing.metadata_compressor().store(ChunkKind::Manifest, id, &manifest, &mut out)?;
    packs.append(ChunkKind::Manifest, id, &out)?;
    let mut files = vec![packs.metadata.finish()?.0];
    if let Some(payload) = packs.payload {
        files.push(payload.finish()?.0);
    }
    let report = CreateReport {
        tree_id: trailer.tree_id,
        is_complete: trailer.is_complete(),
        entries: trailer.entries,
        content_bytes: assembled.content_bytes,
        payload_bytes: trailer.payload_length,
        metadata_bytes: trailer.stream_length,
        stored_metadata_bytes: written.stored_metadata + maps.stored,
        stored_payload_bytes: written.stored_payload,
    };
    Ok((report, files))
}

fn manifest(finished: &Finished, maps: &Maps) -> ArchiveManifest {
    let trailer = finished.trailer;
    ArchiveManifest {
        tree_id: trailer.tree_id,
        complete: trailer.is_complete(),
        entries: trailer.entries,
        metadata: StreamRoot { root: maps.metadata.id, length: maps.metadata.length },
        payload: StreamRoot { root: maps.payload.id, length: maps.payload.length },
        tool: TOOL.to_owned(),
    }
}

/// Computes the metadata stream of a directory without keeping contents, handing its chunks to `keep`.
pub(crate) fn metadata_of(
    root: &Path,
    selection: Selection,
    threads: usize,
    interrupt: Arc<AtomicBool>,
    monitor: Arc<dyn Monitor>,
    keep: &mut dyn FnMut(Vec<u8>) -> Result<()>,
) -> Result<Finished> {
    struct MetadataOnly<'k>(&'k mut dyn FnMut(Vec<u8>) -> Result<()>);
    impl Sink for MetadataOnly<'_> {
        fn keeps_contents(&self) -> bool {
            false
        }
        fn metadata(&mut self, chunk: Vec<u8>) -> Result<()> {
            (self.0)(chunk)
        }
        fn payload(&mut self, _: u64, _: Bytes) -> Result<()> {
            Ok(())
        }
    }
    let scan = start_scan(root, selection, threads, &monitor)?;
    let assembly = Assembly { known_max: 0, ..Assembly::new(threads, MEMORY_MIN, false, &interrupt) };
    let assembled =
        assemble(scan, &assembly, &Cuts::plain(), &Buffers::default(), &monitor, &mut MetadataOnly(keep))?;
    Ok(assembled.finished)
}

/// A file that gets its name when it is whole.
struct NewFile {
    path: PathBuf,
    file: tempfile::NamedTempFile,
}

impl NewFile {
    fn create(path: &Path, is_replacing: bool) -> Result<Self> {
        if let Ok(there) = path.symlink_metadata() {
            let shown = path.display();
            let what = if there.is_dir() {
                format!("{shown} is a directory: give another name")
            } else {
                format!("{shown} is there already: give another name, or --force to replace it")
            };
            if there.is_dir() || !is_replacing {
                return Err(Error::io(what, std::io::ErrorKind::AlreadyExists.into()));
            }
        }
        let directory = directory_of(path);
        if !directory.is_dir() {
            let what =
                format!("there is no directory {}: make it first, or give another name", directory.display());
            return Err(Error::missing(what));
        }
        let file = beside(path)
            .map_err(|error| Error::io(format!("cannot write to {}", directory.display()), error))?;
        Ok(Self { path: path.to_owned(), file })
    }

    fn behind(&self) -> Result<WriteBehind> {
        self.file
            .as_file()
            .try_clone()
            .and_then(WriteBehind::new)
            .map_err(|error| Error::io("cannot write the archive", error))
    }

    fn keep(self, is_replacing: bool) -> Result<()> {
        let kept = if is_replacing {
            self.file.persist(&self.path)
        } else {
            self.file.persist_noclobber(&self.path)
        };
        let what = || format!("cannot give the archive its name {}", self.path.display());
        kept.map_err(|error| Error::io(what(), error.error))?;
        File::open(directory_of(&self.path))
            .and_then(|directory| directory.sync_all())
            .map_err(|error| Error::io(what(), error))
    }
}

/// Gives both files of an archive their names, the metadata file last: while it is not there, there is no archive. If
/// one cannot be named, the archive that they were to replace is as it was.
fn keep_both([metadata, payload]: [NewFile; 2], is_replacing: bool) -> Result<()> {
    let path = payload.path.clone();
    let failed = |error| Error::io(format!("cannot set {} aside", path.display()), error);
    let replaced = match is_replacing && path.symlink_metadata().is_ok() {
        true => {
            let aside = beside(&path).map_err(failed)?.into_temp_path();
            std::fs::rename(&path, &aside).map_err(failed)?;
            Some(aside)
        }
        false => None,
    };
    let kept = payload.keep(false).map_err(|error| (error, false));
    let kept = kept.and_then(|()| metadata.keep(is_replacing).map_err(|error| (error, true)));
    kept.map_err(|(error, is_new)| {
        // The first error is the one to tell; that what is left could not be mended follows from it.
        let _ = match replaced {
            Some(aside) => aside.persist(&path).map_err(|error| error.error),
            None if is_new => std::fs::remove_file(&path),
            None => Ok(()),
        };
        error
    })
}

/// A file without a lasting name in the directory where `path` is to be.
fn beside(path: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    tempfile::Builder::new()
        .prefix(&format!(".{name}."))
        .suffix(&format!(".{}", own::PARTIAL))
        .tempfile_in(directory_of(path))
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn duplicate_stdout() -> Result<File> {
    use std::os::fd::AsFd;
    let stdout = std::io::stdout();
    let duplicate = stdout.as_fd().try_clone_to_owned();
    duplicate.map(File::from).map_err(|error| Error::io("cannot write to standard output", error))
}
