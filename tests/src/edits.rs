//! Random edits of a tree on disk: whatever people and programs do to files between two backups.
//!
//! Nothing but system calls, and no record of what was done: what is there afterwards is for others to say.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, RenameFlags, Timespec, Timestamps, XattrFlags};

use crate::random::Random;

/// A file of at least this many bytes has chunks of its own.
const LARGE: usize = 256 << 10;

/// Makes a tree to begin with.
pub fn begin(random: &mut Random, root: &Path) {
    fs::create_dir(root).unwrap();
    for name in ["a", "b", "b/c"] {
        fs::create_dir(root.join(name)).unwrap();
    }
    (0..20).for_each(|_| create(random, root));
    create_large(random, root);
}

/// Changes one thing.
pub fn edit(random: &mut Random, root: &Path) {
    let edits: &[fn(&mut Random, &Path)] = &[
        create,
        create,
        create_large,
        copy,
        append,
        shrink,
        rewrite,
        rewrite,
        replace,
        edit_inside,
        edit_inside,
        sparse,
        rename,
        rename,
        swap,
        swap,
        move_directory,
        link,
        link,
        remove,
        remove,
        remove_directory,
        mode,
        owner,
        xattr,
        touch,
        change_kind,
        make_directory,
        make_symlink,
    ];
    random.pick(edits)(random, root);
}

/// Waits until the file system dates changes later than those so far.
pub fn tick(probe: &Path) {
    let changed = || {
        fs::write(probe, "").unwrap();
        let found = fs::metadata(probe).unwrap();
        (found.ctime(), found.ctime_nsec())
    };
    let before = changed();
    while changed() == before {}
}

/// Gives a file back the time that it had.
pub fn set_mtime(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Everything below `root` that `is_wanted`.
fn found(root: &Path, is_wanted: fn(&fs::Metadata) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        // By name: a listing has the order of the file system, and a seed is to mean the same everywhere.
        let mut paths: Vec<PathBuf> =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        for path in paths {
            let metadata = fs::symlink_metadata(&path).unwrap();
            if metadata.is_dir() {
                open.push(path.clone());
            }
            if is_wanted(&metadata) {
                found.push(path);
            }
        }
    }
    found
}

fn a_file(random: &mut Random, root: &Path) -> Option<PathBuf> {
    let files = found(root, fs::Metadata::is_file);
    (!files.is_empty()).then(|| random.pick(&files).clone())
}

fn a_directory(random: &mut Random, root: &Path) -> PathBuf {
    let mut directories = found(root, fs::Metadata::is_dir);
    directories.push(root.to_owned());
    random.pick(&directories).clone()
}

/// A name that is not taken.
fn a_place(random: &mut Random, root: &Path) -> PathBuf {
    let directory = a_directory(random, root);
    loop {
        let path = directory.join(format!("n{}", random.below(200)));
        if fs::symlink_metadata(&path).is_err() {
            return path;
        }
    }
}

/// Mostly small; one in three is one of a few, so that many are equal.
fn content(random: &mut Random) -> Vec<u8> {
    if random.once_in(3) {
        let seed = random.below(6);
        return Random::new(seed).bytes(1000 * seed as usize);
    }
    let length = random.below(20_000) as usize;
    random.bytes(length)
}

fn create(random: &mut Random, root: &Path) {
    let place = a_place(random, root);
    fs::write(place, content(random)).unwrap();
}

fn create_large(random: &mut Random, root: &Path) {
    let (place, length) = (a_place(random, root), LARGE + random.below(LARGE as u64) as usize);
    fs::write(place, random.bytes(length)).unwrap();
}

fn copy(random: &mut Random, root: &Path) {
    let Some(from) = a_file(random, root) else { return };
    fs::copy(from, a_place(random, root)).unwrap();
}

fn append(random: &mut Random, root: &Path) {
    let Some(path) = a_file(random, root) else { return };
    let more = content(random);
    fs::File::options().append(true).open(path).unwrap().write_all(&more).unwrap();
}

fn shrink(random: &mut Random, root: &Path) {
    let Some(path) = a_file(random, root) else { return };
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_len(random.below(file.metadata().unwrap().len() + 1)).unwrap();
}

/// Other bytes in as many, at the same time.
fn rewrite(random: &mut Random, root: &Path) {
    let Some(path) = a_file(random, root) else { return };
    let before = fs::metadata(&path).unwrap();
    fs::write(&path, random.bytes(before.len() as usize)).unwrap();
    set_mtime(&path, before.mtime(), before.mtime_nsec());
}

/// The same by another inode that takes the name.
fn replace(random: &mut Random, root: &Path) {
    let Some(path) = a_file(random, root) else { return };
    let before = fs::metadata(&path).unwrap();
    let other = a_place(random, root);
    fs::write(&other, random.bytes(before.len() as usize)).unwrap();
    set_mtime(&other, before.mtime(), before.mtime_nsec());
    fs::rename(other, path).unwrap();
}

