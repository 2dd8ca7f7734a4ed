//! The dashboard, before the eyes of a person: a real Chromium on a real Evener. And what it is drawn from,
//! `GET /v1/live`, over sockets.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::rig::{Authority, Evener, Load, Origin, Reply, reserve_port, run_to_end, wait_until};

const SOON: Duration = Duration::from_secs(60);

/// Checks that are quick enough for a play.
const QUICK: &str = r#"health_check = { path = "/healthz", interval = "200ms", fast_interval = "100ms", rise = 2, fall = 3 }"#;

const UNCHECKED: &str = "health_check = { enabled = false }";

/// A browser that plays a scene of `play.js`.
struct Browser {
    process: Child,
    output: BufReader<ChildStdout>,
}

impl Browser {
    /// `None` if there is no browser here, and need not be.
    #[track_caller]
    fn play(scene: &str, admin: SocketAddr, given: &Value) -> Option<Self> {
        let script = script()?;
        let mut process = Command::new("node")
            .arg(script)
            .args([scene, &admin.to_string(), &given.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node starts");
        let output = BufReader::new(process.stdout.take().expect("its output"));
        Some(Self { process, output })
    }

    /// To the end; `pause` is called wherever the scene stops and waits.
    #[track_caller]
    fn finish(mut self, mut pause: impl FnMut(&str)) {
        loop {
            let mut line = String::new();
            let bytes = self.output.read_line(&mut line).expect("its output");
            assert!(bytes > 0, "the play failed, see above");
            match line.trim() {
                "done" => return,
                line => pause(line.strip_prefix("pause ").expect("a pause")),
            }
            writeln!(self.process.stdin.as_mut().expect("its input"), "on").expect("it listens");
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The script ends the browser when its input ends; one that is stuck is ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The script, if what it needs is where `make setup` puts it. If not, the play fails with what to do; where
/// `CI_ALLOW_MISSING` is set, it is left out, and says so.
#[track_caller]
fn script() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let library = root.join("target/playwright/node_modules/playwright-core/package.json");
    let browser = env::var_os("CHROMIUM").map_or_else(|| "/usr/bin/chromium".into(), PathBuf::from);
    if library.is_file() && browser.is_file() {
        return Some(root.join("tests/behaviour/dashboard/play.js"));
    }
    assert!(env::var_os("CI_ALLOW_MISSING").is_some(), "chromium or playwright is missing: run `make setup`");
    eprintln!("!!! LEFT OUT, chromium or playwright is missing: run `make setup`");
    None
}

#[track_caller]
fn play(scene: &str, evener: &Evener, given: &Value) {
    if let Some(browser) = Browser::play(scene, evener.admin_address(), given) {
        browser.finish(|pause| panic!("a pause that nobody expected: {pause}"));
    }
}

fn in_front_of(origins: &[&Origin], more: &str) -> Evener {
    let addresses: Vec<String> = origins.iter().map(|origin| format!("\"{}\"", origin.address())).collect();
    Evener::start(&format!("[pools.app]\nupstreams = [{}]\n{more}", addresses.join(", ")))
}

fn set_state(evener: &Evener, address: &str, state: &str) {
    let path = format!("/v1/pools/app/upstreams/{address}");
    evener.admin().write("PATCH", &path, "", &json!({ "state": state }).to_string()).expect_status(200);
}

/// Answers late.
fn slow(time: Duration) -> Origin {
    Origin::serving(move |_| Reply::raw("").then_sleep(time).then(Reply::ok("late")))
}

#[test]
fn each_sick_state_is_told_in_words() {
    let well = [Origin::answering("a"), Origin::answering("b"), Origin::answering("c")];
    let (down, drained, kept) = (Origin::answering("d"), Origin::answering("e"), Origin::answering("f"));
    let failing = Origin::serving(|_| Reply::status(503, "no"));
    let (full, slow) = (Origin::answering("g"), slow(Duration::from_secs(1)));
    let others = [&well[0], &well[1], &well[2], &down, &drained, &kept, &failing, &slow];
    let addresses: Vec<String> = others.iter().map(|origin| format!("\"{}\"", origin.address())).collect();
    let evener = Evener::start(&format!(
        "[pools.app]\nupstreams = [{}, {{ address = \"{}\", max_connections = 1 }}]\n{QUICK}\n\
         ejection = {{ consecutive_failures = 3, base_duration = \"300s\", max_ejected = 1.0 }}",
        addresses.join(", "),
        full.address()
    ));
    full.hold();
    let load = Load::on(evener.address(), 6);
    down.fall_sick();
    set_state(&evener, &drained.address(), "drain");
    set_state(&evener, &kept.address(), "maintenance");
    let why_not = |origin: &Origin| evener.admin().upstream("app", origin)["why_not"].clone();
    for (origin, word) in [(&down, "down"), (&failing, "ejected"), (&full, "full")] {
        wait_until(SOON, || why_not(origin) == word);
    }

    play(
        "sick",
        &evener,
        &json!({ "states": {
            down.address(): { "word": "Down", "why": r"Since \d\d:\d\d:\d\d \(.+\)\. Health check \(GET /healthz\) failed, last .*: status 503.*see its log.*after 2 passes in a row" },
            failing.address(): { "word": "Ejected", "why": r"Since \d\d:\d\d:\d\d .*requests in a row failed.*Next try at \d\d:\d\d:\d\d \(in " },
            full.address(): { "word": "Overloaded", "why": "1 of at most 1 request in flight.*the others take them" },
            slow.address(): { "word": "Slow", "why": "Takes .* on average; the others take" },
            drained.address(): { "word": "Draining", "why": r"Since \d\d:\d\d:\d\d .*safe to stop", "isByHand": true },
            kept.address(): { "word": "Maintenance", "why": "No requests, no health checks", "isByHand": true },
        }}),
    );
    full.release();
    load.stop();
}

/// Nobody asks these how they are: what is known of them is how requests failed.
#[test]
fn how_requests_failed_is_told_of_those_that_are_ejected() {
    let (well, refusing) = (Origin::answering("a"), Origin::absent());
    let (failing, late) = (Origin::serving(|_| Reply::status(500, "no")), slow(Duration::from_secs(30)));
    let evener = in_front_of(
        &[&well, &refusing, &failing, &late],
        &format!(
            "{UNCHECKED}\ntimeouts = {{ read = \"200ms\" }}\n\
             ejection = {{ consecutive_failures = 3, base_duration = \"300s\", max_ejected = 1.0 }}"
        ),
    );
    let is_ejected = |origin: &Origin| evener.admin().upstream("app", origin)["why_not"] == "ejected";
    wait_until(SOON, || {
        evener.get("/");
        [&refusing, &failing, &late].into_iter().all(is_ejected)
    });
    let left = json!({ "address": well.address(), "count": 4 });
    let causes = json!({
        refusing.address(): r"\d+ without a connection \(refused",
        failing.address(): r"\d+ with status 5xx",
        late.address(): r"\d+ without an answer \(",
    });
    play("causes", &evener, &json!({ "causes": causes, "left": left }));
    let admin = evener.admin_address().to_string();
    let table = run_to_end(&["top", "--once", "--every", "200ms", "--admin", &admin], &[]).stdout;
    for (origin, cause) in
        [(&refusing, "without a connection"), (&failing, "with status 5xx"), (&late, "without an answer")]
    {
        let line = table.lines().find(|line| line.contains(&origin.address())).unwrap_or_default();
        assert!(line.contains(" ejected ") && line.contains(cause), "{table}");
    }
}

/// Under a load that ends with the play.
fn play_under_load(evener: &Evener, scene: &str, given: &Value) {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let _ = evener.connect().try_get("/");
                thread::sleep(Duration::from_millis(20));
            }
        });
        let _end = OnDrop(&is_over);
        play(scene, evener, given);
    });
}

