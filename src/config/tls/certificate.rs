//! One certificate with its chain and key: whom it is for, how long, and whether they belong together.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;

use super::pem::{self, Unusable};
use super::server::{Identity, KeyKind};
use super::{CertificateConfig, sha256_of};
use crate::config::limits::CERTIFICATE_NAMES_MAX;

/// A certificate that ends within this time is warned of: time for a holiday, and for whoever renews to be
/// tried twice. Let's Encrypt renews 30 days ahead.
pub const EXPIRES_SOON: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Which of the two files is wrong.
#[derive(Debug)]
pub(in crate::config) enum Fault {
    Certificate(Unusable),
    Key(Unusable),
}

/// How long a certificate is still good, in words: days of the calendar, UTC.
#[derive(Debug)]
pub(in crate::config) enum Validity {
    /// For long enough.
    Good,
    /// It ends on this day, within [`EXPIRES_SOON`].
    EndsSoon(String),
}

/// Reads a certificate and its key, and says whether it will end soon.
pub(in crate::config) fn identity(
    certificate: (&str, &Path),
    key: (&str, &Path),
    now: SystemTime,
) -> Result<(CertificateConfig, Identity, Validity), Fault> {
    let chain = pem::certificates(certificate.1).map_err(Fault::Certificate);
    let private_key = pem::key(key.1).map_err(Fault::Key);
    let (chain, private_key) = (chain?, private_key?);
    let private_key = any_supported_type(&private_key).map_err(|_| {
        let help = "it should be RSA with 2048 to 8192 bits, ECDSA on the curves P-256 or P-384, or Ed25519";
        Fault::Key(Unusable::new("holds a key of no use here", help))
    })?;
    let kind = KeyKind::of(private_key.algorithm()).ok_or_else(|| {
        Fault::Key(Unusable::new("holds a key of no use here", "it should be RSA, ECDSA or Ed25519"))
    })?;
    let certified = CertifiedKey::new(chain, private_key);
    let fit = certified.keys_match();
    if let Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) = fit {
        return Err(Fault::Key(mismatch(&certified, certificate.0)));
    }
    let leaf = Leaf::read(&certified.cert, now).map_err(Fault::Certificate)?;
    // What cannot be compared may fit.
    if let Some(error) = fit.err().filter(|error| !matches!(error, Error::InconsistentKeys(_))) {
        let help = "have it issued anew, as version 3";
        return Err(Fault::Certificate(Unusable::new(format!("is of no use: {error}"), help)));
    }
    let config = CertificateConfig {
        certificate: certificate.0.to_owned(),
        key: key.0.to_owned(),
        names: leaf.names.clone(),
        not_after: leaf.not_after,
        sha256: sha256_of(&certified.cert),
    };
    let identity = Identity { names: leaf.names, kind, key: Arc::new(certified) };
    Ok((config, identity, leaf.validity))
}

/// The key belongs to another certificate: perhaps to one further down, and the order is wrong.
fn mismatch(certified: &CertifiedKey, certificate: &str) -> Unusable {
    let fits = |other: &CertificateDer<'static>| {
        CertifiedKey::new(vec![other.clone()], certified.key.clone()).keys_match().is_ok()
    };
    match certified.cert.iter().position(fits) {
        Some(index) => Unusable::new(
            format!("belongs to certificate number {} in `{certificate}`, not to the first", index + 1),
            "the server's own certificate stands first in its file, then the one that signed it, and so on",
        ),
        None => Unusable::new(
            format!("does not belong to the certificate in `{certificate}`"),
            "give the key that the certificate was made for; `openssl x509 -noout -pubkey -in CERTIFICATE` and `openssl pkey -pubout -in KEY` say the same when they fit",
        ),
    }
}

/// What matters of the server's own certificate.
struct Leaf {
    names: Vec<String>,
    not_after: SystemTime,
    validity: Validity,
}

