//! What goes wrong around a repository and costs no more than it must: directories that got lost, paths that are not there,
//! runs that end early, passwords in the wrong place.

use std::fs;
use std::process::Stdio;

use diptych_tests::command::{command, finish};
use diptych_tests::{Random, TestDir};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::repository_verbs::{backup, json_lines, living, run, small_tree, with_repository};

#[test]
fn empty_directories_that_a_copy_left_out_are_no_damage() {
    let dir = with_repository("left-out");
    small_tree().create(&dir.join("tree"));
    let id = backup(&dir, "");
    let data = fs::read_dir(dir.join("repo/data")).unwrap().map(|entry| entry.unwrap().path());
    let removed = data.chain([dir.join("repo/locks")]).filter(|path| fs::remove_dir(path).is_ok()).count();
    assert!(removed > 200, "{removed}");
    run(&dir, "check --read-data").assert_code(0);
    fs::write(dir.join("tree/new"), "new").unwrap();
    backup(&dir, "");
    run(&dir, "check --read-data").assert_code(0);
    assert_eq!(living(&dir, "").len(), 2);
    // What is never empty is missed, and the message says what to do.
    fs::rename(dir.join("repo/index"), dir.join("kept")).unwrap();
    let messages = run(&dir, "snapshots").assert_code(1).messages();
    assert!(messages.contains("--repair-index"), "{messages}");
    run(&dir, "check --repair-index").assert_code(0);
    run(&dir, &format!("restore {id} --target out")).assert_code(0);
}

#[test]
fn a_path_that_is_not_there_does_not_keep_others_from_their_backup() {
    let dir = with_repository("not-there");
    small_tree().create(&dir.join("tree"));
    small_tree().create(&dir.join("other"));
    let summary = |words: &str, code: i32| {
        let finished = run(&dir, words).assert_code(code);
        serde_json::from_str::<Value>(finished.text().lines().last().unwrap()).unwrap()
    };
    let whole = summary("backup --json tree other", 0);
    fs::rename(dir.join("other"), dir.join("away")).unwrap();
    let messages = run(&dir, "backup tree other").assert_code(3).messages();
    assert!(messages.contains("other: left out: cannot open"), "{messages}");
    let part = summary("backup --json tree other", 3);
    assert_eq!(part["archives"].as_array().unwrap().len(), 1);
    // It is compared with the one that has all of the paths, and so is the next one.
    assert_eq!(part["base"], whole["snapshot"]);
    run(&dir, "backup --strict tree other").assert_code(1);
    run(&dir, "backup other").assert_code(1);
    run(&dir, "backup other nowhere").assert_code(1);
    assert_eq!(living(&dir, "").len(), 3);
    fs::rename(dir.join("away"), dir.join("other")).unwrap();
    let again = summary("backup --json tree other", 0);
    assert_eq!(again["base"], whole["snapshot"]);
    let messages = run(&dir, "backup tree/a.txt").assert_code(1).messages();
    assert!(messages.contains("a.txt is no directory: name the one that it is in"), "{messages}");
}

#[test]
fn a_dry_run_makes_no_repository() {
    let dir = TestDir::new("dry-init");
    small_tree().create(&dir.join("tree"));
    let messages = run(&dir, "backup -n --init --no-encryption tree").assert_code(2).messages();
    assert!(messages.contains("there is no repository yet"), "{messages}");
    assert!(!dir.join("repo").exists());
}

#[test]
fn commands_that_are_run_do_not_see_the_password() {
    let dir = TestDir::new("secrets");
    let run = |words: &[&str]| {
        let mut command = command(words);
        command.current_dir(dir.path()).env("DIPTYCH_REPO", "repo").env("DIPTYCH_PASSWORD", "secret");
        finish(&mut command)
    };
    assert!(run(&["init", "--no-encryption"]).assert_code(2).messages().contains("a password is given"));
    run(&["init"]).assert_code(0);
    run(&["backup", "--command", "env", "--", "env"]).assert_code(0);
    let seen = run(&["cat", "-r", "repo", "latest:env"]).assert_code(0);
    assert!(seen.text().contains("DIPTYCH_REPO=repo") && !seen.text().contains("secret"), "{}", seen.text());
    fs::rename(dir.join("repo/keys"), dir.join("keys")).unwrap();
    fs::create_dir(dir.join("repo/keys")).unwrap();
    let messages = run(&["snapshots"]).assert_code(12).messages();
    assert!(messages.contains("none of its keys is there"), "{messages}");
}

#[test]
fn a_copy_that_is_interrupted_goes_on() {
    let dir = with_repository("copy-interrupted");
    fs::create_dir(dir.join("tree")).unwrap();
    fs::write(dir.join("tree/large"), Random::new(3).bytes(100 << 20)).unwrap();
    backup(&dir, " --compression none");
    run(&dir, "init --no-encryption -r other").assert_code(0);
    let copy = || {
        let mut copy = command(["copy", "--to", "other", "--json", "--compression", "15"]);
        copy.current_dir(dir.path()).env("DIPTYCH_REPO", "repo");
        copy
    };
    let mut first = copy();
    let child = first.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let has_pack = || {
        let below = fs::read_dir(dir.join("other/data")).unwrap().map(|entry| entry.unwrap().path());
        below.filter(|path| path.is_dir()).any(|path| fs::read_dir(path).unwrap().next().is_some())
    };
    for _ in 0..60_000 {
        if has_pack() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("the next run goes on from there"), "{said}");
    let last = json_lines(finish(&mut copy())).pop().unwrap();
    assert_eq!(last["copied"], 1);
    assert!(last["stored_bytes"].as_u64().unwrap() < 70 << 20, "{last}");
}
