//! Responses without an end in sight: server-sent events, and downloads that take long.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::rig::{Background, Evener, Origin, Reply};

/// How long a play waits for what has to come, or has to end.
const SOON: Duration = Duration::from_secs(30);

const EVENTS: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\n";
const EVENTS_IN_CHUNKS: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

fn in_front_of(origin: &Origin, route: &str, timeouts: &str) -> Evener {
    Evener::start(&format!(
        "[routes.all]\npool = \"app\"\n{route}\n[pools.app]\nupstreams = [\"{}\"]\ntimeouts = {{ {timeouts} }}",
        origin.address()
    ))
}

/// The head as far as its empty line.
fn read_head(client: &mut crate::rig::Client) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(client.read_bytes(1));
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// The upstream sends one event and then says nothing: whoever waits for more would wait for ever.
#[test]
fn each_event_is_passed_on_at_once() {
    for (head, event) in [(EVENTS, "data: 1\n\n"), (EVENTS_IN_CHUNKS, "9\r\ndata: 1\n\n\r\n")] {
        let origin = Origin::serving(move |_| Reply::raw(head).then_send(event).then_hang());
        let evener = in_front_of(&origin, "", "");
        let mut client = evener.connect();
        client.start("GET", "/", "", b"");
        let head = read_head(&mut client).to_lowercase();
        assert!(head.starts_with("http/1.1 200") && head.contains("chunked"), "{head}");
        assert_eq!(String::from_utf8_lossy(&client.read_bytes(14)), "9\r\ndata: 1\n\n\r\n");
    }
}

/// By curl, which nobody here wrote: one event after another, each as soon as it is there.
#[test]
fn curl_sees_events_as_they_come() {
    let pause = Duration::from_secs(2);
    let origin = Origin::serving(move |_| {
        Reply::raw(EVENTS).then_send("data: 1\n\n").then_sleep(pause).then_send("data: 2\n\n").then_close()
    });
    let evener = in_front_of(&origin, "timeout = \"1s\"", "read = \"1s\"");
    let ran = Command::new("curl")
        .args(["-sSN", "--max-time", "60", &format!("http://{}/", evener.address())])
        .output()
        .expect("curl runs");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    assert_eq!(String::from_utf8_lossy(&ran.stdout), "data: 1\n\ndata: 2\n\n");
}

#[test]
fn an_event_stream_outlives_the_timeouts_of_requests() {
    let origin = Origin::serving(|_| {
        let slow = Reply::raw(EVENTS).then_send("data: 1\n\n").then_sleep(Duration::from_millis(3500));
        slow.then_send("data: 2\n\n").then_close()
    });
    for (route, timeouts) in [
        ("timeout = \"1s\"", "read = \"1s\""),
        ("timeout = \"0s\"", "read = \"1s\""),
        ("timeout = \"1s\"", ""),
    ] {
        let evener = in_front_of(&origin, route, timeouts);
        assert_eq!(evener.get("/").expect_status(200).body(), "data: 1\n\ndata: 2\n\n", "{route} {timeouts}");
    }
}

#[test]
fn a_silent_event_stream_ends_when_patience_does() {
    let origin = Origin::serving(|_| Reply::raw(EVENTS).then_send("data: 1\n\n").then_hang());
    let evener = in_front_of(&origin, "", "tunnel = \"1s\"");
    let mut client = evener.connect();
    client.start("GET", "/", "", b"");
    read_head(&mut client);
    client.read_bytes(14);
    assert!(client.is_closed_within(SOON));
    evener.admin().wait_for_rest();
}

#[test]
fn events_now_and_then_keep_a_stream_open() {
    let origin =
        Origin::serving(|_| Reply::raw(EVENTS).then_repeat("data: 1\n\n", Duration::from_millis(500)));
    let evener = in_front_of(&origin, "timeout = \"2s\"", "read = \"2s\", tunnel = \"5s\"");
    let mut client = evener.connect();
    client.start("GET", "/", "", b"");
    read_head(&mut client);
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(8) {
        client.read_bytes(14);
    }
}

