//! The PROXY protocol: from trusted proxies in front, and to upstreams that want to know who asks.

use std::collections::BTreeSet;
use std::env;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use crate::rig::{Authority, Client, Evener, Origin, Reply, Socket, TlsClient, reserve_port, wait_until};
use crate::websocket;

const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// For programs to start.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where clients are ordinary; all of 127.0.0.0/8 is this machine.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Evener behind a proxy at 127.0.0.1.
fn behind_a_proxy(origin: &Origin, more: &str) -> Evener {
    Evener::start(&format!(
        r#"
        [log]
        level = "debug"
        access = "stdout"
        [listeners.http]
        proxy_protocol = true
        trusted_proxies = ["127.0.0.1", "198.51.100.0/24"]
        {more}
        [pools.app]
        upstreams = ["{}"]
        health_check = {{ enabled = false }}
        "#,
        origin.address()
    ))
}

fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len()).expect("short").to_be_bytes();
    [V2_SIGNATURE, &[command, family], &length, block].concat()
}

/// From 192.0.2.7:4711 to 203.0.113.1:443, with a TLV behind it.
fn v2_over_ipv4() -> Vec<u8> {
    v2(0x21, 0x11, &[192, 0, 2, 7, 203, 0, 113, 1, 0x12, 0x67, 1, 187, 0x04, 0, 2, 7, 7])
}

fn v2_over_ipv6() -> Vec<u8> {
    let source = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
    v2(0x21, 0x21, &[&source[..], &source, &[0x12, 0x67, 1, 187]].concat())
}

/// `X-Forwarded-For` of a request that begins with this header, as the origin sees it.
fn forwarded_for(header: impl AsRef<[u8]>, headers: &str) -> Vec<String> {
    let origin = Origin::answering("ok");
    let evener = behind_a_proxy(&origin, "");
    let mut client = evener.connect();
    client.send(header);
    client.request("GET", "/", headers, b"").expect_status(200);
    origin.only_request().values("x-forwarded-for").iter().map(ToString::to_string).collect()
}

#[test]
fn a_proxy_tells_who_the_client_is() {
    for (header, client) in [
        (b"PROXY TCP4 192.0.2.7 203.0.113.1 4711 443\r\n".to_vec(), "192.0.2.7"),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n".to_vec(), "2001:db8::7"),
        (b"PROXY TCP6 ::ffff:192.0.2.7 2001:db8::1 4711 443\r\n".to_vec(), "192.0.2.7"),
        (v2_over_ipv4(), "192.0.2.7"),
        (v2_over_ipv6(), "2001:db8::7"),
    ] {
        assert_eq!(forwarded_for(header, ""), [client]);
    }
}

#[test]
fn the_client_of_a_proxy_stands_in_the_access_log() {
    let origin = Origin::answering("ok");
    let evener = behind_a_proxy(&origin, "");
    let mut client = evener.connect();
    client.send(v2_over_ipv4());
    client.get("/").expect_status(200);
    client.send("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n");
    client.read("GET").expect_status(400);
    let lines = || evener.standard_output().lines().filter(|line| line.starts_with("192.0.2.7 ")).count();
    wait_until(Duration::from_secs(20), || lines() == 2);
}

/// A header may come in any pieces, and a request right behind it.
#[test]
fn a_header_may_come_byte_by_byte_or_with_the_request() {
    let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for header in [b"PROXY TCP4 192.0.2.7 203.0.113.1 4711 443\r\n".to_vec(), v2_over_ipv4()] {
        let origin = Origin::answering("ok");
        let evener = behind_a_proxy(&origin, "");
        let mut client = evener.connect();
        header.iter().chain(request).for_each(|byte| client.send([*byte]));
        client.read("GET").expect_status(200);
        client.get("/again").expect_status(200);

        let mut client = evener.connect();
        client.send([&header[..], request, request].concat());
        client.read("GET").expect_status(200);
        client.read("GET").expect_status(200);
        let from = |request: &crate::rig::Request| request.header("x-forwarded-for") == Some("192.0.2.7");
        assert!(origin.requests().iter().all(from));
        assert_eq!(origin.requests_seen(), 4);
    }
}

