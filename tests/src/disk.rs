//! Trees on disk: made from a literal and read back into one, by nothing but system calls, so that what is under
//! test has no part in judging itself.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use diptych_format::{Hole, Time, limits};
use rustix::fs::{AtFlags, CWD, FileType, IFlags, Mode, Timespec, Timestamps, XattrFlags, makedev};
use rustix::io::Errno;

use crate::tree::{Run, Tree, What, join};

impl Tree {
    /// Makes the tree at `path`, which must not be there yet.
    #[track_caller]
    pub fn create(&self, path: &Path) {
        make(self, path);
        for (below, tree) in self.paths() {
            if let What::HardLink(target) = &tree.what {
                let (from, to) = (path.join(OsStr::from_bytes(target)), path.join(OsStr::from_bytes(&below)));
                fs::hard_link(&from, &to).unwrap_or_else(|error| panic!("{}: {error}", to.display()));
            }
        }
        // Whoever is below comes first: making it changes the times of what is above.
        for (below, tree) in self.paths().into_iter().rev() {
            if !matches!(tree.what, What::HardLink(_)) {
                // An empty path would put a slash behind the root, through which nothing but a directory is seen.
                let place =
                    if below.is_empty() { path.to_owned() } else { path.join(OsStr::from_bytes(&below)) };
                dress(tree, &place);
            }
        }
    }

    /// Reads the tree at `path`.
    #[track_caller]
    pub fn read(path: &Path) -> Tree {
        let mut seen = BTreeMap::new();
        read(path, Vec::new(), &mut seen).normal()
    }
}

fn make(tree: &Tree, path: &Path) {
    let device = |kind, (major, minor)| {
        rustix::fs::mknodat(CWD, path, kind, Mode::RUSR, makedev(major, minor)).map_err(std::io::Error::from)
    };
    let made = match &tree.what {
        What::File(runs) => make_file(runs, path),
        What::Directory(below) => fs::create_dir(path).map(|()| {
            below.iter().for_each(|(name, tree)| make(tree, &path.join(OsStr::from_bytes(name))));
        }),
        What::Symlink(target) => symlink(OsStr::from_bytes(target), path),
        What::Fifo => device(FileType::Fifo, (0, 0)),
        What::Socket => device(FileType::Socket, (0, 0)),
        What::CharDevice(major, minor) => device(FileType::CharacterDevice, (*major, *minor)),
        What::BlockDevice(major, minor) => device(FileType::BlockDevice, (*major, *minor)),
        What::HardLink(_) => Ok(()),
    };
    made.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

fn make_file(runs: &[Run], path: &Path) -> std::io::Result<()> {
    let mut file = fs::File::create_new(path)?;
    for run in runs {
        match run {
            Run::Hole(length) => {
                let end = file.stream_position()? + length;
                file.set_len(end)?;
                file.seek(SeekFrom::Start(end))?;
            }
            run => file.write_all(&run.content())?,
        }
    }
    Ok(())
}

/// Gives an object its attributes: owner before mode and capabilities, which a change of owner takes away; times
/// and flags last.
#[track_caller]
fn dress(tree: &Tree, path: &Path) {
    let check = |what: &str, result: Result<(), Errno>| {
        result.unwrap_or_else(|error| panic!("{}: {what}: {error}", path.display()));
    };
    let (uid, gid) = (rustix::fs::Uid::from_raw(tree.uid), rustix::fs::Gid::from_raw(tree.gid));
    check("owner", rustix::fs::chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW));
    for (name, value) in &tree.xattrs {
        let name = std::str::from_utf8(name).unwrap();
        check(name, rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()));
    }
    if !matches!(tree.what, What::Symlink(_)) {
        check("mode", rustix::fs::chmod(path, Mode::from_raw_mode(tree.mode)));
    }
    let time = Timespec { tv_sec: tree.mtime.seconds, tv_nsec: tree.mtime.nanoseconds.into() };
    let times = Timestamps { last_access: time, last_modification: time };
    check("times", rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW));
    if tree.flags != 0 {
        let file = fs::File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let had =
            rustix::fs::ioctl_getflags(&file).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let wanted = had | IFlags::from_bits_retain(tree.flags);
        check("flags", rustix::fs::ioctl_setflags(&file, wanted));
        // Setting flags counts as no change of the content, but reading the file moved its access time only.
    }
}

