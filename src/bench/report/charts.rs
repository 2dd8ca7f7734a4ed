//! Charts, as SVG for the inside of a page.
//!
//! Text has the fonts of the viewer and colours follow the page's style sheet ([`super::ink`]). Legends are
//! the page's, beside the chart: there they wrap, and cover no line.

use std::fmt::Write as _;
use std::io;
use std::iter;

use plotters::backend::SVGBackend;
use plotters::chart::{ChartBuilder, ChartContext};
use plotters::coord::Shift;
use plotters::coord::cartesian::Cartesian2d;
use plotters::drawing::{DrawingArea, DrawingAreaErrorKind, IntoDrawingArea};
use plotters::element::{PathElement, Rectangle, Text};
use plotters::series::{AreaSeries, LineSeries};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, IntoFont, TRANSPARENT, TextStyle};

use super::axis::{Axis, place_of};
use super::events::{events, scripted, whom};
use super::group::{Group, quantiles};
use super::ink::{EVENT, FAIR, GRID, Ink, OTHERS, OTHERS_LINE, SCRIPTED, TEXT, WARMUP};
use super::words::{number, percent};
use crate::bench::error::BenchError;
use crate::bench::scenario::{Measure, Scenario};

/// A drawing, and what its colours mean.
pub(super) struct Chart {
    pub(super) title: String,
    pub(super) svg: String,
    pub(super) legend: Vec<Key>,
}

/// A line of a legend.
pub(super) struct Key {
    pub(super) ink: Ink,
    /// An area, not a line.
    pub(super) is_area: bool,
    pub(super) words: String,
}

/// Units of a chart; a page shows it in a little more than half as many pixels.
const LARGE: Size = Size { width: 960, height: 560 };
/// One of many, beside each other.
const SMALL: Size = Size { width: 720, height: 460 };
/// Height of letters.
const FONT: f64 = 25.0;
/// Mean width of a letter, with some to spare; the true width depends on the viewer's font.
const LETTER: f64 = FONT * 0.58;
/// Height of a line of words above the chart.
const ROW: i32 = 34;
/// For what stands left of the vertical axis: its title, its marks.
const LEFT: i32 = 116;
/// Half of the last mark of the horizontal axis reaches beyond it.
const RIGHT: i32 = 52;
/// For the marks and the title of the horizontal axis.
const BELOW: i32 = 88;
const TOP: i32 = 14;
/// Width of lines.
const LINE: u32 = 4;
/// Points of a curve of percentiles.
const CURVE_STEPS: u32 = 120;
/// Servers that are told apart; more are lines by group.
const AREAS_MAX: usize = 12;

/// In units of a chart.
#[derive(Clone, Copy)]
struct Size {
    width: i32,
    height: i32,
}

type Canvas<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<Axis, Axis>>;
type Drawn = Result<(), DrawingAreaErrorKind<io::Error>>;

