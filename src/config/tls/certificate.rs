//! What matters of a certificate that clients are shown: whom it is for, and how long.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use super::CertificateConfig;
use super::server::{Identity, KeyKind};
use crate::config::limits::CERTIFICATE_NAMES_MAX;
use crate::config::pair::{self, Fault, parsed};
use crate::config::pem::{Unusable, sha256_of};

/// A certificate that ends within this time is warned of: time for a holiday, and for whoever renews to be
/// tried twice. Let's Encrypt renews 30 days ahead.
pub const EXPIRES_SOON: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Reads a certificate and its key; and says the last day of one that ends within [`EXPIRES_SOON`].
pub(in crate::config) fn identity(
    certificate: (&str, &Path),
    key: (&str, &Path),
    now: SystemTime,
) -> Result<(CertificateConfig, Identity, Option<String>), Fault> {
    let pair = pair::read(certificate, key, now)?;
    let kind = KeyKind::of(pair.certified.key.algorithm()).ok_or_else(|| {
        Fault::Key(Unusable::new("holds a key of no use here", "it should be RSA, ECDSA or Ed25519"))
    })?;
    let names = parsed(&pair.certified.cert).and_then(|leaf| names(&leaf)).map_err(Fault::Certificate)?;
    let config = CertificateConfig {
        certificate: certificate.0.to_owned(),
        key: key.0.to_owned(),
        names: names.clone(),
        not_after: pair.validity.until,
        sha256: sha256_of(&pair.certified.cert),
    };
    let ends_soon = pair.validity.until.duration_since(now).is_ok_and(|left| left < EXPIRES_SOON);
    let last_day = ends_soon.then_some(pair.validity.last_day);
    Ok((config, Identity { names, kind, key: Arc::new(pair.certified) }, last_day))
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
