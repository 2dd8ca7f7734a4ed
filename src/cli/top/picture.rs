//! What is shown, made of samples: rates are differences between them.
//!
//! ```text
//!   Sample ─► Meter ─► Picture       the one before says how fast, those of ten seconds who gets what share
//! ```

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::super::member::Member;
use super::sample::{Alarm, Check, Pool, Sample, Status, Upstream};
use super::verdict::{Circumstances, Level, Verdict};
use crate::observe::HistogramSnapshot;

/// Shares, percentiles and error ratios are of so long: shorter, and they would jump.
const WINDOW: Duration = Duration::from_secs(10);

/// Everything at one moment, ready to be drawn.
#[derive(Clone)]
pub(super) struct Picture {
    /// When its sample was taken.
    pub(super) at: Duration,
    pub(super) status: Status,
    pub(super) rate: Rate,
    /// p50 and p99 in milliseconds.
    pub(super) percentiles: [Option<f64>; 2],
    /// Whether these are of the last ten seconds; else they are since the start.
    pub(super) is_recent: bool,
    pub(super) connections: u64,
    pub(super) pools: Vec<PoolRow>,
    pub(super) rows: Vec<Row>,
}

/// Per second, between two samples; `None` as long as there is only one, or the counters stepped back.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rate {
    pub(super) requests: Option<f64>,
    pub(super) errors: Option<f64>,
}

/// A pool.
#[derive(Clone)]
pub(super) struct PoolRow {
    pub(super) name: String,
    pub(super) strategy: String,
    pub(super) eligible: u64,
    pub(super) upstreams: u64,
    pub(super) in_flight: u64,
    pub(super) waiting: u64,
    pub(super) rate: Rate,
    pub(super) level: Level,
}

/// An upstream.
#[derive(Clone)]
pub(super) struct Row {
    pub(super) member: Member,
    pub(super) verdict: Verdict,
    pub(super) why: String,
    pub(super) state: String,
    pub(super) health: String,
    pub(super) weight: u32,
    pub(super) in_flight: u64,
    pub(super) max_connections: Option<u64>,
    pub(super) rate: Rate,
    pub(super) latency_ms: Option<f64>,
    /// Since it became known.
    pub(super) p50_ms: Option<f64>,
    pub(super) p99_ms: Option<f64>,
    /// Of the pool's requests in the last ten seconds, 0 to 1.
    pub(super) share: Option<f64>,
    /// What would be fair by weight among those that are eligible, 0 to 1.
    pub(super) fair: f64,
    pub(super) is_eligible: bool,
    pub(super) is_backup: bool,
    pub(super) is_override: bool,
    pub(super) last_check: Option<Check>,
}

/// Remembers what was counted, for as long as [`WINDOW`].
#[derive(Default)]
pub(super) struct Meter {
    /// Oldest first.
    past: VecDeque<Counts>,
    last: Option<Sample>,
}

/// The counters of one sample.
struct Counts {
    at: Duration,
    totals: Count,
    durations: Option<HistogramSnapshot>,
    upstreams: HashMap<(String, String), Count>,
}

/// Requests and errors since some start.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    requests: u64,
    errors: u64,
}

impl Meter {
    /// Takes down a sample, and says what is to be seen now.
    pub(super) fn read(&mut self, sample: Sample) -> Picture {
        if self.last.as_ref().is_some_and(|last| !sample.follows(last)) {
            self.past.clear();
        }
        let oldest_of_window = sample.at.saturating_sub(WINDOW);
        while self.past.len() > 1 && self.past.get(1).is_some_and(|next| next.at <= oldest_of_window) {
            self.past.pop_front();
        }
        let picture = self.picture(&sample);
        self.past.push_back(Counts::of(&sample));
        self.last = Some(sample);
        picture
    }

