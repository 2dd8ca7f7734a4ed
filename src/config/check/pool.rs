//! `[pools.<name>]`: groups of equal upstreams, and how they are used.

use std::time::Duration;

use super::route::PoolNames;
use super::{health_check, miss_section, named, upstream, upstream_tls};
use crate::balance::StrategyKind;
use crate::config::fields::{Fields, Value, too_many};
use crate::config::limits::{self, DURATION_MIN};
use crate::config::report::Wrong;
use crate::config::{
    HashKey, HealthCheckConfig, KeepaliveConfig, ListenerConfig, PoolConfig, QueueConfig, TimeoutsConfig,
    UpstreamConfig, UpstreamProtocol, defaults, values,
};
use crate::health::EjectionPolicy;
use crate::proxy_header::Version;

/// Reads the pools; the names include those of pools that could not be read.
pub(super) fn all<'t>(file: &Fields<'t>, listeners: &[ListenerConfig]) -> (Vec<PoolConfig>, PoolNames<'t>) {
    let read = |name, fields: &Fields<'t>| Some(one(name, fields, listeners));
    let found = file.read("pools", |value| named(value, limits::POOLS_MAX, "a pool", read));
    if file.is_absent("pools") || found.as_ref().is_some_and(Vec::is_empty) {
        miss_section(file, "pool", "[pools.app]\nupstreams = [\"127.0.0.1:9001\", \"127.0.0.1:9002\"]");
    }
    let found = found.unwrap_or_default();
    let names = found.iter().map(|(key, _)| (key.text, key.span.clone())).collect();
    let pools: Vec<PoolConfig> = found.into_iter().filter_map(|(_, pool)| pool).collect();
    refuse_too_many_upstreams(file, &pools);
    (pools, PoolNames::new(names))
}

/// A pool of these upstreams with every default.
pub(in crate::config) fn with_defaults(name: String, upstreams: Vec<UpstreamConfig>) -> PoolConfig {
    PoolConfig {
        name,
        strategy: defaults::STRATEGY,
        hash: None,
        upstreams,
        protocol: UpstreamProtocol::Http1,
        tls: None,
        timeouts: defaults::TIMEOUTS,
        keepalive: defaults::UPSTREAM_KEEPALIVE,
        slow_start: defaults::SLOW_START,
        ejection: Some(defaults::EJECTION),
        queue: defaults::QUEUE,
        health_check: Some(HealthCheckConfig::default()),
        proxy_protocol: None,
    }
}

fn one(name: String, fields: &Fields<'_>, listeners: &[ListenerConfig]) -> PoolConfig {
    let strategy_and_hash = strategy_and_hash(fields);
    let help = "add its members: upstreams = [\"127.0.0.1:9001\"], or [] for none yet";
    let upstreams = fields.require("upstreams", help, |value| upstream::all(value, listeners));
    let mut pool = with_defaults(name, upstreams.unwrap_or_default());
    (pool.strategy, pool.hash) = strategy_and_hash;
    let protocol = protocol(fields);
    pool.protocol = protocol.unwrap_or(pool.protocol);
    pool.tls = fields.read("tls", |value| upstream_tls::read(value, fields.get("upstreams").as_ref()));
    pool.timeouts = fields.read("timeouts", timeouts).unwrap_or(pool.timeouts);
    pool.keepalive = fields.read("keepalive", keepalive).unwrap_or(pool.keepalive);
    let slow_start = fields.read("slow_start", |value| value.duration(Duration::ZERO));
    pool.slow_start = slow_start.unwrap_or(pool.slow_start);
    pool.ejection = fields.read("ejection", ejection).unwrap_or(pool.ejection);
    pool.queue = fields.read("queue", |value| queue(value, &pool.upstreams)).unwrap_or(pool.queue);
    let health_check = fields.read("health_check", |value| health_check::read(value, protocol));
    pool.health_check = health_check.unwrap_or(pool.health_check);
    let versions = [Version::V1, Version::V2].map(|version| (version.word(), version));
    pool.proxy_protocol = fields.read("proxy_protocol", |value| value.word("version", &versions));
    pool
}

/// `None`: it cannot be read, so nothing can be said about what depends on it.
fn protocol(fields: &Fields<'_>) -> Option<UpstreamProtocol> {
    let words = UpstreamProtocol::ALL.map(|protocol| (protocol.word(), protocol));
    let Some(value) = fields.get("protocol") else { return Some(UpstreamProtocol::Http1) };
    let protocol = value.word("protocol", &words)?;
    if protocol == UpstreamProtocol::Auto && fields.is_absent("tls") {
        let help = "add tls = { server_name = \"…\" }; in clear, write \"http1\" or \"http2\"";
        let wrong =
            Wrong::new("`auto` needs `tls`: the handshake settles the protocol", "no `tls` beside it", help);
        value.desk.miss(Some(value.span), wrong);
    }
    Some(protocol)
}

/// `strategy`, and `hash` exactly when it is `consistent_hash`.
fn strategy_and_hash(fields: &Fields<'_>) -> (StrategyKind, Option<HashKey>) {
    let words = StrategyKind::ALL.map(|kind| (kind.name(), kind));
    let (given, hash_given) = (fields.get("strategy"), fields.get("hash"));
    let hash = hash_given.as_ref().and_then(hash_key);
    let kind = match &given {
        None => defaults::STRATEGY,
        Some(value) => match value.word("strategy", &words) {
            Some(kind) => kind,
            None => return (defaults::STRATEGY, None),
        },
    };
    match (given, hash_given) {
        (Some(value), None) if kind == StrategyKind::ConsistentHash => {
            value.desk.miss(Some(value.span), hashless());
        }
        (_, Some(hash)) if kind != StrategyKind::ConsistentHash => {
            let message = format!("`hash` has no meaning with `{}`", kind.name());
            let help = "write strategy = \"consistent_hash\", or remove `hash`";
            hash.desk.miss(Some(hash.span), Wrong::new(message, "only for `consistent_hash`", help));
        }
        _ => {}
    }
    (kind, hash)
}

