//! A connection is opened and closed.

use std::io;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};

use super::{Answer, is_local};
use crate::config::UpstreamAddress;
use crate::proxy_header::{Version, write_own};

/// Asks whether somebody accepts connections; one who expects a PROXY header gets one.
pub(super) async fn ask(address: &UpstreamAddress, proxy_protocol: Option<Version>) -> Answer {
    let header = proxy_protocol.map_or(&[][..], write_own);
    match connect(address, header).await {
        Ok(()) => Answer::Well,
        Err(error) if is_local(&error) => Answer::NotAsked(error.to_string()),
        Err(error) => Answer::Sick(format!("connect: {error}")),
    }
}

async fn connect(address: &UpstreamAddress, header: &[u8]) -> io::Result<()> {
    match address {
        UpstreamAddress::Tcp(address) => TcpStream::connect(address).await?.write_all(header).await,
        UpstreamAddress::Unix(path) => UnixStream::connect(path).await?.write_all(header).await,
    }
}
