//! Headers of the POSIX tar format: the 512 bytes before an entry, and the records that hold what does not fit there.

use diptych_format::Time;

/// Everything in a tar stream comes in blocks of this many bytes.
pub const BLOCK: usize = 512;
const NAME: usize = 100;
const PREFIX: usize = 155;
const OWNER: usize = 31;

/// What a header tells of an entry.
#[derive(Clone, Debug, Default)]
pub struct Header<'h> {
    /// Path; a directory's ends with a slash.
    pub path: &'h [u8],
    /// One of the letters of the format.
    pub kind: u8,
    /// Permission bits.
    pub mode: u32,
    /// Owner and its name.
    pub uid: u32,
    /// Group and its name.
    pub gid: u32,
    /// Name of the owner; empty if it is not known.
    pub user: &'h [u8],
    /// Name of the group; empty if it is not known.
    pub group: &'h [u8],
    /// Bytes that follow the header.
    pub size: u64,
    /// When it last changed.
    pub mtime: Time,
    /// Target of a symbolic or hard link.
    pub link: &'h [u8],
    /// Major and minor number of a device.
    pub device: (u32, u32),
}

/// The letters for kinds of entries.
pub mod kind {
    pub const FILE: u8 = b'0';
    pub const HARD_LINK: u8 = b'1';
    pub const SYMLINK: u8 = b'2';
    pub const CHAR_DEVICE: u8 = b'3';
    pub const BLOCK_DEVICE: u8 = b'4';
    pub const DIRECTORY: u8 = b'5';
    pub const FIFO: u8 = b'6';
    pub const EXTENDED: u8 = b'x';
}

/// Records of an extended header: `LENGTH KEY=VALUE` lines.
#[derive(Clone, Debug, Default)]
pub struct Records {
    bytes: Vec<u8>,
    is_binary: bool,
}

impl Records {
    /// Adds a record whose value is any bytes.
    pub fn push(&mut self, key: &[u8], value: &[u8]) {
        // The length counts its own digits.
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        self.bytes.extend_from_slice(length.to_string().as_bytes());
        self.bytes.push(b' ');
        self.bytes.extend_from_slice(key);
        self.bytes.push(b'=');
        self.bytes.extend_from_slice(value);
        self.bytes.push(b'\n');
    }

    /// Adds a record with a name or path; one that is no UTF-8 is told in a record before it.
    pub fn push_text(&mut self, key: &[u8], value: &[u8]) {
        if std::str::from_utf8(value).is_err() && !self.is_binary {
            self.is_binary = true;
            let mut first = Records::default();
            first.push(b"hdrcharset", b"BINARY");
            self.bytes.splice(0..0, first.bytes);
        }
        self.push(key, value);
    }

    fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// Appends the headers of an entry: an extended one first if `records`, or what does not fit the plain one, need it.
pub fn write_headers(header: &Header<'_>, mut records: Records, out: &mut Vec<u8>) {
    let place = split_path(header.path);
    if place.is_none() {
        records.push_text(b"path", header.path);
    }
    if header.link.len() > NAME || !header.link.is_ascii() {
        records.push_text(b"linkpath", header.link);
    }
    if header.size > octal_max(12) {
        records.push(b"size", header.size.to_string().as_bytes());
    }
    for (key, id) in [(&b"uid"[..], header.uid), (b"gid", header.gid)] {
        if u64::from(id) > octal_max(8) {
            records.push(key, id.to_string().as_bytes());
        }
    }
    for (key, name) in [(&b"uname"[..], header.user), (b"gname", header.group)] {
        if name.len() > OWNER || !name.is_ascii() {
            records.push_text(key, name);
        }
    }
    let Time { seconds, nanoseconds } = header.mtime;
    let is_plain_time = nanoseconds == 0 && u64::try_from(seconds).is_ok_and(|s| s <= octal_max(12));
    if !is_plain_time {
        records.push(b"mtime", decimal(header.mtime).as_bytes());
    }
    if !records.is_empty() {
        let name = [b"PaxHeaders/", last_name(header.path)].concat();
        let extended = Header {
            path: name.get(..name.len().min(NAME)).unwrap_or_default(),
            kind: kind::EXTENDED,
            mode: 0o644,
            size: records.bytes.len() as u64,
            ..Header::default()
        };
        out.extend_from_slice(&plain(&extended, (b"", extended.path)));
        out.extend_from_slice(&records.bytes);
        pad(out);
    }
    let cut = header.path.get(..header.path.len().min(NAME)).unwrap_or_default();
    out.extend_from_slice(&plain(header, place.unwrap_or((b"", cut))));
}

/// Fills the last block with zeros.
pub fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(BLOCK), 0);
}

fn last_name(path: &[u8]) -> &[u8] {
    path.split(|byte| *byte == b'/').rfind(|name| !name.is_empty()).unwrap_or(b".")
}

/// Prefix and name, if a path of plain letters fits them.
fn split_path(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if !path.is_ascii() {
        return None;
    }
    if path.len() <= NAME {
        return Some((b"", path));
    }
    let slash = (0..path.len().min(PREFIX + 1))
        .rfind(|at| path.get(*at) == Some(&b'/') && *at + 1 < path.len() && path.len() - at - 1 <= NAME)?;
    let (prefix, name) = path.split_at(slash);
    Some((prefix, name.strip_prefix(b"/").unwrap_or(name)))
}

/// The largest number that a field of `width` bytes holds in octal digits and a NUL.
fn octal_max(width: u32) -> u64 {
    (1 << (3 * (width - 1))) - 1
}

