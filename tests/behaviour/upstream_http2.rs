//! HTTP/2 to upstreams: many requests on one connection, and what becomes of them when it ends.

use std::thread;
use std::time::Duration;

use h2::Reason;

use crate::rig::{
    Act, AuthorityFolder, Background, Client, Evener, Modern, Origin, Reply, Response, Setup, mute_server,
    quoted, wait_until,
};

const SOON: Duration = Duration::from_secs(20);
const NAME: &str = "app.internal";

/// Keys of a pool that is judged by its traffic alone.
const UNCHECKED: &str = "health_check = { enabled = false }\nejection = { enabled = false }";

fn answering(text: &'static str) -> Modern {
    Setup::http2(move |_| Act::ok(text)).start()
}

/// One pool `app` of these upstreams, without health checks or ejection.
fn unchecked(origins: &[&Modern], more: &str) -> Evener {
    Evener::start(&text_of(origins, more))
}

fn text_of(origins: &[&Modern], more: &str) -> String {
    let addresses: Vec<String> = origins.iter().map(|origin| format!("\"{}\"", origin.address())).collect();
    let protocol = if more.contains("protocol =") { "" } else { "protocol = \"http2\"\n" };
    format!("[pools.app]\nupstreams = [{}]\n{protocol}{UNCHECKED}\n{more}", addresses.join(", "))
}

fn over_tls(authority: &AuthorityFolder) -> String {
    format!("tls = {{ server_name = \"{NAME}\", ca = {} }}\n", quoted(&authority.file()))
}

fn in_background(evener: &Evener, method: &'static str, count: usize) -> Vec<Background<Response>> {
    let address = evener.address();
    let request = move || Client::connect(address).request(method, "/", "", b"a body");
    (0..count).map(|_| Background::run(request)).collect()
}

fn reason_of(answer: &Response) -> String {
    answer.json()["reason"].as_str().unwrap_or_default().to_owned()
}

const JSON: &str = "Accept: application/json\r\n";

#[test]
fn requests_are_carried_over_http2_in_clear() {
    let large: Vec<u8> = (0..3_000_000_u32).map(|number| b'a' + (number % 26) as u8).collect();
    let answer = large.clone();
    let origin = Setup::http2(move |call| match call.method.as_str() {
        "POST" => Act::ok(answer.clone()),
        "HEAD" => Act::Answer(200, vec![("x-kind".to_owned(), "head".to_owned())], bytes::Bytes::new()),
        _ => Act::Answer(203, vec![("x-kind".to_owned(), "plain".to_owned())], "hello".into()),
    });
    let origin = origin.start();
    let evener = unchecked(&[&origin], "");

    let response = evener.get_with("/a/b?c=d", "X-Own: 1\r\nConnection: X-Hop\r\nX-Hop: 1\r\nTE: gzip\r\n");
    assert_eq!((response.status(), response.header("x-kind")), (203, Some("plain")));
    assert_eq!(response.body(), "hello");
    let mut client = evener.connect();
    let response = client.request("POST", "/", "", &large).expect_status(200);
    assert!(response.body().as_bytes() == large, "every byte of the answer");
    client.request("HEAD", "/", "", b"").expect_status(200);
    client.request("DELETE", "/x", "Content-Length: 0\r\n", b"").expect_status(203);

    let calls = origin.calls();
    assert_eq!(calls[0].uri.to_string(), format!("http://{}/a/b?c=d", evener.address()));
    assert_eq!((calls[0].header("x-own"), calls[0].header("x-hop")), (Some("1"), None));
    assert_eq!((calls[0].header("connection"), calls[0].header("te")), (None, None));
    assert_eq!(calls[0].header("x-forwarded-for"), Some("127.0.0.1"));
    assert!(calls[1].body == large, "every byte of the request");
    evener.admin().wait_for_rest();
}

#[test]
fn many_requests_share_a_connection() {
    let origin = answering("ok");
    let evener = unchecked(&[&origin], "");
    // A connection is there before the crowd comes.
    evener.get("/").expect_status(200);
    origin.hold();
    let mut crowd = Vec::new();
    for count in 1..=40 {
        crowd.extend(in_background(&evener, "GET", 1));
        origin.wait_for_calls(1 + count);
    }
    evener.admin().expect_metric("evener_upstream_in_flight", &[], 40.0);
    origin.release();
    crowd.into_iter().for_each(|request| drop(request.join().expect_status(200)));
    assert!(origin.most_streams() > 10, "{} streams at most", origin.most_streams());
    assert!(origin.connections_seen() < 10, "{} connections", origin.connections_seen());
    evener.admin().wait_for_rest();
}

