#![allow(clippy::unwrap_used, clippy::items_after_statements)]

use proptest::prelude::*;

use super::*;
use crate::observe::Histogram;

/// A Saturday, 12:00:00 UTC.
const NOON: u64 = 1_795_176_000;

/// What counts of one subject, a clock on the wall, and one that does not jump.
struct World {
    history: History,
    wall: Duration,
    now: Duration,
    reading: Reading,
    times: Histogram,
}

impl World {
    fn new() -> Self {
        Self {
            history: History::default(),
            wall: Duration::from_secs(NOON),
            now: Duration::from_secs(5),
            reading: Reading::default(),
            times: Histogram::default(),
        }
    }

    fn at(&self) -> SystemTime {
        UNIX_EPOCH + self.wall
    }

    fn pass(&mut self, seconds: u64) {
        self.wall += Duration::from_secs(seconds);
        self.now += Duration::from_secs(seconds);
    }

    fn jump(&mut self, seconds: i64) {
        self.wall = Duration::from_secs(self.wall.as_secs().saturating_add_signed(seconds));
    }

    fn serve(&mut self, requests: u64, millis: u64) {
        self.reading.requests += requests;
        self.reading.response_bytes += 100 * requests;
        (0..requests).for_each(|_| self.times.record(Duration::from_millis(millis)));
    }

    fn take_down(&self) {
        let mut round = self.history.round(self.at(), self.now);
        let growth = round.grown(Counting::of(self), self.reading, || Some(self.times.snapshot()));
        round.take_down(|| Subject::Total, &growth, 0);
        round.take_down(app, &growth, 3);
    }

    /// Ten seconds with requests, taken down at their end.
    fn step(&mut self, requests: u64, millis: u64) {
        self.serve(requests, millis);
        self.pass(10);
        self.take_down();
    }

    fn last(&self, window: Duration, step: Duration) -> Window {
        Window::ending(self.history.taken_down_until(), window, step)
    }

    fn requests(&self, window: Duration, step: Duration) -> u64 {
        self.history.total(&app(), &self.last(window, step)).requests
    }

    fn hour(&self) -> u64 {
        self.requests(HOUR, STEP)
    }

    fn month(&self) -> u64 {
        self.requests(MONTH, LONG_STEP)
    }
}

fn app() -> Subject {
    upstream("app", 1)
}

fn upstream(pool: &str, number: usize) -> Subject {
    Subject::Upstream { pool: pool.to_owned(), address: format!("10.0.0.{number}:8080") }
}

#[test]
fn a_point_is_as_small_as_promised() {
    assert_eq!(size_of::<point::Point>(), 32);
}

#[test]
fn steps_tell_what_happened_in_each() {
    let mut world = World::new();
    world.take_down();
    world.step(3, 5);
    world.step(0, 5);
    world.step(4, 500);
    let window = world.last(Duration::from_secs(40), STEP);
    let steps = world.history.series(&Subject::Total, &window);
    let found: Vec<_> = steps.iter().map(|it| it.happened.as_ref().map(|it| it.requests)).collect();
    assert_eq!(found, [None, Some(3), Some(0), Some(4)]);
    assert_eq!(steps.iter().map(|it| it.from_s).collect::<Vec<_>>(), [NOON - 10, NOON, NOON + 10, NOON + 20]);
    let slow = steps[3].happened.as_ref().unwrap().times.unwrap();
    assert!(slow.p50 >= Duration::from_millis(500) && slow.p50 < Duration::from_millis(532), "{slow:?}");
    assert_eq!(slow.mean, Duration::from_millis(500));
    let total = world.history.total(&app(), &window);
    assert_eq!((total.requests, total.response_bytes, total.in_flight_max), (7, 700, 3));
    assert_eq!(world.history.recorded_s(&app(), &window), 30);
}

#[test]
fn ten_minutes_have_the_quantiles_of_all_their_requests() {
    let mut world = World::new();
    world.take_down();
    for step in 0..60 {
        world.step(10, if step < 54 { 5 } else { 100 });
    }
    let window = Window { from_s: NOON, step_s: 600, steps: 1 };
    let times = world.history.total(&app(), &window).times.unwrap();
    let all = world.times.snapshot();
    let near = |found: Duration, exact: Duration| found >= exact && found <= exact + exact / 15;
    assert!(near(times.p50, all.quantile(0.5)) && near(times.p90, all.quantile(0.9)), "{times:?}");
    assert!(near(times.p99, all.quantile(0.99)), "{times:?}");
    assert_eq!((world.month(), world.hour()), (600, 600));
}

