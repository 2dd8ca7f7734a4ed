//! `tls` of a pool: whom upstreams have to be, and who we are to them.
//!
//! Everything is held by content: the same text with other files behind it is another configuration, so a
//! reload notices.

use std::fmt;

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;

use super::pem::sha256_of;

/// `tls` of a pool, its files read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamTls {
    /// The name that is asked for and that certificates must be for. Never missing with `verify`.
    pub server_name: Option<String>,
    /// Whether certificates must be signed by somebody trusted, and be for `server_name`.
    pub verify: bool,
    /// Who is trusted; `None`: whom this machine trusts.
    pub ca: Option<Certificates>,
    /// Who we are, if somebody asks.
    pub client: Option<ClientCertificate>,
}

/// The certificates of one file, in its order; never empty.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificates {
    /// The file as the configuration names it.
    pub file: String,
    /// Each in DER.
    pub ders: Vec<CertificateDer<'static>>,
}

impl Certificates {
    /// Tells these certificates from others: the first 16 hexadecimal digits of their SHA-256, to be
    /// compared by eye with what was there before.
    pub fn fingerprint(&self) -> String {
        sha256_of(&self.ders).chars().take(16).collect()
    }
}

impl fmt::Display for Certificates {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} (SHA-256 {}…)", self.file, self.fingerprint())
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Certificates({self})")
    }
}

/// `certificate` and `key`, which belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Ours first, then those that lead to a CA.
    pub chain: Certificates,
    /// The file of the key as the configuration names it.
    pub key_file: String,
    /// The key itself.
    pub key: PrivateKey,
}

/// A private key in DER: PKCS#8, PKCS#1 or SEC1. No `Debug` shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateKey(pub(super) Vec<u8>);

impl PrivateKey {
    /// For those who sign with it.
    pub fn secret_der(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("PrivateKey(…)")
    }
}

/// Whether this machine has CA certificates that can be used, where its TLS library looks for them
/// (`SSL_CERT_FILE`, `SSL_CERT_DIR`, then the usual places).
pub fn has_system_roots() -> bool {
    let Ok(found) = rustls_native_certs::load_native_certs() else { return false };
    let mut store = RootCertStore::empty();
    // One that cannot be read would stop the engine when it loads them.
    !found.is_empty() && found.into_iter().all(|certificate| store.add(certificate).is_ok())
}