    fn picture(&self, sample: &Sample) -> Picture {
        let counts = Count::of_status(&sample.status);
        let rate = self.past.back().map(|then| counts.rate_since(then.totals, sample.at, then.at));
        let recent = self.recent_percentiles(sample);
        let latency = sample.status.totals.latency_ms;
        let mut pools = Vec::with_capacity(sample.pools.len());
        let mut rows = Vec::new();
        for pool in &sample.pools {
            let mut of_pool = self.rows(pool, sample);
            pools.push(PoolRow::of(pool, &of_pool));
            rows.append(&mut of_pool);
        }
        Picture {
            at: sample.at,
            rate: rate.unwrap_or_default(),
            percentiles: recent.unwrap_or([latency.p50, latency.p99]),
            is_recent: recent.is_some(),
            connections: sample.status.listeners.iter().map(|listener| listener.connections).sum(),
            status: sample.status.clone(),
            pools,
            rows,
        }
    }

    /// `None` when nothing is known of the last seconds; percentiles of no request are none.
    fn recent_percentiles(&self, sample: &Sample) -> Option<[Option<f64>; 2]> {
        let (now, then) = (sample.durations.as_ref()?, self.past.front()?.durations.as_ref()?);
        let recent = now.since(then)?;
        let quantile = |share| (recent.count > 0).then(|| recent.quantile(share).as_secs_f64() * 1e3);
        Some([quantile(0.5), quantile(0.99)])
    }

    fn rows(&self, pool: &Pool, sample: &Sample) -> Vec<Row> {
        let lately: Vec<Option<Count>> = pool.upstreams.iter().map(|one| self.lately(pool, one)).collect();
        let all: u64 = lately.iter().flatten().map(|count| count.requests).sum();
        let eligible = || pool.upstreams.iter().filter(|one| one.why_not.is_none());
        let weights: u64 = eligible().map(|one| u64::from(one.weight)).sum();
        let mut latencies: Vec<f64> = eligible().filter_map(|one| one.latency_ms.ewma).collect();
        latencies.sort_by(f64::total_cmp);
        let row = |(upstream, lately): (&Upstream, Option<Count>)| {
            let circumstances = Circumstances {
                lately: lately.map(|count| (count.requests, count.errors)),
                usual_ms: median_without(&latencies, upstream.latency_ms.ewma),
                alarm: alarm_about(&sample.status.alarms, pool, upstream),
            };
            Row {
                rate: self.rate(pool, upstream, sample.at),
                share: lately.filter(|_| all > 0).map(|count| count.requests as f64 / all as f64),
                fair: fair_share(upstream, weights),
                ..Row::of(pool, upstream, &circumstances)
            }
        };
        pool.upstreams.iter().zip(lately).map(row).collect()
    }

    fn rate(&self, pool: &Pool, upstream: &Upstream, now: Duration) -> Rate {
        let rate = |then: &Counts| {
            Some(Count::of(upstream).rate_since(then.of_upstream(pool, upstream)?, now, then.at))
        };
        self.past.back().and_then(rate).unwrap_or_default()
    }

    /// What came in [`WINDOW`], or in as much of it as is known.
    fn lately(&self, pool: &Pool, upstream: &Upstream) -> Option<Count> {
        let then = self.past.front()?.of_upstream(pool, upstream)?;
        Count::of(upstream).since(then)
    }
}

fn fair_share(upstream: &Upstream, weights: u64) -> f64 {
    if upstream.why_not.is_some() || weights == 0 { 0.0 } else { f64::from(upstream.weight) / weights as f64 }
}

/// The median of sorted values, one of them left out.
fn median_without(sorted: &[f64], value: Option<f64>) -> Option<f64> {
    let own = value.and_then(|value| sorted.iter().position(|one| one.total_cmp(&value).is_eq()));
    let others = sorted.len() - usize::from(own.is_some());
    let middle = others.checked_sub(1)? / 2;
    let is_behind = own.is_some_and(|own| middle >= own);
    sorted.get(middle + usize::from(is_behind)).copied()
}