#[test]
fn max_connections_counts_requests_though_they_share_a_connection() {
    let origin = answering("ok");
    let evener = Evener::start(&format!(
        "[pools.app]\nupstreams = [{{ address = \"{}\", max_connections = 3 }}]\nprotocol = \"http2\"\n{UNCHECKED}",
        origin.address()
    ));
    origin.hold();
    let three = in_background(&evener, "GET", 3);
    origin.wait_for_calls(3);
    evener.get("/").expect_status(503);
    origin.release();
    three.into_iter().for_each(|request| drop(request.join().expect_status(200)));
    evener.admin().wait_for_rest();
}

#[test]
fn alpn_settles_the_protocol_over_tls() {
    let (authority, plain) = (AuthorityFolder::new(), Origin::answering("one"));
    let pair = authority.certificate(NAME);
    let with = |protocols: &[&str]| {
        let setup = Setup { http1: Some(plain.address()), ..Setup::http2(|_| Act::ok("two")) };
        setup.over(pair.server(protocols)).start()
    };
    let (both, old, silent) = (with(&["h2", "http/1.1"]), with(&["http/1.1"]), with(&[]));
    let route = |name: &str| format!("[routes.{name}]\npath_prefix = \"/{name}\"\npool = \"{name}\"\n");
    let pool = |name: &str, origin: &Modern, protocol: &str| {
        let address = origin.address();
        let tls = over_tls(&authority);
        format!("[pools.{name}]\nupstreams = [\"{address}\"]\nprotocol = \"{protocol}\"\n{tls}{UNCHECKED}\n")
    };
    let pools = [
        ("h2-both", &both, "http2"),
        ("h2-old", &old, "http2"),
        ("h2-silent", &silent, "http2"),
        ("auto-both", &both, "auto"),
        ("auto-old", &old, "auto"),
        ("auto-silent", &silent, "auto"),
        ("h1-both", &both, "http1"),
    ];
    let text = pools.map(|(name, origin, protocol)| route(name) + &pool(name, origin, protocol)).concat();
    let evener = Evener::start(&text);
    for _ in 0..2 {
        for (name, answer) in [
            ("h2-both", "two"),
            ("auto-both", "two"),
            ("auto-old", "one"),
            ("auto-silent", "one"),
            ("h1-both", "one"),
        ] {
            assert_eq!(evener.get(&format!("/{name}")).expect_status(200).body(), answer, "{name}");
        }
        for name in ["h2-old", "h2-silent"] {
            let answer = evener.get_with(&format!("/{name}"), JSON).expect_status(502);
            assert_eq!(reason_of(&answer), "tls_failure", "{name}");
        }
    }
    let uri = both.calls()[0].uri.to_string();
    assert!(uri.starts_with("https://"), "{uri}");
    evener.wait_for_log("none of the protocols");
    evener.wait_for_log("does not speak HTTP/2");
    evener.admin().wait_for_rest();
}

/// Over HTTP/2 there are no upgrades; ours to an `auto` pool goes over HTTP/1.1.
#[test]
fn a_websocket_is_refused_where_it_cannot_be_and_otherwise_carried() {
    let (authority, echo) = (AuthorityFolder::new(), Origin::serving(Reply::echo_web_socket));
    let server = authority.certificate(NAME).server(&["h2", "http/1.1"]);
    let origin =
        Setup { http1: Some(echo.address()), ..Setup::http2(|_| Act::ok("two")) }.over(server).start();
    let handshake = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

    let evener = unchecked(&[&origin], &over_tls(&authority));
    let answer = evener.get_with("/", &format!("{handshake}{JSON}")).expect_status(501);
    assert_eq!(reason_of(&answer), "upgrade_unsupported");
    assert!(origin.calls().is_empty());
    evener.get("/").expect_status(200);

    let evener = unchecked(&[&origin], &format!("protocol = \"auto\"\n{}", over_tls(&authority)));
    evener.get("/").expect_status(200);
    let mut socket = crate::websocket::open(&evener);
    crate::websocket::echo(&mut socket, "hello");
    assert_eq!(origin.calls().len(), 2, "all else goes over HTTP/2");
}

