//! HTTP/2 to clients: what is so with HTTP/1.1 is so with many requests on one connection.

use std::process::Command;
use std::time::{Duration, Instant};

use http::{HeaderMap, Request};

use crate::rig::frames::{self, Frames, flag, kind};
use crate::rig::h2::H2Client;
use crate::rig::{Evener, Origin, Reply, wait_until};

/// Longer than anything takes on a busy machine.
const SOON: Duration = Duration::from_secs(20);

fn evener_with(listener: &str, rest: &str, origins: &[&Origin]) -> Evener {
    let addresses: Vec<String> = origins.iter().map(|origin| format!("\"{}\"", origin.address())).collect();
    Evener::start(&format!(
        "[log]\nformat = \"json\"\naccess = \"stdout\"\n[listeners.http]\nhttp2_cleartext = true\n{listener}\n{rest}\n[pools.app]\nupstreams = [{}]",
        addresses.join(", ")
    ))
}

fn in_front_of(origin: &Origin) -> Evener {
    evener_with("", "", &[origin])
}

fn connect(evener: &Evener) -> H2Client {
    H2Client::connect(evener.address())
}

/// The access-log lines so far.
fn logged(evener: &Evener) -> Vec<serde_json::Value> {
    evener.standard_output().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Waits for an access-log line like this.
#[track_caller]
fn wait_for_line(evener: &Evener, is_wanted: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
    wait_until(SOON, || logged(evener).iter().any(&is_wanted));
    logged(evener).into_iter().find(is_wanted).expect("just seen")
}

#[test]
fn streams_of_one_connection_are_served_at_a_time_and_balanced_one_by_one() {
    let origins = [Origin::answering("a"), Origin::answering("b"), Origin::answering("c")];
    origins.iter().for_each(Origin::hold);
    let evener = evener_with("", "", &[&origins[0], &origins[1], &origins[2]]);
    let client = connect(&evener);
    let calls: Vec<_> = (0..30).map(|_| client.start(client.head("GET", "/"), true)).collect();
    // All are under way, though none has been answered.
    origins.iter().for_each(|origin| origin.wait_for_requests(10));
    origins.iter().for_each(Origin::release);
    let mut bodies: Vec<String> =
        calls.into_iter().map(|call| call.read().expect("an answer").body()).collect();
    bodies.sort();
    assert_eq!(bodies.concat(), "a".repeat(10) + &"b".repeat(10) + &"c".repeat(10));
    evener.admin().wait_for_rest();
    evener.admin().expect_metric("evener_connections", &["listener=\"http\""], 1.0);
}

#[test]
fn bodies_come_whole_both_ways_with_and_without_a_length() {
    let origin = Origin::serving(|request| {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        if request.target == "/chunked" { Reply::chunked(&[&body, "!"], "") } else { Reply::ok(&body) }
    });
    let evener = in_front_of(&origin);
    let client = connect(&evener);
    let large = "0123456789abcdef".repeat(256 * 1024);
    assert_eq!(client.post("/", large.as_bytes()).expect_status(200).body(), large);
    assert_eq!(client.post("/chunked", b"short").body(), "short!");

    let mut head = client.head("POST", "/");
    head.headers_mut().insert("content-length", 5.into());
    let mut call = client.start(head, false);
    call.send(b"si", false);
    call.send(b"zed", true);
    assert_eq!(call.read().expect("an answer").body(), "sized");

    let mut call = client.start(client.head("POST", "/"), false);
    call.send(b"", true);
    assert_eq!(call.read().expect("an answer").expect_status(200).body(), "");
    let requests = origin.requests();
    assert!(requests[0].is_chunked() && !requests[2].is_chunked());
    assert_eq!(requests[2].header("content-length"), Some("5"));
}

/// Nobody reads: what the upstream sends must wait there, not here.
#[test]
fn a_slow_reader_holds_up_the_upstream_and_not_our_memory_nor_other_streams() {
    let large = "x".repeat(64 * 1024 * 1024);
    let origin =
        Origin::serving(
            move |request| {
                if request.target == "/large" { Reply::ok(&large) } else { Reply::ok("small") }
            },
        );
    let evener = in_front_of(&origin);
    let client = H2Client::connect_with(
        evener.address(),
        h2::client::Builder::new().initial_window_size(65_535).initial_connection_window_size(16 << 20),
    );
    let before = resident_bytes(&evener);
    let mut slow: Vec<_> = (0..4).map(|_| client.start(client.head("GET", "/large"), true)).collect();
    slow.iter_mut().for_each(|call| assert_eq!(call.read_head().expect("a head").status(), 200));
    for _ in 0..50 {
        assert_eq!(client.get("/").expect_status(200).body(), "small");
    }
    let grown = resident_bytes(&evener).saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes for four readers that do not read");
    let mut length = 0;
    let mut first = slow.pop().expect("four of them");
    while let Some(piece) = first.read_piece() {
        length += piece.expect("bytes").len();
    }
    assert_eq!(length, 64 << 20);
}

fn resident_bytes(evener: &Evener) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", evener.process_id())).expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a size");
    line.split_whitespace().nth(1).and_then(|kilobytes| kilobytes.parse::<usize>().ok()).expect("kB") * 1024
}

