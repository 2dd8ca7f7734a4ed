//! TLS with clients: which certificate they see, who may come in, what upstreams learn of them, and what
//! becomes of all that when files change.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{fs, thread};

use rustls::ProtocolVersion;
use tempfile::TempDir;
use tungstenite::Message;

use crate::rig::{
    Authority, Background, Client, Evener, Issued, Kind, Origin, Reply, Socket, TlsClient, certificate_of,
    put, reserve_port, run_to_end, wait_until,
};

/// A machine under load may take its time.
const SOON: Duration = Duration::from_secs(30);

/// An authority, a folder for files, and an origin.
struct Scene {
    folder: TempDir,
    authority: Authority,
    origin: Origin,
}

impl Scene {
    /// With `site.crt` for `example.com`.
    fn new() -> Self {
        Self::with(Origin::answering("ok"))
    }

    fn with(origin: Origin) -> Self {
        let scene =
            Self { folder: tempfile::tempdir().unwrap(), authority: Authority::new("authority"), origin };
        scene.site();
        scene
    }

    /// A new certificate in `site.crt`.
    fn site(&self) -> Issued {
        let issued = self.authority.issue(&["example.com"]);
        issued.write(self.folder.path(), "site");
        issued
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The entry of `certificates` for this pair of files.
    fn entry(&self, name: &str) -> String {
        let (certificate, key) = (self.file(&format!("{name}.crt")), self.file(&format!("{name}.key")));
        format!("{{ certificate = \"{}\", key = \"{}\" }}", certificate.display(), key.display())
    }

    fn pool(&self) -> String {
        format!(
            "[pools.app]\nupstreams = [\"{}\"]\nhealth_check = {{ enabled = false }}\n",
            self.origin.address()
        )
    }

    /// A listener with these pairs of files, and more in its `tls`.
    fn text(&self, names: &[&str], more: &str) -> String {
        let entries: Vec<String> = names.iter().map(|name| self.entry(name)).collect();
        format!("{}[listeners.http.tls]\ncertificates = [{}]\n{more}\n", self.pool(), entries.join(", "))
    }

    fn start(&self) -> Evener {
        Evener::start(&self.text(&["site"], ""))
    }

    fn client(&self) -> TlsClient {
        TlsClient::trusting(&self.authority)
    }

    /// `client_ca` with another authority, and that authority.
    fn client_ca(&self) -> (Authority, String) {
        let authority = Authority::new("clients");
        let file = authority.write(self.folder.path(), "clients");
        (authority, format!("client_ca = \"{}\"", file.display()))
    }
}

#[test]
fn requests_over_tls_are_answered_and_upstreams_are_told() {
    let scene = Scene::new();
    let evener = Evener::start(&format!("[log]\naccess = \"stdout\"\n{}", scene.text(&["site"], "")));
    let mut client = scene.client().connect(evener.address(), "example.com");
    for path in ["/one", "/two"] {
        assert_eq!(client.get(path).expect_status(200).body(), "ok");
    }
    let requests = scene.origin.requests();
    assert_eq!(requests.len(), 2, "both on one connection");
    for request in requests {
        assert_eq!(request.values("x-forwarded-proto"), ["https"]);
        assert_eq!(request.header("x-client-cert-verified"), None, "nobody was asked");
    }
    wait_until(SOON, || evener.standard_output().matches("tls=TLSv1.3").count() == 2);
    assert!(evener.standard_output().contains("\"GET /one HTTP/1.1\" 200"), "{}", evener.standard_output());
    evener.admin().expect_metric("evener_tls_handshakes_total", &["listener=\"http\"", "result=\"ok\""], 1.0);
}

#[test]
fn each_host_has_its_certificate_and_strangers_see_the_first() {
    let scene = Scene::new();
    let (exact, wildcard, address) = (
        scene.authority.issue(&["api.example.org", "shop.example.net"]),
        scene.authority.issue(&["*.example.org"]),
        scene.authority.issue(&["first.example", "127.0.0.1"]),
    );
    address.write(scene.folder.path(), "address");
    exact.write(scene.folder.path(), "exact");
    wildcard.write(scene.folder.path(), "wildcard");
    let evener = Evener::start(&scene.text(&["address", "exact", "wildcard"], ""));
    let shown = |host: &str| scene.client().certificate(evener.address(), host);
    assert_eq!(shown("api.example.org"), exact.der);
    assert_eq!(shown("API.Example.ORG"), exact.der);
    assert_eq!(shown("shop.example.net"), exact.der);
    assert_eq!(shown("www.example.org"), wildcard.der);
    assert_eq!(shown("first.example"), address.der);
    assert_eq!(shown("127.0.0.1"), address.der, "who asks for an address names no host");
    for (name, der) in [("api.example.org.", &exact.der), ("www.example.org.", &wildcard.der)] {
        assert_eq!(&openssl(evener.address(), &["-servername", name]).certificate, der, "{name}");
    }
    for stranger in ["a.b.example.org", "example.org", "else.example"] {
        let seen = openssl(evener.address(), &["-servername", stranger]);
        assert_eq!(seen.certificate, address.der, "{stranger}");
    }
}

/// What OpenSSL's client saw.
struct Seen {
    /// What it was shown; empty when there was no handshake.
    certificate: Vec<u8>,
    /// All that it said.
    said: String,
}

/// A handshake with OpenSSL's client, and these arguments.
#[track_caller]
fn openssl(address: SocketAddr, arguments: &[&str]) -> Seen {
    let run = Command::new("openssl")
        .args(["s_client", "-connect", &address.to_string()])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("openssl is installed (`make setup`)");
    let said = String::from_utf8_lossy(&run.stdout).into_owned() + &String::from_utf8_lossy(&run.stderr);
    let shown = said.split_once("-----BEGIN CERTIFICATE-----").map_or("", |(_, rest)| rest);
    let shown = shown.split_once("-----END CERTIFICATE-----").map_or("", |(shown, _)| shown);
    let pem = format!("-----BEGIN CERTIFICATE-----{shown}-----END CERTIFICATE-----\n");
    let der = <rustls::pki_types::CertificateDer<'_> as rustls::pki_types::pem::PemObject>::from_pem_slice(
        pem.as_bytes(),
    );
    Seen { certificate: der.map(|der| der.to_vec()).unwrap_or_default(), said }
}

