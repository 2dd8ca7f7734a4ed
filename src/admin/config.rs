//! The configuration as a whole: its text, another text in its place.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use http::header::{CONTENT_TYPE, ETAG, VARY};
use serde::Serialize;

use super::accept::prefers;
use super::answer::Json;
use super::extract::Parameters;
use super::guarded;
use super::problem::Problem;
use super::write::{Applied, Text, Writer};
use crate::control::{Change, Control, Running, Source};

/// Media type of a configuration.
pub(super) const TOML: &str = "application/toml";

const JSON: &str = "application/json";

/// `GET /v1/config` — the file's text as it runs; as JSON by `Accept`.
///
/// The text is the operator's, byte for byte, so that it can be edited and sent back. What stands in it
/// literally is shown, secrets too: those belong elsewhere (`env:NAME`, `file:PATH`).
pub(super) async fn show(
    State(control): State<Arc<Control>>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    parameters.finish()?;
    let running = control.running();
    let tags = [(ETAG, control.tag_of(running.generation)), (VARY, "Accept".to_owned())];
    Ok(if prefers(&headers, JSON, &[TOML, JSON]) {
        (tags, Json(ConfigView::of(&control, &running))).into_response()
    } else {
        (tags, [(CONTENT_TYPE, TOML)], running.text.to_string()).into_response()
    })
}

/// `PUT /v1/config[?guard=60s&max_error_ratio=0.05&confirm=true]` — makes this the text of the file, and
/// runs it; all of it, or nothing.
pub(super) async fn replace(
    State(control): State<Arc<Control>>,
    writer: Writer,
    mut parameters: Parameters,
    Text(text): Text,
) -> Result<Response, Problem> {
    let bounds = guarded::bounds_in(&mut parameters)?;
    parameters.finish()?;
    if writer.condition.is_none() {
        return Err(without_condition());
    }
    match bounds {
        Some(bounds) => guarded::apply_guarded(control, writer, text, bounds).await,
        None => Ok(Applied(writer.apply(&control, Change::Replace(text)).await?).into_response()),
    }
}

fn without_condition() -> Problem {
    Problem::new(428, "precondition_required", "say which configuration this one replaces")
        .detail("the request has no `If-Match`")
        .help("GET /v1/config, and send its `ETag` in `If-Match`; or `If-Match: *` to replace whatever is there")
}

#[derive(Serialize)]
struct ConfigView {
    generation: u64,
    etag: String,
    /// The configuration file; null when started without one.
    path: Option<String>,
    /// The file's text.
    toml: String,
    /// The same, its tables as JSON.
    config: toml::Table,
    /// How many settings were changed at run time and differ from the file.
    overrides: usize,
}

impl ConfigView {
    fn of(control: &Control, running: &Running) -> Self {
        Self {
            generation: running.generation,
            etag: control.tag_of(running.generation),
            path: path_of(control),
            toml: running.text.to_string(),
            // It was read before it ran.
            config: running.text.parse().unwrap_or_default(),
            overrides: running.overrides.len(),
        }
    }
}

/// The configuration file, as it was named.
pub(super) fn path_of(control: &Control) -> Option<String> {
    match control.source() {
        Source::File(path) => Some(path.display().to_string()),
        Source::Arguments => None,
    }
}