#[test]
fn trailers_of_a_request_end_it_and_those_of_http_1_answers_are_left_out() {
    let origin = Origin::serving(|_| Reply::chunked(&["body"], "x-sum: 1\r\n"));
    let evener = in_front_of(&origin);
    let client = connect(&evener);
    let mut call = client.start(client.head("POST", "/"), false);
    call.send(b"body", false);
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", 1.into());
    call.send_trailers(trailers);
    let answer = call.read().expect("an answer");
    assert_eq!((answer.status(), answer.body().as_str()), (200, "body"));
    assert_eq!(answer.trailers, None);
    assert_eq!(origin.only_request().body, b"body");
}

#[test]
fn head_no_content_hints_and_expect_are_as_in_http_1() {
    let origin = Origin::serving(|request| match request.target.as_str() {
        "/204" => Reply::raw("HTTP/1.1 204 No Content\r\n\r\n"),
        "/hints" => {
            Reply::raw("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n").then(Reply::ok("after hints"))
        }
        _ => Reply::ok("body"),
    });
    let evener = in_front_of(&origin);
    let client = connect(&evener);
    let head = client.start(client.head("HEAD", "/"), true).read().expect("an answer");
    assert_eq!((head.status(), head.header("content-length"), head.bytes.len()), (200, Some("4"), 0));
    assert_eq!(client.get("/204").expect_status(204).bytes.len(), 0);
    // Pingora passes no 1xx on to HTTP/2; the answer comes all the same.
    assert_eq!(client.get("/hints").expect_status(200).body(), "after hints");
    let mut expecting = client.head("POST", "/");
    expecting.headers_mut().insert("expect", http::HeaderValue::from_static("100-continue"));
    let mut call = client.start(expecting, false);
    call.send(b"without waiting", true);
    call.read().expect("an answer").expect_status(200);
}

#[test]
fn no_header_of_one_connection_goes_on_to_the_other() {
    let headers = "Connection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nX-Kept: 1\r\n";
    let origin = Origin::serving(move |_| Reply::with_headers(200, headers, "ok"));
    let evener = in_front_of(&origin);
    let answer = connect(&evener).get("/").expect_status(200);
    assert_eq!(answer.header("x-kept"), Some("1"));
    for name in ["connection", "keep-alive", "x-hop", "transfer-encoding"] {
        assert_eq!(answer.header(name), None, "{name}");
    }
}

#[test]
fn routes_logs_and_forwarded_headers_go_by_the_authority() {
    let origin = Origin::answering("by host");
    let evener = evener_with("", "[routes.named]\nhosts = [\"api.example.com\"]\npool = \"app\"", &[&origin]);
    let client = connect(&evener);
    let request =
        |uri: &str| Request::builder().uri(uri).version(http::Version::HTTP_2).body(()).expect("a request");
    let named = client.start(request("http://api.example.com:8080/a?b=c"), true).read().expect("an answer");
    assert_eq!(named.expect_status(200).body(), "by host");
    let other = client.start(request("http://other.example.com/"), true).read().expect("an answer");
    assert_eq!(other.status(), 404);

    let seen = origin.only_request();
    assert_eq!((seen.version.as_str(), seen.target.as_str()), ("HTTP/1.1", "/a?b=c"));
    assert_eq!(seen.values("host"), ["api.example.com:8080"]);
    assert_eq!(seen.header("x-forwarded-host"), Some("api.example.com:8080"));
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.header("x-forwarded-proto"), Some("http"));
    assert!(seen.header("x-request-id").is_some_and(|id| id.len() == 32));
    let line = wait_for_line(&evener, |line| line["status"] == 200);
    assert_eq!((line["protocol"].as_str(), line["host"].as_str()), (Some("HTTP/2"), Some("api.example.com")));
    assert_eq!((line["route"].as_str(), line["path"].as_str()), (Some("named"), Some("/a")));
    let line = wait_for_line(&evener, |line| line["status"] == 404);
    assert_eq!((line["protocol"].as_str(), line["reason"].as_str()), (Some("HTTP/2"), Some("no_route")));
}

