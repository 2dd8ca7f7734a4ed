//! The whole router, asked as a client would ask, on a runtime that was built from a small file.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use axum::routing::get;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, Request, Version};
use pingora::apps::ServerApp;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::watch;
use tokio::time::Instant;
use tower::ServiceExt;

use super::auth::{Access, Identity, Peer};
use super::connection::AdminApp;
use super::explain::HeadCheck;
use super::guard::{Door, guard};
use super::views::LiveView;
use super::{openapi, routes};
use crate::config::{self, Scope};
use crate::control::{Author, Change, Control, Happening, Start, Told};
use crate::health::{Health, Mode, Transition};
use crate::observe::{
    AdminRefusal, AttemptRecord, Detail, Facts, HeadText, HistogramSnapshot, Kept, Moment, Name, Reason,
};
use crate::runtime::{LastCheck, Pool, Runtime, Tiers, Upstream};

/// The check is the traffic's; plays in `tests/behaviour` have the real one.
const ANY_HEAD: HeadCheck = |_, _| Ok(());

const TWO_POOLS: &str = r#"
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
    strategy = "least_connections"
    upstreams = ["127.0.0.1:9001", { address = "[::1]:9002", weight = 3 }, { address = "unix:/run/app.sock", backup = true }]
    health_check = { path = "/healthz", headers = { authorization = "secret" } }
    [pools.people]
    upstreams = ["127.0.0.1:9003", { address = "127.0.0.1:9004", weight = 0 }]
    health_check = { enabled = false }
"#;

/// A token of each scope, named for it.
const TOKENS: &str = r#"
    [admin.tokens.read]
    scope = "read"
    env = "read_TOKEN"
    [admin.tokens.operate]
    scope = "operate"
    env = "operate_TOKEN"
    [admin.tokens.write]
    scope = "write"
    env = "write_TOKEN"
"#;

/// The secret of a token of [`TOKENS`].
fn secret(name: &str) -> String {
    format!("s3cret-of-those-who-{name}")
}

/// The value of `Authorization` of a token of [`TOKENS`].
fn bearer(name: &str) -> String {
    format!("Bearer {}", secret(name))
}

struct Api {
    router: Router,
    control: Arc<Control>,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Api {
    fn new(text: &str) -> Self {
        let source = config::Source { name: "evener.toml".into(), text: text.into(), folder: PathBuf::new() };
        let environment = |name: &str| name.strip_suffix("_TOKEN").map(secret);
        let (config, warnings) =
            config::parse_with_warnings(&source, &environment).unwrap_or_else(|report| panic!("{report}"));
        let loaded = config::Loaded { source, config, warnings };
        Self::running(Start::from_file("/etc/evener/evener.toml".into(), loaded).unwrap())
    }

    /// The same without a file, for changes: nothing is written to any disk.
    fn without_file(text: &str) -> Self {
        let source = config::Source { name: "evener.toml".into(), text: text.into(), folder: PathBuf::new() };
        let (config, _) =
            config::parse_with_warnings(&source, &|_| None).unwrap_or_else(|report| panic!("{report}"));
        Self::running(Start::from_arguments(config))
    }

    fn running(start: Start) -> Self {
        let runtime = Arc::new(Runtime::new(start.config.clone(), start.generation, 0, None));
        let control = Arc::new(Control::new(runtime, start));
        Self { router: routes::router(control.clone(), ANY_HEAD), control }
    }

    /// With every upstream that has a health check up.
    fn up(text: &str) -> Self {
        let api = Self::new(text);
        for pool in api.runtime().snapshot().pools() {
            pool.upstreams().iter().for_each(|upstream| observe(upstream, true));
        }
        api.runtime().readiness.set_listening();
        api.runtime().readiness.set_hearing();
        api.runtime().readiness.set_probed();
        api
    }

    /// With [`TOKENS`], and nobody who probes.
    fn guarded() -> Self {
        let api = Self::up(&format!("{TWO_POOLS}{TOKENS}"));
        drop(api.control.take_probe_requests());
        api
    }

    /// A GET from 10.0.0.`host`, with this `Authorization`.
    async fn get_from(&self, host: u8, path: &str, authorization: &str) -> Answer {
        let request =
            Request::builder().uri(path).header("host", "evener").header(AUTHORIZATION, authorization);
        let mut request = request.body(Body::empty()).unwrap();
        request.extensions_mut().insert(Peer(SocketAddr::from(([10, 0, 0, host], 1234))));
        self.send(request).await
    }

    fn runtime(&self) -> &Runtime {
        self.control.runtime()
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response: Response = self.router.clone().oneshot(request).await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        if headers.get("content-type").is_some_and(|kind| kind == "text/event-stream") {
            // It has no end.
            return Answer { status, headers, body: String::new() };
        }
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        Answer { status, headers, body: String::from_utf8(body.to_vec()).unwrap() }
    }

    async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", "127.0.0.1:9900");
        }
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        self.send(request.body(Body::from(body.to_owned())).unwrap()).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, &[], "").await
    }

    async fn post(&self, path: &str) -> Answer {
        self.ask(Method::POST, path, &[], "").await
    }

    /// The answer of a GET, which must be 200 with JSON that the document describes.
    async fn json(&self, path: &str) -> Value {
        self.get(path).await.expect(200).json()
    }

    /// Sends `requests` through the default route, as far as anyone here can tell.
    fn count_requests(&self, requests: u32, status: u16) {
        let snapshot = self.runtime().snapshot();
        let route = snapshot.routes().find(|route| route.config.name == "rest").unwrap();
        let pool = snapshot.pool_named("app").unwrap();
        for _ in 0..requests {
            let now = self.runtime().now();
            let mut chosen = pool.pick(now, 0, 0, &mut Tiers::default()).ok().unwrap();
            let upstream = &pool.upstreams()[chosen.index];
            route.metrics.begin();
            upstream.state.metrics.attempt_finished(Some(status));
            upstream.state.metrics.response_time(Duration::from_millis(4));
            pool.record_success(upstream, &mut chosen.lease, Some(Duration::from_millis(4)), now);
            route.metrics.finished(0, status, Duration::from_millis(5), 10, 100);
            route.metrics.end();
        }
    }

    fn set_mode(&self, pool: &str, index: usize, mode: Mode) {
        self.runtime().snapshot().pool_named(pool).unwrap().upstreams()[index].state.set_mode(mode);
    }
}

impl Answer {
    #[track_caller]
    fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.body);
        self
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The tail of the problem's type; and that it is one, whole.
    #[track_caller]
    fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.body);
        let problem = self.json();
        assert_fits(&problem, &schema("Problem"), "problem");
        assert_eq!(problem["status"], self.status);
        for member in ["title", "detail", "help"] {
            assert!(problem[member].as_str().is_some_and(|text| text.len() > 5), "{problem}");
        }
        problem["type"].as_str().unwrap().strip_prefix("urn:evener:problem:").unwrap().to_owned()
    }
}

fn observe(upstream: &Upstream, ok: bool) {
    let error = (!ok).then(|| "connection refused".to_owned());
    upstream.state.verdict.observe(ok, 1, 1);
    upstream.state.set_last_check(LastCheck {
        at: SystemTime::now(),
        latency: Duration::from_millis(2),
        error,
    });
}

fn document() -> Value {
    serde_json::from_str(&openapi::DOCUMENT).unwrap()
}

fn schema(name: &str) -> Value {
    document()["components"]["schemas"][name].clone()
}

/// Checks a value against the part of JSON Schema that the document uses.
#[track_caller]
fn assert_fits(value: &Value, schema: &Value, place: &str) {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.strip_prefix("#/components/schemas/").unwrap();
        return assert_fits(value, &self::schema(name), place);
    }
    if let Some(either) = schema["anyOf"].as_array() {
        let fitting = either.iter().find(|one| value.is_null() == (one["type"] == "null"));
        return assert_fits(value, fitting.unwrap_or(schema), place);
    }
    if let Some(known) = schema["enum"].as_array() {
        assert!(known.contains(value), "{place}: {value} is not one of {known:?}");
    }
    if let Some(least) = schema["minimum"].as_f64() {
        assert!(value.is_null() || value.as_f64() >= Some(least), "{place}: {value} < {least}");
    }
    let types = match &schema["type"] {
        Value::String(one) => vec![one.as_str()],
        Value::Array(many) => many.iter().filter_map(Value::as_str).collect(),
        _ => panic!("{place}: a schema without type: {schema}"),
    };
    let is = |kind: &&str| match *kind {
        "integer" => value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        other => panic!("{place}: unknown type {other}"),
    };
    assert!(types.iter().any(is), "{place}: {value} is not {types:?}");
    for item in value.as_array().into_iter().flatten() {
        assert_fits(item, &schema["items"], &format!("{place}[]"));
    }
    for (name, member) in value.as_object().into_iter().flatten() {
        let described = schema["properties"].get(name).unwrap_or(&schema["additionalProperties"]);
        assert!(described.is_object(), "{place}: `{name}` is not described");
        assert_fits(member, described, &format!("{place}.{name}"));
    }
    for name in schema["required"].as_array().into_iter().flatten().filter(|_| value.is_object()) {
        assert!(value.get(name.as_str().unwrap()).is_some(), "{place}: `{name}` is missing");
    }
}

