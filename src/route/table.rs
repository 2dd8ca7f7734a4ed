//! All routes, indexed by host, path and header.
//!
//! Hosts are looked up from the most specific kind to the least, under each the leading paths from the longest
//! to the shortest, under each the routes with the most conditions first: so the first route that matches
//! is the most specific one, and none is looked at that has another host or path, or asks for another value of
//! the header that it is kept under.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher};

use http::Method;
use http::header::{HeaderName, HeaderValue};

use super::matcher::conditions_hold;
use super::pattern::{parent_of, without_root_dot};
use super::{HostPattern, Matcher, PathPrefix, RequestHead};

/// See the module documentation.
#[derive(Debug, Default)]
pub struct RouteTable {
    conditions: Vec<Conditions>,
    exact_hosts: Index<ByPath>,
    /// By what stands after the `*.`.
    wildcard_hosts: Index<ByPath>,
    any_host: ByPath,
}

impl RouteTable {
    /// Indexes the routes; of routes that tie, the first wins.
    pub fn new(matchers: impl IntoIterator<Item = Matcher>) -> Self {
        let mut table = Self::default();
        for (route, matcher) in matchers.into_iter().enumerate() {
            table.insert(route, matcher);
        }
        table.sort();
        table
    }

    /// The most specific route that matches, as its index in the order given to [`RouteTable::new`].
    ///
    /// Allocates nothing. Costs one hash of the host per kind of host pattern, one hash of the path per
    /// leading path of that host as long as some leading part of the request's path, there one look-up per
    /// header that its routes name, and the conditions of the routes that share host, path and that header.
    pub fn find(&self, head: &RequestHead<'_>) -> Option<usize> {
        let host = without_root_dot(head.host);
        let exact = self.exact_hosts.get(host);
        let wildcard = || parent_of(host).and_then(|parent| self.wildcard_hosts.get(parent));

        exact
            .and_then(|paths| self.find_below(paths, head))
            .or_else(|| wildcard().and_then(|paths| self.find_below(paths, head)))
            .or_else(|| self.find_below(&self.any_host, head))
    }

    fn find_below(&self, paths: &ByPath, head: &RequestHead<'_>) -> Option<usize> {
        paths.leading(head.path).find_map(|alike| alike.find(&self.conditions, head))
    }

    fn insert(&mut self, route: usize, matcher: Matcher) {
        if matcher.hosts.is_empty() {
            self.any_host.insert(&matcher.path_prefix, route);
        }
        for host in &matcher.hosts {
            let paths = match host {
                HostPattern::Exact(host) => self.exact_hosts.entry(host.as_str().into()),
                HostPattern::Wildcard(suffix) => self.wildcard_hosts.entry(suffix.as_str().into()),
            };
            paths.or_default().insert(&matcher.path_prefix, route);
        }
        self.conditions.push(Conditions::of(matcher));
    }

    fn sort(&mut self) {
        let all =
            self.exact_hosts.values_mut().chain(self.wildcard_hosts.values_mut()).chain([&mut self.any_host]);
        for paths in all {
            paths.sort(&self.conditions);
        }
    }
}

/// The routes of one host by leading path.
#[derive(Debug, Default)]
struct ByPath {
    /// Lengths of the leading paths in bytes, longest first, each once.
    lengths: Vec<usize>,
    /// Routes of each leading path.
    routes: Index<Alike>,
}

impl ByPath {
    /// The routes of each leading path of `path`, from the longest to `/`.
    fn leading<'a>(&'a self, path: &'a str) -> impl Iterator<Item = &'a Alike> {
        self.lengths.iter().filter_map(move |&length| self.routes.get(leading_segments(path, length)?))
    }

    fn insert(&mut self, prefix: &PathPrefix, route: usize) {
        let prefix = prefix.as_str();
        if !self.lengths.contains(&prefix.len()) {
            self.lengths.push(prefix.len());
        }
        self.routes.entry(prefix.into()).or_default().others.push(route);
    }

    fn sort(&mut self, conditions: &[Conditions]) {
        self.lengths.sort_unstable_by(|left, right| right.cmp(left));
        self.routes.values_mut().for_each(|alike| alike.sort(conditions));
    }
}

