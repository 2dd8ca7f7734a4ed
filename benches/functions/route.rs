//! What it costs to find a route, from 1 to 5 000 of them (a file may have 4 096).
//!
//! Each table is asked for all of its routes in turn, so that what is looked up is as cold as it is in life.
//! Requests carry the eight headers that a browser sends.

use std::hint::black_box;

use evener::route::{HostPattern, Matcher, PathPrefix, RequestHead, RouteTable};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::meter::{Meter, Row};

pub(crate) fn measure(meter: &mut Meter) {
    let rows: Vec<Row> = SHAPES.iter().map(|shape| row(meter, shape)).collect();
    meter.table("route", &SIZES.map(|size| size.to_string()).each_ref().map(String::as_str), &rows);
    for row in &rows {
        if let (Some(few), Some(many)) = (row.times[FEW], row.times[MANY]) {
            let (from, to, growth) = (SIZES[FEW], SIZES[MANY], many / few);
            meter.say(&format!("  growth of {} from {from} to {to} routes: x {growth:.1}", row.name));
        }
    }
}

fn row(meter: &mut Meter, shape: &Shape) -> Row {
    let time = |&routes: &usize| {
        let name = format!("route/{}/{routes}", shape.name.replace(", ", "_").replace(' ', "_"));
        meter.time(&name, || {
            let table = RouteTable::new((0..routes).map(shape.route));
            let requests: Vec<Request> = (0..routes).map(|route| (shape.request)(route, routes)).collect();
            // A prime stride: neighbours in the table are not asked for one after another.
            let (mut turn, stride) = (0, STRIDE % routes);
            move || {
                let request = &requests[turn];
                turn += stride;
                turn -= if turn < requests.len() { 0 } else { requests.len() };
                assert_eq!(table.find(black_box(&request.head())), request.answer);
            }
        })
    };
    Row { name: shape.name.to_owned(), times: SIZES.iter().map(time).collect() }
}

/// How the routes of a table are told apart, and what asks for each of them.
struct Shape {
    name: &'static str,
    route: fn(usize) -> Matcher,
    /// For the route of this number, of so many.
    request: fn(usize, usize) -> Request,
}

const SHAPES: [Shape; 7] = [
    Shape { name: "exact host", route: by_host, request: |number, _| Request::of(number).at(&host(number)) },
    Shape {
        name: "wildcard host",
        route: by_wildcard,
        request: |number, _| Request::of(number).at(&format!("www.{}", host(number))),
    },
    Shape {
        name: "path, 1 to 6 segments",
        route: by_path,
        request: |number, _| Request::of(number).asking(&format!("{}/users/17", path(number))),
    },
    Shape {
        name: "method and header",
        route: by_conditions,
        request: |number, _| Request::of(number).asking(&path(number / 4)).with_conditions(number),
    },
    Shape {
        name: "header, one path",
        route: by_tenant,
        request: |number, _| Request::of(number).with("x-tenant", &number.to_string()),
    },
    Shape {
        name: "miss, by host",
        route: by_host,
        request: |number, all| Request::none().at(&host(all + number)),
    },
    Shape {
        name: "miss, by path",
        route: by_path,
        request: |number, all| Request::none().asking(&format!("{}/users/17", path(all + number))),
    },
];

fn by_host(number: usize) -> Matcher {
    Matcher { hosts: hosts(&host(number)), ..Matcher::default() }
}

fn by_wildcard(number: usize) -> Matcher {
    Matcher { hosts: hosts(&format!("*.{}", host(number))), ..Matcher::default() }
}

fn by_path(number: usize) -> Matcher {
    Matcher { path_prefix: prefix(&path(number)), ..Matcher::default() }
}

/// Four to a path: for everyone, for who posts, for testers, and for testers who post.
fn by_conditions(number: usize) -> Matcher {
    let methods = if number % 2 == 1 { vec![Method::POST] } else { Vec::new() };
    let canary = (HeaderName::from_static("x-canary"), HeaderValue::from_static("1"));
    let headers = if number % 4 >= 2 { vec![canary] } else { Vec::new() };
    Matcher { path_prefix: prefix(&path(number / 4)), methods, headers, ..Matcher::default() }
}

/// All on one path of one host: a header alone tells whose a request is.
fn by_tenant(number: usize) -> Matcher {
    let value = HeaderValue::from(number);
    Matcher { headers: vec![(HeaderName::from_static("x-tenant"), value)], ..Matcher::default() }
}

fn host(number: usize) -> String {
    format!("shop-{number}.example.com")
}

/// One to six segments, so of many lengths: a table looks for each length that it has.
fn path(number: usize) -> String {
    let below: String = ["/v1", "/orders", "/open", "/all", "/today"][..number % 6].concat();
    format!("/team-{number}{below}")
}

fn hosts(pattern: &str) -> Vec<HostPattern> {
    HostPattern::parse(pattern).into_iter().collect()
}

fn prefix(path: &str) -> PathPrefix {
    PathPrefix::parse(path).unwrap_or_default()
}

struct Request {
    host: String,
    method: Method,
    path: String,
    headers: HeaderMap,
    /// The route that it should find.
    answer: Option<usize>,
}

impl Request {
    fn none() -> Self {
        Self {
            host: "elsewhere.example.org".to_owned(),
            method: Method::GET,
            path: "/".to_owned(),
            headers: FROM_A_BROWSER
                .into_iter()
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
                .collect(),
            answer: None,
        }
    }

    fn of(route: usize) -> Self {
        Self { answer: Some(route), ..Self::none() }
    }

    fn at(self, host: &str) -> Self {
        Self { host: host.to_owned(), ..self }
    }

    fn asking(self, path: &str) -> Self {
        Self { path: path.to_owned(), ..self }
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        let value = HeaderValue::from_str(value).ok();
        self.headers.extend(value.map(|value| (HeaderName::from_static(name), value)));
        self
    }

    /// What [`by_conditions`] asks of this route's requests.
    fn with_conditions(self, number: usize) -> Self {
        let method = if number % 2 == 1 { Method::POST } else { Method::GET };
        let request = Self { method, ..self };
        if number % 4 >= 2 { request.with("x-canary", "1") } else { request }
    }

    fn head(&self) -> RequestHead<'_> {
        RequestHead { host: &self.host, method: &self.method, path: &self.path, headers: &self.headers }
    }
}

const SIZES: [usize; 5] = [1, 10, 100, 1_000, 5_000];

/// Growth is told from the second size to the last: with one route, there is one of every length.
const FEW: usize = 1;
const MANY: usize = SIZES.len() - 1;

/// A prime that divides no size.
const STRIDE: usize = 7_919;

const FROM_A_BROWSER: [(&str, &str); 8] = [
    ("host", "shop.example.com"),
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("accept-language", "en-GB,en;q=0.5"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("connection", "keep-alive"),
    ("cookie", "session=4f1c2d9a7be84d21"),
    ("upgrade-insecure-requests", "1"),
];
