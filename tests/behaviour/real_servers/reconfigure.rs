//! Two thousand changes under load: by file and by the side port, some of them wrong. Nobody notices, and
//! nothing is forgotten.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use super::figures::{assert_that_all_agree, tell, wait_for_rest};
use super::load::Load;
use super::server::Server;
use super::{PATIENT_CHECKS, three, turn_to_load, wait_for_share};
use crate::rig::{Evener, Origin, Reply, Response};

const RELOADS: usize = 200;
const WRITES: usize = 2_000;

/// Changes between two looks at what must not be forgotten.
const LOOK_EVERY: usize = 100;

const WEB_SOCKETS: usize = 4;

const STRATEGIES: [&str; 4] = ["round_robin", "least_connections", "latency_weighted", "random_two"];

#[test]
fn two_thousand_changes_under_load_lose_no_request_and_forget_nothing() {
    let Some(_turn) = turn_to_load() else { return };
    let servers = three();
    let (fourth, echo) = (Origin::answering("ok"), Origin::serving(Reply::echo_web_socket));
    let play = Play { servers: &servers, fourth: &fourth, echo: &echo };
    let evener = Evener::start(&play.file(0));
    let mut sockets: Vec<_> = (0..WEB_SOCKETS).map(|_| open(&evener)).collect();
    let load = Load::start_for(Duration::from_secs(600), evener.address());
    servers.iter().for_each(|server| wait_for_share(&evener, server));

    let mut random = Random(u64::from(std::process::id()) | 1);
    eprintln!("seed {}", random.0);
    let mut memory = Memory::of(&evener, &servers);
    let (mut tally, began) = (Tally::default(), Instant::now());
    for turn in 0..RELOADS + WRITES {
        if turn % (1 + WRITES / RELOADS) == 0 {
            tally.count(play.reload(&evener, turn, &mut random));
        } else {
            tally.count(play.write(&evener, &mut random));
        }
        if turn % LOOK_EVERY == 0 {
            memory = memory.then(Memory::of(&evener, &servers));
            sockets.iter_mut().for_each(|socket| echoes(socket, &turn.to_string()));
        }
    }
    eprintln!("{tally:?} in {:?}", began.elapsed());
    assert!(tally.applied > WRITES / 2 && tally.refused > WRITES / 20, "{tally:?}");

    settle(&evener, &play);
    sockets.iter_mut().for_each(|socket| echoes(socket, "after"));
    let report = load.end();
    drop(sockets);
    wait_for_rest(&evener, &servers);
    memory.then(Memory::of(&evener, &servers));
    tell(&evener, &servers, "two thousand changes", report);
    assert_eq!(report.failed(), 0, "{report:?}");
    // The fourth has answered, too, and its figures went with it.
    if fourth.requests_seen() == 0 {
        assert_that_all_agree(&evener, &servers, report, 0);
    }
}

struct Play<'a> {
    servers: &'a [Server],
    fourth: &'a Origin,
    echo: &'a Origin,
}

