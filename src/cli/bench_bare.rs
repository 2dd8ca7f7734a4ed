//! `evener bench-bare`: what the bench compares us with, played by the same binary. Hidden; nobody types it.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Args;

use super::failure::Failure;
use crate::bench::candidate::play_bare;

#[derive(Args)]
pub(super) struct BenchBare {
    /// Where to listen.
    listen: SocketAddr,
    /// The server behind it.
    to: SocketAddr,
    /// Worker threads.
    threads: usize,
}

impl BenchBare {
    #[expect(clippy::unnecessary_wraps, reason = "as its siblings")]
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        play_bare(self.listen, self.to, self.threads);
        Ok(ExitCode::SUCCESS)
    }
}
