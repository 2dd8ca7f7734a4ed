//! The PROXY header that an upstream expects, of probes: nobody's connection.

use std::sync::Arc;

use async_trait::async_trait;
use pingora::connectors::l4::Connect;
use pingora::protocols::l4::ext;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType};
use tokio::io::AsyncWriteExt;

use crate::proxy_header::{Version, write_own};

/// Connects and sends these bytes; the probe's timeout bounds both.
#[derive(Debug)]
struct Announcing(&'static [u8]);

/// Lets connections to this peer begin with a header, if the upstream expects one.
pub(super) fn announce(version: Option<Version>, peer: &mut HttpPeer) {
    if let Some(version) = version {
        peer.options.custom_l4 = Some(Arc::new(Announcing(write_own(version))));
    }
}

#[async_trait]
impl Connect for Announcing {
    async fn connect(&self, address: &SocketAddr) -> pingora::Result<Stream> {
        let mut stream: Stream = match address {
            SocketAddr::Inet(address) => ext::connect(address, None).await?.into(),
            SocketAddr::Unix(address) => {
                let path = address.as_pathname().ok_or_else(|| Error::new(ErrorType::SocketError))?;
                ext::connect_uds(path).await?.into()
            }
        };
        let sent = async {
            stream.write_all(self.0).await?;
            stream.flush().await
        };
        match sent.await {
            Ok(()) => Ok(stream),
            Err(error) => Err(Error::because(ErrorType::ConnectError, "sending a PROXY header", error)),
        }
    }
}