fn hashless() -> Wrong {
    Wrong::new(
        "`consistent_hash` needs `hash`: what should stay with one upstream?",
        "no `hash` beside it",
        "add one: hash = { client_ip = true }, { header = \"x-user\" }, { cookie = \"session\" } or \
         { path = true }",
    )
}

fn hash_key(value: &Value<'_>) -> Option<HashKey> {
    let before = value.desk.found_so_far();
    let keys = value.table("`hash`", |fields| {
        let header = |value: &Value<'_>| value.parse(values::header_name).map(HashKey::Header);
        let cookie = |value: &Value<'_>| value.parse(cookie_name).map(HashKey::Cookie);
        let flag = |key, made: HashKey| fields.read(key, Value::boolean).and_then(|on| on.then_some(made));
        [
            fields.read("header", header),
            fields.read("cookie", cookie),
            flag("client_ip", HashKey::ClientIp),
            flag("path", HashKey::Path),
        ]
    })?;
    let mut keys = keys.into_iter().flatten();
    match (keys.next(), keys.next()) {
        (Some(key), None) => Some(key),
        _ if value.desk.found_so_far() > before => None,
        _ => value.refuse(Wrong::new(
            "`hash` names exactly one thing to hash",
            "none, or more than one",
            "write one of { header = \"x-user\" }, { cookie = \"session\" }, { client_ip = true }, \
             { path = true }",
        )),
    }
}

/// A cookie's name has the form of a header's name (RFC 6265, 4.1.1), but its case counts.
fn cookie_name(text: &str) -> Result<String, Wrong> {
    values::header_name(text).map(|_| text.to_owned()).map_err(|_| {
        let message = format!("`{}` is no cookie name", values::shown(text));
        let help = "write the name alone, without `=`: { cookie = \"session\" }";
        Wrong::new(message, "not a token (RFC 6265, 4.1.1)", help)
    })
}

fn timeouts(value: &Value<'_>) -> Option<TimeoutsConfig> {
    value.table("`timeouts`", |fields| {
        let timeout =
            |key, default| fields.read(key, |value| value.duration(DURATION_MIN)).unwrap_or(default);
        TimeoutsConfig {
            connect: timeout("connect", defaults::TIMEOUTS.connect),
            read: timeout("read", defaults::TIMEOUTS.read),
            write: timeout("write", defaults::TIMEOUTS.write),
            tunnel: timeout("tunnel", defaults::TIMEOUTS.tunnel),
        }
    })
}

fn keepalive(value: &Value<'_>) -> Option<KeepaliveConfig> {
    value.table("`keepalive`", |fields| {
        let idle = fields.read("idle", |value| value.duration(DURATION_MIN));
        let max_idle = fields.read("max_idle", |value| value.count(0, limits::IDLE_CONNECTIONS_MAX));
        KeepaliveConfig {
            idle: idle.unwrap_or(defaults::UPSTREAM_KEEPALIVE.idle),
            max_idle: max_idle.unwrap_or(defaults::UPSTREAM_KEEPALIVE.max_idle),
        }
    })
}

/// `Some(None)`: turned off.
#[expect(clippy::option_option, reason = "not given, turned off, and given are three things")]
fn ejection(value: &Value<'_>) -> Option<Option<EjectionPolicy>> {
    value.table("`ejection`", |fields| {
        let enabled = fields.read("enabled", Value::boolean).unwrap_or(true);
        let failures = fields.read("consecutive_failures", |value| value.count(1, limits::IN_A_ROW_MAX));
        let duration = fields.read("base_duration", |value| value.duration(DURATION_MIN));
        let max_ejected = fields.read("max_ejected", Value::ratio);
        let policy = EjectionPolicy {
            consecutive_failures: failures.unwrap_or(defaults::EJECTION.consecutive_failures),
            base_duration: duration.unwrap_or(defaults::EJECTION.base_duration),
            max_ejected: max_ejected.unwrap_or(defaults::EJECTION.max_ejected),
        };
        enabled.then_some(policy)
    })
}

fn queue(value: &Value<'_>, upstreams: &[UpstreamConfig]) -> Option<QueueConfig> {
    let queue = value.table("`queue`", |fields| {
        let max = fields.read("max", |value| value.count(0, limits::QUEUE_MAX));
        let timeout = fields.read("timeout", |value| value.duration(DURATION_MIN));
        QueueConfig {
            max: max.unwrap_or(defaults::QUEUE.max),
            timeout: timeout.unwrap_or(defaults::QUEUE.timeout),
        }
    })?;
    if queue.max > 0 && upstreams.iter().any(|upstream| upstream.max_connections.is_none()) {
        let help = "give every upstream a limit: { address = \"…\", max_connections = 200 }";
        let label = "an upstream without `max_connections` is never full";
        value.desk.warn(
            value.span.clone(),
            Wrong::new("requests will hardly ever wait in this queue", label, help),
        );
    }
    Some(queue)
}

fn refuse_too_many_upstreams(file: &Fields<'_>, pools: &[PoolConfig]) {
    let found: usize = pools.iter().map(|pool| pool.upstreams.len()).sum();
    if found > limits::UPSTREAMS_MAX {
        file.desk.miss(None, too_many(found, limits::UPSTREAMS_MAX, "upstreams in all pools"));
    }
}
