//! The nearest word to one that we do not know: by meaning (what rivals call it), then by spelling.

/// Says which of `known` was probably meant, then lists them all under a heading: `Pools in this file`.
pub(super) fn did_you_mean(word: &str, known: &[&str], all_of_them: &str) -> String {
    let listed = listed(known);
    match nearest(word, known) {
        Some(near) => format!("did you mean `{near}`? {all_of_them}: {listed}"),
        None => format!("{all_of_them}: {listed}"),
    }
}

/// The word of `known` that `word` probably stands for.
pub(super) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let word = word.to_ascii_lowercase().replace(['-', ' '], "_");
    by_meaning(&word, known).or_else(|| by_spelling(&word, known))
}

fn by_meaning<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let (_, ours) = ELSEWHERE.iter().find(|(theirs, _)| theirs.contains(&word))?;
    ours.iter().find_map(|our| known.iter().find(|known| *known == our).copied())
}

fn by_spelling<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let word: String = word.chars().take(WORD_CHARACTERS_MAX).collect();
    known
        .iter()
        .take(COMPARED_MAX)
        .map(|&candidate| (strsim::jaro_winkler(&word, candidate), candidate))
        .filter(|&(likeness, _)| likeness >= LIKENESS_MIN)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, candidate)| candidate)
}

/// At most this many words are listed; more would bury the advice.
const LISTED_MAX: usize = 24;

fn listed(known: &[&str]) -> String {
    if known.is_empty() {
        return "none".to_owned();
    }
    let shown = known.iter().take(LISTED_MAX).copied().collect::<Vec<_>>().join(", ");
    match known.len().saturating_sub(LISTED_MAX) {
        0 => shown,
        more => format!("{shown}, … ({more} more)"),
    }
}

/// Jaro-Winkler likeness from which a word counts as misspelt: `timout`/`timeout` has 0.97,
/// `weight`/`rise` 0.47; a wrong guess is worse than none.
const LIKENESS_MIN: f64 = 0.82;

/// Words that are compared with a wrong one: enough for any list that is read, and little time even when
/// every line of the largest file is wrong.
const COMPARED_MAX: usize = 512;

/// Comparing takes time by the product of the lengths; no word of ours is longer.
const WORD_CHARACTERS_MAX: usize = 64;

