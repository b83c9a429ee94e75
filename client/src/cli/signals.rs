//! SIGINT, SIGTERM and SIGHUP: the first asks the job to end in good order, the second ends the process.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{SigSet, Signal};

use crate::error::{Error, Result};

/// What jobs look at.
static INTERRUPT: OnceLock<Arc<AtomicBool>> = OnceLock::new();
/// Whether a job looks at it.
static IS_WATCHED: AtomicBool = AtomicBool::new(false);

/// Takes the signals over. Call it before any thread is started: threads inherit what is blocked.
pub fn install() -> Result<()> {
    let ignored = ignored();
    let mut set = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        if ignored >> (signal as u32 - 1) & 1 == 0 {
            set.add(signal);
        }
    }
    let blocked = set.thread_block();
    blocked.map_err(|error| Error::io("signals", "cannot be taken over", error.into()))?;
    let start = std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        loop {
            let Ok(_) = set.wait() else { return };
            let is_second = flag().swap(true, Ordering::Relaxed);
            if is_second || !IS_WATCHED.load(Ordering::Relaxed) {
                std::process::exit(130);
            }
        }
    });
    start.map(drop).map_err(|error| Error::io("signals", "cannot start a thread", error))
}

/// The signals that whoever started us had ignored, as nohup does: they stay so, for a signal that is waited for would
/// arrive all the same. One bit each, as the kernel shows them.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

fn flag() -> &'static Arc<AtomicBool> {
    INTERRUPT.get_or_init(Arc::default)
}

/// The flag, for a job that looks at it and cleans up; from now on the first signal no longer ends the process.
pub fn watch() -> Arc<AtomicBool> {
    IS_WATCHED.store(true, Ordering::Relaxed);
    Arc::clone(flag())
}

/// Whether somebody asked for the end.
pub fn is_interrupted() -> bool {
    flag().load(Ordering::Relaxed)
}
