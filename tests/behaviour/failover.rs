//! FORWARD, when an attempt fails: another upstream is tried where that is safe, and only there.

use std::thread;
use std::time::{Duration, Instant};

use crate::rig::{Background, Client, Evener, Origin, Reply, unreachable_address};

/// One pool `app` of these origins, without health checks or ejection: whatever is noticed, a request noticed it.
fn unchecked(origins: &[&Origin], more: &str) -> Evener {
    let addresses: Vec<String> = origins.iter().map(|origin| format!("\"{}\"", origin.address())).collect();
    Evener::start(&format!(
        r#"
        [log]
        access = "stdout"
        format = "json"
        [routes.app]
        pool = "app"
        {more}
        [pools.app]
        upstreams = [{}]
        health_check = {{ enabled = false }}
        ejection = {{ enabled = false }}
        "#,
        addresses.join(", ")
    ))
}

/// A rival needs it configured; here a minimal file is enough (pingap, finding 3).
#[test]
fn failover_needs_no_setting() {
    let (dying, other) = (Origin::answering("ok"), Origin::answering("ok"));
    let evener = Evener::start(&format!(
        "[pools.app]\nupstreams = [\"{}\", \"{}\"]",
        dying.address(),
        other.address()
    ));
    let address = evener.address();
    let clients: Vec<Background<()>> = (0..4)
        .map(|_| {
            Background::run(move || {
                let mut client = Client::connect(address);
                (0..150).for_each(|_| {
                    client.get("/").expect_status(200);
                    thread::sleep(Duration::from_millis(2));
                });
            })
        })
        .collect();
    dying.wait_for_requests(50);
    dying.die();
    clients.into_iter().for_each(Background::join);
    // Those that were in flight at its death were sent again: four, and a few that met it while it died.
    let seen = dying.requests_seen() + other.requests_seen();
    assert!((600..=620).contains(&seen), "{seen}");
}

#[test]
fn a_refused_connection_goes_elsewhere_for_any_method() {
    let (gone, other) = (Origin::absent(), Origin::answering("ok"));
    let evener = unchecked(&[&gone, &other], "");
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
        for _ in 0..4 {
            let mut client = evener.connect();
            client.request(method, "/", "", b"a body of some kind").expect_status(200);
        }
    }
    assert_eq!(other.requests_seen(), 20);
    assert!(other.requests().iter().all(|request| request.body == b"a body of some kind"));
}

/// PINGORA.md, rule 5: more than 64 KiB are not kept for another attempt, but nothing was sent yet.
#[test]
fn a_large_body_goes_elsewhere_when_none_of_it_was_sent() {
    let (gone, other) = (Origin::absent(), Origin::answering("ok"));
    let evener = unchecked(&[&gone, &other], "");
    let body = vec![b'x'; 300 * 1024];
    for _ in 0..4 {
        evener.post("/", &body).expect_status(200);
    }
    assert!(other.requests().iter().all(|request| request.body == body));
}

#[test]
fn a_reset_before_the_answer_is_retried_for_idempotent_methods() {
    let (broken, other) = (Origin::serving(|_| Reply::reset()), Origin::answering("ok"));
    let evener = unchecked(&[&broken, &other], "retry = { budget = 1.0 }");
    for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"] {
        for _ in 0..2 {
            evener.connect().request(method, "/", "Content-Length: 0\r\n", b"").expect_status(200);
        }
    }
    assert!(broken.requests_seen() > 0);
}

/// traefik#8990, #1104: the order was placed twice.
#[test]
fn a_post_is_sent_once() {
    for failure in [Reply::close(), Reply::reset()] {
        let handler = move |_: &crate::rig::Request| failure.clone();
        let (one, two) = (Origin::serving(handler.clone()), Origin::serving(handler));
        let evener = unchecked(&[&one, &two], "");
        for sent in 1..=4 {
            evener.post("/order", b"one apple").expect_status(502);
            assert_eq!(one.requests_seen() + two.requests_seen(), sent);
        }
    }
}

