//! The balancer in the words of the platform's dashboards and scripts.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use serde::{Deserialize, Serialize};

use super::answer::Json;
use super::extract::{Nothing, Parameters, find_pool};
use super::member::{self, resolve};
use super::pool_edit::strategy_edit;
use super::problem::Problem;
use super::views::{Figures, Standing, UpstreamFigures, now_utc, preview, standings};
use super::write::{Said, Writer};
use crate::config::{PoolEdit, UpstreamAddress};
use crate::control::{Change, Control};
use crate::observe::Reason;
use crate::runtime::{Pool, Snapshot};

/// The pool that these paths speak of: the one of this name, or else the first. A start without a file
/// names its pool so.
const DEFAULT_POOL: &str = "default";

/// `GET /api/infrastructure/load-balancer/status?pool=`
pub(super) async fn status(
    State(control): State<Arc<Control>>,
    mut parameters: Parameters,
) -> Result<Json<BalancerView>, Problem> {
    let name = parameters.take("pool")?;
    parameters.finish()?;
    let snapshot = control.runtime().snapshot();
    Ok(Json(BalancerView::of(choose_pool(&snapshot, name.as_deref())?, control.runtime().now())))
}

/// `GET /api/infrastructure/load-balancer/next-server?strategy=&pool=`
pub(super) async fn next_server(
    State(control): State<Arc<Control>>,
    mut parameters: Parameters,
) -> Result<Json<NextServer>, Problem> {
    let strategy = parameters.take_strategy()?;
    let name = parameters.take("pool")?;
    parameters.finish()?;
    let snapshot = control.runtime().snapshot();
    let pool = choose_pool(&snapshot, name.as_deref())?;
    let kind = strategy.unwrap_or(pool.config.strategy);
    let upstream = preview(pool, kind, control.runtime().now()).ok_or_else(|| nobody(pool))?;
    Ok(Json(NextServer {
        pool: pool.config.name.clone(),
        strategy: kind.name(),
        server: url(&upstream.config.address),
    }))
}

/// `POST /api/infrastructure/load-balancer/health-check?pool=` — probes every server now.
pub(super) async fn health_check(
    State(control): State<Arc<Control>>,
    mut parameters: Parameters,
    _: Nothing,
) -> Result<Json<BalancerView>, Problem> {
    let name = parameters.take("pool")?;
    parameters.finish()?;
    let pool = choose_pool(&control.runtime().snapshot(), name.as_deref())?.config.name.clone();
    super::health_check::probe(&control, &pool).await?;
    let snapshot = control.runtime().snapshot();
    Ok(Json(BalancerView::of(find_pool(&snapshot, &pool)?, control.runtime().now())))
}

/// Who serves from now on.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Initialization {
    servers: Vec<String>,
    strategy: Option<String>,
    hash: Option<serde_json::Value>,
    pool: Option<String>,
}

/// `POST /api/infrastructure/load-balancer/initialize` — these servers in place of all, by this strategy.
pub(super) async fn initialize(
    State(control): State<Arc<Control>>,
    writer: Writer,
    Said(Initialization { servers, strategy, hash, pool }): Said<Initialization>,
) -> Result<Json<BalancerView>, Problem> {
    if servers.is_empty() {
        return Err(Problem::wrong_value(
            "`servers` is empty",
            "name at least one: [\"http://10.0.1.10:8080\"]",
        ));
    }
    let pool = choose_pool(&control.runtime().snapshot(), pool.as_deref())?.config.name.clone();
    let strategy = match (strategy, &hash) {
        (Some(strategy), hash) => Some(strategy_edit(&strategy, hash.as_ref())?),
        (None, None) => None,
        (None, Some(_)) => {
            let help = "add \"strategy\": \"consistent_hash\", or leave `hash` out";
            return Err(Problem::wrong_value("`hash` is given without `strategy`", help));
        }
    };
    let servers = resolve(servers.iter().map(|server| member::at(server)).collect()).await?;
    let edits = std::iter::once(PoolEdit::Replace(servers)).chain(strategy).collect();
    writer.apply(&control, Change::Edit { pool: pool.clone(), edits }).await?;
    let snapshot = control.runtime().snapshot();
    Ok(Json(BalancerView::of(find_pool(&snapshot, &pool)?, control.runtime().now())))
}

