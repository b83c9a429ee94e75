//! How the command behaves when it is called wrongly, when its output goes nowhere, and when it is told to end.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use diptych_tests::command::{Finished, binary, command, finish};
use diptych_tests::random::Random;
use diptych_tests::{TestDir, Tree, tree};

/// Runs words that are split at spaces, in `dir`: paths are told from there.
fn run(dir: &TestDir, words: &str) -> Finished {
    finish(command(words.split(' ')).current_dir(dir.path()))
}

/// A folder with a `tree`, and with `home`, an archive of it.
fn archived(name: &str, tree: &Tree) -> TestDir {
    let dir = TestDir::new(name);
    tree.create(&dir.join("tree"));
    run(&dir, "create home tree").assert_code(0);
    dir
}

fn small_tree() -> Tree {
    tree! { "a" => Tree::file("some bytes"), "empty" => Tree::file(""), "d" => tree! { "b" => Tree::file("more") } }
}

/// What each verb prints on standard output.
const PRINTING: [&str; 14] = [
    "--help",
    "--version",
    "create --help",
    "completions bash",
    "list home",
    "list --json home",
    "list --long home",
    "cat home a",
    "hash home",
    "hash tree",
    "export home",
    "create - tree",
    "diff home other",
    "diff --json home other",
];
/// What only tells of itself there: with a summary, after what was asked for is done.
const TELLING: [&str; 5] = [
    "verify --json home",
    "hash --json home",
    "create --json --force again tree",
    "extract --json --overwrite home out",
    "extract --json --verbose --overwrite home out",
];

fn with_other() -> TestDir {
    let dir = archived("output", &small_tree());
    tree! { "a" => Tree::file("others") }.create(&dir.join("changed"));
    run(&dir, "create other changed").assert_code(0);
    dir
}

#[test]
fn a_full_disk_is_no_success() {
    let dir = with_other();
    for words in PRINTING.iter().chain(&TELLING) {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let finished = finish(command(words.split(' ')).current_dir(dir.path()).stdout(full)).assert_code(1);
        assert!(finished.messages().contains("No space left"), "{words}: {}", finished.messages());
        assert!(!finished.messages().contains("panicked"), "{words}: {}", finished.messages());
    }
}

#[test]
fn a_reader_that_went_away_is_no_matter_for_messages() {
    let dir = with_other();
    let cases = PRINTING.iter().map(|words| (words, 1)).chain(TELLING.iter().map(|words| (words, 0)));
    for (words, code) in cases {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let finished =
            finish(command(words.split(' ')).current_dir(dir.path()).stdout(writer)).assert_code(code);
        assert_eq!(finished.messages(), "", "{words}");
    }
}

#[test]
fn messages_that_nobody_hears_change_nothing() {
    let dir = archived("deaf", &small_tree());
    for (words, code) in [("verify home", 0), ("list nowhere", 1), ("create --force home tree", 0)] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        finish(command(words.split(' ')).current_dir(dir.path()).stderr(full)).assert_code(code);
    }
}

#[test]
fn empty_files_are_not_lost_with_the_chunk_of_their_neighbours() {
    let dir = archived("empty", &small_tree());
    let data = dir.join("home.data.dpt");
    let mut bytes = fs::read(&data).unwrap();
    bytes[40] ^= 1;
    fs::write(&data, bytes).unwrap();
    let messages = run(&dir, "verify home").assert_code(1).messages();
    assert!(messages.contains("diptych: a: "), "{messages}");
    assert!(messages.contains("diptych: d/b: "), "{messages}");
    assert!(!messages.contains("empty"), "{messages}");
    assert!(!messages.contains("(corrupt) (corrupt)"), "{messages}");
}

