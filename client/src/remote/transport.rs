//! Asks a server, and asks again when a connection was lost: every request can be sent twice. Spec: P-2-5.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use diptych_backend::{Class, Error, FileName, Result};
use diptych_server::limit::Limit;
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::client::conn::http2::SendRequest;
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, RANGE};
use hyper::{Method, Request, Response, StatusCode};
use rustls::ClientConfig;
use serde_json::Value;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;

use super::address::{Address, Route};
use super::{Credentials, connect, tls};

/// How long a server that does not answer is tried.
const TRY_FOR: Duration = Duration::from_secs(120);
/// How often a server is asked how much it has.
const ASKED_MAX: u32 = 3;
/// Longest number that a server gives.
const DIGITS_MAX: usize = 32;
/// The first pause between two tries, and the longest.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// How long the server may send nothing.
const SILENCE_MAX: Duration = Duration::from_secs(90);
/// Longest answer that says what is wrong.
const PROBLEM_MAX: u64 = 64 << 10;
/// How much of a file is read at once, and how many such parts wait.
const PART: u64 = 256 << 10;
/// The largest end of a range that is asked for where nobody knows the end.
const LAST_MAX: u64 = i64::MAX as u64;
/// Of what is shorter than this, the server is not asked how much it has.
const GOES_ON_MIN: u64 = 64 << 10;
/// After what time people are told that a server does not answer.
const TOLD_AFTER: Duration = Duration::from_secs(3);
const PARTS_MAX: usize = 4;

/// A request.
pub(super) struct Ask {
    method: Method,
    path: String,
    /// First and last byte that are wanted.
    pub range: Option<(u64, u64)>,
    /// What is sent.
    pub body: Option<Sent>,
    /// Most bytes of an answer that is kept in memory.
    pub answer_max: u64,
}

impl Ask {
    pub fn new(method: Method, path: String) -> Self {
        Self { method, path, range: None, body: None, answer_max: PROBLEM_MAX }
    }
}

/// A file that is sent.
#[derive(Clone)]
pub(super) struct Sent {
    /// What is in memory of it.
    pub start: Bytes,
    /// What follows.
    pub rest: Option<Arc<File>>,
    /// The length of both.
    pub length: u64,
}

/// An answer.
pub(super) struct Answer {
    pub bytes: Bytes,
    /// What the server says the length of the file is.
    pub length: Option<u64>,
}

/// What takes the parts of an answer as they come; none: what came before is void, it begins anew.
pub(super) type Take<'a> = dyn FnMut(Option<Bytes>) -> Result<()> + Send + 'a;

/// How far earlier attempts have come: the next one goes on from there.
#[derive(Clone, Copy, Default)]
struct Reached {
    /// Bytes that the server has of what is sent.
    sent: u64,
    /// Bytes that were taken of the answer.
    taken: u64,
}

/// The way to a server.
pub(super) struct Transport {
    address: Address,
    base: String,
    authority: String,
    credentials: Credentials,
    tls: Arc<ClientConfig>,
    sender: Mutex<Option<SendRequest<Body>>>,
    was_lost: AtomicBool,
    upload: Arc<Limit>,
    download: Limit,
    runtime: Handle,
}

/// Why a try came to nothing.
enum Failure {
    /// The connection, or what is between here and there: it can be tried again.
    Lost(io::Error),
    /// What the server said, or what is wrong here.
    Told(Error),
}

impl Transport {
    /// All of it runs on `runtime`.
    pub fn new(address: Address, credentials: Credentials, runtime: &Runtime) -> Result<Self> {
        let failed = |error| Error::io(format!("{}: cannot be reached", address.location), error);
        let tls = tls::config(credentials.fingerprint).map_err(failed)?;
        let (scheme, authority) = match &address.route {
            Route::Tcp { host, port, is_plain } => {
                let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
                (if *is_plain { "http" } else { "https" }, format!("{host}:{port}"))
            }
            Route::Unix(_) | Route::Ssh { .. } => ("http", "localhost".to_owned()),
        };
        Ok(Self {
            base: format!("/v1/{}", address.namespace),
            authority: format!("{scheme}://{authority}"),
            address,
            tls,
            sender: Mutex::default(),
            was_lost: AtomicBool::new(false),
            upload: Arc::new(Limit::new(credentials.upload_max)),
            download: Limit::new(credentials.download_max),
            credentials,
            runtime: runtime.handle().clone(),
        })
    }

