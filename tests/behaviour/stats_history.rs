//! What happened in the last hour and month: it agrees with the counters, and outlives what it should.
//!
//! A point is there when its ten seconds are over, so these plays wait for what they look for.

use std::fs;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::rig::{Evener, Origin, Reply, wait_until};

/// Three steps, and room for a machine that is busy.
const SOON: Duration = Duration::from_secs(60);

const STATE: &str = "evener.state";

fn in_front_of(origins: &[&Origin], more: &str) -> String {
    let upstreams: Vec<String> = origins.iter().map(|origin| format!("\"{}\"", origin.address())).collect();
    format!(
        "{more}\n[pools.app]\nupstreams = [{}]\nhealth_check = {{ enabled = false }}\nejection = {{ enabled = false }}\n",
        upstreams.join(", ")
    )
}

/// With a file for what outlives the process.
fn kept(origins: &[&Origin]) -> String {
    in_front_of(origins, &format!("[server]\nstate_file = \"{STATE}\""))
}

#[track_caller]
fn history(evener: &Evener, of: &str) -> Value {
    evener.admin().json(&format!("/v1/stats/history?of={of}"))
}

#[track_caller]
fn requests(evener: &Evener, of: &str) -> u64 {
    history(evener, of)["totals"]["requests"].as_u64().expect("a number")
}

#[track_caller]
fn wait_for_requests(evener: &Evener, of: &str, count: u64) {
    wait_until(SOON, || requests(evener, of) >= count);
    assert_eq!(requests(evener, of), count, "of {of}");
}

fn get(evener: &Evener, times: usize) {
    (0..times).for_each(|_| drop(evener.get("/").expect_status(200)));
}

fn of_upstream(origin: &Origin) -> String {
    format!("upstream:app/{}", origin.address())
}

#[test]
fn what_happened_is_told_of_each_part_and_agrees_with_the_metrics() {
    let (well, sick) = (
        Origin::answering("0123456789").after(Duration::from_millis(20)),
        Origin::serving(|_| Reply::status(500, "no")),
    );
    let routes = "[routes.app]\npath_prefix = \"/app\"\npool = \"app\"\n[routes.quiet]\npath_prefix = \"/quiet\"\npool = \"app\"";
    let evener = Evener::start(&in_front_of(&[&well, &sick], routes));
    for _ in 0..20 {
        evener.get("/app");
    }
    (0..3).for_each(|_| drop(evener.get("/nowhere").expect_status(404)));
    evener.admin().expect_metric("evener_requests_total", &[], 20.0);

    wait_for_requests(&evener, "total", 23);
    let metric = |family: &str, labels: &[&str]| evener.admin().metric(family, labels);
    for (of, finished, failed) in [
        (
            "route:app".to_owned(),
            metric("evener_requests_total", &["route=\"app\""]),
            metric("evener_requests_total", &["route=\"app\"", "class=\"5xx\""]),
        ),
        (
            "listener:http".to_owned(),
            metric("evener_requests_total", &["listener=\"http\""]),
            metric("evener_requests_total", &["listener=\"http\"", "class=\"5xx\""]),
        ),
        (
            "pool:app".to_owned(),
            metric("evener_upstream_requests_total", &[]),
            metric("evener_upstream_requests_total", &["class=\"5xx\""]),
        ),
        (of_upstream(&well), 10.0, 0.0),
        (of_upstream(&sick), 10.0, 10.0),
    ] {
        let totals = &history(&evener, &of)["totals"];
        assert_eq!(totals["requests"].as_f64(), Some(finished), "{of}: {totals}");
        assert_eq!(totals["errors"].as_f64(), Some(failed), "{of}: {totals}");
    }
    let slow = &history(&evener, &of_upstream(&well))["totals"];
    let stats = &evener.admin().upstream("app", &well)["latency_ms"];
    for quantile in ["p50", "p99"] {
        let (then, now) = (slow["latency_ms"][quantile].as_f64(), stats[quantile].as_f64());
        let (then, now) = (then.expect("measured"), now.expect("measured"));
        assert!(then >= 20.0 && (then / now - 1.0).abs() < 0.3, "{quantile}: {then} and {now}");
    }
    let sent = metric("evener_response_bytes_total", &["route=\"app\""]);
    assert_eq!(history(&evener, "route:app")["totals"]["bytes"]["response"].as_f64(), Some(sent));
    assert_eq!(requests(&evener, "route:quiet"), 0);

    let steps = history(&evener, "total")["series"].as_array().expect("a list").clone();
    assert_eq!(steps.len(), 360);
    let in_steps: u64 = steps.iter().filter_map(|step| step["requests"].as_u64()).sum();
    assert_eq!(in_steps, 23, "the series is what the totals say");
    assert!(steps[0]["requests"].is_null(), "an hour ago nobody was there: {}", steps[0]);
    let long = evener.admin().json("/v1/stats/history?window=30d&step=1d");
    assert_eq!(long["totals"]["requests"], 23);
    let days = long["series"].as_array().map_or(0, Vec::len);
    assert!(
        days == 31 || days == 30 && long["period"]["to"].as_str().unwrap().contains("T00:00:00"),
        "{long}"
    );
}

