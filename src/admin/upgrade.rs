//! Another process in our place.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::HeaderValue;
use http::header::CONNECTION;

use super::answer::Json;
use super::extract::{Nothing, Parameters};
use super::problem::Problem;
use super::write::Writer;
use crate::control::{CannotUpgrade, Control, HandedOver, Hindrance, UPGRADE_TIMEOUT, UPGRADE_TIMEOUT_MAX};

/// `POST /v1/upgrade?timeout=` — starts the program anew, from the file that this process was started from,
/// and hands over to it. Which file cannot be said: who may ask for this must not choose what runs.
pub(super) async fn run(
    State(control): State<Arc<Control>>,
    writer: Writer,
    mut parameters: Parameters,
    _: Nothing,
) -> Result<Json<HandedOver>, Problem> {
    let timeout = parameters.take_duration("timeout", UPGRADE_TIMEOUT_MAX)?.unwrap_or(UPGRADE_TIMEOUT);
    parameters.finish()?;
    control.succession().ask(writer.author, timeout).await.map(Json).map_err(Problem::from)
}

impl From<CannotUpgrade> for Problem {
    fn from(cannot: CannotUpgrade) -> Self {
        let CannotUpgrade { kind, detail, help } = cannot;
        let (kind, title) = match kind {
            Hindrance::UnderWay => ("upgrade_under_way", "now is not the moment to hand over"),
            Hindrance::NotHere => ("cannot_upgrade", "a successor would not outlive this process"),
            Hindrance::Failed => {
                ("upgrade_failed", "the successor did not come to serve, this process goes on")
            }
        };
        Self::new(409, kind, title).detail(detail).help(help)
    }
}

/// While a successor serves, each answer here is the last on its connection; and the successor knows of
/// whatever the answer tells.
pub(super) async fn last_answer(
    State(control): State<Arc<Control>>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = next.run(request).await.into_response();
    if control.succession().is_handed_over() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        control.succession().flush().await;
    }
    response
}
