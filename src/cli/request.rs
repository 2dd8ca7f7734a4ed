//! `evener explain REQUEST_ID`: how a request went that was made.

use std::fmt::Write as _;
use std::process::ExitCode;

use serde::Deserialize;

use super::client::{Ask, Client, encoded};
use super::explain::{Excluded, Score};
use super::failure::Failure;
use super::output::{Cell, Paint, Table, Tone};

#[derive(Deserialize)]
struct View {
    request_id: String,
    time: String,
    listener: String,
    client: Option<String>,
    protocol: String,
    tls: Option<String>,
    request: Head,
    route: Option<Route>,
    pool: Option<String>,
    attempts: Vec<Attempt>,
    attempts_omitted: u64,
    nobody: Option<Standing>,
    status: u16,
    reason: Option<String>,
    help: Option<String>,
    bytes_in: u64,
    grpc_status: Option<u8>,
    bytes_out: u64,
    timings: Timings,
    same_id: Vec<Other>,
}

#[derive(Deserialize)]
struct Head {
    method: String,
    host: String,
    path: String,
    is_cut: bool,
}

#[derive(Deserialize)]
struct Route {
    name: String,
    why: Option<Vec<String>>,
    note: Option<String>,
}

#[derive(Deserialize)]
struct Attempt {
    number: u64,
    upstream: String,
    outcome: String,
    detail: String,
    status: Option<u16>,
    connection: String,
    picked_ms: f64,
    took_ms: Option<f64>,
    in_flight: u64,
    candidates: Option<Standing>,
    then: Option<String>,
    note: Option<String>,
}

#[derive(Deserialize)]
struct Standing {
    at_ms: f64,
    strategy: String,
    rule: String,
    upstreams: u64,
    eligible: Option<u64>,
    excluded: Vec<Excluded>,
    candidates: Vec<Stood>,
    candidates_omitted: u64,
}

#[derive(Deserialize)]
struct Stood {
    address: String,
    chosen: bool,
    why_not: Option<String>,
    weight: u64,
    score: Score,
}

#[derive(Deserialize)]
#[allow(clippy::struct_field_names)]
struct Timings {
    duration_ms: f64,
    picked_ms: Option<f64>,
    answered_ms: Option<f64>,
}

#[derive(Deserialize)]
struct Other {
    time: String,
    status: u16,
}

/// Asks for a request by its id.
pub(super) fn run(request_id: &str, client: &Client) -> Result<ExitCode, Failure> {
    let path = format!("/v1/explain/{}", encoded(request_id));
    client.show(&Ask::get(path), |view: &View| view.tell(Paint::for_stdout()))?;
    Ok(ExitCode::SUCCESS)
}

impl View {
    fn tell(&self, paint: Paint) -> String {
        let mut text = self.headline(paint) + &self.routed();
        for attempt in &self.attempts {
            text.push_str(&attempt.tell(paint));
        }
        if self.attempts_omitted > 0 {
            let _ = writeln!(text, "\n… and {} more attempts", self.attempts_omitted);
        }
        if let Some(nobody) = &self.nobody {
            let _ = writeln!(text, "\n{} ms: nobody could be picked", nobody.at_ms);
            text.push_str(&nobody.tell(paint));
        }
        text + &self.outcome(paint)
    }

    fn headline(&self, paint: Paint) -> String {
        let Head { method, host, path, is_cut } = &self.request;
        let cut = if *is_cut { "…" } else { "" };
        let head = format!("{method} {host}{path}{cut}");
        let head =
            if method.is_empty() { "a request whose head was not understood".to_owned() } else { head };
        let client = self.client.as_deref().unwrap_or("somebody who is not on a network");
        let tls = self.tls.as_ref().map(|tls| format!(" over {tls}")).unwrap_or_default();
        format!(
            "{}\n  {}, from {client} to listener {}, {}{tls}\n  request id {}\n",
            paint.paint(Tone::Heading, &head),
            self.time,
            self.listener,
            self.protocol,
            self.request_id
        )
    }

