//! Another process in the place of the one that runs, and nobody refused.
//!
//! Clients count requests, not time: a slow machine makes these plays longer, not weaker.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::rig::h2::H2Client;
use crate::rig::{Authority, Background, Client, Evener, Origin, Reply, TlsClient, reserve_port, wait_until};
use crate::websocket;

const SOON: Duration = Duration::from_secs(30);

/// More than any play takes: what is open is not cut.
const LONG: &str = "drain_timeout = \"120s\"";

fn in_front_of(origin: &Origin, more: &str) -> Evener {
    Evener::start(&format!("[server]\n{LONG}\n[pools.app]\nupstreams = [\"{}\"]\n{more}", origin.address()))
}

/// Clients that want an answer of 200 to everything they send, until they are told to stop.
struct Crowd {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: Vec<Background<()>>,
}

impl Crowd {
    fn new() -> Self {
        Self { stop: Arc::default(), answered: Arc::default(), clients: Vec::new() }
    }

    /// One that does `act` again and again; it counts as an answer that came as it should.
    fn and(mut self, mut act: impl FnMut() + Send + 'static) -> Self {
        let (stop, answered) = (self.stop.clone(), self.answered.clone());
        self.clients.push(Background::run(move || {
            while !stop.load(Ordering::Relaxed) {
                act();
                answered.fetch_add(1, Ordering::Relaxed);
                // The play is about what is answered, not about how fast.
                thread::sleep(Duration::from_millis(1));
            }
        }));
        self
    }

    /// Waits for so many further answers.
    #[track_caller]
    fn wait_for(&self, answers: usize) {
        let before = self.answered.load(Ordering::Relaxed);
        wait_until(SOON, || self.answered.load(Ordering::Relaxed) >= before + answers);
    }

    /// Fails if a client did.
    fn stop(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.into_iter().for_each(Background::join);
        self.answered.load(Ordering::Relaxed)
    }
}

/// Keeps its connection until it is told that the answer was the last on it.
fn kept_alive(address: SocketAddr) -> impl FnMut() {
    let mut client = None;
    move || {
        let mut connection = client.take().unwrap_or_else(|| Client::connect(address));
        let answer = connection.get("/").expect_status(200);
        let is_last = answer.header("connection").is_some_and(|it| it.eq_ignore_ascii_case("close"));
        client = (!is_last).then_some(connection);
    }
}

/// As [`kept_alive`], over TLS; each new connection tries to resume the session of the one before.
fn kept_over_tls(tls: TlsClient, address: SocketAddr, requests: usize) -> impl FnMut() {
    let mut client = None;
    move || {
        let (mut connection, left) =
            client.take().unwrap_or_else(|| (tls.connect(address, "example.com"), requests));
        let answer = connection.get("/").expect_status(200);
        let is_last = answer.header("connection").is_some_and(|it| it.eq_ignore_ascii_case("close"));
        client = (!is_last && left > 1).then_some((connection, left - 1));
    }
}

fn anew_each_time(address: SocketAddr) -> impl FnMut() {
    move || {
        Client::connect(address).get("/").expect_status(200);
    }
}

type Http2 = h2::client::SendRequest<bytes::Bytes>;

/// By prior knowledge, on one connection until GOAWAY says that it takes no further requests.
fn over_http2(address: SocketAddr) -> impl FnMut() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut client: Option<Http2> = None;
    move || {
        let mut before = client.take();
        client = runtime.block_on(async {
            loop {
                let ready = match before.take() {
                    Some(before) => before.ready().await.ok(),
                    None => None,
                };
                let ready = match ready {
                    Some(ready) => ready,
                    None => connect_http2(address).await,
                };
                if let Some(after) = get_over_http2(ready, address).await {
                    return Some(after);
                }
            }
        });
    }
}

