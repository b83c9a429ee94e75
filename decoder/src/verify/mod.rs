//! Verification: every rule that a reader can check, on every table and, if asked, every content.
//!
//! What is at fault is reported and verification goes on behind it, so that one pass tells all damage. The walk
//! sees that digests, names and sums agree; `order` that the tables fill the stream; `groups` that the link table
//! fits the tree; `content` compares contents.
//!
//! Spec: archive.md section 14.

mod content;
mod groups;
mod order;

pub use content::verify_content;

use diptych_format::error::{Error, Result, Stream};
use diptych_format::table::{Below, DirectoryTable, IndexTable, LinkTable};
use diptych_format::{Kind, ReadAt, Status};

use crate::archive::Archive;
use crate::content::ContentMap;
use crate::pieces::{Piece, Watch};
use crate::row::Row;
use crate::walk::{Descend, Visitor, Walk};

/// What verification comes by.
#[derive(Debug)]
pub enum VerifyEvent<'e> {
    /// An entry whose row was found right.
    Entry {
        /// Its path.
        path: &'e [u8],
        /// What it is.
        kind: Kind,
    },
    /// A content. It was found right if verification was given the contents; else it is for the caller to pass to
    /// [`verify_content`], on whatever thread.
    Content {
        /// Its path.
        path: &'e [u8],
        /// The content.
        content: ContentMap,
    },
    /// Something that is not as it should be.
    Damaged {
        /// The file, or the directory in which it was found; empty also for what is the whole archive's.
        path: &'e [u8],
        /// What is wrong.
        error: Error,
    },
}

/// Receives events; an error ends verification.
pub type VerifyReport<'r> = dyn FnMut(VerifyEvent<'_>) -> Result<()> + 'r;

/// What verification counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerifyStats {
    /// Entries whose rows were found right.
    pub entries: u64,
    /// Of these, those that were not captured whole.
    pub incomplete: u64,
    /// Tables read.
    pub tables: u64,
    /// Contents seen.
    pub contents: u64,
    /// Bytes of contents that were read and compared.
    pub content_bytes: u64,
    /// Faults reported.
    pub damaged: u64,
}

impl VerifyStats {
    /// Whether nothing is at fault.
    pub fn is_whole(&self) -> bool {
        self.damaged == 0
    }
}

/// Reads every table of the archive and, given the payload stream, every content. Faults go to `report` and are
/// counted; the result is an error only if `report` said so, or if the root table, which was read with the
/// archive, is beyond use.
pub fn verify(
    archive: &Archive,
    contents: Option<&dyn ReadAt>,
    report: &mut VerifyReport<'_>,
) -> Result<VerifyStats> {
    let Some(payload) = contents else { return verify_tables(archive, report) };
    let (mut scratch, mut damaged, mut content_bytes) = (Vec::new(), 0u64, 0u64);
    if payload.len() != archive.trailer().payload_length {
        damaged += 1;
        let what = "the payload stream has another length than the trailer says";
        let error = Error::corrupt(what).at(Stream::Payload, payload.len());
        report(VerifyEvent::Damaged { path: &[], error })?;
    }
    let mut stats = verify_tables(archive, &mut |event| {
        if let VerifyEvent::Content { path, content } = &event {
            if let Err(error) = verify_content(content, payload, &mut scratch) {
                damaged += 1;
                return report(VerifyEvent::Damaged { path, error });
            }
            content_bytes = content_bytes.saturating_add(content.payload_length());
        }
        report(event)
    })?;
    stats.damaged += damaged;
    stats.content_bytes = content_bytes;
    Ok(stats)
}

fn verify_tables(archive: &Archive, report: &mut VerifyReport<'_>) -> Result<VerifyStats> {
    let tables_before = archive.tables_read();
    let root = archive.bare_root()?;
    let mut verifier = Verifier { report, stats: VerifyStats::default(), order: order::Order::new(archive) };

    let (root_bytes, root_piece) = archive.root_table();
    verifier.order.directory(&root_piece, &DirectoryTable::view(root_bytes)?);
    Walk::new(archive, &[], &mut verifier).run(&root)?;
    verifier.order.passed(&root_piece);
    verifier.settle(&[])?;

    verifier.links(archive)?;
    verifier.owners(archive)?;
    verifier.order.end(archive.trailer_position());
    verifier.settle(&[])?;
    verifier.completeness(archive)?;
    verifier.stats.tables = archive.tables_read().saturating_sub(tables_before);
    Ok(verifier.stats)
}

