//! How a request would be routed and picked, without sending it.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Method};
use serde::Serialize;

use super::answer::Json;
use super::extract::Parameters;
use super::problem::Problem;
use super::views::PickView;
use crate::control::Control;
use crate::observe::Reason;
use crate::route::{Matcher, RequestHead};
use crate::runtime::{Route, Snapshot};

/// Routes that are listed with why they do not take the request: more than anyone reads.
const OTHERS_MAX: usize = 50;

/// Upstreams of a pool that are listed one by one; the others are counted. `/v1/pools/{pool}/next` lists all.
const CANDIDATES_MAX: usize = 50;

/// What the traffic's door asks of the head of a request, of HTTP/1.1 and of this size at most: why it is refused, and
/// what exactly is wrong. Doors do not know each other, so whoever assembles the house brings it.
pub type HeadCheck = fn(head: &[u8], size_max: usize) -> Result<(), (Reason, &'static str)>;

/// `GET /v1/explain?host=&method=&path=&header=name:value` — which route takes such a request and why,
/// which others do not, and who would be picked.
pub(super) async fn show(
    State(control): State<Arc<Control>>,
    Extension(check): Extension<HeadCheck>,
    parameters: Parameters,
) -> Result<Json<Explanation>, Problem> {
    let question = Question::read(parameters)?;
    Ok(Json(Explanation::of(question, check, &control)))
}

/// The request that is asked about.
#[derive(Serialize)]
struct Question {
    host: String,
    #[serde(serialize_with = "as_text")]
    method: Method,
    path: String,
    #[serde(skip)]
    headers: HeaderMap,
    /// The head that a client would send.
    #[serde(skip)]
    wire: Vec<u8>,
}

#[derive(Serialize)]
pub(super) struct Explanation {
    request: Question,
    generation: u64,
    /// The route that takes it; null: none.
    route: Option<Chosen>,
    /// What it would be refused with; null: it would not.
    status: Option<u16>,
    /// The word of the refusal: no route takes it, or its head is not one.
    reason: Option<&'static str>,
    /// What exactly is wrong.
    detail: Option<&'static str>,
    help: Option<&'static str>,
    /// Where the route sends it: one pool, or each of its `split`.
    pools: Vec<Destination>,
    other_routes: Vec<Other>,
    /// Further ones that are not listed.
    other_routes_omitted: usize,
}

#[derive(Serialize)]
struct Chosen {
    name: String,
    why: Vec<String>,
    /// Null: no limit.
    timeout_ms: Option<f64>,
    strip_prefix: bool,
    redirect_https_port: Option<u16>,
}

#[derive(Serialize)]
struct Destination {
    /// Of the route's requests, 0 to 1.
    share: f64,
    #[serde(flatten)]
    pick: PickView,
}

#[derive(Serialize)]
struct Other {
    name: String,
    why_not: &'static str,
    why_not_detail: String,
}

impl Question {
    fn read(mut parameters: Parameters) -> Result<Self, Problem> {
        let host = parameters.take("host")?.unwrap_or_default();
        let method = parameters.take("method")?;
        let path = parameters.take("path")?.unwrap_or_else(|| "/".to_owned());
        let headers = parameters.take_all("header");
        parameters.finish()?;
        let method = method.map_or(Ok(Method::GET), |method| read_method(&method))?;
        let headers: HeaderMap = headers.iter().map(|line| read_header(line)).collect::<Result<_, _>>()?;
        let wire = wire(&host, &method, &path, &headers);
        let (path, host) = (read_path(&path)?, without_port(&host).to_ascii_lowercase());
        Ok(Self { host, method, path, headers, wire })
    }

    fn head(&self) -> RequestHead<'_> {
        RequestHead { host: &self.host, method: &self.method, path: &self.path, headers: &self.headers }
    }
}

impl Explanation {
    fn of(request: Question, check: HeadCheck, control: &Control) -> Self {
        let snapshot = control.runtime().snapshot();
        let head = request.head();
        // Nobody says by which listener it comes.
        let size_max = snapshot.config.listeners.iter().map(|listener| listener.max_header_size).max();
        let fault = check(&request.wire, size_max.unwrap_or(usize::MAX)).err();
        let found = if fault.is_none() { snapshot.find_route(&head) } else { None };
        let route = found.and_then(|index| snapshot.route(index));
        let no_route = (Reason::NoRoute, Reason::NoRoute.what());
        let refusal = fault.or_else(|| route.is_none().then_some(no_route));
        let others = snapshot.routes().enumerate().filter(|(index, _)| Some(*index) != found);
        // What is no request is shown to no route.
        let others: Vec<_> = others.filter(|_| fault.is_none()).map(|(_, route)| route).collect();
        Self {
            generation: snapshot.generation,
            status: refusal.map(|(reason, _)| reason.status()),
            reason: refusal.map(|(reason, _)| reason.word()),
            detail: refusal.map(|(_, detail)| detail),
            help: refusal.map(|(reason, _)| reason.next()),
            pools: route.map(|route| destinations(route, &snapshot, control)).unwrap_or_default(),
            other_routes: others.iter().take(OTHERS_MAX).map(|route| Other::of(route, &head)).collect(),
            other_routes_omitted: others.len().saturating_sub(OTHERS_MAX),
            route: route.map(|route| Chosen::of(route, &head)),
            request,
        }
    }
}

fn destinations(route: &Route, snapshot: &Snapshot, control: &Control) -> Vec<Destination> {
    let now = control.runtime().now();
    let split = &route.config.split;
    let total: f64 = split.iter().map(|part| f64::from(part.weight)).sum();
    let pools = split.iter().filter_map(|part| Some((part, snapshot.pool(part.pool)?)));
    pools
        .map(|(part, pool)| Destination {
            share: if total > 0.0 { f64::from(part.weight) / total } else { 0.0 },
            pick: PickView::of(pool, None, CANDIDATES_MAX, now),
        })
        .collect()
}

