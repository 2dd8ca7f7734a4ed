//! The scenarios that are part of the program.

/// Name and text of each, in the order in which they run and are reported: what every balancer meets daily,
/// then what goes wrong, then what a request costs.
pub fn built_in() -> &'static [(&'static str, &'static str)] {
    &BUILT_IN
}

/// The texts of the named files.
macro_rules! files {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../../benches/scenarios/", $name, ".toml")))),*]
    };
}

const BUILT_IN: [(&str, &str); 37] = files![
    "equal",
    "equal_busy",
    "mixed",
    "one_slow",
    "real_four",
    "two_slow_of_four",
    "degrades",
    "one_bad_moment",
    "pauses",
    "cold_joiner",
    "fails_fast",
    "fails_in_part",
    "all_fail_a_little",
    "hangs",
    "resets",
    "flapping",
    "kill_and_restart",
    "reload_each_second",
    "thousand",
    "four_balancers",
    "four_balancers_equal",
    "keepalive_get",
    "access_log",
    "new_connections",
    "large_answer",
    "upload",
    "idle_connections",
    "latency_added",
    "idle_memory",
    "tls_handshakes",
    "tls_kept",
    "http2",
    "http2_tls",
    "grpc_unary",
    "grpc_added",
    "download_1gib",
    "download_1gib_tls",
];
