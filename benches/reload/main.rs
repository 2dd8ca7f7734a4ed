//! What a change of the configuration costs: the writer, and the requests that are under way meanwhile.
//!
//! `changes.rs` takes the time of changes, on one thread; `stall.rs` puts a steady load on the binary and
//! compares latency with and without reloads. Nothing fails because it was slow: goals stand beside the
//! figures. It fails when a change is refused, or a request is not answered with 200.

mod changes;
mod stall;
mod text;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let is_quick =
        std::env::var_os("BENCH_QUICK").is_some() || std::env::args().any(|word| word == "--quick");
    match changes::measure(is_quick).and_then(|()| stall::measure(is_quick)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}
