//! What is malformed or ambiguous is refused, quickly, and not one byte of it reaches an upstream.
//!
//! The request smuggled in each ambiguous play is `GET /smuggled`: wherever two readers could disagree
//! about where a request ends, an upstream that saw it would answer it for somebody else.

use std::thread;
use std::time::{Duration, Instant};

use crate::rig::{Evener, Origin, Reply};

fn in_front_of(origin: &Origin, listener: &str) -> Evener {
    Evener::start(&format!(
        "[listeners.http]\n{listener}\n[pools.app]\nupstreams = [\"{}\"]",
        origin.address()
    ))
}

/// Sends the bytes; expects this status, the connection closed, and an upstream that saw nothing.
#[track_caller]
fn refused(evener: &Evener, origin: &Origin, bytes: impl AsRef<[u8]>, status: u16) {
    let bytes = bytes.as_ref();
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned();
    let mut client = evener.connect();
    client.send_if_open(bytes);
    let answer = client.try_read("GET");
    let answer = answer.unwrap_or_else(|error| panic!("{error} for {shown:?}"));
    let answer = answer.unwrap_or_else(|| panic!("closed without a word for {shown:?}"));
    assert_eq!(answer.status(), status, "{shown:?}\n{answer}");
    assert!(client.is_closed_within(Duration::from_secs(20)), "still open after {shown:?}");
    let received = origin.bytes_received();
    assert!(
        received.is_empty(),
        "{shown:?} reached the upstream as {:?}",
        String::from_utf8_lossy(&received)
    );
}

/// Each of these on a connection of its own is a 400.
#[track_caller]
fn all_refused(requests: &[&[u8]]) {
    let origin = Origin::answering("ok");
    let evener = in_front_of(&origin, "");
    for request in requests {
        refused(&evener, &origin, request, 400);
    }
    // None of it has harmed the process.
    evener.get("/").expect_status(200);
}

