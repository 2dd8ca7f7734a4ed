//! One plain table, for scripts: a row per upstream, its words without blanks but in the last column.

use super::super::output::{Cell, Paint, Table, Tone};
use super::board::Board;
use super::picture::Row;
use super::verdict::Level;

/// The rows of the board, in its order.
pub(super) fn table(board: &Board, paint: Paint) -> String {
    let mut table = Table::new(&[
        "POOL",
        "UPSTREAM",
        "STATUS",
        "STATE",
        "HEALTH",
        "#WEIGHT",
        "#IN_FLIGHT",
        "#REQ/S",
        "#ERR/S",
        "#LATENCY_MS",
        "#P99_MS",
        "#SHARE",
        "#FAIR",
        "WHY",
    ]);
    let rows = board.order.iter().filter_map(|index| board.rows().get(*index));
    rows.for_each(|row| table.row(cells(row)));
    table.render("", paint)
}

fn cells(row: &Row) -> [Cell; 14] {
    let tone = match row.verdict.level() {
        Level::Bad => Tone::Bad,
        Level::Odd | Level::Off => Tone::Odd,
        Level::Well => Tone::Good,
    };
    [
        row.member.pool.as_str().into(),
        row.member.address.as_str().into(),
        Cell::toned(row.verdict.word().replace(' ', "_"), tone),
        row.state.as_str().into(),
        row.health.as_str().into(),
        row.weight.to_string().into(),
        row.in_flight.to_string().into(),
        figure(row.rate.requests, 1),
        figure(row.rate.errors, 1),
        figure(row.latency_ms, 3),
        figure(row.p99_ms, 3),
        figure(row.share, 3),
        figure(Some(row.fair), 3),
        row.why.as_str().into(),
    ]
}

fn figure(value: Option<f64>, decimals: usize) -> Cell {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.decimals$}")).into()
}
