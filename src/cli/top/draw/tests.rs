use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::KeyCode;
use serde_json::{Value, json};

use super::super::board::Sort;
use super::super::picture::Meter;
use super::super::testing::{pool, sample, sick, status, upstream};
use super::*;

const LOOK: Look = Look { is_coloured: false, is_unicode: true };

fn scene(seconds: u64) -> Scene<'static> {
    let (every, now) = (Duration::from_secs(1), Duration::from_secs(seconds));
    Scene { look: LOOK, server: "http://127.0.0.1:9900", every, now }
}

fn upstreams(requests: u64) -> Vec<Value> {
    let check = json!({"at": "2026-01-02T03:04:05.678Z", "ok": false, "latency_ms": 0.2, "error": "connect: refused"});
    let alarm = json!({"kind": "stale_estimate", "since": "2026-01-02T03:04:05.678Z", "detail": "it is old"});
    let down = "its health checks fail; it takes traffic when enough of them in a row pass";
    vec![
        upstream("10.0.0.1:80", requests, &json!({"max_connections": 10, "source": "override"})),
        upstream(
            "10.0.0.2:80",
            requests * 3,
            &json!({"weight": 3, "errors": requests / 50, "alarms": [alarm]}),
        ),
        upstream(
            "10.0.0.3:80",
            0,
            &json!({"health": "down", "why_not": "down", "why_not_detail": down, "last_check": check}),
        ),
        sick(
            "[2001:db8::1234:5678:9abc]:8080",
            7,
            "draining",
            "it is being drained; `evener ready` gives it traffic again",
        ),
    ]
}

fn board() -> Board {
    let mut board = Board::new(Sort::Trouble, false, String::new());
    let mut meter = Meter::default();
    let mut look = |seconds, requests: u64, more: &Value| {
        let pools = [
            pool("app", &upstreams(requests)),
            pool("api", &[upstream("unix:/run/app.sock", 0, &json!({}))]),
        ];
        meter.read(sample(seconds, status(requests * 4, requests / 50, more), &pools))
    };
    board.show(look(10, 0, &json!({})));
    let more = json!({"status": "degraded", "overrides": 1});
    board.show(look(12, 200, &more));
    board
}

fn drawn(board: &mut Board, scene: &Scene<'_>, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, board, scene)).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y| {
        let cells: String = (0..width).map(|x| buffer[(x, y)].symbol()).collect();
        format!("|{}\n", cells.trim_end())
    };
    (0..height).map(line).collect()
}

fn press(board: &mut Board, keys: &str) {
    keys.chars().for_each(|key| drop(board.press(KeyCode::Char(key).into())));
}