/// Two names for one request are how one proxy is made to see another host than the next.
#[test]
fn a_host_that_differs_from_the_authority_is_refused() {
    let origin = Origin::answering("ok");
    let evener = in_front_of(&origin);
    let client = connect(&evener);
    let request = |host: &'static str| {
        let mut head = client.head("GET", "/");
        head.headers_mut().insert("host", http::HeaderValue::from_static(host));
        client.start(head, true).read().expect("an answer").status()
    };
    assert_eq!(request("elsewhere.example"), 400);
    assert_eq!(origin.requests_seen(), 0);
    let line = wait_for_line(&evener, |line| line["status"] == 400);
    assert_eq!((line["protocol"].as_str(), line["reason"].as_str()), (Some("HTTP/2"), Some("bad_request")));
    client.get("/").expect_status(200);
}

/// What no client of HTTP/1.1 may send is not to reach an upstream by way of HTTP/2.
#[test]
fn what_is_ambiguous_in_http_1_is_refused() {
    let origin = Origin::answering("ok");
    let evener = in_front_of(&origin);
    let request = |head: &[(&str, &str)]| {
        let mut frames = Frames::connect(evener.address());
        frames.send_frame(kind::HEADERS, flag::END_HEADERS, 1, &frames::fields(head));
        frames.send_frame(kind::DATA, flag::END_STREAM, 1, b"body");
        frames.find(|frame| frame.stream == 1 && frame.kind == kind::HEADERS).expect("an answer");
    };
    let start = [(":method", "POST"), (":scheme", "http")];
    for rest in [
        [(":path", "/"), ("host", "a, b")],
        [(":path", "/"), ("host", "a/../b")],
        [(":path", "/"), (":authority", "a,b")],
        [(":path", "*"), (":authority", "a")],
    ] {
        request(&[&start[..], &rest[..]].concat());
    }
    let lengths = [(":path", "/"), (":authority", "a"), ("content-length", "4"), ("content-length", "4")];
    request(&[&start[..], &lengths[..]].concat());
    assert_eq!(origin.requests_seen(), 0);
    wait_until(SOON, || logged(&evener).iter().filter(|line| line["reason"] == "bad_request").count() == 5);
}

#[test]
fn connect_is_refused_logged_and_counted() {
    let origin = Origin::answering("ok");
    let evener = in_front_of(&origin);
    let mut frames = Frames::connect(evener.address());
    let head = frames::fields(&[(":method", "CONNECT"), (":authority", "a:443")]);
    frames.send_frame(kind::HEADERS, flag::WHOLE, 1, &head);
    frames.find(|frame| frame.stream == 1 && frame.kind == kind::HEADERS).expect("an answer");
    let line = wait_for_line(&evener, |line| line["reason"] == "bad_request");
    assert_eq!((line["protocol"].as_str(), line["status"].as_u64()), (Some("HTTP/2"), Some(400)));
    // The connection goes on.
    frames.get(3, "/");
    frames.find(|frame| frame.stream == 3 && frame.kind == kind::HEADERS).expect("an answer");
    assert_eq!(origin.requests_seen(), 1);
}

/// No 100 can be passed back, and where HTTP/2 ends a stream, HTTP/1.1 says a length.
#[test]
fn a_request_is_told_in_the_words_of_http_1() {
    let origin = Origin::answering("ok");
    let evener = in_front_of(&origin);
    let client = connect(&evener);
    client.start(client.head("POST", "/without"), true).read().expect("an answer").expect_status(200);
    client.start(client.head("DELETE", "/without"), true).read().expect("an answer").expect_status(200);
    let mut head = client.head("PUT", "/with");
    head.headers_mut().append("expect", http::HeaderValue::from_static("100-continue"));
    client.start(head, true).read().expect("an answer").expect_status(200);
    let [post, delete, put] = <[_; 3]>::try_from(origin.requests()).expect("three requests");
    assert_eq!(post.values("content-length"), ["0"]);
    assert!(delete.values("content-length").is_empty());
    assert!(put.values("expect").is_empty(), "{put:?}");
}

