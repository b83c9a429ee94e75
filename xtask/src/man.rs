//! Manual pages and completions, from the command line's own description.

use std::fs;

use anyhow::{Context, Result};
use clap_complete::Shell;

use crate::run;

/// Writes `man/*.1` and `completions/*` into cargo's target folder.
pub fn write() -> Result<()> {
    let (pages, completions) = (run::target().join("man"), run::target().join("completions"));
    for folder in [&pages, &completions] {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let mut command = diptych_client::cli::command();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::Elvish, Shell::PowerShell] {
        clap_complete::generate_to(shell, &mut command, "diptych", &completions)?;
    }
    // One page for the command, and one for each verb.
    clap_mangen::generate_to(command, &pages)?;
    println!("{}\n{}", pages.display(), completions.display());
    Ok(())
}
