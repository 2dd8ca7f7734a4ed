//! PEM files: certificates, and the private key of one. What is wrong with a file is said here, and in
//! `pair.rs`, whether it is for clients or for upstreams.

use std::fmt::Write;
use std::io;
use std::path::Path;

use ring::digest::{Context, SHA256};
use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::files::read_ordinary;
use super::limits::PEM_BYTES_MAX;

/// Why a file is of no use, in a phrase that follows its name: `is empty`; and what to do about it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unusable {
    pub what: String,
    pub help: String,
}

impl Unusable {
    pub(super) fn new(what: impl Into<String>, help: impl Into<String>) -> Self {
        Self { what: what.into(), help: help.into() }
    }
}

/// The certificates of a file in their order, one at least.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Unusable> {
    let help = "it should hold certificates in PEM, each between `-----BEGIN CERTIFICATE-----` and `-----END CERTIFICATE-----`";
    let text = read(path)?;
    let found: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if found.is_empty() => Err(Unusable::new("has no certificate in it", help)),
        Ok(found) => Ok(found),
        Err(error) => Err(Unusable::new(format!("is not PEM: {}", reason(&error)), help)),
    }
}

/// The first private key of a file.
pub(super) fn key(path: &Path) -> Result<PrivateKeyDer<'static>, Unusable> {
    let help = "it should hold the private key in PEM: PKCS#8 (`BEGIN PRIVATE KEY`), SEC1 (`BEGIN EC PRIVATE KEY`) or PKCS#1 (`BEGIN RSA PRIVATE KEY`)";
    let text = read(path)?;
    if is_encrypted(&text) {
        let help = "nobody is there to type its password: write it without, `openssl pkey -in KEY -out PLAIN_KEY`, for the eyes of Evener's user only";
        return Err(Unusable::new("holds an encrypted key", help));
    }
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        pem::Error::NoItemsFound => Unusable::new("has no private key in it", help),
        error => Unusable::new(format!("is not PEM: {}", reason(&error)), help),
    })
}

/// Authorities as whoever asks them wants them.
pub(super) fn store_of(authorities: &[CertificateDer<'static>]) -> Result<RootCertStore, Unusable> {
    let mut store = RootCertStore::empty();
    for (index, certificate) in authorities.iter().enumerate() {
        store.add(certificate.clone()).map_err(|error| {
            let help = "it should hold the certificates of the authorities that sign those of the other side";
            Unusable::new(format!("has a certificate (number {}) of no use: {error}", index + 1), help)
        })?;
    }
    Ok(store)
}

/// SHA-256 over all of them, in hexadecimal.
pub(super) fn sha256_of(certificates: &[CertificateDer<'_>]) -> String {
    let mut hash = Context::new(&SHA256);
    for certificate in certificates {
        hash.update(certificate);
    }
    hash.finish().as_ref().iter().fold(String::new(), |mut text, byte| {
        // Cannot fail: a `String` takes whatever is written.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn read(path: &Path) -> Result<Vec<u8>, Unusable> {
    let bytes = read_ordinary(path, PEM_BYTES_MAX).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Unusable::new(
            "does not exist",
            "name a file; a relative path starts at the folder of the configuration file",
        ),
        io::ErrorKind::PermissionDenied => Unusable::new(
            "cannot be read: permission denied",
            "let the user that runs Evener read it, and the folders above it",
        ),
        io::ErrorKind::InvalidInput => Unusable::new("is no ordinary file", "name a file in PEM"),
        kind => Unusable::new(format!("cannot be read: {kind}"), "check the file and its disk"),
    })?;
    if bytes.len() as u64 > PEM_BYTES_MAX {
        let help = format!("a file in PEM has at most {PEM_BYTES_MAX} bytes here");
        return Err(Unusable::new("is too large", help));
    }
    Ok(bytes)
}

/// PKCS#8 says so in its label, OpenSSL's older forms in a line below it.
fn is_encrypted(text: &[u8]) -> bool {
    const MARKS: [&[u8]; 2] = [b"-----BEGIN ENCRYPTED PRIVATE KEY-----", b"Proc-Type: 4,ENCRYPTED"];
    MARKS.iter().any(|mark| text.windows(mark.len()).any(|window| window == *mark))
}

/// Without anything of the file: it may be a key.
fn reason(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "its end is missing",
        pem::Error::IllegalSectionStart { .. } => "a line that begins a part is malformed",
        _ => "what stands between its lines is not base64",
    }
}