/// Counters of an upstream that was removed and came back begin at zero.
#[test]
fn counters_that_begin_anew_are_counted_from_zero() {
    let mut world = World::new();
    world.step(10, 5);
    world.reading = Reading::default();
    world.times = Histogram::default();
    world.step(4, 5);
    assert_eq!(world.hour(), 14);
}

#[test]
fn who_was_removed_vanishes_after_the_window() {
    let mut world = World::new();
    world.step(1, 5);
    assert!(world.history.knows(&app()));
    for _ in 0..29 {
        world.pass(86_400);
        world.take_down();
    }
    assert!(world.history.knows(&app()));
    let quiet = |world: &World| drop(world.history.round(world.at(), world.now));
    world.pass(3 * 86_400);
    quiet(&world);
    // The present step had one request in flight in the last round.
    world.pass(31 * 86_400);
    quiet(&world);
    assert!(!world.history.knows(&app()));
}

#[test]
fn short_steps_are_forgotten_after_an_hour_and_long_ones_are_not() {
    let mut world = World::new();
    world.step(5, 5);
    world.pass(4_300);
    world.take_down();
    world.step(2, 5);
    assert_eq!((world.hour(), world.month()), (2, 7));
}

#[test]
fn a_clock_that_is_set_a_little_loses_nothing() {
    for jump in [-300, -9, 7, 300] {
        let mut world = World::new();
        world.take_down();
        (0..100).for_each(|_| world.step(1, 5));
        world.jump(jump);
        (0..100).for_each(|_| world.step(1, 5));
        assert_eq!((world.hour(), world.month()), (200, 200), "{jump}");
    }
}

/// prometheus#8312, #2530: after the clock had been ahead, nothing was taken down until it was there again.
#[test]
fn a_clock_that_is_set_back_takes_the_past_along() {
    let mut world = World::new();
    world.take_down();
    (0..100).for_each(|_| world.step(1, 5));
    world.jump(-7 * 3_600);
    (0..100).for_each(|_| world.step(1, 5));
    assert_eq!((world.hour(), world.month()), (200, 200));
    let window = world.last(Duration::from_secs(3_600), STEP);
    let steps = world.history.series(&app(), &window);
    let twice = steps.iter().filter(|it| it.happened.as_ref().is_some_and(|it| it.requests > 2)).count();
    assert_eq!(twice, 0, "the past lies before the present");
}

#[test]
fn a_sleep_of_the_machine_is_a_gap() {
    let mut world = World::new();
    world.take_down();
    world.step(1, 5);
    world.jump(8 * 3_600);
    world.step(2, 5);
    assert_eq!((world.hour(), world.month()), (2, 3));
    let window = world.last(Duration::from_secs(10 * 3_600), Duration::from_secs(3_600));
    let steps = world.history.series(&app(), &window);
    assert_eq!(steps.iter().filter(|it| it.happened.is_none()).count(), 9, "{steps:?}");
}

#[test]
fn a_clock_that_was_wrong_for_a_while_displaces_only_what_it_was_wrong_for() {
    let mut world = World::new();
    world.take_down();
    (0..60).for_each(|_| world.step(1, 5));
    world.jump(86_400);
    (0..60).for_each(|_| world.step(2, 5));
    world.jump(-86_400);
    (0..60).for_each(|_| world.step(3, 5));
    let window = Window { from_s: NOON, step_s: 600, steps: 3 };
    let found = world.history.series(&app(), &window);
    let found: Vec<_> = found.iter().map(|it| it.happened.as_ref().unwrap().requests).collect();
    // One round each is about both sides of a jump.
    assert_eq!(found.iter().sum::<u64>(), 360);
    assert!(
        found[0].abs_diff(60) <= 6 && found[1].abs_diff(120) <= 6 && found[2].abs_diff(180) <= 6,
        "{found:?}"
    );
}