/// Attempts fail, and requests do not: users see nothing, and that is told.
#[test]
fn what_was_made_again_is_told_apart_from_what_users_saw() {
    let (well, refusing) = (Origin::answering("a"), Origin::absent());
    let evener = in_front_of(&[&well, &refusing], &format!("{UNCHECKED}\nejection = {{ enabled = false }}"));
    let users =
        r"^Users: no errors in the last \d+ s; \d+ failed attempts? made again, no user saw (it|them)";
    play_under_load(&evener, "users", &json!({ "users": users, "pool": r"\d+ failed attempts? made again" }));
}

#[test]
fn an_answer_that_breaks_off_is_told_though_its_status_was_fine() {
    let broken = Origin::serving(|_| {
        Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nten bytes.").then_reset()
    });
    let evener = in_front_of(&[&broken], &format!("{UNCHECKED}\nejection = {{ enabled = false }}"));
    let users = r"^Users: \d+ % of answers broke off half-way in the last \d+ s\.$";
    play_under_load(&evener, "users", &json!({ "users": users, "pool": "requests/s" }));
}

#[test]
fn three_that_are_well_are_nothing_to_look_at() {
    let origins = [Origin::answering("a"), Origin::answering("b"), Origin::answering("c")];
    let evener = in_front_of(&[&origins[0], &origins[1], &origins[2]], QUICK);
    let load = Load::on(evener.address(), 2);
    play("well", &evener, &json!({}));
    load.stop();
}

