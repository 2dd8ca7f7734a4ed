//! What the tuner remembers of one upstream from tick to tick.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

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
        let forgiven = self.forgiven.swap(false, Ordering::Relaxed);
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

fn instant(cell: &AtomicU64) -> Option<u64> {
    Some(cell.load(Ordering::Relaxed)).filter(|&instant| instant != NEVER)
}

const NEVER: u64 = u64::MAX;
