//! TLS to clients: files become checked certificates, and those a server that is ready to run.
//!
//! ```text
//!   site.crt ──┐
//!   site.key ──┴► ../pair.rs ──► certificate.rs: names, key type ──► by_name.rs ──► rustls::ServerConfig
//! ```
//!
//! All that can be wrong with a file is said in a phrase that has the file's name in it; `check/tls.rs` adds the
//! place. What comes out shows no key in its `Debug` and compares by content: two
//! readings of the same files are equal, whatever their paths have gone through meanwhile.

mod by_name;
mod certificate;
mod server;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub use certificate::EXPIRES_SOON;
pub(super) use certificate::identity;
pub(super) use server::{Identity, KeyKind, Parts};

/// `tls` of a listener.
#[derive(Clone)]
pub struct ListenerTlsConfig {
    /// In file order; the first is shown to clients that ask for a name that none of them has, or for none.
    pub certificates: Vec<CertificateConfig>,
    /// What is offered in ALPN, in order of preference.
    pub protocols: Vec<AlpnProtocol>,
    /// Whose certificates clients are asked for; `None`: clients are not asked.
    pub client_ca: Option<ClientCaConfig>,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
    /// Connection accepted to handshake done.
    pub handshake_timeout: Duration,
    server: Arc<rustls::ServerConfig>,
}

impl ListenerTlsConfig {
    /// What does the handshakes. Its ticket keys and session cache live as long as it does, so who finds an
    /// equal configuration in a later reading keeps the earlier one.
    pub fn server(&self) -> &Arc<rustls::ServerConfig> {
        &self.server
    }
}

impl PartialEq for ListenerTlsConfig {
    /// By what the files hold: the rest follows from it.
    fn eq(&self, other: &Self) -> bool {
        let Self { certificates, protocols, client_ca, min_version, handshake_timeout, server: _ } = self;
        *certificates == other.certificates
            && *protocols == other.protocols
            && *client_ca == other.client_ca
            && *min_version == other.min_version
            && *handshake_timeout == other.handshake_timeout
    }
}

impl Eq for ListenerTlsConfig {}

impl fmt::Debug for ListenerTlsConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ListenerTlsConfig")
            .field("certificates", &self.certificates)
            .field("protocols", &self.protocols)
            .field("client_ca", &self.client_ca)
            .field("min_version", &self.min_version)
            .field("handshake_timeout", &self.handshake_timeout)
            .finish_non_exhaustive()
    }
}

/// One entry of `certificates`, without its key: a certificate has one key only, so it stands for both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateConfig {
    /// The file of the certificate and its chain, as written in the configuration.
    pub certificate: String,
    /// The file of the key, as written.
    pub key: String,
    /// Host names and addresses that it is for, lower case; `*.example.com` stands for one label.
    pub names: Vec<String>,
    /// When it ends to be valid.
    pub not_after: SystemTime,
    /// SHA-256 of the chain, in hexadecimal.
    pub sha256: String,
}

/// `client_ca` and `client_auth` of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCaConfig {
    /// The file, as written.
    pub file: String,
    /// SHA-256 of the certificates in it, in hexadecimal.
    pub sha256: String,
    /// What becomes of clients without a certificate.
    pub auth: ClientAuth,
}

/// `client_auth`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// They are turned away.
    Required,
    /// They may pass; those with a wrong one may not.
    Optional,
}

impl ClientAuth {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Required, Self::Optional];

    /// The word in the file.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::Optional => "optional",
        }
    }
}

/// One of `protocols`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlpnProtocol {
    /// HTTP/2.
    Http2,
    /// HTTP/1.1, and 1.0.
    Http1,
}

impl AlpnProtocol {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Http2, Self::Http1];

    /// Its name in the file, and in ALPN.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Http2 => "h2",
            Self::Http1 => "http/1.1",
        }
    }
}

/// `min_version`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2; what is older is broken.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

impl TlsVersion {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Tls12, Self::Tls13];

    /// The word in the file.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Tls12 => "1.2",
            Self::Tls13 => "1.3",
        }
    }
}