#[test]
fn an_upstream_that_leaves_in_good_order_costs_nobody_an_answer() {
    let (leaving, other) = (answering("ok"), answering("ok"));
    let evener = Evener::start(
        &text_of(&[&leaving, &other], "")
            .replace("ejection = { enabled = false }", "ejection = { consecutive_failures = 1 }"),
    );
    let address = evener.address();
    let clients: Vec<Background<()>> = ["GET", "POST", "GET", "POST"]
        .map(|method| {
            Background::run(move || {
                let mut client = Client::connect(address);
                (0..150).for_each(|_| {
                    client.request(method, "/", "", b"a body").expect_status(200);
                    thread::sleep(Duration::from_millis(2));
                });
            })
        })
        .into();
    for round in 1..=5 {
        leaving.wait_for_calls(round * 30);
        leaving.leave();
    }
    clients.into_iter().for_each(Background::join);
    evener.admin().expect_metric("evener_upstream_ejections_total", &[], 0.0);
    assert!(leaving.connections_seen() > 1, "it came back");
    evener.admin().wait_for_rest();
}

/// What it refuses it has not begun on, so that any method may go again.
#[test]
fn a_refused_stream_goes_again_whatever_its_method() {
    let refusing = Setup::http2(|_| Act::Reset(Reason::REFUSED_STREAM)).start();
    let other = answering("ok");
    let evener = unchecked(&[&refusing, &other], "[routes.app]\npool = \"app\"\nretry = { budget = 1.0 }");
    for method in ["GET", "POST", "PATCH"] {
        for _ in 0..4 {
            evener.connect().request(method, "/", "", b"a body").expect_status(200);
        }
    }
    assert!(!refusing.calls().is_empty());
    assert!(other.calls().iter().all(|call| call.body == b"a body"));

    let alone = unchecked(&[&refusing], "");
    assert_eq!(
        reason_of(&alone.connect().request("POST", "/", JSON, b"x").expect_status(502)),
        "upstream_reset"
    );
    alone.admin().wait_for_rest();
}

#[test]
fn a_post_is_not_sent_twice_when_its_stream_is_reset() {
    for reason in [Reason::INTERNAL_ERROR, Reason::CANCEL, Reason::NO_ERROR] {
        let (one, two) =
            (Setup::http2(move |_| Act::Reset(reason)), Setup::http2(move |_| Act::Reset(reason)));
        let (one, two) = (one.start(), two.start());
        let evener = unchecked(&[&one, &two], "");
        let answer = evener.connect().request("POST", "/", JSON, b"an order").expect_status(502);
        assert_eq!(reason_of(&answer), "upstream_reset");
        assert_eq!(one.calls().len() + two.calls().len(), 1);
        evener.admin().wait_for_rest();
    }
}

#[test]
fn the_reset_of_one_stream_is_nothing_to_the_others() {
    let origin = Setup::http2(|call| match call.uri.path() {
        "/reset" => Act::Reset(Reason::INTERNAL_ERROR),
        _ => Act::ok("ok"),
    });
    let origin = origin.start();
    let evener = unchecked(&[&origin], "");
    evener.get("/").expect_status(200);
    origin.hold();
    let crowd = in_background(&evener, "GET", 10);
    origin.wait_for_calls(11);
    let resets: Vec<_> = (0..5)
        .map(|_| {
            let address = evener.address();
            Background::run(move || Client::connect(address).request("POST", "/reset", "", b"x"))
        })
        .collect();
    origin.wait_for_calls(16);
    origin.release();
    resets.into_iter().for_each(|request| drop(request.join().expect_status(502)));
    crowd.into_iter().for_each(|request| drop(request.join().expect_status(200)));
    evener.admin().wait_for_rest();
}

#[test]
fn a_connection_that_dies_takes_no_idempotent_request_with_it() {
    let (dying, other) = (answering("ok"), answering("ok"));
    let evener = unchecked(&[&dying, &other], "[routes.app]\npool = \"app\"\nretry = { budget = 1.0 }");
    (0..4).for_each(|_| drop(evener.get("/").expect_status(200)));
    dying.hold();
    // In turns: half of them go each way, and of the three that follow some.
    let gets = in_background(&evener, "GET", 60);
    evener.admin().expect_metric("evener_upstream_in_flight", &[], 30.0);
    let posts = in_background(&evener, "POST", 3);
    wait_until(SOON, || dying.calls().iter().any(|call| call.method == "POST"));
    dying.cut_connections();
    let answers: Vec<u16> = posts.into_iter().map(|request| request.join().status()).collect();
    assert!(answers.contains(&502) && answers.contains(&200), "{answers:?}: once, wherever it was sent");
    dying.release();
    gets.into_iter().for_each(|request| drop(request.join().expect_status(200)));
    (0..4).for_each(|_| drop(evener.get("/").expect_status(200)));
    evener.admin().wait_for_rest();
}

