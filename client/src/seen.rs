//! What this machine has seen of a repository: so that whoever holds its files cannot put an older state in its place, or
//! a repository that is not encrypted, without being noticed.
//!
//! A note for each location, in the user's state directory. Without such a directory nothing is remembered.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use diptych_format::Digest;
use diptych_repository::Repository;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::remote::address::Address;

/// What a note says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The repository's id.
    repository: String,
    /// Whether it was encrypted.
    is_encrypted: bool,
    /// Id and time of the newest snapshot.
    newest: Option<(String, Timestamp)>,
}

/// The file of the note for a location.
fn file_of(location: &str) -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state =
        absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")))?;
    // Which place a relative path names depends on where one stands. What is no directory, and no server's, has no place to
    // be known by.
    let place = match Address::parse(location) {
        Some(_) => PathBuf::from(location),
        None => std::fs::canonicalize(location).ok()?,
    };
    let name = blake3::hash(place.as_os_str().as_bytes()).to_hex();
    Some(state.join("diptych/seen").join(format!("{name}.json")))
}

impl Seen {
    /// What is to be remembered of a repository.
    fn of(repository: &Repository, complete: &[(Digest, Timestamp)]) -> Self {
        let newest = complete.iter().max_by_key(|(_, time)| *time);
        Self {
            repository: repository.id().to_string(),
            is_encrypted: repository.config().is_encrypted(),
            newest: newest.map(|(id, time)| (id.to_string(), *time)),
        }
    }

    /// What was remembered; none if there is no note, or one that cannot be read.
    fn load(location: &str) -> Option<Self> {
        let text = std::fs::read(file_of(location)?).ok()?;
        let note: Value = serde_json::from_slice(&text).ok()?;
        let newest = note.get("newest").and_then(|newest| {
            let time = newest.get("time")?.as_str()?.parse().ok()?;
            Some((newest.get("id")?.as_str()?.to_owned(), time))
        });
        Some(Self {
            repository: note.get("repository")?.as_str()?.to_owned(),
            is_encrypted: note.get("encrypted")?.as_bool()?,
            newest,
        })
    }

    /// Remembers it. That a note cannot be written costs a warning some day, and no backup.
    fn store(&self, location: &str) {
        let Some(file) = file_of(location) else { return };
        let newest = self.newest.as_ref().map(|(id, time)| json!({ "id": id, "time": time.to_string() }));
        let note = json!({
            "location": location,
            "repository": self.repository,
            "encrypted": self.is_encrypted,
            "newest": newest,
        });
        let Some(directory) = file.parent() else { return };
        let written = std::fs::create_dir_all(directory)
            .and_then(|()| tempfile::NamedTempFile::new_in(directory))
            .and_then(|temporary| {
                std::fs::write(temporary.path(), note.to_string())?;
                temporary.persist(&file).map_err(|error| error.error)
            });
        drop(written);
    }
}

/// What is wrong with a repository, by what was seen at its location before; remembers what there is now. `complete` are
/// all snapshots of runs that came to their end, with their times.
pub fn compare(repository: &Repository, complete: &[(Digest, Timestamp)]) -> Option<String> {
    let location = repository.backend().view();
    let now = Seen::of(repository, complete);
    let problem = Seen::load(&location).and_then(|before| before.differs_from(&now, complete));
    if problem.is_none() {
        now.store(&location);
    }
    let accepted_by = file_of(&location)?;
    problem.map(|problem| format!("{problem} (if all is as you want it, remove {})", accepted_by.display()))
}

/// What is wrong if the repository is not encrypted and there was an encrypted one at its location: whoever can replace
/// files waits for contents in clear.
pub fn downgrade(repository: &Repository) -> Option<String> {
    let location = repository.backend().view();
    let was_encrypted = Seen::load(&location).is_some_and(|seen| seen.is_encrypted);
    if repository.config().is_encrypted() || !was_encrypted {
        return None;
    }
    let note = file_of(&location).map_or_else(String::new, |file| file.display().to_string());
    let location = repository.backend().location();
    Some(format!(
        "{location}: there was an encrypted repository here, and this one is not: somebody may have put it in its place\n  \
         If you have, remove {note}."
    ))
}

/// A repository was made here: what was at its location before counts no more.
pub fn made(repository: &Repository) {
    Seen::of(repository, &[]).store(&repository.backend().view());
}

/// A snapshot was made here: from now on it is missed if it is not there.
pub fn committed(repository: &Repository, id: &Digest, time: Timestamp) {
    let location = repository.backend().view();
    let made = Seen::of(repository, &[(*id, time)]);
    let stays = Seen::load(&location).is_some_and(|before| {
        // Another repository in this place is told of until somebody says that all is well; and a copy may be of a snapshot
        // that is older than others here.
        before.repository != made.repository || before.newest.is_some_and(|(_, newest)| newest > time)
    });
    if !stays {
        made.store(&location);
    }
}

impl Seen {
    fn differs_from(&self, now: &Seen, complete: &[(Digest, Timestamp)]) -> Option<String> {
        if self.repository != now.repository {
            let was = if self.is_encrypted && !now.is_encrypted { "an encrypted one" } else { "another one" };
            return Some(format!(
                "there was {was} here before ({}): if you have not replaced it, somebody has",
                self.repository.chars().take(8).collect::<String>()
            ));
        }
        let (id, time) = self.newest.as_ref()?;
        let is_there = complete.iter().any(|(there, _)| there.to_string() == *id);
        // Forgotten and pruned snapshots are older than what came after them.
        let newest = now.newest.as_ref().map(|(_, time)| *time);
        if is_there || newest.is_some_and(|newest| newest >= *time) {
            return None;
        }
        Some(format!(
            "snapshot {} of {time} was seen here before and is gone, and nothing newer is there: an older state may have \
             been put in place",
            id.chars().take(8).collect::<String>()
        ))
    }
}