impl Leaf {
    fn read(chain: &[CertificateDer<'_>], now: SystemTime) -> Result<Self, Unusable> {
        let unreadable = |index: usize| {
            let what = format!("has a certificate (number {}) that cannot be read", index + 1);
            Unusable::new(what, "download it again, or have it issued anew")
        };
        let parsed = chain.iter().enumerate().map(|(index, der)| {
            X509Certificate::from_der(der).map(|(_, parsed)| parsed).map_err(|_| unreadable(index))
        });
        let parsed = parsed.collect::<Result<Vec<_>, _>>()?;
        let leaf = parsed.first().ok_or_else(|| unreadable(0))?;
        let validity = validity(leaf, now)?;
        Ok(Self { names: names(leaf)?, not_after: moment(leaf.validity().not_after), validity })
    }
}

/// Whether this certificate is in force; what cannot be read is somebody else's affair.
pub(super) fn in_force(der: &CertificateDer<'_>, now: SystemTime) -> Result<(), Unusable> {
    X509Certificate::from_der(der).map_or(Ok(()), |(_, parsed)| validity(&parsed, now).map(drop))
}

fn validity(leaf: &X509Certificate<'_>, now: SystemTime) -> Result<Validity, Unusable> {
    let (from, to) = (leaf.validity().not_before, leaf.validity().not_after);
    if now < moment(from) {
        let what = format!("is not valid yet: it begins on {}", day(from));
        return Err(Unusable::new(what, "compare the clock of this machine (`date -u`), or wait"));
    }
    if now >= moment(to) {
        let what = format!("has expired on {}", day(to));
        return Err(Unusable::new(what, "renew it, such as by `certbot renew`; then check again"));
    }
    let is_soon = moment(to).duration_since(now).is_ok_and(|left| left < EXPIRES_SOON);
    Ok(if is_soon { Validity::EndsSoon(day(to)) } else { Validity::Good })
}

fn moment(time: ASN1Time) -> SystemTime {
    // A certificate from before 1970 has ended, whenever exactly.
    UNIX_EPOCH + Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or(0))
}

/// `2027-01-31`
fn day(time: ASN1Time) -> String {
    time.to_datetime().date().to_string()
}

/// Host names and addresses that clients can ask for and would accept; those look nowhere else.
fn names(leaf: &X509Certificate<'_>) -> Result<Vec<String>, Unusable> {
    let help = "have it issued with the host names as subject alternative names (openssl: `-addext subjectAltName=DNS:example.com`); browsers ignore the common name";
    let alternatives = leaf.subject_alternative_name().ok().flatten();
    let alternatives = alternatives.map(|found| found.value.general_names.as_slice()).unwrap_or_default();
    let names: BTreeSet<String> = alternatives.iter().filter_map(usable_name).collect();
    match names.len() {
        0 => Err(Unusable::new("names no host that clients could ask for", help)),
        1..=CERTIFICATE_NAMES_MAX => Ok(names.into_iter().collect()),
        many => {
            let what = format!("names {many} hosts, more than {CERTIFICATE_NAMES_MAX}");
            Err(Unusable::new(what, "share them out among several certificates"))
        }
    }
}

fn usable_name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => host_name(name),
        GeneralName::IPAddress(bytes) => {
            let address = match bytes.len() {
                4 => IpAddr::from(<[u8; 4]>::try_from(*bytes).ok()?),
                _ => IpAddr::from(<[u8; 16]>::try_from(*bytes).ok()?),
            };
            Some(address.to_string())
        }
        _ => None,
    }
}

/// A name as clients ask for it, or `*.` and the rest of one. Other wildcards no client accepts.
fn host_name(name: &str) -> Option<String> {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let labels = name.strip_prefix("*.").unwrap_or(&name);
    let is_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    labels.split('.').all(is_label).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_clients_ask_for() {
        let name = |name: &str| host_name(name);
        assert_eq!(name("WWW.Example.com."), Some("www.example.com".to_owned()));
        assert_eq!(name("*.example.com"), Some("*.example.com".to_owned()));
        assert_eq!(name("localhost"), Some("localhost".to_owned()));
        for unusable in ["", "*", "f*.example.com", "*.*.example.com", "a..b", "a b", "ü.example"] {
            assert_eq!(name(unusable), None, "{unusable}");
        }
    }
}
