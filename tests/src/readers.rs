//! Every reader of bytes that there is, each giving what it handed out and what it found wrong: in order, at random,
//! whole verification, and the independent one in Python.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use diptych_decoder::{Archive, Descend, Found, Row, VerifyEvent, Visitor};
use diptych_format::manifest::ArchiveManifest;
use diptych_format::map::Segment;
use diptych_format::pack::ChunkKind;
use diptych_format::{Error, Holds, Kind, ReadAt, Result, Stream};
use diptych_repository::stream::CacheBudget;
use diptych_repository::{ArchiveFiles, Decompressor, PackReader, StreamReader, Verify};
use serde_json::Value;

use crate::tree::join;
use crate::vectors::Input;
use crate::vectors::rows::line;

/// What readers of one input saw.
#[derive(Default)]
pub struct Seen {
    /// Lines that the walk handed out.
    pub walked: Vec<Vec<u8>>,
    /// What ended the walk.
    pub walk_error: Option<Error>,
    /// Lines that were found at random.
    pub found: BTreeSet<Vec<u8>>,
    /// What the random reader met.
    pub found_errors: Vec<Error>,
    /// What whole verification found wrong, in the order in which it came.
    pub faults: Vec<Error>,
    /// The tree id that the trailer tells.
    pub tree_id: Option<diptych_format::Digest>,
}

/// Reads `bytes` in every way that fits what they are.
pub fn read(input: Input, bytes: Vec<u8>) -> Seen {
    let mut seen = Seen::default();
    let result = match input {
        Input::MetadataStream => {
            Archive::open(Arc::new(bytes)).and_then(|open| read_tree(&open, None, &mut seen))
        }
        Input::Pack => read_pack(Arc::new(bytes)),
        Input::Segment => Segment::parse(&bytes).map(drop),
        Input::Manifest => ArchiveManifest::decode(&bytes).map(drop),
        Input::Archive => read_archive(Arc::new(bytes), None, &mut seen),
    };
    if let Err(error) = result {
        seen.faults.insert(0, error);
    }
    seen
}

/// Reads an archive of one file or two.
pub fn read_archive(meta: Arc<dyn ReadAt>, data: Option<Arc<dyn ReadAt>>, seen: &mut Seen) -> Result<()> {
    let files = ArchiveFiles::open(meta, data, CacheBudget::of(64 << 20))?;
    let archive = Archive::open(files.metadata.clone())?;
    compare_manifest(&files, &archive)?;
    files.metadata.slices(0..files.metadata.len())?;
    read_tree(&archive, Some(&files.payload), seen)?;
    files.payload.slices(0..files.payload.len())?;
    read_chunks(files.metadata_pack())?;
    files.data_pack()?.map_or(Ok(()), read_chunks)
}

/// Spec: A-12-4.
fn compare_manifest(files: &ArchiveFiles, archive: &Archive) -> Result<()> {
    let (manifest, trailer) = (&files.manifest, archive.trailer());
    let told = (manifest.tree_id, manifest.complete, manifest.entries, manifest.payload.length);
    if told == (trailer.tree_id, trailer.is_complete(), trailer.entries, trailer.payload_length) {
        return Ok(());
    }
    let place = files.metadata_pack().chunks().last().map_or(0, |chunk| chunk.offset);
    Err(Error::corrupt("manifest and trailer differ").at(Stream::Pack, place))
}

fn read_pack(pack: Arc<dyn ReadAt>) -> Result<()> {
    read_chunks(&PackReader::open_archive(pack)?)
}

fn read_chunks(pack: &PackReader) -> Result<()> {
    let mut decompressor = Decompressor::default();
    pack.chunks().iter().try_for_each(|chunk| {
        let bytes = pack.read_stored(chunk, Verify::Id, &mut decompressor)?;
        match chunk.header.kind {
            ChunkKind::Segment => Segment::parse(&bytes).map(drop),
            ChunkKind::Manifest => ArchiveManifest::decode(&bytes).map(drop),
            _ => Ok(()),
        }
    })
}

