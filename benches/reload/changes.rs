//! The time of a change, from what was said to the published snapshot, on one thread.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evener::config::{self, Config, PoolEdit, Source, UpstreamAddress};
use evener::control::{Author, Change, Control, Start};
use evener::runtime::{Runtime, Snapshot};

use crate::text::Large;

type Failure = Box<dyn std::error::Error>;

/// A reload of the whole text should take no longer.
const GOAL_OF_RELOAD: Duration = Duration::from_millis(50);

/// Runs of which the best counts (others met a busy machine), and the median is shown.
const RUNS: usize = 15;
const RUNS_IF_QUICK: usize = 3;

/// 1 000 pools of 10, and one pool of as many upstreams.
const SHAPES: [Large; 2] = [Large::new(1_000, 10), Large::new(1, 10_000)];

pub(crate) fn measure(is_quick: bool) -> Result<(), Failure> {
    let runs = if is_quick { RUNS_IF_QUICK } else { RUNS };
    println!("{:44}{:>12}{:>12}", "one change, one thread", "best", "median");
    for shape in SHAPES {
        println!("{} pools x {} upstreams", shape.pools, shape.upstreams_each);
        steps_of_a_reload(shape, runs)?;
        whole_reloads(shape, runs)?;
        edits(shape, runs)?;
    }
    println!();
    Ok(())
}

fn steps_of_a_reload(shape: Large, runs: usize) -> Result<(), Failure> {
    let (text, other) = (text_of(shape), text_of(Large { weight: 11, ..shape }));
    report("  read TOML alone", runs, || {
        let (root, errors) = toml::de::DeTable::parse_recoverable(&text);
        assert!(errors.is_empty() && !root.get_ref().is_empty());
    });
    report("  read and check", runs, || drop(parse(&text)));
    let (config, other) = (parse(&text)?, parse(&other)?);
    report("  build the first snapshot", runs, || drop(build(&config, None)));
    let first = build(&config, None);
    report("  build, every pool changed", runs, || drop(build(&other, Some(&first))));
    report("  build, nothing changed", runs, || drop(build(&config, Some(&first))));
    Ok(())
}

fn whole_reloads(shape: Large, runs: usize) -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("evener.toml");
    let one = Large { first_weight: 11, ..shape };
    let all = Large { weight: 11, ..shape };
    let elsewhere = Large { moved: Some(1), ..shape };
    for (name, other) in [
        ("  reload, one upstream changed", one),
        ("  reload, every weight changed", all),
        ("  reload, every address changed", elsewhere),
    ] {
        let control = with_file(&file, &text_of(shape))?;
        let mut texts = [text_of(other), text_of(shape)].into_iter().cycle();
        let best = report_after(
            name,
            runs,
            || {
                control.runtime().free_retired();
                std::fs::write(&file, texts.next().unwrap_or_default())
            },
            || applied(&control, &Change::Reload),
        )?;
        let verdict = if best <= GOAL_OF_RELOAD { "reached" } else { "missed" };
        println!("{:44}goal: at most {GOAL_OF_RELOAD:?}, {verdict}", "");
    }
    Ok(())
}

fn edits(shape: Large, runs: usize) -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("evener.toml");
    let in_memory = Start::from_arguments(parse(&text_of(shape))?);
    for (name, control) in [
        ("  edit of one upstream, in memory", running(in_memory)),
        ("  edit of one upstream, written and flushed", with_file(&file, &text_of(shape))?),
    ] {
        let address: SocketAddr = shape.address(0).parse()?;
        let mut weight = 100;
        let edit = || {
            weight += 1;
            let edits = vec![PoolEdit::Weight(UpstreamAddress::Tcp(address), weight)];
            applied(&control, &Change::Edit { pool: "p0".to_owned(), edits });
        };
        report(name, runs * 10, edit);
    }
    Ok(())
}

fn text_of(shape: Large) -> String {
    shape.with_listeners(SocketAddr::from(([127, 0, 0, 1], 8080)), SocketAddr::from(([127, 0, 0, 1], 9900)))
}

fn parse(text: &str) -> Result<Config, Failure> {
    let source = Source { name: "evener.toml".to_owned(), text: text.to_owned(), folder: ".".into() };
    let (config, _) = config::parse_with_warnings(&source, &|_| None)?;
    Ok(config)
}

fn build(config: &Config, previous: Option<&Snapshot>) -> Snapshot {
    Snapshot::build(config.clone(), 2, previous, Duration::from_secs(1), 7)
}

fn with_file(file: &Path, text: &str) -> Result<Control, Failure> {
    std::fs::write(file, text)?;
    let loaded = config::load(file)?;
    Ok(running(Start::from_file(file.to_owned(), loaded)?))
}

fn running(start: Start) -> Control {
    let runtime = Runtime::new(start.config.clone(), start.generation, 7, None);
    Control::new(Arc::new(runtime), start)
}

fn applied(control: &Control, change: &Change) {
    let applied = control.apply(change, None, &Author::file("bench"));
    assert!(applied.as_ref().is_ok_and(|applied| applied.changed), "refused: {applied:?}");
}

fn report(name: &str, runs: usize, mut work: impl FnMut()) {
    // The preparation cannot fail.
    let _ = report_after(name, runs, || Ok(()), &mut work);
}

/// Prints, and answers with the best time of `work` alone.
fn report_after(
    name: &str,
    runs: usize,
    mut prepare: impl FnMut() -> std::io::Result<()>,
    mut work: impl FnMut(),
) -> Result<Duration, Failure> {
    let mut times = Vec::new();
    for _ in 0..runs {
        prepare()?;
        let began = Instant::now();
        work();
        times.push(began.elapsed());
    }
    times.sort_unstable();
    let (best, median) = (times[0], times[times.len() / 2]);
    println!("{name:44}{:>12}{:>12}", shown(best), shown(median));
    Ok(best)
}

fn shown(time: Duration) -> String {
    let micros = time.as_secs_f64() * 1e6;
    if micros < 1_000.0 { format!("{micros:.1} us") } else { format!("{:.2} ms", micros / 1_000.0) }
}
