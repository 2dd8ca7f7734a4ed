//! Who has connected: whoever is at the other end, or whom a trusted proxy announces in a PROXY header.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use pingora::protocols::Stream;
use pingora::protocols::l4;
use pingora::server::ShutdownWatch;
use tokio::io::AsyncReadExt;

use super::http1::stopping;
use crate::proxy_header::{self, Ends, Reading, Told, V2_BYTES_MAX};
use crate::runtime::{Listener, Runtime};

/// Who a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Client {
    /// The client's end, and the one that it connected to.
    pub ends: Ends,
    /// A proxy speaks for somebody whom it cannot name: the ends are those of the socket, and what the
    /// requests say about earlier hops may be anybody's word.
    pub is_unknown: bool,
}

impl Client {
    const fn at_the_socket(ends: Ends) -> Self {
        Self { ends, is_unknown: false }
    }

    const fn told(told: Told, socket: Ends) -> Self {
        match told {
            Told::Client(ends) => Self { ends, is_unknown: false },
            Told::Itself => Self::at_the_socket(socket),
            Told::Unknown => Self { ends: socket, is_unknown: true },
        }
    }
}

/// Whether this peer has to announce for whom it connects, and how long it may take.
fn has_to_announce(peer: SocketAddr, listener: &Listener, runtime: &Runtime) -> Option<Duration> {
    let snapshot = runtime.peek();
    let config = snapshot.config.listeners.get(listener.index)?;
    let peer = peer.ip().to_canonical();
    let has_to =
        config.proxy_protocol && config.trusted_proxies.iter().any(|network| network.contains(&peer));
    has_to.then_some(config.header_timeout)
}

/// Reads the PROXY header, if there has to be one; `None` when there is none, and the connection is to end, as it
/// is at `idle_end`.
pub(super) async fn client_of(
    socket: Stream,
    ends: Ends,
    listener: &Listener,
    runtime: &Runtime,
    idle_end: &ShutdownWatch,
) -> Option<(Stream, Client)> {
    let Some(time) = has_to_announce(ends.source, listener, runtime) else {
        return Some((socket, Client::at_the_socket(ends)));
    };
    // Boxed, so that connections of others have no room for it.
    let reading = Box::pin(tokio::time::timeout(time, announcement(socket)));
    let read = tokio::select! {
        read = reading => read.unwrap_or(Err("not in time")),
        () = stopping(idle_end.clone()) => return None,
    };
    match read {
        Ok(read) => read.map(|(socket, told)| (socket, Client::told(told, ends))),
        Err(why) => {
            listener.metrics.proxy_header_failed();
            tracing::debug!(listener = %listener.name, proxy = %ends.source.ip(), why, "no usable PROXY header");
            None
        }
    }
}

/// The header at the start of a connection, and the connection without it. `Ok(None)`: closed without a byte, as
/// by those who only look whether somebody listens.
async fn announcement(mut socket: Stream) -> Result<Option<(Stream, Told)>, &'static str> {
    let mut bytes = BytesMut::new();
    loop {
        match proxy_header::read(&bytes) {
            Reading::Complete { length, told } => {
                let rest = bytes.split_off(length);
                return Ok(Some((put_back(socket, &rest).ok_or("cannot be put back")?, told)));
            }
            Reading::Refused(why) => return Err(why),
            Reading::Partial => {}
        }
        // A header that takes more is refused before.
        let room = V2_BYTES_MAX.saturating_sub(bytes.len());
        match socket.read_buf(&mut (&mut bytes).limit(room)).await {
            Ok(0) if bytes.is_empty() => return Ok(None),
            Ok(0) | Err(_) => return Err("closed in the middle of it"),
            Ok(_) => {}
        }
    }
}

/// What follows the header belongs to TLS or HTTP.
fn put_back(socket: Stream, rest: &[u8]) -> Option<Stream> {
    if rest.is_empty() {
        return Some(socket);
    }
    let mut socket = socket.into_any().downcast::<l4::stream::Stream>().ok()?;
    socket.rewind(rest);
    Some(socket)
}
