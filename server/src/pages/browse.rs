//! What is in a directory of a snapshot.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Redirect, Response};
use diptych_backend::{FileKind, FileName};
use diptych_decoder::{Archive, Found};
use diptych_format::{Digest, Holds, Kind};
use diptych_repository::StreamReader;
use diptych_repository::documents::{ArchiveRecord, Body, SnapshotKind};
use jiff::Timestamp;
use serde::Deserialize;

use super::names::{from_address, show, show_size, show_time, to_address};
use super::{Refused, admit, download, rendered};
use crate::access::Access;
use crate::problem::{Problem, Result};
use crate::routes::blocking;
use crate::server::Server;

/// Entries on a page.
const ENTRIES_MAX: usize = 2000;

#[derive(Deserialize)]
pub(super) struct Asked {
    /// How many entries are passed over.
    #[serde(default)]
    from: usize,
    /// What is wanted is no page but what it shows.
    download: Option<String>,
}

#[derive(Template)]
#[template(path = "directory.html")]
struct Page {
    namespace: String,
    snapshot: String,
    time: String,
    source: String,
    /// The directories above, and this one: name and address.
    above: Vec<(String, String)>,
    address: String,
    entries: Vec<Shown>,
    /// Where the next entries are.
    next: Option<usize>,
    before: Option<usize>,
}

struct Shown {
    name: String,
    address: String,
    kind: &'static str,
    is_link: bool,
    size: String,
    time: String,
    note: String,
}

pub(super) async fn page(
    State(server): State<Arc<Server>>,
    Query(asked): Query<Asked>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    // As it stands in the address: names are bytes, and need not be text.
    let mut parts = uri.path().trim_start_matches("/ui/").splitn(4, '/');
    let mut part = || parts.next().unwrap_or_default();
    let (namespace, snapshot, archive, path) = (part(), part(), part(), from_address(part()));
    let access = admit(&server, &headers, namespace)?;
    access.unless_denied(access.reads_all(), "look into snapshots")?;
    let snapshot = FileName::decode(FileKind::Snapshot, snapshot);
    let archive: Option<usize> = archive.parse().ok();
    let (Some(snapshot), Some(archive)) = (snapshot, archive) else {
        return Err(Problem::missing("the snapshot").into());
    };
    let answer = blocking(move || {
        let opened = Opened::open(&access, &snapshot, archive)?;
        let Some(found) = opened.archive.lookup(&path)? else {
            return Err(Problem::missing(&show(&path)));
        };
        if !found.is_directory() {
            if found.entry.kind()? != Kind::File {
                return Err(Problem::missing(&show(&path)));
            }
            return Ok(Answer::Response(download::file(
                &opened.archive,
                opened.payload,
                &found,
                download::Turn::of(&access)?,
            )?));
        }
        if let Some(form) = &asked.download {
            let name = path.rsplit(|byte| *byte == b'/').next().filter(|name| !name.is_empty());
            let source = opened.record.path.as_deref().unwrap_or(&opened.record.name);
            let name = name.or_else(|| source.rsplit(|byte| *byte == b'/').find(|name| !name.is_empty()));
            let name = name.unwrap_or(b"root").to_vec();
            let Opened { archive, payload, .. } = opened;
            let taken =
                download::Taken { archive, payload, found, path, name, turn: download::Turn::of(&access)? };
            return match &**form {
                "tar" => Ok(Answer::Response(taken.tar())),
                "zip" => Ok(Answer::Response(taken.zip())),
                _ => Err(Problem::missing("such a form")),
            };
        }
        Ok(Answer::Page(Box::new(opened.page(&access, &snapshot, archive, &path, &found, asked.from)?)))
    })
    .await?;
    Ok(match answer {
        Answer::Response(response) => response,
        // What is relative on the page is so to the directory.
        Answer::Page(_) if uri.path().ends_with('/') => {
            Redirect::to(uri.path().trim_end_matches('/')).into_response()
        }
        Answer::Page(page) => rendered(&*page),
    })
}

enum Answer {
    Response(Response),
    Page(Box<Page>),
}

/// An archive of a snapshot.
struct Opened {
    archive: Archive,
    payload: Arc<StreamReader>,
    record: ArchiveRecord,
    time: Timestamp,
}

impl Opened {
    fn open(access: &Access, name: &FileName, place: usize) -> Result<Self> {
        if access.namespace.facts()?.is_encrypted {
            let what =
                "this repository is encrypted: the server can open nothing of it. Restore with the password";
            return Err(Problem::denied(what));
        }
        let (repository, caches) = access.namespace.open_plain()?;
        let stored = repository.snapshot(&Digest(*name.digest()))?;
        let (Body::Snapshot(snapshot), SnapshotKind::Snapshot | SnapshotKind::Partial) =
            (stored.document.body, stored.document.kind)
        else {
            return Err(Problem::missing("the snapshot"));
        };
        let time = snapshot.time;
        let record =
            snapshot.archives.into_iter().nth(place).ok_or_else(|| Problem::missing("the archive"))?;
        let [metadata, payload] = repository.streams(&record, &caches);
        Ok(Self { archive: Archive::open(metadata)?, payload, record, time })
    }

    fn page(
        &self,
        access: &Access,
        snapshot: &FileName,
        place: usize,
        path: &[u8],
        found: &Found,
        from: usize,
    ) -> Result<Page> {
        let base = format!("/ui/{}/{}/{place}", access.namespace.name, snapshot.encode());
        let address = |path: &[u8]| match path.is_empty() {
            true => base.clone(),
            false => format!("{base}/{}", to_address(path)),
        };
        let source = show(self.record.path.as_deref().unwrap_or(&self.record.name));
        let mut above = vec![(source.clone(), address(b""))];
        let mut end = 0;
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            end += name.len() + usize::from(end > 0);
            above.push((show(name), address(path.get(..end).unwrap_or_default())));
        }
        let mut entries = Vec::new();
        let mut passed = 0;
        let mut next = None;
        let mut pieces = self.archive.child_pieces(found);
        'pieces: while let Some(piece) = pieces.next_piece()? {
            for child in piece {
                passed += 1;
                if passed <= from {
                    continue;
                }
                if entries.len() == ENTRIES_MAX {
                    next = Some(from + ENTRIES_MAX);
                    break 'pieces;
                }
                let name = child.entry.name.as_bytes();
                let below = if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() };
                entries.push(Shown::of(&child, address(&below))?);
            }
        }
        Ok(Page {
            namespace: access.namespace.name.clone(),
            snapshot: snapshot.encode().get(..8).unwrap_or_default().to_owned(),
            time: show_time(self.time),
            source,
            above,
            address: address(path),
            entries,
            next,
            before: (from > 0).then(|| from.saturating_sub(ENTRIES_MAX)),
        })
    }
}

impl Shown {
    fn of(found: &Found, address: String) -> Result<Self> {
        let kind = found.entry.kind()?;
        let (size, note) = match &found.entry.holds {
            Holds::Content { size, .. } => (show_size(*size), String::new()),
            Holds::Target(target) => (String::new(), format!("→ {}", show(target))),
            _ if found.is_directory() => (String::new(), format!("{} entries", found.entries_below())),
            _ => (String::new(), String::new()),
        };
        let time = Timestamp::from_second(found.entry.mtime.seconds).map(show_time);
        Ok(Self {
            name: show(found.entry.name.as_bytes()),
            address,
            kind: kind.word(),
            is_link: matches!(kind, Kind::File | Kind::Directory),
            size,
            time: time.unwrap_or_default(),
            note,
        })
    }
}
