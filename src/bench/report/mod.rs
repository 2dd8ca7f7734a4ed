//! What came out, for people and for programs.
//!
//! ```text
//!   Run: an Outcome per scenario ──► Group: the turns of one candidate ──► medians over rounds
//!                                                                             │
//!             table, summary (terminal)  ◄────────────────────────────────────┤
//!             json (everything)          ◄────────────────────────────────────┤
//!             page (HTML, charts in it)  ◄────────────────────────────────────┘
//! ```
//!
//! Every view says when the bench itself was in the way (`doubts`): such figures must not be quoted.
//!
//! **To add a figure**: its method on `Group`, then its column in `table`, `page` and `json`.

mod axis;
mod charts;
mod doubts;
mod events;
mod group;
mod ink;
mod json;
mod page;
mod table;
#[cfg(test)]
mod testing;
mod words;

use std::time::SystemTime;

use super::name::Candidate;
use super::scenario::Scenario;
use super::turn::Turn;
use super::verdict::Verdict;

pub use json::{SCHEMA_VERSION, json};
pub use page::page;
pub use table::{summary, table};

use doubts::doubts;
use group::{Group, groups};

/// What came out of one scenario.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was to happen.
    pub scenario: Scenario,
    /// Every candidate's turns, those of an earlier round first.
    pub turns: Vec<Turn>,
    /// One for each expectation of the scenario.
    pub verdicts: Vec<Verdict>,
    /// Of the first round; each later round counts up.
    pub seed: u64,
    /// Whose turns came to nothing, each with what happened.
    pub broken: Vec<(Candidate, String)>,
}

/// All that one call of `evener bench` found out.
#[derive(Clone, Debug)]
pub struct Run {
    /// The machine's facts, each with its name.
    pub machine: Vec<(String, String)>,
    /// Who took part, in which version.
    pub versions: Vec<(Candidate, String)>,
    /// One per scenario.
    pub outcomes: Vec<Outcome>,
    /// When it began.
    pub started: SystemTime,
    /// The command line.
    pub command: String,
}
