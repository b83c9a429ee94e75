//! Opening an archive: the one place where files, chunks and the two streams are joined.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use diptych_decoder::Archive;
use diptych_format::{Class, Error as FormatError, ReadAt};
use diptych_repository::{ArchiveFiles, FileReadAt, StreamReader};

use crate::archive_path::ArchivePath;
use crate::error::{Error, InPlace, Result};

/// Memory for decoded chunks.
pub const CACHE_BYTES: usize = 96 << 20;

/// An open archive.
pub struct OpenArchive {
    /// What describes the tree.
    pub archive: Archive,
    /// The files.
    pub files: ArchiveFiles,
    /// Why there are no contents, if there are none.
    data: Result<(), String>,
}

impl OpenArchive {
    /// Opens what an ARCHIVE argument names. A data file that is not there is missed when a content is asked for.
    pub fn open(argument: &Path) -> Result<Self> {
        let path = ArchivePath::find(argument);
        if path == ArchivePath::Standard {
            return Self::open_file(standard_input()?, "standard input");
        }
        let metadata_file = path.metadata_file();
        let metadata =
            FileReadAt::open(&metadata_file).map_err(|cause| not_opened(argument, &path, cause))?;
        if let ArchivePath::Single(_) = path {
            return Self::join(Arc::new(metadata), None, Ok(()), &metadata_file.display().to_string());
        }
        let data_file = path.data_file();
        let (data, state): (Option<Arc<dyn ReadAt>>, _) = match FileReadAt::open(&data_file) {
            Ok(data) => (Some(Arc::new(data)), Ok(())),
            Err(error) => (None, Err(error.what)),
        };
        Self::join(Arc::new(metadata), data, state, &metadata_file.display().to_string())
    }

    /// Opens one file that holds both streams; `place` is what messages call it.
    pub fn open_file(file: File, place: &str) -> Result<Self> {
        let file = FileReadAt::new(file).in_place(place)?;
        Self::join(Arc::new(file), None, Ok(()), place)
    }

    fn join(
        metadata: Arc<dyn ReadAt>,
        data: Option<Arc<dyn ReadAt>>,
        state: Result<(), String>,
        place: &str,
    ) -> Result<Self> {
        let files = ArchiveFiles::open(metadata, data, CACHE_BYTES).in_place(place)?;
        let archive = Archive::open(files.metadata.clone()).in_place(place)?;
        Ok(Self { archive, files, data: state })
    }

    /// The payload stream; an error if the file that holds it is not there.
    pub fn payload(&self) -> Result<Arc<StreamReader>> {
        match &self.data {
            // An archive without any payload lacks nothing.
            Err(_) if self.archive.trailer().payload_length == 0 => Ok(self.files.payload.clone()),
            Err(why) => Err(Error::missing(
                "",
                &format!("contents cannot be read: {why}"),
                "Put both files side by side.",
            )),
            Ok(()) => {
                // Whatever is wrong with the file as a whole is said once, here, and not for every content.
                if self.archive.trailer().payload_length > 0 {
                    self.files.data_pack()?;
                }
                Ok(self.files.payload.clone())
            }
        }
    }
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
        let what = "standard input is a pipe, and an archive is read from its end: use `diptych extract - TARGET`, \
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
