//! What the configuration room promises: files to values, and values to words.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../tests/behaviour/rig/certificates.rs"]
#[allow(dead_code, unreachable_pub)]
mod certificates;
mod describe;
mod messages;
mod reference;
mod tls;
mod tracing;
mod upstream_tls;

use std::io;

use proptest::prelude::*;

use super::check::{Checked, check};
use super::without_file::from_resolved_addresses;
use super::*;
use crate::balance::StrategyKind;
use crate::health::EjectionPolicy;
use crate::proxy_header::Version;
use crate::retry::{Conditions, Policy};

const MINIMAL: &str = include_str!("../../config/minimal.toml");
const REFERENCE: &str = include_str!("../../config/evener.toml");

fn source(text: &str) -> Source {
    Source { name: "evener.toml".to_owned(), text: text.to_owned(), folder: PathBuf::from("/etc/evener") }
}

/// Checks a text in a small world: a few environment variables, two host names.
fn checked(text: &str) -> Checked {
    let environment = |name: &str| {
        let text = match name {
            "HEALTH_TOKEN" => "Bearer s3cret",
            "OPS_TOKEN" => "s3cret-of-the-operators",
            "PROMETHEUS_TOKEN" => " s3cret-of-prometheus\n",
            "SHORT_TOKEN" => "s3cret",
            "BLANK_TOKEN" => "  \n",
            _ => return None,
        };
        Some(text.to_owned())
    };
    check(&source(text), &environment, &names)
}

fn names(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let addresses: &[&str] = match host {
        "app.internal" => &["::1", "10.0.0.9", "10.0.0.3"],
        "other.internal" => &["10.0.0.3"],
        "six.internal" => &["2001:db8::2", "2001:db8::1"],
        _ => return Err(io::ErrorKind::NotFound.into()),
    };
    Ok(addresses.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), port)).collect())
}

fn valid(text: &str) -> Config {
    match checked(text).outcome {
        Ok((config, _)) => config,
        Err(report) => panic!("{report}"),
    }
}

fn refused(text: &str) -> Report {
    checked(text).outcome.expect_err("the text should be refused")
}

/// A file whose pool `app` has these lines.
fn pool(lines: &str) -> PoolConfig {
    let text = format!("[listeners.http]\naddress = \"127.0.0.1:8080\"\n[pools.app]\n{lines}");
    (*valid(&text).pools.remove(0)).clone()
}

