//! `serve`: offers repositories to other machines.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Parser;
use diptych_server::jobs::{Config, Job, Jobs};
use diptych_server::{Listen, Namespace, Namespaces, Server};

use super::options::Common;
use super::outcome::Outcome;
use super::repository::told;
use super::{output, signals};
use crate::backup::host_name;
use crate::error::{Error, Result};

/// Offer repositories to clients on other machines.
///
/// Clients come with tokens, which `diptych token` makes, and name the server as diptych://HOST:PORT/NAMESPACE. Each
/// namespace is one repository: with --root every directory in DIR, with -r the one at LOCATION under the name of --name.
/// The server keeps the same files that a repository in a directory has; it needs no password, and can open nothing of a
/// repository that is encrypted.
///
/// On TCP it speaks TLS, with a certificate that it makes itself when it first starts, the fingerprint of which it prints,
/// or with the one of --cert and --key, which is read again when it changes.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  diptych serve --root /srv/backup --listen 0.0.0.0:8040
  diptych serve --root /srv/backup --listen 0.0.0.0:8040 --config /etc/diptych/serve.toml
  diptych serve -r /srv/backup/main --unix /run/diptych/socket
  diptych serve -r /srv/backup/main --stdio    # what ssh://HOST/srv/backup/main starts")]
pub struct Arguments {
    /// Offer the repository at LOCATION.
    #[arg(short, long = "repo", value_name = "LOCATION", conflicts_with = "root")]
    repository: Option<String>,
    /// What the repository of -r is called.
    #[arg(long, value_name = "NAMESPACE", default_value = "main")]
    name: String,
    /// Offer every repository in DIR under the name of its directory; clients with the right to administer make new ones.
    #[arg(long, value_name = "DIR", required_unless_present = "repository")]
    root: Option<PathBuf>,
    /// Listen on a TCP address, with TLS.
    #[arg(long, value_name = "ADDRESS:PORT", required_unless_present_any = ["unix", "stdio"])]
    listen: Option<SocketAddr>,
    /// Listen on a unix socket.
    #[arg(long, value_name = "PATH")]
    unix: Option<PathBuf>,
    /// Serve one client over standard input and output, without tokens: whoever can start this may do everything.
    #[arg(long, conflicts_with_all = ["listen", "unix", "cert", "plain"])]
    stdio: bool,
    /// The server's certificate chain, PEM.
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Speak HTTP without TLS, on a loopback address alone (diptych+plain://).
    #[arg(long, conflicts_with = "cert")]
    plain: bool,
    /// Run `forget` and `check` by a schedule: for each [[job]] of this TOML file its namespace, at (as in a crontab), run (a
    /// list: the verb and its options), password-file.
    #[arg(long, value_name = "FILE", conflicts_with = "stdio")]
    config: Option<PathBuf>,
    #[command(flatten)]
    state: StateOptions,
    /// How the log on standard error is written.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log: LogFormat,
}

/// Where a server keeps its tokens, its certificate and its records.
#[derive(clap::Args)]
pub struct StateOptions {
    /// Where the server keeps its tokens, its certificate, its audit log, and who has sent what [default:
    /// /var/lib/diptych for root, else in the user's state directory].
    #[arg(long, value_name = "DIR", env = "DIPTYCH_SERVER_STATE", hide_env_values = true)]
    state: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum LogFormat {
    /// Lines for people.
    Text,
    /// A JSON object in each line.
    Json,
    /// None.
    None,
}

impl StateOptions {
    /// The directory, made if it is not there.
    pub fn directory(&self) -> Result<PathBuf> {
        use std::os::unix::fs::DirBuilderExt;
        let path = match &self.state {
            Some(path) => path.clone(),
            None => default_state()?,
        };
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.map_err(|error| {
            Error::io(path.display().to_string(), "the server's state cannot be kept here", error)
        })?;
        Ok(path)
    }
}

fn default_state() -> Result<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Ok("/var/lib/diptych".into());
    }
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
    let state =
        state.ok_or_else(|| Error::Usage("there is no home directory: give --state DIR".to_owned()))?;
    Ok(state.join("diptych/server"))
}

