//! Tests of scans, captures and extractions on real trees.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod capture;
mod hostile;
mod round_trip;
mod scan;
mod select;
mod support;
