//! `GET /metrics`: what is running, as Prometheus text 0.0.4.
//!
//! ```text
//!   View, borrowed from the running snapshot ──► one function per family ──► TextEncoder ──► text
//! ```
//!
//! Series are made when they are read, from what runs at that moment: so an upstream that was removed
//! takes its series along, and gauges cannot go stale.
//!
//! How many there are follows from the configuration, never from requests: at most
//!
//! | for each | series |
//! |---|---|
//! | upstream | 37, of which 19 are its histogram |
//! | route | 58, of which 19 are its histogram, 19 refusals and 17 codes of gRPC; and 5 more for each listener |
//! | pool | 9 |
//! | listener | 8, and 1 for each certificate |
//! | process | 50 |
//!
//! So 1 000 upstreams are 37 000 series at most: some 3 MB of text, or a fifteenth of that for a reader who takes
//! gzip, as Prometheus does.
//!
//! **To add a family**: one line in the list of its kind below. The linter of Prometheus
//! (`promtool check metrics`) must stay silent, and the table above must stay true: a test counts.

mod families;

use std::time::{SystemTime, UNIX_EPOCH};

use families::{
    Metric, MetricFamily, counter, counters, float_counter, gauge, gauges, histogram, histograms,
};
use prometheus::{TEXT_FORMAT, TextEncoder};

use super::process::ProcessFigures;
use super::{
    AdminRefusal, ChangeOrigin, ChangeResult, Class, ConnectResult, GRPC_CODES, HandshakeResult,
    ListenerMetrics, PoolMetrics, ProcessMetrics, Reason, RetryReason, RouteMetrics, SpanQueue, SpanResult,
    UpstreamMetrics,
};

/// `Content-Type` of what [`render`] returns.
pub const CONTENT_TYPE: &str = TEXT_FORMAT;

/// What runs at the moment of reading.
#[derive(Debug)]
pub struct View<'a> {
    /// Names and handles; a listener's place here is its index in [`RouteMetrics::requests`].
    pub listeners: Vec<(&'a str, &'a ListenerMetrics)>,
    /// Those that speak TLS, by name.
    pub certificates: Vec<CertificateView<'a>>,
    /// Names and handles.
    pub routes: Vec<(&'a str, &'a RouteMetrics)>,
    /// In any order.
    pub pools: Vec<PoolView<'a>>,
    /// What belongs to none of them.
    pub process: &'a ProcessMetrics,
    /// Whether the configuration file runs, as far as somebody has read it; false: it was refused, and none was
    /// applied since.
    pub last_change_applied: bool,
    /// Lines of the access log that were lost; zero while there is none.
    pub access_log_dropped: u64,
    /// What became of spans.
    pub spans: &'a SpanQueue,
}

/// One certificate of a listener.
#[derive(Clone, Copy, Debug)]
pub struct CertificateView<'a> {
    /// Name of the listener.
    pub listener: &'a str,
    /// Its file, as the configuration names it.
    pub file: &'a str,
    /// When it ends to be valid.
    pub not_after: SystemTime,
}

/// One pool.
#[derive(Debug)]
pub struct PoolView<'a> {
    /// From the configuration.
    pub name: &'a str,
    /// Its handle.
    pub metrics: &'a PoolMetrics,
    /// Requests that wait for room now.
    pub queued: usize,
    /// All of them, eligible or not.
    pub upstreams: Vec<UpstreamView<'a>>,
}

/// One upstream.
#[derive(Debug)]
pub struct UpstreamView<'a> {
    /// From the configuration.
    pub address: String,
    /// Its handle.
    pub metrics: &'a UpstreamMetrics,
    /// Attempts under way.
    pub in_flight: u32,
    /// Whether it has health checks; without, there is nothing to count.
    pub is_checked: bool,
    /// Whether its health checks pass (or it has none).
    pub up: bool,
    /// Share of the traffic, relative to the others of the pool.
    pub weight: u16,
    /// Why it may not be picked now, in a word; `None`: it may.
    pub why_not: Option<&'static str>,
    /// Kinds of the alarms that stand.
    pub alarms: Vec<&'static str>,
}

