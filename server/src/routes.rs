//! Requests to answers. Whatever touches a repository runs on threads of its own and never in an async task.
//!
//! Spec: protocol.md sections 2 to 7.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use diptych_backend::{FileKind, FileName};
use http_body_util::BodyExt;
use jiff::Timestamp;
use tokio::sync::mpsc;

use crate::access::Access;
use crate::activity::Activity;
use crate::arrive::Arriving;
use crate::audit::Line;
use crate::problem::{Problem, ProblemClass, Result};
use crate::server::Server;
use crate::share::{Share, turn};

/// How long a client may take nothing of an answer.
const TAKEN_MAX: Duration = Duration::from_secs(120);
/// What has to come of a file in the time that a client may send nothing: less is as good as nothing.
const PACE_MIN: u64 = 4 << 10;
/// How much of a path is written into logs, in bytes. Paths in requests are ASCII.
const PATH_SHOWN_MAX: usize = 1024;
/// How much is taken of what is refused, and for how long.
const DRAINED_MAX: usize = 1 << 20;
const DRAIN_MAX: Duration = Duration::from_secs(2);
/// How much of a file is read at once.
pub(crate) const PART: usize = 256 << 10;
/// Parts of a file that wait between two threads.
pub(crate) const PARTS_MAX: usize = 4;

/// Where a connection came from.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address.
    pub address: Arc<str>,
    /// Whether it speaks TLS.
    pub has_tls: bool,
}

/// All routes.
pub fn router(server: Arc<Server>) -> Router {
    let files = Router::new()
        .route("/v1/{namespace}", get(about).put(make))
        .route("/v1/{namespace}/mend", post(mend))
        .route("/v1/{namespace}/strangers/{kind}", get(strangers))
        .route("/v1/{namespace}/arriving/{kind}/{name}", get(arrived))
        .route("/v1/{namespace}/{kind}", get(list))
        .route("/v1/{namespace}/{kind}/{name}", get(read).put(send).delete(delete))
        .fallback(nothing)
        .layer(from_fn_with_state(Arc::clone(&server), admit));
    Router::new()
        .route("/healthz", get(health))
        .route("/metrics", get(metrics))
        .route("/openapi.json", get(crate::openapi::description))
        .merge(crate::pages::router(&server))
        .merge(files)
        .with_state(server)
}

/// Finds out who asks, before anything else is looked at. Spec: P-2-3.
async fn admit(State(server): State<Arc<Server>>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let method = request.method().clone();
    let peer = request.extensions().get::<Peer>().map_or_else(|| "".into(), |peer| Arc::clone(&peer.address));
    let shown = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let shown = shown.and_then(|value| value.strip_prefix("Bearer "));
    let namespace = path.strip_prefix("/v1/").and_then(|rest| rest.split('/').next()).unwrap_or_default();
    let access = server.admit(namespace, shown);
    let token = access.as_ref().ok().map(|access| Arc::clone(&access.token));
    let response = match access {
        Ok(access) => {
            if let Some(activity) = request.extensions().get::<Arc<Activity>>() {
                activity.is_known();
            }
            request.extensions_mut().insert(access);
            next.run(request).await
        }
        Err(problem) => {
            drain(request.into_body()).await;
            problem.into_response()
        }
    };
    let status = response.status().as_u16();
    let token = token.as_ref().map(|token| &*token.id);
    let told = Told { peer: &peer, token, method: method.as_str(), path: &path, status };
    told.note(&server);
    // Whoever has shown no good token has changed nothing, and is not to fill the disk with lines.
    if !method.is_safe()
        && token.is_some()
        && let Some(audit) = &server.audit
    {
        let line = Line {
            time: Timestamp::now(),
            token,
            method: told.method,
            path: shown_path(&path),
            status,
            peer: &peer,
        };
        if let Err(error) = audit.write(&line) {
            tracing::error!(%error, "the audit log cannot be written");
        }
    }
    response
}

/// A request that was answered.
pub(crate) struct Told<'a> {
    pub peer: &'a str,
    pub token: Option<&'a str>,
    pub method: &'a str,
    pub path: &'a str,
    pub status: u16,
}

impl Told<'_> {
    /// Counts it, and writes it into the log.
    pub(crate) fn note(&self, server: &Server) {
        let Self { peer, token, method, path, status } = *self;
        server.metrics.answered(status);
        tracing::info!(peer, token, method, path = shown_path(path), status, "request");
    }
}

/// A path as logs have it: no real one is as long as that.
fn shown_path(path: &str) -> &str {
    path.get(..PATH_SHOWN_MAX).unwrap_or(path)
}

