//! What became of an upstream, and why: `GET /v1/pools/{pool}/upstreams/{address}/timeline`.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use crate::rig::{Background, Client, Evener, Origin, Reply, wait_until};
use crate::websocket::{echo, open};

const SOON: Duration = Duration::from_secs(30);

const QUICK: &str = r#"health_check = { path = "/healthz", interval = "200ms", fast_interval = "100ms", rise = 2, fall = 3 }"#;

const UNCHECKED: &str = "health_check = { enabled = false }";

const STATE: &str = "evener.state";

/// With a file for what outlives the process.
fn kept(origins: &[&Origin], more: &str) -> String {
    format!("[server]\nstate_file = \"{STATE}\"\n{}", pool(origins, more))
}

fn stop(evener: &mut Evener) {
    evener.signal("TERM");
    assert!(evener.ends_within(SOON).is_some(), "it does not end");
}

/// What a sick spell leaves in the time line, from a start on.
const SPELL: [(&str, &str); 3] = [("unknown", "up"), ("up", "down"), ("down", "up")];

/// Traffic, and a sick spell of one upstream.
fn fall_sick_and_get_well(evener: &Evener, origin: &Origin) {
    for _ in 0..10 {
        evener.get("/").expect_status(200);
    }
    origin.fall_sick();
    wait_until(SOON, || !is_up(evener, origin));
    origin.get_well();
    wait_until(SOON, || is_up(evener, origin));
    wait_until(SOON, || entries(evener, origin, "health").len() == SPELL.len());
}

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

