//! A `create` that is ended early ends, wherever it is: nobody in it is left waiting, no file of it is left lying, and
//! its exit code says why.
//!
//! The tree is larger than the memory that the run may take, so that every stage waits for the one behind it.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use diptych_tests::command::{binary, command};
use diptych_tests::random::Random;
use diptych_tests::{TestDir, tools};
use rustix::process::{Pid, Signal, kill_process_group};

/// Many times what any run here takes: one that is still there is waiting for nobody.
const HANGS: Duration = Duration::from_secs(60);
/// Between two looks at what a run has written.
const LOOK: Duration = Duration::from_millis(1);

/// A run with a process group of its own.
struct Run {
    group: Pid,
    ended: Receiver<Output>,
}

impl Run {
    fn of(mut child: Child) -> Self {
        let group = Pid::from_child(&child);
        child.stdin = None;
        let (sender, ended) = channel();
        std::thread::spawn(move || sender.send(child.wait_with_output().unwrap()));
        Self { group, ended }
    }

    fn signal(&self, signal: Signal) {
        kill_process_group(self.group, signal).unwrap();
    }

    /// Waits until something is so while the run goes on.
    fn until(&self, is_so: impl Fn() -> bool) {
        for _ in 0..HANGS.as_millis() / LOOK.as_millis() {
            if is_so() {
                return;
            }
            if let Ok(output) = self.ended.recv_timeout(LOOK) {
                panic!("it was over before it could be ended: {}", said(&output));
            }
        }
        self.signal(Signal::KILL);
        panic!("it got nowhere");
    }

    fn end(&self) -> Output {
        self.ended.recv_timeout(HANGS).unwrap_or_else(|_| {
            self.signal(Signal::KILL);
            panic!("it hangs");
        })
    }
}

fn said(output: &Output) -> String {
    let [out, error] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    format!("{}: {out}{error}", output.status)
}

fn spawn(command: &mut Command) -> Child {
    let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    piped.spawn().unwrap_or_else(|error| panic!("{piped:?}: {error}"))
}

fn create(archive: &Path, source: &Path) -> Command {
    let mut create = command(["create", "--max-memory", "64M", "--threads", "2"]);
    create.arg(archive).arg(source);
    create
}

/// 150 MiB that do not compress: small files, and among them large ones, each of which takes all the memory for
/// contents.
fn larger_than_memory(dir: &TestDir) -> PathBuf {
    let source = dir.join("source");
    fs::create_dir(&source).unwrap();
    let mut bytes = Random::new(1).bytes(12 << 20);
    for number in 0u64..600 {
        let length = if number % 100 == 50 { bytes.len() } else { 128 << 10 };
        // Other bytes in each, without making them all anew: no content and no chunk is there twice.
        bytes[..length].chunks_mut(4096).for_each(|page| page[..8].copy_from_slice(&number.to_le_bytes()));
        fs::write(source.join(format!("{number:03}")), &bytes[..length]).unwrap();
    }
    source
}

/// Bytes in a folder's files, one that goes away meanwhile not counted; nothing as long as there are none.
fn written(folder: &Path) -> Option<u64> {
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    files.filter_map(|file| file.metadata().ok()).map(|file| file.len()).reduce(|a, b| a + b)
}

