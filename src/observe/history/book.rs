//! Every line, and who is next to be forgotten.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use super::line::{COARSE, COARSE_OF_TOTAL, COARSE_S, FINE, FINE_S, Level, Line, Open, Track};
use super::mark::{Counting, Growth, Mark, Packed, Reading};
use super::point::{Happened, Point, Sum};
use super::quantiles::{Quantiles, mixed};
use super::{HistogramSnapshot, Step, Subject, Window};

/// See [`History`](super::History).
#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) lines: BTreeMap<Subject, Line>,
    marks: HashMap<Counting, Mark>,
    /// Times in which somebody took things down: seconds since 1970, from and to, ascending and apart.
    pub(super) runs: VecDeque<(u64, u64)>,
    /// The latest round: its number, the wall clock, and the one that does not jump.
    rounds: u64,
    last: Option<(Duration, Duration)>,
    /// End of the step that it was about, in seconds since 1970.
    until_s: u64,
    /// The latest jump forward: where it led to, and how far it was, in seconds.
    leap: Option<(u64, i64)>,
}

/// A difference between two clocks that is no jump yet. Less than that is a correction of a clock that is right
/// in the main.
const JUMP_S: i64 = COARSE_S.cast_signed();

/// Times that a process began are remembered for as long as anything else, but no more of them than this: a
/// process that is started anew every minute fills that in seventeen hours, at 16 bytes each.
const RUNS_MAX: usize = 1_024;

/// What is given up at a time, so that not every round has to look for more: a sixteenth.
const GIVE_UP_PART: usize = 16;

impl Book {
    /// A round at `wall` since 1970. Its number, and the step that it is about: the one in the middle between
    /// this round and the last.
    pub(super) fn begin(&mut self, wall: Duration, now: Duration) -> (u64, u64) {
        let from = match self.last {
            None => wall,
            Some((last_wall, last_now)) => {
                let passed = now.saturating_sub(last_now);
                self.follow(last_wall + passed, wall, passed);
                wall.saturating_sub(passed)
            }
        };
        self.last = Some((wall, now));
        self.rounds += 1;
        self.note_run(from.as_secs(), wall.as_secs());
        let step = ((from + wall) / 2).as_secs() / FINE_S;
        self.until_s = (step + 1) * FINE_S;
        (self.rounds, step)
    }

    /// What the wall clock should say, and what it says; so long after the last round.
    fn follow(&mut self, expected: Duration, wall: Duration, passed: Duration) {
        let jump = wall.as_secs().cast_signed() - expected.as_secs().cast_signed();
        let from = expected.as_secs();
        if jump >= COARSE.kept_s.cast_signed() {
            self.move_points(0, jump);
        } else if jump >= JUMP_S {
            // What happened since the last round is taken down as what came after the leap.
            self.leap = Some((wall.saturating_sub(passed).as_secs(), jump));
        } else if jump <= -JUMP_S {
            let leap = self.leap.take().filter(|(to, by)| *to <= from && (by + jump).abs() < JUMP_S);
            self.move_points(leap.map_or(0, |(to, _)| to), jump);
        }
    }

    /// Lets everything from a time on be so much later, or earlier: in whole long steps, rounded so that the past
    /// stays before the present.
    pub(super) fn move_points(&mut self, from_s: u64, by_s: i64) {
        let by_s = by_s.div_euclid(JUMP_S) * JUMP_S;
        let moved = |at_s: u64| if at_s >= from_s { at_s.saturating_add_signed(by_s) } else { at_s };
        for line in self.lines.values_mut() {
            line.open = None;
            for (track, level) in [(&mut line.fine, FINE), (&mut line.coarse, COARSE)] {
                let before = std::mem::take(track);
                track.given_up_before = moved(before.given_up_before);
                for (step, point) in before.points() {
                    let step = moved(step * level.step_s) / level.step_s;
                    if let Some(place) = track.point(level, step) {
                        place.and(point);
                    }
                }
            }
        }
        for (from, to) in &mut self.runs {
            (*from, *to) = (moved(*from), moved(*to));
        }
        self.runs.make_contiguous().sort_unstable();
    }

