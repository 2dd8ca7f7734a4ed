//! The one place where a configuration becomes running state.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::pool::{Pool, PoolState, Tier, lay_out};
use super::{Route, Snapshot, Upstream, UpstreamState};
use crate::config::{Config, PoolConfig, RouteConfig, UpstreamAddress, UpstreamConfig};
use crate::observe::RouteMetrics;
use crate::route::RouteTable;

impl Snapshot {
    /// Turns a checked configuration into running state.
    ///
    /// Cannot fail: whatever could be wrong was refused in `config`.
    ///
    /// An upstream that `previous` had in the same pool keeps its live state: health, ejection, what
    /// was learned of its speed, requests in flight, counters. Pools and routes whose configuration is
    /// the very same (by pointer) are taken over as they are, so a change of one costs nothing for the
    /// others. `random` places the cursors of round robin, so that many fresh processes do not all
    /// begin with the same upstream.
    pub fn build(
        config: Config,
        generation: u64,
        previous: Option<&Self>,
        now: Duration,
        random: u64,
    ) -> Self {
        Self::make(config, &Making { generation, previous, older: None, known: OnceCell::new(), now, random })
    }

    /// As [`Snapshot::build`], and what `previous` does not know is looked up in `older`: for going back to
    /// what ran in it, as if it had never been left.
    pub fn build_again(
        config: Config,
        generation: u64,
        previous: &Self,
        older: &Self,
        now: Duration,
        random: u64,
    ) -> Self {
        let (previous, older, known) = (Some(previous), Some(older), OnceCell::new());
        Self::make(config, &Making { generation, previous, older, known, now, random })
    }

    fn make(config: Config, making: &Making<'_>) -> Self {
        let pools: Vec<Arc<Pool>> =
            config.pools.iter().enumerate().map(|(index, pool)| making.pool(index, pool)).collect();
        let listeners = config.listeners.len();
        let routes: Vec<Arc<Route>> = config
            .routes
            .iter()
            .enumerate()
            .map(|(index, route)| making.route(index, route, listeners))
            .collect();
        let (table, places) = (table(&routes, making.previous), places(&pools, making.previous));
        Self { generation: making.generation, table, routes, pools, places, config: Arc::new(config) }
    }
}

/// One building of a snapshot.
struct Making<'a> {
    generation: u64,
    previous: Option<&'a Snapshot>,
    /// What ran before that, if it is to run again.
    older: Option<&'a Snapshot>,
    /// Made when something is not in the place that it had; a change of one finds all in their places.
    known: OnceCell<Known<'a>>,
    now: Duration,
    random: u64,
}

/// What ran before, by name.
struct Known<'a> {
    pools: HashMap<&'a str, &'a Arc<Pool>>,
    routes: HashMap<&'a str, &'a Arc<Route>>,
}

impl<'a> Known<'a> {
    fn of(snapshot: &'a Snapshot) -> Self {
        Self {
            pools: snapshot.pools.iter().map(|pool| (pool.config.name.as_str(), pool)).collect(),
            routes: snapshot.routes.iter().map(|route| (route.config.name.as_str(), route)).collect(),
        }
    }
}

impl<'a> Making<'a> {
    fn pool(&self, index: usize, config: &Arc<PoolConfig>) -> Arc<Pool> {
        match self.pool_before(index, config) {
            Some(same) if Arc::ptr_eq(&same.config, config) => Arc::clone(same),
            before => {
                let older = self.older.and_then(|older| older.pool_named(&config.name));
                let before = before.map(AsRef::as_ref);
                Arc::new(self.changed_pool(config, before.or(older), older))
            }
        }
    }

