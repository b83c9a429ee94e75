//! `diptych init`.

use diptych_repository::Padding;
use diptych_repository::repository::InitOptions;
use jiff::Timestamp;
use serde_json::json;

use crate::error::{Error, InPlace, Result};

use super::json::{JsonTo, summary_event};
use super::options::{Common, Json};
use super::outcome::Outcome;
use super::output;
use super::repository::{RepositoryOptions, key_owner};
use super::terminal::Terminal;

/// Make a repository.
///
/// It is encrypted under a password, without which nothing in it can be read: keep the password somewhere else.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  diptych init -r /backup/repo
  diptych init -r /backup/repo --password-file /etc/backup.password")]
pub struct Arguments {
    #[command(flatten)]
    json: Json,
    #[command(flatten)]
    repository: RepositoryOptions,
    #[command(flatten)]
    new: NewOptions,
}

/// What a new repository is to be.
#[derive(clap::Args)]
#[command(next_help_heading = "New repository")]
pub struct NewOptions {
    /// Do not encrypt: whoever can read the files can read what is backed up, and change it unnoticed.
    #[arg(long)]
    no_encryption: bool,
    /// Hide the lengths of stored chunks, which takes up to an eighth more room.
    #[arg(long, conflicts_with = "no_encryption")]
    padding: bool,
}

/// Makes the repository.
pub fn make(repository: &RepositoryOptions, new: &NewOptions) -> Result<diptych_repository::Repository> {
    let backend = repository.backend()?;
    let password = match new.no_encryption {
        true if repository.password.given()?.is_some() => {
            let what = "a password is given, and with --no-encryption there is none: leave one of them out";
            return Err(Error::Usage(what.to_owned()));
        }
        true => None,
        false => Some((repository.password.new_password()?, key_owner(""))),
    };
    let padding = if new.padding { Padding::Padme } else { Padding::None };
    let options = InitOptions { password, padding, created: Timestamp::now() };
    let made = diptych_repository::Repository::init(backend, &options).in_place("")?;
    crate::seen::made(&made);
    Ok(made)
}

pub(super) fn run(arguments: &Arguments, common: &Common) -> Result<Outcome> {
    let terminal = Terminal::new(common, arguments.json.json.then_some(JsonTo::Output));
    let made = make(&arguments.repository, &arguments.new)?;
    terminal.finish();
    match terminal.json() {
        Some(json) => json.send(&summary_event(
            "init",
            json!({ "repository": made.id().to_string(), "encrypted": made.config().is_encrypted() }),
        )),
        None if common.quiet => {}
        None => {
            let kind = if made.config().is_encrypted() { "encrypted" } else { "not encrypted" };
            output::say(&format!("repository {} made, {kind}", arguments.repository.repository));
            if made.config().is_encrypted() {
                output::say("without the password nothing in it can be read: keep it somewhere else");
            }
        }
    }
    Ok(Outcome::Done)
}
