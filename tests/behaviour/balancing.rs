//! PICK, end to end: each strategy spreads requests as it says, and no setting of an upstream is idle.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::rig::{Background, Client, Evener, Load, Origin, Reply, wait_until};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

const STRATEGIES: [&str; 5] =
    ["round_robin", "least_connections", "latency_weighted", "random_two", "consistent_hash"];

fn origins(count: usize) -> Vec<Origin> {
    (0..count).map(|index| Origin::answering(&index.to_string())).collect()
}

fn addresses(origins: &[Origin]) -> String {
    origins.iter().map(|origin| format!("\"{}\"", origin.address())).collect::<Vec<_>>().join(", ")
}

/// One pool `app` of these origins; `settings` are further lines of the pool.
fn pool_of(origins: &[Origin], settings: &str) -> Evener {
    Evener::start(&format!("[pools.app]\nupstreams = [{}]\n{settings}", addresses(origins)))
}

/// How many requests each origin took.
fn shares(origins: &[Origin]) -> Vec<usize> {
    origins.iter().map(Origin::requests_seen).collect()
}

fn send(evener: &Evener, requests: usize) {
    let mut client = evener.connect();
    for _ in 0..requests {
        client.get("/").expect_status(200);
    }
}

#[test]
fn every_strategy_serves_and_uses_everybody() {
    for strategy in STRATEGIES {
        let origins = origins(3);
        let hash = if strategy == "consistent_hash" { "hash = { header = \"x-user\" }" } else { "" };
        let evener = pool_of(&origins, &format!("strategy = \"{strategy}\"\n{hash}"));
        let mut client = evener.connect();
        for user in 0..120 {
            client.request("GET", "/", &format!("X-User: {user}\r\n"), b"").expect_status(200);
        }
        let shares = shares(&origins);
        assert_eq!(shares.iter().sum::<usize>(), 120, "{strategy}");
        assert!(shares.iter().all(|&share| share > 0), "{strategy}: {shares:?}");
    }
}

/// Pingora's own weighting sends five in a row to one upstream.
#[test]
fn weights_are_mixed_not_bursty() {
    let origins = origins(3);
    let [a, b, c] = [0, 1, 2].map(|index: usize| origins[index].address());
    let evener = Evener::start(&format!(
        r#"[pools.app]
        upstreams = [{{ address = "{a}", weight = 5 }}, "{b}", "{c}"]"#
    ));
    let mut client = evener.connect();
    let served: String = (0..14).map(|_| client.get("/").body()).collect();

    assert_eq!(shares(&origins), [10, 2, 2]);
    // Two cycles of `a a b a c a a`, entered anywhere: never more than four of the heavy one in a row.
    assert!(!served.contains("00000"), "{served}");
}

/// envoy#37369: each worker with a cursor of its own is several round robins.
#[test]
fn round_robin_is_one_round_robin() {
    let origins = origins(4);
    let evener = pool_of(&origins, "");
    let address = evener.address();
    let clients: Vec<Background<()>> = (0..40)
        .map(|_| {
            Background::run(move || {
                let mut client = Client::connect(address);
                for _ in 0..100 {
                    client.get("/").expect_status(200);
                }
            })
        })
        .collect();
    clients.into_iter().for_each(Background::join);

    let shares = shares(&origins);
    assert_eq!(shares.iter().sum::<usize>(), 4000);
    let spread = shares.iter().max().unwrap() - shares.iter().min().unwrap();
    assert!(spread <= 4, "{shares:?}");
}

/// Pingora's fallback: the upstream after a dead one takes its share on top of its own.
#[test]
fn the_neighbour_of_a_dead_upstream_does_not_serve_double() {
    let origins = [Origin::answering("0"), Origin::absent(), Origin::answering("2")];
    let [a, b, c] = [0, 1, 2].map(|index: usize| origins[index].address());
    let evener = Evener::start(&format!(
        r#"[pools.app]
        upstreams = [{{ address = "{a}", weight = 2 }}, "{b}", "{c}"]"#
    ));
    send(&evener, 300);
    let shares = shares(&origins);
    assert!((198..=202).contains(&shares[0]), "67:33, not 50:50: {shares:?}");
}

