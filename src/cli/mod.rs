//! The command line. What was typed becomes a configuration to run or check, or a question to the side
//! port of the process that runs; the rest of the program never sees an argument.
//!
//! ```text
//!   mod.rs ──┬─► run.rs, check.rs                            this process
//!   (index)  └─► one file per family ──► client.rs ──► the side port of another
//!                        │                   └── refused.rs: what it says no to, and what to do then
//!                        └── output.rs: tables, figures, colour, a pipe that closes
//! ```
//!
//! **To add a command**: its file after the pattern of `reload.rs`, a variant of `Command` with its
//! example, and a play in `tests/behaviour/clients.rs`.

mod applied;
mod apply;
mod bench;
mod bench_bare;
mod check;
mod client;
mod completions;
mod drained;
mod explain;
mod failure;
mod guard;
mod history;
mod man;
mod member;
mod output;
mod overrides;
mod plan;
mod pools;
mod refused;
mod reload;
mod request;
mod run;
mod status;
mod top;
mod upgrade;
mod upstream;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::signals;

/// The configuration is invalid, or the side port said no.
const EXIT_REFUSED: u8 = 1;
/// The command line is wrong.
const EXIT_USAGE: u8 = 2;
/// An address is taken, or may not be bound.
pub(crate) const EXIT_CANNOT_BIND: u8 = 3;
/// Nobody answers at the side port, or nobody whom we understand.
const EXIT_UNREACHABLE: u8 = 4;

const DEFAULT_FILE: &str = "evener.toml";

/// An HTTP load balancer: one binary, one small config file.
#[derive(Parser)]
#[command(name = "evener", version, max_term_width = 100, after_help = EXIT_CODES)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str =
    "Exit codes: 0 done, 1 refused, 2 wrong usage, 3 cannot bind an address, 4 cannot reach the admin API.";

const UPGRADE_HELP: &str = "\
The new program must lie where the running one was started from. It gets the same arguments, the listening sockets,
what was learned and counted, and --timeout to come to serve; if it does not, nothing changes. The old process then
finishes what it has, for at most `server.drain_timeout`. SIGUSR2 and SIGQUIT do the same.

Under systemd the unit needs Type=notify and NotifyAccess=all. Other supervisors that watch one process, such as an
init of a container, take its end for the end of the service: restart there instead.

Example:
  install evener /usr/local/bin/evener && evener upgrade --why 'version 0.2'";

