//! Opening an archive: the one place where files, chunks and the two streams are joined.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use diptych_decoder::Archive;
use diptych_format::pack::{HEADER_LENGTH, PackHolds, decode_header, encode_header};
use diptych_format::{Class, Error as FormatError, ReadAt};
use diptych_repository::stream::CacheBudget;
use diptych_repository::{ArchiveFiles, FileReadAt, PackReader, StreamReader};

use crate::archive_path::ArchivePath;
use crate::error::{Error, InPlace, Result};

/// Memory for decoded chunks.
pub const CACHE_BYTES: usize = 96 << 20;
/// How much of the stream map is looked up at once.
const WINDOW: u64 = 32 << 20;
/// How many of a pack's first bytes are the same in all packs.
const MAGIC_LENGTH: usize = 8;
/// What to do if one of the two files is not there.
const SIDE_BY_SIDE: &str = "Put both files side by side, as NAME.meta.dpt and NAME.data.dpt, and give NAME.";

/// An open archive.
pub struct OpenArchive {
    /// What describes the tree.
    pub archive: Archive,
    kept: Kept,
}

/// Where it is kept.
enum Kept {
    Files {
        files: ArchiveFiles,
        /// The file that has the contents; or why there is none.
        data: Result<String, String>,
    },
    Repository {
        payload: Arc<StreamReader>,
    },
}

impl OpenArchive {
    /// Opens what an ARCHIVE argument names. A data file that is not there is missed when a content is asked for.
    pub fn open(argument: &Path) -> Result<Self> {
        Self::open_with(argument, CacheBudget::of(CACHE_BYTES))
    }

    /// The same, keeping decoded chunks within `budget`.
    pub fn open_with(argument: &Path, budget: CacheBudget) -> Result<Self> {
        let path = ArchivePath::find(argument);
        if path == ArchivePath::Standard {
            let place = "standard input";
            let file = FileReadAt::new(standard_input()?).in_place(place)?;
            return Self::join_one(file, place, budget);
        }
        let metadata_file = path.metadata_file();
        let metadata =
            FileReadAt::open(&metadata_file).map_err(|cause| not_opened(argument, &path, cause))?;
        if let ArchivePath::Single(_) = path {
            return Self::join_one(metadata, &metadata_file.display().to_string(), budget);
        }
        let data_file = path.data_file();
        let (data, state): (Option<Arc<dyn ReadAt>>, _) = match FileReadAt::open(&data_file) {
            Ok(data) => (Some(Arc::new(data)), Ok(data_file.display().to_string())),
            Err(error) => (None, Err(error.what)),
        };
        Self::join(Arc::new(metadata), data, state, &metadata_file.display().to_string(), budget)
    }

    /// Opens one file that holds both streams; `place` is what messages call it.
    pub fn open_file(file: File, place: &str) -> Result<Self> {
        let file = FileReadAt::new(file).in_place(place)?;
        Self::join_one(file, place, CacheBudget::of(CACHE_BYTES))
    }

    fn join_one(file: FileReadAt, place: &str, budget: CacheBudget) -> Result<Self> {
        let data = Err(format!("{place} holds the metadata alone"));
        Self::join(Arc::new(file), None, data, place, budget)
    }

    fn join(
        metadata: Arc<dyn ReadAt>,
        data: Option<Arc<dyn ReadAt>>,
        state: Result<String, String>,
        place: &str,
        budget: CacheBudget,
    ) -> Result<Self> {
        let mut start = [0; HEADER_LENGTH];
        let length = usize::try_from(metadata.len()).unwrap_or(HEADER_LENGTH).min(HEADER_LENGTH);
        metadata.read_exact_at(&mut start[..length], 0).in_place(place)?;
        refuse_others(&start[..length], place)?;
        let files = ArchiveFiles::open(metadata, data, budget).in_place(place)?;
        let archive = Archive::open(files.metadata.clone()).in_place(place)?;
        let holds_all = files.metadata_pack().holds() == PackHolds::Both;
        let data = if holds_all { Ok(place.to_owned()) } else { state };
        Ok(Self { archive, kept: Kept::Files { files, data } })
    }

    /// An archive in a repository.
    pub fn of_streams(archive: Archive, payload: Arc<StreamReader>) -> Self {
        Self { archive, kept: Kept::Repository { payload } }
    }

