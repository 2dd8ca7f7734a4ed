//! What a choice goes by, factor by factor.

use serde::Serialize;

use crate::balance::{StrategyKind, Terms};

/// What the next request would cost an upstream: `load × multiplier ÷ warmth × stall`.
#[derive(Debug, Serialize)]
pub(in crate::admin) struct ScoreView {
    in_flight: u32,
    /// Those that were not answered at all yet.
    waiting: u32,
    load: f64,
    multiplier: f64,
    warmth: f64,
    /// Null where the strategy does not look at it.
    stall: Option<f64>,
    /// The smallest wins; null where the strategy does not compare costs.
    cost: Option<f64>,
}

impl ScoreView {
    pub(in crate::admin) fn of(terms: &Terms, strategy: StrategyKind) -> Self {
        use StrategyKind::{ConsistentHash, LatencyWeighted, LeastConnections, RandomTwo, RoundRobin};
        let (stall, cost) = match strategy {
            RoundRobin | ConsistentHash => (None, None),
            RandomTwo => (None, Some(terms.cost / terms.stall)),
            LeastConnections | LatencyWeighted => (Some(terms.stall), Some(terms.cost)),
        };
        Self {
            in_flight: terms.in_flight,
            waiting: terms.waiting,
            load: rounded(terms.load),
            multiplier: rounded(terms.multiplier),
            warmth: rounded(terms.warmth),
            stall: stall.map(rounded),
            cost: cost.map(rounded),
        }
    }
}

/// How a strategy chooses, in a sentence, in the words of a score.
pub(in crate::admin) const fn rule(strategy: StrategyKind) -> &'static str {
    match strategy {
        StrategyKind::RoundRobin => {
            "turns in proportion to the weights; one whose warmth is below 1 takes so much of its turns"
        }
        StrategyKind::LeastConnections => {
            "the smallest cost, load × multiplier ÷ warmth × stall, where the multiplier tells of failures; of equals whose turn it is; beyond 32 upstreams the cheapest of a few drawn by weight"
        }
        StrategyKind::LatencyWeighted => {
            "the smallest cost, load × multiplier ÷ warmth × stall, where the multiplier tells of slowness and failures; of equals whose turn it is; beyond 32 upstreams the cheapest of a few drawn by weight"
        }
        StrategyKind::RandomTwo => {
            "the smaller cost, load × multiplier ÷ warmth, of two that are drawn by weight"
        }
        StrategyKind::ConsistentHash => {
            "the first in the order of the request's key that has no more than 1.25 times its part of all requests in flight"
        }
    }
}

/// Three digits behind the point.
pub(in crate::admin) fn rounded(value: f32) -> f64 {
    (f64::from(value) * 1e3).round() / 1e3
}