/// Browsers send each cookie as a field of its own (RFC 9113 §8.2.3); many applications read one only.
#[test]
fn cookies_are_one_field_for_an_upstream_that_speaks_http_1() {
    let origin = Origin::answering("ok");
    let evener = in_front_of(&origin);
    let client = connect(&evener);
    let mut head = client.head("GET", "/");
    for crumb in ["a=1", "b=2", "c=3"] {
        head.headers_mut().append("cookie", http::HeaderValue::from_static(crumb));
    }
    client.start(head, true).read().expect("an answer").expect_status(200);
    assert_eq!(origin.only_request().values("cookie"), ["a=1; b=2; c=3"]);
}

/// The next reader might cut it in two at another place.
#[test]
fn a_host_that_is_no_host_is_refused_as_over_http1() {
    let origin = Origin::answering("ok");
    let evener = in_front_of(&origin);
    for host in ["a:99999", "a:b", "[::1]x", "a,b", "a;b"] {
        let answer = evener.get_with("/", &format!("Host: {host}\r\n"));
        assert_eq!(answer.status(), 400, "{host}");
        let client = connect(&evener);
        let mut head = client.head("GET", "/");
        *head.uri_mut() = format!("http://{host}/").parse().unwrap();
        assert_eq!(client.start(head, true).read().expect("an answer").status(), 400, "{host}");
    }
    assert_eq!(origin.requests_seen(), 0);
}

#[test]
fn the_route_timeout_answers_504_and_the_connection_goes_on() {
    let origin =
        Origin::serving(|request| if request.target == "/slow" { Reply::hang() } else { Reply::ok("ok") });
    let evener = evener_with("", "[routes.all]\npool = \"app\"\ntimeout = \"1s\"", &[&origin]);
    let client = connect(&evener);
    let slow = client.start(client.head("GET", "/slow"), true);
    client.get("/").expect_status(200);
    assert_eq!(slow.read().expect("an answer").status(), 504);
    client.get("/").expect_status(200);
    let line = wait_for_line(&evener, |line| line["status"] == 504);
    assert_eq!(line["reason"], "upstream_timeout");
    evener.admin().wait_for_rest();
}

#[test]
fn an_answer_under_way_past_the_deadline_is_reset_and_logged() {
    let origin = Origin::serving(|request| {
        if request.target != "/slow" {
            return Reply::ok("ok");
        }
        let drip = Reply::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        (0..200).fold(drip, |reply, _| reply.then_send("1\r\nx\r\n").then_sleep(Duration::from_millis(100)))
    });
    let evener = evener_with("", "[routes.all]\npool = \"app\"\ntimeout = \"1s\"", &[&origin]);
    let client = connect(&evener);
    let slow = client.start(client.head("GET", "/slow"), true);
    let error = slow.read().expect_err("half an answer");
    assert!(error.is_reset(), "{error:?}");
    client.get("/").expect_status(200);
    let line = wait_for_line(&evener, |line| line["path"] == "/slow");
    assert_eq!((line["reason"].as_str(), line["status"].as_u64()), (Some("upstream_timeout"), Some(200)));
    evener.admin().wait_for_rest();
}

#[test]
fn an_answer_that_breaks_off_is_reset_and_never_ended() {
    let origin = Origin::serving(|_| {
        Reply::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n").then_reset()
    });
    let evener = in_front_of(&origin);
    let client = connect(&evener);
    let answer = client.start(client.head("GET", "/"), true).read();
    assert!(answer.is_err(), "half an answer, said to be whole: {answer:?}");
    assert!(!client.has_ended());
}

