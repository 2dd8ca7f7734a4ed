//! The door for `tests/fuzz`: the readers of single values, as plain functions.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;

use super::values;

/// A duration with its unit.
pub fn duration(text: &str) -> Option<Duration> {
    values::duration(text, Duration::ZERO).ok()
}

/// The shortest spelling of a duration.
pub fn duration_text(duration: Duration) -> String {
    values::duration_text(duration)
}

/// A size with its unit.
pub fn size(text: &str, most: u64) -> Option<u64> {
    values::size(text, 0, most).ok()
}

/// The shortest spelling of a size.
pub fn size_text(bytes: u64) -> String {
    values::size_text(bytes)
}

/// An address to listen on.
pub fn own_address(text: &str) -> Option<SocketAddr> {
    values::own_address(text).ok()
}

/// A network or an address.
pub fn network(text: &str) -> Option<IpNet> {
    values::network(text).ok()
}

/// The name of a listener, route or pool.
pub fn name(text: &str) -> Option<String> {
    values::name(text).ok()
}

/// The name of a header, in lower case.
pub fn header_name(text: &str) -> Option<String> {
    values::header_name(text).ok().map(|name| name.as_str().to_owned())
}

/// The value of a header, in bytes.
pub fn header_value(text: &str) -> Option<Vec<u8>> {
    values::header_value(text).ok().map(|value| value.as_bytes().to_vec())
}

/// The path of a Unix socket.
pub fn unix_path(text: &str) -> Option<&Path> {
    values::unix_path(text).ok()
}

/// How text of others is shown in a message.
pub fn shown(text: &str) -> String {
    values::shown(text)
}
