//! The parts that this binary plays when it is started again by itself.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use super::{bare, generator, origin};

const BARE: &str = "play-bare-pingora";
const ORIGIN: &str = "play-origin";
const LOAD: &str = "play-load";

/// Plays the part that the first argument names, to its end; `None` when it names none.
pub(crate) fn play() -> Option<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    let role = arguments.next()?;
    let play = |played: Option<()>| played.map_or(ExitCode::from(2), |()| ExitCode::SUCCESS);
    match role.as_str() {
        BARE => Some(play(two_addresses(arguments).and_then(|(listen, to)| bare::run(listen, to)))),
        ORIGIN => Some(play(arguments.next().and_then(|listen| origin::run(listen.parse().ok()?)))),
        LOAD => Some(play(generator::run(arguments))),
        _ => None,
    }
}

fn two_addresses(mut arguments: impl Iterator<Item = String>) -> Option<(SocketAddr, SocketAddr)> {
    Some((arguments.next()?.parse().ok()?, arguments.next()?.parse().ok()?))
}

pub(crate) fn bare(listen: SocketAddr, to: SocketAddr) -> Command {
    ourselves(BARE, &[listen.to_string(), to.to_string()])
}

pub(crate) fn origin(listen: SocketAddr) -> Command {
    ourselves(ORIGIN, &[listen.to_string()])
}

/// `to` is loaded for so many seconds over so many connections.
pub(crate) fn load(to: SocketAddr, connections: usize, seconds: u64) -> Command {
    ourselves(LOAD, &[to.to_string(), connections.to_string(), seconds.to_string()])
}

fn ourselves(role: &str, arguments: &[String]) -> Command {
    let mut command =
        Command::new(std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/proc/self/exe")));
    command.arg(role).args(arguments);
    command
}