    pub fn location(&self) -> &str {
        &self.address.location
    }

    /// The location, and the token by what it is listed by.
    pub fn view(&self) -> String {
        let token = self.credentials.token.as_deref().and_then(|token| token.split('_').nth(1));
        format!("{}#{}", self.location(), token.unwrap_or_default())
    }

    /// The path of the namespace.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The path of a file.
    pub fn path_of(&self, name: &FileName) -> String {
        format!("{}/{}/{}", self.base, name.kind().word(), name.encode())
    }

    /// Whether any answer was lost: what is asked again may have been done.
    pub fn was_lost(&self) -> bool {
        self.was_lost.load(Ordering::Relaxed)
    }

    /// Asks for what fits into memory.
    pub fn call(&self, ask: &Ask) -> Result<Answer> {
        let mut bytes = Vec::new();
        let length = self.fetch(ask, &mut |part| {
            match part {
                None => bytes.clear(),
                Some(part) if (bytes.len() + part.len()) as u64 > ask.answer_max => {
                    let what = format!("{}: the server's answer is too long", self.location());
                    return Err(Error::new(Class::Io, what));
                }
                Some(part) => bytes.extend_from_slice(&part),
            }
            Ok(())
        })?;
        Ok(Answer { bytes: bytes.into(), length })
    }

    /// Asks once, and does not wait for the answer.
    pub fn spawn(self: &Arc<Self>, ask: Ask) -> JoinHandle<Result<Answer>> {
        let transport = Arc::clone(self);
        self.runtime.spawn(async move {
            let mut bytes = Vec::new();
            let mut take = |part: Option<Bytes>| {
                let part = part.unwrap_or_default();
                if (bytes.len() + part.len()) as u64 > ask.answer_max {
                    return Err(Error::new(Class::Io, "the server's answer is too long"));
                }
                bytes.extend_from_slice(&part);
                Ok(())
            };
            match transport.attempt(&ask, &mut Reached::default(), &mut take).await {
                Ok(length) => Ok(Answer { bytes: bytes.into(), length }),
                Err(Failure::Told(error)) => Err(error),
                Err(Failure::Lost(error)) => Err(Error::io("the answer was lost", error)),
            }
        })
    }

    /// Waits for such an answer; none if there will be none.
    pub fn wait(&self, running: JoinHandle<Result<Answer>>) -> Option<Result<Answer>> {
        self.runtime.block_on(running).ok()
    }