fn tcp(address: &str) -> UpstreamAddress {
    UpstreamAddress::Tcp(address.parse().unwrap())
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The numbers are those of the contract with users, written out once more.
#[test]
fn the_smallest_file_gets_the_defaults_of_the_contract() {
    let config = valid(MINIMAL);

    let threads = std::thread::available_parallelism().unwrap().get();
    assert_eq!(
        config.server,
        ServerConfig {
            threads,
            drain_timeout: seconds(30),
            pre_stop_delay: Duration::ZERO,
            state_file: None
        }
    );
    assert_eq!(config.admin.address, "127.0.0.1:9900".parse().unwrap());
    assert_eq!(
        config.log,
        LogConfig {
            level: LogLevel::Info,
            format: LogFormat::Text,
            access: AccessLog::Off,
            access_filter: AccessFilter { sample: 1.0, errors: true, slower_than: Duration::from_secs(1) },
        }
    );
    assert_eq!(
        config.listeners,
        [ListenerConfig {
            name: "http".to_owned(),
            address: "0.0.0.0:8080".parse().unwrap(),
            trusted_proxies: Vec::new(),
            header_timeout: seconds(10),
            keepalive_timeout: seconds(60),
            max_connections: 10_000,
            max_header_size: 64 * 1024,
            max_body_size: None,
            http2_cleartext: false,
            http2: Http2Config { max_streams: 100, ping_interval: seconds(30) },
            tls: None,
            proxy_protocol: false,
        }]
    );
    assert_eq!(
        config.routes.into_iter().map(Arc::unwrap_or_clone).collect::<Vec<_>>(),
        [RouteConfig {
            name: "default".to_owned(),
            matcher: crate::route::Matcher::default(),
            split: vec![SplitConfig { pool: 0, weight: 1 }],
            redirect_https: None,
            timeout: Some(seconds(60)),
            strip_prefix: false,
            request_headers: HeaderEdits::default(),
            response_headers: HeaderEdits::default(),
            retry: Policy {
                max_retries: 2,
                on: Conditions { connect_failure: true, reset: true, timeout: false, statuses: Vec::new() },
                budget: 0.2,
            },
            tells: RouteTells::default(),
        }]
    );
    let upstream = |address| UpstreamConfig::at(tcp(address));
    assert_eq!(
        config.pools.into_iter().map(Arc::unwrap_or_clone).collect::<Vec<_>>(),
        [PoolConfig {
            name: "app".to_owned(),
            strategy: StrategyKind::RoundRobin,
            hash: None,
            upstreams: vec![upstream("127.0.0.1:9001"), upstream("127.0.0.1:9002")],
            protocol: UpstreamProtocol::Http1,
            tls: None,
            timeouts: TimeoutsConfig {
                connect: seconds(1),
                read: seconds(60),
                write: seconds(60),
                tunnel: seconds(3600),
            },
            keepalive: KeepaliveConfig { idle: seconds(60), max_idle: 512 },
            slow_start: Duration::ZERO,
            ejection: Some(EjectionPolicy {
                consecutive_failures: 5,
                base_duration: seconds(10),
                max_ejected: 0.5,
            }),
            queue: QueueConfig { max: 0, timeout: seconds(1) },
            health_check: Some(HealthCheckConfig {
                probe: ProbeConfig::Tcp,
                interval: seconds(30),
                fast_interval: seconds(2),
                timeout: seconds(5),
                rise: 2,
                fall: 3,
            }),
            proxy_protocol: None,
        }]
    );
}

#[test]
fn an_empty_table_changes_no_default() {
    let empty = "timeouts = {}\nkeepalive = {}\nejection = {}\nqueue = {}\nhealth_check = {}\n";
    let upstreams = "upstreams = [\"127.0.0.1:9001\"]\n";
    assert_eq!(pool(&format!("{upstreams}{empty}")), pool(upstreams));

    let tables =
        format!("[server]\n[admin]\n[log]\n[routes.default]\npool = \"app\"\nretry = {{}}\n{MINIMAL}");
    assert_eq!(valid(&tables), valid(MINIMAL));
}

#[test]
fn the_process_tables_arrive() {
    let config = valid(&format!(
        "[server]\nthreads = 3\ndrain_timeout = \"1m30s\"\npre_stop_delay = \"5s\"\nstate_file = \"evener.state\"\n\
         [admin]\naddress = \"[::1]:9000\"\n\
         [log]\nlevel = \"trace\"\nformat = \"json\"\naccess = \"./access.log\"\n{MINIMAL}"
    ));
    assert_eq!(
        config.server,
        ServerConfig {
            threads: 3,
            drain_timeout: seconds(90),
            pre_stop_delay: seconds(5),
            state_file: Some(PathBuf::from("/etc/evener/evener.state")),
        }
    );
    assert_eq!(config.admin.address, "[::1]:9000".parse().unwrap());
    assert_eq!(config.log.level, LogLevel::Trace);
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.log.access, AccessLog::File(PathBuf::from("/etc/evener/./access.log")));
}

#[test]
fn tokens_arrive_without_the_blanks_around_their_secrets() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ops.token"), "s3cret-of-the-operators\r\n").unwrap();
    let text = format!(
        "{MINIMAL}[admin]\naddress = \"0.0.0.0:9900\"\n\
         [admin.tokens.ops]\nscope = \"operate\"\nfile = \"ops.token\"\n\
         [admin.tokens.prometheus]\nscope = \"read\"\nenv = \"PROMETHEUS_TOKEN\"\n"
    );
    let source = Source { folder: folder.path().to_owned(), ..source(&text) };
    let environment =
        |name: &str| (name == "PROMETHEUS_TOKEN").then(|| "\ts3cret-of-prometheus\n".to_owned());
    let (config, _) = check(&source, &environment, &names).outcome.unwrap();

    assert_eq!(config.admin.address, "0.0.0.0:9900".parse().unwrap());
    let found = |secret: &str| {
        config.admin.token_of(secret.as_bytes()).map(|token| (token.name.as_str(), token.scope))
    };
    assert_eq!(found("s3cret-of-the-operators"), Some(("ops", Scope::Operate)));
    assert_eq!(found("s3cret-of-prometheus"), Some(("prometheus", Scope::Read)));
    assert_eq!(found("s3cret-of-nobody"), None);
    assert!(!format!("{config:?}{source:?}").contains("s3cret"));
}