/// `GET /api/infrastructure/stats`
pub(super) async fn stats(State(control): State<Arc<Control>>) -> Json<InfrastructureStats> {
    Json(InfrastructureStats::of(&control))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BalancerView {
    pool: String,
    strategy: &'static str,
    total_servers: usize,
    healthy_servers: usize,
    active_connections: u64,
    timestamp: String,
    servers: Vec<ServerView>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ServerView {
    url: String,
    healthy: bool,
    /// Requests in flight.
    active_connections: u64,
    /// Milliseconds to the first byte; null before the first answer.
    average_response_time: Option<f64>,
    weight: u16,
    requests: u64,
    errors: u64,
}

#[derive(Serialize)]
pub(super) struct NextServer {
    pool: String,
    strategy: &'static str,
    server: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct InfrastructureStats {
    requests: u64,
    errors: u64,
    error_rate: f64,
    active_requests: u64,
    active_connections: u64,
    /// Milliseconds to the last byte; null before the first answer.
    average_response_time: Option<f64>,
    /// Seconds.
    uptime: u64,
    pools: usize,
    total_servers: usize,
    healthy_servers: usize,
    timestamp: String,
}

impl BalancerView {
    fn of(pool: &Pool, now: Duration) -> Self {
        let servers: Vec<_> = standings(pool, now).iter().map(ServerView::of).collect();
        Self {
            pool: pool.config.name.clone(),
            strategy: pool.config.strategy.name(),
            total_servers: servers.len(),
            healthy_servers: servers.iter().filter(|server| server.healthy).count(),
            active_connections: servers.iter().map(|server| server.active_connections).sum(),
            timestamp: now_utc(),
            servers,
        }
    }
}

impl ServerView {
    fn of(standing: &Standing<'_>) -> Self {
        let figures = UpstreamFigures::of(standing.upstream).figures;
        Self {
            url: url(&standing.upstream.config.address),
            healthy: !standing.is_in_trouble(),
            active_connections: figures.in_flight,
            average_response_time: figures.latency_ms.avg,
            weight: standing.upstream.config.weight,
            requests: figures.requests,
            errors: figures.errors,
        }
    }
}

impl InfrastructureStats {
    fn of(control: &Control) -> Self {
        let runtime = control.runtime();
        let (snapshot, now) = (runtime.snapshot(), runtime.now());
        let total = Figures::total(control, &snapshot);
        let servers: Vec<_> = snapshot.pools().flat_map(|pool| standings(pool, now)).collect();
        let connections = runtime.listeners().iter().map(|listener| listener.metrics.open_connections());
        Self {
            requests: total.requests,
            errors: total.errors,
            error_rate: total.error_rate,
            active_requests: total.in_flight,
            active_connections: connections.sum(),
            average_response_time: total.latency_ms.avg,
            uptime: runtime.uptime().as_secs(),
            pools: snapshot.pools().len(),
            total_servers: servers.len(),
            healthy_servers: servers.iter().filter(|server| !server.is_in_trouble()).count(),
            timestamp: now_utc(),
        }
    }
}

fn choose_pool<'a>(snapshot: &'a Snapshot, name: Option<&str>) -> Result<&'a Pool, Problem> {
    match name {
        Some(name) => find_pool(snapshot, name),
        None => find_pool(snapshot, DEFAULT_POOL).or_else(|problem| snapshot.pools().next().ok_or(problem)),
    }
}

fn nobody(pool: &Pool) -> Problem {
    let reason = Reason::NoEligibleUpstream;
    Problem::new(reason.status(), reason.word(), "no upstream is eligible")
        .detail(format!(
            "none of the {} upstreams of pool `{}` is eligible",
            pool.upstreams().len(),
            pool.config.name
        ))
        .help(format!("GET /v1/pools/{} says of each why it is not", pool.config.name))
}

fn url(address: &UpstreamAddress) -> String {
    match address {
        UpstreamAddress::Tcp(socket) => format!("http://{socket}"),
        UpstreamAddress::Unix(_) => address.to_string(),
    }
}
