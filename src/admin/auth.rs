//! Who asks, and whether they may: tokens, as the running configuration has them.
//!
//! ```text
//!   Access (of the path, in routes.rs) ──► scope needed ─┐
//!   Authorization: Bearer … ──► Identity ──► scope held ─┴─► let in, or a Refusal: 401, 403, 429
//!                                  └─► to the handler, and into the audit line
//! ```
//!
//! Without tokens whoever is on this machine may do everything, as `loopback`. The tokens are looked up
//! per request, so a reload changes them at once.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{FromRequestParts, Request};
use http::header::{AUTHORIZATION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::brake::{Brake, FAILURES_MAX};
use super::problem::Problem;
use crate::config::limits::TOKEN_BYTES_UNGUESSABLE;
use crate::config::{AdminConfig, Scope};
use crate::observe::AdminRefusal;

/// What a path wants of those who ask, where there are tokens.
#[derive(Clone, Copy, Debug)]
pub(super) enum Access {
    /// Nothing: for those who start, stop and route to the process.
    Open,
    /// `read` for a look, `operate` for these methods, `write` for all others.
    Guarded { operate: &'static [Method] },
    /// `write`, even for a look.
    Secret,
}

impl Access {
    /// The scope that a method needs; `None`: not even a token.
    pub(super) fn scope_for(self, method: &Method) -> Option<Scope> {
        match self {
            Self::Open => None,
            Self::Guarded { .. } if is_look(method) => Some(Scope::Read),
            Self::Guarded { operate } if operate.contains(method) => Some(Scope::Operate),
            Self::Guarded { .. } | Self::Secret => Some(Scope::Write),
        }
    }
}

/// Whether a method changes nothing.
pub(super) fn is_look(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// The other end of the connection; in the extensions of each request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub SocketAddr);

impl Peer {
    /// Unknown only when the client is gone already.
    pub(super) fn of(request: &Request) -> Self {
        let unknown = Self(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0));
        request.extensions().get().copied().unwrap_or(unknown)
    }
}

/// Who asks. A handler that wants to know takes it as an argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// The token's name, or `loopback` where there are no tokens.
    pub name: Arc<str>,
    /// What they may do.
    pub scope: Scope,
    /// Where they are.
    pub peer: SocketAddr,
}

/// The name of everybody on this machine, where there are no tokens.
const LOOPBACK: &str = "loopback";

impl<S: Send + Sync> FromRequestParts<S> for Identity {
    type Rejection = Problem;

    /// Refused only on paths whose [`Access`] is [`Access::Open`].
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| unknown("this path does not ask for a token"))
    }
}

/// A request that is turned away, and how that is counted.
pub(super) struct Refusal {
    pub reason: AdminRefusal,
    pub problem: Box<Problem>,
    pub header: Option<(HeaderName, HeaderValue)>,
}

impl Refusal {
    pub(super) fn new(reason: AdminRefusal, problem: Problem) -> Self {
        Self { reason, problem: Box::new(problem), header: None }
    }

    fn with(self, name: HeaderName, value: HeaderValue) -> Self {
        Self { header: Some((name, value)), ..self }
    }
}

/// Who asks. From where wrong tokens came often, no secret is looked at for a while that somebody could guess; whoever
/// brings a longer one is let in, or else anybody at the same address could keep operators out for ever.
pub(super) fn identify(
    admin: &AdminConfig,
    brake: &Brake,
    headers: &HeaderMap,
    peer: SocketAddr,
    now: Instant,
) -> Result<Identity, Refusal> {
    if admin.tokens.is_empty() {
        return Ok(Identity { name: LOOPBACK.into(), scope: Scope::Write, peer });
    }
    let Some(secret) = bearer(headers)? else { return Err(no_token()) };
    let wait = brake.wait(peer.ip(), now);
    let is_looked_at = wait.is_none() || secret.len() >= TOKEN_BYTES_UNGUESSABLE;
    if let Some(token) = admin.token_of(secret).filter(|_| is_looked_at) {
        return Ok(Identity { name: token.name.as_str().into(), scope: token.scope, peer });
    }
    let Some(wait) = wait else {
        brake.failed(peer.ip(), now);
        return Err(wrong_token("no token of the configuration has this secret"));
    };
    // Rounded up: who comes back a moment too early is sent away once more.
    Err(too_many_failures(wait.as_secs() + 1))
}

