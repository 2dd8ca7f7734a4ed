//! Upgraded connections: WebSocket, as browsers speak it.

use std::env;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Message, WebSocket};

use crate::rig::{Client, Evener, Origin, Reply, wait_until};

/// How long a play waits for what has to come, or has to end.
const SOON: Duration = Duration::from_secs(30);

pub(crate) fn echoing() -> Origin {
    Origin::serving(Reply::echo_web_socket)
}

fn in_front_of(origin: &Origin, more: &str) -> Evener {
    Evener::start(&format!("[pools.app]\nupstreams = [\"{}\"]\n{more}", origin.address()))
}

pub(crate) fn open(evener: &Evener) -> WebSocket<TcpStream> {
    let stream = TcpStream::connect(evener.address()).expect("connect");
    stream.set_nodelay(true).expect("no delay");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a time-out");
    let url = format!("ws://{}/socket?room=1", evener.address());
    tungstenite::client(url, stream).expect("the upgrade is accepted").0
}

pub(crate) fn echo(socket: &mut WebSocket<TcpStream>, text: &str) {
    socket.send(Message::text(text)).expect("send");
    assert_eq!(socket.read().expect("an echo"), Message::text(text));
}

#[test]
fn a_websocket_is_carried_both_ways() {
    let origin = echoing();
    let evener = in_front_of(&origin, "");
    let mut socket = open(&evener);

    echo(&mut socket, "hello");
    echo(&mut socket, &"long ".repeat(100_000));
    socket.send(Message::binary(vec![0, 255, 7])).expect("send");
    assert_eq!(socket.read().expect("an echo"), Message::binary(vec![0, 255, 7]));

    let request = origin.only_request();
    assert_eq!(request.target, "/socket?room=1");
    assert!(request.header("upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket")));
    assert_eq!(request.header("sec-websocket-version"), Some("13"));
}

#[test]
fn the_end_of_one_side_is_the_end_of_the_other() {
    let origin = echoing();
    let evener = in_front_of(&origin, "");
    let mut socket = open(&evener);
    echo(&mut socket, "hello");
    origin.cut_connections();
    assert!(socket.read().is_err(), "the upstream is gone");
}

/// apisix#12217, traefik: streams are long by nature and say nothing about the upstream's speed.
#[test]
fn an_open_websocket_is_in_flight_and_a_closed_one_is_not() {
    let origin = echoing();
    let evener = in_front_of(&origin, "");
    let in_flight = || evener.admin().upstream("app", &origin)["in_flight"].as_u64();

    let mut sockets: Vec<_> = (0..10).map(|_| open(&evener)).collect();
    sockets.iter_mut().for_each(|socket| echo(socket, "x"));
    assert_eq!(in_flight(), Some(10));

    drop(sockets);
    wait_until(Duration::from_secs(20), || in_flight() == Some(0));
}

/// PINGORA.md, rule 11: both read time-outs run on the upgraded stream, unless told otherwise.
#[test]
fn a_silent_websocket_outlives_the_timeouts_of_requests() {
    let origin = echoing();
    let evener = Evener::start(&format!(
        r#"
        [listeners.http]
        header_timeout = "2s"
        keepalive_timeout = "2s"
        [routes.all]
        timeout = "2s"
        pool = "app"
        [pools.app]
        upstreams = ["{}"]
        timeouts = {{ connect = "2s", read = "2s", write = "2s" }}
        keepalive = {{ idle = "2s" }}
        "#,
        origin.address()
    ));
    let mut socket = open(&evener);
    echo(&mut socket, "before");
    thread::sleep(Duration::from_millis(4500));
    echo(&mut socket, "after");
}

#[test]
fn a_refused_upgrade_is_passed_on() {
    let origin = Origin::serving(|_| Reply::status(403, "not you"));
    let evener = in_front_of(&origin, "");
    let mut client = evener.connect();
    let headers = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let answer = client.request("GET", "/", headers, b"").expect_status(403);
    assert_eq!(answer.body(), "not you");
}

#[test]
fn a_websocket_fails_over_to_an_upstream_that_is_there() {
    let (gone, origin) = (Origin::absent(), echoing());
    let evener = Evener::start(&format!(
        "[pools.app]\nupstreams = [\"{}\", \"{}\"]\nhealth_check = {{ enabled = false }}",
        gone.address(),
        origin.address()
    ));
    for _ in 0..4 {
        let mut socket = open(&evener);
        echo(&mut socket, "hello");
    }
}

