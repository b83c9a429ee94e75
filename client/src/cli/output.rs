//! Standard output and standard error: the one place that writes to either.
//!
//! A reader that went away is nobody's fault, and a full disk must not look like success. So a result that cannot be
//! written ends the job with the error, and an event that cannot be written is kept for the end: the job itself goes on.

use std::io::{BufWriter, IsTerminal, StdoutLock, Write};
use std::sync::OnceLock;

use crate::error::{Error, Result};
use crate::names::tame;

/// How much of a result is written at once.
const BUFFER: usize = 256 << 10;

/// Why the first event that could not be written was not.
static EVENT_LOST: OnceLock<std::io::Error> = OnceLock::new();

/// Where results go. Flush it when all is written: what is in the buffer then is lost in silence.
pub fn results() -> BufWriter<StdoutLock<'static>> {
    BufWriter::with_capacity(BUFFER, std::io::stdout().lock())
}

/// Whether people see what is written as it is.
pub fn is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// Writes a result that is at hand as a whole.
pub fn print(result: &[u8]) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(result).and_then(|()| stdout.flush()).map_err(cannot_write)
}

/// Writes the line of an event. Jobs send events from any thread and cannot fail for them: [`events_written`] tells.
pub fn print_event(line: &[u8]) {
    let mut stdout = std::io::stdout().lock();
    if let Err(error) = stdout.write_all(line).and_then(|()| stdout.flush()) {
        // Whatever comes later fails for the same reason.
        let _ = EVENT_LOST.set(error);
    }
}

/// After a job: an error if events were lost, other than to a reader that wanted no more of them.
pub fn events_written() -> Result<()> {
    match EVENT_LOST.get() {
        Some(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            let same =
                error.raw_os_error().map_or_else(|| error.kind().into(), std::io::Error::from_raw_os_error);
            Err(cannot_write(same))
        }
        _ => Ok(()),
    }
}

/// Writes a line for people on standard error.
pub fn say(line: &str) {
    warn(format!("{}\n", tame(line)).as_bytes());
}

/// Writes bytes on standard error. What cannot be said can be told to nobody.
pub fn warn(bytes: &[u8]) {
    let _ = std::io::stderr().lock().write_all(bytes);
}

/// Standard output is full, or gone.
pub fn cannot_write(error: std::io::Error) -> Error {
    Error::io("standard output", "cannot be written", error)
}
