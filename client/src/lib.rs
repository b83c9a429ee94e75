//! The jobs of Diptych as a library, and the command `diptych` on top of it.
//!
//! A job takes what it works on and a [`progress::Progress`] that it reports to; it never prints. This is the one place
//! where archive files, the two streams in them and a directory tree meet. Reading order: [`archive_path`] and
//! [`open`] (how an archive is found and opened), [`content`] (how a content is read and proved), then a job:
//! [`create`], [`extract`], [`restore`], [`list`], [`verify`], [`diff`], [`cat`], [`export`], [`hash`]. [`cli`] is the command.

mod allocator;
pub mod archive_path;
pub mod backup;
mod batch;
pub mod cat;
pub mod check;
pub mod cli;
mod commit;
pub mod content;
pub mod copy;
pub mod create;
pub mod diff;
pub mod error;
pub mod export;
pub mod extract;
pub mod find;
pub mod forget;
pub mod hash;
mod links;
pub mod list;
pub mod maps;
pub mod mode;
pub mod mount;
pub mod names;
pub mod open;
mod owners;
pub mod patterns;
mod pool;
pub mod progress;
pub mod remote;
pub mod restore;
pub mod reuse;
pub mod seen;
pub mod select;
pub mod size;
pub mod snapshots;
pub mod spool;
pub mod stats;
pub mod tag;
pub mod verify;

pub use error::{Error, Result};
