//! Streams of bytes that are backed up: standard input, and what a command prints.

use std::ffi::OsString;
use std::io::{self, Read};
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::error::{Error, Result};

/// What is for this program alone, and not for the commands that it runs.
const SECRETS: [&str; 4] = ["DIPTYCH_PASSWORD", "DIPTYCH_TO_PASSWORD", "DIPTYCH_TOKEN", "DIPTYCH_TO_TOKEN"];

/// Where a stream comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Standard input.
    Stdin,
    /// What a command prints: the program and its arguments.
    Command(Vec<OsString>),
}

impl Input {
    /// Begins the stream.
    pub(super) fn open(&self) -> Result<Box<dyn Read + Send>> {
        let words = match self {
            Input::Stdin => return Ok(Box::new(io::stdin())),
            Input::Command(words) => words,
        };
        let Some((program, arguments)) = words.split_first() else {
            return Err(Error::Usage("there is no command behind --".to_owned()));
        };
        let place = program.to_string_lossy().into_owned();
        let mut command = Command::new(program);
        for secret in SECRETS {
            command.env_remove(secret);
        }
        let mut child = command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| Error::io(&place, "the command cannot be run", error))?;
        let output = child.stdout.take();
        Ok(Box::new(Output { child, output, place }))
    }
}

/// What a command prints. Its end is an error if the command failed: half a dump must not look like a whole one.
struct Output {
    child: Child,
    output: Option<ChildStdout>,
    place: String,
}

impl Read for Output {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let Some(output) = &mut self.output else { return Ok(0) };
        let read = output.read(buf)?;
        if read > 0 || buf.is_empty() {
            return Ok(read);
        }
        self.output = None;
        let status = self.child.wait()?;
        match status.success() {
            true => Ok(0),
            false => Err(io::Error::other(format!("{} failed ({status})", self.place))),
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if self.output.take().is_some() {
            // The run has ended before the command: nobody wants any more of it.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
