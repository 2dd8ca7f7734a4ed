//! What all writes have in common: who asks, on what condition, what is said, what comes of it.

use std::sync::Arc;

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, ETAG, IF_MATCH};
use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::answer::Json;
use super::auth::Identity;
use super::extract::{is_json, whole_body};
use super::problem::Problem;
use crate::control::{self, Author, Change, Condition, Control, Dropped, Guard, Outcome, Rejected, Reset};
use crate::observe::ChangeOrigin;

/// Header in which a client may say why it changes something; goes into the history.
const REASON_HEADER: &str = "x-evener-reason";

/// Characters of a reason.
const REASON_CHARACTERS_MAX: usize = 200;

/// Who writes, and on what condition (`If-Match`).
pub(super) struct Writer {
    pub(super) condition: Option<Condition>,
    pub(super) author: Author,
}

impl FromRequestParts<Arc<Control>> for Writer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<Control>) -> Result<Self, Problem> {
        let who = Identity::from_request_parts(parts, state).await?.name.to_string();
        let (condition, why) = (condition_in(&parts.headers)?, reason_in(&parts.headers)?);
        Ok(Self { condition, author: Author { origin: ChangeOrigin::Admin, who, why } })
    }
}

impl Writer {
    /// Applies a change; the disk is waited for on a thread of its own.
    pub(super) async fn apply(
        self,
        control: &Arc<Control>,
        change: Change,
    ) -> Result<control::Applied, Problem> {
        let control = control.clone();
        let Self { condition, author } = self;
        off_the_loop(move || control.apply(&change, condition.as_ref(), &author)).await
    }
}

/// Does what takes its time, or waits for the disk, on a thread of its own. It is done even when the
/// client goes away meanwhile.
pub(super) async fn off_the_loop<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Rejected> + Send + 'static,
) -> Result<T, Problem> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        Err(error) => Err(Problem::internal(error.to_string())),
    }
}

/// The tags of `If-Match`. A weak one never matches (RFC 9110, 13.1.1), so it is kept as it is.
fn condition_in(headers: &HeaderMap) -> Result<Option<Condition>, Problem> {
    let mut tags = Vec::new();
    for value in headers.get_all(IF_MATCH) {
        let text = value.to_str().map_err(|_| bad_condition("it is no text"))?;
        tags.extend(text.split(',').map(str::trim).filter(|tag| !tag.is_empty()).map(str::to_owned));
    }
    match tags.as_slice() {
        [] if headers.contains_key(IF_MATCH) => Err(bad_condition("it is empty")),
        [] => Ok(None),
        [any] if any == "*" => Ok(Some(Condition::Exists)),
        all if all.iter().all(|tag| is_tag(tag)) => Ok(Some(Condition::Matches(tags))),
        _ => Err(bad_condition("it is neither `*` nor a list of quoted tags")),
    }
}

fn is_tag(text: &str) -> bool {
    let tag = text.strip_prefix("W/").unwrap_or(text);
    tag.len() >= 2 && tag.starts_with('"') && tag.ends_with('"')
}

fn bad_condition(what: &str) -> Problem {
    Problem::bad_parameter(
        format!("`If-Match` cannot be used: {what}"),
        "send the `ETag` of the answer that you read, quotes included, or leave it out",
    )
}

fn reason_in(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let why = headers.get(REASON_HEADER).map(|value| value.to_str()).transpose().map_err(|_| {
        Problem::bad_parameter("`X-Evener-Reason` is no text", "write it in printable ASCII, or leave it out")
    })?;
    Ok(why.map(|why| why.chars().take(REASON_CHARACTERS_MAX).collect()))
}

/// A body of JSON that says exactly what `T` has.
#[allow(dead_code)]
pub(super) struct Said<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Arc<Control>> for Said<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &Arc<Control>) -> Result<Self, Problem> {
        let media_type = request.headers().get(CONTENT_TYPE).cloned();
        let body = whole_body(request, state).await?;
        parse(media_type.as_ref(), &body).map(Self)
    }
}

/// As [`Said`], or no body at all.
pub(super) struct SaidOrNot<T>(pub(super) T);

impl<T: DeserializeOwned + Default> FromRequest<Arc<Control>> for SaidOrNot<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &Arc<Control>) -> Result<Self, Problem> {
        let media_type = request.headers().get(CONTENT_TYPE).cloned();
        let body = whole_body(request, state).await?;
        match body.trim_ascii() {
            b"" => Ok(Self(T::default())),
            body => parse(media_type.as_ref(), body).map(Self),
        }
    }
}

fn parse<T: DeserializeOwned>(media_type: Option<&HeaderValue>, body: &[u8]) -> Result<T, Problem> {
    if !media_type.is_some_and(|value| is_json(value.as_bytes())) {
        return Err(Problem::new(415, "not_json", "the request body is not JSON")
            .detail("only `Content-Type: application/json` is accepted")
            .help("send JSON with this `Content-Type`; GET /openapi.json describes it"));
    }
    serde_json::from_slice(body).map_err(|error| {
        Problem::new(422, "bad_body", "the request body says something else than expected")
            .detail(error.to_string())
            .help("GET /openapi.json describes the body of each request")
    })
}

