//! What the side port says of a pool `app`, and whether it agrees with what the servers counted.

use std::time::Duration;

use serde_json::Value;

use super::load::{CONNECTIONS, Report};
use super::server::Server;
use crate::rig::{Evener, wait_until};

/// Requests that were in flight when wrk hung up end at once; a machine under load may take its time.
const PATIENCE: Duration = Duration::from_secs(30);

/// What Evener counts of one upstream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Figures {
    /// Attempts that are over.
    pub(super) requests: u64,
    /// Those of them without an answer, or with one of 500 and more.
    pub(super) errors: u64,
}

impl Figures {
    pub(super) const fn answered(self) -> u64 {
        self.requests - self.errors
    }
}

pub(super) fn upstream(evener: &Evener, server: &Server) -> Value {
    evener.admin().json(&format!("/v1/pools/app/upstreams/{}", server.address()))
}

pub(super) fn figures(evener: &Evener, server: &Server) -> Figures {
    let shown = upstream(evener, server);
    let number = |name: &str| shown[name].as_u64().unwrap_or_else(|| panic!("`{name}` in {shown}"));
    Figures { requests: number("requests"), errors: number("errors") }
}

pub(super) fn is_eligible(evener: &Evener, server: &Server) -> bool {
    upstream(evener, server)["eligible"] == true
}

/// Retries so far, for this reason.
pub(super) fn retries(evener: &Evener, reason: &str) -> u64 {
    metric(evener, "evener_retries_total", &format!("reason=\"{reason}\""))
}

/// Requests answered by Evener itself, for this reason.
pub(super) fn refusals(evener: &Evener, reason: &str) -> u64 {
    metric(evener, "evener_refusals_total", &format!("reason=\"{reason}\""))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counters are whole")]
pub(super) fn metric(evener: &Evener, family: &str, label: &str) -> u64 {
    evener.admin().metric(family, &[label]) as u64
}

/// Waits until nothing is in flight any more, and everybody may take a request.
#[track_caller]
pub(super) fn wait_for_rest(evener: &Evener, servers: &[Server]) {
    let rests = |server| {
        let shown = upstream(evener, server);
        shown["in_flight"] == 0 && shown["eligible"] == true && shown["health"] == "up"
    };
    wait_until(PATIENCE, || servers.iter().all(rests));
    wait_until(PATIENCE, || {
        let in_flight = |family| evener.admin().metric(family, &[]);
        in_flight("evener_requests_in_flight") + in_flight("evener_upstream_in_flight") == 0.0
    });
}

/// Compares the three who counted: wrk, Evener, and the servers. Call it at rest.
///
/// They differ by two things only. wrk leaves up to [`CONNECTIONS`] requests behind when it ends: servers
/// have seen them, Evener has perhaps. And up to as many requests were under way at a server that was
/// killed or frozen: the server has seen them, and nobody got its answer. nginx counts after it has
/// answered, so the one request that it is busy with when it is killed may be missing.
#[track_caller]
pub(super) fn assert_that_all_agree(evener: &Evener, servers: &[Server], report: Report, upsets: u64) {
    let (mut answered, mut unanswered) = (0, 0);
    for server in servers {
        let (seen, figures) = (server.requests(), figures(evener, server));
        let name = server.name();
        assert!(seen + upsets >= figures.answered(), "{name} has seen {seen}, Evener {figures:?}");
        answered += figures.answered();
        unanswered += seen.saturating_sub(figures.answered());
        let label = format!("upstream=\"{}\"", server.address());
        assert_eq!(metric(evener, "evener_upstream_requests_total", &label), figures.requests, "{name}");
    }
    let limit = CONNECTIONS * (1 + upsets);
    assert!(unanswered <= limit, "{unanswered} requests were seen by a server and answered to nobody");

    let good = report.requests - report.status;
    let passed_on = metric(evener, "evener_requests_total", "class=\"2xx\"");
    assert!((good..=good + CONNECTIONS).contains(&passed_on), "{passed_on} passed on, wrk: {report:?}");
    assert!(
        (passed_on..=passed_on + CONNECTIONS).contains(&answered),
        "{answered} answered, {passed_on} passed"
    );
    let hung_up = refusals(evener, "client_closed");
    assert!(hung_up <= CONNECTIONS, "{hung_up} requests ended by the client");
}

/// One line for whoever runs the plays with `--nocapture`.
pub(super) fn tell(evener: &Evener, servers: &[Server], play: &str, report: Report) {
    let each = servers.iter().map(|server| {
        let Figures { requests, errors } = figures(evener, server);
        format!("{} {} (errors {errors}, seen {})", server.name(), requests - errors, server.requests())
    });
    let each = each.collect::<Vec<_>>().join(", ");
    let reasons = ["connect_failure", "reset", "timeout", "stale_connection"];
    let retries = reasons.map(|reason| format!("{reason} {}", retries(evener, reason))).join(", ");
    let (requests, failed) = (report.requests, report.failed());
    eprintln!("{play}: {requests} requests, {failed} failed; {each}; retries: {retries}");
}
