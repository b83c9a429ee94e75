//! Files and directories to take away: a file as it is, a directory as tar or zip.

use std::io::{self, Write};
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use diptych_decoder::{Archive, Descend, Found, Row, Visitor};
use diptych_format::{Error, Kind};
use diptych_repository::StreamReader;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::as_tar::AsTar;
use super::content::Content;
use super::names::{to_address, to_text};
use crate::access::Access;
use crate::problem::{Problem, ProblemClass};
use crate::routes::{PART, PARTS_MAX, Parts, hand_over};
use crate::share::Share;

/// A turn to take something away: one of the token's, and one of the server's.
pub(super) struct Turn {
    share: Arc<Share>,
    permits: [OwnedSemaphorePermit; 2],
}

impl Turn {
    /// A turn of a token's.
    pub(super) fn of(access: &Access) -> Result<Self, Problem> {
        let share = access.server.share(&access.token);
        let own = share.taking()?;
        let busy = |_| Problem::new(ProblemClass::Busy, "too much is taken away at once: try again");
        let turn = Arc::clone(&access.server.taking).try_acquire_owned().map_err(busy)?;
        Ok(Self { share, permits: [own, turn] })
    }
}

/// Sends parts to whoever downloads, no faster than they may.
struct Output {
    parts: mpsc::Sender<io::Result<Bytes>>,
    buffer: Vec<u8>,
    share: Arc<Share>,
}

impl Output {
    fn send(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let part = std::mem::replace(&mut self.buffer, Vec::with_capacity(PART));
        std::thread::sleep(self.share.rates[1].delay(part.len()));
        hand_over(&self.parts, Ok(part.into()))
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(PART - self.buffer.len());
        self.buffer.extend_from_slice(bytes.get(..count).unwrap_or_default());
        if self.buffer.len() == PART {
            self.send()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}

/// An answer whose body `write` makes, on a thread of its own, of which there are only so many. If it fails, the answer
/// breaks off.
fn answer(
    name: &[u8],
    kind: &'static str,
    turn: Turn,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static,
) -> Response {
    let (parts, body) = mpsc::channel(PARTS_MAX);
    tokio::task::spawn_blocking(move || {
        let Turn { share, permits: _permits } = turn;
        let failed = parts.clone();
        let mut output = Output { parts, buffer: Vec::with_capacity(PART), share };
        if let Err(error) = write(&mut output).and_then(|()| output.flush()) {
            tracing::warn!(%error, "a download has broken off");
            let _ = hand_over(&failed, Err(error));
        }
    });
    let mut response = Response::new(Body::new(Parts(body)));
    let headers = response.headers_mut();
    // Never as a page, whatever is in it.
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    let disposition = format!("attachment; filename*=UTF-8''{}", to_address(name).replace('/', "%2F"));
    if let Ok(disposition) = HeaderValue::try_from(disposition) {
        headers.insert(header::CONTENT_DISPOSITION, disposition);
    }
    response
}

/// A file.
pub(super) fn file(
    archive: &Archive,
    payload: Arc<StreamReader>,
    found: &Found,
    turn: Turn,
) -> Result<Response, Error> {
    let content = archive.content(found)?;
    let length = content.size;
    let mut response = answer(found.entry.name.as_bytes(), "application/octet-stream", turn, move |out| {
        io::copy(&mut Content::new(payload, content), out).map(drop)
    });
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    Ok(response)
}

/// A directory and all below it, to be taken away under a name.
pub(super) struct Taken {
    pub archive: Archive,
    pub payload: Arc<StreamReader>,
    pub found: Found,
    /// Its path in the archive.
    pub path: Vec<u8>,
    pub name: Vec<u8>,
    pub turn: Turn,
}

impl Taken {
    /// As tar.
    pub fn tar(self) -> Response {
        let Self { archive, payload, found, path, name, turn } = self;
        answer(&[&name, &b".tar"[..]].concat(), "application/x-tar", turn, move |out| {
            let tar = AsTar::new(out, &archive, payload, path, &name);
            let mut tar = tar.map_err(io::Error::other)?;
            archive.walk(&found, &name, &mut tar).map_err(io::Error::other)?;
            tar.finish()
        })
    }

    /// As zip, which keeps less of what a file is, and which every machine can open.
    pub fn zip(self) -> Response {
        let Self { archive, payload, found, name, turn, .. } = self;
        answer(&[&name, &b".zip"[..]].concat(), "application/zip", turn, move |out| {
            let mut zip = Zip { writer: zip::ZipWriter::new_stream(out), payload };
            archive.walk(&found, &name, &mut zip).map_err(io::Error::other)?;
            zip.writer.finish().map(drop).map_err(io::Error::other)
        })
    }
}

struct Zip<'o> {
    writer: zip::ZipWriter<zip::write::StreamWriter<&'o mut dyn Write>>,
    payload: Arc<StreamReader>,
}

impl Zip<'_> {
    fn options(row: &Row<'_>) -> zip::write::SimpleFileOptions {
        let time = jiff::Timestamp::from_second(row.mtime().seconds).unwrap_or_default();
        let time = time.to_zoned(jiff::tz::TimeZone::UTC);
        let part = |value: i8| u8::try_from(value).unwrap_or_default();
        // A zip knows no time before 1980, and none after 2107.
        let modified = zip::DateTime::from_date_and_time(
            u16::try_from(time.year()).unwrap_or_default(),
            part(time.month()),
            part(time.day()),
            part(time.hour()),
            part(time.minute()),
            part(time.second()),
        );
        zip::write::SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Stored)
            .unix_permissions(row.mode() & 0o777)
            .large_file(row.size() > u32::MAX.into())
            .last_modified_time(modified.unwrap_or_default())
    }
}

fn zipped<T>(result: zip::result::ZipResult<T>) -> Result<T, Error> {
    result.map_err(|error| Error::io("the zip cannot be written", io::Error::from(error)))
}

impl Visitor for Zip<'_> {
    fn enter(&mut self, path: &[u8], row: &Row<'_>) -> Result<Descend, Error> {
        zipped(self.writer.add_directory(to_text(path), Self::options(row)))?;
        Ok(Descend::Enter)
    }

    fn entry(&mut self, path: &[u8], row: &Row<'_>) -> Result<(), Error> {
        match row.kind() {
            Kind::File => {
                let content = row.content()?;
                zipped(self.writer.start_file(to_text(path), Self::options(row)))?;
                let mut from = Content::new(Arc::clone(&self.payload), content);
                let copied = io::copy(&mut from, &mut self.writer);
                copied.map(drop).map_err(|error| Error::io("the zip cannot be written", error))
            }
            Kind::Symlink => {
                zipped(self.writer.add_symlink(to_text(path), to_text(row.target()), Self::options(row)))
            }
            // zip has nothing for the rest.
            _ => Ok(()),
        }
    }
}