async fn connect_http2(address: SocketAddr) -> Http2 {
    let stream = tokio::net::TcpStream::connect(address).await.expect("connect");
    let (requests, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    // What ends a connection shows in its requests.
    tokio::spawn(async { drop(connection.await) });
    requests.ready().await.expect("room for a request")
}

/// `None` when the request crossed a GOAWAY, which says that it was not looked at: one sends it again elsewhere,
/// whatever it is (RFC 9113 §6.8). The client library answers the server's ping before it sends what waits, so
/// that the last GOAWAY can be faster than a request.
async fn get_over_http2(mut requests: Http2, address: SocketAddr) -> Option<Http2> {
    let request = http::Request::get(format!("http://{address}/")).body(()).expect("a request");
    let answer = match requests.send_request(request, true) {
        Ok((answer, _)) => answer.await,
        Err(error) => Err(error),
    };
    let mut answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            let is_unseen = error.is_go_away() && error.is_remote();
            assert!(is_unseen && error.reason() == Some(h2::Reason::NO_ERROR), "{error:?}");
            return None;
        }
    };
    assert_eq!(answer.status(), 200);
    while let Some(data) = answer.body_mut().data().await {
        data.expect("a body");
    }
    Some(requests)
}

/// Answers and echoes, as the request wants.
fn answering_and_echoing() -> Origin {
    Origin::serving(|request| match request.header("upgrade") {
        Some(_) => Reply::echo_web_socket(request),
        None => Reply::ok("ok"),
    })
}

/// `server.drain_timeout` is long enough for the sockets to outlive the play.
#[test]
fn twenty_upgrades_in_a_row_under_load_and_nobody_is_refused() {
    let origin = answering_and_echoing();
    let evener =
        in_front_of(&origin, "strategy = \"least_connections\"\n[listeners.http]\nhttp2_cleartext = true");
    let (address, admin) = (evener.address(), evener.admin());
    let figures = move || {
        let totals = admin.json("/v1/status")["totals"].clone();
        let finished = admin.metric("evener_requests_total", &[]);
        let attempts = admin.metric("evener_upstream_requests_total", &[]);
        let accepted = admin.metric("evener_connections_accepted_total", &[]);
        let timed = admin.metric("evener_upstream_response_seconds_count", &[]);
        [totals["requests"].as_f64().expect("a number"), finished, attempts, accepted, timed]
    };
    let mut before = figures();
    let crowd = Crowd::new()
        .and(kept_alive(address))
        .and(kept_alive(address))
        .and(anew_each_time(address))
        .and(anew_each_time(address))
        .and(over_http2(address))
        .and(over_http2(address))
        .and(move || {
            let now = figures();
            let went_back = before.iter().zip(now).any(|(before, now)| now < *before);
            assert!(!went_back, "from {before:?} to {now:?}");
            before = now;
        });
    let mut sockets: Vec<_> = (0..2).map(|_| websocket::open(&evener)).collect();
    let mut processes = vec![evener.process_id()];
    for round in 0..20 {
        crowd.wait_for(20);
        let answer = evener.upgrade().expect_status(200).json();
        assert_eq!(answer["predecessor"]["pid"], *processes.last().expect("one"));
        let successor = evener.serving_process();
        assert_eq!(answer["successor"]["pid"], successor);
        assert!(!processes.contains(&successor), "{successor} was there before");
        processes.push(successor);
        sockets.iter_mut().for_each(|socket| websocket::echo(socket, "still here"));
        if round % 7 == 3 {
            sockets.push(websocket::open(&evener));
        }
    }
    crowd.wait_for(20);
    assert!(crowd.stop() >= 400);
    sockets.iter_mut().for_each(|socket| websocket::echo(socket, "to the end"));
}

#[test]
fn clients_over_tls_are_not_refused_either() {
    let origin = Origin::answering("ok");
    let (folder, authority) = (tempfile::tempdir().expect("a folder"), Authority::new("authority"));
    authority.issue(&["example.com"]).write(folder.path(), "site");
    let file = |name: &str| folder.path().join(name).display().to_string();
    let tls = format!(
        "[listeners.http.tls]\ncertificates = [{{ certificate = \"{}\", key = \"{}\" }}]",
        file("site.crt"),
        file("site.key")
    );
    let evener = in_front_of(&origin, &tls);
    let (address, client) = (evener.address(), TlsClient::trusting(&authority));
    let crowd = Crowd::new()
        .and(kept_over_tls(client.clone(), address, usize::MAX))
        .and(kept_over_tls(client.clone(), address, 1))
        .and(kept_over_tls(client, address, 3));
    for _ in 0..5 {
        crowd.wait_for(20);
        evener.upgrade().expect_status(200);
    }
    crowd.wait_for(20);
    assert!(crowd.stop() >= 120);
}

