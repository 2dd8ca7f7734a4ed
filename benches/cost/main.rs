//! What a request, an idle connection and the process itself cost: Evener beside a bare Pingora proxy.
//!
//! ```text
//!   wrk (64 connections) ──► Evener   ──► origin (nginx, a small body from memory)
//!                        ──► bare     ──►    the smallest `ProxyHttp`, built with the same flags
//!                        ──► nginx    ──►    for reference, when installed
//!                        ──► HAProxy  ──►    for reference, when installed
//!                        ──► Caddy    ──►    for reference, when installed
//! ```
//!
//! One worker thread each, in turns, round after round: what the machine does beside falls on all alike.
//! The figure is requests per *CPU-second* of the proxy (user and system time), because that is what a
//! request costs, whoever else runs on the machine; times on the wall are shown and not judged. The run
//! fails when something is broken (an error in a response), never because it was slow.
//!
//! This binary is also the bare proxy, the stand-in origin and the stand-in load generator: it starts
//! itself again with the name of a [`role`]. Everything it starts listens on loopback and ends with it.

mod bare;
mod candidate;
mod connections;
mod exchange;
mod generator;
mod load;
mod machine;
mod memory;
mod options;
mod origin;
mod process;
mod report;
mod role;
mod throughput;

use std::process::ExitCode;

use clap::Parser;

use candidate::Candidate;
use options::Options;
use process::Failure;
use report::Report;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if let Some(exit) = role::play() {
        return exit;
    }
    match run(&Options::parse()) {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(options: &Options) -> Result<Report, Failure> {
    process::stop_on_signals()?;
    let folder = tempfile::tempdir()?;
    let origin = origin::start(folder.path())?;
    let load = load::Tool::find(folder.path())?;
    let machine = machine::describe(&load, &origin);
    let candidates = Candidate::installed(options);
    let at = candidate::Place { folder: folder.path(), origin: origin.address };

    let throughput = throughput::measure(&candidates, &at, &load, options)?;
    let memory = memory::measure(&candidates, &at, options)?;
    let growth = memory::growth(Candidate::Evener, &at, &load, options)?;
    Ok(Report { machine, throughput, memory, growth })
}
