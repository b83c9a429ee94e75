//! A backend that fails once, where a test wants it to.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Class, Error, Result};
use crate::name::{FileKind, FileName};
use crate::{Backend, Listed, NewFile};

/// Something that a backend is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// [`Backend::make_layout`] and [`Backend::mend_layout`].
    MakeLayout,
    /// [`Backend::create`].
    Create,
    /// Writing to a [`NewFile`].
    Write,
    /// [`NewFile::keep`].
    Keep,
    /// [`Backend::read_at`].
    Read,
    /// [`Backend::length`].
    Length,
    /// [`Backend::list`] and [`Backend::strangers`].
    List,
    /// [`Backend::delete`].
    Delete,
    /// [`Backend::remove_leftovers`].
    RemoveLeftovers,
}

/// A backend around another, one operation of which fails; nothing is done then.
pub struct Faulty {
    inner: Arc<dyn Backend>,
    fault: Arc<Fault>,
}

struct Fault {
    operation: Option<Operation>,
    before: AtomicU64,
    class: Class,
}

impl Faulty {
    /// Fails with `class` when it has been asked `before` times to do `operation`, or anything if none is named.
    pub fn new(inner: Arc<dyn Backend>, operation: Option<Operation>, before: u64, class: Class) -> Self {
        Self { inner, fault: Arc::new(Fault { operation, before: AtomicU64::new(before), class }) }
    }

    /// Tells whether it has failed, also when somebody else has it.
    pub fn watch(&self) -> Watch {
        Watch(self.fault.clone())
    }

    fn ask(&self, operation: Operation) -> Result<&dyn Backend> {
        self.fault.strike(operation).map_err(|error| self.fault.error(&self.inner.location(), error))?;
        Ok(&*self.inner)
    }
}

/// Tells whether a [`Faulty`] has failed.
pub struct Watch(Arc<Fault>);

impl Watch {
    /// Whether it has.
    pub fn has_struck(&self) -> bool {
        // Below zero it goes round.
        self.0.before.load(Ordering::Relaxed) > u64::MAX / 2
    }
}

impl Fault {
    fn strike(&self, operation: Operation) -> io::Result<()> {
        if self.operation.is_some_and(|chosen| chosen != operation) {
            return Ok(());
        }
        // Past zero it has a long way to go.
        match self.before.fetch_sub(1, Ordering::Relaxed) {
            0 => Err(io::Error::new(self.class.kind(), format!("{operation:?} is made to fail"))),
            _ => Ok(()),
        }
    }

    fn error(&self, location: &str, source: io::Error) -> Error {
        Error::io(format!("{location}: a fault is tried"), source)
    }
}

impl Backend for Faulty {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn make_layout(&self) -> Result<()> {
        self.ask(Operation::MakeLayout)?.make_layout()
    }

    fn mend_layout(&self) -> Result<()> {
        self.ask(Operation::MakeLayout)?.mend_layout()
    }

    fn create(&self, kind: FileKind) -> Result<Box<dyn NewFile>> {
        let inner = self.ask(Operation::Create)?.create(kind)?;
        Ok(Box::new(FaultyFile { inner, location: self.location(), fault: self.fault.clone() }))
    }

    fn read_at(&self, file: &FileName, buf: &mut [u8], offset: u64) -> Result<()> {
        self.ask(Operation::Read)?.read_at(file, buf, offset)
    }

    fn length(&self, file: &FileName) -> Result<u64> {
        self.ask(Operation::Length)?.length(file)
    }

    fn list(&self, kind: FileKind) -> Result<Vec<Listed>> {
        self.ask(Operation::List)?.list(kind)
    }

    fn strangers(&self, kind: FileKind) -> Result<Vec<String>> {
        self.ask(Operation::List)?.strangers(kind)
    }

    fn delete(&self, file: &FileName) -> Result<()> {
        self.ask(Operation::Delete)?.delete(file)
    }

    fn remove_leftovers(&self) -> Result<u64> {
        self.ask(Operation::RemoveLeftovers)?.remove_leftovers()
    }
}

struct FaultyFile {
    inner: Box<dyn NewFile>,
    location: String,
    fault: Arc<Fault>,
}

impl Write for FaultyFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.fault.strike(Operation::Write)?;
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl NewFile for FaultyFile {
    fn read_back(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.inner.read_back(buf, offset)
    }

    fn keep(self: Box<Self>, name: &FileName) -> Result<()> {
        self.fault.strike(Operation::Keep).map_err(|error| self.fault.error(&self.location, error))?;
        self.inner.keep(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Memory;

    /// A small run, in the order of [`OPERATIONS`].
    fn run(backend: &dyn Backend) -> Result<()> {
        let name = FileName::new(FileKind::Data, [1; 32]);
        backend.make_layout()?;
        let mut file = backend.create(FileKind::Data)?;
        file.write_all(b"1").map_err(|error| Error::io("here", error))?;
        file.keep(&name)?;
        backend.read_at(&name, &mut [0], 0)?;
        backend.length(&name)?;
        backend.list(FileKind::Data)?;
        backend.delete(&name)?;
        backend.remove_leftovers().map(drop)
    }

    const OPERATIONS: [Operation; 9] = [
        Operation::MakeLayout,
        Operation::Create,
        Operation::Write,
        Operation::Keep,
        Operation::Read,
        Operation::Length,
        Operation::List,
        Operation::Delete,
        Operation::RemoveLeftovers,
    ];

    #[test]
    fn each_operation_fails_once_and_as_chosen() {
        for (before, operation) in OPERATIONS.into_iter().enumerate() {
            let any = Faulty::new(Arc::new(Memory::new()), None, before as u64, Class::Full);
            let chosen = Faulty::new(Arc::new(Memory::new()), Some(operation), 0, Class::Full);
            for faulty in [any, chosen] {
                let error = run(&faulty).unwrap_err();
                assert_eq!(error.class, Class::Full);
                assert!(error.to_string().contains(&format!("{operation:?} is made to fail")), "{error}");
                // Nothing is in the way of another try but what the first one did.
                let _ = faulty.delete(&FileName::new(FileKind::Data, [1; 32]));
                run(&faulty).unwrap();
            }
        }
    }

    #[test]
    fn a_file_that_could_not_be_kept_is_gone() {
        let memory = Memory::new();
        memory.make_layout().unwrap();
        let faulty = Faulty::new(Arc::new(memory.clone()), Some(Operation::Keep), 1, Class::Io);
        let keep =
            |byte| faulty.create(FileKind::Key).unwrap().keep(&FileName::new(FileKind::Key, [byte; 32]));
        keep(1).unwrap();
        assert_eq!(keep(2).unwrap_err().class, Class::Io);
        keep(3).unwrap();
        assert_eq!(memory.list(FileKind::Key).unwrap().len(), 2);
    }
}
