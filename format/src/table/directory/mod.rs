//! Directory tables: the entries of a directory, or of one piece of it.
//!
//! Spec: archive.md section 7.1.

mod check;
mod encode;
mod sets;
mod view;

pub use encode::{DirectoryRow, encode_directory_table};
pub use view::DirectoryTable;
