//! Edits of a pool, as an operator makes them: nothing else changes, and as overrides they survive a restart.

use std::sync::{Arc, LazyLock};

use evener::balance::StrategyKind;
use evener::config::{
    Config, Description, HashKey, NewUpstream, PoolConfig, PoolEdit, Source, check_members, edit, parse,
    read_address,
};
use evener::control::Author;
use evener::fuzzing::control::{difference, reconcile, stored};
use evener::health::Mode;
use evener::observe::ChangeOrigin;

const TEXT: &str = r#"
    [listeners.http]
    address = "127.0.0.1:8080"
    [pools.app]
    strategy = "consistent_hash"
    hash = { header = "x-user" }
    timeouts = { read = "3s" }
    upstreams = ["127.0.0.1:9001", { address = "[::1]:9002", weight = 3, max_connections = 5 }, { address = "unix:/run/app.sock", backup = true }]
"#;

static FILE: LazyLock<Config> = LazyLock::new(|| {
    let source = Source { name: String::new(), text: TEXT.to_owned(), folder: ".".into() };
    parse(&source, &|_| None).unwrap()
});

/// Written into again and again, as one process would.
static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir_in(in_memory()).unwrap());

/// One edit per line: `strategy WORD [JSON]`, `weight ADDRESS N`, `state ADDRESS WORD`, `drain ADDRESS`,
/// `remove ADDRESS`, `add` or `replace` with `ADDRESS,weight,max,backup` for each upstream.
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let edits: Vec<PoolEdit> = text.lines().take(16).filter_map(parse_edit).collect();
    let (file, pool) = (&*FILE, &FILE.pools[0]);
    let Ok(edited) = edit(pool, &edits, &file.listeners) else { return };
    check_members(&edited, &file.listeners).expect("what is edited is possible");
    check_untouched(pool, &edited);
    let author = Author { origin: ChangeOrigin::Admin, who: "me".to_owned(), why: None };
    let overrides = difference(pool, &edited, &author);
    let stored = stored(FOLDER.path().join("evener.toml"), &overrides).expect("a place to write");
    assert_eq!(stored.as_ref(), Ok(&overrides), "on the disk and back");
    let (running, kept, dropped) = reconcile(file, &overrides);
    assert_eq!((kept, dropped.len()), (overrides, 0));
    check_same(&running.pools[0], &edited);
}

/// A change of members and strategy is no change of anything else.
fn check_untouched(before: &PoolConfig, after: &PoolConfig) {
    let described = |pool: &PoolConfig| {
        let pool = PoolConfig { strategy: StrategyKind::RoundRobin, hash: None, ..pool.clone() };
        Description::of_pool(&pool)
    };
    assert_eq!(described(before), described(after));
    assert_eq!(before.name, after.name);
}

/// The order of members says nothing about who they are.
fn check_same(one: &PoolConfig, other: &PoolConfig) {
    let sorted = |pool: &PoolConfig| {
        let mut pool = pool.clone();
        pool.upstreams.sort_by_key(|upstream| upstream.address.to_string());
        pool
    };
    assert_eq!(sorted(one), sorted(other));
}

fn parse_edit(line: &str) -> Option<PoolEdit> {
    let (verb, rest) = line.split_once(' ')?;
    let (first, second) = rest.split_once(' ').unwrap_or((rest, ""));
    let address = || read_address(first).ok();
    Some(match verb {
        "strategy" => {
            let kind = StrategyKind::ALL.into_iter().find(|kind| kind.name() == first)?;
            let hash = serde_json::from_str(second).ok();
            PoolEdit::Strategy { kind, hash: hash.and_then(|hash| HashKey::from_json(&hash)) }
        }
        "weight" => PoolEdit::Weight(address()?, second.parse().ok()?),
        "state" => PoolEdit::Mode(address()?, Mode::from_word(second)?),
        "drain" => PoolEdit::Drain(address()?),
        "remove" => PoolEdit::Remove(address()?),
        "add" => PoolEdit::Add(rest.split(' ').map(named).collect()),
        "replace" => PoolEdit::Replace(rest.split(' ').map(named).collect()),
        _ => return None,
    })
}

fn named(word: &str) -> NewUpstream {
    let mut parts = word.split(',');
    NewUpstream {
        address: parts.next().unwrap_or_default().to_owned(),
        weight: parts.next().and_then(|part| part.parse().ok()),
        max_connections: parts.next().and_then(|part| part.parse().ok()),
        backup: parts.next() == Some("backup"),
    }
}

/// A folder that costs no disk, where there is one.
pub fn in_memory() -> Arc<std::path::Path> {
    let memory = std::path::Path::new("/dev/shm");
    if memory.is_dir() { memory.into() } else { std::env::temp_dir().into() }
}
