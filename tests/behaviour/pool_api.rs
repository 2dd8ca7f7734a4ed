//! Pools and upstreams are changed while they run: by the side port, without touching the file.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::rig::{Background, Client, DefaultPorts, Evener, Load, Origin, reserve_port, wait_until};
use crate::websocket;

const SOON: Duration = Duration::from_secs(20);

/// The one pool of most plays.
const POOL: &str = "/v1/pools/app";
const UPSTREAMS: &str = "/v1/pools/app/upstreams";

const STRATEGIES: [&str; 5] =
    ["round_robin", "least_connections", "latency_weighted", "random_two", "consistent_hash"];

fn addresses(origins: &[&Origin]) -> String {
    origins.iter().map(|origin| format!("\"{}\"", origin.address())).collect::<Vec<_>>().join(", ")
}

/// One pool `app` of these; `more` are further lines of the pool.
fn pool(origins: &[&Origin], more: &str) -> Evener {
    Evener::start(&format!("[pools.app]\nupstreams = [{}]\n{more}", addresses(origins)))
}

fn path(origin: &Origin) -> String {
    format!("{UPSTREAMS}/{}", origin.address_in_a_path())
}

/// A write that must succeed, and its answer.
#[track_caller]
fn write(evener: &Evener, method: &str, path: &str, body: &Value) -> Value {
    let answer = evener.admin().write(method, path, "", &body.to_string());
    assert!(matches!(answer.status(), 200 | 201), "{answer}");
    answer.json()
}

#[track_caller]
fn patch(evener: &Evener, origin: &Origin, body: &Value) -> Value {
    write(evener, "PATCH", &path(origin), body)
}

/// `…/drain?wait=`, which must succeed.
#[track_caller]
fn drain(evener: &Evener, origin: &Origin, wait: &str) -> Value {
    evener.admin().post(&format!("{}/drain?wait={wait}", path(origin)), "").expect_status(200).json()
}

fn in_flight(evener: &Evener, origin: &Origin) -> u64 {
    evener.admin().upstream("app", origin)["in_flight"].as_u64().unwrap_or(u64::MAX)
}

fn tag(evener: &Evener, path: &str) -> String {
    evener.admin().get(path).expect_status(200).header("etag").expect("an entity tag").to_owned()
}

fn send(evener: &Evener, requests: usize) {
    let mut client = evener.connect();
    (0..requests).for_each(|_| drop(client.get("/").expect_status(200)));
}

/// Changes something while clients send one request after another, none of which may fail.
fn under_load(evener: &Evener, change: impl FnOnce()) {
    let load = Load::on(evener.address(), 4);
    change();
    let answers = load.stop();
    assert!(answers.keys().eq([&200]), "{answers:?}");
}

#[test]
fn a_weight_set_while_running_shifts_the_traffic() {
    let (one, two) = (Origin::answering("one"), Origin::answering("two"));
    let evener = pool(&[&one, &two], "");
    let answer = patch(&evener, &one, &json!({ "weight": 3 }));
    assert_eq!((&answer["weight"], &answer["source"]), (&json!(3), &json!("override")));
    assert_eq!(
        (&answer["applied"]["generation"], &answer["applied"]["persisted"]),
        (&json!(2), &json!(true))
    );
    send(&evener, 40);
    assert_eq!((one.requests_seen(), two.requests_seen()), (30, 10));

    patch(&evener, &one, &json!({ "weight": 0 }));
    send(&evener, 10);
    assert_eq!((one.requests_seen(), two.requests_seen()), (30, 20));
    assert_eq!(evener.admin().upstream("app", &one)["why_not"], "weight_0");
}

#[test]
fn a_new_weight_keeps_old_knowledge() {
    let (one, two) = (Origin::answering("one"), Origin::answering("two"));
    let evener = pool(&[&one, &two], "");
    send(&evener, 20);
    wait_until(SOON, || evener.admin().upstream("app", &one)["latency_ms"]["ewma"].is_number());
    one.hold();
    let held: Vec<_> = (0..2).map(|_| evener.get_in_background("/")).collect();
    one.wait_for_requests(11);
    wait_until(SOON, || in_flight(&evener, &two) == 0 && in_flight(&evener, &one) == 1);

    let before = evener.admin().upstream("app", &one);
    let after = patch(&evener, &one, &json!({ "weight": 9 }));
    for member in ["health", "in_flight", "requests", "errors"] {
        assert_eq!(before[member], after[member], "{member}");
    }
    assert!(after["latency_ms"]["ewma"].is_number(), "{after}");
    assert_eq!(after["applied"]["carried"], 2);
    one.release();
    held.into_iter().for_each(|request| drop(request.join().expect_status(200)));
    wait_until(SOON, || in_flight(&evener, &one) == 0);
}