fn read(path: &Path, here: Vec<u8>, seen: &mut BTreeMap<(u64, u64), Vec<u8>>) -> Tree {
    let fail = |error: std::io::Error| -> ! { panic!("{}: {error}", path.display()) };
    let found = fs::symlink_metadata(path).unwrap_or_else(|error| fail(error));
    let kind = FileType::from_raw_mode(found.mode());
    if kind != FileType::Directory && found.nlink() > 1 {
        if let Some(first) = seen.get(&(found.dev(), found.ino())) {
            return Tree::hard_link(first);
        }
        seen.insert((found.dev(), found.ino()), here.clone());
    }
    let numbers = || (rustix::fs::major(found.rdev()), rustix::fs::minor(found.rdev()));
    let what = match kind {
        FileType::RegularFile => What::File(read_runs(path).unwrap_or_else(|error| fail(error))),
        FileType::Directory => {
            let listed = fs::read_dir(path).unwrap_or_else(|error| fail(error));
            let mut names: Vec<_> =
                listed.map(|entry| entry.unwrap_or_else(|error| fail(error)).file_name()).collect();
            names.sort();
            let below = names.into_iter().map(|name| {
                let name = name.as_bytes().to_vec();
                let tree = read(&path.join(OsStr::from_bytes(&name)), join(&here, &name), seen);
                (name, tree)
            });
            What::Directory(below.collect())
        }
        FileType::Symlink => {
            let target = fs::read_link(path).unwrap_or_else(|error| fail(error));
            What::Symlink(target.as_os_str().as_bytes().to_vec())
        }
        FileType::Fifo => What::Fifo,
        FileType::Socket => What::Socket,
        FileType::CharacterDevice => What::CharDevice(numbers().0, numbers().1),
        FileType::BlockDevice => What::BlockDevice(numbers().0, numbers().1),
        FileType::Unknown => panic!("{}: no known kind", path.display()),
    };
    let is_plain = matches!(what, What::File(_) | What::Directory(_));
    Tree {
        what,
        mode: found.mode() & 0o7777,
        uid: found.uid(),
        gid: found.gid(),
        mtime: Time { seconds: found.mtime(), nanoseconds: found.mtime_nsec() as u32 },
        xattrs: read_xattrs(path),
        flags: if is_plain { read_flags(path) } else { 0 },
    }
}

/// A content with its holes where the file system says they are.
fn read_runs(path: &Path) -> std::io::Result<Vec<Run>> {
    let mut file = fs::File::open(path)?;
    let mut content = Vec::new();
    file.read_to_end(&mut content)?;
    let mut runs = Vec::new();
    let mut position = 0;
    for Hole { start, length } in holes(&file, content.len() as u64)? {
        if start > position {
            runs.push(Run::Data(content[position as usize..start as usize].to_vec()));
        }
        runs.push(Run::Hole(length));
        position = start + length;
    }
    if position < content.len() as u64 {
        runs.push(Run::Data(content[position as usize..].to_vec()));
    }
    Ok(runs)
}

/// Where a file has no data, as the file system says.
pub fn holes(file: &fs::File, size: u64) -> std::io::Result<Vec<Hole>> {
    use rustix::fs::{SeekFrom, seek};
    let mut holes = Vec::new();
    let mut position = 0;
    while position < size {
        let start = seek(file, SeekFrom::Hole(position))?.min(size);
        if start == size {
            break;
        }
        let end = match seek(file, SeekFrom::Data(start)) {
            Ok(end) => end.min(size),
            Err(Errno::NXIO) => size,
            Err(error) => return Err(error.into()),
        };
        holes.push(Hole { start, length: end - start });
        position = end;
    }
    Ok(holes)
}

fn read_xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut buffer = vec![0; 1 << 17];
    let length = match rustix::fs::llistxattr(path, &mut buffer[..]) {
        Ok(length) => length,
        Err(error) => panic!("{}: {error}", path.display()),
    };
    let names = buffer[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec);
    let value = |name: &[u8]| {
        let mut value = vec![0; limits::XATTR_VALUE_MAX];
        let name = std::ffi::CString::new(name).unwrap();
        let length = rustix::fs::lgetxattr(path, &name, &mut value[..]);
        value.truncate(length.unwrap_or_else(|error| panic!("{}: {error}", path.display())));
        value
    };
    names.map(|name| (name.clone(), value(&name))).collect()
}

fn read_flags(path: &Path) -> u32 {
    let file = fs::File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let flags = rustix::fs::ioctl_getflags(&file).map_or(0, |flags| flags.bits());
    // The mask holds what can be set; extents and the like are the file system's own.
    flags as u32 & limits::FLAGS_MASK
}
