//! Events as JSON: one object on each line. `docs/json.md` describes them.

use diptych_format::{Kind, Problem};
use serde_json::{Map, Value, json};

use crate::progress::Act;

use super::output;

/// Where events go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonTo {
    /// Standard output.
    Output,
    /// Standard error: where standard output has an archive or a content.
    Error,
}

impl JsonTo {
    /// Prints one event on a line of its own.
    pub fn send(self, event: &Value) {
        let line = format!("{event}\n");
        match self {
            JsonTo::Output => output::print_event(line.as_bytes()),
            JsonTo::Error => output::warn(line.as_bytes()),
        }
    }
}

/// Adds a path: `path`, and `path_hex` where it is no UTF-8 and `path` shows it with replacement characters.
pub fn put_path(event: &mut Map<String, Value>, path: &[u8]) {
    event.insert("path".to_owned(), String::from_utf8_lossy(path).into());
    if std::str::from_utf8(path).is_err() {
        event.insert("path_hex".to_owned(), hex(path).into());
    }
}

/// An entry was dealt with.
pub fn entry_event(path: &[u8], kind: Kind) -> Value {
    let mut event = Map::new();
    event.insert("event".to_owned(), "entry".into());
    put_path(&mut event, path);
    event.insert("kind".to_owned(), kind.word().into());
    Value::Object(event)
}

/// An entry was read though there was a snapshot to compare with.
pub fn read_event(path: &[u8], why: &str) -> Value {
    let mut event = Map::new();
    event.insert("event".to_owned(), "read".into());
    put_path(&mut event, path);
    event.insert("why".to_owned(), why.into());
    Value::Object(event)
}

/// Something could not be done faithfully.
pub fn problem_event(problem: &Problem) -> Value {
    let mut event = Map::new();
    event.insert("event".to_owned(), "problem".into());
    put_path(&mut event, &problem.path);
    event.insert("what".to_owned(), problem.what.as_str().into());
    event.insert("loss".to_owned(), problem.is_loss.into());
    Value::Object(event)
}

/// Something would be done, if it were not only asked for.
pub fn planned_event(act: Act, path: &[u8], is_directory: bool) -> Value {
    let mut event = target_event("planned", path, is_directory);
    event.insert("action".to_owned(), act.word().into());
    Value::Object(event)
}

/// Something was deleted.
pub fn deleted_event(path: &[u8], is_directory: bool) -> Value {
    Value::Object(target_event("deleted", path, is_directory))
}

fn target_event(name: &str, path: &[u8], is_directory: bool) -> Map<String, Value> {
    let mut event = Map::new();
    event.insert("event".to_owned(), name.into());
    put_path(&mut event, path);
    event.insert("directory".to_owned(), is_directory.into());
    event
}

/// A snapshot does not have an entry whole.
pub fn incomplete_event(path: &[u8], what: &str) -> Value {
    let mut event = Map::new();
    event.insert("event".to_owned(), "incomplete".into());
    put_path(&mut event, path);
    event.insert("what".to_owned(), what.into());
    Value::Object(event)
}

/// The end of a job.
pub fn summary_event(verb: &str, fields: Value) -> Value {
    let mut event = json!({ "event": "summary", "verb": verb });
    if let (Value::Object(event), Value::Object(fields)) = (&mut event, fields) {
        event.extend(fields);
    }
    event
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(digit.into(), 16).unwrap_or('0'));
        }
        text
    })
}
