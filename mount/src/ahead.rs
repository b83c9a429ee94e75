//! Read-ahead: whoever reads a stream in order is about to read what comes next.
//!
//! Small files of one directory stand side by side in the payload stream, so that one who reads them by name is seen to
//! read in order, too.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Places in the stream that are remembered: more readers at once than this are not told apart.
const READERS_MAX: usize = 32;
/// A read that begins so close behind another goes on from there: a reader may pass over small files.
const GAP_MAX: u64 = 256 << 10;
/// How much is fetched ahead of a reader that goes on and on.
const WINDOW_MAX: u64 = 16 << 20;
/// How much at first.
const WINDOW_MIN: u64 = 256 << 10;

/// Who reads where.
#[derive(Default)]
pub(crate) struct Ahead {
    readers: Mutex<Vec<Reader>>,
}

struct Reader {
    /// Where the last read ended.
    end: u64,
    /// Where what was fetched ahead ends.
    fetched: u64,
    window: u64,
}

impl Ahead {
    /// Takes note of a read of `range`, and says what to fetch ahead because of it, if anything.
    pub(crate) fn note(&self, range: Range<u64>, length: u64) -> Option<Range<u64>> {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        // The kernel asks for several parts at once, which may come in any order.
        let is_near = |reader: &Reader| {
            range.start <= reader.end.saturating_add(GAP_MAX)
                && range.end.saturating_add(GAP_MAX) >= reader.end
        };
        let Some(place) = readers.iter().position(is_near) else {
            if readers.len() == READERS_MAX {
                readers.remove(0);
            }
            readers.push(Reader { end: range.end, fetched: range.end, window: WINDOW_MIN });
            return None;
        };
        // The last one to read is the last to be forgotten.
        let mut reader = readers.remove(place);
        reader.end = reader.end.max(range.end);
        reader.fetched = reader.fetched.max(reader.end);
        let wanted = reader.end.saturating_add(reader.window).min(length);
        // In steps, so that not every read costs a request.
        let is_due = wanted.saturating_sub(reader.fetched)
            >= (reader.window / 4).min(length - reader.fetched.min(length)).max(1);
        let ahead = is_due.then_some(reader.fetched..wanted);
        if is_due {
            reader.fetched = wanted;
            reader.window = (reader.window * 2).min(WINDOW_MAX);
        }
        readers.push(reader);
        ahead
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_reads_in_order_is_read_ahead_for() {
        let ahead = Ahead::default();
        let length = 100 << 20;
        let (mut at, mut fetched) = (1000, 0);
        while at < length {
            let end = (at + (128 << 10)).min(length);
            if let Some(range) = ahead.note(at..end, length) {
                assert!(range.start >= end && range.end <= length && range.start >= fetched);
                fetched = range.end;
            }
            at = end;
        }
        assert_eq!(fetched, length);
    }

    #[test]
    fn who_reads_here_and_there_is_not() {
        let ahead = Ahead::default();
        for number in 0..1000u64 {
            let at = number * 7919 % 1000 * (10 << 20);
            assert_eq!(ahead.note(at..at + 4096, u64::MAX), None, "{number}");
        }
    }
}
