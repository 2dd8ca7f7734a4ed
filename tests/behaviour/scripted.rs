//! The scripted servers of the benchmark harness, behind the real binary.

use std::time::{Duration, Instant};

use evener::bench::scenario::{Act, Fate, Load, Request, Scenario};
use evener::bench::server::Fleet;

use crate::rig::{Evener, wait_until};

/// Servers to which this happens.
fn scenario(servers: usize, script: Vec<Act>) -> Scenario {
    Scenario {
        name: "scripted".to_owned(),
        what: "a play".to_owned(),
        expected: "nobody notices".to_owned(),
        is_short: false,
        servers,
        workers: 4,
        balancers: 1,
        threads: 1,
        load: Load::Clients(1),
        request: Request { answer: 100, ..Request::default() },
        script,
        reload_every: None,
        duration: Duration::from_secs(60),
        warmup: Duration::ZERO,
        timeout: Duration::from_secs(2),
        candidates: Vec::new(),
        expectations: Vec::new(),
    }
}

/// Evener checks that they take connections, as in every scenario of the harness.
fn in_front_of(fleet: &Fleet) -> Evener {
    let addresses: Vec<String> = fleet.addresses().iter().map(|address| format!("\"{address}\"")).collect();
    Evener::start(&format!("[pools.app]\nupstreams = [{}]", addresses.join(", ")))
}

/// Who answered, and how well.
fn ask(evener: &Evener) -> (u16, String) {
    let response = evener.connect().request("GET", "/", "x-bench-work: 500\r\n", b"");
    (response.status(), response.header("x-bench-server").unwrap_or_default().to_owned())
}

#[test]
fn a_scripted_server_that_fails_is_ejected_and_the_others_serve() {
    let fail = Fate::Fail { status: 500, share: 1.0, latency: Duration::from_millis(1) };
    let failing = Act { server: 1, from: Duration::ZERO, until: Duration::MAX, fate: fail };
    let fleet = Fleet::start(&scenario(3, vec![failing]), 1).expect("it starts");
    let evener = in_front_of(&fleet);
    let mut servers: Vec<String> = (0..3).map(|_| ask(&evener).1).collect();
    servers.sort();
    assert_eq!(servers, ["0", "1", "2"], "before the turn all are well");

    fleet.begin(Instant::now());

    let mut answers = Vec::new();
    wait_until(Duration::from_secs(60), || {
        answers.push(ask(&evener));
        answers.len() > 9 && answers[answers.len() - 9..].iter().all(|(status, _)| *status == 200)
    });
    let failures: Vec<_> = answers.iter().filter(|(status, _)| *status != 200).collect();
    assert!(failures.len() >= 5, "it takes five to be ejected: {answers:?}");
    assert!(failures.iter().all(|(status, server)| (*status, server.as_str()) == (500, "1")), "{answers:?}");
    assert!(answers.iter().rev().take(9).all(|(_, server)| server != "1"), "{answers:?}");
}

/// A killed server is a port that refuses, and then the same port again.
#[test]
fn a_scripted_server_that_is_killed_comes_back() {
    let down = Act { server: 0, from: Duration::ZERO, until: Duration::from_secs(5), fate: Fate::Down };
    let fleet = Fleet::start(&scenario(2, vec![down]), 1).expect("it starts");
    let addresses: Vec<String> = fleet.addresses().iter().map(|address| format!("\"{address}\"")).collect();
    let evener = Evener::start(&format!(
        "[pools.app]\nupstreams = [{}]\nhealth_check = {{ interval = \"200ms\" }}",
        addresses.join(", ")
    ));
    fleet.begin(Instant::now());
    let eligible = || evener.admin().json("/v1/pools")["pools"][0]["eligible"].as_u64();
    wait_until(Duration::from_secs(60), || eligible() == Some(1));
    assert_eq!(ask(&evener), (200, "1".to_owned()));
    wait_until(Duration::from_secs(60), || eligible() == Some(2));
    wait_until(Duration::from_secs(60), || ask(&evener) == (200, "0".to_owned()));
}
