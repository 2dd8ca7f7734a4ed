//! The configuration as a whole, written over the side port: nothing is lost, nothing half done.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use serde_json::{Value, json};

use crate::rig::{Background, DefaultPorts, Evener, Origin, Response, reserve_port, wait_until};

/// A file as a person writes it: comments, spaces, an order of its own.
fn text_for(origin: &Origin) -> String {
    format!(
        "# Ours. Änderungen bitte absprechen!\n\
         [pools.app]   # the only one\n\
         upstreams = [ '{}' ]\n\
         health_check = {{ enabled = false }}\n\n\n\
         [admin]\n\
         address = \"127.0.0.1:{}\"\t# side port\n\
         [listeners.http]\n\
         address = \"127.0.0.1:{}\"\n\
         # the end, without a line end",
        origin.address(),
        reserve_port(),
        reserve_port()
    )
}

/// An Evener in front of `one`, and its text; the other origin is for the next configuration.
fn in_front_of_one() -> (Evener, Origin, Origin, String) {
    let (one, two) = (Origin::answering("one"), Origin::answering("two"));
    let text = text_for(&one);
    (Evener::start_on_text(&text), one, two, text)
}

fn put(evener: &Evener, tag: &str, text: &str) -> Response {
    put_with(evener, &format!("If-Match: {tag}\r\n"), text)
}

fn put_with(evener: &Evener, headers: &str, text: &str) -> Response {
    evener.admin().request("PUT", "/v1/config", headers, text)
}

#[track_caller]
fn tag(evener: &Evener) -> String {
    let answer = evener.admin().get("/v1/config").expect_status(200);
    answer.header("etag").expect("an entity tag").to_owned()
}

#[track_caller]
fn on_disk(evener: &Evener) -> String {
    fs::read_to_string(evener.path("evener.toml")).unwrap()
}

#[track_caller]
fn history(evener: &Evener) -> Vec<Value> {
    evener.admin().json("/v1/config/history")["entries"].as_array().unwrap().clone()
}

/// The tail of a problem's type; and that it says what to do.
#[track_caller]
fn problem(answer: &Response) -> String {
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{answer}");
    let problem = answer.json();
    assert!(problem["help"].as_str().is_some_and(|help| help.len() > 10), "{problem}");
    problem["type"].as_str().unwrap().rsplit(':').next().unwrap().to_owned()
}

/// All that a refused write must leave alone.
#[derive(Debug, PartialEq)]
struct State {
    text: String,
    tag: String,
    history: Vec<Value>,
    answer: String,
    folder: Vec<String>,
}

impl State {
    #[track_caller]
    fn of(evener: &Evener) -> Self {
        let files = fs::read_dir(evener.path("")).unwrap();
        let mut folder: Vec<String> =
            files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        folder.sort();
        Self {
            text: on_disk(evener),
            tag: tag(evener),
            history: history(evener),
            answer: evener.get("/").body(),
            folder,
        }
    }
}

#[test]
fn a_round_trip_keeps_every_byte_and_who_owns_the_file() {
    let (evener, one, two, text) = in_front_of_one();
    let file = evener.path("evener.toml");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o604)).unwrap();
    // Only root may give a file away.
    let is_given_away = chown(&file, Some(4_711), Some(4_712)).is_ok();

    let read = evener.admin().get("/v1/config").expect_status(200);
    assert_eq!(read.header("content-type"), Some("application/toml"));
    assert_eq!(read.body(), text);
    let edited = read.body().replace(&one.address(), &two.address()).replace("Ours.", "Ours?");
    let applied = put(&evener, read.header("etag").unwrap(), &edited).expect_status(200);

    assert_eq!(on_disk(&evener), edited);
    assert_eq!(evener.get("/").body(), "two");
    let now = fs::metadata(&file).unwrap();
    assert_eq!(now.mode() & 0o7777, 0o604);
    assert!(!is_given_away || (now.uid(), now.gid()) == (4_711, 4_712), "{now:?}");
    assert!(!evener.path(".evener.toml.new").exists());

    let view = applied.json();
    assert_eq!(
        (&view["generation"], &view["changed"], &view["persisted"]),
        (&json!(2), &json!(true), &json!(true))
    );
    assert_eq!(view["added"], json!([{"pool": "app", "address": two.address()}]));
    assert_eq!(view["removed"], json!([{"pool": "app", "address": one.address()}]));
    assert_eq!((applied.header("etag"), view["etag"].as_str()), (Some(&*tag(&evener)), Some(&*tag(&evener))));
    assert_eq!(evener.admin().get("/v1/config").body(), edited);
}

