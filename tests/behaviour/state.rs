//! What a change must not forget: live state over reloads, what was changed at run time over restarts.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::rig::{Background, Client, Evener, Load, Origin, run_to_end, wait_until};

const OVERRIDES: &str = "evener.toml.overrides.toml";
const UNCHECKED: &str = "health_check = { enabled = false }";

fn pool(origins: &[&Origin], more: &str) -> String {
    let upstreams: Vec<String> = origins.iter().map(|origin| format!("\"{}\"", origin.address())).collect();
    format!("[pools.app]\nupstreams = [{}]\n{more}", upstreams.join(", "))
}

/// With a weight for each.
fn weighted(origins: &[(&Origin, u16)], more: &str) -> String {
    let upstream = |(origin, weight): &(&Origin, u16)| {
        format!("{{ address = \"{}\", weight = {weight} }}", origin.address())
    };
    let upstreams: Vec<String> = origins.iter().map(upstream).collect();
    format!("[pools.app]\nupstreams = [{}]\n{more}", upstreams.join(", "))
}

/// An overrides file with one weight.
fn weight_override(origin: &Origin, value: u16, file: u16) -> String {
    format!(
        "[[overrides]]\npool = \"app\"\nupstream = \"{}\"\nsetting = \"weight\"\nvalue = {value}\nfile = {file}\n\
         by = \"ops\"\nat = \"2026-11-21T08:10:02.123Z\"\n",
        origin.address()
    )
}

fn upstream_path(origin: &Origin) -> String {
    format!("/v1/pools/app/upstreams/{}", origin.address_in_a_path())
}

/// apisix#13666: after a reload, leases were given back to a picker that nobody read.
#[test]
fn a_lease_is_given_back_where_it_is_counted() {
    let origin = Origin::answering("ok");
    let evener = Evener::start(&pool(&[&origin], ""));
    origin.hold();
    let held = evener.get_in_background("/held");
    origin.wait_for_request();
    evener.reload(&pool(&[&origin], "timeouts = { read = \"7s\" }"));
    let in_flight = || evener.admin().upstream("app", &origin)["in_flight"].as_u64();
    assert_eq!(in_flight(), Some(1));
    origin.release();
    held.join().expect_status(200);
    wait_until(Duration::from_secs(10), || in_flight() == Some(0));
    evener.get("/").expect_status(200);
    wait_until(Duration::from_secs(10), || in_flight() == Some(0));
}

/// Pingora's balancer takes address and weight together for identity.
#[test]
fn a_new_weight_keeps_old_knowledge() {
    new_weights_keep_old_knowledge(|evener, busy, sick, check| {
        evener.reload(&weighted(&[(busy, 5), (sick, 3)], check));
    });
}

#[test]
fn a_new_weight_by_hand_keeps_old_knowledge() {
    new_weights_keep_old_knowledge(|evener, busy, sick, _| {
        evener.admin().patch(&upstream_path(busy), "{\"weight\": 5}").expect_status(200);
        evener.admin().patch(&upstream_path(sick), "{\"weight\": 3}").expect_status(200);
    });
}

fn new_weights_keep_old_knowledge(change: impl Fn(&Evener, &Origin, &Origin, &str)) {
    let check = "health_check = { interval = \"60s\", fast_interval = \"60s\", path = \"/healthz\" }";
    let (busy, sick) = (Origin::answering("busy"), Origin::answering("sick"));
    sick.fall_sick();
    let evener = Evener::start(&weighted(&[(&busy, 1), (&sick, 1)], check));
    (0..10).for_each(|_| drop(evener.get("/").expect_status(200)));
    busy.hold();
    let held: Vec<_> = (0..3).map(|_| evener.get_in_background("/held")).collect();
    busy.wait_for_requests(13);
    let before = evener.admin().upstream("app", &busy);
    sick.get_well();

    change(&evener, &busy, &sick, check);
    let after = evener.admin().upstream("app", &busy);
    assert_eq!(after["weight"], 5);
    for same in ["in_flight", "requests", "errors", "health", "last_check"] {
        assert_eq!(after[same], before[same], "{same}");
    }
    assert_eq!(after["latency_ms"]["p50"], before["latency_ms"]["p50"]);
    assert_eq!(after["in_flight"], 3);
    let after = evener.admin().upstream("app", &sick);
    assert_eq!((&after["weight"], &after["health"]), (&3.into(), &"down".into()));

    busy.release();
    held.into_iter().for_each(|request| drop(request.join().expect_status(200)));
    wait_until(Duration::from_secs(10), || evener.admin().upstream("app", &busy)["in_flight"] == 0);
}

