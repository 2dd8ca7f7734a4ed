//! What responses say of how they came to be: `server_timing`, `response_time`, `proxy_status`.

use std::time::Duration;

use crate::rig::{Evener, Origin, Reply, Response, wait_until};

const SOON: Duration = Duration::from_secs(60);

/// One pool of these origins behind a route with these keys, and another without any upstream.
fn telling(keys: &str, origins: &[&Origin]) -> Evener {
    telling_in(keys, "timeouts = { connect = \"1s\", read = \"2s\" }", origins)
}

/// The same with these settings of the first pool.
fn telling_in(keys: &str, settings: &str, origins: &[&Origin]) -> Evener {
    let addresses: Vec<String> = origins.iter().map(|origin| format!("\"{}\"", origin.address())).collect();
    Evener::start(&format!(
        r#"
        [routes.app]
        pool = "app"
        {keys}
        [routes.empty]
        path_prefix = "/empty"
        pool = "empty"
        {keys}
        [pools.app]
        upstreams = [{}]
        health_check = {{ enabled = false }}
        ejection = {{ enabled = false }}
        {settings}
        [pools.empty]
        upstreams = []
        "#,
        addresses.join(", ")
    ))
}

/// `name;dur=1.2` to its number.
fn duration_of(name: &str, answer: &Response) -> Option<f64> {
    let entries = answer.values("server-timing");
    let entries: Vec<&str> = entries.iter().flat_map(|line| line.split(',')).map(str::trim).collect();
    let found = entries.iter().find_map(|entry| entry.strip_prefix(name)?.strip_prefix(";dur="))?;
    Some(found.parse().unwrap_or_else(|error| panic!("{error}: {found}")))
}

#[test]
fn server_timing_tells_upstream_and_evener_apart_and_keeps_what_the_upstream_says() {
    let origin = Origin::serving(|_| {
        Reply::default().then_sleep(Duration::from_millis(60)).then(Reply::with_headers(
            200,
            "Server-Timing: db;dur=53\r\n",
            "ok",
        ))
    });
    let evener = telling("server_timing = true", &[&origin]);
    let answer = evener.get("/").expect_status(200);
    assert_eq!(duration_of("db", &answer), Some(53.0), "{answer}");
    assert!(duration_of("upstream", &answer).is_some_and(|upstream| upstream >= 59.0), "{answer}");
    assert!(duration_of("evener", &answer).is_some(), "{answer}");
    assert_eq!(duration_of("failed", &answer), None, "{answer}");

    let refused = evener.get("/empty").expect_status(503);
    assert!(
        duration_of("evener", &refused).is_some() && duration_of("upstream", &refused).is_none(),
        "{refused}"
    );
}

#[test]
fn server_timing_tells_what_failed_attempts_took() {
    let slow = Origin::serving(|_| {
        Reply::default().then_sleep(Duration::from_millis(60)).then(Reply::status(503, "no"))
    });
    let other = Origin::answering("ok");
    let retry = "server_timing = true\nretry = { on = [\"503\"], budget = 1.0 }";
    let evener = telling(retry, &[&slow, &other]);
    let answers: Vec<Response> = (0..4).map(|_| evener.get("/").expect_status(200)).collect();
    let failed: Vec<f64> = answers.iter().filter_map(|answer| duration_of("failed", answer)).collect();
    assert!(!failed.is_empty() && failed.iter().all(|&failed| failed >= 59.0), "{failed:?}");
}

