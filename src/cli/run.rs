//! `evener run`: from flags, a file or the environment to a running process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::failure::Failure;
use super::{DEFAULT_FILE, EXIT_CANNOT_BIND, output};
use crate::balance::StrategyKind;
use crate::config::{self, AccessLog as AccessLogConfig, Config, LogFormat, LogLevel};
use crate::control::Start;
use crate::observe::{self, AccessLog};
use crate::server;
use crate::upgrade::{self, Predecessor};

/// Where we listen when started by `LOAD_BALANCER_SERVERS`.
const LISTEN_BY_ENVIRONMENT: &str = "0.0.0.0:8080";
const SERVERS_VARIABLE: &str = "LOAD_BALANCER_SERVERS";

#[derive(Args)]
pub(super) struct Run {
    /// The configuration file [default: evener.toml].
    #[arg(short, long, conflicts_with_all = ["listen", "to", "strategy"])]
    config: Option<PathBuf>,
    /// Without a file: where to listen.
    #[arg(long, requires = "to", value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Without a file: an upstream; repeat for more.
    #[arg(long, requires = "listen", value_name = "ADDRESS")]
    to: Vec<String>,
    /// Without a file: how to choose among upstreams [default: `round_robin`].
    #[arg(long, requires = "to", value_parser = strategy)]
    strategy: Option<StrategyKind>,
    /// Do not follow the configuration file; SIGHUP and the side port still reload it.
    #[arg(long)]
    no_watch: bool,
}

impl Run {
    /// Balances traffic until a signal ends it.
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        let result = self.try_run();
        if let Err(failure) = &result {
            upgrade::report_failure(&failure.to_string());
        }
        result
    }

    fn try_run(&self) -> Result<ExitCode, Failure> {
        use_small_pages();
        let predecessor = Predecessor::meet().map_err(|error| {
            Failure::Refused(format!(
                "error: cannot take over from the process that started this one: {error}"
            ))
        })?;
        let pid = predecessor.as_ref().map(Predecessor::pid);
        let start = start(self)?.following(pid, upgrade::own_file());
        let config = &start.config;
        observe::init_log(level(config.log.level), format(config.log.format));
        let access_log = open_access_log(config)?;
        tracing::info!(version = env!("CARGO_PKG_VERSION"), config = %config.summary(), predecessor = pid, "starting");
        if start.overrides() > 0 {
            tracing::info!(overrides = start.overrides(), "changed at run time, not as in the file");
        }
        for dropped in &start.dropped {
            dropped.tell();
        }
        Ok(match server::run(start, access_log, !self.no_watch, predecessor) {
            Ok(()) => ExitCode::SUCCESS,
            Err(cannot_bind) => {
                upgrade::report_failure(&cannot_bind.to_string());
                output::complain(&format!("error: {cannot_bind}"));
                ExitCode::from(EXIT_CANNOT_BIND)
            }
        })
    }
}

/// Asks the kernel for no huge pages. Where it hands them out unasked (Debian's and Red Hat's do), each of
/// many small heaps, one per thread and size, would begin with two MiB: twice the memory of an idle process.
fn use_small_pages() {
    // An old kernel, or a sandbox that forbids it: then it is only larger.
    let _ = nix::sys::prctl::set_thp_disable(true);
}

/// From `--listen` and `--to`, or the file, or the environment, in this order.
fn start(arguments: &Run) -> Result<Start, Failure> {
    if let Some(listen) = arguments.listen {
        return from_addresses(listen, &arguments.to, arguments.strategy);
    }
    let servers = std::env::var(SERVERS_VARIABLE).ok().filter(|servers| !servers.trim().is_empty());
    if let (None, Some(servers)) = (&arguments.config, servers) {
        let listen = LISTEN_BY_ENVIRONMENT.parse().map_err(|_| Failure::Usage(String::new()))?;
        return from_addresses(listen, &config::addresses_in(&servers), None).map_err(|failure| {
            Failure::Refused(format!("error in {SERVERS_VARIABLE}={servers}\n{failure}"))
        });
    }
    let path = arguments.config.clone().unwrap_or_else(|| DEFAULT_FILE.into());
    if arguments.config.is_none() && !path.exists() {
        return Err(Failure::Usage(format!(
            "error: there is no {DEFAULT_FILE} here\n  = help: name a file with --config FILE, or start without one: evener run --listen 127.0.0.1:8080 --to 127.0.0.1:9001"
        )));
    }
    let loaded = config::load(&path).map_err(|error| Failure::Refused(error.to_string()))?;
    super::check::warn(&loaded.warnings);
    // A reload finds the file again wherever the process stands by then.
    let path = std::path::absolute(&path).unwrap_or(path);
    Start::from_file(path, loaded).map_err(Failure::Refused)
}

fn from_addresses(
    listen: SocketAddr,
    to: &[String],
    strategy: Option<StrategyKind>,
) -> Result<Start, Failure> {
    config::from_addresses(listen, to, strategy).map(Start::from_arguments).map_err(Failure::Usage)
}

/// Reads the word of `--strategy`.
fn strategy(word: &str) -> Result<StrategyKind, String> {
    StrategyKind::ALL
        .into_iter()
        .find(|kind| kind.name() == word)
        .ok_or_else(|| format!("expected one of {}", StrategyKind::ALL.map(StrategyKind::name).join(", ")))
}

fn open_access_log(config: &Config) -> Result<Option<AccessLog>, Failure> {
    let target = match &config.log.access {
        AccessLogConfig::Off => return Ok(None),
        AccessLogConfig::Stdout => observe::Target::Stdout,
        AccessLogConfig::File(path) => observe::Target::File(path.clone()),
    };
    AccessLog::open(target, format(config.log.format)).map(Some).map_err(|error| {
        Failure::Refused(format!(
            "error: cannot open the access log: {error}\n  = help: `log.access` names a file in a folder that this process may write to"
        ))
    })
}

const fn level(level: LogLevel) -> tracing::Level {
    match level {
        LogLevel::Error => tracing::Level::ERROR,
        LogLevel::Warn => tracing::Level::WARN,
        LogLevel::Info => tracing::Level::INFO,
        LogLevel::Debug => tracing::Level::DEBUG,
        LogLevel::Trace => tracing::Level::TRACE,
    }
}

const fn format(format: LogFormat) -> observe::Format {
    match format {
        LogFormat::Text => observe::Format::Text,
        LogFormat::Json => observe::Format::Json,
    }
}
