//! The door for `tests/fuzz`: the side port without a socket.

use std::sync::Arc;

use axum::Router;

use super::{routes, upstream_edit};
use crate::control::Control;

/// What answers on the side port.
pub fn router(control: Arc<Control>) -> Router {
    routes::router(control, |_, _| Ok(()))
}

/// Where an upstream is found.
pub fn location_of(pool: &str, address: &str) -> String {
    upstream_edit::location_of(pool, address)
}
