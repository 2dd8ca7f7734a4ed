//! Says what a configuration holds, key by key, as a file would spell it; and where two of them differ.
//!
//! ```text
//!   PoolConfig ──► Description { "timeouts.read": "1m", "health_check.headers.authorization": (secret) … }
//!                        │
//!   two of them ──► differences ──► [Setting { key, from, to }]
//! ```
//!
//! Every default is filled in, so what a key means does not depend on whether the file names it. Secrets
//! are compared, and never shown.
//!
//! **To add a key**: its line below; a test fails while it is missing.

use std::collections::BTreeMap;
use std::time::Duration;

use http::header::{HeaderName, HeaderValue};
use serde::Serialize;
use serde_json::{Value, json};

use super::check::is_sensitive;
use super::values::{duration_text, size_text};
use super::{
    AccessLog, CertificateConfig, Config, HeaderEdits, HealthCheckConfig, ListenerConfig, ListenerTlsConfig,
    LogFormat, LogLevel, PoolConfig, ProbeConfig, RouteConfig, UpstreamConfig, UpstreamTls, defaults,
};
use crate::health::EjectionPolicy;
use crate::retry::Policy;

/// What stands in place of a secret.
pub const SECRET: &str = "(secret)";

/// Every setting of a part of the configuration, by its path below that part.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Description(BTreeMap<String, Told>);

/// The value of one setting.
#[derive(Clone, Debug, PartialEq)]
enum Told {
    Plain(Value),
    /// `Debug` leaves it out, too.
    Secret(HeaderValue),
}

/// A setting that differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Setting {
    /// As the file spells it, from the part that it belongs to: `timeouts.read`.
    pub key: String,
    /// What it was; null where there was no such thing.
    pub from: Value,
    /// What it is to be; null where there is no such thing.
    pub to: Value,
}

impl Description {
    /// `[server]`, `[admin]`, `[log]` and `[tracing]`, with the names of these tables.
    pub fn of_process(config: &Config) -> Self {
        let (server, log) = (&config.server, &config.log);
        let mut all = Self::default();
        all.tell("server.threads", server.threads);
        all.tell_duration("server.drain_timeout", server.drain_timeout);
        all.tell_duration("server.pre_stop_delay", server.pre_stop_delay);
        if let Some(file) = &server.state_file {
            all.tell("server.state_file", file.display().to_string());
        }
        all.tell("admin.address", config.admin.address.to_string());
        all.tell("log.level", level(log.level));
        all.tell("log.format", format(log.format));
        all.tell("log.access", access(&log.access));
        all.tell("log.access_filter.sample", ratio(log.access_filter.sample));
        all.tell("log.access_filter.errors", log.access_filter.errors);
        all.tell_duration("log.access_filter.slower_than", log.access_filter.slower_than);
        if let Some(tracing) = &config.tracing {
            all.tell("tracing.endpoint", tracing.endpoint.as_str());
            all.tell("tracing.sample", ratio(tracing.sample));
            all.tell("tracing.service_name", tracing.service_name.as_str());
        }
        all
    }

    /// `[listeners.<name>]`
    pub fn of_listener(listener: &ListenerConfig) -> Self {
        let networks = listener.trusted_proxies.iter().map(ToString::to_string);
        let mut all = Self::default();
        all.tell("address", listener.address.to_string());
        all.tell("trusted_proxies", networks.collect::<Vec<_>>());
        all.tell_duration("header_timeout", listener.header_timeout);
        all.tell_duration("keepalive_timeout", listener.keepalive_timeout);
        all.tell("max_connections", listener.max_connections);
        all.tell("max_header_size", size_text(listener.max_header_size as u64));
        all.tell("max_body_size", listener.max_body_size.map_or_else(|| "0".to_owned(), size_text));
        all.tell("http2_cleartext", listener.http2_cleartext);
        all.tell("http2.max_streams", listener.http2.max_streams);
        all.tell_duration("http2.ping_interval", listener.http2.ping_interval);
        all.tell_tls(listener.tls.as_deref());
        all.tell("proxy_protocol", listener.proxy_protocol);
        all
    }

