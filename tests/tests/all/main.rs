//! What no single crate can show, in one binary: one link, and one place to look.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod spec;
mod support;
mod tidy;
mod vectors;
