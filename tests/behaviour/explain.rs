//! What is told of a request that was made, and how long.

use std::time::Duration;

use serde_json::Value;

use crate::rig::{Client, Evener, Origin, Reply, Response, run_to_end, wait_until};

/// No answer takes longer to be remembered.
const PATIENCE: Duration = Duration::from_secs(30);

/// One pool `app` of these origins in this order, which is that of the first turns or not; nothing but
/// requests notices anything.
fn unchecked(origins: &[&Origin], more: &str) -> Evener {
    let addresses: Vec<String> = origins.iter().map(|origin| format!("\"{}\"", origin.address())).collect();
    Evener::start(&format!(
        r#"
        [routes.app]
        path_prefix = "/"
        pool = "app"
        [pools.app]
        upstreams = [{}]
        health_check = {{ enabled = false }}
        ejection = {{ enabled = false }}
        {more}
        "#,
        addresses.join(", ")
    ))
}

/// What is told of this request. It is remembered a moment after its client has read the answer.
fn explained(evener: &Evener, request_id: &str) -> Value {
    let path = format!("/v1/explain/{}", request_id.replace('/', "%2F"));
    wait_until(PATIENCE, || evener.admin().get(&path).status() == 200);
    evener.admin().json(&path)
}

fn id_of(answer: &Response) -> String {
    answer.header("x-request-id").expect("an answer of ours names its request").to_owned()
}

/// The id under which an upstream knows its latest request.
fn last_id(origin: &Origin) -> String {
    let requests = origin.requests();
    let id = requests.last().and_then(|request| request.header("x-request-id"));
    id.expect("upstreams are told the id").to_owned()
}

fn words<'a>(list: &'a Value, member: &str) -> Vec<&'a str> {
    let list = list.as_array().expect("a list");
    list.iter().map(|item| item[member].as_str().unwrap_or("null")).collect()
}

#[test]
fn a_failed_request_is_found_by_its_id_with_both_attempts() {
    let broken = [Origin::serving(|_| Reply::reset()), Origin::serving(|_| Reply::reset())];
    let evener = unchecked(&[&broken[0], &broken[1]], "");
    let answer = evener.get("/orders/7?token=s3cret").expect_status(502);
    let id = id_of(&answer);
    let told = explained(&evener, &id);
    assert_eq!((&told["request_id"], &told["status"]), (&id.as_str().into(), &502.into()), "{told}");
    assert_eq!((&told["reason"], &told["kept"]), (&"upstream_reset".into(), &"failed".into()));
    assert_eq!(words(&told["attempts"], "outcome"), ["upstream_reset"; 2], "{told}");
    let mut upstreams = words(&told["attempts"], "upstream");
    upstreams.sort_unstable();
    let mut all = broken.each_ref().map(Origin::address);
    all.sort_unstable();
    assert_eq!(upstreams, all, "each was tried");
    assert_eq!((&told["route"]["name"], &told["pool"]), (&"app".into(), &"app".into()));
    assert_eq!(told["route"]["why"], serde_json::json!(["it takes every host", "it takes every path"]));
    assert_eq!(told["request"]["path"], "/orders/7", "{told}");
    assert!(!told.to_string().contains("s3cret"), "{told}");
    assert_eq!(told["attempts"][0]["then"], "another attempt was allowed", "{told}");
    assert!(told["attempts"][1]["then"].is_string(), "{told}");
    assert!(told["help"].as_str().is_some_and(|help| !help.is_empty()));

    let second = &told["attempts"][1];
    let scores = &second["candidates"];
    assert_eq!((&scores["moment"], &scores["strategy"]), (&"pick".into(), &"round_robin".into()), "{second}");
    let excluded = scores["excluded"].as_array().unwrap();
    assert_eq!((excluded.len(), &excluded[0]["why_not"]), (1, &"already_tried".into()), "{scores}");
    let chosen: Vec<&Value> =
        scores["candidates"].as_array().unwrap().iter().filter(|one| one["chosen"] == true).collect();
    assert_eq!((chosen.len(), &chosen[0]["address"]), (1, &second["upstream"]));
}

