//! What was changed at run time and differs from the file, with the file's value that it replaced.
//!
//! ```text
//!   file ──► Config ──┬── overrides whose file value is still the same ──► Config that runs
//!                     └── the file says something new: the override is dropped, aloud
//! ```
//!
//! An override is one setting of one pool or upstream. They are not a journal of what was done but the
//! difference that is left: [`difference`] compares what the file says with what runs.

use std::collections::HashMap;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Author, Dropped};
use crate::balance::StrategyKind;
use crate::config::{
    Config, HashKey, ListenerConfig, PoolConfig, UpstreamConfig, check_members, resolved_address,
};
use crate::health::Mode;
use crate::observe::utc;

/// One setting that holds at run time in place of the file's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Override {
    /// Name of the pool.
    pub pool: String,
    /// Address of the upstream, unless it is about the pool as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// Which setting.
    pub setting: Setting,
    /// What holds.
    pub value: Value,
    /// What the file said when it was changed; `None`: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<Value>,
    /// Who changed it: a token's name, or `loopback`.
    pub by: String,
    /// When, RFC 3339.
    pub at: String,
}

/// What can be overridden.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Setting {
    /// Of a pool: `{"strategy": "…", "hash": {…}}`.
    Strategy,
    /// The upstream is not in the file: `{"weight": 1, …}`.
    Added,
    /// The upstream is in the file, and does not take part.
    Removed,
    /// A number.
    Weight,
    /// A number; 0: no limit.
    MaxConnections,
    /// True or false.
    Backup,
    /// `ready`, `drain` or `maintenance`.
    State,
}

impl Setting {
    /// Of an upstream, apart from being there.
    const OF_UPSTREAMS: [Self; 4] = [Self::Weight, Self::MaxConnections, Self::Backup, Self::State];

    /// The word in files and answers.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Strategy => "strategy",
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Weight => "weight",
            Self::MaxConnections => "max_connections",
            Self::Backup => "backup",
            Self::State => "state",
        }
    }
}

/// All overrides, after `running` became what runs of the pool that the file says is `file`. Who changed
/// something and when is taken from `known` where that says the same, and else from `author`.
pub(super) fn difference(
    file: &PoolConfig,
    running: &PoolConfig,
    known: &[Override],
    author: &Author,
) -> Vec<Override> {
    let (of_it, mut all): (Vec<_>, Vec<_>) = known.iter().cloned().partition(|one| one.pool == file.name);
    let of_it: HashMap<_, _> = of_it.iter().map(|known| (key_of(known), known)).collect();
    for mut new in pool_difference(file, running, author) {
        if let Some(old) = of_it.get(&key_of(&new)).filter(|old| old.value == new.value) {
            (new.by, new.at) = (old.by.clone(), old.at.clone());
        }
        all.push(new);
    }
    all
}

/// The configuration that runs when the file says `file`, the overrides that still hold, and those that
/// ended.
pub(super) fn reconcile(file: &Config, overrides: &[Override]) -> (Config, Vec<Override>, Vec<Dropped>) {
    let mut running = file.clone();
    let (mut kept, mut dropped) = (Vec::new(), Vec::new());
    let mut by_pool: HashMap<&str, Vec<&Override>> = HashMap::new();
    for one in overrides {
        by_pool.entry(&one.pool).or_default().push(one);
    }
    for pool in &mut running.pools {
        let Some(about_it) = by_pool.remove(pool.name.as_str()) else { continue };
        let (changed, held, ended) = reconcile_pool(pool, &about_it, &file.listeners);
        if !held.is_empty() {
            *pool = std::sync::Arc::new(changed);
        }
        kept.extend(held);
        dropped.extend(ended);
    }
    for gone in by_pool.into_values().flatten() {
        dropped.push(end(gone, "the file has no such pool any more"));
    }
    (running, kept, dropped)
}

fn reconcile_pool(
    base: &PoolConfig,
    overrides: &[&Override],
    listeners: &[ListenerConfig],
) -> (PoolConfig, Vec<Override>, Vec<Dropped>) {
    let mut pool = base.clone();
    let (mut held, mut ended) = (Vec::new(), Vec::new());
    for &one in overrides {
        let now = value_in(base, one.upstream.as_deref(), one.setting);
        if now == one.file {
            match put(&mut pool, one) {
                Ok(()) => held.push(one.clone()),
                Err(why) => ended.push(end(one, &why)),
            }
        } else if now.as_ref() == Some(&one.value) {
            ended.push(end(one, "the file says the same now"));
        } else {
            ended.push(end(one, &file_says(now.as_ref())));
        }
    }
    // Together they may be impossible with the new file: a listener where an upstream is, for one.
    if let Err(why) = check_members(&pool, listeners) {
        ended.extend(held.iter().map(|one| end(one, &format!("with the new file, {why}"))));
        return (base.clone(), Vec::new(), ended);
    }
    (pool, held, ended)
}

fn file_says(now: Option<&Value>) -> String {
    match now {
        Some(value) => format!("the file was changed, and says {value} now"),
        None => "the file was changed, and does not have it any more".to_owned(),
    }
}

fn end(one: &Override, why: &str) -> Dropped {
    Dropped {
        pool: one.pool.clone(),
        upstream: one.upstream.clone(),
        setting: one.setting.word(),
        value: one.value.to_string(),
        why: why.to_owned(),
    }
}

