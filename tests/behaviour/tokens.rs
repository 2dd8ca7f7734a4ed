//! Who may use the side port: tokens and their scopes, what is said to those who may not, and the line
//! that every write leaves. And that nobody holds the side port up by being slow.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use crate::rig::{Evener, Origin, reserve_port, run_to_end, run_to_end_with_environment, wait_until};

const LOOKER: &str = "s3cret-of-the-looker-7f3a";
const OPERATOR: &str = "s3cret-of-the-operator-19c2";
const OWNER: &str = "s3cret-of-the-owner-e055";

const ENVIRONMENT: [(&str, &str); 2] = [("LOOKER_TOKEN", LOOKER), ("OPERATOR_TOKEN", OPERATOR)];

/// Longer than anything here is waited for by the product, several times over.
const DEADLINE: Duration = Duration::from_secs(60);

/// A side port with a token of each scope: two from the environment, the owner's from a file.
struct House {
    evener: Evener,
    origin: Origin,
    folder: TempDir,
}

impl House {
    fn new() -> Self {
        Self::with("")
    }

    fn with(more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let origin = Origin::answering("ok");
        write_secret(&owners_file(&folder), OWNER);
        let evener = Evener::start_guarded(&configuration(&origin, &folder, more), &ENVIRONMENT, OWNER);
        Self { evener, origin, folder }
    }

    /// Reads the file again, and waits until it runs. (Asking would need the token that changes.)
    fn reload(&self, configuration: &str) {
        let applied = || self.evener.log().matches("configuration applied").count();
        let before = applied();
        self.evener.rewrite(configuration);
        self.evener.signal("HUP");
        wait_until(DEADLINE, || applied() > before);
    }

    fn status_for(&self, token: &str) -> u16 {
        self.evener.admin().bearing(token).get("/v1/status").status()
    }

    /// The lines of the audit log, which has to be JSON.
    fn audit(&self) -> Vec<serde_json::Value> {
        let log = self.evener.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        lines.filter(|line| line["target"] == "evener::audit").collect()
    }

    fn wait_for_audit(&self, path: &str, count: usize) -> Vec<serde_json::Value> {
        let found = || self.audit().into_iter().filter(|line| line["path"] == path).collect::<Vec<_>>();
        wait_until(DEADLINE, || found().len() >= count);
        found()
    }
}

fn owners_file(folder: &TempDir) -> PathBuf {
    folder.path().join("owner.token")
}

fn write_secret(file: &PathBuf, secret: &str) {
    fs::write(file, format!("{secret}\n")).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
}

fn configuration(origin: &Origin, folder: &TempDir, more: &str) -> String {
    format!(
        "{more}\n\
         [admin.tokens.looker]\nscope = \"read\"\nenv = \"LOOKER_TOKEN\"\n\
         [admin.tokens.operator]\nscope = \"operate\"\nenv = \"OPERATOR_TOKEN\"\n\
         [admin.tokens.owner]\nscope = \"write\"\nfile = \"{}\"\n\
         [pools.app]\nupstreams = [\"{}\"]\n",
        owners_file(folder).display(),
        origin.address()
    )
}

const CHECK: &str = "/v1/pools/app/health-check";

/// No path writes in this version; what would be refused for its method is let in first.
const WRITE: (&str, &str) = ("DELETE", "/v1/pools/app");

