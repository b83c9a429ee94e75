//! What a server does by itself: `forget` and `check` at the times that its configuration says, each as a
//! command of its own, one after another. So a schedule says what a person would type, and a job that fails takes
//! nothing with it.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use croner::Cron;
use diptych_backend::FileKind;
use jiff::{Timestamp, Zoned};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;

use crate::namespace::is_name;
use crate::server::Server;

/// What may be run.
const VERBS: [&str; 2] = ["forget", "check"];
/// How much is kept of what a job says.
const SAID_MAX: u64 = 16 << 10;
/// How long a job may take to end when the server is to end.
const END_MAX: Duration = Duration::from_secs(20);

/// The file of --config.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Jobs.
    #[serde(default, rename = "job")]
    pub jobs: Vec<Job>,
}

/// A job.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Job {
    /// The namespace that it is for.
    pub namespace: String,
    /// When: minute, hour, day of the month, month, day of the week, as in a crontab, by the server's local time.
    pub at: String,
    /// Verb and options, as they would be typed.
    pub run: Vec<String>,
    /// The file that has the password of a repository that is encrypted.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
}

impl Config {
    /// Reads a configuration.
    pub fn parse(text: &str) -> Result<Self, String> {
        let config: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        for job in &config.jobs {
            job.cron()?;
            if !is_name(&job.namespace) {
                return Err(format!("{:?} is no namespace", job.namespace));
            }
            match job.run.first() {
                Some(verb) if VERBS.contains(&&**verb) => {}
                verb => {
                    let verb = verb.map_or("nothing", |verb| verb);
                    return Err(format!("a job runs {verb:?}: it can run {}", VERBS.join(", ")));
                }
            }
        }
        Ok(config)
    }
}

impl Job {
    fn cron(&self) -> Result<Cron, String> {
        Cron::from_str(&self.at).map_err(|error| format!("at = {:?}: {error}", self.at))
    }

    fn next(&self, after: &Zoned) -> Option<Zoned> {
        self.cron().ok()?.find_next_occurrence(after, false).ok()
    }
}

/// A job that was run, as a line of the log of jobs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Done {
    /// When it began.
    pub time: Timestamp,
    /// The namespace.
    pub namespace: String,
    /// What was run.
    pub run: Vec<String>,
    /// How long it took.
    pub seconds: f64,
    /// Its exit code; none if it was ended by a signal, or could not be started.
    pub code: Option<i32>,
    /// The last of what it said.
    pub said: String,
}

/// Runs jobs.
pub struct Jobs {
    /// What runs them: this program.
    pub program: PathBuf,
    /// What is run.
    pub jobs: Vec<Job>,
    /// Where the repository of a namespace is.
    pub locate: Arc<dyn Fn(&str) -> Option<String> + Send + Sync>,
    /// Where it is written what was run.
    pub log: PathBuf,
    /// Whose jobs they are.
    pub server: Arc<Server>,
}

/// A job that is running.
#[derive(Clone, Debug)]
pub struct Running {
    /// The namespace.
    pub namespace: String,
    /// What is run.
    pub run: String,
    /// Since when.
    pub since: Timestamp,
}

impl Jobs {
    /// Runs them until `end`, one after another.
    pub async fn run(self, end: CancellationToken) {
        let mut from = Zoned::now();
        loop {
            let next =
                self.jobs.iter().filter_map(|job| Some((job.next(&from)?, job))).min_by(|a, b| a.0.cmp(&b.0));
            let Some((when, _)) = next else { return };
            while Zoned::now() < when {
                // In short steps, for clocks are put right, and machines sleep.
                let step = tokio::time::sleep(Duration::from_secs(1));
                if end.run_until_cancelled(step).await.is_none() {
                    return;
                }
            }
            let due = self.jobs.iter().filter(|job| job.next(&from).is_some_and(|at| at <= when));
            for job in due {
                let done = self.run_one(job, &end).await;
                let (namespace, run, code) = (&*done.namespace, done.run.join(" "), done.code);
                match code {
                    Some(0) => tracing::info!(namespace, run, code, "job"),
                    _ => tracing::error!(namespace, run, code, said = done.said, "a job has failed"),
                }
                self.server.metrics.job_done(&done);
                if let Err(error) = append(&self.log, &done) {
                    tracing::error!(%error, "the log of jobs cannot be written");
                }
                if end.is_cancelled() {
                    return;
                }
            }
            // What has become due meanwhile is done once.
            from = Zoned::now().max(when);
        }
    }

    async fn run_one(&self, job: &Job, end: &CancellationToken) -> Done {
        let (time, begun) = (Timestamp::now(), Instant::now());
        let running = Running { namespace: job.namespace.clone(), run: job.run.join(" "), since: time };
        self.server.set_job(Some(running));
        let (code, said) = match self.start(job, end).await {
            Ok(ended) => ended,
            Err(error) => (None, error.to_string()),
        };
        self.server.set_job(None);
        let seconds = begun.elapsed().as_secs_f64();
        Done { time, namespace: job.namespace.clone(), run: job.run.clone(), seconds, code, said }
    }

