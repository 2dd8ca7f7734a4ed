//! What happens, as it happens: `GET /v1/events`.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::rig::{Evener, Origin, Reply, wait_until};

/// Longest wait for an event.
const PATIENCE: Duration = Duration::from_secs(30);

/// A client that reads a stream of events, and does not care for chunks: each event comes in one.
struct Listener(BufReader<TcpStream>);

/// One event: its kind, its id, and what it says.
struct Heard {
    kind: String,
    id: String,
    data: Value,
}

impl Listener {
    #[track_caller]
    fn to(evener: &Evener) -> Self {
        Self::since(evener, "")
    }

    /// As one that comes back, with this `Last-Event-ID`.
    #[track_caller]
    fn since(evener: &Evener, id: &str) -> Self {
        let mut stream = TcpStream::connect(evener.admin().address()).expect("connect");
        stream.set_read_timeout(Some(PATIENCE)).expect("a read timeout");
        let seen = if id.is_empty() { String::new() } else { format!("Last-Event-ID: {id}\r\n") };
        let request = format!("GET /v1/events HTTP/1.1\r\nHost: localhost\r\n{seen}\r\n");
        stream.write_all(request.as_bytes()).expect("send");
        let mut listener = Self(BufReader::new(stream));
        let mut head = Vec::new();
        while head.last().is_none_or(|line: &String| !line.is_empty()) {
            head.push(listener.line().expect("a head"));
        }
        assert!(head[0].starts_with("HTTP/1.1 200 "), "{head:?}");
        assert!(head.contains(&"content-type: text/event-stream".to_owned()), "{head:?}");
        listener
    }

    /// The next line; `None` where the connection ends.
    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.0.read_line(&mut line).expect("a line in time");
        (read > 0).then(|| line.trim_end().to_owned())
    }

    /// The next event.
    #[track_caller]
    fn hear(&mut self) -> Heard {
        let (mut kind, mut id, asked) = (String::new(), String::new(), Instant::now());
        loop {
            // Comments come for ever.
            assert!(asked.elapsed() < PATIENCE, "nothing happens");
            let line = self.line().expect("an event before the end");
            if let Some(word) = line.strip_prefix("event: ") {
                word.clone_into(&mut kind);
            } else if let Some(text) = line.strip_prefix("id: ") {
                text.clone_into(&mut id);
            } else if let Some(text) = line.strip_prefix("data: ") {
                return Heard { kind, id, data: serde_json::from_str(text).expect("JSON") };
            }
        }
    }

    /// The next event of this kind.
    #[track_caller]
    fn hear_of(&mut self, kind: &str) -> Heard {
        loop {
            let heard = self.hear();
            if heard.kind == kind {
                return heard;
            }
        }
    }
}

fn in_front_of(origin: &Origin, more: &str) -> Evener {
    Evener::start(&format!("[pools.app]\nupstreams = [\"{}\"]\n{more}", origin.address()))
}

const UNCHECKED: &str = "health_check = { enabled = false }";

/// Replaces the configuration by itself and a comment.
fn replace(evener: &Evener, comment: &str) {
    let text = evener.admin().get("/v1/config").expect_status(200).body();
    let headers = format!("If-Match: *\r\nX-Evener-Reason: {comment}\r\n");
    let text = format!("{text}\n# {comment}\n");
    evener.admin().request("PUT", "/v1/config", &headers, &text).expect_status(200);
}

#[test]
fn whoever_listens_hears_what_was_changed_and_what_was_refused() {
    let origin = Origin::answering("ok");
    let evener = in_front_of(&origin, UNCHECKED);
    let (mut one, mut two) = (Listener::to(&evener), Listener::to(&evener));
    replace(&evener, "why not");
    evener.admin().request("PUT", "/v1/config", "If-Match: *\r\n", "[pols.app]\n").expect_status(422);
    evener.signal("HUP");

    for listener in [&mut one, &mut two] {
        let applied = listener.hear();
        assert_eq!(applied.kind, "config");
        let about = ["result", "generation", "origin", "who", "why", "what", "carried", "added"]
            .map(|member| applied.data[member].clone());
        let expected = [
            json!("applied"),
            json!(2),
            json!("admin"),
            json!("loopback"),
            json!("why not"),
            json!("replace"),
            json!(1),
            json!(0),
        ];
        assert_eq!(about, expected, "{}", applied.data);
        assert!(applied.data["at"].as_str().is_some_and(|at| at.ends_with('Z')), "{}", applied.data);

        let refused = listener.hear();
        assert_eq!((&*refused.kind, &refused.data["result"]), ("config", &json!("refused")));
        assert_eq!((&refused.data["generation"], &refused.data["etag"]), (&json!(2), &applied.data["etag"]));
        assert!(
            refused.data["reason"].as_str().unwrap().contains("3 mistakes in the configuration, line 1"),
            "{}",
            refused.data
        );
        let reload = listener.hear().data;
        assert_eq!((&reload["who"], &reload["what"]), (&json!("SIGHUP"), &json!("reload")));
    }
}

