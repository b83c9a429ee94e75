//! Which packs are read: all, one in so many, or so much of them each time, going on where the last time ended.

use std::path::{Path, PathBuf};

use diptych_format::Digest;

use crate::error::{Error, Result};
use crate::size::parse_size;

/// What of the payload packs is read to their ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ReadData {
    /// None of them.
    None,
    /// All of them.
    All,
    /// Part `0` of `1` parts, counted from 1: the same packs each time, wherever it is run.
    Part(u64, u64),
    /// So many percent of the bytes, from where the last time ended.
    Percent(f64),
    /// So many bytes, from where the last time ended.
    Bytes(u64),
}

impl ReadData {
    /// Reads `5%`, `1/10` or `500M`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no part: write 5%, 1/10 or 500M");
        if let Some(percent) = text.strip_suffix('%') {
            return match percent.parse() {
                Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(Self::Percent(percent)),
                _ => Err(wrong()),
            };
        }
        if let Some((part, parts)) = text.split_once('/') {
            return match (part.parse(), parts.parse()) {
                (Ok(part), Ok(parts)) if part >= 1 && part <= parts => Ok(Self::Part(part, parts)),
                _ => Err(wrong()),
            };
        }
        match parse_size(text).map_err(|_| wrong())? {
            0 => Err(wrong()),
            bytes => Ok(Self::Bytes(bytes)),
        }
    }

    /// Takes packs of `all`, which is in the order of names; `last` is the last one that was read before.
    pub(super) fn select(self, all: &[(Digest, u64)], last: Option<&Digest>) -> Vec<Digest> {
        let total: u64 = all.iter().map(|(_, length)| length).sum();
        let wanted = match self {
            Self::None => return Vec::new(),
            Self::All => return all.iter().map(|(name, _)| *name).collect(),
            Self::Part(part, parts) => {
                let is_in = |name: &Digest| name.leading() % parts == part - 1;
                return all.iter().map(|(name, _)| *name).filter(is_in).collect();
            }
            Self::Percent(percent) => (total as f64 * percent / 100.0).ceil() as u64,
            Self::Bytes(bytes) => bytes,
        };
        let start = last.map_or(0, |last| all.partition_point(|(name, _)| name <= last));
        let (before, after) = all.split_at_checked(start).unwrap_or((all, &[]));
        let mut sum = 0;
        let mut is_wanted = |(_, length): &&(Digest, u64)| {
            let is_wanted = sum < wanted;
            sum += length;
            is_wanted
        };
        after.iter().chain(before).take_while(&mut is_wanted).map(|(name, _)| *name).collect()
    }

    /// Whether it goes on where the last time ended.
    pub(super) fn goes_on(self) -> bool {
        matches!(self, Self::Percent(_) | Self::Bytes(_))
    }
}

/// Where it is kept which pack was read last.
pub(super) struct Cursor(Option<PathBuf>);

impl Cursor {
    pub(super) fn new(cache: Option<&Path>, repository: &str) -> Self {
        Self(cache.map(|cache| cache.join("check").join(repository)))
    }

    /// The last pack that was read; none if nothing tells.
    pub(super) fn load(&self) -> Option<Digest> {
        let text = std::fs::read_to_string(self.0.as_ref()?).ok()?;
        let digits = text.trim().as_bytes();
        let mut bytes = [0; 32];
        if digits.len() != 64 {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Digest(bytes))
    }

    /// Keeps it; an error means that the next time begins here again.
    pub(super) fn store(&self, last: &Digest) -> Result<()> {
        let Some(path) = &self.0 else {
            let what =
                "there is no cache directory to keep in which packs were read: set XDG_CACHE_HOME or HOME";
            return Err(Error::Usage(what.to_owned()));
        };
        let write = || {
            path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
            let new = path.with_extension("new");
            std::fs::write(&new, format!("{last}\n"))?;
            std::fs::rename(new, path)
        };
        write().map_err(|error| Error::io(path.display().to_string(), "cannot be written", error))
    }
}

/// The directory for what can be made again, as the desktop's rules say.
pub fn cache_directory() -> Option<PathBuf> {
    let given = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = given("XDG_CACHE_HOME").or_else(|| given("HOME").map(|home| home.join(".cache")))?;
    base.is_absolute().then(|| base.join("diptych"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packs(lengths: &[u64]) -> Vec<(Digest, u64)> {
        (0u8..).zip(lengths).map(|(n, length)| (Digest([n * 16; 32]), *length)).collect()
    }

    #[test]
    fn parts_are_read_as_they_are_written() {
        assert_eq!(ReadData::parse("5%"), Ok(ReadData::Percent(5.0)));
        assert_eq!(ReadData::parse("3/10"), Ok(ReadData::Part(3, 10)));
        assert_eq!(ReadData::parse("2G"), Ok(ReadData::Bytes(2 << 30)));
        for text in ["", "%", "0%", "101%", "0/3", "4/3", "1/0", "x", "0", "-1", "1/2/3", "NaN%"] {
            assert!(ReadData::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn so_much_each_time_comes_by_every_pack() {
        let all = packs(&[10, 30, 5, 5, 20, 10]);
        for (what, runs) in [(ReadData::Bytes(20), 4), (ReadData::Percent(10.0), 6), (ReadData::Bytes(99), 1)]
        {
            let (mut last, mut read) = (None, Vec::new());
            for _ in 0..runs {
                let selected = what.select(&all, last.as_ref());
                assert!(!selected.is_empty());
                last = selected.last().copied();
                read.extend(selected);
            }
            read.sort_unstable();
            read.dedup();
            assert_eq!(read.len(), all.len(), "{what:?}");
        }
    }

    #[test]
    fn parts_of_so_many_are_all_packs_and_none_twice() {
        let all: Vec<(Digest, u64)> = (0..100u8).map(|n| (Digest::of(&[n]), 1)).collect();
        let mut read: Vec<Digest> =
            (1..=7).flat_map(|part| ReadData::Part(part, 7).select(&all, None)).collect();
        read.sort_unstable();
        read.dedup();
        assert_eq!(read.len(), 100);
        let sum: usize = (1..=7).map(|part| ReadData::Part(part, 7).select(&all, None).len()).sum();
        assert_eq!(sum, 100);
        assert_eq!(ReadData::All.select(&all, None).len(), 100);
        assert!(ReadData::None.select(&all, None).is_empty());
    }

    #[test]
    fn where_it_ended_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let cursor = Cursor::new(Some(directory.path()), "abc");
        assert_eq!(cursor.load(), None);
        cursor.store(&Digest([7; 32])).unwrap();
        assert_eq!(cursor.load(), Some(Digest([7; 32])));
        assert!(Cursor::new(None, "abc").store(&Digest([7; 32])).is_err());
    }
}