/// Every operation of the document, as (path, method).
fn operations() -> Vec<(String, Method)> {
    let document = document();
    let paths = document["paths"].as_object().unwrap().iter();
    paths
        .flat_map(|(path, operations)| {
            let methods = operations.as_object().unwrap().keys();
            methods
                .map(|method| (path.clone(), method.to_ascii_uppercase().parse().unwrap()))
                .collect::<Vec<_>>()
        })
        .collect()
}

/// A path of the document with its variables filled in.
fn concrete(path: &str) -> String {
    path.replace("{pool}", "app")
        .replace("{address}", "127.0.0.1:9001")
        .replace("{generation}", "1")
        .replace("{request_id}", "abc")
        .replace("{file}", "dashboard.js")
}

#[test]
fn the_document_and_the_router_have_the_same_paths() {
    let routed: BTreeSet<String> = routes::index().into_iter().map(|(path, ..)| path.to_owned()).collect();
    let described: BTreeSet<String> = operations().into_iter().map(|(path, _)| path).collect();
    assert_eq!(routed, described);
}

#[tokio::test]
async fn the_document_and_the_router_have_the_same_methods() {
    let api = Api::up(TWO_POOLS);
    let mut described: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, method) in operations() {
        let methods = described.entry(path).or_default();
        methods.insert(method.to_string());
        methods.extend((method == Method::GET).then(|| Method::HEAD.to_string()));
    }
    for (path, expected) in described {
        let answer = api.ask(Method::TRACE, &concrete(&path), &[], "").await.expect(405);
        let allowed: BTreeSet<String> = answer.header("allow").split(',').map(str::to_owned).collect();
        assert_eq!(allowed, expected, "{path}");
        assert_eq!(answer.problem(), "wrong_method");
    }
}

#[tokio::test]
async fn every_answer_is_as_the_document_says() {
    let api = Api::up(TWO_POOLS);
    let idle = (Api::new(TWO_POOLS), "before the first request");
    api.count_requests(7, 200);
    api.count_requests(2, 503);
    let document = document();
    for (api, when) in [idle, (api, "after some")] {
        for (path, _) in operations().into_iter().filter(|(_, method)| method == Method::GET) {
            let answer = api.get(&concrete(&path)).await;
            let described = &document["paths"][&path]["get"]["responses"][answer.status.to_string()];
            assert!(described.is_object(), "{when} {path}: {} is not described", answer.status);
            assert_eq!(answer.header("cache-control"), "no-store", "{path}");
            let Some(schema) = described["content"]["application/json"].get("schema") else { continue };
            let answer = api.ask(Method::GET, &concrete(&path), &[("accept", "application/json")], "").await;
            assert_eq!(answer.header("content-type"), "application/json", "{path}");
            if path != "/openapi.json" {
                assert_fits(&answer.json(), schema, &format!("{when} {path}"));
            }
        }
    }
}

/// One with all that can be told, and one with as little as can be.
#[tokio::test]
async fn what_is_told_of_a_request_is_as_the_document_says() {
    let api = Api::up(TWO_POOLS);
    let snapshot = api.runtime().snapshot();
    let pool = snapshot.pool_named("app").unwrap();
    for moment in [Moment::Pick, Moment::Failure, Moment::Refusal] {
        let first = AttemptRecord { connected: Some(Duration::from_millis(1)), ..AttemptRecord::default() };
        let pick = pool.candidates(1, moment, Some(0), Duration::ZERO, &Tiers::default());
        let detail = Detail { attempts: vec![("127.0.0.1:9001".into(), first)], picks: vec![pick] };
        let facts = Facts {
            status: 502,
            reason: Some(Reason::UpstreamReset),
            generation: 1,
            attempts: 2,
            first: Some(first),
            client: Some([127, 0, 0, 1].into()),
            ..Facts::default()
        };
        api.runtime().records.keep(Kept::Failed, &facts, Some(Arc::new(detail)), |names| {
            names.put(Name::RequestId, "full");
            names.put(Name::Route, "rest");
            names.put(Name::Pool, "app");
            names.put_head(&HeadText::of("GET", "a.example", "/"));
        });
    }
    api.runtime()
        .records
        .keep(Kept::Latest, &Facts::default(), None, |names| names.put(Name::RequestId, "bare"));
    for (path, name) in
        [("/v1/explain/full", "Request"), ("/v1/explain/bare", "Request"), ("/v1/requests", "Requests")]
    {
        let told = api.get(path).await.expect(200).json();
        assert_fits(&told, &schema(name), path);
    }
    let full = api.get("/v1/explain/full").await.json();
    assert_eq!(full["route"]["why"], serde_json::json!(["it takes every host", "it takes every path"]));
    assert_eq!((full["same_id"].as_array().unwrap().len(), full["nobody"].is_object()), (2, true), "{full}");
}

#[tokio::test]
async fn a_request_keeps_its_time_when_the_clock_is_put_right() {
    let api = Api::up(TWO_POOLS);
    let records = &api.runtime().records;
    let year_later = Duration::from_secs(365 * 86_400);
    for (at, id) in [(SystemTime::UNIX_EPOCH, "before"), (SystemTime::UNIX_EPOCH + year_later, "after")] {
        records.note_clocks(at, Duration::ZERO);
        records.keep(Kept::Latest, &Facts::default(), None, |names| names.put(Name::RequestId, id));
    }
    let listed = api.get("/v1/requests").await.expect(200).json();
    for (place, id, time) in
        [(1, "before", "1970-01-01T00:00:00.000Z"), (0, "after", "1971-01-01T00:00:00.000Z")]
    {
        assert_eq!(listed["requests"][place]["time"], time, "{listed}");
        assert_eq!(api.get(&format!("/v1/explain/{id}")).await.expect(200).json()["time"], time);
    }
}

#[tokio::test]
async fn every_operation_and_response_of_the_document_refers_to_something() {
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let text = openapi::DOCUMENT.as_str();
    for reference in text.split("\"$ref\": \"#").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(document.pointer(reference).is_some(), "{reference}");
    }
    let identifiers: BTreeSet<_> =
        text.split("\"operationId\": \"").skip(1).map(|rest| rest.split('"').next()).collect();
    assert_eq!(identifiers.len(), operations().len());
}

#[tokio::test]
async fn readiness_follows_the_phase_and_liveness_does_not() {
    let api = Api::new(TWO_POOLS);
    for (readiness, status) in [(503, "starting"), (200, "ok"), (503, "draining")] {
        assert_eq!(api.get("/livez").await.expect(200).body, "ok\n");
        api.get("/readyz").await.expect(readiness);
        let health = api.get("/health").await.expect(200).json();
        assert_eq!(health["status"], status);
        assert_eq!(api.get("/health/ready").await.expect(readiness).json()["status"], status);
        match status {
            "starting" => {
                let up = |upstream: &Upstream| observe(upstream, true);
                api.runtime().snapshot().pools().flat_map(Pool::upstreams).for_each(up);
                api.runtime().readiness.set_listening();
                api.runtime().readiness.set_hearing();
                api.runtime().readiness.set_probed();
            }
            _ => api.runtime().readiness.set_draining(),
        }
    }
}

/// Its predecessor accepts on the same sockets until it does itself.
#[tokio::test]
async fn a_process_that_takes_over_is_as_ready_as_the_one_before() {
    let api = Api::new(TWO_POOLS);
    let readiness = &api.runtime().readiness;
    readiness.set_taking_over();
    readiness.set_hearing();
    api.get("/readyz").await.expect(503);
    readiness.set_probed();
    assert!(readiness.could_listen());
    for path in ["/readyz", "/health/ready"] {
        api.get(path).await.expect(200);
    }
    readiness.set_draining();
    api.get("/readyz").await.expect(503);
}

#[tokio::test]
async fn health_tells_a_weak_pool_from_a_dead_one() {
    let api = Api::up(TWO_POOLS);
    let snapshot = api.runtime().snapshot();
    let app = snapshot.pool_named("app").unwrap().upstreams();
    observe(&app[0], false);
    let health = api.json("/health").await;
    assert_eq!(health["status"], "degraded");
    assert_eq!(health["checks"]["pools"]["app"]["status"], "degraded");
    assert_eq!(health["checks"]["pools"]["people"]["status"], "ok", "weight 0 is wanted so");
    for upstream in app {
        observe(upstream, false);
    }
    assert_eq!(api.json("/health").await["checks"]["pools"]["app"]["status"], "down");
    api.set_mode("people", 0, Mode::Maintenance);
    assert_eq!(api.json("/health").await["status"], "down");
    api.get("/livez").await.expect(200);
    assert!(api.json("/health").await["system"]["memory_bytes"].as_u64() > Some(1_000_000));
}