/// The kernel of a hung process takes what is sent, so nothing but a ping tells.
#[test]
fn a_silent_peer_is_found_dead_before_its_requests_give_up() {
    let authority = AuthorityFolder::new();
    let server = authority.certificate(NAME).server(&["h2"]);
    let over = |server| Setup::http2(|_| Act::ok("ok")).over(server).start();
    let (silent, other) = (over(server.clone()), over(server));
    let more = format!("{}timeouts = {{ read = \"24s\" }}\n", over_tls(&authority));
    let evener = unchecked(&[&silent, &other], &more);
    (0..6).for_each(|_| drop(evener.get("/").expect_status(200)));
    assert!(!silent.calls().is_empty());
    silent.freeze();
    let crowd = in_background(&evener, "GET", 8);
    // A timeout would be a 504, and is not tried again.
    crowd.into_iter().for_each(|request| drop(request.join().expect_status(200)));
    evener.admin().wait_for_rest();
}

#[test]
fn an_upstream_that_takes_one_stream_at_a_time_serves_everybody() {
    let origin = Setup { streams_max: Some(1), ..Setup::http2(|_| Act::ok("ok")) }.start();
    let evener = unchecked(&[&origin], "");
    for _ in 0..3 {
        let crowd = in_background(&evener, "POST", 20);
        crowd.into_iter().for_each(|request| drop(request.join().expect_status(200)));
    }
    assert_eq!(origin.most_streams(), 1);
    evener.admin().wait_for_rest();
}

#[test]
fn an_answer_with_a_monstrous_head_is_refused_and_the_connection_lives() {
    let origin = Setup::http2(|call| {
        let fields = if call.uri.path() == "/monster" { 18_000 } else { 20 };
        let field = |number| (format!("x-{number}"), "v".repeat(1000));
        Act::Answer(200, (0..fields).map(field).collect(), "ok".into())
    });
    let origin = origin.start();
    let evener = unchecked(&[&origin], "");
    evener.get("/").expect_status(200);
    let answer = evener.connect().request("POST", "/monster", JSON, b"x").expect_status(502);
    assert!(["bad_response", "upstream_reset"].contains(&&*reason_of(&answer)));
    evener.get("/").expect_status(200);
    evener.admin().wait_for_rest();
}

/// With one window for all streams, a client that does not read would stop everybody else.
#[test]
fn a_client_that_does_not_read_holds_up_nobody() {
    let origin = Setup::http2(|call| match call.uri.path() {
        "/large" => Act::ok(vec![b'x'; 60_000_000]),
        _ => Act::ok("ok"),
    });
    let origin = origin.start();
    // Those who do not read are cut off after a minute; nobody else waits for that.
    let routes = "[routes.slow]\npath_prefix = \"/large\"\npool = \"app\"\n[routes.quick]\npool = \"app\"\ntimeout = \"20s\"";
    let evener = unchecked(&[&origin], routes);
    let mut slow: Vec<Client> = (0..20).map(|_| evener.connect()).collect();
    for client in &mut slow {
        client.start("GET", "/large", "", b"");
        assert!(client.has_bytes_within(SOON), "its answer has begun");
    }
    origin.wait_until_it_stalls();
    (0..50).for_each(|_| drop(evener.get("/").expect_status(200)));
    assert!(origin.connections_seen() < 20, "they share");
    drop(slow);
    evener.admin().wait_for_rest();
}

#[test]
fn an_upstream_that_demands_http1_gets_it_in_an_auto_pool() {
    let (authority, plain) = (AuthorityFolder::new(), Origin::answering("one"));
    let server = authority.certificate(NAME).server(&["h2", "http/1.1"]);
    let setup =
        Setup { http1: Some(plain.address()), ..Setup::http2(|_| Act::Reset(Reason::HTTP_1_1_REQUIRED)) };
    let origin = setup.over(server).start();

    let evener = unchecked(&[&origin], &format!("protocol = \"auto\"\n{}", over_tls(&authority)));
    for _ in 0..3 {
        let answer = evener.connect().request("POST", "/", "", b"a body").expect_status(200);
        assert_eq!(answer.body(), "one");
    }
    assert_eq!(origin.calls().len(), 1, "it is remembered");

    let evener = unchecked(&[&origin], &over_tls(&authority));
    assert_eq!(reason_of(&evener.get_with("/", JSON).expect_status(502)), "bad_response");
    evener.admin().wait_for_rest();
}

#[test]
fn a_client_that_waits_for_100_continue_need_not_wait() {
    let origin = answering("ok");
    let evener = unchecked(&[&origin], "");
    let mut client = evener.connect();
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: {}\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n",
        evener.address()
    ));
    assert!(client.has_bytes_within(SOON), "it is invited");
    let interim = client.read_bytes(b"HTTP/1.1 100 Continue\r\n\r\n".len());
    assert_eq!(interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    client.send("body");
    client.read("POST").expect_status(200);
    let call = &origin.calls()[0];
    assert_eq!((call.body.as_slice(), call.header("expect")), (&b"body"[..], None));
}

