//! How a drain stands, for all commands that ask for one.

use serde::Deserialize;

/// The answer to a drain: how it stands, and in the end how it ended.
#[derive(Deserialize)]
pub(super) struct Drained {
    in_flight: u64,
    /// From other pools that have this address.
    #[serde(default)]
    in_flight_elsewhere: u64,
    /// Whether nobody would notice if the process behind the address ended now.
    pub(super) safe_to_stop: bool,
    /// Pools that still send requests to this address.
    #[serde(default)]
    pub(super) also_in: Vec<String>,
}

impl Drained {
    /// In flight, from whatever pool.
    pub(super) const fn requests(&self) -> u64 {
        self.in_flight.saturating_add(self.in_flight_elsewhere)
    }
}
