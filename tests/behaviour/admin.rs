//! The side port: what is asked, and that the answer agrees with what the upstreams counted.

use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::rig::{Background, Client, Evener, Load, Origin, Reply, wait_until};

fn two() -> (Evener, Origin, Origin) {
    let (one, two) = (Origin::answering("one"), Origin::answering("two"));
    let evener = Evener::start(&format!(
        "[pools.app]\nstrategy = \"least_connections\"\nupstreams = [\"{}\", \"{}\"]",
        one.address(),
        two.address()
    ));
    (evener, one, two)
}

#[test]
fn every_page_of_this_release_is_there() {
    let (evener, one, _two) = two();
    let upstream = format!("/v1/pools/app/upstreams/{}", one.address());
    for path in [
        "/health",
        "/health/ready",
        "/v1/status",
        "/v1/stats",
        "/v1/pools",
        "/v1/pools/app",
        &upstream,
        "/v1/pools/app/next",
        "/v1/explain?path=/users",
        "/openapi.json",
        "/api/infrastructure/load-balancer/status",
        "/api/infrastructure/load-balancer/next-server",
        "/api/infrastructure/load-balancer/next-server?strategy=round_robin",
        "/api/infrastructure/stats",
        "/api/monitoring/health",
        "/api/monitoring/metrics",
    ] {
        let answer = evener.admin().get(path).expect_status(200);
        assert!(answer.header("content-type").is_some_and(|kind| kind.contains("json")), "{path}: {answer}");
        assert!(answer.json().is_object() || answer.json().is_array(), "{path}");
    }
    for path in ["/livez", "/readyz", "/metrics"] {
        evener.admin().get(path).expect_status(200);
    }
}

#[test]
fn every_page_is_in_the_machine_readable_index() {
    let (evener, _one, _two) = two();
    let index = evener.admin().json("/openapi.json");
    let paths = index["paths"].as_object().unwrap();
    for path in ["/livez", "/readyz", "/metrics", "/v1/status", "/v1/pools/{pool}", "/v1/explain"] {
        assert!(paths.contains_key(path), "{path} is not in {:?}", paths.keys());
    }
}

#[test]
fn an_upstream_shows_all_its_members() {
    let (evener, one, _two) = two();
    for _ in 0..10 {
        evener.get("/").expect_status(200);
    }
    let shown = evener.admin().upstream("app", &one);
    for member in [
        "address",
        "pool",
        "weight",
        "state",
        "health",
        "ejected_until",
        "eligible",
        "why_not",
        "in_flight",
        "requests",
        "errors",
        "failures",
        "latency_ms",
        "last_check",
        "consecutive_failures",
        "backup",
        "source",
    ] {
        assert!(shown.get(member).is_some(), "`{member}` is not in {shown}");
    }
    assert_eq!(shown["address"], one.address());
    assert_eq!(shown["pool"], "app");
    assert_eq!(shown["weight"], 1);
    assert_eq!(shown["state"], "ready");
    assert_eq!(shown["health"], "up");
    assert_eq!(shown["eligible"], true);
    assert!(shown["why_not"].is_null(), "{shown}");
    assert_eq!(shown["source"], "file");
}

#[test]
fn the_figures_agree_with_what_the_upstreams_counted() {
    let (evener, one, two) = two();
    let address = evener.address();
    let clients: Vec<Background<()>> = (0..8)
        .map(|_| {
            Background::run(move || {
                let mut client = Client::connect(address);
                (0..50).for_each(|_| drop(client.get("/").expect_status(200)));
            })
        })
        .collect();
    clients.into_iter().for_each(Background::join);

    assert_eq!(one.requests_seen() + two.requests_seen(), 400);
    for origin in [&one, &two] {
        wait_until(Duration::from_secs(20), || {
            let shown = evener.admin().upstream("app", origin);
            shown["in_flight"] == 0 && shown["latency_ms"]["ewma"].is_number()
        });
        let shown = evener.admin().upstream("app", origin);
        assert_eq!(shown["requests"].as_u64(), u64::try_from(origin.requests_seen()).ok(), "{shown}");
        assert_eq!(shown["in_flight"], 0, "{shown}");
        assert_eq!(shown["errors"], 0, "{shown}");
        assert!(shown["latency_ms"]["ewma"].as_f64().is_some_and(|it| it > 0.0), "{shown}");
        let label = format!("upstream=\"{}\"", origin.address());
        let shown_requests = shown["requests"].as_f64().unwrap();
        evener.admin().expect_metric("evener_upstream_requests_total", &[&label], shown_requests);
    }
}

