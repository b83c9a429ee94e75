//! `diptych key`: the passwords of a repository.

use std::io::Write;
use std::path::PathBuf;

use diptych_format::{Digest, Error as FormatError};
use diptych_repository::Repository;
use diptych_repository::documents::KeyDocument;
use serde_json::json;

use crate::error::{Error, InPlace, Result};
use crate::snapshots::{report_damaged, short};

use super::json::{JsonTo, summary_event};
use super::options::{Common, Json};
use super::outcome::Outcome;
use super::output;
use super::repository::{RepositoryOptions, key_owner, new_password};
use super::snapshots::show_time;
use super::terminal::Terminal;

/// List, add, remove and change the passwords of a repository.
///
/// Each key file opens the repository with its password. Whoever had one, and a copy of its key file, can open the
/// repository even when the key has been removed: what it protects is the same for ever.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  diptych key list -r /backup/repo
  diptych key add -r /backup/repo --label safe --new-password-file /media/stick/password")]
pub struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    List(ListArguments),
    /// Add a key with a new password.
    Add(AddArguments),
    Remove(RemoveArguments),
    /// Change the password: a new key is added, and the one that the old password opens is removed.
    Passwd(AddArguments),
}

/// List the keys; * marks the one that the password opens.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  diptych key list -r /backup/repo")]
struct ListArguments {
    #[command(flatten)]
    json: Json,
    #[command(flatten)]
    repository: RepositoryOptions,
}

#[derive(clap::Args)]
#[command(after_help = "\
Example:
  diptych key add -r /backup/repo --label safe
  diptych key passwd -r /backup/repo --new-password-file /etc/new.password")]
struct AddArguments {
    /// Read the new password from the first line of FILE; without it the terminal is asked.
    #[arg(long, value_name = "FILE")]
    new_password_file: Option<PathBuf>,
    /// Words to know the key by.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    label: String,
    #[command(flatten)]
    json: Json,
    #[command(flatten)]
    repository: RepositoryOptions,
}

/// Remove a key: its password opens the repository no longer.
///
/// The last one is never removed: nothing could be read any more.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  diptych key remove -r /backup/repo 5a1f")]
struct RemoveArguments {
    /// The first digits of its name, as `key list` shows it.
    #[arg(value_name = "KEY")]
    key: String,
    /// Remove it even if it is the one that the password opens.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    json: Json,
    #[command(flatten)]
    repository: RepositoryOptions,
}

pub(super) fn run(arguments: &Arguments, common: &Common) -> Result<Outcome> {
    let terminal = Terminal::quiet(common);
    let options = match &arguments.verb {
        Verb::List(arguments) => &arguments.repository,
        Verb::Add(arguments) | Verb::Passwd(arguments) => &arguments.repository,
        Verb::Remove(arguments) => &arguments.repository,
    };
    let repository = options.open(&*terminal)?;
    let Some(current) = repository.key() else {
        let what = format!("{}: the repository is not encrypted and has no keys", options.repository);
        return Err(Error::Usage(what));
    };
    match &arguments.verb {
        Verb::List(arguments) => {
            let keys = keys(&repository, &terminal)?;
            print(&keys, &current, arguments.json.json)?;
        }
        Verb::Add(arguments) => {
            let added = add(&repository, arguments)?;
            tell("key add", &arguments.json, common, Some(added), None);
        }
        Verb::Passwd(arguments) => {
            let added = add(&repository, arguments)?;
            repository.remove_key(&current).in_place("")?;
            tell("key passwd", &arguments.json, common, Some(added), Some(current));
        }
        Verb::Remove(arguments) => {
            let removed = choose(&keys(&repository, &terminal)?, &current, arguments)?;
            repository.remove_key(&removed).in_place("")?;
            tell("key remove", &arguments.json, common, None, Some(removed));
        }
    }
    Ok(Outcome::of_losses(terminal.losses()))
}

fn keys(repository: &Repository, terminal: &Terminal) -> Result<Vec<(Digest, KeyDocument)>> {
    let mut keys = repository.keys(|damaged| report_damaged(terminal, &damaged)).in_place("")?;
    // One of another repository opens nothing here, and is not what makes a last one the last but one.
    keys.retain(|(_, key)| key.repository == repository.id());
    Ok(keys)
}

