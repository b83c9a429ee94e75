//! Chunks and packs: where the bytes of both streams are kept, and how they come back as streams.
//!
//! This crate knows no entry and no table: it keeps chunks under their ids and puts streams together from slices
//! of them. Reading order: [`chunk`] (bytes to stored bytes and back), [`pack`] (many chunks in one file),
//! [`cache`], [`stream`] (a map and chunks as [`diptych_format::ReadAt`]), [`archive`] (the files of one archive). Of
//! repositories: [`keys`], [`documents`].
//!
//! Spec: archive.md sections 10 to 12, repository.md.

#![forbid(unsafe_code)]

pub mod archive;
pub mod cache;
pub mod chunk;
pub mod counters;
pub mod documents;
pub mod file;
#[cfg(test)]
mod golden;
pub mod index;
pub mod keys;
pub mod pack;
mod place;
pub mod repository;
mod segments;
pub mod store;
pub mod stream;

pub use archive::ArchiveFiles;
pub use chunk::{ChunkBytes, Compression, Compressor, Decompressor, Verify};
pub use counters::Counters;
pub use file::FileReadAt;
pub use index::{Index, IndexFile, Location};
pub use keys::{ChunkKeys, DocumentKeys, MasterKey, Padding};
pub use pack::{ChunkPlace, ChunkSource, EachChunk, PackReader, PackWriter};
pub use place::{KeptFile, told};
pub use repository::Repository;
pub use store::{Shelf, StoreReader, StoreWriter};
pub use stream::{StreamReader, StreamSlice};