/// caddy#5471, #6420, #7222, apisix#12217: a reload of the pool cut its upgraded connections, or lost count of them.
#[test]
fn a_websocket_outlives_a_reload_of_its_pool() {
    let origin = echoing();
    let evener = in_front_of(&origin, "");
    let in_flight = || evener.admin().upstream("app", &origin)["in_flight"].as_u64();
    let mut socket = open(&evener);
    echo(&mut socket, "before");

    evener.reload(&format!(
        "[pools.app]\nupstreams = [\"{}\"]\ntimeouts = {{ read = \"7s\" }}",
        origin.address()
    ));
    echo(&mut socket, "after");
    assert_eq!(in_flight(), Some(1));
    drop(socket);
    wait_until(Duration::from_secs(10), || in_flight() == Some(0));
}

const HANDSHAKE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// A frame of text from an upstream.
const FRAME: &[u8] = b"\x81\x05hello";

/// The same from a client, with a mask of zeros.
const MASKED_FRAME: &[u8] = b"\x81\x85\0\0\0\0hello";

/// A Close frame that says 1001, going away.
const GOING_AWAY: &[u8] = b"\x88\x02\x03\xe9";

/// A client that has shaken hands, and looks at every byte.
fn open_raw(evener: &Evener) -> Client {
    let mut client = evener.connect();
    client.request("GET", "/", HANDSHAKE, b"").expect_status(101);
    client
}

#[test]
fn an_upgraded_connection_is_counted_where_people_look() {
    let origin = echoing();
    let evener = in_front_of(&origin, "");
    evener.admin().expect_metric("evener_upgraded_connections", &["listener=\"http\""], 0.0);
    let mut sockets: Vec<_> = (0..3).map(|_| open(&evener)).collect();
    sockets.iter_mut().for_each(|socket| echo(socket, "x"));

    evener.admin().expect_metric("evener_upgraded_connections", &["listener=\"http\""], 3.0);
    let stats = evener.admin().json("/v1/stats");
    assert_eq!(stats["listeners"][0]["upgraded_connections"], 3);
    assert_eq!(stats["pools"][0]["upstreams"][0]["upgraded_connections"], 3);
    assert_eq!(evener.admin().json("/v1/status")["listeners"][0]["upgraded_connections"], 3);

    sockets.pop();
    evener.admin().expect_metric("evener_upgraded_connections", &[], 2.0);
    origin.cut_connections();
    evener.admin().expect_metric("evener_upgraded_connections", &[], 0.0);
}

#[test]
fn a_tunnel_that_is_silent_for_too_long_is_closed() {
    let origin = echoing();
    let evener = in_front_of(&origin, "timeouts = { tunnel = \"1s\" }");
    let mut socket = open(&evener);
    echo(&mut socket, "hello");
    assert!(socket.read().is_err(), "it is closed");
    evener.admin().expect_metric("evener_upgraded_connections", &[], 0.0);
    evener.admin().expect_metric("evener_refusals_total", &[], 0.0);
    evener.admin().wait_for_rest();
}

/// Silence is silence in both directions: whoever only listens, or only talks, is not cut.
#[test]
fn traffic_in_one_direction_keeps_a_tunnel_open() {
    let (often, long) = (Duration::from_millis(500), Duration::from_secs(10));
    let talking = Origin::serving(move |request| Reply::accept_web_socket(request).then_repeat(FRAME, often));
    let listening = Origin::serving(|request| Reply::accept_web_socket(request).then_hang());
    let settings = "timeouts = { read = \"1s\", tunnel = \"6s\" }";
    let (behind, before) = (in_front_of(&talking, settings), in_front_of(&listening, settings));
    let (mut listener, mut talker) = (open_raw(&behind), open_raw(&before));
    let started = Instant::now();
    while started.elapsed() < long {
        assert_eq!(listener.read_bytes(FRAME.len()), FRAME);
        talker.send(MASKED_FRAME);
        assert!(!talker.is_closed_within(Duration::from_millis(1)));
    }
}