/// All families that have a series.
pub fn render(view: &View<'_>) -> String {
    let mut families = process_families(view);
    families.push(counters(
        "evener_trace_spans_total",
        "Spans of traced requests, by what became of them.",
        SpanResult::ALL.map(|result| counter(&[("result", result.label())], view.spans.counted(result))),
    ));
    families.extend(listener_families(view));
    families.extend(route_families(view));
    families.extend(pool_families(view));
    families.extend(upstream_families(view));
    families.extend(operating_system_families(ProcessFigures::read()));
    // The encoder takes a family without a series for a mistake; here it is a pool without upstreams.
    families.retain(|family| !family.get_metric().is_empty());

    let mut text = String::new();
    // Cannot fail: every family has a name and a series, and a `String` takes whatever is written.
    let _ = TextEncoder::new().encode_utf8(&families, &mut text);
    text
}

fn process_families(view: &View<'_>) -> Vec<MetricFamily> {
    let process = view.process;
    let last_applied = process.last_applied().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    vec![
        gauges(
            "evener_build_info",
            "Version of the running program; always 1.",
            [gauge(&[("version", env!("CARGO_PKG_VERSION"))], 1.0)],
        ),
        gauges(
            "evener_config_generation",
            "Number of the running configuration, counted from 1 at start.",
            [gauge(&[], process.generation() as f64)],
        ),
        counters(
            "evener_config_changes_total",
            "Attempts to change the configuration, by where they came from and what became of them.",
            config_changes(process),
        ),
        gauges(
            "evener_config_last_applied_timestamp_seconds",
            "When the running configuration was applied, in seconds since 1970.",
            last_applied.map(|since_1970| gauge(&[], since_1970.as_secs_f64())),
        ),
        counters(
            "evener_admin_refusals_total",
            "Requests and connections that the side port turned away.",
            AdminRefusal::ALL
                .map(|reason| counter(&[("reason", reason.word())], process.admin_refusals(reason))),
        ),
        gauges(
            "evener_config_last_change_successful",
            "Whether the configuration file was accepted when it was read last: 1, or 0 while it waits to be mended.",
            [gauge(&[], f64::from(u8::from(view.last_change_applied)))],
        ),
        counters(
            "evener_access_log_dropped_total",
            "Lines that the access log lost, because its reader or disk was too slow.",
            [counter(&[], view.access_log_dropped)],
        ),
    ]
}

fn config_changes(process: &ProcessMetrics) -> impl Iterator<Item = Metric> {
    pairs(ChangeOrigin::ALL, ChangeResult::ALL).map(|(origin, result)| {
        counter(
            &[("origin", origin.label()), ("result", result.label())],
            process.config_changes(origin, result),
        )
    })
}

fn listener_families(view: &View<'_>) -> Vec<MetricFamily> {
    let listeners = || view.listeners.iter();
    vec![
        gauges(
            "evener_connections",
            "Client connections open now, idle ones included.",
            listeners()
                .map(|(name, metrics)| gauge(&[("listener", name)], metrics.open_connections() as f64)),
        ),
        counters(
            "evener_connections_accepted_total",
            "Client connections accepted.",
            listeners().map(|(name, metrics)| counter(&[("listener", name)], metrics.accepted())),
        ),
        counters(
            "evener_tls_handshakes_total",
            "TLS handshakes with clients, by how they ended.",
            listeners()
                .filter(|(name, metrics)| speaks_tls(view, name, metrics))
                .flat_map(|(name, metrics)| handshakes(name, metrics)),
        ),
        gauges(
            "evener_certificate_not_after_timestamp_seconds",
            "When a certificate ends to be valid, in seconds since 1970.",
            view.certificates.iter().map(certificate),
        ),
        gauges(
            "evener_upgraded_connections",
            "Client connections that are WebSockets now.",
            listeners()
                .map(|(name, metrics)| gauge(&[("listener", name)], metrics.upgraded_connections() as f64)),
        ),
        counters(
            "evener_proxy_header_failures_total",
            "Connections of trusted proxies that were closed for want of a PROXY header.",
            listeners()
                .map(|(name, metrics)| counter(&[("listener", name)], metrics.proxy_header_failures())),
        ),
    ]
}

