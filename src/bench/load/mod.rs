//! The load generator: clients that keep to their schedule.
