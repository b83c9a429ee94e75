//! Chunks into the packs of a repository and out of them again.
//!
//! [`StoreWriter`] makes packs of chunks that are compressed already, [`StoreReader`] finds them through the index,
//! [`rebuild_index`] makes the index anew from the packs, [`verify_pack`] reads a whole one.
//!
//! Spec: repository.md sections 7, 8 and 11.

mod keeper;
mod reader;
mod rebuild;
mod shelf;
mod verify;
mod writer;

pub use reader::StoreReader;
pub use rebuild::{RebuiltIndex, rebuild_index};
pub use shelf::Shelf;
pub use verify::verify_pack;
pub use writer::{StoreStats, StoreWriter};
