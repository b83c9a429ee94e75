//! A JSON object on a line for each entry, with the keys that apply to it. `docs/json.md` describes them.

use std::io::Write;

use diptych_decoder::Row;
use diptych_format::{Holds, Kind, Result, Status, Time, Xattr};

use super::Printer;

/// Writes JSON lines into a buffer that is kept from entry to entry.
#[derive(Default)]
pub struct Json {
    line: Vec<u8>,
}

impl Printer for Json {
    fn print(&mut self, path: &[u8], row: &Row<'_>, first: Option<&[u8]>, out: &mut dyn Write) -> Result<()> {
        let entry = row.to_entry()?;
        self.line.clear();
        let line = &mut self.line;
        line.push(b'{');
        put_text(line, "path", path);
        put_text(line, "kind", row.kind().word().as_bytes());
        put_text(line, "mode", format!("{:04o}", entry.attributes.mode & 0o7777).as_bytes());
        put_number(line, "uid", entry.attributes.uid.into());
        put_number(line, "gid", entry.attributes.gid.into());
        if row.kind() == Kind::File {
            put_number(line, "size", row.size());
        }
        put_text(line, "mtime", show_time(entry.mtime).as_bytes());
        match &entry.holds {
            Holds::Content { digest, .. } if !entry.status.has(Status::NOT_READ) => {
                put_text(line, "digest", digest.to_string().as_bytes());
            }
            Holds::Target(target) => put_text(line, "target", target),
            Holds::Device { major, minor } => {
                put_number(line, "major", (*major).into());
                put_number(line, "minor", (*minor).into());
            }
            _ => {}
        }
        if entry.attributes.flags != 0 {
            put_number(line, "flags", entry.attributes.flags.into());
        }
        if entry.attributes.project != 0 {
            put_number(line, "project", entry.attributes.project.into());
        }
        put_xattrs(line, &entry.attributes.xattrs);
        if !entry.holes.is_empty() {
            put_key(line, "holes");
            let pairs = entry.holes.iter().map(|hole| format!("[{},{}]", hole.start, hole.length));
            put_list(line, pairs.map(String::into_bytes));
        }
        if !entry.status.is_complete() {
            put_key(line, "status");
            put_list(line, entry.status.words().map(|word| format!("\"{word}\"").into_bytes()));
        }
        if let Some(first) = first {
            put_text(line, "link_first", first);
        }
        line.extend_from_slice(b"}\n");
        out.write_all(line).map_err(super::cannot_write)
    }
}

/// Seconds since 1970 and nine digits of nanoseconds that count forward from there, before 1970 as well: half a second
/// before it is -1.500000000.
fn show_time(time: Time) -> String {
    format!("{}.{:09}", time.seconds, time.nanoseconds)
}

fn put_comma(line: &mut Vec<u8>) {
    if !matches!(line.last(), Some(b'{' | b'[')) {
        line.push(b',');
    }
}

fn put_key(line: &mut Vec<u8>, key: &str) {
    put_comma(line);
    put_string(line, key.as_bytes());
    line.push(b':');
}

/// Names that are no UTF-8 stand apart as their bytes: with replacement characters two of them could be one key.
fn put_xattrs(line: &mut Vec<u8>, xattrs: &[Xattr]) {
    let (text, bytes): (Vec<_>, Vec<_>) =
        xattrs.iter().partition(|xattr| std::str::from_utf8(&xattr.name).is_ok());
    for (key, xattrs, put_name) in
        [("xattrs", text, put_string as fn(&mut Vec<u8>, &[u8])), ("xattrs_hex", bytes, put_hex_digits)]
    {
        if xattrs.is_empty() {
            continue;
        }
        put_key(line, key);
        line.push(b'{');
        for xattr in xattrs {
            put_comma(line);
            put_name(line, &xattr.name);
            line.push(b':');
            put_hex_digits(line, &xattr.value);
        }
        line.push(b'}');
    }
}

/// Text, and beside it its bytes where they are no UTF-8: nothing is lost.
fn put_text(line: &mut Vec<u8>, key: &str, value: &[u8]) {
    put_key(line, key);
    put_string(line, value);
    if std::str::from_utf8(value).is_err() {
        put_hex(line, &format!("{key}_hex"), value);
    }
}

fn put_hex(line: &mut Vec<u8>, key: &str, value: &[u8]) {
    put_key(line, key);
    put_hex_digits(line, value);
}

fn put_number(line: &mut Vec<u8>, key: &str, value: u64) {
    put_key(line, key);
    line.extend_from_slice(value.to_string().as_bytes());
}

fn put_list(line: &mut Vec<u8>, items: impl Iterator<Item = Vec<u8>>) {
    line.push(b'[');
    for item in items {
        put_comma(line);
        line.extend_from_slice(&item);
    }
    line.push(b']');
}

/// A string; bytes that are no UTF-8 become replacement characters.
fn put_string(line: &mut Vec<u8>, bytes: &[u8]) {
    line.push(b'"');
    for letter in String::from_utf8_lossy(bytes).chars() {
        match letter {
            '"' | '\\' => line.extend_from_slice(&[b'\\', letter as u8]),
            '\u{0}'..='\u{1f}' | '\u{7f}' => {
                line.extend_from_slice(format!("\\u{:04x}", u32::from(letter)).as_bytes());
            }
            _ => line.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    line.push(b'"');
}

fn put_hex_digits(line: &mut Vec<u8>, bytes: &[u8]) {
    line.push(b'"');
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            line.push(if digit < 10 { b'0' + digit } else { b'a' + digit - 10 });
        }
    }
    line.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_valid_json() {
        let mut line = b"{".to_vec();
        put_text(&mut line, "a", b"q\"uote \\ new\nline \x7f \xff");
        put_hex(&mut line, "b", b"\x00\xfe");
        put_key(&mut line, "c");
        put_list(&mut line, [b"[1,2]".to_vec(), b"[3,4]".to_vec()].into_iter());
        line.push(b'}');
        let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(value["a"], "q\"uote \\ new\nline \u{7f} \u{fffd}");
        assert_eq!(value["b"], "00fe");
        assert_eq!(value["c"][1][0], 3);
    }

    #[test]
    fn names_of_attributes_stay_apart() {
        let xattr = |name: &[u8], value: &[u8]| Xattr { name: name.into(), value: value.into() };
        let mut line = b"{".to_vec();
        put_xattrs(
            &mut line,
            &[xattr(b"user.a", b"1"), xattr(b"user.\xfe", b"2"), xattr(b"user.\xff", b"3")],
        );
        assert_eq!(
            line,
            br#"{"xattrs":{"user.a":"31"},"xattrs_hex":{"757365722efe":"32","757365722eff":"33"}"#
        );
        line.truncate(1);
        put_xattrs(&mut line, &[]);
        assert_eq!(line, b"{");
    }

    #[test]
    fn nanoseconds_count_forward() {
        assert_eq!(show_time(Time { seconds: 1, nanoseconds: 5 }), "1.000000005");
        assert_eq!(show_time(Time { seconds: -1, nanoseconds: 500_000_000 }), "-1.500000000");
    }
}