/// With steps as long as the window, there was as much of it as the hour is old.
#[test]
fn a_window_covers_at_least_what_was_asked_for() {
    let origin = Origin::answering("ok");
    let evener = Evener::start(&in_front_of(&[&origin], ""));
    get(&evener, 3);
    wait_for_requests(&evener, "total", 3);
    let seconds = |time: &Value| {
        let time = time.as_str().expect("a time");
        let part = |range: std::ops::Range<usize>| time[range].parse::<u64>().expect("a number");
        (part(11..13) * 60 + part(14..16)) * 60 + part(17..19)
    };
    for (step, step_s) in [("10s", 10), ("50s", 50), ("10m", 600), ("1h", 3_600)] {
        let ask = |step| evener.admin().json(&format!("/v1/stats/history?window=1h&step={step}"));
        let (before, answer, after) = (ask("10s"), ask(step), ask("10s"));
        let period = |of: &Value, end: &str| of["period"][end].as_str().expect("a time").to_owned();
        assert!(period(&answer, "from") <= period(&after, "from"), "{step}: {answer}");
        assert!(period(&answer, "to") >= period(&before, "to"), "{step}: {answer}");
        assert_eq!(seconds(&answer["series"][0]["at"]) % step_s, 0, "{step}: {answer}");
        let steps = answer["series"].as_array().map_or(0, Vec::len) as u64;
        assert!((3_600 / step_s..=3_600 / step_s + 1).contains(&steps), "{step}: {steps} steps");
        assert_eq!(answer["totals"]["requests"], 3, "{step}");
    }
}

#[test]
fn the_most_requests_at_a_time_are_remembered() {
    let origin = Origin::answering("ok");
    let evener = Evener::start(&in_front_of(&[&origin], ""));
    origin.hold();
    let held: Vec<_> = (0..5).map(|_| evener.get_in_background("/")).collect();
    origin.wait_for_requests(5);
    let most = |of: &str| history(&evener, of)["totals"]["in_flight_max"].clone();
    wait_until(SOON, || most(&of_upstream(&origin)) == 5);
    assert_eq!((most("total"), most("pool:app"), most("listener:http")), (5.into(), 5.into(), Value::Null));
    origin.release();
    held.into_iter().for_each(|request| drop(request.join().expect_status(200)));
}