#[tokio::test]
async fn the_status_says_what_runs() {
    let api = Api::up(TWO_POOLS);
    api.count_requests(3, 200);
    let status = api.json("/v1/status").await;
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["generation"], 1);
    assert_eq!(status["config"], "/etc/evener/evener.toml");
    assert_eq!(status["listeners"][0]["address"], "127.0.0.1:8080");
    assert_eq!(
        (&status["routes"], &status["pools"], &status["upstreams"]),
        (&2.into(), &2.into(), &5.into())
    );
    assert_eq!(status["totals"]["requests"], 3);
}

#[tokio::test]
async fn stats_add_up() {
    let api = Api::up(TWO_POOLS);
    api.count_requests(6, 200);
    api.count_requests(2, 500);
    api.runtime().metrics.refused(crate::observe::Reason::NoRoute);
    let stats = api.json("/v1/stats").await;
    let of = |list: &str, name: &str| {
        let found = stats[list].as_array().unwrap().iter().find(|it| it["name"] == name);
        found.unwrap().clone()
    };
    let (listener, route, pool) = (of("listeners", "http"), of("routes", "rest"), of("pools", "app"));
    for (figures, requests, errors) in
        [(&listener, 8, 2), (&route, 8, 2), (&pool, 8, 2), (&stats["totals"], 9, 2)]
    {
        assert_eq!(
            (&figures["requests"], &figures["errors"]),
            (&requests.into(), &errors.into()),
            "{figures}"
        );
    }
    assert_eq!(route["error_rate"], 0.25);
    assert_eq!(route["bytes"], serde_json::json!({"request": 80, "response": 800}));
    assert_eq!(route["latency_ms"]["avg"], 5.0);
    let attempts = pool["upstreams"].as_array().unwrap().iter().map(|it| it["requests"].as_u64().unwrap());
    assert_eq!(attempts.sum::<u64>(), 8);
    assert!(of("routes", "users")["latency_ms"]["avg"].is_null());
}

#[tokio::test]
async fn metrics_agree_with_the_stats() {
    let api = Api::up(TWO_POOLS);
    api.count_requests(5, 200);
    api.set_mode("app", 1, Mode::Drain);
    let answer = api.get("/metrics").await.expect(200);
    assert!(answer.header("content-type").starts_with("text/plain; version=0.0.4"), "{:?}", answer.headers);
    let sum = |start: &str| -> f64 {
        let samples = answer.body.lines().filter(|line| line.starts_with(start));
        samples.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    };
    for (series, expected) in [
        ("evener_requests_total{", 5.0),
        ("evener_upstream_requests_total{", 5.0),
        ("evener_upstream_up{", 5.0),
        // Neither the drained one, nor the backup, nor the one with weight 0.
        ("evener_upstream_eligible{", 2.0),
    ] {
        assert!((sum(series) - expected).abs() < f64::EPSILON, "{series} {}", answer.body);
    }
}

#[tokio::test]
async fn an_upstream_is_found_by_any_spelling_of_its_address() {
    let api = Api::up(TWO_POOLS);
    for (spelling, address) in [
        ("127.0.0.1:9001", "127.0.0.1:9001"),
        ("127.0.0.1%3A9001", "127.0.0.1:9001"),
        ("[::1]:9002", "[::1]:9002"),
        ("%5B::1%5D:9002", "[::1]:9002"),
        ("%5B0:0:0:0:0:0:0:1%5D:9002", "[::1]:9002"),
        ("unix:%2Frun%2Fapp.sock", "unix:/run/app.sock"),
    ] {
        let shown = api.json(&format!("/v1/pools/app/upstreams/{spelling}")).await;
        assert_eq!(shown["address"], address);
        assert_eq!(shown["pool"], "app");
    }
}

#[tokio::test]
async fn an_upstream_says_why_it_is_not_eligible() {
    let api = Api::up(TWO_POOLS);
    let snapshot = api.runtime().snapshot();
    let shown = api.json("/v1/pools/app/upstreams/127.0.0.1:9001").await;
    assert_eq!((&shown["eligible"], &shown["why_not"]), (&true.into(), &Value::Null));
    assert_eq!(
        (&shown["health"], &shown["state"], &shown["source"]),
        (&"up".into(), &"ready".into(), &"file".into())
    );

    observe(&snapshot.pool_named("app").unwrap().upstreams()[0], false);
    api.set_mode("app", 1, Mode::Drain);
    for (path, why_not) in [
        ("app/upstreams/127.0.0.1:9001", "down"),
        ("app/upstreams/[::1]:9002", "draining"),
        ("people/upstreams/127.0.0.1:9004", "weight_0"),
    ] {
        let shown = api.json(&format!("/v1/pools/{path}")).await;
        assert_eq!(shown["eligible"], false);
        assert_eq!(shown["why_not"], why_not);
        assert!(shown["why_not_detail"].as_str().unwrap().len() > 10);
    }
    let shown = api.json("/v1/pools/app/upstreams/127.0.0.1:9001").await;
    assert_eq!(
        (&shown["last_check"]["ok"], &shown["last_check"]["error"]),
        (&false.into(), &"connection refused".into())
    );
}

#[tokio::test]
async fn a_backup_is_eligible_when_nobody_else_is() {
    let api = Api::up(TWO_POOLS);
    let backup = "/v1/pools/app/upstreams/unix:%2Frun%2Fapp.sock";
    assert_eq!(api.json(backup).await["why_not"], "backup");
    assert_eq!(api.json("/v1/pools/app").await["eligible"], 2);
    api.set_mode("app", 0, Mode::Drain);
    api.set_mode("app", 1, Mode::Drain);
    assert_eq!(api.json(backup).await["eligible"], true);
    assert_eq!(api.json("/v1/pools/app/next").await["next"], "unix:/run/app.sock");
    assert_eq!(api.json("/v1/pools/app").await["eligible"], 1);
}

#[tokio::test]
async fn an_ejected_upstream_says_until_when() {
    let api = Api::up(TWO_POOLS);
    let snapshot = api.runtime().snapshot();
    let pool = snapshot.pool_named("app").unwrap();
    let upstream = &pool.upstreams()[0];
    for _ in 0..5 {
        let now = api.runtime().now();
        let ticket = upstream.state.ejection.admit(now).unwrap();
        let policy = pool.config.ejection.as_ref().unwrap();
        let _ = upstream.state.ejection.failed(ticket, now, policy, || true);
    }
    let shown = api.json("/v1/pools/app/upstreams/127.0.0.1:9001").await;
    assert_eq!(shown["why_not"], "ejected", "{shown}");
    let until = shown["ejected_until"].as_str().unwrap();
    assert!(until > super::views::now_utc().as_str() && until.ends_with('Z'), "{until}");
    assert_eq!(api.json("/health").await["checks"]["pools"]["app"]["status"], "degraded");
}

#[tokio::test]
async fn secrets_are_not_shown() {
    let api = Api::up(TWO_POOLS);
    // These are the operator's own text, byte for byte.
    let texts = ["/v1/config", "/v1/config/history/{generation}"];
    let reads = operations().into_iter().filter(|(_, method)| method == Method::GET);
    for (path, _) in reads.filter(|(path, _)| !texts.contains(&path.as_str())) {
        assert!(!api.get(&concrete(&path)).await.body.contains("secret\""), "{path}");
    }
}

#[tokio::test]
async fn the_next_pick_is_told_without_sending_anything() {
    let api = Api::up(TWO_POOLS);
    for strategy in ["", "?strategy=round_robin", "?strategy=consistent_hash", "?strategy=random_two"] {
        let next = api.json(&format!("/v1/pools/people/next{strategy}")).await;
        assert_eq!(next["next"], "127.0.0.1:9003", "{next}");
        assert_eq!(next["candidates"][1]["why_not"], "weight_0");
    }
    let pool = api.json("/v1/pools/people").await;
    assert_eq!((&pool["in_flight"], &pool["upstreams"][0]["requests"]), (&0.into(), &0.into()));
}

#[tokio::test]
async fn without_anybody_to_pick_the_reason_is_told() {
    let api = Api::up(TWO_POOLS);
    api.set_mode("people", 0, Mode::Drain);
    let next = api.json("/v1/pools/people/next").await;
    assert_eq!((&next["next"], &next["reason"]), (&Value::Null, &"no_eligible_upstream".into()));
    assert_eq!(next["candidates"][0]["why_not"], "draining");
    let answer = api.get("/api/infrastructure/load-balancer/next-server?pool=people").await.expect(503);
    assert_eq!(answer.problem(), "no_eligible_upstream");
}