#[test]
fn of_two_certificates_for_one_host_each_client_sees_the_one_that_it_knows() {
    let scene = Scene::new();
    let (ecdsa, rsa) =
        (scene.authority.issue(&["example.com"]), scene.authority.issue_for(&["example.com"], Kind::Rsa));
    ecdsa.write(scene.folder.path(), "ecdsa");
    rsa.write(scene.folder.path(), "rsa");
    let evener = Evener::start(&scene.text(&["rsa", "ecdsa"], ""));
    let shown = |arguments: &[&str]| {
        let name = ["-servername", "example.com"];
        let seen = openssl(evener.address(), &[&name, arguments].concat());
        assert!(seen.certificate == ecdsa.der || seen.certificate == rsa.der, "{}", seen.said);
        if seen.certificate == ecdsa.der { Kind::Ecdsa } else { Kind::Rsa }
    };
    assert_eq!(shown(&[]), Kind::Ecdsa);
    assert_eq!(shown(&["-sigalgs", "RSA-PSS+SHA256"]), Kind::Rsa);
    assert_eq!(shown(&["-sigalgs", "RSA-PSS+SHA256:ECDSA+SHA256"]), Kind::Ecdsa);
    let suite = ["-tls1_2", "-cipher"];
    assert_eq!(shown(&[&suite[..], &["ECDHE-ECDSA-AES128-GCM-SHA256"]].concat()), Kind::Ecdsa);
    // It knows how to verify ECDSA, and has no suite with it.
    assert_eq!(shown(&[&suite[..], &["ECDHE-RSA-AES128-GCM-SHA256"]].concat()), Kind::Rsa);
    // So it is for those who name no host.
    let nameless = openssl(evener.address(), &["-noservername", "-sigalgs", "RSA-PSS+SHA256"]);
    assert_eq!(nameless.certificate, rsa.der, "{}", nameless.said);
}

#[test]
fn the_oldest_version_is_the_configured_one() {
    let scene = Scene::new();
    let (new, old) = (scene.client(), TlsClient::of_version_1_2(&scene.authority));
    let evener = scene.start();
    let version = |client: &TlsClient| client.stream(evener.address(), "example.com").conn.protocol_version();
    assert_eq!(version(&new), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(version(&old), Some(ProtocolVersion::TLSv1_2));
    let older = openssl(evener.address(), &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]);
    assert!(older.certificate.is_empty(), "{}", older.said);

    evener.reload(&scene.text(&["site"], "min_version = \"1.3\""));
    assert_eq!(version(&new), Some(ProtocolVersion::TLSv1_3));
    assert!(old.try_connect(evener.address(), "example.com").is_err());
}