    fn routed(&self) -> String {
        let Some(Route { name, why, note }) = &self.route else { return String::new() };
        let mut text = format!("\nroute {name}");
        if let Some(pool) = &self.pool {
            let _ = write!(text, ", to pool {pool}");
        }
        text.push('\n');
        for line in why.iter().flatten().chain(note) {
            let _ = writeln!(text, "  {line}");
        }
        text
    }

    fn outcome(&self, paint: Paint) -> String {
        let tone = if self.status >= 500 || self.reason.is_some() { Tone::Bad } else { Tone::Good };
        let reason = self.reason.as_ref().map(|reason| format!(" {reason}")).unwrap_or_default();
        let call = self.grpc_status.map(|code| format!(", grpc-status {code}")).unwrap_or_default();
        let told = format!("{}{call}{reason}", self.status);
        let Timings { duration_ms, picked_ms, answered_ms } = &self.timings;
        let mut text = format!("\nanswered {} after {duration_ms} ms", paint.paint(tone, &told));
        if let Some(picked) = picked_ms {
            let _ = write!(text, "; picked after {picked} ms");
        }
        if let Some(answered) = answered_ms {
            let _ = write!(text, ", the answer began after {answered} ms");
        }
        let _ = writeln!(text, "; {} bytes in, {} bytes out", self.bytes_in, self.bytes_out);
        if let Some(help) = &self.help {
            let _ = writeln!(text, "  = help: {help}");
        }
        for Other { time, status } in &self.same_id {
            let _ = writeln!(text, "  another request of the same id: {time}, {status}");
        }
        text
    }
}

impl Attempt {
    fn tell(&self, paint: Paint) -> String {
        let Self { number, upstream, outcome, detail, in_flight, .. } = self;
        let (told, tone) = match (outcome.as_str(), self.status) {
            ("answered", Some(status)) if status < 500 => (format!("answered {status}"), Tone::Good),
            ("answered", Some(status)) => (format!("answered {status}"), Tone::Bad),
            _ => (format!("{outcome} ({detail})"), Tone::Bad),
        };
        let mut text =
            format!("\n{} ms: attempt {number} at {upstream}: {}", self.picked_ms, paint.paint(tone, &told));
        if let Some(took) = self.took_ms {
            let _ = write!(text, " after {took} ms");
        }
        let _ = writeln!(text, "\n  connection {}, {in_flight} in flight there with it", self.connection);
        for line in self.then.iter().chain(&self.note) {
            let _ = writeln!(text, "  {line}");
        }
        if let Some(candidates) = &self.candidates {
            text.push_str(&candidates.tell(paint));
        }
        text
    }
}

impl Standing {
    fn tell(&self, paint: Paint) -> String {
        let mut text = format!("  {}: {}\n", self.strategy, self.rule);
        if let Some(eligible) = self.eligible {
            let _ = writeln!(text, "  {eligible} of {} upstreams eligible", self.upstreams);
        }
        self.excluded.iter().for_each(|excluded| text.push_str(&excluded.tell()));
        let mut table = Table::new(&[&["UPSTREAM", "", "#WEIGHT"], Score::HEADINGS.as_slice()].concat());
        self.candidates.iter().for_each(|candidate| table.row(candidate.cells()));
        text.push_str(&table.render("  ", paint));
        if self.candidates_omitted > 0 {
            let _ = writeln!(text, "  … and {} more", self.candidates_omitted);
        }
        text
    }
}

impl Stood {
    fn cells(&self) -> impl Iterator<Item = Cell> {
        let standing = match (&self.why_not, self.chosen) {
            (_, true) => Cell::toned("chosen", Tone::Good),
            (Some(why_not), false) => Cell::toned(why_not.as_str(), Tone::Bad),
            (None, false) => Cell::from(""),
        };
        [Cell::from(self.address.as_str()), standing, self.weight.to_string().into()]
            .into_iter()
            .chain(self.score.cells())
    }
}
