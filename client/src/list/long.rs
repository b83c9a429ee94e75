//! Lines like those of `tar tv`: mode, owner, size, time, name.

use std::io::Write;

use diptych_decoder::{Archive, Owners, Row};
use diptych_format::{Kind, Result, Time};
use jiff::tz::TimeZone;

use crate::mode::mode_string;
use crate::names;

use super::Printer;

/// Least width of owner and size together. It grows with what is met, as in tar.
const WIDTH_MIN: usize = 19;

/// Writes long lines. Keeps what one line needs, so that the next allocates nothing.
pub struct Long {
    owners: Option<Owners>,
    zone: TimeZone,
    width: usize,
    line: Vec<u8>,
    /// The last time shown to the minute, for neighbours tend to share it.
    last_time: Option<(i64, String)>,
}

impl Long {
    /// With names of owners, or their numbers.
    pub fn new(archive: &Archive, is_numeric: bool) -> Result<Self> {
        Ok(Self {
            owners: if is_numeric { None } else { Some(archive.owners()?) },
            zone: TimeZone::system(),
            width: WIDTH_MIN,
            line: Vec::new(),
            last_time: None,
        })
    }

    fn put_owner(&mut self, id: u32, name: impl Fn(&Owners, u32) -> Option<&[u8]>) {
        match self.owners.as_ref().and_then(|owners| name(owners, id)) {
            Some(name) => self.line.extend_from_slice(&names::escape(name)),
            None => self.line.extend_from_slice(id.to_string().as_bytes()),
        }
    }

    fn put_time(&mut self, time: Time) {
        let minute = time.seconds.div_euclid(60);
        match &self.last_time {
            Some((last, text)) if *last == minute => self.line.extend_from_slice(text.as_bytes()),
            _ => {
                let text = show_minute(time.seconds, &self.zone);
                self.line.extend_from_slice(text.as_bytes());
                self.last_time = Some((minute, text));
            }
        }
    }
}

impl Printer for Long {
    fn print(&mut self, path: &[u8], row: &Row<'_>, first: Option<&[u8]>, out: &mut dyn Write) -> Result<()> {
        self.line.clear();
        let mut mode = mode_string(row.mode());
        if first.is_some() {
            mode[0] = b'h';
        }
        self.line.extend_from_slice(&mode);
        self.line.push(b' ');
        let start = self.line.len();
        self.put_owner(row.uid(), |owners, id| owners.user(id));
        self.line.push(b'/');
        self.put_owner(row.gid(), |owners, id| owners.group(id));
        let size = match (row.kind(), row.device()) {
            (Kind::BlockDevice | Kind::CharDevice, (major, minor)) => format!("{major},{minor}"),
            _ => row.size().to_string(),
        };
        let used = self.line.len() - start + size.len() + 1;
        self.width = self.width.max(used);
        self.line.resize(self.line.len() + self.width - used + 1, b' ');
        self.line.extend_from_slice(size.as_bytes());
        self.line.push(b' ');
        self.put_time(row.mtime());
        self.line.push(b' ');
        self.line.extend_from_slice(&names::escape(if path.is_empty() { b"." } else { path }));
        if row.kind() == Kind::Directory {
            self.line.push(b'/');
        }
        if row.kind() == Kind::Symlink {
            self.line.extend_from_slice(b" -> ");
            self.line.extend_from_slice(&names::escape(row.target()));
        }
        if let Some(first) = first {
            self.line.extend_from_slice(b" link to ");
            self.line.extend_from_slice(&names::escape(first));
        }
        self.line.push(b'\n');
        out.write_all(&self.line).map_err(super::cannot_write)
    }
}

/// A time to the minute in the zone of this machine; seconds since 1970 where no calendar reaches.
fn show_minute(seconds: i64, zone: &TimeZone) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(
        |_| format!("@{seconds}"),
        |time| time.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M").to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_all_ages() {
        let show = |seconds| show_minute(seconds, &TimeZone::UTC);
        assert_eq!(show(0), "1970-01-01 00:00");
        assert_eq!(show(-1), "1969-12-31 23:59");
        assert_eq!(show(4_294_967_296), "2106-02-07 06:28");
        assert_eq!(show(i64::MAX), "@9223372036854775807");
    }
}