/// It does, or did before a reload.
fn speaks_tls(view: &View<'_>, listener: &str, metrics: &ListenerMetrics) -> bool {
    view.certificates.iter().any(|certificate| certificate.listener == listener)
        || HandshakeResult::ALL.iter().any(|&result| metrics.handshakes(result) > 0)
}

fn handshakes(listener: &str, metrics: &ListenerMetrics) -> impl Iterator<Item = Metric> {
    HandshakeResult::ALL.into_iter().map(move |result| {
        counter(&[("listener", listener), ("result", result.label())], metrics.handshakes(result))
    })
}

fn certificate(view: &CertificateView<'_>) -> Metric {
    let since_1970 = view.not_after.duration_since(UNIX_EPOCH).unwrap_or_default();
    gauge(&[("listener", view.listener), ("name", view.file)], since_1970.as_secs_f64())
}

fn route_families(view: &View<'_>) -> Vec<MetricFamily> {
    let routes = || view.routes.iter();
    vec![
        counters(
            "evener_requests_total",
            "Requests finished that had a route, by listener, route and status class.",
            routes().flat_map(|(name, metrics)| requests(view, name, metrics)),
        ),
        histograms(
            "evener_request_duration_seconds",
            "Time from request head to the last byte of the response.",
            routes().map(|(name, metrics)| histogram(&[("route", name)], &metrics.duration())),
        ),
        gauges(
            "evener_requests_in_flight",
            "Requests that have a route and are not finished.",
            routes().map(|(name, metrics)| gauge(&[("route", name)], metrics.in_flight() as f64)),
        ),
        counters(
            "evener_request_bytes_total",
            "Bytes of request bodies.",
            routes().map(|(name, metrics)| counter(&[("route", name)], metrics.request_bytes())),
        ),
        counters(
            "evener_response_bytes_total",
            "Bytes of response bodies.",
            routes().map(|(name, metrics)| counter(&[("route", name)], metrics.response_bytes())),
        ),
        counters(
            "evener_refusals_total",
            "Requests that got an answer of ours instead of an upstream's; route none: before they had one.",
            unrouted_refusals(view.process)
                .chain(routes().flat_map(|(name, metrics)| route_refusals(name, metrics))),
        ),
        counters(
            "evener_grpc_status_total",
            "gRPC calls finished, by status code (0: OK); their HTTP status is 200 in any case.",
            routes().flat_map(|(name, metrics)| grpc_calls(name, metrics)),
        ),
    ]
}

fn requests(view: &View<'_>, route: &str, metrics: &RouteMetrics) -> impl Iterator<Item = Metric> {
    pairs(0..view.listeners.len(), Class::ALL).filter_map(move |(index, class)| {
        let (listener, _) = view.listeners.get(index)?;
        let labels = [("listener", *listener), ("route", route), ("class", class.label())];
        Some(counter(&labels, metrics.requests(index, class)))
    })
}

/// All reasons, so that alerts have a zero to start from.
fn unrouted_refusals(process: &ProcessMetrics) -> impl Iterator<Item = Metric> {
    Reason::ALL
        .into_iter()
        .map(|reason| counter(&[("route", UNROUTED), ("reason", reason.word())], process.refusals(reason)))
}

