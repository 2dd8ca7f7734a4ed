//! Health checks on demand.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use tokio::time::timeout;

use super::answer::Tagged;
use super::extract::{Nothing, Path, find_pool};
use super::pools::tagged_pool;
use super::problem::Problem;
use super::views::PoolView;
use crate::control::Control;

/// For a whole pool. Probes go out in parallel, at most 256 at a time with 5 s each, so this is enough
/// for some 1 500 upstreams of which none answers.
pub(super) const DEADLINE: Duration = Duration::from_secs(30);

/// `POST /v1/pools/{pool}/health-check` — probes every upstream now, and answers with the results.
pub(super) async fn run(
    State(control): State<Arc<Control>>,
    Path(pool): Path<String>,
    _: Nothing,
) -> Result<Tagged<PoolView>, Problem> {
    probe(&control, &pool).await?;
    // What runs may have been replaced meanwhile.
    tagged_pool(&control, &pool)
}

/// Probes all upstreams of a pool, and returns when all have answered.
pub(super) async fn probe(control: &Control, pool: &str) -> Result<(), Problem> {
    let snapshot = control.runtime().snapshot();
    if find_pool(&snapshot, pool)?.config.health_check.is_none() {
        return Err(Problem::new(409, "health_check_off", "the pool has no health check")
            .detail(format!("`health_check` of pool `{pool}` is turned off"))
            .help("turn it on in the configuration and reload; traffic judges upstreams meanwhile"));
    }
    match timeout(DEADLINE, control.probe_now(pool)).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(Problem::new(503, "not_probing", "nobody probes")
            .detail("the process is starting or stopping")
            .help("GET /readyz says which; try again when it is ready")),
        Err(_) => Err(Problem::new(504, "probes_unfinished", "the probes take too long")
            .detail(format!("not every upstream has answered within {} s", DEADLINE.as_secs()))
            .help(format!("the probes go on; GET /v1/pools/{pool} shows `last_check` of each upstream"))),
    }
}