#[test]
fn what_was_learned_and_counted_goes_along() {
    let (fast, slow) = (Origin::answering("ok"), Origin::answering("ok").after(Duration::from_millis(60)));
    let evener = Evener::start(&format!(
        "[server]\n{LONG}\n[pools.app]\nstrategy = \"latency_weighted\"\nupstreams = [\"{}\", \"{}\"]",
        fast.address(),
        slow.address()
    ));
    let learned = |origin: &Origin| evener.admin().upstream("app", origin)["latency_ms"]["ewma"].as_f64();
    wait_until(SOON, || {
        evener.get("/").expect_status(200);
        learned(&fast).is_some() && learned(&slow).is_some_and(|latency| latency > 30.0)
    });
    evener.admin().wait_for_rest();
    let counted = || {
        let count = |family: &str| evener.admin().metric(family, &[]);
        [
            "evener_requests_total",
            "evener_request_duration_seconds_count",
            "evener_upstream_requests_total",
            "evener_upstream_response_seconds_sum",
            "evener_response_bytes_total",
        ]
        .map(count)
    };
    let (before, slow_before) = (counted(), learned(&slow).expect("a latency"));

    evener.upgrade().expect_status(200);

    assert_eq!(evener.serving_process().to_string(), field(&evener.log(), "successor="));
    let after = learned(&slow).expect("a latency");
    // The last answers may have been learned from between the look and the upgrade.
    assert!((after / slow_before - 1.0).abs() < 0.5, "{slow_before} ms became {after} ms");
    assert!(learned(&fast).expect("a latency") < after);
    for (before, after) in before.into_iter().zip(counted()) {
        assert!((after - before).abs() < 1e-6, "{before} became {after}");
    }
    evener.get("/").expect_status(200);
    evener.admin().expect_metric("evener_requests_total", &[], before[0] + 1.0);
}

/// A request that began before the upgrade ends in the old process, and counts in the new one.
#[test]
fn what_the_old_process_finishes_is_counted_by_the_new_one() {
    let origin = Origin::answering("finished");
    let mut evener = in_front_of(&origin, "");
    origin.hold();
    let under_way: Vec<_> = (0..3).map(|_| evener.get_in_background("/")).collect();
    origin.wait_for_requests(3);
    evener.upgrade().expect_status(200);
    assert_eq!(evener.admin().json("/v1/status")["totals"]["requests"], 0);
    assert!(evener.ends_within(Duration::from_millis(300)).is_none(), "three requests are in flight");
    origin.release();
    for request in under_way {
        let answer = request.join().expect_status(200);
        assert_eq!(answer.body(), "finished");
    }
    assert_eq!(evener.ends_within(SOON).and_then(|status| status.code()), Some(0));
    evener.admin().expect_metric("evener_requests_total", &[], 3.0);
}

/// haproxy, nginx: closed at once, an idle connection is reset under the client that uses it in this moment.
#[test]
fn an_idle_connection_is_ended_by_its_next_request() {
    let origin = Origin::answering("ok");
    let mut evener = in_front_of(&origin, "");
    let mut used = evener.connect();
    used.get("/").expect_status(200);
    let mut silent = evener.connect();
    // Accepted by the old process, which a request of later shows.
    wait_until(SOON, || evener.admin().json("/v1/status")["listeners"][0]["connections"] == 2);
    evener.upgrade().expect_status(200);
    thread::sleep(Duration::from_millis(300));
    for client in [&mut used, &mut silent] {
        let answer = client.get("/").expect_status(200);
        assert_eq!(answer.header("connection").map(str::to_ascii_lowercase).as_deref(), Some("close"));
        assert!(client.is_closed_within(SOON));
    }
    assert_eq!(evener.ends_within(SOON).and_then(|status| status.code()), Some(0));
}