#[test]
fn an_action_is_done_when_it_is_confirmed_and_not_before() {
    let (one, other) = (Origin::answering("a"), Origin::answering("b"));
    let evener = in_front_of(&[&one, &other], r#"health_check = { path = "/healthz", interval = "300s" }"#);
    play("actions", &evener, &json!({ "address": one.address(), "other": other.address() }));
}

#[test]
fn a_token_is_asked_for_and_buttons_are_those_that_it_allows() {
    let origin = Origin::answering("ok");
    let words = ["read", "operate", "write"];
    let tokens: String = words
        .iter()
        .map(|word| format!("[admin.tokens.{word}]\nscope = \"{word}\"\nenv = \"{word}_TOKEN\"\n"))
        .collect();
    let secrets = words.map(|word| (format!("{word}_TOKEN"), format!("s3cret-of-those-who-{word}-4f1b")));
    let environment = secrets.each_ref().map(|(name, secret)| (name.as_str(), secret.as_str()));
    let text = format!("{tokens}[pools.app]\nupstreams = [\"{}\"]\n{QUICK}", origin.address());
    let evener = Evener::start_guarded(&text, &environment, &secrets[2].1);
    let [read, operate, write] = secrets.each_ref().map(|(_, secret)| secret);
    let given = json!({ "address": origin.address(), "read": read, "operate": operate, "write": write });
    play("tokens", &evener, &given);
}

#[test]
fn what_others_wrote_is_text_and_nothing_else() {
    const EVIL: &str = "<img src=x onerror=window.hacked=1><script>window.hacked=1</script>";
    let folder = tempfile::tempdir().expect("a temporary folder");
    let socket = folder.path().join("<b><i onclick=alert(1)>x.sock");
    let origin = Origin::serving(|_| Reply::raw(format!("HTTP/1.1 503 {EVIL}\r\nContent-Length: 0\r\n\r\n")));
    let evener = Evener::start(&format!(
        "[pools.app]\nupstreams = [\"{}\", \"unix:{}\"]\n{UNCHECKED}",
        origin.address(),
        socket.display()
    ));
    let path = format!("/v1/pools/app/upstreams/{}", origin.address());
    let why = format!("X-Evener-Reason: {EVIL}\r\n");
    evener.admin().write("PATCH", &path, &why, r#"{"weight": 3}"#).expect_status(200);
    let texts = json!([EVIL, "<b><i onclick=alert(1)>x.sock"]);
    play("hostile", &evener, &json!({ "texts": texts }));
}

#[test]
fn among_a_thousand_the_sick_ones_come_first() {
    const COUNT: usize = 1_000;
    let address = |index: usize| format!("127.1.{}.{}:9", index / 250, index % 250 + 1);
    let all: Vec<String> = (0..COUNT).map(|index| format!("\"{}\"", address(index))).collect();
    let evener = Evener::start(&format!("[pools.app]\nupstreams = [{}]\n{UNCHECKED}", all.join(", ")));
    let sick = [700, 998].map(address);
    set_state(&evener, &sick[0], "maintenance");
    set_state(&evener, &sick[1], "drain");
    let alike = [100, 200, 300, 400, 500].map(address);
    play("many", &evener, &json!({ "count": COUNT, "sick": sick, "far": address(543), "alike": alike }));
}

/// Ends a loop, also when a play fails.
struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn what_will_end_and_why_requests_fail_is_told_too() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let certificate = Authority::new("it").issue_from_to(&["soon.example"], -1, 5);
    let entry = certificate.write(folder.path(), "soon");
    let evener = Evener::start_unready(&format!(
        "[pools.app]\nupstreams = [\"{}\"]\n{QUICK}\n\
         [listeners.http]\n[listeners.https]\naddress = \"127.0.0.1:{}\"\ntls = {{ certificates = [{entry}] }}\n",
        Origin::absent().address(),
        reserve_port()
    ));
    wait_until(SOON, || evener.admin().try_get("/v1/pools").is_some());
    wait_until(SOON, || evener.admin().json("/v1/pools/app")["upstreams"][0]["health"] == "down");
    evener.admin().request("PUT", "/v1/config", "If-Match: *\r\n", "[pols.app]\n").expect_status(422);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        // Refused one after another, each on a connection of its own.
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                evener.get("/").expect_status(503);
                thread::sleep(Duration::from_millis(50));
            }
        });
        let _end = OnDrop(&is_over);
        play("troubles", &evener, &json!({ "certificate": "soon.example" }));
    });
}