#[test]
fn a_drained_upstream_gets_nothing_new_and_finishes_what_it_has() {
    let (old, new) = (Origin::answering("old"), Origin::answering("new"));
    let evener = pool(&[&old, &new], "strategy = \"least_connections\"");
    old.hold();
    new.hold();
    let held: Vec<_> = (0..4).map(|_| evener.get_in_background("/")).collect();
    old.wait_for_requests(2);
    new.wait_for_requests(2);

    let answer = patch(&evener, &old, &json!({ "state": "drain" }));
    assert_eq!((&answer["state"], &answer["why_not"]), (&json!("drain"), &json!("draining")));
    assert_eq!(answer["in_flight"], 2);
    new.release();
    send(&evener, 20);
    assert_eq!(old.requests_seen(), 2);

    old.release();
    let bodies: Vec<String> =
        held.into_iter().map(|request| request.join().expect_status(200).body()).collect();
    assert_eq!(bodies.iter().filter(|body| *body == "old").count(), 2, "{bodies:?}");

    patch(&evener, &old, &json!({ "state": "ready" }));
    wait_until(SOON, || {
        send(&evener, 2);
        old.requests_seen() > 2
    });
}

#[test]
fn a_websocket_outlives_the_drain_of_its_upstream() {
    let (origin, other) = (websocket::echoing(), Origin::answering("other"));
    let evener = pool(&[&origin], "");
    let mut socket = websocket::open(&evener);
    websocket::echo(&mut socket, "before");
    write(&evener, "POST", UPSTREAMS, &json!(other.address()));

    patch(&evener, &origin, &json!({ "state": "drain" }));
    websocket::echo(&mut socket, "while draining");
    assert_eq!(drain(&evener, &origin, "100ms")["safe_to_stop"], false);
    patch(&evener, &origin, &json!({ "state": "maintenance" }));
    websocket::echo(&mut socket, "in maintenance");
    assert_eq!(drain(&evener, &origin, "0s")["in_flight"], 1);
    assert_eq!(evener.admin().upstream("app", &origin)["state"], "maintenance", "a drain would be less");
    drop(socket);
    assert_eq!(drain(&evener, &origin, "60s")["safe_to_stop"], true);
}

#[test]
fn maintenance_ends_the_health_checks_at_once() {
    let (out, clock) = (Origin::answering("out"), Origin::answering("clock"));
    let check = "health_check = { path = \"/healthz\", interval = \"100ms\", fast_interval = \"100ms\" }";
    let evener = pool(&[&out, &clock], check);
    out.wait_for_probes(3);
    let answer = patch(&evener, &out, &json!({ "state": "maintenance" }));
    assert_eq!((&answer["state"], &answer["why_not"]), (&json!("maintenance"), &json!("maintenance")));
    // The probes follow a moment after the answer.
    let goes_on = clock.probes_seen();
    clock.wait_for_probes(goes_on + 3);
    let seen = out.probes_seen();
    clock.wait_for_probes(goes_on + 10);
    evener.admin().post("/v1/pools/app/health-check", "").expect_status(200);
    assert_eq!(out.probes_seen(), seen);
    send(&evener, 10);
    assert_eq!(out.requests_seen(), 0);
}

/// The interval is longer than any play: whoever is asked is asked at once.
#[test]
fn what_comes_back_from_maintenance_is_asked_at_once_and_before_it_serves() {
    let (out, stays) = (Origin::answering("out"), Origin::answering("stays"));
    let check = "health_check = { path = \"/healthz\", interval = \"10m\", fast_interval = \"10m\" }";
    let evener = pool(&[&out, &stays], check);
    assert_eq!(out.probes_seen(), 1);
    patch(&evener, &out, &json!({ "state": "maintenance" }));
    out.fall_sick();
    let answer = patch(&evener, &out, &json!({ "state": "ready" }));
    assert_eq!(answer["applied"]["reset"][0]["what"], "health", "{answer}");
    out.wait_for_probes(2);
    wait_until(SOON, || evener.admin().upstream("app", &out)["health"] == "down");
    send(&evener, 10);
    assert_eq!(out.requests_seen(), 0, "it was up before the maintenance, and nobody knew since");

    patch(&evener, &out, &json!({ "state": "maintenance" }));
    out.get_well();
    patch(&evener, &out, &json!({ "state": "ready" }));
    wait_until(SOON, || evener.admin().upstream("app", &out)["eligible"] == true);
    send(&evener, 10);
    assert!(out.requests_seen() > 0);
}

