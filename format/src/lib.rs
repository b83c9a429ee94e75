//! Every byte of a Diptych archive, as values that validate themselves.
//!
//! This crate is pure: it does no I/O, reads no clock, starts no thread, holds no `unsafe`, and allocates
//! nothing from a length that it has not checked. Reading order: [`error`] and [`limits`], then [`entry`] (what
//! an archive is made of), [`section`] and [`table`] (how it lies in the metadata stream), [`stream`] (the two
//! ends of that stream), [`map`] (which chunks make up a stream), [`pack`] (how chunks lie in a file).
//!
//! Spec: archive.md.

#![forbid(unsafe_code)]

pub mod digest;
pub mod entry;
pub mod error;
pub mod limits;
pub mod manifest;
pub mod map;
pub mod monitor;
pub mod pack;
pub mod pack_index;
pub mod pieces;
pub mod read_at;
pub mod section;
pub mod stream;
pub mod table;

pub use digest::Digest;
pub use entry::{Attributes, Change, Entry, Holds, Hole, Kind, Name, Status, Time, Xattr};
pub use error::{Class, Error, Result, Stream};
pub use map::{SegmentRef, Slice};
pub use monitor::{Monitor, Problem};
pub use read_at::ReadAt;
