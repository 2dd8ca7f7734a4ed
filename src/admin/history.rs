//! The configurations that ran, and the way back to them.

use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;
use http::header::{CONTENT_TYPE, ETAG};
use serde::{Deserialize, Serialize};

use super::answer::Json;
use super::config::TOML;
use super::extract::{Parameters, Path};
use super::problem::Problem;
use super::write::{Applied, SaidOrNot, Writer, off_the_loop};
use crate::control::{Change, Control, HistoryEntry, Rejected};

/// `GET /v1/config/history` — newest first.
pub(super) async fn list(
    State(control): State<Arc<Control>>,
    parameters: Parameters,
) -> Result<impl IntoResponse, Problem> {
    parameters.finish()?;
    let generation = control.running().generation;
    let tag = control.tag_of(generation);
    let entries = entries(control).await?.map(|entry| EntryView::of(entry, generation)).collect();
    Ok(([(ETAG, tag)], Json(HistoryView { generation, entries })))
}

/// Newest first. A writer at work is waited for.
async fn entries(control: Arc<Control>) -> Result<impl Iterator<Item = HistoryEntry>, Problem> {
    Ok(off_the_loop(move || Ok(control.history())).await?.into_iter().rev())
}

/// `GET /v1/config/history/{generation}` — the file's text of that time.
pub(super) async fn show(
    State(control): State<Arc<Control>>,
    Path(generation): Path<String>,
    parameters: Parameters,
) -> Result<impl IntoResponse, Problem> {
    parameters.finish()?;
    let generation = read_generation(&generation)?;
    let tag = control.tag();
    let found = entries(control).await?.find(|entry| entry.generation == generation);
    let entry = found.ok_or(Rejected::UnknownGeneration(Some(generation)))?;
    Ok(([(ETAG, tag)], [(CONTENT_TYPE, TOML)], entry.text.to_string()))
}

fn read_generation(text: &str) -> Result<u64, Problem> {
    text.parse().map_err(|_| {
        Problem::bad_parameter(
            format!("`{text}` is not the number of a generation"),
            "GET /v1/config/history lists them",
        )
    })
}

/// `POST /v1/config/rollback` — runs what ran in `generation`, or, without one, before the present one.
pub(super) async fn roll_back(
    State(control): State<Arc<Control>>,
    writer: Writer,
    parameters: Parameters,
    SaidOrNot(to): SaidOrNot<RollBack>,
) -> Result<Applied, Problem> {
    parameters.finish()?;
    writer.apply(&control, Change::RollBack(to.generation)).await.map(Applied)
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RollBack {
    generation: Option<u64>,
}

#[derive(Serialize)]
struct HistoryView {
    /// What runs now.
    generation: u64,
    entries: Vec<EntryView>,
}

#[derive(Serialize)]
struct EntryView {
    /// 0: a text that somebody wrote into the file, and that was replaced before it ran.
    generation: u64,
    at: String,
    origin: String,
    who: String,
    why: Option<String>,
    what: String,
    /// How many settings differed from the file.
    overrides: usize,
    current: bool,
}

impl EntryView {
    fn of(entry: HistoryEntry, now: u64) -> Self {
        Self {
            generation: entry.generation,
            at: entry.at,
            origin: entry.origin,
            who: entry.who,
            why: entry.why,
            what: entry.what,
            overrides: entry.overrides.len(),
            current: entry.generation == now,
        }
    }
}
