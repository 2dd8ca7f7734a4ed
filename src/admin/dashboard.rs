//! The page for people: everything that the side port knows, drawn.
//!
//! ```text
//!   GET /  ──► index.html ──► /assets/dashboard.css, /assets/*.js      (open: they hold no data)
//!                                   └──► GET /v1/live, with a token     (guarded like everything else)
//! ```
//!
//! Nothing is fetched from elsewhere and nothing is built: the files below `dashboard/` are served as they are.
//! The browser is told to run no other script, whatever a name or an error from an upstream may say; the page
//! itself only ever sets text.

use axum::response::{IntoResponse, Response};
use http::HeaderValue;
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};

use super::extract::{Parameters, Path};
use super::problem::Problem;

/// What the page may do: run, draw and ask what is ours, and be shown in no frame. No text ever becomes markup.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; \
    require-trusted-types-for 'script'; trusted-types 'none'";

const PAGE: &str = include_str!("dashboard/index.html");

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// Name below `/assets/`, media type, text.
const ASSETS: [(&str, &str, &str); 12] = [
    ("dashboard.css", "text/css; charset=utf-8", include_str!("dashboard/dashboard.css")),
    ("dashboard.js", JAVASCRIPT, include_str!("dashboard/dashboard.js")),
    ("actions.js", JAVASCRIPT, include_str!("dashboard/actions.js")),
    ("charts.js", JAVASCRIPT, include_str!("dashboard/charts.js")),
    ("events.js", JAVASCRIPT, include_str!("dashboard/events.js")),
    ("figures.js", JAVASCRIPT, include_str!("dashboard/figures.js")),
    ("page.js", JAVASCRIPT, include_str!("dashboard/page.js")),
    ("pools.js", JAVASCRIPT, include_str!("dashboard/pools.js")),
    ("requests.js", JAVASCRIPT, include_str!("dashboard/requests.js")),
    ("server.js", JAVASCRIPT, include_str!("dashboard/server.js")),
    ("users.js", JAVASCRIPT, include_str!("dashboard/users.js")),
    ("verdicts.js", JAVASCRIPT, include_str!("dashboard/verdicts.js")),
];

/// `GET /` — the page.
pub(super) async fn show(parameters: Parameters) -> Result<Response, Problem> {
    parameters.finish()?;
    Ok(file("text/html; charset=utf-8", PAGE))
}

/// `GET /assets/{file}` — what the page is made of.
pub(super) async fn asset(Path(name): Path<String>, parameters: Parameters) -> Result<Response, Problem> {
    parameters.finish()?;
    let found = ASSETS.iter().find(|(known, ..)| *known == name);
    found.map(|(_, media_type, text)| file(media_type, text)).ok_or_else(|| {
        Problem::new(404, "unknown_asset", "the dashboard has no such file")
            .detail(format!("there is no asset `{name}`"))
            .help("GET / names those that there are")
    })
}

fn file(media_type: &'static str, text: &'static str) -> Response {
    let mut response = ([(CONTENT_TYPE, media_type)], text).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}
