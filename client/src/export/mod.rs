//! `export`: an archive as a tar stream in the POSIX (pax) format, with all that tar can hold.
//!
//! Extended attributes stand in `SCHILY.xattr.*` records and ACLs in `SCHILY.acl.*` as well, holes as GNU's sparse
//! format 1.0: what GNU tar, star and bsdtar read. A content is written only when it was found right, as long as it
//! fits into memory; a long one is found right or wrong while it is written, and a wrong one ends the stream.

mod acl;
mod header;
mod output;

use std::collections::HashMap;
use std::io::Write;

use diptych_decoder::{Archive, ContentMap, Descend, Owners, Part, Row, Visitor};
use diptych_format::{
    Attributes, Class, Error as FormatError, Holds, Kind, Monitor, Result as FormatResult, Status,
};

use crate::content::ContentReader;
use crate::error::{Error, Result};
use crate::links::{LinkIndex, PathKey};
use crate::open::OpenArchive;
use crate::progress::Losses;
use crate::select::{PathSelection, Verdict};

use header::{BLOCK, Header, Records, kind, pad, write_headers};
use output::{Collected, Counted, cannot_write};

/// Contents up to this length are proved before they are written.
const PROVED_FIRST: u64 = 32 << 20;
/// A tar stream ends with at least two empty blocks, and is a multiple of this.
const RECORD: u64 = 20 * BLOCK as u64;
/// `chattr` flags that tar programs know, with their names there.
const FLAG_NAMES: [(u32, &str); 6] = [
    (0x10, "simmutable"),
    (0x20, "sappend"),
    (0x40, "nodump"),
    (0x80, "noatime"),
    (0x4000, "journal-data"),
    (0x1_0000, "dirsync"),
];

/// Writes what is selected of an archive as a tar stream.
pub fn export_tar(
    open: &OpenArchive,
    selection: &mut PathSelection,
    out: &mut dyn Write,
    losses: &Losses<'_>,
) -> Result<()> {
    let archive = &open.archive;
    selection.check(archive)?;
    let mut exporter = Exporter {
        owners: archive.owners()?,
        links: LinkIndex::load(archive)?,
        written: HashMap::new(),
        reader: ContentReader::digests_compared(open.payload()?),
        long_reader: ContentReader::new(open.payload()?),
        selection,
        selected_at: None,
        way: Vec::new(),
        out: Counted { out, count: 0 },
        buffer: Vec::new(),
        losses,
    };
    walk(archive, &mut exporter)?;
    exporter.finish()
}

fn walk(archive: &Archive, exporter: &mut Exporter<'_>) -> Result<()> {
    let root = archive.root()?;
    Ok(archive.walk(&root, b"", exporter)?)
}

struct Exporter<'a> {
    owners: Owners,
    links: LinkIndex,
    /// For each group of hard links the path under which it was written.
    written: HashMap<PathKey, (Vec<u8>, Holds)>,
    /// For contents that are proved before they are written.
    reader: ContentReader,
    /// For contents that are written as they are read: chunk by chunk, each proved.
    long_reader: ContentReader,
    selection: &'a mut PathSelection,
    selected_at: Option<usize>,
    /// Directories on the way to what is selected: written when something below them is.
    way: Vec<(Vec<u8>, Box<HeaderParts>)>,
    out: Counted<'a>,
    buffer: Vec<u8>,
    losses: &'a Losses<'a>,
}

/// A directory's header, kept until it is known that it is needed.
struct HeaderParts {
    attributes: Attributes,
    mtime: diptych_format::Time,
}

impl Visitor for Exporter<'_> {
    fn enter(&mut self, path: &[u8], row: &Row<'_>) -> FormatResult<Descend> {
        let verdict = match self.selected_at {
            Some(_) => Verdict::Selected,
            None => self.selection.verdict(path, true),
        };
        let entry = match verdict {
            Verdict::Passed => return Ok(Descend::Skip),
            Verdict::OnTheWay | Verdict::Selected => row.to_entry()?,
        };
        if verdict == Verdict::OnTheWay {
            let parts = HeaderParts { attributes: entry.attributes, mtime: entry.mtime };
            self.way.push((path.to_vec(), Box::new(parts)));
            return Ok(Descend::Enter);
        }
        self.write_way()?;
        self.selected_at.get_or_insert(path.len());
        self.note_status(path, row);
        self.write_directory(path, &entry.attributes, entry.mtime)?;
        Ok(Descend::Enter)
    }

    fn entry(&mut self, path: &[u8], row: &Row<'_>) -> FormatResult<()> {
        if self.selected_at.is_none() && self.selection.verdict(path, false) != Verdict::Selected {
            return Ok(());
        }
        self.write_way()?;
        self.write_entry(path, row)
    }

    fn leave(&mut self, path: &[u8], _: &Row<'_>) -> FormatResult<()> {
        if self.selected_at == Some(path.len()) {
            self.selected_at = None;
        }
        if self.way.last().is_some_and(|(last, _)| last == path) {
            self.way.pop();
        }
        Ok(())
    }

    fn damaged(&mut self, path: &[u8], error: FormatError) -> FormatResult<()> {
        self.losses.loss(path, format!("what is in it cannot be exported: {error}"));
        Ok(())
    }
}

