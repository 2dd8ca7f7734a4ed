//! Certificates for the plays: who may be believed, and who may not.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    date_time_ymd,
};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;

/// A certificate authority, and a folder with what it has issued.
pub(crate) struct Ca {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, as files.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

static NUMBER: AtomicUsize = AtomicUsize::new(1);

impl Ca {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // No two have the same name, or else one would seem to have forged what the other has signed.
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        params.distinguished_name.push(DnType::CommonName, format!("authority {number} of a play"));
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a CA");
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("ca.pem"), issuer.pem()).expect("write");
        Self { folder, issuer }
    }

    /// Its own certificate.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// For servers and for clients of this name.
    pub(crate) fn certificate(&self, name: &str) -> Pair {
        self.issue(name, name, params_of(name))
    }

    pub(crate) fn expired_certificate(&self, name: &str) -> Pair {
        let mut params = params_of(name);
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2020, 12, 31);
        self.issue(&format!("expired-{name}"), name, params)
    }

    fn issue(&self, file: &str, name: &str, mut params: CertificateParams) -> Pair {
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        self.write(file, &certificate.pem(), &key.serialize_pem())
    }

    /// Files of this name in its folder.
    pub(crate) fn write(&self, name: &str, certificate: &str, key: &str) -> Pair {
        let path = |end: &str| self.folder.path().join(format!("{name}.{end}"));
        fs::write(path("crt"), certificate).expect("write");
        fs::write(path("key"), key).expect("write");
        Pair { certificate: path("crt"), key: path("key") }
    }

    /// A server that asks its clients for certificates of this authority, and turns away those without.
    pub(crate) fn server_for_clients_of(&self, pair: &Pair, protocols: &[&str]) -> Arc<ServerConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("a CA");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let builder = server_builder().with_client_cert_verifier(verifier.build().expect("a verifier"));
        finish(builder.with_single_cert(chain_of(pair), key_of(pair)).expect("a pair"), protocols)
    }
}

impl Pair {
    /// A server that shows this certificate, and speaks these protocols of ALPN; without any, it knows none.
    pub(crate) fn server(&self, protocols: &[&str]) -> Arc<ServerConfig> {
        let builder = server_builder().with_no_client_auth();
        finish(builder.with_single_cert(chain_of(self), key_of(self)).expect("a pair"), protocols)
    }
}

fn params_of(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn server_builder() -> rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions")
}

fn finish(mut config: ServerConfig, protocols: &[&str]) -> Arc<ServerConfig> {
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Arc::new(config)
}

fn chain_of(pair: &Pair) -> Vec<CertificateDer<'static>> {
    let all = CertificateDer::pem_file_iter(&pair.certificate).expect("a file");
    all.collect::<Result<_, _>>().expect("certificates")
}

fn key_of(pair: &Pair) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_file(&pair.key).expect("a key")
}

/// A path in quotes, as TOML wants it.
pub(crate) fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display())
}
