//! Every refusal of the side port: RFC 9457 problem details, always with what to do next.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;

use super::answer;
use crate::config::{CannotEdit, LoadError, Mistake, resolved_address};
use crate::control::{Guard, Rejected};

/// `Content-Type` of every refusal.
pub(super) const MEDIA_TYPE: &str = "application/problem+json";

/// What every `type` begins with; a name, not an address.
const TYPE_PREFIX: &str = "urn:evener:problem:";

/// Something that we will not, or cannot, do.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Problem {
    #[serde(rename = "type")]
    kind: String,
    /// The same for every problem of its type.
    title: &'static str,
    status: u16,
    /// What happened this time.
    detail: String,
    /// What to do about it.
    help: String,
    #[serde(flatten)]
    more: Option<Box<More>>,
}

/// What only refused writes have.
#[derive(Clone, Debug, Default, Serialize)]
struct More {
    /// Of a configuration: every mistake with its place.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<MistakeView>,
    /// The entity tag now, when the condition did not hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    etag: Option<String>,
    /// How a change under guard went that was rolled back.
    #[serde(skip_serializing_if = "Option::is_none")]
    guard: Option<Guard>,
}

/// One mistake in a configuration.
#[derive(Clone, Debug, Serialize)]
struct MistakeView {
    line: usize,
    column: usize,
    message: String,
    help: String,
}

/// A problem that does not say yet what happened and what to do.
pub(super) struct Untold {
    status: u16,
    kind: &'static str,
    title: &'static str,
}

/// A problem that does not say yet what to do.
pub(super) struct Helpless {
    untold: Untold,
    detail: String,
}

impl Problem {
    /// `kind` is the tail of `type`, a word like those of the `reason`s of traffic.
    #[allow(clippy::new_ret_no_self)]
    pub(super) const fn new(status: u16, kind: &'static str, title: &'static str) -> Untold {
        Untold { status, kind, title }
    }

    /// The body of the answer.
    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// A parameter of the request that cannot be used.
    pub(super) fn bad_parameter(detail: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(400, "bad_parameter", "a parameter of the request is wrong").detail(detail).help(help)
    }

    /// There is no such pool.
    pub(super) fn unknown_pool(pool: &str) -> Self {
        Self::new(404, "unknown_pool", "no pool has this name")
            .detail(format!("there is no pool `{pool}`"))
            .help("GET /v1/pools lists them")
    }

    /// The pool has no such upstream.
    pub(super) fn unknown_upstream(pool: &str, address: &str) -> Self {
        Self::new(404, "unknown_upstream", "no upstream has this address")
            .detail(format!("pool `{pool}` has no upstream `{address}`"))
            .help(match resolved_address(address) {
                Some(_) => format!("GET /v1/pools/{pool} lists them; the port must match too"),
                None => format!(
                    "GET /v1/pools/{pool} lists them; upstreams are known by the address that their name was resolved to, such as 127.0.0.1:9001, [::1]:9001 or unix:%2Frun%2Fapp.sock"
                ),
            })
    }

    /// A value in the body of the request that cannot be used.
    pub(super) fn wrong_value(detail: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(422, "wrong_value", "a value of the request is wrong").detail(detail).help(help)
    }

    /// An upstream that cannot be added.
    pub(super) fn wrong_member(why: &CannotEdit) -> Self {
        let help = match why {
            CannotEdit::Wrong { help, .. } => help.as_str(),
            CannotEdit::UnknownUpstream(_) | CannotEdit::AlreadyThere(_) => {
                "GET /v1/pools lists all upstreams"
            }
        };
        Self::wrong_value(why.to_string(), help)
    }

    /// We are at fault.
    pub(super) fn internal(detail: impl Into<String>) -> Self {
        Self::new(500, "internal", "the request ended in the middle")
            .detail(detail)
            .help("GET /v1/status shows what runs; please report this as a bug")
    }

    /// The request, or its body, was not complete in time.
    pub(super) fn too_slow(limit: Duration) -> Self {
        Self::new(408, "request_timeout", "the request took too long")
            .detail(format!("it was not complete after {} s", limit.as_secs()))
            .help("send the whole body at once")
    }

