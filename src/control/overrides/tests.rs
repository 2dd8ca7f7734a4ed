#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::config::{NewUpstream, PoolEdit, UpstreamAddress, edit};
use crate::control::prepare::parse;
use crate::observe::ChangeOrigin;

const LISTENER: &str = "[listeners.http]\naddress = \"127.0.0.1:8080\"\n";

fn author() -> Author {
    Author { origin: ChangeOrigin::Admin, who: "ops".to_owned(), why: None }
}

/// A configuration whose pool `app` has these lines.
fn file(lines: &str) -> Config {
    parse(Path::new("evener.toml"), &format!("{LISTENER}[pools.app]\n{lines}\n")).expect("valid").0
}

/// The same, with these upstreams: `9001`, or `9001*3` for a weight.
fn members(names: &[&str]) -> Config {
    file(&format!(
        "upstreams = [{}]",
        names.iter().map(|name| upstream_in_toml(name)).collect::<Vec<_>>().join(", ")
    ))
}

fn upstream_in_toml(name: &str) -> String {
    let (port, weight) = name.split_once('*').unwrap_or((name, "1"));
    format!("{{ address = \"127.0.0.1:{port}\", weight = {weight} }}")
}

fn at(port: u16) -> UpstreamAddress {
    resolved_address(&format!("127.0.0.1:{port}")).unwrap()
}

fn new(port: u16) -> NewUpstream {
    NewUpstream { address: format!("127.0.0.1:{port}"), ..NewUpstream::default() }
}

/// What is overridden when an operator makes these edits of the pool `app`.
fn after(base: &Config, edits: &[PoolEdit]) -> Vec<Override> {
    let edited = edit(&base.pools[0], edits, &base.listeners).expect("possible");
    difference(&base.pools[0], &edited, &[], &author())
}

fn named(overrides: &[Override]) -> Vec<String> {
    let name = |one: &Override| {
        let of = one.upstream.as_deref().map(|address| address.replace("127.0.0.1:", "")).unwrap_or_default();
        format!("{of} {} {}", one.setting.word(), one.value).trim_start().to_owned()
    };
    overrides.iter().map(name).collect()
}

fn reasons(dropped: &[Dropped]) -> Vec<String> {
    dropped.iter().map(|one| format!("{}: {}", one.setting, one.why)).collect()
}

/// `port*weight state`, in the pool's order.
fn shown(config: &Config) -> Vec<String> {
    let one = |upstream: &UpstreamConfig| {
        let address = upstream.address.to_string().replace("127.0.0.1:", "");
        format!("{address}*{} {}", upstream.weight, upstream.mode.word())
    };
    config.pools[0].upstreams.iter().map(one).collect()
}

#[test]
fn an_unchanged_file_keeps_every_override() {
    let base = members(&["9001", "9002", "9003"]);
    let edits = [
        PoolEdit::Weight(at(9001), 5),
        PoolEdit::Mode(at(9002), Mode::Drain),
        PoolEdit::Remove(at(9003)),
        PoolEdit::Add(vec![new(9004)]),
        PoolEdit::Mode(at(9004), Mode::Maintenance),
        PoolEdit::Strategy { kind: StrategyKind::ConsistentHash, hash: Some(HashKey::Path) },
    ];
    let overrides = after(&base, &edits);
    assert_eq!(
        named(&overrides),
        [
            "strategy {\"hash\":{\"path\":true},\"strategy\":\"consistent_hash\"}",
            "9001 weight 5",
            "9002 state \"drain\"",
            "9003 removed true",
            "9004 added {\"weight\":1}",
            "9004 state \"maintenance\"",
        ]
    );
    let (running, held, dropped) = reconcile(&base, &overrides);
    assert_eq!((held, dropped), (overrides, Vec::new()));
    assert_eq!(shown(&running), ["9001*5 ready", "9002*1 drain", "9004*1 maintenance"]);
    assert_eq!(running.pools[0].strategy, StrategyKind::ConsistentHash);
}

#[test]
fn a_changed_value_in_the_file_ends_the_override_and_no_other() {
    let overrides =
        after(&members(&["9001", "9002"]), &[PoolEdit::Weight(at(9001), 5), PoolEdit::Weight(at(9002), 6)]);
    let (running, held, dropped) = reconcile(&members(&["9001*3", "9002"]), &overrides);
    assert_eq!(shown(&running), ["9001*3 ready", "9002*6 ready"]);
    assert_eq!(named(&held), ["9002 weight 6"]);
    assert_eq!(reasons(&dropped), ["weight: the file was changed, and says 3 now"]);
    assert_eq!(
        dropped[0].to_string(),
        "pool `app`, upstream 127.0.0.1:9001: `weight` 5: the file was changed, and says 3 now"
    );
}