/// All reasons once the route had a request, so that a rate has a zero to start from; a file may have thousands of
/// routes that nobody asks for.
fn route_refusals(route: &str, metrics: &RouteMetrics) -> impl Iterator<Item = Metric> {
    // The configuration reserves the name; twice the same series would cost the whole scrape.
    let is_shown = route != UNROUTED && metrics.finished_requests() > 0;
    let reasons = if is_shown { &Reason::ALL[..] } else { &[][..] };
    reasons
        .iter()
        .map(move |reason| counter(&[("route", route), ("reason", reason.word())], metrics.refusals(*reason)))
}

/// Only codes that occurred: most routes carry no gRPC, and most services use few codes.
fn grpc_calls(route: &str, metrics: &RouteMetrics) -> impl Iterator<Item = Metric> {
    (0..GRPC_CODES)
        .map(|code| (code, metrics.grpc_calls(code)))
        .filter(|&(_, count)| count > 0)
        .map(move |(code, count)| counter(&[("route", route), ("code", &code.to_string())], count))
}

fn pool_families(view: &View<'_>) -> Vec<MetricFamily> {
    vec![
        counters(
            "evener_retries_total",
            "Attempts that repeated an earlier one of the same request, by why it had failed.",
            pairs(&view.pools, RetryReason::ALL).map(|(pool, reason)| {
                counter(&[("pool", pool.name), ("reason", reason.label())], pool.metrics.retries(reason))
            }),
        ),
        counters(
            "evener_retry_budget_exhausted_total",
            "Retries that the budget of the pool forbade.",
            view.pools.iter().map(|pool| counter(&[("pool", pool.name)], pool.metrics.budget_exhaustions())),
        ),
        counters(
            "evener_pool_requests_total",
            "Requests for the pool as their clients saw them end; error: with a status of 500 or more, or none.",
            view.pools.iter().flat_map(pool_requests),
        ),
        gauges(
            "evener_pool_queued_requests",
            "Requests that wait for an upstream with room.",
            view.pools.iter().map(|pool| gauge(&[("pool", pool.name)], pool.queued as f64)),
        ),
    ]
}

fn pool_requests(pool: &PoolView<'_>) -> impl Iterator<Item = Metric> {
    // Errors first: a request that ends between the two reads is then no error without a request.
    let errors = pool.metrics.errors();
    let fine = pool.metrics.requests().saturating_sub(errors);
    let name = pool.name;
    [("ok", fine), ("error", errors)]
        .into_iter()
        .map(move |(result, count)| counter(&[("pool", name), ("result", result)], count))
}

fn upstream_families(view: &View<'_>) -> Vec<MetricFamily> {
    let upstreams =
        || view.pools.iter().flat_map(|pool| pool.upstreams.iter().map(|one| one.named(pool.name)));
    vec![
        counters(
            "evener_upstream_requests_total",
            "Attempts finished, by status class; failed: without a status.",
            upstreams().flat_map(attempts),
        ),
        histograms(
            "evener_upstream_response_seconds",
            "Time from sending the request to the first byte of the response.",
            upstreams().map(|one| histogram(&one.labels(), &one.metrics.response_times())),
        ),
        counters(
            "evener_upstream_connects_total",
            "Connections that were to be opened, by how that ended.",
            upstreams().flat_map(connects),
        ),
        gauges(
            "evener_upstream_in_flight",
            "Attempts under way.",
            upstreams().map(|one| gauge(&one.labels(), f64::from(one.in_flight))),
        ),
        gauges(
            "evener_upstream_up",
            "Whether the health checks pass: 1 or 0.",
            upstreams().map(|one| gauge(&one.labels(), f64::from(u8::from(one.up)))),
        ),
        gauges(
            "evener_upstream_eligible",
            "Whether the upstream may be picked: 1 or 0.",
            upstreams().map(|one| gauge(&one.labels(), f64::from(u8::from(one.why_not.is_none())))),
        ),
        gauges(
            "evener_alarms",
            "Alarms that stand: 1, and no series where there is none.",
            view.pools.iter().flat_map(alarms),
        ),
        counters(
            "evener_upstream_ejections_total",
            "How often traffic showed that the upstream is sick.",
            upstreams().map(|one| counter(&one.labels(), one.metrics.ejections())),
        ),
        counters(
            "evener_health_checks_total",
            "Health checks, by whether they passed.",
            upstreams().filter(|one| one.is_checked).flat_map(health_checks),
        ),
        gauges(
            "evener_upstream_weight",
            "Share of the traffic that the upstream is to have, relative to the others of its pool.",
            upstreams().map(|one| gauge(&one.labels(), f64::from(one.weight))),
        ),
        gauges(
            "evener_upstream_ineligible",
            "Why the upstream may not be picked; always 1, and no series while it may.",
            upstreams().filter_map(|one| Some(gauge(&one.labels_and("reason", one.why_not?), 1.0))),
        ),
        counters(
            "evener_upstream_reused_connections_total",
            "Attempts that went over a kept connection.",
            upstreams().map(|one| counter(&one.labels(), one.metrics.reused_connections())),
        ),
    ]
}

