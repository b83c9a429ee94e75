//! How a run ends: its exit code, and what is said when it failed.

use crate::error::{Error, Result};

use super::output;

/// How a run that did not fail went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything was done.
    Done,
    /// Two things differ, and the caller wanted to be told by the exit code.
    Differs,
    /// Finished, but something could not be read or written faithfully.
    WithLosses,
    /// As another process did, by whose exit code it is told.
    As(u8),
}

impl Outcome {
    /// By the number of losses.
    pub fn of_losses(losses: u64) -> Self {
        if losses == 0 { Self::Done } else { Self::WithLosses }
    }
}

const CODE_FAILED: u8 = 1;
const CODE_USAGE: u8 = 2;
const CODE_NO_REPOSITORY: u8 = 10;
const CODE_WRONG_PASSWORD: u8 = 12;
const CODE_INTERRUPTED: u8 = 130;

/// The exit code; says what went wrong.
pub fn exit_code(result: Result<Outcome>) -> u8 {
    match result {
        Ok(Outcome::Done) => 0,
        Ok(Outcome::Differs) => 1,
        Ok(Outcome::WithLosses) => 3,
        Ok(Outcome::As(code)) => code,
        Err(Error::Interrupted) => CODE_INTERRUPTED,
        Err(_) if super::signals::is_interrupted() => CODE_INTERRUPTED,
        // Whoever read our output has what was wanted of it, and needs no message.
        Err(error) if error.is_broken_pipe() => CODE_FAILED,
        Err(error) => {
            output::say(&format!("diptych: {error}"));
            match error {
                Error::Usage(_) => CODE_USAGE,
                Error::NoRepository(_) => CODE_NO_REPOSITORY,
                Error::WrongPassword(_) => CODE_WRONG_PASSWORD,
                _ => CODE_FAILED,
            }
        }
    }
}
