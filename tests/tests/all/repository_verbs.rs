//! The verbs of a repository beside backup and restore: what is shown of snapshots, and how they are forgotten, copied and
//! unlocked.

use std::fs;
use std::path::Path;

use diptych_repository::Repository;
use diptych_repository::documents::{Body, Snapshot, SnapshotKind};
use diptych_tests::command::{Finished, command, finish};
use diptych_tests::{Random, Run, TestDir, Tree, tree};
use jiff::SignedDuration;
use serde_json::Value;

/// A folder with a repository `repo` that is not encrypted, and no snapshot.
pub fn with_repository(name: &str) -> TestDir {
    let dir = TestDir::new(name);
    run(&dir, "init --no-encryption").assert_code(0);
    dir
}

/// Runs words that are split at spaces on the repository `repo`, in `dir`.
pub fn run(dir: &TestDir, words: &str) -> Finished {
    finish(command(words.split(' ')).current_dir(dir.path()).env("DIPTYCH_REPO", "repo"))
}

fn lines(finished: Finished) -> Vec<String> {
    finished.assert_code(0).text().lines().map(str::to_owned).collect()
}

pub fn json_lines(finished: Finished) -> Vec<Value> {
    lines(finished).iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Backs the folder `tree` up, with more words; gives the snapshot's id.
pub fn backup(dir: &TestDir, words: &str) -> String {
    let summary = json_lines(run(dir, &format!("backup --json{words} tree")));
    summary.last().unwrap()["snapshot"].as_str().unwrap().to_owned()
}

/// The path of a place in the folder, as snapshots tell it.
fn on_source(dir: &TestDir, path: &str) -> String {
    dir.path().canonicalize().unwrap().join(path).to_str().unwrap().to_owned()
}

/// The ids of all snapshots that are not forgotten.
pub fn living(dir: &TestDir, words: &str) -> Vec<String> {
    let listed = json_lines(run(dir, &format!("snapshots --json{words}")));
    listed.iter().map(|line| line["id"].as_str().unwrap().to_owned()).collect()
}

pub fn small_tree() -> Tree {
    tree! {
        "a.txt" => Tree::file("some bytes").mtime(1_000_000_000, 5),
        "d" => tree! {
            "b.TXT" => Tree::file("more"),
            "e" => tree! { "c.txt" => Tree::file("deep"), "l" => Tree::symlink("c.txt") },
        },
    }
}

/// What one sender says of a host does not make another's snapshots forgotten, where it is known who sent which.
#[test]
fn senders_are_not_counted_together() {
    let dir = with_repository("forget-senders");
    fs::create_dir(dir.join("tree")).unwrap();
    let ids = [("web", "1"), ("web", "2"), ("other", "3")].map(|(sender, content)| {
        fs::write(dir.join("tree/file"), content).unwrap();
        (backup(&dir, ""), sender)
    });
    let senders: Vec<String> = ids.iter().map(|(id, sender)| format!("{id} {sender}\n")).collect();
    fs::write(dir.join("senders"), senders.concat()).unwrap();
    let text = run(&dir, "forget --keep-last 1 --senders senders").assert_code(0).text();
    // One of each is kept.
    let forgotten: Vec<&str> = text.lines().filter(|line| line.trim().starts_with("forget ")).collect();
    assert!(forgotten.len() == 1 && forgotten[0].contains(&ids[0].0[..8]), "{text}");
}

#[test]
fn ls_shows_a_directory_with_paths_of_the_source() {
    let dir = with_repository("ls");
    small_tree().create(&dir.join("tree"));
    backup(&dir, "");
    let root = on_source(&dir, "tree");
    let at = |path: &str| format!("{root}/{path}");
    let both = [at("a.txt"), at("d/")];
    assert_eq!(lines(run(&dir, "ls latest")), both);
    assert_eq!(lines(run(&dir, &format!("ls latest:{root}/"))), both);
    // Told from the root of the only archive.
    assert_eq!(lines(run(&dir, "ls latest:d")), [at("d/b.TXT"), at("d/e/")]);
    let all = [at("d/b.TXT"), at("d/e/"), at("d/e/c.txt"), at("d/e/l")];
    assert_eq!(lines(run(&dir, &format!("ls --recursive latest:{root}/d"))), all);
    assert_eq!(lines(run(&dir, &format!("ls latest:{root}/a.txt"))), [at("a.txt")]);
    assert_eq!(lines(run(&dir, &format!("ls latest:{root}/**/*.txt"))), [at("a.txt"), at("d/e/c.txt")]);
    let long = lines(run(&dir, "ls --long latest:d/e"));
    assert!(long[0].ends_with(&at("d/e/c.txt")) && long[0].starts_with("-rw"), "{long:?}");
    let json = json_lines(run(&dir, "ls --json latest:a.txt"));
    assert_eq!((json[0]["path"].as_str(), json[0]["size"].as_u64()), (Some(&at("a.txt")[..]), Some(10)));
    let messages = run(&dir, "ls latest:nope").assert_code(1).messages();
    assert!(messages.contains("nope: is not in snapshot"), "{messages}");
    run(&dir, "ls ffff").assert_code(1);
    run(&dir, "ls neither").assert_code(2);
}

#[test]
fn ls_shows_all_archives_of_a_snapshot() {
    let dir = with_repository("ls-all");
    tree! { "a" => Tree::file("") }.create(&dir.join("one"));
    tree! { "b" => Tree::file("") }.create(&dir.join("two"));
    run(&dir, "backup one two").assert_code(0);
    assert_eq!(lines(run(&dir, "ls latest")), [on_source(&dir, "one/a"), on_source(&dir, "two/b")]);
    assert_eq!(
        lines(run(&dir, &format!("ls latest:{}", on_source(&dir, "two")))),
        [on_source(&dir, "two/b")]
    );
}

#[test]
fn cat_prints_a_content_of_a_snapshot() {
    let dir = with_repository("cat-snapshot");
    let bytes = Random::new(7).bytes(700_000);
    tree! { "large" => Tree::file(bytes.clone()), "d" => tree! {} }.create(&dir.join("tree"));
    let old = backup(&dir, "");
    fs::write(dir.join("tree/large"), "new").unwrap();
    backup(&dir, "");
    let path = on_source(&dir, "tree/large");
    assert_eq!(run(&dir, &format!("cat {old}:{path}")).assert_code(0).stdout, bytes);
    assert_eq!(
        run(&dir, &format!("cat {old}:{path} --range 1000-300000")).assert_code(0).stdout,
        bytes[1000..300_000]
    );
    assert_eq!(run(&dir, "cat latest:large").assert_code(0).text(), "new");
    let messages = run(&dir, "cat latest:d").assert_code(1).messages();
    assert!(messages.contains("d: is no file but a directory"), "{messages}");
    let messages = run(&dir, "cat latest").assert_code(2).messages();
    assert!(messages.contains("SNAPSHOT:PATH"), "{messages}");
    let messages = finish(command(["cat", "latest:large"]).current_dir(dir.path())).assert_code(2).messages();
    assert!(messages.contains("-r LOCATION"), "{messages}");
}

#[test]
fn find_looks_through_all_snapshots() {
    let dir = with_repository("find");
    small_tree().create(&dir.join("tree"));
    let first = backup(&dir, " --tag old");
    fs::write(dir.join("tree/d/e/new.txt"), "12345").unwrap();
    fs::rename(dir.join("tree/d"), dir.join("tree/moved")).unwrap();
    let second = backup(&dir, "");
    let found = |words: &str| -> Vec<(String, String)> {
        let of = |line: &Value, key: &str| line[key].as_str().unwrap().to_owned();
        json_lines(run(&dir, &format!("find --json {words}")))
            .iter()
            .map(|line| (of(line, "snapshot"), of(line, "path")))
            .collect()
    };
    let at = |snapshot: &str, path: &str| (snapshot.to_owned(), on_source(&dir, &format!("tree/{path}")));
    let everywhere = [
        at(&first, "a.txt"),
        at(&first, "d/e/c.txt"),
        at(&second, "a.txt"),
        at(&second, "moved/e/c.txt"),
        at(&second, "moved/e/new.txt"),
    ];
    assert_eq!(found("*.txt"), everywhere);
    assert_eq!(found("-i b.txt"), [at(&first, "d/b.TXT"), at(&second, "moved/b.TXT")]);
    assert_eq!(found("--snapshot latest c.*"), [at(&second, "moved/e/c.txt")]);
    assert_eq!(found("--tag old e"), [at(&first, "d/e")]);
    // Of two equal directories the one whose path matches.
    assert_eq!(found("**/moved/**/c.txt"), [at(&second, "moved/e/c.txt")]);
    assert_eq!(found("/c.txt"), []);
    let line = lines(run(&dir, "find --snapshot latest new.txt")).remove(0);
    assert!(
        line.starts_with(&second[..8]) && line.ends_with("moved/e/new.txt") && line.contains(" 5  "),
        "{line}"
    );
    let messages = run(&dir, "find nope").assert_code(0).messages();
    assert_eq!(messages, "nothing found\n");
}

#[test]
fn find_remembers_equal_directories_and_nothing_of_others() {
    let dir = with_repository("find-equal");
    let twin = || tree! { "x" => Tree::file("1").mtime(7, 0), "sub" => tree! { "x" => Tree::file("2").mtime(8, 0) }.mtime(9, 0) };
    tree! { "p" => twin().mtime(1, 0), "q" => twin().mtime(1, 0), "x" => Tree::file("3") }
        .create(&dir.join("tree"));
    backup(&dir, "");
    let found: Vec<String> = json_lines(run(&dir, "find --json x"))
        .iter()
        .map(|line| line["path"].as_str().unwrap().rsplit_once("tree/").unwrap().1.to_owned())
        .collect();
    assert_eq!(found, ["x", "p/x", "p/sub/x", "q/x", "q/sub/x"]);
}

#[test]
fn diff_takes_snapshots_directories_and_archives() {
    let dir = with_repository("diff-snapshots");
    small_tree().create(&dir.join("tree"));
    let first = backup(&dir, "");
    run(&dir, "create home tree").assert_code(0);
    fs::write(dir.join("tree/d/e/c.txt"), "changed").unwrap();
    fs::write(dir.join("tree/d/e/n"), "").unwrap();
    let second = backup(&dir, "");
    let all = ["M d/e/ (mtime)", "M d/e/c.txt (content, mtime)", "+ d/e/n"];
    for sides in [
        format!("{first} {second}"),
        format!("{first} latest"),
        format!("{first} tree"),
        format!("home {second}"),
        format!("home snapshot:{second}"),
    ] {
        assert_eq!(lines(run(&dir, &format!("diff {sides}"))), all, "{sides}");
    }
    assert_eq!(lines(run(&dir, "diff latest tree")), [""; 0]);
    run(&dir, &format!("diff --exit-code {first} latest")).assert_code(1);
    // Below directories, whose own attributes are not compared.
    let root = on_source(&dir, "tree");
    let below = ["M c.txt (content, mtime)", "+ n"];
    for sides in [
        format!("{first}:{root}/d/e latest:{root}/d/e"),
        format!("{first}:d/e tree/d/e"),
        format!("{first}:d/e latest:d/e"),
    ] {
        assert_eq!(lines(run(&dir, &format!("diff {sides}"))), below, "{sides}");
    }
    // What is there is meant, unless it is written that a snapshot is.
    fs::create_dir(dir.join("latest")).unwrap();
    assert_eq!(run(&dir, "diff latest latest").assert_code(0).text(), "");
    let removed = run(&dir, "diff snapshot:latest latest").assert_code(0).text();
    assert!(removed.contains("- a.txt\n"), "{removed}");
    let messages = run(&dir, &format!("diff {first}:a.txt tree")).assert_code(1).messages();
    assert!(messages.contains("is no directory"), "{messages}");
    let messages =
        finish(command(["diff", "snapshot:1", "tree"]).current_dir(dir.path())).assert_code(2).messages();
    assert!(messages.contains("-r LOCATION"), "{messages}");
}

#[test]
fn links_count_below_a_directory_too() {
    let dir = with_repository("diff-links");
    tree! { "d" => tree! { "a" => Tree::file("x").mtime(5, 0), "b" => Tree::file("x").mtime(5, 0) }.mtime(6, 0) }
        .create(&dir.join("tree"));
    let first = backup(&dir, "");
    fs::remove_dir_all(dir.join("tree")).unwrap();
    tree! { "d" => tree! { "a" => Tree::file("x").mtime(5, 0), "b" => Tree::hard_link("d/a") }.mtime(6, 0), "z" => Tree::file("") }
        .create(&dir.join("tree"));
    let found = lines(run(&dir, &format!("diff {first}:d snapshot:{}:d", backup(&dir, ""))));
    assert_eq!(found, ["M a (links)", "M b (links)"]);
}

#[test]
fn forget_keeps_what_the_policy_keeps() {
    let dir = with_repository("forget");
    small_tree().create(&dir.join("tree"));
    let ids: Vec<String> = ["", " --tag gold", "", ""].iter().map(|words| backup(&dir, words)).collect();
    let other = backup(&dir, " --host elsewhere");
    let dry = json_lines(run(&dir, "forget --json --dry-run --keep-last 1 --keep-tag gold"));
    let kept: Vec<&str> = dry
        .iter()
        .filter(|line| line["kept"] == true)
        .map(|line| line["snapshot"].as_str().unwrap())
        .collect();
    let expected: std::collections::BTreeSet<&str> = [&ids[1][..], &ids[3], &other].into();
    assert_eq!(kept.into_iter().collect::<std::collections::BTreeSet<_>>(), expected);
    let summary = dry.last().unwrap();
    assert_eq!((summary["kept"].as_u64(), summary["forgotten"].as_u64()), (Some(3), Some(2)));
    assert_eq!(living(&dir, "").len(), 5, "a dry run forgets nothing");
    let shown = lines(run(&dir, "forget --keep-last 1 --keep-tag gold"));
    assert!(shown.iter().any(|line| line.contains(&ids[1][..8]) && line.ends_with("tag gold")), "{shown:?}");
    assert!(
        shown.iter().any(|line| line.starts_with("host elsewhere") && line.contains("1 of 1")),
        "{shown:?}"
    );
    assert_eq!(living(&dir, ""), [&ids[1][..], &ids[3], &other]);
    assert_eq!(living(&dir, " --all").len(), 5);
    // Forgotten ones count for nothing, and data is still there.
    run(&dir, "forget --keep-last 2").assert_code(0);
    assert_eq!(living(&dir, ""), [&ids[1][..], &ids[3], &other]);
    run(&dir, &format!("ls {}", ids[0])).assert_code(0);
    run(&dir, &format!("unforget {} {}", ids[0], ids[2])).assert_code(0);
    assert_eq!(living(&dir, "").len(), 5);
    let messages = run(&dir, &format!("unforget {}", ids[0])).assert_code(1).messages();
    assert!(messages.contains("is not forgotten"), "{messages}");
}

#[test]
fn nothing_is_forgotten_that_was_not_named_and_no_group_as_a_whole() {
    let dir = with_repository("forget-refused");
    small_tree().create(&dir.join("tree"));
    let (first, second) = (backup(&dir, ""), backup(&dir, " --tag gold"));
    backup(&dir, " --host elsewhere");
    for (words, code, what) in [
        ("forget", 2, "name the snapshots to forget"),
        ("forget latest", 2, "name what is to be forgotten by its id"),
        ("forget --keep-tag gold", 1, "would keep no complete snapshot"),
        ("forget --keep-last 0", 2, "above 0"),
        ("forget --keep-last 1 --group-by size", 2, "is not known"),
        ("forget --keep-last 1 0000", 2, "cannot be used with"),
        ("forget ffffffffffff", 1, "there is no such snapshot"),
    ] {
        let messages = run(&dir, words).assert_code(code).messages();
        assert!(messages.contains(what), "{words}: {messages}");
        assert_eq!(living(&dir, "").len(), 3, "{words}");
    }
    run(&dir, "forget --keep-tag gold --group-by none").assert_code(0);
    assert_eq!(living(&dir, ""), [&second[..]]);
    // By its id even the last one goes.
    run(&dir, &format!("forget {second} {first}")).assert_code(0);
    assert_eq!(living(&dir, ""), [""; 0]);
}

#[test]
fn a_tombstone_says_what_and_until_when() {
    let dir = with_repository("tombstone");
    small_tree().create(&dir.join("tree"));
    let id = backup(&dir, "");
    let before = snapshot_files(&dir);
    run(&dir, &format!("forget --expire 2w {id}")).assert_code(0);
    let added: Vec<String> = snapshot_files(&dir).into_iter().filter(|name| !before.contains(name)).collect();
    let tombstone = fs::read(dir.join("repo/snapshots").join(&added[0])).unwrap();
    let document: Value = serde_json::from_slice(&tombstone).unwrap();
    assert_eq!(
        (added.len(), &document["kind"], &document["roots"]),
        (1, &"tombstone".into(), &Value::Array(vec![]))
    );
    let body = &document["body"];
    assert_eq!(body["snapshot"], id.as_str());
    let time = |key: &str| body[key].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert_eq!(time("expires").duration_since(time("time")).as_hours(), 14 * 24);
    // Two writers may have forgotten it: all tombstones go.
    fs::remove_file(dir.join("repo/snapshots").join(&added[0])).unwrap();
    run(&dir, &format!("forget {id}")).assert_code(0);
    fs::write(dir.join("repo/snapshots").join(&added[0]), tombstone).unwrap();
    assert_eq!(snapshot_files(&dir).len(), 3);
    run(&dir, &format!("unforget {id}")).assert_code(0);
    assert_eq!(snapshot_files(&dir), before);
}

fn snapshot_files(dir: &TestDir) -> Vec<String> {
    names_in(&dir.join("repo/snapshots"))
}

fn names_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn keys_are_added_removed_and_changed_and_the_last_one_stays() {
    let dir = TestDir::new("keys");
    let with = |password: &str, words: &str| {
        let mut command = command(words.split(' '));
        finish(command.current_dir(dir.path()).env("DIPTYCH_REPO", "repo").env("DIPTYCH_PASSWORD", password))
    };
    with("one", "init").assert_code(0);
    fs::write(dir.join("two"), "two\n").unwrap();
    fs::write(dir.join("three"), "three\nignored").unwrap();
    with("one", "key add --label second --new-password-file two").assert_code(0);
    let listed = json_lines(with("two", "key list --json"));
    assert_eq!(listed.iter().map(|key| key["label"].as_str().unwrap()).collect::<Vec<_>>(), ["", "second"]);
    assert_eq!(listed.iter().map(|key| key["current"].as_bool().unwrap()).collect::<Vec<_>>(), [false, true]);
    let (first, second) = (listed[0]["key"].as_str().unwrap(), listed[1]["key"].as_str().unwrap());
    let refused = |finished: Finished, code: i32, what: &str| {
        let messages = finished.assert_code(code).messages();
        assert!(messages.contains(what), "{messages}");
        assert_eq!(names_in(&dir.join("repo/keys")).len(), 2);
    };
    refused(with("two", &format!("key remove {second}")), 1, "the key that your password opens");
    refused(with("two", "key remove ff00ff00ff00"), 1, "there is no such key");
    refused(with("four", &format!("key remove {second}")), 12, "opens none");
    with("two", &format!("key remove {first}")).assert_code(0);
    with("one", "snapshots").assert_code(12);
    let messages = with("two", &format!("key remove --force {second}")).assert_code(1).messages();
    assert!(messages.contains("the last key"), "{messages}");
    with("two", "key passwd --new-password-file three").assert_code(0);
    with("two", "snapshots").assert_code(12);
    with("three", "snapshots").assert_code(0);
    assert_eq!(names_in(&dir.join("repo/keys")).len(), 1);
}

#[test]
fn a_repository_without_encryption_has_no_keys() {
    let dir = with_repository("no-keys");
    let messages = run(&dir, "key list").assert_code(2).messages();
    assert!(messages.contains("is not encrypted"), "{messages}");
}

#[test]
fn a_clock_that_is_plainly_wrong_forgets_nothing() {
    let dir = with_repository("clock");
    small_tree().create(&dir.join("tree"));
    let (first, second) = (backup(&dir, ""), backup(&dir, ""));
    let future = put_copy(&dir, &second, |snapshot| snapshot.time += SignedDuration::from_hours(25));
    for words in ["forget --keep-last 1".to_owned(), format!("forget {first}")] {
        let messages = run(&dir, &words).assert_code(1).messages();
        assert!(messages.contains(&future[..8]) && messages.contains("the clock says"), "{messages}");
        assert_eq!(living(&dir, "").len(), 3);
    }
    // What has the wrong time can be named.
    run(&dir, &format!("forget {future}")).assert_code(0);
    run(&dir, "forget --keep-last 1").assert_code(0);
    assert_eq!(living(&dir, ""), [&second[..]]);
    // Clocks differ a little.
    let near = put_copy(&dir, &second, |snapshot| snapshot.time += SignedDuration::from_hours(23));
    run(&dir, "forget --keep-last 1").assert_code(0);
    assert_eq!(living(&dir, ""), [&near[..]]);
}

/// Whoever may send snapshots makes none disappear by saying that it replaces it. Spec: R-9-5.
#[test]
fn a_snapshot_is_replaced_only_by_one_that_says_the_same() {
    let dir = with_repository("replaced");
    fs::create_dir(dir.join("tree")).unwrap();
    fs::write(dir.join("tree/file"), "1").unwrap();
    let first = backup(&dir, "");
    let replaces = |snapshot: &mut Snapshot| snapshot.replaces = diptych_format::Digest::parse(&first);
    let other = put_copy(&dir, &first, |snapshot| {
        replaces(snapshot);
        snapshot.host = "other".to_owned();
    });
    assert_eq!(living(&dir, "").len(), 2, "{other}");
    assert!(living(&dir, "").contains(&first));
    let tagged = put_copy(&dir, &first, |snapshot| {
        replaces(snapshot);
        snapshot.tags = vec!["x".to_owned()];
    });
    let left = living(&dir, "");
    assert!(left.contains(&tagged) && !left.contains(&first), "{left:?}");
}

/// Writes a snapshot that is like another one but for what `change` does; gives its id.
fn put_copy(dir: &TestDir, id: &str, change: impl FnOnce(&mut Snapshot)) -> String {
    let backend = diptych_backend::open(dir.join("repo").to_str().unwrap()).unwrap();
    let no_password = || Err(diptych_format::Error::missing("there is no password"));
    let repository = Repository::open(backend, false, no_password, |_| ()).unwrap();
    let stored = repository.snapshots(|_| ()).unwrap();
    let found = stored.into_iter().find(|stored| stored.id.to_string() == id).unwrap();
    let Body::Snapshot(mut snapshot) = found.document.body else { panic!("{id} is no snapshot") };
    change(&mut snapshot);
    repository.put_snapshot(SnapshotKind::Snapshot, Body::Snapshot(snapshot)).unwrap().id.to_string()
}

#[test]
fn stats_count_what_is_stored_once() {
    let dir = with_repository("stats");
    let twice = Random::new(3).bytes(300_000);
    let sparse = Tree::runs([Run::Hole(1 << 20), Run::Data(b"end".to_vec())]);
    tree! { "a" => Tree::file(twice.clone()), "b" => Tree::file(twice), "s" => sparse }
        .create(&dir.join("tree"));
    let first = backup(&dir, "");
    let stats = |words: &str| json_lines(run(&dir, &format!("stats --json{words}"))).remove(0);
    let one = stats("");
    let number = |stats: &Value, key: &str| stats[key].as_u64().unwrap();
    assert_eq!((number(&one, "snapshots"), number(&one, "entries")), (1, 4));
    assert_eq!(
        (number(&one, "content_bytes"), number(&one, "payload_bytes")),
        (600_003 + (1 << 20), 600_003)
    );
    let packs: u64 = names_in(&dir.join("repo/data"))
        .iter()
        .flat_map(|two| fs::read_dir(dir.join("repo/data").join(two)).unwrap())
        .map(|pack| pack.unwrap().metadata().unwrap().len())
        .sum();
    assert_eq!(number(&one, "stored_bytes"), packs);
    backup(&dir, "");
    let two = stats("");
    assert_eq!(number(&two, "content_bytes"), 2 * number(&one, "content_bytes"));
    assert!(two["ratio"].as_f64() > Some(3.9), "{two}");
    // What both share is counted once, and what one alone has is not counted for the other.
    let both = stats(&format!(" {first} latest"));
    let of_first = stats(&format!(" {first}"));
    assert_eq!(number(&both, "chunks"), number(&two, "chunks"));
    assert!(number(&of_first, "chunks") <= number(&both, "chunks"));
    assert!(number(&of_first, "stored_bytes") > 300_000);
    fs::write(dir.join("tree/c"), Random::new(4).bytes(500_000)).unwrap();
    backup(&dir, " --tag large");
    assert_eq!(stats(&format!(" {first}")), of_first);
    assert!(number(&stats(" --tag large"), "stored_bytes") > 800_000);
}

/// Backs `tree` up twice with a change between; gives the ids.
fn two_snapshots(dir: &TestDir) -> [String; 2] {
    let mut random = Random::new(11);
    tree! {
        "large" => Tree::file(random.bytes(900_000)),
        "d" => tree! { "small" => Tree::file("some bytes"), "hole" => Tree::runs([Run::Hole(1 << 20), Run::Data(random.bytes(5000))]) },
    }
    .create(&dir.join("tree"));
    let first = backup(dir, " --tag first");
    fs::write(dir.join("tree/d/small"), random.bytes(50_000)).unwrap();
    [first, backup(dir, "")]
}

#[test]
fn copies_are_what_they_are_copies_of_whatever_the_keys() {
    for (name, from, to) in
        [("plain", "", "--no-encryption"), ("opened", "one", "--no-encryption"), ("both", "one", "")]
    {
        let dir = TestDir::new(&format!("copy-{name}"));
        let with = |repo: &str, words: &str| {
            let mut command = command(words.split(' ').filter(|word| !word.is_empty()));
            command
                .current_dir(dir.path())
                .env("DIPTYCH_REPO", repo)
                .env("DIPTYCH_TO_PASSWORD", if to.is_empty() { "two" } else { "" });
            let password = if repo == "repo" {
                from
            } else if to.is_empty() {
                "two"
            } else {
                ""
            };
            finish(command.env("DIPTYCH_PASSWORD", password))
        };
        with("repo", if from.is_empty() { "init --no-encryption" } else { "init" }).assert_code(0);
        with("other", &format!("init {to}")).assert_code(0);
        let mut random = Random::new(11);
        tree! { "large" => Tree::file(random.bytes(900_000)), "d" => tree! { "small" => Tree::file("some bytes") } }
            .create(&dir.join("tree"));
        with("repo", "backup tree --tag first").assert_code(0);
        let summary = json_lines(with("repo", "copy --to other --json")).pop().unwrap();
        assert_eq!((summary["copied"].as_u64(), summary["there"].as_u64()), (Some(1), Some(0)), "{name}");
        fs::write(dir.join("tree/d/small"), random.bytes(50_000)).unwrap();
        with("repo", "backup tree").assert_code(0);
        // Now the first is there, and little of the second is new.
        let summary = json_lines(with("repo", "copy --to other --json")).pop().unwrap();
        assert_eq!((summary["copied"].as_u64(), summary["there"].as_u64()), (Some(1), Some(1)), "{name}");
        assert!(summary["stored_bytes"].as_u64() < Some(200_000), "{name}: {summary}");
        let again = json_lines(with("repo", "copy --to other --json")).pop().unwrap();
        assert_eq!((again["there"].as_u64(), again["stored_chunks"].as_u64()), (Some(2), Some(0)), "{name}");
        let shown = |repo: &str| {
            let mut listed = json_lines(with(repo, "snapshots --json"));
            for line in &mut listed {
                let line = line.as_object_mut().unwrap();
                let _ = (line.remove("id"), line.remove("base"));
            }
            listed
        };
        assert_eq!(shown("repo"), shown("other"), "{name}");
        let ids: Vec<Value> = json_lines(with("other", "snapshots --json"));
        assert_eq!(ids[1]["base"], ids[0]["id"], "{name}");
        // The other one does without the first: everything is read and compared with its digest.
        fs::rename(dir.join("repo"), dir.join("gone")).unwrap();
        with("other", "restore latest --target out").assert_code(0);
        Tree::read(&dir.join("tree")).assert_same(&Tree::read(&dir.join("out")));
        // And a backup into it goes on from there.
        let next = json_lines(with("other", "backup --json tree")).pop().unwrap();
        assert_eq!(next["base"], ids[1]["id"], "{name}");
        assert_eq!(names_in(&dir.join("other/locks")), [""; 0]);
    }
}

#[test]
fn copy_takes_what_is_named_and_leaves_out_what_is_damaged() {
    let dir = with_repository("copy-some");
    let [first, second] = two_snapshots(&dir);
    for other in ["named", "tagged", "forgotten", "damaged"] {
        finish(command(["init", "--no-encryption", "-r", other]).current_dir(dir.path())).assert_code(0);
    }
    let copied = |words: &str, code: i32| -> Vec<(String, String)> {
        let finished = run(&dir, &format!("copy --json --to {words}")).assert_code(code);
        let of = |event: &Value, key: &str| event[key].as_str().unwrap().to_owned();
        let events =
            finished.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>();
        events
            .iter()
            .filter(|event| event["event"] == "copy")
            .map(|event| (of(event, "snapshot"), of(event, "outcome")))
            .collect()
    };
    let outcome = |id: &str, word: &str| (id.to_owned(), word.to_owned());
    assert_eq!(copied("named latest", 0), [outcome(&second, "copied")]);
    assert_eq!(copied("tagged --tag first", 0), [outcome(&first, "copied")]);
    // What was forgotten there was not wanted there.
    copied(&format!("forgotten {first}"), 0);
    let there =
        json_lines(finish(command(["snapshots", "-r", "forgotten", "--json"]).current_dir(dir.path())))
            .remove(0);
    finish(command(["forget", "-r", "forgotten", there["id"].as_str().unwrap()]).current_dir(dir.path()))
        .assert_code(0);
    assert_eq!(copied("forgotten", 0), [outcome(&first, "there"), outcome(&second, "copied")]);
    let messages = run(&dir, "copy --to repo").assert_code(2).messages();
    assert!(messages.contains("copied from"), "{messages}");
    run(&dir, "copy --to nowhere").assert_code(10);
    // The contents of the second snapshot are in the pack that came last.
    let mut packs: Vec<_> = names_in(&dir.join("repo/data"))
        .iter()
        .flat_map(|two| fs::read_dir(dir.join("repo/data").join(two)).unwrap())
        .map(|pack| pack.unwrap().path())
        .collect();
    packs.sort_by_key(|pack| fs::metadata(pack).unwrap().len());
    // One that holds 50000 bytes of contents, and nothing of the first.
    let pack =
        packs.iter().find(|pack| (45_000..60_000).contains(&fs::metadata(pack).unwrap().len())).unwrap();
    let mut bytes = fs::read(pack).unwrap();
    bytes[20_000] ^= 1;
    fs::write(pack, bytes).unwrap();
    assert_eq!(copied("damaged", 3), [outcome(&first, "copied"), outcome(&second, "damaged")]);
    let listed =
        json_lines(finish(command(["snapshots", "-r", "damaged", "--json"]).current_dir(dir.path())));
    assert_eq!(listed.len(), 1);
}

#[test]
fn tags_change_and_nothing_else() {
    let dir = with_repository("tags");
    small_tree().create(&dir.join("tree"));
    let (first, second) = (backup(&dir, " --tag a --tag b"), backup(&dir, ""));
    let before = json_lines(run(&dir, "snapshots --json"));
    let events = json_lines(run(&dir, &format!("tag --json {first} latest --remove a --add c")));
    let id = |place: usize| events[place]["snapshot"].as_str().unwrap().to_owned();
    assert_eq!(
        (&events[0]["before"], &events[1]["before"]),
        (&first.as_str().into(), &second.as_str().into())
    );
    let mut after = json_lines(run(&dir, "snapshots --json"));
    assert_eq!(after[0]["tags"], serde_json::json!(["b", "c"]));
    assert_eq!(after[1]["tags"], serde_json::json!(["c"]));
    for (place, line) in after.iter_mut().enumerate() {
        assert_eq!(line["id"], id(place).as_str());
        line["id"] = before[place]["id"].clone();
        line["tags"] = before[place]["tags"].clone();
    }
    assert_eq!(after, before);
    assert_eq!(snapshot_files(&dir).len(), 2);
    assert_eq!(names_in(&dir.join("repo/locks")), [""; 0]);
    // What is as wanted keeps its id.
    let summary = json_lines(run(&dir, "tag --json latest --add c --remove z")).remove(0);
    assert_eq!((summary["changed"].as_u64(), summary["unchanged"].as_u64()), (Some(0), Some(1)));
    run(&dir, "tag latest").assert_code(2);
    run(&dir, &format!("forget {}", id(1))).assert_code(0);
    let messages = run(&dir, &format!("tag {} --add x", id(1))).assert_code(2).messages();
    assert!(messages.contains("is forgotten"), "{messages}");
}

#[test]
fn a_run_that_ended_between_two_tags_leaves_one_snapshot() {
    let dir = with_repository("tags-crash");
    small_tree().create(&dir.join("tree"));
    backup(&dir, "");
    let old = snapshot_files(&dir).remove(0);
    let bytes = fs::read(dir.join("repo/snapshots").join(&old)).unwrap();
    let put_back = || fs::write(dir.join("repo/snapshots").join(&old), &bytes).unwrap();
    run(&dir, "tag latest --add a").assert_code(0);
    // As if it had ended before the old one was removed.
    put_back();
    let shown = json_lines(run(&dir, "snapshots --all --json"));
    assert_eq!((shown.len(), &shown[0]["tags"]), (1, &serde_json::json!(["a"])));
    run(&dir, &format!("ls {old}")).assert_code(1);
    // The next change does not bring it back.
    run(&dir, "tag latest --add b").assert_code(0);
    let shown = json_lines(run(&dir, "snapshots --all --json"));
    assert_eq!((shown.len(), &shown[0]["tags"]), (1, &serde_json::json!(["a", "b"])));
    assert_eq!(snapshot_files(&dir).len(), 1);
}

/// Runs words on the repository with a memory of what was seen of it.
fn run_with_memory(dir: &TestDir, words: &str) -> Finished {
    let mut command = command(words.split(' '));
    let memory = dir.path().canonicalize().unwrap().join("state");
    finish(command.current_dir(dir.path()).env("DIPTYCH_REPO", "repo").env("XDG_STATE_HOME", memory))
}

/// Spec: repository.md section 1.
#[test]
fn a_snapshot_that_was_made_here_is_missed_by_every_verb_that_lists() {
    let dir = with_repository("rollback");
    small_tree().create(&dir.join("tree"));
    let backup = |words: &str| {
        let finished = run_with_memory(&dir, &format!("backup --json{words} tree")).assert_code(0);
        let summary: Value = serde_json::from_str(finished.text().lines().last().unwrap()).unwrap();
        summary["snapshot"].as_str().unwrap().to_owned()
    };
    backup("");
    let newest = backup(" --base none");
    run_with_memory(&dir, "check").assert_code(0);
    // Nobody has listed the snapshots between this run's end and the loss of its snapshot.
    let last = backup("");
    assert_ne!(newest, last);
    fs::remove_file(dir.path().join("repo/snapshots").join(&last)).unwrap();
    let words = "an older state may have been put in place";
    for (verb, code) in [
        ("snapshots", 3),
        ("ls latest", 3),
        (&*format!("cat latest:{}", on_source(&dir, "tree/a.txt")), 3),
        ("check", 1),
        ("backup --base none tree", 3),
    ] {
        let finished = run_with_memory(&dir, verb).assert_code(code);
        assert!(finished.messages().contains(words), "{verb}: {}", finished.messages());
    }
    run_with_memory(&dir, "check").assert_code(0);
}

/// Spec: repository.md section 1.
#[test]
fn another_repository_in_the_same_place_is_told_of_by_every_run() {
    let dir = with_repository("exchanged");
    small_tree().create(&dir.join("tree"));
    run_with_memory(&dir, "backup tree").assert_code(0);
    fs::remove_dir_all(dir.path().join("repo")).unwrap();
    run(&dir, "init --no-encryption").assert_code(0);
    for _ in 0..2 {
        let finished = run_with_memory(&dir, "backup tree").assert_code(3);
        assert!(finished.messages().contains("there was another one here before"), "{}", finished.messages());
    }
}

#[test]
fn a_tree_keeps_the_path_that_it_was_named_by() {
    let dir = with_repository("named-path");
    fs::create_dir(dir.path().join("real")).unwrap();
    small_tree().create(&dir.path().join("real/tree"));
    std::os::unix::fs::symlink("real", dir.path().join("link")).unwrap();
    let at = |path: &str| dir.path().join(path).to_str().unwrap().to_owned();
    let archives = |words: &str| {
        run(&dir, &format!("backup {words}")).assert_code(0);
        let shown = json_lines(run(&dir, "snapshots --json"));
        shown.last().unwrap()["archives"][0]["path"].as_str().unwrap().to_owned()
    };
    assert_eq!(archives(&at("link/tree")), at("link/tree"));
    let found = run(&dir, &format!("cat latest:{}", at("link/tree/d/e/c.txt"))).assert_code(0);
    assert_eq!(found.text(), "deep");
    // What is above a link only the system knows.
    assert_eq!(archives(&at("link/tree/../tree")), on_source(&dir, "real/tree"));
    // The shell's name of the working directory counts as long as it is the working directory.
    for (told, expected) in [("link", at("link/tree")), ("real/tree", on_source(&dir, "real/tree"))] {
        let mut backup = command(["backup", "-r", &at("repo"), "./tree"]);
        finish(backup.current_dir(dir.path().join("link")).env("PWD", dir.path().join(told))).assert_code(0);
        let shown = json_lines(run(&dir, "snapshots --json"));
        assert_eq!(shown.last().unwrap()["archives"][0]["path"].as_str().unwrap(), expected);
    }
}

#[test]
fn the_root_of_the_source_means_all_archives() {
    let dir = with_repository("root-path");
    for name in ["tree", "other"] {
        small_tree().create(&dir.join(name));
    }
    run(&dir, "backup tree other").assert_code(0);
    assert_eq!(lines(run(&dir, "ls latest:/")), lines(run(&dir, "ls latest")));
    run(&dir, "restore latest:/ --target out").assert_code(0);
    for name in ["tree", "other"] {
        let restored = dir.join("out").join(on_source(&dir, name).trim_start_matches('/'));
        assert_eq!(Tree::read(&restored).paths().len(), small_tree().paths().len());
    }
}
