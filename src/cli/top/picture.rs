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
    /// What they are about.
    pub(super) alarms: Vec<String>,
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
        let users = users(&sample.pools);
        let mut pools = Vec::with_capacity(sample.pools.len());
        let mut rows = Vec::new();
        for pool in &sample.pools {
            let mut of_pool = self.rows(pool, &users, sample.at);
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

    fn rows(&self, pool: &Pool, users: &Users<'_>, now: Duration) -> Vec<Row> {
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
                users: users.get(upstream.address.as_str()).map(Vec::as_slice).unwrap_or_default(),
            };
            Row {
                rate: self.rate(pool, upstream, now),
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

/// By address, the pools that send requests there, or still have some in flight.
type Users<'a> = HashMap<&'a str, Vec<&'a str>>;

fn users(pools: &[Pool]) -> Users<'_> {
    let mut users = Users::new();
    for pool in pools {
        let is_user = |one: &&Upstream| one.in_flight > 0 || one.state == "ready" && one.weight > 0;
        for upstream in pool.upstreams.iter().filter(is_user) {
            users.entry(&upstream.address).or_default().push(&pool.name);
        }
    }
    users
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
            alarms: upstream.alarms.iter().map(Alarm::word).collect(),
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::testing::{durations, pool, sample, sick, status, upstream};
    use super::*;

    fn near(value: Option<f64>, expected: f64) -> bool {
        value.is_some_and(|value| (value - expected).abs() < 1e-9)
    }

    fn look(meter: &mut Meter, seconds: u64, requests: u64, more: &Value) -> Picture {
        let upstreams = [upstream("a:1", requests, &json!({})), upstream("b:1", 0, &json!({"weight": 3}))];
        meter.read(sample(seconds, status(requests, requests / 10, more), &[pool("app", &upstreams)]))
    }

    #[test]
    fn a_rate_is_the_difference_between_two_looks() {
        let mut meter = Meter::default();
        let first = look(&mut meter, 100, 1000, &json!({}));
        assert_eq!(first.rate, Rate::default(), "one look says nothing");
        assert_eq!(first.rows[0].rate, Rate::default());
        let second = look(&mut meter, 104, 1200, &json!({}));
        assert!(near(second.rate.requests, 50.0) && near(second.rate.errors, 5.0), "{:?}", second.rate);
        assert!(near(second.rows[0].rate.requests, 50.0) && near(second.rows[1].rate.requests, 0.0));
        assert!(near(second.pools[0].rate.requests, 50.0));
        assert!(near(second.rows[0].share, 1.0) && near(second.rows[1].share, 0.0));
        assert!(near(Some(second.rows[0].fair), 0.25) && near(Some(second.rows[1].fair), 0.75));
        assert_eq!(second.connections, 7);
    }

    #[test]
    fn counters_that_step_back_are_no_rate() {
        let mut meter = Meter::default();
        look(&mut meter, 100, 1000, &json!({}));
        let after = look(&mut meter, 101, 10, &json!({}));
        assert_eq!(
            (after.rate, after.rows[0].rate, after.rows[0].share),
            (Rate::default(), Rate::default(), None)
        );
        let later = look(&mut meter, 102, 20, &json!({}));
        assert!(near(later.rate.requests, 10.0), "counted from the new beginning: {:?}", later.rate);
    }

    #[test]
    fn a_process_started_anew_is_not_compared_with_the_old_one_but_its_heir_is() {
        let mut meter = Meter::default();
        look(&mut meter, 100, 1000, &json!({}));
        let other = look(&mut meter, 101, 5000, &json!({"pid": 2}));
        assert_eq!(other.rate, Rate::default(), "though it has counted more");
        let heir = look(&mut meter, 102, 5100, &json!({"pid": 3, "predecessor": 2}));
        assert!(near(heir.rate.requests, 100.0), "{:?}", heir.rate);
    }

    #[test]
    fn an_upstream_that_was_not_there_before_has_no_rate_yet() {
        let mut meter = Meter::default();
        look(&mut meter, 100, 1000, &json!({}));
        let upstreams = [upstream("c:1", 5000, &json!({})), upstream("a:1", 1010, &json!({}))];
        let picture = meter.read(sample(101, status(1010, 0, &json!({})), &[pool("app", &upstreams)]));
        assert_eq!(picture.rows[0].rate, Rate::default());
        assert!(near(picture.rows[1].rate.requests, 10.0));
    }

    #[test]
    fn shares_are_of_the_last_ten_seconds() {
        let mut meter = Meter::default();
        let mut at = |seconds, first, second| {
            let upstreams = [upstream("a:1", first, &json!({})), upstream("b:1", second, &json!({}))];
            meter.read(sample(seconds, status(first + second, 0, &json!({})), &[pool("app", &upstreams)]))
        };
        at(0, 0, 0);
        assert!(near(at(5, 100, 0).rows[0].share, 1.0));
        assert!(near(at(10, 100, 100).rows[0].share, 0.5));
        let last = at(15, 100, 200);
        assert!(near(last.rows[0].share, 0.0), "what was before is forgotten: {:?}", last.rows[0].share);
    }

    #[test]
    fn percentiles_are_of_the_last_ten_seconds_where_the_server_tells_them() {
        let mut meter = Meter::default();
        let mut at = |seconds, all: Option<&[(u64, u64)]>| {
            let sample = sample(seconds, status(seconds, 0, &json!({})), &[]);
            meter.read(Sample { durations: all.map(durations), ..sample })
        };
        let first = at(1, Some(&[(100, 1)]));
        assert!(!first.is_recent && near(first.percentiles[0], 1.25), "since the start");
        let second = at(2, Some(&[(100, 1), (10, 500)]));
        assert!(second.is_recent && second.percentiles[0].is_some_and(|p50| p50 > 450.0));
        assert_eq!(at(20, Some(&[(100, 1), (10, 500)])).percentiles, [None, None], "nothing came");
        assert!(!at(21, None).is_recent);
    }

    #[test]
    fn a_fair_share_is_for_those_who_may_get_any() {
        let upstreams = [upstream("a:1", 0, &json!({})), sick("b:1", 0, "down", "its health checks fail")];
        let picture = Meter::default().read(sample(1, status(0, 0, &json!({})), &[pool("app", &upstreams)]));
        assert!(near(Some(picture.rows[0].fair), 1.0) && near(Some(picture.rows[1].fair), 0.0));
        assert_eq!(picture.pools[0].level, Level::Odd);
        let picture =
            Meter::default().read(sample(1, status(0, 0, &json!({})), &[pool("app", &upstreams[1..])]));
        assert_eq!(picture.pools[0].level, Level::Bad);
    }

    #[test]
    fn one_who_is_much_slower_than_the_others_is_slow() {
        let at = |ewma: f64| json!({"latency_ms": {"ewma": ewma}});
        let verdicts = |latencies: &[f64]| {
            let upstreams: Vec<Value> = latencies
                .iter()
                .enumerate()
                .map(|(index, ewma)| upstream(&format!("a:{index}"), 0, &at(*ewma)))
                .collect();
            let picture =
                Meter::default().read(sample(1, status(0, 0, &json!({})), &[pool("app", &upstreams)]));
            picture.rows.iter().map(|row| row.verdict).collect::<Vec<_>>()
        };
        let (slow, serving) = (Verdict::Slow, Verdict::Serving);
        assert_eq!(verdicts(&[10.0, 100.0, 11.0]), [serving, slow, serving]);
        assert_eq!(verdicts(&[100.0, 10.0]), [slow, serving]);
        assert_eq!(verdicts(&[1.0, 9.0, 1.0]), [serving; 3], "nobody suffers from eight milliseconds");
        assert_eq!(verdicts(&[500.0]), [serving], "slower than whom?");
    }

    #[test]
    fn nobody_is_said_to_serve_whom_nobody_asked_and_since_when_is_told_of_the_others() {
        let unused = json!({"in_flight": 0});
        let checked = json!({"in_flight": 0, "last_check": {"at": "2026-01-02T03:04:05.678Z"}});
        let since = json!({"why_not": "ejected", "why_not_since": "2026-01-02T03:04:05.678Z",
            "ejected_until": "2026-01-02T03:05:00.000Z"});
        let upstreams =
            [upstream("a:1", 0, &unused), upstream("b:1", 0, &checked), upstream("c:1", 3, &since)];
        let picture = Meter::default().read(sample(1, status(0, 0, &json!({})), &[pool("app", &upstreams)]));
        let told: Vec<_> = picture.rows.iter().map(|row| (row.verdict.word(), row.why.as_str())).collect();
        let ejected = "too many requests in a row failed; next try at 03:05:00Z; since 03:04:05Z";
        let untested = "no health check, and no requests so far";
        assert_eq!(told, [("not tested", untested), ("serving", ""), ("ejected", ejected)]);
    }

    #[test]
    fn one_who_fails_is_failing_and_an_alarm_is_told() {
        let mut meter = Meter::default();
        let mut at = |seconds, requests: u64, errors: u64, more: &Value| {
            let upstreams =
                [upstream("a:1", requests, &json!({"errors": errors})), upstream("b:1", 0, &json!({}))];
            meter.read(sample(seconds, status(requests, errors, more), &[pool("app", &upstreams)]))
        };
        at(0, 0, 0, &json!({}));
        assert_eq!(at(1, 9, 9, &json!({})).rows[0].verdict, Verdict::Serving, "too few to tell");
        let failing = at(2, 20, 10, &json!({}));
        assert_eq!(failing.rows[0].verdict, Verdict::Failing);
        assert_eq!(failing.rows[0].why, "50% of its requests in the last ten seconds failed");
        let nonsense = at(4, 22, 10, &json!({"guard": {"new": true}}));
        assert!(nonsense.status.guard.is_none(), "what is not understood is left out");
    }

    #[test]
    fn an_alarm_is_told_whatever_else_there_is_to_say() {
        let alarms =
            json!([{"kind": "stale_estimate", "since": "2026-01-02T03:04:05.678Z", "detail": "it is old"}]);
        let more = json!({"alarms": alarms, "latency_ms": {"ewma": 500.0}});
        let upstreams = [upstream("a:1", 0, &more), upstream("b:1", 0, &json!({"alarms": alarms}))];
        let picture = Meter::default().read(sample(1, status(0, 0, &json!({})), &[pool("app", &upstreams)]));
        let told: Vec<_> = picture.rows.iter().map(|row| (row.verdict, row.why.as_str())).collect();
        let slow = "it takes 500 ms, the others 2 ms; stale estimate: it is old";
        assert_eq!(told, [(Verdict::Slow, slow), (Verdict::Alarming, "stale estimate: it is old")]);
    }

    #[test]
    fn one_that_is_drained_is_safe_to_stop_when_no_pool_uses_it() {
        let drained = json!({"state": "drain", "why_not": "draining", "in_flight": 0});
        let why = |others: &[&Value]| {
            let mut pools = vec![pool("app", &[upstream("a:1", 0, &drained)])];
            let name = |index| ["one", "two", "three"][index];
            let other = |(index, more): (usize, &&Value)| pool(name(index), &[upstream("a:1", 0, more)]);
            pools.extend(others.iter().enumerate().map(other));
            let picture = Meter::default().read(sample(1, status(0, 0, &json!({})), &pools));
            picture.rows[0].why.clone()
        };
        let (used, left) = (json!({"in_flight": 0}), json!({"state": "maintenance", "in_flight": 3}));
        assert_eq!(why(&[]), "none in flight: safe to stop");
        assert_eq!(why(&[&drained, &json!({"weight": 0, "in_flight": 0})]), "none in flight: safe to stop");
        assert_eq!(why(&[&used]), "none in flight; not safe to stop: pool one uses it too");
        assert_eq!(why(&[&left]), "none in flight; not safe to stop: pool one uses it too");
        assert_eq!(
            why(&[&used, &drained, &left]),
            "none in flight; not safe to stop: pool one and 1 other use it too"
        );
    }
}