/// A rival looks at a window of four and gives up.
#[test]
fn nobody_healthy_is_out_of_reach() {
    let origins: Vec<Origin> = (0..10)
        .map(|index| if (2..8).contains(&index) { Origin::absent() } else { Origin::answering("up") })
        .collect();
    let evener = pool_of(&origins, "");
    send(&evener, 1000);
    let shares = shares(&origins);
    assert!(shares.iter().filter(|&&share| share > 0).all(|share| (248..=252).contains(share)), "{shares:?}");
}

#[test]
fn least_connections_avoids_the_busy_one() {
    assert_eq!(share_of_a_busy_one("least_connections", 1, 50), 0);
}

/// caddy#7873: the two choices were the same one half of the time, and it got 50.2 %.
#[test]
fn the_better_of_two_is_really_compared() {
    let got = share_of_a_busy_one("random_two", 10, 400);
    assert!(got < 20, "{got} of 400 went to the busy one");
}

/// Of two upstreams, one holds this many requests; how many of the next ones does it get?
fn share_of_a_busy_one(strategy: &str, held: usize, requests: usize) -> usize {
    let gates = [Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false))];
    let origins = gates.clone().map(holding_behind);
    let evener = pool_of(&origins, &format!("strategy = \"{strategy}\""));
    let under_way: Vec<_> = (0..2 * held).map(|_| evener.get_in_background("/held")).collect();
    wait_until(Duration::from_secs(20), || shares(&origins).iter().sum::<usize>() == 2 * held);
    let before = origins[0].requests_seen();
    assert!(before > 0, "nothing went there");
    gates[1].store(true, Ordering::Relaxed);
    wait_until(Duration::from_secs(20), || {
        evener.admin().upstream("app", &origins[1])["in_flight"].as_u64() == Some(0)
    });

    send(&evener, requests);

    let got = origins[0].requests_seen() - before;
    gates[0].store(true, Ordering::Relaxed);
    under_way.into_iter().for_each(|request| drop(request.join().expect_status(200)));
    got
}

/// Answers at once, except for `/held`, which waits for the gate to open.
fn holding_behind(gate: Arc<AtomicBool>) -> Origin {
    Origin::serving(move |request| {
        while request.target == "/held" && !gate.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(5));
        }
        Reply::ok("ok")
    })
}

#[test]
fn latency_weighted_prefers_the_fast_and_does_not_starve_the_slow() {
    let origins = [
        Origin::answering("fast").after(Duration::from_millis(2)),
        // Far more than a machine under load adds to both.
        Origin::answering("slow").after(Duration::from_millis(250)),
    ];
    let evener = pool_of(&origins, "strategy = \"latency_weighted\"");
    let address = evener.address();
    let clients: Vec<Background<()>> = (0..4)
        .map(|_| {
            Background::run(move || {
                let mut client = Client::connect(address);
                (0..100).for_each(|_| drop(client.get("/").expect_status(200)));
            })
        })
        .collect();
    clients.into_iter().for_each(Background::join);
    let shares = shares(&origins);
    assert!(shares[0] > 3 * shares[1], "{shares:?}");
    assert!(shares[1] > 0, "{shares:?}");
}

#[test]
fn consistent_hash_keeps_a_key_on_its_upstream() {
    let origins = origins(4);
    let settings = "strategy = \"consistent_hash\"\nhash = { header = \"x-user\" }";
    let evener = pool_of(&origins, settings);
    let ask = |user: usize| {
        // A key leaves its upstream when that one has more than its part of what is in flight.
        evener.admin().wait_for_rest();
        evener.get_with("/", &format!("X-User: user-{user}\r\n")).expect_status(200).body()
    };

    let first: Vec<String> = (0..60).map(ask).collect();
    let again: Vec<String> = (0..60).map(ask).collect();

    assert_eq!(first, again);
    let mut homes = BTreeMap::new();
    first.iter().for_each(|home| *homes.entry(home).or_insert(0) += 1);
    assert_eq!(homes.len(), 4, "sixty users live in all four: {homes:?}");
}

#[test]
fn consistent_hash_moves_only_the_keys_of_the_dead() {
    let origins = origins(4);
    let settings = "strategy = \"consistent_hash\"\nhash = { path = true }";
    let evener = pool_of(&origins, settings);
    let ask = |key: usize| {
        evener.admin().wait_for_rest();
        evener.get(&format!("/{key}?q=ignored")).expect_status(200).body()
    };
    let before: Vec<String> = (0..60).map(ask).collect();

    origins[1].die();

    let after: Vec<String> = (0..60).map(ask).collect();
    for (key, (before, after)) in before.iter().zip(&after).enumerate() {
        assert!(before == after || before == "1", "key {key} moved from {before} to {after}");
        assert_ne!(after, "1");
    }
}

