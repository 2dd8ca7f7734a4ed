//! The command line: what it accepts, what it says, and the code it ends with.

use std::net::SocketAddr;

use crate::rig::{
    DefaultPorts, Evener, Origin, reserve_port, run_to_end, run_to_end_with_environment, wait_until,
};

const GOOD: &str = r#"[listeners.http]
address = "127.0.0.1:8080"

[routes.users]
path_prefix = "/users"
pool = "app"

[routes.rest]
pool = "app"

[pools.app]
upstreams = ["127.0.0.1:9001", "127.0.0.1:9002"]
"#;

#[test]
fn a_good_file_is_valid_and_counted() {
    let finished = run_to_end(&["check", "evener.toml"], &[("evener.toml", GOOD)]);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert_eq!(finished.stdout.trim(), "evener.toml is valid: 1 listener, 2 routes, 1 pool");
}

#[test]
fn check_looks_for_the_default_file() {
    let finished = run_to_end(&["check"], &[("evener.toml", GOOD)]);
    assert_eq!(finished.code, Some(0), "{finished:?}");
}

/// pingap, finding 1: an unknown algorithm silently meant round robin.
#[test]
fn a_misspelt_strategy_is_refused() {
    let file = GOOD.replace("[pools.app]", "[pools.app]\nstrategy = \"least_conn\"");
    for command in [&["check", "evener.toml"][..], &["run", "--config", "evener.toml"]] {
        let finished = run_to_end(command, &[("evener.toml", &file)]);
        assert_eq!(finished.code, Some(1), "{finished:?}");
        let said = finished.stdout + &finished.stderr;
        for part in ["evener.toml:12:", "least_conn", "^^^", "did you mean `least_connections`"] {
            assert!(said.contains(part), "`{part}` is not in\n{said}");
        }
    }
}

#[test]
fn every_mistake_is_told_at_once() {
    let file = GOOD
        .replace("pool = \"app\"\n\n[routes.rest]", "pool = \"apq\"\ntimeout = 10\n\n[routes.rest]")
        .replace("127.0.0.1:9002", "nowhere")
        .replace("[pools.app]", "[pools.app]\nwieght = 3");
    let finished = run_to_end(&["check", "evener.toml"], &[("evener.toml", &file)]);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    let said = finished.stdout + &finished.stderr;
    for part in ["apq", "timeout = 10", "nowhere", "wieght"] {
        assert!(said.contains(part), "`{part}` is not in\n{said}");
    }
    assert!(said.matches("help: ").count() >= 4, "help for each:\n{said}");
}

#[test]
fn a_file_that_is_not_there_is_said_to_be_missing() {
    for command in
        [&["check", "nothing.toml"][..], &["run", "--config", "nothing.toml"], &["run", "-c", "nothing.toml"]]
    {
        let finished = run_to_end(command, &[]);
        assert_eq!(finished.code, Some(1), "{finished:?}");
        assert!(finished.stderr.contains("nothing.toml"), "{finished:?}");
    }
}

#[test]
fn a_file_that_is_not_toml_is_refused_with_its_line() {
    let finished =
        run_to_end(&["check", "evener.toml"], &[("evener.toml", "[listeners.http]\naddress = \n")]);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!((finished.stdout + &finished.stderr).contains("evener.toml:2:"));
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for command in [&["fly"][..], &["run", "--no-such-flag"], &["check", "a", "b"]] {
        assert_eq!(run_to_end(command, &[]).code, Some(2), "{command:?}");
    }
}

#[test]
fn help_and_version_are_there() {
    for command in [&["--help"][..], &["run", "--help"], &["check", "--help"], &["--version"]] {
        let finished = run_to_end(command, &[]);
        assert_eq!(finished.code, Some(0), "{command:?}");
        assert!(!finished.stdout.is_empty());
    }
    assert!(run_to_end(&["--version"], &[]).stdout.contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn it_starts_without_a_file_on_two_flags() {
    let _ports = DefaultPorts::free(&[9900]);
    let (one, two) = (Origin::answering("one"), Origin::answering("two"));
    let address = SocketAddr::from(([127, 0, 0, 1], reserve_port()));
    let listen = address.to_string();
    let (to_one, to_two) = (one.address(), two.address());
    let arguments =
        ["run", "--listen", &listen, "--to", &to_one, "--to", &to_two, "--strategy", "least_connections"];
    let evener = Evener::start_without_a_file(address, &arguments, &[]);
    serves_both(&evener, &one, &two);
}

#[test]
fn it_starts_without_a_file_on_the_environment() {
    let _ports = DefaultPorts::free(&[8080, 9900]);
    let (one, two) = (Origin::answering("one"), Origin::answering("two"));
    let servers = format!("http://{},http://{}", one.address(), two.address());
    let address = SocketAddr::from(([127, 0, 0, 1], 8080));
    let evener = Evener::start_without_a_file(address, &["run"], &[("LOAD_BALANCER_SERVERS", &servers)]);
    serves_both(&evener, &one, &two);
}

#[test]
fn a_bad_environment_is_refused_by_name() {
    let finished = run_to_end_with_environment(
        &["run"],
        &[],
        &[("LOAD_BALANCER_SERVERS", "http://127.0.0.1:1,https://")],
    );
    assert!(matches!(finished.code, Some(1 | 2)), "{finished:?}");
    assert!(finished.stderr.contains("LOAD_BALANCER_SERVERS"), "{finished:?}");
}

fn serves_both(evener: &Evener, one: &Origin, two: &Origin) {
    wait_until(std::time::Duration::from_secs(60), || {
        evener.admin().try_get("/readyz").is_some_and(|answer| answer.status() == 200)
    });
    for _ in 0..10 {
        evener.get("/").expect_status(200);
    }
    assert!(one.requests_seen() > 0 && two.requests_seen() > 0);
}

/// A rival ships a unit file whose command line its binary refuses (pingap, finding 16).
#[test]
fn every_shipped_file_is_accepted() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in ["config", "examples", "examples/websocket", "examples/proxy_protocol"] {
        for entry in std::fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                let finished = run_to_end(&["check", path.to_str().unwrap()], &[]);
                assert_eq!(finished.code, Some(0), "{}: {finished:?}", path.display());
            }
        }
    }
}

#[test]
fn the_unit_file_uses_commands_that_exist() {
    let unit = include_str!("../../config/evener.service");
    let commands: Vec<&str> = unit
        .lines()
        .filter_map(|line| line.split_once("=/usr/local/bin/evener ").map(|(_, command)| command))
        .collect();
    assert_eq!(commands.len(), 2, "{commands:?}");
    for command in commands {
        let arguments: Vec<&str> = command.split(' ').collect();
        let finished = run_to_end(&arguments, &[]);
        assert_eq!(finished.code, Some(1), "refused for want of the file, not for its usage: {finished:?}");
    }
}