#[test]
fn what_is_not_http2_is_a_bad_response() {
    let (old, greeting) = (Origin::answering("ok"), mute_server(b"220 mail.internal ESMTP ready\r\n\r\n"));
    for (address, is_old) in [(old.address(), true), (greeting.to_string(), false)] {
        let evener = Evener::start(&format!(
            "[pools.app]\nupstreams = [\"{address}\"]\nprotocol = \"http2\"\n{UNCHECKED}"
        ));
        let answer = evener.connect().request("POST", "/", JSON, b"x").expect_status(502);
        // An HTTP/1.1 server that reads nothing of it may hang up before its answer is read.
        let reason = reason_of(&answer);
        assert!(reason == "bad_response" || is_old && reason == "upstream_reset", "{address}: {reason}");
        evener.admin().wait_for_rest();
    }
}

#[test]
fn probes_speak_the_protocol_of_the_pool() {
    let origin = Setup::http2(|call| match call.uri.path() {
        "/healthz" => Act::Answer(204, Vec::new(), bytes::Bytes::new()),
        _ => Act::ok("ok"),
    });
    let origin = origin.start();
    let evener = Evener::start(&format!(
        "[pools.app]\nupstreams = [\"{}\"]\nprotocol = \"http2\"\n\
         health_check = {{ path = \"/healthz\", status = [204], host = \"app.internal\", interval = \"200ms\" }}",
        origin.address()
    ));
    evener.get("/").expect_status(200);
    let is_probe = |call: &crate::rig::Call| call.uri == "http://app.internal/healthz";
    wait_until(SOON, || origin.calls().iter().filter(|call| is_probe(call)).count() >= 3);
    let probe = origin.calls().into_iter().find(is_probe).expect("a probe");
    assert_eq!((probe.method.as_str(), probe.header("connection")), ("GET", None));
}

#[test]
fn requests_in_flight_fall_to_none_when_clients_leave() {
    let origin = Setup::http2(|call| match call.uri.path() {
        "/begin" => Act::Begin,
        _ => Act::Hang,
    });
    let origin = origin.start();
    let evener = unchecked(&[&origin], "");
    let clients: Vec<Client> = ["/begin", "/hang", "/begin", "/hang"]
        .map(|path| {
            let mut client = evener.connect();
            client.start("GET", path, "", b"");
            client
        })
        .into();
    origin.wait_for_calls(4);
    evener.admin().expect_metric("evener_upstream_in_flight", &[], 4.0);
    drop(clients);
    evener.admin().wait_for_rest();
}

/// What gRPC is made of.
#[test]
fn from_http2_to_http2_authority_and_trailers_are_kept() {
    let origin = Setup::http2(|_| {
        Act::Trailers("message".into(), vec![("grpc-status", "0"), ("grpc-message", "fine")])
    });
    let origin = origin.start();
    let evener = Evener::start(&format!(
        "[listeners.http]\nhttp2_cleartext = true\n\
         [routes.all]\npath_prefix = \"/v1\"\nstrip_prefix = true\npool = \"app\"\n{}",
        text_of(&[&origin], "")
    ));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (body, trailers) = runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(evener.address()).await.expect("connect");
        let (sender, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
        tokio::spawn(connection);
        let request = http::Request::post("http://api.example/v1/orders.Orders/List")
            .header("te", "trailers")
            .header("content-type", "application/grpc");
        let mut sender = sender.ready().await.expect("a free stream");
        let (response, mut stream) =
            sender.send_request(request.body(()).expect("a request"), false).expect("send");
        stream.send_data("request".into(), true).expect("send");
        let mut body = response.await.expect("an answer").into_body();
        let mut all = Vec::new();
        while let Some(piece) = body.data().await {
            all.extend_from_slice(&piece.expect("a piece"));
        }
        (all, body.trailers().await.expect("an end").expect("trailers"))
    });
    assert_eq!(body, b"message");
    assert_eq!(
        (&trailers["grpc-status"], &trailers["grpc-message"]),
        (&"0".parse().unwrap(), &"fine".parse().unwrap())
    );
    let call = &origin.calls()[0];
    assert_eq!(call.uri, "http://api.example/orders.Orders/List");
    assert_eq!((call.header("te"), call.body.as_slice()), (Some("trailers"), &b"request"[..]));
    evener.admin().wait_for_rest();
}