#[track_caller]
fn assert_nothing_in(folder: &Path) {
    let left: Vec<_> = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_signal_ends_create_wherever_it_is() {
    let dir = TestDir::new("early-signal");
    let source = larger_than_memory(&dir);
    let target = dir.join("target");
    fs::create_dir(&target).unwrap();
    // A level that takes its time: what is compressed meanwhile never reaches the end before the signal does.
    let start = || {
        let mut create = create(&target.join("archive"), &source);
        Run::of(spawn(create.args(["--compression", "15"])))
    };
    for reached in (0..=24 << 20).step_by(2 << 20) {
        let run = start();
        run.until(|| written(&target).is_some_and(|length| length >= reached));
        run.signal(Signal::INT);
        let output = run.end();
        assert_eq!(output.status.code(), Some(130), "at {reached} bytes, {}", said(&output));
        assert_nothing_in(&target);
    }
    // Before it has taken the signals over, one ends it as it ends any program.
    let run = start();
    run.signal(Signal::INT);
    let status = run.end().status;
    assert!(status.code() == Some(130) || status.signal() == Some(Signal::INT.as_raw()), "{status}");
    assert_nothing_in(&target);
}

#[test]
fn a_reader_that_goes_away_ends_create_and_export() {
    let dir = TestDir::new("early-pipe");
    let source = larger_than_memory(&dir);
    let archive = dir.join("archive");
    assert!(create(&archive, &source).status().unwrap().success());
    let export = || command(["export".as_ref(), archive.as_os_str()]);
    let runs = [0, 100, 8 << 20].map(|reads| [(reads, create(Path::new("-"), &source)), (reads, export())]);
    for (reads, mut run) in runs.into_iter().flatten() {
        let mut child = spawn(&mut run);
        let mut pipe = child.stdout.take().unwrap();
        pipe.read_exact(&mut vec![0; reads]).unwrap();
        drop(pipe);
        let output = Run::of(child).end();
        assert_eq!(output.status.code(), Some(1), "after {reads} bytes, {}", said(&output));
        assert!(output.stderr.is_empty(), "a reader that has enough is no fault: {}", said(&output));
    }
}

#[test]
fn an_archive_that_cannot_be_replaced_stays_as_it_was() {
    let dir = TestDir::new("early-replace");
    let source = dir.join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("a"), "old").unwrap();
    let archive = dir.join("archive");
    assert!(create(&archive, &source).status().unwrap().success());
    let names = |path: &Path| {
        let mut names: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = names(dir.path());
    fs::write(source.join("a"), "new").unwrap();
    let metadata = dir.join("archive.meta.dpt");
    let chattr = |flag: &str| {
        assert!(tools::tool("chattr").arg(flag).arg(&metadata).status().unwrap().success());
    };
    chattr("+i");
    let mut replace = create(&archive, &source);
    let output = replace.arg("--force").output().unwrap();
    chattr("-i");
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("cannot give the archive its name"), "{}", said(&output));
    assert_eq!(names(dir.path()), before);
    let cat = command(["cat".as_ref(), archive.as_os_str(), "a".as_ref()]).output().unwrap();
    assert_eq!(cat.stdout, b"old", "{}", said(&cat));
}

#[test]
fn a_full_disk_ends_create() {
    let dir = TestDir::new("early-full");
    let source = larger_than_memory(&dir);
    let mut device = create(Path::new("-"), &source);
    device.stdout(fs::File::options().write(true).open("/dev/full").unwrap());
    let child = device.stderr(Stdio::piped()).process_group(0).spawn().unwrap();
    assert_ended_by_full_disk(&Run::of(child).end());

    let may_mount = tools::tool("unshare").args(["--mount", "true"]).output().unwrap().status.success();
    if !may_mount {
        // Past the capture of what tests print.
        let _ = writeln!(std::io::stderr(), "without CAP_SYS_ADMIN, the only disk that is full is /dev/full");
        return;
    }
    let target = dir.join("target");
    fs::create_dir(&target).unwrap();
    // The small disk goes with the shell, whatever becomes of the test; so the shell lists what is left on it.
    let script = r#"mount -t tmpfs -o size=2m none "$1" || exit 99; shift
        "$@"; code=$?; ls -A "${0}"; exit $code"#;
    let mut shell = tools::tool("unshare");
    shell.args(["--mount", "sh", "-c", script]).arg(&target).arg(&target);
    let inner = create(&target.join("archive"), &source);
    shell.arg(binary()).args(inner.get_args());
    let output = Run::of(spawn(&mut shell)).end();
    assert_ended_by_full_disk(&output);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "left on the full disk");
}

#[track_caller]
fn assert_ended_by_full_disk(output: &Output) {
    assert_eq!(output.status.code(), Some(1), "{}", said(output));
    assert!(said(output).contains("No space left on device"), "{}", said(output));
}
