//! `[server]`, `[admin]`, `[log]`: the process itself.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::tokens;
use crate::config::fields::{Fields, Value};
use crate::config::report::Wrong;
use crate::config::{
    AccessFilter, AccessLog, AdminConfig, LogConfig, LogFormat, LogLevel, ServerConfig, defaults, limits,
    values,
};

pub(super) fn server(fields: &Fields<'_>) -> ServerConfig {
    let duration = |key, default| fields.read(key, |value| value.duration(Duration::ZERO)).unwrap_or(default);
    let threads = fields.read("threads", |value| value.count(1, limits::THREADS_MAX as u64));
    ServerConfig {
        threads: threads.unwrap_or_else(defaults::threads),
        drain_timeout: duration("drain_timeout", defaults::DRAIN_TIMEOUT),
        pre_stop_delay: duration("pre_stop_delay", defaults::PRE_STOP_DELAY),
        state_file: fields.read("state_file", state_file),
    }
}

/// A path, from the folder of the configuration file.
fn state_file(value: &Value<'_>) -> Option<PathBuf> {
    value.parse(|text| {
        if text.is_empty() || text.contains('\0') || text.ends_with('/') {
            return Err(Wrong::new(
                format!("`{}` is not the name of a file", values::shown(text)),
                "no place for a file",
                "write a path such as \"evener.state\", beside this file, or \"/var/lib/evener/evener.state\"",
            ));
        }
        Ok(value.desk.folder.join(text))
    })
}

pub(super) fn admin(value: &Value<'_>) -> Option<AdminConfig> {
    value.table("`admin`", |fields| {
        let (own, tokens) = (fields.get("address"), fields.get("tokens"));
        // A token with a mistake in it is one that is meant; its mistake is said by itself.
        let is_guarded = tokens.as_ref().is_some_and(|tokens| !tokens.is_empty_table());
        AdminConfig {
            address: own.and_then(|own| address(&own, is_guarded)).unwrap_or(defaults::ADMIN.address),
            tokens: tokens.and_then(|tokens| tokens::all(&tokens)).unwrap_or_default(),
        }
    })
}

/// Any address with tokens, one on loopback without.
fn address(value: &Value<'_>, is_guarded: bool) -> Option<SocketAddr> {
    let address = value.parse(values::own_address)?;
    if is_guarded || address.ip().is_loopback() {
        return Some(address);
    }
    value.refuse(Wrong::new(
        "the admin address must be on loopback: without tokens, anyone could drain upstreams",
        "reachable from other machines",
        format!(
            "write \"127.0.0.1:{}\", or add a token: [admin.tokens.NAME] with `scope`, and `file` or `env`",
            address.port()
        ),
    ))
}

pub(super) fn log(fields: &Fields<'_>) -> LogConfig {
    let level = fields.read("level", |value| value.word("log level", &LEVELS));
    let format = fields.read("format", |value| value.word("log format", &FORMATS));
    LogConfig {
        level: level.unwrap_or(defaults::LOG.level),
        format: format.unwrap_or(defaults::LOG.format),
        access: fields.read("access", access).unwrap_or(defaults::LOG.access),
        access_filter: fields.read("access_filter", access_filter).unwrap_or(defaults::ACCESS_FILTER),
    }
}

/// Without `sample` it would leave nothing out, which nobody means who writes it.
fn access_filter(value: &Value<'_>) -> Option<AccessFilter> {
    value.table("`access_filter`", |fields| {
        let help = "write the share of the ordinary requests that have a line: { sample = 0.01 }";
        let sample = fields.require("sample", help, Value::ratio);
        let slower_than = fields.read("slower_than", |value| value.duration(Duration::ZERO));
        AccessFilter {
            sample: sample.unwrap_or(defaults::ACCESS_FILTER.sample),
            errors: fields.read("errors", Value::boolean).unwrap_or(defaults::ACCESS_FILTER.errors),
            slower_than: slower_than.unwrap_or(defaults::ACCESS_FILTER.slower_than),
        }
    })
}

const LEVELS: [(&str, LogLevel); 5] = [
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
    ("trace", LogLevel::Trace),
];

const FORMATS: [(&str, LogFormat); 2] = [("text", LogFormat::Text), ("json", LogFormat::Json)];

/// A word or a path. What looks like neither is refused, or `access = "stdot"` would write a file `stdot`.
fn access(value: &Value<'_>) -> Option<AccessLog> {
    value.parse(|text| match text {
        "off" => Ok(AccessLog::Off),
        "stdout" => Ok(AccessLog::Stdout),
        path if path.contains(['/', '.']) && !path.contains('\0') && !path.ends_with('/') => {
            Ok(AccessLog::File(value.desk.folder.join(path)))
        }
        other => Err(Wrong::new(
            format!("`{}` is neither `off`, `stdout` nor a file", values::shown(other)),
            "no place for an access log",
            "write \"off\", \"stdout\", or a path such as \"/var/log/evener/access.log\"",
        )),
    })
}
