//! Every key that can change shows up where two configurations differ, and no secret does.

use std::collections::BTreeSet;

use toml::{Table, Value};

use super::{REFERENCE, checked, valid};
use crate::config::{Config, Description, Setting, differences};

/// A key as the checks ask for it, where it stands in the reference, another value, and the difference
/// that is to show up.
const CHANGES: &[(&str, &str, &str, &str)] = &[
    ("server.threads", "server.threads", "7", "server.threads"),
    ("server.drain_timeout", "server.drain_timeout", "'1m'", "server.drain_timeout"),
    ("server.pre_stop_delay", "server.pre_stop_delay", "'1s'", "server.pre_stop_delay"),
    ("server.state_file", "server.state_file", "'other.state'", "server.state_file"),
    ("admin.address", "admin.address", "'127.0.0.1:9901'", "admin.address"),
    ("log.level", "log.level", "'debug'", "log.level"),
    ("log.format", "log.format", "'json'", "log.format"),
    ("log.access", "log.access", "'stdout'", "log.access"),
    ("log.access_filter.sample", "log.access_filter.sample", "0.5", "log.access_filter.sample"),
    ("log.access_filter.errors", "log.access_filter.errors", "false", "log.access_filter.errors"),
    (
        "log.access_filter.slower_than",
        "log.access_filter.slower_than",
        "'2s'",
        "log.access_filter.slower_than",
    ),
    ("tracing.endpoint", "tracing.endpoint", "'http://127.0.0.1:4319'", "tracing.endpoint"),
    ("tracing.sample", "tracing.sample", "0.5", "tracing.sample"),
    ("tracing.service_name", "tracing.service_name", "'edge'", "tracing.service_name"),
    ("routes.*.server_timing", "routes.users.server_timing", "true", "users.server_timing"),
    ("routes.*.response_time", "routes.users.response_time", "true", "users.response_time"),
    ("routes.*.proxy_status", "routes.users.proxy_status", "true", "users.proxy_status"),
    ("listeners.*.address", "listeners.http.address", "'0.0.0.0:8081'", "http.address"),
    ("listeners.*.trusted_proxies", "listeners.http.trusted_proxies", "[]", "http.trusted_proxies"),
    ("listeners.*.header_timeout", "listeners.http.header_timeout", "'1s'", "http.header_timeout"),
    ("listeners.*.keepalive_timeout", "listeners.http.keepalive_timeout", "'1s'", "http.keepalive_timeout"),
    ("listeners.*.max_connections", "listeners.http.max_connections", "9", "http.max_connections"),
    ("listeners.*.max_header_size", "listeners.http.max_header_size", "'32KiB'", "http.max_header_size"),
    ("listeners.*.max_body_size", "listeners.http.max_body_size", "'1MiB'", "http.max_body_size"),
    ("listeners.*.http2_cleartext", "listeners.http.http2_cleartext", "true", "http.http2_cleartext"),
    ("listeners.*.http2.max_streams", "listeners.http.http2.max_streams", "9", "http.http2.max_streams"),
    (
        "listeners.*.http2.ping_interval",
        "listeners.http.http2.ping_interval",
        "'9s'",
        "http.http2.ping_interval",
    ),
    ("listeners.*.proxy_protocol", "listeners.http.proxy_protocol", "true", "http.proxy_protocol"),
    ("routes.*.hosts", "routes.users.hosts", "['api.example.com']", "users.hosts"),
    ("routes.*.path_prefix", "routes.users.path_prefix", "'/v2'", "users.path_prefix"),
    ("routes.*.methods", "routes.users.methods", "['GET']", "users.methods"),
    ("routes.*.headers", "routes.users.headers", "{}", "users.headers.x-canary"),
    ("routes.*.headers.*", "routes.users.headers.x-canary", "'2'", "users.headers.x-canary"),
    ("routes.*.pool", "routes.users.pool", "'canary'", "users.pool"),
    ("routes.*.timeout", "routes.users.timeout", "'5s'", "users.timeout"),
    ("routes.*.redirect_https", "routes.everything.redirect_https", "true", "everything.redirect_https"),
    ("routes.*.redirect_https_port", "routes.users.redirect_https_port", "8443", "users.redirect_https_port"),
    ("routes.*.strip_prefix", "routes.users.strip_prefix", "true", "users.strip_prefix"),
    (
        "routes.*.request_headers.set",
        "routes.users.request_headers.set",
        "{}",
        "users.request_headers.set.x-served-by",
    ),
    (
        "routes.*.request_headers.set.*",
        "routes.users.request_headers.set.x-served-by",
        "'me'",
        "users.request_headers.set.x-served-by",
    ),
    (
        "routes.*.request_headers.remove",
        "routes.users.request_headers.remove",
        "[]",
        "users.request_headers.remove",
    ),
    (
        "routes.*.response_headers.set",
        "routes.users.response_headers.set",
        "{}",
        "users.response_headers.set.x-frame-options",
    ),
    (
        "routes.*.response_headers.set.*",
        "routes.users.response_headers.set.x-frame-options",
        "'SAMEORIGIN'",
        "users.response_headers.set.x-frame-options",
    ),
    (
        "routes.*.response_headers.remove",
        "routes.users.response_headers.remove",
        "[]",
        "users.response_headers.remove",
    ),
    ("routes.*.retry.max_retries", "routes.users.retry.max_retries", "0", "users.retry.max_retries"),
    ("routes.*.retry.on", "routes.users.retry.on", "['timeout']", "users.retry.on"),
    ("routes.*.retry.budget", "routes.users.retry.budget", "0.5", "users.retry.budget"),
    ("routes.*.split", "routes.everything.split", "[{ pool = 'canary', weight = 2 }]", "everything.split"),
    (
        "routes.*.split.pool",
        "routes.everything.split",
        "[{ pool = 'canary', weight = 95 }, { pool = 'app', weight = 5 }]",
        "everything.split",
    ),
    ("routes.*.split.weight", "routes.everything.split.0.weight", "94", "everything.split"),
    ("pools.*.strategy", "pools.app.strategy", "'random_two'", "app.strategy"),
    ("pools.*.upstreams.weight", "pools.app.upstreams.1.weight", "4", "app.10.0.1.11:8080.weight"),
    (
        "pools.*.upstreams.max_connections",
        "pools.app.upstreams.1.max_connections",
        "9",
        "app.10.0.1.11:8080.max_connections",
    ),
    ("pools.*.upstreams.backup", "pools.app.upstreams.3.backup", "false", "app.10.0.1.12:8080.backup"),
    ("pools.*.timeouts.connect", "pools.app.timeouts.connect", "'2s'", "app.timeouts.connect"),
    ("pools.*.timeouts.read", "pools.app.timeouts.read", "'2s'", "app.timeouts.read"),
    ("pools.*.timeouts.write", "pools.app.timeouts.write", "'2s'", "app.timeouts.write"),
    ("pools.*.timeouts.tunnel", "pools.app.timeouts.tunnel", "'2s'", "app.timeouts.tunnel"),
    ("pools.*.keepalive.idle", "pools.app.keepalive.idle", "'2s'", "app.keepalive.idle"),
    ("pools.*.keepalive.max_idle", "pools.app.keepalive.max_idle", "0", "app.keepalive.max_idle"),
    ("pools.*.slow_start", "pools.app.slow_start", "'2s'", "app.slow_start"),
    ("pools.*.ejection.enabled", "pools.app.ejection.enabled", "false", "app.ejection.enabled"),
    (
        "pools.*.ejection.consecutive_failures",
        "pools.app.ejection.consecutive_failures",
        "4",
        "app.ejection.consecutive_failures",
    ),
    (
        "pools.*.ejection.base_duration",
        "pools.app.ejection.base_duration",
        "'1s'",
        "app.ejection.base_duration",
    ),
    ("pools.*.ejection.max_ejected", "pools.app.ejection.max_ejected", "0.4", "app.ejection.max_ejected"),
    ("pools.*.queue.max", "pools.app.queue.max", "1", "app.queue.max"),
    ("pools.*.queue.timeout", "pools.app.queue.timeout", "'2s'", "app.queue.timeout"),
    ("pools.*.health_check.enabled", "pools.app.health_check.enabled", "false", "app.health_check.enabled"),
    ("pools.*.health_check.path", "pools.app.health_check.path", "'/ready'", "app.health_check.path"),
    (
        "pools.*.health_check.interval",
        "pools.app.health_check.interval",
        "'20s'",
        "app.health_check.interval",
    ),
    (
        "pools.*.health_check.fast_interval",
        "pools.app.health_check.fast_interval",
        "'1s'",
        "app.health_check.fast_interval",
    ),
    ("pools.*.health_check.timeout", "pools.app.health_check.timeout", "'1s'", "app.health_check.timeout"),
    ("pools.*.health_check.rise", "pools.app.health_check.rise", "1", "app.health_check.rise"),
    ("pools.*.health_check.fall", "pools.app.health_check.fall", "1", "app.health_check.fall"),
    ("pools.*.health_check.status", "pools.app.health_check.status", "[204]", "app.health_check.status"),
    ("pools.*.health_check.host", "pools.app.health_check.host", "'other'", "app.health_check.host"),
    (
        "pools.*.health_check.headers",
        "pools.app.health_check.headers",
        "{}",
        "app.health_check.headers.user-agent",
    ),
    (
        "pools.*.health_check.headers.*",
        "pools.app.health_check.headers.user-agent",
        "'me'",
        "app.health_check.headers.user-agent",
    ),
    ("pools.*.protocol", "pools.app.protocol", "'http2'", "app.protocol"),
    ("pools.*.hash", "pools.canary.hash", "{ path = true }", "canary.hash"),
    ("pools.*.hash.header", "pools.canary.hash", "{ header = 'x-user' }", "canary.hash"),
    ("pools.*.hash.cookie", "pools.canary.hash", "{ cookie = 'session' }", "canary.hash"),
    ("pools.*.hash.path", "pools.canary.hash", "{ path = true }", "canary.hash"),
    ("pools.*.proxy_protocol", "pools.canary.proxy_protocol", "'v1'", "canary.proxy_protocol"),
];