#[test]
fn an_upstream_is_added_under_load() {
    let (first, second) = (Origin::answering("first"), Origin::answering("second"));
    let evener = pool(&[&first], "health_check = { path = \"/healthz\" }");
    under_load(&evener, || {
        let admin = evener.admin();
        let body = json!({ "address": second.address(), "weight": 2, "max_connections": 50 });
        let answer = admin.write("POST", UPSTREAMS, "", &body.to_string()).expect_status(201);
        assert_eq!(answer.header("etag"), Some(&*tag(&evener, POOL)));
        let added = &answer.json()["applied"]["added"];
        assert_eq!(added, &json!([{ "pool": "app", "address": second.address() }]));
        let location = answer.header("location").expect("where it is").to_owned();
        let shown = admin.json(&location);
        assert_eq!((&shown["weight"], &shown["max_connections"]), (&json!(2), &json!(50)));
        assert_eq!((&shown["address"], &shown["source"]), (&json!(second.address()), &json!("override")));
        wait_until(SOON, || second.requests_seen() > 20);
    });
    assert!(second.probes_seen() > 0, "asked before it served");
    assert_eq!(evener.admin().json(UPSTREAMS)["upstreams"].as_array().map(Vec::len), Some(2));
}

#[test]
fn an_added_upstream_serves_no_request_before_it_passes_a_check() {
    let (first, second) = (Origin::answering("first"), Origin::answering("second"));
    second.fall_sick();
    let evener =
        pool(&[&first], "health_check = { path = \"/healthz\", fast_interval = \"100ms\", rise = 1 }");
    write(&evener, "POST", UPSTREAMS, &json!([second.address()]));
    second.wait_for_probes(3);
    send(&evener, 10);
    assert_eq!(second.requests_seen(), 0);
    second.get_well();
    wait_until(SOON, || {
        send(&evener, 2);
        second.requests_seen() > 0
    });
}

#[test]
fn an_upstream_is_removed_under_load() {
    let (stays, goes) = (Origin::answering("stays"), Origin::answering("goes"));
    let evener = pool(&[&stays, &goes], "");
    under_load(&evener, || {
        goes.wait_for_requests(20);
        let answer = evener.admin().write("DELETE", &path(&goes), "", "").expect_status(200);
        assert_eq!(answer.header("etag"), Some(&*tag(&evener, POOL)));
        assert_eq!(answer.json()["applied"]["removed"][0]["address"], goes.address());
        let seen = stays.requests_seen();
        stays.wait_for_requests(seen + 50);
    });
    let seen = goes.requests_seen();
    send(&evener, 20);
    assert_eq!(goes.requests_seen(), seen);
    evener.admin().get(&path(&goes)).expect_status(404);
}

#[test]
fn a_removed_upstream_finishes_what_it_has() {
    let (stays, goes) = (Origin::answering("stays"), Origin::answering("goes"));
    let evener = pool(&[&goes], "");
    goes.hold();
    let held: Vec<_> = (0..3).map(|_| evener.get_in_background("/")).collect();
    goes.wait_for_requests(3);
    write(&evener, "POST", UPSTREAMS, &json!(stays.address()));
    let answer = evener.admin().write("DELETE", &path(&goes), "", "").expect_status(200).json();
    assert_eq!((&answer["in_flight"], &answer["address"]), (&json!(3), &json!(goes.address())));
    send(&evener, 5);

    // Back again, it is a new one; what the old one still has is not forgotten.
    write(&evener, "POST", UPSTREAMS, &json!(goes.address()));
    let report = drain(&evener, &goes, "0s");
    assert_eq!((&report["in_flight"], &report["in_flight_elsewhere"]), (&json!(0), &json!(3)), "{report}");
    assert_eq!(report["safe_to_stop"], false);
    goes.release();
    held.into_iter().for_each(|request| drop(request.join().expect_status(200)));
    assert_eq!(drain(&evener, &goes, "60s")["safe_to_stop"], true);
}

#[test]
fn all_upstreams_are_replaced_under_load() {
    let [one, two, three, four] = ["one", "two", "three", "four"].map(Origin::answering);
    let evener = pool(&[&one, &two], "health_check = { path = \"/healthz\" }");
    under_load(&evener, || {
        two.wait_for_requests(20);
        let before = evener.admin().upstream("app", &two)["requests"].as_u64();
        let list = json!({ "upstreams": [two.address(), { "address": three.address(), "weight": 4 }] });
        let answer = write(&evener, "PUT", UPSTREAMS, &list)["applied"].clone();
        assert_eq!(
            (&answer["carried"], &answer["removed"][0]["address"]),
            (&json!(1), &json!(one.address()))
        );
        assert!(evener.admin().upstream("app", &two)["requests"].as_u64() >= before, "it is known as before");
        wait_until(SOON, || three.requests_seen() > 20);
        // Nobody stays: requests wait for the first check of the new ones.
        write(&evener, "PUT", UPSTREAMS, &json!([four.address()]));
        wait_until(SOON, || four.requests_seen() > 20);
    });
}

