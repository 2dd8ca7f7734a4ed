//! One pool with its upstreams.

use std::time::Duration;

use serde::Serialize;

use super::{Sources, Standing, UpstreamView, milliseconds, standings};
use crate::config::{HealthCheckConfig, ProbeConfig};
use crate::runtime::Pool;

/// Everything about one pool.
#[derive(Debug, Serialize)]
pub(in crate::admin) struct PoolView {
    name: String,
    strategy: &'static str,
    /// Upstreams that may be picked now.
    eligible: usize,
    in_flight: u64,
    /// Requests that wait for room, and how many may.
    queue: QueueView,
    slow_start_ms: f64,
    /// Null: off.
    ejection: Option<EjectionView>,
    /// Null: off.
    health_check: Option<HealthCheckView>,
    upstreams: Vec<UpstreamView>,
}

#[derive(Debug, Serialize)]
struct QueueView {
    waiting: usize,
    max: usize,
    timeout_ms: f64,
}

#[derive(Debug, Serialize)]
struct EjectionView {
    consecutive_failures: u32,
    base_duration_ms: f64,
    max_ejected: f32,
}

#[derive(Debug, Serialize)]
struct HealthCheckView {
    kind: &'static str,
    path: Option<String>,
    interval_ms: f64,
    fast_interval_ms: f64,
    timeout_ms: f64,
    rise: u32,
    fall: u32,
}

impl PoolView {
    pub(in crate::admin) fn of(pool: &Pool, sources: &Sources<'_>, now: Duration) -> Self {
        let standings = standings(pool, now);
        let config = &pool.config;
        Self {
            name: config.name.clone(),
            strategy: config.strategy.name(),
            eligible: standings.iter().filter(|standing| standing.why_not.is_none()).count(),
            in_flight: in_flight(pool),
            queue: QueueView {
                waiting: pool.state.queue.len(),
                max: config.queue.max,
                timeout_ms: milliseconds(config.queue.timeout),
            },
            slow_start_ms: milliseconds(config.slow_start),
            ejection: config.ejection.as_ref().map(|policy| EjectionView {
                consecutive_failures: policy.consecutive_failures,
                base_duration_ms: milliseconds(policy.base_duration),
                max_ejected: policy.max_ejected,
            }),
            health_check: config.health_check.as_ref().map(HealthCheckView::of),
            upstreams: upstreams(&standings, sources, now),
        }
    }
}

pub(in crate::admin) fn upstreams(
    standings: &[Standing<'_>],
    sources: &Sources<'_>,
    now: Duration,
) -> Vec<UpstreamView> {
    standings.iter().map(|standing| UpstreamView::of(*standing, sources, now)).collect()
}

fn in_flight(pool: &Pool) -> u64 {
    pool.upstreams().iter().map(|upstream| u64::from(upstream.state.load.in_flight())).sum()
}

impl HealthCheckView {
    /// Without its headers, which may be secrets.
    fn of(config: &HealthCheckConfig) -> Self {
        let (kind, path) = match &config.probe {
            ProbeConfig::Tcp => ("tcp", None),
            ProbeConfig::Http { path, .. } => ("http", Some(path.clone())),
            ProbeConfig::Grpc { .. } => ("grpc", None),
        };
        Self {
            kind,
            path,
            interval_ms: milliseconds(config.interval),
            fast_interval_ms: milliseconds(config.fast_interval),
            timeout_ms: milliseconds(config.timeout),
            rise: config.rise,
            fall: config.fall,
        }
    }
}