#[test]
fn a_file_that_says_the_same_ends_the_override_too() {
    let overrides =
        after(&members(&["9001"]), &[PoolEdit::Weight(at(9001), 5), PoolEdit::Add(vec![new(9002)])]);
    let (running, held, dropped) = reconcile(&members(&["9001*5", "9002"]), &overrides);
    assert_eq!(shown(&running), ["9001*5 ready", "9002*1 ready"]);
    assert_eq!(held, []);
    assert_eq!(
        reasons(&dropped),
        ["weight: the file says the same now", "added: the file says the same now"]
    );

    let overrides = after(&members(&["9001", "9002"]), &[PoolEdit::Remove(at(9002))]);
    let (running, _, dropped) = reconcile(&members(&["9001"]), &overrides);
    assert_eq!(shown(&running), ["9001*1 ready"]);
    assert_eq!(reasons(&dropped), ["removed: the file says the same now"]);
}

#[test]
fn overrides_go_with_their_pool_and_with_their_upstream() {
    let base = members(&["9001", "9002"]);
    let overrides = after(&base, &[PoolEdit::Weight(at(9002), 5), PoolEdit::Mode(at(9002), Mode::Drain)]);
    let (_, held, dropped) = reconcile(&members(&["9001"]), &overrides);
    assert_eq!(held, []);
    let gone = "the file was changed, and does not have it any more";
    assert_eq!(reasons(&dropped), [format!("state: {gone}"), format!("weight: {gone}")]);

    let text = format!("{LISTENER}[pools.other]\nupstreams = [\"127.0.0.1:9001\"]\n");
    let renamed = parse(Path::new("evener.toml"), &text).unwrap().0;
    let (running, held, dropped) = reconcile(&renamed, &overrides);
    assert_eq!((running, held), (renamed, Vec::new()));
    assert_eq!(
        reasons(&dropped),
        ["state: the file has no such pool any more", "weight: the file has no such pool any more"]
    );
}

/// The file speaks of it again, so the file wins, as with every other value.
#[test]
fn a_removed_upstream_comes_back_when_the_file_says_something_new_of_it() {
    let overrides = after(&members(&["9001", "9002"]), &[PoolEdit::Remove(at(9002))]);
    let (running, held, dropped) = reconcile(&members(&["9001*7", "9002"]), &overrides);
    assert_eq!((shown(&running), held.len(), dropped.len()), (vec!["9001*7 ready".to_owned()], 1, 0));
    let (running, held, dropped) = reconcile(&members(&["9001", "9002*2"]), &overrides);
    assert_eq!(
        (shown(&running), held.len()),
        (vec!["9001*1 ready".to_owned(), "9002*2 ready".to_owned()], 0)
    );
    assert_eq!(reasons(&dropped), ["removed: the file was changed, and says {\"weight\":2} now"]);
}

#[test]
fn of_several_overrides_of_one_upstream_one_can_end_alone() {
    let edits = [PoolEdit::Weight(at(9001), 5), PoolEdit::Mode(at(9001), Mode::Drain)];
    let overrides = after(&members(&["9001", "9002"]), &edits);
    let (running, held, dropped) = reconcile(&members(&["9001*2", "9002"]), &overrides);
    assert_eq!(shown(&running), ["9001*2 drain", "9002*1 ready"]);
    assert_eq!((named(&held), dropped.len()), (vec!["9001 state \"drain\"".to_owned()], 1));
}

/// A file cannot say a state. So when the operator writes an upstream into it that was added and drained
/// at run time, it does not get traffic for that.
#[test]
fn an_upstream_that_the_file_takes_over_stays_drained() {
    let base = members(&["9001"]);
    let overrides = after(&base, &[PoolEdit::Add(vec![new(9002)]), PoolEdit::Mode(at(9002), Mode::Drain)]);
    for (now, why) in [("9002", "says the same now"), ("9002*3", "says {\"weight\":3} now")] {
        let next = members(&["9001", now]);
        let (running, held, dropped) = reconcile(&next, &overrides);
        assert!(shown(&running)[1].ends_with("drain"), "{:?}", shown(&running));
        assert_eq!(named(&held), ["9002 state \"drain\""]);
        assert!(dropped.len() == 1 && dropped[0].why.ends_with(why), "{dropped:?}");
        // And then it is as if it had been drained under this file.
        assert_eq!(held[0].file, Some("ready".into()));
        assert_eq!(reconcile(&next, &held), (running, held, Vec::new()));
    }
}

