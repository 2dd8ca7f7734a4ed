//! Route matching, against an oracle that tries every route in turn.

use evener::route::{HostPattern, Matcher, PathPrefix, RequestHead, RouteTable};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

/// One line is the request, `host method path name=value…`; each further one a route,
/// `hosts prefix methods name=value…`, where `hosts` and `methods` are separated by commas and may be `-`.
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut lines = text.lines();
    let Some(request) = lines.next().and_then(Request::parse) else { return };
    let matchers: Vec<Matcher> = lines.take(32).filter_map(route).collect();
    let head = RequestHead {
        host: &request.host,
        method: &request.method,
        path: &request.path,
        headers: &request.headers,
    };
    let found = RouteTable::new(matchers.clone()).find(&head);
    assert_eq!(found, slowly(&matchers, &head), "{matchers:?}");
    if let Some(found) = found {
        assert!(matchers[found].specificity(&head).is_some());
    }
    check_ties(&matchers, &head);
}

/// Of two routes that both match and of which neither is more specific, the configuration says so.
fn check_ties(matchers: &[Matcher], head: &RequestHead<'_>) {
    for (index, one) in matchers.iter().enumerate() {
        for other in &matchers[index + 1..] {
            assert_eq!(one.ties_with(other), other.ties_with(one));
            let (rank, same) = (one.specificity(head), other.specificity(head));
            if rank.is_some() && rank == same {
                assert!(one.ties_with(other), "{one:?} and {other:?} both take {head:?}");
            }
        }
    }
}

struct Request {
    host: String,
    method: Method,
    path: String,
    headers: HeaderMap,
}

impl Request {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let host = words.next()?.to_ascii_lowercase();
        let method = words.next()?.parse().ok()?;
        let path = words.next()?.to_owned();
        let mut headers = HeaderMap::new();
        for (name, value) in words.filter_map(field) {
            headers.append(name, value);
        }
        Some(Self { host, method, path, headers })
    }
}

fn field(word: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = word.split_once('=')?;
    Some((name.parse().ok()?, value.parse().ok()?))
}

fn route(line: &str) -> Option<Matcher> {
    let mut words = line.split(' ');
    let listed =
        |word: &str| if word == "-" { Vec::new() } else { word.split(',').map(str::to_owned).collect() };
    let hosts =
        listed(words.next()?).iter().map(|host| HostPattern::parse(host).ok()).collect::<Option<_>>()?;
    let path_prefix = PathPrefix::parse(words.next()?).ok()?;
    let methods = listed(words.next()?).iter().map(|method| method.parse().ok()).collect::<Option<_>>()?;
    let mut headers: Vec<(HeaderName, HeaderValue)> = Vec::new();
    for (name, value) in words.filter_map(field) {
        if headers.iter().all(|(other, _)| *other != name) {
            headers.push((name, value));
        }
    }
    Some(Matcher { hosts, path_prefix, methods, headers })
}

fn slowly(matchers: &[Matcher], head: &RequestHead<'_>) -> Option<usize> {
    let mut best: Option<(usize, (u8, usize, usize))> = None;
    for (index, matcher) in matchers.iter().enumerate() {
        if let Some(rank) = rank(matcher, head)
            && best.is_none_or(|(_, better)| rank > better)
        {
            best = Some((index, rank));
        }
    }
    best.map(|(index, _)| index)
}

/// How specific: exact host, wildcard or any; length of the path; number of conditions.
fn rank(matcher: &Matcher, head: &RequestHead<'_>) -> Option<(u8, usize, usize)> {
    let host = if matcher.hosts.is_empty() {
        0
    } else {
        matcher.hosts.iter().filter_map(|pattern| host_rank(pattern, head.host)).max()?
    };
    let prefix = matcher.path_prefix.as_str();
    let wanted: Vec<&str> = prefix.split('/').collect();
    let there: Vec<&str> = head.path.split('/').collect();
    let takes = prefix == "/" || there.starts_with(&wanted);
    let methods = matcher.methods.is_empty() || matcher.methods.contains(head.method);
    let headers = matcher.headers.iter().all(|(name, value)| {
        let sent: Vec<_> = head.headers.get_all(name).iter().collect();
        !sent.is_empty() && sent.iter().all(|sent| *sent == value)
    });
    let conditions = usize::from(!matcher.methods.is_empty()) + matcher.headers.len();
    (takes && methods && headers).then_some((host, prefix.len(), conditions))
}

fn host_rank(pattern: &HostPattern, host: &str) -> Option<u8> {
    let host = host.strip_suffix('.').unwrap_or(host);
    match pattern {
        HostPattern::Exact(exact) => (exact == host).then_some(2),
        HostPattern::Wildcard(suffix) => {
            let labels: Vec<&str> = host.split('.').collect();
            let is_one_more = !labels[0].is_empty() && labels[1..].join(".") == *suffix;
            is_one_more.then_some(1)
        }
    }
}
