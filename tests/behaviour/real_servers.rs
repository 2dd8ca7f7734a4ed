//! Evener in front of servers that no one here wrote, under load from a generator that no one here wrote:
//! Node's `http`, gunicorn and nginx, and wrk. Servers are killed, frozen and restarted; no client notices.
//!
//! `cargo test --test behaviour real_servers -- --nocapture` tells the figures of each play.

mod figures;
mod load;
mod program;
mod race;
mod reconfigure;
mod server;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use figures::{assert_that_all_agree, figures, is_eligible, refusals, tell, upstream, wait_for_rest};
use load::{CONNECTIONS, Load, Report};
use server::{Kind, NODE_KEEP_ALIVE, Server};

use crate::rig::{Evener, wait_until};

/// For anything that must come about under load.
const SOON: Duration = Duration::from_secs(60);

/// Requests after which a server has plainly taken part.
const PLENTY: u64 = 500;

/// Quick to notice; patient, because under full load even a probe waits for its turn.
const PATIENT_CHECKS: &str = r#"ejection = { base_duration = "500ms" }
    health_check = { path = "/healthz", interval = "3s", fast_interval = "100ms", timeout = "3s", rise = 2, fall = 2 }"#;

/// A frozen server is down within seven seconds, before the first request to it times out; one that a machine
/// under load keeps waiting is not.
const QUICK_CHECKS: &str = r#"timeouts = { connect = "5s", read = "9s" }
    ejection = { base_duration = "500ms" }
    health_check = { path = "/healthz", interval = "2s", fast_interval = "100ms", timeout = "2s", rise = 2, fall = 2 }"#;

#[test]
fn round_robin_loses_no_request_when_node_is_killed() {
    let Some(spread) = spread_with_one_killed("strategy = \"round_robin\"", 0) else { return };
    let [_, gunicorn, nginx] = &spread;
    // On a machine under load one of them may have been taken for sick, or ejected, for a moment.
    let is_equal = gunicorn.answered.abs_diff(nginx.answered) <= 2 * CONNECTIONS;
    assert!(is_equal || gunicorn.left_out + nginx.left_out > 0, "who stayed has an equal share: {spread:?}");
}

/// What a server had of the load.
#[derive(Debug)]
struct Share {
    answered: u64,
    /// Reasons to pass it over for a while: ejections, and health checks that failed.
    left_out: u64,
}

impl Share {
    fn of(evener: &Evener, server: &Server) -> Self {
        let upstream = format!("upstream=\"{}\"", server.address());
        let ejections = evener.admin().metric("evener_upstream_ejections_total", &[&upstream]);
        let failed = evener.admin().metric("evener_health_checks_total", &[&upstream, "result=\"failed\""]);
        Self { answered: figures(evener, server).answered(), left_out: u64::from(ejections + failed > 0.0) }
    }
}

#[test]
fn least_connections_loses_no_request_when_gunicorn_is_killed() {
    spread_with_one_killed("strategy = \"least_connections\"", 1);
}

#[test]
fn latency_weighted_loses_no_request_when_nginx_is_killed() {
    spread_with_one_killed("strategy = \"latency_weighted\"", 2);
}

#[test]
fn random_two_loses_no_request_when_node_is_killed() {
    spread_with_one_killed("strategy = \"random_two\"", 0);
}

#[test]
fn consistent_hash_loses_no_request_when_nginx_is_killed() {
    spread_with_one_killed("strategy = \"consistent_hash\"\nhash = { header = \"x-user\" }", 2);
}

/// Kills a server with `kill -9` under load, and starts it again. Answers what each had of the load.
fn spread_with_one_killed(strategy: &str, victim: usize) -> Option<[Share; 3]> {
    let _turn = turn_to_load()?;
    let mut servers = three();
    let evener = in_front_of(&servers, &format!("{strategy}\n{PATIENT_CHECKS}"));
    let load = Load::start(evener.address());
    servers.iter().for_each(|server| wait_for_share(&evener, server));

    servers[victim].kill();
    wait_until(SOON, || !is_eligible(&evener, &servers[victim]));
    servers[victim].start_again();
    wait_for_share(&evener, &servers[victim]);

    let report = load.end();
    wait_for_rest(&evener, &servers);
    tell(&evener, &servers, strategy.lines().next()?, report);
    assert_eq!(report.failed(), 0, "{report:?}");
    assert_that_all_agree(&evener, &servers, report, 1);
    Some([0, 1, 2].map(|index: usize| Share::of(&evener, &servers[index])))
}

