//! Announces for whom we connect: a PROXY header, sent before anything else.

use std::borrow::Cow;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use pingora::connectors::l4::Connect;
use pingora::protocols::l4::ext;
use pingora::protocols::l4::socket::SocketAddr as PeerAddress;
use pingora::protocols::l4::stream::Stream;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType};
use tokio::io::AsyncWriteExt;

use crate::proxy_header::{self, Ends, Version};

/// Of keys that nobody can guess: a client that chose its address so that it has the key of another's would be
/// taken for that other one.
static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Connects and sends these bytes.
#[derive(Debug)]
struct Announcing(Cow<'static, [u8]>);

/// Lets connections to this peer begin with a header that tells of a client.
///
/// The upstream takes whatever comes on such a connection for that client's, so nobody else may use it: it is
/// kept for the client's connection, which is known by its ends.
pub(super) fn announce(version: Version, ends: &Ends, peer: &mut HttpPeer) {
    let header = proxy_header::write(version, ends);
    peer.group_key = KEYS.hash_one((peer.group_key, &header));
    peer.options.custom_l4 = Some(Arc::new(Announcing(header.into())));
}

/// Lets a connection to this peer begin with a header that tells of nobody: it is our own.
pub(super) fn announce_own(version: Version, peer: &mut HttpPeer) {
    let header = proxy_header::write_own(version);
    peer.options.custom_l4 = Some(Arc::new(Announcing(header.into())));
}

#[async_trait]
impl Connect for Announcing {
    async fn connect(&self, address: &PeerAddress) -> pingora::Result<Stream> {
        // The time for both is bounded by Pingora (`total_connection_timeout`).
        let mut stream: Stream = match address {
            PeerAddress::Inet(address) => connect_tcp(address).await?.into(),
            PeerAddress::Unix(address) => {
                let path = address.as_pathname().ok_or_else(|| Error::new(ErrorType::SocketError))?;
                ext::connect_uds(path).await?.into()
            }
        };
        let sent = async {
            stream.write_all(&self.0).await?;
            stream.flush().await
        };
        match sent.await {
            Ok(()) => Ok(stream),
            Err(error) => Err(Error::because(ErrorType::ConnectError, "sending a PROXY header", error)),
        }
    }
}

async fn connect_tcp(address: &SocketAddr) -> pingora::Result<tokio::net::TcpStream> {
    let stream = ext::connect(address, None).await?;
    // The header is small, and the request should not wait for its acknowledgement.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}
