//! Limits: every one of them is kept, and what is within them is served.

use std::thread;
use std::time::{Duration, Instant};

use crate::rig::{Client, Evener, Origin, Reply, wait_until};

fn listener(origin: &Origin, settings: &str) -> Evener {
    Evener::start(&format!(
        "[listeners.http]\n{settings}\n[pools.app]\nupstreams = [\"{}\"]",
        origin.address()
    ))
}

/// PINGORA.md, rule 6: its own default is for ever.
#[test]
fn an_idle_client_connection_is_closed_at_its_limit_and_not_before() {
    let origin = Origin::answering("ok");
    let evener = listener(&origin, "keepalive_timeout = \"4s\"");
    let mut client = evener.connect();
    for _ in 0..3 {
        client.get("/").expect_status(200);
        thread::sleep(Duration::from_millis(1500));
    }
    client.get("/").expect_status(200);
    let started = Instant::now();
    assert!(client.is_closed_within(Duration::from_secs(20)));
    assert!(started.elapsed() > Duration::from_secs(3), "{:?}", started.elapsed());
}

/// A request that takes longer than the idle limit is not idle.
#[test]
fn the_idle_limit_does_not_cut_a_slow_request() {
    let origin = Origin::answering("ok").after(Duration::from_millis(4500));
    let evener = listener(&origin, "keepalive_timeout = \"2s\"\nheader_timeout = \"2s\"");
    evener.get("/").expect_status(200);
}

