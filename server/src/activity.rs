//! What goes on on a connection: whether it is of any use to anybody.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;

/// How long a connection may be idle, and how old, before a request with a good token has come by it; and how long idle after that.
const UNKNOWN_IDLE_MAX: Duration = Duration::from_secs(10);
const UNKNOWN_AGE_MAX: Duration = Duration::from_secs(30);
const IDLE_MAX: Duration = Duration::from_secs(600);
/// Between two looks at it.
const LOOK: Duration = Duration::from_secs(2);

/// What goes on on a connection.
pub(crate) struct Activity {
    /// Whether a request with a good token has come.
    is_known: AtomicBool,
    /// Requests that are not answered to their end.
    open: AtomicUsize,
    /// When the last one was.
    last: Mutex<Instant>,
}

impl Activity {
    /// Of a connection that is new.
    pub(crate) fn new() -> Self {
        Self { is_known: AtomicBool::new(false), open: AtomicUsize::new(0), last: Mutex::new(Instant::now()) }
    }

    /// A request with a good token has come.
    pub(crate) fn is_known(&self) {
        self.is_known.store(true, Ordering::Relaxed);
    }

    /// Returns when nothing has come for so long that the place is better given to somebody else.
    pub(crate) async fn ends(&self) {
        let begun = Instant::now();
        loop {
            tokio::time::sleep(LOOK).await;
            let is_known = self.is_known.load(Ordering::Relaxed);
            if !is_known && begun.elapsed() > UNKNOWN_AGE_MAX {
                return;
            }
            let idle_max = if is_known { IDLE_MAX } else { UNKNOWN_IDLE_MAX };
            let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
            if self.open.load(Ordering::Relaxed) == 0 && last.elapsed() > idle_max {
                return;
            }
        }
    }
}

/// A request that is being answered.
struct Open(Arc<Activity>);

impl Open {
    fn new(activity: Arc<Activity>) -> Self {
        activity.open.fetch_add(1, Ordering::Relaxed);
        Self(activity)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        *self.0.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Keeps a request open until its answer has been taken.
pub(crate) async fn watch(
    State(activity): State<Arc<Activity>>,
    mut request: Request,
    next: Next,
) -> Response {
    let open = Open::new(Arc::clone(&activity));
    request.extensions_mut().insert(activity);
    next.run(request).await.map(|body| Body::new(Watched { body, _open: open }))
}

/// The body of an answer.
struct Watched {
    body: Body,
    _open: Open,
}

impl hyper::body::Body for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}
