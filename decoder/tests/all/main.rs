//! What the decoder promises, on streams that are built here from the format's own tables.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod build;
mod damage;
mod diffs;
mod hostile;
mod reading;
mod verifying;
