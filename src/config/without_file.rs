//! A configuration from a few addresses: the start without a file.

use std::net::SocketAddr;
use std::sync::Arc;

use super::check::upstream;
use super::check::{by_system, listener, pool, route, shared};
use super::fields::Resolve;
use super::report::Wrong;
use super::{
    AdminConfig, Config, ListenerConfig, LogConfig, PoolConfig, ServerConfig, UpstreamConfig, defaults,
    limits, values,
};
use crate::balance::StrategyKind;

/// One listener `http`, one pool `default`, one route for everything: `evener run --listen … --to …`.
///
/// `to` accepts `host:port`, `http://host:port` and `unix:/path`.
///
/// # Errors
///
/// Says every wrong address and what would be right, one per line.
pub fn from_addresses(
    listen: SocketAddr,
    to: &[String],
    strategy: Option<StrategyKind>,
) -> Result<Config, String> {
    from_resolved_addresses(listen, to, strategy, &by_system())
}

/// The addresses in `LOAD_BALANCER_SERVERS`: `http://a:1,http://b:2`, blanks and empty parts ignored.
pub fn addresses_in(list: &str) -> Vec<String> {
    list.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

pub(super) fn from_resolved_addresses(
    listen: SocketAddr,
    to: &[String],
    strategy: Option<StrategyKind>,
    resolve: &Resolve<'_>,
) -> Result<Config, String> {
    let mut mistakes: Vec<String> = [wrong_listener(listen), wrong_strategy(strategy), wrong_number(to)]
        .into_iter()
        .flatten()
        .map(|wrong| one_line(&wrong))
        .collect();
    let mut upstreams: Vec<UpstreamConfig> = Vec::new();
    for text in to {
        match member(text, listen, &upstreams, resolve) {
            Ok(upstream) => upstreams.push(upstream),
            Err(wrong) => mistakes.push(one_line(&wrong)),
        }
    }
    if mistakes.is_empty() { Ok(config(listen, upstreams, strategy)) } else { Err(mistakes.join("\n")) }
}

fn config(listen: SocketAddr, upstreams: Vec<UpstreamConfig>, strategy: Option<StrategyKind>) -> Config {
    let mut pool = pool::with_defaults("default".to_owned(), upstreams);
    pool.strategy = strategy.unwrap_or(defaults::STRATEGY);
    Config {
        server: ServerConfig::default(),
        admin: AdminConfig::default(),
        log: LogConfig::default(),
        tracing: None,
        listeners: vec![ListenerConfig::at("http".to_owned(), listen)],
        routes: shared(vec![route::for_everything()]),
        pools: shared(vec![pool]),
    }
}

fn member(
    text: &str,
    listen: SocketAddr,
    others: &[UpstreamConfig],
    resolve: &Resolve<'_>,
) -> Result<UpstreamConfig, Wrong> {
    let bare = text.strip_prefix("http://").map_or(text, |rest| rest.strip_suffix('/').unwrap_or(rest));
    let address = upstream::address(bare, resolve)?;
    let told = |what: &str, help: &str| Err(Wrong::new(format!("{address} {what}"), "", help));
    if others.iter().any(|other| other.address == address) {
        return told("is named twice", "name each upstream once");
    }
    if upstream::is_circle(&address, listen) {
        return told("is the address to listen on", "name the server behind it; its port differs");
    }
    Ok(upstream::with_defaults(address))
}

fn wrong_listener(listen: SocketAddr) -> Option<Wrong> {
    let admin = defaults::ADMIN.address;
    if listener::overlap(listen, admin) {
        let message = format!("{listen} overlaps with the admin address {admin}");
        return Some(Wrong::new(message, "", "listen on another port, or move `admin.address` in a file"));
    }
    values::own_address(&listen.to_string()).err()
}

fn wrong_strategy(strategy: Option<StrategyKind>) -> Option<Wrong> {
    (strategy == Some(StrategyKind::ConsistentHash)).then(|| {
        let help = "write a file with strategy = \"consistent_hash\" and hash = { client_ip = true }";
        Wrong::new("`consistent_hash` needs to know what to hash", "", help)
    })
}

fn wrong_number(to: &[String]) -> Option<Wrong> {
    let most = limits::UPSTREAMS_PER_POOL_MAX;
    (to.is_empty() || to.len() > most).then(|| {
        let help = format!("name 1 to {most}: `--to 127.0.0.1:9001 --to 127.0.0.1:9002`");
        Wrong::new(format!("{} upstreams to forward to", to.len()), "", help)
    })
}

fn one_line(wrong: &Wrong) -> String {
    format!("error: {}\n  = help: {}", wrong.message, wrong.help)
}

/// What a file would say in place of [`from_addresses`]: for those who ask what runs, and want to keep it.
pub fn text_of_addresses(config: &Config) -> String {
    let listener = |listener: &ListenerConfig| {
        format!("[listeners.{}]\naddress = \"{}\"\n", listener.name, listener.address)
    };
    let pool = |pool: &Arc<PoolConfig>| {
        let upstreams: Vec<String> =
            pool.upstreams.iter().map(|upstream| format!("{:?}", upstream.address.to_string())).collect();
        let (name, strategy, upstreams) = (&pool.name, pool.strategy.name(), upstreams.join(", "));
        format!("[pools.{name}]\nstrategy = \"{strategy}\"\nupstreams = [{upstreams}]\n")
    };
    let heading = "# As given on the command line or in the environment; there is no file.\n".to_owned();
    let parts: Vec<String> = std::iter::once(heading)
        .chain(config.listeners.iter().map(listener))
        .chain(config.pools.iter().map(pool))
        .collect();
    parts.join("\n")
}
