//! PEM files: certificates, and the private key of one.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::certificate::in_force;
use super::sha256_of;
use crate::config::limits::PEM_BYTES_MAX;

/// Why a file is of no use, in a phrase that follows its name: `is empty`; and what to do about it.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::config) struct Unusable {
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

/// The authorities of a file, and the SHA-256 of their certificates.
pub(in crate::config) fn authorities(
    path: &Path,
    now: SystemTime,
) -> Result<(RootCertStore, String), Unusable> {
    let found = certificates(path)?;
    // Nobody looks at the dates of an authority later on: one that has ended would let its clients in for ever.
    let (found, ended): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|certificate| in_force(certificate, now).is_ok());
    if let (true, Some(first)) = (found.is_empty(), ended.first()) {
        in_force(first, now)?;
    }
    let mut store = RootCertStore::empty();
    for (index, certificate) in found.iter().enumerate() {
        store.add(certificate.clone()).map_err(|error| {
            let help = "it should hold the certificates of the authorities that sign those of the clients";
            Unusable::new(format!("has a certificate (number {}) of no use: {error}", index + 1), help)
        })?;
    }
    let sha256 = sha256_of(&found);
    Ok((store, sha256))
}

/// Opening a pipe would wait for its writer, so only ordinary files are opened.
fn read(path: &Path) -> Result<Vec<u8>, Unusable> {
    let bytes = bytes_of(path).map_err(|error| match error.kind() {
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

fn bytes_of(path: &Path) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(PEM_BYTES_MAX + 1).read_to_end(&mut bytes)?;
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
