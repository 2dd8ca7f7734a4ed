//! Requests per CPU-second, candidate by candidate, round by round.

use super::candidate::{Candidate, Place, Running};
use super::load::{Tool, Turn};
use super::options::Options;
use super::process::{CpuTime, Failure};

/// Unmeasured load before the first round: connections to the origin and memory are there by then.
const WARM_UP: std::time::Duration = std::time::Duration::from_secs(1);

/// Everything measured of one candidate.
pub(crate) struct Throughput {
    pub candidate: Candidate,
    pub rounds: Vec<Round>,
}

/// One turn of one candidate.
#[derive(Clone, Copy)]
pub(crate) struct Round {
    pub turn: Turn,
    pub cpu: CpuTime,
}

impl Round {
    pub(crate) fn per_cpu_s(&self) -> f64 {
        self.turn.requests as f64 / self.cpu.total_s()
    }

    pub(crate) fn per_s(&self) -> f64 {
        self.turn.requests as f64 / self.turn.time.as_secs_f64()
    }
}

impl Throughput {
    pub(crate) fn each(&self, figure: impl Fn(&Round) -> f64) -> Vec<f64> {
        self.rounds.iter().map(figure).collect()
    }

    /// Requests per CPU-second in relation to another candidate, round by round.
    pub(crate) fn ratios_to(&self, other: &Self) -> Vec<f64> {
        self.rounds
            .iter()
            .zip(&other.rounds)
            .map(|(ours, theirs)| ours.per_cpu_s() / theirs.per_cpu_s())
            .collect()
    }
}

/// Loads all candidates in turns.
pub(crate) fn measure(
    candidates: &[Candidate],
    at: &Place<'_>,
    load: &Tool,
    options: &Options,
) -> Result<Vec<Throughput>, Failure> {
    let running: Vec<Running> =
        candidates.iter().map(|candidate| candidate.start(at)).collect::<Result<_, _>>()?;
    for proxy in &running {
        load.run(proxy.address, WARM_UP)?;
    }
    let mut all: Vec<Throughput> =
        candidates.iter().map(|&candidate| Throughput { candidate, rounds: Vec::new() }).collect();
    for round in 0..options.rounds() {
        eprintln!("round {} of {}", round + 1, options.rounds());
        for index in order(round, running.len()) {
            if let (Some(proxy), Some(throughput)) = (running.get(index), all.get_mut(index)) {
                throughput.rounds.push(one_turn(proxy, load, options)?);
            }
        }
    }
    Ok(all)
}

/// Forwards in one round and backwards in the next, so that nobody always follows the same neighbour.
fn order(round: usize, count: usize) -> Vec<usize> {
    if round.is_multiple_of(2) { (0..count).collect() } else { (0..count).rev().collect() }
}

fn one_turn(proxy: &Running, load: &Tool, options: &Options) -> Result<Round, Failure> {
    let before = proxy.process.cpu_s()?;
    let turn = load.run(proxy.address, options.turn())?;
    let cpu = proxy.process.cpu_s()?.since(before);
    let round = Round { turn, cpu };
    eprintln!(
        "  {:<14}{:>8.0} requests per CPU-second {:>8.0} per second",
        proxy.candidate.name(),
        round.per_cpu_s(),
        round.per_s()
    );
    Ok(round)
}
