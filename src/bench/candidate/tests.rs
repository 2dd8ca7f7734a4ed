use std::path::Path;
use std::process::Command;

use super::*;
use crate::balance::StrategyKind;
use crate::bench::scenario::{Arrivals, Load, Request, Scenario, Work};
use crate::config::{self, Config};
use std::time::Duration;

fn scenario() -> Scenario {
    Scenario {
        name: "test".to_owned(),
        what: String::new(),
        expected: String::new(),
        is_short: false,
        servers: 2_000,
        workers: 1,
        balancers: 1,
        threads: 3,
        load: Load::Rate { per_second: 400.0, arrivals: Arrivals::Poisson, work: Work::None },
        request: Request { answer: 10, ..Request::default() },
        script: Vec::new(),
        reload_every: None,
        duration: Duration::from_secs(10),
        warmup: Duration::from_secs(1),
        timeout: Duration::from_secs(2),
        candidates: Vec::new(),
        expectations: Vec::new(),
    }
}

/// A plan in front of so many servers, of which all but the last are in the pool.
fn plan(folder: &Path, candidate: Candidate, servers: u16, scenario: &Scenario) -> Plan {
    let servers: Vec<SocketAddr> =
        (0..servers).map(|index| ([127, 0, 0, 1], 10_000 + index).into()).collect();
    let place = Place {
        folder,
        program: Path::new("/bin/true"),
        scenario,
        servers: &servers,
        admitted: (0..servers.len() - 1).collect(),
    };
    Plan::new(candidate, &place, 0).expect("a plan")
}

fn written(candidate: Candidate, servers: u16) -> (tempfile::TempDir, Plan) {
    let folder = tempfile::tempdir().expect("a folder");
    let plan = plan(folder.path(), candidate, servers, &scenario());
    plan.write(&text(candidate, &plan).expect("a text")).expect("it is written");
    (folder, plan)
}

fn read(plan: &Plan) -> Config {
    config::load(&plan.file()).unwrap_or_else(|error| panic!("{error}")).config
}

fn idle_of(plan: &Plan) -> Duration {
    read(plan).pools.first().expect("a pool").keepalive.idle
}

#[test]
fn evener_reads_what_is_written_for_it_with_every_strategy() {
    for kind in StrategyKind::ALL {
        let (_folder, plan) = written(Candidate::Evener(kind), 2_000);
        let config = read(&plan);
        let [pool] = config.pools.as_slice() else { panic!("one pool: {}", config.summary()) };
        assert_eq!((config.server.threads, pool.strategy, pool.upstreams.len()), (3, kind, 1_999));
        assert!(pool.health_check.is_some() && pool.ejection.is_some(), "as it comes");
        assert_eq!(pool.keepalive.max_idle, 800, "as many as may be under way");
        assert!(config.routes.iter().all(|route| route.timeout >= Some(Duration::from_secs(4))));
    }
}

#[test]
fn perfect_has_a_pool_for_each_server_and_nothing_that_judges() {
    let (_folder, plan) = written(Candidate::Perfect, 2_000);
    let config = read(&plan);
    assert_eq!((config.pools.len(), config.routes.len()), (2_000, 2_001));
    assert!(config.pools.iter().all(|pool| pool.health_check.is_none() && pool.ejection.is_none()));
}

#[test]
fn each_change_makes_another_pool_and_a_newcomer_joins_once() {
    let candidate = Candidate::Evener(StrategyKind::RoundRobin);
    let (_folder, mut plan) = written(candidate, 4);
    let before = idle_of(&plan);
    plan.edition += 1;
    plan.admit(3);
    plan.admit(3);
    plan.admit(4);
    plan.write(&text(candidate, &plan).expect("a text")).expect("it is written");
    assert_ne!(idle_of(&plan), before);
    assert_eq!(read(&plan).pools.first().expect("a pool").upstreams.len(), 4);
}

#[test]
fn patient_clients_wait_no_longer_than_the_balancer_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let patient = Scenario { timeout: Duration::from_secs(100), load: Load::Idle(12_000), ..scenario() };
    let candidate = Candidate::Evener(StrategyKind::RandomTwo);
    let plan = plan(folder.path(), candidate, 2, &patient);
    plan.write(&text(candidate, &plan).expect("a text")).expect("it is written");
    let config = read(&plan);
    assert!(config.routes.iter().all(|route| route.timeout == Some(Duration::from_secs(200))));
    assert!(config.pools.iter().all(|pool| pool.timeouts.read == Duration::from_secs(200)));
    assert!(config.listeners.iter().all(|listener| listener.max_connections >= 12_000));
}

#[test]
fn nginx_takes_its_configuration() {
    accepts(Candidate::Nginx, |plan| {
        let mut command = nginx::command(plan);
        command.arg("-t");
        command
    });
}

#[test]
fn haproxy_takes_its_configuration() {
    accepts(Candidate::Haproxy, |plan| {
        let mut command = haproxy::command(plan);
        command.arg("-c");
        command
    });
}

#[test]
fn caddy_takes_its_configuration() {
    accepts(Candidate::Caddy, |plan| {
        let run = caddy::command(plan);
        let mut command = Command::new(run.get_program());
        command.args(["validate", "--adapter", "caddyfile", "--config"]).arg(plan.file());
        command.envs(run.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command
    });
}

fn accepts(candidate: Candidate, test: impl Fn(&Plan) -> Command) {
    if !is_installed(candidate) {
        println!("left out: {candidate} is not installed");
        return;
    }
    for servers in [2, 2_000] {
        let (_folder, plan) = written(candidate, servers);
        let said = test(&plan).output().expect("it runs");
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    }
    assert!(machine::version_in(&version(candidate)).is_some(), "{}", version(candidate));
}

#[test]
fn what_is_not_installed_or_has_no_server_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let scenario = scenario();
    let place = Place {
        folder: folder.path(),
        program: Path::new("/bin/false"),
        scenario: &scenario,
        servers: &[],
        admitted: Vec::new(),
    };
    assert!(matches!(start(Candidate::Direct, &place), Err(BenchError::Wrong(_))));
    let servers = [([127, 0, 0, 1], 1).into()];
    let place = Place { servers: &servers, ..place };
    let running = start(Candidate::Direct, &place).expect("nothing to start");
    assert_eq!((running.addresses(), running.processes().len()), (&servers[..], 0));
    assert_eq!(running.usage().expect("no process, no usage"), Usage::default());
    let error = start(Candidate::Bare, &place).expect_err("it ends at once").to_string();
    assert!(error.starts_with("bare ended before its time"), "{error}");
}
