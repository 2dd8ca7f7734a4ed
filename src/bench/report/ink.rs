//! Colours of charts, by day and by night.
//!
//! A chart is drawn once, in the colours of the day; the page's style sheet says which colour each of them
//! becomes at night, and which lines are dashed. So every colour here is its own key and must be unique.
//! Colours that belong together differ in lightness or dash, too: one in twelve men sees no difference
//! between red and green.

use std::fmt::{self, Write as _};

use plotters::style::RGBColor;

use crate::balance::StrategyKind;
use crate::bench::name::Candidate;

/// One colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ink {
    day: u32,
    night: u32,
    /// As in CSS, in units of a chart; empty: solid.
    dash: &'static str,
}

/// Axes and words.
pub(super) const TEXT: Ink = Ink::solid(0x33_38_3E, 0xC9_D1_D9);
/// Lines of the grid.
pub(super) const GRID: Ink = Ink::solid(0xDD_E1_E6, 0x30_36_3D);
/// What the script does.
pub(super) const EVENT: Ink = Ink::solid(0xB3_5A_00, 0xF0_A0_50);
/// What is not counted.
pub(super) const WARMUP: Ink = Ink::solid(0x6E_77_81, 0x8B_94_9E);
/// A share that would be fair.
pub(super) const FAIR: Ink = Ink { day: 0x11_11_11, night: 0xFF_FF_FF, dash: "4 6" };

/// Servers of the script, in turns, so that neighbours differ.
pub(super) const SCRIPTED: [Ink; 2] =
    [Ink::solid(0xD5_5E_01, 0xE8_7A_2E), Ink::solid(0xE6_9F_01, 0xF2_BE_4A)];
/// The other servers, in turns.
pub(super) const OTHERS: [Ink; 2] = [Ink::solid(0x9C_C3_E0, 0x2F_5D_86), Ink::solid(0xC3_DC_EE, 0x44_78_A6)];
/// A group of servers as a line, where they are too many for areas.
pub(super) const OTHERS_LINE: Ink = Ink::solid(0x00_72_B3, 0x6C_B8_F0);

impl Ink {
    const fn solid(day: u32, night: u32) -> Self {
        Self { day, night, dash: "" }
    }

    const fn dashed(day: u32, night: u32, dash: &'static str) -> Self {
        Self { day, night, dash }
    }

    /// The same colour in every chart: the palette of Okabe and Ito (2008) and shades of it. Ours are solid.
    pub(super) const fn of(candidate: Candidate) -> Self {
        match candidate {
            Candidate::Evener(StrategyKind::RoundRobin) => Self::solid(0xCC_79_A7, 0xE8_A6_CB),
            Candidate::Evener(StrategyKind::LeastConnections) => Self::solid(0x00_9E_73, 0x3F_CF_A2),
            Candidate::Evener(StrategyKind::LatencyWeighted) => Self::solid(0x00_72_B2, 0x5A_AD_EC),
            Candidate::Evener(StrategyKind::RandomTwo) => Self::solid(0xE6_9F_00, 0xF4_BC_45),
            Candidate::Evener(StrategyKind::ConsistentHash) => Self::solid(0x56_B4_E9, 0x9A_D5_F7),
            Candidate::Logged => Self::solid(0x8A_4F_7D, 0xC7_8F_BA),
            Candidate::Perfect => Self::dashed(0x00_00_00, 0xF5_F5_F5, "3 7"),
            Candidate::Direct => Self::dashed(0x7A_7A_7A, 0xA6_A6_A6, "14 6"),
            Candidate::Bare => Self::dashed(0x8C_6D_31, 0xCF_AE_70, "14 6 3 6"),
            Candidate::Nginx => Self::dashed(0xD5_5E_00, 0xFF_8B_45, "14 6"),
            Candidate::Haproxy => Self::dashed(0x6A_3D_9A, 0xB9_8F_EA, "14 6 3 6"),
            Candidate::Caddy => Self::dashed(0x11_8A_9C, 0x55_D0_DE, "3 7"),
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "a byte is what is wanted")]
    pub(super) const fn colour(self) -> RGBColor {
        RGBColor((self.day >> 16) as u8, (self.day >> 8) as u8, self.day as u8)
    }
}

/// As the charts spell it.
impl fmt::Display for Ink {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "#{:06X}", self.day)
    }
}

fn all() -> impl Iterator<Item = Ink> {
    let fixed = [TEXT, GRID, EVENT, WARMUP, FAIR, OTHERS_LINE];
    fixed.into_iter().chain(SCRIPTED).chain(OTHERS).chain(Candidate::all().map(Ink::of))
}

/// The rules of a style sheet for all of this.
pub(super) fn style_sheet() -> String {
    let mut rules = String::new();
    for ink in all().filter(|ink| !ink.dash.is_empty()) {
        let _ = writeln!(rules, "[stroke=\"{ink}\"] {{ stroke-dasharray: {}; }}", ink.dash);
    }
    rules.push_str("@media (prefers-color-scheme: dark) {\n");
    for ink in all() {
        let night = ink.night;
        let _ = writeln!(
            rules,
            "[stroke=\"{ink}\"] {{ stroke: #{night:06X}; }} [fill=\"{ink}\"] {{ fill: #{night:06X}; }}"
        );
    }
    rules.push_str("}\n");
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_colour_is_its_own_key() {
        let mut days: Vec<u32> = all().map(|ink| ink.day).collect();
        let count = days.len();
        days.sort_unstable();
        days.dedup();
        assert_eq!(days.len(), count);
    }

    #[test]
    fn every_colour_of_the_day_has_one_of_the_night() {
        let rules = style_sheet();
        assert!(all().all(|ink| rules.contains(&format!("[fill=\"{ink}\"] {{ fill: #"))), "{rules}");
        assert!(rules.contains("[stroke=\"#000000\"] { stroke-dasharray: 3 7; }"), "{rules}");
    }
}