/// pingap, finding 13: some requests were in no series.
#[test]
fn series_sum_to_the_requests_sent() {
    let origin = Origin::answering("ok");
    let evener = Evener::start(&format!(
        "[routes.a]\nhosts = [\"a\"]\npool = \"app\"\n[pools.app]\nupstreams = [\"{}\"]",
        origin.address()
    ));
    let mut client = evener.connect();
    for turn in 0..300 {
        let host = if turn % 10 == 0 { "Host: nobody\r\n" } else { "Host: a\r\n" };
        client.request("GET", "/", host, b"");
    }
    evener.admin().expect_metric("evener_requests_total", &["route=\"a\""], 270.0);
    evener.admin().expect_metric("evener_refusals_total", &["reason=\"no_route\""], 30.0);
}

/// Labels come from the configuration, never from the request.
#[test]
fn strange_requests_add_no_series() {
    let (evener, _one, _two) = two();
    evener.get("/").expect_status(200);
    evener.post("/", b"x").expect_status(200);
    evener.admin().expect_metric("evener_requests_total", &[], 2.0);
    let series =
        || evener.admin().get("/metrics").body().lines().filter(|line| !line.starts_with('#')).count();
    let before = series();
    for turn in 0..50 {
        let mut client = evener.connect();
        let host = format!("Host: host-{turn}.example\r\n");
        client.request(&format!("METHOD{turn}"), &format!("/path/{turn}?q={turn}"), &host, b"");
    }
    assert_eq!(series(), before);
}

#[test]
fn prometheus_has_no_complaint_about_the_metrics() {
    let (evener, _one, _two) = two();
    evener.get("/").expect_status(200);
    let text = evener.admin().get("/metrics").expect_status(200).body();
    assert!(text.contains("evener_build_info"), "{text}");
    let checker = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut checker) = checker else {
        eprintln!("promtool is not installed (`make setup` installs it); the check is left out");
        return;
    };
    checker.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = checker.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
}

#[test]
fn the_next_pick_is_told_with_the_reasons_against_the_others() {
    let (alive, gone) = (Origin::answering("alive"), Origin::absent());
    let evener =
        Evener::start(&format!("[pools.app]\nupstreams = [\"{}\", \"{}\"]", alive.address(), gone.address()));
    let next = evener.admin().json("/v1/pools/app/next").to_string();
    assert!(next.contains(&alive.address()) && next.contains(&gone.address()), "{next}");
    let server = evener.admin().json("/api/infrastructure/load-balancer/next-server").to_string();
    assert!(server.contains(&alive.address()) && !server.contains(&gone.address()), "{server}");
}

#[test]
fn explain_names_the_route_and_the_pool() {
    let origin = Origin::answering("ok");
    let evener = Evener::start(&format!(
        r#"
        [routes.users]
        hosts = ["api.example"]
        path_prefix = "/users"
        methods = ["GET"]
        pool = "people"
        [pools.people]
        upstreams = ["{}"]
        "#,
        origin.address()
    ));
    let found = evener.admin().json("/v1/explain?host=api.example&method=GET&path=/users/7").to_string();
    for part in ["users", "people", &origin.address()] {
        assert!(found.contains(part), "`{part}` is not in {found}");
    }
    let none = evener.admin().json("/v1/explain?host=other.example&path=/").to_string();
    assert!(none.contains("no_route") && !none.contains("people"), "{none}");
    assert_eq!(origin.requests_seen(), 0, "explaining asks nobody");
}

