//! `tls` of a pool: reads its files, and refuses what could not work.

use std::time::SystemTime;

use rustls_pki_types::ServerName;

use super::named_file::{NamedFile, read_authorities, read_pair};
use super::upstream::host_name_in;
use crate::config::fields::{Fields, Value};
use crate::config::pair;
use crate::config::report::Wrong;
use crate::config::upstream_tls::has_system_roots;
use crate::config::values::shown;
use crate::config::{Certificates, ClientCertificate, PrivateKey, UpstreamTls};

/// Reads `tls`; `upstreams` beside it may suggest a name.
pub(super) fn read(value: &Value<'_>, upstreams: Option<&Value<'_>>) -> Option<std::sync::Arc<UpstreamTls>> {
    let tls = value.table("`tls`", |fields| {
        let verify = fields.read("verify", Value::boolean).unwrap_or(true);
        let name = fields.read("server_name", |value| value.parse(server_name));
        let ca = fields.read("ca", trusted);
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

/// Trusted certificates.
fn trusted(value: &Value<'_>) -> Option<Certificates> {
    let file = NamedFile::of(value)?;
    let (ders, _) = read_authorities(&file)?;
    Some(Certificates { file: file.text.to_owned(), ders })
}

/// `certificate` and `key`: both or neither, and of one pair.
fn client(fields: &Fields<'_>) -> Option<ClientCertificate> {
    let (certificate, key) = match (fields.get("certificate"), fields.get("key")) {
        (Some(certificate), Some(key)) => (certificate, key),
        (Some(given), None) => return lonely(&given, "certificate", "key"),
        (None, Some(given)) => return lonely(&given, "key", "certificate"),
        (None, None) => return None,
    };
    let (certificate, key) = (NamedFile::of(&certificate), NamedFile::of(&key));
    let (certificate, key) = (certificate?, key?);
    let pair =
        read_pair(&certificate, &key, |certificate, key| pair::read(certificate, key, SystemTime::now()))?;
    let chain = Certificates { file: certificate.text.to_owned(), ders: pair.certified.cert };
    let key_file = key.text.to_owned();
    Some(ClientCertificate { chain, key_file, key: PrivateKey(pair.key.secret_der().to_vec()) })
}

fn lonely<T>(given: &Value<'_>, name: &str, missing: &str) -> Option<T> {
    let message = format!("`{name}` needs `{missing}`");
    let help = format!("add {missing} = \"client-{missing}.pem\", or remove `{name}`");
    given.desk.miss(Some(given.span.clone()), Wrong::new(message, format!("no `{missing}` beside it"), help));
    None
}