/// Accepted, and not yet announced by the proxy in front: its client is on the way.
#[test]
fn a_connection_that_waits_for_its_proxy_header_is_served_after_the_upgrade() {
    let origin = Origin::answering("ok");
    let evener =
        in_front_of(&origin, "[listeners.http]\nproxy_protocol = true\ntrusted_proxies = [\"127.0.0.1\"]");
    let mut silent = evener.connect();
    wait_until(SOON, || evener.admin().json("/v1/status")["listeners"][0]["connections"] == 1);
    evener.upgrade().expect_status(200);
    assert!(!silent.is_closed_within(Duration::from_millis(300)));
    silent.send("PROXY TCP4 192.0.2.7 127.0.0.1 4711 80\r\n");
    silent.get("/").expect_status(200);
    assert_eq!(origin.only_request().header("x-forwarded-for"), Some("192.0.2.7"));
}

/// A scraper keeps its connection, and asks on it in any moment.
#[test]
fn an_operators_idle_connection_gets_one_last_answer() {
    let origin = Origin::answering("ok");
    let mut evener = in_front_of(&origin, "");
    let mut kept = evener.admin().connect();
    kept.get("/v1/status").expect_status(200);
    evener.upgrade().expect_status(200);
    evener.get("/").expect_status(200);
    let answer = kept.get("/v1/status").expect_status(200);
    assert_eq!(answer.json()["pid"], evener.process_id());
    assert_eq!(answer.header("connection").map(str::to_ascii_lowercase).as_deref(), Some("close"));
    assert!(kept.is_closed_within(SOON));
    assert_eq!(evener.ends_within(SOON).and_then(|status| status.code()), Some(0));
}

#[test]
fn idle_connections_keep_the_old_process_no_longer_than_the_drain_timeout() {
    let origin = Origin::answering("ok");
    let mut evener = Evener::start(&format!(
        "[server]\ndrain_timeout = \"700ms\"\n[pools.app]\nupstreams = [\"{}\"]",
        origin.address()
    ));
    let mut silent = evener.connect();
    wait_until(SOON, || evener.admin().json("/v1/status")["listeners"][0]["connections"] == 1);
    evener.upgrade().expect_status(200);
    assert_eq!(evener.ends_within(SOON).and_then(|status| status.code()), Some(0));
    assert!(silent.is_closed_within(SOON));
    evener.get("/").expect_status(200);
}

/// Both processes write to one file, and only the successor is still there to be scraped.
#[test]
fn what_the_old_process_cuts_off_leaves_its_lines_and_is_counted_by_the_new_one() {
    let origin = Origin::answering("never");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("access.log");
    let mut evener = Evener::start(&format!(
        "[server]\ndrain_timeout = \"700ms\"\n[log]\naccess = \"{}\"\nformat = \"json\"\n\
         [listeners.http]\nhttp2_cleartext = true\n[pools.app]\nupstreams = [\"{}\"]",
        file.display(),
        origin.address()
    ));
    origin.hold();
    let mut client = evener.connect();
    client.start("GET", "/cut/1", "", b"");
    let shared = H2Client::connect(evener.address());
    let _call = shared.start(shared.head("GET", "/cut/2"), true);
    origin.wait_for_requests(2);

    evener.upgrade().expect_status(200);
    assert_eq!(evener.ends_within(SOON).and_then(|status| status.code()), Some(0));

    // Its end is the end of its lines.
    let text = fs::read_to_string(&file).expect("a file");
    let lines: Vec<serde_json::Value> =
        text.lines().map(|it| serde_json::from_str(it).expect("JSON")).collect();
    let told = |path: &str| {
        let line = lines.iter().find(|line| line["path"] == path);
        line.map(|line| (line["reason"].clone(), line["status"].clone()))
    };
    for path in ["/cut/1", "/cut/2"] {
        assert_eq!(told(path), Some(("draining".into(), 503.into())), "{text}");
    }
    assert_eq!(lines.len(), 2, "{text}");
    let admin = evener.admin();
    admin.expect_metric("evener_requests_total", &["class=\"5xx\""], 2.0);
    admin.expect_metric("evener_refusals_total", &["reason=\"draining\""], 2.0);
}

#[test]
fn a_first_term_closes_what_idles_in_the_old_process_and_a_second_one_ends_it() {
    let origin = Origin::answering("never");
    let mut evener = in_front_of(&origin, "");
    let mut silent = evener.connect();
    origin.hold();
    let mut busy = evener.connect();
    busy.start("GET", "/", "", b"");
    origin.wait_for_request();
    evener.upgrade().expect_status(200);
    evener.signal("TERM");
    assert!(silent.is_closed_within(SOON));
    assert!(evener.ends_within(Duration::from_millis(300)).is_none(), "a request is in flight");
    evener.signal("TERM");
    assert!(evener.ends_within(SOON).is_some(), "still there");
    origin.release();
    evener.get("/").expect_status(200);
}

