//! `tls` of a listener: certificates, and who may come in.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use super::named_file::{NamedFile, read_authorities, read_pair};
use crate::config::fields::{Fields, Value};
use crate::config::limits::{self, DURATION_MIN};
use crate::config::pem::sha256_of;
use crate::config::report::Wrong;
use crate::config::tls::{self, Identity, KeyKind, Parts};
use crate::config::values::shown;
use crate::config::{
    AlpnProtocol, CertificateConfig, ClientAuth, ClientCaConfig, ListenerTlsConfig, TlsVersion, defaults,
};

/// One entry of `certificates`, and where it stands.
type Placed<'t> = (Value<'t>, CertificateConfig, Identity);

pub(super) fn listener(value: &Value<'_>) -> Option<Arc<ListenerTlsConfig>> {
    let parts = value.table("`tls`", parts).flatten()?;
    match parts.build() {
        Ok(config) => Some(Arc::new(config)),
        Err(error) => {
            let help = "check the certificates and `client_ca` with `openssl x509 -noout -text -in FILE`";
            value.refuse(Wrong::new(format!("TLS cannot be set up: {error}"), "of no use", help))
        }
    }
}

fn parts(fields: &Fields<'_>) -> Option<Parts> {
    let help = "add the server's certificate and its key: certificates = [{ certificate = \"site.crt\", key = \"site.key\" }]";
    let placed = fields.require("certificates", help, certificates);
    let protocols = fields.read("protocols", protocols);
    let client_ca = client_ca(fields);
    let versions = TlsVersion::ALL.map(|version| (version.word(), version));
    let min_version = fields.read("min_version", |value| value.word("version", &versions));
    let timeout = fields.read("handshake_timeout", |value| value.duration(DURATION_MIN));
    let (certificates, identities) =
        placed?.into_iter().map(|(_, config, identity)| (config, identity)).unzip();
    Some(Parts {
        certificates,
        identities,
        protocols: protocols.unwrap_or_else(|| AlpnProtocol::ALL.to_vec()),
        client_ca,
        min_version: min_version.unwrap_or(TlsVersion::Tls12),
        handshake_timeout: timeout.unwrap_or(defaults::HANDSHAKE_TIMEOUT),
    })
}

/// All entries, or nothing when one of them is refused.
fn certificates<'t>(value: &Value<'t>) -> Option<Vec<Placed<'t>>> {
    if value.is_empty_list() {
        let help = "name one at least: { certificate = \"site.crt\", key = \"site.key\" }";
        return value.refuse(Wrong::new("a listener cannot speak TLS without a certificate", "empty", help));
    }
    let before = value.desk.mistakes_so_far();
    let placed = value.list(limits::CERTIFICATES_MAX, |entry| {
        entry.table("an entry of `certificates`", |fields| certificate(entry, fields)).flatten()
    })?;
    if value.desk.mistakes_so_far() > before {
        return None;
    }
    refuse_twins(&placed);
    refuse_unreachable(&placed);
    Some(placed)
}

fn certificate<'t>(entry: &Value<'t>, fields: &Fields<'t>) -> Option<Placed<'t>> {
    let certificate = fields.require(
        "certificate",
        "add the file of the certificate: certificate = \"site.crt\"",
        NamedFile::of,
    );
    let key = fields.require("key", "add the file of its private key: key = \"site.key\"", NamedFile::of);
    let (certificate, key) = (certificate?, key?);
    let (config, identity, last_day) =
        read_pair(&certificate, &key, |certificate, key| tls::identity(certificate, key, SystemTime::now()))?;
    if let Some(day) = last_day {
        let message = format!("the certificate in `{}` expires on {day}", shown(&config.certificate));
        let help = "renew it, such as by `certbot renew`; the new one is used as soon as it is there";
        certificate.value.desk.warn(certificate.value.span.clone(), Wrong::new(message, "ends soon", help));
    }
    Some((entry.clone(), config, identity))
}

/// With two of one type for one name, which of them is shown?
fn refuse_twins(placed: &[Placed<'_>]) {
    let mut known: HashMap<(&str, KeyKind), &CertificateConfig> = HashMap::new();
    for (value, config, identity) in placed {
        let twin = identity.names.iter().find_map(|name| Some((name, *known.get(&(name, identity.kind))?)));
        if let Some((name, other)) = twin {
            value.refuse::<()>(Wrong::new(
                format!(
                    "two {} certificates for `{name}`: `{}` and `{}`",
                    identity.kind.word(),
                    other.certificate,
                    config.certificate
                ),
                "the same name and type again",
                "keep one of them; of each type (ECDSA, RSA) there may be one for a name",
            ));
        }
        known.extend(identity.names.iter().map(|name| ((name.as_str(), identity.kind), config)));
    }
}

/// Clients ask for host names, never for addresses: those come to see the first certificate, and others that
/// share a name with it.
fn refuse_unreachable(placed: &[Placed<'_>]) {
    let Some((_, _, first)) = placed.first() else { return };
    let is_host = |name: &String| name.parse::<std::net::IpAddr>().is_err();
    let can_be_asked_for = |name: &String| is_host(name) || first.names.contains(name);
    for (value, config, identity) in placed {
        if !identity.names.iter().any(can_be_asked_for) {
            value.refuse::<()>(Wrong::new(
                format!("nobody would ever see `{}`: it is for addresses alone", config.certificate),
                "no host name",
                "put it first in the list: who asks for an address is shown the first certificate",
            ));
        }
    }
}

fn protocols(value: &Value<'_>) -> Option<Vec<AlpnProtocol>> {
    let words = AlpnProtocol::ALL.map(|protocol| (protocol.word(), protocol));
    let mut protocols = value.list(limits::LIST_ENTRIES_MAX, |entry| entry.word("protocol", &words))?;
    if value.is_empty_list() {
        let help = "leave it out for [\"h2\", \"http/1.1\"], or name one";
        return value.refuse(Wrong::new("a listener without a protocol serves nobody", "empty", help));
    }
    let mut seen = Vec::new();
    protocols.retain(|protocol| {
        !seen.contains(protocol) && {
            seen.push(*protocol);
            true
        }
    });
    Some(protocols)
}

fn client_ca(fields: &Fields<'_>) -> Option<(ClientCaConfig, rustls::RootCertStore)> {
    let words = ClientAuth::ALL.map(|auth| (auth.word(), auth));
    let auth = fields.read("client_auth", |value| value.word("way to treat clients", &words));
    let Some(value) = fields.get("client_ca") else {
        if let Some(value) = fields.get("client_auth") {
            let help = "add the authorities whose certificates clients have: client_ca = \"clients.crt\"";
            value.refuse::<()>(Wrong::new("`client_auth` needs `client_ca`", "whose certificates?", help));
        }
        return None;
    };
    let file = NamedFile::of(&value)?;
    let (found, store) = read_authorities(&file)?;
    let (sha256, auth) = (sha256_of(&found), auth.unwrap_or(ClientAuth::Required));
    Some((ClientCaConfig { file: file.text.to_owned(), sha256, auth }, store))
}