/// pingap, finding 11: whoever was ejected from an edited pool was back at once.
#[test]
fn an_edited_pool_keeps_what_it_knew() {
    let (dead, well) = (Origin::absent(), Origin::answering("well"));
    let more = format!("{UNCHECKED}\nejection = {{ consecutive_failures = 2, base_duration = \"10m\" }}");
    let evener = Evener::start(&pool(&[&dead, &well], &more));
    let is_ejected = || !evener.admin().upstream("app", &dead)["ejected_until"].is_null();
    wait_until(Duration::from_secs(20), || {
        evener.get("/").expect_status(200);
        is_ejected()
    });
    dead.listen_again();
    evener.reload(&pool(&[&dead, &well], &format!("{more}\ntimeouts = {{ read = \"7s\" }}")));
    assert!(is_ejected());
    (0..20).for_each(|_| assert_eq!(evener.get("/").body(), "well"));
}

/// traefik#8787: with a reload between every two requests all went to the first upstream.
#[test]
fn reloading_each_time_still_rotates() {
    let origins: Vec<Origin> = (0..4).map(|_| Origin::answering("ok")).collect();
    let all: Vec<&Origin> = origins.iter().collect();
    let evener = Evener::start(&pool(&all, UNCHECKED));
    for turn in 0..40 {
        evener.get("/").expect_status(200);
        evener.reload(&pool(&all, &format!("{UNCHECKED}\ntimeouts = {{ read = \"{}s\" }}", 60 + turn)));
    }
    let shares: Vec<usize> = origins.iter().map(Origin::requests_seen).collect();
    assert_eq!(shares, [10; 4]);
}

/// pingap and Zentinel publish routes and pools one after the other.
#[test]
fn no_request_sees_half_a_reload() {
    let (one, two) = (Origin::answering("one"), Origin::answering("two"));
    let pair = |name: &str, origin: &Origin| {
        format!(
            "[routes.all]\npool = \"{name}\"\nresponse_headers = {{ set = {{ x-pair = \"{name}\" }} }}\n\
             [pools.{name}]\nupstreams = [\"{}\"]\n{UNCHECKED}",
            origin.address()
        )
    };
    let (first, second) = (pair("one", &one), pair("two", &two));
    let evener = Evener::start(&first);
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (stop, address) = (stop.clone(), evener.address());
            Background::run(move || {
                let mut client = Client::connect(address);
                while !stop.load(Ordering::Relaxed) {
                    let answer = client.get("/").expect_status(200);
                    assert_eq!(answer.header("x-pair"), Some(answer.body().as_str()));
                }
            })
        })
        .collect();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) {
        evener.reload(&second);
        evener.reload(&first);
    }
    stop.store(true, Ordering::Relaxed);
    clients.into_iter().for_each(Background::join);
    assert!(one.requests_seen() > 0 && two.requests_seen() > 0);
}

/// caddy#2903, #4380, #6385, traefik#6962: what was changed by hand was gone after a restart, or the file
/// was rewritten without its comments.
#[test]
fn an_override_lasts_and_is_shown() {
    let (one, two) = (Origin::answering("one"), Origin::answering("two"));
    let mut evener = Evener::start(&pool(&[&one, &two], ""));
    let text = evener.file("evener.toml").expect("a file") + "# a comment\n";
    fs::write(evener.path("evener.toml"), &text).expect("write");
    evener.admin().patch(&upstream_path(&one), "{\"weight\": 5}").expect_status(200);
    evener.admin().patch(&upstream_path(&two), "{\"state\": \"drain\"}").expect_status(200);
    let holds = |evener: &Evener| {
        assert_eq!(evener.admin().upstream("app", &one)["weight"], 5);
        assert_eq!(evener.admin().upstream("app", &two)["state"], "drain");
        (0..4).for_each(|_| assert_eq!(evener.get("/").body(), "one"));
        let shown = evener.admin().json("/v1/overrides");
        let settings: Vec<_> =
            shown["overrides"].as_array().expect("a list").iter().map(|one| one["setting"].clone()).collect();
        let mut expected = vec![(one.address(), "weight"), (two.address(), "state")];
        expected.sort();
        assert_eq!(settings, expected.into_iter().map(|(_, setting)| setting).collect::<Vec<_>>());
    };
    holds(&evener);
    evener.admin().post("/v1/reload", "").expect_status(200);
    holds(&evener);
    evener.restart();
    holds(&evener);
    evener.wait_for_log("changed at run time, not as in the file");
    evener.kill();
    evener.start_again();
    holds(&evener);
    assert_eq!(evener.file("evener.toml"), Some(text));
}