/// Routes of one host and one leading path: their conditions tell them apart.
///
/// A route that asks for headers is kept under one of them. So a thousand routes that differ in the value of a
/// header, one for each tenant, cost a look-up and not a thousand comparisons.
///
/// Each list has the routes with the most conditions first, then in the order given.
#[derive(Debug, Default)]
struct Alike {
    by_header: HashMap<HeaderName, ByValue, BuildHasherDefault<DefaultHasher>>,
    /// Those that ask for no header; until [`Alike::sort`], all.
    others: Vec<usize>,
}

type ByValue = HashMap<HeaderValue, Vec<usize>, BuildHasherDefault<DefaultHasher>>;

impl Alike {
    fn find(&self, all: &[Conditions], head: &RequestHead<'_>) -> Option<usize> {
        // A header that is sent twice must have the value both times, so the first time tells where to look.
        let asked_for =
            self.by_header.iter().filter_map(|(name, by_value)| by_value.get(head.headers.get(name)?));
        let holds = |route: &usize| all.get(*route).is_some_and(|conditions| conditions.hold(head));
        asked_for
            .chain([&self.others])
            .filter_map(|routes| routes.iter().copied().find(holds))
            .min_by_key(|&route| rank(all, route))
    }

    fn sort(&mut self, all: &[Conditions]) {
        let headers_of = |route: usize| all.get(route).map_or(&[][..], |conditions| &conditions.headers);
        let mut uses: HashMap<&(HeaderName, HeaderValue), usize> = HashMap::new();
        for header in self.others.iter().flat_map(|&route| headers_of(route)) {
            *uses.entry(header).or_default() += 1;
        }
        for route in std::mem::take(&mut self.others) {
            // Under the header that it shares with the fewest: what all of them ask for tells none apart.
            match headers_of(route).iter().min_by_key(|header| uses.get(header)) {
                Some((name, value)) => {
                    let by_value = self.by_header.entry(name.clone()).or_default();
                    by_value.entry(value.clone()).or_default().push(route);
                }
                None => self.others.push(route),
            }
        }
        let lists = self.by_header.values_mut().flat_map(HashMap::values_mut);
        lists.chain([&mut self.others]).for_each(|routes| routes.sort_by_key(|&route| rank(all, route)));
    }
}

/// The least wins: the most conditions, and of equals the one given first.
fn rank(all: &[Conditions], route: usize) -> (Reverse<usize>, usize) {
    (Reverse(all.get(route).map_or(0, |conditions| conditions.count)), route)
}

/// The first `length` bytes of `path`, when they are whole segments. `/` leads every path.
fn leading_segments(path: &str, length: usize) -> Option<&str> {
    if length == 1 {
        return Some("/");
    }
    let ends_there = matches!(path.as_bytes().get(length), None | Some(b'/'));
    path.get(..length).filter(|_| ends_there)
}

/// What a route asks beyond host and path.
#[derive(Debug)]
struct Conditions {
    methods: Vec<Method>,
    headers: Vec<(HeaderName, HeaderValue)>,
    count: usize,
}

impl Conditions {
    fn of(matcher: Matcher) -> Self {
        let count = matcher.condition_count();
        Self { methods: matcher.methods, headers: matcher.headers, count }
    }

    fn hold(&self, head: &RequestHead<'_>) -> bool {
        conditions_hold(&self.methods, &self.headers, head)
    }
}