#[test]
fn a_proxy_has_to_tell_and_others_may_not() {
    let origin = Origin::answering("ok");
    let evener = behind_a_proxy(&origin, "");
    let failures =
        |expected| evener.admin().expect_metric("evener_proxy_header_failures_total", &[], expected);
    let line = "PROXY TCP4 192.0.2.7 203.0.113.1 4711 443\r\n";

    for garbage in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        "PROXY TCP4 192.0.2.7 4711 443\r\n".into(),
        "PROXY TCP4 192.0.2.7 203.0.113.1 4711 443\n".into(),
        format!("PROXY UNKNOWN {}", "x".repeat(200)),
    ] {
        let mut client = evener.connect();
        client.send(&garbage);
        assert!(client.is_closed_within(Duration::from_secs(30)), "{garbage:?}");
    }
    let mut client = evener.connect();
    client.send([V2_SIGNATURE, &[0x20, 0, 0xFF, 0xFF]].concat());
    assert!(client.is_closed_within(Duration::from_secs(30)), "too long");
    failures(5.0);
    evener.wait_for_log("no usable PROXY header");

    let mut stranger = Client::connect_from(ELSEWHERE, evener.address());
    stranger.get("/").expect_status(200);
    assert_eq!(origin.only_request().values("x-forwarded-for"), ["127.0.0.2"]);
    let mut stranger = Client::connect_from(ELSEWHERE, evener.address());
    stranger.send(format!("{line}GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    stranger.read("GET").expect_status(400);
    failures(5.0);
    assert_eq!(origin.requests_seen(), 1);
}

#[test]
fn a_header_has_to_come_in_time() {
    let origin = Origin::answering("ok");
    let evener = behind_a_proxy(&origin, "header_timeout = \"1s\"");
    let (mut silent, mut slow) = (evener.connect(), evener.connect());
    slow.send("PROXY TCP4 192.0.2.7");
    assert!(silent.is_closed_within(Duration::from_secs(30)));
    assert!(slow.is_closed_within(Duration::from_secs(30)));
    evener.admin().expect_metric("evener_proxy_header_failures_total", &[], 2.0);
}

/// Cloud load balancers look whether a port is open in just this way, every few seconds.
#[test]
fn a_connection_without_a_byte_is_no_failure() {
    let origin = Origin::answering("ok");
    let evener = behind_a_proxy(&origin, "");
    let accepted = || evener.admin().metric("evener_connections_accepted_total", &[]);
    let before = accepted();
    (0..3).for_each(|_| drop(evener.connect()));
    wait_until(Duration::from_secs(20), || accepted() >= before + 3.0);
    evener.admin().expect_metric("evener_connections", &[], 0.0);
    evener.admin().expect_metric("evener_proxy_header_failures_total", &[], 0.0);
}

/// A proxy that speaks PROXY does not look into the requests: whoever it announces wrote their headers.
#[test]
fn the_announced_client_cannot_speak_for_others_unless_it_is_trusted() {
    let forged = "X-Forwarded-For: 6.6.6.6\r\n";
    assert_eq!(forwarded_for("PROXY TCP4 192.0.2.7 203.0.113.1 4711 443\r\n", forged), ["192.0.2.7"]);
    assert_eq!(
        forwarded_for("PROXY TCP4 198.51.100.9 203.0.113.1 4711 443\r\n", forged),
        ["6.6.6.6, 198.51.100.9"]
    );
}

#[test]
fn a_header_that_names_nobody_leaves_the_address_of_the_socket() {
    let claim = "X-Forwarded-For: 6.6.6.6\r\n";
    // The proxy itself, which is trusted.
    assert_eq!(forwarded_for(v2(0x20, 0, &[]), claim), ["6.6.6.6, 127.0.0.1"]);
    assert_eq!(forwarded_for(v2(0x20, 0x11, &[9; 12]), claim), ["6.6.6.6, 127.0.0.1"]);
    // Somebody behind it.
    assert_eq!(forwarded_for("PROXY UNKNOWN\r\n", claim), ["127.0.0.1"]);
    assert_eq!(forwarded_for(v2(0x21, 0, &[]), claim), ["127.0.0.1"]);
    assert_eq!(forwarded_for(v2(0x21, 0x31, &[0; 216]), claim), ["127.0.0.1"]);
}

/// Whom a proxy cannot name may write anything into a request, such as that it came over TLS.
#[test]
fn whoever_is_not_named_is_redirected_whatever_the_request_says() {
    let origin = Origin::answering("ok");
    let evener = behind_a_proxy(&origin, "[routes.all]\nredirect_https = true\npool = \"app\"");
    let status = |header: &[u8]| {
        let mut client = evener.connect();
        client.send(header);
        client.request("GET", "/", "X-Forwarded-Proto: https\r\n", b"").status()
    };
    assert_eq!(status(b"PROXY UNKNOWN\r\n"), 308);
    assert_eq!(status(&v2(0x21, 0, &[])), 308);
    // The proxy itself, which is trusted.
    assert_eq!(status(&v2(0x20, 0, &[])), 200);
}

#[test]
fn the_announced_address_is_what_client_ip_hashes() {
    let origins: Vec<Origin> = (0..3).map(|_| Origin::answering("ok")).collect();
    let addresses: Vec<String> = origins.iter().map(|origin| format!("\"{}\"", origin.address())).collect();
    let evener = Evener::start(&format!(
        r#"
        [listeners.http]
        proxy_protocol = true
        trusted_proxies = ["127.0.0.1"]
        [pools.app]
        strategy = "consistent_hash"
        hash = {{ client_ip = true }}
        upstreams = [{}]
        "#,
        addresses.join(", ")
    ));
    for host in 0..40 {
        let mut client = evener.connect();
        client.send(format!("PROXY TCP4 192.0.2.{host} 203.0.113.1 4711 443\r\n"));
        client.get("/").expect_status(200);
        client.get("/").expect_status(200);
    }
    let clients = |origin: &Origin| -> BTreeSet<String> {
        let requests = origin.requests();
        requests.iter().filter_map(|request| request.header("x-forwarded-for").map(str::to_owned)).collect()
    };
    let seen: Vec<BTreeSet<String>> = origins.iter().map(clients).collect();
    assert_eq!(seen.iter().map(BTreeSet::len).sum::<usize>(), 40, "each client has one upstream: {seen:?}");
    assert!(seen.iter().all(|clients| !clients.is_empty()), "and not all the same: {seen:?}");
}

#[test]
fn a_reload_decides_for_new_connections() {
    let origin = Origin::answering("ok");
    let pool = format!("[pools.app]\nupstreams = [\"{}\"]", origin.address());
    let evener = Evener::start(&pool);
    let mut before = evener.connect();
    before.get("/").expect_status(200);
    evener.reload(&format!(
        "[listeners.http]\nproxy_protocol = true\ntrusted_proxies = [\"127.0.0.1\"]\n{pool}"
    ));
    let mut after = evener.connect();
    after.send("PROXY TCP4 192.0.2.7 203.0.113.1 4711 443\r\n");
    after.get("/").expect_status(200);
    before.get("/").expect_status(200);
}

#[test]
fn a_header_comes_before_tls() {
    let (origin, authority) = (Origin::answering("ok"), Authority::new("authority"));
    let folder = tempfile::tempdir().expect("a temporary folder");
    authority.issue(&["example.com"]).write(folder.path(), "site");
    let file = |name: &str| folder.path().join(name).display().to_string();
    let tls = format!(
        "tls = {{ certificates = [{{ certificate = \"{}\", key = \"{}\" }}] }}",
        file("site.crt"),
        file("site.key")
    );
    let evener = behind_a_proxy(&origin, &tls);
    for header in [b"PROXY TCP4 192.0.2.7 203.0.113.1 4711 443\r\n".to_vec(), v2_over_ipv4()] {
        let client = TlsClient::trusting(&authority);
        let stream = client.try_connect_after(&header, evener.address(), "example.com").expect("a handshake");
        let mut client = Client::over(Socket::Tls(Box::new(stream)), evener.address());
        client.get("/").expect_status(200);
        client.get("/").expect_status(200);
    }
    for request in origin.requests() {
        assert_eq!(request.values("x-forwarded-for"), ["192.0.2.7"]);
        assert_eq!(request.values("x-forwarded-proto"), ["https"]);
    }
    assert_eq!(origin.requests_seen(), 4);
    assert!(TlsClient::trusting(&authority).try_connect(evener.address(), "example.com").is_err(), "without");
    evener.admin().expect_metric("evener_proxy_header_failures_total", &[], 1.0);
}

// To upstreams.

/// Evener before an upstream that expects headers of this version.
fn announcing_to(origin: &Origin, version: &str, more: &str) -> Evener {
    Evener::start(&format!(
        "[pools.app]\nupstreams = [\"{}\"]\nproxy_protocol = \"{version}\"\n{more}",
        origin.address()
    ))
}

fn line(source: SocketAddr, destination: SocketAddr) -> String {
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let (source_port, destination_port) = (source.port(), destination.port());
    format!("PROXY {family} {} {} {source_port} {destination_port}\r\n", source.ip(), destination.ip())
}

fn block(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let (SocketAddr::V4(source), SocketAddr::V4(destination)) = (source, destination) else { panic!("IPv4") };
    let addresses = [source.ip().octets(), destination.ip().octets()].concat();
    let ports = [source.port().to_be_bytes(), destination.port().to_be_bytes()].concat();
    v2(0x21, 0x11, &[addresses, ports].concat())
}

/// The header of the connection on which this request came.
fn header_of(origin: &Origin, index: usize) -> Vec<u8> {
    origin.proxy_headers()[origin.requests()[index].connection].clone()
}

#[test]
fn an_upstream_is_told_who_connected_to_where() {
    for version in ["v1", "v2"] {
        let origin = Origin::answering("ok").expecting_proxy_headers();
        let evener = announcing_to(&origin, version, "");
        let mut client = evener.connect();
        client.get("/").expect_status(200);
        let (source, destination) = (client.local_address(), evener.address());
        let expected =
            if version == "v1" { line(source, destination).into_bytes() } else { block(source, destination) };
        assert_eq!(header_of(&origin, 0), expected, "{version}");
    }
}

#[test]
fn what_a_proxy_has_told_is_told_again() {
    let origin = Origin::answering("ok").expecting_proxy_headers();
    let evener = announcing_to(
        &origin,
        "v1",
        "[listeners.http]\nproxy_protocol = true\ntrusted_proxies = [\"127.0.0.1\"]",
    );
    for told in
        ["PROXY TCP4 192.0.2.7 203.0.113.1 4711 443\r\n", "PROXY TCP6 2001:db8::7 2001:db8::1 1 2\r\n"]
    {
        let mut client = evener.connect();
        client.send(told);
        client.get("/").expect_status(200);
        assert_eq!(header_of(&origin, origin.requests_seen() - 1), told.as_bytes());
    }
}

/// What is kept for one client must not carry another's request: the upstream would take it for the first one's.
#[test]
fn no_two_clients_share_a_connection() {
    let origin = Origin::answering("ok").expecting_proxy_headers();
    let evener = announcing_to(&origin, "v1", "");
    let mut clients: Vec<Client> = (0..8).map(|_| evener.connect()).collect();
    for round in 0..5 {
        for (number, client) in clients.iter_mut().enumerate() {
            client.get(&format!("/{number}/{round}")).expect_status(200);
        }
    }
    for (index, request) in origin.requests().iter().enumerate() {
        let number: usize =
            request.target.split('/').nth(1).and_then(|text| text.parse().ok()).expect("a number");
        let expected = line(clients[number].local_address(), evener.address());
        assert_eq!(String::from_utf8_lossy(&header_of(&origin, index)), expected, "{}", request.target);
    }
}

#[test]
fn health_checks_are_nobodys_connections() {
    for (version, expected) in [("v1", b"PROXY UNKNOWN\r\n".to_vec()), ("v2", v2(0x20, 0, &[]))] {
        for check in ["", "health_check = { path = \"/healthz\" }"] {
            let origin = Origin::answering("ok").expecting_proxy_headers();
            let _evener = announcing_to(&origin, version, check);
            wait_until(Duration::from_secs(20), || origin.probes_seen() + origin.tcp_probes_seen() > 0);
            assert_eq!(origin.proxy_headers()[0], expected, "{version} {check}");
        }
    }
}

#[test]
fn a_unix_socket_is_told_too() {
    let origin = Origin::answering_on_a_unix_socket("ok").expecting_proxy_headers();
    let evener = announcing_to(&origin, "v2", "health_check = { path = \"/healthz\" }");
    let mut client = evener.connect();
    client.get("/").expect_status(200);
    assert_eq!(header_of(&origin, 0), block(client.local_address(), evener.address()));
}

#[test]
fn an_ipv6_upstream_is_told_in_the_family_of_the_client() {
    let origin = Origin::answering_on_ipv6("ok").expecting_proxy_headers();
    let evener = announcing_to(&origin, "v1", "");
    let mut client = evener.connect();
    client.get("/").expect_status(200);
    let expected = line(client.local_address(), evener.address());
    assert_eq!(String::from_utf8_lossy(&header_of(&origin, 0)), expected);
}

#[test]
fn a_websocket_is_announced_both_ways() {
    let origin = Origin::serving(Reply::echo_web_socket).expecting_proxy_headers();
    let evener = announcing_to(&origin, "v2", "");
    let mut socket = websocket::open(&evener);
    websocket::echo(&mut socket, "hello");
    let source = socket.get_ref().local_addr().expect("an address");
    assert_eq!(header_of(&origin, 0), block(source, evener.address()));
}

#[test]
fn an_announced_request_fails_over_to_an_upstream_that_is_there() {
    let (gone, origin) = (Origin::absent(), Origin::answering("ok").expecting_proxy_headers());
    let evener = Evener::start(&format!(
        "[pools.app]\nupstreams = [\"{}\", \"{}\"]\nproxy_protocol = \"v1\"\nhealth_check = {{ enabled = false }}",
        gone.address(),
        origin.address()
    ));
    (0..4).for_each(|_| drop(evener.get("/").expect_status(200)));
}

// With programs that nobody here wrote.

/// `HAProxy` in front, nginx behind, and the example's configuration in between.
#[test]
fn the_example_tells_nginx_what_haproxy_told() {
    let (Some(haproxy), Some(nginx)) = (find("haproxy"), find("nginx")) else { return };
    let [first_front, second_front, between, admin, behind] = [(); 5].map(|()| reserve_port());
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("write");
        path
    };
    let behind_all = file("nginx.conf", nginx_configuration(behind));
    let _nginx = Program(
        Command::new(nginx)
            .arg("-c")
            .arg(behind_all)
            .arg("-p")
            .arg(folder.path())
            .spawn()
            .expect("nginx starts"),
    );
    let text = include_str!("../../examples/proxy_protocol/evener.toml")
        .replace("127.0.0.1:8080", &format!("127.0.0.1:{between}"))
        .replace("127.0.0.1:9900", &format!("127.0.0.1:{admin}"))
        .replace("127.0.0.1:9001", &format!("127.0.0.1:{behind}"));
    let evener = Evener::start_on_text(&text);
    for (header, front) in [("send-proxy", first_front), ("send-proxy-v2", second_front)] {
        let before_all = file("haproxy.cfg", haproxy_configuration(front, between, header));
        let _haproxy = Program(
            Command::new(&haproxy).arg("-db").arg("-f").arg(before_all).spawn().expect("HAProxy starts"),
        );
        let address = SocketAddr::from(([127, 0, 0, 1], front));
        wait_until(PATIENCE, || Client::try_connect(address).is_ok());
        // HAProxy looks whether Evener is there with headers that name nobody; nginx has to be found well.
        let answered = |source: Ipv4Addr| Client::connect_from(source, address).try_get("/");
        wait_until(PATIENCE, || answered(ELSEWHERE).is_some_and(|answer| answer.status() == 200));
        for source in [ELSEWHERE, Ipv4Addr::new(127, 0, 0, 77)] {
            let mut client = Client::connect_from(source, address);
            let expected = format!("{source}:{} via {source}", client.local_address().port());
            assert_eq!(client.get("/").expect_status(200).body(), expected, "{header}");
            assert_eq!(client.get("/again").expect_status(200).body(), expected, "{header}");
        }
    }
    evener.admin().expect_metric("evener_proxy_header_failures_total", &[], 0.0);
}

