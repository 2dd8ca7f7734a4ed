//! Upgraded connections: WebSocket, as browsers speak it.

use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use tungstenite::{Message, WebSocket};

use crate::rig::{Evener, Origin, Reply, wait_until};

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
