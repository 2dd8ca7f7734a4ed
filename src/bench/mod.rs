//! The benchmark harness: how balancers behave when servers differ, degrade, fail and come back, and what
//! a request costs. `evener bench` runs it; `benches/README.md` says how to read it.
//!
//! ```text
//!   scenario (benches/scenarios/*.toml)
//!      │ schedule: who arrives when, with how much work         the same for every candidate, from one seed
//!      ▼
//!   load ──────────► candidate ──────────► server
//!   open loop,       a process of its own:  scripted app servers:
//!   clients of       Evener, nginx,         workers, a queue, speeds,
//!   this process     HAProxy, Caddy …       failures, at given times
//!      │                 │ CPU time, memory      │
//!      └──────► turn ◄───┴───────────────────────┘   what one candidate did in one round
//!                 │
//!               verdict, report                      ratios within a round, their median and spread
//! ```
//!
//! Clients and servers live in this process, each on a thread of their own; what is measured is the other
//! process. Everything listens on loopback, is bounded in number and time, and ends with us.

pub mod candidate;
pub mod catalogue;
pub mod certificate;
pub mod clock;
pub mod error;
pub mod load;
pub mod machine;
pub mod name;
pub mod oracle;
pub mod process;
pub mod progress;
pub mod report;
pub mod run;
pub mod scenario;
pub mod scenario_file;
pub mod schedule;
pub mod server;
pub mod turn;
pub mod verdict;
