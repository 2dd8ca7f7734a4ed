//! Clients that speak TLS: rustls on a blocking socket.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};

use super::certificates::{Authority, Issued};
use super::client::{Client, PATIENCE};
use super::wire::Socket;

/// A connection on which the handshake is done.
pub(crate) type TlsStream = StreamOwned<ClientConnection, TcpStream>;

/// What a client brings to its handshakes; it remembers their sessions.
#[derive(Clone)]
pub(crate) struct TlsClient(Arc<ClientConfig>);

impl TlsClient {
    /// Trusts this authority, and speaks TLS 1.2 and 1.3.
    pub(crate) fn trusting(authority: &Authority) -> Self {
        Self::with(authority, None, &[&TLS13, &TLS12])
    }

    /// As [`Self::trusting`], with TLS 1.2 alone.
    pub(crate) fn of_version_1_2(authority: &Authority) -> Self {
        Self::with(authority, None, &[&TLS12])
    }

    /// As [`Self::trusting`], with this certificate of its own.
    pub(crate) fn bearing(authority: &Authority, own: &Issued) -> Self {
        Self::with(authority, Some(own), &[&TLS13, &TLS12])
    }

    fn with(
        authority: &Authority,
        own: Option<&Issued>,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(authority.der.clone())).expect("an authority");
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots);
        let config = match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).expect("a key");
                let chain = vec![CertificateDer::from(own.der.clone())];
                builder.with_client_auth_cert(chain, key).expect("a certificate")
            }
        };
        Self(Arc::new(config))
    }

    /// The same, offering these protocols.
    pub(crate) fn offering(&self, protocols: &[&str]) -> Self {
        let mut config = (*self.0).clone();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Self(Arc::new(config))
    }

    /// Connects and shakes hands, asking for this host.
    ///
    /// With TLS 1.3 a server may still refuse afterwards, which the first read will tell.
    pub(crate) fn try_connect(&self, address: SocketAddr, host: &str) -> io::Result<TlsStream> {
        self.try_connect_after(b"", address, host)
    }

    /// As [`Self::try_connect`], with these bytes before the handshake, and in one piece with its beginning.
    pub(crate) fn try_connect_after(
        &self,
        before: &[u8],
        address: SocketAddr,
        host: &str,
    ) -> io::Result<TlsStream> {
        let mut socket = TcpStream::connect_timeout(&address, PATIENCE)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let name = ServerName::try_from(host.to_owned()).expect("a name");
        let mut connection = ClientConnection::new(self.0.clone(), name).map_err(io::Error::other)?;
        let mut first = before.to_vec();
        connection.write_tls(&mut first)?;
        socket.write_all(&first)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut socket)?;
        }
        Ok(StreamOwned::new(connection, socket))
    }

    #[track_caller]
    pub(crate) fn stream(&self, address: SocketAddr, host: &str) -> TlsStream {
        self.try_connect(address, host).unwrap_or_else(|error| panic!("no TLS with {host}: {error}"))
    }

    /// As [`Self::try_connect`], for requests.
    #[track_caller]
    pub(crate) fn connect(&self, address: SocketAddr, host: &str) -> Client {
        Client::over(Socket::Tls(Box::new(self.stream(address, host))), address)
    }

    /// The certificate that is shown to those who ask for this host.
    #[track_caller]
    pub(crate) fn certificate(&self, address: SocketAddr, host: &str) -> Vec<u8> {
        certificate_of(&self.stream(address, host))
    }

    /// Asks for `/`, so that tickets arrive, and says whether the handshake before went by an earlier session.
    #[track_caller]
    pub(crate) fn is_resumed(&self, address: SocketAddr, host: &str) -> bool {
        let stream = self.stream(address, host);
        let is_resumed = stream.conn.handshake_kind() == Some(HandshakeKind::Resumed);
        let mut client = Client::over(Socket::Tls(Box::new(stream)), address);
        drop(client.get("/").expect_status(200));
        is_resumed
    }
}

pub(crate) fn certificate_of(stream: &TlsStream) -> Vec<u8> {
    stream.conn.peer_certificates().and_then(<[_]>::first).expect("a certificate").to_vec()
}