/// testssl.sh wants it so.
#[test]
fn the_order_of_the_suites_is_ours() {
    let scene = Scene::new();
    let evener = scene.start();
    let chosen = |arguments: &[&str], suite: &str| {
        let said = openssl(evener.address(), arguments).said;
        assert!(said.contains(&format!("Cipher is {suite}")), "{said}");
    };
    let (strong, fast) = ("ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-GCM-SHA256");
    chosen(&["-tls1_2", "-cipher", &format!("{strong}:{fast}")], fast);
    let (other, fast) = ("TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256");
    chosen(&["-tls1_3", "-ciphersuites", &format!("{other}:{fast}")], fast);
    chosen(&["-tls1_3", "-ciphersuites", other], other);
}

#[test]
fn what_is_offered_is_what_the_file_says() {
    let scene = Scene::new();
    let evener = Evener::start(&scene.text(&["site"], "protocols = [\"http/1.1\"]"));
    let spoken = |offered: &[&str]| {
        let stream = scene.client().offering(offered).try_connect(evener.address(), "example.com");
        stream
            .map(|stream| stream.conn.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()))
    };
    assert_eq!(spoken(&["h2", "http/1.1"]).unwrap().as_deref(), Some("http/1.1"));
    assert_eq!(spoken(&[]).unwrap(), None);
    assert!(spoken(&["h2"]).is_err());
    evener.reload(&scene.text(&["site"], ""));
    assert_eq!(spoken(&["http/1.1", "h2"]).unwrap().as_deref(), Some("h2"));
}

/// haproxy#1187, traefik#1434: a renewal dropped connections, or some kept seeing the old certificate.
#[test]
fn a_renewed_certificate_is_for_new_connections_and_no_request_notices() {
    let scene = Scene::new();
    let evener = scene.start();
    let before = scene.client().stream(evener.address(), "example.com");
    let old = certificate_of(&before);
    let mut before = Client::over(Socket::Tls(Box::new(before)), evener.address());
    drop(before.get("/").expect_status(200));
    let load = TlsLoad::on(&evener, &scene.client());
    for _ in 0..5 {
        let new = scene.site();
        evener.reload(&scene.text(&["site"], ""));
        assert_eq!(scene.client().certificate(evener.address(), "example.com"), new.der);
        assert_ne!(new.der, old);
        drop(before.get("/").expect_status(200));
    }
    assert!(load.stop() > 0);
    evener.admin().expect_metric("evener_tls_handshakes_total", &["result=\"failed\""], 0.0);
}

/// Clients that connect, ask twice, and leave, again and again.
struct TlsLoad {
    stop: Arc<AtomicBool>,
    clients: Vec<Background<usize>>,
}

impl TlsLoad {
    fn on(evener: &Evener, client: &TlsClient) -> Self {
        let (stop, address) = (Arc::new(AtomicBool::new(false)), evener.address());
        let ask = || {
            let (stop, client) = (stop.clone(), client.clone());
            Background::run(move || {
                let mut answers = 0;
                while !stop.load(Ordering::Relaxed) {
                    let mut connection = client.connect(address, "example.com");
                    answers += (0..2).map(|_| connection.get("/").expect_status(200)).count();
                }
                answers
            })
        };
        let clients = (0..3).map(|_| ask()).collect();
        Self { stop, clients }
    }

    /// How many answers there were; that of each was 200.
    fn stop(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.into_iter().map(Background::join).sum()
    }
}

#[test]
fn a_broken_certificate_is_refused_and_the_old_one_goes_on() {
    let scene = Scene::new();
    let evener = scene.start();
    let old = scene.client().certificate(evener.address(), "example.com");
    put(&scene.file("site.key"), &scene.authority.issue(&["example.com"]).key);
    evener.reload_in_vain(&scene.text(&["site"], ""));
    assert!(evener.log().contains("does not belong to the certificate in"), "{}", evener.log());
    assert_eq!(scene.client().certificate(evener.address(), "example.com"), old);

    scene.authority.issue_from_to(&["example.com"], -90, -1).write(scene.folder.path(), "site");
    let answer = evener.admin().post("/v1/reload", "").expect_status(422);
    assert!(answer.body().contains("has expired on"), "{answer}");
    assert_eq!(scene.client().certificate(evener.address(), "example.com"), old);
    assert_eq!(evener.generation(), 1);

    let new = scene.site();
    drop(evener.admin().post("/v1/reload", "").expect_status(200));
    assert_eq!(scene.client().certificate(evener.address(), "example.com"), new.der);
}

