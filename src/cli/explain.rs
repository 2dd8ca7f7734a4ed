//! `evener explain`: which route takes a request, and which upstream would get it; or how a request went that
//! was made.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use serde::Deserialize;

use super::client::{Admin, Ask, Client, encoded};
use super::failure::Failure;
use super::output::{Cell, Paint, Table, Tone, listed, percent};
use super::request;

/// A request that may come, and that no route takes.
const NO_ROUTE: &str = "no_route";

#[derive(Args)]
pub(super) struct Explain {
    /// The path of a request, from its slash; or the id of one that was made (`X-Request-Id`).
    #[arg(value_name = "PATH|REQUEST_ID", value_parser = NonEmptyStringValueParser::new())]
    path: String,
    /// The host that it names.
    #[arg(long)]
    host: Option<String>,
    /// Its method [default: GET].
    #[arg(long)]
    method: Option<String>,
    /// One of its headers; repeat for more.
    #[arg(long, value_name = "NAME:VALUE")]
    header: Vec<String>,
    #[command(flatten)]
    admin: Admin,
}

#[derive(Deserialize)]
struct View {
    request: Request,
    route: Option<Route>,
    status: Option<u16>,
    reason: Option<String>,
    detail: Option<String>,
    help: Option<String>,
    pools: Vec<Pool>,
    other_routes: Vec<Other>,
    other_routes_omitted: u64,
}

#[derive(Deserialize)]
struct Request {
    host: String,
    method: String,
    path: String,
}

#[derive(Deserialize)]
struct Route {
    name: String,
    why: Vec<String>,
}

#[derive(Deserialize)]
struct Pool {
    share: f64,
    #[serde(rename = "pool")]
    name: String,
    strategy: String,
    rule: Option<String>,
    next: Option<String>,
    reason: Option<String>,
    note: Option<String>,
    #[serde(default)]
    excluded: Vec<Excluded>,
    candidates: Vec<Candidate>,
    #[serde(default)]
    candidates_omitted: u64,
}

/// How many upstreams are out for one reason.
#[derive(Deserialize)]
pub(super) struct Excluded {
    why_not: String,
    why_not_detail: String,
    upstreams: u64,
}

impl Excluded {
    pub(super) fn tell(&self) -> String {
        let Self { why_not, why_not_detail, upstreams } = self;
        format!("  {upstreams} {why_not}: {why_not_detail}\n")
    }
}

#[derive(Deserialize)]
struct Candidate {
    address: String,
    eligible: bool,
    why_not_detail: Option<String>,
    weight: u64,
    in_flight: u64,
    score: Option<Score>,
}

/// What the next request would cost an upstream, factor by factor.
#[derive(Deserialize)]
pub(super) struct Score {
    in_flight: u64,
    load: f64,
    multiplier: f64,
    warmth: f64,
    stall: Option<f64>,
    cost: Option<f64>,
}

#[derive(Deserialize)]
struct Other {
    name: String,
    why_not_detail: String,
}

impl Explain {
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        let client = Client::new(&self.admin)?;
        let is_about_none = self.host.is_none() && self.method.is_none() && self.header.is_empty();
        if is_about_none && !self.path.starts_with('/') {
            return request::run(&self.path, &client);
        }
        let mut path = format!("/v1/explain?path={}", encoded(&self.path));
        let one = |name, value: &Option<String>| value.clone().map(|value| (name, value));
        let more = self.header.iter().map(|header| ("header", header.clone()));
        for (name, value) in
            one("host", &self.host).into_iter().chain(one("method", &self.method)).chain(more)
        {
            let _ = write!(path, "&{name}={}", encoded(&value));
        }
        client.show(&Ask::get(path), |view: &View| view.tell(Paint::for_stdout()))?;
        Ok(ExitCode::SUCCESS)
    }
}