#[test]
fn the_strategy_is_switched_under_load() {
    let (one, two) = (Origin::answering("one"), Origin::answering("two"));
    let evener = pool(&[&one, &two], "");
    under_load(&evener, || {
        for strategy in STRATEGIES.iter().cycle().skip(1).take(10) {
            let hashes = *strategy == "consistent_hash";
            let body = if hashes {
                json!({ "strategy": strategy, "hash": { "header": "x-user" } })
            } else {
                json!({ "strategy": strategy })
            };
            let answer = write(&evener, "PATCH", POOL, &body);
            assert_eq!(answer["strategy"], *strategy);
            assert_eq!(answer["applied"]["reset"][0]["what"], "rotation");
            let seen = one.requests_seen() + two.requests_seen();
            wait_until(SOON, || one.requests_seen() + two.requests_seen() > seen + 20);
        }
    });
    assert_eq!(evener.admin().json(POOL)["strategy"], "round_robin");

    // And it is the strategy that decides: one user, one upstream.
    let body = json!({ "strategy": "consistent_hash", "hash": { "header": "x-user" } });
    write(&evener, "PATCH", POOL, &body);
    let mut client = evener.connect();
    let mut ask = |user: usize| client.request("GET", "/", &format!("X-User: {user}\r\n"), b"").body();
    let first: Vec<String> = (0..20).map(&mut ask).collect();
    assert_eq!(first, (0..20).map(&mut ask).collect::<Vec<String>>());
    assert!(first.contains(&"one".to_owned()) && first.contains(&"two".to_owned()), "{first:?}");
}

#[test]
fn what_cannot_be_changes_nothing_and_says_what_to_do() {
    let origin = Origin::answering("ok");
    let evener = pool(&[&origin], "");
    let (one, listener) = (path(&origin), evener.address().to_string());
    let before = (tag(&evener, POOL), evener.generation(), evener.admin().json(POOL));
    for (method, path, body, status) in [
        ("PATCH", POOL, json!({ "strategy": "consistent_hash" }), 422),
        ("PATCH", POOL, json!({ "strategy": "least_conn" }), 422),
        ("PATCH", POOL, json!({ "strategy": "random_two", "name": "x" }), 422),
        ("PATCH", &one, json!({ "weight": 1001 }), 422),
        ("PATCH", &one, json!({ "weight": 2, "state": "off" }), 422),
        ("PATCH", &one, json!({ "wieght": 2 }), 422),
        ("PATCH", &one, json!({ "weight": "2" }), 422),
        ("PATCH", &one, json!([]), 422),
        ("PATCH", "/v1/pools/app/upstreams/127.0.0.1:1", json!({ "weight": 2 }), 404),
        ("PATCH", "/v1/pools/nobody", json!({ "strategy": "random_two" }), 404),
        ("DELETE", "/v1/pools/app/upstreams/127.0.0.1:1", json!({}), 404),
        ("POST", UPSTREAMS, json!(origin.address()), 409),
        ("POST", UPSTREAMS, json!(listener), 422),
        ("POST", UPSTREAMS, json!({ "address": "127.0.0.1:1", "max_connections": 0 }), 422),
        ("POST", UPSTREAMS, json!(["127.0.0.1:1", "nonsense"]), 422),
        ("PUT", UPSTREAMS, json!([{ "address": "127.0.0.1:1", "backup": true }]), 422),
        ("PUT", UPSTREAMS, json!({ "upstreams": ["127.0.0.1:1", "127.0.0.1:1"] }), 409),
    ] {
        let answer = evener.admin().write(method, path, "", &body.to_string()).expect_status(status);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{answer}");
        assert!(answer.json()["help"].as_str().is_some_and(|help| help.len() > 10), "{answer}");
    }
    assert_eq!((tag(&evener, POOL), evener.generation(), evener.admin().json(POOL)), before);
    evener.get("/").expect_status(200);
}