#[test]
fn check_names_file_and_reason() {
    let scene = Scene::new();
    scene.authority.issue_from_to(&["example.com"], -90, -1).write(scene.folder.path(), "old");
    let text = format!("[listeners.http]\naddress = \"127.0.0.1:8443\"\n{}", scene.text(&["old"], ""));
    let run = run_to_end(&["check"], &[("evener.toml", &text)]);
    assert_eq!(run.code, Some(1));
    assert!(run.stderr.contains("old.crt` has expired on 20"), "{}", run.stderr);
    assert!(run.stderr.contains("evener.toml:7:"), "{}", run.stderr);

    scene.authority.issue_from_to(&["example.com"], -60, 20).write(scene.folder.path(), "old");
    let run = run_to_end(&["check"], &[("evener.toml", &text)]);
    assert_eq!(run.code, Some(0));
    assert!(run.stderr.contains("old.crt` expires on 20"), "{}", run.stderr);
}

#[test]
fn an_end_in_sight_is_in_the_log_in_the_metrics_and_in_the_status() {
    let scene = Scene::new();
    scene
        .authority
        .issue_from_to(&["example.com", "*.example.com"], -60, 20)
        .write(scene.folder.path(), "old");
    let evener = Evener::start(&scene.text(&["old"], ""));
    evener.wait_for_log("certificate ends soon");
    let status = evener.admin().json("/v1/status");
    let certificate = &status["listeners"][0]["certificates"][0];
    assert_eq!(certificate["file"], scene.file("old.crt").display().to_string());
    assert_eq!(certificate["names"], serde_json::json!(["*.example.com", "example.com"]));
    assert!(certificate["not_after"].as_str().is_some_and(|time| time.starts_with("20")), "{status}");
    let name = format!("name=\"{}\"", scene.file("old.crt").display());
    let not_after = evener
        .admin()
        .metric("evener_certificate_not_after_timestamp_seconds", &["listener=\"http\"", &name]);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    let days = (not_after - now) / (24.0 * 3600.0);
    assert!((19.0..=20.0).contains(&days), "{days}");

    scene.site();
    evener.reload(&scene.text(&["site"], ""));
    let now = evener.admin().metric("evener_certificate_not_after_timestamp_seconds", &[&name]);
    assert!(now.abs() < f64::EPSILON, "it takes its series along");
}

/// As certbot does it: `live/site.crt` is a link, which is made to point to another file.
#[test]
fn a_certificate_that_changes_on_the_disk_is_used_without_a_word() {
    let scene = Scene::new();
    let link_to = |version: &str| {
        for kind in ["crt", "key"] {
            let new = scene.file("new");
            symlink(format!("{version}.{kind}"), &new).unwrap();
            fs::rename(&new, scene.file(&format!("live.{kind}"))).unwrap();
        }
    };
    scene.authority.issue(&["example.com"]).write(scene.folder.path(), "v1");
    link_to("v1");
    let evener = Evener::start_watching(&scene.text(&["live"], ""));
    let shown = || scene.client().certificate(evener.address(), "example.com");

    let renewed = scene.authority.issue(&["example.com"]);
    renewed.write(scene.folder.path(), "v2");
    link_to("v2");
    wait_until(SOON, || shown() == renewed.der);
    assert_eq!(evener.generation(), 2, "{}", evener.log());

    // Half of a renewal, and longer than anybody would take.
    let again = scene.authority.issue(&["example.com"]);
    put(&scene.file("v2.crt"), &again.certificate);
    evener.wait_for_log("does not belong to the certificate in");
    assert_eq!(shown(), renewed.der);
    put(&scene.file("v2.key"), &again.key);
    wait_until(SOON, || shown() == again.der);
    assert_eq!(evener.generation(), 3, "{}", evener.log());
    assert_eq!(evener.log().matches("configuration refused").count(), 1, "{}", evener.log());
    wait_until(SOON, || evener.admin().json("/v1/status")["last_refusal"].is_null());

    // Touched, and the same: nothing happens but a look, and what comes next is one generation later.
    put(&scene.file("v2.crt"), &again.certificate);
    thread::sleep(Duration::from_secs(1));
    let last = scene.authority.issue(&["example.com"]);
    last.write(scene.folder.path(), "v3");
    link_to("v3");
    wait_until(SOON, || shown() == last.der);
    assert_eq!(evener.generation(), 4, "{}", evener.log());
}