/// envoy#2259, traefik#11306, ingress-nginx#11852: the retry went back to the one that failed.
#[test]
fn a_retry_goes_elsewhere() {
    for strategy in ["round_robin", "least_connections", "latency_weighted", "random_two", "consistent_hash"]
    {
        let broken = [Origin::serving(|_| Reply::reset()), Origin::serving(|_| Reply::reset())];
        let other = Origin::answering("ok");
        let hash = if strategy == "consistent_hash" { "hash = { path = true }" } else { "" };
        let evener = Evener::start(&format!(
            r#"
            [routes.app]
            pool = "app"
            retry = {{ max_retries = 2, budget = 1.0 }}
            [pools.app]
            strategy = "{strategy}"
            {hash}
            upstreams = ["{}", "{}", "{}"]
            ejection = {{ enabled = false }}
            "#,
            broken[0].address(),
            broken[1].address(),
            other.address()
        ));
        // Two retries each, and no more in all than the floor of the budget covers.
        for turn in 0..4 {
            let path = format!("/{turn}");
            evener.get(&path).expect_status(200);
            for origin in &broken {
                let tried = origin.requests().iter().filter(|request| request.target == path).count();
                assert!(tried <= 1, "{strategy} tried one upstream {tried} times for {path}");
            }
        }
    }
}

#[test]
fn there_are_no_more_attempts_than_upstreams_nor_than_allowed() {
    let broken: Vec<Origin> = (0..5).map(|_| Origin::serving(|_| Reply::reset())).collect();
    let all: Vec<&Origin> = broken.iter().collect();
    let evener = unchecked(&all, "retry = { max_retries = 2, budget = 1.0 }");
    evener.get("/").expect_status(502);
    assert_eq!(broken.iter().map(Origin::requests_seen).sum::<usize>(), 3);

    let evener = unchecked(&all, "retry = { max_retries = 0 }");
    evener.get("/").expect_status(502);
    assert_eq!(broken.iter().map(Origin::requests_seen).sum::<usize>(), 4);
}

/// PINGORA.md, rule 5: once the client has seen a byte, there is no way back.
#[test]
fn nothing_is_retried_after_the_first_byte_of_an_answer() {
    let half = Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        .then_sleep(Duration::from_millis(50))
        .then_reset();
    let handler = move |_: &crate::rig::Request| half.clone();
    let (one, two) = (Origin::serving(handler.clone()), Origin::serving(handler));
    let evener = unchecked(&[&one, &two], "");
    let mut client = evener.connect();
    client.start("GET", "/", "", b"");
    assert!(client.try_read("GET").is_err(), "the answer must not look complete");
    assert_eq!(one.requests_seen() + two.requests_seen(), 1);
}

#[test]
fn a_status_is_retried_only_when_the_route_says_so() {
    let (busy, other) = (Origin::serving(|_| Reply::status(503, "busy")), Origin::answering("ok"));
    let evener = unchecked(&[&busy, &other], "");
    let plain: Vec<u16> = (0..4).map(|_| evener.get("/").status()).collect();
    assert_eq!(plain.iter().filter(|&&status| status == 503).count(), 2, "{plain:?}");

    let evener = unchecked(&[&busy, &other], "retry = { on = [\"503\"], budget = 1.0 }");
    for _ in 0..6 {
        evener.get("/").expect_status(200);
    }
    let seen = busy.requests_seen();
    let posted: Vec<u16> = (0..4).map(|_| evener.post("/", b"x").status()).collect();
    assert_eq!(posted.iter().filter(|&&status| status == 503).count(), 2, "a POST is sent once: {posted:?}");
    assert_eq!(busy.requests_seen() - seen, 2);
}

/// PINGORA.md §1.2: when all attempts end in a status, the last answer is worth more than a word of ours.
#[test]
fn the_last_answer_is_passed_through() {
    let reply = |_: &crate::rig::Request| Reply::with_headers(503, "X-Why: maintenance\r\n", "back at noon");
    let (one, two) = (Origin::serving(reply), Origin::serving(reply));
    let evener = unchecked(&[&one, &two], "retry = { on = [\"503\"], budget = 1.0 }");
    let answer = evener.get("/").expect_status(503);
    assert_eq!(answer.body(), "back at noon");
    assert_eq!(answer.header("x-why"), Some("maintenance"));
    assert_eq!(one.requests_seen() + two.requests_seen(), 2);
}

