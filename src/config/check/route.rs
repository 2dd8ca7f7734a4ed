//! `[routes.<name>]`: which requests go to which pool.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use http::Method;

use super::headers::{self, Direction};
use super::{miss_section, named};
use crate::config::fields::{Fields, Value};
use crate::config::limits;
use crate::config::report::Wrong;
use crate::config::values::{clean, shown};
use crate::config::words::did_you_mean;
use crate::config::{HeaderEdits, RouteConfig, RouteTells, SplitConfig, defaults};
use crate::retry::{Conditions, Policy};
use crate::route::{HostPattern, Matcher, PathPrefix};

/// Reads the routes. Without any, one pool takes everything.
pub(super) fn all(file: &Fields<'_>, pools: &PoolNames<'_>) -> Vec<RouteConfig> {
    let read = |name, fields: &Fields<'_>| one(name, fields, pools);
    let named = file.read("routes", |value| named(value, limits::ROUTES_MAX, "a route", read));
    if file.is_absent("routes") || named.as_ref().is_some_and(Vec::is_empty) {
        return the_only_one(file, pools);
    }
    let named = named.unwrap_or_default();
    for (key, _) in named.iter().filter(|(key, _)| key.text == NO_ROUTE) {
        let message = format!("`{NO_ROUTE}` cannot be the name of a route");
        let help = "give the route another name";
        file.desk.refuse(
            key.span.clone(),
            Wrong::new(message, "in metrics, it stands for requests without one", help),
        );
    }
    let certain = named.into_iter();
    let certain = certain.filter_map(|(key, route)| Some((key.span, route?)));
    let (places, routes): (Vec<Range<usize>>, Vec<RouteConfig>) = certain.unzip();
    refuse_ties(file, &routes, &places);
    warn_of_unused_pools(file, &routes, pools);
    routes
}

/// The label of what was refused before it had a route: a route of this name would share its series.
const NO_ROUTE: &str = "none";

/// A route that sends everything to the first pool, with every default.
pub(in crate::config) fn for_everything() -> RouteConfig {
    RouteConfig {
        name: "default".to_owned(),
        matcher: Matcher::default(),
        split: vec![SplitConfig { pool: 0, weight: defaults::WEIGHT }],
        redirect_https: None,
        timeout: Some(defaults::ROUTE_TIMEOUT),
        strip_prefix: false,
        request_headers: HeaderEdits::default(),
        response_headers: HeaderEdits::default(),
        retry: defaults::RETRY,
        tells: RouteTells::default(),
    }
}

/// The pools of the file in its order, with the places of their names.
pub(super) struct PoolNames<'t> {
    all: Vec<(&'t str, Range<usize>)>,
    indexes: HashMap<&'t str, usize>,
}