#[test]
fn the_keys_of_a_listener_arrive() {
    let config = valid(
        "[listeners.edge]\naddress = \"[::]:80\"\ntrusted_proxies = [\"10.1.2.3/8\", \"192.0.2.7\"]\n\
         header_timeout = \"3s\"\nkeepalive_timeout = \"4s\"\nmax_connections = 5\n\
         max_header_size = \"8KiB\"\nmax_body_size = \"1MiB\"\nproxy_protocol = true\n[pools.app]\nupstreams = []\n",
    );
    assert_eq!(
        config.listeners,
        [ListenerConfig {
            name: "edge".to_owned(),
            address: "[::]:80".parse().unwrap(),
            trusted_proxies: vec!["10.0.0.0/8".parse().unwrap(), "192.0.2.7/32".parse().unwrap()],
            header_timeout: seconds(3),
            keepalive_timeout: seconds(4),
            max_connections: 5,
            max_header_size: 8 * 1024,
            max_body_size: Some(1024 * 1024),
            http2_cleartext: false,
            http2: Http2Config { max_streams: 100, ping_interval: seconds(30) },
            tls: None,
            proxy_protocol: true,
        }]
    );
}

#[test]
fn the_keys_of_a_route_arrive() {
    let config = valid(
        r#"
        [listeners.http]
        address = "127.0.0.1:8080"
        [routes.users]
        hosts = ["API.example.com", "*.example.com"]
        path_prefix = "/v1/"
        methods = ["GET"]
        headers = { X-Canary = "1" }
        split = [{ pool = "b", weight = 95 }, { pool = "a", weight = 0 }]
        timeout = "7s"
        strip_prefix = true
        request_headers = { set = { x-key = "env:HEALTH_TOKEN", host = "app.internal" }, remove = ["Cookie"] }
        response_headers = { set = { x-a = "b" }, remove = ["server"] }
        retry = { max_retries = 1, on = ["timeout", "503", "502", "502"], budget = 1 }
        [pools.b]
        upstreams = []
        [pools.a]
        upstreams = []
        "#,
    );
    let route = &config.routes[0];
    let hosts: Vec<String> = route.matcher.hosts.iter().map(ToString::to_string).collect();
    assert_eq!(hosts, ["api.example.com", "*.example.com"]);
    assert_eq!(route.matcher.path_prefix.as_str(), "/v1");
    assert_eq!(route.matcher.methods, [http::Method::GET]);
    assert_eq!(route.matcher.headers.len(), 1);
    let (name, value) = &route.matcher.headers[0];
    assert_eq!((name.as_str(), value.as_bytes()), ("x-canary", &b"1"[..]));
    // File order, though `a` comes before `b` in the alphabet.
    assert_eq!(config.pools[0].name, "b");
    assert_eq!(route.split, [SplitConfig { pool: 0, weight: 95 }, SplitConfig { pool: 1, weight: 0 }]);
    assert_eq!(route.timeout, Some(seconds(7)));
    assert!(route.strip_prefix);
    let set: Vec<_> =
        route.request_headers.set.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    assert_eq!(set, [("x-key", &b"Bearer s3cret"[..]), ("host", &b"app.internal"[..])]);
    assert_eq!(route.request_headers.remove, ["cookie"]);
    assert_eq!(route.response_headers.set[0].0, "x-a");
    assert_eq!(route.response_headers.remove, ["server"]);
    let on = Conditions { connect_failure: false, reset: false, timeout: true, statuses: vec![502, 503] };
    assert_eq!(route.retry, Policy { max_retries: 1, on, budget: 1.0 });
}

