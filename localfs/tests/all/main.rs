//! Tests of scans, captures and extractions on real trees.

mod capture;
mod hostile;
mod round_trip;
mod scan;
mod select;
mod support;
