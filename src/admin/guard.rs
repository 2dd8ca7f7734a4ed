//! Who may ask at all, and what every answer carries.
//!
//! The side port is on loopback, where every browser of the machine can reach it too. So a request must
//! name a loopback host, or else a stranger's page could read answers by DNS rebinding; and a write that
//! a browser sends on behalf of another site is refused.

use std::net::IpAddr;
use std::time::Duration;

use axum::body::HttpBody;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, HOST, ORIGIN, X_CONTENT_TYPE_OPTIONS};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Version};
use tokio::time::timeout;

use super::guarded::GUARD_MAX;
use super::problem::Problem;

/// Bytes of a request body; no request of this version has one that says anything.
pub(super) const BODY_BYTES_MAX: usize = 64 * 1024;

/// For one request, its body included. Longer than the longest thing that an operator can ask for (see
/// `health_check.rs`), so that this never cuts off an answer.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Lets a request through to its handler, or answers it.
pub(super) async fn guard(request: Request, next: Next) -> Response {
    let mut response = match check(&request) {
        Ok(()) => timeout(time_for(&request), next.run(request)).await.unwrap_or_else(|_| too_slow()),
        Err(problem) => problem.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// A change under guard answers when the guard ends, however long that is; its handler reads the body in
/// less.
fn time_for(request: &Request) -> Duration {
    let watched = *request.method() == Method::PUT && request.uri().path() == "/v1/config";
    if watched { REQUEST_TIMEOUT + GUARD_MAX } else { REQUEST_TIMEOUT }
}

fn check(request: &Request) -> Result<(), Problem> {
    let headers = request.headers();
    check_host(request)?;
    if !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
        check_site(headers)?;
    }
    if request.body().size_hint().lower() > BODY_BYTES_MAX as u64 {
        return Err(Problem::body_too_large(BODY_BYTES_MAX));
    }
    Ok(())
}

/// Both `Host` and the authority of an absolute target, if there is one, must be of this machine.
fn check_host(request: &Request) -> Result<(), Problem> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().unwrap_or_default(),
        // Nothing that runs a stranger's page speaks HTTP/1.0.
        (None, None) if request.version() == Version::HTTP_10 => return Ok(()),
        _ => return Err(foreign_host("the request must have exactly one `Host`")),
    };
    let target = request.uri().authority().map_or(host, Authority::as_str);
    match [host, target].into_iter().find(|authority| !is_loopback(authority)) {
        None => Ok(()),
        Some(stranger) => Err(foreign_host(&format!("`{stranger}` is not a name of this machine"))),
    }
}

/// `localhost`, `127.0.0.0/8` or `[::1]`, with any port or none.
fn is_loopback(authority: &str) -> bool {
    let Ok(authority) = authority.parse::<Authority>() else { return false };
    if authority.as_str().contains('@') {
        return false;
    }
    let host = authority.host();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost")
        || address.is_ok_and(|address| address.to_canonical().is_loopback())
}

/// Browsers say who is behind a write; what is no browser says nothing.
fn check_site(headers: &HeaderMap) -> Result<(), Problem> {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    if !matches!(site, None | Some(b"same-origin" | b"none")) {
        return Err(cross_site("`Sec-Fetch-Site` names another site"));
    }
    let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().unwrap_or_default();
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let is_ours = origin.strip_prefix("http://").is_some_and(|origin| origin.eq_ignore_ascii_case(host));
    if is_ours { Ok(()) } else { Err(cross_site(&format!("`Origin` is `{origin}`"))) }
}

fn foreign_host(detail: &str) -> Problem {
    Problem::new(403, "foreign_host", "the request names a host that is not this machine")
        .detail(detail)
        .help("ask by 127.0.0.1, [::1] or localhost; from elsewhere, by an SSH tunnel to one of them")
}

fn cross_site(detail: &str) -> Problem {
    Problem::new(403, "cross_site", "a page of another site may not write here")
        .detail(detail)
        .help("send writes from a command line or script, without `Origin` and `Sec-Fetch-Site`")
}

fn too_slow() -> Response {
    Problem::new(408, "request_timeout", "the request took too long")
        .detail(format!("it was not complete after {} s", REQUEST_TIMEOUT.as_secs()))
        .help("send the whole body at once")
        .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_many_names() {
        for host in [
            "localhost",
            "LocalHost:9900",
            "127.0.0.1",
            "127.9.9.9:1",
            "[::1]",
            "[::1]:9900",
            "[::ffff:127.0.0.1]:80",
        ] {
            assert!(is_loopback(host), "{host}");
        }
    }

    #[test]
    fn what_only_looks_like_loopback_is_not() {
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "localhost@evil.example",
            "evil.example@localhost",
            "10.0.0.1:9900",
            "0.0.0.0",
            "[::]",
            "[::2]:9900",
            "2130706433",
            "localhost evil",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