#[test]
fn connections_beyond_the_limit_wait_or_are_turned_away_and_the_others_are_served() {
    let origin = Origin::answering("ok");
    let evener = listener(&origin, "max_connections = 4");
    // Evener has tried its listener itself.
    evener.admin().expect_metric("evener_connections", &["listener=\"http\""], 0.0);
    let mut within: Vec<Client> = (0..4).map(|_| evener.connect()).collect();
    within.iter_mut().for_each(|client| drop(client.get("/").expect_status(200)));

    let mut beyond = evener.connect();
    beyond.send_if_open("GET /beyond HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(!beyond.has_bytes_within(Duration::from_millis(300)) || beyond.read("GET").status() == 503);
    within.iter_mut().for_each(|client| drop(client.get("/").expect_status(200)));
    assert!(origin.requests().iter().all(|request| request.target != "/beyond"));

    drop(within);
    wait_until(Duration::from_secs(20), || {
        let Ok(mut client) = Client::try_connect(evener.address()) else { return false };
        client.try_get("/").is_some_and(|answer| answer.status() == 200)
    });
}

#[test]
fn open_connections_are_counted() {
    let origin = Origin::answering("ok");
    let evener = listener(&origin, "");
    let mut clients: Vec<Client> = (0..7).map(|_| evener.connect()).collect();
    clients.iter_mut().for_each(|client| drop(client.get("/").expect_status(200)));
    evener.admin().expect_metric("evener_connections", &["listener=\"http\""], 7.0);
    drop(clients);
    evener.admin().expect_metric("evener_connections", &["listener=\"http\""], 0.0);
}

#[test]
fn an_upstream_that_stops_in_mid_answer_is_cut_at_the_read_timeout() {
    let half = Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").then_hang();
    let origin = Origin::serving(move |_| half.clone());
    let evener = Evener::start(&format!(
        "[pools.app]\nupstreams = [\"{}\"]\ntimeouts = {{ read = \"300ms\" }}",
        origin.address()
    ));
    let started = Instant::now();
    let mut client = evener.connect();
    client.start("GET", "/", "", b"");
    assert!(client.try_read("GET").is_err(), "half an answer does not look whole");
    assert!(started.elapsed() < Duration::from_secs(25), "{:?}", started.elapsed());
}

/// The time-out is for silence, not for the whole answer.
#[test]
fn a_long_answer_that_keeps_coming_is_not_cut() {
    let mut reply = Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n");
    for _ in 0..8 {
        reply = reply.then_sleep(Duration::from_millis(500)).then_send("x");
    }
    let origin = Origin::serving(move |_| reply.clone());
    let evener = Evener::start(&format!(
        "[pools.app]\nupstreams = [\"{}\"]\ntimeouts = {{ read = \"3s\" }}",
        origin.address()
    ));
    assert_eq!(evener.get("/").expect_status(200).body(), "xxxxxxxx");
}

/// A client that sends but does not read must not make the process keep the answer.
#[test]
fn an_answer_that_nobody_reads_is_not_collected_in_memory() {
    let body = "x".repeat(64 * 1024 * 1024);
    let origin = Origin::serving(move |_| Reply::ok(&body));
    let evener = listener(&origin, "");
    let before = resident_kib(evener.process_id());
    let mut clients: Vec<Client> = (0..4).map(|_| evener.connect()).collect();
    clients.iter_mut().for_each(|client| client.start("GET", "/", "", b""));
    origin.wait_for_requests(4);
    thread::sleep(Duration::from_millis(500));
    let grown = resident_kib(evener.process_id()).saturating_sub(before);
    assert!(grown < 32 * 1024, "{grown} KiB more for 256 MiB that nobody reads");
}

/// An allocator gives back what was freed only while somebody frees more; a quiet process has to see to it.
///
/// How soon, and how much of it, is up to the allocator; so this is for a quiet machine.
#[test]
#[ignore = "the allocator decides when; to be run by hand, alone"]
fn what_many_clients_took_is_given_back_when_they_are_gone() {
    let origin = Origin::answering("ok");
    let evener = listener(&origin, "header_timeout = \"5m\"");
    let before = resident_kib(evener.process_id());
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Long: {}", "x".repeat(60_000));
    let mut clients: Vec<Client> = (0..400).map(|_| evener.connect()).collect();
    clients.iter_mut().for_each(|client| client.send(&head));
    wait_until(Duration::from_secs(30), || resident_kib(evener.process_id()) > before + 16 * 1024);
    drop(clients);
    wait_until(Duration::from_secs(60), || resident_kib(evener.process_id()) < before + 12 * 1024);
}

/// Where the kernel hands out huge pages unasked, they would double the memory of an idle process.
#[test]
fn no_huge_pages_are_used() {
    let evener = listener(&Origin::answering("ok"), "");
    let status = std::fs::read_to_string(format!("/proc/{}/status", evener.process_id())).expect("Linux");
    assert!(status.contains("THP_enabled:\t0"), "{status}");
}

fn resident_kib(process_id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process_id}/status")).expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}

/// One pool of one upstream that takes one request at a time.
fn one_at_a_time(origin: &Origin, queue: &str) -> Evener {
    Evener::start(&format!(
        "[pools.app]\nupstreams = [{{ address = \"{}\", max_connections = 1 }}]\n{queue}",
        origin.address()
    ))
}

#[test]
fn without_a_queue_a_request_too_many_is_a_503() {
    let origin = Origin::answering("ok");
    let evener = one_at_a_time(&origin, "");
    origin.hold();
    let first = evener.get_in_background("/");
    origin.wait_for_request();

    let answer = evener.get("/").expect_status(503);

    assert!(answer.header("retry-after").is_some(), "{answer}");
    origin.release();
    first.join().expect_status(200);
    // The upstream has room again a moment after the last byte.
    evener.admin().wait_for_rest();
    evener.get("/").expect_status(200);
}

#[test]
fn a_queue_keeps_requests_until_there_is_room_and_no_more_than_it_holds() {
    let origin = Origin::answering("ok");
    let evener = one_at_a_time(&origin, "queue = { max = 2, timeout = \"60s\" }");
    origin.hold();
    let first = evener.get_in_background("/");
    origin.wait_for_request();
    let waiting: Vec<_> = (0..2).map(|_| evener.get_in_background("/")).collect();
    // The two are in the queue once a third one is turned away.
    let refused = || evener.admin().metric("evener_refusals_total", &["reason=\"queue_full\""]);
    let mut extra = Vec::new();
    while refused() < 0.5 {
        extra.push(evener.get_in_background("/"));
        thread::sleep(Duration::from_millis(50));
        assert!(extra.len() < 400, "nobody is turned away");
    }
    origin.release();
    first.join().expect_status(200);
    let answers = waiting.into_iter().chain(extra).map(|request| request.join().status());
    let (served, turned_away): (Vec<u16>, Vec<u16>) = answers.partition(|&status| status == 200);
    assert_eq!(served.len(), 2);
    assert!(turned_away.iter().all(|&status| status == 503), "{turned_away:?}");
    assert_eq!(origin.most_under_way(), 1);
}

#[test]
fn nobody_waits_longer_than_the_queue_allows() {
    let origin = Origin::answering("ok");
    let evener = one_at_a_time(&origin, "queue = { max = 10, timeout = \"300ms\" }");
    origin.hold();
    let first = evener.get_in_background("/");
    origin.wait_for_request();

    let started = Instant::now();
    evener.get("/").expect_status(503);

    assert!(started.elapsed() >= Duration::from_millis(290), "{:?}", started.elapsed());
    origin.release();
    first.join().expect_status(200);
}

/// The upstream waits for the client here, and is not to blame.
#[test]
fn a_slow_body_is_a_408_and_nobodys_fault() {
    let origin = Origin::answering("ok");
    let evener = Evener::start(&format!(
        r#"
        [routes.all]
        timeout = "400ms"
        pool = "app"
        [pools.app]
        upstreams = ["{}"]
        "#,
        origin.address()
    ));
    let mut stalled = evener.connect();
    stalled.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello");
    stalled.read("POST").expect_status(408);

    let mut dripping = evener.connect();
    dripping.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n");
    wait_until(Duration::from_secs(20), || {
        dripping.send_if_open("x");
        dripping.has_bytes_within(Duration::from_millis(50))
    });
    dripping.read("POST").expect_status(408);

    evener.admin().expect_metric("evener_refusals_total", &["reason=\"request_timeout\""], 2.0);
    let upstream = evener.admin().upstream("app", &origin);
    assert_eq!(upstream["errors"], 0, "{upstream}");
    wait_until(Duration::from_secs(20), || evener.admin().upstream("app", &origin)["in_flight"] == 0);
}

/// `timeouts.write`: an upstream that takes the connection and reads nothing. It may still answer, for as
/// long as `read` says; without `write` nothing would end the wait but the route's timeout.
#[test]
fn an_upstream_that_does_not_read_is_a_504() {
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let evener = Evener::start(&format!(
        r#"
        [pools.app]
        upstreams = ["{}"]
        timeouts = {{ write = "300ms", read = "300ms" }}
        "#,
        deaf.local_addr().expect("an address")
    ));
    let mut client = evener.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n");
    let piece = vec![b'x'; 1 << 20];
    while client.send_if_open(&piece) && !client.has_bytes_within(Duration::from_millis(1)) {}
    client.read("POST").expect_status(504);
}

#[test]
fn whoever_waits_until_its_route_times_out_is_told() {
    let origin = Origin::answering("ok");
    let queue = "queue = { max = 10, timeout = \"20s\" }\n[routes.all]\npool = \"app\"\ntimeout = \"1s\"\n[routes.slow]\npath_prefix = \"/slow\"\npool = \"app\"";
    let evener = one_at_a_time(&origin, queue);
    origin.hold();
    let first = evener.get_in_background("/slow");
    origin.wait_for_request();

    evener.get("/").expect_status(503);

    origin.release();
    first.join().expect_status(200);
}