#[test]
fn what_was_before_the_page_was_opened_is_drawn_too() {
    let (origin, other) = (Origin::answering("a"), Origin::answering("b"));
    let evener = in_front_of(&[&origin, &other], QUICK);
    let load = Load::on(evener.address(), 2);
    let health = || evener.admin().upstream("app", &origin)["health"].clone();
    let steps = || {
        let history = evener.admin().json("/v1/stats/history?window=1h&step=10s&of=total");
        let series = history["series"].as_array().expect("steps").clone();
        series.iter().filter(|step| step["requests"].as_u64() > Some(0)).count()
    };
    wait_until(SOON, || evener.admin().upstream("app", &origin)["requests"].as_u64() > Some(100));
    origin.fall_sick();
    wait_until(SOON, || health() == "down");
    origin.get_well();
    wait_until(SOON, || health() == "up");
    wait_until(SOON, || steps() >= 2);
    play("past", &evener, &json!({ "address": origin.address() }));
    load.stop();
}

/// Every request has the same key, so one upstream gets all of them.
#[test]
fn an_alarm_is_told_in_words_at_its_upstream_and_in_its_pool() {
    let (one, other) = (Origin::answering("one"), Origin::answering("other"));
    let evener = in_front_of(
        &[&one, &other],
        &format!("{UNCHECKED}\nstrategy = \"consistent_hash\"\nhash = {{ header = \"x-user\" }}"),
    );
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = evener.connect();
            while !is_over.load(Ordering::Relaxed) {
                client.get("/").expect_status(200);
                thread::sleep(Duration::from_millis(20));
            }
        });
        let _end = OnDrop(&is_over);
        let alarmed = |kind: &str| {
            let alarms = evener.admin().json("/v1/status")["alarms"].as_array().expect("alarms").clone();
            alarms.iter().find(|alarm| alarm["kind"] == kind).map(|alarm| alarm["upstream"].clone())
        };
        wait_until(SOON * 3, || alarmed("starved").is_some() && alarmed("imbalance").is_some());
        let (starved, imbalance) = (alarmed("starved"), alarmed("imbalance"));
        play("alarm", &evener, &json!({ "starved": starved, "imbalance": imbalance }));
        let admin = evener.admin_address().to_string();
        let table = run_to_end(&["top", "--once", "--every", "200ms", "--admin", &admin], &[]).stdout;
        let line = |kind: &str| table.lines().find(|line| line.contains(kind)).unwrap_or_default().to_owned();
        assert!(line("starved: it is eligible and got 0 requests").contains(" alarm "), "{table}");
        assert!(line("imbalance: it got 100 %").contains(" alarm "), "{table}");
    });
}

#[test]
fn from_a_request_that_failed_there_is_a_way_to_why() {
    let origin = Origin::serving(|_| Reply::raw("no HTTP at all\r\n\r\n"));
    let evener = Evener::start(&format!(
        "[pools.app]\nupstreams = [\"{}\"]\n{UNCHECKED}\n[routes.app]\npool = \"app\"\npath_prefix = \"/app\"",
        origin.address()
    ));
    let path = "/app/%3Cimg%20src=x%3E";
    evener.get(path).expect_status(502);
    evener.get("/nowhere").expect_status(404);
    play("requests", &evener, &json!({ "upstream": origin.address(), "path": path }));
}

#[test]
fn one_that_another_pool_uses_is_not_safe_to_stop() {
    let origin = Origin::answering("ok");
    let pool = |name| format!("[pools.{name}]\nupstreams = [\"{}\"]\n{UNCHECKED}\n", origin.address());
    let routes = "[routes.app]\npool = \"app\"\n[routes.api]\npool = \"api\"\npath_prefix = \"/api\"\n";
    let evener = Evener::start(&(pool("app") + &pool("api") + routes));
    set_state(&evener, &origin.address(), "drain");
    let admin = evener.admin_address().to_string();
    let top = || run_to_end(&["top", "--once", "--every", "200ms", "--admin", &admin], &[]).stdout;
    let table = top();
    assert!(table.contains("not safe to stop: pool api uses it too"), "{table}");
    play("shared", &evener, &json!({ "address": origin.address() }));
    let table = top();
    assert_eq!(table.matches("none in flight: safe to stop").count(), 2, "{table}");
}

