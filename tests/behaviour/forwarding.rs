//! FORWARD: what upstreams learn about the client, and which headers end at Evener, both ways.

use crate::rig::{Client, Evener, Origin, Reply, Request, reserve_port};

fn in_front_of(origin: &Origin) -> Evener {
    Evener::start(&format!("[pools.app]\nupstreams = [\"{}\"]", origin.address()))
}

/// As [`in_front_of`], believing what clients on loopback say about their clients.
fn trusting_in_front_of(origin: &Origin) -> Evener {
    Evener::start(&format!(
        r#"
        [listeners.http]
        trusted_proxies = ["127.0.0.0/8"]
        [pools.app]
        upstreams = ["{}"]
        "#,
        origin.address()
    ))
}

/// The request as the origin saw it.
fn forwarded(headers: &str) -> Request {
    let origin = Origin::answering("ok");
    in_front_of(&origin).get_with("/", headers).expect_status(200);
    origin.only_request()
}

#[test]
fn an_upstream_learns_who_asked_and_for_what() {
    let origin = Origin::answering("ok");
    let evener = in_front_of(&origin);
    evener.get_with("/", "Host: shop.example:8080\r\n").expect_status(200);
    let request = origin.only_request();

    assert_eq!(request.values("host"), ["shop.example:8080"], "Host passes through");
    assert_eq!(request.values("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(request.values("x-forwarded-proto"), ["http"]);
    assert_eq!(request.values("x-forwarded-host"), ["shop.example:8080"]);
    assert_eq!(request.values("x-request-id").len(), 1);
    assert_eq!(request.version, "HTTP/1.1");
}

/// A rival trusts the client's first entry.
#[test]
fn the_client_cannot_choose_its_address() {
    let request = forwarded(
        "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 7.7.7.7\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil.test\r\nX-Request-Id: mine\r\n",
    );
    assert_eq!(request.values("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(request.values("x-forwarded-proto"), ["http"]);
    assert_ne!(request.values("x-forwarded-host"), ["evil.test"]);
    assert_eq!(request.values("x-forwarded-host").len(), 1);
    assert_ne!(request.values("x-request-id"), ["mine"]);
}

#[test]
fn a_trusted_proxy_is_believed_and_added() {
    let origin = Origin::answering("ok");
    let headers = "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.example\r\nX-Request-Id: from-the-edge\r\n";
    trusting_in_front_of(&origin).get_with("/", headers).expect_status(200);
    let request = origin.only_request();

    assert_eq!(request.values("x-forwarded-for").join(", "), "192.0.2.7, 127.0.0.1");
    assert_eq!(request.values("x-forwarded-proto"), ["https"]);
    assert_eq!(request.values("x-forwarded-host"), ["shop.example"]);
    assert_eq!(request.values("x-request-id"), ["from-the-edge"]);
}

#[test]
fn every_request_has_an_id_of_its_own() {
    let origin = Origin::answering("ok");
    let evener = in_front_of(&origin);
    let mut client = evener.connect();
    for _ in 0..50 {
        client.get("/").expect_status(200);
    }
    let mut ids: Vec<String> = origin
        .requests()
        .iter()
        .filter_map(|request| request.header("x-request-id").map(str::to_owned))
        .collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 50);
    assert!(ids.iter().all(|id| id.len() >= 16 && id.is_ascii()), "{ids:?}");
}

#[test]
fn hop_by_hop_headers_of_a_client_end_here() {
    let request = forwarded(
        "Connection: keep-alive, X-Private\r\nX-Private: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic eDp5\r\nTE: gzip\r\nUpgrade: h2c\r\nX-Public: 2\r\n",
    );
    for name in ["x-private", "keep-alive", "proxy-connection", "te", "upgrade"] {
        assert_eq!(request.header(name), None, "{name} in {:?}", String::from_utf8_lossy(&request.raw));
    }
    assert_eq!(request.header("x-public"), Some("2"));
}

/// Such requests take a shorter way, on which we strip it ourselves; any other field for this connection alone
/// takes the long one, with or without it.
#[test]
fn what_a_client_says_of_its_connection_alone_ends_here() {
    for lines in
        ["Connection: keep-alive", "Connection: Close", "TE: gzip", "Proxy-Authorization: Basic eDp5"]
    {
        let request = forwarded(&format!("{lines}\r\nX-Public: 2\r\n"));
        for name in ["connection", "te", "proxy-authorization"] {
            assert_eq!(request.header(name), None, "{name} in {:?}", String::from_utf8_lossy(&request.raw));
        }
        assert_eq!(request.header("x-public"), Some("2"));
    }
}

#[test]
fn hop_by_hop_headers_of_an_upstream_end_here() {
    let origin = Origin::serving(|_| {
        let hop = "Connection: X-Private, keep-alive\r\nX-Private: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: close\r\nX-Public: 2\r\n";
        Reply::with_headers(200, hop, "ok")
    });
    let answer = in_front_of(&origin).get("/").expect_status(200);
    for name in ["x-private", "keep-alive", "proxy-connection"] {
        assert_eq!(answer.header(name), None, "{name} in {answer}");
    }
    assert_eq!(answer.header("x-public"), Some("2"));
    assert_eq!(answer.body(), "ok");
}

#[test]
fn an_upstream_that_closes_does_not_close_the_clients_connection() {
    let origin = Origin::serving(|_| Reply::with_headers(200, "Connection: close\r\n", "ok").then_close());
    let answer = in_front_of(&origin).get("/").expect_status(200);
    assert_eq!(answer.header("connection"), Some("keep-alive"), "{answer}");
}

/// A client that nominates these for removal would reach the upstream with a borrowed identity.
#[test]
fn a_client_cannot_have_forwarding_headers_taken_away() {
    for name in ["X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "Host", "X-Request-Id"] {
        let origin = Origin::answering("ok");
        let evener = in_front_of(&origin);
        let answer = evener.get_with("/", &format!("Connection: {name}\r\n"));
        match answer.status() {
            400 => assert_eq!(origin.requests_seen(), 0),
            200 => assert_eq!(origin.only_request().values(name).len(), 1, "{name}"),
            other => panic!("{other} for {name}"),
        }
    }
}

#[test]
fn end_to_end_headers_pass_unchanged_and_in_order() {
    let request = forwarded(
        "Accept: a/b\r\nX-Many: 1\r\nX-Many: 2\r\nAuthorization: Bearer t\r\nCookie: a=b\r\nX-Empty:\r\n",
    );
    assert_eq!(request.values("x-many"), ["1", "2"]);
    assert_eq!(request.values("authorization"), ["Bearer t"]);
    assert_eq!(request.values("accept"), ["a/b"]);
    assert_eq!(request.values("cookie"), ["a=b"]);
    assert_eq!(request.values("x-empty"), [""]);
}

#[test]
fn several_cookies_and_challenges_of_an_upstream_stay_apart() {
    let origin = Origin::serving(|_| {
        Reply::with_headers(401, "Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nWWW-Authenticate: Basic\r\n", "no")
    });
    let answer = in_front_of(&origin).get("/").expect_status(401);
    assert_eq!(answer.values("set-cookie"), ["a=1", "b=2"]);
    assert_eq!(answer.values("www-authenticate"), ["Basic"]);
}

#[test]
fn a_client_on_ipv6_is_named_without_brackets() {
    let origin = Origin::answering("ok");
    let port = reserve_port();
    let evener = Evener::start(&format!(
        "[listeners.http]\naddress = \"[::1]:{port}\"\n[pools.app]\nupstreams = [\"{}\"]",
        origin.address()
    ));
    evener.get("/").expect_status(200);
    assert_eq!(origin.only_request().values("x-forwarded-for"), ["::1"]);
}

/// A rival tells strangers the addresses behind it (pingap, finding 9).
#[test]
fn strangers_read_no_internals() {
    let gone = Origin::absent();
    let evener = Evener::start(&format!(
        r#"[pools.app]
        upstreams = ["{}"]
        health_check = {{ enabled = false }}"#,
        gone.address()
    ));
    for headers in ["", "Accept: application/json\r\n", "Accept: text/html\r\n"] {
        let answer = evener.get_with("/", headers);
        assert!(matches!(answer.status(), 502 | 503), "{answer}");
        let shown = answer.to_string().to_ascii_lowercase();
        let port = gone.address().rsplit(':').next().unwrap().to_owned();
        for secret in [port.as_str(), "connection refused", "os error", "pingora", "/src/"] {
            assert!(!shown.contains(secret), "`{secret}` in {answer}");
        }
    }
}

#[test]
fn a_refusal_is_json_for_those_who_ask_for_it_and_names_the_request() {
    let gone = Origin::absent();
    let evener = in_front_of(&gone);
    let json = evener.get_with("/", "Accept: application/json\r\n").expect_status(503);
    assert!(json.header("content-type").is_some_and(|kind| kind.contains("json")), "{json}");
    assert!(json.json().is_object());
    let text = evener.get("/").expect_status(503);
    assert!(text.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")), "{text}");
    for answer in [json, text] {
        let id = answer.header("x-request-id").map(str::to_owned);
        assert!(id.is_none_or(|id| answer.body().contains(&id)), "{answer}");
        assert!(answer.header("retry-after").is_some(), "{answer}");
    }
}

#[test]
fn the_access_log_says_how_it_went() {
    let origin = Origin::answering("ok");
    let evener = Evener::start(&format!(
        "[log]\naccess = \"stdout\"\nformat = \"json\"\n[pools.app]\nupstreams = [\"{}\"]",
        origin.address()
    ));
    let mut client = Client::connect(evener.address());
    client.get("/path?secret=1").expect_status(200);
    let is_written = |output: &str| output.contains("/path") && output.ends_with('\n');
    crate::rig::wait_until(std::time::Duration::from_secs(20), || is_written(&evener.standard_output()));

    let output = evener.standard_output();
    let line = output.lines().find(|line| line.contains("/path")).unwrap();
    let entry: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!(entry["method"], "GET", "{line}");
    assert_eq!(entry["path"], "/path", "{line}");
    assert_eq!(entry["pool"], "app", "{line}");
    assert_eq!(entry["upstream"], origin.address(), "{line}");
    assert_eq!(entry["status"], 200, "{line}");
    assert_eq!(entry["listener"], "http", "{line}");
    assert!(entry["duration_ms"].is_number(), "{line}");
    assert_eq!(entry["request_id"].as_str(), origin.only_request().header("x-request-id"), "{line}");
    assert!(!output.contains("secret"), "a query string is nobody's business: {output}");
}

#[test]
fn the_access_log_may_be_a_file() {
    let origin = Origin::answering("ok");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("access.log");
    let evener = Evener::start(&format!(
        "[log]\naccess = \"{}\"\n[pools.app]\nupstreams = [\"{}\"]",
        file.display(),
        origin.address()
    ));
    evener.get("/in-the-file").expect_status(200);
    let read = || std::fs::read_to_string(&file).unwrap_or_default();
    crate::rig::wait_until(std::time::Duration::from_secs(20), || read().contains("/in-the-file"));
    assert!(!evener.standard_output().contains("/in-the-file"));
}