pub(super) fn run(arguments: &Arguments, common: &Common) -> Result<Outcome> {
    let namespaces = match (&arguments.repository, &arguments.root) {
        (Some(location), _) => {
            if !diptych_server::namespace::is_name(&arguments.name) {
                let what = "a namespace's name is of the letters a to z, digits, '.', '_' and '-'";
                return Err(Error::Usage(format!("--name {}: {what}", arguments.name)));
            }
            let backend = diptych_backend::open(location).map_err(told)?;
            Namespaces::One(Arc::new(Namespace::new(&arguments.name, backend)))
        }
        (None, root) => {
            let root = root.clone().unwrap_or_default();
            if !root.is_dir() {
                return Err(Error::missing(
                    root.display().to_string(),
                    "there is no such directory",
                    "Make it first.",
                ));
            }
            Namespaces::Root { root, open: std::sync::Mutex::default() }
        }
    };
    let config = match &arguments.config {
        None => Config::default(),
        Some(path) => {
            let place = path.display().to_string();
            let text =
                std::fs::read_to_string(path).map_err(|error| Error::io(&place, "cannot be read", error))?;
            let config = Config::parse(&text).map_err(|what| Error::Usage(format!("{place}: {what}")))?;
            config.jobs.iter().try_for_each(|job| check_job(job, &place))?;
            config
        }
    };
    start_log(arguments.log, arguments.stdio);
    if arguments.stdio {
        let server = Server::for_owner(namespaces).map_err(|error| failed(Path::new("the server"), error))?;
        let served = diptych_server::serve_stdio(Arc::new(server));
        return served.map(|()| Outcome::Done).map_err(|error| failed(Path::new("the server"), error));
    }
    let state = arguments.state.directory()?;
    let server = Server::open(namespaces, &state).map_err(|error| failed(&state, error))?;
    let listen = Listen {
        address: arguments.listen,
        unix: arguments.unix.clone(),
        certificate: arguments.cert.clone().zip(arguments.key.clone()),
        is_plain: arguments.plain,
        state: state.clone(),
        names: vec!["localhost".to_owned(), host_name()],
    };
    let program = std::env::current_exe().map_err(|error| failed(Path::new("this program"), error))?;
    let (server, locate, log) = (Arc::new(server), locate(arguments), state.join("jobs.log"));
    let jobs = Jobs { program, jobs: config.jobs, locate, log, server: Arc::clone(&server) };
    let interrupt = signals::watch();
    let served = diptych_server::serve(server, &listen, &interrupt, jobs, |listening| {
        if !common.quiet {
            output::say(&format!("serving at {listening}"));
        }
    });
    served.map(|()| Outcome::Done).map_err(|error| failed(Path::new("the server"), error))
}

/// A job that cannot be run is told when the server starts, and not at night.
fn check_job(job: &Job, place: &str) -> Result<()> {
    let told = |what: String| Error::Usage(format!("{place}: job {:?}: {what}", job.run.join(" ")));
    let words = std::iter::once("diptych").chain(job.run.iter().map(String::as_str));
    let with_repository = words.chain(["--repo", "/"]);
    super::Cli::try_parse_from(with_repository).map_err(|error| told(error.to_string()))?;
    if let Some(file) = &job.password_file {
        std::fs::File::open(file).map_err(|error| told(format!("{}: {error}", file.display())))?;
    }
    Ok(())
}

/// Where jobs find a namespace's repository.
fn locate(arguments: &Arguments) -> Arc<dyn Fn(&str) -> Option<String> + Send + Sync> {
    let (only, location, root) =
        (arguments.name.clone(), arguments.repository.clone(), arguments.root.clone());
    Arc::new(move |namespace| match (&location, &root) {
        (Some(location), _) => (namespace == only).then(|| location.clone()),
        (None, Some(root)) => {
            let path = root.join(namespace);
            path.is_dir().then(|| path.display().to_string())
        }
        (None, None) => None,
    })
}

fn failed(place: &Path, error: std::io::Error) -> Error {
    Error::io(place.display().to_string(), "cannot serve", error)
}

fn start_log(format: LogFormat, is_stdio: bool) {
    let builder = tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false);
    match format {
        LogFormat::None => {}
        // It would stand between the messages of the client's run.
        LogFormat::Text if is_stdio => {}
        LogFormat::Text => builder.with_ansi(false).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}