/// Walks, looks everything up, verifies.
pub fn read_tree(archive: &Archive, payload: Option<&Arc<StreamReader>>, seen: &mut Seen) -> Result<()> {
    seen.tree_id = Some(archive.trailer().tree_id);
    let mut walker = Walker(Vec::new());
    let walk = archive.root().and_then(|root| archive.walk(&root, b"", &mut walker));
    (seen.walked, seen.walk_error) = (walker.0, walk.err());
    look_up(archive, seen);
    let payload = payload.map(|payload| &**payload as &dyn ReadAt);
    let faults = &mut seen.faults;
    diptych_decoder::verify(archive, payload, &mut |event| {
        if let VerifyEvent::Damaged { error, .. } = event {
            faults.push(error);
        }
        Ok(())
    })?;
    Ok(())
}

/// Takes the whole entry of each row, as an extraction does.
struct Walker(Vec<Vec<u8>>);

impl Walker {
    fn row(&mut self, path: &[u8], row: &Row<'_>) -> Result<()> {
        let entry = row.to_entry()?;
        assert_eq!(entry.name.as_bytes(), row.name());
        self.0.push(line(path, row.kind().word(), row.size(), &row.digest()));
        Ok(())
    }
}

impl Visitor for Walker {
    fn enter(&mut self, path: &[u8], row: &Row<'_>) -> Result<Descend> {
        self.row(path, row).map(|()| Descend::Enter)
    }

    fn entry(&mut self, path: &[u8], row: &Row<'_>) -> Result<()> {
        self.row(path, row)
    }
}

fn line_of(path: &[u8], found: &Found) -> Vec<u8> {
    let (size, digest) = match found.entry.holds {
        Holds::Content { size, digest } => (size, digest),
        Holds::Entries { digest } => (0, digest),
        _ => (0, diptych_format::Digest::NONE),
    };
    line(path, found.entry.kind().map_or("none", Kind::word), size, &digest)
}

/// Lists each directory by itself, and looks up the path of all that is found.
fn look_up(archive: &Archive, seen: &mut Seen) {
    let mut open = match archive.lookup(b"") {
        Ok(root) => vec![(Vec::new(), root.expect("the root is there"))],
        Err(error) => return seen.found_errors.push(error),
    };
    seen.found.extend(open.iter().map(|(path, root)| line_of(path, root)));
    // Deep trees are looked up from the root but once in a while: each time costs the whole path.
    let mut rest = 0usize;
    while let Some((path, directory)) = open.pop() {
        let children = match archive.children(&directory) {
            Ok(children) => children,
            Err(error) => {
                seen.found_errors.push(error);
                continue;
            }
        };
        for child in children {
            let path = join(&path, child.entry.name.as_bytes());
            rest += 1;
            let is_too_long = path.len() > diptych_format::limits::PATH_LENGTH_MAX;
            if !is_too_long && (rest < 200 || rest.is_multiple_of(97)) {
                match archive.lookup(&path) {
                    Ok(found) => {
                        let found =
                            found.unwrap_or_else(|| panic!("{} is lost", String::from_utf8_lossy(&path)));
                        assert_eq!(line_of(&path, &found), line_of(&path, &child));
                        assert_eq!((found.payload_start, &found.entry), (child.payload_start, &child.entry));
                    }
                    Err(error) => seen.found_errors.push(error),
                }
            }
            seen.found.insert(line_of(&path, &child));
            if child.is_directory() {
                open.push((path, child));
            }
        }
    }
}

/// What the reader in Python says of files: `kind` is what they are, for its driver.
pub fn python(files: &[(&str, PathBuf)]) -> Vec<Value> {
    let mut python = crate::tools::python();
    python.arg(crate::root().join("tests/tests/all/vectors.py")).arg(crate::root().join("spec/reference"));
    let mut child = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let line = |(kind, path): &(&str, PathBuf)| format!("{kind}\t{}\n", path.display());
    let list: String = files.iter().map(line).collect();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(list.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{python:?}");
    let answers: Vec<Value> = output
        .stdout
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    assert_eq!(answers.len(), files.len(), "{python:?}");
    answers
}

/// Where the vectors are.
pub fn vectors_folder() -> PathBuf {
    crate::root().join(Path::new("spec/vectors"))
}
