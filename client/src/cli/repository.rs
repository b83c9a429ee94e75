//! Options by which a repository is found and opened.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use diptych_backend::{Backend, FileKind};
use diptych_format::Error as FormatError;
use diptych_repository::Repository;
use diptych_repository::documents::KeyOwner;
use diptych_repository::repository::OpenError;
use jiff::Timestamp;

use crate::backup::{host_name, user_name};
use crate::error::{Error, InPlace, Result};
use crate::progress::Progress;
use crate::remote::address::Address;
use crate::remote::{self, Credentials, parse_fingerprint};
use crate::size::parse_size;
use crate::snapshots::report_damaged;

/// Which repository.
#[derive(clap::Args)]
#[command(next_help_heading = "Repository")]
pub struct RepositoryOptions {
    /// Where the repository is: a directory, or file:PATH; on a server diptych://HOST:PORT/NAMESPACE or
    /// diptych+unix:SOCKET/NAMESPACE; ssh://USER@HOST/PATH where diptych is there as well.
    #[arg(short, long = "repo", value_name = "LOCATION", env = "DIPTYCH_REPO", hide_env_values = true)]
    pub repository: String,
    #[command(flatten)]
    pub password: PasswordOptions,
    #[command(flatten)]
    pub remote: RemoteOptions,
}

/// How a server is spoken to.
#[derive(Clone, clap::Args)]
#[command(next_help_heading = "Server")]
pub struct RemoteOptions {
    /// Read the token for a server from the first line of FILE. Else it is in DIPTYCH_TOKEN.
    #[arg(long, value_name = "FILE", env = "DIPTYCH_TOKEN_FILE", hide_env_values = true)]
    token_file: Option<PathBuf>,
    /// The fingerprint of the server's certificate, as it prints it when it starts: SHA-256. Without it, the certificate has
    /// to be one that this machine trusts.
    #[arg(long, value_name = "FINGERPRINT", env = "DIPTYCH_FINGERPRINT", hide_env_values = true)]
    fingerprint: Option<String>,
    /// Send at most SIZE in a second.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    limit_upload: Option<u64>,
    /// Fetch at most SIZE in a second.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    limit_download: Option<u64>,
    /// Give up when a server has not answered for so many seconds, in which it is asked again and again.
    #[arg(long, value_name = "SECONDS", default_value = "120")]
    timeout: u64,
    /// The variable that has the token else.
    #[arg(skip)]
    variable: Option<&'static str>,
}

impl RemoteOptions {
    /// Those of another server, beside `self`.
    pub fn other(
        &self,
        token_file: Option<PathBuf>,
        fingerprint: Option<String>,
        variable: &'static str,
    ) -> Self {
        Self { token_file, fingerprint, variable: Some(variable), ..self.clone() }
    }

    fn credentials(&self) -> Result<Credentials> {
        let token = match &self.token_file {
            Some(file) => {
                let place = file.display().to_string();
                let bytes = std::fs::read(file)
                    .map_err(|error| Error::io(&place, "the token cannot be read", error))?;
                Some(String::from_utf8_lossy(&first_line(bytes, &place)?).into_owned())
            }
            None => std::env::var(self.variable.unwrap_or("DIPTYCH_TOKEN")).ok(),
        };
        let token = token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty());
        let fingerprint = self.fingerprint.as_ref().map(|text| {
            let what =
                || Error::Usage(format!("{text:?} is no fingerprint: sha256: and 64 hexadecimal digits"));
            parse_fingerprint(text).ok_or_else(what)
        });
        Ok(Credentials {
            try_for: Some(Duration::from_secs(self.timeout)),
            token,
            fingerprint: fingerprint.transpose()?,
            upload_max: self.limit_upload,
            download_max: self.limit_download,
            notice: Some(|what| super::output::say(&format!("diptych: {what}"))),
        })
    }
}

/// Which repository, where an archive or a directory may be meant as well.
#[derive(clap::Args)]
#[command(next_help_heading = "Repository")]
pub struct MaybeRepository {
    /// Where the repository is, if a snapshot is meant: as for the other verbs of repositories.
    #[arg(short, long = "repo", value_name = "LOCATION", env = "DIPTYCH_REPO", hide_env_values = true)]
    repository: Option<String>,
    #[command(flatten)]
    password: PasswordOptions,
    #[command(flatten)]
    remote: RemoteOptions,
}

impl MaybeRepository {
    /// The repository, if one was named.
    pub fn given(&self) -> Option<RepositoryOptions> {
        let repository = self.repository.clone()?;
        Some(RepositoryOptions { repository, password: self.password.clone(), remote: self.remote.clone() })
    }
}

/// Where the password comes from. Without any of these, DIPTYCH_PASSWORD has it, or the terminal is asked.
#[derive(Clone, clap::Args)]
#[group(multiple = false)]
pub struct PasswordOptions {
    /// Read the password from the first line of FILE.
    #[arg(long, value_name = "FILE", env = "DIPTYCH_PASSWORD_FILE", hide_env_values = true)]
    password_file: Option<PathBuf>,
    /// Take the password from the first line that COMMAND (run by the shell) prints.
    #[arg(long, value_name = "COMMAND", env = "DIPTYCH_PASSWORD_COMMAND", hide_env_values = true)]
    password_command: Option<String>,
    /// The variable that has it else.
    #[arg(skip = "DIPTYCH_PASSWORD")]
    variable: &'static str,
}

impl PasswordOptions {
    /// From a file, or else from a variable of another name.
    pub fn of_file(password_file: Option<PathBuf>, variable: &'static str) -> Self {
        Self { password_file, password_command: None, variable }
    }

