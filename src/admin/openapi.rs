//! The API, machine-readable.

use std::sync::LazyLock;

use axum::response::IntoResponse;
use http::header::CONTENT_TYPE;

/// `OpenAPI` 3.1, with the version of this program filled in.
pub(super) static DOCUMENT: LazyLock<String> =
    LazyLock::new(|| include_str!("openapi.json").replace("@VERSION@", env!("CARGO_PKG_VERSION")));

/// `GET /openapi.json`
pub(super) async fn show() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], DOCUMENT.as_str())
}
