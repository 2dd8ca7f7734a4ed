//! Files that the configuration names: certificates, keys and authorities.

use std::path::PathBuf;
use std::slice;
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

use super::secret;
use crate::config::fields::Value;
use crate::config::pair::{Fault, parsed, validity};
use crate::config::pem::{self, Unusable};
use crate::config::report::Wrong;
use crate::config::values::shown;

/// A file, and where it is named.
pub(super) struct NamedFile<'t> {
    pub value: Value<'t>,
    /// Its name as written.
    pub text: &'t str,
    pub path: PathBuf,
}

impl<'t> NamedFile<'t> {
    /// A relative name starts at the desk's folder. Whoever follows the configuration follows this file too.
    pub(super) fn of(value: &Value<'t>) -> Option<Self> {
        let text = value.text()?;
        let path = value.desk.folder.join(text);
        value.desk.reads(&path);
        Some(Self { value: value.clone(), text, path })
    }

    /// Says what is wrong with it, `what` being the kind of file: `key file`.
    pub(super) fn refuse<T>(&self, what: &str, why: Unusable) -> Option<T> {
        let message = format!("the {what} `{}` {}", shown(self.text), why.what);
        self.value.refuse(Wrong::new(message, "of no use", why.help))
    }
}

/// Reads a certificate and its key, and says what is wrong with either.
pub(super) fn read_pair<'t, T>(
    certificate: &NamedFile<'t>,
    key: &NamedFile<'t>,
    read: impl FnOnce((&str, &std::path::Path), (&str, &std::path::Path)) -> Result<T, Fault>,
) -> Option<T> {
    secret::warn_of_open_key(&key.value);
    match read((certificate.text, &certificate.path), (key.text, &key.path)) {
        Ok(read) => Some(read),
        Err(Fault::Certificate(why)) => certificate.refuse("certificate file", why),
        Err(Fault::Key(why)) => key.refuse("key file", why),
    }
}

/// Reads authorities, in their order and as those who ask them want them. Nobody looks at their dates later on, and one
/// that has ended would be believed for ever: so it is left out, and told. One at least has to be in force.
pub(super) fn read_authorities(
    file: &NamedFile<'_>,
) -> Option<(Vec<CertificateDer<'static>>, RootCertStore)> {
    let found = match pem::certificates(&file.path) {
        Ok(found) => found,
        Err(why) => return file.refuse("file", why),
    };
    let (mut in_force, mut fault, now) = (Vec::new(), None, SystemTime::now());
    for certificate in found {
        let validity = match parsed(slice::from_ref(&certificate)) {
            Ok(parsed) => validity(&parsed, now),
            Err(why) => return file.refuse("file", why),
        };
        match validity {
            Ok(_) => in_force.push(certificate),
            Err(why) => fault = Some(why),
        }
    }
    if let Some(Unusable { what, .. }) = fault {
        if in_force.is_empty() {
            let help = "ask whoever runs the CA for its current certificate";
            return file.refuse("file", Unusable::new(what, help));
        }
        let message = format!("a certificate in `{}` {what}", shown(file.text));
        let help = "remove it from the file, unless a clock is wrong";
        file.value.desk.warn(file.value.span.clone(), Wrong::new(message, "left out", help));
    }
    match pem::store_of(&in_force) {
        Ok(store) => Some((in_force, store)),
        Err(why) => file.refuse("file", why),
    }
}
