//! Everything, for programs. Names are `snake_case`, with the unit last.

use serde_json::{Map, Value, json};

use super::doubts::{doubts, is_in_doubt};
use super::events::events;
use super::group::{Group, failed_of, latency_at, millis, quantiles, requests_of, some_mib};
use super::{Outcome, Run, groups};
use crate::bench::scenario::{Act, Against, Arrivals, Bound, Fate, Load, Measure, Scenario, Work};
use crate::bench::turn::{Failure, Slice, Turn};
use crate::bench::verdict::{Figure, Verdict};
use crate::observe::utc;

/// Counts up when a member is renamed, removed or means something else; new members don't count.
pub const SCHEMA_VERSION: u32 = 1;

/// Points of a curve of percentiles.
const CURVE_STEPS: u32 = 50;

/// The run as one object. What was not measured is `null`.
pub fn json(run: &Run) -> Value {
    let machine: Map<String, Value> =
        run.machine.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    let versions: Map<String, Value> =
        run.versions.iter().map(|(candidate, version)| (candidate.name().into(), json!(version))).collect();
    json!({
        "schema_version": SCHEMA_VERSION,
        "started": utc(run.started),
        "command": run.command,
        "machine": machine,
        "versions": versions,
        "scenarios": run.outcomes.iter().map(outcome).collect::<Vec<_>>(),
    })
}

fn outcome(outcome: &Outcome) -> Value {
    let doubts = doubts(outcome).into_iter();
    json!({
        "scenario": scenario(&outcome.scenario),
        "seed": outcome.seed,
        "broken": outcome.broken.iter().map(|(candidate, words)| json!({
            "candidate": candidate.name(),
            "words": words,
        })).collect::<Vec<_>>(),
        "candidates": groups(outcome).iter().map(candidate).collect::<Vec<_>>(),
        "verdicts": outcome.verdicts.iter().map(|each| verdict(outcome, each)).collect::<Vec<_>>(),
        "doubts": doubts.map(|doubtful| json!({
            "candidate": doubtful.candidate.name(),
            "words": doubtful.words,
        })).collect::<Vec<_>>(),
    })
}

