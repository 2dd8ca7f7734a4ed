//! TLS with a client: the handshake, and the socket that comes out of it.
//!
//! ```text
//!   socket ──► first byte ──► handshake, under its deadline ──► TlsSocket: to Pingora a socket like any other
//!                  └► a letter: HTTP in clear                        └► ClientTls: what the requests tell of it
//! ```

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use http::HeaderValue;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream,
    TimingDigest, UniqueID, UniqueIDType,
};
use ring::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;
use rustls::{HandshakeKind, ProtocolVersion, ServerConnection};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{headers, subject};
use crate::config::{AlpnProtocol, ListenerTlsConfig};
use crate::observe::HandshakeResult;
use crate::runtime::Listener;

/// What is known of a connection over TLS.
#[derive(Debug)]
pub(super) struct ClientTls {
    /// `TLSv1.3`
    pub version: &'static str,
    /// Whether the listener asks clients for a certificate.
    pub asks_for_certificates: bool,
    /// The client's certificate, which one of the listener's authorities has signed.
    pub certificate: Option<ClientCertificate>,
}

/// A client's certificate, ready to be told to upstreams.
#[derive(Debug)]
pub(super) struct ClientCertificate {
    /// Its subject (RFC 4514).
    pub subject: HeaderValue,
    /// The SHA-256 of it, in hexadecimal.
    pub fingerprint: HeaderValue,
}

/// Why there is no TLS on a socket.
pub(super) enum NoTls {
    /// The client speaks HTTP in clear; it can be told.
    InClear(Stream),
    /// Nobody is left to be told, or nothing that they would understand.
    Over,
}

/// Shakes hands as the listener is configured now. How it ended is counted; why it failed is for the debug log,
/// which a flood of scanners does not fill otherwise.
pub(super) async fn handshake(
    socket: Stream,
    config: Arc<ListenerTlsConfig>,
    listener: &Listener,
) -> Result<(Stream, ClientTls), NoTls> {
    let (result, outcome) = match timeout(config.handshake_timeout, attempt(socket, &config)).await {
        Ok(Ok((socket, tls))) => {
            let is_resumed = socket.connection().handshake_kind() == Some(HandshakeKind::Resumed);
            let result = if is_resumed { HandshakeResult::Resumed } else { HandshakeResult::Ok };
            let socket: Stream = Box::new(socket);
            (result, Ok((socket, tls)))
        }
        // Such as a check whether anybody listens: there was no handshake.
        Ok(Err(Failure::Left)) => return Err(NoTls::Over),
        Ok(Err(Failure::InClear(socket))) => (HandshakeResult::Failed, Err(NoTls::InClear(socket))),
        Ok(Err(Failure::Broken(error))) => {
            tracing::debug!(listener = %listener.name, %error, "TLS handshake failed");
            (HandshakeResult::Failed, Err(NoTls::Over))
        }
        Err(_) => {
            tracing::debug!(listener = %listener.name, "TLS handshake took too long");
            (HandshakeResult::TimedOut, Err(NoTls::Over))
        }
    };
    listener.metrics.handshake(result);
    outcome
}

