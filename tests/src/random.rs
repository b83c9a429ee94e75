//! Randomness that can be had again: everything random in the tests comes from a seed, and a test that fails
//! names it.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

/// A generator of random numbers (SplitMix64).
pub struct Random(u64);

impl Random {
    /// The generator of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.any()) * u128::from(end)) >> 64) as u64
    }

    /// A number from `low` to `high`, both counted.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        let span = u128::from(high.abs_diff(low)) + 1;
        let offset = (u128::from(self.any()) * span) >> 64;
        low.wrapping_add_unsigned(offset as u64)
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// One of them.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }

    /// So many bytes that do not compress.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            bytes.extend_from_slice(&self.any().to_le_bytes());
        }
        bytes.truncate(count);
        bytes
    }
}

/// Runs `body` with the generators of `cases` seeds: from 0, or from `DIPTYCH_SEED`. With `DIPTYCH_SOAK` it goes
/// on for so many seconds instead; with `DIPTYCH_QUICK` it stops after an eighth of the cases.
pub fn for_each_seed(cases: u64, mut body: impl FnMut(&mut Random)) {
    let number = |name| std::env::var(name).ok().map(|text: String| text.parse::<u64>().expect(name));
    let first = number("DIPTYCH_SEED").unwrap_or(0);
    let until = number("DIPTYCH_SOAK").map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let cases = if number("DIPTYCH_QUICK").is_some() { cases.div_ceil(8) } else { cases };
    for case in 0.. {
        if until.map_or(case >= cases, |until| Instant::now() >= until) {
            break;
        }
        let seed = first.wrapping_add(case);
        let run = catch_unwind(AssertUnwindSafe(|| body(&mut Random::new(seed))));
        if let Err(panic) = run {
            eprintln!("failed with DIPTYCH_SEED={seed}");
            resume_unwind(panic);
        }
    }
}
