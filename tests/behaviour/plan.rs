//! A plan tells what a configuration would change, and whom that touches; and changes nothing.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use crate::rig::{Evener, Origin, wait_until};

/// For what is counted a moment after it happened, on a machine under load.
const SOON: Duration = Duration::from_secs(15);

fn pool(name: &str, origins: &[&Origin], more: &str) -> String {
    let upstreams: Vec<String> = origins.iter().map(|origin| format!("\"{}\"", origin.address())).collect();
    format!(
        "[pools.{name}]\nupstreams = [{}]\nhealth_check = {{ enabled = false }}\n{more}\n",
        upstreams.join(", ")
    )
}

#[track_caller]
fn plan(evener: &Evener, configuration: &str) -> Value {
    let text = evener.text(configuration);
    let answer = evener.admin().request("POST", "/v1/config/check", "", &text).expect_status(200).json();
    assert_eq!(answer["valid"], true);
    answer["plan"].clone()
}

/// The members of an answer's list, as `pool/address`.
fn members(list: &Value) -> BTreeSet<String> {
    let name = |member: &Value| {
        format!("{}/{}", member["pool"].as_str().unwrap(), member["address"].as_str().unwrap())
    };
    list.as_array().unwrap().iter().map(name).collect()
}

#[test]
fn a_plan_changes_nothing() {
    let (one, two) = (Origin::answering("one"), Origin::answering("two"));
    let evener = Evener::start(&pool("app", &[&one], ""));
    let file = fs::read(evener.path("evener.toml")).unwrap();

    let first = plan(&evener, &pool("app", &[&two], "strategy = \"random_two\""));
    assert!(first["changes"].as_u64() > Some(2), "{first}");
    let again = plan(&evener, &pool("app", &[&one], ""));

    assert_eq!(again["etag"], first["etag"]);
    assert_eq!(again["changes"], 0, "{again}");
    assert_eq!(fs::read(evener.path("evener.toml")).unwrap(), file);
    assert_eq!(evener.generation(), 1);
    assert!(!evener.path("evener.toml.history").exists());
    assert_eq!(evener.get("/").body(), "one");
    evener.admin().expect_metric("evener_config_changes_total", &["origin=\"admin\""], 0.0);
}

#[test]
fn a_plan_tells_what_then_happens() {
    let origins: Vec<Origin> = (0..5).map(|_| Origin::answering("ok")).collect();
    let [stays, goes, comes, old, new] = &origins[..] else { panic!("five") };
    let routes = |pool: &str| {
        format!(
            "[routes.main]\npool = \"app\"\n[routes.other]\npath_prefix = \"/other\"\npool = \"{pool}\"\n"
        )
    };
    let before = format!("{}{}{}", routes("old"), pool("app", &[stays, goes], ""), pool("old", &[old], ""));
    let after = format!(
        "{}{}{}",
        routes("new"),
        pool("app", &[stays, comes], "strategy = \"least_connections\"\ntimeouts = { read = \"5s\" }"),
        pool("new", &[new], "")
    );
    let evener = Evener::start(&before);
    let plan = plan(&evener, &after);

    let app = &plan["pools"]["changed"][0];
    assert_eq!(
        app["settings"],
        json!([
            {"key": "strategy", "from": "round_robin", "to": "least_connections"},
            {"key": "timeouts.read", "from": "1m", "to": "5s"},
        ])
    );
    assert_eq!(app["resets"], json!(["rotation"]));
    assert_eq!(app["hash_keys_moved"], Value::Null);
    assert_eq!(plan["pools"]["added"], json!(["new"]));
    assert_eq!(plan["pools"]["removed"][0]["name"], "old");
    assert_eq!(
        plan["routes"]["changed"][0]["settings"],
        json!([{"key": "pool", "from": "old", "to": "new"}])
    );
    assert_eq!(plan["restart_required"], json!([]));

    // Exactly this plan, or nothing.
    let condition = format!("If-Match: {}\r\n", plan["etag"].as_str().unwrap());
    let text = evener.text(&after);
    let applied = evener.admin().request("PUT", "/v1/config", &condition, &text).expect_status(200).json();

    let of = |name: &str, origin: &Origin| format!("{name}/{}", origin.address());
    assert_eq!(members(&applied["added"]), BTreeSet::from([of("app", comes), of("new", new)]));
    assert_eq!(app["upstreams"]["added"], json!([comes.address()]));
    assert_eq!(members(&applied["removed"]), BTreeSet::from([of("app", goes), of("old", old)]));
    assert_eq!(app["upstreams"]["removed"][0]["address"], goes.address());
    let impact = &plan["impact"];
    assert_eq!((&impact["upstreams_added"], &impact["upstreams_removed"]), (&json!(2), &json!(2)));
    let reset: Vec<&Value> = applied["reset"].as_array().unwrap().iter().map(|one| &one["what"]).collect();
    assert_eq!(json!(reset), app["resets"]);
    assert_eq!(applied["generation"].as_u64(), plan["generation"].as_u64().map(|now| now + 1));
}

