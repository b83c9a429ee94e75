//! Where contents and the metadata stream are cut into chunks.
//!
//! A large content is cut from its own first byte, so that the same content gives the same chunks in every archive.
//! Small contents are grouped whole; a group ends where the digest of a content says so, and after an insertion the
//! groups fall back into step.
//!
//! In an encrypted repository all of this depends on a key: else the lengths of chunks would tell whether a known
//! content is there.
//!
//! Spec: archive.md sections 10.1 and 10.2, repository.md section 6.

use std::fmt;
use std::sync::Arc;

use diptych_format::Digest;
use diptych_format::limits::PAYLOAD_CHUNK_MAX;
use fastcdc::v2020::{Normalization, cut, select_masks};

/// Contents whose payload is at least so long are cut on their own.
pub const LARGE_MIN: u64 = 256 << 10;

const CHUNK_MIN: usize = 256 << 10;
const CHUNK_AVERAGE: usize = 1 << 20;

/// How many bytes the rolling hash depends on: each later one shifts it by one of its 64 bits.
const HASH_WINDOW: usize = 64;
/// A hash below is a candidate, one position in 4096: seldom enough that deciding it costs little.
const CANDIDATE_END: u64 = 1 << (64 - 12);
/// A candidate is a cut if its fraction of 2^64 is below: fewer before the average length than behind it. With the
/// candidates these are the 21 and 19 bits of FastCDC's masks, so that keyed and plain chunks are spread alike.
const CUT_END_BEFORE_AVERAGE: u64 = 1 << (64 - 9);
const CUT_END: u64 = 1 << (64 - 7);

/// The rule that cuts follow: writers that have the same make the same chunks.
#[derive(Clone)]
pub struct Cuts(Option<Arc<Keyed>>);

struct Keyed {
    key: [u8; 32],
    /// What a byte adds to the rolling hash. Were it known, the cuts of a known content would all be among known
    /// positions, and a few chunks enough to recognise it.
    gear: [u64; 256],
}

impl fmt::Debug for Cuts {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Cuts(keyed)" } else { "Cuts(plain)" })
    }
}

impl Cuts {
    /// Those of archive files and of repositories without encryption.
    pub fn plain() -> Self {
        Self(None)
    }

    /// Those of an encrypted repository with this cut key.
    pub fn keyed(key: [u8; 32]) -> Self {
        let mut gear = [0; 256];
        for (byte, value) in (0..=u8::MAX).zip(&mut gear) {
            *value = Digest::keyed(&key, &[byte]).leading();
        }
        Self(Some(Arc::new(Keyed { key, gear })))
    }

    /// Where the first chunk of `window`, of a large content, ends. The window must hold [`PAYLOAD_CHUNK_MAX`] bytes,
    /// or end where the content ends.
    pub fn large_cut(&self, window: &[u8]) -> usize {
        let end = match &self.0 {
            None => plain_cut(window),
            Some(keyed) => keyed.cut(window),
        };
        end.clamp(1, window.len().max(1))
    }

    /// Whether a group of small contents ends after one of `length` bytes with `digest`: once in 1 MiB, whatever the
    /// lengths.
    pub fn ends_group(&self, digest: &Digest, length: u64) -> bool {
        self.ends_after(digest, length, 20)
    }

    /// Whether a metadata chunk ends after a table of `length` bytes whose body has `digest`: once in 128 KiB.
    pub fn ends_metadata_chunk(&self, digest: &Digest, length: u64) -> bool {
        self.ends_after(digest, length, 17)
    }

    /// The digest, as a fraction of 2^64, is below `length` / 2^`target_bits`. Spec: R-6-1.
    fn ends_after(&self, digest: &Digest, length: u64, target_bits: u32) -> bool {
        let fraction = match &self.0 {
            None => digest.leading(),
            Some(keyed) => keyed.fraction(&digest.0),
        };
        fraction < (u64::MAX >> target_bits).saturating_add(1).saturating_mul(length)
    }
}

fn plain_cut(window: &[u8]) -> usize {
    let (mask_s, mask_l) = select_masks(CHUNK_AVERAGE, Normalization::Level1);
    let max = PAYLOAD_CHUNK_MAX;
    cut(window, CHUNK_MIN, CHUNK_AVERAGE, max, mask_s, mask_l, mask_s << 1, mask_l << 1).1
}

