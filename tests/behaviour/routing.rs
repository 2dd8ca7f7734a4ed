//! ROUTE: which pool a request goes to, what is edited on the way, and what happens when nobody wants it.

use std::time::Duration;

use crate::rig::{Evener, Origin};

/// An Evener with two pools, `one` and `two`, and these routes.
fn two_pools(routes: &str) -> (Evener, Origin, Origin) {
    let (one, two) = (Origin::answering("one"), Origin::answering("two"));
    let evener = Evener::start(&format!(
        r#"
        {routes}
        [pools.one]
        upstreams = ["{one}"]
        [pools.two]
        upstreams = ["{two}"]
        "#,
        one = one.address(),
        two = two.address(),
    ));
    (evener, one, two)
}

fn body_for_host(evener: &Evener, host: &str) -> String {
    evener.get_with("/", &format!("Host: {host}\r\n")).expect_status(200).body()
}

#[test]
fn a_file_without_routes_sends_everything_to_its_only_pool() {
    let origin = Origin::answering("only");
    let evener = Evener::start(&format!("[pools.app]\nupstreams = [\"{}\"]", origin.address()));

    assert_eq!(evener.get("/").body(), "only");
    assert_eq!(evener.get_with("/any/path?q=1", "Host: any.example\r\n").body(), "only");
    assert_eq!(evener.post("/", b"x").body(), "only");
}

#[test]
fn the_longer_prefix_wins_whatever_the_order() {
    let (evener, _one, _two) = two_pools(
        r#"
        [routes.everything]
        pool = "one"
        [routes.users]
        path_prefix = "/v1/users"
        pool = "two"
        [routes.api]
        path_prefix = "/v1"
        pool = "one"
        "#,
    );
    assert_eq!(evener.get("/v1/users/7").body(), "two");
    assert_eq!(evener.get("/v1/users").body(), "two");
    assert_eq!(evener.get("/v1/users?id=7").body(), "two");
    assert_eq!(evener.get("/v1/other").body(), "one");
    assert_eq!(evener.get("/").body(), "one");
}

#[test]
fn a_prefix_matches_whole_segments_only() {
    let (evener, _one, _two) = two_pools(
        r#"
        [routes.everything]
        pool = "one"
        [routes.v1]
        path_prefix = "/v1"
        pool = "two"
        "#,
    );
    assert_eq!(evener.get("/v1/x").body(), "two");
    assert_eq!(evener.get("/v10").body(), "one");
}

#[test]
fn an_exact_host_beats_a_wildcard_and_a_wildcard_beats_any() {
    let (evener, _one, _two) = two_pools(
        r#"
        [routes.any]
        pool = "one"
        [routes.wildcard]
        hosts = ["*.example.com"]
        pool = "two"
        [routes.exact]
        hosts = ["api.example.com"]
        pool = "one"
        "#,
    );
    assert_eq!(body_for_host(&evener, "api.example.com"), "one");
    assert_eq!(body_for_host(&evener, "www.example.com"), "two");
    assert_eq!(
        body_for_host(&evener, "example.com"),
        "one",
        "the wildcard stands for one label, not for none"
    );
    assert_eq!(body_for_host(&evener, "a.b.example.com"), "one", "nor for two");
}

#[test]
fn hosts_are_compared_without_case_and_port() {
    let (evener, _one, _two) = two_pools(
        r#"
        [routes.any]
        pool = "one"
        [routes.api]
        hosts = ["api.example.com"]
        pool = "two"
        "#,
    );
    assert_eq!(body_for_host(&evener, "API.Example.COM:8080"), "two");
    assert_eq!(body_for_host(&evener, "api.example.com.evil.test"), "one");
}

#[test]
fn methods_and_headers_are_conditions() {
    let (evener, _one, _two) = two_pools(
        r#"
        [routes.any]
        pool = "one"
        [routes.reads]
        path_prefix = "/reads"
        methods = ["GET", "HEAD"]
        pool = "two"
        [routes.canary]
        headers = { "x-canary" = "1" }
        pool = "two"
        "#,
    );
    assert_eq!(evener.get("/reads").body(), "two");
    assert_eq!(evener.post("/reads", b"x").body(), "one");
    assert_eq!(evener.get_with("/", "X-Canary: 1\r\n").body(), "two");
    assert_eq!(evener.get_with("/", "X-Canary: 2\r\n").body(), "one");
}

