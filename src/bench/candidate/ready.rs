//! When a balancer may be measured: it answers, and it knows that its servers are up.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::super::error::BenchError;
use super::super::load;
use super::super::process::Process;
use super::plan::Plan;

/// A start on a shared machine may take its time; Evener's includes its first health checks.
const START: Duration = Duration::from_secs(30);
/// For each server to be reached once. Nobody promises that they all are.
const REACHING: Duration = Duration::from_secs(3);
/// Of one question.
const PATIENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(10);
/// Of one request of the load's kind, which may be a long download.
const ANSWER: Duration = Duration::from_secs(30);

/// As much of `/health` as tells whether all are up. It is some bytes per pool, where `/v1/pools` has hundreds per
/// upstream: asking again and again should not show in the memory that is measured.
#[derive(Deserialize)]
struct Health {
    checks: Checks,
}

#[derive(Deserialize)]
struct Checks {
    pools: HashMap<String, Pool>,
}

#[derive(Deserialize)]
struct Pool {
    eligible: usize,
    upstreams: usize,
}

/// A client that takes every answer, keeps its connection, and has nobody between.
pub(super) fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_global(Some(PATIENCE))
        .build()
        .into()
}

/// Waits until a request as the load will send it is answered as it should be.
pub(super) fn until_it_answers(process: &Process, plan: &Plan) -> Result<(), BenchError> {
    until(process, || load::ask_once(plan.request, plan.listen, ANSWER).map(drop))
}

/// Waits until Evener says that it may send requests to every upstream.
pub(super) fn until_all_are_up(process: &Process, admin: SocketAddr) -> Result<(), BenchError> {
    let client = agent();
    until(process, || {
        let answer =
            client.get(format!("http://{admin}/health")).call().map_err(|error| error.to_string())?;
        let text = answer.into_body().read_to_string().map_err(|error| error.to_string())?;
        let Health { checks } = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        match checks.pools.values().map(|pool| pool.upstreams.abs_diff(pool.eligible)).sum() {
            0 => Ok(()),
            missing => Err(format!("{missing} upstreams are not up")),
        }
    })
}

/// Asks until each of so many servers has answered; those that cannot be asked about it have their first
/// connection to each behind them then. Gives up after a while: a random choice may leave one out for long.
pub(super) fn until_all_were_reached(plan: &Plan) {
    let until = Instant::now() + REACHING;
    let mut reached = HashSet::new();
    while reached.len() < plan.admitted.len() && Instant::now() < until {
        match load::ask_once(plan.request, plan.listen, ANSWER) {
            Ok(Some(server)) => drop(reached.insert(server)),
            // Nobody says who it was.
            Ok(None) => return,
            Err(_) => thread::sleep(POLL),
        }
    }
}

fn until(process: &Process, check: impl Fn() -> Result<(), String>) -> Result<(), BenchError> {
    let deadline = Instant::now() + START;
    while let Err(error) = check() {
        process.check()?;
        if Instant::now() > deadline {
            return Err(process.broken(&format!("is not ready: {error}")));
        }
        thread::sleep(POLL);
    }
    Ok(())
}