#[test]
fn each_scope_opens_what_it_names() {
    let house = House::new();
    for (token, look, operate, write) in
        [(LOOKER, 200, 403, 403), (OPERATOR, 200, 200, 403), (OWNER, 200, 200, 405)]
    {
        let admin = || house.evener.admin().bearing(token);
        for path in ["/metrics", "/openapi.json", "/v1/status", "/v1/pools/app", "/api/monitoring/health"] {
            admin().get(path).expect_status(look);
        }
        admin().post(CHECK, "").expect_status(operate);
        admin().post("/api/infrastructure/load-balancer/health-check", "{}").expect_status(operate);
        admin().send_with(WRITE.0, WRITE.1, "").expect_status(write);
    }
    let beyond = house.evener.admin().bearing(LOOKER).post(CHECK, "");
    let challenge = beyond.header("www-authenticate").unwrap_or_default();
    assert!(challenge.contains("insufficient_scope") && challenge.contains("\"operate\""), "{beyond}");
    assert!(beyond.body().contains("urn:evener:problem:insufficient_scope"), "{beyond}");
    assert!(beyond.body().contains("`operate`") && beyond.body().contains("`read`"), "{beyond}");
}

#[test]
fn without_a_token_only_liveness_and_readiness_are_told() {
    let house = House::new();
    let anonymous = || house.evener.admin().anonymous();
    for path in ["/livez", "/readyz", "/health", "/health/ready"] {
        anonymous().get(path).expect_status(200);
    }
    for path in ["/metrics", "/openapi.json", "/v1/status", "/v1/stats", "/v1/pools", "/v1/nothing"] {
        let answer = anonymous().get(path).expect_status(401);
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"), "{answer}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{answer}");
    }
    let probes = house.origin.requests_seen();
    anonymous().post(CHECK, "").expect_status(401);
    assert_eq!(house.origin.requests_seen(), probes);
    for wrong in ["s3cret-of-nobody-at-all", &OWNER[1..], ""] {
        let answer = house.evener.admin().bearing(wrong).get("/v1/status").expect_status(401);
        assert!(answer.header("www-authenticate").is_some_and(|it| it.starts_with("Bearer")), "{answer}");
    }
    let reason = |word: &str| format!("reason=\"{word}\"");
    house.evener.admin().expect_metric("evener_admin_refusals_total", &[&reason("unauthorized")], 10.0);
    house.evener.admin().expect_metric("evener_admin_refusals_total", &[&reason("forbidden")], 0.0);
    for part in ["admin request refused", "reason=\"unauthorized\"", "peer=127.0.0.1:"] {
        house.evener.wait_for_log(part);
    }
}

#[test]
fn a_reload_changes_who_may() {
    let house = House::new();
    let (before, after) = (OWNER, "s3cret-of-the-next-owner-42aa");
    let plain = configuration(&house.origin, &house.folder, "");

    write_secret(&owners_file(&house.folder), after);
    assert_eq!((house.status_for(before), house.status_for(after)), (200, 401), "not before the reload");
    house.reload(&plain);
    assert_eq!((house.status_for(before), house.status_for(after)), (401, 200));

    house.reload(&plain.replace("scope = \"read\"", "scope = \"operate\""));
    house.evener.admin().bearing(LOOKER).post(CHECK, "").expect_status(200);

    // A token that cannot be read refuses the whole file, and those who could go on can.
    fs::remove_file(owners_file(&house.folder)).unwrap();
    house.evener.rewrite(&plain);
    house.evener.signal("HUP");
    wait_until(DEADLINE, || house.evener.log().contains("configuration refused"));
    assert_eq!((house.status_for(after), house.status_for(LOOKER)), (200, 200));
}