/// An upstream, and the pool it stands in.
#[derive(Clone, Copy)]
struct Named<'a> {
    pool: &'a str,
    address: &'a str,
    metrics: &'a UpstreamMetrics,
    in_flight: u32,
    is_checked: bool,
    up: bool,
    weight: u16,
    why_not: Option<&'static str>,
}

impl UpstreamView<'_> {
    fn named<'a>(&'a self, pool: &'a str) -> Named<'a> {
        let &Self { ref address, metrics, in_flight, is_checked, up, weight, why_not, .. } = self;
        Named { pool, address, metrics, in_flight, is_checked, up, weight, why_not }
    }
}

impl<'a> Named<'a> {
    const fn labels(&self) -> [(&'static str, &'a str); 2] {
        [("pool", self.pool), ("upstream", self.address)]
    }

    const fn labels_and(&self, name: &'static str, value: &'static str) -> [(&'static str, &'a str); 3] {
        [("pool", self.pool), ("upstream", self.address), (name, value)]
    }
}

/// Only those that stand: three series for each of thousands of upstreams would be mostly zeros.
fn alarms<'a>(pool: &'a PoolView<'_>) -> impl Iterator<Item = Metric> + 'a {
    pool.upstreams.iter().flat_map(|upstream| {
        let one = upstream.named(pool.name);
        upstream.alarms.iter().map(move |&kind| gauge(&one.labels_and("kind", kind), 1.0))
    })
}

fn attempts(upstream: Named<'_>) -> impl Iterator<Item = Metric> {
    let count = move |label, count| counter(&upstream.labels_and("class", label), count);
    Class::ALL
        .into_iter()
        .map(move |class| count(class.label(), upstream.metrics.requests(class)))
        .chain([count("failed", upstream.metrics.failed_attempts())])
}

fn connects(upstream: Named<'_>) -> impl Iterator<Item = Metric> {
    ConnectResult::ALL.into_iter().map(move |result| {
        counter(&upstream.labels_and("result", result.label()), upstream.metrics.connects(result))
    })
}

fn health_checks(upstream: Named<'_>) -> impl Iterator<Item = Metric> {
    [(true, "passed"), (false, "failed")].into_iter().map(move |(ok, label)| {
        counter(&upstream.labels_and("result", label), upstream.metrics.health_checks(ok))
    })
}

/// Names and help of Prometheus' own client libraries, so that existing dashboards work.
fn operating_system_families(figures: ProcessFigures) -> Vec<MetricFamily> {
    let one = |value: Option<f64>| value.map(|value| gauge(&[], value));
    vec![
        counters(
            "process_cpu_seconds_total",
            "Total user and system CPU time spent in seconds.",
            figures.cpu_seconds.map(|seconds| float_counter(&[], seconds)),
        ),
        gauges("process_open_fds", "Number of open file descriptors.", one(figures.open_files)),
        gauges("process_max_fds", "Maximum number of open file descriptors.", one(figures.open_files_max)),
        gauges(
            "process_resident_memory_bytes",
            "Resident memory size in bytes.",
            one(figures.resident_bytes),
        ),
        gauges("process_virtual_memory_bytes", "Virtual memory size in bytes.", one(figures.virtual_bytes)),
        gauges(
            "process_start_time_seconds",
            "Start time of the process since unix epoch in seconds.",
            one(figures.start_time_seconds),
        ),
        gauges("process_threads", "Number of OS threads in the process.", one(figures.threads)),
    ]
}