#[test]
fn a_restart_goes_on_where_the_history_was() {
    let origin = Origin::answering("ok");
    let mut evener = Evener::start(&kept(&[&origin]));
    get(&evener, 7);
    // Whatever was not taken down yet is, at the end.
    evener.admin().expect_metric("evener_requests_total", &[], 7.0);
    evener.restart();
    for of in ["total", "listener:http", "route:default", "pool:app", &of_upstream(&origin)] {
        assert_eq!(requests(&evener, of), 7, "of {of}");
    }
    get(&evener, 2);
    wait_for_requests(&evener, "total", 9);
    let quantiles = &history(&evener, "total")["totals"]["latency_ms"];
    assert!(quantiles["p99"].as_f64() > Some(0.0), "{quantiles}");
    assert_eq!(evener.admin().json("/api/monitoring/analytics")["totals"]["requests"], 9);
}

#[test]
fn without_a_state_file_a_restart_forgets() {
    let origin = Origin::answering("ok");
    let mut evener = Evener::start(&in_front_of(&[&origin], ""));
    get(&evener, 7);
    wait_for_requests(&evener, "total", 7);
    evener.restart();
    assert_eq!(requests(&evener, "total"), 0);
    assert_eq!(evener.file(STATE), None);
}

/// Nobody wrote it at the end: what is there is what was written in between, which a young process does often.
#[test]
fn a_crash_forgets_a_minute_at_most() {
    let origin = Origin::answering("ok");
    let mut evener = Evener::start(&kept(&[&origin]));
    get(&evener, 7);
    evener.admin().expect_metric("evener_requests_total", &[], 7.0);
    let (mut since, file) = (SystemTime::now(), evener.path(STATE));
    // Twice: the first may have been under way.
    for _ in 0..2 {
        let written = || fs::metadata(&file).and_then(|it| it.modified()).ok().filter(|&it| it > since);
        wait_until(Duration::from_secs(180), || written().is_some());
        since = written().expect("it was written");
    }
    evener.kill();
    evener.start_again();
    assert_eq!(requests(&evener, "total"), 7);
}

#[test]
fn an_upgrade_takes_the_history_along() {
    let origin = Origin::answering("ok");
    for text in [kept(&[&origin]), in_front_of(&[&origin], "")] {
        let evener = Evener::start(&text);
        for round in 1..=3 {
            get(&evener, 5);
            evener.upgrade().expect_status(200);
            wait_for_requests(&evener, "total", 5 * round);
        }
        for of in ["total", "listener:http", "route:default", "pool:app", &of_upstream(&origin)] {
            assert_eq!(requests(&evener, of), 15, "of {of}");
        }
        evener.admin().expect_metric("evener_requests_total", &[], 15.0);
    }
}

/// The old process writes no more, and the new one writes at its end.
#[test]
fn after_an_upgrade_the_successor_keeps_the_history() {
    let origin = Origin::answering("ok");
    let mut evener = Evener::start(&kept(&[&origin]));
    get(&evener, 5);
    evener.upgrade().expect_status(200);
    get(&evener, 5);
    evener.admin().expect_metric("evener_requests_total", &[], 10.0);
    let successor = evener.serving_process();
    evener.signal_serving("TERM");
    Evener::wait_for_end_of(successor);
    assert!(evener.ends_within(SOON).is_some());
    evener.start_again();
    assert_eq!(requests(&evener, "total"), 10);
}

#[test]
fn a_reload_forgets_nothing_and_who_was_removed_is_remembered() {
    let (stays, goes) = (Origin::answering("ok"), Origin::answering("ok"));
    let evener = Evener::start(&in_front_of(&[&stays, &goes], ""));
    get(&evener, 10);
    wait_for_requests(&evener, "pool:app", 10);
    evener.reload(&in_front_of(&[&stays], ""));
    get(&evener, 4);
    wait_for_requests(&evener, "pool:app", 14);
    assert_eq!((requests(&evener, &of_upstream(&stays)), requests(&evener, &of_upstream(&goes))), (9, 5));

    // It comes back with counters that begin anew.
    evener.reload(&in_front_of(&[&goes], ""));
    get(&evener, 3);
    wait_for_requests(&evener, &of_upstream(&goes), 8);
    assert_eq!((requests(&evener, &of_upstream(&stays)), requests(&evener, "total")), (9, 17));
}

