//! Takes times through criterion, and remembers them for the tables at the end.

use std::fmt::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{Bencher, Criterion};

/// Criterion, and what is printed once it is done.
pub(crate) struct Meter {
    criterion: Criterion,
    report: String,
}

/// One line of a table: what it is about, and nanoseconds per column; `None`: not asked for.
pub(crate) struct Row {
    pub name: String,
    pub times: Vec<Option<f64>>,
}

impl Meter {
    /// As the command line says: a filter, `--quick`, `--quiet`, or nothing.
    pub(crate) fn from_arguments() -> Self {
        let is_quick = std::env::var_os("BENCH_QUICK").is_some();
        let (warm_up, measurement) = if is_quick { QUICK } else { THOROUGH };
        let criterion = Criterion::default()
            .without_plots()
            .sample_size(SAMPLES)
            .nresamples(RESAMPLES)
            .warm_up_time(warm_up)
            .measurement_time(measurement)
            .configure_from_args();
        Self { criterion, report: String::new() }
    }

    /// Nanoseconds of one `work` on one thread, the best of all samples; `None` when the filter leaves it out.
    ///
    /// # Panics
    ///
    /// When it allocates: nothing that is measured here may.
    pub(crate) fn time<W: FnMut()>(&mut self, name: &str, world: impl Fn() -> W) -> Option<f64> {
        let world = || without_allocation(name, world());
        let samples = self.sample(name, world, |work, rounds| timed(rounds, work));
        samples.into_iter().reduce(f64::min)
    }

    /// The same on two threads at once, each with its own `work`; the median of all samples, because in the best
    /// one the threads may have missed each other.
    pub(crate) fn time_of_two<W: FnMut() + Send>(
        &mut self,
        name: &str,
        world: impl Fn() -> [W; 2],
    ) -> Option<f64> {
        let world = || world().map(|work| without_allocation(name, work));
        let mut samples = self.sample(name, world, |works, rounds| together(rounds, works));
        samples.sort_unstable_by(f64::total_cmp);
        samples.get(samples.len() / 2).copied()
    }

    /// Prints it after the last measurement, when criterion has said what it has to say.
    pub(crate) fn say(&mut self, words: &str) {
        self.report.push_str(words);
        self.report.push('\n');
    }

    /// A table of nanoseconds; without a line when the filter left all of it out.
    pub(crate) fn table(&mut self, title: &str, columns: &[&str], rows: &[Row]) {
        if rows.iter().all(|row| row.times.iter().all(Option::is_none)) {
            return;
        }
        let mut line = format!("\n{title:30}");
        for column in columns {
            let _ = write!(line, "{column:>12}");
        }
        self.say(&line);
        for Row { name, times } in rows {
            let mut line = format!("  {name:28}");
            for time in times {
                let shown = time.map_or_else(String::new, |time| format!("{time:.1}"));
                let _ = write!(line, "{shown:>12}");
            }
            self.say(line.trim_end());
        }
    }

    pub(crate) fn finish(self) {
        self.criterion.final_summary();
        if !self.report.is_empty() {
            println!("\nnanoseconds, the best sample; two threads: the median\n{}", self.report);
        }
    }

    /// Nanoseconds per round of every sample that was long enough to mean something.
    fn sample<W>(
        &mut self,
        name: &str,
        world: impl Fn() -> W,
        take: impl Fn(&mut W, u64) -> Duration,
    ) -> Vec<f64> {
        let (mut made, mut samples) = (None, Vec::new());
        self.criterion.bench_function(name, |bencher: &mut Bencher<'_>| {
            // Only if it is asked for, and before the clock of the warm-up runs.
            let world = made.get_or_insert_with(&world);
            bencher.iter_custom(|rounds| {
                let took = take(world, rounds);
                if took >= SAMPLE_MIN {
                    samples.push(took.as_secs_f64() * 1e9 / rounds as f64);
                }
                took
            });
        });
        samples
    }
}

fn without_allocation<W: FnMut()>(name: &str, mut work: W) -> W {
    let allocations = allocation_counter::measure(|| (0..CHECKED).for_each(|_| work()));
    assert_eq!(allocations.count_total, 0, "{name} allocates on the request path");
    work
}

fn timed(rounds: u64, mut work: impl FnMut()) -> Duration {
    let started = Instant::now();
    (0..rounds).for_each(|_| work());
    started.elapsed()
}

/// The longer of both times. Both threads run before either begins.
fn together<W: FnMut() + Send>(rounds: u64, works: &mut [W; 2]) -> Duration {
    let ready = AtomicUsize::new(0);
    let timed_together = |work| {
        ready.fetch_add(1, Ordering::AcqRel);
        while ready.load(Ordering::Acquire) < 2 {
            // The other one may be waiting for this very core.
            thread::yield_now();
        }
        timed(rounds, work)
    };
    let [here, there] = works;
    thread::scope(|scope| {
        let other = scope.spawn(|| timed_together(there));
        let mine = timed_together(here);
        // Whoever panicked over there has said why; without its time there is none.
        other.join().map_or(mine, |theirs| mine.max(theirs))
    })
}

/// Warm-up and measurement of each: a hundred of them take about a minute.
const THOROUGH: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(300));
const QUICK: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(50));

/// As few as criterion takes: each is then long enough to drown the clock.
const SAMPLES: usize = 10;

/// Criterion's own 100 000 would take longer than the measurement.
const RESAMPLES: usize = 2_000;

/// Shorter ones, of the warm-up, hold more clock than work.
const SAMPLE_MIN: Duration = Duration::from_micros(500);

/// Rounds before the first sample that must not allocate, and warm the caches.
const CHECKED: u32 = 2_000;
