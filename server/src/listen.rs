//! Connections: TCP with TLS, a unix socket, standard input and output.
//!
//! Spec: protocol.md section 2.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn_with_state;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::activity::{self, Activity};
use crate::jobs::Jobs;
use crate::problem::ProblemClass;
use crate::routes::{Peer, router};
use crate::server::Server;
use crate::tls::Certificate;

/// Connections that are open at once, and those of them that come from one address.
const CONNECTIONS_MAX: usize = 4096;
const OF_ONE_ADDRESS_MAX: usize = 2048;
/// What a client may send of one stream, and of all, before the server has taken it. Streams of one connection do not
/// hold each other up: the latter is as much as all that may be open send of the former.
const STREAM_WINDOW: u32 = 1 << 20;
const STREAMS_MAX: u32 = 64;
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS_MAX;
/// How long a client may take to say who it is.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// How long those that are connected may take to end when the server is to end.
const DRAIN_MAX: Duration = Duration::from_secs(30);
/// How often leftovers of uploads that broke off with a server are removed.
const LEFTOVERS_EVERY: Duration = Duration::from_secs(6 * 3600);
/// How often it is looked for what has arrived in part and was not gone on with.
const PARKED_LOOK: Duration = Duration::from_secs(60);
/// How often it is looked whether the certificate was renewed, or the server is to end.
const LOOK_EVERY: Duration = Duration::from_secs(5);
const LOOK_AT_END_EVERY: Duration = Duration::from_millis(100);

/// Where a server listens.
#[derive(Clone, Debug, Default)]
pub struct Listen {
    /// A TCP address.
    pub address: Option<SocketAddr>,
    /// A unix socket.
    pub unix: Option<PathBuf>,
    /// Certificate chain and key, PEM; else one of the server's own.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Without TLS.
    pub is_plain: bool,
    /// Where the server's own certificate is kept.
    pub state: PathBuf,
    /// The names that it is for.
    pub names: Vec<String>,
}

/// Where a server listens by now.
#[derive(Clone, Debug)]
pub struct Listening {
    /// The TCP address, with the port that it got.
    pub address: Option<SocketAddr>,
    /// The unix socket.
    pub unix: Option<PathBuf>,
    /// What clients know the server by; none without TLS.
    pub fingerprint: Option<String>,
}