/// Latency by percentile, a line for each candidate; none when nobody answered.
pub(super) fn percentiles(scenario: &Scenario, groups: &[Group<'_>]) -> Result<Option<Chart>, BenchError> {
    let quantiles = quantiles(CURVE_STEPS);
    let nines = |(quantile, latency): (f64, f64)| (-(1.0 - quantile).log10(), latency);
    let lines: Vec<Line> = groups
        .iter()
        .map(|group| Line::of(group, vec![group.curve(&quantiles).into_iter().map(nines).collect()]))
        .collect();
    lines_chart(
        Frame {
            title: "Latency by percentile".to_owned(),
            about: format!("Latency of successful requests by percentile in {}", scenario.name),
            x: Axis::nines(),
            x_words: "percentile of successful requests",
            y: latencies(&lines),
            y_words: "latency in ms, log scale",
            script: None,
            size: LARGE,
            is_tinted: true,
        },
        lines,
    )
}

/// p99 second by second, with what the script did; none when nobody answered.
pub(super) fn seconds(scenario: &Scenario, groups: &[Group<'_>]) -> Result<Option<Chart>, BenchError> {
    let lines: Vec<Line> =
        groups.iter().map(|group| Line::of(group, without_gaps(&group.p99_by_second()))).collect();
    lines_chart(
        Frame {
            title: "p99, second by second".to_owned(),
            about: format!("99th percentile of latency in each second of {}", scenario.name),
            x: Axis::linear(scenario.duration.as_secs_f64()),
            x_words: "time in s",
            y: latencies(&lines),
            y_words: "p99 in ms, log scale",
            script: Some(scenario),
            size: LARGE,
            is_tinted: true,
        },
        lines,
    )
}

/// Which server got which share, second by second; none where nobody chose.
pub(super) fn shares(scenario: &Scenario, group: &Group<'_>) -> Result<Option<Chart>, BenchError> {
    let answers = group.answers_by_second();
    let is_silent = answers.iter().flatten().all(|&count| count <= 0.0);
    if scenario.servers < 2 || is_silent {
        return Ok(None);
    }
    let layers = Layers::of(scenario, &answers);
    if scenario.servers <= AREAS_MAX {
        layers.areas(scenario, group).map(Some)
    } else {
        layers.lines(scenario, group)
    }
}

/// A bar for each candidate that has the figure; none when nobody has.
pub(super) fn bars(
    title: &str,
    unit: &'static str,
    groups: &[Group<'_>],
    value: impl Fn(&Group<'_>) -> Option<f64>,
) -> Result<Option<Chart>, BenchError> {
    let all: Vec<(&Group<'_>, f64)> =
        groups.iter().filter_map(|group| Some((group, value(group)?.max(0.0)))).collect();
    if all.is_empty() {
        return Ok(None);
    }
    let most = all.iter().map(|(_, value)| *value).fold(0.0, f64::max);
    let frame = Frame {
        title: title.to_owned(),
        about: format!("{title}, {unit}"),
        x: Axis::linear_with_room(most * BAR_ROOM),
        x_words: unit,
        y: Axis::of_names(all.iter().map(|(group, _)| group.candidate.name().to_owned())),
        y_words: "",
        script: None,
        size: LARGE,
        is_tinted: true,
    };
    let draw = |canvas: &mut Canvas<'_, '_>| -> Drawn {
        for (index, (group, value)) in all.iter().enumerate() {
            let middle = place_of(index, all.len());
            let corners = [(0.0, middle - BAR / 2.0), (*value, middle + BAR / 2.0)];
            let colour = Ink::of(group.candidate).colour();
            canvas.draw_series(iter::once(Rectangle::new(corners, colour.filled())))?;
            let words = format!("\u{a0}\u{a0}{}", number(*value));
            canvas.draw_series(iter::once(Text::new(
                words,
                (*value, middle),
                words_style(TEXT, HPos::Left),
            )))?;
        }
        Ok(())
    };
    frame.chart(Vec::new(), draw).map(Some)
}

/// Thickness of a bar, of the place that a name has.
const BAR: f64 = 0.6;
/// The longest bar leaves room for its figure.
const BAR_ROOM: f64 = 1.15;

/// Around all points of these lines.
fn latencies(lines: &[Line]) -> Axis {
    Axis::log(lines.iter().flat_map(|line| line.pieces.iter().flatten()).map(|point| point.1))
}

/// The middle of each second, in pieces wherever a second has no value.
fn without_gaps(seconds: &[Option<f64>]) -> Vec<Vec<(f64, f64)>> {
    let middles: Vec<(f64, Option<f64>)> =
        seconds.iter().enumerate().map(|(second, value)| (second as f64 + 0.5, *value)).collect();
    let pieces = middles.split(|(_, value)| value.is_none());
    pieces.map(|piece| piece.iter().filter_map(|(at, value)| Some((*at, (*value)?))).collect()).collect()
}

/// A line, in one piece or several.
struct Line {
    ink: Ink,
    words: String,
    pieces: Vec<Vec<(f64, f64)>>,
}

impl Line {
    fn of(group: &Group<'_>, pieces: Vec<Vec<(f64, f64)>>) -> Self {
        let errors = group.figure(Measure::Errors).map_or(0.0, |errors| errors.median);
        let failed = if errors > 0.0 { format!(" ({} % failed)", percent(errors)) } else { String::new() };
        Self { ink: Ink::of(group.candidate), words: format!("{}{failed}", group.candidate), pieces }
    }

    fn is_empty(&self) -> bool {
        self.pieces.iter().all(Vec::is_empty)
    }
}

fn lines_chart(frame: Frame<'_>, lines: Vec<Line>) -> Result<Option<Chart>, BenchError> {
    let (lines, absent): (Vec<Line>, Vec<Line>) = lines.into_iter().partition(|line| !line.is_empty());
    if lines.is_empty() {
        return Ok(None);
    }
    let key = |line: &Line| Key { ink: line.ink, is_area: false, words: line.words.clone() };
    let nothing = |line: &Line| Key { words: format!("{}: too few answers", line.words), ..key(line) };
    let legend = lines.iter().map(key).chain(absent.iter().map(nothing)).collect();
    let draw = |canvas: &mut Canvas<'_, '_>| -> Drawn {
        for line in &lines {
            let style = line.ink.colour().stroke_width(LINE);
            for piece in &line.pieces {
                // A lone second would be a line without length.
                let size = if piece.len() == 1 { LINE } else { 0 };
                canvas.draw_series(LineSeries::new(piece.iter().copied(), style).point_size(size))?;
            }
        }
        Ok(())
    };
    frame.chart(legend, draw).map(Some)
}

/// Who gets what: servers of the script first, since they are what one looks for.
struct Layers {
    /// Servers in the order of drawing, from the bottom.
    order: Vec<usize>,
    /// How many of them the script is about.
    scripted: usize,
    /// By second, then by place in `order`: share of all answers.
    shares: Vec<Vec<f64>>,
}

impl Layers {
    fn of(scenario: &Scenario, answers: &[Vec<f64>]) -> Self {
        let first = scripted(scenario);
        let others = (0..scenario.servers).filter(|server| first.binary_search(server).is_err());
        let order: Vec<usize> = first.iter().copied().chain(others).collect();
        let share = |second: &Vec<f64>| {
            let all: f64 = second.iter().sum();
            let of = |&server: &usize| {
                second.get(server).map_or(0.0, |count| if all > 0.0 { count / all } else { 0.0 })
            };
            order.iter().map(of).collect()
        };
        let shares = answers.iter().map(share).collect();
        Self { scripted: first.len(), shares, order }
    }

    fn areas(&self, scenario: &Scenario, group: &Group<'_>) -> Result<Chart, BenchError> {
        let end = scenario.duration.as_secs_f64();
        let frame = shares_frame(scenario, group, Axis::linear(100.0), "share of answers in %");
        let draw = |canvas: &mut Canvas<'_, '_>| -> Drawn {
            // From the top, so that each area covers what is not its own.
            for layer in (0..self.order.len()).rev() {
                let height = |shares: &Vec<f64>| shares.iter().take(layer + 1).sum::<f64>() * 100.0;
                let points = in_steps(&self.shares.iter().map(height).collect::<Vec<f64>>(), end);
                let colour = self.ink(layer).colour().filled();
                canvas.draw_series(AreaSeries::new(points, 0.0, colour).border_style(TRANSPARENT))?;
            }
            if (1..self.order.len()).contains(&self.scripted) {
                let fair = 100.0 * self.scripted as f64 / self.order.len() as f64;
                let style = FAIR.colour().stroke_width(LINE - 1);
                canvas.draw_series(iter::once(PathElement::new([(0.0, fair), (end, fair)], style)))?;
            }
            Ok(())
        };
        frame.chart(self.legend(), draw)
    }

    fn ink(&self, layer: usize) -> Ink {
        let inks = if layer < self.scripted { SCRIPTED } else { OTHERS };
        if layer.is_multiple_of(2) { inks[0] } else { inks[1] }
    }

    fn legend(&self) -> Vec<Key> {
        let all = self.order.len();
        let (first, others) = self.order.split_at(self.scripted);
        let area = |ink, words| Key { ink, is_area: true, words };
        let in_script = format!("{} (in the script)", whom(first, all));
        let mut legend = Vec::new();
        if !first.is_empty() {
            legend.push(area(SCRIPTED[0], in_script));
        }
        if !others.is_empty() {
            let words = match (others.len(), first.len()) {
                (1, _) => whom(others, all),
                (_, 0) => format!("{}, one band each", whom(others, all)),
                (count, _) => format!("the other {count} servers, one band each"),
            };
            legend.push(area(OTHERS[0], words));
        }
        if !first.is_empty() && !others.is_empty() {
            legend.push(Key { ink: FAIR, is_area: false, words: "a fair share of the former".to_owned() });
        }
        legend
    }

    /// Too many for areas: the mean server of either group, or the most and the least busy one.
    fn lines(&self, scenario: &Scenario, group: &Group<'_>) -> Result<Option<Chart>, BenchError> {
        let all = self.order.len();
        // In multiples of the fair share, so that groups of unlike size compare.
        let line = |ink, words, of: &dyn Fn(&[f64]) -> f64| {
            let values: Vec<f64> = self.shares.iter().map(|shares| of(shares) * all as f64).collect();
            Line { ink, words, pieces: vec![in_the_middle(&values)] }
        };
        let mean = |shares: &[f64]| shares.iter().sum::<f64>() / shares.len() as f64;
        let (first, others) = self.order.split_at(self.scripted);
        let lines = if first.is_empty() || others.is_empty() {
            vec![
                line(SCRIPTED[0], "the busiest server".to_owned(), &|shares| {
                    shares.iter().copied().fold(0.0, f64::max)
                }),
                line(OTHERS_LINE, "the least busy one".to_owned(), &|shares| {
                    shares.iter().copied().fold(f64::INFINITY, f64::min)
                }),
            ]
        } else {
            let words = |servers: &[usize], what| format!("{}: mean of {what}", whom(servers, all));
            vec![
                line(SCRIPTED[0], words(first, "those in the script"), &|shares| {
                    mean(shares.get(..self.scripted).unwrap_or(&[]))
                }),
                line(OTHERS_LINE, words(others, "the others"), &|shares| {
                    mean(shares.get(self.scripted..).unwrap_or(&[]))
                }),
            ]
        };
        let most = lines
            .iter()
            .flat_map(|line| line.pieces.iter().flatten())
            .map(|point| point.1)
            .fold(1.0, f64::max);
        let frame = shares_frame(scenario, group, Axis::linear_with_room(most), "share, × the fair one");
        lines_chart(frame, lines)
    }
}

fn shares_frame<'a>(scenario: &'a Scenario, group: &Group<'_>, y: Axis, y_words: &'static str) -> Frame<'a> {
    Frame {
        title: format!("Share of traffic: {}", group.candidate),
        about: format!("Share of answers by server in each second of {}, {}", scenario.name, group.candidate),
        x: Axis::linear(scenario.duration.as_secs_f64()),
        x_words: "time in s",
        y,
        y_words,
        script: Some(scenario),
        size: SMALL,
        // A tint would change what areas mean.
        is_tinted: scenario.servers > AREAS_MAX,
    }
}

fn in_the_middle(values: &[f64]) -> Vec<(f64, f64)> {
    values.iter().enumerate().map(|(second, &value)| (second as f64 + 0.5, value)).collect()
}

/// A value for each second, kept from its beginning to its end, so that steps stand where things happen.
fn in_steps(values: &[f64], end: f64) -> Vec<(f64, f64)> {
    let step =
        |(second, &value): (usize, &f64)| [(second as f64, value), ((second as f64 + 1.0).min(end), value)];
    values.iter().enumerate().flat_map(step).filter(|(at, _)| *at <= end).collect()
}

/// What is around a drawing.
struct Frame<'a> {
    title: String,
    /// For those who do not see it.
    about: String,
    x: Axis,
    x_words: &'static str,
    y: Axis,
    y_words: &'static str,
    /// Whose events are marked along the horizontal axis.
    script: Option<&'a Scenario>,
    size: Size,
    /// Events lie over the chart as a tint, and not by their edges alone.
    is_tinted: bool,
}

impl Frame<'_> {
    fn chart(
        self,
        legend: Vec<Key>,
        draw: impl FnOnce(&mut Canvas<'_, '_>) -> Drawn,
    ) -> Result<Chart, BenchError> {
        let (title, about) = (self.title.clone(), self.about.clone());
        let mut svg = String::new();
        let (marks, rows) = placed(self.script.map(marks).unwrap_or_default(), &self.x, self.size.width);
        // Names take no room from what they are about.
        let size = Size { height: self.size.height + rows * ROW, ..self.size };
        self.drawn(&mut svg, size, (&marks, rows), draw)
            .map_err(|error| BenchError::Io(io::Error::other(error.to_string())))?;
        Ok(Chart { title, svg: inlined(&svg, &about, size), legend })
    }

    fn drawn(
        self,
        svg: &mut String,
        size: Size,
        (marks, rows): (&[Mark], i32),
        draw: impl FnOnce(&mut Canvas<'_, '_>) -> Drawn,
    ) -> Drawn {
        let root = SVGBackend::with_string(svg, size.in_units()).into_drawing_area();
        let is_tinted = self.is_tinted;
        let left = if self.y_words.is_empty() { LEFT_OF_NAMES } else { LEFT };
        let mut canvas = ChartBuilder::on(&root)
            .margin_top(TOP + rows * ROW)
            .margin_right(RIGHT)
            .x_label_area_size(BELOW)
            .y_label_area_size(left)
            .build_cartesian_2d(self.x, self.y)?;
        draw_grid(&mut canvas, self.x_words, self.y_words)?;
        draw(&mut canvas)?;
        for mark in marks {
            mark.draw(&mut canvas, &root, is_tinted)?;
        }
        drop(canvas);
        root.present()
    }
}

/// Names of candidates are longer than figures.
const LEFT_OF_NAMES: i32 = 270;

fn draw_grid(canvas: &mut Canvas<'_, '_>, x_words: &str, y_words: &str) -> Drawn {
    let is_of_names = y_words.is_empty();
    let mut mesh = canvas.configure_mesh();
    mesh.bold_line_style(GRID.colour().stroke_width(2))
        .light_line_style(TRANSPARENT)
        .axis_style(TEXT.colour().stroke_width(2))
        .label_style(font(TEXT))
        .axis_desc_style(font(TEXT))
        .set_all_tick_mark_size(6)
        .x_desc(x_words)
        .y_desc(y_words);
    if is_of_names {
        mesh.disable_y_mesh();
    }
    mesh.draw()
}

fn font(ink: Ink) -> TextStyle<'static> {
    // The backend divides by this.
    ("sans-serif", FONT * 1.24).into_font().color(&ink.colour())
}

