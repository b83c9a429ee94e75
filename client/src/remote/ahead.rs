//! Asks for what will be needed next, so that one way to the server and back serves for several answers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::Method;
use tokio::task::JoinHandle;

use super::transport::{Answer, Ask, Transport};

/// How long an answer that nobody has asked for yet is true.
const GOOD_FOR: Duration = Duration::from_secs(10);
/// Most bytes of such an answer; longer ones are asked for when they are needed.
const ANSWER_MAX: u64 = 64 << 20;

/// Answers that are on their way, each for whoever asks first.
pub(super) struct Ahead {
    transport: Arc<Transport>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    coming: HashMap<String, (Instant, Running)>,
    /// What is not waited for before the end.
    later: Vec<Running>,
}

type Running = JoinHandle<diptych_backend::Result<Answer>>;

impl Ahead {
    pub fn new(transport: Arc<Transport>) -> Self {
        Self { transport, state: Mutex::default() }
    }

    /// Asks for these paths, all at once.
    pub fn begin(&self, paths: &[String]) {
        for path in paths {
            let mut ask = Ask::new(Method::GET, path.clone());
            ask.answer_max = ANSWER_MAX;
            let running = self.transport.spawn(ask);
            self.state().coming.insert(path.clone(), (Instant::now(), running));
        }
    }

    /// The answer for a path, once, if it was asked for, is not old, and came: whoever gets none asks and is told why.
    pub fn take(&self, path: &str) -> Option<Bytes> {
        let (asked, running) = self.state().coming.remove(path)?;
        if asked.elapsed() > GOOD_FOR {
            return None;
        }
        Some(self.transport.wait(running)?.ok()?.bytes)
    }

    /// Something was changed: what was asked for before does not show it.
    pub fn forget(&self) {
        self.state().coming.clear();
    }

    /// Asks for something that nobody waits for but the end of the process.
    pub fn finish_later(&self, ask: Ask) {
        let running = self.transport.spawn(ask);
        self.state().later.push(running);
    }

    /// Waits for what was to be done before the end.
    pub fn finish(&self) {
        self.forget();
        let later = std::mem::take(&mut self.state().later);
        for running in later {
            let _ = self.transport.wait(running);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
