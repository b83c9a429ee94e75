//! Archives and snapshots as file systems, mounted by the real kernel and looked at by other people's tools.

use std::ffi::OsStr;
use std::fs;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use diptych_client::open::OpenArchive;
use diptych_decoder::{Archive, Owners};
use diptych_encoder::{Cuts, LinkKey, TreeEncoder};
use diptych_format::{Name, Status};
use diptych_mount::{Files, Ino, Memory, Tree as MountTree};
use diptych_tests::command::{command, diptych};
use diptych_tests::random::for_each_seed;
use diptych_tests::tools::{self, output, tool};
use diptych_tests::tree::Size;
use diptych_tests::{Random, Run, TestDir, Tree, tree};
use rustix::process::{Pid, Signal, kill_process};

use crate::served::Served;

/// Longer than any of this takes.
const HANGS: Duration = Duration::from_secs(60);

/// A mount by a process in the foreground, which is ended when this is dropped.
struct Mount {
    place: PathBuf,
    process: Option<Child>,
}

impl Mount {
    fn new<A: AsRef<OsStr>>(place: &Path, words: impl IntoIterator<Item = A>) -> Self {
        let mut command = command(["mount", "--foreground"]);
        command.args(words);
        Self::by(place, command)
    }

    /// By a command that lacks the place and nothing else.
    fn by(place: &Path, mut command: Command) -> Self {
        fs::create_dir_all(place).unwrap();
        let mut process = command.arg(place).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let is_there = || is_mounted(place);
        if !waits_for(|| is_there() || process.try_wait().unwrap().is_some()) || !is_there() {
            process.kill().unwrap();
            let output = process.wait_with_output().unwrap();
            panic!("{}: not mounted: {}", place.display(), String::from_utf8_lossy(&output.stderr));
        }
        Self { place: place.to_owned(), process: Some(process) }
    }

    fn join(&self, path: impl AsRef<Path>) -> PathBuf {
        self.place.join(path)
    }

    fn pid(&self) -> Pid {
        Pid::from_child(self.process.as_ref().unwrap())
    }

    /// Unmounts it, and gives what the process said.
    fn end(mut self) -> String {
        diptych(["umount".as_ref(), self.place.as_os_str()]).assert_code(0);
        self.wait(0)
    }

