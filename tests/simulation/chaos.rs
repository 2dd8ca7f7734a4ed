//! Everything at once: servers flap, slow down, fail fast, join cold, vanish, and pools are reloaded, while
//! every pick, every answer and every tick is checked (see `world`).

use std::rc::Rc;
use std::time::Duration;

use evener::balance::StrategyKind;

use crate::seed;
use crate::server::{Failing, Plan, Seconds, exponential};
use crate::upstream::{Member, Upstream};
use crate::world::{Scenario, Work, World, clock};

#[test]
fn nothing_breaks_in_chaos() {
    let first = seed();
    for seed in (0..20).map(|step| first.wrapping_add(step)) {
        for kind in StrategyKind::ALL {
            println!("seed {seed}, {}", kind.name());
            live_through(seed, kind);
        }
    }
}

/// The same seed gives the same world, to the last answer; or else a printed seed would be worth nothing.
#[test]
fn a_seed_tells_the_whole_story() {
    for kind in StrategyKind::ALL {
        let [one, other] = [(); 2].map(|()| live_through(seed(), kind));
        assert_eq!(one, other);
    }
}

/// Runs one world to its end; returns when and by whom each request was answered.
fn live_through(seed: u64, kind: StrategyKind) -> Vec<(u64, usize)> {
    let mut random = fastrand::Rng::with_seed(seed);
    let scenario = disorder(&mut random);
    let (rate, seconds) = (scenario.rate, scenario.seconds);
    let mut world = World::new(scenario, kind, seed);
    let (mut arrival, mut mischief) = (0.0, 0.0);
    while arrival < seconds {
        arrival += exponential(&mut random, 1.0 / rate);
        while mischief < arrival {
            world.advance(mischief);
            disturb(&mut world, &mut random);
            mischief += exponential(&mut random, 0.1);
        }
        world.advance(arrival);
        let proxy = random.usize(..world.proxies.len());
        world.arrive(proxy, exponential(&mut random, 0.01), random.u64(..50));
    }
    world.finish();
    assert!(world.seen.len() > 400, "only {} requests", world.seen.len());
    world.seen.iter().map(|seen| (seen.latency.to_bits(), seen.server)).collect()
}

fn disorder(random: &mut fastrand::Rng) -> Scenario {
    let count = [1, 2, 5, 12, 40, 100][random.usize(..6)];
    let servers = (0..count).map(|_| misfortune(random)).collect();
    Scenario {
        rate: 100.0 * f64::from(random.u32(1..20)),
        seconds: 6.0,
        proxies: random.usize(1..4),
        work: Work::Exponential(0.01),
        timeout: 0.5,
        slow_start: Duration::from_secs(random.u64(..4)),
        attempts: random.usize(1..5),
        ..Scenario::of(servers)
    }
}

/// The life of a server that may flap, slow down, stop, fail, or join late.
fn misfortune(random: &mut fastrand::Rng) -> Plan {
    let joins = if random.f64() < 0.2 { 5.0 * random.f64() } else { 0.0 };
    let failures = (0..random.usize(..3)).map(|_| failing(random)).collect();
    let weight = if random.u32(..100) == 0 { u16::MAX } else { [0, 1, 1, 1, 3, 100][random.usize(..6)] };
    let mut plan = Plan { failures, joins, weight, ..Plan::usual(random.usize(1..8)) };
    let mut at = 0.0;
    for _ in 0..random.usize(..6) {
        at += 2.0 * random.f64() + 1e-3;
        plan.speeds.push((at, [0.0, 0.01, 0.2, 1.0, 5.0][random.usize(..5)]));
    }
    plan
}

fn failing(random: &mut fastrand::Rng) -> Failing {
    let from: Seconds = 5.0 * random.f64();
    Failing { from, until: from + 2.0 * random.f64(), probability: random.f64() * 1.5, latency: 0.001 }
}

/// A health check changes its mind, or a reload shuffles, drops, adds or reweighs upstreams.
fn disturb(world: &mut World, random: &mut fastrand::Rng) {
    let proxy = random.usize(..world.proxies.len());
    let mut pool = world.proxies[proxy].pool.clone();
    match random.u32(..6) {
        0..=2 => return flap(&pool, random),
        3 => random.shuffle(&mut pool),
        4 => drop(pool.pop()),
        _ => pool.push(newcomer(world, proxy, random)),
    }
    world.rebuild(proxy, pool);
}

fn flap(pool: &[Member], random: &mut fastrand::Rng) {
    for member in pool {
        if random.f64() < 0.3 {
            member.0.down.set(random.bool());
        }
    }
}

/// Somebody known comes back with what is known of it, or somebody new comes.
fn newcomer(world: &mut World, proxy: usize, random: &mut fastrand::Rng) -> Member {
    let now = clock(world.now);
    let server = random.usize(..world.scenario.servers.len());
    let proxy = &mut world.proxies[proxy];
    let absent = |known: &&Rc<Upstream>| {
        known.server == server && !proxy.pool.iter().any(|member| Rc::ptr_eq(&member.0, known))
    };
    if let Some(known) = proxy.known.iter().find(absent) {
        return Member(Rc::clone(known));
    }
    let upstream = Rc::new(Upstream::new(server, random.u16(..10), now));
    upstream.load.warm_up(now);
    proxy.known.push(Rc::clone(&upstream));
    Member(upstream)
}