#[test]
fn an_edit_holds_only_on_its_condition() {
    let origin = Origin::answering("ok");
    let evener = pool(&[&origin], "");
    let admin = evener.admin();
    let write = |tag: &str, weight: u32| {
        let headers = format!("If-Match: {tag}\r\n");
        admin.write("PATCH", &path(&origin), &headers, &json!({ "weight": weight }).to_string())
    };
    let (of_pool, of_all) = (tag(&evener, UPSTREAMS), tag(&evener, "/v1/pools"));
    assert_eq!(tag(&evener, &path(&origin)), of_pool);
    let next = write(&of_pool, 2).expect_status(200).header("etag").map(str::to_owned);
    assert_eq!(next.as_deref(), Some(&*tag(&evener, POOL)));
    for stale in [of_pool, of_all] {
        let refused = write(&stale, 7).expect_status(412).json();
        assert_eq!(refused["etag"], tag(&evener, POOL));
    }
    assert_eq!(evener.admin().upstream("app", &origin)["weight"], 2);
    write(&tag(&evener, "/v1/pools"), 3).expect_status(200);
    for (method, path, body) in [
        ("PATCH", POOL.to_owned(), json!({ "strategy": "random_two" })),
        ("POST", UPSTREAMS.to_owned(), json!("127.0.0.1:1")),
        ("PUT", UPSTREAMS.to_owned(), json!(["127.0.0.1:1"])),
        ("DELETE", path(&origin), json!({})),
        ("POST", format!("{}/drain", path(&origin)), json!({})),
        ("POST", "/api/infrastructure/load-balancer/initialize".to_owned(), json!({ "servers": ["a:1"] })),
    ] {
        let body = body.to_string().replace("a:1", "127.0.0.1:1");
        admin.write(method, &path, "If-Match: \"stale\"\r\n", &body).expect_status(412);
    }
    assert_eq!(evener.generation(), 3);
}

#[test]
fn of_a_hundred_edits_with_one_tag_exactly_one_wins() {
    let origin = Origin::answering("ok");
    let evener = pool(&[&origin], "");
    let (admin, path, tag) = (evener.admin(), path(&origin), tag(&evener, POOL));
    let writers: Vec<Background<(u16, u64)>> = (2..102_u64)
        .map(|weight| {
            let (admin, path, headers) = (admin.clone(), path.clone(), format!("If-Match: {tag}\r\n"));
            Background::run(move || {
                let body = json!({ "weight": weight }).to_string();
                (admin.write("PATCH", &path, &headers, &body).status(), weight)
            })
        })
        .collect();
    let answers: Vec<_> = writers.into_iter().map(Background::join).collect();
    let won: Vec<u64> =
        answers.iter().filter(|(status, _)| *status == 200).map(|(_, weight)| *weight).collect();
    assert_eq!(won.len(), 1, "{answers:?}");
    assert!(answers.iter().all(|(status, _)| matches!(status, 200 | 412)), "{answers:?}");
    assert_eq!(evener.admin().upstream("app", &origin)["weight"], won[0]);
    assert_eq!(evener.generation(), 2);
}

fn two_pools(one: &Origin, two: &Origin) -> Evener {
    Evener::start(&format!(
        "[routes.a]\nhosts = [\"a\"]\npool = \"app\"\n[routes.b]\nhosts = [\"b\"]\npool = \"other\"\n\
         [pools.app]\nupstreams = [\"{}\"]\n[pools.other]\nupstreams = [\"{}\"]",
        one.address(),
        two.address()
    ))
}

#[test]
fn a_change_of_one_pool_leaves_the_tag_of_the_other() {
    let (one, two) = (Origin::answering("one"), Origin::answering("two"));
    let evener = two_pools(&one, &two);
    let (of_app, of_other) = (tag(&evener, POOL), tag(&evener, "/v1/pools/other"));
    write(&evener, "PATCH", "/v1/pools/other", &json!({ "strategy": "random_two" }));
    assert_eq!(tag(&evener, POOL), of_app);
    assert_ne!(tag(&evener, "/v1/pools/other"), of_other);
    let headers = format!("If-Match: {of_app}\r\n");
    evener.admin().write("PATCH", &path(&one), &headers, "{\"weight\": 2}").expect_status(200);
}

