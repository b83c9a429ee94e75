//! Chunks into the packs of a repository and out of them again.
//!
//! [`StoreWriter`] makes packs of chunks that are compressed already, [`StoreReader`] finds them through the index,
//! [`rebuild_index`] makes the index anew from the packs.
//!
//! Spec: repository.md sections 7, 8 and 11.

mod keeper;
mod reader;
mod rebuild;
mod writer;

pub use reader::StoreReader;
pub use rebuild::{RebuiltIndex, rebuild_index};
pub use writer::{StoreStats, StoreWriter};
