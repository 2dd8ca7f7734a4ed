//! What another configuration would change, before it does.

use std::sync::Arc;

use axum::extract::State;
use serde::Serialize;

use super::answer::Json;
use super::extract::Parameters;
use super::problem::Problem;
use super::write::{Text, off_the_loop};
use crate::control::{Control, Plan};

/// `POST /v1/config/check` — whether this text would do, and what it would do. Changes nothing.
pub(super) async fn check(
    State(control): State<Arc<Control>>,
    parameters: Parameters,
    Text(text): Text,
) -> Result<Json<CheckedView>, Problem> {
    parameters.finish()?;
    // Host names are looked up, and a large pool's ring is laid out.
    let plan = off_the_loop(move || control.plan(&text)).await?;
    Ok(Json(plan.into()))
}

#[derive(Serialize)]
pub(super) struct CheckedView {
    /// Always true: a text that is wrong is a problem with its mistakes.
    valid: bool,
    summary: String,
    warnings: Vec<String>,
    plan: Plan,
}

impl From<Plan> for CheckedView {
    fn from(mut plan: Plan) -> Self {
        let (summary, warnings) = (std::mem::take(&mut plan.summary), std::mem::take(&mut plan.warnings));
        Self { valid: true, summary, warnings, plan }
    }
}