/// What has no value of its own: tables, and names. Who a listener, route, pool or upstream is, is its
/// identity: another name or address is another one. `client_ip` is what the reference hashes.
const NO_SETTINGS: &[&str] = &[
    "listeners.*.http2",
    "server",
    "admin",
    "log",
    "log.access_filter",
    "tracing",
    "listeners",
    "listeners.*",
    "routes",
    "routes.*",
    "routes.*.request_headers",
    "routes.*.response_headers",
    "routes.*.retry",
    "pools",
    "pools.*",
    "pools.*.upstreams",
    "pools.*.upstreams.address",
    "pools.*.timeouts",
    "pools.*.keepalive",
    "pools.*.ejection",
    "pools.*.queue",
    "pools.*.health_check",
    "pools.*.hash.client_ip",
    // Another kind of probe, with other keys; see `upstream_tls.rs` for these and for `tls`.
    "pools.*.health_check.grpc",
    "pools.*.health_check.service",
    "pools.*.tls",
];

#[test]
fn every_key_of_the_reference_shows_up_when_it_changes() {
    let before = valid(REFERENCE);
    for (_, path, value, expected) in CHANGES {
        let keys: Vec<String> =
            all_differences(&before, &valid(&changed(path, value))).into_iter().map(|it| it.key).collect();
        assert_eq!(keys, [*expected], "{path} = {value}");
    }
}