#[test]
fn a_wrong_text_is_told_every_mistake_and_changes_nothing() {
    let (evener, one, two, text) = in_front_of_one();
    let before = State::of(&evener);
    let wrong = text.replace(&one.address(), &two.address()) + "\n[pools.app.keepalive]\nidel = \"1s\"\n";
    let wrong = wrong.replace("upstreams =", "strategy = \"least_conn\"\nupstreams =");
    let refused = put(&evener, &before.tag, &wrong).expect_status(422);

    assert_eq!(problem(&refused), "invalid_config");
    let errors = refused.json()["errors"].clone();
    let line_of = |word: &str| 1 + wrong.lines().position(|line| line.contains(word)).unwrap();
    assert_eq!(errors.as_array().unwrap().len(), 2, "{errors}");
    for (error, word, column, help) in [
        (&errors[0], "least_conn", 12, "did you mean `least_connections`?"),
        (&errors[1], "idel", 1, "did you mean `idle`?"),
    ] {
        assert_eq!((&error["line"], &error["column"]), (&json!(line_of(word)), &json!(column)), "{error}");
        assert!(error["message"].as_str().unwrap().contains(word), "{error}");
        assert!(error["help"].as_str().unwrap().contains(help), "{error}");
    }
    let tried = evener.admin().request("POST", "/v1/config/check", "", &wrong).expect_status(422);
    assert_eq!(tried.json()["errors"], errors);
    assert_eq!(State::of(&evener), before);

    let refusal = evener.admin().json("/v1/status")["last_refusal"].clone();
    assert_eq!(refusal["who"], "loopback");
    assert!(refusal["reason"].as_str().unwrap().contains("least_conn"), "{refusal}");
    // The file is as right as before, so nobody need be woken.
    evener.admin().expect_metric("evener_config_last_change_successful", &[], 1.0);
    put(&evener, &before.tag, &text).expect_status(200);
    assert!(evener.admin().json("/v1/status")["last_refusal"].is_null());
}

#[test]
fn what_is_no_text_at_all_is_refused() {
    let (evener, _one, _two, text) = in_front_of_one();
    let before = State::of(&evener);
    let headers = format!("If-Match: {}\r\n", before.tag);
    let json = put_with(&evener, &format!("{headers}Content-Type: application/json\r\n"), "{}");
    assert_eq!((json.status(), &*problem(&json)), (415, "not_toml"));
    let binary = evener.admin().connect().request("PUT", "/v1/config", &headers, b"# \xff\xfe");
    assert_eq!((binary.status(), &*problem(&binary)), (422, "invalid_config"));
    let empty = evener.admin().request("PUT", "/v1/config", &format!("{headers}Content-Length: 0\r\n"), "");
    assert_eq!((empty.status(), &*problem(&empty)), (422, "invalid_config"));
    let guarded = evener.admin().request("PUT", "/v1/config?gard=60s", &headers, &text);
    assert_eq!((guarded.status(), &*problem(&guarded)), (400, "bad_parameter"));
    assert_eq!(State::of(&evener), before);
    // What a client of the command line says by default.
    let form = format!("{headers}Content-Type: application/x-www-form-urlencoded\r\n");
    put_with(&evener, &form, &text).expect_status(200);
}

#[test]
fn a_trial_says_what_would_be_and_changes_nothing() {
    let (evener, one, two, text) = in_front_of_one();
    let before = State::of(&evener);
    let odd = text.replace(&one.address(), &two.address())
        + "\n[pools.idle]\nupstreams = [\"127.0.0.1:1\"]\n[routes.all]\npool = \"app\"\n";
    let checked = evener.admin().request("POST", "/v1/config/check", "", &odd).expect_status(200).json();
    assert_eq!(checked["valid"], true);
    assert_eq!(checked["summary"], "1 listener, 1 route, 2 pools");
    assert!(checked["warnings"].is_array(), "{checked}");
    assert_eq!(State::of(&evener), before);
}

