//! Tokens of the side port: what each allows, and how one is recognised.

use std::fmt;

use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use super::AdminConfig;

/// `[admin.tokens.<name>]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenConfig {
    /// The name in the file and in the audit log.
    pub name: String,
    /// What its bearer may do.
    pub scope: Scope,
    /// What its bearer sends.
    pub secret: TokenSecret,
}

/// What a token allows; each scope includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Looking.
    Read,
    /// Whatever passes by itself or is undone with a word: drain, ready, weight, a health check now.
    Operate,
    /// Everything.
    Write,
}

impl Scope {
    /// All of them, from least to most.
    pub const ALL: [Self; 3] = [Self::Read, Self::Operate, Self::Write];

    /// The word in the file, in answers and in `openapi.json`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Operate => "operate",
            Self::Write => "write",
        }
    }
}

/// Recognises a secret without keeping it: only its SHA-256 is held, and no `Debug` shows even that.
///
/// A plain hash is enough for what is long and random; it is no way to keep what people think up.
#[derive(Clone)]
pub struct TokenSecret([u8; SHA256_OUTPUT_LEN]);

impl TokenSecret {
    /// Remembers this secret by its hash.
    pub fn of(secret: &[u8]) -> Self {
        let mut hash = [0; SHA256_OUTPUT_LEN];
        // Both have the length of SHA-256; `zip` says so without a way to panic.
        for (to, from) in hash.iter_mut().zip(digest(&SHA256, secret).as_ref()) {
            *to = *from;
        }
        Self(hash)
    }

    fn is(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

impl PartialEq for TokenSecret {
    /// Takes the same time wherever they differ.
    fn eq(&self, other: &Self) -> bool {
        self.is(other).into()
    }
}

impl Eq for TokenSecret {}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("TokenSecret(…)")
    }
}

impl AdminConfig {
    /// The token with this secret, if there is one.
    ///
    /// Every token is compared, in full, whichever fits: how long it takes says how many tokens there
    /// are, and nothing about their secrets.
    pub fn token_of(&self, secret: &[u8]) -> Option<&TokenConfig> {
        let presented = TokenSecret::of(secret);
        let mut found = NOBODY;
        for (index, token) in (0..NOBODY).zip(&self.tokens) {
            found.conditional_assign(&index, token.secret.is(&presented));
        }
        self.tokens.get(usize::try_from(found).ok()?)
    }
}

/// An index that no token has: a file has at most [`TOKENS_MAX`](super::limits::TOKENS_MAX).
const NOBODY: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    fn admin(secrets: &[&str]) -> AdminConfig {
        let token = |secret: &&str| TokenConfig {
            name: format!("of {secret}"),
            scope: Scope::Read,
            secret: TokenSecret::of(secret.as_bytes()),
        };
        AdminConfig { tokens: secrets.iter().map(token).collect(), ..AdminConfig::default() }
    }

    #[test]
    fn a_token_is_found_by_its_whole_secret() {
        let admin = admin(&["one", "two", "three"]);
        for secret in ["one", "two", "three"] {
            assert_eq!(
                admin.token_of(secret.as_bytes()).map(|token| &*token.name),
                Some(&*format!("of {secret}"))
            );
        }
        for secret in ["", "on", "one ", "One", "onetwo", "four"] {
            assert_eq!(admin.token_of(secret.as_bytes()), None, "{secret}");
        }
    }

    #[test]
    fn without_tokens_nothing_is_found() {
        assert_eq!(admin(&[]).token_of(b""), None);
    }

    #[test]
    fn a_secret_is_kept_as_its_hash_and_shown_as_nothing() {
        // The test vector of FIPS 180-2, appendix B.1.
        let hash = TokenSecret::of(b"abc").0;
        assert!(hash.starts_with(&[0xba, 0x78, 0x16, 0xbf]) && hash.ends_with(&[0xf2, 0x00, 0x15, 0xad]));
        assert_eq!(format!("{:?}", TokenSecret::of(b"abc")), "TokenSecret(…)");
    }

    #[test]
    fn each_scope_includes_those_before_it() {
        assert!(Scope::ALL.is_sorted());
    }
}
