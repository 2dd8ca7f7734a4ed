//! What happened in the last hour, in steps of ten seconds, and in the last thirty days, in steps of ten minutes:
//! per listener, route, pool and upstream, and in total.
//!
//! ```text
//!   counters ──every 10 s──► Round: how much they grew ──► Line per subject ──► Track: blocks of points
//!                                                             │  fine   60 points (10 min) to the block
//!                                                             └► coarse 144 points (1 day) to the block
//!   GET /v1/stats/history ◄── series, total ──────────────────┘
//! ```
//!
//! A point has 32 bytes. Its block is made when something happens in it: 1 920 bytes for ten minutes, 4 608 for a
//! day. So who is quiet costs nothing, and who is busy all the time has 13 KB for the hour and 143 KB for thirty
//! days. All of it together has [`BYTES_MAX`]; beyond, the oldest blocks of the upstreams with the fewest
//! requests go first, then those of pools, routes and listeners.
//!
//! Time is the wall clock's, since people ask by it, and after a restart nothing else is left. It may jump:
//! - less than ten minutes, either way: followed. What happens in a step that was already there is added to it.
//! - forward: a gap, such as after a sleep of the machine. Beyond thirty days the past comes along, or else it
//!   would be too old at once.
//! - back: the past comes along, so that it stays the past; if the clock had jumped forward by as much, only what
//!   came after that.
//!
//! The room of clocks is above: times arrive as arguments.

mod book;
mod bytes;
mod codec;
mod line;
mod mark;
mod point;
mod quantiles;

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use codec::Unreadable;
pub use mark::{Counting, Growth, Reading};
pub use point::{Happened, Times};

use super::HistogramSnapshot;
use book::Book;
use line::{COARSE, COARSE_S, FINE, FINE_S};

/// Steps of the last hour. All others are multiples of it.
pub const STEP: Duration = Duration::from_secs(FINE_S);

/// Steps of all that is longer ago than [`HOUR`].
pub const LONG_STEP: Duration = Duration::from_secs(COARSE_S);

/// How far back short steps go.
pub const HOUR: Duration = Duration::from_secs(FINE.kept_s);

/// How far back long steps go.
pub const MONTH: Duration = Duration::from_secs(COARSE.kept_s);

/// All points together. A hundred upstreams that are busy for thirty days take a quarter of it, a thousand
/// are remembered for ten days.
pub const BYTES_MAX: usize = 64 * 1024 * 1024;

/// Whose history it is. Names are those of the configuration, so what comes back under its name goes on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// All requests to the process.
    Total,
    /// A listener; how long its requests took is counted by their routes.
    Listener(String),
    /// A route.
    Route(String),
    /// A pool: the attempts of all its upstreams.
    Pool(String),
    /// An upstream of a pool.
    Upstream {
        /// Name of the pool.
        pool: String,
        /// Where it listens.
        address: String,
    },
}

impl fmt::Display for Subject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Total => formatter.write_str("total"),
            Self::Listener(name) => write!(formatter, "listener:{name}"),
            Self::Route(name) => write!(formatter, "route:{name}"),
            Self::Pool(name) => write!(formatter, "pool:{name}"),
            Self::Upstream { pool, address } => write!(formatter, "upstream:{pool}/{address}"),
        }
    }
}

/// What is asked for: so many steps, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Seconds since 1970 of the first; a multiple of `step_s`.
    pub from_s: u64,
    /// Seconds of a step: a multiple of [`STEP`]; beyond [`HOUR`], of [`LONG_STEP`].
    pub step_s: u64,
    /// How many.
    pub steps: usize,
}

impl Window {
    /// The steps that cover at least `window` before `end_s`: from the one that holds the moment so long ago to the
    /// one that holds the end, which may be under way.
    pub fn ending(end_s: u64, window: Duration, step: Duration) -> Self {
        let step_s = step.as_secs().max(FINE_S);
        let window_s = u64::try_from(window.as_millis().div_ceil(1_000)).unwrap_or(u64::MAX);
        let first = end_s.saturating_sub(window_s) / step_s;
        let count = end_s.div_ceil(step_s).saturating_sub(first).max(1);
        Self { from_s: first * step_s, step_s, steps: usize::try_from(count).unwrap_or(usize::MAX) }
    }

    /// Seconds since 1970 of the end of the last step.
    pub fn to_s(&self) -> u64 {
        self.from_s + self.step_s * self.steps as u64
    }

    /// As many steps, as long, right before.
    #[must_use]
    pub fn before(&self) -> Self {
        Self { from_s: self.from_s.saturating_sub(self.to_s() - self.from_s), ..*self }
    }

