//! Keeps a message that would be told with every request to one in [`INTERVAL`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What goes on is told as often as this, with how often it was not told meanwhile.
const INTERVAL: Duration = Duration::from_secs(10);

/// One message about one thing.
#[derive(Debug, Default)]
pub(super) struct Seldom {
    /// From here on it may be told, in microseconds since the runtime's epoch.
    due_us: AtomicU64,
    withheld: AtomicU64,
}

impl Seldom {
    /// Whether to tell it now, and how often it was not told since the last time.
    pub(super) fn tell(&self, now: Duration) -> Option<u64> {
        let now_us = micros(now);
        let due = self.due_us.load(Ordering::Relaxed);
        let next = micros(now + INTERVAL);
        let is_due = now_us >= due
            && self.due_us.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if is_due {
            return Some(self.withheld.swap(0, Ordering::Relaxed));
        }
        self.withheld.fetch_add(1, Ordering::Relaxed);
        None
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on_is_told_now_and_then_with_how_much_was_not() {
        let message = Seldom::default();
        assert_eq!(message.tell(Duration::ZERO), Some(0));
        for second in 1..10 {
            assert_eq!(message.tell(Duration::from_secs(second)), None);
        }
        assert_eq!(message.tell(INTERVAL), Some(9));
        assert_eq!(message.tell(INTERVAL + Duration::from_secs(1)), None);
        assert_eq!(message.tell(INTERVAL * 5), Some(1));
    }
}
