//! Names of a repository's files: a kind and a digest, from which nothing can be made that lies anywhere else.

use std::fmt;

/// Which of a repository's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileKind {
    /// What the repository is: one file, made first and never replaced.
    Config,
    /// The master key, wrapped.
    Key,
    /// A pack.
    Data,
    /// A pack index.
    Index,
    /// A manifest.
    Snapshot,
    /// A lease.
    Lease,
}

impl FileKind {
    /// All kinds.
    pub const ALL: [FileKind; 6] = [
        FileKind::Config,
        FileKind::Key,
        FileKind::Data,
        FileKind::Index,
        FileKind::Snapshot,
        FileKind::Lease,
    ];

    /// The one word for it: its directory, and `config` for what lies beside all directories.
    pub fn word(self) -> &'static str {
        match self {
            FileKind::Config => "config",
            kind => kind.directory(),
        }
    }

    /// The directory of these files in the repository's own, which is `.` and holds the configuration. The words
    /// are restic's, so that what serves its repositories can serve ours.
    pub fn directory(self) -> &'static str {
        match self {
            FileKind::Config => ".",
            FileKind::Key => "keys",
            FileKind::Data => "data",
            FileKind::Index => "index",
            FileKind::Snapshot => "snapshots",
            FileKind::Lease => "locks",
        }
    }
}

/// A file's name: its kind, and the digest of its bytes (none for the configuration, of which there is one).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileName {
    kind: FileKind,
    digest: [u8; 32],
}

impl FileName {
    /// The configuration's.
    pub const CONFIG: FileName = FileName { kind: FileKind::Config, digest: [0; 32] };

    /// The name of the file of this kind whose bytes have this digest; the configuration's does not depend on them.
    pub fn new(kind: FileKind, digest: [u8; 32]) -> Self {
        match kind {
            FileKind::Config => Self::CONFIG,
            kind => Self { kind, digest },
        }
    }

    /// The name that is written like this: 64 lower-case hex digits, or `config`. Anything else is no name of ours.
    pub fn decode(kind: FileKind, text: &str) -> Option<Self> {
        match kind {
            FileKind::Config => (text == "config").then_some(Self::CONFIG),
            kind => Some(Self { kind, digest: decode_hex(text)? }),
        }
    }

    /// The kind.
    pub fn kind(&self) -> FileKind {
        self.kind
    }

    /// The digest; of the configuration, zeros.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// What [`FileName::decode`] reads.
    pub fn encode(&self) -> String {
        match self.kind {
            FileKind::Config => "config".to_owned(),
            _ => self.digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }

    /// The directory of the file in the repository's own. Packs are spread: a directory of a hundred thousand names
    /// is slow in many places.
    pub fn directory(&self) -> String {
        match self.kind {
            FileKind::Data => format!("data/{:02x}", self.digest[0]),
            kind => kind.directory().to_owned(),
        }
    }

    /// The path of the file in the repository's directory.
    pub fn path(&self) -> String {
        match self.kind {
            FileKind::Config => self.encode(),
            _ => format!("{}/{}", self.directory(), self.encode()),
        }
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path())
    }
}

impl fmt::Debug for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path())
    }
}

fn decode_hex(text: &str) -> Option<[u8; 32]> {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut digest = [0; 32];
    if text.len() != 2 * digest.len() {
        return None;
    }
    for (byte, digits) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = value(digits[0])? << 4 | value(digits[1])?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_and_read() {
        let digest: [u8; 32] = std::array::from_fn(|index| 0xf0 | index as u8);
        for kind in FileKind::ALL {
            let name = FileName::new(kind, digest);
            assert_eq!(FileName::decode(kind, &name.encode()), Some(name));
        }
        let hex = "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff".to_owned() + &"f".repeat(32);
        let name = FileName::decode(FileKind::Data, &hex).unwrap();
        assert_eq!(name.path(), format!("data/f0/{hex}"));
        assert_eq!(FileName::new(FileKind::Lease, *name.digest()).path(), format!("locks/{hex}"));
        assert_eq!(FileName::new(FileKind::Config, digest).path(), "config");
    }

    #[test]
    fn nothing_else_is_a_name() {
        let hex = "0123456789abcdef".repeat(4);
        assert!(FileName::decode(FileKind::Key, &hex).is_some());
        let others = [
            String::new(),
            "..".to_owned(),
            "config".to_owned(),
            hex[1..].to_owned(),
            format!("{hex}0"),
            hex.to_uppercase(),
            format!("../{}", &hex[3..]),
            format!("{}\0", &hex[1..]),
            format!("+{}", &hex[1..]),
            "ä".repeat(32),
        ];
        for other in others {
            assert_eq!(FileName::decode(FileKind::Key, &other), None, "{other:?}");
        }
        assert_eq!(FileName::decode(FileKind::Config, &hex), None);
    }

    #[test]
    fn names_sort_as_they_are_written() {
        let [low, high] = [[0x09; 32], [0x9a; 32]].map(|digest| FileName::new(FileKind::Data, digest));
        assert!(low < high && low.path() < high.path());
    }
}