async fn nothing() -> Problem {
    Problem::new(ProblemClass::Missing, "there is nothing here")
}

/// Spec: P-7-1.
async fn health(State(server): State<Arc<Server>>) -> Response {
    match server.is_draining.load(Ordering::Relaxed) {
        false => "ok\n".into_response(),
        true => Problem::new(ProblemClass::Draining, "the server is about to end").into_response(),
    }
}

/// Spec: P-7-2.
async fn metrics(State(server): State<Arc<Server>>) -> Response {
    let text = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    (text, server.metrics.render()).into_response()
}

/// Spec: P-3-1.
async fn about(Extension(access): Extension<Access>) -> Response {
    let about = serde_json::json!({
        "protocol": 1,
        "rights": access.token.rights.words(),
        "domain": access.token.domain,
    });
    axum::Json(about).into_response()
}

/// Spec: P-6-1.
async fn make(Extension(access): Extension<Access>) -> Result<StatusCode> {
    access.is_admin("make repositories")?;
    blocking(move || Ok(access.namespace.backend.make_layout()?)).await?;
    Ok(StatusCode::CREATED)
}

async fn mend(Extension(access): Extension<Access>) -> Result<StatusCode> {
    access.is_admin("mend repositories")?;
    blocking(move || Ok(access.namespace.backend.mend_layout()?)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn strangers(
    Extension(access): Extension<Access>,
    Path((_, kind)): Path<(String, String)>,
) -> Result<Response> {
    let kind = kind_of(&kind)?;
    access.unless_denied(access.reads_all(), "see what others have put there")?;
    let found = blocking(move || Ok(access.namespace.backend.strangers(kind)?)).await?;
    Ok(axum::Json(found).into_response())
}

/// Spec: P-3-2.
async fn list(
    Extension(access): Extension<Access>,
    Path((_, kind)): Path<(String, String)>,
) -> Result<Response> {
    let kind = kind_of(&kind)?;
    let listed = blocking(move || access.list(kind)).await?;
    let mut bytes = Vec::with_capacity(listed.len() * 40);
    for file in listed {
        bytes.extend_from_slice(file.name.digest());
        bytes.extend_from_slice(&file.length.to_le_bytes());
    }
    Ok(of_bytes(bytes.into()))
}

/// Spec: P-3-3.
async fn read(
    Extension(access): Extension<Access>,
    Path((_, kind, name)): Path<(String, String, String)>,
    headers: HeaderMap,
    method: axum::http::Method,
) -> Result<Response> {
    let name = name_of(&kind, &name)?;
    let backend = Arc::clone(&access.namespace.backend);
    let (server, token) = (Arc::clone(&access.server), Arc::clone(&access.token));
    let length = blocking(move || {
        access.may_read(&name)?;
        Ok(access.namespace.backend.length(&name)?)
    })
    .await?;
    let asked = headers.get(header::RANGE).map(|value| range(value, length)).transpose()?;
    let (start, end) = asked.unwrap_or((0, length));
    let mut response = if method == axum::http::Method::HEAD {
        Response::new(Body::empty())
    } else {
        let share = server.share(&token);
        let turn = share.reading().await?;
        server.metrics.sent.fetch_add(end - start, Ordering::Relaxed);
        let (parts, body) = mpsc::channel(PARTS_MAX);
        tokio::spawn(async move {
            read_parts(&backend, name, start..end, &share, &parts).await;
            drop(turn);
        });
        of_body(Body::new(Parts(body)))
    };
    let headers = response.headers_mut();
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(end - start));
    if asked.is_some() {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let range = format!("bytes {start}-{}/{length}", end.saturating_sub(1));
        if let Ok(range) = HeaderValue::try_from(range) {
            response.headers_mut().insert(header::CONTENT_RANGE, range);
        }
    }
    Ok(response)
}

/// Reads a part of a file, piece by piece. A client that is slow to take it keeps no thread waiting.
async fn read_parts(
    backend: &Arc<dyn diptych_backend::Backend>,
    name: FileName,
    range: Range<u64>,
    share: &Share,
    parts: &mpsc::Sender<io::Result<Bytes>>,
) {
    let mut start = range.start;
    while start < range.end {
        let count = (range.end - start).min(PART as u64);
        tokio::time::sleep(share.rates[1].delay(count as usize)).await;
        let backend = Arc::clone(backend);
        let read = tokio::task::spawn_blocking(move || {
            let mut part = vec![0; count as usize];
            backend.read_at(&name, &mut part, start).map(|()| Bytes::from(part)).map_err(io::Error::other)
        });
        let part = read.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        let failed = part.is_err();
        if !matches!(tokio::time::timeout(TAKEN_MAX, parts.send(part)).await, Ok(Ok(()))) || failed {
            return;
        }
        start += count;
    }
}

/// Hands a part to the connection, from a thread that may wait. Whoever takes nothing for long, or has gone, gets no more:
/// the thread is needed elsewhere.
pub(crate) fn hand_over(parts: &mpsc::Sender<io::Result<Bytes>>, part: io::Result<Bytes>) -> io::Result<()> {
    let sent = async { tokio::time::timeout(TAKEN_MAX, parts.send(part)).await };
    match tokio::runtime::Handle::current().block_on(sent) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(io::ErrorKind::BrokenPipe.into()),
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Parts that another thread reads.
pub(crate) struct Parts(pub(crate) mpsc::Receiver<io::Result<Bytes>>);

impl hyper::body::Body for Parts {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<io::Result<hyper::body::Frame<Bytes>>>> {
        self.0.poll_recv(context).map(|part| part.map(|part| part.map(hyper::body::Frame::data)))
    }
}

/// Start and end of what the file has of the range that was asked for.
fn range(value: &HeaderValue, length: u64) -> Result<(u64, u64)> {
    let parse = || {
        let (first, last) = value.to_str().ok()?.strip_prefix("bytes=")?.split_once('-')?;
        Some((first.parse::<u64>().ok()?, last.parse::<u64>().ok()?.checked_add(1)?))
    };
    let Some((start, end)) = parse() else {
        let what = "a range is written bytes=FIRST-LAST here";
        return Err(Problem::new(ProblemClass::Unsupported, what));
    };
    if start >= end || start >= length {
        let what = format!("the file has {length} bytes, and {start} to {end} are wanted");
        return Err(Problem::new(ProblemClass::Truncated, what));
    }
    Ok((start, end.min(length)))
}

/// How many bytes have arrived of a file when a connection broke off. Spec: P-4-9.
async fn arrived(
    Extension(access): Extension<Access>,
    Path((_, kind, name)): Path<(String, String, String)>,
) -> Result<String> {
    let name = name_of(&kind, &name)?;
    access.may_send(name.kind())?;
    access.server.parked.call_off(&access, name).await;
    Ok(format!("{}\n", access.server.parked.length(&access, name)))
}

/// Where in the file the bytes belong that are sent. Spec: P-4-9.
fn sent_from(headers: &HeaderMap) -> Result<u64> {
    let Some(value) = headers.get(header::CONTENT_RANGE) else { return Ok(0) };
    let first = || value.to_str().ok()?.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok();
    first().ok_or_else(|| {
        let what = "a range that is sent is written bytes FIRST-LAST/LENGTH here";
        Problem::new(ProblemClass::Unsupported, what)
    })
}

/// Takes a file. Spec: P-4-1.
async fn send(
    Extension(access): Extension<Access>,
    Path((_, kind, name)): Path<(String, String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode> {
    let may = || {
        let name = name_of(&kind, &name)?;
        access.may_send(name.kind())?;
        match access.server.is_draining.load(Ordering::Relaxed) {
            true => Err(Problem::new(ProblemClass::Draining, "the server is about to end: connect again")),
            false => Ok((name, sent_from(&headers)?)),
        }
    };
    let (name, from) = match may() {
        Ok(may) => may,
        Err(problem) => {
            drain(body).await;
            return Err(problem);
        }
    };
    let server = Arc::clone(&access.server);
    let refused = Arc::clone(&server);
    // A task of its own: what has come of a file is kept when the connection has gone and nobody waits for this.
    let kept = tokio::spawn(take(access, name, from, body)).await.unwrap_or_else(|error| fault(&error));
    match &kept {
        Ok(()) => refused.metrics.kept.fetch_add(1, Ordering::Relaxed),
        Err(_) => refused.metrics.refused.fetch_add(1, Ordering::Relaxed),
    };
    kept.map(|()| StatusCode::CREATED)
}

/// Takes some of what nobody wants: many clients take an answer that comes before they have sent everything for a lost
/// connection. Who sends more than this is told by one.
async fn drain(mut body: Body) {
    let mut left = DRAINED_MAX;
    let all = async {
        while left > 0
            && let Some(Ok(frame)) = body.frame().await
        {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
        }
    };
    let _ = tokio::time::timeout(DRAIN_MAX, all).await;
}

async fn take(access: Access, name: FileName, from: u64, mut body: Body) -> Result<()> {
    let server = Arc::clone(&access.server);
    let share = server.share(&access.token);
    let queued = share.queue()?;
    let _own_turn = share.arriving().await;
    let _turn = turn(&server.arriving, "too many files are arriving at once").await?;
    drop(queued);
    let begun = {
        let access = access.clone();
        blocking(move || Ok(access.server.parked.take(&access, name, from))).await?.transpose()?
    };
    if begun.is_none() && from > 0 {
        drain(body).await;
        let what = format!("{name}: {from} bytes have not arrived before: send it from its start");
        return Err(Problem::new(ProblemClass::Truncated, what));
    }
    let running = server.parked.begin(&access, name);
    let (parts, mut arriving) = mpsc::channel::<Bytes>(PARTS_MAX);
    let writer = {
        let access = access.clone();
        tokio::task::spawn_blocking(move || {
            let mut file = begun.map_or_else(|| Arriving::new(&access, name), Ok)?;
            while let Some(part) = arriving.blocking_recv() {
                file.write(&part)?;
            }
            Ok(file)
        })
    };
    let called_off = || Problem::new(ProblemClass::Busy, "the same file is sent by another connection");
    let broken = tokio::select! {
        broken = receive(&server, &share, &name, &mut body, parts) => broken.map(|what| Problem::new(ProblemClass::Io, what)),
        () = running.is_called_off() => Some(called_off()),
    };
    let file = match joined(writer.await) {
        Ok(file) => file,
        Err(problem) => {
            drain(body).await;
            return Err(problem);
        }
    };
    if let Some(problem) = broken {
        let access = access.clone();
        blocking(move || {
            access.server.parked.park(&access, name, file);
            Ok(())
        })
        .await?;
        return Err(problem);
    }
    drop(running);
    // What may take long to look at waits for its turn; documents do not wait for packs.
    let _turns = match name.kind() {
        FileKind::Data | FileKind::Index => {
            Some((share.validating().await, server.validating.acquire().await))
        }
        _ => None,
    };
    blocking(move || access.keep(&name, file.end())).await
}

/// Hands over what a client sends of a file; says what went wrong, if anything did.
async fn receive(
    server: &Server,
    share: &Share,
    name: &FileName,
    body: &mut Body,
    parts: mpsc::Sender<Bytes>,
) -> Option<String> {
    let silence_max = server.silence_max;
    let too_slow = || format!("nothing more of {name} came for {} s", silence_max.as_secs());
    let (mut since, mut came) = (tokio::time::Instant::now(), 0);
    loop {
        let data = match tokio::time::timeout(silence_max, body.frame()).await {
            Err(_) => return Some(too_slow()),
            Ok(None) => return None,
            Ok(Some(Err(error))) => return Some(format!("{name} broke off: {error}")),
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Err(_) => continue,
                Ok(data) => data,
            },
        };
        came += data.len() as u64;
        if since.elapsed() >= silence_max {
            if came < PACE_MIN {
                return Some(too_slow());
            }
            (since, came) = (tokio::time::Instant::now(), 0);
        }
        server.metrics.received.fetch_add(data.len() as u64, Ordering::Relaxed);
        let delay = share.rates[0].delay(data.len());
        tokio::time::sleep(delay).await;
        // The client is not to be blamed for that time.
        since += delay;
        // An error of the writer is told when it is waited for.
        if parts.send(data).await.is_err() {
            return None;
        }
    }
}

/// Spec: P-5-1.
async fn delete(
    Extension(access): Extension<Access>,
    Path((_, kind, name)): Path<(String, String, String)>,
) -> Result<StatusCode> {
    let name = name_of(&kind, &name)?;
    blocking(move || access.delete(&name)).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn kind_of(word: &str) -> Result<FileKind> {
    let found = FileKind::ALL.into_iter().find(|kind| kind.word() == word);
    found.ok_or_else(|| Problem::new(ProblemClass::Missing, "there is nothing here"))
}

fn name_of(kind: &str, name: &str) -> Result<FileName> {
    let found = FileName::decode(kind_of(kind)?, name);
    found.ok_or_else(|| Problem::new(ProblemClass::Missing, "there is no such name"))
}

fn of_bytes(bytes: Bytes) -> Response {
    of_body(bytes.into())
}

fn of_body(body: Body) -> Response {
    ([(header::CONTENT_TYPE, "application/octet-stream")], body).into_response()
}

/// Runs what waits for disks.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    joined(tokio::task::spawn_blocking(work).await)
}

fn joined<T>(joined: Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
    joined.unwrap_or_else(|error| fault(&error))
}

fn fault<T>(error: &tokio::task::JoinError) -> Result<T> {
    tracing::error!(%error, "a task has panicked");
    Err(Problem::new(ProblemClass::Io, "this is a fault of the server: please report it"))
}
