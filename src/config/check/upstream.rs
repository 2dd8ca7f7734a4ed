//! The members of a pool: addresses, written as text or as a table.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use super::listener::overlap;
use crate::config::fields::{Fields, Resolve, Value};
use crate::config::report::Wrong;
use crate::config::values::{shown, unix_path};
use crate::config::{ListenerConfig, UpstreamAddress, UpstreamConfig, defaults, limits};
use crate::health::Mode;

/// Reads `upstreams`. An empty list is allowed: the pool answers 503 until it gets members.
pub(super) fn all(list: &Value<'_>, listeners: &[ListenerConfig]) -> Option<Vec<UpstreamConfig>> {
    let before = list.desk.found_so_far();
    let members = list.list(limits::UPSTREAMS_PER_POOL_MAX, |value| {
        let upstream = one(value)?;
        Some((upstream, value.span.clone()))
    })?;
    refuse_repeats(list, &members);
    refuse_circles(list, &members, listeners);
    let upstreams: Vec<UpstreamConfig> = members.into_iter().map(|(upstream, _)| upstream).collect();
    let all_backup = !upstreams.is_empty() && upstreams.iter().all(|upstream| upstream.backup);
    if all_backup && before == list.desk.found_so_far() {
        return list.refuse(Wrong::new(
            "every upstream of the pool is a backup",
            "backup of whom?",
            "remove `backup = true` from at least one",
        ));
    }
    Some(upstreams)
}

/// Reads an address as a file writes it: `host:port`, `[::1]:port` or `unix:/path`.
///
/// A host name is resolved now, and the address is the upstream's identity from then on. Of several
/// addresses it is the lowest IPv4 one: servers listen on IPv4 more often than not, and a resolver that
/// shuffles its answers must not change who is who with each reload.
pub(in crate::config) fn address(text: &str, resolve: &Resolve<'_>) -> Result<UpstreamAddress, Wrong> {
    if let Some(path) = text.strip_prefix("unix:") {
        return unix_path(path).map(|path| UpstreamAddress::Unix(path.to_owned()));
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        return Err(with_scheme(scheme, rest));
    }
    let address = match text.parse::<SocketAddr>() {
        Ok(address) => address,
        Err(_) => resolved(text, resolve)?,
    };
    check_target(address, text).map(UpstreamAddress::Tcp)
}

/// An upstream with every default.
pub(in crate::config) fn with_defaults(address: UpstreamAddress) -> UpstreamConfig {
    UpstreamConfig {
        address,
        weight: defaults::WEIGHT,
        max_connections: None,
        backup: false,
        mode: Mode::Ready,
    }
}

/// Whether a connection to this upstream would arrive at our own listener.
pub(in crate::config) fn is_circle(upstream: &UpstreamAddress, listener: SocketAddr) -> bool {
    let UpstreamAddress::Tcp(address) = *upstream else { return false };
    listener == address || address.ip().is_loopback() && overlap(listener, address)
}

fn one(value: &Value<'_>) -> Option<UpstreamConfig> {
    let read_address = |value: &Value<'_>| value.parse(|text| address(text, value.desk.resolve));
    if !value.is_table() {
        return read_address(value).map(with_defaults);
    }
    value.table("an upstream", |fields: &Fields<'_>| {
        let help = "add where it listens: { address = \"127.0.0.1:9001\" }";
        let address = fields.require("address", help, read_address);
        let weight = fields.read("weight", |value| value.count(0, limits::WEIGHT_MAX.into()));
        let max_connections =
            fields.read("max_connections", |value| value.count(1, limits::UPSTREAM_CONNECTIONS_MAX));
        let backup = fields.read("backup", Value::boolean).unwrap_or(false);
        Some(UpstreamConfig {
            address: address?,
            weight: weight.unwrap_or(defaults::WEIGHT),
            max_connections,
            backup,
            mode: Mode::Ready,
        })
    })?
}

fn with_scheme(scheme: &str, rest: &str) -> Wrong {
    match scheme {
        "http" => Wrong::new("an upstream is an address, not a URL", "with scheme", without_scheme(rest)),
        "https" => Wrong::new("an upstream is an address, not a URL", "with scheme", with_tls(rest)),
        _ => Wrong::new(
            format!("`{}://` is no kind of upstream", shown(scheme)),
            "unknown scheme",
            format!("write {EXAMPLES}"),
        ),
    }
}

/// What to write instead of `https://…`.
fn with_tls(rest: &str) -> String {
    let rest = shown(rest.split('/').next().unwrap_or_default());
    let has_port = rest.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let port = if has_port { "" } else { ":443" };
    format!("write \"{rest}{port}\", and tls = {{ server_name = \"…\" }} in the pool")
}

/// What to write instead of `http://…`.
fn without_scheme(rest: &str) -> String {
    let rest = shown(rest.trim_end_matches('/'));
    if rest.contains('/') {
        "write \"HOST:PORT\" alone; paths are up to a route's `path_prefix` and `strip_prefix`".to_owned()
    } else if rest.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
        format!("write \"{rest}\"")
    } else {
        format!("write \"{rest}:80\"")
    }
}

