//! `evener top` on a real terminal: that of tmux, 80 columns and 24 lines wide.

mod screen;

use std::time::Duration;

use crate::rig::{Evener, Load, Origin, reserve_port, run_to_end, unreachable_address, wait_until};
use screen::Screen;

const PATIENCE: Duration = Duration::from_secs(60);

fn two(first: &Origin, second: &Origin) -> String {
    format!(
        "[pools.app]\nupstreams = [\"{}\", \"{}\"]\nhealth_check = {{ enabled = false }}\n",
        first.address(),
        second.address()
    )
}

fn top(evener: &Evener, more: &[&str]) -> Screen {
    let admin = evener.admin_address().to_string();
    Screen::open(80, 24, &[&["top", "--every", "200ms", "--admin", &admin], more].concat(), &[])
}

#[test]
fn top_shows_figures_as_they_change() {
    let (first, second) = (Origin::answering("a"), Origin::answering("b"));
    let evener = Evener::start(&two(&first, &second));
    let screen = top(&evener, &[]);
    screen.wait_for(&["Evener ", "generation 1", "2 not tested", &format!("app/{}", first.address())]);
    let load = Load::on(evener.address(), 2);
    screen.wait_until("both get requests", |text| {
        let rate_of = |origin: &Origin| {
            let line =
                text.lines().find(|line| line.contains(&format!("app/{} serving", origin.address())))?;
            let figures = line.split_once("serving")?.1;
            figures.split_whitespace().nth(1)?.parse::<f64>().ok()
        };
        [&first, &second].into_iter().all(|origin| rate_of(origin).is_some_and(|rate| rate > 0.0))
    });
    load.stop();
    screen.wait_for(&["0 req/s"]);
}

#[test]
fn a_drain_happens_after_a_yes_and_no_sooner() {
    let (first, second) = (Origin::answering("a"), Origin::answering("b"));
    let evener = Evener::start(&two(&first, &second));
    let state = |origin: &Origin| evener.admin().upstream("app", origin)["state"].as_str().map(str::to_owned);
    let screen = top(&evener, &["--sort", "name"]);
    screen.wait_for(&["2 not tested"]);
    let chosen = chosen(&screen);
    let (mine, other) = if chosen.contains(&first.address()) { (&first, &second) } else { (&second, &first) };
    screen.keys(&["d"]);
    screen.wait_for(&[&format!("Drain app/{}?", mine.address())]);
    screen.keys(&["n"]);
    screen.wait_until("the question is gone", |text| !text.contains("Drain app"));
    assert_eq!(state(mine).as_deref(), Some("ready"), "after a no");
    screen.keys(&["d"]);
    screen.wait_for(&["y yes"]);
    screen.keys(&["y"]);
    wait_until(PATIENCE, || state(mine).as_deref() == Some("drain"));
    assert_eq!(state(other).as_deref(), Some("ready"));
    screen.wait_for(&["1 draining", "gets no new requests"]);
    screen.keys(&["d"]);
    screen.wait_for(&["y yes"]);
    screen.keys(&["Escape"]);
    screen.keys(&["r"]);
    screen.wait_for(&[&format!("Make app/{} ready?", mine.address())]);
    screen.keys(&["y"]);
    wait_until(PATIENCE, || state(mine).as_deref() == Some("ready"));
    screen.wait_for(&["2 not tested"]);
    let history = evener.admin().get("/v1/config/history").body();
    assert!(history.contains("evener top"), "the history says who: {history}");
}

