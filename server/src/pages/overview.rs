//! A namespace: its snapshots, what each has added, how it has grown, and what is going on.

use std::collections::{HashMap, HashSet};
use std::io::{Read, Seek, SeekFrom};
use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use diptych_backend::{FileKind, FileName};
use diptych_repository::DocumentKeys;
use diptych_repository::documents::{Body, Envelope, SnapshotDocument, SnapshotKind};
use jiff::Timestamp;

use super::names::{show, show_size, show_time};
use super::plot::{Growth, Picture};
use super::{Refused, admit, rendered};
use crate::access::{Access, failed};
use crate::jobs::Done;
use crate::problem::{ProblemClass, Result};
use crate::routes::blocking;
use crate::server::Server;

/// How much of the log of jobs is looked at, and how many jobs are shown.
const LOG_TAIL: u64 = 256 << 10;
const JOBS_MAX: usize = 20;
/// Archives and tags of a snapshot that are shown.
const PARTS_MAX: usize = 50;
/// Snapshots that are shown, the newest.
const SNAPSHOTS_MAX: usize = 1000;

#[derive(Template)]
#[template(path = "overview.html")]
struct Page {
    namespace: String,
    is_encrypted: bool,
    may_browse: bool,
    totals: String,
    growth: Option<Picture>,
    running: Vec<Running>,
    snapshots: Vec<Shown>,
    left_out: usize,
    jobs: Vec<ShownJob>,
}

/// A client at work.
struct Running {
    who: String,
    since: String,
}

/// A snapshot.
struct Shown {
    id: String,
    short: String,
    time: String,
    who: String,
    entries: String,
    tags: String,
    size: String,
    added: String,
    note: &'static str,
    archives: Vec<(usize, String)>,
}

struct ShownJob {
    time: String,
    run: String,
    seconds: String,
    result: String,
    is_bad: bool,
    said: String,
}

pub(super) async fn page(
    State(server): State<Arc<Server>>,
    Path(namespace): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let access = admit(&server, &headers, &namespace)?;
    let page = blocking(move || make(&access)).await?;
    Ok(rendered(&page))
}

fn make(access: &Access) -> Result<Page> {
    let facts = access.namespace.facts()?;
    let [packs, indexes, listed] =
        [FileKind::Data, FileKind::Index, FileKind::Snapshot].map(|kind| access.list(kind));
    let (packs, indexes, listed) = (packs?, indexes?, listed?);
    let arrivals = Arrivals::of(access)?;
    let mut growth = Growth::default();
    let seen = packs.iter().chain(&indexes).chain(&listed);
    seen.for_each(|listed| {
        if let Some((arrived, _)) = arrivals.files.get(&listed.name) {
            growth.add(*arrived, listed.length);
        }
    });
    let (mut snapshots, mut forgotten, mut count_all) = (Vec::new(), HashSet::new(), 0);
    for file in &listed {
        let bytes = match access.namespace.read(&file.name) {
            Err(error) if error.class == ProblemClass::Missing => continue,
            bytes => bytes?,
        };
        match look_at(access, &arrivals, &file.name, &bytes, facts.is_encrypted) {
            None => {}
            Some(Found::Forgotten(id)) => {
                forgotten.insert(id);
            }
            Some(Found::Snapshot(time, shown)) => {
                snapshots.push((time, shown));
                count_all += 1;
            }
        }
        // No more are kept than are shown, twice at most.
        if snapshots.len() >= 2 * SNAPSHOTS_MAX {
            keep_newest(&mut snapshots);
        }
    }
    keep_newest(&mut snapshots);
    let gone = snapshots.iter_mut().filter(|(_, shown)| forgotten.contains(&shown.id));
    gone.for_each(|(_, shown)| shown.note = "forgotten");
    let stored: u64 = packs.iter().chain(&indexes).chain(&listed).map(|listed| listed.length).sum();
    let count = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let totals = format!(
        "{} in {}, {}",
        show_size(stored),
        count(packs.len(), "pack"),
        match forgotten.len() {
            0 => count(count_all, "snapshot"),
            _ => format!("{}, some of them forgotten", count(count_all, "snapshot")),
        }
    );
    let left_out = count_all.saturating_sub(snapshots.len());
    let snapshots = snapshots.into_iter().map(|(_, shown)| shown).collect();
    Ok(Page {
        namespace: access.namespace.name.clone(),
        is_encrypted: facts.is_encrypted,
        may_browse: access.reads_all() && !facts.is_encrypted,
        totals,
        growth: growth.picture(u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default()),
        running: running(access, &arrivals)?,
        snapshots,
        left_out,
        jobs: jobs(access)?,
    })
}

