//! What we ship for Prometheus and Grafana, tried with a real Prometheus: it scrapes Evener under load, and is then
//! asked everything that the dashboard asks and the alerts watch.

mod dashboard;
mod server;

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::rig::{Authority, Background, Client, Evener, Origin, Reply, TlsClient, reserve_port, wait_until};
use server::{Prometheus, is_here, shipped};

/// A scrape comes each second, and a machine under load may take its time.
const SOON: Duration = Duration::from_secs(120);

const TOKEN: &str = "a-token-for-Prometheus-that-is-long-enough";

#[test]
fn promtool_accepts_the_rules_and_their_tests_pass() {
    if !is_here() {
        return;
    }
    for arguments in [["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]] {
        let output = Command::new("promtool").args(arguments).current_dir(shipped()).output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{arguments:?}: {said}");
    }
}

#[test]
fn promtool_accepts_the_example_configuration() {
    if !is_here() {
        return;
    }
    let arguments = ["check", "config", "--syntax-only", "prometheus.yml"];
    let output = Command::new("promtool").args(arguments).current_dir(shipped()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn every_alert_is_tested_and_says_why_and_what_to_do() {
    let rules = fs::read_to_string(shipped().join("alerts.yml")).unwrap();
    let tests = fs::read_to_string(shipped().join("alerts_test.yml")).unwrap();
    let alerts: Vec<&str> = rules.split("- alert: ").skip(1).collect();
    assert!(alerts.len() >= 12, "{}", alerts.len());
    for alert in alerts {
        let name = alert.lines().next().unwrap();
        for part in ["severity: ", "summary: ", "description: ", "threshold: ", "runbook: "] {
            assert!(alert.contains(part), "{name} has no {part}");
        }
        let mut cases =
            tests.split("- eval_time: ").filter(|case| case.contains(&format!("alertname: {name}\n")));
        assert!(cases.clone().any(|case| case.contains("exp_labels")), "{name} never fires in its test");
        assert!(cases.any(|case| case.contains("exp_alerts: []")), "{name} is never silent in its test");
    }
}

#[test]
fn the_dashboard_is_one_that_grafana_takes() {
    let dashboard = dashboard::shipped();
    assert_eq!(dashboard["uid"], "evener", "links to it stay");
    assert!(dashboard["id"].is_null(), "an id of its own would hit somebody else's dashboard");
    assert!(dashboard["schemaVersion"].as_u64().is_some_and(|version| version >= 36), "{dashboard}");

    let panels = dashboard::panels(&dashboard);
    let ids: BTreeSet<u64> = panels.iter().filter_map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len(), "every panel has an id of its own");
    for panel in &panels {
        let kind = panel["type"].as_str().unwrap();
        // What Grafana brings along.
        assert!(
            ["row", "timeseries", "stat", "table", "state-timeline", "bargauge"].contains(&kind),
            "{kind} is a plug-in"
        );
        assert!(!panel["title"].as_str().unwrap().is_empty(), "{panel}");
        let place = &panel["gridPos"];
        let [x, width] = ["x", "w"].map(|member| place[member].as_u64().unwrap());
        assert!(x + width <= 24, "{panel} is beyond the edge");
        assert!(kind == "row" || panel["datasource"]["uid"] == "${datasource}", "{panel}");
        for target in dashboard::list(&panel["targets"]) {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{target}");
        }
    }
    let covered = |one: &Value, other: &Value| {
        let edges = |panel: &Value, start: &str, length: &str| {
            let [start, length] = [start, length].map(|member| panel["gridPos"][member].as_u64().unwrap());
            start..start + length
        };
        [("x", "w"), ("y", "h")].iter().all(|(start, length)| {
            let (one, other) = (edges(one, start, length), edges(other, start, length));
            one.start < other.end && other.start < one.end
        })
    };
    for (index, one) in panels.iter().enumerate() {
        let hidden = panels.iter().skip(index + 1).find(|other| covered(one, other));
        assert!(hidden.is_none(), "{} covers {hidden:?}", one["title"]);
    }
}

/// Requests that go on until they are stopped, gently.
struct Traffic {
    stop: Arc<AtomicBool>,
    clients: Vec<Background<()>>,
}

impl Traffic {
    fn new() -> Self {
        Self { stop: Arc::default(), clients: Vec::new() }
    }

    /// Does it again and again, with pauses.
    fn and(mut self, mut request: impl FnMut() + Send + 'static) -> Self {
        let stop = self.stop.clone();
        self.clients.push(Background::run(move || {
            while !stop.load(Ordering::Relaxed) {
                request();
                thread::sleep(Duration::from_millis(30));
            }
        }));
        self
    }

    fn on(self, address: SocketAddr, path: &'static str) -> Self {
        // An error of the connection is Evener at its end, and its answer is for Prometheus to count.
        self.and(move || drop(Client::try_connect(address).ok().and_then(|mut client| client.try_get(path))))
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.into_iter().for_each(Background::join);
    }
}

/// Pools in every state that the dashboard draws, each behind a path of its own.
struct Scene {
    folder: tempfile::TempDir,
    authority: Authority,
    tls: SocketAddr,
    fine: [Origin; 2],
    failing: [Origin; 2],
    gone: [Origin; 2],
    slow: Origin,
    flapping: Origin,
}

impl Scene {
    fn new() -> Self {
        let scene = Self {
            folder: tempfile::tempdir().unwrap(),
            authority: Authority::new("authority"),
            tls: SocketAddr::from(([127, 0, 0, 1], reserve_port())),
            fine: [Origin::answering("one"), Origin::answering("two")],
            failing: [(), ()].map(|()| Origin::serving(|_| Reply::status(503, "sick"))),
            gone: [Origin::absent(), Origin::absent()],
            slow: Origin::answering("at last").after(Duration::from_secs(3)),
            flapping: Origin::answering("now and then"),
        };
        scene.authority.issue_from_to(&["example.com"], -80, 2).write(scene.folder.path(), "site");
        scene
    }

    fn configuration(&self) -> String {
        let file = |name: &str| self.folder.path().join(name).display().to_string();
        format!(
            r#"
            [log]
            access = "{log}"
            [admin.tokens.prometheus]
            scope = "read"
            env = "PROMETHEUS_TOKEN"
            [listeners.http]
            [listeners.https]
            address = "{tls}"
            tls = {{ certificates = [{{ certificate = "{certificate}", key = "{key}" }}] }}
            [routes.fine]
            path_prefix = "/"
            pool = "fine"
            [routes.failing]
            path_prefix = "/failing"
            pool = "failing"
            retry = {{ max_retries = 1, on = ["503"] }}
            [routes.hopeless]
            path_prefix = "/hopeless"
            pool = "hopeless"
            retry = {{ max_retries = 1, on = ["503"], budget = 0.1 }}
            [routes.gone]
            path_prefix = "/gone"
            pool = "gone"
            [routes.slow]
            path_prefix = "/slow"
            pool = "slow"
            [routes.flapping]
            path_prefix = "/flapping"
            pool = "flapping"
            [pools.fine]
            upstreams = ["{}", {{ address = "{}", weight = 2 }}, "{gone}"]
            health_check = {{ path = "/healthz", interval = "1s", fast_interval = "1s" }}
            [pools.failing]
            upstreams = ["{failing}", "{also_fine}"]
            ejection = {{ consecutive_failures = 1, base_duration = "1s" }}
            [pools.hopeless]
            upstreams = ["{failing}", "{also_failing}"]
            ejection = {{ enabled = false }}
            [pools.gone]
            upstreams = ["{gone}", "{also_gone}"]
            [pools.slow]
            upstreams = [{{ address = "{slow}", max_connections = 1 }}]
            queue = {{ max = 2, timeout = "60s" }}
            [pools.flapping]
            upstreams = ["{flapping}"]
            health_check = {{ path = "/healthz", interval = "1s", fast_interval = "1s", rise = 1, fall = 1 }}
            "#,
            self.fine[0].address(),
            self.fine[1].address(),
            log = file("access.log"),
            certificate = file("site.crt"),
            key = file("site.key"),
            tls = self.tls,
            failing = self.failing[0].address(),
            also_failing = self.failing[1].address(),
            also_fine = self.fine[0].address(),
            gone = self.gone[0].address(),
            also_gone = self.gone[1].address(),
            slow = self.slow.address(),
            flapping = self.flapping.address(),
        )
    }

    fn start(&self) -> Evener {
        let environment = [("PROMETHEUS_TOKEN", TOKEN)];
        Evener::start_guarded(&self.configuration(), &environment, TOKEN)
    }

    fn traffic(&self, evener: &Evener) -> Traffic {
        let client = TlsClient::trusting(&self.authority);
        let tls = self.tls;
        let address = evener.address();
        let paths = ["/", "/failing", "/failing", "/hopeless", "/hopeless", "/gone", "/flapping"];
        let paths = paths.into_iter().chain(["/slow"; 4]);
        paths.fold(Traffic::new(), |traffic, path| traffic.on(address, path)).and(move || {
            drop(client.try_connect(tls, "example.com"));
            thread::sleep(Duration::from_millis(200));
        })
    }

    /// Down and up, three times over, each long enough for Prometheus to see it.
    fn flap(&self, prometheus: &Prometheus) {
        let is_up = |up: f64| {
            wait_until(SOON, || prometheus.number("evener_upstream_up{pool=\"flapping\"}") == Some(up));
        };
        for _ in 0..3 {
            self.flapping.fall_sick();
            is_up(0.0);
            self.flapping.get_well();
            is_up(1.0);
        }
    }
}

#[test]
fn a_real_prometheus_has_an_answer_to_every_question_of_dashboard_and_alerts() {
    if !is_here() {
        return;
    }
    let scene = Scene::new();
    let mut evener = scene.start();
    let traffic = scene.traffic(&evener);
    wait_until(SOON, || evener.admin().metric("evener_pool_queued_requests", &[]) > 0.0);
    let prometheus = Prometheus::scraping(evener.admin_address(), TOKEN);
    wait_until(SOON, || prometheus.number("evener_config_generation") == Some(1.0));

    evener.reload(&format!("{}\n[routes.more]\nhosts = [\"more\"]\npool = \"fine\"", scene.configuration()));
    evener.reload_in_vain("[pools.broken]\nupstreams = [\"nowhere\"]");
    scene.flap(&prometheus);
    for _ in 0..SOON.as_secs() {
        if unanswered(&prometheus).is_empty() {
            break;
        }
        thread::sleep(Duration::from_secs(1));
    }
    assert_eq!(unanswered(&prometheus), Vec::<String>::new());

    let provoked = [
        "EvenerNoEligibleUpstream",
        "EvenerPoolBelowHalf",
        "EvenerUpstreamDown",
        "EvenerUpstreamFlaps",
        "EvenerUpstreamEjections",
        "EvenerPoolSaturated",
        "EvenerRetryBudgetExhausted",
        "EvenerErrorRatioHigh",
        "EvenerErrorRatioRaised",
        "EvenerLatencyHigh",
        "EvenerConfigRefused",
        "EvenerCertificateExpires",
        "EvenerCertificateExpiresSoon",
    ];
    await_firing(&prometheus, &provoked);
    for silent in ["EvenerDown", "EvenerAbsent", "EvenerAccessLogDrops", "EvenerFilesRunOut"] {
        assert!(!prometheus.firing().contains(&silent.to_owned()), "{silent} fires");
    }
    assert_rules_are_evaluated(&prometheus);

    traffic.stop();
    evener.signal("TERM");
    evener.signal("TERM");
    assert!(evener.ends_within(SOON).is_some());
    await_firing(&prometheus, &["EvenerDown"]);
}

/// Variables and queries of the dashboard that get nothing back.
fn unanswered(prometheus: &Prometheus) -> Vec<String> {
    let dashboard = dashboard::shipped();
    let variables = dashboard::variables(&dashboard).into_iter().filter_map(|(selector, label)| {
        prometheus.label_values(&selector, &label).is_empty().then_some(selector)
    });
    let queries = dashboard::queries(&dashboard).into_iter().filter_map(|query| {
        let series = if query.is_instant {
            prometheus.query(&query.expression)
        } else {
            prometheus.query_range(&query.expression, 120)
        };
        let is_answered = series.iter().any(has_a_number);
        (!is_answered).then(|| format!("{}: {}", query.of, query.expression))
    });
    variables.chain(queries).collect()
}

/// A quotient of nothing by nothing is no answer.
fn has_a_number(series: &Value) -> bool {
    let of_range = dashboard::list(&series["values"]);
    of_range
        .iter()
        .chain([&series["value"]])
        .any(|sample| sample[1].as_str().is_some_and(|text| text != "NaN"))
}

#[track_caller]
fn await_firing(prometheus: &Prometheus, names: &[&str]) {
    let silent = || {
        let firing = prometheus.firing();
        names.iter().filter(|name| !firing.contains(&(**name).to_owned())).copied().collect::<Vec<_>>()
    };
    for _ in 0..SOON.as_secs() {
        if silent().is_empty() {
            return;
        }
        thread::sleep(Duration::from_secs(1));
    }
    assert_eq!(silent(), Vec::<&str>::new(), "these are silent");
}

fn assert_rules_are_evaluated(prometheus: &Prometheus) {
    let rules = prometheus.rules();
    assert!(rules.len() >= 12, "{rules:?}");
    for rule in rules {
        assert_eq!(rule["health"], "ok", "{rule}");
        prometheus.query(rule["query"].as_str().unwrap());
    }
}

/// Name, type and labels: the contract's families, and those that came to it.
const FAMILIES: [(&str, &str, &str); 44] = [
    ("evener_build_info", "gauge", "version"),
    ("evener_requests_total", "counter", "listener route class"),
    ("evener_request_duration_seconds", "histogram", "route"),
    ("evener_requests_in_flight", "gauge", "route"),
    ("evener_connections", "gauge", "listener"),
    ("evener_connections_accepted_total", "counter", "listener"),
    ("evener_upgraded_connections", "gauge", "listener"),
    ("evener_proxy_header_failures_total", "counter", "listener"),
    ("evener_tls_handshakes_total", "counter", "listener result"),
    ("evener_certificate_not_after_timestamp_seconds", "gauge", "listener name"),
    ("evener_request_bytes_total", "counter", "route"),
    ("evener_response_bytes_total", "counter", "route"),
    ("evener_refusals_total", "counter", "route reason"),
    ("evener_upstream_requests_total", "counter", "pool upstream class"),
    ("evener_upstream_response_seconds", "histogram", "pool upstream"),
    ("evener_upstream_connects_total", "counter", "pool upstream result"),
    ("evener_upstream_reused_connections_total", "counter", "pool upstream"),
    ("evener_upstream_in_flight", "gauge", "pool upstream"),
    ("evener_upstream_up", "gauge", "pool upstream"),
    ("evener_upstream_eligible", "gauge", "pool upstream"),
    ("evener_upstream_ineligible", "gauge", "pool upstream reason"),
    ("evener_upstream_weight", "gauge", "pool upstream"),
    ("evener_upstream_ejections_total", "counter", "pool upstream"),
    ("evener_health_checks_total", "counter", "pool upstream result"),
    ("evener_retries_total", "counter", "pool reason"),
    ("evener_retry_budget_exhausted_total", "counter", "pool"),
    ("evener_pool_requests_total", "counter", "pool result"),
    ("evener_pool_queued_requests", "gauge", "pool"),
    ("evener_config_generation", "gauge", ""),
    ("evener_config_changes_total", "counter", "origin result"),
    ("evener_config_last_applied_timestamp_seconds", "gauge", ""),
    ("evener_config_last_change_successful", "gauge", ""),
    ("evener_admin_refusals_total", "counter", "reason"),
    ("evener_access_log_dropped_total", "counter", ""),
    ("process_cpu_seconds_total", "counter", ""),
    ("process_open_fds", "gauge", ""),
    ("process_max_fds", "gauge", ""),
    ("process_resident_memory_bytes", "gauge", ""),
    ("process_virtual_memory_bytes", "gauge", ""),
    ("process_start_time_seconds", "gauge", ""),
    ("process_threads", "gauge", ""),
    // Of what this scene does not have.
    ("evener_grpc_status_total", "counter", "route code"),
    ("evener_alarms", "gauge", "pool upstream kind"),
    ("evener_trace_spans_total", "counter", "result"),
];

#[test]
fn every_family_of_the_contract_is_there_with_its_type_labels_and_help() {
    let scene = Scene::new();
    let evener = scene.start();
    evener.get("/").expect_status(200);
    evener.get("/gone").expect_status(503);
    drop(TlsClient::trusting(&scene.authority).stream(scene.tls, "example.com"));
    let text = evener.admin().get("/metrics").expect_status(200).body();

    let told: BTreeSet<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let known: BTreeSet<String> = FAMILIES.iter().map(|(name, kind, _)| format!("{name} {kind}")).collect();
    let unknown: Vec<_> = told.iter().filter(|family| !known.contains(**family)).collect();
    assert!(unknown.is_empty(), "not in the list: {unknown:?}");
    for (name, kind, labels) in &FAMILIES[..FAMILIES.len() - 3] {
        assert!(told.contains(format!("{name} {kind}").as_str()), "{name} is no {kind} in {told:?}");
        assert_eq!(*kind == "counter", name.ends_with("_total"), "{name}");
        let help = text.lines().find_map(|line| line.strip_prefix(&format!("# HELP {name} ")));
        assert!(help.is_some_and(|help| help.len() > 10 && help.ends_with('.')), "{name}: {help:?}");
        let found: BTreeSet<Vec<&str>> = text.lines().filter_map(|line| labels_of(line, name)).collect();
        assert_eq!(found, BTreeSet::from([labels.split_whitespace().collect::<Vec<_>>()]), "{name}");
    }
}

/// Names of the labels of a series of this family, without the bound of a bucket.
fn labels_of<'a>(line: &'a str, family: &str) -> Option<Vec<&'a str>> {
    let rest = line.strip_prefix(family)?;
    let rest = ["_bucket", "_sum", "_count"].iter().find_map(|part| rest.strip_prefix(part)).unwrap_or(rest);
    let inner = match rest.strip_prefix('{') {
        Some(inner) => inner.rsplit_once('}')?.0,
        None if rest.starts_with(' ') => "",
        None => return None,
    };
    let names = inner.split("\",").filter_map(|pair| pair.split_once('=').map(|(name, _)| name));
    Some(names.filter(|name| *name != "le").collect())
}

