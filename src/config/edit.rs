//! Changes one pool the way an operator does: by name, without a file. Checked like the file's own words.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use super::check::{by_system, upstream};
use super::report::Wrong;
use super::{HashKey, ListenerConfig, PoolConfig, UpstreamAddress, UpstreamConfig, limits, values};
use crate::balance::StrategyKind;
use crate::health::Mode;

/// One edit of a pool.
#[derive(Clone, Debug, PartialEq)]
pub enum PoolEdit {
    /// Choose by this rule from now on.
    Strategy {
        /// The rule.
        kind: StrategyKind,
        /// What `consistent_hash` hashes; `None` keeps what the pool hashes now.
        hash: Option<HashKey>,
    },
    /// Exactly these upstreams. Those that the pool has already keep their state.
    Replace(Vec<NewUpstream>),
    /// One more upstream, or several.
    Add(Vec<NewUpstream>),
    /// One upstream less.
    Remove(UpstreamAddress),
    /// Another weight, 0 to [`limits::WEIGHT_MAX`].
    Weight(UpstreamAddress, u64),
    /// What the operator wants of an upstream.
    Mode(UpstreamAddress, Mode),
    /// No new requests for an upstream: drains it, unless it is in maintenance already.
    Drain(UpstreamAddress),
}

/// An upstream as somebody names it: not checked yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewUpstream {
    /// `host:port`, `http://host:port` or `unix:/path`.
    pub address: String,
    /// Default: 1.
    pub weight: Option<u64>,
    /// Default: no limit.
    pub max_connections: Option<u64>,
    /// Only when no other is eligible.
    pub backup: bool,
}

/// Why a pool cannot be edited so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CannotEdit {
    /// The pool has no upstream of this address.
    UnknownUpstream(UpstreamAddress),
    /// It has one already.
    AlreadyThere(UpstreamAddress),
    /// What was said is wrong.
    Wrong {
        /// What is wrong.
        message: String,
        /// What would be right.
        help: String,
    },
}

impl fmt::Display for CannotEdit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownUpstream(address) => write!(formatter, "the pool has no upstream {address}"),
            Self::AlreadyThere(address) => write!(formatter, "the pool has the upstream {address} already"),
            Self::Wrong { message, .. } => formatter.write_str(message),
        }
    }
}

impl From<Wrong> for CannotEdit {
    fn from(wrong: Wrong) -> Self {
        Self::Wrong { message: wrong.message, help: wrong.help }
    }
}

/// The pool after these edits, in their order; `listeners` are those of the same configuration.
///
/// # Errors
///
/// See [`CannotEdit`]: the first edit that is not possible.
pub fn edit(
    pool: &PoolConfig,
    edits: &[PoolEdit],
    listeners: &[ListenerConfig],
) -> Result<PoolConfig, CannotEdit> {
    let mut edited = pool.clone();
    for edit in edits {
        apply(&mut edited, edit)?;
    }
    check_members(&edited, listeners)?;
    Ok(edited)
}

/// Whether the members of a pool are possible together; the same rules as for a file.
///
/// # Errors
///
/// See [`CannotEdit`].
pub fn check_members(pool: &PoolConfig, listeners: &[ListenerConfig]) -> Result<(), CannotEdit> {
    let members = &pool.upstreams;
    if members.len() > limits::UPSTREAMS_PER_POOL_MAX {
        let most = limits::UPSTREAMS_PER_POOL_MAX;
        return Err(wrong(format!("a pool has at most {most} upstreams"), "use several pools"));
    }
    if !members.is_empty() && members.iter().all(|member| member.backup) {
        let message = "every upstream of the pool would be a backup";
        return Err(wrong(message, "keep, or add, one that is none"));
    }
    members.iter().try_for_each(|member| check_circle(&member.address, listeners))
}

