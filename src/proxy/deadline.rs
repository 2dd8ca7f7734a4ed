//! The deadlines of a connection, and of each request on it.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use pingora::server::ShutdownWatch;
use tokio::time::{Instant, Sleep, sleep_until};

use super::exchange::Exchange;
use super::http1::stopping;
use crate::runtime::Runtime;

/// How much longer than its route's timeout a request lives before its connection is cut. At the timeout
/// itself it is given up, and answered with 504; this is for requests whose response is under way or whose
/// client does not read. It is, too, for an upload that the upstream does not take: Pingora reads nothing then,
/// and finds nothing out, so that it is answered by whoever carries it.
const CUT_GRACE: Duration = Duration::from_millis(250);

/// How long before the end of a drain both ends of a tunnel are told, if the drain is at least twice as long:
/// time enough to answer, and to close in good order.
const FAREWELL: Duration = Duration::from_secs(5);

/// What Pingora makes of one request.
type Request<'a, T> = Pin<Box<dyn Future<Output = Option<T>> + Send + 'a>>;

/// Lets a request run to its end; gives it up at its deadline, which may be moved meanwhile, and cuts it off
/// soon after, or when the process ends. `None` when it was cut off, too.
pub(super) async fn carry<T>(
    mut request: Request<'_, T>,
    exchange: &Exchange,
    alarm: &mut Alarm,
    runtime: &Runtime,
    shutdown: &ShutdownWatch,
) -> Option<T> {
    let (mut lateness, mut stall, mut farewell) =
        (Lateness::default(), Stall::default(), Farewell::default());
    let mut end_of_all = pin!(runtime.until_cut());
    poll_fn(|context| {
        loop {
            if let Poll::Ready(ended) = request.as_mut().poll(context) {
                return Poll::Ready(ended);
            }
            if end_of_all.as_mut().poll(context).is_ready() {
                return Poll::Ready(None);
            }
            if farewell.is_due(exchange, runtime, shutdown, alarm, context) {
                // Polled once more, the tunnel says it.
                exchange.say_farewell();
                continue;
            }
            let stalled_until = stall.until(exchange, runtime);
            let due = lateness.follow(exchange);
            let Some(until) = due.into_iter().chain(stalled_until).min() else { return Poll::Pending };
            if alarm.poll_until(context, runtime.instant(until).into()).is_pending() {
                return Poll::Pending;
            }
            if lateness.is_told() || stalled_until == Some(until) {
                exchange.note_cut();
                return Poll::Ready(None);
            }
            // Polled once more, it finds out by itself, and answers.
            lateness.tell(exchange);
        }
    })
    .await
}

/// Whether the request knows that it is late.
#[derive(Default)]
struct Lateness {
    /// When it was due.
    told: Option<Duration>,
}

impl Lateness {
    /// When something has to be done. If what is due has moved, such as by another attempt, it is not late.
    fn follow(&mut self, exchange: &Exchange) -> Option<Duration> {
        let due = exchange.due();
        if self.told.is_some() && self.told != due {
            self.told = None;
            exchange.set_late(false);
        }
        if self.is_told() { due.map(|due| due + CUT_GRACE) } else { due }
    }

    const fn is_told(&self) -> bool {
        self.told.is_some()
    }

    fn tell(&mut self, exchange: &Exchange) {
        self.told = exchange.due();
        exchange.set_late(true);
    }
}

/// A client that takes nothing of what we have for it.
#[derive(Default)]
struct Stall {
    number: u32,
    until: Option<Duration>,
}

impl Stall {
    /// When it has been too long.
    fn until(&mut self, exchange: &Exchange, runtime: &Runtime) -> Option<Duration> {
        let number = exchange.stall();
        if number != self.number {
            let now = runtime.now();
            self.number = number;
            self.until =
                Some(exchange.stall_max()).filter(|_| number > 0).map(|most| now.saturating_add(most));
            // Nobody listened meanwhile.
            exchange.note_heard(now);
        }
        self.until
    }
}

/// Waits until a drain that has begun is about to end; only for tunnels, which would go on for ever.
#[derive(Default)]
enum Farewell {
    #[default]
    NotYet,
    Waiting(Pin<Box<dyn Future<Output = ()> + Send>>),
    At(Duration),
    Said,
}

impl Farewell {
    /// `true` once, when it is time.
    fn is_due(
        &mut self,
        exchange: &Exchange,
        runtime: &Runtime,
        shutdown: &ShutdownWatch,
        alarm: &mut Alarm,
        context: &mut Context<'_>,
    ) -> bool {
        if !exchange.is_tunnel() {
            return false;
        }
        if matches!(self, Self::NotYet) {
            *self = Self::Waiting(Box::pin(stopping(shutdown.clone())));
        }
        if let Self::Waiting(stopping) = self
            && stopping.as_mut().poll(context).is_ready()
        {
            let drain = runtime.peek().config.server.drain_timeout;
            *self = Self::At(runtime.now() + drain.saturating_sub(FAREWELL.min(drain / 2)));
        }
        let Self::At(time) = *self else { return false };
        let is_due = alarm.poll_until(context, runtime.instant(time).into()).is_ready();
        if is_due {
            *self = Self::Said;
        }
        is_due
    }
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
