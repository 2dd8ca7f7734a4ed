//! HTTP/1.1 and 1.0 on both sides, byte by byte where it matters.

use std::time::Duration;

use crate::rig::{Client, Evener, Origin, Reply, wait_until};

fn in_front_of(origin: &Origin) -> Evener {
    Evener::start(&format!("[pools.app]\nupstreams = [\"{}\"]", origin.address()))
}

fn serving(reply: &Reply) -> (Origin, Evener) {
    let reply = reply.clone();
    let origin = Origin::serving(move |_| reply.clone());
    let evener = in_front_of(&origin);
    (origin, evener)
}

#[test]
fn a_connection_is_kept_on_both_sides() {
    let origin = Origin::answering("ok");
    let evener = with_threads(&origin, 1);
    let mut client = evener.connect();
    for _ in 0..20 {
        client.get("/").expect_status(200);
    }
    assert_few_connections(&origin);
}

/// Of the requests that came, nearly all came on a connection that was there already.
///
/// Not all of them: with two threads Pingora 0.9.1 gives up a kept connection when the one that wants it is
/// quicker than the one that watched it (`reused_stream`). Plays that call this have one thread.
#[track_caller]
fn assert_few_connections(origin: &Origin) {
    let (connections, requests) = (origin.connections_seen(), origin.requests_seen());
    assert!(requests >= 4 * connections, "{connections} connections for {requests} requests");
}

fn with_threads(origin: &Origin, threads: usize) -> Evener {
    Evener::start(&format!(
        "[server]\nthreads = {threads}\n[pools.app]\nupstreams = [\"{}\"]",
        origin.address()
    ))
}

#[test]
fn connection_close_is_honoured_and_stays_on_its_side() {
    let origin = Origin::answering("ok");
    let evener = with_threads(&origin, 1);
    for _ in 0..20 {
        let mut client = evener.connect();
        let answer = client.request("GET", "/", "Connection: close\r\n", b"").expect_status(200);
        assert_eq!(answer.header("connection").map(str::to_ascii_lowercase).as_deref(), Some("close"));
        assert!(client.is_closed_within(Duration::from_secs(20)));
        // A client that comes back at once may find the upstream's connection not yet put away.
        std::thread::sleep(Duration::from_millis(10));
    }
    // The client's wish does not end the upstream's connection.
    assert_few_connections(&origin);
}

/// The next client is served by another thread, as a rule; kept connections belong to all of them.
///
/// Not all are used again, see [`assert_few_connections`]: on an idle machine few are.
#[test]
fn threads_share_their_connections_to_an_upstream() {
    let origin = Origin::answering("ok");
    let evener = with_threads(&origin, 2);
    wait_until(Duration::from_secs(20), || {
        evener.get("/").expect_status(200);
        std::thread::sleep(Duration::from_millis(10));
        origin.connections_seen() < origin.requests_seen()
    });
}

#[test]
fn an_upstream_that_closes_does_not_close_the_client() {
    let origin = Origin::serving(|_| Reply::with_headers(200, "Connection: close\r\n", "ok").then_close());
    let evener = in_front_of(&origin);
    let mut client = evener.connect();
    for _ in 0..5 {
        assert_eq!(client.get("/").expect_status(200).body(), "ok");
    }
    assert_eq!(origin.connections_seen(), 5);
}