#[test]
fn beyond_loopback_a_token_is_a_must() {
    let (port, admin) = (reserve_port(), reserve_port());
    let file = |address: &str, token: &str| {
        format!(
            "[listeners.http]\naddress = \"127.0.0.1:{port}\"\n[admin]\naddress = \"{address}:{admin}\"\n\
             {token}[pools.app]\nupstreams = [\"127.0.0.1:1\"]\n"
        )
    };
    let token = "[admin.tokens.looker]\nscope = \"read\"\nenv = \"LOOKER_TOKEN\"\n";
    for address in ["0.0.0.0", "[::]", "192.0.2.1"] {
        for command in [&["check", "evener.toml"][..], &["run", "--config", "evener.toml"]] {
            let refused = run_to_end(command, &[("evener.toml", &file(address, ""))]);
            assert_eq!(refused.code, Some(1), "{refused:?}");
            for part in ["evener.toml:4:", "without tokens", "[admin.tokens.NAME]"] {
                assert!(refused.stderr.contains(part), "{refused:?}");
            }
        }
        let files = [("evener.toml", &*file(address, token))];
        let valid = run_to_end_with_environment(&["check"], &files, &ENVIRONMENT);
        assert_eq!(valid.code, Some(0), "{valid:?}");
    }
    let house = House::with(&format!("[admin]\naddress = \"0.0.0.0:{}\"", reserve_port()));
    let asked = |headers: &str| house.evener.admin().get_with("/v1/status", headers).status();
    assert_eq!(asked("Host: lb.example\r\n"), 200);
    house.evener.admin().anonymous().get("/v1/status").expect_status(401);
    let cross = "Host: lb.example\r\nOrigin: http://evil.example\r\nContent-Length: 0\r\n";
    let answer = house.evener.admin().send_with("POST", CHECK, cross).expect_status(403);
    assert!(answer.body().contains("cross_site"), "{answer}");
}

/// Where there are no tokens, whoever names another host is counted and told of, too.
#[test]
fn strangers_are_counted_by_what_they_did() {
    let origin = Origin::answering("ok");
    let evener = Evener::start(&format!("[pools.app]\nupstreams = [\"{}\"]", origin.address()));
    evener.admin().get_with("/v1/status", "Host: evil.example\r\n").expect_status(403);
    let cross = "Sec-Fetch-Site: cross-site\r\nContent-Length: 0\r\n";
    evener.admin().send_with("POST", CHECK, cross).expect_status(403);
    for reason in ["foreign_host", "cross_site"] {
        evener.admin().expect_metric("evener_admin_refusals_total", &[&format!("reason=\"{reason}\"")], 1.0);
        evener.wait_for_log(&format!("reason=\"{reason}\""));
    }
}

#[test]
fn whoever_guesses_is_slowed_down_and_nobody_else() {
    let house = House::new();
    for turn in 0..5 {
        assert_eq!(house.status_for(&format!("s3cret-that-is-guessed-{turn}")), 401);
    }
    // Nothing that short from there is looked at, not even what is right.
    for token in ["s3cret-that-is-guessed-once-more", OWNER] {
        let answer = house.evener.admin().bearing(token).get("/v1/status").expect_status(429);
        let wait = answer.header("retry-after").and_then(|seconds| seconds.parse::<u64>().ok());
        assert!(wait.is_some_and(|wait| (1..=60).contains(&wait)), "{answer}");
        assert!(answer.body().contains("too_many_failures"), "{answer}");
    }
    house.evener.admin().get("/livez").expect_status(200);
    let elsewhere = || house.evener.admin().asked_from(Ipv4Addr::new(127, 0, 0, 2));
    elsewhere().get("/v1/status").expect_status(200);
    elsewhere().expect_metric("evener_admin_refusals_total", &["reason=\"too_many_failures\""], 2.0);
}

/// Or else a scraper with an old token, or anybody on the same machine, could keep its operators out for ever.
#[test]
fn from_where_wrong_tokens_come_a_long_right_one_is_let_in_all_the_same() {
    const LONG: &str = "s3cret-of-a-machine-0123456789ab";
    let house = House::new();
    for turn in 0..8 {
        let guess = format!("s3cret-that-is-guessed-and-long-{turn}");
        assert_eq!(house.status_for(&guess), if turn < 5 { 401 } else { 429 }, "{turn}");
    }
    assert_eq!((LONG.len(), house.status_for(OWNER)), (32, 429));
    // Who brings none does not guess: a browser asks its user for one.
    assert_eq!(house.evener.admin().anonymous().get("/v1/status").status(), 401);
    write_secret(&owners_file(&house.folder), LONG);
    house.reload(&configuration(&house.origin, &house.folder, ""));
    house.evener.admin().bearing(LONG).get("/v1/status").expect_status(200);
    assert_eq!(house.status_for(&LONG.replace('b', "c")), 429);
    house.evener.admin().bearing(LONG).expect_metric(
        "evener_admin_refusals_total",
        &["reason=\"too_many_failures\""],
        5.0,
    );
}

