//! The axes of charts: marks where people expect them, and no value that cannot be drawn.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

use super::group::{NINES_LEAST, NINES_MOST};
use super::words::short;

/// One axis. Values beyond its ends are drawn at them.
pub(super) struct Axis {
    least: f64,
    most: f64,
    is_log: bool,
    marks: Vec<(f64, String)>,
}

/// The most marks that an axis has room for.
const MARKS_MAX: usize = 8;

impl Axis {
    /// From zero, in even steps of 1, 2 or 5.
    pub(super) fn linear(most: f64) -> Self {
        let most = if most.is_finite() && most > 0.0 { most } else { 1.0 };
        let step = ones_twos_fives(most / 1_000.0, most).find(|step| most / step < MARKS_MAX as f64);
        let step = step.unwrap_or(most);
        let marks = counted_by(step).take_while(|mark| *mark <= most * ROUNDING);
        Self { least: 0.0, most, is_log: false, marks: marks.map(|mark| (mark, short(mark))).collect() }
    }

    /// The same, up to the next mark, so that there is room above the largest value.
    pub(super) fn linear_with_room(most: f64) -> Self {
        let tight = Self::linear(most);
        let step = tight.marks.get(1).map_or(tight.most, |(mark, _)| *mark);
        Self::linear((tight.most / step * ROUNDING.recip()).ceil() * step)
    }

    /// Logarithmic, around all values that are above zero, with marks at 1, 2 and 5.
    pub(super) fn log(values: impl Iterator<Item = f64>) -> Self {
        let (mut least, mut most) = (f64::INFINITY, 0.0_f64);
        for value in values.filter(|value| value.is_finite() && *value > 0.0) {
            (least, most) = (least.min(value), most.max(value));
        }
        if least > most {
            (least, most) = (1.0, 10.0);
        }
        let around: Vec<f64> = ones_twos_fives(least / 10.0, most * 10.0).collect();
        let below = around.iter().rfind(|mark| **mark <= least).copied().unwrap_or(least);
        let above = around.iter().find(|mark| **mark >= most && **mark > below).copied().unwrap_or(most);
        let within = || around.iter().copied().filter(|mark| (below..=above).contains(mark));
        let is_crowded = within().count() > MARKS_MAX;
        let marks = within().filter(|mark| !is_crowded || is_power_of_ten(*mark));
        let marks = marks.map(|mark| (mark, short(mark))).collect();
        Self { least: below, most: above, is_log: true, marks }
    }

    /// Nines: -log10(1 - quantile), from the median to 99.99 %.
    pub(super) fn nines() -> Self {
        let marks =
            [(NINES_LEAST, "50 %"), (1.0, "90 %"), (2.0, "99 %"), (3.0, "99.9 %"), (NINES_MOST, "99.99 %")];
        let marks = marks.map(|(mark, words)| (mark, words.to_owned())).to_vec();
        Self { least: NINES_LEAST, most: NINES_MOST, is_log: false, marks }
    }

    /// A place for each name, the first one at the top.
    pub(super) fn of_names(names: impl ExactSizeIterator<Item = String>) -> Self {
        let count = names.len();
        let marks = names.enumerate().map(|(index, name)| (place_of(index, count), name)).collect();
        Self { least: 0.0, most: count.max(1) as f64, is_log: false, marks }
    }

    /// How far along the axis, 0 to 1.
    pub(super) fn fraction(&self, value: f64) -> f64 {
        let scale = |value: f64| if self.is_log { value.ln() } else { value };
        let fraction = (scale(value) - scale(self.least)) / (scale(self.most) - scale(self.least));
        if fraction.is_nan() { 0.0 } else { fraction.clamp(0.0, 1.0) }
    }
}

/// The middle of the place of the `index`-th of `count` names.
pub(super) fn place_of(index: usize, count: usize) -> f64 {
    count.saturating_sub(index) as f64 - 0.5
}

/// A mark that is beyond the end by the error of a sum still is a mark.
const ROUNDING: f64 = 1.000_001;

fn counted_by(step: f64) -> impl Iterator<Item = f64> {
    (0..=100).map(move |index| f64::from(index) * step)
}

/// …, 0.5, 1, 2, 5, 10, … within these bounds, both above zero.
fn ones_twos_fives(least: f64, most: f64) -> impl Iterator<Item = f64> {
    let decades = (-9..=9).map(|decade| 10_f64.powi(decade));
    let all = decades.flat_map(|ten| [ten, 2.0 * ten, 5.0 * ten]);
    all.filter(move |mark| (least..=most).contains(mark))
}

fn is_power_of_ten(mark: f64) -> bool {
    let power = mark.log10();
    (power - power.round()).abs() < 1e-9
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    #[expect(clippy::cast_possible_truncation, reason = "between the limits")]
    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        let along = self.fraction(*value) * f64::from(to - from);
        from + along.round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.marks.iter().map(|(mark, _)| *mark).collect()
    }

    fn range(&self) -> Range<f64> {
        self.least..self.most
    }
}

impl ValueFormatter<f64> for Axis {
    #[expect(clippy::float_cmp, reason = "it is one of the marks, untouched")]
    fn format_ext(&self, value: &f64) -> String {
        self.marks.iter().find(|(mark, _)| mark == value).map_or_else(String::new, |(_, words)| words.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(axis: &Axis) -> Vec<&str> {
        axis.marks.iter().map(|(_, words)| words.as_str()).collect()
    }

    #[test]
    fn marks_are_where_people_expect_them() {
        assert_eq!(words(&Axis::linear(20.0)), ["0", "5", "10", "15", "20"]);
        assert_eq!(words(&Axis::linear(0.3)), ["0", "0.05", "0.1", "0.15", "0.2", "0.25", "0.3"]);
        assert_eq!(words(&Axis::linear_with_room(21.0)), ["0", "5", "10", "15", "20", "25"]);
        assert_eq!(words(&Axis::log([3.0, 47.0].into_iter())), ["2", "5", "10", "20", "50"]);
        assert_eq!(words(&Axis::log([0.3, 1_900.0].into_iter())), ["1", "10", "100", "1000"]);
    }

    #[test]
    fn an_axis_of_nothing_still_is_one() {
        for axis in [
            Axis::log(std::iter::empty()),
            Axis::log([f64::NAN, 0.0, f64::INFINITY].into_iter()),
            Axis::log([5.0].into_iter()),
            Axis::linear(f64::NAN),
            Axis::linear_with_room(0.0),
            Axis::of_names(std::iter::empty()),
        ] {
            assert!(axis.least < axis.most, "{:?}", axis.marks);
            for odd in [f64::NAN, f64::INFINITY, -1.0, 0.0] {
                assert!((0..=100).contains(&axis.map(&odd, (0, 100))));
            }
        }
    }
}
