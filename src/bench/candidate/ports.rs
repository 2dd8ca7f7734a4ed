//! Addresses that nobody listens on.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::ops::Range;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use super::super::error::BenchError;

/// Below what Linux (32768 up) and macOS (49152 up) hand out by themselves: the port of an outgoing
/// connection, of which a bench has thousands, is never among them.
const PORTS: Range<u16> = 20_000..32_000;
/// Random ports that are tried.
const TRIES: usize = 1_000;
/// Loopback answers or refuses at once.
const PATIENCE: Duration = Duration::from_millis(200);

/// Given out before, and so perhaps about to be used.
static GIVEN: LazyLock<Mutex<HashSet<u16>>> = LazyLock::new(Mutex::default);

/// An address on loopback that is given out once, and on which nobody listens now.
pub(super) fn free() -> Result<SocketAddr, BenchError> {
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..TRIES {
        let port = fastrand::u16(PORTS);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        // Asked by connecting: whoever binds it to ask holds it for a moment, and a child process that is
        // being started just then for longer.
        if TcpStream::connect_timeout(&address, PATIENCE).is_err() && given.insert(port) {
            return Ok(address);
        }
    }
    let what = format!("no port between {} and {} is free on 127.0.0.1", PORTS.start, PORTS.end);
    Err(BenchError::Wrong(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_address_is_given_out_twice() {
        let all: HashSet<SocketAddr> = (0..50).map(|_| free().expect("a port")).collect();
        assert_eq!(all.len(), 50);
    }
}