#[test]
fn whoever_listens_hears_of_health() {
    let origin = Origin::answering("ok");
    let check = "interval = \"200ms\", fast_interval = \"200ms\", fall = 1, rise = 1, path = \"/healthz\"";
    let evener = in_front_of(&origin, &format!("health_check = {{ {check} }}"));
    let mut listener = Listener::to(&evener);
    origin.fall_sick();
    let down = listener.hear_of("health").data;
    assert_eq!((&down["from"], &down["to"]), (&json!("up"), &json!("down")));
    assert_eq!((&down["pool"], &down["upstream"]), (&json!("app"), &json!(origin.address())));
    assert!(down["error"].as_str().is_some_and(|error| !error.is_empty()), "{down}");
    origin.get_well();
    let up = listener.hear_of("health").data;
    assert_eq!((&up["from"], &up["to"], &up["error"]), (&json!("down"), &json!("up"), &Value::Null));
}

#[test]
fn whoever_comes_back_hears_what_it_missed() {
    let origin = Origin::answering("ok");
    let evener = in_front_of(&origin, UNCHECKED);
    let mut listener = Listener::to(&evener);
    replace(&evener, "first");
    let first = listener.hear();
    drop(listener);
    replace(&evener, "second");
    let mut back = Listener::since(&evener, &first.id);
    replace(&evener, "third");
    assert_eq!(
        (back.hear().data["why"].clone(), back.hear().data["why"].clone()),
        (json!("second"), json!("third"))
    );
}

#[test]
fn a_stream_ends_in_order_when_the_process_stops() {
    let origin = Origin::answering("ok");
    let mut evener = Evener::start(&format!(
        "[server]\ndrain_timeout = \"60s\"\n[pools.app]\nupstreams = [\"{}\"]\n{UNCHECKED}",
        origin.address()
    ));
    let mut listener = Listener::to(&evener);
    origin.hold();
    let under_way = evener.get_in_background("/");
    origin.wait_for_request();
    evener.signal("TERM");

    let mut last = String::new();
    while let Some(line) = listener.line() {
        if !line.is_empty() {
            last = line;
        }
    }
    assert_eq!(last, "0", "the last chunk");
    assert!(evener.ends_within(Duration::ZERO).is_none(), "a request is in flight");
    origin.release();
    under_way.join().expect_status(200);
    assert!(evener.ends_within(Duration::from_secs(20)).is_some());
}

#[test]
fn a_listener_that_leaves_gives_its_place_back() {
    let origin = Origin::answering("ok");
    let evener = in_front_of(&origin, UNCHECKED);
    for _ in 0..2 {
        let listeners: Vec<_> = (0..250).map(|_| Listener::to(&evener)).collect();
        drop(listeners);
        wait_until(Duration::from_secs(20), || {
            let sockets = fs::read_dir(format!("/proc/{}/fd", evener.process_id())).unwrap().count();
            sockets < 150
        });
    }
    evener.admin().get("/v1/status").expect_status(200);
}

#[test]
fn a_listener_that_does_not_read_holds_nobody_up() {
    let origin = Origin::answering("ok");
    let evener = in_front_of(&origin, UNCHECKED);
    let _deaf = Listener::to(&evener);
    let mut listener = Listener::to(&evener);
    for turn in 0..300 {
        // Refused, so that nothing is written to the disk.
        evener.admin().request("PUT", "/v1/config", "If-Match: \"0-0\"\r\n", "x").expect_status(412);
        assert_eq!(listener.hear().data["result"], "refused", "{turn}");
    }
}

