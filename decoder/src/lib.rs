//! The two streams of an archive, read back: at random, in order, verified, compared.
//!
//! [`Archive`] opens a metadata stream and hands out entries; it reads a table only when something in it is asked
//! for, checks it whole and against the digest in the row that led to it, and then hands out rows. It knows no
//! file: whatever gives [`diptych_format::ReadAt`] will do. Reading order: [`archive`], [`found`] and [`row`] (what
//! is handed out), [`walk`](Visitor), [`links`], [`table`], [`content`], then [`verify`](fn@verify) and [`diff`](fn@diff);
//! beneath them `source` reads tables and `pieces` goes through those of one directory.
//!
//! No archive, however hostile, makes a reader loop or grow without bound: references lead strictly back, levels of
//! index tables descend, the depth of directories is bounded, and what is walked stands in the stream in the order
//! of the walk, so that nothing is walked twice.
//!
//! Spec: archive.md sections 4 to 9 and 14.

#![forbid(unsafe_code)]

pub mod archive;
pub mod content;
pub mod diff;
mod finder;
pub mod found;
pub mod links;
mod pieces;
pub mod row;
mod source;
pub mod table;
pub mod verify;
mod walk;

pub use archive::{Archive, ChildPieces};
pub use content::{ContentMap, Part};
pub use diff::{Aspect, Change, Difference, DifferenceSink, diff, diff_below};
pub use found::Found;
pub use links::{Link, LinkPart, LinkVisitor, Links};
pub use row::Row;
pub use table::{Read, Table, TableRef};
pub use verify::{VerifyEvent, VerifyReport, VerifyStats, verify, verify_content};
pub use walk::{Descend, Visitor};

pub use diptych_format::table::Owners;
