//! The project's own chores: `cargo xtask test`, `soak`, `vectors`, `bench`, `man`, `demo`.
//!
//! A chore either does all of what it says or fails with the command that would help; none leaves a part out
//! silently.

// A program for people at a terminal.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod demo;
mod man;
mod run;
mod setup;

use std::ffi::OsString;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's own chores")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Set up what the tests need and run them all: Rust, documentation examples, the Python reader
    Test {
        /// Try fewer generated cases in each property test
        #[arg(long)]
        quick: bool,
    },
    /// Run the property tests and fuzz bodies on new seeds, each for so many seconds
    Soak {
        /// Seconds for each test
        #[arg(default_value_t = 300)]
        seconds: u64,
    },
    /// Write spec/vectors anew
    Vectors,
    /// Run bench/compare.sh, which compares archive files with tar and zstd side by side
    Bench {
        /// What bench/compare.sh takes
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Archive, verify and extract a real tree, and prove that the copy is the original
    Demo {
        /// The tree
        #[arg(default_value = "/usr/share")]
        tree: std::path::PathBuf,
        /// Keep the archive and the copy
        #[arg(long)]
        keep: bool,
    },
    /// Write manual pages and shell completions into cargo's target folder
    Man,
}

fn main() -> Result<()> {
    match Arguments::parse().chore {
        Chore::Test { quick } => test(quick),
        Chore::Soak { seconds } => soak(seconds),
        Chore::Vectors => vectors(),
        Chore::Demo { tree, keep } => demo::run(&tree, keep),
        Chore::Man => man::write(),
        Chore::Bench { arguments } => {
            run::must_succeed(run::command("bash").arg("bench/compare.sh").args(arguments))
        }
    }
}

fn test(quick: bool) -> Result<()> {
    setup::install_programs()?;
    let python = setup::install_python_packages()?;

    section("build");
    run::must_succeed(run::cargo(&["build", "--workspace", "--locked"]))?;

    section("tests");
    let mut cargo = run::cargo(&["test", "--workspace", "--locked", "--no-fail-fast"]);
    if quick {
        cargo.env("DIPTYCH_QUICK", "1");
    }
    let rust = run::tests(&mut cargo)?;

    section("the Python reader's tests");
    let reader = run::root().join("spec/reference");
    if !reader.join("test_reader.py").exists() {
        bail!("spec/reference/test_reader.py is not there");
    }
    let mut unittest = run::command(python);
    unittest.args(["-B", "-m", "unittest", "test_reader"]).current_dir(reader);
    let python_passed = unittest.status()?.success();

    section("summary");
    println!("Rust: {rust}");
    println!("Python reader: {}", if python_passed { "passed" } else { "FAILED" });
    if !rust.is_clean() || !python_passed {
        bail!("not all tests passed");
    }
    Ok(())
}

fn soak(seconds: u64) -> Result<()> {
    setup::install_programs()?;
    setup::install_python_packages()?;
    // New seeds each time, and the same ones again for who names the first.
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let seed = std::env::var("DIPTYCH_SEED").unwrap_or_else(|_| now.to_string());
    println!(
        "{seconds} seconds for each test; the same again: DIPTYCH_SEED={seed} cargo xtask soak {seconds}"
    );

    section("build");
    run::must_succeed(run::cargo(&["build", "--workspace", "--release", "--locked"]))?;
    section("soak");
    let mut cargo = run::cargo(&["test", "--workspace", "--release", "--locked", "--no-fail-fast"]);
    cargo.env("DIPTYCH_SOAK", seconds.to_string()).env("DIPTYCH_SEED", seed);
    let counts = run::tests(&mut cargo)?;
    section("summary");
    println!("Rust: {counts}");
    if !counts.is_clean() {
        bail!("not all tests passed");
    }
    Ok(())
}

fn vectors() -> Result<()> {
    let mut cargo = run::cargo(&["test", "--package", "diptych-tests", "--locked", "vectors_are_up_to_date"]);
    let counts = run::tests(cargo.env("UPDATE", "1"))?;
    if counts.passed != 1 || !counts.is_clean() {
        bail!("the test vectors_are_up_to_date did not write the vectors ({counts})");
    }
    Ok(())
}

fn section(title: &str) {
    println!("\n== {title}");
}
