//! What a run is doing, on standard error: bars where somebody sees them, else a line for each turn.

use std::io::{self, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};

use super::name::Candidate;

/// How far a run has come. Dropped before [`Progress::done`], it takes its bars with it.
pub struct Progress {
    bars: MultiProgress,
    all: ProgressBar,
    /// The turn under way.
    turn: Mutex<Option<ProgressBar>>,
}

/// Redrawn that often while a turn runs: seldom enough to cost the bench nothing.
const TICK: Duration = Duration::from_millis(250);

impl Progress {
    /// Of a run that consists of so many turns.
    pub fn new(turns: usize) -> Self {
        let bars = MultiProgress::new();
        let all = bars.add(ProgressBar::new(turns as u64).with_style(style_of_all()));
        Self { bars, all, turn: Mutex::new(None) }
    }

    /// A candidate's turn of `time` begins; rounds count from 1.
    pub fn turn_began(
        &self,
        scenario: &str,
        candidate: Candidate,
        round: usize,
        rounds: usize,
        time: Duration,
    ) {
        let words = format!("{scenario} · {candidate} · round {round} of {rounds}");
        let bar = ProgressBar::new(time.as_secs()).with_style(style_of_turn()).with_message(words);
        let bar = self.bars.add(bar);
        bar.tick();
        if !self.bars.is_hidden() {
            bar.enable_steady_tick(TICK);
        }
        self.replace_turn(Some(bar));
    }

    /// It is over; `line` says how it went, and stays.
    pub fn turn_ended(&self, line: &str) {
        self.replace_turn(None);
        self.all.inc(1);
        if self.bars.is_hidden() {
            // If that fails there is nobody left to tell.
            let _ = writeln!(io::stderr().lock(), "{line}");
        } else {
            let _ = self.bars.println(line);
        }
    }

    /// Does what writes to the terminal, while no bar is in the way.
    pub fn suspend<T>(&self, write: impl FnOnce() -> T) -> T {
        self.bars.suspend(write)
    }

    /// Nothing is left to do, and no bar to see.
    pub fn done(&self) {
        self.replace_turn(None);
        self.all.finish_and_clear();
    }

    fn replace_turn(&self, by: Option<ProgressBar>) {
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(over) = std::mem::replace(&mut *turn, by) {
            over.finish_and_clear();
            self.bars.remove(&over);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.done();
    }
}

const TEMPLATE_OF_ALL: &str = "[{bar:30}] {pos} of {len} turns, {eta} left";
const TEMPLATE_OF_TURN: &str = "{msg} · {seconds}";

fn style_of_all() -> ProgressStyle {
    style(TEMPLATE_OF_ALL).progress_chars("#> ")
}

fn style_of_turn() -> ProgressStyle {
    style(TEMPLATE_OF_TURN).with_key("seconds", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        let (passed, all) = (state.elapsed().as_secs(), state.len().unwrap_or(0));
        let _ = write!(out, "{} of {all} s", passed.min(all));
    })
}

/// The default where a template is wrong; a test sees to it that none is.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use indicatif::{ProgressDrawTarget, TermLike};

    use super::*;

    /// A terminal that keeps all that was ever written.
    #[derive(Clone, Debug, Default)]
    struct Paper(Arc<Mutex<String>>);

    impl Paper {
        fn text(&self) -> String {
            self.0.lock().unwrap().clone()
        }
    }

    impl TermLike for Paper {
        fn width(&self) -> u16 {
            100
        }
        fn height(&self) -> u16 {
            24
        }
        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn write_line(&self, line: &str) -> io::Result<()> {
            self.write_str(line)
        }
        fn write_str(&self, text: &str) -> io::Result<()> {
            self.0.lock().unwrap().push_str(text);
            Ok(())
        }
        fn clear_line(&self) -> io::Result<()> {
            Ok(())
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn bars_show_which_turn_runs_and_how_many_are_done() {
        let paper = Paper::default();
        let progress = Progress::new(6);
        progress.bars.set_draw_target(ProgressDrawTarget::term_like(Box::new(paper.clone())));
        progress.turn_began("one_slow", Candidate::Perfect, 1, 3, Duration::from_secs(20));
        progress.all.force_draw();
        progress.turn_ended("one_slow perfect 1: p99 29 ms");
        progress.all.force_draw();
        progress.done();
        let text = paper.text();
        for words in [
            "one_slow · perfect · round 1 of 3 · 0 of 20 s",
            "] 0 of 6 turns",
            "one_slow perfect 1: p99 29 ms",
            "] 1 of 6 turns",
        ] {
            assert!(text.contains(words), "{words} in {text}");
        }
    }

    #[test]
    fn a_template_without_a_mistake() {
        for style in [TEMPLATE_OF_ALL, TEMPLATE_OF_TURN] {
            assert!(ProgressStyle::with_template(style).is_ok(), "{style}");
        }
    }

    #[test]
    fn turns_may_overlap_and_end_twice() {
        let progress = Progress::new(0);
        progress.done();
        progress.turn_began("equal", Candidate::Nginx, 1, 1, Duration::ZERO);
        progress.turn_began("equal", Candidate::Caddy, 1, 1, Duration::ZERO);
        progress.done();
        progress.done();
    }
}