#[test]
fn an_addition_that_the_new_file_makes_a_circle_ends_alone() {
    let base = members(&["9001"]);
    let edits = [
        PoolEdit::Add(vec![new(9002)]),
        PoolEdit::Mode(at(9002), Mode::Drain),
        PoolEdit::Weight(at(9001), 4),
    ];
    let overrides = after(&base, &edits);
    let text = format!(
        "{LISTENER}[listeners.more]\naddress = \"127.0.0.1:9002\"\n[pools.app]\nupstreams = [\"127.0.0.1:9001\"]\n"
    );
    let next = parse(Path::new("evener.toml"), &text).unwrap().0;
    let (running, held, dropped) = reconcile(&next, &overrides);
    assert_eq!(shown(&running), ["9001*4 ready"]);
    assert_eq!(named(&held), ["9001 weight 4"]);
    assert_eq!(dropped.len(), 2);
    assert!(dropped[0].why.contains("listener `more`"), "{dropped:?}");
    assert_eq!(dropped[1].why, "the pool has no such upstream any more");
}

/// Each is possible by itself, all together are not: the file then decides who is in the pool, and what an
/// operator wants of its upstreams still holds.
#[test]
fn a_combination_that_is_impossible_with_the_new_file_leaves_the_file_s_members() {
    let backup = "{ address = \"127.0.0.1:9002\", backup = true }";
    let base = file(&format!("upstreams = [\"127.0.0.1:9001\", \"127.0.0.1:9003\", {backup}]"));
    let overrides = after(&base, &[PoolEdit::Remove(at(9001)), PoolEdit::Mode(at(9002), Mode::Maintenance)]);
    let next = file(&format!("upstreams = [\"127.0.0.1:9001\", {backup}]"));
    let (running, held, dropped) = reconcile(&next, &overrides);
    assert_eq!(shown(&running), ["9001*1 ready", "9002*1 maintenance"]);
    assert_eq!(named(&held), ["9002 state \"maintenance\""]);
    assert_eq!(
        reasons(&dropped),
        ["removed: with the new file, every upstream of the pool would be a backup"]
    );
}

#[test]
fn who_made_a_change_is_remembered_until_somebody_changes_it_again() {
    let base = members(&["9001", "9002"]);
    let first = after(&base, &[PoolEdit::Weight(at(9001), 5)]);
    let later = Author { who: "somebody else".to_owned(), ..author() };
    let (running, ..) = reconcile(&base, &first);
    let edited = edit(&running.pools[0], &[PoolEdit::Weight(at(9002), 2)], &base.listeners).unwrap();
    let both = difference(&base.pools[0], &edited, &first, &later);
    assert_eq!(both.iter().map(|one| one.by.as_str()).collect::<Vec<_>>(), ["ops", "somebody else"]);
    assert_eq!(both[0].at, first[0].at);
    let back = edit(&edited, &[PoolEdit::Weight(at(9001), 1)], &base.listeners).unwrap();
    assert_eq!(named(&difference(&base.pools[0], &back, &both, &later)), ["9002 weight 2"]);
}

#[test]
fn what_means_nothing_is_refused() {
    let good = Override {
        pool: "app".to_owned(),
        upstream: Some("127.0.0.1:9001".to_owned()),
        setting: Setting::Weight,
        value: 5.into(),
        file: Some(1.into()),
        by: "ops".to_owned(),
        at: String::new(),
    };
    assert_eq!(checked(vec![good.clone()]).as_deref(), Ok(&[good.clone()][..]));
    assert!(checked(vec![good.clone(), good.clone()]).unwrap_err().contains("`weight` is there twice"));
    let strategy = json!({ "strategy": "round_robin" });
    for (upstream, setting, value) in [
        (None, Setting::Weight, json!(5)),
        (None, Setting::Strategy, json!("round_robin")),
        (None, Setting::Strategy, json!({ "strategy": "consistent_hash" })),
        (None, Setting::Strategy, json!({ "strategy": "round_robin", "hash": { "path": true } })),
        (None, Setting::Strategy, json!({ "strategy": "round_robin", "more": 1 })),
        (Some("127.0.0.1:9001"), Setting::Strategy, strategy),
        (Some("127.0.0.1:9001"), Setting::Weight, json!(1001)),
        (Some("127.0.0.1:9001"), Setting::Weight, json!(-1)),
        (Some("127.0.0.1:9001"), Setting::Weight, json!("5")),
        (Some("127.0.0.1:9001"), Setting::MaxConnections, json!(5_000_000_000_u64)),
        (Some("127.0.0.1:9001"), Setting::Backup, json!(1)),
        (Some("127.0.0.1:9001"), Setting::State, json!("drained")),
        (Some("127.0.0.1:9001"), Setting::Removed, json!(false)),
        (Some("127.0.0.1:9001"), Setting::Added, json!({ "wieght": 1 })),
        (Some("localhost:9001"), Setting::Weight, json!(5)),
        (Some("[0:0::1]:9001"), Setting::Weight, json!(5)),
    ] {
        let upstream = upstream.map(str::to_owned);
        let wrong = Override { upstream, setting, value, ..good.clone() };
        assert!(checked(vec![wrong.clone()]).is_err(), "{wrong:?}");
    }
}

