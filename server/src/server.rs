//! What all requests of a server share.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Semaphore;

use crate::access::{Access, failed};
use crate::arrive::Parked;
use crate::audit::Audit;
use crate::jobs::Running;
use crate::metrics::Metrics;
use crate::namespace::Namespaces;
use crate::problem::{Problem, ProblemClass, Result};
use crate::records::Records;
use crate::share::Share;
use crate::tokens::{Token, TokenStore, random};

/// How long a client may send nothing of a file that it is sending.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Files that arrive at once, of all tokens together. Others wait unread.
const ARRIVING_MAX: usize = 64;
/// Directories and files that are taken away from pages at once.
const TAKING_MAX: usize = 32;
/// Files that are looked at at once, each of which may take the memory of a large chunk or two.
const VALIDATING_MAX: usize = 4;

/// A server.
pub struct Server {
    /// What it offers.
    pub namespaces: Namespaces,
    /// Who may come; none where the operating system has let in whoever comes.
    pub tokens: Option<TokenStore>,
    /// Who has sent what; none where there is one client.
    pub records: Option<Records>,
    /// Who has changed what.
    pub audit: Option<Audit>,
    /// Where all that is kept; nowhere where there is one client.
    pub state: Option<PathBuf>,
    /// What is counted.
    pub metrics: Metrics,
    /// With which sums of packs are made, so that no client can make others of the same sum.
    pub secret: blake3::Hasher,
    /// Permits for files that arrive.
    pub arriving: Arc<Semaphore>,
    /// Permits for what is taken away from pages: each keeps a thread.
    pub taking: Arc<Semaphore>,
    /// Permits for files that are looked at.
    pub validating: Arc<Semaphore>,
    /// What each token may take, with the rate that it was made for.
    shares: Mutex<HashMap<String, (Option<u64>, Arc<Share>)>>,
    /// How long a client may send nothing of a file that it is sending.
    pub silence_max: Duration,
    /// What has arrived of files when connections broke off.
    pub parked: Parked,
    /// The job that is running.
    job: Mutex<Option<Running>>,
    /// It takes no new work.
    pub is_draining: AtomicBool,
}

impl Server {
    /// A server for clients with tokens, whose state is in `state`.
    pub fn open(namespaces: Namespaces, state: &Path) -> io::Result<Self> {
        Ok(Self {
            tokens: Some(TokenStore::open(state)?),
            records: Some(Records::open(state)?),
            audit: Some(Audit::open(state)?),
            state: Some(state.to_owned()),
            secret: blake3::Hasher::new_keyed(&secret(state)?),
            ..Self::for_owner(namespaces)?
        })
    }

    /// A server for one client that the operating system has let in.
    pub fn for_owner(namespaces: Namespaces) -> io::Result<Self> {
        Ok(Self {
            namespaces,
            tokens: None,
            records: None,
            audit: None,
            state: None,
            metrics: Metrics::default(),
            secret: blake3::Hasher::new_keyed(&random()?),
            arriving: Arc::new(Semaphore::new(ARRIVING_MAX)),
            taking: Arc::new(Semaphore::new(TAKING_MAX)),
            validating: Arc::new(Semaphore::new(VALIDATING_MAX)),
            shares: Mutex::default(),
            silence_max: SILENCE_MAX,
            parked: Parked::default(),
            job: Mutex::default(),
            is_draining: AtomicBool::new(false),
        })
    }

    /// The job that is running, if one is.
    pub fn job(&self) -> Option<Running> {
        self.job.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_job(&self, job: Option<Running>) {
        *self.job.lock().unwrap_or_else(PoisonError::into_inner) = job;
    }

    /// The token that somebody has shown, if it is good anywhere.
    pub fn know(&self, shown: Option<&str>) -> Result<Option<Arc<Token>>> {
        let Some(tokens) = &self.tokens else { return Ok(Some(Arc::new(Token::of_owner()))) };
        let found = shown.map_or(Ok(None), |shown| tokens.find(shown)).map_err(failed)?;
        let is_good = |token: &Arc<Token>| {
            token.is_good(token.namespace.as_deref().unwrap_or_default(), Timestamp::now())
        };
        Ok(found.filter(is_good))
    }

    /// What a token may take at once, over all its connections.
    pub fn share(&self, token: &Token) -> Arc<Share> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        let made = || (token.rate, Arc::new(Share::new(token.rate)));
        let share = shares.entry(token.id.clone()).or_insert_with(made);
        if share.0 != token.rate {
            *share = made();
        }
        Arc::clone(&share.1)
    }

    /// What whoever shows this may do in a namespace. Spec: P-2-3 and P-2-4.
    pub fn admit(self: &Arc<Self>, namespace: &str, shown: Option<&str>) -> Result<Access> {
        let token = match &self.tokens {
            None => Arc::new(Token::of_owner()),
            Some(tokens) => {
                let found = shown.map_or(Ok(None), |shown| tokens.find(shown)).map_err(failed)?;
                let good = found.filter(|token| token.is_good(namespace, Timestamp::now()));
                good.ok_or_else(|| {
                    let what = match shown {
                        None => "a token is needed: give it in DIPTYCH_TOKEN or --token-file",
                        Some(_) => {
                            "this token is not good here: it is unknown, has expired, was revoked, or is of \
                            another namespace"
                        }
                    };
                    Problem::new(ProblemClass::Unauthenticated, what)
                })?
            }
        };
        Ok(Access { server: Arc::clone(self), namespace: self.namespaces.get(namespace)?, token })
    }
}

/// The server's secret, made if there is none.
fn secret(state: &Path) -> io::Result<[u8; 32]> {
    use std::os::unix::fs::OpenOptionsExt;
    let path = state.join("secret");
    let mut options = std::fs::OpenOptions::new();
    match options.create_new(true).write(true).mode(0o600).open(&path) {
        Ok(mut file) => {
            let bytes = random()?;
            io::Write::write_all(&mut file, &bytes)?;
            file.sync_all()?;
            Ok(bytes)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            std::fs::read(&path)?.try_into().map_err(|_| {
                let what =
                    format!("{}: has another length than it was written with; remove it", path.display());
                io::Error::new(io::ErrorKind::InvalidData, what)
            })
        }
        Err(error) => Err(error),
    }
}