#[test]
fn an_upstream_that_does_not_answer_a_handshake_is_given_up() {
    let origin = Origin::serving(|_| Reply::hang());
    for settings in ["timeouts = { read = \"1s\" }", "[routes.all]\npool = \"app\"\ntimeout = \"1s\""] {
        let evener = in_front_of(&origin, settings);
        evener.connect().request("GET", "/", HANDSHAKE, b"").expect_status(504);
        evener.admin().wait_for_rest();
    }
}

#[test]
fn a_handshake_may_take_its_time() {
    let origin = echoing().after(Duration::from_secs(2));
    let evener = in_front_of(&origin, "");
    echo(&mut open(&evener), "hello");
}

#[test]
fn every_refusal_of_a_handshake_is_passed_on() {
    for status in [200, 400, 426, 500, 503] {
        let origin = Origin::serving(move |_| {
            Reply::with_headers(status, "Upgrade: other/1\r\nConnection: upgrade\r\n", "no")
        });
        let evener = in_front_of(&origin, "");
        let mut client = evener.connect();
        let answer = client.request("GET", "/", HANDSHAKE, b"").expect_status(status);
        assert_eq!(answer.body(), "no");
        // Pingora cannot be told that there was no body after all, so the connection ends here, and says so.
        assert_eq!(answer.header("connection"), Some("close"));
        assert!(client.is_closed_within(SOON));
        evener.admin().expect_metric("evener_upgraded_connections", &[], 0.0);
    }
}

#[test]
fn a_reset_of_either_side_ends_the_other() {
    let origin = Origin::serving(|request| {
        Reply::accept_web_socket(request).then_sleep(Duration::from_secs(1)).then_reset()
    });
    let evener = in_front_of(&origin, "");
    let mut client = open_raw(&evener);
    assert!(client.is_closed_within(SOON));
    evener.admin().wait_for_rest();

    let origin = Origin::serving(|request| Reply::accept_web_socket(request).then_hang());
    let evener = in_front_of(&origin, "");
    let client = open_raw(&evener);
    client.reset();
    origin.wait_until_all_are_closed();
    evener.admin().wait_for_rest();
    evener.admin().expect_metric("evener_upgraded_connections", &[], 0.0);
}

/// An end of sending is an end: `WebSocket`s say goodbye in frames.
#[test]
fn a_half_closed_tunnel_is_closed() {
    let origin = Origin::serving(|request| Reply::accept_web_socket(request).then_hang());
    let evener = in_front_of(&origin, "");
    let mut client = open_raw(&evener);
    client.send(MASKED_FRAME);
    client.finish_sending();
    assert!(client.is_closed_within(SOON));
    origin.wait_until_all_are_closed();
    assert!(origin.bytes_received().ends_with(MASKED_FRAME), "what was sent before arrives");
}

#[test]
fn a_thousand_tunnels_stand_at_a_time() {
    const TUNNELS: usize = 1_000;
    let origin = echoing();
    let evener = in_front_of(&origin, "");
    let mut sockets: Vec<_> = (0..TUNNELS).map(|_| open(&evener)).collect();
    sockets.iter_mut().for_each(|socket| echo(socket, "here"));
    evener.admin().expect_metric("evener_upgraded_connections", &[], 1_000.0);
    sockets.iter_mut().for_each(|socket| echo(socket, "still"));
    drop(sockets);
    evener.admin().expect_metric("evener_upgraded_connections", &[], 0.0);
    evener.admin().wait_for_rest();
}

#[test]
fn tunnels_count_for_least_connections() {
    let (one, two) = (echoing(), echoing());
    let evener = Evener::start(&format!(
        "[pools.app]\nstrategy = \"least_connections\"\nupstreams = [\"{}\", \"{}\"]",
        one.address(),
        two.address()
    ));
    let mut sockets: Vec<_> = (0..10).map(|_| open(&evener)).collect();
    sockets.iter_mut().for_each(|socket| echo(socket, "x"));
    assert_eq!((one.requests_seen(), two.requests_seen()), (5, 5));
}

#[test]
fn a_tunnel_outlives_its_upstream_in_the_configuration() {
    let (origin, other) = (echoing(), echoing());
    let evener = in_front_of(&origin, "");
    let mut socket = open(&evener);
    echo(&mut socket, "before");
    evener.reload(&format!("[pools.app]\nupstreams = [\"{}\"]", other.address()));
    echo(&mut socket, "after");
    evener.reload(&format!("[pools.other]\nupstreams = [\"{}\"]", other.address()));
    echo(&mut socket, "and after that");
    evener.admin().expect_metric("evener_upgraded_connections", &[], 1.0);
}

