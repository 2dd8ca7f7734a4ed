//! `tls` of a pool: reads its files, and refuses what could not work.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::RootCertStore;
use rustls::crypto::ring::default_provider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;

use super::upstream::host_name_in;
use crate::config::fields::{Desk, Fields, Value};
use crate::config::report::Wrong;
use crate::config::upstream_tls::{has_system_roots, pem_of};
use crate::config::values::shown;
use crate::config::{Certificates, ClientCertificate, PrivateKey, UpstreamTls, limits};

/// Reads `tls`; `upstreams` beside it may suggest a name.
pub(super) fn read(value: &Value<'_>, upstreams: Option<&Value<'_>>) -> Option<std::sync::Arc<UpstreamTls>> {
    let tls = value.table("`tls`", |fields| {
        let verify = fields.read("verify", Value::boolean).unwrap_or(true);
        let name = fields.read("server_name", |value| value.parse(server_name));
        let ca = fields.read("ca", |value| value.parse(|text| authorities(text, value)));
        let tls = UpstreamTls { server_name: name, verify, ca, client: client(fields) };
        if verify {
            refuse_nameless(fields, upstreams);
            warn_of_no_roots(fields);
        } else {
            warn_of_no_verification(fields);
        }
        tls
    })?;
    Some(std::sync::Arc::new(tls))
}

fn server_name(text: &str) -> Result<String, Wrong> {
    match ServerName::try_from(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(Wrong::new(
            format!("`{}` is no server name", shown(text)),
            "not a host name or IP address",
            "write the name in the upstreams' certificates, without port: server_name = \"app.internal\"",
        )),
    }
}

/// Without a name, the engine below us would believe any certificate, and say nothing.
fn refuse_nameless(fields: &Fields<'_>, upstreams: Option<&Value<'_>>) {
    if !fields.is_absent("server_name") {
        return;
    }
    let names = upstreams.and_then(host_name_in);
    let name = names.unwrap_or("app.internal");
    let help = format!(
        "add the name in the upstreams' certificates: server_name = \"{name}\"; \
         verify = false would trust whoever answers"
    );
    let wrong = Wrong::new(
        "`tls` needs `server_name`: whom should the certificates be for?",
        "no `server_name` here",
        help,
    );
    fields.desk.miss(Some(fields.span.clone()), wrong);
}

/// The file is right, and may be meant for another machine.
fn warn_of_no_roots(fields: &Fields<'_>) {
    if fields.is_absent("ca") && !has_system_roots() {
        let wrong = Wrong::new(
            "this machine trusts no CA, so no certificate will do",
            "no `ca` here, and no system CA certificates",
            "name the CA of the upstreams: ca = \"ca.pem\"; or install `ca-certificates`, then restart",
        );
        fields.desk.warn(fields.span.clone(), wrong);
    }
}

fn warn_of_no_verification(fields: &Fields<'_>) {
    if let Some(ca) = fields.get("ca") {
        let help = "remove `verify = false`, or `ca`";
        let wrong = Wrong::new("`ca` has no meaning with `verify = false`", "nobody would ask it", help);
        ca.desk.refuse(ca.span, wrong);
    } else if let Some(verify) = fields.get("verify") {
        let wrong = Wrong::new(
            "the upstreams of this pool are not verified",
            "whoever answers is believed",
            "name their CA instead: ca = \"ca.pem\", and `server_name`",
        );
        verify.desk.warn(verify.span, wrong);
    }
}

/// Trusted certificates. Of many, some may have expired; of all, not.
fn authorities(text: &str, value: &Value<'_>) -> Result<Certificates, Wrong> {
    let certificates = certificates(text, value.desk)?;
    let mut store = RootCertStore::empty();
    for (index, der) in certificates.ders.iter().enumerate() {
        store.add(der.clone()).map_err(|error| {
            let what =
                format!("certificate {} of `{}` cannot be trusted: {error}", index + 1, certificates.file);
            Wrong::new(what, "no CA certificate", "name a PEM file with the CA certificates of the upstreams")
        })?;
    }
    let now = now();
    let why_not: Vec<String> = certificates.ders.iter().filter_map(|der| out_of_date(der, now)).collect();
    match why_not.first() {
        Some(why) if why_not.len() == certificates.ders.len() => {
            Err(expired(&certificates.file, why, "ask whoever runs the CA for its current certificate"))
        }
        Some(why) => {
            let message = format!("a certificate of `{}` {why}", certificates.file);
            let help = "remove it from the file, unless a clock is wrong";
            value.desk.warn(value.span.clone(), Wrong::new(message, "out of date", help));
            Ok(certificates)
        }
        None => Ok(certificates),
    }
}

/// `certificate` and `key`: both or neither, and of one pair.
fn client(fields: &Fields<'_>) -> Option<ClientCertificate> {
    let (certificate, key) = match (fields.get("certificate"), fields.get("key")) {
        (Some(certificate), Some(key)) => (certificate, key),
        (Some(given), None) => return lonely(&given, "certificate", "key"),
        (None, Some(given)) => return lonely(&given, "key", "certificate"),
        (None, None) => return None,
    };
    let chain = certificate.parse(|text| certificates(text, certificate.desk));
    let private_key = key.parse(|text| private_key(text, key.desk));
    let (chain, private_key) = (chain?, private_key?);
    let made = CertifiedKey::from_der(chain.ders.clone(), private_key.clone_key(), &default_provider());
    if let Err(error) = made {
        return key.refuse(mismatch(&error, &chain.file, key.as_text().unwrap_or_default()));
    }
    if let Some(why) = chain.ders.first().and_then(|der| out_of_date(der, now())) {
        return certificate.refuse(expired(&chain.file, &why, "name one that is valid today"));
    }
    let key_file = key.text()?.to_owned();
    Some(ClientCertificate { chain, key_file, key: PrivateKey(private_key.secret_der().to_vec()) })
}