#[test]
fn a_replacement_says_what_it_replaces() {
    let (evener, _one, _two, text) = in_front_of_one();
    let before = State::of(&evener);
    let without = put_with(&evener, "", &text);
    assert_eq!((without.status(), &*problem(&without)), (428, "precondition_required"));
    for (condition, status, kind) in [
        ("\"0-0\"", 412, "changed_meanwhile"),
        ("W/\"0-0\", \"1\"", 412, "changed_meanwhile"),
        ("nonsense", 400, "bad_parameter"),
        ("", 400, "bad_parameter"),
    ] {
        let refused = put(&evener, condition, &text);
        assert_eq!((refused.status(), &*problem(&refused)), (status, kind), "{condition}");
        if status == 412 {
            assert_eq!(refused.json()["etag"], before.tag);
        }
    }
    assert_eq!(State::of(&evener), before);
    put(&evener, &format!("\"other\", {}", before.tag), &text).expect_status(200);
    put(&evener, "*", &text).expect_status(200);
}

/// pingap: the last writer wins.
#[test]
fn two_writers_do_not_overwrite_each_other() {
    let (evener, _one, _two, text) = in_front_of_one();
    let tag = tag(&evener);
    let first = format!("{text}\n# by the first");
    put(&evener, &tag, &first).expect_status(200);
    let second = put(&evener, &tag, &format!("{text}\n# by the second"));
    assert_eq!((second.status(), &*problem(&second)), (412, "changed_meanwhile"));
    assert_eq!(second.json()["etag"], self::tag(&evener));
    assert_eq!(on_disk(&evener), first);
}

#[test]
fn of_a_hundred_writers_one_wins() {
    const WRITERS: usize = 100;
    let (evener, _one, _two, text) = in_front_of_one();
    let (tag, start) = (tag(&evener), Arc::new(Barrier::new(WRITERS)));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (admin, start) = (evener.admin(), start.clone());
            let (headers, text) = (format!("If-Match: {tag}\r\n"), format!("{text}\n# by writer {writer}."));
            Background::run(move || {
                start.wait();
                (admin.request("PUT", "/v1/config", &headers, &text).status(), text)
            })
        })
        .collect();
    let answers: Vec<(u16, String)> = writers.into_iter().map(Background::join).collect();

    let winners: Vec<_> = answers.iter().filter(|(status, _)| *status == 200).collect();
    let losers = answers.iter().filter(|(status, _)| *status == 412).count();
    assert_eq!((winners.len(), losers), (1, WRITERS - 1));
    assert_eq!(on_disk(&evener), winners[0].1);
    assert_eq!(evener.generation(), 2);
    assert_eq!(evener.admin().get("/v1/config").body(), winners[0].1);
}

/// Whoever looks at the status in the night looks for what is wrong with what runs or would start.
#[test]
fn who_loses_a_race_is_told_so_and_no_operator_is() {
    let (evener, _one, _two, text) = in_front_of_one();
    let stale = "If-Match: \"0-0\"\r\n";
    let refusal = || evener.admin().json("/v1/status")["last_refusal"].clone();
    let is_in_order = || {
        assert_eq!(refusal(), Value::Null);
        evener.admin().expect_metric("evener_config_last_change_successful", &[], 1.0);
    };
    put_with(&evener, "", &text).expect_status(428);
    put_with(&evener, stale, &text).expect_status(412);
    evener.admin().request("POST", "/v1/reload", stale, "").expect_status(412);
    is_in_order();

    let mut guarded = evener.admin().connect();
    guarded.start("PUT", "/v1/config?guard=300s&confirm=true", "If-Match: *\r\n", text.as_bytes());
    wait_until(Duration::from_secs(20), || !evener.admin().json("/v1/status")["guard"].is_null());
    for (method, path) in [("PUT", "/v1/config"), ("POST", "/v1/reload")] {
        let body = if method == "PUT" { &*text } else { "" };
        let refused = evener.admin().request(method, path, "If-Match: *\r\n", body);
        assert_eq!((refused.status(), &*problem(&refused)), (409, "guarded"), "{path}");
    }
    is_in_order();
    evener.admin().request("POST", "/v1/config/rollback", "", "").expect_status(200);

    let tag = tag(&evener);
    fs::write(evener.path("evener.toml"), format!("{text}\n[pools.app.keepalive]\nidel = \"1s\"\n")).unwrap();
    assert_eq!(problem(&put(&evener, &tag, &text)), "file_edited");
    is_in_order();

    // What is in the file is wrong until somebody mends it, whatever is sent and refused meanwhile.
    evener.signal("HUP");
    wait_until(Duration::from_secs(20), || refusal()["who"] == "SIGHUP");
    put_with(&evener, stale, &text).expect_status(412);
    put(&evener, "*", "[pools.app]\nupstreamz = []").expect_status(422);
    assert_eq!(refusal()["who"], "SIGHUP");
    evener.admin().expect_metric("evener_config_last_change_successful", &[], 0.0);
    put(&evener, "*", &text).expect_status(200);
    is_in_order();
}

