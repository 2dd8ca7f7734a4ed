//! TLS to upstreams: who is believed, who is not, and what is said about it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::rig::{AuthorityFolder, Evener, Modern, Origin, Pair, Reply, Setup, mute_server, put, quoted};
use crate::rig::{run_to_end, wait_until};

const SOON: Duration = Duration::from_secs(20);
const NAME: &str = "app.internal";

/// In front of an origin, with this certificate.
fn behind_tls(origin: &Origin, pair: &Pair) -> Modern {
    Setup { http1: Some(origin.address()), ..Setup::default() }.over(pair.server(&["http/1.1"])).start()
}

/// Keys of a pool that is judged by its traffic alone.
const UNCHECKED: &str = "health_check = { enabled = false }\nejection = { enabled = false }";

fn pool(name: &str, addresses: &[&str], tls: &str) -> String {
    let addresses: Vec<String> = addresses.iter().map(|address| format!("\"{address}\"")).collect();
    format!("[pools.{name}]\nupstreams = [{}]\ntls = {{ {tls} }}\n{UNCHECKED}\n", addresses.join(", "))
}

fn trusting(authority: &AuthorityFolder) -> String {
    format!("server_name = \"{NAME}\", ca = {}", quoted(&authority.file()))
}

fn lines_with(evener: &Evener, phrase: &str) -> usize {
    evener.log().matches(phrase).count()
}

#[test]
fn requests_go_over_tls_to_an_upstream_of_the_right_name_and_ca() {
    let (authority, origin) = (AuthorityFolder::new(), Origin::answering("secret"));
    let front = behind_tls(&origin, &authority.certificate(NAME));
    let evener = Evener::start(&pool("app", &[&front.address()], &trusting(&authority)));

    assert_eq!(evener.get("/a?b=c").expect_status(200).body(), "secret");
    let body = vec![b'x'; 300_000];
    evener.post("/upload", &body).expect_status(200);
    assert_eq!(origin.requests()[0].target, "/a?b=c");
    assert_eq!(origin.requests()[1].body, body);
    assert_eq!(front.names()[0].as_deref(), Some(NAME), "the name is asked for (SNI)");
    evener.admin().wait_for_rest();
}

/// More than one CA may be trusted, and intermediate certificates in the chain of an upstream count.
#[test]
fn a_ca_file_may_hold_several() {
    let (one, other, origin) = (AuthorityFolder::new(), AuthorityFolder::new(), Origin::answering("ok"));
    let fronts = [behind_tls(&origin, &one.certificate(NAME)), behind_tls(&origin, &other.certificate(NAME))];
    let both = one.put("both.crt", &format!("# two of them\n{}\n{}", one.pem(), other.pem()));
    let tls = format!("server_name = \"{NAME}\", ca = {}", quoted(&both));
    let evener = Evener::start(&pool("app", &[&fronts[0].address(), &fronts[1].address()], &tls));
    (0..6).for_each(|_| drop(evener.get("/").expect_status(200)));
    assert!(fronts.iter().all(|front| front.handshakes() > 0));
}

/// Each with the words that an operator gets, once.
#[test]
fn whoever_cannot_be_believed_gets_nothing_and_the_log_says_why_once() {
    let (authority, stranger, origin) =
        (AuthorityFolder::new(), AuthorityFolder::new(), Origin::answering("ok"));
    let bad = [
        (
            behind_tls(&origin, &stranger.certificate(NAME)).into_kept(),
            "signed by nobody that `tls.ca` names",
        ),
        (behind_tls(&origin, &authority.certificate("other.internal")).into_kept(), "not valid for name"),
        (behind_tls(&origin, &authority.expired_certificate(NAME)).into_kept(), "has expired"),
        ((origin.address(), None), "does not speak TLS on this port"),
    ];
    for ((address, _kept), reason) in bad {
        let evener = Evener::start(&pool("app", &[&address], &trusting(&authority)));
        for _ in 0..5 {
            let answer = evener.get_with("/", "Accept: application/json\r\n").expect_status(502);
            assert_eq!(answer.json()["reason"], "tls_failure", "{reason}");
        }
        evener.wait_for_log(reason);
        assert_eq!(lines_with(&evener, "no secure connection to upstream"), 1, "{}", evener.log());
        let failed = [&*format!("upstream=\"{address}\""), "result=\"failed\""];
        assert!(evener.admin().metric("evener_upstream_connects_total", &failed) >= 5.0);
        evener.admin().expect_metric("evener_refusals_total", &["reason=\"tls_failure\""], 5.0);
        evener.admin().wait_for_rest();
    }
    assert!(origin.requests().iter().all(|request| request.method != "GET"), "nothing got through");
}

