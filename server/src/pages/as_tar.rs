//! A directory as tar: hard links are links, times have their fractions, and extended attributes stand in the records that
//! GNU tar, star and bsdtar read. ACLs do so as well, as the attributes that they are to the kernel, which these programs do not
//! set by that name. Holes are zeros, and sockets are left out: tar has nothing for them.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use diptych_decoder::{Archive, Descend, LinkPart, Links, Row, Visitor};
use diptych_format::{Digest, Error, Kind, Time};
use diptych_repository::StreamReader;

use super::content::Content;

/// Writes a tar.
pub(super) struct AsTar<'o> {
    builder: tar::Builder<&'o mut dyn Write>,
    payload: Arc<StreamReader>,
    names: Names,
}

/// Which names are of one inode.
struct Names {
    /// None if no inode has several.
    links: Option<Links>,
    /// The part of the link table that was looked in last.
    part: Option<LinkPart>,
    /// The path of the directory in the archive, and its length in the tar.
    base: Vec<u8>,
    name_length: usize,
    /// What was written of inodes with several names, by the first of these.
    written: HashMap<Digest, Written>,
}

/// A file that was written.
struct Written {
    path: Vec<u8>,
    size: u64,
    digest: Digest,
}

impl Names {
    /// The first name of the row's inode, if it has several.
    fn group(&mut self, path: &[u8]) -> Result<Option<Digest>, Error> {
        let Some(links) = &self.links else { return Ok(None) };
        let below = path.get(self.name_length..).unwrap_or_default();
        let in_archive = match self.base.is_empty() {
            true => below.strip_prefix(b"/").unwrap_or(below).to_vec(),
            false => [&self.base, below].concat(),
        };
        if !self.part.as_ref().is_some_and(|part| part.covers(&in_archive)) {
            self.part = links.part_for(&in_archive)?;
        }
        let found = self.part.as_ref().map_or(Ok(None), |part| part.find(&in_archive))?;
        Ok(found.map(|link| Digest::of(link.first.as_deref().unwrap_or(&in_archive))))
    }
}

impl<'o> AsTar<'o> {
    /// Of the directory at `base`, which is called `name` in it.
    pub(super) fn new(
        out: &'o mut dyn Write,
        archive: &Archive,
        payload: Arc<StreamReader>,
        base: Vec<u8>,
        name: &[u8],
    ) -> Result<Self, Error> {
        let links = archive.links();
        let links = if links.is_empty()? { None } else { Some(links) };
        let (part, written) = (None, HashMap::new());
        let names = Names { links, part, base, name_length: name.len(), written };
        Ok(Self { builder: tar::Builder::new(out), payload, names })
    }

    /// Writes the end.
    pub(super) fn finish(self) -> io::Result<()> {
        self.builder.into_inner().map(drop)
    }

    /// What a header has no place for.
    fn records(&mut self, row: &Row<'_>) -> Result<(), Error> {
        let mut records: Vec<(String, Vec<u8>)> = Vec::new();
        let Time { seconds, nanoseconds } = row.mtime();
        if nanoseconds != 0 || seconds < 0 {
            records.push(("mtime".to_owned(), decimal(seconds, nanoseconds).into_bytes()));
        }
        if row.has_xattrs() {
            for xattr in row.to_entry()?.attributes.xattrs {
                // The format has names that are text, and so has Linux.
                if let Ok(name) = std::str::from_utf8(&xattr.name) {
                    records.push((format!("SCHILY.xattr.{name}"), xattr.value.to_vec()));
                }
            }
        }
        let records = records.iter().map(|(key, value)| (&**key, &**value));
        self.builder.append_pax_extensions(records).map_err(failed)
    }

    fn append(
        &mut self,
        path: &[u8],
        row: &Row<'_>,
        mut header: tar::Header,
        from: impl Read,
    ) -> Result<(), Error> {
        self.records(row)?;
        self.builder.append_data(&mut header, Path::new(OsStr::from_bytes(path)), from).map_err(failed)
    }