#[test]
fn an_edit_of_the_file_is_not_overwritten_unasked() {
    let (evener, one, two, text) = in_front_of_one();
    let tag = tag(&evener);
    let edited = format!("{text}\n# by hand, and not loaded yet");
    fs::write(evener.path("evener.toml"), &edited).unwrap();

    let wanted = text.replace(&one.address(), &two.address());
    let refused = put(&evener, &tag, &wanted);
    assert_eq!((refused.status(), &*problem(&refused)), (409, "file_edited"));
    assert_eq!((on_disk(&evener), evener.get("/").body()), (edited.clone(), "one".to_owned()));

    put(&evener, "*", &wanted).expect_status(200);
    assert_eq!((on_disk(&evener), evener.get("/").body()), (wanted, "two".to_owned()));
    let kept = evener.admin().get("/v1/config/history/0").expect_status(200);
    assert_eq!(kept.body(), edited);
    let texts = fs::read_dir(evener.path("evener.toml.history")).unwrap();
    let is_it = |path| fs::read_to_string(path).is_ok_and(|text| text == edited);
    assert!(texts.into_iter().any(|file| is_it(file.unwrap().path())), "it is not in the history folder");
}

#[test]
fn what_needs_a_restart_is_refused_by_name_with_the_command() {
    let (evener, _one, _two, text) = in_front_of_one();
    let before = State::of(&evener);
    let wanted = text.replace("[admin]", "[server]\nthreads = 7\n[log]\nlevel = \"debug\"\n[admin]");
    let refused = put(&evener, &before.tag, &wanted);
    assert_eq!((refused.status(), &*problem(&refused)), (409, "restart_required"));
    let told = refused.json();
    let (file, command) = (evener.path("evener.toml").display().to_string(), "`evener upgrade`");
    for setting in ["`server.threads`", "`log`"] {
        assert!(told["detail"].as_str().unwrap().contains(setting), "{told}");
    }
    let help = told["help"].as_str().unwrap();
    assert!(help.contains(&file) && help.contains(command), "{told}");
    assert_eq!(State::of(&evener), before);
}

/// Root may write wherever it likes, so a folder stands where the new file would.
#[test]
fn what_cannot_be_kept_is_not_applied() {
    let (evener, one, two, text) = in_front_of_one();
    let in_the_way = evener.path(".evener.toml.new");
    fs::create_dir(&in_the_way).unwrap();
    let before = State::of(&evener);
    let wanted = text.replace(&one.address(), &two.address());
    for tag in [&*before.tag, "*"] {
        let refused = put(&evener, tag, &wanted);
        assert_eq!((refused.status(), &*problem(&refused)), (507, "cannot_persist"));
        assert!(refused.json()["detail"].as_str().unwrap().contains("evener.toml"), "{refused}");
    }
    assert_eq!(State::of(&evener), before);

    fs::remove_dir(&in_the_way).unwrap();
    put(&evener, &before.tag, &wanted).expect_status(200);
    assert_eq!(evener.get("/").body(), "two");
}

