//! Changes the upstreams of one pool.

use std::fmt::Write;
use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::LOCATION;
use serde::{Deserialize, Serialize};

use super::answer::Tagged;
use super::extract::{Nothing, Path, find_pool, find_upstream, suggest};
use super::member::{OneOrMany, Whole, resolve};
use super::pools::{tagged_pool, tagged_upstream};
use super::problem::Problem;
use super::views::{PoolView, UpstreamView};
use super::write::{AppliedView, Said, Writer, Written};
use crate::config::PoolEdit;
use crate::control::{Change, Control};
use crate::health::Mode;

/// `POST /v1/pools/{pool}/upstreams` — adds one, or several.
pub(super) async fn add(
    State(control): State<Arc<Control>>,
    Path(pool): Path<String>,
    writer: Writer,
    Said(said): Said<OneOrMany>,
) -> Result<Response, Problem> {
    find_pool(&control.runtime().snapshot(), &pool)?;
    let (named, is_one) = match said {
        OneOrMany::One(one) => (vec![one], true),
        OneOrMany::Many(many) => (many, false),
    };
    if named.is_empty() {
        return Err(Problem::wrong_value("the list is empty", "name at least one upstream"));
    }
    let new = resolve(named).await?;
    let location = new.first().filter(|_| is_one).map(|one| location_of(&pool, &one.address));
    let answer = edit(&control, writer, &pool, PoolEdit::Add(new)).await?;
    let location = location.map(|location| [(LOCATION, location)]);
    Ok((StatusCode::CREATED, location, answer).into_response())
}

/// `PUT /v1/pools/{pool}/upstreams` — exactly these; who stays is known as before.
pub(super) async fn replace(
    State(control): State<Arc<Control>>,
    Path(pool): Path<String>,
    writer: Writer,
    Said(Whole(named)): Said<Whole>,
) -> Result<Tagged<Written<PoolView>>, Problem> {
    find_pool(&control.runtime().snapshot(), &pool)?;
    let new = resolve(named).await?;
    edit(&control, writer, &pool, PoolEdit::Replace(new)).await
}

async fn edit(
    control: &Arc<Control>,
    writer: Writer,
    pool: &str,
    edit: PoolEdit,
) -> Result<Tagged<Written<PoolView>>, Problem> {
    let change = Change::Edit { pool: pool.to_owned(), edits: vec![edit] };
    let applied = writer.apply(control, change).await?;
    Ok(tagged_pool(control, pool)?.map(|view| Written::new(view, applied)))
}

/// What should be different about an upstream.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Patch {
    weight: Option<u64>,
    state: Option<String>,
}

/// `PATCH /v1/pools/{pool}/upstreams/{address}` — another weight, another state, or both.
pub(super) async fn patch(
    State(control): State<Arc<Control>>,
    Path((pool, address)): Path<(String, String)>,
    writer: Writer,
    Said(Patch { weight, state }): Said<Patch>,
) -> Result<Tagged<Written<UpstreamView>>, Problem> {
    let at = find_upstream(&control.runtime().snapshot(), &pool, &address)?.address.clone();
    let mode = state.map(|word| read_mode(&word)).transpose()?;
    let weight = weight.map(|weight| PoolEdit::Weight(at.clone(), weight));
    let mode = mode.map(|mode| PoolEdit::Mode(at.clone(), mode));
    let edits: Vec<PoolEdit> = weight.into_iter().chain(mode).collect();
    if edits.is_empty() {
        return Err(Problem::wrong_value(
            "nothing is said that could be changed",
            "say `weight`, `state`, or both: {\"weight\": 5, \"state\": \"ready\"}",
        ));
    }
    let applied = writer.apply(&control, Change::Edit { pool: pool.clone(), edits }).await?;
    Ok(tagged_upstream(&control, &pool, &address)?.map(|view| Written::new(view, applied)))
}

fn read_mode(word: &str) -> Result<Mode, Problem> {
    Mode::from_word(word).ok_or_else(|| {
        let words = Mode::ALL.map(Mode::word);
        Problem::wrong_value(format!("there is no state `{word}`"), suggest(word, &words))
    })
}

/// An upstream that is gone.
#[derive(Serialize)]
pub(super) struct Removed {
    pool: String,
    address: String,
    /// Requests that it still finishes.
    in_flight: u32,
    applied: AppliedView,
}

/// `DELETE /v1/pools/{pool}/upstreams/{address}` — takes it out; requests that it has finish there.
pub(super) async fn remove(
    State(control): State<Arc<Control>>,
    Path((pool, address)): Path<(String, String)>,
    writer: Writer,
    _: Nothing,
) -> Result<Tagged<Removed>, Problem> {
    let state = find_upstream(&control.runtime().snapshot(), &pool, &address)?;
    let edits = vec![PoolEdit::Remove(state.address.clone())];
    let applied = writer.apply(&control, Change::Edit { pool: pool.clone(), edits }).await?.into();
    let tag = control.pool_tag(find_pool(&control.runtime().snapshot(), &pool)?);
    let (address, in_flight) = (state.address.to_string(), state.in_flight());
    Ok(Tagged::new(tag, Removed { pool, address, in_flight, applied }))
}

/// Where an upstream is found from now on. What a path could not hold is percent-encoded.
pub(super) fn location_of(pool: &str, address: &str) -> String {
    let mut path = format!("/v1/pools/{pool}/upstreams/");
    for byte in address.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte) {
            path.push(char::from(byte));
        } else {
            // A text takes whatever is written to it.
            let _ = write!(path, "%{byte:02X}");
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_one_segment_of_plain_characters() {
        assert_eq!(location_of("app", "127.0.0.1:9001"), "/v1/pools/app/upstreams/127.0.0.1:9001");
        assert_eq!(location_of("app", "[::1]:9001"), "/v1/pools/app/upstreams/%5B::1%5D:9001");
        assert_eq!(
            location_of("app", "unix:/run/ä.sock"),
            "/v1/pools/app/upstreams/unix:%2Frun%2F%C3%A4.sock"
        );
    }
}