#[test]
fn the_keys_of_a_pool_arrive() {
    let pool = pool(
        r#"
        strategy = "consistent_hash"
        hash = { cookie = "Session" }
        upstreams = [
          "unix:/run/app.sock",
          { address = "[::1]:9001", weight = 0, max_connections = 7 },
          { address = "127.0.0.1:9002", backup = true },
        ]
        timeouts = { connect = "2s", read = "3s", write = "4s", tunnel = "5m" }
        keepalive = { idle = "5s", max_idle = 0 }
        slow_start = "6s"
        ejection = { consecutive_failures = 7, base_duration = "8s", max_ejected = 0.9 }
        queue = { max = 10, timeout = "11s" }
        proxy_protocol = "v1"
        [pools.app.health_check]
        path = "/ready?full=1"
        interval = "12s"
        fast_interval = "500ms"
        timeout = "1s"
        rise = 1
        fall = 9
        status = [204, 200, 204]
        host = "app.internal:81"
        headers = { authorization = "env:HEALTH_TOKEN" }
        "#,
    );
    assert_eq!(pool.strategy, StrategyKind::ConsistentHash);
    assert_eq!(pool.hash, Some(HashKey::Cookie("Session".to_owned())));
    let [socket, light, backup] = pool.upstreams.as_slice() else { panic!("three upstreams") };
    assert_eq!(socket.address, UpstreamAddress::Unix(PathBuf::from("/run/app.sock")));
    assert_eq!((light.weight, light.max_connections, light.backup), (0, Some(7), false));
    assert!(backup.backup);
    let tunnel = seconds(300);
    let timeouts = TimeoutsConfig { connect: seconds(2), read: seconds(3), write: seconds(4), tunnel };
    assert_eq!(pool.timeouts, timeouts);
    assert_eq!(pool.proxy_protocol, Some(Version::V1));
    assert_eq!(pool.keepalive, KeepaliveConfig { idle: seconds(5), max_idle: 0 });
    assert_eq!(pool.slow_start, seconds(6));
    let ejection = EjectionPolicy { consecutive_failures: 7, base_duration: seconds(8), max_ejected: 0.9 };
    assert_eq!(pool.ejection, Some(ejection));
    assert_eq!(pool.queue, QueueConfig { max: 10, timeout: seconds(11) });
    let check = pool.health_check.unwrap();
    assert_eq!((check.interval, check.timeout), (seconds(12), seconds(1)));
    assert_eq!(check.fast_interval, Duration::from_millis(500));
    assert_eq!((check.rise, check.fall), (1, 9));
    let ProbeConfig::Http { path, host, status, headers } = check.probe else { panic!("HTTP") };
    assert_eq!((path.as_str(), host.as_deref()), ("/ready?full=1", Some("app.internal:81")));
    assert_eq!(status, [200, 204]);
    assert_eq!(headers[0].1, "Bearer s3cret");
}

#[test]
fn a_route_may_have_no_timeout() {
    let route = |timeout: &str| {
        let text = format!("[routes.all]\npool = \"app\"\n{timeout}\n{MINIMAL}");
        valid(&text).routes[0].timeout
    };
    assert_eq!((route("timeout = \"0s\""), route("")), (None, Some(seconds(60))));
}

#[test]
fn every_way_to_hash_is_read() {
    let hash = |key: &str| {
        pool(&format!("strategy = \"consistent_hash\"\nhash = {{ {key} }}\nupstreams = []")).hash.unwrap()
    };
    assert_eq!(hash("header = \"X-User\""), HashKey::Header("x-user".parse().unwrap()));
    assert_eq!(hash("client_ip = true"), HashKey::ClientIp);
    assert_eq!(hash("path = true, client_ip = false"), HashKey::Path);
}

#[test]
fn every_strategy_is_read_by_its_name() {
    for kind in StrategyKind::ALL.into_iter().filter(|kind| *kind != StrategyKind::ConsistentHash) {
        assert_eq!(pool(&format!("strategy = \"{}\"\nupstreams = []", kind.name())).strategy, kind);
    }
}

#[test]
fn checks_and_ejection_can_be_turned_off() {
    let off = "upstreams = []\nejection = { enabled = false }\nhealth_check = { enabled = false, rise = 3 }";
    assert_eq!(pool(off).ejection, None);
    assert_eq!(pool(off).health_check, None);
}

#[test]
fn the_fast_interval_is_never_longer_than_a_short_interval() {
    let check = pool("upstreams = []\nhealth_check = { interval = \"1s\" }").health_check.unwrap();
    assert_eq!(check.fast_interval, seconds(1));
}

#[test]
fn a_host_name_becomes_its_lowest_ipv4_address() {
    let upstreams = pool("upstreams = [\"app.internal:80\", \"six.internal:80\"]").upstreams;
    assert_eq!(upstreams[0].address, tcp("10.0.0.3:80"));
    assert_eq!(upstreams[1].address, tcp("[2001:db8::1]:80"));
}

#[test]
fn line_ends_of_windows_and_a_byte_order_mark_do_not_matter() {
    let windows = format!("\u{feff}{}", MINIMAL.replace('\n', "\r\n"));
    assert_eq!(valid(&windows), valid(MINIMAL));
}