/// Whether an upstream is somebody else than ourselves.
///
/// # Errors
///
/// It is one of `listeners`.
pub fn check_circle(address: &UpstreamAddress, listeners: &[ListenerConfig]) -> Result<(), CannotEdit> {
    let Some(listener) = listeners.iter().find(|listener| upstream::is_circle(address, listener.address))
    else {
        return Ok(());
    };
    Err(wrong(
        format!("{address} is listener `{}`: requests would go in circles", listener.name),
        "name the server behind Evener; its port differs from the listener's",
    ))
}

/// Reads the address of an upstream: `host:port`, `http://host:port`, `[::1]:port` or `unix:/path`. A host
/// name is resolved now.
///
/// # Errors
///
/// [`CannotEdit::Wrong`] says what would be right.
pub fn read_address(text: &str) -> Result<UpstreamAddress, CannotEdit> {
    let bare = text.strip_prefix("http://").map_or(text, |rest| rest.strip_suffix('/').unwrap_or(rest));
    Ok(upstream::address(bare, &by_system())?)
}

/// Reads the address of an upstream without asking a resolver, as it is shown: `127.0.0.1:9001`,
/// `[::1]:9001` or `unix:/path`.
pub fn resolved_address(text: &str) -> Option<UpstreamAddress> {
    match text.strip_prefix("unix:") {
        Some(path) => values::unix_path(path).ok().map(|path| UpstreamAddress::Unix(path.to_owned())),
        None => text.parse().ok().map(UpstreamAddress::Tcp),
    }
}

/// Reads a duration with its unit, zero (`0s`) to `most`.
///
/// # Errors
///
/// What is wrong, and what would be right.
pub fn read_duration(text: &str, most: Duration) -> Result<Duration, (String, String)> {
    let duration = values::duration(text, Duration::ZERO).map_err(|wrong| (wrong.message, wrong.help))?;
    if duration > most {
        let most = values::duration_text(most);
        return Err((format!("`{}` is too long", values::shown(text)), format!("write at most {most}")));
    }
    Ok(duration)
}

/// Reads a size with its unit, zero to `most` bytes.
///
/// # Errors
///
/// What is wrong, and what would be right.
pub fn read_size(text: &str, most: u64) -> Result<u64, (String, String)> {
    values::size(text, 0, most).map_err(|wrong| (wrong.message, wrong.help))
}

impl UpstreamConfig {
    /// With every default.
    pub fn at(address: UpstreamAddress) -> Self {
        upstream::with_defaults(address)
    }
}

impl HashKey {
    /// As the file writes it: `{"header": "x-user"}`, `{"cookie": "session"}`, `{"client_ip": true}` or
    /// `{"path": true}`.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Header(name) => json!({ "header": name.as_str() }),
            Self::Cookie(name) => json!({ "cookie": name }),
            Self::ClientIp => json!({ "client_ip": true }),
            Self::Path => json!({ "path": true }),
        }
    }

    /// Reads what [`HashKey::to_json`] writes.
    pub fn from_json(json: &Value) -> Option<Self> {
        let table = json.as_object().filter(|table| table.len() == 1)?;
        let (key, value) = table.iter().next()?;
        match (key.as_str(), value) {
            ("header", Value::String(name)) => values::header_name(name).ok().map(Self::Header),
            ("cookie", Value::String(name)) => {
                values::header_name(name).ok().map(|_| Self::Cookie(name.clone()))
            }
            ("client_ip", Value::Bool(true)) => Some(Self::ClientIp),
            ("path", Value::Bool(true)) => Some(Self::Path),
            _ => None,
        }
    }
}

fn apply(pool: &mut PoolConfig, edit: &PoolEdit) -> Result<(), CannotEdit> {
    match edit {
        PoolEdit::Strategy { kind, hash } => set_strategy(pool, *kind, hash.as_ref()),
        PoolEdit::Replace(wanted) => replace(pool, wanted),
        PoolEdit::Add(wanted) => wanted.iter().try_for_each(|one| add(pool, one)),
        PoolEdit::Remove(address) => {
            member(pool, address)?;
            pool.upstreams.retain(|upstream| upstream.address != *address);
            Ok(())
        }
        PoolEdit::Weight(address, weight) => {
            member(pool, address)?.weight = read_weight(*weight)?;
            Ok(())
        }
        PoolEdit::Mode(address, mode) => {
            member(pool, address)?.mode = *mode;
            Ok(())
        }
        PoolEdit::Drain(address) => {
            let upstream = member(pool, address)?;
            if upstream.mode == Mode::Ready {
                upstream.mode = Mode::Drain;
            }
            Ok(())
        }
    }
}

