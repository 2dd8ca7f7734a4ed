//! What handlers take out of a request; what cannot be taken is a [`Problem`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{self, FromRequest, FromRequestParts, Request};
use http::header::CONTENT_TYPE;
use http::request::Parts;
use tokio::time::timeout;

use super::guard::{BODY_TIMEOUT, body_bytes_max};
use super::problem::Problem;
use crate::balance::StrategyKind;
use crate::config::read_duration;
use crate::control::Control;
use crate::runtime::{Pool, Snapshot, UpstreamState};

/// Least likeness of two words, 0 to 1, for one to be suggested in place of the other.
const LIKENESS_MIN: f64 = 0.7;

/// The variables of the path, percent-decoded.
pub(super) struct Path<T>(pub T);

impl<T: serde::de::DeserializeOwned + Send> FromRequestParts<Arc<Control>> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<Control>) -> Result<Self, Problem> {
        let path = extract::Path::<T>::from_request_parts(parts, state).await;
        path.map(|extract::Path(variables)| Self(variables)).map_err(|rejection| {
            Problem::bad_parameter(rejection.body_text(), "percent-encode what is not plain text in a path")
        })
    }
}

/// The parameters of the query. Each is taken once by name; [`Parameters::finish`] refuses the rest.
pub(super) struct Parameters {
    left: BTreeMap<String, Vec<String>>,
    known: Vec<&'static str>,
}

impl FromRequestParts<Arc<Control>> for Parameters {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Control>) -> Result<Self, Problem> {
        let pairs =
            extract::Query::<Vec<(String, String)>>::try_from_uri(&parts.uri).map_err(|rejection| {
                Problem::bad_parameter(rejection.body_text(), "write the query as name=value&name=value")
            })?;
        let mut left: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in pairs.0 {
            left.entry(name).or_default().push(value);
        }
        Ok(Self { left, known: Vec::new() })
    }
}

impl Parameters {
    /// Every value of a parameter that may be repeated.
    pub(super) fn take_all(&mut self, name: &'static str) -> Vec<String> {
        self.known.push(name);
        self.left.remove(name).unwrap_or_default()
    }

    /// The value of a parameter that may be given once. Empty is as if it were not there.
    pub(super) fn take(&mut self, name: &'static str) -> Result<Option<String>, Problem> {
        let mut values = self.take_all(name).into_iter();
        match (values.next(), values.next()) {
            (first, None) => Ok(first.filter(|value| !value.is_empty())),
            (_, Some(_)) => Err(Problem::bad_parameter(
                format!("`{name}` is given more than once"),
                format!("give `{name}` once"),
            )),
        }
    }

    /// `strategy`, if it is given.
    pub(super) fn take_strategy(&mut self) -> Result<Option<StrategyKind>, Problem> {
        let Some(word) = self.take("strategy")? else { return Ok(None) };
        read_strategy(&word).map(Some).map_err(|(detail, help)| Problem::bad_parameter(detail, help))
    }

    /// A duration with its unit, `0s` to `most`, if it is given.
    pub(super) fn take_duration(
        &mut self,
        name: &'static str,
        most: Duration,
    ) -> Result<Option<Duration>, Problem> {
        let Some(text) = self.take(name)? else { return Ok(None) };
        let wrong = |(detail, help)| Problem::bad_parameter(format!("`{name}`: {detail}"), help);
        read_duration(&text, most).map(Some).map_err(wrong)
    }

    /// Nothing may be left: what we do not know, we do not ignore.
    pub(super) fn finish(self) -> Result<(), Problem> {
        let Some(unknown) = self.left.keys().next() else { return Ok(()) };
        Err(Problem::bad_parameter(
            format!("`{unknown}` is not a parameter of this request"),
            suggest(unknown, &self.known),
        ))
    }
}

/// A body that says nothing: none at all, or the empty object.
pub(super) struct Nothing;

impl FromRequest<Arc<Control>> for Nothing {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &Arc<Control>) -> Result<Self, Problem> {
        let media_type = request.headers().get(CONTENT_TYPE).cloned();
        let body = whole_body(request, state).await?;
        let is_json = media_type.is_some_and(|value| is_json(value.as_bytes()));
        match body.trim_ascii() {
            b"" => Ok(Self),
            _ if !is_json => Err(Problem::new(415, "not_json", "the request body is not JSON")
                .detail("only `Content-Type: application/json` is accepted")
                .help("leave the body out, or send `{}` as application/json")),
            b"{}" => Ok(Self),
            _ => Err(Problem::new(422, "unknown_member", "the request body says more than is understood")
                .detail("this request takes no members")
                .help("leave the body out, or send `{}`")),
        }
    }
}

/// Reads the body; a client that is slow to send it is cut off.
pub(super) async fn whole_body(request: Request, state: &Arc<Control>) -> Result<Bytes, Problem> {
    let most = body_bytes_max(request.uri().path());
    let Ok(body) = timeout(BODY_TIMEOUT, Bytes::from_request(request, state)).await else {
        return Err(Problem::too_slow(BODY_TIMEOUT));
    };
    body.map_err(|rejection| match rejection.status().as_u16() {
        413 => Problem::body_too_large(most),
        _ => Problem::new(400, "bad_body", "the request body cannot be read")
            .detail(rejection.body_text())
            .help("send it in full, or leave it out"),
    })
}

/// The pool of this name.
pub(super) fn find_pool<'a>(snapshot: &'a Snapshot, name: &str) -> Result<&'a Pool, Problem> {
    snapshot.pool_named(name).ok_or_else(|| Problem::unknown_pool(name))
}

/// The upstream of this address, spelled in any way that means the same.
pub(super) fn find_upstream(
    snapshot: &Snapshot,
    pool: &str,
    address: &str,
) -> Result<Arc<UpstreamState>, Problem> {
    let upstream = find_pool(snapshot, pool)?.upstreams().iter().find(|upstream| upstream.is_at(address));
    upstream.map(|upstream| upstream.state.clone()).ok_or_else(|| Problem::unknown_upstream(pool, address))
}

/// The strategy of this name.
///
/// # Errors
///
/// What is wrong, and what would be right.
pub(super) fn read_strategy(word: &str) -> Result<StrategyKind, (String, String)> {
    let kinds = StrategyKind::ALL;
    kinds.into_iter().find(|kind| kind.name() == word).ok_or_else(|| {
        let names = kinds.map(StrategyKind::name);
        (format!("there is no strategy `{word}`"), suggest(word, &names))
    })
}

/// `did you mean …?`, or all words that would do.
pub(super) fn suggest(word: &str, known: &[&str]) -> String {
    let likeness = |other: &&&str| strsim::jaro_winkler(word, other);
    let nearest = known.iter().max_by(|one, other| likeness(one).total_cmp(&likeness(other)));
    match nearest.filter(|nearest| likeness(nearest) >= LIKENESS_MIN) {
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None if known.is_empty() => "leave it out; this request takes none".to_owned(),
        None => format!("accepted: {}", known.join(", ")),
    }
}

pub(super) fn is_json(media_type: &[u8]) -> bool {
    let essence = media_type.split(|&byte| byte == b';').next().unwrap_or_default();
    essence.trim_ascii().eq_ignore_ascii_case(b"application/json")
}
