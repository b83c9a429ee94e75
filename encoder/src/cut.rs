//! Where contents are cut into chunks.
//!
//! A large content is cut by FastCDC from its own first byte, so that the same content gives the same chunks in
//! every archive. Small contents are grouped whole; a group ends where the digest of a content says so, and after
//! an insertion the groups fall back into step.
//!
//! Spec: archive.md sections 10.1 and 10.2.

use diptych_format::Digest;
use diptych_format::limits::PAYLOAD_CHUNK_MAX;
use fastcdc::v2020::{Normalization, cut, select_masks};

/// Contents whose payload is at least so long are cut on their own.
pub const LARGE_MIN: u64 = 256 << 10;

const CHUNK_MIN: usize = 256 << 10;
const CHUNK_AVERAGE: usize = 1 << 20;

/// Where the first chunk of `window` ends. The window must hold [`PAYLOAD_CHUNK_MAX`] bytes, or end where the content
/// ends.
pub fn large_cut(window: &[u8]) -> usize {
    let (mask_s, mask_l) = select_masks(CHUNK_AVERAGE, Normalization::Level1);
    let max = PAYLOAD_CHUNK_MAX;
    let (_, end) = cut(window, CHUNK_MIN, CHUNK_AVERAGE, max, mask_s, mask_l, mask_s << 1, mask_l << 1);
    end.clamp(1, window.len().max(1))
}

/// Whether a group of small contents ends after one of `length` bytes with `digest`: once in 1 MiB, whatever the
/// lengths.
pub fn ends_group(digest: &Digest, length: u64) -> bool {
    ends_after(digest, length, 20)
}

/// Whether a metadata chunk ends after a table of `length` bytes whose body has `digest`: once in 128 KiB.
pub fn ends_metadata_chunk(digest: &Digest, length: u64) -> bool {
    ends_after(digest, length, 17)
}

/// The digest, as a fraction of 2^64, is below `length` / 2^`target_bits`.
fn ends_after(digest: &Digest, length: u64, target_bits: u32) -> bool {
    digest.leading() < (u64::MAX >> target_bits).saturating_add(1).saturating_mul(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(length: usize, seed: u64) -> Vec<u8> {
        let mut state = seed | 1;
        std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .take(length)
        .collect()
    }

    fn cuts(mut bytes: &[u8]) -> Vec<usize> {
        let mut all = Vec::new();
        while !bytes.is_empty() {
            let end = large_cut(&bytes[..bytes.len().min(PAYLOAD_CHUNK_MAX)]);
            all.push(end);
            bytes = &bytes[end..];
        }
        all
    }

    /// Golden cut points: another version of the chunker must not move them unnoticed.
    #[test]
    fn cuts_are_where_they_always_were() {
        assert_eq!(cuts(&noise(6 << 20, 7)), GOLDEN);
        assert_eq!(cuts(&[0; 5 << 20]), [4 << 20, 1 << 20]);
    }

    const GOLDEN: &[usize] = &[1_211_517, 1_224_177, 1_937_242, 634_641, 487_892, 725_133, 70_854];

    #[test]
    fn an_insertion_moves_cuts_near_it_only() {
        let before = noise(12 << 20, 3);
        let after = [&before[..100], b"inserted", &before[100..]].concat();
        let ends = |cuts: &[usize], total: usize| -> Vec<usize> {
            cuts.iter()
                .scan(0, |sum, cut| {
                    *sum += cut;
                    Some(total - *sum)
                })
                .collect()
        };
        let (a, b) = (ends(&cuts(&before), before.len()), ends(&cuts(&after), after.len()));
        let same = a.iter().filter(|end| b.contains(end)).count();
        assert!(same + 2 >= a.len(), "{same} of {}", a.len());
    }

    #[test]
    fn groups_are_a_mebibyte_on_average_whatever_the_lengths() {
        for length in [100u64, 10_000, 200_000] {
            let count = 64 * (1 << 20) / length;
            let ends = (0..count).filter(|i| ends_group(&Digest::of(&i.to_le_bytes()), length)).count();
            assert!((40..90).contains(&ends), "{ends} groups of contents of {length} bytes");
        }
    }
}