impl Identity {
    /// Whether they may do what needs this scope.
    pub(super) fn permit(&self, needed: Scope) -> Result<(), Refusal> {
        if self.scope >= needed {
            return Ok(());
        }
        let (held, needed) = (self.scope.word(), needed.word());
        let problem = Problem::new(403, "insufficient_scope", "the token does not allow this")
            .detail(format!("this needs the scope `{needed}`, and token `{}` has `{held}`", self.name))
            .help(format!(
                "use a token with the scope `{needed}`; `admin.tokens` in the configuration has them"
            ));
        let challenge = format!("Bearer error=\"insufficient_scope\", scope=\"{needed}\"");
        let refusal = Refusal::new(AdminRefusal::Forbidden, problem);
        Err(match HeaderValue::try_from(challenge) {
            Ok(challenge) => refusal.with(WWW_AUTHENTICATE, challenge),
            Err(_) => refusal,
        })
    }
}

/// What stands behind `Bearer`; `None` without any `Authorization`.
fn bearer(headers: &HeaderMap) -> Result<Option<&[u8]>, Refusal> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = match (values.next(), values.next()) {
        (None, _) => return Ok(None),
        (Some(value), None) => value.as_bytes(),
        (Some(_), Some(_)) => return Err(wrong_token("there is more than one `Authorization`")),
    };
    let split = value.iter().position(|&byte| byte == b' ').and_then(|blank| value.split_at_checked(blank));
    match split {
        Some((scheme, secret)) if scheme.eq_ignore_ascii_case(b"bearer") => Ok(Some(secret.trim_ascii())),
        _ => Err(wrong_token("`Authorization` does not begin with `Bearer` and a blank")),
    }
}

fn no_token() -> Refusal {
    Refusal::new(AdminRefusal::Unauthorized, unknown("there is no `Authorization`"))
        .with(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
}

fn wrong_token(detail: &str) -> Refusal {
    Refusal::new(AdminRefusal::Unauthorized, unknown(detail))
        .with(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer error=\"invalid_token\""))
}

fn unknown(detail: &str) -> Problem {
    Problem::new(401, "unauthorized", "the request has no token that is known")
        .detail(detail)
        .help("send `Authorization: Bearer SECRET`, the secret of one of `admin.tokens` in the configuration")
}

fn too_many_failures(wait_seconds: u64) -> Refusal {
    let problem = Problem::new(429, "too_many_failures", "too many wrong tokens came from this address")
        .detail(format!(
            "after {FAILURES_MAX} within a minute, none from there with less than {TOKEN_BYTES_UNGUESSABLE} characters is looked at for a while, and this one is short, or wrong"
        ))
        .help("mend the token, or wait as long as `Retry-After` says; other addresses are not affected");
    Refusal::new(AdminRefusal::TooManyFailures, problem).with(RETRY_AFTER, HeaderValue::from(wait_seconds))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn looking_needs_read_and_writing_needs_write_unless_the_path_says_operate() {
        let pools = Access::Guarded { operate: &[] };
        let upstream = Access::Guarded { operate: const { &[Method::PATCH] } };
        for look in [Method::GET, Method::HEAD, Method::OPTIONS] {
            assert_eq!(upstream.scope_for(&look), Some(Scope::Read));
            assert_eq!(Access::Open.scope_for(&look), None);
        }
        assert_eq!(upstream.scope_for(&Method::PATCH), Some(Scope::Operate));
        assert_eq!(upstream.scope_for(&Method::DELETE), Some(Scope::Write));
        assert_eq!(pools.scope_for(&Method::PATCH), Some(Scope::Write));
        assert_eq!(pools.scope_for(&Method::from_bytes(b"BREW").unwrap()), Some(Scope::Write));
    }

    #[test]
    fn a_scope_permits_itself_and_what_is_below_it() {
        for (held, needed, permitted) in [
            (Scope::Read, Scope::Read, true),
            (Scope::Read, Scope::Operate, false),
            (Scope::Operate, Scope::Read, true),
            (Scope::Operate, Scope::Write, false),
            (Scope::Write, Scope::Operate, true),
        ] {
            let peer = SocketAddr::from(([127, 0, 0, 1], 1));
            let identity = Identity { name: "ops".into(), scope: held, peer };
            assert_eq!(identity.permit(needed).is_ok(), permitted, "{held:?} {needed:?}");
        }
    }

    #[test]
    fn a_secret_stands_behind_bearer_once() {
        let headers = |values: &[&str]| -> HeaderMap {
            values.iter().map(|value| (AUTHORIZATION, HeaderValue::from_str(value).unwrap())).collect()
        };
        for value in ["Bearer s3cret", "bearer s3cret", "BEARER   s3cret "] {
            assert_eq!(bearer(&headers(&[value])).ok().unwrap(), Some(&b"s3cret"[..]), "{value}");
        }
        assert_eq!(bearer(&headers(&[])).ok().unwrap(), None);
        for values in [&["s3cret"][..], &["Basic s3cret"], &["Bearer"], &["Bearer a", "Bearer a"], &[""]] {
            assert!(bearer(&headers(values)).is_err(), "{values:?}");
        }
    }
}
