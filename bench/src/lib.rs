//! Benchmarks of the stages; they stand in `benches/`, and `compare.sh` beside them times whole runs.
