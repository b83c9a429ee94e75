//! Who has sent which file. The repository itself says nothing of that.
//!
//! A file that nothing is recorded of was there before, or came by another way: whoever may read everything sees it, and
//! nobody else.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use diptych_backend::{FileKind, FileName};
use diptych_format::pack::PackHolds;
use diptych_repository::index::PackSum;
use redb::{Database, ReadableDatabase, TableDefinition};

/// By namespace, kind, name and token: [`Record`]s.
const FILES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("files");

/// What is known of a file that a token has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Milliseconds since 1970 by the server's clock.
    pub arrived: u64,
    /// Its length in bytes.
    pub length: u64,
    /// Of a pack: which chunks it may hold, and all in all where they are.
    pub pack: Option<(PackHolds, PackSum)>,
}

const RECORD_LENGTH: usize = 8 + 8 + 1 + PackSum::LENGTH;

impl Record {
    fn encode(&self) -> [u8; RECORD_LENGTH] {
        let mut bytes = [0; RECORD_LENGTH];
        bytes[..8].copy_from_slice(&self.arrived.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.length.to_le_bytes());
        if let Some((holds, sum)) = &self.pack {
            bytes[16] = match holds {
                PackHolds::Payload => 1,
                PackHolds::Metadata => 2,
                PackHolds::Both => 3,
            };
            bytes[17..].copy_from_slice(&sum.encode());
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (arrived, rest) = bytes.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (holds, sum) = rest.split_first()?;
        let sum = PackSum::decode(sum.first_chunk()?);
        let pack = match holds {
            1 => Some((PackHolds::Payload, sum)),
            2 => Some((PackHolds::Metadata, sum)),
            3 => Some((PackHolds::Both, sum)),
            _ => None,
        };
        Some(Self { arrived: u64::from_le_bytes(*arrived), length: u64::from_le_bytes(*length), pack })
    }
}

/// All records of a server.
pub struct Records {
    path: PathBuf,
    /// None while it cannot be opened, for want of room above all.
    database: RwLock<Option<Database>>,
    /// What each token takes.
    used: Mutex<HashMap<String, Use>>,
}

/// What a token takes, in bytes.
#[derive(Clone, Copy, Default)]
struct Use {
    /// Of files that it has sent and that are there.
    sent: u64,
    /// Of files that are arriving.
    arriving: u64,
}

impl Use {
    fn all(self) -> u64 {
        self.sent.saturating_add(self.arriving)
    }
}

impl Records {
    /// The records of the server whose state is in `directory`. Another server that uses the same is an error.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let path = directory.join("records.redb");
        let database = RwLock::new(Some(open(&path)?));
        let records = Self { path, database, used: Mutex::default() };
        records.write(|_| Ok(()))?;
        let mut used: HashMap<String, Use> = HashMap::new();
        records.each(&[], |_, token, record| used.entry(token).or_default().sent += record.length)?;
        *records.used() = used;
        Ok(records)
    }

    /// Records that a token has sent a file, for which `reserved` bytes were set aside until now.
    pub fn add(
        &self,
        namespace: &str,
        name: &FileName,
        token: &str,
        record: &Record,
        reserved: u64,
    ) -> io::Result<()> {
        let key = [&prefix(namespace, name.kind(), Some(name))[..], token.as_bytes()].concat();
        let mut is_new = false;
        self.write(|table| {
            is_new = table.insert(&key[..], &record.encode()[..])?.is_none();
            Ok(())
        })?;
        let mut used = self.used();
        let used = used.entry(token.to_owned()).or_default();
        used.arriving = used.arriving.saturating_sub(reserved);
        if is_new {
            used.sent += record.length;
        }
        Ok(())
    }

    /// Takes back that a token has sent a file, which is not there after all.
    pub fn take_back(
        &self,
        namespace: &str,
        name: &FileName,
        token: &str,
        record: &Record,
    ) -> io::Result<()> {
        let key = [&prefix(namespace, name.kind(), Some(name))[..], token.as_bytes()].concat();
        let mut was_there = false;
        self.write(|table| {
            was_there = table.remove(&key[..])?.is_some();
            Ok(())
        })?;
        if was_there {
            self.used()
                .entry(token.to_owned())
                .and_modify(|used| used.sent = used.sent.saturating_sub(record.length));
        }
        Ok(())
    }

