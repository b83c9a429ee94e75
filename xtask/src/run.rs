//! Running other programs, and counting what a run of the tests says about itself.

use std::ffi::OsStr;
use std::fmt;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The workspace's folder, as cargo says when it runs this.
pub fn root() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&here).parent().map_or_else(PathBuf::new, Path::to_owned)
}

/// Where cargo puts what it builds.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// A program to be run in the workspace's folder.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root());
    command
}

/// The cargo that runs this program.
pub fn cargo(arguments: &[&str]) -> Command {
    let mut cargo = command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(arguments);
    cargo
}

/// Runs to the end, and fails when the program does.
pub fn must_succeed(mut command: impl std::borrow::BorrowMut<Command>) -> Result<()> {
    let command = command.borrow_mut();
    let status = command.status().with_context(|| format!("{command:?}"))?;
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(())
}

/// What the test binaries of one run said, added up.
#[derive(Default)]
pub struct Counts {
    pub passed: u64,
    failed: u64,
    ignored: u64,
    binaries: u64,
    exited_well: bool,
}

impl Counts {
    /// Whether all tests ran and passed. A test that is marked to be left out counts as one that failed.
    pub fn is_clean(&self) -> bool {
        self.exited_well && self.failed == 0 && self.ignored == 0
    }

    fn add(&mut self, line: &str) {
        let Some(line) = line.strip_prefix("test result: ") else { return };
        self.binaries += 1;
        let numbers = |word| {
            let before = line.split([';', '.']).find_map(|part| part.trim().strip_suffix(word));
            before.and_then(|number| number.trim().parse().ok()).unwrap_or(0u64)
        };
        self.passed += numbers("passed");
        self.failed += numbers("failed");
        self.ignored += numbers("ignored");
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passed, failed, ignored, binaries, exited_well } = self;
        write!(f, "{passed} passed, {failed} failed, {ignored} left out, in {binaries} binaries")?;
        if !exited_well && *failed == 0 {
            write!(f, "; cargo test itself failed")?;
        }
        Ok(())
    }
}

/// Runs `cargo test` and shows what it prints.
pub fn tests(cargo: &mut Command) -> Result<Counts> {
    let mut child = cargo.stdout(Stdio::piped()).spawn().with_context(|| format!("{cargo:?}"))?;
    let mut counts = Counts::default();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line?;
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            counts.add(&line);
        }
    }
    counts.exited_well = child.wait()?.success();
    Ok(counts)
}

/// A command as one would type it.
pub fn words(command: &Command) -> String {
    let all = std::iter::once(command.get_program()).chain(command.get_args());
    all.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_added_up() {
        let mut counts = Counts { exited_well: true, ..Counts::default() };
        counts.add("running 3 tests");
        counts.add(
            "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s",
        );
        counts.add(
            "test result: ok. 40 passed; 0 failed; 0 ignored; 0 measured; 7 filtered out; finished in 1.50s",
        );
        assert!(counts.is_clean());
        assert_eq!((counts.passed, counts.binaries), (43, 2));
        counts.add("test result: FAILED. 1 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s");
        assert!(!counts.is_clean());
        assert_eq!(counts.to_string(), "44 passed, 2 failed, 1 left out, in 3 binaries");
    }
}