#[test]
fn what_is_changed_outlives_reload_and_restart_and_leaves_the_file_alone() {
    let [one, two, three, four, five] = ["one", "two", "three", "four", "five"].map(Origin::answering);
    let mut evener = pool(&[&one, &two, &three, &four], "");
    let text = evener.file("evener.toml");
    patch(&evener, &one, &json!({ "weight": 5 }));
    patch(&evener, &two, &json!({ "state": "drain" }));
    patch(&evener, &three, &json!({ "state": "maintenance" }));
    evener.admin().write("DELETE", &path(&four), "", "").expect_status(200);
    write(&evener, "POST", UPSTREAMS, &json!({ "address": five.address(), "weight": 2, "backup": true }));
    write(&evener, "PATCH", POOL, &json!({ "strategy": "consistent_hash", "hash": { "client_ip": true } }));
    let generation = evener.generation();

    let seen = |evener: &Evener| {
        let pool = evener.admin().json(POOL);
        let members = ["address", "weight", "state", "backup", "source"];
        let upstreams = pool["upstreams"].as_array().expect("a list").iter();
        let upstreams: Vec<Vec<Value>> =
            upstreams.map(|one| members.map(|member| one[member].clone()).to_vec()).collect();
        (pool["strategy"].clone(), upstreams)
    };
    let (strategy, upstreams) = seen(&evener);
    assert_eq!(strategy, "consistent_hash");
    let override_of = |origin: &Origin, weight: u16, state: &str, backup: bool| {
        vec![json!(origin.address()), json!(weight), json!(state), json!(backup), json!("override")]
    };
    let expected = [
        override_of(&one, 5, "ready", false),
        override_of(&two, 1, "drain", false),
        override_of(&three, 1, "maintenance", false),
        override_of(&five, 2, "ready", true),
    ];
    assert_eq!(upstreams, expected);

    evener.admin().post("/v1/reload", "").expect_status(200);
    assert_eq!(seen(&evener), (strategy.clone(), expected.to_vec()));
    let stale = tag(&evener, POOL);
    evener.restart();
    assert_eq!(seen(&evener), (strategy, expected.to_vec()));
    assert!(evener.generation() >= generation, "numbers go on");
    let headers = format!("If-Match: {stale}\r\n");
    evener.admin().write("PATCH", &path(&one), &headers, "{\"weight\": 6}").expect_status(412);
    send(&evener, 10);
    assert_eq!([&two, &three, &four].map(Origin::requests_seen), [0, 0, 0]);
    assert_eq!(evener.file("evener.toml"), text);
}

#[test]
fn without_a_file_a_change_is_not_persisted_and_says_so() {
    let _ports = DefaultPorts::free(&[9900]);
    let (one, two) = (Origin::answering("one"), Origin::answering("two"));
    let address = SocketAddr::from(([127, 0, 0, 1], reserve_port()));
    let (listen, to) = (address.to_string(), one.address());
    let evener = Evener::start_without_a_file(address, &["run", "--listen", &listen, "--to", &to], &[]);
    wait_until(SOON, || evener.admin().try_get("/readyz").is_some_and(|answer| answer.status() == 200));
    let shown = |origin: &Origin| {
        let path = format!("/v1/pools/default/upstreams/{}", origin.address_in_a_path());
        evener.admin().json(&path)["source"].clone()
    };
    assert_eq!(shown(&one), "arguments");
    let answer = write(&evener, "POST", "/v1/pools/default/upstreams", &json!(two.address()));
    assert_eq!(answer["applied"]["persisted"], false);
    assert_eq!((shown(&one), shown(&two)), (json!("arguments"), json!("override")));
}

#[test]
fn an_idle_upstream_is_safe_to_stop_at_once() {
    let (goes, stays) = (Origin::answering("goes"), Origin::answering("stays"));
    let evener = pool(&[&goes, &stays], "");
    send(&evener, 4);
    wait_until(SOON, || in_flight(&evener, &goes) == 0);
    let report = drain(&evener, &goes, "10m");
    assert_eq!((&report["pool"], &report["address"]), (&json!("app"), &json!(goes.address())));
    assert_eq!((&report["in_flight"], &report["safe_to_stop"]), (&json!(0), &json!(true)));
    assert_eq!((&report["also_in"], report["waited_ms"].is_u64()), (&json!([]), true));
    assert_eq!(evener.admin().upstream("app", &goes)["state"], "drain");
    goes.die();
    send(&evener, 20);
    let generation = evener.generation();
    assert_eq!(drain(&evener, &goes, "0s")["safe_to_stop"], true, "and once more");
    assert_eq!(evener.generation(), generation, "which changes nothing");
}

#[test]
fn a_drain_waits_for_the_request_in_flight() {
    let origin = Origin::answering("ok");
    let evener = pool(&[&origin], "");
    origin.hold();
    let held = evener.get_in_background("/");
    origin.wait_for_request();
    let report = drain(&evener, &origin, "300ms");
    assert_eq!((&report["in_flight"], &report["safe_to_stop"]), (&json!(1), &json!(false)));
    assert!(report["waited_ms"].as_u64() >= Some(300), "{report}");

    let mut waiting = evener.admin().connect();
    waiting.start("POST", &format!("{}/drain?wait=10m", path(&origin)), "", b"");
    wait_until(SOON, || evener.admin().upstream("app", &origin)["state"] == "drain");
    origin.release();
    let report = waiting.read("POST").expect_status(200).json();
    assert_eq!((&report["in_flight"], &report["safe_to_stop"]), (&json!(0), &json!(true)));
    held.join().expect_status(200);
}