#[test]
fn no_key_is_left_out_of_the_test_above() {
    let known: BTreeSet<&str> =
        CHANGES.iter().map(|change| change.0).chain(NO_SETTINGS.iter().copied()).collect();
    let asked = checked(REFERENCE).asked;
    let with_hash = checked(&changed("pools.canary.hash", "{ header = 'x' }")).asked;
    let unavailable = |key: &&String| ["listeners.*.tls", "tokens"].iter().any(|word| key.ends_with(word));
    let left: Vec<&String> =
        asked.union(&with_hash).filter(|key| !known.contains(key.as_str()) && !unavailable(key)).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn the_same_is_no_difference() {
    assert_eq!(all_differences(&valid(REFERENCE), &valid(REFERENCE)), []);
}

#[test]
fn values_are_spelled_as_in_a_file() {
    let setting = |path: &str, value: &str| {
        let mut found = all_differences(&valid(REFERENCE), &valid(&changed(path, value)));
        let Setting { from, to, .. } = found.remove(0);
        (from.to_string(), to.to_string())
    };
    let pair = |from: &str, to: &str| (from.to_owned(), to.to_owned());
    assert_eq!(setting("pools.app.timeouts.read", "'90s'"), pair("\"1m\"", "\"1m30s\""));
    assert_eq!(setting("listeners.http.max_header_size", "'1MiB'"), pair("\"64KiB\"", "\"1MiB\""));
    assert_eq!(setting("routes.users.retry.budget", "0.7"), pair("0.2", "0.7"));
    assert_eq!(
        setting("routes.everything.split.0.weight", "50"),
        pair(
            r#"[{"pool":"app","weight":95},{"pool":"canary","weight":5}]"#,
            r#"[{"pool":"app","weight":50},{"pool":"canary","weight":5}]"#
        )
    );
    assert_eq!(
        setting("pools.canary.hash", "{ path = true }"),
        pair(r#"{"client_ip":true}"#, r#"{"path":true}"#)
    );
}

#[test]
fn turning_something_off_is_one_difference() {
    let off = valid(&changed("pools.app.health_check.enabled", "false"));
    let on = valid(REFERENCE);
    assert_eq!(all_differences(&on, &off).len(), 1);
    assert!(all_differences(&off, &on).len() > 5, "what is turned on is told in full");
}

#[test]
fn secrets_are_compared_and_never_shown() {
    let with = |value: &str| valid(&changed("pools.app.health_check.headers", &format!("{{ {value} }}")));
    let secrets = [
        with("authorization = 'hunter2'"),
        with("authorization = 'hunter3'"),
        with("authorization = 'env:HEALTH_TOKEN'"),
    ];
    for (before, after) in [(0, 1), (1, 2), (2, 0)] {
        let found = all_differences(&secrets[before], &secrets[after]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].from.as_str(), found[0].to.as_str()), (Some("(secret)"), Some("(secret)")));
    }
    assert_eq!(all_differences(&secrets[2], &with("authorization = 'env:HEALTH_TOKEN'")), []);
    // A value that came from elsewhere is a secret whatever its header is called.
    let found = all_differences(&with("x-thing = 'env:HEALTH_TOKEN'"), &with("x-thing = 'plain'"));
    assert_eq!((found[0].from.as_str(), found[0].to.as_str()), (Some("(secret)"), Some("plain")));
    let debug: String = format!("{:?}", secrets.map(|config| Description::of_pool(&config.pools[0])));
    assert!(!debug.contains("hunter") && !debug.contains("s3cret"), "{debug}");
}