#[test]
fn figures_of_a_server_that_is_gone_are_called_old() {
    let origin = Origin::answering("ok");
    let mut evener = in_front_of(&[&origin], QUICK);
    let given = json!({ "address": origin.address() });
    let Some(browser) = Browser::play("stale", evener.admin_address(), &given) else { return };
    browser.finish(|pause| match pause {
        "end" => evener.kill(),
        _ => evener.start_again(),
    });
}

#[test]
fn the_page_is_open_holds_no_data_and_may_do_nothing_but_what_it_does() {
    let origin = Origin::answering("ok");
    let text = format!(
        "[admin.tokens.ops]\nscope = \"write\"\nenv = \"OPS\"\n[pools.app]\nupstreams = [\"{}\"]",
        origin.address()
    );
    let evener =
        Evener::start_guarded(&text, &[("OPS", "s3cret-of-the-operators")], "s3cret-of-the-operators");
    let anonymous = || evener.admin().anonymous();
    let page = anonymous().get("/").expect_status(200);
    let fetched = |text: &str| {
        ["src=\"http", "href=\"http", "src=\"//", "href=\"//"].iter().any(|it| text.contains(it))
    };
    assert!(!fetched(&page.body()), "something is fetched from elsewhere");
    let policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                  frame-ancestors 'none'; base-uri 'none'; form-action 'none'; \
                  require-trusted-types-for 'script'; trusted-types 'none'";
    for path in ["/", "/assets/dashboard.css", "/assets/dashboard.js", "/assets/server.js"] {
        let answer = anonymous().get(path).expect_status(200);
        let header = |name| answer.header(name).unwrap_or_default();
        assert_eq!(header("content-security-policy"), policy, "{path}");
        assert_eq!(header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(header("referrer-policy"), "no-referrer", "{path}");
        assert!(!answer.body().contains(&origin.address()), "{path}");
    }
    anonymous().get("/assets/nothing.js").expect_status(404);
    for path in ["/v1/live", "/v1/status"] {
        anonymous().get(path).expect_status(401);
    }
    assert_eq!(evener.admin().json("/v1/status")["you"], json!({ "name": "ops", "scope": "write" }));
}

/// A stream of figures.
struct Viewer(BufReader<std::net::TcpStream>);

impl Viewer {
    /// The status, and the stream.
    fn open(evener: &Evener) -> (u16, Self) {
        let mut stream = std::net::TcpStream::connect(evener.admin_address()).expect("connect");
        stream.set_read_timeout(Some(SOON)).expect("a read timeout");
        stream.write_all(b"GET /v1/live?every=1s HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("send");
        let mut viewer = Self(BufReader::new(stream));
        let status = viewer.line().split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        (status, viewer)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.0.read_line(&mut line).expect("a line in time") > 0, "the stream ended");
        line.trim_end().to_owned()
    }

    /// The next figures.
    fn figures(&mut self) -> Value {
        while self.line() != "event: figures" {}
        let line = self.line();
        serde_json::from_str(line.strip_prefix("data: ").expect("data")).expect("JSON")
    }
}

#[test]
fn all_viewers_see_the_same_figures_and_there_is_an_end_to_their_number() {
    const MOST: usize = 32;
    let origin = Origin::answering("ok");
    let mut evener = in_front_of(&[&origin], UNCHECKED);
    let mut viewers: Vec<Viewer> = (0..MOST)
        .map(|_| Viewer::open(&evener))
        .map(|(status, viewer)| {
            assert_eq!(status, 200);
            viewer
        })
        .collect();
    let (status, _) = Viewer::open(&evener);
    assert_eq!(status, 503);
    (0..7).for_each(|_| drop(evener.get("/").expect_status(200)));
    let mut first = viewers.remove(0);
    let mut figures = first.figures();
    while figures["status"]["totals"]["requests"] != 7 {
        figures = first.figures();
    }
    let upstream = &figures["pools"][0]["upstreams"][0];
    assert_eq!((&upstream["address"], &upstream["requests"]), (&json!(origin.address()), &json!(7)));
    let at = figures["at"].as_str().expect("a time").to_owned();
    for viewer in &mut viewers {
        let mut same = viewer.figures();
        while same["at"].as_str().expect("a time") < at.as_str() {
            same = viewer.figures();
        }
        assert_eq!(same["at"], at.as_str(), "one text for all viewers of a tick");
    }
    // A place is free when somebody leaves.
    drop(viewers);
    wait_until(SOON, || Viewer::open(&evener).0 == 200);
    // Nobody who looks holds up the end.
    evener.signal("TERM");
    assert!(evener.ends_within(SOON).is_some(), "it does not end");
}