/// Reads on until this stands in what was read.
fn read_until(client: &mut Client, text: &str) -> String {
    let mut read = String::new();
    while !read.contains(text) {
        read.push(char::from(client.read_bytes(1)[0]));
    }
    read
}

#[test]
fn a_drain_tells_how_it_goes_on() {
    for (media_type, begin) in
        [("application/x-ndjson", "{"), ("text/event-stream", "event: answer\ndata: {")]
    {
        let origin = websocket::echoing();
        let evener = pool(&[&origin], "");
        let mut sockets = [websocket::open(&evener), websocket::open(&evener)];
        sockets.iter_mut().for_each(|socket| websocket::echo(socket, "hello"));
        let mut waiting = evener.admin().connect();
        let headers = format!("Accept: {media_type}\r\n");
        waiting.start("POST", &format!("{}/drain?wait=10m", path(&origin)), &headers, b"");
        let head = read_until(&mut waiting, "\"in_flight\":2");
        assert!(head.contains(media_type), "{head}");
        let [first, second] = sockets;
        drop(first);
        read_until(&mut waiting, "\"in_flight\":1");
        drop(second);
        let answer = read_until(&mut waiting, "\"safe_to_stop\":true");
        assert!(answer.contains(begin) && answer.contains("\"in_flight\":0"), "{answer}");
        let rest = read_until(&mut waiting, "0\r\n\r\n");
        assert!(!rest.contains("in_flight"), "the answer is the last line: {rest}");
    }
}

/// A wait holds one of the side port's connections, and nothing else.
#[test]
fn a_client_that_leaves_ends_the_wait_and_not_the_drain() {
    let origin = Origin::answering("ok");
    let evener = pool(&[&origin], "");
    origin.hold();
    let held = evener.get_in_background("/");
    origin.wait_for_request();
    // More than there are places for, one after another.
    for _ in 0..300 {
        let mut waiting = evener.admin().connect();
        waiting.start("POST", &format!("{}/drain?wait=10m", path(&origin)), "", b"");
        read_until(&mut waiting, "HTTP/1.1 200");
        drop(waiting);
    }
    assert_eq!(evener.admin().upstream("app", &origin)["state"], "drain");
    origin.release();
    held.join().expect_status(200);
    evener.get("/").expect_status(503);
}

#[test]
fn a_stopping_process_ends_the_wait_with_the_truth() {
    let origin = Origin::answering("ok");
    let mut evener = pool(&[&origin], "");
    origin.hold();
    let held = evener.get_in_background("/");
    origin.wait_for_request();
    let mut waiting = evener.admin().connect();
    waiting.start("POST", &format!("{}/drain?wait=10m", path(&origin)), "", b"");
    wait_until(SOON, || evener.admin().upstream("app", &origin)["state"] == "drain");
    evener.signal("TERM");
    let report = waiting.read("POST").expect_status(200).json();
    assert_eq!((&report["in_flight"], &report["safe_to_stop"]), (&json!(1), &json!(false)));
    origin.release();
    held.join().expect_status(200);
    assert!(evener.ends_within(SOON).is_some());
}

#[test]
fn a_drain_that_is_taken_back_is_not_waited_for() {
    let origin = Origin::answering("ok");
    let evener = pool(&[&origin], "");
    origin.hold();
    let held = evener.get_in_background("/");
    origin.wait_for_request();
    let mut waiting = evener.admin().connect();
    waiting.start("POST", &format!("{}/drain?wait=10m", path(&origin)), "", b"");
    wait_until(SOON, || evener.admin().upstream("app", &origin)["state"] == "drain");
    patch(&evener, &origin, &json!({ "state": "ready" }));
    let report = waiting.read("POST").expect_status(200).json();
    assert_eq!((&report["safe_to_stop"], &report["also_in"]), (&json!(false), &json!(["app"])));
    origin.release();
    held.join().expect_status(200);
}

