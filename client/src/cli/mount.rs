//! `diptych mount` and `diptych umount`.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use diptych_mount::{Files, Log, MountOptions};
use nix::syslog::{Facility, LogFlags, Severity};

use crate::allocator;
use crate::archive_path::ArchivePath;
use crate::error::{Error, Result};
use crate::mount::{Means, archive_tree, snapshot_tree, snapshots_forest, with_disk_cache};
use crate::names;
use crate::size::parse_size;
use crate::snapshots::{find, list, may_be_snapshot, split};

use super::options::{Common, Threads};
use super::outcome::Outcome;
use super::output;
use super::repository::MaybeRepository;
use super::signals;
use super::snapshots::FilterOptions;
use super::terminal::Terminal;

/// Least memory for what is kept.
const CACHE_MIN: u64 = 16 << 20;
/// Between two looks at whether it is over.
const LOOK: Duration = Duration::from_millis(100);
/// What the process in the background says when its mount is there.
const READY: &[u8] = b"mounted\n";
/// Said by the command to itself when it goes on in the background.
const BACKGROUND: &str = "DIPTYCH_MOUNT_BACKGROUND";
/// How the sources begin that the system's list of mounts shows.
const SOURCE: &str = "diptych:";

/// Show an archive, a snapshot or all snapshots as a read-only file system.
///
/// Everything is there with all that was kept of it: owners, times, ACLs, extended attributes, holes, hard links. Nothing is
/// read before somebody asks for it. The command ends when the file system is there, and a process in the background
/// answers until it is unmounted: by `diptych umount`, `fusermount3 -u`, or a signal to that process. What cannot be read
/// is an error (EIO) for whoever wants it, and is named in the system log, or with --foreground on standard error.
#[derive(clap::Args)]
#[command(override_usage = "diptych mount [OPTIONS] ARCHIVE MOUNTPOINT
       diptych mount [OPTIONS] -r LOCATION SNAPSHOT[:PATH] MOUNTPOINT
       diptych mount [OPTIONS] -r LOCATION MOUNTPOINT")]
#[command(after_help = "\
Example:
  diptych mount /backup/home /mnt
  diptych mount -r /backup/repo latest:/home/alice /mnt
  diptych mount -r /backup/repo /mnt
  diptych umount /mnt")]
pub struct Arguments {
    /// What to show: an archive (NAME, NAME.meta.dpt, or one file with both streams); or in a repository `latest` or the
    /// first digits of a snapshot's id, with a path as it was on the source behind a colon if not all of it is meant. Without
    /// it, all snapshots of a repository stand by id, time, host and tag.
    #[arg(value_name = "WHAT")]
    first: PathBuf,
    /// The directory to show it at.
    #[arg(value_name = "MOUNTPOINT")]
    second: Option<PathBuf>,
    /// Stay in the foreground until it is unmounted.
    #[arg(short, long)]
    foreground: bool,
    /// Let others than yourself look at it; root may always.
    #[arg(long)]
    allow_other: bool,
    /// Show all of it as belonging to you.
    #[arg(long)]
    owner_here: bool,
    /// Memory for directories and contents that are kept, such as 200M or 2G.
    #[arg(long, value_name = "SIZE", default_value = "512M", value_parser = parse_cache)]
    cache_size: u64,
    /// Disk space on this machine for contents that were fetched from a server, in the user's cache directory; 0 for none.
    #[arg(long, value_name = "SIZE", default_value = "2G", value_parser = parse_size)]
    disk_cache: u64,
    #[command(flatten)]
    repository: MaybeRepository,
    #[command(flatten)]
    filter: FilterOptions,
    #[command(flatten)]
    threads: Threads,
}

fn parse_cache(text: &str) -> Result<u64, String> {
    match parse_size(text)? {
        size if size < CACHE_MIN => Err(format!("{}M is the least", CACHE_MIN >> 20)),
        size => Ok(size),
    }
}

impl Arguments {
    /// What to show, and where.
    fn split(&self) -> Result<(Option<&Path>, &Path)> {
        match &self.second {
            Some(place) => Ok((Some(&self.first), place)),
            None if self.repository.given().is_some() => Ok((None, &self.first)),
            None => {
                let what = "write what to show and where: an archive and a directory, or -r LOCATION and a directory";
                Err(Error::Usage(what.to_owned()))
            }
        }
    }
}