/// envoy#10869: without a budget, retries multiply an outage.
#[test]
fn retries_stop_at_the_budget() {
    let reply = |_: &crate::rig::Request| Reply::status(503, "no");
    let (one, two) = (Origin::serving(reply), Origin::serving(reply));
    let evener = unchecked(&[&one, &two], "retry = { on = [\"503\"], budget = 0.2 }");
    let started = Instant::now();
    let mut client = evener.connect();
    for _ in 0..500 {
        client.get("/").expect_status(503);
    }
    let attempts = one.requests_seen() + two.requests_seen();
    // The small floor comes back with time, and a machine under load takes its time.
    let floor = 60 + 3 * usize::try_from(started.elapsed().as_secs()).unwrap();
    // 500 requests and a fifth of that, and the floor; without a budget there are 1 000.
    assert!((501..=500 + 100 + floor).contains(&attempts), "{attempts} attempts, of the floor {floor}");
    assert!(evener.admin().metric("evener_retry_budget_exhausted_total", &["pool=\"app\""]) > 0.0);
    assert!(evener.admin().metric("evener_retries_total", &["pool=\"app\""]) > 0.0);
}

/// sozu#1442 (6.2 % of requests), envoy#14981, #8639: the upstream closed in the moment of sending.
#[test]
fn a_stale_connection_is_not_a_502() {
    let origin = Origin::answering("ok").closing_idle_after(Duration::from_millis(100));
    let evener = unchecked(&[&origin], "");
    let address = evener.address();
    let clients: Vec<Background<()>> = (0..20)
        .map(|client| {
            Background::run(move || {
                let mut connection = Client::connect(address);
                for turn in 0..50 {
                    connection.get("/").expect_status(200);
                    thread::sleep(Duration::from_millis(90 + (client * 7 + turn * 3) % 21));
                }
            })
        })
        .collect();
    clients.into_iter().for_each(Background::join);
    assert_eq!(origin.requests_seen(), 1000);
}

/// A request that makes upstreams hang up finds a kept connection each time; it must not try all of them.
#[test]
fn a_request_that_breaks_its_connection_is_sent_on_one_new_one_and_then_blamed() {
    // Pingora does not promise that a kept connection is used; without one there is nothing to repeat.
    let attempts: Vec<usize> = (0..20).map(|_| attempts_of_a_poisonous_request()).collect();
    assert!(
        attempts.iter().all(|&attempts| attempts <= 2),
        "one on a kept connection, one on a new: {attempts:?}"
    );
    assert!(attempts.contains(&2), "no kept connection was met: {attempts:?}");
}

/// Attempts at an upstream with eight kept connections, for a request that makes it hang up.
fn attempts_of_a_poisonous_request() -> usize {
    let origin = Origin::answering("ok");
    // Pingora gives a kept connection up when two threads reach for it at once; one thread has no such luck.
    let evener = unchecked(&[&origin], "[server]\nthreads = 1");
    // Eight requests held at once leave eight kept connections behind.
    origin.hold();
    let held: Vec<_> = (0..8).map(|_| evener.get_in_background("/")).collect();
    origin.wait_for_requests(8);
    origin.release();
    held.into_iter().for_each(|request| drop(request.join().expect_status(200)));

    origin.answer_by(|_| Reply::close());
    evener.get("/poison").expect_status(502);
    assert_eq!(evener.admin().upstream("app", &origin)["errors"], 1);
    origin.requests_seen() - 8
}

/// Pingora closes the client's connection after an attempt has failed; a client that was told otherwise
/// would send its next request into the close.
#[test]
fn an_answer_of_ours_says_whether_the_connection_goes_on() {
    let origin = Origin::serving(|_| Reply::hang());
    let evener = Evener::start(&format!(
        r#"[pools.app]
        upstreams = ["{}"]
        timeouts = {{ read = "200ms" }}
        health_check = {{ enabled = false }}"#,
        origin.address()
    ));
    let mut client = evener.connect();
    let answer = client.get("/").expect_status(504);
    let says_close = answer.header("connection") == Some("close");
    let patience = if says_close { Duration::from_secs(15) } else { Duration::from_millis(500) };
    assert_eq!(says_close, client.is_closed_within(patience), "{answer}");
}

