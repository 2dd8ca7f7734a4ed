//! Who may ask at all, and what every answer carries.
//!
//! Without tokens the side port is on loopback, where every browser of the machine can reach it too. So a
//! request must name a loopback host, or else a stranger's page could read answers by DNS rebinding. With
//! tokens the request must have one that allows what it asks. Either way, a write that a browser sends on
//! behalf of another site is refused; and every write leaves a line in the log, refused or not.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::HttpBody;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, HOST, ORIGIN, X_CONTENT_TYPE_OPTIONS};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Version};
use tokio::time::timeout;

use super::audit::{Line, Throttle};
use super::auth::{Access, Peer, Refusal, identify, is_look};
use super::brake::Brake;
use super::guarded::GUARD_MAX;
use super::problem::Problem;
use crate::config::Scope;
use crate::config::limits::FILE_BYTES_MAX;
use crate::control::{Control, UPGRADE_TIMEOUT_MAX};
use crate::observe::AdminRefusal;

/// Bytes of a request body: room for a list of a thousand upstreams.
pub(super) const BODY_BYTES_MAX: usize = 64 * 1024;

/// Bytes of a request body that is a configuration: as many as a file may have.
pub(super) const TEXT_BYTES_MAX: usize = 4 * 1024 * 1024;
const _: () = assert!(TEXT_BYTES_MAX as u64 == FILE_BYTES_MAX);

/// Paths that take a configuration.
const TEXT_PATHS: [&str; 2] = ["/v1/config", "/v1/config/check"];

/// For a request body, from its head to its last byte; as long as for a head.
pub(super) const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// For one request, its body included. Longer than the longest thing that an operator can ask for (see
/// `health_check.rs`), so that this never cuts off an answer.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// What stands between a connection and the handlers.
pub(super) struct Door {
    control: Arc<Control>,
    /// By path, as in the index.
    access: HashMap<&'static str, Access>,
    brake: Brake,
    refusals: Throttle,
    strangers: Throttle,
}

impl Door {
    pub(super) fn new(control: Arc<Control>, access: impl Iterator<Item = (&'static str, Access)>) -> Self {
        Self {
            control,
            access: access.collect(),
            brake: Brake::default(),
            refusals: Throttle::default(),
            strangers: Throttle::default(),
        }
    }

    /// Checks who asks, and notes it in the request and in the audit line.
    fn admit(&self, request: &mut Request, now: Instant, line: Option<&mut Line<'_>>) -> Result<(), Refusal> {
        // One snapshot for all of it: a reload in between must not open a gap between two rules.
        let snapshot = self.control.runtime().snapshot();
        let admin = &snapshot.config.admin;
        check_host(request, !admin.tokens.is_empty())?;
        if !is_look(request.method()) {
            check_site(request.headers())?;
        }
        let Some(needed) = self.scope_for(request) else { return Ok(()) };
        let peer = Peer::of(request).0;
        let identity = identify(admin, &self.brake, request.headers(), peer, now)?;
        if let Some(line) = line {
            line.who = Some(identity.name.clone());
        }
        identity.permit(needed)?;
        request.extensions_mut().insert(identity);
        Ok(())
    }

    /// A path that does not exist is guarded too: what does exist is not a stranger's business.
    fn scope_for(&self, request: &Request) -> Option<Scope> {
        let path = request.extensions().get::<MatchedPath>();
        let access = path.and_then(|path| self.access.get(path.as_str()));
        access.unwrap_or(&Access::Guarded { operate: &[] }).scope_for(request.method())
    }

    fn refuse(&self, refusal: Refusal, request: &Request, now: Instant) -> Response {
        self.control.runtime().metrics.admin_refused(refusal.reason);
        if let Some(left_out) = self.refusals.admit(now) {
            tracing::warn!(
                reason = refusal.reason.word(),
                peer = %Peer::of(request).0,
                method = %request.method(),
                path = request.uri().path(),
                left_out = (left_out > 0).then_some(left_out),
                "admin request refused"
            );
        }
        let mut response = refusal.problem.into_response();
        response.headers_mut().extend(refusal.header);
        response
    }
}

/// Lets a request through to its handler, or answers it.
pub(super) async fn guard(State(door): State<Arc<Door>>, mut request: Request, next: Next) -> Response {
    let now = Instant::now();
    let mut line = Line::begin(&request, now, &door.strangers);
    let mut response = match door.admit(&mut request, now, line.as_mut()) {
        Err(refusal) => door.refuse(refusal, &request, now),
        Ok(()) if request.body().size_hint().lower() > body_bytes_max(request.uri().path()) as u64 => {
            Problem::body_too_large(body_bytes_max(request.uri().path())).into_response()
        }
        Ok(()) => {
            let time = time_for(&request);
            let answer = timeout(time, next.run(request)).await;
            answer.unwrap_or_else(|_| Problem::too_slow(time).into_response())
        }
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(line) = &mut line {
        line.status = Some(response.status().as_u16());
    }
    response
}

/// A change under guard answers when the guard ends, however long that is, and an upgrade when the successor
/// serves; their handlers read the body in less.
fn time_for(request: &Request) -> Duration {
    match (request.method(), request.uri().path()) {
        (&http::Method::PUT, "/v1/config") => REQUEST_TIMEOUT + GUARD_MAX,
        (&http::Method::POST, "/v1/upgrade") => REQUEST_TIMEOUT + UPGRADE_TIMEOUT_MAX,
        _ => REQUEST_TIMEOUT,
    }
}

/// Bytes of a request body that are taken on this path.
pub(super) fn body_bytes_max(path: &str) -> usize {
    if TEXT_PATHS.contains(&path) { TEXT_BYTES_MAX } else { BODY_BYTES_MAX }
}

/// Both `Host` and the authority of an absolute target, if there is one, must be of this machine. Where
/// tokens guard the port they may be any: a stranger's page has no token.
fn check_host(request: &Request, any_will_do: bool) -> Result<(), Refusal> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().unwrap_or_default(),
        // Nothing that runs a stranger's page speaks HTTP/1.0.
        (None, None) if request.version() == Version::HTTP_10 => return Ok(()),
        _ => return Err(foreign_host("the request must have exactly one `Host`")),
    };
    if any_will_do {
        return Ok(());
    }
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
fn check_site(headers: &HeaderMap) -> Result<(), Refusal> {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    if !matches!(site, None | Some(b"same-origin" | b"none")) {
        return Err(cross_site("`Sec-Fetch-Site` names another site"));
    }
    let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().unwrap_or_default();
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    // Whether somebody put TLS in front of us only the browser knows, and it says whose page it is.
    let scheme = if site == Some(b"same-origin") { "https://" } else { "http://" };
    let is_ours = [scheme, "http://"]
        .iter()
        .filter_map(|scheme| origin.strip_prefix(scheme))
        .any(|origin| origin.eq_ignore_ascii_case(host));
    if is_ours { Ok(()) } else { Err(cross_site(&format!("`Origin` is `{origin}`"))) }
}

fn foreign_host(detail: &str) -> Refusal {
    let problem = Problem::new(403, "foreign_host", "the request names a host that is not this machine")
        .detail(detail)
        .help("ask by 127.0.0.1, [::1] or localhost; from elsewhere, by an SSH tunnel to one of them");
    Refusal::new(AdminRefusal::ForeignHost, problem)
}

fn cross_site(detail: &str) -> Refusal {
    let problem = Problem::new(403, "cross_site", "a page of another site may not write here")
        .detail(detail)
        .help("send writes from a command line or script, without `Origin` and `Sec-Fetch-Site`");
    Refusal::new(AdminRefusal::CrossSite, problem)
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