pub(super) fn run(arguments: &Arguments, common: &Common) -> Result<Outcome> {
    let (what, place) = arguments.split()?;
    check_place(place)?;
    let is_background = std::env::var_os(BACKGROUND).is_some();
    if !arguments.foreground && !is_background {
        return start_in_background();
    }
    // What leads there may change, and this process goes elsewhere.
    let place = &*place
        .canonicalize()
        .map_err(|error| Error::io(place.display().to_string(), "cannot be found", error))?;
    let terminal = Terminal::quiet(common);
    allocator::give_back_large_blocks();
    let files = open(arguments, what, &terminal)?;
    let interrupt = signals::watch();
    let options = MountOptions {
        source: format!("{SOURCE}{}", what.unwrap_or(Path::new("all")).display()),
        allow_other: arguments.allow_other,
        owner: arguments.owner_here.then(here),
        threads: arguments.threads.count(),
    };
    let log: Log = match is_background {
        // There is nobody else to tell.
        true => Arc::new(|path, error| {
            let _ = nix::syslog::syslog(Severity::LOG_ERR, &line(path, error));
        }),
        false => Arc::new(|path, error| output::say(&format!("diptych: {}", line(path, error)))),
    };
    let mounted =
        diptych_mount::mount(files, place, &options, log).map_err(|error| not_mounted(place, error))?;
    if is_background {
        go_to_background()?;
    } else if !common.quiet {
        let place = place.display();
        output::say(&format!("mounted at {place}; end it by Ctrl-C, or `diptych umount {place}`"));
    }
    let own = topmost(place);
    while !mounted.is_over() && !interrupt.load(Ordering::Relaxed) {
        std::thread::park_timeout(LOOK);
    }
    if !mounted.is_over() && own.is_some() && topmost(place) == own {
        // Whoever still uses it does not keep it from ending.
        detach(place);
    }
    mounted
        .unmount()
        .map_err(|error| Error::io(place.display().to_string(), "cannot be unmounted", error))?;
    Ok(Outcome::Done)
}

/// The user and the group of this process.
fn here() -> (u32, u32) {
    (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw())
}

fn open(arguments: &Arguments, what: Option<&Path>, terminal: &Arc<Terminal>) -> Result<Arc<dyn Files>> {
    let means = Means { cache_bytes: arguments.cache_size, threads: arguments.threads.count() };
    let filter = arguments.filter.filter();
    let given = arguments.repository.given();
    let Some(what) = what else {
        let options = given.ok_or_else(|| Error::Usage("-r LOCATION says which repository".to_owned()))?;
        let repository = with_disk_cache(options.open_to_read(&**terminal)?, arguments.disk_cache)?;
        let forest = snapshots_forest(repository, filter, here(), means, terminal.clone())?;
        return Ok(Arc::new(forest));
    };
    let text = what.to_str().unwrap_or_default();
    let snapshot = text.strip_prefix("snapshot:");
    let is_there = snapshot.is_none() && ArchivePath::find(what).metadata_file().exists();
    let given = given.filter(|_| !is_there && may_be_snapshot(snapshot.unwrap_or(text)));
    let Some(options) = given else { return Ok(Arc::new(archive_tree(what, means)?)) };
    let repository = with_disk_cache(options.open_to_read(&**terminal)?, arguments.disk_cache)?;
    let (text, path) = split(snapshot.unwrap_or(text));
    let listed = list(&repository, &**terminal)?;
    let found = find(&listed, text, &filter)?;
    Ok(Arc::new(snapshot_tree(&repository, &found, path.map(Path::new), means)?))
}

fn check_place(place: &Path) -> Result<()> {
    let told = place.display().to_string();
    match place.metadata() {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => {
            Err(Error::missing(told, "this is no directory, and one is needed to show the files at", ""))
        }
        Err(error) => Err(Error::io(told, "the files cannot be shown there", error)),
    }
}

fn not_mounted(place: &Path, error: std::io::Error) -> Error {
    let advice = match Path::new("/dev/fuse").exists() {
        false => {
            "This needs FUSE: as root, run `modprobe fuse`, and install fuse3 (`apt-get install fuse3`). \
            Without it, `diptych restore` and `diptych cat` give files."
        }
        true if nix::unistd::geteuid().is_root() => "",
        true if std::fs::File::options().read(true).write(true).open("/dev/fuse").is_err() => {
            "You may not open /dev/fuse, which on most systems everybody may: as root, `chmod 666 /dev/fuse`."
        }
        true => {
            "Whoever is not root needs fusermount3: install fuse3 (`apt-get install fuse3`). \
            --allow-other needs user_allow_other in /etc/fuse.conf."
        }
    };
    let cause = diptych_format::Error::io("cannot be mounted", error);
    Error::Failed { place: place.display().to_string(), cause, advice: advice.to_owned() }
}

/// Starts this command once more, and ends when that one says that the file system is there.
fn start_in_background() -> Result<Outcome> {
    let failed = |error| Error::io("mount", "cannot go on in the background", error);
    let program = std::env::current_exe().map_err(failed)?;
    let mut child = Command::new(program)
        .args(std::env::args_os().skip(1))
        .env(BACKGROUND, "1")
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let mut said = Vec::new();
    if let Some(mut output) = child.stdout.take() {
        output.read_to_end(&mut said).map_err(failed)?;
    }
    if said == READY {
        return Ok(Outcome::Done);
    }
    // What is wrong was told already.
    let code = child.wait().map_err(failed)?.code().and_then(|code| u8::try_from(code).ok());
    Ok(Outcome::As(code.unwrap_or(1)))
}

