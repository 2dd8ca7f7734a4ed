//! The board on a terminal of any size: what matters least is left out first.
//!
//! ```text
//!   title, figures, what is wrong      always
//!   pools                              from 12 lines
//!   upstreams                          always
//!   the chosen one in full             from 18 lines
//!   keys                               always
//! ```

mod columns;
mod popup;

use std::fmt::Write as _;
use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Paragraph, Wrap};

use super::super::output::{counted, milliseconds, percent, time_span};
use super::board::{Board, Link, Mode};
use super::picture::{Picture, PoolRow, Row};
use super::verdict::{Level, Verdict, clock};
use columns::{Columns, fitted, per_second};

/// Below that there is nothing that could be told.
const HEIGHT_MIN: u16 = 3;
const HEIGHT_WITH_NOTES: u16 = 6;
const HEIGHT_WITH_POOLS: u16 = 12;
const HEIGHT_WITH_DETAIL: u16 = 18;
const DETAIL_LINES: u16 = 4;

/// What the terminal can show.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) is_coloured: bool,
    pub(super) is_unicode: bool,
}

/// Where and how often we ask.
#[derive(Clone, Copy)]
pub(super) struct Scene<'a> {
    pub(super) look: Look,
    pub(super) server: &'a str,
    pub(super) every: Duration,
    pub(super) now: Duration,
}

/// Draws all of it. The board learns how many rows there is room for.
pub(super) fn draw(frame: &mut Frame<'_>, board: &mut Board, scene: &Scene<'_>) {
    let area = frame.area();
    if area.height < HEIGHT_MIN || area.width == 0 {
        return frame.render_widget(Line::raw("too small"), area);
    }
    let height = area.height;
    let pool_lines = if height >= HEIGHT_WITH_POOLS { pool_lines(board, height) } else { 0 };
    let heights = [
        1,
        1,
        u16::from(height >= HEIGHT_WITH_NOTES),
        pool_lines,
        if height >= HEIGHT_WITH_DETAIL { DETAIL_LINES } else { 0 },
        1,
    ];
    let [title, figures, notes, pools, detail, keys] = heights.map(Constraint::Length);
    let parts = [title, figures, notes, pools, Constraint::Min(0), detail, keys];
    let [title, figures, notes, pools, upstreams, detail, keys] = Layout::vertical(parts).areas(area);
    frame.render_widget(title_line(board, scene), title);
    frame.render_widget(figures_line(board, scene), figures);
    frame.render_widget(notes_line(board, scene), notes);
    draw_pools(frame, board, scene.look, pools);
    draw_upstreams(frame, board, scene.look, upstreams);
    draw_detail(frame, board, scene.look, detail);
    frame.render_widget(keys_line(board, scene), keys);
    popup::draw(frame, board, scene.look);
}

impl Look {
    pub(super) const fn symbol(self, level: Level) -> &'static str {
        match (level, self.is_unicode) {
            (Level::Bad, true) => "✖",
            (Level::Bad, false) => "X",
            (Level::Odd, true) => "▲",
            (Level::Odd, false) => "!",
            (Level::Off, true) => "‖",
            (Level::Off, false) => "=",
            (Level::Well, _) => " ",
        }
    }

    /// Colour only beside a symbol and a word.
    pub(super) fn style(self, level: Level) -> Style {
        let plain = Style::new();
        match level {
            Level::Bad if self.is_coloured => plain.fg(Color::Red).add_modifier(Modifier::BOLD),
            Level::Odd if self.is_coloured => plain.fg(Color::Yellow),
            Level::Bad | Level::Odd => plain.add_modifier(Modifier::BOLD),
            Level::Off => plain.add_modifier(Modifier::DIM),
            Level::Well => plain,
        }
    }

    pub(super) const fn ellipsis(self) -> &'static str {
        if self.is_unicode { "…" } else { "~" }
    }
}

fn bold<'a>(text: impl Into<std::borrow::Cow<'a, str>>) -> Span<'a> {
    Span::styled(text, Style::new().add_modifier(Modifier::BOLD))
}

