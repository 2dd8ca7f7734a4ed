//! What was changed at run time and differs from the file, with the file's value that it replaced.
//!
//! ```text
//!   file ──► Config ──┬── overrides whose file value is still the same ──► Config that runs
//!                     └── the file says something new: the override is dropped, aloud
//! ```
//!
//! An override is one setting of one pool or upstream. They are not a journal of what was done but the
//! difference that is left: [`difference`] compares what the file says with what runs. They are kept in one
//! order, by pool, upstream and setting, so that the same ones are equal wherever they come from.

use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Author, Dropped};
use crate::balance::StrategyKind;
use crate::config::{
    Config, HashKey, ListenerConfig, PoolConfig, UpstreamConfig, check_circle, check_members, limits,
    resolved_address,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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

    /// Whether it says who is a member of a pool, or who a backup.
    const fn is_about_membership(self) -> bool {
        matches!(self, Self::Added | Self::Removed | Self::Backup)
    }

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

/// The overrides of a file, in their order.
///
/// # Errors
///
/// Says which of them means nothing, or that there are two of one.
pub(super) fn checked(mut overrides: Vec<Override>) -> Result<Vec<Override>, String> {
    sort(&mut overrides);
    if let Some(wrong) = overrides.iter().find(|one| !one.means_something()) {
        let what = if wrong.upstream.is_some() { " of an upstream" } else { "" };
        let (setting, value) = (wrong.setting.word(), &wrong.value);
        return Err(format!("{}: `{value}` is no value of `{setting}`{what}", wrong.of_whom()));
    }
    let twice = overrides.windows(2).find_map(|pair| match pair {
        [one, next] if key_of(one) == key_of(next) => Some(one),
        _ => None,
    });
    match twice {
        Some(twice) => Err(format!("{}: `{}` is there twice", twice.of_whom(), twice.setting.word())),
        None => Ok(overrides),
    }
}

impl Override {
    fn means_something(&self) -> bool {
        let Some(address) = &self.upstream else {
            return self.setting == Setting::Strategy && read_strategy(&self.value).is_some();
        };
        // One spelling for each address, or else nobody finds it.
        let Some(known) = resolved_address(address).filter(|known| known.to_string() == *address) else {
            return false;
        };
        match self.setting {
            Setting::Strategy => false,
            Setting::Added => added(address, &self.value).is_some(),
            Setting::Removed => self.value == Value::Bool(true),
            setting => put_setting(&mut UpstreamConfig::at(known), setting, &self.value).is_some(),
        }
    }

    fn of_whom(&self) -> String {
        match &self.upstream {
            Some(address) => format!("pool `{}`, upstream {address}", self.pool),
            None => format!("pool `{}`", self.pool),
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
    sort(&mut all);
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
        let (changed, held, ended) = reconcile_pool(pool, about_it, &file.listeners);
        if !held.is_empty() {
            *pool = std::sync::Arc::new(changed);
        }
        kept.extend(held);
        dropped.extend(ended);
    }
    for gone in by_pool.into_values().flatten() {
        dropped.push(end(gone, "the file has no such pool any more"));
    }
    sort(&mut kept);
    dropped.sort_by(|one, other| {
        (&one.pool, &one.upstream, one.setting).cmp(&(&other.pool, &other.upstream, other.setting))
    });
    (running, kept, dropped)
}

fn reconcile_pool(
    base: &PoolConfig,
    overrides: Vec<&Override>,
    listeners: &[ListenerConfig],
) -> (PoolConfig, Vec<Override>, Vec<Dropped>) {
    let file = InFile::of(base);
    let (mut holding, mut ended) = (Vec::new(), Vec::new());
    for one in overrides {
        match file.contradicts(one) {
            None => holding.push(one),
            Some(why) => ended.push(end(one, &why)),
        }
    }
    let (mut pool, mut held, mut failed) = put_all(base, &holding, listeners);
    // Together they may be impossible with the new file: only backups are left, for one. Without those that
    // say who is a member it is as possible as the file.
    if let Err(why) = check_members(&pool, listeners) {
        let (members, others): (Vec<_>, Vec<_>) =
            holding.iter().partition(|one| one.setting.is_about_membership());
        ended.extend(members.into_iter().map(|one| end(one, &format!("with the new file, {why}"))));
        (pool, held, failed) = put_all(base, &others, listeners);
    }
    ended.extend(failed);
    let known_in_file = |one: &Override| Override { file: file.value_of(one), ..one.clone() };
    (pool, held.into_iter().map(known_in_file).collect(), ended)
}

/// What the file says of a pool.
struct InFile<'a> {
    pool: &'a PoolConfig,
    upstreams: HashMap<String, &'a UpstreamConfig>,
}

impl<'a> InFile<'a> {
    fn of(pool: &'a PoolConfig) -> Self {
        let upstreams = pool.upstreams.iter().map(|upstream| (upstream.address.to_string(), upstream));
        Self { pool, upstreams: upstreams.collect() }
    }

    /// The value that an override replaces.
    fn value_of(&self, one: &Override) -> Option<Value> {
        let Some(address) = &one.upstream else { return Some(strategy_of(self.pool)) };
        let upstream = self.upstreams.get(address)?;
        Some(match one.setting {
            Setting::Added | Setting::Removed => member(upstream),
            setting => setting_of(upstream, setting),
        })
    }

    /// Why an override ends, if it does.
    fn contradicts(&self, one: &Override) -> Option<String> {
        let now = self.value_of(one);
        // A file cannot say what an operator wants of an upstream, so it says nothing else either.
        let is_beyond_it = one.setting == Setting::State && now.is_some();
        if is_beyond_it || now == one.file {
            return None;
        }
        let agrees =
            if one.setting == Setting::Removed { now.is_none() } else { now.as_ref() == Some(&one.value) };
        Some(if agrees { "the file says the same now".to_owned() } else { file_says(now.as_ref()) })
    }
}

/// A pool with its overrides, those that hold, and those that cannot.
fn put_all<'o>(
    base: &PoolConfig,
    overrides: &[&'o Override],
    listeners: &[ListenerConfig],
) -> (PoolConfig, Vec<&'o Override>, Vec<Dropped>) {
    let mut putting = Putting::into(base, overrides);
    let (mut held, mut failed) = (Vec::new(), Vec::new());
    let mut in_turn = overrides.to_vec();
    // Members come before what is said of them.
    in_turn.sort_by_key(|one| one.setting);
    for one in in_turn {
        match putting.put(one, listeners) {
            Ok(()) => held.push(one),
            Err(why) => failed.push(end(one, &why)),
        }
    }
    (putting.pool, held, failed)
}

/// A pool on the way to what its overrides make of it.
struct Putting {
    pool: PoolConfig,
    /// Where in the pool an address is.
    places: HashMap<String, usize>,
}

impl Putting {
    /// Without those that are removed.
    fn into(base: &PoolConfig, overrides: &[&Override]) -> Self {
        let removed = overrides.iter().filter(|one| one.setting == Setting::Removed);
        let removed: HashSet<&str> = removed.filter_map(|one| one.upstream.as_deref()).collect();
        let (mut pool, mut places) = (base.clone(), HashMap::new());
        pool.upstreams.retain(|upstream| {
            let address = upstream.address.to_string();
            let stays = !removed.contains(address.as_str());
            if stays {
                places.insert(address, places.len());
            }
            stays
        });
        Self { pool, places }
    }

    /// Makes an override hold. The error is why it cannot.
    fn put(&mut self, one: &Override, listeners: &[ListenerConfig]) -> Result<(), String> {
        let nonsense = || format!("`{}` is no value of `{}`", one.value, one.setting.word());
        match (one.setting, one.upstream.as_deref()) {
            (Setting::Strategy, None) => {
                (self.pool.strategy, self.pool.hash) = read_strategy(&one.value).ok_or_else(nonsense)?;
            }
            (Setting::Added, Some(address)) => {
                let upstream = added(address, &one.value).ok_or_else(nonsense)?;
                check_circle(&upstream.address, listeners)
                    .map_err(|why| format!("with the new file, {why}"))?;
                self.places.insert(address.to_owned(), self.pool.upstreams.len());
                self.pool.upstreams.push(upstream);
            }
            (Setting::Removed, Some(_)) => {}
            (Setting::Strategy, Some(_)) | (_, None) => return Err(nonsense()),
            (setting, Some(address)) => {
                let place = self.places.get(address).and_then(|&place| self.pool.upstreams.get_mut(place));
                let upstream = place.ok_or("the pool has no such upstream any more")?;
                put_setting(upstream, setting, &one.value).ok_or_else(nonsense)?;
            }
        }
        Ok(())
    }
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
            let weight = u16::try_from(value.as_u64()?).ok();
            upstream.weight = weight.filter(|&weight| weight <= limits::WEIGHT_MAX)?;
        }
        Setting::MaxConnections => {
            let limit = value.as_u64().filter(|&limit| limit <= limits::UPSTREAM_CONNECTIONS_MAX)?;
            upstream.max_connections = u32::try_from(limit).ok().filter(|&limit| limit > 0);
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

/// A strategy, with what it hashes if it does.
fn read_strategy(value: &Value) -> Option<(StrategyKind, Option<HashKey>)> {
    let table =
        value.as_object().filter(|table| table.keys().all(|key| key == "strategy" || key == "hash"))?;
    let word = table.get("strategy")?.as_str()?;
    let kind = StrategyKind::ALL.into_iter().find(|kind| kind.name() == word)?;
    let hash = match table.get("hash") {
        Some(hash) => Some(HashKey::from_json(hash)?),
        None => None,
    };
    ((kind == StrategyKind::ConsistentHash) == hash.is_some()).then_some((kind, hash))
}

fn key_of(one: &Override) -> (&str, Option<&str>, Setting) {
    (&one.pool, one.upstream.as_deref(), one.setting)
}

fn sort(overrides: &mut [Override]) {
    overrides.sort_by(|one, other| key_of(one).cmp(&key_of(other)));
}

#[cfg(test)]
mod tests;
