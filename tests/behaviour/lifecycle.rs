//! Life and death of the process: signals, draining, taken addresses.

use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use crate::rig::h2::H2Client;
use crate::rig::{Client, Evener, Origin, reserve_port, run_to_end, wait_until};

/// Well below the 30 s of a drain that waits for nothing.
const SOON: Duration = Duration::from_secs(20);

fn in_front_of(origin: &Origin, server: &str) -> Evener {
    Evener::start(&format!("[server]\n{server}\n[pools.app]\nupstreams = [\"{}\"]", origin.address()))
}

/// PINGORA.md, rule 18: Pingora sleeps its whole grace period, also when there is nothing to wait for.
#[test]
fn an_idle_process_ends_at_once_on_term() {
    for name in ["TERM", "INT"] {
        let origin = Origin::answering("ok");
        let mut evener = in_front_of(&origin, "");
        evener.get("/").expect_status(200);
        evener.signal(name);
        let status = evener.ends_within(SOON).unwrap_or_else(|| panic!("{name}: still there"));
        assert_eq!(status.code(), Some(0), "{name}");
    }
}

/// A client that keeps a connection open without a request has nothing in flight.
#[test]
fn idle_connections_do_not_keep_a_stopping_process() {
    let origin = Origin::answering("ok");
    let mut evener = in_front_of(&origin, "");
    let mut used = evener.connect();
    used.get("/").expect_status(200);
    let mut silent = evener.connect();
    evener.signal("TERM");
    assert_eq!(evener.ends_within(SOON).and_then(|status| status.code()), Some(0));
    assert!(used.is_closed_within(SOON) && silent.is_closed_within(SOON));
}

#[test]
fn requests_in_flight_finish_before_the_end() {
    let origin = Origin::answering("finished");
    let mut evener = in_front_of(&origin, "drain_timeout = \"60s\"");
    origin.hold();
    let under_way: Vec<_> = (0..5).map(|_| evener.get_in_background("/")).collect();
    origin.wait_for_requests(5);

    evener.signal("TERM");
    assert!(evener.ends_within(Duration::from_millis(500)).is_none(), "five requests are in flight");
    origin.release();

    for request in under_way {
        assert_eq!(request.join().expect_status(200).body(), "finished");
    }
    assert_eq!(evener.ends_within(SOON).and_then(|status| status.code()), Some(0));
}

#[test]
fn the_drain_timeout_is_the_longest_wait() {
    let origin = Origin::answering("never");
    let mut evener = in_front_of(&origin, "drain_timeout = \"700ms\"");
    origin.hold();
    let mut client = evener.connect();
    client.start("GET", "/", "", b"");
    origin.wait_for_request();

    let started = Instant::now();
    evener.signal("TERM");
    assert!(evener.ends_within(SOON).is_some(), "still there");
    assert!(started.elapsed() >= Duration::from_millis(600), "{:?}", started.elapsed());
    evener.wait_for_log("requests_cut=1");
}

/// It is these requests that somebody looks for after a deploy.
#[test]
fn requests_that_are_cut_off_at_the_end_leave_their_lines() {
    let origin = Origin::answering("never");
    let settings = "drain_timeout = \"700ms\"\n[log]\naccess = \"stdout\"\nformat = \"json\"\n\
                    [listeners.http]\nhttp2_cleartext = true";
    let mut evener = in_front_of(&origin, settings);
    origin.hold();
    let mut client = evener.connect();
    client.start("GET", "/cut/1", "", b"");
    let shared = H2Client::connect(evener.address());
    let _call = shared.start(shared.head("GET", "/cut/2"), true);
    origin.wait_for_requests(2);

    evener.signal("TERM");
    assert!(evener.ends_within(SOON).is_some(), "still there");
    for path in ["/cut/1", "/cut/2"] {
        evener.wait_for_log(&format!("\"path\":\"{path}\""));
    }
    assert_eq!(evener.log().matches("\"reason\":\"draining\"").count(), 2, "{}", evener.log());
}