    /// Sets so many bytes aside for a file of a token that is arriving, if `quota` has room for them; else says how much
    /// is left.
    pub fn reserve(&self, token: &str, bytes: u64, quota: u64) -> Result<(), u64> {
        let mut used = self.used();
        let used = used.entry(token.to_owned()).or_default();
        let left = quota.saturating_sub(used.all());
        if bytes > left {
            return Err(left);
        }
        used.arriving += bytes;
        Ok(())
    }

    /// They are not set aside any more.
    pub fn release(&self, token: &str, bytes: u64) {
        let reduce = |used: &mut Use| used.arriving = used.arriving.saturating_sub(bytes);
        self.used().entry(token.to_owned()).and_modify(reduce);
    }

    /// Forgets a file that is gone.
    pub fn remove(&self, namespace: &str, name: &FileName) -> io::Result<()> {
        let gone = self.of(namespace, name)?;
        let prefix = prefix(namespace, name.kind(), Some(name));
        self.write(|table| table.retain_in(&prefix[..]..&after(&prefix)[..], |_, _| false))?;
        let mut used = self.used();
        for (token, record) in gone {
            used.entry(token).and_modify(|used| used.sent = used.sent.saturating_sub(record.length));
        }
        Ok(())
    }

    /// Bytes of files that a token has sent and that are there.
    pub fn used_by(&self, token: &str) -> u64 {
        self.used().get(token).map_or(0, |used| used.sent)
    }

    fn used(&self) -> MutexGuard<'_, HashMap<String, Use>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tokens that have sent a file.
    pub fn of(&self, namespace: &str, name: &FileName) -> io::Result<Vec<(String, Record)>> {
        let mut found = Vec::new();
        self.each(&prefix(namespace, name.kind(), Some(name)), |_, token, record| {
            found.push((token, record))
        })?;
        Ok(found)
    }

    /// All files of a kind, with the tokens that have sent each.
    pub fn all(
        &self,
        namespace: &str,
        kind: FileKind,
    ) -> io::Result<HashMap<FileName, Vec<(String, Record)>>> {
        let mut found: HashMap<FileName, Vec<(String, Record)>> = HashMap::new();
        self.each(&prefix(namespace, kind, None), |digest, token, record| {
            found.entry(FileName::new(kind, digest)).or_default().push((token, record));
        })?;
        Ok(found)
    }

    fn each(&self, prefix: &[u8], mut each: impl FnMut([u8; 32], String, Record)) -> io::Result<()> {
        self.with(|database| {
            let table = database.begin_read()?.open_table(FILES)?;
            let end = after(prefix);
            let range = match prefix.is_empty() {
                true => table.range::<&[u8]>(..)?,
                false => table.range(prefix..&end[..])?,
            };
            for entry in range {
                let (key, value) = entry?;
                let key = key.value();
                let name_at = key.iter().position(|byte| *byte == 0).map_or(0, |end| end + 2);
                let parts = key.get(name_at..).and_then(|rest| rest.split_first_chunk());
                if let (Some((digest, token)), Some(record)) = (parts, Record::decode(value.value())) {
                    each(*digest, String::from_utf8_lossy(token).into_owned(), record);
                }
            }
            Ok(())
        })
    }