#[test]
fn a_clock_that_begins_in_1970_forgets_nothing_when_it_is_set() {
    let mut world = World::new();
    world.step(5, 5);
    let bytes = world.history.to_bytes(world.at());
    let mut booted = World { wall: Duration::from_secs(100), ..World::new() };
    booted.history.go_on(&bytes, booted.at()).unwrap();
    booted.take_down();
    booted.step(2, 5);
    assert_eq!(booted.hour(), 7);
    booted.jump(NOON.cast_signed());
    booted.step(1, 5);
    assert_eq!((booted.hour(), booted.month()), (8, 8));
}

#[test]
fn what_is_written_is_read_again() {
    let mut world = World::new();
    world.take_down();
    (0..400).for_each(|step| world.step(step % 7, step));
    let bytes = world.history.to_bytes(world.at());
    let mut next = World { wall: world.wall, ..World::new() };
    next.history.go_on(&bytes, next.at()).unwrap();
    for (window, step) in [(HOUR, STEP), (MONTH, LONG_STEP)] {
        let window = world.last(window, step);
        for subject in [Subject::Total, app()] {
            let (before, after) =
                (world.history.total(&subject, &window), next.history.total(&subject, &window));
            assert_eq!((before.requests, before.response_bytes), (after.requests, after.response_bytes));
            assert_eq!(
                (before.in_flight_max, before.times.unwrap().p99),
                (after.in_flight_max, after.times.unwrap().p99)
            );
        }
    }
    assert_eq!(next.history.to_bytes(world.at()), bytes);
    // A restart in the middle of ten minutes goes on in them.
    next.take_down();
    next.step(50, 5);
    assert_eq!(next.month(), world.month() + 50);
}

#[test]
fn what_is_not_whole_changes_nothing() {
    let mut world = World::new();
    world.step(5, 5);
    let bytes = world.history.to_bytes(world.at());
    let next = World::new();
    for end in 0..bytes.len() {
        assert!(next.history.go_on(&bytes[..end], next.at()).is_err(), "{end} bytes");
    }
    let later = [&[9], &bytes[1..]].concat();
    assert_eq!(next.history.go_on(&later, next.at()), Err(Unreadable::Version(9)));
    assert!(!next.history.knows(&app()));
}

/// A thousand upstreams that are busy for sixty days stay within what is promised, and what they lose is the
/// past of those with the fewest requests.
#[test]
fn memory_has_the_limit_that_is_promised() {
    let history = History::default();
    // A block is as large with one point as with all.
    const PAUSE_S: u64 = 4 * 3_600;
    let wall = |step: u64| UNIX_EPOCH + Duration::from_secs(NOON + step * PAUSE_S);
    let growth = |requests: u64| Growth { requests, ..Growth::default() };
    let mut most = 0;
    for step in 0..60 * 6 {
        let mut round = history.round(wall(step), Duration::from_secs(step * PAUSE_S));
        for number in 0..1_000 {
            round.take_down(|| upstream("app", number), &growth(1 + number as u64), 0);
        }
        round.take_down(|| Subject::Total, &growth(1), 0);
        drop(round);
        most = most.max(history.bytes());
    }
    assert!(most <= BYTES_MAX, "{most}");
    assert!(most > BYTES_MAX / 2, "{most}: it is used");
    let month = Window::ending(history.taken_down_until(), MONTH, LONG_STEP);
    let known = |subject: &Subject| {
        history.series(subject, &month).iter().filter(|step| step.happened.is_some()).count()
    };
    let (least, most) = (known(&upstream("app", 0)), known(&upstream("app", 999)));
    assert!(least < most && least > 0 && most > 1_500, "{least} and {most} of {}", month.steps);
    assert!(known(&Subject::Total) > 4_000);
    assert!(history.to_bytes(wall(60 * 6)).len() < BYTES_MAX);
}

#[test]
fn even_the_present_of_very_many_stays_within_the_limit() {
    let history = History::default();
    let growth = Growth { requests: 1, ..Growth::default() };
    for step in 0..3 {
        let at = UNIX_EPOCH + Duration::from_secs(NOON + step * 10);
        let mut round = history.round(at, Duration::from_secs(step * 10));
        for number in 0..20_000 {
            round.take_down(|| upstream("app", number), &growth, 0);
        }
        round.take_down(|| Subject::Total, &growth, 0);
        drop(round);
        assert!(history.bytes() <= BYTES_MAX);
    }
    let window = Window::ending(history.taken_down_until(), HOUR, STEP);
    assert_eq!(history.total(&Subject::Total, &window).requests, 3);
}

