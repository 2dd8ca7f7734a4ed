//! `[tracing]` and `log.access_filter`.

use super::{refused, valid};
use crate::config::TracingConfig;

const REST: &str = "[listeners.http]\naddress = \"127.0.0.1:8080\"\n[pools.app]\nupstreams = []\n";

fn tracing(keys: &str) -> TracingConfig {
    (*valid(&format!("[tracing]\n{keys}\n{REST}")).tracing.unwrap()).clone()
}

#[test]
fn requests_are_not_traced_unless_the_file_says_so() {
    assert_eq!(valid(REST).tracing, None);
}

#[test]
fn an_endpoint_is_enough() {
    let all = TracingConfig {
        endpoint: "http://127.0.0.1:4318".to_owned(),
        sample: 0.01,
        service_name: "evener".to_owned(),
    };
    assert_eq!(tracing("endpoint = \"http://127.0.0.1:4318/\""), all);
}

#[test]
fn an_endpoint_may_be_a_name_with_a_path() {
    assert_eq!(tracing("endpoint = \"http://otel.internal/base/\"").endpoint, "http://otel.internal/base");
    for whole in ["http://otel.internal", "http://[::1]", "http://[::1]:4318"] {
        assert_eq!(tracing(&format!("endpoint = \"{whole}\"")).endpoint, whole);
    }
}

#[test]
fn what_is_no_collector_is_refused_with_what_to_write() {
    for (endpoint, expected) in [
        ("127.0.0.1:4318", "write \"http://HOST:PORT\""),
        ("https://collector:4318", "run one on this machine"),
        ("http://user@collector:4318", "neither user nor query"),
        ("http://collector:4318/?a=b", "neither user nor query"),
        ("grpc://collector:4317", "no http:// in front"),
        ("", "write \"http://HOST:PORT\""),
        ("http://collector:99999", "write a port from 1 to 65535"),
        ("http://collector:0", "write a port from 1 to 65535"),
        ("http://collector:", "write a port from 1 to 65535"),
        ("http://collector:43x", "write a port from 1 to 65535"),
    ] {
        let said = refused(&format!("[tracing]\nendpoint = \"{endpoint}\"\n{REST}")).to_string();
        assert!(said.contains(expected), "{endpoint}: {said}");
    }
    let said = refused(&format!("[tracing]\nsample = 0.5\n{REST}")).to_string();
    assert!(said.contains("name the collector"), "{said}");
    let said =
        refused(&format!("[tracing]\nendpoint = \"http://a\"\nservice_name = \"\"\n{REST}")).to_string();
    assert!(said.contains("1 to 128 characters"), "{said}");
}

#[test]
fn a_filter_that_leaves_nothing_out_is_no_filter() {
    let said = refused(&format!("[log]\naccess_filter = {{ errors = true }}\n{REST}")).to_string();
    assert!(said.contains("{ sample = 0.01 }"), "{said}");
    let said = refused(&format!("[log]\naccess_filter = {{ sample = 2 }}\n{REST}")).to_string();
    assert!(said.contains("between 0 and 1"), "{said}");
}
