//! Certificates made for one play: authorities, what they sign, and the files that both stand in.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, SanType,
};

/// What a key signs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Ecdsa,
    /// Always the same key: ring makes none.
    Rsa,
}

/// For this file alone.
const RSA_KEY: &str = include_str!("rsa.key");

/// A certificate and its key, in PEM.
#[derive(Clone, Debug)]
pub(crate) struct Issued {
    pub(crate) certificate: String,
    pub(crate) key: String,
    /// The certificate in DER.
    pub(crate) der: Vec<u8>,
}

/// An authority that signs what it is asked to.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) certificate: String,
    pub(crate) der: Vec<u8>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = params(&[], name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        let (der, certificate) = (certificate.der().to_vec(), certificate.pem());
        Self { issuer: Issuer::new(params, key), certificate, der }
    }

    /// For these host names and addresses, for a year.
    pub(crate) fn issue(&self, names: &[&str]) -> Issued {
        self.issue_for(names, Kind::Ecdsa)
    }

    pub(crate) fn issue_for(&self, names: &[&str], kind: Kind) -> Issued {
        self.sign(&params(names, "server"), kind)
    }

    /// Valid from so many days after today (before, if negative) to so many.
    pub(crate) fn issue_from_to(&self, names: &[&str], from_days: i64, to_days: i64) -> Issued {
        let mut params = params(names, "server");
        (params.not_before, params.not_after) = (day(from_days).into(), day(to_days).into());
        self.sign(&params, Kind::Ecdsa)
    }

    /// For a client of this name.
    pub(crate) fn issue_to_client(&self, name: &str) -> Issued {
        self.issue_to_client_for(name, Duration::from_secs(24 * 60 * 60))
    }

    /// As [`Self::issue_to_client`], for this time.
    pub(crate) fn issue_to_client_for(&self, name: &str, time: Duration) -> Issued {
        let mut params = params(&[], name);
        params.not_after = (SystemTime::now() + time).into();
        params.distinguished_name.push(DnType::OrganizationName, "Example, Inc.");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&params, Kind::Ecdsa)
    }

    fn sign(&self, params: &CertificateParams, kind: Kind) -> Issued {
        let key = match kind {
            Kind::Ecdsa => KeyPair::generate(),
            Kind::Rsa => KeyPair::from_pem(RSA_KEY),
        };
        let key = key.expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Issued { certificate: certificate.pem(), key: key.serialize_pem(), der: certificate.der().to_vec() }
    }
}

fn params(names: &[&str], subject: &str) -> CertificateParams {
    let mut params = CertificateParams::new([]).expect("parameters");
    params.subject_alt_names = names.iter().map(|name| alternative(name)).collect();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, subject);
    (params.not_before, params.not_after) = (day(-1).into(), day(365).into());
    params
}

fn alternative(name: &str) -> SanType {
    match name.parse::<IpAddr>() {
        Ok(address) => SanType::IpAddress(address),
        Err(_) => SanType::DnsName(name.try_into().expect("a host name")),
    }
}

fn day(from_today: i64) -> SystemTime {
    let days = Duration::from_secs(from_today.unsigned_abs() * 24 * 60 * 60);
    if from_today < 0 { SystemTime::now() - days } else { SystemTime::now() + days }
}

impl Issued {
    /// Writes `NAME.crt` and `NAME.key`, each in the place of what was there before, and says how an entry of
    /// `certificates` names them.
    pub(crate) fn write(&self, folder: &Path, name: &str) -> String {
        let (certificate, key) = (folder.join(format!("{name}.crt")), folder.join(format!("{name}.key")));
        put(&certificate, &self.certificate);
        put(&key, &self.key);
        format!("{{ certificate = \"{}\", key = \"{}\" }}", certificate.display(), key.display())
    }
}

impl Authority {
    /// Writes `NAME.crt`; where.
    pub(crate) fn write(&self, folder: &Path, name: &str) -> PathBuf {
        let file = folder.join(format!("{name}.crt"));
        put(&file, &self.certificate);
        file
    }
}

/// A new file in the place of an old one, for its owner alone.
pub(crate) fn put(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).expect("write");
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).expect("set permissions");
    fs::rename(new, path).expect("rename");
}
