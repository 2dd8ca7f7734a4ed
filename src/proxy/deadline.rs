//! The deadlines of a connection, and of each request on it.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::exchange::Exchange;
use crate::runtime::Runtime;

/// How much longer than its route's timeout a request lives before its connection is cut. At the timeout
/// itself it is given up, and answered with 504; this is for requests that are past answering, because the
/// response is under way or the client does not read. It is, too, for an upload that the upstream does not
/// take: nobody reads the client then, so that nobody is told.
const CUT_GRACE: Duration = Duration::from_millis(250);

/// What Pingora makes of one request.
type Request<'a, T> = Pin<Box<dyn Future<Output = Option<T>> + Send + 'a>>;

/// Lets a request run to its end; gives it up at its deadline, which may be moved meanwhile, and cuts it off
/// soon after. `None` when it was cut off, too.
pub(super) async fn carry<T>(
    mut request: Request<'_, T>,
    exchange: &Exchange,
    alarm: &mut Alarm,
    runtime: &Runtime,
) -> Option<T> {
    let mut is_late = false;
    poll_fn(|context| {
        loop {
            if let Poll::Ready(ended) = request.as_mut().poll(context) {
                return Poll::Ready(ended);
            }
            let Some(deadline) = exchange.deadline() else { return Poll::Pending };
            let until = if is_late { deadline + CUT_GRACE } else { deadline };
            if alarm.poll_until(context, runtime.instant(until).into()).is_pending() {
                return Poll::Pending;
            }
            if is_late {
                exchange.note_cut();
                return Poll::Ready(None);
            }
            // Polled once more, it finds out by itself, and answers.
            is_late = true;
            exchange.note_late();
        }
    })
    .await
}

/// One timer per connection, moved as seldom as possible.
///
/// Deadlines of a busy connection move forward all the time. Setting a timer for each would cost more
/// than the checks: so the timer stays where it is while it is early enough, and when it goes off too
/// early it is set again.
pub(super) struct Alarm {
    sleep: Pin<Box<Sleep>>,
}

impl Alarm {
    /// Set for the first time.
    pub(super) fn new(until: Instant) -> Self {
        Self { sleep: Box::pin(sleep_until(until)) }
    }

    /// Ready once `until` has come; whoever polls last decides until when.
    pub(super) fn poll_until(&mut self, context: &mut Context<'_>, until: Instant) -> Poll<()> {
        if until < self.sleep.deadline() {
            self.sleep.as_mut().reset(until);
        }
        while self.sleep.as_mut().poll(context).is_ready() {
            if Instant::now() >= until {
                return Poll::Ready(());
            }
            self.sleep.as_mut().reset(until);
        }
        Poll::Pending
    }
}
