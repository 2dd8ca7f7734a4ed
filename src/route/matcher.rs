//! One route's conditions, and which of two matching routes is the more specific.

use http::Method;
use http::header::{HeaderName, HeaderValue};

use super::{HostPattern, PathPrefix, RequestHead};

/// Which requests a route takes: all conditions must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Matcher {
    /// Any of these hosts; empty: every host.
    pub hosts: Vec<HostPattern>,
    /// Leading whole segments; `/`: every path.
    pub path_prefix: PathPrefix,
    /// Any of these methods; empty: every method. `GET` does not include `HEAD`.
    pub methods: Vec<Method>,
    /// All of these headers with these values.
    ///
    /// A header that is sent twice must have the value both times: so `x-canary: 1` and `x-canary: 2`
    /// exclude each other, and a client cannot reach two routes by sending both.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl Matcher {
    /// How closely this route describes the request; `None`: it does not match.
    pub fn specificity(&self, head: &RequestHead<'_>) -> Option<Specificity> {
        let host = self.host_specificity(head.host)?;
        let holds =
            self.path_prefix.matches(head.path) && conditions_hold(&self.methods, &self.headers, head);
        holds.then(|| Specificity {
            host,
            path_bytes: self.path_prefix.as_str().len(),
            conditions: self.condition_count(),
        })
    }

    /// Whether some request could match both routes while neither is the more specific one.
    pub fn ties_with(&self, other: &Self) -> bool {
        self.path_prefix == other.path_prefix
            && self.condition_count() == other.condition_count()
            && self.shares_host_with(other)
            && self.shares_method_with(other)
            && self.headers_agree_with(other)
    }

    /// Methods count one, each header counts one.
    pub(super) fn condition_count(&self) -> usize {
        usize::from(!self.methods.is_empty()) + self.headers.len()
    }

    fn host_specificity(&self, host: &str) -> Option<HostSpecificity> {
        if self.hosts.is_empty() {
            return Some(HostSpecificity::Any);
        }
        let matching = self.hosts.iter().filter(|pattern| pattern.matches(host));
        matching.map(HostSpecificity::of).max()
    }

    /// Patterns of different kinds are never equally specific. The same wildcard always ties: of the
    /// endlessly many labels it stands for, some are in neither route's exact hosts.
    fn shares_host_with(&self, other: &Self) -> bool {
        match (self.hosts.is_empty(), other.hosts.is_empty()) {
            (true, true) => true,
            (false, false) => self.hosts.iter().any(|pattern| other.hosts.contains(pattern)),
            _ => false,
        }
    }

    fn shares_method_with(&self, other: &Self) -> bool {
        self.methods.is_empty()
            || other.methods.is_empty()
            || self.methods.iter().any(|method| other.methods.contains(method))
    }

    /// Whether one request can fulfil the header conditions of both.
    fn headers_agree_with(&self, other: &Self) -> bool {
        let mut all = self.headers.iter().chain(&other.headers);
        while let Some((name, value)) = all.next() {
            if all.clone().any(|(same, another)| same == name && another != value) {
                return false;
            }
        }
        true
    }
}

/// How closely a route describes a request; of all routes that match, the greatest wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Specificity {
    // The order of the fields is the order of importance.
    host: HostSpecificity,
    path_bytes: usize,
    conditions: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum HostSpecificity {
    Any,
    Wildcard,
    Exact,
}

impl HostSpecificity {
    const fn of(pattern: &HostPattern) -> Self {
        match pattern {
            HostPattern::Wildcard(_) => Self::Wildcard,
            HostPattern::Exact(_) => Self::Exact,
        }
    }
}

/// Whether a request fulfils what a route asks beyond host and path.
pub(super) fn conditions_hold(
    methods: &[Method],
    headers: &[(HeaderName, HeaderValue)],
    head: &RequestHead<'_>,
) -> bool {
    (methods.is_empty() || methods.contains(head.method))
        && headers.iter().all(|(name, value)| has_only(head, name, value))
}

fn has_only(head: &RequestHead<'_>, name: &HeaderName, value: &HeaderValue) -> bool {
    let mut sent = head.headers.get_all(name).iter();
    sent.next().is_some_and(|first| first == value) && sent.all(|further| further == value)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::route::testing::{headers, matcher};

    #[test]
    fn routes_for_the_same_requests_tie() {
        let route = matcher(&["a.example", "*.b.example"], "/v1");
        assert!(route.ties_with(&route));
        assert!(route.ties_with(&matcher(&["x.example", "*.b.example"], "/v1")));
        assert!(matcher(&[], "/").ties_with(&matcher(&[], "/")));
    }

    #[test]
    fn a_more_specific_route_does_not_tie() {
        let route = matcher(&["a.example"], "/v1");
        assert!(!route.ties_with(&matcher(&[], "/v1")), "exact host beats any");
        assert!(!route.ties_with(&matcher(&["*.example"], "/v1")), "exact host beats wildcard");
        assert!(!route.ties_with(&matcher(&["a.example"], "/v1/users")), "longer path");
        assert!(
            !route.ties_with(&Matcher { methods: vec![Method::GET], ..route.clone() }),
            "more conditions"
        );
    }

    #[test]
    fn routes_that_no_request_can_match_both_do_not_tie() {
        let route = matcher(&["a.example"], "/v1");
        let with_methods = |methods: &[Method]| Matcher { methods: methods.to_vec(), ..route.clone() };
        let with_header =
            |value: &'static str| Matcher { headers: headers(&[("x-canary", value)]), ..route.clone() };

        assert!(!route.ties_with(&matcher(&["b.example"], "/v1")));
        assert!(!with_methods(&[Method::GET]).ties_with(&with_methods(&[Method::POST])));
        assert!(with_methods(&[Method::GET, Method::PUT]).ties_with(&with_methods(&[Method::PUT])));
        assert!(!with_header("1").ties_with(&with_header("2")));
        assert!(with_header("1").ties_with(&with_header("1")));
        assert!(
            with_header("1").ties_with(&with_methods(&[Method::GET])),
            "one condition each, both can hold"
        );
    }

    #[test]
    fn a_header_sent_with_two_values_fulfils_neither() {
        let route = Matcher { headers: headers(&[("x-canary", "1")]), ..Matcher::default() };
        let matches = |sent: &[(&'static str, &'static str)]| {
            let headers: HeaderMap =
                headers(sent).into_iter().fold(HeaderMap::new(), |mut map, (name, value)| {
                    map.append(name, value);
                    map
                });
            let head = RequestHead { host: "h", method: &Method::GET, path: "/", headers: &headers };
            route.specificity(&head).is_some()
        };

        assert!(matches(&[("x-canary", "1")]));
        assert!(matches(&[("x-canary", "1"), ("x-canary", "1")]));
        assert!(!matches(&[("x-canary", "1"), ("x-canary", "2")]));
        assert!(!matches(&[("x-canary", "2"), ("x-canary", "1")]));
        assert!(!matches(&[]));
    }
}