/// The same for a POST would send it twice if the upstream had read it; here it had closed before.
#[test]
fn a_post_on_a_connection_that_was_closed_long_ago_is_served() {
    let origin = Origin::answering("ok").closing_idle_after(Duration::from_millis(50));
    let evener = unchecked(&[&origin], "");
    for _ in 0..10 {
        evener.post("/", b"x").expect_status(200);
        // Closed at the other end is not enough: a starved Evener may not have heard of it yet.
        crate::rig::wait_until(Duration::from_secs(20), || !keeps_a_connection_to(&origin));
    }
    assert_eq!(origin.requests_seen(), 10);
}

/// Whether a client's end of a connection to this origin is open, by the table of the kernel.
fn keeps_a_connection_to(origin: &Origin) -> bool {
    const OPEN: [&str; 2] = ["01", "08"]; // ESTABLISHED, CLOSE_WAIT
    let address: std::net::SocketAddr = origin.address().parse().expect("a TCP origin");
    let port = format!(":{:04X}", address.port());
    let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux");
    table.lines().skip(1).any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields[2].ends_with(&port) && OPEN.contains(&fields[3])
    })
}

#[test]
fn an_upstream_that_takes_no_connection_in_time_is_left_for_another() {
    let other = Origin::answering("ok");
    let evener = Evener::start(&format!(
        r#"[pools.app]
        upstreams = ["{}", "{}"]
        timeouts = {{ connect = "1500ms" }}
        health_check = {{ enabled = false }}"#,
        unreachable_address(),
        other.address()
    ));
    let times = [(); 2].map(|()| {
        let started = Instant::now();
        evener.get("/").expect_status(200);
        started.elapsed()
    });
    // One of two turns is that of the unreachable one. What is not set is 1 s, and Linux's own limit minutes.
    assert!(times.iter().max() >= Some(&Duration::from_millis(1400)), "{times:?}");
}

#[test]
fn nobody_taking_a_connection_in_time_is_a_504() {
    let evener = Evener::start(&format!(
        r#"[pools.app]
        upstreams = ["{}"]
        timeouts = {{ connect = "200ms" }}
        health_check = {{ enabled = false }}"#,
        unreachable_address()
    ));
    evener.get("/").expect_status(504);
    evener.admin().expect_metric("evener_refusals_total", &["reason=\"connect_timeout\""], 1.0);
}

/// pingap, finding 8; Pingora's own default is 502.
#[test]
fn a_timeout_is_a_504() {
    let origin = Origin::serving(|_| Reply::hang());
    let evener = Evener::start(&format!(
        "[pools.app]\nupstreams = [\"{}\"]\ntimeouts = {{ read = \"200ms\" }}",
        origin.address()
    ));
    let started = Instant::now();
    evener.get("/").expect_status(504);
    assert!(started.elapsed() < Duration::from_secs(25), "{:?}", started.elapsed());
    assert_eq!(origin.requests_seen(), 1, "a time-out is not retried unless the route says so");
    evener.admin().expect_metric("evener_refusals_total", &["reason=\"upstream_timeout\""], 1.0);
}

#[test]
fn a_timeout_is_retried_when_the_route_says_so() {
    let (silent, other) = (Origin::serving(|_| Reply::hang()), Origin::answering("ok"));
    let evener = Evener::start(&format!(
        r#"
        [routes.app]
        pool = "app"
        retry = {{ on = ["timeout"], budget = 1.0 }}
        [pools.app]
        upstreams = ["{}", "{}"]
        timeouts = {{ read = "2s" }}
        "#,
        silent.address(),
        other.address()
    ));
    for _ in 0..2 {
        evener.get("/").expect_status(200);
    }
    assert!(silent.requests_seen() > 0);
}