impl Exporter<'_> {
    fn write_way(&mut self) -> FormatResult<()> {
        for (path, parts) in std::mem::take(&mut self.way) {
            self.write_directory(&path, &parts.attributes, parts.mtime)?;
        }
        Ok(())
    }

    fn write_directory(
        &mut self,
        path: &[u8],
        attributes: &Attributes,
        mtime: diptych_format::Time,
    ) -> FormatResult<()> {
        let name = [if path.is_empty() { b"." } else { path }, b"/"].concat();
        let records = self.records(path, attributes);
        let mut header = self.header(attributes);
        header.path = &name;
        header.kind = kind::DIRECTORY;
        header.mtime = mtime;
        let mut bytes = Vec::new();
        write_headers(&header, records, &mut bytes);
        self.out.write(&bytes)?;
        self.losses.entry(path, Kind::Directory);
        Ok(())
    }

    fn write_entry(&mut self, path: &[u8], row: &Row<'_>) -> FormatResult<()> {
        let entry = row.to_entry()?;
        let letter = match row.kind() {
            Kind::File => kind::FILE,
            Kind::Symlink => kind::SYMLINK,
            Kind::Fifo => kind::FIFO,
            Kind::BlockDevice => kind::BLOCK_DEVICE,
            Kind::CharDevice => kind::CHAR_DEVICE,
            Kind::Socket => {
                self.losses.loss(path, "tar cannot hold a socket: it is left out");
                return Ok(());
            }
            // Directories are entered, never met here.
            Kind::Directory => return Ok(()),
        };
        if row.status().has(Status::NOT_READ) {
            self.losses.loss(path, "its content was not read when the archive was made: it is left out");
            return Ok(());
        }
        self.note_status(path, row);
        let mut group = self.links.group_of(path);
        let first = group.and_then(|group| self.written.get(&group.first));
        if first.is_some_and(|(_, holds)| *holds != entry.holds) {
            let what = "the archive calls it another name of a file that holds something else: it is exported by itself";
            self.losses.loss(path, what);
            group = None;
        }
        if let Some((first, _)) = group.and_then(|group| self.written.get(&group.first)) {
            let header = Header {
                path,
                kind: kind::HARD_LINK,
                link: first,
                mtime: entry.mtime,
                ..self.header(&entry.attributes)
            };
            let mut bytes = Vec::new();
            write_headers(&header, Records::default(), &mut bytes);
            self.out.write(&bytes)?;
            self.losses.entry(path, row.kind());
            return Ok(());
        }
        let records = self.records(path, &entry.attributes);
        let mut header = self.header(&entry.attributes);
        (header.path, header.kind, header.mtime) = (path, letter, entry.mtime);
        header.link = row.target();
        header.device = row.device();
        let is_written = match row.kind() {
            Kind::File => {
                let content = row.content()?;
                let mut bytes = Vec::new();
                let size = file_headers(header, records, &content, &mut bytes);
                self.write_content(path, &bytes, size, &content)?
            }
            _ => {
                let mut bytes = Vec::new();
                write_headers(&header, records, &mut bytes);
                self.out.write(&bytes)?;
                true
            }
        };
        if is_written {
            if let Some(group) = group {
                self.written.insert(group.first, (path.to_vec(), entry.holds));
            }
            self.losses.entry(path, row.kind());
        }
        Ok(())
    }

    /// Writes headers and content, unless the content turns out wrong before; says whether it did.
    fn write_content(
        &mut self,
        path: &[u8],
        headers: &[u8],
        size: u64,
        content: &ContentMap,
    ) -> FormatResult<bool> {
        if content.payload_length() <= PROVED_FIRST {
            self.buffer.clear();
            self.buffer.extend_from_slice(headers);
            let read = self.reader.read(content, &mut Collected { bytes: &mut self.buffer });
            match read {
                Ok(digest) if digest == content.digest => {}
                Ok(_) => {
                    self.losses.loss(path, "its content has another digest than the archive says: left out");
                    return Ok(false);
                }
                Err(error) => {
                    self.losses.loss(path, format!("left out: {error}"));
                    return Ok(false);
                }
            }
            pad(&mut self.buffer);
            self.out.write(&self.buffer)?;
        } else {
            self.out.write(headers)?;
            let digest = self.long_reader.read(content, &mut self.out);
            let digest = digest.map_err(|error| match error.class {
                // A full disk, or a reader that has seen enough: nothing is wrong with the archive.
                Class::Io => error,
                _ => broken_off(path, &error.to_string()),
            })?;
            if digest != content.digest {
                return Err(broken_off(path, "it has another digest than the archive says"));
            }
            let rest = size.next_multiple_of(BLOCK as u64) - size;
            self.out.zeros(rest)?;
        }
        self.losses.bytes(content.size);
        Ok(true)
    }

    fn header<'h>(&'h self, attributes: &Attributes) -> Header<'h> {
        Header {
            mode: attributes.mode & 0o7777,
            uid: attributes.uid,
            gid: attributes.gid,
            user: self.owners.user(attributes.uid).unwrap_or_default(),
            group: self.owners.group(attributes.gid).unwrap_or_default(),
            ..Header::default()
        }
    }

    fn records(&self, path: &[u8], attributes: &Attributes) -> Records {
        let mut records = Records::default();
        for xattr in &attributes.xattrs {
            if xattr.name.contains(&b'=') {
                self.losses.loss(path, "tar cannot hold an extended attribute with = in its name");
                continue;
            }
            records.push(&[b"SCHILY.xattr.", &xattr.name[..]].concat(), &xattr.value);
            let record = acl::RECORDS.iter().find(|(name, _)| *name == &xattr.name[..]);
            if let (Some((_, key)), Some(text)) = (record, acl::to_text(&xattr.value)) {
                records.push(key, text.as_bytes());
            }
        }
        let known = FLAG_NAMES.iter().fold(0, |sum, (bit, _)| sum | bit);
        let names: Vec<&str> =
            FLAG_NAMES.iter().filter(|(bit, _)| attributes.flags & bit != 0).map(|(_, name)| *name).collect();
        if !names.is_empty() {
            records.push(b"SCHILY.fflags", names.join(",").as_bytes());
        }
        if attributes.flags & !known != 0 {
            self.losses
                .loss(path, format!("tar cannot hold its file flags {:#x}", attributes.flags & !known));
        }
        if attributes.project != 0 {
            self.losses.loss(path, "tar cannot hold its quota project");
        }
        records
    }

    fn note_status(&self, path: &[u8], row: &Row<'_>) {
        let status = row.status();
        if !status.is_complete() {
            let words: Vec<&str> = status.words().collect();
            self.losses.loss(path, format!("the archive has it not whole: {}", words.join(", ")));
        }
    }

    fn finish(mut self) -> Result<()> {
        self.selection.finish()?;
        self.out.zeros(2 * BLOCK as u64)?;
        let rest = self.out.count.next_multiple_of(RECORD) - self.out.count;
        self.out.zeros(rest)?;
        self.out.out.flush().map_err(cannot_write).map_err(Error::from)
    }
}

