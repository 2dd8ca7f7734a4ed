//! The certificate that every balancer shows: ECDSA on P-256, made once per process, trusted by nobody else.

use std::sync::LazyLock;

use rustls::pki_types::CertificateDer;

use super::error::BenchError;

/// The name in it; clients ask for it.
pub const NAME: &str = "bench";

/// A certificate and its key.
#[derive(Debug)]
pub struct Pair {
    /// The certificate in PEM.
    pub certificate: String,
    /// The key in PEM (PKCS #8).
    pub key: String,
    /// The certificate as it is shown.
    pub shown: CertificateDer<'static>,
}

/// The same for all candidates, so that all of them sign alike.
///
/// # Errors
///
/// When the system has no randomness for a key.
pub fn pair() -> Result<&'static Pair, BenchError> {
    static PAIR: LazyLock<Result<Pair, String>> =
        LazyLock::new(|| made().map_err(|error| format!("cannot make a certificate: {error}")));
    PAIR.as_ref().map_err(|error| BenchError::Broken(error.clone()))
}

fn made() -> Result<Pair, rcgen::Error> {
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
    Ok(Pair {
        certificate: made.cert.pem(),
        key: made.signing_key.serialize_pem(),
        shown: made.cert.der().clone(),
    })
}
