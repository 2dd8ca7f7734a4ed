//! `[listeners.<name>]`: accepting sockets.

use std::cell::RefCell;
use std::net::SocketAddr;

use super::{miss_section, named, tls};
use crate::config::fields::{Fields, Value};
use crate::config::limits::{self, DURATION_MIN};
use crate::config::report::Wrong;
use crate::config::{Http2Config, ListenerConfig, defaults, values};

pub(super) fn all(file: &Fields<'_>, admin: SocketAddr) -> Vec<ListenerConfig> {
    let taken = Taken::by_admin(admin);
    let read = |name, fields: &Fields<'_>| one(name, fields, &taken);
    let named = file.read("listeners", |value| named(value, limits::LISTENERS_MAX, "a listener", read));
    if file.is_absent("listeners") || named.as_ref().is_some_and(Vec::is_empty) {
        miss_section(file, "listener", "[listeners.http]\naddress = \"0.0.0.0:8080\"");
    }
    named.unwrap_or_default().into_iter().filter_map(|(_, listener)| listener).collect()
}

/// Whether the system would refuse to bind both.
pub(in crate::config) fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let same_family = one.is_ipv4() == other.is_ipv4();
    let either_is_all = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && (one.ip() == other.ip() || same_family && either_is_all)
}

/// A listener, or nothing without an address.
fn one(name: String, fields: &Fields<'_>, taken: &Taken) -> Option<ListenerConfig> {
    let address = address(&name, fields, taken);
    let timeout = |key, default| fields.read(key, |value| value.duration(DURATION_MIN)).unwrap_or(default);
    let networks = fields.read("trusted_proxies", |value| {
        value.list(limits::LIST_ENTRIES_MAX, |network| network.parse(values::network))
    });
    let header_timeout = timeout("header_timeout", defaults::HEADER_TIMEOUT);
    let keepalive_timeout = timeout("keepalive_timeout", defaults::CLIENT_KEEPALIVE_TIMEOUT);
    let connections = fields.read("max_connections", |value| value.count(1, limits::CONNECTIONS_MAX));
    let header_size = fields
        .read("max_header_size", |value| value.size(limits::HEADER_SIZE_MIN, limits::HEADER_SIZE_MAX))
        .and_then(|bytes| usize::try_from(bytes).ok());
    let body_size = fields.read("max_body_size", |value| value.size(0, limits::BODY_SIZE_MAX));
    let http2_cleartext = fields.read("http2_cleartext", Value::boolean);
    let http2 = fields.read("http2", http2);
    let tls = fields.read("tls", tls::listener);
    let proxy_protocol = fields.read("proxy_protocol", |value| proxy_protocol(value, fields));
    Some(ListenerConfig {
        address: address?,
        name,
        trusted_proxies: networks.unwrap_or_default(),
        header_timeout,
        keepalive_timeout,
        max_connections: connections.unwrap_or(defaults::MAX_CONNECTIONS),
        max_header_size: header_size.unwrap_or(defaults::MAX_HEADER_SIZE),
        max_body_size: body_size.filter(|&bytes| bytes > 0),
        proxy_protocol: proxy_protocol.unwrap_or(false),
        http2_cleartext: http2_cleartext.unwrap_or(false),
        http2: http2.unwrap_or(defaults::HTTP2),
        tls,
    })
}

fn http2(value: &Value<'_>) -> Option<Http2Config> {
    value.table("`http2`", |fields| {
        let streams = fields.read("max_streams", |value| value.count(1, limits::HTTP2_STREAMS_MAX));
        let ping_interval = fields.read("ping_interval", |value| value.duration(DURATION_MIN));
        Http2Config {
            max_streams: streams.unwrap_or(defaults::HTTP2.max_streams),
            ping_interval: ping_interval.unwrap_or(defaults::HTTP2.ping_interval),
        }
    })
}

/// PROXY headers are believed, so somebody has to be named who may send them.
fn proxy_protocol(value: &Value<'_>, fields: &Fields<'_>) -> Option<bool> {
    let is_on = value.boolean()?;
    let trusted = fields.get("trusted_proxies");
    if is_on && trusted.is_none_or(|networks| networks.is_empty_list()) {
        return value.refuse(Wrong::new(
            "`proxy_protocol` without `trusted_proxies`: nobody may send PROXY headers",
            "whose headers are believed?",
            "name the proxies in front: trusted_proxies = [\"10.0.0.0/8\"]",
        ));
    }
    Some(is_on)
}

/// The address, if no one else has it.
fn address(name: &str, fields: &Fields<'_>, taken: &Taken) -> Option<SocketAddr> {
    let help = "add where it accepts connections: address = \"0.0.0.0:8080\"";
    fields.require("address", help, |value| {
        let address = value.parse(values::own_address)?;
        match taken.take(address, name) {
            None => Some(address),
            Some(owner) => value.refuse(Wrong::new(
                format!("{owner} already has this address"),
                "taken",
                "give each an address or a port of its own; `0.0.0.0` covers every IPv4 address",
            )),
        }
    })
}

/// The addresses that are spoken for, and by whom.
struct Taken(RefCell<Vec<(SocketAddr, String)>>);

impl Taken {
    fn by_admin(address: SocketAddr) -> Self {
        Self(RefCell::new(vec![(address, "the admin API".to_owned())]))
    }

    /// Takes an address for a listener, or says who has it.
    fn take(&self, address: SocketAddr, name: &str) -> Option<String> {
        let owner = self.0.borrow().iter().find(|(other, _)| overlap(*other, address)).cloned();
        if owner.is_none() {
            self.0.borrow_mut().push((address, format!("listener `{name}`")));
        }
        owner.map(|(other, owner)| format!("{owner} on {other}"))
    }
}