#[test]
fn what_is_not_there_is_a_problem_with_help() {
    let (evener, _one, _two) = two();
    for path in
        ["/v1/pools/nobody", "/v1/pools/app/upstreams/127.0.0.1:1", "/v1/nothing", "/v1/pools/nobody/next"]
    {
        let answer = evener.admin().get(path).expect_status(404);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{path}: {answer}");
        let problem = answer.json();
        for member in ["type", "title", "status", "detail", "help"] {
            assert!(problem.get(member).is_some(), "`{member}` is not in {problem}");
        }
        assert_eq!(problem["status"], 404);
    }
}

#[test]
fn the_wrong_method_is_a_405() {
    let (evener, _one, _two) = two();
    evener.admin().post("/v1/status", "{}").expect_status(405);
    let answer = evener.admin().get("/v1/pools/app/health-check");
    assert!(matches!(answer.status(), 404 | 405), "{answer}");
}

/// A page in a browser may not talk to a port on the machine of whoever reads it.
#[test]
fn strangers_in_a_browser_are_turned_away() {
    let (evener, _one, _two) = two();
    let admin = evener.admin();
    let rebound = admin.get_with("/v1/status", "Host: evil.example\r\n");
    assert!((400..500).contains(&rebound.status()), "{rebound}");
    let cross = admin.send_with(
        "POST",
        "/v1/pools/app/health-check",
        "Origin: http://evil.example\r\nSec-Fetch-Site: cross-site\r\nContent-Length: 0\r\n",
    );
    assert!((400..500).contains(&cross.status()), "{cross}");
    admin.send_with("POST", "/v1/pools/app/health-check", "Content-Length: 0\r\n").expect_status(200);
}

#[test]
fn a_body_that_never_comes_is_not_waited_for() {
    let (evener, _one, _two) = two();
    let answer =
        evener.admin().send_with("POST", "/v1/pools/app/health-check", "Content-Length: 99999999999\r\n");
    assert!(matches!(answer.status(), 200 | 413), "{answer}");
}

#[test]
fn the_side_port_answers_while_traffic_is_saturated() {
    let origin = Origin::serving(|_| Reply::ok("ok"));
    let evener =
        Evener::start(&format!("[server]\nthreads = 1\n[pools.app]\nupstreams = [\"{}\"]", origin.address()));
    let load = Load::on(evener.address(), 16);
    for _ in 0..10 {
        let started = Instant::now();
        evener.admin().json("/v1/pools");
        evener.admin().get("/metrics").expect_status(200);
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
        thread::sleep(Duration::from_millis(50));
    }
    let answers = load.stop();
    assert!(answers.keys().eq([&200]), "{answers:?}");
}

#[test]
fn the_platforms_dashboard_finds_its_figures() {
    let (evener, one, _two) = two();
    (0..6).for_each(|_| drop(evener.get("/").expect_status(200)));
    let status = evener.admin().json("/api/infrastructure/load-balancer/status");
    assert!(status.to_string().contains("least_connections"), "{status}");
    assert!(status.to_string().contains(&one.address()), "{status}");
    wait_until(Duration::from_secs(20), || {
        evener.admin().json("/api/monitoring/health")["app"]["requests"] == 6
    });
    let health = evener.admin().json("/api/monitoring/health");
    assert!(health["status"].is_string() && !health["timestamp"].is_null(), "{health}");
    for member in ["requests", "errors", "errorRate", "avgResponseTime", "uptime"] {
        assert!(health["app"].get(member).is_some(), "`{member}` is not in {health}");
    }
    evener.admin().post("/api/infrastructure/load-balancer/health-check", "").expect_status(200);
}

#[test]
fn the_status_page_says_what_runs() {
    let (evener, _one, _two) = two();
    let status = evener.admin().json("/v1/status");
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"), "{status}");
    assert!(status["uptime_seconds"].is_number(), "{status}");
    assert_eq!(status["generation"], 1, "{status}");
}