/// Then ejections are taken back at once and begin anew with every few requests: the beginning is what matters.
#[test]
fn a_pool_of_which_nobody_is_well_keeps_the_beginning_in_its_time_lines() {
    let origins = [Origin::answering("ok"), Origin::answering("ok"), Origin::answering("ok")];
    let ejection = "ejection = { consecutive_failures = 1, base_duration = \"60s\", max_ejected = 0.5 }";
    let evener = Evener::start(&pool(&origins.each_ref(), &format!("{UNCHECKED}\n{ejection}")));
    origins.iter().for_each(Origin::die);
    let ejections = |origin| entries(&evener, origin, "ejection");
    let ejected = || origins.iter().find(|origin| !ejections(origin).is_empty());
    wait_until(SOON, || {
        evener.get("/").expect_status(502);
        ejected().is_some()
    });
    let one = ejected().expect("one of them");
    let first = ejections(one).remove(0);

    let times = |entry: &Value| entry["times"].as_u64().expect("a number");
    wait_until(Duration::from_secs(120), || {
        (0..5).for_each(|_| drop(evener.get("/").expect_status(502)));
        ejections(one).iter().map(times).sum::<u64>() > 200
    });
    for origin in &origins {
        let all = ejections(origin);
        assert!(all.len() <= 6, "{all:?}");
        assert!(all.windows(2).all(|two| two[0]["to"] == two[1]["from"]), "{all:?}");
        assert_eq!(entries(&evener, origin, "presence").len(), 1, "what was before is there still");
    }
    let all = ejections(one);
    for member in ["at", "from", "to", "cause", "share_before"] {
        assert_eq!(all[0][member], first[member], "{all:?}");
    }
    let often = all.iter().find(|entry| times(entry) > 10).expect("it came again and again");
    assert!(often["last_at"].as_str() > often["at"].as_str(), "{often}");
    let presence = entries(&evener, one, "presence").remove(0);
    assert_eq!((&presence["times"], &presence["last_at"]), (&json!(1), &presence["at"]));
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

#[test]
fn a_restart_goes_on_with_the_time_lines_and_shows_the_time_in_which_nobody_was_there() {
    let (origin, other) = (Origin::answering("ok"), Origin::answering("ok"));
    let mut evener = Evener::start(&kept(&[&origin, &other], QUICK));
    fall_sick_and_get_well(&evener, &origin);
    let before = entries(&evener, &origin, "health");
    evener.restart();

    wait_until(SOON, || entries(&evener, &origin, "health").len() == 5);
    let health = entries(&evener, &origin, "health");
    assert_eq!(turns(&health)[..3], SPELL);
    assert_eq!(turns(&health)[3..], [("up", "unknown"), ("unknown", "up")]);
    for (then, now) in before.iter().zip(&health) {
        for member in ["at", "from", "to", "cause", "share_before"] {
            assert_eq!(now[member], then[member], "as it was noted: {now}");
        }
    }
    assert_eq!(health[1]["share_before"], 0.5, "{health:?}");
    assert_eq!(health[3]["cause"], "the process ended");
    let presence = entries(&evener, &origin, "presence");
    assert_eq!(turns(&presence), [("absent", "present"), ("present", "absent"), ("absent", "present")]);
    assert!(presence[1]["duration_ms"].as_f64() > Some(0.0), "{presence:?}");
    assert_eq!(presence[2]["cause"], "the process began with it");
    let current: Vec<bool> = presence.iter().map(|it| it["is_current"] == true).collect();
    assert_eq!(current, [false, false, true]);

    // And once more, with another weight in the file, and one upstream less.
    let weighed = format!("[{{ address = \"{}\", weight = 3 }}]", origin.address());
    let text = |upstreams: &str| {
        format!("[server]\nstate_file = \"{STATE}\"\n[pools.app]\nupstreams = {upstreams}\n{QUICK}")
    };
    let path = format!("/v1/pools/app/upstreams/{}", origin.address_in_a_path());
    evener.admin().write("PATCH", &path, "", r#"{"weight": 2}"#).expect_status(200);
    stop(&mut evener);
    for name in fs::read_dir(evener.path(".")).expect("a folder").flatten() {
        if name.file_name().to_string_lossy().contains("overrides") {
            fs::remove_file(name.path()).expect("remove");
        }
    }
    evener.rewrite(&text(&weighed));
    evener.start_again();
    assert_eq!(turns(&entries(&evener, &origin, "weight")), [("1", "2"), ("2", "3")]);
    let restarts = |evener: &Evener| -> Vec<Value> {
        entries(evener, &origin, "presence").iter().map(|entry| entry["times"].clone()).collect()
    };
    assert_eq!(restarts(&evener), [2, 2, 1], "present, absent, and present now");

    stop(&mut evener);
    evener.rewrite(&kept(&[&origin, &other], QUICK));
    evener.start_again();
    assert_eq!(entries(&evener, &other, "presence").len(), 1, "it was not configured, and is forgotten");
    assert_eq!(restarts(&evener), [3, 3, 1]);
}

#[test]
fn without_a_state_file_a_restart_forgets_the_time_lines() {
    let (origin, other) = (Origin::answering("ok"), Origin::answering("ok"));
    let mut evener = Evener::start(&pool(&[&origin, &other], QUICK));
    fall_sick_and_get_well(&evener, &origin);
    evener.restart();
    wait_until(SOON, || !entries(&evener, &origin, "health").is_empty());
    assert_eq!(turns(&entries(&evener, &origin, "health")), SPELL[..1]);
    assert_eq!(entries(&evener, &origin, "presence").len(), 1);
}

/// Nobody wrote its end.
#[test]
fn after_a_crash_it_is_said_that_nobody_knows_when_it_was() {
    let (origin, other) = (Origin::answering("ok"), Origin::answering("ok"));
    let mut evener = Evener::start(&kept(&[&origin, &other], QUICK));
    fall_sick_and_get_well(&evener, &origin);
    let state = evener.path(STATE);
    // As often as the spell has entries, for whom it was about.
    let of_the_spell = "health checks in a row";
    wait_until(Duration::from_secs(120), || {
        fs::read(&state).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).matches(of_the_spell).count() >= 2)
    });
    evener.kill();
    evener.start_again();
    let health = entries(&evener, &origin, "health");
    assert_eq!(turns(&health)[..4], [SPELL[0], SPELL[1], SPELL[2], ("up", "unknown")]);
    let cause = health[3]["cause"].as_str().unwrap();
    assert!(cause.contains("without a word, then or later"), "{cause}");
}

#[test]
fn crashes_one_after_the_other_are_counted_and_leave_what_was_before() {
    let (origin, other) = (Origin::answering("ok"), Origin::answering("ok"));
    let mut evener = Evener::start(&kept(&[&origin, &other], QUICK));
    fall_sick_and_get_well(&evener, &origin);
    let state = evener.path(STATE);
    let crashes = 4;
    for crash in 0..=crashes {
        if crash > 0 {
            evener.kill();
            evener.start_again();
            wait_until(SOON, || is_up(&evener, &origin));
        }
        // Twice: the first may have been under way.
        for _ in 0..2 {
            let since = SystemTime::now();
            let written = || fs::metadata(&state).and_then(|it| it.modified()).is_ok_and(|at| at > since);
            wait_until(Duration::from_secs(180), written);
        }
    }
    let health = entries(&evener, &origin, "health");
    assert_eq!(turns(&health)[..3], SPELL, "{health:?}");
    assert_eq!(turns(&health)[3..], [("up", "unknown"), ("unknown", "up")], "{health:?}");
    let presence = entries(&evener, &origin, "presence");
    assert_eq!(turns(&presence), [("absent", "present"), ("present", "absent"), ("absent", "present")]);
    for of_crashes in [&health[3], &health[4], &presence[0], &presence[1]] {
        assert_eq!(of_crashes["times"], crashes, "{of_crashes}");
        assert!(of_crashes["last_at"].as_str() > of_crashes["at"].as_str(), "{of_crashes}");
    }
}