fn nginx_configuration(port: u16) -> String {
    format!(
        r#"
        daemon off;
        # One process, which ends with the play.
        master_process off;
        pid nginx.pid;
        error_log stderr crit;
        events {{}}
        http {{
            access_log off;
            client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
            uwsgi_temp_path uwsgi; scgi_temp_path scgi;
            server {{
                listen 127.0.0.1:{port} proxy_protocol;
                location /healthz {{ return 200; }}
                location / {{ return 200 "$proxy_protocol_addr:$proxy_protocol_port via $http_x_forwarded_for"; }}
            }}
        }}
        "#
    )
}

fn haproxy_configuration(port: u16, evener: u16, header: &str) -> String {
    format!(
        "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
         listen front\n  bind 127.0.0.1:{port}\n  option httpchk GET /\n  http-check expect status 200\n  \
         server evener 127.0.0.1:{evener} {header} check inter 200ms\n"
    )
}

/// A program that ends with the play.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where a program is; Debian keeps some where only root looks. If it is nowhere, the play fails with what to do;
/// where `CI_ALLOW_MISSING` is set, it is left out, and says so.
fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let found = folders.map(|folder| folder.join(program)).find(|file| file.is_file());
    if found.is_none() {
        let advice = format!("{program} is missing: run `make setup`");
        assert!(env::var_os("CI_ALLOW_MISSING").is_some(), "{advice}");
        eprintln!("!!! LEFT OUT, {advice}");
    }
    found
}