    fn wait(&mut self, code: i32) -> String {
        let mut process = self.process.take().unwrap();
        assert!(waits_for(|| process.try_wait().unwrap().is_some()), "it goes on without its mount");
        let output = process.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(!is_mounted(&self.place));
        said
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = tool("umount").args(["-l"]).arg(&self.place).status();
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn waits_for(mut is_so: impl FnMut() -> bool) -> bool {
    (0..HANGS.as_millis() / 5).any(|_| {
        let is_so = is_so();
        if !is_so {
            std::thread::sleep(Duration::from_millis(5));
        }
        is_so
    })
}

fn is_mounted(place: &Path) -> bool {
    let place = place.parent().unwrap().canonicalize().unwrap().join(place.file_name().unwrap());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts.lines().any(|line| line.split(' ').nth(4).map(Path::new) == Some(&place))
}

fn create(archive: &Path, source: &Path) {
    let words = ["create".as_ref(), "--no-ignore-files".as_ref(), archive.as_os_str(), source.as_os_str()];
    diptych(words).assert_code(0);
}

fn hash(of: &Path) -> String {
    diptych(["hash".as_ref(), "--no-ignore-files".as_ref(), of.as_os_str()]).assert_code(0).text()
}

/// Fails unless rsync and all the others say the same of both trees. Numbers of links alone are not compared for
/// directories, whose subdirectories no table counts.
#[track_caller]
fn assert_tools_see_no_difference(original: &Path, mounted: &Path) {
    assert_eq!(tools::rsync_differences(original, mounted), "");
    assert_eq!(tools::getfattr(original), tools::getfattr(mounted));
    assert_eq!(tools::getfacl(original), tools::getfacl(mounted));
    assert_eq!(tools::getcap(original), tools::getcap(mounted));
    assert_eq!(tools::lsattr(original), tools::lsattr(mounted));
    Tree::read(original).assert_same(&Tree::read(mounted));
}

fn casync_digest(dir: &Path) -> Vec<u8> {
    let with = ["unix", "xattrs", "acl", "fcaps"].map(|feature| format!("--with={feature}"));
    output(tool("casync").arg("digest").args(with).arg(dir))
}

#[test]
fn a_mounted_archive_is_the_tree() {
    let dir = TestDir::new("mount-made-up");
    for_each_seed(8, |random| {
        let number = random.any();
        let [source, archive, place] =
            ["source", "archive", "place"].map(|name| dir.join(format!("{name}-{number}")));
        Tree::made_up(random, Size::SMALL).create(&source);
        create(&archive, &source);
        let mount = Mount::new(&place, [&archive]);
        assert_tools_see_no_difference(&source, &place);
        assert_eq!(hash(&place), diptych(["hash".as_ref(), archive.as_os_str()]).assert_code(0).text());
        mount.end();
    });
}

#[test]
fn casync_finds_the_same_digest() {
    let dir = TestDir::new("mount-casync");
    let source = dir.join("source");
    tree! {
        "a" => Tree::file("content").mtime(1_000_000_000, 5).xattr("user.x", "y"),
        "d" => tree! { "l" => Tree::symlink("../a"), "f" => Tree::fifo(), "n" => Tree::char_device(1, 3) },
        "long" => Tree::runs([Run::Made { seed: 1, length: 3 << 20 }]),
    }
    .create(&source);
    create(&dir.join("archive"), &source);
    let mount = Mount::new(&dir.join("place"), [dir.join("archive")]);
    assert_eq!(casync_digest(&source), casync_digest(&mount.place));
    mount.end();
}

/// More names than one piece holds, in several levels of pieces with directories among them.
#[test]
fn a_large_directory_is_listed_whole_and_searched() {
    let dir = TestDir::new("mount-large");
    let source = dir.join("source");
    fs::create_dir(&source).unwrap();
    for number in 0..12_000 {
        let path = source.join(format!("{:05}", number * 7919 % 100_003));
        match number % 500 {
            0 => fs::create_dir(&path).and_then(|()| fs::write(path.join("below"), "x")).unwrap(),
            _ => fs::write(path, number.to_string()).unwrap(),
        }
    }
    create(&dir.join("archive"), &source);
    let mount = Mount::new(&dir.join("place"), [dir.join("archive")]);
    let names = |path: &Path| {
        let mut names: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(fs::read_to_string(mount.join("07919")).unwrap(), "1");
    assert!(fs::metadata(mount.join("07918x")).is_err());
    assert_eq!(names(&source), names(&mount.place));
    assert_eq!(tools::rsync_differences(&source, &mount.place), "");
    mount.end();
}

#[test]
fn names_of_one_inode_have_one_number_and_the_same_each_time() {
    let dir = TestDir::new("mount-links");
    let source = dir.join("source");
    tree! {
        "b" => Tree::hard_link("d/z"),
        "d" => tree! { "e" => tree! { "x" => Tree::hard_link("d/z") }, "z" => Tree::file("linked") },
        "single" => Tree::file("alone"),
    }
    .create(&source);
    create(&dir.join("archive"), &source);
    let numbers = || {
        let mount = Mount::new(&dir.join("place"), [dir.join("archive")]);
        let of = |path: &str| {
            let metadata = fs::symlink_metadata(mount.join(path)).unwrap();
            (metadata.ino(), metadata.nlink())
        };
        let numbers = ["d/e/x", "b", "d/z", "single"].map(of);
        assert_eq!(tools::rsync_differences(&source, &mount.place), "");
        mount.end();
        numbers
    };
    let [x, b, z, single] = numbers();
    assert!(x == b && b == z && x.1 == 3, "{x:?} {b:?} {z:?}");
    assert!(single.0 != x.0 && single.1 == 1);
    assert_eq!(numbers(), [x, b, z, single]);
}

#[test]
fn nothing_can_be_written_and_nothing_runs_with_other_rights() {
    let dir = TestDir::new("mount-read-only");
    let source = dir.join("source");
    tree! { "f" => Tree::file("content").mode(0o4755), "d" => tree! {} }.create(&source);
    create(&dir.join("archive"), &source);
    let mount = Mount::new(&dir.join("place"), [dir.join("archive")]);
    let file = mount.join("f");
    let c_name = |name: &str| mount.join(name);
    let flags = rustix::fs::OFlags::WRONLY;
    let mode = rustix::fs::Mode::from_raw_mode(0o644);
    let now = rustix::fs::Timestamps {
        last_access: rustix::fs::Timespec { tv_sec: 1, tv_nsec: 0 },
        last_modification: rustix::fs::Timespec { tv_sec: 1, tv_nsec: 0 },
    };
    // The calls that pjdfstest tries on a file system that is read-only.
    let errors: Vec<std::io::Error> = vec![
        fs::write(&file, "x").unwrap_err(),
        fs::write(c_name("new"), "x").unwrap_err(),
        fs::remove_file(&file).unwrap_err(),
        fs::rename(&file, c_name("g")).unwrap_err(),
        fs::rename(c_name("d"), c_name("e")).unwrap_err(),
        fs::create_dir(c_name("d/new")).unwrap_err(),
        fs::remove_dir(c_name("d")).unwrap_err(),
        fs::hard_link(&file, c_name("h")).unwrap_err(),
        std::os::unix::fs::symlink("f", c_name("l")).unwrap_err(),
        std::os::unix::fs::chown(&file, Some(1), None).unwrap_err(),
        std::os::unix::fs::lchown(&file, Some(1), Some(1)).unwrap_err(),
        std::os::unix::net::UnixListener::bind(c_name("s")).unwrap_err(),
        fs::set_permissions(&file, fs::metadata(&source).unwrap().permissions()).unwrap_err(),
        rustix::fs::open(&file, flags | rustix::fs::OFlags::TRUNC, mode).unwrap_err().into(),
        rustix::fs::open(&file, rustix::fs::OFlags::RDWR, mode).unwrap_err().into(),
        rustix::fs::mknodat(rustix::fs::CWD, c_name("p"), rustix::fs::FileType::Fifo, mode, 0)
            .unwrap_err()
            .into(),
        rustix::fs::mknodat(rustix::fs::CWD, c_name("b"), rustix::fs::FileType::BlockDevice, mode, 0x700)
            .unwrap_err()
            .into(),
        rustix::fs::utimensat(rustix::fs::CWD, &file, &now, rustix::fs::AtFlags::empty()).unwrap_err().into(),
        rustix::fs::setxattr(&file, "user.x", b"y", rustix::fs::XattrFlags::empty()).unwrap_err().into(),
        rustix::fs::removexattr(&file, "user.x").unwrap_err().into(),
    ];
    for (number, error) in errors.iter().enumerate() {
        assert_eq!(error.kind(), ErrorKind::ReadOnlyFilesystem, "{number}: {error}");
    }
    assert_eq!(fs::read(&file).unwrap(), b"content");
    let options = fs::read_to_string("/proc/self/mounts").unwrap();
    let line = options.lines().find(|line| line.contains(mount.place.to_str().unwrap())).unwrap();
    assert!(line.contains("ro,nosuid,nodev"), "{line}");
    mount.end();
}

#[test]
fn a_snapshot_and_a_directory_in_one() {
    let dir = TestDir::new("mount-snapshot");
    let source = dir.join("source");
    // The first name of what is linked lies outside of what is mounted.
    tree! {
        "a" => Tree::file("linked").mtime(5, 0),
        "docs" => tree! { "again" => Tree::hard_link("a"), "deep" => tree! { "x" => Tree::file("deep") } },
    }
    .create(&source);
    let repository = dir.join("repo");
    let run = |words: &[&str]| {
        let mut command = command(words);
        command.env("DIPTYCH_REPO", &repository).current_dir(dir.path());
        diptych_tests::command::finish(&mut command).assert_code(0)
    };
    run(&["init", "--no-encryption"]);
    run(&["backup", "source"]);
    let place = dir.join("place");
    let repo = ["-r".into(), repository.display().to_string()];
    let mount = Mount::new(&place, [&repo[..], &["latest".into()]].concat());
    assert_tools_see_no_difference(&source, &place);
    mount.end();
    let docs = format!("latest:{}/docs", source.display());
    let mount = Mount::new(&place, [&repo[..], &[docs]].concat());
    assert_eq!(fs::read(mount.join("again")).unwrap(), b"linked");
    assert_eq!(fs::read(mount.join("deep/x")).unwrap(), b"deep");
    assert_eq!(fs::metadata(mount.join("again")).unwrap().mtime(), 5);
    assert_eq!(fs::metadata(mount.join("deep/..")).unwrap().ino(), fs::metadata(&place).unwrap().ino());
    mount.end();
}

#[test]
fn all_snapshots_stand_by_id_time_host_and_tag_and_new_ones_appear() {
    let dir = TestDir::new("mount-all");
    for (name, bytes) in [("one", 100_000), ("two", 3_000_000)] {
        let content = Tree::runs([Run::Made { seed: 7, length: bytes }]);
        tree! { "d" => tree! { "f" => content, "l" => Tree::hard_link("d/f") } }.create(&dir.join(name));
    }
    let repository = dir.join("repo");
    let run = |words: &[&str]| {
        let mut command = command(words);
        command.env("DIPTYCH_REPO", &repository).env("DIPTYCH_PASSWORD", "secret").current_dir(dir.path());
        diptych_tests::command::finish(&mut command).assert_code(0)
    };
    run(&["init"]);
    run(&["backup", "--tag", "daily", "--host", "here", "one"]);
    std::thread::sleep(Duration::from_millis(1100));
    run(&["backup", "--tag", "a/b", "--host", "there", "one", "two"]);
    let place = dir.join("place");
    let (repo, password) = (repository.display().to_string(), dir.join("password"));
    fs::write(&password, "secret").unwrap();
    let mount = Mount::new(&place, ["-r", &repo, "--password-file", password.to_str().unwrap()]);
    let names = |path: &Path| {
        let mut names: Vec<_> = fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(&place), ["hosts", "ids", "latest", "tags", "times"]);
    assert_eq!(names(&place.join("hosts")), ["here", "there"]);
    assert_eq!(names(&place.join("tags")), ["a_b", "daily"]);
    assert_eq!((names(&place.join("ids")).len(), names(&place.join("times")).len()), (2, 3));
    let on_source = |name: &str| dir.join(name).strip_prefix("/").unwrap().to_owned();
    for (at, name) in [("latest", "one"), ("latest", "two"), ("hosts/here/latest", "one")] {
        let found = place.join(at).join(on_source(name));
        assert_tools_see_no_difference(&dir.join(name), &found);
    }
    assert!(!place.join("hosts/here/latest").join(on_source("two")).exists());
    // The same content in two snapshots are two inodes.
    let number = |at: &str| fs::metadata(place.join(at).join(on_source("one")).join("d/f")).unwrap().ino();
    assert_ne!(number("latest"), number("hosts/here/latest"));
    assert_eq!(fs::write(place.join("ids/new"), "x").unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
    let before = fs::read_link(place.join("latest")).unwrap();
    run(&["backup", "two"]);
    assert!(waits_for(|| names(&place.join("ids")).len() == 3), "a new snapshot does not appear");
    assert!(waits_for(|| fs::read_link(place.join("latest")).unwrap() != before));
    assert_eq!(tools::rsync_differences(&dir.join("two"), &place.join("latest").join(on_source("two"))), "");
    run(&["forget", before.file_name().unwrap().to_str().unwrap()]);
    assert!(waits_for(|| names(&place.join("ids")).len() == 2), "a forgotten snapshot stays");
    mount.end();
}

#[test]
fn what_comes_from_a_server_is_kept_on_disk_and_a_lost_server_is_waited_for() {
    let mut served = Served::plain("mount-served");
    let token = served.admin();
    served.run(&token, &["init"]).assert_code(0);
    let source = served.directory.join("tree");
    tree! {
        "d" => tree! { "small" => Tree::file("some bytes").mtime(7, 7) },
        "long" => Tree::runs([Run::Made { seed: 3, length: 20 << 20 }]),
        "other" => Tree::runs([Run::Made { seed: 4, length: 9 << 20 }]),
    }
    .create(&source);
    served.run(&token, &["backup", "tree"]).assert_code(0);
    let place = served.directory.join("place");
    let mount = |more: &[&str]| {
        let words = [&["mount", "--foreground", "--timeout", "2", "latest"], more].concat();
        Mount::by(&place, served.client(&token, &served.repository("main"), &words))
    };
    let first = mount(&["--disk-cache", "64M"]);
    assert_eq!(tools::rsync_differences(&source, &place), "");
    first.end();
    let kept = || {
        let caches =
            fs::read_dir(served.directory.join(format!("cache-{}", &token[4..12])).join("diptych")).unwrap();
        let chunks =
            caches.map(|entry| entry.unwrap().path()).find(|path| path.extension().is_some()).unwrap();
        fs::read_dir(chunks).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>()
    };
    assert!(kept().len() > 5);
    // What is damaged there is fetched again.
    for path in kept() {
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    let second = mount(&["--disk-cache", "64M"]);
    assert_eq!(tools::rsync_differences(&source, &place), "");
    second.end();
    // A limit holds.
    let third = mount(&["--disk-cache", "16M"]);
    fs::read(place.join("long")).unwrap();
    let sum: u64 = kept().iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert!(sum <= 16 << 20, "{sum}");
    third.end();
    // What the kernel has of it suffices where the server is gone.
    let fourth = mount(&["--disk-cache", "0"]);
    let small = fs::read(place.join("d/small")).unwrap();
    served.child.kill().unwrap();
    served.child.wait().unwrap();
    assert_eq!(fs::read(place.join("d/small")).unwrap(), small);
    assert_eq!(fs::read(place.join("other")).err().and_then(|error| error.raw_os_error()), Some(5));
    let address = served.location.split("://").nth(1).unwrap().to_owned();
    let mut again = Command::new(diptych_tests::command::binary());
    again.args(["serve", "--log", "none", "--plain", "--listen", &address, "--root"]);
    again.arg(served.directory.join("root")).arg("--state").arg(served.directory.join("state"));
    served.child = again.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    assert!(waits_for(|| fs::read(place.join("other")).is_ok_and(|bytes| bytes.len() == 9 << 20)));
    assert_eq!(tools::rsync_differences(&source, &place), "");
    fourth.end();
}

#[test]
fn a_damaged_chunk_costs_its_own_bytes_and_is_named() {
    let dir = TestDir::new("mount-damage");
    let source = dir.join("source");
    let long = Random::new(5).bytes(20 << 20);
    tree! { "d" => tree! { "long" => Tree::file(&long) }, "small" => Tree::file("whole") }.create(&source);
    let archive = dir.join("archive");
    diptych([
        "create".as_ref(),
        "--compression".as_ref(),
        "none".as_ref(),
        archive.as_os_str(),
        source.as_os_str(),
    ])
    .assert_code(0);
    let data = fs::File::options().read(true).write(true).open(dir.join("archive.data.dpt")).unwrap();
    let stored = fs::read(dir.join("archive.data.dpt")).unwrap();
    let place = stored.windows(64).position(|window| *window == long[10 << 20..][..64]).unwrap();
    data.write_all_at(&[stored[place] ^ 1], place as u64).unwrap();
    let mount = Mount::new(&dir.join("place"), [&archive]);
    let file = fs::File::open(mount.join("d/long")).unwrap();
    let mut lost = 0;
    for block in 0..long.len() / 4096 {
        let mut buffer = [0; 4096];
        match file.read_exact_at(&mut buffer, block as u64 * 4096) {
            Ok(()) => assert_eq!(buffer[..], long[block * 4096..][..4096]),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(5), "{error}");
                lost += 1;
            }
        }
    }
    // A chunk, with what the kernel reads together with it.
    assert!(lost > 0 && lost * 4096 < 8 << 20, "{lost}");
    assert_eq!(fs::read(mount.join("small")).unwrap(), b"whole");
    drop(file);
    let said = mount.end();
    let told: Vec<_> = said.lines().filter(|line| line.contains("d/long")).collect();
    assert!(told.len() == 1 && told[0].contains("corrupt"), "{said}");
}

#[test]
fn it_ends_by_a_signal_by_umount_and_when_it_is_busy() {
    let dir = TestDir::new("mount-ends");
    let source = dir.join("source");
    tree! { "f" => Tree::file("content") }.create(&source);
    create(&dir.join("archive"), &source);
    let mut mount = Mount::new(&dir.join("place"), [dir.join("archive")]);
    let busy = fs::File::open(mount.join("f")).unwrap();
    kill_process(mount.pid(), Signal::TERM).unwrap();
    mount.wait(0);
    assert!(fs::read_dir(&mount.place).unwrap().next().is_none());
    drop(busy);
    // Somebody who reads keeps it from being unmounted in an orderly way, and goes on reading.
    let mount = Mount::new(&dir.join("place"), [dir.join("archive")]);
    let mut file = fs::File::open(mount.join("f")).unwrap();
    let messages = diptych(["umount".as_ref(), mount.place.as_os_str()]).assert_code(1).messages();
    assert!(messages.contains("busy"), "{messages}");
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "content");
    drop(file);
    mount.end();
    // In the background.
    let place = dir.join("place");
    let archive = dir.join("archive");
    let words = ["mount".as_ref(), "--".as_ref(), archive.as_os_str(), place.as_os_str()];
    diptych(words).assert_code(0);
    assert_eq!(fs::read(place.join("f")).unwrap(), b"content");
    // By a link, once nothing else is on top of it.
    let link = dir.join("link");
    std::os::unix::fs::symlink(&place, &link).unwrap();
    let shell = r#"mount -t tmpfs none "$1" && "$2" umount "$1"; code=$?; umount "$1"; exit $code"#;
    let covered =
        tool("sh").args(["-c", shell, "sh"]).arg(&place).arg(diptych_tests::command::binary()).status();
    assert_eq!(covered.unwrap().code(), Some(1));
    diptych(["umount".as_ref(), link.as_os_str()]).assert_code(0);
    assert!(!is_mounted(&place));
    let messages = diptych(["umount".as_ref(), place.as_os_str()]).assert_code(1).messages();
    assert!(messages.contains("nothing that diptych has mounted"), "{messages}");
}

#[test]
fn many_read_at_once_and_each_gets_what_is_there() {
    let dir = TestDir::new("mount-many");
    let source = dir.join("source");
    let long = Random::new(11).bytes(24 << 20);
    tree! { "long" => Tree::file(&long) }.create(&source);
    for directory in 0..20 {
        let path = source.join(format!("d{directory}"));
        fs::create_dir(&path).unwrap();
        (0..60).for_each(|file| {
            fs::write(path.join(file.to_string()), format!("{directory} {file}").repeat(99)).unwrap()
        });
    }
    create(&dir.join("archive"), &source);
    // So little memory that what one reads drives out what another one needs.
    let words = [dir.join("archive").into_os_string(), "--cache-size=16M".into(), "--threads=4".into()];
    let mount = Mount::new(&dir.join("place"), words);
    std::thread::scope(|scope| {
        for number in 0..8u64 {
            let (mount, long) = (&mount, &long);
            scope.spawn(move || {
                let mut random = Random::new(number);
                let file = fs::File::open(mount.join("long")).unwrap();
                for _ in 0..150 {
                    let length = 1 + random.below(300_000) as usize;
                    let start = random.below((long.len() - length) as u64) as usize;
                    let mut buffer = vec![0; length];
                    file.read_exact_at(&mut buffer, start as u64).unwrap();
                    assert!(buffer == long[start..][..length]);
                    let (directory, file) = (random.below(20), random.below(60));
                    let text = fs::read_to_string(mount.join(format!("d{directory}/{file}"))).unwrap();
                    assert_eq!(text, format!("{directory} {file}").repeat(99));
                }
            });
        }
    });
    // What was handed over before it was asked for, too.
    assert_eq!(tools::rsync_differences(&source, &mount.place), "");
    assert_eq!(tools::rsync_differences(&source, &mount.place), "");
    mount.end();
}

#[test]
fn memory_is_bounded_whatever_is_read() {
    let dir = TestDir::new("mount-memory");
    let source = dir.join("source");
    let mut random = Random::new(7);
    for directory in 0..24 {
        let path = source.join(directory.to_string());
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("long"), random.bytes(6 << 20)).unwrap();
        (0..400).for_each(|file| fs::write(path.join(file.to_string()), random.bytes(2000)).unwrap());
    }
    create(&dir.join("archive"), &source);
    let words = [dir.join("archive").into_os_string(), "--cache-size=16M".into(), "--threads=16".into()];
    let mount = Mount::new(&dir.join("place"), words);
    std::thread::scope(|scope| {
        for directory in 0..24 {
            let path = mount.join(directory.to_string());
            scope.spawn(move || {
                for entry in fs::read_dir(path).unwrap() {
                    assert!(!fs::read(entry.unwrap().path()).unwrap().is_empty());
                }
            });
        }
    });
    let status = fs::read_to_string(format!("/proc/{}/status", mount.pid().as_raw_pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    // What was said, and 64 MiB.
    assert!(peak <= (16 + 64) << 10, "{peak} KiB");
    mount.end();
}

#[test]
fn holes_are_found_and_cost_nothing() {
    let dir = TestDir::new("mount-holes");
    let source = dir.join("source");
    tree! { "s" => Tree::runs([
        Run::Hole(10 << 20), Run::Data(vec![7; 65_536]), Run::Hole(1 << 30), Run::Data(b"end".to_vec())
    ]) }
    .create(&source);
    create(&dir.join("archive"), &source);
    let mount = Mount::new(&dir.join("place"), [dir.join("archive")]);
    let mut file = fs::File::open(mount.join("s")).unwrap();
    let data = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(0)).unwrap();
    assert_eq!(data, 10 << 20);
    assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(data)).unwrap(), data + 65_536);
    let mut buffer = [1; 16];
    file.seek(SeekFrom::Start((10 << 20) - 8)).unwrap();
    file.read_exact(&mut buffer).unwrap();
    assert_eq!(buffer, [0, 0, 0, 0, 0, 0, 0, 0, 7, 7, 7, 7, 7, 7, 7, 7]);
    let metadata = fs::metadata(mount.join("s")).unwrap();
    assert_eq!((metadata.size(), metadata.blocks()), ((1 << 30) + (10 << 20) + 65_539, 129));
    drop(file);
    mount.end();
}

