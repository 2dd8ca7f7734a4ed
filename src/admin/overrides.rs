//! What was changed at run time and differs from the file.

use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;
use http::header::ETAG;
use serde::Serialize;
use serde_json::Value;

use super::answer::Json;
use super::extract::{Nothing, Parameters};
use super::problem::Problem;
use super::write::{Applied, Writer};
use crate::control::{Change, Control, Override};

/// `GET /v1/overrides`
pub(super) async fn list(
    State(control): State<Arc<Control>>,
    parameters: Parameters,
) -> Result<impl IntoResponse, Problem> {
    parameters.finish()?;
    let running = control.running();
    let overrides = running.overrides.iter().map(OverrideView::of).collect();
    Ok(([(ETAG, control.tag_of(running.generation))], Json(OverridesView { overrides })))
}

/// `DELETE /v1/overrides` — the file alone counts again.
pub(super) async fn drop_all(
    State(control): State<Arc<Control>>,
    writer: Writer,
    parameters: Parameters,
    _: Nothing,
) -> Result<Applied, Problem> {
    parameters.finish()?;
    writer.apply(&control, Change::DropOverrides).await.map(Applied)
}

#[derive(Serialize)]
struct OverridesView {
    overrides: Vec<OverrideView>,
}

#[derive(Serialize)]
struct OverrideView {
    pool: String,
    /// Null: it is about the pool as a whole.
    upstream: Option<String>,
    setting: &'static str,
    /// What holds.
    value: Value,
    /// What the file says; null: nothing.
    file: Option<Value>,
    by: String,
    at: String,
}

impl OverrideView {
    fn of(one: &Override) -> Self {
        Self {
            pool: one.pool.clone(),
            upstream: one.upstream.clone(),
            setting: one.setting.word(),
            value: one.value.clone(),
            file: one.file.clone(),
            by: one.by.clone(),
            at: one.at.clone(),
        }
    }
}
