//! The ports that Evener takes when nobody names one. A machine has each of them once.

use std::net::TcpListener;
use std::time::Duration;

use super::wait_until;

/// How long somebody else may need them: other plays, and other runs of them.
const PATIENCE: Duration = Duration::from_secs(120);

/// Whoever listens here may start on the default ports. Just below those that the rig gives out.
const TURN: u16 = 11_999;

/// Leave to start on the default ports; other plays, and other runs of them, wait until it is dropped.
pub(crate) struct DefaultPorts {
    _turn: TcpListener,
}

impl DefaultPorts {
    /// Waits for its turn, and until nobody listens on these ports.
    #[track_caller]
    pub(crate) fn free(ports: &[u16]) -> Self {
        let mut turn = None;
        wait_until(PATIENCE, || {
            turn = TcpListener::bind(("127.0.0.1", TURN)).ok();
            turn.is_some()
        });
        wait_until(PATIENCE, || ports.iter().all(|&port| TcpListener::bind(("0.0.0.0", port)).is_ok()));
        Self { _turn: turn.expect("waited for") }
    }
}
