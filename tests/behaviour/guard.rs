//! A change under guard is watched, and taken back when it does harm.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::rig::{Background, Client, Evener, Origin, Reply, wait_until};

/// For what happens by itself within a second or two, on a machine under load.
const SOON: Duration = Duration::from_secs(30);

fn pool(origin: &Origin, more: &str) -> String {
    let upstream = origin.address();
    format!("[pools.app]\nupstreams = [\"{upstream}\"]\nhealth_check = {{ enabled = false }}\n{more}\n")
}

/// Clients that go on whatever they are answered.
struct Visitors {
    stop: Arc<AtomicBool>,
    threads: Vec<Background<()>>,
}

impl Visitors {
    fn of(evener: &Evener, clients: usize) -> Self {
        let (stop, address) = (Arc::new(AtomicBool::new(false)), evener.address());
        let visit = |_| {
            let stop = Arc::clone(&stop);
            Background::run(move || {
                while !stop.load(Ordering::Relaxed) {
                    let Ok(mut client) = Client::try_connect(address) else { continue };
                    client.start("GET", "/", "Connection: close\r\n", b"");
                    let _ = client.try_read("GET");
                    // Enough of them come; the machine has more to do.
                    thread::sleep(Duration::from_millis(1));
                }
            })
        };
        let threads = (0..clients).map(visit).collect();
        Self { stop, threads }
    }

    fn leave(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(Background::join);
    }
}

/// Sends a change under guard and waits for the answer, however long that takes.
fn put(evener: &Evener, query: &str, text: &str) -> (u16, Value) {
    let (address, text, query) = (evener.admin(), text.to_owned(), query.to_owned());
    let mut client = address.connect();
    client.start("PUT", &format!("/v1/config?{query}"), "If-Match: *\r\n", text.as_bytes());
    wait_until(Duration::from_secs(60), || client.has_bytes_within(Duration::from_secs(1)));
    let answer = client.read("PUT");
    (answer.status(), answer.json())
}

fn file(evener: &Evener) -> String {
    fs::read_to_string(evener.path("evener.toml")).unwrap()
}

fn guard(evener: &Evener) -> Value {
    evener.admin().json("/v1/config/guard")
}

fn kind(problem: &Value) -> &str {
    problem["type"].as_str().unwrap().rsplit(':').next().unwrap()
}

#[test]
fn a_change_that_does_well_is_kept() {
    let (old, new) = (Origin::answering("old"), Origin::answering("new"));
    let evener = Evener::start(&pool(&old, ""));
    let text = evener.text(&pool(&new, ""));
    let visitors = Visitors::of(&evener, 2);
    let (status, answer) = put(&evener, "guard=2s", &text);
    visitors.leave();

    assert_eq!(status, 200, "{answer}");
    let guard = &answer["guard"];
    assert_eq!((&guard["outcome"], &guard["why"]), (&"kept".into(), &Value::Null));
    assert_eq!((&guard["pools"][0], &guard["generation"]), (&"app".into(), &2.into()));
    assert!(guard["after"]["requests"].as_u64() > Some(0), "{guard}");
    assert_eq!(guard["after"]["error_ratio"], 0.0);
    assert_eq!(answer["persisted"], true);
    assert_eq!(file(&evener), text);
    assert_eq!(evener.get("/").body(), "new");
    assert_eq!(evener.generation(), 2);
    assert_eq!(evener.admin().json("/v1/status")["guard"], Value::Null);
}

#[test]
fn a_change_that_makes_requests_fail_is_rolled_back() {
    let (old, broken) = (Origin::answering("old"), Origin::absent());
    let evener = Evener::start(&pool(&old, ""));
    let before = file(&evener);
    let visitors = Visitors::of(&evener, 4);
    for (turn, failure) in (1..).zip(["refuses", "answers 500", "says nothing", "resets"]) {
        match failure {
            "refuses" => {}
            "answers 500" => {
                broken.listen_again();
                broken.answer_by(|_| Reply::status(500, "broken"));
            }
            "says nothing" => broken.answer_by(|_| Reply::hang()),
            _ => broken.answer_by(|_| Reply::reset()),
        }
        let text = evener.text(&pool(&broken, "timeouts = { read = \"200ms\" }"));
        let (status, problem) = put(&evener, "guard=10m", &text);

        assert_eq!((status, kind(&problem)), (409, "rolled_back"), "{failure}: {problem}");
        let guard = &problem["guard"];
        assert_eq!((&guard["outcome"], &guard["why"]), (&"rolled_back".into(), &"error_ratio".into()));
        assert_eq!(guard["now_generation"], 1 + 2 * turn, "{failure}");
        assert!(guard["after"]["error_ratio"].as_f64() > Some(0.05), "{failure}: {guard}");
        assert_eq!(file(&evener), before);
        assert_eq!(evener.get("/").body(), "old");
    }
    visitors.leave();
    evener.wait_for_log("guarded change rolled back");
}

