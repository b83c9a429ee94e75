//! A file of this machine as bytes that can be read at any offset.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::Path;

use diptych_format::read_at::beyond_the_end;
use diptych_format::{Error, ReadAt, Result};

/// An open file, as long as it was when it was opened.
#[derive(Debug)]
pub struct FileReadAt {
    file: File,
    length: u64,
}

impl FileReadAt {
    /// Takes an open file.
    pub fn new(file: File) -> Result<Self> {
        let metadata = file.metadata().map_err(|error| Error::io("cannot read a file's length", error))?;
        Ok(Self { file, length: metadata.len() })
    }

    /// Opens a file.
    pub fn open(path: &Path) -> Result<Self> {
        let named = |error| match error {
            error if std::io::Error::kind(&error) == ErrorKind::NotFound => {
                Error::missing(format!("there is no file {}", path.display()))
            }
            error => Error::io(format!("cannot open {}", path.display()), error),
        };
        Self::new(File::open(path).map_err(named)?)
    }
}

impl ReadAt for FileReadAt {
    fn len(&self) -> u64 {
        self.length
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let fits = offset.checked_add(buf.len() as u64).is_some_and(|end| end <= self.length);
        if !fits {
            return Err(beyond_the_end(buf.len(), offset, self.length));
        }
        self.file.read_exact_at(buf, offset).map_err(|error| match error.kind() {
            // The file has become shorter since it was opened.
            ErrorKind::UnexpectedEof => beyond_the_end(buf.len(), offset, self.length),
            _ => Error::io(format!("cannot read {} bytes at {offset}", buf.len()), error),
        })
    }
}