#[tokio::test]
async fn explain_says_why_this_route_and_not_the_others() {
    let api = Api::up(TWO_POOLS);
    let found = api.json("/v1/explain?host=API.example:443&path=/users/7%3Fid=1&header=x-canary:%201").await;
    assert_eq!(
        found["request"],
        serde_json::json!({"host": "api.example", "method": "GET", "path": "/users/7"})
    );
    assert_eq!(found["route"]["name"], "users");
    assert_eq!(found["route"]["why"].as_array().unwrap().len(), 4, "{found}");
    assert_eq!(
        (&found["pools"][0]["pool"], &found["pools"][0]["next"]),
        (&"people".into(), &"127.0.0.1:9003".into())
    );
    assert_eq!(found["other_routes"][0]["why_not"], "less_specific");

    for (query, why_not) in [
        ("host=other.example&path=/users", "host"),
        ("host=api.example&path=/usersx", "path"),
        ("host=api.example&path=/users&method=POST", "method"),
        ("host=api.example&path=/users", "header"),
        ("host=api.example&path=/users&header=x-canary:2", "header"),
    ] {
        let found = api.json(&format!("/v1/explain?{query}")).await;
        assert_eq!(found["route"]["name"], "rest");
        assert_eq!(found["other_routes"][0]["why_not"], why_not, "{query}");
        assert_eq!((&found["pools"][0]["share"], &found["pools"][1]["share"]), (&0.75.into(), &0.25.into()));
    }
}

#[tokio::test]
async fn explain_says_when_no_route_takes_the_request() {
    let api = Api::up(
        "[listeners.http]\naddress = \"127.0.0.1:8080\"\n[routes.a]\nhosts = [\"a.example\"]\npool = \"app\"\n\
         [pools.app]\nupstreams = [\"127.0.0.1:9001\"]",
    );
    let none = api.json("/v1/explain?host=b.example").await;
    assert_eq!((&none["route"], &none["reason"]), (&Value::Null, &"no_route".into()));
    assert_eq!(none["pools"], serde_json::json!([]));
    assert_fits(&none, &schema("Explanation"), "explanation");

    let router = routes::router(api.control.clone(), |_, _| Err((Reason::HeadTooLarge, "too long")));
    let none = Api { router, control: api.control }.json("/v1/explain?host=a.example").await;
    assert_eq!((&none["status"], &none["detail"]), (&431.into(), &"too long".into()));
    assert_eq!((&none["route"], &none["other_routes"]), (&Value::Null, &serde_json::json!([])));
    assert_fits(&none, &schema("Explanation"), "explanation");
}

#[tokio::test]
async fn what_is_not_there_is_a_problem() {
    let api = Api::up(TWO_POOLS);
    for (path, kind) in [
        ("/v1", "unknown_path"),
        ("/assets/nothing.js", "unknown_asset"),
        ("/v1/nothing", "unknown_path"),
        ("/v1/pools/", "unknown_path"),
        ("/livez/", "unknown_path"),
        ("/v1/pools/nobody", "unknown_pool"),
        ("/v1/pools/nobody/next", "unknown_pool"),
        ("/v1/pools/nobody/upstreams/127.0.0.1:9001", "unknown_pool"),
        ("/v1/pools/app/upstreams/127.0.0.1:9", "unknown_upstream"),
        ("/v1/pools/app/upstreams/nonsense", "unknown_upstream"),
        ("/api/infrastructure/load-balancer/status?pool=nobody", "unknown_pool"),
    ] {
        assert_eq!(api.get(path).await.expect(404).problem(), kind, "{path}");
    }
    assert_eq!(api.post("/v1/pools/nobody/health-check").await.expect(404).problem(), "unknown_pool");
}

#[tokio::test]
async fn a_wrong_parameter_is_a_problem_that_names_the_right_one() {
    let api = Api::up(TWO_POOLS);
    for (path, help) in [
        ("/v1/explain?pth=/users", "did you mean `path`?"),
        ("/v1/explain?path=users", "path=/users"),
        ("/v1/explain?method=G%20T", "GET or POST"),
        ("/v1/explain?header=x-canary", "name:value"),
        ("/v1/explain?header=x%20y:1", "name:value"),
        ("/v1/explain?host=a&host=b", "once"),
        ("/v1/pools/app/next?strategy=least_conn", "did you mean `least_connections`?"),
        ("/v1/pools/app/next?strategy=qqq", "round_robin, least_connections"),
        ("/v1/pools/%FF", "percent-encode"),
    ] {
        let answer = api.get(path).await.expect(400);
        assert_eq!(answer.problem(), "bad_parameter", "{path}");
        assert!(answer.json()["help"].as_str().unwrap().contains(help), "{path}: {}", answer.body);
    }
}

#[tokio::test]
async fn head_is_answered_where_get_is() {
    let api = Api::up(TWO_POOLS);
    for (path, _) in operations().into_iter().filter(|(_, method)| method == Method::GET) {
        // There is nothing yet at some of them.
        let status = api.get(&concrete(&path)).await.status;
        let answer = api.ask(Method::HEAD, &concrete(&path), &[], "").await.expect(status);
        assert_eq!(answer.body, "", "{path}");
        assert_ne!(answer.header("content-type"), "", "{path}");
    }
}

#[tokio::test]
async fn only_names_of_this_machine_are_answered() {
    let api = Api::up(TWO_POOLS);
    for host in ["localhost", "127.0.0.1:1", "[::1]:9900"] {
        api.ask(Method::GET, "/livez", &[("host", host)], "").await.expect(200);
    }
    for host in ["evil.example", "", "10.0.0.1", "localhost.evil.example:9900"] {
        let answer = api.ask(Method::GET, "/livez", &[("host", host)], "").await.expect(403);
        assert_eq!(answer.problem(), "foreign_host");
        assert_eq!(answer.header("cache-control"), "no-store");
    }
    let hosts = [("host", "localhost"), ("host", "evil.example")];
    api.ask(Method::GET, "/livez", &hosts, "").await.expect(403);
    api.ask(Method::GET, "http://evil.example/livez", &[("host", "localhost")], "").await.expect(403);
    api.ask(Method::GET, "http://localhost:9900/livez", &[("host", "evil.example")], "").await.expect(403);
    api.ask(Method::GET, "http://localhost:9900/livez", &[], "").await.expect(200);
}

#[tokio::test]
async fn a_request_without_host_is_refused_unless_it_is_too_old_to_have_one() {
    let api = Api::up(TWO_POOLS);
    let request = |version| Request::builder().uri("/livez").version(version).body(Body::empty()).unwrap();
    assert_eq!(api.send(request(Version::HTTP_11)).await.expect(403).problem(), "foreign_host");
    api.send(request(Version::HTTP_10)).await.expect(200);
}

#[tokio::test]
async fn writes_from_other_sites_are_refused() {
    let api = Api::up(TWO_POOLS);
    let path = "/v1/pools/people/health-check";
    for headers in [
        [("origin", "http://evil.example")].as_slice(),
        &[("origin", "null")],
        &[("origin", "https://127.0.0.1:9900")],
        &[("origin", "http://127.0.0.1:3000")],
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "same-site")],
        &[("origin", "http://127.0.0.1:9900"), ("sec-fetch-site", "cross-site")],
    ] {
        assert_eq!(api.ask(Method::POST, path, headers, "").await.expect(403).problem(), "cross_site");
    }
    // The second is the dashboard behind a proxy that speaks TLS.
    for scheme in ["http", "https"] {
        let origin = format!("{scheme}://127.0.0.1:9900");
        let ours = [("origin", origin.as_str()), ("sec-fetch-site", "same-origin")];
        api.ask(Method::POST, path, &ours, "").await.expect(409);
    }
    api.ask(Method::GET, "/livez", &[("sec-fetch-site", "cross-site")], "").await.expect(200);
}

#[tokio::test]
async fn a_body_that_says_something_is_not_ignored() {
    let api = Api::up(TWO_POOLS);
    let path = "/v1/pools/people/health-check";
    let json = [("content-type", "application/json; charset=utf-8")];
    api.ask(Method::POST, path, &json, " {} ").await.expect(409);
    assert_eq!(api.ask(Method::POST, path, &json, "{\"a\":1}").await.expect(422).problem(), "unknown_member");
    let form = [("content-type", "application/x-www-form-urlencoded")];
    assert_eq!(api.ask(Method::POST, path, &form, "a=1").await.expect(415).problem(), "not_json");
    assert_eq!(api.ask(Method::POST, path, &[], "{}").await.expect(415).problem(), "not_json");
    let large = " ".repeat(70_000);
    assert_eq!(api.ask(Method::POST, path, &json, &large).await.expect(413).problem(), "body_too_large");
}

#[tokio::test]
async fn a_check_on_demand_waits_for_the_probes() {
    let api = Api::up(TWO_POOLS);
    let mut requests = api.control.take_probe_requests().unwrap();
    let runtime = api.control.runtime().clone();
    let prober = tokio::spawn(async move {
        for _ in 0..2 {
            let request = requests.recv().await.unwrap();
            assert_eq!(request.pool, "app");
            observe(&runtime.snapshot().pool_named("app").unwrap().upstreams()[0], false);
            request.done.send(()).unwrap();
        }
    });
    let pool = api.post("/v1/pools/app/health-check").await.expect(200).json();
    assert_fits(&pool, &schema("Pool"), "pool");
    assert_eq!(
        (&pool["upstreams"][0]["health"], &pool["upstreams"][1]["health"]),
        (&"down".into(), &"up".into())
    );
    let platform = api.post("/api/infrastructure/load-balancer/health-check").await.expect(200).json();
    assert_fits(&platform, &schema("Balancer"), "balancer");
    assert_eq!(platform["healthyServers"], 2);
    prober.await.unwrap();

    assert_eq!(api.post("/v1/pools/app/health-check").await.expect(503).problem(), "not_probing");
    assert_eq!(api.post("/v1/pools/people/health-check").await.expect(409).problem(), "health_check_off");
}

