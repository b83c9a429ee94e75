//! A decoded archive as a read-only file system.
//!
//! Reading order: [`files`] says what a file system has to answer, [`tree`] answers it from an archive, [`forest`]
//! from many, and [`fuse`] hands the kernel's questions over. Nothing but [`fuse`] knows of FUSE, and nothing at all knows of chunks: the
//! contents come from whatever gives [`diptych_format::ReadAt`].
//!
//! Nothing in an archive ever changes, so the kernel may keep whatever it was told: names that are there and names that
//! are not, attributes, link targets, lists and pages.

#![forbid(unsafe_code)]

mod ahead;
pub mod files;
mod foresight;
pub mod forest;
pub mod fuse;
mod memory;
pub mod tree;

pub use files::{Attributes, Files, Ino, Listed, Seek, Totals};
pub use forest::{Forest, Plant, Source};
pub use fuse::{Log, MountOptions, Mounted, mount};
pub use memory::Memory;
pub use tree::Tree;