#[test]
fn both_signals_hand_over() {
    let origin = Origin::answering("ok");
    let evener = in_front_of(&origin, "");
    for signal in ["QUIT", "USR2"] {
        let before = evener.serving_process();
        evener.signal_serving(signal);
        wait_until(SOON, || {
            evener.get("/").expect_status(200);
            evener.serving_process() != before
        });
        Evener::wait_for_end_of(before);
        assert_eq!(evener.admin().json("/v1/status")["predecessor"], before);
        assert!(evener.log().contains(&format!("who=SIG{signal}")), "{}", evener.log());
    }
}

#[test]
fn the_command_says_what_came_of_it() {
    let origin = Origin::answering("ok");
    let evener = in_front_of(&origin, "");
    let before = evener.process_id();
    let admin = format!("http://{}", evener.admin().address());
    let done = crate::rig::run_to_end(&["upgrade", "--admin", &admin, "--why", "a new version"], &[]);
    assert_eq!(done.code, Some(0), "{done:?}");
    let now = evener.serving_process();
    let version = env!("CARGO_PKG_VERSION");
    let expected = format!("process {before} ({version}) handed over to {now} ({version}) in ");
    assert!(done.stdout.starts_with(&expected), "{done:?}");
}

#[test]
fn the_command_refuses_when_the_process_would_start_another_program() {
    let origin = Origin::answering("ok");
    let evener =
        Evener::start_from_own_file(&format!("[pools.app]\nupstreams = [\"{}\"]", origin.address()), &[]);
    let admin = format!("http://{}", evener.admin().address());
    let ask = || crate::rig::run_to_end(&["upgrade", "--admin", &admin], &[]);
    evener.replace_own_file_by("#!/bin/sh\nexit 7\n");
    let other = ask();
    assert_eq!(other.code, Some(1), "{other:?}");
    assert!(
        other.stderr.contains("which is not this program") && other.stderr.contains("install"),
        "{other:?}"
    );
    evener.remove_own_file();
    let none = ask();
    assert_eq!(none.code, Some(1), "{none:?}");
    assert_eq!(evener.serving_process(), evener.process_id());
}

/// Whatever is wrong with the successor, the old process goes on and says why.
#[test]
fn a_successor_that_fails_leaves_the_old_process_serving() {
    let origin = Origin::answering("ok");
    let evener =
        Evener::start_from_own_file(&format!("[pools.app]\nupstreams = [\"{}\"]", origin.address()), &[]);
    let crowd = Crowd::new().and(kept_alive(evener.address())).and(anew_each_time(evener.address()));
    let taken = std::net::TcpListener::bind(("127.0.0.1", reserve_port())).expect("a port");
    let taken = taken.local_addr().expect("an address");
    let good = evener.configuration();
    let another = good.replace(
        "[listeners.http]",
        &format!("[listeners.other]\naddress = \"{taken}\"\n\n[listeners.http]"),
    );

    let cases: [(&str, Option<&str>, &str); 7] = [
        ("[pools.app]\nupstreamz = []", None, "upstreamz"),
        (&another, None, &taken.to_string()),
        (&good, Some("#!/bin/sh\nexit 7\n"), "exit status: 7"),
        (&good, Some("#!/bin/sh\nkill -9 $$\n"), "signal: 9"),
        (&good, Some("#!/bin/sh\nexec 0<&-\nsleep 60\n"), "did not end by itself"),
        (&good, Some("no program at all\u{1}"), "cannot start"),
        (&good, Some("#!/bin/sh\nsleep 60\n"), "did not come to serve within 1 s"),
    ];
    for (configuration, program, reason) in cases {
        fs::write(evener.config_file(), configuration).expect("write");
        program.map_or_else(|| evener.restore_own_file(), |program| evener.replace_own_file_by(program));
        let path = if reason.contains("within 1 s") { "/v1/upgrade?timeout=1s" } else { "/v1/upgrade" };
        let problem = evener.admin().post(path, "").expect_status(409).json();
        assert_eq!(problem["type"], "urn:evener:problem:upgrade_failed", "{problem}");
        let detail = problem["detail"].as_str().expect("text");
        assert!(detail.contains(reason), "`{reason}` is not in `{detail}`");
        assert!(problem["help"].as_str().is_some_and(|help| !help.is_empty()));
        let status = evener.admin().json("/v1/status");
        assert_eq!(status["pid"], evener.process_id());
        assert_eq!(status["last_failed_upgrade"]["reason"], detail);
        crowd.wait_for(5);
    }
    evener.remove_own_file();
    let problem = evener.upgrade().expect_status(409).json();
    assert!(problem["detail"].as_str().is_some_and(|it| it.contains("No such file")), "{problem}");
    // No shell of the last cases is left over, but for the `sleep`s that two of them started.
    wait_until(SOON, || evener.children_of_serving() == 0);

    // After all that, changes are possible, and an upgrade too.
    fs::write(evener.config_file(), good).expect("write");
    evener.restore_own_file();
    evener.admin().post("/v1/reload", "").expect_status(200);
    evener.upgrade().expect_status(200);
    crowd.wait_for(5);
    crowd.stop();
    assert_ne!(evener.serving_process(), evener.process_id());
}

