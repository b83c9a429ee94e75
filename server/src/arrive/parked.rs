//! What has arrived of files when connections broke off: kept for a while, so that who sends them can go on from there.
//!
//! Spec: protocol.md section 4.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use diptych_backend::FileName;

use super::Arriving;
use crate::access::Access;

/// How long it is kept.
const KEPT_FOR: Duration = Duration::from_secs(600);
/// The least that is worth it, in bytes.
const KEPT_MIN: u64 = 64 << 10;
/// Files of one token, and of all, that are kept so.
const OF_A_TOKEN_MAX: usize = 8;
const ALL_MAX: usize = 256;

/// Files that have arrived in part, by namespace, token and name.
#[derive(Default)]
pub struct Parked(Mutex<HashMap<Key, (Instant, Arriving)>>);

type Key = (String, String, FileName);

impl Parked {
    /// Keeps what has arrived. If there is no room for it, the oldest of the same token goes.
    pub fn park(&self, access: &Access, name: FileName, file: Arriving) {
        if file.length() < KEPT_MIN {
            return;
        }
        let key = key(access, name);
        let mut parked = self.lock();
        let own = parked.iter().filter(|((_, token, _), _)| *token == key.1);
        let (count, oldest) = (own.clone().count(), own.min_by_key(|(_, (since, _))| *since));
        if count >= OF_A_TOKEN_MAX || parked.len() >= ALL_MAX {
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else { return };
            parked.remove(&oldest);
        }
        parked.insert(key, (Instant::now(), file));
    }

    /// What has arrived of a file of the token's, to go on with.
    pub fn take(&self, access: &Access, name: FileName) -> Option<Arriving> {
        self.lock().remove(&key(access, name)).map(|(_, file)| file)
    }

    /// How many bytes have arrived of a file of the token's.
    pub fn length(&self, access: &Access, name: FileName) -> u64 {
        self.lock().get(&key(access, name)).map_or(0, |(_, file)| file.length())
    }

    /// Lets go of what nobody has gone on with.
    pub fn let_go(&self) {
        self.lock().retain(|_, (since, _)| since.elapsed() < KEPT_FOR);
    }

    /// Lets go of all, for the server ends.
    pub fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, (Instant, Arriving)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(access: &Access, name: FileName) -> Key {
    (access.namespace.name.clone(), access.token.id.clone(), name)
}
