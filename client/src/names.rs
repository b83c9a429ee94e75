//! Names of any bytes, made fit for a terminal: nothing in an archive may move a cursor or hide a name.

use std::borrow::Cow;

/// The same bytes where they are printable text; else with `\ooo` (octal) for each byte of a control character
/// or of what is not UTF-8, and `\\` for a backslash, so that the escaped name is unambiguous.
pub fn escape(name: &[u8]) -> Cow<'_, [u8]> {
    if is_plain(name) {
        return Cow::Borrowed(name);
    }
    let mut out = Vec::with_capacity(name.len() + 8);
    for part in name.utf8_chunks() {
        let mut utf8 = [0; 4];
        for letter in part.valid().chars() {
            match letter {
                '\\' => out.extend_from_slice(b"\\\\"),
                _ if is_unsafe(letter) => push_octal(letter.encode_utf8(&mut utf8).as_bytes(), &mut out),
                _ => out.extend_from_slice(letter.encode_utf8(&mut utf8).as_bytes()),
            }
        }
        push_octal(part.invalid(), &mut out);
    }
    Cow::Owned(out)
}

/// [`escape`], as text for messages; the root's empty path is shown as `.`.
pub fn show(path: &[u8]) -> String {
    if path.is_empty() { ".".to_owned() } else { String::from_utf8_lossy(&escape(path)).into_owned() }
}

/// The same text with `\ooo` for each byte of a control character, but for the ends of lines: a message may quote what
/// others wrote, and never steers the terminal that shows it.
pub fn tame(message: &str) -> Cow<'_, str> {
    let is_wild = |letter: char| letter != '\n' && is_unsafe(letter);
    if !message.contains(is_wild) {
        return Cow::Borrowed(message);
    }
    let mut out = Vec::with_capacity(message.len() + 8);
    for part in message.split_inclusive(is_wild) {
        let plain = part.trim_end_matches(is_wild);
        out.extend_from_slice(plain.as_bytes());
        push_octal(part.get(plain.len()..).unwrap_or_default().as_bytes(), &mut out);
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

fn is_plain(name: &[u8]) -> bool {
    if name.iter().all(|byte| (0x20..0x7f).contains(byte) && *byte != b'\\') {
        return true;
    }
    std::str::from_utf8(name).is_ok_and(|text| !text.chars().any(|c| c == '\\' || is_unsafe(c)))
}

/// Control characters, and those that turn the direction of text.
fn is_unsafe(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn push_octal(bytes: &[u8], out: &mut Vec<u8>) {
    for byte in bytes {
        out.extend_from_slice(&[b'\\', b'0' + (byte >> 6), b'0' + (byte >> 3 & 7), b'0' + (byte & 7)]);
    }
}

/// Joins a directory's path and a name.
pub fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() {
        return name.to_vec();
    }
    [directory, b"/", name].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_steers_no_terminal() {
        for (message, expected) in [
            ("two lines\n  of a \\ message", "two lines\n  of a \\ message"),
            ("a\u{1b}[2J\u{7}\rb\u{202e}", "a\\033[2J\\007\\015b\\342\\200\\256"),
            ("", ""),
        ] {
            assert_eq!(tame(message), expected);
        }
    }

    #[test]
    fn only_what_could_harm_is_escaped() {
        let cases: [(&[u8], &str); 8] = [
            (b"plain name", "plain name"),
            (b"new\nline", "new\\012line"),
            (b"\x1b[2J", "\\033[2J"),
            (b"back\\slash", "back\\\\slash"),
            ("gr\u{fc}n".as_bytes(), "gr\u{fc}n"),
            (b"\xff\xfe", "\\377\\376"),
            ("\u{202e}gpj.exe".as_bytes(), "\\342\\200\\256gpj.exe"),
            (b"", "."),
        ];
        for (name, expected) in cases {
            assert_eq!(show(name), expected);
        }
    }
}