#[test]
fn a_request_that_was_retried_tells_of_the_attempt_that_the_client_did_not_see() {
    let (gone, other) = (Origin::absent(), Origin::answering("ok"));
    let evener = unchecked(&[&gone, &other], "");
    for _ in 0..2 {
        evener.get("/").expect_status(200);
    }
    let ids: Vec<String> =
        other.requests().iter().filter_map(|seen| seen.header("x-request-id").map(str::to_owned)).collect();
    let told: Vec<Value> = ids.iter().map(|id| explained(&evener, id)).collect();
    let retried = told.iter().find(|told| told["attempts"].as_array().unwrap().len() == 2).expect("one was");
    assert_eq!(words(&retried["attempts"], "outcome"), ["connect_failure", "answered"], "{retried}");
    assert_eq!(words(&retried["attempts"], "upstream"), [gone.address(), other.address()]);
    assert_eq!(words(&retried["attempts"], "connection")[0], "none");
    assert_eq!((&retried["status"], &retried["kept"]), (&200.into(), &"unusual".into()));
    assert!(retried["reason"].is_null() && retried["attempts"][1]["status"] == 200, "{retried}");
}

#[test]
fn a_slow_request_is_kept_as_one_and_says_where_the_time_went() {
    let slow = Origin::answering("ok").after(Duration::from_millis(1_200));
    let evener = unchecked(&[&slow], "");
    evener.get("/report").expect_status(200);
    let told = explained(&evener, &last_id(&slow));
    assert_eq!(told["kept"], "slow", "{told}");
    let attempt = &told["attempts"][0];
    let at = |member: &str| attempt[member].as_f64().unwrap_or_else(|| panic!("{member}: {attempt}"));
    assert!(at("picked_ms") <= at("connected_ms") && at("connected_ms") <= at("answered_ms"), "{attempt}");
    assert!(at("took_ms") >= 1_200.0 && told["timings"]["duration_ms"].as_f64() >= Some(1_200.0), "{told}");
    assert_eq!((&attempt["in_flight"], &attempt["connection"]), (&1.into(), &"new".into()));
}