#[test]
fn sick_ones_are_told_with_the_reason_and_found_by_a_filter() {
    let origin = Origin::answering("a");
    let down = unreachable_address();
    let evener = Evener::start(&format!("[pools.app]\nupstreams = [\"{}\", \"{down}\"]\n", origin.address()));
    let screen = top(&evener, &[]);
    screen.wait_for(&["1 down, 1 serving", &format!(">✖ app/{down}"), "down: health check: "]);
    screen.keys(&["/", "s", "e", "r", "v", "i", "n", "g"]);
    screen.wait_until("the sick one is filtered out", |text| !text.contains(&format!("app/{down}")));
    screen.keys(&["Escape"]);
    screen.wait_for(&[&format!("app/{down}"), &format!("app/{}", origin.address())]);
    screen.keys(&["s"]);
    screen.wait_for(&["sort: name"]);
    screen.keys(&["R"]);
    screen.wait_for(&["sort: name reversed"]);
    screen.keys(&["?"]);
    screen.wait_for(&["Keys"]);
    screen.keys(&["q"]);
    screen.wait_until("help is gone", |text| !text.contains("Keys"));
    assert!(is_red(&screen.styled()), "{}", screen.styled());
    let admin = evener.admin_address().to_string();
    let plain = Screen::open(80, 24, &["top", "--admin", &admin], &[("NO_COLOR", "1")]);
    plain.wait_for(&[&format!(">✖ app/{down}")]);
    assert!(!is_red(&plain.styled()), "{}", plain.styled());
}

#[test]
fn the_terminal_is_given_back_on_every_way_out() {
    let (first, second) = (Origin::answering("a"), Origin::answering("b"));
    let evener = Evener::start(&two(&first, &second));
    for (way, code) in [("q", 0), ("C-c", 0), ("Escape", 0), ("TERM", 143), ("HUP", 129), ("INT", 130)] {
        let screen = top(&evener, &[]);
        screen.wait_for(&["2 not tested"]);
        assert_eq!(screen.value("alternate_on"), "1");
        match way {
            "TERM" | "HUP" | "INT" => screen.signal(way),
            key => screen.keys(&[key]),
        }
        screen.wait_for(&["before", &format!("after {code}"), " icanon", " echo "]);
        assert_eq!(
            (screen.value("alternate_on"), screen.value("cursor_flag")),
            ("0".to_owned(), "1".to_owned())
        );
    }
}

#[test]
fn a_lost_server_is_told_and_found_again() {
    let (first, second) = (Origin::answering("a"), Origin::answering("b"));
    let admin = reserve_port();
    let text = format!("{}[admin]\naddress = \"127.0.0.1:{admin}\"\n", two(&first, &second));
    let evener = Evener::start(&text);
    let load = Load::on(evener.address(), 1);
    let screen = top(&evener, &[]);
    screen.wait_for(&["2 serving"]);
    load.stop();
    drop(evener);
    screen.wait_for(&["server lost: ", "connection refused", "trying again"]);
    let evener = Evener::start(&text);
    screen.wait_for(&["2 not tested", "0 req/s"]);
    screen.wait_until("no rate is negative", |text| !text.contains(" -1") && !text.contains("lost"));
    evener.get("/").expect_status(200);
}

#[test]
fn any_size_will_do_and_a_thousand_upstreams_scroll() {
    let upstreams: Vec<String> =
        (0..1000).map(|index| format!("\"127.{}.{}.1:9\"", index / 250 + 1, index % 250)).collect();
    let evener = Evener::start(&format!(
        "[pools.app]\nhealth_check = {{ enabled = false }}\nupstreams = [{}]\n",
        upstreams.join(", ")
    ));
    let screen = top(&evener, &["--sort", "name"]);
    screen.wait_for(&["1000 not tested", ">  app/127.1.0.1:9 ", "of 1000"]);
    screen.keys(&["G"]);
    screen.wait_for(&[">  app/127.4.249.1:9 ", "-1000 of 1000"]);
    screen.keys(&["PPage", "k"]);
    screen.wait_until("another one is chosen", |text| !text.contains(">  app/127.4.249.1:9 "));
    for (columns, lines) in [(40, 10), (10, 3), (200, 50), (20, 5), (80, 24)] {
        screen.resize(columns, lines);
        screen.wait_until("the size is noticed", |text| {
            let first = text.lines().next().unwrap_or_default();
            first.starts_with("Evener") && (columns < 80 || text.contains("q quit"))
        });
    }
    // A key that comes with a new size is not lost.
    for (key, lines, chosen) in [("g", 25, "127.1.0.1"), ("G", 26, "127.4.249.1"), ("g", 24, "127.1.0.1")] {
        screen.resize(80, lines);
        screen.wait_until("the size is noticed", |text| text.lines().count() == usize::from(lines));
        screen.keys(&[key]);
        screen.wait_for(&[&format!(">  app/{chosen}:9 ")]);
    }
}

