//! The largest and smallest values a file may ask for, each with the reason for its number.

use std::time::Duration;

/// Bytes of a configuration file: room for [`UPSTREAMS_PER_POOL_MAX`] upstreams of 256 bytes each.
pub const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Mistakes that are kept; the rest is only counted. Nobody reads more in one go.
pub const MISTAKES_MAX: usize = 1_000;

/// Listeners: each has its own socket and accept loop, and a host has few addresses.
pub const LISTENERS_MAX: usize = 256;

/// Routes: ties are looked for between each two of them, 8 million pairs at most.
pub const ROUTES_MAX: usize = 4_096;

/// Pools: each has its own metrics and probes; a pool per route at most.
pub const POOLS_MAX: usize = 4_096;

/// Upstreams of one pool: a pick must stay below 100 ns, which is measured up to 10 000.
pub const UPSTREAMS_PER_POOL_MAX: usize = 16_384;

/// Upstreams of all pools: each has about thirty time series and, by default, a probe.
pub const UPSTREAMS_MAX: usize = 65_536;

/// Hosts of one route: they are compared one by one when ties are looked for.
pub const HOSTS_PER_ROUTE_MAX: usize = 64;

/// Entries of every other list: header conditions, edits, split, statuses, trusted networks.
pub const LIST_ENTRIES_MAX: usize = 256;

/// Bytes of the name of a listener, route or pool: it stands in URLs, metrics labels and log lines.
pub const NAME_BYTES_MAX: usize = 64;

/// Weight of an upstream or of a split entry: a share of one in a thousand is fine enough for any canary,
/// and one cycle of turns stays small.
pub const WEIGHT_MAX: u16 = 1_000;

/// Worker threads: more than any machine we know has CPUs; beyond that it is a typing error.
pub const THREADS_MAX: usize = 1_024;

/// Every duration: what is longer than a day is a typing error.
pub const DURATION_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Durations that may not be zero: below a millisecond, timers fire late by more than their length.
pub const DURATION_MIN: Duration = Duration::from_millis(1);

/// Between two probes of one upstream: more often than ten a second is load, not a check.
pub const PROBE_INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Bytes of a request head at least: below, ordinary browsers are refused.
pub const HEADER_SIZE_MIN: u64 = 1024;

/// Bytes of a request head at most: Pingora's read buffer ends here (1 MiB, fixed).
pub const HEADER_SIZE_MAX: u64 = 1024 * 1024;

/// Requests under way on one HTTP/2 connection, at most: each may hold buffers of its own.
pub const HTTP2_STREAMS_MAX: u64 = 10_000;

/// Bytes of a request body at most: beyond a tebibyte, `"0"` (no limit) says it better.
pub const BODY_SIZE_MAX: u64 = 1024 * 1024 * 1024 * 1024;

/// Client connections of one listener: Linux's largest `nr_open` by default.
pub const CONNECTIONS_MAX: u64 = 1_048_576;

/// Requests in flight at one upstream; as many as client connections.
pub const UPSTREAM_CONNECTIONS_MAX: u64 = CONNECTIONS_MAX;

/// Idle connections kept to the upstreams of one pool: one address has 64 512 ports to connect from.
pub const IDLE_CONNECTIONS_MAX: u64 = 65_536;

/// Requests that wait in a queue: each holds a client connection open.
pub const QUEUE_MAX: u64 = 65_536;

/// Attempts after the first: a request that failed sixteen times will fail again.
pub const RETRIES_MAX: u64 = 15;

/// `rise`, `fall` and `consecutive_failures`: beyond two thousand in a row, nothing would ever change.
pub const IN_A_ROW_MAX: u64 = 2_000;

/// Certificates of one listener: each has two files, which are looked at every few seconds.
pub const CERTIFICATES_MAX: usize = 1_024;

/// Names of one certificate; authorities sign no more than a few hundred.
pub const CERTIFICATE_NAMES_MAX: usize = 1_024;

/// Bytes of a file in PEM: the authorities of the whole web take a quarter of it.
pub const PEM_BYTES_MAX: u64 = 1024 * 1024;

/// Bytes of a secret read from a file: tokens are shorter, and header values have to be.
pub const SECRET_BYTES_MAX: u64 = 8 * 1024;

/// Characters of a token's secret at least: sixteen random hexadecimal digits outlast any guessing.
pub const TOKEN_BYTES_MIN: usize = 16;

/// Characters of a token's secret from which on it is looked at whatever else comes from its address. Secrets that long
/// are made by machines (`openssl rand -hex 16` has 32 characters, and 128 bits); of shorter ones some are words.
pub const TOKEN_BYTES_UNGUESSABLE: usize = 32;

/// Characters of a token's secret at most: it is sent with every request, in a head of at most 16 KiB.
pub const TOKEN_BYTES_MAX: usize = 1_024;

/// Tokens: a request is compared with every one of them.
pub const TOKENS_MAX: usize = 64;

/// Bytes of a Unix socket's path: `sun_path` on Linux, without its closing zero.
pub const UNIX_PATH_BYTES_MAX: usize = 107;

/// Bytes of the name of a gRPC service in a health check: longer than any path, within one frame.
pub const GRPC_SERVICE_BYTES_MAX: usize = 1_024;

/// Characters of `service_name`: it stands in every batch of spans.
pub const SERVICE_NAME_CHARACTERS_MAX: usize = 128;