/// A few bytes somewhere inside, at the same time.
fn edit_inside(random: &mut Random, root: &Path) {
    let Some(path) = a_file(random, root) else { return };
    let before = fs::metadata(&path).unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    let bytes = random.bytes(before.len().min(64) as usize);
    file.write_all_at(&bytes, random.below(before.len() - bytes.len() as u64 + 1)).unwrap();
    set_mtime(&path, before.mtime(), before.mtime_nsec());
}

fn sparse(random: &mut Random, root: &Path) {
    let Some(path) = a_file(random, root) else { return };
    let file = fs::File::options().write(true).open(path).unwrap();
    let length = file.metadata().unwrap().len();
    file.set_len(length + 4096 * random.below(100)).unwrap();
    file.write_all_at(b"end", length + 4096 * random.below(200)).unwrap();
}

/// To a name that is free or to that of another file.
fn rename(random: &mut Random, root: &Path) {
    let Some(from) = a_file(random, root) else { return };
    let over = a_file(random, root).filter(|_| random.once_in(2));
    let to = over.unwrap_or_else(|| a_place(random, root));
    fs::rename(from, to).unwrap();
}

/// Two files or two directories, none of which is in the other.
fn swap(random: &mut Random, root: &Path) {
    let all = found(root, |_| true);
    if all.is_empty() {
        return;
    }
    let (a, b) = (random.pick(&all).clone(), random.pick(&all).clone());
    if !a.starts_with(&b) && !b.starts_with(&a) {
        rustix::fs::renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).unwrap();
    }
}

fn move_directory(random: &mut Random, root: &Path) {
    let (from, to) = (a_directory(random, root), a_place(random, root));
    if !to.starts_with(&from) {
        fs::rename(from, to).unwrap();
    }
}

fn link(random: &mut Random, root: &Path) {
    let Some(from) = a_file(random, root) else { return };
    fs::hard_link(from, a_place(random, root)).unwrap();
}

fn remove(random: &mut Random, root: &Path) {
    let Some(path) = a_file(random, root) else { return };
    fs::remove_file(path).unwrap();
}

fn remove_directory(random: &mut Random, root: &Path) {
    let path = a_directory(random, root);
    // Seldom, or little would ever be left.
    if path != root && random.once_in(3) {
        fs::remove_dir_all(path).unwrap();
    }
}

fn mode(random: &mut Random, root: &Path) {
    let Some(path) = a_file(random, root) else { return };
    let mode = rustix::fs::Mode::from_raw_mode(0o600 + random.below(0o200) as u32);
    rustix::fs::chmod(&path, mode).unwrap();
}

/// To whom the file belongs already: its ctime moves, and nothing else does.
fn owner(random: &mut Random, root: &Path) {
    let Some(path) = a_file(random, root) else { return };
    let found = fs::metadata(&path).unwrap();
    std::os::unix::fs::chown(path, Some(found.uid()), Some(found.gid())).unwrap();
}

fn xattr(random: &mut Random, root: &Path) {
    let path = if random.once_in(3) { Some(a_directory(random, root)) } else { a_file(random, root) };
    let Some(path) = path else { return };
    let name = *random.pick(&["user.one", "user.two"]);
    // One that is not there need not be removed.
    let _ = rustix::fs::removexattr(&path, name);
    if !random.once_in(3) {
        let value = random.bytes(10);
        rustix::fs::setxattr(&path, name, &value, XattrFlags::empty()).unwrap();
    }
}

fn touch(random: &mut Random, root: &Path) {
    let Some(path) = a_file(random, root) else { return };
    set_mtime(&path, random.between(0, 1_700_000_000), 0);
}

/// A file becomes a directory, a link or the other way round, under the same name.
fn change_kind(random: &mut Random, root: &Path) {
    let all = found(root, |_| true);
    if all.is_empty() {
        return;
    }
    let path = random.pick(&all);
    let was_file = fs::symlink_metadata(path).unwrap().is_file();
    if path.is_dir() && !path.is_symlink() {
        // What it held goes on elsewhere.
        let aside = root.join(format!("was{}", random.any()));
        fs::rename(path, aside).unwrap();
    } else {
        fs::remove_file(path).unwrap();
    }
    match random.below(3) {
        0 if was_file => symlink("elsewhere", path).unwrap(),
        1 | 2 if was_file => {
            fs::create_dir(path).unwrap();
            fs::write(path.join("inner"), content(random)).unwrap();
        }
        _ => fs::write(path, content(random)).unwrap(),
    }
}

fn make_directory(random: &mut Random, root: &Path) {
    fs::create_dir(a_place(random, root)).unwrap();
}

fn make_symlink(random: &mut Random, root: &Path) {
    let target = format!("../n{}", random.below(200));
    symlink(target, a_place(random, root)).unwrap();
}