impl View {
    fn tell(&self, paint: Paint) -> String {
        let Request { host, method, path } = &self.request;
        let mut text = if let Some(Route { name, .. }) = &self.route {
            format!("{method} {host}{path} takes the route {}\n", paint.paint(Tone::Heading, name))
        } else {
            let reason = self.reason.as_deref().unwrap_or(NO_ROUTE);
            let told = paint.paint(Tone::Bad, reason);
            match (self.status, &self.detail) {
                (Some(status), Some(detail)) if reason != NO_ROUTE => {
                    format!("{method} {host}{path} is refused with {status} {told}: {detail}\n")
                }
                _ => format!("{method} {host}{path} takes no route: {told}\n"),
            }
        };
        for why in self.route.iter().flat_map(|route| &route.why) {
            let _ = writeln!(text, "  {why}");
        }
        if let Some(help) = &self.help {
            let _ = writeln!(text, "  = help: {help}");
        }
        for pool in &self.pools {
            text.push_str(&pool.tell(paint));
        }
        text + &self.others()
    }

    fn others(&self) -> String {
        if self.other_routes.is_empty() {
            return String::new();
        }
        let tell = |Other { name, why_not_detail }: &Other| format!("  {name}: {why_not_detail}");
        let mut lines = listed(self.other_routes.iter().map(tell));
        if self.other_routes_omitted > 0 {
            lines.push(format!("  … and {} more", self.other_routes_omitted));
        }
        format!("\nother routes\n{}\n", lines.join("\n"))
    }
}

impl Pool {
    fn tell(&self, paint: Paint) -> String {
        let Self { name, strategy, share, .. } = self;
        let next = match (&self.next, &self.reason) {
            (Some(address), _) => format!("the next is {}", paint.paint(Tone::Good, address)),
            (None, Some(reason)) => paint.paint(Tone::Bad, reason).into_owned(),
            (None, None) => "nobody is eligible now".to_owned(),
        };
        let share =
            if *share < 1.0 { format!(", {} of its requests", percent(*share)) } else { String::new() };
        let mut text = format!("\npool {name}: {strategy}{share}; {next}\n");
        if let Some(note) = &self.note {
            let _ = writeln!(text, "  {note}");
        }
        if let Some(rule) = &self.rule {
            let _ = writeln!(text, "  {rule}");
        }
        let has_scores = self.candidates.iter().any(|candidate| candidate.score.is_some());
        let scores: &[&str] = if has_scores { &Score::HEADINGS } else { &["#IN FLIGHT"] };
        let mut table = Table::new(&[&["UPSTREAM", "ELIGIBLE", "#WEIGHT"], scores, &["NOTE"]].concat());
        self.candidates.iter().for_each(|candidate| table.row(candidate.cells()));
        text.push_str(&table.render("  ", paint));
        if self.candidates_omitted > 0 {
            let _ = writeln!(text, "  … and {} more", self.candidates_omitted);
            self.excluded.iter().for_each(|excluded| text.push_str(&excluded.tell()));
        }
        text
    }
}

impl Candidate {
    fn cells(&self) -> Vec<Cell> {
        let eligible =
            if self.eligible { Cell::toned("yes", Tone::Good) } else { Cell::toned("no", Tone::Bad) };
        let mut cells = vec![self.address.as_str().into(), eligible, self.weight.to_string().into()];
        match &self.score {
            Some(score) => cells.extend(score.cells()),
            None => cells.push(self.in_flight.to_string().into()),
        }
        cells.push(self.why_not_detail.clone().unwrap_or_default().into());
        cells
    }
}

impl Score {
    /// Of the columns that [`Score::cells`] fills.
    pub(super) const HEADINGS: [&str; 6] =
        ["#IN FLIGHT", "#LOAD", "#MULTIPLIER", "#WARMTH", "#STALL", "#COST"];

    /// A dash is what the strategy does not look at.
    pub(super) fn cells(&self) -> [Cell; 6] {
        let factor = |value: Option<f64>| Cell::from(value.map_or("-".to_owned(), |value| value.to_string()));
        [
            self.in_flight.to_string().into(),
            factor(Some(self.load)),
            factor(Some(self.multiplier)),
            factor(Some(self.warmth)),
            factor(self.stall),
            factor(self.cost),
        ]
    }
}
