//! The rig against itself: a client straight to an origin. When a play fails, it is not the rig's reader.

use std::io::{Read, Write};
use std::time::Duration;

use super::client::Client;
use super::origin::{Origin, Reply};
use super::{Socket, unreachable_address, wait_until};

fn connect(origin: &Origin) -> Client {
    Client::connect(origin.address().parse().expect("a TCP origin"))
}

#[test]
fn sized_chunked_and_closed_bodies_are_read_to_their_end() {
    let origin = Origin::serving(|request| match request.target.as_str() {
        "/sized" => Reply::ok("sized"),
        "/chunked" => Reply::chunked(&["chun", "ked"], "X-Sum: 7\r\n"),
        _ => Reply::raw("HTTP/1.1 200 OK\r\n\r\nuntil the end").then_close(),
    });
    let mut client = connect(&origin);

    assert_eq!(client.get("/sized").body(), "sized");
    let chunked = client.get("/chunked");
    assert_eq!(chunked.body(), "chunked");
    assert_eq!(chunked.trailers(), &[("X-Sum".to_owned(), "7".to_owned())]);
    let closed = client.get("/closed");
    assert_eq!(closed.body(), "until the end");
    assert!(closed.ended_by_close);
    assert_eq!(origin.connections_seen(), 1);
}

#[test]
fn answers_without_a_body_leave_the_connection_usable() {
    let origin = Origin::serving(|request| match request.target.as_str() {
        "/204" => Reply::raw("HTTP/1.1 204 No Content\r\n\r\n"),
        "/304" => Reply::raw("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"),
        _ => Reply::ok("body"),
    });
    let mut client = connect(&origin);

    assert_eq!(client.get("/204").body(), "");
    assert_eq!(client.get("/304").body(), "");
    let head = client.request("HEAD", "/", "", b"");
    assert_eq!((head.header("content-length"), head.body().as_str()), (Some("4"), ""));
    assert_eq!(client.get("/").body(), "body");
}

#[test]
fn early_hints_come_before_the_answer() {
    let origin = Origin::serving(|_| {
        Reply::raw("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n").then_send("HTTP/1.1 204 No\r\n\r\n")
    });
    let answer = connect(&origin).get("/");
    assert_eq!((answer.informational.as_slice(), answer.status()), (&[103][..], 204));
}

#[test]
fn an_origin_keeps_the_exact_bytes_of_requests_and_leaves_out_probes() {
    let origin = Origin::answering("hello");
    let mut client = connect(&origin);
    let probe = "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";
    let post = "POST /a?b=c HTTP/1.1\r\nhOst:  a\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nhi\r\n0\r\nT: 1\r\n\r\n";

    client.send(format!("{probe}{post}{probe}"));
    let answers = [client.read("GET"), client.read("POST"), client.read("GET")].map(|answer| answer.body());

    assert_eq!(answers, ["well", "hello", "well"]);
    let request = origin.only_request();
    assert_eq!(request.raw, post.as_bytes());
    assert_eq!((request.body.as_slice(), request.trailers[0].1.as_str()), (&b"hi"[..], "1"));
    assert_eq!(origin.bytes_received(), post.as_bytes());
    assert_eq!(origin.probes_seen(), 2);
}

#[test]
fn a_sick_origin_fails_its_probes_only() {
    let origin = Origin::answering("still here");
    origin.fall_sick();
    assert_eq!(connect(&origin).get("/healthz").status(), 503);
    assert_eq!(connect(&origin).get("/").status(), 200);
    origin.get_well();
    assert_eq!(connect(&origin).get("/healthz").status(), 200);
}

#[test]
fn a_refusing_origin_comes_back_on_the_same_port() {
    let origin = Origin::answering("here");
    let address = origin.address().parse().expect("a TCP origin");
    origin.refuse();
    assert!(Client::try_connect(address).is_err());
    origin.listen_again();
    assert_eq!(Client::connect(address).get("/").body(), "here");
}

#[test]
fn a_dying_origin_ends_open_connections() {
    let origin = Origin::serving(|_| Reply::hang());
    let mut client = connect(&origin);
    client.start("GET", "/", "", b"");
    origin.wait_for_request();
    origin.die();
    assert!(client.is_closed_within(Duration::from_secs(20)));
}

#[test]
fn a_reset_is_seen_as_one() {
    let origin =
        Origin::serving(|_| Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").then_reset());
    let mut client = connect(&origin);
    client.start("GET", "/", "", b"");
    let error = client.try_read("GET").expect_err("no whole answer");
    assert!(
        matches!(error.kind(), std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::UnexpectedEof),
        "{error:?}"
    );
}

#[test]
fn an_idle_connection_is_closed_at_its_limit_and_not_before() {
    let origin = Origin::answering("a").closing_idle_after(Duration::from_secs(2));
    let mut client = connect(&origin);
    client.get("/");
    assert!(!client.is_closed_within(Duration::from_millis(50)));
    assert!(client.is_closed_within(Duration::from_secs(20)));
}

#[test]
fn a_connection_without_a_byte_is_a_tcp_probe() {
    let origin = Origin::answering("a");
    drop(connect(&origin));
    wait_until(Duration::from_secs(20), || origin.tcp_probes_seen() == 1);
    assert_eq!((origin.connections_seen(), origin.requests_seen()), (0, 0));
}

#[test]
fn a_held_origin_answers_when_it_is_released() {
    let origin = Origin::answering("late");
    origin.hold();
    let mut client = connect(&origin);
    client.start("GET", "/", "", b"");
    origin.wait_for_request();
    assert!(!client.is_closed_within(Duration::from_millis(50)));
    origin.release();
    assert_eq!(client.read("GET").body(), "late");
    assert_eq!(origin.most_under_way(), 1);
}

#[test]
fn an_upgraded_connection_sends_everything_back() {
    let origin = Origin::serving(|_| Reply::echo_bytes("echo"));
    let mut client = connect(&origin);
    let answer = client.request("GET", "/", "Connection: upgrade\r\nUpgrade: echo\r\n", b"");
    assert_eq!(answer.status(), 101);
    let mut socket: Socket = client.into_socket();
    socket.write_all(b"ping").expect("send");
    let mut back = [0; 4];
    socket.read_exact(&mut back).expect("read");
    assert_eq!(&back, b"ping");
}

#[test]
fn an_unreachable_address_neither_accepts_nor_refuses() {
    let patience = Duration::from_millis(300);
    let error =
        std::net::TcpStream::connect_timeout(&unreachable_address(), patience).expect_err("no connection");
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
}