#[test]
fn requests_that_end_at_somebody_who_was_removed_are_in_the_history() {
    let (stays, goes) = (Origin::answering("ok"), Origin::answering("ok"));
    let route = |name: &str| format!("[routes.{name}]\npool = \"app\"");
    let evener = Evener::start(&in_front_of(&[&goes], &route("before")));
    goes.hold();
    let held: Vec<_> = (0..4).map(|_| evener.get_in_background("/")).collect();
    goes.wait_for_requests(4);
    // Its route goes with it, which was known of by the one before.
    evener.reload(&in_front_of(&[&stays], &route("before")));
    evener.reload(&in_front_of(&[&stays], &route("after")));
    get(&evener, 3);
    wait_for_requests(&evener, "total", 3);
    goes.release();
    held.into_iter().for_each(|request| drop(request.join().expect_status(200)));
    wait_for_requests(&evener, "total", 7);
    let expected = [
        ("pool:app".to_owned(), 7),
        ("listener:http".to_owned(), 7),
        ("route:before".to_owned(), 4),
        (of_upstream(&goes), 4),
    ];
    for (of, count) in expected {
        wait_for_requests(&evener, &of, count);
    }
}

#[test]
fn a_state_file_that_is_broken_is_put_aside_and_a_foreign_one_left_alone() {
    let origin = Origin::answering("ok");
    let foreign = "the only copy of something dear\n";
    let broken = ["evener state 1\nhistory 9 00\n12345", "evener state 1\nhistory", "evener state 999\n"];
    for text in broken.into_iter().chain([foreign]) {
        let mut evener = Evener::start_beside(&kept(&[&origin]), &[(STATE, text)]);
        wait_until(SOON, || evener.admin().try_get("/readyz").is_some_and(|answer| answer.status() == 200));
        evener.wait_for_log("state file not used");
        get(&evener, 3);
        let aside = evener.file("evener.state.broken");
        if text == foreign {
            evener.restart();
            assert_eq!((evener.file(STATE).as_deref(), aside), (Some(text), None));
            assert_eq!(requests(&evener, "total"), 0);
        } else {
            assert_eq!(aside.as_deref(), Some(text));
            assert!(!evener.log().contains("Some("), "{}", evener.log());
            evener.restart();
            assert_eq!(requests(&evener, "total"), 3, "it begins anew after {text:?}");
        }
    }
}

#[test]
fn a_state_file_that_cannot_be_written_is_no_reason_to_stop() {
    let origin = Origin::answering("ok");
    let text = in_front_of(&[&origin], "[server]\nstate_file = \"no/such/folder/evener.state\"");
    let mut evener = Evener::start(&text);
    get(&evener, 3);
    evener.signal("TERM");
    assert!(evener.ends_within(SOON).is_some_and(|status| status.success()));
    assert!(evener.log().contains("state file not written"), "{}", evener.log());
}

#[test]
fn where_the_history_is_kept_is_fixed_at_the_start() {
    let origin = Origin::answering("ok");
    let evener = Evener::start(&in_front_of(&[&origin], ""));
    evener.reload_in_vain(&kept(&[&origin]));
    assert!(evener.log().contains("server.state_file"), "{}", evener.log());
}