#[test]
fn a_plan_tells_traffic_and_requests_in_flight() {
    let (busy, idle, other) = (Origin::answering("b"), Origin::answering("i"), Origin::answering("o"));
    let routes =
        "[routes.a]\npath_prefix = \"/a\"\npool = \"a\"\n[routes.b]\npath_prefix = \"/b\"\npool = \"b\"\n";
    let with = |origins: &[&Origin], more: &str| {
        format!("{routes}{}{}", pool("a", origins, ""), pool("b", &[&other], more))
    };
    let evener = Evener::start(&with(&[&busy], ""));
    (0..30).for_each(|_| drop(evener.get("/a").expect_status(200)));
    (0..10).for_each(|_| drop(evener.get("/b").expect_status(200)));
    busy.hold();
    let held: Vec<_> = (0..3).map(|_| evener.get_in_background("/a/held")).collect();
    busy.wait_for_requests(33);

    let of_a = with(&[&idle], "");
    wait_until(SOON, || plan(&evener, &of_a)["impact"]["traffic_share"] == 0.75);
    let touched = plan(&evener, &of_a);
    let changed = &touched["pools"]["changed"][0];
    let removed = &changed["upstreams"]["removed"][0];
    for figures in [changed, removed] {
        assert_eq!(
            (&figures["in_flight"], &figures["traffic_share"]),
            (&json!(3), &json!(0.75)),
            "{touched}"
        );
    }
    assert_eq!(touched["impact"]["in_flight"], 3);

    let of_b = plan(&evener, &with(&[&busy], "slow_start = \"1s\""));
    assert_eq!((&of_b["impact"]["in_flight"], &of_b["impact"]["traffic_share"]), (&json!(0), &json!(0.25)));
    let of_route = plan(&evener, &with(&[&busy], "").replace("[routes.b]", "[routes.b]\ntimeout = \"9s\""));
    assert_eq!(of_route["impact"]["traffic_share"], 0.25, "{of_route}");
    let of_listener =
        plan(&evener, &format!("[listeners.http]\nmax_connections = 99\n{}", with(&[&busy], "")));
    assert_eq!(of_listener["impact"]["traffic_share"], 1.0, "{of_listener}");

    busy.release();
    held.into_iter().for_each(|request| drop(request.join().expect_status(200)));
}