#[derive(Subcommand)]
enum Command {
    /// Balance traffic until a signal ends it.
    Run(run::Run),
    /// Say whether a configuration file is valid, and everything that is wrong with it.
    Check(check::Check),
    /// Say what runs, and how it is.
    #[command(after_help = "Example:\n  evener status --admin http://127.0.0.1:9900")]
    Status(status::Status),
    /// List the pools with their upstreams.
    #[command(after_help = "Examples:\n  evener pools\n  evener pools app --json")]
    Pools(pools::Pools),
    /// Watch pools and upstreams in the terminal, and drain or ready them: `?` lists the keys.
    #[command(
        after_help = "Examples:\n  evener top\n  evener top --sort latency --filter app/\n  evener top --once | awk '$3 == \"down\" { print $2 }'\n  ssh -t balancer evener top"
    )]
    Top(top::Top),
    /// Say which route takes a request and why, and which upstream would get it; or how one went that was made.
    #[command(
        after_help = "Examples:\n  evener explain --host api.example.com --method POST /v1/users\n  evener explain 4f0c1d6b8a2e4c0d9b7a5e3f1c2d4b6a"
    )]
    Explain(explain::Explain),
    /// Read the configuration file again.
    #[command(after_help = "Example:\n  evener reload --why 'new certificates'")]
    Reload(reload::Reload),
    /// Say what applying a file would change, and whom it would touch. Changes nothing.
    #[command(after_help = "Examples:\n  evener plan new.toml\n  git show HEAD:evener.toml | evener plan -")]
    Plan(plan::Plan),
    /// Make a file the configuration, guarded if asked: it is rolled back when it does harm.
    #[command(
        after_help = "Examples:\n  evener apply new.toml\n  evener apply new.toml --guard 60s --max-error-ratio 0.02 --why 'canary to 10 %'"
    )]
    Apply(apply::Apply),
    /// Keep a guarded configuration that waits for it (`apply --confirm`).
    #[command(after_help = "Example:\n  evener confirm")]
    Confirm(guard::Confirm),
    /// Say how the guarded configuration stands, or how the last one ended.
    #[command(after_help = "Example:\n  evener guard")]
    Guard(guard::Show),
    /// Go back to the configuration before, or to that of a generation.
    #[command(after_help = "Examples:\n  evener rollback\n  evener rollback 7 --why 'as before the release'")]
    Rollback(history::Rollback),
    /// List the configurations that ran, or print the file of one.
    #[command(after_help = "Examples:\n  evener history\n  evener history 7 > evener.toml")]
    History(history::History),
    /// List what was changed at run time and differs from the file, or drop it.
    #[command(after_help = "Examples:\n  evener overrides\n  evener overrides --drop")]
    Overrides(overrides::Overrides),
    /// Send an upstream no new requests, and say when it is safe to stop.
    #[command(
        after_help = "Examples:\n  evener drain app/10.0.1.10:8080 --wait 30s && ssh 10.0.1.10 systemctl restart app\n  evener drain app/unix:/run/app.sock"
    )]
    Drain(upstream::Drain),
    /// Send an upstream requests again, after `drain` or `maintenance`.
    #[command(after_help = "Example:\n  evener ready app/10.0.1.10:8080")]
    Ready(upstream::Ready),
    /// Take an upstream out: no new requests, no health checks.
    #[command(after_help = "Example:\n  evener maintenance app/10.0.1.10:8080 --why 'new disk'")]
    Maintenance(upstream::Maintenance),
    /// Give an upstream another share of the traffic.
    #[command(after_help = "Example:\n  evener weight app/10.0.1.10:8080 5")]
    Weight(upstream::Weight),
    /// Hand over to this program: the running process starts it, and ends once it serves. Nobody is refused.
    #[command(after_help = UPGRADE_HELP)]
    Upgrade(upgrade::Upgrade),
    /// Compare strategies, and Evener with other balancers, on this machine.
    #[command(
        after_help = "Examples:\n  evener bench --list\n  evener bench one_slow --against nginx,haproxy --report report\n  evener bench --short --json figures.json"
    )]
    Bench(bench::Bench),
    /// Print what a shell needs to complete this command line.
    #[command(
        after_help = "Examples:\n  evener completions bash > /etc/bash_completion.d/evener\n  evener completions zsh > ~/.zfunc/_evener"
    )]
    Completions(completions::Completions),
    /// Print the manual, or write all of its pages.
    #[command(
        after_help = "Examples:\n  evener man | man -l -\n  evener man drain | man -l -\n  evener man --into /usr/local/share/man/man1"
    )]
    Man(man::Manual),
    /// The smallest proxy that Pingora can be; the bench starts it.
    #[command(hide = true)]
    BenchBare(bench_bare::BenchBare),
}

/// Runs the command line and answers with its exit code: 0 done, 1 refused, 2 wrong usage, 3 cannot
/// bind an address, 4 cannot reach the admin API.
pub fn main() -> ExitCode {
    signals::survive_hangup();
    let command = CommandLine::try_parse().unwrap_or_else(|error| {
        // A new version may not know an argument that the old one was started with.
        crate::upgrade::report_misunderstanding(&error.to_string());
        error.exit()
    });
    let command = command.command;
    // A terminal wants to be given back first.
    if !matches!(command, Command::Run(_) | Command::Top(_)) {
        signals::end_by_hangup();
    }
    command.run().unwrap_or_else(|failure| {
        output::complain(&failure.to_string());
        failure.code()
    })
}

impl Command {
    fn run(self) -> Result<ExitCode, failure::Failure> {
        match self {
            Self::Run(run) => run.run(),
            Self::Check(check) => check.run(),
            Self::Status(status) => status.run(),
            Self::Pools(pools) => pools.run(),
            Self::Top(top) => top.run(),
            Self::Explain(explain) => explain.run(),
            Self::Reload(reload) => reload.run(),
            Self::Plan(plan) => plan.run(),
            Self::Apply(apply) => apply.run(),
            Self::Confirm(confirm) => confirm.run(),
            Self::Guard(guard) => guard.run(),
            Self::Rollback(rollback) => rollback.run(),
            Self::History(history) => history.run(),
            Self::Overrides(overrides) => overrides.run(),
            Self::Drain(drain) => drain.run(),
            Self::Ready(ready) => ready.run(),
            Self::Maintenance(maintenance) => maintenance.run(),
            Self::Weight(weight) => weight.run(),
            Self::Upgrade(upgrade) => upgrade.run(),
            Self::Bench(bench) => bench.run(),
            Self::Completions(completions) => completions.run(),
            Self::Man(man) => man.run(),
            Self::BenchBare(bare) => bare.run(),
        }
    }
}