    fn append_link(
        &mut self,
        path: &[u8],
        row: &Row<'_>,
        mut header: tar::Header,
        target: &[u8],
    ) -> Result<(), Error> {
        self.records(row)?;
        let (path, target) = (Path::new(OsStr::from_bytes(path)), OsStr::from_bytes(target));
        // As it is: a target is not this server's to tidy up.
        let appended = match header.set_link_name_literal(target.as_bytes()) {
            Ok(()) => self.builder.append_data(&mut header, path, io::empty()),
            // It is too long for a header alone.
            Err(_) => self.builder.append_link(&mut header, path, target),
        };
        appended.map_err(failed)
    }
}

impl Visitor for AsTar<'_> {
    fn enter(&mut self, path: &[u8], row: &Row<'_>) -> Result<Descend, Error> {
        self.append(path, row, header(row, tar::EntryType::Directory), io::empty())?;
        Ok(Descend::Enter)
    }

    fn entry(&mut self, path: &[u8], row: &Row<'_>) -> Result<(), Error> {
        let kind = match row.kind() {
            Kind::File => tar::EntryType::Regular,
            Kind::Symlink => tar::EntryType::Symlink,
            Kind::Fifo => tar::EntryType::Fifo,
            Kind::CharDevice => tar::EntryType::Char,
            Kind::BlockDevice => tar::EntryType::Block,
            // tar has nothing for the rest.
            _ => return Ok(()),
        };
        if kind == tar::EntryType::Regular
            && let Some(group) = self.names.group(path)?
        {
            let (size, digest) = (row.size(), row.digest());
            match self.names.written.get(&group) {
                Some(first) if (first.size, first.digest) == (size, digest) => {
                    let target = first.path.clone();
                    return self.append_link(path, row, header(row, tar::EntryType::Link), &target);
                }
                // What the table says of it is not so: it is a file of its own.
                Some(_) => {}
                None => {
                    self.names.written.insert(group, Written { path: path.to_vec(), size, digest });
                }
            }
        }
        let mut header = header(row, kind);
        match kind {
            tar::EntryType::Regular => {
                let content = row.content()?;
                header.set_size(content.size);
                let from = Content::new(Arc::clone(&self.payload), content);
                return self.append(path, row, header, from);
            }
            tar::EntryType::Symlink => return self.append_link(path, row, header, row.target()),
            tar::EntryType::Char | tar::EntryType::Block => {
                let (major, minor) = row.device();
                let set = header.set_device_major(major).and_then(|()| header.set_device_minor(minor));
                set.map_err(failed)?;
            }
            _ => {}
        }
        self.append(path, row, header, io::empty())
    }
}

fn header(row: &Row<'_>, kind: tar::EntryType) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(row.mode() & 0o7777);
    header.set_uid(row.uid().into());
    header.set_gid(row.gid().into());
    // What is before 1970 is told in a record.
    header.set_mtime(u64::try_from(row.mtime().seconds).unwrap_or_default());
    header.set_size(0);
    header
}

/// A time as a record has it. The fraction always counts forwards.
fn decimal(seconds: i64, nanoseconds: u32) -> String {
    match (seconds < 0, nanoseconds) {
        (_, 0) => seconds.to_string(),
        (false, _) => format!("{seconds}.{nanoseconds:09}"),
        (true, _) => format!("-{}.{:09}", (seconds + 1).unsigned_abs(), 1_000_000_000 - nanoseconds),
    }
}

fn failed(error: io::Error) -> Error {
    Error::io("the tar cannot be written", error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_numbers() {
        let told = [(5, 0), (5, 50_000_000), (-3, 0), (-1, 750_000_000), (-3, 1)];
        let told = told.map(|(seconds, nanoseconds)| decimal(seconds, nanoseconds));
        assert_eq!(told, ["5", "5.050000000", "-3", "-0.250000000", "-2.999999999"]);
    }
}