impl<'t> PoolNames<'t> {
    pub(super) fn new(all: Vec<(&'t str, Range<usize>)>) -> Self {
        let indexes = all.iter().enumerate().map(|(index, (name, _))| (*name, index)).collect();
        Self { all, indexes }
    }

    /// The index of the pool that a value names.
    fn find(&self, value: &Value<'_>) -> Option<usize> {
        let name = value.text()?;
        let index = self.indexes.get(name).copied();
        if index.is_none() {
            let message = format!("unknown pool `{}`", shown(name));
            // Where the text is not wholly readable, the pool may stand in the unreadable part.
            value.desk.miss(
                Some(value.span.clone()),
                Wrong::new(message, "no pool has this name", self.nearest(name)),
            );
        }
        index
    }

    fn nearest(&self, name: &str) -> String {
        let names: Vec<&str> = self.all.iter().map(|(name, _)| *name).collect();
        did_you_mean(name, &names, "Pools in this file")
    }
}

fn the_only_one(file: &Fields<'_>, pools: &PoolNames<'_>) -> Vec<RouteConfig> {
    if let [(first, _), _, ..] = pools.all.as_slice() {
        let what = format!("route, and {} pools to choose from", pools.all.len());
        miss_section(file, &what, &format!("[routes.main]\npool = \"{first}\""));
    }
    vec![for_everything()]
}

/// A route, or nothing when its conditions are in doubt: those are compared with the others'.
fn one(name: String, fields: &Fields<'_>, pools: &PoolNames<'_>) -> Option<RouteConfig> {
    let before = fields.desk.found_so_far();
    let matcher = matcher(fields);
    let certain = before == fields.desk.found_so_far();
    let edits =
        |key, direction| fields.read(key, |value| headers::edits(value, direction)).unwrap_or_default();
    let timeout = fields.read("timeout", |value| value.duration(Duration::ZERO));
    let strip_prefix = fields.get("strip_prefix");
    warn_of_nothing_to_strip(strip_prefix.as_ref(), &matcher);
    let redirect_https = redirect_https(fields);
    let route = RouteConfig {
        name,
        matcher,
        split: split(fields, pools, redirect_https.is_some()).unwrap_or_default(),
        redirect_https,
        timeout: Some(timeout.unwrap_or(defaults::ROUTE_TIMEOUT)).filter(|timeout| !timeout.is_zero()),
        strip_prefix: strip_prefix.and_then(|value| value.boolean()).unwrap_or(false),
        request_headers: edits("request_headers", Direction::ToUpstream),
        response_headers: edits("response_headers", Direction::ToClient),
        retry: fields.read("retry", |value| value.table("`retry`", retry)).unwrap_or(defaults::RETRY),
        tells: tells(fields),
    };
    certain.then_some(route)
}

fn tells(fields: &Fields<'_>) -> RouteTells {
    let is_on = |key| fields.read(key, Value::boolean).unwrap_or(false);
    RouteTells {
        server_timing: is_on("server_timing"),
        response_time: is_on("response_time"),
        proxy_status: is_on("proxy_status"),
    }
}

fn warn_of_nothing_to_strip(strip_prefix: Option<&Value<'_>>, matcher: &Matcher) {
    if let Some(value) = strip_prefix.filter(|value| value.is_true() && matcher.path_prefix.as_str() == "/") {
        let help = "add the `path_prefix` to cut off, or remove `strip_prefix`";
        let message = "`strip_prefix` has nothing to cut off";
        value.desk.warn(value.span.clone(), Wrong::new(message, "the route matches every path", help));
    }
}

fn matcher(fields: &Fields<'_>) -> Matcher {
    let host = |value: &Value<'_>| {
        value.parse(|text| HostPattern::parse(text).map_err(|help| unmatchable("host", text, &help)))
    };
    let path = |value: &Value<'_>| {
        value.parse(|text| PathPrefix::parse(text).map_err(|help| unmatchable("path", text, &help)))
    };
    let hosts = |value: &Value<'_>| {
        value.list(limits::HOSTS_PER_ROUTE_MAX, host).and_then(|hosts| meant(value, hosts, "host"))
    };
    let methods = |value: &Value<'_>| {
        value.list(limits::LIST_ENTRIES_MAX, method).and_then(|methods| meant(value, methods, "method"))
    };
    Matcher {
        hosts: fields.read("hosts", hosts).unwrap_or_default(),
        path_prefix: fields.read("path_prefix", path).unwrap_or_default(),
        methods: fields.read("methods", methods).unwrap_or_default(),
        headers: fields.read("headers", headers::fields).unwrap_or_default(),
    }
}

/// Floor 0 says in one phrase what is wrong and what would be right.
fn unmatchable(what: &str, text: &str, help: &str) -> Wrong {
    // The advice quotes the text, too.
    let help = clean(help, ADVICE_CHARACTERS_MAX);
    Wrong::new(format!("`{}` is no {what} that a route can match", shown(text)), "not accepted", help)
}

/// Longer than any advice that quotes a name of 253 bytes.
const ADVICE_CHARACTERS_MAX: usize = 400;

/// Refuses `hosts = []`: every host, or none?
fn meant<T>(value: &Value<'_>, list: Vec<T>, what: &str) -> Option<Vec<T>> {
    if value.is_empty_list() {
        return value.refuse(Wrong::new(
            format!("an empty list: every {what}, or none?"),
            "empty",
            format!("leave it out for every {what}, or name one"),
        ));
    }
    Some(list)
}