fn keep_newest(snapshots: &mut Vec<(Timestamp, Shown)>) {
    snapshots.sort_by_key(|(time, _)| std::cmp::Reverse(*time));
    snapshots.truncate(SNAPSHOTS_MAX);
}

/// When files came, and from whom.
struct Arrivals {
    files: HashMap<FileName, (u64, String)>,
    /// Of each token, when its packs came and how long they are.
    packs: HashMap<String, Vec<(u64, u64)>>,
    /// And when its snapshots came.
    snapshots: HashMap<String, Vec<u64>>,
}

impl Arrivals {
    fn of(access: &Access) -> Result<Self> {
        let mut arrivals = Self { files: HashMap::new(), packs: HashMap::new(), snapshots: HashMap::new() };
        for kind in [FileKind::Data, FileKind::Index, FileKind::Snapshot, FileKind::Lease] {
            for (name, records) in access.all_records(kind)? {
                // Whoever sent it first.
                let Some((token, record)) = records.into_iter().min_by_key(|(_, record)| record.arrived)
                else {
                    continue;
                };
                match kind {
                    FileKind::Data => {
                        let packs = arrivals.packs.entry(token.clone()).or_default();
                        packs.push((record.arrived, record.length));
                    }
                    FileKind::Snapshot => {
                        arrivals.snapshots.entry(token.clone()).or_default().push(record.arrived);
                    }
                    _ => {}
                }
                arrivals.files.insert(name, (record.arrived, token));
            }
        }
        arrivals.snapshots.values_mut().for_each(|times| times.sort_unstable());
        Ok(arrivals)
    }

    /// Bytes of packs that a token sent after its snapshot before this one.
    fn added(&self, token: &str, arrived: u64) -> u64 {
        let times = self.snapshots.get(token).map_or(&[][..], Vec::as_slice);
        let before = times.iter().rev().find(|time| **time < arrived).copied();
        let packs = self.packs.get(token).map_or(&[][..], Vec::as_slice);
        let is_its = |time: &u64| *time <= arrived && before.is_none_or(|before| *time > before);
        packs.iter().filter(|(time, _)| is_its(time)).map(|(_, length)| length).sum()
    }
}

/// What a file of snapshots is for this page.
enum Found {
    /// A snapshot, with what it is sorted by.
    Snapshot(Timestamp, Shown),
    /// It says that this one is forgotten.
    Forgotten(String),
}

