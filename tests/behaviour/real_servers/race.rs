//! The keep-alive race: an upstream closes an idle connection in the moment in which a request is sent on it.
//!
//! Node closes after five seconds without saying so beforehand; behind many proxies that is a 502 now and
//! then (nodejs/node#20256, and each proxy's tracker).

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::figures::{metric, retries};
use super::server::{Kind, NODE_KEEP_ALIVE, Server};
use super::{in_front_of, program};
use crate::rig::{Client, Evener};

/// Fewer would prove little.
const SAMPLES_MIN: usize = 2_000;

/// Further waves on a machine so busy that Node has closed all connections each time, or none.
const WAVES_MORE: usize = 20;

/// How long Node holds the answers of a wave back, after the last of its requests was due. So all of them
/// are in flight at once, each on a connection of its own, and all connections fall idle at once.
const HOLD: Duration = Duration::from_millis(150);

/// Requests on all connections at about the same time.
struct Wave {
    /// When the first and the last request are sent.
    first: Instant,
    last: Instant,
}

#[test]
fn connections_that_node_closes_after_300_ms_give_no_502() {
    race(Duration::from_millis(300), Duration::from_millis(20), 256, 8);
}

#[test]
fn connections_that_node_closes_after_5_s_give_no_502() {
    race(NODE_KEEP_ALIVE, Duration::from_millis(100), 700, 3);
}

/// All clients ask again and again, after idle times spread evenly around the time after which Node closes.
fn race(keep_alive: Duration, spread: Duration, clients: usize, waves: usize) {
    if !program::all_are_here() {
        return;
    }
    allow_open_files(8 * clients);
    let node = [Server::start(Kind::Node { keep_alive })];
    // All the connections of a wave can be new ones, more than Node's queue of 511 holds; what it drops
    // comes again after a second.
    let settings = "timeouts = { connect = \"20s\" }\nkeepalive = { idle = \"60s\", max_idle = 4096 }";
    let evener = in_front_of(&node, settings);
    let mut clients: Vec<Client> = (0..clients).map(|_| evener.connect()).collect();
    let closes_after = idle_time_of(&node[0]);

    let mut fell_idle = Wave::starting_at(Instant::now(), spread).play(&mut clients);
    let (mut idle, mut played) = (closes_after, 0);
    while played < waves || (!was_a_race(&evener, clients.len(), played) && played < waves + WAVES_MORE) {
        let first = fell_idle + idle.saturating_sub(spread);
        let before = connections_opened(&evener);
        fell_idle = Wave::starting_at(first, spread).play(&mut clients);
        played += 1;
        // What was measured holds for a machine at rest; under load all of a wave may come late, or early.
        match connections_opened(&evener) - before {
            0 => idle += spread,
            opened if opened >= clients.len() => idle = idle.saturating_sub(spread),
            _ => {}
        }
    }
    let samples = played * clients.len();
    tell(&evener, samples, closes_after);
    assert!(samples >= SAMPLES_MIN);
    assert!(was_a_race(&evener, clients.len(), played), "Node closed all or none");
}

impl Wave {
    fn starting_at(first: Instant, spread: Duration) -> Self {
        Self { first, last: first + 2 * spread }
    }

    /// Sends a request on each connection, evenly spread; each must be answered with 200. Answers when all
    /// connections fell idle again.
    fn play(&self, clients: &mut [Client]) -> Instant {
        let answers_at = self.last.max(Instant::now()) + HOLD;
        let path = format!("/at/{}", epoch_milliseconds(answers_at));
        let step = (self.last - self.first) / u32::try_from(clients.len()).expect("not so many");
        let mut due = self.first;
        for client in &mut *clients {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            client.start("GET", &path, "", b"");
            due += step;
        }
        for client in clients {
            client.read("GET").expect_status(200);
        }
        answers_at
    }
}

fn epoch_milliseconds(at: Instant) -> u128 {
    let time = SystemTime::now() + at.saturating_duration_since(Instant::now());
    time.duration_since(UNIX_EPOCH).expect("after 1970").as_millis()
}

/// Measured rather than believed: some versions of Node wait longer than they are told to.
fn idle_time_of(node: &Server) -> Duration {
    let mut client = Client::connect(node.address());
    client.get("/").expect_status(200);
    let started = Instant::now();
    assert!(client.is_closed_within(Duration::from_secs(20)), "Node keeps an idle connection for ever");
    started.elapsed()
}

/// Some connections were still open when their next request came, and some were not.
fn was_a_race(evener: &Evener, clients: usize, waves: usize) -> bool {
    (clients + 1..clients * (1 + waves)).contains(&connections_opened(evener))
}

fn connections_opened(evener: &Evener) -> usize {
    usize::try_from(metric(evener, "evener_upstream_connects_total", "result=\"ok\"")).expect("not so many")
}

fn tell(evener: &Evener, samples: usize, closes_after: Duration) {
    let (stale, opened) = (retries(evener, "stale_connection"), connections_opened(evener));
    eprintln!(
        "keep-alive race: Node closes after {closes_after:?}; {samples} samples, all 200; {opened} connections opened, {stale} requests repeated after a close"
    );
}

/// Every client is two files of Evener's and one of ours. Raises our own limit, which children inherit, where
/// it is lower and the system allows.
fn allow_open_files(count: usize) {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let limit: Option<usize> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    if limit.is_some_and(|limit| limit < count) {
        let (process, limit) = (std::process::id().to_string(), format!("--nofile={count}:"));
        let _ = Command::new("prlimit").args(["--pid", &process, &limit]).status();
    }
}