#[test]
fn questions_that_make_no_sense_are_told_so() {
    let origin = Origin::answering("ok");
    let evener = Evener::start(&in_front_of(&[&origin], ""));
    for (query, status, says) in [
        ("window=1x", 400, "`window`"),
        ("window=31d", 400, "write at most 30d"),
        ("window=1000h", 400, "`window`"),
        ("window=721h", 400, "write at most 30d"),
        ("window=48h", 200, "\"step_seconds\":3600"),
        ("window=7d&step=48h", 200, "\"step_seconds\":172800"),
        ("window=99999999999d", 400, "`window`"),
        ("window=1s", 400, "at least 10s"),
        ("step=0s", 400, "at least 10s"),
        ("step=15s", 400, "not a multiple of 10s"),
        ("window=2h&step=10s", 400, "not a multiple of 10m"),
        ("window=1h&step=2h", 400, "longer than `window`"),
        ("window=1h&step=50m10s", 200, "\"step_seconds\":3010"),
        ("window=30d&step=29d", 200, "\"step_seconds\":2505600"),
        ("windw=1h", 400, "did you mean `window`?"),
        ("of=rout:default", 400, "did you mean `route`?"),
        ("of=app", 400, "names nothing that has a history"),
        ("of=upstream:app", 400, "upstream:POOL/ADDRESS"),
        ("of=pool:nobody", 404, "there is no pool `nobody`"),
        ("of=upstream:app/127.0.0.1:1", 404, "there is no upstream"),
        ("window=1h&window=2h", 400, "more than once"),
    ] {
        let answer = evener.admin().get(&format!("/v1/stats/history?{query}")).expect_status(status);
        assert!(answer.body().contains(says), "{query}: {}", answer.body());
    }
    for days in ["0", "31", "-1", "x", "1.5", "99999999999999999999"] {
        let answer = evener.admin().get(&format!("/api/monitoring/analytics?days={days}")).expect_status(400);
        assert!(answer.body().contains("write 1 to 30"), "{days}: {}", answer.body());
    }
}

#[test]
fn the_platform_sees_totals_days_and_who_was_busiest() {
    let (one, two) = (Origin::answering("ok"), Origin::serving(|_| Reply::status(503, "no")));
    let routes = "[routes.all]\npool = \"app\"\n[routes.more]\npath_prefix = \"/more\"\npool = \"app\"";
    let evener = Evener::start(&in_front_of(&[&one, &two], routes));
    (0..6).for_each(|_| drop(evener.get("/more")));
    (0..2).for_each(|_| drop(evener.get("/")));
    wait_for_requests(&evener, "total", 8);
    let seen = evener.admin().json("/api/monitoring/analytics?days=2");
    let totals = &seen["totals"];
    assert_eq!(
        (&totals["requests"], &totals["errors"], &totals["errorRate"]),
        (&8.into(), &4.into(), &0.5.into())
    );
    assert!(totals["avgResponseTime"].as_f64() > Some(0.0), "{totals}");
    assert_eq!(seen["series"].as_array().map(Vec::len), Some(2));
    // The day may change during the play, and nobody was there yesterday otherwise.
    let days = seen["series"].as_array().expect("a list").iter();
    assert_eq!(days.filter_map(|day| day["requests"].as_u64()).sum::<u64>(), 8);
    assert!(seen["growth"]["requests"].is_null() && seen["growth"]["previous"]["requests"] == 0, "{seen}");
    assert_eq!(
        (&seen["topRoutes"][0]["endpoint"], &seen["topRoutes"][0]["requests"]),
        (&"more".into(), &6.into())
    );
    let top: Vec<&Value> = seen["topUpstreams"].as_array().expect("a list").iter().collect();
    let worst = top.iter().find(|it| it["url"] == format!("http://{}", two.address())).expect("it is there");
    assert_eq!((&worst["pool"], &worst["errorRate"]), (&"app".into(), &1.0.into()), "{seen}");
}

/// The file is replaced as a whole, and is nobody else's business.
#[test]
fn the_file_has_no_remains_beside_it() {
    let origin = Origin::answering("ok");
    let mut evener = Evener::start(&kept(&[&origin]));
    get(&evener, 1);
    evener.restart();
    evener.restart();
    let names = fs::read_dir(evener.path(".")).expect("a folder").flatten().map(|entry| entry.file_name());
    let names: Vec<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
    assert!(names.contains(&STATE.to_owned()), "{names:?}");
    assert!(!names.iter().any(|name| name.contains("state") && name != STATE), "{names:?}");
    assert_eq!(requests(&evener, "total"), 1);
}