#[test]
fn a_session_is_resumed_across_a_reload_that_changes_something_else() {
    let scene = Scene::new();
    let evener = scene.start();
    for client in [scene.client(), TlsClient::of_version_1_2(&scene.authority)] {
        assert!(!client.is_resumed(evener.address(), "example.com"));
        assert!(client.is_resumed(evener.address(), "example.com"));
    }
    let client = scene.client();
    assert!(!client.is_resumed(evener.address(), "example.com"));
    evener.reload(&format!("{}[routes.all]\npool = \"app\"\ntimeout = \"7s\"\n", scene.text(&["site"], "")));
    assert!(client.is_resumed(evener.address(), "example.com"));
    evener.admin().expect_metric("evener_tls_handshakes_total", &["result=\"resumed\""], 3.0);
    scene.site();
    evener.reload(&scene.text(&["site"], ""));
    assert!(!client.is_resumed(evener.address(), "example.com"), "another certificate, other keys");
}

/// Else a client of one listener could come in at another without a certificate.
#[test]
fn a_session_of_one_listener_is_none_at_another() {
    let scene = Scene::new();
    let (_, client_ca) = scene.client_ca();
    let other = SocketAddr::from(([127, 0, 0, 1], reserve_port()));
    let second = format!(
        "[listeners.second]\naddress = \"{other}\"\n[listeners.second.tls]\ncertificates = [{}]\n{client_ca}\n",
        scene.entry("site")
    );
    let evener = Evener::start(&format!("{}{second}", scene.text(&["site"], "")));
    for client in [scene.client(), TlsClient::of_version_1_2(&scene.authority)] {
        assert!(!client.is_resumed(evener.address(), "example.com"));
        let answer = client
            .try_connect(other, "example.com")
            .map(|stream| Client::over(Socket::Tls(Box::new(stream)), other).try_get("/").is_some());
        assert!(!answer.unwrap_or(false), "nobody comes in without a certificate");
    }
    assert_eq!(scene.origin.requests_seen(), 2);
}

#[test]
fn a_client_without_a_good_certificate_stays_outside() {
    let scene = Scene::new();
    let (clients, client_ca) = scene.client_ca();
    let evener = Evener::start(&scene.text(&["site"], &client_ca));
    let alice = clients.issue_to_client("alice");
    let mallory = Authority::new("clients").issue_to_client("alice");
    let may_enter = |client: &TlsClient| {
        let stream = client.try_connect(evener.address(), "example.com");
        stream.is_ok_and(|stream| {
            Client::over(Socket::Tls(Box::new(stream)), evener.address()).try_get("/").is_some()
        })
    };
    assert!(!may_enter(&scene.client()));
    assert!(!may_enter(&TlsClient::bearing(&scene.authority, &mallory)));
    assert_eq!(scene.origin.requests_seen(), 0);
    assert!(may_enter(&TlsClient::bearing(&scene.authority, &alice)));
    evener.admin().expect_metric("evener_tls_handshakes_total", &["result=\"failed\""], 2.0);

    let request = scene.origin.only_request();
    assert_eq!(request.values("x-client-cert-verified"), ["true"]);
    assert_eq!(request.values("x-client-cert-subject"), ["O=Example\\, Inc.,CN=alice"]);
    let digest = ring::digest::digest(&ring::digest::SHA256, &alice.der);
    let fingerprint: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(request.values("x-client-cert-fingerprint"), [fingerprint.as_str()]);

    evener.reload(&scene.text(&["site"], &format!("{client_ca}\nclient_auth = \"optional\"")));
    assert!(may_enter(&scene.client()));
    assert!(!may_enter(&TlsClient::bearing(&scene.authority, &mallory)));
    assert!(may_enter(&TlsClient::bearing(&scene.authority, &alice)));
    let verified: Vec<String> = scene
        .origin
        .requests()
        .iter()
        .skip(1)
        .map(|request| {
            format!(
                "{:?} {:?}",
                request.values("x-client-cert-verified"),
                request.values("x-client-cert-subject")
            )
        })
        .collect();
    assert_eq!(verified, ["[\"false\"] []", "[\"true\"] [\"O=Example\\\\, Inc.,CN=alice\"]"]);
}

/// A session says whose certificate its client had, and outlives it by hours if nobody looks.
#[test]
fn a_client_certificate_takes_its_sessions_along_when_it_ends() {
    let scene = Scene::new();
    let (clients, client_ca) = scene.client_ca();
    let evener = Evener::start(&scene.text(&["site"], &client_ca));
    let alice =
        TlsClient::bearing(&scene.authority, &clients.issue_to_client_for("alice", Duration::from_secs(12)));
    assert!(!alice.is_resumed(evener.address(), "example.com"));
    assert!(alice.is_resumed(evener.address(), "example.com"));
    wait_until(SOON, || {
        let stream = alice.try_connect(evener.address(), "example.com");
        !stream.is_ok_and(|stream| {
            Client::over(Socket::Tls(Box::new(stream)), evener.address()).try_get("/").is_some()
        })
    });
}