#[test]
fn a_request_that_fails_goes_to_another_upstream() {
    let (absent, breaking) = (Origin::absent(), Origin::serving(|_| Reply::reset()));
    let good = Origin::answering("good");
    let evener = evener_with("", "", &[&good, &absent, &breaking]);
    let client = connect(&evener);
    for _ in 0..12 {
        assert_eq!(client.get("/").expect_status(200).body(), "good");
    }
    // With its body, as long as it was kept.
    let refused_only = evener_with("", "", &[&good, &absent]);
    let client = connect(&refused_only);
    for _ in 0..4 {
        client.post("/", b"body").expect_status(200);
    }
    assert!(
        good.requests()
            .iter()
            .filter(|request| request.method == "POST")
            .all(|request| request.body == b"body")
    );
}

#[test]
fn a_body_beyond_the_limit_is_refused_before_it_is_read() {
    let origin = Origin::answering("ok");
    let evener = evener_with("max_body_size = \"1KiB\"", "", &[&origin]);
    let client = connect(&evener);
    let mut head = client.head("POST", "/");
    head.headers_mut().insert("content-length", (1 << 30).into());
    let announced = client.start(head, false);
    assert_eq!(announced.read().expect("an answer").status(), 413);
    assert_eq!(origin.requests_seen(), 0);

    let mut sent = client.start(client.head("POST", "/"), false);
    let piece = [0; 4096];
    while sent.try_send(&piece, false).is_ok() && !client.has_ended() {
        if sent_enough(&evener) {
            break;
        }
    }
    assert_eq!(sent.read().expect("an answer").status(), 413);
    client.get("/").expect_status(200);
    evener.admin().wait_for_rest();
}

/// Whether Evener has refused a body that it had begun to read.
fn sent_enough(evener: &Evener) -> bool {
    logged(evener).iter().filter(|line| line["reason"] == "body_too_large").count() == 2
}

#[test]
fn a_head_beyond_the_limit_is_refused_and_logged() {
    let origin = Origin::answering("ok");
    let evener = evener_with("max_header_size = \"8KiB\"", "", &[&origin]);
    let client = connect(&evener);
    let with = |bytes: usize| {
        let mut head = client.head("GET", "/");
        let value = http::HeaderValue::from_str(&"x".repeat(bytes)).expect("a value");
        head.headers_mut().insert("x-long", value);
        client.start(head, true).read().expect("an answer").status()
    };
    assert_eq!((with(7 * 1024), with(9 * 1024), with(7 * 1024)), (200, 431, 200));
    let line = wait_for_line(&evener, |line| line["status"] == 431);
    assert_eq!(
        (line["protocol"].as_str(), line["reason"].as_str()),
        (Some("HTTP/2"), Some("head_too_large"))
    );
    // So large a one never becomes a request; the connection goes on nevertheless.
    assert_eq!((with(30 * 1024), with(1024)), (431, 200));
    assert_eq!(origin.requests_seen(), 3);
}

#[test]
fn a_client_that_resets_its_stream_ends_that_request_only() {
    let origin = Origin::serving(|request| match request.target.as_str() {
        "/download" => Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\nbegun").then_hang(),
        "/silent" => Reply::hang(),
        _ => Reply::ok("ok"),
    });
    let evener = in_front_of(&origin);
    let client = connect(&evener);
    let mut upload = client.start(client.head("POST", "/upload"), false);
    upload.send(b"some", false);
    let mut download = client.start(client.head("GET", "/download"), true);
    download.read_head().expect("a head");
    let silent = client.start(client.head("GET", "/silent"), true);
    evener.admin().expect_metric("evener_upstream_in_flight", &[], 3.0);

    upload.reset();
    download.reset();
    silent.reset();
    evener.admin().wait_for_rest();
    for path in ["/upload", "/download", "/silent"] {
        let line = wait_for_line(&evener, |line| line["path"] == path);
        assert_eq!(
            (line["status"].as_u64(), line["reason"].as_str()),
            (Some(499), Some("client_closed")),
            "{path}"
        );
    }
    client.get("/").expect_status(200);
}

#[test]
fn a_connection_that_drops_ends_all_that_was_under_way_on_it() {
    let origin =
        Origin::serving(|request| if request.target == "/" { Reply::ok("ok") } else { Reply::hang() });
    let evener = in_front_of(&origin);
    let client = connect(&evener);
    let _calls: Vec<_> = (0..50).map(|_| client.start(client.head("GET", "/hang"), true)).collect();
    evener.admin().expect_metric("evener_upstream_in_flight", &[], 50.0);
    client.vanish();
    evener.admin().wait_for_rest();
    wait_until(SOON, || logged(&evener).iter().filter(|line| line["status"] == 499).count() == 50);
    evener.admin().expect_metric("evener_connections", &["listener=\"http\""], 0.0);
    connect(&evener).get("/").expect_status(200);
}