/// The forms of an address.
const EXAMPLES: &str = "\"host:port\", \"[::1]:port\" or \"unix:/path\"";

fn resolved(text: &str, resolve: &Resolve<'_>) -> Result<SocketAddr, Wrong> {
    let (host, port) = host_and_port(text)?;
    let addresses = resolve(host, port).unwrap_or_default();
    let lowest_first = addresses.into_iter().min_by_key(|address| (address.is_ipv6(), address.ip()));
    lowest_first.ok_or_else(|| {
        Wrong::new(
            format!("the host name `{}` has no address", shown(host)),
            "cannot be resolved",
            "check its spelling and this machine's DNS (`getent hosts NAME`), or write the IP address",
        )
    })
}

fn host_and_port(text: &str) -> Result<(&str, u16), Wrong> {
    let wrong = |label: &str, better: &str| {
        let message = format!("`{}` is no address of an upstream", shown(text));
        Wrong::new(message, label, format!("write {better}"))
    };
    if let Ok(ip) = text.parse::<IpAddr>() {
        let better = if ip.is_ipv4() { format!("\"{ip}:80\"") } else { format!("\"[{ip}]:80\"") };
        return Err(wrong("no port", &better));
    }
    if is_host_name(text) {
        return Err(wrong("no port", &format!("\"{}:80\"", shown(text))));
    }
    let (host, port) = text.rsplit_once(':').ok_or_else(|| wrong("not host:port", EXAMPLES))?;
    if !is_host_name(host) {
        return Err(wrong("no host name", EXAMPLES));
    }
    let port = port.parse().map_err(|_| wrong("no port from 1 to 65535", EXAMPLES))?;
    Ok((host, port))
}

/// The host name that the first of these upstreams is written with, if it is one.
pub(super) fn host_name_in<'t>(list: &Value<'t>) -> Option<&'t str> {
    let (host, _) = host_and_port(list.first_address()?).ok()?;
    Some(host)
}

/// Whether the resolver may be asked for this: labels of letters, digits, `-` and `_`. Digits and dots
/// alone are a mistyped IP address, which the resolver would complete in its own way (`10.1` is `10.0.0.1`).
fn is_host_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(plain);
    let name = text.strip_suffix('.').unwrap_or(text);
    let last_label = name.rsplit('.').next().unwrap_or("");
    let numeric = last_label.bytes().next().is_some_and(|byte| byte.is_ascii_digit())
        && !last_label.bytes().any(|byte| byte.is_ascii_alphabetic() && byte != b'x');
    name.len() <= 253 && name.split('.').all(label) && !numeric
}

/// Refuses addresses that nothing can be reached at.
fn check_target(address: SocketAddr, text: &str) -> Result<SocketAddr, Wrong> {
    let wrong = |label: &str, help: String| {
        Err(Wrong::new(format!("nothing can be reached at `{}`", shown(text)), label, help))
    };
    if address.port() == 0 {
        return wrong("port 0", "write the port that the upstream listens on, from 1 to 65535".to_owned());
    }
    if address.ip().is_unspecified() {
        let loopback = if address.is_ipv4() { "127.0.0.1" } else { "[::1]" };
        let help = format!("for this machine, write \"{loopback}:{}\"", address.port());
        return wrong("an address to listen on, not to connect to", help);
    }
    if address.ip().is_multicast() {
        return wrong("a multicast address", "write the address of one server".to_owned());
    }
    Ok(address)
}

/// The same server twice would be counted, limited and ejected as two.
fn refuse_repeats(list: &Value<'_>, members: &[(UpstreamConfig, Range<usize>)]) {
    let mut seen: HashMap<&UpstreamAddress, &Range<usize>> = HashMap::new();
    for (upstream, span) in members {
        if let Some(first) = seen.insert(&upstream.address, span) {
            let line = list.desk.line_of(first.start);
            let message = format!("the upstream {} is in this pool twice", upstream.address);
            let help =
                format!("it is also on line {line}; keep one, with a larger `weight` for a larger share");
            list.desk.refuse(span.clone(), Wrong::new(message, "again", help));
        }
    }
}

/// A listener of this process behind itself would forward each request to itself, without end.
fn refuse_circles(
    list: &Value<'_>,
    members: &[(UpstreamConfig, Range<usize>)],
    listeners: &[ListenerConfig],
) {
    for (upstream, span) in members {
        let address = &upstream.address;
        if let Some(listener) = listeners.iter().find(|listener| is_circle(address, listener.address)) {
            let message = format!("{address} is listener `{}` of this file", listener.name);
            let help = "write the address of the server behind Evener; its port differs from the listener's";
            list.desk.refuse(span.clone(), Wrong::new(message, "requests would go in circles", help));
        }
    }
}
