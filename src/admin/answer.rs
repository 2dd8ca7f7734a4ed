//! A view as the answer.

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CONTENT_TYPE, ETAG};
use serde::Serialize;

/// JSON that ends with its line, so that a shell's prompt stands below it.
pub(super) struct Json<T>(pub T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        line(&self.0, "application/json")
    }
}

/// One line of JSON under this media type.
pub(super) fn line(view: &impl Serialize, media_type: &'static str) -> Response {
    match serde_json::to_string(view) {
        Ok(text) => ([(CONTENT_TYPE, media_type)], text + "\n").into_response(),
        // Views are structs with text for keys: there is nothing in them that JSON cannot say.
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// A view of what has an entity tag.
pub(super) struct Tagged<T> {
    tag: String,
    view: T,
}

impl<T> Tagged<T> {
    pub(super) fn new(tag: String, view: T) -> Self {
        Self { tag, view }
    }

    /// Another view of the same.
    pub(super) fn map<U>(self, to: impl FnOnce(T) -> U) -> Tagged<U> {
        Tagged { tag: self.tag, view: to(self.view) }
    }
}

impl<T: Serialize> IntoResponse for Tagged<T> {
    fn into_response(self) -> Response {
        ([(ETAG, self.tag)], Json(self.view)).into_response()
    }
}