#[test]
fn both_versions_are_understood_on_one_port_however_the_preface_comes() {
    let origin = Origin::answering("ok");
    let evener = in_front_of(&origin);
    evener.get("/").expect_status(200);
    let mut frames = Frames::silent(evener.address());
    for byte in frames::PREFACE {
        frames.send([*byte]);
    }
    frames.send(frames::frame(kind::SETTINGS, flag::NONE, 0, b""));
    frames.get(1, "/");
    assert!(frames.find(|frame| frame.stream == 1 && frame.ends_stream()).is_some());
    // Begins like the preface, and is a request.
    assert_eq!(evener.request("PRI /not HTTP/1.1\r\nHost: a\r\n\r\n").status(), 200);
    assert_eq!(evener.request("P\0\0\0\r\n\r\n").status(), 400);
    assert_eq!(evener.request("PRI * HTTP/2.0\r\n\r\nnot this\r\n\r\n").status(), 400);
}

#[test]
fn half_a_preface_is_cut_after_the_header_timeout() {
    let origin = Origin::answering("ok");
    let evener = evener_with("header_timeout = \"1s\"", "", &[&origin]);
    let mut client = evener.connect();
    client.send("PRI * HTTP/2.0\r\n");
    assert_eq!(client.read("GET").status(), 408);
    assert!(client.is_closed_within(SOON));
    let line = wait_for_line(&evener, |line| line["status"] == 408);
    assert_eq!(line["reason"], "request_timeout");
}

#[test]
fn without_the_setting_a_preface_is_a_bad_request() {
    let origin = Origin::answering("ok");
    let evener = Evener::start(&format!("[pools.app]\nupstreams = [\"{}\"]", origin.address()));
    assert_eq!(evener.request(frames::PREFACE).status(), 400);
    assert_eq!(origin.requests_seen(), 0);
}

#[test]
fn an_idle_connection_is_told_to_go_and_a_busy_one_is_not() {
    let origin = Origin::answering("late").after(Duration::from_secs(3));
    let evener = evener_with("keepalive_timeout = \"1s\"", "", &[&origin]);
    let mut frames = Frames::connect(evener.address());
    frames.get(1, "/");
    let answer = frames.find(|frame| frame.stream == 1 && frame.ends_stream() || frame.kind == kind::GOAWAY);
    assert_eq!(answer.expect("an answer").stream, 1);
    assert_eq!(frames.wait_for_end(), Some(0));
    evener.admin().expect_metric("evener_connections", &["listener=\"http\""], 0.0);
}

/// RFC 9113 §6.8: a first GOAWAY that refuses nothing, then, when the client has seen it, one that names the
/// last stream.
#[test]
fn a_stopping_process_serves_what_is_on_its_way_says_goodbye_and_ends() {
    let origin = Origin::answering("served");
    origin.hold();
    let mut evener = in_front_of(&origin);
    let mut frames = Frames::connect(evener.address());
    frames.get(1, "/");
    origin.wait_for_request();
    evener.signal("TERM");
    let goodbye = frames.find(|frame| frame.kind == kind::GOAWAY).expect("GOAWAY");
    assert_eq!((goodbye.error_code(), goodbye.last_stream()), (0, 0x7fff_ffff));
    // It crossed the GOAWAY on the way.
    frames.get(3, "/");
    origin.wait_for_requests(2);
    let ping = frames.find(|frame| frame.kind == kind::PING).expect("a PING to tell when it was seen");
    frames.send_frame(kind::PING, flag::ACK, 0, &ping.payload);
    let last = frames.find(|frame| frame.kind == kind::GOAWAY).expect("a second GOAWAY");
    assert_eq!((last.error_code(), last.last_stream()), (0, 3));
    origin.release();
    let mut ended = Vec::new();
    while let Some(frame) = frames.read() {
        if frame.ends_stream() {
            ended.push(frame.stream);
        }
    }
    ended.sort_unstable();
    assert_eq!(ended, [1, 3]);
    assert!(evener.ends_within(SOON).is_some_and(|status| status.success()));
    assert!(evener.log().contains("drained"), "{}", evener.log());
}

