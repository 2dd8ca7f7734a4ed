//! A control over files in a folder, for the tests of this room.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::{Author, Change, Control, Start};
use crate::config::{self, PoolEdit, resolved_address};
use crate::observe::ChangeOrigin;
use crate::runtime::Runtime;

/// Runs this text as `evener.toml` in the folder.
pub(super) fn control(folder: &Path, text: &str) -> Arc<Control> {
    let path = folder.join("evener.toml");
    fs::write(&path, text).unwrap();
    let start = Start::from_file(path.clone(), config::load(&path).unwrap()).unwrap();
    let runtime = Arc::new(Runtime::new(start.config.clone(), start.generation, 0, None));
    Arc::new(Control::new(runtime, start))
}

pub(super) fn author() -> Author {
    Author { origin: ChangeOrigin::Admin, who: "me".to_owned(), why: None }
}

/// Another weight of 127.0.0.1:9001 in the pool `app`.
pub(super) fn weigh(weight: u64) -> Change {
    let address = resolved_address("127.0.0.1:9001").unwrap();
    Change::Edit { pool: "app".to_owned(), edits: vec![PoolEdit::Weight(address, weight)] }
}