#[test]
fn all_of_it_fits_on_a_small_terminal() {
    insta::assert_snapshot!(drawn(&mut board(), &scene(12), 80, 24), @r"
    |Evener 0.1.0 ▲ degraded  up 2h 3m  generation 7  http://127.0.0.1:9900  every 1s
    |400 req/s  2.0 err/s  p50 1.25 ms  p99 34 ms since the start  5 in flight  7 con
    |✖ 1 down, 1 alarm, 1 draining, 2 serving  alarm: stale estimate app/10.0.0.2:80
    |   POOL               STRATEGY             ELIGIBLE FLIGHT WAITING  REQ/S  ERR/S
    | ▲ app                round_robin            2 of 4      5       0    400    2.0
    |   api                round_robin            1 of 1      5       0      0      0
    |   UPSTREAM               STATUS▼      FLIGHT  REQ/S  ERR/S  LATENCY  SHARE/FAIR
    |>✖ app/10.0.0.3:80        down              2      0      0     2 ms       0%/0%
    | ▲ app/10.0.0.2:80        alarm             2    300    2.0     2 ms     75%/75%
    | ‖ app/[2001:d…9abc]:8080 draining          2      0      0     2 ms       0%/0%
    |   app/10.0.0.1:80        serving           2    100      0     2 ms     25%/25%
    |   api/unix:/run/app.sock serving           2      0      0     2 ms      -/100%
    |
    |
    |
    |
    |
    |
    |
    |app/10.0.0.3:80: state ready, health down, weight 1, 2 in flight
    |✖ down: health check: connect: refused; its health checks fail; it takes traffic
    |when enough of them in a row pass
    |share 0%, fair 0%; since the start p50 1.5 ms, p99 9 ms; check 03:04:05Z
    |q quit  ? help  / filter  s sort: trouble  d drain  r ready  1-5 of 5
    ");
}

#[test]
fn a_wide_terminal_shows_the_reasons() {
    insta::assert_snapshot!(drawn(&mut board(), &scene(12), 170, 18), @r"
    |Evener 0.1.0 ▲ degraded  up 2h 3m  generation 7  http://127.0.0.1:9900  every 1s
    |400 req/s  2.0 err/s  p50 1.25 ms  p99 34 ms since the start  5 in flight  7 connections
    |✖ 1 down, 1 alarm, 1 draining, 2 serving  alarm: stale estimate app/10.0.0.2:80  1 override
    |   POOL                             STRATEGY             ELIGIBLE FLIGHT WAITING  REQ/S  ERR/S
    | ▲ app                              round_robin            2 of 4      5       0    400    2.0
    |   api                              round_robin            1 of 1      5       0      0      0
    |   UPSTREAM                            STATUS▼     STATE       HEALTH   FLIGHT  REQ/S  ERR/S  LATENCY      P99  SHARE/FAIR  WEIGHT WHY
    |>✖ app/10.0.0.3:80                     down        ready       down          2      0      0     2 ms     9 ms       0%/0%       1 health check: connect: refused; its he…
    | ▲ app/10.0.0.2:80                     alarm       ready       up            2    300    2.0     2 ms     9 ms     75%/75%       3 stale estimate: it is old
    | ‖ app/[2001:db8::1234:5678:9abc]:8080 draining    ready       up            2      0      0     2 ms     9 ms       0%/0%       1 2 requests in flight; it is being drai…
    |   app/10.0.0.1:80                     serving     ready       up            2    100      0     2 ms     9 ms     25%/25%       1
    |   api/unix:/run/app.sock              serving     ready       up            2      0      0     2 ms     9 ms      -/100%       1
    |
    |app/10.0.0.3:80: state ready, health down, weight 1, 2 in flight
    |✖ down: health check: connect: refused; its health checks fail; it takes traffic when enough of them in a row pass
    |share 0%, fair 0%; since the start p50 1.5 ms, p99 9 ms; check 03:04:05Z connect: refused
    |
    |q quit  ? help  / filter  s sort: trouble  d drain  r ready  1-5 of 5
    ");
}

#[test]
fn a_question_names_whom_it_is_about() {
    let mut board = board();
    press(&mut board, "Gd");
    insta::assert_snapshot!(drawn(&mut board, &scene(12), 60, 14), @r"
    |Evener 0.1.0 ▲ degraded  up 2h 3m  generation 7  http://127.
    |400 req/s  2.0 err/s  p50 1.25 ms  p99 34 ms since the start
    |┌ Sure? ───────────────────────────────────────────────────┐
    |│Drain api/unix:/run/app.sock?                             │
    |│                                                          │
    |│It gets no new requests.                                  │
    |│2 requests in flight may finish.                          │
    |│It is the last of api that gets any: they will be refused.│
    |│                                                          │
    |│y yes   n no                                              │
    |└──────────────────────────────────────────────────────────┘
    |>  api/unix:/run/app.sock  serving           2      0      0
    |
    |q quit  ? help  / filter  s sort: trouble  d drain  r ready
    ");
}

#[test]
fn a_lost_server_is_told_with_the_age_of_what_is_shown() {
    let mut board = board();
    board.link = Link::Lost("cannot reach the admin API: connection refused".to_owned());
    let text = drawn(&mut board, &scene(75), 100, 24);
    assert!(text.contains("✖ server lost: cannot reach the admin API: connection refused; trying again (figures are 1m 3s old)"), "{text}");
    board.link = Link::Fine;
    assert!(!drawn(&mut board, &scene(16), 80, 24).contains("lost"), "an answer may take its time");
    assert!(drawn(&mut board, &scene(17), 80, 24).contains("server lost: no answer"));
}

#[test]
fn the_sick_stand_out_without_colour_and_without_unicode() {
    let mut board = board();
    let plain = Scene { look: Look { is_coloured: false, is_unicode: false }, ..scene(12) };
    let text = drawn(&mut board, &plain, 80, 24);
    assert!(text.is_ascii(), "{text}");
    assert!(text.contains(">X app/10.0.0.3:80"), "{text}");
    assert!(text.contains(" = app/"), "{text}");
    assert!(text.contains("STATUSv"), "{text}");
    press(&mut board, "?");
    assert!(drawn(&mut board, &plain, 80, 24).is_ascii());
}

#[test]
fn colours_are_for_those_who_want_them() {
    let colours = |look| {
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        terminal.draw(|frame| draw(frame, &mut board(), &Scene { look, ..scene(12) })).unwrap();
        let cells = terminal.backend().buffer().content().iter();
        cells.filter(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset).count()
    };
    assert_eq!(colours(LOOK), 0);
    assert!(colours(Look { is_coloured: true, ..LOOK }) > 0);
}

#[test]
fn no_size_is_too_small() {
    let sizes = || {
        [0, 1, 2, 5, 9, 20, 40, 79, 90]
            .into_iter()
            .flat_map(|width| (0..=26).map(move |height| (width, height)))
    };
    for keys in ["", "?", "/x", "d"] {
        let mut board = board();
        press(&mut board, keys);
        sizes().for_each(|(width, height)| drop(drawn(&mut board, &scene(12), width, height)));
    }
    let mut board = Board::new(Sort::Rate, true, String::new());
    sizes().for_each(|(width, height)| drop(drawn(&mut board, &scene(1), width, height)));
}

#[test]
fn what_is_too_long_is_cut_where_it_says_least() {
    assert_eq!(fitted("abcdef", 4, LOOK), "abc…");
    assert_eq!(fitted("ab", 4, LOOK), "ab  ");
    assert_eq!(fitted("äö漢字", 4, LOOK), "äö… ", "as wide as on the screen");
    assert_eq!(["", "a"].map(|text| fitted(text, 0, LOOK)), ["", ""]);
    assert_eq!(columns::middle_out("app/a-long-name.internal:8080", 16, LOOK), "app/a-lo…al:8080");
    let rates = [None, Some(0.0), Some(0.25), Some(9.96), Some(1234.4), Some(12_345.0), Some(2_500_000.0)];
    assert_eq!(rates.map(per_second), ["-", "0", "0.2", "10", "1234", "12.3k", "2.5M"]);
}

#[test]
fn many_pools_leave_room_and_the_sick_ones_are_in_sight() {
    let well = |index: usize| pool(&format!("pool-{index}"), &[upstream("a:1", 0, &json!({}))]);
    let mut pools: Vec<Value> = (0..30).map(well).collect();
    pools.push(pool("sick", &[sick("a:1", 0, "down", "")]));
    let mut board = Board::new(Sort::Trouble, false, String::new());
    board.show(Meter::default().read(sample(1, status(0, 0, &json!({})), &pools)));
    let text = drawn(&mut board, &scene(1), 80, 24);
    assert!(text.contains("✖ sick ") && text.contains("… and 27 more pools"), "{text}");
    assert!(text.contains("1-9 of 31"), "{text}");
}