    /// The password that was given other than by hand.
    pub fn given(&self) -> Result<Option<Vec<u8>>> {
        if let Some(file) = &self.password_file {
            let bytes = std::fs::read(file).map_err(|error| {
                Error::io(file.display().to_string(), "the password cannot be read", error)
            })?;
            return first_line(bytes, &file.display().to_string()).map(Some);
        }
        if let Some(command) = &self.password_command {
            let place = format!("--password-command {command:?}");
            let output = Command::new("/bin/sh")
                .args(["-c", command])
                .stdin(Stdio::inherit())
                .stderr(Stdio::inherit())
                .output()
                .map_err(|error| Error::io(&place, "cannot be run", error))?;
            if !output.status.success() {
                return Err(Error::Usage(format!("{place} failed: {}", output.status)));
            }
            return first_line(output.stdout, &place).map(Some);
        }
        use std::os::unix::ffi::OsStringExt;
        match std::env::var_os(self.variable) {
            Some(password) if !password.is_empty() => Ok(Some(password.into_vec())),
            _ => Ok(None),
        }
    }

    /// A new password, asked for twice if it was not given.
    pub fn new_password(&self) -> Result<Vec<u8>> {
        self.given()?.map_or_else(ask_new, Ok)
    }
}

/// A new password from the first line of a file, or asked for twice.
pub fn new_password(file: Option<&Path>) -> Result<Vec<u8>> {
    file.map_or_else(ask_new, read_password)
}

fn ask_new() -> Result<Vec<u8>> {
    let password = ask("new password: ")?;
    if password.is_empty() {
        let what = "an empty password protects nothing: give one, or --no-encryption";
        return Err(Error::Usage(what.to_owned()));
    }
    if ask("the same again: ")? != password {
        return Err(Error::Usage("the two passwords differ".to_owned()));
    }
    Ok(password)
}

fn read_password(file: &Path) -> Result<Vec<u8>> {
    let place = file.display().to_string();
    let bytes =
        std::fs::read(file).map_err(|error| Error::io(&place, "the password cannot be read", error))?;
    first_line(bytes, &place)
}

fn first_line(bytes: Vec<u8>, place: &str) -> Result<Vec<u8>> {
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() {
        return Err(Error::Usage(format!("{place} gives an empty line")));
    }
    Ok(line.to_vec())
}

fn ask(prompt: &str) -> Result<Vec<u8>> {
    rpassword::prompt_password(prompt).map(String::into_bytes).map_err(|error| {
        if error.kind() == std::io::ErrorKind::Interrupted || super::signals::is_interrupted() {
            return Error::Interrupted;
        }
        let what = "there is no terminal to ask for the password: give it in a file, by a command or in the environment \
            (DIPTYCH_PASSWORD)";
        Error::Usage(what.to_owned())
    })
}

/// Whose a key is that is made here.
pub fn key_owner(label: &str) -> KeyOwner {
    KeyOwner { created: Timestamp::now(), user: user_name(), host: host_name(), label: label.to_owned() }
}

/// Why a location is of no use, in this crate's words.
pub fn told(error: diptych_backend::Error) -> Error {
    Error::from(diptych_repository::told(error))
}

impl RepositoryOptions {
    /// Where its files are.
    pub fn backend(&self) -> Result<Arc<dyn Backend>> {
        match Address::parse(&self.repository) {
            None => diptych_backend::open(&self.repository).map_err(told),
            Some(address) => {
                remote::open(address.map_err(Error::Usage)?, self.remote.credentials()?).map_err(told)
            }
        }
    }

    /// Opens the repository for whoever is going to read contents.
    pub fn open_to_read(&self, progress: &dyn Progress) -> Result<Repository> {
        let repository = self.open(progress)?;
        repository.backend().may_read_contents().map_err(told)?;
        Ok(repository)
    }

    /// Opens the repository.
    pub fn open(&self, progress: &dyn Progress) -> Result<Repository> {
        let given = self.password.given()?;
        let is_expected = given.is_some();
        let mut refused = None;
        let password = || match given.map_or_else(|| ask(&format!("password for {}: ", self.repository)), Ok)
        {
            Ok(password) => Ok(password),
            Err(error) => {
                refused = Some(error);
                Err(FormatError::missing("there is no password"))
            }
        };
        let report = |damaged| report_damaged(progress, &damaged);
        let backend = self.backend()?;
        let opened = Repository::open(backend.clone(), is_expected, password, report);
        match opened {
            Ok(repository) => match crate::seen::downgrade(&repository) {
                None => Ok(repository),
                Some(what) => Err(Error::Refused(what)),
            },
            Err(_) if let Some(refused) = refused => Err(refused),
            Err(OpenError::None(_)) => Err(Error::NoRepository(format!(
                "{}: there is no repository here\n  `diptych init -r {}` makes one.",
                self.repository, self.repository
            ))),
            Err(OpenError::WrongPassword)
                if backend.list(FileKind::Key).is_ok_and(|keys| keys.is_empty()) =>
            {
                let place = &self.repository;
                Err(Error::WrongPassword(format!(
                    "{place}: the repository is encrypted, and none of its keys is there\n  \
                        Put the files of keys/ back from a copy: without them nothing can be read."
                )))
            }
            Err(OpenError::WrongPassword) => Err(Error::WrongPassword(format!(
                "{}: the password opens none of the repository's keys",
                self.repository
            ))),
            Err(OpenError::NotEncrypted) => Err(Error::Usage(format!(
                "{}: a password was given, and the repository is not encrypted: somebody may have replaced it. \
                 If it is yours and has never been encrypted, give none",
                self.repository
            ))),
            Err(OpenError::Failed(error)) => Err(error).in_place(&self.repository),
        }
    }
}