/// Nobody is there to answer, so no upstream counts anything: the clients' view is what matters.
#[test]
fn a_change_to_an_empty_pool_is_rolled_back() {
    let old = Origin::answering("old");
    let evener = Evener::start(&pool(&old, ""));
    let visitors = Visitors::of(&evener, 2);
    let text = evener.text("[pools.app]\nupstreams = []\n");
    let (status, problem) = put(&evener, "guard=10m", &text);
    visitors.leave();
    assert_eq!((status, &problem["guard"]["why"]), (409, &"error_ratio".into()), "{problem}");
    assert_eq!(evener.get("/").body(), "old");
}

#[test]
fn a_change_that_makes_answers_slow_is_rolled_back() {
    let (old, slow) = (Origin::answering("old"), Origin::answering("slow").after(Duration::from_secs(2)));
    let evener = Evener::start(&pool(&old, ""));
    let visitors = Visitors::of(&evener, 4);
    wait_until(SOON, || old.requests_seen() > 500);
    // A verdict needs two hundred answers, and each takes its time.
    let more = Visitors::of(&evener, 60);
    let (status, problem) = put(&evener, "guard=10m", &evener.text(&pool(&slow, "")));
    visitors.leave();
    more.leave();

    assert_eq!((status, &problem["guard"]["why"]), (409, &"latency".into()), "{problem}");
    let p99 = |when: &str| problem["guard"][when]["p99_ms"].as_f64().unwrap();
    assert!(p99("after") > 2.0 * p99("before"), "{problem}");
    assert_eq!(evener.get("/").body(), "old");
}

#[test]
fn what_nobody_confirms_is_rolled_back() {
    let (old, new) = (Origin::answering("old"), Origin::answering("new"));
    let evener = Evener::start(&pool(&old, ""));
    let before = file(&evener);
    let (status, answer) = put(&evener, "guard=3s&confirm=true", &evener.text(&pool(&new, "")));
    assert_eq!((status, &answer["guard"]["outcome"]), (202, &"watching".into()), "{answer}");
    assert_eq!(answer["persisted"], false);

    wait_until(SOON, || guard(&evener)["outcome"] == "rolled_back");
    assert_eq!(guard(&evener)["why"], "not_confirmed");
    assert_eq!((evener.get("/").body(), evener.generation()), ("old".to_owned(), 3));
    assert_eq!(file(&evener), before);
}

#[test]
fn what_is_confirmed_is_kept_at_once() {
    let (old, new) = (Origin::answering("old"), Origin::answering("new"));
    let mut evener = Evener::start(&pool(&old, ""));
    let text = evener.text(&pool(&new, ""));
    assert_eq!(evener.admin().get("/v1/config/guard").expect_status(404).status(), 404);
    assert_eq!(kind(&evener.admin().post("/v1/config/confirm", "").expect_status(404).json()), "no_guard");

    assert_eq!(put(&evener, "guard=10m&confirm=true", &text).0, 202);
    assert_eq!(evener.admin().json("/v1/status")["guard"]["outcome"], "watching");
    assert_eq!(evener.get("/").body(), "new");
    let confirmed = evener.admin().post("/v1/config/confirm", "").expect_status(200).json();
    assert_eq!(
        (&confirmed["guard"]["outcome"], &confirmed["guard"]["now_generation"]),
        (&"kept".into(), &2.into())
    );
    assert_eq!(file(&evener), text);
    evener.admin().post("/v1/config/confirm", "").expect_status(404);

    evener.restart();
    assert_eq!(evener.get("/").body(), "new");
}

#[test]
fn what_is_not_kept_does_not_survive_a_restart() {
    let (old, new) = (Origin::answering("old"), Origin::answering("new"));
    let mut evener = Evener::start(&pool(&old, ""));
    let before = file(&evener);
    assert_eq!(put(&evener, "guard=10m&confirm=true", &evener.text(&pool(&new, ""))).0, 202);
    assert_eq!(evener.get("/").body(), "new");
    assert_eq!(file(&evener), before, "while a guard watches, the disk holds what was before");
    evener.signal("KILL");
    evener.ends_within(SOON);
    evener.start_again();
    assert_eq!(evener.get("/").body(), "old");
    assert_eq!(evener.generation(), 3);
}

