//! gRPC health checks, as `grpc.health.v1` has them.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use crate::rig::{Act, Evener, Modern, Setup, wait_until};

const SOON: Duration = Duration::from_secs(30);

fn checked(address: &str, more: &str) -> Evener {
    Evener::start(&text_of(address, more))
}

fn text_of(address: &str, more: &str) -> String {
    format!(
        "[pools.app]\nupstreams = [\"{address}\"]\nprotocol = \"http2\"\n\
         health_check = {{ grpc = true, interval = \"200ms\", fast_interval = \"100ms\", rise = 1, fall = 1{more} }}"
    )
}

fn upstream(evener: &Evener, address: &str) -> Value {
    evener.admin().json(&format!("/v1/pools/app/upstreams/{address}"))
}

fn wait_for(evener: &Evener, address: &str, health: &str, error: &str) {
    wait_until(SOON, || {
        let upstream = upstream(evener, address);
        let told = upstream["last_check"]["error"].as_str().unwrap_or_default().to_owned();
        upstream["health"] == health && told.contains(error)
    });
}

/// A server that gives this serving status, in these trailers.
fn saying(status: u8, trailers: Vec<(&'static str, &'static str)>) -> Modern {
    let message = Bytes::from(vec![0, 0, 0, 0, 2, 8, status]);
    Setup::http2(move |_| Act::Trailers(message.clone(), trailers.clone())).start()
}

#[test]
fn serving_is_well_and_the_call_is_one_of_grpc() {
    let origin = saying(1, vec![("grpc-status", "0")]);
    let evener = checked(&origin.address(), ", service = \"orders.v1.Orders\", headers = { x-own = \"1\" }");
    wait_for(&evener, &origin.address(), "up", "");
    let call = &origin.calls()[0];
    assert_eq!(
        (call.method.as_str(), call.uri.to_string()),
        ("POST", format!("http://{}/grpc.health.v1.Health/Check", origin.address()))
    );
    assert_eq!(
        (call.header("content-type"), call.header("te")),
        (Some("application/grpc"), Some("trailers"))
    );
    assert_eq!(call.header("x-own"), Some("1"));
    assert_eq!(call.body, [&b"\x00\x00\x00\x00\x12\x0a\x10"[..], b"orders.v1.Orders"].concat());
    let view = evener.admin().json("/v1/pools/app");
    assert_eq!(view["health_check"]["kind"], "grpc");
}

#[test]
fn anything_else_is_sick_with_its_reason() {
    let head_only = |status: &'static str| {
        let headers = vec![("grpc-status".to_owned(), status.to_owned())];
        Setup::http2(move |_| Act::Answer(200, headers.clone(), Bytes::new())).start()
    };
    let sick = [
        (saying(2, vec![("grpc-status", "0")]), "NOT_SERVING"),
        (saying(0, vec![("grpc-status", "0")]), "UNKNOWN"),
        (saying(3, vec![("grpc-status", "0")]), "SERVICE_UNKNOWN"),
        (saying(1, vec![("grpc-status", "14"), ("grpc-message", "later")]), "grpc-status 14: later"),
        (saying(1, vec![("x-other", "0")]), "not an answer"),
        (head_only("12"), "does not implement grpc.health.v1.Health"),
        (head_only("5"), "the server knows no service `orders`"),
        (Setup::http2(|_| Act::Answer(404, Vec::new(), "no".into())).start(), "status 404"),
        (Setup::http2(|_| Act::ok("not gRPC")).start(), "not an answer"),
        (Setup::http2(|_| Act::Reset(h2::Reason::INTERNAL_ERROR)).start(), "H2Error"),
    ];
    for (origin, error) in sick {
        let evener = checked(&origin.address(), ", service = \"orders\"");
        wait_for(&evener, &origin.address(), "down", error);
    }
}