/// Every one of the first with every one of the second.
fn pairs<A: Copy, B: Clone>(
    first: impl IntoIterator<Item = A>,
    second: impl IntoIterator<Item = B> + Clone,
) -> impl Iterator<Item = (A, B)> {
    first.into_iter().flat_map(move |one| second.clone().into_iter().map(move |other| (one, other)))
}

/// `route` of what was refused before it had one.
pub const UNROUTED: &str = "none";

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use super::*;

    /// Everything that a process of one listener, route, pool and upstream can count, counted once.
    #[derive(Default)]
    struct House {
        spans: SpanQueue,
        listener: ListenerMetrics,
        route: RouteMetrics,
        pool: PoolMetrics,
        upstream: UpstreamMetrics,
        process: ProcessMetrics,
    }

    impl House {
        fn busy() -> Self {
            let house = Self::default();
            house.listener.connection_opened();
            house.listener.handshake(HandshakeResult::Resumed);
            house.listener.connection_upgraded();
            house.listener.proxy_header_failed();
            house.route.begin();
            house.route.finished(0, 200, Duration::from_millis(20), 7, 1_000);
            house.route.finished(0, 503, Duration::from_millis(2), 0, 40);
            house.route.refused(Reason::QueueFull);
            house.route.grpc_finished(14);
            house.pool.retried(RetryReason::ConnectFailure);
            house.pool.budget_exhausted();
            house.pool.finished(200, 1);
            house.pool.finished(502, 1);
            house.upstream.attempt_finished(Some(200));
            house.upstream.attempt_finished(None);
            house.upstream.response_time(Duration::from_millis(15));
            house.upstream.connected(ConnectResult::TimedOut);
            house.upstream.reused();
            house.upstream.ejected();
            house.upstream.health_check(false);
            house.process.refused(Reason::NoRoute);
            house.process.config_changed(ChangeOrigin::File, ChangeResult::Refused);
            house.process.config_applied(3, UNIX_EPOCH + Duration::from_millis(1_700_000_000_500));
            house
        }

        fn view<'a>(&'a self, route: &'a str, address: &str) -> View<'a> {
            let upstream = UpstreamView {
                address: address.to_owned(),
                metrics: &self.upstream,
                in_flight: 2,
                is_checked: true,
                up: true,
                weight: 3,
                why_not: Some("ejected"),
                alarms: vec![],
            };
            let not_after = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
            View {
                listeners: vec![("http", &self.listener)],
                certificates: vec![CertificateView { listener: "http", file: "site.crt", not_after }],
                routes: vec![(route, &self.route)],
                pools: vec![PoolView {
                    name: "app",
                    metrics: &self.pool,
                    queued: 4,
                    upstreams: vec![upstream],
                }],
                process: &self.process,
                last_change_applied: false,
                access_log_dropped: 6,
                spans: &self.spans,
            }
        }

        fn text(&self) -> String {
            render(&self.view("users", "127.0.0.1:9001"))
        }
    }

    #[track_caller]
    fn assert_has(text: &str, line: &str) {
        assert!(text.lines().any(|other| other == line), "no `{line}` in:\n{text}");
    }

    #[test]
    fn every_family_of_the_contract_shows_what_was_counted() {
        let text = House::busy().text();
        for line in [
            r#"evener_requests_total{listener="http",route="users",class="2xx"} 1"#,
            r#"evener_requests_total{listener="http",route="users",class="5xx"} 1"#,
            r#"evener_requests_total{listener="http",route="users",class="3xx"} 0"#,
            r#"evener_request_duration_seconds_bucket{route="users",le="0.0025"} 1"#,
            r#"evener_request_duration_seconds_bucket{route="users",le="+Inf"} 2"#,
            r#"evener_request_duration_seconds_sum{route="users"} 0.022"#,
            r#"evener_request_duration_seconds_count{route="users"} 2"#,
            r#"evener_requests_in_flight{route="users"} 1"#,
            r#"evener_connections{listener="http"} 1"#,
            r#"evener_connections_accepted_total{listener="http"} 1"#,
            r#"evener_tls_handshakes_total{listener="http",result="resumed"} 1"#,
            r#"evener_tls_handshakes_total{listener="http",result="timeout"} 0"#,
            r#"evener_certificate_not_after_timestamp_seconds{listener="http",name="site.crt"} 1800000000"#,
            r#"evener_upgraded_connections{listener="http"} 1"#,
            r#"evener_proxy_header_failures_total{listener="http"} 1"#,
            r#"evener_request_bytes_total{route="users"} 7"#,
            r#"evener_response_bytes_total{route="users"} 1040"#,
            r#"evener_refusals_total{route="users",reason="queue_full"} 1"#,
            r#"evener_refusals_total{route="none",reason="no_route"} 1"#,
            r#"evener_grpc_status_total{route="users",code="14"} 1"#,
            r#"evener_upstream_requests_total{pool="app",upstream="127.0.0.1:9001",class="2xx"} 1"#,
            r#"evener_upstream_requests_total{pool="app",upstream="127.0.0.1:9001",class="failed"} 1"#,
            r#"evener_upstream_response_seconds_count{pool="app",upstream="127.0.0.1:9001"} 1"#,
            r#"evener_upstream_connects_total{pool="app",upstream="127.0.0.1:9001",result="timed_out"} 1"#,
            r#"evener_upstream_in_flight{pool="app",upstream="127.0.0.1:9001"} 2"#,
            r#"evener_upstream_up{pool="app",upstream="127.0.0.1:9001"} 1"#,
            r#"evener_upstream_eligible{pool="app",upstream="127.0.0.1:9001"} 0"#,
            r#"evener_upstream_ejections_total{pool="app",upstream="127.0.0.1:9001"} 1"#,
            r#"evener_health_checks_total{pool="app",upstream="127.0.0.1:9001",result="failed"} 1"#,
            r#"evener_retries_total{pool="app",reason="connect_failure"} 1"#,
            r#"evener_retry_budget_exhausted_total{pool="app"} 1"#,
            r#"evener_pool_requests_total{pool="app",result="ok"} 1"#,
            r#"evener_pool_requests_total{pool="app",result="error"} 1"#,
            r#"evener_pool_queued_requests{pool="app"} 4"#,
            r#"evener_upstream_weight{pool="app",upstream="127.0.0.1:9001"} 3"#,
            r#"evener_upstream_ineligible{pool="app",upstream="127.0.0.1:9001",reason="ejected"} 1"#,
            r#"evener_upstream_reused_connections_total{pool="app",upstream="127.0.0.1:9001"} 1"#,
            "evener_config_last_change_successful 0",
            "evener_access_log_dropped_total 6",
            "evener_config_generation 3",
            r#"evener_config_changes_total{origin="file",result="refused"} 1"#,
            "evener_config_last_applied_timestamp_seconds 1700000000.5",
            &format!(r#"evener_build_info{{version="{}"}} 1"#, env!("CARGO_PKG_VERSION")),
        ] {
            assert_has(&text, line);
        }
        #[cfg(target_os = "linux")]
        for name in ["process_cpu_seconds_total", "process_open_fds", "process_resident_memory_bytes"] {
            assert!(text.lines().any(|line| line.starts_with(&format!("{name} "))), "no {name}");
        }
    }

    #[test]
    fn no_series_stands_twice() {
        let house = House::busy();
        for text in [house.text(), render(&house.view("none", "127.0.0.1:9001"))] {
            let series: Vec<&str> = text
                .lines()
                .filter(|line| !line.starts_with('#'))
                .filter_map(|line| line.rsplit_once(' ').map(|(series, _)| series))
                .collect();
            assert_eq!(series.iter().collect::<HashSet<_>>().len(), series.len());
        }
    }

    #[test]
    fn requests_and_unrouted_refusals_add_up_to_all_requests() {
        let house = House::default();
        for _ in 0..990 {
            house.route.finished(0, 200, Duration::from_millis(1), 0, 0);
        }
        for _ in 0..10 {
            house.process.refused(Reason::NoRoute);
        }
        let text = house.text();
        let sum = |start: &str| -> f64 {
            let values = text.lines().filter(|line| line.starts_with(start));
            values.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
        };
        let all = sum("evener_requests_total{") + sum(r#"evener_refusals_total{route="none""#);
        assert!((all - 1_000.0).abs() < f64::EPSILON, "{all}");
    }

    #[test]
    fn odd_addresses_are_escaped() {
        let house = House::busy();
        let text = render(&house.view("users", "unix:/run/\"a\\b\"\n.sock"));
        assert_has(&text, r#"evener_upstream_up{pool="app",upstream="unix:/run/\"a\\b\"\n.sock"} 1"#);
    }

    #[test]
    fn nothing_running_leaves_no_empty_family() {
        let process = ProcessMetrics::default();
        let (listeners, certificates, routes, pools) = (vec![], vec![], vec![], vec![]);
        let (last_change_applied, access_log_dropped) = (true, 0);
        let process = &process;
        let text = render(&View {
            listeners,
            certificates,
            routes,
            pools,
            process,
            last_change_applied,
            access_log_dropped,
            spans: &SpanQueue::default(),
        });
        assert!(!text.contains("evener_requests_total") && !text.contains("evener_upstream"), "{text}");
        assert!(!text.contains("evener_config_last_applied_timestamp_seconds"), "never applied is not 1970");
        assert_has(&text, "evener_config_generation 0");
    }

    /// The table at the top of this file, with everything counted that can be.
    #[test]
    fn so_many_series_as_promised_and_no_more() {
        let house = House::busy();
        (0..GRPC_CODES).for_each(|code| house.route.grpc_finished(u8::try_from(code).unwrap()));
        let text = house.text();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let of = |label: &str| lines.clone().filter(|line| line.contains(label)).count();
        assert_eq!(of("upstream=\""), 37);
        assert_eq!(of("pool=\"") - 37, 9);
        assert_eq!(of("route=\"users\""), 58 + 5);
        assert_eq!(of("listener=\"") - 5, 8 + 1);
        let labelled = of("upstream=\"") + 9 + 63 + 9;
        assert!(lines.clone().count() - labelled <= 50, "{}", lines.count() - labelled);
    }

    #[test]
    fn a_removed_upstream_takes_its_series() {
        let house = House::busy();
        let mut view = house.view("users", "127.0.0.1:9001");
        view.pools[0].upstreams.clear();
        assert!(!render(&view).contains("9001"));
    }

    /// Where Debian's `prometheus` package is installed, its linter has the last word.
    #[test]
    fn the_linter_of_prometheus_has_no_complaint() {
        use std::io::Write;
        use std::process::{Command, Stdio};

        let linter = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let Ok(mut linter) = linter else {
            eprintln!("promtool is not installed: skipped (apt-get install prometheus)");
            return;
        };
        linter.stdin.take().unwrap().write_all(House::busy().text().as_bytes()).unwrap();
        let verdict = linter.wait_with_output().unwrap();
        let said = [verdict.stdout, verdict.stderr].concat();
        assert!(verdict.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
    }
}