enum Failure {
    /// Before its first byte.
    Left,
    InClear(Stream),
    Broken(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

async fn attempt(mut socket: Stream, config: &ListenerTlsConfig) -> Result<(TlsSocket, ClientTls), Failure> {
    let mut first = [0];
    socket.try_peek(&mut first).await.map_err(|_| Failure::Left)?;
    if first.iter().all(u8::is_ascii_alphabetic) {
        return Err(Failure::InClear(socket));
    }
    let socket = TlsSocket::new(TlsAcceptor::from(config.server().clone()).accept(socket).await?);
    let connection = socket.connection();
    let tls = ClientTls {
        version: version(connection),
        asks_for_certificates: config.client_ca.is_some(),
        certificate: connection
            .peer_certificates()
            .and_then(<[CertificateDer<'_>]>::first)
            .map(ClientCertificate::read)
            .transpose()?,
    };
    Ok((socket, tls))
}

fn version(connection: &ServerConnection) -> &'static str {
    match connection.protocol_version() {
        Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
        _ => "TLSv1.2",
    }
}

impl ClientCertificate {
    /// Of a certificate that rustls has verified, now or when the session began that is resumed now. Since then
    /// it may have ended; then the session ends with it.
    fn read(der: &CertificateDer<'_>) -> io::Result<Self> {
        let wrong =
            |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("client certificate {what}"));
        let (_, certificate) = X509Certificate::from_der(der).map_err(|_| wrong("cannot be read"))?;
        if !certificate.validity().is_valid() {
            return Err(wrong("is not valid any more"));
        }
        let subject = subject::text_of(certificate.subject());
        if subject.len() > SUBJECT_BYTES_MAX {
            return Err(wrong("has too long a subject"));
        }
        let fingerprint: Vec<[u8; 2]> =
            digest(&SHA256, der).as_ref().iter().copied().map(headers::in_hexadecimal).collect();
        let value = |text: &[u8]| HeaderValue::from_bytes(text).map_err(|_| wrong("cannot be told"));
        Ok(Self { subject: value(subject.as_bytes())?, fingerprint: value(fingerprint.as_flattened())? })
    }
}

/// Of a subject as a header: names are shorter, and upstreams take heads of 8 KiB at least.
const SUBJECT_BYTES_MAX: usize = 4 * 1024;

/// The bytes of a client, decrypted.
///
/// A head and the small body behind it are written one after the other; held back until somebody flushes, they go
/// out as one record.
pub(super) struct TlsSocket {
    tls: TlsStream<Stream>,
    /// Taken, and not yet encrypted; without a buffer while there is nothing.
    held: Vec<u8>,
}

/// Pieces up to this size are held back: copying one costs less than a record of its own, which is an allocation, a
/// seal and 22 bytes.
const SMALL_PIECE_BYTES: usize = 2 * 1024;

/// Held back at most: a quarter of the largest record.
const HELD_BYTES_MAX: usize = 4 * 1024;

impl TlsSocket {
    fn new(tls: TlsStream<Stream>) -> Self {
        Self { tls, held: Vec::new() }
    }

    fn socket(&self) -> &Stream {
        self.tls.get_ref().0
    }

    fn connection(&self) -> &ServerConnection {
        self.tls.get_ref().1
    }

    /// Ready when nothing is held back any more.
    fn poll_let_go(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            let written = ready!(Pin::new(&mut self.tls).poll_write(context, &self.held))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.held.drain(..written);
            if self.held.is_empty() {
                self.held = Vec::new();
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for TlsSocket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("TlsSocket")
            .field("version", &version(self.connection()))
            .finish_non_exhaustive()
    }
}

impl AsyncRead for TlsSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_read(context, buffer)
    }
}

impl AsyncWrite for TlsSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if bytes.len() <= SMALL_PIECE_BYTES && self.held.len() + bytes.len() <= HELD_BYTES_MAX {
            self.held.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        ready!(self.poll_let_go(context))?;
        Pin::new(&mut self.tls).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_let_go(context))?;
        Pin::new(&mut self.tls).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_let_go(context))?;
        Pin::new(&mut self.tls).poll_shutdown(context)
    }

    /// Whoever writes so has gathered all that there is.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_let_go(context))?;
        Pin::new(&mut self.tls).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }
}

#[async_trait]
impl Shutdown for TlsSocket {
    async fn shutdown(&mut self) {
        // Says goodbye in TLS first; a client that is gone does not hear it.
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}

impl UniqueID for TlsSocket {
    fn id(&self) -> UniqueIDType {
        self.socket().id()
    }
}

impl Ssl for TlsSocket {
    fn selected_alpn_proto(&self) -> Option<ALPN> {
        let protocol = self.connection().alpn_protocol()?;
        let is_http2 = protocol == AlpnProtocol::Http2.word().as_bytes();
        Some(if is_http2 { ALPN::H2 } else { ALPN::H1 })
    }
}

impl GetTimingDigest for TlsSocket {
    /// Nobody asks for it.
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for TlsSocket {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.socket().get_proxy_digest()
    }
}

impl GetSocketDigest for TlsSocket {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.socket().get_socket_digest()
    }
}

impl Peek for TlsSocket {}