#[test]
fn time_lines_that_cannot_be_read_cost_nothing_but_themselves() {
    let (origin, other) = (Origin::answering("ok"), Origin::answering("ok"));
    let mut evener = Evener::start(&kept(&[&origin, &other], QUICK));
    fall_sick_and_get_well(&evener, &origin);
    let requests = |evener: &Evener| evener.admin().json("/v1/stats/history")["totals"]["requests"].clone();
    wait_until(SOON, || requests(&evener) == 10);
    stop(&mut evener);
    let (state, good) = (evener.path(STATE), fs::read(evener.path(STATE)).expect("the file"));

    // Of another program, or of a later version.
    let sum = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    fs::write(&state, [&good[..], format!("moods 3 {sum}\nabc").as_bytes()].concat()).expect("write");
    evener.start_again();
    evener.wait_for_log("are not known here");
    assert!(evener.log().contains("moods"), "{}", evener.log());
    assert_eq!(
        (requests(&evener), turns(&entries(&evener, &origin, "health"))[..3] == SPELL),
        (10.into(), true)
    );
    stop(&mut evener);

    let mut broken = good;
    *broken.last_mut().expect("a byte") ^= 1;
    fs::write(&state, &broken).expect("write");
    evener.start_again();
    evener.wait_for_log("time lines of the state file not used");
    wait_until(SOON, || !entries(&evener, &origin, "health").is_empty());
    assert_eq!(turns(&entries(&evener, &origin, "health"))[..1], SPELL[..1]);
    assert_eq!(entries(&evener, &origin, "presence").len(), 1, "they begin anew");
    assert_eq!(requests(&evener), 10, "and the history goes on");
    assert_eq!(evener.file("evener.state.broken"), None);
    evener.restart();
    assert_eq!(entries(&evener, &origin, "presence").len(), 3, "from here on they are kept again");
}

/// Whoever flaps is not forgiven because the process was replaced.
#[test]
fn a_successor_knows_who_flaps() {
    let (origin, other) = (Origin::answering("ok"), Origin::answering("ok"));
    let evener = Evener::start(&pool(&[&origin, &other], QUICK));
    for _ in 0..3 {
        origin.fall_sick();
        wait_until(SOON, || !is_up(&evener, &origin));
        origin.get_well();
        wait_until(SOON, || is_up(&evener, &origin));
    }
    evener.upgrade().expect_status(200);
    origin.fall_sick();
    wait_until(SOON, || evener.admin().upstream("app", &origin)["flapping"]["passes_needed"] == 8);
    evener.upgrade().expect_status(200);
    let held_back = evener.admin().upstream("app", &origin);
    assert_eq!(held_back["flapping"]["passes_needed"], 8, "{held_back}");
    origin.get_well();
    wait_until(SOON, || is_up(&evener, &origin));
    let is_entered = |health: &[Value]| health.last().is_some_and(|entry| entry["to"] == "up");
    wait_until(SOON, || is_entered(&entries(&evener, &origin, "health")));
    let health = entries(&evener, &origin, "health");
    let cause = health.last().unwrap()["cause"].as_str().unwrap().to_owned();
    assert!(cause.starts_with("8 health checks in a row passed, so many because"), "{cause}");
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

    // They stand at a successor at once, as they were, and while nothing changes.
    drop(client);
    let alarms = || evener.admin().json("/v1/status")["alarms"].clone();
    let before = alarms();
    evener.upgrade().expect_status(200);
    assert_eq!(alarms(), before);
    let mut client = evener.connect();
    let judged_twice = Instant::now() + Duration::from_secs(21);
    while Instant::now() < judged_twice {
        (0..5).for_each(|_| drop(client.get("/").expect_status(200)));
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(alarms(), before);
    assert_eq!(evener.log().matches("alarm raised").count(), 2, "{}", evener.log());
    assert!(!evener.log().contains("alarm cleared"), "{}", evener.log());

    evener.rewrite(&pool(&[&one, &other], UNCHECKED));
    evener.signal_serving("HUP");
    wait_until(a_while, || kinds().is_empty());
    evener.wait_for_log("alarm cleared");
}

/// Its estimate says how fast it was, and event streams do not say how fast it is.
#[test]
fn an_estimate_that_nothing_renews_raises_an_alarm_after_a_minute_until_something_does() {
    let origin = Origin::serving(|request| match request.target.as_str() {
        "/events" => Reply::with_headers(200, "Content-Type: text/event-stream\r\n", "data: x\n\n"),
        _ => Reply::ok("ok"),
    });
    let evener = Evener::start(&pool(&[&origin], &format!("{UNCHECKED}\nstrategy = \"latency_weighted\"")));
    evener.get("/").expect_status(200);
    let alarms = || evener.admin().upstream("app", &origin)["alarms"].clone();
    assert_eq!(alarms(), json!([]));
    let mut client = evener.connect();
    let a_while = Duration::from_secs(180);
    wait_until(a_while, || {
        client.get("/events").expect_status(200);
        thread::sleep(Duration::from_millis(100));
        alarms()[0]["kind"] == "stale_estimate"
    });
    let detail = alarms()[0]["detail"].as_str().unwrap_or_default().to_owned();
    assert!(detail.contains("requests since a minute said nothing about it"), "{detail}");
    let status = evener.admin().json("/v1/status");
    assert_eq!(status["alarms"][0]["kind"], "stale_estimate", "{status}");
    let metric = || evener.admin().metric("evener_alarms", &["kind=\"stale_estimate\""]);
    assert!((metric() - 1.0).abs() < f64::EPSILON, "{}", metric());
    evener.wait_for_log("alarm raised");

    wait_until(a_while, || {
        client.get("/").expect_status(200);
        alarms() == json!([])
    });
    assert!(metric() < 0.5, "{}", metric());
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
        assert_eq!(checks.len(), 6);
        checks[0]["figures"].clone()
    };
    wait_until(SOON, || figures()["waiting"] == 0);
    assert_eq!(figures(), json!({"picks": 7, "finished": 7, "given_up": 0, "waiting": 0}));
}