/// Requests end after 60 s at most; what they answer may go on.
#[test]
#[ignore = "takes more than a minute; run it when a timeout of the side port is changed"]
fn a_stream_outlives_the_timeout_of_requests() {
    let origin = Origin::answering("ok");
    let evener = in_front_of(&origin, UNCHECKED);
    let mut listener = Listener::to(&evener);
    let began = Instant::now();
    let mut comments = 0;
    while began.elapsed() < Duration::from_secs(70) {
        comments += usize::from(listener.line().expect("no end").starts_with(':'));
        thread::sleep(Duration::from_millis(10));
    }
    assert!(comments >= 4, "{comments}");
    replace(&evener, "still there");
    assert_eq!(listener.hear().data["why"], "still there");
}

/// Ejections are then taken back at once and begin anew with every few requests. Whoever listens is told once.
#[test]
fn a_pool_of_which_nobody_is_well_does_not_flood_those_who_listen() {
    let origins = [Origin::absent(), Origin::absent()];
    let ejection = "ejection = { consecutive_failures = 1, base_duration = \"60s\", max_ejected = 0.5 }";
    let addresses = origins.each_ref().map(Origin::address);
    let evener = Evener::start(&format!(
        "[pools.app]\nupstreams = [\"{}\", \"{}\"]\n{UNCHECKED}\n{ejection}",
        addresses[0], addresses[1]
    ));
    let (mut listener, began) = (Listener::to(&evener), Instant::now());
    let ejections = || evener.admin().metric("evener_upstream_ejections_total", &["pool=\"app\""]);
    wait_until(Duration::from_secs(120), || {
        (0..5).for_each(|_| drop(evener.get("/").expect_status(502)));
        ejections() > 200.0
    });
    let path = format!("/v1/pools/app/upstreams/{}", origins[0].address_in_a_path());
    evener.admin().write("PATCH", &path, "", r#"{"weight": 2}"#).expect_status(200);
    let spells = 1 + usize::try_from(began.elapsed().as_secs() / 10).unwrap();
    let mut told = Vec::new();
    loop {
        let heard = listener.hear();
        match heard.kind.as_str() {
            "ejection" => told.push(heard.data),
            "state" => break,
            _ => {}
        }
    }
    assert_eq!((&told[0]["from"], &told[0]["to"]), (&json!("admitted"), &json!("ejected")));
    assert!(told.len() <= 2 * origins.len() * spells, "{}: {told:?}", told.len());
}

#[test]
fn ejections_and_what_operators_want_are_told_as_they_happen() {
    let (sick, other) = (Origin::serving(|_| Reply::status(500, "sick")), Origin::answering("ok"));
    let evener = Evener::start(&format!(
        "[pools.app]\nupstreams = [\"{}\", \"{}\"]\n{UNCHECKED}\nejection = {{ consecutive_failures = 2, base_duration = \"300ms\" }}",
        sick.address(),
        other.address()
    ));
    let mut listener = Listener::to(&evener);
    for _ in 0..4 {
        evener.get("/");
    }
    let ejected = listener.hear_of("ejection").data;
    let about =
        ["pool", "upstream", "from", "to", "cause", "ejected_for_ms"].map(|name| ejected[name].clone());
    let address = json!(sick.address());
    let cause = json!("2 requests in a row failed");
    let expected = [json!("app"), address.clone(), json!("admitted"), json!("ejected"), cause, json!(300)];
    assert_eq!(about, expected);
    let tried = listener.hear_of("ejection").data;
    assert_eq!((&tried["from"], &tried["to"]), (&json!("ejected"), &json!("probation")));

    let path = format!("/v1/pools/app/upstreams/{}", sick.address_in_a_path());
    let said = r#"{"state": "maintenance", "weight": 7}"#;
    evener.admin().write("PATCH", &path, "X-Evener-Reason: disk\r\n", said).expect_status(200);
    let (state, weight) = (listener.hear_of("state").data, listener.hear_of("state").data);
    let about = ["upstream", "what", "from", "to", "who", "why"].map(|name| state[name].clone());
    let expected = ["state", "ready", "maintenance", "loopback", "disk"].map(|text| json!(text));
    assert_eq!((&about[0], &about[1..]), (&address, &expected[..]));
    assert_eq!(
        (&weight["what"], &weight["from"], &weight["to"]),
        (&json!("weight"), &json!("1"), &json!("7"))
    );
}
