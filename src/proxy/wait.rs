//! PICK, where picking may have to wait.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use super::context::RequestContext;
use super::steps::{self, Draw, NotYet};
use crate::observe::Reason;
use crate::runtime::Runtime;

/// Picks, and waits where waiting helps: in the pool's queue, or for the first health check.
pub(super) async fn pick(runtime: &Runtime, ctx: &mut RequestContext) -> Result<(), Reason> {
    // Nothing waits between the head and the first pick, so the clock need not be read again.
    let now = if ctx.attempts == 0 { ctx.started } else { runtime.now() };
    match steps::pick(now, draw(), ctx) {
        Ok(()) => Ok(()),
        Err(NotYet::Refused(reason)) => Err(reason),
        Err(NotYet::Unchecked) => pick_after_first_check(runtime, ctx).await,
        Err(NotYet::Full) => pick_from_queue(runtime, ctx).await,
    }
}

/// After a start, or after a change that replaced every upstream: the new ones are asked at once, and a
/// moment's wait is better than a 503.
async fn pick_after_first_check(runtime: &Runtime, ctx: &mut RequestContext) -> Result<(), Reason> {
    let until = runtime.now() + FIRST_CHECK_WAIT.min(left(runtime, ctx));
    while runtime.now() < until {
        tokio::time::sleep(FIRST_CHECK_POLL).await;
        ctx.move_on();
        match steps::pick(runtime.now(), draw(), ctx) {
            Ok(()) => return Ok(()),
            Err(NotYet::Unchecked) => {}
            Err(NotYet::Full) => return pick_from_queue(runtime, ctx).await,
            Err(NotYet::Refused(reason)) => return Err(reason),
        }
    }
    Err(Reason::NoEligibleUpstream)
}

async fn pick_from_queue(runtime: &Runtime, ctx: &mut RequestContext) -> Result<(), Reason> {
    let snapshot = ctx.snapshot.clone();
    let pool = ctx.pool.and_then(|index| snapshot.pool(index)).ok_or(Reason::NoRoute)?;
    let settings = &pool.config.queue;
    let Some(place) = pool.state.queue.enter(settings.max) else { return Err(Reason::QueueFull) };
    // Whoever waits past its route's timeout is cut off without an answer.
    let wait = settings.timeout.min(left(runtime, ctx));
    let turn = poll_fn(|task| {
        place.sleep(task.waker());
        match steps::pick(runtime.now(), draw(), ctx) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(NotYet::Full) => Poll::Pending,
            Err(NotYet::Unchecked) => Poll::Ready(Err(Reason::NoEligibleUpstream)),
            Err(NotYet::Refused(reason)) => Poll::Ready(Err(reason)),
        }
    });
    tokio::time::timeout(wait, turn).await.unwrap_or(Err(Reason::QueueFull))
}

fn draw() -> Draw {
    Draw { strategy: fastrand::u64(..), sample: fastrand::u64(..) }
}

/// What is left of the route's timeout.
fn left(runtime: &Runtime, ctx: &RequestContext) -> Duration {
    ctx.deadline().unwrap_or(Duration::MAX).saturating_sub(runtime.now())
}

/// How long a request waits for the first health check of anybody; a probe's usual timeout.
const FIRST_CHECK_WAIT: Duration = Duration::from_secs(5);

/// How often a request looks whether one has passed.
const FIRST_CHECK_POLL: Duration = Duration::from_millis(10);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::{Source, parse};

    const TEXT: &str = "[listeners.http]\naddress = \"127.0.0.1:8080\"\n[pools.app]\nqueue = { max = 9, timeout = \"5s\" }\nupstreams = [{ address = \"127.0.0.1:9001\", max_connections = 1 }]\n";

    async fn served(runtime: &Arc<Runtime>) -> Result<(), Reason> {
        let mut ctx = RequestContext::new(runtime);
        (ctx.route, ctx.pool) = (Some(0), Some(0));
        pick(runtime, &mut ctx).await?;
        tokio::time::sleep(Duration::from_millis(20)).await;
        Ok(())
    }

    /// The one place goes to one of them; the others wait in line like anybody else.
    #[tokio::test]
    async fn who_waited_for_the_first_check_may_wait_in_the_queue_too() {
        let source = Source { name: String::new(), text: TEXT.to_owned(), folder: ".".into() };
        let runtime = Arc::new(Runtime::new(parse(&source, &|_| None).unwrap(), 1, 0, None));
        let state = runtime.snapshot().pool(0).unwrap().upstreams()[0].state.clone();
        let comes_up = async {
            tokio::time::sleep(Duration::from_millis(30)).await;
            state.verdict.observe(true, 1, 1);
        };
        let (one, other, ()) = tokio::join!(served(&runtime), served(&runtime), comes_up);
        assert_eq!((one, other), (Ok(()), Ok(())));
    }
}
