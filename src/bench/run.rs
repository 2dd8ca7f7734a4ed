//! All candidates in turns, round after round: what the machine does beside falls on all alike.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::candidate::{self, Place, Running};
use super::error::BenchError;
use super::load::{self, Order};
use super::name::Candidate;
use super::process::Usage;
use super::progress::Progress;
use super::report::{Outcome, Run};
use super::scenario::{Fate, Scenario};
use super::schedule::schedule;
use super::server::Fleet;
use super::turn::{Doubt, Turn, Used};
use super::{machine, oracle, verdict};
use crate::descriptors::raise_limit;

/// From the moment when everything is ready to the first request: all threads are waiting by then.
const LEAD: Duration = Duration::from_millis(300);

/// How often a thread that waits looks whether it is to stop.
const POLL: Duration = Duration::from_millis(20);

/// What is to be run.
pub struct Task<'a> {
    /// In this order.
    pub scenarios: Vec<(Scenario, Vec<Candidate>)>,
    /// How often every candidate has its turn.
    pub rounds: usize,
    /// Every round draws its load and its fate from this, the same for every candidate.
    pub seed: u64,
    /// The program that balances: this one.
    pub program: PathBuf,
    /// As it was typed, for the report.
    pub command: String,
    /// Set from outside to end the run in order.
    pub stop: &'a AtomicBool,
}

/// Runs everything; `told` hears of each scenario as soon as it is done.
///
/// # Errors
///
/// When something is broken, or the run is stopped: what was done by then comes with it.
pub fn run(task: &Task<'_>, told: impl Fn(&Outcome)) -> (Run, Result<(), BenchError>) {
    let started = SystemTime::now();
    // The servers' ports count, too, and they come first.
    // For us and for those that we start: each request under way has a connection or two.
    raise_limit();
    let machine = machine::facts();
    let turns = task.scenarios.iter().map(|(_, candidates)| candidates.len() * task.rounds).sum();
    let progress = Progress::new(turns);
    let mut outcomes = Vec::new();
    let mut end = Ok(());
    for (scenario, candidates) in &task.scenarios {
        match one_scenario(task, scenario, candidates, &progress) {
            Ok(outcome) => {
                progress.suspend(|| told(&outcome));
                outcomes.push(outcome);
            }
            Err(error) => {
                end = Err(error);
                break;
            }
        }
    }
    progress.done();
    let versions = versions(task);
    (Run { machine, versions, outcomes, started, command: task.command.clone() }, end)
}

/// Of all that took part, each once.
fn versions(task: &Task<'_>) -> Vec<(Candidate, String)> {
    let mut found: Vec<(Candidate, String)> = Vec::new();
    for &candidate in task.scenarios.iter().flat_map(|(_, candidates)| candidates) {
        if Candidate::OTHERS.contains(&candidate) && found.iter().all(|(known, _)| *known != candidate) {
            found.push((candidate, candidate::version(candidate)));
        }
    }
    found
}

fn one_scenario(
    task: &Task<'_>,
    scenario: &Scenario,
    candidates: &[Candidate],
    progress: &Progress,
) -> Result<Outcome, BenchError> {
    let mut turns = Vec::new();
    let mut broken: Vec<(Candidate, String)> = Vec::new();
    for (round, seed) in seeds(task.seed).take(task.rounds).enumerate() {
        for &candidate in &order(candidates, round) {
            progress.turn_began(&scenario.name, candidate, round + 1, task.rounds, scenario.duration);
            match one_turn(task, scenario, candidate, seed) {
                Ok(turn) => {
                    progress.turn_ended(&line(scenario, &turn));
                    turns.push(turn);
                }
                Err(error @ (BenchError::Wrong(_) | BenchError::Interrupted)) => {
                    return Err(error.during(&format!("{candidate} in `{}`", scenario.name)));
                }
                // The others still have something to show, and so have the other scenarios.
                Err(error) => {
                    progress.turn_ended(&format!("{:<20} {candidate:<18} broke: {error}", scenario.name));
                    broken.push((candidate, error.to_string()));
                }
            }
        }
    }
    let verdicts = verdict::verdicts(scenario, &turns);
    Ok(Outcome { scenario: scenario.clone(), turns, verdicts, seed: task.seed, broken })
}

