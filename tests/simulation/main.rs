//! The `balance` room in a simulated world: virtual time, one seed, no sockets.
//!
//! ```text
//!   arrivals ──► Proxy: Strategy::pick ──► Server: workers, one queue, a speed that changes
//!                  ▲ Tuner::tick               │
//!                  └── Load ◄── answer, failure or timeout
//! ```
//!
//! `world` is the model, `scenarios` what `ALGORITHMS.md` §2 and §8 promise, `chaos` everything at once
//! while the invariants are checked at each step. A failing run prints its seed; `EVENER_SEED=N` repeats it.
//! `cargo test --test simulation -- --ignored --nocapture` prints the table of figures.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail")]

mod chaos;
mod scenarios;
mod server;
mod upstream;
mod world;

/// The seed of every run: `EVENER_SEED`, or one that was rolled once.
fn seed() -> u64 {
    let seed = std::env::var("EVENER_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20_261_121);
    println!("EVENER_SEED={seed}");
    seed
}