    /// Short steps are kept for an hour only.
    fn is_fine(&self) -> bool {
        !self.step_s.is_multiple_of(COARSE_S)
    }
}

/// One step of a series.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Seconds since 1970.
    pub from_s: u64,
    /// Seconds of it in which somebody took things down that are not forgotten.
    pub recorded_s: u64,
    /// What happened; `None`: it is not known, because nobody took it down (the process did not run), or it was
    /// given up for want of room.
    pub happened: Option<Happened>,
}

/// All that is kept.
#[derive(Debug, Default)]
pub struct History(Mutex<Book>);

/// Counters are read, and what they grew by is taken down. One at a time; ends when dropped.
pub struct Round<'a> {
    book: MutexGuard<'a, Book>,
    number: u64,
    step: u64,
    takes_down: bool,
}

impl History {
    /// Begins a round at this time of the wall clock, which is `now` by a clock that does not jump.
    pub fn round(&self, at: SystemTime, now: Duration) -> Round<'_> {
        let mut book = self.book();
        let (number, step) = book.begin(since_1970(at), now);
        Round { book, number, step, takes_down: true }
    }

    /// A round in which counters are read, and nothing is taken down: what they say already is somebody
    /// else's history.
    pub fn blank_round(&self, at: SystemTime, now: Duration) -> Round<'_> {
        let mut round = self.round(at, now);
        round.takes_down = false;
        round
    }

    /// Whether anything is kept of it.
    pub fn knows(&self, subject: &Subject) -> bool {
        self.book().lines.contains_key(subject)
    }

    /// Seconds since 1970 before which everything was taken down, in whole steps; 0 before the first round.
    pub fn taken_down_until(&self) -> u64 {
        self.book().taken_down_until()
    }

    /// What happened in each step; nothing in those of somebody who is not known.
    pub fn series(&self, subject: &Subject, window: &Window) -> Vec<Step> {
        self.book().series(subject, window)
    }

    /// What happened in all steps together.
    pub fn total(&self, subject: &Subject, window: &Window) -> Happened {
        self.book().total(subject, window)
    }

    /// Seconds of the window in which somebody took things down that are not forgotten.
    pub fn recorded_s(&self, subject: &Subject, window: &Window) -> u64 {
        self.book().recorded_s(subject, window)
    }

    /// Those who had most requests in the window, first of all that who had most.
    ///
    /// Reads every point of the window, and whoever takes down waits meanwhile: for a thousand upstreams that fill
    /// the memory, a tenth of a second in a build for tests. No request ever waits for it; the ticks of the
    /// strategies and changes of the configuration may, now and then.
    pub fn busiest(
        &self,
        window: &Window,
        most: usize,
        is_wanted: impl Fn(&Subject) -> bool,
    ) -> Vec<(Subject, Happened)> {
        self.book().busiest(window, most, is_wanted)
    }

    /// Bytes of memory that the points take.
    pub fn bytes(&self) -> usize {
        self.book().bytes()
    }

    /// All of it, for the disk or another process.
    pub fn to_bytes(&self, at: SystemTime) -> Vec<u8> {
        codec::write(&self.book(), since_1970(at).as_secs())
    }

    /// Goes on with what another process wrote, of which nothing is known yet; called before the first round.
    ///
    /// # Errors
    ///
    /// It is not whole, or of a later version; nothing has changed.
    pub fn go_on(&self, bytes: &[u8], at: SystemTime) -> Result<(), Unreadable> {
        let book = codec::read(bytes, since_1970(at).as_secs())?;
        *self.book() = book;
        Ok(())
    }

    /// A panic while holding it leaves a point half added at worst.
    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Round<'_> {
    /// How much these counters grew since the last round. `times` are read only if they did.
    pub fn grown(
        &mut self,
        who: Counting,
        reading: Reading,
        times: impl FnOnce() -> Option<HistogramSnapshot>,
    ) -> Growth {
        let growth = self.book.grown(who, self.number, reading, times);
        if self.takes_down { growth } else { Growth::default() }
    }

    /// Takes down what happened to a subject.
    pub fn take_down(&mut self, subject: impl FnOnce() -> Subject, growth: &Growth, in_flight_max: u32) {
        if self.takes_down && !(growth.is_nothing() && in_flight_max == 0) {
            self.book.take_down(subject(), self.step, growth, in_flight_max);
        }
    }
}

impl Drop for Round<'_> {
    fn drop(&mut self) {
        self.book.end(self.number, BYTES_MAX);
    }
}

/// Clocks before 1970 read as 1970.
fn since_1970(at: SystemTime) -> Duration {
    at.duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests;