/// Adds a key, and proves that it opens before anybody relies on it.
fn add(repository: &Repository, arguments: &AddArguments) -> Result<Digest> {
    let password = new_password(arguments.new_password_file.as_deref())?;
    let added = repository.add_key(key_owner(&arguments.label), &password).in_place("")?;
    let opens = |repository: &Repository| -> diptych_format::Result<bool> {
        let keys = repository.keys(|_| ())?;
        let key = keys.iter().find(|(name, _)| Some(*name) == added);
        key.map_or(Ok(false), |(_, key)| Ok(key.unwrap(&repository.id(), &password)?.is_some()))
    };
    match added {
        Some(added) if opens(repository).in_place("")? => Ok(added),
        _ => {
            Err(FormatError::corrupt("the new key does not open the repository: it was not written well")
                .into())
        }
    }
}

/// The key to remove.
fn choose(keys: &[(Digest, KeyDocument)], current: &Digest, arguments: &RemoveArguments) -> Result<Digest> {
    let text = arguments.key.to_ascii_lowercase();
    let mut fitting = keys.iter().filter(|(name, _)| !text.is_empty() && name.to_string().starts_with(&text));
    let key = match (fitting.next(), fitting.next()) {
        (Some((name, _)), None) => *name,
        (None, _) => {
            let advice = "`diptych key list` shows which there are.";
            return Err(Error::missing(&arguments.key, "there is no such key", advice));
        }
        (Some((a, _)), Some((b, _))) => {
            let what = format!("{} may be {} or {}: write more digits", arguments.key, short(a), short(b));
            return Err(Error::Usage(what));
        }
    };
    if keys.len() == 1 {
        let what = "this is the last key: without it nothing in the repository could be read any more\n  \
            `diptych key passwd` changes its password.";
        return Err(Error::Refused(what.to_owned()));
    }
    if key == *current && !arguments.force {
        let what = "this is the key that your password opens\n  \
            Give another one's password, or --force if you know another one.";
        return Err(Error::Refused(what.to_owned()));
    }
    Ok(key)
}

fn tell(verb: &str, json: &Json, common: &Common, added: Option<Digest>, removed: Option<Digest>) {
    if json.json {
        let mut fields = serde_json::Map::new();
        for (key, name) in [("added", added), ("removed", removed)] {
            if let Some(name) = name {
                fields.insert(key.to_owned(), name.to_string().into());
            }
        }
        JsonTo::Output.send(&summary_event(verb, fields.into()));
    } else if !common.quiet {
        let told = [(added, "added"), (removed, "removed")];
        let told =
            told.iter().filter_map(|(name, what)| name.map(|name| format!("key {} {what}", short(&name))));
        output::say(&told.collect::<Vec<_>>().join(", "));
    }
}

fn print(keys: &[(Digest, KeyDocument)], current: &Digest, is_json: bool) -> Result<()> {
    let mut keys: Vec<_> = keys.iter().collect();
    keys.sort_by_key(|(name, key)| (key.owner.created, *name));
    let mut out = output::results();
    for (name, key) in keys {
        let owner = &key.owner;
        let line = match is_json {
            true => json!({
                "key": name.to_string(),
                "current": name == current,
                "created": owner.created.to_string(),
                "user": owner.user,
                "host": owner.host,
                "label": owner.label,
            })
            .to_string(),
            false => format!(
                "{} {}  {}  {}@{}  {}",
                if name == current { '*' } else { ' ' },
                short(name),
                show_time(owner.created),
                // What nothing proves may be anything.
                crate::names::show(owner.user.as_bytes()),
                crate::names::show(owner.host.as_bytes()),
                if owner.label.is_empty() {
                    String::new()
                } else {
                    crate::names::show(owner.label.as_bytes())
                },
            )
            .trim_end()
            .to_owned(),
        };
        out.write_all(format!("{line}\n").as_bytes()).map_err(output::cannot_write)?;
    }
    out.flush().map_err(output::cannot_write)
}