/// A frozen server accepts connections, by its kernel, and never answers.
#[test]
fn only_requests_in_flight_at_a_frozen_server_fail() {
    let Some(_turn) = turn_to_load() else { return };
    let servers = three();
    let [node, ..] = &servers;
    let evener = in_front_of(&servers, QUICK_CHECKS);
    let load = Load::start(evener.address());
    servers.iter().for_each(|server| wait_for_share(&evener, server));

    node.freeze();
    wait_until(SOON, || !is_eligible(&evener, node));
    // Longer than the read timeout: those in flight have failed, and everybody else goes on.
    wait_until(SOON, || refusals(&evener, "upstream_timeout") > 0);
    servers[1..].iter().for_each(|server| wait_for_share(&evener, server));
    wait_until(SOON, || {
        let shown = upstream(&evener, node);
        shown["eligible"] == false && shown["in_flight"] == 0
    });

    node.thaw();
    wait_until(SOON, || is_eligible(&evener, node));
    wait_for_equal_shares(&evener, &servers);

    let report = load.end();
    wait_for_rest(&evener, &servers);
    tell(&evener, &servers, "frozen", report);
    assert_only_timeouts(&evener, report);
    assert_that_all_agree(&evener, &servers, report, 1);
}

/// Every failed request was answered with 504, and no connection had more than one.
#[track_caller]
fn assert_only_timeouts(evener: &Evener, report: Report) {
    assert_eq!(report.broken(), 0, "{report:?}");
    assert_eq!(report.status, refusals(evener, "upstream_timeout"), "{report:?}");
    assert!((1..=CONNECTIONS).contains(&report.status), "{report:?}");
    assert_eq!(figures::metric(evener, "evener_requests_total", "class=\"5xx\""), report.status);
}

/// Each takes a third, as round robin has it, as soon as no machine under load gets between.
#[track_caller]
fn wait_for_equal_shares(evener: &Evener, servers: &[Server]) {
    let answered =
        || -> Vec<u64> { servers.iter().map(|server| figures(evener, server).answered()).collect() };
    wait_until(SOON, || {
        let before = answered();
        wait_until(SOON, || figures(evener, &servers[0]).answered() > before[0] + 4 * PLENTY);
        let gained: Vec<u64> = answered().iter().zip(&before).map(|(after, before)| after - before).collect();
        let total: u64 = gained.iter().sum();
        gained.iter().all(|&gain| (3 * gain).abs_diff(total) <= total / 5)
    });
}

/// As a deployment does it: each server finishes what it is doing, ends, and comes back.
#[test]
fn a_rolling_restart_loses_no_request() {
    let Some(_turn) = turn_to_load() else { return };
    let mut servers = three();
    let evener = in_front_of(&servers, PATIENT_CHECKS);
    let load = Load::start(evener.address());
    servers.iter().for_each(|server| wait_for_share(&evener, server));

    for server in &mut servers {
        server.end();
        wait_until(SOON, || !is_eligible(&evener, server));
        server.start_again();
        wait_until(SOON, || is_eligible(&evener, server));
        wait_for_share(&evener, server);
    }

    let report = load.end();
    wait_for_rest(&evener, &servers);
    tell(&evener, &servers, "rolling restart", report);
    assert_eq!(report.failed(), 0, "{report:?}");
    assert_that_all_agree(&evener, &servers, report, 0);
}

/// Leave to put full load on the machine: one play at a time. `None` where the play is left out.
fn turn_to_load() -> Option<MutexGuard<'static, ()>> {
    static TURN: Mutex<()> = Mutex::new(());
    program::all_are_here().then(|| TURN.lock().unwrap_or_else(PoisonError::into_inner))
}

fn three() -> [Server; 3] {
    [Kind::Node { keep_alive: NODE_KEEP_ALIVE }, Kind::Gunicorn, Kind::Nginx].map(Server::start)
}

/// Evener with one pool `app` of these servers; `settings` are further lines of the pool.
fn in_front_of(servers: &[Server], settings: &str) -> Evener {
    let addresses: Vec<_> = servers.iter().map(|server| format!("\"{}\"", server.address())).collect();
    Evener::start(&format!("[pools.app]\nupstreams = [{}]\n{settings}", addresses.join(", ")))
}

/// Waits until the server has answered plenty of further requests.
#[track_caller]
fn wait_for_share(evener: &Evener, server: &Server) {
    let before = figures(evener, server).answered();
    wait_until(SOON, || figures(evener, server).answered() >= before + PLENTY);
}
