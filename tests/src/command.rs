//! The command `diptych`, as people run it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::{env, fs};

/// How to build the command, for messages.
const BUILD: &str = "cargo build --package diptych-client";

/// The command, built like the tests themselves.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let exe = env::current_exe().unwrap();
        let profile =
            exe.ancestors().find(|dir| dir.file_name() != Some(OsStr::new("deps")) && dir.is_dir()).unwrap();
        let binary = profile.join("diptych");
        let release = if profile.ends_with("release") { " --release" } else { "" };
        assert!(binary.exists(), "{} is not there: {BUILD}{release}", binary.display());
        assert_newer_than_sources(&binary, release);
        binary
    })
}

/// A test of yesterday's command would prove nothing.
fn assert_newer_than_sources(binary: &Path, release: &str) {
    let modified = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    let built = modified(binary);
    // Cargo lists there what the binary was made from.
    let sources = fs::read_to_string(binary.with_extension("d")).unwrap_or_default();
    let sources = sources.split_once(": ").map_or("", |(_, sources)| sources);
    for source in sources.split_whitespace() {
        let changed = modified(Path::new(source));
        assert!(changed <= built, "{} is older than {source}: {BUILD}{release}", binary.display());
    }
}

/// What the command did.
pub struct Finished {
    /// How it was called, for messages.
    call: String,
    /// Its exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: Vec<u8>,
    /// What it said.
    pub stderr: Vec<u8>,
}

impl Finished {
    fn new(call: String, output: Output) -> Self {
        Self { call, code: output.status.code(), stdout: output.stdout, stderr: output.stderr }
    }

    /// What it printed, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// What it said, as text.
    pub fn messages(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Fails unless the exit code is `code`.
    #[track_caller]
    pub fn assert_code(self, code: i32) -> Self {
        let Self { call, code: found, .. } = &self;
        assert_eq!(*found, Some(code), "{call}\n{}{}", self.text(), self.messages());
        self
    }
}

/// Runs `diptych` with `arguments` to its end.
pub fn diptych<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Finished {
    finish(&mut command(arguments))
}

/// The command with `arguments`, for tests that set more: a folder, an environment, standard input.
pub fn command<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(binary());
    command.args(arguments).stdin(Stdio::null());
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("DIPTYCH_")) {
        command.env_remove(name);
    }
    // What earlier tests have seen in a folder of the same name is no concern of this one.
    command.env("XDG_STATE_HOME", "/dev/null");
    command
}

/// Runs it to its end.
pub fn finish(command: &mut Command) -> Finished {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    Finished::new(format!("{command:?}"), output)
}