#[test]
fn a_request_goes_to_another_upstream_when_one_cannot_be_believed() {
    let (authority, stranger, origin) =
        (AuthorityFolder::new(), AuthorityFolder::new(), Origin::answering("ok"));
    let bad = behind_tls(&origin, &stranger.certificate(NAME));
    let good = behind_tls(&origin, &authority.certificate(NAME));
    let evener = Evener::start(&pool("app", &[&bad.address(), &good.address()], &trusting(&authority)));
    for _ in 0..6 {
        evener.get("/").expect_status(200);
        evener.post("/", b"nothing was sent, so any method may go again").expect_status(200);
    }
    evener.admin().wait_for_rest();
}

#[test]
fn a_handshake_that_hangs_is_a_connect_timeout() {
    let (authority, origin) = (AuthorityFolder::new(), Origin::answering("ok"));
    let mute = mute_server(b"").to_string();
    let evener = Evener::start(&pool("app", &[&mute], &trusting(&authority)));
    let answer = evener.get_with("/", "Accept: application/json\r\n").expect_status(504);
    assert_eq!(answer.json()["reason"], "connect_timeout");
    evener.admin().wait_for_rest();

    let good = behind_tls(&origin, &authority.certificate(NAME));
    evener.reload(&pool("app", &[&mute, &good.address()], &trusting(&authority)));
    (0..3).for_each(|_| drop(evener.get("/").expect_status(200)));
    evener.admin().wait_for_rest();
}

#[test]
fn an_upstream_that_asks_who_we_are_is_shown_our_certificate() {
    let (authority, origin) = (AuthorityFolder::new(), Origin::answering("ok"));
    let server = authority.server_for_clients_of(&authority.certificate(NAME), &["http/1.1"]);
    let front = Setup { http1: Some(origin.address()), ..Setup::default() }.over(server).start();
    let client = authority.certificate("evener.internal");
    let stranger = AuthorityFolder::new().certificate("evener.internal");
    let shown = |pair: &Pair| {
        format!(
            "{}, certificate = {}, key = {}",
            trusting(&authority),
            quoted(&pair.certificate),
            quoted(&pair.key)
        )
    };

    let evener = Evener::start(&pool("app", &[&front.address()], &shown(&client)));
    evener.get("/").expect_status(200);

    evener.reload(&pool("app", &[&front.address()], &trusting(&authority)));
    let answer = evener.get_with("/", "Accept: application/json\r\n").expect_status(502);
    assert_eq!(answer.json()["reason"], "tls_failure");
    evener.wait_for_log("it wants a client certificate");
    drop(stranger);
    evener.admin().wait_for_rest();
}

/// PINGORA.md, rule 12: by itself, Pingora would share the connection.
#[test]
fn pools_of_one_address_share_no_connection_across_trust() {
    let (authority, stranger, origin) =
        (AuthorityFolder::new(), AuthorityFolder::new(), Origin::answering("ok"));
    let front = behind_tls(&origin, &authority.certificate(NAME));
    let address = front.address();
    let evener = Evener::start(&format!(
        "[routes.a]\npath_prefix = \"/a\"\npool = \"a\"\n[routes.b]\npath_prefix = \"/b\"\npool = \"b\"\n\
         [routes.c]\npath_prefix = \"/c\"\npool = \"c\"\n{}{}{}",
        pool("a", &[&address], &trusting(&authority)),
        pool("b", &[&address], &trusting(&stranger)),
        pool("c", &[&address], &format!("server_name = \"c.internal\", ca = {}", quoted(&authority.file()))),
    ));
    for _ in 0..3 {
        evener.get("/a").expect_status(200);
        evener.get("/b").expect_status(502);
        evener.get("/c").expect_status(502);
    }
}

#[test]
fn another_certificate_under_the_same_name_takes_effect_with_a_reload() {
    let (authority, stranger, origin) =
        (AuthorityFolder::new(), AuthorityFolder::new(), Origin::answering("ok"));
    let front = behind_tls(&origin, &authority.certificate(NAME));
    let tls = trusting(&authority);
    let evener = Evener::start(&pool("app", &[&front.address()], &tls));
    (0..3).for_each(|_| drop(evener.get("/").expect_status(200)));

    let right = fs::read(authority.file()).expect("a file");
    fs::copy(stranger.file(), authority.file()).expect("copy");
    evener.reload(&pool("app", &[&front.address()], &tls));
    // What was connected under the former trust must not be used either.
    (0..3).for_each(|_| drop(evener.get("/").expect_status(502)));

    fs::write(authority.file(), right).expect("write");
    evener.reload(&pool("app", &[&front.address()], &tls));
    (0..3).for_each(|_| drop(evener.get("/").expect_status(200)));

    fs::write(authority.file(), "no certificate").expect("write");
    evener.reload_in_vain(&pool("app", &[&front.address()], &tls));
    evener.get("/").expect_status(200);
}