fn set_strategy(pool: &mut PoolConfig, kind: StrategyKind, hash: Option<&HashKey>) -> Result<(), CannotEdit> {
    let hashes = kind == StrategyKind::ConsistentHash;
    let key = hash.or(pool.hash.as_ref()).filter(|_| hashes).cloned();
    if hashes && key.is_none() {
        let help = "add `hash`: {\"client_ip\": true}, {\"path\": true}, {\"header\": \"x-user\"} or {\"cookie\": \"session\"}";
        return Err(wrong("`consistent_hash` needs `hash`: what should stay with one upstream?", help));
    }
    if !hashes && hash.is_some() {
        let message = format!("`hash` has no meaning with `{}`", kind.name());
        return Err(wrong(message, "leave `hash` out, or ask for `consistent_hash`"));
    }
    (pool.strategy, pool.hash) = (kind, key);
    Ok(())
}

/// Who stays keeps what the operator wants of it.
fn replace(pool: &mut PoolConfig, wanted: &[NewUpstream]) -> Result<(), CannotEdit> {
    let before = std::mem::take(&mut pool.upstreams);
    wanted.iter().try_for_each(|one| add(pool, one))?;
    for upstream in &mut pool.upstreams {
        if let Some(old) = before.iter().find(|old| old.address == upstream.address) {
            upstream.mode = old.mode;
        }
    }
    Ok(())
}

fn add(pool: &mut PoolConfig, wanted: &NewUpstream) -> Result<(), CannotEdit> {
    let upstream = read(wanted)?;
    if pool.upstreams.iter().any(|other| other.address == upstream.address) {
        return Err(CannotEdit::AlreadyThere(upstream.address));
    }
    pool.upstreams.push(upstream);
    Ok(())
}

fn read(wanted: &NewUpstream) -> Result<UpstreamConfig, CannotEdit> {
    let mut upstream = upstream::with_defaults(read_address(&wanted.address)?);
    if let Some(weight) = wanted.weight {
        upstream.weight = read_weight(weight)?;
    }
    upstream.max_connections = wanted.max_connections.map(read_limit).transpose()?;
    upstream.backup = wanted.backup;
    Ok(upstream)
}

fn read_weight(weight: u64) -> Result<u16, CannotEdit> {
    let most = limits::WEIGHT_MAX;
    u16::try_from(weight).ok().filter(|&weight| weight <= most).ok_or_else(|| {
        wrong(format!("the weight {weight} is out of range"), format!("write a value from 0 to {most}"))
    })
}

fn read_limit(limit: u64) -> Result<u32, CannotEdit> {
    let most = limits::UPSTREAM_CONNECTIONS_MAX;
    u32::try_from(limit).ok().filter(|_| (1..=most).contains(&limit)).ok_or_else(|| {
        let message = format!("`max_connections` {limit} is out of range");
        wrong(message, format!("write a value from 1 to {most}, or leave it out for no limit"))
    })
}

fn member<'p>(
    pool: &'p mut PoolConfig,
    address: &UpstreamAddress,
) -> Result<&'p mut UpstreamConfig, CannotEdit> {
    pool.upstreams
        .iter_mut()
        .find(|upstream| upstream.address == *address)
        .ok_or_else(|| CannotEdit::UnknownUpstream(address.clone()))
}

fn wrong(message: impl Into<String>, help: impl Into<String>) -> CannotEdit {
    CannotEdit::Wrong { message: values::shown(&message.into()), help: help.into() }
}