    /// A change under guard was taken back.
    pub(super) fn rolled_back(guard: Guard) -> Self {
        let detail = guard.detail.clone().unwrap_or_default();
        let mut problem = Self::new(409, "rolled_back", "the change was rolled back, what ran before runs")
            .detail(detail)
            .help("`guard` has the figures before and after; POST /v1/config/check shows what the change touches");
        problem.more = Some(Box::new(More { guard: Some(guard), ..More::default() }));
        problem
    }

    /// The body is larger than anything that we take.
    pub(super) fn body_too_large(max: usize) -> Self {
        Self::new(413, "body_too_large", "the request body is too large")
            .detail(format!("at most {max} bytes are accepted"))
            .help("no request to this API needs a body of that size; GET /openapi.json describes them")
    }
}

impl Untold {
    pub(super) fn detail(self, detail: impl Into<String>) -> Helpless {
        Helpless { untold: self, detail: detail.into() }
    }
}

impl Helpless {
    pub(super) fn help(self, help: impl Into<String>) -> Problem {
        let Untold { status, kind, title } = self.untold;
        let kind = format!("{TYPE_PREFIX}{kind}");
        Problem { kind, title, status, detail: self.detail, help: help.into(), more: None }
    }
}

impl From<Rejected> for Problem {
    fn from(rejected: Rejected) -> Self {
        let (status, kind, title) = kind_of(&rejected);
        let mut problem = Self::new(status, kind, title).detail(rejected.to_string()).help(rejected.help());
        match &rejected {
            Rejected::Invalid(LoadError::Invalid(report)) => {
                problem.detail = format!("{} in the configuration", count_of(report.len()));
                let errors = report.mistakes().map(MistakeView::of).collect();
                problem.more = Some(Box::new(More { errors, ..More::default() }));
            }
            Rejected::ChangedMeanwhile { tag } => {
                problem.more = Some(Box::new(More { etag: Some(tag.clone()), ..More::default() }));
            }
            _ => {}
        }
        problem
    }
}

fn count_of(mistakes: usize) -> String {
    format!("{mistakes} mistake{}", if mistakes == 1 { "" } else { "s" })
}

/// Status, tail of `type`, and title.
const fn kind_of(rejected: &Rejected) -> (u16, &'static str, &'static str) {
    match rejected {
        Rejected::NoFile => (409, "no_file", "there is no configuration file"),
        Rejected::Invalid(_) => (422, "invalid_config", "the configuration is wrong, nothing was applied"),
        Rejected::RestartRequired { .. } => {
            (409, "restart_required", "these settings are fixed when the process starts")
        }
        Rejected::ChangedMeanwhile { .. } => (412, "changed_meanwhile", "somebody else was faster"),
        Rejected::FileEdited(_) => (409, "file_edited", "the file on disk is not what runs"),
        Rejected::UnknownPool(_) => (404, "unknown_pool", "no pool has this name"),
        Rejected::CannotEdit { why: CannotEdit::UnknownUpstream(_), .. } => {
            (404, "unknown_upstream", "no upstream has this address")
        }
        Rejected::CannotEdit { why: CannotEdit::AlreadyThere(_), .. } => {
            (409, "already_there", "the pool has this upstream already")
        }
        Rejected::CannotEdit { why: CannotEdit::Wrong { .. }, .. } => {
            (422, "wrong_value", "a value of the request is wrong")
        }
        Rejected::UnknownGeneration(_) => (404, "unknown_generation", "the history has no such generation"),
        Rejected::HandingOver => (503, "handing_over", "the process hands over to another one"),
        Rejected::Guarded => (409, "guarded", "a guarded change is under way"),
        Rejected::CannotPersist { .. } => (507, "cannot_persist", "the change cannot be written to the disk"),
    }
}

impl MistakeView {
    fn of(mistake: Mistake<'_>) -> Self {
        let Mistake { line, column, message, help } = mistake;
        Self { line, column, message: message.to_owned(), help: help.to_owned() }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, answer::line(&self, MEDIA_TYPE)).into_response()
    }
}
