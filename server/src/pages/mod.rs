//! Pages for people: what is in the repositories, how they grow, what is going on, and files to look at and take away.
//!
//! Everything is made here and comes from here: no page asks another server for anything, none needs a script. Whoever
//! signs in has the rights of the token that was given, as on every other path. Reading order: [`session`] (who is there),
//! [`overview`] (a namespace), [`browse`] (a directory), [`download`].

mod as_tar;
mod browse;
mod content;
mod download;
mod names;
mod overview;
mod plot;
mod session;

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};

use crate::access::{Access, failed};
use crate::activity::Activity;
use crate::problem::{Problem, ProblemClass, Result};
use crate::routes::{Peer, Told, blocking};
use crate::server::Server;

/// Nothing but what comes from here, and no script at all.
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; \
    frame-ancestors 'none'";

/// The pages. No namespace is called `-`: what belongs to none stands below that.
pub(crate) fn router(server: &Arc<Server>) -> Router<Arc<Server>> {
    Router::new()
        .route("/", get(|| async { Redirect::to("/ui") }))
        .route("/ui", get(namespaces))
        .route("/ui/-/style.css", get(style))
        .route("/ui/-/icon.svg", get(icon))
        .route("/ui/-/sign-in", get(session::form).post(session::sign_in))
        .route("/ui/-/sign-out", post(session::sign_out))
        .route("/ui/{namespace}", get(overview::page))
        .route("/ui/{namespace}/{snapshot}/{archive}", get(browse::page))
        .route("/ui/{namespace}/{snapshot}/{archive}/{*path}", get(browse::page))
        .layer(from_fn_with_state(Arc::clone(server), protect))
}

/// Refuses what the page of another site sends, and gives every page its headers.
async fn protect(State(server): State<Arc<Server>>, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().map_or_else(|| "".into(), |peer| Arc::clone(&peer.address));
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let token = server.know(session::token(request.headers())).ok().flatten();
    if let (Some(_), Some(activity)) = (&token, request.extensions().get::<Arc<Activity>>()) {
        activity.is_known();
    }
    let from = request.headers().get("sec-fetch-site").map(HeaderValue::as_bytes);
    let is_foreign = from.is_some_and(|from| from != b"same-origin" && from != b"none");
    let mut response = match is_foreign && !request.method().is_safe() {
        true => Refused(Problem::denied("another site has sent this form")).into_response(),
        false => next.run(request).await,
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    let token = token.as_ref().map(|token| &*token.id);
    let status = response.status().as_u16();
    Told { peer: &peer, token, method: method.as_str(), path: &path, status }.note(&server);
    response
}

async fn style() -> Response {
    of_binary("text/css; charset=utf-8", include_str!("../../templates/style.css"))
}

async fn icon() -> Response {
    of_binary("image/svg+xml", include_str!("../../templates/icon.svg"))
}

/// What is part of the program.
fn of_binary(kind: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "max-age=3600")], text).into_response()
}

/// A page that says why there is none; whoever is not signed in is led to where they can.
struct Refused(Problem);

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

#[derive(Template)]
#[template(path = "refused.html")]
struct RefusedPage<'a> {
    title: &'a str,
    detail: &'a str,
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        if self.0.class == ProblemClass::Unauthenticated {
            return Redirect::to("/ui/-/sign-in").into_response();
        }
        let title = match self.0.class {
            ProblemClass::Missing => "Nothing here",
            ProblemClass::Denied => "Not with this token",
            _ => "This did not work",
        };
        let page = RefusedPage { title, detail: &self.0.detail };
        (self.0.class.status(), rendered(&page)).into_response()
    }
}

/// A page as an answer.
fn rendered(page: &impl Template) -> Response {
    match page.render() {
        Ok(text) => Html(text).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page cannot be made");
            Problem::new(ProblemClass::Io, "this is a fault of the server: please report it").into_response()
        }
    }
}

/// What whoever is signed in may do in a namespace.
fn admit(server: &Arc<Server>, headers: &HeaderMap, namespace: &str) -> Result<Access> {
    server.admit(namespace, session::token(headers))
}

#[derive(Template)]
#[template(path = "namespaces.html")]
struct NamespacesPage {
    names: Vec<String>,
}

/// The namespaces that the token is for.
async fn namespaces(State(server): State<Arc<Server>>, headers: HeaderMap) -> Result<Response, Refused> {
    let Some(token) = server.know(session::token(&headers))? else {
        return Ok(Redirect::to("/ui/-/sign-in").into_response());
    };
    let names = blocking(move || {
        let all = server.namespaces.names().map_err(failed)?;
        let is_for = |name: &String| token.namespace.as_ref().is_none_or(|own| own == name);
        Ok(all.into_iter().filter(is_for).collect::<Vec<String>>())
    })
    .await?;
    match &names[..] {
        [only] => Ok(Redirect::to(&format!("/ui/{only}")).into_response()),
        _ => Ok(rendered(&NamespacesPage { names })),
    }
}