    fn write(
        &self,
        mut change: impl FnMut(&mut redb::Table<'_, &'static [u8], &'static [u8]>) -> redb::Result<()>,
    ) -> io::Result<()> {
        self.with(|database| {
            let transaction = database.begin_write()?;
            change(&mut transaction.open_table(FILES)?)?;
            Ok(transaction.commit()?)
        })
    }

    /// Works with the database. One that could not be written once, as when the disk was full, does nothing until it is
    /// opened again.
    fn with<T>(&self, mut work: impl FnMut(&Database) -> Result<T, redb::Error>) -> io::Result<T> {
        if let Some(database) = &*self.database.read().unwrap_or_else(PoisonError::into_inner) {
            match work(database) {
                Err(redb::Error::PreviousIo) => {}
                worked => return worked.map_err(io_error),
            }
        }
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        // Closed before it is opened, for it is locked against others.
        *database = None;
        let opened = database.insert(open(&self.path)?);
        work(opened).map_err(io_error)
    }
}

fn open(path: &Path) -> io::Result<Database> {
    Database::create(path).map_err(|error| match error {
        redb::DatabaseError::DatabaseAlreadyOpen => io::Error::new(
            io::ErrorKind::ResourceBusy,
            format!(
                "{}: another server uses this state; end it, or give this one another --state",
                path.display()
            ),
        ),
        error => {
            let error = io_error(error.into());
            io::Error::new(error.kind(), format!("{}: {error}", path.display()))
        }
    })
}

/// The operating system's error, where it is one.
fn io_error(error: redb::Error) -> io::Error {
    match error {
        redb::Error::Io(error) => error,
        error => io::Error::other(error),
    }
}

/// What the keys of a file, or of all files of a kind, begin with. Names of namespaces have no zero in them.
fn prefix(namespace: &str, kind: FileKind, name: Option<&FileName>) -> Vec<u8> {
    let place = FileKind::ALL.iter().position(|other| *other == kind).unwrap_or_default();
    let digest = name.map_or(&[][..], |name| &name.digest()[..]);
    [namespace.as_bytes(), &[0, u8::try_from(place).unwrap_or(u8::MAX)], digest].concat()
}

/// What comes after all that begin with `prefix`, which has a byte that is not the largest.
fn after(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.last_mut() {
        if *last < u8::MAX {
            *last += 1;
            break;
        }
        end.pop();
    }
    end
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn records_are_found_by_file_and_by_kind() {
        let directory = tempfile::tempdir().unwrap();
        let records = Records::open(directory.path()).unwrap();
        let busy = Records::open(directory.path()).err().unwrap();
        assert!(busy.to_string().contains("another server uses this state"), "{busy}");
        let names = [[0; 32], [0xff; 32]].map(|digest| FileName::new(FileKind::Data, digest));
        let plain = Record { arrived: 7, length: 9, pack: None };
        let pack = Record { pack: Some((PackHolds::Metadata, PackSum::default())), ..plain };
        records.add("main", &names[0], "a", &plain, 0).unwrap();
        records.add("main", &names[1], "a", &pack, 0).unwrap();
        records.add("main", &names[1], "b", &plain, 0).unwrap();
        records.add("main2", &names[0], "c", &plain, 0).unwrap();
        records.add("main", &FileName::new(FileKind::Index, [0; 32]), "d", &plain, 0).unwrap();
        assert_eq!(records.of("main", &names[0]).unwrap(), [("a".to_owned(), plain)]);
        assert_eq!(records.of("main", &names[1]).unwrap(), [("a".to_owned(), pack), ("b".to_owned(), plain)]);
        assert_eq!(records.all("main", FileKind::Data).unwrap().len(), 2);
        assert_eq!([records.used_by("a"), records.used_by("b"), records.used_by("x")], [18, 9, 0]);
        records.remove("main", &names[1]).unwrap();
        assert_eq!([records.used_by("a"), records.used_by("b")], [9, 0]);
        assert_eq!(records.reserve("a", 6, 14), Err(5));
        records.reserve("a", 5, 14).unwrap();
        assert_eq!(records.reserve("a", 1, 14), Err(0));
        records.release("a", 5);
        records.reserve("a", 4, 14).unwrap();
        records.take_back("main", &names[0], "a", &plain).unwrap();
        assert_eq!(records.used_by("a"), 0);
        records.add("main", &names[0], "a", &plain, 0).unwrap();
        drop(records);
        let records = Records::open(directory.path()).unwrap();
        assert_eq!([records.used_by("a"), records.used_by("d")], [9, 9]);
        assert!(records.of("main", &names[1]).unwrap().is_empty());
        assert_eq!(records.of("main", &names[0]).unwrap().len(), 1);
    }
}