/// Whoever reads to the end has to know whether somebody else has cut the connection.
#[test]
fn an_answer_that_ends_with_the_connection_ends_in_good_order() {
    let scene = Scene::with(Origin::serving(|_| Reply::chunked(&["some ", "more"], "")));
    let evener = scene.start();
    let mut client = scene.client().connect(evener.address(), "example.com");
    client.send("GET / HTTP/1.0\r\n\r\n");
    let answer = client.read("GET").expect_status(200);
    assert!(answer.ended_by_close);
    assert_eq!(answer.body(), "some more");
}

/// Who could say so himself would be whom he likes.
#[test]
fn nobody_says_of_himself_who_he_is() {
    let scene = Scene::new();
    let (_, client_ca) = scene.client_ca();
    let asking = format!(
        "{}\n[listeners.http]\ntrusted_proxies = [\"127.0.0.1\"]\n",
        scene.text(&["site"], &format!("{client_ca}\nclient_auth = \"optional\""))
    );
    let claims = "X-Client-Cert-Verified: true\r\nX-Client-Cert-Subject: CN=admin\r\nx-client-cert-fingerprint: 00\r\n\
                  X_Client_Cert_Subject: CN=admin\r\nx-client_cert-verified: true\r\nX-Client-Cert_Fingerprint: 00\r\n";
    let told = |request: &crate::rig::Request| -> Vec<String> {
        let folded = |name: &str| name.to_ascii_lowercase().replace('_', "-");
        let told = request.headers().iter().filter(|(name, _)| folded(name).starts_with("x-client"));
        told.map(|(name, value)| format!("{name}: {value}")).collect()
    };
    let claim = |evener: &Evener| {
        let mut client = scene.client().connect(evener.address(), "example.com");
        client.request("GET", "/", claims, b"").expect_status(200);
    };
    let evener = Evener::start(&asking);
    claim(&evener);
    assert_eq!(told(&scene.origin.requests()[0]), ["X-Client-Cert-Verified: false"]);

    evener.reload(&scene.text(&["site"], ""));
    claim(&evener);
    evener.reload(&scene.pool());
    drop(evener.get_with("/", claims).expect_status(200));
    for request in &scene.origin.requests()[1..] {
        assert_eq!(told(request), Vec::<String>::new());
    }
    assert_eq!(scene.origin.requests()[2].values("x-forwarded-proto"), ["http"], "TLS was turned off");
}

#[test]
fn a_client_that_does_not_get_on_with_the_handshake_is_cut() {
    let scene = Scene::new();
    let evener = Evener::start(&scene.text(&["site"], "handshake_timeout = \"1s\""));
    let mut silent = evener.connect();
    let mut slow = evener.connect();
    // The beginning of a record that never ends.
    slow.send([0x16, 0x03, 0x01, 0x02, 0x00, 0x01]);
    assert_eq!(scene.client().connect(evener.address(), "example.com").get("/").body(), "ok");
    assert!(silent.is_closed_within(SOON));
    assert!(slow.is_closed_within(SOON));
    evener.admin().expect_metric("evener_tls_handshakes_total", &["result=\"timeout\""], 2.0);
    evener.admin().expect_metric("evener_connections", &["listener=\"http\""], 0.0);
}

#[test]
fn who_speaks_http_in_clear_is_told_and_garbage_is_not_answered() {
    let scene = Scene::new();
    let evener = scene.start();
    let answer = evener.get("/").expect_status(400);
    assert!(answer.body().contains("this port speaks TLS"), "{answer}");
    for garbage in [
        &b"\x00\x00\x00\x00"[..],
        b"\x80\x2e\x01\x00\x02",
        b"\x16\x03\x01\x00\x05hello",
        b"\xff\xff\xff\xff\xff\xff",
    ] {
        let mut client = evener.connect();
        client.send(garbage);
        client.finish_sending();
        wait_until(SOON, || client.is_closed_within(SOON) || client.try_get("/").is_none());
    }
    evener.admin().expect_metric("evener_tls_handshakes_total", &["result=\"failed\""], 5.0);
    evener.admin().expect_metric("evener_connections", &["listener=\"http\""], 0.0);
    assert_eq!(scene.origin.requests_seen(), 0);
    assert!(!evener.log().contains("handshake"), "only for those who debug: {}", evener.log());
}

#[test]
fn connections_beyond_the_limit_cost_no_handshake() {
    let scene = Scene::new();
    let evener =
        Evener::start(&format!("[listeners.http]\nmax_connections = 1\n{}", scene.text(&["site"], "")));
    let mut inside = scene.client().connect(evener.address(), "example.com");
    drop(inside.get("/").expect_status(200));
    assert!(scene.client().try_connect(evener.address(), "example.com").is_err());
    evener.admin().expect_metric("evener_refusals_total", &["reason=\"too_many_connections\""], 1.0);
    drop(inside.get("/").expect_status(200));
}

