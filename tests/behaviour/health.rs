//! Who may take a request: health checks, ejection, slow start, and what the side port says about it.

use std::thread;
use std::time::{Duration, Instant};

use crate::rig::{Evener, Origin, Reply, wait_until};

const SOON: Duration = Duration::from_secs(20);

/// Checks that are quick enough for a play, on `/healthz`. Their timeout is the default: a machine under load
/// answers late, and is not sick.
const QUICK: &str = r#"health_check = { path = "/healthz", interval = "200ms", fast_interval = "100ms", rise = 2, fall = 3 }"#;

fn pool(origins: &[&Origin], more: &str) -> Evener {
    let addresses: Vec<String> = origins.iter().map(|origin| format!("\"{}\"", origin.address())).collect();
    Evener::start(&format!("[pools.app]\nupstreams = [{}]\n{more}", addresses.join(", ")))
}

fn health(evener: &Evener, origin: &Origin) -> String {
    evener.admin().upstream("app", origin)["health"].as_str().unwrap_or_default().to_owned()
}

fn is_eligible(evener: &Evener, origin: &Origin) -> bool {
    evener.admin().upstream("app", origin)["eligible"] == true
}

/// zentinel#458: checks were configured, logged, and never sent.
#[test]
fn a_configured_check_really_probes() {
    let origin = Origin::answering("ok");
    let evener = pool(&[&origin], QUICK);
    origin.wait_for_probes(4);
    assert_eq!(health(&evener, &origin), "up");

    origin.fall_sick();
    wait_until(SOON, || health(&evener, &origin) == "down");
    evener.get("/").expect_status(503);
    origin.get_well();
    wait_until(SOON, || health(&evener, &origin) == "up");
    evener.get("/").expect_status(200);
}

#[test]
fn without_a_path_a_connection_is_the_check() {
    let origin = Origin::answering("ok");
    let evener = pool(
        &[&origin],
        r#"health_check = { interval = "200ms", fast_interval = "100ms", rise = 1, fall = 2 }"#,
    );
    wait_until(SOON, || origin.tcp_probes_seen() >= 3);

    origin.die();
    wait_until(SOON, || health(&evener, &origin) == "down");
    origin.listen_again();
    wait_until(SOON, || health(&evener, &origin) == "up");
}

#[test]
fn checks_can_be_turned_off() {
    let origin = Origin::answering("ok");
    let evener = pool(&[&origin], "health_check = { enabled = false }");
    thread::sleep(Duration::from_millis(300));
    assert_eq!((origin.probes_seen(), origin.tcp_probes_seen()), (0, 0));
    evener.get("/").expect_status(200);
}

#[test]
fn a_probe_asks_what_it_is_told_to() {
    let origin = Origin::answering("ok");
    let _evener = Evener::start(&format!(
        r#"[pools.app]
        upstreams = ["{}"]
        health_check = {{ path = "/healthz", host = "app.internal", headers = {{ x-probe = "yes" }} }}"#,
        origin.address()
    ));
    let probe = origin.probes().remove(0);
    assert_eq!(probe.method, "GET");
    assert_eq!(probe.values("host"), ["app.internal"]);
    assert_eq!(probe.values("x-probe"), ["yes"]);
}