/// Serves, and runs `jobs`, until `interrupt` is set, and then until those that are connected have ended, or have had the time for it.
/// `ready` is told when clients can come.
pub fn serve(
    server: Arc<Server>,
    listen: &Listen,
    interrupt: &Arc<AtomicBool>,
    jobs: Jobs,
    ready: impl FnOnce(&Listening),
) -> io::Result<()> {
    if listen.is_plain
        && let Some(address) = listen.address
        && !address.ip().is_loopback()
    {
        // Spec: P-2-1.
        let what = format!("{address}: without TLS the server listens on loopback addresses alone");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(serve_async(server, listen, interrupt, jobs, ready));
    // A thread that waits for a disk that does not answer is not waited for.
    runtime.shutdown_timeout(Duration::from_secs(5));
    served
}

async fn serve_async(
    server: Arc<Server>,
    listen: &Listen,
    interrupt: &Arc<AtomicBool>,
    jobs: Jobs,
    ready: impl FnOnce(&Listening),
) -> io::Result<()> {
    let bound =
        |place: String| move |error: io::Error| io::Error::new(error.kind(), format!("{place}: {error}"));
    let tcp = match listen.address {
        None => None,
        Some(address) => Some(TcpListener::bind(address).await.map_err(bound(address.to_string()))?),
    };
    let unix = match &listen.unix {
        None => None,
        Some(path) => Some(bind_unix(path).map_err(bound(path.display().to_string()))?),
    };
    let certificate = match (&tcp, listen.is_plain, &listen.certificate) {
        (None, ..) | (_, true, _) => None,
        (_, _, Some((cert, key))) => Some(Certificate::load(cert.clone(), key.clone())?),
        (_, _, None) => Some(Certificate::own(&listen.state, listen.names.clone())?),
    };
    let acceptor = certificate.as_ref().map(Certificate::config).transpose()?.map(TlsAcceptor::from);
    let (end, jobs_end) = (CancellationToken::new(), CancellationToken::new());
    let connections = Arc::new(Connections {
        router: router(Arc::clone(&server)),
        server: Arc::clone(&server),
        graceful: Mutex::new(Some(GracefulShutdown::new())),
        permits: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        addresses: Arc::default(),
    });
    ready(&Listening {
        address: tcp.as_ref().map(TcpListener::local_addr).transpose()?,
        unix: listen.unix.clone(),
        fingerprint: certificate.as_ref().map(|certificate| certificate.fingerprint()),
    });
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn({
        let end = jobs_end.clone();
        async move {
            jobs.run(end).await;
            Some(())
        }
    });
    if let Some(tcp) = tcp {
        let (connections, end) = (Arc::clone(&connections), end.clone());
        tasks.spawn(async move { end.run_until_cancelled(connections.accept_tcp(tcp, acceptor)).await });
    }
    if let Some(unix) = unix {
        let (connections, end) = (Arc::clone(&connections), end.clone());
        tasks.spawn(async move { end.run_until_cancelled(connections.accept_unix(unix)).await });
    }
    tasks.spawn({
        let (server, end) = (Arc::clone(&server), end.clone());
        async move {
            loop {
                let server = Arc::clone(&server);
                let _ = tokio::task::spawn_blocking(move || server.namespaces.remove_leftovers()).await;
                end.run_until_cancelled(tokio::time::sleep(LEFTOVERS_EVERY)).await?;
            }
        }
    });
    tasks.spawn({
        let (server, end) = (Arc::clone(&server), end.clone());
        async move {
            loop {
                end.run_until_cancelled(tokio::time::sleep(PARKED_LOOK)).await?;
                let server = Arc::clone(&server);
                let _ = tokio::task::spawn_blocking(move || server.parked.let_go()).await;
            }
        }
    });
    let mut looked = tokio::time::Instant::now();
    while !interrupt.load(Ordering::Relaxed) {
        tokio::time::sleep(LOOK_AT_END_EVERY).await;
        if let Some(certificate) = &certificate
            && looked.elapsed() > LOOK_EVERY
        {
            looked = tokio::time::Instant::now();
            match certificate.refresh() {
                Ok(false) => {}
                Ok(true) => {
                    tracing::info!(fingerprint = certificate.fingerprint(), "the certificate was renewed")
                }
                Err(error) => {
                    tracing::error!(%error, "the certificate cannot be renewed; the one before is used")
                }
            }
        }
    }
    tracing::info!("the server is about to end");
    server.is_draining.store(true, Ordering::Relaxed);
    jobs_end.cancel();
    // Whoever asks meanwhile how the server is has an answer.
    let graceful = connections.graceful.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(graceful) = graceful {
        let _ = tokio::time::timeout(DRAIN_MAX, graceful.shutdown()).await;
    }
    end.cancel();
    while tasks.join_next().await.is_some() {}
    server.parked.close();
    if let Some(path) = &listen.unix {
        let _ = std::fs::remove_file(path);
    }
    Ok(())
}

/// A socket that a server has left is taken; one at which a server listens is not.
fn bind_unix(path: &PathBuf) -> io::Result<UnixListener> {
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let is_socket = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
            if !is_socket || std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(error);
            }
            std::fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        bound => bound,
    }
}

struct Connections {
    router: Router,
    server: Arc<Server>,
    /// Ends those that are connected; none once they are to end: who comes then is told so.
    graceful: Mutex<Option<GracefulShutdown>>,
    permits: Arc<Semaphore>,
    /// How many connections there are from each address.
    addresses: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// A connection's place among all, and among those from its address.
struct Place {
    address: Option<IpAddr>,
    addresses: Arc<Mutex<HashMap<IpAddr, usize>>>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(address) = self.address else { return };
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = addresses.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                addresses.remove(&address);
            }
        }
    }
}

