//! The one place where a configuration becomes running state.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use super::pool::{Pool, PoolState, Tier, lay_out};
use super::{Route, Snapshot, Upstream, UpstreamState};
use crate::config::{Config, PoolConfig, RouteConfig, UpstreamAddress, UpstreamConfig};
use crate::observe::RouteMetrics;
use crate::route::RouteTable;

impl Snapshot {
    /// Turns a checked configuration into running state.
    ///
    /// Cannot fail: whatever could be wrong was refused in `config`.
    ///
    /// An upstream that `previous` had in the same pool keeps its live state: health, ejection, what
    /// was learned of its speed, requests in flight, counters, and what an operator set by hand.
    /// `random` places the cursors of round robin, so that many fresh processes do not all begin with
    /// the same upstream.
    pub fn build(config: Config, previous: Option<&Self>, now: Duration, random: u64) -> Self {
        let pools: Vec<Pool> = config
            .pools
            .iter()
            .map(|pool| {
                let before = previous.and_then(|old| old.pool_named(&pool.name));
                Pool::build(pool, before, now, random)
            })
            .collect();
        let routes =
            config.routes.iter().map(|route| Route::build(route, previous, config.listeners.len())).collect();
        Self {
            generation: previous.map_or(1, |old| old.generation + 1),
            table: RouteTable::new(config.routes.iter().map(|route| route.matcher.clone())),
            routes,
            pools,
            config: Arc::new(config),
        }
    }
}

impl Route {
    fn build(config: &RouteConfig, previous: Option<&Snapshot>, listeners: usize) -> Self {
        let before =
            previous.and_then(|old| old.routes.iter().find(|route| route.config.name == config.name));
        Self {
            config: config.clone(),
            metrics: before
                .map_or_else(|| Arc::new(RouteMetrics::new(listeners)), |route| route.metrics.clone()),
        }
    }
}

impl Pool {
    fn build(config: &PoolConfig, before: Option<&Self>, now: Duration, random: u64) -> Self {
        let known: HashMap<&UpstreamAddress, &Arc<UpstreamState>> = before
            .map(|pool| pool.upstreams.iter().map(|upstream| (&upstream.config.address, &upstream.state)))
            .into_iter()
            .flatten()
            .collect();
        let (primaries, backups): (Vec<_>, Vec<_>) =
            config.upstreams.iter().partition(|upstream| !upstream.backup);
        let build = |upstream: &&UpstreamConfig| Upstream {
            config: (*upstream).clone(),
            is_checked: config.health_check.is_some(),
            state: known.get(&upstream.address).map_or_else(
                || {
                    let state = UpstreamState::new(&config.name, &upstream.address, now);
                    if before.is_some() && !config.slow_start.is_zero() {
                        // New among those that are warm.
                        state.load.warm_up(now);
                    }
                    Arc::new(state)
                },
                |state| Arc::clone(state),
            ),
        };
        let upstreams: Vec<Upstream> = primaries.iter().chain(&backups).map(build).collect();
        let first_backup = primaries.len();
        let all = upstreams.len();
        let tier = |range: std::ops::Range<usize>, number: usize| {
            Tier::build(config, &upstreams, range, before.and_then(|pool| pool.tiers.get(number)), random)
        };
        let tiers = [tier(0..first_backup, 0), tier(first_backup..all, 1)];
        let state = before.map_or_else(|| Arc::new(PoolState::default()), |pool| pool.state.clone());
        Self { key: key_of(&config.name), config: config.clone(), upstreams, tiers, state }
    }
}

/// The same in every generation, so that a reload keeps the connections.
fn key_of(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

impl Tier {
    fn build(
        config: &PoolConfig,
        upstreams: &[Upstream],
        range: std::ops::Range<usize>,
        before: Option<&Self>,
        random: u64,
    ) -> Self {
        let members = upstreams.get(range.clone()).unwrap_or_default();
        let weights: Vec<u16> = members.iter().map(|upstream| upstream.config.weight).collect();
        let strategy = lay_out(config.strategy, &weights, members, random);
        if let Some(before) = before {
            strategy.carry_over(&before.strategy);
        }
        Self { range, weights, strategy }
    }
}
