//! A directory tree on this machine, read as entries and written from them.
//!
//! [`scan`] reads the tree in the one order that an archive has, [`select`] says what is left out, [`capture`]
//! turns what the scan found into an entry and reads its content, and [`extract`] writes entries as a tree that
//! cannot be led out of its target. Nothing here knows how an archive is laid out.
//!
//! Everything is done relative to open directories, one name at a time. Where there are too many to keep them open, they
//! are opened again beneath the root, step by step and following no link. So depth has no limit but the format's own,
//! and a directory that is swapped for a symbolic link leads nowhere.

mod ahead;
mod attributes;
pub mod capture;
mod content;
pub mod extract;
mod facts;
mod handle;
mod listing;
mod names;
mod place;
pub mod scan;
pub mod select;
mod syscalls;
pub mod trust;
