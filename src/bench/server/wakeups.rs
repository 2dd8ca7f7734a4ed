//! Wakes tasks to the microsecond: one alarm for all who sleep, and a heap of who is next.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Instant;

use tokio::sync::Notify;

use crate::bench::clock::Alarm;

/// All who sleep on this thread.
#[derive(Default)]
pub(super) struct Wakeups {
    heap: RefCell<BinaryHeap<Reverse<Wakeup>>>,
    numbers: Cell<u64>,
    /// Somebody wants to be woken before everybody else.
    is_sooner: Notify,
}

/// One after another may sleep here; kept by a connection, so that a request allocates nothing for it.
#[derive(Default)]
pub(super) struct Bed {
    /// The number of the wake-up that is waited for; 0: none. One that nobody waits for any more is not taken
    /// for that of the next sleeper.
    awaited: Cell<u64>,
    waker: RefCell<Option<Waker>>,
}

struct Wakeup {
    at: Instant,
    number: u64,
    bed: Rc<Bed>,
}

impl Wakeups {
    /// Returns at `when`. Those who sleep until the same moment wake in the order in which they lay down.
    pub(super) async fn at(&self, when: Instant, bed: &Rc<Bed>) {
        let number = self.numbers.get() + 1;
        self.numbers.set(number);
        bed.awaited.set(number);
        self.push(Wakeup { at: when, number, bed: Rc::clone(bed) });
        poll_fn(|context| {
            if bed.awaited.get() != number {
                return Poll::Ready(());
            }
            let mut waker = bed.waker.borrow_mut();
            match &mut *waker {
                Some(known) => known.clone_from(context.waker()),
                none => *none = Some(context.waker().clone()),
            }
            Poll::Pending
        })
        .await;
    }

    fn push(&self, wakeup: Wakeup) {
        let mut heap = self.heap.borrow_mut();
        let is_first = heap.peek().is_none_or(|Reverse(first)| wakeup < *first);
        heap.push(Reverse(wakeup));
        if is_first {
            self.is_sooner.notify_one();
        }
    }

    /// Wakes whose time has come, for ever. Runs once.
    pub(super) async fn run(&self, mut alarm: Alarm) {
        loop {
            match self.wake_all_until(Instant::now()) {
                None => self.is_sooner.notified().await,
                Some(next) => tokio::select! {
                    biased;
                    () = self.is_sooner.notified() => {}
                    rung = alarm.at(next) => if rung.is_err() {
                        // Late by a millisecond or two, which the figures of doubt will show.
                        tokio::time::sleep_until(next.into()).await;
                    },
                },
            }
        }
    }

    /// Says who is next.
    fn wake_all_until(&self, now: Instant) -> Option<Instant> {
        let mut heap = self.heap.borrow_mut();
        while let Some(Reverse(first)) = heap.peek() {
            if first.at > now {
                return Some(first.at);
            }
            if let Some(Reverse(wakeup)) = heap.pop() {
                wakeup.bed.wake(wakeup.number);
            }
        }
        None
    }
}

impl Bed {
    fn wake(&self, number: u64) {
        if self.awaited.get() == number {
            self.awaited.set(0);
            if let Some(waker) = &*self.waker.borrow() {
                waker.wake_by_ref();
            }
        }
    }
}

impl Ord for Wakeup {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at).then(self.number.cmp(&other.number))
    }
}

impl PartialOrd for Wakeup {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Wakeup {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Wakeup {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Each in a task of its own, as connections are; all lie down before anybody is woken.
    #[tokio::test]
    async fn sleepers_wake_in_the_order_of_their_time() {
        let (wakeups, order) = (Rc::new(Wakeups::default()), Rc::new(RefCell::new(Vec::new())));
        let start = Instant::now();
        let tasks = tokio::task::LocalSet::new();
        for time in [30, 10, 20, 0, 10].map(Duration::from_millis) {
            let (wakeups, order) = (Rc::clone(&wakeups), Rc::clone(&order));
            tasks.spawn_local(async move {
                wakeups.at(start + time, &Rc::default()).await;
                assert!(start.elapsed() >= time);
                order.borrow_mut().push(time.as_millis());
            });
        }
        let driver = tasks.spawn_local(async move { wakeups.run(Alarm::new().expect("a timer")).await });
        let all_woke = async {
            while order.borrow().len() < 5 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tasks.run_until(tokio::time::timeout(Duration::from_secs(60), all_woke)).await.expect("all wake");
        driver.abort();
        assert_eq!(*order.borrow(), [0, 10, 10, 20, 30]);
    }

    /// A client that gives up leaves its wake-up behind.
    #[tokio::test]
    async fn a_wakeup_of_before_wakes_nobody_else() {
        let wakeups = Wakeups::default();
        let bed = Rc::new(Bed::default());
        let start = Instant::now();
        let play = async {
            tokio::select! {
                biased;
                () = wakeups.at(start + Duration::from_millis(5), &bed) => unreachable!("it is too early"),
                () = std::future::ready(()) => {}
            }
            wakeups.at(start + Duration::from_millis(20), &bed).await;
            assert!(start.elapsed() >= Duration::from_millis(20));
        };
        tokio::select! {
            () = play => {}
            () = wakeups.run(Alarm::new().expect("a timer")) => {}
        }
    }
}
