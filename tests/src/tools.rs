//! Other people's tools: what they say of two trees must be the same.

use std::collections::BTreeMap;
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

/// The tools and the Debian packages that have them.
const PACKAGES: &[(&str, &str)] = &[
    ("bsdtar", "libarchive-tools"),
    ("casync", "casync"),
    ("chattr", "e2fsprogs"),
    ("chromedriver", "chromium-driver"),
    ("chromium", "chromium"),
    ("curl", "curl"),
    ("getcap", "libcap2-bin"),
    ("getfacl", "acl"),
    ("getfattr", "attr"),
    ("ip", "iproute2"),
    ("lsattr", "e2fsprogs"),
    ("mtree", "mtree-netbsd"),
    ("rsync", "rsync"),
    ("setcap", "libcap2-bin"),
    ("setfacl", "acl"),
    ("strace", "strace"),
    ("systemd-analyze", "systemd"),
    ("tar", "tar"),
    ("umount", "mount"),
    ("zstd", "zstd"),
];

/// The tool called `name`, from `PATH` or where Debian keeps those of the administrator.
pub fn tool(name: &str) -> Command {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let found = env::split_paths(&path).chain(system).map(|dir| dir.join(name)).find(|path| path.is_file());
    let Some(found) = found else {
        let package = PACKAGES.iter().find(|(tool, _)| *tool == name).map_or(name, |(_, package)| package);
        panic!("{name} is missing: cargo xtask test, or as root: apt-get install --yes {package}");
    };
    let mut command = Command::new(found);
    command.env("LC_ALL", "C").env("TZ", "UTC").stdin(Stdio::null());
    command
}

/// The Python that has what the independent reader needs.
pub fn python() -> Command {
    let python = crate::target().join("venv/bin/python3");
    assert!(python.exists(), "{} is missing: cargo xtask test", python.display());
    let mut command = Command::new(python);
    command.arg("-B").stdin(Stdio::null());
    command
}

/// What a tool makes of some bytes. It must succeed.
#[track_caller]
pub fn output_of(command: &mut Command, input: &[u8]) -> Vec<u8> {
    let mut file = tempfile();
    file.write_all(input).unwrap();
    file.rewind().unwrap();
    output(command.stdin(file))
}

/// A file without a name.
fn tempfile() -> fs::File {
    let path =
        crate::target().join(format!("input-{}-{:?}", std::process::id(), std::thread::current().id()));
    let file = fs::File::options().create(true).truncate(true).read(true).write(true).open(&path).unwrap();
    fs::remove_file(path).unwrap();
    file
}

