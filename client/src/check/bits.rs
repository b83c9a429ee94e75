//! A bit for each row of the index: what is remembered of every chunk takes 12 MB for a hundred million of them.

use std::sync::atomic::{AtomicU64, Ordering};

/// As many bits as there are rows, none of them set at first. Threads share them.
pub(super) struct Bits(Vec<AtomicU64>);

impl Bits {
    pub(super) fn new(count: u64) -> Self {
        // An index that does not fit into memory as bits would not have been opened.
        let words = usize::try_from(count.div_ceil(64)).unwrap_or(usize::MAX);
        Self((0..words).map(|_| AtomicU64::new(0)).collect())
    }

    /// Sets a bit; says whether it was not set before.
    pub(super) fn set(&self, row: u64) -> bool {
        let Some((word, bit)) = self.word(row) else { return false };
        word.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }

    pub(super) fn has(&self, row: u64) -> bool {
        self.word(row).is_some_and(|(word, bit)| word.load(Ordering::Relaxed) & bit != 0)
    }

    fn word(&self, row: u64) -> Option<(&AtomicU64, u64)> {
        let word = usize::try_from(row / 64).ok().and_then(|place| self.0.get(place))?;
        Some((word, 1 << (row % 64)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_has_a_bit_of_its_own() {
        let bits = Bits::new(130);
        for row in [0, 63, 64, 129] {
            assert!(!bits.has(row));
            assert!(bits.set(row));
            assert!(!bits.set(row));
        }
        let set: Vec<u64> = (0..130).filter(|row| bits.has(*row)).collect();
        assert_eq!(set, [0, 63, 64, 129]);
        assert!(!bits.set(1000) && !bits.has(1000));
    }
}
