//! The index of the side port.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware::from_fn;
use axum::routing::{MethodRouter, get, post, put};

use super::guard::{BODY_BYTES_MAX, guard};
use super::problem::Problem;
use super::{
    explain, guarded, health_check, infrastructure, lifecycle, metrics, monitoring, next, openapi, plan,
    pools, reload, stats, status,
};
use crate::control::Control;

type Resource = (&'static str, MethodRouter<Arc<Control>>);

/// Every path, and who answers there. HEAD goes where GET goes.
pub(super) fn index() -> Vec<Resource> {
    vec![
        ("/livez", get(lifecycle::livez)),
        ("/readyz", get(lifecycle::readyz)),
        ("/health", get(lifecycle::health)),
        ("/health/ready", get(lifecycle::health_ready)),
        ("/metrics", get(metrics::show)),
        ("/v1/status", get(status::show)),
        ("/v1/stats", get(stats::show)),
        ("/v1/config", put(guarded::replace)),
        ("/v1/config/check", post(plan::check)),
        ("/v1/config/confirm", post(guarded::confirm)),
        ("/v1/config/guard", get(guarded::show)),
        ("/v1/reload", post(reload::run)),
        ("/v1/pools", get(pools::list)),
        ("/v1/pools/{pool}", get(pools::show_pool)),
        ("/v1/pools/{pool}/upstreams/{address}", get(pools::show_upstream)),
        ("/v1/pools/{pool}/next", get(next::show)),
        ("/v1/pools/{pool}/health-check", post(health_check::run)),
        ("/v1/explain", get(explain::show)),
        ("/openapi.json", get(openapi::show)),
        ("/api/infrastructure/load-balancer/status", get(infrastructure::status)),
        ("/api/infrastructure/load-balancer/next-server", get(infrastructure::next_server)),
        ("/api/infrastructure/load-balancer/health-check", post(infrastructure::health_check)),
        ("/api/infrastructure/stats", get(infrastructure::stats)),
        ("/api/monitoring/health", get(monitoring::health)),
        ("/api/monitoring/metrics", get(monitoring::metrics)),
    ]
}

pub(super) fn router(control: Arc<Control>) -> Router {
    let empty = Router::new();
    let routes = index().into_iter().fold(empty, |router, (path, methods)| router.route(path, methods));
    routes
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn(guard))
        .with_state(control)
}

async fn unknown_path(request: Request) -> Problem {
    Problem::new(404, "unknown_path", "there is nothing at this path")
        .detail(format!("no resource has the path `{}`", request.uri().path()))
        .help("GET /openapi.json lists every path")
}

async fn wrong_method(request: Request) -> Problem {
    Problem::new(405, "wrong_method", "this path does not take this method")
        .detail(format!("`{}` does not take {}", request.uri().path(), request.method()))
        .help("`Allow` says which methods it takes; GET /openapi.json lists every path with its methods")
}