    async fn start(&self, job: &Job, end: &CancellationToken) -> io::Result<(Option<i32>, String)> {
        let Some(location) = (self.locate)(&job.namespace) else {
            return Err(io::Error::new(io::ErrorKind::NotFound, "there is no such namespace"));
        };
        let mut command = tokio::process::Command::new(&self.program);
        command.args(&job.run).arg("--repo").arg(location);
        // The server's own passwords are not those of what it keeps.
        for variable in ["DIPTYCH_PASSWORD", "DIPTYCH_PASSWORD_FILE", "DIPTYCH_PASSWORD_COMMAND"] {
            command.env_remove(variable);
        }
        if let Some(file) = &job.password_file {
            command.arg("--password-file").arg(file);
        }
        // There until the job has ended.
        let senders = match job.run.first() {
            Some(verb) if verb == "forget" => Some(self.senders(&job.namespace)?),
            _ => None,
        };
        if let Some(senders) = &senders {
            command.arg("--senders").arg(senders.path());
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let (output, messages) = (child.stdout.take(), child.stderr.take());
        let said = tokio::spawn(async move {
            let (output, messages) = tokio::join!(last(output), last(messages));
            [output, messages].concat()
        });
        let status = match end.run_until_cancelled(child.wait()).await {
            Some(status) => status?,
            None => {
                if let Some(id) = child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed())) {
                    let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
                }
                tokio::time::timeout(END_MAX, child.wait()).await??
            }
        };
        let said = said.await.map_err(io::Error::other)?;
        Ok((status.code(), String::from_utf8_lossy(&said).into_owned()))
    }
}

impl Jobs {
    /// A file that says which domain has sent which snapshot, and which index file. What a token says of a host is its word; whose snapshots
    /// they are the server knows by itself, and does not count one's against another's.
    fn senders(&self, namespace: &str) -> io::Result<tempfile::NamedTempFile> {
        let mut file = tempfile::NamedTempFile::new()?;
        let (Some(records), Some(tokens)) = (&self.server.records, &self.server.tokens) else {
            return Ok(file);
        };
        let mut text = String::new();
        for kind in [FileKind::Snapshot, FileKind::Index] {
            for (name, mut sent) in records.all(namespace, kind)? {
                sent.sort_by_key(|(_, record)| record.arrived);
                let mut domains = sent.iter().map(|(token, _)| tokens.domain(token).unwrap_or(token.clone()));
                let Some(first) = domains.next() else { continue };
                // What several have sent is like nothing that one of them has.
                let is_shared = kind == FileKind::Index && domains.any(|domain| domain != first);
                let sender = if is_shared { format!("{first} and others") } else { first };
                let _ = writeln!(text, "{} {sender}", name.encode());
            }
        }
        file.write_all(text.as_bytes())?;
        Ok(file)
    }
}

/// The last of what somebody says.
async fn last(from: Option<impl tokio::io::AsyncRead + Unpin>) -> Vec<u8> {
    let Some(mut from) = from else { return Vec::new() };
    let (mut said, mut part) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = from.read(&mut part).await {
        said.extend_from_slice(part.get(..count).unwrap_or_default());
        let over = said.len().saturating_sub(SAID_MAX as usize);
        said.drain(..over);
    }
    said
}

fn append(path: &Path, done: &Done) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file: File = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    let mut line = serde_json::to_vec(done)?;
    line.push(b'\n');
    file.write_all(&line)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_says_what_a_person_would_type() {
        let text = "[[job]]\nnamespace = \"main\"\nat = \"30 3 * * *\"\nrun = [\"forget\", \"--keep-daily\", \"7\"]\npassword-file = \"/x\"\n";
        let config = Config::parse(text).unwrap();
        let now: Zoned = "2026-11-27T14:00[UTC]".parse().unwrap();
        let next = config.jobs[0].next(&now).unwrap();
        assert_eq!(next.to_string(), "2026-11-28T03:30:00+00:00[UTC]");
        assert_eq!(config.jobs[0].next(&next).unwrap().to_string(), "2026-11-29T03:30:00+00:00[UTC]");
    }

    #[test]
    fn a_schedule_that_makes_no_sense_is_told() {
        let job = |namespace: &str, at: &str, verb: &str| {
            format!("[[job]]\nnamespace = {namespace:?}\nat = {at:?}\nrun = [{verb:?}]\n")
        };
        for (text, expected) in [
            (job("main", "x", "check"), "at = \"x\""),
            (job("../main", "* * * * *", "check"), "is no namespace"),
            (job("main", "* * * * *", "backup"), "it can run forget, check"),
            ("[[job]]\nwhen = 1\n".to_owned(), "unknown field"),
        ] {
            let error = Config::parse(&text).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