#[test]
fn a_drained_upstream_is_not_safe_to_stop_while_it_has_a_tunnel() {
    let (origin, other) = (echoing(), echoing());
    let evener = Evener::start(&format!(
        "[pools.app]\nupstreams = [\"{}\", {{ address = \"{}\", backup = true }}]",
        origin.address(),
        other.address()
    ));
    let mut socket = open(&evener);
    echo(&mut socket, "before");
    let drain = |wait: &str| {
        let path = format!("/v1/pools/app/upstreams/{}/drain?wait={wait}", origin.address_in_a_path());
        evener.admin().post(&path, "").expect_status(200).json()
    };
    let report = drain("0s");
    assert_eq!((&report["in_flight"], &report["safe_to_stop"]), (&1.into(), &false.into()));
    echo(&mut socket, "it lives on");
    drop(socket);
    assert_eq!(drain("30s")["safe_to_stop"], true);
}

/// A drain lets `WebSocket`s be until shortly before its end, then tells both sides why it goes.
#[test]
fn both_sides_hear_of_the_end_of_a_drain() {
    let origin = Origin::serving(|request| Reply::accept_web_socket(request).then_send(FRAME).then_hang());
    let mut evener = in_front_of(&origin, "[server]\ndrain_timeout = \"15s\"");
    let (mut quiet, mut busy) = (open_raw(&evener), open_raw(&evener));
    assert_eq!(quiet.read_bytes(FRAME.len()), FRAME);
    evener.signal("TERM");
    evener.wait_for_log("draining");
    assert!(!quiet.has_bytes_within(Duration::from_secs(2)), "before the end nobody is told");
    busy.send(MASKED_FRAME);
    assert_eq!(busy.read_bytes(FRAME.len()), FRAME);
    for client in [&mut quiet, &mut busy] {
        assert_eq!(client.read_bytes(GOING_AWAY.len()), GOING_AWAY);
        client.send(b"\x88\x82\0\0\0\0\x03\xe9");
        client.finish_sending();
        assert!(client.is_closed_within(SOON));
    }
    assert!(evener.ends_within(SOON).is_some_and(|status| status.success()));
    evener.wait_for_log("drained");
    wait_until(SOON, || {
        let received = origin.bytes_received();
        let closes = received.windows(8).filter(|window| {
            let mask = [window[2], window[3]];
            window.starts_with(b"\x88\x82") && [window[6] ^ mask[0], window[7] ^ mask[1]] == [0x03, 0xe9]
        });
        closes.count() == 2
    });
}

#[test]
fn a_real_client_and_a_real_server_close_in_good_order() {
    let origin = echoing();
    let mut evener = in_front_of(&origin, "[server]\ndrain_timeout = \"15s\"");
    let mut socket = open(&evener);
    echo(&mut socket, "before");
    evener.signal("TERM");
    evener.wait_for_log("draining");
    echo(&mut socket, "it lives on");
    match socket.read().expect("a frame") {
        Message::Close(Some(close)) => assert_eq!(close.code, CloseCode::Away),
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        socket.read(),
        Err(tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed)
    ));
    assert!(evener.ends_within(SOON).is_some_and(|status| status.success()));
    origin.wait_until_all_are_closed();
}

/// A Close frame in the middle of another one would be payload.
#[test]
fn nobody_is_told_in_the_middle_of_a_frame() {
    let origin =
        Origin::serving(|request| Reply::accept_web_socket(request).then_send(&FRAME[..4]).then_hang());
    let mut evener = in_front_of(&origin, "[server]\ndrain_timeout = \"2s\"");
    let mut client = open_raw(&evener);
    client.send(&MASKED_FRAME[..8]);
    assert_eq!(client.read_bytes(4), FRAME[..4]);
    evener.signal("TERM");
    assert!(client.is_closed_within(SOON), "without another byte");
    assert!(evener.ends_within(SOON).is_some());
    origin.wait_until_all_are_closed();
    assert!(origin.bytes_received().ends_with(&MASKED_FRAME[..8]));
}

