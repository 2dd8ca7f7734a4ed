//! Requests that wait for room at the upstreams of a pool.
//!
//! Nobody waits unless every upstream is at its `max_connections` and the pool has a `queue`; then one
//! waits in line for each lease that is given back. Where nobody waits, giving back a lease costs one
//! atomic load.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Waker;

/// The line in front of one pool.
#[derive(Debug, Default)]
pub struct Queue {
    /// Requests that hold a [`Place`].
    waiting: AtomicUsize,
    /// How many places were ever taken, which numbers them.
    taken: AtomicU64,
    asleep: Mutex<VecDeque<(u64, Waker)>>,
}

/// A place in line; gives way to the next when dropped.
#[derive(Debug)]
pub struct Place<'a> {
    queue: &'a Queue,
    number: u64,
}

impl Queue {
    /// Takes a place unless `max` are taken.
    pub fn enter(&self, max: usize) -> Option<Place<'_>> {
        let entered = self.waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, |waiting| {
            (waiting < max).then_some(waiting + 1)
        });
        entered.ok().map(|_| Place { queue: self, number: self.taken.fetch_add(1, Ordering::Relaxed) })
    }

    /// Requests that wait.
    pub fn len(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Room was made: the first in line looks again.
    pub fn wake_one(&self) {
        if self.is_empty() {
            return;
        }
        let waker = self.asleep.lock().ok().and_then(|mut asleep| asleep.pop_front());
        if let Some((_, waker)) = waker {
            waker.wake();
        }
    }
}

impl Place<'_> {
    /// Wakes `waker` when room is made. Look for room once more after this: it may have been made
    /// just before.
    pub fn sleep(&self, waker: &Waker) {
        if let Ok(mut asleep) = self.queue.asleep.lock() {
            match asleep.iter_mut().find(|(number, _)| *number == self.number) {
                Some((_, known)) => known.clone_from(waker),
                None => asleep.push_back((self.number, waker.clone())),
            }
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.queue.waiting.fetch_sub(1, Ordering::AcqRel);
        // Room that is made later is not for one who has left.
        if let Ok(mut asleep) = self.queue.asleep.lock() {
            asleep.retain(|(number, _)| *number != self.number);
        }
        // Whoever leaves may have been woken for room that it does not take.
        self.queue.wake_one();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicU32);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn only_so_many_wait() {
        let queue = Queue::default();
        let first = queue.enter(2).unwrap();
        let second = queue.enter(2).unwrap();
        assert!(queue.enter(2).is_none());
        drop(first);
        assert!(queue.enter(2).is_some());
        drop(second);
        assert!(queue.is_empty());
    }

    #[test]
    fn room_goes_to_one_who_still_waits() {
        let queue = Queue::default();
        let woken: Vec<_> = (0..3).map(|_| Arc::new(Woken::default())).collect();
        let mut places: Vec<_> = woken
            .iter()
            .map(|woken| {
                let place = queue.enter(3).unwrap();
                place.sleep(&woken.clone().into());
                place
            })
            .collect();
        // The second and the third are cut off; the first is looked at again for each, and finds nothing.
        for _ in 0..2 {
            places.pop();
            places[0].sleep(&woken[0].clone().into());
        }
        let before = woken[0].0.load(Ordering::Relaxed);
        queue.wake_one();
        assert_eq!(woken[0].0.load(Ordering::Relaxed), before + 1);
    }

    #[test]
    fn whoever_leaves_hands_the_turn_on() {
        let queue = Queue::default();
        let (woken_first, woken_second) = (Arc::new(Woken::default()), Arc::new(Woken::default()));
        let first = queue.enter(2).unwrap();
        let second = queue.enter(2).unwrap();
        first.sleep(&woken_first.clone().into());
        second.sleep(&woken_second.clone().into());

        queue.wake_one();
        assert_eq!(woken_first.0.load(Ordering::Relaxed), 1);
        drop(first);
        assert_eq!(woken_second.0.load(Ordering::Relaxed), 1);
        drop(second);
    }
}