/// Of two processes, one writes: while a successor is being started, changes are refused.
#[test]
fn meanwhile_changes_are_refused_and_a_second_upgrade_is_too() {
    let origin = Origin::answering("ok");
    let evener =
        Evener::start_from_own_file(&format!("[pools.app]\nupstreams = [\"{}\"]", origin.address()), &[]);
    evener.replace_own_file_by("#!/bin/sh\nsleep 60\n");
    let admin = evener.admin();
    let under_way = Background::run(move || admin.post("/v1/upgrade?timeout=4s", ""));
    wait_until(SOON, || evener.log().contains("successor started"));
    let patch = |weight: u32| {
        let path = format!("/v1/pools/app/upstreams/{}", origin.address());
        evener.admin().write("PATCH", &path, "", &format!("{{\"weight\": {weight}}}"))
    };
    let refused = patch(5).expect_status(503).json();
    assert_eq!(refused["type"], "urn:evener:problem:handing_over", "{refused}");
    let second = evener.upgrade().expect_status(409).json();
    assert_eq!(second["type"], "urn:evener:problem:upgrade_under_way", "{second}");
    // What is saved, or signalled, meanwhile is not lost.
    let other = evener
        .text(&format!("[pools.app]\nupstreams = [\"{}\"]\nstrategy = \"random_two\"", origin.address()));
    fs::write(evener.config_file(), other).expect("write");
    evener.signal("HUP");
    evener.get("/").expect_status(200);
    under_way.join().expect_status(409);
    wait_until(SOON, || evener.admin().json("/v1/pools/app")["strategy"] == "random_two");
    patch(5).expect_status(200);
}

/// Who stops the service wants no other one.
#[test]
fn term_during_an_upgrade_ends_both() {
    let origin = Origin::answering("ok");
    let mut evener =
        Evener::start_from_own_file(&format!("[pools.app]\nupstreams = [\"{}\"]", origin.address()), &[]);
    evener.replace_own_file_by("#!/bin/sh\nexec sleep 60\n");
    evener.signal("USR2");
    wait_until(SOON, || evener.log().contains("successor started"));
    let successor: u32 = field(&evener.log(), "successor=").parse().expect("a process id");
    assert!(Evener::is_there(successor));
    evener.signal("TERM");
    assert_eq!(evener.ends_within(SOON).and_then(|status| status.code()), Some(0));
    Evener::wait_for_end_of(successor);
}