#[test]
fn consistent_hash_reads_cookies_and_addresses() {
    for (hash, headers) in
        [("cookie = \"session\"", "Cookie: a=1; session=s7; b=2\r\n"), ("client_ip = true", "")]
    {
        let origins = origins(4);
        let evener = pool_of(&origins, &format!("strategy = \"consistent_hash\"\nhash = {{ {hash} }}"));
        let homes: Vec<String> = (0..20)
            .map(|turn| {
                evener.admin().wait_for_rest();
                evener.get_with(&format!("/{turn}"), headers).expect_status(200).body()
            })
            .collect();
        assert!(homes.iter().all(|home| *home == homes[0]), "{hash}: {homes:?}");
    }
}

#[test]
fn a_backup_serves_only_when_no_other_can() {
    let (main, backup) = (Origin::answering("main"), Origin::answering("backup"));
    let evener = Evener::start(&format!(
        r#"[pools.app]
        upstreams = ["{}", {{ address = "{}", backup = true }}]
        health_check = {{ path = "/healthz", interval = "200ms", fast_interval = "100ms", rise = 1, fall = 1 }}"#,
        main.address(),
        backup.address()
    ));
    for _ in 0..10 {
        assert_eq!(evener.get("/").body(), "main");
    }
    main.die();
    for _ in 0..10 {
        assert_eq!(evener.get("/").expect_status(200).body(), "backup");
    }
    main.listen_again();
    wait_until(Duration::from_secs(20), || evener.get("/").body() == "main");
}

#[test]
fn weight_zero_takes_no_new_requests() {
    let origins = origins(2);
    let evener = Evener::start(&format!(
        r#"[pools.app]
        upstreams = [{{ address = "{}", weight = 0 }}, "{}"]"#,
        origins[0].address(),
        origins[1].address()
    ));
    send(&evener, 20);
    assert_eq!(shares(&origins), [0, 20]);
    let shown = evener.admin().upstream("app", &origins[0]);
    assert_eq!(shown["eligible"], false, "{shown}");
    assert!(shown["why_not"].is_string(), "{shown}");
}

#[test]
fn max_connections_of_an_upstream_is_kept() {
    let origins = origins(2);
    let evener = Evener::start(&format!(
        r#"[pools.app]
        upstreams = [{{ address = "{}", max_connections = 2 }}, "{}"]"#,
        origins[0].address(),
        origins[1].address()
    ));
    origins[0].hold();
    let under_way: Vec<_> = (0..12).map(|_| evener.get_in_background("/")).collect();
    wait_until(Duration::from_secs(20), || shares(&origins) == [2, 10]);
    origins[0].release();
    for request in under_way {
        request.join().expect_status(200);
    }
    assert_eq!(origins[0].most_under_way(), 2);
}

/// ingress-nginx#9882, envoy#39737: who fails at once looks fast, and draws all traffic into the hole.
#[test]
fn failing_fast_does_not_attract_traffic() {
    for strategy in ["latency_weighted", "least_connections"] {
        let slowly = || Reply::default().then_sleep(Duration::from_millis(20)).then(Reply::ok("ok"));
        let origins: Vec<Origin> = (0..4).map(|_| Origin::serving(move |_| slowly())).collect();
        let evener =
            pool_of(&origins, &format!("strategy = \"{strategy}\"\nejection = {{ enabled = false }}"));
        let load = Load::on(evener.address(), 8);
        thread::sleep(Duration::from_secs(1));
        origins[0].answer_by(|_| Reply::status(503, "no"));
        // What it takes to notice is a few failures; what counts is that it stays noticed.
        thread::sleep(Duration::from_millis(500));
        let before = shares(&origins);
        thread::sleep(Duration::from_secs(2));
        let after = shares(&origins);
        load.stop();

        let served: Vec<usize> = before.iter().zip(&after).map(|(before, after)| after - before).collect();
        let total: usize = served.iter().sum();
        assert!(served[0] * 4 <= total, "{strategy}: more than its fair share: {served:?}");
    }
}