#[test]
fn both_lengths_are_refused() {
    all_refused(&[
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\nG",
        b"POST / HTTP/1.1\r\nHost: a\r\ncontent-length: 0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ]);
}

#[test]
fn repeated_lengths_are_refused() {
    all_refused(&[
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n123456",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n12345",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n12345",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 44\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n   ",
    ]);
}

#[test]
fn bad_lengths_are_refused() {
    let lengths = [
        "-1",
        "+5",
        "5x",
        "0x5",
        "5 5",
        "",
        "1e1",
        "5;",
        "'5'",
        "18446744073709551617",
        "99999999999999999999999",
    ];
    let requests =
        lengths.map(|length| format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n12345"));
    all_refused(&requests.iter().map(String::as_bytes).collect::<Vec<_>>());
}

#[test]
fn obfuscated_transfer_encodings_are_refused() {
    let codings = [
        "xchunked",
        "chunked, identity",
        "identity, chunked",
        "gzip, chunked",
        "chunked, chunked",
        "chunked;q=1",
        "\"chunked\"",
        "\x0bchunked",
        "chunk\x0bed",
        "identity",
        "gzip",
        "",
        "chunked,",
        ", chunked",
    ];
    let requests = codings
        .map(|coding| format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: {coding}\r\n\r\n0\r\n\r\n"));
    all_refused(&requests.iter().map(String::as_bytes).collect::<Vec<_>>());
}

#[test]
fn transfer_encoding_twice_is_refused() {
    all_refused(&[
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ]);
}

/// HTTP/1.0 knows no chunks: the one who reads it by the letter takes the body for the next request.
#[test]
fn chunks_in_http_1_0_are_refused() {
    all_refused(&[b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"]);
}

#[test]
fn a_bare_line_feed_is_refused() {
    all_refused(&[
        b"GET / HTTP/1.1\nHost: a\n\n",
        b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: b\n\r\n",
        b"GET / HTTP/1.1\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\n",
    ]);
}

#[test]
fn a_bare_carriage_return_is_refused() {
    all_refused(&[
        b"GET / HTTP/1.1\r\nHost: a\r\nX: b\rY: c\r\n\r\n",
        b"GET / HTTP/1.1\rHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n",
    ]);
}

#[test]
fn a_space_before_the_colon_is_refused() {
    all_refused(&[
        b"GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\n12345",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n",
    ]);
}

#[test]
fn a_folded_header_is_refused() {
    all_refused(&[
        b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n\tc\r\n\r\n",
        b"GET / HTTP/1.1\r\n Host: a\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    ]);
}

#[test]
fn nul_and_control_bytes_are_refused() {
    all_refused(&[
        b"GET / HTTP/1.1\r\nHost: a\r\nX: b\x00c\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX\x00Y: b\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: b\x01c\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: b\x7fc\r\n\r\n",
    ]);
}

#[test]
fn a_name_that_is_no_token_is_refused() {
    all_refused(&[
        b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX(Y): b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX\xffY: b\r\n\r\n",
    ]);
}

#[test]
fn a_missing_host_is_refused_and_two_are() {
    all_refused(&[
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: user@a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
    ]);
}

#[test]
fn an_absolute_target_that_contradicts_host_is_refused() {
    all_refused(&[
        b"GET http://inside.example/ HTTP/1.1\r\nHost: outside.example\r\n\r\n",
        b"GET http://a:81/ HTTP/1.1\r\nHost: a:82\r\n\r\n",
        b"GET http://user@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET http:// HTTP/1.1\r\nHost: a\r\n\r\n",
    ]);
}

#[test]
fn a_request_line_that_is_none_is_refused() {
    all_refused(&[
        b"GET /\r\nHost: a\r\n\r\n",
        b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
        b" GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
        b"GET / http/1.1\r\nHost: a\r\n\r\n",
        b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
        b"G(T / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET nothing HTTP/1.1\r\nHost: a\r\n\r\n",
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ]);
}

#[test]
fn a_tunnel_to_anywhere_is_refused() {
    let origin = Origin::answering("ok");
    let evener = in_front_of(&origin, "");
    let answer = evener.request("CONNECT inside.example:22 HTTP/1.1\r\nHost: inside.example:22\r\n\r\n");
    assert!(matches!(answer.status(), 400 | 405), "{answer}");
    assert!(origin.bytes_received().is_empty());
}

/// The head was good and went on; the body turns out to be broken. Nothing of it may look complete.
#[test]
fn broken_chunks_end_the_request_and_never_begin_another() {
    let bodies = [
        "zz\r\nhello\r\n0\r\n\r\n",
        "5\r\nhelloXX0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "5;\nx\r\nhello\r\n0\r\n\r\n",
    ];
    for body in bodies {
        let origin = Origin::serving(|request| Reply::ok(&request.target));
        let evener = in_front_of(&origin, "");
        let mut client = evener.connect();
        client.send_if_open(format!(
            "POST /first HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
        ));
        let first = client.try_read("POST").ok().flatten().map(|answer| answer.status());
        assert!(first.is_none_or(|status| status >= 400), "{body:?} was answered {first:?}");
        assert!(client.is_closed_within(Duration::from_secs(20)), "still open after {body:?}");
        let smuggled = String::from_utf8_lossy(&origin.bytes_received()).contains("GET /smuggled");
        assert!(!smuggled, "{body:?}");
        assert!(origin.requests().is_empty(), "{body:?} looked complete to the upstream");
    }
}

/// What the client calls the body of its first request stays a body.
#[test]
fn a_request_hidden_in_a_body_stays_there() {
    let origin = Origin::serving(|request| Reply::ok(&request.target));
    let evener = in_front_of(&origin, "");
    let hidden = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(evener.post("/first", hidden).expect_status(200).body(), "/first");
    assert_eq!(evener.get("/second").expect_status(200).body(), "/second");
    let targets: Vec<String> = origin.requests().into_iter().map(|request| request.target).collect();
    assert_eq!(targets, ["/first", "/second"]);
    assert_eq!(origin.requests()[0].body, hidden);
}

/// After a refusal the upstream's connection must not be left with a request that never ends.
#[test]
fn an_answer_to_an_unread_body_does_not_leave_it_to_the_next_request() {
    let origin = Origin::serving(|request| Reply::ok(&request.target));
    let evener = Evener::start(&format!(
        "[routes.app]\nhosts = [\"a\"]\npool = \"app\"\n[pools.app]\nupstreams = [\"{}\"]",
        origin.address()
    ));
    let mut client = evener.connect();
    client.send_if_open(
        "POST /refused HTTP/1.1\r\nHost: nobody\r\nContent-Length: 40\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n12345",
    );
    assert_eq!(client.read("POST").status(), 404);
    let second = client.try_read("GET");
    assert!(!second.as_ref().is_ok_and(Option::is_some), "{second:?}");
    assert!(origin.bytes_received().is_empty());
}

#[test]
fn a_head_that_is_too_large_is_a_431() {
    let origin = Origin::answering("ok");
    let evener = in_front_of(&origin, "max_header_size = \"8KiB\"");
    let fits = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(7 * 1024));
    evener.request(fits).expect_status(200);

    let origin = Origin::answering("ok");
    let evener = in_front_of(&origin, "max_header_size = \"8KiB\"");
    let one_long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(9 * 1024));
    refused(&evener, &origin, one_long, 431);
    let many: String = (0..600).map(|turn| format!("X-{turn}: some value\r\n")).collect();
    refused(&evener, &origin, format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"), 431);
    let endless = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(100 * 1024));
    refused(&evener, &origin, endless, 431);
    let long_line = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(20 * 1024));
    refused(&evener, &origin, long_line, 431);
}

#[test]
fn a_head_of_many_headers_within_its_limit_is_served() {
    let origin = Origin::answering("ok");
    let evener = in_front_of(&origin, "");
    let many: String = (0..200).map(|turn| format!("X-{turn}: v\r\n")).collect();
    evener.request(format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n")).expect_status(200);
    assert_eq!(origin.only_request().header("x-199"), Some("v"));
}

#[test]
fn a_body_that_is_too_large_is_a_413() {
    let origin = Origin::answering("ok");
    let evener = in_front_of(&origin, "max_body_size = \"1KiB\"");
    let mut client = evener.connect();
    client.request("POST", "/", "", &[b'x'; 1024]).expect_status(200);
    let seen = origin.bytes_received();

    let mut client = evener.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1025\r\n\r\n");
    client.read("POST").expect_status(413);
    assert!(client.is_closed_within(Duration::from_secs(20)));
    assert_eq!(origin.bytes_received(), seen, "an announced size is refused before anything goes on");
}

#[test]
fn a_body_that_grows_too_large_is_a_413_too() {
    let origin = Origin::answering("ok");
    let evener = in_front_of(&origin, "max_body_size = \"1KiB\"");
    let mut client = evener.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..3 {
        client.send_if_open(format!("200\r\n{}\r\n", "x".repeat(512)));
        thread::sleep(Duration::from_millis(20));
    }
    client.read("POST").expect_status(413);
    assert!(client.is_closed_within(Duration::from_secs(20)));
    assert!(origin.requests().is_empty(), "the upstream saw no complete request");
}

/// Also when the bytes keep coming: the deadline is for the head, not for each read.
#[test]
fn a_slow_head_is_a_408() {
    let origin = Origin::answering("ok");
    let evener = in_front_of(&origin, "header_timeout = \"400ms\"");
    let started = Instant::now();
    let mut client = evener.connect();
    client.send("GET / HTTP/1.1\r\n");
    for turn in 0.. {
        thread::sleep(Duration::from_millis(100));
        if started.elapsed() > Duration::from_millis(1500) || !client.send_if_open(format!("X-{turn}: y\r\n"))
        {
            break;
        }
        if client.has_bytes_within(Duration::from_millis(1)) {
            break;
        }
    }
    client.read("GET").expect_status(408);
    assert!(started.elapsed() >= Duration::from_millis(350), "{:?}", started.elapsed());
    assert!(client.is_closed_within(Duration::from_secs(20)));
    assert!(origin.bytes_received().is_empty());
}

#[test]
fn a_connection_that_never_says_a_word_is_closed() {
    let origin = Origin::answering("ok");
    let evener = in_front_of(&origin, "header_timeout = \"300ms\"\nkeepalive_timeout = \"300ms\"");
    let mut client = evener.connect();
    assert!(client.is_closed_within(Duration::from_secs(20)));
}

/// Pingora refuses some targets by itself: that answer has no id and is neither logged nor counted.
#[test]
fn an_unreadable_target_or_value_is_refused_by_us() {
    let origin = Origin::answering("ok");
    let evener = in_front_of(&origin, "");
    let targets = (0x21..=0xff_u8).flat_map(|byte| [vec![b'/', byte], vec![b'/', b'?', byte]]);
    let lines =
        targets.map(|target| [b"GET ".to_vec(), target, b" HTTP/1.1\r\nHost: a\r\n".to_vec()].concat());
    let values = (0..0x80_u8).filter(|byte| *byte != b'\n').flat_map(|byte| {
        let line = |value: &[u8]| [b"GET / HTTP/1.1\r\nHost: a\r\nX:", value, b"\r\n"].concat();
        [line(&[byte]), line(&[byte, b'a']), line(&[b'a', byte])]
    });
    let absolute = std::iter::once(b"GET http://[[/ HTTP/1.1\r\nHost: [[\r\n".to_vec());
    let mut refused = 0.0;
    for head in lines.chain(values).chain(absolute) {
        let answer = evener.request([&head[..], b"Connection: close\r\n\r\n"].concat());
        let shown = head.escape_ascii();
        assert!(answer.status() == 200 || answer.header("x-request-id").is_some(), "{shown}\n{answer}");
        refused += f64::from(u8::from(answer.status() == 400));
    }
    evener.admin().expect_metric("evener_refusals_total", &["reason=\"bad_request\""], refused);
}

#[test]
fn refusals_are_counted_by_their_reason() {
    let origin = Origin::answering("ok");
    let evener = in_front_of(&origin, "");
    evener.request("GET / HTTP/1.1\r\n\r\n").expect_status(400);
    evener.request("GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n").expect_status(400);
    evener.admin().expect_metric("evener_refusals_total", &["reason=\"bad_request\""], 2.0);
}
