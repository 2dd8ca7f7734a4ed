//! `evener top` on a real terminal: that of tmux, 80 columns and 24 lines wide.

mod screen;

use std::time::Duration;

use crate::rig::{Evener, Load, Origin, wait_until};
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
    screen.wait_for(&["Evener ", "generation 1", "2 serving", &format!("app/{}", first.address())]);
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
    screen.wait_for(&["2 serving"]);
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
    screen.wait_for(&["2 serving"]);
    let history = evener.admin().get("/v1/config/history").body();
    assert!(history.contains("evener top"), "the history says who: {history}");
}

/// The line of the chosen upstream.
fn chosen(screen: &Screen) -> String {
    screen.text().lines().find(|line| line.starts_with('>')).expect("a chosen line").to_owned()
}