/// Browsers read events over HTTP/2, too, and say beforehand what they want.
#[test]
fn an_event_stream_over_http2_outlives_the_timeouts_of_requests() {
    let origin = Origin::serving(|_| {
        let slow = Reply::raw(EVENTS).then_send("data: 1\n\n").then_sleep(Duration::from_millis(3500));
        slow.then_send("data: 2\n\n").then_close()
    });
    let evener = in_front_of(
        &origin,
        "timeout = \"1s\"\n[listeners.http]\nhttp2_cleartext = true",
        "read = \"1s\", tunnel = \"60s\"",
    );
    let ran = Command::new("curl")
        .args(["-sSN", "--http2-prior-knowledge", "--max-time", "60", "-H", "Accept: text/event-stream"])
        .arg(format!("http://{}/", evener.address()))
        .output()
        .expect("curl runs");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    assert_eq!(String::from_utf8_lossy(&ran.stdout), "data: 1\n\ndata: 2\n\n");
}

/// Whatever the client says it would like, until there is an answer it is a request like any other.
#[test]
fn the_head_of_an_event_stream_has_to_come_in_time() {
    let origin = Origin::serving(|_| Reply::hang());
    for (route, timeouts) in
        [("timeout = \"1s\"", ""), ("", "read = \"1s\""), ("timeout = \"0s\"", "read = \"1s\"")]
    {
        let evener = in_front_of(&origin, route, timeouts);
        evener.get_with("/", "Accept: text/event-stream\r\n").expect_status(504);
    }
}

#[test]
fn an_answer_that_falls_silent_is_cut() {
    let origin =
        Origin::serving(|_| Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").then_hang());
    for (route, timeouts) in
        [("timeout = \"1s\"", ""), ("", "read = \"1s\""), ("timeout = \"0s\"", "read = \"1s\"")]
    {
        let evener = in_front_of(&origin, route, timeouts);
        let mut client = evener.connect();
        client.start("GET", "/", "", b"");
        read_head(&mut client);
        client.read_bytes(4);
        assert!(client.is_closed_within(SOON), "{route} {timeouts}");
        evener.admin().wait_for_rest();
    }
}

#[test]
fn a_long_download_needs_a_route_without_a_timeout() {
    let origin = Origin::serving(|_| {
        let half = Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf");
        half.then_sleep(Duration::from_secs(3)).then_send("full")
    });
    let evener = in_front_of(&origin, "timeout = \"0s\"", "");
    assert_eq!(evener.get("/").expect_status(200).body(), "halffull");
    let explained = evener.admin().json("/v1/explain?path=/");
    assert!(explained["route"]["timeout_ms"].is_null(), "{explained}");

    let evener = in_front_of(&origin, "timeout = \"1s\"", "");
    let mut client = evener.connect();
    client.start("GET", "/", "", b"");
    assert!(client.try_read("GET").is_err(), "cut in the middle");
}

/// `timeouts.read` is about the upstream. While the client takes nothing, nobody reads from the upstream either.
#[test]
fn a_client_that_reads_slowly_is_not_taken_for_a_silent_upstream() {
    const BYTES: usize = 48 * 1024 * 1024;
    let origin = Origin::serving(|_| {
        Reply::raw(format!("HTTP/1.1 200 OK\r\nContent-Length: {BYTES}\r\n\r\n")).then_send(vec![b'x'; BYTES])
    });
    let evener = in_front_of(&origin, "timeout = \"0s\"", "read = \"2s\"");
    let mut client = evener.connect();
    client.start("GET", "/", "", b"");
    read_head(&mut client);
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(client.read_bytes(BYTES / 2).len(), BYTES / 2);
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(client.read_bytes(BYTES / 2).len(), BYTES / 2);
    evener.admin().wait_for_rest();
}

/// A request is given up for silence, and another upstream answers: what is left of the first attempt must not
/// end the second.
#[test]
fn after_silence_another_upstream_may_answer() {
    let (silent, origin) =
        (Origin::serving(|_| Reply::hang()), Origin::answering("ok").after(Duration::from_millis(700)));
    let evener = Evener::start(&format!(
        "[routes.all]\npool = \"app\"\nretry = {{ on = [\"timeout\"], budget = 1 }}\n[pools.app]\nupstreams = [\"{}\", \"{}\"]\ntimeouts = {{ read = \"1500ms\" }}\nejection = {{ enabled = false }}",
        silent.address(),
        origin.address()
    ));
    let under_way: Vec<Background<_>> = (0..4).map(|_| evener.get_in_background("/")).collect();
    for answer in under_way {
        answer.join().expect_status(200);
    }
}