    /// Asks, and hands the answer over part by part. Gives what the server says its length is.
    pub fn fetch(&self, ask: &Ask, take: &mut Take<'_>) -> Result<Option<u64>> {
        let try_for = self.credentials.try_for.unwrap_or(TRY_FOR);
        let mut failing: Option<Instant> = None;
        let mut pause = PAUSE_MIN;
        let mut was_told = false;
        let mut reached = Reached::default();
        loop {
            let begun = Instant::now();
            let before = reached;
            let lost = match self.runtime.block_on(self.attempt(ask, &mut reached, take)) {
                Ok(length) => return Ok(length),
                // It has let go of what it had, or all had come: from the start on, then.
                Err(Failure::Told(error))
                    if error.class == Class::Truncated && (reached.sent > 0 || reached.taken > 0) =>
                {
                    reached = Reached::default();
                    take(None)?;
                    continue;
                }
                Err(Failure::Told(error)) => return Err(error),
                Err(Failure::Lost(error)) => error,
            };
            self.was_lost.store(true, Ordering::Relaxed);
            // Nobody there from the beginning on is a mistake more often than it is bad luck.
            let is_final = matches!(
                lost.kind(),
                io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::NotFound
            );
            if let Some(sent) = ask.body.as_ref().filter(|sent| sent.length > GOES_ON_MIN) {
                reached.sent = self.runtime.block_on(self.arrived(ask)).min(sent.length - 1);
            }
            // A connection that has carried something was one: that it broke is the first failure, not another one.
            let has_carried = reached.sent > before.sent || reached.taken > before.taken;
            if has_carried {
                (failing, pause) = (None, PAUSE_MIN);
            }
            // What was on its way for long may have gone well until then; an answer that did not come was not coming all the time.
            let is_late = ask.body.is_none() && !has_carried;
            let failing = failing.get_or_insert_with(|| if is_late { begun } else { Instant::now() });
            if is_final || failing.elapsed() + pause > try_for {
                let what = match lost.kind() {
                    io::ErrorKind::ResourceBusy => format!("{}: the server is busy", self.location()),
                    _ => format!("{}: the server cannot be reached", self.location()),
                };
                return Err(Error::io(what, lost));
            }
            if !was_told && (failing.elapsed() > TOLD_AFTER || begun.elapsed() > TOLD_AFTER) {
                was_told = true;
                let what =
                    format!("{}: {lost}; it is tried again for {} s", self.location(), try_for.as_secs());
                self.credentials.notice.inspect(|notice| notice(&what));
            }
            std::thread::sleep(pause.mul_f64(jitter()));
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// How many bytes the server has of a file that it was sent when the connection broke off; if it does not say, none.
    async fn arrived(&self, ask: &Ask) -> u64 {
        let Some(file) = ask.path.strip_prefix(&self.base) else { return 0 };
        let ask = Ask::new(Method::GET, format!("{}/arriving{file}", self.base));
        for attempt in 0..ASKED_MAX {
            // The connection that broke may not be known to be lost yet.
            tokio::time::sleep(PAUSE_MIN * attempt).await;
            let mut text = Vec::new();
            let mut take = |part: Option<Bytes>| {
                text.extend_from_slice(&part.unwrap_or_default());
                match text.len() <= DIGITS_MAX {
                    true => Ok(()),
                    false => Err(Error::new(Class::Io, "the server's answer is too long")),
                }
            };
            let mut reached = Reached::default();
            let asked = tokio::time::timeout(SILENCE_MAX, self.attempt(&ask, &mut reached, &mut take)).await;
            match asked {
                Ok(Ok(_)) => {
                    let number = std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok());
                    return number.unwrap_or(0);
                }
                Ok(Err(Failure::Lost(_))) => {}
                Ok(Err(Failure::Told(_))) | Err(_) => return 0,
            }
        }
        0
    }

    async fn attempt(
        &self,
        ask: &Ask,
        reached: &mut Reached,
        take: &mut Take<'_>,
    ) -> Result<Option<u64>, Failure> {
        let mut sender = self.sender().await.map_err(Failure::Lost)?;
        let request = self.request(ask, reached).map_err(Failure::Told)?;
        let lost = |error: hyper::Error| Failure::Lost(io::Error::other(describe(&error)));
        let silent = |_| Failure::Lost(io::Error::new(io::ErrorKind::TimedOut, "the server is silent"));
        // A file that is being sent is as long on its way as it takes; the server says if it is not.
        let response = match ask.body {
            Some(_) => sender.send_request(request).await.map_err(lost)?,
            None => tokio::time::timeout(SILENCE_MAX, sender.send_request(request))
                .await
                .map_err(silent)?
                .map_err(lost)?,
        };
        if !response.status().is_success() {
            return Err(self.problem(response).await);
        }
        if reached.taken > 0 && response.status() != StatusCode::PARTIAL_CONTENT {
            // The answer is the whole again.
            reached.taken = 0;
            take(None).map_err(Failure::Told)?;
        }
        let length =
            response.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let mut body = response.into_body();
        while let Some(frame) = tokio::time::timeout(SILENCE_MAX, body.frame()).await.map_err(silent)? {
            if let Ok(part) = frame.map_err(lost)?.into_data() {
                tokio::time::sleep(self.download.delay(part.len())).await;
                reached.taken += part.len() as u64;
                take(Some(part)).map_err(Failure::Told)?;
            }
        }
        Ok(length)
    }

    /// The connection, made anew if it was lost.
    async fn sender(&self) -> io::Result<SendRequest<Body>> {
        let mut current = self.sender.lock().await;
        if let Some(sender) = current.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        let sender = connect::connect(&self.address.route, &self.tls).await?;
        *current = Some(sender.clone());
        Ok(sender)
    }

    fn request(&self, ask: &Ask, reached: &Reached) -> Result<Request<Body>> {
        let mut request =
            Request::builder().method(&ask.method).uri(format!("{}{}", self.authority, ask.path));
        if let Some(token) = &self.credentials.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let whole = (reached.taken > 0).then_some((0, LAST_MAX));
        if let Some((first, last)) = ask.range.or(whole) {
            request = request.header(RANGE, format!("bytes={}-{last}", first + reached.taken));
        }
        if let Some(sent) = ask.body.as_ref().filter(|_| reached.sent > 0) {
            let range = format!("bytes {}-{}/{}", reached.sent, sent.length - 1, sent.length);
            request = request.header(CONTENT_RANGE, range);
        }
        let body = Body::new(ask.body.clone(), reached.sent, &self.upload, &self.runtime);
        let told = |error| Error::new(Class::Unsupported, format!("{}: {error}", self.location()));
        request.body(body).map_err(told)
    }

    /// What the server says is wrong.
    async fn problem(&self, response: Response<Incoming>) -> Failure {
        let status = response.status();
        let body = http_body_util::Limited::new(response.into_body(), PROBLEM_MAX as usize);
        let bytes = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let said: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let detail = said.get("detail").and_then(Value::as_str);
        let detail = detail.map_or_else(|| format!("the server says {status}"), str::to_owned);
        let class = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Class::Denied,
            StatusCode::NOT_FOUND => Class::Missing,
            StatusCode::CONFLICT => Class::Exists,
            StatusCode::RANGE_NOT_SATISFIABLE => Class::Truncated,
            StatusCode::NOT_IMPLEMENTED => Class::Unsupported,
            StatusCode::INSUFFICIENT_STORAGE => Class::Full,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                return Failure::Lost(io::Error::new(io::ErrorKind::ResourceBusy, detail));
            }
            _ => Class::Io,
        };
        Failure::Told(Error::new(class, format!("{}: {detail}", self.location())))
    }
}