/// What a tool prints. It must succeed.
#[track_caller]
pub fn output(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// What rsync would change in `copy` to make it as `original`: kinds, contents, modes, owners, times, hard links,
/// ACLs, attributes. Nothing when they are the same.
pub fn rsync_differences(original: &Path, copy: &Path) -> String {
    let mut rsync = tool("rsync");
    rsync.args(["-nacHAX", "--numeric-ids", "--delete", "--itemize-changes"]);
    let (mut from, mut to) = (original.as_os_str().to_owned(), copy.as_os_str().to_owned());
    from.push("/");
    to.push("/");
    String::from_utf8_lossy(&output(rsync.arg(from).arg(to))).into_owned()
}

/// All extended attributes below `dir`, as getfattr prints them, by path.
pub fn getfattr(dir: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut getfattr = tool("getfattr");
    paragraphs(&output(getfattr.args(["-R", "-h", "-d", "-m-", "-e", "hex", "."]).current_dir(dir)))
}

/// All access control lists below `dir`, as getfacl prints them, by path.
pub fn getfacl(dir: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    paragraphs(&output(tool("getfacl").args(["-R", "-P", "-n", "."]).current_dir(dir)))
}

/// The `chattr` flags and project ids of what lsattr looks at below `dir`, in no order but lines'. The extents
/// flag is the file system's own affair and is left out.
pub fn lsattr(dir: &Path) -> Vec<String> {
    let printed = output(tool("lsattr").args(["-R", "-a", "-p", "."]).current_dir(dir));
    let printed = String::from_utf8_lossy(&printed).into_owned();
    let lines = printed.lines().filter(|line| !line.is_empty() && !line.ends_with(':'));
    // "..", which lsattr lists as well, is the test's own affair.
    let mut lines: Vec<String> =
        lines.filter(|line| !line.ends_with("/..")).map(without_extents_flag).collect();
    lines.sort();
    lines
}

fn without_extents_flag(line: &str) -> String {
    match line.split_once(" ./") {
        Some((flags, path)) => format!("{} ./{path}", flags.replace('e', "-")),
        None => line.to_owned(),
    }
}

/// The file capabilities below `dir`, as getcap prints them.
pub fn getcap(dir: &Path) -> Vec<Vec<u8>> {
    let printed = output(tool("getcap").args(["-r", "-n", "."]).current_dir(dir));
    let mut lines: Vec<_> = printed.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    lines.sort();
    lines
}

/// What mtree says of the tree: kinds, modes, owners, sizes, nanoseconds, targets, devices, numbers of links,
/// digests.
pub fn mtree(dir: &Path) -> Vec<u8> {
    let keywords = "type,mode,uid,gid,size,time,link,nlink,device,sha256";
    let printed = output(tool("mtree").args(["-c", "-k", keywords, "-p"]).arg(dir));
    // Its first lines say who made it, where and when; an empty one ends them.
    let end = printed.windows(2).position(|pair| pair == b"\n\n").unwrap();
    printed[end..].to_vec()
}

/// What takes up how many blocks: shows that holes stayed holes.
pub fn allocated(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let here = fs::symlink_metadata(dir).unwrap();
    let below = if here.is_dir() {
        fs::read_dir(dir).unwrap().map(|found| allocated(&found.unwrap().path())).sum()
    } else {
        0
    };
    here.blocks() * 512 + below
}

/// Fails unless all of the tools above say the same of both trees.
#[track_caller]
pub fn assert_tools_see_no_difference(original: &Path, copy: &Path) {
    assert_eq!(rsync_differences(original, copy), "", "rsync: {} and {}", original.display(), copy.display());
    assert_same_map("getfattr", getfattr(original), getfattr(copy));
    assert_same_map("getfacl", getfacl(original), getfacl(copy));
    assert_eq!(lsattr(original), lsattr(copy), "lsattr");
    assert_eq!(getcap(original), getcap(copy), "getcap");
    let (before, after) = (mtree(original), mtree(copy));
    assert!(before == after, "mtree:\n{}", first_difference(&before, &after));
}

#[track_caller]
fn assert_same_map(tool: &str, before: BTreeMap<Vec<u8>, Vec<u8>>, after: BTreeMap<Vec<u8>, Vec<u8>>) {
    for path in before.keys().chain(after.keys()) {
        let text = |found: Option<&Vec<u8>>| found.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let (before, after) = (text(before.get(path)), text(after.get(path)));
        assert_eq!(before, after, "{tool}: {}", String::from_utf8_lossy(path));
    }
}

fn first_difference(before: &[u8], after: &[u8]) -> String {
    let lines = |bytes: &[u8]| String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect::<Vec<_>>();
    let (before, after) = (lines(before), lines(after));
    let index = before.iter().zip(&after).take_while(|(a, b)| a == b).count();
    format!("{:?}\n{:?}", before.get(index), after.get(index))
}

/// Paragraphs that begin with `# file: PATH`, by path.
fn paragraphs(printed: &[u8]) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut path: Option<Vec<u8>> = None;
    for line in printed.split(|byte| *byte == b'\n') {
        if let Some(name) = line.strip_prefix(b"# file: ") {
            path = Some(name.to_vec());
        } else if let Some(path) = path.as_ref().filter(|_| !line.is_empty()) {
            let lines: &mut Vec<u8> = found.entry(path.clone()).or_default();
            lines.extend_from_slice(line);
            lines.push(b'\n');
        }
    }
    found
}