#[test]
fn a_name_that_would_be_misread_stands_in_quotes() {
    let after = valid(&changed("routes.users.headers", "{ 'x.y' = '1' }"));
    let keys: Vec<String> = all_differences(&valid(REFERENCE), &after).into_iter().map(|it| it.key).collect();
    assert_eq!(keys, ["users.headers.\"x.y\"", "users.headers.x-canary"]);
}

/// The reference with this value in place of another.
fn changed(path: &str, value: &str) -> String {
    let mut table: Table = REFERENCE.parse().unwrap();
    let value = format!("value = {value}").parse::<Table>().unwrap().remove("value").unwrap();
    let mut keys: Vec<&str> = path.split('.').collect();
    let last = keys.pop().unwrap();
    let mut place: &mut Value = table.get_mut(keys[0]).unwrap();
    for key in &keys[1..] {
        place = match place {
            Value::Array(elements) => &mut elements[key.parse::<usize>().unwrap()],
            table => table.get_mut(*key).unwrap(),
        };
    }
    place.as_table_mut().unwrap().insert(last.to_owned(), value);
    toml::to_string(&table).unwrap()
}

/// All differences of listeners, routes, pools and upstreams that are in both.
fn all_differences(before: &Config, after: &Config) -> Vec<Setting> {
    let mut all = differences(&Description::of_process(before), &Description::of_process(after));
    let mut add = |name: &str, one: &Description, other: &Description| {
        let named = |setting: Setting| Setting { key: format!("{name}.{}", setting.key), ..setting };
        all.extend(differences(one, other).into_iter().map(named));
    };
    for (one, other) in before.listeners.iter().zip(&after.listeners) {
        add(&one.name, &Description::of_listener(one), &Description::of_listener(other));
    }
    for one in &before.routes {
        let other = after.routes.iter().find(|other| other.name == one.name).unwrap();
        add(&one.name, &Description::of_route(one, before), &Description::of_route(other, after));
    }
    for one in &before.pools {
        let other = after.pools.iter().find(|other| other.name == one.name).unwrap();
        add(&one.name, &Description::of_pool(one), &Description::of_pool(other));
        for member in &one.upstreams {
            let same = other.upstreams.iter().find(|same| same.address == member.address).unwrap();
            let name = format!("{}.{}", one.name, member.address);
            add(&name, &Description::of_upstream(member), &Description::of_upstream(same));
        }
    }
    all
}