/// The frame under way is finished, the Close frame follows it, and what comes behind is dropped.
#[test]
fn a_frame_under_way_is_finished_first() {
    const REST: usize = MASKED_FRAME.len() - 8;
    let origin = Origin::serving(|request| {
        let accepted = Reply::accept_web_socket(request);
        if request.target == "/quiet" {
            return accepted.then_hang();
        }
        let half = accepted.then_send(&FRAME[..4]).then_wait_for(8 + REST);
        half.then_send([&FRAME[4..], FRAME].concat()).then_hang()
    });
    let mut evener = in_front_of(&origin, "[server]\ndrain_timeout = \"12s\"");
    let (mut quiet, mut client) = (evener.connect(), open_raw(&evener));
    quiet.request("GET", "/quiet", HANDSHAKE, b"").expect_status(101);
    assert_eq!(client.read_bytes(4), FRAME[..4]);
    client.send(&MASKED_FRAME[..8]);
    evener.signal("TERM");
    // Now it is time; the other tunnel will know it in a moment.
    assert_eq!(quiet.read_bytes(GOING_AWAY.len()), GOING_AWAY);
    thread::sleep(Duration::from_millis(300));
    client.send([&MASKED_FRAME[8..], MASKED_FRAME].concat());
    assert_eq!(client.read_bytes(FRAME.len() - 4 + GOING_AWAY.len()), [&FRAME[4..], GOING_AWAY].concat());
    client.finish_sending();
    assert!(client.is_closed_within(SOON));
    drop(quiet);
    assert!(evener.ends_within(SOON).is_some());
    origin.wait_until_all_are_closed();
    let received = origin.bytes_received();
    let frame = received.windows(MASKED_FRAME.len()).position(|window| window == MASKED_FRAME);
    let rest = &received[frame.expect("the frame is whole") + MASKED_FRAME.len()..];
    // What follows, if anything, came on the other connection.
    let (close, other) = rest.split_at(8);
    assert!(close.starts_with(b"\x88\x82") && (other.is_empty() || other.starts_with(b"GET")), "{rest:?}");
}

/// By `websockets` from `PyPI`, on both sides: large messages, fragments, pings, compression, subprotocols, and
/// close codes, through Evener.
#[test]
fn clients_and_servers_that_nobody_here_wrote_understand_each_other() {
    let Some(python) = find_python() else { return };
    let port = crate::rig::reserve_port();
    let evener = Evener::start(&format!(
        "[pools.app]\nupstreams = [\"127.0.0.1:{port}\"]\nhealth_check = {{ enabled = false }}"
    ));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/behaviour/websocket/conversation.py");
    let ran = Command::new(python)
        .arg(script)
        .args([port.to_string(), evener.address().to_string()])
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("Python runs");
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{said}{}", String::from_utf8_lossy(&ran.stderr));
    evener.admin().expect_metric("evener_upgraded_connections", &[], 0.0);
}

/// Where `make setup` puts it. If it is not there, the play fails with what to do; where
/// `CI_ALLOW_MISSING` is set, it is left out, and says so.
fn find_python() -> Option<PathBuf> {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/websockets/bin/python");
    if program.is_file() {
        return Some(program);
    }
    assert!(env::var_os("CI_ALLOW_MISSING").is_some(), "the websockets package is missing: run `make setup`");
    eprintln!("!!! LEFT OUT, the websockets package is missing: run `make setup`");
    None
}

#[test]
fn the_example_carries_websockets_and_events() {
    let [one, two] = [(); 2].map(|()| {
        Origin::serving(|request| match request.header("upgrade") {
            Some(_) => Reply::echo_web_socket(request),
            None => Reply::raw("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
                .then_close(),
        })
    });
    let text = include_str!("../../examples/websocket/evener.toml")
        .replace("127.0.0.1:8080", &format!("127.0.0.1:{}", crate::rig::reserve_port()))
        .replace("127.0.0.1:9900", &format!("127.0.0.1:{}", crate::rig::reserve_port()))
        .replace("127.0.0.1:9001", &one.address())
        .replace("127.0.0.1:9002", &two.address());
    let evener = Evener::start_on_text(&text);
    let mut sockets: Vec<_> = (0..4).map(|_| open(&evener)).collect();
    sockets.iter_mut().for_each(|socket| echo(socket, "hello"));
    assert_eq!((one.requests_seen(), two.requests_seen()), (2, 2));
    assert_eq!(evener.get("/events").expect_status(200).body(), "data: 1\n\n");
}