#[test]
fn an_address_in_two_pools_is_safe_to_stop_when_both_are_drained() {
    let origin = Origin::answering("ok");
    let evener = two_pools(&origin, &origin);
    let of_other = format!("/v1/pools/other/upstreams/{}", origin.address_in_a_path());
    let report = drain(&evener, &origin, "10m");
    assert_eq!((&report["safe_to_stop"], &report["also_in"]), (&json!(false), &json!(["other"])));

    origin.hold();
    let address = evener.address();
    let held = Background::run(move || Client::connect(address).request("GET", "/", "Host: b\r\n", b""));
    origin.wait_for_request();
    let drained = evener.admin().post(&format!("{of_other}/drain"), "").expect_status(200).json();
    assert_eq!((&drained["in_flight"], &drained["also_in"]), (&json!(1), &json!([])));
    let report = drain(&evener, &origin, "0s");
    assert_eq!((&report["in_flight"], &report["in_flight_elsewhere"]), (&json!(0), &json!(1)));
    assert_eq!(report["safe_to_stop"], false);
    origin.release();
    held.join().expect_status(200);
    assert_eq!(drain(&evener, &origin, "60s")["safe_to_stop"], true);
}

/// Whoever drains learns 0 only when nobody can come any more.
#[test]
fn nothing_arrives_after_it_was_said_to_be_safe() {
    let (goes, stays) = (Origin::answering("goes"), Origin::answering("stays"));
    let evener = pool(&[&goes, &stays], "");
    under_load(&evener, || {
        for _ in 0..20 {
            let seen = goes.requests_seen();
            goes.wait_for_requests(seen + 5);
            assert_eq!(drain(&evener, &goes, "60s")["safe_to_stop"], true);
            let (before, elsewhere) = (goes.requests_seen(), stays.requests_seen());
            stays.wait_for_requests(elsewhere + 20);
            assert_eq!(goes.requests_seen(), before);
            patch(&evener, &goes, &json!({ "state": "ready" }));
        }
    });
}

#[test]
fn the_platform_names_its_servers() {
    let initialize = "/api/infrastructure/load-balancer/initialize";
    let [old, one, two] = ["old", "one", "two"].map(Origin::answering);
    let evener = pool(&[&old], "");
    let urls = [&one, &two].map(|origin| format!("http://{}", origin.address()));
    let status = write(&evener, "POST", initialize, &json!({ "servers": urls }));
    assert_eq!((&status["pool"], &status["strategy"]), (&json!("app"), &json!("round_robin")));
    assert_eq!(
        (&status["servers"][0]["url"], &status["servers"][1]["url"]),
        (&json!(urls[0]), &json!(urls[1]))
    );
    send(&evener, 10);
    assert_eq!(old.requests_seen(), 0);
    assert!(one.requests_seen() > 0 && two.requests_seen() > 0);

    let body = json!({ "servers": [urls[1]], "strategy": "least_connections", "pool": "app" });
    assert_eq!(write(&evener, "POST", initialize, &body)["strategy"], "least_connections");
    let shown = evener.admin().json("/api/infrastructure/load-balancer/status");
    assert_eq!((&shown["totalServers"], &shown["strategy"]), (&json!(1), &json!("least_connections")));
    for servers in
        [json!(["https://127.0.0.1:1"]), json!(["http://127.0.0.1:1/x"]), json!(["http://"]), json!([])]
    {
        let body = json!({ "servers": servers }).to_string();
        let refused = evener.admin().write("POST", initialize, "", &body).expect_status(422);
        assert!(refused.json()["help"].is_string(), "{refused}");
    }
    assert_eq!(evener.admin().json(POOL)["upstreams"][0]["address"], two.address());
}

#[test]
fn an_address_may_be_spelled_in_any_way() {
    let unix = Origin::answering_on_a_unix_socket("unix");
    let evener = pool(&[&unix], "");
    let port = reserve_port();
    let body = json!([format!("127.0.0.1:{port}"), format!("[::1]:{port}")]);
    write(&evener, "POST", UPSTREAMS, &body);
    for (weight, spelling, address) in [
        (2, format!("127.0.0.1%3A{port}"), format!("127.0.0.1:{port}")),
        (3, format!("http:%2F%2F127.0.0.1:{port}%2F"), format!("127.0.0.1:{port}")),
        (4, format!("[0:0::1]:{port}"), format!("[::1]:{port}")),
        (5, format!("%5B::1%5D:{port}"), format!("[::1]:{port}")),
        (6, unix.address_in_a_path(), unix.address()),
        (7, unix.address_in_a_path().replace("%2F", "%2F%2F"), unix.address()),
    ] {
        let answer =
            write(&evener, "PATCH", &format!("{UPSTREAMS}/{spelling}"), &json!({ "weight": weight }));
        assert_eq!((&answer["address"], &answer["weight"]), (&json!(address), &json!(weight)));
    }
    let name = format!("{UPSTREAMS}/localhost:{port}");
    let refused = evener.admin().write("PATCH", &name, "", "{\"weight\": 1}").expect_status(404).json();
    assert!(refused["help"].as_str().is_some_and(|help| help.contains("resolved to")), "{refused}");
}
