//! Entries and contents in, the two streams of an archive out.
//!
//! Pure: values and bytes go in and come out in order; whoever owns threads and files calls it. [`tree`] writes
//! the metadata stream, table after table, in memory for the open path alone; [`payload`] decides for each content
//! which chunk it goes into, or that it is there already; [`cut`] says where chunks end.
//!
//! Nothing here knows of packs, of compression or of a file system, and nothing here reads an archive.

#![forbid(unsafe_code)]

pub mod cut;

mod metadata;
pub mod payload;
mod pieces;
pub mod tree;

pub use cut::Cuts;
pub use metadata::MetadataChunk;
pub use payload::{Payload, Place};
pub use tree::{Finished, LinkKey, TreeEncoder};