/// Pingora's own hand-over knows 32 sockets at most.
#[test]
fn sixty_listeners_are_handed_over_and_the_file_may_have_others_by_then() {
    let origin = Origin::answering_on_a_unix_socket("ok");
    let ports: Vec<u16> = (0..60).map(|_| reserve_port()).collect();
    let listeners = |ports: &[u16]| -> String {
        ports.iter().map(|port| format!("[listeners.on_{port}]\naddress = \"127.0.0.1:{port}\"\n")).collect()
    };
    let rest = format!("[listeners.http]\n[pools.app]\nupstreams = [\"{}\"]", origin.address());
    let evener = Evener::start(&format!("{}{rest}", listeners(&ports)));
    let answers = |port: u16| {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        Client::try_connect(address).ok().and_then(|mut client| client.try_get("/"))
    };
    evener.upgrade().expect_status(200);
    for &port in &ports {
        answers(port).expect("an answer").expect_status(200);
    }

    let (gone, kept) = ports.split_at(3);
    let new = reserve_port();
    evener.rewrite(&format!("{}{rest}", listeners(&[kept, &[new]].concat())));
    let before = evener.serving_process();
    evener.upgrade().expect_status(200);
    Evener::wait_for_end_of(before);
    for &port in kept.iter().chain([&new]) {
        answers(port).expect("an answer").expect_status(200);
    }
    assert!(gone.iter().all(|&port| answers(port).is_none()), "a listener that is not wanted any more");
    let names = evener.admin().json("/v1/status")["listeners"].as_array().map(Vec::len);
    assert_eq!(names, Some(kept.len() + 2));
}

/// The verdicts go along, so nobody waits for the first health checks; where there are none, the old process
/// serves until they are there.
#[test]
fn a_successor_serves_when_its_verdicts_are_in() {
    let (well, sick) = (Origin::answering("ok"), Origin::answering("ok"));
    sick.fall_sick();
    let pool = |upstreams: &str| {
        format!(
            "[server]\n{LONG}\n[pools.app]\nupstreams = [{upstreams}]\nhealth_check = {{ path = \"/healthz\", interval = \"60s\", fast_interval = \"60s\" }}"
        )
    };
    let two = format!("\"{}\", \"{}\"", well.address(), sick.address());
    let evener = Evener::start(&pool(&two));
    let health = |origin: &Origin| evener.admin().upstream("app", origin)["health"].clone();
    assert_eq!((health(&well), health(&sick)), ("up".into(), "down".into()));
    evener.upgrade().expect_status(200);
    evener.admin().get("/readyz").expect_status(200);
    assert_eq!((health(&well), health(&sick)), ("up".into(), "down".into()));
    (0..4).for_each(|_| drop(evener.get("/").expect_status(200)));

    // One that was never asked, and takes its time.
    let new = Origin::serving(|_| Reply::ok("ok")).after(Duration::from_millis(900));
    evener.rewrite(&pool(&format!("\"{}\"", new.address())));
    let crowd = Crowd::new().and(anew_each_time(evener.address()));
    evener.upgrade().expect_status(200);
    assert_eq!(health(&new), "up");
    crowd.stop();
}

#[test]
fn overrides_history_and_generation_go_on() {
    let origin = Origin::answering("ok");
    let evener = in_front_of(&origin, "");
    let path = format!("/v1/pools/app/upstreams/{}", origin.address());
    evener.admin().write("PATCH", &path, "", "{\"weight\": 7}").expect_status(200);
    let history = || evener.admin().json("/v1/config/history");
    let (generation, before) = (evener.generation(), history());
    evener.upgrade().expect_status(200);
    assert_eq!((evener.generation(), history()), (generation, before));
    assert_eq!(evener.admin().json(&path)["weight"], 7);
    evener.admin().write("PATCH", &path, "", "{\"weight\": 9}").expect_status(200);
    assert_eq!(evener.generation(), generation + 1);
    evener.upgrade().expect_status(200);
    assert_eq!(
        (evener.generation(), evener.admin().json(&path)["weight"].clone()),
        (generation + 1, 9.into())
    );
}

#[test]
fn those_who_follow_events_hear_of_it() {
    let origin = Origin::answering("ok");
    let evener = in_front_of(&origin, "");
    let mut events = evener.admin().connect();
    events.start("GET", "/v1/events", "", b"");
    wait_until(SOON, || events.has_bytes_within(Duration::from_millis(100)));
    let reading = Background::run(move || events.read("GET").body());
    evener.upgrade().expect_status(200);
    let told = reading.join();
    for result in ["started", "handed_over"] {
        assert!(told.contains(&format!("\"result\":\"{result}\"")), "{told}");
    }
    assert!(told.contains("event: upgrade"), "{told}");
}