#[test]
fn large_bodies_go_both_ways() {
    let scene = Scene::with(Origin::serving(|request| Reply::ok(&String::from_utf8_lossy(&request.body))));
    let evener = scene.start();
    let body: Vec<u8> = (0..12_000_000u32).map(|index| b'a' + u8::try_from(index % 23).unwrap()).collect();
    let mut client = scene.client().connect(evener.address(), "example.com");
    for _ in 0..2 {
        let answer = client.request("POST", "/", "", &body).expect_status(200);
        assert!(answer.body().as_bytes() == body, "{} bytes", answer.body().len());
    }
}

#[test]
fn a_websocket_goes_over_tls() {
    let scene = Scene::with(crate::websocket::echoing());
    let evener = scene.start();
    let stream = scene.client().stream(evener.address(), "example.com");
    let (mut socket, _) =
        tungstenite::client("wss://example.com/socket", stream).expect("the upgrade is accepted");
    for text in ["hello", &"long ".repeat(50_000)] {
        socket.send(Message::text(text)).expect("send");
        assert_eq!(socket.read().expect("an echo"), Message::text(text));
    }
}

/// A client that nobody here wrote.
#[test]
fn curl_is_served_with_each_protocol() {
    let scene = Scene::new();
    let evener = scene.start();
    let authority = scene.authority.write(scene.folder.path(), "authority");
    let url = format!("https://example.com:{}/", evener.address().port());
    let resolve = format!("example.com:{}:127.0.0.1", evener.address().port());
    for (protocol, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let run = Command::new("curl")
            .args(["--silent", "--show-error", protocol, "--resolve", &resolve, "--cacert"])
            .arg(&authority)
            .args(["--write-out", " %{http_version} %{ssl_verify_result}", &url, &url])
            .output()
            .expect("curl is installed (`make setup`)");
        let said = String::from_utf8_lossy(&run.stdout).into_owned();
        assert_eq!(said, format!("ok {version} 0").repeat(2), "{}", String::from_utf8_lossy(&run.stderr));
    }
}

fn redirecting(scene: &Scene, more: &str) -> Evener {
    Evener::start(&format!("{}[routes.all]\npool = \"app\"\nredirect_https = true\n{more}", scene.pool()))
}

#[test]
fn a_route_sends_clients_to_https() {
    let scene = Scene::new();
    let evener = redirecting(&scene, "");
    let redirected = |head: &str| {
        let answer = evener.request(format!("{head}\r\n\r\n")).expect_status(308);
        answer.header("location").map(str::to_owned).unwrap_or_default()
    };
    assert_eq!(redirected("GET /a/b?c=d&e HTTP/1.1\r\nHost: example.com"), "https://example.com/a/b?c=d&e");
    assert_eq!(redirected("GET / HTTP/1.1\r\nHost: Example.com:8080"), "https://Example.com/");
    assert_eq!(redirected("GET /x HTTP/1.1\r\nHost: [::1]:80"), "https://[::1]/x");
    assert_eq!(redirected("GET //evil.example/x HTTP/1.1\r\nHost: a"), "https://a//evil.example/x");
    assert_eq!(redirected("GET /\\evil.example HTTP/1.1\r\nHost: a"), "https://a/\\evil.example");
    assert_eq!(redirected("GET http://a/x?y HTTP/1.1\r\nHost: a"), "https://a/x?y");
    assert_eq!(redirected("OPTIONS * HTTP/1.1\r\nHost: a"), "https://a/");
    assert_eq!(redirected("GET / HTTP/1.0\r\nHost: a"), "https://a/");
    for nobody in ["GET / HTTP/1.0", "GET / HTTP/1.1\r\nHost:"] {
        drop(evener.request(format!("{nobody}\r\n\r\n")).expect_status(400));
    }
    let mut client = evener.connect();
    drop(client.request("POST", "/form", "", b"a=b").expect_status(308));
    assert_eq!(evener.get_with("/", "X-Forwarded-Proto: https\r\n").status(), 308, "anybody can say so");
    assert_eq!(scene.origin.requests_seen(), 0);
    evener.admin().expect_metric("evener_requests_total", &["route=\"all\"", "class=\"3xx\""], 10.0);

    evener.reload(&format!("[listeners.http]\ntrusted_proxies = [\"127.0.0.1\"]\n{}[routes.all]\npool = \"app\"\nredirect_https = true\nredirect_https_port = 8443\n", scene.pool()));
    assert_eq!(evener.get_with("/", "X-Forwarded-Proto: https\r\n").status(), 200, "a proxy ended TLS");
    assert_eq!(evener.get_with("/y", "Host: a:8080\r\n").header("location"), Some("https://a:8443/y"));
}

