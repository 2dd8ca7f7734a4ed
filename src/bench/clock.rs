//! Time to the microsecond: wake-ups that a timer of whole milliseconds cannot give.

use std::io;
use std::time::{Duration, Instant};

/// Wakes one task at a time. On Linux by the kernel's own timer (`timerfd`), which is late by some
/// microseconds; elsewhere by tokio's, which is late by up to two milliseconds.
pub struct Alarm {
    #[cfg(target_os = "linux")]
    timer: tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>,
}

#[cfg(target_os = "linux")]
impl Alarm {
    /// Within a tokio runtime that has I/O.
    ///
    /// # Errors
    ///
    /// When the process has no file descriptor left.
    pub fn new() -> io::Result<Self> {
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        #[expect(deprecated, reason = "its successor is unsafe to call; an `OwnedFd` never changes its mind")]
        let timer = tokio::io::unix::AsyncFd::new(timer)?;
        Ok(Self { timer })
    }

    /// Returns at `when`, at once when that has passed. May be dropped and called anew.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the timer.
    pub async fn at(&mut self, when: Instant) -> io::Result<()> {
        use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};
        loop {
            let left = when.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            let once = Itimerspec {
                it_interval: Timespec::default(),
                it_value: Timespec::try_from(left.min(LONGEST)).map_err(io::Error::other)?,
            };
            timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
            // Setting the timer takes back an expiry that nobody has read; the readiness of before is
            // forgotten here, so that only the new one wakes us.
            self.timer.readable_mut().await?.clear_ready();
        }
    }
}

/// The kernel is asked again after that long.
#[cfg(target_os = "linux")]
const LONGEST: Duration = Duration::from_secs(3_600);

#[cfg(not(target_os = "linux"))]
impl Alarm {
    /// Within a tokio runtime that has time.
    ///
    /// # Errors
    ///
    /// Never.
    pub fn new() -> io::Result<Self> {
        Ok(Self {})
    }

    /// Returns at `when`, at once when that has passed. May be dropped and called anew.
    ///
    /// # Errors
    ///
    /// Never.
    pub async fn at(&mut self, when: Instant) -> io::Result<()> {
        tokio::time::sleep_until(when.into()).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_alarm_does_not_go_off_before_its_time_and_can_be_set_anew() {
        let mut alarm = Alarm::new().expect("a timer");
        let soon = Instant::now() + Duration::from_millis(3);
        let gave_up = tokio::time::timeout(Duration::ZERO, alarm.at(soon + LONGEST)).await;
        assert!(gave_up.is_err());
        for step in 0..3 {
            let when = soon + Duration::from_micros(700 * step);
            alarm.at(when).await.expect("it goes off");
            assert!(Instant::now() >= when);
        }
    }
}
