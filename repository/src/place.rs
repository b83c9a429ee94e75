//! Files of a repository where its backend keeps them: their bytes at any offset, the name that a new one gets, and a
//! backend's errors as ours.

use std::io::{self, Write};
use std::sync::Arc;

use diptych_backend::{Backend, FileKind, FileName, NewFile};
use diptych_format::{Class, Digest, Error, ReadAt, Result};

/// What a backend says, as an error of this crate: the same words, place and cause.
pub fn told(error: diptych_backend::Error) -> Error {
    use diptych_backend::Class as Told;
    let class = match error.class {
        Told::Missing => Class::Missing,
        Told::Truncated => Class::Truncated,
        Told::Unsupported => Class::Unsupported,
        Told::Exists | Told::Denied | Told::Full | Told::ReadOnly | Told::Io => Class::Io,
    };
    let words = error.to_string();
    let class_word = format!(" ({})", error.class.word());
    let what = words.strip_suffix(&class_word).unwrap_or(&words).to_owned();
    // The words have the cause in them. Its kind stays, by which a full disk is told from a broken one, and is not said
    // again.
    Error { class, place: None, what, source: Some(error.class.kind().into()) }
}

/// The same with a place before it, where the error came from writing to a file that has none.
pub(crate) fn told_at(backend: &dyn Backend, error: Error) -> Error {
    match error.source {
        Some(source) if error.class == Class::Io => {
            told(diptych_backend::Error::io(format!("{}: {}", backend.location(), error.what), source))
        }
        source => Error { source, ..error },
    }
}

/// A file that is there, as long as it was when it was opened.
pub struct KeptFile {
    backend: Arc<dyn Backend>,
    name: FileName,
    length: u64,
}

impl KeptFile {
    /// Asks for the file's length; *missing* where there is no such file.
    pub fn open(backend: Arc<dyn Backend>, name: FileName) -> Result<Self> {
        let length = backend.length(&name).map_err(told)?;
        Ok(Self { backend, name, length })
    }
}

impl ReadAt for KeptFile {
    fn len(&self) -> u64 {
        self.length
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.backend.read_at(&self.name, buf, offset).map_err(told)
    }
}

/// A file that is being written and learns its name from its bytes. Spec: R-2-1.
pub(crate) struct NamedFile {
    file: Box<dyn NewFile>,
    kind: FileKind,
    hasher: blake3::Hasher,
}

impl NamedFile {
    pub(crate) fn create(backend: &dyn Backend, kind: FileKind) -> Result<Self> {
        let file = backend.create(kind).map_err(told)?;
        Ok(Self { file, kind, hasher: blake3::Hasher::new() })
    }

    /// What its name will be.
    pub(crate) fn name(&self) -> Digest {
        Digest(*self.hasher.finalize().as_bytes())
    }

    /// Makes the file durable under its name. Spec: R-2-3.
    pub(crate) fn keep(self) -> Result<Digest> {
        let name = self.name();
        self.file.keep(&FileName::new(self.kind, name.0)).map_err(told)?;
        Ok(name)
    }
}

impl Write for NamedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