/// What others say, and our words for it, the likeliest first.
const ELSEWHERE: &[(&[&str], &[&str])] = &[
    (
        &["least_conn", "leastconn", "least_request", "least_requests", "least_outstanding", "lc"],
        &["least_connections"],
    ),
    (
        &["p2c", "random", "power_of_two", "power_of_two_choices", "two_choices", "random_choose"],
        &["random_two"],
    ),
    (
        &["ip_hash", "ketama", "maglev", "ring_hash", "source", "uri_hash", "hash", "client_ip_hash"],
        &["consistent_hash", "hash"],
    ),
    (&["least_time", "ewma", "peak_ewma", "fastest", "response_time"], &["latency_weighted"]),
    (&["rr", "wrr", "weighted", "weighted_round_robin", "static_rr"], &["round_robin"]),
    (&["max_fails", "threshold", "max_failures"], &["consecutive_failures", "fall", "ejection"]),
    (&["fail_timeout", "fail_duration", "base_ejection_time"], &["base_duration", "ejection"]),
    (&["max_ejection_percent"], &["max_ejected"]),
    (&["outlier_detection", "passive_health_check", "circuit_breaker"], &["ejection"]),
    (&["passes", "healthy_threshold", "rise"], &["rise", "health_check"]),
    (&["fails", "unhealthy_threshold", "failures", "fall", "interval"], &["fall", "health_check"]),
    (&["max_conns", "maxconn", "max_requests", "connection_limit", "max_conn"], &["max_connections"]),
    (&["backend"], &["pool", "upstreams", "pools"]),
    (&["backends", "servers", "targets", "members", "endpoints", "nodes"], &["upstreams", "pools"]),
    (&["upstream"], &["upstreams", "pool", "pools"]),
    (&["upstreams"], &["pools", "pool"]),
    (&["pools", "service", "cluster", "target", "proxy_pass", "to"], &["pool", "pools", "upstreams"]),
    (&["pool", "services", "clusters"], &["pools"]),
    (&["frontend", "frontends", "entrypoints", "entry_points", "servers_http", "binds"], &["listeners"]),
    (&["location", "locations", "rules", "routers"], &["routes", "path_prefix"]),
    (&["path", "prefix", "paths", "uri"], &["path_prefix", "path"]),
    (&["server_name", "server_names", "domain", "domains", "host"], &["hosts", "host"]),
    (&["bind", "listen", "addr", "server", "url"], &["address", "server", "path"]),
    (&["endpoint"], &["path", "address"]),
    (&["expect", "expected_status", "expect_status", "status_code", "codes"], &["status"]),
    (&["algorithm", "balance", "lb_policy", "policy", "load_balancing", "lb"], &["strategy"]),
    (&["check", "healthcheck", "health_checks", "health", "active"], &["health_check"]),
    (&["sticky", "hash_key", "hash_on", "affinity"], &["hash"]),
    (&["workers", "worker_threads", "worker_processes", "nbthread"], &["threads"]),
    (&["grace_period", "graceful_timeout", "shutdown_timeout", "hard_stop_after"], &["drain_timeout"]),
    (&["retries", "attempts", "tries"], &["max_retries", "retry"]),
    (&["canary", "traffic_split", "weighted"], &["split"]),
    (&["client_header_timeout", "read_header_timeout"], &["header_timeout"]),
    (
        &["keepalive", "keep_alive_timeout", "idle_timeout", "keep_alive"],
        &["keepalive", "keepalive_timeout", "idle"],
    ),
    (&["client_max_body_size", "body_limit", "max_body"], &["max_body_size"]),
    (&["large_client_header_buffers", "max_header_bytes"], &["max_header_size"]),
    (&["set_real_ip_from", "trusted", "trust", "forwarded_for"], &["trusted_proxies"]),
    (&["connect_timeout", "read_timeout", "proxy_read_timeout", "proxy_connect_timeout"], &["timeouts"]),
    (&["send", "response", "request"], &["write", "read"]),
    (&["access_log"], &["access"]),
    (&["off", "none", "disabled", "disable"], &["enabled", "off"]),
    (&["ip", "source_ip", "client", "remote_addr"], &["client_ip"]),
    (&["standby", "fallback", "spare"], &["backup"]),
    (&["warning"], &["warn"]),
    (&["error", "http_502", "connection_error", "refused"], &["connect_failure"]),
    (&["add", "append", "replace", "add_headers"], &["set"]),
    (&["delete", "del", "hide", "unset"], &["remove"]),
    (&["api", "dashboard", "stats", "management"], &["admin"]),
    (&["logging", "logs"], &["log"]),
    (&["global", "process", "main"], &["server"]),
    (&["ssl", "https", "secure"], &["tls"]),
    (&["cert", "crt", "pem", "ssl_certificate", "cert_file", "chain"], &["certificate", "certificates"]),
    (&["certs", "identities"], &["certificates"]),
    (&["private_key", "ssl_certificate_key", "key_file"], &["key"]),
    (&["ca", "ca_file", "ssl_client_certificate", "client_cas", "clients"], &["client_ca"]),
    (&["verify_client", "ssl_verify_client", "client_certificates"], &["client_auth"]),
    (&["ssl_protocols", "min_tls_version", "tls_version"], &["min_version"]),
    (&["alpn"], &["protocols"]),
    (&["redirect", "force_https", "https_redirect", "ssl_redirect"], &["redirect_https"]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rivals_word_means_ours() {
        assert_eq!(nearest("least_conn", &["round_robin", "least_connections"]), Some("least_connections"));
        assert_eq!(nearest("Max-Conns", &["weight", "max_connections"]), Some("max_connections"));
    }

    #[test]
    fn the_same_word_means_something_else_in_another_place() {
        assert_eq!(nearest("backend", &["pool", "split"]), Some("pool"));
        assert_eq!(nearest("backend", &["strategy", "upstreams"]), Some("upstreams"));
    }

    #[test]
    fn a_slip_of_the_finger_is_recognised_and_a_stranger_is_not() {
        assert_eq!(nearest("timout", &["timeout", "pool"]), Some("timeout"));
        assert_eq!(nearest("banana", &["timeout", "pool"]), None);
    }

    #[test]
    fn long_lists_are_cut() {
        let many = vec!["word"; LISTED_MAX + 3];
        assert!(listed(&many).ends_with("word, … (3 more)"));
    }
}