/// Of requests that are retried, given up, cut off, carried for long, and moved from one configuration and one
/// process to the next, none is ever called lost.
#[test]
fn a_busy_process_is_never_said_to_be_inconsistent() {
    let moody = Origin::serving(|request| match request.target.as_str() {
        "/late" => Reply::raw("").then_sleep(Duration::from_millis(50)).then(Reply::ok("late")),
        "/long" => Reply::ok(&"x".repeat(1 << 20)),
        "/socket?room=1" => Reply::echo_web_socket(request),
        _ if request.header("x-request-id").is_some_and(|id| id.starts_with(['0', '1'])) => Reply::reset(),
        _ => Reply::ok("ok"),
    });
    let other = Origin::serving(|request| match request.target.as_str() {
        "/socket?room=1" => Reply::echo_web_socket(request),
        _ => Reply::ok("ok"),
    });
    let routes = "[routes.all]\npool = \"app\"\n";
    let both = format!("{routes}{}", pool(&[&moody, &other], UNCHECKED));
    let one = format!("[routes.new]\npool = \"app\"\n{}", pool(&[&other], UNCHECKED));
    let evener = Evener::start(&both);
    let mut socket = open(&evener);
    echo(&mut socket, "before all of it");
    let (is_over, address) = (Arc::new(AtomicBool::new(false)), evener.address());
    let until_over = |act: fn(SocketAddr, &AtomicBool)| {
        let is_over = is_over.clone();
        Background::run(move || {
            while !is_over.load(Ordering::Relaxed) {
                act(address, &is_over);
            }
        })
    };
    let clients = [
        // Until its connection is closed, by the process that goes.
        until_over(|address, is_over| {
            let mut client = Client::connect(address);
            while !is_over.load(Ordering::Relaxed) && client.try_get("/").is_some() {}
        }),
        until_over(|address, _| {
            let mut client = Client::connect(address);
            client.start("GET", "/late", "", b"");
            thread::sleep(Duration::from_millis(3));
            client.reset();
        }),
        until_over(|address, _| {
            let mut client = Client::connect(address);
            client.start("GET", "/long", "", b"");
            drop(client.try_read_bytes(1));
            client.reset();
        }),
    ];
    for round in 0..40 {
        evener.rewrite(if round % 2 == 0 { &one } else { &both });
        evener.signal_serving("HUP");
        for _ in 0..5 {
            let answer = evener.admin().json("/v1/self-check");
            assert_eq!(answer["ok"], true, "round {round}: {answer}");
            let failures = answer["checks"].as_array().expect("checks").iter().map(|it| &it["failures"]);
            assert!(failures.clone().all(|none| *none == json!([])), "{answer}");
        }
        if round == 20 {
            evener.upgrade().expect_status(200);
        }
    }
    is_over.store(true, Ordering::Relaxed);
    clients.into_iter().for_each(Background::join);
    echo(&mut socket, "after all of it");
}