fn method(value: &Value<'_>) -> Option<Method> {
    value.parse(|text| {
        let upper = text.to_ascii_uppercase();
        let method = upper.parse::<Method>();
        let help = match method {
            Ok(method) if text == upper => return Ok(method),
            Ok(_) => format!("write \"{}\"; the case of methods counts", shown(&upper)),
            Err(_) => "write methods such as \"GET\", \"HEAD\", \"POST\"".to_owned(),
        };
        Err(Wrong::new(format!("`{}` is no method", shown(text)), "not a method in upper case", help))
    })
}

/// The port to which requests without TLS are redirected, if they are.
fn redirect_https(fields: &Fields<'_>) -> Option<u16> {
    let is_on = fields.read("redirect_https", Value::boolean).unwrap_or(false);
    let port = fields.get("redirect_https_port");
    if let Some(port) = port.as_ref().filter(|_| !is_on) {
        let help = "add redirect_https = true, or remove `redirect_https_port`";
        port.refuse::<()>(Wrong::new(
            "`redirect_https_port` alone does nothing",
            "nothing is redirected",
            help,
        ));
    }
    let port = port.and_then(|port| port.count(1, u16::MAX.into()));
    is_on.then(|| port.unwrap_or(defaults::HTTPS_PORT))
}

/// `pool = "…"` or `split = […]`, exactly one of them; none is enough where others may be all that comes.
fn split(fields: &Fields<'_>, pools: &PoolNames<'_>, may_be_none: bool) -> Option<Vec<SplitConfig>> {
    match (fields.get("pool"), fields.get("split")) {
        (Some(pool), None) => {
            let pool = pools.find(&pool)?;
            Some(vec![SplitConfig { pool, weight: defaults::WEIGHT }])
        }
        (None, Some(split)) => shares(&split, pools),
        (Some(_), Some(split)) => split.refuse(Wrong::new(
            "a route has either `pool` or `split`",
            "one too many",
            "keep `split` to share requests among pools, or `pool` for one",
        )),
        (None, None) if may_be_none => None,
        (None, None) => {
            let help = format!("add pool = \"NAME\". {}", pools.nearest(""));
            let wrong = Wrong::new("the route names no pool", "no `pool` and no `split` here", help);
            fields.desk.miss(Some(fields.span.clone()), wrong);
            None
        }
    }
}

fn shares(value: &Value<'_>, pools: &PoolNames<'_>) -> Option<Vec<SplitConfig>> {
    let before = value.desk.found_so_far();
    let shares = value.list(limits::LIST_ENTRIES_MAX, |entry| share(entry, pools))?;
    if value.desk.found_so_far() > before {
        return None;
    }
    let wrong = if shares.iter().all(|share| share.weight == 0) {
        let help = "name at least one pool with a weight above 0";
        Wrong::new("no pool gets a share of this split", "no weight above 0", help)
    } else if has_repeats(&shares) {
        let help = "name it once, with the sum of its weights";
        Wrong::new("a pool has two shares of this split", "named twice", help)
    } else {
        return Some(shares);
    };
    value.refuse(wrong)
}

fn share(entry: &Value<'_>, pools: &PoolNames<'_>) -> Option<SplitConfig> {
    let help = "write { pool = \"NAME\", weight = 5 }";
    entry.table("an entry of `split`", |fields| {
        let pool = fields.require("pool", help, |value| pools.find(value));
        let weight = fields.require("weight", help, |value| value.count(0, limits::WEIGHT_MAX.into()));
        Some(SplitConfig { pool: pool?, weight: weight? })
    })?
}

fn has_repeats(shares: &[SplitConfig]) -> bool {
    let mut pools: Vec<usize> = shares.iter().map(|share| share.pool).collect();
    pools.sort_unstable();
    pools.dedup();
    pools.len() < shares.len()
}

fn retry(fields: &Fields<'_>) -> Policy {
    let max_retries = fields.read("max_retries", |value| value.count(0, limits::RETRIES_MAX));
    Policy {
        max_retries: max_retries.unwrap_or(defaults::RETRY.max_retries),
        on: fields.read("on", conditions).unwrap_or(defaults::RETRY.on),
        budget: fields.read("budget", Value::ratio).unwrap_or(defaults::RETRY.budget),
    }
}

