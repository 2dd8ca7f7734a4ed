//! `POOL/ADDRESS`: one upstream, as operators name it.

use std::fmt;
use std::str::FromStr;

use super::client::encoded;

/// An upstream of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) pool: String,
    /// As it was typed: `10.0.0.1:80`, `[::1]:80`, `unix:/run/app.sock`.
    pub(super) address: String,
}

impl FromStr for Member {
    type Err = String;

    /// The first slash ends the pool's name, which has none; the address may have some.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((pool, address)) if !pool.is_empty() && !address.is_empty() && !pool.contains(':') => {
                Ok(Self { pool: pool.to_owned(), address: address.to_owned() })
            }
            _ => Err("expected POOL/ADDRESS, such as app/10.0.1.10:8080 or app/unix:/run/app.sock; `evener pools` lists them".to_owned()),
        }
    }
}

impl Member {
    /// Its place in the API.
    pub(super) fn path(&self) -> String {
        format!("/v1/pools/{}/upstreams/{}", encoded(&self.pool), encoded(&self.address))
    }
}

impl fmt::Display for Member {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.pool, self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_have_slashes_and_brackets() {
        for (text, path) in [
            ("app/127.0.0.1:9001", "/v1/pools/app/upstreams/127.0.0.1:9001"),
            ("app/[::1]:9001", "/v1/pools/app/upstreams/%5B::1%5D:9001"),
            ("app/unix:/run/app.sock", "/v1/pools/app/upstreams/unix:%2Frun%2Fapp.sock"),
        ] {
            let member: Member = text.parse().unwrap();
            assert_eq!((member.to_string(), member.path()), (text.to_owned(), path.to_owned()));
        }
        for text in ["", "app", "app/", "/127.0.0.1:1", "127.0.0.1:9001", "unix:/run/app.sock"] {
            assert!(text.parse::<Member>().is_err(), "{text}");
        }
    }
}