/// A job that tells of each entry to a pipe that is full: it stands still until somebody reads.
fn stuck_job(dir: &TestDir, shell: Option<&str>) -> Child {
    let words: Vec<OsString> =
        ["create", "--json", "--verbose", "new", "tree"].iter().map(OsString::from).collect();
    let mut command = match shell {
        None => command(words),
        Some(before) => {
            let mut command = Command::new("sh");
            command.args(["-c", &format!("{before}; exec \"$0\" \"$@\"")]).arg(binary()).args(words);
            command
        }
    };
    let mut child =
        command.current_dir(dir.path()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    child
}

fn many_files(dir: &TestDir) {
    let name = |number| (format!("{number}-{}", "n".repeat(200)).into_bytes(), Tree::file(""));
    Tree::directory((0..800).map(name)).create(&dir.join("tree"));
}

fn kill(child: &Child, signal: &str) {
    let status = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

/// Waits until the thread that takes signals has taken all there are and waits for the next, or until the process ended.
fn wait_until_signals_are_taken(child: &mut Child) {
    let process = PathBuf::from(format!("/proc/{}", child.id()));
    let is_pending = || {
        let status = fs::read_to_string(process.join("status")).unwrap_or_default();
        let pending = status.lines().find_map(|line| line.strip_prefix("ShdPnd:")).unwrap_or_default();
        pending.trim().bytes().any(|digit| digit != b'0')
    };
    let is_waiting = || {
        let threads = fs::read_dir(process.join("task")).into_iter().flatten().flatten();
        let mut stats =
            threads.map(|thread| fs::read_to_string(thread.path().join("stat")).unwrap_or_default());
        stats.any(|stat| stat.contains("(signals) S "))
    };
    while child.try_wait().unwrap().is_none() && (is_pending() || !is_waiting()) {
        std::thread::yield_now();
    }
}

#[test]
fn a_job_that_is_told_to_end_leaves_nothing() {
    let dir = TestDir::new("signals");
    many_files(&dir);
    for signal in ["-HUP", "-INT", "-TERM"] {
        let mut child = stuck_job(&dir, None);
        let files = fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(files, 3, "the job had not begun to write");
        kill(&child, signal);
        wait_until_signals_are_taken(&mut child);
        drop(child.stdout.take());
        assert_eq!(child.wait().unwrap().code(), Some(130), "{signal}");
        let left: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["tree"], "{signal}");
    }
}

#[test]
fn nobody_waits_for_input_that_does_not_come() {
    let dir = TestDir::new("no-input");
    let mut extract = command(["extract", "-", "out"]);
    let mut child = extract.current_dir(dir.path()).stdin(Stdio::piped()).spawn().unwrap();
    wait_until_signals_are_taken(&mut child);
    kill(&child, "-INT");
    let input = child.stdin.take();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    drop(input);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_job_that_was_started_with_nohup_goes_on() {
    let dir = TestDir::new("nohup");
    many_files(&dir);
    let mut child = stuck_job(&dir, Some("trap '' HUP"));
    kill(&child, "-HUP");
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    run(&dir, "verify new").assert_code(0);
}

#[test]
fn an_archive_inside_its_tree_does_not_hold_itself() {
    let dir = TestDir::new("inside");
    small_tree().create(&dir.join("self"));
    fs::create_dir(dir.join("self/odd [*] name")).unwrap();
    for archive in ["self/arch", "self/odd [*] name/a\\b!"] {
        let create = |options: &[&str]| {
            let words = [&["create"], options, &[archive, "self"]].concat();
            finish(command(words).current_dir(dir.path())).assert_code(0).messages()
        };
        let list = || {
            let listed = finish(command(["list", archive]).current_dir(dir.path())).assert_code(0).text();
            listed.lines().filter(|line| line.contains(".dpt")).map(str::to_owned).collect::<Vec<_>>()
        };
        let messages = create(&["-e", "/arch.*"]);
        assert!(!messages.contains("left out"), "nothing was there: {messages}");
        assert_eq!(list(), [""; 0]);
        let messages = create(&["--force", "-e", "/arch.*"]);
        assert_eq!(messages.matches("left out").count(), 2, "{messages}");
        assert_eq!(list(), [""; 0]);
    }
    // Another archive in the same place is a file like others.
    run(&dir, "create self/arch2 self").assert_code(0);
    let listed = run(&dir, "list self/arch2").assert_code(0).text();
    assert!(listed.contains("arch.meta.dpt") && !listed.contains("arch2"), "{listed}");
    // Standard output may lie there as well.
    let out = File::create(dir.join("self/stream.dpt")).unwrap();
    finish(command(["create", "-", "self"]).current_dir(dir.path()).stdout(out)).assert_code(0);
    let listed = run(&dir, "list self/stream.dpt").assert_code(0).text();
    assert!(listed.contains("arch2.meta.dpt") && !listed.contains("stream"), "{listed}");
}

#[test]
fn half_an_archive_is_refused_at_once() {
    let dir = archived("half", &small_tree());
    tree! { "a" => Tree::file("others"), "b" => Tree::file(Random::new(1).bytes(5000)) }
        .create(&dir.join("changed"));
    run(&dir, "create other changed").assert_code(0);
    fs::copy(dir.join("home.meta.dpt"), dir.join("mixed.meta.dpt")).unwrap();
    fs::copy(dir.join("other.data.dpt"), dir.join("mixed.data.dpt")).unwrap();
    fs::copy(dir.join("home.meta.dpt"), dir.join("single")).unwrap();
    let refused = |finished: Finished, what: &str| {
        let messages = finished.assert_code(1).messages();
        assert_eq!(messages.matches("diptych: ").count(), 1, "{messages}");
        assert!(messages.contains(what), "{messages}");
    };
    for words in ["extract mixed out", "verify mixed"] {
        refused(run(&dir, words), "mixed.data.dpt: this data file belongs to another archive");
    }
    for words in ["extract single out", "verify single", "cat single a", "export single"] {
        refused(run(&dir, words), "single holds the metadata alone");
    }
    for (file, what) in [
        ("home.meta.dpt", "the metadata alone"),
        ("home.data.dpt", "the contents alone"),
        ("tree/a", "this is no archive"),
        ("/dev/null", "this is no archive"),
    ] {
        let (reader, mut writer) = std::io::pipe().unwrap();
        // A pipe holds as much.
        std::io::Write::write_all(&mut writer, &fs::read(dir.join(file)).unwrap()).unwrap();
        drop(writer);
        let finished = finish(command(["extract", "-", "out"]).current_dir(dir.path()).stdin(reader));
        refused(finished, what);
    }
    assert!(!dir.join("out").exists());
}

#[test]
fn wrong_calls_are_told_in_full() {
    let dir = archived("wrong", &small_tree());
    fs::write(dir.join("patterns"), "# a comment\n\n*.o\na[b\n").unwrap();
    fs::create_dir(dir.join("blocked.meta.dpt")).unwrap();
    let cases = [
        // Options come before the archive that is there already.
        ("create -e [ home tree", 2, "--exclude \"[\" is no pattern"),
        ("create -e ! home tree", 2, "it matches nothing"),
        ("create --exclude= home tree", 2, "it matches nothing"),
        ("create -e #x home tree", 2, "is a comment"),
        ("create --exclude-from patterns home tree", 2, "patterns line 4: \"a[b\" is no pattern"),
        (
            "create home tree",
            1,
            "home.meta.dpt is there already: give another name, or --force to replace it (io)",
        ),
        ("create no/such tree", 1, "there is no directory no"),
        ("create --force blocked tree", 1, "blocked.meta.dpt is a directory: give another name"),
        ("create . tree", 2, "give the archive a name in it"),
        ("create tree/ tree", 2, "give the archive a name in it"),
        ("cat home nope", 1, "nope: is not in the archive"),
        ("list home nope*", 1, "nope*: nothing in the archive matches"),
        ("list home [", 2, "no pattern can be read from it: unclosed character class"),
        ("extract home out {a", 2, "no pattern can be read from it: unclosed alternate group"),
        ("list home ", 2, "an empty PATH names nothing"),
        ("list tree/a", 1, "this is no archive"),
        ("verify tree/empty", 1, "this is no archive"),
        ("hash home -e x", 2, "there is none here"),
    ];
    for (words, code, what) in cases {
        let messages = run(&dir, words).assert_code(code).messages();
        assert!(messages.contains(what), "{words}: {messages}");
    }
    assert!(!dir.join("blocked.data.dpt").exists());
    // A name that looks like half a pattern can be named.
    fs::write(dir.join("tree/["), "").unwrap();
    run(&dir, "create --force home tree").assert_code(0);
    assert_eq!(run(&dir, "list home [").assert_code(0).text(), "[\n");
}

#[test]
fn names_and_times_in_json_can_be_read_back() {
    let dir = TestDir::new("json");
    tree! { "odd" => Tree::file(""), "old" => Tree::file("").mtime(-1, 500_000_000) }
        .create(&dir.join("tree"));
    for (name, value) in [(&b"user.\xfe"[..], b"1"), (b"user.\xff", b"2"), (b"user.a", b"3")] {
        rustix::fs::setxattr(dir.join("tree/odd"), name, value, rustix::fs::XattrFlags::empty()).unwrap();
    }
    run(&dir, "create home tree").assert_code(0);
    let listed = run(&dir, "list --json home").assert_code(0).text();
    let line =
        |name: &str| listed.lines().find(|line| line.contains(&format!("\"path\":\"{name}\""))).unwrap();
    let xattrs = r#""xattrs":{"user.a":"33"},"xattrs_hex":{"757365722efe":"31","757365722eff":"32"}"#;
    assert!(line("odd").contains(xattrs), "{listed}");
    assert!(line("old").contains(r#""mtime":"-1.500000000""#), "{listed}");
}
