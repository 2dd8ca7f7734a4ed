//! What the tuner remembers of one upstream from tick to tick.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::Memory;
use super::float::Float;

/// The memory itself, written by the tuner only; one cache line, so that it can live in the upstream's
/// [`Load`](super::Load) and outlast the pool.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Cells {
    speed: Float,
    variance: Float,
    latency_s: Float,
    failure_share: Float,
    idle: Float,
    traffic: Float,
    width: Float,
    /// Set when failures are to be forgotten; the next tick does it, since it alone writes the share.
    forgiven: AtomicBool,
    sampled_us: AtomicU64,
    born_us: AtomicU64,
    readmitted_us: AtomicU64,
}

/// A copy to reckon with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Learned {
    /// `ln` of the latency in nanoseconds at one request in flight, averaged; NaN before the first answer.
    pub speed: f64,
    /// Variance of `speed`, in units of one answer's: 1 when it rests on a single answer.
    pub variance: f64,
    /// Mean latency in seconds; 0 before the first answer.
    pub latency_s: f64,
    /// Share of failed attempts, 0 to 1.
    pub failure_share: f64,
    /// How far the estimate has relaxed towards the pool's for want of use: 0, not at all.
    pub idle: f64,
    /// Answers of late, good and failed, fading with [`TRAFFIC_MEMORY_S`](super::tuner).
    pub traffic: f64,
    /// How much wider than usual the clip is: 1, 2, 4 …
    pub width: f64,
    /// When the last sample was folded in.
    pub sampled_us: u64,
    /// When it came new to a running pool.
    pub born_us: Option<u64>,
    /// When it last came back from an ejection.
    pub readmitted_us: Option<u64>,
}

impl Cells {
    pub(super) const fn new(now_us: u64) -> Self {
        Self {
            speed: Float::new(f32::NAN),
            variance: Float::new(1.0),
            latency_s: Float::new(0.0),
            failure_share: Float::new(0.0),
            idle: Float::new(0.0),
            traffic: Float::new(0.0),
            width: Float::new(1.0),
            forgiven: AtomicBool::new(false),
            sampled_us: AtomicU64::new(now_us),
            born_us: AtomicU64::new(NEVER),
            readmitted_us: AtomicU64::new(NEVER),
        }
    }

    pub(super) fn recall(&self) -> Learned {
        self.copy(self.forgiven.swap(false, Ordering::Relaxed))
    }

    /// As [`recall`](Self::recall), for those who only look.
    pub(super) fn peek(&self) -> Learned {
        self.copy(self.forgiven.load(Ordering::Relaxed))
    }

    fn copy(&self, forgiven: bool) -> Learned {
        Learned {
            speed: f64::from(self.speed.load()),
            variance: f64::from(self.variance.load()),
            latency_s: f64::from(self.latency_s.load()),
            failure_share: if forgiven { 0.0 } else { f64::from(self.failure_share.load()) },
            idle: f64::from(self.idle.load()),
            traffic: f64::from(self.traffic.load()),
            width: f64::from(self.width.load()),
            sampled_us: self.sampled_us.load(Ordering::Relaxed),
            born_us: instant(&self.born_us),
            readmitted_us: instant(&self.readmitted_us),
        }
    }

    pub(super) fn remember(&self, learned: &Learned) {
        self.speed.store(learned.speed);
        self.variance.store(learned.variance);
        self.latency_s.store(learned.latency_s);
        self.failure_share.store(learned.failure_share);
        self.idle.store(learned.idle);
        self.traffic.store(learned.traffic);
        self.width.store(learned.width);
        self.sampled_us.store(learned.sampled_us, Ordering::Relaxed);
    }

    /// Goes on with what another process learned.
    pub(super) fn go_on(&self, learned: &Learned) {
        self.remember(learned);
        self.born_us.store(learned.born_us.unwrap_or(NEVER), Ordering::Relaxed);
        self.readmitted_us.store(learned.readmitted_us.unwrap_or(NEVER), Ordering::Relaxed);
    }

    pub(super) fn latency_s(&self) -> f32 {
        self.latency_s.load()
    }

    pub(super) fn warm_up(&self, now_us: u64) {
        self.born_us.store(now_us, Ordering::Relaxed);
    }

    pub(super) fn readmit(&self, now_us: u64) {
        self.readmitted_us.store(now_us, Ordering::Relaxed);
        self.forgiven.store(true, Ordering::Relaxed);
    }
}

impl Learned {
    /// As names and numbers; see [`Load::memory`](super::Load::memory).
    pub(super) fn memory(&self) -> Memory {
        let moment = |micros: Option<u64>| micros.map_or(f64::NAN, |micros| micros as f64);
        let all = [
            ("speed", self.speed),
            ("variance", self.variance),
            ("latency_s", self.latency_s),
            ("failure_share", self.failure_share),
            ("idle", self.idle),
            ("traffic", self.traffic),
            ("width", self.width),
            ("sampled_us", self.sampled_us as f64),
            ("born_us", moment(self.born_us)),
            ("readmitted_us", moment(self.readmitted_us)),
        ];
        all.into_iter().filter(|(_, number)| number.is_finite()).collect()
    }

    /// What is named; the rest stays as it is here.
    pub(super) fn with(self, recall: &dyn Fn(&str) -> Option<f64>) -> Self {
        let moment = |name| recall(name).map(whole);
        Self {
            speed: recall("speed").unwrap_or(self.speed),
            variance: recall("variance").unwrap_or(self.variance),
            latency_s: recall("latency_s").unwrap_or(self.latency_s),
            failure_share: recall("failure_share").unwrap_or(self.failure_share),
            idle: recall("idle").unwrap_or(self.idle),
            traffic: recall("traffic").unwrap_or(self.traffic),
            width: recall("width").unwrap_or(self.width),
            sampled_us: moment("sampled_us").unwrap_or(self.sampled_us),
            born_us: moment("born_us").or(self.born_us),
            readmitted_us: moment("readmitted_us").or(self.readmitted_us),
        }
    }
}

/// Microseconds; those of 285 years fit into a float without loss.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float saturates")]
fn whole(micros: f64) -> u64 {
    micros as u64
}

fn instant(cell: &AtomicU64) -> Option<u64> {
    Some(cell.load(Ordering::Relaxed)).filter(|&instant| instant != NEVER)
}

const NEVER: u64 = u64::MAX;
