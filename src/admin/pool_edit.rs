//! Changes one pool as a whole.

use std::sync::Arc;

use axum::extract::State;
use serde::Deserialize;
use serde_json::Value;

use super::answer::Tagged;
use super::extract::{Path, read_strategy};
use super::pools::tagged_pool;
use super::problem::Problem;
use super::views::PoolView;
use super::write::{Said, Writer, Written};
use crate::config::{HashKey, PoolEdit};
use crate::control::{Change, Control};

/// What a pool's strategy should be.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Patch {
    strategy: String,
    hash: Option<Value>,
}

/// `PATCH /v1/pools/{pool}` — choose by another strategy from now on.
pub(super) async fn patch(
    State(control): State<Arc<Control>>,
    Path(pool): Path<String>,
    writer: Writer,
    Said(Patch { strategy, hash }): Said<Patch>,
) -> Result<Tagged<Written<PoolView>>, Problem> {
    let edits = vec![strategy_edit(&strategy, hash.as_ref())?];
    let applied = writer.apply(&control, Change::Edit { pool: pool.clone(), edits }).await?;
    Ok(tagged_pool(&control, &pool)?.map(|view| Written::new(view, applied)))
}

/// The edit that `strategy` and `hash` of a request ask for.
pub(super) fn strategy_edit(strategy: &str, hash: Option<&Value>) -> Result<PoolEdit, Problem> {
    let kind = read_strategy(strategy).map_err(|(detail, help)| Problem::wrong_value(detail, help))?;
    let read = |hash: &Value| {
        HashKey::from_json(hash).ok_or_else(|| {
            Problem::wrong_value(
                format!("`hash` cannot be {hash}"),
                "write one of {\"client_ip\": true}, {\"path\": true}, {\"header\": \"x-user\"} and {\"cookie\": \"session\"}",
            )
        })
    };
    Ok(PoolEdit::Strategy { kind, hash: hash.map(read).transpose()? })
}