impl Play<'_> {
    /// A file like the others but for weights, strategy, time-outs and a route, by its number.
    fn file(&self, number: usize) -> String {
        let members = self.servers.iter().enumerate().map(|(index, server)| {
            format!("{{ address = \"{}\", weight = {} }}", server.address(), 1 + (number + index) % 3)
        });
        format!(
            r#"[routes.app]
            pool = "app"
            timeout = "{}s"
            [routes.socket]
            path_prefix = "/socket"
            pool = "socket"
            [routes.extra-{}]
            path_prefix = "/extra"
            pool = "app"
            [pools.app]
            strategy = "{}"
            upstreams = [{}]
            timeouts = {{ read = "{}s" }}
            {PATIENT_CHECKS}
            [pools.socket]
            upstreams = ["{}"]
            keepalive = {{ idle = "{}s" }}
            "#,
            60 + number % 7,
            number % 5,
            STRATEGIES[number % STRATEGIES.len()],
            members.collect::<Vec<_>>().join(", "),
            60 + number % 3,
            self.echo.address(),
            60 + number % 2,
        )
    }

    /// By signal or by the side port, with a good file or a wrong one.
    fn reload(&self, evener: &Evener, turn: usize, random: &mut Random) -> bool {
        if random.below(4) == 0 {
            evener.rewrite(&self.file(turn).replace("strategy = ", "stategy = "));
            evener.admin().post("/v1/reload", "").expect_status(422);
            return false;
        }
        evener.rewrite(&self.file(turn));
        if random.below(2) == 0 {
            evener.signal("HUP");
        }
        evener.admin().post("/v1/reload", "").expect_status(200);
        true
    }

    /// Something that an operator, or a script with a bug, does to the pool. Whether it was applied.
    fn write(&self, evener: &Evener, random: &mut Random) -> bool {
        let victim = self.servers[random.below(self.servers.len())].address();
        let upstream = format!("/v1/pools/app/upstreams/{victim}");
        let fourth = format!("/v1/pools/app/upstreams/{}", self.fourth.address());
        let strategy = STRATEGIES[random.below(STRATEGIES.len())];
        let send = |method: &str, path: &str, body: &Value| {
            let body = if body.is_null() { String::new() } else { body.to_string() };
            evener.admin().write(method, path, "", &body)
        };
        let none = Value::Null;
        match random.below(12) {
            0..=3 => applied(&send("PATCH", &upstream, &json!({"weight": 1 + random.below(9)})), &[]),
            4 => {
                // Not maintenance: what comes back from there is asked before it serves.
                applied(&send("PATCH", &upstream, &json!({"state": "drain"})), &[]);
                applied(&send("PATCH", &upstream, &json!({"state": "ready"})), &[])
            }
            5 => applied(
                &send("POST", "/v1/pools/app/upstreams", &json!({"address": self.fourth.address()})),
                &[409],
            ),
            6 => applied(&send("DELETE", &fourth, &none), &[404]),
            7 => applied(&send("PATCH", "/v1/pools/app", &json!({"strategy": strategy})), &[]),
            8 => applied(&send("PATCH", &upstream, &json!({"weight": 100_000})), &[422]),
            9 => applied(&send("PATCH", &upstream, &json!({"wieght": 1})), &[422]),
            10 => {
                let stale = "If-Match: \"0-0\"\r\n";
                let patch = json!({"weight": 1});
                applied(&evener.admin().write("PATCH", &upstream, stale, &patch.to_string()), &[412])
            }
            _ => applied(&send("DELETE", "/v1/overrides", &none), &[]),
        }
    }
}

/// Whether a write was applied; if not, it was refused with one of these.
#[track_caller]
fn applied(answer: &Response, refusals: &[u16]) -> bool {
    let status = answer.status();
    assert!((200..300).contains(&status) || refusals.contains(&status), "{answer}");
    (200..300).contains(&status)
}

/// Everybody ready, and nobody there who is not in the file.
fn settle(evener: &Evener, play: &Play<'_>) {
    evener.rewrite(&play.file(0));
    evener.admin().post("/v1/reload", "").expect_status(200);
    evener.admin().write("DELETE", "/v1/overrides", "", "").expect_status(200);
}

#[derive(Debug, Default)]
struct Tally {
    applied: usize,
    refused: usize,
}

impl Tally {
    fn count(&mut self, applied: bool) {
        if applied { self.applied += 1 } else { self.refused += 1 }
    }
}

/// What a change must not forget, of each server.
struct Memory(Vec<Value>);

impl Memory {
    fn of(evener: &Evener, servers: &[Server]) -> Self {
        Self(servers.iter().map(|server| super::figures::upstream(evener, server)).collect())
    }

    /// What came later, if it goes on from here.
    #[track_caller]
    fn then(self, later: Self) -> Self {
        for (before, after) in self.0.iter().zip(&later.0) {
            let number = |value: &Value, name: &str| value[name].as_u64().unwrap_or_default();
            for counter in ["requests", "errors"] {
                assert!(number(after, counter) >= number(before, counter), "{before}\n{after}");
            }
            assert_eq!(after["health"], "up", "{after}");
            assert!(after["last_check"].is_object(), "{after}");
            assert!(after["latency_ms"]["ewma"].is_number(), "{after}");
            assert!(number(after, "in_flight") <= super::CONNECTIONS, "{after}");
        }
        later
    }
}

/// Pseudo-random numbers, the same again from the same seed (xorshift64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap_or(0) % limit
    }
}

fn open(evener: &Evener) -> WebSocket<TcpStream> {
    let stream = TcpStream::connect(evener.address()).expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a time-out");
    tungstenite::client(format!("ws://{}/socket", evener.address()), stream).expect("the upgrade").0
}

#[track_caller]
fn echoes(socket: &mut WebSocket<TcpStream>, text: &str) {
    socket.send(Message::text(text)).expect("send");
    assert_eq!(socket.read().expect("an echo"), Message::text(text));
}