#[tokio::test]
async fn the_platforms_paths_tell_the_same_in_their_words() {
    let api = Api::up(TWO_POOLS);
    api.count_requests(4, 200);
    let status = api.json("/api/infrastructure/load-balancer/status").await;
    assert_eq!((&status["pool"], &status["strategy"]), (&"app".into(), &"least_connections".into()));
    assert_eq!(status["servers"][1]["url"], "http://[::1]:9002");
    assert_eq!((&status["totalServers"], &status["healthyServers"]), (&3.into(), &3.into()));
    let people = api.json("/api/infrastructure/load-balancer/status?pool=people").await;
    assert_eq!(people["servers"][0]["averageResponseTime"], Value::Null);
    let next = api.json("/api/infrastructure/load-balancer/next-server?strategy=round_robin").await;
    assert_eq!(next["strategy"], "round_robin");
    assert!(next["server"].as_str().unwrap().starts_with("http://"), "{next}");
    assert_eq!(api.json("/api/infrastructure/stats").await["requests"], 4);
    let health = api.json("/api/monitoring/health").await;
    assert_eq!((&health["app"]["requests"], &health["app"]["avgResponseTime"]), (&4.into(), &5.0.into()));
    let metrics = api.json("/api/monitoring/metrics").await;
    let rest = metrics["endpoints"].as_array().unwrap().iter().find(|it| it["endpoint"] == "rest").unwrap();
    assert_eq!((&rest["count"], &rest["total"], &rest["avg"]), (&4.into(), &20.0.into(), &5.0.into()));
}

#[test]
fn the_document_and_the_index_want_the_same_of_those_who_ask() {
    let document = document();
    for (path, access, _) in routes::index() {
        for (_, method) in operations().into_iter().filter(|(described, _)| *described == path) {
            let operation = &document["paths"][path][method.as_str().to_ascii_lowercase()];
            let needed = access.scope_for(&method).map(Scope::word);
            assert_eq!(operation["x-evener-scope"].as_str(), needed, "{method} {path}");
            assert_eq!(operation["security"].is_array(), needed.is_none(), "{method} {path}");
            for status in ["401", "429"] {
                assert_eq!(operation["responses"][status].is_object(), needed.is_some(), "{method} {path}");
            }
        }
    }
}

#[tokio::test]
async fn each_scope_opens_what_it_says_and_nothing_more() {
    let api = Api::guarded();
    let index = routes::index();
    for (path, method) in operations() {
        let (_, access, _) = index.iter().find(|(routed, ..)| *routed == path).unwrap();
        let needed = access.scope_for(&method);
        let without = api.ask(method.clone(), &concrete(&path), &[], "").await;
        assert_eq!(without.status == 401, needed.is_some(), "{method} {path}");
        if needed.is_some() {
            assert_eq!(without.problem(), "unauthorized");
            assert_eq!(without.header("www-authenticate"), "Bearer");
            assert_eq!(without.header("cache-control"), "no-store");
        }
        for scope in Scope::ALL {
            let token = bearer(scope.word());
            let answer = api.ask(method.clone(), &concrete(&path), &[("authorization", &token)], "").await;
            assert_ne!(answer.status, 401, "{method} {path}");
            assert_eq!(answer.status == 403, Some(scope) < needed, "{scope:?} {method} {path}");
        }
    }
}

#[tokio::test]
async fn whoever_may_not_is_told_what_is_needed_and_what_they_have() {
    let api = Api::guarded();
    let path = "/v1/pools/app/health-check";
    let answer = api.ask(Method::POST, path, &[("authorization", &bearer("read"))], "").await.expect(403);
    assert_eq!(answer.problem(), "insufficient_scope");
    assert_eq!(answer.header("www-authenticate"), "Bearer error=\"insufficient_scope\", scope=\"operate\"");
    assert_eq!(answer.json()["detail"], "this needs the scope `operate`, and token `read` has `read`");
    assert_eq!(api.runtime().metrics.admin_refusals(AdminRefusal::Forbidden), 1);
}

/// A path that is not in the index is nobody's to look at, and no method is forgotten.
#[tokio::test]
async fn what_does_not_exist_is_guarded_too() {
    let api = Api::guarded();
    api.get("/v1/nothing").await.expect(401);
    api.post("/livez/more").await.expect(401);
    let write = [("authorization", &*bearer("write"))];
    assert_eq!(api.ask(Method::GET, "/v1/nothing", &write, "").await.expect(404).problem(), "unknown_path");
    let read = [("authorization", &*bearer("read"))];
    for method in [Method::DELETE, Method::PUT, Method::PATCH, Method::TRACE] {
        api.ask(method.clone(), "/v1/status", &[], "").await.expect(401);
        api.ask(method.clone(), "/v1/status", &read, "").await.expect(403);
        api.ask(method, "/v1/status", &write, "").await.expect(405);
    }
}

#[tokio::test]
async fn a_wrong_token_is_refused_and_never_repeated() {
    let api = Api::guarded();
    for (host, authorization) in (0..).zip([
        "Bearer s3cret-of-nobody",
        "Basic s3cret",
        "Bearer",
        "s3cret",
        "Bearer s3cret-of-those-who-rea",
    ]) {
        let answer = api.get_from(host, "/v1/status", authorization).await.expect(401);
        assert_eq!(answer.problem(), "unauthorized");
        assert_eq!(answer.header("www-authenticate"), "Bearer error=\"invalid_token\"");
        assert!(!format!("{:?}{}", answer.headers, answer.body).contains("s3cret"), "{}", answer.body);
    }
    assert_eq!(api.runtime().metrics.admin_refusals(AdminRefusal::Unauthorized), 5);
}

#[tokio::test]
async fn after_some_wrong_tokens_an_address_is_not_listened_to() {
    let api = Api::guarded();
    for _ in 0..super::brake::FAILURES_MAX {
        api.get_from(1, "/v1/status", "Bearer s3cret-of-nobody").await.expect(401);
    }
    for authorization in ["Bearer s3cret-of-nobody", &bearer("write")] {
        let answer = api.get_from(1, "/v1/status", authorization).await.expect(429);
        assert_eq!(answer.problem(), "too_many_failures");
        let wait: u64 = answer.header("retry-after").parse().unwrap();
        assert!((1..=60).contains(&wait), "{wait}");
    }
    api.get_from(1, "/livez", &bearer("write")).await.expect(200);
    api.get_from(2, "/v1/status", &bearer("read")).await.expect(200);
    assert_eq!(api.runtime().metrics.admin_refusals(AdminRefusal::TooManyFailures), 2);
}

/// Who brings none is no guesser, or else a browser's first look would lock its owner out.
#[tokio::test]
async fn requests_without_a_token_are_not_held_against_an_address() {
    let api = Api::guarded();
    for _ in 0..20 {
        api.get("/v1/status").await.expect(401);
    }
    api.ask(Method::GET, "/v1/status", &[("authorization", &bearer("read"))], "").await.expect(200);
}

#[tokio::test]
async fn with_a_token_any_host_will_do_but_no_other_site() {
    let api = Api::guarded();
    let token = bearer("write");
    for host in ["lb.example:9900", "10.0.0.7", "localhost"] {
        let headers = [("host", host), ("authorization", &*token)];
        api.ask(Method::GET, "/v1/status", &headers, "").await.expect(200);
        api.ask(Method::POST, "/v1/pools/people/health-check", &headers, "").await.expect(409);
        for (name, value) in [("origin", "http://evil.example"), ("sec-fetch-site", "cross-site")] {
            let headers = [headers[0], headers[1], (name, value)];
            let answer = api.ask(Method::POST, "/v1/pools/people/health-check", &headers, "").await;
            assert_eq!(answer.expect(403).problem(), "cross_site");
        }
    }
    let hosts = [("host", "localhost"), ("host", "evil.example"), ("authorization", &*token)];
    assert_eq!(api.ask(Method::GET, "/v1/status", &hosts, "").await.expect(403).problem(), "foreign_host");
}

#[tokio::test]
async fn no_secret_is_shown_to_whoever_may_look() {
    let api = Api::guarded();
    for (path, _) in operations().into_iter().filter(|(_, method)| method == Method::GET) {
        let answer = api.ask(Method::GET, &concrete(&path), &[("authorization", &bearer("read"))], "").await;
        assert!(!answer.body.contains("s3cret"), "{path}");
    }
    assert!(!format!("{:?}", api.runtime().snapshot().config).contains("s3cret"));
}

