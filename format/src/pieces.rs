//! Where a large directory is cut into pieces: a rule on names alone, so that the same names give the same
//! pieces whoever lists them, and one more name changes one piece.
//!
//! The scan uses it to know which subdirectories come before which files; the encoder uses it again and
//! refuses rows that were cut elsewhere.
//!
//! Spec: archive.md section 7.

use crate::limits;

/// Feeds on ascending names of one level and says before which of them a new piece begins.
#[derive(Clone, Debug)]
pub struct CutRule {
    level: u64,
    rows: usize,
    name_bytes: usize,
}

impl CutRule {
    /// The rule for one level: 0 for the rows of a directory, 1 for the index rows of its pieces, and so on.
    pub fn new(level: u64) -> Self {
        Self { level, rows: 0, name_bytes: 0 }
    }

    /// Whether `name` begins a new piece. Takes the name in either way.
    pub fn cuts_before(&mut self, name: &[u8]) -> bool {
        self.cuts_before_with(name, 0)
    }

    /// The same where `more` bytes beside the name count as its own: those of the first path of a link. Spec: A-7.3-2.
    pub fn cuts_before_with(&mut self, name: &[u8], more: usize) -> bool {
        let bytes = name.len().saturating_add(more);
        let cut = self.rows >= limits::PIECE_ROWS_MAX
            || self.name_bytes.saturating_add(bytes) > limits::PIECE_NAMES_MAX && self.rows > 0
            || self.rows >= limits::PIECE_ROWS_MIN && is_cut_name(name, self.level);
        if cut {
            self.rows = 0;
            self.name_bytes = 0;
        }
        self.rows += 1;
        self.name_bytes = self.name_bytes.saturating_add(bytes);
        cut
    }
}

/// Ten bits of the name's digest, other ones on each level, are zero.
fn is_cut_name(name: &[u8], level: u64) -> bool {
    let digest = blake3::hash(name);
    let (first, _) = digest.as_bytes().split_at(8);
    let bits = first.iter().rev().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
    // Levels are at most INDEX_LEVEL_MAX, so that the ten bits are there.
    bits >> (10 * level.min(limits::INDEX_LEVEL_MAX)) & 0x3ff == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cuts(names: impl Iterator<Item = String>) -> Vec<String> {
        let mut rule = CutRule::new(0);
        names.filter(|n| rule.cuts_before(n.as_bytes())).collect()
    }

    #[test]
    fn small_directories_are_never_cut() {
        assert!(cuts((0..limits::PIECE_ROWS_MIN).map(|i| format!("{i:08}"))).is_empty());
    }

    #[test]
    fn one_more_name_moves_few_cuts() {
        let names = || (0..50_000).map(|i| format!("{i:08}"));
        let before = cuts(names());
        let after = cuts(std::iter::once("!first".to_owned()).chain(names()));
        let moved = before.iter().filter(|n| !after.contains(n)).count();
        assert!(before.len() > 20, "{}", before.len());
        assert!(moved <= 2, "{moved} of {} cuts moved", before.len());
    }

    #[test]
    fn long_names_cut_by_bytes() {
        let long = "x".repeat(1000);
        let many = (0..4000).map(|i| format!("{i:04}{long}"));
        assert!(cuts(many).len() >= 3);
    }
}