/// Nobody else is under way then, so that it is these alone for which the process waits a moment more.
#[test]
fn requests_on_a_route_that_a_reload_removed_are_cut_off_and_leave_their_lines_too() {
    let origin = Origin::answering("never");
    let with_route = |name: &str| {
        format!(
            "[server]\ndrain_timeout = \"700ms\"\n[log]\naccess = \"stdout\"\nformat = \"json\"\n\
             [routes.{name}]\npath_prefix = \"/{name}\"\npool = \"app\"\n[pools.app]\nupstreams = [\"{}\"]",
            origin.address()
        )
    };
    let mut evener = Evener::start(&with_route("gone"));
    origin.hold();
    let mut client = evener.connect();
    client.start("GET", "/gone/1", "", b"");
    origin.wait_for_request();
    evener.reload(&with_route("here"));

    evener.signal("TERM");
    assert!(evener.ends_within(SOON).is_some(), "still there");
    evener.wait_for_log("\"path\":\"/gone/1\"");
    assert_eq!(evener.log().matches("\"reason\":\"draining\"").count(), 1, "{}", evener.log());
    assert!(evener.log().contains("\"requests_cut\":1"), "{}", evener.log());
}

#[test]
fn a_second_term_ends_it_now() {
    let origin = Origin::answering("never");
    let mut evener = in_front_of(&origin, "drain_timeout = \"60s\"");
    origin.hold();
    let mut client = evener.connect();
    client.start("GET", "/", "", b"");
    origin.wait_for_request();
    evener.signal("TERM");
    // Two that come before the first is handled are one.
    wait_until(SOON, || evener.log().contains("draining"));
    assert!(evener.ends_within(Duration::from_millis(500)).is_none());
    evener.signal("TERM");
    assert!(evener.ends_within(SOON).is_some(), "still there");
}

/// traefik#1942, pingora#505: whoever routes to us must learn that we leave before we are gone.
#[test]
fn ready_fails_before_listeners_close() {
    let origin = Origin::answering("ok");
    let mut evener = in_front_of(&origin, "pre_stop_delay = \"8s\"");
    evener.signal("TERM");
    wait_until(Duration::from_secs(7), || {
        evener.admin().try_get("/readyz").is_some_and(|it| it.status() == 503)
    });
    evener.get("/").expect_status(200);
    assert_eq!(evener.admin().get("/livez").status(), 200);
    assert_eq!(evener.ends_within(SOON).and_then(|status| status.code()), Some(0));
}

/// Who drains for minutes is looked at meanwhile, and scraped to the last request.
#[test]
fn a_stopping_process_takes_no_new_connections_and_its_side_port_answers() {
    let origin = Origin::answering("ok");
    let mut evener = in_front_of(&origin, "drain_timeout = \"60s\"");
    origin.hold();
    let under_way = evener.get_in_background("/");
    origin.wait_for_request();
    evener.signal("TERM");
    wait_until(SOON, || {
        let Ok(mut client) = Client::try_connect(evener.address()) else { return true };
        client.is_closed_within(Duration::from_millis(50))
    });
    assert_eq!(evener.admin().get("/readyz").status(), 503);
    assert_eq!(evener.admin().get("/livez").status(), 200);
    evener.admin().expect_metric("evener_requests_in_flight", &[], 1.0);
    origin.release();
    under_way.join().expect_status(200);
    assert_eq!(evener.ends_within(SOON).and_then(|status| status.code()), Some(0));
}

/// The usual soft limit is 1 024, which five hundred clients use up.
#[test]
fn as_many_files_may_be_open_as_the_system_allows_and_too_few_are_told() {
    let origin = Origin::answering("ok");
    for (connections, is_enough) in [(200, true), (201, false)] {
        let text = format!(
            "[listeners.http]\nmax_connections = {connections}\n[pools.app]\nupstreams = [\"{}\"]",
            origin.address()
        );
        let evener = Evener::start_with_file_limits(&text, 100, 400);
        evener.admin().expect_metric("process_max_fds", &[], 400.0);
        if !is_enough {
            evener.wait_for_log("fewer file descriptors");
        }
        assert_eq!(evener.log().contains("fewer file descriptors"), !is_enough, "{}", evener.log());
    }
}

