//! Files that the configuration names: certificates, keys and authorities.

use std::path::PathBuf;

use super::secret;
use crate::config::fields::Value;
use crate::config::pair::Fault;
use crate::config::pem::Unusable;
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