#[test]
fn many_restarts_are_remembered_up_to_a_limit() {
    let mut world = World::new();
    for _ in 0..3_000 {
        world.step(1, 5);
        let bytes = world.history.to_bytes(world.at());
        world.history = History::default();
        (world.reading, world.times) = (Reading::default(), Histogram::default());
        world.history.go_on(&bytes, world.at()).unwrap();
        world.pass(15);
        world.take_down();
    }
    assert!(world.history.to_bytes(world.at()).len() < 100_000);
    assert_eq!(world.month(), 3_000);
}

/// The first step of a long one begins before all that is kept.
#[test]
fn what_is_forgotten_is_not_said_to_be_recorded() {
    let mut world = World::new();
    // Two hours, of which one is kept, in blocks of ten minutes.
    (0..720).for_each(|_| world.step(1, 5));
    let window = world.last(HOUR, Duration::from_secs(3_590));
    let (recorded, requests) =
        (world.history.recorded_s(&app(), &window), world.requests(HOUR, Duration::from_secs(3_590)));
    assert!((3_600..=4_200).contains(&recorded), "{recorded}");
    assert!(requests.abs_diff(recorded / 10) <= 1, "{requests} in {recorded} s");
    let first = world.history.series(&app(), &window).remove(0);
    let requests = first.happened.unwrap().requests;
    assert!(requests.abs_diff(first.recorded_s / 10) <= 1, "{requests} in {} s", first.recorded_s);
}

#[test]
fn the_busiest_come_first() {
    let history = History::default();
    let mut round = history.round(UNIX_EPOCH + Duration::from_secs(NOON), Duration::ZERO);
    for number in 0..20 {
        round.take_down(
            || upstream("app", number),
            &Growth { requests: 1 + number as u64, ..Growth::default() },
            0,
        );
    }
    round.take_down(|| Subject::Route("all".to_owned()), &Growth { requests: 100, ..Growth::default() }, 0);
    drop(round);
    let window = Window::ending(history.taken_down_until(), HOUR, LONG_STEP);
    let found = history.busiest(&window, 3, |subject| matches!(subject, Subject::Upstream { .. }));
    let found: Vec<_> = found.into_iter().map(|(subject, happened)| (subject, happened.requests)).collect();
    assert_eq!(found, [(upstream("app", 19), 20), (upstream("app", 18), 19), (upstream("app", 17), 18)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_are_too_odd_to_be_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let history = History::default();
        let _ = history.go_on(&bytes, UNIX_EPOCH + Duration::from_secs(NOON));
        let _ = history.go_on(&[&[1], &*bytes].concat(), UNIX_EPOCH + Duration::from_secs(NOON));
        let window = Window::ending(NOON, MONTH, LONG_STEP);
        prop_assert_eq!(history.series(&Subject::Total, &window).len(), 4_320);
    }

    #[test]
    fn a_window_covers_what_was_asked_for_and_less_than_a_step_more(
        end_s in NOON..NOON + 100_000, window_s in 10_u64..30 * 86_400, steps in 1_u64..300,
    ) {
        let step_s = 10 * steps;
        let window = Window::ending(end_s, Duration::from_secs(window_s), Duration::from_secs(step_s));
        prop_assert_eq!((window.from_s % step_s, window.step_s), (0, step_s));
        prop_assert!((end_s - window_s + 1 - step_s..=end_s - window_s).contains(&window.from_s));
        prop_assert!((end_s..end_s + step_s).contains(&window.to_s()));
    }

    /// Against a list of all that happened, whatever the clock does within reason.
    #[test]
    fn whatever_the_clock_does_nothing_is_lost(
        steps in prop::collection::vec((1_u64..30, 0_u64..20, -2_000_i64..2_000), 1..60),
    ) {
        let (mut world, mut all) = (World::new(), 0);
        for (seconds, requests, jump) in steps {
            world.serve(requests, 5);
            all += requests;
            world.pass(seconds);
            // One in some jumps.
            if jump % 5 == 0 {
                world.jump(jump);
            }
            world.take_down();
        }
        let from_s = NOON - 10 * 86_400;
        let window = Window { from_s: from_s - from_s % 600, step_s: 600, steps: 20 * 144 };
        prop_assert_eq!(world.history.total(&app(), &window).requests, all);
    }
}