#[test]
fn a_summary_counts_in_proper_english() {
    assert_eq!(valid(MINIMAL).summary(), "1 listener, 1 route, 1 pool");
    assert_eq!(valid(REFERENCE).summary(), "1 listener, 2 routes, 2 pools");
}

#[test]
fn a_secret_file_is_read_without_its_last_line_end() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), "Bearer from-file\n").unwrap();
    let text = format!(
        "{MINIMAL}health_check = {{ path = \"/\", headers = {{ authorization = \"file:token\" }} }}\n"
    );
    let source = Source { folder: folder.path().to_owned(), ..source(&text) };
    let (config, warnings) = check(&source, &|_| None, &names).outcome.unwrap();

    let ProbeConfig::Http { headers, .. } = &config.pools[0].health_check.as_ref().unwrap().probe else {
        panic!("HTTP")
    };
    assert_eq!(headers[0].1, "Bearer from-file");
    assert_eq!(warnings.warnings().count(), 0);
    assert!(!format!("{config:?}{source:?}").contains("from-file"));
}

#[test]
fn no_debug_output_shows_a_secret() {
    let text = format!(
        "{MINIMAL}health_check = {{ path = \"/\", headers = {{ x-api-key = \"k3y\", authorization = \"env:HEALTH_TOKEN\" }} }}\n"
    );
    let (config, warnings) = checked(&text).outcome.unwrap();
    let shown = format!("{config:?} {:?} {warnings:?} {warnings}", source(&text));
    assert!(!shown.contains("k3y") && !shown.contains("s3cret"), "{shown}");
    assert_eq!(warnings.warnings().count(), 1);
    assert!(warnings.is_empty());
}

#[test]
fn a_file_is_loaded_with_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("evener.toml");
    std::fs::write(&path, MINIMAL).unwrap();

    let loaded = load(&path).unwrap();
    assert_eq!(loaded.config, valid(MINIMAL));
    assert_eq!(loaded.source.folder, folder.path());
    assert_eq!(loaded.source.text, MINIMAL);
    assert!(loaded.warnings.is_empty());
}

/// `evener run --config evener.toml` reads it by that name, and each reload by the whole path.
#[test]
fn a_file_says_the_same_by_its_name_and_by_its_whole_path() {
    let here = std::env::current_dir().unwrap();
    let folder = tempfile::tempdir_in(&here).unwrap();
    let path = folder.path().join("evener.toml");
    std::fs::write(&path, format!("[log]\naccess = \"access.log\"\n{MINIMAL}")).unwrap();

    let by_name = load(path.strip_prefix(&here).unwrap()).unwrap();
    let by_path = load(&path).unwrap();
    assert_eq!(by_name.config, by_path.config);
    assert_eq!(by_name.source.folder, by_path.source.folder);
}

