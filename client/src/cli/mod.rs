//! The command `diptych`: what can be typed, what is printed, and how it ends.
//!
//! Each verb has a file: its options with their help, and a function that runs the job and says how it went. Only
//! here, and in what stands below, is anything printed.

mod backup;
mod cat;
mod check;
mod copy;
mod create;
mod diff;
mod export;
mod extract;
mod find;
mod forget;
mod hash;
mod init;
mod json;
mod key;
mod list;
mod ls;
mod mount;
mod options;
mod outcome;
mod output;
mod repository;
mod restore;
mod serve;
mod signals;
mod snapshots;
mod stats;
mod tag;
mod terminal;
mod token;
mod verify;

use clap::{CommandFactory, Parser, Subcommand};

use crate::error::Result;
use options::Common;
use outcome::Outcome;

/// Backups and archives of directory trees: everything a Linux tree holds, proved by digests.
///
/// A repository holds snapshots of trees; what has not changed is neither read nor stored again. `-r LOCATION` or
/// DIPTYCH_REPO says where it is; DIPTYCH_PASSWORD, --password-file or --password-command has its password, or the terminal
/// is asked.
///
/// An archive is one directory tree at one moment, kept as two streams: a small metadata stream (names, attributes,
/// digests) and a payload stream (the contents). ARCHIVE `home` stands for the two files `home.meta.dpt` and
/// `home.data.dpt`; either name may be given; `-` is both in one, on standard output or input.
#[derive(Parser)]
#[command(name = "diptych", version, max_term_width = 100, after_help = AFTER_HELP, subcommand_required = true)]
#[command(arg_required_else_help = true, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    verb: Verb,
}

const AFTER_HELP: &str = "\
Exit codes:
  0    done
  1    failed
  2    called wrongly
  3    finished, but something could not be read or written faithfully; each thing is named
  10   there is no repository
  12   the password opens no key of the repository
  130  interrupted

Example:
  diptych backup -r /backup/repo --init /home
  diptych restore -r /backup/repo latest:/home/ann --target /restored
  diptych create /backup/home /home
  diptych verify /backup/home
  diptych extract /backup/home /restored";

#[derive(Subcommand)]
enum Verb {
    Create(create::Arguments),
    List(list::Arguments),
    Extract(extract::Arguments),
    Verify(verify::Arguments),
    Diff(diff::Arguments),
    Hash(hash::Arguments),
    Cat(cat::Arguments),
    Export(export::Arguments),
    Init(init::Arguments),
    Backup(backup::Arguments),
    Snapshots(snapshots::Arguments),
    Restore(restore::Arguments),
    Mount(mount::Arguments),
    Umount(mount::UmountArguments),
    Ls(ls::Arguments),
    Find(find::Arguments),
    Stats(stats::Arguments),
    Copy(copy::Arguments),
    Tag(tag::Arguments),
    Forget(forget::Arguments),
    Key(key::Arguments),
    Unforget(forget::UnforgetArguments),
    Check(check::Arguments),
    Serve(serve::Arguments),
    Token(token::Arguments),
    Completions(Completions),
}

/// Print completions for a shell.
#[derive(clap::Args)]
#[command(after_help = "Example:
  diptych completions bash > /etc/bash_completion.d/diptych")]
struct Completions {
    /// The shell.
    #[arg(value_name = "SHELL")]
    shell: clap_complete::Shell,
}

/// The whole command line, for manual pages and the like.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the command with the arguments of this process.
pub fn run() -> std::process::ExitCode {
    let result = match Cli::try_parse() {
        Ok(cli) => run_verb(&cli).and_then(|outcome| output::events_written().map(|()| outcome)),
        Err(error) if error.use_stderr() => error.exit(),
        // What was asked for: help, or the version.
        Err(error) => error.print().map(|()| Outcome::Done).map_err(output::cannot_write),
    };
    std::process::ExitCode::from(outcome::exit_code(result))
}

fn run_verb(cli: &Cli) -> Result<Outcome> {
    signals::install()?;
    match &cli.verb {
        Verb::Create(arguments) => create::run(arguments, &cli.common),
        Verb::List(arguments) => list::run(arguments, &cli.common),
        Verb::Extract(arguments) => extract::run(arguments, &cli.common),
        Verb::Verify(arguments) => verify::run(arguments, &cli.common),
        Verb::Diff(arguments) => diff::run(arguments, &cli.common),
        Verb::Hash(arguments) => hash::run(arguments, &cli.common),
        Verb::Cat(arguments) => cat::run(arguments, &cli.common),
        Verb::Export(arguments) => export::run(arguments, &cli.common),
        Verb::Init(arguments) => init::run(arguments, &cli.common),
        Verb::Backup(arguments) => backup::run(arguments, &cli.common),
        Verb::Snapshots(arguments) => snapshots::run(arguments, &cli.common),
        Verb::Restore(arguments) => restore::run(arguments, &cli.common),
        Verb::Mount(arguments) => mount::run(arguments, &cli.common),
        Verb::Umount(arguments) => mount::umount(arguments),
        Verb::Ls(arguments) => ls::run(arguments, &cli.common),
        Verb::Find(arguments) => find::run(arguments, &cli.common),
        Verb::Tag(arguments) => tag::run(arguments, &cli.common),
        Verb::Copy(arguments) => copy::run(arguments, &cli.common),
        Verb::Stats(arguments) => stats::run(arguments, &cli.common),
        Verb::Key(arguments) => key::run(arguments, &cli.common),
        Verb::Forget(arguments) => forget::run(arguments, &cli.common),
        Verb::Unforget(arguments) => forget::run_unforget(arguments, &cli.common),
        Verb::Check(arguments) => check::run(arguments, &cli.common),
        Verb::Serve(arguments) => serve::run(arguments, &cli.common),
        Verb::Token(arguments) => token::run(arguments, &cli.common),
        Verb::Completions(arguments) => {
            // Written to memory first: the generator gives up with a panic when its output goes away.
            let mut script = Vec::new();
            clap_complete::generate(arguments.shell, &mut command(), "diptych", &mut script);
            output::print(&script)?;
            Ok(Outcome::Done)
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_holds_together() {
        super::command().debug_assert();
    }

    #[test]
    fn every_verb_shows_an_example() {
        for verb in super::command().get_subcommands() {
            let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example"), "{}", verb.get_name());
            assert!(verb.get_about().is_some(), "{}", verb.get_name());
        }
    }
}