    /// `[routes.<name>]`; the configuration it belongs to knows its pools by name.
    pub fn of_route(route: &RouteConfig, config: &Config) -> Self {
        let matcher = &route.matcher;
        let mut all = Self::default();
        all.tell("hosts", matcher.hosts.iter().map(ToString::to_string).collect::<Vec<_>>());
        all.tell("path_prefix", matcher.path_prefix.as_str());
        all.tell("methods", matcher.methods.iter().map(ToString::to_string).collect::<Vec<_>>());
        all.tell_headers("headers", &matcher.headers);
        all.tell_split(route, config);
        all.tell("redirect_https", route.redirect_https.is_some());
        if let Some(port) = route.redirect_https.filter(|&port| port != defaults::HTTPS_PORT) {
            all.tell("redirect_https_port", port);
        }
        all.tell_duration("timeout", route.timeout.unwrap_or_default());
        all.tell("strip_prefix", route.strip_prefix);
        all.tell_edits("request_headers", &route.request_headers);
        all.tell_edits("response_headers", &route.response_headers);
        all.tell("retry.max_retries", route.retry.max_retries);
        all.tell("retry.on", conditions(&route.retry));
        all.tell("retry.budget", ratio(route.retry.budget));
        all.tell("server_timing", route.tells.server_timing);
        all.tell("response_time", route.tells.response_time);
        all.tell("proxy_status", route.tells.proxy_status);
        all
    }

    /// `[pools.<name>]` without its upstreams.
    pub fn of_pool(pool: &PoolConfig) -> Self {
        let mut all = Self::default();
        all.tell("strategy", pool.strategy.name());
        if let Some(key) = &pool.hash {
            all.tell("hash", key.to_json());
        }
        all.tell("protocol", pool.protocol.word());
        all.tell_upstream_tls(pool.tls.as_deref());
        all.tell_duration("timeouts.connect", pool.timeouts.connect);
        all.tell_duration("timeouts.read", pool.timeouts.read);
        all.tell_duration("timeouts.write", pool.timeouts.write);
        all.tell_duration("timeouts.tunnel", pool.timeouts.tunnel);
        all.tell_duration("keepalive.idle", pool.keepalive.idle);
        all.tell("keepalive.max_idle", pool.keepalive.max_idle);
        all.tell_duration("slow_start", pool.slow_start);
        all.tell_ejection(pool.ejection.as_ref());
        all.tell("queue.max", pool.queue.max);
        all.tell_duration("queue.timeout", pool.queue.timeout);
        all.tell_health_check(pool.health_check.as_ref());
        if let Some(version) = pool.proxy_protocol {
            all.tell("proxy_protocol", version.word());
        }
        all
    }

    /// One member of `upstreams`, without its address; and what an operator wants of it.
    pub fn of_upstream(upstream: &UpstreamConfig) -> Self {
        let mut all = Self::default();
        all.tell("weight", upstream.weight);
        if let Some(limit) = upstream.max_connections {
            all.tell("max_connections", limit);
        }
        all.tell("backup", upstream.backup);
        all.tell("state", upstream.mode.word());
        all
    }

    fn tell(&mut self, key: &str, value: impl Into<Value>) {
        self.0.insert(key.to_owned(), Told::Plain(value.into()));
    }

    fn tell_duration(&mut self, key: &str, duration: Duration) {
        self.tell(key, duration_text(duration));
    }

    fn tell_headers(&mut self, key: &str, fields: &[(HeaderName, HeaderValue)]) {
        for (name, value) in fields {
            let told = if value.is_sensitive() || is_sensitive(name) {
                Told::Secret(value.clone())
            } else {
                Told::Plain(String::from_utf8_lossy(value.as_bytes()).into())
            };
            self.0.insert(format!("{key}.{}", quoted(name.as_str())), told);
        }
    }

    fn tell_edits(&mut self, key: &str, edits: &HeaderEdits) {
        let removed: Vec<&str> = edits.remove.iter().map(HeaderName::as_str).collect();
        self.tell_headers(&format!("{key}.set"), &edits.set);
        self.tell(&format!("{key}.remove"), removed);
    }

    /// With what the files hold: the same name may lead to another certificate.
    fn tell_tls(&mut self, tls: Option<&ListenerTlsConfig>) {
        self.tell("tls.enabled", tls.is_some());
        let Some(tls) = tls else { return };
        let certificate = |it: &CertificateConfig| json!({ "certificate": it.certificate, "key": it.key, "sha256": it.sha256 });
        let protocols = tls.protocols.iter().map(|protocol| protocol.word());
        self.tell("tls.certificates", tls.certificates.iter().map(certificate).collect::<Vec<_>>());
        self.tell("tls.protocols", protocols.collect::<Vec<_>>());
        self.tell("tls.min_version", tls.min_version.word());
        self.tell_duration("tls.handshake_timeout", tls.handshake_timeout);
        if let Some(ca) = &tls.client_ca {
            self.tell("tls.client_ca", json!({ "file": ca.file, "sha256": ca.sha256 }));
            self.tell("tls.client_auth", ca.auth.word());
        }
    }

