//! A certificate with its chain, and its key: whether they belong together, and how long they are good.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;

use super::pem::{self, Unusable};

/// Which of the two files is wrong.
#[derive(Debug)]
pub(super) enum Fault {
    Certificate(Unusable),
    Key(Unusable),
}

/// A chain, and the key of its first certificate. No `Debug` may show the key, so there is none.
pub(super) struct Pair {
    /// Ready to sign; one certificate at least.
    pub certified: CertifiedKey,
    /// For those who sign with something else.
    pub key: PrivateKeyDer<'static>,
    /// Of the first certificate.
    pub validity: Validity,
}

/// How long a certificate is still good.
pub(super) struct Validity {
    pub until: SystemTime,
    /// The same as a day of the calendar, UTC: `2027-01-31`.
    pub last_day: String,
}

/// Reads a certificate and its key, each by its name in the configuration and where it is.
pub(super) fn read(certificate: (&str, &Path), key: (&str, &Path), now: SystemTime) -> Result<Pair, Fault> {
    let chain = pem::certificates(certificate.1).map_err(Fault::Certificate);
    let key = pem::key(key.1).map_err(Fault::Key);
    let (chain, key) = (chain?, key?);
    let (key, signing) = usable(&key).ok_or_else(|| {
        let help = "it should be RSA with 2048 to 8192 bits, ECDSA on the curves P-256 or P-384, or Ed25519";
        Fault::Key(Unusable::new("holds a key of no use here", help))
    })?;
    let certified = CertifiedKey::new(chain, signing);
    let fit = certified.keys_match();
    if let Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) = fit {
        return Err(Fault::Key(mismatch(&certified, certificate.0)));
    }
    let validity = validity_of_first(&certified.cert, now).map_err(Fault::Certificate)?;
    // What cannot be compared may fit.
    if let Some(error) = fit.err().filter(|error| !matches!(error, Error::InconsistentKeys(_))) {
        let help = "have it issued anew, as version 3";
        return Err(Fault::Certificate(Unusable::new(format!("is of no use: {error}"), help)));
    }
    Ok(Pair { certified, key, validity })
}

type Signing = std::sync::Arc<dyn rustls::sign::SigningKey>;

/// By its bytes alone, whatever the label says: who uses it later may have nothing else.
fn usable(key: &PrivateKeyDer<'_>) -> Option<(PrivateKeyDer<'static>, Signing)> {
    let key = PrivateKeyDer::try_from(key.secret_der().to_vec()).ok()?;
    let signing = any_supported_type(&key).ok()?;
    Some((key, signing))
}

/// The key belongs to another certificate: perhaps to one further down, and the order is wrong.
fn mismatch(certified: &CertifiedKey, certificate: &str) -> Unusable {
    let fits = |other: &CertificateDer<'static>| {
        CertifiedKey::new(vec![other.clone()], certified.key.clone()).keys_match().is_ok()
    };
    match certified.cert.iter().position(fits) {
        Some(index) => Unusable::new(
            format!("belongs to certificate number {} in `{certificate}`, not to the first", index + 1),
            "the certificate of the key stands first in its file, then the one that signed it, and so on",
        ),
        None => Unusable::new(
            format!("does not belong to the certificate in `{certificate}`"),
            "give the key that the certificate was made for; `openssl x509 -noout -pubkey -in CERTIFICATE` and `openssl pkey -pubout -in KEY` say the same when they fit",
        ),
    }
}

/// Each has to be readable, and the first valid.
fn validity_of_first(chain: &[CertificateDer<'_>], now: SystemTime) -> Result<Validity, Unusable> {
    for (index, der) in chain.iter().enumerate() {
        X509Certificate::from_der(der).map_err(|_| unreadable(index))?;
    }
    validity(&parsed(chain)?, now)
}

/// The first certificate.
pub(super) fn parsed<'c>(chain: &'c [CertificateDer<'_>]) -> Result<X509Certificate<'c>, Unusable> {
    let first = chain.first().and_then(|der| X509Certificate::from_der(der).ok());
    first.map(|(_, parsed)| parsed).ok_or_else(|| unreadable(0))
}

fn unreadable(index: usize) -> Unusable {
    let what = format!("has a certificate (number {}) that cannot be read", index + 1);
    Unusable::new(what, "download it again, or have it issued anew")
}

/// Whether it is good at `now`, and how long.
pub(super) fn validity(certificate: &X509Certificate<'_>, now: SystemTime) -> Result<Validity, Unusable> {
    let (from, to) = (certificate.validity().not_before, certificate.validity().not_after);
    if now < moment(from) {
        let what = format!("is not valid yet: it begins on {}", day(from));
        return Err(Unusable::new(what, "compare the clock of this machine (`date -u`), or wait"));
    }
    if now >= moment(to) {
        let what = format!("has expired on {}", day(to));
        return Err(Unusable::new(what, "renew it, such as by `certbot renew`; then check again"));
    }
    Ok(Validity { until: moment(to), last_day: day(to) })
}

fn moment(time: ASN1Time) -> SystemTime {
    // A certificate from before 1970 has ended, whenever exactly.
    UNIX_EPOCH + Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or(0))
}

/// `2027-01-31`
fn day(time: ASN1Time) -> String {
    time.to_datetime().date().to_string()
}
