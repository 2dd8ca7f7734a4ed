//! A connection is opened and closed.

use tokio::net::{TcpStream, UnixStream};

use super::{Answer, is_local};
use crate::config::UpstreamAddress;

/// Asks whether somebody accepts connections.
pub(super) async fn ask(address: &UpstreamAddress) -> Answer {
    let connected = match address {
        UpstreamAddress::Tcp(address) => TcpStream::connect(address).await.map(drop),
        UpstreamAddress::Unix(path) => UnixStream::connect(path).await.map(drop),
    };
    match connected {
        Ok(()) => Answer::Well,
        Err(error) if is_local(&error) => Answer::NotAsked(error.to_string()),
        Err(error) => Answer::Sick(format!("connect: {error}")),
    }
}