/// Hashed without a random key: what is in the table comes from the operator, not from clients.
type Index<T> = HashMap<Box<str>, T, BuildHasherDefault<DefaultHasher>>;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http::HeaderMap;
    use proptest::prelude::*;

    use super::*;
    use crate::route::testing::{headers, matcher};

    #[test]
    fn no_route_matches_is_none() {
        assert_eq!(RouteTable::new([]).find(&get("h", "/")), None);
        assert_eq!(RouteTable::new([matcher(&["a.example"], "/")]).find(&get("b.example", "/")), None);
    }

    #[test]
    fn an_exact_host_beats_a_wildcard_and_a_wildcard_any_host_whatever_their_paths() {
        let table = RouteTable::new([
            matcher(&[], "/v1/users"),
            matcher(&["*.example.com"], "/v1"),
            matcher(&["api.example.com"], "/"),
        ]);
        assert_eq!(table.find(&get("api.example.com", "/v1/users")), Some(2));
        assert_eq!(table.find(&get("www.example.com", "/v1/users")), Some(1));
        assert_eq!(table.find(&get("www.example.com", "/v2")), None);
        assert_eq!(table.find(&get("other.org", "/v1/users/7")), Some(0));
    }

    #[test]
    fn a_host_that_matches_but_has_no_route_for_the_path_leaves_it_to_less_specific_hosts() {
        let table = RouteTable::new([matcher(&["api.example.com"], "/v1"), matcher(&[], "/")]);
        assert_eq!(table.find(&get("api.example.com", "/v1/x")), Some(0));
        assert_eq!(table.find(&get("api.example.com", "/v2")), Some(1));
    }

    #[test]
    fn the_longest_path_wins_and_segments_stay_whole() {
        let table = RouteTable::new([matcher(&[], "/"), matcher(&[], "/v1"), matcher(&[], "/v1/users")]);
        for (path, route) in [
            ("/v1/users/7", 2),
            ("/v1/users", 2),
            ("/v1/users2", 1),
            ("/v1//users", 1),
            ("/v10", 0),
            ("*", 0),
            ("", 0),
        ] {
            assert_eq!(table.find(&get("", path)), Some(route), "{path}");
        }
    }

    #[test]
    fn more_conditions_win_and_unfulfilled_ones_fall_back() {
        let canary = Matcher { headers: headers(&[("x-canary", "1")]), ..matcher(&[], "/") };
        let canary_get = Matcher { methods: vec![Method::GET], ..canary.clone() };
        let table = RouteTable::new([matcher(&[], "/"), canary, canary_get]);
        let sent: HeaderMap = headers(&[("x-canary", "1")]).into_iter().collect();

        assert_eq!(table.find(&get("", "/")), Some(0));
        assert_eq!(table.find(&RequestHead { headers: &sent, ..get("", "/") }), Some(2));
        assert_eq!(
            table.find(&RequestHead { headers: &sent, method: &Method::POST, ..get("", "/") }),
            Some(1)
        );
    }

    #[test]
    fn routes_that_differ_in_one_header_are_looked_up_by_it_and_not_one_after_another() {
        let tenant = |number: usize| Matcher {
            headers: vec![
                (HeaderName::from_static("x-stage"), HeaderValue::from_static("live")),
                (HeaderName::from_static("x-tenant"), HeaderValue::from(number)),
            ],
            ..matcher(&[], "/")
        };
        let table = RouteTable::new((0..1_000).map(tenant).chain([matcher(&[], "/")]));

        let alike = table.any_host.routes.get("/").unwrap();
        let longest = alike.by_header.values().flat_map(HashMap::values).map(Vec::len).max();
        assert_eq!((longest, &alike.others), (Some(1), &vec![1_000]));

        let sent = |stage, value| -> HeaderMap {
            headers(&[("x-stage", stage), ("x-tenant", value)]).into_iter().collect()
        };
        let found = |headers| table.find(&RequestHead { headers: &headers, ..get("", "/") });
        assert_eq!(found(sent("live", "617")), Some(617));
        assert_eq!(found(sent("test", "617")), Some(1_000));
        assert_eq!(found(sent("live", "1617")), Some(1_000));
    }

    #[test]
    fn the_dot_of_the_root_does_not_make_another_host() {
        let table = RouteTable::new([matcher(&["api.example.com", "*.example.org"], "/")]);
        assert_eq!(table.find(&get("api.example.com.", "/")), Some(0));
        assert_eq!(table.find(&get("a.example.org.", "/")), Some(0));
    }

    #[test]
    fn a_character_cut_in_two_by_a_length_is_no_match_and_no_panic() {
        let table = RouteTable::new([matcher(&[], "/abc")]);
        assert_eq!(table.find(&get("", "/abü")), None);
    }

    fn get<'a>(host: &'a str, path: &'a str) -> RequestHead<'a> {
        static NONE: std::sync::LazyLock<HeaderMap> = std::sync::LazyLock::new(HeaderMap::new);
        RequestHead { host, method: &Method::GET, path, headers: &NONE }
    }

    proptest! {
        /// The index answers as a plain look at every route does.
        #[test]
        fn the_table_finds_what_looking_at_every_route_finds(
            matchers in prop::collection::vec(any_matcher(), 0..24),
            host in any_host(),
            path in any_path(),
            method in any_method(),
            sent in prop::collection::vec((any_header_name(), any_value()), 0..3),
        ) {
            let mut headers = HeaderMap::new();
            for (name, value) in sent {
                headers.append(name, value);
            }
            let head = RequestHead { host: &host, method: &method, path: &path, headers: &headers };

            prop_assert_eq!(RouteTable::new(matchers.clone()).find(&head), by_looking_at_all(&matchers, &head));
        }

        /// What `ties_with` calls different, no request finds equal.
        #[test]
        fn routes_that_do_not_tie_are_never_equally_specific(
            left in any_matcher(),
            right in any_matcher(),
            host in any_host(),
            path in any_path(),
            method in any_method(),
            value in any_value(),
        ) {
            let headers: HeaderMap = [(any_name("x-a"), value.clone()), (any_name("x-b"), value)].into_iter().collect();
            let head = RequestHead { host: &host, method: &method, path: &path, headers: &headers };
            let both = (left.specificity(&head), right.specificity(&head));

            prop_assert!(left.ties_with(&right) || both.0.is_none() || both.0 != both.1);
            prop_assert_eq!(left.ties_with(&right), right.ties_with(&left));
        }
    }

    /// The rules once more, written for the eye: split into labels and segments, compare, take the maximum.
    fn by_looking_at_all(matchers: &[Matcher], head: &RequestHead<'_>) -> Option<usize> {
        let rank = |matcher: &Matcher| {
            let labels: Vec<&str> = head.host.split('.').collect();
            let host = if matcher.hosts.is_empty() {
                0
            } else {
                matcher.hosts.iter().map(|pattern| host_rank(pattern, &labels)).max()?.max(-1)
            };
            let prefix: Vec<&str> =
                matcher.path_prefix.as_str().split('/').filter(|part| !part.is_empty()).collect();
            let path: Vec<&str> = head.path.split('/').skip(1).collect();
            let method =
                matcher.methods.is_empty() || matcher.methods.iter().any(|method| method == head.method);
            let headers = matcher.headers.iter().all(|(name, value)| {
                head.headers.contains_key(name) && head.headers.get_all(name).iter().all(|sent| sent == value)
            });
            (host >= 0 && path.starts_with(&prefix) && method && headers).then(|| {
                (
                    host,
                    matcher.path_prefix.as_str().len(),
                    usize::from(!matcher.methods.is_empty()) + matcher.headers.len(),
                )
            })
        };
        let ranked = matchers.iter().enumerate().filter_map(|(route, matcher)| Some((rank(matcher)?, route)));
        ranked.max_by_key(|&(rank, route)| (rank, std::cmp::Reverse(route))).map(|(_, route)| route)
    }

    fn host_rank(pattern: &HostPattern, labels: &[&str]) -> i8 {
        match pattern {
            HostPattern::Exact(host) if host.split('.').eq(labels.iter().copied()) => 2,
            HostPattern::Wildcard(suffix) if suffix.split('.').eq(labels.iter().skip(1).copied()) => 1,
            _ => -1,
        }
    }

    fn any_matcher() -> impl Strategy<Value = Matcher> {
        let hosts = prop::collection::vec(prop_oneof!["[ab](\\.[ab]){0,2}", "\\*(\\.[ab]){1,2}"], 0..3);
        let headers = prop::collection::hash_map(any_header_name(), any_value(), 0..3);
        (hosts, "(/[xy]){1,3}|/", prop::collection::vec(any_method(), 0..3), headers).prop_map(
            |(hosts, path, methods, headers)| Matcher {
                hosts: hosts.iter().map(|host| HostPattern::parse(host).unwrap()).collect(),
                path_prefix: PathPrefix::parse(&path).unwrap(),
                methods,
                headers: headers.into_iter().collect(),
            },
        )
    }

    fn any_host() -> impl Strategy<Value = String> {
        "[ab](\\.[ab]){0,3}"
    }

    fn any_path() -> impl Strategy<Value = String> {
        "(/[xy]{0,2}){1,5}"
    }

    fn any_method() -> impl Strategy<Value = Method> {
        prop_oneof![Just(Method::GET), Just(Method::POST), Just(Method::PUT)]
    }

    fn any_header_name() -> impl Strategy<Value = HeaderName> {
        prop_oneof![Just(any_name("x-a")), Just(any_name("x-b"))]
    }

    fn any_name(name: &'static str) -> HeaderName {
        HeaderName::from_static(name)
    }

    fn any_value() -> impl Strategy<Value = HeaderValue> {
        prop_oneof![Just(HeaderValue::from_static("1")), Just(HeaderValue::from_static("2"))]
    }
}
