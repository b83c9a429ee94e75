//! Padding: stored lengths that tell less of the lengths behind them.
//!
//! Spec: repository.md section 5.

/// How much a sealed chunk is padded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Padding {
    /// Not at all.
    #[default]
    None,
    /// To a length that few bits can say: at most an eighth longer, less for long ones.
    Padme,
}

impl Padding {
    /// All of them with their words in a repository's config.
    pub const ALL: [(Padding, &'static str); 2] = [(Padding::None, "none"), (Padding::Padme, "padme")];

    /// The length that `length` is padded to. Spec: R-5-6.
    pub fn padded(self, length: usize) -> usize {
        match (self, length.checked_ilog2()) {
            (Padding::Padme, Some(bits @ 1..)) => {
                let kept = bits.ilog2() + 1;
                length.next_multiple_of(1 << bits.saturating_sub(kept))
            }
            _ => length,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spec: R-5-6
    #[test]
    fn padded_lengths_are_the_least_whose_digits_end_in_zeros() {
        let is_padded = |length: usize| {
            let digits = usize::BITS - length.leading_zeros();
            let kept = ((length as f64).log2().log2().floor()) as u32 + 2;
            length.trailing_zeros() >= digits.saturating_sub(kept)
        };
        for length in (8..5000).chain([1 << 20, (1 << 20) + 1, 4_000_000, (36 << 20) + 8]) {
            let expected = (length..).find(|longer| is_padded(*longer)).unwrap();
            assert_eq!(Padding::Padme.padded(length), expected, "{length}");
            assert_eq!(Padding::None.padded(length), length);
            assert!(expected - length <= length / 8);
        }
        assert_eq!([0, 1, 2, 3].map(|length| Padding::Padme.padded(length)), [0, 1, 2, 3]);
        // The numbers of the paper that Padmé is from.
        assert_eq!([9, 1000, 1025].map(|length| Padding::Padme.padded(length)), [10, 1024, 1088]);
    }
}