#[tokio::test]
async fn a_handler_can_know_who_asks() {
    for (text, name, scope) in [
        (TWO_POOLS.to_owned(), "loopback", Scope::Write),
        (format!("{TWO_POOLS}{TOKENS}"), "read", Scope::Read),
    ] {
        let control = Api::up(&text).control;
        let index = [("/who", Access::Guarded { operate: &[] })];
        let door = Arc::new(Door::new(control.clone(), index.into_iter()));
        let who = |identity: Identity| async move { format!("{identity:?}") };
        let router = Router::new().route("/who", get(who)).layer(from_fn_with_state(door, guard));
        let api = Api { router, control };
        let request = Request::builder().uri("/who").header("host", "localhost");
        let mut request = request.header(AUTHORIZATION, bearer("read")).body(Body::empty()).unwrap();
        let peer = SocketAddr::from(([127, 0, 0, 1], 1234));
        request.extensions_mut().insert(Peer(peer));
        let expected = Identity { name: name.into(), scope, peer };
        assert_eq!(api.send(request).await.expect(200).body, format!("{expected:?}"));
    }
}

const FIRST: &str = "/v1/pools/app/upstreams/127.0.0.1:9001";

impl Api {
    async fn write(&self, method: Method, path: &str, json: &str) -> Answer {
        self.ask(method, path, &[("content-type", "application/json")], json).await
    }

    fn generation(&self) -> u64 {
        self.runtime().snapshot().generation
    }
}