impl Keyed {
    /// A number that nobody without the key can tell, as a fraction of 2^64. What is asked for, single bytes, hashes
    /// and digests, differs in length, so that none says anything of another.
    fn fraction(&self, bytes: &[u8]) -> u64 {
        Digest::keyed(&self.key, bytes).leading()
    }

    /// Spec: R-6-2, R-6-3.
    fn cut(&self, window: &[u8]) -> usize {
        let window = window.get(..PAYLOAD_CHUNK_MAX).unwrap_or(window);
        // The first length that may be a cut has a full hash behind it: cuts do not depend on where a chunk begins.
        let begin = CHUNK_MIN - HASH_WINDOW;
        let mut hash = 0u64;
        // In a run of one byte all hashes are equal, and deciding each anew would take longer than all the rest.
        let (mut decided, mut fraction) = (u64::MAX, u64::MAX);
        for (length, byte) in (begin + 1..).zip(window.get(begin..).unwrap_or(&[])) {
            hash = (hash << 1).wrapping_add(self.gear[usize::from(*byte)]);
            if hash < CANDIDATE_END && length >= CHUNK_MIN {
                if hash != decided {
                    (decided, fraction) = (hash, self.fraction(&hash.to_le_bytes()));
                }
                let end = if length < CHUNK_AVERAGE { CUT_END_BEFORE_AVERAGE } else { CUT_END };
                if fraction < end {
                    return length;
                }
            }
        }
        window.len()
    }
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

    fn keyed(number: u8) -> Cuts {
        Cuts::keyed([number; 32])
    }

    fn lengths(cuts: &Cuts, mut bytes: &[u8]) -> Vec<usize> {
        let mut all = Vec::new();
        while !bytes.is_empty() {
            let end = cuts.large_cut(&bytes[..bytes.len().min(PAYLOAD_CHUNK_MAX)]);
            all.push(end);
            bytes = &bytes[end..];
        }
        all
    }

    /// Golden cut points: another version of the chunker must not move them unnoticed.
    #[test]
    fn cuts_are_where_they_always_were() {
        assert_eq!(lengths(&Cuts::plain(), &noise(6 << 20, 7)), GOLDEN);
        assert_eq!(lengths(&keyed(7), &noise(6 << 20, 7)), GOLDEN_KEYED);
        for cuts in [Cuts::plain(), keyed(7)] {
            assert_eq!(lengths(&cuts, &[0; 5 << 20]), [4 << 20, 1 << 20]);
        }
    }

    const GOLDEN: &[usize] = &[1_211_517, 1_224_177, 1_937_242, 634_641, 487_892, 725_133, 70_854];
    const GOLDEN_KEYED: &[usize] = &[1_147_937, 916_326, 609_511, 3_171_041, 446_641];

    #[test]
    fn an_insertion_moves_cuts_near_it_only() {
        let before = noise(12 << 20, 3);
        let after = [&before[..100], b"inserted", &before[100..]].concat();
        for cuts in [Cuts::plain(), keyed(3)] {
            let ends = |bytes: &[u8]| -> Vec<usize> {
                lengths(&cuts, bytes)
                    .iter()
                    .scan(0, |sum, cut| {
                        *sum += cut;
                        Some(bytes.len() - *sum)
                    })
                    .collect()
            };
            let (a, b) = (ends(&before), ends(&after));
            let same = a.iter().filter(|end| b.contains(end)).count();
            assert!(a.len() > 5 && same + 2 >= a.len(), "{cuts:?}: {same} of {}", a.len());
        }
    }

    #[test]
    fn groups_are_a_mebibyte_on_average_whatever_the_lengths() {
        for cuts in [Cuts::plain(), keyed(1)] {
            for length in [100u64, 10_000, 200_000] {
                let count = 64 * (1 << 20) / length;
                let ends =
                    (0..count).filter(|i| cuts.ends_group(&Digest::of(&i.to_le_bytes()), length)).count();
                assert!((40..90).contains(&ends), "{cuts:?}: {ends} groups of contents of {length} bytes");
            }
        }
    }

    #[test]
    fn what_is_printed_of_cuts_is_not_the_key() {
        assert_eq!(format!("{:?} {:?}", Cuts::plain(), keyed(1)), "Cuts(plain) Cuts(keyed)");
    }
}
