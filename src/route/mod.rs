//! Matches a request head to a route.
//!
//! ```text
//!   host, path, method, headers          Matcher of each route
//!               │                                 │
//!         RequestHead ──► RouteTable::find ◄── RouteTable::new
//!                                │
//!                                ▼
//!                         Option<usize>   an index in the order given to `new`
//! ```
//!
//! Of all routes that match, the most specific wins: exact host before wildcard before any host, then the
//! longer path, then more conditions. Order means nothing, so two routes that tie ([`Matcher::ties_with`])
//! are a mistake that the configuration refuses.
//!
//! **The path is compared as it was sent**, byte by byte: `%61` is not `a`, and `.`, `..` and empty segments
//! are segments like others. Upstreams disagree on what such a path means, so deciding for them would be a
//! guess; a route is therefore no access control for upstreams that decode paths. `/v1` takes `/v1//users`,
//! `/v1/users` does not.
//!
//! **To add a condition**: a field in [`Matcher`], a line in `Conditions`, one in `Conditions::overlap`.
//!
//! **Invariant**: this room uses `std` and `http` and nothing else (floor 0); finding a route allocates nothing.

mod matcher;
mod pattern;
mod table;

use http::{HeaderMap, Method};

pub use matcher::{Matcher, Specificity};
pub use pattern::{HOST_BYTES_MAX, HostPattern, PATH_PREFIX_BYTES_MAX, PathPrefix};
pub use table::RouteTable;

/// What a route may know about a request.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// Lower case, without port; empty when an HTTP/1.0 client names none.
    pub host: &'a str,
    /// As sent.
    pub method: &'a Method,
    /// Path without query, as sent.
    pub path: &'a str,
    /// All request headers.
    pub headers: &'a HeaderMap,
}

/// Short ways to write routes, for the tests of this room.
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod testing {
    use http::header::{HeaderName, HeaderValue};

    use super::{HostPattern, Matcher, PathPrefix};

    pub(super) fn matcher(hosts: &[&str], path: &str) -> Matcher {
        Matcher {
            hosts: hosts.iter().map(|host| HostPattern::parse(host).unwrap()).collect(),
            path_prefix: PathPrefix::parse(path).unwrap(),
            ..Matcher::default()
        }
    }

    pub(super) fn headers(pairs: &[(&'static str, &'static str)]) -> Vec<(HeaderName, HeaderValue)> {
        pairs
            .iter()
            .map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }
}