#[test]
fn everybody_refusing_is_a_502_and_everybody_known_to_be_down_a_503() {
    let gone = Origin::absent();
    let evener = unchecked(&[&gone], "");
    evener.get("/").expect_status(502);
    evener.admin().expect_metric("evener_refusals_total", &["reason=\"connect_failure\""], 1.0);

    let evener = Evener::start(&format!("[pools.app]\nupstreams = [\"{}\"]", gone.address()));
    let answer = evener.get("/").expect_status(503);
    assert!(answer.header("retry-after").is_some(), "{answer}");
    evener.admin().expect_metric("evener_refusals_total", &["reason=\"no_eligible_upstream\""], 1.0);
}

#[test]
fn in_flight_returns_to_zero_however_an_attempt_ends() {
    let origin = Origin::serving(|request| match request.target.as_str() {
        "/reset" => Reply::reset(),
        "/close" => Reply::close(),
        "/garbage" => Reply::raw("garbage\r\n\r\n").then_close(),
        "/half" => Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").then_close(),
        "/500" => Reply::status(500, "oh"),
        "/hang" => Reply::hang(),
        _ => Reply::ok("ok"),
    });
    let evener = Evener::start(&format!(
        r#"[pools.app]
        upstreams = ["{}"]
        timeouts = {{ read = "200ms" }}
        ejection = {{ enabled = false }}"#,
        origin.address()
    ));
    for path in ["/reset", "/close", "/garbage", "/half", "/500", "/hang", "/ok"] {
        for method in ["GET", "POST"] {
            let mut client = evener.connect();
            client.start(method, path, "", b"x");
            let _ = client.try_read(method);
        }
    }
    crate::rig::wait_until(Duration::from_secs(15), || {
        evener.admin().upstream("app", &origin)["in_flight"].as_u64() == Some(0)
    });
}

#[test]
fn the_access_log_counts_attempts() {
    let (gone, other) = (Origin::absent(), Origin::answering("ok"));
    let evener = unchecked(&[&gone, &other], "");
    (0..4).for_each(|_| drop(evener.get("/").expect_status(200)));
    let attempts = || -> Vec<u64> {
        let entries = evener.standard_output();
        let entries = entries.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        entries.filter(|entry| entry["path"] == "/").filter_map(|entry| entry["attempts"].as_u64()).collect()
    };
    crate::rig::wait_until(Duration::from_secs(15), || attempts().len() == 4);
    let attempts = attempts();
    assert!(attempts.iter().all(|count| (1..=2).contains(count)) && attempts.contains(&2), "{attempts:?}");
}

/// Evener's own want of file descriptors says nothing about an upstream.
#[test]
fn local_trouble_never_counts_against_an_upstream() {
    let origin = Origin::answering("ok");
    let evener = Evener::start_with_few_files(
        &format!(
            r#"
            [server]
            threads = 1
            [pools.app]
            upstreams = ["{}"]
            ejection = {{ consecutive_failures = 1, base_duration = "60s", max_ejected = 1.0 }}
            health_check = {{ path = "/healthz", interval = "200ms", fast_interval = "100ms", timeout = "20s", fall = 1 }}
            "#,
            origin.address()
        ),
        80,
    );
    evener.get("/").expect_status(200);
    origin.hold();
    let mut clients: Vec<Client> = (0..80).map(|_| evener.connect()).collect();
    for client in &mut clients {
        client.send_if_open("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    thread::sleep(Duration::from_millis(800));
    assert!(origin.requests_seen() < 80, "the limit was never met; the play proves nothing");
    drop(clients);
    origin.release();

    crate::rig::wait_until(Duration::from_secs(20), || {
        evener.admin().try_get("/livez").is_some_and(|answer| answer.status() == 200)
    });
    let shown = evener.admin().upstream("app", &origin);
    assert_eq!((&shown["eligible"], &shown["health"]), (&true.into(), &"up".into()), "{shown}");
    // The files of eighty clients come back one by one: until then a request may still find none to connect with.
    crate::rig::wait_until(Duration::from_secs(20), || {
        evener.connect().try_get("/").is_some_and(|answer| answer.status() == 200)
    });
    let shown = evener.admin().upstream("app", &origin);
    assert_eq!((&shown["eligible"], &shown["health"]), (&true.into(), &"up".into()), "{shown}");
}