#[test]
fn the_statuses_that_pass_are_as_configured() {
    let origin = Origin::answering("ok");
    origin.fall_sick();
    let evener = pool(&[&origin], r#"health_check = { path = "/healthz", status = [200, 503] }"#);
    assert_eq!(health(&evener, &origin), "up");
}

/// caddy#6152, traefik#12390, consul#1208: the opposite result must reset the run.
#[test]
fn one_failed_check_is_not_down() {
    let checks = std::sync::atomic::AtomicUsize::new(0);
    let origin = Origin::serving(move |request| match request.target.as_str() {
        // Two of three fail, but never three in a row.
        "/check" => match checks.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % 3 {
            0 => Reply::ok("well"),
            _ => Reply::status(503, "sick"),
        },
        _ => Reply::ok("ok"),
    });
    let evener = pool(&[&origin], &QUICK.replace("/healthz", "/check"));
    origin.wait_for_requests(12);
    assert!(!evener.log().contains("upstream is down"), "{}", evener.log());
    assert_eq!(health(&evener, &origin), "up");
    evener.get("/").expect_status(200);
}

/// traefik#13223, caddy#6410: until the first interval was over, the dead one took traffic.
#[test]
fn the_first_check_does_not_wait() {
    let (dead, alive) = (Origin::answering("dead"), Origin::answering("alive"));
    dead.fall_sick();
    let started = Instant::now();
    let evener = pool(&[&dead, &alive], r#"health_check = { path = "/healthz", interval = "30s" }"#);
    assert!(started.elapsed() < Duration::from_secs(25), "ready after {:?}", started.elapsed());
    for _ in 0..10 {
        assert_eq!(evener.get("/").expect_status(200).body(), "alive");
    }
    assert_eq!(dead.requests_seen(), 0);
}

/// caddy#7870: the verdict belonged to the address, not to the check.
#[test]
fn two_checks_of_one_address_are_two_verdicts() {
    let origin = Origin::serving(|request| match request.target.as_str() {
        "/broken" => Reply::status(500, "no"),
        _ => Reply::ok("ok"),
    });
    let evener = Evener::start(&format!(
        r#"
        [routes.good]
        pool = "good"
        [routes.bad]
        path_prefix = "/bad"
        pool = "bad"
        [pools.good]
        upstreams = ["{0}"]
        health_check = {{ path = "/healthz" }}
        [pools.bad]
        upstreams = ["{0}"]
        health_check = {{ path = "/broken" }}
        "#,
        origin.address()
    ));
    assert_eq!(evener.admin().upstream("good", &origin)["health"], "up");
    assert_eq!(evener.admin().upstream("bad", &origin)["eligible"], false);
    evener.get("/").expect_status(200);
    evener.get("/bad").expect_status(503);
}

#[test]
fn a_probe_that_hangs_is_a_failure_at_its_timeout() {
    let origin = Origin::serving(|request| match request.target.as_str() {
        "/hang" => Reply::raw("HTTP/1.1 200 OK\r\nContent-Len").then_hang(),
        _ => Reply::ok("ok"),
    });
    let evener = pool(
        &[&origin],
        r#"health_check = { path = "/hang", interval = "200ms", fast_interval = "100ms", timeout = "150ms", fall = 1 }"#,
    );
    wait_until(SOON, || health(&evener, &origin) == "down");
    let shown = evener.admin().upstream("app", &origin);
    assert_eq!(shown["last_check"]["ok"], false, "{shown}");
    assert!(shown["last_check"]["error"].is_string(), "{shown}");
}

/// pingap, finding 6: a refused connection was nobody's failure.
#[test]
fn refusing_connections_counts_as_failing() {
    let (refusing, other) = (Origin::answering("a"), Origin::answering("b"));
    let evener = pool(
        &[&refusing, &other],
        "health_check = { enabled = false }\nejection = { consecutive_failures = 3, base_duration = \"60s\", max_ejected = 0.5 }",
    );
    refusing.die();
    (0..20).for_each(|_| drop(evener.get("/").expect_status(200)));
    let shown = evener.admin().upstream("app", &refusing);
    assert_eq!(shown["eligible"], false, "{shown}");
    assert!(!shown["ejected_until"].is_null(), "{shown}");
    assert!(shown["why_not"].is_string(), "{shown}");
    evener.admin().expect_metric("evener_upstream_ejections_total", &["pool=\"app\""], 1.0);
}

#[test]
fn failing_answers_eject_and_time_readmits() {
    let (failing, other) = (Origin::serving(|_| Reply::status(500, "no")), Origin::answering("ok"));
    let ejected_for = |time: &str| {
        let ejection = "consecutive_failures = 3, max_ejected = 0.5, base_duration";
        pool(&[&failing, &other], &format!("ejection = {{ {ejection} = \"{time}\" }}"))
    };
    let evener = ejected_for("60s");
    (0..20).for_each(|_| drop(evener.get("/")));
    assert_eq!(failing.requests_seen(), 3, "ejected after the third");
    assert!(!is_eligible(&evener, &failing));

    let evener = ejected_for("500ms");
    wait_until(SOON, || {
        evener.get("/");
        !is_eligible(&evener, &failing)
    });
    failing.answer_by(|_| Reply::ok("ok again"));
    wait_until(SOON, || evener.get("/").expect_status(200).body() == "ok again");
    assert!(is_eligible(&evener, &failing));
}

/// pingap, finding 5: one bad answer in ten was enough.
#[test]
fn one_failure_in_ten_does_not_eject() {
    let count = std::sync::atomic::AtomicUsize::new(0);
    let origin = Origin::serving(move |_| {
        let turn = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if turn % 10 == 9 { Reply::status(500, "no") } else { Reply::ok("ok") }
    });
    let evener = pool(
        &[&origin],
        "ejection = { consecutive_failures = 2, base_duration = \"60s\", max_ejected = 1.0 }",
    );
    let failures = (0..200).filter(|_| evener.get("/").status() != 200).count();
    assert_eq!((failures, origin.requests_seen()), (20, 200));
}

/// envoy#14968, k3s#10240: everybody out means nobody served.
#[test]
fn ejection_never_empties_a_pool() {
    let origins: Vec<Origin> = (0..4).map(|_| Origin::serving(|_| Reply::status(503, "no"))).collect();
    let all: Vec<&Origin> = origins.iter().collect();
    let evener =
        pool(&all, "ejection = { consecutive_failures = 2, base_duration = \"60s\", max_ejected = 0.5 }");
    for _ in 0..60 {
        assert_eq!(evener.get("/").expect_status(503).body(), "no", "an answer of an upstream, not ours");
    }
    let out = origins.iter().filter(|origin| !is_eligible(&evener, origin)).count();
    assert_eq!(out, 2);
    evener.admin().expect_metric("evener_upstream_eligible", &["pool=\"app\""], 2.0);
}

/// Ejections are then taken back at once, and begin anew with every request: 800 lines a minute told of it.
#[test]
fn a_pool_of_which_nobody_is_well_does_not_flood_the_log() {
    let origins = [Origin::serving(|_| Reply::reset()), Origin::serving(|_| Reply::reset())];
    let evener = pool(
        &[&origins[0], &origins[1]],
        "ejection = { consecutive_failures = 1, base_duration = \"60s\", max_ejected = 0.5 }\n\
         health_check = { enabled = false }",
    );
    let started = Instant::now();
    let ejections = || evener.admin().metric("evener_upstream_ejections_total", &["pool=\"app\""]);
    while ejections() < 20.0 {
        evener.get("/").expect_status(502);
        assert!(started.elapsed() < SOON, "{} ejections", ejections());
    }
    evener.wait_for_log("upstream ejected");
    let told = evener.log().matches("upstream ejected").count();
    let spells = 1 + usize::try_from(started.elapsed().as_secs() / 10).unwrap();
    assert!(told <= origins.len() * spells, "{told}: {}", evener.log());
}

/// caddy#4792, #6135: the API said healthy, the traffic went elsewhere.
#[test]
fn eligible_in_the_api_means_gets_traffic() {
    let (one, two) = (Origin::answering("one"), Origin::answering("two"));
    let evener = pool(&[&one, &two], QUICK);
    let agrees = |origin: &Origin| {
        let eligible = is_eligible(&evener, origin);
        let before = origin.requests_seen();
        (0..6).for_each(|_| drop(evener.get("/").expect_status(200)));
        assert_eq!(eligible, origin.requests_seen() > before);
        eligible
    };
    assert!(agrees(&one) && agrees(&two));
    one.fall_sick();
    wait_until(SOON, || health(&evener, &one) == "down");
    assert!(!agrees(&one) && agrees(&two));
    one.get_well();
    wait_until(SOON, || health(&evener, &one) == "up");
    assert!(agrees(&one) && agrees(&two));
}

#[test]
fn a_recovered_upstream_comes_back_slowly() {
    let (returning, other) = (Origin::answering("returning"), Origin::answering("other"));
    returning.fall_sick();
    let evener = pool(&[&returning, &other], &format!("{QUICK}\nslow_start = \"10s\""));
    assert!(!is_eligible(&evener, &returning));
    // Whoever is alone in a pool is warm only when his own ramp is over.
    thread::sleep(Duration::from_millis(10_200));
    returning.get_well();
    wait_until(SOON, || is_eligible(&evener, &returning));

    // Not to the end of its ramp: without one it would get half of the requests, with it a sixth.
    let (started, mut sent) = (Instant::now(), 0);
    while sent < 200 && started.elapsed() < Duration::from_secs(4) {
        evener.get("/").expect_status(200);
        sent += 1;
    }
    let share = returning.requests_seen();
    assert!(5 * share < 2 * sent + 10, "{share} of {sent} at the beginning of its ramp");
}

#[test]
fn probes_are_counted_and_shown() {
    let origin = Origin::answering("ok");
    let evener = pool(&[&origin], QUICK);
    origin.wait_for_probes(3);
    wait_until(SOON, || {
        evener.admin().metric("evener_health_checks_total", &["pool=\"app\"", "result="]) >= 3.0
    });
    evener.admin().expect_metric("evener_upstream_up", &["pool=\"app\""], 1.0);
    let shown = evener.admin().upstream("app", &origin);
    assert_eq!(shown["last_check"]["ok"], true, "{shown}");
    assert!(shown["last_check"]["latency_ms"].is_number(), "{shown}");
}

#[test]
fn a_check_on_demand_is_answered_with_its_results() {
    let (well, sick) = (Origin::answering("a"), Origin::answering("b"));
    let evener = pool(&[&well, &sick], r#"health_check = { path = "/healthz", interval = "30s" }"#);
    sick.fall_sick();
    let probes = well.probes_seen();

    let answer = evener.admin().post("/v1/pools/app/health-check", "").expect_status(200);

    assert!(well.probes_seen() > probes && sick.probes_seen() > 0);
    let body = answer.body();
    assert!(body.contains(&well.address()) && body.contains(&sick.address()), "{body}");
    let shown = evener.admin().upstream("app", &sick);
    assert_eq!(shown["last_check"]["ok"], false, "{shown}");
}

#[test]
fn readiness_waits_for_the_first_round_of_probes() {
    let origin = Origin::answering("ok");
    origin.hold();
    let evener = Evener::start_unready(&format!(
        "[pools.app]\nupstreams = [\"{}\"]\nhealth_check = {{ path = \"/slow-check\", interval = \"60s\", timeout = \"60s\" }}",
        origin.address()
    ));
    origin.wait_for_request();
    wait_until(SOON, || evener.admin().try_get("/livez").is_some_and(|answer| answer.status() == 200));
    assert_eq!(evener.admin().get("/readyz").status(), 503);
    origin.release();
    wait_until(SOON, || evener.admin().get("/readyz").status() == 200);
    evener.get("/").expect_status(200);
}

/// pingap, finding 7: the first request after readmission was cut off by its client, and counted for ever.
#[test]
fn an_abandoned_trial_does_not_eject_for_ever() {
    let (failing, other) = (Origin::serving(|_| Reply::status(500, "no")), Origin::answering("ok"));
    let evener = pool(
        &[&failing, &other],
        "ejection = { consecutive_failures = 2, base_duration = \"500ms\", max_ejected = 0.5 }",
    );
    wait_until(SOON, || {
        evener.get("/");
        !is_eligible(&evener, &failing)
    });
    failing.answer_by(|_| Reply::ok("ok again"));
    wait_until(SOON, || is_eligible(&evener, &failing));

    failing.hold();
    let before = failing.requests_seen();
    wait_until(SOON, || {
        let mut client = evener.connect();
        client.start("GET", "/", "", b"");
        thread::sleep(Duration::from_millis(30));
        client.reset();
        failing.requests_seen() > before
    });
    failing.release();

    wait_until(SOON, || evener.get("/").expect_status(200).body() == "ok again");
    assert!(is_eligible(&evener, &failing));
}

#[test]
fn the_log_tells_of_changes_and_of_nothing_else() {
    let origin = Origin::answering("ok");
    let evener = pool(&[&origin], QUICK);
    let lines = || evener.log().lines().count();
    let at_start = lines();
    (0..20).for_each(|_| drop(evener.get("/").expect_status(200)));
    origin.wait_for_probes(origin.probes_seen() + 3);
    assert_eq!(lines(), at_start, "a steady state is silent:\n{}", evener.log());

    origin.fall_sick();
    wait_until(SOON, || health(&evener, &origin) == "down");
    wait_until(SOON, || lines() > at_start);
    assert!(evener.log().contains(&origin.address()), "{}", evener.log());
}

/// Asked in another way, an upstream is asked at once, and is what it was until enough answers say otherwise.
#[test]
fn a_changed_check_asks_at_once_and_keeps_the_verdict() {
    let check = |timeout: &str| {
        format!(
            r#"health_check = {{ path = "/healthz", interval = "1h", fast_interval = "1h", timeout = "{timeout}", fall = 3 }}"#
        )
    };
    let (origin, other) = (Origin::answering("ok"), Origin::answering("other"));
    let file = |checked: &str, unchanged: &str| {
        format!(
            "[pools.app]\nupstreams = [\"{}\"]\n{checked}\n[pools.other]\nupstreams = [\"{}\"]\n{unchanged}\n\
             [routes.app]\npool = \"app\"\n[routes.other]\npath_prefix = \"/other\"\npool = \"other\"",
            origin.address(),
            other.address()
        )
    };
    let evener = Evener::start(&file(&check("5s"), &check("5s")));
    assert_eq!((origin.probes_seen(), other.probes_seen()), (1, 1));

    origin.fall_sick();
    evener.reload(&file(&check("4s"), &check("5s")));
    wait_until(SOON, || origin.probes_seen() == 2);
    wait_until(SOON, || evener.admin().upstream("app", &origin)["last_check"]["ok"] == false);
    assert_eq!(health(&evener, &origin), "up");
    evener.get("/").expect_status(200);
    assert_eq!(other.probes_seen(), 1, "a pool that did not change is left alone");
}