/// The whole chain: the outermost error says little.
fn describe(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// Between a half and one: clients that lost a server at the same moment do not all come back at the same.
fn jitter() -> f64 {
    let nanoseconds = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let fraction = nanoseconds.map_or(0, |now| now.subsec_nanos() % 1000);
    0.5 + f64::from(fraction) / 2000.0
}

/// What is sent with a request.
pub(super) struct Body {
    left: u64,
    parts: Option<mpsc::Receiver<io::Result<Bytes>>>,
}

impl Body {
    /// What is sent, but for the first `skip` bytes.
    fn new(sent: Option<Sent>, skip: u64, limit: &Arc<Limit>, runtime: &Handle) -> Self {
        let Some(mut sent) = sent else { return Self { left: 0, parts: None } };
        let (sender, parts) = mpsc::channel(PARTS_MAX);
        let left = sent.length - skip;
        let from_start = usize::try_from(skip).unwrap_or(usize::MAX).min(sent.start.len());
        let skip = skip - from_start as u64;
        let end = sent.length - sent.start.len() as u64;
        sent.start = sent.start.slice(from_start..);
        let limit = Arc::clone(limit);
        runtime.spawn_blocking(move || send_parts(&sent, skip..end, &limit, &sender));
        Self { left, parts: Some(parts) }
    }
}

fn send_parts(sent: &Sent, range: Range<u64>, limit: &Limit, parts: &mpsc::Sender<io::Result<Bytes>>) {
    std::thread::sleep(limit.delay(sent.start.len()));
    // Whoever took the parts may have gone.
    if !sent.start.is_empty() && parts.blocking_send(Ok(sent.start.clone())).is_err() {
        return;
    }
    let Some(rest) = &sent.rest else { return };
    // Streams take turns: on a slow line each is to have one often enough for the server to see that it goes on.
    let most = limit.part(PART);
    let mut offset = range.start;
    while offset < range.end {
        let mut part = vec![0; (range.end - offset).min(most) as usize];
        let read = rest.read_exact_at(&mut part, offset);
        offset += part.len() as u64;
        std::thread::sleep(limit.delay(part.len()));
        let failed = read.is_err();
        if parts.blocking_send(read.map(|()| part.into())).is_err() || failed {
            return;
        }
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let Some(parts) = &mut self.parts else { return Poll::Ready(None) };
        parts.poll_recv(context).map(|part| {
            part.map(|part| {
                part.map(|part| {
                    self.left = self.left.saturating_sub(part.len() as u64);
                    Frame::data(part)
                })
            })
        })
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