/// One for each round. Runs with neighbouring seeds have nothing in common.
fn seeds(seed: u64) -> impl Iterator<Item = u64> {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(move || random.u64(..))
}

/// Forwards in one round and backwards in the next, so that nobody always follows the same neighbour.
fn order(candidates: &[Candidate], round: usize) -> Vec<Candidate> {
    let mut order = candidates.to_vec();
    if !round.is_multiple_of(2) {
        order.reverse();
    }
    order
}

/// How a turn went, in a line.
fn line(scenario: &Scenario, turn: &Turn) -> String {
    let ms = |quantile| turn.seen.succeeded.value_at_quantile(quantile) as f64 / 1_000.0;
    let failures: u64 = turn.seen.failures.values().sum();
    format!(
        "{:<20} {:<18} {:>8} answers, p50 {:.2} ms, p99 {:.2} ms, {failures} failed",
        scenario.name,
        turn.candidate.name(),
        turn.seen.succeeded.len(),
        ms(0.5),
        ms(0.99),
    )
}

/// Everything fresh: servers, balancer, connections. The load and the fate are those of the round.
fn one_turn(
    task: &Task<'_>,
    scenario: &Scenario,
    candidate: Candidate,
    seed: u64,
) -> Result<Turn, BenchError> {
    let folder = Folder::new(candidate)?;
    let fleet = Fleet::start(scenario, seed)?;
    let schedule = schedule(scenario, seed);
    let homes = (candidate == Candidate::Perfect).then(|| oracle::homes(scenario, &schedule, seed));
    let place = Place {
        folder: &folder.0,
        program: &task.program,
        scenario,
        servers: fleet.addresses(),
        admitted: admitted(scenario, candidate),
    };
    let running = candidate::start(candidate, &place)?;
    let addresses = running.addresses().to_vec();
    let before = running.usage()?;
    let began = Instant::now() + LEAD;
    fleet.begin(began);

    let order = Order {
        scenario,
        schedule: &schedule,
        homes: homes.as_deref(),
        balancers: &addresses,
        servers: scenario.servers,
        began,
        stop: task.stop,
    };
    let running = Mutex::new(running);
    let watched = Watched::new(&running);
    let is_over = AtomicBool::new(false);
    let (report, changed) = thread::scope(|scope| {
        let changes = scope.spawn(|| make_changes(&running, scenario, candidate, began, &is_over));
        // Not by the thread that makes the load: reading takes milliseconds, and requests would be late.
        scope.spawn(|| {
            if wait_until(began + scenario.warmup, &is_over) {
                watched.warm();
            }
        });
        let report = load::run(&order, || {}, || watched.end());
        is_over.store(true, Ordering::Relaxed);
        (report, changes.join().unwrap_or_else(|_| Err(BenchError::Broken("a change panicked".into()))))
    });
    let report = report?;
    changed?;
    lock(&running).check()?;
    let doubt = fleet.doubt();
    Ok(Turn {
        candidate,
        seen: report.seen,
        used: watched.used(before, report.idle_connections)?,
        doubt: Doubt {
            sent_late: report.sent_late,
            answered_late: doubt.answered_late,
            load_busy: report.busy,
            servers_busy: doubt.busy,
        },
    })
}

/// The servers that are in the pool from the beginning. Perfect knowledge knows them all, and when not to
/// use them.
fn admitted(scenario: &Scenario, candidate: Candidate) -> Vec<usize> {
    let joins = |server: usize| candidate != Candidate::Perfect && join_of(scenario, server).is_some();
    (0..scenario.servers).filter(|&server| !joins(server)).collect()
}

/// When a server joins the pool, if it is not there from the beginning.
fn join_of(scenario: &Scenario, server: usize) -> Option<Duration> {
    let away = |act: &&super::scenario::Act| act.server == server && act.fate == Fate::Away;
    scenario.script.iter().filter(away).map(|act| act.until).max()
}