fn reversed(style: Style) -> Style {
    style.add_modifier(Modifier::REVERSED)
}

fn title_line<'a>(board: &Board, scene: &Scene<'a>) -> Line<'a> {
    let every = format!("every {:?}", scene.every);
    let Some(Picture { status, .. }) = &board.picture else {
        return Line::from(vec![bold("Evener"), format!("  {}  {every}", scene.server).into()]);
    };
    let level = match status.condition.as_str() {
        "ok" => Level::Well,
        "down" => Level::Bad,
        _ => Level::Odd,
    };
    let symbol = format!("{} ", scene.look.symbol(level));
    let symbol = symbol.trim_start();
    let (up, generation) = (time_span(status.uptime_seconds), status.generation);
    Line::from(vec![
        bold(format!("Evener {} ", status.version)),
        Span::styled(format!("{symbol}{}", status.condition), scene.look.style(level)),
        format!("  up {up}  generation {generation}  {}  {every}", scene.server).into(),
    ])
}

fn figures_line(board: &Board, scene: &Scene<'_>) -> Line<'static> {
    let Some(Picture { status, rate, percentiles, is_recent, connections, .. }) = &board.picture else {
        return Line::raw("");
    };
    let errors = rate.errors.is_some_and(|errors| errors > 0.0);
    let errors = scene.look.style(if errors { Level::Bad } else { Level::Well });
    let [p50, p99] = percentiles.map(milliseconds);
    let since = if *is_recent { "" } else { " since the start" };
    let in_flight = status.totals.in_flight;
    Line::from(vec![
        bold(format!("{} req/s", per_second(rate.requests))),
        Span::styled(format!("  {} err/s", per_second(rate.errors)), errors),
        format!("  p50 {p50}  p99 {p99}{since}  {in_flight} in flight  {connections} connections").into(),
    ])
}

/// What is wrong: with the server, or in it.
fn notes_line<'a>(board: &Board, scene: &Scene<'_>) -> Line<'a> {
    let age = board.age(scene.now);
    match &board.link {
        Link::Waiting => return Line::raw("waiting for the first answer"),
        Link::Lost(why) => return lost_line(why, age, scene.look),
        Link::Fine => {}
    }
    let is_late = |age: Duration| age > scene.every * 2 + LATE;
    if let Some(age) = age.filter(|age| is_late(*age)) {
        return lost_line("no answer", Some(age), scene.look);
    }
    let Some(picture) = &board.picture else { return Line::raw("") };
    let mut parts = vec![verdicts(picture, scene.look)];
    parts.push(alarms(picture, scene.look));
    parts.extend(changes(picture).into_iter().map(|text| Span::raw(format!("  {text}"))));
    Line::from(parts)
}

/// An answer may take so long before anybody is told of it.
const LATE: Duration = Duration::from_secs(2);

fn lost_line<'a>(why: &str, age: Option<Duration>, look: Look) -> Line<'a> {
    let age =
        age.map_or_else(String::new, |age| format!(" (figures are {} old)", time_span(age.as_secs_f64())));
    let text = format!("{} server lost: {why}; trying again{age}", look.symbol(Level::Bad));
    Line::styled(text, reversed(look.style(Level::Bad)))
}

/// `2 down, 1 draining`
fn verdicts<'a>(picture: &Picture, look: Look) -> Span<'a> {
    let mut verdicts: Vec<Verdict> = picture.rows.iter().map(|row| row.verdict).collect();
    verdicts.sort_unstable();
    let groups =
        verdicts.chunk_by(|one, other| one == other).filter_map(|group| Some((group.first()?, group.len())));
    let worst = verdicts.first().map_or(Level::Well, |verdict| verdict.level());
    let words: Vec<String> = groups.map(|(verdict, count)| format!("{count} {}", verdict.word())).collect();
    let symbol = look.symbol(worst).trim();
    let blank = if symbol.is_empty() { "" } else { " " };
    Span::styled(format!("{symbol}{blank}{}", words.join(", ")), look.style(worst))
}

