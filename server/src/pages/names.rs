//! Names and numbers as pages show them, and paths as they stand in addresses.

use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, percent_encode};

/// Longest name that is shown whole, in bytes.
const SHOWN_MAX: usize = 1024;

/// What stands for itself in an address.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// A path of any bytes, for an address.
pub(super) fn to_address(path: &[u8]) -> String {
    percent_encode(path, KEPT).to_string()
}

/// The bytes that stand in an address.
pub(super) fn from_address(text: &str) -> Vec<u8> {
    percent_decode(text.as_bytes()).collect()
}

/// A name for people: what no page can show is shown by a mark, and of what is too long only so much.
pub(super) fn show(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name.get(..SHOWN_MAX).unwrap_or(name));
    let end = if name.len() > SHOWN_MAX { "\u{2026}" } else { "" };
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).chain(end.chars()).collect()
}

/// A path as text, for what knows no other: bytes that are none stand as digits, and so does the backslash, so that no two
/// paths become one. On some systems a backslash stands between directories, and a name is not to lead out of one.
pub(super) fn to_text(path: &[u8]) -> String {
    let mut text = String::new();
    for chunk in path.utf8_chunks() {
        text.push_str(&chunk.valid().replace('\\', "\\x5C"));
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02X}")));
    }
    text
}

/// A number of bytes in the unit that suits it.
pub(super) fn show_size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or_default();
    if unit == 0 || value >= 100.0 { format!("{value:.0} {name}") } else { format!("{value:.1} {name}") }
}

/// A moment, to the minute.
pub(super) fn show_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_any_bytes_stand_in_addresses() {
        for path in [&b"a/b c"[..], b"<&\"'>", b"\xff\n%2f", "é".as_bytes()] {
            assert_eq!(from_address(&to_address(path)), path);
        }
        assert_eq!(to_text(b"a/\xff\xc3\xa9"), "a/\\xFF\u{e9}");
        assert_eq!(to_text(br"0..\..\xFF"), r"0..\x5C..\x5CxFF");
        assert_eq!(to_address(b"a/<"), "a/%3C");
        assert_eq!(show(b"a\n\x1bb"), "a\u{fffd}\u{fffd}b");
    }

    #[test]
    fn sizes_are_short() {
        let shown = [0, 999, 1024, 1_500_000, 123_456_789_012].map(show_size);
        assert_eq!(shown, ["0 B", "999 B", "1.0 KiB", "1.4 MiB", "115 GiB"]);
    }
}