fn scenario(scenario: &Scenario) -> Value {
    json!({
        "name": scenario.name,
        "what": scenario.what,
        "expected": scenario.expected,
        "is_short": scenario.is_short,
        "servers": scenario.servers,
        "workers": scenario.workers,
        "balancers": scenario.balancers,
        "threads": scenario.threads,
        "load": load(scenario.load),
        "request": {
            "body_bytes": scenario.request.body,
            "answer_bytes": scenario.request.answer,
            "is_kept": scenario.request.is_kept,
            "protocol": scenario.request.protocol.name(),
            "streams": scenario.request.streams,
        },
        "script": scenario.script.iter().map(|each| act(each, scenario)).collect::<Vec<_>>(),
        "events": events(scenario).into_iter().map(|event| json!({
            "words": event.words,
            "spans_s": event.spans.iter().map(|(from, until)| json!([from, until])).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
        "reload_every_s": scenario.reload_every.map(|every| every.as_secs_f64()),
        "duration_s": scenario.duration.as_secs_f64(),
        "warmup_s": scenario.warmup.as_secs_f64(),
        "timeout_s": scenario.timeout.as_secs_f64(),
    })
}

fn load(load: Load) -> Value {
    match load {
        Load::Rate { per_second, arrivals, work: each } => json!({
            "kind": "rate",
            "requests_per_second": per_second,
            "arrivals": match arrivals { Arrivals::Poisson => "poisson", Arrivals::Even => "even" },
            "work": work(each),
        }),
        Load::Clients(clients) => json!({ "kind": "clients", "clients": clients }),
        Load::Idle(connections) => json!({ "kind": "idle", "connections": connections }),
    }
}

fn work(work: Work) -> Value {
    match work {
        Work::None => json!({ "kind": "none" }),
        Work::Exponential { mean } => json!({ "kind": "exponential", "mean_ms": millis(mean) }),
        Work::LogNormal { mean, sigma } => {
            json!({ "kind": "log_normal", "mean_ms": millis(mean), "sigma": sigma })
        }
        Work::TwoClasses { short, long, long_share } => json!({
            "kind": "two_classes",
            "short_ms": millis(short),
            "long_ms": millis(long),
            "long_share": long_share,
        }),
    }
}

fn act(act: &Act, scenario: &Scenario) -> Value {
    let (kind, figures) = fate(act.fate);
    json!({
        "server": act.server,
        "from_s": act.from.as_secs_f64(),
        "until_s": act.until.min(scenario.duration).as_secs_f64(),
        "fate": kind,
        "figures": figures,
    })
}

fn fate(fate: Fate) -> (&'static str, Value) {
    match fate {
        Fate::Speed(speed) => ("speed", json!({ "speed": speed })),
        Fate::Pauses { length, every } => {
            ("pauses", json!({ "length_ms": millis(length), "every_ms": millis(every) }))
        }
        Fate::Fail { status, share, latency } => {
            ("fail", json!({ "status": status, "share": share, "latency_ms": millis(latency) }))
        }
        Fate::Hang => ("hang", json!({})),
        Fate::Refuse => ("refuse", json!({})),
        Fate::Reset { share } => ("reset", json!({ "share": share })),
        Fate::Down => ("down", json!({})),
        Fate::Away => ("away", json!({})),
    }
}

fn candidate(group: &Group<'_>) -> Value {
    let turns = group.turns.iter().zip(1..).map(|(turn, round)| self::turn(group, turn, round));
    let of_measure = |measure| (measure_name(measure).to_owned(), figure(group.figure(measure)));
    let mut members: Map<String, Value> = Measure::ALL.into_iter().map(of_measure).collect();
    for (name, value) in [
        ("name", json!(group.candidate.name())),
        ("requests", json!(group.requests())),
        ("cpu_us_per_request", figure(group.cpu_us_per_request())),
        ("peak_mib", figure(group.peak_mib())),
        ("percentiles", json!(curve(&group.curve(&quantiles(CURVE_STEPS))))),
        ("turns", turns.collect()),
    ] {
        members.insert(name.to_owned(), value);
    }
    Value::Object(members)
}

/// Its word in scenario files, with the unit.
const fn measure_name(measure: Measure) -> &'static str {
    match measure {
        Measure::P50 => "p50_ms",
        Measure::P99 => "p99_ms",
        Measure::P999 => "p999_ms",
        Measure::P99All => "p99_all_ms",
        Measure::Errors => "error_ratio",
        Measure::PerCpuSecond => "requests_per_cpu_second",
        other => other.name(),
    }
}

fn figure(figure: Option<Figure>) -> Value {
    let Some(Figure { median, least, most }) = figure else { return Value::Null };
    json!({ "median": median, "least": least, "most": most })
}

fn curve(points: &[(f64, f64)]) -> Vec<Value> {
    let point =
        |(quantile, latency): &(f64, f64)| json!({ "percentile": quantile * 100.0, "latency_ms": latency });
    points.iter().map(point).collect()
}

fn turn(group: &Group<'_>, turn: &Turn, round: usize) -> Value {
    let (seen, used, doubt) = (&turn.seen, &turn.used, &turn.doubt);
    let points = quantiles(CURVE_STEPS).into_iter();
    let points: Vec<(f64, f64)> =
        points.filter_map(|quantile| Some((quantile, latency_at(turn, quantile)?))).collect();
    let failures: Map<String, Value> =
        seen.failures.iter().map(|(failure, &count)| (failure_name(*failure), json!(count))).collect();
    json!({
        "round": round,
        "time_s": seen.time.as_secs_f64(),
        "requests": requests_of(turn),
        "succeeded": seen.succeeded.len(),
        "failed": failed_of(turn),
        "failures": failures,
        "sent_again": seen.sent_again,
        "p50_ms": latency_at(turn, 0.5),
        "p90_ms": latency_at(turn, 0.9),
        "p99_ms": latency_at(turn, 0.99),
        "p999_ms": latency_at(turn, 0.999),
        "p9999_ms": latency_at(turn, 0.9999),
        "max_ms": latency_at(turn, 1.0),
        "failed_p99_ms": (!seen.failed.is_empty()).then(|| seen.failed.value_at_quantile(0.99) as f64 / 1_000.0),
        "percentiles": curve(&points),
        "answers_by_server": seen.answers,
        "cpu_user_s": used.user.as_secs_f64(),
        "cpu_system_s": used.system.as_secs_f64(),
        "requests_per_cpu_second": group.figure_of(Measure::PerCpuSecond, turn),
        "cpu_us_per_request": group.cpu_us_of(turn),
        "resident_before_mib": some_mib(used.resident_before_kib),
        "resident_mib": some_mib(used.resident_kib),
        "peak_mib": some_mib(used.peak_kib),
        "idle_connections": used.idle_connections,
        "bench": {
            "sent_late_p99_ms": millis(doubt.sent_late),
            "answered_late_p99_ms": millis(doubt.answered_late),
            "clients_busy_ratio": doubt.load_busy,
            "servers_busy_ratio": doubt.servers_busy,
        },
        "seconds": seen.slices.iter().enumerate().map(second).collect::<Vec<_>>(),
    })
}

fn second((index, slice): (usize, &Slice)) -> Value {
    let has_answers = slice.answers.iter().any(|&count| count > 0);
    json!({
        "from_s": index,
        "answers_by_server": slice.answers,
        "failures": slice.failures,
        "p50_ms": has_answers.then(|| millis(slice.p50)),
        "p99_ms": has_answers.then(|| millis(slice.p99)),
    })
}

fn failure_name(failure: Failure) -> String {
    match failure {
        Failure::Status(status) => format!("status_{status}"),
        Failure::Connect => "connect".to_owned(),
        Failure::Broken => "broken".to_owned(),
        Failure::Timeout => "timeout".to_owned(),
        Failure::NotSent => "not_sent".to_owned(),
    }
}

fn verdict(outcome: &Outcome, verdict: &Verdict) -> Value {
    let expectation = &verdict.expectation;
    let (bound, limit) = match expectation.bound {
        Bound::AtMost(most) => ("at_most", most),
        Bound::AtLeast(least) => ("at_least", least),
    };
    let (against, other) = match expectation.against {
        Against::Nothing => (None, None),
        Against::Times(other) => (Some("times"), Some(other.name())),
        Against::Beyond(other) => (Some("beyond"), Some(other.name())),
    };
    json!({
        "measure": expectation.measure.name(),
        "of": expectation.of.name(),
        "bound": bound,
        "limit": limit,
        "against": against,
        "other": other,
        "is_goal": expectation.is_goal,
        "measured": figure(verdict.figure),
        "is_met": verdict.is_met,
        "is_in_doubt": is_in_doubt(outcome, verdict),
        "words": verdict.words,
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{run, silent_outcome};
    use super::*;

    #[test]
    fn a_program_finds_every_figure_under_a_name_with_its_unit() {
        let run = run();
        let text = serde_json::to_string(&json(&run)).expect("JSON");
        let all: Value = serde_json::from_str(&text).expect("what was written can be read");
        assert_eq!(all["schema_version"], SCHEMA_VERSION);
        assert_eq!(all["command"], "evener bench");
        assert_eq!(all["versions"]["haproxy"], "HAProxy 2.6.12");
        let first = &all["scenarios"][0];
        assert_eq!(first["scenario"]["script"][0]["figures"]["speed"], 0.2);
        assert_eq!(first["scenario"]["events"][0]["words"], "server 0: speed 0.2");
        let candidate = &first["candidates"][0];
        assert_eq!(candidate["name"], "round_robin");
        let median = candidate["p99_ms"]["median"].as_f64().expect("a number");
        let of_rounds: Vec<f64> =
            (0..3).map(|round| candidate["turns"][round]["p99_ms"].as_f64().expect("a number")).collect();
        assert!(of_rounds.contains(&median), "{median} of {of_rounds:?}");
        assert!(candidate["turns"][0]["failures"]["timeout"].as_u64() > Some(0));
        let seconds = candidate["turns"][0]["seconds"].as_array().expect("a list");
        assert_eq!(seconds.len(), 20);
        assert_eq!(seconds[3]["answers_by_server"].as_array().map(Vec::len), Some(10));
        let verdict = &first["verdicts"][0];
        assert_eq!(verdict["measure"], "p99");
        assert_eq!((&verdict["bound"], &verdict["limit"]), (&json!("at_most"), &json!(1.25)));
        assert_eq!((&verdict["against"], &verdict["other"]), (&json!("times"), &json!("perfect")));
        assert_eq!(verdict["is_met"], true);
    }

    #[test]
    fn what_was_not_measured_is_null() {
        let mut run = run();
        run.outcomes = vec![silent_outcome()];
        let all = json(&run);
        let candidate = &all["scenarios"][0]["candidates"][0];
        assert_eq!(candidate["p99_ms"], Value::Null);
        assert_eq!(candidate["turns"][0]["cpu_us_per_request"], Value::Null);
        assert_eq!(all["scenarios"][0]["verdicts"][0]["is_met"], Value::Null);
    }
}