fn alarms<'a>(picture: &Picture, look: Look) -> Span<'a> {
    let of = |row: &Row| row.alarms.iter().map(|kind| format!("{kind} {}", row.member)).collect::<Vec<_>>();
    let words: Vec<String> = picture.rows.iter().flat_map(of).collect();
    match words.len() {
        0 => Span::raw("  no alarms"),
        1 => Span::styled(format!("  alarm: {}", words.concat()), look.style(Level::Odd)),
        count => Span::styled(format!("  {count} alarms: {}", words.join(", ")), look.style(Level::Odd)),
    }
}

/// What is not as the file says.
fn changes(picture: &Picture) -> Vec<String> {
    let status = &picture.status;
    let overrides = (status.overrides > 0).then(|| counted(status.overrides, "override"));
    let refusal = status.last_refusal.then(|| "last change refused (`evener status`)".to_owned());
    let guard = status.guard.as_ref().map(|guard| format!("guard: {guard}"));
    [refusal, overrides, guard].into_iter().flatten().collect()
}

/// Lines for pools: their heading, a quarter of the screen at most, and where that ends.
fn pool_lines(board: &Board, height: u16) -> u16 {
    let pools = board.picture.as_ref().map_or(0, |picture| picture.pools.len());
    let most = (height / 4).max(2);
    u16::try_from(pools + 1).unwrap_or(u16::MAX).min(most)
}

fn draw_pools(frame: &mut Frame<'_>, board: &Board, look: Look, area: Rect) {
    let Some(picture) = board.picture.as_ref().filter(|_| area.height > 0) else { return };
    let room = usize::from(area.height).saturating_sub(1);
    let mut pools: Vec<&PoolRow> = picture.pools.iter().collect();
    // The sick ones are in sight, however many there are.
    pools.sort_by_key(|pool| match pool.level {
        Level::Bad => 0,
        Level::Odd => 1,
        Level::Off | Level::Well => 2,
    });
    let is_cut = pools.len() > room;
    let shown = if is_cut { room.saturating_sub(1) } else { room };
    let width = usize::from(area.width);
    let mut lines = vec![Line::from(bold(pool_cells(width, look, HEADINGS)))];
    lines.extend(pools.iter().take(shown).map(|pool| pool_line(pool, width, look)));
    if is_cut {
        let more = &pools[shown.min(pools.len())..];
        lines.push(Line::raw(format!("   {} and {} more pools", look.ellipsis(), more.len())));
    }
    render_lines(frame, lines, area);
}

const HEADINGS: [&str; 7] = ["POOL", "STRATEGY", "ELIGIBLE", "FLIGHT", "WAITING", "REQ/S", "ERR/S"];

fn pool_line<'a>(pool: &PoolRow, width: usize, look: Look) -> Line<'a> {
    let eligible = format!("{} of {}", pool.eligible, pool.upstreams);
    let (in_flight, waiting) = (pool.in_flight.to_string(), pool.waiting.to_string());
    let (rate, errors) = (per_second(pool.rate.requests), per_second(pool.rate.errors));
    let cells = pool_cells(
        width,
        look,
        [&pool.name, &pool.strategy, &eligible, &in_flight, &waiting, &rate, &errors],
    );
    let symbol = look.symbol(pool.level);
    Line::styled(format!(" {symbol}{}", cells.get(2..).unwrap_or_default()), look.style(pool.level))
}

/// In columns behind room for the symbol, the name as wide as there is room.
fn pool_cells(width: usize, look: Look, cells: [&str; 7]) -> String {
    let [name, strategy, figures @ ..] = cells;
    let widths = [11, 6, 7, 6, 6];
    let others = 3 + widths.iter().sum::<usize>() + widths.len() + 1 + STRATEGY_WIDTH;
    let mut text = format!(
        "   {} {}",
        fitted(name, width.saturating_sub(others).clamp(8, 32), look),
        fitted(strategy, STRATEGY_WIDTH, look)
    );
    for (figure, width) in figures.iter().zip(widths) {
        let _ = write!(text, " {figure:>width$}");
    }
    text
}

/// `latency_weighted` is the longest.
const STRATEGY_WIDTH: usize = 17;