/// Whatever is asked, said or logged, at every level: no secret is in it.
#[test]
fn no_secret_is_ever_shown() {
    let house = House::with("[log]\nlevel = \"trace\"");
    let mut said = String::new();
    let index = house.evener.admin().json("/openapi.json");
    // Events go on and on, and what they tell stands in the log, too; after an upgrade another process answers.
    let is_asked = |path: &&String| !["/v1/events", "/v1/live", "/v1/upgrade"].contains(&path.as_str());
    let paths = index["paths"].as_object().unwrap().keys().filter(is_asked);
    for path in paths {
        let path = path.replace("{pool}", "app").replace("{address}", &house.origin.address());
        // Wrong ones come from elsewhere: after a few, nothing from there is listened to.
        for (token, host) in [(LOOKER, 1), (OWNER, 1), ("s3cret-of-nobody", 2)] {
            let admin = || house.evener.admin().bearing(token).asked_from(Ipv4Addr::new(127, 0, 0, host));
            said += &admin().get(&path).to_string();
            said += &admin().post(&path, "{}").to_string();
        }
        assert_eq!(house.status_for(OWNER), 200);
    }
    // Whether anybody is left who serves it, after all those writes, does not matter here.
    said += &house.evener.get("/").to_string();
    house.reload(&configuration(&house.origin, &house.folder, "[log]\nlevel = \"trace\""));

    // Mistakes around tokens are told without them.
    let file = owners_file(&house.folder);
    for mistake in [
        format!("scope = \"all\"\nfile = \"{}\"", file.display()),
        format!("scope = \"read\"\nenv = \"LOOKER_TOKEN\"\nfile = \"{}\"", file.display()),
        format!("scope = \"read\"\nsecret = \"{OWNER}\""),
        format!("scope = \"read\"\nenv = \"{OWNER}\""),
        format!("scope = \"read\"\nfile = \"{OWNER}\""),
        "scope = \"read\"\nenv = \"LOOKER_TOKEN\"\n[admin.tokens.b]\nscope = \"read\"\nenv = \"LOOKER_TOKEN\""
            .to_owned(),
        format!("scope = \"read\"\nsecret = \"{OWNER}"),
    ] {
        let file = format!(
            "[admin.tokens.a]\n{mistake}\n[listeners.http]\naddress = \"127.0.0.1:80\"\n[pools.app]\nupstreams = []"
        );
        let refused = run_to_end_with_environment(&["check"], &[("evener.toml", &file)], &ENVIRONMENT);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        said += &refused.stdout;
        said += &refused.stderr;
    }
    said += &house.evener.log();
    let shown: Vec<&str> = said.lines().filter(|line| line.contains("s3cret")).collect();
    assert!(shown.is_empty(), "{shown:#?}");
}

