//! Checked certificates and settings become what does the handshakes.

use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::cipher_suite::{
    TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
};
use rustls::crypto::ring::{Ticketer, default_provider};
use rustls::server::{ServerConfig, ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, SupportedCipherSuite, SupportedProtocolVersion};

use super::by_name::ByName;
use super::{AlpnProtocol, CertificateConfig, ClientAuth, ClientCaConfig, ListenerTlsConfig, TlsVersion};

/// What a key can sign with, the preferred one first: an ECDSA signature costs us a thirtieth of one by RSA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::config) enum KeyKind {
    Ecdsa,
    Ed25519,
    Rsa,
}

impl KeyKind {
    pub(in crate::config) const fn word(self) -> &'static str {
        match self {
            Self::Ecdsa => "ECDSA",
            Self::Ed25519 => "Ed25519",
            Self::Rsa => "RSA",
        }
    }
}

/// A certificate that is ready to be shown.
pub(in crate::config) struct Identity {
    pub names: Vec<String>,
    pub kind: KeyKind,
    pub key: Arc<CertifiedKey>,
}

/// Everything that a listener's `tls` says, read and checked.
pub(in crate::config) struct Parts {
    pub certificates: Vec<CertificateConfig>,
    pub identities: Vec<Identity>,
    pub protocols: Vec<AlpnProtocol>,
    pub client_ca: Option<(ClientCaConfig, RootCertStore)>,
    pub min_version: TlsVersion,
    pub handshake_timeout: Duration,
}

impl Parts {
    /// Puts them together. What could fail was checked before, but for a system without random numbers.
    pub(in crate::config) fn build(self) -> Result<ListenerTlsConfig, String> {
        let Self { certificates, identities, protocols, client_ca, min_version, handshake_timeout } = self;
        let mut server = server(identities, client_ca.as_ref(), min_version)?;
        server.ignore_client_order = true;
        server.alpn_protocols = protocols.iter().map(|protocol| protocol.word().into()).collect();
        // Both are made for this listener alone: a session says whose certificate its client had, and what one
        // listener accepts is nothing that another has to.
        server.ticketer = Ticketer::new().map_err(|error| error.to_string())?;
        server.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
        Ok(ListenerTlsConfig {
            certificates,
            protocols,
            client_ca: client_ca.map(|(config, _)| config),
            min_version,
            handshake_timeout,
            server: Arc::new(server),
        })
    }
}

fn server(
    identities: Vec<Identity>,
    client_ca: Option<&(ClientCaConfig, RootCertStore)>,
    min_version: TlsVersion,
) -> Result<ServerConfig, String> {
    let provider = Arc::new(CryptoProvider { cipher_suites: SUITES.to_vec(), ..default_provider() });
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions(min_version))
        .map_err(|error| error.to_string())?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some((config, authorities)) => {
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(authorities.clone()), provider);
            let verifier = match config.auth {
                ClientAuth::Required => verifier,
                ClientAuth::Optional => verifier.allow_unauthenticated(),
            };
            builder.with_client_cert_verifier(verifier.build().map_err(|error| error.to_string())?)
        }
    };
    Ok(builder.with_cert_resolver(Arc::new(ByName::new(identities))))
}

/// All that ring has, each with forward secrecy and authenticated encryption, in our order: every machine of the
/// last ten years has AES in hardware, and 128 bits of it are as far out of reach as 256, and faster.
static SUITES: [SupportedCipherSuite; 9] = [
    TLS13_AES_128_GCM_SHA256,
    TLS13_AES_256_GCM_SHA384,
    TLS13_CHACHA20_POLY1305_SHA256,
    TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
];

fn versions(min_version: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static FROM_12: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    match min_version {
        TlsVersion::Tls12 => &FROM_12,
        TlsVersion::Tls13 => &FROM_12[..1],
    }
}

/// Sessions of clients that know no tickets; one has some hundred bytes, with a client's certificate some
/// thousand.
const SESSIONS_MAX: usize = 1_024;