/// What a slow client takes for its body is not ours, whoever answers.
#[test]
fn server_timing_tells_what_the_client_took_for_its_body() {
    let failing = Origin::serving(|request| match request.target.as_str() {
        target if target.starts_with("/failing") => Reply::status(503, "no"),
        _ => Reply::ok("ok"),
    });
    let other = Origin::answering("ok");
    let keys = "server_timing = true\nretry = { on = [\"503\"], budget = 1.0 }";
    let evener = telling_in(keys, "[listeners.http]\nmax_body_size = \"9B\"\n", &[&failing, &other]);
    // Of two in turn, one goes to the failing one first.
    for (path, rest, status) in [
        ("/one", "4\r\nwell\r\n0\r\n\r\n", 200),
        ("/failing/1", "4\r\nwell\r\n0\r\n\r\n", 200),
        ("/failing/2", "4\r\nwell\r\n0\r\n\r\n", 200),
        ("/large", "5\r\nworld\r\n", 413),
    ] {
        let mut client = evener.connect();
        client.send(format!(
            "PUT {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
        ));
        let begun = format!("PUT {path} ");
        wait_until(SOON, || {
            [&failing, &other].iter().any(|origin| {
                let bytes = origin.bytes_received();
                bytes.windows(begun.len()).any(|window| window == begun.as_bytes())
            })
        });
        std::thread::sleep(Duration::from_millis(100));
        client.send(rest);
        let answer = client.read("PUT").expect_status(status);
        assert!(duration_of("client", &answer).is_some_and(|client| client >= 99.0), "{path}: {answer}");
    }
}

#[test]
fn response_time_is_ours_in_answers_of_both() {
    let origin = Origin::serving(|_| Reply::with_headers(200, "X-Response-Time: never\r\n", "ok"));
    let evener = telling("response_time = true", &[&origin]);
    for (path, status) in [("/", 200), ("/empty", 503)] {
        let answer = evener.get(path).expect_status(status);
        let values = answer.values("x-response-time");
        assert_eq!(values.len(), 1, "{answer}");
        let number = values[0].strip_suffix("ms").and_then(|number| number.parse::<f64>().ok());
        assert!(number.is_some_and(|number| number >= 0.0), "{answer}");
        assert!(
            answer.header("server-timing").is_none() && answer.header("proxy-status").is_none(),
            "{answer}"
        );
    }
}

#[test]
fn proxy_status_tells_what_the_upstream_said_or_why_it_did_not() {
    let origin = Origin::serving(|request| match request.target.as_str() {
        "/reset" => Reply::reset(),
        "/silent" => Reply::hang(),
        "/garbage" => Reply::raw("SSH-2.0-OpenSSH_9.2\r\n\r\n"),
        "/cdn" => Reply::with_headers(200, "Proxy-Status: cdn; error=http_protocol_error\r\n", "ok"),
        _ => Reply::status(201, "ok"),
    });
    let keys = "proxy_status = true\nretry = { max_retries = 0 }";
    let evener = telling(keys, &[&origin]);
    for (path, status, expected) in [
        ("/", 201, &["evener; received-status=201"][..]),
        ("/cdn", 200, &["cdn; error=http_protocol_error", "evener; received-status=200"]),
        ("/reset", 502, &["evener; error=connection_terminated; details=\"upstream_reset\""]),
        ("/silent", 504, &["evener; error=http_response_timeout; details=\"upstream_timeout\""]),
        ("/garbage", 502, &["evener; error=http_protocol_error; details=\"bad_response\""]),
        ("/empty", 503, &["evener; error=destination_unavailable; details=\"no_eligible_upstream\""]),
    ] {
        let answer = evener.get(path).expect_status(status);
        assert_eq!(answer.values("proxy-status"), expected, "{path}: {answer}");
    }
    origin.refuse();
    origin.cut_connections();
    let answer = evener.get("/").expect_status(502);
    let expected = ["evener; error=connection_refused; details=\"connect_failure\""];
    assert_eq!(answer.values("proxy-status"), expected, "{answer}");
}

#[test]
fn nothing_is_told_unless_asked_for() {
    let origin = Origin::answering("ok");
    let evener = telling("", &[&origin]);
    for (path, status) in [("/", 200), ("/empty", 503)] {
        let answer = evener.get(path).expect_status(status);
        for name in ["server-timing", "x-response-time", "proxy-status"] {
            assert!(answer.header(name).is_none(), "{answer}");
        }
    }
}