fn alarm_about<'a>(alarms: &'a [Alarm], pool: &Pool, upstream: &Upstream) -> Option<&'a str> {
    let is_about = |alarm: &&Alarm| {
        alarm.pool.as_deref().is_none_or(|named| named == pool.name)
            && alarm.upstream.as_ref() == Some(&upstream.address)
    };
    alarms.iter().find(is_about).map(|alarm| alarm.kind.as_str())
}

impl Counts {
    fn of(sample: &Sample) -> Self {
        let one = |pool: &Pool, upstream: &Upstream| {
            ((pool.name.clone(), upstream.address.clone()), Count::of(upstream))
        };
        let upstreams = sample
            .pools
            .iter()
            .flat_map(|pool| pool.upstreams.iter().map(move |upstream| one(pool, upstream)));
        Self {
            at: sample.at,
            totals: Count::of_status(&sample.status),
            durations: sample.durations.clone(),
            upstreams: upstreams.collect(),
        }
    }

    fn of_upstream(&self, pool: &Pool, upstream: &Upstream) -> Option<Count> {
        self.upstreams.get(&(pool.name.clone(), upstream.address.clone())).copied()
    }
}

impl Count {
    fn of(upstream: &Upstream) -> Self {
        Self { requests: upstream.requests, errors: upstream.errors }
    }

    fn of_status(status: &Status) -> Self {
        Self { requests: status.totals.requests, errors: status.totals.errors }
    }

    /// `None` when the counters stepped back: they are not of the same life.
    fn since(self, then: Self) -> Option<Self> {
        let requests = self.requests.checked_sub(then.requests)?;
        Some(Self { requests, errors: self.errors.checked_sub(then.errors)? })
    }

    fn rate_since(self, then: Self, now: Duration, before: Duration) -> Rate {
        let seconds = now.saturating_sub(before).as_secs_f64();
        let grown = self.since(then).filter(|_| seconds > 0.0);
        let per_second = |count: u64| count as f64 / seconds;
        Rate {
            requests: grown.map(|grown| per_second(grown.requests)),
            errors: grown.map(|grown| per_second(grown.errors)),
        }
    }
}

impl Row {
    fn of(pool: &Pool, upstream: &Upstream, circumstances: &Circumstances<'_>) -> Self {
        let verdict = Verdict::of(upstream, circumstances);
        Self {
            member: Member { pool: pool.name.clone(), address: upstream.address.clone() },
            why: verdict.why(upstream, circumstances),
            verdict,
            state: upstream.state.clone(),
            health: upstream.health.clone(),
            weight: upstream.weight,
            in_flight: upstream.in_flight,
            max_connections: upstream.max_connections,
            rate: Rate::default(),
            latency_ms: upstream.latency_ms.ewma,
            p50_ms: upstream.latency_ms.p50,
            p99_ms: upstream.latency_ms.p99,
            share: None,
            fair: 0.0,
            is_eligible: upstream.why_not.is_none(),
            is_backup: upstream.backup,
            is_override: upstream.source == "override",
            last_check: upstream.last_check.clone(),
        }
    }
}

impl PoolRow {
    fn of(pool: &Pool, rows: &[Row]) -> Self {
        let sum = |of: fn(&Rate) -> Option<f64>| {
            let known: Vec<f64> = rows.iter().filter_map(|row| of(&row.rate)).collect();
            (!known.is_empty()).then(|| known.iter().sum())
        };
        Self {
            name: pool.name.clone(),
            strategy: pool.strategy.clone(),
            eligible: pool.eligible,
            upstreams: pool.upstreams.len() as u64,
            in_flight: pool.in_flight,
            waiting: pool.queue.waiting,
            rate: Rate { requests: sum(|rate| rate.requests), errors: sum(|rate| rate.errors) },
            level: match pool.eligible {
                0 => Level::Bad,
                _ if rows.iter().any(|row| matches!(row.verdict.level(), Level::Bad | Level::Odd)) => {
                    Level::Odd
                }
                _ => Level::Well,
            },
        }
    }
}
