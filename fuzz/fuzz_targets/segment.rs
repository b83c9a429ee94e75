//! Fuzz target: see `segment` in tests/src/fuzz_bodies.rs.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| diptych_tests::fuzz_bodies::segment(bytes));
