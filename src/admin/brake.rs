//! Slows down those who guess: after a few wrong tokens, no short one from their address is looked at for a while.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Wrong tokens from one address within [`WINDOW`]; after them none that somebody could guess is looked at. Enough for a person who
/// pastes the wrong line, and some 2.6 million guesses a year: of secrets as long as ours, that is nothing.
pub(super) const FAILURES_MAX: u32 = 5;

/// From the first wrong token on; at its end all is forgotten.
const WINDOW: Duration = Duration::from_secs(60);

/// Addresses that are remembered, some 40 bytes each. Beyond that the one that would be forgotten first
/// makes room: whoever has a thousand addresses is not stopped by counting them.
const PEERS_MAX: usize = 1_024;

/// The wrong tokens of late, by where they came from.
#[derive(Default)]
pub(super) struct Brake(Mutex<HashMap<IpAddr, Failures>>);

struct Failures {
    count: u32,
    until: Instant,
}

impl Brake {
    /// How long this address has to wait before a short token from it is looked at.
    pub(super) fn wait(&self, peer: IpAddr, now: Instant) -> Option<Duration> {
        let peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let failures = peers.get(&household(peer)).filter(|failures| failures.count >= FAILURES_MAX)?;
        failures.until.checked_duration_since(now).filter(|wait| !wait.is_zero())
    }

    /// A wrong token came from this address.
    pub(super) fn failed(&self, peer: IpAddr, now: Instant) {
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let peer = household(peer);
        if peers.len() >= PEERS_MAX && !peers.contains_key(&peer) {
            make_room(&mut peers, now);
        }
        let fresh = || Failures { count: 0, until: now + WINDOW };
        let failures = peers.entry(peer).or_insert_with(fresh);
        if failures.until <= now {
            *failures = fresh();
        }
        failures.count = failures.count.saturating_add(1);
    }
}

fn make_room(peers: &mut HashMap<IpAddr, Failures>, now: Instant) {
    peers.retain(|_, failures| failures.until > now);
    if peers.len() >= PEERS_MAX {
        let first = peers.iter().min_by_key(|(_, failures)| failures.until).map(|(peer, _)| *peer);
        first.and_then(|first| peers.remove(&first));
    }
}

/// The address of an IPv4 host; of IPv6 the first half, which one host has to itself.
fn household(peer: IpAddr) -> IpAddr {
    const FIRST_HALF: u128 = !(u64::MAX as u128);
    match peer.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & FIRST_HALF)),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn host(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    fn fail(brake: &Brake, peer: IpAddr, times: u32, now: Instant) {
        (0..times).for_each(|_| brake.failed(peer, now));
    }

    #[test]
    fn the_last_failure_of_a_minute_closes_the_door_for_its_rest() {
        let (brake, start) = (Brake::default(), Instant::now());
        fail(&brake, host(1), FAILURES_MAX - 1, start);
        assert_eq!(brake.wait(host(1), start), None);
        brake.failed(host(1), start + Duration::from_secs(20));
        assert_eq!(brake.wait(host(1), start + Duration::from_secs(20)), Some(Duration::from_secs(40)));
        assert_eq!(brake.wait(host(2), start), None, "others are not affected");
        assert_eq!(brake.wait(host(1), start + WINDOW), None);
    }

    #[test]
    fn after_a_minute_all_is_forgotten() {
        let (brake, start) = (Brake::default(), Instant::now());
        fail(&brake, host(1), FAILURES_MAX, start);
        brake.failed(host(1), start + WINDOW);
        assert_eq!(brake.wait(host(1), start + WINDOW), None);
        fail(&brake, host(1), FAILURES_MAX - 1, start + WINDOW);
        assert_eq!(brake.wait(host(1), start + WINDOW), Some(WINDOW));
    }

    #[test]
    fn however_many_fail_the_table_does_not_grow() {
        let (brake, start) = (Brake::default(), Instant::now());
        let many = u32::try_from(PEERS_MAX).unwrap() + 100;
        for number in 0..many {
            fail(&brake, host(number), FAILURES_MAX, start + Duration::from_millis(number.into()));
        }
        assert_eq!(brake.0.lock().unwrap().len(), PEERS_MAX);
        let now = start + Duration::from_secs(2);
        assert!(brake.wait(host(many - 1), now).is_some());
        assert!(brake.wait(host(0), now).is_none(), "the oldest made room");
        brake.failed(host(many), start + 2 * WINDOW);
        assert_eq!(brake.0.lock().unwrap().len(), 1, "what is over makes room first");
    }

    #[test]
    fn an_ipv6_host_has_many_addresses_and_one_brake() {
        let (brake, now) = (Brake::default(), Instant::now());
        fail(&brake, "2001:db8::1".parse().unwrap(), FAILURES_MAX, now);
        assert!(brake.wait("2001:db8::ffff:2".parse().unwrap(), now).is_some());
        assert!(brake.wait("2001:db8:0:1::1".parse().unwrap(), now).is_none());
        fail(&brake, "::ffff:10.0.0.1".parse().unwrap(), FAILURES_MAX, now);
        assert!(brake.wait("10.0.0.1".parse().unwrap(), now).is_some());
        assert!(brake.wait("::ffff:10.0.0.2".parse().unwrap(), now).is_none());
    }
}
