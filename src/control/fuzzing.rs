//! The door for `tests/fuzz`: overrides, there and back.

use std::path::PathBuf;

use super::overrides::{self, Override};
use super::store::Store;
use super::{Author, Dropped};
use crate::config::{Config, PoolConfig};

/// What is different about a pool from what the file says.
pub fn difference(file: &PoolConfig, running: &PoolConfig, author: &Author) -> Vec<Override> {
    overrides::difference(file, running, &[], author)
}

/// What runs, which overrides hold, and which end.
pub fn reconcile(file: &Config, overrides: &[Override]) -> (Config, Vec<Override>, Vec<Dropped>) {
    overrides::reconcile(file, overrides)
}

/// Writes an overrides file beside this configuration file, and reads it again; `None`: it cannot be written.
pub fn stored(file: PathBuf, overrides: &[Override]) -> Option<Result<Vec<Override>, String>> {
    let store = Store { file };
    store.write(None, Some(overrides)).ok()?;
    Some(store.overrides())
}