/// haproxy#1412, #953: a state file overruled the configuration that the operator had just edited.
#[test]
fn a_changed_file_beats_an_override_aloud() {
    let (one, two) = (Origin::answering("one"), Origin::answering("two"));
    let overrides = weight_override(&one, 0, 1);
    let mut evener = Evener::start_beside(&weighted(&[(&one, 1), (&two, 1)], ""), &[(OVERRIDES, &overrides)]);
    wait_until(Duration::from_secs(20), || {
        evener.admin().try_get("/readyz").is_some_and(|answer| answer.status() == 200)
    });
    assert_eq!(evener.admin().upstream("app", &one)["weight"], 0);
    (0..6).for_each(|_| assert_eq!(evener.get("/").body(), "two"));
    assert_eq!(evener.file(OVERRIDES), Some(overrides), "nobody changed anything yet");

    let text = evener.file("evener.toml").expect("a file");
    let edited = text.replacen("weight = 1", "weight = 3", 1);
    assert_ne!(edited, text);
    fs::write(evener.path("evener.toml"), edited).expect("write");
    let applied = evener.admin().post("/v1/reload", "").expect_status(200).json();
    let dropped = &applied["overrides_dropped"][0];
    assert_eq!(dropped["upstream"], one.address().as_str(), "{applied}");
    assert_eq!(dropped["why"], "the file was changed, and says 3 now", "{applied}");
    evener.wait_for_log("override dropped");
    assert_eq!(evener.admin().upstream("app", &one)["weight"], 3);
    assert_eq!(evener.file(OVERRIDES), None);

    // It does not come back when the file says again what it said then.
    fs::write(evener.path("evener.toml"), text).expect("write");
    evener.restart();
    assert_eq!(evener.admin().upstream("app", &one)["weight"], 1);
}

#[test]
fn a_file_that_was_changed_while_nobody_ran_beats_an_override_too() {
    let origin = Origin::answering("ok");
    let overrides = weight_override(&origin, 7, 1);
    let evener = Evener::start_beside(&weighted(&[(&origin, 3)], ""), &[(OVERRIDES, &overrides)]);
    wait_until(Duration::from_secs(20), || evener.admin().try_get("/livez").is_some());
    assert_eq!(evener.admin().upstream("app", &origin)["weight"], 3);
    evener.wait_for_log("override dropped");
    assert_eq!(evener.file(OVERRIDES), None);
}

const FILE: &str =
    "[listeners.http]\naddress = \"127.0.0.1:8080\"\n[pools.app]\nupstreams = [\"127.0.0.1:9001\"]\n";

#[test]
fn broken_overrides_are_no_reason_to_start_without_them() {
    for broken in
        ["[[overrides]]\npool = ", "[[overrides]]\npool = \"app\"\n", "overrides = \"none\"", "\u{0}"]
    {
        for command in [&["run", "--config", "evener.toml"][..], &["check", "evener.toml"]] {
            let finished = run_to_end(command, &[("evener.toml", FILE), (OVERRIDES, broken)]);
            assert_eq!(finished.code, Some(1), "{finished:?}");
            assert!(finished.stderr.contains("help: mend it, or start without"), "{finished:?}");
        }
    }
}

#[test]
fn a_check_tells_what_becomes_of_the_overrides() {
    let one = |setting: &str, value: &str, file: &str| {
        format!(
            "[[overrides]]\npool = \"app\"\nupstream = \"127.0.0.1:9001\"\nsetting = \"{setting}\"\nvalue = {value}\n\
             file = {file}\nby = \"ops\"\nat = \"2026-11-21T08:10:02.123Z\"\n"
        )
    };
    let overrides = one("state", "\"drain\"", "\"ready\"") + &one("weight", "5", "2");
    let finished = run_to_end(&["check", "evener.toml"], &[("evener.toml", FILE), (OVERRIDES, &overrides)]);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert_eq!(
        finished.stdout.trim_end(),
        "evener.toml is valid: 1 listener, 1 route, 1 pool\n\
         with what was changed at run time: 1 in force, 1 ended by this file\n  \
         ends: pool `app`, upstream 127.0.0.1:9001: `weight` 5: the file was changed, and says 1 now"
    );
}

/// haproxy#740, #954, #2483: counters fell at a reload, and rates went through the roof.
#[test]
fn counters_only_grow() {
    let (one, two) = (Origin::answering("one"), Origin::answering("two"));
    let evener = Evener::start(&pool(&[&one, &two], ""));
    let load = Load::on(evener.address(), 4);
    let mut before = counters(&evener);
    for turn in 0..10 {
        evener.reload(&weighted(
            &[(&one, 1 + turn), (&two, 1)],
            &format!("timeouts = {{ read = \"{}s\" }}", 60 + turn),
        ));
        let after = counters(&evener);
        for (series, value) in before {
            let now = after.get(&series).copied();
            assert!(now.is_some_and(|now| now >= value), "{series} fell from {value} to {now:?}");
        }
        before = after;
    }
    assert_eq!(load.stop().into_keys().collect::<Vec<_>>(), [200]);
    assert!(before.len() > 50, "{} series", before.len());
}