#[test]
fn every_write_leaves_a_line_that_says_who_did_what() {
    let house = House::with("[log]\nformat = \"json\"");
    let admin = || house.evener.admin();
    admin().bearing(OPERATOR).post(&format!("{CHECK}?verbose=1"), "").expect_status(200);
    admin().bearing(LOOKER).post(CHECK, "").expect_status(403);
    admin().anonymous().post(CHECK, "").expect_status(401);
    admin().bearing(OWNER).send_with(WRITE.0, WRITE.1, "").expect_status(405);
    admin().bearing(OWNER).get("/v1/pools/app").expect_status(200);

    let lines = house.wait_for_audit(CHECK, 3);
    let facts = |line: &serde_json::Value| {
        (line["who"].as_str().unwrap().to_owned(), line["status"].as_u64().unwrap())
    };
    let facts: Vec<_> = lines.iter().map(facts).collect();
    let expected = [("operator", 200), ("looker", 403), ("nobody", 401)];
    assert_eq!(facts, expected.map(|(who, status)| (who.to_owned(), status)));
    for line in &lines {
        assert_eq!((&line["message"], &line["level"]), (&"admin write".into(), &"INFO".into()));
        assert_eq!(line["method"], "POST");
        assert!(line["peer"].as_str().is_some_and(|peer| peer.starts_with("127.0.0.1:")), "{line}");
        assert!(line["duration_ms"].is_number(), "{line}");
    }
    let write = &house.wait_for_audit(WRITE.1, 1);
    assert_eq!((&write[0]["who"], &write[0]["method"]), (&"owner".into(), &"DELETE".into()));
    assert_eq!(house.audit().len(), 4, "looking leaves no line");
}

#[test]
fn without_tokens_writes_are_those_of_loopback() {
    let origin = Origin::answering("ok");
    let evener = Evener::start(&format!("[pools.app]\nupstreams = [\"{}\"]", origin.address()));
    evener.admin().post(CHECK, "").expect_status(200);
    wait_until(DEADLINE, || evener.log().contains("admin write"));
    let log = evener.log();
    let line = log.lines().find(|line| line.contains("admin write")).unwrap();
    for part in ["evener::audit", "who=\"loopback\"", "method=POST", "status=200"] {
        assert!(line.contains(part), "{line}");
    }
}

/// What was begun is done, and nobody leaves without a trace.
#[test]
fn a_write_whose_client_leaves_is_done_and_written_down_all_the_same() {
    let check = "[pools.app.health_check]\npath = \"/slow\"\ninterval = \"1h\"\ntimeout = \"60s\"";
    let house = House::with(&format!("[log]\nformat = \"json\"\n{check}"));
    house.origin.hold();
    let before = house.origin.requests_seen();
    let mut client = house.evener.admin().connect();
    let headers = format!("Authorization: Bearer {OPERATOR}\r\nContent-Length: 0\r\n");
    client.start("POST", CHECK, &headers, b"");
    house.origin.wait_for_requests(before + 1);
    client.reset();
    house.origin.release();
    let line = &house.wait_for_audit(CHECK, 1)[0];
    assert_eq!((&line["who"], &line["status"]), (&"operator".into(), &200.into()), "{line}");
}

#[test]
fn a_head_that_comes_too_slowly_is_not_waited_for() {
    let house = House::new();
    let mut client = house.evener.admin().connect();
    client.send("GET /livez HTTP/1.1\r\nHost: local");
    assert!(client.is_closed_within(DEADLINE));
}

#[test]
fn a_body_that_comes_too_slowly_is_not_waited_for() {
    let house = House::new();
    let mut client = house.evener.admin().connect();
    client.send(format!(
        "POST {CHECK} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {OWNER}\r\nContent-Length: 9\r\n\r\n{{"
    ));
    // Well before the whole request would be cut off, after a minute.
    assert!(client.has_bytes_within(Duration::from_secs(40)));
    assert_eq!(client.read("POST").status(), 408);
    assert!(client.is_closed_within(DEADLINE), "what is left of the body is not waited for");
}

/// Two thousand answers of 40 KiB are asked for, more than the system holds for a client that takes none.
#[test]
fn a_client_that_never_reads_loses_its_connection() {
    let house = House::new();
    let mut client = house.evener.admin().connect();
    let request =
        format!("GET /openapi.json HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {LOOKER}\r\n\r\n");
    // Whether all of it goes out does not matter: nobody reads the last of it either.
    client.send_if_open(request.repeat(2_000));
    wait_until(DEADLINE, || !client.send_if_open(" "));
    house.evener.admin().get("/v1/status").expect_status(200);
}
