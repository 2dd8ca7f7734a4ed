//! Tells the service manager how we are (`sd_notify(3)`): a datagram to the socket in `NOTIFY_SOCKET`.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

const SOCKET: &str = "NOTIFY_SOCKET";

/// Says this (`READY=1`, `STOPPING=1` …), if somebody wants to know.
pub(crate) fn notify(state: &str) {
    let Some(socket) = env::var_os(SOCKET).filter(|socket| !socket.is_empty()) else { return };
    if let Err(error) = send(&socket, state) {
        tracing::warn!(socket = %socket.display(), %error, "the service manager cannot be told");
    }
}

/// That the configuration is read again, or another process started; `READY=1` ends it.
pub(crate) fn notify_reloading() {
    notify(&format!("RELOADING=1\nMONOTONIC_USEC={}", super::heir::monotonic_us()));
}

/// Whether systemd watches this very process, and is not told when another one takes its place: it would
/// take our end for the end of the service, and end the successor.
pub(super) fn would_end_the_successor() -> bool {
    let watched = env::var("SYSTEMD_EXEC_PID").is_ok_and(|pid| pid == std::process::id().to_string());
    watched && env::var_os(SOCKET).is_none()
}

fn send(socket: &OsStr, state: &str) -> io::Result<()> {
    // One that begins with `@` is a name, and no file.
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}