    fn note_run(&mut self, from: u64, to: u64) {
        match self.runs.back_mut() {
            // Times are in whole seconds, and a clock may have been put back a little.
            Some((began, ended)) if from <= *ended + 1 && to >= *began => *ended = (*ended).max(to),
            _ => self.runs.push_back((from, to)),
        }
        let is_old = |run: &(u64, u64)| run.1 + COARSE_OF_TOTAL.kept_s < to;
        while self.runs.len() > RUNS_MAX || self.runs.front().is_some_and(is_old) {
            self.runs.pop_front();
        }
    }

    pub(super) fn grown(
        &mut self,
        who: Counting,
        round: u64,
        reading: Reading,
        times: impl FnOnce() -> Option<HistogramSnapshot>,
    ) -> Growth {
        let mark = self.marks.entry(who).or_default();
        mark.round = round;
        if mark.reading == reading {
            return Growth::default();
        }
        let times = times();
        let packed = times.as_ref().map(Packed::of);
        let growth = mark.growth(reading, times);
        mark.reading = reading;
        mark.times = packed.unwrap_or_default();
        growth
    }

    pub(super) fn take_down(&mut self, subject: Subject, step: u64, growth: &Growth, in_flight_max: u32) {
        let line = self.lines.entry(subject).or_default();
        let grown = Point::of(growth, in_flight_max);
        if let Some(point) = line.fine.point(FINE, step) {
            point.and(&grown);
        }
        let step = step * FINE_S / COARSE_S;
        let Some(point) = line.coarse.point(COARSE, step) else { return };
        let Some(times) = &growth.times else { return point.and(&grown) };
        // All that is known of the times of this step, and not only their quantiles.
        let (before, times) = match line.open.take().filter(|open| open.step == step) {
            None => (*point, times.clone()),
            Some(open) => (open.before, open.times.unpacked().and(times)),
        };
        let counts = [(before.quantiles, before.timed.into()), (Quantiles::of(&times), times.count)];
        point.count(&grown);
        point.quantiles = mixed(&counts);
        line.open = Some(Box::new(Open { step, before, times: Packed::of(&times) }));
    }

    /// Forgets what is too old, what counts no more, and what there is no room for.
    pub(super) fn end(&mut self, round: u64, bytes_max: usize) {
        self.marks.retain(|_, mark| mark.round == round);
        let now_s = self.last.map_or_else(|| self.taken_down_until(), |(wall, _)| wall.as_secs());
        self.lines.retain(|subject, line| line.forget(now_s, coarse_of(subject)));
        let bytes = self.bytes();
        if bytes > bytes_max {
            self.make_room(now_s, bytes, bytes_max - bytes_max / GIVE_UP_PART);
        }
    }

    /// Those with fewest requests give up a block each, their oldest, and so on until it is enough.
    fn make_room(&mut self, now_s: u64, mut bytes: usize, enough: usize) {
        let mut lines: Vec<_> = self.lines.iter_mut().collect();
        lines.sort_by_cached_key(|(subject, line)| (importance(subject), line.used()));
        for important in 0..=IMPORTANCE_MAX {
            let mut gave = true;
            while gave && bytes > enough {
                gave = false;
                for (_, line) in lines.iter_mut().filter(|(subject, _)| importance(subject) == important) {
                    if bytes <= enough {
                        break;
                    }
                    let freed = line.give_up_oldest(now_s);
                    gave |= freed > 0;
                    bytes = bytes.saturating_sub(freed);
                }
            }
        }
        if bytes > enough {
            self.give_up_lines(bytes, enough);
        }
    }

    /// There is no room even for the present: whole upstreams go, those with fewest requests first.
    fn give_up_lines(&mut self, mut bytes: usize, enough: usize) {
        let used = self.lines.iter().filter(|(subject, _)| **subject != Subject::Total);
        let mut used: Vec<_> = used
            .map(|(subject, line)| (importance(subject), line.used(), line.bytes(), subject.clone()))
            .collect();
        used.sort_unstable();
        for (_, _, line, subject) in used {
            if bytes <= enough {
                return;
            }
            self.lines.remove(&subject);
            bytes = bytes.saturating_sub(line);
        }
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        let marks: usize = self.marks.values().map(|mark| MARK_BYTES + mark.times.bytes()).sum();
        self.lines.values().map(Line::bytes).sum::<usize>() + marks
    }

    pub(super) fn taken_down_until(&self) -> u64 {
        if self.last.is_some() { self.until_s } else { self.runs.back().map_or(0, |run| run.1 + 1) }
    }