/// The answer of each write is as the document says, and says the same as a look afterwards.
#[tokio::test]
async fn every_answer_to_a_write_is_as_the_document_says() {
    let api = Api::without_file(TWO_POOLS);
    let many = "/v1/pools/app/upstreams";
    let whole = r#"{"upstreams": ["127.0.0.1:9001", {"address": "127.0.0.1:9005", "max_connections": 4}]}"#;
    let document = document();
    for (method, described, path, json, status) in [
        (Method::PATCH, "/v1/pools/{pool}", "/v1/pools/app", r#"{"strategy": "random_two"}"#, 200),
        (Method::POST, "/v1/pools/{pool}/upstreams", many, r#""127.0.0.1:9005""#, 201),
        (Method::POST, "/v1/pools/{pool}/upstreams", many, r#"[{"address": "http://127.0.0.1:9006"}]"#, 201),
        (Method::PUT, "/v1/pools/{pool}/upstreams", many, whole, 200),
        (
            Method::PATCH,
            "/v1/pools/{pool}/upstreams/{address}",
            FIRST,
            r#"{"weight": 2, "state": "drain"}"#,
            200,
        ),
    ] {
        let answer = api.write(method.clone(), path, json).await.expect(status);
        let operation = &document["paths"][described][method.as_str().to_ascii_lowercase()];
        let schema = &operation["responses"][status.to_string()]["content"]["application/json"]["schema"];
        let mut said = answer.json();
        assert_fits(&said, schema, path);
        assert_eq!(said["applied"]["generation"], api.generation(), "{path}");
        assert_eq!(said["applied"]["persisted"], false);
        said.as_object_mut().unwrap().remove("applied");
        let seen = api.get(path).await.expect(200);
        assert_eq!(answer.header("etag"), seen.header("etag"));
        if path != many {
            assert_eq!(said, seen.json());
        }
    }
    let answer = api.write(Method::DELETE, FIRST, "").await.expect(200);
    assert_fits(&answer.json(), &schema("Removed"), "removed");
    let body =
        r#"{"servers": ["http://127.0.0.1:9007"], "strategy": "consistent_hash", "hash": {"path": true}}"#;
    let path = "/api/infrastructure/load-balancer/initialize";
    let answer = api.write(Method::POST, path, body).await.expect(200).json();
    assert_fits(&answer, &schema("Balancer"), "balancer");
    assert_eq!((&answer["pool"], &answer["strategy"]), (&"app".into(), &"consistent_hash".into()));
    let drained = api.post("/v1/pools/app/upstreams/127.0.0.1:9007/drain").await.expect(200);
    assert_fits(&drained.json(), &schema("Drain"), "drain");
    assert_eq!(drained.json()["safe_to_stop"], true);
}

#[tokio::test]
async fn who_says_what_an_upstream_is_like_is_told() {
    let api = Api::without_file(TWO_POOLS);
    let second = "/v1/pools/app/upstreams/[::1]:9002";
    assert_eq!(api.json(FIRST).await["source"], "arguments");
    api.write(Method::PATCH, FIRST, r#"{"weight": 7}"#).await.expect(200);
    assert_eq!(api.json(FIRST).await["source"], "override");
    assert_eq!(api.json(second).await["source"], "arguments");
    api.write(Method::PATCH, FIRST, r#"{"weight": 1}"#).await.expect(200);
    assert_eq!(api.json(FIRST).await["source"], "arguments", "as it was");
}

#[tokio::test]
async fn what_changes_nothing_is_no_change() {
    let api = Api::without_file(TWO_POOLS);
    let tag = api.get("/v1/pools/app").await.header("etag").to_owned();
    for (path, json) in [
        (FIRST, r#"{"weight": 1, "state": "ready"}"#),
        ("/v1/pools/app", r#"{"strategy": "least_connections"}"#),
    ] {
        let answer = api.write(Method::PATCH, path, json).await.expect(200);
        assert_eq!((&answer.json()["applied"]["changed"], answer.header("etag")), (&false.into(), &*tag));
    }
    assert_eq!(api.generation(), 1);
}

const MANY: &str = "/v1/pools/app/upstreams";
const INITIALIZE: &str = "/api/infrastructure/load-balancer/initialize";

/// Method, path, body; then status, tail of the problem's type, and part of its help.
type Refused = (Method, &'static str, &'static str, u16, &'static str, &'static str);

static REFUSED: &[Refused] = &[
    (
        Method::PATCH,
        "/v1/pools/nobody",
        r#"{"strategy": "round_robin"}"#,
        404,
        "unknown_pool",
        "GET /v1/pools",
    ),
    (Method::PATCH, "/v1/pools/app", "{}", 422, "bad_body", "/openapi.json"),
    (
        Method::PATCH,
        "/v1/pools/app",
        r#"{"strategy": "least_conn"}"#,
        422,
        "wrong_value",
        "did you mean `least_connections`?",
    ),
    (Method::PATCH, "/v1/pools/app", r#"{"strategy": "consistent_hash"}"#, 422, "wrong_value", "client_ip"),
    (
        Method::PATCH,
        "/v1/pools/app",
        r#"{"strategy": "random_two", "hash": {"path": true}}"#,
        422,
        "wrong_value",
        "leave `hash` out",
    ),
    (
        Method::PATCH,
        "/v1/pools/app",
        r#"{"strategy": "consistent_hash", "hash": {"ip": true}}"#,
        422,
        "wrong_value",
        "client_ip",
    ),
    (Method::PATCH, "/v1/pools/app", r#"{"strategy": 5}"#, 422, "bad_body", "/openapi.json"),
    (Method::PATCH, FIRST, "{}", 422, "wrong_value", "say `weight`"),
    (Method::PATCH, FIRST, r#"{"weight": 1001}"#, 422, "wrong_value", "0 to 1000"),
    (Method::PATCH, FIRST, r#"{"weight": -1}"#, 422, "bad_body", "/openapi.json"),
    (Method::PATCH, FIRST, r#"{"weight": "5"}"#, 422, "bad_body", "/openapi.json"),
    (Method::PATCH, FIRST, r#"{"wieght": 5}"#, 422, "bad_body", "/openapi.json"),
    (Method::PATCH, FIRST, r#"{"state": "maintenence"}"#, 422, "wrong_value", "did you mean `maintenance`?"),
    (Method::PATCH, FIRST, "weight: 5", 422, "bad_body", "/openapi.json"),
    (
        Method::PATCH,
        "/v1/pools/app/upstreams/127.0.0.1:9",
        r#"{"weight": 5}"#,
        404,
        "unknown_upstream",
        "the port must match",
    ),
    (
        Method::PATCH,
        "/v1/pools/app/upstreams/localhost:9001",
        r#"{"weight": 5}"#,
        404,
        "unknown_upstream",
        "their name was resolved to",
    ),
    (
        Method::PATCH,
        "/v1/pools/nobody/upstreams/127.0.0.1:9001",
        r#"{"weight": 5}"#,
        404,
        "unknown_pool",
        "GET /v1/pools",
    ),
    (
        Method::DELETE,
        "/v1/pools/app/upstreams/127.0.0.1:9",
        "",
        404,
        "unknown_upstream",
        "the port must match",
    ),
    (Method::DELETE, FIRST, r#"{"really": true}"#, 422, "unknown_member", "leave the body out"),
    (Method::POST, MANY, r#""127.0.0.1:9001""#, 409, "already_there", "PATCH it"),
    (Method::POST, MANY, "[]", 422, "wrong_value", "at least one"),
    (Method::POST, MANY, r#""127.0.0.1:8080""#, 422, "wrong_value", "its port differs from the listener's"),
    (Method::POST, MANY, r#""127.0.0.1""#, 422, "wrong_value", "127.0.0.1:80"),
    (Method::POST, MANY, r#""https://127.0.0.1:443""#, 422, "wrong_value", "server_name"),
    (Method::POST, MANY, r#""not there.example:1""#, 422, "wrong_value", "host:port"),
    (
        Method::POST,
        MANY,
        r#"{"address": "127.0.0.1:1", "max_connections": 0}"#,
        422,
        "wrong_value",
        "leave it out for no limit",
    ),
    (Method::POST, MANY, r#"{"address": "127.0.0.1:1", "tls": true}"#, 422, "bad_body", "/openapi.json"),
    (Method::POST, "/v1/pools/nobody/upstreams", r#""127.0.0.1:1""#, 404, "unknown_pool", "GET /v1/pools"),
    (
        Method::PUT,
        MANY,
        r#"[{"address": "127.0.0.1:1", "backup": true}]"#,
        422,
        "wrong_value",
        "one that is none",
    ),
    (Method::PUT, MANY, r#"["127.0.0.1:1", "http://127.0.0.1:1/"]"#, 409, "already_there", "PATCH it"),
    (Method::PUT, MANY, "{}", 422, "bad_body", "/openapi.json"),
    (Method::POST, INITIALIZE, r#"{"servers": []}"#, 422, "wrong_value", "at least one"),
    (Method::POST, INITIALIZE, r#"{"servers": ["https://127.0.0.1:1"]}"#, 422, "wrong_value", "server_name"),
    (Method::POST, INITIALIZE, r#"{"servers": ["http://127.0.0.1:1/app"]}"#, 422, "wrong_value", "host:port"),
    (Method::POST, INITIALIZE, r#"{"servers": ["ftp://127.0.0.1:1"]}"#, 422, "wrong_value", "host:port"),
    (
        Method::POST,
        INITIALIZE,
        r#"{"servers": ["http://127.0.0.1:1"], "strategy": "fastest"}"#,
        422,
        "wrong_value",
        "round_robin",
    ),
    (
        Method::POST,
        INITIALIZE,
        r#"{"servers": ["http://127.0.0.1:1"], "pool": "nobody"}"#,
        404,
        "unknown_pool",
        "GET /v1/pools",
    ),
    (
        Method::POST,
        INITIALIZE,
        r#"{"servers": ["http://127.0.0.1:1"], "hash": {"path": true}}"#,
        422,
        "wrong_value",
        "consistent_hash",
    ),
    (
        Method::POST,
        "/v1/pools/app/upstreams/127.0.0.1:9/drain",
        "",
        404,
        "unknown_upstream",
        "the port must match",
    ),
    (Method::POST, "/v1/pools/app/upstreams/127.0.0.1:9001/drain?wait=5", "", 400, "bad_parameter", "\"5s\""),
    (
        Method::POST,
        "/v1/pools/app/upstreams/127.0.0.1:9001/drain?wait=11m",
        "",
        400,
        "bad_parameter",
        "at most 10m",
    ),
    (
        Method::POST,
        "/v1/pools/app/upstreams/127.0.0.1:9001/drain?wiat=5s",
        "",
        400,
        "bad_parameter",
        "did you mean `wait`?",
    ),
];

/// Each refusal says what to do, and changes nothing.
#[tokio::test]
async fn a_write_that_cannot_be_is_refused_with_help() {
    let api = Api::without_file(TWO_POOLS);
    for (method, path, json, status, kind, help) in REFUSED {
        let answer = api.write(method.clone(), path, json).await;
        assert_eq!(answer.status, *status, "{method} {path} {json}: {}", answer.body);
        assert_eq!(answer.problem(), *kind, "{method} {path} {json}: {}", answer.body);
        let told = answer.json();
        assert!(told["help"].as_str().unwrap().contains(help), "{method} {path} {json}: {told}");
        assert_eq!(api.generation(), 1, "{method} {path} {json}");
    }
    let form = [("content-type", "application/x-www-form-urlencoded")];
    assert_eq!(api.ask(Method::PATCH, FIRST, &form, "weight=5").await.expect(415).problem(), "not_json");
}

#[tokio::test]
async fn an_edit_on_a_condition_is_made_when_it_holds() {
    let api = Api::without_file(TWO_POOLS);
    let write = async |tag: &str, weight: u16| {
        let headers = [("content-type", "application/json"), ("if-match", tag)];
        api.ask(Method::PATCH, FIRST, &headers, &format!("{{\"weight\": {weight}}}")).await
    };
    let of_the_pool = api.get(FIRST).await.header("etag").to_owned();
    let of_all = api.get("/v1/pools").await.header("etag").to_owned();
    assert_ne!(of_the_pool, of_all);
    write(&of_all, 2).await.expect(200);
    for stale in [&of_all, &of_the_pool] {
        let answer = write(stale, 3).await.expect(412);
        assert_eq!(answer.problem(), "changed_meanwhile");
        write(answer.json()["etag"].as_str().unwrap(), 3).await.expect(200);
        write("*", 2).await.expect(200);
    }
    assert_eq!(api.json(FIRST).await["weight"], 2);
}

#[tokio::test]
async fn what_was_removed_while_busy_is_not_forgotten() {
    let api = Api::without_file(TWO_POOLS);
    let mut tried = Tiers::default();
    let held = api.runtime().snapshot();
    let path = "/v1/pools/people/upstreams/127.0.0.1:9003";
    let chosen = held.pool_named("people").unwrap().pick(Duration::ZERO, 0, 0, &mut tried).ok().unwrap();
    assert_eq!(api.write(Method::DELETE, path, "").await.expect(200).json()["in_flight"], 1);
    api.write(Method::POST, "/v1/pools/people/upstreams", r#""127.0.0.1:9003""#).await.expect(201);
    let drained = api.post(&format!("{path}/drain")).await.expect(200).json();
    assert_eq!((&drained["in_flight"], &drained["in_flight_elsewhere"]), (&0.into(), &1.into()));
    assert_eq!(drained["safe_to_stop"], false);
    drop((chosen, held));
    assert_eq!(api.post(&format!("{path}/drain")).await.expect(200).json()["safe_to_stop"], true);
}

/// A connection to a fresh side port, and the switch that stops it.
fn connect(app: &Arc<AdminApp>, shutdown: &watch::Receiver<bool>) -> DuplexStream {
    let (client, server) = duplex(64 * 1024);
    let (app, shutdown) = (app.clone(), shutdown.clone());
    tokio::spawn(async move { app.process_new(Box::new(server), &shutdown).await.is_none() });
    client
}

async fn read_to_end(mut client: DuplexStream) -> String {
    let mut text = String::new();
    tokio::time::timeout(Duration::from_secs(5), client.read_to_string(&mut text)).await.unwrap().unwrap();
    text
}

#[tokio::test]
async fn a_stopping_process_ends_idle_connections_after_their_answer() {
    let (stop, shutdown) = watch::channel(false);
    let app = Arc::new(AdminApp::new(Api::up(TWO_POOLS).control, ANY_HEAD));
    let mut client = connect(&app, &shutdown);
    client.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut start = [0; 15];
    client.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 200 OK");
    stop.send(true).unwrap();
    assert!(read_to_end(client).await.ends_with("ok\n"));
}

#[tokio::test]
async fn idle_connections_keep_nobody_out() {
    let (_stop, shutdown) = watch::channel(false);
    let app = Arc::new(AdminApp::new(Api::up(TWO_POOLS).control, ANY_HEAD));
    let mut open: Vec<_> =
        (0..super::connection::CONNECTIONS_MAX).map(|_| connect(&app, &shutdown)).collect();
    tokio::task::yield_now().await;

    let mut client = connect(&app, &shutdown);
    client.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    assert!(read_to_end(client).await.starts_with("HTTP/1.1 200 "));

    assert_eq!(read_to_end(open.remove(0)).await, "", "the one that was idle for the longest time left");
    let mut last = open.pop().unwrap();
    last.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    assert!(read_to_end(last).await.starts_with("HTTP/1.1 200 "), "and no other");
}

/// Their bodies never come; each holds its place until it is cut off.
#[tokio::test]
async fn one_request_too_many_is_told_so() {
    let (_stop, shutdown) = watch::channel(false);
    let app = Arc::new(AdminApp::new(Api::up(TWO_POOLS).control, ANY_HEAD));
    let mut open = Vec::new();
    for _ in 0..super::connection::CONNECTIONS_MAX {
        let mut client = connect(&app, &shutdown);
        let head = "POST /v1/pools/app/health-check HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n";
        client.write_all(head.as_bytes()).await.unwrap();
        open.push(client);
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    let answer = read_to_end(connect(&app, &shutdown)).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("too_many_connections"), "{answer}");
}

#[tokio::test]
async fn a_body_that_is_announced_too_large_is_refused_before_it_is_sent() {
    let (_stop, shutdown) = watch::channel(false);
    let app = Arc::new(AdminApp::new(Api::up(TWO_POOLS).control, ANY_HEAD));
    let mut client = connect(&app, &shutdown);
    let head =
        "POST /v1/pools/app/health-check HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    let answer = read_to_end(client).await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("body_too_large"), "{answer}");
}

/// The clock of these stands still, and jumps to the next timer whenever everybody waits.
#[tokio::test(start_paused = true)]
async fn a_body_that_comes_too_slowly_is_cut_off() {
    let (_stop, shutdown) = watch::channel(false);
    let app = Arc::new(AdminApp::new(Api::up(TWO_POOLS).control, ANY_HEAD));
    let mut client = connect(&app, &shutdown);
    let head =
        "POST /v1/pools/people/health-check HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    let started = Instant::now();
    let (mut reading, mut writing) = tokio::io::split(client);
    let answer = async {
        let mut start = [0; 13];
        reading.read_exact(&mut start).await.unwrap();
        assert_eq!(&start, b"HTTP/1.1 408 ");
    };
    let drip = async {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            writing.write_all(b" ").await.unwrap();
        }
    };
    tokio::select! {
        () = answer => {}
        () = drip => {}
    }
    assert_eq!(started.elapsed().as_secs(), super::guard::BODY_TIMEOUT.as_secs());
}

/// All that a client says, and its leave, may be there before the first byte is looked at.
#[tokio::test]
async fn a_write_that_came_in_full_is_done_whoever_has_left() {
    let (_stop, shutdown) = watch::channel(false);
    let api = Api::without_file(TWO_POOLS);
    let app = Arc::new(AdminApp::new(api.control.clone(), ANY_HEAD));
    let (mut client, other_end) = duplex(16 * 1024);
    let body = r#"{"strategy": "round_robin"}"#;
    let head = "PATCH /v1/pools/app HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json";
    let request = format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    client.write_all(request.as_bytes()).await.unwrap();
    drop(client);
    assert!(app.process_new(Box::new(other_end), &shutdown).await.is_none());
    let applied = async {
        while api.generation() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), applied).await.expect("it is applied");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_nothing_loses_its_connection() {
    let (_stop, shutdown) = watch::channel(false);
    let app = Arc::new(AdminApp::new(Api::up(TWO_POOLS).control, ANY_HEAD));
    let (mut client, other_end) = duplex(1024);
    let started = Instant::now();
    let served = tokio::spawn(async move { app.process_new(Box::new(other_end), &shutdown).await.is_none() });
    client.write_all(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    assert!(served.await.unwrap());
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_slowly_gets_its_whole_answer() {
    let (_stop, shutdown) = watch::channel(false);
    let app = Arc::new(AdminApp::new(Api::up(TWO_POOLS).control, ANY_HEAD));
    let (mut client, server) = duplex(1024);
    tokio::spawn(async move { app.process_new(Box::new(server), &shutdown).await.is_none() });
    let request = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    client.write_all(request).await.unwrap();
    let (mut answer, mut piece) = (Vec::new(), [0; 1024]);
    loop {
        tokio::time::sleep(Duration::from_secs(4)).await;
        match client.read(&mut piece).await.unwrap() {
            0 => break,
            count => answer.extend_from_slice(&piece[..count]),
        }
    }
    assert!(answer.ends_with(openapi::DOCUMENT.as_bytes()), "{} bytes", answer.len());
}

#[tokio::test]
async fn the_configuration_is_shown_as_text_and_as_json() {
    let api = Api::up(TWO_POOLS);
    let tag = api.control.tag();
    let text = api.get("/v1/config").await.expect(200);
    assert_eq!((text.header("content-type"), text.header("etag")), ("application/toml", &*tag));
    assert_eq!(text.body, TWO_POOLS);
    let json = api.ask(Method::GET, "/v1/config", &[("accept", "application/json")], "").await.expect(200);
    assert_eq!(json.header("etag"), tag);
    let view = json.json();
    assert_fits(&view, &schema("Config"), "config");
    assert_eq!((&view["toml"], &view["etag"]), (&TWO_POOLS.into(), &tag.clone().into()));
    assert_eq!(view["config"]["routes"]["users"]["pool"], "people");
    for path in ["/v1/config/history", "/v1/config/history/1", "/v1/overrides"] {
        assert_eq!(api.get(path).await.expect(200).header("etag"), tag, "{path}");
    }
    let status = api.json("/v1/status").await;
    assert_eq!((&status["etag"], &status["overrides"]), (&tag.into(), &0.into()));
    assert_eq!(status["last_refusal"], Value::Null);
}

#[tokio::test]
async fn a_text_is_checked_without_a_change() {
    let api = Api::up(TWO_POOLS);
    let (path, tag) = ("/v1/config/check", api.control.tag());
    let checked = api.ask(Method::POST, path, &[], TWO_POOLS).await.expect(200).json();
    assert_fits(&checked, &schema("Checked"), "check");
    assert_eq!(checked["summary"], "1 listener, 2 routes, 2 pools");
    assert!(!checked["warnings"].as_array().unwrap().is_empty(), "a secret stands in the text: {checked}");
    let wrong = api.ask(Method::POST, path, &[], "[listener]").await.expect(422);
    assert_eq!(wrong.problem(), "invalid_config");
    assert_eq!(api.control.tag(), tag);
    assert_eq!(api.control.refusal().map(|refusal| refusal.reason), None, "it was only a question");
}

#[tokio::test]
async fn writes_that_cannot_be_understood_are_refused() {
    let api = Api::up(TWO_POOLS);
    let json = [("content-type", "application/json")];
    for (method, path, headers, body, status, kind) in [
        (Method::PUT, "/v1/config", [].as_slice(), TWO_POOLS, 428, "precondition_required"),
        (Method::PUT, "/v1/config", &[("if-match", "\"0-0\"")], TWO_POOLS, 412, "changed_meanwhile"),
        (Method::PUT, "/v1/config", &[("if-match", "0-0")], TWO_POOLS, 400, "bad_parameter"),
        (Method::PUT, "/v1/config?a=1", &[("if-match", "*")], TWO_POOLS, 400, "bad_parameter"),
        (Method::PUT, "/v1/config", &json, "{}", 415, "not_toml"),
        (Method::POST, "/v1/config/check", &json, "{}", 415, "not_toml"),
        (Method::POST, "/v1/config/rollback", &[], "{}", 415, "not_json"),
        (Method::POST, "/v1/config/rollback", &json, "{\"to\":1}", 422, "bad_body"),
        (Method::POST, "/v1/config/rollback", &json, "{\"generation\":9}", 404, "unknown_generation"),
        (Method::GET, "/v1/config/history/9", &[], "", 404, "unknown_generation"),
        (Method::GET, "/v1/config/history/-1", &[], "", 400, "bad_parameter"),
        (Method::DELETE, "/v1/overrides", &json, "{\"a\":1}", 422, "unknown_member"),
        (Method::GET, "/v1/events?kind=config", &[], "", 400, "bad_parameter"),
    ] {
        let answer = api.ask(method.clone(), path, headers, body).await.expect(status);
        assert_eq!(answer.problem(), kind, "{method} {path}");
    }
    assert_eq!(api.runtime().peek().generation, 1);
}

#[tokio::test]
async fn figures_are_as_the_document_says() {
    let api = Api::up(TWO_POOLS);
    api.count_requests(7, 200);
    api.count_requests(2, 503);
    api.set_mode("app", 0, Mode::Drain);
    let snapshot = api.runtime().snapshot();
    let durations = HistogramSnapshot::merged(snapshot.routes().map(|route| route.metrics.duration()));
    for lately in [None, Some(&durations)] {
        let figures = serde_json::to_value(LiveView::of(&api.control, &snapshot, lately)).unwrap();
        assert_fits(&figures, &schema("Live"), "Live");
        let drained = &figures["pools"][0]["upstreams"][0];
        assert_eq!((&drained["state"], &drained["why_not"]), (&"drain".into(), &"draining".into()));
    }
}

#[tokio::test]
async fn events_are_as_the_document_says() {
    let api = Api::without_file(TWO_POOLS);
    let mut listener = api.control.events().subscribe(None);
    api.ask(Method::PUT, "/v1/config", &[("if-match", "*")], TWO_POOLS).await.expect(409);
    let snapshot = api.runtime().snapshot();
    let upstream = &snapshot.pools().next().unwrap().upstreams()[0];
    let transition = Transition { from: Health::Up, to: Health::Down };
    api.control.events().tell(Happening::health(&upstream.state, transition, Some("refused")));
    let heavier = config::PoolEdit::Weight(upstream.config.address.clone(), 7);
    let edit = Change::Edit { pool: "app".into(), edits: vec![heavier] };
    api.control.apply(&edit, None, &Author::file("x")).unwrap();
    for (name, member, expected) in [
        ("ConfigEvent", "result", "refused"),
        ("HealthEvent", "to", "down"),
        ("StateEvent", "what", "weight"),
        ("ConfigEvent", "result", "applied"),
    ] {
        let Some(Told::Event(event)) = listener.next().await else { panic!("no event") };
        let event = serde_json::to_value(&*event).unwrap();
        assert_fits(&event, &schema(name), name);
        assert_eq!(event[member], expected, "{event}");
    }
}