/// Neither failed nor slow by any clock but its route's: ordinary ones do not push it out.
#[test]
fn what_took_longer_than_usual_is_kept_and_so_is_what_was_retried() {
    let (gone, other) = (
        Origin::absent(),
        Origin::serving(|request| match request.target.as_str() {
            "/late" => Reply::raw("").then_sleep(Duration::from_millis(400)).then(Reply::ok("late")),
            _ => Reply::ok("ok"),
        }),
    );
    let evener = unchecked(&[&gone, &other], "");
    let admin = evener.admin();
    let ids_of = |path: &str| -> Vec<String> {
        let requests = other.requests();
        let of_path = requests.iter().filter(|seen| seen.target == path);
        of_path.filter_map(|seen| seen.header("x-request-id").map(str::to_owned)).collect()
    };
    // Turns are fair: one of two.
    (0..2).for_each(|_| drop(evener.get("/retried").expect_status(200)));
    let retried = ids_of("/retried").into_iter().find(|id| explained(&evener, id)["kept"] == "unusual");
    let retried = retried.expect("one of them");
    let path = format!("/v1/pools/app/upstreams/{}", gone.address_in_a_path());
    admin.patch(&path, r#"{"state": "drain"}"#).expect_status(200);

    // What is usual is known some seconds after enough requests; every hundredth may take its time.
    let mut client = evener.connect();
    let mut late = None;
    wait_until(Duration::from_secs(120), || {
        (0..150).for_each(|_| drop(client.get("/quick").expect_status(200)));
        client.get("/late").expect_status(200);
        late = ids_of("/late").pop();
        late.as_ref().is_some_and(|id| explained(&evener, id)["kept"] == "unusual")
    });
    let late = late.expect("a request");

    client.get("/ordinary").expect_status(200);
    let ordinary = ids_of("/ordinary").pop().expect("a request");
    explained(&evener, &ordinary);
    (0..1_000).for_each(|_| drop(client.get("/quick").expect_status(200)));
    // Unless that one, too, happened to take unusually long.
    wait_until(PATIENCE, || {
        let told = admin.get(&format!("/v1/explain/{ordinary}"));
        told.status() == 404 || told.json()["kept"] == "unusual"
    });
    for (id, attempts) in [(&retried, 2), (&late, 1)] {
        let told = explained(&evener, id);
        assert_eq!((&told["kept"], &told["status"]), (&"unusual".into(), &200.into()), "{told}");
        assert_eq!(told["attempts"].as_array().map(Vec::len), Some(attempts), "{told}");
    }
    let listed = admin.json("/v1/requests?limit=1000&failed=false&kept=unusual");
    let line = |id: &str| {
        let lines = listed["requests"].as_array().expect("a list").iter();
        lines.filter(|line| line["request_id"] == id).map(|line| line["kept"].clone()).collect::<Vec<_>>()
    };
    assert_eq!((line(&retried), line(&late)), (vec!["unusual".into()], vec!["unusual".into()]));
    let slower = admin.json("/v1/requests?limit=1000&slower_than=300ms");
    assert!(words(&slower["requests"], "request_id").contains(&late.as_str()), "{slower}");
}

#[test]
fn an_ordinary_request_tells_its_scores_once_somebody_has_asked() {
    let (one, two) = (Origin::answering("ok"), Origin::answering("ok"));
    let evener = unchecked(&[&one, &two], "strategy = \"least_connections\"");
    let asked = evener.admin().json("/v1/requests");
    assert_eq!(asked["requests"], serde_json::json!([]), "{asked}");
    evener.get("/").expect_status(200);
    let id = if one.requests_seen() > 0 { last_id(&one) } else { last_id(&two) };
    let told = explained(&evener, &id);
    let attempt = &told["attempts"][0];
    assert!(attempt["note"].is_null(), "{attempt}");
    let standing = &attempt["candidates"];
    assert_eq!((&standing["moment"], &standing["eligible"]), (&"pick".into(), &2.into()));
    for candidate in standing["candidates"].as_array().unwrap() {
        let score = &candidate["score"];
        for factor in ["in_flight", "waiting", "load", "multiplier", "warmth", "stall", "cost"] {
            assert!(score[factor].is_number(), "{factor}: {candidate}");
        }
        assert_eq!((&score["in_flight"], &score["cost"]), (&0.into(), &1.0.into()), "before the pick");
    }
    assert!(standing["rule"].as_str().is_some_and(|rule| rule.contains("cost")));
}

/// Scores are told, or it is told that they were not recorded: never made up.
#[test]
fn what_was_not_recorded_is_said_so() {
    let origin = Origin::answering("ok");
    let evener = unchecked(&[&origin], "");
    let mut client = evener.connect();
    (0..200).for_each(|_| drop(client.get("/").expect_status(200)));
    let ids: Vec<String> =
        origin.requests().iter().filter_map(|seen| seen.header("x-request-id").map(str::to_owned)).collect();
    explained(&evener, &ids[199]);
    let told: Vec<Value> = ids.iter().map(|id| explained(&evener, id)).collect();
    let (with, without): (Vec<&Value>, Vec<&Value>) =
        told.iter().map(|told| &told["attempts"][0]).partition(|attempt| attempt["candidates"].is_object());
    assert!(without.len() > with.len(), "{} of 200 have scores", with.len());
    for attempt in without {
        assert!(attempt["candidates"].is_null());
        assert!(attempt["note"].as_str().is_some_and(|note| note.contains("not recorded")), "{attempt}");
        assert!(attempt["in_flight"].is_number(), "what is free is always there: {attempt}");
    }
}

#[test]
fn nobody_to_pick_tells_of_each_why_not() {
    let (one, two) = (Origin::answering("ok"), Origin::answering("ok"));
    let evener = unchecked(&[&one, &two], "");
    for origin in [&one, &two] {
        let path = format!("/v1/pools/app/upstreams/{}", origin.address_in_a_path());
        evener.admin().patch(&path, r#"{"state": "maintenance"}"#).expect_status(200);
    }
    let answer = evener.get("/").expect_status(503);
    let told = explained(&evener, &id_of(&answer));
    assert_eq!(
        (&told["reason"], &told["attempts"]),
        (&"no_eligible_upstream".into(), &serde_json::json!([]))
    );
    let nobody = &told["nobody"];
    assert_eq!((&nobody["eligible"], &nobody["upstreams"]), (&0.into(), &2.into()), "{told}");
    assert_eq!(nobody["excluded"][0]["why_not"], "maintenance");
    assert_eq!(words(&nobody["candidates"], "why_not"), ["maintenance"; 2]);
}

#[test]
fn one_that_is_too_old_is_a_clear_404_and_a_failed_one_stays() {
    let origin =
        Origin::serving(
            |request| {
                if request.target == "/bad" { Reply::status(500, "no") } else { Reply::ok("ok") }
            },
        );
    let evener = unchecked(&[&origin], "");
    let mut client = evener.connect();
    client.get("/old").expect_status(200);
    client.get("/bad").expect_status(500);
    let ids: Vec<String> =
        origin.requests().iter().filter_map(|seen| seen.header("x-request-id").map(str::to_owned)).collect();
    explained(&evener, &ids[0]);
    (0..1_000).for_each(|_| drop(client.get("/new").expect_status(200)));
    let path = format!("/v1/explain/{}", ids[0]);
    wait_until(PATIENCE, || evener.admin().get(&path).status() == 404);
    let problem = evener.admin().get(&path).expect_status(404).json();
    assert_eq!(problem["type"], "urn:evener:problem:unknown_request");
    assert!(problem["help"].as_str().is_some_and(|help| help.contains("last 1000 requests")), "{problem}");
    let bad = explained(&evener, &ids[1]);
    assert_eq!((&bad["status"], &bad["kept"], &bad["reason"]), (&500.into(), &"failed".into(), &Value::Null));
    let moment = &bad["attempts"][0]["candidates"]["moment"];
    assert!(moment == "failure" || moment == "pick", "{bad}");
}

#[test]
fn requests_are_listed_newest_first_by_what_became_of_them() {
    let origin = Origin::serving(|request| match request.target.as_str() {
        "/bad" => Reply::status(503, "no"),
        "/slow" => Reply::ok("ok").then_sleep(Duration::ZERO),
        _ => Reply::ok("ok"),
    });
    let evener = unchecked(&[&origin], "");
    for (path, status) in [("/one", 200), ("/bad", 503), ("/two", 200)] {
        evener.get(path).expect_status(status);
        explained(&evener, &last_id(&origin));
    }
    let admin = evener.admin();
    let paths = |query: &str| {
        let listed = admin.json(&format!("/v1/requests{query}"));
        words(&listed["requests"], "path").into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(paths(""), ["/two", "/bad", "/one"]);
    assert_eq!(paths("?limit=1"), ["/two"]);
    assert_eq!(paths("?failed=true"), ["/bad"]);
    assert_eq!(paths("?failed=false"), ["/two", "/one"]);
    assert_eq!(paths("?slower_than=1h"), [""; 0]);
    assert_eq!(paths("?slower_than=0s&failed=true&limit=1000"), ["/bad"]);
    let all = admin.json("/v1/requests?limit=2");
    assert_eq!((&all["matched"], &all["seen"]), (&3.into(), &3.into()), "{all}");
    assert_eq!(paths("?kept=failed"), ["/bad"]);
    assert_eq!(paths("?kept=slow"), [""; 0]);
    for wrong in [
        "?kept=lost",
        "?limit=0",
        "?limit=1001",
        "?limit=x",
        "?failed=maybe",
        "?slower_than=5",
        "?faild=true",
    ] {
        let problem = admin.get(&format!("/v1/requests{wrong}")).expect_status(400).json();
        assert!(problem["help"].as_str().is_some_and(|help| !help.is_empty()), "{wrong}: {problem}");
    }
}

#[test]
fn what_a_large_pool_tells_is_bounded() {
    let addresses: Vec<String> =
        (0..1_000).map(|index| format!("\"127.1.{}.{}:9\"", index / 250, index % 250 + 1)).collect();
    let evener = Evener::start(&format!(
        "[pools.app]\nhealth_check = {{ enabled = false }}\nejection = {{ enabled = false }}\nupstreams = [{}]",
        addresses.join(",")
    ));
    let id = id_of(&evener.get("/").expect_status(502));
    let told = explained(&evener, &id);
    assert!(told.to_string().len() < 64 * 1024, "{} bytes", told.to_string().len());
    let attempts = told["attempts"].as_array().unwrap();
    assert!(attempts.len() >= 2 && attempts.len() <= 16, "{}", attempts.len());
    let first = &attempts[0]["candidates"];
    assert_eq!(first["upstreams"], 1_000, "{first}");
    let listed = first["candidates"].as_array().unwrap().len();
    assert!((1..=32).contains(&listed) && first["candidates_omitted"] == 1_000 - listed, "{first}");
    let would = evener.admin().get("/v1/explain?path=/").expect_status(200);
    assert!(would.body().len() < 64 * 1024, "{} bytes", would.body().len());
    assert_eq!(would.json()["pools"][0]["eligible"], 1_000);
}

/// Bounded in length, and never anything but text.
#[test]
fn hostile_paths_and_ids_do_no_harm() {
    let origin = Origin::answering("ok");
    let evener = Evener::start(&format!(
        r#"
        [listeners.http]
        trusted_proxies = ["127.0.0.0/8"]
        [pools.app]
        upstreams = ["{}"]
        "#,
        origin.address()
    ));
    let long = format!("/{}", "a".repeat(3_000));
    let script = "/%3Cscript%3Ealert(1)%3C/script%3E;'%22--%00%ff";
    let ids = ["../../etc/passwd", "a/b@c+d=e:f", &"x".repeat(128), "%2e%2e"];
    for path in [long.as_str(), script] {
        for id in ids.iter().take(3) {
            evener.get_with(path, &format!("X-Request-Id: {id}\r\n")).expect_status(200);
            let told = explained(&evener, id);
            let kept = told["request"]["path"].as_str().unwrap();
            assert!(path.starts_with(kept) && kept.len() <= 256, "{kept}");
            assert_eq!(told["request"]["is_cut"], kept.len() < path.len());
        }
    }
    assert_eq!(explained(&evener, ids[0])["same_id"].as_array().unwrap().len(), 1, "the other path");
    for id in ["%00", "%ff", "..%2f..%2fetc", &"y".repeat(5_000), "%3Cb%3E", "id%0d%0aX: y"] {
        let answer = evener.admin().get(&format!("/v1/explain/{}", id.replace(' ', "%20")));
        assert!((400..=414).contains(&answer.status()), "{id}: {answer}");
        assert!(answer.body().len() < 2_000, "{}", answer.body().len());
    }
}

#[test]
fn what_was_refused_before_it_was_understood_is_found_too() {
    let origin = Origin::answering("ok");
    let evener = unchecked(&[&origin], "");
    let answer = evener.request("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").expect_status(400);
    let told = explained(&evener, &id_of(&answer));
    assert_eq!((&told["reason"], &told["route"]), (&"bad_request".into(), &Value::Null), "{told}");
    assert_eq!((&told["kept"], &told["status"]), (&"refused".into(), &400.into()));
}

#[test]
fn a_client_that_left_is_told_as_one() {
    let origin = Origin::answering("late");
    let evener = unchecked(&[&origin], "");
    origin.hold();
    let mut client = Client::connect(evener.address());
    client.start("GET", "/patience", "", b"");
    origin.wait_for_request();
    client.reset();
    let told = explained(&evener, &last_id(&origin));
    origin.release();
    assert_eq!((&told["status"], &told["reason"]), (&499.into(), &"client_closed".into()), "{told}");
    assert_eq!(told["request"]["path"], "/patience");
    assert_eq!(told["attempts"].as_array().unwrap().len(), 1, "{told}");
}

/// The conditions are told as long as the route is what it was.
#[test]
fn after_a_change_of_the_route_it_is_said_that_why_is_not_known() {
    let origin = Origin::answering("ok");
    let text = |more: &str, prefix: &str| {
        format!(
            "[routes.app]\npath_prefix = \"{prefix}\"\npool = \"app\"\n{more}[pools.app]\nupstreams = [\"{}\"]",
            origin.address()
        )
    };
    let evener = Evener::start(&text("", "/a"));
    evener.get("/a/1").expect_status(200);
    let id = last_id(&origin);
    assert_eq!(explained(&evener, &id)["route"]["why"][1], "the path begins with `/a`");
    evener.reload(&text("[routes.other]\npath_prefix = \"/other\"\npool = \"app\"\n", "/a"));
    assert_eq!(explained(&evener, &id)["route"]["why"][1], "the path begins with `/a`", "it is the same");
    evener.reload(&text("", "/"));
    let told = explained(&evener, &id);
    assert!(told["route"]["why"].is_null() && told["route"]["note"].is_string(), "{told}");
    assert_eq!(told["attempts"][0]["upstream"], origin.address());
}

#[test]
fn the_command_line_tells_it_for_people() {
    let broken = [Origin::serving(|_| Reply::reset()), Origin::serving(|_| Reply::reset())];
    let evener = unchecked(&[&broken[0], &broken[1]], "");
    let id = id_of(&evener.get("/orders").expect_status(502));
    explained(&evener, &id);
    let admin = format!("http://{}", evener.admin_address());
    let said = |arguments: &[&str]| {
        let finished = run_to_end(arguments, &[]);
        finished.stdout + &finished.stderr
    };
    let told = said(&["explain", &id, "--admin", &admin]);
    for part in
        ["GET ", "/orders", "route app", "attempt 1 at", "attempt 2 at", "upstream_reset", "502", "COST"]
    {
        assert!(told.contains(part), "`{part}` is not in {told}");
    }
    let unknown = said(&["explain", "nobody", "--admin", &admin]);
    assert!(unknown.contains("no record of a request `nobody`") && unknown.contains("help"), "{unknown}");
}

/// Real ones are sent, too: what is said of a request that was not made holds for one that is.
#[test]
fn a_head_that_would_be_refused_is_explained_as_refused() {
    let origin = Origin::answering("ok");
    let evener = unchecked(&[&origin], "");
    let admin = format!("http://{}", evener.admin_address());
    for (host, path, headers, status, reason, part) in [
        ("a.example:80", "/a%20b?c=d", &["X-A: b"][..], 200, None, ""),
        ("a.example, b.example", "/", &[], 400, Some("bad_request"), "Host is not a host and port"),
        ("u@a.example", "/", &[], 400, Some("bad_request"), "Host is not a host and port"),
        ("a.example", "/a b", &[], 400, Some("bad_request"), "request line"),
        ("a.example", "/a\u{1}", &[], 400, Some("bad_request"), "control byte"),
        ("a.example", "/a#b", &[], 400, Some("bad_request"), "fragment"),
        ("a.example", "/a?b#c", &[], 400, Some("bad_request"), "fragment"),
        ("a.example", "/", &["Host: a.example"], 400, Some("bad_request"), "more than one Host"),
        (
            "a.example",
            "/",
            &["Content-Length: 1", "Content-Length: 1"],
            400,
            Some("bad_request"),
            "more than one Content-Length",
        ),
    ] {
        let lines = [format!("Host: {host}")].into_iter().chain(headers.iter().map(ToString::to_string));
        let lines: Vec<String> = lines.map(|line| line + "\r\n").collect();
        let sent = format!("GET {path} HTTP/1.1\r\n{}Connection: close\r\n\r\n", lines.concat());
        evener.request(sent).expect_status(status);

        let mut arguments = vec!["explain", path, "--host", host, "--admin", &admin];
        arguments.extend(headers.iter().flat_map(|header| ["--header", header]));
        let told = run_to_end(&arguments, &[]).stdout;
        assert!(told.contains(part), "{told}");
        assert_eq!(told.contains("takes the route app"), status == 200, "{told}");
        let json = run_to_end(&[&arguments[..], &["--json"]].concat(), &[]).stdout;
        let json: Value = serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error}: {json}"));
        assert_eq!(json["reason"].as_str(), reason, "{json}");
        assert_eq!(json["status"].as_u64(), reason.map(|_| status.into()), "{json}");
    }
    // A line end within a path begins no further line.
    for query in ["host=a&path=/%20HTTP/1.1%0d%0aX:%20y", "host=a%0d%0aX:%20y", "host=a&path=/%0a"] {
        let told = evener.admin().json(&format!("/v1/explain?{query}"));
        assert_eq!(
            (&told["reason"], &told["pools"]),
            (&"bad_request".into(), &serde_json::json!([])),
            "{told}"
        );
    }
}
