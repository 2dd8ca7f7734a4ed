//! Which certificate a client is shown: by the name it asks for, and by what it can verify.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{CipherSuite, SignatureAlgorithm, SignatureScheme};

use super::server::{Identity, KeyKind};

/// The certificates of one listener.
///
/// An exact name comes before a wildcard. Of several certificates with one name, the client gets the first that
/// it can use, in the order of [`KeyKind`]. Whoever asks for a name that nobody has, or for none, as clients do
/// that know only an address, is shown the first certificate of the file; it may be enough for them.
#[derive(Debug)]
pub(super) struct ByName {
    names: HashMap<String, Alike>,
    default: Alike,
}

/// Certificates with a name in common, the preferred one first.
type Alike = Vec<(KeyKind, Arc<CertifiedKey>)>;

impl ByName {
    pub(super) fn new(identities: Vec<Identity>) -> Self {
        let mut names: HashMap<String, Alike> = HashMap::new();
        let first_name =
            identities.first().and_then(|first| first.names.first()).cloned().unwrap_or_default();
        for Identity { names: own, kind, key } in identities {
            for name in own {
                let alike = names.entry(name).or_default();
                alike.push((kind, key.clone()));
                alike.sort_by_key(|(kind, _)| *kind);
            }
        }
        let default = names.get(&first_name).cloned().unwrap_or_default();
        Self { names, default }
    }

    /// What there is for a name, the most specific first.
    fn candidates<'a>(&'a self, name: Option<&'a str>) -> impl Iterator<Item = &'a Alike> {
        let exact = name.and_then(|name| self.names.get(name));
        let wildcard = name.and_then(|name| {
            let (_, parent) = name.split_once('.')?;
            self.names.get(&format!("*.{parent}"))
        });
        let is_known = exact.is_some() || wildcard.is_some();
        let default = (!is_known).then_some(&self.default);
        [exact, wildcard, default].into_iter().flatten()
    }

    fn choose(&self, name: Option<&str>, can: &Abilities<'_>) -> Option<Arc<CertifiedKey>> {
        let usable = |alike: &Alike| {
            alike.iter().find(|(kind, key)| can.use_of(*kind, &*key.key)).map(|(_, key)| key.clone())
        };
        let first = || self.candidates(name).next()?.first().map(|(_, key)| key.clone());
        // If there is nothing for it, rustls finds out once more, and says so in its alert.
        self.candidates(name).find_map(usable).or_else(first)
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let can = Abilities { schemes: hello.signature_schemes(), suites: hello.cipher_suites() };
        // Some clients send the dot with which a host name may end.
        let name = hello.server_name().map(|name| name.strip_suffix('.').unwrap_or(name));
        self.choose(name, &can)
    }
}

/// What a client says that it can.
struct Abilities<'a> {
    schemes: &'a [SignatureScheme],
    suites: &'a [CipherSuite],
}

impl Abilities<'_> {
    /// In TLS 1.2 the suite has the type of the key in its name, too.
    fn use_of(&self, kind: KeyKind, key: &dyn SigningKey) -> bool {
        key.choose_scheme(self.schemes).is_some() && self.suites.iter().any(|suite| kind.goes_with(*suite))
    }
}

impl KeyKind {
    pub(super) const fn of(algorithm: SignatureAlgorithm) -> Option<Self> {
        match algorithm {
            SignatureAlgorithm::ECDSA => Some(Self::Ecdsa),
            SignatureAlgorithm::ED25519 => Some(Self::Ed25519),
            SignatureAlgorithm::RSA => Some(Self::Rsa),
            _ => None,
        }
    }

    const fn goes_with(self, suite: CipherSuite) -> bool {
        match suite {
            CipherSuite::TLS13_AES_128_GCM_SHA256
            | CipherSuite::TLS13_AES_256_GCM_SHA384
            | CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => true,
            CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => !matches!(self, Self::Rsa),
            CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
            | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => matches!(self, Self::Rsa),
            _ => false,
        }
    }
}
