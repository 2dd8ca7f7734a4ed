//! The side port: whatever is asked, it answers, in words that are JSON where it says so, and never by 500.

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use evener::config::{self, Config, check_members};
use evener::control::{Control, Start};
use evener::fuzzing::admin::{location_of, router};
use evener::runtime::Runtime;
use http::Request;
use tower::ServiceExt;

use crate::engines::block_on;

const TEXT: &str = r#"
    [listeners.http]
    address = "127.0.0.1:8080"
    [routes.users]
    hosts = ["api.example"]
    path_prefix = "/users"
    methods = ["GET"]
    headers = { "x-canary" = "1" }
    pool = "people"
    [routes.rest]
    split = [{ pool = "app", weight = 3 }, { pool = "people", weight = 1 }]
    [pools.app]
    upstreams = ["127.0.0.1:9001", { address = "[::1]:9002", weight = 3 }, { address = "unix:/run/app.sock", backup = true }]
    [pools.people]
    upstreams = ["127.0.0.1:9003"]
    health_check = { enabled = false }
"#;

static CONFIG: LazyLock<Config> = LazyLock::new(|| {
    let source = config::Source { name: String::new(), text: TEXT.into(), folder: PathBuf::new() };
    config::parse(&source, &|_| None).unwrap()
});

/// A request line without version, header lines, an empty line, a body.
pub fn run(bytes: &[u8]) {
    let Some((line, rest)) = crate::first_line(bytes) else { return };
    let Some(request) = request(line, rest) else { return };
    let start = Start::from_arguments(CONFIG.clone());
    let runtime = Arc::new(Runtime::new(start.config.clone(), start.generation, 0, None));
    let control = Arc::new(Control::new(runtime, start));
    // Nobody is probed here, and whoever waits for it is told.
    drop(control.take_probe_requests());
    let is_written = block_on(answer(control.clone(), request));
    if is_written {
        check_config(&control);
    }
    check_location(line);
}

fn request(line: &str, mut rest: &[u8]) -> Option<Request<Body>> {
    let (method, target) = line.split_once(' ')?;
    let mut request = Request::builder().method(method).uri(target);
    let mut has_host = false;
    while let Some((line, after)) = crate::first_line(rest) {
        rest = after;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(": ")?;
        has_host |= name.eq_ignore_ascii_case("host");
        request = request.header(name, value);
    }
    if !has_host {
        request = request.header("host", "localhost:9900");
    }
    request.body(Body::from(rest.to_vec())).ok()
}

/// Whether it was a write that was done.
async fn answer(control: Arc<Control>, request: Request<Body>) -> bool {
    let is_look = ["GET", "HEAD"].contains(&request.method().as_str());
    let response = router(control).oneshot(request).await.unwrap();
    let status = response.status();
    assert_ne!(status.as_u16(), 500, "{response:?}");
    let kind = response.headers().get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or("");
    let is_json = kind.ends_with("json") || kind.contains("json;");
    if kind != "text/event-stream" {
        let body =
            tokio::time::timeout(Duration::from_secs(5), to_bytes(response.into_body(), 1 << 22)).await;
        let body = body.expect("an answer that ends").unwrap();
        if is_json && !body.is_empty() {
            serde_json::from_slice::<serde_json::Value>(&body).expect("JSON");
        }
        assert!(!status.is_client_error() || is_look || is_json, "a refusal has words: {status}");
    }
    status.is_success() && !is_look
}

fn check_config(control: &Control) {
    let config = control.runtime().snapshot().config.clone();
    for pool in &config.pools {
        check_members(pool, &config.listeners).expect("what runs is possible");
    }
}

/// A location leads back to what it was made of.
fn check_location(address: &str) {
    let location = location_of("app", address);
    let segment = location.rsplit('/').next().unwrap();
    assert!(segment.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#/".contains(&byte)));
    let mut bytes = Vec::new();
    let mut rest = segment.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let decoded =
            (byte == b'%').then(|| u8::from_str_radix(std::str::from_utf8(&after[..2]).unwrap(), 16));
        bytes.push(decoded.map_or(byte, |decoded| decoded.unwrap()));
        rest = if byte == b'%' { &after[2..] } else { after };
    }
    assert_eq!(bytes, address.as_bytes());
}
