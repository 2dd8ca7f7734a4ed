//! Places for connections to the side port. When all are taken, whoever has asked nothing for the longest time
//! makes room: so clients that keep connections open and say nothing never keep others out.

use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::sync::Notify;
use tokio::time::Instant;

/// See the module documentation.
pub(super) struct Places {
    most: usize,
    taken: Mutex<Vec<Arc<Seat>>>,
}

/// The place of one connection, given back when it is dropped.
pub(super) struct Place<'a> {
    all: &'a Places,
    pub seat: Arc<Seat>,
    /// Whether another connection had to leave.
    pub was_cleared: bool,
}

/// Whether a connection has a request under way, and since when it has none.
pub(super) struct Seat {
    busy: AtomicU32,
    idle_since: Mutex<Instant>,
    leave: Notify,
}

/// A request under way, to its answer's last byte.
pub(super) struct Busy(Arc<Seat>);

impl Places {
    pub(super) fn new(most: usize) -> Self {
        Self { most, taken: Mutex::default() }
    }

    /// A place for one more; `None` when each of them has a request under way.
    pub(super) fn take(&self) -> Option<Place<'_>> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let was_cleared = taken.len() >= self.most;
        if was_cleared {
            let idle = taken.iter().enumerate().filter_map(|(index, seat)| Some((index, seat.idle_since()?)));
            let (longest, _) = idle.min_by_key(|(_, since)| *since)?;
            taken.remove(longest).leave.notify_one();
        }
        let seat = Arc::new(Seat::new());
        taken.push(seat.clone());
        Some(Place { all: self, seat, was_cleared })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut taken = self.all.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.retain(|other| !Arc::ptr_eq(other, &self.seat));
    }
}

impl Seat {
    fn new() -> Self {
        Self { busy: AtomicU32::new(0), idle_since: Mutex::new(Instant::now()), leave: Notify::new() }
    }

    fn idle_since(&self) -> Option<Instant> {
        let since = *self.idle_since.lock().unwrap_or_else(PoisonError::into_inner);
        (self.busy.load(Ordering::Acquire) == 0).then_some(since)
    }

    /// Ready when another connection needs the place.
    pub(super) async fn asked_to_leave(&self) {
        self.leave.notified().await;
    }

    /// A request begins.
    pub(super) fn begin(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Ordering::AcqRel);
        Busy(self.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        *self.0.idle_since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.0.busy.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The body of an answer; with its end ends the request.
pub(super) struct Answer {
    pub body: Body,
    pub _busy: Busy,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn pass() {
        tokio::time::advance(Duration::from_secs(1)).await;
    }

    fn is_asked(place: &Place<'_>) -> bool {
        let mut asked = std::pin::pin!(place.seat.asked_to_leave());
        asked.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())).is_ready()
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_been_idle_for_the_longest_time_makes_room() {
        let places = Places::new(3);
        let first = places.take().unwrap();
        pass().await;
        let second = places.take().unwrap();
        pass().await;
        let third = places.take().unwrap();
        pass().await;
        drop(first.seat.begin());
        let busy = second.seat.begin();
        pass().await;

        let fourth = places.take().unwrap();

        assert!(fourth.was_cleared && !third.was_cleared);
        assert_eq!([&first, &second, &third].map(is_asked), [false, false, true]);
        drop((third, fourth, busy));
        assert_eq!(places.taken.lock().unwrap().len(), 2, "who left gives nothing back twice");
    }

    #[tokio::test]
    async fn nobody_is_sent_away_in_the_middle_of_a_request() {
        let places = Places::new(1);
        let only = places.take().unwrap();
        let busy = only.seat.begin();
        assert!(places.take().is_none());
        drop(busy);
        assert!(places.take().is_some());
    }
}