/// pingap answers 500 (pingap, finding 8).
#[test]
fn no_route_is_a_404() {
    let (evener, one, two) = two_pools(
        r#"
        [routes.api]
        hosts = ["api.example.com"]
        pool = "one"
        "#,
    );
    let answer = evener.get_with("/", "Host: nobody.example.com\r\n").expect_status(404);

    assert!(answer.body().contains("no route"), "{answer}");
    assert_eq!(one.requests_seen() + two.requests_seen(), 0);
    evener.admin().expect_metric("evener_refusals_total", &["reason=\"no_route\""], 1.0);
}

#[test]
fn a_split_follows_its_weights() {
    let (evener, one, two) = two_pools(
        r#"
        [routes.canary]
        split = [{ pool = "one", weight = 3 }, { pool = "two", weight = 1 }]
        "#,
    );
    let mut client = evener.connect();
    for _ in 0..400 {
        client.get("/").expect_status(200);
    }
    let shares = (one.requests_seen(), two.requests_seen());
    assert_eq!(shares.0 + shares.1, 400);
    // A fair coin of 3:1 leaves this range once in more than ten million runs.
    assert!((250..=350).contains(&shares.0), "{shares:?}");
}

#[test]
fn a_stripped_prefix_leaves_the_rest_as_it_was() {
    let (evener, one, _) = two_pools(
        r#"
        [routes.api]
        path_prefix = "/api"
        strip_prefix = true
        pool = "one"
        "#,
    );
    evener.get("/api/users?id=a%2Fb").expect_status(200);
    evener.get("/api").expect_status(200);
    evener.get("/api?x=1").expect_status(200);

    let targets: Vec<String> = one.requests().into_iter().map(|request| request.target).collect();
    assert_eq!(targets, ["/users?id=a%2Fb", "/", "/?x=1"]);
}

#[test]
fn a_target_passes_byte_for_byte() {
    let (evener, one, _) = two_pools("[routes.all]\npool = \"one\"");
    let targets = ["/a%2Fb//c?x=1&&y=%20z", "/?", "/%7Eme/;v=1", "/a?b?c=d/e"];
    for target in targets {
        evener.get(target).expect_status(200);
    }
    let seen: Vec<String> = one.requests().into_iter().map(|request| request.target).collect();
    assert_eq!(seen, targets);
}

#[test]
fn headers_are_removed_and_set_both_ways() {
    let origin = Origin::serving(|_| {
        crate::rig::Reply::with_headers(200, "Server: secret/1.0\r\nX-Kept: yes\r\n", "ok")
    });
    let evener = Evener::start(&format!(
        r#"
        [routes.all]
        pool = "app"
        request_headers = {{ set = {{ "x-served-by" = "evener" }}, remove = ["cookie"] }}
        response_headers = {{ set = {{ "x-frame-options" = "DENY" }}, remove = ["server"] }}
        [pools.app]
        upstreams = ["{}"]
        "#,
        origin.address()
    ));
    let answer = evener.get_with("/", "Cookie: a=b\r\nX-Served-By: client\r\n").expect_status(200);
    let request = origin.only_request();

    assert_eq!(request.values("x-served-by"), ["evener"]);
    assert_eq!(request.header("cookie"), None);
    assert_eq!(answer.header("x-frame-options"), Some("DENY"));
    assert_eq!(answer.header("server"), None);
    assert_eq!(answer.header("x-kept"), Some("yes"));
}

#[test]
fn the_timeout_of_a_route_is_a_504() {
    let origin = Origin::serving(|_| crate::rig::Reply::hang());
    let evener = Evener::start(&format!(
        r#"
        [routes.quick]
        path_prefix = "/quick"
        timeout = "300ms"
        pool = "app"
        [pools.app]
        upstreams = ["{}"]
        "#,
        origin.address()
    ));
    let started = std::time::Instant::now();
    evener.get("/quick").expect_status(504);
    assert!(started.elapsed() >= Duration::from_millis(290), "{:?}", started.elapsed());
    evener.admin().expect_metric("evener_refusals_total", &["reason=\"upstream_timeout\""], 1.0);
}

#[test]
fn every_listener_serves_under_its_own_name() {
    let origin = Origin::answering("ok");
    let second = std::net::SocketAddr::from(([127, 0, 0, 1], crate::rig::reserve_port()));
    let evener = Evener::start(&format!(
        "[listeners.http]\n[listeners.inner]\naddress = \"{second}\"\n[pools.app]\nupstreams = [\"{}\"]",
        origin.address()
    ));
    evener.get("/").expect_status(200);
    (0..2).for_each(|_| drop(crate::rig::Client::connect(second).get("/").expect_status(200)));
    for (listener, requests) in [("http", 1.0), ("inner", 2.0)] {
        let label = format!("listener=\"{listener}\"");
        evener.admin().expect_metric("evener_requests_total", &[&label], requests);
    }
}