/// Appends the headers of a file, and the map of its data if it has holes; says how many bytes follow the headers.
fn file_headers(
    mut header: Header<'_>,
    mut records: Records,
    content: &ContentMap,
    out: &mut Vec<u8>,
) -> u64 {
    if !content.has_holes() {
        header.size = content.size;
        write_headers(&header, records, out);
        return header.size;
    }
    let mut data: Vec<(u64, u64)> = Vec::new();
    for part in &content.parts {
        if let Part::Data { content_offset, length, .. } = *part {
            data.push((content_offset, length));
        }
    }
    // A map that does not reach the end gets an entry of no length there.
    if data.last().is_none_or(|(offset, length)| offset + length < content.size) {
        data.push((content.size, 0));
    }
    let mut map = format!("{}\n", data.len()).into_bytes();
    for (offset, length) in data {
        map.extend_from_slice(format!("{offset}\n{length}\n").as_bytes());
    }
    pad(&mut map);
    records.push(b"GNU.sparse.major", b"1");
    records.push(b"GNU.sparse.minor", b"0");
    records.push_text(b"GNU.sparse.name", header.path);
    records.push(b"GNU.sparse.realsize", content.size.to_string().as_bytes());
    let plain_name = [b"GNUSparseFile.0/", header.path].concat();
    let size = content.payload_length().saturating_add(map.len() as u64);
    let path = plain_name.get(..plain_name.len().min(100)).unwrap_or_default();
    write_headers(&Header { path, size, ..header }, records, out);
    out.extend_from_slice(&map);
    size
}

fn broken_off(path: &[u8], why: &str) -> FormatError {
    FormatError::corrupt(format!(
        "the tar stream breaks off inside {}: {why}; export other paths by naming them",
        crate::names::show(path)
    ))
}