#[test]
fn the_history_says_who_when_why_and_what() {
    let (evener, one, two, text) = in_front_of_one();
    let why = "X-Evener-Reason: two is faster\r\n";
    let wanted = text.replace(&one.address(), &two.address());
    put_with(&evener, &format!("If-Match: *\r\n{why}"), &wanted).expect_status(200);

    let entries = history(&evener);
    let known = |entry: &Value| {
        let members = ["generation", "origin", "who", "why", "what", "overrides", "current"];
        members.map(|member| entry[member].clone())
    };
    let replaced = [
        json!(2),
        json!("admin"),
        json!("loopback"),
        json!("two is faster"),
        json!("replace"),
        json!(0),
        json!(true),
    ];
    let started =
        [json!(1), json!("start"), json!("start"), Value::Null, json!("start"), json!(0), json!(false)];
    assert_eq!(entries.iter().map(known).collect::<Vec<_>>(), [replaced, started]);
    assert!(
        entries.iter().all(|entry| entry["at"].as_str().is_some_and(|at| at.ends_with('Z'))),
        "{entries:?}"
    );

    for (generation, expected) in [(1, &text), (2, &wanted)] {
        let shown = evener.admin().get(&format!("/v1/config/history/{generation}")).expect_status(200);
        assert_eq!(shown.body(), *expected);
        assert_eq!(shown.header("content-type"), Some("application/toml"));
    }
    for (path, status, kind) in [("7", 404, "unknown_generation"), ("x", 400, "bad_parameter")] {
        let refused = evener.admin().get(&format!("/v1/config/history/{path}"));
        assert_eq!((refused.status(), &*problem(&refused)), (status, kind));
    }
}

fn roll_back(evener: &Evener, to: &str) -> Response {
    evener.admin().post("/v1/config/rollback", to)
}