/// What there is to be shown of a file; none of what is nothing for people.
fn look_at(
    access: &Access,
    arrivals: &Arrivals,
    name: &FileName,
    bytes: &[u8],
    is_encrypted: bool,
) -> Option<Found> {
    let kind = Envelope::decode(bytes).ok()?.kind;
    let decode = || {
        let id = access.namespace.facts().ok()?.id;
        Some(SnapshotDocument::decode(bytes, &DocumentKeys::plain(), &id).ok()?.body)
    };
    let note = match kind {
        SnapshotKind::Snapshot => "",
        SnapshotKind::Partial => "partial",
        SnapshotKind::Tombstone if !is_encrypted => {
            let Body::Tombstone(tombstone) = decode()? else { return None };
            let name = FileName::new(FileKind::Snapshot, tombstone.snapshot.0);
            return Some(Found::Forgotten(name.encode()));
        }
        SnapshotKind::Pending | SnapshotKind::Tombstone => return None,
    };
    let id = name.encode();
    let arrival = arrivals.files.get(name);
    let arrived = arrival.map(|(time, _)| moment(*time));
    let token_name = |id: &str| {
        let tokens = access.server.tokens.as_ref();
        tokens.and_then(|tokens| tokens.name(id)).unwrap_or_else(|| id.to_owned())
    };
    let mut shown = Shown {
        short: id.get(..8).unwrap_or_default().to_owned(),
        id,
        time: arrived.map(show_time).unwrap_or_default(),
        who: arrival.map(|(_, token)| token_name(token)).unwrap_or_default(),
        entries: String::new(),
        tags: String::new(),
        size: String::new(),
        added: arrival.map(|(time, token)| show_size(arrivals.added(token, *time))).unwrap_or_default(),
        note,
        archives: Vec::new(),
    };
    let mut time = arrived.unwrap_or_default();
    if !is_encrypted {
        let Body::Snapshot(snapshot) = decode()? else { return None };
        time = snapshot.time;
        shown.time = show_time(snapshot.time);
        shown.who = show(snapshot.host.as_bytes());
        let tags: Vec<String> =
            snapshot.tags.iter().take(PARTS_MAX).map(|tag| show(tag.as_bytes())).collect();
        shown.tags = tags.join(", ");
        shown.size = show_size(snapshot.archives.iter().map(|archive| archive.content_bytes).sum());
        let entries: u64 = snapshot.archives.iter().map(|archive| archive.entries).sum();
        shown.entries = entries.to_string();
        let source = |(place, archive): (usize, &diptych_repository::documents::ArchiveRecord)| {
            (place, show(archive.path.as_deref().unwrap_or(&archive.name)))
        };
        shown.archives = snapshot.archives.iter().enumerate().take(PARTS_MAX).map(source).collect();
    }
    Some(Found::Snapshot(time, shown))
}

fn moment(milliseconds: u64) -> Timestamp {
    i64::try_from(milliseconds)
        .ok()
        .and_then(|time| Timestamp::from_millisecond(time).ok())
        .unwrap_or_default()
}

/// Who holds a lease, and the job that the server runs.
fn running(access: &Access, arrivals: &Arrivals) -> Result<Vec<Running>> {
    let mut running = Vec::new();
    if let Some(job) = access.server.job().filter(|job| job.namespace == access.namespace.name) {
        running.push(Running { who: format!("this server: {}", job.run), since: show_time(job.since) });
    }
    for listed in access.list(FileKind::Lease)? {
        if let Some((arrived, token)) = arrivals.files.get(&listed.name) {
            let tokens = access.server.tokens.as_ref();
            let who = tokens.and_then(|tokens| tokens.name(token)).unwrap_or_else(|| token.clone());
            running.push(Running { who: show(who.as_bytes()), since: show_time(moment(*arrived)) });
        }
    }
    Ok(running)
}

/// What the server has done by itself, the latest first.
fn jobs(access: &Access) -> Result<Vec<ShownJob>> {
    let Some(path) = access.server.state.as_ref().map(|state| state.join("jobs.log")) else {
        return Ok(Vec::new());
    };
    if !access.reads_all() {
        return Ok(Vec::new());
    }
    let mut file = match std::fs::File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        file => file.map_err(failed)?,
    };
    let length = file.metadata().map_err(failed)?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL))).map_err(failed)?;
    let mut tail = Vec::new();
    file.take(LOG_TAIL).read_to_end(&mut tail).map_err(failed)?;
    let lines = tail.split(|byte| *byte == b'\n').rev();
    let done = lines.filter_map(|line| serde_json::from_slice::<Done>(line).ok());
    let own = done.filter(|done| done.namespace == access.namespace.name).take(JOBS_MAX);
    Ok(own
        .map(|done| ShownJob {
            time: show_time(done.time),
            run: done.run.join(" "),
            seconds: format!("{:.1} s", done.seconds),
            result: match done.code {
                Some(0) => "done".to_owned(),
                Some(code) => format!("ended with {code}"),
                None => "did not end".to_owned(),
            },
            is_bad: done.code != Some(0),
            said: done.said,
        })
        .collect())
}