/// The bound of `observe/exposition.rs`, with room for what other parts of a configuration add.
#[test]
fn a_thousand_upstreams_are_a_scrape_of_bounded_size() {
    if !is_here() {
        return;
    }
    let upstreams: String =
        (0..1_000).map(|number| format!("\"127.1.{}.{}:9\",", number / 250, number % 250 + 1)).collect();
    let evener = Evener::start_guarded(
        &format!(
            "[admin.tokens.prometheus]\nscope = \"read\"\nenv = \"PROMETHEUS_TOKEN\"\n\
             [pools.app]\nupstreams = [{upstreams}]\nhealth_check = {{ enabled = false }}"
        ),
        &[("PROMETHEUS_TOKEN", TOKEN)],
        TOKEN,
    );
    evener.get("/").expect_status(502);
    let text = evener.admin().get("/metrics").expect_status(200).body();
    let series = text.lines().filter(|line| !line.starts_with('#')).count();
    assert!((30_000..=37_000 + 300).contains(&series), "{series} series");
    assert!(text.len() < 4_000_000, "{} bytes", text.len());

    let packed = evener.admin().get_with("/metrics", "Accept-Encoding: gzip\r\n").expect_status(200);
    assert_eq!(packed.header("content-encoding"), Some("gzip"));
    let mut unpacked = String::new();
    flate2::read::GzDecoder::new(&*packed.body).read_to_string(&mut unpacked).unwrap();
    // The request may have been counted in between: that adds series, and takes none away.
    assert!(unpacked.lines().count() >= text.lines().count(), "{} lines", unpacked.lines().count());
    assert!(packed.body.len() < text.len() / 8, "{} bytes", packed.body.len());

    let memory = || evener.admin().metric("process_resident_memory_bytes", &[]);
    let before = memory();
    (0..30).for_each(|_| drop(evener.admin().get("/metrics").expect_status(200)));
    let grown = memory() - before;
    assert!(grown < 64e6, "thirty scrapes left {grown} bytes");

    let prometheus = Prometheus::scraping(evener.admin_address(), TOKEN);
    let samples = || prometheus.number("scrape_samples_scraped{job=\"evener\"}");
    wait_until(SOON, || samples().is_some_and(|samples| samples >= 30_000.0));
    assert_eq!(prometheus.number("count(evener_upstream_weight)"), Some(1_000.0));
}