struct Verifier<'v, 'r> {
    report: &'v mut VerifyReport<'r>,
    stats: VerifyStats,
    order: order::Order<'v>,
}

impl Verifier<'_, '_> {
    fn row(&mut self, path: &[u8], row: &Row<'_>) -> Result<()> {
        self.stats.entries += 1;
        self.stats.incomplete += u64::from(!row.status().is_complete());
        (self.report)(VerifyEvent::Entry { path, kind: row.kind() })
    }

    fn damage(&mut self, path: &[u8], error: Error) -> Result<()> {
        self.stats.damaged += 1;
        (self.report)(VerifyEvent::Damaged { path, error })
    }

    /// Spec: A-7.3-1 to A-7.3-3.
    fn links(&mut self, archive: &Archive) -> Result<()> {
        let mut groups = groups::Groups::new(archive, self.stats.damaged > 0);
        let (order, report, damaged) = (&mut self.order, &mut *self.report, &mut self.stats.damaged);
        let (mut faults, mut ended) = (Vec::new(), None);
        let result = archive.links().for_each_piece(order, &mut |table| {
            for row in 0..table.rows() {
                groups.row(table, row, &mut faults);
                for error in faults.drain(..) {
                    *damaged += 1;
                    if let Err(error) = report(VerifyEvent::Damaged { path: table.path(row), error }) {
                        ended = Some(error);
                        return Err(Error::corrupt("ended by the report"));
                    }
                }
            }
            Ok(())
        });
        if let Some(error) = ended {
            return Err(error);
        }
        self.settle(&[])?;
        match result {
            Ok(()) => groups.finish(&mut |path, error| self.damage(path, error)),
            Err(error) => {
                // What comes behind the fault cannot be placed, and its groups cannot be closed.
                self.order.lose();
                self.damage(&[], error)
            }
        }
    }

    /// Spec: A-7.4-1.
    fn owners(&mut self, archive: &Archive) -> Result<()> {
        let Some(reference) = archive.trailer().owners else { return Ok(()) };
        match reference.resolve(archive.trailer_position()) {
            Ok(position) => self.order.small(position, reference.length),
            Err(_) => self.order.lose(),
        }
        match archive.owners() {
            Ok(_) => Ok(()),
            Err(error) => self.damage(&[], error),
        }
    }

    /// Spec: A-8.3-4.
    fn completeness(&mut self, archive: &Archive) -> Result<()> {
        let (says, has) = (archive.trailer().is_incomplete, self.stats.incomplete > 0);
        // Where a table could not be read, a status may have been in it.
        if says == has || says && self.stats.damaged > 0 {
            return Ok(());
        }
        let what = match says {
            true => "the trailer says that some entry is incomplete, and none is",
            false => "some entry is incomplete, and the trailer does not say so",
        };
        self.damage(&[], Error::corrupt(what).at(Stream::Metadata, archive.trailer_position()))
    }
}

impl Visitor for Verifier<'_, '_> {
    fn enter(&mut self, path: &[u8], row: &Row<'_>) -> Result<Descend> {
        self.row(path, row)?;
        Ok(Descend::Enter)
    }

    fn entry(&mut self, path: &[u8], row: &Row<'_>) -> Result<()> {
        self.row(path, row)?;
        if row.kind() != Kind::File || row.status().has(Status::NOT_READ) {
            return Ok(());
        }
        self.stats.contents += 1;
        match row.content() {
            Ok(content) => (self.report)(VerifyEvent::Content { path, content }),
            Err(error) => self.damage(path, error),
        }
    }

    fn damaged(&mut self, path: &[u8], error: Error) -> Result<()> {
        self.damage(path, error)
    }
}

impl Watch for Verifier<'_, '_> {
    fn index(&mut self, piece: &Piece, table: &IndexTable<'_>) {
        self.order.index(piece, table);
    }

    fn directory(&mut self, piece: &Piece, table: &DirectoryTable<'_>) {
        self.order.directory(piece, table);
    }

    fn links(&mut self, piece: &Piece, table: &LinkTable<'_>) {
        self.order.links(piece, table);
    }

    fn passed(&mut self, piece: &Piece) {
        self.order.passed(piece);
    }

    fn skipped(&mut self, below: &Below) {
        self.order.skipped(below);
    }

    fn settle(&mut self, path: &[u8]) -> Result<()> {
        for error in self.order.take_faults() {
            self.damage(path, error)?;
        }
        Ok(())
    }
}