    pub(super) fn series(&self, subject: &Subject, window: &Window) -> Vec<Step> {
        let line = self.lines.get(subject);
        let mut sums = vec![Sum::default(); window.steps];
        for (at_s, point) in points(line, window) {
            let index = (at_s - window.from_s) / window.step_s;
            if let Some(sum) = usize::try_from(index).ok().and_then(|index| sums.get_mut(index)) {
                sum.add(point);
            }
        }
        let given_up_before = line.map_or(0, |line| track(line, window).0.given_up_before);
        let kept_from_s = self.kept_from_s(subject, window);
        (window.from_s..)
            .step_by(usize::try_from(window.step_s).unwrap_or(usize::MAX))
            .zip(sums)
            .map(|(from_s, sum)| {
                let to_s = from_s + window.step_s;
                let recorded_s = self.recorded_between(from_s.max(kept_from_s), to_s);
                let is_known = from_s >= given_up_before && recorded_s > 0;
                Step { from_s, recorded_s, happened: is_known.then(|| sum.happened()) }
            })
            .collect()
    }

    pub(super) fn total(&self, subject: &Subject, window: &Window) -> Happened {
        sum(self.lines.get(subject), window).happened()
    }

    pub(super) fn recorded_s(&self, subject: &Subject, window: &Window) -> u64 {
        self.recorded_between(window.from_s.max(self.kept_from_s(subject, window)), window.to_s())
    }

    /// From where on points are kept, in seconds since 1970: a window may begin before.
    fn kept_from_s(&self, subject: &Subject, window: &Window) -> u64 {
        let level = if window.is_fine() { FINE } else { coarse_of(subject) };
        level.kept_from_s(self.last.map_or(0, |(wall, _)| wall.as_secs()))
    }

    fn recorded_between(&self, from_s: u64, to_s: u64) -> u64 {
        let after = self.runs.partition_point(|run| run.1 <= from_s);
        let runs = self.runs.range(after..).take_while(|run| run.0 < to_s);
        runs.map(|run| run.1.min(to_s).saturating_sub(run.0.max(from_s))).sum()
    }

    pub(super) fn busiest(
        &self,
        window: &Window,
        most: usize,
        is_wanted: impl Fn(&Subject) -> bool,
    ) -> Vec<(Subject, Happened)> {
        let requests = |line| points(Some(line), window).map(|(_, point)| u64::from(point.requests)).sum();
        let wanted = self.lines.iter().filter(|(subject, _)| is_wanted(subject));
        let mut busy: Vec<(u64, _, _)> =
            wanted.map(|(subject, line)| (requests(line), subject, line)).collect();
        busy.retain(|(requests, ..)| *requests > 0);
        busy.sort_by(|one, other| other.0.cmp(&one.0).then_with(|| one.1.cmp(other.1)));
        busy.truncate(most);
        busy.into_iter()
            .map(|(_, subject, line)| (subject.clone(), sum(Some(line), window).happened()))
            .collect()
    }
}

fn sum(line: Option<&Line>, window: &Window) -> Sum {
    let mut sum = Sum::default();
    points(line, window).for_each(|(_, point)| sum.add(point));
    sum
}

/// The points of a line in a window, with the second that each begins at.
fn points<'a>(line: Option<&'a Line>, window: &Window) -> impl Iterator<Item = (u64, &'a Point)> {
    let (from_s, to_s) = (window.from_s, window.to_s());
    line.map(|line| track(line, window)).into_iter().flat_map(move |(track, level)| {
        let steps = track.between(from_s / level.step_s, to_s.div_ceil(level.step_s));
        steps.map(move |(step, point)| (step * level.step_s, point))
    })
}

fn track<'a>(line: &'a Line, window: &Window) -> (&'a Track, Level) {
    if window.is_fine() { (&line.fine, FINE) } else { (&line.coarse, COARSE) }
}

const fn coarse_of(subject: &Subject) -> Level {
    match subject {
        Subject::Total => COARSE_OF_TOTAL,
        _ => COARSE,
    }
}

/// Who is few, and is asked for more often, is kept for longer.
const fn importance(subject: &Subject) -> u8 {
    match subject {
        Subject::Upstream { .. } => 0,
        Subject::Pool(_) | Subject::Route(_) => 1,
        Subject::Listener(_) => 2,
        Subject::Total => IMPORTANCE_MAX,
    }
}

const IMPORTANCE_MAX: u8 = 3;

/// A mark and its place among the others.
const MARK_BYTES: usize = size_of::<(Counting, Mark)>() + 32;