#[test]
fn a_guard_goes_on_when_its_client_leaves() {
    let (old, new) = (Origin::answering("old"), Origin::answering("new"));
    let evener = Evener::start(&pool(&old, ""));
    let text = evener.text(&pool(&new, ""));
    let mut client = evener.admin().connect();
    client.start("PUT", "/v1/config?guard=3s", "If-Match: *\r\n", text.as_bytes());
    wait_until(SOON, || evener.generation() == 2);
    client.reset();

    wait_until(SOON, || guard(&evener)["outcome"] == "kept");
    assert_eq!(file(&evener), text);
    assert_eq!(evener.get("/").body(), "new");
}

#[test]
fn a_second_writer_has_to_wait() {
    let (old, new) = (Origin::answering("old"), Origin::answering("new"));
    let evener = Evener::start(&pool(&old, ""));
    let text = evener.text(&pool(&new, ""));
    assert_eq!(put(&evener, "guard=10m&confirm=true", &text).0, 202);

    for query in ["guard=1s", "guard=1s&confirm=true", ""] {
        let (status, problem) = put(&evener, query, &text);
        assert_eq!((status, kind(&problem)), (409, "guarded"), "{query}");
    }
    assert_eq!(kind(&evener.admin().post("/v1/reload", "").expect_status(409).json()), "guarded");
    evener.signal("HUP");
    wait_until(SOON, || evener.log().matches("a guarded change is under way").count() >= 5);
    assert_eq!(evener.generation(), 2);
    assert_eq!(guard(&evener)["outcome"], "watching");

    evener.admin().post("/v1/config/confirm", "").expect_status(200);
    evener.admin().post("/v1/reload", "").expect_status(200);
}

#[test]
fn a_file_that_was_edited_meanwhile_is_left_alone() {
    let (old, new) = (Origin::answering("old"), Origin::answering("new"));
    let evener = Evener::start(&pool(&old, ""));
    let text = evener.text(&pool(&new, ""));
    assert_eq!(put(&evener, "guard=8s&confirm=true", &text).0, 202);
    let edited = format!("# edited\n{}", file(&evener));
    fs::write(evener.path("evener.toml"), &edited).unwrap();

    let problem = evener.admin().post("/v1/config/confirm", "").expect_status(409).json();
    assert_eq!(kind(&problem), "file_edited");
    wait_until(SOON, || guard(&evener)["outcome"] == "rolled_back");
    let detail = guard(&evener)["detail"].to_string();
    assert!(detail.contains("edited meanwhile"), "{detail}");
    evener.wait_for_log("edited meanwhile");
    assert_eq!(file(&evener), edited);
    assert_eq!(evener.get("/").body(), "old");
}

/// The folder in which the new file would be made has something else of that name.
#[test]
fn a_guard_that_could_not_keep_anything_does_not_begin() {
    let (old, new) = (Origin::answering("old"), Origin::answering("new"));
    let evener = Evener::start(&pool(&old, ""));
    fs::create_dir(evener.path(".evener.toml.new")).unwrap();
    let (status, problem) = put(&evener, "guard=1s", &evener.text(&pool(&new, "")));
    assert_eq!((status, kind(&problem)), (507, "cannot_persist"), "{problem}");
    assert_eq!((evener.get("/").body(), evener.generation()), ("old".to_owned(), 1));
}

#[test]
fn wrong_parameters_are_refused_by_name() {
    let old = Origin::answering("old");
    let evener = Evener::start(&pool(&old, ""));
    let text = evener.text(&pool(&old, ""));
    for query in [
        "guard=5",
        "guard=500ms",
        "guard=11m",
        "guard=soon",
        "guard=5s&max_error_ratio=5",
        "guard=5s&max_error_ratio=NaN",
        "guard=5s&confirm=yes",
        "confirm=true",
        "max_error_ratio=0.1",
        "gaurd=5s",
    ] {
        let (status, problem) = put(&evener, query, &text);
        assert_eq!((status, kind(&problem)), (400, "bad_parameter"), "{query}: {problem}");
    }
    assert_eq!(evener.generation(), 1);
}