fn words_style(ink: Ink, from: HPos) -> TextStyle<'static> {
    font(ink).pos(Pos::new(from, VPos::Center))
}

/// Something that lasts for some time, and its name above the chart.
struct Mark {
    ink: Ink,
    words: String,
    spans: Vec<(f64, f64)>,
    /// Where the name is: its row, its left edge in units of the chart.
    row: i32,
    left: i32,
}

/// The warm-up and what the script does for a part of the time.
fn marks(scenario: &Scenario) -> Vec<Mark> {
    let mark = |ink, words, spans| Mark { ink, words, spans, row: 0, left: 0 };
    let warmup = scenario.warmup.as_secs_f64();
    let warmup = (warmup > 0.0).then(|| mark(WARMUP, "warm-up".to_owned(), vec![(0.0, warmup)]));
    let events = events(scenario).into_iter().filter(|event| !event.is_throughout);
    warmup.into_iter().chain(events.map(|event| mark(EVENT, event.words, event.spans))).collect()
}

/// More names than that would leave no room for the chart; the page lists all of them.
const ROWS_MAX: i32 = 4;

/// Between two names of a row.
const BETWEEN: i32 = 20;

/// Each name in the first row where it hides no other, and how many rows there are.
fn placed(marks: Vec<Mark>, x: &Axis, room: i32) -> (Vec<Mark>, i32) {
    let mut ends: Vec<i32> = Vec::new();
    let mut rows = 0;
    let place = |mut mark: Mark| {
        mark.words = shortened(&mark.words, room);
        let width = text_width(&mark.words);
        let from = mark.spans.first().map_or(0.0, |span| span.0);
        mark.left = along(x, from, room).min(room - width).max(0);
        mark.row = ends.iter().position(|end| *end < mark.left).map_or(ROWS_MAX, to_i32);
        if mark.row == ROWS_MAX && to_i32(ends.len()) < ROWS_MAX {
            mark.row = to_i32(ends.len());
            ends.push(0);
        }
        if let Some(end) = usize::try_from(mark.row).ok().and_then(|row| ends.get_mut(row)) {
            *end = mark.left + width + BETWEEN;
        }
        rows = to_i32(ends.len());
        mark
    };
    let marks = marks.into_iter().map(place).collect();
    (marks, rows)
}

