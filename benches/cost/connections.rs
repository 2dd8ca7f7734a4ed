//! Many clients that have asked once and now say nothing.

use std::io;
use std::net::{SocketAddr, TcpStream};

use super::exchange;
use super::process::Failure;

/// Opens so many connections, each of which makes one request and stays.
pub(crate) fn hold(address: SocketAddr, count: usize) -> Result<Vec<TcpStream>, Failure> {
    let connections: io::Result<Vec<TcpStream>> =
        (0..count).map(|_| exchange::connection_after_one_request(address)).collect();
    connections.map_err(|error| {
        Failure::Broken(format!(
            "cannot hold {count} connections to {address}: {error}\n  = help: `ulimit -n` must allow \
             {count} and a few more; raise it, or ask for fewer with --connections"
        ))
    })
}

/// Asks once more on every tenth of them: they must have been kept, not closed.
pub(crate) fn check_alive(connections: &mut [TcpStream]) -> Result<(), Failure> {
    connections
        .iter_mut()
        .step_by(10)
        .try_for_each(exchange::ask)
        .map_err(|error| Failure::Broken(format!("an idle connection was not kept: {error}")))
}
