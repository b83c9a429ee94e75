//! The main job once through on a real tree: back up twice, restore, archive, extract, and prove that the copies are the
//! original.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::run;

/// Backs `tree` up twice into a repository in cargo's target folder and restores it; makes archive files of it and
/// extracts them; compares the tree ids of all. Then removes what it made unless it is to be kept.
pub fn run(tree: &Path, keeps: bool) -> Result<()> {
    run::must_succeed(run::cargo(&["build", "--release", "--package", "diptych-client", "--locked"]))?;
    let diptych = run::target().join("release/diptych");
    let place = run::target().join("demo");
    if place.exists() {
        std::fs::remove_dir_all(&place).with_context(|| format!("cannot remove {}", place.display()))?;
    }
    std::fs::create_dir_all(&place)?;
    let [repository, restored, archive, extracted] =
        ["repository", "restored", "archive", "extracted"].map(|name| place.join(name));
    let with_repository = |verb: &str| {
        let mut command = Command::new(&diptych);
        command.arg(verb).arg("--repo").arg(&repository).env("DIPTYCH_PASSWORD", "demo");
        command
    };
    println!(
        "\nA repository, encrypted with the password \"demo\"; the second run reads what has changed, which is nothing:"
    );
    step(with_repository("backup").arg("--init").arg(tree))?;
    step(with_repository("backup").arg(tree))?;
    step(&mut with_repository("snapshots"))?;
    step(with_repository("restore").arg("latest").arg("--target").arg(&restored))?;
    println!("\nThe same tree as two files:");
    step(Command::new(&diptych).arg("create").arg(&archive).arg(tree))?;
    step(Command::new(&diptych).arg("verify").arg(&archive))?;
    step(Command::new(&diptych).arg("extract").arg(&archive).arg(&extracted))?;
    let mut ids = Vec::new();
    for of in [tree, &restored, &archive, &extracted] {
        ids.push(tree_id(&diptych, of)?);
    }
    if ids.iter().any(|id| *id != ids[0]) {
        bail!("the tree ids differ: did {} change meanwhile?", tree.display());
    }
    println!("\nThe tree, its archive and both copies have one tree id: the copies are the original.");
    if keeps {
        println!("Kept in {}.", place.display());
    } else {
        std::fs::remove_dir_all(&place)?;
    }
    Ok(())
}

/// Runs a command that may find something that cannot be captured faithfully (exit code 3), and says how long it took.
fn step(command: &mut Command) -> Result<()> {
    println!("\n$ {}", run::words(command));
    let started = Instant::now();
    let status = command.status()?;
    println!("  {:.1} s", started.elapsed().as_secs_f64());
    match status.code() {
        Some(0 | 3) => Ok(()),
        _ => bail!("that failed: {status}"),
    }
}

fn tree_id(diptych: &Path, of: &Path) -> Result<String> {
    let mut command = Command::new(diptych);
    command.arg("hash").arg(of);
    println!("\n$ {}", run::words(&command));
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    print!("{text}");
    let id = text.split_whitespace().next().map(str::to_owned);
    id.filter(|_| matches!(output.status.code(), Some(0 | 3))).context("that failed")
}
