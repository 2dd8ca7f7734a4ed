//! Servers over TLS for the plays: who may be believed, and who may not.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;

use super::certificates::{Authority, Issued, put};

/// An authority, and a folder with what it has issued.
pub(crate) struct AuthorityFolder {
    folder: TempDir,
    authority: Authority,
}

/// A certificate and its key, as files.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

static NUMBER: AtomicUsize = AtomicUsize::new(1);

impl AuthorityFolder {
    pub(crate) fn new() -> Self {
        // No two have the same name, or else one would seem to have forged what the other has signed.
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let authority = Authority::new(&format!("authority {number} of a play"));
        let folder = tempfile::tempdir().expect("a temporary folder");
        authority.write(folder.path(), "ca");
        Self { folder, authority }
    }

    /// Its own certificate.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    pub(crate) fn pem(&self) -> &str {
        &self.authority.certificate
    }

    /// For servers and for clients of this name.
    pub(crate) fn certificate(&self, name: &str) -> Pair {
        self.write(name, &self.authority.issue(&[name]))
    }

    pub(crate) fn expired_certificate(&self, name: &str) -> Pair {
        self.write(&format!("expired-{name}"), &self.authority.issue_from_to(&[name], -60, -30))
    }

    fn write(&self, file: &str, issued: &Issued) -> Pair {
        issued.write(self.folder.path(), file);
        let path = |end: &str| self.folder.path().join(format!("{file}.{end}"));
        Pair { certificate: path("crt"), key: path("key") }
    }

    /// A file with this text in its folder.
    pub(crate) fn put(&self, name: &str, text: &str) -> PathBuf {
        let file = self.folder.path().join(name);
        put(&file, text);
        file
    }

    /// A server that asks its clients for certificates of this authority, and turns away those without.
    pub(crate) fn server_for_clients_of(&self, pair: &Pair, protocols: &[&str]) -> Arc<ServerConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(self.authority.der.clone())).expect("an authority");
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