impl Chosen {
    fn of(route: &Route, head: &RequestHead<'_>) -> Self {
        Self {
            name: route.config.name.clone(),
            why: why(&route.config.matcher, head),
            timeout_ms: route.config.timeout.map(super::views::milliseconds),
            strip_prefix: route.config.strip_prefix,
            redirect_https_port: route.config.redirect_https,
        }
    }
}

/// Each condition of a route that takes the request, and how it is fulfilled.
pub(super) fn why(matcher: &Matcher, head: &RequestHead<'_>) -> Vec<String> {
    // The host of a request that was made may be cut, and match no more.
    let mut why = vec![if matcher.hosts.is_empty() {
        "it takes every host".to_owned()
    } else {
        format!("its `hosts` include `{}`", head.host)
    }];
    why.push(match matcher.path_prefix.as_str() {
        "/" => "it takes every path".to_owned(),
        prefix => format!("the path begins with `{prefix}`"),
    });
    if !matcher.methods.is_empty() {
        why.push(format!("its `methods` include {}", head.method));
    }
    why.extend(
        matcher.headers.iter().map(|(name, _)| format!("the header `{name}` has the value it asks for")),
    );
    why
}

impl Other {
    fn of(route: &Route, head: &RequestHead<'_>) -> Self {
        let (why_not, why_not_detail) = why_not(&route.config.matcher, head);
        Self { name: route.config.name.clone(), why_not, why_not_detail }
    }
}

/// The first condition that the request does not fulfil; or else another route describes it better.
fn why_not(matcher: &Matcher, head: &RequestHead<'_>) -> (&'static str, String) {
    let fails = |(name, value): &&(HeaderName, HeaderValue)| {
        let mut sent = head.headers.get_all(name).iter().peekable();
        sent.peek().is_none() || sent.any(|sent| sent != value)
    };
    if !matcher.hosts.is_empty() && !matcher.hosts.iter().any(|pattern| pattern.matches(head.host)) {
        return ("host", format!("its `hosts` do not include `{}`", head.host));
    }
    if !matcher.path_prefix.matches(head.path) {
        return ("path", format!("the path does not begin with `{}`", matcher.path_prefix.as_str()));
    }
    if !matcher.methods.is_empty() && !matcher.methods.contains(head.method) {
        return ("method", format!("its `methods` do not include {}", head.method));
    }
    match matcher.headers.iter().find(fails) {
        Some((name, _)) => ("header", format!("the header `{name}` does not have the value it asks for")),
        None => {
            ("less_specific", "it would take the request, but the chosen route is more specific".to_owned())
        }
    }
}

/// What a client of HTTP/1.1 would send; one that names no host, of HTTP/1.0. A line end within one of the texts must
/// not begin another line, so it stands there as another control byte, which is as wrong.
fn wire(host: &str, method: &Method, path: &str, headers: &HeaderMap) -> Vec<u8> {
    let one_line = |text: &str| text.replace(['\r', '\n'], "\0");
    let (path, host) = (one_line(path), one_line(host));
    let mut wire = if host.is_empty() {
        format!("{method} {path} HTTP/1.0\r\n").into_bytes()
    } else {
        format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n").into_bytes()
    };
    for (name, value) in headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            wire.extend_from_slice(part);
        }
    }
    wire.extend_from_slice(b"\r\n");
    wire
}

fn read_method(text: &str) -> Result<Method, Problem> {
    text.parse().map_err(|_| {
        Problem::bad_parameter(format!("`{text}` is not a method"), "a method is a word like GET or POST")
    })
}

/// Without its query, which no route looks at.
fn read_path(text: &str) -> Result<String, Problem> {
    if !text.starts_with('/') {
        return Err(Problem::bad_parameter(
            format!("the path `{text}` does not begin with a slash"),
            format!("write path=/{text}; `&` and `#` in it are written %26 and %23"),
        ));
    }
    Ok(text.split('?').next().unwrap_or_default().to_owned())
}

fn read_header(line: &str) -> Result<(HeaderName, HeaderValue), Problem> {
    let header = line.split_once(':').and_then(|(name, value)| {
        Some((name.trim().parse::<HeaderName>().ok()?, value.trim().parse::<HeaderValue>().ok()?))
    });
    header.ok_or_else(|| {
        Problem::bad_parameter(
            format!("`{line}` is not a header"),
            "write header=name:value, once per header",
        )
    })
}

/// `example.com:8080` and `[::1]:8080` without their ports.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => {
            if name.starts_with('[') || !name.contains(':') {
                name
            } else {
                host
            }
        }
        _ => host,
    }
}

fn as_text<S: serde::Serializer>(method: &Method, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(method.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::HostPattern;

    /// A record keeps 128 bytes of a host.
    #[test]
    fn a_route_of_some_hosts_does_not_take_every_host_because_one_was_cut() {
        let hosts = HostPattern::parse("long.example").into_iter().collect();
        let matcher = Matcher { hosts, ..Matcher::default() };
        let (method, headers) = (Method::GET, HeaderMap::new());
        let head = RequestHead { host: "long.exam", method: &method, path: "/", headers: &headers };
        assert_eq!(why(&matcher, &head), ["its `hosts` include `long.exam`", "it takes every path"]);
    }

    #[test]
    fn a_host_is_compared_without_its_port() {
        for (host, name) in [
            ("a.example:8080", "a.example"),
            ("a.example", "a.example"),
            ("[::1]:8080", "[::1]"),
            ("[::1]", "[::1]"),
            ("", ""),
        ] {
            assert_eq!(without_port(host), name);
        }
    }
}
