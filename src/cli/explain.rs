//! `evener explain`: which route takes a request, and which upstream would get it.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;
use serde::Deserialize;

use super::client::{Admin, Ask, Client, encoded};
use super::failure::Failure;
use super::output::{Cell, Paint, Table, Tone, listed, percent};

#[derive(Args)]
pub(super) struct Explain {
    /// The path of the request.
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
    reason: Option<String>,
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
    next: Option<String>,
    reason: Option<String>,
    note: Option<String>,
    candidates: Vec<Candidate>,
}

#[derive(Deserialize)]
struct Candidate {
    address: String,
    eligible: bool,
    why_not_detail: Option<String>,
    weight: u64,
    in_flight: u64,
}

#[derive(Deserialize)]
struct Other {
    name: String,
    why_not_detail: String,
}

impl Explain {
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        let client = Client::new(&self.admin)?;
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
            let reason = self.reason.as_deref().unwrap_or("no_route");
            format!("{method} {host}{path} takes no route: {}\n", paint.paint(Tone::Bad, reason))
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
        let mut table = Table::new(&["UPSTREAM", "ELIGIBLE", "#WEIGHT", "#IN FLIGHT", "NOTE"]);
        self.candidates.iter().for_each(|candidate| table.row(candidate.cells()));
        text + &table.render("  ", paint)
    }
}

impl Candidate {
    fn cells(&self) -> [Cell; 5] {
        let eligible =
            if self.eligible { Cell::toned("yes", Tone::Good) } else { Cell::toned("no", Tone::Bad) };
        [
            self.address.as_str().into(),
            eligible,
            self.weight.to_string().into(),
            self.in_flight.to_string().into(),
            self.why_not_detail.clone().unwrap_or_default().into(),
        ]
    }
}
