//! What became of an upstream, and why: `GET /v1/pools/{pool}/upstreams/{address}/timeline`.

use std::time::Duration;

use serde_json::{Value, json};

use crate::rig::{Evener, Origin, Reply, wait_until};

const SOON: Duration = Duration::from_secs(30);

const QUICK: &str = r#"health_check = { path = "/healthz", interval = "200ms", fast_interval = "100ms", rise = 2, fall = 3 }"#;

const UNCHECKED: &str = "health_check = { enabled = false }";

fn pool(origins: &[&Origin], more: &str) -> String {
    let addresses: Vec<String> = origins.iter().map(|origin| format!("\"{}\"", origin.address())).collect();
    format!("[pools.app]\nupstreams = [{}]\n{more}", addresses.join(", "))
}

/// Its entries of one kind, oldest first.
#[track_caller]
fn entries(evener: &Evener, origin: &Origin, kind: &str) -> Vec<Value> {
    let path = format!("/v1/pools/app/upstreams/{}/timeline", origin.address_in_a_path());
    let timeline = evener.admin().json(&path);
    assert_eq!(timeline["address"], *origin.address());
    let all = timeline["entries"].as_array().expect("entries");
    all.iter().filter(|entry| entry["kind"] == kind).cloned().collect()
}

fn turns(entries: &[Value]) -> Vec<(&str, &str)> {
    entries.iter().map(|it| (it["from"].as_str().unwrap(), it["to"].as_str().unwrap())).collect()
}

fn is_up(evener: &Evener, origin: &Origin) -> bool {
    evener.admin().upstream("app", origin)["health"] == "up"
}

#[test]
fn a_sick_spell_is_in_the_timeline_with_what_the_probe_met_and_how_long_it_took() {
    let (origin, other) = (Origin::answering("ok"), Origin::answering("ok"));
    let evener = Evener::start(&pool(&[&origin, &other], QUICK));
    for _ in 0..10 {
        evener.get("/").expect_status(200);
    }
    origin.fall_sick();
    wait_until(SOON, || !is_up(&evener, &origin));
    origin.get_well();
    wait_until(SOON, || is_up(&evener, &origin));

    wait_until(SOON, || entries(&evener, &origin, "health").len() == 3);
    let health = entries(&evener, &origin, "health");
    assert_eq!(turns(&health), [("unknown", "up"), ("up", "down"), ("down", "up")]);
    assert_eq!(health[0]["cause"], "the first health check passed");
    let cause = health[1]["cause"].as_str().unwrap();
    assert!(cause.starts_with("3 health checks in a row failed: ") && cause.contains("503"), "{cause}");
    assert_eq!(health[2]["cause"], "2 health checks in a row passed");
    assert_eq!(health.iter().map(|it| it["is_current"] == true).collect::<Vec<_>>(), [false, false, true]);
    assert!(health[1]["duration_ms"].as_f64() >= Some(100.0), "two probes lie between: {health:?}");
    assert_eq!(health[0]["share_before"], Value::Null, "there was no traffic yet");
    assert_eq!(health[1]["share_before"], 0.5, "turns are fair: {health:?}");
    let presence = entries(&evener, &origin, "presence");
    assert_eq!(presence[0]["cause"], "the process began with it");
}

#[test]
fn an_ejection_is_in_the_timeline_from_its_cause_to_the_return() {
    let sick = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let is_sick = sick.clone();
    let origin = Origin::serving(move |_| {
        let status = if is_sick.load(std::sync::atomic::Ordering::Relaxed) { 500 } else { 200 };
        Reply::status(status, "well")
    });
    let other = Origin::answering("ok");
    let ejection = r#"ejection = { consecutive_failures = 2, base_duration = "300ms", max_ejected = 0.5 }"#;
    let evener = Evener::start(&pool(&[&origin, &other], &format!("{UNCHECKED}\n{ejection}")));
    let words = || {
        let all = entries(&evener, &origin, "ejection");
        turns(&all).into_iter().map(|(_, to)| to.to_owned()).collect::<Vec<_>>()
    };
    wait_until(SOON, || {
        evener.get("/");
        words().first().is_some_and(|word| word == "ejected")
    });
    // Nobody asks for anything, and it ends all the same.
    wait_until(SOON, || words().last().is_some_and(|word| word == "probation"));
    sick.store(false, std::sync::atomic::Ordering::Relaxed);
    wait_until(SOON, || {
        evener.get("/");
        words().last().is_some_and(|word| word == "admitted")
    });
    let all = entries(&evener, &origin, "ejection");
    assert_eq!(all[0]["cause"], "2 requests in a row failed");
    let lasted = all[0]["duration_ms"].as_f64().unwrap();
    assert!((298.0..=302.0).contains(&lasted), "to its end, whenever that was seen: {lasted}");
    assert!(all[0]["share_before"].as_f64() > Some(0.0), "{all:?}");
    let last = all.last().unwrap();
    assert_eq!(last["cause"], "enough requests in a row did well on probation");
    let first_turns = &turns(&all)[..2];
    assert_eq!(first_turns, [("admitted", "ejected"), ("ejected", "probation")]);
}