/// Joins and reloads at their times, until the load is over.
fn make_changes(
    running: &Mutex<Running>,
    scenario: &Scenario,
    candidate: Candidate,
    began: Instant,
    is_over: &AtomicBool,
) -> Result<(), BenchError> {
    for (at, change) in changes(scenario, candidate) {
        if !wait_until(began + at, is_over) {
            break;
        }
        match change {
            Change::Admit(server) => lock(running).admit(server)?,
            Change::Reload => lock(running).reload()?,
        }
    }
    Ok(())
}

/// What is changed in the balancer in the course of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Admit(usize),
    Reload,
}

/// In the order of their times.
fn changes(scenario: &Scenario, candidate: Candidate) -> Vec<(Duration, Change)> {
    let mut all = Vec::new();
    if candidate != Candidate::Perfect {
        let joins = (0..scenario.servers).filter_map(|server| Some((join_of(scenario, server)?, server)));
        all.extend(joins.map(|(at, server)| (at, Change::Admit(server))));
    }
    if let Some(every) = scenario.reload_every.filter(|every| !every.is_zero()) {
        let times = (1..).map(|turn| every * turn).take_while(|at| *at < scenario.duration);
        all.extend(times.map(|at| (at, Change::Reload)));
    }
    all.sort_by_key(|(at, _)| *at);
    all
}

/// Whether the time came before the load was over.
fn wait_until(when: Instant, is_over: &AtomicBool) -> bool {
    loop {
        let left = when.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        if is_over.load(Ordering::Relaxed) {
            return false;
        }
        thread::sleep(left.min(POLL));
    }
}

/// What the balancer used, read when the load says so.
struct Watched<'a> {
    running: &'a Mutex<Running>,
    warm: Mutex<Option<Result<Usage, BenchError>>>,
    end: Mutex<Option<Result<Usage, BenchError>>>,
}

impl<'a> Watched<'a> {
    fn new(running: &'a Mutex<Running>) -> Self {
        Self { running, warm: Mutex::new(None), end: Mutex::new(None) }
    }

    fn warm(&self) {
        *lock(&self.warm) = Some(lock(self.running).usage());
    }

    fn end(&self) {
        *lock(&self.end) = Some(lock(self.running).usage());
    }

    fn used(&self, before: Usage, idle_connections: u64) -> Result<Used, BenchError> {
        let read = |usage: &Mutex<Option<Result<Usage, BenchError>>>| {
            let missing = || Err(BenchError::Broken("the load ended before its time".into()));
            lock(usage).take().unwrap_or_else(missing)
        };
        let (warm, end) = (read(&self.warm)?, read(&self.end)?);
        Ok(Used {
            user: end.user.saturating_sub(warm.user),
            system: end.system.saturating_sub(warm.system),
            resident_before_kib: before.resident_kib,
            resident_kib: end.resident_kib,
            peak_kib: end.peak_kib,
            idle_connections,
        })
    }
}

/// What a thread that panicked left is as good as any.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Where a balancer keeps its files; gone with the turn.
struct Folder(PathBuf);

impl Folder {
    fn new(candidate: Candidate) -> Result<Self, BenchError> {
        let name = format!("evener-bench-{}-{:016x}-{candidate}", std::process::id(), fastrand::u64(..));
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir(&folder)?;
        Ok(Self(folder))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Nothing is lost with it, and the system clears its folder for temporary files some day.
        let _ = std::fs::remove_dir_all::<&Path>(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_seeds_have_no_round_in_common() {
        let of = |seed| seeds(seed).take(100).collect::<Vec<_>>();
        assert_eq!(of(1), of(1));
        assert!(of(1).iter().all(|seed| !of(2).contains(seed)));
    }

    #[test]
    fn candidates_go_forwards_and_backwards_in_turns() {
        let all = [Candidate::Perfect, Candidate::Direct, Candidate::Bare];
        assert_eq!(order(&all, 0), all);
        assert_eq!(order(&all, 1), [Candidate::Bare, Candidate::Direct, Candidate::Perfect]);
    }
}