#[test]
fn over_tls_a_redirecting_route_goes_to_its_pool_and_without_one_nowhere() {
    let scene = Scene::new();
    let text =
        |route: &str| format!("{}[routes.all]\n{route}redirect_https = true\n", scene.text(&["site"], ""));
    let evener = Evener::start(&text("pool = \"app\"\n"));
    let status = || scene.client().connect(evener.address(), "example.com").get("/").status();
    assert_eq!(status(), 200);
    evener.reload(&text(""));
    assert_eq!(status(), 404);
    evener.reload(&format!("{}[routes.all]\nredirect_https = true\n", scene.pool()));
    assert_eq!(evener.get_with("/", "Host: a\r\n").header("location"), Some("https://a/"));
}

/// Each is run as it stands, on other ports and with certificates made for it.
#[test]
fn the_example_for_https_works() {
    let scene = Scene::new();
    let (evener, secure) = scene.run_example("https");
    assert_eq!(
        evener.get_with("/x", "Host: example.com\r\n").header("location"),
        Some("https://example.com:8443/x")
    );
    assert_eq!(scene.client().connect(secure, "example.com").get("/").expect_status(200).body(), "ok");
}

#[test]
fn the_example_for_client_certificates_works() {
    let scene = Scene::new();
    let (clients, _) = scene.client_ca();
    let (_evener, secure) = scene.run_example("client_certificates");
    let alice = TlsClient::bearing(&scene.authority, &clients.issue_to_client("alice"));
    assert_eq!(alice.connect(secure, "example.com").get("/").expect_status(200).body(), "ok");
    assert_eq!(scene.origin.only_request().header("x-client-cert-verified"), Some("true"));
    let mut stranger = scene.client().connect(secure, "example.com");
    assert!(stranger.try_get("/").is_none());
}

impl Scene {
    /// An example of `examples/` on other ports, with files of this scene: the process, and where it speaks TLS.
    fn run_example(&self, name: &str) -> (Evener, SocketAddr) {
        let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples").join(name).join("evener.toml");
        let mut table: toml::Table = fs::read_to_string(file).unwrap().parse().unwrap();
        let secure = SocketAddr::from(([127, 0, 0, 1], reserve_port()));
        table["listeners"]["https"]["address"] = secure.to_string().into();
        if let Some(http) = table["listeners"].get_mut("http") {
            http["address"] = format!("127.0.0.1:{}", reserve_port()).into();
        }
        table["pools"]["app"]["upstreams"] = vec![self.origin.address()].into();
        let admin = format!("[admin]\naddress = \"127.0.0.1:{}\"\n", reserve_port());
        let text = format!("{admin}{}", toml::to_string(&table).unwrap());
        // Where the example stands, its files are beside it.
        let text = text.replace("\"site.", &format!("\"{}/site.", self.folder.path().display()));
        let text = text.replace("\"clients.", &format!("\"{}/clients.", self.folder.path().display()));
        (Evener::start_on_text(&text), secure)
    }
}

/// Bytes that come in and out of a socket that says nothing of them: the rig's own check.
#[test]
fn nothing_of_a_request_over_tls_can_be_read_on_the_way() {
    let scene = Scene::new();
    let evener = scene.start();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, target) = (listener.local_addr().unwrap(), evener.address());
    let wire = Background::run(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut server = TcpStream::connect(target).unwrap();
        let (mut from_client, mut to_client) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        let back = thread::spawn(move || drop(std::io::copy(&mut to_client, &mut client)));
        let (mut seen, mut piece) = (Vec::new(), [0; 4096]);
        while let Ok(count @ 1..) = from_client.read(&mut piece) {
            seen.extend_from_slice(&piece[..count]);
            server.write_all(&piece[..count]).unwrap();
        }
        drop(server.shutdown(std::net::Shutdown::Write));
        drop(back.join());
        seen
    });
    let mut client = scene.client().connect(address, "example.com");
    drop(client.request("GET", "/", "X-Secret: open sesame\r\n", b"").expect_status(200));
    drop(client);
    let seen = wire.join();
    assert!(!seen.windows(11).any(|window| window == b"open sesame"));
    assert_eq!(scene.origin.only_request().header("x-secret"), Some("open sesame"));
}
