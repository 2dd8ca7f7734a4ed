//! Reads the configuration file again.

use std::sync::Arc;

use axum::extract::State;

use super::extract::Nothing;
use super::problem::Problem;
use super::write::{Applied, Writer};
use crate::control::{Change, Control};

/// `POST /v1/reload`
pub(super) async fn run(
    State(control): State<Arc<Control>>,
    writer: Writer,
    _: Nothing,
) -> Result<Applied, Problem> {
    writer.apply(&control, Change::Reload).await.map(Applied)
}