/// Lets go of the terminal, and tells the one who waits.
fn go_to_background() -> Result<()> {
    let failed = |error: std::io::Error| Error::io("mount", "cannot go on in the background", error);
    let flags = LogFlags::LOG_PID;
    nix::syslog::openlog(Some(c"diptych"), flags, Facility::LOG_DAEMON)
        .map_err(|error| failed(error.into()))?;
    // Whoever starts a session already has one of their own.
    let _ = nix::unistd::setsid();
    std::env::set_current_dir("/").map_err(failed)?;
    let mut output = std::io::stdout();
    output.write_all(READY).and_then(|()| output.flush()).map_err(failed)?;
    let nothing = std::fs::File::options().read(true).write(true).open("/dev/null").map_err(failed)?;
    for redirect in [rustix::stdio::dup2_stdin, rustix::stdio::dup2_stderr, rustix::stdio::dup2_stdout] {
        redirect(nothing.as_fd()).map_err(|error| failed(error.into()))?;
    }
    Ok(())
}

/// What could not be read, in one line.
fn line(path: &[u8], error: &diptych_format::Error) -> String {
    format!("{}: {error}", names::show(path))
}

/// Unmount what `diptych mount` has mounted.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  diptych umount /mnt")]
pub struct UmountArguments {
    /// The directory that it is shown at.
    #[arg(value_name = "MOUNTPOINT")]
    place: PathBuf,
}

pub(super) fn umount(arguments: &UmountArguments) -> Result<Outcome> {
    let told = arguments.place.display().to_string();
    let found = mount_point(&arguments.place).map_err(|error| Error::io(&told, "cannot be found", error))?;
    // A link to it is followed only if it is not the place itself, for what is mounted there may answer no more.
    let place = match topmost(&found) {
        Some(_) => found,
        None => arguments.place.canonicalize().unwrap_or(found),
    };
    if topmost(&place).is_none() {
        return Err(Error::missing(told, "nothing that diptych has mounted is there", ""));
    }
    if nix::unistd::geteuid().is_root() {
        nix::mount::umount(&place).map_err(|error| Error::io(told, "cannot be unmounted", error.into()))?;
        return Ok(Outcome::Done);
    }
    let ended = Command::new("fusermount3")
        .args(["-u", "--"])
        .arg(&place)
        .status()
        .map_err(|error| Error::io("fusermount3", "cannot be run: install fuse3", error))?;
    Ok(Outcome::As(if ended.success() { 0 } else { 1 }))
}

/// The place as the list of mounts has it. What is mounted there is not looked at: it may answer no more.
fn mount_point(place: &Path) -> std::io::Result<PathBuf> {
    let place = std::path::absolute(place)?;
    match (place.parent(), place.file_name()) {
        (Some(above), Some(name)) => Ok(above.canonicalize()?.join(name)),
        _ => Ok(place),
    }
}

/// Takes a mount out of sight, whoever uses it.
fn detach(place: &Path) {
    if nix::unistd::geteuid().is_root() {
        // If it cannot be detached, it is unmounted or left as any other would be.
        let _ = nix::mount::umount2(place, nix::mount::MntFlags::MNT_DETACH);
    } else {
        let _ = Command::new("fusermount3").args(["-u", "-z", "-q", "--"]).arg(place).status();
    }
}

/// The device of what is mounted at `place` on top of all else, if it is one of ours.
fn topmost(place: &Path) -> Option<String> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    topmost_in(&mounts, place)
}

fn topmost_in(mounts: &str, place: &Path) -> Option<String> {
    let fields = mounts.lines().rev().filter_map(|line| line.split_once(" - "));
    let is_there = |mount: &str| {
        mount.split(' ').nth(4).is_some_and(|shown| unescaped(shown) == place.as_os_str().as_bytes())
    };
    let (mount, kind) = fields.into_iter().find(|(mount, _)| is_there(mount))?;
    let mut kind = kind.split(' ');
    let is_ours = kind.next().is_some_and(|kind| kind.starts_with("fuse"))
        && kind.next().is_some_and(|source| source.starts_with(SOURCE));
    mount.split(' ').nth(2).filter(|_| is_ours).map(str::to_owned)
}

/// A path of the list of mounts: blanks and the like are written as a backslash and three octal digits.
fn unescaped(shown: &str) -> Vec<u8> {
    let mut parts = shown.split('\\');
    let mut path = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        match part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                path.push(byte);
                path.extend_from_slice(part.get(3..).unwrap_or_default().as_bytes());
            }
            None => path.extend_from_slice(part.as_bytes()),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_found_in_the_list() {
        let line =
            r"36 35 0:28 / /a\040b\134c ro,nosuid,nodev,noatime shared:1 - fuse diptych:home ro,user_id=0";
        let place = Path::new(r"/a b\c");
        assert_eq!(topmost_in(line, place).as_deref(), Some("0:28"));
        assert_eq!(topmost_in(line, Path::new("/a")), None);
        assert_eq!(topmost_in(&line.replace(SOURCE, "host:"), place), None);
        // Something else is mounted on top.
        assert_eq!(topmost_in(&[line, &line.replace(SOURCE, "host:")].join("\n"), place), None);
    }
}