/// One upstream of a property test: port, weight, limit, backup, mode.
type Member = (u16, u16, Option<u32>, bool, usize);

fn pools() -> impl proptest::strategy::Strategy<Value = PoolConfig> {
    let member =
        (9_000_u16..9_012, 0_u16..4, prop::option::of(1_u32..3), prop::bool::weighted(0.2), 0_usize..3);
    (prop::collection::vec(member, 0..10), 0_usize..8)
        .prop_map(|(members, strategy)| pool_of(&members, strategy))
}

fn pool_of(members: &[Member], strategy: usize) -> PoolConfig {
    let mut pool = (*file("upstreams = []").pools[0]).clone();
    for &(port, weight, max_connections, backup, mode) in members {
        let upstream = UpstreamConfig {
            weight,
            max_connections,
            backup,
            mode: Mode::ALL[mode],
            ..UpstreamConfig::at(at(port))
        };
        if pool.upstreams.iter().all(|other| other.address != upstream.address) {
            pool.upstreams.push(upstream);
        }
    }
    if let Some(first) = pool.upstreams.first_mut() {
        first.backup = false;
    }
    let keys = [
        HashKey::ClientIp,
        HashKey::Path,
        HashKey::Header("x-user".parse().unwrap()),
        HashKey::Cookie("Sid".to_owned()),
    ];
    (pool.strategy, pool.hash) = match StrategyKind::ALL.get(strategy) {
        Some(kind) if *kind != StrategyKind::ConsistentHash => (*kind, None),
        _ => (StrategyKind::ConsistentHash, Some(keys[strategy % 4].clone())),
    };
    pool
}

/// As a file would say it: without what an operator wants.
fn as_a_file_says(mut pool: PoolConfig) -> Config {
    pool.upstreams.iter_mut().for_each(|upstream| upstream.mode = Mode::Ready);
    let mut config = file("upstreams = []");
    config.pools = vec![std::sync::Arc::new(pool)];
    config
}

fn in_order(pool: &PoolConfig) -> PoolConfig {
    let mut pool = pool.clone();
    pool.upstreams.sort_by(|one, other| one.address.cmp(&other.address));
    pool
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn what_was_changed_comes_back_whole(base in pools(), edited in pools()) {
        let base = as_a_file_says(base);
        let overrides = difference(&base.pools[0], &edited, &[], &author());
        let (running, held, dropped) = reconcile(&base, &overrides);
        prop_assert_eq!(in_order(&running.pools[0]), in_order(&edited));
        prop_assert_eq!(&held, &overrides);
        prop_assert!(dropped.is_empty());
        prop_assert_eq!(checked(overrides.clone()), Ok(overrides.clone()), "a start accepts what we write");
        // Nothing is left of it when the file says all of that, but for what a file cannot say.
        let (_, held, _) = reconcile(&as_a_file_says(edited.clone()), &overrides);
        prop_assert!(held.iter().all(|one| one.setting == Setting::State), "{held:?}");
    }

    /// Whatever the file becomes: the outcome is a possible pool, every override either holds or is named,
    /// those that hold do so, and a second look changes nothing.
    #[test]
    fn every_override_holds_or_is_named(base in pools(), edited in pools(), next in pools()) {
        let (base, next) = (as_a_file_says(base), as_a_file_says(next));
        let overrides = difference(&base.pools[0], &edited, &[], &author());
        let (running, held, dropped) = reconcile(&next, &overrides);
        prop_assert!(check_members(&running.pools[0], &next.listeners).is_ok());
        prop_assert_eq!(held.len() + dropped.len(), overrides.len());
        prop_assert_eq!(named(&difference(&next.pools[0], &running.pools[0], &held, &author())), named(&held));
        let again = reconcile(&next, &held);
        prop_assert_eq!(&again.0, &running);
        prop_assert_eq!(again.1, held);
        prop_assert!(again.2.is_empty());
    }
}