/// Idle for a moment is the usual state of a kept connection; one that cannot be taken up again is worth nothing.
#[test]
fn a_connection_that_was_idle_for_a_moment_is_used_again() {
    let origin = Origin::answering("ok");
    let evener = with_threads(&origin, 1);
    let mut client = evener.connect();
    for _ in 0..40 {
        client.get("/").expect_status(200);
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_few_connections(&origin);
}

/// PINGORA.md §5.1: without care, bytes of a second request abort the first.
#[test]
fn pipelined_requests_are_answered_in_order() {
    let origin = Origin::serving(|request| Reply::ok(&request.target)).after(Duration::from_millis(20));
    let evener = in_front_of(&origin);
    let mut client = evener.connect();
    let requests: String = (0..8).map(|turn| format!("GET /{turn} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    client.send(requests);
    for turn in 0..8 {
        assert_eq!(client.read("GET").expect_status(200).body(), format!("/{turn}"));
    }
}

#[test]
fn a_request_behind_a_body_is_a_request_of_its_own() {
    let origin = Origin::serving(|request| Reply::ok(&format!("{} {}", request.target, request.body.len())));
    let evener = in_front_of(&origin);
    let mut client = evener.connect();
    client.send(
        "POST /sized HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n12345\
         POST /chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n123\r\n0\r\n\r\n\
         GET /bare HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    let answers = [client.read("POST"), client.read("POST"), client.read("GET")];
    assert_eq!(answers.map(|answer| answer.body()), ["/sized 5", "/chunked 3", "/bare 0"]);
}

#[test]
fn a_head_in_single_bytes_is_a_head() {
    let origin = Origin::answering("ok");
    let evener = in_front_of(&origin);
    let mut client = evener.connect();
    for byte in b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n" {
        client.send([*byte]);
    }
    client.read("GET").expect_status(200);
    assert_eq!(origin.only_request().target, "/slow");
}

#[test]
fn a_client_of_http_1_0_gets_an_answer_it_understands() {
    for reply in [Reply::ok("hello"), Reply::chunked(&["hel", "lo"], "")] {
        let (_origin, evener) = serving(&reply);
        let mut client = evener.connect();
        client.send("GET / HTTP/1.0\r\n\r\n");
        let answer = client.read("GET").expect_status(200);
        assert_eq!(answer.body(), "hello");
        assert_eq!(answer.header("transfer-encoding"), None, "chunks are of HTTP/1.1: {answer}");
        assert!(answer.ended_by_close || client.is_closed_within(Duration::from_secs(20)));
    }
}

#[test]
fn a_client_of_http_1_0_may_keep_its_connection_if_it_asks() {
    let origin = Origin::answering("ok");
    let evener = in_front_of(&origin);
    let mut client = evener.connect();
    for _ in 0..3 {
        client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        let answer = client.read("GET").expect_status(200);
        let kept = answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("keep-alive"));
        assert!(kept, "{answer}");
    }
}

#[test]
fn an_upstream_of_http_1_0_is_understood() {
    let (_origin, evener) = serving(&Reply::raw("HTTP/1.0 200 OK\r\n\r\nuntil the end").then_close());
    let mut client = evener.connect();
    for _ in 0..3 {
        assert_eq!(client.get("/").expect_status(200).body(), "until the end");
    }
}

#[test]
fn bodies_arrive_whole_however_they_are_framed() {
    let body = "0123456789".repeat(30_000);
    let origin = Origin::serving(|request| Reply::ok(&request.body.len().to_string()));
    let evener = in_front_of(&origin);
    let mut client = evener.connect();

    assert_eq!(client.request("POST", "/", "", body.as_bytes()).body(), "300000");
    client.start("POST", "/", "Transfer-Encoding: chunked\r\n", b"");
    for piece in body.as_bytes().chunks(7919) {
        client.send(format!("{:X};ext=1\r\n", piece.len()));
        client.send(piece);
        client.send("\r\n");
    }
    client.send("0\r\n\r\n");
    assert_eq!(client.read("POST").body(), "300000");

    let [sized, chunked] = &origin.requests()[..] else { panic!("two requests") };
    assert_eq!((sized.header("content-length"), sized.is_chunked()), (Some("300000"), false));
    assert_eq!((chunked.header("content-length"), chunked.is_chunked()), (None, true));
    assert!(sized.body == body.as_bytes() && chunked.body == body.as_bytes());
}

#[test]
fn answers_arrive_whole_however_they_are_framed() {
    let body = "0123456789".repeat(30_000);
    let replies = [
        Reply::ok(&body),
        Reply::chunked(&[&body[..1], &body[1..100_000], &body[100_000..]], ""),
        Reply::raw(format!("HTTP/1.1 200 OK\r\n\r\n{body}")).then_close(),
    ];
    for reply in replies {
        let (_origin, evener) = serving(&reply);
        let mut client = evener.connect();
        assert!(client.get("/").expect_status(200).body() == body);
    }
}

/// Server-sent events, long polls: a chunk is worth something before the next one exists.
#[test]
fn a_chunk_is_passed_on_before_the_next_one_exists() {
    let reply = Reply::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n").then_hang();
    let (_origin, evener) = serving(&reply);
    let mut client = evener.connect();
    client.start("GET", "/", "", b"");
    let mut seen = Vec::new();
    while !seen.ends_with(b"first\r\n") {
        seen.extend(client.read_bytes(1));
    }
}

#[test]
fn an_answer_cut_short_does_not_look_complete() {
    let cut = [
        Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").then_close(),
        Reply::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n").then_close(),
        Reply::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nha").then_reset(),
    ];
    for reply in cut {
        let (_origin, evener) = serving(&reply);
        let mut client = evener.connect();
        client.start("GET", "/", "", b"");
        let answer = client.try_read("GET");
        assert!(
            !answer.as_ref().is_ok_and(|answer| answer.as_ref().is_some_and(|it| it.status() == 200)),
            "{answer:?}"
        );
    }
}

#[test]
fn trailers_pass_in_both_directions_or_are_left_out_cleanly() {
    let origin = Origin::serving(|_| Reply::chunked(&["body"], "X-Sum: 4\r\n"));
    let evener = in_front_of(&origin);
    let mut client = evener.connect();
    for _ in 0..2 {
        client.start("POST", "/", "Transfer-Encoding: chunked\r\nTrailer: X-Check\r\n", b"");
        client.send("2\r\nhi\r\n0\r\nX-Check: 1\r\n\r\n");
        let answer = client.read("POST").expect_status(200);
        assert_eq!(answer.body(), "body");
        assert!(
            answer.trailers().iter().all(|(name, value)| name.eq_ignore_ascii_case("x-sum") && value == "4")
        );
    }
    for request in origin.requests() {
        assert_eq!(request.body, b"hi");
        assert_eq!(request.header("x-check"), None, "a trailer is never promoted to a header");
    }
}

#[test]
fn expect_100_continue_is_answered_before_the_body_is_sent() {
    let origin = Origin::serving(|request| Reply::ok(&request.body.len().to_string()));
    let evener = in_front_of(&origin);
    let mut client = evener.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    let interim = client.read_bytes("HTTP/1.1 100 Continue\r\n\r\n".len());
    assert!(interim.starts_with(b"HTTP/1.1 100"), "{:?}", String::from_utf8_lossy(&interim));
    client.send("12345");
    assert_eq!(client.read("POST").expect_status(200).body(), "5");
}

#[test]
fn a_final_answer_instead_of_100_continue_is_passed_on() {
    let origin = Origin::serving(|_| Reply::with_headers(413, "Connection: close\r\n", "too much"))
        .answering_before_the_body();
    let evener = in_front_of(&origin);
    let mut client = evener.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\nExpect: 100-continue\r\n\r\n");
    let answer = client.read("POST").expect_status(413);
    assert_eq!(answer.body(), "too much");
}

#[test]
fn an_answer_before_the_body_is_complete_is_passed_on() {
    let origin = Origin::serving(|_| Reply::status(401, "who are you")).answering_before_the_body();
    let evener = in_front_of(&origin);
    let mut client = evener.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\n\r\nonly the beginning");
    assert_eq!(client.read("POST").expect_status(401).body(), "who are you");
}

#[test]
fn head_and_answers_without_a_body_do_not_confuse_the_connection() {
    let origin = Origin::serving(|request| match request.target.as_str() {
        "/204" => Reply::raw("HTTP/1.1 204 No Content\r\n\r\n"),
        "/304" => Reply::raw("HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\nContent-Length: 7\r\n\r\n"),
        "/empty" => Reply::ok(""),
        "/chunked" => Reply::chunked(&["chunked"], ""),
        _ => Reply::ok("content"),
    });
    let evener = with_threads(&origin, 1);
    let mut client = evener.connect();
    for _ in 0..2 {
        let head = client.request("HEAD", "/", "", b"").expect_status(200);
        assert_eq!(head.header("content-length"), Some("7"));
        client.request("HEAD", "/chunked", "", b"").expect_status(200);
        let none = client.get("/204").expect_status(204);
        assert_eq!((none.header("content-length"), none.header("transfer-encoding")), (None, None), "{none}");
        assert_eq!(client.get("/304").expect_status(304).header("etag"), Some("\"1\""));
        assert_eq!(client.get("/empty").expect_status(200).body(), "");
        assert_eq!(client.get("/").expect_status(200).body(), "content");
    }
    assert_few_connections(&origin);
}

#[test]
fn early_hints_pass() {
    let hints = Reply::raw("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n");
    let (_origin, evener) = serving(&hints.then_send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"));
    let mut client = evener.connect();
    for _ in 0..2 {
        let answer = client.get("/").expect_status(200);
        assert_eq!(answer.body(), "ok");
        assert!(answer.informational.iter().all(|&status| status == 103));
    }
}

#[test]
fn methods_of_all_kinds_pass() {
    let origin = Origin::serving(|request| Reply::ok(&request.method));
    let evener = in_front_of(&origin);
    let mut client = evener.connect();
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "PURGE", "QUERY"] {
        assert_eq!(
            client.request(method, "/", "Content-Length: 0\r\n", b"").expect_status(200).body(),
            method
        );
    }
}

#[test]
fn a_request_for_the_whole_server_passes() {
    let origin = Origin::answering("ok");
    let evener = in_front_of(&origin);
    evener.request("OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").expect_status(200);
    assert_eq!(origin.only_request().target, "*");
}

#[test]
fn a_get_with_a_body_keeps_it() {
    let origin = Origin::serving(|request| Reply::ok(&request.body.len().to_string()));
    let evener = in_front_of(&origin);
    let mut client = evener.connect();
    assert_eq!(client.request("GET", "/", "", b"12345").expect_status(200).body(), "5");
    assert_eq!(client.get("/").expect_status(200).body(), "0");
}

#[test]
fn an_absolute_target_that_agrees_with_host_is_served() {
    let origin = Origin::answering("ok");
    let evener = in_front_of(&origin);
    evener.request("GET http://shop.example/a?b=1 HTTP/1.1\r\nHost: shop.example\r\n\r\n").expect_status(200);
    let request = origin.only_request();
    assert_eq!(request.values("host"), ["shop.example"]);
    assert!(request.target.ends_with("/a?b=1"), "{}", request.target);
}

#[test]
fn an_upstream_may_be_a_unix_socket() {
    let origin = Origin::answering_on_a_unix_socket("unix");
    let evener = with_threads(&origin, 1);
    let mut client = evener.connect();
    for _ in 0..15 {
        assert_eq!(client.get("/").expect_status(200).body(), "unix");
    }
    assert_eq!(client.request("POST", "/", "", b"body").expect_status(200).body(), "unix");
    // Kept like any other.
    assert_few_connections(&origin);
    assert_eq!(evener.admin().upstream("app", &origin)["health"], "up");
}

#[test]
fn an_upstream_may_be_on_ipv6() {
    let origin = Origin::answering_on_ipv6("six");
    let evener = in_front_of(&origin);
    assert_eq!(evener.get("/").expect_status(200).body(), "six");
    assert_eq!(evener.admin().upstream("app", &origin)["health"], "up");
}

#[test]
fn garbage_from_an_upstream_is_a_502_and_its_connection_is_not_used_again() {
    let garbage: [&[u8]; 8] = [
        b"\x00\x01\x02 garbage\r\n\r\n",
        b"HTTP/1.1 two hundred\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nBad Name: x\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 0\r\n\r\n",
        // Nobody asked for another protocol.
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nevil",
    ];
    for bytes in garbage {
        let origin = Origin::serving(move |request| match request.target.as_str() {
            "/bad" => Reply::raw(bytes).then_close(),
            _ => Reply::ok("good"),
        });
        let evener = in_front_of(&origin);
        let shown = String::from_utf8_lossy(bytes);
        let mut client = evener.connect();
        client.start("GET", "/bad", "", b"");
        assert_eq!(client.read("GET").status(), 502, "{shown:?}");
        assert_eq!(evener.get("/").expect_status(200).body(), "good");
        let connections: Vec<usize> = origin.requests().iter().map(|request| request.connection).collect();
        let (last, bad) = connections.split_last().unwrap();
        assert!(!bad.contains(last), "{shown:?}: {connections:?}");
    }
}

/// Bytes behind an answer would become the answer to somebody else's request.
#[test]
fn bytes_behind_an_answer_never_reach_the_next_client() {
    let extra =
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let origin = Origin::serving(move |_| Reply::raw(extra));
    let evener = in_front_of(&origin);
    for _ in 0..10 {
        assert_eq!(evener.get("/").expect_status(200).body(), "ok");
    }
}

#[test]
fn an_idle_upstream_connection_ends_at_its_limit() {
    let origin = Origin::answering("ok");
    let evener = Evener::start(&format!(
        "[pools.app]\nupstreams = [\"{}\"]\nkeepalive = {{ idle = \"300ms\" }}",
        origin.address()
    ));
    evener.get("/").expect_status(200);
    origin.wait_until_all_are_closed();
    evener.get("/").expect_status(200);
    assert_eq!(origin.connections_seen(), 2);
}

#[test]
fn without_room_for_idle_connections_each_request_has_its_own() {
    let origin = Origin::answering("ok");
    let evener = Evener::start(&format!(
        "[pools.app]\nupstreams = [\"{}\"]\nkeepalive = {{ max_idle = 0 }}",
        origin.address()
    ));
    let mut client = evener.connect();
    for _ in 0..5 {
        client.get("/").expect_status(200);
    }
    assert_eq!(origin.connections_seen(), 5);
}

/// Whoever ends his side may be gone; nobody can tell. Either way nothing hangs and nobody is to blame.
#[test]
fn a_client_that_sends_and_shuts_its_side_is_served_or_taken_for_gone() {
    let origin = Origin::answering("ok").after(Duration::from_millis(100));
    let evener = in_front_of(&origin);
    let mut client = evener.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    client.finish_sending();
    let answer = client.try_read("GET").expect("an answer, or an end");
    assert!(answer.is_none_or(|answer| answer.body() == "ok"));
    let shown = || evener.admin().upstream("app", &origin);
    wait_until(Duration::from_secs(20), || shown()["in_flight"] == 0);
    assert_eq!(shown()["errors"], 0, "{}", shown());
}

/// nginx, Traefik: the log says 499, and the upstream is not to blame.
#[test]
fn a_client_that_leaves_blames_nobody() {
    let origin = Origin::answering("late");
    let evener = Evener::start(&format!(
        r#"
        [log]
        access = "stdout"
        format = "json"
        [pools.app]
        upstreams = ["{}"]
        ejection = {{ consecutive_failures = 3, base_duration = "60s", max_ejected = 1.0 }}
        "#,
        origin.address()
    ));
    origin.hold();
    let clients: Vec<Client> = (0..30)
        .map(|_| {
            let mut client = evener.connect();
            client.start("GET", "/", "", b"");
            client
        })
        .collect();
    origin.wait_for_requests(30);
    clients.into_iter().for_each(Client::reset);

    wait_until(Duration::from_secs(20), || {
        evener.admin().upstream("app", &origin)["in_flight"].as_u64() == Some(0)
    });
    wait_until(Duration::from_secs(20), || logged_statuses(&evener) == vec![499; 30]);
    assert_eq!(evener.admin().upstream("app", &origin)["eligible"], true);
    origin.release();
    evener.get("/").expect_status(200);
}

/// The `status` of each line of an access log in JSON on standard output.
fn logged_statuses(evener: &Evener) -> Vec<u64> {
    let output = evener.standard_output();
    let entries = output.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    entries.filter_map(|entry| entry["status"].as_u64()).collect()
}
