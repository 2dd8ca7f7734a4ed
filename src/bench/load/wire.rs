//! A connection to a balancer: in clear, or over TLS.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::{cipher_suite, default_provider, kx_group};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::super::certificate;
use super::super::error::BenchError;
use super::super::scenario::Protocol;
use super::super::turn::Failure;

/// An open connection.
#[derive(Debug)]
pub(super) enum Wire {
    Clear(TcpStream),
    Encrypted(Box<TlsStream<TcpStream>>),
}

/// How connections are opened.
pub(super) struct Dialer {
    /// `None`: in clear.
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Dialer {
    pub(super) fn new(protocol: Protocol) -> Result<Self, BenchError> {
        let tls = protocol.is_encrypted().then(|| connector(protocol)).transpose()?;
        Ok(Self { tls })
    }

    pub(super) async fn dial(&self, address: SocketAddr) -> Result<Wire, Failure> {
        let stream = TcpStream::connect(address).await.map_err(|error| why_unconnected(&error))?;
        stream.set_nodelay(true).map_err(|_| Failure::Connect)?;
        let Some((connector, name)) = &self.tls else { return Ok(Wire::Clear(stream)) };
        let stream = connector.connect(name.clone(), stream).await.map_err(|_| Failure::Connect)?;
        Ok(Wire::Encrypted(Box::new(stream)))
    }
}

impl Wire {
    /// Whether an idle connection is still one: neither closed, nor spoken on out of turn. Costs no call into the
    /// kernel while nothing has happened. Tickets, which nobody will use, are read on the way.
    pub(super) fn is_quiet(&mut self) -> bool {
        match self {
            Self::Clear(stream) => {
                matches!(stream.try_read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
            }
            Self::Encrypted(stream) => {
                let mut context = Context::from_waker(Waker::noop());
                Pin::new(stream).poll_read(&mut context, &mut ReadBuf::new(&mut [0])).is_pending()
            }
        }
    }
}

/// One cipher suite and one key exchange, so that every balancer does the same work; and nothing is resumed, so
/// that every connection is a full handshake.
fn connector(protocol: Protocol) -> Result<(TlsConnector, ServerName<'static>), BenchError> {
    let broken = |error: &dyn std::fmt::Display| BenchError::Broken(format!("TLS of the clients: {error}"));
    let mut provider = default_provider();
    provider.cipher_suites = vec![cipher_suite::TLS13_AES_128_GCM_SHA256];
    provider.kx_groups = vec![kx_group::X25519];
    let shown = certificate::pair()?.shown.clone();
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| broken(&error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Shown(shown)))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    let spoken = if protocol.is_multiplexed() { "h2" } else { "http/1.1" };
    config.alpn_protocols = vec![spoken.as_bytes().to_vec()];
    let name = ServerName::try_from(certificate::NAME).map_err(|error| broken(&error))?;
    Ok((TlsConnector::from(Arc::new(config)), name))
}

/// Takes the one certificate that we made ourselves, without the work of verifying signatures: between us and the
/// balancer is nobody, and a client must cost less than what it measures.
#[derive(Debug)]
struct Shown(CertificateDer<'static>);

impl ServerCertVerifier for Shown {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if *shown == self.0 {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::General("this is not the certificate of the bench".to_owned()))
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 was not offered".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

/// Out of ports or of file descriptors is our fault, not the balancer's.
fn why_unconnected(error: &io::Error) -> Failure {
    let is_ours = error.kind() == ErrorKind::AddrNotAvailable || is_out_of_descriptors(error);
    if is_ours { Failure::NotSent } else { Failure::Connect }
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let number = error.raw_os_error();
    [Errno::MFILE, Errno::NFILE].iter().any(|errno| number == Some(errno.raw_os_error()))
}
