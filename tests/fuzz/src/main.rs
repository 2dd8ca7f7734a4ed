//! Fuzz targets: what Evener reads from strangers, from disk and from operators, one file per target.
//!
//! ```text
//!   EVENER_FUZZ=head ──► TARGETS ──► head::run(bytes)     panics when something is wrong
//! ```
//!
//! One binary holds them all, since most of the time would go into linking; `make fuzz` builds it with
//! libFuzzer's coverage on the stable compiler, and runs each target on its `corpus/<target>/`. What crashes is
//! left in `tests/fuzz/crashes/`; to see it again: `EVENER_FUZZ=<target> <binary> tests/fuzz/crashes/<file>`.
//!
//! **To add a target**: a file with `run`, its line in [`TARGETS`], some small inputs in `corpus/<target>/`.

#![no_main]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod admin;
mod chunked;
mod config;
mod engines;
mod forwarded;
mod frames;
mod head;
mod header_edits;
mod pool_edit;
mod proxy_header;
mod route;
mod secrets;
mod state;
mod values;

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

type Target = fn(&[u8]);

const TARGETS: [(&str, Target); 13] = [
    ("admin", admin::run),
    ("chunked", chunked::run),
    ("config", config::run),
    ("forwarded", forwarded::run),
    ("frames", frames::run),
    ("head", head::run),
    ("header_edits", header_edits::run),
    ("pool_edit", pool_edit::run),
    ("proxy_header", proxy_header::run),
    ("route", route::run),
    ("secrets", secrets::run),
    ("state", state::run),
    ("values", values::run),
];

static CHOSEN: OnceLock<Target> = OnceLock::new();

fn chosen() -> Target {
    let name = std::env::var("EVENER_FUZZ").unwrap_or_default();
    let names = TARGETS.map(|(name, _)| name).join(", ");
    let target = TARGETS.iter().find(|(known, _)| *known == name);
    target.unwrap_or_else(|| panic!("set EVENER_FUZZ to one of {names}")).1
}

fuzz_target!(|bytes: &[u8]| CHOSEN.get_or_init(chosen)(bytes));

/// Cuts off the first line, if it is text.
fn first_line(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = bytes.iter().position(|&byte| byte == b'\n')?;
    Some((std::str::from_utf8(&bytes[..end]).ok()?, &bytes[end + 1..]))
}

/// Where pieces of so many bytes end, when they are cut by a number: a few long ones or many short ones.
fn cuts(length: usize, seed: u8) -> Vec<usize> {
    let step = usize::from(seed % 16) * 3 + 1;
    (step..length).step_by(step).chain([length]).collect()
}
