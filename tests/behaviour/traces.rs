//! Traces: what upstreams are told of them, and what a collector gets that no one here wrote, which decodes with
//! OpenTelemetry's own protobuf classes (`traces/collector.py`).

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::rig::h2::H2Client;
use crate::rig::{Evener, Origin, Reply, reserve_port, wait_until};

const SOON: Duration = Duration::from_secs(60);

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

struct Collector {
    process: Child,
    port: u16,
    said: Arc<Mutex<Vec<Value>>>,
}

impl Collector {
    /// `None` if its library is not here and need not be.
    #[track_caller]
    fn start() -> Option<Self> {
        Self::start_at(reserve_port())
    }

    #[track_caller]
    fn start_at(port: u16) -> Option<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let python = root.join("target/otlp/bin/python");
        if !python.is_file() {
            assert!(
                env::var_os("CI_ALLOW_MISSING").is_some(),
                "opentelemetry-proto is missing: run `make setup`"
            );
            eprintln!("left out: opentelemetry-proto is missing");
            return None;
        }
        let mut process = Command::new(python)
            .arg(root.join("tests/behaviour/traces/collector.py"))
            .arg(port.to_string())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let output = BufReader::new(process.stdout.take().expect("its output"));
        let said: Arc<Mutex<Vec<Value>>> = Arc::default();
        let heard = said.clone();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                heard.lock().unwrap().push(serde_json::from_str(&line).expect("JSON"));
            }
        });
        let collector = Self { process, port, said };
        wait_until(SOON, || !collector.said.lock().unwrap().is_empty());
        Some(collector)
    }

    /// From now on it answers with this status, or not at all (`silent`).
    fn answer(&mut self, how: &str) {
        writeln!(self.process.stdin.as_mut().expect("its input"), "{how}").expect("it listens");
        wait_until(SOON, || self.said.lock().unwrap().iter().any(|said| said["now"] == how));
    }

    /// Every request that it got.
    fn requests(&self) -> Vec<Value> {
        self.said.lock().unwrap().iter().filter(|said| said["message"].is_object()).cloned().collect()
    }

    /// Every span that it took.
    fn spans(&self) -> Vec<Value> {
        let mut spans = Vec::new();
        for request in self.requests().iter().filter(|request| request["answer"] == "200") {
            for resource in request["message"]["resourceSpans"].as_array().unwrap() {
                for scope in resource["scopeSpans"].as_array().unwrap() {
                    spans.extend(scope["spans"].as_array().unwrap().iter().cloned());
                }
            }
        }
        spans
    }

    #[track_caller]
    fn wait_for_spans(&self, count: usize) -> Vec<Value> {
        wait_until(SOON, || self.spans().len() >= count);
        self.spans()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn text(origins: &[&Origin], rest: &str) -> String {
    let addresses: Vec<String> = origins.iter().map(|origin| format!("\"{}\"", origin.address())).collect();
    format!(
        "{rest}\n[routes.app]\npool = \"app\"\npath_prefix = \"/v1\"\nretry = {{ on = [\"reset\", \"503\"], budget = 1.0 }}\n\
         [pools.app]\nupstreams = [{}]\nhealth_check = {{ enabled = false }}\nejection = {{ enabled = false }}\n",
        addresses.join(", ")
    )
}

fn tracing_to(port: u16, sample: &str) -> String {
    format!("[tracing]\nendpoint = \"http://127.0.0.1:{port}\"\nsample = {sample}\nservice_name = \"edge\"")
}

/// The value of an attribute, as text.
fn attribute(of: &Value, name: &str) -> Option<String> {
    let found = of["attributes"].as_array()?.iter().find(|attribute| attribute["key"] == name)?;
    let value = found["value"].as_object()?.values().next()?;
    Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

/// In hexadecimal, what JSON has in base64.
fn id(of: &Value, name: &str) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let text = of[name].as_str().unwrap_or_default().trim_end_matches('=');
    let bits: String = text
        .bytes()
        .map(|byte| format!("{:06b}", DIGITS.iter().position(|&digit| digit == byte).unwrap()))
        .collect();
    let nibbles = bits.len() / 8 * 2;
    let nibble = |index: usize| u8::from_str_radix(&bits[index * 4..index * 4 + 4], 2).unwrap();
    (0..nibbles).map(|index| format!("{:x}", nibble(index))).collect()
}

#[test]
fn without_tracing_the_headers_pass_through_untouched() {
    let origin = Origin::answering("ok");
    let evener = Evener::start(&text(&[&origin], ""));
    for parent in [PARENT, "no trace at all"] {
        let headers = format!("traceparent: {parent}\r\ntracestate: a=1\r\ntracestate: b=2\r\n");
        evener.get_with("/v1", &headers).expect_status(200);
        let seen = origin.requests().pop().unwrap();
        assert_eq!(
            (seen.values("traceparent"), seen.values("tracestate")),
            (vec![parent], vec!["a=1", "b=2"])
        );
    }
    evener.get("/v1").expect_status(200);
    assert!(origin.requests().pop().unwrap().header("traceparent").is_none());
}

#[test]
fn a_traced_request_is_told_to_the_collector_with_each_of_its_attempts() {
    let Some(collector) = Collector::start() else { return };
    let (broken, other) = (Origin::serving(|_| Reply::reset()), Origin::answering("four"));
    let evener = Evener::start(&text(&[&broken, &other], &tracing_to(collector.port, "0")));
    let headers = format!("traceparent: {PARENT}\r\ntracestate: a=1\r\nUser-Agent: me\r\n");
    // In turns: the broken one is met by one of the two, or by both, for a second attempt takes a turn, too.
    for _ in 0..2 {
        evener.get_with("/v1/users?secret=1", &headers).expect_status(200);
    }
    let (resets, answers) = (broken.requests().len(), other.requests().len());
    assert!(resets > 0 && answers == 2, "{resets} {answers}");
    let spans = collector.wait_for_spans(2 + resets + answers);
    let of_kind = |kind: &str| -> Vec<&Value> { spans.iter().filter(|span| span["kind"] == kind).collect() };
    let (servers, clients) = (of_kind("SPAN_KIND_SERVER"), of_kind("SPAN_KIND_CLIENT"));
    assert_eq!((servers.len(), clients.len()), (2, resets + answers), "{spans:?}");
    for span in &servers {
        assert_eq!(id(span, "traceId"), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(id(span, "parentSpanId"), "b7ad6b7169203331");
        assert_eq!((&span["name"], &span["traceState"]), (&"GET /v1".into(), &"a=1".into()));
        for (name, expected) in [
            ("http.request.method", "GET"),
            ("url.path", "/v1/users"),
            ("url.scheme", "http"),
            ("http.route", "/v1"),
            ("http.response.status_code", "200"),
            ("http.response.body.size", "4"),
            ("network.protocol.version", "1.1"),
            ("user_agent.original", "me"),
            ("client.address", "127.0.0.1"),
            ("evener.route", "app"),
            ("evener.pool", "app"),
        ] {
            assert_eq!(attribute(span, name).as_deref(), Some(expected), "{name}: {span}");
        }
        let nanoseconds = |name: &str| span[name].as_str().unwrap().parse::<u64>().unwrap();
        assert!(nanoseconds("endTimeUnixNano") >= nanoseconds("startTimeUnixNano"), "{span}");
    }
    // The upstream's parent is the attempt's span, and that one's is the request's.
    for origin in [&broken, &other] {
        for request in origin.requests() {
            let told = request.header("traceparent").unwrap().to_owned();
            let span = clients.iter().find(|span| told.contains(&id(span, "spanId")));
            let span = span.unwrap_or_else(|| panic!("{told} is no attempt's of {clients:?}"));
            assert!(servers.iter().any(|server| id(server, "spanId") == id(span, "parentSpanId")), "{span}");
            assert!(
                told.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && told.ends_with("-01"),
                "{told}"
            );
            assert_eq!(request.header("tracestate"), Some("a=1"));
            let port = attribute(span, "server.port").unwrap();
            assert!(origin.address().ends_with(&port), "{span}");
        }
    }
    let failed: Vec<_> = clients.iter().filter(|span| attribute(span, "error.type").is_some()).collect();
    assert_eq!(failed.len(), resets, "{clients:?}");
    assert!(failed.iter().all(|span| span["status"]["code"] == "STATUS_CODE_ERROR"), "{failed:?}");
    let again = clients.iter().filter(|span| attribute(span, "http.request.resend_count").is_some());
    assert_eq!(again.count(), resets, "{clients:?}");

    let first = collector.requests().remove(0);
    assert_eq!((&first["path"], &first["type"]), (&"/v1/traces".into(), &"application/x-protobuf".into()));
    let resource = &first["message"]["resourceSpans"][0]["resource"];
    assert_eq!(attribute(resource, "service.name").as_deref(), Some("edge"));
    assert!(!format!("{:?}", collector.requests()).contains("secret"), "a query is nobody's business");
    evener.admin().expect_metric("evener_trace_spans_total", &["result=\"exported\""], spans.len() as f64);
}

#[test]
fn traces_that_begin_here_are_sampled_and_those_of_others_as_they_say() {
    let Some(collector) = Collector::start() else { return };
    let origin = Origin::answering("ok");
    let evener = Evener::start(&text(&[&origin], &tracing_to(collector.port, "0.0")));
    let told = |headers: &str| {
        evener.get_with("/v1", headers).expect_status(200);
        let seen = origin.requests().pop().unwrap();
        (seen.header("traceparent").map(str::to_owned), seen.header("tracestate").map(str::to_owned))
    };
    // Nobody's trace, and not sampled: upstreams are told so. What cannot be read counts for none.
    for headers in ["", "traceparent: 00-short\r\ntracestate: a=1\r\n"] {
        let (parent, state) = told(headers);
        assert!(
            parent.as_ref().is_some_and(|parent| parent.len() == 55 && parent.ends_with("-00")),
            "{parent:?}"
        );
        assert_eq!(state, None);
    }
    // The client does not record it, so nobody does; its words stay its words.
    let unsampled = PARENT.replace("-01", "-00");
    let headers = format!("traceparent: {unsampled}\r\ntracestate: a=1\r\n");
    assert_eq!(told(&headers), (Some(unsampled), Some("a=1".to_owned())));

    evener.reload(&text(&[&origin], &tracing_to(collector.port, "1.0")));
    let (parent, _) = told("");
    let parent = parent.unwrap();
    assert!(parent.ends_with("-01"), "{parent}");
    let spans = collector.wait_for_spans(2);
    assert_eq!(spans.len(), 2, "{spans:?}");
    assert!(spans.iter().all(|span| parent.contains(&id(span, "traceId"))), "{spans:?}");
    let server = spans.iter().find(|span| span["kind"] == "SPAN_KIND_SERVER").unwrap();
    assert_eq!(id(server, "parentSpanId"), "");

    // Switched off by a reload, too.
    evener.reload(&text(&[&origin], ""));
    assert_eq!(told(""), (None, None));
}

#[test]
fn refusals_are_spans_with_their_reason() {
    let Some(collector) = Collector::start() else { return };
    let origin = Origin::absent();
    let listener = "[listeners.http]\nhttp2_cleartext = true";
    let rest = format!("{}\n{listener}", tracing_to(collector.port, "1"));
    let evener = Evener::start(&text(&[&origin], &rest));
    evener.get("/v1").expect_status(502);
    evener.get("/elsewhere").expect_status(404);
    let client = H2Client::connect(evener.address());
    let mut call = client.head("POST", "/v1/Call");
    call.headers_mut().insert("content-type", http::HeaderValue::from_static("application/grpc"));
    client.start(call, true).read().expect("an answer").expect_status(200);
    // Of the first an attempt, too; the pool is not one for calls.
    let spans = collector.wait_for_spans(4);
    let server = |status: &str| {
        let is_it = |span: &&Value| {
            span["kind"] == "SPAN_KIND_SERVER"
                && attribute(span, "http.response.status_code").as_deref() == Some(status)
        };
        spans.iter().find(is_it).unwrap_or_else(|| panic!("no {status} in {spans:?}"))
    };
    let (failed, unknown) = (server("502"), server("404"));
    assert_eq!(attribute(failed, "error.type").as_deref(), Some("connect_failure"), "{failed}");
    assert_eq!(failed["status"]["code"], "STATUS_CODE_ERROR", "{failed}");
    assert_eq!(attribute(unknown, "evener.reason").as_deref(), Some("no_route"), "{unknown}");
    assert!(unknown["status"]["code"].is_null() && unknown["name"] == "GET", "{unknown}");
    // Its client saw 200, and `grpc-status: 12`.
    let refused = server("200");
    assert_eq!(attribute(refused, "rpc.grpc.status_code").as_deref(), Some("12"), "{refused}");
    assert_eq!(attribute(refused, "error.type").as_deref(), Some("grpc_needs_http2"), "{refused}");
    assert_eq!(refused["status"]["code"], "STATUS_CODE_ERROR", "{refused}");
}

/// Down, busy, silent, refusing: requests are answered all the while, and what is lost is counted.
#[test]
fn a_collector_in_trouble_costs_spans_and_no_traffic() {
    let port = reserve_port();
    let origin = Origin::answering("ok");
    let evener = Evener::start(&text(&[&origin], &tracing_to(port, "1")));
    let lost = |result: &str| {
        let label = format!("result=\"{result}\"");
        evener.admin().metric("evener_trace_spans_total", &[&label])
    };
    // Down: the queue fills, and has an end.
    let mut client = evener.connect();
    let mut sent = 0;
    while lost("dropped") < 1.0 {
        (0..200).for_each(|_| drop(client.get("/v1").expect_status(200)));
        sent += 200;
        assert!(sent < 20_000, "the queue has no end");
    }
    let Some(mut collector) = Collector::start_at(port) else { return };
    // What waited comes now; the batch under way, at its next attempt.
    collector.wait_for_spans(1_000);

    // It is busy, and then not any more: nothing of that is lost.
    wait_until(SOON, || {
        let kept = f64::from(sent) * 2.0 - lost("dropped") - lost("failed");
        (lost("exported") - kept).abs() < 0.5
    });
    let before = (lost("exported"), lost("failed"));
    collector.answer("503");
    client.get("/v1").expect_status(200);
    let asked = || collector.requests().iter().filter(|request| request["answer"] == "503").count();
    wait_until(SOON, || asked() > 0);
    collector.answer("200");
    wait_until(SOON, || lost("exported") > before.0);
    assert!((lost("failed") - before.1).abs() < 0.5);

    // It takes one span of two, and its reason is told; taken again is what comes after it.
    let taken_again = || evener.log().matches("spans taken again").count();
    let times = taken_again();
    collector.answer("partial");
    client.get("/v1").expect_status(200);
    evener.wait_for_log("one too many");
    wait_until(SOON, || lost("failed") > before.1);
    assert_eq!(taken_again(), times);
    let before = (lost("exported"), lost("failed"));
    collector.answer("200");
    client.get("/v1").expect_status(200);
    wait_until(SOON, || lost("exported") > before.0);
    wait_until(SOON, || taken_again() > times);

    // It refuses for good.
    collector.answer("400");
    client.get("/v1").expect_status(200);
    evener.wait_for_log("spans lost");
    wait_until(SOON, || lost("failed") > before.1);

    // It says nothing; nobody waits.
    collector.answer("silent");
    (0..500).for_each(|_| drop(client.get("/v1").expect_status(200)));
}

#[test]
fn what_is_traced_before_the_end_is_sent_before_the_end() {
    let Some(collector) = Collector::start() else { return };
    let origin = Origin::answering("ok");
    let mut evener = Evener::start(&text(&[&origin], &tracing_to(collector.port, "1")));
    evener.get("/v1").expect_status(200);
    evener.signal("TERM");
    assert!(evener.ends_within(SOON).is_some());
    assert_eq!(collector.wait_for_spans(2).len(), 2);
}
