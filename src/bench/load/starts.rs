//! Who begins when: known before the turn, for every kind of load.

use std::time::Duration;

use super::super::scenario::{Load, Scenario};
use super::Order;

/// Idle connections are opened no faster than that, or else the queue of the listening socket overflows.
const IDLE_PER_SECOND_MAX: f64 = 5_000.0;

/// One request that nobody asked for before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Start {
    /// Since the beginning of the turn.
    pub at: Duration,
    /// Which balancer is asked.
    pub balancer: usize,
    /// What the server should work, if it is told.
    pub work: Option<Duration>,
    /// Which server should answer, if it is told.
    pub home: Option<usize>,
}

/// All of them, in order.
///
/// An open loop keeps to its schedule. Clients of a closed loop begin in the first half of the warm-up, one after
/// the other, and go on by themselves. Idle connections are opened over the warm-up, longer if there are very many.
pub(super) fn starts(order: &Order<'_>) -> Box<dyn Iterator<Item = Start>> {
    let scenario = order.scenario;
    let balancers = order.balancers.len().max(1);
    match scenario.load {
        Load::Rate { .. } => Box::new(arrivals(order).into_iter()),
        Load::Clients(count) => Box::new(evenly(count, scenario.warmup / 2, balancers)),
        Load::Idle(count) => Box::new(evenly(count, idle_opening(scenario, count), balancers)),
    }
}

fn arrivals(order: &Order<'_>) -> Vec<Start> {
    let home = |index: usize| order.homes.and_then(|homes| homes.get(index).copied());
    let start = |(index, arrival): (usize, &super::Arrival)| Start {
        at: arrival.at,
        balancer: arrival.balancer,
        work: (!arrival.work.is_zero()).then_some(arrival.work),
        home: home(index),
    };
    order.schedule.iter().enumerate().map(start).collect()
}

fn evenly(count: usize, time: Duration, balancers: usize) -> impl Iterator<Item = Start> {
    (0..count).map(move |index| Start {
        at: time.mul_f64(index as f64 / count as f64),
        balancer: index % balancers,
        work: None,
        home: None,
    })
}

/// How long it takes to open so many.
pub(super) fn idle_opening(scenario: &Scenario, count: usize) -> Duration {
    scenario.warmup.max(Duration::from_secs_f64(count as f64 / IDLE_PER_SECOND_MAX))
}
