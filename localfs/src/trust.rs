//! What the times and inode numbers of a file system are worth to whoever compares two scans.

use std::path::Path;

use rustix::fs::statfs;

/// What is known of a file system by its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trust {
    /// What it is called, if anything is to be said of it.
    pub name: Option<&'static str>,
    /// Whether a file has the same inode number in the next mount.
    pub has_lasting_inodes: bool,
    /// Whether changes are dated by the clock of this machine.
    pub is_dated_here: bool,
}

/// Those that are not like any other: magic number, name, lasting inode numbers, dated here.
const KINDS: [(u64, &str, bool, bool); 10] = [
    (0x4d44, "FAT", false, true),
    (0x2011_bab0, "exFAT", false, true),
    (0x7366_746e, "NTFS", true, true),
    (0x6969, "NFS", true, false),
    (0xff53_4d42, "CIFS", false, false),
    (0xfe53_4d42, "SMB", false, false),
    (0x6573_5546, "FUSE", false, false),
    (0x0102_1997, "9p", false, false),
    (0x00c3_6400, "Ceph", true, false),
    (0x786f_4256, "vboxsf", false, false),
];

/// Asks what kind of file system `path` is on. One that does not say counts as any other.
pub fn trust(path: &Path) -> Trust {
    let magic = statfs(path).map_or(0, |s| (s.f_type as u64) & 0xffff_ffff);
    of_magic(magic)
}

fn of_magic(magic: u64) -> Trust {
    let known = KINDS.iter().find(|(number, ..)| *number == magic);
    known.map_or(
        Trust { name: None, has_lasting_inodes: true, is_dated_here: true },
        |(_, name, lasting, dated)| Trust {
            name: Some(name),
            has_lasting_inodes: *lasting,
            is_dated_here: *dated,
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_like_any_other() {
        assert_eq!(trust(Path::new("/")).name, of_magic(0xef53).name);
        assert!(of_magic(0xef53).has_lasting_inodes && of_magic(0xef53).is_dated_here);
        assert!(!of_magic(0x4d44).has_lasting_inodes);
        assert!(!of_magic(0x6969).is_dated_here);
    }
}