#[test]
fn a_token_that_may_only_look_is_told_so_and_nothing_happens() {
    let (first, second) = (Origin::answering("a"), Origin::answering("b"));
    let tokens = "[admin.tokens.looker]\nscope = \"read\"\nenv = \"LOOKER\"\n";
    let token = "looker-0123456789abcdef0123456789abcdef";
    let evener = Evener::start_guarded(&(two(&first, &second) + tokens), &[("LOOKER", token)], token);
    let admin = evener.admin_address().to_string();
    let screen = Screen::open(80, 24, &["top", "--admin", &admin], &[("EVENER_ADMIN_TOKEN", token)]);
    screen.wait_for(&["2 not tested"]);
    screen.keys(&["d"]);
    screen.wait_for(&["y yes"]);
    screen.keys(&["y"]);
    screen.wait_for(&["It was not done", "any key goes on"]);
    screen.keys(&["x"]);
    screen.wait_until("the figures are back", |text| !text.contains("It was not done"));
    screen.wait_for(&["2 not tested"]);
    let refused = Screen::open(80, 24, &["top", "--admin", &admin], &[]);
    refused.wait_for(&["after 1", "EVENER_ADMIN_TOKEN"]);
}

#[test]
fn without_a_terminal_there_is_one_table() {
    let down = unreachable_address();
    let evener = Evener::start(&format!("[pools.app]\nupstreams = [\"{down}\"]\n"));
    let admin = evener.admin_address().to_string();
    let refused = run_to_end(&["top", "--admin", &admin], &[]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("evener top --once"), "{refused:?}");
    let once = run_to_end(&["top", "--once", "--every", "200ms", "--admin", &admin], &[]);
    assert_eq!(once.code, Some(0), "{once:?}");
    let words: Vec<&str> = once.stdout.lines().nth(1).unwrap_or_default().split_whitespace().collect();
    assert_eq!(words[..5], ["app", &down.to_string(), "down", "ready", "down"], "{}", once.stdout);
    let nobody = run_to_end(&["top", "--once", "--admin", &unreachable_address().to_string()], &[]);
    assert_eq!(nobody.code, Some(4), "{nobody:?}");
}

#[test]
fn completions_and_manual_know_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let told = run_to_end(&["completions", shell], &[]);
        assert_eq!(told.code, Some(0), "{told:?}");
        assert!(told.stdout.contains("drain") && told.stdout.contains("max-error-ratio"), "{shell}");
    }
    assert_eq!(run_to_end(&["completions", "cmd"], &[]).code, Some(2));
    let whole = run_to_end(&["man"], &[]).stdout;
    assert!(
        whole.contains(".TH evener 1") && whole.contains("drain") && !whole.contains("bench\\-bare"),
        "{whole}"
    );
    let drain = run_to_end(&["man", "drain"], &[]).stdout;
    assert!(drain.contains("safe to stop") && drain.contains("\\-\\-wait"), "{drain}");
    assert_eq!(run_to_end(&["man", "drian"], &[]).code, Some(2));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let pages = folder.path().join("man1");
    let written = run_to_end(&["man", "--into", pages.to_str().expect("a path")], &[]);
    assert_eq!(written.code, Some(0), "{written:?}");
    assert!(pages.join("evener.1").is_file() && pages.join("evener-top.1").is_file());
}

/// However the terminal spells it.
fn is_red(styled: &str) -> bool {
    ["[31m", ";31m", "38;5;1m"].iter().any(|red| styled.contains(red))
}

/// The line of the chosen upstream.
fn chosen(screen: &Screen) -> String {
    screen.text().lines().find(|line| line.starts_with('>')).expect("a chosen line").to_owned()
}
