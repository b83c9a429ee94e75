//! Signing in: the token is kept in a cookie that no script sees and that goes to these pages alone.

use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Redirect, Response};
use percent_encoding::percent_decode;

use super::{Refused, rendered};
use crate::problem::{Problem, ProblemClass};
use crate::routes::Peer;
use crate::server::Server;

/// How long the form with a token may be, and how long it may take to come.
const FORM_MAX: usize = 1024;
const FORM_TIME_MAX: Duration = Duration::from_secs(10);
/// What the cookie is called.
const COOKIE: &str = "diptych";

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignInPage {
    is_wrong: bool,
}

/// The form.
pub(super) async fn form() -> Response {
    rendered(&SignInPage { is_wrong: false })
}

/// Takes a token from the form.
pub(super) async fn sign_in(
    State(server): State<Arc<Server>>,
    peer: Option<Extension<Peer>>,
    body: Body,
) -> Result<Response, Refused> {
    // Anybody can send this: what is longer or slower than any token is not waited for.
    let body = match tokio::time::timeout(FORM_TIME_MAX, axum::body::to_bytes(body, FORM_MAX)).await {
        Ok(Ok(body)) => body,
        _ => return Err(Problem::new(ProblemClass::Limit, "this is no form that was filled in here").into()),
    };
    let token = body.split(|byte| *byte == b'&').find_map(|field| field.strip_prefix(b"token="));
    let token = percent_decode(token.unwrap_or_default()).decode_utf8_lossy().trim().to_owned();
    if server.know(Some(&token))?.is_none() {
        let page = rendered(&SignInPage { is_wrong: true });
        return Ok((axum::http::StatusCode::UNAUTHORIZED, page).into_response());
    }
    let is_secure = peer.is_some_and(|Extension(peer)| peer.has_tls);
    Ok(with_cookie(Redirect::to("/ui"), &token, "", is_secure))
}

/// Forgets it.
pub(super) async fn sign_out(peer: Option<Extension<Peer>>) -> Response {
    let is_secure = peer.is_some_and(|Extension(peer)| peer.has_tls);
    with_cookie(Redirect::to("/ui/-/sign-in"), "", "; Max-Age=0", is_secure)
}

fn with_cookie(to: Redirect, value: &str, age: &str, is_secure: bool) -> Response {
    let secure = if is_secure { "; Secure" } else { "" };
    let cookie = format!("{COOKIE}={value}; Path=/ui; HttpOnly; SameSite=Strict{age}{secure}");
    let mut response = to.into_response();
    // A token that was found has nothing in it that a header could not have.
    if let Ok(cookie) = HeaderValue::try_from(cookie) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

/// The token of whoever is signed in.
pub(super) fn token(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|cookies| cookies.split(';'));
    pairs.find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}