fn lonely<T>(given: &Value<'_>, name: &str, missing: &str) -> Option<T> {
    let message = format!("`{name}` needs `{missing}`");
    let help = format!("add {missing} = \"client-{missing}.pem\", or remove `{name}`");
    given.desk.miss(Some(given.span.clone()), Wrong::new(message, format!("no `{missing}` beside it"), help));
    None
}

fn mismatch(error: &rustls::Error, certificate: &str, key: &str) -> Wrong {
    let (certificate, key) = (shown(certificate), shown(key));
    match error {
        rustls::Error::InconsistentKeys(_) => Wrong::new(
            format!("the key `{key}` is not that of the certificate `{certificate}`"),
            "another key",
            "name the key that the certificate was made for; compare `openssl pkey -pubout -in KEY` with \
             `openssl x509 -pubkey -noout -in CERTIFICATE`",
        ),
        _ => Wrong::new(
            format!("the key `{key}` cannot be used: {error}"),
            "no usable key",
            "name an unencrypted RSA, ECDSA (P-256, P-384, P-521) or Ed25519 key",
        ),
    }
}

fn expired(file: &str, why: &str, help: &str) -> Wrong {
    Wrong::new(format!("the certificate `{}` {why}", shown(file)), "out of date", help)
}

/// Every certificate of a PEM file; other sections, such as keys, are passed over.
fn certificates(file: &str, desk: &Desk<'_>) -> Result<Certificates, Wrong> {
    let pem = read_file(file, desk)?;
    let read: Result<Vec<CertificateDer<'static>>, _> =
        CertificateDer::pem_slice_iter(&pem).map(|der| der.map(CertificateDer::into_owned)).collect();
    let wrong = |what: String| {
        Wrong::new(
            format!("the file `{}` {what}", shown(file)),
            "no certificates there",
            "name a PEM file: text with lines `-----BEGIN CERTIFICATE-----` (for DER: `openssl x509 -inform der`)",
        )
    };
    let ders = read.map_err(|error| match error {
        pem::Error::MissingSectionEnd { .. } => wrong("is cut off: a section has no end".to_owned()),
        _ => wrong("is no valid PEM".to_owned()),
    })?;
    if ders.is_empty() {
        return Err(wrong("holds no certificate".to_owned()));
    }
    for (index, der) in ders.iter().enumerate() {
        if X509Certificate::from_der(der).is_err() {
            return Err(wrong(format!("is broken: its certificate {} is none", index + 1)));
        }
    }
    Ok(Certificates { file: file.to_owned(), ders })
}

fn private_key(file: &str, desk: &Desk<'_>) -> Result<PrivateKeyDer<'static>, Wrong> {
    let pem = read_file(file, desk)?;
    let wrong = |what: &str, help: &str| {
        Err(Wrong::new(format!("the file `{}` {what}", shown(file)), "no key there", help))
    };
    let encrypted: &[u8] = b"-----BEGIN ENCRYPTED PRIVATE KEY-----";
    match PrivateKeyDer::from_pem_slice(&pem) {
        // By way of its bytes, as whoever uses it later has nothing else.
        Ok(key) => PrivateKeyDer::try_from(key.secret_der().to_vec()).or_else(|_| {
            wrong("is no private key that we know", "convert it: `openssl pkcs8 -topk8 -nocrypt`")
        }),
        Err(_) if pem.windows(encrypted.len()).any(|part| part == encrypted) => wrong(
            "is encrypted",
            "decrypt it with `openssl pkey -in KEY -out PLAIN`, and let nobody but Evener's user read it",
        ),
        Err(_) => wrong("holds no private key", "name a PEM file with a line `-----BEGIN PRIVATE KEY-----`"),
    }
}

/// What is in a file; a relative name starts at the desk's folder. Whoever follows the configuration follows
/// this file too.
fn read_file(file: &str, desk: &Desk<'_>) -> Result<Vec<u8>, Wrong> {
    let path = desk.folder.join(file);
    desk.reads(&path);
    let wrong = |what: &str, help: &str| {
        let message = format!("the file `{}` {what}", shown(&path.display().to_string()));
        Wrong::new(message, "cannot be read", help)
    };
    let there = "check the name; a relative one starts at the folder of this file";
    pem_of(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => wrong("does not exist", there),
        io::ErrorKind::InvalidInput => wrong("is no ordinary file", there),
        io::ErrorKind::PermissionDenied => {
            wrong("may not be read", "let the user that runs Evener read it: `chown` or `chmod`")
        }
        io::ErrorKind::FileTooLarge => {
            wrong("is too large", &format!("name a file of at most {} bytes", limits::UPSTREAM_PEM_BYTES_MAX))
        }
        kind => wrong(&format!("cannot be read: {kind}"), there),
    })
}

/// Why a certificate is not valid at `now`, seconds since 1970.
fn out_of_date(der: &CertificateDer<'_>, now: i64) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let validity = certificate.validity();
    if now > validity.not_after.timestamp() {
        return Some(format!("expired on {}", day(validity.not_after)));
    }
    (now < validity.not_before.timestamp())
        .then(|| format!("is not valid before {}", day(validity.not_before)))
}

fn day(time: ASN1Time) -> String {
    let time = time.to_datetime();
    format!("{:04}-{:02}-{:02}", time.year(), u8::from(time.month()), time.day())
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