    fn tell_split(&mut self, route: &RouteConfig, config: &Config) {
        let name = |pool: usize| config.pools.get(pool).map_or("", |pool| pool.name.as_str());
        match route.split.as_slice() {
            [] => {}
            [only] if only.weight == defaults::WEIGHT => self.tell("pool", name(only.pool)),
            parts => {
                let part =
                    |part: &super::SplitConfig| json!({ "pool": name(part.pool), "weight": part.weight });
                self.tell("split", parts.iter().map(part).collect::<Vec<_>>());
            }
        }
    }

    fn tell_ejection(&mut self, policy: Option<&EjectionPolicy>) {
        self.tell("ejection.enabled", policy.is_some());
        let Some(policy) = policy else { return };
        self.tell("ejection.consecutive_failures", policy.consecutive_failures);
        self.tell_duration("ejection.base_duration", policy.base_duration);
        self.tell("ejection.max_ejected", ratio(policy.max_ejected));
    }

    fn tell_health_check(&mut self, check: Option<&HealthCheckConfig>) {
        self.tell("health_check.enabled", check.is_some());
        let Some(check) = check else { return };
        self.tell_duration("health_check.interval", check.interval);
        self.tell_duration("health_check.fast_interval", check.fast_interval);
        self.tell_duration("health_check.timeout", check.timeout);
        self.tell("health_check.rise", check.rise);
        self.tell("health_check.fall", check.fall);
        let (host, headers) = match &check.probe {
            ProbeConfig::Tcp => return,
            ProbeConfig::Http { path, host, status, headers } => {
                self.tell("health_check.path", path.as_str());
                self.tell("health_check.status", status.clone());
                (host, headers)
            }
            ProbeConfig::Grpc { service, host, headers } => {
                self.tell("health_check.grpc", true);
                self.tell("health_check.service", service.as_str());
                (host, headers)
            }
        };
        if let Some(host) = host {
            self.tell("health_check.host", host.as_str());
        }
        self.tell_headers("health_check.headers", headers);
    }

    /// Files with what is in them now: the same name may stand for another certificate.
    fn tell_upstream_tls(&mut self, tls: Option<&UpstreamTls>) {
        let Some(tls) = tls else { return };
        if let Some(name) = &tls.server_name {
            self.tell("tls.server_name", name.as_str());
        }
        self.tell("tls.verify", tls.verify);
        if let Some(ca) = &tls.ca {
            self.tell("tls.ca", ca.to_string());
        }
        if let Some(client) = &tls.client {
            self.tell("tls.certificate", client.chain.to_string());
            self.tell("tls.key", client.key_file.as_str());
        }
    }

    fn get(&self, key: &str) -> Value {
        match self.0.get(key) {
            None => Value::Null,
            Some(Told::Plain(value)) => value.clone(),
            Some(Told::Secret(_)) => SECRET.into(),
        }
    }

    /// Whether a key is gone because the table that it belongs to was turned off, which is said by itself.
    fn turns_off(&self, key: &str) -> bool {
        let switch = key.split('.').next().map(|table| format!("{table}.enabled"));
        switch.is_some_and(|switch| self.get(&switch) == Value::Bool(false))
    }
}

/// The settings in which two descriptions of the same part differ, by key.
pub fn differences(before: &Description, after: &Description) -> Vec<Setting> {
    let keys = before.0.keys().chain(after.0.keys().filter(|key| !before.0.contains_key(*key)));
    let differs = |key: &&String| before.0.get(*key) != after.0.get(*key);
    let is_said = |key: &&String| !after.0.contains_key(*key) && after.turns_off(key);
    let mut settings: Vec<Setting> = keys
        .filter(|key| differs(key) && !is_said(key))
        .map(|key| Setting { key: key.clone(), from: before.get(key), to: after.get(key) })
        .collect();
    settings.sort_by(|one, other| one.key.cmp(&other.key));
    settings
}

/// A key as TOML takes it without being misread.
fn quoted(key: &str) -> String {
    let bare = key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    if bare { key.to_owned() } else { format!("\"{key}\"") }
}

/// The shortest number that reads back as this one: 0.2, not 0.20000000298.
fn ratio(ratio: f32) -> Value {
    ratio.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

/// The words of `retry.on`.
fn conditions(policy: &Policy) -> Vec<String> {
    let on = &policy.on;
    let words =
        [("connect_failure", on.connect_failure), ("reset", on.reset), ("timeout", on.timeout)].into_iter();
    let words = words.filter(|(_, is_on)| *is_on).map(|(word, _)| word.to_owned());
    words.chain(on.statuses.iter().map(ToString::to_string)).collect()
}

const fn level(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    }
}

const fn format(format: LogFormat) -> &'static str {
    match format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    }
}

fn access(access: &AccessLog) -> String {
    match access {
        AccessLog::Off => "off".to_owned(),
        AccessLog::Stdout => "stdout".to_owned(),
        AccessLog::File(path) => path.display().to_string(),
    }
}