/// A body that is the text of a configuration file. JSON is refused: somebody means another API.
pub(super) struct Text(pub(super) String);

impl FromRequest<Arc<Control>> for Text {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &Arc<Control>) -> Result<Self, Problem> {
        let is_json = request.headers().get(CONTENT_TYPE).is_some_and(|value| is_json(value.as_bytes()));
        let body = whole_body(request, state).await?;
        if is_json {
            return Err(Problem::new(415, "not_toml", "a configuration is TOML, not JSON")
                .detail("the body was sent as application/json")
                .help("send the file's text, with `Content-Type: application/toml`"));
        }
        String::from_utf8(body.into()).map(Self).map_err(|error| {
            Problem::new(422, "invalid_config", "the configuration is wrong, nothing was applied")
                .detail(format!("byte {} is not UTF-8", error.utf8_error().valid_up_to() + 1))
                .help("save it as UTF-8 text")
        })
    }
}

/// The answer to a write of the configuration as a whole, under its entity tag.
pub(super) struct Applied(pub(super) control::Applied);

impl IntoResponse for Applied {
    fn into_response(self) -> Response {
        ([(ETAG, self.0.tag.clone())], Json(AppliedView::from(self.0))).into_response()
    }
}

/// What came of a write.
#[derive(Debug, Serialize)]
pub(super) struct AppliedView {
    /// What runs now.
    generation: u64,
    /// Entity tag of the configuration now.
    etag: String,
    /// Whether anything is different from before.
    changed: bool,
    /// Upstreams that kept what was known of them.
    carried: usize,
    added: Vec<MemberView>,
    removed: Vec<MemberView>,
    /// What was forgotten all the same, and why.
    reset: Vec<ResetView>,
    overrides_dropped: Vec<DroppedView>,
    warnings: Vec<String>,
    /// Whether it survives the process.
    persisted: bool,
    /// Of a change under guard: how that stands or went.
    #[serde(skip_serializing_if = "Option::is_none")]
    guard: Option<Guard>,
}

impl AppliedView {
    /// What came of a change under guard. Once it is kept, it survives the process.
    pub(super) fn guarded(applied: control::Applied, guard: Guard) -> Self {
        let persisted = guard.outcome == Outcome::Kept;
        Self { persisted, guard: Some(guard), ..applied.into() }
    }
}

/// What was changed, as it is now, and what came of the change.
#[derive(Debug, Serialize)]
pub(super) struct Written<T> {
    #[serde(flatten)]
    view: T,
    applied: AppliedView,
}

impl<T> Written<T> {
    pub(super) fn new(view: T, applied: control::Applied) -> Self {
        Self { view, applied: applied.into() }
    }
}

#[derive(Debug, Serialize)]
struct MemberView {
    pool: String,
    address: String,
}

#[derive(Debug, Serialize)]
struct ResetView {
    pool: String,
    what: &'static str,
    why: String,
}

#[derive(Debug, Serialize)]
struct DroppedView {
    pool: String,
    upstream: Option<String>,
    setting: &'static str,
    value: String,
    why: String,
}

impl From<control::Applied> for AppliedView {
    fn from(applied: control::Applied) -> Self {
        let member = |(pool, address): (String, crate::config::UpstreamAddress)| MemberView {
            pool,
            address: address.to_string(),
        };
        Self {
            generation: applied.generation,
            etag: applied.tag,
            changed: applied.changed,
            carried: applied.carried,
            added: applied.added.into_iter().map(member).collect(),
            removed: applied.removed.into_iter().map(member).collect(),
            reset: applied.reset.into_iter().map(ResetView::from).collect(),
            overrides_dropped: applied.dropped.into_iter().map(DroppedView::from).collect(),
            warnings: applied.warnings,
            persisted: applied.persisted,
            guard: None,
        }
    }
}

impl From<Reset> for ResetView {
    fn from(Reset { pool, what, why }: Reset) -> Self {
        Self { pool, what, why }
    }
}

impl From<Dropped> for DroppedView {
    fn from(Dropped { pool, upstream, setting, value, why }: Dropped) -> Self {
        Self { pool, upstream, setting, value, why }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(value: &'static str) -> Result<Option<Condition>, Problem> {
        let mut headers = HeaderMap::new();
        headers.insert(IF_MATCH, HeaderValue::from_static(value));
        condition_in(&headers)
    }

    #[test]
    fn conditions_are_tags_or_anything() {
        assert_eq!(condition_in(&HeaderMap::new()).ok(), Some(None));
        assert_eq!(condition("*").ok(), Some(Some(Condition::Exists)));
        let matches =
            |tags: &[&str]| Some(Some(Condition::Matches(tags.iter().map(|&tag| tag.to_owned()).collect())));
        assert_eq!(condition("\"a\", W/\"b\"").ok(), matches(&["\"a\"", "W/\"b\""]));
        for wrong in ["", "a", "\"a\", *", "\""] {
            assert!(condition(wrong).is_err(), "{wrong}");
        }
    }
}