#[test]
fn what_ran_before_runs_again() {
    let (mut evener, one, two, text) = in_front_of_one();
    let second = text.replace(&one.address(), &two.address());
    put(&evener, "*", &second).expect_status(200);

    let applied = roll_back(&evener, "").expect_status(200);
    assert_eq!(
        (applied.json()["generation"].as_u64(), applied.header("etag")),
        (Some(3), Some(&*tag(&evener)))
    );
    assert_eq!((on_disk(&evener), evener.get("/").body()), (text.clone(), "one".to_owned()));
    roll_back(&evener, r#"{"generation": 2}"#).expect_status(200);
    assert_eq!((on_disk(&evener), evener.get("/").body()), (second.clone(), "two".to_owned()));

    let before = State::of(&evener);
    for (to, status, kind) in [
        (r#"{"generation": 77}"#, 404, "unknown_generation"),
        (r#"{"genaration": 1}"#, 422, "bad_body"),
        (r#"{"generation": "1"}"#, 422, "bad_body"),
        ("[]", 422, "bad_body"),
    ] {
        let refused = roll_back(&evener, to);
        assert_eq!((refused.status(), &*problem(&refused)), (status, kind), "{to}");
    }
    let stale = "If-Match: \"0-0\"\r\nContent-Length: 0\r\n";
    evener.admin().request("POST", "/v1/config/rollback", stale, "").expect_status(412);
    assert_eq!(State::of(&evener), before);

    // Numbers go on, and the way back is still known.
    evener.restart();
    assert_eq!((evener.generation(), evener.get("/").body()), (4, "two".to_owned()));
    let refused = put(&evener, &before.tag, &text);
    assert_eq!(
        (refused.status(), &*problem(&refused)),
        (412, "changed_meanwhile"),
        "a tag of another process"
    );
    roll_back(&evener, r#"{"generation": 1}"#).expect_status(200);
    assert_eq!((on_disk(&evener), evener.get("/").body()), (text.clone(), "one".to_owned()));
    assert_eq!(history(&evener)[0]["what"], "roll back to generation 1");

    // Whoever went back does not come to what they left, but further back, where there is nothing.
    let refused = roll_back(&evener, "{}");
    assert_eq!((refused.status(), &*problem(&refused)), (404, "unknown_generation"));
    put(&evener, "*", &second).expect_status(200);
    roll_back(&evener, "{}").expect_status(200);
    assert_eq!((on_disk(&evener), evener.generation()), (text, 7));
}

#[test]
fn a_rollback_skips_generations_that_say_the_same() {
    let (evener, one, two, text) = in_front_of_one();
    let second = text.replace(&one.address(), &two.address());
    put(&evener, "*", &second).expect_status(200);
    for _ in 0..3 {
        evener.admin().post("/v1/reload", "").expect_status(200);
    }
    put(&evener, "*", &second).expect_status(200);

    roll_back(&evener, "").expect_status(200);
    assert_eq!((on_disk(&evener), evener.get("/").body()), (text, "one".to_owned()));
    assert_eq!(history(&evener)[0]["what"], "roll back to generation 1");
}

#[test]
fn a_pipe_in_the_files_place_holds_up_nobody() {
    let (evener, _one, _two, text) = in_front_of_one();
    let file = evener.path("evener.toml");
    fs::remove_file(&file).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&file).status().unwrap().success());

    let refused = evener.admin().post("/v1/reload", "");
    assert_eq!((refused.status(), &*problem(&refused)), (422, "invalid_config"));
    assert!(refused.body().contains("not a regular file"), "{}", refused.body());
    let refused = put(&evener, &tag(&evener), &text);
    assert_eq!((refused.status(), &*problem(&refused)), (409, "file_edited"));
    put(&evener, "*", &text).expect_status(200);
    assert_eq!(on_disk(&evener), text);
}

#[test]
fn before_the_first_there_is_nothing() {
    let (evener, _one, _two, _text) = in_front_of_one();
    let refused = roll_back(&evener, "");
    assert_eq!((refused.status(), &*problem(&refused)), (404, "unknown_generation"));
    assert_eq!(evener.generation(), 1);

    evener.admin().post("/v1/reload", "").expect_status(200);
    let refused = roll_back(&evener, "");
    assert_eq!((refused.status(), &*problem(&refused)), (404, "unknown_generation"), "the same, reloaded");
    assert_eq!(evener.generation(), 2);
}

#[test]
fn overrides_are_listed_and_dropped() {
    let (mut evener, one, _two, text) = in_front_of_one();
    let none = evener.admin().request("DELETE", "/v1/overrides", "", "").expect_status(200).json();
    assert_eq!((&none["changed"], &none["generation"]), (&json!(false), &json!(1)));
    let weight = format!(
        "[[overrides]]\npool = \"app\"\nupstream = \"{}\"\nsetting = \"weight\"\nvalue = 5\nfile = 1\n\
         by = \"ops\"\nat = \"2026-01-02T03:04:05Z\"\n",
        one.address()
    );
    let file = evener.path("evener.toml.overrides.toml");
    fs::write(&file, weight).unwrap();
    evener.restart();

    let listed = evener.admin().get("/v1/overrides").expect_status(200);
    assert_eq!(listed.header("etag"), Some(&*tag(&evener)));
    assert_eq!(
        listed.json()["overrides"],
        json!([{"pool": "app", "upstream": one.address(), "setting": "weight", "value": 5, "file": 1,
                "by": "ops", "at": "2026-01-02T03:04:05Z"}])
    );
    assert_eq!(evener.admin().json("/v1/status")["overrides"], 1);
    assert_eq!(evener.admin().upstream("app", &one)["weight"], 5);

    let stale = evener.admin().request("DELETE", "/v1/overrides", "If-Match: \"0-0\"\r\n", "");
    assert_eq!((stale.status(), &*problem(&stale)), (412, "changed_meanwhile"));
    let now = format!("If-Match: {}\r\n", tag(&evener));
    let dropped = evener.admin().request("DELETE", "/v1/overrides", &now, "").expect_status(200);
    assert_eq!(dropped.json()["changed"], true);
    assert_eq!(evener.admin().json("/v1/overrides")["overrides"], json!([]));
    assert_eq!(evener.admin().upstream("app", &one)["weight"], 1);
    assert!(!file.exists(), "it would hold again after a restart");
    assert_eq!(on_disk(&evener), text);
}

#[test]
fn without_a_file_there_is_a_text_to_read_and_none_to_replace() {
    let _ports = DefaultPorts::free(&[9900]);
    let origin = Origin::answering("one");
    let address = SocketAddr::from(([127, 0, 0, 1], reserve_port()));
    let (listen, to) = (address.to_string(), origin.address());
    let evener = Evener::start_without_a_file(address, &["run", "--listen", &listen, "--to", &to], &[]);
    wait_until(Duration::from_secs(20), || {
        evener.admin().try_get("/readyz").is_some_and(|answer| answer.status() == 200)
    });

    let text = evener.admin().get("/v1/config").expect_status(200).body();
    assert!(text.contains(&listen) && text.contains(&to), "{text}");
    let checked = evener.admin().request("POST", "/v1/config/check", "", &text);
    assert_eq!((checked.status(), &*problem(&checked)), (409, "no_file"));
    let refused = put(&evener, "*", &text);
    assert_eq!((refused.status(), &*problem(&refused)), (409, "no_file"));
    // So whoever rotates logs says, too.
    evener.signal("HUP");
    wait_until(Duration::from_secs(20), || evener.log().contains("who=SIGHUP"));
    assert!(evener.admin().json("/v1/status")["last_refusal"].is_null());
    evener.admin().expect_metric("evener_config_last_change_successful", &[], 1.0);
    let refused = roll_back(&evener, "");
    assert_eq!((refused.status(), &*problem(&refused)), (404, "unknown_generation"));
    assert_eq!(history(&evener).len(), 1);
    let json =
        evener.admin().get_with("/v1/config", "Accept: application/json\r\n").expect_status(200).json();
    assert_eq!(
        (&json["path"], &json["config"]["pools"]["default"]["upstreams"]),
        (&Value::Null, &json!([to]))
    );
}

#[test]
fn programs_get_the_configuration_as_json() {
    let (evener, one, _two, text) = in_front_of_one();
    let answer = evener.admin().get_with("/v1/config", "Accept: application/json\r\n").expect_status(200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!((answer.header("etag"), answer.header("vary")), (Some(&*tag(&evener)), Some("Accept")));
    let view = answer.json();
    assert_eq!((&view["generation"], &view["overrides"]), (&json!(1), &json!(0)));
    assert_eq!((&view["path"], &view["toml"]), (&json!(evener.path("evener.toml")), &json!(text)));
    assert_eq!(view["etag"], tag(&evener));
    let app = json!({"upstreams": [one.address()], "health_check": {"enabled": false}});
    assert_eq!(view["config"]["pools"], json!({ "app": app }));
}

#[test]
fn a_text_may_be_as_large_as_a_file_and_no_larger() {
    let (evener, _one, _two, text) = in_front_of_one();
    let comment = "# a line of a long comment in a large file\n".repeat(20_000);
    let large = format!("{comment}{text}");
    assert!(large.len() > 800_000);
    put(&evener, "*", &large).expect_status(200);
    assert_eq!(on_disk(&evener), large);

    let announced =
        evener.admin().send_with("PUT", "/v1/config", "If-Match: *\r\nContent-Length: 4194305\r\n");
    assert_eq!((announced.status(), &*problem(&announced)), (413, "body_too_large"));
    let mut chunked = evener.admin().connect();
    chunked.send(
        "PUT /v1/config HTTP/1.1\r\nHost: localhost\r\nIf-Match: *\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    let chunk = format!("10000\r\n{}\r\n", "#".repeat(0x1_0000));
    let sent = (0..100).take_while(|_| chunked.send_if_open(&chunk)).count();
    // It may have hung up before it was read to.
    if let Ok(Some(answer)) = chunked.try_read("PUT") {
        assert_eq!(answer.status(), 413, "after {sent} chunks");
    }
    assert_eq!((on_disk(&evener), evener.generation()), (large, 2));
}

#[test]
fn a_body_that_does_not_come_is_given_up() {
    let (evener, _one, _two, text) = in_front_of_one();
    let before = State::of(&evener);
    let mut slow = evener.admin().connect();
    let length = text.len();
    slow.send(format!(
        "PUT /v1/config HTTP/1.1\r\nHost: localhost\r\nIf-Match: *\r\nContent-Length: {length}\r\n\r\n"
    ));
    slow.send(&text[..20]);
    assert!(slow.has_bytes_within(Duration::from_secs(40)), "it is waited for");
    let answer = slow.read("PUT");
    assert_eq!((answer.status(), &*problem(&answer)), (408, "request_timeout"));
    assert_eq!(State::of(&evener), before);
}

#[test]
fn a_client_that_goes_away_leaves_all_or_nothing() {
    let (evener, one, two, text) = in_front_of_one();
    let before = State::of(&evener);
    let wanted = text.replace(&one.address(), &two.address());
    let head = format!(
        "PUT /v1/config HTTP/1.1\r\nHost: localhost\r\nIf-Match: *\r\nContent-Length: {}\r\n\r\n",
        wanted.len()
    );
    for turn in 0..20 {
        let mut leaver = evener.admin().connect();
        leaver.send(&head);
        leaver.send(&wanted.as_bytes()[..wanted.len() * turn / 20]);
        leaver.reset();
    }
    assert_eq!(State::of(&evener), before);

    // Once it is there in full, nobody needs to wait for the answer.
    let mut leaver = evener.admin().connect();
    leaver.send(format!("{head}{wanted}"));
    leaver.finish_sending();
    drop(leaver);
    wait_until(Duration::from_secs(20), || evener.get("/").body() == "two");
    assert_eq!((on_disk(&evener), evener.generation()), (wanted, 2));
}