fn draw_upstreams(frame: &mut Frame<'_>, board: &mut Board, look: Look, area: Rect) {
    board.scroll(usize::from(area.height).saturating_sub(1));
    if board.picture.is_none() || area.height == 0 {
        return;
    }
    let columns = Columns::for_width(usize::from(area.width), board);
    let mut lines = vec![Line::from(bold(columns.heading(board, look)))];
    let cursor = board.cursor();
    for (place, index) in board.order.iter().enumerate().skip(board.offset).take(board.page) {
        let Some(row) = board.rows().get(*index) else { continue };
        let is_chosen = place == cursor;
        let style = look.style(row.verdict.level());
        let text = columns.line(row, is_chosen, look);
        lines.push(Line::styled(text, if is_chosen { reversed(style) } else { style }));
    }
    if board.order.is_empty() {
        let why = if board.filter.is_empty() { "no upstreams" } else { "no upstream passes the filter" };
        lines.push(Line::raw(format!("   {why}")));
    }
    render_lines(frame, lines, area);
}

fn render_lines(frame: &mut Frame<'_>, lines: Vec<Line<'_>>, area: Rect) {
    for (line, row) in lines.into_iter().zip(area.rows()) {
        frame.render_widget(line, row);
    }
}

fn draw_detail(frame: &mut Frame<'_>, board: &Board, look: Look, area: Rect) {
    let Some(row) = board.selected().filter(|_| area.height > 0) else { return };
    let level = row.verdict.level();
    let mut first = vec![bold(row.member.to_string())];
    first.push(format!(": {}", settings(row)).into());
    let why = match row.why.as_str() {
        "" => Line::raw(format!("{}, as it should be", row.verdict.word())),
        why => {
            Line::styled(format!("{} {}: {why}", look.symbol(level), row.verdict.word()), look.style(level))
        }
    };
    let text = Text::from(vec![Line::from(first), why, Line::raw(figures(row))]);
    frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: false }), area);
}

fn settings(row: &Row) -> String {
    let Row { state, health, weight, .. } = row;
    let of = row.max_connections.map_or_else(String::new, |max| format!(" of {max}"));
    let backup = if row.is_backup { ", backup" } else { "" };
    let changed = if row.is_override { ", changed at run time" } else { "" };
    format!(
        "state {state}, health {health}, weight {weight}, {}{of} in flight{backup}{changed}",
        row.in_flight
    )
}

fn figures(row: &Row) -> String {
    let share = row.share.map_or_else(|| "-".to_owned(), percent);
    let [p50, p99] = [row.p50_ms, row.p99_ms].map(milliseconds);
    let mut text = format!("share {share}, fair {}; since the start p50 {p50}, p99 {p99}", percent(row.fair));
    if let Some(check) = &row.last_check {
        let outcome = check
            .error
            .clone()
            .unwrap_or_else(|| format!("passed in {}", milliseconds(Some(check.latency_ms))));
        let _ = write!(text, "; check {} {outcome}", clock(&check.at));
    }
    text
}

fn keys_line<'a>(board: &Board, scene: &Scene<'_>) -> Line<'a> {
    let sight = {
        let last = (board.offset + board.page).min(board.order.len());
        format!("{}-{last} of {}", (board.offset + 1).min(last), board.order.len())
    };
    if board.mode == Mode::Filter {
        return Line::from(vec![
            bold(format!("/{}", board.filter)),
            Span::styled(" ", reversed(Style::new())),
            format!("  Enter keep  Esc clear  {sight}").into(),
        ]);
    }
    if let Some(note) = &board.note {
        return Line::from(bold(note.clone()));
    }
    let (sort, order) = (board.sort.word(), if board.is_reversed { " reversed" } else { "" });
    let filter = if board.filter.is_empty() {
        "/ filter".to_owned()
    } else {
        format!("/{} (Esc clears)", fitted(&board.filter, board.filter.chars().count().min(20), scene.look))
    };
    Line::raw(format!("q quit  ? help  {filter}  s sort: {sort}{order}  d drain  r ready  {sight}"))
}

#[cfg(test)]
mod tests;