/// `sd_notify(3)`: systemd is told which process is the service.
#[test]
fn the_service_manager_is_told_who_is_ready() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("bind");
    socket.set_read_timeout(Some(SOON)).expect("a time-out");
    let hear = || {
        let mut bytes = [0; 1024];
        let length = socket.recv(&mut bytes).expect("a word");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };
    let origin = Origin::answering("ok");
    let configuration = format!("[pools.app]\nupstreams = [\"{}\"]", origin.address());
    let mut evener =
        Evener::start_from_own_file(&configuration, &[("NOTIFY_SOCKET", path.to_str().expect("text"))]);
    let first = evener.process_id();
    assert_eq!(hear(), format!("READY=1\nMAINPID={first}"));

    evener.signal("HUP");
    assert!(hear().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(hear(), "READY=1");

    // A successor that fails may have said that it is the service, just before.
    evener.replace_own_file_by("#!/bin/sh\nexit 7\n");
    evener.upgrade().expect_status(409);
    assert!(hear().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(hear(), format!("READY=1\nMAINPID={first}"));
    evener.restore_own_file();

    evener.upgrade().expect_status(200);
    assert!(hear().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    let second = evener.serving_process();
    assert_eq!(hear(), format!("READY=1\nMAINPID={second}"));
    // The old one says nothing when it ends: it is not the service any more.
    assert!(evener.ends_within(SOON).is_some());
    evener.signal_serving("TERM");
    assert_eq!(hear(), "STOPPING=1");
}

/// Without being told, systemd takes the end of the old process for the end of the service.
#[test]
fn under_a_service_manager_that_would_not_know_it_is_refused() {
    let origin = Origin::answering("ok");
    let configuration = format!("[pools.app]\nupstreams = [\"{}\"]", origin.address());
    // As systemd does: the variable names the process that it starts.
    let script = "SYSTEMD_EXEC_PID=$$ exec \"$0\" \"$@\"";
    let evener = Evener::start_through_shell(&configuration, script);
    let problem = evener.upgrade().expect_status(409).json();
    assert_eq!(problem["type"], "urn:evener:problem:cannot_upgrade", "{problem}");
    assert!(problem["help"].as_str().is_some_and(|help| help.contains("Type=notify")), "{problem}");
    evener.get("/").expect_status(200);
}

/// Which file is started is not for those to say who may ask for it.
#[test]
fn upgrades_need_the_right_to_write_and_take_nothing_else() {
    let origin = Origin::answering("ok");
    let configuration = format!(
        "[pools.app]\nupstreams = [\"{}\"]\n[admin.tokens.ops]\nscope = \"operate\"\nenv = \"OPS\"\n[admin.tokens.root]\nscope = \"write\"\nenv = \"ROOT\"",
        origin.address()
    );
    let secrets = [("OPS", "0123456789abcdef0123456789abcdef"), ("ROOT", "fedcba9876543210fedcba9876543210")];
    let evener = Evener::start_guarded(&configuration, &secrets, secrets[1].1);
    evener.admin().anonymous().post("/v1/upgrade", "").expect_status(401);
    evener.admin().bearing(secrets[0].1).post("/v1/upgrade", "").expect_status(403);
    evener.admin().post("/v1/upgrade", "{\"executable\": \"/bin/true\"}").expect_status(422);
    evener.admin().post("/v1/upgrade?executable=/bin/true", "").expect_status(400);
    assert_eq!(evener.serving_process(), evener.process_id());
    evener.upgrade().expect_status(200);
    assert_ne!(evener.serving_process(), evener.process_id());
}

/// What stands behind `name` in the last line of the log that has it.
fn field(log: &str, name: &str) -> String {
    let found = log.rsplit_once(name).expect("it is in the log").1;
    found.split_whitespace().next().unwrap_or_default().to_owned()
}

/// No process of ours may be left over by these plays: the rig ends successors, too.
#[test]
fn the_rig_leaves_no_successor_behind() {
    let origin = Origin::answering("ok");
    let evener = in_front_of(&origin, "");
    let mut processes: BTreeSet<u32> = BTreeSet::new();
    for _ in 0..3 {
        evener.upgrade().expect_status(200);
        processes.extend(evener.processes());
    }
    assert!(processes.len() >= 3, "{processes:?}");
    drop(evener);
    assert!(processes.iter().all(|&id| !Evener::is_there(id)), "{processes:?}");
}