#[test]
fn no_more_streams_than_announced_are_served_at_a_time() {
    let origin = Origin::answering("ok");
    origin.hold();
    let evener = evener_with("http2 = { max_streams = 5 }", "", &[&origin]);
    let mut frames = Frames::connect_with(evener.address(), &[]);
    let settings = frames.find(|frame| frame.kind == kind::SETTINGS).expect("settings");
    assert_eq!(settings.setting(3), Some(5));
    (0..6).for_each(|nth| frames.get(2 * nth + 1, "/"));
    let refused = frames.find(|frame| frame.kind == kind::RST_STREAM).expect("a refusal");
    assert_eq!((refused.stream, refused.error_code()), (11, 7));
    origin.wait_for_requests(5);
    origin.release();
    let mut answered = 0;
    while answered < 5 {
        answered += usize::from(frames.read().expect("answers").ends_stream());
    }
    assert_eq!(origin.requests_seen(), 5);

    let client = connect(&evener);
    client.get("/").expect_status(200);
    assert_eq!(client.streams_max(), 5);
}

#[test]
fn a_reload_touches_no_stream_and_later_ones_go_by_it() {
    let (old, new) = (Origin::answering("old"), Origin::answering("new"));
    let evener = in_front_of(&old);
    let client = connect(&evener);
    old.hold();
    let calls: Vec<_> = (0..20).map(|_| client.start(client.head("GET", "/"), true)).collect();
    old.wait_for_requests(20);
    evener.reload(&format!(
        "[log]\nformat = \"json\"\naccess = \"stdout\"\n[listeners.http]\nhttp2_cleartext = true\n[pools.app]\nupstreams = [\"{}\"]",
        new.address()
    ));
    assert_eq!(client.get("/").body(), "new");
    old.release();
    assert!(calls.into_iter().all(|call| call.read().expect("an answer").body() == "old"));
}

/// A client that is gone without a FIN answers no PING; one that is only quiet does.
#[test]
fn a_client_that_answers_no_ping_is_given_up_and_a_quiet_one_is_kept() {
    let origin = Origin::answering("late");
    origin.hold();
    let evener = evener_with("http2 = { ping_interval = \"1s\" }", "", &[&origin]);
    let quiet = connect(&evener);
    let call = quiet.start(quiet.head("GET", "/quiet"), true);
    let mut gone = Frames::connect(evener.address());
    gone.get(1, "/gone");
    origin.wait_for_requests(2);
    assert!(gone.find(|frame| frame.kind == kind::PING && frame.flags & flag::ACK == 0).is_some());
    // It says nothing to that.
    assert_eq!(gone.wait_for_end(), None);
    let line = wait_for_line(&evener, |line| line["path"] == "/gone");
    assert_eq!(line["reason"], "client_closed");
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(4) {
        assert!(!quiet.has_ended());
        std::thread::sleep(Duration::from_millis(100));
    }
    origin.release();
    assert_eq!(call.read().expect("an answer").body(), "late");
}

/// A client that is not ours.
#[test]
fn h2load_gets_every_answer() {
    let origin = Origin::answering("ok");
    let evener = in_front_of(&origin);
    let uri = format!("http://{}/", evener.address());
    let run = Command::new("h2load").args(["-n", "2000", "-c", "4", "-m", "16", "-t", "1", &uri]).output();
    let Ok(run) = run else { panic!("h2load is not installed: .ci/setup test") };
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(said.contains("2000 succeeded, 0 failed, 0 errored, 0 timeout"), "{said}");
    evener.admin().wait_for_rest();
}

/// Another client that is not ours, with an upload.
#[test]
fn curl_is_answered_in_http_2() {
    let origin = Origin::serving(|request| Reply::ok(&request.body.len().to_string()));
    let evener = in_front_of(&origin);
    let uri = format!("http://{}/", evener.address());
    let body = "x".repeat(300_000);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("body");
    std::fs::write(&file, &body).expect("write");
    let data = format!("@{}", file.display());
    let run = Command::new("curl")
        .args(["--http2-prior-knowledge", "-sS", "-w", " %{http_version}", "--data-binary", &data, &uri])
        .output()
        .expect("curl");
    assert_eq!(String::from_utf8_lossy(&run.stdout), "300000 2", "{}", String::from_utf8_lossy(&run.stderr));
}