#[test]
fn a_file_that_cannot_be_read_says_why_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let told = |path: &Path| {
        let error = load(path).unwrap_err().to_string();
        error.replace(&folder.path().display().to_string(), "FOLDER")
    };
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    insta::assert_snapshot!(told(&folder.path().join("none.toml")), @r"
    error: cannot read FOLDER/none.toml: there is no such file
      = help: name one with `--config FILE`, or start without a file: `evener run --listen 0.0.0.0:8080 --to HOST:PORT`
    ");
    insta::assert_snapshot!(told(folder.path()), @r"
    error: cannot read FOLDER: it is a folder
      = help: name the file in it, such as FOLDER/evener.toml
    ");
    insta::assert_snapshot!(told(&file("latin1.toml", b"# \xe4")), @r"
    error: cannot read FOLDER/latin1.toml: it is not UTF-8
      = help: save it as UTF-8 text
    ");
    let size = usize::try_from(limits::FILE_BYTES_MAX).unwrap() + 1;
    insta::assert_snapshot!(told(&file("large.toml", &vec![b'#'; size])), @r"
    error: cannot read FOLDER/large.toml: it is too large
      = help: a configuration has at most 4194304 bytes
    ");
    insta::assert_snapshot!(told(&file("wrong.toml", b"x = 1")), @r#"
    error: the file has no listener
     --> FOLDER/wrong.toml
      |
      = help: add these lines:
                [listeners.http]
                address = "0.0.0.0:8080"

    error: the file has no pool
     --> FOLDER/wrong.toml
      |
      = help: add these lines:
                [pools.app]
                upstreams = ["127.0.0.1:9001", "127.0.0.1:9002"]

    error: unknown key `x`
     --> FOLDER/wrong.toml:1:1
      |
    1 | x = 1
      | ^ not a key of the file
      |
      = help: Keys of the file: server, admin, log, tracing, listeners, pools, routes

    3 mistakes in FOLDER/wrong.toml; nothing was applied
    "#);
}

#[test]
fn a_start_without_a_file_takes_addresses_and_urls() {
    let to = addresses_in("http://127.0.0.1:9001/, app.internal:80,,unix:/run/app.sock");
    let listen = "0.0.0.0:8080".parse().unwrap();
    let config = from_resolved_addresses(listen, &to, Some(StrategyKind::RandomTwo), &names).unwrap();

    assert_eq!(config.listeners, [ListenerConfig::at("http".to_owned(), listen)]);
    assert_eq!(config.routes, valid(MINIMAL).routes);
    assert_eq!(config.pools[0].name, "default");
    assert_eq!(config.pools[0].strategy, StrategyKind::RandomTwo);
    let addresses: Vec<String> =
        config.pools[0].upstreams.iter().map(|upstream| upstream.address.to_string()).collect();
    assert_eq!(addresses, ["127.0.0.1:9001", "10.0.0.3:80", "unix:/run/app.sock"]);
}

#[test]
fn a_start_without_a_file_has_the_defaults_of_the_smallest_file() {
    let to = ["127.0.0.1:9001".to_owned(), "127.0.0.1:9002".to_owned()];
    let mut config = from_addresses("0.0.0.0:8080".parse().unwrap(), &to, None).unwrap();
    Arc::make_mut(&mut config.pools[0]).name = "app".to_owned();
    assert_eq!(config, valid(MINIMAL));
}

#[test]
fn a_start_without_a_file_says_everything_that_is_wrong_with_its_addresses() {
    let told = |listen: &str, to: &str, strategy| {
        from_resolved_addresses(listen.parse().unwrap(), &addresses_in(to), strategy, &names).unwrap_err()
    };
    insta::assert_snapshot!(told("0.0.0.0:8080", "https://a:1,ftp://b,127.0.0.1:8080,127.0.0.1:1,127.0.0.1:1,10.1:80,nowhere:80", None), @r#"
    error: an upstream is an address, not a URL
      = help: write "a:1", and tls = { server_name = "…" } in the pool
    error: `ftp://` is no kind of upstream
      = help: write "host:port", "[::1]:port" or "unix:/path"
    error: 127.0.0.1:8080 is the address to listen on
      = help: name the server behind it; its port differs
    error: 127.0.0.1:1 is named twice
      = help: name each upstream once
    error: `10.1:80` is no address of an upstream
      = help: write "host:port", "[::1]:port" or "unix:/path"
    error: the host name `nowhere` has no address
      = help: check its spelling and this machine's DNS (`getent hosts NAME`), or write the IP address
    "#);
    insta::assert_snapshot!(told("127.0.0.1:9900", "", Some(StrategyKind::ConsistentHash)), @r#"
    error: 127.0.0.1:9900 overlaps with the admin address 127.0.0.1:9900
      = help: listen on another port, or move `admin.address` in a file
    error: `consistent_hash` needs to know what to hash
      = help: write a file with strategy = "consistent_hash" and hash = { client_ip = true }
    error: 0 upstreams to forward to
      = help: name 1 to 16384: `--to 127.0.0.1:9001 --to 127.0.0.1:9002`
    "#);
}

/// What a person or a broken disk may do to a file.
fn damaged_reference() -> impl Strategy<Value = String> {
    let at = || 0..REFERENCE.len();
    (at(), at(), "[\\PC\\x00\\x1b\n\"'\\[\\]{}=,.# ]{0,8}", any::<bool>()).prop_map(
        |(one, other, insert, cut)| {
            let boundary = |byte| (0..=byte).rev().find(|&at| REFERENCE.is_char_boundary(at)).unwrap();
            let (from, to) = (boundary(one.min(other)), boundary(one.max(other)));
            let rest = if cut { &REFERENCE[to..] } else { &REFERENCE[from..] };
            format!("{}{insert}{rest}", &REFERENCE[..from])
        },
    )
}

/// Every mistake has a message, a help and a place within the text.
fn assert_places_are_real(text: &str) {
    let (Ok((_, report)) | Err(report)) = checked(text).outcome;
    let lines: Vec<&str> = text.split('\n').collect();
    for mistake in report.mistakes().chain(report.warnings()) {
        assert!((1..=lines.len()).contains(&mistake.line), "{mistake:?}");
        let characters = lines[mistake.line - 1].chars().count();
        assert!((1..=characters + 1).contains(&mistake.column), "{mistake:?}");
        assert!(!mistake.message.is_empty() && !mistake.help.is_empty(), "{mistake:?}");
    }
    assert!(report.to_string().lines().all(|line| line.chars().all(|shown| !shown.is_control())));
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_without_a_panic(text in "\\PC{0,200}") {
        assert_places_are_real(&text);
    }

    #[test]
    fn any_jumble_of_toml_is_read_or_refused_without_a_panic(
        text in "([a-c]|pools|listeners|\\.|=|\\[|\\]|\\{|\\}|,|\"|'''|\n|#|1|true| |\\\\|ä){0,60}",
    ) {
        assert_places_are_real(&text);
    }

    #[test]
    fn a_damaged_file_is_read_or_refused_without_a_panic(text in damaged_reference()) {
        assert_places_are_real(&text);
    }
}

#[test]
fn a_flood_of_mistakes_is_counted_and_not_shown_whole() {
    let keys = (0..limits::MISTAKES_MAX + 5).map(|index| format!("[x{index}]\n"));
    let report = refused(&keys.chain([MINIMAL.to_owned()]).collect::<String>());
    assert_eq!(report.mistakes().count(), limits::MISTAKES_MAX);
    assert_eq!(report.len(), limits::MISTAKES_MAX + 5);
    assert!(
        report.to_string().ends_with("… and 5 more\n\n1005 mistakes in evener.toml; nothing was applied")
    );
}

#[test]
fn a_flood_of_oddities_refuses_nothing() {
    let pools = (0..limits::MISTAKES_MAX + 5).map(|index| format!("[pools.x{index}]\nupstreams = []\n"));
    let route = "[routes.all]\npool = \"app\"\n".to_owned();
    let (_, warnings) =
        checked(&pools.chain([route, MINIMAL.to_owned()]).collect::<String>()).outcome.unwrap();
    assert!(warnings.is_empty());
    assert!(warnings.to_string().ends_with("1005 warnings in evener.toml"));
}

#[test]
fn what_is_no_configuration_at_all_is_refused_without_much_ado() {
    let report = refused(&"Lorem ipsum: dolor = sit = amet\n".repeat(20_000));
    assert!((32..=limits::MISTAKES_MAX).contains(&report.len()), "{}", report.len());
}

#[test]
fn every_limit_on_numbers_of_things_holds() {
    let address = |index: usize| format!("\"10.0.{}.{}:80\"", index / 250, 1 + index % 250);
    let upstreams = |count: usize| (0..count).map(address).collect::<Vec<_>>().join(", ");
    let full = format!("upstreams = [{}]", upstreams(limits::UPSTREAMS_PER_POOL_MAX));
    assert_eq!(pool(&full).upstreams.len(), limits::UPSTREAMS_PER_POOL_MAX);

    let one_too_many = |text: String| {
        let report = refused(&text);
        let message = report.mistakes().next().unwrap().message.to_owned();
        assert!(message.contains("at most"), "{message}");
    };
    let listener = "[listeners.http]\naddress = \"127.0.0.1:8080\"\n";
    let many = limits::UPSTREAMS_PER_POOL_MAX;
    one_too_many(format!("{listener}[pools.app]\nupstreams = [{}]", upstreams(many + 1)));
    let pools = (0..5).map(|pool| format!("[pools.p{pool}]\nupstreams = [{}]\n", upstreams(many)));
    let route = "[routes.r]\nsplit = [{ pool = \"p0\", weight = 1 }]\n";
    one_too_many(format!("{listener}{route}{}", pools.collect::<String>()));
    let tokens = (0..=limits::TOKENS_MAX).map(|token| format!("[admin.tokens.t{token}]\nscope = \"read\"\n"));
    one_too_many(format!("{MINIMAL}{}", tokens.collect::<String>()));
    let routes = (0..=limits::ROUTES_MAX).map(|route| format!("[routes.r{route}]\npool = \"app\"\n"));
    one_too_many(format!("{MINIMAL}{}", routes.collect::<String>()));
}