#[test]
fn a_plan_counts_the_keys_that_move() {
    let origins: Vec<Origin> = (0..4).map(|number| Origin::answering(&number.to_string())).collect();
    let all: Vec<&Origin> = origins.iter().collect();
    let hashed = "strategy = \"consistent_hash\"\nhash = { header = \"x-user\" }";
    let evener = Evener::start(&pool("app", &all, hashed));
    let homes = || -> Vec<String> {
        (0..400).map(|key| evener.get_with("/", &format!("X-User: {key}\r\n")).body()).collect()
    };
    let before = homes();

    let less = pool("app", &all[1..], hashed);
    let told = plan(&evener, &less)["pools"]["changed"][0]["hash_keys_moved"].as_f64().unwrap();
    let text = evener.text(&less);
    evener.admin().request("PUT", "/v1/config", "If-Match: *\r\n", &text).expect_status(200);
    let moved = before.iter().zip(homes()).filter(|(before, after)| *before != after).count();
    let seen = moved as f64 / 400.0;
    assert!((told - seen).abs() < 0.1 && told > 0.1, "told {told}, seen {seen}");

    let same = plan(&evener, &pool("app", &all[1..], &format!("{hashed}\nslow_start = \"1s\"")));
    assert_eq!(same["pools"]["changed"][0]["hash_keys_moved"], 0.0);
}

#[test]
fn a_plan_names_what_needs_a_restart() {
    let origin = Origin::answering("ok");
    let evener = Evener::start(&pool("app", &[&origin], ""));
    let more = "[server]\nthreads = 7\ndrain_timeout = \"9s\"\n[listeners.http]\n[listeners.other]\naddress = \"127.0.0.1:1\"\n";
    let plan = plan(&evener, &format!("{more}{}", pool("app", &[&origin], "")));
    assert_eq!(plan["restart_required"], json!(["server.threads", "listeners"]));
    assert_eq!(plan["listeners"]["added"], json!(["other"]));
    let keys: Vec<&Value> = plan["process"].as_array().unwrap().iter().map(|one| &one["key"]).collect();
    assert_eq!(json!(keys), json!(["server.drain_timeout", "server.threads"]));
}

#[test]
fn a_plan_shows_no_secret() {
    let origin = Origin::answering("ok");
    let with = |secret: &str| {
        let headers = format!("headers = {{ authorization = \"{secret}\", x-thing = \"file:thing\" }}");
        let upstream = origin.address();
        format!(
            "[pools.app]\nupstreams = [\"{upstream}\"]\nhealth_check = {{ path = \"/healthz\", {headers} }}\n\
             [routes.main]\npool = \"app\"\nrequest_headers = {{ set = {{ x-api-key = \"{secret}\" }} }}\n"
        )
    };
    let evener = Evener::start(&pool("app", &[&origin], ""));
    fs::write(evener.path("thing"), "s3cret-in-a-file").unwrap();
    let text = evener.text(&with("hunter2"));
    evener.admin().request("PUT", "/v1/config", "If-Match: *\r\n", &text).expect_status(200);
    fs::write(evener.path("thing"), "s3cret-in-another").unwrap();

    let plan = plan(&evener, &with("hunter3"));
    let told = plan.to_string();
    assert!(!told.contains("hunter") && !told.contains("s3cret"), "{told}");
    let keys: Vec<&Value> =
        plan["pools"]["changed"][0]["settings"].as_array().unwrap().iter().map(|one| &one["key"]).collect();
    assert_eq!(json!(keys), json!(["health_check.headers.authorization", "health_check.headers.x-thing"]));
    let key = &plan["routes"]["changed"][0]["settings"][0];
    assert_eq!(*key, json!({"key": "request_headers.set.x-api-key", "from": "(secret)", "to": "(secret)"}));
    assert!(!evener.log().contains("hunter"), "{}", evener.log());
}

#[test]
fn a_wrong_text_has_no_plan() {
    let origin = Origin::answering("ok");
    let evener = Evener::start(&pool("app", &[&origin], ""));
    let answer =
        evener.admin().request("POST", "/v1/config/check", "", "[pools.app]\nstrategy = \"fastest\"\n");
    let problem = answer.expect_status(422).json();
    assert!(problem["type"].as_str().unwrap().ends_with(":invalid_config"), "{problem}");
    assert!(
        problem["errors"].as_array().is_some_and(|errors| errors.iter().any(|one| one["line"] == 2)),
        "{problem}"
    );
}