/// One word of `on`.
enum Condition {
    ConnectFailure,
    Reset,
    Timeout,
    Status(u16),
}

fn conditions(value: &Value<'_>) -> Option<Conditions> {
    let words = value.list(limits::LIST_ENTRIES_MAX, |word| word.parse(condition))?;
    let mut conditions =
        Conditions { connect_failure: false, reset: false, timeout: false, statuses: Vec::new() };
    for word in words {
        match word {
            Condition::ConnectFailure => conditions.connect_failure = true,
            Condition::Reset => conditions.reset = true,
            Condition::Timeout => conditions.timeout = true,
            Condition::Status(status) => conditions.statuses.push(status),
        }
    }
    conditions.statuses.sort_unstable();
    conditions.statuses.dedup();
    Some(conditions)
}

fn condition(word: &str) -> Result<Condition, Wrong> {
    match word {
        "connect_failure" => Ok(Condition::ConnectFailure),
        "reset" => Ok(Condition::Reset),
        "timeout" => Ok(Condition::Timeout),
        _ => match word.parse() {
            Ok(status) if word.len() == 3 && (400..=599).contains(&status) => Ok(Condition::Status(status)),
            _ => Err(unknown_condition(word)),
        },
    }
}

fn unknown_condition(word: &str) -> Wrong {
    let help = if word.to_ascii_lowercase().ends_with("xx") {
        "name each status: \"500\", \"502\", \"503\", \"504\"".to_owned()
    } else {
        let known = ["connect_failure", "reset", "timeout"];
        did_you_mean(word, &known, "Statuses from \"400\" to \"599\" are accepted, and")
    };
    Wrong::new(format!("`{}` is nothing to retry on", shown(word)), "unknown condition", help)
}

/// Notes each route that some request could not tell from an earlier one. Only routes with the same path and
/// a host in common can tie, so only those are compared.
fn refuse_ties(file: &Fields<'_>, routes: &[RouteConfig], places: &[Range<usize>]) {
    let mut seen: HashMap<(&PathPrefix, Option<&HostPattern>), Vec<usize>> = HashMap::new();
    for (index, (route, place)) in routes.iter().zip(places).enumerate() {
        let Matcher { path_prefix, hosts, .. } = &route.matcher;
        let any_host = hosts.is_empty().then_some(None);
        let mut first_tie: Option<usize> = None;
        for host in hosts.iter().map(Some).chain(any_host) {
            let alike = seen.entry((path_prefix, host)).or_default();
            let ties = |&&other: &&usize| {
                other < index
                    && routes.get(other).is_some_and(|other| route.matcher.ties_with(&other.matcher))
            };
            let tie = alike.iter().find(ties).copied();
            first_tie = first_tie.into_iter().chain(tie).min();
            alike.push(index);
        }
        if let Some((other, other_place)) = first_tie.and_then(|tie| routes.get(tie).zip(places.get(tie))) {
            let line = file.desk.line_of(other_place.start);
            file.desk.refuse(place.clone(), tied(&other.name, &route.name, line));
        }
    }
}

fn tied(first: &str, second: &str, first_line: usize) -> Wrong {
    Wrong::new(
        format!("routes `{first}` and `{second}` tie: one request could match both"),
        "not more specific than the other",
        format!(
            "`{first}` is on line {first_line}; give one of them another host, a longer `path_prefix` \
             or one more condition"
        ),
    )
}

/// Only for files that are valid otherwise: a mistake in a route may be why its pool looks unused.
fn warn_of_unused_pools(file: &Fields<'_>, routes: &[RouteConfig], pools: &PoolNames<'_>) {
    if file.desk.has_mistakes() {
        return;
    }
    let mut used = vec![false; pools.all.len()];
    for share in routes.iter().flat_map(|route| &route.split) {
        if let Some(used) = used.get_mut(share.pool) {
            *used = true;
        }
    }
    for ((name, place), _) in pools.all.iter().zip(used).filter(|(_, used)| !used) {
        let message = format!("no route leads to pool `{name}`");
        let help = "name it in the `pool` or `split` of a route, or remove it";
        file.desk.warn(place.clone(), Wrong::new(message, "gets no requests", help));
    }
}