/// Names of one inode may differ in what is no content, and a table that lies may join what is not one. Without a kernel.
#[test]
fn names_of_one_inode_show_the_same_and_what_is_not_one_is_not_joined() {
    let inode = |number| LinkKey { device: 1, inode: number };
    let name = |text: &str| Name::try_new(text.as_bytes()).unwrap();
    let mut encoder = TreeEncoder::new(Cuts::plain());
    encoder.enter(tree! {}.entry(Name::root())).unwrap();
    for (text, file, number) in [
        ("a", Tree::file("same").mode(0o600), 1),
        ("b", Tree::file("same").mode(0o644).owner(7, 7), 1),
        ("c", Tree::file("short"), 2),
        ("d", Tree::file("quite another one"), 2),
    ] {
        encoder.entry(file.entry(name(text)), Some(inode(number))).unwrap();
    }
    encoder.leave(Status::COMPLETE).unwrap();
    encoder.finish(&Owners::default()).unwrap();
    let archive = Archive::open(Arc::new(encoder.take_chunks().concat())).unwrap();
    let tree = MountTree::new(archive, Arc::new(vec![0; 64]), &Memory::new(1 << 20), 0).unwrap();
    let [a, b, c, d] = [b"a", b"b", b"c", b"d"].map(|name| tree.lookup(Ino::ROOT, name).unwrap().unwrap());
    assert_eq!((a, a.permissions, a.links), (b, 0o600, 2));
    assert!(c.ino != d.ino && (c.size, d.size) == (5, 17), "{c:?} {d:?}");
    let mut listed = Vec::new();
    tree.list(Ino::ROOT, 2, &mut |found| {
        listed.push(found.attributes);
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(listed, [a, b, c, d]);
    for attributes in listed {
        assert_eq!(tree.attributes(attributes.ino).unwrap().size, attributes.size);
    }
}

/// Without a kernel: what is asked is answered from few bytes.
#[test]
fn mounting_reads_little_whatever_the_size() {
    let dir = TestDir::new("mount-little");
    let source = dir.join("source");
    for directory in 0..100 {
        let path = source.join(directory.to_string());
        fs::create_dir_all(&path).unwrap();
        (0..200).for_each(|file| fs::write(path.join(format!("file-{file}")), "").unwrap());
    }
    create(&dir.join("archive"), &source);
    let open = OpenArchive::open(&dir.join("archive")).unwrap();
    let archive = open.archive.clone();
    let tree = MountTree::new(archive.clone(), open.payload().unwrap(), &Memory::new(1 << 20), 0).unwrap();
    let after_opening = archive.bytes_read();
    assert!(after_opening < 16 << 10, "{after_opening}");
    let mut names = 0;
    tree.list(Ino::ROOT, 0, &mut |_| {
        names += 1;
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(names, 102);
    let found = tree.lookup(Ino::ROOT, b"57").unwrap().unwrap();
    assert!(tree.lookup(found.ino, b"file-199").unwrap().is_some());
    assert!(tree.lookup(found.ino, b"file-200").unwrap().is_none());
    assert!(archive.bytes_read() - after_opening < 64 << 10, "{}", archive.bytes_read());
    // A place in another directory's list is the end of this one's, and not the way into it.
    let (mut places, mut given) = (Vec::new(), 0);
    tree.list(found.ino, 0, &mut |listed| {
        places.push(listed.next);
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    let other = tree.lookup(Ino::ROOT, b"58").unwrap().unwrap();
    for place in places.into_iter().filter(|place| *place > 2).chain([3, 1 << 40, u64::MAX]) {
        tree.list(other.ino, place, &mut |_| {
            given += 1;
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    }
    assert_eq!(given, 0);
    // A cache that holds nothing changes no answer.
    let small = MountTree::new(archive, open.payload().unwrap(), &Memory::new(1), 0).unwrap();
    let files: Arc<dyn Files> = Arc::new(small);
    let again = files.lookup(Ino::ROOT, b"57").unwrap().unwrap();
    assert_eq!(again, found);
    let file = files.lookup(again.ino, b"file-7").unwrap().unwrap();
    assert_eq!(files.attributes(file.ino).unwrap(), file);
    assert_eq!(files.path(file.ino), b"57/file-7");
}