impl Connections {
    async fn accept_tcp(&self, listener: TcpListener, acceptor: Option<TlsAcceptor>) {
        while let Some(permit) = self.permit().await {
            let (stream, address) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    failed_to_accept(&error).await;
                    continue;
                }
            };
            // Whoever has that many loses the newest.
            let Some(place) = self.place(permit, Some(address.ip())) else { continue };
            // A small answer is not to wait for a larger one.
            let _ = stream.set_nodelay(true);
            let peer = Peer { address: address.ip().to_string().into(), has_tls: acceptor.is_some() };
            match &acceptor {
                None => self.serve(stream, peer, place),
                Some(acceptor) => {
                    let handshake = acceptor.accept(stream);
                    let serving = self.serving(peer, place);
                    tokio::spawn(async move {
                        if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_MAX, handshake).await {
                            serving(Box::new(stream));
                        }
                    });
                }
            }
        }
    }

    async fn accept_unix(&self, listener: UnixListener) {
        while let Some(permit) = self.permit().await {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let Some(place) = self.place(permit, None) else { continue };
                    self.serve(stream, Peer { address: "unix".into(), has_tls: false }, place)
                }
                Err(error) => failed_to_accept(&error).await,
            }
        }
    }

    async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.permits).acquire_owned().await.ok()
    }

    fn place(&self, permit: OwnedSemaphorePermit, address: Option<IpAddr>) -> Option<Place> {
        if let Some(address) = address {
            let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
            let count = addresses.entry(address).or_default();
            if *count >= OF_ONE_ADDRESS_MAX {
                return None;
            }
            *count += 1;
        }
        Some(Place { address, addresses: Arc::clone(&self.addresses), _permit: permit })
    }

    fn serve(&self, stream: impl Stream + 'static, peer: Peer, place: Place) {
        self.serving(peer, place)(Box::new(stream));
    }

    /// What is to be done with a stream once it is there.
    fn serving(&self, peer: Peer, place: Place) -> impl FnOnce(Box<dyn Stream>) + Send + 'static + use<> {
        let activity = Arc::new(Activity::new());
        let counted = from_fn_with_state(Arc::clone(&activity), activity::watch);
        let router = self.router.clone().layer(axum::Extension(peer)).layer(counted);
        let server = Arc::clone(&self.server);
        let graceful = self.graceful.lock().unwrap_or_else(PoisonError::into_inner);
        let watcher = graceful.as_ref().map(GracefulShutdown::watcher);
        drop(graceful);
        move |stream| {
            server.metrics.connections.fetch_add(1, Ordering::Relaxed);
            let service = TowerToHyperService::new(router);
            let connection = builder().serve_connection(TokioIo::new(stream), service).into_owned();
            let watched = async move {
                match watcher {
                    Some(watcher) => watcher.watch(connection).await,
                    None => connection.await,
                }
            };
            tokio::spawn(async move {
                tokio::select! {
                    // That a client goes away is no event.
                    _ = watched => {}
                    () = activity.ends() => {}
                }
                server.metrics.connections.fetch_sub(1, Ordering::Relaxed);
                drop(place);
            });
        }
    }
}

/// Without descriptors there is nothing to do but to wait until some are free.
async fn failed_to_accept(error: &io::Error) {
    tracing::error!(%error, class = ProblemClass::Io.word(), "cannot take a connection");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS_MAX)
        .max_frame_size(256 << 10)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(30));
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HANDSHAKE_MAX);
    builder
}

/// Serves one client over standard input and output until it goes away.
pub fn serve_stdio(server: Arc<Server>) -> io::Result<()> {
    // Whoever comes next is served by another process, which knows of nothing that is kept here.
    server.parked.close();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let stream = tokio::io::join(tokio::io::stdin(), tokio::io::stdout());
        let router = router(server).layer(axum::Extension(Peer { address: "stdio".into(), has_tls: false }));
        let service = TowerToHyperService::new(router);
        let served = builder().http2_only().serve_connection(TokioIo::new(stream), service).await;
        if let Err(error) = served {
            // The other end has gone, which is how it ends.
            tracing::debug!(error, "the client has gone");
        }
    });
    // Reading standard input cannot be called off.
    runtime.shutdown_background();
    Ok(())
}

impl std::fmt::Display for Listening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.fingerprint.is_some() { "diptych" } else { "diptych+plain" };
        let places = self.address.map(|address| format!("{scheme}://{address}"));
        let sockets = self.unix.as_ref().map(|path| format!("diptych+unix:{}", path.display()));
        let all: Vec<String> = places.into_iter().chain(sockets).collect();
        write!(f, "{}", all.join(" and "))?;
        match &self.fingerprint {
            Some(fingerprint) => write!(f, ", fingerprint {fingerprint}"),
            None => Ok(()),
        }
    }
}
