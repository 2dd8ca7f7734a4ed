//! The command line. What was typed becomes a configuration here; the rest of the program never sees
//! an argument.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::balance::StrategyKind;
use crate::config::{self, AccessLog as AccessLogConfig, Config, LogFormat, LogLevel};
use crate::control::Start;
use crate::observe::{self, AccessLog};
use crate::{server, signals};

/// The configuration is invalid.
const EXIT_REFUSED: u8 = 1;
/// The command line is wrong.
const EXIT_USAGE: u8 = 2;
/// An address is taken, or may not be bound.
pub(crate) const EXIT_CANNOT_BIND: u8 = 3;

/// Where we listen when started by `LOAD_BALANCER_SERVERS`.
const LISTEN_BY_ENVIRONMENT: &str = "0.0.0.0:8080";
const SERVERS_VARIABLE: &str = "LOAD_BALANCER_SERVERS";
const DEFAULT_FILE: &str = "evener.toml";

/// An HTTP load balancer: one binary, one small config file.
#[derive(Parser)]
#[command(name = "evener", version, max_term_width = 100)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Balance traffic until a signal ends it.
    Run(Run),
    /// Say whether a configuration file is valid, and everything that is wrong with it.
    Check {
        /// The file to check.
        #[arg(default_value = DEFAULT_FILE)]
        file: PathBuf,
    },
}

#[derive(Args)]
struct Run {
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

/// Why there is nothing to run.
#[derive(Debug)]
enum Failure {
    /// The text says what is wrong and what to do.
    Refused(String),
    Usage(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::Refused(text) | Self::Usage(text)) = self;
        formatter.write_str(text)
    }
}

/// Runs the command line and answers with its exit code: 0 done, 1 refused, 2 wrong usage, 3 cannot
/// bind an address.
pub fn main() -> ExitCode {
    signals::survive_hangup();
    match CommandLine::parse().command {
        Command::Run(arguments) => run(&arguments),
        Command::Check { file } => check(&file),
    }
}

fn check(file: &Path) -> ExitCode {
    match config::load(file) {
        Ok(loaded) => {
            warn(&loaded.warnings);
            let summary = loaded.config.summary();
            // A start would refuse a file whose overrides cannot be read.
            match Start::from_file(file.to_owned(), loaded) {
                Ok(start) => {
                    println!("{} is valid: {summary}", file.display());
                    tell_overrides(&start);
                    ExitCode::SUCCESS
                }
                Err(broken) => refuse(&Failure::Refused(broken)),
            }
        }
        Err(error) => refuse(&Failure::Refused(error.to_string())),
    }
}

/// What was changed at run time under this file, if anything was.
fn tell_overrides(start: &Start) {
    let (holding, ending) = (start.overrides(), start.dropped.len());
    if holding + ending > 0 {
        println!("with what was changed at run time: {holding} in force, {ending} ended by this file");
    }
    for dropped in &start.dropped {
        println!("  ends: {dropped}");
    }
}

fn run(arguments: &Run) -> ExitCode {
    let start = match start(arguments) {
        Ok(start) => start,
        Err(failure) => return refuse(&failure),
    };
    let config = &start.config;
    observe::init_log(level(config.log.level), format(config.log.format));
    let access_log = match open_access_log(config) {
        Ok(log) => log,
        Err(failure) => return refuse(&failure),
    };
    tracing::info!(version = env!("CARGO_PKG_VERSION"), config = %config.summary(), "starting");
    if start.overrides() > 0 {
        tracing::info!(overrides = start.overrides(), "changed at run time, not as in the file");
    }
    for dropped in &start.dropped {
        dropped.tell();
    }
    match server::run(start, access_log, !arguments.no_watch) {
        Ok(()) => ExitCode::SUCCESS,
        Err(cannot_bind) => {
            eprintln!("error: {cannot_bind}");
            ExitCode::from(EXIT_CANNOT_BIND)
        }
    }
}

fn warn(warnings: &config::Report) {
    if warnings.warnings().next().is_some() {
        eprintln!("{warnings}");
    }
}

fn refuse(failure: &Failure) -> ExitCode {
    let (text, code) = match failure {
        Failure::Refused(text) => (text, EXIT_REFUSED),
        Failure::Usage(text) => (text, EXIT_USAGE),
    };
    eprintln!("{}", text.trim_end());
    ExitCode::from(code)
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
    warn(&loaded.warnings);
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