/// PINGORA.md, rule 18: unhandled, HUP kills.
#[test]
fn hup_does_not_end_the_process() {
    let origin = Origin::answering("ok");
    let mut evener = in_front_of(&origin, "");
    let mut client = evener.connect();
    for _ in 0..10 {
        evener.signal("HUP");
        thread::sleep(Duration::from_millis(20));
        client.get("/").expect_status(200);
        evener.get("/").expect_status(200);
    }
    assert!(evener.ends_within(Duration::from_millis(200)).is_none());
}

/// The earliest moment at which a HUP can arrive is before the process has set itself up.
#[test]
fn hup_during_the_start_does_not_end_the_process() {
    let origin = Origin::answering("ok");
    let mut evener = Evener::start_unready(&format!("[pools.app]\nupstreams = [\"{}\"]", origin.address()));
    wait_until(SOON, || evener.admin().try_get("/livez").is_some());
    evener.signal("HUP");
    wait_until(SOON, || evener.admin().get("/readyz").status() == 200);
    assert!(evener.ends_within(Duration::from_millis(100)).is_none());
}

/// PINGORA.md, rule 17: Pingora tries for thirty seconds, panics in a task, and lives on without the listener.
#[test]
fn a_taken_port_is_an_exit_code() {
    for taken in ["listener", "admin"] {
        let holder = TcpListener::bind(("127.0.0.1", reserve_port())).unwrap();
        let occupied = holder.local_addr().unwrap();
        let free = format!("127.0.0.1:{}", reserve_port());
        let (listener, admin) = match taken {
            "listener" => (occupied.to_string(), free),
            _ => (free, occupied.to_string()),
        };
        let file = format!(
            "[listeners.http]\naddress = \"{listener}\"\n[admin]\naddress = \"{admin}\"\n[pools.app]\nupstreams = [\"127.0.0.1:{}\"]\n",
            reserve_port()
        );
        let started = Instant::now();
        let finished = run_to_end(&["run", "--config", "evener.toml"], &[("evener.toml", &file)]);
        assert_eq!(finished.code, Some(3), "{taken}: {finished:?}");
        assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
        assert!(finished.stderr.contains(&occupied.to_string()), "{finished:?}");
    }
}

#[test]
fn an_address_that_is_not_ours_is_an_exit_code_too() {
    let file = format!(
        "[listeners.http]\naddress = \"192.0.2.1:80\"\n[admin]\naddress = \"127.0.0.1:{}\"\n[pools.app]\nupstreams = [\"127.0.0.1:1\"]\n",
        reserve_port()
    );
    let finished = run_to_end(&["run", "--config", "evener.toml"], &[("evener.toml", &file)]);
    assert_eq!(finished.code, Some(3), "{finished:?}");
    assert!(finished.stderr.contains("192.0.2.1:80"), "{finished:?}");
}

/// `server.threads`: as many threads carry traffic as the file says.
#[test]
fn traffic_has_as_many_threads_as_the_file_says() {
    let threads = |evener: &Evener| {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", evener.process_id())).expect("the tasks");
        tasks
            .flatten()
            .filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok())
            .filter(|name| name.starts_with("traffic"))
            .count()
    };
    let origin = Origin::answering("ok");
    for wanted in [1, 3] {
        let evener = Evener::start(&format!(
            "[server]\nthreads = {wanted}\n[pools.app]\nupstreams = [\"{}\"]",
            origin.address()
        ));
        evener.get("/").expect_status(200);
        // A thread gives itself its name when it first runs.
        wait_until(SOON, || threads(&evener) == wanted);
    }
}

/// `log.level`: what is said, and what is not.
#[test]
fn the_log_says_as_much_as_the_file_wants() {
    let origin = Origin::answering("ok");
    let log_at = |level: &str| {
        let evener = Evener::start(&format!(
            "[log]\nlevel = \"{level}\"\n[pools.app]\nupstreams = [\"{}\"]",
            origin.address()
        ));
        evener.request("GET / HTTP/1.1\r\n\r\n").expect_status(400);
        evener.log()
    };
    let (quiet, usual, chatty) = (log_at("warn"), log_at("info"), log_at("debug"));
    assert!(!quiet.contains("starting"), "{quiet}");
    assert!(usual.contains("starting") && !usual.contains("request refused"), "{usual}");
    assert!(chatty.contains("request refused"), "{chatty}");
}
