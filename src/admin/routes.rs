//! The index of the side port.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, get, post};
use axum::{Extension, Router};
use http::Method;

use super::auth::Access;
use super::explain::HeadCheck;
use super::guard::{BODY_BYTES_MAX, Door, TEXT_BYTES_MAX, guard};
use super::problem::Problem;
use super::{
    analytics, config, dashboard, drain, durations, events, explain, guarded, health_check, history,
    infrastructure, lifecycle, live, metrics, monitoring, next, openapi, overrides, plan, pool_edit, pools,
    reload, requests, self_check, stats, stats_history, status, timeline, upgrade, upstream_edit,
};
use crate::control::Control;

type Resource = (&'static str, Access, MethodRouter<Arc<Control>>);

/// No token is needed.
const OPEN: Access = Access::Open;

/// Looking needs `read`, writing needs `write`.
const GUARDED: Access = Access::Guarded { operate: &[] };

/// As [`GUARDED`], but POST needs `operate` only.
const OPERATE: Access = Access::Guarded { operate: &[Method::POST] };

/// As [`GUARDED`], but looking needs `write` too: the text may hold secrets that belong elsewhere.
const SECRET: Access = Access::Secret;

/// Every path, what it wants of those who ask, and who answers there. HEAD goes where GET goes.
pub(super) fn index() -> Vec<Resource> {
    vec![
        ("/", OPEN, get(dashboard::show)),
        ("/assets/{file}", OPEN, get(dashboard::asset)),
        ("/livez", OPEN, get(lifecycle::livez)),
        ("/readyz", OPEN, get(lifecycle::readyz)),
        ("/health", OPEN, get(lifecycle::health)),
        ("/health/ready", OPEN, get(lifecycle::health_ready)),
        ("/metrics", GUARDED, get(metrics::show)),
        ("/v1/status", GUARDED, get(status::show)),
        ("/v1/stats", GUARDED, get(stats::show)),
        ("/v1/stats/durations", GUARDED, get(durations::show)),
        ("/v1/stats/history", GUARDED, get(stats_history::show)),
        ("/v1/reload", GUARDED, post(reload::run)),
        ("/v1/upgrade", GUARDED, post(upgrade::run)),
        ("/v1/config", SECRET, get(config::show).put(config::replace).layer(takes_a_text())),
        ("/v1/config/check", GUARDED, post(plan::check).layer(takes_a_text())),
        ("/v1/config/confirm", GUARDED, post(guarded::confirm)),
        ("/v1/config/guard", GUARDED, get(guarded::show)),
        ("/v1/config/history", GUARDED, get(history::list)),
        ("/v1/config/history/{generation}", SECRET, get(history::show)),
        ("/v1/config/rollback", GUARDED, post(history::roll_back)),
        ("/v1/overrides", GUARDED, get(overrides::list).delete(overrides::drop_all)),
        ("/v1/events", GUARDED, get(events::follow)),
        ("/v1/live", GUARDED, get(live::follow).layer(Extension(Arc::<live::Feed>::default()))),
        ("/v1/pools", GUARDED, get(pools::list)),
        ("/v1/pools/{pool}", GUARDED, get(pools::show_pool).patch(pool_edit::patch)),
        (
            "/v1/pools/{pool}/upstreams",
            GUARDED,
            get(pools::list_upstreams).post(upstream_edit::add).put(upstream_edit::replace),
        ),
        (
            "/v1/pools/{pool}/upstreams/{address}",
            Access::Guarded { operate: &[Method::PATCH] },
            get(pools::show_upstream).patch(upstream_edit::patch).delete(upstream_edit::remove),
        ),
        ("/v1/pools/{pool}/upstreams/{address}/drain", OPERATE, post(drain::run)),
        ("/v1/pools/{pool}/upstreams/{address}/timeline", GUARDED, get(timeline::show)),
        ("/v1/pools/{pool}/next", GUARDED, get(next::show)),
        ("/v1/pools/{pool}/health-check", OPERATE, post(health_check::run)),
        ("/v1/explain", GUARDED, get(explain::show)),
        ("/v1/explain/{request_id}", GUARDED, get(requests::show)),
        ("/v1/requests", GUARDED, get(requests::list)),
        ("/v1/self-check", GUARDED, get(self_check::run)),
        ("/openapi.json", GUARDED, get(openapi::show)),
        ("/api/infrastructure/load-balancer/status", GUARDED, get(infrastructure::status)),
        ("/api/infrastructure/load-balancer/next-server", GUARDED, get(infrastructure::next_server)),
        ("/api/infrastructure/load-balancer/health-check", OPERATE, post(infrastructure::health_check)),
        ("/api/infrastructure/load-balancer/initialize", GUARDED, post(infrastructure::initialize)),
        ("/api/infrastructure/stats", GUARDED, get(infrastructure::stats)),
        ("/api/monitoring/health", GUARDED, get(monitoring::health)),
        ("/api/monitoring/metrics", GUARDED, get(monitoring::metrics)),
        ("/api/monitoring/analytics", GUARDED, get(analytics::show)),
    ]
}

/// A configuration is larger than any other body.
fn takes_a_text() -> DefaultBodyLimit {
    DefaultBodyLimit::max(TEXT_BYTES_MAX)
}

pub(super) fn router(control: Arc<Control>, check: HeadCheck) -> Router {
    let index = index();
    let door = Door::new(control.clone(), index.iter().map(|(path, access, _)| (*path, *access)));
    let routes =
        index.into_iter().fold(Router::new(), |routes, (path, _, methods)| routes.route(path, methods));
    routes
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(Extension(check))
        .layer(from_fn_with_state(Arc::new(door), guard))
        .layer(from_fn_with_state(control.clone(), upgrade::last_answer))
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