    /// The files, unless it is kept in a repository.
    pub fn files(&self) -> Option<&ArchiveFiles> {
        match &self.kept {
            Kept::Files { files, .. } => Some(files),
            Kept::Repository { .. } => None,
        }
    }

    /// The payload stream; an error if the file that holds it is not there.
    pub fn payload(&self) -> Result<Arc<StreamReader>> {
        let (files, data) = match &self.kept {
            Kept::Files { files, data } => (files, data),
            Kept::Repository { payload } => return Ok(Arc::clone(payload)),
        };
        match data {
            // An archive without any payload lacks nothing.
            Err(_) if self.archive.trailer().payload_length == 0 => Ok(files.payload.clone()),
            Err(why) => Err(Error::missing("", &format!("contents cannot be read: {why}"), SIDE_BY_SIDE)),
            Ok(place) => {
                // Whatever is wrong with the file as a whole is said once, here, and not for every content.
                if self.archive.trailer().payload_length > 0
                    && let Some(pack) = files.data_pack().in_place(place)?
                    && self.is_foreign(pack, &files.payload)
                {
                    let what = "this data file belongs to another archive: nothing that is wanted is in it";
                    return Err(Error::missing(
                        place,
                        what,
                        "Put the data file of this archive in its place.",
                    ));
                }
                Ok(files.payload.clone())
            }
        }
    }

    /// Whether no chunk of the payload is in `pack`. Of an archive's own data file the first one is.
    fn is_foreign(&self, pack: &PackReader, payload: &StreamReader) -> bool {
        let end = self.archive.trailer().payload_length;
        let mut start = 0;
        while start < end {
            let next = end.min(start.saturating_add(WINDOW));
            // What cannot be looked up here fails again, and is told, when the content is read.
            let Ok(slices) = payload.slices(start..next) else { return false };
            if slices.iter().any(|slice| pack.locate(&slice.slice.chunk).is_some()) {
                return false;
            }
            start = next;
        }
        true
    }
}

/// Refuses what begins unlike a file that an archive can be opened with: another kind of file, and a data file alone.
pub fn refuse_others(start: &[u8], place: &str) -> Result<()> {
    let magic = &encode_header(PackHolds::Both)[..MAGIC_LENGTH];
    if start.is_empty() {
        return Err(FormatError::truncated("this is no archive: there is not one byte")).in_place(place);
    }
    if !start.iter().zip(magic).all(|(found, expected)| found == expected) {
        return Err(Error::missing(place, "this is no archive: it does not begin like one", ""));
    }
    if decode_header(start).is_ok_and(|holds| holds == PackHolds::Payload) {
        let what = "this file holds the contents alone, and the metadata is needed";
        return Err(Error::missing(place, what, SIDE_BY_SIDE));
    }
    Ok(())
}

/// Opens what describes the tree of an archive; whether there are contents is of no concern.
pub fn open_metadata(argument: &Path) -> Result<Archive> {
    OpenArchive::open(argument).map(|open| open.archive)
}

/// Standard input, if it is a file: only then can it be read at any place.
pub fn standard_input() -> Result<File> {
    let file = duplicate_standard_input()?;
    let is_file = file.metadata().is_ok_and(|metadata| metadata.is_file());
    if !is_file {
        let what = "standard input is no file, and an archive is read from its end: use `diptych extract - TARGET`, \
            which keeps it on disk, or store it in a file first";
        return Err(Error::Usage(what.to_owned()));
    }
    Ok(file)
}

/// Standard input as a file of its own.
pub fn duplicate_standard_input() -> Result<File> {
    let fd = std::io::stdin().as_fd().try_clone_to_owned();
    fd.map(File::from).map_err(|error| Error::io("standard input", "cannot be read", error))
}

fn not_opened(argument: &Path, path: &ArchivePath, cause: FormatError) -> Error {
    if argument.is_dir() {
        let advice = "`diptych hash` and `diptych diff` take directories as well; `diptych create` makes an archive of one.";
        let what = "this is a directory, and an archive is wanted";
        return Error::missing(argument.display().to_string(), what, advice);
    }
    if cause.class == Class::Missing {
        let metadata = path.metadata_file();
        let what = match path.data_file().exists() {
            true => format!("there is no {}, without which the contents cannot be read", metadata.display()),
            false => format!("there is no archive: neither {} nor a file of that name", metadata.display()),
        };
        return Error::missing(argument.display().to_string(), &what, "");
    }
    Error::Failed { place: argument.display().to_string(), cause, advice: String::new() }
}