impl Size {
    const fn in_units(self) -> (u32, u32) {
        (self.width.unsigned_abs(), self.height.unsigned_abs())
    }
}

/// What there is room for; the page has the whole of it.
fn shortened(words: &str, room: i32) -> String {
    let count = words.chars().count();
    let fits = (0..=count).rev().find(|&count| letters_width(count) <= room).unwrap_or(0);
    if fits == count {
        words.to_owned()
    } else {
        words.chars().take(fits.saturating_sub(1)).chain(['…']).collect()
    }
}

fn to_i32(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn text_width(words: &str) -> i32 {
    letters_width(words.chars().count())
}

#[expect(clippy::cast_possible_truncation, reason = "as many units as a name is long")]
fn letters_width(count: usize) -> i32 {
    (count as f64 * LETTER).ceil() as i32
}

#[expect(clippy::cast_possible_truncation, reason = "within the chart")]
fn along(x: &Axis, value: f64, width: i32) -> i32 {
    LEFT + (x.fraction(value) * f64::from(width - LEFT - RIGHT)) as i32
}

impl Mark {
    fn draw(
        &self,
        canvas: &mut Canvas<'_, '_>,
        root: &DrawingArea<SVGBackend<'_>, Shift>,
        is_tinted: bool,
    ) -> Drawn {
        let (top, bottom) = {
            let y = canvas.y_range();
            (y.end, y.start)
        };
        for &(from, until) in &self.spans {
            let band = self.ink.colour().mix(if is_tinted { BAND_OPACITY } else { 0.0 }).filled();
            canvas.draw_series(iter::once(Rectangle::new([(from, top), (until, bottom)], band)))?;
            for edge in [from, until] {
                let line = self.ink.colour().mix(EDGE_OPACITY).stroke_width(2);
                canvas.draw_series(iter::once(PathElement::new([(edge, top), (edge, bottom)], line)))?;
            }
        }
        if self.row < ROWS_MAX {
            let middle = TOP / 2 + self.row * ROW + ROW / 2;
            root.draw(&Text::new(
                self.words.clone(),
                (self.left, middle),
                words_style(self.ink, HPos::Left),
            ))?;
        }
        Ok(())
    }
}

const BAND_OPACITY: f64 = 0.12;
const EDGE_OPACITY: f64 = 0.6;

/// For the inside of a page: as wide as there is room, and with words for those who do not see it.
fn inlined(svg: &str, about: &str, Size { width, height }: Size) -> String {
    let inside = svg.split_once('>').map_or(svg, |(_, inside)| inside);
    let mut text = String::new();
    let about = super::page::escaped(about);
    let _ =
        write!(text, "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{about}\">{inside}");
    text
}

#[cfg(test)]
mod tests {
    use super::super::groups;
    use super::super::testing::{outcome, silent_outcome, thousand};
    use super::*;

    fn all(outcome: &super::super::Outcome) -> Vec<Chart> {
        let (scenario, groups) = (&outcome.scenario, groups(outcome));
        let mut charts = vec![percentiles(scenario, &groups), seconds(scenario, &groups)];
        charts.extend(groups.iter().map(|group| shares(scenario, group)));
        charts.push(bars("CPU", "µs", &groups, |group| group.cpu_us_per_request().map(|cpu| cpu.median)));
        charts.into_iter().filter_map(|chart| chart.expect("it is drawn")).collect()
    }

    #[test]
    fn charts_have_numbers_only_and_words_for_all() {
        for outcome in [outcome(), thousand()] {
            let charts = all(&outcome);
            assert_eq!(charts.len(), 3 + groups(&outcome).len());
            for Chart { svg, title, .. } in &charts {
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{title}: {svg}");
                assert!(svg.contains("role=\"img\" aria-label=\""), "{title}");
                assert!(svg.ends_with("</svg>\n"), "{title}");
                assert!(svg.contains("<text "), "{title}");
            }
        }
    }

    #[test]
    fn events_are_marked_where_time_runs() {
        let outcome = outcome();
        for chart in all(&outcome) {
            let runs_in_time = chart.svg.contains("time in s");
            assert_eq!(chart.svg.contains("server 0: speed 0.2"), runs_in_time, "{}", chart.title);
        }
    }

    #[test]
    fn without_answers_there_is_no_chart() {
        assert!(all(&silent_outcome()).is_empty());
    }

    #[test]
    fn names_above_a_chart_hide_none_of_each_other() {
        let mark = |from, words: &str| Mark {
            ink: EVENT,
            words: words.to_owned(),
            spans: vec![(from, from + 1.0)],
            row: 0,
            left: 0,
        };
        let marks = (0..9).map(|from| mark(f64::from(from), "server 0: answers 500 in 1 ms")).collect();
        let (marks, rows) = placed(marks, &Axis::linear(20.0), SMALL.width);
        assert_eq!(rows, ROWS_MAX);
        let shown: Vec<&Mark> = marks.iter().filter(|mark| mark.row < ROWS_MAX).collect();
        assert!(shown.len() >= 4, "{}", shown.len());
        for (index, one) in shown.iter().enumerate() {
            for other in shown.iter().skip(index + 1).filter(|other| other.row == one.row) {
                assert!(one.left + text_width(&one.words) <= other.left);
            }
        }
        assert!(shown.iter().all(|mark| mark.left + text_width(&mark.words) <= SMALL.width));
    }

    #[test]
    fn a_second_without_answers_is_a_gap() {
        let pieces = without_gaps(&[Some(3.0), None, Some(4.0), Some(5.0)]);
        assert_eq!(pieces, [vec![(0.5, 3.0)], vec![(2.5, 4.0), (3.5, 5.0)]]);
    }
}
