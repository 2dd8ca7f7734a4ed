//! The balancers that the bench compares, each started in front of servers of ours: it answers, takes changes,
//! tells what it uses, and leaves nothing behind. Those that are not installed are left out, and it is said.

use std::collections::HashSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use evener::balance::StrategyKind;
use evener::bench::candidate::{self, Place, Running};
use evener::bench::name::Candidate;
use evener::bench::scenario::{Load, Request, Scenario};
use tempfile::TempDir;

use crate::rig::{Origin, Reply, wait_until};

/// For whatever must come about, on a machine with other things to do.
const SOON: Duration = Duration::from_secs(60);

/// What a candidate stands in front of.
struct Stage {
    folder: TempDir,
    /// Kept alive.
    _origins: Vec<Origin>,
    servers: Vec<SocketAddr>,
    scenario: Scenario,
}

impl Stage {
    fn with_servers(count: usize, balancers: usize) -> Self {
        let origins: Vec<Origin> = (0..count).map(origin).collect();
        let servers = origins.iter().map(|origin| origin.address().parse().expect("an address")).collect();
        let folder = tempfile::tempdir().expect("a folder");
        Self { folder, _origins: origins, servers, scenario: scenario(count, balancers) }
    }

    /// In front of the first `admitted` servers.
    #[track_caller]
    fn start(&self, candidate: Candidate, admitted: usize) -> Running {
        let place = Place {
            folder: self.folder.path(),
            program: Path::new(env!("CARGO_BIN_EXE_evener")),
            scenario: &self.scenario,
            servers: &self.servers,
            admitted: (0..admitted).collect(),
        };
        candidate::start(candidate, &place).unwrap_or_else(|error| panic!("{candidate}: {error}"))
    }
}

/// Says who it is, as scripted servers do.
fn origin(index: usize) -> Origin {
    Origin::serving(move |_| Reply::with_headers(200, &format!("x-bench-server: {index}\r\n"), "hello"))
}

fn scenario(servers: usize, balancers: usize) -> Scenario {
    Scenario {
        name: "test".to_owned(),
        what: String::new(),
        expected: String::new(),
        is_short: false,
        servers,
        workers: 1,
        balancers,
        threads: 1,
        load: Load::Clients(4),
        request: Request { answer: 5, ..Request::default() },
        script: Vec::new(),
        reload_every: None,
        duration: Duration::from_secs(1),
        warmup: Duration::ZERO,
        timeout: Duration::from_secs(1),
        candidates: Vec::new(),
        expectations: Vec::new(),
    }
}

/// The server that answered 200; on a connection of its own.
fn ask(address: SocketAddr, host: &str) -> Option<usize> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    write!(stream, "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let head = answer.strip_prefix("HTTP/1.1 200")?.to_ascii_lowercase();
    head.split_once("x-bench-server: ")?.1.split_whitespace().next()?.parse().ok()
}

fn who_answers(address: SocketAddr, requests: usize) -> HashSet<usize> {
    (0..requests).filter_map(|_| ask(address, "bench")).collect()
}

/// The processes that are in one of these groups and run.
fn alive(groups: &[u32]) -> Vec<String> {
    let stats = fs::read_dir("/proc").expect("processes").flatten();
    let stats = stats.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    let lives = |stat: &String| {
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        fields[0] != "Z" && fields[2].parse().is_ok_and(|group| groups.contains(&group))
    };
    stats.filter(lives).collect()
}

#[test]
fn the_bench_runs_nginx() {
    plays_its_part(Candidate::Nginx);
}

#[test]
fn the_bench_runs_haproxy() {
    plays_its_part(Candidate::Haproxy);
}

#[test]
fn the_bench_runs_caddy() {
    plays_its_part(Candidate::Caddy);
}

#[test]
fn the_bench_runs_evener() {
    plays_its_part(Candidate::Evener(StrategyKind::RoundRobin));
}

#[test]
fn the_bench_runs_perfect_knowledge_which_sends_each_request_where_it_is_told() {
    let stage = Stage::with_servers(3, 1);
    let mut perfect = stage.start(Candidate::Perfect, 2);
    let address = perfect.addresses()[0];
    for (host, server) in [("bench", 0), ("s0", 0), ("s1", 1), ("s2", 2)] {
        assert_eq!(ask(address, host), Some(server), "{host}");
    }
    perfect.reload().expect("it reloads");
    perfect.admit(2).expect("it admits whom it knows");
    assert_eq!(ask(address, "s2"), Some(2));
    ends(perfect);
}

#[test]
fn the_bench_runs_bare_pingora_in_front_of_the_first_server() {
    let stage = Stage::with_servers(2, 1);
    let mut bare = stage.start(Candidate::Bare, 2);
    bare.reload().and_then(|()| bare.admit(1)).expect("nothing happens");
    assert_eq!(who_answers(bare.addresses()[0], 10), HashSet::from([0]));
    uses_more_after_requests(&bare);
    ends(bare);
}

#[test]
fn the_bench_runs_several_balancers_in_front_of_the_same_servers() {
    let stage = Stage::with_servers(2, 2);
    let both = stage.start(Candidate::Evener(StrategyKind::LeastConnections), 2);
    let [first, second] = both.addresses() else { panic!("two addresses: {:?}", both.addresses()) };
    assert_ne!(first, second);
    assert!(ask(*first, "bench").is_some() && ask(*second, "bench").is_some());
    let usage = both.usage().expect("usage");
    assert_eq!(both.processes().len(), 2);
    assert!(usage.resident_kib > 2_000, "of both: {usage:?}");
    ends(both);
}

#[test]
fn the_bench_notices_a_balancer_that_ended() {
    let stage = Stage::with_servers(1, 1);
    let running = stage.start(Candidate::Evener(StrategyKind::RoundRobin), 1);
    running.check().expect("it runs");
    let kill = format!("kill -KILL {}", running.processes()[0]);
    std::process::Command::new("sh").args(["-c", &kill]).status().expect("a shell");
    wait_until(SOON, || running.check().is_err());
    assert!(running.usage().is_err());
}

fn plays_its_part(candidate: Candidate) {
    if !candidate::is_installed(candidate) {
        println!("left out: {candidate} is not installed");
        return;
    }
    let stage = Stage::with_servers(3, 1);
    let mut running = stage.start(candidate, 2);
    let address = running.addresses()[0];
    wait_until(SOON, || who_answers(address, 10) == HashSet::from([0, 1]));
    for _ in 0..3 {
        running.reload().expect("it is told to reload");
        wait_until(SOON, || who_answers(address, 10) == HashSet::from([0, 1]));
    }
    running.admit(2).expect("it is told about another server");
    wait_until(SOON, || who_answers(address, 10).contains(&2));
    uses_more_after_requests(&running);
    running.check().unwrap_or_else(|error| panic!("{error}"));
    ends(running);
}

fn uses_more_after_requests(running: &Running) {
    let before = running.usage().expect("usage");
    who_answers(running.addresses()[0], 50);
    let after = running.usage().expect("usage");
    assert!(after.user + after.system > before.user + before.system, "{before:?} {after:?}");
    assert!(after.user >= before.user && after.system >= before.system, "{before:?} {after:?}");
    assert!(after.resident_kib > 500 && after.peak_kib >= after.resident_kib, "{after:?}");
}

fn ends(running: Running) {
    let (groups, addresses) = (running.processes(), running.addresses().to_vec());
    assert!(!alive(&groups).is_empty());
    drop(running);
    assert_eq!(alive(&groups), [""; 0], "nothing is left behind");
    assert!(addresses.iter().all(|address| TcpStream::connect(address).is_err()));
}
