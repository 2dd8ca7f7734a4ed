//! One line per write: who, from where, what, and how it ended. And how strangers are kept from filling
//! the disk with such lines.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::Request;
use http::Method;

use super::auth::{Peer, is_look};

/// Lines about strangers within [`WINDOW`]. A person or a script that goes wrong is seen; an attack at full
/// speed does not fill the disk.
pub(super) const LINES_MAX: u32 = 30;

const WINDOW: Duration = Duration::from_secs(60);

/// `status` of a write that had no answer yet when the process ended.
const CUT_OFF: u16 = 503;

/// The line of one write. It is written on drop: what ends in the middle leaves its trace, too.
pub(super) struct Line<'log> {
    /// Who writes, once that is known.
    pub who: Option<Arc<str>>,
    /// Of the answer, once there is one.
    pub status: Option<u16>,
    peer: SocketAddr,
    method: Method,
    path: String,
    started: Instant,
    strangers: &'log Throttle,
}

impl<'log> Line<'log> {
    /// Begins the line of a request, if it is a write.
    pub(super) fn begin(request: &Request, started: Instant, strangers: &'log Throttle) -> Option<Self> {
        let method = request.method();
        (!is_look(method)).then(|| Self {
            who: None,
            status: None,
            peer: Peer::of(request).0,
            method: method.clone(),
            path: request.uri().path().to_owned(),
            started,
            strangers,
        })
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        let left_out = match self.who {
            Some(_) => 0,
            None => match self.strangers.admit(Instant::now()) {
                Some(left_out) => left_out,
                None => return,
            },
        };
        tracing::info!(
            target: "evener::audit",
            who = self.who.as_deref().unwrap_or("nobody"),
            peer = %self.peer,
            method = %self.method,
            path = self.path,
            status = self.status.unwrap_or(CUT_OFF),
            duration_ms = self.started.elapsed().as_secs_f64() * 1_000.0,
            left_out = (left_out > 0).then_some(left_out),
            "admin write"
        );
    }
}

/// Lets [`LINES_MAX`] lines through per [`WINDOW`], and counts the others.
#[derive(Default)]
pub(super) struct Throttle(Mutex<Window>);

#[derive(Default)]
struct Window {
    until: Option<Instant>,
    lines: u32,
    left_out: u64,
}

impl Throttle {
    /// Whether a line may be written now; if so, how many were left out since the last one.
    pub(super) fn admit(&self, now: Instant) -> Option<u64> {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if window.until.is_none_or(|until| until <= now) {
            window.until = Some(now + WINDOW);
            window.lines = 0;
        }
        if window.lines >= LINES_MAX {
            window.left_out += 1;
            return None;
        }
        window.lines += 1;
        Some(std::mem::take(&mut window.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_the_limit_are_counted_and_told_later() {
        let (throttle, start) = (Throttle::default(), Instant::now());
        for _ in 0..LINES_MAX {
            assert_eq!(throttle.admit(start), Some(0));
        }
        for _ in 0..7 {
            assert_eq!(throttle.admit(start + WINDOW / 2), None);
        }
        assert_eq!(throttle.admit(start + WINDOW), Some(7));
        assert_eq!(throttle.admit(start + WINDOW), Some(0));
    }
}