/// Every series that may only grow.
fn counters(evener: &Evener) -> BTreeMap<String, f64> {
    let page = evener.admin().get("/metrics").expect_status(200).body();
    let kinds: BTreeMap<&str, &str> =
        page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let grows = |series: &str| {
        let family = series.split('{').next().unwrap_or_default();
        let stem = ["_bucket", "_count", "_sum"].iter().find_map(|tail| family.strip_suffix(tail));
        kinds.get(family) == Some(&"counter")
            || stem.is_some_and(|stem| kinds.get(stem) == Some(&"histogram"))
    };
    let samples = page.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
    samples
        .filter(|(series, _)| grows(series))
        .map(|(series, value)| (series.to_owned(), value.parse().expect("a number")))
        .collect()
}

/// traefik#12170: the verdict of a check that was removed went on to hold.
#[test]
fn a_removed_check_leaves_nothing_behind() {
    let check = "health_check = { interval = \"60s\", fast_interval = \"60s\", path = \"/healthz\" }";
    let (sick, well) = (Origin::answering("sick"), Origin::answering("well"));
    sick.fall_sick();
    let evener = Evener::start(&pool(&[&sick, &well], check));
    let checks =
        |evener: &Evener| evener.admin().get("/metrics").body().contains("evener_health_checks_total{");
    assert_eq!(evener.admin().upstream("app", &sick)["health"], "down");
    assert!(checks(&evener));

    evener.reload(&pool(&[&sick, &well], UNCHECKED));
    let shown = evener.admin().upstream("app", &sick);
    assert_eq!((&shown["health"], &shown["eligible"]), (&"unknown".into(), &true.into()), "{shown}");
    assert!(shown["last_check"].is_null(), "{shown}");
    assert!(!checks(&evener));
    wait_until(Duration::from_secs(10), || evener.get("/").expect_status(200).body() == "sick");

    // A new check asks anew, and does not believe the old one.
    sick.get_well();
    evener.reload(&pool(&[&sick, &well], check));
    assert_eq!(evener.admin().upstream("app", &sick)["health"], "up");
}

/// A write beyond the limit would end the process (SIGXFSZ), with every request in flight.
#[test]
fn a_history_that_does_not_fit_costs_no_reload() {
    let origin = Origin::answering("ok");
    let mut evener = Evener::start_with_small_files(&pool(&[&origin], ""), 128);
    let text = evener.file("evener.toml").expect("a file");
    fs::write(evener.path("evener.toml"), text + &"# filler, and more of it\n".repeat(20_000))
        .expect("write");
    let applied = evener.admin().post("/v1/reload", "").expect_status(200).json();
    assert_eq!((&applied["changed"], &applied["generation"]), (&true.into(), &2.into()));
    evener.wait_for_log("history kept in memory only");
    evener.get("/").expect_status(200);
    assert!(evener.ends_within(Duration::from_millis(1)).is_none());
}

#[test]
fn a_full_disk_refuses_the_change_and_nothing_else() {
    let origin = Origin::answering("ok");
    let mut evener = Evener::start_with_small_files(&pool(&[&origin], ""), 24);
    let text = evener.file("evener.toml").expect("a file");
    let load = Load::on(evener.address(), 2);
    let large = text.clone() + &"# filler, and more of it\n".repeat(1_800);
    let any = "If-Match: *\r\nContent-Type: application/toml\r\n";
    let refused = evener.admin().request("PUT", "/v1/config", any, &large).expect_status(507).json();
    assert!(refused["help"].as_str().is_some_and(|help| help.contains("ulimit -f")), "{refused}");
    assert_eq!(evener.generation(), 1);
    assert_eq!(evener.file("evener.toml").as_deref(), Some(text.as_str()));
    let small = text + "# fits\n";
    evener.admin().request("PUT", "/v1/config", any, &small).expect_status(200);
    assert_eq!(evener.file("evener.toml"), Some(small));
    assert_eq!(load.stop().into_keys().collect::<Vec<_>>(), [200]);
    assert!(evener.ends_within(Duration::from_millis(1)).is_none());
}

#[test]
fn generations_go_on_after_a_restart() {
    let origin = Origin::answering("ok");
    let mut evener = Evener::start(&pool(&[&origin], ""));
    let text = evener.file("evener.toml").expect("a file") + "# another text\n";
    let any = "If-Match: *\r\nContent-Type: application/toml\r\n";
    evener.admin().request("PUT", "/v1/config", any, &text).expect_status(200);
    assert_eq!(evener.generation(), 2);
    evener.kill();
    evener.start_again();
    assert_eq!(evener.generation(), 2, "the same text has the same number");
    fs::write(evener.path("evener.toml"), text + "# and another\n").expect("write");
    for _ in 0..2 {
        evener.kill();
        evener.start_again();
        assert_eq!(evener.generation(), 3);
    }
}
