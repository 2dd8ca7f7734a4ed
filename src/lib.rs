#![doc = include_str!("README.md")]

// Floor 0: domain. No clock, no randomness, no I/O, no locks.
pub mod balance;
pub mod health;
pub mod proxy_header;
pub mod retry;
pub mod route;

// Floor 1: description. Text in, numbers out.
pub mod config;
pub mod observe;

// Floor 2: state, what is running now.
pub mod runtime;

// Floor 3: control, the one writer.
pub mod control;

// Floor 4: doors, each to one part of the outside world.
pub mod admin;
pub mod probe;
pub mod proxy;

// The roof: assembles, knows everyone.
pub mod bench;
pub mod cli;
mod descriptors;
mod otlp;
pub mod server;
pub mod signals;
pub mod upgrade;

/// What the targets of `tests/fuzz` reach, and nobody else.
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::{
        admin::fuzzing as admin, config::fuzzing as config, control::fuzzing as control,
        proxy::fuzzing as proxy,
    };
}