#[test]
fn what_operators_do_is_in_the_timeline_with_their_names_and_reasons() {
    let (origin, other) = (Origin::answering("ok"), Origin::answering("ok"));
    let evener = Evener::start(&pool(&[&origin, &other], UNCHECKED));
    let path = format!("/v1/pools/app/upstreams/{}", origin.address_in_a_path());
    let change = |json: &str| {
        evener.admin().write("PATCH", &path, "X-Evener-Reason: new disk\r\n", json).expect_status(200);
    };
    change(r#"{"state": "drain"}"#);
    change(r#"{"state": "ready", "weight": 5}"#);
    let state = entries(&evener, &origin, "state");
    assert_eq!(turns(&state), [("ready", "drain"), ("drain", "ready")]);
    let cause = state[0]["cause"].as_str().unwrap();
    assert!(cause.starts_with("edit pool app: ") && cause.ends_with(" by loopback: new disk"), "{cause}");
    assert_eq!(turns(&entries(&evener, &origin, "weight")), [("1", "5")]);
    assert!(entries(&evener, &other, "state").is_empty());
}

#[test]
fn who_comes_by_a_reload_says_so_and_who_went_and_comes_back_too() {
    let (origin, other) = (Origin::answering("ok"), Origin::answering("ok"));
    let evener = Evener::start(&pool(&[&origin], UNCHECKED));
    evener.reload(&pool(&[&origin, &other], UNCHECKED));
    let presence = entries(&evener, &other, "presence");
    assert_eq!(turns(&presence), [("absent", "present")]);
    assert_eq!(presence[0]["cause"], "reload by SIGHUP");
    let path = format!("/v1/pools/app/upstreams/{}/timeline", other.address_in_a_path());
    evener.reload(&pool(&[&origin], UNCHECKED));
    evener.admin().get(&path).expect_status(404);
    evener.admin().get(&format!("{path}?n=1")).expect_status(400);
}

#[test]
fn only_the_latest_entries_are_kept() {
    let (origin, other) = (Origin::answering("ok"), Origin::answering("ok"));
    let evener = Evener::start(&pool(&[&origin, &other], UNCHECKED));
    let path = format!("/v1/pools/app/upstreams/{}", origin.address_in_a_path());
    for weight in 2..72 {
        evener.admin().write("PATCH", &path, "", &json!({ "weight": weight }).to_string()).expect_status(200);
    }
    let weights = entries(&evener, &origin, "weight");
    assert_eq!((weights.len(), &weights[0]["from"], &weights[63]["to"]), (64, &json!("7"), &json!("71")));
    assert!(entries(&evener, &origin, "presence").is_empty(), "it was the oldest");
}

#[test]
fn a_successor_knows_what_became_of_its_upstreams() {
    let (origin, other) = (Origin::answering("ok"), Origin::answering("ok"));
    let evener = Evener::start_from_own_file(&pool(&[&origin, &other], QUICK), &[]);
    origin.fall_sick();
    wait_until(SOON, || !is_up(&evener, &origin));
    let before = evener.serving_process();
    evener.upgrade().expect_status(200);
    wait_until(SOON, || evener.serving_process() != before);
    let health = entries(&evener, &origin, "health");
    assert_eq!(turns(&health), [("unknown", "up"), ("up", "down")]);
    assert_eq!(entries(&evener, &origin, "presence").len(), 1);
    origin.get_well();
    wait_until(SOON, || entries(&evener, &origin, "health").len() == 3);
    let health = entries(&evener, &origin, "health");
    assert!(health[1]["duration_ms"].as_f64() > Some(0.0), "{health:?}");
}

/// RFC 2439, for upstreams: from the third time within minutes it has to prove more.
#[test]
fn an_upstream_that_flaps_needs_more_passes_and_says_so() {
    let (origin, other) = (Origin::answering("ok"), Origin::answering("ok"));
    let evener = Evener::start(&pool(&[&origin, &other], QUICK));
    for _ in 0..3 {
        origin.fall_sick();
        wait_until(SOON, || !is_up(&evener, &origin));
        origin.get_well();
        wait_until(SOON, || is_up(&evener, &origin));
    }
    let causes: Vec<String> = entries(&evener, &origin, "health")
        .iter()
        .filter(|entry| entry["from"] == "down")
        .map(|entry| entry["cause"].as_str().unwrap().to_owned())
        .collect();
    let usual = "2 health checks in a row passed";
    assert_eq!(causes[..2], [usual, usual]);
    assert!(causes[2].starts_with("4 health checks in a row passed, so many because"), "{causes:?}");

    origin.fall_sick();
    wait_until(SOON, || evener.admin().upstream("app", &origin)["flapping"]["passes_needed"] == 8);
    let sick = evener.admin().upstream("app", &origin);
    let detail = sick["why_not_detail"].as_str().unwrap_or_default();
    assert!(detail.contains("after 8 health checks in a row"), "{sick}");
    // The pool cannot do without it: it is up as soon as any other.
    other.fall_sick();
    wait_until(SOON, || !is_up(&evener, &other));
    origin.get_well();
    wait_until(SOON, || is_up(&evener, &origin));
    let health = entries(&evener, &origin, "health");
    assert_eq!(health.last().unwrap()["cause"], usual, "{health:?}");
}

/// Every request has the same key, so one upstream gets all of them; nobody would know.
#[test]
fn who_gets_all_and_who_gets_nothing_raise_an_alarm_after_a_minute_and_are_cleared_when_it_is_over() {
    let (one, other) = (Origin::answering("one"), Origin::answering("other"));
    let hashed = "strategy = \"consistent_hash\"\nhash = { header = \"x-user\" }";
    let evener = Evener::start(&pool(&[&one, &other], &format!("{UNCHECKED}\n{hashed}")));
    let kinds = || {
        let status = evener.admin().json("/v1/status");
        let alarms = status["alarms"].as_array().expect("alarms").clone();
        alarms.into_iter().map(|alarm| alarm["kind"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let mut client = evener.connect();
    let a_while = Duration::from_secs(180);
    wait_until(a_while, || {
        (0..5).for_each(|_| drop(client.get("/").expect_status(200)));
        let mut kinds = kinds();
        kinds.sort();
        kinds == ["imbalance", "starved"]
    });
    for kind in ["imbalance", "starved"] {
        let alarms = evener.admin().metric("evener_alarms", &[&format!("kind=\"{kind}\"")]);
        assert!((alarms - 1.0).abs() < f64::EPSILON, "{kind}: {alarms}");
    }
    assert!(evener.log().contains("alarm raised"));
    let starved = [&one, &other].map(|it| evener.admin().upstream("app", it)["alarms"].clone());
    assert!(starved.iter().any(|alarms| alarms[0]["kind"] == "starved"), "{starved:?}");
    evener.reload(&pool(&[&one, &other], UNCHECKED));
    wait_until(a_while, || kinds().is_empty());
    evener.wait_for_log("alarm cleared");
}

#[test]
fn figures_agree_with_each_other_and_the_self_check_shows_them() {
    let origin = Origin::answering("ok");
    let evener = Evener::start(&pool(&[&origin], UNCHECKED));
    (0..7).for_each(|_| drop(evener.get("/").expect_status(200)));
    let figures = || {
        let answer = evener.admin().json("/v1/self-check");
        assert_eq!(answer["ok"], true, "{answer}");
        let checks = answer["checks"].as_array().expect("checks").clone();
        assert_eq!(checks.len(), 5);
        checks[0]["figures"].clone()
    };
    wait_until(SOON, || figures()["waiting"] == 0);
    assert_eq!(figures(), json!({"picks": 7, "finished": 7, "given_up": 0, "waiting": 0}));
}
