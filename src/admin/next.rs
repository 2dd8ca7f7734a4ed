//! Who would be picked next.

use std::sync::Arc;

use axum::extract::State;

use super::answer::Json;
use super::extract::{Parameters, Path, find_pool};
use super::problem::Problem;
use super::views::PickView;
use crate::control::Control;

/// `GET /v1/pools/{pool}/next?strategy=` — the next choice by the pool's strategy, or by another one.
pub(super) async fn show(
    State(control): State<Arc<Control>>,
    Path(pool): Path<String>,
    mut parameters: Parameters,
) -> Result<Json<PickView>, Problem> {
    let strategy = parameters.take_strategy()?;
    parameters.finish()?;
    let snapshot = control.runtime().snapshot();
    let now = control.runtime().now();
    Ok(Json(PickView::of(find_pool(&snapshot, &pool)?, strategy, usize::MAX, now)))
}