fn pool_difference(base: &PoolConfig, running: &PoolConfig, author: &Author) -> Vec<Override> {
    let (mut found, at) = (Vec::new(), utc(SystemTime::now()));
    let mut note = |upstream: Option<&UpstreamConfig>, setting, value, file| {
        found.push(Override {
            pool: base.name.clone(),
            upstream: upstream.map(|upstream| upstream.address.to_string()),
            setting,
            value,
            file,
            by: author.who.clone(),
            at: at.clone(),
        });
    };
    if strategy_of(base) != strategy_of(running) {
        note(None, Setting::Strategy, strategy_of(running), Some(strategy_of(base)));
    }
    let in_file: HashMap<_, _> = base.upstreams.iter().map(|one| (&one.address, one)).collect();
    let runs: HashMap<_, _> = running.upstreams.iter().map(|one| (&one.address, one)).collect();
    for gone in base.upstreams.iter().filter(|one| !runs.contains_key(&one.address)) {
        note(Some(gone), Setting::Removed, Value::Bool(true), Some(member(gone)));
    }
    for upstream in &running.upstreams {
        let before = in_file.get(&upstream.address).copied();
        if before.is_none() {
            note(Some(upstream), Setting::Added, member(upstream), None);
        }
        for setting in Setting::OF_UPSTREAMS {
            let (now, file) = (setting_of(upstream, setting), before.map(|one| setting_of(one, setting)));
            let is_new = match &file {
                Some(file) => *file != now,
                // Being there says all but this.
                None => setting == Setting::State && upstream.mode != Mode::Ready,
            };
            if is_new {
                note(Some(upstream), setting, now, file);
            }
        }
    }
    found
}

/// What a pool says about a setting.
fn value_in(pool: &PoolConfig, upstream: Option<&str>, setting: Setting) -> Option<Value> {
    let Some(address) = upstream else { return Some(strategy_of(pool)) };
    let upstream = pool.upstreams.iter().find(|one| one.address.to_string() == address)?;
    Some(match setting {
        Setting::Added | Setting::Removed => member(upstream),
        _ => setting_of(upstream, setting),
    })
}

/// Makes an override hold. The error is why it cannot.
fn put(pool: &mut PoolConfig, one: &Override) -> Result<(), String> {
    let nonsense = || format!("`{}` is no value of `{}`", one.value, one.setting.word());
    let Some(address) = one.upstream.as_deref() else {
        return put_strategy(pool, &one.value).ok_or_else(nonsense);
    };
    match one.setting {
        Setting::Strategy => return Err(nonsense()),
        Setting::Added => pool.upstreams.push(added(address, &one.value).ok_or_else(nonsense)?),
        Setting::Removed => pool.upstreams.retain(|upstream| upstream.address.to_string() != address),
        setting => {
            let mut members = pool.upstreams.iter_mut();
            let upstream = members
                .find(|upstream| upstream.address.to_string() == address)
                .ok_or("the pool has no such upstream")?;
            put_setting(upstream, setting, &one.value).ok_or_else(nonsense)?;
        }
    }
    Ok(())
}

fn added(address: &str, value: &Value) -> Option<UpstreamConfig> {
    let mut upstream = UpstreamConfig::at(resolved_address(address)?);
    for (name, value) in value.as_object()? {
        let setting = Setting::OF_UPSTREAMS.into_iter().find(|setting| setting.word() == name)?;
        put_setting(&mut upstream, setting, value)?;
    }
    Some(upstream)
}

fn put_setting(upstream: &mut UpstreamConfig, setting: Setting, value: &Value) -> Option<()> {
    match setting {
        Setting::Weight => {
            let weight = u16::try_from(value.as_u64()?).ok()?;
            upstream.weight = Some(weight).filter(|&weight| weight <= crate::config::limits::WEIGHT_MAX)?;
        }
        Setting::MaxConnections => {
            let limit = u32::try_from(value.as_u64()?).ok()?;
            upstream.max_connections = Some(limit).filter(|&limit| limit > 0);
        }
        Setting::Backup => upstream.backup = value.as_bool()?,
        Setting::State => upstream.mode = Mode::from_word(value.as_str()?)?,
        Setting::Strategy | Setting::Added | Setting::Removed => return None,
    }
    Some(())
}

fn setting_of(upstream: &UpstreamConfig, setting: Setting) -> Value {
    match setting {
        Setting::Weight => upstream.weight.into(),
        Setting::MaxConnections => upstream.max_connections.unwrap_or(0).into(),
        Setting::Backup => upstream.backup.into(),
        Setting::State => upstream.mode.word().into(),
        Setting::Strategy | Setting::Added | Setting::Removed => Value::Null,
    }
}

/// An upstream without its address and what an operator wants of it; only what is no default.
fn member(upstream: &UpstreamConfig) -> Value {
    let mut all = Map::new();
    all.insert("weight".to_owned(), upstream.weight.into());
    if let Some(limit) = upstream.max_connections {
        all.insert("max_connections".to_owned(), limit.into());
    }
    if upstream.backup {
        all.insert("backup".to_owned(), true.into());
    }
    Value::Object(all)
}

fn strategy_of(pool: &PoolConfig) -> Value {
    let name = pool.strategy.name();
    match &pool.hash {
        None => json!({ "strategy": name }),
        Some(key) => json!({ "strategy": name, "hash": key.to_json() }),
    }
}

fn put_strategy(pool: &mut PoolConfig, value: &Value) -> Option<()> {
    let word = value.get("strategy")?.as_str()?;
    let kind = StrategyKind::ALL.into_iter().find(|kind| kind.name() == word)?;
    let hash = match value.get("hash") {
        Some(hash) => Some(HashKey::from_json(hash)?),
        None => None,
    };
    if (kind == StrategyKind::ConsistentHash) != hash.is_some() {
        return None;
    }
    (pool.strategy, pool.hash) = (kind, hash);
    Some(())
}

fn key_of(one: &Override) -> (&str, Option<&str>, Setting) {
    (&one.pool, one.upstream.as_deref(), one.setting)
}
