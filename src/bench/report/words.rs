//! Figures for people, the same in every view.

use crate::bench::verdict::Figure;

/// Where nothing was measured.
pub(super) const NOTHING: &str = "–";

/// Three digits that say something: `0.083`, `1.25`, `12.3`, `340`.
pub(super) fn number(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 99.95 => 0,
        size if size >= 9.995 => 1,
        size if size >= 0.995 || size == 0.0 => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}

/// The median, or a dash.
pub(super) fn median(figure: Option<Figure>) -> String {
    figure.map_or_else(|| NOTHING.to_owned(), |figure| number(figure.median))
}

/// From the least to the most; a dash unless there are two that differ.
pub(super) fn spread(figure: Option<Figure>) -> String {
    match figure {
        Some(Figure { least, most, .. }) if least < most => format!("{}–{}", number(least), number(most)),
        _ => NOTHING.to_owned(),
    }
}

/// A ratio in percent: `0`, `0.031`, `12.5`.
pub(super) fn percent(ratio: f64) -> String {
    if ratio == 0.0 { "0".to_owned() } else { number(ratio * 100.0) }
}

/// The median of a ratio in percent, or a dash.
pub(super) fn median_percent(figure: Option<Figure>) -> String {
    figure.map_or_else(|| NOTHING.to_owned(), |figure| percent(figure.median))
}

/// A number as short as it is: `0.2`, `300`.
pub(super) fn short(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// `met`, `MISSED` or `not measured`.
pub(super) const fn verdict(is_met: Option<bool>) -> &'static str {
    match is_met {
        Some(true) => "met",
        Some(false) => "MISSED",
        None => "not measured",
    }
}

/// The sentence of a verdict without the word that stands in front of it already.
pub(super) fn sentence(words: &str) -> &str {
    let endings = [": met", ": missed", ": MISSED"];
    endings.iter().find_map(|ending| words.strip_suffix(ending)).unwrap_or(words)
}

/// `1 goal`, `2 goals`.
pub(super) fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits_or_so() {
        let shown = [0.0, 0.083, 1.254, 12.34, 99.97, 340.2, 30_215.0].map(number);
        assert_eq!(shown, ["0.00", "0.083", "1.25", "12.3", "100", "340", "30215"]);
        assert_eq!([0.0, 0.000_31, 0.125, 1.0].map(percent), ["0", "0.031", "12.5", "100"]);
        assert_eq!([0.2, 300.0, 1.5].map(short), ["0.2", "300", "1.5"]);
    }

    #[test]
    fn a_spread_needs_two() {
        let figure = |least, most| Some(Figure { median: 29.0, least, most });
        assert_eq!(spread(figure(28.0, 31.5)), "28.0–31.5");
        assert_eq!(spread(figure(29.0, 29.0)), "–");
        assert_eq!((spread(None), median(None)), ("–".to_owned(), "–".to_owned()));
    }

    #[test]
    fn a_verdict_is_said_once() {
        assert_eq!(sentence("p99 is 1.2, at most 1.25: met"), "p99 is 1.2, at most 1.25");
        assert_eq!(sentence("p99 of nginx: not measured, why"), "p99 of nginx: not measured, why");
        assert_eq!([Some(true), Some(false), None].map(verdict), ["met", "MISSED", "not measured"]);
    }
}