/// As those of listeners: who renews them need not tell anybody.
#[test]
fn files_that_change_on_the_disk_are_used_without_a_word() {
    let (authority, stranger, origin) =
        (AuthorityFolder::new(), AuthorityFolder::new(), Origin::answering("ok"));
    let server = authority.server_for_clients_of(&authority.certificate(NAME), &["http/1.1"]);
    let front = Setup { http1: Some(origin.address()), ..Setup::default() }.over(server).start();
    let (ours, foreign) = (authority.certificate("evener.internal"), stranger.certificate("evener.internal"));
    let shown = format!("certificate = {}, key = {}", quoted(&ours.certificate), quoted(&ours.key));
    let tls = format!("{}, {shown}", trusting(&authority));
    let evener = Evener::start_watching(&pool("app", &[&front.address()], &tls));
    let expect = |status: u16, generation: u64| {
        wait_until(SOON, || evener.get("/").status() == status);
        assert_eq!(evener.generation(), generation, "{}", evener.log());
    };
    expect(200, 1);

    // Whom we believe; and what is no certificate leaves that as it is.
    put(&authority.file(), stranger.pem());
    expect(502, 2);
    put(&authority.file(), "no certificate");
    evener.wait_for_log(&format!("{}` has no certificate in it", authority.file().display()));
    expect(502, 2);
    put(&authority.file(), authority.pem());
    expect(200, 3);

    // Who we are: half of an exchange, then all of it.
    let read = |file: &Path| fs::read_to_string(file).expect("a file");
    put(&ours.certificate, &read(&foreign.certificate));
    evener.wait_for_log("does not belong to the certificate");
    expect(200, 3);
    put(&ours.key, &read(&foreign.key));
    expect(502, 4);
    evener.admin().wait_for_rest();
}

/// PINGORA.md, 3.1: Pingora loads the system's CAs at the start and panics; and makes a verifier of none.
#[test]
fn a_machine_without_any_ca_is_good_enough() {
    let (authority, origin) = (AuthorityFolder::new(), Origin::answering("ok"));
    let front = behind_tls(&origin, &authority.certificate(NAME));
    let address = front.address();
    let route = |name: &str| format!("[routes.{name}]\npath_prefix = \"/{name}\"\npool = \"{name}\"\n");
    let configuration = [
        ["clear", "own", "any", "system"].map(route).concat(),
        format!("[pools.clear]\nupstreams = [\"{}\"]\n", origin.address()),
        pool("own", &[&address], &trusting(&authority)),
        pool("any", &[&address], "verify = false"),
        pool("system", &[&address], &format!("server_name = \"{NAME}\"")),
    ]
    .concat();
    let nowhere = [("SSL_CERT_FILE", "/nonexistent/ca.pem"), ("SSL_CERT_DIR", "/nonexistent")];
    let evener = Evener::start_with_environment(&configuration, &nowhere);
    evener.get("/clear").expect_status(200);
    evener.get("/own").expect_status(200);
    evener.get("/any").expect_status(200);
    evener.get("/system").expect_status(502);

    let file = authority.file().display().to_string();
    let evener = Evener::start_with_environment(&configuration, &[("SSL_CERT_FILE", &file)]);
    evener.get("/system").expect_status(200);
    evener.get("/any").expect_status(200);
}

#[test]
fn without_verification_whoever_answers_is_believed() {
    let origin = Origin::answering("ok");
    let front = behind_tls(&origin, &AuthorityFolder::new().expired_certificate("somebody.else"));
    let evener = Evener::start(&pool("app", &[&front.address()], "verify = false"));
    evener.get("/").expect_status(200);
    assert_eq!(front.names()[0], None, "no name, no SNI");
}

#[test]
fn health_checks_go_the_same_way() {
    let (authority, stranger) = (AuthorityFolder::new(), AuthorityFolder::new());
    let (well, sick) = (Origin::answering("ok"), Origin::answering("ok"));
    let fronts =
        [behind_tls(&well, &authority.certificate(NAME)), behind_tls(&sick, &stranger.certificate(NAME))];
    let evener = Evener::start(&format!(
        "[pools.app]\nupstreams = [\"{}\", \"{}\"]\ntls = {{ {} }}\n\
         health_check = {{ path = \"/healthz\", interval = \"200ms\", fast_interval = \"100ms\" }}",
        fronts[0].address(),
        fronts[1].address(),
        trusting(&authority),
    ));
    let upstream =
        |front: &Modern| evener.admin().json(&format!("/v1/pools/app/upstreams/{}", front.address()));
    wait_until(SOON, || upstream(&fronts[0])["health"] == "up" && upstream(&fronts[1])["health"] == "down");
    let error = upstream(&fronts[1])["last_check"]["error"].to_string();
    assert!(error.contains("TLS: its certificate is signed by nobody"), "{error}");
    well.wait_for_probes(2);
    assert_eq!(sick.probes_seen(), 0);
}