/// Seconds and their fraction as one decimal number.
fn decimal(time: Time) -> String {
    if time.seconds < 0 && time.nanoseconds > 0 {
        return format!("-{}.{:09}", -(time.seconds + 1), 1_000_000_000 - time.nanoseconds);
    }
    if time.nanoseconds == 0 {
        return time.seconds.to_string();
    }
    format!("{}.{:09}", time.seconds, time.nanoseconds)
}

fn plain(header: &Header<'_>, (prefix, name): (&[u8], &[u8])) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    put(&mut block, 0, NAME, name);
    put_number(&mut block, 100, 8, header.mode.into());
    put_number(&mut block, 108, 8, header.uid.into());
    put_number(&mut block, 116, 8, header.gid.into());
    put_number(&mut block, 124, 12, header.size);
    put_number(&mut block, 136, 12, u64::try_from(header.mtime.seconds).unwrap_or(0));
    put(&mut block, 148, 8, b"        ");
    put(&mut block, 156, 1, &[header.kind]);
    put(&mut block, 157, NAME, header.link);
    put(&mut block, 257, 8, b"ustar\x0000");
    put(&mut block, 265, OWNER, header.user);
    put(&mut block, 297, OWNER, header.group);
    if matches!(header.kind, kind::CHAR_DEVICE | kind::BLOCK_DEVICE) {
        put_number(&mut block, 329, 8, header.device.0.into());
        put_number(&mut block, 337, 8, header.device.1.into());
    }
    put(&mut block, 345, PREFIX, prefix);
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    put(&mut block, 148, 8, format!("{sum:06o}\0 ").as_bytes());
    block
}

fn put(block: &mut [u8; BLOCK], offset: usize, width: usize, bytes: &[u8]) {
    let count = bytes.len().min(width);
    if let (Some(field), Some(bytes)) = (block.get_mut(offset..offset + count), bytes.get(..count)) {
        field.copy_from_slice(bytes);
    }
}

/// Octal digits and a NUL; binary with the first bit set, as GNU tar does, where they do not suffice.
fn put_number(block: &mut [u8; BLOCK], offset: usize, width: usize, number: u64) {
    let digits = width - 1;
    if number <= octal_max(u32::try_from(width).unwrap_or(8)) {
        put(block, offset, width, format!("{number:0digits$o}\0").as_bytes());
    } else {
        let mut field = vec![0; width];
        let bytes = number.to_be_bytes();
        let count = bytes.len().min(width);
        if let (Some(end), Some(low)) = (field.get_mut(width - count..), bytes.get(bytes.len() - count..)) {
            end.copy_from_slice(low);
        }
        if let Some(first) = field.first_mut() {
            *first |= 0x80;
        }
        put(block, offset, width, &field);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Record = (String, Vec<u8>);

    fn read(bytes: &[u8]) -> (Vec<u8>, tar::Header, Vec<Record>) {
        let mut bytes = bytes.to_vec();
        bytes.resize(bytes.len() + 2 * BLOCK, 0);
        let mut archive = tar::Archive::new(&bytes[..]);
        let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
        let mut records = Vec::new();
        if let Some(extensions) = entry.pax_extensions().unwrap() {
            for extension in extensions {
                let extension = extension.unwrap();
                let key = extension.key().unwrap().to_owned();
                records.push((key, extension.value_bytes().to_vec()));
            }
        }
        (entry.path_bytes().into_owned(), entry.header().clone(), records)
    }

    #[test]
    fn what_fits_needs_no_extended_header() {
        let mut out = Vec::new();
        let header = Header {
            path: b"a/b",
            kind: kind::FILE,
            mode: 0o4755,
            uid: 1000,
            user: b"alice",
            mtime: Time { seconds: 1_600_000_000, nanoseconds: 0 },
            ..Header::default()
        };
        write_headers(&header, Records::default(), &mut out);
        assert_eq!(out.len(), BLOCK);
        let (path, header, _) = read(&out);
        assert_eq!(path, b"a/b");
        assert_eq!(header.mode().unwrap(), 0o4755);
        assert_eq!(header.uid().unwrap(), 1000);
        assert_eq!(header.mtime().unwrap(), 1_600_000_000);
        assert_eq!(header.username().unwrap(), Some("alice"));
    }

    #[test]
    fn what_does_not_fit_is_told_before() {
        let long = [b"x/".repeat(80), b"\xff".to_vec()].concat();
        let header = Header {
            path: &long,
            kind: kind::FILE,
            uid: u32::MAX - 1,
            size: 1 << 40,
            mtime: Time { seconds: -1, nanoseconds: 500_000_000 },
            ..Header::default()
        };
        let mut out = Vec::new();
        write_headers(&header, Records::default(), &mut out);
        let (path, _, records) = read(&out);
        assert_eq!(path, long);
        let value = |key: &str| {
            let found = records.iter().find(|(name, _)| name == key);
            found.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).unwrap()
        };
        assert_eq!(records[0].0, "hdrcharset");
        assert_eq!(value("uid"), "4294967294");
        assert_eq!(value("size"), "1099511627776");
        assert_eq!(value("mtime"), "-0.500000000");
    }

    #[test]
    fn a_record_counts_its_own_length() {
        for value in [0, 1, 2, 3, 4, 5, 80, 90, 91, 92, 93, 94, 95, 980, 990, 991, 992] {
            let mut records = Records::default();
            records.push(b"key", &vec![b'v'; value]);
            let text = String::from_utf8(records.bytes.clone()).unwrap();
            let length: usize = text.split(' ').next().unwrap().parse().unwrap();
            assert_eq!(length, records.bytes.len());
        }
    }

    #[test]
    fn long_paths_are_split_where_they_can_be() {
        let path = [b"d".repeat(90), b"/".to_vec(), b"n".repeat(90)].concat();
        assert_eq!(split_path(&path), Some((&path[..90], &path[91..])));
        assert_eq!(split_path(&b"n".repeat(101)), None);
    }
}