    fn pool_before(&self, index: usize, config: &Arc<PoolConfig>) -> Option<&'a Arc<Pool>> {
        let previous = self.previous?;
        let in_place = previous.pools.get(index);
        let is_it = |pool: &&Arc<Pool>| Arc::ptr_eq(&pool.config, config) || pool.config.name == config.name;
        in_place.filter(is_it).or_else(|| self.known(previous).pools.get(config.name.as_str()).copied())
    }

    fn route_before(&self, index: usize, config: &Arc<RouteConfig>) -> Option<&'a Arc<Route>> {
        let previous = self.previous?;
        let in_place = previous.routes.get(index);
        let is_it =
            |route: &&Arc<Route>| Arc::ptr_eq(&route.config, config) || route.config.name == config.name;
        in_place.filter(is_it).or_else(|| self.known(previous).routes.get(config.name.as_str()).copied())
    }

    fn known(&self, previous: &'a Snapshot) -> &Known<'a> {
        self.known.get_or_init(|| Known::of(previous))
    }

    fn changed_pool(&self, config: &Arc<PoolConfig>, before: Option<&Pool>, older: Option<&Pool>) -> Pool {
        let (primaries, backups): (Vec<_>, Vec<_>) =
            config.upstreams.iter().partition(|upstream| !upstream.backup);
        let first_backup = primaries.len();
        let members: Vec<&UpstreamConfig> = primaries.into_iter().chain(backups).collect();
        let upstreams = self.upstreams(config, &members, before, older);
        let tier = |range: std::ops::Range<usize>, number: usize| {
            let before = before.and_then(|pool| pool.tiers.get(number));
            Tier::build(config, &upstreams, range, before, self.random)
        };
        let tiers = [tier(0..first_backup, 0), tier(first_backup..members.len(), 1)];
        let state = before.map_or_else(|| Arc::new(PoolState::default()), |pool| pool.state.clone());
        let (key, since, kept) = (key_of(config), self.generation, OnceLock::new());
        Pool { key, kept, since, config: config.clone(), upstreams, tiers, state }
    }

    fn upstreams(
        &self,
        pool: &PoolConfig,
        members: &[&UpstreamConfig],
        before: Option<&Pool>,
        older: Option<&Pool>,
    ) -> Vec<Upstream> {
        // The later entry of an address wins: what ran last knows more.
        let known: HashMap<&UpstreamAddress, &Arc<UpstreamState>> = [older, before]
            .into_iter()
            .flatten()
            .flat_map(|pool| &pool.upstreams)
            .map(|upstream| (&upstream.config.address, &upstream.state))
            .collect();
        let new_state = |address| {
            let state = UpstreamState::new(&pool.name, address, self.now);
            if before.is_some() && !pool.slow_start.is_zero() {
                // New among those that are warm.
                state.load.warm_up(self.now);
            }
            Arc::new(state)
        };
        let state_of =
            |address| known.get(address).map_or_else(|| new_state(address), |&state| state.clone());
        let is_checked = pool.health_check.is_some();
        members
            .iter()
            .map(|&member| Upstream {
                config: member.clone(),
                label: member.address.to_string().into(),
                is_checked,
                state: state_of(&member.address),
            })
            .collect()
    }

    fn route(&self, index: usize, config: &Arc<RouteConfig>, listeners: usize) -> Arc<Route> {
        let older = || {
            let mut routes = self.older?.routes.iter();
            routes.find(|route| route.config.name == config.name)
        };
        let metrics = match self.route_before(index, config).or_else(older) {
            Some(same) if Arc::ptr_eq(&same.config, config) => return Arc::clone(same),
            Some(changed) => changed.metrics.clone(),
            None => Arc::new(RouteMetrics::new(listeners)),
        };
        Arc::new(Route { config: config.clone(), since: self.generation, metrics })
    }
}

/// Laid out anew only when a route has changed.
fn table(routes: &[Arc<Route>], previous: Option<&Snapshot>) -> Arc<RouteTable> {
    let is_same = |old: &&Snapshot| {
        old.routes.len() == routes.len()
            && old.routes.iter().zip(routes).all(|(old, new)| Arc::ptr_eq(old, new))
    };
    previous.filter(is_same).map_or_else(
        || Arc::new(RouteTable::new(routes.iter().map(|route| route.config.matcher.clone()))),
        |same| same.table.clone(),
    )
}

/// Where each pool is, by name; made anew only when pools came, went or moved.
fn places(pools: &[Arc<Pool>], previous: Option<&Snapshot>) -> Arc<HashMap<String, usize>> {
    let is_same = |old: &&Snapshot| {
        let names_itself = |(old, new): (&Arc<Pool>, &Arc<Pool>)| {
            Arc::ptr_eq(old, new) || old.config.name == new.config.name
        };
        old.pools.len() == pools.len() && old.pools.iter().zip(pools).all(names_itself)
    };
    let anew = || pools.iter().enumerate().map(|(index, pool)| (pool.config.name.clone(), index)).collect();
    previous.filter(is_same).map_or_else(|| Arc::new(anew()), |same| same.places.clone())
}

/// The same in every generation, so that a reload keeps the connections; another one when they would not be
/// made in the same way now. SHA-256, because two pools with one key would share what they trust.
fn key_of(pool: &PoolConfig) -> u64 {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    let mut add = |part: &[u8]| {
        context.update(&part.len().to_be_bytes());
        context.update(part);
    };
    add(pool.name.as_bytes());
    add(pool.protocol.word().as_bytes());
    if let Some(tls) = &pool.tls {
        add(&[u8::from(tls.verify)]);
        add(tls.server_name.as_deref().unwrap_or_default().as_bytes());
        let (ca, client) = (tls.ca.as_ref(), tls.client.as_ref());
        ca.into_iter().flat_map(|ca| &ca.ders).for_each(|der| add(der));
        // A mark between those who are trusted and those who speak for us.
        add(&[]);
        client.into_iter().flat_map(|client| &client.chain.ders).for_each(|der| add(der));
        if let Some(client) = client {
            add(client.key.secret_der());
        }
    }
    let hash = context.finish();
    hash.as_ref().iter().take(8).fold(0, |key, &byte| key << 8 | u64::from(byte))
}

impl Tier {
    fn build(
        config: &PoolConfig,
        upstreams: &[Upstream],
        range: std::ops::Range<usize>,
        before: Option<&Self>,
        random: u64,
    ) -> Self {
        let members = upstreams.get(range.clone()).unwrap_or_default();
        let weights: Vec<u16> = members.iter().map(|upstream| upstream.config.weight).collect();
        let strategy = lay_out(config.strategy, &weights, members, random);
        if let Some(before) = before {
            strategy.carry_over(&before.strategy);
        }
        Self { range, weights, strategy }
    }
}