#[test]
fn a_tcp_check_asks_for_no_certificate() {
    let authority = AuthorityFolder::new();
    let mute = mute_server(b"").to_string();
    let evener = Evener::start(&format!(
        "[pools.app]\nupstreams = [\"{mute}\"]\ntls = {{ {} }}\nhealth_check = {{ interval = \"200ms\" }}",
        trusting(&authority)
    ));
    wait_until(SOON, || evener.admin().json(&format!("/v1/pools/app/upstreams/{mute}"))["health"] == "up");
}

#[test]
fn connections_over_tls_are_used_again() {
    let (authority, origin) = (AuthorityFolder::new(), Origin::answering("ok"));
    let front = behind_tls(&origin, &authority.certificate(NAME));
    let evener = Evener::start(&pool("app", &[&front.address()], &trusting(&authority)));
    let mut client = evener.connect();
    (0..50).for_each(|_| drop(client.get("/").expect_status(200)));
    assert!(front.handshakes() < 50, "{} handshakes", front.handshakes());

    let none = format!(
        "{}keepalive = {{ max_idle = 0 }}\n",
        pool("app", &[&front.address()], &trusting(&authority))
    );
    let evener = Evener::start(&none);
    let before = front.handshakes();
    let mut client = evener.connect();
    (0..5).for_each(|_| drop(client.get("/").expect_status(200)));
    assert_eq!(front.handshakes(), before + 5, "none is kept");
}

#[test]
fn a_websocket_goes_over_tls() {
    let (authority, origin) = (AuthorityFolder::new(), Origin::serving(Reply::echo_web_socket));
    let front = behind_tls(&origin, &authority.certificate(NAME));
    let evener = Evener::start(&pool("app", &[&front.address()], &trusting(&authority)));
    let mut socket = crate::websocket::open(&evener);
    crate::websocket::echo(&mut socket, "hello");
}

#[test]
fn an_upstream_on_a_unix_socket_has_no_name_of_its_own() {
    // It is a matter of configuration; the handshake is the same as over TCP.
    let text = "[listeners.http]\naddress = \"127.0.0.1:1\"\n[pools.app]\nupstreams = [\"unix:/run/app.sock\"]\ntls = {}\n";
    let finished = run_to_end(&["check", "evener.toml"], &[("evener.toml", text)]);
    assert_eq!(finished.code, Some(1));
    assert!(finished.stderr.contains("`tls` needs `server_name`"), "{}", finished.stderr);
}

#[test]
fn bad_material_is_refused_at_check_with_its_place() {
    let (authority, other) = (AuthorityFolder::new(), AuthorityFolder::new());
    let (pair, foreign) = (authority.certificate(NAME), other.certificate("foreign"));
    let old = authority.expired_certificate(NAME);
    let ours = |certificate: &Path, key: &Path| {
        format!("server_name = \"{NAME}\", certificate = {}, key = {}", quoted(certificate), quoted(key))
    };
    let wrong = [
        (format!("server_name = \"{NAME}\", ca = \"nowhere.pem\""), "nowhere.pem` does not exist"),
        (format!("server_name = \"{NAME}\", ca = {}", quoted(&pair.key)), "has no certificate in it"),
        (ours(&pair.certificate, &foreign.key), "does not belong to the certificate"),
        (ours(&pair.certificate, &pair.certificate), "has no private key in it"),
        (ours(&old.certificate, &old.key), "has expired on "),
        (format!("server_name = \"{NAME}\", ca = {}", quoted(&old.certificate)), "has expired on "),
    ];
    for (tls, reason) in wrong {
        let text =
            format!("[listeners.http]\naddress = \"127.0.0.1:1\"\n{}", pool("app", &["127.0.0.1:2"], &tls));
        let finished = run_to_end(&["check", "evener.toml"], &[("evener.toml", &text)]);
        assert_eq!(finished.code, Some(1), "{reason}");
        let told = &finished.stderr;
        assert!(
            told.contains(reason) && told.contains("evener.toml:5:") && told.contains("= help:"),
            "{told}"
        );
    }
}

impl Modern {
    /// With its address, for lists in which not everybody is one.
    fn into_kept(self) -> (String, Option<Self>) {
        (self.address(), Some(self))
    }
}
