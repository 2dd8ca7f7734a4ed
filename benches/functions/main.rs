//! What single functions on the path of a request cost, in nanoseconds: to pick an upstream, to find a route,
//! to record how it went.
//!
//! Criterion takes the time, compares with the last run and keeps the history in `target/criterion`. At the
//! end stand tables with the best sample of each (the others met a busy machine) and the goals. Nothing fails
//! because it was slow: it fails when an answer is wrong or when something allocates.

mod meter;
mod pick;
mod record;
mod route;

use std::process::ExitCode;

use meter::Meter;

fn main() -> ExitCode {
    let mut meter = Meter::from_arguments();
    pick::measure(&mut meter);
    route::measure(&mut meter);
    let recorded = record::measure(&mut meter);
    meter.finish();
    match recorded {
        Ok(()) => ExitCode::SUCCESS,
        Err(report) => {
            eprintln!("{report}");
            ExitCode::FAILURE
        }
    }
}
