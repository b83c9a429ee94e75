//! What has arrived of files when connections broke off: kept for a while, so that who sends them can go on from there.
//!
//! Spec: protocol.md section 4.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use diptych_backend::FileName;
use tokio_util::sync::CancellationToken;

use super::Arriving;
use crate::access::Access;
use crate::problem::Result;

/// How long it is kept.
const KEPT_FOR: Duration = Duration::from_secs(600);
/// How long it is waited for a file to end arriving that was called off.
const ENDS_IN: Duration = Duration::from_secs(10);
/// The least that is worth it, in bytes.
const KEPT_MIN: u64 = 64 << 10;
/// Files of one token, and of all, that are kept so.
const OF_A_TOKEN_MAX: usize = 8;
const ALL_MAX: usize = 256;

/// Files that have arrived in part.
#[derive(Default)]
pub struct Parked {
    files: Mutex<Files>,
    /// Files that are arriving: how to end that, and whether it has ended.
    running: Mutex<HashMap<Key, [CancellationToken; 2]>>,
}

/// By namespace, token and name.
#[derive(Default)]
struct Files {
    files: HashMap<Key, (Instant, Arriving)>,
    /// The server ends: nothing more is kept.
    is_closed: bool,
}

type Key = (String, String, FileName);

/// A file that is arriving, until this is dropped.
pub struct Running<'p> {
    parked: &'p Parked,
    key: Key,
    tokens: [CancellationToken; 2],
}

impl Running<'_> {
    /// Somebody wants to know how much has come: the client has lost the connection that the server still holds.
    pub async fn is_called_off(&self) {
        let [end, _] = &self.tokens;
        end.cancelled().await;
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut running = self.parked.running.lock().unwrap_or_else(PoisonError::into_inner);
        // Another one of the same may have begun.
        running.retain(|key, [_, has_ended]| *key != self.key || has_ended.is_cancelled());
        drop(running);
        let [_, has_ended] = &self.tokens;
        has_ended.cancel();
    }
}

impl Parked {
    /// A file of the token's begins to arrive.
    pub fn begin(&self, access: &Access, name: FileName) -> Running<'_> {
        let (key, tokens) = (key(access, name), [CancellationToken::new(), CancellationToken::new()]);
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.insert(key.clone(), tokens.clone());
        Running { parked: self, key, tokens }
    }

    /// Ends that a file of the token's arrives, if it does.
    pub async fn call_off(&self, access: &Access, name: FileName) {
        let found = {
            let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            running.get(&key(access, name)).cloned()
        };
        if let Some([end, has_ended]) = found {
            end.cancel();
            let _ = tokio::time::timeout(ENDS_IN, has_ended.cancelled()).await;
        }
    }

    /// Keeps what has arrived. If there is no room for it, the oldest of the same token goes.
    pub fn park(&self, access: &Access, name: FileName, mut file: Arriving) {
        file.rest();
        let key = key(access, name);
        let mut parked = self.lock();
        let files = &mut parked.files;
        let own = files.iter().filter(|((_, token, _), _)| *token == key.1);
        let (count, oldest) = (own.clone().count(), own.min_by_key(|(_, (since, _))| *since));
        let is_full = count >= OF_A_TOKEN_MAX || files.len() >= ALL_MAX;
        let oldest = oldest.filter(|_| is_full).map(|(key, _)| key.clone());
        let oldest = oldest.and_then(|oldest| files.remove(&oldest));
        let has_room = !is_full || oldest.is_some();
        let gone = match !parked.is_closed && has_room && file.length() >= KEPT_MIN {
            true => parked.files.insert(key, (Instant::now(), file)),
            false => Some((Instant::now(), file)),
        };
        drop(parked);
        // Not under the lock, for files that go are removed.
        drop((oldest, gone));
    }

    /// What has arrived of a file of the token's, to go on with, if it is so many bytes; what else there is of it is let go of,
    /// if it begins anew.
    pub fn take(&self, access: &Access, name: FileName, from: u64) -> Option<Result<Arriving>> {
        let key = key(access, name);
        let mut parked = self.lock();
        let is_it = parked.files.get(&key).is_some_and(|(_, file)| file.length() == from);
        let taken = if is_it || from == 0 { parked.files.remove(&key) } else { None };
        drop(parked);
        let (_, mut file) = taken.filter(|_| is_it)?;
        Some(file.resume().map(|()| file))
    }

    /// How many bytes have arrived of a file of the token's.
    pub fn length(&self, access: &Access, name: FileName) -> u64 {
        self.lock().files.get(&key(access, name)).map_or(0, |(_, file)| file.length())
    }

    /// Lets go of what nobody has gone on with.
    pub fn let_go(&self) {
        let is_old = |_: &Key, (since, _): &mut (Instant, Arriving)| since.elapsed() >= KEPT_FOR;
        let gone: Vec<_> = self.lock().files.extract_if(is_old).collect();
        drop(gone);
    }

    /// Lets go of all, for the server ends.
    pub fn close(&self) {
        let mut parked = self.lock();
        parked.is_closed = true;
        let gone = std::mem::take(&mut parked.files);
        drop(parked);
        drop(gone);
    }

    fn lock(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(access: &Access, name: FileName) -> Key {
    (access.namespace.name.clone(), access.token.id.clone(), name)
}
